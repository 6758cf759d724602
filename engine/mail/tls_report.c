#include "mail/tls_report.h"

#include <errno.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/zone.h"
#include "mail/encode.h"
#include "mail/mime.h"
#include "smtp/address.h"

#define GZIP_WINDOW       (15 + 16) /* zlib's: with gzip's header */
#define HTTPS_PORT        443
#define ADDRESS_BYTES_MAX 254 /* RFC 5321 4.5.3.1.3, without <> */

const char *tls_report_policy_name(enum tls_report_policy_type type)
{
    static const char *const names[TLS_REPORT_POLICIES] = {[TLS_REPORT_NO_POLICY] =
                                                               "no-policy-found",
                                                           [TLS_REPORT_STS] = "sts",
                                                           [TLS_REPORT_TLSA] = "tlsa"};

    ASSERT(type < TLS_REPORT_POLICIES);
    return names[type];
}

const char *tls_report_result_name(enum tls_report_result result)
{
    static const char *const names[TLS_REPORT_RESULTS] = {
        [TLS_REPORT_SUCCESS] = "success",
        [TLS_REPORT_STARTTLS_NOT_SUPPORTED] = "starttls-not-supported",
        [TLS_REPORT_HOST_MISMATCH] = "certificate-host-mismatch",
        [TLS_REPORT_EXPIRED] = "certificate-expired",
        [TLS_REPORT_NOT_TRUSTED] = "certificate-not-trusted",
        [TLS_REPORT_VALIDATION_FAILURE] = "validation-failure",
        [TLS_REPORT_TLSA_INVALID] = "tlsa-invalid",
        [TLS_REPORT_DNSSEC_INVALID] = "dnssec-invalid",
        [TLS_REPORT_DANE_REQUIRED] = "dane-required",
        [TLS_REPORT_STS_FETCH] = "sts-policy-fetch-error",
        [TLS_REPORT_STS_INVALID] = "sts-policy-invalid",
        [TLS_REPORT_STS_WEBPKI] = "sts-webpki-invalid"};

    ASSERT(result < TLS_REPORT_RESULTS);
    return names[result];
}

/* --- the TXT record --- */

static bool take_prefix(struct str *s, struct str prefix)
{
    if (!str_starts_nocase(*s, prefix))
        return false;
    *s = (struct str){s->ptr + prefix.len, s->len - prefix.len};
    return true;
}

static int hex_of(char c)
{
    c = ascii_lower(c);
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The text with its %XX decoded (RFC 3986 2.1), appended to out. False: a bad one. */
static bool put_decoded(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (c == '%') {
            int high = i + 2 < s.len ? hex_of(s.ptr[i + 1]) : -1;
            int low = i + 2 < s.len ? hex_of(s.ptr[i + 2]) : -1;

            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        buf_putc(out, c);
    }
    return true;
}

/* Positions in out->text until all is in it: it may move. */
struct place {
    size_t at, len;
};

/* mailto: one address; what follows '?' is not looked at. An address literal has no place here:
 * strangers would choose which host, of our own network too, mail is given to. */
static bool read_mailto(struct str rest, struct tls_report_targets *out, struct place *address)
{
    struct smtp_address parsed;
    struct str text;

    rest = str_take(&rest, '?');
    address->at = out->text.len;
    if (!put_decoded(&out->text, rest))
        return false;
    address->len = out->text.len - address->at;
    text = (struct str){(const char *)out->text.data + address->at, address->len};
    return text.len > 0 && text.len <= ADDRESS_BYTES_MAX && str_is_ascii(text) &&
           smtp_address_parse(text, false, &parsed) == 0 && parsed.domain.len > 0 &&
           parsed.domain.ptr[0] != '[';
}

/* A name: the last label of an IPv4 address, in whatever form, begins with a digit, and no
 * top-level domain does. */
static bool is_host(struct str s)
{
    ptrdiff_t dot;

    if (s.len > 0 && s.ptr[s.len - 1] == '.')
        s.len--;
    dot = str_rfind(s, '.');
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);

        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.')
            return false;
    }
    return s.len > 0 && s.len <= 253 && str_find(s, '.') > 0 && ascii_lower(s.ptr[dot + 1]) >= 'a';
}

/* https://host[:port][/path]; a user, an address or a fragment has no place here. */
static bool read_https(struct str rest, struct tls_report_targets *out,
                       struct tls_report_target *target, struct place *host, struct place *path)
{
    size_t end = 0;
    struct str authority, port;
    uint64_t number = HTTPS_PORT;

    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?' && rest.ptr[end] != '#')
        end++;
    authority = (struct str){rest.ptr, end};
    rest = (struct str){rest.ptr + end, rest.len - end};
    port = authority;
    authority = str_take(&port, ':');
    if (port.len > 0 && (str_to_u64(port, 65535, &number) < 0 || number == 0))
        return false;
    for (size_t i = 0; i < rest.len; i++)
        if (rest.ptr[i] <= ' ' || rest.ptr[i] > '~' || rest.ptr[i] == '#')
            return false;
    if (!is_host(authority))
        return false;
    target->port = (uint16_t)number;
    *host = (struct place){out->text.len, authority.len};
    buf_put_str(&out->text, authority);
    *path = (struct place){out->text.len, rest.len};
    buf_put_str(&out->text, rest);
    buf_putc(&out->text, '\0');
    return true;
}

struct reading {
    struct tls_report_targets *out;
    struct place first[TLS_REPORT_TARGETS_MAX], second[TLS_REPORT_TARGETS_MAX];
};

static struct str placed(const struct tls_report_targets *out, struct place p)
{
    ASSERT(p.at <= out->text.len && p.len <= out->text.len - p.at);
    return (struct str){(const char *)out->text.data + p.at, p.len};
}

/* Whether the address that was read last is there already: it gets one report. */
static bool is_twice(const struct reading *r)
{
    const struct tls_report_targets *out = r->out;

    for (size_t i = 0; i < out->len; i++)
        if (!out->list[i].https &&
            str_eq(placed(out, r->first[i]), placed(out, r->first[out->len])))
            return true;
    return false;
}

static void read_target(struct reading *r, struct str uri)
{
    struct tls_report_targets *out = r->out;
    struct tls_report_target *target = &out->list[out->len];
    struct place *first = &r->first[out->len], *second = &r->second[out->len];
    bool good = false;

    ASSERT(out->len < TLS_REPORT_TARGETS_MAX);
    uri = str_trim(uri);
    *target = (struct tls_report_target){.https = false};
    *second = (struct place){0, 0};
    if (take_prefix(&uri, STR("mailto:"))) {
        good = read_mailto(uri, out, first) && !is_twice(r);
    } else if (take_prefix(&uri, STR("https://"))) {
        target->https = true;
        good = read_https(uri, out, target, first, second);
    }
    out->len += good;
}

int tls_report_record_parse(struct str record, struct tls_report_targets *out)
{
    struct reading r = {.out = out};
    struct str version = str_trim(str_take(&record, ';'));
    bool any = false;

    out->len = 0;
    buf_clear(&out->text);
    if (!str_eq(version, STR("v=TLSRPTv1")))
        return -ENOENT;
    while (record.len > 0) {
        struct str field = str_trim(str_take(&record, ';'));

        if (!take_prefix(&field, STR("rua=")))
            continue; /* an extension */
        if (any)
            return -EBADMSG;
        any = true;
        while (field.len > 0 && out->len < TLS_REPORT_TARGETS_MAX)
            read_target(&r, str_take(&field, ','));
    }
    for (size_t i = 0; i < out->len; i++) {
        struct tls_report_target *target = &out->list[i];

        if (target->https) {
            target->host = placed(out, r.first[i]);
            target->path = placed(out, r.second[i]);
        } else {
            target->address = placed(out, r.first[i]);
        }
    }
    return out->len > 0 ? 0 : -EBADMSG;
}

/* --- the report --- */

static void put_text(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "\"%s\":", name);
    buf_put_json(out, str_of(value));
}

/* "2026-11-29T23:59:59Z" */
static void put_time(struct buf *out, const char *name, int64_t unix_s)
{
    int64_t day = unix_s / DAY_SECONDS, s = unix_s % DAY_SECONDS;
    char text[DAY_TEXT_BYTES];

    ASSERT(unix_s >= 0);
    buf_printf(out, "\"%s\":\"%sT%02d:%02d:%02dZ\"", name, day_text((int32_t)day, text),
               (int)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
}

static const char *next_text(const char *text)
{
    return text + strlen(text) + 1;
}

static void put_list(struct buf *out, const char *name, const char *texts, const char *end,
                     const char *prefix)
{
    bool any = false;

    buf_printf(out, ",\"%s\":[", name);
    for (; texts < end; texts = next_text(texts)) {
        size_t len = strlen(prefix);

        if (strncmp(texts, prefix, len) != 0)
            continue;
        if (any)
            buf_putc(out, ',');
        any = true;
        buf_put_json(out, str_of(texts + len));
    }
    buf_putc(out, ']');
}

/* RFC 8460 4.4: a policy of MTA-STS has the patterns of its exchangers once more, as mx-host. */
static void put_policy_itself(struct buf *out, const struct tls_report_policy *p)
{
    const char *domain = p->texts.ptr, *end = p->texts.ptr + p->texts.len;
    const char *strings = next_text(domain);

    ASSERT(strings <= end && end[-1] == '\0'); /* each has its NUL */
    buf_puts(out, "{\"policy\":{");
    put_text(out, "policy-type", tls_report_policy_name(p->type));
    if (strings < end)
        put_list(out, "policy-string", strings, end, "");
    buf_putc(out, ',');
    put_text(out, "policy-domain", domain);
    if (p->type == TLS_REPORT_STS && strings < end)
        put_list(out, "mx-host", strings, end, "mx: ");
    buf_putc(out, '}');
}

static void put_given(struct buf *out, const char *name, const char *value)
{
    if (value[0] == '\0')
        return;
    buf_putc(out, ',');
    put_text(out, name, value);
}

static void put_failure(struct buf *out, const struct tls_report_failure *f)
{
    buf_putc(out, '{');
    put_text(out, "result-type", tls_report_result_name(f->result));
    put_given(out, "sending-mta-ip", f->sending_ip);
    put_given(out, "receiving-mx-hostname", f->mx);
    put_given(out, "receiving-ip", f->receiving_ip);
    buf_printf(out, ",\"failed-session-count\":%llu", (unsigned long long)f->count);
    put_given(out, "failure-reason-code", f->reason);
    buf_putc(out, '}');
}

static void put_policy(struct buf *out, const struct tls_report_policy *p)
{
    put_policy_itself(out, p);
    buf_printf(out,
               ",\"summary\":{\"total-successful-session-count\":%llu,"
               "\"total-failure-session-count\":%llu}",
               (unsigned long long)p->successes, (unsigned long long)p->failures_count);
    for (const struct list_node *n = list_first(&p->failures); n != NULL;
         n = list_next(&p->failures, n)) {
        buf_puts(out, n == list_first(&p->failures) ? ",\"failure-details\":[" : ",");
        put_failure(out, CONTAINER_OF(n, struct tls_report_failure, node));
    }
    buf_puts(out, list_empty(&p->failures) ? "}" : "]}");
}

void tls_report_put_json(struct buf *out, const struct tls_report *r)
{
    buf_putc(out, '{');
    put_text(out, "organization-name", r->organization);
    buf_puts(out, ",\"date-range\":{");
    put_time(out, "start-datetime", r->begin_s);
    buf_putc(out, ',');
    put_time(out, "end-datetime", r->end_s);
    buf_puts(out, "},");
    put_text(out, "contact-info", r->contact);
    buf_putc(out, ',');
    put_text(out, "report-id", r->id);
    buf_puts(out, ",\"policies\":[");
    for (const struct list_node *n = list_first(r->policies); n != NULL;
         n = list_next(r->policies, n)) {
        if (n != list_first(r->policies))
            buf_putc(out, ',');
        put_policy(out, CONTAINER_OF(n, struct tls_report_policy, node));
    }
    buf_puts(out, "]}\n");
}

int tls_report_pack(struct buf *out, struct str json)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)json.ptr, .avail_in = (uInt)json.len};
    int result;

    ASSERT(json.len <= UINT32_MAX / 2); /* zlib counts in so many bits */
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return -ENOMEM;
    buf_room(out, deflateBound(&z, json.len));
    z.next_out = out->data + out->len;
    z.avail_out = (uInt)(out->cap - out->len);
    result = deflate(&z, Z_FINISH);
    ASSERT(result == Z_STREAM_END && z.avail_in == 0);
    out->len = out->cap - z.avail_out;
    (void)deflateEnd(&z);
    return 0;
}

/* --- the message --- */

void tls_report_put_file_name(struct buf *out, const struct tls_report *r)
{
    buf_printf(out, "%s!%s!%lld!%lld!%s.json.gz", r->host_name, r->domain, (long long)r->begin_s,
               (long long)r->end_s, r->id);
}

static void put_field(struct buf *out, const char *name, const char *value)
{
    int err = mime_put_field(out, str_of(name), str_of(value), MIME_UTF8);

    ASSERT(err == 0); /* names and hosts: they fold, or are short */
}

static void put_words(struct buf *out, const struct tls_report *r)
{
    struct buf text = {0};
    char from[DAY_TEXT_BYTES], until[DAY_TEXT_BYTES];

    buf_printf(&text,
               "This is a report (RFC 8460) of the encryption of mail that %s sent to\n%s "
               "from %s to %s. It is attached, in JSON packed by gzip.\n\nContact: %s\n",
               r->host_name, r->domain, day_text((int32_t)(r->begin_s / DAY_SECONDS), from),
               day_text((int32_t)(r->end_s / DAY_SECONDS), until), r->contact);
    mime_put_text(out, STR("plain"), buf_str(&text), MIME_UTF8);
    buf_done(&text);
}

void tls_report_put_mail(struct buf *out, const struct tls_report *r,
                         const struct tls_report_mail *mail)
{
    struct buf words = {0}, attachment = {0}, name = {0};
    char date[CLOCK_RFC5322_BYTES];
    int err;

    ASSERT(r->begin_s >= 0 && r->begin_s <= r->end_s);
    tls_report_put_file_name(&name, r);
    put_words(&words, r);
    /* The name whole, however long: it is of letters that need no other form, and receivers look at
     * it (RFC 8460 5.1). */
    buf_puts(&attachment, "Content-Type: application/tlsrpt+gzip\r\n"
                          "Content-Transfer-Encoding: base64\r\n"
                          "Content-Disposition: attachment;\r\n filename=\"");
    buf_put_str(&attachment, buf_str(&name));
    buf_puts(&attachment, "\"\r\n\r\n");
    err = encode_base64((const uint8_t *)mail->packed.ptr, mail->packed.len, &attachment);
    ASSERT(err == 0);
    buf_puts(&attachment, "\r\n");
    clock_rfc5322(mail->now_ms, date);
    buf_printf(out, "From: <%s>\r\nTo: <%.*s>\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\n", mail->from,
               STR_FMT(mail->to), date, mail->message_id, r->host_name);
    buf_printf(out, "Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s@%s>\r\n",
               r->domain, r->host_name, r->id, r->host_name);
    put_field(out, "TLS-Report-Domain", r->domain);
    put_field(out, "TLS-Report-Submitter", r->host_name);
    buf_puts(out, "TLS-Required: No\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n");
    mime_put_multipart(out, "report; report-type=\"tlsrpt\"",
                       (const struct str[]){buf_str(&words), buf_str(&attachment)}, 2, mail->seed);
    buf_done(&words);
    buf_done(&attachment);
    buf_done(&name);
}

#include "mail/trace.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "mail/header.h"
#include "smtp/address.h"

#define HELO_BYTES_MAX    255
#define HOST_BYTES_MAX    255
#define ADDRESS_BYTES_MAX 400
#define WANTED_BYTES_MAX  512
#define CIPHER_BYTES_MAX  64
#define FIXED_BYTES_MAX   576 /* of a stamp: all but names and addresses */
#define BORDER_BYTES      2

_Static_assert(FIXED_BYTES_MAX + HELO_BYTES_MAX + 2 * HOST_BYTES_MAX + 2 * ADDRESS_BYTES_MAX <=
                   TRACE_STAMP_BYTES_MAX,
               "the longest stamp");

static const char private_prefix[] = "x-hayauma-";
#define PRIVATE_PREFIX_BYTES (sizeof(private_prefix) - 1)

static bool is_private(struct str name)
{
    return name.len >= PRIVATE_PREFIX_BYTES && ascii_lower(name.ptr[0]) == 'x' &&
           str_starts_nocase(name, (struct str){private_prefix, PRIVATE_PREFIX_BYTES});
}

/* Fields that end here: ours, what would show blind recipients to the others, and what only the
 * last server writes (RFC 5321 4.4). Postfix drops the same (message_drop_headers). */
static bool ends_here(struct str name)
{
    switch (ascii_lower(name.ptr[0])) {
    case 'b':
        return str_eq_nocase(name, STR("bcc"));
    case 'r':
        return str_eq_nocase(name, STR("resent-bcc")) || str_eq_nocase(name, STR("return-path"));
    default:
        return is_private(name);
    }
}

/* --- X-Hayauma-* --- */

static bool is_label(struct str s)
{
    if (s.len == 0 || s.len > TRACE_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

static const char *take_label(struct str value, struct str *out, const char *wrong)
{
    if (out->len > 0)
        return "550 5.6.0 an X-Hayauma field is given twice";
    if (!is_label(value))
        return wrong;
    *out = value;
    return NULL;
}

static const char *take_private(struct str name, struct str value, struct trace_facts *facts)
{
    struct str key = {name.ptr + PRIVATE_PREFIX_BYTES, name.len - PRIVATE_PREFIX_BYTES};
    uint64_t number;
    int64_t when_ms;

    if (str_eq_nocase(key, STR("campaign")))
        return take_label(
            value, &facts->campaign,
            "550 5.6.0 X-Hayauma-Campaign: 1 to 64 letters, digits, dots, dashes, underscores");
    if (str_eq_nocase(key, STR("tenant")))
        return take_label(
            value, &facts->tenant,
            "550 5.6.0 X-Hayauma-Tenant: 1 to 64 letters, digits, dots, dashes, underscores");
    if (str_eq_nocase(key, STR("pool")))
        return take_label(
            value, &facts->pool,
            "550 5.6.0 X-Hayauma-Pool: 1 to 64 letters, digits, dots, dashes, underscores");
    if (str_eq_nocase(key, STR("priority"))) {
        if (facts->priority >= 0)
            return "550 5.6.0 an X-Hayauma field is given twice";
        if (str_to_u64(value, 9, &number) != 0)
            return "550 5.6.0 X-Hayauma-Priority: a number from 0 (first) to 9";
        facts->priority = (int8_t)number;
        return NULL;
    }
    if (str_eq_nocase(key, STR("not-before"))) {
        if (facts->not_before_ms != 0)
            return "550 5.6.0 an X-Hayauma field is given twice";
        if (trace_date_parse(value, &when_ms) != 0)
            return "550 5.6.0 X-Hayauma-Not-Before: an RFC 5322 date or seconds since 1970";
        facts->not_before_ms = when_ms > 0 ? when_ms : 1;
        return NULL;
    }
    if (str_eq_nocase(key, STR("engaged"))) {
        if (facts->engaged >= 0)
            return "550 5.6.0 an X-Hayauma field is given twice";
        if (!str_eq_nocase(value, STR("yes")) && !str_eq_nocase(value, STR("no")))
            return "550 5.6.0 X-Hayauma-Engaged: yes or no";
        facts->engaged = str_eq_nocase(value, STR("yes"));
        return NULL;
    }
    return "550 5.6.0 unknown X-Hayauma field; there are -Campaign, -Engaged, -Not-Before, -Pool, "
           "-Priority and -Tenant";
}

/* --- scanning --- */

static void take_field(const uint8_t *content, const struct header_field *f,
                       struct trace_facts *facts)
{
    struct str name = f->name;

    facts->wants_strip |= ends_here(name) || content[f->start + name.len] != ':';
    switch (ascii_lower(name.ptr[0])) {
    case 'r':
        facts->received += str_eq_nocase(name, STR("received"));
        break;
    case 'm':
        if (!facts->has_message_id && str_eq_nocase(name, STR("message-id"))) {
            facts->has_message_id = true;
            facts->message_id = header_field_value(content, f);
        }
        break;
    case 'd':
        facts->has_date |= str_eq_nocase(name, STR("date"));
        break;
    case 'f':
        facts->has_from |= str_eq_nocase(name, STR("from"));
        break;
    case 's':
        if (facts->subject.ptr == NULL && str_eq_nocase(name, STR("subject")))
            facts->subject = header_field_value(content, f);
        break;
    case 'x':
        if (is_private(name)) {
            const char *error = take_private(name, header_field_value(content, f), facts);

            if (facts->error == NULL)
                facts->error = error;
        }
        break;
    default:
        break;
    }
}

/* A byte order mark, an empty line or a mbox line at content; its length, 0 if there is none. */
static size_t skip_lead(const uint8_t *content, size_t len)
{
    size_t end = header_line_end(content, len, 0), at = 0;
    struct header_field field;

    if (len >= 3 && memcmp(content, "\xef\xbb\xbf", 3) == 0)
        return 3;
    while (at < end && memchr(" \t\r\n", content[at], 4) != NULL)
        at++;
    if (at == end)
        return end;
    for (at = 0; at < end && content[at] == '>';)
        at++;
    if (end - at <= 5 || memcmp(content + at, "From ", 5) != 0)
        return 0;
    return header_field_next(content, len, 0, &field) ? 0 : end; /* "From : a@b" is a field */
}

size_t trace_lead(const uint8_t *content, size_t len)
{
    struct trace_facts facts;
    size_t lead = 0, n;

    while (lead < len && (n = skip_lead(content + lead, len - lead)) > 0)
        lead += n;
    ASSERT(lead <= len);
    if (lead == 0)
        return 0;
    trace_scan(content + lead, len - lead, NULL, 0, &facts);
    return facts.has_from || facts.has_date || facts.has_message_id || facts.subject.ptr != NULL
               ? lead
               : 0;
}

void trace_scan(const uint8_t *content, size_t len, const struct str *names, size_t names_len,
                struct trace_facts *facts)
{
    struct header_field f;
    size_t at = 0;

    *facts =
        (struct trace_facts){.campaign = STR(""), .tenant = STR(""), .priority = -1, .engaged = -1};
    if (names_len > TRACE_WANTED_MAX)
        names_len = TRACE_WANTED_MAX;
    for (; at < len && header_field_next(content, len, at, &f); at = f.end) {
        facts->fields++;
        take_field(content, &f, facts);
        for (size_t i = 0; i < names_len; i++)
            if (names[i].len == f.name.len && facts->wanted[i].ptr == NULL &&
                str_eq_nocase(names[i], f.name))
                facts->wanted[i] = header_field_value(content, &f);
    }
    facts->header_len = at;
    facts->eight_bit = header_eight_bit(content, at);
    if (at + 1 < len && content[at] == '\r' && content[at + 1] == '\n')
        at += 2;
    facts->body_offset = at;
    ASSERT(facts->header_len <= at && at <= len);
}

size_t trace_strip(uint8_t *content, struct trace_facts *facts)
{
    size_t kept = 0, removed;
    struct header_field f;

    if (!facts->wants_strip)
        return 0;
    /* First together at the front, then once to the back: linear whatever the number of fields. */
    for (size_t at = 0;
         at < facts->header_len && header_field_next(content, facts->header_len, at, &f);
         at = f.end) {
        size_t colon = f.start + f.name.len;

        if (ends_here(f.name))
            continue;
        while (content[colon] != ':')
            colon++;
        memmove(content + kept, content + f.start, f.name.len);
        kept += f.name.len;
        memmove(content + kept, content + colon, f.end - colon);
        kept += f.end - colon;
    }
    ASSERT(kept < facts->header_len); /* wants_strip */
    removed = facts->header_len - kept;
    memmove(content + removed, content, kept);
    facts->header_len = kept;
    facts->body_offset -= removed;
    facts->wants_strip = false;
    return removed;
}

size_t trace_border(uint8_t *content, size_t len, struct trace_facts *facts)
{
    size_t at = facts->header_len;

    ASSERT(at <= facts->body_offset && facts->body_offset <= len);
    if (facts->body_offset != at || (at > 0 && at == len))
        return 0;
    memmove(content - BORDER_BYTES, content, at);
    memcpy(content - BORDER_BYTES + at, "\r\n", BORDER_BYTES);
    facts->body_offset = at + BORDER_BYTES;
    return BORDER_BYTES;
}

/* --- stamping --- */

struct out {
    uint8_t bytes[TRACE_STAMP_BYTES_MAX];
    size_t len;
};

static void out_put(struct out *o, const char *bytes, size_t n)
{
    ASSERT(n <= sizeof(o->bytes) - o->len);
    memcpy(o->bytes + o->len, bytes, n);
    o->len += n;
}

#define PUT(o, literal) out_put(o, literal, sizeof(literal) - 1)

static const bool host_bytes[256] = {
    ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['.'] = true,
    ['-'] = true,         ['_'] = true,         [':'] = true,
};

/* A name that is safe in a structured field, whoever chose it: letters, digits, ".-_:" and the
 * brackets of an address literal around the whole; any other byte shows as '?'. */
static void put_host(struct out *o, struct str name, size_t max)
{
    bool literal =
        name.len > 2 && name.len <= max && name.ptr[0] == '[' && name.ptr[name.len - 1] == ']';

    if (name.len == 0)
        name = STR("unknown");
    name.len = name.len < max ? name.len : max;
    ASSERT(name.len <= sizeof(o->bytes) - o->len);
    for (size_t i = 0; i < name.len; i++) {
        bool bracket = literal && (i == 0 || i == name.len - 1);

        o->bytes[o->len++] =
            (uint8_t)(bracket || host_bytes[(uint8_t)name.ptr[i]] ? name.ptr[i] : '?');
    }
}

/* An address comes from our own parser, but its field must stay whole and 7-bit: else it is left
 * out. */
static bool may_name(struct str address)
{
    if (address.len == 0 || address.len > ADDRESS_BYTES_MAX)
        return false;
    for (size_t i = 0; i < address.len; i++)
        if (address.ptr[i] < ' ' || address.ptr[i] > '~')
            return false;
    return true;
}

/* "<address>", its local part in quotes where it needs them. */
static void put_path(struct out *o, struct str address)
{
    char room[SMTP_PATH_MAX];
    size_t given;
    struct str local = smtp_address_local(address, room, &given);

    ASSERT(given <= address.len && local.len <= sizeof(room));
    PUT(o, "<");
    out_put(o, local.ptr, local.len);
    out_put(o, address.ptr + given, address.len - given);
    PUT(o, ">");
}

/* RFC 3848; RFC 6531 4.3. */
static const char *protocol_name(const struct trace_stamp *s)
{
    static const char *const names[2][2][2] = {
        {{"ESMTP", "ESMTPA"}, {"ESMTPS", "ESMTPSA"}},
        {{"UTF8SMTP", "UTF8SMTPA"}, {"UTF8SMTPS", "UTF8SMTPSA"}}};

    if (s->protocol != NULL)
        return s->protocol;
    return s->esmtp || s->smtputf8 ? names[s->smtputf8][s->tls_protocol != NULL][s->auth] : "SMTP";
}

/* As Postfix writes it. */
static void put_tls(struct out *o, const struct trace_stamp *s)
{
    char digits[STR_U64_BYTES];
    struct str bits = str_of_u64((uint64_t)s->tls_bits, digits);

    PUT(o, "\r\n\t(using ");
    put_host(o, str_of(s->tls_protocol), CIPHER_BYTES_MAX);
    PUT(o, " with cipher ");
    put_host(o, str_of(s->tls_cipher), CIPHER_BYTES_MAX);
    PUT(o, " (");
    out_put(o, bits.ptr, bits.len);
    PUT(o, " bits))");
}

static void put_received(struct out *o, const struct trace_stamp *s, const char *id,
                         const char *date, size_t date_len)
{
    const char *protocol = protocol_name(s);

    PUT(o, "Received: from ");
    put_host(o, s->helo, HELO_BYTES_MAX);
    if (s->peer_addr != NULL) {
        PUT(o, " ([");
        if (strchr(s->peer_addr, ':') != NULL)
            PUT(o, "IPv6:");
        put_host(o, str_of(s->peer_addr), HOST_BYTES_MAX);
        PUT(o, "])");
    }
    if (s->tls_protocol != NULL)
        put_tls(o, s);
    PUT(o, "\r\n\tby ");
    put_host(o, str_of(s->host_name), HOST_BYTES_MAX);
    PUT(o, " with ");
    out_put(o, protocol, strlen(protocol));
    PUT(o, " id ");
    out_put(o, id, MSGID_TEXT_BYTES - 1);
    if (may_name(s->recipient)) {
        PUT(o, "\r\n\tfor ");
        put_path(o, s->recipient);
    }
    PUT(o, ";\r\n\t");
    out_put(o, date, date_len);
    PUT(o, "\r\n");
}

static size_t at_most(size_t n, size_t max)
{
    return n < max ? n : max;
}

size_t trace_stamp_room(const struct trace_stamp *stamp)
{
    return BORDER_BYTES + FIXED_BYTES_MAX + at_most(stamp->helo.len, HELO_BYTES_MAX) +
           2 * at_most(strlen(stamp->host_name), HOST_BYTES_MAX) +
           at_most(stamp->recipient.len, ADDRESS_BYTES_MAX) +
           at_most(stamp->author.len, ADDRESS_BYTES_MAX);
}

bool trace_adds_author(const struct trace_stamp *stamp, const struct trace_facts *facts)
{
    return !facts->has_from && may_name(stamp->author);
}

static void put_author(struct out *o, struct str author)
{
    PUT(o, "From: ");
    put_path(o, author);
    PUT(o, "\r\n");
}

void trace_put_author(const struct trace_stamp *stamp, struct buf *out)
{
    struct out o;

    o.len = 0;
    put_author(&o, stamp->author);
    buf_put(out, o.bytes, o.len);
}

uint8_t *trace_prepend(uint8_t *end, const struct trace_stamp *stamp,
                       const struct trace_facts *facts)
{
    char id[MSGID_TEXT_BYTES], date[CLOCK_RFC5322_BYTES];
    size_t date_len = clock_rfc5322(stamp->now_ms, date);
    struct out o;

    o.len = 0;
    msgid_text(stamp->id, id);
    if (!stamp->no_received)
        put_received(&o, stamp, id, date, date_len);
    if (trace_adds_author(stamp, facts))
        put_author(&o, stamp->author);
    if (!facts->has_message_id) {
        PUT(&o, "Message-ID: <");
        out_put(&o, id, MSGID_TEXT_BYTES - 1);
        PUT(&o, "@");
        put_host(&o, str_of(stamp->host_name), HOST_BYTES_MAX);
        PUT(&o, ">\r\n");
    }
    if (!facts->has_date) {
        PUT(&o, "Date: ");
        out_put(&o, date, date_len);
        PUT(&o, "\r\n");
    }
    ASSERT(o.len + BORDER_BYTES <= trace_stamp_room(stamp)); /* trace_border() has its part of it */
    return memcpy(end - o.len, o.bytes, o.len);
}

uint8_t *trace_finish(uint8_t *start, const uint8_t *end, const struct trace_stamp *stamp,
                      struct trace_facts *facts)
{
    ASSERT(start <= end && facts->body_offset <= (size_t)(end - start));
    start += facts->wants_strip ? trace_strip(start, facts) : 0;
    start -= trace_border(start, (size_t)(end - start), facts);
    return trace_prepend(start, stamp, facts);
}

/* --- headers for records --- */

static void put_unfolded(struct buf *out, struct str value)
{
    char text[WANTED_BYTES_MAX];
    size_t len = 0;

    for (size_t i = 0; i < value.len && len < sizeof(text); i++)
        if (value.ptr[i] != '\r' && value.ptr[i] != '\n')
            text[len++] = value.ptr[i];
    if (len == sizeof(text)) /* not in the middle of a character */
        while (len > 0 && ((uint8_t)text[len - 1] & 0x80) != 0)
            if (((uint8_t)text[--len] & 0xc0) == 0xc0)
                break;
    buf_put_json(out, (struct str){text, len});
}

void trace_wanted_json(const struct trace_facts *facts, const struct str *names, size_t names_len,
                       struct buf *out)
{
    bool any = false;

    for (size_t i = 0; i < names_len && i < TRACE_WANTED_MAX; i++) {
        if (facts->wanted[i].ptr == NULL)
            continue;
        buf_putc(out, any ? ',' : '{');
        buf_put_json(out, names[i]);
        buf_putc(out, ':');
        put_unfolded(out, facts->wanted[i]);
        any = true;
    }
    if (any)
        buf_putc(out, '}');
}

#include "outcome/notice.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "mail/convert.h"
#include "mail/encode.h"
#include "mail/header.h"
#include "mail/international.h"
#include "mail/trace.h"
#include "outcome/notice_text.h"
#include "smtp/address.h"

/* The longest value of a field: its line stays below 998 even where it has no place to fold. */
#define FIELD_BYTES_MAX   900
#define FOLD_COLUMN       76
#define HEADERS_BYTES_MAX 65536 /* of the original's header that are returned */
#define BOUNDARY_BYTES    64

bool notice_wanted(enum notice_kind kind, const struct message *m, uint8_t notify)
{
    if (m->sender.len == 0 || (m->flags & MESSAGE_NOTICE) != 0 || (notify & SMTP_NOTIFY_NEVER) != 0)
        return false;
    switch (kind) {
    case NOTICE_FAILED:
    case NOTICE_EXPIRED:
        return notify == 0 || (notify & SMTP_NOTIFY_FAILURE) != 0;
    case NOTICE_DELAYED:
        return notify == 0 || (notify & SMTP_NOTIFY_DELAY) != 0;
    case NOTICE_RELAYED:
    case NOTICE_DELIVERED:
        return (notify & SMTP_NOTIFY_SUCCESS) != 0;
    }
    return false;
}

/* What is decided once for the whole notice. */
struct build {
    const struct notice *n;
    struct buf *out;
    struct trace_facts facts; /* of the original */
    size_t returned_len;      /* bytes of the original that are returned */
    bool full, global, eight_bit;
    char id[MSGID_TEXT_BYTES];
    char boundary[BOUNDARY_BYTES];
};

/* --- fields --- */

/* "name: value" with single spaces, folded at spaces; control bytes never get here
 * (notice_put_clean). */
static void put_folded(struct buf *out, const char *name, struct str value)
{
    size_t column = strlen(name) + 2, i = 0;

    buf_puts(out, name);
    buf_putc(out, ':');
    buf_putc(out, ' ');
    value = str_trim(value);
    while (i < value.len) {
        size_t word = i;

        while (word < value.len && value.ptr[word] != ' ')
            word++;
        if (i > 0) {
            bool fold = column + 1 + (word - i) > FOLD_COLUMN;

            buf_puts(out, fold ? "\r\n " : " ");
            column = fold ? 1 : column + 1;
        }
        buf_put(out, value.ptr + i, word - i);
        column += word - i;
        for (i = word; i < value.len && value.ptr[i] == ' ';)
            i++;
    }
    buf_puts(out, "\r\n");
}

/* prefix ("dns; ") and a value from the network, on one line: an address may have spaces that
 * count. */
static void put_field(const struct build *b, const char *name, const char *prefix, struct str value)
{
    if (value.len > FIELD_BYTES_MAX)
        value.len = FIELD_BYTES_MAX;
    buf_puts(b->out, name);
    buf_puts(b->out, ": ");
    buf_puts(b->out, prefix);
    notice_put_clean(b->out, value, b->global);
    buf_puts(b->out, "\r\n");
}

static void put_date_field(struct buf *out, const char *name, int64_t ms)
{
    char date[CLOCK_RFC5322_BYTES];
    size_t len = clock_rfc5322(ms, date);

    put_folded(out, name, (struct str){date, len});
}

/* --- the notice's own header --- */

/* The name before the address: a quoted-string, or an encoded-word (RFC 2047) for other than ASCII.
 */
static void put_display_name(struct buf *out, struct str name)
{
    int err;

    if (name.len > 45) /* one encoded-word of 75 holds 45 bytes */
        name.len = 45;
    if (!str_is_ascii(name)) {
        while (name.len > 0 && !smtp_utf8_valid(name)) /* cut between characters */
            name.len--;
        buf_puts(out, "=?UTF-8?B?");
        err = encode_base64((const uint8_t *)name.ptr, name.len, out);
        ASSERT(err == 0);
        buf_puts(out, "?=");
        return;
    }
    buf_putc(out, '"');
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '"' || name.ptr[i] == '\\')
            buf_putc(out, '\\');
        notice_put_clean(out, (struct str){name.ptr + i, 1}, false);
    }
    buf_putc(out, '"');
}

/* A Message-ID that is safe to repeat: "<...@...>" without spaces or controls. */
static bool is_message_id(struct str s)
{
    if (s.len < 3 || s.len > FIELD_BYTES_MAX || s.ptr[0] != '<' || s.ptr[s.len - 1] != '>')
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] > '~')
            return false;
    return true;
}

static void put_path(const struct build *b, struct str address)
{
    struct buf path = {0};

    smtp_address_put(&path, address);
    buf_putc(b->out, '<');
    notice_put_clean(b->out, buf_str(&path), b->global);
    buf_puts(b->out, ">\r\n");
    buf_done(&path);
}

static void put_header(const struct build *b)
{
    const struct notice *n = b->n;
    struct buf *out = b->out, from = {0};

    buf_puts(out, "From: ");
    put_display_name(out, str_of(n->from_name != NULL ? n->from_name : "Mail Delivery System"));
    buf_putc(out, ' ');
    buf_puts(&from, n->postmaster == NULL ? "MAILER-DAEMON@" : n->postmaster);
    buf_puts(&from, n->postmaster == NULL ? n->host_name : "");
    put_path(b, buf_str(&from));
    buf_done(&from);
    buf_puts(out, "To: ");
    put_path(b, n->original->sender);
    put_folded(out, "Subject", str_of(notice_subject(n->kind)));
    put_date_field(out, "Date", n->now_ms);
    buf_printf(out, "Message-ID: <%s@%s>\r\n", b->id, n->host_name);
    if (is_message_id(b->facts.message_id)) {
        put_folded(out, "In-Reply-To", b->facts.message_id);
        put_folded(out, "References", b->facts.message_id);
    }
    buf_puts(out, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    if (b->eight_bit) /* RFC 2045 6.4: as its parts */
        buf_puts(out, "Content-Transfer-Encoding: 8bit\r\n");
    /* RFC 6522 3: the report's type is the second part's subtype. */
    buf_printf(out,
               "Content-Type: multipart/report; report-type=%sdelivery-status;\r\n"
               "\tboundary=\"%s\"\r\n\r\n",
               b->global ? "global-" : "", b->boundary);
}

/* --- parts --- */

static void put_part(const struct build *b, const char *type, const char *encoding,
                     const char *description)
{
    buf_printf(b->out,
               "--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n"
               "Content-Description: %s\r\n\r\n",
               b->boundary, type, encoding, description);
}

static void put_people_part(const struct build *b)
{
    struct buf text = {0};
    int err;

    notice_text(b->n, &text);
    put_part(b, "text/plain; charset=utf-8", "quoted-printable", "Notification");
    err = encode_qp(text.data, text.len, b->out);
    ASSERT(err == 0);
    buf_puts(b->out, "\r\n");
    buf_done(&text);
}

/* An address of a person: other than ASCII as UTF-8, or in ASCII where the notice must be (RFC 6533
 * 3). */
static void put_address_field(const struct build *b, const char *name, const char *prefix,
                              struct str address)
{
    struct buf text = {0};

    if (b->global || str_is_ascii(address) || !smtp_utf8_valid(address)) {
        put_field(b, name, prefix, address);
        return;
    }
    international_put_ascii_address(&text, address);
    put_field(b, name, prefix, buf_str(&text));
    buf_done(&text);
}

/* "rfc822;xtext" or "utf-8;...": the type stays, the address is decoded (RFC 3461 4.2, RFC 6533
 * 3). What cannot be decoded is left out. */
static void put_original_recipient(const struct build *b, struct str orcpt)
{
    ptrdiff_t semicolon = str_find(orcpt, ';'), len;
    char prefix[64], xtext[FIELD_BYTES_MAX];
    struct str address;
    struct buf text = {0};

    if (semicolon <= 0 || semicolon > 40)
        return;
    for (ptrdiff_t i = 0; i < semicolon; i++) /* an atom */
        if (orcpt.ptr[i] <= ' ' || orcpt.ptr[i] > '~')
            return;
    memcpy(prefix, orcpt.ptr, (size_t)semicolon);
    memcpy(prefix + semicolon, "; ", 3);
    address = (struct str){orcpt.ptr + semicolon + 1, orcpt.len - (size_t)semicolon - 1};
    if (str_starts_nocase(orcpt, STR("utf-8;"))) {
        if (!international_take_orcpt(&text, address))
            buf_clear(&text);
    } else {
        len = smtp_xtext_decode(address, xtext, sizeof(xtext));
        buf_put(&text, xtext, len > 0 ? (size_t)len : 0);
    }
    if (text.len > 0)
        put_address_field(b, "Original-Recipient", prefix, buf_str(&text));
    buf_done(&text);
}

static void put_diagnostic(const struct build *b, const struct outcome *o)
{
    struct buf text = {0};
    const struct smtp_enhanced *e = &o->reply.enhanced;

    if (o->local) {
        buf_puts(&text, "X-Hayauma; ");
    } else {
        buf_printf(&text, "smtp; %u ", o->reply.code);
        if (e->class != 0)
            buf_printf(&text, "%u.%u.%u ", e->class, e->subject, e->detail);
    }
    notice_put_clean(&text, (struct str){o->reply.text, o->reply.text_len}, b->global);
    put_folded(b->out, "Diagnostic-Code", buf_str(&text));
    buf_done(&text);
}

static void put_recipient(const struct build *b, const struct notice_recipient *r)
{
    static const char *const actions[] = {
        [NOTICE_FAILED] = "failed",   [NOTICE_DELAYED] = "delayed",
        [NOTICE_RELAYED] = "relayed", [NOTICE_DELIVERED] = "delivered",
        [NOTICE_EXPIRED] = "failed",
    };
    struct smtp_enhanced status = notice_status(b->n->kind, r->outcome);

    buf_puts(b->out, "\r\n");
    put_original_recipient(b, r->orcpt);
    put_address_field(b, "Final-Recipient", str_is_ascii(r->address) ? "rfc822; " : "utf-8; ",
                      r->address);
    buf_printf(b->out, "Action: %s\r\nStatus: %u.%u.%u\r\n", actions[b->n->kind], status.class,
               status.subject, status.detail);
    if (r->peer_name != NULL && !r->outcome->local)
        put_field(b, "Remote-MTA", "dns; ", str_of(r->peer_name));
    if (r->outcome->reply.code != 0)
        put_diagnostic(b, r->outcome);
    if (r->last_attempt_ms != 0)
        put_date_field(b->out, "Last-Attempt-Date", r->last_attempt_ms);
    if (r->will_retry_until_ms != 0 && b->n->kind == NOTICE_DELAYED)
        put_date_field(b->out, "Will-Retry-Until", r->will_retry_until_ms);
}

static void put_status_part(const struct build *b)
{
    const struct message *m = b->n->original;
    char envid[FIELD_BYTES_MAX], id[MSGID_TEXT_BYTES];
    ptrdiff_t len = smtp_xtext_decode(m->envid, envid, sizeof(envid));

    put_part(b, b->global ? "message/global-delivery-status" : "message/delivery-status",
             b->global ? "8bit" : "7bit", "Delivery report");
    put_field(b, "Reporting-MTA", "dns; ", str_of(b->n->host_name));
    if (len > 0)
        put_field(b, "Original-Envelope-Id", "", (struct str){envid, (size_t)len});
    msgid_text(&m->id, id);
    put_field(b, "X-Hayauma-Queue-ID", "", str_of(id));
    put_date_field(b->out, "Arrival-Date", m->created_ms);
    for (size_t i = 0; i < b->n->recipients_len; i++)
        put_recipient(b, &b->n->recipients[i]);
    buf_puts(b->out, "\r\n");
}

static void put_returned_part(const struct build *b)
{
    const uint8_t *content = b->n->original->content;
    bool eight_bit = header_eight_bit(content, b->returned_len);
    bool global = b->global && b->facts.eight_bit;

    if (b->full)
        put_part(b, global ? "message/global" : "message/rfc822", eight_bit ? "8bit" : "7bit",
                 "Undelivered message");
    else
        put_part(b, global ? "message/global-headers" : "text/rfc822-headers",
                 eight_bit ? "8bit" : "7bit",
                 notice_is_failure(b->n->kind) ? "Header of the undelivered message"
                                               : "Header of the message");
    buf_put(b->out, content, b->returned_len);
    buf_printf(b->out, "\r\n--%s--\r\n", b->boundary);
}

/* --- the whole --- */

/* RET counts for failures; other notices never need the content (RFC 3461 4.3). */
static bool returns_full(const struct notice *n)
{
    const struct message *m = n->original;

    if (!notice_is_failure(n->kind))
        return false;
    if (m->ret == SMTP_RET_HDRS || m->content_len > n->return_bytes_max)
        return false;
    return m->ret == SMTP_RET_FULL || !n->headers_only;
}

/* The header's whole fields, up to the limit. */
static size_t header_bytes(const struct message *m, size_t header_len)
{
    struct header_field f;
    size_t at = 0;

    while (at < header_len && header_field_next(m->content, header_len, at, &f) &&
           f.end <= HEADERS_BYTES_MAX)
        at = f.end;
    return at;
}

/* Whether all of m may come back: one whose parts are too many to be converted for a peer without
 * 8BITMIME comes back as its header. */
static bool is_returnable(const struct message *m)
{
    struct convert_facts facts;

    return !header_eight_bit(m->content, m->content_len) ||
           convert_examine(m->content, m->content_len, &facts) == 0;
}

/* A boundary that is nowhere in what is returned. Nothing else of the notice can have "=_": the
 * text is quoted-printable, and every line of the status begins with a field's name or a space. */
static void choose_boundary(struct build *b)
{
    unsigned suffix = 0;

    do {
        snprintf(b->boundary, sizeof(b->boundary), "=_%s_%u", b->id, suffix++);
    } while (b->returned_len > 0 && memmem(b->n->original->content, b->returned_len, b->boundary,
                                           strlen(b->boundary)) != NULL);
}

void notice_build(const struct notice *n, struct buf *out, bool *eight_bit, bool *smtputf8)
{
    const struct message *m = n->original;
    struct build b = {.n = n, .out = out};
    size_t start = out->len;
    bool letter = (m->flags & MESSAGE_RECIPE) == 0; /* else none was made: nothing comes back */

    if (letter)
        trace_scan(m->content, m->content_len, NULL, 0, &b.facts);
    b.full = letter && returns_full(n) && is_returnable(m);
    b.returned_len = b.full ? m->content_len : header_bytes(m, b.facts.header_len);
    /* The server of an ASCII sender may know nothing but ASCII. */
    b.global = !str_is_ascii(m->sender);
    b.eight_bit = b.global || header_eight_bit(m->content, b.returned_len);
    msgid_text(&n->id, b.id);
    choose_boundary(&b);
    put_header(&b);
    put_people_part(&b);
    put_status_part(&b);
    put_returned_part(&b);
    *eight_bit = header_eight_bit(out->data + start, out->len - start);
    *smtputf8 = b.global;
}

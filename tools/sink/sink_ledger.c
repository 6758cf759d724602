#include "tools/sink/sink_ledger.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"

void ledger_content_reset(struct ledger_content *c)
{
    buf_clear(&c->head);
    c->in_body = false;
    c->crc = 0;
    c->bytes = 0;
    c->seq_len = 0;
    c->message_id_len = 0;
}

void ledger_content_done(struct ledger_content *c)
{
    buf_done(&c->head);
}

static void content_take(struct ledger_content *c, const char *bytes, size_t n)
{
    c->crc = crc32c(c->crc, bytes, n);
    c->bytes += n;
}

/* The length of the header field at the start of s with its continuation lines; 0 at the blank line
 * and at the end. */
static size_t field_length(struct str s)
{
    size_t at = 0;

    if (s.len == 0 || *s.ptr == '\r' || *s.ptr == '\n')
        return 0;
    do {
        const char *end = memchr(s.ptr + at, '\n', s.len - at);

        if (end == NULL)
            return s.len;
        at = (size_t)(end - s.ptr) + 1;
    } while (at < s.len && (s.ptr[at] == ' ' || s.ptr[at] == '\t'));
    return at;
}

static bool field_is(struct str field, struct str name_colon)
{
    return str_starts_nocase(field, name_colon);
}

/* Copies what follows the field's name, trimmed, at most cap bytes; returns the length. */
static uint8_t field_value(struct str field, size_t name_len, char *out, size_t cap)
{
    struct str value = {field.ptr + name_len, field.len - name_len};

    while (value.len > 0 && (value.ptr[value.len - 1] == '\n' || value.ptr[value.len - 1] == '\r'))
        value.len--;
    value = str_trim(value);
    if (value.len > cap)
        value.len = cap;
    memcpy(out, value.ptr, value.len);
    return (uint8_t)value.len;
}

static void content_head(struct ledger_content *c, struct str head)
{
    struct str rest = head;
    bool trace = true;

    for (;;) {
        struct str field = {rest.ptr, field_length(rest)};

        if (field.len == 0)
            break;
        trace =
            trace && (field_is(field, STR("Received:")) || field_is(field, STR("Return-Path:")));
        if (trace)
            head = (struct str){field.ptr + field.len, head.len - field.len};
        else if (field_is(field, STR("X-Seq:")))
            c->seq_len = field_value(field, 6, c->seq, sizeof(c->seq) - 1);
        else if (field_is(field, STR("Message-ID:")))
            c->message_id_len = field_value(field, 11, c->message_id, sizeof(c->message_id) - 1);
        rest.ptr += field.len;
        rest.len -= field.len;
    }
    c->in_body = true;
    content_take(c, head.ptr, head.len);
}

void ledger_content_add(struct ledger_content *c, const char *bytes, size_t n)
{
    struct buf *head = &c->head;
    size_t from;

    if (c->in_body) {
        content_take(c, bytes, n);
        return;
    }
    /* Mostly the whole header block comes with the first bytes: no copy then. */
    if (head->len == 0 && memmem(bytes, n, "\r\n\r\n", 4) != NULL) {
        content_head(c, (struct str){bytes, n});
        return;
    }
    from = head->len < 3 ? 0 : head->len - 3;
    buf_put(head, bytes, n);
    if (memmem(head->data + from, head->len - from, "\r\n\r\n", 4) != NULL ||
        head->len > LEDGER_HEAD_BYTES_MAX)
        content_head(c, buf_str(head));
}

void ledger_content_end(struct ledger_content *c)
{
    if (!c->in_body)
        content_head(c, buf_str(&c->head));
    buf_clear(&c->head);
}

static void put_hex(struct buf *b, uint32_t value, int digits)
{
    static const char hex[] = "0123456789abcdef";
    char text[8];

    for (int i = 0; i < digits; i++)
        text[i] = hex[(value >> (4 * (digits - 1 - i))) & 15];
    buf_put(b, text, (size_t)digits);
}

static void put_text(struct buf *b, struct str s)
{
    size_t from = 0;

    if (s.len == 0)
        buf_putc(b, '-');
    for (size_t i = 0; i < s.len; i++) {
        unsigned char byte = (unsigned char)s.ptr[i];

        if (byte > ' ' && byte != 0x7f && byte != '%')
            continue;
        buf_put(b, s.ptr + from, i - from);
        buf_putc(b, '%');
        put_hex(b, byte, 2);
        from = i + 1;
    }
    buf_put(b, s.ptr + from, s.len - from);
    buf_putc(b, '\t');
}

void ledger_line(struct buf *lines, int64_t wall_ms, uint64_t session, struct str sender,
                 struct str recipient, const struct ledger_content *c)
{
    buf_put_i64(lines, wall_ms);
    buf_putc(lines, '\t');
    buf_put_u64(lines, session);
    buf_putc(lines, '\t');
    put_text(lines, sender);
    put_text(lines, recipient);
    buf_put_u64(lines, c->bytes);
    buf_putc(lines, '\t');
    put_hex(lines, c->crc, 8);
    buf_putc(lines, '\t');
    put_text(lines, (struct str){c->message_id, c->message_id_len});
    put_text(lines, (struct str){c->seq, c->seq_len});
    lines->data[lines->len - 1] = '\n'; /* the last field's TAB */
}

void ledger_session(struct buf *lines, int64_t wall_ms, uint64_t session, struct str peer,
                    struct str helo)
{
    buf_put_i64(lines, wall_ms);
    buf_putc(lines, '\t');
    buf_put_u64(lines, session);
    buf_putc(lines, '\t');
    put_text(lines, peer);
    put_text(lines, helo);
    lines->data[lines->len - 1] = '\n';
}

int ledger_flush(struct buf *lines, int fd)
{
    size_t at = 0;

    while (at < lines->len) {
        ssize_t n = write(fd, lines->data + at, lines->len - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += (size_t)n;
    }
    buf_clear(lines);
    return 0;
}

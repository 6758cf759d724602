#include "smtp/reply.h"

#include "base/assert.h"

/* Digits at the start of s: 1 to digits_max of them, nothing more. Returns how many, 0 if none fit.
 */
static size_t parse_number(struct str s, size_t digits_max, uint16_t *out)
{
    size_t n = 0;
    uint16_t value = 0;

    while (n < s.len && s.ptr[n] >= '0' && s.ptr[n] <= '9') {
        if (n == digits_max)
            return 0;
        value = (uint16_t)(value * 10 + (s.ptr[n] - '0'));
        n++;
    }
    *out = value;
    return n;
}

static struct str str_from(struct str s, size_t at)
{
    return (struct str){s.ptr + at, s.len - at};
}

size_t smtp_enhanced_parse(struct str s, struct smtp_enhanced *out)
{
    struct smtp_enhanced e;
    size_t at, n;

    if (s.len < 5 || s.ptr[1] != '.')
        return 0;
    if (s.ptr[0] != '2' && s.ptr[0] != '4' && s.ptr[0] != '5')
        return 0;
    e.class = (uint16_t)(s.ptr[0] - '0');
    at = 2;
    n = parse_number(str_from(s, at), 3, &e.subject);
    if (n == 0 || at + n >= s.len || s.ptr[at + n] != '.')
        return 0;
    at += n + 1;
    n = parse_number(str_from(s, at), 3, &e.detail);
    if (n == 0)
        return 0;
    at += n;
    /* "550 5.7.1.2" and "550 5.7.1x" are text. */
    if (at < s.len && s.ptr[at] != ' ' && s.ptr[at] != '\t')
        return 0;
    while (at < s.len && (s.ptr[at] == ' ' || s.ptr[at] == '\t'))
        at++;
    *out = e;
    return at;
}

void smtp_reply_parser_reset(struct smtp_reply_parser *p)
{
    p->reply.code = 0;
    p->reply.enhanced = (struct smtp_enhanced){0};
    p->reply.text_len = 0;
    p->reply_bytes = 0;
    p->first_line_seen = false;
}

static void append_text(struct smtp_reply *r, struct str text)
{
    size_t at = r->text_len;

    if (text.len == 0)
        return;
    if (at != 0 && at < sizeof(r->text))
        r->text[at++] = ' ';
    if (text.len > sizeof(r->text) - at)
        text.len = sizeof(r->text) - at;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if ((unsigned char)c < 0x20 || c == 0x7f)
            c = '?';
        r->text[at++] = c;
    }
    r->text_len = (uint16_t)at;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One line without its line end. */
static enum smtp_reply_status take_line(struct smtp_reply_parser *p, struct str line)
{
    struct smtp_reply *r = &p->reply;
    struct smtp_enhanced enhanced;
    struct str text = {line.ptr + line.len, 0};
    bool last = line.len == 3 || (line.len > 3 && line.ptr[3] == ' ');
    uint16_t code;
    size_t n;

    if (line.len < 3 || line.ptr[0] < '2' || line.ptr[0] > '5' || !is_digit(line.ptr[1]) ||
        !is_digit(line.ptr[2]))
        return SMTP_REPLY_BAD;
    if (!last && line.ptr[3] != '-')
        return SMTP_REPLY_BAD;
    if (memchr(line.ptr, '\0', line.len) != NULL)
        return SMTP_REPLY_BAD;
    code = (uint16_t)((line.ptr[0] - '0') * 100 + (line.ptr[1] - '0') * 10 + (line.ptr[2] - '0'));
    if (p->first_line_seen && code != r->code)
        return SMTP_REPLY_BAD;
    r->code = code;
    if (line.len > 4)
        text = str_from(line, 4);
    if (p->on_line != NULL)
        p->on_line(p->arg, text);
    /* RFC 2034 4: the code is repeated on each line; its class must be that of the reply. */
    n = smtp_enhanced_parse(text, &enhanced);
    if (n != 0 && enhanced.class == code / 100) {
        if (r->enhanced.class == 0)
            r->enhanced = enhanced;
        text = str_from(text, n);
    }
    append_text(r, text);
    p->first_line_seen = true;
    return last ? SMTP_REPLY_DONE : SMTP_REPLY_MORE;
}

enum smtp_reply_status smtp_reply_parse(struct smtp_reply_parser *p, const uint8_t *in, size_t len,
                                        size_t *used)
{
    enum smtp_reply_status status = SMTP_REPLY_MORE;
    size_t at = 0;

    while (status == SMTP_REPLY_MORE && at < len) {
        const uint8_t *lf = memchr(in + at, '\n', len - at);
        size_t n = lf == NULL ? len - at : (size_t)(lf - (in + at)) + 1;
        struct str line = {(const char *)in + at, n};

        if (n + (lf == NULL) > SMTP_REPLY_LINE_MAX || n > SMTP_REPLY_BYTES_MAX - p->reply_bytes)
            status = SMTP_REPLY_BAD;
        if (status == SMTP_REPLY_BAD || lf == NULL)
            break;
        at += n;
        p->reply_bytes += (uint32_t)n;
        line.len -= line.len > 1 && line.ptr[line.len - 2] == '\r' ? 2 : 1;
        status = take_line(p, line);
    }
    *used = at;
    return status;
}

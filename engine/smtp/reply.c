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
    p->skipping = p->last = false;
}

static void append_text(struct smtp_reply *r, struct str text)
{
    size_t at = r->text_len;

    if (text.len == 0)
        return;
    if (at != 0 && at < sizeof(r->text))
        r->text[at++] = ' ';
    ASSERT(at <= sizeof(r->text));
    if (text.len > sizeof(r->text) - at)
        text.len = sizeof(r->text) - at;
    for (size_t i = 0; i < text.len; i++)
        r->text[at++] = ascii_is_control(text.ptr[i]) ? '?' : text.ptr[i];
    r->text_len = (uint16_t)at;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The code that a line begins with, 0 if there is none. Four digits are no code. */
static uint16_t line_code(struct str line)
{
    if (line.len < 3 || line.ptr[0] < '2' || line.ptr[0] > '5' || !is_digit(line.ptr[1]) ||
        !is_digit(line.ptr[2]) || (line.len > 3 && is_digit(line.ptr[3])))
        return 0;
    return (uint16_t)((line.ptr[0] - '0') * 100 + (line.ptr[1] - '0') * 10 + (line.ptr[2] - '0'));
}

/* Text of a line of class code_class, without the enhanced code that it may begin with. */
static void take_text(struct smtp_reply *r, struct str text, uint16_t code_class)
{
    struct smtp_enhanced enhanced;
    size_t n = smtp_enhanced_parse(text, &enhanced);

    ASSERT(n <= text.len && code_class >= 2 && code_class <= 5);
    /* RFC 2034 4: the code is repeated on each line; its class must be that of the reply. */
    if (r->enhanced.class != code_class)
        r->enhanced.class = 0;
    if (n != 0 && enhanced.class == code_class) {
        if (r->enhanced.class == 0)
            r->enhanced = enhanced;
        text = str_from(text, n);
    }
    append_text(r, text);
}

/* One line without its line end, or the beginning of one. RFC 5321 4.2: the code says it all, and
 * 4.2.1: of several lines the last one's. A line without a code in their midst is text. */
static enum smtp_reply_status take_line(struct smtp_reply_parser *p, struct str line)
{
    struct smtp_reply *r = &p->reply;
    uint16_t code = line_code(line);
    struct str text;

    if (code == 0) {
        append_text(r, line);
        return r->code == 0 ? SMTP_REPLY_BAD : SMTP_REPLY_MORE;
    }
    p->last = line.len == 3 || line.ptr[3] != '-';
    text = str_from(line, !p->last || (line.len > 3 && is_blank(line.ptr[3])) ? 4 : 3);
    if (p->on_line != NULL)
        p->on_line(p->arg, code, r->code == 0, text);
    r->code = code;
    take_text(r, text, code / 100);
    return p->last ? SMTP_REPLY_DONE : SMTP_REPLY_MORE;
}

/* The next line, or so much of it as counts, at the start of in. 0 bytes: it is not all there. */
static size_t next_line(struct smtp_reply_parser *p, struct str in, struct str *line)
{
    const char *lf = memchr(in.ptr, '\n', in.len);
    size_t n = lf == NULL ? in.len : (size_t)(lf - in.ptr) + 1;

    if (p->skipping) {
        p->skipping = lf == NULL;
        *line = (struct str){in.ptr, 0};
        return n;
    }
    p->skipping = n > SMTP_REPLY_LINE_MAX || (lf == NULL && n == SMTP_REPLY_LINE_MAX);
    *line = (struct str){in.ptr, p->skipping ? SMTP_REPLY_LINE_MAX : n};
    if (p->skipping)
        return SMTP_REPLY_LINE_MAX;
    if (lf == NULL)
        return 0;
    line->len -= n > 1 && in.ptr[n - 2] == '\r' ? 2 : 1;
    return n;
}

enum smtp_reply_status smtp_reply_parse(struct smtp_reply_parser *p, const uint8_t *in, size_t len,
                                        size_t *used)
{
    enum smtp_reply_status status = SMTP_REPLY_MORE;
    struct str rest = {(const char *)in, len}, line;

    while (status == SMTP_REPLY_MORE && rest.len != 0) {
        bool skipped = p->skipping;
        size_t n = next_line(p, rest, &line);

        if (n == 0)
            break;
        ASSERT(n <= rest.len && p->reply_bytes <= SMTP_REPLY_BYTES_MAX);
        if (n > SMTP_REPLY_BYTES_MAX - p->reply_bytes) {
            status = SMTP_REPLY_BAD;
            break;
        }
        p->reply_bytes += (uint32_t)n;
        rest = str_from(rest, n);
        if (!skipped)
            status = take_line(p, line);
        else if (p->last && !p->skipping)
            status = SMTP_REPLY_DONE;
        /* A last line ends where it ends, however much of it counts. */
        if (status == SMTP_REPLY_DONE && p->skipping)
            status = SMTP_REPLY_MORE;
    }
    ASSERT(status != SMTP_REPLY_MORE || rest.len < SMTP_REPLY_LINE_MAX);
    ASSERT(status != SMTP_REPLY_DONE || (p->reply.code >= 200 && p->reply.code <= 599));
    *used = len - rest.len;
    return status;
}

void smtp_reply_unfinished(struct smtp_reply_parser *p, struct str line)
{
    if (!p->skipping)
        append_text(&p->reply, line);
}

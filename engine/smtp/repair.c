#include "smtp/repair.h"

#include <string.h>

#include "base/assert.h"

enum repair_state {
    AT_LINE_START,
    IN_LINE,
    BEHIND_CR,     /* held: a LF may follow */
    BEHIND_DOT,    /* a dot that starts a line, held */
    BEHIND_DOT_CR, /* and a CR behind it, held too */
};

void smtp_repair_init(struct smtp_repair *r, bool stuffed)
{
    *r = (struct smtp_repair){.state = AT_LINE_START, .stuffed = stuffed, .behind_crlf = true};
}

static void begin_line(struct smtp_repair *r, bool behind_crlf)
{
    r->state = AT_LINE_START;
    r->behind_crlf = behind_crlf;
}

/* What was held, and the byte behind it. Returns whether that is used; *end: the data ends. */
static bool take_held(struct smtp_repair *r, uint8_t byte, struct str *body, bool *end)
{
    bool dot = r->state == BEHIND_DOT, dot_cr = r->state == BEHIND_DOT_CR;

    ASSERT(r->state >= BEHIND_CR && r->state <= BEHIND_DOT_CR && (r->stuffed || !(dot || dot_cr)));
    if (dot && byte == '\r') {
        r->state = BEHIND_DOT_CR;
        return true;
    }
    if (byte == '\n') {
        *end = dot_cr && r->behind_crlf;
        if (!*end)
            *body = dot || dot_cr ? STR(".\r\n") : STR("\r\n");
        begin_line(r, !dot);
        return true;
    }
    /* The dot was stuffing, the CR is bare. */
    r->state = IN_LINE;
    if (!dot)
        *body = STR(" ");
    return false;
}

/* Up to a line end that is none, a dot to look at, or a CR that may be either. */
static size_t take_lines(struct smtp_repair *r, const uint8_t *in, size_t len)
{
    size_t at = 0;

    ASSERT(r->state <= IN_LINE);
    while (at < len && !(r->state == AT_LINE_START && r->stuffed && in[at] == '.')) {
        const uint8_t *lf = memchr(in + at, '\n', len - at);
        size_t end = lf == NULL ? len : (size_t)(lf - in);
        const uint8_t *cr = memchr(in + at, '\r', end - at);

        r->state = IN_LINE;
        at = cr == NULL ? end : (size_t)(cr - in);
        if (at == len || cr == NULL || at + 1 != end || lf == NULL)
            break;
        at = end + 1;
        begin_line(r, true);
    }
    return at;
}

bool smtp_repair_next(struct smtp_repair *r, const uint8_t *in, size_t in_len, size_t *in_used,
                      struct str *body)
{
    bool end = false;

    *body = (struct str){NULL, 0};
    *in_used = 0;
    if (in_len == 0)
        return false;
    if (r->state >= BEHIND_CR) {
        *in_used = take_held(r, in[0], body, &end);
        if (*in_used > 0 || body->len > 0)
            return end;
    }
    *in_used = take_lines(r, in, in_len);
    *body = (struct str){(const char *)in, *in_used};
    if (*in_used > 0)
        return false;
    *in_used = 1;
    if (in[0] == '\n') {
        *body = STR("\r\n");
        begin_line(r, false);
    } else {
        ASSERT(in[0] == '\r' || (in[0] == '.' && r->stuffed));
        r->state = in[0] == '\r' ? BEHIND_CR : BEHIND_DOT;
    }
    return false;
}

struct str smtp_repair_end(struct smtp_repair *r)
{
    bool held = r->state == BEHIND_CR;

    ASSERT(!r->stuffed);
    r->state = IN_LINE;
    return held ? STR(" ") : (struct str){NULL, 0};
}

#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_BYTES_MIN 64
#define ONES          0x0101010101010101u /* a byte in each of eight */

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

int buf_reserve(struct buf *b, size_t n)
{
    size_t need, cap = b->cap < BUF_BYTES_MIN ? BUF_BYTES_MIN : b->cap;
    uint8_t *data;

    ASSERT(b->len <= b->cap);
    if (n <= b->cap - b->len)
        return 0;
    if (__builtin_add_overflow(b->len, n, &need) || need > PTRDIFF_MAX)
        return -ENOMEM;
    while (cap < need)
        cap *= 2; /* need <= PTRDIFF_MAX, so this cannot wrap */
    data = realloc(b->data, cap);
    if (data == NULL)
        return -ENOMEM;
    b->data = data;
    b->cap = cap;
    return 0;
}

void buf_wipe(struct buf *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->cap);
    buf_done(b);
}

void buf_put_secret(struct buf *b, const void *bytes, size_t n)
{
    struct buf larger = {0};

    if (n > b->cap - b->len) {
        int err = buf_reserve(&larger, b->cap + n);

        ASSERT(err == 0);
        buf_put(&larger, b->data, b->len);
        buf_wipe(b);
        *b = larger;
    }
    buf_put(b, bytes, n);
}

static uint8_t *room(struct buf *b, size_t n)
{
    buf_room(b, n);
    return b->data + b->len;
}

void buf_put_u64(struct buf *b, uint64_t v)
{
    char digits[STR_U64_BYTES];

    buf_put_str(b, str_of_u64(v, digits));
}

void buf_put_i64(struct buf *b, int64_t v)
{
    if (v < 0)
        buf_putc(b, '-');
    buf_put_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    int n;

    va_start(args, fmt);
    va_copy(again, args);
    (void)room(b, 1); /* vsnprintf gets a real buffer also when b is empty */
    n = vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, args);
    ASSERT(n >= 0);
    if ((size_t)n >= b->cap - b->len)
        vsnprintf((char *)room(b, (size_t)n + 1), (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
    va_end(again);
    va_end(args);
}

void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= b->len);
    if (n == 0)
        return;
    b->len -= n;
    memmove(b->data, b->data + n, b->len);
}

/* Length of the well-formed UTF-8 sequence at p (2..4; RFC 3629 section 4), or 0. On 0 *bad is the
 * length of the maximal subpart to replace by one U+FFFD (Unicode 15, section 3.9). */
static size_t utf8_sequence(const uint8_t *p, size_t n, size_t *bad)
{
    uint8_t low = 0x80, high = 0xbf;
    size_t len;

    *bad = 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        len = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        len = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        len = 4;
    else
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0; /* overlong */
    else if (p[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (p[0] == 0xf0)
        low = 0x90; /* overlong */
    else if (p[0] == 0xf4)
        high = 0x8f; /* above U+10FFFF */
    for (size_t i = 1; i < len; i++) {
        if (i == n || p[i] < low || p[i] > high) {
            *bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

static void put_json_escape(struct buf *b, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    static const char shorts[256] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                     ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
    char text[] = {'\\', shorts[c], '0', '0', hex[c >> 4], hex[c & 15]};

    if (shorts[c] != 0) {
        buf_put(b, text, 2);
        return;
    }
    text[1] = 'u';
    buf_put(b, text, 6);
}

static bool json_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* The bytes of v that equal c get their high bit; exact as long as no byte of v has its own. */
static uint64_t bytes_equal(uint64_t v, uint8_t c)
{
    return (v ^ ONES * c) - ONES;
}

/* How many plain bytes p begins with: eight at a time, the rest one by one. */
static size_t json_plain_run(const uint8_t *p, size_t n)
{
    size_t at = 0;

    for (; n - at >= 8; at += 8) {
        uint64_t v;

        memcpy(&v, p + at, 8);
        /* A borrow can only come from a byte that is found itself, so it never hides one. */
        if ((v | (v - ONES * 0x20) | bytes_equal(v, '"') | bytes_equal(v, '\\')) & ONES * 0x80)
            break;
    }
    while (at < n && json_plain(p[at]))
        at++;
    return at;
}

/* The code point of the well-formed sequence at p, if a terminal would obey it or show it out of
 * order: C1 controls (U+009B begins an escape sequence), line separators, direction overrides. */
static unsigned unseen(const uint8_t *p)
{
    unsigned third = p[0] == 0xe2 && (p[1] == 0x80 || p[1] == 0x81) ? p[2] : 0;

    if (p[0] == 0xc2 && p[1] < 0xa0)
        return p[1];
    if (p[1] == 0x80 && third >= 0xa8 && third <= 0xae)
        return 0x2000 | (third & 0x3f);
    return p[1] == 0x81 && third >= 0xa6 && third <= 0xa9 ? 0x2040 | (third & 0x3f) : 0;
}

void buf_put_json(struct buf *b, struct str s)
{
    const uint8_t *p = (const uint8_t *)s.ptr;
    size_t at = 0, start = 0;

    (void)room(b, s.len + 2); /* the common case grows once */
    buf_putc(b, '"');
    if (s.len == 0) { /* s.ptr may be NULL, which has no offsets */
        buf_putc(b, '"');
        return;
    }
    for (;;) {
        size_t len = 0, bad = 1;

        at += json_plain_run(p + at, s.len - at);
        while (at < s.len && p[at] >= 0x80 && (len = utf8_sequence(p + at, s.len - at, &bad)) > 0 &&
               unseen(p + at) == 0)
            at += len;
        if (at == s.len)
            break;
        if (json_plain(p[at]))
            continue;
        buf_put(b, p + start, at - start);
        if (p[at] < 0x80) {
            put_json_escape(b, p[at]);
        } else if (len > 0) {
            buf_printf(b, "\\u%04x", unseen(p + at));
            bad = len;
        } else {
            buf_puts(b, "\xef\xbf\xbd");
        }
        at += bad;
        start = at;
    }
    buf_put(b, p + start, at - start);
    buf_putc(b, '"');
}

#include "mail/encode.h"

#include <errno.h>
#include <string.h>

#include "base/base64.h"

#define LINE_CHARS     76
#define LINE_BYTES_B64 57 /* of input in a full line */

/* --- quoted-printable --- */

#define TEXT_CHARS    (LINE_CHARS - 1) /* of a line: one is for the soft break's '=' */
#define SCRATCH_BYTES 4096
#define COPY_SLACK    16
#define ONCE_BYTES    (64u << 10) /* a text of so many is written to see how long it becomes */

_Static_assert(LINE_BYTES_B64 % 3 == 0 && LINE_BYTES_B64 / 3 * 4 == LINE_CHARS, "a full line");
_Static_assert(2 * LINE_CHARS >= TEXT_CHARS + COPY_SLACK, "scratch has room behind its end");

/* What is never literal. The same for sixteen bytes at a time: of each lane, all bits or none. */
typedef uint8_t lanes __attribute__((vector_size(16)));
typedef int8_t signed_lanes __attribute__((vector_size(16)));

static bool is_special(uint8_t c)
{
    return c > 0x7e || c == '=' || (c < ' ' && c != '\t');
}

/* As signed bytes those beyond ASCII are negative: comparisons of these are single instructions. */
static lanes specials(const uint8_t *in)
{
    signed_lanes x;

    memcpy(&x, in, sizeof(x));
    return (lanes)(((x < ' ') & (x != '\t')) | (x == '=') | (x == 0x7f));
}

/* Where the first one is of so many bytes; their number: there is none. */
static size_t first_special(const uint8_t *in)
{
    lanes x = specials(in);
    uint64_t half[2]; /* little-endian, as all targets are */

    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest");
    _Static_assert(sizeof(half) == sizeof(x), "all lanes");
    memcpy(half, &x, sizeof(half));
    return half[0] != 0   ? (size_t)__builtin_ctzll(half[0]) / 8
           : half[1] != 0 ? 8 + (size_t)__builtin_ctzll(half[1]) / 8
                          : sizeof(lanes);
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* Whether a line ends behind in[i]. */
static bool ends_line(const uint8_t *in, size_t len, size_t i)
{
    return i + 1 == len || (i + 2 < len && in[i + 1] == '\r' && in[i + 2] == '\n');
}

/* A '-' or '.' that would begin a line is escaped: a soft break must not make a multipart's
 * delimiter, or a line that needs dot-stuffing, out of the middle of a long line. */
static bool begins_badly(size_t column, uint8_t c)
{
    return (column == 0 || column == TEXT_CHARS) && (c == '-' || c == '.');
}

/* So many bytes that stay as they are, and on this line: most of a text goes this way. */
static size_t plain_run(size_t column, const uint8_t *in, size_t len)
{
    size_t max = TEXT_CHARS - column < len ? TEXT_CHARS - column : len, n = 0;
    size_t found = sizeof(lanes);

    ASSERT(column <= TEXT_CHARS);
    if (max == 0 || begins_badly(column, in[0]))
        return 0;
    while (found == sizeof(lanes) && n < max && n + sizeof(lanes) <= len) {
        found = first_special(in + n);
        n += found;
    }
    while (found == sizeof(lanes) && n < max && !is_special(in[n]))
        n++;
    if (n > max)
        n = max;
    return n > 0 && is_blank(in[n - 1]) && ends_line(in, len, n - 1) ? n - 1 : n;
}

/* Copies so many bytes, up to COPY_SLACK more where in has them: a call for each run would cost as
 * much as finding it. */
static void copy_run(uint8_t *out, const uint8_t *in, size_t len, size_t left)
{
    ASSERT(len <= left);
    if (left < len + COPY_SLACK) {
        memcpy(out, in, len);
        return;
    }
    for (size_t i = 0; i < len; i += COPY_SLACK)
        memcpy(out + i, in + i, COPY_SLACK);
}

static uint8_t *put_escape(uint8_t *at, uint8_t c)
{
    static const char hex[] = "0123456789ABCDEF";

    at[0] = '=';
    at[1] = (uint8_t)hex[c >> 4];
    at[2] = (uint8_t)hex[c & 15];
    return at + 3;
}

/* Writes to out, which has COPY_SLACK bytes behind the end, or, where that is NULL, only counts.
 * How many bytes it is. */
static size_t qp_run(uint8_t *out, const uint8_t *in, size_t len)
{
    uint8_t scratch[SCRATCH_BYTES + 2 * LINE_CHARS], *at = out == NULL ? scratch : out;
    const uint8_t *full = out == NULL ? scratch + SCRATCH_BYTES : (const uint8_t *)UINTPTR_MAX;
    size_t column = 0, counted = 0, i = 0;

    while (i < len) {
        uint8_t c = in[i];
        size_t n = is_special(c) ? 0 : plain_run(column, in + i, len - i);
        bool literal;

        if (at > full) {
            counted += (size_t)(at - scratch);
            at = scratch;
        }
        if (n > 0) {
            copy_run(at, in + i, n, len - i);
            at += n;
            column += n;
            i += n;
            continue;
        }
        if (c == '\r' && i + 1 < len && in[i + 1] == '\n') {
            memcpy(at, "\r\n", 2);
            at += 2;
            column = 0;
            i += 2;
            continue;
        }
        literal =
            !is_special(c) && !begins_badly(column, c) && !(is_blank(c) && ends_line(in, len, i));
        if (column + (literal ? 1 : 3) > TEXT_CHARS) {
            memcpy(at, "=\r\n", 3);
            at += 3;
            column = 0;
        }
        if (literal)
            *at++ = c;
        else
            at = put_escape(at, c);
        column += literal ? 1 : 3;
        i++;
    }
    return counted + (size_t)(at - (out == NULL ? scratch : out));
}

size_t encode_qp_len(const uint8_t *in, size_t len)
{
    return qp_run(NULL, in, len);
}

int encode_qp(const uint8_t *in, size_t len, struct buf *out)
{
    size_t need = encode_qp_len(in, len), written;
    int result = buf_reserve(out, need + COPY_SLACK);

    if (result != 0 || need == 0)
        return result;
    written = qp_run(out->data + out->len, in, len);
    ASSERT(written == need);
    out->len += written;
    return 0;
}

int encode_qp_strays(const uint8_t *in, size_t len, struct buf *out)
{
    size_t column = 0;

    if (buf_reserve(out, len) != 0)
        return -ENOMEM;
    for (size_t i = 0; i < len; i++) {
        bool stray = in[i] >= 0x80;
        uint8_t escape[6] = "=\r\n", *at = escape;

        /* Not behind a '=': what that means depends on what follows. */
        if (stray && column + 3 > TEXT_CHARS && in[i - 1] != '=') {
            at += 3;
            column = 0;
        }
        at = stray ? put_escape(at, in[i]) : at;
        if (!stray)
            *at++ = in[i];
        if (buf_reserve(out, (size_t)(at - escape)) != 0)
            return -ENOMEM;
        buf_put(out, escape, (size_t)(at - escape));
        column = in[i] == '\n' ? 0 : column + (stray ? 3 : 1);
    }
    return 0;
}

static size_t count_specials(const uint8_t *in, size_t len)
{
    size_t i = 0, n = 0;

    while (i + sizeof(lanes) <= len) {
        size_t end = len - i > sizeof(lanes) * 255 ? i + sizeof(lanes) * 255 : len;
        lanes sum = {0}; /* of no more, or a lane would overflow */

        for (; i + sizeof(lanes) <= end; i += sizeof(lanes))
            sum -= specials(in + i);
        for (size_t k = 0; k < sizeof(lanes); k++)
            n += sum[k];
    }
    for (; i < len; i++)
        n += is_special(in[i]);
    return n;
}

static size_t count_newlines(const uint8_t *in, size_t len)
{
    const uint8_t *at = in, *end = in + len;
    size_t n = 0;

    while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        n++;
        at++;
    }
    return n;
}

int encode_qp_within(const uint8_t *in, size_t len, size_t max, struct buf *out)
{
    size_t special = count_specials(in, len), ends = 2 * count_newlines(in, len), need, written;
    int result;

    /* At the least: a line end is two specials that stay, and soft breaks come on top. */
    special = special > ends ? special - ends : 0;
    if (len + 2 * special > max)
        return -E2BIG;
    /* At the most: a short line is twice as long with both its ends escaped, the last one, which
     * has no end, three times. */
    need = len <= ONCE_BYTES ? 2 * (len + 2 * (special + ends)) + 8 : encode_qp_len(in, len);
    if (len > ONCE_BYTES && need > max)
        return -E2BIG;
    result = buf_reserve(out, need + COPY_SLACK);
    if (result != 0 || len == 0)
        return result;
    written = qp_run(out->data + out->len, in, len);
    ASSERT(written >= len + 2 * special && written <= need);
    if (written > max)
        return -E2BIG;
    out->len += written;
    return 0;
}

/* --- base64 --- */

size_t encode_base64_len(size_t len)
{
    return len == 0 ? 0 : (len + 2) / 3 * 4 + (len - 1) / LINE_BYTES_B64 * 2;
}

int encode_base64(const uint8_t *in, size_t len, struct buf *out)
{
    size_t end = out->len + encode_base64_len(len);
    int result = buf_reserve(out, encode_base64_len(len));

    if (result != 0)
        return result;
    for (size_t i = 0; i < len; i += LINE_BYTES_B64) {
        size_t n = len - i < LINE_BYTES_B64 ? len - i : LINE_BYTES_B64;

        if (i > 0)
            buf_puts(out, "\r\n");
        base64_put(out, (struct str){(const char *)in + i, n});
    }
    ASSERT(out->len == end);
    return 0;
}

int encode_base64_strays(const uint8_t *in, size_t len, struct buf *out)
{
    if (buf_reserve(out, len) != 0)
        return -ENOMEM;
    for (size_t i = 0; i < len; i++)
        if (in[i] < 0x80)
            buf_putc(out, (char)in[i]);
    return 0;
}

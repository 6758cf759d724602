#include "mail/encode.h"

#include <stdbool.h>

#include "base/base64.h"

#define LINE_CHARS     76
#define LINE_BYTES_B64 57 /* of input in a full line */

/* --- quoted-printable --- */

struct qp {
    uint8_t *out; /* NULL: only count */
    size_t len;
    size_t column;
};

static void qp_put(struct qp *q, uint8_t c)
{
    if (q->out != NULL)
        q->out[q->len] = c;
    q->len++;
}

/* Room for n more characters on this line; one is kept for the soft break's '='. */
static void qp_room(struct qp *q, size_t n)
{
    if (q->column + n > LINE_CHARS - 1) {
        qp_put(q, '=');
        qp_put(q, '\r');
        qp_put(q, '\n');
        q->column = 0;
    }
    q->column += n;
}

/* A '-' or '.' that would begin a line is escaped: a soft break must not make a multipart's
 * delimiter, or a line that needs dot-stuffing, out of the middle of a long line. */
static bool is_literal(const struct qp *q, uint8_t c)
{
    bool begins_line = q->column == 0 || q->column == LINE_CHARS - 1;

    return c > ' ' && c < 0x7f && c != '=' && !(begins_line && (c == '-' || c == '.'));
}

static void qp_run(struct qp *q, const uint8_t *in, size_t len)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < len; i++) {
        uint8_t c = in[i];
        bool at_end = i + 1 == len || (i + 2 < len && in[i + 1] == '\r' && in[i + 2] == '\n');
        bool blank = c == ' ' || c == '\t';

        if (c == '\r' && i + 1 < len && in[i + 1] == '\n') {
            qp_put(q, '\r');
            qp_put(q, '\n');
            q->column = 0;
            i++;
        } else if (is_literal(q, c) || (blank && !at_end)) {
            qp_room(q, 1);
            qp_put(q, c);
        } else {
            qp_room(q, 3);
            qp_put(q, '=');
            qp_put(q, (uint8_t)hex[c >> 4]);
            qp_put(q, (uint8_t)hex[c & 15]);
        }
    }
}

size_t encode_qp_len(const uint8_t *in, size_t len)
{
    struct qp q = {0};

    qp_run(&q, in, len);
    return q.len;
}

int encode_qp(const uint8_t *in, size_t len, struct buf *out)
{
    size_t need = encode_qp_len(in, len);
    int result = buf_reserve(out, need);
    struct qp q = {0};

    if (result != 0 || need == 0)
        return result;
    q.out = out->data + out->len;
    qp_run(&q, in, len);
    ASSERT(q.len == need);
    out->len += need;
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
    int result = buf_reserve(out, end - out->len);

    if (result != 0)
        return result;
    for (size_t at = 0; at < len; at += LINE_BYTES_B64) {
        size_t n = len - at < LINE_BYTES_B64 ? len - at : LINE_BYTES_B64;

        if (at > 0)
            buf_puts(out, "\r\n");
        base64_put(out, (struct str){(const char *)in + at, n});
    }
    ASSERT(out->len == end);
    return 0;
}

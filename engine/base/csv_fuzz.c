/* csv_next() over any bytes: it ends, lines count up, and what was read, written again with every
 * cell quoted, reads the same. */
#include "base/assert.h"
#include "base/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void quote(struct buf *out, const struct csv *c)
{
    for (size_t i = 0; i < c->cells_len; i++) {
        buf_puts(out, i > 0 ? ",\"" : "\"");
        for (size_t k = 0; k < c->cells[i].len; k++) {
            buf_putc(out, c->cells[i].ptr[k]);
            if (c->cells[i].ptr[k] == '"')
                buf_putc(out, '"');
        }
        buf_putc(out, '"');
    }
    buf_puts(out, "\r\n");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct csv c, again;
    struct buf out = {0};
    uint64_t line = 0;
    int got;

    csv_init(&c, (struct str){(const char *)data, size});
    while ((got = csv_next(&c)) != 0) {
        ASSERT(c.line > line);
        line = c.line;
        if (got < 0)
            continue;
        buf_clear(&out);
        quote(&out, &c);
        csv_init(&again, buf_str(&out));
        ASSERT(csv_next(&again) == 1 && again.cells_len == c.cells_len);
        for (size_t i = 0; i < c.cells_len; i++)
            ASSERT(str_eq(again.cells[i], c.cells[i]));
        ASSERT(csv_next(&again) == 0);
        csv_done(&again);
    }
    ASSERT(c.rest.len == 0);
    csv_done(&c);
    buf_done(&out);
    return 0;
}

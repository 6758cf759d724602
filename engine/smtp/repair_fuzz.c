/* Repaired content: whole lines, whatever the pieces; its end is where the strict decoder sees one,
 * and where nothing is to be repaired it is what that decoder gives. First byte: size of the
 * pieces. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "smtp/repair.h"
#include "smtp/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool repair(const uint8_t *in, size_t len, size_t piece, size_t *used, struct buf *out)
{
    struct smtp_repair r;
    bool end = false;

    smtp_repair_init(&r, true);
    for (*used = 0; !end && *used < len;) {
        struct str body;
        size_t n;

        end =
            smtp_repair_next(&r, in + *used, len - *used < piece ? len - *used : piece, &n, &body);
        ASSERT(n + body.len > 0);
        buf_put_str(out, body);
        *used += n;
    }
    return end;
}

static bool decode(const uint8_t *in, size_t len, size_t *used, struct buf *out, bool *bare)
{
    struct smtp_data_decoder d;
    bool end = false;

    smtp_data_decoder_init(&d);
    for (*used = 0; !end && *used < len;) {
        struct str body;
        size_t n;

        end = smtp_data_next(&d, in + *used, len - *used, &n, &body);
        buf_put_str(out, body);
        *used += n;
    }
    *bare = d.facts.bare_cr || d.facts.bare_lf;
    return end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole = {0}, pieces = {0}, strict = {0};
    size_t used, used_pieces, used_strict;
    bool end, bare;

    if (size == 0)
        return 0;
    end = repair(data + 1, size - 1, size, &used, &whole);
    ASSERT(repair(data + 1, size - 1, (size_t)data[0] + 1, &used_pieces, &pieces) == end);
    ASSERT(used_pieces == used && str_eq(buf_str(&whole), buf_str(&pieces)));
    ASSERT(decode(data + 1, size - 1, &used_strict, &strict, &bare) == end && used_strict == used);
    ASSERT(!end || bare || str_eq(buf_str(&whole), buf_str(&strict)));
    for (size_t i = 0; i < whole.len; i++) {
        ASSERT(whole.data[i] != '\n' || (i > 0 && whole.data[i - 1] == '\r'));
        ASSERT(whole.data[i] != '\r' || (i + 1 < whole.len && whole.data[i + 1] == '\n'));
    }
    buf_done(&whole);
    buf_done(&pieces);
    buf_done(&strict);
    return 0;
}

/* Bodies: each instruction set gives what the scalar twin gives, whatever the pieces, and data end
 * at CRLF.CRLF alone. First byte: size of the pieces. */
#include <stdlib.h>

#include "base/assert.h"
#include "smtp/scan.h"
#include "smtp/scan_isa.h"

#define BYTES_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct decoded {
    struct smtp_data_decoder decoder;
    uint8_t body[BYTES_MAX + 2];
    size_t len, used;
    bool end;
};

static void decode(struct decoded *d, const uint8_t *in, size_t len, size_t piece)
{
    smtp_data_decoder_init(&d->decoder);
    d->len = d->used = 0;
    d->end = false;
    while (!d->end && d->used < len) {
        size_t n = len - d->used < piece ? len - d->used : piece, used;
        struct str body;

        d->end = smtp_data_next(&d->decoder, in + d->used, n, &used, &body);
        ASSERT(used + body.len > 0 && d->len + body.len <= sizeof(d->body));
        if (body.len != 0)
            memcpy(d->body + d->len, body.ptr, body.len);
        d->len += body.len;
        d->used += used;
    }
}

static void same_facts(const struct smtp_body_facts *a, const struct smtp_body_facts *b)
{
    ASSERT(a->eight_bit == b->eight_bit && a->dot_lines == b->dot_lines && a->nul == b->nul);
    ASSERT(a->bare_cr == b->bare_cr && a->bare_lf == b->bare_lf);
    ASSERT(a->ends_crlf == b->ends_crlf && a->line_bytes_max == b->line_bytes_max);
}

static struct smtp_body_facts scan(const uint8_t *in, size_t len, size_t piece)
{
    struct smtp_body_scanner s;

    smtp_body_scanner_init(&s);
    for (size_t at = 0; at < len; at += piece)
        smtp_body_scan(&s, in + at, len - at < piece ? len - at : piece);
    smtp_body_scan_end(&s);
    return s.facts;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoded want, got;
    uint8_t behind[BYTES_MAX + 2] = "\r\n";
    struct smtp_body_facts facts;
    const uint8_t *in = data + 1, *end;
    size_t len = size - 1, dot;

    if (size == 0 || len > BYTES_MAX)
        return 0;
    scan_isa_use(SCAN_SCALAR);
    decode(&want, in, len, len + 1);
    facts = scan(in, len, len + 1);
    dot = smtp_find_dot_line(in, len, 0);
    memcpy(behind + 2, in, len);
    end = memmem(behind, len + 2, "\r\n.\r\n", 5);
    ASSERT(want.end == (end != NULL));
    ASSERT(end == NULL || want.used == (size_t)(end - behind) + 3);
    for (enum scan_isa isa = SCAN_SCALAR; isa < SCAN_ISAS; isa++) {
        struct smtp_body_facts f;

        if (!scan_isa_use(isa))
            continue;
        decode(&got, in, len, (size_t)data[0] + 1);
        ASSERT(got.end == want.end && got.used == want.used && got.len == want.len);
        ASSERT(memcmp(got.body, want.body, got.len) == 0);
        if (want.end)
            same_facts(&got.decoder.facts, &want.decoder.facts);
        f = scan(in, len, (size_t)data[0] + 1);
        same_facts(&f, &facts);
        ASSERT(smtp_find_dot_line(in, len, 0) == dot);
    }
    if (want.end) {
        facts = scan(want.body, want.len, 7);
        same_facts(&want.decoder.facts, &facts);
    }
    return 0;
}

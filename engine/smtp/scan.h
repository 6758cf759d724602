/* Searching message bytes: end-of-data, bare CR/LF, NUL, 8-bit, long lines, dots. SIMD where it
 * pays (SSE2/AVX2 chosen at run time, NEON), a scalar twin for tests. Pure. */
#ifndef HAYAUMA_SMTP_SCAN_H
#define HAYAUMA_SMTP_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/* What a body turned out to be; accumulates over chunks. */
struct smtp_body_facts {
    bool eight_bit; /* some byte > 127 */
    bool dot_lines; /* some decoded line starts with '.' */
    bool nul;       /* some NUL byte */
    bool bare_cr, bare_lf;
    bool ends_crlf;          /* last two bytes are CRLF (or the body is empty) */
    uint32_t line_bytes_max; /* longest line without its CRLF */
};

/* The decoder of a DATA body (RFC 5321 4.5.2). State between chunks. */
struct smtp_data_decoder {
    uint8_t state;
    uint32_t line_bytes;
    struct smtp_body_facts facts;
};

void smtp_data_decoder_init(struct smtp_data_decoder *d);
/* The next slice of decoded bytes, dot-stuffing removed, without a copy: *body is in in, or in
 * static memory. *in_used is set (0 when a CR held back from the input before comes out); call
 * again behind it while there is input. True right behind CRLF.CRLF, with an empty slice: the
 * slices made the body with its final CRLF and without the dot, and facts are complete. Only
 * CRLF.CRLF ends data; LF.LF, CR.CR, LF.CRLF, CRLF.LF, CRLF.CR and the like never do, they set
 * bare_cr/bare_lf and are content. */
bool smtp_data_next(struct smtp_data_decoder *d, const uint8_t *in, size_t in_len, size_t *in_used,
                    struct str *body);

/* Gathers the facts of bytes that are not dot-stuffed (BDAT chunks); call _end when complete. */
struct smtp_body_scanner {
    uint8_t last; /* last byte seen */
    bool started;
    uint32_t line_bytes;
    struct smtp_body_facts facts;
};
void smtp_body_scanner_init(struct smtp_body_scanner *s);
void smtp_body_scan(struct smtp_body_scanner *s, const uint8_t *in, size_t len);
void smtp_body_scan_end(struct smtp_body_scanner *s);

/* Offset of the next line that starts with '.' at or after from (a line starts at 0 or behind
 * CRLF), or len. For dot-stuffing on the way out. */
size_t smtp_find_dot_line(const uint8_t *body, size_t len, size_t from);

#endif

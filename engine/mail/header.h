/* Header fields of a message or MIME part (RFC 5322 2.2, RFC 2045): found in place, never copied.
 * Pure; slices point into the content. */
#ifndef HAYAUMA_ENGINE_HEADER_H
#define HAYAUMA_ENGINE_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/* A message with more of them is nobody's letter, and would cost those who look at them all. */
#define HEADER_FIELDS_MAX 10000

struct header_field {
    struct str name;
    size_t start, end; /* offsets, with the continuation lines and the last line end */
};

/* The field that starts at offset at; false at the empty line, at the end, or at a line that is no
 * field. White space before the colon is tolerated (RFC 5322 4.5.3). */
bool header_field_next(const uint8_t *content, size_t len, size_t at, struct header_field *field);
/* The field's value without white space at the ends, still folded. */
struct str header_field_value(const uint8_t *content, const struct header_field *field);
/* Offset behind the line that at is in (behind its LF, or len). */
size_t header_line_end(const uint8_t *content, size_t len, size_t at);
/* Whether some byte is above 127. */
static inline bool header_eight_bit(const uint8_t *p, size_t len)
{
    return !str_is_ascii((struct str){(const char *)p, len});
}

#endif

/* Text in ISO-2022-JP (RFC 1468), for readers that know nothing else. Half-width kana become
 * full-width ones, which the charset has; so do other forms of the same signs (U+FF5E is U+301C).
 * The codes are those of the C library (iconv), read once. Pure; any thread. */
#ifndef HAYAUMA_ENGINE_ISO2022JP_H
#define HAYAUMA_ENGINE_ISO2022JP_H

#include <stdbool.h>

#include "base/assert.h"
#include "base/buf.h"

/* Whether the C library has the codes; reads them when it is first called, for a millisecond. What
 * follows is for where it has. */
bool iso2022jp_known(void);
/* Whether the valid UTF-8 text can be written so. *missing: else the first character that cannot.
 */
bool iso2022jp_can(struct str text, uint32_t *missing);
/* Appends text, which can be. Each line, and the end, is in ASCII again. */
void iso2022jp_put(struct buf *out, struct str text);
/* The beginning of text, in whole characters, that comes to no more than bytes_max; unless that is
 * all of it, to a multiple of three where it can, so that base64 needs no padding. */
struct str iso2022jp_fitting(struct str text, size_t bytes_max);

#endif

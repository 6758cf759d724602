/* Base64 (RFC 4648 section 4) as protocols carry it in one line: with padding, without white space.
 * Strict, so that each value has one spelling. Pure. */
#ifndef HAYAUMA_BASE_BASE64_H
#define HAYAUMA_BASE_BASE64_H

#include "base/buf.h"

/* Appends the text of bytes; out grows once at most. */
void base64_put(struct buf *out, struct str bytes);
/* Appends what text stands for. 0, or -EINVAL with out unchanged. */
int base64_decode(struct buf *out, struct str text) MUST_USE;

#endif

/* Content-Transfer-Encodings that make 7-bit text of any bytes (RFC 2045 section 6.7 and 6.8).
 * Pure. */
#ifndef HAYAUMA_ENGINE_ENCODE_H
#define HAYAUMA_ENGINE_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

/* Exact lengths of the output below. */
size_t encode_qp_len(const uint8_t *in, size_t len);
size_t encode_base64_len(size_t len);

/* Quoted-printable: CRLF stays a line break, everything else that is not printable is escaped;
 * lines of at most 76, none starts with '-' or '.'. Appends to out; 0 or -ENOMEM (out is as
 * before). */
int encode_qp(const uint8_t *in, size_t len, struct buf *out) MUST_USE;
/* The same if it comes to no more than max bytes; else -E2BIG, and out is as before. */
int encode_qp_within(const uint8_t *in, size_t len, size_t max, struct buf *out) MUST_USE;
/* Base64 in lines of 76 with CRLF between them, none behind the last. */
int encode_base64(const uint8_t *in, size_t len, struct buf *out) MUST_USE;

/* What is quoted-printable, or base64, but for some 8-bit bytes, without them: each is escaped, on
 * a line of its own where the line would become too long for SMTP; or left out. Appends to out; 0
 * or -ENOMEM. */
int encode_qp_strays(const uint8_t *in, size_t len, struct buf *out) MUST_USE;
int encode_base64_strays(const uint8_t *in, size_t len, struct buf *out) MUST_USE;

#endif

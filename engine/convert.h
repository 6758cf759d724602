/* An 8-bit message for a peer without 8BITMIME (RFC 6152 section 3, RFC 2045, RFC 2046): every part
 * with 8-bit content is re-encoded as quoted-printable or base64, whichever is shorter, and the
 * multiparts around them are labelled 7bit. Everything else keeps its bytes: only the bodies of
 * those parts and Content-Transfer-Encoding fields change. Pure; one output buffer. Rare, so not
 * for a hot path, but linear in the length of the message.
 *
 * A DKIM signature over the body does not survive this; docs/failures.md says so. */
#ifndef HAYAUMA_ENGINE_CONVERT_H
#define HAYAUMA_ENGINE_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

#define CONVERT_DEPTH_MAX 32 /* nested multiparts and message/rfc822 */
#define CONVERT_PARTS_MAX 10000

/* content: CRLF lines. Appends the 7-bit message to out, which is as before on failure.
 * No new line starts with '.': MESSAGE_DOT_LINES stays true or false.
 * 0; -EILSEQ: cannot be expressed in 7 bits by rules (8-bit bytes in a header, in a part whose
 * encoding is declared as something else, in a part that may not be encoded such as
 * message/partial, in a multipart's preamble or epilogue, signed parts (RFC 1847 2.1), or limits
 * above exceeded): local failure 5.6.3; -ENOMEM. */
int convert_to_7bit(const uint8_t *content, size_t len, struct buf *out) MUST_USE;

#endif

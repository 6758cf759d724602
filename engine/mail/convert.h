/* A message for a peer that cannot take it as it is: without SMTPUTF8 its header fields, and those
 * of its parts, become ASCII (downgrade.h); without 8BITMIME (RFC 6152 section 3, RFC 2045, RFC
 * 2046) also every part with 8-bit content is encoded as quoted-printable or base64, whichever is
 * shorter, and the multiparts around it are labelled 7bit. Everything else keeps its bytes. Pure;
 * one output buffer; its time is linear in the length of the message, whatever its depth.
 *
 * A DKIM signature over what changes does not survive this; docs/failures.md says so. */
#ifndef HAYAUMA_ENGINE_CONVERT_H
#define HAYAUMA_ENGINE_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

#define CONVERT_DEPTH_MAX 32 /* nested multiparts and message/rfc822 */
#define CONVERT_PARTS_MAX 10000

enum convert {
    CONVERT_HEADERS, /* header fields only; fails for want of memory and for limits only */
    CONVERT_ALL
};

/* content: CRLF lines. Appends the message to out, which is as before on failure. No new line
 * starts with '.': MESSAGE_DOT_LINES stays true or false.
 * 0; -EILSEQ: cannot be expressed in 7 bits by rules (8-bit bytes in a part whose encoding is
 * declared as something else, in one that may not be encoded such as message/partial, in a
 * multipart's preamble or epilogue, in signed parts (RFC 1847 2.1), or limits above exceeded):
 * local failure; -ENOMEM. */
int convert_message(const uint8_t *content, size_t len, enum convert what,
                    struct buf *out) MUST_USE;

struct convert_facts {
    bool header_eight_bit; /* some header, a part's included, is not ASCII */
    bool convertible;      /* by CONVERT_ALL */
};

/* What a conversion would find. 0, -EILSEQ (above the limits) or -ENOMEM. */
int convert_examine(const uint8_t *content, size_t len, struct convert_facts *facts);

#endif

/* A message for a peer that cannot take it as it is: without SMTPUTF8 its header fields, and those
 * of its parts, become ASCII (downgrade.h); without 8BITMIME (RFC 6152 section 3, RFC 2045, RFC
 * 2046) also every part with 8-bit content is encoded as quoted-printable or base64, whichever is
 * shorter, and the multiparts around it are labelled 7bit. Everything else keeps its bytes. Pure;
 * one output buffer; its time is linear in the length of the message, whatever its depth.
 *
 * What is quoted-printable or base64 already may have a few bytes that it should not have: they are
 * escaped there, or left out as its decoders do (RFC 2045 6.7, 6.8). In a preamble or an epilogue,
 * which no reader shows, each such byte becomes '?'.
 *
 * A part stays 8-bit where no rule says what it would be in 7 bits, or where a change destroys it:
 * signed and encrypted ones (a reader says of them that somebody has tampered with the mail),
 * message/partial and the like, unknown encodings, and fields that contradict one another. Such
 * mail goes out as it is, against RFC 6152 section 3, as Exim, OpenSMTPD and, for signed mail,
 * sendmail send it: the servers that do not offer 8BITMIME take 8-bit bytes nearly all, and the
 * answer of one that does not counts.
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
    CONVERT_HEADERS, /* header fields only */
    CONVERT_ALL
};

/* content: CRLF lines. Appends the message to out, which is as before on failure. No new line
 * starts with '.': MESSAGE_DOT_LINES stays true or false.
 * 0; -EILSEQ: more parts than CONVERT_PARTS_MAX; -ENOMEM. */
int convert_message(const uint8_t *content, size_t len, enum convert what,
                    struct buf *out) MUST_USE;

struct convert_facts {
    bool header_eight_bit; /* some header, a part's included, is not ASCII */
    bool eight_bit_stays;  /* some part stays 8-bit, whatever is asked for */
};

/* What a conversion would find. 0, -EILSEQ or -ENOMEM, as above. */
int convert_examine(const uint8_t *content, size_t len, struct convert_facts *facts);

#endif

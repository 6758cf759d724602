/* Canonical forms of what a DKIM signature covers (RFC 6376 3.4), put into a hash piece by piece.
 * Pure but for the hash. Content has CRLF line ends; a CR or LF alone is a byte like others. */
#ifndef HAYAUMA_MAIL_DKIM_CANON_H
#define HAYAUMA_MAIL_DKIM_CANON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "tls/dkim_key.h"

/* --- the body --- */

struct dkim_body {
    struct dkim_hash *hash;
    bool relaxed;
    bool cr, space;       /* of the line at hand: a CR, white space that may end it */
    bool any;             /* something was hashed */
    uint64_t empty_lines; /* line ends that count only if something follows; the line's own first */
    size_t room_len;
    uint8_t room[1024];
};

/* 0 or -ENOMEM. */
int dkim_body_begin(struct dkim_body *b, bool relaxed) MUST_USE;
void dkim_body_add(struct dkim_body *b, const uint8_t *bytes, size_t len);
/* The body's hash. 0 or -EIO; b is done in any case. */
int dkim_body_end(struct dkim_body *b, uint8_t out[DKIM_HASH_BYTES]) MUST_USE;

/* --- header fields --- */

/* Adds one field, with its line end: bytes are all of it, its name first, white space before the
 * colon included. */
void dkim_canon_field(struct dkim_hash *h, bool relaxed, struct str name, struct str bytes);
/* The signature's own field, with nothing behind "b=" and without a line end. */
void dkim_canon_signature(struct dkim_hash *h, bool relaxed, struct str bytes);

#endif

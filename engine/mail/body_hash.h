/* The hash of a body that a signature has (RFC 6376 3.7), made while the content comes, and kept
 * with the content: what is kept says which body it is of, so that another one's is never taken. */
#ifndef HAYAUMA_MAIL_BODY_HASH_H
#define HAYAUMA_MAIL_BODY_HASH_H

#include "mail/dkim_canon.h"

/* What is kept: the form (0 simple, 1 relaxed), the body's length (8 bytes, little-endian), the
 * hash.
 */
#define BODY_HASH_BYTES (1 + 8 + DKIM_HASH_BYTES)

/* One that is being made. bytes: all that has come so far, perhaps behind what is none of it; it
 * may move between calls. Zeroed: nothing has come. */
struct body_hash {
    struct dkim_body body;
    size_t at;    /* up to where bytes were looked at, or hashed */
    size_t start; /* of the body; 0: it has not begun */
};

/* Whether the body has begun: behind the first empty line. from: where the message starts. */
bool body_hash_look(struct body_hash *h, const uint8_t *bytes, size_t from, size_t len);
/* Behind body_hash_look(). 0 or -ENOMEM; then h is as if zeroed. */
int body_hash_begin(struct body_hash *h, bool relaxed) MUST_USE;
/* Hashes what of the body is new. False: so many empty lines are held back, since those at a body's
 * end do not count, that what follows them would have all hashed at once: for threads that may take
 * their time. */
bool body_hash_add(struct body_hash *h, const uint8_t *bytes, size_t len);
#define BODY_HASH_HELD_MAX 16384
/* The same, and puts what is to be kept into out. 0 or -EIO; h is done with in any case. */
int body_hash_end(struct body_hash *h, const uint8_t *bytes, size_t len,
                  uint8_t out[BODY_HASH_BYTES]) MUST_USE;
void body_hash_drop(struct body_hash *h); /* without its end; a zeroed one is accepted */

/* Whether kept is of a body of that form and length; its hash then. */
bool body_hash_kept(struct str kept, bool relaxed, uint64_t len, uint8_t out[DKIM_HASH_BYTES]);

#endif

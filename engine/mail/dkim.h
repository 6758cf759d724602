/* DKIM signatures (RFC 6376, RFC 8463) of a message as it leaves. Pure but for the keys: the same
 * message, time and keys give the same fields (RSA's padding and Ed25519 have no chance in them).
 * Takes CPU, an RSA signature a third of a millisecond: for the crew, not for a worker.
 *
 * What is signed: the body, all of it (no l=), and header fields by name. Each name is listed once
 * more than the message has such fields, so that none can be added later (RFC 6376 8.15); those
 * that tell a reader who writes and what it is are listed where the message has none, too. */
#ifndef HAYAUMA_MAIL_DKIM_H
#define HAYAUMA_MAIL_DKIM_H

#include "mail/body_hash.h"

#define DKIM_NAME_BYTES_MAX 76 /* of a header field to sign */
#define DKIM_FIELDS_MAX     32 /* of one name: the last ones are signed */
#define DKIM_SIGNERS_MAX    8  /* of one message */

struct dkim_options {
    bool header_relaxed, body_relaxed;
    const char *const *headers; /* names to sign beside the usual ones */
    size_t headers_len;
    uint32_t expires_s; /* x=; 0: none */
};

struct dkim_signer {
    const char *domain, *selector; /* d=, s= */
    const struct dkim_key *key;
};

/* Appends one DKIM-Signature field for each signer, in their order. content: CRLF lines; what is in
 * front of the first line that is no header field is the header. body_hash: what is kept of the
 * body (body_hash.h), or empty; taken where it is of this body, in the form wanted. now_s: seconds
 * since 1970. 0, -ENOMEM or -EIO (OpenSSL); then out has anything behind what it had. */
int dkim_sign(const uint8_t *content, size_t len, struct str body_hash,
              const struct dkim_options *options, const struct dkim_signer *signers,
              size_t signers_len, int64_t now_s, struct buf *out) MUST_USE;

/* The hash that a signature signs: of the fields in the order of names (h=; several of a name from
 * the bottom up, a missing one adds nothing), and of the signature's own field, which ends with an
 * empty b=. 0, -ENOMEM or -EIO. */
int dkim_header_hash(const uint8_t *content, size_t len, bool relaxed, const struct str *names,
                     size_t names_len, struct str signature, uint8_t out[DKIM_HASH_BYTES]) MUST_USE;

/* Whether name can be in h= as it is. */
bool dkim_name_valid(struct str name);

#endif

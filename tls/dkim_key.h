/* Keys of DKIM signatures (RFC 6376, RFC 8463) and the hash beneath: the seam between the signer
 * (mail/dkim.h) and OpenSSL, and libsodium. A private key is wiped when it is freed, and nothing
 * here prints one but dkim_key_write(). A key may sign in several threads at once. */
#ifndef HAYAUMA_TLS_DKIM_KEY_H
#define HAYAUMA_TLS_DKIM_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

enum dkim_algorithm { DKIM_RSA_SHA256, DKIM_ED25519_SHA256 };
/* As a= of a signature has it: "rsa-sha256". */
const char *dkim_algorithm_name(enum dkim_algorithm algorithm);

/* RFC 8301 3.2: signers use 1024 bits at least and should use 2048. Beyond 4096 no verifier need
 * follow, and a record does not fit into a response. */
#define DKIM_RSA_BITS_MIN    1024
#define DKIM_RSA_BITS        2048
#define DKIM_RSA_BITS_MAX    4096
#define DKIM_HASH_BYTES      32
#define DKIM_SIGNATURE_BYTES (DKIM_RSA_BITS_MAX / 8)

struct dkim_key;

/* A private key from its file's text: PEM, "PRIVATE KEY" or "RSA PRIVATE KEY". It is tried by a
 * signature. 0; -EINVAL with what is wrong in *why; or -ENOMEM. */
int dkim_key_parse(struct dkim_key **out, const void *text, size_t len, const char **why) MUST_USE;
/* A new one; RSA: DKIM_RSA_BITS. 0 or -EIO. */
int dkim_key_generate(struct dkim_key **out, enum dkim_algorithm algorithm) MUST_USE;
void dkim_key_free(struct dkim_key *key); /* NULL is accepted */
enum dkim_algorithm dkim_key_algorithm(const struct dkim_key *key);
unsigned dkim_key_bits(const struct dkim_key *key);

/* Appends the text of a key's file; wipe it with dkim_wipe(). 0 or -EIO. */
int dkim_key_write(const struct dkim_key *key, struct buf *out) MUST_USE;
/* Appends the public key as p= of a DNS record has it. 0 or -EIO. */
int dkim_key_public(const struct dkim_key *key, struct buf *out) MUST_USE;
/* Signs hash, the SHA-256 of what is signed (RFC 8463 3 for Ed25519). 0, with *len bytes in
 * signature, or -EIO. */
int dkim_key_sign(const struct dkim_key *key, const uint8_t hash[DKIM_HASH_BYTES],
                  uint8_t signature[DKIM_SIGNATURE_BYTES], size_t *len) MUST_USE;
/* Whether signature is one of hash by the public half of key. */
bool dkim_key_verify(const struct dkim_key *key, const uint8_t hash[DKIM_HASH_BYTES],
                     const uint8_t *signature, size_t len);

/* SHA-256 of bytes that come in pieces. NULL: no memory. */
struct dkim_hash;
struct dkim_hash *dkim_hash_new(void);
void dkim_hash_add(struct dkim_hash *h, const void *bytes, size_t len);
/* Puts the hash into out and frees h. 0 or -EIO. */
int dkim_hash_end(struct dkim_hash *h, uint8_t out[DKIM_HASH_BYTES]) MUST_USE;
void dkim_hash_free(struct dkim_hash *h); /* without its end; NULL is accepted */

/* Overwrites what nobody may read later. */
void dkim_wipe(void *bytes, size_t len);

#endif

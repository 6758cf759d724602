/* Hashes of passwords as crypt(3) writes them, and the keys of SCRAM, which stand in their place
 * (tls/scram.h computes with them). Checking takes CPU and memory on purpose (yescrypt: about 10 ms
 * and 16 MiB): never in a worker's turn. Any thread. */
#ifndef HAYAUMA_BASE_PASSWORD_H
#define HAYAUMA_BASE_PASSWORD_H

#include <stdbool.h>

#include "base/buf.h"

#define PASSWORD_BYTES_MAX 511 /* what libcrypt takes */

#define PASSWORD_HASH_BYTES_MAX 255
/* The method of a hash: "yescrypt", "gost-yescrypt", "scrypt", "bcrypt", "sha512", "sha256",
 * "scram-sha-256". NULL: it is no whole hash, or of a method that a machine of today breaks. */
const char *password_method(struct str hash);

/* Keys of SCRAM-SHA-256: who has them can check a password and cannot log in with them, but can
 * pretend to be the server. */
#define PASSWORD_SCRAM          "scram-sha-256"
#define PASSWORD_SCRAM_BYTES    32
#define PASSWORD_SALT_BYTES_MAX 64
struct password_scram {
    uint32_t iterations;
    uint8_t salt[PASSWORD_SALT_BYTES_MAX];
    size_t salt_len;
    uint8_t stored[PASSWORD_SCRAM_BYTES], server[PASSWORD_SCRAM_BYTES];
};
/* "{SCRAM-SHA-256}iterations,salt,stored key,server key", as Dovecot writes them: the RFCs' own
 * form has colons in it. False: it is something else. */
bool password_scram_parse(struct str hash, struct password_scram *out);
void password_scram_put(struct buf *out, const struct password_scram *keys);

/* A hash of what no password is known for, of the default method: for the time that it costs. */
extern const char password_nobody[];
/* hash: one that has a method, of crypt(3). */
bool password_check(const char *hash, const char *password);
/* Appends a new hash. method: "yescrypt", "bcrypt", "sha512". 0, -EINVAL (no such method),
 * -EMSGSIZE (the password is too long) or -errno. */
int password_hash(struct buf *out, const char *method, const char *password) MUST_USE;

#endif

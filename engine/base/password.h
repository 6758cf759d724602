/* Hashes of passwords as crypt(3) writes them. Checking takes CPU and memory on purpose (yescrypt:
 * about 10 ms and 16 MiB): never in a worker's turn. Any thread. */
#ifndef HAYAUMA_BASE_PASSWORD_H
#define HAYAUMA_BASE_PASSWORD_H

#include <stdbool.h>

#include "base/buf.h"

#define PASSWORD_BYTES_MAX 511 /* what libcrypt takes */

#define PASSWORD_HASH_BYTES_MAX 255
/* The method of a hash: "yescrypt", "gost-yescrypt", "scrypt", "bcrypt", "sha512", "sha256". NULL:
 * it is no whole hash, or of a method that a machine of today breaks. */
const char *password_method(struct str hash);
/* A hash of what no password is known for, of the default method: for the time that it costs. */
extern const char password_nobody[];
/* hash: one that has a method. */
bool password_check(const char *hash, const char *password);
/* Appends a new hash. method: "yescrypt", "bcrypt", "sha512". 0, -EINVAL (no such method),
 * -EMSGSIZE (the password is too long) or -errno. */
int password_hash(struct buf *out, const char *method, const char *password) MUST_USE;

#endif

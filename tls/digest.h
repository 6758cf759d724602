/* Hashes that whoever chooses the input cannot steer, for names that strangers must not be able to
 * take from each other. Any thread. */
#ifndef HAYAUMA_TLS_DIGEST_H
#define HAYAUMA_TLS_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES 32

/* SHA-256 (FIPS 180-4). */
void digest_sha256(const void *bytes, size_t len, uint8_t out[DIGEST_BYTES]);

#endif

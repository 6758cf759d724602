/* Codes by which we know again what we wrote (HMAC-SHA-256, RFC 2104): who has no key makes none.
 * Any thread. */
#ifndef HAYAUMA_TLS_MAC_H
#define HAYAUMA_TLS_MAC_H

#include "base/str.h"

#define MAC_KEY_BYTES 32
#define MAC_BYTES     32

void mac_sha256(const uint8_t key[MAC_KEY_BYTES], struct str text, uint8_t out[MAC_BYTES]);
/* In a time that does not depend on the bytes. */
bool mac_equal(const uint8_t *a, const uint8_t *b, size_t len);

#endif

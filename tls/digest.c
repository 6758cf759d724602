#include "tls/digest.h"

#include <openssl/sha.h>

#include "base/assert.h"

void digest_sha256(const void *bytes, size_t len, uint8_t out[DIGEST_BYTES])
{
    const uint8_t *made = SHA256(bytes, len, out);

    ASSERT(made == out);
}

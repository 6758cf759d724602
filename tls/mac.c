#include "tls/mac.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.h"

void mac_sha256(const uint8_t key[MAC_KEY_BYTES], struct str text, uint8_t out[MAC_BYTES])
{
    unsigned len = MAC_BYTES;

    ASSERT(HMAC(EVP_sha256(), key, MAC_KEY_BYTES, (const uint8_t *)text.ptr, text.len, out, &len) !=
           NULL);
    ASSERT(len == MAC_BYTES);
}

bool mac_equal(const uint8_t *a, const uint8_t *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

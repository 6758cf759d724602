#include "tls/dkim_key.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>

#include "base/base64.h"

struct dkim_key {
    EVP_PKEY *pkey;
    enum dkim_algorithm algorithm;
    /* RSA: a signature of this key that has begun, whose copies sign: to begin one OpenSSL looks up
     * its algorithms by name, at the cost of some 20,000 instructions. Constant, so any thread may
     * copy it. */
    EVP_PKEY_CTX *rsa;
    /* Ed25519: the key as libsodium has it, which makes the same signature in 16 us for which
     * OpenSSL 3.0 takes 36. OpenSSL reads keys, and verifies. */
    uint8_t ed25519[crypto_sign_SECRETKEYBYTES];
};

const char *dkim_algorithm_name(enum dkim_algorithm algorithm)
{
    return algorithm == DKIM_RSA_SHA256 ? "rsa-sha256" : "ed25519-sha256";
}

/* --- hashes --- */

/* Looked up once: each look-up costs as much as hashing a header. */
static EVP_MD *sha256;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void sha256_fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    ASSERT(sha256 != NULL);
}

static const EVP_MD *sha256_get(void)
{
    pthread_once(&sha256_once, sha256_fetch);
    return sha256;
}

/* struct dkim_hash is OpenSSL's context by another name. */
static EVP_MD_CTX *context_of(struct dkim_hash *h)
{
    return (EVP_MD_CTX *)h;
}

struct dkim_hash *dkim_hash_new(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (ctx != NULL && EVP_DigestInit_ex(ctx, sha256_get(), NULL) == 1)
        return (struct dkim_hash *)ctx;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return NULL;
}

void dkim_hash_add(struct dkim_hash *h, const void *bytes, size_t len)
{
    int ok = EVP_DigestUpdate(context_of(h), bytes, len);

    ASSERT(ok == 1); /* the software SHA-256 has no way to fail */
}

int dkim_hash_end(struct dkim_hash *h, uint8_t out[DKIM_HASH_BYTES])
{
    int ok = EVP_DigestFinal_ex(context_of(h), out, NULL);

    dkim_hash_free(h);
    ERR_clear_error();
    return ok == 1 ? 0 : -EIO;
}

void dkim_hash_free(struct dkim_hash *h)
{
    EVP_MD_CTX_free(context_of(h));
}

/* --- keys --- */

static EVP_PKEY_CTX *rsa_context(EVP_PKEY *pkey, int (*init)(EVP_PKEY_CTX *))
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);

    if (ctx != NULL && init(ctx) == 1 &&
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1 &&
        EVP_PKEY_CTX_set_signature_md(ctx, sha256_get()) == 1)
        return ctx;
    EVP_PKEY_CTX_free(ctx);
    return NULL;
}

static void ed25519_set(struct dkim_key *key)
{
    uint8_t seed[crypto_sign_SEEDBYTES], public[crypto_sign_PUBLICKEYBYTES];
    size_t len = sizeof(seed);
    int ready = sodium_init(), ok = EVP_PKEY_get_raw_private_key(key->pkey, seed, &len);

    ASSERT(ready >= 0 && ok == 1 && len == sizeof(seed));
    crypto_sign_seed_keypair(public, key->ed25519, seed);
    OPENSSL_cleanse(seed, sizeof(seed));
}

/* Where OpenSSL cannot begin an RSA signature there is none to copy, and dkim_key_sign() says so.
 */
static struct dkim_key *key_new(EVP_PKEY *pkey, enum dkim_algorithm algorithm)
{
    struct dkim_key *key = malloc(sizeof(*key));

    ASSERT(key != NULL);
    *key = (struct dkim_key){.pkey = pkey, .algorithm = algorithm};
    if (algorithm == DKIM_RSA_SHA256)
        key->rsa = rsa_context(pkey, EVP_PKEY_sign_init);
    else
        ed25519_set(key);
    ERR_clear_error();
    return key;
}

/* OpenSSL would ask at the terminal. */
static int no_pass_phrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* What is wrong with pkey as a key for signatures; NULL: nothing. */
static const char *fault_of(const EVP_PKEY *pkey, enum dkim_algorithm *algorithm)
{
    if (pkey == NULL)
        return "no private key in PEM, or one behind a pass phrase";
    if (EVP_PKEY_get_base_id(pkey) == EVP_PKEY_ED25519) {
        *algorithm = DKIM_ED25519_SHA256;
        return NULL;
    }
    if (EVP_PKEY_get_base_id(pkey) != EVP_PKEY_RSA)
        return "the key is neither RSA nor Ed25519";
    *algorithm = DKIM_RSA_SHA256;
    if (EVP_PKEY_get_bits(pkey) < DKIM_RSA_BITS_MIN)
        return "an RSA key of less than 1024 bits, which verifiers refuse (RFC 8301)";
    if (EVP_PKEY_get_bits(pkey) > DKIM_RSA_BITS_MAX)
        return "an RSA key of more than 4096 bits";
    return NULL;
}

/* A damaged key makes signatures that nobody can verify. */
static bool key_works(const struct dkim_key *key)
{
    static const uint8_t hash[DKIM_HASH_BYTES] = {1};
    uint8_t signature[DKIM_SIGNATURE_BYTES];
    size_t len;

    return dkim_key_sign(key, hash, signature, &len) == 0 &&
           dkim_key_verify(key, hash, signature, len);
}

int dkim_key_parse(struct dkim_key **out, const void *text, size_t len, const char **why)
{
    BIO *bio = BIO_new_mem_buf(text, (int)len);
    EVP_PKEY *pkey;
    enum dkim_algorithm algorithm;
    struct dkim_key *key;

    if (bio == NULL)
        return -ENOMEM;
    pkey = PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, NULL);
    BIO_free(bio);
    ERR_clear_error();
    *why = fault_of(pkey, &algorithm);
    if (*why != NULL) {
        EVP_PKEY_free(pkey);
        return -EINVAL;
    }
    key = key_new(pkey, algorithm);
    if (!key_works(key)) {
        *why = "the key is damaged: its signatures do not verify";
        dkim_key_free(key);
        return -EINVAL;
    }
    *out = key;
    return 0;
}

int dkim_key_generate(struct dkim_key **out, enum dkim_algorithm algorithm)
{
    EVP_PKEY *pkey = algorithm == DKIM_RSA_SHA256
                         ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)DKIM_RSA_BITS)
                         : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    ERR_clear_error();
    if (pkey == NULL)
        return -EIO;
    *out = key_new(pkey, algorithm);
    return 0;
}

void dkim_key_free(struct dkim_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_CTX_free(key->rsa);
    EVP_PKEY_free(key->pkey); /* wipes the private half */
    OPENSSL_cleanse(key->ed25519, sizeof(key->ed25519));
    free(key);
}

enum dkim_algorithm dkim_key_algorithm(const struct dkim_key *key)
{
    return key->algorithm;
}

unsigned dkim_key_bits(const struct dkim_key *key)
{
    return (unsigned)EVP_PKEY_get_bits(key->pkey);
}

int dkim_key_write(const struct dkim_key *key, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    char *text;
    long len;

    if (bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) != 1) {
        BIO_free(bio);
        ERR_clear_error();
        return -EIO;
    }
    len = BIO_get_mem_data(bio, &text);
    buf_room(out, (size_t)len); /* a later growth would leave a copy */
    buf_put(out, text, (size_t)len);
    BIO_free(bio);
    return 0;
}

/* RFC 8463 4: the bare key of Ed25519. RFC 6376 3.6.1 and its errata: an RSA key is a
 * SubjectPublicKeyInfo. */
int dkim_key_public(const struct dkim_key *key, struct buf *out)
{
    uint8_t bare[32];
    size_t bare_len = sizeof(bare);
    unsigned char *info = NULL;
    int len;

    if (key->algorithm == DKIM_ED25519_SHA256) {
        if (EVP_PKEY_get_raw_public_key(key->pkey, bare, &bare_len) != 1)
            return -EIO;
        base64_put(out, (struct str){(const char *)bare, bare_len});
        return 0;
    }
    len = i2d_PUBKEY(key->pkey, &info);
    if (len <= 0) {
        ERR_clear_error();
        return -EIO;
    }
    base64_put(out, (struct str){(const char *)info, (size_t)len});
    OPENSSL_free(info);
    return 0;
}

/* --- signatures --- */

int dkim_key_sign(const struct dkim_key *key, const uint8_t hash[DKIM_HASH_BYTES],
                  uint8_t signature[DKIM_SIGNATURE_BYTES], size_t *len)
{
    EVP_PKEY_CTX *ctx;
    bool ok;

    if (key->algorithm == DKIM_ED25519_SHA256) {
        *len = crypto_sign_BYTES;
        return crypto_sign_detached(signature, NULL, hash, DKIM_HASH_BYTES, key->ed25519) == 0
                   ? 0
                   : -EIO;
    }
    *len = DKIM_SIGNATURE_BYTES;
    ctx = key->rsa == NULL ? NULL : EVP_PKEY_CTX_dup(key->rsa);
    ok = ctx != NULL && EVP_PKEY_sign(ctx, signature, len, hash, DKIM_HASH_BYTES) == 1;
    EVP_PKEY_CTX_free(ctx);
    ERR_clear_error();
    return ok ? 0 : -EIO;
}

bool dkim_key_verify(const struct dkim_key *key, const uint8_t hash[DKIM_HASH_BYTES],
                     const uint8_t *signature, size_t len)
{
    bool ok;

    if (key->algorithm == DKIM_RSA_SHA256) {
        EVP_PKEY_CTX *ctx = rsa_context(key->pkey, EVP_PKEY_verify_init);

        ok = ctx != NULL && EVP_PKEY_verify(ctx, signature, len, hash, DKIM_HASH_BYTES) == 1;
        EVP_PKEY_CTX_free(ctx);
    } else {
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();

        ok = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key->pkey) == 1 &&
             EVP_DigestVerify(ctx, signature, len, hash, DKIM_HASH_BYTES) == 1;
        EVP_MD_CTX_free(ctx);
    }
    ERR_clear_error();
    return ok;
}

void dkim_wipe(void *bytes, size_t len)
{
    OPENSSL_cleanse(bytes, len);
}

/* The keys of session tickets (RFC 5077 4, RFC 8446 4.6.1): AES-256-CBC and HMAC-SHA-256 as OpenSSL
 * does it, with keys that are of this process, never stored, and renewed by age. */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "tls/tls_private.h"

struct ticket_key {
    uint8_t name[16], seal[32], mac[32];
};

struct tls_tickets {
    _Atomic uint32_t refs;
    EVP_CIPHER *cipher;
    pthread_mutex_t lock;      /* protects the rest */
    struct ticket_key keys[2]; /* the present one, the one before */
    time_t since_s;
};

/* False: no randomness, the keys stay. */
static bool rotate_locked(struct tls_tickets *t)
{
    struct ticket_key key;

    if (RAND_priv_bytes((unsigned char *)&key, sizeof(key)) != 1)
        return false;
    t->keys[1] = t->keys[0];
    t->keys[0] = key;
    t->since_s = time(NULL);
    OPENSSL_cleanse(&key, sizeof(key));
    return true;
}

struct tls_tickets *tls_tickets_new(void)
{
    struct tls_tickets *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return NULL;
    t->refs = 1;
    pthread_mutex_init(&t->lock, NULL);
    t->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    /* Twice: a key of zeros is none. */
    if (t->cipher == NULL || !rotate_locked(t) || !rotate_locked(t)) {
        tls_tickets_unref(t);
        return NULL;
    }
    return t;
}

void tls_tickets_rotate(struct tls_tickets *t)
{
    pthread_mutex_lock(&t->lock);
    (void)rotate_locked(t);
    pthread_mutex_unlock(&t->lock);
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void tls_tickets_unref(struct tls_tickets *t)
{
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    EVP_CIPHER_free(t->cipher);
    pthread_mutex_destroy(&t->lock);
    OPENSSL_cleanse(t->keys, sizeof(t->keys));
    free(t);
}

/* The key to seal with, or that of the name. False: there is none. *old: it is the one before. */
static bool key_get(struct tls_tickets *t, const unsigned char *name, struct ticket_key *out,
                    bool *old)
{
    bool found = name == NULL;

    *old = false;
    pthread_mutex_lock(&t->lock);
    if (time(NULL) - t->since_s >= TLS_TICKET_KEY_S)
        (void)rotate_locked(t);
    for (size_t i = 0; i < ARRAY_LEN(t->keys) && !found; i++) {
        found = CRYPTO_memcmp(t->keys[i].name, name, sizeof(t->keys[i].name)) == 0;
        *old = i > 0;
    }
    if (found)
        *out = t->keys[*old ? 1 : 0];
    pthread_mutex_unlock(&t->lock);
    return found;
}

/* Returns to OpenSSL: 1 go on, 2 go on and send a new ticket, 0 no such key: a full handshake, -1
 * failed. */
int tls_on_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher,
                  EVP_MAC_CTX *mac, int sealing)
{
    const struct tls_server *s = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    EVP_CIPHER *aes = s->tickets->cipher;
    struct ticket_key key;
    OSSL_PARAM params[3];
    bool old, ok;

    if (!key_get(s->tickets, sealing ? NULL : name, &key, &old))
        return 0;
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac, sizeof(key.mac));
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0);
    params[2] = OSSL_PARAM_construct_end();
    ok = EVP_MAC_CTX_set_params(mac, params) == 1;
    if (ok && sealing) {
        memcpy(name, key.name, sizeof(key.name));
        ok = RAND_bytes(iv, EVP_CIPHER_get_iv_length(aes)) == 1 &&
             EVP_EncryptInit_ex2(cipher, aes, key.seal, iv, NULL) == 1;
    } else if (ok) {
        ok = EVP_DecryptInit_ex2(cipher, aes, key.seal, iv, NULL) == 1;
    }
    OPENSSL_cleanse(&key, sizeof(key));
    if (!ok)
        return -1;
    /* RFC 8446 C.4: a ticket is best used once, so that nobody sees who comes again. */
    return old || SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1;
}

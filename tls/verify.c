/* Whether a client trusts what a server shows it. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "tls/tls_private.h"

/* What a session that nobody verified remembers: it must not pass for one that was, when a
 * connection that verifies resumes it. */
#define NOT_CHECKED X509_V_ERR_APPLICATION_VERIFICATION

/* Wildcards stand for a whole label (RFC 6125 6.4.3). */
#define HOST_FLAGS X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS

int tls_on_verify(X509_STORE_CTX *store, void *arg)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    int result = 1;

    (void)arg;
    if (tls_of(ssl)->verify == TLS_VERIFY_NONE) {
        X509_STORE_CTX_set_error(store, NOT_CHECKED);
    } else {
        /* The store has the cause; what was tried on the way and did not do is none. */
        ERR_set_mark();
        result = X509_verify_cert(store);
        ERR_pop_to_mark();
    }
    return result;
}

/* A connection that verifies and names nobody would trust anybody that the authorities know. */
bool tls_names_set(struct tls *t, const struct tls_connect_options *o)
{
    ASSERT(o->names_len > 0);
    t->names = calloc(o->names_len, sizeof(*t->names));
    if (t->names == NULL)
        return false;
    for (; t->names_len < o->names_len; t->names_len++) {
        const char *name = o->names[t->names_len];

        ASSERT(name[0] != '\0'); /* OpenSSL takes an empty name for none: anybody's */
        t->names[t->names_len] = strdup(name);
        if (t->names[t->names_len] == NULL || SSL_add1_host(t->ssl, name) != 1)
            return false;
    }
    SSL_set_hostflags(t->ssl, HOST_FLAGS);
    return true;
}

static bool bears_a_name(const struct tls *t)
{
    X509 *leaf = SSL_get0_peer_certificate(t->ssl);

    for (size_t i = 0; leaf != NULL && i < t->names_len; i++)
        if (X509_check_host(leaf, t->names[i], 0, HOST_FLAGS, NULL) == 1)
            return true;
    return false;
}

/* A certificate that TLSA records name needs no other name. */
static bool is_of_host(const struct tls *t)
{
    return t->verify == TLS_VERIFY_DANE || bears_a_name(t);
}

bool tls_resumed_well(const struct tls *t)
{
    return t->verify == TLS_VERIFY_NONE ||
           (SSL_get_verify_result(t->ssl) == X509_V_OK && is_of_host(t));
}

enum tls_verdict tls_verdict(const struct tls *t)
{
    switch (SSL_get_verify_result(t->ssl)) {
    case X509_V_OK:
        if (SSL_get0_peer_certificate(t->ssl) == NULL)
            return TLS_UNCHECKED;
        return t->names_len == 0 || is_of_host(t) ? TLS_VERIFIED : TLS_CERT_HOST_MISMATCH;
    case NOT_CHECKED:
        return TLS_UNCHECKED;
    case X509_V_ERR_HOSTNAME_MISMATCH:
        return TLS_CERT_HOST_MISMATCH;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return TLS_CERT_EXPIRED;
    default:
        return TLS_CERT_UNTRUSTED;
    }
}

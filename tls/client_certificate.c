/* Certificates of clients, as a server sees them: who vouches for them, and what they are called.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#include "tls/tls_private.h"

#define NAMES_MAX      64 /* of a certificate; what it is called beyond is not looked at */
#define NAME_BYTES_MAX 255
#define CHAIN_MAX      (20u << 10) /* bytes of certificates that a client may show */

struct tls_authorities {
    _Atomic uint32_t refs;
    X509_STORE *store;
    STACK_OF(X509_CRL) * lists; /* those that store has too */
    int64_t until_s;
    STACK_OF(X509_NAME) * names; /* told to clients, who choose their certificate by them */
};

/* A list without an end is good for ever. */
static void note_end(struct tls_authorities *a, const X509_CRL *crl)
{
    const ASN1_TIME *end = X509_CRL_get0_nextUpdate(crl);
    struct tm tm;
    int64_t end_s;

    if (end == NULL || ASN1_TIME_to_tm(end, &tm) != 1)
        return;
    end_s = (int64_t)timegm(&tm);
    if (a->until_s == 0 || end_s < a->until_s)
        a->until_s = end_s;
}

/* False: error has a line. */
static bool load_lists(struct tls_authorities *a, const char *file, struct buf *error)
{
    BIO *bio = BIO_new_file(file, "r");
    X509_CRL *crl = NULL;
    size_t len = 0;
    bool ok = bio != NULL;

    while (ok && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) != NULL) {
        note_end(a, crl);
        ok = X509_STORE_add_crl(a->store, crl) == 1 && sk_X509_CRL_push(a->lists, crl) > 0;
        if (!ok)
            X509_CRL_free(crl);
        len++;
    }
    /* The end of a file is a failure too, and the only one that is none. */
    ok = ok && len > 0 && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (!ok) {
        buf_printf(error, "%s: no list of revoked certificates in PEM form: ", file);
        tls_put_failure(error);
    }
    ERR_clear_error();
    BIO_free(bio);
    return ok &&
           X509_STORE_set_flags(a->store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1;
}

int64_t tls_authorities_until_s(const struct tls_authorities *a)
{
    return a->until_s;
}

int tls_authorities_load(struct tls_authorities **out, const char *file, const char *crl_file,
                         struct buf *error)
{
    struct tls_authorities *a = calloc(1, sizeof(*a));

    if (a == NULL)
        return -ENOMEM;
    a->refs = 1;
    ERR_clear_error();
    a->store = X509_STORE_new();
    a->lists = sk_X509_CRL_new_null();
    if (a->store != NULL && a->lists != NULL && X509_STORE_load_file(a->store, file) == 1)
        a->names = SSL_load_client_CA_file(file);
    if (a->names == NULL) {
        buf_printf(error, "%s: no certificates of authorities: ", file);
        tls_put_failure(error);
        tls_authorities_unref(a);
        return -EINVAL;
    }
    if (crl_file != NULL && !load_lists(a, crl_file, error)) {
        tls_authorities_unref(a);
        return -EINVAL;
    }
    *out = a;
    return 0;
}

struct tls_authorities *tls_authorities_ref(struct tls_authorities *a)
{
    atomic_fetch_add(&a->refs, 1);
    return a;
}

void tls_authorities_unref(struct tls_authorities *a)
{
    if (a == NULL || atomic_fetch_sub(&a->refs, 1) != 1)
        return;
    X509_STORE_free(a->store);
    sk_X509_CRL_pop_free(a->lists, X509_CRL_free);
    sk_X509_NAME_pop_free(a->names, X509_NAME_free);
    free(a);
}

/* Whatever comes of it the handshake goes on: who knows a certificate by its fingerprint asks no
 * authority, and who wants one can say in words what is wrong. Returns to OpenSSL. */
int tls_on_client_verify(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    ERR_set_mark();
    if (X509_verify_cert(store) != 1 && X509_STORE_CTX_get_error(store) == X509_V_OK)
        X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
    ERR_pop_to_mark();
    return 1;
}

/* A ticket would hold what was true of the certificate when it was shown, so there are none: each
 * handshake shows it, and is held to the authorities of its time. */
bool tls_ask_client(SSL *ssl, struct tls_authorities *authorities)
{
    STACK_OF(X509_NAME) *names = authorities == NULL ? NULL : SSL_dup_CA_list(authorities->names);

    if (authorities != NULL && names == NULL)
        return false;
    if (names != NULL)
        SSL_set0_CA_list(ssl, names);
    SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    SSL_set_max_cert_list(ssl, CHAIN_MAX);
    SSL_set_options(ssl, SSL_OP_NO_TICKET);
    return SSL_set_num_tickets(ssl, 0) == 1 &&
           (authorities == NULL || SSL_set1_verify_cert_store(ssl, authorities->store) == 1);
}

/* --- what it is called --- */

static bool put_digest(char out[TLS_FINGERPRINT_BYTES], const uint8_t *digest, size_t len)
{
    if (2 * len + 1 != TLS_FINGERPRINT_BYTES)
        return false;
    for (size_t i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return true;
}

static bool fingerprints(X509 *leaf, struct tls_shown *out)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned char *key = NULL;
    unsigned int len = 0;
    int key_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &key);
    bool ok = key_len > 0 && X509_digest(leaf, EVP_sha256(), digest, &len) == 1 &&
              put_digest(out->fingerprint, digest, len) &&
              EVP_Digest(key, (size_t)key_len, digest, &len, EVP_sha256(), NULL) == 1 &&
              put_digest(out->key_fingerprint, digest, len);

    OPENSSL_free(key);
    return ok;
}

static char lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : (char)c;
}

/* A name with a wildcard stands for many, and no client is many. */
static void add_name(struct tls_shown *out, const ASN1_STRING *name)
{
    const unsigned char *text = ASN1_STRING_get0_data(name);
    int len = ASN1_STRING_length(name);

    if (len <= 0 || len > NAME_BYTES_MAX || out->names_len == NAMES_MAX)
        return;
    for (int i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] >= 0x7f || text[i] == '*' || text[i] == '"')
            return;
    for (int i = 0; i < len; i++)
        buf_putc(&out->names, lower(text[i]));
    buf_putc(&out->names, '\0');
    out->names_len++;
}

/* Its DNS names and mail addresses; where it has neither, its common name (RFC 6125 6.4.4). */
static void add_names(X509 *leaf, struct tls_shown *out)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    const X509_NAME *subject = X509_get_subject_name(leaf);
    bool any = false;
    int at;

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type != GEN_DNS && name->type != GEN_EMAIL)
            continue;
        any = true;
        add_name(out, name->type == GEN_DNS ? name->d.dNSName : name->d.rfc822Name);
    }
    GENERAL_NAMES_free(names);
    at = any ? -1 : X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at >= 0)
        add_name(out, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

/* Whether a list has it. The verdict on a certificate does not always come to that: a list is older
 * than it says to be good, or the client shows its certificate without those between, so that
 * nobody vouches for it. By its fingerprint it would be known all the same. */
static bool is_listed(const struct tls_authorities *a, X509 *leaf)
{
    X509_REVOKED *entry;

    for (int i = 0; i < sk_X509_CRL_num(a->lists); i++)
        if (X509_CRL_get0_by_cert(sk_X509_CRL_value(a->lists, i), &entry, leaf) == 1)
            return true;
    return false;
}

bool tls_shown(const struct tls *t, struct tls_shown *out)
{
    X509 *leaf = SSL_get0_peer_certificate(t->ssl);
    bool asked = t->authorities != NULL;
    long result = SSL_get_verify_result(t->ssl);

    *out = (struct tls_shown){.verified = false};
    if (leaf == NULL || !fingerprints(leaf, out))
        return false;
    if (asked && is_listed(t->authorities, leaf))
        result = X509_V_ERR_CERT_REVOKED;
    out->verified = asked && result == X509_V_OK;
    out->revoked = asked && result == X509_V_ERR_CERT_REVOKED;
    out->verify = asked ? X509_verify_cert_error_string(result) : "there is no authority to ask";
    if (out->verified)
        add_names(leaf, out);
    return true;
}

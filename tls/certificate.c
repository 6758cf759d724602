/* Certificates and keys: read from files, held, and named. */
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tls/tls_private.h"

#define NAMES_MAX 4096 /* of a certificate, in words */

/* --- names --- */

static void put_name(struct buf *out, const ASN1_STRING *name)
{
    const unsigned char *text = ASN1_STRING_get0_data(name);
    size_t len = (size_t)ASN1_STRING_length(name);

    if (len == 0 || out->len + len > NAMES_MAX)
        return;
    buf_puts(out, out->len == 0 ? "" : ", ");
    for (size_t i = 0; i < len; i++)
        buf_putc(out, text[i] > ' ' && text[i] < 0x7f ? (char)text[i] : '?');
}

/* The DNS names of a certificate; of one that has none the common name (RFC 6125 6.4.4). */
static void put_names(struct buf *out, X509 *leaf)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    const X509_NAME *subject = X509_get_subject_name(leaf);
    int at;

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

        if (name->type == GEN_DNS)
            put_name(out, name->d.dNSName);
    }
    GENERAL_NAMES_free(names);
    at = out->len == 0 ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1;
    if (at >= 0)
        put_name(out, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

void tls_first_name(X509 *leaf, char *out, size_t size)
{
    struct buf names = {0};
    const char *comma;
    size_t len;

    put_names(&names, leaf);
    comma = names.len == 0 ? NULL : memchr(names.data, ',', names.len);
    len = comma == NULL ? names.len : (size_t)(comma - (const char *)names.data);
    snprintf(out, size, "%.*s", (int)len, names.data == NULL ? "" : (const char *)names.data);
    buf_done(&names);
}

/* OpenSSL decodes the names at each question. A ClientHello asks it of many certificates, so that
 * is left to OpenSSL only where a name is a pattern, or stands where it has none of DNS. */
bool tls_certificate_is_for(const struct tls_certificate *c, const char *host)
{
    bool named = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(c->alternatives); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(c->alternatives, i);
        struct str text;

        if (name->type != GEN_DNS)
            continue;
        named = true;
        text = (struct str){(const char *)ASN1_STRING_get0_data(name->d.dNSName),
                            (size_t)ASN1_STRING_length(name->d.dNSName)};
        if (str_eq_nocase(text, str_of(host)))
            return true;
        if (text.len > 0 && memchr(text.ptr, '*', text.len) != NULL)
            return X509_check_host(c->leaf, host, 0, 0, NULL) == 1;
    }
    return !named && X509_check_host(c->leaf, host, 0, 0, NULL) == 1;
}

static void key_type_set(struct tls_certificate *c)
{
    char group[32] = "";
    const char *nist;

    switch (EVP_PKEY_get_base_id(c->key)) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
        snprintf(c->key_type, sizeof(c->key_type), "RSA %d", EVP_PKEY_get_bits(c->key));
        break;
    case EVP_PKEY_EC:
        (void)EVP_PKEY_get_group_name(c->key, group, sizeof(group), NULL);
        nist = EC_curve_nid2nist(OBJ_sn2nid(group));
        snprintf(c->key_type, sizeof(c->key_type), "ECDSA %s", nist == NULL ? group : nist);
        break;
    default:
        snprintf(c->key_type, sizeof(c->key_type), "%s", EVP_PKEY_get0_type_name(c->key));
        break;
    }
}

static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

void tls_certificate_facts(const struct tls_certificate *c, struct tls_certificate_facts *out)
{
    *out = (struct tls_certificate_facts){.names = c->names,
                                          .key_type = c->key_type,
                                          .from_s = seconds_of(X509_get0_notBefore(c->leaf)),
                                          .until_s = seconds_of(X509_get0_notAfter(c->leaf))};
}

/* --- files --- */

/* OpenSSL would ask the terminal. */
static int on_pass_phrase(char *out, int size, int writing, void *arg)
{
    (void)out, (void)size, (void)writing;
    *(bool *)arg = true;
    return -1;
}

/* OpenSSL opens and closes the file, both: ThreadSanitizer, which does not look into libcrypto,
 * would believe a file that we opened open for ever, and the next of its number raced for. */
static BIO *open_file(const char *file, int *err, struct buf *error)
{
    BIO *bio = BIO_new_file(file, "re");

    if (bio == NULL) {
        *err = -errno;
        buf_printf(error, "%s: %s", file, strerror(errno));
    }
    return bio;
}

/* The leaf first, then what signed it, and so on. */
static int load_chain(struct tls_certificate *c, const char *file, struct buf *error)
{
    int err = 0;
    BIO *bio = open_file(file, &err, error);
    unsigned long last;
    X509 *next;

    if (bio == NULL)
        return err;
    c->leaf = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
    while (c->leaf != NULL && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
        if (sk_X509_push(c->chain, next) <= 0)
            X509_free(next);
    BIO_free(bio);
    last = ERR_peek_last_error(); /* the end of a file is a failure too */
    if (c->leaf == NULL || ERR_GET_LIB(last) != ERR_LIB_PEM ||
        ERR_GET_REASON(last) != PEM_R_NO_START_LINE) {
        buf_printf(error, "%s: %s", file,
                   c->leaf == NULL ? "no certificate in PEM form" : "a damaged certificate");
        err = -EINVAL;
    }
    ERR_clear_error();
    return err;
}

static int load_key(struct tls_certificate *c, const char *file, struct buf *error)
{
    bool asked = false;
    int err = 0;
    BIO *bio = open_file(file, &err, error);

    if (bio == NULL)
        return err;
    c->key = PEM_read_bio_PrivateKey(bio, NULL, on_pass_phrase, &asked);
    BIO_free(bio);
    ERR_clear_error();
    if (c->key != NULL)
        return 0;
    buf_printf(error, "%s: %s", file,
               asked ? "the key asks for a pass phrase" : "no private key in PEM form");
    return -EINVAL;
}

/* What a handshake would find is found here: a key of another certificate, one that is too short,
 * a chain of weak signatures. */
static int check_use(const struct tls_certificate *c, const char *chain_file, const char *key_file,
                     struct buf *error)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    int ok = 0;

    if (ctx == NULL)
        return -ENOMEM;
    if (X509_check_private_key(c->leaf, c->key) != 1) {
        buf_printf(error, "%s: not the key of the certificate in %s", key_file, chain_file);
    } else {
        ok = SSL_CTX_use_cert_and_key(ctx, c->leaf, c->key, c->chain, 1);
        if (ok != 1) {
            buf_printf(error, "%s: ", chain_file);
            tls_put_failure(error);
        }
    }
    ERR_clear_error();
    SSL_CTX_free(ctx);
    return ok == 1 ? 0 : -EINVAL;
}

static int certificate_load(struct tls_certificate *c, const char *chain_file, const char *key_file,
                            struct buf *error)
{
    struct buf names = {0};
    int err;

    c->chain = sk_X509_new_null();
    if (c->chain == NULL)
        return -ENOMEM;
    err = load_chain(c, chain_file, error);
    if (err == 0)
        err = load_key(c, key_file, error);
    if (err == 0)
        err = check_use(c, chain_file, key_file, error);
    if (err < 0)
        return err;
    key_type_set(c);
    c->alternatives = X509_get_ext_d2i(c->leaf, NID_subject_alt_name, NULL, NULL);
    put_names(&names, c->leaf);
    buf_putc(&names, '\0');
    c->names = (char *)names.data;
    return 0;
}

int tls_certificate_load(struct tls_certificate **out, const char *chain_file, const char *key_file,
                         struct buf *error)
{
    struct tls_certificate *c = calloc(1, sizeof(*c));
    int err;

    if (c == NULL)
        return -ENOMEM;
    c->refs = 1;
    ERR_clear_error();
    err = certificate_load(c, chain_file, key_file, error);
    if (err < 0)
        tls_certificate_unref(c);
    else
        *out = c;
    return err;
}

struct tls_certificate *tls_certificate_ref(struct tls_certificate *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void tls_certificate_unref(struct tls_certificate *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    X509_free(c->leaf);
    EVP_PKEY_free(c->key); /* OpenSSL wipes it */
    sk_X509_pop_free(c->chain, X509_free);
    GENERAL_NAMES_free(c->alternatives);
    free(c->names);
    free(c);
}

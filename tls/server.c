/* The accepting side: what clients are shown. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "tls/tls_private.h"

/* Of TLS 1.2 what is forward secret and authenticated (RFC 9325 4.2); those of 1.3 all are. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

/* One name that both bear: a wildcard is no name to look for, but may be the same in both. */
static bool bear_same_name(const struct tls_certificate *a, const struct tls_certificate *b)
{
    char of_a[256], of_b[256];

    tls_first_name(a->leaf, of_a, sizeof(of_a));
    tls_first_name(b->leaf, of_b, sizeof(of_b));
    return of_a[0] != '\0' && (str_eq_nocase(str_of(of_a), str_of(of_b)) ||
                               X509_check_host(b->leaf, of_a, 0, 0, NULL) == 1);
}

/* What a client is shown, the first of these of which it can verify something: certificates that
 * bear the name that it asks for; the list's first one, and others of its name; any. */
enum choice { CHOICE_NAME, CHOICE_FIRST, CHOICE_ANY };

static bool is_chosen(const struct tls_server *s, size_t i, enum choice choice, const char *name)
{
    const struct tls_choice *shown = &s->shown[i];

    switch (choice) {
    case CHOICE_NAME:
        return name != NULL && tls_certificate_is_for(shown->certificate, name);
    case CHOICE_FIRST:
        return shown->of_first;
    case CHOICE_ANY:
        return true;
    }
    return false;
}

/* Whether the client takes signatures of the key, and in TLS 1.2 has its curve and ciphers for
 * them: the groups of TLS 1.3 are those of the key exchange alone (RFC 8446, 4.2.7). */
static bool can_verify(SSL *ssl, const struct tls_certificate *c)
{
    const int needed =
        CERT_PKEY_SIGN | (SSL_version(ssl) >= TLS1_3_VERSION ? 0 : CERT_PKEY_EE_PARAM);
    const STACK_OF(SSL_CIPHER) *ciphers = SSL_get_client_ciphers(ssl);
    int auth = EVP_PKEY_is_a(c->key, "RSA") || EVP_PKEY_is_a(c->key, "RSA-PSS") ? NID_auth_rsa
                                                                                : NID_auth_ecdsa;

    if ((SSL_check_chain(ssl, c->leaf, c->key, c->chain) & needed) != needed)
        return false;
    if (SSL_version(ssl) >= TLS1_3_VERSION)
        return true;
    for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++)
        if (SSL_CIPHER_get_auth_nid(sk_SSL_CIPHER_value(ciphers, i)) == auth)
            return true;
    return false;
}

/* Of each type of key the first certificate of that choice. How many were taken, 0 where the client
 * can verify none of them; or -1. */
static int use_certificates(SSL *ssl, const struct tls_server *s, enum choice choice,
                            const char *name)
{
    int types[8]; /* more than OpenSSL has slots for */
    int used = 0;
    bool suits = false;

    for (size_t i = 0; i < s->shown_len; i++) {
        const struct tls_certificate *c = s->shown[i].certificate;
        int type = EVP_PKEY_get_base_id(c->key), j = 0;

        while (j < used && types[j] != type)
            j++;
        if (j < used || used == (int)ARRAY_LEN(types) || !is_chosen(s, i, choice, name))
            continue;
        if (SSL_use_cert_and_key(ssl, c->leaf, c->key, c->chain, 1) != 1)
            return -1;
        suits = suits || can_verify(ssl, c);
        types[used++] = type;
    }
    return suits ? used : 0;
}

/* Returns to OpenSSL: 1 go on, 0 failed. */
static int on_certificate(SSL *ssl, void *arg)
{
    const struct tls_server *s = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    int used = 0;

    for (int choice = CHOICE_NAME; choice <= CHOICE_ANY && used == 0; choice++)
        used = use_certificates(ssl, s, (enum choice)choice, name);
    return used >= 0;
}

/* A session resumes under the name that it was made for (RFC 6066, 3), and at the listener that
 * gave its ticket. OpenSSL compares a "session id context", which is made of both here: of the
 * name, as the client wrote it, a client with another spelling makes a new session. */
static bool scope_set(SSL *ssl, const unsigned char *name, size_t name_len)
{
    const struct tls *t = tls_of(ssl);
    uint8_t bytes[sizeof(t->scope) + SHA256_DIGEST_LENGTH], hash[SHA256_DIGEST_LENGTH];

    if (name_len == 0)
        return SSL_set_session_id_context(ssl, t->scope, sizeof(t->scope)) == 1;
    memcpy(bytes, t->scope, sizeof(t->scope));
    return EVP_Digest(name, name_len, bytes + sizeof(t->scope), NULL, EVP_sha256(), NULL) == 1 &&
           EVP_Digest(bytes, sizeof(bytes), hash, NULL, EVP_sha256(), NULL) == 1 &&
           SSL_set_session_id_context(ssl, hash, sizeof(hash)) == 1;
}

/* Before OpenSSL looks at tickets. */
static int on_hello(SSL *ssl, int *alert, void *arg)
{
    const unsigned char *name = NULL;
    size_t len = 0;

    (void)arg;
    (void)SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &name, &len);
    if (scope_set(ssl, name, len))
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

/* The name is kept in the session and its tickets; on_certificate() obeys it. */
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl, (void)alert, (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

static bool context_set(struct tls_server *s)
{
    SSL_CTX *ctx = s->ctx;

    SSL_CTX_set_app_data(ctx, s);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                 SSL_OP_CLEANSE_PLAINTEXT); /* passwords come over it */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
    SSL_CTX_set_cert_cb(ctx, on_certificate, s);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_cert_verify_callback(ctx, tls_on_client_verify, NULL);
    /* Sessions live in tickets, which cost no memory here. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, tls_on_ticket);
    SSL_CTX_set_timeout(ctx, TLS_TICKET_KEY_S);
    return SSL_CTX_set_num_tickets(ctx, 1) == 1 &&
           SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set1_groups_list(ctx, TLS_GROUPS) == 1 &&
           SSL_CTX_set_cipher_list(ctx, CIPHERS) == 1;
}

int tls_server_new(struct tls_server **out, struct tls_certificate *const *certificates, size_t len,
                   struct tls_tickets *tickets)
{
    struct tls_server *s = calloc(1, sizeof(*s) + len * sizeof(s->shown[0]));

    ASSERT(len > 0);
    if (s == NULL)
        return -ENOMEM;
    s->refs = 1;
    s->tickets = tls_tickets_ref(tickets);
    for (size_t i = 0; i < len; i++)
        s->shown[s->shown_len++] = (struct tls_choice){
            .certificate = tls_certificate_ref(certificates[i]),
            .of_first = i == 0 || bear_same_name(certificates[0], certificates[i])};
    s->ctx = SSL_CTX_new(TLS_server_method());
    if (s->ctx == NULL || !context_set(s)) {
        ERR_clear_error();
        tls_server_unref(s);
        return -ENOMEM;
    }
    *out = s;
    return 0;
}

struct tls_server *tls_server_ref(struct tls_server *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void tls_server_unref(struct tls_server *s)
{
    if (s == NULL || atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    SSL_CTX_free(s->ctx);
    for (size_t i = 0; i < s->shown_len; i++)
        tls_certificate_unref(s->shown[i].certificate);
    tls_tickets_unref(s->tickets);
    free(s);
}

struct tls *tls_accept(struct tls_server *s, const struct tls_accept_options *options)
{
    struct tls *t = tls_new(SSL_new(s->ctx));
    int version = options->version_min == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;

    if (t == NULL)
        return NULL;
    if (options->authorities != NULL)
        t->authorities = tls_authorities_ref(options->authorities);
    if (EVP_Digest(options->scope.ptr, options->scope.len, t->scope, NULL, EVP_sha256(), NULL) !=
            1 ||
        SSL_set_min_proto_version(t->ssl, version) != 1 ||
        (options->ask && !tls_ask_client(t->ssl, t->authorities))) {
        tls_free(t);
        return NULL;
    }
    SSL_set_accept_state(t->ssl);
    t->server = tls_server_ref(s);
    return t;
}

/* The connecting side. */
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tls/tls_private.h"

/* Where no verification is demanded anything is better than plaintext: old receivers' key exchange,
 * hashes and key lengths are taken (RFC 7435). Their certificates are judged as those of others. */
#define LEVEL_ANY 0

#define TICKET_BYTES_MAX 8192 /* a server may send 64 KiB, and a thousand are remembered */

/* Kept until somebody asks. Returns to OpenSSL: the reference is ours. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *t = tls_of(ssl);
    const unsigned char *ticket;
    size_t len = 0;

    SSL_SESSION_get0_ticket(session, &ticket, &len);
    if (len > TICKET_BYTES_MAX)
        return 0;
    SSL_SESSION_free(t->session);
    t->session = session;
    return 1;
}

static int trust(SSL_CTX *ctx, const struct tls_client_options *o, struct buf *error)
{
    int ok;

    if (o->ca_file == NULL && o->ca_dir == NULL)
        ok = SSL_CTX_set_default_verify_paths(ctx);
    else
        ok = SSL_CTX_load_verify_locations(ctx, o->ca_file, o->ca_dir);
    if (ok == 1)
        return 0;
    buf_printf(error, "%s: no certificates of authorities: ",
               o->ca_file != NULL  ? o->ca_file
               : o->ca_dir != NULL ? o->ca_dir
                                   : "system");
    if (o->ca_file != NULL && access(o->ca_file, R_OK) != 0)
        buf_puts(error, strerror(errno));
    else
        tls_put_failure(error);
    return -EINVAL;
}

/* Without DHE, whose field the server chooses: one of 10,000 bits costs most of a second. Servers
 * that know no ECDHE know RSA's key exchange. */
#define CIPHERS "DEFAULT:!kDHE"

static void context_set(SSL_CTX *ctx)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_cert_verify_callback(ctx, tls_on_verify, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
}

int tls_client_new(struct tls_client **out, const struct tls_client_options *options,
                   struct buf *error)
{
    struct tls_client *c = calloc(1, sizeof(*c));
    int err = -ENOMEM;

    if (c == NULL)
        return -ENOMEM;
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (c->ctx != NULL && SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION) == 1 &&
        SSL_CTX_set1_groups_list(c->ctx, TLS_GROUPS) == 1 &&
        SSL_CTX_set_cipher_list(c->ctx, CIPHERS) == 1 && SSL_CTX_dane_enable(c->ctx) == 1) {
        context_set(c->ctx);
        err = trust(c->ctx, options, error);
    }
    ERR_clear_error();
    if (err < 0)
        tls_client_free(c);
    else
        *out = c;
    return err;
}

void tls_client_free(struct tls_client *c)
{
    if (c == NULL)
        return;
    SSL_CTX_free(c->ctx);
    free(c);
}

/* A copy: OpenSSL marks a session as used up when a ticket comes in its place, and others, of other
 * threads too, may be about to resume the same. */
static bool resume(struct tls *t, struct tls_session *session)
{
    SSL_SESSION *own = SSL_SESSION_dup((SSL_SESSION *)session);
    bool ok = own != NULL && SSL_set_session(t->ssl, own) == 1;

    SSL_SESSION_free(own);
    t->offers = ok;
    return ok;
}

/* Called when the server has asked for a certificate. Returns to OpenSSL. */
static int on_certificate(SSL *ssl, void *arg)
{
    struct tls *t = arg;

    t->own_shown = SSL_use_cert_and_key(ssl, t->own->leaf, t->own->key, t->own->chain, 1) == 1;
    return t->own_shown;
}

static bool connection_set(struct tls *t, const struct tls_connect_options *o)
{
    int version = o->version_min == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;

    t->verify = o->verify;
    if (o->verify == TLS_VERIFY_DANE && !tls_dane_set(t, o))
        return false;
    if (!tls_demands(t)) {
        X509_VERIFY_PARAM_set_auth_level(SSL_get0_param(t->ssl), SSL_get_security_level(t->ssl));
        SSL_set_security_level(t->ssl, LEVEL_ANY);
        SSL_set_options(t->ssl, SSL_OP_LEGACY_SERVER_CONNECT);
    }
    if (t->verify != TLS_VERIFY_NONE && !tls_names_set(t, o))
        return false;
    if (o->certificate != NULL) {
        t->own = tls_certificate_ref(o->certificate);
        SSL_set_cert_cb(t->ssl, on_certificate, t);
    }
    SSL_set_verify(t->ssl, tls_demands(t) ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    return SSL_set_min_proto_version(t->ssl, version) == 1 &&
           (o->server_name == NULL || SSL_set_tlsext_host_name(t->ssl, o->server_name) == 1) &&
           (o->session == NULL || resume(t, o->session));
}

struct tls *tls_connect(struct tls_client *c, const struct tls_connect_options *options)
{
    struct tls *t = tls_new(SSL_new(c->ctx));

    if (t == NULL)
        return NULL;
    if (!connection_set(t, options)) {
        tls_free(t);
        return NULL;
    }
    SSL_set_connect_state(t->ssl);
    return t;
}

struct tls_session *tls_take_session(struct tls *t)
{
    SSL_SESSION *session = t->session;

    t->session = NULL;
    return (struct tls_session *)session;
}

void tls_session_free(struct tls_session *s)
{
    SSL_SESSION_free((SSL_SESSION *)s);
}

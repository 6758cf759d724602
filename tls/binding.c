/* Channel bindings: what SCRAM ties a login to. */
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/x509.h>

#include "tls/tls_private.h"

#define EXPORTER_LABEL "EXPORTER-Channel-Binding"
#define EXPORTER_BYTES 32

/* RFC 9266 2. Of TLS 1.2 implementations do not agree whether an empty context is one. That has
 * what was meant for it, where no two connections can have the same secret (RFC 7627). */
static bool binds(SSL *ssl)
{
    return SSL_version(ssl) == TLS1_3_VERSION || SSL_get_extms_support(ssl) == 1;
}

static bool exporter(SSL *ssl, struct tls_binding *out)
{
    out->len = EXPORTER_BYTES;
    return SSL_version(ssl) == TLS1_3_VERSION &&
           SSL_export_keying_material(ssl, out->bytes, EXPORTER_BYTES, EXPORTER_LABEL,
                                      sizeof(EXPORTER_LABEL) - 1, NULL, 0, 1) == 1;
}

/* RFC 5929 3.1: the first Finished, which is the client's, or that of a server that resumes. */
static bool unique(SSL *ssl, struct tls_binding *out)
{
    bool own = (SSL_is_server(ssl) == 1) == (SSL_session_reused(ssl) == 1);

    out->len = own ? SSL_get_finished(ssl, out->bytes, sizeof(out->bytes))
                   : SSL_get_peer_finished(ssl, out->bytes, sizeof(out->bytes));
    return SSL_version(ssl) < TLS1_3_VERSION && out->len > 0 && out->len <= sizeof(out->bytes);
}

/* RFC 5929 4.1: the hash of the certificate's signature, SHA-256 in the place of weaker ones. A
 * signature without one, such as Ed25519's, binds to nothing. */
static const EVP_MD *end_point_hash(const X509 *leaf)
{
    int hash = NID_undef;

    if (OBJ_find_sigid_algs(X509_get_signature_nid(leaf), &hash, NULL) != 1 || hash == NID_undef)
        return NULL;
    return hash == NID_md5 || hash == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(hash);
}

/* A server that resumes a session has no certificate at hand. */
static bool end_point(SSL *ssl, struct tls_binding *out)
{
    X509 *leaf = SSL_is_server(ssl) ? SSL_get_certificate(ssl) : SSL_get0_peer_certificate(ssl);
    const EVP_MD *hash = leaf == NULL ? NULL : end_point_hash(leaf);
    unsigned int len = 0;

    if (hash == NULL || X509_digest(leaf, hash, out->bytes, &len) != 1)
        return false;
    out->len = len;
    return true;
}

bool tls_binding(const struct tls *t, enum tls_binding_kind kind, struct tls_binding *out)
{
    bool found = false;

    if (t->state != TLS_OPEN || !binds(t->ssl))
        return false;
    switch (kind) {
    case TLS_EXPORTER:
        out->name = "tls-exporter";
        found = exporter(t->ssl, out);
        break;
    case TLS_UNIQUE:
        out->name = "tls-unique";
        found = unique(t->ssl, out);
        break;
    case TLS_SERVER_END_POINT:
        out->name = "tls-server-end-point";
        found = end_point(t->ssl, out);
        break;
    case TLS_BINDING_KINDS:
        break;
    }
    ERR_clear_error();
    return found;
}

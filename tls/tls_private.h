/* The library's inside: what its sources share. Nothing outside tls/ includes it. */
#ifndef HAYAUMA_TLS_PRIVATE_H
#define HAYAUMA_TLS_PRIVATE_H

#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>

#include "tls/tls.h"

/* Elliptic curves alone: OpenSSL 3.0 would take the fields of RFC 7919 too, up to 8192 bits, with
 * which one ClientHello costs a thread of the crew a hundred times what another does
 * (CVE-2002-20001, CVE-2022-40735). */
#define TLS_GROUPS "X25519:P-256:P-384:X448:P-521"

struct tls_certificate {
    _Atomic uint32_t refs;
    X509 *leaf;
    EVP_PKEY *key;
    STACK_OF(X509) * chain;      /* behind the leaf */
    char *names;                 /* in words */
    GENERAL_NAMES *alternatives; /* NULL: it has none */
    char key_type[48];
};

struct tls_choice {
    struct tls_certificate *certificate;
    bool of_first; /* it is the first, or bears the first one's name */
};

struct tls_server {
    _Atomic uint32_t refs;
    SSL_CTX *ctx;
    struct tls_tickets *tickets;
    size_t shown_len;
    struct tls_choice shown[];
};

struct tls_client {
    SSL_CTX *ctx;
};

/* Where a connection is; connection.c moves it. */
enum tls_state {
    TLS_SHAKING,
    TLS_OPEN,
    TLS_ENDED, /* the peer has said so; we may still write */
    TLS_BROKEN,
};

struct tls {
    SSL *ssl;
    struct tls_server *server;           /* of an accepted one; OpenSSL's callbacks ask it */
    uint8_t scope[SHA256_DIGEST_LENGTH]; /* of its tickets: the listener's, hashed */
    struct tls_authorities *authorities; /* of one whose client is asked for a certificate */
    struct tls_certificate *own;         /* that a client shows when it is asked */
    bool own_shown;
    bool offers; /* a client: a session to be resumed */
    enum tls_state state;
    bool closing; /* close_notify is said */
    /* Of the call at hand: where OpenSSL reads from, and writes to as long as nothing waits. */
    struct str *wire;
    uint8_t *window;
    size_t window_len, window_used;
    struct buf unsent;    /* what OpenSSL wrote elsewhere */
    SSL_SESSION *session; /* a client's newest that nobody has taken */
    enum tls_verify verify;
    bool unusable; /* TLSA records were given, and none is: verify became NONE */
    char **names;  /* that a client wants one of */
    size_t names_len;
    char error[192];
};

/* connection.c: around a new SSL, which is the connection's from here on, also when it is NULL: no
 * memory. */
struct tls *tls_new(SSL *ssl);
static inline struct tls *tls_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}
/* What OpenSSL says of the last failure of this thread; takes it from its queue. */
void tls_put_failure(struct buf *out);
/* Whether the handshake fails when the certificate does. */
static inline bool tls_demands(const struct tls *t)
{
    return t->verify == TLS_VERIFY_REQUIRE || t->verify == TLS_VERIFY_DANE;
}
/* verify.c: a client's part. The callback of a context; names given to a connection; whether the
 * session that a finished handshake resumed is one that the connection may trust. */
int tls_on_verify(X509_STORE_CTX *store, void *arg);
bool tls_names_set(struct tls *t, const struct tls_connect_options *options);
bool tls_resumed_well(const struct tls *t);
enum tls_verdict tls_verdict(const struct tls *t);
/* dane.c: a client's connection becomes one of TLS_VERIFY_DANE, or NONE. False: no memory. */
bool tls_dane_set(struct tls *t, const struct tls_connect_options *options);
/* tickets.c */
int tls_on_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher,
                  EVP_MAC_CTX *mac, int sealing);
/* client_certificate.c: the callback of a server's context; makes a server ask. False: no memory.
 */
int tls_on_client_verify(X509_STORE_CTX *store, void *arg);
bool tls_ask_client(SSL *ssl, struct tls_authorities *authorities);
/* certificate.c: the first name of a certificate, else "". */
void tls_first_name(X509 *leaf, char *out, size_t size);
/* Whether it is for the host. */
bool tls_certificate_is_for(const struct tls_certificate *c, const char *host);

#endif

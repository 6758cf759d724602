/* What tests of this library share: certificates, made for each test, and both ends in memory. Each
 * test program includes it once. */
#ifndef HAYAUMA_TLS_TEST_H
#define HAYAUMA_TLS_TEST_H

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tls/tls_private.h"

#include <cmocka.h>

/* --- certificates --- */

static char dir[] = "/tmp/tls_test.XXXXXX";

struct made { /* a certificate, its key, and their files */
    X509 *x509;
    EVP_PKEY *key;
    char chain_file[64], key_file[64];
};

struct make {
    const char *file;  /* "a": a.crt, a.key */
    const char *names; /* "DNS:a.example,DNS:*.b.example", or NULL */
    const char *common_name;
    int from_days, until_days; /* 0, 0: valid */
    bool rsa, authority;
    size_t rsa_bits;
    const struct made *issuer; /* NULL: itself */
};

static inline void extend(X509 *x509, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    assert_non_null(e);
    assert_int_equal(X509_add_ext(x509, e, -1), 1);
    X509_EXTENSION_free(e);
}

static inline void write_files(struct made *m, const char *file)
{
    FILE *f;

    snprintf(m->chain_file, sizeof(m->chain_file), "%s/%s.crt", dir, file);
    snprintf(m->key_file, sizeof(m->key_file), "%s/%s.key", dir, file);
    f = fopen(m->chain_file, "w");
    assert_true(f != NULL && PEM_write_X509(f, m->x509) == 1);
    fclose(f);
    f = fopen(m->key_file, "w");
    assert_true(f != NULL && PEM_write_PrivateKey(f, m->key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(f);
}

static inline struct made make(struct make o)
{
    static long serial;
    struct made m = {.x509 = X509_new()};
    X509_NAME *name = X509_get_subject_name(m.x509);
    const struct made *issuer = o.issuer != NULL ? o.issuer : &m;
    const char *cn = o.common_name != NULL ? o.common_name : o.file;

    m.key = o.rsa ? EVP_RSA_gen(o.rsa_bits != 0 ? o.rsa_bits : 2048) : EVP_EC_gen("P-256");
    X509_set_version(m.x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(m.x509), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(m.x509), o.from_days * 86400L - 60);
    X509_gmtime_adj(X509_getm_notAfter(m.x509), (o.until_days != 0 ? o.until_days : 30) * 86400L);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(m.x509, X509_get_subject_name(issuer->x509));
    X509_set_pubkey(m.x509, m.key);
    extend(m.x509, NID_basic_constraints, o.authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (o.names != NULL)
        extend(m.x509, NID_subject_alt_name, o.names);
    assert_true(X509_sign(m.x509, issuer->key, EVP_sha256()) > 0);
    write_files(&m, o.file);
    return m;
}

static inline void unmake(struct made *m)
{
    X509_free(m->x509);
    EVP_PKEY_free(m->key);
}

static inline struct tls_certificate *load(const struct made *m)
{
    struct tls_certificate *c = NULL;
    struct buf error = {0};

    if (tls_certificate_load(&c, m->chain_file, m->key_file, &error) != 0)
        fail_msg("%.*s", STR_FMT(buf_str(&error)));
    return c;
}

/* --- two ends --- */

static struct made authority, leaf;
static struct tls_certificate *certificate;
static struct tls_tickets *tickets;
static struct tls_server *server;
static struct tls_client *client;

static inline int setup(void **state)
{
    struct buf error = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    authority = make((struct make){.file = "authority", .authority = true});
    leaf = make((struct make){
        .file = "leaf", .names = "DNS:mx.example,DNS:*.wild.example", .issuer = &authority});
    certificate = load(&leaf);
    tickets = tls_tickets_new();
    assert_non_null(tickets);
    assert_int_equal(tls_server_new(&server, &certificate, 1, tickets), 0);
    assert_int_equal(tls_client_new(&client,
                                    &(struct tls_client_options){.ca_file = authority.chain_file},
                                    &error),
                     0);
    return 0;
}

static inline int teardown(void **state)
{
    char command[64];

    (void)state;
    tls_client_free(client);
    tls_server_unref(server);
    tls_tickets_unref(tickets);
    tls_certificate_unref(certificate);
    unmake(&leaf);
    unmake(&authority);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

struct end {
    struct tls *tls;
    enum tls_step step;
    struct buf wire; /* for it, not yet taken */
    struct buf plain;
    ssize_t said; /* by the last tls_read() that gave nothing */
};

struct pair {
    struct end client, server;
    size_t slice; /* bytes that go over at once; 0: all */
};

static const char *const mx_names[] = {"mx.example"};

static inline struct tls_connect_options wanted(enum tls_verify verify)
{
    return (struct tls_connect_options){
        .server_name = "mx.example", .names = mx_names, .names_len = 1, .verify = verify};
}

static inline struct tls *accept_scope(struct tls_server *s, const char *scope)
{
    return tls_accept(s, &(struct tls_accept_options){.scope = str_of(scope)});
}

static inline struct pair pair_new(struct tls_server *s, const struct tls_connect_options *o)
{
    struct pair p = {.client = {.tls = tls_connect(client, o), .step = TLS_WANTS},
                     .server = {.tls = accept_scope(s, "25"), .step = TLS_WANTS}};

    assert_true(p.client.tls != NULL && p.server.tls != NULL);
    assert_true(tls_is_client(p.client.tls) && !tls_is_client(p.server.tls));
    return p;
}

static inline void end_done(struct end *e)
{
    tls_free(e->tls);
    buf_done(&e->wire);
    buf_done(&e->plain);
}

static inline void pair_done(struct pair *p)
{
    end_done(&p->client);
    end_done(&p->server);
}

static inline void tls_max(struct tls *t, int version)
{
    assert_int_equal(SSL_set_max_proto_version(t->ssl, version), 1);
}

/* Takes what has come, in slices. */
static inline void end_take(struct end *e, size_t slice)
{
    uint8_t plain[5000];
    size_t at = 0;

    do {
        size_t len = e->wire.len - at;
        struct str wire = {(const char *)e->wire.data + at, 0};

        wire.len = slice != 0 && slice < len ? slice : len;
        at += wire.len;
        if (e->step == TLS_WANTS)
            e->step = tls_handshake(e->tls, &wire);
        if (e->step != TLS_DONE)
            continue;
        while ((e->said = tls_read(e->tls, &wire, plain, sizeof(plain))) > 0)
            buf_put(&e->plain, plain, (size_t)e->said);
    } while (at < e->wire.len);
    buf_clear(&e->wire);
}

/* What from has to say, and plain, for to. */
static inline void end_send(struct end *from, struct end *to, struct str *plain)
{
    uint8_t wire[3000];
    ssize_t n;

    while ((n = tls_write(from->tls, plain, wire, sizeof(wire))) > 0)
        buf_put(&to->wire, wire, (size_t)n);
}

/* Bytes go to and fro until nobody has any. */
static inline void settle(struct pair *p)
{
    struct str none = STR("");

    if (p->client.step == TLS_WANTS && p->client.wire.len == 0)
        end_take(&p->client, 0);
    do {
        end_send(&p->client, &p->server, &none);
        if (p->server.wire.len > 0)
            end_take(&p->server, p->slice);
        end_send(&p->server, &p->client, &none);
        if (p->client.wire.len > 0)
            end_take(&p->client, p->slice);
    } while (tls_unsent(p->client.tls) > 0 || tls_unsent(p->server.tls) > 0);
}

static inline void say(struct pair *p, bool by_client, struct str text)
{
    struct end *from = by_client ? &p->client : &p->server;
    struct end *to = by_client ? &p->server : &p->client;

    end_send(from, to, &text);
    assert_int_equal(text.len, 0);
    end_take(to, p->slice);
}

static inline struct tls_facts facts_of(const struct end *e)
{
    struct tls_facts f;

    tls_facts(e->tls, &f);
    return f;
}

static inline void assert_talks(struct pair *p)
{
    assert_int_equal(p->client.step, TLS_DONE);
    assert_int_equal(p->server.step, TLS_DONE);
    say(p, true, STR("EHLO a\r\n"));
    assert_true(str_eq(buf_str(&p->server.plain), STR("EHLO a\r\n")));
    say(p, false, STR("250 b\r\n"));
    assert_true(str_eq(buf_str(&p->client.plain), STR("250 b\r\n")));
}

static const struct {
    int version;
    const char *name;
} versions[] = {{TLS1_2_VERSION, "TLSv1.2"}, {TLS1_3_VERSION, "TLSv1.3"}};

#endif

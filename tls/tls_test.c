/* Both ends in memory. Certificates are made here, for each test the ones that it needs. */
#include <errno.h>
#include <malloc.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
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

static void extend(X509 *x509, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    assert_non_null(e);
    assert_int_equal(X509_add_ext(x509, e, -1), 1);
    X509_EXTENSION_free(e);
}

static void write_files(struct made *m, const char *file)
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

static struct made make(struct make o)
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

static void unmake(struct made *m)
{
    X509_free(m->x509);
    EVP_PKEY_free(m->key);
}

static struct tls_certificate *load(const struct made *m)
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

static int setup(void **state)
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

static int teardown(void **state)
{
    char command[64];

    (void)state;
    tls_client_unref(client);
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

static struct tls_connect_options wanted(enum tls_verify verify)
{
    return (struct tls_connect_options){
        .server_name = "mx.example", .names = mx_names, .names_len = 1, .verify = verify};
}

static struct tls *accept_scope(struct tls_server *s, const char *scope)
{
    return tls_accept(s, &(struct tls_accept_options){.scope = str_of(scope)});
}

static struct pair pair_new(struct tls_server *s, const struct tls_connect_options *o)
{
    struct pair p = {.client = {.tls = tls_connect(client, o), .step = TLS_WANTS},
                     .server = {.tls = accept_scope(s, "25"), .step = TLS_WANTS}};

    assert_true(p.client.tls != NULL && p.server.tls != NULL);
    assert_true(tls_is_client(p.client.tls) && !tls_is_client(p.server.tls));
    return p;
}

static void end_done(struct end *e)
{
    tls_free(e->tls);
    buf_done(&e->wire);
    buf_done(&e->plain);
}

static void pair_done(struct pair *p)
{
    end_done(&p->client);
    end_done(&p->server);
}

static void tls_max(struct tls *t, int version)
{
    assert_int_equal(SSL_set_max_proto_version(t->ssl, version), 1);
}

/* Takes what has come, in slices. */
static void end_take(struct end *e, size_t slice)
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
static void end_send(struct end *from, struct end *to, struct str *plain)
{
    uint8_t wire[3000];
    ssize_t n;

    while ((n = tls_write(from->tls, plain, wire, sizeof(wire))) > 0)
        buf_put(&to->wire, wire, (size_t)n);
}

/* Bytes go to and fro until nobody has any. */
static void settle(struct pair *p)
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

static void say(struct pair *p, bool by_client, struct str text)
{
    struct end *from = by_client ? &p->client : &p->server;
    struct end *to = by_client ? &p->server : &p->client;

    end_send(from, to, &text);
    assert_int_equal(text.len, 0);
    end_take(to, p->slice);
}

static struct tls_facts facts_of(const struct end *e)
{
    struct tls_facts f;

    tls_facts(e->tls, &f);
    return f;
}

static void assert_talks(struct pair *p)
{
    assert_int_equal(p->client.step, TLS_DONE);
    assert_int_equal(p->server.step, TLS_DONE);
    say(p, true, STR("EHLO a\r\n"));
    assert_true(str_eq(buf_str(&p->server.plain), STR("EHLO a\r\n")));
    say(p, false, STR("250 b\r\n"));
    assert_true(str_eq(buf_str(&p->client.plain), STR("250 b\r\n")));
}

/* --- tests --- */

static const struct {
    int version;
    const char *name;
} versions[] = {{TLS1_2_VERSION, "TLSv1.2"}, {TLS1_3_VERSION, "TLSv1.3"}};

/* A handshake with both versions, whole and in single bytes; then its session is resumed, twice. */
static void test_full_and_resumed(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(versions); i++) {
        struct tls_session *session = NULL;

        for (int round = 0; round < 3; round++) {
            struct tls_connect_options o = wanted(TLS_VERIFY_REQUIRE);
            struct pair p;
            struct tls_facts f;
            char name[64];

            o.session = session;
            p = pair_new(server, &o);
            p.slice = i % 2;
            tls_max(p.server.tls, versions[i / 2].version);
            settle(&p);
            assert_talks(&p);
            f = facts_of(&p.client);
            assert_string_equal(f.protocol, versions[i / 2].name);
            assert_true(f.cipher_bits >= 128 && f.cipher[0] != '\0');
            assert_int_equal(f.resumed, round > 0);
            assert_int_equal(f.verdict, TLS_VERIFIED);
            assert_string_equal(f.verify, "verified");
            tls_peer_name(p.client.tls, name, sizeof(name));
            assert_string_equal(name, "mx.example");
            f = facts_of(&p.server);
            assert_int_equal(f.resumed, round > 0);
            assert_string_equal(f.server_name, "mx.example");
            assert_int_equal(f.verdict, TLS_UNCHECKED);
            tls_session_free(session);
            session = tls_take_session(p.client.tls);
            assert_true(session != NULL || i / 2 == 0);
            pair_done(&p); /* without a word, as a connection that is cut */
            if (session == NULL)
                break;
        }
        tls_session_free(session);
    }
}

/* One session for several connections at once; a ticket is the listener's that gave it. */
static void test_scope(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct tls_connect_options o = wanted(TLS_VERIFY_REQUIRE);
        struct pair p = pair_new(server, &o), same, same2, other;

        tls_max(p.server.tls, versions[i].version);
        settle(&p);
        o.session = tls_take_session(p.client.tls);
        assert_non_null(o.session);
        same = pair_new(server, &o);
        same2 = pair_new(server, &o);
        other = pair_new(server, &o);
        tls_free(other.server.tls);
        other.server.tls = accept_scope(server, "465");
        tls_max(same.server.tls, versions[i].version);
        tls_max(same2.server.tls, versions[i].version);
        tls_max(other.server.tls, versions[i].version);
        settle(&same);
        settle(&same2);
        settle(&other);
        assert_talks(&same);
        assert_talks(&same2);
        assert_talks(&other);
        assert_true(facts_of(&same.server).resumed);
        assert_true(facts_of(&same2.server).resumed);
        assert_false(facts_of(&other.server).resumed);
        assert_false(facts_of(&other.client).resumed);
        tls_session_free(o.session);
        pair_done(&p);
        pair_done(&same);
        pair_done(&same2);
        pair_done(&other);
    }
}

/* Tickets of the present key and of the one before are taken, by servers made anew too. */
static void test_rotation(void **state)
{
    (void)state;
    for (int turns = 0; turns < 3; turns++) {
        struct tls_connect_options o = wanted(TLS_VERIFY_REQUIRE);
        struct pair p = pair_new(server, &o), again;
        struct tls_server *reloaded;

        settle(&p);
        o.session = tls_take_session(p.client.tls);
        for (int i = 0; i < turns; i++)
            tls_tickets_rotate(tickets);
        assert_int_equal(tls_server_new(&reloaded, &certificate, 1, tickets), 0);
        again = pair_new(reloaded, &o);
        tls_server_unref(reloaded); /* the connection has its own reference */
        settle(&again);
        assert_talks(&again);
        assert_int_equal(facts_of(&again.server).resumed, turns < 2);
        tls_session_free(o.session);
        pair_done(&p);
        pair_done(&again);
    }
}

struct refused {
    struct make make;
    bool issued; /* by the authority */
    const char *name;
    enum tls_verdict verdict;
    const char *error;
};

/* REQUIRE ends the handshake and says why to both ends; REPORT tells; NONE does not look. */
static void test_refused_certificates(void **state)
{
    static const struct refused cases[] = {
        {{.file = "name", .names = "DNS:other.example"},
         true,
         "mx.example",
         TLS_CERT_HOST_MISMATCH,
         "hostname mismatch"},
        {{.file = "old", .names = "DNS:mx.example", .from_days = -9, .until_days = -2},
         true,
         "mx.example",
         TLS_CERT_EXPIRED,
         "certificate has expired"},
        {{.file = "early", .names = "DNS:mx.example", .from_days = 2, .until_days = 9},
         true,
         "mx.example",
         TLS_CERT_EXPIRED,
         "certificate is not yet valid"},
        {{.file = "self", .names = "DNS:mx.example"},
         false,
         "mx.example",
         TLS_CERT_UNTRUSTED,
         "self-signed certificate"},
        {{.file = "deep", .names = "DNS:*.wild.example"},
         true,
         "a.b.wild.example",
         TLS_CERT_HOST_MISMATCH,
         "hostname mismatch"},
        {{.file = "part", .names = "DNS:m*.example"},
         true,
         "mx.example",
         TLS_CERT_HOST_MISMATCH,
         "hostname mismatch"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct make o = cases[i].make;
        struct made m;
        struct tls_certificate *c;
        struct tls_server *s;

        o.issuer = cases[i].issued ? &authority : NULL;
        m = make(o);
        c = load(&m);
        assert_int_equal(tls_server_new(&s, &c, 1, tickets), 0);
        for (int verify = TLS_VERIFY_NONE; verify <= TLS_VERIFY_REQUIRE; verify++) {
            struct tls_connect_options w = wanted((enum tls_verify)verify);
            struct pair p;

            w.names = &cases[i].name;
            p = pair_new(s, &w);
            settle(&p);
            assert_int_equal(facts_of(&p.client).verdict,
                             verify == TLS_VERIFY_NONE ? TLS_UNCHECKED : cases[i].verdict);
            if (verify == TLS_VERIFY_REQUIRE) {
                char error[128];

                snprintf(error, sizeof(error), "certificate verify failed: %s", cases[i].error);
                assert_int_equal(p.client.step, TLS_FAILED);
                assert_string_equal(tls_error(p.client.tls), error);
                assert_true(strncmp(tls_error(p.server.tls), "peer's alert: ", 14) == 0);
            } else {
                assert_talks(&p);
            }
            pair_done(&p);
        }
        tls_server_unref(s);
        tls_certificate_unref(c);
        unmake(&m);
    }
}

static void test_wildcard(void **state)
{
    static const char *const names[] = {"other.example", "a.wild.example"};
    struct tls_connect_options o = wanted(TLS_VERIFY_REQUIRE);
    struct pair p;

    (void)state;
    o.names = names;
    o.names_len = 2;
    p = pair_new(server, &o);
    settle(&p);
    assert_talks(&p);
    assert_int_equal(facts_of(&p.client).verdict, TLS_VERIFIED);
    pair_done(&p);
}

/* A session that nobody verified, or under another name, is none for who verifies. */
static void test_resumed_unverified(void **state)
{
    static const char *const other[] = {"other.example"};

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(versions); i++) {
        struct tls_connect_options o = wanted(i % 2 ? TLS_VERIFY_NONE : TLS_VERIFY_REQUIRE);
        struct pair p = pair_new(server, &o), again;

        tls_max(p.server.tls, versions[i / 2].version);
        settle(&p);
        o.session = tls_take_session(p.client.tls);
        assert_non_null(o.session);
        o.verify = TLS_VERIFY_REQUIRE;
        if (i % 2 == 0)
            o.names = other;
        again = pair_new(server, &o);
        tls_max(again.server.tls, versions[i / 2].version);
        settle(&again);
        assert_int_equal(again.client.step, TLS_FAILED);
        assert_string_equal(tls_error(again.client.tls),
                            "the resumed session was not verified for this name");
        tls_session_free(o.session);
        pair_done(&p);
        pair_done(&again);
    }
}

static void test_garbage(void **state)
{
    static const char *const texts[] = {"EHLO a.example\r\nMAIL FROM:<>\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                                        "\x16\x03\x01\xff\xff\x01\xff\xff\xff",
                                        "\x80\x08\x01\x03\x01 too short",
                                        "\x15\x03\x03\x7f\x7f an alert, much too long for one",
                                        "220 mx.example ESMTP\r\n"};

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(texts); i++) {
        struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
        struct pair p = pair_new(server, &o);
        struct end *e = i % 2 ? &p.client : &p.server;
        uint8_t plain[16];

        if (i % 2) {
            end_take(&p.client, 0);
            assert_int_equal(p.client.step, TLS_WANTS);
        }
        buf_puts(&e->wire, texts[i / 2]);
        end_take(e, 0);
        assert_int_equal(e->step, TLS_FAILED);
        assert_true(strlen(tls_error(e->tls)) > 3);
        assert_int_equal(tls_read(e->tls, &(struct str){"x", 1}, plain, sizeof(plain)), -EPROTO);
        tls_close(e->tls);
        pair_done(&p);
    }
}

/* A flipped byte in what is encrypted ends it; what came before stays good. */
static void test_tampered(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);
    struct str text = STR("DATA\r\n");

    (void)state;
    settle(&p);
    assert_talks(&p);
    end_send(&p.client, &p.server, &text);
    p.server.wire.data[p.server.wire.len - 1] ^= 1;
    buf_clear(&p.server.plain);
    end_take(&p.server, 0);
    assert_int_equal(p.server.said, -EPROTO);
    assert_int_equal(p.server.plain.len, 0);
    settle(&p);
    assert_int_equal(p.client.said, -EPROTO);
    assert_string_equal(tls_error(p.client.tls), "peer's alert: bad record mac");
    pair_done(&p);
}

/* Half a handshake, half a record: nothing, and no failure, until more comes. */
static void test_truncated(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);
    struct str text = STR("MAIL FROM:<a@b>\r\n"), none = STR("");
    size_t whole;

    (void)state;
    end_take(&p.client, 0);
    end_send(&p.client, &p.server, &none);
    whole = p.server.wire.len;
    p.server.wire.len = whole - 1;
    end_take(&p.server, 0);
    assert_int_equal(p.server.step, TLS_WANTS);
    assert_int_equal(tls_unsent(p.server.tls), 0);
    buf_putc(&p.server.wire, (char)p.server.wire.data[whole - 1]);
    end_take(&p.server, 0);
    assert_true(tls_unsent(p.server.tls) > 0);
    settle(&p);
    end_send(&p.client, &p.server, &text);
    whole = p.server.wire.len;
    p.server.wire.len = whole - 1;
    end_take(&p.server, 0);
    assert_int_equal(p.server.said, 0);
    assert_int_equal(p.server.plain.len, 0);
    buf_putc(&p.server.wire, (char)p.server.wire.data[whole - 1]);
    end_take(&p.server, 0);
    assert_int_equal(p.server.plain.len, strlen("MAIL FROM:<a@b>\r\n"));
    pair_done(&p);
}

static void test_large_writes(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);
    struct buf text = {0};
    int err = buf_reserve(&text, 1 << 20);

    (void)state;
    assert_int_equal(err, 0);
    assert_int_equal(RAND_bytes(text.data, 1 << 20), 1);
    text.len = 1 << 20;
    settle(&p);
    for (int by_client = 0; by_client < 2; by_client++) {
        struct buf *got = by_client ? &p.server.plain : &p.client.plain;

        p.slice = by_client ? 7777 : 0;
        say(&p, by_client, buf_str(&text));
        assert_true(str_eq(buf_str(got), buf_str(&text)));
    }
    buf_done(&text);
    pair_done(&p);
}

/* Room for less than a record: nothing is taken; of the connection's own bytes a part is. */
static void test_little_room(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);
    struct str text = STR("250 ok\r\n"), none = STR("");
    uint8_t wire[TLS_RECORD_BYTES];

    (void)state;
    end_take(&p.client, 0);
    while (tls_unsent(p.client.tls) > 0) {
        assert_int_equal(tls_write(p.client.tls, &none, wire, 1), 1);
        buf_put(&p.server.wire, wire, 1);
    }
    end_take(&p.server, 0);
    settle(&p);
    assert_int_equal(tls_write(p.server.tls, &text, wire, sizeof(wire) - 1), 0);
    assert_int_equal(text.len, 8);
    assert_true(tls_write(p.server.tls, &text, wire, sizeof(wire)) > 0);
    assert_int_equal(text.len, 0);
    pair_done(&p);
}

static void test_close(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);
    struct str text = STR("late");
    uint8_t wire[1000];

    (void)state;
    tls_close(p.server.tls); /* in its handshake: nothing */
    settle(&p);
    assert_talks(&p);
    tls_close(p.server.tls);
    tls_close(p.server.tls);
    assert_int_equal(tls_write(p.server.tls, &text, wire, sizeof(wire)), 24);
    assert_int_equal(text.len, 4);
    buf_put(&p.client.wire, wire, 24);
    end_take(&p.client, 0);
    assert_int_equal(p.client.said, -ENODATA);
    end_take(&p.client, 0);
    assert_int_equal(p.client.said, -ENODATA);
    say(&p, true, STR("still here")); /* half closed */
    assert_int_equal(p.server.said, 0);
    tls_close(p.client.tls);
    settle(&p);
    assert_int_equal(p.server.said, -ENODATA);
    pair_done(&p);
}

static void test_old_versions_refused(void **state)
{
    static const int old[] = {TLS1_VERSION, TLS1_1_VERSION};

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(old); i++) {
        struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
        struct pair p = pair_new(server, &o);
        bool by_client = i % 2;
        struct end *theirs = by_client ? &p.server : &p.client;
        struct end *ours = by_client ? &p.client : &p.server;

        SSL_set_security_level(theirs->tls->ssl, 0);
        SSL_set_min_proto_version(theirs->tls->ssl, old[i / 2]);
        tls_max(theirs->tls, old[i / 2]);
        settle(&p);
        assert_int_equal(ours->step, TLS_FAILED);
        assert_int_equal(theirs->step, TLS_FAILED);
        if (!by_client)
            assert_string_equal(tls_error(ours->tls), "unsupported protocol");
        pair_done(&p);
    }
}

static void test_version_min(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);

    (void)state;
    tls_free(p.server.tls);
    p.server.tls = tls_accept(
        server, &(struct tls_accept_options){.scope = STR("25"), .version_min = TLS_1_3});
    tls_max(p.client.tls, TLS1_2_VERSION);
    settle(&p);
    assert_int_equal(p.server.step, TLS_FAILED);
    pair_done(&p);
}

/* A client that asks for another handshake within the first is told no, and stays where it is. */
static void test_no_renegotiation(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);
    struct str none = STR("");

    (void)state;
    tls_max(p.client.tls, TLS1_2_VERSION);
    SSL_clear_options(p.client.tls->ssl, SSL_OP_NO_RENEGOTIATION);
    settle(&p);
    assert_talks(&p);
    assert_int_equal(SSL_renegotiate(p.client.tls->ssl), 1);
    (void)SSL_do_handshake(p.client.tls->ssl);
    ERR_clear_error();
    end_send(&p.client, &p.server, &none);
    assert_true(p.server.wire.len > 0);
    end_take(&p.server, 0);
    assert_int_equal(p.server.said, 0);
    end_send(&p.server, &p.client, &none);
    end_take(&p.client, 0);
    assert_int_equal(p.client.said, -EPROTO); /* OpenSSL's clients give up */
    assert_string_equal(tls_error(p.client.tls), "no renegotiation");
    pair_done(&p);
}

/* A peer that makes us answer and reads nothing does not fill our memory. */
static void test_answers_are_bounded(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);
    struct str none = STR("");
    int i;

    (void)state;
    settle(&p);
    for (i = 0; i < 100000 && p.server.said == 0; i++) {
        assert_int_equal(SSL_key_update(p.client.tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(p.client.tls->ssl), 1);
        end_send(&p.client, &p.server, &none);
        end_take(&p.server, 0);
        assert_true(tls_unsent(p.server.tls) < (1 << 20));
    }
    assert_true(i > 10);
    assert_int_equal(p.server.said, -EPROTO);
    pair_done(&p);
}

struct shown {
    const char *name;
    const char *algorithms; /* NULL: all */
    size_t expected;        /* of the certificates */
};

/* By name, then by what the client can verify; the first of each type where none fits. */
static void test_server_names(void **state)
{
    static const struct make makes[] = {
        {.file = "a-ec", .names = "DNS:a.example,DNS:www.a.example"},
        {.file = "a-rsa", .names = "DNS:a.example", .rsa = true},
        {.file = "b-ec", .names = "DNS:*.b.example"},
        {.file = "cn", .common_name = "c.example"}};
    static const struct shown cases[] = {{"a.example", NULL, 0},
                                         {"a.example", "RSA-PSS+SHA256", 1},
                                         {"x.b.example", NULL, 2},
                                         {"c.example", NULL, 3},
                                         {"C.Example", NULL, 3},
                                         {"nobody.example", NULL, 0},
                                         {"nobody.example", "RSA-PSS+SHA256", 1},
                                         {NULL, NULL, 0}};
    struct made made[ARRAY_LEN(makes)];
    struct tls_certificate *certificates[ARRAY_LEN(makes)];
    struct tls_server *s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(makes); i++) {
        made[i] = make(makes[i]);
        certificates[i] = load(&made[i]);
    }
    assert_int_equal(tls_server_new(&s, certificates, ARRAY_LEN(makes), tickets), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_connect_options o = {.server_name = cases[i].name};
        struct pair p = pair_new(s, &o);

        if (cases[i].algorithms != NULL)
            assert_int_equal(SSL_set1_sigalgs_list(p.client.tls->ssl, cases[i].algorithms), 1);
        settle(&p);
        assert_talks(&p);
        assert_int_equal(
            X509_cmp(SSL_get0_peer_certificate(p.client.tls->ssl), made[cases[i].expected].x509),
            0);
        pair_done(&p);
    }
    tls_server_unref(s);
    for (size_t i = 0; i < ARRAY_LEN(makes); i++) {
        tls_certificate_unref(certificates[i]);
        unmake(&made[i]);
    }
}

static void assert_no_load(const char *chain, const char *key, int err, const char *words)
{
    struct tls_certificate *c = NULL;
    struct buf error = {0};

    assert_int_equal(tls_certificate_load(&c, chain, key, &error), err);
    assert_null(c);
    buf_putc(&error, '\0');
    if (strstr((char *)error.data, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", (char *)error.data, words);
    assert_null(strchr((char *)error.data, '\n'));
    buf_done(&error);
}

static void test_files(void **state)
{
    struct made other = make((struct make){.file = "other"}),
                weak = make((struct make){.file = "weak", .rsa = true, .rsa_bits = 512});
    struct tls_certificate_facts f;
    char locked[64], damaged[64];
    FILE *file;

    (void)state;
    tls_certificate_facts(certificate, &f);
    assert_string_equal(f.names, "mx.example, *.wild.example");
    assert_string_equal(f.key_type, "ECDSA P-256");
    assert_true(f.from_s < time(NULL) && f.until_s > time(NULL) + 29 * 86400 &&
                f.until_s < time(NULL) + 31 * 86400);
    assert_no_load("/nowhere/a.crt", leaf.key_file, -ENOENT, "/nowhere/a.crt: No such file");
    assert_no_load(leaf.chain_file, "/nowhere/a.key", -ENOENT, "/nowhere/a.key: No such file");
    assert_no_load(leaf.key_file, leaf.key_file, -EINVAL, "no certificate in PEM form");
    assert_no_load(leaf.chain_file, leaf.chain_file, -EINVAL, "no private key in PEM form");
    assert_no_load(leaf.chain_file, other.key_file, -EINVAL, "not the key of the certificate");
    assert_no_load(weak.chain_file, weak.key_file, -EINVAL, "key too small");
    snprintf(locked, sizeof(locked), "%s/locked.key", dir);
    file = fopen(locked, "w");
    assert_int_equal(PEM_write_PrivateKey(file, leaf.key, EVP_aes_128_cbc(), NULL, 0, NULL, "word"),
                     1);
    fclose(file);
    assert_no_load(leaf.chain_file, locked, -EINVAL, "asks for a pass phrase");
    snprintf(damaged, sizeof(damaged), "%s/damaged.crt", dir);
    file = fopen(damaged, "w");
    assert_int_equal(PEM_write_X509(file, leaf.x509), 1);
    fputs("-----BEGIN CERTIFICATE-----\nMIIBIjANBgkq\n-----END CERTIFICATE-----\n", file);
    fclose(file);
    assert_no_load(damaged, leaf.key_file, -EINVAL, "a damaged certificate");
    unmake(&other);
    unmake(&weak);
}

static void test_no_authorities(void **state)
{
    struct tls_client *c = NULL;
    struct buf error = {0};

    (void)state;
    assert_int_equal(
        tls_client_new(&c, &(struct tls_client_options){.ca_file = "/nowhere/ca"}, &error),
        -EINVAL);
    assert_true(str_starts_nocase(buf_str(&error), STR("/nowhere/ca: ")));
    buf_done(&error);
    assert_int_equal(tls_client_new(&c, &(struct tls_client_options){0}, &error), 0);
    tls_client_unref(c);
}

/* What an open connection that waits takes, both versions, both sides. Sanitizers count nothing. */
#define IDLE 100
static void test_idle_memory(void **state)
{
    static struct pair pairs[IDLE];

    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
        size_t before = mallinfo2().uordblks, both, clients, after;

        for (size_t i = 0; i < IDLE; i++) {
            struct tls_connect_options o = wanted(TLS_VERIFY_REQUIRE);

            pairs[i] = pair_new(server, &o);
            tls_max(pairs[i].server.tls, versions[v].version);
            settle(&pairs[i]);
            assert_talks(&pairs[i]);
            tls_session_free(tls_take_session(pairs[i].client.tls));
            buf_done(&pairs[i].client.wire);
            buf_done(&pairs[i].client.plain);
            buf_done(&pairs[i].server.wire);
            buf_done(&pairs[i].server.plain);
        }
        both = mallinfo2().uordblks - before;
        for (size_t i = 0; i < IDLE; i++) {
            tls_free(pairs[i].server.tls);
            pairs[i].server.tls = NULL;
        }
        clients = mallinfo2().uordblks - before;
        for (size_t i = 0; i < IDLE; i++)
            pair_done(&pairs[i]);
        after = mallinfo2().uordblks - before;
        print_message("%s: %zu bytes an idle server connection, %zu a client's\n", versions[v].name,
                      (both - clients) / IDLE, (clients - after) / IDLE);
        assert_true((both - clients) / IDLE < (28 << 10));
        assert_true((clients - after) / IDLE < (28 << 10));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_resumed),
        cmocka_unit_test(test_scope),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_refused_certificates),
        cmocka_unit_test(test_wildcard),
        cmocka_unit_test(test_resumed_unverified),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_tampered),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_large_writes),
        cmocka_unit_test(test_little_room),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_old_versions_refused),
        cmocka_unit_test(test_version_min),
        cmocka_unit_test(test_no_renegotiation),
        cmocka_unit_test(test_answers_are_bounded),
        cmocka_unit_test(test_server_names),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_no_authorities),
        cmocka_unit_test(test_idle_memory),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Handshakes, what they verify, sessions and tickets, broken peers. */
#include <errno.h>
#include <malloc.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <time.h>

#include "tls/tls_test.h"

/* --- tests --- */

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

static bool resumes(const struct tls_connect_options *o, const char *scope, int version)
{
    struct pair p = pair_new(server, o);
    bool resumed;

    tls_free(p.server.tls);
    p.server.tls = accept_scope(server, scope);
    tls_max(p.server.tls, version);
    settle(&p);
    assert_talks(&p);
    resumed = facts_of(&p.server).resumed;
    assert_int_equal(facts_of(&p.client).resumed, resumed);
    pair_done(&p);
    return resumed;
}

/* One session for several connections; a ticket is the listener's that gave it, and for the name
 * that was asked for then. */
static void test_scope(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct tls_connect_options o = wanted(TLS_VERIFY_REQUIRE);
        struct pair p = pair_new(server, &o);

        tls_max(p.server.tls, versions[i].version);
        settle(&p);
        o.session = tls_take_session(p.client.tls);
        assert_non_null(o.session);
        assert_true(resumes(&o, "25", versions[i].version));
        assert_true(resumes(&o, "25", versions[i].version));
        assert_false(resumes(&o, "465", versions[i].version));
        o.server_name = "a.wild.example"; /* which the certificate bears too */
        assert_false(resumes(&o, "25", versions[i].version));
        o.server_name = NULL;
        assert_false(resumes(&o, "25", versions[i].version));
        tls_session_free(o.session);
        pair_done(&p);
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
    const char *ciphers;    /* of TLS 1.2; NULL: TLS 1.3 */
    size_t expected;        /* of the certificates */
};

#define MAKES_MAX 5

static void assert_shown(const struct make *makes, size_t makes_len, const struct shown *cases,
                         size_t cases_len)
{
    struct made made[MAKES_MAX];
    struct tls_certificate *certificates[MAKES_MAX];
    struct tls_server *s;

    for (size_t i = 0; i < makes_len; i++) {
        made[i] = make(makes[i]);
        certificates[i] = load(&made[i]);
    }
    assert_int_equal(tls_server_new(&s, certificates, makes_len, tickets), 0);
    for (size_t i = 0; i < cases_len; i++) {
        struct tls_connect_options o = {.server_name = cases[i].name};
        struct pair p = pair_new(s, &o);
        SSL *ssl = p.client.tls->ssl;

        if (cases[i].algorithms != NULL)
            assert_int_equal(SSL_set1_sigalgs_list(ssl, cases[i].algorithms), 1);
        if (cases[i].ciphers != NULL) {
            assert_int_equal(SSL_set_max_proto_version(ssl, TLS1_2_VERSION), 1);
            assert_int_equal(SSL_set_cipher_list(ssl, cases[i].ciphers), 1);
        } else {
            assert_int_equal(SSL_set1_groups_list(ssl, "X25519"), 1); /* no certificate's curve */
        }
        settle(&p);
        assert_talks(&p);
        assert_int_equal(X509_cmp(SSL_get0_peer_certificate(ssl), made[cases[i].expected].x509), 0);
        pair_done(&p);
    }
    tls_server_unref(s);
    for (size_t i = 0; i < makes_len; i++) {
        tls_certificate_unref(certificates[i]);
        unmake(&made[i]);
    }
}

/* By name, then by what the client can verify. */
static void test_server_names(void **state)
{
    static const struct make makes[] = {
        {.file = "a-ec", .names = "DNS:a.example,DNS:www.a.example"},
        {.file = "a-rsa", .names = "DNS:a.example", .rsa = true},
        {.file = "b-ec", .names = "DNS:*.b.example"},
        {.file = "cn", .common_name = "c.example"},
        {.file = "d-ec", .names = "DNS:d.example,DNS:www.d.example", .common_name = "n.example"}};
    static const struct shown cases[] = {{"a.example", NULL, NULL, 0},
                                         {"WWW.d.Example", NULL, NULL, 4},
                                         {"ww.d.example", NULL, NULL, 0},
                                         {"d.exampl", NULL, NULL, 0},
                                         {"n.example", NULL, NULL, 0}, /* it has names of DNS */
                                         {"a.example", "RSA-PSS+SHA256", NULL, 1},
                                         {"a.example", NULL, "ECDHE-RSA-AES128-GCM-SHA256", 1},
                                         {"x.b.example", NULL, NULL, 2},
                                         {"x.b.example", "RSA-PSS+SHA256", NULL, 1},
                                         {"c.example", NULL, NULL, 3},
                                         {"C.Example", NULL, NULL, 3},
                                         {"nobody.example", NULL, NULL, 0},
                                         {"nobody.example", "RSA-PSS+SHA256", NULL, 1},
                                         {NULL, NULL, NULL, 0}};

    (void)state;
    assert_shown(makes, ARRAY_LEN(makes), cases, ARRAY_LEN(cases));
}

/* Who asks for no name gets the first, and not another host's of a type that OpenSSL likes better;
 * another host's only where it could verify no other. */
static void test_server_first(void **state)
{
    static const struct make makes[] = {
        {.file = "d-rsa", .names = "DNS:*.d.example,DNS:d.example", .rsa = true},
        {.file = "e-ec", .names = "DNS:e.example"},
        {.file = "e-rsa", .names = "DNS:e.example", .rsa = true}};
    static const struct make more[] = {{.file = "f-rsa", .names = "DNS:*.f.example", .rsa = true},
                                       {.file = "g-ec", .names = "DNS:g.example"},
                                       {.file = "f-ec", .names = "DNS:*.F.example"}};
    static const struct shown cases[] = {{NULL, NULL, NULL, 0},
                                         {NULL, "ECDSA+SHA256", NULL, 1},
                                         {NULL, NULL, "ECDHE-ECDSA-AES128-GCM-SHA256", 1},
                                         {"nobody.example", NULL, NULL, 0},
                                         {"e.example", NULL, NULL, 1},
                                         {"e.example", NULL, "ECDHE-RSA-AES128-GCM-SHA256", 2}};
    static const struct shown more_cases[] = {{NULL, "ECDSA+SHA256", NULL, 2},
                                              {NULL, "RSA-PSS+SHA256", NULL, 0},
                                              {"nobody.example", "ECDSA+SHA256", NULL, 2}};

    (void)state;
    assert_shown(makes, ARRAY_LEN(makes), cases, ARRAY_LEN(cases));
    assert_shown(more, ARRAY_LEN(more), more_cases, ARRAY_LEN(more_cases));
}

/* What a peer that wants a client's certificate says is what somebody has to configure. */
static void test_alert_words(void **state)
{
    static const struct {
        int alert;
        const char *words;
    } rows[] = {{SSL_AD_CERTIFICATE_REQUIRED, "peer's alert: certificate required"},
                {SSL_AD_PROTOCOL_VERSION, "peer's alert: protocol version"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf text = {0};

        ERR_raise(ERR_LIB_SSL, SSL_AD_REASON_OFFSET + rows[i].alert);
        tls_put_failure(&text);
        buf_putc(&text, '\0');
        assert_string_equal((char *)text.data, rows[i].words);
        buf_done(&text);
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
    tls_client_free(c);
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
        cmocka_unit_test(test_server_first),
        cmocka_unit_test(test_alert_words),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_no_authorities),
        cmocka_unit_test(test_idle_memory),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

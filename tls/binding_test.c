/* What logins are bound to, and which steps of a handshake are brief. */
#include "tls/tls_test.h"

static struct tls_binding binding_of(const struct end *e, enum tls_binding_kind kind)
{
    struct tls_binding b = {.len = 0};

    if (!tls_binding(e->tls, kind, &b))
        b.len = 0;
    return b;
}

static void assert_same(const struct pair *p, enum tls_binding_kind kind, const char *name)
{
    struct tls_binding ours = binding_of(&p->server, kind), theirs = binding_of(&p->client, kind);

    assert_true(ours.len >= 12);
    assert_int_equal(theirs.len, ours.len);
    assert_string_equal(ours.name, name);
    assert_memory_equal(ours.bytes, theirs.bytes, ours.len);
}

static struct pair connected(struct tls_server *s, int version, struct tls_session *session)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p;

    o.session = session;
    p = pair_new(s, &o);
    assert_int_equal(binding_of(&p.server, TLS_EXPORTER).len, 0); /* there is no connection yet */
    tls_max(p.server.tls, version);
    settle(&p);
    assert_talks(&p);
    return p;
}

/* Both ends compute the same, in no two connections; the certificate's hash is as anybody computes
 * it. A resumed session is another connection, and its server has no certificate at hand. */
static void test_bindings(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        bool exports = versions[i].version == TLS1_3_VERSION;
        enum tls_binding_kind kind = exports ? TLS_EXPORTER : TLS_UNIQUE;
        const char *name = exports ? "tls-exporter" : "tls-unique";
        struct pair one = connected(server, versions[i].version, NULL), two, again;
        struct tls_session *session = tls_take_session(one.client.tls);
        uint8_t digest[EVP_MAX_MD_SIZE];
        unsigned int len;

        two = connected(server, versions[i].version, NULL);
        again = connected(server, versions[i].version, session);
        assert_true(facts_of(&again.server).resumed);
        assert_same(&one, kind, name);
        assert_same(&two, kind, name);
        assert_same(&again, kind, name);
        assert_memory_not_equal(binding_of(&one.client, kind).bytes,
                                binding_of(&two.client, kind).bytes, 12);
        assert_memory_not_equal(binding_of(&one.client, kind).bytes,
                                binding_of(&again.client, kind).bytes, 12);
        assert_int_equal(binding_of(&one.client, exports ? TLS_UNIQUE : TLS_EXPORTER).len, 0);
        assert_same(&one, TLS_SERVER_END_POINT, "tls-server-end-point");
        assert_int_equal(X509_digest(leaf.x509, EVP_sha256(), digest, &len), 1);
        assert_memory_equal(binding_of(&one.server, TLS_SERVER_END_POINT).bytes, digest, 32);
        assert_int_equal(binding_of(&again.server, TLS_SERVER_END_POINT).len, 0);
        tls_session_free(session);
        pair_done(&one);
        pair_done(&two);
        pair_done(&again);
    }
}

/* Of TLS 1.2 where two connections may have one secret: a client and a server in between could make
 * it so. */
static void test_no_extended_secret(void **state)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct pair p = pair_new(server, &o);

    (void)state;
    tls_max(p.server.tls, TLS1_2_VERSION);
    SSL_set_options(p.server.tls->ssl, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    settle(&p);
    assert_talks(&p);
    for (int kind = 0; kind < TLS_BINDING_KINDS; kind++) {
        assert_int_equal(binding_of(&p.client, (enum tls_binding_kind)kind).len, 0);
        assert_int_equal(binding_of(&p.server, (enum tls_binding_kind)kind).len, 0);
    }
    pair_done(&p);
}

/* What its first step costs: of a hello that is whole. One that is cut off is read in its bounds,
 * and so is one with any byte changed. */
static void hello_costs(const struct tls *t, struct str hello, enum tls_cost cost)
{
    for (size_t i = 0; i < hello.len; i++) {
        char *part = memcpy(malloc(i + 1), hello.ptr, i + 1), *whole = malloc(hello.len);

        assert_int_equal(tls_step_cost(t, (struct str){part, i + 1}),
                         i + 1 < hello.len ? TLS_LONG : cost);
        memcpy(whole, hello.ptr, hello.len);
        for (unsigned flip = 1; flip < 256; flip <<= 1) {
            whole[i] = (char)(hello.ptr[i] ^ (char)flip);
            (void)tls_step_cost(t, (struct str){whole, hello.len});
        }
        free(part);
        free(whole);
    }
}

/* What a server's step costs behind its first. */
static enum tls_cost cost_behind_first(int version, struct tls_session *session, const char *groups,
                                       bool ask)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_NONE);
    struct str none = STR("");
    struct pair p;
    enum tls_cost cost;

    o.session = session;
    p = pair_new(server, &o);
    tls_max(p.server.tls, version);
    if (groups != NULL)
        assert_int_equal(SSL_set1_groups_list(p.server.tls->ssl, groups), 1);
    if (ask)
        SSL_set_verify(p.server.tls->ssl, SSL_VERIFY_PEER, NULL);
    assert_int_equal(tls_step_cost(p.server.tls, none), TLS_LONG);
    assert_int_equal(tls_step_cost(p.client.tls, none), TLS_HELLO);
    end_take(&p.client, 0);
    assert_int_equal(tls_step_cost(p.client.tls, none), session == NULL ? TLS_LONG : TLS_RESUMING);
    end_send(&p.client, &p.server, &none);
    hello_costs(p.server.tls, buf_str(&p.server.wire), session == NULL ? TLS_LONG : TLS_RESUMING);
    end_take(&p.server, 0);
    cost = tls_step_cost(p.server.tls, none);
    settle(&p);
    assert_talks(&p);
    assert_int_equal(facts_of(&p.server).resumed, session != NULL);
    assert_int_equal(tls_step_cost(p.server.tls, none), TLS_LONG);
    pair_done(&p);
    return cost;
}

/* It is brief where nothing but the client's Finished is to be heard. */
static void test_brief_steps(void **state)
{
    struct pair p = connected(server, TLS1_2_VERSION, NULL);
    struct tls_session *session = tls_take_session(p.client.tls);

    (void)state;
    assert_int_equal(cost_behind_first(TLS1_3_VERSION, NULL, NULL, false), TLS_BRIEF);
    assert_int_equal(cost_behind_first(TLS1_2_VERSION, session, NULL, false), TLS_BRIEF);
    /* A secret is to come; a certificate is; the client's hello is, for another group. */
    assert_int_equal(cost_behind_first(TLS1_2_VERSION, NULL, NULL, false), TLS_LONG);
    assert_int_equal(cost_behind_first(TLS1_3_VERSION, NULL, NULL, true), TLS_LONG);
    assert_int_equal(cost_behind_first(TLS1_3_VERSION, NULL, "P-384", false), TLS_LONG);
    tls_session_free(session);
    pair_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bindings),
        cmocka_unit_test(test_no_extended_secret),
        cmocka_unit_test(test_brief_steps),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

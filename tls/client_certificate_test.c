/* Certificates of clients: what a server learns of them, and that no session outlives the look. */
#include <errno.h>
#include <openssl/err.h>

#include "tls/tls_test.h"

static struct tls_authorities *vouching;

static int setup_all(void **state)
{
    struct buf error = {0};

    if (setup(state) != 0)
        return -1;
    return tls_authorities_load(&vouching, authority.chain_file, NULL, &error);
}

static int teardown_all(void **state)
{
    tls_authorities_unref(vouching);
    return teardown(state);
}

/* A handshake, with a client that has the certificate or NULL; server asks or not. */
static struct pair shaken(struct tls_certificate *own, struct tls_authorities *by, bool ask,
                          int version, struct tls_session *session)
{
    struct tls_connect_options o = wanted(TLS_VERIFY_REQUIRE);
    struct tls_accept_options a = {.scope = STR("25"), .ask = ask, .authorities = by};
    struct pair p = {.client = {.step = TLS_WANTS}, .server = {.step = TLS_WANTS}};

    o.certificate = own;
    o.session = session;
    p.client.tls = tls_connect(client, &o);
    p.server.tls = tls_accept(server, &a);
    assert_true(p.client.tls != NULL && p.server.tls != NULL);
    tls_max(p.server.tls, version);
    settle(&p);
    assert_talks(&p);
    return p;
}

struct wanted_names {
    bool verified;
    size_t len;
    const char *names; /* one behind the other, with ',' between */
};

static void assert_shown(const struct made *m, struct tls_authorities *by,
                         const struct wanted_names *w)
{
    struct tls_certificate *own = load(m);
    struct tls_certificate_facts of;

    tls_certificate_facts(own, &of);
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct pair p = shaken(own, by, true, versions[i].version, NULL);
        uint8_t digest[EVP_MAX_MD_SIZE];
        unsigned int len = 0;
        char hex[TLS_FINGERPRINT_BYTES];
        struct tls_shown shown;

        assert_true(tls_shown(p.server.tls, &shown));
        assert_int_equal(X509_digest(m->x509, EVP_sha256(), digest, &len), 1);
        for (unsigned int j = 0; j < len; j++)
            snprintf(hex + 2 * j, 3, "%02x", digest[j]);
        assert_string_equal(shown.fingerprint, hex);
        assert_int_equal(strlen(shown.key_fingerprint), 64);
        assert_string_not_equal(shown.key_fingerprint, shown.fingerprint);
        assert_int_equal(shown.verified, w->verified);
        assert_int_equal(shown.names_len, w->len);
        for (size_t j = 0; j < shown.names.len; j++)
            if (shown.names.data[j] == '\0')
                shown.names.data[j] = j + 1 < shown.names.len ? ',' : '\0';
        if (w->len > 0)
            assert_string_equal((char *)shown.names.data, w->names);
        assert_string_equal(facts_of(&p.client).own, of.names);
        buf_done(&shown.names);
        pair_done(&p);
    }
    tls_certificate_unref(own);
}

static void test_shown(void **state)
{
    const struct {
        struct make make;
        bool by_nobody;
        struct wanted_names wanted;
    } cases[] = {
        {{.file = "c1",
          .names = "DNS:App.Shop.example,email:Ops@shop.example,DNS:b.example",
          .common_name = "ignored",
          .issuer = &authority},
         .wanted = {true, 3, "app.shop.example,ops@shop.example,b.example"}},
        {{.file = "c2", .common_name = "Shop-1", .issuer = &authority},
         .wanted = {true, 1, "shop-1"}},
        /* Names that stand for many, or could end a line of a log, are none. */
        {{.file = "c3", .names = "DNS:*.shop.example,DNS:c.example", .issuer = &authority},
         .wanted = {true, 1, "c.example"}},
        {{.file = "c4", .common_name = "two words", .issuer = &authority},
         .wanted = {true, 0, NULL}},
        /* Nobody vouches for these: by their fingerprints alone. */
        {{.file = "c5", .names = "DNS:app.shop.example"}, .wanted = {false, 0, NULL}},
        {{.file = "c6",
          .names = "DNS:app.shop.example",
          .from_days = -9,
          .until_days = -1,
          .issuer = &authority},
         .wanted = {false, 0, NULL}},
        {{.file = "c7", .names = "DNS:app.shop.example", .issuer = &authority},
         .by_nobody = true,
         .wanted = {false, 0, NULL}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct made m = make(cases[i].make);

        assert_shown(&m, cases[i].by_nobody ? NULL : vouching, &cases[i].wanted);
        unmake(&m);
    }
}

/* Who has none, or is not asked, shows none. */
static void test_none(void **state)
{
    struct tls_shown shown;

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(versions); i++) {
        bool ask = i % 2 == 0;
        struct pair p =
            shaken(ask ? NULL : certificate, vouching, ask, versions[i / 2].version, NULL);

        assert_false(tls_shown(p.server.tls, &shown));
        assert_int_equal(shown.names.len, 0);
        assert_null(facts_of(&p.client).own);
        pair_done(&p);
    }
}

/* A session of where nobody asked is none where somebody asks, and there no session is given. */
static void test_resumes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct pair p = shaken(certificate, NULL, false, versions[i].version, NULL);
        struct tls_session *session = tls_take_session(p.client.tls);
        struct tls_shown shown;

        assert_non_null(session);
        pair_done(&p);
        p = shaken(certificate, vouching, false, versions[i].version, session);
        assert_true(facts_of(&p.server).resumed);
        pair_done(&p);
        for (int round = 0; round < 2; round++) {
            p = shaken(certificate, vouching, true, versions[i].version, session);
            assert_false(facts_of(&p.server).resumed);
            assert_true(tls_shown(p.server.tls, &shown));
            buf_done(&shown.names);
            if (round == 0) {
                struct tls_session *given = tls_take_session(p.client.tls);

                /* TLS 1.2 may give one without a ticket, which the server does not know. */
                if (given != NULL) {
                    tls_session_free(session);
                    session = given;
                }
            }
            pair_done(&p);
        }
        tls_session_free(session);
    }
}

/* Writes the list of what issuer took back: taken, or nothing. */
static void write_list(const char *file, const struct made *issuer, const struct made *taken,
                       int until_days)
{
    X509_CRL *crl = X509_CRL_new();
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -90L * 86400);
    ASN1_TIME *until = X509_gmtime_adj(NULL, until_days * 86400L);
    FILE *f = fopen(file, "a");

    assert_true(crl != NULL && entry != NULL && from != NULL && until != NULL && f != NULL);
    assert_int_equal(X509_CRL_set_version(crl, X509_CRL_VERSION_2), 1);
    assert_int_equal(X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->x509)), 1);
    assert_int_equal(X509_CRL_set1_lastUpdate(crl, from), 1);
    assert_int_equal(X509_CRL_set1_nextUpdate(crl, until), 1);
    if (taken != NULL) {
        X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(taken->x509));
        X509_REVOKED_set_revocationDate(entry, from);
        assert_int_equal(X509_CRL_add0_revoked(crl, entry), 1);
    } else {
        X509_REVOKED_free(entry);
    }
    assert_true(X509_CRL_sort(crl) == 1 && X509_CRL_sign(crl, issuer->key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509_CRL(f, crl), 1);
    fclose(f);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    X509_CRL_free(crl);
}

static void assert_revoked(const struct made *m, const char *list, bool verified, bool revoked)
{
    struct tls_authorities *by = NULL;
    struct tls_certificate *own = load(m);
    struct tls_shown shown;
    struct buf error = {0};
    struct pair p;

    assert_int_equal(tls_authorities_load(&by, authority.chain_file, list, &error), 0);
    p = shaken(own, by, true, TLS1_3_VERSION, NULL);
    assert_true(tls_shown(p.server.tls, &shown));
    assert_int_equal(shown.verified, verified);
    assert_int_equal(shown.revoked, revoked);
    if (revoked)
        assert_string_equal(shown.verify, "certificate revoked");
    assert_int_equal(shown.names.len > 0, verified);
    buf_done(&shown.names);
    pair_done(&p);
    tls_certificate_unref(own);
    tls_authorities_unref(by);
}

/* What was taken back stays so where nobody can say that it was ever good: the list is too old, or
 * the client leaves out who is between. Others are not touched. */
static void test_revoked(void **state)
{
    struct made between =
        make((struct make){.file = "between", .authority = true, .issuer = &authority});
    struct made taken =
        make((struct make){.file = "r1", .names = "DNS:r1.example", .issuer = &authority});
    struct made other =
        make((struct make){.file = "r2", .names = "DNS:r2.example", .issuer = &authority});
    struct made below =
        make((struct make){.file = "r3", .names = "DNS:r3.example", .issuer = &between});
    struct made beside =
        make((struct make){.file = "r4", .names = "DNS:r4.example", .issuer = &between});
    char fresh[64], old[64];

    (void)state;
    snprintf(fresh, sizeof(fresh), "%s/fresh.crl", dir);
    snprintf(old, sizeof(old), "%s/old.crl", dir);
    write_list(fresh, &authority, &taken, 30);
    write_list(fresh, &between, &below, 30);
    write_list(old, &authority, &taken, -1);
    assert_revoked(&taken, fresh, false, true);
    assert_revoked(&other, fresh, true, false);
    assert_revoked(&taken, old, false, true);
    assert_revoked(&other, old, false, false);
    assert_revoked(&below, fresh, false, true);
    assert_revoked(&beside, fresh, false, false);
    assert_revoked(&taken, NULL, true, false);
    unmake(&between);
    unmake(&taken);
    unmake(&other);
    unmake(&below);
    unmake(&beside);
}

static void test_files(void **state)
{
    struct tls_authorities *a = NULL;
    struct buf error = {0};

    (void)state;
    assert_int_equal(tls_authorities_load(&a, leaf.key_file, NULL, &error), -EINVAL);
    assert_int_equal(tls_authorities_load(&a, "/nonexistent.pem", NULL, &error), -EINVAL);
    assert_null(a);
    buf_putc(&error, '\0');
    assert_non_null(strstr((char *)error.data, "/nonexistent.pem: no certificates of authorities"));
    assert_int_equal(ERR_peek_error(), 0);
    buf_done(&error);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shown),           cmocka_unit_test(test_none),
        cmocka_unit_test(test_resumes_nothing), cmocka_unit_test(test_revoked),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, setup_all, teardown_all);
}

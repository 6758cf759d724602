/* TLSA records of each usage, selector and matching type against chains, good and bad. */
#include <sys/mman.h>

#include "tls/tls_test.h"

static struct made root, middle, mail, other; /* mail is issued by middle, and that by root */
static struct made expired, elsewhere, lone;  /* by middle, but lone */

static int setup_chains(void **state)
{
    int err = setup(state);

    root = make((struct make){.file = "root", .authority = true});
    middle = make((struct make){.file = "middle", .authority = true, .issuer = &root});
    mail = make((struct make){.file = "mail", .names = "DNS:mx.example", .issuer = &middle});
    other = make((struct make){.file = "other", .names = "DNS:mx.example", .authority = true});
    expired = make((struct make){.file = "expired",
                                 .names = "DNS:mx.example",
                                 .from_days = -20,
                                 .until_days = -10,
                                 .issuer = &middle});
    elsewhere =
        make((struct make){.file = "elsewhere", .names = "DNS:mx.else.example", .issuer = &middle});
    lone = make((struct make){.file = "lone", .names = "DNS:whatever.example"});
    return err;
}

static int teardown_chains(void **state)
{
    struct made *all[] = {&root, &middle, &mail, &other, &expired, &elsewhere, &lone};

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        unmake(all[i]);
    return teardown(state);
}

/* A server that shows m, and behind it so many of middle and root. */
static struct tls_server *serve(const struct made *m, int more)
{
    const struct made *issuers[] = {&middle, &root};
    struct made copy = *m;
    struct tls_certificate *c;
    struct tls_server *s = NULL;
    FILE *f;

    snprintf(copy.chain_file, sizeof(copy.chain_file), "%s/chain.crt", dir);
    f = fopen(copy.chain_file, "w");
    assert_true(f != NULL && PEM_write_X509(f, m->x509) == 1);
    for (int i = 0; i < more; i++)
        assert_int_equal(PEM_write_X509(f, issuers[i]->x509), 1);
    fclose(f);
    c = load(&copy);
    assert_int_equal(tls_server_new(&s, &c, 1, tickets), 0);
    tls_certificate_unref(c);
    return s;
}

struct record {
    uint8_t bytes[2048];
    size_t len;
};

#define RECORDS_MAX 4 /* of a server */

static struct str str_of_record(const struct record *r)
{
    return (struct str){(const char *)r->bytes, r->len};
}

/* The nth record with nothing behind its last byte that may be read: who does ends here. */
static struct str record_at_the_edge(const struct record *r, size_t n)
{
    static uint8_t *pages;
    const size_t page = 4096;
    uint8_t *end;

    if (pages == NULL) {
        pages = mmap(NULL, 2 * RECORDS_MAX * page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(pages, MAP_FAILED);
        for (size_t i = 0; i < RECORDS_MAX; i++)
            assert_int_equal(mprotect(pages + (2 * i + 1) * page, page, PROT_NONE), 0);
    }
    end = pages + (2 * n + 1) * page;
    memcpy(end - r->len, r->bytes, r->len);
    return (struct str){(const char *)end - r->len, r->len};
}

static struct record tlsa(int usage, int selector, int matching, const struct made *m)
{
    struct record r = {{(uint8_t)usage, (uint8_t)selector, (uint8_t)matching}, 3};
    unsigned char *der = NULL;
    unsigned hash_len = 0;
    int len = selector == 1 ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(m->x509), &der)
                            : i2d_X509(m->x509, &der);

    assert_true(len > 0 && (size_t)len + 3 <= sizeof(r.bytes));
    if (matching == 0) {
        memcpy(r.bytes + 3, der, (size_t)len);
        r.len += (size_t)len;
    } else {
        assert_int_equal(EVP_Digest(der, (size_t)len, r.bytes + 3, &hash_len,
                                    matching == 1 ? EVP_sha256() : EVP_sha512(), NULL),
                         1);
        r.len += hash_len;
    }
    OPENSSL_free(der);
    return r;
}

static const char *const names[] = {"mx.example", "alias.example"};

static struct tls_connect_options by(const struct str *records, size_t len)
{
    return (struct tls_connect_options){.server_name = names[0],
                                        .names = names,
                                        .names_len = ARRAY_LEN(names),
                                        .verify = TLS_VERIFY_DANE,
                                        .tlsa = records,
                                        .tlsa_len = len};
}

enum end_of { VERIFIED, REFUSED, UNCHECKED };

static void expect_of(struct tls_server *s, const struct record *records, size_t len,
                      enum end_of want)
{
    struct str list[RECORDS_MAX] = {{NULL, 0}};
    struct tls_connect_options o = by(list, len);
    struct tls_facts f;
    struct pair p;

    assert_true(len <= ARRAY_LEN(list));
    for (size_t i = 0; i < len; i++)
        list[i] = record_at_the_edge(&records[i], i);
    p = pair_new(s, &o);
    settle(&p);
    f = facts_of(&p.client);
    if (want == REFUSED) {
        assert_int_equal(p.client.step, TLS_FAILED);
        assert_ptr_equal(strstr(tls_error(p.client.tls), "certificate verify failed: "),
                         tls_error(p.client.tls));
    } else {
        assert_talks(&p);
        assert_int_equal(f.verdict, want == VERIFIED ? TLS_VERIFIED : TLS_UNCHECKED);
        assert_string_equal(f.verify, want == VERIFIED ? "verified"
                                                       : "not checked: no TLSA record is usable");
        assert_string_equal(f.server_name, "mx.example");
    }
    pair_done(&p);
}

/* One record, against a server made for it. */
static void expect(const struct made *shown, int more, struct record r, enum end_of want)
{
    struct tls_server *s = serve(shown, more);

    expect_of(s, &r, 1, want);
    tls_server_unref(s);
}

/* DANE-EE: the certificate or its key, whoever issued it, whatever its name and its dates. */
static void test_of_the_server(void **state)
{
    (void)state;
    for (int selector = 0; selector < 2; selector++) {
        for (int matching = 0; matching < 3; matching++) {
            expect(&mail, 1, tlsa(3, selector, matching, &mail), VERIFIED);
            expect(&mail, 0, tlsa(3, selector, matching, &mail), VERIFIED);
            expect(&lone, 0, tlsa(3, selector, matching, &lone), VERIFIED);
            expect(&expired, 1, tlsa(3, selector, matching, &expired), VERIFIED);
            expect(&mail, 1, tlsa(3, selector, matching, &other), REFUSED);
            /* Not an authority's record, although the authority issued it. */
            expect(&mail, 2, tlsa(3, selector, matching, &middle), REFUSED);
        }
    }
}

/* DANE-TA: an authority in what the server shows, or in the record itself; names and dates count.
 */
static void test_of_an_authority(void **state)
{
    (void)state;
    for (int selector = 0; selector < 2; selector++) {
        for (int matching = 0; matching < 3; matching++) {
            expect(&mail, 2, tlsa(2, selector, matching, &root), VERIFIED);
            expect(&mail, 1, tlsa(2, selector, matching, &middle), VERIFIED);
            /* An authority that is not shown can be known from its whole record only. */
            expect(&mail, 1, tlsa(2, selector, matching, &root),
                   matching == 0 ? VERIFIED : REFUSED);
            expect(&mail, 2, tlsa(2, selector, matching, &other), REFUSED);
            expect(&expired, 2, tlsa(2, selector, matching, &root), REFUSED);
            expect(&elsewhere, 2, tlsa(2, selector, matching, &root), REFUSED);
            expect(&lone, 0, tlsa(2, selector, matching, &root), REFUSED);
        }
    }
}

/* A certificate may bear the second name, as an alias has. */
static void test_second_name(void **state)
{
    struct made alias =
        make((struct make){.file = "alias", .names = "DNS:alias.example", .issuer = &middle});

    (void)state;
    expect(&alias, 2, tlsa(2, 0, 1, &root), VERIFIED);
    unmake(&alias);
}

/* Authorities that the client trusts otherwise do not count. */
static void test_other_authorities(void **state)
{
    (void)state;
    expect(&leaf, 0, tlsa(3, 1, 1, &other), REFUSED);
    expect(&leaf, 0, tlsa(2, 0, 1, &root), REFUSED);
}

static struct record cut_to(struct record r, size_t len)
{
    r.len = len;
    return r;
}

static struct record with(struct record r, size_t at, uint8_t byte)
{
    r.bytes[at] = byte;
    return r;
}

/* Encryption without a word about the certificate, where no record can be used; one that can
 * decides alone. */
static void test_unusable(void **state)
{
    struct record good = tlsa(3, 1, 1, &mail), wrong = tlsa(3, 1, 1, &other);
    struct record unusable[] = {
        cut_to(good, 0),
        cut_to(good, 1),
        cut_to(good, 2),
        cut_to(good, 3),
        cut_to(tlsa(3, 0, 0, &mail), 3),
        cut_to(good, 4),
        cut_to(good, 34),
        cut_to(tlsa(3, 0, 2, &mail), 66),
        cut_to(tlsa(3, 0, 0, &mail), 100),
        cut_to(tlsa(2, 1, 0, &root), 40),
        with(good, 0, 0), /* PKIX-TA, PKIX-EE, unknown, private */
        with(good, 0, 1),
        with(good, 0, 4),
        with(good, 0, 255),
        with(good, 1, 2),
        with(good, 1, 255),
        with(good, 2, 3),
        with(good, 2, 255),
    };
    struct tls_server *s = serve(&mail, 1);

    (void)state;
    expect_of(s, NULL, 0, UNCHECKED);
    for (size_t i = 0; i < ARRAY_LEN(unusable); i++) {
        expect_of(s, &unusable[i], 1, UNCHECKED);
        expect_of(s, (struct record[]){unusable[i], good}, 2, VERIFIED);
        expect_of(s, (struct record[]){wrong, unusable[i]}, 2, REFUSED);
    }
    expect_of(s, unusable, 4, UNCHECKED);
    tls_server_unref(s);
}

/* One of several is enough: keys change. */
static void test_several(void **state)
{
    struct tls_server *s = serve(&mail, 2);
    struct record wrong = tlsa(3, 1, 1, &other);

    (void)state;
    expect_of(s, (struct record[]){wrong, tlsa(3, 1, 1, &mail)}, 2, VERIFIED);
    expect_of(s, (struct record[]){wrong, tlsa(2, 0, 1, &root)}, 2, VERIFIED);
    expect_of(s, (struct record[]){wrong, tlsa(3, 0, 2, &other), tlsa(2, 1, 1, &other)}, 3,
              REFUSED);
    tls_server_unref(s);
}

static struct pair connect_with(struct tls_server *s, const struct str *records, size_t len,
                                struct tls_session *session, int version)
{
    struct tls_connect_options o = by(records, len);
    struct pair p;

    o.session = session;
    p = pair_new(s, &o);
    tls_max(p.server.tls, version);
    settle(&p);
    return p;
}

static struct tls_session *session_of(struct pair *p)
{
    struct tls_session *session;

    assert_talks(p);
    session = tls_take_session(p->client.tls);
    assert_non_null(session);
    pair_done(p);
    return session;
}

/* A session is resumed by who has the same records, and by nobody else. */
static void test_sessions(void **state)
{
    const struct record good[] = {tlsa(3, 1, 1, &lone), tlsa(3, 0, 1, &lone)};
    const struct str first = str_of_record(&good[0]), second = str_of_record(&good[1]);
    struct tls_server *s = serve(&lone, 0);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct pair p = connect_with(s, &first, 1, NULL, versions[i].version);
        struct tls_session *session = session_of(&p);
        struct tls_connect_options o = wanted(TLS_VERIFY_NONE);

        p = connect_with(s, &first, 1, session, versions[i].version);
        assert_talks(&p);
        assert_true(facts_of(&p.client).resumed);
        assert_int_equal(facts_of(&p.client).verdict, TLS_VERIFIED);
        pair_done(&p);
        p = connect_with(s, &second, 1, session, versions[i].version);
        assert_int_equal(p.client.step, TLS_FAILED);
        pair_done(&p);
        tls_session_free(session);

        p = pair_new(s, &o);
        tls_max(p.server.tls, versions[i].version);
        settle(&p);
        session = session_of(&p);
        p = connect_with(s, &first, 1, session, versions[i].version);
        assert_int_equal(p.client.step, TLS_FAILED);
        pair_done(&p);
        tls_session_free(session);
    }
    tls_server_unref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_the_server), cmocka_unit_test(test_of_an_authority),
        cmocka_unit_test(test_second_name),   cmocka_unit_test(test_other_authorities),
        cmocka_unit_test(test_unusable),      cmocka_unit_test(test_several),
        cmocka_unit_test(test_sessions),
    };

    return cmocka_run_group_tests(tests, setup_chains, teardown_chains);
}

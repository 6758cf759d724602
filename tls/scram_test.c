/* SCRAM-SHA-256 and CRAM-MD5: the RFCs' examples byte for byte, both sides against each other, and
 * messages that are none. */
#include "tls/scram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

/* RFC 7677 3. */
#define USER         "user"
#define PASSWORD     "pencil"
#define CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define SERVER_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define FIRST        "n,,n=user,r=" CLIENT_NONCE
#define CHALLENGE    "r=" CLIENT_NONCE SERVER_NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define PROOF                                                                                      \
    "c=biws,r=" CLIENT_NONCE SERVER_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define FINAL "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
#define KEYS                                                                                       \
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"   \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static const struct scram_offer no_offer;

static void assert_text(struct buf *got, const char *want)
{
    buf_putc(got, '\0');
    assert_string_equal((char *)got->data, want);
    buf_clear(got);
}

static struct password_scram keys_of(const char *text)
{
    struct password_scram keys;

    assert_true(password_scram_parse(str_of(text), &keys));
    return keys;
}

static void test_client_of_rfc(void **state)
{
    struct scram_client c;
    struct buf out = {0};
    const char *why;

    (void)state;
    scram_client_begin(&c, USER, CLIENT_NONCE, SCRAM_UNBOUND, NULL, &out);
    assert_text(&out, FIRST);
    assert_int_equal(scram_client_answer(&c, PASSWORD, STR(CHALLENGE), &out, &why), 0);
    assert_text(&out, PROOF);
    assert_true(scram_client_end(&c, STR(FINAL)));
    assert_false(scram_client_end(&c, STR("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8=")));
    assert_false(scram_client_end(&c, STR("e=invalid-proof")));
    assert_false(scram_client_end(&c, STR("v=")));
    assert_false(scram_client_end(&c, STR("")));
    scram_client_done(&c);
    buf_done(&out);
}

static void test_server_of_rfc(void **state)
{
    struct password_scram keys = keys_of(KEYS);
    struct scram_server s;
    struct buf out = {0};

    (void)state;
    assert_true(scram_keys_check(&keys, PASSWORD));
    assert_false(scram_keys_check(&keys, "pencil "));
    assert_int_equal(scram_server_begin(&s, STR(FIRST), &no_offer), 0);
    assert_string_equal(s.user, USER);
    assert_string_equal(s.authzid, "");
    scram_server_challenge(&s, &keys, SERVER_NONCE, &out);
    assert_text(&out, CHALLENGE);
    assert_true(scram_server_end(&s, STR(PROOF), &out));
    assert_text(&out, FINAL);
    scram_server_done(&s);
    buf_done(&out);
}

/* Both sides, with a client's proof changed on the way; ends: what the client and the server find
 * that the login is bound to. False: refused. */
static bool exchange_over(const struct tls_binding ends[2], enum scram_client_binds binds,
                          const char *user, const char *password, const struct password_scram *keys,
                          const char *extra)
{
    struct scram_offer offer = {
        .plus = binds == SCRAM_BOUND, .bindings = {ends[1]}, .len = binds == SCRAM_BOUND};
    struct buf first = {0}, challenge = {0}, proof = {0}, final = {0};
    char nonce[SCRAM_NONCE_CHARS + 1];
    struct scram_client c;
    struct scram_server s;
    const char *why = NULL;
    bool good;

    scram_nonce(nonce);
    scram_client_begin(&c, user, nonce, binds, binds == SCRAM_BOUND ? &ends[0] : NULL, &first);
    assert_int_equal(scram_server_begin(&s, buf_str(&first), &offer), 0);
    assert_string_equal(s.user, user);
    scram_nonce(nonce);
    scram_server_challenge(&s, keys, nonce, &challenge);
    assert_int_equal(scram_client_answer(&c, password, buf_str(&challenge), &proof, &why), 0);
    buf_puts(&proof, extra);
    good = scram_server_end(&s, buf_str(&proof), &final);
    assert_int_equal(scram_client_end(&c, buf_str(&final)), good);
    scram_client_done(&c);
    scram_server_done(&s);
    buf_done(&first);
    buf_done(&challenge);
    buf_done(&proof);
    buf_done(&final);
    return good;
}

static bool exchange(const char *user, const char *password, const struct password_scram *keys,
                     const char *extra)
{
    static const struct tls_binding none[2];

    return exchange_over(none, SCRAM_UNBOUND, user, password, keys, extra) &&
           exchange_over(none, SCRAM_WOULD_BIND, user, password, keys, extra);
}

/* A login is good where both ends are of one connection. */
static void test_bound(void **state)
{
    struct tls_binding ends[2] = {{"tls-exporter", {1, 2, 0, 4}, 32},
                                  {"tls-exporter", {1, 2, 0, 4}, 32}};
    struct password_scram keys = keys_of(KEYS);

    (void)state;
    assert_true(exchange_over(ends, SCRAM_BOUND, USER, PASSWORD, &keys, ""));
    assert_false(exchange_over(ends, SCRAM_BOUND, USER, "pencil ", &keys, ""));
    ends[1].bytes[31] = 1; /* somebody has a connection with each of them */
    assert_false(exchange_over(ends, SCRAM_BOUND, USER, PASSWORD, &keys, ""));
    ends[0].bytes[31] = 1;
    assert_true(exchange_over(ends, SCRAM_BOUND, USER, PASSWORD, &keys, ""));
    ends[0].len = 31;
    assert_false(exchange_over(ends, SCRAM_BOUND, USER, PASSWORD, &keys, ""));
}

/* What a client says of bindings, to who offers some and to who does not (RFC 5802 6). */
static void test_flags(void **state)
{
    static const struct {
        const char *flag;
        bool plus, offered;
        int result;
    } rows[] = {
        {"n", false, false, 0},
        {"y", false, false, 0},
        {"n", false, true, 0},
        {"y", false, true, -EPERM}, /* it was told that there is none */
        {"p=tls-exporter", false, true, -EINVAL},
        {"p=tls-exporter", true, true, 0},
        {"p=tls-server-end-point", true, true, 0},
        {"p=tls-unique", true, true, -EINVAL},
        {"p=tls-exporte", true, true, -EINVAL},
        {"p=tls-exporter", true, false, -EINVAL},
        {"p=", true, true, -EINVAL},
        {"p", true, true, -EINVAL},
        {"n", true, true, -EINVAL},
        {"y", true, true, -EINVAL},
        {"", true, true, -EINVAL},
        {"", false, true, -EINVAL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scram_offer offer = {
            .plus = rows[i].plus,
            .bindings = {{"tls-exporter", {1}, 32}, {"tls-server-end-point", {2}, 32}},
            .len = rows[i].offered ? 2 : 0};
        struct scram_server s;
        char text[64];

        snprintf(text, sizeof(text), "%s,,n=u,r=x", rows[i].flag);
        if (scram_server_begin(&s, str_of(text), &offer) != rows[i].result)
            fail_msg("%zu: %s", i, text);
        scram_server_done(&s);
    }
}

static void test_both(void **state)
{
    struct buf text = {0};
    struct password_scram keys, nobody, again, other;

    (void)state;
    scram_keys_make(&text, "a b,c=d");
    buf_putc(&text, '\0');
    keys = keys_of((char *)text.data);
    assert_int_equal(keys.iterations, SCRAM_ITERATIONS_MAKE);
    assert_true(scram_keys_check(&keys, "a b,c=d"));
    assert_true(exchange("shop", "a b,c=d", &keys, ""));
    assert_true(exchange("sh=,op@example.com", "a b,c=d", &keys, ""));
    assert_false(exchange("shop", "a b,c=e", &keys, ""));
    assert_false(exchange("shop", "a b,c=d", &keys, "A"));
    buf_done(&text);
    /* Nobody's keys: the same salt for a name, another for another, and nobody has the password. */
    scram_keys_nobody(&nobody, &keys, STR("root"));
    scram_keys_nobody(&again, &keys, STR("root"));
    scram_keys_nobody(&other, &keys, STR("toor"));
    assert_int_equal(nobody.iterations, keys.iterations);
    assert_int_equal(nobody.salt_len, keys.salt_len);
    assert_memory_equal(nobody.salt, again.salt, nobody.salt_len);
    assert_memory_not_equal(nobody.salt, other.salt, nobody.salt_len);
    assert_memory_not_equal(nobody.salt, keys.salt, nobody.salt_len);
    assert_false(exchange("root", "a b,c=d", &nobody, ""));
}

static void test_first_messages(void **state)
{
    static const struct {
        const char *text, *user, *authzid; /* user NULL: it is none */
    } rows[] = {
        {"n,,n=u,r=x", "u", ""},
        {"y,,n=u,r=x", "u", ""},
        {"n,a=v,n=u,r=x", "u", "v"},
        {"n,a=a=2Cb,n=c=3Dd,r=x,ext=1", "c=d", "a,b"},
        {"p=tls-exporter,,n=u,r=x", NULL, NULL},
        {"n,,m=must,n=u,r=x", NULL, NULL},
        {"n,,n=,r=x", NULL, NULL},
        {"n,,n=u,r=", NULL, NULL},
        {"n,,n=u", NULL, NULL},
        {"n,,r=x,n=u", NULL, NULL},
        {"n,,n=u=,r=x", NULL, NULL},
        {"n,,n=u=2,r=x", NULL, NULL},
        {"n,,n=u=2c,r=x", NULL, NULL},
        {"n,b=v,n=u,r=x", NULL, NULL},
        {"n,a=,n=u,r=x", NULL, NULL},
        {"n=u,r=x", NULL, NULL},
        {"n,n=u,r=x", NULL, NULL},
        {"n,,n=u,r=x y", NULL, NULL},
        {",,n=u,r=x", NULL, NULL},
        {"", NULL, NULL},
        {",", NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scram_server s;
        int err = scram_server_begin(&s, str_of(rows[i].text), &no_offer);

        if ((err == 0) != (rows[i].user != NULL))
            fail_msg("%s: %d", rows[i].text, err);
        if (err == 0) {
            assert_string_equal(s.user, rows[i].user);
            assert_string_equal(s.authzid, rows[i].authzid);
        }
        scram_server_done(&s);
    }
    assert_int_equal(scram_server_begin(&(struct scram_server){.nonce_at = 0},
                                        (struct str){"n,,n=u\0v,r=x", 12}, &no_offer),
                     -EINVAL);
}

static void test_proofs(void **state)
{
    static const char *const rows[] = {
        "c=biws,r=" CLIENT_NONCE SERVER_NONCE,
        "c=biws,r=" CLIENT_NONCE SERVER_NONCE ",p=",
        "c=biws,r=" CLIENT_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "c=eSws,r=" CLIENT_NONCE SERVER_NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "r=" CLIENT_NONCE SERVER_NONCE ",c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "c=biws,r=" CLIENT_NONCE SERVER_NONCE ",x=1,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        ",,,",
        "c=biws",
        "",
    };
    struct password_scram keys = keys_of(KEYS);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scram_server s;
        struct buf out = {0};

        assert_int_equal(scram_server_begin(&s, STR(FIRST), &no_offer), 0);
        scram_server_challenge(&s, &keys, SERVER_NONCE, &out);
        if (scram_server_end(&s, str_of(rows[i]), &out))
            fail_msg("%s", rows[i]);
        scram_server_done(&s);
        buf_done(&out);
    }
}

/* Somebody on the way makes the client believe that we offer no binding to the channel, or changes
 * what it says of that: its proof is right and speaks of another beginning. */
static void test_binding_changed(void **state)
{
    struct password_scram keys = keys_of(KEYS);
    struct scram_server s;
    struct buf out = {0};

    (void)state;
    assert_int_equal(scram_server_begin(&s, STR("y,,n=user,r=" CLIENT_NONCE), &no_offer), 0);
    scram_server_challenge(&s, &keys, SERVER_NONCE, &out);
    assert_text(&out, CHALLENGE);
    assert_false(scram_server_end(&s, STR(PROOF), &out));
    scram_server_done(&s);
    buf_done(&out);
}

static void test_challenges(void **state)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "is none"},
        {"r=" CLIENT_NONCE "x", "is none"},
        {"r=" CLIENT_NONCE "x,s=W22Z,i=", "is none"},
        {"r=" CLIENT_NONCE "x,s=W22Z,i=4096x", "is none"},
        {"r=" CLIENT_NONCE "x,s=,i=4096", "is none"},
        {"r=" CLIENT_NONCE "x,s=W2,i=4096", "is none"},
        {"r=" CLIENT_NONCE " x,s=W22Z,i=4096", "is none"},
        {"m=1,r=" CLIENT_NONCE "x,s=W22Z,i=4096", "is none"},
        {"r=" CLIENT_NONCE ",s=W22Z,i=4096", "somebody else"},
        {"r=x" CLIENT_NONCE ",s=W22Z,i=4096", "somebody else"},
        {"r=" CLIENT_NONCE "x,s=W22Z,i=4095", "iterations"},
        {"r=" CLIENT_NONCE "x,s=W22Z,i=1", "iterations"},
        {"r=" CLIENT_NONCE "x,s=W22Z,i=1000001", "iterations"},
        {"r=" CLIENT_NONCE "x,s=W22Z,i=18446744073709551615", "iterations"},
        {"r=" CLIENT_NONCE "x,s=W22Z,i=18446744073709551616", "is none"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scram_client c;
        struct buf out = {0};
        const char *why = NULL;

        scram_client_begin(&c, USER, CLIENT_NONCE, SCRAM_UNBOUND, NULL, &out);
        if (scram_client_answer(&c, PASSWORD, str_of(rows[i].text), &out, &why) != -EINVAL)
            fail_msg("%s", rows[i].text);
        if (strstr(why, rows[i].why) == NULL)
            fail_msg("%s: %s", rows[i].text, why);
        assert_false(scram_client_end(&c, STR("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")));
        scram_client_done(&c);
        buf_done(&out);
    }
}

static void test_cram(void **state)
{
    struct buf out = {0};

    (void)state; /* RFC 2195 2 */
    assert_int_equal(cram_md5_answer("tim", "tanstaaftanstaaf",
                                     STR("<1896.697170952@postoffice.reston.mci.net>"), &out),
                     0);
    assert_text(&out, "tim b913a602c7eda7a495b4e6e7334d3890");
    buf_done(&out);
    assert_true(scram_password_suits("a ~"));
    assert_false(scram_password_suits("a\xc3\xa4") || scram_password_suits("a\tb"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_of_rfc),
        cmocka_unit_test(test_server_of_rfc),
        cmocka_unit_test(test_both),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_first_messages),
        cmocka_unit_test(test_proofs),
        cmocka_unit_test(test_challenges),
        cmocka_unit_test(test_binding_changed),
        cmocka_unit_test(test_cram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

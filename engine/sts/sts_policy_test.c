#include "sts/sts_policy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define A10 "aaaaaaaaaa"

static void test_records(void **state)
{
    static const struct {
        const char *text;
        int result;
        const char *id;
    } rows[] = {
        {"v=STSv1; id=20160831085700Z;", 0, "20160831085700Z"},
        {"v=STSv1;id=1", 0, "1"},
        {"v=STSv1 ; id=a ; ext=x:y", 0, "a"},
        {"v=STSv1; other=1; id=b; id=c", 0, "b"},
        {"v=STSv1; id=" A10 A10 A10 "aa", 0, A10 A10 A10 "aa"},
        {"v=STSv1; id=" A10 A10 A10 "aaa", -EBADMSG, NULL},
        {"", -ENOENT, NULL},
        {"v=spf1 -all", -ENOENT, NULL},
        {"v=STSv1", -ENOENT, NULL},
        {"v=STSv12; id=1", -ENOENT, NULL},
        {"v=stsv1; id=1", -ENOENT, NULL},
        {" v=STSv1; id=1", -ENOENT, NULL},
        {"v=STSv1;", -EBADMSG, NULL},
        {"v=STSv1;;id=1", -EBADMSG, NULL},
        {"v=STSv1; id=", -EBADMSG, NULL},
        {"v=STSv1; id=a-b", -EBADMSG, NULL},
        {"v=STSv1; id=a b", -EBADMSG, NULL},
        {"v=STSv1; id", -EBADMSG, NULL},
        {"v=STSv1; -x=1; id=1", -EBADMSG, NULL},
        {"v=STSv1; x=a=b; id=1", -EBADMSG, NULL},
        {"v=STSv1; ID=1", -EBADMSG, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char id[STS_ID_MAX + 1] = "";

        if (sts_record_parse(str_of(rows[i].text), id) != rows[i].result)
            fail_msg("%s", rows[i].text);
        if (rows[i].id != NULL)
            assert_string_equal(id, rows[i].id);
    }
    assert_int_equal(sts_record_parse(STR("v=STSv1; id=a\0b;"), (char[STS_ID_MAX + 1]){0}),
                     -EBADMSG);
    assert_int_equal(sts_record_parse((struct str){NULL, 0}, (char[STS_ID_MAX + 1]){0}), -ENOENT);
}

static struct sts_policy *parse(struct str body, const char **why)
{
    struct sts_policy *policy = NULL;

    if (sts_policy_parse(body, "1", 1000, &policy, why) < 0)
        assert_null(policy);
    return policy;
}

#define HEAD "version: STSv1\nmode: enforce\nmax_age: 60\n"

static void test_policies(void **state)
{
    static const struct {
        struct str body;
        const char *why; /* NULL: taken */
    } rows[] = {
        {STR("version: STSv1\r\nmode: testing\r\nmx: mail.example.com\r\nmax_age: 1296000\r\n"),
         NULL},
        {STR(HEAD "mx: a.example"), NULL},
        {STR(HEAD "mx:a.example  \nmx:\t*.b.example\n"), NULL},
        {STR("max_age: 60\nmx: a.example\nmode: enforce\nversion: STSv1\n"), NULL},
        {STR(HEAD "mx: a.example\n\n\n"), NULL},
        {STR(HEAD "mx: a.example\nx.y_z-1: what \xe3\x81\x82\n"), NULL},
        {STR(HEAD "mx: a.example\nmode: rubbish\nversion: 2\nmax_age: x\n"), NULL},
        {STR("version: STSv1\nmode: none\nmax_age: 0\n"), NULL},
        {STR(HEAD "mx: \xe6\x97\xa5\xe6\x9c\xac.example\n"), NULL},
        {STR(""), "version"},
        {STR("mode: enforce\nmx: a.example\nmax_age: 60\n"), "version"},
        {STR("version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 60\n"), "version"},
        {STR("Version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 60\n"), "version"},
        {STR("version: STSv1\nmx: a.example\nmax_age: 60\n"), "mode"},
        {STR("version: STSv1\nmode: Enforce\nmx: a.example\nmax_age: 60\n"), "mode"},
        {STR("version: STSv1\nmode: enforce\nmx: a.example\n"), "max_age"},
        {STR("version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1\n"), "max_age"},
        {STR("version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 1e3\n"), "max_age"},
        {STR("version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 12345678901\n"), "max_age"},
        {STR(HEAD), "mx"},
        {STR(HEAD "mx: *\n"), "mx"},
        {STR(HEAD "mx: *.\n"), "mx"},
        {STR(HEAD "mx: *.*.example\n"), "mx"},
        {STR(HEAD "mx: a*.example\n"), "mx"},
        {STR(HEAD "mx: .a.example\n"), "mx"},
        {STR(HEAD "mx: a.example.\n"), "mx"},
        {STR(HEAD "mx: a..example\n"), "mx"},
        {STR(HEAD "mx: 192.0.2.1\n"), "mx"},
        {STR(HEAD "mx: a.example b.example\n"), "mx"},
        {STR(HEAD "mx: a.example\nnonsense\n"), "no field"},
        {STR(HEAD "mx: a.example\nx:\n"), "no field"},
        {STR(HEAD "mx: a.example\n: x\n"), "no field"},
        {STR(HEAD "mx : a.example\n"), "no field"},
        {STR(HEAD " mx: a.example\n"), "no field"},
        {STR(HEAD "mx: a.example\nx: a\rb\n"), "no field"},
        {STR(HEAD "mx: a.example\0.evil\n"), "no field"},
        {STR(HEAD "mx: a.example\n\0"), "no field"},
        {STR("<html><body>404</body></html>\n"), "no field"},
    };
    const char *why;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sts_policy *policy = parse(rows[i].body, &why);

        if ((policy != NULL) != (rows[i].why == NULL) || (policy == NULL) != (why != NULL) ||
            (why != NULL && strstr(why, rows[i].why) == NULL))
            fail_msg("%.*s: %s", STR_FMT(rows[i].body), why);
        sts_policy_unref(policy);
    }
}

static void test_values(void **state)
{
    const char *why;
    struct sts_policy *policy = parse(
        STR("version: STSv1\nmode: testing\nmax_age: 9999999999\nmx: A.Example\nmax_age: 1\n"),
        &why);

    (void)state;
    assert_int_equal(policy->mode, STS_TESTING);
    assert_int_equal(policy->max_age_s, STS_AGE_MAX_S);
    assert_int_equal(sts_policy_expires_ms(policy), 1000 + STS_AGE_MAX_S * 1000LL);
    assert_string_equal(policy->mx, "a.example");
    assert_int_equal(policy->mx_bytes, sizeof("a.example"));
    assert_string_equal(policy->id, "1");
    sts_policy_unref(policy);
    sts_policy_unref(NULL);
    assert_null(sts_policy_ref(NULL));
}

static void test_size(void **state)
{
    struct buf body = {0};
    struct sts_policy *policy;
    const char *why;

    (void)state;
    buf_puts(&body, HEAD "mx: a.example\n");
    while (body.len < STS_BODY_MAX)
        buf_putc(&body, '\n');
    policy = parse(buf_str(&body), &why);
    assert_non_null(policy);
    sts_policy_unref(policy);
    buf_putc(&body, '\n');
    assert_null(parse(buf_str(&body), &why));
    assert_non_null(strstr(why, "64 KiB"));
    buf_clear(&body);
    buf_puts(&body, HEAD);
    for (int i = 0; i < STS_MX_MAX; i++)
        buf_puts(&body, "mx: a.example\n");
    policy = parse(buf_str(&body), &why);
    assert_non_null(policy);
    sts_policy_unref(policy);
    buf_puts(&body, "mx: a.example\n");
    assert_null(parse(buf_str(&body), &why));
    assert_non_null(strstr(why, "too many"));
    buf_done(&body);
}

static void test_matching(void **state)
{
    static const struct {
        const char *host;
        bool matches;
    } rows[] = {
        {"mx.example.com", true},
        {"MX.Example.Com", true},
        {"a.example.net", true},
        {"xn--wgv71a.example.net", true},
        {"a.b.example.net", false},
        {"example.net", false},
        {".example.net", false},
        {"aexample.net", false},
        {"mx.example.com.evil.test", false},
        {"evil-mx.example.com", false},
        {"example.com", false},
        {"com", false},
        {"xn--wgv71a119e.example", true},
    };
    const char *why;
    struct sts_policy *policy =
        parse(STR(HEAD "mx: mx.example.com\nmx: *.example.net\n"
                       "mx: \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e.example\n"),
              &why);

    (void)state;
    assert_non_null(policy);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (sts_policy_matches(policy, rows[i].host) != rows[i].matches)
            fail_msg("%s", rows[i].host);
    sts_policy_unref(policy);
    policy = parse(STR("version: STSv1\nmode: none\nmax_age: 1\n"), &why);
    assert_false(sts_policy_matches(policy, "mx.example.com"));
    sts_policy_unref(policy);
}

static void test_same(void **state)
{
    const char *why;
    struct sts_policy *a = parse(STR(HEAD "mx: a.example\n"), &why);
    struct sts_policy *b =
        parse(STR("max_age: 9\nversion: STSv1\nmode: enforce\nmx: a.example\n"), &why);
    struct sts_policy *c = parse(STR(HEAD "mx: b.example\n"), &why);
    struct sts_policy *d =
        parse(STR("max_age: 9\nversion: STSv1\nmode: testing\nmx: a.example\n"), &why);

    (void)state;
    assert_true(sts_policy_same(a, b) && sts_policy_same(NULL, NULL));
    assert_false(sts_policy_same(a, c) || sts_policy_same(a, d) || sts_policy_same(a, NULL) ||
                 sts_policy_same(NULL, a));
    sts_policy_unref(a);
    sts_policy_unref(b);
    sts_policy_unref(c);
    sts_policy_unref(d);
}

static void test_stored(void **state)
{
    const char *why;
    struct sts_policy *policy = parse(STR(HEAD "mx: a.example\nmx: *.b.example\n"), &why), *back;
    struct buf bytes = {0};

    (void)state;
    sts_policy_encode(&bytes, policy);
    assert_int_equal(sts_policy_decode(buf_str(&bytes), &back), 0);
    assert_true(sts_policy_same(policy, back));
    assert_string_equal(back->id, "1");
    assert_int_equal(back->fetched_ms, 1000);
    assert_int_equal(back->max_age_s, 60);
    sts_policy_unref(back);
    /* What a later build knows more stands behind it; less is damage. */
    buf_puts(&bytes, "more");
    assert_int_equal(sts_policy_decode(buf_str(&bytes), &back), 0);
    sts_policy_unref(back);
    bytes.len -= 4;
    for (size_t len = 0; len < bytes.len; len++)
        assert_int_equal(sts_policy_decode((struct str){(char *)bytes.data, len}, &back), -EBADMSG);
    bytes.data[0]++;
    assert_int_equal(sts_policy_decode(buf_str(&bytes), &back), -EPROTO);
    bytes.data[0]--;
    bytes.data[bytes.len - 1] = 'x'; /* a pattern without its end */
    assert_int_equal(sts_policy_decode(buf_str(&bytes), &back), -EBADMSG);
    buf_done(&bytes);
    sts_policy_unref(policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),  cmocka_unit_test(test_policies),
        cmocka_unit_test(test_values),   cmocka_unit_test(test_size),
        cmocka_unit_test(test_matching), cmocka_unit_test(test_same),
        cmocka_unit_test(test_stored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

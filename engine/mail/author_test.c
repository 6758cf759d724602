/* Whose mail it is, in the ways that From fields are written. */
#include "mail/author.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"

static const struct {
    const char *value, *domain; /* NULL: none */
} rows[] = {
    {"a@example.com", "example.com"},
    {"<a@example.com>", "example.com"},
    {"A B <a@Example.COM>", "example.com"},
    {"\"x@y, <z@w>\" <a@example.com>", "example.com"},
    {"x@y.example <a@example.com>", "example.com"},
    {"(c@d.example) a@example.com (b@c)", "example.com"},
    {"a@(c)example.com", "example.com"},
    {"a @ example.com", "example.com"},
    {"\"a@b\"@example.com", "example.com"},
    {"\"a\\\"@b\"@example.com", "example.com"},
    {"<@r.example,@s.example:a@example.com>", "example.com"},
    {"one@first.example, two@second.example", "first.example"},
    {"\"nobody\", two@second.example", "second.example"},
    {"friends: one@first.example, two@second.example;", "first.example"},
    {"friends:;", NULL},
    {"A\r\n\t<a@example.com>", "example.com"},
    {"=?utf-8?Q?a=40b@c?= <a@example.com>", "example.com"},
    {"a@例え.example", "xn--r8jz45g.example"},
    {"a@[192.0.2.1]", NULL},
    {"a@[IPv6:2001:db8::1]", NULL},
    {"postmaster", NULL},
    {"", NULL},
    {"a@", NULL},
    {"a@ ", NULL},
    {"<a@example.com", "example.com"},
    {"\"never ends <a@example.com>", NULL},
    {"(never ends a@example.com", NULL},
    {"a@.example", NULL},
    {"a@ex ample.com", "ex"},
};

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct dns_name name = {.len = 0};
        bool found = author_domain_of(str_of(rows[i].value), &name);

        if (found != (rows[i].domain != NULL))
            fail_msg("%s: %s", rows[i].value, found ? name.text : "none");
        if (found)
            assert_string_equal(name.text, rows[i].domain);
    }
}

static bool of_message(const char *text, struct dns_name *name)
{
    return author_domain((const uint8_t *)text, strlen(text), name);
}

static void test_messages(void **state)
{
    struct dns_name name;

    (void)state;
    assert_true(of_message("To: x@y.example\r\nfrom : a@example.com\r\n\r\n", &name));
    assert_string_equal(name.text, "example.com");
    assert_true(
        of_message("From: nobody\r\nFrom: a@one.example\r\nFrom: b@two.example\r\n", &name));
    assert_string_equal(name.text, "one.example");
    assert_false(of_message("Sender: a@example.com\r\n\r\nFrom: a@example.com\r\n", &name));
    assert_false(of_message("", &name));
}

static bool is_ours(const void *arg, struct str local_part, struct str domain)
{
    (void)arg;
    return str_eq(domain, STR("ours.example")) ||
           (str_eq(domain, STR("shared.example")) && str_eq(local_part, STR("we")));
}

/* All of them must be ours, and nobody may read others there. */
static void test_check(void **state)
{
    static const struct {
        const char *value;
        enum authors want;
    } cases[] = {
        {"a@ours.example", AUTHORS_GOOD},
        {"A <a@OURS.example>", AUTHORS_GOOD},
        {"A <we@shared.example> (c)", AUTHORS_GOOD},
        {"we@shared.example", AUTHORS_GOOD},
        {"We < we @ shared.example >", AUTHORS_GOOD},
        {"we@\r\n shared.example", AUTHORS_GOOD},
        {"we@(x)shared.example", AUTHORS_GOOD},
        {"they@ shared.example", AUTHORS_OTHERS},
        {"x, we@shared.example", AUTHORS_GOOD},
        {"\"x@y, <z@w>\" <a@ours.example>", AUTHORS_GOOD},
        {"a@ours.example, B <b@ours.example>", AUTHORS_GOOD},
        {"g: a@ours.example, b@ours.example;", AUTHORS_GOOD},
        {"a@ours.example <b@ours.example>", AUTHORS_GOOD},
        {"they@shared.example", AUTHORS_OTHERS},
        {"we(x)@shared.example", AUTHORS_OTHERS},
        {"a@x.ours.example", AUTHORS_OTHERS},
        {"a@ours.example, b@theirs.example", AUTHORS_OTHERS},
        {"b@theirs.example, a@ours.example", AUTHORS_OTHERS},
        {"b@theirs.example <a@ours.example>", AUTHORS_OTHERS},
        {"<a@ours.example> <b@theirs.example>", AUTHORS_OTHERS},
        {"<a@ours.example> b@theirs.example", AUTHORS_OTHERS},
        {"g: a@ours.example; b@theirs.example", AUTHORS_OTHERS},
        {"", AUTHORS_NONE},
        {"a", AUTHORS_NONE},
        {"g:;", AUTHORS_NONE},
        {"a@[192.0.2.1]", AUTHORS_UNCLEAR},
        {"b@theirs.example@ours.example", AUTHORS_UNCLEAR},
        {"<b@theirs.example:a@ours.example>", AUTHORS_UNCLEAR},
        {"<b@theirs.example, a@ours.example>", AUTHORS_UNCLEAR},
        {"a@ours.example x", AUTHORS_UNCLEAR},
        {"a@ours.example\"x", AUTHORS_UNCLEAR},
        {"a@ours.example (b@theirs.example", AUTHORS_UNCLEAR},
        {"a@ours.example, \"b@theirs.example", AUTHORS_UNCLEAR},
        {"<a@ours.example", AUTHORS_UNCLEAR},
        {"b@theirs.example: a@ours.example;", AUTHORS_UNCLEAR},
        {"a@", AUTHORS_UNCLEAR},
    };
    struct buf other = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf text = {0};
        enum authors got;

        buf_printf(&text, "Subject: x\r\nFrom: %s\r\n\r\n", cases[i].value);
        got = authors_check(text.data, text.len, is_ours, NULL);
        if (got != cases[i].want)
            fail_msg("%s: %d, not %d", cases[i].value, (int)got, (int)cases[i].want);
        buf_clear(&text);
        buf_printf(&text, "From: a@ours.example\r\nfrom : %s\r\n\r\n", cases[i].value);
        assert_int_equal(authors_check(text.data, text.len, is_ours, NULL), cases[i].want);
        buf_clear(&text);
        buf_printf(&text, "From: %s\r\nFrom: a@ours.example\r\n\r\n", cases[i].value);
        assert_int_equal(authors_check(text.data, text.len, is_ours, NULL), cases[i].want);
        buf_done(&text);
    }
    assert_int_equal(authors_check((const uint8_t *)"", 0, is_ours, NULL), AUTHORS_NONE);
    buf_puts(&other, "From: a@ours.example\r\nno field\r\nFrom: x@theirs.example\r\n\r\n");
    assert_int_equal(authors_check(other.data, other.len, is_ours, NULL), AUTHORS_UNCLEAR);
    buf_clear(&other);
    buf_puts(&other, "From: a@ours.example");
    for (int i = 0; i < 1000; i++)
        buf_puts(&other, ",a@ours.example");
    assert_int_equal(authors_check(other.data, other.len, is_ours, NULL), AUTHORS_UNCLEAR);
    buf_done(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Whose mail it is, in the ways that From fields are written. */
#include "mail/author.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_messages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "base/sockaddr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#include "base/assert.h"

static const struct sockaddr *address(const char *text, uint16_t port, struct sockaddr_storage *out)
{
    struct sockaddr *sa = (struct sockaddr *)out;

    *out = (struct sockaddr_storage){.ss_family = strchr(text, ':') ? AF_INET6 : AF_INET};
    assert_int_equal(inet_pton(out->ss_family, text,
                               out->ss_family == AF_INET
                                   ? (void *)&((struct sockaddr_in *)(void *)out)->sin_addr
                                   : (void *)&((struct sockaddr_in6 *)(void *)out)->sin6_addr),
                     1);
    sockaddr_set_port(sa, port);
    return sa;
}

static void test_kinds(void **state)
{
    static const struct {
        const char *text;
        bool loopback, unspecified;
    } cases[] = {
        {"127.0.0.1", true, false},
        {"127.255.0.9", true, false},
        {"126.0.0.1", false, false},
        {"0.0.0.0", false, true},
        {"0.1.2.3", false, true},
        {"192.0.2.127", false, false},
        {"::1", true, false},
        {"::", false, true},
        {"::2", false, false},
        {"::ffff:127.0.0.9", true, false},
        {"::ffff:0.0.0.0", false, true},
        {"::ffff:192.0.2.1", false, false},
        {"2001:db8::127", false, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sockaddr_storage at;
        const struct sockaddr *sa = address(cases[i].text, 25, &at);

        assert_int_equal(sockaddr_is_loopback(sa), cases[i].loopback);
        assert_int_equal(sockaddr_is_unspecified(sa), cases[i].unspecified);
    }
}

static void test_ports_and_hosts(void **state)
{
    struct sockaddr_storage a, b, v6, other;

    (void)state;
    address("192.0.2.1", 25, &a);
    address("192.0.2.1", 465, &b);
    address("2001:db8::1", 587, &v6);
    address("192.0.2.2", 25, &other);
    assert_int_equal(sockaddr_port((struct sockaddr *)&b), 465);
    assert_int_equal(sockaddr_port((struct sockaddr *)&v6), 587);
    assert_true(sockaddr_same_host((struct sockaddr *)&a, (struct sockaddr *)&b));
    assert_true(sockaddr_same_host((struct sockaddr *)&v6, (struct sockaddr *)&v6));
    assert_false(sockaddr_same_host((struct sockaddr *)&a, (struct sockaddr *)&other));
    assert_false(sockaddr_same_host((struct sockaddr *)&a, (struct sockaddr *)&v6));
}

static void test_path(void **state)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/run/x"};
    struct sockaddr *sa = (struct sockaddr *)&un;

    (void)state;
    sockaddr_set_port(sa, 25);
    assert_string_equal(un.sun_path, "/run/x");
    assert_int_equal(sockaddr_port(sa), 0);
    assert_false(sockaddr_is_loopback(sa) || sockaddr_is_unspecified(sa));
    assert_false(sockaddr_same_host(sa, sa));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_ports_and_hosts),
        cmocka_unit_test(test_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

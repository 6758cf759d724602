#include "sts/fetch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_addresses(void **state)
{
    static const struct {
        const char *text;
        bool is_public;
    } rows[] = {
        {"8.8.8.8", true},
        {"11.0.0.1", true},
        {"172.32.0.1", true},
        {"100.128.0.1", true},
        {"0.0.0.0", false},
        {"10.1.2.3", false},
        {"100.64.0.1", false},
        {"127.0.0.1", false},
        {"169.254.169.254", false},
        {"172.16.0.1", false},
        {"172.31.255.255", false},
        {"192.168.1.1", false},
        {"198.19.0.1", false},
        {"224.0.0.1", false},
        {"255.255.255.255", false},
        {"2606:4700::1111", true},
        {"2001:4860:4860::8888", true},
        {"64:ff9b::808:808", true},
        {"64:ff9b::a00:1", false},
        {"::", false},
        {"::1", false},
        {"::ffff:8.8.8.8", false},
        {"fe80::1", false},
        {"fc00::1", false},
        {"fd00::1", false},
        {"ff02::1", false},
        {"2001:db8::1", false},
        {"2001::1", false},
        {"2002:0a00:0001::1", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        bool v4 = inet_pton(AF_INET, rows[i].text, &in.sin_addr) == 1;

        assert_true(v4 || inet_pton(AF_INET6, rows[i].text, &in6.sin6_addr) == 1);
        if (sts_address_is_public(v4 ? (void *)&in : (void *)&in6) != rows[i].is_public)
            fail_msg("%s", rows[i].text);
    }
    assert_false(sts_address_is_public(&(struct sockaddr){.sa_family = AF_UNIX}));
}

/* Nothing was submitted: there is no thread, and nothing of libcurl. */
static void test_unused(void **state)
{
    struct sts_fetcher *f;

    (void)state;
    assert_int_equal(sts_fetcher_open(&f), 0);
    sts_fetcher_stop(f);
    assert_int_equal(sts_fetcher_submit(f, &(struct sts_fetch){0}), -EAGAIN);
    sts_fetcher_close(f);
    sts_fetcher_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_unused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

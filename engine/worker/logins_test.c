/* Failed logins and rates: what is let through, and when again. */
#include "worker/logins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

static const struct logins_limit limit = {3, 60000};

static struct sockaddr_storage address(uint32_t host)
{
    struct sockaddr_storage out = {0};
    struct sockaddr_in *in = (void *)&out;

    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(host);
    return out;
}

static bool one_may(struct logins *l, uint32_t host, const char *user, uint64_t now_ms)
{
    struct sockaddr_storage from = address(host);

    return logins_may_try(l, (struct sockaddr *)&from, str_of(user), &limit, now_ms);
}

static uint32_t one_fails(struct logins *l, uint32_t host, const char *user, uint64_t now_ms)
{
    struct sockaddr_storage from = address(host);

    return logins_failed(l, (struct sockaddr *)&from, str_of(user), &limit, now_ms);
}

static void test_client(void **state)
{
    struct logins l;

    (void)state;
    assert_int_equal(logins_init(&l), 0);
    for (uint32_t i = 0; i < 3; i++) {
        char user[8];

        snprintf(user, sizeof(user), "u%u", i);
        assert_true(one_may(&l, 1, user, 1000));
        assert_int_equal(one_fails(&l, 1, user, 1000), i + 1);
    }
    assert_false(one_may(&l, 1, "other", 1000));
    assert_true(one_may(&l, 2, "other", 1000));
    assert_false(one_may(&l, 1, "other", 20999));
    assert_true(one_may(&l, 1, "other", 21000)); /* a third of the minute later: one more */
    assert_int_equal(one_fails(&l, 1, "other", 21000), 3);
    assert_false(one_may(&l, 1, "other", 21001));
    assert_true(one_may(&l, 1, "other", 200000));
    assert_int_equal(one_fails(&l, 1, "other", 200000), 1); /* all is forgotten */
    logins_done(&l);
}

static void test_user(void **state)
{
    struct logins l;
    struct sockaddr_storage home = address(77);

    (void)state;
    assert_int_equal(logins_init(&l), 0);
    logins_succeeded(&l, (struct sockaddr *)&home, STR("shop"), 1000);
    for (uint32_t i = 0; i < 3; i++)
        (void)one_fails(&l, 100 + i, "shop", 1000);
    assert_false(one_may(&l, 1, "shop", 1000));
    assert_true(one_may(&l, 1, "shop2", 1000));
    assert_true(one_may(&l, 77, "shop", 1000)); /* where it has been used before */
    for (uint32_t i = 0; i < 3; i++)
        (void)one_fails(&l, 77, "shop", 1000);
    assert_false(one_may(&l, 77, "shop", 1000)); /* but not without end */
    logins_done(&l);
}

/* Those who try names by the million do not take memory without end, nor forget themselves. */
static void test_bounded(void **state)
{
    struct logins l;
    char user[16];

    (void)state;
    assert_int_equal(logins_init(&l), 0);
    for (uint32_t i = 0; i < 2 * LOGINS_ENTRIES_MAX; i++) {
        snprintf(user, sizeof(user), "u%u", i);
        (void)one_fails(&l, 1, user, 1000);
        assert_in_range(l.len, 1, LOGINS_ENTRIES_MAX);
        assert_int_equal(l.entries.count, l.len);
    }
    assert_false(one_may(&l, 1, "x", 1000));
    logins_done(&l);
}

static void test_rate(void **state)
{
    struct logins l;

    (void)state;
    assert_int_equal(logins_init(&l), 0);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(logins_rate_take(&l, STR("shop"), 5, 60000, 1000), 0);
    assert_int_equal(logins_rate_take(&l, STR("other"), 5, 60000, 1000), 0);
    assert_in_range(logins_rate_take(&l, STR("shop"), 5, 60000, 1000), 12000, 12001);
    assert_in_range(logins_rate_take(&l, STR("shop"), 5, 60000, 7000), 6000, 6001);
    assert_int_equal(logins_rate_take(&l, STR("shop"), 5, 60000, 13001), 0);
    assert_true(logins_rate_take(&l, STR("shop"), 5, 60000, 13001) > 0);
    /* A rate above one in a nanosecond is none, and no division by it. */
    assert_int_equal(logins_rate_take(&l, STR("fast"), UINT64_MAX, 1, 1000), 0);
    logins_done(&l);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client),
        cmocka_unit_test(test_user),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

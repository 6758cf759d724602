#include "engine/retry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/assert.h"

static void test_list(void **state)
{
    uint32_t list[] = {60, 300, 900};
    struct config_destination d = {.retry_list_s = list, .retry_list_len = ARRAY_LEN(list)};
    struct rng rng;
    static const struct {
        uint16_t attempts;
        int64_t delay_ms;
    } rows[] = {{0, 60000}, {1, 60000}, {2, 300000}, {3, 900000}, {4, 900000}, {65535, 900000}};

    (void)state;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(retry_delay_ms(&d, rows[i].attempts, &rng), rows[i].delay_ms);
}

static void test_exponential(void **state)
{
    struct config_destination d = {.retry_first_s = 300, .retry_max_s = 14400};
    struct rng rng;
    static const int64_t delays_s[] = {300, 600, 1200, 2400, 4800, 9600, 14400, 14400};

    (void)state;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < ARRAY_LEN(delays_s); i++)
        assert_int_equal(retry_delay_ms(&d, (uint16_t)(i + 1), &rng), delays_s[i] * 1000);
    assert_int_equal(retry_delay_ms(&d, 40, &rng), 14400000);
    assert_int_equal(retry_delay_ms(&d, 65535, &rng), 14400000);
}

/* Extreme and senseless values must neither overflow nor give a delay that spins. */
static void test_bounds(void **state)
{
    struct config_destination zero = {0};
    struct config_destination first_only = {.retry_first_s = 7};
    struct config_destination huge = {
        .retry_first_s = UINT32_MAX, .retry_max_s = UINT32_MAX, .retry_jitter_percent = 1000};
    struct rng rng;

    (void)state;
    rng_seed(&rng, 1);
    assert_int_equal(retry_delay_ms(&zero, 1, &rng), 1000);
    assert_int_equal(retry_delay_ms(&first_only, 9, &rng), 7000);
    for (int i = 0; i < 1000; i++) {
        int64_t delay = retry_delay_ms(&huge, (uint16_t)i, &rng);

        assert_true(delay >= 1000 && delay <= INT64_C(2) * UINT32_MAX * 1000);
    }
}

static void test_jitter(void **state)
{
    struct config_destination d = {
        .retry_first_s = 1000, .retry_max_s = 1000, .retry_jitter_percent = 20};
    struct rng rng;
    int64_t low = INT64_MAX, high = 0, sum = 0;

    (void)state;
    rng_seed(&rng, 7);
    for (int i = 0; i < 10000; i++) {
        int64_t delay = retry_delay_ms(&d, 1, &rng);

        low = delay < low ? delay : low;
        high = delay > high ? delay : high;
        sum += delay;
    }
    assert_in_range(low, 800000, 802000);
    assert_in_range(high, 1198000, 1200000);
    assert_in_range(sum / 10000, 990000, 1010000);
}

static void test_expiry(void **state)
{
    struct config_destination d = {
        .retry_first_s = 600, .retry_max_s = 600, .lifetime_s = 3600, .notice_lifetime_s = 1800};
    struct rng rng;
    int64_t start = INT64_C(1790000000000), expires = start + 3600000;

    (void)state;
    rng_seed(&rng, 1);
    assert_int_equal(retry_lifetime_s(&d, false, 0), 3600);
    assert_int_equal(retry_lifetime_s(&d, true, 0), 1800);
    assert_int_equal(retry_lifetime_s(&d, false, 10001), 3611);
    assert_int_equal(retry_lifetime_s(&d, false, INT64_MAX / 2), UINT32_MAX);
    assert_int_equal(retry_next_ms(&d, 1, start, expires, &rng), start + 600000);
    /* The last attempt is at expiry, and its failure is final. */
    assert_int_equal(retry_next_ms(&d, 6, start + 3300000, expires, &rng), expires);
    assert_false(retry_expired(expires - 1, expires));
    assert_true(retry_expired(expires, expires));
}

static void test_warning(void **state)
{
    struct config_destination d = {.warn_after_s = 600, .lifetime_s = 3600};
    struct config_destination never = {.lifetime_s = 3600};

    (void)state;
    assert_false(retry_warn_due(&d, false, false, 0, 599999, 3600000));
    assert_true(retry_warn_due(&d, false, false, 0, 600000, 3600000));
    assert_false(retry_warn_due(&d, false, true, 0, 600000, 3600000));
    assert_false(retry_warn_due(&d, true, false, 0, 600000, 3600000));
    assert_false(retry_warn_due(&d, false, false, 0, 600000, 600000));
    assert_false(retry_warn_due(&never, false, false, 0, 3000000, 3600000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),   cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_bounds), cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_expiry), cmocka_unit_test(test_warning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

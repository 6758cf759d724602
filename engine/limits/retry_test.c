#include "limits/retry.h"

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

/* What a clock that was set back left behind: how far off, in minutes, it is due behind that. */
static void test_right(void **state)
{
    static const struct {
        const char *what;
        int64_t due, created, expires, last_attempt;
        uint16_t attempts;
        int64_t right;
    } rows[] = {
        {"due already", -5, -9, 100, 0, 0, -5},
        {"came from the future, never tried", 900, 900, 1000, 0, 0, 0},
        {"not before a time to come", 900, -9, 1000, 0, 0, 900},
        {"the same, of a message from the future", 950, 900, 1000, 0, 0, 950},
        {"waits for its sender's notice, its lifetime over", 1005, 900, 1000, 0, 0, 0},
        {"tried, due within the table", 30, -90, 1000, -30, 3, 30},
        {"tried, due at the end of the table", 60, -90, 1000, 0, 3, 60},
        {"tried in the future, as long before as the table has it", 920, -90, 1000, 900, 3, 20},
        {"tried before the clock ran ahead", 920, -90, 1000, -9, 3, 60},
        {"tried in the future, and due before that", 900, -90, 1000, 920, 3, 60},
    };
    const int64_t minute_ms = 60000, now_ms = INT64_C(1795308557123);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct retry_place p = {.due_ms = now_ms + rows[i].due * minute_ms,
                                .created_ms = now_ms + rows[i].created * minute_ms,
                                .expires_ms = now_ms + rows[i].expires * minute_ms,
                                .last_attempt_ms = now_ms + rows[i].last_attempt * minute_ms,
                                .attempts = rows[i].attempts};
        int64_t right_ms = retry_right_ms(&p, 60 * minute_ms, now_ms);

        if (right_ms != now_ms + rows[i].right * minute_ms)
            fail_msg("%s: %lld", rows[i].what, (long long)(right_ms - now_ms));
        p.due_ms = right_ms;
        assert_int_equal(retry_right_ms(&p, 60 * minute_ms, now_ms), right_ms);
    }
}

static void test_longest(void **state)
{
    struct config_destination d = {
        .retry_first_s = 300, .retry_max_s = 14400, .retry_jitter_percent = 20};
    struct rng rng;

    (void)state;
    rng_seed(&rng, 1);
    assert_int_equal(retry_longest_ms(&d, 1), 360000);
    for (int i = 0; i < 1000; i++)
        assert_true(retry_delay_ms(&d, (uint16_t)(i % 10), &rng) <=
                    retry_longest_ms(&d, (uint16_t)(i % 10)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),  cmocka_unit_test(test_longest),
        cmocka_unit_test(test_list),   cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_bounds), cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_expiry), cmocka_unit_test(test_warning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "intake/hot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Messages of rate a second for seconds, one in each of one_in for the domain; how often it was
 * hot in the last second. */
static uint32_t hot_of(struct hot *h, uint64_t *now_ms, uint32_t rate, uint32_t one_in,
                       uint32_t shards)
{
    uint32_t hot = 0;

    for (uint32_t i = 0; i < 3 * rate; i++) {
        uint64_t ms = *now_ms + (uint64_t)i * 1000 / rate;
        bool is = hot_arrives(h, i % one_in == 0 ? 7 : 8 + i % 1000, shards, ms);

        hot += i >= 2 * rate && i % one_in == 0 && is;
    }
    *now_ms += 3000;
    return hot;
}

static void test_hot(void **state)
{
    struct hot h = {0};
    uint64_t now_ms = 5000;

    (void)state;
    /* All of it, and fast: nearly each message says so. */
    assert_true(hot_of(&h, &now_ms, 10000, 1, 2) == 10000);
    /* Fast, but a small part of what comes. */
    assert_int_equal(hot_of(&h, &now_ms, 20000, 20, 2), 0);
    /* The same part is much where there are many shards. */
    assert_true(hot_of(&h, &now_ms, 20000, 20, 16) == 1000);
    /* All of it, but slow. */
    assert_int_equal(hot_of(&h, &now_ms, 150, 1, 2), 0);
    /* One shard is all there is. */
    assert_int_equal(hot_of(&h, &now_ms, 10000, 1, 1), 0);
}

static void test_a_pause_is_forgotten(void **state)
{
    struct hot h = {0};
    uint64_t now_ms = 5000;

    (void)state;
    assert_true(hot_of(&h, &now_ms, 10000, 1, 2) > 0);
    for (uint32_t i = 1; i < HOT_COUNT_MIN; i++)
        assert_false(hot_arrives(&h, 7, 2, now_ms + 60000));
    assert_true(hot_arrives(&h, 7, 2, now_ms + 60000));
    assert_true(hot_arrives(&h, 7, 2, now_ms + 60000 + HOT_HALF_MS - 1));
    assert_false(hot_arrives(&h, 7, 2, now_ms + 60000 + HOT_HALF_MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hot),
        cmocka_unit_test(test_a_pause_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

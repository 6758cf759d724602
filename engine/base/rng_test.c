#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/assert.h"

/* First outputs of the authors' reference code for the state {1, 2, 3, 4}. */
static void test_reference(void **state)
{
    static const uint64_t want[] = {11520, 0, 1509978240, 1215971899390074240, 1216172134540287360};
    struct rng r = {{1, 2, 3, 4}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_true(rng_next(&r) == want[i]);
}

static void test_replays(void **state)
{
    struct rng a, b, c;
    int same = 0;

    (void)state;
    rng_seed(&a, 0);
    rng_seed(&b, 0);
    rng_seed(&c, 1);
    for (int i = 0; i < 1000; i++) {
        uint64_t value = rng_next(&a);

        assert_true(value == rng_next(&b));
        same += value == rng_next(&c);
    }
    assert_int_equal(same, 0);
    assert_true(rng_entropy() != rng_entropy());
}

static void test_below(void **state)
{
    static const uint64_t limits[] = {1, 2, 3, 10, 1000, 1ull << 32, (1ull << 63) + 1, UINT64_MAX};
    uint32_t counts[10] = {0};
    struct rng r;

    (void)state;
    rng_seed(&r, 7);
    for (size_t i = 0; i < ARRAY_LEN(limits); i++)
        for (int n = 0; n < 1000; n++)
            assert_true(rng_below(&r, limits[i]) < limits[i]);
    for (int n = 0; n < 100000; n++)
        counts[rng_below(&r, 10)]++;
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        assert_in_range(counts[i], 9500, 10500); /* 5 sigma */
}

static void test_unit(void **state)
{
    struct rng r;
    double sum = 0;

    (void)state;
    rng_seed(&r, 9);
    for (int n = 0; n < 100000; n++) {
        double u = rng_unit(&r);

        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    assert_true(sum > 49500 && sum < 50500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_replays),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_unit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

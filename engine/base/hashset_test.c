/* The set against an array of bits, with hashes that crowd. */
#include "base/hashset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

#define VALUES 3000

/* Few homes, so that runs are long, and wrap around the end. */
static uint64_t hash_of(size_t i)
{
    return ((uint64_t)i << 32) + (i % 7 < 3 ? UINT32_MAX - i % 5 : i % 11);
}

static void test_like_bits(void **state)
{
    bool there[VALUES] = {false};
    struct hashset s = {0};
    size_t count = 0;
    struct rng rng;

    (void)state;
    rng_seed(&rng, 7);
    for (int n = 0; n < 200000; n++) {
        size_t i = (size_t)rng_below(&rng, VALUES);

        assert_int_equal(hashset_has(&s, hash_of(i)), there[i]);
        assert_int_equal(hashset_reserve(&s, 1), 0);
        if (there[i] && rng_below(&rng, 2) == 0) {
            hashset_remove(&s, hash_of(i));
            there[i] = false;
            count--;
        } else {
            assert_int_equal(hashset_add(&s, hash_of(i)), !there[i]);
            count += !there[i];
            there[i] = true;
        }
        assert_int_equal(s.count, count);
    }
    for (size_t i = 0; i < VALUES; i++) {
        assert_int_equal(hashset_reserve(&s, 1), 0);
        assert_int_equal(hashset_add(&s, hash_of(i)), !there[i]);
    }
    hashset_done(&s);
    assert_null(s.slots);
}

static void test_bytes(void **state)
{
    struct hashset s = {0};

    (void)state;
    assert_int_equal(hashset_reserve(&s, 1000000), 0);
    assert_true((s.mask + 1) * sizeof(uint64_t) <= 16u << 20);
    assert_true(hashset_add(&s, 0));
    assert_false(hashset_add(&s, 0));
    hashset_remove(&s, 0);
    assert_int_equal(s.count, 0);
    hashset_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_like_bits),
                                       cmocka_unit_test(test_bytes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

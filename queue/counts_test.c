/* The counts of lanes while there are more lanes than places. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "queue/counts.h"

#define SMALL (COUNTS_LANES_MAX + COUNTS_LANES_MAX / 2)

static struct str lane_of(char name[32], uint32_t number)
{
    return (struct str){name, (size_t)snprintf(name, 32, "flow%u.example", number)};
}

static void add(struct counts *c, uint32_t number, uint64_t rows)
{
    char name[32];

    counts_lock(c);
    counts_found(c, lane_of(name, number), rows);
    counts_unlock(c);
}

static void test_large_lanes_stay(void **state)
{
    struct counts c = {0};
    bool complete;
    char name[32];

    (void)state;
    assert_int_equal(counts_init(&c, NULL), 0);
    add(&c, 0, 1000);
    add(&c, 1, 2);
    for (uint32_t i = 2; i < SMALL; i++)
        add(&c, i, 1);
    counts_finish(&c);
    assert_in_range(c.lanes.count, 1, COUNTS_LANES_MAX);
    assert_int_equal(counts_get(&c, lane_of(name, 0), &complete), 1000);
    assert_true(complete);
    assert_int_equal(counts_get(&c, lane_of(name, 1), &complete), 2);
    assert_true(complete); /* smaller ones were enough */
    assert_int_equal(counts_get(&c, lane_of(name, 2), &complete), 0);
    assert_false(complete);
    /* What grows again is counted from there on, and is no exact number. */
    add(&c, 2, 5);
    assert_int_equal(counts_get(&c, lane_of(name, 2), &complete), 5);
    assert_false(complete);
    counts_done(&c);
}

/* Years of small lanes that come and stay do not push larger ones out. */
static void test_large_lanes_outlast_many(void **state)
{
    struct counts c = {0};
    bool complete;
    char name[32];

    (void)state;
    assert_int_equal(counts_init(&c, NULL), 0);
    add(&c, 0, 5);
    for (uint32_t i = 1; i < 8 * COUNTS_LANES_MAX; i++)
        add(&c, i, 1);
    counts_finish(&c);
    assert_int_equal(counts_get(&c, lane_of(name, 0), &complete), 5);
    assert_true(complete);
    counts_done(&c);
}

static void test_few_lanes_are_exact(void **state)
{
    struct counts c = {0};
    bool complete;
    char name[32];

    (void)state;
    assert_int_equal(counts_init(&c, NULL), 0);
    for (uint32_t i = 0; i < COUNTS_LANES_MAX; i++)
        add(&c, i, 1);
    (void)counts_get(&c, lane_of(name, 0), &complete);
    assert_false(complete);
    counts_finish(&c);
    for (uint32_t i = 0; i < COUNTS_LANES_MAX; i++) {
        assert_int_equal(counts_get(&c, lane_of(name, i), &complete), 1);
        assert_true(complete);
    }
    assert_int_equal(counts_get(&c, lane_of(name, COUNTS_LANES_MAX), &complete), 0);
    assert_true(complete);
    counts_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_lanes_stay),
        cmocka_unit_test(test_large_lanes_outlast_many),
        cmocka_unit_test(test_few_lanes_are_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "schedule/turns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

#define TURNS_LEN 7
#define TAKES     10000

static struct rng rng;

static double draw(void)
{
    return ((double)rng_below(&rng, 1000000) + 0.5) / 1000000;
}

static void make(struct turn *all, const uint32_t *weights, size_t len)
{
    for (size_t i = 0; i < len; i++)
        turn_init(&all[i], weights[i], draw());
}

static void leave_all(struct turns *s, struct turn *all, size_t len)
{
    for (size_t i = 0; i < len; i++)
        turns_leave(s, &all[i]);
    turns_done(s);
}

/* Of those that take part all the time each has its part of the takes, to within one take for each
 * of them. */
static void test_exact(void **state)
{
    static const uint32_t weights[TURNS_LEN] = {1, 2, 3, 5, 8, 100, 1000};
    struct turn all[TURNS_LEN];
    uint64_t taken[TURNS_LEN] = {0}, sum = 0;
    struct turns s = {0};

    (void)state;
    make(all, weights, TURNS_LEN);
    for (size_t i = 0; i < TURNS_LEN; i++) {
        all[i].pass = 0; /* nobody has a lead from the draw */
        turns_join(&s, &all[i]);
        sum += weights[i];
    }
    for (uint64_t n = 1; n <= TAKES; n++) {
        struct turn *first = turns_first(&s);

        taken[first - all]++;
        turns_pay(&s, first, 1);
        for (size_t i = 0; i < TURNS_LEN; i++) {
            double due = (double)n * weights[i] / (double)sum;

            assert_true((double)taken[i] < due + TURNS_LEN);
            assert_true((double)taken[i] > due - TURNS_LEN);
        }
    }
    leave_all(&s, all, TURNS_LEN);
}

/* The reference: who takes part, and what each took, as plain numbers. Whatever others do, two that
 * take part since the same take have taken as their weights say, to within one of each. */
static void test_come_and_go(void **state)
{
    static const uint32_t weights[TURNS_LEN] = {3, 1, 7, 2, 50, 1, 10};
    struct turn all[TURNS_LEN];
    double since[TURNS_LEN][TURNS_LEN][2] = {0}; /* [a][b]: what a and b took together */
    struct turns s = {0};

    (void)state;
    rng_seed(&rng, 7);
    make(all, weights, TURNS_LEN);
    turns_join(&s, &all[0]);
    for (int n = 0; n < TAKES; n++) {
        size_t which = rng_below(&rng, TURNS_LEN);
        struct turn *first;

        if (which != 0 && rng_below(&rng, 20) == 0) {
            if (turn_in(&all[which]))
                turns_leave(&s, &all[which]);
            else
                turns_join(&s, &all[which]);
            for (size_t i = 0; i < TURNS_LEN; i++)
                for (int side = 0; side < 2; side++)
                    since[which][i][side] = since[i][which][side] = 0;
        }
        first = turns_first(&s);
        assert_non_null(first);
        which = (size_t)(first - all);
        for (size_t i = 0; i < TURNS_LEN; i++) {
            if (!turn_in(&all[i]) || i == which)
                continue;
            since[which][i][0] += 1.0 / weights[which];
            since[i][which][1] += 1.0 / weights[which];
        }
        turns_pay(&s, first, 1);
        for (size_t a = 0; a < TURNS_LEN; a++) {
            for (size_t b = 0; b < TURNS_LEN; b++) {
                double ahead = since[a][b][0] - since[a][b][1];

                if (!turn_in(&all[a]) || !turn_in(&all[b]) || a == b)
                    continue;
                /* The lead with which a pair begins counts too: at most a stride, or the draw's. */
                assert_true(ahead < 2.0 / weights[a] + 16.0 / weights[b]);
            }
        }
    }
    leave_all(&s, all, TURNS_LEN);
}

/* One that was away for long has no claim: it does not take everything when it comes back. */
static void test_no_credit(void **state)
{
    struct turn a, b;
    struct turns s = {0};
    int of_a = 0;

    (void)state;
    turn_init(&a, 1, 0.5);
    turn_init(&b, 1, 0.5);
    turns_join(&s, &a);
    turns_join(&s, &b);
    turns_leave(&s, &a);
    for (int i = 0; i < TAKES; i++)
        turns_pay(&s, turns_first(&s), 1);
    turns_join(&s, &a);
    for (int i = 0; i < 100; i++) {
        of_a += turns_first(&s) == &a;
        turns_pay(&s, turns_first(&s), 1);
    }
    assert_in_range(of_a, 49, 51);
    turns_leave(&s, &a);
    turns_leave(&s, &b);
    turns_done(&s);
}

/* Nor does one gain by coming and going: its lead goes with it. */
static void test_lead_is_kept(void **state)
{
    struct turn a, b;
    struct turns s = {0};
    int of_a = 0;

    (void)state;
    turn_init(&a, 1, 0.9);
    turn_init(&b, 1, 0.9);
    turns_join(&s, &a);
    turns_join(&s, &b);
    for (int i = 0; i < 1000; i++) {
        of_a += turns_first(&s) == &a;
        turns_pay(&s, turns_first(&s), 1);
        turns_leave(&s, &a);
        turns_join(&s, &a);
    }
    assert_in_range(of_a, 499, 501);
    turns_leave(&s, &a);
    turns_leave(&s, &b);
    turns_done(&s);
}

/* Many sites with one message each: the first takes are by weight. */
static void test_first_by_weight(void **state)
{
    int of_a = 0;

    (void)state;
    rng_seed(&rng, 11);
    for (int i = 0; i < TAKES; i++) {
        struct turn a, b;
        struct turns s = {0};

        turn_init(&a, 3, draw());
        turn_init(&b, 1, draw());
        turns_join(&s, &a);
        turns_join(&s, &b);
        of_a += turns_first(&s) == &a;
        turns_leave(&s, &a);
        turns_leave(&s, &b);
        turns_done(&s);
    }
    assert_in_range(of_a, TAKES * 73 / 100, TAKES * 77 / 100);
}

static void test_within(void **state)
{
    struct turn a, b;
    struct turns s = {0};

    (void)state;
    turn_init(&a, 1, 0.5);
    turn_init(&b, 1, 0.5);
    turns_join(&s, &a);
    turns_join(&s, &b);
    turns_pay(&s, &a, 10); /* b is due ten times before a is: 20 takes of both together */
    assert_ptr_equal(turns_first(&s), &b);
    assert_true(turns_within(&s, &b, 0));
    assert_false(turns_within(&s, &a, 20));
    assert_true(turns_within(&s, &a, 21));
    assert_true(turns_within(&s, &a, UINT64_MAX));
    turns_leave(&s, &a);
    turns_leave(&s, &b);
    turns_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),           cmocka_unit_test(test_come_and_go),
        cmocka_unit_test(test_no_credit),       cmocka_unit_test(test_lead_is_kept),
        cmocka_unit_test(test_first_by_weight), cmocka_unit_test(test_within)};

    rng_seed(&rng, 3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

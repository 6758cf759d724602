#include "worker/turn_gauge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

static uint64_t cpu_ns; /* the thread's */

static void turn(struct turn_gauge *g, uint64_t began_ns, uint64_t events_ns, uint64_t lanes_ns,
                 uint32_t lanes)
{
    g->lanes += lanes;
    turn_part_ends(g, TURN_EVENTS, began_ns, began_ns + events_ns);
    turn_part_ends(g, TURN_LANES, began_ns, began_ns + events_ns + lanes_ns);
    turn_ends(g, TURN_SEND, began_ns, began_ns + events_ns + lanes_ns + 1000, cpu_ns);
}

static void check(struct turn_longest t, uint64_t us, enum turn_part part, uint32_t lanes)
{
    assert_int_equal(t.us, us);
    assert_int_equal(t.part, part);
    assert_int_equal(t.lanes, lanes);
}

/* The longest turn is told with what took most of it; after a minute only the one since the start
 * is. */
static void test_longest(void **state)
{
    struct turn_gauge g = {0};
    uint64_t now_ns = 1000 * S;

    (void)state;
    check(turn_longest(&g, TURN_CLOCK), 0, TURN_EVENTS, 0);
    turn(&g, now_ns, 2 * MS, 5 * MS, 300);
    check(turn_longest(&g, TURN_CLOCK), 7001, TURN_LANES, 300);
    check(turn_longest_lately(&g, TURN_CLOCK), 7001, TURN_LANES, 300);
    turn(&g, now_ns + S, 3 * MS, 1 * MS,
         5); /* a shorter one; nothing is left of the first's parts */
    check(turn_longest(&g, TURN_CLOCK), 7001, TURN_LANES, 300);
    for (now_ns += 55 * S; now_ns < 1060 * S; now_ns += S) {
        turn(&g, now_ns, MS, 0, 0);
        check(turn_longest_lately(&g, TURN_CLOCK), 7001, TURN_LANES, 300);
    }
    for (now_ns = 1072 * S; now_ns < 1200 * S; now_ns += S)
        turn(&g, now_ns, 3 * MS, 1 * MS, 5);
    check(turn_longest(&g, TURN_CLOCK), 7001, TURN_LANES, 300);
    check(turn_longest_lately(&g, TURN_CLOCK), 4001, TURN_EVENTS, 5);
    turn(&g, now_ns + 500 * S, MS, 0, 0); /* it slept for long */
    check(turn_longest_lately(&g, TURN_CLOCK), 1001, TURN_EVENTS, 0);
    assert_int_equal(g.shared.lanes_max, 300);
}

/* One that waits for a core is long by the clock; by its CPU another is. */
static void test_cpu(void **state)
{
    struct turn_gauge g = {0};

    (void)state;
    cpu_ns = 50 * MS; /* what came before the first turn's end is nobody's */
    turn(&g, 1000 * S, MS, 0, 0);
    check(turn_longest(&g, TURN_CPU), 0, TURN_EVENTS, 0);
    cpu_ns += 2 * MS;
    turn(&g, 1001 * S, 90 * MS, 0, 0);
    cpu_ns += 4 * MS;
    turn(&g, 1002 * S, 1 * MS, 5 * MS, 30);
    check(turn_longest(&g, TURN_CLOCK), 90001, TURN_EVENTS, 0);
    check(turn_longest(&g, TURN_CPU), 4000, TURN_LANES, 30);
    check(turn_longest_lately(&g, TURN_CPU), 4000, TURN_LANES, 30);
    cpu_ns += MS;
    turn(&g, 1100 * S, MS, 0, 0);
    check(turn_longest_lately(&g, TURN_CPU), 1000, TURN_EVENTS, 0);
}

static void test_counts(void **state)
{
    static const uint64_t took_ms[] = {0, 3, 4, 19, 99, 400, 900};
    static const uint64_t counts[TURN_MS_LIMITS_LEN + 1] = {1, 2, 1, 1, 1, 1};
    struct turn_gauge g = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(took_ms); i++)
        turn(&g, 1000 * S, took_ms[i] * MS, 0, 0);
    for (size_t i = 0; i <= TURN_MS_LIMITS_LEN; i++)
        assert_int_equal(g.shared.turns[i], counts[i]);
    assert_int_equal(g.shared.turns_ns, 1425 * MS + 7 * 1000);
}

/* What does not fit is the most that does. */
static void test_extremes(void **state)
{
    struct turn_gauge g = {0};

    (void)state;
    turn(&g, 1000 * S, 10000 * S, 0, UINT32_MAX);
    check(turn_longest(&g, TURN_CLOCK), UINT32_MAX, TURN_EVENTS, (1u << 29) - 1);
    for (enum turn_part p = TURN_EVENTS; p < TURN_PARTS; p++)
        assert_true(strlen(turn_part_name(p)) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_extremes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

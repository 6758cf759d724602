#include "base/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

/* The model is an array of due times; the wheel must run the same timers at the same advances. */

enum { TIMERS = 200 };

struct model {
    struct timer timer;
    bool armed; /* by the model's account */
    uint64_t due_ms;
};

static struct wheel wheel;
static struct model models[TIMERS];
static struct rng rng;
static uint64_t last_due_ms, handlers_ran;
static bool late_allowed; /* a past time armed before the advance: out of order by design */

/* Times of every magnitude: this millisecond, each level, beyond the wheel. */
static uint64_t random_span_ms(void)
{
    return rng_next(&rng) >> (20 + rng_below(&rng, 44));
}

static void model_arm(struct model *m, uint64_t due_ms)
{
    m->armed = true;
    m->due_ms = due_ms;
    wheel_arm(&wheel, &m->timer, due_ms);
}

static void model_cancel(struct model *m)
{
    m->armed = false;
    wheel_cancel(&wheel, &m->timer);
}

static void on_timer(struct timer *timer)
{
    struct model *m = CONTAINER_OF(timer, struct model, timer);
    struct model *other = &models[rng_below(&rng, TIMERS)];

    assert_false(timer_armed(timer));
    assert_true(m->armed);
    assert_true(m->due_ms <= wheel.now_ms); /* never early */
    if (m->due_ms < last_due_ms)
        assert_true(late_allowed);
    last_due_ms = m->due_ms;
    m->armed = false;
    handlers_ran++;
    switch (rng_below(&rng, 4)) {
    case 0:
        model_arm(m, wheel.now_ms + random_span_ms());
        break;
    case 1:
        model_cancel(other);
        break;
    case 2:
        model_arm(other, wheel.now_ms + 1 + rng_below(&rng, 100));
        break;
    default:
        break;
    }
}

static uint64_t model_earliest(void)
{
    uint64_t earliest = UINT64_MAX;

    for (size_t i = 0; i < TIMERS; i++)
        if (models[i].armed && models[i].due_ms < earliest)
            earliest = models[i].due_ms;
    return earliest;
}

static void check_state(void)
{
    uint64_t wait_ms = wheel_wait_ms(&wheel, wheel.now_ms), earliest = model_earliest();
    size_t armed = 0;

    for (size_t i = 0; i < TIMERS; i++) {
        armed += models[i].armed;
        assert_int_equal(timer_armed(&models[i].timer), models[i].armed);
    }
    assert_int_equal(wheel.armed, armed);
    if (earliest == UINT64_MAX)
        assert_true(wait_ms == UINT64_MAX);
    else if (earliest <= wheel.now_ms)
        assert_true(wait_ms == 0);
    else
        assert_true(wait_ms > 0 && wait_ms <= earliest - wheel.now_ms);
}

/* After an advance nothing that was due before it may be left. */
static void advance(uint64_t to_ms)
{
    bool due_before[TIMERS];
    uint64_t armed_for[TIMERS];
    size_t ran;

    for (size_t i = 0; i < TIMERS; i++) {
        due_before[i] = models[i].armed && models[i].due_ms <= to_ms;
        armed_for[i] = models[i].due_ms;
    }
    last_due_ms = 0;
    handlers_ran = 0;
    ran = wheel_advance(&wheel, to_ms);
    assert_int_equal(ran, handlers_ran);
    assert_true(wheel.now_ms == to_ms);
    for (size_t i = 0; i < TIMERS; i++) {
        bool same = models[i].armed && models[i].due_ms == armed_for[i] && due_before[i];

        if (same) /* run, and armed for its own old time again: only a present time can be */
            assert_true(models[i].due_ms == to_ms);
    }
}

static void run_model(uint64_t seed, uint64_t start_ms)
{
    rng_seed(&rng, seed);
    wheel_init(&wheel, start_ms);
    memset(models, 0, sizeof(models));
    for (size_t i = 0; i < TIMERS; i++)
        models[i].timer.on_timer = on_timer;
    for (int step = 0; step < 2000; step++) {
        struct model *m = &models[rng_below(&rng, TIMERS)];

        late_allowed = false;
        switch (rng_below(&rng, 6)) {
        case 0:
        case 1:
        case 2:
            model_arm(m, wheel.now_ms + random_span_ms());
            break;
        case 3:
            model_cancel(m);
            break;
        case 4: /* a long jump */
            late_allowed = true;
            advance(wheel.now_ms + random_span_ms());
            break;
        default: /* exactly to where the wheel asks to be advanced */
            late_allowed = true;
            if (wheel_wait_ms(&wheel, wheel.now_ms) != UINT64_MAX)
                advance(wheel.now_ms + wheel_wait_ms(&wheel, wheel.now_ms));
            break;
        }
        check_state();
    }
    for (size_t i = 0; i < TIMERS; i++)
        model_cancel(&models[i]);
    check_state();
    for (size_t level = 0; level < WHEEL_LEVELS; level++)
        assert_true(wheel.occupied[level] == 0); /* no stale bit, so no needless waking */
}

static void test_model(void **state)
{
    static const uint64_t starts_ms[] = {
        0, 63, 1ull << 36, (1ull << 36) - 3, (1ull << 30) - 1, (1ull << 42) - 65, 123456789,
    };

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++)
        run_model(seed, starts_ms[seed % ARRAY_LEN(starts_ms)]);
}

static uint64_t order[64];
static size_t order_len;

static void note_order(struct timer *timer)
{
    order[order_len++] = timer->due_ms;
}

/* The earlier of two times holds, whichever comes first. */
static void test_arm_by(void **state)
{
    struct timer timer = {.on_timer = note_order};
    struct wheel w;

    (void)state;
    wheel_init(&w, 0);
    order_len = 0;
    wheel_arm_by(&w, &timer, 100);
    wheel_arm_by(&w, &timer, 200);
    assert_int_equal(timer.due_ms, 100);
    wheel_arm_by(&w, &timer, 50);
    assert_int_equal(wheel_advance(&w, 300), 1);
    assert_int_equal(order[0], 50);
    wheel_arm_by(&w, &timer, 400); /* it is not armed any more */
    assert_true(timer_armed(&timer));
    wheel_cancel(&w, &timer);
}

/* One advance over everything runs in order of time, whatever the levels. */
static void test_order(void **state)
{
    static const uint64_t dues_ms[] = {5000000, 1, 64, 63, 4096, 2, 70000, 65, 300000, 4095};
    struct timer timers[ARRAY_LEN(dues_ms)] = {0};
    struct wheel w;

    (void)state;
    wheel_init(&w, 0);
    order_len = 0;
    for (size_t i = 0; i < ARRAY_LEN(dues_ms); i++) {
        timers[i].on_timer = note_order;
        wheel_arm(&w, &timers[i], dues_ms[i]);
    }
    assert_int_equal(wheel_advance(&w, 10000000), ARRAY_LEN(dues_ms));
    for (size_t i = 1; i < order_len; i++)
        assert_true(order[i - 1] < order[i]);
}

static uint64_t *many_dues;
static size_t many_len;

static void note_many(struct timer *timer)
{
    many_dues[many_len++] = timer->due_ms;
}

static struct wheel *again_wheel;

static void arm_again(struct timer *timer)
{
    wheel_arm(again_wheel, timer, 0);
}

/* A handler that arms itself for the past runs once per advance, not for ever. */
static void test_past(void **state)
{
    struct timer timer = {.on_timer = arm_again};
    struct wheel w;

    (void)state;
    again_wheel = &w;
    wheel_init(&w, 1000);
    wheel_arm(&w, &timer, 999);
    assert_true(wheel_wait_ms(&w, 1000) == 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(wheel_advance(&w, 1000), 1);
    wheel_cancel(&w, &timer);
    assert_int_equal(wheel_advance(&w, 2000), 0);
    assert_true(wheel_wait_ms(&w, 2000) == UINT64_MAX);
}

enum { MANY = 3 * WHEEL_MOVE_MAX };

/* However many timers are due at once, no advance runs or moves more than its share, and the others
 * follow in order. Half of them come down from a slot of a higher level. */
static void test_many(void **state)
{
    static struct timer many[MANY];
    static uint64_t dues[MANY];
    uint64_t now_ms = 10000;
    size_t ran = 0, advances = 0;
    struct wheel w;

    (void)state;
    memset(many, 0, sizeof(many));
    wheel_init(&w, 0);
    for (size_t i = 0; i < MANY; i++) {
        many[i].on_timer = note_many;
        wheel_arm(&w, &many[i], i % 2 == 0 ? 9000 : 8192 + i % 64);
    }
    many_dues = dues;
    many_len = 0;
    wheel_cancel(&w, &many[0]);
    while (w.armed > 0) {
        size_t now = wheel_advance(&w, now_ms++);

        assert_in_range(now, 0, WHEEL_RUN_MAX);
        if (advances == 0)
            assert_false(list_empty(&w.moving));
        ran += now;
        advances++;
        if (w.armed > 0)
            assert_int_equal(wheel_wait_ms(&w, now_ms), 0); /* the rest is waited for no longer */
        if (advances == 2) { /* one that waits to be moved, or to run */
            wheel_cancel(&w, &many[MANY - 1]);
            wheel_arm(&w, &many[2], 0);
        }
    }
    assert_int_equal(ran, MANY - 2);
    assert_int_equal(many_len, MANY - 2);
    assert_in_range(advances, MANY / WHEEL_RUN_MAX, MANY / WHEEL_RUN_MAX + 5);
    for (size_t i = 1; i < many_len; i++)
        assert_true(dues[i - 1] <= dues[i] || dues[i] == 0);
    assert_true(wheel_wait_ms(&w, now_ms) == UINT64_MAX);
    for (size_t level = 0; level < WHEEL_LEVELS; level++)
        assert_true(w.occupied[level] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model), cmocka_unit_test(test_arm_by), cmocka_unit_test(test_order),
        cmocka_unit_test(test_past),  cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

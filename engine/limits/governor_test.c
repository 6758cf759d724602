#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/buf.h"
#include "base/rng.h"
#include "limits/governor.h"

static uint64_t take(struct governor_entry *e, uint64_t now_ns, uint32_t recipients)
{
    enum governor_counts by;

    return governor_message_take(
        e, now_ns, &(struct governor_load){.recipients = recipients, .bytes = 1000}, &by);
}

static void give(struct governor_entry *e, uint64_t now_ns, uint32_t recipients)
{
    governor_message_give(e, now_ns,
                          &(struct governor_load){.recipients = recipients, .bytes = 1000}, 0);
}

static uint64_t at_ns(const struct governor_entry *e, uint64_t now_ns)
{
    return governor_message_at(e, now_ns, NULL);
}

static const struct governor_limits two = {.sessions_max = 2};

static void test_sessions(void **state)
{
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &two, 0);
    assert_ptr_equal(governor_get(g, STR("a"), &two, 0), e);
    assert_ptr_not_equal(e, NULL);
    assert_true(governor_session_take(e, 0, 0));
    assert_true(governor_session_take(e, 0, 0));
    assert_false(governor_session_take(e, 1, 0));
    /* Worker 0 has two of two and worker 1 waits: one each is fair. */
    assert_true(governor_should_yield(e, 0, 2, 0, 0));
    assert_false(governor_should_yield(e, 1, 0, 0, 0));
    governor_session_give(e);
    assert_true(governor_session_take(e, 1, 0));
    assert_false(governor_should_yield(e, 0, 1, 10000, 0));
    governor_session_give(e);
    governor_session_give(e);
    governor_put(g, e, 0);
    governor_put(g, e, 0);
    governor_close(g);
}

/* One session for two workers: they take turns. */
static void test_time_slice(void **state)
{
    const struct governor_limits one = {.sessions_max = 1};
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &one, 0);
    assert_true(governor_session_take(e, 0, 0));
    assert_false(governor_session_take(e, 1, 0));
    assert_false(governor_should_yield(e, 0, 1, 1000, 0));
    assert_true(governor_should_yield(e, 0, 1, 2000, 0));
    governor_session_give(e);
    governor_put(g, e, 0);
    governor_close(g);
}

#define S UINT64_C(1000000000)

/* Twenty are wanted, the peer takes five: it is asked for one more a minute later. */
static void test_slow_down(void **state)
{
    const struct governor_limits twenty = {.sessions_max = 20};
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &twenty, 0);
    for (int i = 0; i < 20; i++)
        assert_true(governor_session_take(e, 0, 1000 * S));
    for (int i = 0; i < 15; i++)
        governor_slow_down(e, 1000 * S);
    for (int i = 0; i < 15; i++)
        governor_session_give(e);
    assert_false(governor_session_take(e, 0, 1059 * S));
    assert_true(governor_session_take(e, 0, 1060 * S));
    assert_false(governor_session_take(e, 0, 1060 * S));
    governor_slow_down(e, 1060 * S);
    governor_session_give(e);
    assert_false(governor_session_take(e, 0, 1061 * S));
    /* The share of a worker is of what there is. */
    assert_false(governor_session_take(e, 1, 1061 * S));
    assert_true(governor_should_yield(e, 0, 5, 0, 1061 * S));
    /* One is left in any case, and in time all are allowed again. */
    for (int i = 0; i < 100; i++)
        governor_slow_down(e, 1100 * S);
    for (int i = 0; i < 5; i++)
        governor_session_give(e);
    assert_true(governor_session_take(e, 0, 1100 * S));
    for (int i = 1; i < 20; i++)
        assert_true(governor_session_take(e, 0, 100000 * S));
    assert_false(governor_session_take(e, 0, 100000 * S));
    for (int i = 0; i < 20; i++)
        governor_session_give(e);
    governor_put(g, e, 0);
    governor_close(g);
}

/* Who was denied and has given up does not make others yield for ever. */
static void test_withdraw(void **state)
{
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &two, 0);
    assert_true(governor_session_take(e, 0, 0));
    assert_true(governor_session_take(e, 0, 0));
    assert_false(governor_session_take(e, 1, 0));
    assert_true(governor_contended(e, 0));
    assert_false(governor_contended(e, 1));
    assert_true(governor_should_yield(e, 0, 2, 0, 0));
    governor_session_withdraw(e, 1, 0);
    assert_false(governor_contended(e, 0));
    assert_false(governor_should_yield(e, 0, 2, 0, 0));
    governor_session_give(e);
    governor_session_give(e);
    governor_put(g, e, 0);
    governor_close(g);
}

/* One answer in n that asks for less leaves n sessions or so; each as many messages as there are.
 */
static void test_step_down(void **state)
{
    const struct governor_limits twenty = {.sessions_max = 20};
    struct governor *g;
    struct governor_entry *e;
    int taken = 0;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &twenty, 0);
    for (int i = 0; i < 3; i++)
        assert_true(governor_session_take(e, 0, 1000 * S));
    governor_step_down(e, 1000 * S);
    governor_session_give(e);
    assert_false(governor_session_take(e, 0, 1000 * S));
    governor_taken(e, 1000 * S);
    assert_false(governor_session_take(e, 0, 1000 * S));
    governor_taken(e, 1000 * S);
    assert_true(governor_session_take(e, 0, 1000 * S));
    assert_false(governor_session_take(e, 0, 1000 * S));
    for (; atomic_load(&e->shared.stepped) != 0 && taken < 1000; taken++)
        governor_taken(e, 1000 * S);
    assert_int_equal(taken, 19 * 20 / 2 - 3); /* 3 + 4 .. + 19 */
    for (int i = 0; i < 3; i++)
        governor_session_give(e);
    governor_put(g, e, 0);
    governor_close(g);
}

/* Behind a pause one session, and one more with each that works. */
static void test_recovery(void **state)
{
    const struct governor_limits four = {.sessions_max = 4};
    uint32_t pause_s, sessions;
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &four, 0);
    assert_false(governor_recovers(e, &pause_s, &sessions)); /* nothing recovers */
    assert_int_equal(governor_recovery_s(e), 0);
    governor_recover(e, 600, 5);
    governor_recover(e, 600, 5); /* another worker heard of it too */
    assert_int_equal(governor_recovery_s(e), 600);
    for (uint32_t allowed = 1; allowed <= 4; allowed++) {
        /* Time alone gives none. */
        assert_true(governor_session_take(e, 0, allowed * 3600 * S));
        assert_int_equal(governor_session_take(e, 0, allowed * 3600 * S), 0);
        assert_int_equal(governor_recovers(e, &pause_s, &sessions), allowed < 4);
        assert_int_equal(governor_recovery_s(e), 0);
    }
    assert_int_equal(atomic_load(&e->shared.recovering), 0);
    governor_recover(e, 60, 5); /* more are open than may be */
    assert_true(governor_sessions_full(e, 0));
    for (int i = 0; i < 4; i++)
        governor_session_give(e);
    assert_true(governor_session_take(e, 0, 0));
    assert_false(governor_session_take(e, 1, 0));
    governor_session_give(e);
    governor_session_withdraw(e, 1, 0);
    governor_put(g, e, 0);
    governor_close(g);
}

static int failures_until_stopped(struct governor_entry *e, uint64_t now_ns)
{
    int n = 1;

    while (!governor_run_counts(e, now_ns, now_ns, governor_run_allowed(e, 8), 300000))
        n++;
    return n;
}

/* Who refuses four for each one taken is not stopped by what is a long run to others; once it takes
 * all, it is as others are. */
static void test_stop_of_a_refuser(void **state)
{
    struct governor *g;
    struct governor_entry *e;
    uint64_t now = S;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &two, 0);
    for (int success = 0; success < 40; success++) {
        for (int i = 0; i < 4; i++)
            assert_false(governor_run_counts(e, now, now, governor_run_allowed(e, 8), 300000));
        assert_false(governor_run_ends(e));
    }
    assert_in_range(failures_until_stopped(e, now), 30, 8 * GOVERNOR_RUN_TIMES);
    assert_true(governor_run_ends(e));
    for (int success = 0; success < 120; success++)
        assert_false(governor_run_ends(e));
    assert_int_equal(failures_until_stopped(e, 2 * S), 8);
    /* However many it refuses, there is an end. */
    for (int success = 0; success < 40; success++) {
        now += 600 * S;
        (void)failures_until_stopped(e, now);
        (void)governor_run_ends(e);
    }
    assert_int_equal(failures_until_stopped(e, now + 600 * S), 8 * GOVERNOR_RUN_TIMES);
    governor_put(g, e, 0);
    governor_close(g);
}

/* Three in a row stop it; then one message at a time, twice as far apart with each that fails. */
static void test_stop(void **state)
{
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &two, 0);
    assert_false(governor_run_counts(e, 1 * S, 1 * S, 3, 300000));
    assert_false(governor_run_counts(e, 1 * S, 1 * S, 3, 300000));
    assert_false(governor_run_ends(e)); /* something got through */
    assert_false(governor_run_counts(e, 2 * S, 2 * S, 3, 300000));
    assert_false(governor_run_counts(e, 2 * S, 2 * S, 3, 300000));
    assert_true(governor_may_send(e, true, 2 * S));
    assert_true(governor_run_counts(e, 2 * S, 3 * S, 3, 300000));
    assert_int_equal(governor_stopped_ns(e), 5 * S);
    /* What had begun before tells nothing new. */
    assert_true(governor_run_counts(e, 2 * S, 4 * S, 3, 300000));
    assert_int_equal(governor_stopped_ns(e), 5 * S);
    assert_false(governor_may_send(e, false, 4 * S));
    assert_true(governor_may_send(e, false, 5 * S));
    assert_true(governor_may_send(e, true, 5 * S)); /* the probe */
    assert_false(governor_may_send(e, true, 5 * S));
    assert_false(governor_may_send(e, false, 34 * S));
    assert_true(governor_may_send(e, false, 35 * S)); /* never answered */
    governor_probe_back(e);                           /* never sent */
    assert_true(governor_may_send(e, true, 5 * S));
    assert_true(governor_run_counts(e, 5 * S, 6 * S, 3, 300000));
    assert_int_equal(governor_stopped_ns(e), 10 * S);
    for (uint64_t now = 10, pause = 8; pause < 300; now += pause, pause *= 2) {
        assert_true(governor_run_counts(e, now * S, now * S, 3, 300000));
        assert_int_equal(governor_stopped_ns(e), (now + pause) * S);
    }
    assert_true(governor_run_counts(e, 1000 * S, 1000 * S, 3, 300000));
    assert_int_equal(governor_stopped_ns(e), 1300 * S); /* no longer than a retry */
    /* One session meanwhile, whatever is allowed. */
    assert_true(governor_session_take(e, 0, 1000 * S));
    assert_false(governor_session_take(e, 0, 1000 * S));
    governor_probe_now(e, 1001 * S);
    assert_true(governor_may_send(e, true, 1001 * S));
    assert_true(governor_run_ends(e));
    assert_false(governor_run_ends(e));
    assert_true(governor_may_send(e, true, 1001 * S));
    assert_true(governor_session_take(e, 0, 1001 * S));
    governor_session_give(e);
    governor_session_give(e);
    governor_put(g, e, 0);
    governor_close(g);
}

/* The last session that is given back takes nobody else's claim with it. */
static void test_give(void **state)
{
    const struct governor_limits one = {.sessions_max = 1};
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &one, 0);
    assert_true(governor_session_take(e, 0, 0));
    assert_false(governor_session_take(e, 1, 0));
    governor_session_give(e);
    assert_int_equal(atomic_load(&e->shared.holders), 3);
    governor_session_withdraw(e, 0, 0);
    assert_int_equal(atomic_load(&e->shared.holders), 2);
    governor_put(g, e, 0);
    governor_close(g);
}

/* In any window no more than the rate allows and, asked often enough, no less. */
static void test_rate(void **state)
{
    static const struct {
        uint64_t messages;
        uint32_t period_ms;
    } rates[] = {{300, 60000}, {5, 1000}, {1000, 1000}, {7, 3600000}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        const struct governor_limits limits = {.rate_messages = rates[i].messages,
                                               .rate_period_ms = rates[i].period_ms};
        uint64_t interval_ns = (uint64_t)rates[i].period_ms * 1000000 / rates[i].messages;
        uint64_t now_ns = UINT64_C(1000000000000), last_ns = 0, sent = 0, began = now_ns, at;
        struct governor *g;
        struct governor_entry *e;
        struct rng rng;

        rng_seed(&rng, i);
        assert_int_equal(governor_open(&g), 0);
        e = governor_get(g, STR("a"), &limits, 0);
        while (sent < 500) {
            at = take(e, now_ns, 1);
            if (at == 0) {
                if (last_ns != 0 && interval_ns >= 10000000)
                    assert_true(now_ns - last_ns >= interval_ns);
                last_ns = now_ns;
                sent++;
            } else {
                assert_true(at > now_ns);
                now_ns = at + rng_below(&rng, interval_ns / 50 + 1);
            }
        }
        /* The 10 ms that are carried over are all that a window may be over. */
        assert_true(sent <= (now_ns - began + 10000000) / interval_ns + 1);
        assert_true((double)sent >= 0.97 * (double)(now_ns - began) / (double)interval_ns);
        governor_put(g, e, UINT64_MAX);
        governor_close(g);
    }
}

/* What was summed up outlives those that have the entry; one with nothing to tell goes. */
static void test_sums_stay(void **state)
{
    const uint64_t now_ns = UINT64_C(1000000000);
    struct governor *g;
    struct governor_entry *e, *other;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &two, now_ns);
    other = governor_get(g, STR("b"), &two, now_ns);
    governor_sum(&e->sums.attempts, 3);
    governor_put(g, e, now_ns);
    governor_put(g, other, now_ns);
    assert_null(governor_find(g, STR("b")));
    assert_ptr_equal(governor_find(g, STR("a")), e);
    assert_int_equal(atomic_load(&e->sums.attempts), 3);
    assert_ptr_equal(governor_get(g, STR("a"), &two, now_ns), e);
    governor_put(g, e, now_ns);
    governor_put(g, e, now_ns);
    governor_close(g);
}

static uint64_t take_as(struct governor_entry *e, uint64_t now_ns, uint16_t who, uint8_t priority)
{
    const struct governor_load load = {.recipients = 1, .priority = priority, .who = who};
    enum governor_counts by;

    return governor_message_take(e, now_ns, &load, &by);
}

/* Who waits with better mail is served first; one that does not come keeps the others for a moment.
 */
static void test_claims(void **state)
{
    enum { BULK = 1, URGENT, CODES };
    const uint64_t s = UINT64_C(1000000000), ms = UINT64_C(1000000);
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"),
                     &(struct governor_limits){.rate_messages = 1, .rate_period_ms = 1000}, s);
    assert_int_equal(take_as(e, s, BULK, 5), 0);
    governor_claim(e, URGENT, 3, s);
    governor_claim(e, CODES, 4, s + 1); /* of a worse one: nothing changes */
    assert_int_equal(take_as(e, 2 * s, BULK, 5), 2 * s + 51 * ms);
    assert_int_equal(take_as(e, 2 * s, URGENT, 5), 0); /* what has the claim takes as it likes */
    assert_int_equal(take_as(e, 3 * s, BULK, 5), 0);   /* the claim was for one */
    governor_claim(e, URGENT, 3, 3 * s);
    governor_claim(e, CODES, 1, 3 * s);
    assert_int_equal(take_as(e, 4 * s, URGENT, 3), 4 * s + 51 * ms);
    assert_int_equal(take_as(e, 4 * s + 51 * ms, BULK, 5), 0); /* nobody came */
    governor_claim(e, URGENT, 5, 4 * s + 51 * ms);
    assert_int_equal(take_as(e, 5 * s + 51 * ms, BULK, 5), 0); /* no better than its own */
    governor_put(g, e, 0);
    e = governor_get(
        g, STR("slow"),
        &(struct governor_limits){.rate_messages = 1, .rate_period_ms = 3600000, .generation = 1},
        10 * s);
    assert_int_equal(take_as(e, 10 * s, BULK, 5), 0);
    governor_claim(e, URGENT, 3, 10 * s);
    governor_put(g,
                 governor_get(g, STR("slow"),
                              &(struct governor_limits){
                                  .rate_messages = 1, .rate_period_ms = 1000, .generation = 2},
                              10 * s),
                 10 * s);
    assert_int_equal(take_as(e, 11 * s, BULK, 5), 11 * s + 51 * ms);
    assert_int_equal(take_as(e, 11 * s + 51 * ms, BULK, 5), 0); /* not after an hour */
    governor_put(g, e, 0);
    governor_close(g);
}

/* Of all that began, further attempts of a session included, no window has more than the rate lets
 * through and those of the last session; messages do not count. */
static void test_connects(void **state)
{
    enum { STEPS = 2000, MORE_MAX = 4, PERIOD_MS = 60000, RATE = 120 };
    const struct governor_limits limits = {
        .connects = {RATE, PERIOD_MS, 0}, .rate_messages = 1000, .rate_period_ms = 1000};
    static uint64_t began_ns[STEPS * (MORE_MAX + 1)];
    uint64_t now_ns = UINT64_C(1000000000000), interval_ns = UINT64_C(1000000) * PERIOD_MS / RATE;
    struct governor *g;
    struct governor_entry *e;
    struct rng rng;
    size_t n = 0;

    (void)state;
    rng_seed(&rng, 5);
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &limits, 0);
    for (int i = 0; i < STEPS; i++) {
        uint64_t at = governor_connect_take(e, now_ns);

        (void)take(e, now_ns, 1);
        if (at != 0) {
            assert_true(at > now_ns && at == governor_connect_at(e));
            now_ns = at + rng_below(&rng, interval_ns / 50 + 1);
            continue;
        }
        if (rng_below(&rng, 10) == 0) { /* it never went out */
            governor_connect_give(e, now_ns);
            continue;
        }
        began_ns[n++] = now_ns;
        for (uint64_t more = rng_below(&rng, 8); more > 0 && more <= MORE_MAX; more--) {
            governor_connect_more(e, now_ns);
            began_ns[n++] = now_ns;
        }
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++)
            assert_true(j - i <= (began_ns[j] - began_ns[i]) / interval_ns + MORE_MAX);
    assert_true((double)n >= 0.97 * (double)(now_ns - began_ns[0]) / (double)interval_ns);
    governor_put(g, e, UINT64_MAX);
    governor_close(g);
}

/* With a burst no window has more than that, the rate's and one; what is given back may be taken
 * again; and who asks rarely gets what was saved for him. */
static void test_burst(void **state)
{
    enum { STEPS = 3000, RATE = 10, PERIOD_MS = 1000, BURST = 30 };
    const struct governor_limits limits = {
        .rate_messages = RATE, .rate_period_ms = PERIOD_MS, .rate_burst = BURST};
    static uint64_t sent_ns[STEPS];
    const uint64_t interval_ns = UINT64_C(1000000) * PERIOD_MS / RATE;
    uint64_t now_ns = UINT64_C(1000000000000), at;
    struct governor *g;
    struct governor_entry *e;
    struct rng rng;
    size_t n = 0, most = 0;

    (void)state;
    rng_seed(&rng, 9);
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &limits, 0);
    for (int i = 0; i < STEPS; i++) {
        at = take(e, now_ns, 1);
        if (at != 0) {
            assert_true(at > now_ns);
            now_ns = at;
        } else if (rng_below(&rng, 4) == 0) {
            give(e, now_ns, 1); /* another limit refused it */
        } else {
            sent_ns[n++] = now_ns;
        }
        if (rng_below(&rng, 40) == 0)
            now_ns += rng_below(&rng, 8000000000);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++) {
            assert_true(j - i <= (sent_ns[j] - sent_ns[i]) / interval_ns + BURST);
            if (sent_ns[j] == sent_ns[i] && j - i + 1 > most)
                most = j - i + 1;
        }
    assert_int_equal(most, BURST + 1);
    governor_put(g, e, UINT64_MAX);
    governor_close(g);
}

/* Nor does it get its burst anew: its entry stays until that is there again. */
static void test_burst_survives(void **state)
{
    const struct governor_limits limits = {
        .rate_messages = 1, .rate_period_ms = 60000, .rate_burst = 2};
    const uint64_t now_ns = UINT64_C(5000) * S;
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &limits, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(take(e, now_ns, 1), 0);
    governor_put(g, e, now_ns);
    for (uint64_t s = 60; s <= 120; s += 60) { /* one each minute, and no more */
        e = governor_get(g, STR("a"), &limits, now_ns + s * S);
        assert_int_equal(take(e, now_ns + s * S, 1), 0);
        assert_true(take(e, now_ns + s * S, 1) > 0);
        governor_put(g, e, now_ns + s * S + 60 * S); /* the rate lets one go, the burst none */
    }
    governor_close(g);
}

/* An answer lowers what is configured, and what it lowered doubles until that is reached. */
static void test_cap(void **state)
{
    const struct governor_limits limits = {
        .sessions_max = 9, .rate_messages = 10, .rate_period_ms = 1000, .generation = 1};
    const struct governor_cap cap = {.rate_messages = 60,
                                     .rate_period_ms = 60000,
                                     .sessions = 2,
                                     .session_messages = 3,
                                     .step_ms = 100000};
    const struct governor_cap nothing = {0};
    const uint64_t start_ns = 50 * S;
    struct governor_cap now;
    struct governor *g;
    struct governor_entry *e;
    uint64_t open, most, messages;
    uint32_t period_ms;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &limits, start_ns);
    assert_false(governor_rate(e, start_ns, GOVERNOR_MESSAGES, &messages, &period_ms));
    /* 90 s ago: on a machine that runs for 50 s only. */
    governor_cap(g, e, 2, &cap, -(int64_t)(40 * S), start_ns);
    governor_cap(g, e, 1, &nothing, 0, start_ns); /* a worker that is late */
    assert_true(governor_rate(e, start_ns, GOVERNOR_MESSAGES, &messages, &period_ms));
    assert_int_equal(messages, 60);
    assert_int_equal(take(e, start_ns, 1), 0);
    assert_int_equal(at_ns(e, start_ns), start_ns + S);
    assert_int_equal(take(e, start_ns + S / 2, 1), start_ns + S);
    for (int i = 0; i < 2; i++)
        assert_true(governor_session_take(e, 0, start_ns));
    assert_false(governor_session_take(e, 0, start_ns));
    assert_true(governor_is_lowered(e, start_ns));
    assert_false(governor_over_cap(e, start_ns));
    assert_int_equal(governor_session_messages(e, start_ns), 3);
    /* The first step: twice as much. */
    assert_true(governor_capped(e, start_ns + 11 * S, &now));
    assert_int_equal(now.rate_messages, 120);
    assert_int_equal(now.sessions, 4);
    assert_int_equal(governor_session_messages(e, start_ns + 11 * S), 6);
    assert_true(governor_session_take(e, 0, start_ns + 11 * S));
    assert_int_equal(take(e, start_ns + 11 * S, 1), 0);
    assert_int_equal(at_ns(e, start_ns + 11 * S), start_ns + 11 * S + S / 2);
    /* It begins anew: who is too many goes. */
    governor_cap(g, e, 3, &cap, (int64_t)(start_ns + 20 * S), start_ns + 20 * S);
    assert_true(governor_over_cap(e, start_ns + 20 * S));
    governor_session_ends(e, true); /* that one is enough */
    assert_false(governor_over_cap(e, start_ns + 20 * S));
    governor_session_ends(e, false);
    assert_true(governor_over_cap(e, start_ns + 20 * S));
    /* Configured limits are reached on the way, and hold; in the end nothing is lowered. */
    governor_sessions(e, start_ns + 320 * S, &open, &most);
    assert_int_equal(most, 9);
    assert_true(governor_rate(e, start_ns + 320 * S, GOVERNOR_MESSAGES, &messages, &period_ms));
    assert_int_equal(messages, 480); /* 8 a second of 10 */
    assert_false(governor_rate(e, start_ns + 420 * S, GOVERNOR_MESSAGES, &messages, &period_ms));
    assert_int_equal(messages, 10);
    assert_int_equal(governor_session_messages(e, start_ns + 520 * S), 96);
    assert_int_equal(governor_session_messages(e, start_ns + 621 * S), UINT32_MAX);
    assert_false(governor_capped(e, start_ns + 621 * S, &now));
    /* Somebody takes it away: who waited for the lowered rate waits for its part of the other. */
    governor_cap(g, e, 4, &cap, (int64_t)(start_ns + 700 * S), start_ns + 700 * S);
    assert_int_equal(take(e, start_ns + 700 * S, 1), 0);
    governor_cap(g, e, 5, &nothing, 0, start_ns + 700 * S);
    assert_int_equal(at_ns(e, start_ns + 700 * S), start_ns + 700 * S + S / 10);
    for (int i = 0; i < 3; i++)
        governor_session_give(e);
    governor_put(g, e, UINT64_MAX);
    governor_close(g);
}

/* A rate that was lowered before the process began may have let a message go just before: it waits
 * an interval, and only once. */
static void test_lowered_before(void **state)
{
    const struct governor_cap cap = {
        .rate_messages = 1, .rate_period_ms = 60000, .step_ms = 600000};
    const struct governor_limits none = {.generation = 1};
    const uint64_t began_ns = 5000 * S;
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    governor_begin(g, began_ns);
    e = governor_get(g, STR("a"), &none, began_ns + 10 * S);
    governor_cap(g, e, 1, &cap, (int64_t)(began_ns - 100 * S), began_ns + 10 * S);
    assert_int_equal(take(e, began_ns + 10 * S, 1), began_ns + 60 * S);
    governor_cap(g, e, 2, &cap, (int64_t)(began_ns - 100 * S), began_ns + 20 * S);
    assert_int_equal(take(e, began_ns + 60 * S, 1), 0);
    governor_cap(g, e, 3, &cap, (int64_t)(began_ns - 100 * S), began_ns + 61 * S);
    assert_int_equal(take(e, began_ns + 120 * S, 1), 0);
    governor_put(g, e, UINT64_MAX);
    e = governor_get(g, STR("b"), &none, began_ns + 10 * S); /* lowered since */
    governor_cap(g, e, 4, &cap, (int64_t)(began_ns + 9 * S), began_ns + 10 * S);
    assert_int_equal(take(e, began_ns + 10 * S, 1), 0);
    governor_put(g, e, UINT64_MAX);
    governor_close(g);
}

/* Sessions are opened a second ahead of the rate, or a burst, then no faster than it lets through.
 */
static void test_opens(void **state)
{
    const struct governor_limits none = {.sessions_max = 1};
    const struct governor_limits slow = {.rate_messages = 1, .rate_period_ms = 60000};
    const struct governor_limits fast = {.rate_messages = 10, .rate_period_ms = 1000};
    const struct governor_limits burst = {
        .rate_messages = 10, .rate_period_ms = 1000, .rate_burst = 30};
    const struct {
        const struct governor_limits *limits;
        uint64_t at_once, in_a_minute;
    } cases[] = {{&slow, 1, 5}, {&fast, 41, 2441}, {&burst, 121, 2521}};
    const uint64_t now_ns = 1000 * S;
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct governor_entry *e = governor_get(g, STR("a"), cases[i].limits, now_ns);
        uint64_t next_ns = 0, opened = 0;

        for (uint64_t at_ns = now_ns; at_ns <= now_ns + 60 * S; at_ns += S / 100) {
            for (; next_ns <= at_ns; opened++)
                next_ns = governor_open_next(e, next_ns, at_ns);
            if (at_ns == now_ns)
                assert_int_equal(opened, cases[i].at_once);
        }
        assert_int_equal(opened, cases[i].in_a_minute);
        governor_put(g, e, now_ns + 100 * S);
    }
    {
        struct governor_entry *e = governor_get(g, STR("a"), &none, now_ns);

        assert_int_equal(governor_open_next(e, now_ns, now_ns), 0);
        governor_put(g, e, now_ns);
    }
    governor_close(g);
}

/* What waits for a burst that takes a day to come back keeps nothing else in memory. */
static void test_cold_ones_go(void **state)
{
    const struct governor_limits slow = {
        .rate_messages = 1, .rate_period_ms = 60000, .rate_burst = 1440};
    const struct governor_limits fast = {.rate_messages = 1, .rate_period_ms = 1000};
    const uint64_t now_ns = 200000 * S;
    struct governor *g;
    struct governor_entry *slow_one, *fast_one;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    slow_one = governor_get(g, STR("slow"), &slow, now_ns);
    assert_int_equal(take(slow_one, now_ns, 1), 0);
    governor_put(g, slow_one, now_ns);
    fast_one = governor_get(g, STR("fast"), &fast, now_ns);
    assert_int_equal(take(fast_one, now_ns, 1), 0);
    governor_put(g, fast_one, now_ns);
    governor_put(g, governor_get(g, STR("other"), &fast, now_ns + 30 * S), now_ns + 30 * S);
    fast_one = governor_get(g, STR("fast"), &fast, now_ns + 30 * S);
    assert_int_equal(at_ns(fast_one, now_ns + 30 * S), 0); /* made anew */
    slow_one = governor_get(g, STR("slow"), &slow, now_ns + 30 * S);
    assert_true(at_ns(slow_one, now_ns + 30 * S) != 0);
    governor_put(g, fast_one, now_ns + 30 * S);
    governor_put(g, slow_one, now_ns + 30 * S);
    governor_close(g);
}

/* A restart goes on behind a pause where it was; what is known already is better. */
static void test_restore(void **state)
{
    const struct governor_limits five = {.sessions_max = 5};
    uint32_t pause_s, sessions;
    uint64_t open, most;
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &five, 0);
    assert_false(governor_recovers(e, &pause_s, &sessions));
    governor_restore(e, 600, 3);
    governor_sessions(e, S, &open, &most);
    assert_int_equal(most, 3);
    assert_int_equal(governor_recovery_s(e), 0);
    assert_true(governor_recovers(e, &pause_s, &sessions));
    assert_int_equal(pause_s, 600);
    assert_int_equal(sessions, 4);
    governor_restore(e, 600, 1); /* as stored a moment ago */
    governor_sessions(e, S, &open, &most);
    assert_int_equal(most, 4);
    assert_true(governor_recovers(e, &pause_s, &sessions));
    assert_int_equal(sessions, 0);
    governor_restore(e, 600, 4);
    governor_sessions(e, S, &open, &most);
    assert_int_equal(most, 5);
    governor_put(g, e, UINT64_MAX);
    e = governor_get(g, STR("b"), &five, 0);
    governor_recover(e, 60, 5);
    governor_restore(e, 600, 4);
    assert_int_equal(governor_recovery_s(e), 60);
    governor_put(g, e, UINT64_MAX);
    governor_close(g);
}

/* A site that comes and goes does not get a fresh allowance. */
static void test_rate_survives(void **state)
{
    const struct governor_limits slow = {.rate_messages = 1, .rate_period_ms = 60000};
    const uint64_t now_ns = UINT64_C(5000000000);
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &slow, 0);
    assert_int_equal(take(e, now_ns, 1), 0);
    governor_put(g, e, now_ns);
    e = governor_get(g, STR("a"), &slow, 0);
    assert_true(take(e, now_ns + 1000, 1) > 0);
    governor_put(g, e, now_ns);
    governor_close(g);
}

/* A reload: what is left of the old interval is waited for in its part of the new one, a worker
 * that is late with the old configuration changes nothing, and taking a rate away and giving it
 * again is no message more. */
static void test_rate_changes(void **state)
{
    const struct governor_limits slow = {
        .rate_messages = 1, .rate_period_ms = 60000, .sessions_max = 1, .generation = 1};
    const struct governor_limits fast = {
        .rate_messages = 1, .rate_period_ms = 6000, .sessions_max = 5, .generation = 2};
    const struct governor_limits none = {.sessions_max = 5, .generation = 3};
    const struct governor_limits again = {
        .rate_messages = 1, .rate_period_ms = 6000, .sessions_max = 5, .generation = 4};
    const uint64_t s = UINT64_C(1000000000), now_ns = 5 * s;
    struct governor *g;
    struct governor_entry *e;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a"), &slow, now_ns);
    assert_int_equal(take(e, now_ns, 1), 0);
    assert_ptr_equal(governor_get(g, STR("a"), &fast, now_ns + 30 * s), e); /* half is over */
    assert_int_equal(at_ns(e, now_ns), now_ns + 33 * s);
    assert_ptr_equal(governor_get(g, STR("a"), &slow, now_ns + 30 * s), e);
    assert_int_equal(at_ns(e, now_ns), now_ns + 33 * s);
    assert_int_equal(take(e, now_ns + 33 * s, 1), 0);
    assert_ptr_equal(governor_get(g, STR("a"), &none, now_ns + 34 * s), e);
    assert_int_equal(at_ns(e, now_ns), 0);
    assert_ptr_equal(governor_get(g, STR("a"), &again, now_ns + 34 * s), e);
    assert_int_equal(take(e, now_ns + 34 * s, 1), now_ns + 39 * s);
    for (int i = 0; i < 5; i++)
        governor_put(g, e, UINT64_MAX);
    governor_close(g);
}

struct hammer {
    struct governor_entry *e;
    uint32_t worker;
    _Atomic uint32_t *open, *peak;
};

static void *hammer(void *arg)
{
    struct hammer *h = arg;

    for (int i = 0; i < 20000; i++) {
        uint32_t now, peak;

        if (!governor_session_take(h->e, h->worker, 0))
            continue;
        now = atomic_fetch_add(h->open, 1) + 1;
        peak = atomic_load(h->peak);
        while (now > peak && !atomic_compare_exchange_weak(h->peak, &peak, now))
            ;
        atomic_fetch_sub(h->open, 1);
        governor_session_give(h->e);
    }
    return NULL;
}

static void test_threads(void **state)
{
    _Atomic uint32_t open = 0, peak = 0;
    struct governor *g;
    struct hammer h[4];
    pthread_t threads[4];

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    for (uint32_t i = 0; i < 4; i++) {
        h[i] = (struct hammer){governor_get(g, STR("a"), &two, 0), i, &open, &peak};
        pthread_create(&threads[i], NULL, hammer, &h[i]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        governor_put(g, h[i].e, 0);
    }
    assert_true(atomic_load(&peak) <= 2);
    governor_close(g);
}

/* Bytes and recipients: in no window more than the rate gives, the burst, and one message; and as
 * much as that where there always is mail. What another limit refused is given back. */
static void test_loads(void **state)
{
    enum { RATE = 50000, BURST = 200000, MOST = 90000 };
    const struct governor_limits limits = {.bytes = {RATE * 60, 60000, BURST},
                                           .recipients = {7, 1000, 3}};
    uint64_t now_ns = 1000 * S, begun_ns = now_ns, bytes = 0, recipients = 0;
    double level = 0, most = 0, crowd = 0, crowd_most = 0;
    struct governor_entry *e;
    struct governor *g;
    struct rng rng;

    (void)state;
    rng_seed(&rng, 5);
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("a|x"), &limits, 0);
    assert_non_null(e);
    while (now_ns < begun_ns + 500 * S) {
        struct governor_load load = {.recipients = 1, .bytes = rng_below(&rng, MOST)};
        uint64_t step_ns = 1000000 + rng_below(&rng, 20000000), at;
        enum governor_counts by = GOVERNOR_MESSAGES;
        uint32_t more;

        now_ns += step_ns;
        level = level < RATE * 1e-9 * (double)step_ns ? 0 : level - RATE * 1e-9 * (double)step_ns;
        crowd = crowd < 7e-9 * (double)step_ns ? 0 : crowd - 7e-9 * (double)step_ns;
        at = governor_message_take(e, now_ns, &load, &by);
        if (at != 0) {
            assert_true(at > now_ns && (by == GOVERNOR_BYTES || by == GOVERNOR_RECIPIENTS));
            assert_true(at == governor_message_at(e, now_ns, &by) || by != GOVERNOR_MESSAGES);
            continue;
        }
        more = governor_recipients_more(e, now_ns, 5);
        assert_true(more <= 5);
        if (rng_below(&rng, 4) == 0) {
            governor_recipients_give(e, now_ns, more);
            governor_message_give(e, now_ns, &load, 0);
            continue;
        }
        /* A third of the size was not known before. */
        governor_bytes_more(e, now_ns, (int64_t)load.bytes / 2);
        bytes += load.bytes + load.bytes / 2;
        recipients += 1 + more;
        level += (double)(load.bytes + load.bytes / 2);
        crowd += 1 + more;
        most = level > most ? level : most;
        crowd_most = crowd > crowd_most ? crowd : crowd_most;
    }
    assert_true(most <= BURST + 1.5 * MOST + RATE * 0.011);
    assert_true(crowd_most <= 3 + 1 + 7 * 0.003);
    /* One of them binds. */
    assert_true((double)bytes > 0.97 * RATE * 500 || (double)recipients > 0.97 * 7 * 500);
    governor_put(g, e, now_ns + 100 * S);
    governor_close(g);
}

/* A rate of bytes so high that a nanosecond is many of them, and one so low that a message takes
 * days. */
static void test_byte_rates(void **state)
{
    const struct governor_limits fast = {.bytes = {UINT64_C(3) << 30, 1000, 0}};
    const struct governor_limits slow = {.bytes = {1, 86400000, 0}};
    struct governor_load load = {.recipients = 1, .bytes = UINT64_C(3) << 20};
    uint64_t now_ns = 1000 * S;
    enum governor_counts by;
    struct governor_entry *e;
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = governor_get(g, STR("fast"), &fast, now_ns);
    assert_int_equal(governor_message_take(e, now_ns, &load, &by), 0);
    /* 10 ms may be made up for, of the 976562.5 ns that it takes. */
    assert_int_equal(governor_message_take(e, now_ns, &load, &by), 0);
    for (int i = 0; i < 1024; i++)
        (void)governor_message_take(e, now_ns, &load, &by);
    assert_in_range(governor_message_at(e, now_ns, &by), now_ns + 1, now_ns + S / 1024);
    governor_put(g, e, now_ns + S);
    e = governor_get(g, STR("slow"), &slow, now_ns);
    assert_int_equal(governor_message_take(e, now_ns, &load, &by), 0);
    assert_true(governor_message_take(e, now_ns + 86400 * S, &load, &by) > now_ns + 86400 * S);
    assert_int_equal(by, GOVERNOR_BYTES);
    governor_put(g, e, now_ns);
    governor_close(g);
}

static void see_named(void *arg, const struct governor_entry *e)
{
    struct buf *out = arg;

    buf_printf(out, "%.*s at %.*s%s;", STR_FMT(governor_source(e)), STR_FMT(governor_site(e)),
               e->provider ? " together" : "");
}

/* Entries that screens show say whose they are, also when nobody has them any more and something
 * was counted; others are not visited. */
static void test_named(void **state)
{
    const struct governor_limits none = {0};
    struct governor_entry *own, *other;
    struct governor *g;
    struct buf seen = {0};

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    own = governor_get(g, STR("a1|provider:google|(mx1|mx2).x.example"), &none, 0);
    governor_name(g, own, "a1", "google", true);
    other = governor_get(g, STR(":host|*|mx1.example"), &none, 0);
    governor_visit(g, see_named, &seen);
    assert_true(str_eq(buf_str(&seen), STR("a1 at google together;")));
    governor_hold(own, GOVERNOR_SESSIONS, 5);
    governor_put(g, own, 0);
    governor_put(g, other, 0);
    buf_clear(&seen);
    governor_visit(g, see_named, &seen);
    assert_true(str_eq(buf_str(&seen), STR("a1 at google together;")));
    assert_null(governor_find(g, STR(":host|*|mx1.example")));
    buf_done(&seen);
    governor_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_time_slice),
        cmocka_unit_test(test_slow_down),
        cmocka_unit_test(test_withdraw),
        cmocka_unit_test(test_give),
        cmocka_unit_test(test_step_down),
        cmocka_unit_test(test_recovery),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stop_of_a_refuser),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_connects),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_sums_stay),
        cmocka_unit_test(test_rate_survives),
        cmocka_unit_test(test_burst),
        cmocka_unit_test(test_burst_survives),
        cmocka_unit_test(test_rate_changes),
        cmocka_unit_test(test_cap),
        cmocka_unit_test(test_cold_ones_go),
        cmocka_unit_test(test_lowered_before),
        cmocka_unit_test(test_opens),
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_loads),
        cmocka_unit_test(test_byte_rates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

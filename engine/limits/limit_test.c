#include "limits/limit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define S UINT64_C(1000000000)

static struct governor_entry *entry(struct governor *g, const char *key, uint64_t messages,
                                    uint32_t period_ms)
{
    struct governor_limits limits = {.rate_messages = messages, .rate_period_ms = period_ms};
    struct governor_entry *e = governor_get(g, str_of(key), &limits, 0);

    assert_non_null(e);
    return e;
}

static const struct governor_load one = {.recipients = 1, .bytes = 1000};

static uint64_t take(struct governor_entry *e, uint64_t now_ns)
{
    enum governor_counts by;

    return governor_message_take(e, now_ns, &one, &by);
}

/* The narrow one refuses: the wide one, which was asked before, is as if it had not been. */
static void test_all_or_none(void **state)
{
    struct limit limits[2] = {{.kind = LIMIT_RATE}, {.kind = LIMIT_TOTAL_RATE}};
    struct limit_denial why = {0};
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    limits[0].entry = entry(g, "wide", 10, 1000);
    limits[1].entry = entry(g, "narrow", 1, 1000);
    assert_int_equal(limits_take(limits, 2, 100 * S, &one, &why), 0);
    assert_int_equal(limits_take(limits, 2, 100 * S + S / 2, &one, &why), -EAGAIN);
    assert_int_equal(why.kind, LIMIT_TOTAL_RATE);
    assert_string_equal(limit_name(why.kind, why.counts), "total_rate");
    assert_int_equal(why.until_ns, 101 * S);
    assert_int_equal(why.max, 1);
    assert_int_equal(why.period_ms, 1000);
    /* Nothing of the wide one was taken, nor given back beyond the present. */
    assert_int_equal(governor_message_at(limits[0].entry, 100 * S, NULL), 100 * S + S / 2);
    assert_int_equal(take(limits[0].entry, 100 * S + S / 2), 0);
    governor_put(g, limits[0].entry, 0);
    governor_put(g, limits[1].entry, 0);
    governor_close(g);
}

static void test_ask(void **state)
{
    struct limit limits[3] = {
        {.kind = LIMIT_RATE}, {.kind = LIMIT_TOTAL_RATE}, {.kind = LIMIT_RATE}};
    struct limit_denial why = {0};
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    assert_int_equal(limits_ask(limits, 3, S, &why), 0); /* no limits at all */
    assert_int_equal(limits_take(limits, 3, S, &one, &why), 0);
    limits[0].entry = entry(g, "a", 1, 1000);
    limits[1].entry = entry(g, "b", 1, 3000);
    assert_int_equal(limits_take(limits, 3, S, &one, &why), 0);
    assert_int_equal(limits_ask(limits, 3, S, &why), -EAGAIN);
    assert_int_equal(why.kind, LIMIT_TOTAL_RATE); /* the one that lasts longest */
    assert_int_equal(why.until_ns, 4 * S);
    assert_int_equal(limits_ask(limits, 3, 4 * S, &why), 0);
    governor_put(g, limits[0].entry, 0);
    governor_put(g, limits[1].entry, 0);
    governor_close(g);
}

/* Given back late, a message's right is gone: what the peer sees stays below the rate. */
static void test_given_late(void **state)
{
    struct governor_entry *e;
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    e = entry(g, "a", 1, 1000);
    assert_int_equal(take(e, 10 * S), 0);
    governor_message_give(e, 10 * S + S / 4, &one, S / 4);
    assert_int_equal(governor_message_at(e, 10 * S, NULL), 10 * S + S / 4);
    assert_int_equal(take(e, 10 * S + S / 4), 0);
    assert_int_equal(take(e, 11 * S + S / 4), 0);
    /* The time of the first has passed: the second has waited it out, and goes. */
    governor_message_give(e, 11 * S + S / 2, &one, S + S / 4);
    assert_int_equal(governor_message_at(e, 11 * S, NULL), 12 * S + S / 4);
    governor_message_give(e, 20 * S, &one, 9 * S);
    assert_int_equal(governor_message_at(e, 20 * S, NULL), 12 * S + S / 4);
    governor_put(g, e, 0);
    governor_close(g);
}

/* A limit whose sessions are all open, used how far; what the peer refused counts. */
static void test_sessions(void **state)
{
    struct governor_limits two = {.sessions_max = 2};
    struct limit limit = {.kind = LIMIT_TOTAL_RATE};
    struct limit_denial why = {0};
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    limit.entry = governor_get(g, STR("a"), &two, 0);
    assert_true(governor_session_take(limit.entry, 0, S));
    assert_true(governor_session_take(limit.entry, 0, S));
    limit_sessions_denial(&limit, S, &why);
    assert_string_equal(limit_denial_key(&why), "total_sessions_max");
    assert_true(why.used == 2 && why.max == 2 && !why.by_peer);
    limit.kind = LIMIT_RATE;
    governor_slow_down(limit.entry, S);
    limit_sessions_denial(&limit, S, &why);
    assert_string_equal(limit_denial_key(&why), "sessions_max");
    assert_true(why.used == 2 && why.max == 1 && why.by_peer);
    governor_session_give(limit.entry);
    governor_session_give(limit.entry);
    governor_put(g, limit.entry, 0);
    governor_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_or_none),
                                       cmocka_unit_test(test_ask), cmocka_unit_test(test_sessions),
                                       cmocka_unit_test(test_given_late)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

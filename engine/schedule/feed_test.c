#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <time.h>

#include "base/rng.h"
#include "schedule/feed.h"
#include "schedule/lane.h"

#define LANES 64

/* Flows 1.. of tenants "a", "b", "c"; flow 9 is of a better priority. */
static const struct queue_flow names[] = {
    {.id = 0, .priority = 5, .tenant = STR("a")}, {.id = 1, .priority = 5, .tenant = STR("a")},
    {.id = 2, .priority = 5, .tenant = STR("a")}, {.id = 3, .priority = 5, .tenant = STR("b")},
    {.id = 4, .priority = 5, .tenant = STR("c")}, {.id = 5, .priority = 5, .tenant = STR("")},
    {.id = 6, .priority = 9, .tenant = STR("a")}, {.id = 7, .priority = 9, .tenant = STR("b")},
    {.id = 8, .priority = 0, .tenant = STR("a")}, {.id = 9, .priority = 0, .tenant = STR("b")},
};

static struct lane lanes[LANES];
static struct feed feed;

static struct feed_weights weights[ARRAY_LEN(names)];

static struct feed_weights weigh(const struct lane *lane)
{
    return lane->flow < ARRAY_LEN(weights) ? weights[lane->flow] : (struct feed_weights){1, 1};
}

static int setup(void **state)
{
    (void)state;
    memset(lanes, 0, sizeof(lanes));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        weights[i] = (struct feed_weights){1, 1};
    feed_init(&feed);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < LANES; i++)
        feed_remove(&feed, &lanes[i]);
    feed_done(&feed);
    return 0;
}

static struct lane *ready(size_t i, uint32_t flow)
{
    lanes[i].flow = flow;
    lanes[i].names = &names[flow];
    feed_add(&feed, &lanes[i], weigh);
    return &lanes[i];
}

/* Serves turns messages of n recipients; counts those of each flow. */
static void serve(size_t turns, size_t n, size_t served[ARRAY_LEN(names)])
{
    memset(served, 0, ARRAY_LEN(names) * sizeof(*served));
    for (size_t i = 0; i < turns; i++) {
        struct lane *lane = feed_next(&feed);

        assert_non_null(lane);
        feed_turn(&feed, lane);
        feed_pay_more(&feed, lane, n - 1);
        served[lane->flow] += n;
    }
}

static void test_tenants_share(void **state)
{
    size_t served[ARRAY_LEN(names)];

    (void)state;
    for (size_t i = 0; i < 30; i++) /* many lanes and two flows are no more than one */
        ready(i, 1 + i % 2);
    ready(30, 3);
    ready(31, 4);
    serve(300, 1, served);
    assert_int_equal(served[3], 100);
    assert_int_equal(served[4], 100);
    assert_int_equal(served[1], 50);
    assert_int_equal(served[2], 50);
}

/* Ten parts are shared as 6, 3 and 1, and the first one's by its campaigns as 2 to 1. */
static void test_weights(void **state)
{
    size_t served[ARRAY_LEN(names)];

    (void)state;
    weights[1] = (struct feed_weights){6, 2};
    weights[2] = (struct feed_weights){6, 1};
    weights[3] = (struct feed_weights){3, 5};
    for (size_t i = 0; i < 20; i++)
        ready(i, 1 + i % 2);
    ready(30, 3);
    ready(31, 4);
    serve(1000, 1, served);
    assert_int_equal(served[1], 400);
    assert_int_equal(served[2], 200);
    assert_int_equal(served[3], 300);
    assert_int_equal(served[4], 100);
    serve(1000, 7, served);
    assert_in_range(served[1], 7 * 390, 7 * 410);
    assert_in_range(served[2], 7 * 190, 7 * 210);
    assert_in_range(served[3], 7 * 290, 7 * 310);
    assert_in_range(served[4], 7 * 90, 7 * 110);
}

static void test_priority_first(void **state)
{
    size_t served[ARRAY_LEN(names)];

    (void)state;
    ready(0, 1);
    ready(1, 6);
    serve(10, 1, served);
    assert_int_equal(served[1], 10);
    ready(2, 8);
    ready(3, 9);
    serve(10, 1, served);
    assert_int_equal(served[8], 5);
    assert_int_equal(served[9], 5);
    feed_remove(&feed, &lanes[2]);
    feed_remove(&feed, &lanes[3]);
    feed_remove(&feed, &lanes[0]);
    serve(10, 1, served);
    assert_int_equal(served[6], 10);
}

/* Who sends to many at once waits until the others had as many. */
static void test_recipients_count(void **state)
{
    size_t one = 0, many = 0;

    (void)state;
    ready(0, 3);
    ready(1, 4);
    for (size_t i = 0; i < 1010; i++) {
        struct lane *lane = feed_next(&feed);
        size_t n = lane->flow == 4 ? 100 : 1;

        feed_turn(&feed, lane);
        feed_pay_more(&feed, lane, n - 1);
        *(n == 1 ? &one : &many) += n;
    }
    assert_true(one + 101 >= many && many + 101 >= one);
}

/* A lane that leaves with each message, as lanes of one recipient do, has paid all the same. */
static void test_lanes_that_leave(void **state)
{
    size_t served[ARRAY_LEN(names)] = {0};
    size_t next = 1;

    (void)state;
    ready(0, 3);
    for (size_t i = 1; i < 40; i++)
        ready(i, 1);
    for (size_t i = 0; i < 60; i++) {
        struct lane *lane = feed_next(&feed);

        feed_turn(&feed, lane);
        served[lane->flow]++;
        if (lane->flow == 1) {
            feed_remove(&feed, lane);
            assert_ptr_equal(lane, &lanes[next++]);
        }
    }
    assert_int_equal(served[1], 30);
    assert_int_equal(served[3], 30);
}

/* A lane whose window a transaction empties, and that a load fills again, owes what it took. */
static void test_debt_outlives_the_window(void **state)
{
    size_t one = 0, many = 0;

    (void)state;
    ready(0, 3);
    ready(1, 4);
    for (size_t i = 0; i < 1000; i++) {
        struct lane *lane = feed_next(&feed);

        feed_turn(&feed, lane);
        if (lane->flow == 3) {
            one++;
            continue;
        }
        feed_remove(&feed, lane);
        feed_pay_more(&feed, lane, 31);
        many += 32;
        ready(1, 4);
    }
    assert_true(one + 33 >= many && many + 33 >= one);
}

/* What was taken while nobody else was there is no debt. */
static void test_alone_nothing_is_owed(void **state)
{
    size_t served[ARRAY_LEN(names)];
    struct lane *lane = ready(0, 3);

    (void)state;
    assert_ptr_equal(feed_next(&feed), lane);
    feed_turn(&feed, lane);
    feed_remove(&feed, lane);
    feed_pay_more(&feed, lane, 999);
    ready(0, 3);
    ready(1, 4);
    serve(20, 1, served);
    assert_int_equal(served[3], 10);
}

static void test_newcomers_have_no_credit(void **state)
{
    size_t served[ARRAY_LEN(names)];

    (void)state;
    ready(0, 3);
    serve(1000, 1, served);
    ready(1, 4);
    serve(10, 1, served);
    assert_int_equal(served[4], 5);
    feed_remove(&feed, &lanes[1]);
    serve(1000, 1, served);
    ready(1, 4);
    serve(10, 1, served);
    assert_int_equal(served[4], 5);
}

/* Against a plain model: whatever comes and goes, what is ready is found and nothing else. */
static void test_random(void **state)
{
    bool in[LANES] = {0};
    struct rng rng;
    size_t n = 0;

    (void)state;
    rng_seed(&rng, 7);
    for (int step = 0; step < 200000; step++) {
        size_t i = rng_below(&rng, LANES);
        struct lane *lane;

        switch (rng_below(&rng, 3)) {
        case 0:
            if (!in[i]) {
                lanes[i].flow = (uint32_t)rng_below(&rng, ARRAY_LEN(names));
                lanes[i].names = &names[lanes[i].flow];
                n++;
            }
            in[i] = true;
            feed_add(&feed, &lanes[i], weigh);
            break;
        case 1:
            n -= in[i];
            in[i] = false;
            feed_remove(&feed, &lanes[i]);
            break;
        default:
            lane = feed_next(&feed);
            assert_int_equal(lane != NULL, n > 0);
            if (lane == NULL)
                break;
            assert_true(in[lane - lanes]);
            for (size_t j = 0; j < LANES; j++)
                assert_true(!in[j] || lane_priority(&lanes[j]) >= lane_priority(lane));
            feed_turn(&feed, lane);
            feed_pay_more(&feed, lane, rng_below(&rng, 300));
        }
        assert_int_equal(feed_empty(&feed), n == 0);
    }
}

static const struct limit of_tenant = {.kind = LIMIT_TENANT},
                          of_campaign = {.kind = LIMIT_CAMPAIGN};

static const struct limit *tenant_limit, *campaign_limit; /* NULL: of_tenant ... */

/* Of tenants "a" and "b", and of all flows. */
static struct feed_limits limits_of(const struct lane *lane)
{
    bool limited = lane->names->tenant.len > 0 && lane->names->tenant.ptr[0] != 'c';

    if (tenant_limit != NULL)
        return (struct feed_limits){.tenant = tenant_limit, .campaign = campaign_limit};
    return (struct feed_limits){.tenant = limited ? &of_tenant : NULL, .campaign = &of_campaign};
}

static void on_held(void *arg, const struct limit *limit, enum governor_counts counts, uint64_t ms)
{
    assert_true(limit == &of_tenant || limit == &of_campaign);
    assert_int_equal(counts, GOVERNOR_BYTES);
    *(uint64_t *)arg += ms;
}

static void hold(struct lane *lane, enum limit_kind kind, uint64_t now_ns, uint64_t until_ns)
{
    feed_hold(&feed, lane, now_ns,
              &(struct limit_denial){.kind = kind, .counts = GOVERNOR_BYTES, .until_ns = until_ns});
}

static uint64_t warm_at; /* when the warm-up of the flows that have one lets them go on */

static uint64_t warms_at(void *arg, const struct warmup_set *set)
{
    (void)arg;
    return warmup_set_empty(set) ? 0 : warm_at;
}

static struct feed_limits warms_flow_2(const struct lane *lane)
{
    static struct warmup_stream stream;

    return (struct feed_limits){.warmup.of[CONFIG_WARMUP_CAMPAIGN] =
                                    lane->flow == 2 ? &stream : NULL};
}

/* A flow that is being warmed up takes part when its warm-up lets something go, and not before: no
 * session is opened for it. Others of its tenant go on. */
static void test_warmed_flow(void **state)
{
    uint64_t held_ms = 0;

    (void)state;
    feed.limits_of = warms_flow_2;
    warm_at = 100;
    ready(0, 2);
    assert_true(feed_empty(&feed));
    feed_release(&feed, 50, false, warms_at, on_held, &held_ms);
    assert_true(feed_empty(&feed) && feed.held_ns == 100);
    assert_true(feed_is_held(&feed, &lanes[0], 99) && !feed_is_held(&feed, &lanes[0], 100));
    ready(1, 1);
    assert_ptr_equal(feed_next(&feed), &lanes[1]);
    assert_true(warmup_set_empty(feed_warmup(&feed, &lanes[1])));
    assert_false(warmup_set_empty(feed_warmup(&feed, &lanes[0])));
    feed_remove(&feed, &lanes[1]);
    warm_at = 0;
    feed_release(&feed, 100, false, warms_at, on_held, &held_ms);
    assert_ptr_equal(feed_next(&feed), &lanes[0]);
    hold(&lanes[0], LIMIT_WARMUP, 101, 200);
    assert_true(feed_empty(&feed));
    feed_remove(&feed, &lanes[0]); /* it remembers while it has no lane */
    ready(0, 2);
    assert_true(feed_empty(&feed));
    assert_false(warmup_set_empty(feed_warmup(&feed, &lanes[0])));
    feed_release(&feed, 200, false, warms_at, on_held, &held_ms);
    assert_ptr_equal(feed_next(&feed), &lanes[0]);
    assert_int_equal(held_ms, 0);
}

/* A tenant that waits for its limit holds up nobody else, and comes back in time, with its debt. */
static void test_held_tenant(void **state)
{
    size_t served[ARRAY_LEN(names)];
    uint64_t held_ms = 0;

    (void)state;
    feed.limits_of = limits_of;
    ready(0, 1);
    ready(1, 2);
    ready(2, 3);
    assert_ptr_equal(feed_next(&feed), &lanes[0]);
    hold(&lanes[0], LIMIT_TENANT, 5, 2000005);
    serve(10, 1, served);
    assert_int_equal(served[3], 10);
    hold(&lanes[2], LIMIT_TENANT, 5, 9000005);
    assert_true(feed_empty(&feed) && feed_next(&feed) == NULL);
    assert_int_equal(feed.held_ns, 2000005);
    feed_release(&feed, 2000004, false, warms_at, on_held, &held_ms);
    assert_true(feed_empty(&feed));
    feed_release(&feed, 2000005, false, warms_at, on_held, &held_ms);
    assert_int_equal(held_ms, 2);
    assert_int_equal(feed.held_ns, 9000005);
    serve(10, 1, served);
    assert_int_equal(served[1] + served[2], 10);
    feed_remove(&feed, &lanes[2]); /* while it is held */
    ready(2, 3);
    serve(10, 1, served);
    assert_int_equal(served[3], 0);
}

/* Many feeds have shares under one limit: one after the other may look for a message, not all. */
static void test_paced(void **state)
{
    const struct governor_limits slow = {.rate_messages = 1, .rate_period_ms = 4000};
    struct limit limit = {.kind = LIMIT_TENANT};
    struct feed feeds[4];
    uint64_t held_ms = 0, now_ns = UINT64_C(100000000000);
    unsigned open = 0;
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    limit.entry = governor_get(g, STR("tenant"), &slow, 0);
    tenant_limit = &limit;
    for (size_t i = 0; i < ARRAY_LEN(feeds); i++) {
        feed_init(&feeds[i]);
        feeds[i].limits_of = limits_of;
        feeds[i].paced = true;
        lanes[i].flow = 3;
        lanes[i].names = &names[3];
        feed_add(&feeds[i], &lanes[i], weigh);
        assert_true(feed_empty(&feeds[i]));
    }
    for (size_t i = 0; i < ARRAY_LEN(feeds); i++) {
        feed_release(&feeds[i], now_ns, false, warms_at, on_held, &held_ms);
        open += !feed_empty(&feeds[i]);
    }
    assert_int_equal(open, 2); /* the first, and the second that lets others be ahead by a second */
    feed_release(&feeds[3], now_ns, true, warms_at, on_held, &held_ms);
    assert_true(feed_empty(&feeds[3])); /* told when to ask again */
    for (size_t i = 0; i < ARRAY_LEN(feeds); i++)
        feed_release(&feeds[i], now_ns + 3 * UINT64_C(1000000000), false, warms_at, on_held,
                     &held_ms);
    for (size_t i = 0, n = 0; i < ARRAY_LEN(feeds); i++) {
        n += !feed_empty(&feeds[i]);
        feed_remove(&feeds[i], &lanes[i]);
        feed_done(&feeds[i]);
        assert_true(i < 3 || n == 4);
    }
    tenant_limit = NULL;
    governor_put(g, limit.entry, now_ns + 60 * UINT64_C(1000000000));
    governor_close(g);
}

/* The tenant refuses: the campaign, which was asked before, is as if it had not been. */
static void test_both_or_none(void **state)
{
    const struct governor_limits ten = {.rate_messages = 10, .rate_period_ms = 10000};
    const struct governor_limits one = {.rate_messages = 1, .rate_period_ms = 10000};
    static const struct governor_load load = {.recipients = 1};
    struct limit tenant = {.kind = LIMIT_TENANT}, campaign = {.kind = LIMIT_CAMPAIGN};
    uint64_t now_ns = UINT64_C(100000000000);
    struct limit_denial why;
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    tenant.entry = governor_get(g, STR("tenant"), &one, 0);
    campaign.entry = governor_get(g, STR("campaign"), &ten, 0);
    feed.limits_of = limits_of;
    tenant_limit = &tenant;
    campaign_limit = &campaign;
    ready(0, 1);
    assert_int_equal(feed_limits_take(&lanes[0], now_ns, &load, &why), 0);
    assert_int_equal(feed_limits_ask(&feed, &lanes[0], now_ns, &why), -EAGAIN);
    assert_int_equal(why.kind, LIMIT_TENANT); /* it lasts longer */
    now_ns += UINT64_C(5000000000);
    assert_int_equal(feed_limits_take(&lanes[0], now_ns, &load, &why), -EAGAIN);
    assert_int_equal(why.kind, LIMIT_TENANT);
    assert_true(governor_message_at(campaign.entry, now_ns, NULL) <= now_ns);
    feed_remove(&feed, &lanes[0]);
    feed_done(&feed);
    feed_init(&feed);
    tenant_limit = campaign_limit = NULL;
    governor_put(g, tenant.entry, now_ns);
    governor_put(g, campaign.entry, now_ns);
    governor_close(g);
}

static const struct limit of_total = {.kind = LIMIT_CAMPAIGN_TOTAL};
static bool has_total;

static struct feed_limits total_of(const struct lane *lane)
{
    (void)lane;
    return (struct feed_limits){.campaign_total = has_total ? &of_total : NULL};
}

/* A campaign is set to a rate, and to none, while several of its lanes are ready: each lane hears
 * of it by itself, and the first one's news are the flow's. */
static void test_renewed_while_ready(void **state)
{
    (void)state;
    feed.limits_of = total_of;
    for (size_t i = 0; i < 3; i++)
        ready(i, 1);
    ready(3, 2);
    for (uint32_t version = 1; version <= 3; version++) {
        has_total = version != 3;
        for (size_t i = 0; i < 3; i++) {
            feed_remove(&feed, &lanes[i]);
            lanes[i].names_version = version;
            ready(i, 1);
            assert_int_equal(feed_is_held(&feed, &lanes[i], 0), version != 3 || i == 0);
            feed_remove(&feed, &lanes[3]);
            assert_int_equal(feed_empty(&feed), feed_next(&feed) == NULL);
            ready(3, 2);
            if (version == 3) /* the flow was held: it may go on at the next look */
                feed_release(&feed, 5, false, warms_at, on_held, NULL);
        }
    }
    hold(&lanes[0], LIMIT_CAMPAIGN, 5, 10);
    feed_remove(&feed, &lanes[3]);
    assert_true(feed_empty(&feed));
}

static const struct limit *total_limit;

static struct feed_limits of_total_limit(const struct lane *lane)
{
    (void)lane;
    return (struct feed_limits){.campaign_total = total_limit};
}

/* Thousands of feeds have mail of a campaign with a rate over all sites: some of them come for each
 * message that may go, not all, and the rate is used. */
static void test_total_of_many(void **state)
{
    enum { FEEDS = 4000, MS = 2000 };
    const struct governor_limits rate = {.rate_messages = 500, .rate_period_ms = 1000};
    static const struct governor_load load = {.recipients = 1};
    struct limit limit = {.kind = LIMIT_CAMPAIGN_TOTAL};
    struct feed *feeds = calloc(FEEDS, sizeof(*feeds));
    struct lane *many = calloc(FEEDS, sizeof(*many));
    uint64_t now_ns = UINT64_C(100000000000);
    size_t looks = 0, sent = 0;
    struct limit_denial why;
    struct governor *g;

    (void)state;
    assert_true(feeds != NULL && many != NULL);
    assert_int_equal(governor_open(&g), 0);
    limit.entry = governor_get(g, STR("total"), &rate, 0);
    total_limit = &limit;
    for (size_t i = 0; i < FEEDS; i++) {
        feed_init(&feeds[i]);
        feeds[i].limits_of = of_total_limit;
        many[i].flow = 1;
        many[i].names = &names[1];
        feed_add(&feeds[i], &many[i], weigh);
    }
    for (int ms = 0; ms < MS; ms++, now_ns += 1000000)
        for (size_t i = 0; i < FEEDS; i++) {
            if (feeds[i].held_ns > now_ns)
                continue;
            looks++;
            feed_release(&feeds[i], now_ns, true, warms_at, on_held, NULL);
            while (!feed_empty(&feeds[i])) {
                if (feed_limits_take(&many[i], now_ns, &load, &why) == 0)
                    sent++;
                else
                    feed_hold(&feeds[i], &many[i], now_ns, &why);
            }
        }
    assert_in_range(sent, 950, 1020);
    assert_true(looks < 12 * (size_t)FEEDS); /* of 500,000 and more */
    for (size_t i = 0; i < FEEDS; i++) {
        feed_remove(&feeds[i], &many[i]);
        feed_done(&feeds[i]);
    }
    total_limit = NULL;
    free(many);
    free(feeds);
    governor_put(g, limit.entry, now_ns + 60 * UINT64_C(1000000000));
    governor_close(g);
}

struct share_model {
    uint8_t priority;
    struct str tenant;
    uint64_t until;
};

/* Shares that are held and released at random: what is found is of none that is held. */
static void test_random_holds(void **state)
{
    struct share_model tenants[ARRAY_LEN(names)] = {0};
    uint64_t flow_until[ARRAY_LEN(names)] = {0}, held_ms = 0, now = 1;
    bool in[LANES] = {0};
    struct rng rng;

    (void)state;
    feed.limits_of = limits_of;
    rng_seed(&rng, 11);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        tenants[i] = (struct share_model){names[i].priority, names[i].tenant, 0};
    for (int step = 0; step < 200000; step++) {
        size_t i = rng_below(&rng, LANES), may = 0;
        struct lane *lane;

        now += rng_below(&rng, 3);
        if (rng_below(&rng, 2) == 0) {
            if (!in[i]) {
                lanes[i].flow = (uint32_t)rng_below(&rng, ARRAY_LEN(names));
                lanes[i].names = &names[lanes[i].flow];
                feed_add(&feed, &lanes[i], weigh);
            } else {
                feed_remove(&feed, &lanes[i]);
            }
            in[i] = !in[i];
        }
        feed_release(&feed, now, false, warms_at, on_held, &held_ms); /* as each look at a supply */
        for (size_t j = 0; j < LANES; j++)
            if (in[j]) {
                uint64_t until = flow_until[lanes[j].flow];

                for (size_t t = 0; t < ARRAY_LEN(names); t++)
                    if (tenants[t].priority == lane_priority(&lanes[j]) &&
                        str_eq(tenants[t].tenant, lane_tenant(&lanes[j])) &&
                        tenants[t].until > until)
                        until = tenants[t].until;
                may += until <= now;
            }
        lane = feed_next(&feed);
        assert_int_equal(lane != NULL, may > 0);
        assert_int_equal(feed_empty(&feed), may == 0);
        if (lane == NULL)
            continue;
        assert_true(in[lane - lanes] && flow_until[lane->flow] <= now);
        switch (rng_below(&rng, 4)) {
        case 0:
            flow_until[lane->flow] = now + 1 + rng_below(&rng, 100);
            hold(lane, LIMIT_CAMPAIGN, now, flow_until[lane->flow]);
            break;
        case 1:
            for (size_t t = 0; t < ARRAY_LEN(names); t++)
                if (tenants[t].priority == lane_priority(lane) &&
                    str_eq(tenants[t].tenant, lane_tenant(lane)))
                    tenants[t].until = now + 10;
            hold(lane, LIMIT_TENANT, now, now + 10);
            break;
        default:
            feed_turn(&feed, lane);
            feed_pay_more(&feed, lane, rng_below(&rng, 30));
        }
    }
    assert_true(held_ms == 0 && feed.limited > 0); /* nanoseconds */
}

/* This thread's, whatever else the machine does. */
static uint64_t cpu_ns(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* However much each of many owes, whose turn it is is found within a turn's time. */
static void test_debts_of_many(void **state)
{
    enum { FLOWS = 10000, LAPS = 3, RECIPIENTS = 1000 };
    struct queue_flow *flows = calloc(FLOWS, sizeof(*flows));
    struct lane *many = calloc(FLOWS, sizeof(*many));
    unsigned *served = calloc(FLOWS, sizeof(*served));
    uint64_t longest_ns = 0;

    (void)state;
    assert_true(flows != NULL && many != NULL && served != NULL);
    for (uint32_t i = 0; i < FLOWS; i++) {
        flows[i] = (struct queue_flow){.id = i + 1, .priority = 5, .tenant = STR("a")};
        many[i].flow = i + 1;
        many[i].names = &flows[i];
        feed_add(&feed, &many[i], weigh);
    }
    for (size_t turn = 0; turn < (size_t)FLOWS * LAPS; turn++) {
        uint64_t began_ns = cpu_ns(), took_ns;
        struct lane *lane = feed_next(&feed);

        feed_turn(&feed, lane);
        feed_pay_more(&feed, lane, RECIPIENTS - 1);
        took_ns = cpu_ns() - began_ns;
        longest_ns = took_ns > longest_ns ? took_ns : longest_ns;
        served[lane - many]++;
    }
    for (size_t i = 0; i < FLOWS; i++) {
        assert_int_equal(served[i], LAPS);
        feed_remove(&feed, &many[i]);
    }
    assert_true(longest_ns < UINT64_C(20000000));
    feed_done(&feed);
    feed_init(&feed);
    free(flows);
    free(many);
    free(served);
}

static const struct limit *idle_limit;

static void on_idle(const struct limit *limit)
{
    idle_limit = limit;
}

/* What a session may have nothing of is passed over in that take alone; lanes may come and go
 * meanwhile. */
static void test_set_aside(void **state)
{
    static const struct config_share_site one = {.sessions_max = 1};
    static const struct limit sessions = {.kind = LIMIT_TENANT, .at = &one};
    const struct limit *out[FEED_SESSION_LIMITS];
    struct lane *a, *b;

    (void)state;
    feed.limits_of = limits_of;
    feed.on_idle = on_idle;
    idle_limit = NULL;
    tenant_limit = &sessions; /* of each tenant */
    a = ready(0, 0);
    tenant_limit = NULL;
    b = ready(1, 4);
    assert_int_equal(feed.counting, 1);
    assert_int_equal(feed_session_limits(a, out), 1);
    assert_ptr_equal(out[0], &sessions);
    assert_int_equal(feed_session_limits(b, out), 0);
    for (int i = 0; i < 8; i++) { /* each take of a session that may have nothing of a */
        if (feed_next(&feed) == a)
            feed_set_aside(&feed, a, &sessions, 1);
        assert_ptr_equal(feed_next(&feed), b);
        feed_turn(&feed, b);
        feed_set_back(&feed);
        assert_true(list_empty(&feed.aside));
    }
    while (feed_next(&feed) != a)
        feed_turn(&feed, feed_next(&feed));
    feed_set_aside(&feed, a, &sessions, 1);
    feed_remove(&feed, a);
    assert_ptr_equal(idle_limit, &sessions); /* nobody gives way to it any more */
    feed_add(&feed, a, weigh);
    assert_ptr_equal(feed_next(&feed), b);
    feed_remove(&feed, b);
    assert_true(feed_empty(&feed));
    feed_set_back(&feed);
    assert_ptr_equal(feed_next(&feed), a);
    feed_remove(&feed, a);
}

static int limits_had;

static struct feed_limits limits_of_counted(const struct lane *lane)
{
    static const struct limit each[3];

    (void)lane;
    limits_had += 3;
    return (struct feed_limits){
        .tenant = &each[0], .campaign = &each[1], .campaign_total = &each[2]};
}

static void put_counted(const struct limit *limit)
{
    limits_had -= limit != NULL;
}

/* Tenants that come and go leave nothing behind: of the limits of those that have no mail a few are
 * kept. */
static void test_limits_given_back(void **state)
{
    static char text[500][8];
    struct queue_flow one;

    (void)state;
    limits_had = 0;
    feed.limits_of = limits_of_counted;
    feed.put_limit = put_counted;
    for (uint32_t i = 0; i < ARRAY_LEN(text); i++) {
        struct lane lane = {.flow = 100 + i, .names = &one};

        snprintf(text[i], sizeof(text[i]), "t%u", i % 250);
        one = (struct queue_flow){.id = 100 + i, .priority = 5, .tenant = str_of(text[i])};
        feed_add(&feed, &lane, weigh);
        lane.names_version = 1; /* its campaign was set to another rate */
        feed_remove(&feed, &lane);
        feed_add(&feed, &lane, weigh);
        feed_remove(&feed, &lane);
        assert_in_range(limits_had, 3, 3 * (FEED_IDLE_MAX + 1));
    }
    feed_done(&feed);
    assert_int_equal(limits_had, 0);
    feed_init(&feed);
}

/* However many tenants of a better band have all their sessions, mail of a worse one gets its turn,
 * and each of theirs comes back. */
static void test_many_full(void **state)
{
    enum { FULL = 1000, LOOKED = 64 };
    static const struct config_share_site one = {.sessions_max = 1};
    static const struct limit sessions = {.kind = LIMIT_TENANT, .at = &one};
    static char text[FULL][8];
    struct queue_flow *flows = calloc(FULL, sizeof(*flows));
    struct lane *many = calloc(FULL, sizeof(*many)), *bulk, *lane = NULL;
    uint64_t held_ms = 0, now_ns = 1000;
    int takes = 0;

    (void)state;
    assert_true(flows != NULL && many != NULL);
    feed.limits_of = limits_of;
    feed.on_idle = on_idle;
    tenant_limit = &sessions;
    for (uint32_t i = 0; i < FULL; i++) {
        snprintf(text[i], sizeof(text[i]), "t%u", i);
        flows[i] = (struct queue_flow){.id = 100 + i, .priority = 0, .tenant = str_of(text[i])};
        many[i].flow = 100 + i;
        many[i].names = &flows[i];
        feed_add(&feed, &many[i], weigh);
    }
    tenant_limit = NULL;
    bulk = ready(0, 4);
    while (lane != bulk && takes++ < FULL) { /* each take passes over LOOKED of them at most */
        for (int i = 0; (lane = feed_next(&feed)) != bulk && i < LOOKED; i++)
            feed_set_aside(&feed, lane, &sessions, now_ns);
        feed_set_back(&feed);
    }
    assert_ptr_equal(lane, bulk);
    assert_in_range(takes, 1, 1 + FULL / (LOOKED - FEED_ASIDE_MAX));
    feed_release(&feed, now_ns + FEED_FULL_NS, false, warms_at, on_held, &held_ms);
    assert_true(list_empty(&feed.held) && list_empty(&feed.aside));
    assert_int_equal(feed_priority(&feed), 0);
    for (uint32_t i = 0; i < FULL; i++) {
        assert_non_null(many[i].share);
        feed_remove(&feed, &many[i]);
    }
    assert_ptr_equal(feed_next(&feed), bulk);
    feed_remove(&feed, bulk);
    feed_done(&feed);
    feed_init(&feed);
    free(flows);
    free(many);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_tenants_share),
        TEST(test_weights),
        TEST(test_priority_first),
        TEST(test_recipients_count),
        TEST(test_lanes_that_leave),
        TEST(test_debt_outlives_the_window),
        TEST(test_alone_nothing_is_owed),
        TEST(test_newcomers_have_no_credit),
        TEST(test_random),
        TEST(test_warmed_flow),
        TEST(test_held_tenant),
        TEST(test_paced),
        TEST(test_both_or_none),
        TEST(test_renewed_while_ready),
        TEST(test_total_of_many),
        TEST(test_random_holds),
        TEST(test_debts_of_many),
        TEST(test_set_aside),
        TEST(test_many_full),
        TEST(test_limits_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

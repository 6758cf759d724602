#include "tests/sim/accounts.h"

#include "deliver/delivery.h"
#include "intake/inject_message.h"
#include "schedule/channel.h"
#include "schedule/lane.h"
#include "schedule/rollup.h"
#include "schedule/site.h"
#include "schedule/supply.h"

static uint32_t list_len(const struct list *list)
{
    uint32_t len = 0;

    for (struct list_node *n = list_first(list); n != NULL; n = list_next(list, n))
        len++;
    return len;
}

/* --- mail that waits --- */

static void lane_check(struct lane *lane)
{
    uint64_t bytes = 0;
    uint32_t len = 0;

    for (struct list_node *n = list_first(&lane->window); n != NULL;
         n = list_next(&lane->window, n)) {
        const struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        ASSERT(r->lane == lane && r->state == PLACE_WINDOW);
        bytes += supply_bytes_of(r);
        len++;
    }
    ASSERT(len == lane->window_len && bytes == lane->window_bytes);
    ASSERT(lane->in_memory >= lane->window_len + lane->in_flight);
    ASSERT((lane->site == NULL) == (lane->supply == NULL));
    ASSERT(lane->supply == NULL || lane->supply->site == lane->site);
    ASSERT((lane->share != NULL) == list_node_linked(&lane->ready_node));
    ASSERT(!list_node_linked(&lane->ready_node) || (lane->window_len > 0 && lane->site != NULL));
    ASSERT((lane->load != NULL) == (lane->scan != LANE_SCAN_NONE));
    ASSERT(!lane->hungry || list_node_linked(&lane->wait_node));
}

static void lanes_check(struct worker *w)
{
    uint64_t in_memory = 0;
    size_t bucket = 0;
    struct map_node *n = NULL;

    while ((n = map_walk(&w->lanes, &bucket, n)) != NULL) {
        struct lane *lane = CONTAINER_OF(n, struct lane, node);

        lane_check(lane);
        in_memory += lane->in_memory;
    }
    ASSERT(in_memory == w->memory.count);
}

/* --- where it goes --- */

/* Lanes of one list of s; held: they wait for s itself. */
static uint32_t supply_lanes(const struct supply *s, const struct list *list, bool held,
                             uint32_t *waiting, uint64_t *bytes)
{
    uint32_t len = 0;

    for (struct list_node *n = list_first(list); n != NULL; n = list_next(list, n)) {
        const struct lane *lane = LIST_ENTRY(n, struct lane, site_node);

        ASSERT(lane->supply == s && lane->held == held);
        *waiting += lane->window_len;
        *bytes += lane->window_bytes;
        len++;
    }
    return len;
}

static uint32_t supply_check(const struct supply *s)
{
    uint32_t waiting = 0, lanes;
    uint64_t bytes = 0;

    lanes = supply_lanes(s, &s->attached, false, &waiting, &bytes) +
            supply_lanes(s, &s->shut, true, &waiting, &bytes) +
            supply_lanes(s, &s->waking, true, &waiting, &bytes);
    ASSERT(waiting == s->waiting && bytes == s->held);
    for (uint32_t i = 0; i < s->seats_len; i++)
        ASSERT(s->seats[i].supply == s &&
               (s->seats[i].channel == NULL || s->seats[i].channel->site == s->site));
    return lanes;
}

static void channel_check(const struct channel *c)
{
    uint32_t len = 0, yielding = 0;

    for (struct list_node *n = list_first(&c->sessions); n != NULL;
         n = list_next(&c->sessions, n)) {
        const struct delivery *d = LIST_ENTRY(n, struct delivery, site_node);

        ASSERT(d->channel == c && d->site == c->site && list_len(&d->letters) == d->letters_len);
        yielding += d->yielding;
        len++;
    }
    ASSERT(len == c->sessions_len && yielding == c->yielding && c->connecting <= len);
    ASSERT(list_len(&c->idle) <= len - c->connecting);
    ASSERT((c->line != NULL) == list_node_linked(&c->line_node));
}

/* Returns how many sessions it has. */
static uint32_t site_check(const struct site *site)
{
    uint32_t lanes = 0, sessions = 0;

    for (struct list_node *n = list_first(&site->supplies); n != NULL;
         n = list_next(&site->supplies, n))
        lanes += supply_check(LIST_ENTRY(n, struct supply, site_node));
    for (struct list_node *n = list_first(&site->channels); n != NULL;
         n = list_next(&site->channels, n)) {
        const struct channel *c = LIST_ENTRY(n, struct channel, site_node);

        ASSERT(c->site == site);
        channel_check(c);
        sessions += c->sessions_len;
    }
    ASSERT(lanes == site->lanes && sessions == site->sessions_len);
    ASSERT(sessions > 0 || site->under_way == 0);
    return sessions;
}

static void rollup_check(const struct worker *w, const struct rollup *r)
{
    uint32_t sessions = 0, yielding = 0;
    size_t bucket = 0;
    struct map_node *n = NULL;

    ASSERT(list_len(&r->line) == r->line_len);
    while ((n = map_walk(&w->sites, &bucket, n)) != NULL) {
        const struct site *site = CONTAINER_OF(n, struct site, node);

        for (struct list_node *at = list_first(&site->channels); at != NULL;
             at = list_next(&site->channels, at)) {
            const struct channel *c = LIST_ENTRY(at, struct channel, site_node);

            for (size_t i = 0; i < CHANNEL_LIMITS; i++) {
                sessions += c->rollups[i] == r ? c->sessions_len : 0;
                yielding += c->rollups[i] == r ? c->yielding : 0;
            }
        }
    }
    ASSERT(sessions == r->sessions && yielding == r->yielding);
}

static void sites_check(struct worker *w)
{
    uint32_t sessions = 0;
    size_t bucket = 0;
    struct map_node *n = NULL;

    while ((n = map_walk(&w->sites, &bucket, n)) != NULL)
        sessions += site_check(CONTAINER_OF(n, struct site, node));
    ASSERT(sessions <= w->deliveries); /* those that end are no site's */
    n = NULL;
    bucket = 0;
    while ((n = map_walk(&w->rollups, &bucket, n)) != NULL)
        rollup_check(w, CONTAINER_OF(n, struct rollup, node));
}

/* --- mail that comes --- */

static void injects_check(const struct worker *w)
{
    uint32_t len = 0;

    for (struct list_node *n = list_first(&w->injects); n != NULL; n = list_next(&w->injects, n)) {
        const struct inject *s = LIST_ENTRY(n, struct inject, node);

        ASSERT(s->worker == w && list_len(&s->answers) == s->answers_len);
        len++;
    }
    ASSERT(len == w->injects_len);
}

void accounts_check(struct worker *w)
{
    lanes_check(w);
    sites_check(w);
    injects_check(w);
}

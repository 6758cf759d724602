#include "schedule/lane_private.h"

#include <stdlib.h>

#include "schedule/lane_find.h"
#include "schedule/lane_walk.h"
#include "schedule/supply.h"
#include "worker/shared.h"

#define RENEW_WORK 2000 /* of a turn: lanes, and the recipients in their windows */

#define TIMER_AHEAD_MS (24 * 3600 * 1000) /* wall-clock waits are re-checked at least daily */

static void on_lane_timer(struct timer *timer);

/* --- the table of lanes and of what is in memory --- */

static uint64_t lane_hash(const struct worker *w, uint32_t shard, uint32_t flow, struct str name)
{
    return hash_bytes(name.ptr, name.len, w->hash_seed ^ shard ^ (uint64_t)flow << 32);
}

static struct lane *lane_lookup(struct worker *w, uint32_t shard, uint32_t flow, struct str name,
                                uint64_t hash)
{
    for (struct map_node *n = map_find(&w->lanes, hash); n != NULL; n = map_find_next(n)) {
        struct lane *lane = CONTAINER_OF(n, struct lane, node);

        if (lane->shard == shard && lane->flow == flow && str_eq(lane_name(lane), name))
            return lane;
    }
    return NULL;
}

void lane_prefetch(const struct worker *w, uint32_t shard, uint32_t flow, struct str name)
{
    map_prefetch(&w->lanes, lane_hash(w, shard, flow, name));
}

struct lane *lane_known(struct worker *w, uint32_t shard, uint32_t flow, struct str name)
{
    return lane_lookup(w, shard, flow, name, lane_hash(w, shard, flow, name));
}

struct lane *lane_get(struct worker *w, uint32_t shard, uint32_t flow, struct str name)
{
    uint64_t hash = lane_hash(w, shard, flow, name);
    struct lane *lane = lane_lookup(w, shard, flow, name, hash);

    if (lane != NULL)
        return lane;
    lane = calloc(1, sizeof(*lane) + name.len + 1);
    if (lane == NULL)
        return NULL;
    memcpy(lane->name, name.ptr, name.len);
    lane->name_len = (uint16_t)name.len;
    lane->worker = w;
    lane->shard = shard;
    lane->flow = flow;
    lane->names = lane_names(lane, &lane->names_version);
    lane->stored_due_ms = lane->behind_due_ms = INT64_MAX;
    lane->expires_ms = lane->window_expires_ms = INT64_MAX;
    lane->seen_until_ms = w->left_seen_ms; /* it may have been here before */
    lane->knows_stored = !lanes_are_absent(w, shard);
    lane->refill = LANE_REFILL_MIN;
    lane->timer.on_timer = on_lane_timer;
    list_init(&lane->window);
    list_init(&lane->zombies);
    lane_suspensions_look(lane);
    map_insert(&w->lanes, &lane->node, hash);
    gauge_set(&w->counters.lanes, (uint32_t)w->lanes.count);
    return lane;
}

uint64_t lane_memory_hash(const struct worker *w, const struct msgid *id, uint32_t index)
{
    uint64_t high, low;

    memcpy(&high, id->bytes, 8);
    memcpy(&low, id->bytes + 8, 8);
    high = (high ^ w->hash_seed) * UINT64_C(0x9e3779b97f4a7c15);
    return (high ^ (high >> 29) ^ low ^ index) * UINT64_C(0xbf58476d1ce4e5b9);
}

struct recipient *lane_find(struct worker *w, const struct msgid *id, uint32_t index)
{
    uint64_t hash = lane_memory_hash(w, id, index);

    for (struct map_node *n = map_find(&w->memory, hash); n != NULL; n = map_find_next(n)) {
        struct recipient *r = CONTAINER_OF(n, struct recipient, in_memory);

        if (r->index == index && memcmp(&r->message->id, id, sizeof(*id)) == 0)
            return r;
    }
    return NULL;
}

void lane_memory_put(struct lane *lane, struct recipient *r)
{
    struct worker *w = lane->worker;

    ASSERT(r->lane == NULL && lane->in_memory < UINT32_MAX);
    map_insert(&w->memory, &r->in_memory, lane_memory_hash(w, &r->message->id, r->index));
    gauge_set(&w->counters.in_memory, (uint32_t)w->memory.count);
    r->lane = lane;
    lane->in_memory++;
}

/* Forgets r and frees it; its row, if there is one, is the store's again. */
void lane_memory_drop(struct recipient *r)
{
    struct lane *lane = r->lane;
    struct worker *w = lane->worker;

    ASSERT(lane->in_memory > 0 && r->state != PLACE_WINDOW && !list_node_linked(&r->node));
    map_remove(&w->memory, &r->in_memory);
    gauge_set(&w->counters.in_memory, (uint32_t)w->memory.count);
    lane->in_memory--;
    ASSERT(lane->in_memory >= lane->window_len + lane->in_flight);
    recipient_free(r);
}

/* --- the window --- */

static void keep_earlier(int64_t *ms, const struct recipient *r)
{
    int64_t expires_ms = recipient_expires_ms(r);

    if (expires_ms < *ms)
        *ms = expires_ms;
}

void lane_window_expires(struct lane *lane, const struct recipient *r)
{
    keep_earlier(&lane->window_expires_ms, r);
}

void lane_kept(struct lane *lane, const struct recipient *r)
{
    keep_earlier(&lane->expires_ms, r);
}

void lane_window_insert(struct lane *lane, struct recipient *r, bool front)
{
    ASSERT(r->lane == lane && r->state != PLACE_WINDOW && r->message->recipe == NULL);
    r->state = PLACE_WINDOW;
    if (front)
        list_push_front(&lane->window, &r->node);
    else
        list_push_back(&lane->window, &r->node);
    lane->window_len++;
    lane->window_bytes += supply_bytes_of(r);
    lane_window_expires(lane, r);
    if (lane->supply != NULL) {
        lane->supply->waiting++;
        lane->supply->held += supply_bytes_of(r);
    }
}

void lane_take(struct recipient *r)
{
    struct lane *lane = r->lane;

    ASSERT(r->state == PLACE_WINDOW && lane->window_len > 0);
    ASSERT(lane->window_bytes >= supply_bytes_of(r));
    list_remove(&r->node);
    r->state = PLACE_FLIGHT;
    lane->window_len--;
    lane->window_bytes -= supply_bytes_of(r);
    lane->in_flight++;
    ASSERT(list_empty(&lane->window) == (lane->window_len == 0));
    ASSERT(lane->window_len > 0 || lane->window_bytes == 0);
    if (lane->supply == NULL)
        return;
    ASSERT(lane->supply->waiting > lane->window_len || lane->window_len == 0);
    ASSERT(lane->supply->waiting > 0 && lane->supply->held >= supply_bytes_of(r));
    lane->supply->waiting--;
    lane->supply->held -= supply_bytes_of(r);
    if (lane->window_len == 0)
        feed_remove(&lane->supply->feed, lane);
}

struct recipient *lane_peek(const struct lane *lane)
{
    struct list_node *n = list_first(&lane->window);

    return n == NULL ? NULL : LIST_ENTRY(n, struct recipient, node);
}

struct recipient *lane_pop(struct lane *lane)
{
    struct recipient *r = lane_peek(lane);

    if (r == NULL)
        return NULL;
    lane_take(r);
    if (lane->stored_due_ms != INT64_MAX)
        lane_load_want(lane, worker_wall_ms(lane->worker));
    return r;
}

void lane_unpop(struct recipient *r)
{
    struct lane *lane = r->lane;

    ASSERT(r->state == PLACE_FLIGHT && lane->in_flight > 0);
    recipient_drop_letter(r);
    if (lane_suspended(lane) || lane->worker->draining ||
        r->due_ms > worker_wall_ms(lane->worker)) {
        lane_return(r);
        return;
    }
    lane->in_flight--;
    lane_window_insert(lane, r, true);
    lane_update(lane);
}

void lane_return(struct recipient *r)
{
    struct lane *lane = r->lane;
    int64_t due_ms = r->due_ms;

    ASSERT(r->state == PLACE_FLIGHT && lane->in_flight > 0);
    recipient_drop_letter(r);
    lane->in_flight--;
    lane_kept(lane, r);
    lane_memory_drop(r);
    lane_stored(lane, due_ms);
}

void lane_settling(struct recipient *r)
{
    struct lane *lane = r->lane;

    ASSERT(r->state == PLACE_FLIGHT && lane->in_flight > 0);
    recipient_drop_letter(r);
    lane->in_flight--;
    r->state = PLACE_SETTLING;
}

void lane_arrive(struct worker *w, uint32_t shard, struct recipient *r)
{
    struct lane *lane = lane_known(w, shard, r->flow, r->queue);
    int64_t now_ms = worker_wall_ms(w);
    uint32_t max;

    if (lane == NULL && lane_stays_absent(w)) {
        lane_left(w, shard, r->due_ms);
        recipient_free(r);
        return;
    }
    if (lane == NULL)
        lane = lane_get(w, shard, r->flow, r->queue);
    ASSERT(lane != NULL);
    max = lane_window_max(lane);
    /* What waits in the store came first: newcomers get half of the window, loads the rest. */
    if (lane_has_due(lane, now_ms))
        max /= 2;
    /* A load may have read r's row before this worker heard of the row's commit, and what it read
     * may have been sent and settled since: only the store knows whether the row is still there. */
    if (w->draining || lane_suspended(lane) || r->due_ms > now_ms || lane->window_len >= max ||
        r->message->born_ms <= lane->seen_until_ms || lane_memory_full(w) || !lane_has_room(lane)) {
        int64_t due_ms = r->due_ms;

        lane_kept(lane, r);
        recipient_free(r);
        lane_stored(lane, due_ms);
        return;
    }
    lane_memory_put(lane, r);
    lane_window_insert(lane, r, false);
    lane_update(lane);
}

void lane_seen(struct lane *lane, uint64_t until_ms)
{
    if (until_ms > lane->seen_until_ms)
        lane->seen_until_ms = until_ms;
}

bool lane_adopt(struct worker *w, uint32_t shard, struct recipient *r)
{
    struct lane *lane;

    if (lane_find(w, &r->message->id, r->index) != NULL) {
        recipient_free(r);
        return false;
    }
    lane = lane_get(w, shard, r->flow, r->queue);
    ASSERT(lane != NULL && lane->shard == shard && lane->flow == r->flow);
    lane_seen(lane, io_now_ms(w->io)); /* the same row may be on its way to lane_arrive() */
    lane_memory_put(lane, r);
    r->state = PLACE_FLIGHT;
    lane->in_flight++;
    return true;
}

void lane_zombies_drop(struct lane *lane)
{
    struct list_node *n;

    if (lane->scan == LANE_SCAN_READS || lane->fetching > 0)
        return;
    while ((n = list_pop_front(&lane->zombies)) != NULL) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        ASSERT(r->state == PLACE_ZOMBIE && r->lane == lane);
        lane_memory_drop(r);
    }
}

void lane_fetch_begin(struct worker *w, uint32_t shard, uint32_t flow, struct str name)
{
    struct lane *lane = lane_get(w, shard, flow, name);

    ASSERT(lane != NULL);
    lane->fetching++;
}

void lane_fetch_end(struct worker *w, uint32_t shard, uint32_t flow, struct str name)
{
    struct lane *lane = lane_get(w, shard, flow, name);

    ASSERT(lane != NULL && lane->fetching > 0);
    if (--lane->fetching > 0)
        return;
    lane_zombies_drop(lane);
    lane_update(lane);
}

/* The store has a row due then that is not in memory. Whether the lane may now be due earlier. */
static bool note_stored(struct lane *lane, int64_t due_ms)
{
    if (lane->scan != LANE_SCAN_NONE) {
        if (due_ms < lane->behind_due_ms)
            lane->behind_due_ms = due_ms;
        return false;
    }
    if (due_ms < lane->loaded_until_ms)
        lane->loaded_until_ms = due_ms;
    if (due_ms >= lane->stored_due_ms)
        return false;
    lane->stored_due_ms = due_ms;
    return true;
}

void lane_stored(struct lane *lane, int64_t due_ms)
{
    if (due_ms < QUEUE_DUE_HELD && note_stored(lane, due_ms))
        lane_update(lane);
}

/* What is stored of r is due then. */
static void memory_leave(struct lane *lane, struct recipient *r, int64_t next_due_ms)
{
    ASSERT(r->state == PLACE_SETTLING);
    if (lane->scan == LANE_SCAN_READS || lane->fetching > 0) {
        r->state = PLACE_ZOMBIE;
        r->due_ms = next_due_ms < QUEUE_DUE_HELD ? next_due_ms : QUEUE_DUE_HELD;
        list_push_back(&lane->zombies, &r->node);
    } else {
        lane_memory_drop(r);
    }
}

static void lane_goes_on(struct lane *lane)
{
    if (lane->in_memory == 0)
        lane_update(lane); /* the lane may be idle now */
    else if (lane->stored_due_ms != INT64_MAX && !lane_suspended(lane))
        lane_load_want(lane, worker_wall_ms(lane->worker)); /* lane may have waited for it */
}

void lane_settled(struct recipient *r, int64_t next_due_ms)
{
    struct lane *lane = r->lane;

    if (next_due_ms != INT64_MAX)
        lane_kept(lane, r);
    memory_leave(lane, r, next_due_ms);
    if (next_due_ms != INT64_MAX)
        lane_stored(lane, next_due_ms);
    lane_goes_on(lane);
}

void lane_moved(struct recipient *r)
{
    struct lane *from = r->lane, *to = lane_get(from->worker, from->shard, r->flow, r->queue);
    int64_t due_ms = r->due_ms;

    ASSERT(to != NULL && to != from && to->shard == from->shard);
    lane_kept(to, r);
    memory_leave(from, r, due_ms);
    lane_stored(to, due_ms);
    lane_goes_on(from);
}

void lane_window_release(struct lane *lane)
{
    struct list_node *n;

    while ((n = list_first(&lane->window)) != NULL) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);
        int64_t due_ms = r->due_ms;

        lane_take(r);
        lane->in_flight--;
        lane_kept(lane, r);
        lane_memory_drop(r);
        (void)note_stored(lane, due_ms); /* the caller updates the lane, once */
    }
}

/* --- states --- */

void lane_free(struct lane *lane)
{
    struct worker *w = lane->worker;

    ASSERT(lane->in_memory == 0 && lane->window_len == 0 && lane->in_flight == 0);
    ASSERT(list_empty(&lane->zombies) && !list_node_linked(&lane->ready_node));
    /* What its loads may have read is not taken from memory by the next lane of the name. */
    if (lane->seen_until_ms > w->left_seen_ms)
        w->left_seen_ms = lane->seen_until_ms;
    w->lane_gone_ms = io_now_ms(w->io);
    wheel_cancel(io_wheel(w->io), &lane->timer);
    if (list_node_linked(&lane->wait_node))
        list_remove(&lane->wait_node);
    lane->hungry = false;
    if (list_node_linked(&lane->outlived_node))
        list_remove(&lane->outlived_node);
    lane_route_cancel(lane);
    if (lane->site != NULL)
        site_detach(lane->site, lane);
    map_remove(&w->lanes, &lane->node);
    gauge_set(&w->counters.lanes, (uint32_t)w->lanes.count);
    free(lane->load);
    free(lane->last_error);
    free(lane->last_host);
    free(lane);
}

static bool lane_is_idle(const struct lane *lane)
{
    return lane->in_memory == 0 && lane->fetching == 0 && lane->scan == LANE_SCAN_NONE &&
           lane->stored_due_ms == INT64_MAX && lane->routing == NULL && lane->state == LANE_OPEN;
}

static void lane_arm(struct lane *lane, int64_t wait_ms)
{
    struct io *io = lane->worker->io;

    if (wait_ms > TIMER_AHEAD_MS)
        wait_ms = TIMER_AHEAD_MS;
    wheel_arm(io_wheel(io), &lane->timer, io_now_ms(io) + (uint64_t)(wait_ms < 1 ? 1 : wait_ms));
}

void lane_update_soon(struct lane *lane)
{
    lane_arm(lane, 1);
}

static void on_lane_timer(struct timer *timer)
{
    struct lane *lane = CONTAINER_OF(timer, struct lane, timer);

    lane_look_state(lane);
    if (lane_is_idle(lane))
        lane_free(lane);
    else
        lane_update(lane);
}

static struct feed_weights weigh(const struct lane *lane)
{
    const struct config *c = lane->site->config;

    if (lane->names == NULL)
        return (struct feed_weights){1, 1};
    return (struct feed_weights){.tenant = config_tenant(c, lane->names->tenant)->weight,
                                 .flow = config_campaign(c, lane->names->campaign)->weight};
}

void lane_update(struct lane *lane)
{
    struct worker *w = lane->worker;
    int64_t now_ms = worker_wall_ms(w);

    ASSERT((lane->site == NULL) == (lane->supply == NULL));
    w->turn.lanes++;
    lane_look_state(lane);
    if (lane_suspended(lane)) {
        lane_window_release(lane);
        if (lane_backs_off(lane))
            lane_arm(lane, (int64_t)(lane->shut_until_ms - io_now_ms(w->io)));
        else if (lane_is_idle(lane) && !timer_armed(&lane->timer))
            lane_arm(lane, (int64_t)lane_idle_ms(w));
        return;
    }
    if (lane_has_due(lane, now_ms - LANE_HANDOVER_MS))
        lane_load_want(lane, now_ms);
    else if (lane->stored_due_ms != INT64_MAX)
        lane_arm(lane, lane->stored_due_ms + LANE_HANDOVER_MS - now_ms);
    if (lane->window_len > 0) {
        /* A route that has just ended serves while a new one is looked up; an old one does not,
         * nor a site of an old configuration. */
        if (lane->site != NULL && lane->site->config != w->config)
            site_detach(lane->site, lane);
        if (lane->site == NULL || lane->route_expires_ms <= io_now_ms(w->io)) {
            lane_route(lane); /* ends in an update of its own */
            if (lane->site != NULL && lane->routing != NULL && lane_route_is_old(lane))
                site_detach(lane->site, lane);
            if (lane->site == NULL)
                return;
        }
        if (lane->window_len > 0)
            feed_add(&lane->supply->feed, lane, weigh);
        supply_dirty(lane->supply);
        return;
    }
    if (lane_is_idle(lane) && !timer_armed(&lane->timer))
        lane_arm(lane, (int64_t)lane_idle_ms(w));
}

void lanes_renew(struct worker *w)
{
    w->renewing = true;
    w->renew_bucket = 0;
}

/* A new route may end each recipient of the window. */
static uint32_t lane_renew(struct lane *lane, void *arg)
{
    uint32_t work = 1 + lane->window_len;

    (void)arg;
    lane_route_expire(lane);
    if (lane->window_len == 0 && lane->site != NULL && lane->site->config != lane->worker->config)
        site_detach(lane->site, lane);
    lane_update(lane);
    return work;
}

void lanes_renew_step(struct worker *w)
{
    if (w->renewing && lane_walk(w, &w->renew_bucket, RENEW_WORK, lane_renew, NULL))
        w->renewing = false;
}

void lane_close_all(struct worker *w)
{
    struct map_node *n;
    size_t bucket = 0;

    wheel_cancel(io_wheel(w->io), &w->load_timer);
    while ((n = map_walk(&w->lanes, &bucket, NULL)) != NULL) {
        struct lane *lane = CONTAINER_OF(n, struct lane, node);

        while (!list_empty(&lane->zombies))
            lane_memory_drop(LIST_ENTRY(list_pop_front(&lane->zombies), struct recipient, node));
        lane_window_release(lane);
        lane_free(lane);
    }
}

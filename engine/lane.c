#include "engine/lane.h"

#include <stdlib.h>

#include "base/log.h"
#include "dns/dns.h"
#include "engine/classify.h"
#include "engine/engine.h"
#include "engine/judge.h"
#include "engine/retry.h"
#include "engine/site.h"

#define IDLE_MS        60000 /* an empty lane stays this long: its route and site are warm */
#define ROUTE_MIN_MS   1000
#define LOAD_BYTES_MAX (4u << 20)
#define LOAD_RETRY_MS  1000
#define TIMER_AHEAD_MS (24 * 3600 * 1000) /* wall-clock waits are re-checked at least daily */
#define LAST_TRY_MS    60000
#define TRIM_BUCKETS   64 /* a turn */
#define MEMORY_WAIT_MS 50
#define MEMORY_MIN     64 /* recipients of a worker */
/* What was just accepted is left to come from memory: a row that a load has seen is not taken from
 * there, and loads that followed acceptance closely would read back everything a busy lane gets. */
#define HANDOVER_MS  100
#define SETTLING_MIN 64 /* of a lane, whatever its window: what a commit or two take */
/* A refill that lasted less than this (half of it, to be exact, since then the next is wanted) is
 * too small, one that lasted as long as that too large: loads cost little and windows take memory.
 */
#define REFILL_MIN     32
#define REFILL_FAST_MS 200
#define REFILL_SLOW_MS 2000

struct lane_load {
    struct queue_load load;
    struct lane *lane;
};

struct lane_routing {
    struct dns_query query;
    struct lane *lane;
};

static void on_lane_timer(struct timer *timer);

/* --- the table of lanes and of what is in memory --- */

static uint64_t lane_hash(const struct worker *w, uint32_t shard, struct str name)
{
    return hash_bytes(name.ptr, name.len, w->hash_seed ^ shard);
}

struct lane *lane_get(struct worker *w, uint32_t shard, struct str name)
{
    uint64_t hash = lane_hash(w, shard, name);
    struct lane *lane;

    for (struct map_node *n = map_find(&w->lanes, hash); n != NULL; n = map_find_next(n)) {
        lane = CONTAINER_OF(n, struct lane, node);
        if (lane->shard == shard && str_eq(lane_name(lane), name))
            return lane;
    }
    lane = calloc(1, sizeof(*lane) + name.len + 1);
    if (lane == NULL)
        return NULL;
    memcpy(lane->name, name.ptr, name.len);
    lane->name_len = (uint16_t)name.len;
    lane->worker = w;
    lane->shard = shard;
    lane->stored_due_ms = lane->behind_due_ms = INT64_MAX;
    lane->refill = REFILL_MIN;
    lane->timer.on_timer = on_lane_timer;
    list_init(&lane->window);
    list_init(&lane->zombies);
    map_insert(&w->lanes, &lane->node, hash);
    gauge_set(&w->counters.lanes, (uint32_t)w->lanes.count);
    return lane;
}

static uint64_t memory_hash(const struct worker *w, const struct msgid *id, uint32_t index)
{
    uint64_t high, low;

    memcpy(&high, id->bytes, 8);
    memcpy(&low, id->bytes + 8, 8);
    high = (high ^ w->hash_seed) * UINT64_C(0x9e3779b97f4a7c15);
    return (high ^ (high >> 29) ^ low ^ index) * UINT64_C(0xbf58476d1ce4e5b9);
}

struct recipient *lane_find(struct worker *w, const struct msgid *id, uint32_t index)
{
    uint64_t hash = memory_hash(w, id, index);

    for (struct map_node *n = map_find(&w->memory, hash); n != NULL; n = map_find_next(n)) {
        struct recipient *r = CONTAINER_OF(n, struct recipient, in_memory);

        if (r->index == index && memcmp(&r->message->id, id, sizeof(*id)) == 0)
            return r;
    }
    return NULL;
}

static void memory_put(struct lane *lane, struct recipient *r)
{
    struct worker *w = lane->worker;

    map_insert(&w->memory, &r->in_memory, memory_hash(w, &r->message->id, r->index));
    gauge_set(&w->counters.in_memory, (uint32_t)w->memory.count);
    r->holder = lane;
    lane->in_memory++;
}

/* Forgets r and frees it; its row, if there is one, is the store's again. */
static void memory_drop(struct recipient *r)
{
    struct lane *lane = r->holder;
    struct worker *w = lane->worker;

    map_remove(&w->memory, &r->in_memory);
    gauge_set(&w->counters.in_memory, (uint32_t)w->memory.count);
    lane->in_memory--;
    recipient_free(r);
}

/* --- the window --- */

static void window_insert(struct lane *lane, struct recipient *r, bool front)
{
    struct list_node *at = &lane->window.head;

    r->state = PLACE_WINDOW;
    /* In order of priority; within a band in order of arrival, or in front of it. */
    if (front) {
        at = lane->window.head.next;
        while (at != &lane->window.head &&
               LIST_ENTRY(at, struct recipient, node)->priority < r->priority)
            at = at->next;
    } else {
        while (at->prev != &lane->window.head &&
               LIST_ENTRY(at->prev, struct recipient, node)->priority > r->priority)
            at = at->prev;
    }
    list_insert_before(at, &r->node);
    lane->window_len++;
    if (lane->site != NULL)
        lane->site->waiting++;
}

void lane_take(struct recipient *r)
{
    struct lane *lane = r->holder;

    ASSERT(r->state == PLACE_WINDOW && lane->window_len > 0);
    list_remove(&r->node);
    r->state = PLACE_FLIGHT;
    lane->window_len--;
    lane->in_flight++;
    if (lane->site != NULL)
        lane->site->waiting--;
    if (lane->window_len == 0 && list_node_linked(&lane->ready_node))
        list_remove(&lane->ready_node);
}

struct recipient *lane_peek(const struct lane *lane)
{
    struct list_node *n = list_first(&lane->window);

    return n == NULL ? NULL : LIST_ENTRY(n, struct recipient, node);
}

/* What messages in memory take, and what waits for commits to be over with them: deliveries can be
 * faster than the disk. A record line that waits is soon there three times: in its settle, in the
 * batch, in the store's dirty pages. */
static uint64_t memory_alive(const struct worker *w)
{
    return message_bytes_alive() +
           2 * atomic_load_explicit(&w->engine->settle_bytes, memory_order_relaxed);
}

static uint32_t window_max(const struct lane *lane)
{
    const struct config *c = lane->worker->config;
    uint64_t alive = memory_alive(lane->worker), max = c->queue.memory_bytes_max;

    if (alive < max / 2)
        return c->queue.window_recipients;
    if (alive < max / 4 * 3)
        return c->queue.window_recipients / 4 + 1;
    /* Then each lane may go on with one recipient: no lane stalls the others. */
    return alive < max ? 4 : 1;
}

/* With as many lanes as there are domains even one recipient each is too much. What is in memory
 * moves on: it is sent, or its lane backs off and gives it up. A few always may, since others hold
 * messages too: intake, the loaders' caches. */
static bool memory_full(const struct worker *w)
{
    uint64_t max = w->config->queue.memory_bytes_max;

    return w->memory.count >= MEMORY_MIN && memory_alive(w) >= max + max / 4;
}

/* Whether commits are behind: what is sent and not yet recorded would be sent again after a fault,
 * and takes memory. */
static bool settling_full(const struct lane *lane)
{
    uint32_t max = 2 * window_max(lane);

    return lane->in_memory - lane->window_len - lane->in_flight >
           (max < SETTLING_MIN ? SETTLING_MIN : max);
}

static uint32_t refill_max(const struct lane *lane)
{
    uint32_t max = window_max(lane);

    return lane->refill < max ? lane->refill : max;
}

/* Wants a refill when less than half of the last is left and the store has due rows. */
static void load_want(struct lane *lane, int64_t now_ms)
{
    if (lane->loading || list_node_linked(&lane->wait_node) || lane->worker->draining ||
        lane->stored_due_ms > now_ms - HANDOVER_MS)
        return;
    if (lane->window_len * 2 <= refill_max(lane) && !settling_full(lane))
        list_push_back(&lane->worker->load_wait, &lane->wait_node);
}

struct recipient *lane_pop(struct lane *lane)
{
    struct recipient *r = lane_peek(lane);

    if (r == NULL)
        return NULL;
    lane_take(r);
    if (lane->stored_due_ms != INT64_MAX)
        load_want(lane, worker_wall_ms(lane->worker));
    return r;
}

void lane_unpop(struct recipient *r)
{
    struct lane *lane = r->holder;

    ASSERT(r->state == PLACE_FLIGHT && lane->in_flight > 0);
    if (lane->suspended_until_ms > worker_wall_ms(lane->worker) || lane->worker->draining ||
        r->due_ms > worker_wall_ms(lane->worker)) {
        lane_return(r);
        return;
    }
    lane->in_flight--;
    window_insert(lane, r, true);
    lane_update(lane);
}

void lane_return(struct recipient *r)
{
    struct lane *lane = r->holder;
    int64_t due_ms = r->due_ms;

    ASSERT(r->state == PLACE_FLIGHT && lane->in_flight > 0);
    lane->in_flight--;
    memory_drop(r);
    lane_stored(lane, due_ms);
}

void lane_settling(struct recipient *r)
{
    struct lane *lane = r->holder;

    ASSERT(r->state == PLACE_FLIGHT && lane->in_flight > 0);
    lane->in_flight--;
    r->state = PLACE_SETTLING;
}

void lane_arrive(struct worker *w, uint32_t shard, struct recipient *r)
{
    struct lane *lane = lane_get(w, shard, r->queue);
    int64_t now_ms = worker_wall_ms(w);
    uint32_t max;

    ASSERT(lane != NULL);
    max = window_max(lane);
    /* What waits in the store came first: newcomers get half of the window, loads the rest. */
    if (lane->stored_due_ms <= now_ms)
        max /= 2;
    /* A read of the store may have found the row between its commit and our hearing of that, and
     * what it found may have been sent and settled since: then the store alone knows. */
    if (w->draining || lane->suspended_until_ms > now_ms || r->due_ms > now_ms ||
        lane->window_len >= max || r->message->created_ms <= lane->seen_until_ms ||
        memory_full(w)) {
        int64_t due_ms = r->due_ms;

        recipient_free(r);
        lane_stored(lane, due_ms);
        return;
    }
    memory_put(lane, r);
    window_insert(lane, r, false);
    lane_update(lane);
}

static void lane_seen(struct lane *lane, int64_t until_ms)
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
    lane = lane_get(w, shard, r->queue);
    ASSERT(lane != NULL);
    lane_seen(lane, r->message->created_ms);
    memory_put(lane, r);
    r->state = PLACE_FLIGHT;
    lane->in_flight++;
    return true;
}

static void zombies_drop(struct lane *lane)
{
    struct list_node *n;

    if (lane->loading || lane->fetching > 0)
        return;
    while ((n = list_pop_front(&lane->zombies)) != NULL)
        memory_drop(LIST_ENTRY(n, struct recipient, node));
}

void lane_fetch_begin(struct worker *w, uint32_t shard, struct str name)
{
    struct lane *lane = lane_get(w, shard, name);

    ASSERT(lane != NULL);
    lane->fetching++;
}

void lane_fetch_end(struct worker *w, uint32_t shard, struct str name)
{
    struct lane *lane = lane_get(w, shard, name);

    ASSERT(lane != NULL && lane->fetching > 0);
    if (--lane->fetching > 0)
        return;
    zombies_drop(lane);
    lane_update(lane);
}

void lane_stored(struct lane *lane, int64_t due_ms)
{
    if (due_ms >= QUEUE_DUE_HELD)
        return;
    if (lane->load != NULL) {
        if (due_ms < lane->behind_due_ms)
            lane->behind_due_ms = due_ms;
        return;
    }
    if (due_ms < lane->loaded_until_ms)
        lane->loaded_until_ms = due_ms;
    if (due_ms < lane->stored_due_ms) {
        lane->stored_due_ms = due_ms;
        lane_update(lane);
    }
}

void lane_settled(struct recipient *r, int64_t next_due_ms)
{
    struct lane *lane = r->holder;

    ASSERT(r->state == PLACE_SETTLING);
    if (lane->loading || lane->fetching > 0) {
        r->state = PLACE_ZOMBIE;
        list_push_back(&lane->zombies, &r->node);
    } else {
        memory_drop(r);
    }
    if (next_due_ms != INT64_MAX)
        lane_stored(lane, next_due_ms);
    if (lane->in_memory == 0)
        lane_update(lane); /* perhaps idle now */
    else if (lane->stored_due_ms != INT64_MAX &&
             lane->suspended_until_ms <= worker_wall_ms(lane->worker))
        load_want(lane, worker_wall_ms(lane->worker)); /* perhaps it waited for this */
}

/* Gives the window back to the store. */
static void window_release(struct lane *lane)
{
    struct list_node *n;

    while ((n = list_first(&lane->window)) != NULL) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);
        int64_t due_ms = r->due_ms;

        lane_take(r);
        lane->in_flight--;
        memory_drop(r);
        if (lane->load != NULL) {
            if (due_ms < lane->behind_due_ms)
                lane->behind_due_ms = due_ms;
            continue;
        }
        if (due_ms < lane->stored_due_ms)
            lane->stored_due_ms = due_ms;
        if (due_ms < lane->loaded_until_ms)
            lane->loaded_until_ms = due_ms;
    }
}

/* --- refills --- */

static struct str lane_domain(const struct lane *lane)
{
    struct str name = lane_name(lane);
    ptrdiff_t at = str_rfind(name, '@');

    return at < 0 ? name : (struct str){name.ptr + at + 1, name.len - (size_t)at - 1};
}

bool lane_expired(const struct recipient *r, int64_t now_ms)
{
    int64_t expires_ms = recipient_expires_ms(r);

    return retry_expired(now_ms, r->due_ms == expires_ms ? expires_ms + LAST_TRY_MS : expires_ms);
}

/* r, which is in no window, ends without being tried. So a backlog whose time is over goes as fast
 * as it can be read, also where the destination is down and is only probed. */
static void lane_expire(struct lane *lane, struct recipient *r)
{
    struct worker *w = lane->worker;
    struct judge_context context = {
        .dest = lane->site != NULL ? lane->site->dest
                                   : config_destination_for(w->config, lane_domain(lane), STR("")),
        .site = lane->site != NULL ? str_of(lane->site->name) : STR("")};

    r->state = PLACE_FLIGHT;
    lane->in_flight++;
    judge_expired(w, &context, r);
}

static void load_adopt(struct lane *lane, struct queue_load *load)
{
    struct list_node *n;
    bool suspended = lane->suspended_until_ms > worker_wall_ms(lane->worker);

    /* The table is larger than caches are: its lines come while the rows are walked. */
    for (n = list_first(&load->rcpts); n != NULL; n = list_next(&load->rcpts, n)) {
        const struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        map_prefetch(&lane->worker->memory, memory_hash(lane->worker, &r->message->id, r->index));
    }
    while ((n = list_pop_front(&load->rcpts)) != NULL) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        if (lane_find(lane->worker, &r->message->id, r->index) != NULL) {
            recipient_free(r);
        } else if (suspended || lane->worker->draining) {
            if (r->due_ms < lane->behind_due_ms)
                lane->behind_due_ms = r->due_ms;
            recipient_free(r);
        } else {
            memory_put(lane, r);
            counter_add(&lane->worker->counters.loaded, 1);
            if (lane_expired(r, worker_wall_ms(lane->worker)))
                lane_expire(lane, r);
            else
                window_insert(lane, r, false);
        }
    }
    zombies_drop(lane);
}

static void on_loaded(struct queue_load *load, int result)
{
    struct lane_load *l = load->owner;
    struct lane *lane = l->lane;
    struct worker *w = lane->worker;

    lane->loading = false;
    lane->refilled_ms = io_now_ms(w->io);
    w->loads--;
    load_adopt(lane, load);
    if (result < 0) {
        log_error("queue.load_failed", "shard=%u queue=%s error=%d", lane->shard, lane->name,
                  result);
        load->end = true; /* scan anew, a little later */
        load->next_due_ms = worker_wall_ms(w) + LOAD_RETRY_MS;
        lane->behind_due_ms = 0;
    }
    if (load->end) {
        lane->loaded_until_ms =
            load->now_ms + 1 < lane->behind_due_ms ? load->now_ms + 1 : lane->behind_due_ms;
        if (result < 0)
            lane->behind_due_ms = INT64_MAX;
        lane->stored_due_ms =
            load->next_due_ms < lane->behind_due_ms ? load->next_due_ms : lane->behind_due_ms;
        lane->behind_due_ms = INT64_MAX;
        lane->load = NULL;
        free(l);
    } else {
        lane->stored_due_ms = 0;
    }
    if (lane->stored_due_ms >= QUEUE_DUE_HELD)
        lane->stored_due_ms = INT64_MAX;
    lane_update(lane);
}

static void refill_adapt(struct lane *lane)
{
    uint64_t lasted_ms = io_now_ms(lane->worker->io) - lane->refilled_ms;

    if (lane->refilled_ms == 0)
        return;
    if (lasted_ms < REFILL_FAST_MS && lane->refill < window_max(lane))
        lane->refill *= 2;
    else if (lasted_ms >= REFILL_SLOW_MS && lane->refill > REFILL_MIN)
        lane->refill /= 2;
}

static void load_start(struct lane *lane)
{
    struct worker *w = lane->worker;
    uint32_t max;
    struct lane_load *l = lane->load;

    if (l == NULL) {
        l = calloc(1, sizeof(*l));
        ASSERT(l != NULL);
        l->lane = lane;
        l->load.queue = lane_name(lane);
        l->load.on_done = on_loaded;
        l->load.owner = l;
        l->load.from_ms = lane->loaded_until_ms;
        /* Of the whole scan, so that its end means one time. */
        l->load.now_ms = worker_wall_ms(w) - HANDOVER_MS;
        lane_seen(lane, l->load.now_ms);
        lane->load = l;
        lane->stored_due_ms = 0;
    }
    refill_adapt(lane);
    max = refill_max(lane);
    list_init(&l->load.rcpts);
    l->load.rows_max = max - (lane->window_len < max ? lane->window_len : max - 1);
    l->load.bytes_max = LOAD_BYTES_MAX;
    lane->loading = true;
    w->loads++;
    counter_add(&w->counters.loads, 1);
    queue_load(w->port, lane->shard, &l->load);
}

bool lane_loads_wait(const struct worker *w)
{
    return !list_empty(&w->load_wait) && w->loads < LOADS_MAX && !memory_full(w);
}

/* Lanes that filled their windows when there was room keep no more of it than others get now. */
static void windows_trim(struct worker *w)
{
    for (int i = 0; i < TRIM_BUCKETS; i++) {
        struct map_node *n = NULL;

        if (w->trim_bucket > w->lanes.mask)
            w->trim_bucket = 0;
        for (n = w->lanes.buckets[w->trim_bucket++]; n != NULL; n = n->next) {
            struct lane *lane = CONTAINER_OF(n, struct lane, node);

            while (lane->window_len > window_max(lane)) {
                struct recipient *r = LIST_ENTRY(lane->window.head.prev, struct recipient, node);

                lane_take(r);
                lane_return(r);
            }
        }
    }
}

/* The end of this turn looks again. */
static void on_load_timer(struct timer *timer)
{
    (void)timer;
}

void lane_start_loads(struct worker *w)
{
    struct list_node *n;

    if (memory_full(w) && !list_empty(&w->load_wait)) {
        windows_trim(w);
        w->load_timer.on_timer = on_load_timer;
        if (!timer_armed(&w->load_timer)) /* another worker may be the one that frees memory */
            wheel_arm(io_wheel(w->io), &w->load_timer, io_now_ms(w->io) + MEMORY_WAIT_MS);
        return;
    }
    while (w->loads < LOADS_MAX && (n = list_pop_front(&w->load_wait)) != NULL) {
        struct lane *lane = LIST_ENTRY(n, struct lane, wait_node);

        if (!w->draining && !lane->loading && lane->suspended_until_ms <= worker_wall_ms(w))
            load_start(lane);
    }
}

/* --- routing --- */

static void lane_route_to(struct lane *lane, struct site *site)
{
    if (site != lane->site) {
        if (lane->site != NULL)
            site_detach(lane->site, lane);
        site_attach(site, lane);
    }
}

/* No exchanger: a permanent reason ends everything in the window, a temporary one defers its first
 * and suspends the lane. */
static void route_failed(struct lane *lane, struct dns_route *route)
{
    struct worker *w = lane->worker;
    const struct config_destination *dest =
        config_destination_for(w->config, lane_domain(lane), STR(""));
    struct judge_context context = {.dest = dest};
    struct verdict verdict = classify_dns(route->status);
    struct outcome outcome = {.class = verdict.class, .stage = SMTP_STAGE_CONNECT, .local = true};
    struct recipient *r;

    classify_dns_reply(route->status, route->error, &outcome.reply);
    if (verdict.class == OUTCOME_FAILED) {
        while ((r = lane_pop(lane)) != NULL)
            judge_one(w, &context, r, &outcome);
        lane_update(lane);
        return;
    }
    if ((r = lane_pop(lane)) != NULL)
        judge_one(w, &context, r, &outcome);
    lane_suspend(lane, dest, outcome.reply.text);
}

static void lane_routed(struct lane *lane, const struct config_route *target,
                        struct dns_route *route)
{
    struct site *site;

    if (route != NULL && route->status != DNS_OK) {
        route_failed(lane, route);
        return;
    }
    site = site_get(lane->worker, lane_domain(lane), target, route);
    ASSERT(site != NULL);
    lane->route_expires_ms = UINT64_MAX;
    if (route !=
        NULL) { /* an answer served stale has expired already: ask again, but not at once */
        uint64_t soonest_ms = io_now_ms(lane->worker->io) + ROUTE_MIN_MS;

        lane->route_expires_ms = route->expires_ms < soonest_ms ? soonest_ms : route->expires_ms;
    }
    lane_route_to(lane, site);
    lane_update(lane);
}

static void on_route(struct dns_query *query, struct dns_route *route)
{
    struct lane_routing *routing = CONTAINER_OF(query, struct lane_routing, query);
    struct lane *lane = routing->lane;
    const struct config_route *target = config_route_for(lane->worker->config, lane_domain(lane));

    lane->routing = NULL;
    free(routing);
    lane_routed(lane, target, route);
}

static void route_rejected(struct lane *lane)
{
    struct dns_route route = {.status = DNS_NULL_MX,
                              .error = (char *)"rejected by configured route"};

    route_failed(lane, &route);
}

static void lane_route(struct lane *lane)
{
    struct worker *w = lane->worker;
    struct str domain = lane_domain(lane);
    const struct config_route *target = config_route_for(w->config, domain);
    struct dns_route *route;
    bool host_only = false;

    if (lane->routing != NULL)
        return;
    if (target != NULL && target->kind == CONFIG_ROUTE_REJECT) {
        route_rejected(lane);
        return;
    }
    if (target != NULL && target->socket.len != 0) {
        lane_routed(lane, target, NULL);
        return;
    }
    if (target != NULL && target->host != NULL) {
        domain = str_of(target->host);
        host_only = !target->mx_lookup;
    }
    route = dns_cached(w->dns, domain, host_only);
    if (route != NULL) {
        lane_routed(lane, target, route);
        dns_route_unref(route);
        return;
    }
    lane->routing = calloc(1, sizeof(*lane->routing));
    ASSERT(lane->routing != NULL);
    lane->routing->lane = lane;
    lane->routing->query.on_route = on_route;
    dns_lookup(w->dns, &lane->routing->query, domain, host_only);
}

/* --- states --- */

static void lane_free(struct lane *lane)
{
    struct worker *w = lane->worker;

    ASSERT(lane->in_memory == 0 && !lane->loading);
    wheel_cancel(io_wheel(w->io), &lane->timer);
    if (list_node_linked(&lane->wait_node))
        list_remove(&lane->wait_node);
    if (lane->routing != NULL) {
        dns_cancel(w->dns, &lane->routing->query);
        free(lane->routing);
    }
    if (lane->site != NULL)
        site_detach(lane->site, lane);
    map_remove(&w->lanes, &lane->node);
    gauge_set(&w->counters.lanes, (uint32_t)w->lanes.count);
    free(lane->load);
    free(lane->last_error);
    free(lane);
}

static bool lane_is_idle(const struct lane *lane)
{
    return lane->in_memory == 0 && lane->fetching == 0 && !lane->loading && lane->load == NULL &&
           lane->stored_due_ms == INT64_MAX && lane->routing == NULL &&
           lane->suspended_until_ms == 0;
}

static void lane_arm(struct lane *lane, int64_t wait_ms)
{
    struct io *io = lane->worker->io;

    if (wait_ms > TIMER_AHEAD_MS)
        wait_ms = TIMER_AHEAD_MS;
    wheel_arm(io_wheel(io), &lane->timer, io_now_ms(io) + (uint64_t)(wait_ms < 1 ? 1 : wait_ms));
}

static void on_lane_timer(struct timer *timer)
{
    struct lane *lane = CONTAINER_OF(timer, struct lane, timer);

    if (lane->suspended_until_ms != 0 && lane->suspended_until_ms <= worker_wall_ms(lane->worker))
        lane->suspended_until_ms = 0;
    if (lane_is_idle(lane))
        lane_free(lane);
    else
        lane_update(lane);
}

void lane_update(struct lane *lane)
{
    struct worker *w = lane->worker;
    int64_t now_ms = worker_wall_ms(w);

    if (lane->suspended_until_ms > now_ms) {
        lane_arm(lane, lane->suspended_until_ms - now_ms);
        return;
    }
    if (lane->stored_due_ms <= now_ms - HANDOVER_MS)
        load_want(lane, now_ms);
    else if (lane->stored_due_ms != INT64_MAX)
        lane_arm(lane, lane->stored_due_ms + HANDOVER_MS - now_ms);
    if (lane->window_len > 0) {
        if (lane->site == NULL || lane->route_expires_ms <= io_now_ms(w->io)) {
            lane_route(lane); /* ends in an update of its own */
            if (lane->site == NULL)
                return;
        }
        if (lane->window_len > 0 && !list_node_linked(&lane->ready_node))
            list_push_back(&lane->site->ready, &lane->ready_node);
        site_dirty(lane->site);
        return;
    }
    if (lane_is_idle(lane) && !timer_armed(&lane->timer))
        lane_arm(lane, IDLE_MS);
}

void lane_suspend(struct lane *lane, const struct config_destination *dest, const char *error)
{
    struct worker *w = lane->worker;

    if (lane->failures < UINT16_MAX)
        lane->failures++;
    free(lane->last_error);
    lane->last_error = error == NULL ? NULL : strdup(error);
    lane->suspended_until_ms = worker_wall_ms(w) + retry_delay_ms(dest, lane->failures, &w->rng);
    lane->site_down = false;
    window_release(lane);
    lane_update(lane);
}

void lane_succeeded(struct lane *lane)
{
    lane->failures = 0;
}

void lane_resume(struct lane *lane)
{
    lane->suspended_until_ms = 0;
    lane->site_down = false;
    lane->failures = 0;
    lane_update(lane);
}

void lane_flush(struct lane *lane)
{
    lane->route_expires_ms = 0;
    if (lane->site != NULL)
        lane->site->open_after_ms = 0;
    lane_resume(lane);
}

void lane_close_all(struct worker *w)
{
    struct map_node *n;
    size_t bucket = 0;

    wheel_cancel(io_wheel(w->io), &w->load_timer);
    while ((n = map_walk(&w->lanes, &bucket, NULL)) != NULL) {
        struct lane *lane = CONTAINER_OF(n, struct lane, node);

        lane->loading = false;
        while (!list_empty(&lane->zombies))
            memory_drop(LIST_ENTRY(list_pop_front(&lane->zombies), struct recipient, node));
        window_release(lane);
        lane_free(lane);
    }
}

/* What a lane holds in memory and how it is filled again from the store: budgets, refills. */
#include "schedule/lane_private.h"

#include <stdlib.h>

#include "base/log.h"
#include "limits/retry.h"
#include "schedule/lane_find.h"
#include "schedule/lane_walk.h"
#include "schedule/settle.h"
#include "schedule/supply.h"
#include "worker/shared.h"

#define LOAD_BYTES_MAX (4u << 20)
#define LOAD_RETRY_MS  1000
#define LOOKED_AT_MAX  1000 /* lanes that want a load, in a turn */
/* Lanes looked at in a turn while memory is short, with the recipients that they give back; and
 * while it is full. */
#define TRIM_WORK      128
#define TRIM_WORK_FULL 2048
#define MEMORY_WAIT_MS 50
#define HELD_NS        UINT64_C(1000000000) /* what waits for limits is in memory for so long */
#define MEMORY_MIN     64                   /* recipients of a worker */
#define EXPIRED_MAX    500                  /* that end as they are loaded, in a turn */
#define SETTLING_MIN   64 /* of a lane, whatever its window: what a commit or two take */
/* A refill whose rows lasted less than REFILL_FAST_MS was too small, one whose rows lasted
 * REFILL_SLOW_MS too large: loads cost little and windows take memory. The time is that of half the
 * rows: then the next refill is wanted. */
#define REFILL_FAST_MS 200
#define REFILL_SLOW_MS 2000

struct lane_load {
    struct queue_load load;
    struct lane *lane;
    uint64_t reserved;     /* bytes, of lane->supply->loading */
    int64_t wall_ahead_ms; /* of the monotonic clock, when the scan began */
};

/* --- how much --- */

/* Memory that messages take, and that their settles take until they commit: deliveries can be
 * faster than the disk. A record line that waits for its commit exists three times: in its settle,
 * in the batch, in the store's dirty pages. */
static uint64_t memory_alive(const struct worker *w)
{
    return message_bytes_alive() +
           2 * atomic_load_explicit(&w->shared->settle_bytes, memory_order_relaxed);
}

uint32_t lane_window_max(const struct lane *lane)
{
    const struct config *c = lane->worker->config;
    uint64_t alive = memory_alive(lane->worker), max = c->queue.memory_bytes_max;

    if (alive < max / 2)
        return c->queue.window_recipients;
    if (alive < max / 4 * 3)
        return c->queue.window_recipients / 4 + 1;
    /* From here on each lane may go on with a few recipients, at last with one: no lane stalls the
     * others. */
    return alive < max ? 4 : 1;
}

/* With a lane for each domain even one recipient a lane can be too much. A full memory empties:
 * recipients are sent, or their lane backs off and gives them up. MEMORY_MIN recipients are always
 * allowed, since intake and the loaders' caches hold messages too. */
bool lane_memory_full(const struct worker *w)
{
    uint64_t max = w->config->queue.memory_bytes_max;

    return w->memory.count >= MEMORY_MIN && memory_alive(w) >= max + max / 4;
}

bool lane_memory_tight(const struct worker *w)
{
    return memory_alive(w) >= w->config->queue.memory_bytes_max / 2 || lanes_are_tight(w);
}

uint64_t lane_memory_free(const struct worker *w)
{
    uint64_t alive = memory_alive(w), max = w->config->queue.memory_bytes_max;

    return alive < max ? max - alive : 0;
}

/* While memory is short, mail that waits for limits of its flow or tenant waits in the store. */
static bool is_held(const struct lane *lane)
{
    const struct worker *w = lane->worker;

    return lane->supply != NULL && lane_memory_tight(w) &&
           feed_is_held(&lane->supply->feed, lane, io_now_ns(w->io) + HELD_NS);
}

bool lane_has_room(const struct lane *lane)
{
    if (lane->supply != NULL)
        return supply_has_room(lane->supply) && !is_held(lane);
    return lane->window_len == 0 || !lane_memory_tight(lane->worker);
}

/* Whether commits lag behind deliveries: a recipient that is sent and not yet recorded takes
 * memory, and would be sent again after a crash. */
static bool settling_full(const struct lane *lane)
{
    uint32_t max = 2 * lane_window_max(lane);

    return lane->in_memory - lane->window_len - lane->in_flight >
           (max < SETTLING_MIN ? SETTLING_MIN : max);
}

static uint32_t refill_max(const struct lane *lane)
{
    uint32_t max = lane_window_max(lane);

    return lane->refill < max ? lane->refill : max;
}

/* Asks for a refill when no more than half of the last one is left and the store has due rows. */
void lane_load_want(struct lane *lane, int64_t now_ms)
{
    if (lane->scan == LANE_SCAN_READS || list_node_linked(&lane->wait_node) ||
        lane->worker->draining || !lane_has_due(lane, now_ms - LANE_HANDOVER_MS))
        return;
    if (lane->window_len * 2 > refill_max(lane) || settling_full(lane))
        return;
    if (lane->supply == NULL || lane_has_room(lane)) {
        list_push_back(&lane->worker->load_wait, &lane->wait_node);
        return;
    }
    supply_hungers(lane->supply, lane);
    supply_dirty(lane->supply);
}

/* Takes the bytes that l, which is under way, may bring off supply's account. */
static void unreserve(struct lane_load *l, struct supply *supply)
{
    if (supply != NULL) {
        ASSERT(supply->loading >= l->reserved);
        supply->loading -= l->reserved;
    }
    l->reserved = 0;
}

void lane_load_leave(struct lane *lane, struct supply *supply)
{
    if (lane->load != NULL)
        unreserve(lane->load, supply);
    ASSERT(!lane->hungry || list_node_linked(&lane->wait_node));
    if (!list_node_linked(&lane->wait_node))
        return;
    list_remove(&lane->wait_node);
    lane->hungry = false;
    list_push_back(&lane->worker->load_wait, &lane->wait_node);
}

/* --- refills --- */

bool lane_expired(const struct recipient *r, int64_t now_ms)
{
    int64_t expires_ms = recipient_expires_ms(r);

    return retry_expired(now_ms,
                         r->due_ms == expires_ms ? expires_ms + LANE_LAST_TRY_MS : expires_ms);
}

/* r, which was read and is not in memory, comes into it. One whose lifetime is over ends here, so
 * that an expired backlog goes nearly as fast as it can be read, even where the destination is down
 * and is only probed. In the window it is found by the sweep, or when its turn comes. */
static void load_take_in(struct lane *lane, struct recipient *r, int64_t now_ms)
{
    struct worker *w = lane->worker;

    lane_memory_put(lane, r);
    counter_add(&w->counters.loaded, 1);
    if (w->expired >= EXPIRED_MAX || !lane_expired(r, now_ms)) {
        lane_window_insert(lane, r, false);
        return;
    }
    r->state = PLACE_FLIGHT;
    lane->in_flight++;
    w->expired++;
    w->lane_hooks->expired(r);
}

static void load_adopt(struct lane *lane, struct queue_load *load)
{
    struct list_node *n;
    bool suspended = lane_suspended(lane);
    int64_t now_ms = worker_wall_ms(lane->worker);

    /* The table of recipients is larger than the CPU's caches: its lines are fetched while the rows
     * are walked. */
    for (n = list_first(&load->rcpts); n != NULL; n = list_next(&load->rcpts, n)) {
        const struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        map_prefetch(&lane->worker->memory,
                     lane_memory_hash(lane->worker, &r->message->id, r->index));
    }
    while ((n = list_pop_front(&load->rcpts)) != NULL) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);
        const struct recipient *known = lane_find(lane->worker, &r->message->id, r->index);

        if (known != NULL && (known->state != PLACE_ZOMBIE || known->due_ms != r->due_ms)) {
            recipient_free(r);
        } else if (known != NULL || suspended || lane->worker->draining || r->due_ms > now_ms) {
            /* r stays in the store for a later load. known: its settle stored this row anew before
             * the load read it, and a fetch keeps the zombie. Not due: the clock was set back
             * during the load. */
            if (r->due_ms < lane->behind_due_ms)
                lane->behind_due_ms = r->due_ms;
            lane_kept(lane, r);
            recipient_free(r);
        } else {
            load_take_in(lane, r, now_ms);
        }
    }
    lane_zombies_drop(lane);
}

static int64_t wall_ahead_ms(const struct worker *w)
{
    return worker_wall_ms(w) - (int64_t)io_now_ms(w->io);
}

static void on_loaded(struct queue_load *load, int result)
{
    struct lane_load *l = load->owner;
    struct lane *lane = l->lane;
    struct worker *w = lane->worker;

    ASSERT(lane->load == l && lane->scan == LANE_SCAN_READS && w->loads > 0);
    /* The wall clock was set during the scan: a row received since the scan began may have been due
     * by that clock, and the scan may have read it. */
    if (llabs(wall_ahead_ms(w) - l->wall_ahead_ms) > LANE_HANDOVER_MS / 2)
        lane_seen(lane, io_now_ms(w->io));
    lane_set_scan(lane, LANE_SCAN_RESTS);
    lane->refilled_ms = io_now_ms(w->io);
    w->loads--;
    unreserve(l, lane->supply);
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
        lane->knows_stored = lane->knows_stored || result >= 0;
        lane_set_scan(lane, LANE_SCAN_NONE);
        lane->load = NULL;
        free(l);
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
    if (lasted_ms < REFILL_FAST_MS && lane->refill < lane_window_max(lane))
        lane->refill *= 2;
    else if (lasted_ms >= REFILL_SLOW_MS && lane->refill > LANE_REFILL_MIN)
        lane->refill /= 2;
}

static void scan_begin(struct lane *lane)
{
    struct worker *w = lane->worker;
    struct lane_load *l = calloc(1, sizeof(*l));

    ASSERT(l != NULL && lane->load == NULL && lane->scan == LANE_SCAN_NONE);
    l->lane = lane;
    l->load.flow = lane->flow;
    l->load.queue = lane_name(lane);
    l->load.on_done = on_loaded;
    l->load.owner = l;
    l->load.from_ms = lane->loaded_until_ms;
    /* All loads of a scan use one now_ms, so that the scan's end says: what was due then is read.
     */
    l->load.now_ms = worker_wall_ms(w) - LANE_HANDOVER_MS;
    lane_seen(lane, io_now_ms(w->io) - LANE_HANDOVER_MS);
    l->wall_ahead_ms = wall_ahead_ms(w);
    lane->load = l;
}

/* How much the next load of l may bring. */
static void load_set_bounds(struct lane *lane, struct lane_load *l)
{
    struct worker *w = lane->worker;
    uint32_t max = refill_max(lane);

    ASSERT(l->reserved == 0);
    l->load.rows_max = max - (lane->window_len < max ? lane->window_len : max - 1);
    l->load.bytes_max = LOAD_BYTES_MAX;
    if (lane->site == NULL && lane_memory_tight(w)) {
        l->load.rows_max = 1;
    } else if (lane->supply != NULL) {
        uint64_t room = supply_room_bytes(lane->supply);

        l->load.bytes_max = room < LOAD_BYTES_MAX ? room : LOAD_BYTES_MAX;
        l->reserved = l->load.bytes_max;
        lane->supply->loading += l->reserved;
    }
    l->load.alive_bytes_max =
        w->loads < LOADS_SURE ? UINT64_MAX : w->config->queue.memory_bytes_max / 2;
    ASSERT(l->load.rows_max > 0 && l->load.bytes_max > 0);
}

static void load_start(struct lane *lane)
{
    struct worker *w = lane->worker;
    struct lane_load *l;

    ASSERT((lane->load == NULL) == (lane->scan == LANE_SCAN_NONE));
    ASSERT(lane->scan != LANE_SCAN_READS && w->loads < LOADS_MAX);
    if (lane->load == NULL)
        scan_begin(lane);
    l = lane->load;
    if (l->load.now_ms > worker_wall_ms(w) - LANE_HANDOVER_MS) /* it was set back amid the scan */
        l->load.now_ms = worker_wall_ms(w) - LANE_HANDOVER_MS;
    refill_adapt(lane);
    list_init(&l->load.rcpts);
    load_set_bounds(lane, l);
    lane_set_scan(lane, LANE_SCAN_READS);
    w->loads++;
    counter_add(&w->counters.loads, 1);
    queue_load(w->port, lane->shard, &l->load);
}

/* A load of a lane of one row takes less than its way to the loader and back: many are under way at
 * once, as long as there is memory for what they may bring. */
static uint32_t loads_max(const struct worker *w)
{
    return memory_alive(w) < w->config->queue.memory_bytes_max / 2 ? LOADS_MAX : LOADS_SURE;
}

bool lane_loads_wait(const struct worker *w)
{
    return !list_empty(&w->load_wait) && w->loads < loads_max(w) && !lane_memory_full(w) &&
           !settles_lag(w);
}

/* Gives back what lane holds beyond its part, now that memory is short. */
static uint32_t window_trim(struct lane *lane, void *arg)
{
    uint32_t window = lane->window_len;

    (void)arg;
    while (lane->window_len > 0 &&
           (lane->window_len > lane_window_max(lane) ||
            (lane->supply != NULL && supply_holds_too_much(lane->supply)) || is_held(lane))) {
        struct recipient *r = LIST_ENTRY(lane->window.head.prev, struct recipient, node);

        lane_take(r);
        lane_return(r);
        lane->worker->trimmed = true;
    }
    return window - lane->window_len;
}

/* Lanes that filled their windows while there was room give back what exceeds the part that lanes
 * get now. A round over all lanes that gave nothing back is not repeated at once, since each turn
 * would pay for it. */
static void windows_trim(struct worker *w, uint32_t work)
{
    uint64_t now_ms = io_now_ms(w->io);

    if (now_ms < w->trim_after_ms || !lane_walk(w, &w->trim_bucket, work, window_trim, NULL))
        return;
    w->trim_after_ms = w->trimmed ? 0 : now_ms + MEMORY_WAIT_MS;
    w->trimmed = false;
}

/* The timer has no work of its own: the end of this turn calls lane_start_loads(). */
static void on_load_timer(struct timer *timer)
{
    (void)timer;
}

void lane_start_loads(struct worker *w)
{
    bool full = lane_memory_full(w);
    struct list_node *n;

    w->expired = 0;
    if (lane_memory_tight(w))
        windows_trim(w, full ? TRIM_WORK_FULL : TRIM_WORK);
    if (full && !list_empty(&w->load_wait)) {
        w->load_timer.on_timer = on_load_timer;
        if (!timer_armed(&w->load_timer)) /* another worker may be the one that frees memory */
            wheel_arm(io_wheel(w->io), &w->load_timer, io_now_ms(w->io) + MEMORY_WAIT_MS);
        return;
    }
    if (settles_lag(w)) /* the next commit wakes the worker */
        return;
    for (int i = 0; i < LOOKED_AT_MAX && w->loads < loads_max(w) &&
                    (n = list_pop_front(&w->load_wait)) != NULL;
         i++) {
        struct lane *lane = LIST_ENTRY(n, struct lane, wait_node);

        w->turn.lanes++;
        if (w->draining || lane->scan == LANE_SCAN_READS || lane_suspended(lane))
            continue;
        if (lane->supply != NULL && !lane_has_room(lane)) {
            supply_hungers(lane->supply, lane);
            supply_wake(lane->supply, io_now_ms(w->io) + 1);
            continue;
        }
        load_start(lane);
    }
}

#include "schedule/lane_find.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "schedule/lane_private.h"
#include "schedule/lane_walk.h"
#include "schedule/supply.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define READ_LANES    512 /* of the directory, in a read; one turn takes them in */
#define READ_FEW      16  /* of a read's lanes come in while there is hardly any room */
#define READ_PACE     9 /* times as long as a read took rounds rest behind it, as the table fills */
#define READ_REST_MAX 200 /* ms */
#define READ_RETRY_MS 1000
/* Where there is no room for what a read would find, and lanes leave, the next read waits for room,
 * up to so long: each read that finds room takes in all that it finds, so that neighbours in the
 * store are sent and removed together. Were only some of each read taken in, each page of rows
 * would be changed by several rounds. */
#define ROOM_WAIT_MS 50
#define ROOM_LOOK_MS 2
#define ROOM_LEFT_MS 10 /* lanes leave: the last one did within this */
/* Between two rounds, until the first absent row is due; the second where lanes come and go for
 * nothing: CHURN_MAX. */
#define ROUND_REST_MIN_MS   100
#define ROUND_REST_CHURN_MS 1000
#define ROUND_REST_MAX_MS   60000
/* A lane that is due within this time, and that which two rounds take, stays in memory. */
#define HORIZON_MS 60000
/* Nobody remembers when the rows of a lane that was absent expire. So the sweep looks at them this
 * much later, if the lane still has due rows then. */
#define EXPIRES_LOOK_MS 60000
/* How long an empty lane stays, since its route and site are warm; and how long where other lanes
 * want its place. */
#define IDLE_MS        60000
#define IDLE_WANTED_MS 2
#define LEAVE_WORK     100 /* lanes looked at in a turn, and in a millisecond */
/* When so many lanes have left with due rows in a second, only a few come in for the rest of it:
 * where a lane's route is not known beforehand, each comes in, takes a load and a lookup, finds its
 * supply held back, and leaves again for nothing. */
#define CHURN_MAX 5000
/* Lanes of a site, beyond which those that are held back there stay in the store. */
#define SITE_LANES    1024
#define HELD_LOOK_MS  5000 /* a round looks for lanes behind a supply that is held back */
#define LEAVE_REST_MS 1000 /* between two looks at all, where there is room enough */
/* For so long after a due lane found no place others do not stay because they were in use. */
#define WANTED_MS 1000

struct lane_finder {
    struct queue_directory directory;
    struct worker *worker;
    struct timer timer;
    uint32_t shard;
    bool in_round, reading;
    bool hurry; /* reads follow one another without rests */
    bool left_due;
    uint32_t passed;        /* lanes that the present round has left in the store */
    uint32_t passed_last;   /* the last one */
    uint32_t few;           /* of the read that were taken for all the lack of room */
    uint32_t first;         /* of the read: these are others in each round */
    uint64_t room_until_ms; /* monotonic: the next read waits for room so long */
    uint64_t left;          /* how often a lane, or a row that arrived, was left to the store */
    uint64_t left_at_round, left_at_read;
    uint64_t round_ms, read_ms; /* monotonic: when they began */
    uint64_t lasted_ms;         /* the last round */
    int64_t soonest_ms;         /* the first row of those left is due then */
};

struct lane_finders {
    uint32_t len;
    struct lane_finder each[];
};

static struct lane_finder *finder_of(const struct worker *w, uint32_t shard)
{
    struct lane_finder *f = &w->finders->each[shard / w->shared->workers_len];

    ASSERT(f->shard == shard && f->worker == w);
    return f;
}

static size_t eighths(const struct worker *w, uint32_t n)
{
    return w->lanes_max / 8 * n;
}

static bool is_better(const struct queue_flow *flow)
{
    return flow != NULL && flow->priority < PRIORITY_DEFAULT;
}

/* --- rounds --- */

static void arm(struct lane_finder *f, uint64_t wait_ms)
{
    wheel_arm_by(io_wheel(f->worker->io), &f->timer, io_now_ms(f->worker->io) + wait_ms);
}

/* Until the next round. */
static uint64_t rest_ms(const struct lane_finder *f)
{
    const struct worker *w = f->worker;
    int64_t now_ms = worker_wall_ms(w);
    bool churned = w->churn > 0 && w->churn_s + 1 >= io_now_ms(w->io) / 1000;
    uint64_t least_ms = churned ? ROUND_REST_CHURN_MS : ROUND_REST_MIN_MS;

    if (f->soonest_ms <= now_ms + (int64_t)least_ms)
        return least_ms;
    if (f->soonest_ms - now_ms >= ROUND_REST_MAX_MS)
        return ROUND_REST_MAX_MS;
    return (uint64_t)(f->soonest_ms - now_ms);
}

static void read_next(struct lane_finder *f)
{
    struct worker *w = f->worker;

    ASSERT(f->in_round && !f->reading);
    f->reading = true;
    f->few = 0;
    f->left_at_read = f->left;
    f->read_ms = io_now_ms(w->io);
    f->room_until_ms = f->read_ms + ROOM_WAIT_MS;
    w->directories++;
    queue_directory(w->port, f->shard, &f->directory);
}

static void round_begin(struct lane_finder *f)
{
    ASSERT(!f->in_round);
    f->in_round = true;
    f->passed = 0;
    f->left_at_round = f->left;
    f->first += READ_FEW;
    f->soonest_ms = INT64_MAX;
    f->round_ms = io_now_ms(f->worker->io);
    f->directory.cursor.len = 0;
    read_next(f);
}

static void round_end(struct lane_finder *f)
{
    ASSERT(f->in_round && !f->reading && f->passed_last == f->passed);
    f->in_round = f->hurry = false;
    f->lasted_ms = io_now_ms(f->worker->io) - f->round_ms;
    if (f->passed > 0 || f->left != f->left_at_round)
        arm(f, rest_ms(f));
}

/* Whether the next read waits: there is no room for what it may find, but lanes are leaving. */
static bool waits_for_room(const struct lane_finder *f)
{
    const struct worker *w = f->worker;
    uint64_t now_ms = io_now_ms(w->io);

    return w->lanes.count + READ_LANES > eighths(w, 6) && now_ms < f->room_until_ms &&
           now_ms <= w->lane_gone_ms + ROOM_LEFT_MS;
}

static void wait_for_room(struct lane_finder *f)
{
    f->worker->wanted_ms = io_now_ms(f->worker->io);
    arm(f, ROOM_LOOK_MS);
}

static void on_finder_timer(struct timer *timer)
{
    struct lane_finder *f = CONTAINER_OF(timer, struct lane_finder, timer);

    if (f->worker->draining || f->reading)
        return;
    if (f->in_round && waits_for_room(f))
        wait_for_room(f);
    else if (f->in_round)
        read_next(f);
    else
        round_begin(f);
}

static bool is_suspended(const struct worker *w, const struct queue_flow *flow, struct str name)
{
    struct suspensions *all = &w->shared->suspensions;
    struct str names[SUSPENSION_SCOPES];
    char of_tenant[SUSPENSION_NAME_MAX + 1];

    if (suspensions_count(all) == 0)
        return false;
    for (int scope = 0; scope < SUSPENSION_SCOPES; scope++)
        names[scope] = STR("");
    names[SUSPENSION_DOMAIN] = queue_name_destination(name);
    if (flow != NULL) {
        suspension_name(of_tenant, flow->campaign, flow->tenant);
        names[SUSPENSION_CAMPAIGN] = flow->campaign;
        names[SUSPENSION_TENANT] = flow->tenant;
        names[SUSPENSION_CAMPAIGN_TENANT] = str_of(of_tenant);
    }
    return suspensions_of(all, names) != 0;
}

static bool churns(const struct worker *w)
{
    return w->churn >= CHURN_MAX && w->churn_s == io_now_ms(w->io) / 1000;
}

/* Whether a due lane that was found comes into memory while there is no room for all of them. */
static bool has_place(struct lane_finder *f, const struct queue_flow *flow)
{
    const struct worker *w = f->worker;
    size_t count = w->lanes.count;

    if ((count < eighths(w, 6) && !churns(w)) || (is_better(flow) && count < eighths(w, 16)))
        return true;
    return count < eighths(w, 8) && f->few++ < READ_FEW;
}

/* Whether a lane that was found stays in the store for now. */
static bool pass_by(struct lane_finder *f, const struct queue_lane_entry *e)
{
    struct worker *w = f->worker;
    const struct queue_flow *flow = queue_flow_find(w->shared->queue, e->flow);
    bool due = e->first_due_ms <= worker_wall_ms(w), suspended;

    if (w->lanes.count < eighths(w, 4))
        return false;
    suspended = due && is_suspended(w, flow, e->name); /* its end: lanes_find_soon() */
    if (due && !suspended) {
        if (has_place(f, flow))
            return false;
        w->wanted_ms = io_now_ms(w->io);
    }
    f->passed++;
    f->left_due |= due;
    if (!suspended && e->first_due_ms < f->soonest_ms)
        f->soonest_ms = e->first_due_ms;
    return true;
}

/* Whether lane, which has just come in, would only wait: its supply is held back, or full and has
 * lanes enough that wait. So millions behind one slow site keep no place, and no load, from
 * others. */
static bool would_wait(struct lane *lane)
{
    const struct worker *w = lane->worker;

    if (w->lanes.count <= eighths(w, 4) || is_better(lane->names) || lane->in_memory > 0)
        return false;
    lane_route_known(lane);
    if (lane->supply == NULL)
        return false;
    return lane_suspended(lane) ||
           (lane->site->lanes > SITE_LANES && !supply_has_room(lane->supply));
}

/* lane goes back to the store. Nobody tells when what holds its supply back is over. */
static void put_back(struct lane_finder *f, struct lane *lane, int64_t due_ms)
{
    int64_t look_ms = worker_wall_ms(f->worker) + HELD_LOOK_MS;

    ASSERT(lane->in_memory == 0 && lane->scan == LANE_SCAN_NONE);
    if (lane_suspended(lane) && due_ms < look_ms)
        due_ms = look_ms;
    f->passed++;
    f->left_due = true;
    f->few -= f->few > 0; /* another one may come in */
    if (due_ms < f->soonest_ms)
        f->soonest_ms = due_ms;
    lane_free(lane);
}

/* The store has rows of lane, the first due then. */
static void tell(struct lane *lane, int64_t due_ms)
{
    int64_t look_ms = worker_wall_ms(lane->worker) + EXPIRES_LOOK_MS;

    if (look_ms < lane->expires_ms)
        lane->expires_ms = look_ms;
    lane_stored(lane, due_ms);
}

static void take_in(struct lane_finder *f, const struct queue_lane_entry *e)
{
    struct worker *w = f->worker;
    struct lane *lane = lane_known(w, f->shard, e->flow, e->name);
    bool is_new = lane == NULL;

    ASSERT(e->name.len > 0 && e->name.len <= QUEUE_NAME_MAX);
    w->turn.lanes++;
    if (is_new ? pass_by(f, e) : lane->knows_stored)
        return;
    if (is_new)
        lane = lane_get(w, f->shard, e->flow, e->name);
    ASSERT(lane != NULL);
    if (is_new && would_wait(lane)) {
        put_back(f, lane, e->first_due_ms);
        return;
    }
    /* The read does not know what was left to the store after it. */
    lane->knows_stored = f->left == f->left_at_read;
    tell(lane, e->first_due_ms);
}

struct lane *lane_found(struct worker *w, uint32_t shard, uint32_t flow, struct str name,
                        int64_t due_ms)
{
    struct lane *lane = lane_known(w, shard, flow, name);

    if (lane != NULL && lane->knows_stored)
        return lane;
    if (lane == NULL)
        lane = lane_get(w, shard, flow, name);
    if (lane == NULL)
        return NULL;
    lane_route_known(lane);
    tell(lane, due_ms);
    lane_update(lane);
    return lane;
}

/* So many lanes are in the store alone: as the last round found, or the present one already has. */
static void count_absent(struct worker *w)
{
    uint32_t absent = 0;

    for (uint32_t i = 0; i < w->finders->len; i++) {
        const struct lane_finder *f = &w->finders->each[i];

        absent += f->passed > f->passed_last ? f->passed : f->passed_last;
    }
    gauge_set(&w->counters.lanes_absent, absent);
}

static void on_directory(struct queue_directory *d, int result)
{
    struct lane_finder *f = d->owner;
    struct worker *w = f->worker;
    uint64_t took_ms = io_now_ms(w->io) - f->read_ms;
    size_t first = w->lanes.count < eighths(w, 6) ? 0 : f->first;

    ASSERT(f->reading && w->directories > 0);
    ASSERT(d == &f->directory && (result < 0 || d->lanes_len <= READ_LANES));
    f->reading = false;
    w->directories--;
    for (size_t i = 0; result >= 0 && i < d->lanes_len; i++)
        lane_prefetch(w, f->shard, d->lanes[i].flow, d->lanes[i].name);
    for (size_t i = 0; result >= 0 && i < d->lanes_len && !w->draining; i++)
        take_in(f, &d->lanes[(first + i) % d->lanes_len]);
    queue_directory_done(d);
    if (w->draining)
        return;
    if (result >= 0 && d->end)
        f->passed_last = f->passed;
    count_absent(w);
    if (result < 0) {
        log_error("queue.directory_failed", "shard=%u error=%d action=retry", f->shard, result);
        arm(f, READ_RETRY_MS);
    } else if (d->end) {
        round_end(f);
    } else if (waits_for_room(f)) {
        wait_for_room(f);
    } else if (f->hurry || w->lanes.count < eighths(w, 4)) {
        read_next(f);
    } else {
        arm(f, took_ms * READ_PACE < READ_REST_MAX ? 1 + took_ms * READ_PACE : READ_REST_MAX);
    }
}

int lanes_find_open(struct worker *w)
{
    uint32_t own = worker_shards(w), workers = w->shared->workers_len;

    w->finders = calloc(1, sizeof(*w->finders) + own * sizeof(w->finders->each[0]));
    if (w->finders == NULL)
        return -ENOMEM;
    w->finders->len = own;
    for (uint32_t i = 0; i < own; i++) {
        struct lane_finder *f = &w->finders->each[i];

        f->worker = w;
        f->shard = w->index + i * workers;
        f->timer.on_timer = on_finder_timer;
        f->hurry = true;
        f->directory.lanes_max = READ_LANES;
        f->directory.on_done = on_directory;
        f->directory.owner = f;
        round_begin(f);
    }
    return 0;
}

void lanes_find_close(struct worker *w)
{
    for (uint32_t i = 0; w->finders != NULL && i < w->finders->len; i++)
        wheel_cancel(io_wheel(w->io), &w->finders->each[i].timer);
    free(w->finders);
    w->finders = NULL;
}

void lanes_find_soon(struct worker *w)
{
    for (uint32_t i = 0; i < w->finders->len; i++) {
        struct lane_finder *f = &w->finders->each[i];

        if (!lanes_are_absent(w, f->shard))
            continue;
        f->hurry = true;
        f->left += f->in_round; /* the round has passed some lanes: another one follows */
        f->soonest_ms = 0;
        if (!f->reading)
            arm(f, 1);
    }
}

bool lanes_are_absent(const struct worker *w, uint32_t shard)
{
    const struct lane_finder *f;

    if (w->finders == NULL)
        return false;
    f = finder_of(w, shard);
    return f->in_round || timer_armed(&f->timer);
}

bool lanes_left_due(struct worker *w, uint32_t shard)
{
    struct lane_finder *f = finder_of(w, shard);
    bool left = f->left_due;

    f->left_due = false;
    return left;
}

bool lane_stays_absent(const struct worker *w)
{
    return w->lanes.count >= eighths(w, 16);
}

void lane_left(struct worker *w, uint32_t shard, int64_t due_ms)
{
    struct lane_finder *f = finder_of(w, shard);

    f->left++;
    if (due_ms < f->soonest_ms)
        f->soonest_ms = due_ms;
    if (!f->in_round && !w->draining)
        arm(f, rest_ms(f));
}

/* --- lanes leave --- */

void lane_leave(struct lane *lane)
{
    struct worker *w = lane->worker;
    uint64_t now_s = io_now_ms(w->io) / 1000;

    ASSERT(lane->in_memory == 0 && lane->fetching == 0 && lane->scan == LANE_SCAN_NONE);
    if (lane_has_due(lane, worker_wall_ms(w))) {
        w->churn = w->churn_s == now_s ? w->churn + 1 : 1;
        w->churn_s = now_s;
    }
    log_debug("lane.left", "queue=%s shard=%u", lane->name, lane->shard);
    if (!lane->knows_stored || lane->stored_due_ms != INT64_MAX)
        lane_left(w, lane->shard, lane->stored_due_ms);
    lane_free(lane);
}

/* A lane whose load is to begin is; one that waits for room in its supply is not. */
static bool is_in_use(const struct lane *lane)
{
    return (list_node_linked(&lane->wait_node) && !lane->hungry) || lane->in_memory > 0 ||
           lane->fetching > 0 || lane->scan != LANE_SCAN_NONE || lane->routing != NULL ||
           list_node_linked(&lane->outlived_node);
}

/* Whether lane, which has nothing in memory, may leave it. */
static bool may_leave(struct lane *lane, int64_t now_ms)
{
    const struct worker *w = lane->worker;
    int64_t horizon_ms = now_ms + HORIZON_MS + 2 * (int64_t)finder_of(w, lane->shard)->lasted_ms;
    bool full = w->lanes.count > eighths(w, 16);

    /* A lane that backs off would be tried with each round. Such lanes do not keep all others out:
     * hardly any room is left, so that few come in, and these among them. */
    if (lane->state != LANE_OPEN && lane_has_due(lane, now_ms))
        return full || (w->lanes.count > eighths(w, 7) && !is_better(lane->names));
    if (w->lanes.count > eighths(w, 6))
        return full || !is_better(lane->names) || !lane_has_due(lane, now_ms) ||
               lane_suspended(lane);
    return !lane_has_due(lane, horizon_ms) || lane_suspended(lane);
}

/* Whether lanes that were just in use may stay for a while: their routes and sessions are warm. */
static bool is_calm(const struct worker *w)
{
    return w->lanes.count <= eighths(w, 6) && io_now_ms(w->io) >= w->wanted_ms + WANTED_MS;
}

uint64_t lane_idle_ms(const struct worker *w)
{
    return w->lanes.count > eighths(w, 4) && !is_calm(w) ? IDLE_WANTED_MS : IDLE_MS;
}

static uint32_t leave_look(struct lane *lane, void *arg)
{
    struct worker *w = lane->worker;
    int64_t now_ms = *(const int64_t *)arg;

    if (w->lanes.count <= eighths(w, 4))
        return 0;
    if (is_in_use(lane)) {
        lane->was_in_use = true;
        return 0;
    }
    if (lane->was_in_use && is_calm(w)) {
        lane->was_in_use = false;
        return 0;
    }
    if (may_leave(lane, now_ms))
        lane_leave(lane);
    return 0;
}

void lanes_leave_step(struct worker *w)
{
    uint64_t now_ms = io_now_ms(w->io);
    int64_t wall_ms = worker_wall_ms(w);

    if (w->draining || w->lanes.count <= eighths(w, 4) ||
        (now_ms < w->leave_after_ms && is_calm(w)) || now_ms == w->leave_step_ms)
        return;
    w->leave_step_ms = now_ms;
    if (lane_walk(w, &w->leave_bucket, LEAVE_WORK, leave_look, &wall_ms))
        w->leave_after_ms = now_ms + LEAVE_REST_MS;
}

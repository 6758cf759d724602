#include "outcome/sweep.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "limits/retry.h"
#include "outcome/admin.h"
#include "outcome/judge.h"
#include "schedule/lane_find.h"
#include "schedule/lane_private.h"
#include "schedule/lane_walk.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define CLOCK_JUMP_MS 1000
#define LOOK_MS       1000 /* within so long every lane is looked at once */
#define LOOK_AGAIN_MS 20   /* between two steps of that look */
#define LOOK_WORK     2048
#define LOOK_END_WORK 8 /* of a recipient that ends, against a lane that is looked at */
#define LOOK_ENDS     (LOOK_WORK / LOOK_END_WORK)
#define STEP_MS       20 /* between two steps of a walk */
#define STEP_ROWS     2000
#define STEP_FOUND    200
#define LANE_EVERY_MS 30000 /* a lane's rows are walked over, at most */
#define AGAIN_MS      60000 /* until the second walk behind a jump of the clock */
/* Between two passes over all rows for lanes that are not in memory. Due mail may wait in them for
 * hours, behind a suspension or what is slow. The first comes early: some has ended while nothing
 * ran, and a process that never lives long shall end it too. */
#define ABSENT_EVERY_MS 300000
#define ABSENT_FIRST_MS 60000
/* A pass over all rows takes the place of passes over lanes where at least one lane for so many
 * rows wants one; of which it is known that they do, between these bounds. */
#define ALL_ROWS      256
#define ALL_LANES_MIN 4
#define ALL_LANES_MAX 4096
#define TAKEN_MAX     2000 /* lanes, in a turn */
/* Over all rows when the clock was set back. The second finds what was under way at that moment,
 * which may have been stored behind the cursor of the first. */
#define CLOCK_PASSES 2
#define STEP_LANES   200

enum sweep_kind {
    SWEEP_TIMES, /* walks over all rows of a shard: puts due times right, learns when stored rows
                    expire */
    SWEEP_LIFETIMES, /* walks over a lane's rows, or over all where many lanes want that: finds
                        those whose lifetime is over */
    SWEEP_KINDS
};

/* One kind of walk over a shard. */
struct sweep {
    struct worker *worker;
    uint32_t shard;
    enum sweep_kind kind;
    bool walking;   /* amid a pass */
    bool stepping;  /* the loader, or administration, works on a step */
    bool restart;   /* SWEEP_TIMES: the clock was set back amid the pass */
    bool all;       /* SWEEP_LIFETIMES: the pass is over all rows; waiting empties before it */
    bool absent;    /* the next one is to be, for lanes that are not in memory */
    uint8_t passes; /* SWEEP_TIMES: passes still to begin */
    struct timer timer;
    struct queue_walk walk;
    struct admin_job job;
    struct buf memory; /* the queue names of found */
    struct admin_row found[STEP_FOUND];
    struct config *config; /* a reference, while stepping */
    int64_t site_longest_ms, now_ms;
    uint64_t changed;
    /* The lanes of the step, and when the first row of each expires; SWEEP_LIFETIMES: the first of
     * those that have not. Of a pass over one lane that lane, for the whole pass. */
    struct sweep_lane {
        int64_t expires_ms;
        uint32_t flow;
        uint16_t len;
        bool found; /* rows whose lifetime is over */
        bool waits; /* its campaign does not run */
        char name[QUEUE_NAME_MAX];
    } * lanes;
    size_t lanes_len;
    struct list waiting; /* SWEEP_LIFETIMES: lanes that want a pass, by outlived_node */
};

struct sweeps {
    struct worker *worker;
    struct timer timer;
    size_t bucket; /* of the table of lanes: where the look goes on */
    int64_t wall_ahead_ms;
    bool wall_known;
    bool unsettled; /* settles waited at the end of a pass after a jump of the clock: their due
                       times are from before */
    uint32_t shards_len;
    struct sweep shards[][SWEEP_KINDS]; /* the shards that the worker owns */
};

static void pass_begin(struct sweep *s);

/* --- what is to be done with a row --- */

static int64_t site_longest_ms(const struct config *c)
{
    int64_t longest_ms = NOTICE_WAIT_MS;

    for (size_t i = 0; i < c->destinations_len; i++) {
        const struct config_destination *d = &c->destinations[i];
        int64_t ms = strncmp(d->pattern, "site:", 5) == 0 ? retry_longest_ms(d, UINT16_MAX) : 0;

        longest_ms = ms > longest_ms ? ms : longest_ms;
    }
    return longest_ms;
}

/* The site of stored mail is not known: of the delays that the row may have had the longest is
 * right. */
static int64_t right_ms(const struct config *c, int64_t site_ms, struct str queue,
                        const struct retry_place *p, int64_t now_ms)
{
    struct str domain = queue_name_destination(queue);
    int64_t ms = retry_longest_ms(config_destination_for(c, domain, STR("")), p->attempts);

    return retry_right_ms(p, ms > site_ms ? ms : site_ms, now_ms);
}

int64_t sweep_right_ms(const struct worker *w, const struct recipient *r)
{
    struct retry_place p = {.due_ms = r->due_ms,
                            .created_ms = r->message->created_ms,
                            .expires_ms = recipient_expires_ms(r),
                            .last_attempt_ms = r->last_attempt_ms,
                            .attempts = r->attempts};

    return right_ms(w->config, site_longest_ms(w->config), r->queue, &p, worker_wall_ms(w));
}

/* Whether the row is due at a wrong time. Its message is not read for that: the message's id says
 * within a second when it came. */
static bool is_misplaced(const struct sweep *s, const struct queue_row_view *row)
{
    struct retry_place p = {.due_ms = row->due_ms,
                            .created_ms = msgid_ms(&row->id),
                            .last_attempt_ms = row->last_attempt_ms,
                            .attempts = row->attempts};

    p.expires_ms = p.created_ms + (int64_t)row->lifetime_s * 1000;
    return right_ms(s->config, s->site_longest_ms, row->queue, &p, s->now_ms) != row->due_ms;
}

/* When the row ends without being tried. A row that was put off beyond its lifetime ends with the
 * lifetime. */
static int64_t ends_ms(const struct queue_row_view *row)
{
    int64_t ms = row->expires_ms;

    if (row->due_ms >= ms) /* the last attempt */
        ms += LANE_LAST_TRY_MS;
    return row->due_ms > ms ? row->due_ms : ms;
}

/* Whether flow is of a campaign that does not run: lifetimes of a draft's mail have not begun, and
 * what a pause outlives ends behind it. Any thread. */
static bool waits(const struct worker *w, uint32_t flow)
{
    struct suspensions *all = &w->shared->suspensions;
    char name[SUSPENSION_NAME_MAX + 1];
    const struct queue_flow *names;

    if (suspensions_count(all) == 0 || (names = queue_flow_find(w->shared->queue, flow)) == NULL)
        return false;
    suspension_name(name, names->campaign, names->tenant);
    return name[0] != '\0' && suspensions_hold(all, SUSPENSION_CAMPAIGN_TENANT, str_of(name));
}

/* The lane of row among those of the step; rows come in order of their lanes. */
static struct sweep_lane *step_lane(struct sweep *s, uint32_t flow, struct str name)
{
    struct sweep_lane *l = s->lanes_len == 0 ? NULL : &s->lanes[s->lanes_len - 1];

    if (l == NULL || l->flow != flow || !str_eq((struct str){l->name, l->len}, name)) {
        ASSERT(s->lanes_len < STEP_LANES && name.len <= sizeof(l->name));
        l = &s->lanes[s->lanes_len++];
        *l = (struct sweep_lane){.expires_ms = INT64_MAX,
                                 .flow = flow,
                                 .len = (uint16_t)name.len,
                                 .waits = waits(s->worker, flow)};
        memcpy(l->name, name.ptr, name.len);
    }
    return l;
}

/* --- a step --- */

/* Runs in the loader's thread: notes what is to be done with row. False: the step is full. */
static bool on_row(void *arg, const struct queue_row_view *row)
{
    struct sweep *s = arg;
    struct admin_row *r = &s->found[s->job.rows_len];
    struct sweep_lane *lane;
    int64_t ms = ends_ms(row);
    bool found;

    ASSERT(s->stepping && s->job.rows_len < STEP_FOUND);
    if ((row->flags & RECIPIENT_HELD) != 0)
        return true;
    lane = step_lane(s, row->flow, row->queue);
    found = s->kind == SWEEP_TIMES ? is_misplaced(s, row) : ms <= s->now_ms && !lane->waits;
    if (!found || s->kind == SWEEP_TIMES)
        lane->expires_ms = ms < lane->expires_ms ? ms : lane->expires_ms;
    if (!found)
        return s->lanes_len < STEP_LANES;
    lane->found = true;
    *r = (struct admin_row){.id = row->id,
                            .index = row->index,
                            .flow = row->flow,
                            .flags = row->flags,
                            .due_ms = row->due_ms,
                            .queue = {(char *)s->memory.len, row->queue.len}};
    if (buf_reserve(&s->memory, row->queue.len) < 0)
        return false; /* the next pass finds this row */
    buf_put_str(&s->memory, row->queue);
    return ++s->job.rows_len < STEP_FOUND && s->lanes_len < STEP_LANES;
}

/* When lane wants a pass. Rows that were found may stay, as one that cannot be ended for lack of
 * room. Others were kept since the lane was taken: lane->expires_ms is of these. */
static int64_t wants_ms(const struct sweep *s, const struct lane *lane,
                        const struct sweep_lane *from)
{
    int64_t ms = from->expires_ms < lane->expires_ms ? from->expires_ms : lane->expires_ms;
    int64_t again_ms = s->now_ms + LANE_EVERY_MS;

    ASSERT(from->flow == lane->flow && lane->shard == s->shard);
    if (s->kind == SWEEP_LIFETIMES && (from->found || ms < again_ms))
        return again_ms;
    return ms;
}

/* Tells the lanes walked over what the step found, as far as they are in memory: of others the
 * next pass for them finds it anew. */
static void lanes_learn(struct sweep *s)
{
    ASSERT(s->lanes_len <= STEP_LANES && !s->stepping);
    for (size_t i = 0; i < s->lanes_len; i++) {
        const struct sweep_lane *from = &s->lanes[i];
        struct lane *lane =
            lane_known(s->worker, s->shard, from->flow, (struct str){from->name, from->len});

        if (lane == NULL)
            continue;
        lane->expires_ms = wants_ms(s, lane, from);
        lane_update(lane);
    }
}

/* Takes the next lane that waits: what is kept from here on is seen by its pass, or noted. */
static struct lane *take_lane(struct sweep *s)
{
    struct list_node *n = list_pop_front(&s->waiting);
    struct lane *lane = n == NULL ? NULL : LIST_ENTRY(n, struct lane, outlived_node);

    ASSERT(s->kind == SWEEP_LIFETIMES);
    if (lane != NULL)
        lane->expires_ms = INT64_MAX;
    return lane;
}

/* Whether so many lanes wait that a pass over all rows is less than one over each of them. */
static bool many_wait(const struct sweep *s)
{
    struct queue_counters c = {0};
    uint64_t many, len = 0;

    queue_counters(s->worker->shared->queue, s->shard, &c);
    many = c.rows / ALL_ROWS;
    many = many < ALL_LANES_MIN ? ALL_LANES_MIN : many > ALL_LANES_MAX ? ALL_LANES_MAX : many;
    for (struct list_node *n = list_first(&s->waiting); n != NULL && len < many;
         n = list_next(&s->waiting, n))
        len++;
    return len == many;
}

static void next_pass(struct sweep *s)
{
    struct lane *lane;

    ASSERT(s->kind == SWEEP_LIFETIMES && !s->walking);
    if (list_empty(&s->waiting) && !s->absent)
        return;
    s->all = s->absent || many_wait(s);
    s->absent = false;
    s->lanes_len = 0;
    if (!s->all) {
        lane = take_lane(s);
        ASSERT(lane != NULL);
        step_lane(s, lane->flow, lane_name(lane));
    }
    pass_begin(s);
}

/* A pass over all rows could not read them: what the lanes that it was for knew is lost. */
static void all_learn(struct sweep *s)
{
    struct sweep *times = s - SWEEP_LIFETIMES + SWEEP_TIMES;

    ASSERT(s->all && times->kind == SWEEP_TIMES && times->shard == s->shard);
    if (times->walking)
        times->restart = true;
    else if (times->passes == 0)
        times->passes = 1;
    if (!times->walking)
        wheel_arm(io_wheel(s->worker->io), &times->timer, io_now_ms(s->worker->io) + AGAIN_MS);
}

/* Whether settles wait, for room or since the store refuses them. */
static bool settles_wait(const struct worker *w)
{
    return w->settles_failing > 0 || w->settles_refused > 0;
}

static void pass_end(struct sweep *s)
{
    struct worker *w = s->worker;

    ASSERT(s->walking && !s->stepping);
    s->walking = false;
    if (s->kind == SWEEP_LIFETIMES) {
        if (!s->all)
            lanes_learn(s);
        next_pass(s);
        return;
    }
    if (s->changed > 0)
        log_warn("queue.due_times_put_right", "shard=%u rows=%llu", s->shard,
                 (unsigned long long)s->changed);
    s->changed = 0;
    if (s->passes > 0)
        wheel_arm(io_wheel(w->io), &s->timer, io_now_ms(w->io) + AGAIN_MS);
    else
        w->sweeps->unsettled |= settles_wait(w);
}

static void step_end(struct sweep *s, bool last)
{
    struct io *io = s->worker->io;

    ASSERT(s->stepping && s->config != NULL);
    s->stepping = false;
    config_unref(s->config);
    s->config = NULL;
    buf_clear(&s->memory);
    if (s->worker->draining)
        return;
    if (s->kind == SWEEP_TIMES || s->all)
        lanes_learn(s);
    if (last && !s->restart)
        pass_end(s);
    else
        wheel_arm(io_wheel(io), &s->timer, io_now_ms(io) + STEP_MS);
}

static void on_changed(struct admin_job *job, int result)
{
    struct sweep *s = CONTAINER_OF(job, struct sweep, job);

    ASSERT(s->stepping && job->changed <= job->rows_len);
    if (result < 0)
        log_error("queue.sweep_failed", "shard=%u error=%d", s->shard, result);
    s->changed += job->changed;
    step_end(s, s->walk.end);
}

static void on_walked(struct queue_walk *walk, int result)
{
    struct sweep *s = walk->owner;

    ASSERT(walk == &s->walk && s->stepping && s->job.rows_len <= STEP_FOUND);
    ASSERT(s->lanes_len <= STEP_LANES);
    if (result < 0) {
        log_error("queue.sweep_failed", "shard=%u error=%d", s->shard, result);
        if (s->all)
            all_learn(s);
        else if (s->kind == SWEEP_LIFETIMES)
            s->lanes[0].found = true; /* it is walked over again */
    }
    if (result < 0 || s->worker->draining || s->job.rows_len == 0) {
        step_end(s, result < 0 || walk->end);
        return;
    }
    for (size_t i = 0; i < s->job.rows_len; i++)
        s->found[i].queue.ptr = (const char *)s->memory.data + (size_t)s->found[i].queue.ptr;
    admin_begin(s->worker, &s->job);
}

static void sweep_step(struct sweep *s)
{
    struct worker *w = s->worker;

    ASSERT(s->walking && !s->stepping && s->config == NULL);
    s->stepping = true;
    s->config = config_ref(w->config);
    s->site_longest_ms = site_longest_ms(w->config);
    s->now_ms = worker_wall_ms(w);
    if (s->restart)
        s->walk.cursor.len = 0;
    s->restart = false;
    s->job.action = s->kind == SWEEP_TIMES ? ADMIN_RETIME : ADMIN_OUTLIVE;
    s->job.rows_len = 0;
    s->job.changed = 0;
    s->walk.what = (struct queue_visit){
        .rows_max = STEP_ROWS, .ripe_ms = s->now_ms, .visit = on_row, .arg = s};
    if (s->kind == SWEEP_LIFETIMES && !s->all) {
        ASSERT(s->lanes_len == 1); /* the pass's lane */
        s->walk.what.flow = s->lanes[0].flow;
        s->walk.what.queue = (struct str){s->lanes[0].name, s->lanes[0].len};
    } else
        s->lanes_len = 0;
    queue_walk(w->port, s->shard, &s->walk);
}

/* Lanes are taken before the first step of a pass over all rows. */
static void sweep_go_on(struct sweep *s)
{
    for (int i = 0; s->all && s->walk.cursor.len == 0 && take_lane(s) != NULL; i++)
        if (i == TAKEN_MAX) {
            wheel_arm(io_wheel(s->worker->io), &s->timer, io_now_ms(s->worker->io) + 1);
            return;
        }
    sweep_step(s);
}

static void pass_begin(struct sweep *s)
{
    ASSERT(!s->walking && !s->stepping);
    s->walking = true;
    s->walk.cursor.len = 0;
    sweep_go_on(s);
}

static void on_step(struct timer *timer)
{
    struct sweep *s = CONTAINER_OF(timer, struct sweep, timer);

    if (s->worker->draining || s->stepping)
        return;
    if (s->walking) {
        sweep_go_on(s);
    } else if (s->passes > 0) {
        s->passes--;
        pass_begin(s);
    }
}

/* --- the clock --- */

static void times_begin(struct worker *w)
{
    struct sweeps *all = w->sweeps;

    for (uint32_t i = 0; i < all->shards_len; i++) {
        struct sweep *s = &all->shards[i][SWEEP_TIMES];

        s->restart = s->walking;
        s->passes = s->walking ? CLOCK_PASSES - 1 : CLOCK_PASSES;
        if (!s->walking)
            wheel_arm(io_wheel(w->io), &s->timer, io_now_ms(w->io) + 1);
    }
}

void sweep_clock(struct worker *w)
{
    struct sweeps *all = w->sweeps;
    int64_t ahead_ms = worker_wall_ms(w) - (int64_t)io_now_ms(w->io);
    int64_t by_ms = all->wall_known ? ahead_ms - all->wall_ahead_ms : 0;

    all->wall_known = true;
    all->wall_ahead_ms = ahead_ms;
    if (llabs(by_ms) < CLOCK_JUMP_MS)
        return;
    if (w->index == 0)
        log_warn("clock.jumped", "by_s=%+.3f", (double)by_ms / 1000);
    if (by_ms < 0)
        times_begin(w);
    else /* looks at lanes find what is due, a pass over all rows what is due in absent ones */
        w->absent_after_ms = io_now_ms(w->io);
}

/* --- lanes --- */

static struct sweep *lane_sweep(struct worker *w, uint32_t shard)
{
    struct sweep *s = &w->sweeps->shards[shard / w->shared->workers_len][SWEEP_LIFETIMES];

    ASSERT(s->shard == shard && s->worker == w && s->kind == SWEEP_LIFETIMES);
    return s;
}

/* Ends what has outlived its lifetime in the window. Returns how many. */
static uint32_t window_look(struct lane *lane, int64_t now_ms, uint32_t max)
{
    struct list_node *n, *next;
    uint32_t ended = 0;

    if (lane->window_len == 0 || lane->window_expires_ms > now_ms)
        return 0;
    lane->window_expires_ms = INT64_MAX;
    for (n = list_first(&lane->window); n != NULL; n = next) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        next = list_next(&lane->window, n);
        if (ended < max && lane_expired(r, now_ms)) {
            lane_take(r);
            judge_expired(r);
            ended++;
        } else {
            lane_window_expires(lane, r);
        }
    }
    return ended;
}

static void stored_look(struct lane *lane, int64_t now_ms)
{
    struct sweep *s = lane_sweep(lane->worker, lane->shard);
    bool suspended;

    if (!lane_has_due(lane, now_ms))
        return;
    suspended = lane_suspended(lane);
    /* Lifetimes of a draft's mail have not begun; what a pause outlives ends behind it. */
    if ((lane->suspensions & 1u << SUSPENSION_CAMPAIGN_TENANT) != 0)
        return;
    if (!suspended)
        lane_load_want(lane, now_ms); /* the lane's timer was armed by the clock before the jump */
    if (lane->expires_ms > now_ms || list_node_linked(&lane->outlived_node))
        return;
    list_push_back(&s->waiting, &lane->outlived_node);
    if (!s->walking) {
        s->now_ms = now_ms;
        next_pass(s);
    }
}

static uint32_t lane_look(struct lane *lane, void *arg)
{
    int64_t now_ms = *(const int64_t *)arg;
    uint32_t ended = window_look(lane, now_ms, LOOK_ENDS);

    stored_look(lane, now_ms);
    return ended * LOOK_END_WORK;
}

/* What outlives its lifetime in lanes that are not in memory. */
static void absent_look(struct sweeps *all, int64_t now_ms)
{
    struct worker *w = all->worker;

    if (io_now_ms(w->io) < w->absent_after_ms)
        return;
    for (uint32_t i = 0; i < all->shards_len; i++) {
        struct sweep *s = &all->shards[i][SWEEP_LIFETIMES];

        if (!lanes_left_due(w, s->shard))
            continue;
        w->absent_after_ms = io_now_ms(w->io) + ABSENT_EVERY_MS;
        s->absent = true;
        if (!s->walking) {
            s->now_ms = now_ms;
            next_pass(s);
        }
    }
}

static void on_look(struct timer *timer)
{
    struct sweeps *all = CONTAINER_OF(timer, struct sweeps, timer);
    struct worker *w = all->worker;
    int64_t now_ms = worker_wall_ms(w);
    bool round;

    if (w->draining)
        return;
    if (all->unsettled && !settles_wait(w)) {
        all->unsettled = false;
        times_begin(w);
    }
    absent_look(all, now_ms);
    round = lane_walk(w, &all->bucket, LOOK_WORK, lane_look, &now_ms);
    wheel_arm(io_wheel(w->io), &all->timer,
              round ? wheel_look_ms(io_now_ms(w->io), LOOK_MS) : io_now_ms(w->io) + LOOK_AGAIN_MS);
}

/* --- open and close --- */

int sweep_open(struct worker *w)
{
    uint32_t own = worker_shards(w), workers = w->shared->workers_len;
    struct sweeps *all = calloc(1, sizeof(*all) + own * sizeof(all->shards[0]));

    if (all == NULL)
        return -ENOMEM;
    w->sweeps = all;
    all->worker = w;
    all->shards_len = own;
    w->absent_after_ms = io_now_ms(w->io) + ABSENT_FIRST_MS;
    all->timer.on_timer = on_look;
    for (uint32_t i = 0; i < own * SWEEP_KINDS; i++) {
        struct sweep *s = &all->shards[i / SWEEP_KINDS][i % SWEEP_KINDS];

        s->worker = w;
        s->kind = (enum sweep_kind)(i % SWEEP_KINDS);
        s->shard = w->index + i / SWEEP_KINDS * workers;
        s->lanes = calloc(STEP_LANES, sizeof(*s->lanes));
        if (s->lanes == NULL)
            return -ENOMEM;
        list_init(&s->waiting);
        s->timer.on_timer = on_step;
        s->walk.owner = s;
        s->job.done = on_changed;
        s->walk.on_done = on_walked;
        s->job.shard = s->shard;
        s->job.rows = s->found;
        if (s->kind == SWEEP_LIFETIMES)
            continue;
        s->passes = 1; /* the clock may have been set while nothing ran */
        wheel_arm(io_wheel(w->io), &s->timer, io_now_ms(w->io) + LOOK_MS);
    }
    wheel_arm(io_wheel(w->io), &all->timer, io_now_ms(w->io) + LOOK_MS);
    return 0;
}

void sweep_close(struct worker *w)
{
    struct sweeps *all = w->sweeps;

    if (all == NULL)
        return;
    ASSERT(all->worker == w);
    wheel_cancel(io_wheel(w->io), &all->timer);
    for (uint32_t i = 0; i < all->shards_len * SWEEP_KINDS; i++) {
        struct sweep *s = &all->shards[i / SWEEP_KINDS][i % SWEEP_KINDS];

        wheel_cancel(io_wheel(w->io), &s->timer);
        config_unref(s->config);
        buf_done(&s->memory);
        free(s->lanes);
    }
    free(all);
    w->sweeps = NULL;
}

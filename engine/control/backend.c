#include "control/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/backend_route.h"
#include "control/backend_sites.h"
#include "control/backend_wait.h"
#include "outcome/admin.h"
#include "outcome/suspend.h"
#include "outcome/warm.h"
#include "schedule/lane_find.h"
#include "schedule/lane_walk.h"
#include "schedule/site.h"
#include "worker/counters.h"
#include "worker/worker.h"

/* --- counters --- */

static void on_counters(void *arg, void (*put)(void *, const char *, uint64_t, bool), void *to)
{
    counters_visit(((struct backend *)arg)->shared, put, to);
}

static void on_sums(void *arg, enum sums_of of, size_t max, struct sums *out)
{
    struct shared *all = ((struct backend *)arg)->shared;

    sums_gather(all->queue, all->governor, of, max, out);
}

static struct control_turn turn_of(struct turn_longest t)
{
    return (struct control_turn){.us = t.us, .doing = turn_part_name(t.part), .lanes = t.lanes};
}

static void on_turns(void *arg, uint32_t worker, struct control_turns *out)
{
    const struct turn_gauge *g = &((struct backend *)arg)->shared->workers[worker].turn;

    ASSERT(worker < ((struct backend *)arg)->shared->workers_len);
    *out = (struct control_turns){.longest = turn_of(turn_longest(g, TURN_CLOCK)),
                                  .lately = turn_of(turn_longest_lately(g, TURN_CLOCK)),
                                  .cpu_longest = turn_of(turn_longest(g, TURN_CPU)),
                                  .cpu_lately = turn_of(turn_longest_lately(g, TURN_CPU))};
}

static void on_describe(void *arg, struct control_description *out)
{
    struct backend *b = arg;

    b->describe(b->arg, out);
    out->workers = b->shared->workers_len;
}

static int on_reload(void *arg, struct buf *cannot, struct buf *errors)
{
    struct backend *b = arg;

    return b->reload(b->arg, cannot, errors);
}

static void on_drain(void *arg)
{
    struct backend *b = arg;

    b->drain(b->arg);
}

/* --- status, why: each worker offers its lanes, one after the other --- */

struct status_walk {
    struct worker_note note;
    struct control_job *job;
    uint32_t worker;
    size_t bucket;
};

static uint32_t offer_status(struct control_job *job, struct lane *lane)
{
    struct control_destination d = {.shard = lane->shard,
                                    .in_memory = lane->in_memory,
                                    .in_flight = lane->in_flight,
                                    .failures = lane->failures,
                                    .next_due_ms = lane->stored_due_ms};
    bool complete;

    d.rows = queue_lane_rows(lane->worker->shared->queue, lane->shard, lane->flow, lane_name(lane),
                             &complete);
    /* While rows are still being counted after a start, a lane that shows none may have some. */
    if (complete && d.rows == 0 && lane->in_memory == 0 && lane->last_error == NULL)
        return 0;
    if (!control_status_wants(&job->status, &d))
        return 0;
    snprintf(d.queue, sizeof(d.queue), "%s", lane->name);
    if (lane->site != NULL) {
        snprintf(d.site, sizeof(d.site), "%s", lane->site->name);
        d.sessions = lane->site->sessions_len;
    }
    if (lane->last_error != NULL)
        snprintf(d.last_error, sizeof(d.last_error), "%s", lane->last_error);
    d.suspended_until_ms = lane_shut_wall_ms(lane);
    if (d.suspended_until_ms != 0 && d.rows > 0)
        d.next_due_ms = d.suspended_until_ms;
    backend_wait(lane, STR(""), &d.wait);
    control_status_offer(&job->status, &d);
    return lane_wait_cost(lane);
}

/* Shows lane to the job. Returns how much work that was. */
static uint32_t offer(struct lane *lane, void *arg)
{
    struct control_job *job = arg;

    return job->kind == CONTROL_JOB_WHY ? backend_why(job->why, lane) : offer_status(job, lane);
}

static void walk_lanes(struct worker *w, struct worker_note *note)
{
    struct status_walk *walk = CONTAINER_OF(note, struct status_walk, note);

    ASSERT(walk->worker == w->index);
    if (walk->job->kind == CONTROL_JOB_WHY && walk->bucket == 0)
        walk->job->why->absent +=
            atomic_load_explicit(&w->counters.lanes_absent, memory_order_relaxed);
    if (lane_walk_slice(w, &walk->bucket, offer, walk->job))
        walk->worker++;
    if (walk->worker < w->shared->workers_len) {
        worker_send(w->shared, walk->worker, &walk->note); /* to itself: in its next turn */
        return;
    }
    control_job_done(walk->job, 0);
    free(walk);
}

/* --- waits: each worker is asked about its lanes, one after the other --- */

static void answer_query(struct worker *w, struct control_wait_query *q)
{
    uint32_t first = q->shard == CONTROL_SHARD_ANY ? 0 : q->shard;
    uint32_t last = q->shard == CONTROL_SHARD_ANY ? queue_shards(w->shared->queue) - 1 : q->shard;

    for (uint32_t shard = first; shard <= last; shard++) {
        struct control_wait wait;
        struct lane *lane;

        ASSERT(shard < queue_shards(w->shared->queue));
        if (worker_of_shard(w->shared, shard) != w)
            continue;
        lane = lane_known(w, shard, q->flow, q->queue);
        /* A lane that is in the store alone comes into memory to be asked, and leaves again. */
        if (lane == NULL && q->shard != CONTROL_SHARD_ANY && lanes_are_absent(w, shard))
            lane = lane_found(w, shard, q->flow, q->queue, INT64_MAX);
        if (lane == NULL)
            continue;
        backend_wait(lane, STR(""), &wait);
        control_wait_merge(&q->wait, &wait);
        if (lane->site != NULL)
            snprintf(q->site, sizeof(q->site), "%s", lane->site->name);
        if (lane->site != NULL && lane->site->provider != NULL)
            snprintf(q->set, sizeof(q->set), "%s", lane->site->exchangers_name);
    }
}

/* A lane of the subject: it may be in the store alone. */
static void answer_lane(struct worker *w, struct control_why *why,
                        const struct control_wait_query *q)
{
    struct lane *lane;

    ASSERT(q->shard != CONTROL_SHARD_ANY);
    if (worker_of_shard(w->shared, q->shard) != w)
        return;
    lane = lane_found(w, q->shard, q->flow, q->queue, q->due_ms);
    if (lane != NULL)
        backend_why_lane(why, lane, q->rows);
}

static void answer_queries(struct worker *w, struct worker_note *note)
{
    struct status_walk *walk = CONTAINER_OF(note, struct status_walk, note);

    ASSERT(walk->worker == w->index && walk->job->waits_len > 0);
    for (size_t i = 0; i < walk->job->waits_len; i++) {
        if (walk->job->kind == CONTROL_JOB_WHY)
            answer_lane(w, walk->job->why, &walk->job->waits[i]);
        else
            answer_query(w, &walk->job->waits[i]);
    }
    if (++walk->worker < w->shared->workers_len) {
        worker_post(w->shared, w, walk->worker, &walk->note);
        return;
    }
    control_job_done(walk->job, 0);
    free(walk);
}

static void on_job_done(void *arg, int result)
{
    control_job_done(arg, result);
}

static void on_suspensions(void *arg, void (*visit)(void *, const struct suspension *), void *to)
{
    suspensions_visit(&((struct backend *)arg)->shared->suspensions, visit, to);
}

static const struct config *on_config(void *arg)
{
    struct backend *b = arg;

    return b->config(b->arg);
}

static void on_source(void *arg, const struct config_source *of, struct control_source *out)
{
    struct shared *all = ((struct backend *)arg)->shared;
    struct source *s = sources_get(&all->sources, of);
    struct suspension one;

    *out = (struct control_source){
        .sessions = atomic_load_explicit(&s->shared.sessions, memory_order_relaxed),
        .messages = atomic_load_explicit(&s->shared.messages, memory_order_relaxed),
        .connects = atomic_load_explicit(&s->shared.connects, memory_order_relaxed),
        .connect_failures = atomic_load_explicit(&s->shared.connect_failures, memory_order_relaxed),
        .suspended =
            suspensions_find(&all->suspensions, SUSPENSION_SOURCE, str_of(of->name), &one)};
    _Static_assert(ARRAY_LEN(out->part) == SOURCE_PARTS, "one for each");
    for (int i = 0; i < SOURCE_PARTS; i++) {
        out->part[i].away = source_away_ns(s, (enum source_part)i) != 0;
        out->part[i].since_ms = atomic_load_explicit(&s->shared.since_ms[i], memory_order_relaxed);
        out->part[i].error = atomic_load_explicit(&s->shared.error[i], memory_order_relaxed);
    }
    for (int i = 0; i < SOURCE_FAMILIES; i++) {
        out->no_route_ms[i] = atomic_load_explicit(&s->shared.no_route_ms[i], memory_order_relaxed);
        source_unrouted_text(&all->sources, s, (enum source_part)i, out->unrouted[i]);
    }
}

static void on_warmup(void *arg, int64_t wall_ms, void (*visit)(void *, const struct warmup_view *),
                      void *to)
{
    warmup_visit(&((struct backend *)arg)->shared->warmup, wall_ms, visit, to);
}

static const struct queue_flow *on_names(void *arg, uint32_t flow)
{
    struct shared *all = ((struct backend *)arg)->shared;
    uint32_t version;

    return campaigns_names(&all->campaigns, all->queue, queue_flow_find(all->queue, flow),
                           &version);
}

static void on_campaigns(void *arg, void (*visit)(void *, const struct campaign *), void *to)
{
    campaigns_visit(&((struct backend *)arg)->shared->campaigns, visit, to);
}

static void on_campaign_done(struct campaign_order *order, int result)
{
    control_job_done(CONTAINER_OF(order, struct control_job, campaign), result);
}

static struct dialogues *on_dialogues(void *arg)
{
    return &((struct backend *)arg)->shared->dialogues;
}

static struct suppressions *on_list(void *arg)
{
    return &((struct backend *)arg)->shared->suppressions;
}

static void on_admin_done(struct admin_job *admin, int result)
{
    control_job_done(CONTAINER_OF(admin, struct control_job, admin), result);
}

static void on_job(void *arg, struct control_job *job)
{
    struct shared *all = ((struct backend *)arg)->shared;
    struct status_walk *walk;

    job->admin.done = on_admin_done;
    if (job->kind == CONTROL_JOB_ACTION) {
        admin_submit(all, &job->admin);
        return;
    }
    if (job->kind == CONTROL_JOB_PURGE) {
        admin_purge(all, &job->admin);
        return;
    }
    if (job->kind == CONTROL_JOB_SUSPEND) {
        suspend_submit(all, &(struct suspend_order){.what = job->suspension,
                                                    .resume = job->resume,
                                                    .on_done = on_job_done,
                                                    .arg = job});
        return;
    }
    if (job->kind == CONTROL_JOB_CAMPAIGN) {
        job->campaign.on_done = on_campaign_done;
        campaign_submit(all, &job->campaign);
        return;
    }
    if (job->kind == CONTROL_JOB_SUPPRESS) {
        suppress_submit(all, job->suppress, on_job_done, job);
        return;
    }
    if (job->kind == CONTROL_JOB_ROUTE) {
        backend_route(all, job);
        return;
    }
    if (job->kind == CONTROL_JOB_SITES) {
        backend_sites(all, job);
        return;
    }
    if (job->kind == CONTROL_JOB_WARMUP) {
        warm_submit(all,
                    &(struct warm_order){.what = job->warmup, .on_done = on_job_done, .arg = job});
        return;
    }
    walk = calloc(1, sizeof(*walk));
    if (walk == NULL) {
        control_job_done(job, -ENOMEM);
        return;
    }
    walk->note.run = job->waits_len > 0 ? answer_queries : walk_lanes;
    walk->job = job;
    worker_post(all, NULL, 0, &walk->note);
}

const struct control_backend backend_functions = {.describe = on_describe,
                                                  .counters = on_counters,
                                                  .turns = on_turns,
                                                  .reload = on_reload,
                                                  .drain = on_drain,
                                                  .suspensions = on_suspensions,
                                                  .config = on_config,
                                                  .source = on_source,
                                                  .sums = on_sums,
                                                  .warmup = on_warmup,
                                                  .campaigns = on_campaigns,
                                                  .names = on_names,
                                                  .dialogues = on_dialogues,
                                                  .suppressions = on_list,
                                                  .job = on_job};

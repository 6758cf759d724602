#include "outcome/admin.h"

#include <errno.h>
#include <stdlib.h>

#include "outcome/judge.h"
#include "outcome/report.h"
#include "outcome/sweep.h"
#include "schedule/lane.h"
#include "schedule/settle.h"

#define CANCELLED "cancelled by the administrator"

/* Bounds the rounds: a recipient whose change the store refuses is settling each time it is looked
 * for. */
#define ROUNDS_MAX 8

/* An administration job under way. Rows come from memory, or from the store by a fetch. A row that
 * was being settled when it was looked for is stored anew afterwards, and is fetched in a further
 * round. */
struct admin {
    struct worker_note note;
    struct settle_waiter waiter;
    struct queue_load load; /* the fetch */
    struct admin_job *job;
    struct worker *worker;
    struct queue_row_key *fetched, *later; /* [job->rows_len] */
    size_t later_len;
    uint32_t rounds; /* fetches so far */
    int result;
    bool settling; /* some rows of later are being settled: later is not to be fetched yet */
};

static void on_fetched(struct queue_load *load, int result);

static void admin_done(struct admin *a, int result)
{
    ASSERT(a->waiter.parts == 0 && a->job->changed <= a->job->rows_len);
    a->job->done(a->job, result);
    free(a->fetched);
    free(a->later);
    free(a);
}

static void admin_fetch(struct admin *a)
{
    struct queue_row_key *keys = a->later;

    ASSERT(a->later_len > 0 && a->later_len <= a->job->rows_len && a->rounds < ROUNDS_MAX);
    a->later = a->fetched;
    a->fetched = keys;
    a->load = (struct queue_load){.exact = keys,
                                  .exact_len = a->later_len,
                                  .header_only = a->job->action == ADMIN_RETIME,
                                  .on_done = on_fetched,
                                  .owner = a};
    list_init(&a->load.rcpts);
    a->later_len = 0;
    a->rounds++;
    a->settling = false;
    a->waiter.parts++;
    for (size_t i = 0; i < a->load.exact_len; i++)
        lane_fetch_begin(a->worker, a->job->shard, keys[i].flow, keys[i].queue);
    queue_load(a->worker->port, a->job->shard, &a->load);
}

static void on_admin_settled(struct settle_waiter *waiter)
{
    struct admin *a = CONTAINER_OF(waiter, struct admin, waiter);

    ASSERT(a->waiter.parts == 0 && a->later_len <= a->job->rows_len);
    if (a->result == 0 && a->later_len > 0 && a->rounds < ROUNDS_MAX)
        admin_fetch(a);
    else
        admin_done(a, a->result);
}

static void record(struct worker *w, struct recipient *r, enum report_type type, struct buf *out)
{
    static const struct smtp_reply cancelled = {
        .code = 551, .enhanced = {5, 7, 1}, .text_len = sizeof(CANCELLED) - 1, .text = CANCELLED};
    struct report_event event =
        report_event_of(type, w->config->node_id, worker_wall_ms(w), r->message, r);

    event.reply = type == REPORT_ADMIN_BOUNCE ? &cancelled : NULL;
    report_line(out, &event);
}

/* r's row changes so, with record. */
static void settle_row(struct worker *w, struct recipient *r, const struct queue_row *row,
                       struct buf *record)
{
    lane_settling(r);
    settle(w, &(struct settlement){
                  .shard = r->lane->shard, .records = buf_str(record), .rows = row, .rows_len = 1});
    buf_done(record);
}

static void redue(struct worker *w, struct recipient *r, int64_t due_ms, uint8_t flags,
                  struct buf *record)
{
    struct queue_row row = {.kind = QUEUE_ROW_MOVE, .rcpt = r, .old_due_ms = r->due_ms};

    ASSERT(((flags & RECIPIENT_HELD) != 0) == (due_ms == QUEUE_DUE_HELD));
    r->due_ms = due_ms;
    r->flags = flags;
    settle_row(w, r, &row, record);
}

/* A recipient that was never tried is due from its reception on: a later time would be a not-before
 * time. */
static int64_t due_at_once(const struct recipient *r, int64_t now_ms)
{
    int64_t created_ms = r->message->created_ms;

    return r->attempts == 0 && created_ms < now_ms ? created_ms : now_ms;
}

/* Does the action to r, which is PLACE_FLIGHT. False: nothing to do, r is put back. */
static bool do_action(struct worker *w, enum admin_action action, struct recipient *r)
{
    bool held = (r->flags & RECIPIENT_HELD) != 0;
    int64_t now_ms = worker_wall_ms(w), right_ms;
    struct buf line = {0};

    ASSERT(r->state == PLACE_FLIGHT && r->lane->worker == w);
    switch (action) {
    case ADMIN_HOLD:
        if (held)
            return false;
        record(w, r, REPORT_ADMIN_HOLD, &line);
        redue(w, r, QUEUE_DUE_HELD, r->flags | RECIPIENT_HELD, &line);
        return true;
    case ADMIN_RELEASE:
        if (!held)
            return false;
        record(w, r, REPORT_ADMIN_RELEASE, &line);
        redue(w, r, due_at_once(r, now_ms), r->flags & (uint8_t)~RECIPIENT_HELD, &line);
        return true;
    case ADMIN_FLUSH:
        if (held || r->due_ms <= now_ms)
            return false;
        redue(w, r, due_at_once(r, now_ms), r->flags, &line);
        return true;
    case ADMIN_CANCEL:
        record(w, r, REPORT_ADMIN_BOUNCE, &line);
        counter_add(&w->counters.cancelled, 1);
        settle_row(w, r,
                   &(struct queue_row){.kind = QUEUE_ROW_REMOVE,
                                       .rcpt = r,
                                       .old_due_ms = r->due_ms,
                                       .count = TALLY_CANCELLED},
                   &line);
        return true;
    case ADMIN_EXPIRE:
        if (!judge_has_room(w, r, NOTICE_EXPIRED))
            return false;
        judge_expired(r);
        return true;
    case ADMIN_RETIME:
        right_ms = held ? r->due_ms : sweep_right_ms(w, r);
        if (right_ms == r->due_ms)
            return false;
        redue(w, r, right_ms, r->flags, &line);
        return true;
    case ADMIN_OUTLIVE:
        if (held || !lane_expired(r, now_ms))
            return false;
        judge_expired(r);
        return true;
    }
    ASSERT(false); /* each action has its case */
    return false;
}

bool admin_wants(struct recipient *r)
{
    if (r->wanted == 1 + ADMIN_RETIME) /* its new due time is right */
        r->wanted = 0;
    return r->wanted != 0;
}

void admin_obey(struct worker *w, struct recipient *r)
{
    enum admin_action action = r->wanted - 1u;

    ASSERT(r->wanted > 0 && r->wanted <= 1 + ADMIN_OUTLIVE);
    r->wanted = 0;
    if (!do_action(w, action, r))
        lane_unpop(r);
}

void admin_put_back(struct recipient *r)
{
    struct lane *lane = r->lane;

    if (r->wanted != 0)
        admin_obey(lane->worker, r);
    else
        lane_unpop(r);
}

/* Has the end of r's attempt do the action, since the attempt may still deliver r. */
static void remember(struct admin *a, struct recipient *r)
{
    enum admin_action action = a->job->action;

    ASSERT(r->state == PLACE_FLIGHT && a->job->changed < a->job->rows_len);
    if (action == ADMIN_FLUSH || action == ADMIN_RELEASE || action == ADMIN_OUTLIVE)
        return; /* it is under way */
    if (action == ADMIN_RETIME && r->wanted != 0)
        return;
    r->wanted = (uint8_t)(1 + action);
    a->job->changed++;
}

static bool admin_act(struct admin *a, struct recipient *r)
{
    if (!do_action(a->worker, a->job->action, r))
        return false;
    a->job->changed++;
    return true;
}

static void look_later(struct admin *a, const struct queue_row_key *key)
{
    ASSERT(a->later_len < a->job->rows_len);
    a->later[a->later_len++] = *key;
}

/* r is in memory; key's queue outlives it. */
static void admin_touch(struct admin *a, struct recipient *r, struct queue_row_key key)
{
    switch ((enum recipient_place)r->state) {
    case PLACE_WINDOW:
        lane_take(r);
        if (!admin_act(a, r))
            lane_unpop(r);
        break;
    case PLACE_FLIGHT:
        remember(a, r);
        break;
    case PLACE_SETTLING:
    case PLACE_ZOMBIE:
        key.due_ms = r->due_ms;
        key.flow = r->flow; /* it may be going over to another pool */
        look_later(a, &key);
        a->settling = true;
        break;
    }
}

static void on_row(struct admin *a, struct recipient *r, const struct queue_row_key *key)
{
    struct worker *w = a->worker;
    struct recipient *known = lane_find(w, &key->id, key->index);
    bool adopted;

    if (known != NULL) { /* it came into memory meanwhile */
        recipient_free(r);
        admin_touch(a, known, *key);
        return;
    }
    adopted = lane_adopt(w, a->job->shard, r);
    ASSERT(adopted); /* lane_find() knows all that is in memory */
    if (!admin_act(a, r))
        lane_return(r); /* a window has no room for all of a backlog */
}

static void on_fetched(struct queue_load *load, int result)
{
    struct admin *a = load->owner;
    struct list_node *n;
    size_t i = 0;

    ASSERT(a->rounds > 0 && a->waiter.parts > 0 && load == &a->load);
    settle_follow(a->worker, &a->waiter);
    while ((n = list_pop_front(&load->rcpts)) != NULL) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        for (; i < load->exact_len; i++) /* those that are gone are left out */
            if (load->exact[i].index == r->index &&
                memcmp(&load->exact[i].id, &r->message->id, sizeof(r->message->id)) == 0)
                break;
        ASSERT(i < load->exact_len); /* a fetch brings what was asked for, in that order */
        on_row(a, r, &load->exact[i++]);
    }
    for (i = 0; i < load->exact_len; i++)
        lane_fetch_end(a->worker, a->job->shard, load->exact[i].flow, load->exact[i].queue);
    a->result = result;
    settle_wait(a->worker, a->job->shard);
    ASSERT(a->waiter.parts > 0);
    a->waiter.parts--; /* the fetch's */
}

static void flush_lane(struct worker *w, uint32_t shard, uint32_t flow, struct str queue)
{
    struct lane *lane = lane_get(w, shard, flow, queue);

    if (lane != NULL)
        lane_flush(lane);
}

static void admin_act_on(struct worker *w, struct admin *a)
{
    struct admin_job *job = a->job;

    ASSERT(worker_of_shard(w->shared, job->shard) == w);
    a->worker = w;
    a->fetched = calloc(job->rows_len + 1, sizeof(*a->fetched));
    a->later = calloc(job->rows_len + 1, sizeof(*a->later));
    ASSERT(a->fetched != NULL && a->later != NULL);
    settle_follow(w, &a->waiter);
    for (size_t i = 0; i < job->rows_len; i++) {
        const struct admin_row *row = &job->rows[i];
        struct queue_row_key key = {.queue = row->queue,
                                    .id = row->id,
                                    .index = row->index,
                                    .flow = row->flow,
                                    .due_ms = row->due_ms};
        struct recipient *r;

        if (job->action == ADMIN_FLUSH) /* first: it may give the lane's window up */
            flush_lane(w, job->shard, row->flow, row->queue);
        r = lane_find(w, &row->id, row->index);
        if (r != NULL)
            admin_touch(a, r, key);
        else
            look_later(a, &key);
    }
    if (a->later_len > 0 && !a->settling)
        admin_fetch(a);
    settle_wait(w, job->shard);
}

static void admin_run(struct worker *w, struct worker_note *note)
{
    admin_act_on(w, CONTAINER_OF(note, struct admin, note));
}

static struct admin *admin_new(struct admin_job *job)
{
    struct admin *a = calloc(1, sizeof(*a));

    if (a == NULL) {
        job->done(job, -ENOMEM);
        return NULL;
    }
    a->job = job;
    a->note.run = admin_run;
    a->waiter.on_settled = on_admin_settled;
    return a;
}

void admin_begin(struct worker *w, struct admin_job *job)
{
    struct admin *a = admin_new(job);

    if (a != NULL)
        admin_act_on(w, a);
}

void admin_submit(struct shared *all, struct admin_job *job)
{
    struct admin *a = admin_new(job);

    if (a != NULL)
        worker_post(all, NULL, worker_of_shard(all, job->shard)->index, &a->note);
}

/* --- damaged records --- */

struct purge {
    struct worker_note note;
    struct queue_change change;
    struct admin_job *job;
};

static void on_purged(struct queue_change *change, int result)
{
    struct purge *p = change->owner;

    ASSERT(change == &p->change && result <= 0);
    if (result == 0)
        p->job->changed = p->job->purges_len;
    p->job->done(p->job, result);
    free(p);
}

static void purge_run(struct worker *w, struct worker_note *note)
{
    struct purge *p = CONTAINER_OF(note, struct purge, note);

    ASSERT(worker_of_shard(w->shared, p->job->shard) == w);
    p->change = (struct queue_change){.purges = p->job->purges,
                                      .purges_len = p->job->purges_len,
                                      .records = p->job->records,
                                      .urgent = true,
                                      .on_done = on_purged,
                                      .owner = p};
    queue_submit(w->port, p->job->shard, &p->change);
}

void admin_purge(struct shared *all, struct admin_job *job)
{
    struct purge *p = calloc(1, sizeof(*p));

    if (p == NULL) {
        job->done(job, -ENOMEM);
        return;
    }
    p->job = job;
    p->note.run = purge_run;
    worker_post(all, NULL, worker_of_shard(all, job->shard)->index, &p->note);
}

#include "engine/admin.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/judge.h"
#include "engine/lane.h"
#include "engine/report.h"
#include "engine/settle.h"

#define CANCELLED "cancelled by the administrator"

struct admin {
    struct worker_note note;
    struct settle_waiter waiter;
    struct queue_load load; /* of rows that are not in memory */
    struct control_job *job;
    struct worker *worker;
    struct queue_row_key *keys;
};

static void admin_done(struct admin *a, int result)
{
    control_job_done(a->job, result);
    free(a->keys);
    free(a);
}

static void on_admin_settled(struct settle_waiter *waiter)
{
    admin_done(CONTAINER_OF(waiter, struct admin, waiter), 0);
}

static void record(struct worker *w, struct recipient *r, enum report_type type)
{
    static const struct smtp_reply cancelled = {
        .code = 551, .enhanced = {5, 7, 1}, .text_len = sizeof(CANCELLED) - 1, .text = CANCELLED};
    struct report_event event = {.type = type,
                                 .node_id = w->config->node_id,
                                 .timestamp_ms = worker_wall_ms(w),
                                 .message = r->message,
                                 .recipient = r->address,
                                 .queue = r->queue,
                                 .site = STR(""),
                                 .sender = r->message->sender,
                                 .reply = type == REPORT_ADMIN_BOUNCE ? &cancelled : NULL,
                                 .attempts = r->attempts,
                                 .size = r->message->content_len};

    report_line(settle_records(w, ((struct lane *)r->holder)->shard), &event);
}

static void redue(struct worker *w, struct recipient *r, int64_t due_ms, uint8_t flags)
{
    int64_t old_due_ms = r->due_ms;

    r->due_ms = due_ms;
    r->flags = flags;
    lane_settling(r);
    settle_move(w, r, old_due_ms, r->priority);
}

/* Does the action to r, which is PLACE_FLIGHT. False: nothing to do, r is put back. */
static bool act(struct admin *a, struct recipient *r)
{
    struct worker *w = a->worker;
    struct judge_context context = {.dest = config_destination_for(w->config, r->queue, STR(""))};
    bool held = (r->flags & RECIPIENT_HELD) != 0;
    int64_t now_ms = worker_wall_ms(w);

    switch (a->job->action) {
    case CONTROL_HOLD:
        if (held)
            return false;
        record(w, r, REPORT_ADMIN_HOLD);
        redue(w, r, QUEUE_DUE_HELD, r->flags | RECIPIENT_HELD);
        return true;
    case CONTROL_RELEASE:
        if (!held)
            return false;
        record(w, r, REPORT_ADMIN_RELEASE);
        redue(w, r, now_ms, r->flags & (uint8_t)~RECIPIENT_HELD);
        return true;
    case CONTROL_FLUSH:
        if (held || r->due_ms <= now_ms)
            return false;
        redue(w, r, now_ms, r->flags);
        return true;
    case CONTROL_CANCEL:
        record(w, r, REPORT_ADMIN_BOUNCE);
        counter_add(&w->counters.cancelled, 1);
        lane_settling(r);
        settle_remove(w, r);
        return true;
    case CONTROL_EXPIRE:
        judge_expired(w, &context, r);
        return true;
    }
    return false;
}

static void on_fetched(struct queue_load *load, int result)
{
    struct admin *a = load->owner;
    struct worker *w = a->worker;
    struct list_node *n;

    while ((n = list_pop_front(&load->rcpts)) != NULL) {
        struct recipient *r = LIST_ENTRY(n, struct recipient, node);

        if (!lane_adopt(w, a->job->shard, r)) /* it came into memory meanwhile */
            continue;
        if (act(a, r))
            a->job->changed++;
        else
            lane_return(r); /* a window has no room for all of a backlog */
    }
    for (size_t i = 0; i < load->exact_len; i++)
        lane_fetch_end(w, a->job->shard, load->exact[i].queue);
    if (result < 0) {
        admin_done(a, result);
        return;
    }
    settle_wait(w, a->job->shard, &a->waiter);
}

static void flush_lane(struct worker *w, uint32_t shard, struct str queue)
{
    struct lane *lane = lane_get(w, shard, queue);

    if (lane != NULL)
        lane_flush(lane);
}

static void admin_run(struct worker *w, struct worker_note *note)
{
    struct admin *a = CONTAINER_OF(note, struct admin, note);
    struct control_job *job = a->job;
    size_t wanted = 0;

    a->worker = w;
    a->keys = calloc(job->rows_len + 1, sizeof(*a->keys));
    ASSERT(a->keys != NULL);
    for (size_t i = 0; i < job->rows_len; i++) {
        const struct control_row *row = &job->rows[i];
        struct recipient *r;

        if (job->action == CONTROL_FLUSH) /* first: it may give the lane's window up */
            flush_lane(w, job->shard, row->queue);
        r = lane_find(w, &row->id, row->index);
        if (r == NULL) {
            lane_fetch_begin(w, job->shard, row->queue);
            a->keys[wanted++] = (struct queue_row_key){.queue = row->queue,
                                                       .id = row->id,
                                                       .index = row->index,
                                                       .priority = row->priority,
                                                       .due_ms = row->due_ms};
        } else if (r->state == PLACE_WINDOW) {
            lane_take(r);
            if (act(a, r))
                job->changed++;
            else
                lane_unpop(r);
        }
    }
    if (wanted == 0) {
        settle_wait(w, job->shard, &a->waiter);
        return;
    }
    list_init(&a->load.rcpts);
    a->load.exact = a->keys;
    a->load.exact_len = wanted;
    a->load.on_done = on_fetched;
    a->load.owner = a;
    queue_load(w->port, job->shard, &a->load);
}

void admin_submit(struct engine *e, struct control_job *job)
{
    struct admin *a = calloc(1, sizeof(*a));

    if (a == NULL) {
        control_job_done(job, -ENOMEM);
        return;
    }
    a->job = job;
    a->note.run = admin_run;
    a->waiter.on_settled = on_admin_settled;
    worker_post(e, NULL, worker_of_shard(e, job->shard)->index, &a->note);
}

/* --- damaged records --- */

struct purge {
    struct worker_note note;
    struct queue_change change;
    struct control_job *job;
};

static void on_purged(struct queue_change *change, int result)
{
    struct purge *p = change->owner;

    if (result == 0)
        p->job->changed = p->job->purges_len;
    control_job_done(p->job, result);
    free(p);
}

static void purge_run(struct worker *w, struct worker_note *note)
{
    struct purge *p = CONTAINER_OF(note, struct purge, note);

    p->change = (struct queue_change){.purges = p->job->purges,
                                      .purges_len = p->job->purges_len,
                                      .records = p->job->records,
                                      .urgent = true,
                                      .on_done = on_purged,
                                      .owner = p};
    queue_submit(w->port, p->job->shard, &p->change);
}

void admin_purge(struct engine *e, struct control_job *job)
{
    struct purge *p = calloc(1, sizeof(*p));

    if (p == NULL) {
        control_job_done(job, -ENOMEM);
        return;
    }
    p->job = job;
    p->note.run = purge_run;
    worker_post(e, NULL, worker_of_shard(e, job->shard)->index, &p->note);
}

/* Rows of a campaign that was cancelled: in each shard, walks over all rows and has administration
 * cancel the campaign's, some a step, until a pass finds nothing that it could change. What is in
 * flight ends by itself. After a crash the next start walks again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "intake/campaign_private.h"
#include "outcome/admin.h"
#include "outcome/suspend.h"

#define STEP_ROWS  4000
#define STEP_FOUND 250
/* Two at least. Nothing more of the campaign is begun, so what was in flight ends once: as the pass
 * that saw it wants, or, if none has seen it yet, it may go over to another flow behind the cursor
 * of the first pass. There it stays, and the second one finds it. What is still in flight then is
 * found each time. */
#define PASSES_MAX 3

struct cancel_walk {
    struct worker_note note;
    struct cancel *cancel;
    struct worker *worker;
    struct queue_walk walk;
    struct admin_job job;
    struct buf memory; /* the queue names of found */
    bool found_some;   /* in the present pass */
    uint8_t passes;
    struct admin_row *found;
};

struct cancel {
    struct worker *keeper;
    struct campaign one;
    struct worker_note note; /* to the keeper, when all have ended */
    _Atomic bool unfinished;
    _Atomic uint32_t left; /* acquire and release: the last frees all */
    struct cancel_walk walks[];
};

static void cancel_step(struct cancel_walk *c);

/* Whether another campaign of the name is not to run: a crash may have left rows in flight behind
 * the end of one that is over since, and the next start looks for them again. Under the lock. */
static bool is_held(struct campaigns *all, const struct campaign *one, int64_t now_ms)
{
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        const struct campaign_entry *e = LIST_ENTRY(n, struct campaign_entry, order);

        if (!e->over && strcmp(e->one.name, one->name) == 0 &&
            strcmp(e->one.tenant, one->tenant) == 0 &&
            !(e->one.state == CAMPAIGN_RUNNING && campaign_has_begun(&e->one, now_ms)))
            return true;
    }
    return false;
}

/* Nothing is left that could go out. */
static void on_ended(struct worker *w, struct worker_note *note)
{
    struct cancel *cancel = CONTAINER_OF(note, struct cancel, note);
    struct campaigns *all = &w->shared->campaigns;
    struct suspend_order order = {.resume = true};
    struct campaign_entry *e;
    bool held;

    if (w->campaigns != NULL && !w->draining &&
        !atomic_load_explicit(&cancel->unfinished, memory_order_relaxed)) {
        pthread_mutex_lock(&all->lock);
        e = campaigns_entry(all, &cancel->one.id);
        if (e != NULL)
            e->over = true;
        held = is_held(all, &cancel->one, worker_wall_ms(w));
        pthread_mutex_unlock(&all->lock);
        campaign_suspension(&cancel->one, worker_wall_ms(w), &order.what);
        if (!held)
            suspend_submit_from(w, &order);
    }
    free(cancel);
}

static void walk_end(struct cancel_walk *c, bool finished)
{
    struct cancel *cancel = c->cancel;

    buf_done(&c->memory);
    free(c->found);
    c->found = NULL;
    if (!finished)
        atomic_store_explicit(&cancel->unfinished, true, memory_order_relaxed);
    if (atomic_fetch_sub_explicit(&cancel->left, 1, memory_order_acq_rel) == 1) {
        cancel->note = (struct worker_note){.run = on_ended};
        worker_send(cancel->keeper->shared, cancel->keeper->index, &cancel->note);
    }
}

/* Runs in the loader's thread. */
static bool on_row(void *arg, const struct queue_row_view *row)
{
    struct cancel_walk *c = arg;

    if (buf_reserve(&c->memory, row->queue.len) < 0)
        return false; /* the next pass finds this row */
    c->found[c->job.rows_len++] =
        (struct admin_row){.id = row->id,
                           .index = row->index,
                           .flow = row->flow,
                           .flags = row->flags,
                           .due_ms = row->due_ms,
                           .queue = {(char *)c->memory.len, row->queue.len}};
    buf_put_str(&c->memory, row->queue);
    return c->job.rows_len < STEP_FOUND;
}

static void step_end(struct cancel_walk *c, int result)
{
    if (result == -ENOMEM && !c->worker->draining) {
        c->found_some = true; /* what the step had found is found again */
        c->passes = 0;
    } else if (result < 0 || c->worker->draining) {
        if (result < 0)
            log_error("campaign.cancel_failed", "name=\"%s\" shard=%u error=\"%s\"",
                      c->cancel->one.name, c->job.shard, strerror(-result));
        walk_end(c, false);
        return;
    }
    if (c->walk.end) {
        if ((!c->found_some && c->passes > 0) || ++c->passes == PASSES_MAX) {
            walk_end(c, true);
            return;
        }
        c->found_some = false;
        c->walk.cursor.len = 0;
    }
    cancel_step(c);
}

static void on_cancelled(struct admin_job *job, int result)
{
    struct cancel_walk *c = CONTAINER_OF(job, struct cancel_walk, job);

    c->found_some |= job->changed > 0;
    step_end(c, result);
}

static void on_walked(struct queue_walk *walk, int result)
{
    struct cancel_walk *c = walk->owner;

    if (result < 0 || c->worker->draining || c->job.rows_len == 0) {
        step_end(c, result);
        return;
    }
    for (size_t i = 0; i < c->job.rows_len; i++)
        c->found[i].queue.ptr = (const char *)c->memory.data + (size_t)c->found[i].queue.ptr;
    admin_begin(c->worker, &c->job);
}

static void cancel_step(struct cancel_walk *c)
{
    struct cancel *cancel = c->cancel;

    buf_clear(&c->memory);
    c->job.rows_len = 0;
    c->job.changed = 0;
    /* Of all flows: rules may have moved rows to another pool, which is another flow. */
    c->walk.what = (struct queue_visit){
        .id = &cancel->one.id, .rows_max = STEP_ROWS, .visit = on_row, .arg = c};
    queue_walk(c->worker->port, c->job.shard, &c->walk);
}

static void on_begin(struct worker *w, struct worker_note *note)
{
    struct cancel_walk *c = CONTAINER_OF(note, struct cancel_walk, note);

    c->worker = w;
    c->found = calloc(STEP_FOUND, sizeof(*c->found));
    ASSERT(c->found != NULL); /* memory */
    if (w->draining || w->port == NULL) {
        walk_end(c, false);
        return;
    }
    c->job.action = ADMIN_CANCEL;
    c->job.rows = c->found;
    c->job.done = on_cancelled;
    c->walk.on_done = on_walked;
    c->walk.owner = c;
    cancel_step(c);
}

void campaign_cancel_rows(struct worker *w, const struct campaign *one)
{
    struct queue *q = w->shared->queue;
    uint32_t shards = queue_shards(q);
    struct cancel *cancel = calloc(1, sizeof(*cancel) + shards * sizeof(cancel->walks[0]));

    ASSERT(cancel != NULL); /* memory, as for orders */
    cancel->keeper = w;
    cancel->one = *one;
    atomic_init(&cancel->left, shards);
    for (uint32_t shard = 0; shard < shards; shard++) {
        struct cancel_walk *c = &cancel->walks[shard];

        c->cancel = cancel;
        c->job.shard = shard;
        c->note.run = on_begin;
        worker_send(w->shared, worker_of_shard(w->shared, shard)->index, &c->note);
    }
}

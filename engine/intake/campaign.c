/* See campaign.h: orders. Each is a row of steps, in a table; a step is one change or suspension,
 * or a change in each shard, one after the other. What is left half done by a crash is told by the
 * campaign's record and the tallies, and done at the next start. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "intake/campaign_private.h"
#include "intake/campaign_view.h"
#include "outcome/suspend.h"

#define RETRY_MS  500  /* until a change for which there was no room is tried again */
#define RANGE_MAX 1000 /* states that go with one change */

enum campaign_step {
    STEP_END,
    STEP_SUSPEND, /* nothing of it goes out */
    STEP_CONTENT, /* its content comes to every shard but the first, pinned */
    STEP_RECORD,  /* with the content in the first shard, when it is new */
    STEP_UNPIN,   /* shard by shard: its addresses go, then the pin, unless it is open; lifetimes
                     begin */
    STEP_RELEASE, /* it goes out, now or when its time has come; if it runs */
    STEP_LOOK,    /* lanes hear that it was set to something */
    STEP_CANCEL_ROWS, /* begins; if it is cancelled */
    STEP_FORGET,      /* shard by shard: all that is known of its recipients goes */
    STEP_FORGET_RECORD,
    STEP_UNDO, /* of a creation: content and suspension go */
    STEPS
};

enum {                               /* behind the verbs: the keeper's own, at the start */
       VERB_SETTLE = CAMPAIGN_VERBS, /* what is unsettled */
       VERB_ORPHAN,                  /* a content for no campaign */
       VERBS
};

#define STEPS_MAX 6
static const uint8_t steps[VERBS][STEPS_MAX] = {
    [CAMPAIGN_CREATE] = {STEP_SUSPEND, STEP_CONTENT, STEP_RECORD},
    [CAMPAIGN_START] = {STEP_RECORD, STEP_UNPIN, STEP_RELEASE},
    [CAMPAIGN_PAUSE] = {STEP_RECORD, STEP_SUSPEND},
    [CAMPAIGN_RESUME] = {STEP_RECORD, STEP_RELEASE},
    [CAMPAIGN_CANCEL] = {STEP_RECORD, STEP_SUSPEND, STEP_UNPIN, STEP_CANCEL_ROWS},
    [CAMPAIGN_SET] = {STEP_RECORD, STEP_LOOK},
    [CAMPAIGN_CLOSE] = {STEP_RECORD, STEP_UNPIN},
    [CAMPAIGN_FORGET] = {STEP_FORGET, STEP_FORGET_RECORD},
    [VERB_SETTLE] = {STEP_UNPIN, STEP_RELEASE, STEP_CANCEL_ROWS},
    [VERB_ORPHAN] = {STEP_UNPIN, STEP_FORGET},
};

/* Who frees a job that waits for a suspension when its worker ends meanwhile. */
enum { HEARING_NONE, HEARING_WAITS, HEARING_HEARD, HEARING_LEFT };

struct campaign_job {
    struct list_node node;
    struct worker *worker;
    struct campaign_order *order; /* NULL: the keeper's own */
    uint8_t verb;
    uint8_t at;          /* in steps[verb] */
    uint8_t part;        /* of the step in this shard: enum forget_part */
    uint32_t shard;      /* of the step */
    struct campaign one; /* as it will be */
    struct message *content;
    int undo_result;
    struct worker_note note; /* of a suspension that was heard */
    int heard_result;
    _Atomic int hearing; /* acquire and release: heard_result */
    struct timer retry;
    struct queue_change change;
    struct queue_state states[2];
    struct queue_pin pin;
    struct queue_states_range range;
    uint8_t key[CAMPAIGN_KEY_BYTES], to[CAMPAIGN_KEY_BYTES]; /* of the change */
    struct buf value, about;
};

/* In the worker that owns shard 0. */
struct campaign_keeper {
    struct worker *worker;
    struct list waiting; /* of struct campaign_job */
    struct campaign_job *job;
    struct worker_note begin;
};

static void job_step(struct campaign_job *job);
static void keeper_go_on(struct campaign_keeper *k);

const struct queue_flow *campaign_flow(struct queue *q, const struct campaign *one)
{
    const struct queue_flow *flow =
        queue_flow_get(q, one->priority, str_of(one->tenant), str_of(one->name), str_of(one->pool));

    return flow != NULL && str_eq(flow->campaign, str_of(one->name)) &&
                   str_eq(flow->tenant, str_of(one->tenant))
               ? flow
               : NULL;
}

struct message *campaign_content(const struct campaign *what, const struct campaign_letter *letter)
{
    struct message fields = {.id = what->id,
                             .created_ms = msgid_ms(&what->id),
                             .expires_ms = what->expires_ms,
                             .flags = MESSAGE_RECIPE,
                             .priority = what->priority,
                             .sender = letter->sender,
                             .tenant = str_of(what->tenant),
                             .campaign = str_of(what->name),
                             .meta = letter->meta,
                             .dkim_domain = letter->dkim_domain,
                             .protocol = STR("HTTP"),
                             .origin = letter->origin,
                             .content_len = letter->recipe.len};
    struct message *m;

    ASSERT(letter->recipe.len > 0);
    fields.content = malloc(letter->recipe.len);
    if (fields.content == NULL)
        return NULL;
    memcpy(fields.content, letter->recipe.ptr, letter->recipe.len);
    m = message_new(&fields);
    if (m == NULL)
        free(fields.content);
    return m;
}

/* --- jobs --- */

static void job_free(struct campaign_job *job)
{
    ASSERT(!timer_armed(&job->retry));
    message_unref(job->content);
    buf_done(&job->value);
    buf_done(&job->about);
    free(job);
}

/* Its campaign takes orders again, and recipients if it is a draft. */
static void job_unmark(struct campaign_job *job)
{
    struct campaigns *all = &job->worker->shared->campaigns;
    struct campaign_entry *e;

    pthread_mutex_lock(&all->lock);
    e = campaigns_entry(all, &job->one.id);
    if (e != NULL)
        e->changing = false;
    pthread_mutex_unlock(&all->lock);
}

static void job_tell(struct campaign_job *job, int result)
{
    struct campaign_order *order = job->order;

    job->order = NULL;
    if (order != NULL)
        order->on_done(order, result);
}

static void job_end(struct campaign_job *job, int result)
{
    struct campaign_keeper *k = job->worker->campaigns;
    char id[MSGID_TEXT_BYTES];

    ASSERT(k->job == job);
    k->job = NULL;
    if (result < 0 && result != -ESHUTDOWN) {
        msgid_text(&job->one.id, id);
        log_error("campaign.order_failed", "id=%s name=\"%s\" tenant=\"%s\" error=\"%s\"", id,
                  job->one.name, job->one.tenant, strerror(-result));
    }
    job_unmark(job);
    job_tell(job, result);
    job_free(job);
    keeper_go_on(k);
}

static void job_next(struct campaign_job *job)
{
    job->at++;
    job->part = 0;
    job->shard = 0;
    job_step(job);
}

/* A step failed for good. What was made of a new campaign goes again. */
static void job_fail(struct campaign_job *job, int result)
{
    ASSERT(result < 0);
    if (job->verb != CAMPAIGN_CREATE || job->undo_result != 0 || result == -ESHUTDOWN) {
        job_end(job, job->undo_result != 0 ? job->undo_result : result);
        return;
    }
    job->undo_result = result;
    job->shard = 0;
    job_step(job);
}

/* --- changes --- */

static void on_retry(struct timer *timer)
{
    struct campaign_job *job = CONTAINER_OF(timer, struct campaign_job, retry);

    job_step(job);
}

/* What makes room, or none is needed for, is tried until it succeeds. */
static bool job_retry(struct campaign_job *job, int result)
{
    struct worker *w = job->worker;

    if ((result != -ENOSPC && result != -ENOMEM) || job->verb == CAMPAIGN_CREATE || w->draining)
        return false;
    job->retry.on_timer = on_retry;
    wheel_arm(io_wheel(w->io), &job->retry, io_now_ms(w->io) + RETRY_MS);
    return true;
}

static void job_submit(struct campaign_job *job, uint32_t shard,
                       void (*on_done)(struct queue_change *change, int result))
{
    job->change.urgent = true;
    job->change.on_done = on_done;
    job->change.owner = job;
    queue_submit(job->worker->port, shard, &job->change);
}

static void job_state(struct campaign_job *job, bool remove)
{
    campaign_key(job->key, CAMPAIGN_RECORD_CAMPAIGN, &job->one.id);
    buf_clear(&job->value);
    if (!remove)
        campaign_encode(&job->value, &job->one);
    job->states[0] = (struct queue_state){.key = {(char *)job->key, sizeof(job->key)},
                                          .value = buf_str(&job->value),
                                          .remove = remove};
    job->change = (struct queue_change){.states = job->states, .states_len = 1};
}

/* What is told of the campaign beside its record comes, or goes. */
static void job_about(struct campaign_job *job, bool remove)
{
    const struct campaign_order *order = job->order;
    struct str about = order == NULL ? STR("") : order->about;

    if (about.len == 0 && !remove)
        return;
    campaign_key(job->to, CAMPAIGN_RECORD_ABOUT, &job->one.id);
    buf_clear(&job->about);
    if (!remove)
        campaign_about_encode(&job->about, about);
    job->states[1] = (struct queue_state){
        .key = {(char *)job->to, sizeof(job->to)}, .value = buf_str(&job->about), .remove = remove};
    job->change.states_len = 2;
}

/* Tally and sheet go. */
static void job_uncount(struct campaign_job *job)
{
    queue_tally_key(job->key, &job->one.id);
    queue_sheet_key(job->to, &job->one.id);
    job->states[0] =
        (struct queue_state){.key = {(char *)job->key, TALLY_KEY_BYTES}, .remove = true};
    job->states[1] =
        (struct queue_state){.key = {(char *)job->to, SHEET_KEY_BYTES}, .remove = true};
    job->change.states = job->states;
    job->change.states_len = 2;
}

/* --- the steps --- */

static void on_heard(struct worker *w, struct worker_note *note)
{
    struct campaign_job *job = CONTAINER_OF(note, struct campaign_job, note);

    if (w->campaigns == NULL || w->campaigns->job != job) { /* the worker ends */
        job_free(job);
        return;
    }
    atomic_store_explicit(&job->hearing, HEARING_NONE, memory_order_relaxed);
    /* What was to be resumed may have been already: its time had come. */
    if (job->heard_result < 0 && job->heard_result != -ENOENT)
        job_fail(job, job->heard_result);
    else if (job->undo_result != 0)
        job_end(job, job->undo_result);
    else
        job_next(job);
}

/* Any thread. */
static void on_suspended(void *arg, int result)
{
    struct campaign_job *job = arg;
    struct shared *all = job->worker->shared;
    uint32_t to = job->worker->index;

    job->heard_result = result;
    if (atomic_exchange_explicit(&job->hearing, HEARING_HEARD, memory_order_acq_rel) ==
        HEARING_LEFT)
        job_free(job);
    else
        worker_send(all, to, &job->note);
}

static void job_tell_lanes(struct campaign_job *job, struct suspend_order order)
{
    campaign_suspension(&job->one, worker_wall_ms(job->worker), &order.what);
    snprintf(order.what.who, sizeof(order.what.who), "campaign");
    order.on_done = on_suspended;
    order.arg = job;
    job->note = (struct worker_note){.run = on_heard};
    atomic_store_explicit(&job->hearing, HEARING_WAITS, memory_order_release);
    suspend_submit_from(job->worker, &order);
}

static void job_suspend(struct campaign_job *job, bool resume)
{
    job_tell_lanes(job, (struct suspend_order){.resume = resume});
}

static void job_content_change(struct campaign_job *job)
{
    job->pin = (struct queue_pin){.id = job->one.id};
    job->change.messages = &job->content;
    job->change.messages_len = 1;
    job->change.pins = &job->pin;
    job->change.pins_len = 1;
}

static void on_content(struct queue_change *change, int result)
{
    struct campaign_job *job = change->owner;

    job->shard++;
    if (result < 0)
        job_fail(job, result);
    else
        job_step(job);
}

static void step_content(struct campaign_job *job)
{
    if (job->shard == 0)
        job->shard = 1; /* the first has it with the record */
    if (job->shard >= queue_shards(job->worker->shared->queue)) {
        job_next(job);
        return;
    }
    job->change = (struct queue_change){0};
    job_content_change(job);
    job_submit(job, job->shard, on_content);
}

static void on_record(struct queue_change *change, int result)
{
    struct campaign_job *job = change->owner;

    if (result < 0) {
        job_fail(job, result);
        return;
    }
    result = campaigns_put(&job->worker->shared->campaigns, &job->one);
    ASSERT(result == 0); /* memory */
    job_next(job);
}

static void step_record(struct campaign_job *job)
{
    job_state(job, false);
    if (job->verb == CAMPAIGN_CREATE) {
        job_content_change(job);
        job_about(job, false);
    }
    job_submit(job, 0, on_record);
}

/* What goes of a shard, one after the other. */
enum forget_part { FORGET_HASHES, FORGET_PARTS, FORGET_TALLY, FORGET_PIN, FORGET_NEXT };

/* The part behind one of UNPIN, or of FORGET. */
static uint8_t forget_after(uint8_t step, uint8_t part)
{
    if (step == STEP_FORGET)
        return part == FORGET_TALLY ? FORGET_NEXT : part + 1;
    return part == FORGET_HASHES ? FORGET_PIN : FORGET_NEXT;
}

static uint8_t job_at(const struct campaign_job *job)
{
    return job->undo_result != 0 ? STEP_UNDO : steps[job->verb][job->at];
}

static void on_forgotten(struct queue_change *change, int result)
{
    struct campaign_job *job = change->owner;

    if (result < 0) {
        if (!job_retry(job, result))
            job_fail(job, result);
        return;
    }
    if (change->range == NULL || !change->range->more)
        job->part = forget_after(job_at(job), job->part);
    if (job->part == FORGET_NEXT) {
        job->part = 0;
        job->shard++;
    }
    job_step(job);
}

static void range_of(struct campaign_job *job, enum campaign_record record)
{
    campaign_key(job->key, record, &job->one.id);
    memcpy(job->to, job->key, sizeof(job->key));
    for (size_t i = sizeof(job->to); i-- > 0 && ++job->to[i] == 0;)
        ; /* the first key that does not begin so */
    job->range = (struct queue_states_range){.from = {(char *)job->key, sizeof(job->key)},
                                             .to = {(char *)job->to, sizeof(job->to)},
                                             .max = RANGE_MAX};
    job->change.range = &job->range;
}

static void step_forget(struct campaign_job *job)
{
    if (job->shard >= queue_shards(job->worker->shared->queue)) {
        job_next(job);
        return;
    }
    job->change = (struct queue_change){0};
    if (job_at(job) == STEP_UNPIN && job->one.open)
        job->part = FORGET_PIN;
    switch ((enum forget_part)job->part) {
    case FORGET_HASHES:
        range_of(job, CAMPAIGN_RECORD_HASHES);
        break;
    case FORGET_PARTS:
        range_of(job, CAMPAIGN_RECORD_PART);
        break;
    case FORGET_TALLY:
        job_uncount(job);
        break;
    case FORGET_PIN:
        job->pin = (struct queue_pin){.id = job->one.id,
                                      .remove = !job->one.open,
                                      .keep = job->one.open,
                                      .created_ms = job->one.starts_ms};
        job->change.pins = &job->pin;
        job->change.pins_len = 1;
        break;
    case FORGET_NEXT:
        ASSERT(false);
    }
    job_submit(job, job->shard, on_forgotten);
}

static void step_release(struct campaign_job *job)
{
    if (job->one.state != CAMPAIGN_RUNNING)
        job_next(job);
    else
        job_suspend(job, campaign_has_begun(&job->one, worker_wall_ms(job->worker)));
}

static void step_cancel_rows(struct campaign_job *job)
{
    if (job->one.state == CAMPAIGN_CANCELLED)
        campaign_cancel_rows(job->worker, &job->one);
    job_next(job);
}

static void on_record_gone(struct queue_change *change, int result)
{
    struct campaign_job *job = change->owner;

    if (result < 0) {
        if (!job_retry(job, result))
            job_fail(job, result);
        return;
    }
    campaigns_remove(&job->worker->shared->campaigns, &job->one.id);
    job_next(job);
}

static void step_forget_record(struct campaign_job *job)
{
    job_state(job, true);
    job_about(job, true);
    job_submit(job, 0, on_record_gone);
}

/* Pins, and tallies, of shards that have none are no error. What does not succeed is left to the
 * next start, as an orphan. */
static void on_undone(struct queue_change *change, int result)
{
    struct campaign_job *job = change->owner;

    (void)result;
    job->shard++;
    job_step(job);
}

static void step_undo(struct campaign_job *job)
{
    if (job->shard >= queue_shards(job->worker->shared->queue)) {
        job_suspend(job, true);
        return;
    }
    job->pin = (struct queue_pin){.id = job->one.id, .remove = true};
    job->change = (struct queue_change){.pins = &job->pin, .pins_len = 1};
    job_uncount(job);
    job_submit(job, job->shard, on_undone);
}

static void job_step(struct campaign_job *job)
{
    if (job_at(job) != STEP_END && job->worker->draining) {
        job_end(job, -ESHUTDOWN);
        return;
    }
    switch ((enum campaign_step)job_at(job)) {
    case STEP_END:
        job_end(job, 0);
        break;
    case STEP_SUSPEND:
        job_suspend(job, false);
        break;
    case STEP_CONTENT:
        step_content(job);
        break;
    case STEP_RECORD:
        step_record(job);
        break;
    case STEP_UNPIN:
    case STEP_FORGET:
        step_forget(job);
        break;
    case STEP_RELEASE:
        step_release(job);
        break;
    case STEP_LOOK:
        job_tell_lanes(job, (struct suspend_order){.look = true});
        break;
    case STEP_CANCEL_ROWS:
        step_cancel_rows(job);
        break;
    case STEP_FORGET_RECORD:
        step_forget_record(job);
        break;
    case STEP_UNDO:
        step_undo(job);
        break;
    case STEPS:
        ASSERT(false);
    }
}

static struct campaign_job *job_new(struct worker *w, uint8_t verb)
{
    struct campaign_job *job = calloc(1, sizeof(*job));

    ASSERT(job != NULL);
    job->worker = w;
    job->verb = verb;
    return job;
}

/* Whether job waits for one to be forgotten in front of it. */
static bool make_place(struct campaign_keeper *k, struct campaign_job *job, int *err)
{
    struct campaigns *all = &k->worker->shared->campaigns;
    struct campaign_entry *e;

    if (job->verb != CAMPAIGN_CREATE || all->by_id.count < CAMPAIGNS_MAX)
        return false;
    e = campaign_oldest_over(all);
    *err = e == NULL ? -ENOSPC : 0;
    if (e == NULL)
        return false;
    e->changing = true;
    list_push_front(&k->waiting, &job->node);
    k->job = job_new(k->worker, CAMPAIGN_FORGET);
    k->job->one = e->one;
    return true;
}

static int job_check(struct campaign_keeper *k, struct campaign_job *job)
{
    struct campaigns *all = &k->worker->shared->campaigns;
    int err = 0;

    if (k->worker->draining)
        return -ESHUTDOWN;
    pthread_mutex_lock(&all->lock);
    if (job->verb == CAMPAIGN_CREATE && campaign_has_its_places(all, job->order->what.tenant))
        err = -EDQUOT;
    else if (make_place(k, job, &err))
        err = -EAGAIN;
    else if (err == 0 && job->verb == CAMPAIGN_CREATE)
        err = campaign_admit_new(k->worker, job->order, &job->one);
    else if (err == 0 && job->order != NULL)
        err = campaign_admit_change(k->worker, job->order, &job->one);
    pthread_mutex_unlock(&all->lock);
    if (err == 0 && job->verb == CAMPAIGN_CREATE)
        job->content = message_ref(job->order->content);
    return err;
}

static void keeper_go_on(struct campaign_keeper *k)
{
    struct list_node *n;

    while (k->job == NULL && (n = list_pop_front(&k->waiting)) != NULL) {
        struct campaign_job *job = LIST_ENTRY(n, struct campaign_job, node);
        int err = job_check(k, job);

        if (err == 0)
            k->job = job;
        if (k->job != NULL) {
            job_step(k->job);
            return; /* it goes on from there */
        }
        job_tell(job, err);
        job_free(job);
    }
}

/* --- orders --- */

static void on_order(struct worker *w, struct worker_note *note)
{
    struct campaign_order *order = CONTAINER_OF(note, struct campaign_order, note);
    struct campaign_job *job;

    if (w->campaigns == NULL) {
        order->on_done(order, -ESHUTDOWN);
        return;
    }
    job = job_new(w, (uint8_t)order->verb);
    job->order = order;
    list_push_back(&w->campaigns->waiting, &job->node);
    keeper_go_on(w->campaigns);
}

void campaign_submit(struct shared *all, struct campaign_order *order)
{
    ASSERT(order->verb < CAMPAIGN_VERBS && order->on_done != NULL);
    ASSERT(order->verb != CAMPAIGN_CREATE ||
           (order->content != NULL && order->what.name[0] != '\0'));
    campaign_look_over(all, order);
    order->note = (struct worker_note){.run = on_order};
    worker_send(all, worker_of_shard(all, 0)->index, &order->note);
}

/* --- open and close --- */

static void add_job(struct campaign_keeper *k, uint8_t verb, const struct campaign *one)
{
    struct campaign_job *job = job_new(k->worker, verb);

    job->one = *one;
    list_push_back(&k->waiting, &job->node);
}

static void on_begin(struct worker *w, struct worker_note *note)
{
    (void)note;
    keeper_go_on(w->campaigns);
}

/* Work begins with the first turn: a start that fails has none, and closes the worker. */
void campaign_open(struct worker *w)
{
    struct campaigns *all = &w->shared->campaigns;
    struct campaign_keeper *k = calloc(1, sizeof(*k));

    ASSERT(k != NULL);
    k->worker = w;
    list_init(&k->waiting);
    w->campaigns = k;
    pthread_mutex_lock(&all->lock);
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        struct campaign_entry *e = LIST_ENTRY(n, struct campaign_entry, order);

        if (!e->unsettled)
            continue;
        e->unsettled = false;
        e->changing = true;
        add_job(k, VERB_SETTLE, &e->one);
    }
    for (size_t at = 0; at < all->orphans.len; at += MSGID_BYTES) {
        struct campaign one = {0};

        memcpy(one.id.bytes, all->orphans.data + at, MSGID_BYTES);
        if (campaigns_entry(all, &one.id) == NULL)
            add_job(k, VERB_ORPHAN, &one);
    }
    buf_done(&all->orphans);
    pthread_mutex_unlock(&all->lock);
    k->begin = (struct worker_note){.run = on_begin};
    worker_send(w->shared, w->index, &k->begin);
}

void campaign_close(struct worker *w)
{
    struct campaign_keeper *k = w->campaigns;
    struct campaign_job *job;
    struct list_node *n;

    if (k == NULL)
        return;
    w->campaigns = NULL;
    while ((n = list_pop_front(&k->waiting)) != NULL) {
        job = LIST_ENTRY(n, struct campaign_job, node);
        job_tell(job, -ESHUTDOWN);
        job_free(job);
    }
    job = k->job;
    free(k);
    if (job == NULL)
        return;
    wheel_cancel(io_wheel(w->io), &job->retry);
    job_tell(job, -ESHUTDOWN);
    /* Who waits for a suspension is freed by who tells of it. */
    if (atomic_load_explicit(&job->hearing, memory_order_relaxed) == HEARING_NONE)
        job_free(job);
    else
        (void)atomic_exchange_explicit(&job->hearing, HEARING_LEFT, memory_order_acq_rel);
}

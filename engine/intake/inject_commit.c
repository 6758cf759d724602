/* How a message that was gathered becomes durable, and its recipients come to their lanes. One of
 * few recipients is one change of one shard. One of many has rows in all shards: queue/spread.h. */
#include <stdlib.h>

#include "intake/hot.h"
#include "intake/inject_message.h"
#include "limits/retry.h"
#include "outcome/report.h"
#include "queue/spread.h"
#include "schedule/lane.h"
#include "worker/shared.h"

#define WHOLE_RCPTS_MAX 64 /* of a message that lies in one shard */

/* --- what both have --- */

static void record_reception(const struct inject *s, struct buf *out, const struct message *m)
{
    struct report_event event =
        report_event_of(REPORT_RECEPTION, s->config->node_id, m->created_ms, m, NULL);

    event.recipient = m->recipients == 1 ? slice_str(s, s->rcpts[0].address) : STR("");
    event.queue = m->recipients == 1 ? slice_str(s, s->rcpts[0].queue) : STR("");
    event.peer_name = s->helo;
    event.peer_addr = s->peer_text;
    event.reception_protocol = s->server.esmtp ? "ESMTP" : "SMTP";
    event.session_id = s->id;
    report_line(out, &event);
}

/* A message goes to the shard of its first recipient's domain, as nearly all mail has but one; mail
 * of a hot domain is spread by its ids. A domain with a rate of its own is not: it needs no second
 * core, and with one worker alone its priorities and weights hold exactly. */
static uint32_t message_shard(const struct inject *s, const struct msgid *id)
{
    struct worker *w = s->worker;
    struct queue *q = w->shared->queue;
    struct str domain = slice_str(s, s->rcpts[0].queue);
    uint64_t hash = hash_bytes(domain.ptr, domain.len, w->hash_seed);

    if (config_destination_for(s->config, domain, STR(""))->rate_messages == 0 &&
        hot_arrives(w->hot, hash, queue_shards(q), io_now_ms(w->io)))
        domain = (struct str){(const char *)id->bytes, sizeof(id->bytes)};
    return queue_shard_of(q, domain);
}

static struct recipient *rcpt_new(const struct inject *s, struct message *m, uint32_t i,
                                  int64_t due_ms)
{
    const struct inject_rcpt *from = &s->rcpts[i];
    struct recipient *r =
        recipient_new(m, i, slice_str(s, from->queue), slice_str(s, from->address),
                      slice_str(s, from->orcpt), STR(""));

    if (r == NULL)
        return NULL;
    r->due_ms = due_ms;
    r->lifetime_s = retry_lifetime_s(config_destination_for(s->config, r->queue, STR("")), false,
                                     due_ms - m->created_ms);
    r->notify = from->notify;
    return r;
}

static bool commit_init(struct inject_commit *c, struct inject *s, struct message *m)
{
    c->worker = s->worker;
    c->answer = inject_answer_new(s, &m->id);
    c->message = message_ref(m);
    return c->answer != NULL;
}

/* The session lets go of the message. */
static void commit_begins(struct inject_commit *c, struct inject *s)
{
    c->held_bytes = s->held_bytes;
    s->held_bytes = 0;
    inject_body_drop(s);
    inject_await(s, c);
}

static void commit_done(struct inject_commit *c)
{
    atomic_fetch_sub_explicit(&c->worker->shared->intake_bytes, c->held_bytes,
                              memory_order_relaxed);
    message_unref(c->message);
}

/* Nothing was submitted. */
static void commit_undo(struct inject_commit *c)
{
    pool_put(&c->worker->answer_pool, c->answer);
    commit_done(c);
}

static void count_received(struct inject_commit *c, size_t recipients)
{
    struct worker_counters *counters = &c->worker->counters;

    counter_add(&counters->received_messages, 1);
    counter_add(&counters->received_recipients, recipients);
    counter_add(&counters->received_bytes, c->message->content_len);
}

static void count_failure(struct inject_commit *c, int result)
{
    struct worker_counters *counters = &c->worker->counters;

    atomic_store_explicit(&counters->accept_error, result, memory_order_relaxed);
    counter_add(&counters->accept_failures, 1); /* the main thread logs them */
}

/* Rows of a shard on their way to the worker that owns it. */
static void note_send(struct worker *w, uint32_t shard, struct worker_note *note)
{
    struct worker *owner = worker_of_shard(w->shared, shard);

    if (owner == w)
        note->run(w, note);
    else
        worker_post(w->shared, w, owner->index, note);
}

/* --- in one shard --- */

struct whole {
    struct inject_commit commit;
    struct queue_change change;
    struct worker_note note;
    uint32_t shard;
    struct queue_row rows[]; /* [recipients] */
};

static void whole_free(struct whole *c)
{
    buf_done(&c->change.records);
    commit_done(&c->commit);
    free(c);
}

static void whole_free_rows(struct whole *c)
{
    for (size_t i = 0; i < c->change.rows_len; i++)
        recipient_free(c->rows[i].rcpt);
}

static void on_whole_arrives(struct worker *w, struct worker_note *note)
{
    struct whole *c = CONTAINER_OF(note, struct whole, note);

    for (size_t i = 0; i < c->change.rows_len; i++)
        lane_arrive(w, c->shard, c->rows[i].rcpt);
    whole_free(c);
}

static void on_whole_committed(struct queue_change *change, int result)
{
    struct whole *c = CONTAINER_OF(change, struct whole, change);
    struct inject_answer *answer = c->commit.answer;

    if (result < 0) {
        count_failure(&c->commit, result);
        whole_free_rows(c);
        whole_free(c);
    } else {
        count_received(&c->commit, c->change.rows_len);
        note_send(c->commit.worker, c->shard, &c->note);
    }
    if (answer != NULL)
        inject_committed(answer, result);
}

static bool whole_rows(struct whole *c, const struct inject *s, int64_t due_ms)
{
    for (uint32_t i = 0; i < s->rcpts_len; i++) {
        c->rows[i] = (struct queue_row){.kind = QUEUE_ROW_ADD,
                                        .rcpt = rcpt_new(s, c->commit.message, i, due_ms)};
        if (c->rows[i].rcpt == NULL)
            return false;
        c->change.rows_len++;
    }
    return true;
}

static bool whole_submit(struct inject *s, struct message *m, int64_t due_ms)
{
    struct whole *c = calloc(1, sizeof(*c) + s->rcpts_len * sizeof(c->rows[0]));

    if (c == NULL)
        return false;
    c->note.run = on_whole_arrives;
    c->shard = message_shard(s, &m->id);
    if (!commit_init(&c->commit, s, m) || !whole_rows(c, s, due_ms)) {
        whole_free_rows(c);
        commit_undo(&c->commit);
        free(c);
        return false;
    }
    c->change.messages = &c->commit.message;
    c->change.messages_len = 1;
    c->change.rows = c->rows;
    c->change.urgent = true;
    c->change.on_done = on_whole_committed;
    record_reception(s, &c->change.records, m);
    commit_begins(&c->commit, s);
    queue_submit(s->worker->port, c->shard, &c->change);
    return true;
}

/* --- in all shards, by recipient --- */

/* Rows of one shard; its worker's from the moment they are mail. */
struct arrival {
    struct worker_note note;
    uint32_t shard;
    uint32_t rows_len;
    struct queue_row rows[];
};

struct spread {
    struct inject_commit commit;
    struct queue_spread spread;
    struct arrival *arrivals[SHARDS_MAX];
    struct queue_spread_part parts[]; /* [shards] */
};

static void arrival_free(struct arrival *a)
{
    for (uint32_t i = 0; a != NULL && i < a->rows_len; i++)
        recipient_free(a->rows[i].rcpt);
    free(a);
}

static void spread_free(struct spread *c)
{
    for (uint32_t i = 0; i < c->spread.parts_len; i++) {
        arrival_free(c->arrivals[i]);
        message_unref(c->parts[i].message);
    }
    buf_done(&c->spread.records);
    free(c);
}

static void on_part_arrives(struct worker *w, struct worker_note *note)
{
    struct arrival *a = CONTAINER_OF(note, struct arrival, note);

    for (uint32_t i = 0; i < a->rows_len; i++)
        lane_arrive(w, a->shard, a->rows[i].rcpt);
    free(a);
}

static void on_part_whole(struct queue_spread *spread, uint32_t shard)
{
    struct spread *c = CONTAINER_OF(spread, struct spread, spread);
    struct arrival *a = c->arrivals[shard];

    c->arrivals[shard] = NULL;
    note_send(c->commit.worker, shard, &a->note);
}

static void on_spread_done(struct queue_spread *spread, int result)
{
    struct spread *c = CONTAINER_OF(spread, struct spread, spread);
    struct inject_answer *answer = c->commit.answer;

    if (result < 0)
        count_failure(&c->commit, result);
    else
        count_received(&c->commit, c->commit.message->recipients);
    c->commit.answer = NULL;
    if (answer != NULL)
        inject_committed(answer, result);
}

static void on_spread_end(struct queue_spread *spread)
{
    struct spread *c = CONTAINER_OF(spread, struct spread, spread);

    commit_done(&c->commit);
    spread_free(c);
}

static uint32_t rcpt_shard(const struct inject *s, uint32_t i)
{
    return queue_shard_of(s->worker->shared->queue, slice_str(s, s->rcpts[i].address));
}

/* Room for each shard's rows, which are counted, and a message of its own for it. */
static bool spread_alloc(struct spread *c, const struct inject *s, struct message *m)
{
    uint32_t count[SHARDS_MAX] = {0};

    for (uint32_t i = 0; i < s->rcpts_len; i++)
        count[rcpt_shard(s, i)]++;
    for (uint32_t i = 0; i < c->spread.parts_len; i++) {
        struct arrival *a = malloc(sizeof(*a) + count[i] * sizeof(a->rows[0]));

        c->arrivals[i] = a;
        c->parts[i].message = message_share(m);
        if (a == NULL || c->parts[i].message == NULL)
            return false;
        *a = (struct arrival){.note = {.run = on_part_arrives}, .shard = i};
        c->parts[i].rows = a->rows;
        c->parts[i].rows_len = count[i];
    }
    return true;
}

static bool spread_rows(struct spread *c, const struct inject *s, int64_t due_ms)
{
    for (uint32_t i = 0; i < s->rcpts_len; i++) {
        uint32_t shard = rcpt_shard(s, i);
        struct arrival *a = c->arrivals[shard];
        struct recipient *r = rcpt_new(s, c->parts[shard].message, i, due_ms);

        if (r == NULL)
            return false;
        a->rows[a->rows_len++] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
    }
    return true;
}

static bool spread_submit(struct inject *s, struct message *m, int64_t due_ms)
{
    uint32_t shards = queue_shards(s->worker->shared->queue);
    struct spread *c = calloc(1, sizeof(*c) + shards * sizeof(c->parts[0]));

    if (c == NULL)
        return false;
    c->spread = (struct queue_spread){.parts = c->parts,
                                      .parts_len = shards,
                                      .home = rcpt_shard(s, 0),
                                      .on_done = on_spread_done,
                                      .on_whole = on_part_whole,
                                      .on_end = on_spread_end};
    if (!commit_init(&c->commit, s, m) || !spread_alloc(c, s, m) || !spread_rows(c, s, due_ms)) {
        commit_undo(&c->commit);
        spread_free(c);
        return false;
    }
    record_reception(s, &c->spread.records, m);
    commit_begins(&c->commit, s);
    queue_spread_submit(s->worker->port, &c->spread);
    return true;
}

bool inject_submit(struct inject *s, struct message *m, int64_t due_ms)
{
    bool spread = s->rcpts_len > WHOLE_RCPTS_MAX && queue_shards(s->worker->shared->queue) > 1;

    return spread ? spread_submit(s, m, due_ms) : whole_submit(s, m, due_ms);
}

/* See accept.h. */
#include "intake/accept.h"

#include <stdlib.h>

#include "intake/hot.h"
#include "limits/retry.h"
#include "mail/international.h"
#include "outcome/report.h"
#include "queue/spread.h"
#include "schedule/lane.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define WHOLE_RCPTS_MAX 64   /* of a message that lies in one shard */
#define ARRIVE_MAX      1000 /* recipients of a message that come to their lanes in a turn */

#define SMALL_BYTES (64u << 10) /* such messages have a share of their own in memory */

/* --- what may come in --- */

enum queue_intake accept_intake(const struct queue *q)
{
    enum queue_intake worst = QUEUE_INTAKE_OK;

    for (uint32_t i = 0; i < queue_shards(q); i++) {
        enum queue_intake one = queue_intake(q, i);

        worst = one > worst ? one : worst;
    }
    return worst;
}

/* A message larger than SMALL_BYTES leaves a quarter of the room to smaller ones, so that a few
 * slow clients with much to say do not silence all others. One that has nearly nothing beside it
 * has room whatever its size, or a message larger than the limit could never come in. */
bool accept_has_room(const struct shared *shared, const struct config *c, uint64_t mine,
                     uint64_t bytes)
{
    uint64_t max = c->queue.intake_bytes_max;
    uint64_t held = atomic_load_explicit(&shared->intake_bytes, memory_order_relaxed);
    uint64_t others = held > mine ? held - mine : 0, own = mine + bytes;

    return others < max / 8 || others + own <= (own > SMALL_BYTES ? max / 4 * 3 : max);
}

const char *accept_rcpt_refusal(const struct config *c, const struct smtp_address *recipient,
                                struct dns_name *name)
{
    const struct config_route *route;
    struct str domain = recipient->domain;

    if (domain.len == 0) /* <postmaster> */
        domain = str_of(c->host_name);
    if (queue_name_of(domain, name) < 0)
        return "553 5.1.2 not a domain that mail can go to";
    route = config_route_for(c, (struct str){name->text, name->len});
    if (route != NULL && route->kind == CONFIG_ROUTE_REJECT)
        return "550 5.7.1 mail for this domain is not accepted here";
    return NULL;
}

bool accept_put_rcpt(struct buf *out, const struct config *c, const struct smtp_address *recipient)
{
    bool ascii = international_put_address(out, recipient);

    if (recipient->domain.len == 0) {
        buf_putc(out, '@');
        buf_puts(out, c->host_name);
    }
    return ascii;
}

/* A message under way to its commit; outlives who brought it. */
struct acceptance {
    struct worker *worker;
    struct accept_waiter *waiter; /* NULL: nobody waits */
    struct message *message;
    uint64_t held_bytes;
};

/* --- what both have --- */

static struct str slice_of(const struct accept_order *o, struct accept_slice slice)
{
    return (struct str){(const char *)o->strings + slice.at, slice.len};
}

static void record_reception(const struct accept_order *o, struct buf *out)
{
    const struct message *m = o->message;
    struct report_event event =
        report_event_of(REPORT_RECEPTION, o->config->node_id, m->created_ms, m, NULL);

    event.recipient = m->recipients == 1 ? slice_of(o, o->rcpts[0].address) : STR("");
    event.queue = m->recipients == 1 ? slice_of(o, o->rcpts[0].queue) : STR("");
    event.peer_name = o->peer_name;
    event.peer_addr = o->peer_addr;
    event.reception_protocol = o->protocol;
    event.session_id = o->session_id;
    event.user = o->user;
    event.tls = o->tls;
    report_line(out, &event);
}

/* A message goes to the shard of its first recipient's domain, as nearly all mail has but one; mail
 * of a hot domain is spread by its ids. A domain with a rate of its own is not: it needs no second
 * core, and with one worker alone its priorities and weights hold exactly. */
static uint32_t message_shard(const struct accept_order *o)
{
    struct worker *w = o->worker;
    struct queue *q = w->shared->queue;
    const struct msgid *id = &o->message->id;
    struct str domain = slice_of(o, o->rcpts[0].queue);
    uint64_t hash = hash_bytes(domain.ptr, domain.len, w->hash_seed);

    ASSERT(o->rcpts_len > 0 && (o->rcpts_len <= WHOLE_RCPTS_MAX || queue_shards(q) == 1));
    if (hot_arrives(w->hot, hash, queue_shards(q), io_now_ms(w->io)) &&
        config_destination_for(o->config, domain, STR(""))->rate_messages == 0)
        domain = (struct str){(const char *)id->bytes, sizeof(id->bytes)};
    return queue_shard_of(q, domain);
}

static uint32_t lifetime_s(const struct accept_order *o, const struct recipient *r)
{
    int64_t created_ms = r->message->created_ms, own_s;
    uint32_t set_s = retry_lifetime_s(config_destination_for(o->config, r->queue, STR("")), false,
                                      o->due_ms - created_ms);

    if (o->expires_ms == 0)
        return set_s;
    own_s = o->expires_ms > created_ms ? (o->expires_ms - created_ms + 999) / 1000 : 0;
    return own_s < set_s ? (uint32_t)own_s : set_s;
}

static struct recipient *rcpt_new(const struct accept_order *o, struct message *m, uint32_t i)
{
    const struct accept_rcpt *from = &o->rcpts[i];
    struct recipient *r;

    ASSERT(i < o->rcpts_len && m->flow != 0);
    r = recipient_new(m, i, slice_of(o, from->queue), slice_of(o, from->address),
                      slice_of(o, from->orcpt), STR(""));

    if (r == NULL)
        return NULL;
    r->due_ms = o->due_ms;
    r->lifetime_s = lifetime_s(o, r);
    r->notify = from->notify;
    return r;
}

static void acceptance_init(struct acceptance *a, const struct accept_order *o)
{
    *a = (struct acceptance){.worker = o->worker, .message = message_ref(o->message)};
}

/* It is about to be submitted. */
static void acceptance_begin(struct acceptance *a, const struct accept_order *o,
                             struct accept_waiter *waiter)
{
    ASSERT(waiter->under_way == NULL && a->waiter == NULL && waiter->on_done != NULL);
    a->held_bytes = o->held_bytes;
    a->waiter = waiter;
    waiter->under_way = a;
}

/* Takes out whoever waits, since that is told once; NULL: nobody waits. */
static struct accept_waiter *waiter_take(struct acceptance *a)
{
    struct accept_waiter *waiter = a->waiter;

    ASSERT(waiter == NULL || waiter->under_way == a);
    a->waiter = NULL;
    if (waiter != NULL)
        waiter->under_way = NULL;
    return waiter;
}

static void waiter_tell(struct accept_waiter *waiter, int result)
{
    if (waiter != NULL)
        waiter->on_done(waiter, result);
}

static void acceptance_done(struct acceptance *a)
{
    uint64_t before = atomic_fetch_sub_explicit(&a->worker->shared->intake_bytes, a->held_bytes,
                                                memory_order_relaxed);

    ASSERT(a->waiter == NULL && before >= a->held_bytes);
    message_unref(a->message);
}

void accept_forget(struct accept_waiter *waiter)
{
    if (waiter->under_way == NULL)
        return;
    ASSERT(waiter->under_way->waiter == waiter);
    (void)waiter_take(waiter->under_way);
}

static void count_received(struct acceptance *a, size_t recipients)
{
    struct worker_counters *counters = &a->worker->counters;

    counter_add(&counters->received_messages, 1);
    counter_add(&counters->received_recipients, recipients);
    counter_add(&counters->received_bytes, a->message->content_len);
}

static void count_failure(struct acceptance *a, int result)
{
    struct worker_counters *counters = &a->worker->counters;

    atomic_store_explicit(&counters->accept_error, result, memory_order_relaxed);
    counter_add(&counters->accept_failures, 1); /* the main thread logs them */
}

/* Rows of a shard on their way to the worker that owns it. */
static void note_send(struct worker *w, uint32_t shard, struct worker_note *note)
{
    struct worker *owner = worker_of_shard(w->shared, shard);

    ASSERT(note->run != NULL);
    if (owner == w)
        note->run(w, note);
    else
        worker_post(w->shared, w, owner->index, note);
}

/* Brings some more of the rows to their lanes; *arrived are there. False: note, whose rows they
 * are, is run again in the next turn. A worker that drains leaves all to the store at once. */
static bool rows_arrive(struct worker *w, struct worker_note *note, uint32_t shard,
                        const struct queue_row *rows, size_t len, size_t *arrived)
{
    ASSERT(worker_of_shard(w->shared, shard) == w && *arrived < len);
    for (size_t n = 0; *arrived < len && (n < ARRIVE_MAX || w->draining); n++)
        lane_arrive(w, shard, rows[(*arrived)++].rcpt);
    if (*arrived == len)
        return true;
    worker_send(w->shared, w->index, note);
    return false;
}

/* --- in one shard --- */

struct whole {
    struct acceptance acceptance;
    struct queue_change change;
    struct worker_note note;
    uint32_t shard;
    size_t arrived;
    struct queue_row rows[]; /* [recipients] */
};

static void whole_free(struct whole *c)
{
    buf_done(&c->change.records);
    acceptance_done(&c->acceptance);
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

    if (rows_arrive(w, note, c->shard, c->rows, c->change.rows_len, &c->arrived))
        whole_free(c);
}

static void on_whole_committed(struct queue_change *change, int result)
{
    struct whole *c = CONTAINER_OF(change, struct whole, change);
    struct accept_waiter *waiter = waiter_take(&c->acceptance);

    ASSERT(result <= 0 && c->change.rows_len == c->acceptance.message->recipients);
    if (result < 0) {
        count_failure(&c->acceptance, result);
        whole_free_rows(c);
        whole_free(c);
    } else {
        count_received(&c->acceptance, c->change.rows_len);
        note_send(c->acceptance.worker, c->shard, &c->note);
    }
    waiter_tell(waiter, result);
}

static bool whole_rows(struct whole *c, const struct accept_order *o)
{
    for (uint32_t i = 0; i < o->rcpts_len; i++) {
        c->rows[i] = (struct queue_row){.kind = QUEUE_ROW_ADD,
                                        .rcpt = rcpt_new(o, c->acceptance.message, i)};
        if (c->rows[i].rcpt == NULL)
            return false;
        c->change.rows_len++;
    }
    return true;
}

static bool whole_submit(const struct accept_order *o, struct accept_waiter *waiter)
{
    struct whole *c = calloc(1, sizeof(*c) + o->rcpts_len * sizeof(c->rows[0]));

    if (c == NULL)
        return false;
    acceptance_init(&c->acceptance, o);
    if (!whole_rows(c, o)) {
        whole_free_rows(c);
        whole_free(c);
        return false;
    }
    c->note.run = on_whole_arrives;
    c->shard = o->states_len > 0 ? o->shard : message_shard(o);
    c->change.states = o->states;
    c->change.states_len = o->states_len;
    c->change.messages = &c->acceptance.message;
    c->change.messages_len = 1;
    c->change.rows = c->rows;
    c->change.urgent = true;
    c->change.on_done = on_whole_committed;
    record_reception(o, &c->change.records);
    acceptance_begin(&c->acceptance, o, waiter);
    queue_submit(o->worker->port, c->shard, &c->change);
    return true;
}

/* --- in all shards, by recipient --- */

/* Rows of one shard; its worker's from the moment they are mail. */
struct arrival {
    struct worker_note note;
    uint32_t shard;
    uint32_t rows_len;
    size_t arrived;
    struct queue_row rows[];
};

struct spread {
    struct acceptance acceptance;
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
    acceptance_done(&c->acceptance);
    free(c);
}

static void on_part_arrives(struct worker *w, struct worker_note *note)
{
    struct arrival *a = CONTAINER_OF(note, struct arrival, note);

    if (rows_arrive(w, note, a->shard, a->rows, a->rows_len, &a->arrived))
        free(a);
}

static void on_part_whole(struct queue_spread *spread, uint32_t shard)
{
    struct spread *c = CONTAINER_OF(spread, struct spread, spread);
    struct arrival *a = c->arrivals[shard];

    ASSERT(a != NULL && a->shard == shard && a->rows_len > 0); /* once, and not of an empty part */
    c->arrivals[shard] = NULL;
    note_send(c->acceptance.worker, shard, &a->note);
}

static void on_spread_done(struct queue_spread *spread, int result)
{
    struct spread *c = CONTAINER_OF(spread, struct spread, spread);
    struct accept_waiter *waiter = waiter_take(&c->acceptance);

    ASSERT(result <= 0);
    if (result < 0)
        count_failure(&c->acceptance, result);
    else
        count_received(&c->acceptance, c->acceptance.message->recipients);
    waiter_tell(waiter, result);
}

static void on_spread_end(struct queue_spread *spread)
{
    struct spread *c = CONTAINER_OF(spread, struct spread, spread);

    spread_free(c);
}

static uint32_t rcpt_shard(const struct accept_order *o, uint32_t i)
{
    return queue_shard_of(o->worker->shared->queue, slice_of(o, o->rcpts[i].address));
}

/* Makes room for the rows of each shard, which it counts, and a message of its own for each. */
static bool spread_alloc(struct spread *c, const struct accept_order *o)
{
    uint32_t count[SHARDS_MAX] = {0};

    for (uint32_t i = 0; i < o->rcpts_len; i++)
        count[rcpt_shard(o, i)]++;
    for (uint32_t i = 0; i < c->spread.parts_len; i++) {
        struct arrival *a = malloc(sizeof(*a) + count[i] * sizeof(a->rows[0]));

        if (a == NULL)
            return false;
        *a = (struct arrival){.note = {.run = on_part_arrives}, .shard = i};
        c->arrivals[i] = a;
        c->parts[i].message = message_share(o->message);
        if (c->parts[i].message == NULL)
            return false;
        c->parts[i].rows = a->rows;
        c->parts[i].rows_len = count[i];
    }
    return true;
}

static bool spread_rows(struct spread *c, const struct accept_order *o)
{
    for (uint32_t i = 0; i < o->rcpts_len; i++) {
        uint32_t shard = rcpt_shard(o, i);
        struct arrival *a = c->arrivals[shard];
        struct recipient *r = rcpt_new(o, c->parts[shard].message, i);

        if (r == NULL)
            return false;
        ASSERT(a->rows_len < c->parts[shard].rows_len);
        a->rows[a->rows_len++] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
    }
    return true;
}

static bool spread_submit(const struct accept_order *o, struct accept_waiter *waiter)
{
    uint32_t shards = queue_shards(o->worker->shared->queue);
    struct spread *c = calloc(1, sizeof(*c) + shards * sizeof(c->parts[0]));

    if (c == NULL)
        return false;
    acceptance_init(&c->acceptance, o);
    c->spread = (struct queue_spread){.parts = c->parts,
                                      .parts_len = shards,
                                      .home = rcpt_shard(o, 0),
                                      .on_done = on_spread_done,
                                      .on_whole = on_part_whole,
                                      .on_end = on_spread_end};
    if (!spread_alloc(c, o) || !spread_rows(c, o)) {
        spread_free(c);
        return false;
    }
    record_reception(o, &c->spread.records);
    acceptance_begin(&c->acceptance, o, waiter);
    queue_spread_submit(o->worker->port, &c->spread);
    return true;
}

bool accept_submit(const struct accept_order *o, struct accept_waiter *waiter)
{
    bool spread = o->rcpts_len > WHOLE_RCPTS_MAX && o->states_len == 0 &&
                  queue_shards(o->worker->shared->queue) > 1;

    ASSERT(o->rcpts_len > 0 && o->message->recipients == o->rcpts_len);
    o->message->expires_ms = o->expires_ms;
    return spread ? spread_submit(o, waiter) : whole_submit(o, waiter);
}

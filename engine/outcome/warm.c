#include "outcome/warm.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "outcome/report.h"
#include "worker/warmup_store.h"

#define PUTS_MAX       64
#define STATES_PER_PUT 3 /* the stream, its day, a day that is too old to be kept */
#define RETRY_MS       1000
#define LOOK_MS        1000 /* so late may a day without further mail end */

/* An order of the operator. */
struct order {
    struct worker_note note;
    struct list_node node; /* warm->waiting or warm->made */
    struct warm_order order;
};

/* What a round stores in one shard. */
struct part {
    struct queue_change change;
    struct warm *keeper;
    uint32_t shard;
    bool fills; /* it has something to store in this round */
};

struct warm {
    struct worker *worker;
    uint32_t storing; /* parts of a round, under way */
    int result;       /* the first error of these */
    bool ends;
    uint64_t retry_ms;         /* monotonic: the store had no room */
    uint64_t look_ms;          /* monotonic: whether a day has ended */
    struct list waiting, made; /* orders: to be made, and made but not stored yet */
    size_t made_left;          /* streams that ask, until all that these changed have */
    struct warmup_put puts[PUTS_MAX];
    size_t puts_len, taken; /* taken: streams of the round, with those that had nothing to store */
    struct queue_state states[PUTS_MAX * STATES_PER_PUT];
    uint8_t keys[PUTS_MAX * STATES_PER_PUT][WARMUP_KEY_MAX];
    struct buf values[PUTS_MAX * STATES_PER_PUT];
    size_t states_len;
    struct part *parts; /* one for each shard */
};

static void order_done(struct order *o, int result)
{
    o->order.on_done(o->order.arg, result);
    free(o);
}

static void orders_done(struct list *orders, int result)
{
    struct list_node *n;

    while ((n = list_pop_front(orders)) != NULL)
        order_done(LIST_ENTRY(n, struct order, node), result);
}

/* --- what is stored --- */

/* The buffer for the value of a state under key. */
static struct buf *state_add(struct warm *k, const struct warmup_key *key, bool remove)
{
    size_t at = k->states_len++;

    ASSERT(at < ARRAY_LEN(k->states));
    buf_clear(&k->values[at]);
    k->states[at] = (struct queue_state){
        .key = {(const char *)k->keys[at], warmup_key_encode(k->keys[at], key)}, .remove = remove};
    return &k->values[at];
}

static void record_day(struct warm *k, const struct warmup_put *put)
{
    const struct report_warmup record = {.node_id = k->worker->config->node_id,
                                         .source = put->stream->source,
                                         .provider = put->stream->provider,
                                         .timestamp_ms = worker_wall_ms(k->worker),
                                         .past = &put->past,
                                         .next_stage = put->state.stage,
                                         .next_cap = put->cap};

    report_warmup(&k->parts[0].change.records, &record);
}

static void store_day(struct warm *k, const struct warmup_put *put, struct warmup_key key)
{
    key.record = WARMUP_RECORD_DAY;
    key.day = put->past.day;
    warmup_past_encode(&put->past, state_add(k, &key, false));
    key.day -= WARMUP_DAYS_KEPT;
    (void)state_add(k, &key, true);
    record_day(k, put);
    log_info("warmup.day", "source=%s provider=%s used=%u verdict=%s stage=%u", put->stream->source,
             put->stream->provider, put->past.used, warmup_verdict_name(put->past.verdict),
             put->state.stage + 1);
}

static void store_stream(struct warm *k, const struct warmup_put *put)
{
    struct warmup_key key = {.record = WARMUP_RECORD_STREAM,
                             .source = str_of(put->stream->source),
                             .provider = str_of(put->stream->provider)};

    const struct warmup_state stored = warmup_put_stored(put);

    warmup_state_encode(&stored, state_add(k, &key, false));
    if (put->ended)
        store_day(k, put, key);
}

/* --- rounds --- */

/* All that the round had is stored, or nothing of some parts. */
static void round_end(struct warm *k)
{
    ASSERT(k->storing == 0 && k->puts_len <= k->taken);
    k->made_left -= k->taken < k->made_left ? k->taken : k->made_left;
    if (k->made_left == 0 || k->result < 0)
        orders_done(&k->made, k->result);
    buf_clear(&k->parts[0].change.records);
}

static void on_stored(struct queue_change *change, int result)
{
    struct part *part = change->owner;
    struct warm *k = part->keeper;
    struct worker *w = k->worker;

    ASSERT(k->storing > 0 && part->fills && change == &part->change);
    if (result < 0 && result != -ESHUTDOWN) {
        log_error("warmup.store_failed", "error=\"%s\" action=\"streams wait until it succeeds\"",
                  strerror(-result));
        k->retry_ms = io_now_ms(w->io) + RETRY_MS;
    }
    for (size_t i = 0; i < k->puts_len; i++)
        if (k->puts[i].shard == part->shard)
            warmup_granted(&w->shared->warmup, &k->puts[i], result == 0, io_now_ns(w->io));
    k->result = k->result < 0 ? k->result : result;
    if (--k->storing == 0)
        round_end(k);
}

/* What was fed in is recorded with the streams that it changes. */
static void record_order(struct warm *k, const struct warmup_order *o)
{
    if (o->kind == WARMUP_COMPLAINTS)
        report_feedback(&k->parts[0].change.records, k->worker->config->node_id,
                        worker_wall_ms(k->worker), o->source, o->provider, o->number);
}

/* An order may change more streams than a round stores, and others ask before these. All that it
 * changed ask now, in a queue: it is stored when as many as ask now have had their turn. */
static void orders_make(struct warm *k)
{
    struct worker *w = k->worker;
    struct list_node *n;

    ASSERT(k->storing == 0 && list_empty(&k->made));
    while ((n = list_pop_front(&k->waiting)) != NULL) {
        struct order *o = LIST_ENTRY(n, struct order, node);
        int err = w->draining ? -ESHUTDOWN
                              : warmup_order(&w->shared->warmup, worker_wall_ms(w), &o->order.what);

        if (err < 0) {
            order_done(o, err);
            continue;
        }
        record_order(k, &o->order.what);
        list_push_back(&k->made, &o->node);
    }
    k->made_left = list_empty(&k->made) ? 0 : warmup_asking(&w->shared->warmup);
}

static void round_lease(struct warm *k)
{
    struct worker *w = k->worker;
    struct warmup *all = &w->shared->warmup;

    k->puts_len = k->taken = 0;
    while (k->puts_len < PUTS_MAX && warmup_next(all, worker_wall_ms(w), &k->puts[k->puts_len])) {
        k->taken++;
        if (k->puts[k->puts_len].store)
            k->puts_len++;
        else
            warmup_granted(all, &k->puts[k->puts_len], true, io_now_ns(w->io));
    }
}

/* The states of what goes to part's shard. False: nothing does. */
static bool part_fill(struct warm *k, struct part *part)
{
    size_t first = k->states_len;
    bool records = part->change.records.len > 0; /* in shard 0: of orders, and of days */

    ASSERT(k->puts_len <= PUTS_MAX && (!records || part->shard == 0));
    part->change.urgent = records;
    for (size_t i = 0; i < k->puts_len; i++) {
        if (k->puts[i].shard != part->shard)
            continue;
        store_stream(k, &k->puts[i]);
        part->change.urgent = part->change.urgent || !k->puts[i].rides;
    }
    part->change.states = &k->states[first];
    part->change.states_len = k->states_len - first;
    return part->change.states_len > 0 || records;
}

static void round_begin(struct warm *k)
{
    struct worker *w = k->worker;
    uint32_t shards = queue_shards(w->shared->queue);

    ASSERT(k->storing == 0);
    k->states_len = 0;
    k->result = 0;
    round_lease(k);
    for (uint32_t i = 0; i < shards; i++) {
        k->parts[i].fills = part_fill(k, &k->parts[i]);
        k->storing += k->parts[i].fills;
    }
    for (size_t i = 0; i < k->states_len; i++)
        k->states[i].value = buf_str(&k->values[i]);
    if (k->storing == 0) {
        round_end(k);
        return;
    }
    for (uint32_t i = 0; i < shards; i++)
        if (k->parts[i].fills)
            queue_submit(w->port, i, &k->parts[i].change);
}

void warm_keep(struct worker *w)
{
    struct warm *k = w->warm;

    if (k == NULL || k->storing > 0)
        return;
    if (!list_empty(&k->waiting) && list_empty(&k->made))
        orders_make(k);
    if (io_now_ms(w->io) >= k->look_ms) {
        k->look_ms = io_now_ms(w->io) + LOOK_MS;
        warmup_look(&w->shared->warmup, worker_wall_ms(w));
    }
    if (!warmup_asks(&w->shared->warmup) || io_now_ms(w->io) < k->retry_ms)
        return;
    round_begin(k);
}

bool warm_ends(struct worker *w)
{
    struct warm *k = w->warm;

    if (k == NULL)
        return false;
    if (!k->ends) {
        k->ends = true;
        k->result = 0;
        warmup_end(&w->shared->warmup);
    }
    return k->storing > 0 || (warmup_asks(&w->shared->warmup) && k->result == 0);
}

static void on_order(struct worker *w, struct worker_note *note)
{
    struct order *o = CONTAINER_OF(note, struct order, note);

    list_push_back(&w->warm->waiting, &o->node);
}

void warm_submit(struct shared *all, const struct warm_order *order)
{
    struct order *o = calloc(1, sizeof(*o));

    if (o == NULL) {
        order->on_done(order->arg, -ENOMEM);
        return;
    }
    o->order = *order;
    o->note.run = on_order;
    worker_post(all, NULL, worker_of_shard(all, 0)->index, &o->note);
}

int warm_open(struct worker *w)
{
    w->warm = calloc(1, sizeof(*w->warm));
    if (w->warm == NULL)
        return -ENOMEM;
    w->warm->parts = calloc(queue_shards(w->shared->queue), sizeof(*w->warm->parts));
    if (w->warm->parts == NULL) {
        free(w->warm);
        w->warm = NULL;
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < queue_shards(w->shared->queue); i++) {
        struct part *part = &w->warm->parts[i];

        *part = (struct part){.keeper = w->warm, .shard = i};
        part->change.on_done = on_stored;
        part->change.owner = part;
    }
    w->warm->worker = w;
    list_init(&w->warm->waiting);
    list_init(&w->warm->made);
    return 0;
}

void warm_close(struct worker *w)
{
    struct warm *k = w->warm;

    if (k == NULL)
        return;
    orders_done(&k->waiting, -ESHUTDOWN);
    orders_done(&k->made, -ESHUTDOWN);
    for (size_t i = 0; i < ARRAY_LEN(k->values); i++)
        buf_done(&k->values[i]);
    buf_done(&k->parts[0].change.records);
    free(k->parts);
    free(k);
    w->warm = NULL;
}

#include "outcome/suppress.h"

#include <errno.h>
#include <stdlib.h>

#include "worker/worker.h"

/* A key and a value of the bytes, which may move until the order is submitted. */
struct suppress_place {
    uint32_t key_at, key_len, value_at, value_len;
    bool remove;
    bool weak; /* another reason of the same order takes its place */
};

struct suppress_order {
    struct worker_note note;
    struct queue_change change;
    struct buf bytes, places;
    struct queue_state *states;
    void (*on_done)(void *arg, int result);
    void *arg;
};

struct suppress_order *suppress_order_new(void)
{
    struct suppress_order *o = calloc(1, sizeof(*o));

    ASSERT(o != NULL); /* as in buf_*: memory is fatal */
    return o;
}

void suppress_order_free(struct suppress_order *o)
{
    if (o == NULL)
        return;
    buf_done(&o->bytes);
    buf_done(&o->places);
    buf_done(&o->change.records);
    free(o->states);
    free(o);
}

static void put(struct suppress_order *o, struct str tenant, const char *address,
                const struct suppression *one)
{
    uint8_t key[STATE_KEY_MAX];
    struct suppress_place p = {.key_at = (uint32_t)o->bytes.len,
                               .remove = one == NULL,
                               .weak = one != NULL && one->reason == SUPPRESSION_UNSUBSCRIBED};

    p.key_len = (uint32_t)suppression_key(key, tenant, str_of(address));
    buf_put(&o->bytes, key, p.key_len);
    p.value_at = (uint32_t)o->bytes.len;
    if (one != NULL)
        suppression_encode(&o->bytes, one);
    p.value_len = (uint32_t)o->bytes.len - p.value_at;
    buf_put(&o->places, &p, sizeof(p));
}

void suppress_order_put(struct suppress_order *o, struct suppressions *list,
                        const struct suppression *one)
{
    suppressions_note(list, one->address);
    put(o, str_of(one->tenant), one->address, one);
}

void suppress_order_remove(struct suppress_order *o, struct str tenant, const char *address)
{
    put(o, tenant, address, NULL);
}

struct buf *suppress_order_records(struct suppress_order *o)
{
    return &o->change.records;
}

size_t suppress_order_len(const struct suppress_order *o)
{
    return o->places.len / sizeof(struct suppress_place);
}

static void order_done(struct suppress_order *o, int result)
{
    if (o->on_done != NULL)
        o->on_done(o->arg, result);
    suppress_order_free(o);
}

static void on_committed(struct queue_change *change, int result)
{
    order_done(change->owner, result);
}

static void on_order(struct worker *w, struct worker_note *note)
{
    struct suppress_order *o = CONTAINER_OF(note, struct suppress_order, note);

    if (w->draining)
        order_done(o, -ESHUTDOWN);
    else
        queue_submit(w->port, 0, &o->change);
}

/* The states of one sort, behind those of the other. */
static void take_places(struct suppress_order *o, bool weak)
{
    const char *bytes = (const char *)o->bytes.data;

    for (size_t i = 0; i < suppress_order_len(o); i++) {
        struct suppress_place p;

        memcpy(&p, o->places.data + i * sizeof(p), sizeof(p));
        if (p.weak != weak)
            continue;
        o->states[o->change.states_len++] =
            (struct queue_state){.key = {bytes + p.key_at, p.key_len},
                                 .value = {bytes + p.value_at, p.value_len},
                                 .remove = p.remove};
    }
}

void suppress_submit(struct shared *all, struct suppress_order *o,
                     void (*on_done)(void *arg, int result), void *arg)
{
    size_t len = suppress_order_len(o);

    ASSERT(len > 0);
    o->states = calloc(len, sizeof(*o->states));
    ASSERT(o->states != NULL);
    take_places(o, true); /* of one address in both the last that is applied stays */
    take_places(o, false);
    ASSERT(o->change.states_len == len);
    o->change.states = o->states;
    o->change.urgent = true;
    o->change.on_done = on_committed;
    o->change.owner = o;
    o->on_done = on_done;
    o->arg = arg;
    o->note.run = on_order;
    worker_send(all, worker_of_shard(all, 0)->index, &o->note);
}

int suppress_is_news(struct suppressions *list, const struct suppression *one)
{
    struct suppression known;
    int err = suppressions_get(list, str_of(one->tenant), one->address, &known);

    if (err < 0)
        return err == -ENOENT ? 1 : err;
    return known.reason == SUPPRESSION_UNSUBSCRIBED && one->reason != SUPPRESSION_UNSUBSCRIBED;
}

#include "outcome/suppress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/worker.h"

/* A key and a value of the bytes, which may move until the order is submitted. */
struct suppress_place {
    uint32_t key_at, key_len, value_at, value_len;
    bool remove;
    bool weak; /* any other reason stays, whoever brings it */
};

struct suppress_order {
    struct worker_note note;
    struct queue_change change; /* of shard 0 */
    struct buf bytes, places;
    struct buf found; /* places: the keys of records 2 that go, in all shards */
    struct queue_state *states;
    struct queue_change *parts; /* of the other shards */
    uint32_t parts_len, under_way;
    int result;
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
    buf_done(&o->found);
    buf_done(&o->change.records);
    free(o->parts);
    free(o->states);
    free(o);
}

/* places: o->places or o->found, whose key it is. */
static void order_put(struct suppress_order *o, struct buf *places, struct str tenant,
                      const char *address, const struct suppression *one)
{
    uint8_t key[STATE_KEY_MAX];
    struct suppress_place p = {.key_at = (uint32_t)o->bytes.len,
                               .remove = one == NULL,
                               .weak = one != NULL && one->reason == SUPPRESSION_UNSUBSCRIBED};

    p.key_len = (uint32_t)(places == &o->found ? suppression_found_key(key, tenant, str_of(address))
                                               : suppression_key(key, tenant, str_of(address)));
    buf_put(&o->bytes, key, p.key_len);
    p.value_at = (uint32_t)o->bytes.len;
    if (one != NULL)
        suppression_encode(&o->bytes, one);
    p.value_len = (uint32_t)o->bytes.len - p.value_at;
    buf_put(places, &p, sizeof(p));
}

void suppress_order_put(struct suppress_order *o, struct suppressions *list,
                        const struct suppression *one)
{
    suppressions_note(list, one->address, false);
    order_put(o, &o->places, str_of(one->tenant), one->address, one);
}

void suppress_order_remove(struct suppress_order *o, struct str tenant, const char *address)
{
    order_put(o, &o->places, tenant, address, NULL);
    order_put(o, &o->found, tenant, address, NULL);
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
    struct suppress_order *o = change->owner;

    ASSERT(o->under_way > 0);
    if (o->result == 0)
        o->result = result;
    if (--o->under_way == 0)
        order_done(o, o->result);
}

static void on_order(struct worker *w, struct worker_note *note)
{
    struct suppress_order *o = CONTAINER_OF(note, struct suppress_order, note);

    if (w->draining) {
        order_done(o, -ESHUTDOWN);
        return;
    }
    o->under_way = 1 + o->parts_len;
    queue_submit(w->port, 0, &o->change);
    for (uint32_t i = 0; i < o->parts_len; i++)
        queue_submit(w->port, i + 1, &o->parts[i]);
}

/* The states of one sort, behind those of another. */
static void take_places(struct suppress_order *o, const struct buf *places, bool weak)
{
    const char *bytes = (const char *)o->bytes.data;

    for (size_t i = 0; i < places->len / sizeof(struct suppress_place); i++) {
        struct suppress_place p;

        memcpy(&p, places->data + i * sizeof(p), sizeof(p));
        if (p.weak != weak)
            continue;
        o->states[o->change.states_len++] =
            (struct queue_state){.key = {bytes + p.key_at, p.key_len},
                                 .value = {bytes + p.value_at, p.value_len},
                                 .remove = p.remove,
                                 .if_absent = p.weak};
    }
}

/* What the engine found out itself goes from whichever shard has it. */
static void take_found(struct suppress_order *o, struct shared *all)
{
    size_t first = o->change.states_len;

    if (!suppressions_may_find(&all->suppressions))
        return;
    take_places(o, &o->found, false);
    if (o->change.states_len == first)
        return;
    o->parts_len = queue_shards(all->queue) - 1;
    o->parts = calloc(o->parts_len + 1, sizeof(*o->parts));
    ASSERT(o->parts != NULL);
    for (uint32_t i = 0; i < o->parts_len; i++)
        o->parts[i] = (struct queue_change){.states = o->states + first,
                                            .states_len = o->change.states_len - first,
                                            .urgent = true,
                                            .on_done = on_committed,
                                            .owner = o};
}

void suppress_submit(struct shared *all, struct suppress_order *o,
                     void (*on_done)(void *arg, int result), void *arg)
{
    size_t len = suppress_order_len(o);

    ASSERT(len > 0);
    o->states = calloc(2 * len, sizeof(*o->states));
    ASSERT(o->states != NULL);
    take_places(o, &o->places, true); /* of one address in both the last that is applied stays */
    take_places(o, &o->places, false);
    ASSERT(o->change.states_len == len);
    take_found(o, all);
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

/* "550 5.1.1 no such user", cut. */
static void answer_put(const struct smtp_reply *reply, char out[SUPPRESSION_ANSWER_MAX + 1])
{
    const struct smtp_enhanced *e = &reply->enhanced;
    char code[24] = "";

    if (e->class != 0)
        snprintf(code, sizeof(code), "%u.%u.%u ", e->class, e->subject, e->detail);
    snprintf(out, SUPPRESSION_ANSWER_MAX + 1, "%u %s%.*s", reply->code, code, (int)reply->text_len,
             reply->text);
}

/* A name of a message, which is never longer; what an earlier build took is cut. */
static void name_put(struct str name, char out[FLOW_NAME_MAX + 1])
{
    snprintf(out, FLOW_NAME_MAX + 1, "%.*s", STR_FMT(name));
}

void suppress_found(struct suppress_found *f, struct suppressions *list, const struct recipient *r,
                    const struct smtp_reply *reply, const char *peer, int64_t now_ms,
                    struct queue_state *out)
{
    /* Of a campaign's letter the campaign's names count, whatever the letter's header has. */
    const struct message *m = r->message->recipe != NULL ? r->message->recipe : r->message;
    struct suppression one = {.reason = SUPPRESSION_BOUNCE, .at_ms = now_ms};
    int err = suppression_address(r->address, one.address);

    ASSERT(err == 0);
    name_put(m->tenant, one.tenant);
    name_put(m->campaign, one.campaign);
    snprintf(one.who, sizeof(one.who), "an answer of %s", peer != NULL ? peer : "the peer");
    answer_put(reply, one.answer);
    suppressions_note(list, one.address, true);
    *out = (struct queue_state){.key = {(char *)f->key, 0}, .if_absent = true};
    out->key.len = suppression_found_key(f->key, str_of(one.tenant), str_of(one.address));
    suppression_encode(&f->value, &one);
    out->value = buf_str(&f->value);
}

void suppress_found_done(struct suppress_found *f)
{
    buf_done(&f->value);
}

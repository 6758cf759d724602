#include "worker/campaigns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/packed.h"
#include "worker/suspensions.h"

#define VERSION 1
/* version 1, state 1, priority 1, then created_ms, changed_ms, starts_ms, seed: 8 each; then name,
 * tenant and pool: length 1, bytes; then, if something was changed or it expires: priority and 1
 * (0: none) 1, has_pool 1, pool: length 1, bytes, rate 8, period 8; then expires_ms 8; then
 * upload_key 8, upload_body 8; then flags 1 (1: open) */
#define FLAG_OPEN 1
#define VALUE_MIN (3 + 4 * 8 + 3)
#define SET_MIN   (3 + 2 * 8)

/* --- the table --- */

static uint64_t hash_of(const struct msgid *id)
{
    return hash_bytes(id->bytes, MSGID_BYTES, 0);
}

struct campaign_entry *campaigns_entry(struct campaigns *all, const struct msgid *id)
{
    for (struct map_node *n = map_find(&all->by_id, hash_of(id)); n != NULL; n = map_find_next(n)) {
        struct campaign_entry *e = CONTAINER_OF(n, struct campaign_entry, node);

        if (memcmp(&e->one.id, id, sizeof(*id)) == 0)
            return e;
    }
    return NULL;
}

static uint64_t name_hash(struct str tenant, struct str name)
{
    return hash_bytes(name.ptr, name.len, hash_bytes(tenant.ptr, tenant.len, 1));
}

static struct campaign_entry *named(struct campaigns *all, struct str tenant, struct str name)
{
    for (struct map_node *n = map_find(&all->by_name, name_hash(tenant, name)); n != NULL;
         n = map_find_next(n)) {
        struct campaign_entry *e = CONTAINER_OF(n, struct campaign_entry, name);

        if (str_eq(str_of(e->one.name), name) && str_eq(str_of(e->one.tenant), tenant))
            return e;
    }
    return NULL;
}

static void name_leave(struct campaigns *all, struct campaign_entry *e)
{
    if (!e->in_names)
        return;
    map_remove(&all->by_name, &e->name);
    e->in_names = false;
    atomic_fetch_sub_explicit(&all->set, 1, memory_order_relaxed);
}

static bool is_set(const struct campaign_set *set)
{
    return set->priority != 0 || set->has_pool || set->rate != 0;
}

/* What was set of an older one of the name, which is over, is nothing to this one. */
static void name_take(struct campaigns *all, struct campaign_entry *e,
                      const struct campaign_set *was)
{
    struct str tenant = str_of(e->one.tenant), name = str_of(e->one.name);
    struct campaign_entry *before = named(all, tenant, name);
    bool set = is_set(&e->one.set);

    if (before != NULL && before != e)
        name_leave(all, before);
    e->one.set.version = was->version;
    if (memcmp(&e->one.set, was, sizeof(*was)) != 0)
        e->one.set.version = ++all->versions;
    if (!e->in_names && set) {
        map_insert(&all->by_name, &e->name, name_hash(tenant, name));
        e->in_names = true;
        atomic_fetch_add_explicit(&all->set, 1, memory_order_relaxed);
    }
}

bool campaigns_find_set(struct campaigns *all, struct str tenant, struct str name,
                        struct campaign *out)
{
    const struct campaign_entry *e;

    if (atomic_load_explicit(&all->set, memory_order_relaxed) == 0)
        return false;
    pthread_mutex_lock(&all->lock);
    e = named(all, tenant, name);
    if (e != NULL)
        *out = e->one;
    pthread_mutex_unlock(&all->lock);
    return e != NULL;
}

const struct queue_flow *campaigns_names(struct campaigns *all, struct queue *q,
                                         const struct queue_flow *names, uint32_t *version)
{
    const struct queue_flow *flow;
    struct queue_flow wanted;
    struct campaign one;

    *version = 0;
    if (names == NULL || names->campaign.len == 0 ||
        !campaigns_find_set(all, names->tenant, names->campaign, &one))
        return names;
    *version = one.set.version;
    wanted = *names;
    if (one.set.priority != 0 && names->priority == one.priority)
        wanted.priority = one.set.priority - 1;
    if (one.set.has_pool && str_eq(names->pool, str_of(one.pool)))
        wanted.pool = str_of(one.set.pool);
    flow = queue_flow_like(q, &wanted);
    return flow != NULL ? flow : names; /* what stops it goes by its names */
}

int campaigns_put(struct campaigns *all, const struct campaign *one)
{
    struct campaign_entry *e;

    pthread_mutex_lock(&all->lock);
    e = campaigns_entry(all, &one->id);
    if (e == NULL) {
        e = calloc(1, sizeof(*e));
        if (e != NULL) {
            map_insert(&all->by_id, &e->node, hash_of(&one->id));
            list_push_back(&all->in_order, &e->order);
        }
    }
    if (e != NULL) {
        struct campaign_set was = e->one.set;

        e->one = *one;
        name_take(all, e, &was);
    }
    pthread_mutex_unlock(&all->lock);
    return e == NULL ? -ENOMEM : 0;
}

static void entry_free(struct campaigns *all, struct campaign_entry *e)
{
    ASSERT(e->upload == NULL);
    name_leave(all, e);
    map_remove(&all->by_id, &e->node);
    list_remove(&e->order);
    free(e);
}

void campaigns_remove(struct campaigns *all, const struct msgid *id)
{
    struct campaign_entry *e;

    pthread_mutex_lock(&all->lock);
    e = campaigns_entry(all, id);
    if (e != NULL)
        entry_free(all, e);
    pthread_mutex_unlock(&all->lock);
}

void campaigns_done(struct campaigns *all)
{
    struct list_node *n;

    if (all->by_id.buckets == NULL)
        return;
    while ((n = list_first(&all->in_order)) != NULL)
        entry_free(all, LIST_ENTRY(n, struct campaign_entry, order));
    ASSERT(list_empty(&all->parts));
    map_done(&all->by_id);
    map_done(&all->by_name);
    buf_done(&all->orphans);
    pthread_mutex_destroy(&all->lock);
    pthread_mutex_destroy(&all->load_lock);
}

bool campaigns_get(struct campaigns *all, const struct msgid *id, struct campaign *out)
{
    const struct campaign_entry *e;

    pthread_mutex_lock(&all->lock);
    e = campaigns_entry(all, id);
    if (e != NULL)
        *out = e->one;
    pthread_mutex_unlock(&all->lock);
    return e != NULL;
}

bool campaigns_find(struct campaigns *all, struct str tenant, struct str name, struct campaign *out)
{
    bool found = false;

    pthread_mutex_lock(&all->lock);
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        const struct campaign *one = &LIST_ENTRY(n, struct campaign_entry, order)->one;

        if (!str_eq(str_of(one->name), name) || !str_eq(str_of(one->tenant), tenant))
            continue;
        *out = *one;
        found = true;
    }
    pthread_mutex_unlock(&all->lock);
    return found;
}

bool campaigns_find_upload(struct campaigns *all, struct str tenant,
                           const uint8_t key[CAMPAIGN_UPLOAD_BYTES], struct campaign *out)
{
    bool found = false;

    pthread_mutex_lock(&all->lock);
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n)) {
        const struct campaign *one = &LIST_ENTRY(n, struct campaign_entry, order)->one;

        if (memcmp(one->upload_key, key, CAMPAIGN_UPLOAD_BYTES) != 0 ||
            !str_eq(str_of(one->tenant), tenant))
            continue;
        *out = *one;
        found = true;
    }
    pthread_mutex_unlock(&all->lock);
    return found;
}

void campaigns_visit(struct campaigns *all, void (*visit)(void *arg, const struct campaign *one),
                     void *arg)
{
    pthread_mutex_lock(&all->lock);
    for (struct list_node *n = list_first(&all->in_order); n != NULL;
         n = list_next(&all->in_order, n))
        visit(arg, &LIST_ENTRY(n, struct campaign_entry, order)->one);
    pthread_mutex_unlock(&all->lock);
}

bool campaign_is_over(const struct campaign *one, const struct queue_tally *counts)
{
    return (one->state == CAMPAIGN_RUNNING || one->state == CAMPAIGN_CANCELLED) &&
           !counts->pinned && tally_queued(counts) == 0;
}

int campaign_counts(struct queue *q, const struct msgid *id, struct queue_tally *out)
{
    int err = queue_tally_get(q, id, out);

    if (err == -EBADMSG)
        *out = (struct queue_tally){.pinned = true};
    return err == -EBADMSG ? 0 : err;
}

/* --- the record --- */

void campaign_key(uint8_t out[CAMPAIGN_KEY_BYTES], enum campaign_record record,
                  const struct msgid *id)
{
    out[0] = STATE_CAMPAIGN;
    out[1] = (uint8_t)record;
    memcpy(out + 2, id->bytes, MSGID_BYTES);
}

static bool is_upload(const struct campaign *one)
{
    static const uint8_t none[CAMPAIGN_UPLOAD_BYTES];

    return memcmp(one->upload_key, none, sizeof(none)) != 0;
}

void campaign_encode(struct buf *out, const struct campaign *one)
{
    ASSERT(one->state >= CAMPAIGN_DRAFT && one->state < CAMPAIGN_STATES);
    ASSERT(one->priority < FLOW_PRIORITIES && one->set.priority <= FLOW_PRIORITIES);
    buf_putc(out, VERSION);
    buf_putc(out, (char)one->state);
    buf_putc(out, (char)one->priority);
    packed_put(out, (uint64_t)one->created_ms, 8);
    packed_put(out, (uint64_t)one->changed_ms, 8);
    packed_put(out, (uint64_t)one->starts_ms, 8);
    packed_put(out, one->seed, 8);
    packed_put_text(out, one->name);
    packed_put_text(out, one->tenant);
    packed_put_text(out, one->pool);
    if (!is_set(&one->set) && one->expires_ms == 0 && !is_upload(one) && !one->open)
        return;
    buf_putc(out, (char)one->set.priority);
    buf_putc(out, one->set.has_pool);
    packed_put_text(out, one->set.pool);
    packed_put(out, one->set.rate, 8);
    packed_put(out, one->set.rate_period_ms, 8);
    packed_put(out, (uint64_t)one->expires_ms, 8);
    buf_put(out, one->upload_key, CAMPAIGN_UPLOAD_BYTES);
    buf_put(out, one->upload_body, CAMPAIGN_UPLOAD_BYTES);
    buf_putc(out, one->open ? FLAG_OPEN : 0);
}

/* What an earlier build wrote has none. */
static bool take_set(struct str *in, struct campaign_set *out)
{
    uint64_t period;

    if (in->len == 0)
        return true;
    if (in->len < SET_MIN)
        return false;
    out->priority = (uint8_t)in->ptr[0];
    out->has_pool = in->ptr[1] != 0;
    *in = (struct str){in->ptr + 2, in->len - 2};
    if (!packed_take_text(in, out->pool, FLOW_NAME_MAX) || !packed_take(in, 8, &out->rate) ||
        !packed_take(in, 8, &period))
        return false;
    out->rate_period_ms = (uint32_t)period;
    return period <= UINT32_MAX && (out->rate == 0 || period > 0) &&
           out->priority <= FLOW_PRIORITIES;
}

int campaign_decode(struct str key, struct str value, struct campaign *out)
{
    struct campaign one = {0};
    struct str rest;

    if (key.len != CAMPAIGN_KEY_BYTES || key.ptr[0] != STATE_CAMPAIGN ||
        key.ptr[1] != CAMPAIGN_RECORD_CAMPAIGN || value.len < VALUE_MIN)
        return -EBADMSG;
    if (value.ptr[0] != VERSION)
        return -EPROTO;
    memcpy(one.id.bytes, key.ptr + 2, MSGID_BYTES);
    one.state = (enum campaign_state)(uint8_t)value.ptr[1];
    one.priority = (uint8_t)value.ptr[2];
    one.created_ms = (int64_t)packed_at(value.ptr + 3, 8);
    one.changed_ms = (int64_t)packed_at(value.ptr + 11, 8);
    one.starts_ms = (int64_t)packed_at(value.ptr + 19, 8);
    one.seed = packed_at(value.ptr + 27, 8);
    rest = (struct str){value.ptr + 35, value.len - 35};
    if (one.state < CAMPAIGN_DRAFT || one.state >= CAMPAIGN_STATES ||
        one.priority >= FLOW_PRIORITIES || !packed_take_text(&rest, one.name, FLOW_NAME_MAX) ||
        !packed_take_text(&rest, one.tenant, FLOW_NAME_MAX) ||
        !packed_take_text(&rest, one.pool, FLOW_NAME_MAX) || one.name[0] == '\0' ||
        !take_set(&rest, &one.set))
        return -EBADMSG;
    if (rest.len >= 8)
        one.expires_ms = (int64_t)packed_at(rest.ptr, 8);
    if (rest.len >= 8 + 2 * CAMPAIGN_UPLOAD_BYTES) {
        memcpy(one.upload_key, rest.ptr + 8, CAMPAIGN_UPLOAD_BYTES);
        memcpy(one.upload_body, rest.ptr + 8 + CAMPAIGN_UPLOAD_BYTES, CAMPAIGN_UPLOAD_BYTES);
    }
    if (rest.len > 8 + 2 * CAMPAIGN_UPLOAD_BYTES)
        one.open = (rest.ptr[8 + 2 * CAMPAIGN_UPLOAD_BYTES] & FLAG_OPEN) != 0;
    if (one.expires_ms < 0 || one.expires_ms > QUEUE_DUE_HELD)
        return -EBADMSG; /* what follows is of a later build, and may be lost */
    *out = one;
    return 0;
}

/* --- opening --- */

struct loading {
    struct campaigns *to;
    int err;
};

static void load_one(void *arg, struct str key, struct str value)
{
    struct loading *l = arg;
    struct campaign one;
    int err;

    if (l->err < 0 || key.len < 2 || key.ptr[1] != CAMPAIGN_RECORD_CAMPAIGN)
        return;
    err = campaign_decode(key, value, &one);
    if (err == 0)
        l->err = campaigns_put(l->to, &one);
    else
        log_error("campaign.record_damaged",
                  "error=\"%s\" action=\"its mail is in the queue, and waits\"", strerror(-err));
}

void campaign_suspension(const struct campaign *one, int64_t now_ms, struct suspension *out)
{
    static const char *const why[] = {[CAMPAIGN_DRAFT] = "it is a draft",
                                      [CAMPAIGN_RUNNING] = "its start is to come",
                                      [CAMPAIGN_PAUSED] = "it is paused",
                                      [CAMPAIGN_CANCELLED] = "it is cancelled"};

    ASSERT(one->state >= CAMPAIGN_DRAFT && one->state < CAMPAIGN_STATES);
    *out = (struct suspension){.scope = SUSPENSION_CAMPAIGN_TENANT, .since_ms = now_ms};
    suspension_name(out->name, str_of(one->name), str_of(one->tenant));
    if (one->state == CAMPAIGN_RUNNING)
        out->until_ms = one->starts_ms;
    snprintf(out->reason, sizeof(out->reason), "%s", why[one->state]);
}

/* Its mail waits until the keeper has made what a crash left half done (intake/campaign.c), too. */
static int entry_open(struct campaign_entry *e, struct queue *q, struct suspensions *suspensions)
{
    struct queue_tally counts = {0};
    int64_t now_ms = clock_wall_ms();
    struct suspension what;
    int err = campaign_counts(q, &e->one.id, &counts);

    if (err < 0 && err != -ENOENT)
        return err;
    e->over = campaign_is_over(&e->one, &counts);
    e->unsettled = !e->over && (e->one.state == CAMPAIGN_CANCELLED ||
                                (e->one.state != CAMPAIGN_DRAFT && counts.pinned));
    if (e->over ||
        (e->one.state == CAMPAIGN_RUNNING && !counts.pinned && campaign_has_begun(&e->one, now_ms)))
        return 0;
    campaign_suspension(&e->one, now_ms, &what);
    if (counts.pinned)
        what.until_ms = 0;
    return suspensions_put(suspensions, &what);
}

/* A content that is pinned for a campaign without a record: its creation was cut off, or the record
 * is damaged. */
static void find_orphan(void *arg, const struct msgid *id, const struct queue_tally *tally)
{
    struct campaigns *all = arg;

    if (tally->pinned && campaigns_entry(all, id) == NULL &&
        buf_reserve(&all->orphans, MSGID_BYTES) == 0)
        buf_put(&all->orphans, id->bytes, MSGID_BYTES);
}

/* One that has recipients already is a draft again, under the names that its content has; what was
 * told of addresses is lost. */
static int orphan_open(struct campaigns *all, struct queue *q, const struct msgid *id)
{
    struct campaign one = {.id = *id, .state = CAMPAIGN_DRAFT};
    struct queue_tally counts = {0};
    struct message *m;
    int err = queue_tally_get(q, id, &counts);

    if (err == -EBADMSG) /* it may have */
        counts.counts[TALLY_ADDED] = 1;
    else if (err < 0)
        return err == -ENOENT ? 0 : err;
    if (counts.counts[TALLY_ADDED] == 0 || campaigns_entry(all, id) != NULL)
        return 0;
    m = queue_message(q, id, &err);
    if (m == NULL)
        return err == -ENOENT || err == -EBADMSG ? 0 : err;
    one.priority = m->priority;
    one.created_ms = one.changed_ms = m->created_ms;
    one.expires_ms = m->expires_ms;
    snprintf(one.name, sizeof(one.name), "%.*s", STR_FMT(m->campaign));
    snprintf(one.tenant, sizeof(one.tenant), "%.*s", STR_FMT(m->tenant));
    message_unref(m);
    return campaigns_put(all, &one);
}

static int orphans_open(struct campaigns *all, struct queue *q)
{
    int err = 0;

    for (uint32_t shard = 0; shard < queue_shards(q) && err == 0; shard++)
        err = queue_tally_visit(q, shard, find_orphan, all);
    for (size_t at = 0; at < all->orphans.len && err == 0; at += MSGID_BYTES) {
        struct msgid id;

        memcpy(id.bytes, all->orphans.data + at, MSGID_BYTES);
        err = orphan_open(all, q, &id);
    }
    return err;
}

int campaigns_open(struct campaigns *all, struct queue *q, struct suspensions *suspensions)
{
    struct loading l = {.to = all};
    int err = map_init(&all->by_id, 64);

    if (err == 0)
        err = map_init(&all->by_name, 16);
    if (err < 0)
        return err;
    list_init(&all->in_order);
    list_init(&all->parts);
    pthread_mutex_init(&all->lock, NULL);
    pthread_mutex_init(&all->load_lock, NULL);
    /* The first of a kind: records of campaigns stand in front of those of parts. */
    err = queue_state_visit(q, 0, STATE_CAMPAIGN, load_one, &l);
    if (err == 0)
        err = l.err;
    if (err == 0)
        err = orphans_open(all, q);
    for (struct list_node *n = list_first(&all->in_order); n != NULL && err == 0;
         n = list_next(&all->in_order, n))
        err = entry_open(LIST_ENTRY(n, struct campaign_entry, order), q, suspensions);
    return err;
}

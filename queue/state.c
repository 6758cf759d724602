/* The state tree: (kind, key) -> value, changed in the transactions of rows and records. */
#include <errno.h>
#include <stdlib.h>

#include "queue/shard.h"

int state_read(struct shard *s, MDB_txn *txn, struct str key, struct str *value)
{
    MDB_val k = str_val(key), stored;
    int rc = mdb_get(txn, s->state, &k, &stored);

    if (rc != 0)
        return rc;
    if ((!shard_written(s, &stored) && !shard_readable(s, &stored)) ||
        codec_state_decode(key, val_str(&stored), value) < 0)
        return MDB_NOTFOUND;
    ASSERT(value->len <= stored.mv_size); /* it is a part of what is stored */
    return 0;
}

int state_apply(struct shard *s, MDB_txn *txn, const struct queue_state *state)
{
    MDB_val key = str_val(state->key), value = {STATE_HEAD_BYTES + state->value.len, NULL};
    int rc;

    if (state->key.len < 2 || state->key.len > STATE_KEY_MAX)
        return EINVAL;
    if (state->remove) {
        rc = mdb_del(txn, s->state, &key, NULL);
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    rc = mdb_put(txn, s->state, &key, &value,
                 MDB_RESERVE | (state->if_absent ? MDB_NOOVERWRITE : 0u));
    if (rc == MDB_KEYEXIST)
        return 0;
    ASSERT(rc != 0 || value.mv_size == STATE_HEAD_BYTES + state->value.len);
    if (rc == 0)
        codec_state_encode(value.mv_data, state->key, state->value);
    return rc;
}

int state_remove_range(struct shard *s, MDB_txn *txn, struct queue_states_range *range)
{
    MDB_val key = str_val(range->from), to = str_val(range->to), stored;
    MDB_cursor *at;
    int rc = mdb_cursor_open(txn, s->state, &at);

    ASSERT(range->from.len > 0 && range->to.len > 0 && range->max > 0);
    if (rc != 0)
        return rc;
    range->more = false;
    rc = mdb_cursor_get(at, &key, &stored, MDB_SET_RANGE);
    for (uint32_t n = 0; rc == 0 && mdb_cmp(txn, s->state, &key, &to) < 0; n++) {
        range->more = n == range->max;
        if (range->more)
            break;
        /* What cannot be freed soundly stays for good. */
        if (shard_can_free(s, &stored))
            rc = mdb_cursor_del(at, 0);
        if (rc == 0)
            rc = mdb_cursor_get(at, &key, &stored, MDB_NEXT);
    }
    mdb_cursor_close(at);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int queue_state_get(struct queue *q, uint32_t shard, struct str key, struct buf *out)
{
    struct shard *s = shard_at(q, shard);
    MDB_val k = str_val(key), stored;
    struct str value;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), err;

    if (rc != 0)
        return lmdb_errno(rc);
    rc = mdb_get(txn, s->state, &k, &stored);
    err = lmdb_errno(rc);
    if (rc == 0)
        err = shard_readable(s, &stored) ? codec_state_decode(key, val_str(&stored), &value)
                                         : -EBADMSG;
    if (err == 0)
        err = buf_reserve(out, value.len);
    if (err == 0)
        buf_put_str(out, value);
    mdb_txn_abort(txn);
    return err;
}

static bool is_of_kind(const MDB_val *key, enum state_kind kind)
{
    return key->mv_size > 0 && *(const uint8_t *)key->mv_data == kind;
}

/* The first state of a kind, or MDB_NOTFOUND. The caller closes *at, which is NULL when there is
 * none to close. */
static int first_state(struct shard *s, MDB_txn *txn, enum state_kind kind, MDB_cursor **at,
                       MDB_val *key, MDB_val *stored)
{
    uint8_t first[1] = {(uint8_t)kind};
    int rc;

    *at = NULL;
    *key = (MDB_val){sizeof(first), first};
    rc = mdb_cursor_open(txn, s->state, at);
    if (rc == 0)
        rc = mdb_cursor_get(*at, key, stored, MDB_SET_RANGE);
    return rc == 0 && !is_of_kind(key, kind) ? MDB_NOTFOUND : rc;
}

/* An LMDB code. */
static int visit_states(struct shard *s, MDB_txn *txn, enum state_kind kind,
                        void (*visit)(void *arg, struct str key, struct str value), void *arg)
{
    MDB_val key, stored;
    MDB_cursor *at;
    int rc;

    for (rc = first_state(s, txn, kind, &at, &key, &stored); rc == 0 && is_of_kind(&key, kind);
         rc = mdb_cursor_get(at, &key, &stored, MDB_NEXT)) {
        struct str value = {NULL, 0};

        if (!shard_readable(s, &stored) ||
            codec_state_decode(val_str(&key), val_str(&stored), &value) < 0)
            value = (struct str){NULL, 0};
        visit(arg, val_str(&key), value);
    }
    if (at != NULL)
        mdb_cursor_close(at);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int state_any(struct shard *s, MDB_txn *txn, enum state_kind kind, bool *any)
{
    MDB_val key, stored;
    MDB_cursor *at;
    int rc = first_state(s, txn, kind, &at, &key, &stored);

    *any = rc == 0;
    if (at != NULL)
        mdb_cursor_close(at);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int queue_state_visit(struct queue *q, uint32_t shard, enum state_kind kind,
                      void (*visit)(void *arg, struct str key, struct str value), void *arg)
{
    struct shard *s = shard_at(q, shard);
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return lmdb_errno(rc);
    rc = visit_states(s, txn, kind, visit, arg);
    mdb_txn_abort(txn);
    return lmdb_errno(rc);
}

int queue_state_keys(struct queue *q, uint32_t shard, struct str from, struct str to, size_t max,
                     void (*visit)(void *arg, struct str key), void *arg)
{
    struct shard *s = shard_at(q, shard);
    MDB_val key = str_val(from), stored;
    MDB_cursor *at;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    ASSERT(from.len > 0 && to.len > 0);
    if (rc != 0)
        return lmdb_errno(rc);
    rc = mdb_cursor_open(txn, s->state, &at);
    if (rc == 0) {
        rc = mdb_cursor_get(at, &key, &stored, MDB_SET_RANGE);
        for (; rc == 0 && max > 0 && str_compare(val_str(&key), to) < 0; max--) {
            visit(arg, val_str(&key));
            rc = mdb_cursor_get(at, &key, &stored, MDB_NEXT);
        }
        mdb_cursor_close(at);
    }
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 0 : lmdb_errno(rc);
}

/* --- flows --- */

bool state_flow_stored(const struct shard *s, uint32_t flow)
{
    return flow / 64 < s->own.flows_words && (s->own.flows[flow / 64] >> flow % 64 & 1) != 0;
}

int state_flow_mark(struct shard *s, uint32_t flow)
{
    size_t words = flow / 64 + 1;
    uint64_t *grown;

    ASSERT(flow > 0 && flow < FLOW_IDS);
    if (words > s->own.flows_words) {
        words = words < 2 * s->own.flows_words ? 2 * s->own.flows_words : words;
        grown = realloc(s->own.flows, words * sizeof(*grown));
        if (grown == NULL)
            return -ENOMEM;
        memset(grown + s->own.flows_words, 0, (words - s->own.flows_words) * sizeof(*grown));
        s->own.flows = grown;
        s->own.flows_words = words;
    }
    s->own.flows[flow / 64] |= UINT64_C(1) << flow % 64;
    ASSERT(state_flow_stored(s, flow));
    return 0;
}

void state_flow_unmark(struct shard *s, uint32_t flow)
{
    ASSERT(state_flow_stored(s, flow));
    s->own.flows[flow / 64] &= ~(UINT64_C(1) << flow % 64);
}

struct flow_loader {
    struct shard *shard;
    MDB_txn *txn;
    struct buf unused; /* ids */
};

/* A flow that the shard has rows of. A record that is missing or damaged costs the flow its names,
 * not its mail; its id is not given to another flow, whose mail would come beside those rows. */
static int load_flow(struct flow_loader *l, uint32_t id)
{
    struct flows *flows = &l->shard->queue->flows;
    uint8_t key_bytes[FLOW_KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, stored;
    struct queue_flow flow;
    struct str value;
    int err;

    if (id == 0 || id >= FLOW_IDS || state_flow_stored(l->shard, id))
        return 0;
    err = state_flow_mark(l->shard, id); /* a damaged record stays too */
    if (err < 0)
        return err;
    codec_flow_key(key_bytes, id);
    if (mdb_get(l->txn, l->shard->state, &key, &stored) != 0 ||
        !shard_readable(l->shard, &stored) ||
        codec_state_decode(val_str(&key), val_str(&stored), &value) < 0 ||
        codec_flow_decode(val_str(&key), value, &flow) < 0)
        return flows_reserve(flows, id);
    err = flows_add(flows, &flow);
    return err == -EBADMSG ? flows_reserve(flows, id) : err;
}

/* All flows of a class of rows: from each to the first row of the next. A negative errno. */
static int load_class(struct flow_loader *l, MDB_cursor *rows, enum row_class class)
{
    uint8_t bytes[ROW_KEY_MAX];
    uint32_t flow = 0;
    MDB_val key, value;
    int rc, err;

    for (;; flow++) {
        (void)codec_row_prefix(bytes, class, flow, STR(""));
        key = (MDB_val){ROW_KEY_HEAD, bytes};
        rc = mdb_cursor_get(rows, &key, &value, MDB_SET_RANGE);
        if (rc == MDB_NOTFOUND)
            return 0;
        if (rc != 0)
            return lmdb_errno(rc);
        if (key.mv_size < ROW_KEY_HEAD || *(const uint8_t *)key.mv_data != class)
            return 0;
        flow = codec_row_key_flow(val_str(&key));
        err = load_flow(l, flow);
        if (err < 0 || flow == UINT32_MAX)
            return err;
    }
}

static void find_unused(void *arg, struct str key, struct str value)
{
    struct flow_loader *l = arg;
    uint32_t id = key.len == FLOW_KEY_BYTES ? codec_row_key_flow(key) : 0;

    (void)value;
    if (key.len == FLOW_KEY_BYTES && !state_flow_stored(l->shard, id))
        buf_put(&l->unused, &id, sizeof(id));
}

/* Flows without rows go. On a full disk they stay: the queue is opened all the same. */
static void forget_unused(struct flow_loader *l)
{
    int rc = 0;

    for (size_t at = 0; at < l->unused.len && rc == 0; at += sizeof(uint32_t)) {
        uint8_t key[FLOW_KEY_BYTES];
        uint32_t id;

        memcpy(&id, l->unused.data + at, sizeof(id));
        codec_flow_key(key, id);
        rc = state_apply(l->shard, l->txn,
                         &(struct queue_state){.key = {(char *)key, sizeof(key)}, .remove = true});
    }
    if (rc == 0 && l->unused.len > 0)
        rc = mdb_txn_commit(l->txn);
    else
        mdb_txn_abort(l->txn);
}

int state_load_flows(struct shard *s)
{
    struct flow_loader l = {.shard = s};
    MDB_cursor *rows;
    int rc = mdb_txn_begin(s->env, NULL, 0, &l.txn), err;

    if (rc != 0)
        return lmdb_errno(rc);
    err = lmdb_errno(mdb_cursor_open(l.txn, s->rows, &rows));
    if (err == 0)
        err = load_class(&l, rows, ROW_FRESH);
    if (err == 0)
        err = load_class(&l, rows, ROW_LATER);
    if (err == 0)
        err = lmdb_errno(visit_states(s, l.txn, STATE_FLOW, find_unused, &l));
    if (err == 0)
        forget_unused(&l);
    else
        mdb_txn_abort(l.txn);
    buf_done(&l.unused);
    return err;
}

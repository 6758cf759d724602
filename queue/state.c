/* The state tree: (kind, key) -> value, changed in the transactions of rows and records. */
#include <errno.h>
#include <stdlib.h>

#include "queue/shard.h"

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
    rc = mdb_put(txn, s->state, &key, &value, MDB_RESERVE);
    if (rc == 0)
        codec_state_encode(value.mv_data, state->key, state->value);
    return rc;
}

int queue_state_get(struct queue *q, uint32_t shard, struct str key, struct buf *out)
{
    struct shard *s = q->shards[shard];
    MDB_val k = str_val(key), stored;
    struct str value;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), err;

    ASSERT(shard < q->shards_len);
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

/* An LMDB code. */
static int visit_states(struct shard *s, MDB_txn *txn, enum state_kind kind,
                        void (*visit)(void *arg, struct str key, struct str value), void *arg)
{
    uint8_t first[1] = {(uint8_t)kind};
    MDB_val key = {sizeof(first), first}, stored;
    MDB_cursor *at;
    int rc = mdb_cursor_open(txn, s->state, &at);

    if (rc != 0)
        return rc;
    for (rc = mdb_cursor_get(at, &key, &stored, MDB_SET_RANGE);
         rc == 0 && key.mv_size > 0 && *(uint8_t *)key.mv_data == first[0];
         rc = mdb_cursor_get(at, &key, &stored, MDB_NEXT)) {
        struct str value = {NULL, 0};

        if (!shard_readable(s, &stored) ||
            codec_state_decode(val_str(&key), val_str(&stored), &value) < 0)
            value = (struct str){NULL, 0};
        visit(arg, val_str(&key), value);
    }
    mdb_cursor_close(at);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int queue_state_visit(struct queue *q, uint32_t shard, enum state_kind kind,
                      void (*visit)(void *arg, struct str key, struct str value), void *arg)
{
    struct shard *s = q->shards[shard];
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    ASSERT(shard < q->shards_len);
    if (rc != 0)
        return lmdb_errno(rc);
    rc = visit_states(s, txn, kind, visit, arg);
    mdb_txn_abort(txn);
    return lmdb_errno(rc);
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
    MDB_cursor *rows;
    struct buf unused; /* ids */
    int err;
};

/* Whether the shard has rows of the flow. */
static bool flow_has_rows(const struct flow_loader *l, uint32_t flow)
{
    static const enum row_class classes[] = {ROW_FRESH, ROW_LATER};
    uint8_t bytes[ROW_KEY_MAX];
    MDB_val key, value;

    for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
        (void)codec_row_prefix(bytes, classes[i], flow, STR(""));
        key = (MDB_val){ROW_KEY_HEAD, bytes};
        if (mdb_cursor_get(l->rows, &key, &value, MDB_SET_RANGE) == 0 &&
            key.mv_size >= ROW_KEY_HEAD && memcmp(key.mv_data, bytes, ROW_KEY_HEAD) == 0)
            return true;
    }
    return false;
}

/* A record that is damaged costs the flow its names, not its mail. */
static void load_flow(void *arg, struct str key, struct str value)
{
    struct flow_loader *l = arg;
    struct queue_flow flow;
    int err;

    if (value.ptr == NULL || codec_flow_decode(key, value, &flow) < 0)
        return;
    if (!flow_has_rows(l, flow.id)) {
        buf_put(&l->unused, &flow.id, sizeof(flow.id));
        return;
    }
    err = flows_add(&l->shard->queue->flows, &flow);
    if (err == 0)
        err = state_flow_mark(l->shard, flow.id);
    if (err == -ENOMEM)
        l->err = err;
}

static int forget_unused(struct flow_loader *l)
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
    return rc;
}

int state_load_flows(struct shard *s)
{
    struct flow_loader l = {.shard = s};
    int rc = mdb_txn_begin(s->env, NULL, 0, &l.txn);

    if (rc != 0)
        return lmdb_errno(rc);
    rc = mdb_cursor_open(l.txn, s->rows, &l.rows);
    if (rc == 0)
        rc = visit_states(s, l.txn, STATE_FLOW, load_flow, &l);
    if (rc == 0)
        rc = forget_unused(&l);
    if (rc == 0 && l.unused.len > 0)
        rc = mdb_txn_commit(l.txn);
    else
        mdb_txn_abort(l.txn);
    buf_done(&l.unused);
    return rc != 0 ? lmdb_errno(rc) : l.err;
}

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

int queue_state_visit(struct queue *q, uint32_t shard, enum state_kind kind,
                      void (*visit)(void *arg, struct str key, struct str value), void *arg)
{
    struct shard *s = q->shards[shard];
    uint8_t first[1] = {(uint8_t)kind};
    MDB_val key = {sizeof(first), first}, stored;
    MDB_cursor *at = NULL;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    ASSERT(shard < q->shards_len);
    if (rc != 0)
        return lmdb_errno(rc);
    rc = mdb_cursor_open(txn, s->state, &at);
    if (rc == 0)
        rc = mdb_cursor_get(at, &key, &stored, MDB_SET_RANGE);
    for (; rc == 0 && key.mv_size > 0 && *(uint8_t *)key.mv_data == first[0];
         rc = mdb_cursor_get(at, &key, &stored, MDB_NEXT)) {
        struct str value = {NULL, 0};

        if (!shard_readable(s, &stored) ||
            codec_state_decode(val_str(&key), val_str(&stored), &value) < 0)
            value = (struct str){NULL, 0};
        visit(arg, val_str(&key), value);
    }
    if (at != NULL)
        mdb_cursor_close(at);
    mdb_txn_abort(txn);
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : lmdb_errno(rc);
}

/* --- flows --- */

bool state_flow_stored(const struct shard *s, uint32_t flow)
{
    return flow / 64 < s->own.flows_words && (s->own.flows[flow / 64] >> flow % 64 & 1) != 0;
}

int state_flow_mark(struct shard *s, uint32_t flow, bool stored)
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
    if (stored)
        s->own.flows[flow / 64] |= UINT64_C(1) << flow % 64;
    else
        s->own.flows[flow / 64] &= ~(UINT64_C(1) << flow % 64);
    return 0;
}

struct flow_loader {
    struct shard *shard;
    int err;
};

/* A record that is damaged costs the flow its names, not its mail. */
static void load_flow(void *arg, struct str key, struct str value)
{
    struct flow_loader *l = arg;
    struct queue_flow flow;
    int err;

    if (value.ptr == NULL || codec_flow_decode(key, value, &flow) < 0)
        return;
    err = flows_add(&l->shard->queue->flows, &flow);
    if (err == 0)
        err = state_flow_mark(l->shard, flow.id, true);
    if (err == -ENOMEM)
        l->err = err;
}

int state_load_flows(struct shard *s)
{
    struct flow_loader l = {.shard = s};
    int err = queue_state_visit(s->queue, s->index, STATE_FLOW, load_flow, &l);

    return err < 0 ? err : l.err;
}

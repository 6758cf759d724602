#include "queue/tally.h"

#include <errno.h>

#include "queue/batch.h"

void queue_tally_key(uint8_t out[TALLY_KEY_BYTES], const struct msgid *id)
{
    out[0] = STATE_TALLY;
    memcpy(out + 1, id->bytes, MSGID_BYTES);
}

/* Reads a tally in a write transaction. MDB_NOTFOUND: there is none, or it is damaged: then nothing
 * is counted any more. */
static int tally_get(struct batch *b, const struct msgid *id, struct queue_tally *out)
{
    uint8_t key[TALLY_KEY_BYTES];
    struct str value;
    int rc;

    queue_tally_key(key, id);
    rc = state_read(b->shard, b->txn, (struct str){(char *)key, sizeof(key)}, &value);
    if (rc == 0 && codec_tally_decode(value, out) < 0)
        rc = MDB_NOTFOUND;
    return rc;
}

static int tally_put(struct batch *b, const struct msgid *id, const struct queue_tally *tally)
{
    uint8_t key[TALLY_KEY_BYTES], value[TALLY_VALUE_BYTES];

    queue_tally_key(key, id);
    codec_tally_encode(value, tally);
    return state_apply(b->shard, b->txn,
                       &(struct queue_state){.key = {(char *)key, sizeof(key)},
                                             .value = {(char *)value, sizeof(value)}});
}

int batch_tally_count(struct batch *b, const struct msgid *id,
                      const uint64_t counts[TALLY_COUNTS - 1])
{
    struct queue_tally tally;
    int rc = tally_get(b, id, &tally);

    if (rc != 0)
        return rc;
    for (int i = TALLY_NONE + 1; i < TALLY_COUNTS; i++)
        tally.counts[i] += counts[i - 1];
    return tally_put(b, id, &tally);
}

int batch_tally_pin(struct batch *b, const struct msgid *id)
{
    return tally_put(b, id, &(struct queue_tally){.pinned = true});
}

int batch_tally_unpin(struct batch *b, const struct msgid *id, bool *was)
{
    struct queue_tally tally = {0};
    int rc = tally_get(b, id, &tally);

    *was = tally.pinned;
    if (rc != 0 || !tally.pinned)
        return rc == MDB_NOTFOUND ? 0 : rc;
    tally.pinned = false;
    return tally_put(b, id, &tally);
}

int queue_tally_add(struct queue *q, uint32_t shard, const struct msgid *id,
                    struct queue_tally *out)
{
    uint8_t key[TALLY_KEY_BYTES];
    struct queue_tally one;
    struct buf value = {0};
    int err;

    queue_tally_key(key, id);
    err = queue_state_get(q, shard, (struct str){(char *)key, sizeof(key)}, &value);
    if (err == 0)
        err = codec_tally_decode(buf_str(&value), &one);
    buf_done(&value);
    if (err < 0)
        return err == -EPROTO ? -EBADMSG : err;
    out->pinned |= one.pinned;
    for (int i = 0; i < TALLY_COUNTS; i++)
        out->counts[i] += one.counts[i];
    return 0;
}

int queue_tally_get(struct queue *q, const struct msgid *id, struct queue_tally *out)
{
    struct queue_tally sum = {0};
    bool found = false;

    for (uint32_t shard = 0; shard < queue_shards(q); shard++) {
        int err = queue_tally_add(q, shard, id, &sum);

        if (err < 0 && err != -ENOENT)
            return err;
        found |= err == 0;
    }
    if (!found)
        return -ENOENT;
    *out = sum;
    return 0;
}

struct visiting {
    void (*visit)(void *arg, const struct msgid *id, const struct queue_tally *tally);
    void *arg;
};

static void visit_one(void *arg, struct str key, struct str value)
{
    const struct visiting *v = arg;
    struct queue_tally tally;
    struct msgid id;

    if (key.len != TALLY_KEY_BYTES || codec_tally_decode(value, &tally) < 0)
        return;
    memcpy(id.bytes, key.ptr + 1, MSGID_BYTES);
    v->visit(v->arg, &id, &tally);
}

int queue_tally_visit(struct queue *q, uint32_t shard,
                      void (*visit)(void *arg, const struct msgid *id,
                                    const struct queue_tally *tally),
                      void *arg)
{
    struct visiting v = {visit, arg};

    return queue_state_visit(q, shard, STATE_TALLY, visit_one, &v);
}

#include "queue/quarantine.h"

#include <errno.h>

#include "queue/shard.h"

#define KEY_MAX (1 + ROW_KEY_MAX)

int quarantine_put(MDB_txn *txn, MDB_dbi quarantine, enum quarantine_tree tree, struct str key,
                   struct str value, const char *reason)
{
    size_t reason_len = strlen(reason);
    uint8_t key_bytes[KEY_MAX], *at;
    MDB_val k = {1 + key.len, key_bytes}, v = {1 + reason_len + value.len, NULL};
    int rc;

    ASSERT(reason_len <= UINT8_MAX); /* a byte says its length */
    ASSERT(tree == QUARANTINE_ROWS || tree == QUARANTINE_OUTBOX);
    if (key.len > ROW_KEY_MAX) {
        key.len = ROW_KEY_MAX;
        k.mv_size = KEY_MAX;
    }
    key_bytes[0] = (uint8_t)tree;
    memcpy(key_bytes + 1, key.ptr, key.len);
    rc = mdb_put(txn, quarantine, &k, &v, MDB_RESERVE);
    if (rc != 0)
        return rc;
    at = v.mv_data;
    *at++ = (uint8_t)reason_len;
    memcpy(at, reason, reason_len);
    ASSERT(at + reason_len + value.len == (uint8_t *)v.mv_data + v.mv_size);
    memcpy(at + reason_len, value.ptr, value.len);
    return 0;
}

/* What the key tells. */
static void describe_key(const struct shard *s, struct str key, struct str reason,
                         struct queue_quarantined *out)
{
    struct str row_key = {key.ptr + 1, key.len - 1};
    struct row_key row;

    ASSERT(key.len >= 1 && key.len <= KEY_MAX);
    *out = (struct queue_quarantined){
        .shard = s->index,
        .hash = hash_bytes(key.ptr, key.len, 0),
        .tree = key.ptr[0] == QUARANTINE_ROWS ? "rows" : "outbox",
        .key = key,
        .reason = reason,
        .is_row = key.ptr[0] == QUARANTINE_ROWS && codec_row_key_parse(row_key, &row),
    };
    if (!out->is_row)
        return;
    out->queue = row.queue;
    out->id = row.id;
    out->index = row.index;
}

void quarantine_tell(const struct shard *s, struct str row_key, const char *reason)
{
    const struct queue_options *o = &s->options;
    struct queue_quarantined record;
    char key[KEY_MAX] = {QUARANTINE_ROWS};
    size_t len = row_key.len < ROW_KEY_MAX ? row_key.len : ROW_KEY_MAX;

    ASSERT(reason != NULL && *reason != 0);
    if (o->on_quarantined == NULL)
        return;
    memcpy(key + 1, row_key.ptr, len);
    describe_key(s, (struct str){key, 1 + len}, str_of(reason), &record);
    o->on_quarantined(o->on_quarantined_arg, &record);
}

/* False: the entry itself is damaged. */
static bool describe(struct shard *s, MDB_txn *txn, struct str key, struct str entry,
                     struct queue_quarantined *out, struct message *header)
{
    size_t reason_len = entry.len == 0 ? 0 : (uint8_t)entry.ptr[0];
    struct str row_key = {key.ptr + 1, key.len - 1};
    struct row_state state;

    if (key.len < 1 || entry.len < 1 + reason_len)
        return false;
    describe_key(s, key, (struct str){entry.ptr + 1, reason_len}, out);
    out->value = (struct str){entry.ptr + 1 + reason_len, entry.len - 1 - reason_len};
    if (!out->is_row)
        return true;
    if (codec_row_decode(row_key, out->value, &state) == 0)
        out->address = state.address;
    if (read_header(s, txn, &out->id, header, &out->content_bytes) == 0)
        out->header = header;
    return true;
}

int queue_quarantine_visit(struct queue *q, uint32_t shard, struct queue_cursor *cursor,
                           uint32_t records_max,
                           bool (*visit)(void *arg, const struct queue_quarantined *record),
                           void *arg)
{
    struct shard *s = shard_at(q, shard);
    struct queue_quarantined record;
    struct message header = {0};
    MDB_cursor *at = NULL;
    MDB_val key, value;
    MDB_txn *txn;
    bool go_on = true;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return lmdb_errno(rc);
    rc = mdb_cursor_open(txn, s->quarantine, &at);
    if (rc == 0)
        rc = cursor_seek(at, cursor, &key, &value);
    for (; rc == 0 && go_on && records_max > 0; records_max--) {
        if (describe(s, txn, val_str(&key), val_str(&value), &record, &header))
            go_on = visit(arg, &record);
        cursor_set(cursor, val_str(&key));
        rc = mdb_cursor_get(at, &key, &value, MDB_NEXT);
    }
    if (at != NULL)
        mdb_cursor_close(at);
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 1 : lmdb_errno(rc);
}

#include "queue/quarantine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "queue/shard.h"

#define KEY_MAX      (1 + ROW_KEY_MAX)
#define KEY_TEXT_MAX (3 * KEY_MAX)

int quarantine_put(MDB_txn *txn, MDB_dbi quarantine, enum quarantine_tree tree, struct str key,
                   struct str value, const char *reason)
{
    size_t reason_len = strlen(reason);
    uint8_t key_bytes[KEY_MAX], *at;
    MDB_val k = {1 + key.len, key_bytes}, v = {1 + reason_len + value.len, NULL};
    int rc;

    ASSERT(reason_len <= UINT8_MAX);
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
    memcpy(at + reason_len, value.ptr, value.len);
    return 0;
}

/* "example.org p5 due 1700000000000 id 0190... #0", or hex for what is no row key. */
static struct str key_text(char out[KEY_TEXT_MAX], struct str key)
{
    char id[MSGID_TEXT_BYTES];
    struct row_key row;
    size_t len = 0;

    if (codec_row_key_parse(key, &row)) {
        msgid_text(&row.id, id);
        len = (size_t)snprintf(out, KEY_TEXT_MAX, "%.*s p%u due %" PRId64 " id %s #%" PRIu32,
                               STR_FMT(row.queue), row.priority, row.due_ms, id, row.index);
        return (struct str){out, len};
    }
    for (size_t i = 0; i < key.len; i++)
        len += (size_t)snprintf(out + len, KEY_TEXT_MAX - len, "%02x", (unsigned char)key.ptr[i]);
    return (struct str){out, len};
}

static int visit_shard(struct shard *s,
                       bool (*visit)(void *arg, uint32_t shard, const char *tree, struct str key,
                                     struct str reason),
                       void *arg, bool *go_on)
{
    char text[KEY_TEXT_MAX];
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return lmdb_errno(rc);
    rc = mdb_cursor_open(txn, s->quarantine, &cursor);
    while (rc == 0 && *go_on && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        const uint8_t *k = key.mv_data, *v = value.mv_data;
        size_t reason_len = value.mv_size == 0 ? 0 : v[0];

        if (key.mv_size < 1 || reason_len + 1 > value.mv_size)
            continue;
        *go_on = visit(arg, s->index, k[0] == QUARANTINE_ROWS ? "rows" : "outbox",
                       key_text(text, (struct str){(const char *)k + 1, key.mv_size - 1}),
                       (struct str){(const char *)v + 1, reason_len});
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 0 : lmdb_errno(rc);
}

int queue_quarantine_visit(struct queue *q,
                           bool (*visit)(void *arg, uint32_t shard, const char *tree,
                                         struct str key, struct str reason),
                           void *arg)
{
    bool go_on = true;
    int err = 0;

    for (uint32_t i = 0; i < q->shards_len && go_on && err == 0; i++)
        err = visit_shard(q->shards[i], visit, arg, &go_on);
    return err;
}

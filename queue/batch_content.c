/* What a transaction writes of contents. */
#include <errno.h>
#include <stdlib.h>

#include "queue/batch.h"

/* All pieces of a content, however many there are. What cannot be freed soundly stays for good. */
int batch_delete_pages(struct batch *b, const struct msgid *id)
{
    uint8_t key_bytes[PAGE_KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, value;
    int rc;

    codec_page_key(key_bytes, id, 0);
    rc = mdb_cursor_get(b->pages, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && codec_page_key_of(val_str(&key), id)) {
        if (shard_can_free(b->shard, &value))
            rc = mdb_cursor_del(b->pages, 0);
        if (rc == 0)
            rc = mdb_cursor_get(b->pages, &key, &value, MDB_NEXT);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int batch_delete_content(struct batch *b, const struct msgid *id)
{
    MDB_val key = {MSGID_BYTES, (void *)id->bytes}, value;
    int rc = mdb_cursor_get(b->content, &key, &value, MDB_SET);
    bool found = rc == 0, kept = false;

    if (found && shard_can_free(b->shard, &value))
        rc = mdb_cursor_del(b->content, 0);
    if (found && rc == 0)
        rc = batch_remains_keep(b, id, &kept);
    return (rc == 0 || rc == MDB_NOTFOUND) && !kept ? batch_delete_pages(b, id) : rc;
}

int batch_put_pages(struct batch *b, const struct message *m)
{
    struct content_layout l = codec_content_layout(m, b->shard->page_bytes);
    uint8_t key_bytes[PAGE_KEY_BYTES];
    const uint8_t *at = m->content;
    int rc = 0;

    for (uint32_t i = 0; i < l.pieces && rc == 0; i++) {
        MDB_val key = {sizeof(key_bytes), key_bytes};
        MDB_val value = {content_piece_bytes(&l, m->content_len, i), NULL};

        codec_page_key(key_bytes, &m->id, i);
        rc = mdb_cursor_put(b->pages, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);
        ASSERT(value.mv_size > 0 && value.mv_size <= (size_t)(m->content + m->content_len - at));
        if (rc == 0) {
            memcpy(value.mv_data, at, value.mv_size);
            holes_note(b->shard, &value);
            if (i == 0)
                batch_remains_put(b, &value);
        }
        at += value.mv_size;
    }
    ASSERT(rc != 0 || at == m->content + (m->content_len - l.tail_bytes));
    return rc;
}

int batch_put_head(struct batch *b, const struct message *m, bool prepared)
{
    struct content_layout l = codec_content_layout(m, b->shard->page_bytes);
    MDB_val key = {MSGID_BYTES, (void *)m->id.bytes}, value = {l.head_bytes + l.tail_bytes, NULL};
    int rc = mdb_cursor_put(b->content, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);

    ASSERT((m->flags & ~MESSAGE_FLAGS) == 0 && m->priority < FLOW_PRIORITIES);
    if (rc == 0) {
        ASSERT(value.mv_size == l.head_bytes + l.tail_bytes);
        codec_content_encode(value.mv_data, m, &l, prepared);
        holes_note(b->shard, &value);
    }
    if (rc == 0 && (m->flags & MESSAGE_RECIPE) != 0)
        rc = shard_need(b->shard, b->txn, FORMAT_NEEDS_RECIPES);
    return rc;
}

/* Changes a head in place: edit(id, value, len, created_ms). What is damaged is left for the loader
 * to find. */
static int edit_head(struct batch *b, const struct msgid *id, int64_t created_ms,
                     int (*edit)(const struct msgid *id, uint8_t *value, size_t len,
                                 int64_t created_ms))
{
    MDB_val key = {MSGID_BYTES, (void *)(uintptr_t)id->bytes}, value, again;
    int rc = mdb_cursor_get(b->content, &key, &value, MDB_SET);
    uint8_t *copy;

    if (rc != 0 || !shard_can_free(b->shard, &value))
        return rc == MDB_NOTFOUND ? 0 : rc;
    copy = malloc(value.mv_size);
    if (copy == NULL)
        return ENOMEM;
    memcpy(copy, value.mv_data, value.mv_size);
    if (edit(id, copy, value.mv_size, created_ms) == 0) {
        again = (MDB_val){value.mv_size, copy};
        rc = mdb_cursor_put(b->content, &key, &again, 0);
    }
    free(copy);
    return rc;
}

static int edit_whole(const struct msgid *id, uint8_t *value, size_t len, int64_t created_ms)
{
    (void)created_ms;
    return codec_content_whole(id, value, len);
}

int batch_content_whole(struct batch *b, const struct msgid *id)
{
    return edit_head(b, id, 0, edit_whole);
}

int batch_content_recreate(struct batch *b, const struct msgid *id, int64_t created_ms)
{
    return edit_head(b, id, created_ms, codec_content_recreate);
}

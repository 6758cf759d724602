/* For tests: whether what a queue stores hangs together. Header only. Each shard is read in one
 * transaction of its own, so that threads may go on. */
#ifndef HAYAUMA_QUEUE_TESTKIT_FSCK_H
#define HAYAUMA_QUEUE_TESTKIT_FSCK_H

#include <stdio.h>
#include <stdlib.h>

#include "queue/quarantine.h"
#include "queue/shard.h"

struct fsck_content {
    struct map_node node;
    struct msgid id;
    bool stored, prepared;
    bool kept; /* its pieces may be there without it: remains.h */
    uint32_t recipients;
    uint64_t rows, refs, pieces;
};

struct fsck {
    struct shard *shard;
    MDB_txn *txn;
    struct map contents;
    uint64_t pins;     /* out: contents with one reference more than rows */
    uint64_t prepared; /* out: contents that are no mail yet */
    char wrong[256];   /* out: the first fault; empty: none */
};

static inline void fsck_fault(struct fsck *f, const struct msgid *id, const char *what)
{
    char text[MSGID_TEXT_BYTES] = "-";

    if (id != NULL)
        msgid_text(id, text);
    if (f->wrong[0] == 0)
        snprintf(f->wrong, sizeof(f->wrong), "shard %u, message %s: %s", f->shard->index, text,
                 what);
}

static inline struct fsck_content *fsck_content(struct fsck *f, const struct msgid *id)
{
    uint64_t hash = hash_bytes(id->bytes, MSGID_BYTES, 0);
    struct fsck_content *c;

    for (struct map_node *n = map_find(&f->contents, hash); n != NULL; n = map_find_next(n)) {
        c = CONTAINER_OF(n, struct fsck_content, node);
        if (memcmp(&c->id, id, sizeof(*id)) == 0)
            return c;
    }
    c = calloc(1, sizeof(*c));
    ASSERT(c != NULL);
    c->id = *id;
    map_insert(&f->contents, &c->node, hash);
    return c;
}

static inline void fsck_flow(struct fsck *f, const struct row_key *row)
{
    uint8_t bytes[FLOW_KEY_BYTES];
    MDB_val key = {sizeof(bytes), bytes}, stored;
    struct queue_flow flow;
    struct str value;

    if (row->flow == 0)
        return;
    codec_flow_key(bytes, row->flow);
    if (mdb_get(f->txn, f->shard->state, &key, &stored) != 0 ||
        codec_state_decode(val_str(&key), val_str(&stored), &value) < 0 ||
        codec_flow_decode(val_str(&key), value, &flow) < 0)
        fsck_fault(f, &row->id, "a row whose flow has no record");
}

static inline void fsck_row(struct fsck *f, struct str key, struct str value)
{
    struct row_state state;
    struct row_key row;

    if (!codec_row_key_parse(key, &row) || codec_row_decode(key, value, &state) < 0) {
        fsck_fault(f, NULL, "a row is damaged");
        return;
    }
    fsck_content(f, &row.id)->rows++;
    fsck_flow(f, &row);
}

static inline void fsck_quarantined(struct fsck *f, struct str key, struct str value)
{
    struct row_key row;

    (void)value;
    if (key.ptr[0] == QUARANTINE_ROWS &&
        codec_row_key_parse((struct str){key.ptr + 1, key.len - 1}, &row))
        fsck_content(f, &row.id)->rows++;
}

static inline void fsck_head(struct fsck *f, struct str key, struct str value)
{
    struct fsck_content *c = fsck_content(f, (const struct msgid *)(const void *)key.ptr);
    struct content_record record;
    struct message fields, *m;
    int err = codec_content_decode(&c->id, value, &fields, &record);

    c->stored = true;
    if (err < 0) {
        fsck_fault(f, &c->id, "its head is damaged");
        return;
    }
    c->prepared = record.prepared;
    c->recipients = fields.recipients;
    f->prepared += record.prepared;
    if (record.prepared)
        return;
    m = read_message(f->shard, f->txn, &c->id, &err);
    if (m == NULL)
        fsck_fault(f, &c->id, "its content is damaged");
    message_unref(m);
}

static inline void fsck_piece(struct fsck *f, struct str key, struct str value)
{
    (void)value;
    fsck_content(f, (const struct msgid *)(const void *)key.ptr)->pieces++;
}

static inline void fsck_refs(struct fsck *f, struct str key, struct str value)
{
    struct fsck_content *c = fsck_content(f, (const struct msgid *)(const void *)key.ptr);

    if (codec_refs_decode(&c->id, value, &c->refs) < 0 || c->refs == 0)
        fsck_fault(f, &c->id, "its count of rows is damaged");
}

static inline void fsck_state(struct fsck *f, struct str key, struct str stored)
{
    struct sheet sheet;
    struct str value;

    if (codec_state_decode(key, stored, &value) < 0)
        fsck_fault(f, NULL, "a state is damaged");
    else if (key.ptr[0] == STATE_REMAINS)
        for (size_t at = 0; at + MSGID_BYTES <= value.len; at += MSGID_BYTES)
            fsck_content(f, (const struct msgid *)(const void *)(value.ptr + at))->kept = true;
    else if (key.ptr[0] == STATE_SHEET && sheet_decode(value, &sheet) < 0)
        fsck_fault(f, NULL, "a sheet is damaged");
}

static inline void fsck_walk(struct fsck *f, MDB_dbi tree,
                             void (*look)(struct fsck *f, struct str key, struct str value))
{
    MDB_val key, value;
    MDB_cursor *at;
    int rc = mdb_cursor_open(f->txn, tree, &at);

    ASSERT(rc == 0);
    while ((rc = mdb_cursor_get(at, &key, &value, MDB_NEXT)) == 0)
        look(f, val_str(&key), val_str(&value));
    if (rc != MDB_NOTFOUND)
        fsck_fault(f, NULL, "a tree cannot be read");
    mdb_cursor_close(at);
}

/* A content of one recipient has no count of rows. */
static inline void fsck_compare(struct fsck *f, const struct fsck_content *c)
{
    uint64_t refs = c->recipients == 1 ? 1 : c->refs;

    if (!c->stored && (c->rows > 0 || c->refs > 0))
        fsck_fault(f, &c->id, "rows without content");
    else if (c->stored && c->kept)
        fsck_fault(f, &c->id, "pieces are kept, and its message is here");
    else if (!c->stored && !c->kept)
        fsck_fault(f, &c->id, "pieces of a content that has gone");
    else if (c->recipients == 1 && c->refs != 0)
        fsck_fault(f, &c->id, "a count of rows of a message of one recipient");
    else if (refs == c->rows + 1 && c->recipients == 0)
        f->pins++;
    else if (refs != c->rows)
        fsck_fault(f, &c->id, c->rows == 0 ? "content without rows" : "a wrong count of rows");
}

/* NULL, or what is wrong with a shard. pins and prepared are added to. */
static inline const char *fsck_shard(struct queue *q, uint32_t shard, uint64_t *pins,
                                     uint64_t *prepared)
{
    static char wrong[256];
    struct shard *s = q->shards[shard];
    struct fsck f = {.shard = s};
    struct map_node *n;
    size_t bucket = 0;

    ASSERT(map_init(&f.contents, 1024) == 0 &&
           mdb_txn_begin(s->env, NULL, MDB_RDONLY, &f.txn) == 0);
    fsck_walk(&f, s->content, fsck_head);
    fsck_walk(&f, s->pages, fsck_piece);
    fsck_walk(&f, s->rows, fsck_row);
    fsck_walk(&f, s->quarantine, fsck_quarantined);
    fsck_walk(&f, s->refs, fsck_refs);
    fsck_walk(&f, s->state, fsck_state);
    mdb_txn_abort(f.txn);
    while ((n = map_walk(&f.contents, &bucket, NULL)) != NULL) {
        struct fsck_content *c = CONTAINER_OF(n, struct fsck_content, node);

        fsck_compare(&f, c);
        map_remove(&f.contents, n);
        free(c);
    }
    map_done(&f.contents);
    *pins += f.pins;
    *prepared += f.prepared;
    memcpy(wrong, f.wrong, sizeof(wrong));
    return wrong[0] == 0 ? NULL : wrong;
}

#endif

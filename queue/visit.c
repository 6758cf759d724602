/* Introspection: reads for other threads than workers, in short read transactions. */
#include <errno.h>

#include "queue/shard.h"

#define VISIT_SLICE_ROWS 1000

struct visitor {
    struct shard *shard;
    struct queue_cursor *cursor;
    const struct queue_visit *what;
    uint32_t rows_left;
    bool stopped;
    /* The header that was read last is kept: neighbouring rows are often of one message. */
    MDB_txn *txn;
    struct message header; /* strings into the map */
    bool header_read;
    int header_err;
    bool undecided;                  /* the shard has contents that are prepared only */
    uint8_t behind[ROW_KEY_MAX + 1]; /* of a visit of heads: the key behind the last lane's rows */
};

/* Header fields of a row's message. As read_header(). */
static int find_header(struct visitor *v, const struct msgid *id)
{
    uint64_t bytes;

    if (v->header_read && memcmp(&v->header.id, id, sizeof(*id)) == 0)
        return v->header_err;
    v->header_err = read_header(v->shard, v->txn, id, &v->header, &bytes);
    v->header_read = v->header_err == 0 || v->header_err == -EAGAIN;
    return v->header_err;
}

static void visit_row(struct visitor *v, struct str key, const MDB_val *value)
{
    const struct queue_flow *flow;
    struct queue_row_view view;
    struct row_state state;
    struct row_key row;

    ASSERT(!v->stopped && v->rows_left > 0);
    if (!codec_row_key_parse(key, &row)) {
        shard_suspect(v->shard, key, "row key is damaged");
        return;
    }
    /* A damaged row is the loader's to judge when its turn comes; here it is only left out. */
    if (!shard_readable(v->shard, value) || codec_row_decode(key, val_str(value), &state) < 0)
        return;
    if (v->undecided && find_header(v, &row.id) == -EAGAIN)
        return;
    flow = queue_flow_find(v->shard->queue, row.flow);
    view = (struct queue_row_view){
        .flow = row.flow,
        .queue = row.queue,
        .id = row.id,
        .index = row.index,
        .priority = flow == NULL ? PRIORITY_DEFAULT : flow->priority,
        .due_ms = row.due_ms,
        .last_attempt_ms = state.last_attempt_ms,
        .lifetime_s = state.lifetime_s,
        .attempts = state.attempts,
        .flags = state.flags,
        .address = state.address,
        .last_error = state.last_error,
        .variables = state.variables,
    };
    view.expires_ms = msgid_ms(&row.id) + (int64_t)state.lifetime_s * 1000;
    if (!v->what->need_message && view.expires_ms <= v->what->ripe_ms &&
        find_header(v, &row.id) == 0)
        view.expires_ms = message_expires_ms(&v->header, state.lifetime_s);
    if (v->what->need_message && find_header(v, &row.id) == 0) {
        view.created_ms = v->header.created_ms;
        view.expires_ms = message_expires_ms(&v->header, state.lifetime_s);
        view.sender = v->header.sender;
        view.campaign = v->header.campaign;
        view.tenant = v->header.tenant;
        view.size = v->header.content_len;
        view.recipe = (v->header.flags & MESSAGE_RECIPE) != 0;
    }
    v->stopped = !v->what->visit(v->what->arg, &view);
}

void cursor_set(struct queue_cursor *cursor, struct str key)
{
    ASSERT(key.len > 0 && key.len <= sizeof(cursor->key)); /* LMDB's are at most 511 bytes */
    cursor->len = (uint16_t)key.len;
    memcpy(cursor->key, key.ptr, key.len);
}

int cursor_seek(MDB_cursor *at, struct queue_cursor *cursor, MDB_val *key, MDB_val *value)
{
    int rc;

    ASSERT(cursor->len <= sizeof(cursor->key));
    if (cursor->len == 0)
        return mdb_cursor_get(at, key, value, MDB_FIRST);
    *key = (MDB_val){cursor->len, cursor->key};
    rc = mdb_cursor_get(at, key, value, MDB_SET_RANGE);
    if (rc == 0 && key->mv_size == cursor->len &&
        memcmp(key->mv_data, cursor->key, cursor->len) == 0)
        rc = mdb_cursor_get(at, key, value, MDB_NEXT);
    return rc;
}

/* What keys of the wanted rows of a flow begin with: all of it, or those of the wanted queue name.
 * Returns its length. */
static size_t wanted_prefix(const struct visitor *v, uint8_t out[ROW_KEY_MAX], enum row_class class,
                            uint32_t flow)
{
    struct str name = v->what->queue;
    size_t len = codec_row_prefix(out, class, flow, name.len == 0 ? STR("") : name);

    return name.len == 0 ? ROW_KEY_HEAD : len;
}

/* From the row at rows to the next one of the wanted queue name or flow: each flow has a place for
 * the name in each class. An LMDB code. */
static int visit_next_wanted(const struct visitor *v, MDB_cursor *rows, MDB_val *key,
                             MDB_val *value)
{
    uint32_t only = v->what->flow;
    uint8_t prefix[ROW_KEY_MAX];

    while (key->mv_size >= ROW_KEY_HEAD) {
        enum row_class class = (enum row_class) * (const uint8_t *)key->mv_data;
        uint32_t flow = codec_row_key_flow(val_str(key));
        size_t len = wanted_prefix(v, prefix, class, only != 0 ? only : flow);
        int order = memcmp(key->mv_data, prefix, key->mv_size < len ? key->mv_size : len), rc;

        if (order == 0 && key->mv_size >= len)
            return 0;
        if (class < ROW_FRESH) /* damaged; the loader and visits of all rows tell of it */
            len = wanted_prefix(v, prefix, ROW_FRESH, only);
        else if (order > 0 && only == 0 && flow < UINT32_MAX)
            len = wanted_prefix(v, prefix, class, flow + 1);
        else if (order > 0 && class == ROW_FRESH)
            len = wanted_prefix(v, prefix, ROW_LATER, only);
        else if (order > 0)
            return MDB_NOTFOUND;
        *key = (MDB_val){len, prefix};
        rc = mdb_cursor_get(rows, key, value, MDB_SET_RANGE);
        if (rc != 0)
            return rc;
    }
    return MDB_NOTFOUND;
}

/* On from the row of *key, to which *last is set, or the end of its lane. An LMDB code. */
static int visit_on(struct visitor *v, MDB_cursor *rows, MDB_val *key, MDB_val *value,
                    MDB_val *last)
{
    struct row_key row;
    size_t len;

    *last = *key;
    if (!v->what->heads || !codec_row_key_parse(val_str(key), &row))
        return mdb_cursor_get(rows, key, value, MDB_NEXT);
    len = codec_row_prefix(v->behind, row.class, row.flow, row.queue);
    ASSERT(len > ROW_KEY_HEAD && v->behind[len - 1] == 0);
    v->behind[len - 1] = 1; /* name NUL: its rows; name 0x01: before any longer name's */
    *last = *key = (MDB_val){len, v->behind};
    return mdb_cursor_get(rows, key, value, MDB_SET_RANGE);
}

/* One read transaction. 1: end reached, 0: more, or a negative errno. */
static int visit_slice(struct visitor *v)
{
    MDB_cursor *rows = NULL;
    MDB_val key, value, last = {0};
    int rc = mdb_txn_begin(v->shard->env, NULL, MDB_RDONLY, &v->txn);

    if (rc != 0)
        return lmdb_errno(rc);
    v->header_read = false;
    rc = mdb_cursor_open(v->txn, v->shard->rows, &rows);
    if (rc == 0)
        rc = state_any(v->shard, v->txn, STATE_PART, &v->undecided);
    if (rc == 0)
        rc = cursor_seek(rows, v->cursor, &key, &value);
    for (unsigned n = 0; rc == 0 && n < VISIT_SLICE_ROWS && v->rows_left > 0 && !v->stopped; n++) {
        if (v->what->queue.len > 0 || v->what->flow != 0)
            rc = visit_next_wanted(v, rows, &key, &value);
        if (rc != 0)
            break;
        if (v->what->id == NULL || codec_row_key_of(val_str(&key), v->what->id))
            visit_row(v, val_str(&key), &value);
        v->rows_left--;
        rc = visit_on(v, rows, &key, &value, &last);
    }
    ASSERT(v->rows_left <= v->what->rows_max);
    if (last.mv_size != 0)
        cursor_set(v->cursor, val_str(&last));
    if (rows != NULL)
        mdb_cursor_close(rows);
    mdb_txn_abort(v->txn);
    return rc == MDB_NOTFOUND ? 1 : lmdb_errno(rc);
}

int queue_visit(struct queue *q, uint32_t shard, struct queue_cursor *cursor,
                const struct queue_visit *what)
{
    struct visitor v = {
        .shard = shard_at(q, shard), .cursor = cursor, .what = what, .rows_left = what->rows_max};
    int err;

    ASSERT(what->visit != NULL && cursor->len <= sizeof(cursor->key));
    if (what->queue.len > QUEUE_NAME_MAX) /* nothing has such a name */
        return 1;
    do {
        err = visit_slice(&v);
    } while (err == 0 && v.rows_left > 0 && !v.stopped);
    return err;
}

static int locate_in(struct shard *s, const struct msgid *id, uint32_t *rows)
{
    MDB_val key = {MSGID_BYTES, (void *)(uintptr_t)id->bytes}, value;
    uint64_t count = 1;
    struct message header;
    uint64_t bytes;
    bool prepared;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return lmdb_errno(rc);
    rc = mdb_get(txn, s->content, &key, &value);
    prepared = rc == 0 && read_header(s, txn, id, &header, &bytes) == -EAGAIN;
    if (rc == 0 && !prepared && mdb_get(txn, s->refs, &key, &value) == 0 &&
        codec_refs_decode(id, val_str(&value), &count) < 0)
        count = UINT32_MAX; /* nobody knows */
    *rows = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
    mdb_txn_abort(txn);
    return prepared ? -EAGAIN : lmdb_errno(rc);
}

int queue_locate(struct queue *q, const struct msgid *id, uint32_t *shard, uint32_t *rows)
{
    int err = -ENOENT;

    for (; *shard < q->shards_len; ++*shard)
        if ((err = locate_in(q->shards[*shard], id, rows)) != -ENOENT)
            break;
    return err;
}

static struct message *find_message(struct queue *q, const struct msgid *id, int *err,
                                    struct message *(*read)(struct shard *s, MDB_txn *txn,
                                                            const struct msgid *id, int *err))
{
    struct message *m = NULL;

    *err = -ENOENT;
    for (uint32_t i = 0; i < q->shards_len && m == NULL && *err == -ENOENT; i++) {
        struct shard *s = q->shards[i];
        MDB_txn *txn;
        int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

        if (rc != 0) {
            *err = lmdb_errno(rc);
            return NULL;
        }
        m = read(s, txn, id, err);
        if (*err == -EAGAIN)
            *err = -ENOENT;
        mdb_txn_abort(txn);
    }
    ASSERT(m != NULL || *err < 0);
    if (m != NULL)
        *err = 0;
    return m;
}

struct message *queue_message(struct queue *q, const struct msgid *id, int *err)
{
    return find_message(q, id, err, read_message);
}

struct message *queue_message_stored(struct queue *q, const struct msgid *id, int *err)
{
    return find_message(q, id, err, read_stored_message);
}

uint64_t queue_lane_rows(struct queue *q, uint32_t shard, uint32_t flow, struct str name,
                         bool *complete)
{
    uint8_t prefix[ROW_KEY_MAX];
    size_t len = codec_row_prefix(prefix, ROW_FRESH, flow, name);

    return counts_get(&shard_at(q, shard)->counts, (struct str){(char *)prefix + 1, len - 2},
                      complete);
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

int queue_records_error(const struct queue *q, uint32_t shard, uint64_t *lag_bytes)
{
    struct records *r = &shard_at(q, shard)->records;

    *lag_bytes = records_lag(r);
    return records_error(r);
}

void queue_counters(const struct queue *q, uint32_t shard, struct queue_counters *out)
{
    struct shard *s = shard_at(q, shard);
    MDB_txn *txn;

    *out = (struct queue_counters){
        .rows = load(&s->shared.rows),
        .messages = load(&s->shared.messages),
        .pieces = load(&s->shared.pieces),
        .rows_complete = counts_complete(&s->counts),
        .commits = load(&s->shared.commits),
        .changes = load(&s->shared.changes),
        .commit_ns_total = load(&s->shared.commit_ns_total),
        .sync_ns_last = load(&s->shared.sync_ns_last),
        .batch_last = load(&s->shared.batch_last),
        .quarantined = load(&s->shared.quarantined),
        .commit_errors = load(&s->shared.commit_errors),
        .map_bytes = s->options.map_bytes,
        .map_used_bytes = load(&s->shared.map_used_bytes),
        .disk_free_bytes = load(&s->shared.disk_free_bytes),
        .records_lag = records_lag(&s->records),
    };
    if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
        return;
    out->map_reusable_bytes = shard_reusable_pages(s, txn) * s->page_bytes;
    mdb_txn_abort(txn);
}

void queue_counters_add(struct queue_counters *sum, const struct queue_counters *one)
{
    sum->rows += one->rows;
    sum->messages += one->messages;
    sum->rows_complete = sum->rows_complete && one->rows_complete;
    sum->commits += one->commits;
    sum->changes += one->changes;
    sum->commit_ns_total += one->commit_ns_total;
    sum->quarantined += one->quarantined;
    sum->commit_errors += one->commit_errors;
    sum->map_bytes += one->map_bytes;
    sum->map_used_bytes += one->map_used_bytes;
    sum->map_reusable_bytes += one->map_reusable_bytes;
    sum->records_lag += one->records_lag;
    /* One disk: not a sum. */
    if (sum->disk_free_bytes == 0 || one->disk_free_bytes < sum->disk_free_bytes)
        sum->disk_free_bytes = one->disk_free_bytes;
}

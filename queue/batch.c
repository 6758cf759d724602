/* One write transaction: many changes, applied in the order they came, committed and synced once.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "queue/batch.h"
#include "queue/quarantine.h"

/* What the tree needs beyond the bytes themselves, per record: partly filled pages and headers. */
#define RECORD_OVERHEAD_BYTES 512
#define PIECE_OVERHEAD_BYTES  64
/* A lane's end is looked at that often, about once in a page. */
#define RUN_ROWS_MAX 16

/* --- references --- */

static uint64_t id_hash(const struct msgid *id)
{
    uint64_t hash;

    /* The tail of a UUIDv7 is random. */
    memcpy(&hash, id->bytes + MSGID_BYTES - sizeof(hash), sizeof(hash));
    return hash;
}

/* NULL: memory is out. */
static struct refs_delta *refs_of(struct batch *b, const struct msgid *id)
{
    struct refs_delta *d = b->refs_list;
    struct map_node *node;
    uint64_t hash = id_hash(id);

    if (d != NULL && memcmp(&d->id, id, sizeof(*id)) == 0)
        return d; /* the last one again */
    if (b->refs.buckets == NULL && map_init(&b->refs, 64) < 0)
        return NULL;
    for (node = map_find(&b->refs, hash); node != NULL; node = map_find_next(node)) {
        d = CONTAINER_OF(node, struct refs_delta, node);
        if (memcmp(&d->id, id, sizeof(*id)) == 0)
            return d;
    }
    d = malloc(sizeof(*d));
    if (d == NULL)
        return NULL;
    *d = (struct refs_delta){.next = b->refs_list, .id = *id};
    b->refs_list = d;
    map_insert(&b->refs, &d->node, hash);
    return d;
}

static int refs_add(struct batch *b, const struct msgid *id, int delta, enum tally_count count)
{
    struct refs_delta *d = refs_of(b, id);

    ASSERT(delta >= -1 && delta <= 1 && count < TALLY_COUNTS);
    if (d == NULL)
        return ENOMEM;
    d->delta += delta;
    if (count != TALLY_NONE) {
        d->tallied = true;
        d->counts[count - 1]++;
        if (count == TALLY_SUPPRESSED)
            d->counts[TALLY_FAILED - 1]++;
    }
    return 0;
}

static int refs_apply(struct batch *b, const struct refs_delta *d)
{
    struct shard *s = b->shard;
    MDB_val key = {MSGID_BYTES, (void *)d->id.bytes}, value;
    uint8_t bytes[REFS_BYTES];
    uint64_t count = 0;
    int rc = d->tallied ? batch_tally_count(b, &d->id, d->counts) : 0;

    if (rc == 0 && d->tallied)
        rc = batch_sheet_put(b, d);
    if (rc == MDB_NOTFOUND) /* there is no tally */
        rc = 0;
    if (rc != 0 || d->delta == 0)
        return rc;
    rc = mdb_get(b->txn, s->refs, &key, &value);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    /* A count that cannot be trusted must not delete content: it then stays for good. */
    if (rc == 0 && (codec_refs_decode(&d->id, val_str(&value), &count) < 0 || count > INT64_MAX))
        return 0;
    if (rc == MDB_NOTFOUND && d->delta <= 0)
        return 0;
    if ((int64_t)count + d->delta <= 0) {
        rc = mdb_del(b->txn, s->refs, &key, NULL);
        return rc == 0 ? batch_delete_content(b, &d->id) : rc;
    }
    codec_refs_encode(bytes, &d->id, (uint64_t)((int64_t)count + d->delta));
    value = (MDB_val){sizeof(bytes), bytes};
    return mdb_put(b->txn, s->refs, &key, &value, 0);
}

static int apply_refs(struct batch *b)
{
    int rc = 0;

    for (struct refs_delta *d = b->refs_list; d != NULL && rc == 0; d = d->next)
        rc = refs_apply(b, d);
    return rc;
}

/* A row of m came or went, or moved (0). A content of one recipient goes with its row; those of
 * several, and of a number that is not known yet (0: rows come later), are counted. The latter may
 * have a tally. */
static int reference(struct batch *b, const struct message *m, int delta, enum tally_count count)
{
    if (m->recipients != 0)
        count = TALLY_NONE;
    if (delta == 0 && count == TALLY_NONE)
        return 0;
    if (m->recipients != 1)
        return refs_add(b, &m->id, delta, count);
    return delta < 0 ? batch_delete_content(b, &m->id) : 0;
}

/* What a row that counted says beside the tally. */
static int apply_note(struct batch *b, const struct queue_change *c, const struct queue_note *note)
{
    const struct queue_row *row = &c->rows[note->row];
    const struct message *m;
    struct refs_delta *d;

    ASSERT(note->row < c->rows_len && row->kind != QUEUE_ROW_ADD);
    m = row->rcpt->message;
    if (row->missing || row->count == TALLY_NONE || m->recipients != 0)
        return 0;
    d = refs_of(b, &m->id);
    return d == NULL ? ENOMEM
                     : batch_sheet_note(b, d, note,
                                        row->count == TALLY_SUPPRESSED ? TALLY_FAILED : row->count,
                                        m->created_ms);
}

/* --- changes --- */

static int put_row(struct batch *b, const struct recipient *r, unsigned flags)
{
    uint8_t key_bytes[ROW_KEY_MAX];
    MDB_val key = {0, key_bytes}, value = {codec_row_bytes(r), NULL};
    int rc;

    ASSERT((r->flags & ~RECIPIENT_FLAGS) == 0);
    key.mv_size = codec_row_key(key_bytes, r->flow, r->queue, r->due_ms, &r->message->id, r->index);
    rc = mdb_cursor_put(b->rows, &key, &value, MDB_RESERVE | flags);
    ASSERT(rc != 0 || value.mv_size == codec_row_bytes(r));
    if (rc == 0)
        codec_row_encode(value.mv_data, val_str(&key), r);
    return rc;
}

/* The key under which row is stored before the change. */
static size_t stored_key(uint8_t out[ROW_KEY_MAX], const struct queue_row *row)
{
    const struct recipient *r = row->rcpt;

    ASSERT(row->old_flow == 0 || row->kind == QUEUE_ROW_MOVE);
    return codec_row_key(out, row->old_flow != 0 ? row->old_flow : r->flow, r->queue,
                         row->old_due_ms, &r->message->id, r->index);
}

/* Deletes row's record as it is stored; sets row->missing. */
static int take_row(struct batch *b, struct queue_row *row)
{
    uint8_t key_bytes[ROW_KEY_MAX];
    MDB_val key = {stored_key(key_bytes, row), key_bytes}, value;
    int rc;

    rc = mdb_cursor_get(b->rows, &key, &value, MDB_SET);
    row->missing = rc == MDB_NOTFOUND;
    if (row->missing)
        return 0;
    return rc == 0 ? mdb_cursor_del(b->rows, 0) : rc;
}

/* The first row of a flow in this shard brings the flow's record. A flow whose record was lost has
 * none to bring: that is no error. */
static int need_flow(struct batch *b, uint32_t id)
{
    const struct queue_flow *flow;
    uint8_t key[FLOW_KEY_BYTES], value[FLOW_VALUE_BYTES];
    struct queue_state state = {.key = {(char *)key, sizeof(key)}};
    int rc;

    if (state_flow_stored(b->shard, id))
        return 0;
    flow = queue_flow_find(b->shard->queue, id);
    if (flow == NULL)
        return 0;
    codec_flow_key(key, id);
    state.value = (struct str){(char *)value, codec_flow_encode(value, flow)};
    rc = state_apply(b->shard, b->txn, &state);
    if (rc == 0 &&
        (buf_reserve(&b->flows_new, sizeof(id)) < 0 || state_flow_mark(b->shard, id) < 0))
        rc = ENOMEM;
    if (rc != 0)
        return rc;
    ASSERT(state_flow_stored(b->shard, id) && flow->id == id);
    buf_put(&b->flows_new, &id, sizeof(id));
    return 0;
}

static int apply_row(struct batch *b, struct queue_row *row)
{
    int rc;

    row->missing = false;
    switch (row->kind) {
    case QUEUE_ROW_ADD:
        ASSERT(row->count == TALLY_NONE); /* what is added counts as that */
        rc = need_flow(b, row->rcpt->flow);
        if (rc == 0)
            rc = put_row(b, row->rcpt, MDB_NOOVERWRITE);
        return rc == 0 ? reference(b, row->rcpt->message, 1, TALLY_ADDED) : rc;
    case QUEUE_ROW_REMOVE:
        rc = take_row(b, row);
        return rc == 0 && !row->missing ? reference(b, row->rcpt->message, -1, row->count) : rc;
    case QUEUE_ROW_MOVE:
        rc = row->old_flow == 0 ? 0 : need_flow(b, row->rcpt->flow);
        if (rc == 0)
            rc = take_row(b, row);
        if (rc == 0 && !row->missing)
            rc = put_row(b, row->rcpt, 0);
        return rc == 0 && !row->missing ? reference(b, row->rcpt->message, 0, row->count) : rc;
    }
    ASSERT(false);
    return EINVAL;
}

bool change_accepts(const struct queue_change *c)
{
    for (size_t i = 0; i < c->rows_len; i++)
        if (c->rows[i].kind != QUEUE_ROW_ADD)
            return false;
    return c->rows_len > 0 || c->messages_len > 0;
}

static uint64_t content_need_bytes(const struct message *m, size_t page_bytes)
{
    struct content_layout l = codec_content_layout(m, page_bytes);

    return l.head_bytes + l.tail_bytes + RECORD_OVERHEAD_BYTES +
           (uint64_t)l.pieces * (page_bytes + PIECE_OVERHEAD_BYTES);
}

/* Map space that what a change brings takes, its messages and their rows; 0 for a settle without
 * notices. */
static uint64_t change_need_bytes(const struct batch *b, const struct queue_change *c)
{
    size_t page_bytes = b->shard->page_bytes;
    uint64_t need = 0;

    for (size_t i = 0; i < c->messages_len; i++)
        need += content_need_bytes(c->messages[i], page_bytes);
    for (size_t i = 0; i < c->rows_len; i++)
        if (c->rows[i].kind == QUEUE_ROW_ADD)
            need += codec_row_bytes(c->rows[i].rcpt) + RECORD_OVERHEAD_BYTES;
    if (need == 0)
        return 0;
    for (size_t i = 0; i < c->states_len; i++)
        need += c->states[i].key.len + c->states[i].value.len + RECORD_OVERHEAD_BYTES;
    return need + c->records.len;
}

static bool change_valid(const struct queue_change *c)
{
    for (size_t i = 0; i < c->rows_len; i++) {
        const struct queue_row *row = &c->rows[i];

        if (!codec_row_valid(row->rcpt) || row->old_due_ms < 0 || row->old_due_ms > QUEUE_DUE_HELD)
            return false;
    }
    return true;
}

/* Whether a message had more than one recipient, as far as the store can still tell. */
static int has_several(struct batch *b, const struct msgid *id, bool *several)
{
    struct shard *s = b->shard;
    MDB_val key = {MSGID_BYTES, (void *)id->bytes}, value;
    struct message header;
    int rc = mdb_get(b->txn, s->refs, &key, &value), err;

    *several = rc == 0;
    if (rc != MDB_NOTFOUND)
        return rc;
    rc = mdb_get(b->txn, s->content, &key, &value);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? 0 : rc;
    /* A value that this transaction has written lies outside of the map. */
    if (!shard_written(s, &value) && !shard_readable(s, &value))
        return 0;
    err = codec_content_decode(id, val_str(&value), &header, NULL);
    *several = err == 0 && header.recipients != 1;
    return 0;
}

/* A quarantined row counts as one of its message's until it is purged. */
static int apply_purge(struct batch *b, struct str purge)
{
    struct shard *s = b->shard;
    struct str row_key = {purge.ptr + 1, purge.len - 1};
    MDB_val key = str_val(purge), value;
    struct row_key row;
    bool several;
    int rc = mdb_del(b->txn, s->quarantine, &key, NULL);

    if (rc != 0 || purge.ptr[0] != QUARANTINE_ROWS || !codec_row_key_parse(row_key, &row))
        return rc;
    key = str_val(row_key);
    if (mdb_get(b->txn, s->rows, &key, &value) == 0)
        return 0; /* the row could not be taken out, see move_suspect(): it counts on */
    rc = has_several(b, &row.id, &several);
    if (rc != 0)
        return rc;
    return several ? refs_add(b, &row.id, -1, TALLY_CANCELLED) : batch_delete_content(b, &row.id);
}

static int apply_pin(struct batch *b, const struct queue_pin *pin)
{
    bool was;
    int rc;

    ASSERT(!(pin->remove && pin->keep));
    if (pin->keep) {
        b->recreated = true;
        return batch_content_recreate(b, &pin->id, pin->created_ms);
    }
    if (!pin->remove) {
        rc = batch_tally_pin(b, &pin->id);
        return rc == 0 ? refs_add(b, &pin->id, 1, TALLY_NONE) : rc;
    }
    rc = batch_tally_unpin(b, &pin->id, &was);
    if (rc != 0 || !was)
        return rc;
    if (pin->created_ms != 0)
        rc = batch_content_recreate(b, &pin->id, pin->created_ms);
    b->recreated |= pin->created_ms != 0;
    return rc == 0 ? refs_add(b, &pin->id, -1, TALLY_NONE) : rc;
}

/* Rows that come without content belong to stored content: checks that it is here. */
static int check_contents(struct batch *b, const struct queue_change *c)
{
    const struct msgid *last = NULL;
    int rc = 0;

    for (size_t i = 0; i < c->rows_len && rc == 0; i++) {
        const struct msgid *id = &c->rows[i].rcpt->message->id;
        MDB_val key = {MSGID_BYTES, (void *)(uintptr_t)id->bytes}, value;

        if (c->rows[i].kind != QUEUE_ROW_ADD ||
            (last != NULL && memcmp(last, id, sizeof(*id)) == 0))
            continue;
        rc = mdb_cursor_get(b->content, &key, &value, MDB_SET);
        last = id;
    }
    return rc == MDB_NOTFOUND ? ENOENT : rc;
}

/* A batch goes over its changes step by step, since LMDB gives out the lowest free page first:
 * pages that are made together, and freed together, then lie together. For a message of the main
 * row (bench/run), change by change and step by step: writes of a single page 0.50 and 0.30, block
 * requests 0.55 and 0.42. */
typedef int batch_step(struct batch *b, struct queue_change *c);

static int apply_pages(struct batch *b, struct queue_change *c)
{
    uint64_t need = change_need_bytes(b, c);
    int rc = 0;

    if (!change_valid(c))
        return EINVAL;
    if (need > 0 && need + shard_leaves_bytes(b->shard, change_accepts(c)) > b->room_bytes)
        return ENOSPC;
    ASSERT(b->room_bytes >= need);
    b->room_bytes -= need;
    for (size_t i = 0; i < c->messages_len && rc == 0; i++)
        rc = batch_put_pages(b, c->messages[i]);
    return rc;
}

static int apply_heads(struct batch *b, struct queue_change *c)
{
    int rc = 0;

    for (size_t i = 0; i < c->messages_len && rc == 0; i++)
        rc = batch_put_head(b, c->messages[i], c->prepared);
    return rc;
}

/* Rows of a list come at the ends of their lanes, each lane's behind one another. */
static bool ends_run(const struct queue_change *c, size_t i)
{
    const struct recipient *r = c->rows[i].rcpt;

    if (c->rows[i].kind != QUEUE_ROW_ADD || r->message->recipients != 0)
        return false;
    return i % RUN_ROWS_MAX == RUN_ROWS_MAX - 1 || i + 1 == c->rows_len ||
           !str_eq(r->queue, c->rows[i + 1].rcpt->queue);
}

static int apply_rows(struct batch *b, struct queue_change *c)
{
    int rc = c->messages_len == 0 ? check_contents(b, c) : 0;
    size_t run = 0;

    for (size_t i = 0; i < c->rows_len && rc == 0; i++) {
        rc = apply_row(b, &c->rows[i]);
        run++;
        if (rc == 0 && ends_run(c, i)) {
            rc = batch_lane_end(b, run);
            run = 0;
        }
    }
    for (size_t i = 1; i < c->notes_len; i++)
        ASSERT(c->notes[i - 1].row <= c->notes[i].row); /* in the order of their rows */
    for (size_t i = 0; i < c->notes_len && rc == 0; i++)
        rc = apply_note(b, c, &c->notes[i]);
    for (size_t i = 0; i < c->purges_len && rc == 0; i++)
        rc = apply_purge(b, c->purges[i]);
    for (size_t i = 0; i < c->pins_len && rc == 0; i++)
        rc = apply_pin(b, &c->pins[i]);
    for (size_t i = 0; i < c->states_len && rc == 0; i++)
        rc = state_apply(b->shard, b->txn, &c->states[i]);
    if (rc == 0 && c->range != NULL)
        rc = state_remove_range(b->shard, b->txn, c->range);
    if (rc == 0 && c->whole != NULL)
        rc = batch_content_whole(b, c->whole);
    return rc == 0 ? -records_stage(&b->shard->records, &c->records) : rc;
}

static int apply_step(struct batch *b, batch_step *step, struct list *changes,
                      struct queue_change **failed)
{
    struct list_node *node;
    int rc = 0;

    for (node = list_first(changes); node != NULL && rc == 0; node = list_next(changes, node)) {
        struct queue_change *c = CONTAINER_OF(node, struct queue_change, node);

        rc = step(b, c);
        ASSERT(*failed == NULL);
        if (rc != 0)
            *failed = c;
    }
    return rc;
}

/* --- what a commit changes in memory --- */

static void count_row(struct counts *counts, const struct queue_row *row)
{
    const struct recipient *r = row->rcpt;
    uint8_t key[ROW_KEY_MAX];
    size_t len;

    if (row->kind != QUEUE_ROW_ADD) {
        len = stored_key(key, row);
        counts_change(counts, (struct str){(char *)key, len}, -1);
    }
    if (row->kind != QUEUE_ROW_REMOVE) {
        len = codec_row_key(key, r->flow, r->queue, r->due_ms, &r->message->id, r->index);
        counts_change(counts, (struct str){(char *)key, len}, 1);
    }
}

static void count_changes(struct shard *s, struct list *changes)
{
    struct list_node *node;
    bool complete;

    counts_lock(&s->counts);
    complete = s->counts.complete;
    for (node = list_first(changes); node != NULL; node = list_next(changes, node)) {
        struct queue_change *c = CONTAINER_OF(node, struct queue_change, node);

        for (size_t i = 0; i < c->rows_len; i++) {
            const struct queue_row *row = &c->rows[i];
            bool stays = row->kind == QUEUE_ROW_MOVE && row->old_flow == 0;

            if (!row->missing && !(complete && stays))
                count_row(&s->counts, row);
        }
    }
    counts_unlock(&s->counts);
}

/* --- the transaction --- */

static int batch_begin(struct batch *b, struct shard *s)
{
    int rc;

    ASSERT(!atomic_load_explicit(&s->shared.failed, memory_order_relaxed)); /* it writes no more */
    *b = (struct batch){.shard = s, .room_bytes = s->own.room_bytes};
    batch_remains_begin(b);
    rc = mdb_txn_begin(s->env, NULL, 0, &b->txn);
    if (rc != 0)
        return rc;
    rc = mdb_cursor_open(b->txn, s->rows, &b->rows);
    if (rc == 0)
        rc = mdb_cursor_open(b->txn, s->content, &b->content);
    if (rc == 0)
        rc = mdb_cursor_open(b->txn, s->pages, &b->pages);
    if (rc != 0)
        mdb_txn_abort(b->txn);
    return rc;
}

/* The transaction failed: the flows that it would have brought are not stored, though marked so. */
static void batch_unmark_flows(struct batch *b)
{
    ASSERT(b->txn != NULL && b->flows_new.len % sizeof(uint32_t) == 0);
    for (size_t at = 0; at < b->flows_new.len; at += sizeof(uint32_t)) {
        uint32_t id;

        memcpy(&id, b->flows_new.data + at, sizeof(id));
        state_flow_unmark(b->shard, id);
    }
}

static void batch_free_refs(struct batch *b)
{
    struct refs_delta *next;

    for (struct refs_delta *d = b->refs_list; d != NULL; d = next) {
        next = d->next;
        free(d->sheet);
        free(d);
    }
    if (b->refs.buckets != NULL)
        map_done(&b->refs);
}

static void store(_Atomic uint64_t *counter, uint64_t v)
{
    atomic_store_explicit(counter, v, memory_order_relaxed);
}

/* Commits; a negative errno. The transaction is gone afterwards, whatever the result. */
static int batch_end(struct batch *b)
{
    struct shard *s = b->shard;
    MDB_stat rows, content, pages, quarantine;
    uint64_t began, took, trimmed, unused;
    int rc = records_trim(s, b->txn, &trimmed);

    if (rc == 0)
        rc = records_put(s, b->txn);
    if (rc == 0)
        rc = mdb_stat(b->txn, s->rows, &rows);
    if (rc == 0)
        rc = mdb_stat(b->txn, s->content, &content);
    if (rc == 0)
        rc = mdb_stat(b->txn, s->pages, &pages);
    if (rc == 0)
        rc = mdb_stat(b->txn, s->quarantine, &quarantine);
    if (rc != 0) {
        mdb_txn_abort(b->txn);
        return lmdb_errno(rc);
    }
    began = clock_mono_ns();
    rc = mdb_txn_commit(b->txn);
    if (rc != 0)
        return shard_commit_verdict(s, lmdb_errno(rc));
    took = clock_mono_ns() - began;
    records_committed(&s->records);
    records_trimmed(&s->records, trimmed);
    unused = shard_unused_bytes(s) + s->own.reusable_bytes;
    remains_committed(s);
    shard_rows_are(s, &rows);
    shard_set_room(s, b->room_bytes < unused ? b->room_bytes : unused);
    store(&s->shared.messages, content.ms_entries);
    store(&s->shared.pieces, pages.ms_entries - s->own.remains.pages);
    store(&s->shared.quarantined, quarantine.ms_entries);
    store(&s->shared.sync_ns_last, took);
    atomic_fetch_add_explicit(&s->shared.commit_ns_total, took, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->shared.commits, 1, memory_order_relaxed);
    return 0;
}

int batch_commit(struct shard *s, struct list *changes, struct queue_change **failed)
{
    static batch_step *const steps[] = {apply_pages, apply_heads, apply_rows};
    struct list_node *node;
    struct batch b;
    size_t n = 0;
    int rc = batch_begin(&b, s);

    *failed = NULL;
    records_write(&s->records); /* for when this is the rest of a batch that had to be split */
    ASSERT(!list_empty(changes));
    if (rc != 0)
        return rc == MDB_PANIC ? -ESHUTDOWN : lmdb_errno(rc);
    rc = holes_gather(s, b.txn);
    for (size_t i = 0; i < ARRAY_LEN(steps) && rc == 0; i++)
        rc = apply_step(&b, steps[i], changes, failed);
    if (rc == 0)
        rc = apply_refs(&b);
    if (rc == 0)
        rc = batch_remains_end(&b);
    batch_free_refs(&b);
    if (rc != 0) {
        mdb_txn_abort(b.txn);
        rc = lmdb_errno(rc);
    } else {
        ASSERT(*failed == NULL);
        rc = batch_end(&b);
    }
    ASSERT(rc <= 0);
    buf_done(&b.kept);
    buf_done(&b.cleared);
    if (rc < 0)
        batch_unmark_flows(&b);
    buf_done(&b.flows_new);
    if (rc < 0) {
        remains_forget(s);
        records_unstage(&s->records);
        return rc;
    }
    if (b.recreated) /* release: whoever hears of the commit has the loader see this */
        atomic_fetch_add_explicit(&s->shared.recreated, 1, memory_order_release);
    count_changes(s, changes);
    for (node = list_first(changes); node != NULL; node = list_next(changes, node))
        n++;
    store(&s->shared.batch_last, n);
    atomic_fetch_add_explicit(&s->shared.changes, n, memory_order_relaxed);
    return 0;
}

/* --- housekeeping --- */

/* A second look at a bad record: the first may have been unlucky with memory, not with the disk,
 * and what is quarantined is not sent. look: a reader of the last commit, so that values lie in the
 * map. */
static bool still_bad(struct shard *s, MDB_txn *look, struct str key, const MDB_val *value)
{
    struct row_state state;
    struct row_key row;
    struct message *m;
    int err;

    if (!codec_row_key_parse(key, &row) || !shard_readable(s, value) ||
        codec_row_decode(key, val_str(value), &state) < 0)
        return true;
    m = read_message(s, look, &row.id, &err);
    message_unref(m);
    return m == NULL && err != -ENOMEM && err != -EAGAIN;
}

static int move_suspect(struct batch *b, MDB_txn *look, struct suspect *suspect)
{
    struct shard *s = b->shard;
    MDB_val key = {suspect->key_len, suspect->key}, value;
    int rc = mdb_get(look, s->rows, &key, &value);

    suspect->moved = rc == 0 && still_bad(s, look, val_str(&key), &value);
    if (!suspect->moved)
        return rc == MDB_NOTFOUND ? 0 : rc; /* the record has gone meanwhile, or is well */
    if (!shard_readable(s, &value)) {
        /* LMDB would trust the node's length and ruin memory: the row is named and stays. */
        suspect->moved = false;
        value.mv_size = 0;
    } else {
        rc = mdb_del(b->txn, s->rows, &key, NULL);
        suspect->moved = rc == 0;
        if (rc == MDB_NOTFOUND) /* named twice */
            return 0;
    }
    if (rc == 0)
        rc = quarantine_put(b->txn, s->quarantine, QUARANTINE_ROWS, val_str(&key), val_str(&value),
                            suspect->reason);
    suspect->named = rc == 0;
    return rc;
}

static int move_suspects(struct batch *b, struct list *suspects)
{
    struct list_node *node;
    MDB_txn *look;
    int rc;

    if (list_empty(suspects))
        return 0;
    rc = mdb_txn_begin(b->shard->env, NULL, MDB_RDONLY, &look);
    if (rc != 0)
        return rc;
    for (node = list_first(suspects); node != NULL && rc == 0; node = list_next(suspects, node))
        rc = move_suspect(b, look, CONTAINER_OF(node, struct suspect, node));
    mdb_txn_abort(look);
    return rc;
}

static void tell_suspects(const struct shard *s, struct list *suspects)
{
    struct list_node *node;

    for (node = list_first(suspects); node != NULL; node = list_next(suspects, node)) {
        struct suspect *suspect = CONTAINER_OF(node, struct suspect, node);

        if (suspect->named)
            quarantine_tell(s, (struct str){(char *)suspect->key, suspect->key_len},
                            suspect->reason);
    }
}

static void count_suspects(struct shard *s, struct list *suspects)
{
    struct list_node *node;
    struct row_key row;

    counts_lock(&s->counts);
    for (node = list_first(suspects); node != NULL; node = list_next(suspects, node)) {
        struct suspect *suspect = CONTAINER_OF(node, struct suspect, node);
        struct str key = {(char *)suspect->key, suspect->key_len};

        if (suspect->moved && codec_row_key_parse(key, &row))
            counts_change(&s->counts, key, -1);
    }
    counts_unlock(&s->counts);
}

int batch_housekeeping(struct shard *s, struct list *suspects)
{
    struct batch b;
    int rc = batch_begin(&b, s);

    if (rc != 0)
        return rc == MDB_PANIC ? -ESHUTDOWN : lmdb_errno(rc);
    rc = move_suspects(&b, suspects);
    if (rc == 0)
        rc = batch_remains_end(&b);
    if (rc != 0) {
        mdb_txn_abort(b.txn);
        rc = lmdb_errno(rc);
    } else {
        rc = batch_end(&b);
    }
    if (rc < 0) {
        remains_forget(s);
        return rc;
    }
    count_suspects(s, suspects);
    tell_suspects(s, suspects);
    return 0;
}

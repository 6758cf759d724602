#include "queue/spread.h"

#include <errno.h>
#include <stdlib.h>

#include "queue/shard.h"

static void on_change(struct queue_change *change, int result);

static uint32_t shard_of(const struct queue_spread_part *part)
{
    return (uint32_t)(part - part->spread->parts);
}

static bool is_home(const struct queue_spread_part *part)
{
    return shard_of(part) == part->spread->home;
}

static void set_state(struct queue_spread_part *part, enum spread_part_state state)
{
    static const uint8_t from[] = {
        [PART_PREPARING] = 1 << PART_NONE,
        [PART_PREPARED] = 1 << PART_PREPARING,
        [PART_FINISHING] = 1 << PART_PREPARED,
        [PART_WHOLE] = 1 << PART_PREPARING | 1 << PART_FINISHING,
        [PART_DROPPING] = 1 << PART_PREPARED,
        [PART_GONE] =
            1 << PART_PREPARING | 1 << PART_PREPARED | 1 << PART_FINISHING | 1 << PART_DROPPING,
    };

    ASSERT(part->rows_len > 0 && (from[state] & 1 << part->state) != 0);
    part->state = state;
}

static void submit(struct queue_spread_part *part)
{
    part->spread->under_way++;
    part->change.on_done = on_change;
    part->change.owner = part;
    queue_submit(part->spread->port, shard_of(part), &part->change);
}

/* --- preparing and deciding --- */

/* The change that brings a part, with its note: under STATE_PART for one that is prepared, of the
 * home that it decided. */
static void part_submit(struct queue_spread_part *part, bool alone)
{
    const struct recipient *first = part->rows[0].rcpt;
    enum state_kind kind = is_home(part) ? STATE_WHOLE : STATE_PART;
    struct spread_part note = {.flow = first->flow, .due_ms = first->due_ms};

    /* A start that drops the part looks for its rows by that. */
    for (size_t i = 0; i < part->rows_len; i++)
        ASSERT(part->rows[i].kind == QUEUE_ROW_ADD && part->rows[i].rcpt->flow == note.flow &&
               part->rows[i].rcpt->due_ms == note.due_ms);
    codec_spread_key(part->key, kind, &part->message->id);
    codec_part_encode(part->value, &note);
    part->note = (struct queue_state){.key = {(char *)part->key, sizeof(part->key)},
                                      .value = {(char *)part->value, sizeof(part->value)}};
    part->change = (struct queue_change){.messages = &part->message,
                                         .messages_len = 1,
                                         .rows = part->rows,
                                         .rows_len = part->rows_len,
                                         .states = &part->note,
                                         .states_len = alone ? 0 : 1,
                                         .prepared = !is_home(part),
                                         .urgent = true};
    if (is_home(part))
        part->change.records = part->spread->records;
    set_state(part, PART_PREPARING);
    submit(part);
}

static void decide(struct queue_spread *s)
{
    uint32_t others = 0;

    ASSERT(s->result == 0 && s->under_way == 0);
    for (uint32_t i = 0; i < s->parts_len; i++)
        ASSERT(s->parts[i].state ==
               (i != s->home && s->parts[i].rows_len > 0 ? PART_PREPARED : PART_NONE));
    for (uint32_t i = 0; i < s->parts_len; i++)
        others += i != s->home && s->parts[i].rows_len > 0;
    part_submit(&s->parts[s->home], others == 0);
}

void queue_spread_submit(struct queue_port *port, struct queue_spread *s)
{
    s->port = port;
    s->under_way = 0;
    s->result = 0;
    ASSERT(s->parts_len == queue_shards(port->queue) && s->parts[s->home].rows_len > 0);
    for (uint32_t i = 0; i < s->parts_len; i++) {
        s->parts[i].spread = s;
        s->parts[i].state = PART_NONE;
        if (i != s->home && s->parts[i].rows_len > 0)
            part_submit(&s->parts[i], false);
    }
    if (s->under_way == 0)
        decide(s);
}

/* --- behind the decision --- */

/* Of a change that drops rows: more find no room in a map that is nearly full. */
#define DROP_ROWS 256

static void drop_more(struct queue_spread_part *part)
{
    size_t left = part->rows_len - part->dropped, len = left < DROP_ROWS ? left : DROP_ROWS;
    struct queue_row *rows = part->rows + part->dropped;

    ASSERT(part->state == PART_DROPPING && left > 0);
    for (size_t i = 0; i < len; i++) {
        rows[i].kind = QUEUE_ROW_REMOVE;
        rows[i].old_due_ms = rows[i].rcpt->due_ms;
    }
    part->change = (struct queue_change){
        .rows = rows, .rows_len = len, .states = &part->note, .states_len = len == left};
    submit(part);
}

/* The note goes, and with it what it said, one way or the other. Nobody waits for it. */
static void part_finish(struct queue_spread_part *part, bool whole)
{
    ASSERT(!is_home(part) && whole == (part->spread->result == 0));
    part->note.remove = true;
    set_state(part, whole ? PART_FINISHING : PART_DROPPING);
    if (!whole) {
        part->dropped = 0;
        drop_more(part);
        return;
    }
    part->change =
        (struct queue_change){.states = &part->note, .states_len = 1, .whole = &part->message->id};
    submit(part);
}

static void finish_others(struct queue_spread *s, bool whole)
{
    for (uint32_t i = 0; i < s->parts_len; i++)
        if (s->parts[i].state == PART_PREPARED)
            part_finish(&s->parts[i], whole);
}

/* All parts are whole: nothing depends on the home's note any more. */
static void forget(struct queue_spread *s)
{
    struct queue_spread_part *home = &s->parts[s->home];

    ASSERT(s->under_way == 0 && s->result == 0 && home->state == PART_WHOLE);
    for (uint32_t i = 0; i < s->parts_len; i++)
        if (s->parts[i].state != PART_NONE && s->parts[i].state != PART_WHOLE)
            return; /* the next start needs it */
    if (home->change.states_len == 0 || home->note.remove)
        return;
    home->note.remove = true;
    home->change = (struct queue_change){.states = &home->note, .states_len = 1};
    submit(home);
}

static void on_brought(struct queue_spread_part *part, int result)
{
    struct queue_spread *s = part->spread;

    set_state(part, result < 0 ? PART_GONE : is_home(part) ? PART_WHOLE : PART_PREPARED);
    if (result < 0 && s->result == 0)
        s->result = result;
    if (s->under_way > 0)
        return;
    if (s->result == 0 && !is_home(part)) {
        decide(s);
        return;
    }
    ASSERT(s->result < 0 || is_home(part));
    s->on_done(s, s->result);
    if (s->result == 0)
        s->on_whole(s, s->home);
    /* Whether a home that failed has decided is seen at the next start. */
    if (!(is_home(part) && result == -ESHUTDOWN))
        finish_others(s, s->result == 0);
}

/* A shard that failed has nothing to try again; one that only lacks room or memory has, until the
 * port ends: the next start does it then. The wait between is that of changes for company. */
static bool tries_again(const struct queue_spread_part *part, int result)
{
    return result < 0 && result != -ESHUTDOWN && !part->spread->port->ending;
}

static void on_finished(struct queue_spread_part *part, int result)
{
    if (tries_again(part, result)) {
        submit(part);
        return;
    }
    if (part->state == PART_WHOLE) { /* the home's note */
        ASSERT(is_home(part) && part->note.remove);
        return;
    }
    ASSERT(part->state == PART_FINISHING || part->state == PART_DROPPING);
    if (result == 0 && part->state == PART_DROPPING) {
        part->dropped += part->change.rows_len;
        if (part->dropped < part->rows_len) {
            drop_more(part);
            return;
        }
    }
    set_state(part, result == 0 && part->state == PART_FINISHING ? PART_WHOLE : PART_GONE);
    if (part->state == PART_WHOLE)
        part->spread->on_whole(part->spread, shard_of(part));
    if (part->spread->under_way == 0 && part->spread->result == 0)
        forget(part->spread);
}

static void on_change(struct queue_change *change, int result)
{
    struct queue_spread_part *part = change->owner;
    struct queue_spread *s = part->spread;

    ASSERT(s->under_way > 0);
    s->under_way--;
    if (part->state == PART_PREPARING)
        on_brought(part, result);
    else
        on_finished(part, result);
    if (s->under_way == 0)
        s->on_end(s);
}

/* --- at a start --- */

/* Whether the home of a message decided that it is mail; the home is the shard that says so. A
 * negative errno. */
static int was_decided(struct queue *q, const struct msgid *id, bool *decided)
{
    uint8_t key[SPREAD_KEY_BYTES];
    int err = -ENOENT;

    codec_spread_key(key, STATE_WHOLE, id);
    for (uint32_t i = 0; i < q->shards_len && err == -ENOENT; i++) {
        struct buf value = {0};

        err = queue_state_get(q, i, (struct str){(char *)key, sizeof(key)}, &value);
        buf_done(&value);
    }
    *decided = err == 0 || err == -EBADMSG; /* it was there */
    return *decided || err == -ENOENT ? 0 : err;
}

struct dropped {
    struct message *message;
    struct queue_row *rows;
    size_t rows_len;
};

static void dropped_free(struct dropped *d)
{
    for (size_t i = 0; i < d->rows_len; i++)
        recipient_free(d->rows[i].rcpt);
    d->rows_len = 0;
}

static int dropped_add(struct dropped *d, const struct row_key *row)
{
    struct recipient *r =
        recipient_new(d->message, row->index, row->queue, STR(""), STR(""), STR(""));

    if (r == NULL)
        return -ENOMEM;
    r->flow = row->flow;
    r->due_ms = row->due_ms;
    ASSERT(d->rows_len < BATCH_ROWS_MAX);
    d->rows[d->rows_len++] =
        (struct queue_row){.kind = QUEUE_ROW_REMOVE, .rcpt = r, .old_due_ms = row->due_ms};
    return 0;
}

/* From the row at key, of the part's flow and class, on to those of the part in its lane, and
 * behind the lane. An LMDB code. */
static int find_in_lane(MDB_cursor *rows, const struct spread_part *part, MDB_val *key,
                        MDB_val *value, struct dropped *d)
{
    uint8_t bytes[ROW_KEY_MAX], lane[ROW_KEY_MAX];
    size_t lane_len = key->mv_size - ROW_KEY_TAIL;
    struct row_key row;
    int rc;

    if (!codec_row_key_parse(val_str(key), &row)) /* it may be longer than any key of a row */
        return mdb_cursor_get(rows, key, value, MDB_NEXT);
    memcpy(lane, key->mv_data, lane_len);
    key->mv_size = codec_row_key(bytes, part->flow, row.queue, part->due_ms, &part->id, 0);
    key->mv_data = bytes;
    rc = mdb_cursor_get(rows, key, value, MDB_SET_RANGE);
    while (rc == 0 && key->mv_size == lane_len + ROW_KEY_TAIL &&
           memcmp(key->mv_data, lane, lane_len) == 0 && codec_row_key_of(val_str(key), &part->id)) {
        if (d->rows_len == BATCH_ROWS_MAX)
            return 0;
        if (codec_row_key_parse(val_str(key), &row) && dropped_add(d, &row) < 0)
            return ENOMEM;
        rc = mdb_cursor_get(rows, key, value, MDB_NEXT);
    }
    if (rc != 0)
        return rc;
    lane[lane_len - 1] = 1; /* where the lane's rows have a NUL behind its name */
    *key = (MDB_val){lane_len, lane};
    return mdb_cursor_get(rows, key, value, MDB_SET_RANGE);
}

/* Rows of a part, at most BATCH_ROWS_MAX. A negative errno. */
static int find_rows(struct shard *s, const struct spread_part *part, struct dropped *d)
{
    uint8_t bytes[ROW_KEY_MAX];
    MDB_val key = {0, bytes}, value;
    MDB_cursor *rows = NULL;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);

    if (rc != 0)
        return lmdb_errno(rc);
    /* Class and flow are the same of all. */
    (void)codec_row_key(bytes, part->flow, STR("x"), part->due_ms, &part->id, 0);
    key.mv_size = ROW_KEY_HEAD;
    rc = mdb_cursor_open(txn, s->rows, &rows);
    if (rc == 0)
        rc = mdb_cursor_get(rows, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && d->rows_len < BATCH_ROWS_MAX && key.mv_size > ROW_KEY_HEAD + ROW_KEY_TAIL &&
           memcmp(key.mv_data, bytes, ROW_KEY_HEAD) == 0)
        rc = find_in_lane(rows, part, &key, &value, d);
    if (rows != NULL)
        mdb_cursor_close(rows);
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 0 : lmdb_errno(rc);
}

/* The threads do not run yet: commits are this thread's. */
static int commit_alone(struct shard *s, struct queue_change *change)
{
    struct queue_change *failed;
    struct list changes;
    int err;

    ASSERT(!s->committer_started);
    list_init(&changes);
    list_push_back(&changes, &change->node);
    err = batch_commit(s, &changes, &failed);
    if (err == -ENOSPC && shard_ballast_drop(s))
        err = batch_commit(s, &changes, &failed);
    return err;
}

static int drop_part(struct shard *s, const struct spread_part *part,
                     const struct queue_state *note)
{
    struct message fields = {.id = part->id, .recipients = UINT32_MAX};
    struct dropped d = {.message = message_new(&fields),
                        .rows = calloc(BATCH_ROWS_MAX, sizeof(struct queue_row))};
    bool more;
    int err = d.message == NULL || d.rows == NULL ? -ENOMEM : 0;

    do {
        struct queue_change change = {.rows = d.rows, .states = note};

        if (err == 0)
            err = find_rows(s, part, &d);
        more = d.rows_len == BATCH_ROWS_MAX;
        change.rows_len = d.rows_len;
        change.states_len = more ? 0 : 1;
        if (err == 0)
            err = commit_alone(s, &change);
        dropped_free(&d);
    } while (err == 0 && more);
    message_unref(d.message);
    free(d.rows);
    return err;
}

/* value: {NULL, 0} when it is damaged. What then was not decided stays as it is, which is no mail.
 */
static int settle_part(struct queue *q, struct shard *s, struct str key, struct str value)
{
    struct queue_state note = {.key = key, .remove = true};
    struct spread_part part;
    bool decided, damaged = codec_part_decode(key, value, &part) < 0;
    int err = was_decided(q, &part.id, &decided);

    if (err < 0 || (damaged && !decided))
        return err;
    if (decided)
        return commit_alone(
            s, &(struct queue_change){.states = &note, .states_len = 1, .whole = &part.id});
    return drop_part(s, &part, &note);
}

/* Keys and values of a kind. */
struct notes {
    struct buf bytes; /* struct note, one behind the other */
    bool no_memory;
};

struct note {
    uint8_t key[SPREAD_KEY_BYTES], value[PART_VALUE_BYTES];
    bool damaged;
};

static void note_found(void *arg, struct str key, struct str value)
{
    struct notes *n = arg;
    struct note note = {.damaged = value.len < PART_VALUE_BYTES};

    if (key.len != SPREAD_KEY_BYTES)
        return;
    memcpy(note.key, key.ptr, sizeof(note.key));
    if (!note.damaged)
        memcpy(note.value, value.ptr, sizeof(note.value));
    if (buf_reserve(&n->bytes, sizeof(note)) < 0)
        n->no_memory = true;
    else
        buf_put(&n->bytes, &note, sizeof(note));
}

static int settle_kind(struct queue *q, struct shard *s, enum state_kind kind)
{
    struct notes n = {0};
    int err = queue_state_visit(q, s->index, kind, note_found, &n);

    if (n.no_memory)
        err = -ENOMEM;
    for (size_t at = 0; at < n.bytes.len && err == 0; at += sizeof(struct note)) {
        struct note note;
        struct str key = {(char *)note.key, sizeof(note.key)}, value = {NULL, 0};
        struct queue_state state = {.key = key, .remove = true};

        memcpy(&note, n.bytes.data + at, sizeof(note));
        if (!note.damaged)
            value = (struct str){(char *)note.value, sizeof(note.value)};
        if (kind == STATE_PART)
            err = settle_part(q, s, key, value);
        else
            err = commit_alone(s, &(struct queue_change){.states = &state, .states_len = 1});
    }
    buf_done(&n.bytes);
    return err;
}

int spread_settle(struct queue *q)
{
    int err = 0;

    for (uint32_t i = 0; i < q->shards_len && err == 0; i++)
        err = settle_kind(q, q->shards[i], STATE_PART);
    /* Decisions go when no part needs them. */
    for (uint32_t i = 0; i < q->shards_len && err == 0; i++)
        err = settle_kind(q, q->shards[i], STATE_WHOLE);
    /* On a full disk the queue is opened all the same: parts wait for the next start. */
    return err == -ENOSPC ? 0 : err;
}

/* The loader: reads rows and lane names back for the workers, in short read transactions. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/shard.h"

/* A slice: what is read in one read transaction. The free list waits for the oldest reader, so a
 * slice is small. */
#define SLICE_ROWS  256
#define SLICE_BYTES (4u << 20)
#define SLICE_LANES 1024
/* So many loads are handed back together, or what took so long. */
#define HAND_LOADS 32
#define HAND_NS    500000

void loader_wake(struct shard *s)
{
    uint64_t one = 1;

    if (s->loader_event >= 0 && write(s->loader_event, &one, sizeof(one)) < 0)
        return; /* the counter is full: the wake is pending anyway */
}

/* --- slices --- */

#define RUNS 2

/* A reader's place among the rows of a lane in one class. */
struct run {
    struct shard *shard;
    MDB_cursor *at;
    enum row_class class;
    int rc; /* 0: key, value and row are of the place; MDB_NOTFOUND: behind the lane */
    MDB_val key, value;
    struct row_key row;
};

/* The cursors of one read transaction: a lane's rows are two runs of keys. */
struct slice {
    struct run runs[RUNS];
};

static void slice_end(struct shard *s, struct slice *slice)
{
    ASSERT(s->loader.txn != NULL);
    for (int i = 0; i < RUNS; i++)
        if (slice->runs[i].at != NULL)
            mdb_cursor_close(slice->runs[i].at);
    mdb_txn_reset(s->loader.txn);
}

static void cache_drop(struct shard *s, size_t slot);

/* Contents may have been made at another time since they were read. */
static void cache_look(struct shard *s)
{
    uint32_t recreated = atomic_load_explicit(&s->shared.recreated, memory_order_acquire);

    for (size_t i = 0; s->loader.recreated != recreated && i < LOADER_CACHE_SLOTS; i++)
        cache_drop(s, i);
    s->loader.recreated = recreated;
}

/* A negative errno. */
static int slice_begin(struct shard *s, struct slice *slice)
{
    int rc;

    cache_look(s); /* first: a commit behind it is seen by the next slice */
    rc = s->loader.txn == NULL ? mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->loader.txn)
                               : mdb_txn_renew(s->loader.txn);
    if (rc != 0)
        return lmdb_errno(rc);
    *slice = (struct slice){
        .runs = {{.shard = s, .class = ROW_FRESH}, {.shard = s, .class = ROW_LATER}}};
    for (int i = 0; i < RUNS && rc == 0; i++)
        rc = mdb_cursor_open(s->loader.txn, s->rows, &slice->runs[i].at);
    if (rc != 0)
        slice_end(s, slice);
    return lmdb_errno(rc);
}

/* A damaged key among a lane's is passed by: the rows behind it are well. */
static void run_get(struct run *run, const struct queue_load *load, MDB_cursor_op op)
{
    uint8_t prefix[ROW_KEY_MAX];
    size_t len = codec_row_prefix(prefix, run->class, load->flow, load->queue);

    while ((run->rc = mdb_cursor_get(run->at, &run->key, &run->value, op)) == 0) {
        if (run->key.mv_size < len || memcmp(run->key.mv_data, prefix, len) != 0) {
            run->rc = MDB_NOTFOUND;
            return;
        }
        if (codec_row_key_parse(val_str(&run->key), &run->row))
            return;
        shard_suspect(run->shard, val_str(&run->key), "row key is damaged");
        op = MDB_NEXT;
    }
}

/* To the first row that is due at due_ms or later. */
static void run_seek(struct run *run, const struct queue_load *load, int64_t due_ms)
{
    uint8_t bytes[ROW_KEY_MAX];

    run->key.mv_size = codec_row_bound(bytes, run->class, load->flow, load->queue, due_ms);
    run->key.mv_data = bytes;
    run_get(run, load, MDB_SET_RANGE);
}

/* --- messages --- */

static struct message *cache_find(struct shard *s, const struct msgid *id)
{
    for (size_t i = 0; i < LOADER_CACHE_SLOTS; i++) {
        struct message *m = s->loader.cache[i];

        if (m != NULL && memcmp(&m->id, id, sizeof(*id)) == 0)
            return message_ref(m);
    }
    return NULL;
}

static void cache_drop(struct shard *s, size_t slot)
{
    struct message *m = s->loader.cache[slot];

    if (m == NULL)
        return;
    ASSERT(s->loader.cache_bytes >= m->content_len);
    s->loader.cache_bytes -= m->content_len;
    s->loader.cache[slot] = NULL;
    message_unref(m);
}

/* Messages of one recipient are never asked for again. */
static void cache_add(struct shard *s, struct message *m)
{
    if (m->recipients == 1 || m->content_len > LOADER_CACHE_BYTES_MAX)
        return;
    for (size_t i = 0;
         i < LOADER_CACHE_SLOTS && s->loader.cache_bytes + m->content_len > LOADER_CACHE_BYTES_MAX;
         i++)
        cache_drop(s, (s->loader.cache_next + i) % LOADER_CACHE_SLOTS);
    cache_drop(s, s->loader.cache_next);
    s->loader.cache[s->loader.cache_next] = message_ref(m);
    s->loader.cache_bytes += m->content_len;
    s->loader.cache_next = (s->loader.cache_next + 1) % LOADER_CACHE_SLOTS;
    ASSERT(s->loader.cache_bytes <= LOADER_CACHE_BYTES_MAX);
}

static const char *content_fault(int err)
{
    if (err == -ENOENT)
        return "its content is missing";
    return err == -EPROTO ? "its content is of a newer version" : "its content is damaged";
}

/* --- loading a lane --- */

static int load_row(struct shard *s, struct queue_load *load, size_t *loaded_bytes,
                    const struct row_key *row, struct str key, const MDB_val *value)
{
    const struct queue_flow *flow;
    struct row_state state;
    struct recipient *r;
    struct message *m;
    int err = shard_readable(s, value) ? codec_row_decode(key, val_str(value), &state) : -EBADMSG;

    if (err < 0) {
        shard_suspect(s, key, err == -EPROTO ? "row is of a newer version" : "row is damaged");
        return -EBADMSG;
    }
    m = cache_find(s, &row->id);
    if (m == NULL) {
        m = load->header_only ? read_header_alone(s, s->loader.txn, &row->id, &err)
                              : read_message(s, s->loader.txn, &row->id, &err);
        if (m == NULL && (err == -ENOENT || err == -EBADMSG || err == -EPROTO)) {
            shard_suspect(s, key, content_fault(err));
            return -EBADMSG;
        }
        if (m == NULL) /* what is prepared is passed by */
            return err == -EAGAIN ? -EBADMSG : err;
        *loaded_bytes += m->content_len;
        if (!load->header_only)
            cache_add(s, m);
    }
    r = recipient_new(m, row->index, row->queue, state.address, state.orcpt, state.variables);
    message_unref(m);
    /* Without the fields of a newer build the row would be stored anew without them. */
    if (r == NULL || recipient_set_unknown(r, state.unknown) < 0) {
        recipient_free(r);
        return -ENOMEM;
    }
    r->due_ms = row->due_ms;
    r->flow = row->flow;
    flow = queue_flow_find(s->queue, row->flow);
    if (flow != NULL)
        r->priority = flow->priority;
    r->notify = state.notify;
    r->flags = state.flags;
    r->lifetime_s = state.lifetime_s;
    r->attempts = state.attempts;
    r->last_attempt_ms = state.last_attempt_ms;
    recipient_set_error(r, state.last_error);
    list_push_back(&load->rcpts, &r->node);
    return 0;
}

/* The first row of a run that is not due. An LMDB code. */
static int run_next_due(struct run *run, struct queue_load *load)
{
    run_seek(run, load, load->now_ms < QUEUE_DUE_HELD ? load->now_ms + 1 : QUEUE_DUE_HELD);
    if (run->rc == 0 && run->row.due_ms > load->now_ms && run->row.due_ms < load->next_due_ms)
        load->next_due_ms = run->row.due_ms;
    return run->rc == MDB_NOTFOUND ? 0 : run->rc;
}

/* Ends the run at the first row that is not due. */
static void run_want(struct run *run, const struct queue_load *load)
{
    if (run->rc == 0 && run->row.due_ms > load->now_ms)
        run->rc = MDB_NOTFOUND;
}

static struct str run_tail(const struct run *run)
{
    ASSERT(run->rc == 0 && run->key.mv_size > ROW_KEY_TAIL);
    return (struct str){(const char *)run->key.mv_data + run->key.mv_size - ROW_KEY_TAIL,
                        ROW_KEY_TAIL};
}

/* Where the load goes on: its cursor is the tail of the last row's key, which orders both runs. */
static void run_begin(struct run *run, const struct queue_load *load)
{
    uint8_t bytes[ROW_KEY_MAX];

    if (load->cursor.len == 0) {
        run_seek(run, load, load->from_ms);
    } else {
        ASSERT(load->cursor.len == ROW_KEY_TAIL);
        run->key.mv_size = codec_row_prefix(bytes, run->class, load->flow, load->queue);
        run->key.mv_data = bytes;
        memcpy(bytes + run->key.mv_size, load->cursor.key, load->cursor.len);
        run->key.mv_size += load->cursor.len;
        run_get(run, load, MDB_SET_RANGE);
        if (run->rc == 0 && memcmp(run_tail(run).ptr, load->cursor.key, load->cursor.len) == 0)
            run_get(run, load, MDB_NEXT);
    }
    run_want(run, load);
}

/* The run that is next by due time. An LMDB code; MDB_NOTFOUND: both have ended. */
static int slice_next(struct slice *slice, struct run **out)
{
    *out = NULL;
    for (int i = 0; i < RUNS; i++) {
        struct run *run = &slice->runs[i];

        if (run->rc == 0 &&
            (*out == NULL || memcmp(run_tail(run).ptr, run_tail(*out).ptr, ROW_KEY_TAIL) < 0))
            *out = run;
        else if (run->rc != 0 && run->rc != MDB_NOTFOUND)
            return run->rc;
    }
    return *out == NULL ? MDB_NOTFOUND : 0;
}

/* One slice of a load. 1: the load has ended, 0: more, or a negative errno. */
static int load_slice(struct shard *s, struct queue_load *load, uint32_t *rows_loaded,
                      uint64_t *bytes_loaded)
{
    struct slice slice;
    struct run *run;
    size_t bytes = 0;
    int err = slice_begin(s, &slice), rc;

    if (err < 0)
        return err;
    for (int i = 0; i < RUNS; i++)
        run_begin(&slice.runs[i], load);
    rc = slice_next(&slice, &run);
    for (unsigned n = 0; rc == 0 && n < SLICE_ROWS && bytes < SLICE_BYTES &&
                         *rows_loaded < load->rows_max && *bytes_loaded + bytes < load->bytes_max;
         n++) {
        err = load_row(s, load, &bytes, &run->row, val_str(&run->key), &run->value);
        if (err < 0 && err != -EBADMSG)
            break;
        *rows_loaded += err == 0;
        err = 0;
        cursor_set(&load->cursor, run_tail(run));
        run_get(run, load, MDB_NEXT);
        run_want(run, load);
        rc = slice_next(&slice, &run);
    }
    ASSERT(*rows_loaded <= load->rows_max);
    load->end = err == 0 && rc == MDB_NOTFOUND;
    if (load->end)
        rc = run_next_due(&slice.runs[0], load);
    if (load->end && rc == 0)
        rc = run_next_due(&slice.runs[1], load);
    *bytes_loaded += bytes;
    slice_end(s, &slice);
    if (err < 0)
        return err;
    if (rc != 0)
        return lmdb_errno(rc);
    return load->end || *rows_loaded >= load->rows_max || *bytes_loaded >= load->bytes_max;
}

/* The rows that were asked for by key. */
static int load_exact(struct shard *s, struct queue_load *load, size_t from, size_t to)
{
    struct slice slice;
    uint8_t bytes[ROW_KEY_MAX];
    MDB_val key, value;
    struct row_key row;
    size_t content_bytes = 0;
    int err = slice_begin(s, &slice), rc;

    if (err < 0)
        return err;
    for (size_t i = from; i < to && err == 0; i++) {
        const struct queue_row_key *k = &load->exact[i];

        ASSERT(k->queue.len <= QUEUE_NAME_MAX);
        key.mv_size = codec_row_key(bytes, k->flow, k->queue, k->due_ms, &k->id, k->index);
        key.mv_data = bytes;
        rc = mdb_cursor_get(slice.runs[0].at, &key, &value, MDB_SET_KEY);
        if (rc == 0 && codec_row_key_parse(val_str(&key), &row))
            err = load_row(s, load, &content_bytes, &row, val_str(&key), &value);
        else if (rc != 0 && rc != MDB_NOTFOUND)
            err = lmdb_errno(rc);
        if (err == -EBADMSG)
            err = 0;
    }
    slice_end(s, &slice);
    return err;
}

static int run_load_exact(struct shard *s, struct queue_load *load)
{
    int err = 0;

    for (size_t at = 0; at < load->exact_len && err == 0; at += SLICE_ROWS)
        err = load_exact(s, load, at,
                         at + SLICE_ROWS < load->exact_len ? at + SLICE_ROWS : load->exact_len);
    return err;
}

static int run_load_lane(struct shard *s, struct queue_load *load)
{
    uint64_t bytes = 0;
    uint32_t rows = 0;
    int err;

    if (load->queue.len == 0 || load->queue.len > QUEUE_NAME_MAX)
        return -EINVAL;
    if (load->alive_bytes_max != 0 && message_bytes_alive() >= load->alive_bytes_max)
        return 0;
    do {
        err = load_slice(s, load, &rows, &bytes);
    } while (err == 0);
    return err < 0 ? err : 0;
}

static int run_load(struct shard *s, struct queue_load *load)
{
    struct list_node *node;
    int err;

    load->end = false;
    load->next_due_ms = INT64_MAX;
    err = load->exact != NULL ? run_load_exact(s, load) : run_load_lane(s, load);
    while (err < 0 && (node = list_pop_front(&load->rcpts)) != NULL)
        recipient_free(CONTAINER_OF(node, struct recipient, node));
    ASSERT(err <= 0 && load->next_due_ms > load->now_ms);
    return err;
}

/* --- the directory --- */

static int directory_add(struct queue_directory *d, uint32_t flow, struct str name,
                         int64_t first_due_ms)
{
    /* Names are placed by offset until the end, since the memory moves while it grows. */
    ASSERT(d->lanes_len < d->lanes_max && name.len > 0);
    if (buf_reserve(&d->memory, name.len) < 0)
        return -ENOMEM;
    d->lanes[d->lanes_len++] =
        (struct queue_lane_entry){.flow = flow,
                                  .name = {(const char *)d->memory.len, name.len},
                                  .first_due_ms = first_due_ms};
    buf_put(&d->memory, name.ptr, name.len);
    return 0;
}

/* What names a lane among all: the beginning of its keys behind the class. The directory's cursor
 * has this form too. */
struct lane_id {
    size_t len;
    uint8_t bytes[ROW_KEY_MAX];
};

static struct str lane_id_name(const struct lane_id *id)
{
    return (struct str){(const char *)id->bytes + 4, id->len - 4};
}

static uint32_t lane_id_flow(const struct lane_id *id)
{
    return (uint32_t)id->bytes[0] << 24 | (uint32_t)id->bytes[1] << 16 |
           (uint32_t)id->bytes[2] << 8 | id->bytes[3];
}

/* To the first row behind the lane id; id.len 0: of the first lane. */
static void run_lane_after(struct run *run, const struct lane_id *id)
{
    uint8_t bytes[ROW_KEY_MAX];
    MDB_cursor_op op = MDB_SET_RANGE;

    ASSERT(id->len == 0 || (id->len > 4 && id->len <= 4 + QUEUE_NAME_MAX));
    bytes[0] = (uint8_t)run->class;
    memcpy(bytes + 1, id->bytes, id->len);
    /* name NUL: its rows; name 0x01: behind them, before any longer name's. */
    bytes[1 + id->len] = 1;
    run->key = (MDB_val){id->len == 0 ? 1 : 1 + id->len + 1, bytes};
    while ((run->rc = mdb_cursor_get(run->at, &run->key, &run->value, op)) == 0 &&
           !codec_row_key_parse(val_str(&run->key), &run->row)) {
        shard_suspect(run->shard, val_str(&run->key), "row key is damaged");
        op = MDB_NEXT;
    }
    if (run->rc == 0 && run->row.class != run->class)
        run->rc = MDB_NOTFOUND;
}

/* The order of two lanes as that of their rows' keys. */
static int run_order(const struct run *a, const struct run *b)
{
    if (a->row.flow != b->row.flow)
        return a->row.flow < b->row.flow ? -1 : 1;
    return strcmp(a->row.queue.ptr, b->row.queue.ptr); /* keys have a NUL behind the name */
}

/* Finds the first lane that a run is at. An LMDB code. */
static int slice_next_lane(struct slice *slice, struct lane_id *id)
{
    struct run *first = NULL;

    for (int i = 0; i < RUNS; i++) {
        struct run *run = &slice->runs[i];

        if (run->rc != 0 && run->rc != MDB_NOTFOUND)
            return run->rc;
        if (run->rc == 0 && (first == NULL || run_order(run, first) < 0))
            first = run;
    }
    if (first == NULL)
        return MDB_NOTFOUND;
    id->len = 4 + first->row.queue.len;
    memcpy(id->bytes, (const uint8_t *)first->key.mv_data + 1, id->len);
    return 0;
}

/* Gives the due time of the first row of the lane that run is at, and moves on to the next lane. */
static int64_t run_pass_lane(struct run *run, uint32_t flow, const struct lane_id *id)
{
    int64_t first_ms;

    if (run->rc != 0 || run->row.flow != flow || !str_eq(run->row.queue, lane_id_name(id)))
        return INT64_MAX;
    first_ms = run->row.due_ms;
    run_lane_after(run, id);
    return first_ms;
}

/* One slice. 1: ended, 0: more, or a negative errno. The cursor is the last lane's id. */
static int directory_slice(struct shard *s, struct queue_directory *d)
{
    struct lane_id id = {.len = d->cursor.len};
    struct slice slice;
    int err = slice_begin(s, &slice), rc;

    if (err < 0)
        return err;
    memcpy(id.bytes, d->cursor.key, id.len);
    for (int i = 0; i < RUNS; i++)
        run_lane_after(&slice.runs[i], &id);
    rc = slice_next_lane(&slice, &id);
    for (unsigned n = 0; rc == 0 && err == 0 && n < SLICE_LANES && d->lanes_len < d->lanes_max;
         n++) {
        int64_t first_ms = INT64_MAX;
        uint32_t flow = lane_id_flow(&id);

        for (int i = 0; i < RUNS; i++) {
            int64_t ms = run_pass_lane(&slice.runs[i], flow, &id);

            first_ms = ms < first_ms ? ms : first_ms;
        }
        err = directory_add(d, flow, lane_id_name(&id), first_ms);
        cursor_set(&d->cursor, (struct str){(char *)id.bytes, id.len});
        rc = slice_next_lane(&slice, &id);
    }
    slice_end(s, &slice);
    ASSERT(d->lanes_len <= d->lanes_max);
    d->end = rc == MDB_NOTFOUND;
    if (err == 0 && rc != 0 && rc != MDB_NOTFOUND)
        err = lmdb_errno(rc);
    return err < 0 ? err : d->end || d->lanes_len >= d->lanes_max;
}

static int run_directory(struct shard *s, struct queue_directory *d)
{
    struct queue_cursor from = d->cursor;
    int err;

    d->end = false;
    d->lanes = calloc(d->lanes_max > 0 ? d->lanes_max : 1, sizeof(*d->lanes));
    if (d->lanes == NULL)
        return -ENOMEM;
    do {
        err = directory_slice(s, d);
    } while (err == 0);
    if (err < 0) {
        d->cursor = from; /* the lanes of its first slices are not handed over */
        queue_directory_done(d);
        return err;
    }
    for (size_t i = 0; i < d->lanes_len; i++)
        d->lanes[i].name.ptr = (const char *)d->memory.data + (size_t)d->lanes[i].name.ptr;
    return 0;
}

/* --- the thread --- */

static void loader_trim(struct shard *s)
{
    if (maps_are_large(s->queue))
        shard_trim(s);
}

/* Loads that have ended go back together, so that their worker is woken once for them: a load of a
 * lane of one row takes less than a wake. None waits for more than some others, or for long. */
static size_t run_loads(struct shard *s, struct list *loads)
{
    struct list ended;
    struct list_node *node;
    struct queue_port *port = NULL;
    uint64_t since_ns = 0;
    size_t all = 0, len = 0;

    list_init(&ended);
    for (; (node = list_pop_front(loads)) != NULL; all++) {
        struct queue_load *load = CONTAINER_OF(node, struct queue_load, node);

        ASSERT(load->port != NULL);
        if (len > 0 &&
            (load->port != port || len == HAND_LOADS || clock_mono_ns() - since_ns > HAND_NS)) {
            port_loads_done(port, &ended);
            loader_trim(s);
            len = 0;
        }
        if (len++ == 0)
            since_ns = clock_mono_ns();
        port = load->port;
        load->result = run_load(s, load);
        list_push_back(&ended, &load->node);
    }
    if (len > 0)
        port_loads_done(port, &ended);
    loader_trim(s);
    return all;
}

size_t loader_round(struct shard *s)
{
    struct list loads, directories, walks;
    struct list_node *node;
    size_t ended = 0;

    list_init(&loads);
    list_init(&walks);
    list_init(&directories);
    mailbox_take(&s->directories, &directories);
    mailbox_take(&s->loads, &loads);
    mailbox_take(&s->walks, &walks);
    for (; (node = list_pop_front(&directories)) != NULL; ended++) {
        struct queue_directory *d = CONTAINER_OF(node, struct queue_directory, node);

        port_directory_done(d, run_directory(s, d));
        loader_trim(s);
    }
    ended += run_loads(s, &loads);
    for (; (node = list_pop_front(&walks)) != NULL; ended++) {
        struct queue_walk *walk = CONTAINER_OF(node, struct queue_walk, node);
        int rc = queue_visit(s->queue, s->index, &walk->cursor, &walk->what);

        walk->end = rc == 1;
        port_walk_done(walk, rc < 0 ? rc : 0);
    }
    return ended;
}

void loader_done(struct shard *s)
{
    for (size_t i = 0; i < LOADER_CACHE_SLOTS; i++)
        cache_drop(s, i);
    ASSERT(s->loader.cache_bytes == 0);
    if (s->loader.txn != NULL)
        mdb_txn_abort(s->loader.txn);
    s->loader.txn = NULL;
}

void *loader_main(void *arg)
{
    struct shard *s = arg;
    struct pollfd fd = {.fd = s->loader_event, .events = POLLIN};
    uint64_t count;

    while (!atomic_load_explicit(&s->stop_loader, memory_order_acquire)) {
        if (loader_round(s) > 0)
            continue;
        if (poll(&fd, 1, -1) > 0 && read(s->loader_event, &count, sizeof(count)) < 0)
            continue; /* the mailbox is looked at anyway */
    }
    return NULL;
}

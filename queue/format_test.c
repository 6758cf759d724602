/* Format 3 as the build wrote it that made it final: formats/3-shard-*.zst are the two shards of a
 * queue whose process died, with one of each thing that can be stored. Every later build opens it,
 * delivers what is mail, and keeps what it does not know.
 *
 *   format_test --make FOLDER    writes such files anew; of a format that is final nobody does */
#include "queue/testkit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zstd.h>

#include "base/crc32c.h"
#include "queue/spread.h"
#include "queue/testkit_fsck.h"

#define SHARDS     2
#define CREATED_MS INT64_C(1764500000000) /* 30 November 2025 */
#define HOUR_MS    INT64_C(3600000)
#define FILE_MAX   (4u << 20)
#define LATER_KIND 200 /* of a state that a later build stored */

/* --- what is in it --- */

/* Letters by number; a letter's id and content follow from its number. */
enum { ONE = 1, THREE, SPREAD, DECIDED, REFUSED, PINNED, LATER, QUARANTINED, SUSPENDED, LETTERS };

static const size_t sizes[LETTERS] = {
    [ONE] = 300,     [THREE] = 9000, [SPREAD] = 4500,     [DECIDED] = 2500, [REFUSED] = 900,
    [PINNED] = 5000, [LATER] = 400,  [QUARANTINED] = 200, [SUSPENDED] = 500};

struct stored_row {
    uint8_t letter;
    uint8_t index;
    uint8_t shard;
    const char *queue;
    int64_t due_ms; /* from CREATED_MS on; 0: at once, QUEUE_DUE_HELD: held */
    uint16_t attempts;
    const char *orcpt, *error, *variables, *unknown;
};

static const struct stored_row rows[] = {
    {ONE, 0, 0, "a.example", 0, 0, "", "", "", ""},
    {THREE, 0, 1, "a.example", HOUR_MS, 2, "rfc822;user0@a.example", "450 4.2.0 later", "", ""},
    {THREE, 1, 1, "b.example", 0, 0, "", "", "{\"name\":\"B\"}", ""},
    {THREE, 2, 1, "c.example", QUEUE_DUE_HELD, 0, "", "", "", ""},
    {SPREAD, 0, 0, "a.example", 0, 0, "", "", "", ""},
    {SPREAD, 1, 0, "b.example", 0, 0, "", "", "", ""},
    {SPREAD, 2, 1, "a.example", 0, 0, "", "", "", ""},
    {SPREAD, 3, 1, "b.example", 0, 0, "", "", "", ""},
    {DECIDED, 0, 0, "a.example", 0, 0, "", "", "", ""},
    {DECIDED, 1, 1, "a.example", 0, 0, "", "", "", ""},
    {LATER, 0, 1, "d.example", 0, 0, "", "", "", "\x40\x03new\x7f\x01!"},
    {SUSPENDED, 0, 0, "s.example", 0, 0, "", "", "", ""},
};
static const struct stored_row refused[] = {{REFUSED, 0, 0, "a.example", 0, 0, "", "", "", ""},
                                            {REFUSED, 1, 1, "a.example", 0, 0, "", "", "", ""}};
static const struct stored_row suspect = {QUARANTINED, 0, 0, "q.example", 0, 0, "", "", "", ""};

static const struct str later_key = STR("\xc8"
                                        "campaign/spring"),
                        later_value = STR("its counters");
static const struct str suspension_key = STR("\x02\x01s.example");
static const struct str suspension_value = {"\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04wait\x02me",
                                            25};

static struct msgid letter_id(uint8_t letter)
{
    struct msgid id = {{0}};
    uint64_t ms = (uint64_t)(CREATED_MS + letter);

    for (int i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    id.bytes[6] = 0x70;
    id.bytes[8] = 0x80;
    id.bytes[15] = letter;
    return id;
}

/* A letter as it is on the wire, so that an engine can send it. */
static void letter_content(uint8_t letter, char *out)
{
    size_t len = sizes[letter], at;

    at = (size_t)snprintf(out, len,
                          "From: <from@sender.example>\r\nTo: <all@example>\r\n"
                          "Subject: letter %u\r\n\r\n",
                          letter);
    for (size_t i = 0; at < len; i++, at++)
        out[at] = i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : (char)('a' + (i + letter) % 26);
    memcpy(out + len - 2, "\r\n", 2);
    if (out[len - 3] == '\r')
        out[len - 3] = '.';
}

static int64_t row_due_ms(const struct stored_row *row)
{
    int64_t ms = CREATED_MS + row->letter;

    return row->due_ms == QUEUE_DUE_HELD ? QUEUE_DUE_HELD : ms + row->due_ms;
}

/* --- making it: without threads, so that it ends where it is to end --- */

static struct queue *made;
static struct queue_port *made_port;

static struct message *letter_make(uint8_t letter, uint32_t recipients)
{
    struct message fields = {.id = letter_id(letter),
                             .created_ms = CREATED_MS + letter,
                             .flags = MESSAGE_DOT_LINES,
                             .priority = letter == ONE ? 2 : 5,
                             .recipients = recipients,
                             .sender = STR("from@sender.example"),
                             .envid = STR("env"),
                             .tenant = STR("acme"),
                             .campaign = STR("spring"),
                             .meta = STR("{\"k\":1}"),
                             .protocol = STR("ESMTP"),
                             .origin = STR("192.0.2.1:4711"),
                             .content_len = sizes[letter]};
    const struct queue_flow *flow =
        queue_flow_get(made, fields.priority, fields.tenant, fields.campaign, STR(""));
    struct message *m;

    fields.flow = flow->id;
    fields.content = malloc(fields.content_len + 200);
    ASSERT(fields.content != NULL);
    letter_content(letter, (char *)fields.content);
    m = message_new(&fields);
    ASSERT(m != NULL);
    return m;
}

static struct recipient *row_make(struct message *m, const struct stored_row *row)
{
    char address[64];
    struct recipient *r;

    snprintf(address, sizeof(address), "user%u@%s", row->index, row->queue);
    r = recipient_new(m, row->index, str_of(row->queue), str_of(address), str_of(row->orcpt),
                      str_of(row->variables));
    ASSERT(r != NULL && recipient_set_unknown(r, str_of(row->unknown)) == 0);
    r->due_ms = row_due_ms(row);
    r->flags = row->due_ms == QUEUE_DUE_HELD ? RECIPIENT_HELD : 0;
    r->attempts = row->attempts;
    r->last_attempt_ms = row->attempts > 0 ? CREATED_MS + HOUR_MS / 2 : 0;
    r->lifetime_s = UINT32_MAX; /* it is mail for a hundred years */
    r->notify = row->orcpt[0] != 0 ? 4 : 0;
    recipient_set_error(r, str_of(row->error));
    return r;
}

static void made_done(struct queue_change *change, int result)
{
    (void)change;
    ASSERT(result == 0);
}

static void commit(uint32_t shard, struct queue_change *change)
{
    size_t ended = 0;

    change->urgent = true;
    change->on_done = made_done;
    queue_submit(made_port, shard, change);
    while (ended == 0) {
        queue_pump_part(made, shard, QUEUE_COMMITTER);
        ended = queue_port_poll(made_port);
    }
}

/* All rows of a letter, which are in one shard. */
static void make_letter(uint8_t letter, const struct stored_row *from, size_t len)
{
    struct queue_row out[SHARDS * 4] = {{0}};
    struct message *m = letter_make(letter, (uint32_t)len);
    struct queue_change change = {.messages = &m, .messages_len = 1, .rows = out, .rows_len = len};

    for (size_t i = 0; i < len; i++)
        out[i] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = row_make(m, &from[i])};
    buf_printf(&change.records, "{\"type\":\"Reception\",\"recipient\":\"letter %u\"}\n", letter);
    commit(from->shard, &change);
}

static void spread_done(struct queue_spread *s, int result)
{
    (void)s;
    ASSERT(result == 0);
}

static void spread_whole(struct queue_spread *s, uint32_t shard)
{
    (void)s, (void)shard;
}

static void spread_end(struct queue_spread *s)
{
    (void)s;
}

/* A message in both shards; steps: how many commits of shards 1 and 0, in turn, it gets. */
static void make_spread(struct queue_port *port, uint8_t letter, const struct stored_row *from,
                        size_t len, unsigned steps)
{
    struct queue_spread *s = calloc(1, sizeof(*s));
    struct queue_row *out = calloc(len, sizeof(*out));
    struct message *m = letter_make(letter, (uint32_t)len);

    s->parts = calloc(SHARDS, sizeof(*s->parts));
    s->parts_len = SHARDS;
    s->on_done = spread_done;
    s->on_whole = spread_whole;
    s->on_end = spread_end;
    for (uint32_t i = 0; i < SHARDS; i++)
        s->parts[i].message = i == 0 ? m : message_share(m);
    for (size_t i = 0; i < len; i++) {
        struct queue_spread_part *part = &s->parts[from[i].shard];

        if (part->rows_len++ == 0)
            part->rows = &out[i];
        out[i] =
            (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = row_make(part->message, &from[i])};
    }
    buf_printf(&s->records, "{\"type\":\"Reception\",\"recipient\":\"letter %u\"}\n", letter);
    queue_spread_submit(port, s);
    for (unsigned i = 0; i < steps; i++) {
        while (queue_pump_part(made, 1 - i % SHARDS, QUEUE_COMMITTER) == 0)
            poll(NULL, 0, 5); /* what nobody waits for waits for company */
        if (port == made_port)
            queue_port_poll(port);
    }
}

/* What this build cannot write: a field in a content's head, and a reference that is no row. */
static void make_later(void)
{
    static const char field[] = "\x40\x04more"; /* tag, length, bytes */
    struct shard *s = made->shards[1];
    struct msgid id = letter_id(LATER), pinned = letter_id(PINNED);
    MDB_val key = {MSGID_BYTES, id.bytes}, value;
    uint8_t head[2048], refs[REFS_BYTES];
    struct content_record record;
    struct message fields;
    size_t head_len, more = sizeof(field) - 1;
    uint32_t crc;
    MDB_txn *txn;

    ASSERT(mdb_txn_begin(s->env, NULL, 0, &txn) == 0 &&
           mdb_get(txn, s->content, &key, &value) == 0 &&
           codec_content_decode(&id, val_str(&value), &fields, &record) == 0);
    head_len = value.mv_size - record.tail.len;
    memcpy(head, value.mv_data, head_len);
    memcpy(head + head_len, field, more);
    memcpy(head + head_len + more, record.tail.ptr, record.tail.len);
    value = (MDB_val){value.mv_size + more, head};
    head_len += more;
    memcpy(head + 5, &(uint32_t){(uint32_t)head_len}, 4);
    crc = crc32c(crc32c(0, id.bytes, MSGID_BYTES), head + 4, head_len - 4);
    memcpy(head, &crc, sizeof(crc));
    ASSERT(mdb_put(txn, s->content, &key, &value, 0) == 0 && mdb_txn_commit(txn) == 0);
    s = made->shards[0];
    codec_refs_encode(refs, &pinned, 1);
    key.mv_data = pinned.bytes;
    value = (MDB_val){sizeof(refs), refs};
    ASSERT(mdb_txn_begin(s->env, NULL, 0, &txn) == 0 &&
           mdb_put(txn, s->refs, &key, &value, 0) == 0 && mdb_txn_commit(txn) == 0);
}

static void make_quarantined(void)
{
    struct shard *s = made->shards[0];
    struct msgid id = letter_id(QUARANTINED);
    uint8_t bytes[ROW_KEY_MAX];
    MDB_val key = {0, bytes}, value;
    MDB_txn *txn;

    make_letter(QUARANTINED, &suspect, 1);
    key.mv_size =
        codec_row_key(bytes, queue_flow_get(made, 5, STR("acme"), STR("spring"), STR(""))->id,
                      str_of(suspect.queue), row_due_ms(&suspect), &id, 0);
    ASSERT(mdb_txn_begin(s->env, NULL, 0, &txn) == 0 && mdb_get(txn, s->rows, &key, &value) == 0 &&
           quarantine_put(txn, s->quarantine, QUARANTINE_ROWS, val_str(&key), val_str(&value),
                          "row is damaged") == 0 &&
           mdb_del(txn, s->rows, &key, NULL) == 0 && mdb_txn_commit(txn) == 0);
}

static void make_states(void)
{
    const struct queue_state states[] = {{.key = later_key, .value = later_value},
                                         {.key = suspension_key, .value = suspension_value}};

    commit(0, &(struct queue_change){.states = states, .states_len = ARRAY_LEN(states)});
}

static size_t rows_of(uint8_t letter, const struct stored_row **first)
{
    size_t n = 0;

    *first = NULL;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].letter != letter)
            continue;
        if (n++ == 0)
            *first = &rows[i];
    }
    return n;
}

static void make_in(const char *dir)
{
    struct queue_options options = {.path = dir,
                                    .shards = SHARDS,
                                    .map_bytes = FILE_MAX,
                                    .disk_free_bytes_min = 1,
                                    .no_threads = true};
    const struct stored_row *from;
    struct queue_port *forgotten;
    struct message *pinned;
    const char *error;
    char *records;
    size_t len;

    ASSERT(asprintf(&records, "%s/records", dir) > 0);
    options.records.path = records;
    if (queue_open(&made, &options, &error) < 0) {
        fprintf(stderr, "%s\n", error);
        _exit(1);
    }
    ASSERT(queue_port_open(&made_port, made, NULL, NULL) == 0 &&
           queue_port_open(&forgotten, made, NULL, NULL) == 0);
    for (uint8_t letter = ONE; letter < LETTERS; letter++) {
        len = rows_of(letter, &from);
        if (letter == SPREAD)
            make_spread(made_port, letter, from, len, 4); /* prepared, decided, whole, forgotten */
        else if (len > 0 && letter != DECIDED)
            make_letter(letter, from, len);
    }
    pinned = letter_make(PINNED, 0);
    commit(0, &(struct queue_change){.messages = &pinned, .messages_len = 1});
    make_quarantined();
    make_states();
    make_later();
    make_spread(forgotten, REFUSED, refused, ARRAY_LEN(refused), 1);
    (void)rows_of(DECIDED, &from);
    make_spread(made_port, DECIDED, from, 2, 2);
    _exit(0); /* as if it was killed */
}

static char *file_of(const char *dir, const char *prefix, unsigned shard, const char *suffix)
{
    char *path;

    ASSERT(asprintf(&path, "%s/%sshard-%03u%s", dir, prefix, shard, suffix) > 0);
    return path;
}

static size_t file_read(const char *path, void *out, size_t max)
{
    FILE *f = fopen(path, "re");
    size_t n;

    if (f == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    n = fread(out, 1, max, f);
    ASSERT(n < max);
    fclose(f);
    return n;
}

static void file_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "we");

    ASSERT(f != NULL && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

static int make(const char *out)
{
    static char plain[FILE_MAX], packed[FILE_MAX];
    char *dir = kit_dir();
    int status;

    if (fork() == 0)
        make_in(dir);
    ASSERT(wait(&status) > 0 && status == 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        size_t n = file_read(file_of(dir, "", i, "/data.mdb"), plain, sizeof(plain));

        n = ZSTD_compress(packed, sizeof(packed), plain, n, 19);
        ASSERT(!ZSTD_isError(n));
        file_write(file_of(out, "3-", i, ".zst"), packed, n);
    }
    kit_remove(dir);
    return 0;
}

/* --- opening it --- */

struct fixture {
    struct kit_queue queue;
    char *records;
};

static int setup(void **state)
{
    static char plain[FILE_MAX], packed[FILE_MAX];
    struct fixture *f = calloc(1, sizeof(*f));

    f->queue.dir = kit_dir();
    for (unsigned i = 0; i < SHARDS; i++) {
        char *path = file_of(TEST_SOURCE_DIR "/formats", "3-", i, ".zst");
        size_t n = file_read(path, packed, sizeof(packed));

        n = ZSTD_decompress(plain, sizeof(plain), packed, n);
        assert_false(ZSTD_isError(n));
        free(path);
        path = file_of(f->queue.dir, "", i, "");
        assert_int_equal(mkdir(path, 0700), 0);
        free(path);
        path = file_of(f->queue.dir, "", i, "/data.mdb");
        file_write(path, plain, n);
        free(path);
    }
    assert_true(asprintf(&f->records, "%s.records", f->queue.dir) > 0);
    f->queue.options = (struct queue_options){
        .path = f->queue.dir, .map_bytes = UINT64_C(1) << 28, .records = {.path = f->records}};
    kit_queue_open(&f->queue);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->queue.q != NULL)
        kit_queue_close(&f->queue);
    kit_remove(f->queue.dir);
    kit_remove(f->records);
    free(f->queue.dir);
    free(f->records);
    free(f);
    assert_int_equal(message_bytes_alive(), 0);
    return 0;
}

static void check_store(struct kit_queue *f)
{
    uint64_t pins = 0, prepared = 0;

    for (uint32_t i = 0; i < SHARDS; i++) {
        const char *wrong = fsck_shard(f->q, i, &pins, &prepared);

        if (wrong != NULL)
            fail_msg("%s", wrong);
    }
    assert_int_equal(pins, 1);
    assert_int_equal(prepared, 0);
}

static const struct stored_row *row_find(const struct recipient *r)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct msgid id = letter_id(rows[i].letter);

        if (memcmp(&id, &r->message->id, sizeof(id)) == 0 && rows[i].index == r->index)
            return &rows[i];
    }
    fail_msg("a row that nobody stored");
    return NULL;
}

static void check_letter(const struct message *m, uint8_t letter)
{
    char content[9200];

    letter_content(letter, content);
    assert_int_equal(m->content_len, sizes[letter]);
    assert_memory_equal(m->content, content, sizes[letter]);
    assert_int_equal(m->created_ms, CREATED_MS + letter);
    assert_int_equal(m->flags, MESSAGE_DOT_LINES);
    assert_true(str_eq(m->sender, STR("from@sender.example")) && str_eq(m->envid, STR("env")));
    assert_true(str_eq(m->tenant, STR("acme")) && str_eq(m->campaign, STR("spring")));
    assert_true(str_eq(m->meta, STR("{\"k\":1}")) && str_eq(m->protocol, STR("ESMTP")));
    assert_true(str_eq(m->origin, STR("192.0.2.1:4711")));
}

static void check_row(struct kit_queue *f, const struct recipient *r, const char *error)
{
    const struct stored_row *row = row_find(r);
    const struct queue_flow *flow = queue_flow_find(f->q, r->flow);
    char address[64];

    snprintf(address, sizeof(address), "user%u@%s", row->index, row->queue);
    assert_true(str_eq(r->address, str_of(address)));
    assert_true(str_eq(r->queue, str_of(row->queue)));
    assert_true(str_eq(r->orcpt, str_of(row->orcpt)));
    assert_true(str_eq(r->variables, str_of(row->variables)));
    assert_true(str_eq(r->unknown, str_of(row->unknown)));
    assert_true(str_eq(r->last_error, str_of(error == NULL ? row->error : error)));
    assert_int_equal(r->attempts, row->attempts + (error != NULL));
    assert_true(r->lifetime_s == UINT32_MAX);
    assert_int_equal(r->flags, row->due_ms == QUEUE_DUE_HELD ? RECIPIENT_HELD : 0);
    if (error == NULL)
        assert_int_equal(r->due_ms, row_due_ms(row));
    assert_non_null(flow);
    assert_int_equal(flow->priority, row->letter == ONE ? 2 : 5);
    assert_true(str_eq(flow->tenant, STR("acme")) && str_eq(flow->campaign, STR("spring")));
    check_letter(r->message, row->letter);
}

struct lanes {
    struct queue_row_key keys[ARRAY_LEN(rows) + 1];
    size_t len;
};

static bool note_row(void *arg, const struct queue_row_view *row)
{
    struct lanes *l = arg;

    assert_true(l->len < ARRAY_LEN(rows));
    l->keys[l->len++] =
        (struct queue_row_key){.flow = row->flow,
                               .queue = {strndup(row->queue.ptr, row->queue.len), row->queue.len},
                               .id = row->id,
                               .index = row->index,
                               .due_ms = row->due_ms};
    return true;
}

/* Reads every row of a shard, checks it, and ends it as kind says. Returns how many there were. */
static size_t each_row(struct kit_queue *f, uint32_t shard, enum queue_row_kind kind,
                       const char *error)
{
    struct lanes lanes = {.len = 0};
    struct queue_visit all = {.rows_max = 100, .visit = note_row, .arg = &lanes};
    struct queue_cursor cursor = {0};
    struct kit_change *c = kit_change();
    struct kit_load load = {.load = {.exact = lanes.keys}};
    struct recipient *loaded[ARRAY_LEN(rows)], *r;
    size_t n = 0;

    assert_int_equal(queue_visit(f->q, shard, &cursor, &all), 1);
    load.load.exact_len = lanes.len;
    assert_int_equal(kit_load(f->q, f->port, shard, &load, "", 0, 0), 0);
    while ((r = kit_pop(&load)) != NULL) {
        check_row(f, r, error);
        kit_row(c, kind, r);
        if (kind == QUEUE_ROW_MOVE) {
            r->due_ms = r->due_ms == QUEUE_DUE_HELD ? r->due_ms : CREATED_MS + 2 * HOUR_MS;
            r->attempts++;
            recipient_set_error(r, STR("451 4.3.2 not today"));
        }
        loaded[n++] = r;
    }
    assert_int_equal(n, lanes.len);
    assert_int_equal(kit_submit(f->q, f->port, shard, c), 0);
    for (size_t i = 0; i < n; i++) {
        recipient_free(loaded[i]);
        free((char *)lanes.keys[i].queue.ptr);
    }
    return n;
}

static void check_states(struct kit_queue *f)
{
    struct buf value = {0};

    assert_int_equal(queue_state_get(f->q, 0, later_key, &value), 0);
    assert_true(str_eq(buf_str(&value), later_value));
    buf_clear(&value);
    assert_int_equal(queue_state_get(f->q, 0, suspension_key, &value), 0);
    assert_true(str_eq(buf_str(&value), suspension_value));
    buf_done(&value);
}

/* The field of a later build in a content's head is there. */
static void check_head(struct kit_queue *f)
{
    struct msgid id = letter_id(LATER);
    int err;
    struct message *m = queue_message_stored(f->q, &id, &err);

    assert_non_null(m);
    assert_non_null(memmem(m->content, m->content_len, "\x40\x04more", 6));
    message_unref(m);
}

static bool take_key(void *arg, const struct queue_quarantined *record)
{
    struct str *key = arg;

    assert_true(record->is_row && str_eq(record->queue, str_of(suspect.queue)));
    assert_true(str_eq(record->address, STR("user0@q.example")) && record->header != NULL);
    *key = (struct str){memcpy(malloc(record->key.len), record->key.ptr, record->key.len),
                        record->key.len};
    return true;
}

static void purge(struct kit_queue *f)
{
    struct queue_cursor cursor = {0};
    struct kit_change *c = kit_change();
    struct str key = {0};

    assert_int_equal(queue_quarantine_visit(f->q, 0, &cursor, 10, take_key, &key), 1);
    assert_non_null(key.ptr);
    c->change.purges = &key;
    c->change.purges_len = 1;
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    free((char *)key.ptr);
}

/* Opened (which also checks every page), read, changed, opened again, delivered: nothing is lost,
 * nothing is left, and what a later build stored is as it was. */
static void test_format_3(void **state)
{
    struct fixture *f = *state;
    struct kit_queue *q = &f->queue;
    struct queue_counters c;
    size_t n = 0;

    assert_int_equal(queue_shards(q->q), SHARDS);
    check_store(q);
    for (uint32_t i = 0; i < SHARDS; i++)
        n += each_row(q, i, QUEUE_ROW_MOVE, NULL);
    assert_int_equal(n, ARRAY_LEN(rows));
    check_head(q);
    kit_queue_reopen(q);
    check_store(q);
    n = 0;
    for (uint32_t i = 0; i < SHARDS; i++)
        n += each_row(q, i, QUEUE_ROW_REMOVE, "451 4.3.2 not today");
    assert_int_equal(n, ARRAY_LEN(rows));
    check_states(q);
    purge(q);
    check_store(q);
    kit_queue_reopen(q);
    check_store(q);
    check_states(q);
    queue_counters(q->q, 0, &c);
    assert_true(c.rows == 0 && c.messages == 1 && c.quarantined == 0); /* the pinned one */
    queue_counters(q->q, 1, &c);
    assert_true(c.rows == 0 && c.messages == 0 && c.pieces == 0);
}

/* Lines of records that were only in the store come to the file, in each shard each once. */
static void test_records(void **state)
{
    static char text[FILE_MAX];
    struct fixture *f = *state;
    char *command;
    FILE *pipe;
    size_t n;

    kit_queue_close(&f->queue);
    assert_true(asprintf(&command, "cat %s/*.jsonl", f->records) > 0);
    pipe = popen(command, "re");
    assert_non_null(pipe);
    n = fread(text, 1, sizeof(text) - 1, pipe);
    text[n] = 0;
    pclose(pipe);
    free(command);
    for (unsigned letter = ONE; letter < LETTERS; letter++) {
        char line[80];
        const char *at;

        snprintf(line, sizeof(line), "{\"type\":\"Reception\",\"recipient\":\"letter %u\"}\n",
                 letter);
        at = strstr(text, line);
        if (letter == PINNED || letter == REFUSED) {
            assert_null(at);
            continue;
        }
        assert_non_null(at);
        assert_null(strstr(at + 1, line));
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_format_3, setup, teardown),
        cmocka_unit_test_setup_teardown(test_records, setup, teardown),
    };

    if (argc == 3 && strcmp(argv[1], "--make") == 0)
        return make(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

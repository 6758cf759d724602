/* Records that cannot be trusted: never sent, named, out of the way; the rest goes on. The damage
 * is done through LMDB, as a bad disk would do it below it. */
#include "queue/testkit.h"

#include "queue/shard.h"

struct fixture {
    char *dir;
    struct queue_options options;
    struct queue *q;
    struct queue_port *port;
    struct msgid ids[3];
    char told[200];
    _Atomic unsigned times_told;
};

static void on_told(void *arg, const struct queue_quarantined *r)
{
    struct fixture *f = arg;
    char id[MSGID_TEXT_BYTES];

    msgid_text(&r->id, id);
    snprintf(f->told, sizeof(f->told), "%u %s %d %.*s %s %.*s", r->shard, r->tree, r->is_row,
             STR_FMT(r->queue), id, STR_FMT(r->reason));
    f->times_told++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->dir = kit_dir();
    f->options = (struct queue_options){
        .path = f->dir, .map_bytes = 64u << 20, .on_quarantined = on_told, .on_quarantined_arg = f};
    assert_int_equal(queue_open(&f->q, &f->options, NULL), 0);
    assert_int_equal(queue_port_open(&f->port, f->q, NULL, NULL), 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct message *m = kit_message(3000, 1, 5);
        struct recipient *r = kit_recipient(m, 0, "a.example", 1000 + i);
        struct kit_change *c = kit_change();

        f->ids[i] = m->id;
        kit_content(c, m);
        kit_row(c, QUEUE_ROW_ADD, r);
        message_unref(m);
        assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
        recipient_free(r);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    queue_port_close(f->port);
    queue_close(f->q);
    kit_remove(f->dir);
    free(f->dir);
    free(f);
    return 0;
}

/* Flips a bit in the middle of the value, or deletes the record. */
static void damage(struct fixture *f, MDB_dbi tree, const void *key, size_t key_len, bool delete)
{
    MDB_val k = {key_len, (void *)(uintptr_t)key}, v;
    uint8_t copy[8192];
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(f->q->shards[0]->env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_get(txn, tree, &k, &v), 0);
    if (delete) {
        assert_int_equal(mdb_del(txn, tree, &k, NULL), 0);
    } else {
        memcpy(copy, v.mv_data, v.mv_size);
        copy[v.mv_size / 2] ^= 0x10;
        v.mv_data = copy;
        assert_int_equal(mdb_put(txn, tree, &k, &v, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
}

struct found {
    unsigned n;
    char reason[100];
    bool address, header;
    char key[1 + ROW_KEY_MAX];
    size_t key_len;
};

static bool on_quarantined(void *arg, const struct queue_quarantined *record)
{
    struct found *found = arg;

    assert_int_equal(record->shard, 0);
    assert_string_equal(record->tree, "rows");
    assert_true(record->is_row);
    assert_true(str_eq(record->queue, STR("a.example")));
    snprintf(found->reason, sizeof(found->reason), "%.*s", STR_FMT(record->reason));
    found->address = str_eq(record->address, STR("user0@a.example"));
    found->header = record->header != NULL;
    memcpy(found->key, record->key.ptr, record->key.len);
    found->key_len = record->key.len;
    found->n++;
    return true;
}

static struct found find(struct fixture *f)
{
    struct queue_cursor cursor = {0};
    struct found found = {0};

    /* A record at a time, then the end. */
    assert_true(queue_quarantine_visit(f->q, 0, &cursor, 1, on_quarantined, &found) >= 0);
    assert_int_equal(queue_quarantine_visit(f->q, 0, &cursor, 9, on_quarantined, &found), 1);
    return found;
}

static void check_told(struct fixture *f, const char *reason)
{
    char id[MSGID_TEXT_BYTES], wanted[200];

    msgid_text(&f->ids[1], id);
    snprintf(wanted, sizeof(wanted), "0 rows 1 a.example %s %s", id, reason);
    for (unsigned ms = 0; f->times_told == 0 && ms < 5000; ms++)
        poll(NULL, 0, 1);
    assert_int_equal(f->times_told, 1);
    assert_non_null(strstr(f->told, wanted));
}

/* The second of three rows is bad: the others load, and it is moved. */
static void check_moved(struct fixture *f, uint64_t rows_left)
{
    struct queue_counters counters = {0};
    struct kit_load load = {0};
    struct recipient *r;

    assert_int_equal(kit_load(f->q, f->port, 0, &load, "a.example", 5000, 10), 0);
    assert_true(load.load.end);
    r = kit_pop(&load);
    assert_memory_equal(&r->message->id, &f->ids[0], sizeof(struct msgid));
    recipient_free(r);
    r = kit_pop(&load);
    assert_memory_equal(&r->message->id, &f->ids[2], sizeof(struct msgid));
    recipient_free(r);
    assert_true(list_empty(&load.load.rcpts));
    for (unsigned ms = 0; counters.quarantined == 0; ms++) {
        assert_true(ms < 5000);
        poll(NULL, 0, 1);
        queue_counters(f->q, 0, &counters);
    }
    queue_counters(f->q, 0, &counters); /* anew: they are not read as one */
    assert_int_equal(counters.quarantined, 1);
    assert_int_equal(counters.rows, rows_left);
}

/* It is named, too, and rows_left are in the lane. */
static void check(struct fixture *f, const char *reason, uint64_t rows_left)
{
    struct found found;
    bool complete;

    check_moved(f, rows_left);
    found = find(f);
    assert_int_equal(found.n, 1);
    assert_non_null(strstr(found.reason, reason));
    for (unsigned ms = 0; queue_lane_rows(f->q, 0, 0, STR("a.example"), &complete) != rows_left;
         ms++) {
        assert_true(ms < 5000);
        poll(NULL, 0, 1);
    }
}

/* Its content goes with the row, in whatever state both are. */
static void purge(struct fixture *f, uint64_t messages_left, bool address, bool header)
{
    struct queue_counters counters;
    struct found found = find(f);
    struct str key = {found.key, found.key_len};

    assert_int_equal(found.address, address);
    assert_int_equal(found.header, header);
    for (int round = 0; round < 2; round++) {
        struct kit_change *c = kit_change();

        c->change.purges = &key;
        c->change.purges_len = 1;
        assert_int_equal(kit_submit(f->q, f->port, 0, c), round == 0 ? 0 : -ENOENT);
    }
    assert_int_equal(find(f).n, 0);
    queue_counters(f->q, 0, &counters);
    assert_int_equal(counters.quarantined, 0);
    assert_int_equal(counters.messages, messages_left);
}

static size_t key_of(struct fixture *f, uint8_t key[ROW_KEY_MAX])
{
    return codec_row_key(key, 0, STR("a.example"), 1001, &f->ids[1], 0);
}

static void test_damaged_row(void **state)
{
    struct fixture *f = *state;
    uint8_t key[ROW_KEY_MAX];

    damage(f, f->q->shards[0]->rows, key, key_of(f, key), false);
    check(f, "row is damaged", 2);
    check_told(f, "row is damaged");
    purge(f, 2, false, true);
}

static void test_damaged_content(void **state)
{
    struct fixture *f = *state;
    uint8_t key[PAGE_KEY_BYTES];
    struct message *m;
    int err;

    codec_page_key(key, &f->ids[1], 0);
    damage(f, f->q->shards[0]->pages, key, sizeof(key), false);
    check(f, "content is damaged", 2);
    check_told(f, "its content is damaged");
    assert_null(queue_message(f->q, &f->ids[1], &err));
    assert_int_equal(err, -EBADMSG);
    m = queue_message_stored(f->q, &f->ids[1], &err);
    assert_non_null(m);
    assert_true(m->content_len > 3000);
    message_unref(m);
    purge(f, 2, true, true);
    assert_null(queue_message_stored(f->q, &f->ids[1], &err));
    assert_int_equal(err, -ENOENT);
}

static void test_missing_content(void **state)
{
    struct fixture *f = *state;

    damage(f, f->q->shards[0]->content, &f->ids[1], MSGID_BYTES, true);
    check(f, "content is missing", 2);
    check_told(f, "its content is missing");
    purge(f, 2, true, false);
}

static void test_missing_piece(void **state)
{
    struct fixture *f = *state;
    uint8_t key[PAGE_KEY_BYTES];

    codec_page_key(key, &f->ids[1], 0);
    damage(f, f->q->shards[0]->pages, key, sizeof(key), true);
    check(f, "content is damaged", 2);
    check_told(f, "its content is damaged");
    purge(f, 2, true, true);
}

/* One of two rows of a message: the other one keeps the content. */
static void test_damaged_row_of_two(void **state)
{
    struct fixture *f = *state;
    struct message *m = kit_message(3000, 2, 5);
    struct recipient *r[2] = {kit_recipient(m, 0, "b.example", 1001),
                              kit_recipient(m, 1, "a.example", 1001)};
    struct kit_change *c = kit_change();
    uint8_t key[ROW_KEY_MAX];
    int err;

    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r[0]);
    kit_row(c, QUEUE_ROW_ADD, r[1]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    c = kit_change();
    damage(f, f->q->shards[0]->rows, key,
           codec_row_key(key, 0, STR("a.example"), 1001, &f->ids[1], 0), true);
    damage(f, f->q->shards[0]->rows, key, codec_row_key(key, 0, STR("a.example"), 1001, &m->id, 1),
           false);
    check(f, "row is damaged", 3);
    purge(f, 4, false, true);
    message_unref(queue_message(f->q, &m->id, &err));
    assert_int_equal(err, 0);
    kit_row(c, QUEUE_ROW_REMOVE, r[0]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_null(queue_message(f->q, &m->id, &err));
    recipient_free(r[0]);
    recipient_free(r[1]);
    message_unref(m);
}

/* Its key says that it is fresh and that it is not. */
static void test_damaged_key(void **state)
{
    struct fixture *f = *state;
    MDB_dbi rows = f->q->shards[0]->rows;
    uint8_t key[ROW_KEY_MAX];
    MDB_val k = {key_of(f, key), key}, v = {5, "value"};
    MDB_txn *txn;

    damage(f, rows, key, k.mv_size, true);
    memset(key + k.mv_size - 4 - MSGID_BYTES, 0, 6); /* made at 0, due at 1001 */
    assert_int_equal(mdb_txn_begin(f->q->shards[0]->env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, rows, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    check_moved(f, 2);
}

/* Where a slice of the count ends there is a key longer than any row's; it begins like the row
 * before it, the longest there is. */
static void test_long_key(void **state)
{
    struct fixture *f = *state;
    uint8_t key[500] = {0};
    char lane[QUEUE_NAME_MAX];
    struct str name = {lane, sizeof(lane)};
    MDB_val k = {3, key}, v = {5, "value"};
    bool complete = false;
    MDB_txn *txn;

    memset(lane, 'x', sizeof(lane));
    assert_int_equal(mdb_txn_begin(f->q->shards[0]->env, NULL, 0, &txn), 0);
    for (unsigned i = 0; i < 2000 - 3 - 1; i++) {
        key[1] = (uint8_t)(i >> 8);
        key[2] = (uint8_t)i;
        assert_int_equal(mdb_put(txn, f->q->shards[0]->rows, &k, &v, 0), 0);
    }
    k.mv_size = codec_row_key(key, 0, name, 1, &f->ids[0], 0);
    assert_int_equal(mdb_put(txn, f->q->shards[0]->rows, &k, &v, 0), 0);
    k.mv_size = sizeof(key);
    assert_int_equal(mdb_put(txn, f->q->shards[0]->rows, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    queue_port_close(f->port);
    queue_close(f->q);
    assert_int_equal(queue_open(&f->q, &f->options, NULL), 0);
    assert_int_equal(queue_port_open(&f->port, f->q, NULL, NULL), 0);
    for (unsigned ms = 0; !complete; ms++) {
        assert_true(ms < 5000);
        assert_true(queue_lane_rows(f->q, 0, 0, name, &complete) <= 1);
        poll(NULL, 0, 1);
    }
    assert_int_equal(queue_lane_rows(f->q, 0, 0, STR("a.example"), &complete), 3);
    assert_int_equal(queue_lane_rows(f->q, 0, 0, name, &complete), 1);
}

/* The page says that the row's value is two gigabytes long: nothing is read behind the file. */
static void test_damaged_length(void **state)
{
    struct fixture *f = *state;
    struct shard *s = f->q->shards[0];
    uint8_t key[ROW_KEY_MAX];
    MDB_val k = {key_of(f, key), key}, v;
    uint16_t high;
    MDB_txn *txn;
    off_t at;

    assert_non_null(s->map);
    assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_get(txn, s->rows, &k, &v), 0);
    /* A node is: low and high 16 bits of the length, flags, key length, key, value. */
    at = (off_t)((uint8_t *)v.mv_data - k.mv_size - 6 - (uint8_t *)s->map);
    mdb_txn_abort(txn);
    assert_int_equal(pread(s->probe_fd, &high, sizeof(high), at), sizeof(high));
    assert_int_equal(high, 0);
    high = 0x7fff;
    assert_int_equal(pwrite(s->probe_fd, &high, sizeof(high), at), sizeof(high));
    /* LMDB cannot take such a node out: it stays, is named, and is never sent. */
    check(f, "row is damaged", 3);
    check_told(f, "row is damaged");
    purge(f, 3, false, true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_damaged_row),     TEST(test_damaged_key),   TEST(test_damaged_content),
        TEST(test_missing_content), TEST(test_missing_piece), TEST(test_damaged_row_of_two),
        TEST(test_damaged_length),  TEST(test_long_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

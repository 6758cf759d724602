/* Flows and visits by name, held against plain models and damaged stores. The damage is done
 * through LMDB. */
#include "queue/testkit.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "queue/shard.h"

/* A message for one recipient in flow. */
static struct recipient *add_in(struct kit_queue *f, uint32_t flow, const char *name,
                                int64_t due_ms)
{
    struct message *m = kit_message(100, 1, 5);
    struct kit_change *c = kit_change();
    struct recipient *r;

    m->flow = flow;
    r = kit_recipient(m, 0, name, due_ms);
    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    message_unref(m);
    return r;
}

static void put_raw(struct kit_queue *f, MDB_dbi tree, struct str key, struct str value)
{
    MDB_val k = str_val(key), v = str_val(value);
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(f->q->shards[0]->env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, tree, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static void put_flow(struct kit_queue *f, uint32_t id, struct str campaign)
{
    uint8_t key[FLOW_KEY_BYTES], value[FLOW_VALUE_BYTES], stored[sizeof(value) + STATE_HEAD_BYTES];
    struct queue_flow flow = {.id = id, .priority = 5, .campaign = campaign};
    size_t len = codec_flow_encode(value, &flow);

    codec_flow_key(key, id);
    codec_state_encode(stored, (struct str){(char *)key, sizeof(key)},
                       (struct str){(char *)value, len});
    put_raw(f, f->q->shards[0]->state, (struct str){(char *)key, sizeof(key)},
            (struct str){(char *)stored, STATE_HEAD_BYTES + len});
}

/* The largest id in use is no wall: what is free below it is given out. */
static void test_ids_go_round(void **state)
{
    struct kit_queue *f = *state;
    uint32_t last = FLOWS_CHUNK * FLOWS_CHUNKS - 1;
    const struct queue_flow *a, *b;

    recipient_free(add_in(f, last, "a.example", 500));
    put_flow(f, last, STR("last"));
    kit_queue_reopen(f);
    assert_non_null(queue_flow_find(f->q, last));
    a = queue_flow_get(f->q, 5, STR("t"), STR("one"), STR(""));
    b = queue_flow_get(f->q, 5, STR("t"), STR("two"), STR(""));
    assert_non_null(a);
    assert_non_null(b);
    assert_true(a->id > 0 && a->id < last && b->id > 0 && b->id < last && a->id != b->id);
    assert_ptr_equal(queue_flow_find(f->q, a->id), a);
}

/* A flow whose record is lost keeps its id for its rows: nobody else's mail comes beside them. */
static void check_lost(struct kit_queue *f, const char *name, struct str record)
{
    const struct queue_flow *flow = queue_flow_get(f->q, 5, STR("t"), str_of(name), STR(""));
    uint32_t id = flow->id;
    uint8_t key[FLOW_KEY_BYTES], stored[200];
    struct str k = {(char *)key, sizeof(key)}, v = {(char *)stored, record.len};

    recipient_free(add_in(f, id, "a.example", 500));
    codec_flow_key(key, id);
    memcpy(stored, record.ptr, record.len);
    if (record.len > sizeof("damaged!")) {
        codec_state_encode(stored, k, record);
        v.len += STATE_HEAD_BYTES;
    }
    put_raw(f, f->q->shards[0]->state, k, v);
    kit_queue_reopen(f);
    assert_null(queue_flow_find(f->q, id));
    flow = queue_flow_get(f->q, 5, STR("other"), str_of(name), STR(""));
    assert_non_null(flow);
    assert_int_not_equal(flow->id, id);
}

static void test_lost_flow_keeps_its_id(void **state)
{
    struct kit_queue *f = *state;
    char longer[3 + FLOW_NAME_MAX + 1] = "\5\2";

    check_lost(f, "lost", STR("damaged!"));
    /* A later build may allow longer names, which this one could not store in another shard. */
    longer[2] = FLOW_NAME_MAX + 1;
    memset(longer + 3, 'n', FLOW_NAME_MAX + 1);
    check_lost(f, "long", (struct str){longer, sizeof(longer)});
}

/* A row goes over to another flow, which has no record here yet: it is there after a restart, and
 * the counts of both lanes are right. */
static void test_a_row_changes_its_flow(void **state)
{
    struct kit_queue *f = *state;
    uint32_t from = queue_flow_get(f->q, 5, STR("t"), STR("c"), STR("one"))->id;
    uint32_t to = queue_flow_get(f->q, 5, STR("t"), STR("c"), STR("two"))->id;
    struct recipient *r = add_in(f, from, "a.example", 500);
    struct kit_change *c = kit_change();
    struct queue_row *row = kit_row(c, QUEUE_ROW_MOVE, r);
    bool complete;

    r->flow = to;
    r->due_ms = 700;
    row->old_flow = from;
    row->old_due_ms = 500;
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(queue_lane_rows(f->q, 0, from, STR("a.example"), &complete), 0);
    assert_int_equal(queue_lane_rows(f->q, 0, to, STR("a.example"), &complete), 1);
    recipient_free(r);
    kit_queue_reopen(f);
    assert_non_null(queue_flow_find(f->q, to));
    assert_null(queue_flow_find(f->q, from)); /* without rows it went at the start */
}

/* A flow whose first change failed has no record, and gets one with the next. */
static void test_failed_change_brings_no_flow(void **state)
{
    struct kit_queue *f = *state;
    const struct queue_flow *flow = queue_flow_get(f->q, 5, STR("t"), STR("late"), STR(""));
    struct recipient *first = add_in(f, 0, "a.example", 500), *r;
    struct kit_change *c = kit_change();
    uint32_t id = flow->id;

    r = kit_recipient(first->message, 1, "a.example", 500);
    r->flow = id;
    kit_row(c, QUEUE_ROW_ADD, r);
    kit_row(c, QUEUE_ROW_ADD, first); /* is there */
    assert_int_equal(kit_submit(f->q, f->port, 0, c), -EEXIST);
    assert_false(state_flow_stored(f->q->shards[0], id));
    recipient_free(r);
    recipient_free(first);
    recipient_free(add_in(f, id, "a.example", 500));
    kit_queue_reopen(f);
    flow = queue_flow_find(f->q, id);
    assert_non_null(flow);
    assert_true(str_eq(flow->campaign, STR("late")));
}

/* What goes at the start may stay: a full disk does not keep the queue closed. */
static void test_opens_on_a_full_disk(void **state)
{
    struct kit_queue *f = *state;
    const struct queue_flow *flow = queue_flow_get(f->q, 5, STR("t"), STR("gone"), STR(""));
    struct kit_change *c = kit_change();
    struct recipient *r = add_in(f, flow->id, "a.example", 500);
    struct rlimit before, small;

    kit_row(c, QUEUE_ROW_REMOVE, r);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    recipient_free(r);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 4096, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    queue_port_close(f->port);
    queue_close(f->q);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    kit_queue_open(f);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

static void wait_rows(struct kit_queue *f, uint32_t flow, const char *name, uint64_t rows)
{
    bool complete = false;

    for (unsigned ms = 0; !complete; ms++) {
        assert_true(ms < 5000);
        (void)queue_lane_rows(f->q, 0, flow, str_of(name), &complete);
        poll(NULL, 0, 1);
    }
    assert_int_equal(queue_lane_rows(f->q, 0, flow, str_of(name), &complete), rows);
}

/* Each flow's rows of a name are counted apart, before and behind a restart: sums over lanes are
 * of rows. */
static void test_lanes_are_counted_apart(void **state)
{
    struct kit_queue *f = *state;

    for (int i = 0; i < 2; i++) {
        for (uint32_t flow = 0; flow < 4; flow++)
            for (uint32_t n = 0; n <= flow; n++)
                recipient_free(add_in(f, flow, "a.example", 500 + 5000 * (n % 2)));
        for (uint32_t flow = 0; flow < 4; flow++)
            wait_rows(f, flow, "a.example", (uint64_t)(flow + 1) * (uint64_t)(i + 1));
        wait_rows(f, 1, "a.exampl", 0);
        kit_queue_reopen(f);
    }
    for (uint32_t flow = 0; flow < 4; flow++)
        wait_rows(f, flow, "a.example", (uint64_t)(flow + 1) * 2);
}

/* --- visits by name against a model --- */

#define MODEL_ROWS 600

static const char *const model_names[] = {"a.example", "a.exampl", "a.example.org", "b.example",
                                          "zz"};

struct model {
    struct recipient *rows[MODEL_ROWS];
    unsigned seen[MODEL_ROWS];
    size_t len;
    const struct queue_visit *what;
    struct rng rng;
};

static bool model_wants(const struct model *m, const struct recipient *r)
{
    return (m->what->queue.len == 0 || str_eq(r->queue, m->what->queue)) &&
           (m->what->flow == 0 || r->flow == m->what->flow);
}

static bool on_model_row(void *arg, const struct queue_row_view *row)
{
    struct model *m = arg;

    for (size_t i = 0; i < m->len; i++) {
        if (memcmp(&m->rows[i]->message->id, &row->id, sizeof(row->id)) != 0)
            continue;
        assert_true(model_wants(m, m->rows[i]));
        assert_true(row->flow == m->rows[i]->flow && row->due_ms == m->rows[i]->due_ms);
        m->seen[i]++;
        return rng_below(&m->rng, 4) != 0;
    }
    fail_msg("a row that nobody put");
    return false;
}

static void model_visit(struct kit_queue *f, struct model *m, struct str name, uint32_t flow)
{
    struct queue_visit what = {.queue = name, .flow = flow, .visit = on_model_row, .arg = m};
    struct queue_cursor cursor = {0};
    int rc;

    m->what = &what;
    memset(m->seen, 0, sizeof(m->seen));
    for (unsigned steps = 0;; steps++) {
        what.rows_max = 1 + (uint32_t)rng_below(&m->rng, 7);
        rc = queue_visit(f->q, 0, &cursor, &what);
        assert_true(rc >= 0 && steps < 100000);
        if (rc == 1)
            break;
    }
    for (size_t i = 0; i < m->len; i++)
        assert_int_equal(m->seen[i], model_wants(m, m->rows[i]) ? 1 : 0);
}

static uint32_t flow_draw(struct model *m)
{
    static const uint32_t flows[] = {0, 1, 2, 3, 255, 256, 70000, UINT32_MAX};

    return flows[rng_below(&m->rng, ARRAY_LEN(flows))];
}

static void model_add(struct kit_queue *f, struct model *m)
{
    uint32_t flow = flow_draw(m);
    const char *name = model_names[rng_below(&m->rng, ARRAY_LEN(model_names))];

    m->rows[m->len++] = add_in(f, flow, name, (int64_t)rng_below(&m->rng, 2000));
}

static void model_change(struct kit_queue *f, struct model *m, size_t i)
{
    struct kit_change *c = kit_change();
    struct recipient *r = m->rows[i];
    bool move = rng_below(&m->rng, 2) == 0;
    struct queue_row *row = kit_row(c, move ? QUEUE_ROW_MOVE : QUEUE_ROW_REMOVE, r);

    if (move) {
        r->due_ms = (int64_t)rng_below(&m->rng, 3000);
        row->rcpt = r;
        if (r->flow != 0 && rng_below(&m->rng, 3) == 0) {
            row->old_flow = r->flow;
            r->flow = flow_draw(m);
        }
    }
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    if (move)
        return;
    recipient_free(r);
    m->rows[i] = m->rows[--m->len];
}

static void test_visits_as_the_model(void **state)
{
    struct kit_queue *f = *state;
    struct model *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    rng_seed(&m->rng, 11);
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 40; i++)
            model_add(f, m);
        for (int i = 0; i < 20; i++)
            model_change(f, m, rng_below(&m->rng, m->len));
        for (size_t n = 0; n < ARRAY_LEN(model_names); n++) {
            model_visit(f, m, str_of(model_names[n]), 0);
            model_visit(f, m, str_of(model_names[n]), 2);
            model_visit(f, m, str_of(model_names[n]), UINT32_MAX);
        }
        model_visit(f, m, STR(""), 0);
        model_visit(f, m, STR("none.example"), 0);
    }
    while (m->len > 0)
        recipient_free(m->rows[--m->len]);
    free(m);
}

/* A key with a damaged class hides no row from a visit by name. */
static void test_damaged_class_hides_nothing(void **state)
{
    struct kit_queue *f = *state;
    struct model *m = calloc(1, sizeof(*m));
    uint8_t key[ROW_KEY_MAX];
    size_t len;

    assert_non_null(m);
    rng_seed(&m->rng, 1);
    m->rows[m->len++] = add_in(f, 1, "a.example", 500);
    m->rows[m->len++] = add_in(f, 2, "a.example", 5000);
    len = codec_row_key(key, 3, STR("b.example"), 500, &m->rows[0]->message->id, 0);
    key[0] = 0;
    put_raw(f, f->q->shards[0]->rows, (struct str){(char *)key, len}, STR("x"));
    model_visit(f, m, STR("a.example"), 1);
    model_visit(f, m, STR("a.example"), 2);
    memset(key + 1, 0xff, 4);
    put_raw(f, f->q->shards[0]->rows, (struct str){(char *)key, len}, STR("x"));
    model_visit(f, m, STR("a.example"), 0);
    key[0] = 200;
    put_raw(f, f->q->shards[0]->rows, (struct str){(char *)key, len}, STR("x"));
    model_visit(f, m, STR("a.example"), 0);
    model_visit(f, m, STR("a.example"), 2);
    while (m->len > 0)
        recipient_free(m->rows[--m->len]);
    free(m);
}

/* --- the pieces of contents, as they come and go --- */

static const size_t piece_sizes[] = {0,    1,    1900, 2040,  2100,  4079,   4080,   4081,
                                     6000, 8160, 8170, 12000, 65535, 200000, 1 << 20};

static void test_contents_come_and_go(void **state)
{
    struct kit_queue *f = *state;
    struct recipient *rows[60] = {0};
    struct queue_counters counters;
    struct rng rng;
    int err;

    rng_seed(&rng, 5);
    for (int step = 0; step < 700; step++) {
        size_t i = rng_below(&rng, ARRAY_LEN(rows));
        struct kit_change *c = kit_change();

        if (rows[i] == NULL) {
            size_t size = piece_sizes[rng_below(&rng, ARRAY_LEN(piece_sizes))];
            struct message *m = kit_message(size, 1 + (uint32_t)rng_below(&rng, 2), 5), *got;

            rows[i] = kit_recipient(m, 0, "a.example", 500);
            kit_content(c, m);
            kit_row(c, QUEUE_ROW_ADD, rows[i]);
            assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
            got = queue_message(f->q, &m->id, &err);
            assert_non_null(got);
            assert_true(got->content_len == size && kit_content_right(got));
            message_unref(got);
            message_unref(m);
        } else {
            kit_row(c, QUEUE_ROW_REMOVE, rows[i]);
            assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
            recipient_free(rows[i]);
            rows[i] = NULL;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kit_change *c;
        struct message *got =
            rows[i] == NULL ? NULL : queue_message(f->q, &rows[i]->message->id, &err);

        if (rows[i] == NULL)
            continue;
        assert_true(got != NULL && kit_content_right(got));
        message_unref(got);
        c = kit_change();
        kit_row(c, QUEUE_ROW_REMOVE, rows[i]);
        assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
        recipient_free(rows[i]);
    }
    queue_counters(f->q, 0, &counters);
    assert_int_equal(counters.messages, 0);
    assert_int_equal(counters.pieces, 0);
}

/* Replaces the head of r's content by m's. */
static void forge(struct kit_queue *f, struct message *m)
{
    struct content_layout l = codec_content_layout(m, f->q->shards[0]->page_bytes);
    uint8_t *head;

    l.tail_bytes = 0;
    head = malloc(l.head_bytes);
    assert_non_null(head);
    codec_content_encode(head, m, &l, false);
    memcpy(head + 13, &(uint64_t){UINT64_C(1) << 35}, 8);
    memcpy(head,
           &(uint32_t){crc32c(crc32c(0, m->id.bytes, MSGID_BYTES), head + 4, l.head_bytes - 4)}, 4);
    put_raw(f, f->q->shards[0]->content, (struct str){(char *)m->id.bytes, MSGID_BYTES},
            (struct str){(char *)head, l.head_bytes});
    free(head);
}

/* A length that no memory has, with the right seal, costs that row and not its lane. */
static void test_forged_length(void **state)
{
    struct kit_queue *f = *state;
    struct kit_load load = {0};
    struct recipient *bad, *good;

    f->options.map_bytes = UINT64_C(1) << 36; /* more than the memory */
    kit_queue_reopen(f);
    bad = add_in(f, 0, "a.example", 500);
    good = add_in(f, 0, "a.example", 501);
    forge(f, bad->message);
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "a.example", 1000, 10), 0);
    recipient_free(bad);
    bad = kit_pop(&load);
    assert_int_equal(bad->due_ms, good->due_ms);
    recipient_free(bad);
    assert_null(kit_pop(&load));
    recipient_free(good);
}

/* In place of the C library's: the sector that a content begins in cannot be read, by the committer
 * either, which looks again. */
static struct msgid unreadable;
static _Atomic bool some_unreadable; /* orders unreadable */

ssize_t preadv(int fd, const struct iovec *iov, int iov_len, off_t at)
{
    ssize_t sum = 0;

    for (int i = 0; i < iov_len; i++) {
        ssize_t n = pread(fd, iov[i].iov_base, iov[i].iov_len, at + sum);

        if (n < 0)
            return n;
        sum += n;
    }
    if (some_unreadable && memcmp(iov[0].iov_base, unreadable.bytes, MSGID_BYTES) == 0) {
        errno = EIO;
        return -1;
    }
    return sum;
}

static struct recipient *add_large(struct kit_queue *f, int64_t due_ms)
{
    struct message *m = kit_message(20000, 1, 5);
    struct kit_change *c = kit_change();
    struct recipient *r = kit_recipient(m, 0, "a.example", due_ms);

    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    message_unref(m);
    return r;
}

/* A sector that the disk does not give any more costs that message and not its lane. */
static void test_unreadable_sector(void **state)
{
    struct kit_queue *f = *state;
    struct recipient *bad = add_large(f, 500), *good = add_large(f, 501), *r;
    struct kit_load load = {0};

    unreadable = bad->message->id;
    some_unreadable = true;
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "a.example", 1000, 10), 0);
    some_unreadable = false;
    r = kit_pop(&load);
    assert_int_equal(r->due_ms, 501);
    recipient_free(r);
    assert_null(kit_pop(&load));
    recipient_free(bad);
    recipient_free(good);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, kit_queue_setup, kit_queue_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_lost_flow_keeps_its_id),
        TEST(test_visits_as_the_model),
        TEST(test_damaged_class_hides_nothing),
        TEST(test_contents_come_and_go),
        TEST(test_ids_go_round),
        TEST(test_unreadable_sector),
        TEST(test_failed_change_brings_no_flow),
        TEST(test_a_row_changes_its_flow),
        TEST(test_lanes_are_counted_apart),
        TEST(test_forged_length),
        TEST(test_opens_on_a_full_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

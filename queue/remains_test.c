/* Small contents that go from between others leave their pages together. */
#include "queue/testkit.h"

#include "base/rng.h"
#include "queue/shard.h"
#include "queue/testkit_fsck.h"

#define SMALL       4000 /* messages of a page each */
#define SMALL_BYTES 4000
#define LARGE_BYTES (50u << 10)
#define AT_ONCE     64

static struct recipient *rcpts[2 * SMALL];
static size_t rcpts_len;

static int setup(void **state)
{
    struct kit_queue *f = calloc(1, sizeof(*f));

    f->dir = kit_dir();
    f->options = (struct queue_options){
        .path = f->dir, .map_bytes = UINT64_C(1) << 30, .no_threads = true, .no_sync = true};
    kit_queue_open(f);
    *state = f;
    rcpts_len = 0;
    return 0;
}

static struct remains *remains_of(struct kit_queue *f)
{
    return &f->q->shards[0]->own.remains;
}

static int run(struct kit_queue *f, struct kit_change *kit)
{
    int result;

    queue_submit(f->port, 0, &kit->change);
    while (!kit->done) {
        queue_pump(f->q);
        queue_port_poll(f->port);
    }
    result = kit->result;
    free(kit);
    return result;
}

static void accept_one(struct kit_queue *f, size_t bytes)
{
    struct kit_change *kit = kit_change();
    struct message *m = kit_message(bytes, 1, 4);
    struct recipient *r = kit_recipient(m, 0, "a.example", 500);

    kit_content(kit, m);
    kit_row(kit, QUEUE_ROW_ADD, r);
    assert_int_equal(run(f, kit), 0);
    message_unref(m);
    rcpts[rcpts_len++] = r;
}

/* Settles the last n. */
static void settle(struct kit_queue *f, size_t n)
{
    while (n > 0) {
        struct kit_change *kit = kit_change();
        size_t some = n < KIT_ROWS_MAX ? n : KIT_ROWS_MAX;

        for (size_t i = 0; i < some; i++)
            kit_row(kit, QUEUE_ROW_REMOVE, rcpts[rcpts_len - 1 - i]);
        assert_int_equal(run(f, kit), 0);
        for (size_t i = 0; i < some; i++)
            recipient_free(rcpts[--rcpts_len]);
        n -= some;
    }
}

/* A random half of them goes. */
static void fill_and_empty_half(struct kit_queue *f)
{
    struct rng rng;

    for (size_t i = 0; i < SMALL; i++)
        accept_one(f, SMALL_BYTES);
    rng_seed(&rng, 1);
    for (size_t i = SMALL - 1; i > 0; i--) {
        size_t k = (size_t)rng_below(&rng, i + 1);
        struct recipient *r = rcpts[i];

        rcpts[i] = rcpts[k];
        rcpts[k] = r;
    }
    settle(f, SMALL / 2);
}

/* How many pages of large contents that come and go did not follow the one before. */
static uint64_t pass_through(struct kit_queue *f)
{
    struct shard *s = f->q->shards[0];
    size_t before = rcpts_len;
    uint64_t breaks = 0;

    for (size_t i = 0; i < AT_ONCE; i++) {
        s->own.holes.breaks = 0;
        accept_one(f, LARGE_BYTES);
        breaks += s->own.holes.breaks;
    }
    settle(f, rcpts_len - before);
    return breaks;
}

static size_t pages_stored(struct kit_queue *f)
{
    struct shard *s = f->q->shards[0];
    MDB_txn *txn;
    MDB_stat st;

    assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, s->pages, &st), 0);
    mdb_txn_abort(txn);
    return st.ms_entries;
}

static size_t records_stored(struct kit_queue *f)
{
    struct shard *s = f->q->shards[0];
    MDB_txn *txn;
    bool any;

    assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(state_any(s, txn, STATE_REMAINS, &any), 0);
    mdb_txn_abort(txn);
    return any;
}

static void hangs_together(struct kit_queue *f)
{
    uint64_t pins = 0, prepared = 0;
    const char *wrong = fsck_shard(f->q, 0, &pins, &prepared);

    if (wrong != NULL)
        fail_msg("%s", wrong);
}

static uint64_t pieces(struct kit_queue *f)
{
    struct queue_counters c;

    queue_counters(f->q, 0, &c);
    return c.pieces;
}

/* Pieces stay, and large contents come to lie in runs, though half of the file has gone. When the
 * others go nothing is left of them. */
static void test_keep(void **state)
{
    struct kit_queue *f = *state;

    fill_and_empty_half(f);
    assert_true(remains_of(f)->len > SMALL / 3);
    assert_int_equal(pieces(f), SMALL / 2); /* what is kept is no mail */
    assert_true(pages_stored(f) == pieces(f) + remains_of(f)->pages);
    hangs_together(f);
    for (int i = 0; i < 8; i++)
        (void)pass_through(f);
    assert_true(pass_through(f) < AT_ONCE * (LARGE_BYTES / 4096) / 4);
    hangs_together(f);
    settle(f, rcpts_len);
    assert_int_equal(remains_of(f)->len, 0);
    assert_int_equal(pages_stored(f), 0);
    assert_false(records_stored(f));
    kit_queue_reopen(f); /* which checks that no page is free and in use */
}

/* What a process has kept is freed by the next one. */
static void test_restart(void **state)
{
    struct kit_queue *f = *state;

    fill_and_empty_half(f);
    assert_true(records_stored(f));
    kit_queue_reopen(f);
    assert_true(pages_stored(f) > SMALL / 2 + SMALL / 3);
    for (int i = 0; remains_of(f)->left; i++) {
        assert_true(i < 1000);
        remains_of(f)->left_next_ns = 0;
        accept_one(f, SMALL_BYTES);
        settle(f, 1);
    }
    assert_int_equal(pages_stored(f), SMALL / 2);
    assert_false(records_stored(f));
    hangs_together(f);
    settle(f, rcpts_len);
    assert_int_equal(pages_stored(f), 0);
}

/* Where the file has become longer than it may, what was kept is used. */
static void test_growth(void **state)
{
    struct kit_queue *f = *state;
    uint64_t used;

    fill_and_empty_half(f);
    used = shard_unused_bytes(f->q->shards[0]);
    remains_of(f)->end_bytes = 0;
    for (size_t i = 0; i < SMALL / 2; i++)
        accept_one(f, SMALL_BYTES);
    assert_int_equal(remains_of(f)->len, 0);
    assert_true(used - shard_unused_bytes(f->q->shards[0]) < SMALL / 8 * 4096);
    hangs_together(f);
    settle(f, rcpts_len);
}

/* Nothing is kept where there is little room, and what was kept goes. */
static void test_no_room(void **state)
{
    struct kit_queue *f = *state;

    fill_and_empty_half(f);
    assert_true(remains_of(f)->len > 0);
    remains_of(f)->unused_bytes_min = UINT64_MAX;
    for (int i = 0; i < 20; i++)
        accept_one(f, SMALL_BYTES);
    assert_int_equal(remains_of(f)->len, 0);
    settle(f, SMALL / 4);
    assert_int_equal(remains_of(f)->len, 0);
    assert_true(pages_stored(f) == pieces(f) && pieces(f) == rcpts_len);
    hangs_together(f);
    settle(f, rcpts_len);
}

/* Nothing is submitted, and room is short: what was kept goes. */
static void idle_frees(struct kit_queue *f)
{
    remains_of(f)->unused_bytes_min = UINT64_MAX;
    for (int i = 0; remains_of(f)->left || remains_of(f)->len > 0; i++) {
        assert_true(i < 1000);
        remains_of(f)->left_next_ns = 0;
        queue_pump(f->q);
    }
    assert_true(pages_stored(f) == rcpts_len);
    assert_false(records_stored(f));
    hangs_together(f);
    settle(f, rcpts_len);
}

/* Intake that is refused for want of room resumes by itself, though nothing is committed. */
static void test_no_room_idle(void **state)
{
    struct kit_queue *f = *state;

    fill_and_empty_half(f);
    assert_true(remains_of(f)->len > 0);
    idle_frees(f);
}

static void test_no_room_idle_after_restart(void **state)
{
    struct kit_queue *f = *state;

    fill_and_empty_half(f);
    kit_queue_reopen(f);
    assert_true(remains_of(f)->left && pages_stored(f) > rcpts_len);
    idle_frees(f);
}

/* A transaction that brings much frees as much: the file grows no longer beside what is kept. */
static void test_brings_much(void **state)
{
    struct kit_queue *f = *state;

    fill_and_empty_half(f);
    assert_true(remains_of(f)->len > 2 * 512);
    remains_of(f)->owed = SMALL;
    accept_one(f, 8u << 20);
    assert_int_equal(remains_of(f)->len, 0);
    hangs_together(f);
    settle(f, rcpts_len);
}

/* What goes at once leaves nothing. */
static void test_young(void **state)
{
    struct kit_queue *f = *state;

    remains_of(f)->age_ms_min = INT64_MAX;
    fill_and_empty_half(f);
    assert_int_equal(remains_of(f)->len, 0);
    assert_int_equal(pages_stored(f), SMALL / 2);
    settle(f, rcpts_len);
}

/* A transaction fails: memory knows nothing any more, and what was kept goes as a restart's. */
static void test_failure(void **state)
{
    struct kit_queue *f = *state;
    struct kit_change *kit = kit_change();
    struct message *m = kit_message(SMALL_BYTES, 1, 4);
    struct recipient *r = kit_recipient(m, 0, "a.example", 500);

    fill_and_empty_half(f);
    kit_row(kit, QUEUE_ROW_ADD, r); /* of a content that is not here */
    assert_int_equal(run(f, kit), -ENOENT);
    recipient_free(r);
    message_unref(m);
    assert_int_equal(remains_of(f)->len, 0);
    hangs_together(f);
    settle(f, 2 * KIT_ROWS_MAX); /* which are not known to lie with others: they go at once */
    assert_int_equal(remains_of(f)->len, 0);
    for (int i = 0; remains_of(f)->left; i++) {
        assert_true(i < 1000);
        remains_of(f)->left_next_ns = 0;
        accept_one(f, SMALL_BYTES);
    }
    assert_true(pages_stored(f) == rcpts_len);
    settle(f, rcpts_len);
    assert_int_equal(pages_stored(f), 0);
    hangs_together(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keep, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_restart, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_growth, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_no_room_idle, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_no_room_idle_after_restart, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_brings_much, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_young, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_failure, setup, kit_queue_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

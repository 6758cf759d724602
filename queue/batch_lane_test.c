/* Rows of a list, which come in its order at the ends of their lanes: that they fill pages, and
 * that nothing else of the tree changes. */
#include "queue/testkit.h"

#include "queue/shard.h"
#include "queue/testkit_fsck.h"

#define LANES     12
#define LANE_ROWS 480
#define AT_ONCE   4 /* rows of a lane in a change */

static int setup(void **state)
{
    int err = kit_queue_setup(state);
    struct kit_queue *f = *state;

    kit_queue_close(f);
    f->options.no_sync = true;
    kit_queue_open(f);
    return err;
}

static struct message *make_pinned(struct kit_queue *f)
{
    struct message *m = kit_message(900, 0, 4);
    struct kit_change *kit = kit_change();
    struct queue_pin pin = {.id = m->id};

    kit_content(kit, m);
    kit->change.pins = &pin;
    kit->change.pins_len = 1;
    assert_int_equal(kit_submit(f->q, f->port, 0, kit), 0);
    return m;
}

/* Some more rows of each lane. bytes: of their variables. */
static void add_some(struct kit_queue *f, struct message *m, uint32_t first, size_t bytes)
{
    struct kit_change *kit = kit_change();
    char variables[3072], lane[32];

    memset(variables, 'v', sizeof(variables));
    for (uint32_t i = 0; i < LANES * AT_ONCE; i++) {
        struct recipient *r;

        snprintf(lane, sizeof(lane), "lane%02u.example", i / AT_ONCE);
        r = recipient_new(m, first + i, str_of(lane), STR("user@example.com"), STR(""),
                          (struct str){variables, bytes});
        assert_non_null(r);
        r->due_ms = 1000;
        kit_row(kit, QUEUE_ROW_ADD, r);
    }
    queue_submit(f->port, 0, &kit->change);
    kit_wait(f->q, f->port, &kit->done);
    assert_int_equal(kit->result, 0);
    for (size_t i = 0; i < kit->change.rows_len; i++)
        recipient_free(kit->rows[i].rcpt);
    free(kit);
}

/* How much of the rows' leaves is rows, in percent. */
static unsigned filled(struct kit_queue *f, size_t *rows)
{
    struct shard *s = shard_at(f->q, 0);
    size_t bytes = 0;
    MDB_cursor *at;
    MDB_val key, value;
    MDB_stat stat;
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, s->rows, &stat), 0);
    assert_int_equal(mdb_cursor_open(txn, s->rows, &at), 0);
    while (mdb_cursor_get(at, &key, &value, MDB_NEXT) == 0)
        bytes += 8 + 2 + key.mv_size + value.mv_size;
    mdb_cursor_close(at);
    mdb_txn_abort(txn);
    *rows = stat.ms_entries;
    return (unsigned)(bytes * 100 / (s->page_bytes * stat.ms_leaf_pages));
}

static void check(struct kit_queue *f, size_t wanted, unsigned percent)
{
    uint64_t pins = 0, prepared = 0;
    size_t rows;
    unsigned is = filled(f, &rows);

    assert_null(fsck_shard(f->q, 0, &pins, &prepared));
    assert_int_equal(rows, wanted);
    if (is < percent)
        fail_msg("pages are %u %% full", is);
}

static void test_pages_fill(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f);

    for (uint32_t i = 0; i < LANE_ROWS / AT_ONCE; i++)
        add_some(f, m, i * LANES * AT_ONCE, 88);
    check(f, (size_t)LANES * LANE_ROWS, 80);
    message_unref(m);
}

/* Rows so large that few, or none, share a page: the same rows are there. */
static void test_sizes(void **state)
{
    static const size_t sizes[] = {0, 900, 1000, 1100, 1900, 1980, 3000};
    struct kit_queue *f = *state;
    struct message *m = make_pinned(f);
    uint32_t rounds = 0;

    for (; rounds < 60; rounds++)
        add_some(f, m, rounds * LANES * AT_ONCE, sizes[rounds * 5 / 3 % ARRAY_LEN(sizes)]);
    check(f, (size_t)rounds * LANES * AT_ONCE, 0);
    message_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages_fill, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_sizes, setup, kit_queue_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

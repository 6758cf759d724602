/* Messages in several shards: after each step that a thread makes, what a process that died there
 * would leave is opened, and has all of the message or nothing of it. */
#include "queue/testkit.h"

#include "base/rng.h"
#include "queue/shard.h"
#include "queue/spread.h"

#define SHARDS 3
#define RCPTS  900
#define LANES  7

struct fixture {
    char *dir, *copy;
    struct queue_options options;
    struct queue *q;
    struct queue_port *port;
    struct queue_spread spread;
    struct queue_spread_part parts[SHARDS];
    struct queue_row rows[SHARDS][RCPTS];
    bool done, ended, whole[SHARDS];
    int result;
    struct rng rng;
};

static void open_at(struct fixture *f, const char *path, struct queue **q)
{
    const char *error = NULL;
    struct queue_options options = f->options;

    options.path = path;
    if (queue_open(q, &options, &error) < 0)
        fail_msg("%s", error == NULL ? "queue_open" : error);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->dir = kit_dir();
    assert_true(asprintf(&f->copy, "%s.copy", f->dir) > 0);
    f->options = (struct queue_options){
        .map_bytes = UINT64_C(1) << 28, .shards = SHARDS, .no_threads = true, .no_sync = true};
    open_at(f, f->dir, &f->q);
    assert_int_equal(queue_port_open(&f->port, f->q, NULL, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    queue_port_close(f->port);
    queue_close(f->q);
    kit_remove(f->dir);
    kit_remove(f->copy);
    free(f->dir);
    free(f->copy);
    free(f);
    assert_int_equal(message_bytes_alive(), 0);
    return 0;
}

/* --- what a queue shows --- */

struct seen {
    uint32_t rows[SHARDS], all;
    uint32_t shard;
    bool index[RCPTS];
};

static bool see(void *arg, const struct queue_row_view *row)
{
    struct seen *seen = arg;

    assert_true(row->index < RCPTS && !seen->index[row->index]);
    seen->index[row->index] = true;
    seen->rows[seen->shard]++;
    seen->all++;
    return true;
}

static void visit_all(struct queue *q, bool need_message, struct seen *seen)
{
    struct queue_visit what = {
        .rows_max = UINT32_MAX, .need_message = need_message, .visit = see, .arg = seen};

    *seen = (struct seen){0};
    for (seen->shard = 0; seen->shard < SHARDS; seen->shard++) {
        struct queue_cursor cursor = {0};

        assert_int_equal(queue_visit(q, seen->shard, &cursor, &what), 1);
    }
}

struct loaded {
    uint32_t rows;
    bool done;
};

static void on_load(struct queue_load *load, int result)
{
    struct loaded *loaded = load->owner;
    struct list_node *n;

    assert_int_equal(result, 0);
    assert_true(load->end);
    while ((n = list_pop_front(&load->rcpts)) != NULL) {
        struct recipient *r = CONTAINER_OF(n, struct recipient, node);

        assert_true(kit_content_right(r->message));
        loaded->rows++;
        recipient_free(r);
    }
    loaded->done = true;
}

/* What lanes of a shard are loaded with. */
static uint32_t load_all(struct queue *q, struct queue_port *port, uint32_t shard)
{
    struct loaded loaded = {0};

    for (uint32_t lane = 0; lane < LANES; lane++) {
        char name[32];
        struct queue_load load = {.now_ms = kit_clock_ms + 1000,
                                  .rows_max = UINT32_MAX,
                                  .bytes_max = UINT64_MAX,
                                  .on_done = on_load,
                                  .owner = &loaded};

        snprintf(name, sizeof(name), "d%u.example", lane);
        load.queue = str_of(name);
        loaded.done = false;
        queue_load(port, shard, &load);
        queue_pump_part(q, shard, QUEUE_LOADER);
        queue_port_poll(port);
        assert_true(loaded.done);
    }
    return loaded.rows;
}

static uint32_t of_part(const struct fixture *f, uint32_t shard)
{
    return (uint32_t)f->parts[shard].rows_len;
}

/* Nothing is undecided, and no decision is kept. */
static void no_notes(struct shard *s)
{
    bool any;
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(state_any(s, txn, STATE_PART, &any), 0);
    assert_false(any);
    assert_int_equal(state_any(s, txn, STATE_WHOLE, &any), 0);
    assert_false(any);
    mdb_txn_abort(txn);
}

/* The process dies now: all or nothing is there, and all if that was said. */
static void die(struct fixture *f)
{
    struct seen seen, again;
    struct queue_port *port;
    struct queue *q;
    char *command;

    kit_remove(f->copy);
    assert_true(asprintf(&command, "cp -a %s %s", f->dir, f->copy) > 0);
    assert_int_equal(system(command), 0);
    free(command);
    open_at(f, f->copy, &q);
    assert_int_equal(queue_port_open(&port, q, NULL, NULL), 0);
    visit_all(q, false, &seen);
    visit_all(q, true, &again);
    assert_int_equal(seen.all, again.all);
    assert_true(seen.all == 0 || seen.all == RCPTS);
    if (f->done)
        assert_int_equal(seen.all, f->result == 0 ? RCPTS : 0);
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct queue_counters c;

        assert_int_equal(load_all(q, port, i), seen.rows[i]);
        if (seen.all > 0)
            assert_int_equal(seen.rows[i], of_part(f, i));
        queue_pump(q);
        queue_counters(q, i, &c);
        assert_int_equal(c.rows, seen.rows[i]);
        assert_int_equal(c.messages, seen.rows[i] > 0);
        assert_true(seen.rows[i] > 0 || c.pieces == 0);
        no_notes(q->shards[i]);
    }
    queue_port_close(port);
    queue_close(q);
}

/* --- a spread message --- */

static void on_done(struct queue_spread *s, int result)
{
    struct fixture *f = s->owner;

    assert_false(f->done);
    f->done = true;
    f->result = result;
}

static void on_whole(struct queue_spread *s, uint32_t shard)
{
    struct fixture *f = s->owner;

    assert_true(f->done && f->result == 0 && !f->whole[shard]);
    f->whole[shard] = true;
}

static void on_end(struct queue_spread *s)
{
    ((struct fixture *)s->owner)->ended = true;
}

/* Not by a hash: one part has most of the rows, and some lanes are in one shard only. */
static void spread_make(struct fixture *f, int64_t wait_ms)
{
    struct message *m = kit_message(9000, RCPTS, 5), *share;
    int64_t due_ms = msgid_ms(&m->id) + wait_ms;

    f->spread = (struct queue_spread){.parts = f->parts,
                                      .parts_len = SHARDS,
                                      .home = (uint32_t)rng_next(&f->rng) % SHARDS,
                                      .on_done = on_done,
                                      .on_whole = on_whole,
                                      .on_end = on_end,
                                      .owner = f};
    f->done = f->ended = false;
    memset(f->whole, 0, sizeof(f->whole));
    for (uint32_t i = 0; i < SHARDS; i++) {
        share = i == 0 ? message_ref(m) : message_share(m);
        f->parts[i] = (struct queue_spread_part){.message = share, .rows = f->rows[i]};
    }
    for (uint32_t i = 0; i < RCPTS; i++) {
        uint32_t shard = i < SHARDS ? i : (uint32_t)rng_next(&f->rng) % 20 % SHARDS;
        struct queue_spread_part *part = &f->parts[shard];
        char name[32];

        snprintf(name, sizeof(name), "d%u.example", i % LANES);
        part->rows[part->rows_len++] =
            (struct queue_row){.rcpt = kit_recipient(part->message, i, name, due_ms)};
    }
    message_unref(m);
}

static void spread_free(struct fixture *f)
{
    for (uint32_t i = 0; i < SHARDS; i++) {
        for (size_t j = 0; j < f->parts[i].rows_len; j++)
            recipient_free(f->parts[i].rows[j].rcpt);
        message_unref(f->parts[i].message);
    }
}

/* Only what is whole is seen and loaded. */
static void look(struct fixture *f)
{
    struct seen seen;

    visit_all(f->q, false, &seen);
    for (uint32_t i = 0; i < SHARDS; i++) {
        /* The home is whole behind its commit, which on_done has not heard of yet. */
        bool may = i == f->spread.home || f->parts[i].state == PART_FINISHING;

        assert_true(seen.rows[i] == 0 || seen.rows[i] == of_part(f, i));
        assert_true(seen.rows[i] == 0 || f->whole[i] || may);
        assert_true(!f->whole[i] || seen.rows[i] > 0);
        assert_int_equal(load_all(f->q, f->port, i), seen.rows[i]);
    }
}

/* To its end, in a random order of the threads, dying behind each step. */
static void run_to_end(struct fixture *f)
{
    queue_spread_submit(f->port, &f->spread);
    for (unsigned n = 0; !f->ended; n++) {
        assert_true(n < 1000);
        if (n % 7 == 6)
            poll(NULL, 0, 25); /* what waits for company */
        queue_pump_part(f->q, (uint32_t)rng_next(&f->rng) % SHARDS, QUEUE_COMMITTER);
        look(f);
        if (n < 40)
            die(f);
        if (rng_next(&f->rng) % 2 == 0) {
            queue_port_poll(f->port);
            look(f);
        }
    }
    die(f);
    for (uint32_t i = 0; i < SHARDS; i++)
        no_notes(f->q->shards[i]);
}

static void cancel_all(struct fixture *f)
{
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct kit_change *kit = kit_change();

        for (size_t j = 0; j < f->parts[i].rows_len; j++) {
            f->rows[i][j].kind = QUEUE_ROW_REMOVE;
            f->rows[i][j].old_due_ms = f->rows[i][j].rcpt->due_ms;
        }
        kit->change.rows = f->parts[i].rows;
        kit->change.rows_len = f->parts[i].rows_len;
        queue_submit(f->port, i, &kit->change);
        queue_pump(f->q);
        queue_port_poll(f->port);
        assert_true(kit->done && kit->result == 0);
        free(kit);
    }
}

static void test_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    struct queue_counters c;

    for (uint64_t seed = 0; seed < 4; seed++) {
        rng_seed(&f->rng, seed);
        spread_make(f, seed % 2 == 0 ? 0 : 500); /* fresh, or for later */
        run_to_end(f);
        assert_int_equal(f->result, 0);
        for (uint32_t i = 0; i < SHARDS; i++)
            assert_true(f->whole[i]);
        /* Content goes with its last row, in each shard. */
        cancel_all(f);
        for (uint32_t i = 0; i < SHARDS; i++) {
            queue_counters(f->q, i, &c);
            assert_int_equal(c.rows + c.messages + c.pieces, 0);
        }
        spread_free(f);
    }
}

/* A shard that refuses, the home or another: nothing stays anywhere. */
static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct queue_counters c;

    for (uint32_t i = 0; i < SHARDS; i++) {
        static const char name[QUEUE_NAME_MAX + 1] = "\1";
        struct str *queue;

        rng_seed(&f->rng, 17 + i);
        spread_make(f, 0);
        queue = &f->parts[i].rows[1].rcpt->queue;
        *queue = (struct str){name, queue->len}; /* with a NUL: no row can be */
        run_to_end(f);
        assert_int_equal(f->result, -EINVAL);
        for (uint32_t j = 0; j < SHARDS; j++) {
            queue_counters(f->q, j, &c);
            assert_int_equal(c.rows + c.messages + c.pieces, 0);
        }
        spread_free(f);
    }
}

/* A damaged key, longer than any of a row, among those that a start looks through to drop a part.
 */
static void test_long_key(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[500] = {ROW_FRESH}; /* flow 0 */
    MDB_val key = {sizeof(bytes), bytes}, value = {1, bytes};
    struct queue_counters c;
    MDB_txn *txn;
    struct queue *q;
    char *command;

    memset(bytes + ROW_KEY_HEAD, 'z', sizeof(bytes) - ROW_KEY_HEAD);
    rng_seed(&f->rng, 1);
    spread_make(f, 0);
    queue_spread_submit(f->port, &f->spread);
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *s = f->q->shards[i];

        queue_pump_part(f->q, i, QUEUE_COMMITTER);
        assert_int_equal(mdb_txn_begin(s->env, NULL, 0, &txn), 0);
        assert_int_equal(mdb_put(txn, s->rows, &key, &value, 0), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
    }
    assert_true(asprintf(&command, "cp -a %s %s", f->dir, f->copy) > 0);
    assert_int_equal(system(command), 0);
    free(command);
    open_at(f, f->copy, &q);
    for (uint32_t i = 0; i < SHARDS; i++) {
        queue_counters(q, i, &c);
        assert_int_equal(c.rows, 1); /* the damaged one */
        assert_int_equal(c.messages, 0);
    }
    queue_close(q);
    while (!f->ended) {
        queue_pump(f->q);
        queue_port_poll(f->port);
    }
    spread_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_key, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

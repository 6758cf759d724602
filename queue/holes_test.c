/* Free pages that lie all over the file are used in the order of their numbers. */
#include "queue/testkit.h"

#include "base/rng.h"
#include "queue/shard.h"
#include "queue/testkit_fsck.h"

#define SMALL       12000 /* messages that fill a page each; a random half of them goes */
#define SMALL_BYTES 4000
#define LARGE_BYTES (50u << 10)
#define AT_ONCE     16
#define ROUNDS_MAX  40

static struct recipient *rcpts[SMALL];
static bool gathers; /* else the free pages of the test lie as they were left */

static int setup(void **state)
{
    struct kit_queue *f = calloc(1, sizeof(*f));

    gathers = false;
    f->dir = kit_dir();
    f->options = (struct queue_options){
        .path = f->dir, .map_bytes = UINT64_C(1) << 30, .no_threads = true, .no_sync = true};
    kit_queue_open(f);
    f->q->shards[0]->own.remains.age_ms_min = INT64_MAX; /* what goes leaves holes */
    *state = f;
    return 0;
}

static void run(struct kit_queue *f, struct kit_change *kit)
{
    if (!gathers)
        f->q->shards[0]->own.holes.made = 0;
    queue_submit(f->port, 0, &kit->change);
    while (!kit->done) {
        queue_pump(f->q);
        queue_port_poll(f->port);
    }
    assert_int_equal(kit->result, 0);
    free(kit);
}

/* Four messages of size bytes; their recipients come to out. */
static void accept_four(struct kit_queue *f, size_t size, struct recipient **out)
{
    struct kit_change *kit = kit_change();

    for (size_t i = 0; i < 4; i++) {
        struct message *m = kit_message(size, 1, 4);

        out[i] = kit_recipient(m, 0, "a.example", 500);
        kit_content(kit, m);
        kit_row(kit, QUEUE_ROW_ADD, out[i]);
    }
    run(f, kit);
    for (size_t i = 0; i < 4; i++)
        message_unref(out[i]->message); /* the recipient has its own */
}

static void settle(struct kit_queue *f, struct recipient **list, size_t n)
{
    struct kit_change *kit = kit_change();

    for (size_t i = 0; i < n; i++)
        kit_row(kit, QUEUE_ROW_REMOVE, list[i]);
    run(f, kit);
    for (size_t i = 0; i < n; i++)
        recipient_free(list[i]);
}

static void fill_and_empty_half(struct kit_queue *f)
{
    struct rng rng;

    for (size_t i = 0; i < SMALL; i += 4)
        accept_four(f, SMALL_BYTES, rcpts + i);
    rng_seed(&rng, 1);
    for (size_t i = SMALL - 1; i > 0; i--) {
        size_t k = (size_t)rng_below(&rng, i + 1);
        struct recipient *r = rcpts[i];

        rcpts[i] = rcpts[k];
        rcpts[k] = r;
    }
    for (size_t i = 0; i < SMALL / 2; i += KIT_ROWS_MAX / 2)
        settle(f, rcpts + i, i + KIT_ROWS_MAX / 2 > SMALL / 2 ? SMALL / 2 - i : KIT_ROWS_MAX / 2);
}

static void pass_through(struct kit_queue *f)
{
    struct recipient *list[AT_ONCE];

    for (size_t i = 0; i < AT_ONCE; i += 4)
        accept_four(f, LARGE_BYTES, list + i);
    settle(f, list, AT_ONCE);
}

static void test_order(void **state)
{
    struct kit_queue *f = *state;
    struct shard *s = f->q->shards[0];
    uint64_t pins = 0, prepared = 0;
    unsigned rounds = 0;

    fill_and_empty_half(f);
    assert_int_equal(s->own.holes.rest_until_ns, 0); /* what came in order needs none */
    s->own.holes.used = s->own.holes.far = 0;
    while (s->own.holes.rest_until_ns == 0) {
        assert_true(s->own.holes.far >= s->own.holes.used / 2);
        pass_through(f);
        assert_true(rounds++ < ROUNDS_MAX);
    }
    s->own.holes.used = s->own.holes.far = 0;
    pass_through(f);
    assert_true(s->own.holes.used >= AT_ONCE * (LARGE_BYTES / 4096));
    assert_true(s->own.holes.far < s->own.holes.used / 8);
    if (fsck_shard(f->q, 0, &pins, &prepared) != NULL)
        fail_msg("%s", fsck_shard(f->q, 0, &pins, &prepared));
    kit_queue_reopen(f); /* which checks that no page is free and in use */
    settle(f, rcpts + SMALL / 2, KIT_ROWS_MAX);
    for (size_t i = SMALL / 2 + KIT_ROWS_MAX; i < SMALL; i++)
        recipient_free(rcpts[i]);
}

/* When an order is made. */
static void test_rest(void **state)
{
    struct kit_queue *f = *state;
    struct shard *s = f->q->shards[0];

    s->own.holes.used = s->own.holes.far = 4000;
    s->own.holes.rest_until_ns = 10;
    assert_false(holes_want_order(s, 9)); /* the last one took long */
    s->own.holes.used = s->own.holes.far = 4000;
    assert_true(holes_want_order(s, 10));
    assert_false(holes_want_order(s, 10)); /* nothing was used since */
    s->own.holes.used = 4000;
    assert_false(holes_want_order(s, 10)); /* all in order */
    assert_int_equal(holes_order(s), 0);   /* of an empty queue */
    assert_true(s->own.holes.rest_until_ns > 10);
}

#define IN_BATCH 64

/* Four contents go with each change; all changes are one commit. */
static void accept_batch(struct kit_queue *f, struct recipient **out)
{
    struct kit_change *kits[IN_BATCH / 4];

    for (size_t i = 0; i < IN_BATCH; i++) {
        struct message *m = kit_message(SMALL_BYTES, 1, 4);

        if (i % 4 == 0)
            kits[i / 4] = kit_change();
        out[i] = kit_recipient(m, 0, "a.example", 500);
        kit_content(kits[i / 4], m);
        kit_row(kits[i / 4], QUEUE_ROW_ADD, out[i]);
    }
    for (size_t i = 1; i < ARRAY_LEN(kits); i++)
        queue_submit(f->port, 0, &kits[i]->change);
    run(f, kits[0]);
    for (size_t i = 1; i < ARRAY_LEN(kits); i++) {
        assert_true(kits[i]->done);
        free(kits[i]);
    }
    for (size_t i = 0; i < IN_BATCH; i++)
        message_unref(out[i]->message);
}

/* Settles those whose time has come: *n are under way, before and behind the call. */
static void settle_due(struct kit_queue *f, unsigned *due, size_t *n, unsigned round)
{
    struct recipient *going[KIT_ROWS_MAX];
    size_t len = 0, kept = 0;

    for (size_t i = 0; i < *n; i++) {
        if (due[i] > round) {
            rcpts[kept] = rcpts[i];
            due[kept++] = due[i];
            continue;
        }
        going[len++] = rcpts[i];
        if (len == KIT_ROWS_MAX) {
            settle(f, going, len);
            len = 0;
        }
    }
    if (len > 0)
        settle(f, going, len);
    *n = kept;
}

/* What one commit has brought goes with several others, and what they free is written in runs again
 * all the same. The file does not grow for it without end. */
static void test_gather(void **state)
{
    struct kit_queue *f = *state;
    struct shard *s = f->q->shards[0];
    unsigned *due = calloc(SMALL, sizeof(*due));
    uint64_t used_bytes = 0, breaks = 0;
    struct rng rng;
    size_t n = 0;

    gathers = true;
    rng_seed(&rng, 1);
    for (unsigned round = 0; round < 300; round++) {
        uint64_t before = s->own.holes.breaks;

        if (round == 200)
            used_bytes = shard_unused_bytes(s);
        accept_batch(f, rcpts + n);
        if (round >= 200)
            breaks += s->own.holes.breaks - (s->own.holes.made == IN_BATCH ? 0 : before);
        for (size_t i = 0; i < IN_BATCH; i++)
            due[n++] = round + 4 + (unsigned)rng_below(&rng, 16);
        settle_due(f, due, &n, round);
    }
    assert_true(breaks < 100 * IN_BATCH / 4);
    assert_true(used_bytes - shard_unused_bytes(s) < 2u << 20);
    kit_queue_reopen(f); /* which checks that no page is free and in use */
    settle_due(f, due, &n, 400);
    free(due);
}

/* Where each commit has one message there is nothing to gather, and the file stays small. */
static void test_alone(void **state)
{
    struct kit_queue *f = *state;
    size_t n = 0;

    gathers = true;
    for (unsigned round = 0; round < 600; round++) {
        struct kit_change *kit = kit_change();
        struct message *m = kit_message(SMALL_BYTES, 1, 4);

        rcpts[n] = kit_recipient(m, 0, "a.example", 500);
        kit_content(kit, m);
        kit_row(kit, QUEUE_ROW_ADD, rcpts[n++]);
        run(f, kit);
        message_unref(m);
        if (n < 16)
            continue;
        settle(f, rcpts + 8, 8);
        n = 8;
    }
    assert_true(f->options.map_bytes - shard_unused_bytes(f->q->shards[0]) < 1u << 20);
    settle(f, rcpts, n);
}

/* queue.map_size was lowered below what the file has: its free pages are used still. */
static void test_smaller_map(void **state)
{
    struct kit_queue *f = *state;

    fill_and_empty_half(f);
    for (size_t i = SMALL / 2; i < SMALL; i += 40)
        settle(f, rcpts + i, 40);
    f->options.map_bytes = 16u << 20;
    kit_queue_reopen(f);
    for (int i = 0; i < ROUNDS_MAX; i++)
        pass_through(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_rest, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_gather, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_alone, setup, kit_queue_teardown),
        cmocka_unit_test_setup_teardown(test_smaller_map, setup, kit_queue_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

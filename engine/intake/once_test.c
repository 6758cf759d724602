/* Requests with a key: what is the same, what another, what is forgotten and when. */
#include "intake/once.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "queue/testkit.h"
#include "tls/digest.h"
#include "worker/shared.h"

#define DAY_MS INT64_C(86400000)
#define NOON   (INT64_C(20000) * DAY_MS + DAY_MS / 2)
#define BODY   STR("{\"a\":1}")

struct place {
    struct kit_queue *queue;
    struct shared shared;
    struct msgid_source ids;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    void *queue;

    assert_non_null(p);
    assert_int_equal(kit_queue_setup(&queue), 0);
    p->queue = queue;
    p->shared.queue = p->queue->q;
    msgid_source_init(&p->ids, 7);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    void *queue = p->queue;

    for (size_t i = 0; i < ARRAY_LEN(p->shared.once.first); i++)
        assert_null(p->shared.once.first[i]);
    free(p);
    return kit_queue_teardown(&queue);
}

static int begin(struct place *p, struct once *o, const char *token, const char *key,
                 struct str body, size_t letters, int64_t now_ms)
{
    struct msgid fresh = msgid_next(&p->ids, now_ms);
    uint8_t payload[DIGEST_BYTES];

    digest_sha256(body.ptr, body.len, payload);
    return once_begin(o, &p->shared, str_of(token), str_of(key), payload, letters, &fresh);
}

/* The nth letter is accepted, without its message. */
static void letter_accepted(struct place *p, struct once *o, uint32_t n)
{
    struct kit_change *c = kit_change();
    struct once_letter letter;

    once_letter(o, n, &letter);
    c->change.states = letter.states;
    c->change.states_len = letter.states_len;
    assert_int_equal(kit_submit(p->queue->q, p->queue->port, o->shard, c), 0);
}

static void test_again(void **state)
{
    struct place *p = *state;
    struct once one, two;
    struct msgid batch;

    assert_int_equal(begin(p, &one, "t", "k", BODY, 3, NOON), 0);
    batch = one.batch;
    assert_int_equal(once_accepted(&one, 0), 0);
    /* Nobody else's while it is under way; keys are each token's own, and none is a token too. */
    assert_int_equal(begin(p, &two, "t", "k", BODY, 3, NOON), -EBUSY);
    once_end(&two);
    assert_int_equal(begin(p, &two, "u", "k", BODY, 3, NOON), 0);
    once_end(&two);
    assert_int_equal(begin(p, &two, "", "k", BODY, 3, NOON), 0);
    once_end(&two);
    letter_accepted(p, &one, 0);
    letter_accepted(p, &one, 2);
    once_end(&one);
    assert_int_equal(begin(p, &two, "t", "k", BODY, 3, NOON + DAY_MS - 1), 0);
    assert_memory_equal(&two.batch, &batch, sizeof(batch));
    assert_int_equal(once_accepted(&two, 0), 1);
    assert_int_equal(once_accepted(&two, 1), 0);
    assert_int_equal(once_accepted(&two, 2), 1);
    once_end(&two);
    assert_int_equal(begin(p, &two, "t", "k", STR("{}"), 3, NOON), -EEXIST);
    once_end(&two);
    assert_int_equal(begin(p, &two, "t", "K", STR("{}"), 3, NOON), 0);
    once_end(&two);
    /* A day later it is forgotten, and may be anything. */
    assert_int_equal(begin(p, &two, "t", "k", STR("{}"), 3, NOON + DAY_MS), 0);
    assert_memory_not_equal(&two.batch, &batch, sizeof(batch));
    assert_int_equal(once_accepted(&two, 0), 0);
    letter_accepted(p, &two, 0);
    once_end(&two);
    assert_int_equal(begin(p, &one, "t", "k", BODY, 3, NOON + DAY_MS + 1), -EEXIST);
    once_end(&one);
}

/* A clock that is set back, over midnight too, hides nothing of the day. */
static void test_clock_set_back(void **state)
{
    const int64_t midnight = NOON + DAY_MS / 2;
    struct place *p = *state;
    struct once o;
    struct msgid batch;

    assert_int_equal(begin(p, &o, "t", "k", BODY, 1, midnight + 1), 0);
    batch = o.batch;
    letter_accepted(p, &o, 0);
    once_end(&o);
    for (int64_t back_ms = 1; back_ms < DAY_MS; back_ms += 8 * 3600 * 1000) {
        assert_int_equal(begin(p, &o, "t", "k", BODY, 1, midnight + 1 - back_ms), 0);
        assert_memory_equal(&o.batch, &batch, sizeof(batch));
        assert_int_equal(once_accepted(&o, 0), 1);
        once_end(&o);
    }
}

/* A request of which no letter was accepted leaves nothing. */
static void test_none_accepted(void **state)
{
    struct place *p = *state;
    struct once o;

    assert_int_equal(begin(p, &o, "t", "k", BODY, 1, NOON), 0);
    once_end(&o);
    assert_int_equal(begin(p, &o, "t", "k", STR("{}"), 1, NOON), 0);
    assert_false(o.again);
    once_end(&o);
}

static void count_key(void *arg, struct str key)
{
    (void)key;
    (*(size_t *)arg)++;
}

static size_t keys(struct place *p)
{
    size_t n = 0;

    for (uint32_t i = 0; i < queue_shards(p->queue->q); i++)
        assert_int_equal(
            queue_state_keys(p->queue->q, i, STR("\x06"), STR("\x07"), SIZE_MAX, count_key, &n), 0);
    return n;
}

/* Days of requests, each of one letter: what is old goes with the letters of its shard, so there
 * are never more than those of three days. */
static void test_old_goes(void **state)
{
    struct place *p = *state;
    struct once o;

    for (int day = 0; day < 12; day++)
        for (int i = 0; i < 40; i++) {
            char key[32];

            snprintf(key, sizeof(key), "%d-%d", day, i);
            assert_int_equal(begin(p, &o, "t", key, BODY, 1, NOON + day * DAY_MS), 0);
            letter_accepted(p, &o, 0);
            once_end(&o);
            assert_true(keys(p) <= (size_t)2 * 40 * 3 + 2);
        }
    /* What is not old is there. */
    assert_int_equal(begin(p, &o, "t", "11-3", BODY, 1, NOON + 12 * DAY_MS - 1), 0);
    assert_int_equal(once_accepted(&o, 0), 1);
    once_end(&o);
}

/* Many under way, which end in the order in which they began: each is found, until it has ended. */
static void test_many(void **state)
{
    enum { MANY = 3000 };
    struct place *p = *state;
    struct once *all = calloc(MANY, sizeof(*all)), again;
    size_t used = 0;
    char key[32];

    assert_non_null(all);
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof(key), "%d", i);
        assert_int_equal(begin(p, &all[i], "t", key, BODY, 1, NOON), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(p->shared.once.first); i++)
        used += p->shared.once.first[i] != NULL;
    assert_true(used > ARRAY_LEN(p->shared.once.first) / 2); /* they are spread */
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof(key), "%d", i);
        assert_int_equal(begin(p, &again, "t", key, BODY, 1, NOON), -EBUSY);
        once_end(&again);
        once_end(&all[i]);
        assert_int_equal(begin(p, &again, "t", key, BODY, 1, NOON), 0);
        once_end(&again);
    }
    free(all);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_set_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_none_accepted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

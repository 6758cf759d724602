#include "base/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_bounds(void **state)
{
    struct ring r;

    (void)state;
    assert_int_equal(ring_init(&r, 4), 0);
    assert_null(ring_pop(&r));
    for (uintptr_t round = 0; round < 10; round++) {
        for (uintptr_t i = 1; i <= 4; i++)
            assert_true(ring_push(&r, (void *)(round * 8 + i)));
        assert_false(ring_push(&r, &r)); /* full */
        for (uintptr_t i = 1; i <= 4; i++)
            assert_ptr_equal(ring_pop(&r), (void *)(round * 8 + i));
        assert_null(ring_pop(&r));
    }
    ring_done(&r);
}

/* The counters are 32 bits and wrap. */
static void test_wrap(void **state)
{
    struct ring r;

    (void)state;
    assert_int_equal(ring_init(&r, 8), 0);
    r.consumer.head = r.consumer.tail_seen = UINT32_MAX - 2;
    r.producer.tail = r.producer.head_seen = UINT32_MAX - 2;
    for (uintptr_t i = 1; i <= 8; i++)
        assert_true(ring_push(&r, (void *)i));
    assert_false(ring_push(&r, &r));
    for (uintptr_t i = 1; i <= 8; i++)
        assert_ptr_equal(ring_pop(&r), (void *)i);
    assert_null(ring_pop(&r));
    ring_done(&r);
}

enum { ITEMS = 200000 };

struct item {
    uintptr_t
        value; /* written before the push, read after the pop: a race if the ring were wrong */
};

static struct item items[ITEMS];

static void *produce(void *arg)
{
    for (uintptr_t i = 0; i < ITEMS; i++) {
        items[i].value = i * 3 + 1;
        while (!ring_push(arg, &items[i]))
            sched_yield();
    }
    return NULL;
}

static void test_two_threads(void **state)
{
    struct ring r;
    pthread_t producer;

    (void)state;
    assert_int_equal(ring_init(&r, 64), 0);
    assert_int_equal(pthread_create(&producer, NULL, produce, &r), 0);
    for (uintptr_t i = 0; i < ITEMS; i++) {
        struct item *item;

        while ((item = ring_pop(&r)) == NULL)
            sched_yield();
        assert_ptr_equal(item, &items[i]);
        assert_int_equal(item->value, i * 3 + 1);
    }
    pthread_join(producer, NULL);
    assert_null(ring_pop(&r));
    ring_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_two_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Notes between workers: what is the sender's, and what is whose it was sent to. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "worker/shared.h"
#include "worker/worker.h"

#define NOTES    10000 /* more than an inbox has room for: the rest waits in the outbox */
#define ROUNDS   40
#define LOOKS    8
#define LIMIT_NS UINT64_C(60000000000)

/* A line of the cache each. */
struct sent {
    _Alignas(CACHE_LINE_BYTES) struct worker_note note;
    _Atomic uint32_t looks;
};

static struct shared shared;
static struct sent *sent;
static _Atomic uint32_t posted, ran, linked;
static uint64_t limit_ns;

/* The second worker's: from here on the note is its own, to be put where it likes. */
static void on_note(struct worker *w, struct worker_note *note)
{
    (void)w;
    linked += note->node.next != NULL || note->node.prev != NULL;
    ran++; /* the last of a round: all may be sent again */
}

static void *take(void *arg)
{
    struct worker *w = arg;

    while (ran < NOTES * ROUNDS && clock_mono_ns() < limit_ns) {
        if (posted <= ran) /* a round begins with a full inbox */
            continue;
        (void)worker_notes_take(w, NULL, NULL);
        /* The next ones' lines are this core's: what the sender writes there takes a while. */
        for (uint32_t i = 0; i < LOOKS; i++)
            atomic_fetch_add_explicit(&sent[(ran + i) % NOTES].looks, 1, memory_order_relaxed);
    }
    return NULL;
}

static void worlds_open(void)
{
    struct io_options options = {.arg = NULL};

    shared.workers_len = 2;
    shared.workers = aligned_alloc(CACHE_LINE_BYTES, 2 * sizeof(*shared.workers));
    assert_non_null(shared.workers);
    memset(shared.workers, 0, 2 * sizeof(*shared.workers));
    for (uint32_t i = 0; i < 2; i++) {
        struct worker *w = &shared.workers[i];

        w->shared = &shared;
        w->index = i;
        assert_int_equal(io_open(&w->io, &options), 0);
        assert_int_equal(worker_notes_open(w), 0);
    }
}

static void worlds_close(void)
{
    for (uint32_t i = 0; i < 2; i++) {
        worker_notes_close(&shared.workers[i]);
        io_close(shared.workers[i].io);
    }
    free(shared.workers);
}

/* A note that found no room in the inbox is in no list any more when it runs: who runs it frees it,
 * or sends it on. */
static void test_note_is_the_targets(void **state)
{
    struct worker *from;
    pthread_t target;

    (void)state;
    worlds_open();
    from = &shared.workers[0];
    sent = aligned_alloc(CACHE_LINE_BYTES, NOTES * sizeof(*sent));
    assert_non_null(sent);
    memset(sent, 0, NOTES * sizeof(*sent));
    for (uint32_t i = 0; i < NOTES; i++)
        sent[i].note.run = on_note;
    limit_ns = clock_mono_ns() + LIMIT_NS;
    assert_int_equal(pthread_create(&target, NULL, take, &shared.workers[1]), 0);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < NOTES; i++)
            worker_post(&shared, from, 1, &sent[i].note);
        assert_true(worker_notes_wait(from));
        posted += NOTES;
        while (ran < NOTES * (round + 1) && clock_mono_ns() < limit_ns)
            worker_notes_send(from);
    }
    assert_int_equal(pthread_join(target, NULL), 0);
    assert_int_equal(ran, NOTES * ROUNDS);
    assert_int_equal(linked, 0);
    free(sent);
    worlds_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_note_is_the_targets)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "worker/crew_share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/shared.h"
#include "worker/worker.h"

#define TASKS 5

static struct shared shared;
static struct worker *w;
static struct crew_share share;

static struct work {
    struct crew_task task;
    int ran, done;
} works[TASKS];

static void on_run(struct crew_job *job)
{
    CONTAINER_OF(job, struct work, task.job)->ran++;
}

static void on_done(struct crew_job *job)
{
    CONTAINER_OF(job, struct work, task.job)->done++;
    crew_share_ended(&share);
}

static void wake_nobody(void *arg)
{
    (void)arg;
}

static int open_world(void **state)
{
    (void)state;
    memset(&shared, 0, sizeof(shared));
    memset(works, 0, sizeof(works));
    w = aligned_alloc(CACHE_LINE_BYTES, sizeof(*w));
    assert_non_null(w);
    memset(w, 0, sizeof(*w));
    w->shared = &shared;
    crew_desk_init(&w->desk, wake_nobody, NULL);
    /* Without threads: what is submitted has run, and comes back with crew_collect(). */
    assert_int_equal(crew_open(&shared.crew, 0, 8), 0);
    crew_share_init(&share, w, 2);
    for (int i = 0; i < TASKS; i++)
        works[i].task.job = (struct crew_job){.run = on_run, .done = on_done};
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    assert_false(crew_share_pending(&share));
    crew_stop(shared.crew);
    crew_close(shared.crew);
    free(w);
    return 0;
}

static void check_ran(const char *want)
{
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(works[i].ran, want[i] - '0');
}

/* The crew has two of five at a time, in turn. */
static void test_in_turn(void **state)
{
    (void)state;
    for (int i = 0; i < TASKS; i++)
        crew_share_submit(&share, &works[i].task);
    check_ran("11000");
    crew_collect(&w->desk);
    check_ran("11110");
    crew_collect(&w->desk);
    check_ran("11111");
    crew_collect(&w->desk);
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(works[i].done, 1);
}

/* One that waits may be taken back, one that the crew has may not. */
static void test_taken_back(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        crew_share_submit(&share, &works[i].task);
    assert_false(crew_share_take_back(&works[1].task));
    assert_true(crew_share_take_back(&works[2].task));
    crew_collect(&w->desk);
    check_ran("11010");
    assert_int_equal(works[1].done, 1);
    crew_collect(&w->desk);
    assert_int_equal(works[2].done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_in_turn, open_world, close_world),
        cmocka_unit_test_setup_teardown(test_taken_back, open_world, close_world),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "worker/crew.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static sem_t begun;

struct count {
    struct crew_job job;
    sem_t *go; /* NULL: at once */
    int ran, done;
};

static void on_run(struct crew_job *job)
{
    struct count *c = CONTAINER_OF(job, struct count, job);

    sem_post(&begun);
    if (c->go != NULL)
        sem_wait(c->go);
    c->ran++;
}

static void on_done(struct crew_job *job)
{
    CONTAINER_OF(job, struct count, job)->done++;
}

static void on_wake(void *arg)
{
    sem_post(arg);
}

struct nice {
    struct crew_job job;
    int value;
};

static void on_look(struct crew_job *job)
{
    CONTAINER_OF(job, struct nice, job)->value = getpriority(PRIO_PROCESS, (id_t)gettid());
}

static void on_looked(struct crew_job *job)
{
    (void)job;
}

/* Who submits goes before the crew. */
static void test_nice(void **state)
{
    int own = getpriority(PRIO_PROCESS, (id_t)gettid()), wanted = own + CREW_NICE;
    struct crew_desk desk;
    struct crew *crew;
    struct nice nice;
    sem_t woken;

    (void)state;
    sem_init(&woken, 0, 0);
    crew_desk_init(&desk, on_wake, &woken);
    nice = (struct nice){.job = {.run = on_look, .done = on_looked, .desk = &desk}};
    assert_int_equal(crew_open(&crew, 1, 1), 0);
    assert_true(crew_submit(crew, &nice.job));
    crew_stop(crew);
    crew_collect(&desk);
    crew_close(crew);
    assert_int_equal(nice.value, wanted > 19 ? 19 : wanted);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)gettid()), own);
}

static struct count make(struct crew_desk *desk, sem_t *go)
{
    return (struct count){.job = {.run = on_run, .done = on_done, .desk = desk}, .go = go};
}

/* What does not fit is refused and stays its owner's; a stop finishes the rest. */
static void test_bounded(void **state)
{
    struct crew *crew;
    struct crew_desk desk;
    struct count jobs[4];
    sem_t woken, go;

    (void)state;
    sem_init(&woken, 0, 0);
    sem_init(&go, 0, 0);
    crew_desk_init(&desk, on_wake, &woken);
    assert_int_equal(crew_open(&crew, 1, 2), 0);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        jobs[i] = make(&desk, &go);
    assert_true(crew_submit(crew, &jobs[0].job));
    while (sem_trywait(&begun) != 0) /* the thread has it: two more may wait */
        usleep(1000);
    assert_true(crew_submit(crew, &jobs[1].job));
    assert_true(crew_submit(crew, &jobs[2].job));
    assert_false(crew_submit(crew, &jobs[3].job));
    for (int i = 0; i < 4; i++)
        sem_post(&go);
    crew_stop(crew);
    assert_false(crew_submit(crew, &jobs[3].job));
    sem_wait(&woken);
    crew_collect(&desk);
    for (int i = 0; i < 3; i++)
        assert_true(jobs[i].ran == 1 && jobs[i].done == 1);
    assert_true(jobs[3].ran == 0 && jobs[3].done == 0);
    crew_close(crew);
}

/* Brief jobs that wait are done together, and come back together: the desk is woken once for them.
 * A job that is not brief is nobody's company. */
static void test_together(void **state)
{
    struct crew *crew;
    struct crew_desk desk;
    struct count jobs[7];
    sem_t woken, first, last, slow;

    (void)state;
    sem_init(&woken, 0, 0);
    sem_init(&first, 0, 0);
    sem_init(&last, 0, 0);
    sem_init(&slow, 0, 0);
    while (sem_trywait(&begun) == 0) /* of other tests */
        continue;
    crew_desk_init(&desk, on_wake, &woken);
    assert_int_equal(crew_open(&crew, 1, ARRAY_LEN(jobs)), 0);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        jobs[i] = make(&desk, i == 0 ? &first : i == 3 ? &last : NULL);
        jobs[i].job.brief = i > 0 && i != 4;
    }
    jobs[4].go = &slow;
    assert_true(crew_submit(crew, &jobs[0].job));
    while (sem_trywait(&begun) != 0) /* the thread has it: the others wait */
        usleep(1000);
    for (size_t i = 1; i < ARRAY_LEN(jobs); i++)
        assert_true(crew_submit(crew, &jobs[i].job));
    sem_post(&first);
    sem_wait(&woken); /* by the first */
    crew_collect(&desk);
    assert_int_equal(jobs[0].done, 1);
    for (int i = 1; i <= 3; i++) /* the thread is amid the third of the brief ones */
        while (sem_trywait(&begun) != 0)
            usleep(1000);
    assert_true(jobs[1].ran == 1 && jobs[2].ran == 1);
    crew_collect(&desk);
    assert_true(jobs[1].done == 0 && sem_trywait(&woken) != 0);
    sem_post(&last);
    sem_wait(&woken);
    crew_collect(&desk);
    assert_true(jobs[1].done == 1 && jobs[2].done == 1 && jobs[3].done == 1);
    sem_post(&slow);
    crew_stop(crew);
    crew_collect(&desk);
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
        assert_true(jobs[i].ran == 1 && jobs[i].done == 1);
    crew_close(crew);
}

/* Without threads, as in a simulation: run at once, and back in the desk's own time. */
static void test_inline(void **state)
{
    struct crew *crew;
    struct crew_desk desk;
    struct count job;
    sem_t woken;

    (void)state;
    sem_init(&woken, 0, 0);
    crew_desk_init(&desk, on_wake, &woken);
    job = make(&desk, NULL);
    assert_int_equal(crew_open(&crew, 0, 1), 0);
    assert_true(crew_submit(crew, &job.job));
    assert_true(job.ran == 1 && job.done == 0 && sem_trywait(&woken) == 0);
    crew_collect(&desk);
    assert_int_equal(job.done, 1);
    crew_stop(crew);
    crew_close(crew);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nice),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_inline),
    };

    sem_init(&begun, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

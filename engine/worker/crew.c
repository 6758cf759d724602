#include "worker/crew.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct crew {
    pthread_mutex_t lock; /* protects what follows up to threads */
    pthread_cond_t wanted;
    struct list waiting;
    uint32_t waiting_len, jobs_max;
    bool stopping;
    uint32_t threads_max; /* as asked for */
    uint32_t threads_len;
    pthread_t threads[];
};

/* A thread takes brief jobs together, as long as there are more than one for each thread. Draining
 * with a signature for each message, one by one and together (two to five pairs of runs, loaded
 * machine), CPU of engine and sink a message: Ed25519 93 and 75 us, 14 and 7.5 us; RSA 325 and 297
 * us, 21 and 11 us. */
#define TOGETHER_MAX 8

static void job_run(struct crew_job *job)
{
    ASSERT(!list_node_linked(&job->node)); /* it is nobody else's while it runs */
    job->run(job);
}

/* The desk is woken by whoever finds it empty; its thread takes all. Jobs that were taken together
 * come back together: a worker's turn for each of them would cost as much as a brief job itself. */
static void jobs_return(struct crew_job *const jobs[], uint32_t len)
{
    ASSERT(len > 0 && len <= TOGETHER_MAX);
    for (uint32_t i = 0; i < len; i++) {
        struct crew_desk *desk = jobs[i]->desk;
        bool was_empty = mailbox_put(&desk->done, &jobs[i]->node);

        while (i + 1 < len && jobs[i + 1]->desk == desk)
            was_empty |= mailbox_put(&desk->done, &jobs[++i]->node);
        if (was_empty)
            desk->wake(desk->arg);
    }
}

static struct crew_job *job_pop(struct crew *crew)
{
    struct list_node *n = list_pop_front(&crew->waiting);

    ASSERT(n != NULL && crew->waiting_len > 0);
    crew->waiting_len--;
    return LIST_ENTRY(n, struct crew_job, node);
}

static bool next_is_brief(const struct crew *crew)
{
    struct list_node *n = list_first(&crew->waiting);

    return n != NULL && LIST_ENTRY(n, struct crew_job, node)->brief;
}

/* Takes what a thread does next: one job, or brief ones, of which each thread gets a share. 0: the
 * crew is stopped, and nothing waits. */
static uint32_t jobs_next(struct crew *crew, struct crew_job *jobs[TOGETHER_MAX])
{
    uint32_t len = 0, share;

    pthread_mutex_lock(&crew->lock);
    while (list_empty(&crew->waiting) && !crew->stopping)
        pthread_cond_wait(&crew->wanted, &crew->lock);
    ASSERT(list_empty(&crew->waiting) == (crew->waiting_len == 0));
    ASSERT(crew->waiting_len <= crew->jobs_max);
    share = crew->waiting_len / crew->threads_max;
    if (crew->waiting_len > 0)
        jobs[len++] = job_pop(crew);
    while (len > 0 && len < share && len < TOGETHER_MAX && jobs[0]->brief && next_is_brief(crew))
        jobs[len++] = job_pop(crew);
    pthread_mutex_unlock(&crew->lock);
    return len;
}

/* On Linux a thread has a priority of its own. */
void crew_be_nice(void)
{
    id_t thread = (id_t)gettid();

    (void)setpriority(PRIO_PROCESS, thread, getpriority(PRIO_PROCESS, thread) + CREW_NICE);
}

static void *crew_main(void *arg)
{
    struct crew *crew = arg;
    struct crew_job *jobs[TOGETHER_MAX];
    uint32_t len;

    pthread_setname_np(pthread_self(), "crew");
    crew_be_nice();
    while ((len = jobs_next(crew, jobs)) > 0) {
        for (uint32_t i = 0; i < len; i++)
            job_run(jobs[i]);
        jobs_return(jobs, len);
    }
    return NULL;
}

int crew_open(struct crew **out, uint32_t threads, uint32_t jobs_max)
{
    struct crew *crew = calloc(1, sizeof(*crew) + threads * sizeof(crew->threads[0]));

    ASSERT(jobs_max > 0);
    if (crew == NULL)
        return -ENOMEM;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->wanted, NULL);
    list_init(&crew->waiting);
    crew->jobs_max = jobs_max;
    crew->threads_max = threads;
    for (; crew->threads_len < threads; crew->threads_len++) {
        int err = -pthread_create(&crew->threads[crew->threads_len], NULL, crew_main, crew);

        if (err < 0) {
            crew_stop(crew);
            crew_close(crew);
            return err;
        }
    }
    *out = crew;
    return 0;
}

void crew_desk_init(struct crew_desk *desk, void (*wake)(void *arg), void *arg)
{
    mailbox_init(&desk->done);
    desk->wake = wake;
    desk->arg = arg;
}

bool crew_submit(struct crew *crew, struct crew_job *job)
{
    bool taken, at_once;

    ASSERT(job->run != NULL && job->done != NULL && job->desk != NULL);
    ASSERT(!list_node_linked(&job->node));
    pthread_mutex_lock(&crew->lock);
    taken = !crew->stopping && crew->waiting_len < crew->jobs_max;
    at_once = crew->threads_len == 0;
    if (taken && !at_once) {
        list_push_back(&crew->waiting, &job->node);
        crew->waiting_len++;
        pthread_cond_signal(&crew->wanted);
    }
    pthread_mutex_unlock(&crew->lock);
    if (taken && at_once) {
        job_run(job);
        jobs_return(&job, 1);
    }
    return taken;
}

void crew_run_here(struct crew_job *job)
{
    job_run(job);
    (void)mailbox_put(&job->desk->done, &job->node);
}

bool crew_desk_has(const struct crew_desk *desk)
{
    return !mailbox_empty(&desk->done);
}

void crew_collect(struct crew_desk *desk)
{
    struct list done;
    struct list_node *n;

    list_init(&done);
    mailbox_take(&desk->done, &done);
    while ((n = list_pop_front(&done)) != NULL) {
        struct crew_job *job = LIST_ENTRY(n, struct crew_job, node);

        ASSERT(job->desk == desk);
        job->done(job);
    }
}

void crew_stop(struct crew *crew)
{
    if (crew == NULL)
        return;
    pthread_mutex_lock(&crew->lock);
    crew->stopping = true;
    pthread_cond_broadcast(&crew->wanted);
    pthread_mutex_unlock(&crew->lock);
    for (uint32_t i = 0; i < crew->threads_len; i++)
        pthread_join(crew->threads[i], NULL);
    ASSERT(list_empty(&crew->waiting) && crew->waiting_len == 0);
    crew->threads_len = 0;
}

void crew_close(struct crew *crew)
{
    if (crew == NULL)
        return;
    ASSERT(crew->stopping && crew->threads_len == 0);
    pthread_cond_destroy(&crew->wanted);
    pthread_mutex_destroy(&crew->lock);
    free(crew);
}

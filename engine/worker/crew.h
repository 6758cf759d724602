/* The crew: threads for work that takes CPU and belongs to nobody's turn, as the conversion of a
 * large message, a step of a TLS handshake, a signature or a password hash. A job is run by
 * some thread of the crew; its result comes back to the desk of the worker that submitted it, which
 * collects it in its own turn. No thread of the crew touches what belongs to a worker.
 *
 * Bounded: crew_submit() refuses what is beyond jobs_max, and its caller waits or does without.
 * With no threads, as in a simulation, a job is run when it is submitted; its result comes back the
 * same way. */
#ifndef HAYAUMA_ENGINE_CREW_H
#define HAYAUMA_ENGINE_CREW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/list.h"
#include "queue/mailbox.h"

struct crew;

#define CREW_JOBS_PER_WORKER 256 /* that may wait */
/* Its threads are so much nicer than others: where cores are short, workers go before the crew, so
 * strangers' handshakes take no turn of theirs, and a job still gets about a quarter of a core. */
#define CREW_NICE 5

/* Where results for one thread come back. */
struct crew_desk {
    struct mailbox done;
    void (*wake)(void *arg); /* any thread: crew_collect() is to be called */
    void *arg;
};

struct crew_job {                       /* lives in its owner, from crew_submit() to done() */
    void (*run)(struct crew_job *job);  /* a thread of the crew: may touch the job's owner only */
    void (*done)(struct crew_job *job); /* the desk's thread; the job is its owner's again */
    struct crew_desk *desk;
    bool brief;            /* takes less than a millisecond: may come back with a few others */
    struct list_node node; /* the crew's */
};

/* The thread that calls this is as nice as the crew's from then on. */
void crew_be_nice(void);
/* 0 or -errno. */
int crew_open(struct crew **out, uint32_t threads, uint32_t jobs_max) MUST_USE;
void crew_desk_init(struct crew_desk *desk, void (*wake)(void *arg), void *arg);
/* Any thread. False: jobs_max are waiting, or the crew has been stopped; job stays the caller's. */
bool crew_submit(struct crew *crew, struct crew_job *job) MUST_USE;
/* The desk's thread: runs a job that takes no longer than it would take to hand it over. Its result
 * waits at the desk, and nobody is woken for it: see crew_desk_has(). */
void crew_run_here(struct crew_job *job);
/* The desk's thread, once a turn: whether results are to be collected. */
bool crew_desk_has(const struct crew_desk *desk);
/* The desk's thread: calls done() of each job whose result has come. */
void crew_collect(struct crew_desk *desk);
/* Takes no more jobs, finishes those it has, ends the threads. NULL is accepted. */
void crew_stop(struct crew *crew);
/* Frees it, stopped and with nobody left who might submit. NULL is accepted. */
void crew_close(struct crew *crew);

#endif

/* A worker's share of the crew (worker/crew.h) for one kind of work: at most so many of its tasks
 * are with the crew at a time, so that other kinds, whose jobs stand in the same line, go on. The
 * others wait here, the first first, and so do all while the crew has no room.
 *
 * Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_CREW_SHARE_H
#define HAYAUMA_ENGINE_CREW_SHARE_H

#include "io/io.h"
#include "worker/crew.h"

struct worker;

struct crew_share {
    struct worker *worker;
    struct list waiting;
    uint32_t with_crew, max;
    struct timer timer; /* the crew had no room: look again */
};

struct crew_task { /* lives in its owner, from crew_share_submit() to done(), or until taken back */
    struct list_node node; /* the share's, until the crew has it */
    struct crew_job job;
    struct crew_share *share;
};

/* w has its desk, and a crew when it first submits. */
void crew_share_init(struct crew_share *s, struct worker *w, uint32_t max);
/* Whether some of it are to be done still. */
static inline bool crew_share_pending(const struct crew_share *s)
{
    return s->with_crew > 0 || !list_empty(&s->waiting);
}
/* t->job has run, done and perhaps brief. done() calls crew_share_ended() when it is through. */
void crew_share_submit(struct crew_share *s, struct crew_task *t);
/* A task has come back: the next one may go. */
void crew_share_ended(struct crew_share *s);
/* False: the crew has it, and done() will be called. */
bool crew_share_take_back(struct crew_task *t) MUST_USE;

#endif

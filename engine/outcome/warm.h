/* The keeper of warm-up (limits/warmup.h): the worker that owns shard 0 leases what streams ask
 * for, stores it, and grants it behind the commit; with a day that is over it stores what that day
 * was and writes a record of it. One round is under way at a time: a change for each shard in which
 * something is to be stored. A change of what rides waits for company, as the settle does that it
 * rides with, so that both come into one transaction. */
#ifndef HAYAUMA_ENGINE_WARM_H
#define HAYAUMA_ENGINE_WARM_H

#include "worker/shared.h"
#include "worker/worker.h"

struct warm;

/* In the worker that owns shard 0, at its start and end. 0 or -ENOMEM. */
int warm_open(struct worker *w) MUST_USE;
void warm_close(struct worker *w);
/* Once a turn, in any worker. */
void warm_keep(struct worker *w);
/* Behind the last attempt of all workers: what was leased and not spent is given back, and the last
 * answers are stored, by this and the following turns. False: that is over, or it failed, which
 * costs what a crash does. In any worker. */
bool warm_ends(struct worker *w);

struct warm_order {
    struct warmup_order what;
    /* From any thread. 0: it is stored; -ENOENT, -ERANGE: see warmup_order(); -ESHUTDOWN; -errno.
     */
    void (*on_done)(void *arg, int result);
    void *arg;
};
/* Main thread. */
void warm_submit(struct shared *all, const struct warm_order *order);

#endif

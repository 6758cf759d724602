/* Changes of suspensions (worker/suspensions.h). A change is stored first, then made in the table,
 * then told to the lanes of all workers. The worker that owns shard 0, where suspensions are
 * stored, makes changes one after the other, and ends suspensions whose time is over. */
#ifndef HAYAUMA_ENGINE_SUSPEND_H
#define HAYAUMA_ENGINE_SUSPEND_H

#include "worker/shared.h"
#include "worker/worker.h"

struct suspend_order {
    struct suspension what; /* resume: its scope and name */
    bool resume;
    bool look; /* nothing is suspended or resumed: lanes only look what is in force */
    /* Caps that come with it, in one change: they are there when it is. Allocated, and taken over;
     * NULL: none. */
    struct suspension *caps;
    size_t caps_len;
    /* From any thread. 0: it is stored, and all lanes have heard of it; -ENOENT: nothing is
     * suspended so; -ENOSPC: too many are, or the store is full; -ESHUTDOWN; -errno. */
    void (*on_done)(void *arg, int result);
    void *arg;
};

/* Main thread. */
void suspend_submit(struct shared *all, const struct suspend_order *order);
/* suspend_submit() from a worker; on_done may be NULL. */
void suspend_submit_from(struct worker *w, const struct suspend_order *order);
/* In the worker that owns shard 0, at its start and end. */
void suspend_open(struct worker *w);
void suspend_close(struct worker *w);

#endif

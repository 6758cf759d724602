/* Sweeps: what time alone does to mail that nothing else touches, in bounded steps.
 *
 * A worker looks at each of its lanes once a second. What has outlived its lifetime in a window
 * ends there; what has outlived it in the store, behind a suspended lane or a full window, is found
 * by a walk over the lane's rows, and of due lanes that are not in memory by a walk over all rows,
 * every five minutes. In each shard, after the clock was set back and once after a start, a walk
 * over all rows puts due times right.
 *
 * Walks run in the loader's thread, a step at a time; the rows found are changed as administration
 * changes rows (admin.h). Timers: the worker's, to the next look at lanes; a shard's, between two
 * steps of a walk. */
#ifndef HAYAUMA_ENGINE_SWEEP_H
#define HAYAUMA_ENGINE_SWEEP_H

#include "worker/worker.h"

struct lane;

/* The worker's queue port is open. 0 or -ENOMEM. */
int sweep_open(struct worker *w) MUST_USE;
/* The port is closed. */
void sweep_close(struct worker *w);
/* Looks whether somebody set the clock. Once a turn, in front of all else that asks for the time.
 */
void sweep_clock(struct worker *w);
/* The due time that r, as it is stored, should have. */
int64_t sweep_right_ms(const struct worker *w, const struct recipient *r);

#endif

/* The life of a worker: how its rooms make up a turn, in which order they start and end. The rooms
 * themselves do not know each other's turn; whoever adds work of a turn adds its call here.
 *
 * A turn (io_turn): handlers absorb events and mark what changed; on_tick() then runs once: dirty
 * sites hand out work, dirty sessions send, the turn's settles go to the committers as one change a
 * shard. So the cost of a wake-up is shared by all that happened in it, and nothing recurses. */
#ifndef HAYAUMA_ENGINE_TURN_H
#define HAYAUMA_ENGINE_TURN_H

#include "worker/worker.h"

struct engine;
struct shared;

/* Opens io and listeners of worker index. Runs in the worker's thread. 0 or -errno. */
int worker_open(struct worker *w, struct engine *engine, uint32_t index);
/* After the queue is open: port, resolver, accepting, start-up scans. */
int worker_start(struct worker *w);
/* Turns until stopping, and all workers are drained. */
void worker_run(struct worker *w);
/* One turn, waiting at most wait_ms. */
int worker_turn(struct worker *w, uint32_t wait_ms);
/* Whether the last turn left something for the next one, which then waits for nothing. */
bool worker_busy(struct worker *w);
void worker_close(struct worker *w);
/* Ends sessions, after what is past the dot; hard: at once. Its own thread. */
void worker_drain(struct worker *w, bool hard);
/* Whether everything a drain waits for has ended, and all that it has to tell others is theirs. */
bool worker_drained(const struct worker *w);
/* Whether that was so for each worker behind its last turn. */
bool workers_drained(const struct shared *all);

#endif

/* Lanes that are in the store alone. A worker has room for lanes_max lanes; beyond, lanes that have
 * nothing in memory leave it, and their rows stay where they are.
 *
 * Lanes that are absent are found by rounds over the directory of each shard, which the queue reads
 * in order of the keys. A round that finds every lane in memory is the last one until a lane leaves
 * again; so where all lanes have room there is one round, at the start. What a round gives is only
 * that a lane has rows, and when the first is due: rows come by the lane's loads, as ever.
 *
 * How full the table is, in eighths of lanes_max:
 *   up to 4  every lane that is found comes in, due or not, and none leaves
 *   4 to 6   lanes that are due and not suspended come in; others leave, where they were not in use
 *            since the last look
 *   beyond 6 few come in; those that have nothing in memory leave, due or not, but for better
 *            priorities than the default
 *   from 7   memory counts as short: a supply holds what it sends in a second or two, so that lanes
 *            behind slow ones have nothing in memory; beyond, lanes that back off leave too
 *   8        only lanes of better priorities are taken in, and those that mail arrives for
 *   16       none is: what arrives for an unknown lane is left to the store
 *
 * Timers: one a shard, to the next read or round. Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_LANE_FIND_H
#define HAYAUMA_ENGINE_LANE_FIND_H

#include "worker/worker.h"

struct lane;

#define LANES_MAX (1u << 18) /* in memory, of all workers: worker->lanes_max is a worker's part */

/* The worker's queue port is open: begins the first round. 0 or -ENOMEM. */
int lanes_find_open(struct worker *w) MUST_USE;
/* The port is closed. */
void lanes_find_close(struct worker *w);
/* Lets lanes leave, some a turn. */
void lanes_leave_step(struct worker *w);
/* lane, which has nothing in memory, leaves it. */
void lane_leave(struct lane *lane);
/* The lane, which has rows in the store, the first due then as far as is known (INT64_MAX): one
 * that is in the store alone comes in, for somebody who asks about it, and has its site if nothing
 * has to be looked up for that. NULL: memory is out. */
struct lane *lane_found(struct worker *w, uint32_t shard, uint32_t flow, struct str name,
                        int64_t due_ms);
/* Lanes that were suspended may go on: what is absent is looked for at once. */
void lanes_find_soon(struct worker *w);
/* Whether a shard has lanes that may not be in memory, or that are in it without all that is known
 * of them. */
bool lanes_are_absent(const struct worker *w, uint32_t shard);
/* Whether due rows of absent lanes were left where they are since this was asked last. */
bool lanes_left_due(struct worker *w, uint32_t shard);
/* Whether a row that arrives for a lane that is not in memory is left to the store. */
bool lane_stays_absent(const struct worker *w);
/* A row of a lane that is not in memory was left to the store, due then. */
void lane_left(struct worker *w, uint32_t shard, int64_t due_ms);
/* How long an empty lane stays. */
uint64_t lane_idle_ms(const struct worker *w);
/* Whether so many lanes are in memory that supplies must share the room. */
static inline bool lanes_are_tight(const struct worker *w)
{
    return w->lanes.count >= w->lanes_max / 8 * 7;
}

#endif

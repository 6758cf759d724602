/* Walks over all lanes of a worker, some of them a turn, so that a million of them hold up nothing.
 *
 * A walk is the number of the bucket of worker->lanes that comes next. The table may grow while it
 * lasts: a lane that has not been visited stays in its bucket or moves to a later one. So each lane
 * that is there all the time is visited, perhaps twice. Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_LANE_WALK_H
#define HAYAUMA_ENGINE_LANE_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lane;
struct worker;

/* Visits the lanes of the next buckets until that was so much work: 1 for each bucket and what
 * visit() returns. visit() makes no lane, and frees
 * none but the one that it was called for. True: all have been visited, and *bucket is 0
 * again. */
bool lane_walk(struct worker *w, size_t *bucket, uint32_t work,
               uint32_t (*visit)(struct lane *lane, void *arg), void *arg);
/* The same for so long as one turn may give to somebody who only looks at lanes. */
bool lane_walk_slice(struct worker *w, size_t *bucket,
                     uint32_t (*visit)(struct lane *lane, void *arg), void *arg);

#endif

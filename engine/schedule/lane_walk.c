#include "schedule/lane_walk.h"

#include "base/clock.h"
#include "schedule/lane.h"
#include "worker/worker.h"

/* A lane costs 1 to 4 us, as busy as the machine's caches are, so the slice is one of time; of the
 * thread's CPU, since it would visit hardly a lane where the thread waits for a core. */
#define SLICE_NS   UINT64_C(5000000)
#define SLICE_WORK 250

bool lane_walk(struct worker *w, size_t *bucket, uint32_t work,
               uint32_t (*visit)(struct lane *lane, void *arg), void *arg)
{
    for (uint32_t done = 0; done < work; done++) { /* a bucket costs 1, with lanes or without */
        struct map_node *next;

        if (*bucket >= map_buckets(&w->lanes)) {
            *bucket = 0;
            return true;
        }
        for (struct map_node *n = map_bucket(&w->lanes, *bucket); n != NULL; n = next) {
            next = n->next;
            w->turn.lanes++;
            done += visit(CONTAINER_OF(n, struct lane, node), arg);
        }
        ++*bucket;
    }
    return false;
}

bool lane_walk_slice(struct worker *w, size_t *bucket,
                     uint32_t (*visit)(struct lane *lane, void *arg), void *arg)
{
    uint64_t until_ns = clock_thread_cpu_ns() + SLICE_NS;

    do {
        if (lane_walk(w, bucket, SLICE_WORK, visit, arg))
            return true;
    } while (clock_thread_cpu_ns() < until_ns);
    return false;
}

#include "schedule/lane_walk.h"

#include "schedule/lane.h"
#include "worker/worker.h"

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

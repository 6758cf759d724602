/* The table of flows behind flow.h; private to queue/. It lives from the opening of the queue to
 * its end; a flow in it never moves, so that readers need no lock. */
#ifndef HAYAUMA_QUEUE_FLOWS_H
#define HAYAUMA_QUEUE_FLOWS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "base/map.h"
#include "queue/flow.h"

#define FLOWS_CHUNK  4096u
#define FLOWS_CHUNKS 4096u
#define FLOW_IDS     (FLOWS_CHUNK * FLOWS_CHUNKS) /* ids are below */

struct flows_chunk {
    struct queue_flow *_Atomic flows[FLOWS_CHUNK];
};

struct flows {
    pthread_mutex_t lock; /* protects by_name, next_id and making of chunks */
    struct map by_name;
    uint32_t next_id;       /* looked at first for a new flow */
    struct queue_flow lost; /* in the place of an id that only rows, or a damaged record, name */
    /* By id. Release when a flow is put in, acquire by readers, who see it whole. */
    struct flows_chunk *_Atomic chunks[FLOWS_CHUNKS];
};

int flows_init(struct flows *f) MUST_USE;
void flows_done(struct flows *f);
/* A stored flow. 0, -ENOMEM; -EBADMSG: the id has another meaning already, or it cannot be, or its
 * names are longer than this build stores. */
int flows_add(struct flows *f, const struct queue_flow *stored) MUST_USE;
/* No new flow gets id, if it has none: rows have it, and their flow's record was lost. 0 or
 * -ENOMEM.
 */
int flows_reserve(struct flows *f, uint32_t id) MUST_USE;
/* The flow has so many rows more, or fewer. Any thread. */
void flows_count(struct flows *f, uint32_t id, int64_t delta);

#endif

/* The table of flows behind flow.h; private to queue/. */
#ifndef HAYAUMA_QUEUE_FLOWS_H
#define HAYAUMA_QUEUE_FLOWS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "base/map.h"
#include "queue/flow.h"

#define FLOWS_CHUNK  4096u
#define FLOWS_CHUNKS 4096u /* ids go on from the largest stored: below 2^24 */

struct flows_chunk {
    struct queue_flow *_Atomic flows[FLOWS_CHUNK];
};

struct flows {
    pthread_mutex_t lock; /* protects by_name, next_id and making of chunks */
    struct map by_name;
    uint32_t next_id;
    /* By id. Release when a flow is put in, acquire by readers, who see it whole. */
    struct flows_chunk *_Atomic chunks[FLOWS_CHUNKS];
};

int flows_init(struct flows *f) MUST_USE;
void flows_done(struct flows *f);
/* A stored flow. 0, -ENOMEM; -EBADMSG: the id has another meaning already, or cannot be. */
int flows_add(struct flows *f, const struct queue_flow *stored) MUST_USE;

#endif

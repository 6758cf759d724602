/* Flows: what belongs together when capacity is shared. A flow is a tenant's mail of one campaign,
 * pool and priority; rows name it in their key by a 32-bit id.
 *
 * The table is the queue's, for all shards; a flow in it is never changed and lives until the queue
 * closes. Each shard stores the flows that it has rows of, in the transaction that brings the
 * first row. Any thread. */
#ifndef HAYAUMA_QUEUE_FLOW_H
#define HAYAUMA_QUEUE_FLOW_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/str.h"

struct queue;

#define FLOW_PRIORITIES 10
#define FLOW_NAME_MAX   64  /* bytes of a tenant, campaign or pool */
#define FLOW_DOMAIN_MAX 253 /* of a signer or envelope */
#define FLOW_REASONS    32

/* What became of a flow's mail since the start, in all workers: recipients, and bytes of messages
 * that were taken. And what there is of it. */
struct queue_flow_sums {
    _Atomic uint64_t attempts, delivered, deferred, bounced, bytes;
    _Atomic uint32_t bounced_by[FLOW_REASONS]; /* by the caller's reasons */
    _Atomic int64_t rows; /* in the queue, in all shards; exact as queue_lane_rows() is */
};

struct queue_flow {
    uint32_t id;                       /* from 1 */
    uint8_t priority;                  /* 0 (first) .. 9 */
    struct str tenant, campaign, pool; /* each may be empty */
    /* Mail that waits for what else holds it has a flow of its own: the domain that signs it, and
     * the domain of its return path. Empty: that was not asked, or may be any. */
    struct str signer, envelope;
    struct queue_flow_sums *sums; /* whoever attempts it adds; NULL outside of the table */
};

/* At most so many at once, some 80 MiB: a client that names a campaign anew for each message must
 * not fill the memory. Beyond, what is new shares the flow of its tenant, at last that of its pool.
 * Flows without rows go when the queue is opened. */
#define FLOWS_MAX (1u << 18)

/* The flow with this priority and these names, made when missing; of longer names the beginning
 * counts. NULL: memory is out. */
const struct queue_flow *queue_flow_get(struct queue *q, uint8_t priority, struct str tenant,
                                        struct str campaign, struct str pool);
/* The flow with priority and all five names of wanted, made when missing; wanted->id says nothing.
 * NULL: memory is out, or there are too many flows. */
const struct queue_flow *queue_flow_like(struct queue *q, const struct queue_flow *wanted);
/* NULL: no such flow; its record was lost. Its rows are mail all the same. */
const struct queue_flow *queue_flow_find(const struct queue *q, uint32_t id);
/* Visits all flows, in no order. */
void queue_flows_visit(struct queue *q, void (*visit)(void *arg, const struct queue_flow *flow),
                       void *arg);

#endif

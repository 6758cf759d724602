/* Changes of the suppression list (worker/suppressions.h): an order is one transaction in shard 0,
 * made by whoever, submitted by the worker that owns the shard. What it takes off the list goes
 * from the other shards too, in a transaction of each, where there may be something. An order is
 * made and used by one thread, any, until it is submitted.
 *
 * What the engine finds out itself is no order: it goes with the row that it is about. */
#ifndef HAYAUMA_ENGINE_SUPPRESS_H
#define HAYAUMA_ENGINE_SUPPRESS_H

#include "smtp/reply.h"
#include "worker/shared.h"

struct suppress_order;

struct suppress_order *suppress_order_new(void);
/* one goes on the list, in place of what is there for its tenant and address. */
void suppress_order_put(struct suppress_order *o, struct suppressions *list,
                        const struct suppression *one);
/* address in the one form. */
void suppress_order_remove(struct suppress_order *o, struct str tenant, const char *address);
/* Record lines that become durable with it may be put there. */
struct buf *suppress_order_records(struct suppress_order *o);
size_t suppress_order_len(const struct suppress_order *o);
/* on_done: 0, it is durable; -ENOSPC, -EIO, -ESHUTDOWN: nothing was put, and perhaps not all taken
 * off. In the worker that owns shard 0; the order is gone then. NULL: nobody waits. */
void suppress_submit(struct shared *all, struct suppress_order *o,
                     void (*on_done)(void *arg, int result), void *arg);
/* Frees an order that is not submitted; NULL is accepted. */
void suppress_order_free(struct suppress_order *o);

/* Whether one would change anything: what is there for its tenant and address is not as strict.
 * Any thread but a worker. 1, 0 or -EIO. */
int suppress_is_news(struct suppressions *list, const struct suppression *one) MUST_USE;

/* An answer says that nobody has an address: what is to be put beside the row that it ends. */
struct suppress_found {
    uint8_t key[STATE_KEY_MAX];
    struct buf value;
};
/* Makes *out, which is good until suppress_found_done(), and tells the filter. A worker may. The
 * address of r has a form in which it can be on the list. */
void suppress_found(struct suppress_found *f, struct suppressions *list, const struct recipient *r,
                    const struct smtp_reply *reply, const char *peer, int64_t now_ms,
                    struct queue_state *out);
void suppress_found_done(struct suppress_found *f);

#endif

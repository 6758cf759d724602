/* Changes of the suppression list (worker/suppressions.h): an order is one transaction in shard 0,
 * made by whoever, submitted by the worker that owns the shard. An order is made and used by one
 * thread, any, until it is submitted. */
#ifndef HAYAUMA_ENGINE_SUPPRESS_H
#define HAYAUMA_ENGINE_SUPPRESS_H

#include "worker/shared.h"

#define SUPPRESS_EACH 1000 /* of an order, more or less: one transaction */

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
/* on_done: 0, it is durable; -ENOSPC, -EIO, -ESHUTDOWN: nothing was changed. In the worker that
 * owns shard 0; the order is gone then. NULL: nobody waits. */
void suppress_submit(struct shared *all, struct suppress_order *o,
                     void (*on_done)(void *arg, int result), void *arg);
/* One that is not submitted; NULL is accepted. */
void suppress_order_free(struct suppress_order *o);

/* Whether one would change anything: what is there for its tenant and address is not as strict.
 * Any thread but a worker. 1, 0 or -EIO. */
int suppress_is_news(struct suppressions *list, const struct suppression *one) MUST_USE;

#endif

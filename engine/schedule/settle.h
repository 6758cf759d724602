/* Settling: tells the committers what became of recipients, in one change a shard and turn, or in
 * several when much happened.
 *
 * A settle owns its recipients until its commit. Recipients of a committed settle are dropped from
 * memory; when one was deferred its lane remembers the stored row. A commit that failed for want of
 * space is submitted again until it succeeds, since a delivery that is not recorded is a duplicate
 * later. What the store refuses for another reason (a damaged page) is tried alone, less and less
 * often, and holds up neither other settles nor a drain. Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_SETTLE_H
#define HAYAUMA_ENGINE_SETTLE_H

#include "worker/worker.h"

/* What happens whole: in one transaction, whatever becomes of what else a turn settles. All of it
 * is copied. */
struct settlement {
    uint32_t shard;
    bool apart;         /* in a change of its own */
    struct str records; /* the lines about it */
    /* What becomes of rows. QUEUE_ROW_REMOVE: the recipient, which is PLACE_SETTLING, is done with.
     * QUEUE_ROW_MOVE: it was changed (attempts, due_ms, flags, last_error), and with old_flow goes
     * over to rcpt->flow. QUEUE_ROW_ADD: a new message of our own (a notice) with its recipient;
     * both are taken over, and arrive in their lane once committed. */
    const struct queue_row *rows;
    size_t rows_len;
    const struct queue_note *notes; /* of rows, by their numbers */
    size_t notes_len;
    const struct queue_state *states; /* that change with rows */
    size_t states_len;
};
void settle(struct worker *w, const struct settlement *what);
/* Calls on_settled once all changes that were submitted between settle_follow() and settle_wait(),
 * in the same turn, have committed; settle_wait() submits one more, that of shard as it is. waiter
 * lives until then. */
struct settle_waiter {
    uint32_t parts; /* the caller may add one of its own */
    void (*on_settled)(struct settle_waiter *waiter);
};
void settle_follow(struct worker *w, struct settle_waiter *waiter);
void settle_wait(struct worker *w, uint32_t shard);
/* Whether the store has room for a further notice beside the notices under way. */
bool settle_takes_notice(const struct worker *w, uint32_t shard);
/* Submits what this turn gathered. */
void settle_flush(struct worker *w);
/* Whether commits lag so far behind deliveries that nothing more is to be loaded. What is sent and
 * not yet recorded takes memory, three times: in its settle, in the batch, and in the store's dirty
 * pages. And a crash sends it again. */
bool settles_lag(const struct worker *w);
/* Whether so many recipients are under way or not yet recorded that sessions get nothing more until
 * the next commit, or the next millisecond; either wakes the worker. Recipients count who go out
 * faster than they are recorded: settles_count(); sessions owe for each that they got. */
bool settles_full(struct worker *w);
bool settles_count(const struct recipient *r);
void settles_owe(struct worker *w, uint32_t recipients);
/* Settles open or under way. */
bool settle_pending(const struct worker *w);
/* Teardown after the queue's threads ended: frees what never committed. */
void settle_abandon(struct worker *w);

#endif

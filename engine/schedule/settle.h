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

/* The buffer in which to write the record lines of what is settled in shard this turn. */
struct buf *settle_records(struct worker *w, uint32_t shard);
/* r is done with: its row goes, and counts as that. */
void settle_remove(struct worker *w, struct recipient *r, enum tally_count count);
/* r was changed (attempts, due_ms, flags, last_error): its row is rewritten, and counts as that.
 * old_due_ms as stored. */
void settle_move(struct worker *w, struct recipient *r, int64_t old_due_ms, enum tally_count count);
/* The same, and r goes over to another flow: r->flow is the new one. */
void settle_move_flow(struct worker *w, struct recipient *r, int64_t old_due_ms, uint32_t old_flow,
                      enum tally_count count);
/* A new message of our own (a notice) with its recipient, in the same transaction. Both are taken
 * over; they arrive in their lane once committed. */
void settle_add(struct worker *w, uint32_t shard, struct message *m, struct recipient *r);
/* What happened to the recipient that was put in last, where its content has a tally; note->row is
 * not looked at. */
void settle_note(struct worker *w, uint32_t shard, const struct queue_note *note);
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
/* What was put in so far is whole: it becomes a change of its own if it is large, or in any case
 * when apart is set. */
void settle_cut(struct worker *w, uint32_t shard, bool apart);
/* Submits what this turn gathered. */
void settle_flush(struct worker *w);
/* Settles open or under way. */
bool settle_pending(const struct worker *w);
/* Teardown after the queue's threads ended: frees what never committed. */
void settle_abandon(struct worker *w);

#endif

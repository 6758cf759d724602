/* Tallies: how far the mail of a content has come whose rows are added in many changes (a
 * campaign's). A content has a tally in each shard that it was pinned in: a state of kind
 * STATE_TALLY. The queue changes it in the transaction of the rows, so it equals what was settled
 * whatever happens.
 *
 * A pin is a reference that is no row: content stays while it has no rows yet. */
#ifndef HAYAUMA_QUEUE_TALLY_H
#define HAYAUMA_QUEUE_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/msgid.h"

struct queue;

/* What a change of a row counts as. Stored: counts stand in this order. */
enum tally_count {
    TALLY_NONE, /* an operator moved the row */
    TALLY_ADDED,
    TALLY_DELIVERED,
    TALLY_DEFERRED, /* attempts, not recipients */
    TALLY_FAILED,
    TALLY_EXPIRED,
    TALLY_CANCELLED,
    TALLY_SUPPRESSED, /* of TALLY_FAILED, which counts these too: an earlier build knows only that
                       */
    TALLY_COUNTS
};

struct queue_tally {
    bool pinned;                   /* in one shard, or in some */
    uint64_t counts[TALLY_COUNTS]; /* [TALLY_NONE] is 0 */
};

/* Recipients that are in the queue. */
static inline uint64_t tally_queued(const struct queue_tally *t)
{
    const uint64_t *n = t->counts;
    uint64_t ended = n[TALLY_DELIVERED] + n[TALLY_FAILED] + n[TALLY_EXPIRED] + n[TALLY_CANCELLED];

    return n[TALLY_ADDED] > ended ? n[TALLY_ADDED] - ended : 0;
}

/* Part of a change; done before its states. */
struct queue_pin {
    struct msgid id;
    /* False: the content, which this change brings, is pinned, and has a tally from here on. True:
     * the pin goes, and with it the content when it has no rows; not pinned: nothing. */
    bool remove;
    bool keep;          /* it was pinned, and stays so: created_ms alone counts */
    int64_t created_ms; /* of the content from here on, with remove or keep: when its mail's
                           lifetimes begin; 0: as it is */
};

/* Adds the tally of a shard to out. Any thread but a worker. 0, -ENOENT, -EBADMSG, -EIO. */
int queue_tally_add(struct queue *q, uint32_t shard, const struct msgid *id,
                    struct queue_tally *out) MUST_USE;
/* The sum of all shards. Any thread but a worker. 0, -ENOENT: no shard has one; -EBADMSG, -EIO. */
int queue_tally_get(struct queue *q, const struct msgid *id, struct queue_tally *out) MUST_USE;
/* Visits the tallies of a shard, but for damaged ones. Any thread but a worker. 0 or -EIO. */
int queue_tally_visit(struct queue *q, uint32_t shard,
                      void (*visit)(void *arg, const struct msgid *id,
                                    const struct queue_tally *tally),
                      void *arg) MUST_USE;
/* The key of a tally's state, for who makes it go. */
#define TALLY_KEY_BYTES (1 + MSGID_BYTES)
void queue_tally_key(uint8_t out[TALLY_KEY_BYTES], const struct msgid *id);

#endif

/* Administration of queued recipients: hold, release, flush, cancel, expire. The worker that owns
 * the shard does it, since nobody else may change rows. It takes recipients in its memory out of
 * their lane and reads others from the store first; then all go the way of every settled recipient.
 *
 * For a recipient in a transaction the action waits until the attempt ends without delivery; a
 * crash before that forgets the action. */
#ifndef HAYAUMA_ENGINE_ADMIN_H
#define HAYAUMA_ENGINE_ADMIN_H

#include "base/buf.h"
#include "base/msgid.h"
#include "queue/message.h"

struct shared;
struct worker;

enum admin_action {
    ADMIN_HOLD,    /* due_ms becomes QUEUE_DUE_HELD */
    ADMIN_RELEASE, /* held rows become due now */
    ADMIN_FLUSH,   /* due now; the lane forgets its back-off */
    ADMIN_CANCEL,  /* removed, with an AdminBounce record, no notice */
    ADMIN_EXPIRE,  /* expires now, with notice and record */
    /* The engine's own. */
    ADMIN_RETIME, /* its due time is put right: retry_right_ms() */
    ADMIN_OUTLIVE /* expires if its lifetime is over */
};

/* A stored row as somebody saw it; by the time of the job it may have moved or gone. */
struct admin_row {
    struct msgid id;
    uint32_t index;
    uint32_t flow;
    uint8_t flags;
    int64_t due_ms;
    struct str queue;
};

/* What is to be done to rows of one shard, or to its damaged records. The job, and all that it
 * points to, lives until done() is called. */
struct admin_job {
    enum admin_action action;
    uint32_t shard;
    struct admin_row *rows;
    size_t rows_len;
    struct str *purges; /* as in struct queue_change; all are done, or none */
    size_t purges_len;
    struct buf records; /* to be written with them */
    uint64_t changed;   /* out: rows, or damaged records, that were changed */
    /* The changes are committed, or result (-errno) says why not. The worker's thread, or at once
     * the caller's where memory is out. */
    void (*done)(struct admin_job *job, int result);
};

/* Main thread: job->rows. */
void admin_submit(struct shared *all, struct admin_job *job);
/* Main thread: job->purges. */
void admin_purge(struct shared *all, struct admin_job *job);
/* The worker's, for itself: job->rows. */
void admin_begin(struct worker *w, struct admin_job *job);
/* Whether something was asked for during r's attempt, so that r is not to be stored as the attempt
 * says. */
bool admin_wants(struct recipient *r);
/* The worker's: r, which is PLACE_FLIGHT and stored as it says, was not delivered, and r->wanted is
 * not 0: does what was asked for while it was in flight. */
void admin_obey(struct worker *w, struct recipient *r);
/* The worker's: r, which is PLACE_FLIGHT, was not tried, or is to be tried at once in another way:
 * it goes back to its lane, unless something else was asked for meanwhile. */
void admin_put_back(struct recipient *r);

#endif

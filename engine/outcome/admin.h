/* Administration of queued recipients: hold, release, flush, cancel, expire. The worker that owns
 * the shard does it, since nobody else may change rows: recipients in its memory are taken out of
 * their lane, others are read from the store first; then all go the way of every settled recipient.
 * What is in a transaction is asked for when its attempt ends without delivery; a crash in between
 * forgets it. */
#ifndef HAYAUMA_ENGINE_ADMIN_H
#define HAYAUMA_ENGINE_ADMIN_H

#include "control/control.h"
#include "queue/message.h"
#include "worker/shared.h"

/* Main thread. control_job_done() follows when the changes are committed. */
void admin_submit(struct shared *all, struct control_job *job);
/* The same for damaged records. */
void admin_purge(struct shared *all, struct control_job *job);
/* The worker's: the same for itself, with done in place of control_job_done(). */
void admin_begin(struct worker *w, struct control_job *job,
                 void (*done)(struct control_job *job, int result));
/* Whether a recipient that is stored anew behind its attempt is not to be stored as the attempt
 * says. */
bool admin_wants(struct recipient *r);
/* The worker's: r, which is PLACE_FLIGHT and stored as it says, was not delivered, and r->wanted is
 * not 0: does what was asked for while it was in flight. */
void admin_obey(struct worker *w, struct recipient *r);
/* The worker's: r, which is PLACE_FLIGHT, was not tried, or is to be tried at once in another way:
 * it goes back to its lane, unless something else was asked for meanwhile. */
void admin_put_back(struct recipient *r);

#endif

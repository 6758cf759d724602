/* Signatures of the mail that goes out (mail/dkim.h), made by the crew when a message is first to
 * be sent as it is, once for all its recipients and sessions of a worker: they stay with the
 * message while it is in memory. Behind a reload, and when a tenth of their time is over, they are
 * made anew.
 *
 * Thread: the worker's. Bounded: SIGNINGS_MAX jobs of a worker are with the crew, so that its other
 * work goes on; what else is to be signed waits here, in turn. */
#ifndef HAYAUMA_ENGINE_SIGNING_H
#define HAYAUMA_ENGINE_SIGNING_H

#include "queue/message.h"
#include "worker/worker.h"

struct signing_wait {
    struct list_node node;
    struct signing *signing;
    /* The message has a front, or result says why not: -errno. The handler only notes it: the end
     * of the turn comes behind it. */
    void (*on_signed)(struct signing_wait *wait, int result);
};

void signings_init(struct worker *w);
void signings_done(struct worker *w);
/* Whether some are to be made still. */
bool signings_pending(const struct worker *w);

/* What goes out in front of m's content. NULL: nothing, as nothing is signed here. False: that is
 * to be found out, see signing_wait(). */
bool signing_front(const struct worker *w, const struct message *m,
                   const struct message_front **front);
/* wait->on_signed() is called once, never inside this call, unless signing_leave() comes before. */
void signing_wait(struct worker *w, struct message *m, struct signing_wait *wait);
void signing_leave(struct signing_wait *wait);

#endif

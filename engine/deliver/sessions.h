/* The sessions of a site: how many there should be, which of them gets work, and what the site
 * learns from how they begin and end. Thread: the site's worker. */
#ifndef HAYAUMA_ENGINE_SESSIONS_H
#define HAYAUMA_ENGINE_SESSIONS_H

#include "deliver/delivery.h"
#include "outcome/outcome.h"

/* End of a turn, for each site in which work, room or time has come: gives idle sessions work,
 * opens sessions, ends those of a site that no lane needs any more. */
void sessions_dispatch_all(struct worker *w);
/* The next recipients to send in one transaction, as site_take() says; what has outlived its
 * lifetime ends on the way. 0: nothing is ready, or limits say wait: the site is looked at again.
 */
size_t sessions_take(struct site *site, struct recipient **out, size_t max, uint32_t domains_max);

/* d is a session of site from sessions_begun() until sessions_ended(). */
void sessions_begun(struct site *site, struct delivery *d);
void sessions_ended(struct site *site, struct delivery *d);
/* A session is set up: more may follow. */
void sessions_works(struct site *site);
/* This host lacks what a session needs: nobody's failure. Sessions are tried again in a second. */
void sessions_shortage(struct site *site, int err);
/* The peer ended a session between two transactions, after so many messages. */
void sessions_limit_seen(struct site *site, const struct delivery *d);
/* How many messages a session may take by what was learnt; UINT32_MAX: any number. */
uint32_t sessions_messages_max(const struct site *site);
/* No address gave a session, whether other sessions work or not: further connections are tried one
 * at a time, less and less often, or a peer that limits connections would be asked without end. */
void sessions_space_out(struct site *site);
/* A session could not be set up at any address, and no other session works: the destination is down
 * for now. outcome says why. Deferred: each ready lane's first recipient is, the lanes back off.
 * Failed: it takes no mail, ever; all that is ready fails. */
void sessions_give_up(struct site *site, const struct outcome *outcome,
                      const struct exchanger *exchanger);

#endif

/* The sessions of a channel: how many there should be, which of them gets work, and what the
 * channel learns from how they begin and end. Thread: the channel's worker. */
#ifndef HAYAUMA_ENGINE_SESSIONS_H
#define HAYAUMA_ENGINE_SESSIONS_H

#include "deliver/delivery.h"
#include "outcome/outcome.h"
#include "schedule/channel.h"

/* End of a turn, for each supply and channel in which work, room or time has come: gives idle
 * sessions work, opens sessions, ends those of a site that no lane needs any more. */
void sessions_dispatch_all(struct worker *w);
/* The next recipients for d to send in one transaction, as channel_take() says; what has outlived
 * its lifetime ends on the way. None: nothing is ready, limits say wait, or it is another source's
 * turn: the channel is looked at again. */
struct channel_taken sessions_take(struct delivery *d, struct recipient **out, size_t max,
                                   uint32_t domains_max);
/* Whether the worker, with more sessions beside those that stay, would hold more than its share of
 * what the limits allow, and others wait for one; urgent: of those that take urgent mail alone.
 * held_ms: see governor_should_yield(). */
bool sessions_over_share(const struct channel *c, bool urgent, uint32_t more, uint64_t held_ms);

/* Whether another worker, or another site of the provider, was denied a session and still wants
 * one. */
bool sessions_contended(const struct channel *c);

/* Whether there are as many sessions, of all sites, as descriptors allow. */
bool sessions_exhausted(const struct shared *all);

/* d is a session of c from sessions_begun() until sessions_ended(). */
void sessions_begun(struct channel *c, struct delivery *d);
void sessions_ended(struct channel *c, struct delivery *d);
/* A session of c takes nothing more, and will end, or has ended. */
void sessions_yields(struct channel *c, const struct delivery *d, bool yields);
/* A session is set up: more may follow. */
void sessions_works(struct channel *c);
/* This host lacks what a session needs: nobody's failure. Sessions are tried again in a second. */
void sessions_shortage(struct channel *c, int err);
/* The peer ended a session between two transactions, after so many messages. */
void sessions_limit_seen(struct channel *c, const struct delivery *d);
/* How many messages a session may take by what was learnt; UINT32_MAX: any number. */
uint32_t sessions_messages_max(const struct channel *c);
/* No address gave a session, whether other sessions work or not: further connections are tried one
 * at a time, less and less often, or a peer that limits connections would be asked without end. */
void sessions_space_out(struct channel *c);
/* A session could not be set up at any address, and no other session works: the channel is down for
 * now. Where no other source of a pool may send, its mail at the site waits too; outcome says why.
 * Deferred: each ready lane's first recipient is, the lanes back off. Failed: the destination takes
 * no mail, ever; all that is ready fails. */
void sessions_give_up(struct channel *c, const struct outcome *outcome,
                      const struct exchanger *exchanger);

#endif

/* What answers lowered of a campaign, tenant, signing domain or envelope domain at a site,
 * whichever source sends it (outcome/rule_act.h): a rate, and how many of its messages may be under
 * way, each of which takes a session. It is held by caps of worker/suspensions.h, and behind a
 * pause by how far a domain has come. Each has an entry of the governor, which all workers share.
 *
 * Nobody is told of a new cap: whoever is about to send mail of a flow looks whether some cap has
 * changed since the last look, which costs a load. Thread: the site's worker. */
#ifndef HAYAUMA_ENGINE_FLOW_LOWER_H
#define HAYAUMA_ENGINE_FLOW_LOWER_H

#include "limits/limit.h"
#include "worker/suspensions.h"

struct lane;
struct site;

/* The scopes of what is lowered so: that of its pauses, that of its caps, and that of how far it
 * has come behind a pause (0: there is none). */
struct flow_lower_scopes {
    enum suspension_scope pause, cap, recovery;
};
const struct flow_lower_scopes *flow_lower_scopes(enum limit_kind kind);
/* The kind of what has pauses of this scope; LIMIT_NONE: it is no flow's. */
enum limit_kind flow_lower_kind(enum suspension_scope pause);
/* The entry of what is called so there, to be put back. */
struct governor_entry *flow_lower_entry(const struct site *site, enum limit_kind kind,
                                        const char *name);
/* What is lowered of lane's flow now, which is in its feed; NULL: nothing. It lives as long as the
 * site. */
const struct limits_lowered *flow_lower_look(struct lane *lane);
/* Takes places under way, of all of lowered, which may be NULL, or of none. False: *why says which
 * has none. */
bool flow_lower_take(const struct site *site, const struct limits_lowered *lowered,
                     struct limit_denial *why);
void flow_lower_give(const struct limits_lowered *lowered);
/* Whether none of lowered has a place. */
bool flow_lower_full(const struct site *site, const struct limits_lowered *lowered,
                     struct limit_denial *why);
/* The end of site. */
void flow_lower_done(struct site *site);

#endif

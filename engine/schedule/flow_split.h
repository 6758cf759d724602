/* Mail that waits, or is counted, by the domain that signs it or by that of its return path. The
 * messages of a lane may differ in both, and one that waits would keep the others waiting. So a
 * recipient whose message is of a signing domain that is being warmed up, or whose mail to this
 * site a rule has suspended or lowered the limits of, goes over to a flow that has this name beside
 * the others when it is about to be sent: once. All mail of that flow's lanes is alike, and waits
 * as that of a campaign does.
 *
 * Nothing is asked of messages while no signing domain is being warmed up, but whether there is
 * such a suspension at the site, of the worker's copy of their names. Thread: the lane's worker. */
#ifndef HAYAUMA_ENGINE_FLOW_SPLIT_H
#define HAYAUMA_ENGINE_FLOW_SPLIT_H

#include <stdbool.h>

#include "base/assert.h"
#include "base/str.h"

struct lane;
struct message;
struct recipient;
struct site;

/* The next recipient of lane, which has a site, goes over to another flow. False: it stays. */
bool flow_split(struct lane *lane) MUST_USE;
/* Whether r, whose letter to site was rendered from a recipe, belongs to another flow than its
 * lane's: who signs it only the letter says. The lane may have left the site since r was taken. */
bool flow_split_wanted(const struct recipient *r, const struct site *site,
                       const struct message *letter);
/* r, which is PLACE_FLIGHT and belongs to another flow, goes over to it. */
void flow_split_letter(struct recipient *r, const struct site *site, const struct message *letter);

/* The domain that signs m if the worker sends it now; empty: nobody signs it. */
struct str flow_signer(const struct lane *lane, const struct message *m);

#endif

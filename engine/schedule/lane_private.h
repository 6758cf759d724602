/* The inside of a lane, shared by lane.c (what is in memory), lane_state.c (whether it may go),
 * lane_load.c (how much of it, and refills from the store) and lane_route.c (where it goes). */
#ifndef HAYAUMA_ENGINE_LANE_PRIVATE_H
#define HAYAUMA_ENGINE_LANE_PRIVATE_H

#include "schedule/lane.h"
#include "worker/suspensions.h"

/* A load leaves out what became due in the last so many ms: what was just accepted comes from
 * memory. A row that a load may have read is not taken from memory, so a load right behind
 * acceptance would make a busy lane read back all that it gets. */
#define LANE_HANDOVER_MS 100
#define LANE_REFILL_MIN  32
/* The last attempt is due when the lifetime ends, and may be made so much later. */
#define LANE_LAST_TRY_MS 60000

/* While a new route is looked up the old one serves on, until so long behind its end. A route that
 * is older may name hosts that have left the domain: then the lane waits for the answer, as a lane
 * that has no route yet. (Where no name server answers, dns/ lets an old route serve for an hour.)
 */
#define LANE_ROUTE_OLD_MS 300000

/* --- lane.c --- */

/* In lane_state.c. The only ways to another state; a move that is not in the tables is a bug. */
void lane_set_state(struct lane *lane, enum lane_state state);
void lane_set_scan(struct lane *lane, enum lane_scan scan);
/* A state whose time or reason is over ends. */
void lane_look_state(struct lane *lane);

/* lane_known() is about to be asked. */
void lane_prefetch(const struct worker *w, uint32_t shard, uint32_t flow, struct str name);
uint64_t lane_memory_hash(const struct worker *w, const struct msgid *id, uint32_t index);
/* r is in memory from here on. */
void lane_memory_put(struct lane *lane, struct recipient *r);
/* Forgets r and frees it; its row, if there is one, is the store's again. */
void lane_memory_drop(struct recipient *r);
void lane_window_insert(struct lane *lane, struct recipient *r, bool front);
/* lane, which has nothing in memory, goes. */
void lane_free(struct lane *lane);
/* A load reads what was received up to until_ms (monotonic). */
void lane_seen(struct lane *lane, uint64_t until_ms);
/* r goes to the store, or is stored anew. */
void lane_kept(struct lane *lane, const struct recipient *r);
/* r is, or stays, in the window. */
void lane_window_expires(struct lane *lane, const struct recipient *r);
/* Frees the zombies, unless a read is under way that may have found their rows. */
void lane_zombies_drop(struct lane *lane);

/* --- lane_load.c --- */

/* How many recipients the window may hold now. */
uint32_t lane_window_max(const struct lane *lane);
bool lane_memory_full(const struct worker *w);
/* Whether the lane may hold more: as its supply has room; without a site one recipient, to be
 * routed.
 */
bool lane_has_room(const struct lane *lane);
/* Wants a refill when less than half of the last is left and the store has due rows. */
void lane_load_want(struct lane *lane, int64_t now_ms);

/* --- lane_suspend.c --- */

/* The names by which lane may be suspended, one per scope. */
struct lane_names_at_site {
    char campaign[SUSPENSION_NAME_MAX + 1], tenant[SUSPENSION_NAME_MAX + 1];
    char of_tenant[SUSPENSION_NAME_MAX + 1]; /* the campaign */
    char signer[SUSPENSION_NAME_MAX + 1], envelope[SUSPENSION_NAME_MAX + 1];
};
void lane_suspension_names(const struct lane *lane, struct lane_names_at_site *at_site,
                           struct str names[SUSPENSION_SCOPES]);

/* --- lane_route.c --- */

/* Finds the lane's site; ends in an update of the lane. */
void lane_route(struct lane *lane);
/* Finds the lane's site if nothing has to be looked up for that; else the lane stays without one.
 */
void lane_route_known(struct lane *lane);
/* The next update looks the route up anew. */
void lane_route_expire(struct lane *lane);
/* An operator wants the lane's route looked up anew: what DNS said of the domain is forgotten, too.
 */
void lane_route_forget(struct lane *lane);
/* Whether the lane's route ended so long ago that it serves no more. */
bool lane_route_is_old(const struct lane *lane);
void lane_route_cancel(struct lane *lane);

#endif

/* Warm-up of one flow's mail at one site, beside that of the source that sends it: of its signing
 * domain and of its campaign (limits/warmup.h). They are limits of the flow's share of the feed
 * (schedule/feed.h). Thread: the site's worker. */
#ifndef HAYAUMA_ENGINE_FLOW_WARMUP_H
#define HAYAUMA_ENGINE_FLOW_WARMUP_H

#include "limits/warmup.h"

struct lane;
struct site;
struct worker;

/* The streams of warm-up that lane's flow has at site; that of the source stays NULL. */
struct warmup_set flow_warmup(const struct site *site, const struct lane *lane);
/* Takes the leave of all of set for one recipient, or of none. 0, or when to ask again (monotonic).
 */
uint64_t flow_warmup_take(struct worker *w, const struct warmup_set *set);
/* The question of flow_warmup_take() without taking. 0: no stream refuses. by may be NULL; *by: the
 * stream that refuses longest. */
uint64_t flow_warmup_at(struct worker *w, const struct warmup_set *set, struct warmup_stream **by);

#endif

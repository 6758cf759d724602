/* A feed: which lane of a site is served next. The band with the lowest priority number goes first.
 * In a band tenants take turns, each as much as its weight; in a tenant its flows do likewise; in a
 * flow its lanes send one message each. So a tenant with a million messages, or a thousand domains,
 * gets no more than one with ten.
 *
 * It is deficit round robin, counted in recipients: the flow and the tenant that are served pay for
 * what was taken, and one that has paid more than its share waits until the others had theirs. A
 * share takes part while it has lanes that are ready. It begins without credit, or with the debt
 * that it had when its last lane left. Thread: the site's worker. */
#ifndef HAYAUMA_ENGINE_FEED_H
#define HAYAUMA_ENGINE_FEED_H

#include "base/list.h"
#include "base/map.h"
#include "queue/flow.h"

struct lane;

#define FEED_IDLE_MAX                                                                              \
    16 /* shares kept without lanes, so that one that comes and goes costs no memory call */

struct feed {
    struct list bands[FLOW_PRIORITIES]; /* of the tenants' shares that take part */
    uint32_t busy;                      /* bit per band that has tenants */
    struct map flows, tenants;          /* all shares; the maps are made with the first share */
    struct list idle;                   /* shares of flows that take no part, the oldest first */
    uint32_t idle_len;
};

void feed_init(struct feed *f);
/* No lane may be in it. */
void feed_done(struct feed *f);
static inline bool feed_empty(const struct feed *f)
{
    return f->busy == 0;
}
struct feed_weights {
    uint32_t tenant, flow; /* from 1 */
};
/* lane has something to send. Nothing happens if it is there already. weigh() is asked when the
 * flow is new to the feed: weights are of the configuration that the feed's site was made with. */
void feed_add(struct feed *f, struct lane *lane, struct feed_weights (*weigh)(const struct lane *));
/* lane has nothing left. Nothing happens if it is not there. */
void feed_remove(struct feed *f, struct lane *lane);
/* The lane whose turn it is, or NULL. */
struct lane *feed_next(struct feed *f);
/* lane, whose turn it is, is about to be served: it goes behind the others of its flow, and its
 * shares pay for one recipient. */
void feed_turn(struct feed *f, struct lane *lane);
/* So many more recipients were taken with the one that feed_turn() has counted. lane may have left
 * the feed since. */
void feed_pay_more(struct feed *f, const struct lane *lane, size_t recipients);
/* The ready lanes of lane's flow in order of their turns, the first, and the one behind lane; NULL:
 * no more. lane itself may have left the feed where the first is asked for. */
struct lane *feed_first_beside(const struct feed *f, const struct lane *lane);
struct lane *feed_after(const struct lane *lane);

#endif

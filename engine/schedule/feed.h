/* A feed: which lane of a site is served next. The band with the lowest priority number goes first.
 * In a band tenants take turns, each as much as its weight; in a tenant its flows do likewise; in a
 * flow its lanes send one message each. So a tenant with a million messages, or a thousand domains,
 * gets no more than one with ten.
 *
 * It is deficit round robin, counted in recipients: the flow and the tenant that are served pay for
 * what was taken, and one that has paid more than its share waits until the others had theirs. A
 * share takes part while it has lanes that are ready. It begins without credit, or with the debt
 * that it had when its last lane left.
 *
 * A tenant or flow may have a limit of its own at the site. While that lets nothing go its share is
 * held: it takes no part, and the feed is empty where no other has lanes. Thread: the site's
 * worker. */
#ifndef HAYAUMA_ENGINE_FEED_H
#define HAYAUMA_ENGINE_FEED_H

#include "base/list.h"
#include "base/map.h"
#include "limits/limit.h"
#include "limits/warmup.h"
#include "queue/flow.h"

struct lane;

/* Shares kept without lanes, so that one that comes and goes costs no memory call. */
#define FEED_IDLE_MAX 16

/* What a lane's shares may send there, beside others' limits; each is given back by put_limit().
 * NULL: no such limit. */
struct feed_limits {
    const struct limit *tenant, *campaign;
    struct warmup_set warmup;           /* of the flow: schedule/flow_warmup.h, which asks it */
    const struct limit *campaign_total; /* over all sites: many feeds have it */
};

struct feed {
    struct list aside; /* shares that feed_set_aside() took out for this take */
    uint32_t aside_len;
    uint32_t counting; /* shares that limit sessions */
    /* Told when a share that limits sessions has nothing left. */
    void (*on_idle)(const struct limit *limit);
    void (*on_lack)(const struct limit *limit); /* see feed_lack() */
    /* Asked when a flow is new. NULL: nobody has such limits. */
    struct feed_limits (*limits_of)(const struct lane *lane);
    void (*put_limit)(const struct limit *limit); /* takes NULL too */
    struct list held; /* shares that would take part, but for their limits */
    uint64_t held_ns; /* monotonic: when the first of them is looked at; UINT64_MAX: never */
    uint32_t limited; /* shares with a limit */
    bool paced;       /* other feeds' shares have the same limits: see feed_release() */
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
/* The priority of the mail that goes next; the feed is not empty. */
static inline uint8_t feed_priority(const struct feed *f)
{
    return (uint8_t)__builtin_ctz(f->busy);
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
/* Beside the recipient that feed_turn() has counted so many more of lane were taken: its shares pay
 * for them. lane may have left the feed since. */
void feed_pay_more(struct feed *f, const struct lane *lane, size_t recipients);
/* Puts the limits on sessions that lane's shares have to out. Returns how many there are. */
#define FEED_SESSION_LIMITS 2
size_t feed_session_limits(const struct lane *lane, const struct limit *out[FEED_SESSION_LIMITS]);
/* The share of lane that has limit takes no part until feed_set_back(), in the same take: the
 * session that asks may have nothing of it. What is set aside behind FEED_ASIDE_MAX others is held
 * for FEED_FULL_NS instead, for all sessions: so takes get past any number of such shares in the
 * end, to those of a worse band too. */
#define FEED_ASIDE_MAX 16
#define FEED_FULL_NS   UINT64_C(20000000)
void feed_set_aside(struct feed *f, const struct lane *lane, const struct limit *limit,
                    uint64_t now_ns);
void feed_set_back(struct feed *f);
/* Whether some share may have one session more; where there are many, it is not looked at all. */
bool feed_may_begin(const struct feed *f, uint64_t now_ns);
/* feed_may_begin() says no, and there is no session that would ask: on_lack() hears of each limit
 * that refuses. */
void feed_lack(const struct feed *f, uint64_t now_ns);
/* The limit of lane's shares of which all sessions are open. NULL: there is none. lane may have
 * left the feed. */
const struct limit *feed_sessions_full(const struct feed *f, const struct lane *lane,
                                       uint64_t now_ns);
/* Takes the leave of the limits of lane's shares for a message, of all of them or of none; lane is
 * in the feed. -EAGAIN: *why says which refused. */
int feed_limits_take(const struct lane *lane, uint64_t now_ns, const struct governor_load *load,
                     struct limit_denial *why) MUST_USE;
/* Gives back what feed_limits_take() took so long ago; lane may have left the feed. */
void feed_limits_give(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                      const struct governor_load *load, uint64_t ago_ns);
/* The question of feed_limits_take() without taking. -EAGAIN: a limit of lane's shares refuses. */
int feed_limits_ask(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                    struct limit_denial *why) MUST_USE;
/* limits_more(), limits_give_recipients() and limits_more_bytes() of these limits; lane may have
 * left the feed. */
uint32_t feed_limits_more(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                          uint32_t want);
void feed_limits_give_recipients(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                                 uint32_t n);
void feed_limits_more_bytes(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                            int64_t bytes);
/* What answers lowered of lane's flow, and of which version of the table that is (flow_lower.h): it
 * is among the limits above. lane may have left the feed. */
const struct limits_lowered *feed_lowered(const struct feed *f, const struct lane *lane,
                                          uint32_t *version);
/* That table has changed: what it held is released, to look anew. */
void feed_look_lowered(struct feed *f);
/* lane is in the feed. */
void feed_lower(struct feed *f, const struct lane *lane, const struct limits_lowered *lowered,
                uint32_t version);
/* How far apart these let messages go, in ns; 0: they set no bound. */
uint64_t feed_limits_apart_ns(const struct feed *f, const struct lane *lane, uint64_t now_ns);
/* The warm-up of lane's flow, which may have left the feed. */
const struct warmup_set *feed_warmup(const struct feed *f, const struct lane *lane);
/* Whether lane's share, or its tenant's, is held for longer than until_ns. */
bool feed_is_held(const struct feed *f, const struct lane *lane, uint64_t until_ns);
/* What limits lane's tenant (why->kind is LIMIT_TENANT) or flow (any other) refused until
 * why->until_ns: that share is held until then. */
void feed_hold(struct feed *f, const struct lane *lane, uint64_t now_ns,
               const struct limit_denial *why);
/* Lets shares take part again whose time has come. Where a limit is shared with other feeds (paced)
 * and none of them has a message under way, they come one behind the other, by governor_try():
 * ready: this feed has a session, and need not wait for that. warms_at() says when warm-up lets a
 * flow go on, 0: now. held() is told for how long a share was held. */
void feed_release(struct feed *f, uint64_t now_ns, bool ready,
                  uint64_t (*warms_at)(void *arg, const struct warmup_set *set),
                  void (*held)(void *arg, const struct limit *limit, enum governor_counts counts,
                               uint64_t ms),
                  void *arg);
/* The ready lanes of lane's flow in order of their turns, the first, and the one behind lane; NULL:
 * no more. lane itself may have left the feed where the first is asked for. */
struct lane *feed_first_beside(const struct feed *f, const struct lane *lane);
struct lane *feed_after(const struct lane *lane);

#endif

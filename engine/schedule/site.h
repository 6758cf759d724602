/* A site: the set of exchangers that serve one or more domains, or a static route, with the limits
 * that hold there. Sets that one provider runs are called by its name and share its limits
 * (schedule/rollup.h); each has its own back-off, for what one customer's exchangers answer says
 * nothing of another's. Lanes with ready mail queue up in the site's supplies, one for each pool
 * (schedule/supply.h); what is sent goes by its channels, one for each source (schedule/channel.h).
 * Thread: the worker's; a site lives until its last lane and its last session have left. */
#ifndef HAYAUMA_ENGINE_SITE_H
#define HAYAUMA_ENGINE_SITE_H

#include <stddef.h>

#include "schedule/exchanger.h"
#include "schedule/feed.h"
#include "smtp/client.h"
#include "worker/worker.h"

struct dns_name;
struct lane;

struct site {
    struct map_node node; /* worker->sites */
    struct worker *worker;
    struct config *config; /* a reference; dest points into it */
    const struct config_destination *dest;
    const struct config_provider *provider; /* who runs all of the exchangers; NULL: nobody known */
    struct rollup *rollup;                  /* its limits over all sources; NULL: there are none */
    struct exchangers exchangers;
    bool hosts_limited; /* each exchanger has limits of its own ... */
    bool hosts_paced;   /* ... and rates among them */
    uint16_t rotate;    /* see exchangers_next() */
    bool lmtp;
    bool dane; /* TLSA records of its hosts count: they are the hosts by what is validated */
    struct sts_policy *sts; /* MTA-STS: the policy that all mail here is under, a reference; NULL:
                               none */
    const struct config_route *target; /* the static route; NULL: the domain's exchangers */
    uint64_t login_complaint_ms;       /* monotonic: when a refused login may be told again */
    bool no_chunking;                  /* a session was refused it */
    struct list supplies;              /* one for each pool that has mail here */
    struct list channels;              /* one for each source that has had a turn here */
    struct governor_entry *total;      /* dest's limits over all sources; NULL: there are none */
    struct map shares;                 /* limits of tenants and campaigns here: site_limits() */
    struct list lowered;               /* what is lowered of flows here: flow_lower_look() */
    struct channel *claimant;          /* the next session under these limits is this channel's */
    struct list_node dead_node;        /* worker->sites_dead while nobody is attached */
    uint32_t lanes;        /* attached; the site goes with the last one and the last session */
    uint32_t sessions_len; /* of all channels */
    uint64_t held_ns;      /* monotonic: since then its mail waits for the rates over all sources */
    struct limit_denial held; /* of which rate; kind LIMIT_NONE: it does not */
    uint64_t under_way;       /* bytes of what its sessions have: see site_share_is_used() */
    char *name;               /* for records and status: provider, exchangers or static route */
    char *exchangers_name;    /* of the set of exchangers; name where there is no provider */
    char *key;
};

/* The site of a route for a domain, made when missing; attached lanes are counted with
 * site_attach(). target: static route or NULL; sts: the policy that the domain's mail is under, or
 * NULL. Domains with the same exchangers and other policies have other sites. NULL: the policy
 * leaves none of the exchangers. no_dane: TLSA records do not count either. */
struct site *site_get(struct worker *w, struct str domain, const struct config_route *target,
                      struct dns_route *route, struct sts_policy *sts, bool no_dane);
/* Whether dest's limits are the site's own: those of a provider are in the rollups. */
bool site_is_limited(const struct site *site);
/* What holds for mail of domain by a route. */
const struct config_destination *site_destination(const struct config *config, struct str domain,
                                                  const struct config_route *target,
                                                  const struct dns_route *route);
/* Whose policy of MTA-STS holds: the domain's, or that of the host that the route names in its
 * place, whether its exchangers are looked up or not (RFC 8461 3.4). False: nobody's; by address,
 * or to a socket, or nobody wants to know. route NULL: a socket. */
bool site_policy_domain(const struct config *config, struct str domain,
                        const struct config_route *target, const struct dns_route *route,
                        struct dns_name *out);
/* The entry of limits at the site, which all workers share: those of a source, or, where source is
 * "", over all sources. */
struct governor_entry *site_governor(const struct site *site, const char *source,
                                     struct governor_limits limits);
/* The entry of a source at the site, whatever its limits; the caller puts it back. NULL: the source
 * has sent nothing there. */
struct governor_entry *site_governor_find(const struct site *site, const char *source);
/* What a tenant and a campaign may send there, until each limit is given back, which NULL needs
 * not. */
struct feed_limits site_limits(struct site *site, struct str tenant, struct str campaign);
void site_limit_put(const struct limit *limit);
/* The site ends: feeds and sessions have given back what they had. */
void site_shares_done(struct site *site);
/* A session takes mail of limit's tenant or campaign, which may have so many; counts: it has some
 * under way, and is one of them already; began: it had some before, else it begins with this, which
 * the limit may let few do. False: it may not. */
bool site_share_enter(const struct limit *limit, bool counts, bool began) MUST_USE;
/* What a session of this name, which it remembers when it begins. 0: nobody counts who begins. */
uint64_t site_share_id(const struct limit *limit);
/* A session that was counted has none under way any more. */
void site_share_leave(const struct limit *limit);
/* A session that site_share_enter() let in takes nothing after all: undoes that. */
void site_share_undo(const struct limit *limit, bool began);
/* Mail of limit's tenant or campaign waits for a session: workers that hold more than their part
 * hear of that. */
void site_share_lack(const struct limit *limit);
/* No mail of limit's tenant or campaign waits in the worker any more. */
void site_share_idle(const struct limit *limit);
/* Which of the rates over all sources, or of those of all its exchangers, lets nothing go. 0: none;
 * -EAGAIN: that of *why. */
int site_rates_ask(const struct site *site, struct limit_denial *why) MUST_USE;
/* The number by which the governor knows the site in this worker as one that claims leave:
 * governor_claim(). */
static inline uint16_t site_who(const struct site *site)
{
    return (uint16_t)((uintptr_t)site / _Alignof(max_align_t));
}
/* Mail of priority waits for the site's rates: it claims their next leave before mail of a worse
 * priority of other workers. */
void site_claim(const struct site *site, uint8_t priority);
/* Counts how long mail waits for these rates, from look to look. */
void site_look_held(struct site *site);
/* Counts that mail of site waited for so long for limit. */
void site_count_held(struct site *site, const struct limit_denial *limit, uint64_t ms);
void site_attach(struct site *site, struct lane *lane);
void site_detach(struct site *site, struct lane *lane);
/* Whether site has its share of the memory under way, while memory is short: as much as is free
 * (queue.memory_max), so that there is always something free for sites that have nothing. What a
 * peer does not answer stays in memory until its time is over. */
bool site_share_is_used(const struct site *site);
/* Bytes are no longer under way: the site's supplies go on if they waited for that. */
void site_ended(struct site *site, uint64_t bytes);
/* Whether nothing may be taken for the site now: by its share of the memory, or the rate over all
 * sources. */
bool site_waits(const struct site *site);
/* When to ask site_waits() again: monotonic ms, in the past: now. */
uint64_t site_waits_until_ms(const struct site *site);
/* A lane or a session has left site: the end of the turn frees a site that has neither. */
void site_left(struct site *site);
/* End of a turn: frees sites without lanes and sessions. Nothing else does: whoever calls something
 * that may detach the last lane can go on using its site. */
void site_reap(struct worker *w);

#endif

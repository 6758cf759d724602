/* Lookups of MTA-STS policies (RFC 8461): the TXT record _mta-sts.DOMAIN by the worker's resolver,
 * then, where its id is new or the policy old, https://mta-sts.DOMAIN/.well-known/mta-sts.txt by
 * the fetcher's thread. What comes of it is the process's (worker/sts_table.h); one lookup of a
 * domain is under way in a worker, for all who wait.
 *
 * Nobody waits where a valid policy is known: it holds until the new one has come. Else mail waits
 * STS_WAIT_MS at most, then goes on as if there were no policy, as it does when the lookup fails;
 * the lookup itself goes on. Thread: the worker's.
 *
 * Timers: of a lookup, STS_WAIT_MS; in the worker that owns shard 0 one that removes policies that
 * have expired and renews those in use before they do. */
#ifndef HAYAUMA_ENGINE_STS_LOOKUP_H
#define HAYAUMA_ENGINE_STS_LOOKUP_H

#include "dns/dns.h"
#include "worker/sts_table.h"
#include "worker/worker.h"

#define STS_WAIT_MS    5000
#define STS_AGAIN_MS   5000   /* a lookup is under way: ask again */
#define STS_RETRY_MS   300000 /* a fetch failed: RFC 8461 3.3 */
#define STS_DNS_MS     60000 /* the TXT record could not be looked up; the least time between two */
#define STS_NONE_MAX_S 3600  /* so long it is believed that there is no record */
#define STS_TXT_MAX_S  86400
#define STS_KEEP_MS    10000
#define STS_RENEWS     100 /* begun at once by the keeper */

struct sts_query {
    /* Set by the caller. found->policy is borrowed. The handler may ask again. */
    void (*on_policy)(struct sts_query *query, const struct sts_found *found);
    struct list_node node; /* private, zero before the first lookup */
};

/* The addresses of a route that may be asked, as the fetcher wants them: public ones alone, unless
 * the configuration says otherwise. False: there is none. */
#define STS_ADDRESSES_MAX  8
#define STS_ADDRESSES_TEXT (STS_ADDRESSES_MAX * (INET6_ADDRSTRLEN + 3))
bool sts_put_addresses(char out[STS_ADDRESSES_TEXT], const struct config *config,
                       const struct dns_route *route);

/* 0 or -ENOMEM. */
int sts_lookups_open(struct worker *w) MUST_USE;
/* Nobody waits any more; behind dns_close(), and behind the end of the fetcher. */
void sts_lookups_close(struct worker *w);

/* What is known of domain (as dns_name_parse() makes it) now, if that is enough: found->policy is
 * then a reference of the caller's. A lookup that is due begins. False: ask. */
bool sts_known(struct worker *w, struct str domain, struct sts_found *found) MUST_USE;
/* query lives until the callback, which never comes from inside, or sts_cancel(), which does
 * nothing when query is not pending. */
void sts_ask(struct worker *w, struct sts_query *query, struct str domain);
void sts_cancel(struct sts_query *query);

#endif

/* What dns.c, flight.c, host.c and domain.c share; private to this folder. */
#ifndef HAYAUMA_DNS_RESOLVER_H
#define HAYAUMA_DNS_RESOLVER_H

#include "base/map.h"
#include "base/rng.h"
#include "base/wheel.h"
#include "dns/cache.h"
#include "dns/dns.h"
#include "dns/name.h"

struct dns {
    struct io *io;
    struct dns_upstream *upstream;
    struct cache cache;
    struct map flights;
    struct list ready; /* queries with their routes, called in the next turn */
    struct timer ready_timer;
    bool ready_waits; /* some of ready are left to the timer */
    struct {
        struct list waiting; /* questions not yet sent */
        struct list fresh;   /* sent less than a second ago; they count against the limit */
        uint32_t fresh_len, fresh_max;
        uint32_t in_flight; /* fresh and slow */
        struct timer timer; /* when the oldest fresh request becomes a slow one */
    } send;
    struct rng rng;
    struct dns_route *bad_name, *no_memory;
    uint32_t negative_ttl_max_s, ttl_min_s, ttl_max_s;
    bool no_ipv6, no_ipv4, has_own_name, validating;
    uint16_t tlsa_port;
    struct dns_name own_name;
    struct dns_counters counters;
};

/* Gives query its route (the reference moves) in the next turn, or at once when the caller is not
 * inside a call of dns.h and calls dns_run_ready() before it returns. */
void dns_make_ready(struct dns *dns, struct dns_query *query, struct dns_route *route);
void dns_run_ready(struct dns *dns);
/* dns_lookup() of a name as dns_name_parse() makes it. */
void dns_lookup_name(struct dns *dns, struct dns_query *query, struct str name, bool host_only);
/* When an answer of now with this TTL expires; ttl_max_s bounds it before the minimum does. */
uint64_t dns_expires_ms(const struct dns *dns, uint32_t ttl_s, uint32_t ttl_max_s);

#endif

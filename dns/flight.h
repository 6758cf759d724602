/* A flight: one name being looked up, for all who wait for it (single flight). It lives from the
 * first lookup to its answer, whether or not anybody still waits then: the cache has use for it.
 *
 * host.c answers flights for a host's addresses, domain.c those for a domain's exchangers, which
 * are hosts and so have flights and cache entries that all domains share. */
#ifndef HAYAUMA_DNS_FLIGHT_H
#define HAYAUMA_DNS_FLIGHT_H

#include "dns/dns_upstream.h"
#include "dns/resolver.h"
#include "dns/route.h"

#define FLIGHT_REQUESTS_MAX 2 /* at a time */

struct host_work;
struct domain_work;

struct request {
    struct dns_question question;
    struct flight *flight;
};

struct flight {
    struct map_node map_node;
    struct dns *dns;
    struct list waiters;
    struct request requests[FLIGHT_REQUESTS_MAX];
    size_t requests_len;
    size_t pending; /* answers or exchangers to come */
    struct host_work *host;
    struct domain_work *domain;
    bool host_only;
    uint8_t name_len;
    char name[];
};

/* 0 or -ENOMEM. */
int flights_init(struct dns *dns) MUST_USE;
/* Puts query into the flight for name, which is started when there is none. */
void flight_join(struct dns *dns, struct dns_query *query, uint64_t hash, struct str name,
                 bool host_only);
/* After dns_upstream_close(): nothing of a flight is left, nobody is called. */
void flights_done(struct dns *dns);

/* For host.c and domain.c. */
static inline struct str flight_name(const struct flight *flight)
{
    return (struct str){flight->name, flight->name_len};
}
/* Asks the upstream for name, which lives until the answer; each answer takes one from pending
 * before it is handed on. */
void flight_ask(struct flight *flight, const char *name, enum dns_type type);
/* Ends the flight: a route for all who wait, and for the cache. */
void flight_finish(struct flight *flight, const struct route_draft *draft);
/* Ends it without hosts: "what lookup for NAME: why". ttl_s: 0 for a temporary failure, which is
 * looked at again soon. */
void flight_fail(struct flight *flight, enum dns_status status, const char *what, const char *why,
                 uint32_t ttl_s);

/* 0 or -ENOMEM. */
int host_start(struct flight *flight) MUST_USE;
void host_answer(struct flight *flight, enum dns_type type, const struct dns_answer *answer);
void host_free(struct host_work *work); /* NULL is accepted */

void domain_start(struct flight *flight);
void domain_answer(struct flight *flight, const struct dns_answer *answer);
void domain_free(struct domain_work *work);

#endif

#include "dns/flight.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/io.h"

#define FLIGHTS_BUCKETS 256
#define STALE_MAX_MS    (3600 * 1000UL)
/* Answers come in bursts, and a burst must fit into the socket's buffer: so the number of questions
 * that may be answered at any moment is limited. Names whose servers are dead are answered late or
 * never; after a second they no longer keep others waiting. */
#define SLOW_AFTER_MS 1000
#define SLOW_FACTOR   16

/* ---- sending ---- */

static void send_waiting(struct dns *dns)
{
    struct list_node *node;

    while (dns->send.fresh_len < dns->send.fresh_max &&
           dns->send.in_flight < dns->send.fresh_max * SLOW_FACTOR &&
           (node = list_pop_front(&dns->send.waiting)) != NULL) {
        struct dns_question *question = LIST_ENTRY(node, struct dns_question, node);

        list_push_back(&dns->send.fresh, node);
        dns->send.fresh_len++;
        dns->send.in_flight++;
        dns->counters.upstream++;
        question->sent_ms = io_now_ms(dns->io);
        dns_upstream_query(dns->upstream, &question->up, question->name, question->type);
    }
    node = list_first(&dns->send.fresh);
    if (node == NULL || list_empty(&dns->send.waiting))
        wheel_cancel(io_wheel(dns->io), &dns->send.timer);
    else
        wheel_arm(io_wheel(dns->io), &dns->send.timer,
                  LIST_ENTRY(node, struct dns_question, node)->sent_ms + SLOW_AFTER_MS);
}

static void on_send_timer(struct timer *timer)
{
    struct dns *dns = CONTAINER_OF(timer, struct dns, send.timer);
    uint64_t now_ms = io_now_ms(dns->io);
    struct list_node *node;

    while ((node = list_first(&dns->send.fresh)) != NULL &&
           now_ms - LIST_ENTRY(node, struct dns_question, node)->sent_ms >= SLOW_AFTER_MS) {
        list_remove(node);
        dns->send.fresh_len--;
    }
    send_waiting(dns);
}

static void on_answer(struct dns_upstream_query *up, const struct dns_answer *answer)
{
    struct dns_question *question = CONTAINER_OF(up, struct dns_question, up);
    struct dns *dns = question->dns;

    if (list_node_linked(&question->node)) {
        list_remove(&question->node);
        dns->send.fresh_len--;
    }
    ASSERT(dns->send.in_flight > 0);
    dns->send.in_flight--;
    dns->counters.failures += answer->status == DNS_ANSWER_FAILED;
    dns->counters.secure += answer->secure;
    question->on_answer(question, answer);
    send_waiting(dns);
    dns_run_ready(dns);
}

void dns_ask(struct dns *dns, struct dns_question *question, const char *name, enum dns_type type)
{
    question->dns = dns;
    question->name = name;
    question->type = type;
    question->node = (struct list_node){0};
    question->up.on_answer = on_answer;
    list_push_back(&dns->send.waiting, &question->node);
    send_waiting(dns);
}

static void on_flight_answer(struct dns_question *question, const struct dns_answer *answer)
{
    struct flight *flight = CONTAINER_OF(question, struct request, question)->flight;

    ASSERT(flight->pending > 0);
    flight->pending--;
    if (flight->host_only)
        host_answer(flight, question->type, answer);
    else
        domain_answer(flight, answer);
}

void flight_ask(struct flight *flight, const char *name, enum dns_type type)
{
    struct request *request;

    if (flight->pending == 0)
        flight->requests_len = 0;
    ASSERT(flight->requests_len < FLIGHT_REQUESTS_MAX);
    request = &flight->requests[flight->requests_len++];
    *request = (struct request){.question.on_answer = on_flight_answer, .flight = flight};
    flight->pending++;
    dns_ask(flight->dns, &request->question, name, type);
}

/* ---- the end of a flight ---- */

static void flight_free(struct flight *flight)
{
    domain_free(flight->domain);
    host_free(flight->host);
    free(flight);
}

/* When the resolver is of no help, a route that was good serves on for a while (RFC 8767). */
static struct dns_route *stale_route(struct dns *dns, const struct flight *flight)
{
    struct dns_route *old =
        cache_find(&dns->cache, flight->map_node.hash, flight_name(flight), flight->host_only);
    uint64_t now_ms = io_now_ms(dns->io);

    if (old == NULL || old->status != DNS_OK || now_ms >= old->stale_until_ms)
        return NULL;
    old->expires_ms = dns_expires_ms(dns, 0, dns->negative_ttl_max_s);
    dns->counters.stale++;
    return dns_route_ref(old);
}

void flight_finish(struct flight *flight, const struct route_draft *draft)
{
    struct dns *dns = flight->dns;
    struct dns_route *route = NULL;
    struct list_node *node;

    ASSERT(flight->pending == 0);
    if (draft->status == DNS_TEMPORARY)
        route = stale_route(dns, flight);
    if (route == NULL && (route = route_build(draft)) != NULL) {
        route->stale_until_ms = route->expires_ms + STALE_MAX_MS;
        route->asked_ms = io_now_ms(dns->io);
        if (route->expires_ms > io_now_ms(dns->io) || route->status == DNS_OK)
            cache_put(&dns->cache, flight->map_node.hash, flight_name(flight), flight->host_only,
                      route);
    }
    if (route == NULL)
        route = dns_route_ref(dns->no_memory);
    map_remove(&dns->flights, &flight->map_node);
    while ((node = list_pop_front(&flight->waiters)) != NULL)
        dns_make_ready(dns, LIST_ENTRY(node, struct dns_query, node), dns_route_ref(route));
    dns_route_unref(route);
    flight_free(flight);
}

void flight_fail(struct flight *flight, enum dns_status status, const char *what, const char *why,
                 uint32_t ttl_s)
{
    char error[DNS_ERROR_MAX + 1];
    struct route_draft draft = {
        .status = status,
        .error = error,
        .site_name = flight->name,
        .expires_ms = dns_expires_ms(flight->dns, ttl_s, flight->dns->negative_ttl_max_s),
    };

    snprintf(error, sizeof(error), "%s lookup for %s: %s", what, flight->name, why);
    flight_finish(flight, &draft);
}

/* ---- the beginning ---- */

static struct flight *flight_find(struct dns *dns, uint64_t hash, struct str name, bool host_only)
{
    struct map_node *node = map_find(&dns->flights, hash);

    for (; node != NULL; node = map_find_next(node)) {
        struct flight *flight = CONTAINER_OF(node, struct flight, map_node);

        if (flight->host_only == host_only && str_eq(flight_name(flight), name))
            return flight;
    }
    return NULL;
}

/* NULL without memory. */
static struct flight *flight_start(struct dns *dns, uint64_t hash, struct str name, bool host_only)
{
    struct flight *flight = calloc(1, sizeof(*flight) + name.len + 1);

    if (flight == NULL)
        return NULL;
    flight->dns = dns;
    flight->host_only = host_only;
    flight->name_len = (uint8_t)name.len;
    memcpy(flight->name, name.ptr, name.len);
    list_init(&flight->waiters);
    if (host_only && host_start(flight) < 0) {
        free(flight);
        return NULL;
    }
    map_insert(&dns->flights, &flight->map_node, hash);
    if (!host_only)
        domain_start(flight);
    return flight;
}

void flight_join(struct dns *dns, struct dns_query *query, uint64_t hash, struct str name,
                 bool host_only)
{
    struct flight *flight = flight_find(dns, hash, name, host_only);

    if (flight == NULL)
        flight = flight_start(dns, hash, name, host_only);
    if (flight == NULL)
        dns_make_ready(dns, query, dns_route_ref(dns->no_memory));
    else
        list_push_back(&flight->waiters, &query->node);
}

/* ---- life ---- */

int flights_init(struct dns *dns)
{
    list_init(&dns->send.waiting);
    list_init(&dns->send.fresh);
    dns->send.timer.on_timer = on_send_timer;
    return map_init(&dns->flights, FLIGHTS_BUCKETS);
}

void flights_done(struct dns *dns)
{
    struct map_node *node = NULL;
    size_t bucket = 0;

    if (dns->flights.buckets == NULL)
        return;
    wheel_cancel(io_wheel(dns->io), &dns->send.timer);
    /* Two walks: a domain's exchangers wait in other flights' lists. */
    while ((node = map_walk(&dns->flights, &bucket, node)) != NULL) {
        struct flight *flight = CONTAINER_OF(node, struct flight, map_node);
        struct list_node *waiter;

        while ((waiter = list_first(&flight->waiters)) != NULL)
            list_remove(waiter);
    }
    for (bucket = 0; (node = map_walk(&dns->flights, &bucket, NULL)) != NULL;) {
        map_remove(&dns->flights, node);
        flight_free(CONTAINER_OF(node, struct flight, map_node));
    }
    map_done(&dns->flights);
}

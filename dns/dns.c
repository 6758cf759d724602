#include "dns/dns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "dns/cache.h"
#include "dns/dns_upstream.h"
#include "dns/name.h"
#include "dns/route.h"
#include "io/io.h"

#define FLIGHTS_BUCKETS    256
#define STALE_MAX_MS       (3600 * 1000UL)
#define READY_ROUNDS_MAX   3
#define DEFAULT_ENTRIES    100000
#define DEFAULT_NEGATIVE_S 300
#define DEFAULT_TTL_MIN_S  30
#define DEFAULT_TTL_MAX_S  86400
#define DEFAULT_IN_FLIGHT  500

enum { FAMILY_V4, FAMILY_V6, FAMILIES };

/* One upstream query of a flight. */
struct request {
    struct dns_upstream_query up;
    struct flight *flight;
    enum dns_type type;
    struct list_node node; /* in dns->waiting until sent */
};

/* Addresses of one host as they come in. */
struct host_work {
    enum dns_answer_status status[FAMILIES];
    uint32_t ttl_s[FAMILIES];
    size_t len[FAMILIES];
    struct dns_record records[FAMILIES][DNS_HOST_ADDRESSES_MAX];
    char error[64]; /* of a failed family */
};

/* One exchanger of a domain: a lookup like any other, so that it shares cache and flights. */
struct exchanger {
    struct dns_query query;
    struct flight *flight;
    struct dns_route *route; /* the answer; its site_name is the host's name */
    uint16_t preference;
};

struct domain_work {
    uint64_t expires_ms;
    bool implicit_mx;
    size_t len;
    char site_name[DNS_SITE_NAME_MAX + 1];
    struct exchanger exchangers[];
};

/* One name being looked up, for all who wait for it. */
struct flight {
    struct map_node map_node;
    struct dns *dns;
    struct list waiters;
    struct request requests[FAMILIES]; /* a domain's MX is the first */
    size_t pending;                    /* answers or exchangers to come */
    struct host_work *host;            /* host_only */
    struct domain_work *domain;        /* from the MX answer on */
    bool host_only;
    uint8_t name_len;
    char name[];
};

struct dns {
    struct io *io;
    struct dns_upstream *upstream;
    struct cache cache;
    struct map flights;
    struct list waiting; /* requests beyond in_flight_max */
    struct list ready;   /* queries with their routes, called in the next turn */
    struct timer timer;  /* for ready */
    struct rng rng;
    struct dns_route *bad_name, *no_memory;
    uint32_t negative_ttl_max_s, ttl_min_s, ttl_max_s;
    uint32_t in_flight, in_flight_max;
    bool no_ipv6, no_ipv4, refuse_loopback, has_own_name;
    struct dns_name own_name;
    struct dns_counters counters;
};

static void lookup_name(struct dns *dns, struct dns_query *query, struct str name, bool host_only);

/* ---- answers to those who asked ---- */

/* The route is the caller's reference and becomes the query's. */
static void make_ready(struct dns *dns, struct dns_query *query, struct dns_route *route)
{
    query->route = route;
    list_push_back(&dns->ready, &query->node);
    if (!timer_armed(&dns->timer))
        wheel_arm(io_wheel(dns->io), &dns->timer, 0);
}

/* Some rounds, since an exchanger's answer makes its domain's ready; what handlers ask for again
 * and again waits for the next turn. */
static void run_ready(struct dns *dns)
{
    for (int round = 0; round < READY_ROUNDS_MAX && !list_empty(&dns->ready); round++) {
        struct list batch;
        struct list_node *node;

        list_init(&batch);
        list_splice_back(&batch, &dns->ready);
        while ((node = list_pop_front(&batch)) != NULL) {
            struct dns_query *query = LIST_ENTRY(node, struct dns_query, node);
            struct dns_route *route = query->route;

            query->route = NULL;
            query->on_route(query, route);
            dns_route_unref(route);
        }
    }
    if (list_empty(&dns->ready))
        wheel_cancel(io_wheel(dns->io), &dns->timer);
}

static void on_ready_timer(struct timer *timer)
{
    struct dns *dns = CONTAINER_OF(timer, struct dns, timer);

    run_ready(dns);
    if (!list_empty(&dns->ready) && !timer_armed(&dns->timer))
        wheel_arm(io_wheel(dns->io), &dns->timer, 0);
}

/* ---- flights ---- */

static void flight_free(struct flight *flight)
{
    struct domain_work *work = flight->domain;

    for (size_t i = 0; work != NULL && i < work->len; i++)
        dns_route_unref(work->exchangers[i].route);
    free(work);
    free(flight->host);
    free(flight);
}

static struct str flight_name(const struct flight *flight)
{
    return (struct str){flight->name, flight->name_len};
}

/* When the resolver is of no help, a route that was good serves on for a while (RFC 8767). */
static struct dns_route *stale_route(struct dns *dns, const struct flight *flight)
{
    struct dns_route *old =
        cache_find(&dns->cache, flight->map_node.hash, flight_name(flight), flight->host_only);
    uint64_t now_ms = io_now_ms(dns->io);

    if (old == NULL || old->status != DNS_OK || now_ms >= old->stale_until_ms)
        return NULL;
    old->expires_ms = now_ms + dns->ttl_min_s * 1000UL;
    dns->counters.stale++;
    return dns_route_ref(old);
}

/* Ends the flight: route for all who wait, and for the cache. */
static void flight_finish(struct flight *flight, const struct route_draft *draft)
{
    struct dns *dns = flight->dns;
    struct dns_route *route = NULL;
    struct list_node *node;

    ASSERT(flight->pending == 0);
    if (draft->status == DNS_TEMPORARY)
        route = stale_route(dns, flight);
    if (route == NULL && (route = route_build(draft)) != NULL) {
        route->stale_until_ms = route->expires_ms + STALE_MAX_MS;
        cache_put(&dns->cache, flight->map_node.hash, flight_name(flight), flight->host_only,
                  route);
    }
    if (route == NULL)
        route = dns_route_ref(dns->no_memory);
    map_remove(&dns->flights, &flight->map_node);
    while ((node = list_pop_front(&flight->waiters)) != NULL) {
        struct dns_query *query = LIST_ENTRY(node, struct dns_query, node);

        make_ready(dns, query, dns_route_ref(route));
    }
    dns_route_unref(route);
    flight_free(flight);
}

static uint64_t expires_after(const struct dns *dns, uint64_t ttl_s, uint64_t ttl_max_s)
{
    if (ttl_s < dns->ttl_min_s)
        ttl_s = dns->ttl_min_s;
    if (ttl_s > ttl_max_s)
        ttl_s = ttl_max_s;
    return io_now_ms(dns->io) + ttl_s * 1000;
}

/* Ends the flight without hosts. ttl_s: 0 for a temporary failure, which is looked at again soon.
 */
static void flight_fail(struct flight *flight, enum dns_status status, const char *what,
                        const char *why, uint32_t ttl_s)
{
    char error[DNS_ERROR_MAX + 1];
    struct route_draft draft = {
        .status = status,
        .error = error,
        .site_name = flight->name,
        .expires_ms = expires_after(flight->dns, ttl_s, flight->dns->negative_ttl_max_s),
    };

    snprintf(error, sizeof(error), "%s lookup for %s: %s", what, flight->name, why);
    flight_finish(flight, &draft);
}

/* ---- addresses of a host ---- */

static struct dns_address record_address(int family, const struct dns_record *record)
{
    struct dns_address address;

    if (family == FAMILY_V4)
        dns_address_v4(&address, record->a);
    else
        dns_address_v6(&address, record->aaaa);
    return address;
}

/* Keeps a uniform choice of at most DNS_HOST_ADDRESSES_MAX addresses, in random order. */
static void host_take(struct dns *dns, struct host_work *work, int family,
                      const struct dns_answer *answer)
{
    struct dns_record *kept = work->records[family];
    size_t *len = &work->len[family], seen = 0;

    for (size_t i = 0; i < answer->records_len; i++) {
        struct dns_address address = record_address(family, &answer->records[i]);
        size_t at;

        if (dns_address_refused(&address, dns->refuse_loopback))
            continue;
        at = rng_below(&dns->rng, ++seen);
        if (*len < DNS_HOST_ADDRESSES_MAX)
            kept[(*len)++] = kept[at];
        if (at < DNS_HOST_ADDRESSES_MAX)
            kept[at] = answer->records[i];
    }
}

static enum dns_status host_status(const struct host_work *work)
{
    enum dns_status status = DNS_NO_HOST;

    if (work->len[FAMILY_V4] + work->len[FAMILY_V6] > 0)
        return DNS_OK;
    for (int family = 0; family < FAMILIES; family++) {
        if (work->status[family] == DNS_ANSWER_FAILED)
            return DNS_TEMPORARY;
        if (work->status[family] == DNS_ANSWER_NO_DOMAIN)
            status = DNS_NO_DOMAIN;
    }
    return status;
}

/* IPv6 first, then in turns. */
static void host_addresses(struct route_draft *draft, const struct host_work *work)
{
    for (size_t i = 0; i < DNS_HOST_ADDRESSES_MAX; i++) {
        for (int family = FAMILIES - 1; family >= 0; family--) {
            if (i < work->len[family])
                draft->addresses[draft->addresses_len++] =
                    record_address(family, &work->records[family][i]);
        }
    }
}

static void host_finish(struct flight *flight)
{
    struct dns *dns = flight->dns;
    const struct host_work *work = flight->host;
    struct route_draft draft = {.status = host_status(work), .site_name = flight->name};
    uint32_t ttl_s = UINT32_MAX, ttl_max_s = dns->ttl_max_s;

    for (int family = 0; family < FAMILIES; family++) {
        if (work->status[family] == DNS_ANSWER_FAILED)
            ttl_max_s = dns->negative_ttl_max_s; /* half an answer: ask again soon */
        else if (work->ttl_s[family] < ttl_s &&
                 (draft.status != DNS_OK || work->status[family] == DNS_ANSWER_RECORDS))
            ttl_s = work->ttl_s[family];
    }
    if (draft.status != DNS_OK) {
        const char *why = draft.status == DNS_TEMPORARY   ? work->error
                          : draft.status == DNS_NO_DOMAIN ? "no such domain"
                                                          : "host has no address";

        flight_fail(flight, draft.status, "address", why,
                    draft.status == DNS_TEMPORARY ? 0 : ttl_s);
        return;
    }
    draft.hosts[0].name = flight->name;
    draft.hosts_len = 1;
    draft.expires_ms = expires_after(dns, ttl_s, ttl_max_s);
    host_addresses(&draft, work);
    flight_finish(flight, &draft);
}

static void host_answer(struct flight *flight, enum dns_type type, const struct dns_answer *answer)
{
    struct host_work *work = flight->host;
    int family = type == DNS_TYPE_A ? FAMILY_V4 : FAMILY_V6;

    work->status[family] = answer->status;
    work->ttl_s[family] = answer->ttl_s;
    if (answer->status == DNS_ANSWER_RECORDS)
        host_take(flight->dns, work, family, answer);
    if (answer->status == DNS_ANSWER_FAILED)
        snprintf(work->error, sizeof(work->error), "%s", answer->error);
    if (--flight->pending == 0)
        host_finish(flight);
}

/* ---- exchangers of a domain ---- */

/* Every host its share of the room, so that one with many addresses cannot hide the others. */
static void draft_exchanger(struct route_draft *draft, const struct exchanger *ex, size_t share)
{
    const struct dns_route *route = ex->route;
    size_t host = draft->hosts_len++;

    draft->hosts[host].name = route->site_name;
    draft->hosts[host].preference = ex->preference;
    for (size_t i = 0; i < route->addresses_len && i < share; i++) {
        struct dns_address *address = &draft->addresses[draft->addresses_len++];

        *address = route->addresses[i];
        address->host = (uint16_t)host;
    }
}

/* DNS_OK when any exchanger has addresses; else the exchanger to blame, one that may be better
 * later before others. */
static enum dns_status domain_status(const struct domain_work *work, const struct dns_route **blame)
{
    *blame = NULL;
    for (size_t i = 0; i < work->len; i++) {
        const struct dns_route *route = work->exchangers[i].route;

        if (route->status == DNS_OK)
            return DNS_OK;
        if (*blame == NULL || route->status == DNS_TEMPORARY)
            *blame = route;
    }
    ASSERT(*blame != NULL);
    if ((*blame)->status == DNS_TEMPORARY || work->implicit_mx)
        return (*blame)->status;
    return DNS_NO_HOST;
}

/* What lives shortest, MX or any host. A host that could not be looked up does not make a good
 * route expire at once, only sooner. */
static uint64_t domain_expires(struct dns *dns, const struct domain_work *work,
                               enum dns_status status)
{
    uint64_t expires_ms = work->expires_ms;

    for (size_t i = 0; i < work->len; i++) {
        const struct dns_route *route = work->exchangers[i].route;
        uint64_t host_ms = route->expires_ms;

        if (route->status == DNS_TEMPORARY && status == DNS_OK)
            host_ms = io_now_ms(dns->io) + dns->negative_ttl_max_s * 1000UL;
        if (host_ms < expires_ms)
            expires_ms = host_ms;
    }
    return expires_ms;
}

static void domain_finish(struct flight *flight)
{
    const struct domain_work *work = flight->domain;
    const struct dns_route *blame;
    struct route_draft draft = {
        .status = domain_status(work, &blame),
        .implicit_mx = work->implicit_mx,
        .site_name = work->site_name,
    };
    size_t share = DNS_ADDRESSES_MAX / work->len;

    draft.expires_ms = domain_expires(flight->dns, work, draft.status);
    if (draft.status != DNS_OK) {
        draft.error = blame->error;
        draft.site_name = flight->name;
    }
    for (size_t i = 0; draft.status == DNS_OK && i < work->len; i++) {
        enum dns_status status = work->exchangers[i].route->status;

        if (status == DNS_OK || status == DNS_TEMPORARY)
            draft_exchanger(&draft, &work->exchangers[i], share);
    }
    flight_finish(flight, &draft);
}

static void on_exchanger(struct dns_query *query, struct dns_route *route)
{
    struct exchanger *ex = CONTAINER_OF(query, struct exchanger, query);

    ex->route = dns_route_ref(route);
    if (--ex->flight->pending == 0)
        domain_finish(ex->flight);
}

/* Looks up the exchangers' addresses. answer: the domain's MX records or that there are none. */
static void domain_start(struct flight *flight, const struct mx_list *list,
                         const struct dns_answer *answer)
{
    struct domain_work *work =
        calloc(1, sizeof(*work) + list->hosts_len * sizeof(struct exchanger));
    struct dns *dns = flight->dns;

    if (work == NULL) {
        flight_fail(flight, DNS_TEMPORARY, "MX", "out of memory", 0);
        return;
    }
    flight->domain = work;
    work->implicit_mx = answer->status == DNS_ANSWER_NO_DATA;
    work->expires_ms = expires_after(dns, answer->ttl_s,
                                     work->implicit_mx ? dns->negative_ttl_max_s : dns->ttl_max_s);
    work->len = flight->pending = list->hosts_len;
    strcpy(work->site_name, list->site_name);
    for (size_t i = 0; i < work->len; i++) {
        struct exchanger *ex = &work->exchangers[i];

        *ex = (struct exchanger){
            .query.on_route = on_exchanger,
            .flight = flight,
            .preference = list->hosts[i].preference,
        };
        lookup_name(dns, &ex->query, str_of(list->hosts[i].name), true);
    }
}

static void domain_answer(struct flight *flight, const struct dns_answer *answer)
{
    struct dns *dns = flight->dns;
    const char *own_name = dns->has_own_name ? dns->own_name.text : NULL;
    struct dns_record self = {.mx.exchanger = flight->name};
    struct mx_list list;

    flight->pending = 0;
    switch (answer->status) {
    case DNS_ANSWER_FAILED:
        flight_fail(flight, DNS_TEMPORARY, "MX", answer->error, 0);
        return;
    case DNS_ANSWER_NO_DOMAIN:
        flight_fail(flight, DNS_NO_DOMAIN, "MX", "no such domain", answer->ttl_s);
        return;
    case DNS_ANSWER_NO_DATA:
        mx_choose(&list, &self, 1, own_name, &dns->rng);
        break;
    case DNS_ANSWER_RECORDS:
        mx_choose(&list, answer->records, answer->records_len, own_name, &dns->rng);
        break;
    }
    if (list.status != DNS_OK) {
        flight_fail(flight, list.status, "MX", list.error, answer->ttl_s);
        return;
    }
    domain_start(flight, &list, answer);
}

/* ---- upstream ---- */

static void request_send(struct dns *dns, struct request *request)
{
    dns->in_flight++;
    dns->counters.upstream++;
    dns_upstream_query(dns->upstream, &request->up, request->flight->name, request->type);
}

static void on_answer(struct dns_upstream_query *up, const struct dns_answer *answer)
{
    struct request *request = CONTAINER_OF(up, struct request, up);
    struct flight *flight = request->flight;
    struct dns *dns = flight->dns;

    ASSERT(dns->in_flight > 0);
    dns->in_flight--;
    dns->counters.failures += answer->status == DNS_ANSWER_FAILED;
    if (flight->host_only)
        host_answer(flight, request->type, answer);
    else
        domain_answer(flight, answer);
    while (dns->in_flight < dns->in_flight_max && !list_empty(&dns->waiting)) {
        struct list_node *node = list_pop_front(&dns->waiting);

        request_send(dns, LIST_ENTRY(node, struct request, node));
    }
    run_ready(dns);
}

static void request_start(struct flight *flight, enum dns_type type)
{
    struct dns *dns = flight->dns;
    struct request *request = &flight->requests[flight->pending++];

    *request = (struct request){.up.on_answer = on_answer, .flight = flight, .type = type};
    if (dns->in_flight < dns->in_flight_max)
        request_send(dns, request);
    else
        list_push_back(&dns->waiting, &request->node);
}

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
    if (host_only && (flight->host = calloc(1, sizeof(*flight->host))) == NULL) {
        free(flight);
        return NULL;
    }
    flight->dns = dns;
    flight->host_only = host_only;
    flight->name_len = (uint8_t)name.len;
    memcpy(flight->name, name.ptr, name.len);
    list_init(&flight->waiters);
    map_insert(&dns->flights, &flight->map_node, hash);
    if (!host_only) {
        request_start(flight, DNS_TYPE_MX);
        return flight;
    }
    for (int family = 0; family < FAMILIES; family++) {
        flight->host->status[family] = DNS_ANSWER_NO_DATA;
        flight->host->ttl_s[family] = UINT32_MAX;
    }
    if (!dns->no_ipv6)
        request_start(flight, DNS_TYPE_AAAA);
    if (!dns->no_ipv4)
        request_start(flight, DNS_TYPE_A);
    return flight;
}

/* ---- lookups ---- */

static struct dns_route *find_fresh(struct dns *dns, uint64_t hash, struct str name, bool host_only)
{
    struct dns_route *route = cache_find(&dns->cache, hash, name, host_only);

    return route != NULL && io_now_ms(dns->io) < route->expires_ms ? route : NULL;
}

/* name: as dns_name_parse() makes it. */
static void lookup_name(struct dns *dns, struct dns_query *query, struct str name, bool host_only)
{
    uint64_t hash = cache_hash(&dns->cache, name, host_only);
    struct dns_route *route = find_fresh(dns, hash, name, host_only);
    struct flight *flight;

    if (route != NULL) {
        make_ready(dns, query, dns_route_ref(route));
        return;
    }
    flight = flight_find(dns, hash, name, host_only);
    if (flight == NULL)
        flight = flight_start(dns, hash, name, host_only);
    if (flight == NULL)
        make_ready(dns, query, dns_route_ref(dns->no_memory));
    else
        list_push_back(&flight->waiters, &query->node);
}

/* A route of one literal address. */
static struct dns_route *literal_route(struct dns *dns, const struct dns_address *address)
{
    bool v6 = address->sa.sa_family == AF_INET6;
    struct dns_name name;
    struct route_draft draft = {
        .status = DNS_OK,
        .site_name = name.text,
        .expires_ms = io_now_ms(dns->io) + dns->ttl_max_s * 1000UL,
        .hosts = {{.name = name.text}},
        .hosts_len = 1,
        .addresses = {*address},
        .addresses_len = 1,
    };
    struct dns_route *route;

    dns_literal_text(address, &name);
    if ((v6 ? dns->no_ipv6 : dns->no_ipv4) || dns_address_refused(address, dns->refuse_loopback)) {
        draft.status = DNS_NO_HOST;
        draft.error = "no mail is sent to this address";
        draft.hosts_len = draft.addresses_len = 0;
    }
    route = route_build(&draft);
    return route != NULL ? route : dns_route_ref(dns->no_memory);
}

void dns_lookup(struct dns *dns, struct dns_query *query, struct str domain, bool host_only)
{
    struct dns_address address;
    struct dns_name name;
    enum dns_literal literal = dns_literal_parse(&address, domain, host_only);

    ASSERT(!list_node_linked(&query->node));
    query->route = NULL;
    dns->counters.lookups++;
    if (literal == DNS_LITERAL_ADDRESS) {
        make_ready(dns, query, literal_route(dns, &address));
    } else if (literal == DNS_LITERAL_BAD || dns_name_parse(&name, domain) < 0) {
        make_ready(dns, query, dns_route_ref(dns->bad_name));
    } else {
        lookup_name(dns, query, (struct str){name.text, name.len}, host_only);
        dns->counters.hits += query->route != NULL;
    }
}

void dns_cancel(struct dns *dns, struct dns_query *query)
{
    (void)dns;
    if (!list_node_linked(&query->node))
        return;
    list_remove(&query->node);
    dns_route_unref(query->route);
    query->route = NULL;
}

struct dns_route *dns_cached(struct dns *dns, struct str domain, bool host_only)
{
    struct dns_name name;
    struct dns_route *route;
    struct str key;

    if (dns_name_parse(&name, domain) < 0)
        return NULL;
    key = (struct str){name.text, name.len};
    route = find_fresh(dns, cache_hash(&dns->cache, key, host_only), key, host_only);
    if (route == NULL)
        return NULL;
    dns->counters.lookups++;
    dns->counters.hits++;
    return dns_route_ref(route);
}

void dns_counters(const struct dns *dns, struct dns_counters *out)
{
    *out = dns->counters;
    out->evictions = dns->cache.evictions;
    out->entries = dns->cache.entries;
    out->in_flight = dns->in_flight;
}

void dns_flush(struct dns *dns)
{
    cache_flush(&dns->cache);
}

/* ---- life ---- */

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value != 0 ? value : fallback;
}

static struct dns_route *fixed_route(enum dns_status status, const char *error)
{
    struct route_draft draft = {.status = status, .error = error, .site_name = "none"};

    return route_build(&draft);
}

static int take_options(struct dns *dns, const struct dns_options *options)
{
    dns->negative_ttl_max_s = or_default(options->negative_ttl_max_s, DEFAULT_NEGATIVE_S);
    dns->ttl_min_s = or_default(options->ttl_min_s, DEFAULT_TTL_MIN_S);
    dns->ttl_max_s = or_default(options->ttl_max_s, DEFAULT_TTL_MAX_S);
    dns->in_flight_max = or_default(options->in_flight_max, DEFAULT_IN_FLIGHT);
    dns->no_ipv6 = options->no_ipv6;
    dns->no_ipv4 = options->no_ipv4;
    dns->refuse_loopback = options->refuse_loopback;
    dns->has_own_name = options->own_name != NULL;
    if (options->no_ipv6 && options->no_ipv4)
        return -EINVAL;
    return dns->has_own_name ? dns_name_parse(&dns->own_name, str_of(options->own_name)) : 0;
}

int dns_open(struct dns **out, struct io *io, const struct dns_options *options)
{
    struct dns *dns = calloc(1, sizeof(*dns));
    int rc;

    if (dns == NULL)
        return -ENOMEM;
    dns->io = io;
    dns->timer.on_timer = on_ready_timer;
    list_init(&dns->waiting);
    list_init(&dns->ready);
    rng_seed(&dns->rng, options->seed);
    rc = cache_init(&dns->cache, or_default(options->cache_entries_max, DEFAULT_ENTRIES),
                    rng_next(&dns->rng));
    if (rc < 0)
        goto fail;
    rc = map_init(&dns->flights, FLIGHTS_BUCKETS);
    if (rc < 0)
        goto fail;
    dns->bad_name = fixed_route(DNS_BAD_NAME, "not a domain name");
    dns->no_memory = fixed_route(DNS_TEMPORARY, "out of memory");
    rc = dns->bad_name == NULL || dns->no_memory == NULL ? -ENOMEM : take_options(dns, options);
    if (rc < 0)
        goto fail;
    rc = dns_upstream_open(&dns->upstream, io, options);
    if (rc < 0)
        goto fail;
    *out = dns;
    return 0;

fail:
    dns_close(dns);
    return rc;
}

static void drop_all(struct dns *dns, struct list *queries)
{
    struct list_node *node;

    while ((node = list_first(queries)) != NULL)
        dns_cancel(dns, LIST_ENTRY(node, struct dns_query, node));
}

/* Two walks: a domain's exchangers wait in other flights' lists. */
static void drop_flights(struct dns *dns)
{
    struct map_node *node = NULL;
    size_t bucket = 0;

    while ((node = map_walk(&dns->flights, &bucket, node)) != NULL)
        drop_all(dns, &CONTAINER_OF(node, struct flight, map_node)->waiters);
    for (bucket = 0; (node = map_walk(&dns->flights, &bucket, NULL)) != NULL;) {
        map_remove(&dns->flights, node);
        flight_free(CONTAINER_OF(node, struct flight, map_node));
    }
}

void dns_close(struct dns *dns)
{
    if (dns == NULL)
        return;
    dns_upstream_close(dns->upstream);
    drop_all(dns, &dns->ready);
    if (dns->flights.buckets != NULL)
        drop_flights(dns);
    wheel_cancel(io_wheel(dns->io), &dns->timer);
    map_done(&dns->flights);
    cache_done(&dns->cache);
    dns_route_unref(dns->bad_name);
    dns_route_unref(dns->no_memory);
    free(dns);
}

#include "dns/dns.h"

#include <errno.h>
#include <stdlib.h>

#include "dns/flight.h"
#include "dns/resolver.h"
#include "dns/route.h"
#include "io/io.h"

#define READY_ROUNDS_MAX  3
#define READY_MAX         1000 /* that hear in a turn: a name may have a hundred thousand who wait */
#define DEFAULT_ENTRIES   100000
#define DEFAULT_TTL_MIN_S 30
#define DEFAULT_TTL_MAX_S 86400
#define DEFAULT_IN_FLIGHT 200
#define DEFAULT_PORT      25

/* ---- answers to those who asked ---- */

void dns_make_ready(struct dns *dns, struct dns_query *query, struct dns_route *route)
{
    query->route = route;
    list_push_back(&dns->ready, &query->node);
    if (!timer_armed(&dns->ready_timer))
        wheel_arm(io_wheel(dns->io), &dns->ready_timer, 0);
}

/* Some rounds, since an exchanger's answer makes its domain's ready; what handlers ask for again
 * and again waits for the next turn, and so do those for whom there is no room in this one. */
static void call_ready(struct dns *dns)
{
    int left = READY_MAX;

    for (int round = 0; round < READY_ROUNDS_MAX && left > 0 && !list_empty(&dns->ready); round++) {
        struct list batch;
        struct list_node *node;

        list_init(&batch);
        list_splice_back(&batch, &dns->ready);
        for (; left > 0 && (node = list_pop_front(&batch)) != NULL; left--) {
            struct dns_query *query = LIST_ENTRY(node, struct dns_query, node);
            struct dns_route *route = query->route;

            query->route = NULL;
            query->on_route(query, route);
            dns_route_unref(route);
        }
        list_splice_back(&batch, &dns->ready); /* who waits longest goes on being first */
        list_splice_back(&dns->ready, &batch);
    }
    dns->ready_waits = !list_empty(&dns->ready);
    if (!dns->ready_waits)
        wheel_cancel(io_wheel(dns->io), &dns->ready_timer);
    else if (!timer_armed(&dns->ready_timer))
        wheel_arm(io_wheel(dns->io), &dns->ready_timer, 0);
}

void dns_run_ready(struct dns *dns)
{
    if (!dns->ready_waits)
        call_ready(dns);
}

static void on_ready_timer(struct timer *timer)
{
    call_ready(CONTAINER_OF(timer, struct dns, ready_timer));
}

/* ---- lookups ---- */

uint64_t dns_expires_ms(const struct dns *dns, uint32_t ttl_s, uint32_t ttl_max_s)
{
    if (ttl_s < dns->ttl_min_s)
        ttl_s = dns->ttl_min_s;
    if (ttl_s > ttl_max_s)
        ttl_s = ttl_max_s;
    return io_now_ms(dns->io) + ttl_s * 1000UL;
}

static struct dns_route *find_fresh(struct dns *dns, uint64_t hash, struct str name, bool host_only)
{
    struct dns_route *route = cache_find(&dns->cache, hash, name, host_only);

    return route != NULL && io_now_ms(dns->io) < route->expires_ms ? route : NULL;
}

void dns_lookup_name(struct dns *dns, struct dns_query *query, struct str name, bool host_only)
{
    uint64_t hash = cache_hash(&dns->cache, name, host_only);
    struct dns_route *route = find_fresh(dns, hash, name, host_only);

    if (route != NULL)
        dns_make_ready(dns, query, dns_route_ref(route));
    else
        flight_join(dns, query, hash, name, host_only);
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
    if ((v6 ? dns->no_ipv6 : dns->no_ipv4) || dns_address_refused(address)) {
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
        dns_make_ready(dns, query, literal_route(dns, &address));
    } else if (literal == DNS_LITERAL_BAD || dns_name_parse(&name, domain) < 0) {
        dns_make_ready(dns, query, dns_route_ref(dns->bad_name));
    } else {
        dns_lookup_name(dns, query, (struct str){name.text, name.len}, host_only);
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
    out->bytes = dns->cache.bytes;
    out->entries = dns->cache.entries;
    out->in_flight = dns->send.in_flight;
}

#define FORGET_MS 1000 /* an answer that is younger is no news */

static struct dns_route *forget(struct dns *dns, struct str name, bool host_only)
{
    uint64_t now_ms = io_now_ms(dns->io);
    struct dns_route *route =
        cache_find(&dns->cache, cache_hash(&dns->cache, name, host_only), name, host_only);

    if (route == NULL || route->asked_ms + FORGET_MS > now_ms)
        return NULL;
    if (route->expires_ms > now_ms)
        route->expires_ms = now_ms;
    route->mx_expires_ms = 0;
    return route;
}

void dns_forget(struct dns *dns, struct str domain, bool host_only)
{
    const struct dns_route *route;
    struct dns_name name;

    if (dns_name_parse(&name, domain) < 0)
        return;
    route = forget(dns, (struct str){name.text, name.len}, host_only);
    for (uint16_t i = 0; route != NULL && i < route->hosts_len; i++)
        (void)forget(dns, str_of(route->hosts[i].name), true);
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
    dns->negative_ttl_max_s = options->negative_ttl_max_s;
    dns->ttl_min_s = or_default(options->ttl_min_s, DEFAULT_TTL_MIN_S);
    dns->ttl_max_s = or_default(options->ttl_max_s, DEFAULT_TTL_MAX_S);
    dns->send.fresh_max = or_default(options->in_flight_max, DEFAULT_IN_FLIGHT);
    dns->no_ipv6 = options->no_ipv6;
    dns->no_ipv4 = options->no_ipv4;
    dns->validating = options->validating;
    dns->tlsa_port = options->tlsa_port != 0 ? options->tlsa_port : DEFAULT_PORT;
    if (options->no_ipv6 && options->no_ipv4)
        return -EINVAL;
    if (options->own_name == NULL || options->own_name[0] == '[')
        return 0;
    dns->has_own_name = true;
    return dns_name_parse(&dns->own_name, str_of(options->own_name));
}

int dns_open(struct dns **out, struct io *io, const struct dns_options *options)
{
    struct dns *dns = calloc(1, sizeof(*dns));
    int rc;

    if (dns == NULL)
        return -ENOMEM;
    dns->io = io;
    dns->ready_timer.on_timer = on_ready_timer;
    list_init(&dns->ready);
    rng_seed(&dns->rng, options->seed);
    rc = cache_init(&dns->cache, or_default(options->cache_entries_max, DEFAULT_ENTRIES),
                    rng_next(&dns->rng));
    if (rc < 0)
        goto fail;
    rc = flights_init(dns);
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

void dns_close(struct dns *dns)
{
    struct list_node *node;

    if (dns == NULL)
        return;
    dns_upstream_close(dns->upstream);
    while ((node = list_first(&dns->ready)) != NULL)
        dns_cancel(dns, LIST_ENTRY(node, struct dns_query, node));
    flights_done(dns);
    wheel_cancel(io_wheel(dns->io), &dns->ready_timer);
    cache_done(&dns->cache);
    dns_route_unref(dns->bad_name);
    dns_route_unref(dns->no_memory);
    free(dns);
}

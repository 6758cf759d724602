/* The exchangers of a domain, and what their lookups add up to. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dns/flight.h"
#include "io/io.h"

/* One exchanger of a domain: a lookup like any other, so that it shares cache and flights. */
struct exchanger {
    struct dns_query query;
    struct flight *flight;
    struct dns_route *route; /* the answer; its site_name is the host's name */
    uint16_t preference;
};

struct domain_work {
    uint64_t mx_expires_ms;
    bool implicit_mx;
    bool secure;     /* that these are the exchangers */
    bool remembered; /* from the last route, whose MX records still hold */
    size_t len;
    char site_name[DNS_SITE_NAME_MAX + 1];
    struct exchanger exchangers[];
};

/* Every host its share of the room, so that one with many addresses cannot hide the others. */
static void draft_exchanger(struct route_draft *draft, const struct exchanger *ex, size_t share)
{
    const struct dns_route *route = ex->route;
    size_t host = draft->hosts_len++;

    draft->hosts[host].name = route->site_name;
    draft->hosts[host].preference = ex->preference;
    if (route->hosts_len > 0)
        draft->hosts[host].tlsa = route->hosts[0].tlsa;
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
    uint64_t expires_ms = work->mx_expires_ms;

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
    struct domain_work *work = flight->domain;
    const struct dns_route *blame;
    struct route_draft draft = {
        .status = domain_status(work, &blame),
        .implicit_mx = work->implicit_mx,
        .secure = work->secure,
        .site_name = work->site_name,
        .mx_expires_ms = work->mx_expires_ms,
    };
    size_t share = DNS_ADDRESSES_MAX / work->len;

    if (draft.status != DNS_OK && work->remembered) {
        /* The hosts have changed: perhaps their list has, too. */
        flight->domain = NULL;
        domain_free(work);
        flight_ask(flight, flight->name, DNS_TYPE_MX);
        return;
    }
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

/* Looks up the exchangers' addresses; 0 or -ENOMEM. what: the work's facts. */
static int domain_begin(struct flight *flight, const struct mx_list *list,
                        const struct domain_work *what)
{
    struct domain_work *work =
        calloc(1, sizeof(*work) + list->hosts_len * sizeof(struct exchanger));

    if (work == NULL)
        return -ENOMEM;
    flight->domain = work;
    *work = *what;
    work->len = flight->pending = list->hosts_len;
    memcpy(work->site_name, list->site_name, sizeof(work->site_name));
    for (size_t i = 0; i < work->len; i++) {
        struct exchanger *ex = &work->exchangers[i];

        *ex = (struct exchanger){
            .query.on_route = on_exchanger,
            .flight = flight,
            .preference = list->hosts[i].preference,
        };
        dns_lookup_name(flight->dns, &ex->query, str_of(list->hosts[i].name), true);
    }
    return 0;
}

/* A route mostly expires because of an address in it, while its MX records hold on. Many domains
 * have the same exchangers, so that their renewal costs no question at all. */
void domain_start(struct flight *flight)
{
    struct dns *dns = flight->dns;
    const struct dns_route *old =
        cache_find(&dns->cache, flight->map_node.hash, flight_name(flight), false);
    struct mx_list list = {.hosts_len = 0};

    if (old != NULL && old->status == DNS_OK && !old->implicit_mx &&
        io_now_ms(dns->io) < old->mx_expires_ms) {
        for (; list.hosts_len < old->hosts_len; list.hosts_len++) {
            list.hosts[list.hosts_len].name = old->hosts[list.hosts_len].name;
            list.hosts[list.hosts_len].preference = old->hosts[list.hosts_len].preference;
        }
        snprintf(list.site_name, sizeof(list.site_name), "%s", old->site_name);
        if (domain_begin(flight, &list,
                         &(struct domain_work){.mx_expires_ms = old->mx_expires_ms,
                                               .secure = old->secure,
                                               .remembered = true}) == 0)
            return;
    }
    flight_ask(flight, flight->name, DNS_TYPE_MX);
}

void domain_answer(struct flight *flight, const struct dns_answer *answer)
{
    struct dns *dns = flight->dns;
    const char *own_name = dns->has_own_name ? dns->own_name.text : NULL;
    struct dns_record self = {.mx.exchanger = flight->name};
    bool implicit_mx = answer->status == DNS_ANSWER_NO_DATA;
    struct domain_work what = {.implicit_mx = implicit_mx, .secure = answer->secure};
    struct mx_list list;

    if (answer->status == DNS_ANSWER_FAILED) {
        flight_fail(flight, DNS_TEMPORARY, "MX", answer->error, 0);
        return;
    }
    if (answer->status == DNS_ANSWER_NO_DOMAIN) {
        flight_fail(flight, DNS_NO_DOMAIN, "MX", "no such domain", answer->ttl_s);
        return;
    }
    /* Without MX the domain is its own exchanger (RFC 5321 5.1). */
    if (implicit_mx)
        mx_choose(&list, &self, 1, own_name, &dns->rng);
    else
        mx_choose(&list, answer->records, answer->records_len, own_name, &dns->rng);
    if (list.status != DNS_OK) {
        flight_fail(flight, list.status, "MX", list.error, answer->ttl_s);
        return;
    }
    what.mx_expires_ms =
        dns_expires_ms(dns, answer->ttl_s, implicit_mx ? dns->negative_ttl_max_s : dns->ttl_max_s);
    if (domain_begin(flight, &list, &what) < 0)
        flight_fail(flight, DNS_TEMPORARY, "MX", "out of memory", 0);
}

void domain_free(struct domain_work *work)
{
    for (size_t i = 0; work != NULL && i < work->len; i++)
        dns_route_unref(work->exchangers[i].route);
    free(work);
}

/* Where a lane's mail goes: the configured route or the exchangers that DNS names, as a site. */
#include "schedule/lane_private.h"

#include <stdlib.h>

#include "dns/dns.h"
#include "schedule/site.h"
#include "worker/queue_name.h"

#define ROUTE_MIN_MS 1000

struct lane_routing {
    struct dns_query query;
    struct lane *lane;
    uint64_t generation; /* of the configuration that said what is looked up */
};

struct str lane_domain(const struct lane *lane)
{
    return queue_name_destination(lane_name(lane));
}

static void lane_route_to(struct lane *lane, struct site *site)
{
    if (site != lane->site) {
        if (lane->site != NULL)
            site_detach(lane->site, lane);
        site_attach(site, lane);
    }
}

static void lane_routed(struct lane *lane, const struct config_route *target,
                        struct dns_route *route)
{
    struct site *site;

    if (route != NULL && route->status != DNS_OK) {
        lane->worker->lane_hooks->unroutable(lane, route);
        return;
    }
    site = site_get(lane->worker, lane_domain(lane), target, route);
    ASSERT(site != NULL);
    lane->route_expires_ms = UINT64_MAX;
    if (route !=
        NULL) { /* an answer served stale has expired already: ask again, but not at once */
        uint64_t soonest_ms = io_now_ms(lane->worker->io) + ROUTE_MIN_MS;

        lane->route_expires_ms = route->expires_ms < soonest_ms ? soonest_ms : route->expires_ms;
    }
    lane_route_to(lane, site);
    lane_update(lane);
}

static void on_route(struct dns_query *query, struct dns_route *route)
{
    struct lane_routing *routing = CONTAINER_OF(query, struct lane_routing, query);
    struct lane *lane = routing->lane;
    const struct config_route *target = config_route_for(lane->worker->config, lane_domain(lane));
    bool is_of_old = routing->generation != lane->worker->config->generation;

    lane->routing = NULL;
    free(routing);
    if (!is_of_old) {
        lane_routed(lane, target, route);
        return;
    }
    /* Another host was asked for than the one that mail goes to now, and with whose password. */
    lane->route_expires_ms = 0;
    lane_update(lane);
}

void lane_route(struct lane *lane)
{
    struct worker *w = lane->worker;
    struct str domain = lane_domain(lane);
    const struct config_route *target = config_route_for(w->config, domain);
    struct dns_route *route;
    bool host_only = false;

    if (lane->routing != NULL)
        return;
    if (target != NULL && target->kind == CONFIG_ROUTE_REJECT) {
        w->lane_hooks->unroutable(lane, NULL);
        return;
    }
    if (target != NULL && target->socket.len != 0) {
        lane_routed(lane, target, NULL);
        return;
    }
    if (target != NULL && target->host != NULL) {
        domain = str_of(target->host);
        host_only = !target->mx_lookup;
    }
    route = dns_cached(w->dns, domain, host_only);
    if (route != NULL) {
        lane_routed(lane, target, route);
        dns_route_unref(route);
        return;
    }
    lane->routing = calloc(1, sizeof(*lane->routing));
    ASSERT(lane->routing != NULL);
    lane->routing->lane = lane;
    lane->routing->generation = w->config->generation;
    lane->routing->query.on_route = on_route;
    dns_lookup(w->dns, &lane->routing->query, domain, host_only);
}

void lane_route_cancel(struct lane *lane)
{
    if (lane->routing == NULL)
        return;
    dns_cancel(lane->worker->dns, &lane->routing->query);
    free(lane->routing);
    lane->routing = NULL;
}

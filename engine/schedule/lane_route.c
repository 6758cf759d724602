/* Where a lane's mail goes: the configured route or the exchangers that DNS names, as a site. */
#include "schedule/lane_private.h"

#include <stdlib.h>

#include "dns/dns.h"
#include "dns/name.h"
#include "schedule/site.h"
#include "worker/queue_name.h"
#include "worker/sts_lookup.h"
#include "worker/tls_tell.h"

#define ROUTE_MIN_MS 1000

struct lane_routing {
    struct dns_query query;
    struct sts_query policy;
    struct dns_route *route; /* while the policy is looked up; a reference */
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

/* found: of its domain's policy of MTA-STS. */
static void lane_routed(struct lane *lane, const struct config_route *target,
                        struct dns_route *route, const struct sts_found *found)
{
    struct worker *w = lane->worker;
    uint64_t expires_ms = found->look_ms, soonest_ms = io_now_ms(w->io) + ROUTE_MIN_MS;
    struct sts_policy *sts = found->policy;
    struct site *site;

    if (sts != NULL && sts->mode == STS_NONE)
        sts = NULL;
    site = site_get(w, lane_domain(lane), target, route, sts, lane_reports_tls(lane));
    if (site == NULL) {
        tls_tell(w, &(struct tls_told){.domain = lane_domain(lane),
                                       .type = TLS_REPORT_STS,
                                       .sts = sts,
                                       .result = TLS_REPORT_VALIDATION_FAILURE,
                                       .reason = "the policy names none of the exchangers"});
        w->lane_hooks->forbidden(lane, "the policy of MTA-STS names none of the domain's "
                                       "exchangers");
        return;
    }
    if (route != NULL && route->expires_ms < expires_ms)
        expires_ms = route->expires_ms;
    /* An answer served stale has expired already: ask again, but not at once. */
    lane->route_expires_ms = expires_ms < soonest_ms ? soonest_ms : expires_ms;
    lane_route_to(lane, site);
    lane_update(lane);
}

static struct lane_routing *routing_new(struct lane *lane)
{
    struct lane_routing *routing = calloc(1, sizeof(*routing));

    ASSERT(routing != NULL && lane->routing == NULL);
    routing->lane = lane;
    routing->generation = lane->worker->config->generation;
    lane->routing = routing;
    return routing;
}

/* Ends the step that routing was for. False: there is another configuration now, by which another
 * host may be asked for, with another password: the lane is routed anew. */
static bool routing_ends(struct lane_routing *routing)
{
    struct lane *lane = routing->lane;
    bool is_of_old = routing->generation != lane->worker->config->generation;

    lane->routing = NULL;
    free(routing);
    if (is_of_old) {
        lane_route_expire(lane);
        lane_update(lane);
    }
    return !is_of_old;
}

static const struct config_route *target_of(const struct lane *lane)
{
    return config_route_for(lane->worker->config, lane_domain(lane));
}

static void on_policy(struct sts_query *query, const struct sts_found *found)
{
    struct lane_routing *routing = CONTAINER_OF(query, struct lane_routing, policy);
    struct lane *lane = routing->lane;
    struct dns_route *route = routing->route;

    if (routing_ends(routing))
        lane_routed(lane, target_of(lane), route, found);
    dns_route_unref(route);
}

/* Whose policy of MTA-STS the lane's mail is under; reports of TLS are under none. */
static bool policy_domain(const struct lane *lane, const struct config_route *target,
                          const struct dns_route *route, struct dns_name *out)
{
    return !lane_reports_tls(lane) &&
           site_policy_domain(lane->worker->config, lane_domain(lane), target, route, out);
}

/* The exchangers are known; what the domain demands of them may have to be looked up. */
static void lane_policy(struct lane *lane, const struct config_route *target,
                        struct dns_route *route)
{
    struct worker *w = lane->worker;
    struct sts_found found = {.look_ms = UINT64_MAX};
    struct lane_routing *routing;
    struct dns_name name;

    if (route != NULL && route->status != DNS_OK) {
        w->lane_hooks->unroutable(lane, route);
        return;
    }
    if (!policy_domain(lane, target, route, &name) ||
        sts_known(w, (struct str){name.text, name.len}, &found)) {
        lane_routed(lane, target, route, &found);
        sts_policy_unref(found.policy);
        return;
    }
    routing = routing_new(lane);
    routing->route = dns_route_ref(route);
    routing->policy.on_policy = on_policy;
    sts_ask(w, &routing->policy, (struct str){name.text, name.len});
}

static void on_route(struct dns_query *query, struct dns_route *route)
{
    struct lane_routing *routing = CONTAINER_OF(query, struct lane_routing, query);
    struct lane *lane = routing->lane;

    if (routing_ends(routing))
        lane_policy(lane, target_of(lane), route);
}

/* What DNS is asked for; *host_only: for its addresses alone. */
static struct str asked_domain(const struct lane *lane, const struct config_route *target,
                               bool *host_only)
{
    bool is_host = target != NULL && target->host != NULL;

    *host_only = is_host && !target->mx_lookup;
    return is_host ? str_of(target->host) : lane_domain(lane);
}

void lane_route_known(struct lane *lane)
{
    const struct config_route *target = target_of(lane);
    struct sts_found found = {.look_ms = UINT64_MAX};
    struct dns_route *route = NULL;
    struct dns_name name;
    struct str domain;
    bool host_only;

    if (lane->site != NULL || lane->routing != NULL ||
        (target != NULL && target->kind == CONFIG_ROUTE_REJECT))
        return;
    if (target == NULL || target->socket.len == 0) {
        domain = asked_domain(lane, target, &host_only);
        route = dns_cached(lane->worker->dns, domain, host_only);
        if (route == NULL)
            return;
    }
    /* A domain without a route has its mail told so, which has to be in memory for that. */
    if (route == NULL || (route->status == DNS_OK && !policy_domain(lane, target, route, &name)))
        lane_routed(lane, target, route, &found);
    dns_route_unref(route);
}

void lane_route(struct lane *lane)
{
    struct worker *w = lane->worker;
    const struct config_route *target = target_of(lane);
    struct dns_route *route;
    struct str domain;
    bool host_only;

    if (lane->routing != NULL)
        return;
    if (target != NULL && target->kind == CONFIG_ROUTE_REJECT) {
        w->lane_hooks->unroutable(lane, NULL);
        return;
    }
    if (target != NULL && target->socket.len != 0) {
        lane_policy(lane, target, NULL);
        return;
    }
    domain = asked_domain(lane, target, &host_only);
    route = dns_cached(w->dns, domain, host_only);
    if (route != NULL) {
        lane_policy(lane, target, route);
        dns_route_unref(route);
        return;
    }
    routing_new(lane)->query.on_route = on_route;
    dns_lookup(w->dns, &lane->routing->query, domain, host_only);
}

void lane_route_forget(struct lane *lane)
{
    const struct config_route *target = target_of(lane);
    struct worker *w = lane->worker;

    if (w->dns != NULL && (target == NULL || target->host != NULL))
        dns_forget(w->dns, target == NULL ? lane_domain(lane) : str_of(target->host),
                   target != NULL && !target->mx_lookup);
    lane_route_expire(lane);
}

void lane_route_expire(struct lane *lane)
{
    uint64_t now_ms = io_now_ms(lane->worker->io);

    if (lane->route_expires_ms > now_ms)
        lane->route_expires_ms = now_ms;
}

bool lane_route_is_old(const struct lane *lane)
{
    uint64_t now_ms = io_now_ms(lane->worker->io);

    return now_ms >= LANE_ROUTE_OLD_MS && lane->route_expires_ms <= now_ms - LANE_ROUTE_OLD_MS;
}

void lane_route_cancel(struct lane *lane)
{
    if (lane->routing == NULL)
        return;
    dns_cancel(lane->worker->dns, &lane->routing->query);
    sts_cancel(&lane->routing->policy);
    dns_route_unref(lane->routing->route);
    free(lane->routing);
    lane->routing = NULL;
}

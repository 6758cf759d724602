#include "schedule/site.h"

#include <stdlib.h>
#include <string.h>

#include "dns/name.h"
#include "schedule/channel.h"
#include "schedule/flow_lower.h"
#include "schedule/lane.h"
#include "schedule/rollup.h"
#include "schedule/supply.h"
#include "sts/sts_policy.h"
#include "worker/shared.h"

#define SHARE_MIN_BYTES (64u << 10) /* a site with less under way may always take a message */
#define SHARE_LOOK_MS   100

/* What the set of exchangers is called, in patterns too, and the site where no provider has it. It
 * has the port, for another port is another server. */
static char *exchangers_name(const struct config *config, const struct config_route *target,
                             const struct dns_route *route)
{
    struct buf name = {0};

    buf_puts(&name, route != NULL ? route->site_name : target->socket.text);
    if (route == NULL && target->socket.addr.ss_family != AF_UNIX) /* as all names of sites */
        for (size_t i = 0; i < name.len; i++)
            name.data[i] = (uint8_t)ascii_lower((char)name.data[i]);
    if (route != NULL && target != NULL && target->port != config->dns.port)
        buf_printf(&name, ":%u", target->port);
    else if (config_provider_find(config, buf_str(&name)) != NULL)
        buf_putc(&name, '.'); /* a host of one label that is called like a provider */
    buf_putc(&name, '\0');
    return (char *)name.data;
}

/* The provider that runs all of the exchangers. One that runs some of them does not count: who has
 * the others could hold its sessions. Another port is another service of the provider's, and a next
 * hop where we log in has limits of its own. */
static const struct config_provider *provider_of(const struct config *config,
                                                 const struct config_route *target,
                                                 const struct dns_route *route)
{
    const struct config_provider *p = NULL;

    if (route == NULL ||
        (target != NULL && (target->port != config->dns.port || target->credentials != NULL ||
                            target->kind == CONFIG_ROUTE_LMTP)))
        return NULL;
    for (uint16_t i = 0; i < route->hosts_len; i++) {
        const struct config_provider *of =
            config_provider_of_host(config, str_of(route->hosts[i].name));

        if (of == NULL || (p != NULL && of != p))
            return NULL;
        p = of;
    }
    return p;
}

/* A site is of one configuration: after a reload newcomers get a new one, the old one runs dry. */
static struct site *site_find(struct worker *w, struct str key, const struct sts_policy *sts,
                              uint64_t hash)
{
    for (struct map_node *n = map_find(&w->sites, hash); n != NULL; n = map_find_next(n)) {
        struct site *site = CONTAINER_OF(n, struct site, node);

        if (site->config == w->config && str_eq(str_of(site->key), key) &&
            sts_policy_same(site->sts, sts))
            return site;
    }
    return NULL;
}

struct governor_entry *site_governor(const struct site *site, const char *source,
                                     struct governor_limits limits)
{
    struct worker *w = site->worker;
    struct governor_entry *e;
    struct buf key = {0};

    limits.generation = site->config->generation;
    buf_printf(&key, "%s|%s", source, site->key);
    e = governor_get(w->shared->governor, buf_str(&key), &limits, io_now_ns(w->io));
    ASSERT(e != NULL);
    buf_done(&key);
    return e;
}

struct governor_entry *site_governor_find(const struct site *site, const char *source)
{
    struct governor_entry *e;
    struct buf key = {0};

    buf_printf(&key, "%s|%s", source, site->key);
    e = governor_find(site->worker->shared->governor, buf_str(&key));
    buf_done(&key);
    return e;
}

bool site_is_limited(const struct site *site)
{
    return site->provider == NULL || site->dest != &site->provider->dest;
}

static struct governor_limits totals_of(const struct site *site,
                                        const struct config_destination *dest)
{
    return (struct governor_limits){.sessions_max = dest->total_sessions_max,
                                    .rate_messages = dest->total_rate_messages,
                                    .rate_period_ms = dest->total_rate_period_ms,
                                    .rate_burst = dest->total_rate_burst,
                                    .recipients = limit_rate(&dest->total_recipient_rate),
                                    .bytes = limit_rate(&dest->total_byte_rate),
                                    .connects = limit_rate(&dest->total_connect_rate),
                                    .generation = site->config->generation};
}

/* The limits over all sources, where there are some. */
static void totals_get(struct site *site)
{
    static const char no_source[] = ""; /* none is called so */
    struct governor_limits limits = totals_of(site, site->dest);

    if (site_is_limited(site) && governor_limits_any(&limits))
        site->total = site_governor(site, no_source, limits);
    if (site->provider == NULL)
        return;
    limits = totals_of(site, &site->provider->dest);
    if (governor_limits_any(&limits))
        site->rollup = rollup_get(site->worker, no_source, site->provider->name, &limits);
}

/* --- exchangers' own limits --- */

static void hosts_put(struct site *site)
{
    struct worker *w = site->worker;

    exchangers_lack_none(&site->exchangers, w->index);
    for (uint16_t i = 0; i < site->exchangers.len; i++)
        governor_put(w->shared->governor, site->exchangers.list[i].limits, io_now_ns(w->io));
}

/* Each exchanger's entry, by its host name. Domains with a pattern of their own count by
 * themselves. */
static void hosts_get(struct site *site)
{
    const struct config_destination *dest = site->dest;
    const struct governor_limits limits = {.sessions_max = dest->host_sessions_max,
                                           .rate_messages = dest->host_rate.count,
                                           .rate_period_ms = dest->host_rate.period_ms,
                                           .rate_burst = dest->host_rate.burst,
                                           .recipients = limit_rate(&dest->host_recipient_rate),
                                           .bytes = limit_rate(&dest->host_byte_rate),
                                           .connects = limit_rate(&dest->host_connect_rate),
                                           .generation = site->config->generation};
    struct worker *w = site->worker;
    struct buf key = {0};

    site->hosts_limited = governor_limits_any(&limits);
    site->hosts_paced = site->hosts_limited && (limits.rate_messages | limits.recipients.count |
                                                limits.bytes.count | limits.connects.count) != 0;
    for (uint16_t i = 0; i < site->exchangers.len && site->hosts_limited; i++) {
        struct exchanger *e = &site->exchangers.list[i];

        buf_clear(&key);
        buf_printf(&key, ":host|%s|%s", dest->pattern, e->host);
        e->limits = governor_get(w->shared->governor, buf_str(&key), &limits, io_now_ns(w->io));
        ASSERT(e->limits != NULL);
    }
    buf_done(&key);
}

bool site_policy_domain(const struct config *config, struct str domain,
                        const struct config_route *target, const struct dns_route *route,
                        struct dns_name *out)
{
    bool by_host = target != NULL && target->host != NULL;
    struct dns_address address;

    if (route == NULL ||
        !config_tls_has_sts(config_tls_of(site_destination(config, domain, target, route))))
        return false;
    if (by_host && dns_literal_parse(&address, str_of(target->host), true) != DNS_LITERAL_NONE)
        return false;
    return dns_name_parse(out, by_host ? str_of(target->host) : domain) == 0;
}

/* Whether TLSA records of the hosts count, which are those of dns.port: where the destination says
 * so. They count too where nothing validates that these are the domain's hosts (RFC 7672 2.2.1, and
 * Postfix's smtp_tls_dane_insecure_mx_policy): many domains that are not signed have their mail at
 * hosts that are. Whoever forges such an MX record may name a host with records of its own; so an
 * enforced policy of MTA-STS, which names the hosts itself, then goes before them. */
static bool has_dane(const struct worker *w, const struct config_destination *dest,
                     const struct dns_route *route, const struct sts_policy *sts, uint16_t port)
{
    return config_tls_has_dane(config_tls_of(dest)) && route != NULL &&
           (route->secure || sts == NULL || sts->mode != STS_ENFORCE) &&
           port == w->config->dns.port;
}

static struct site *site_new(struct worker *w, const struct config_route *target)
{
    struct site *site = calloc(1, sizeof(*site));

    ASSERT(site != NULL);
    site->worker = w;
    site->config = config_ref(w->config);
    site->lmtp = target != NULL && target->kind == CONFIG_ROUTE_LMTP;
    site->target = target;
    list_init(&site->supplies);
    list_init(&site->channels);
    list_init(&site->lowered);
    site->exchangers.families = &w->families;
    site->rotate = (uint16_t)rng_below(&w->rng, 1 << 15);
    return site;
}

const struct config_destination *site_destination(const struct config *config, struct str domain,
                                                  const struct config_route *target,
                                                  const struct dns_route *route)
{
    char *name = exchangers_name(config, target, route);
    const struct config_destination *dest =
        config_destination_at(config, domain, str_of(name), provider_of(config, target, route));

    free(name);
    return dest;
}

/* A site is one set of exchangers, or one static route (name), under one set of limits: domains
 * with limits of their own get sessions of their own. */
static void site_put_key(struct buf *key, const char *name, const struct config_provider *provider,
                         const struct config_destination *dest)
{
    if (provider != NULL && dest == &provider->dest)
        buf_printf(key, "provider:%s|%s", provider->name, name);
    else
        buf_printf(key, "%s|%s%s%s", dest->pattern, name, provider != NULL ? "|provider:" : "",
                   provider != NULL ? provider->name : "");
}

/* What else sets the sessions to the same hosts apart. */
static void site_put_key_terms(struct buf *key, const struct config_route *target,
                               const struct sts_policy *sts, bool dane)
{
    if (dane) /* another domain may name the same hosts, and have a policy that goes before */
        buf_puts(key, "|dane");
    /* Who cannot be sent to under a policy may well get what is under none: that has another entry
     * in the governor, which stops what does not get through. */
    if (sts != NULL && sts->mode == STS_ENFORCE)
        buf_puts(key, "|mta-sts");
    /* The same host without AUTH is another, and so it is for another user. */
    if (target != NULL && target->credentials != NULL)
        buf_printf(key, "|auth|%s", target->credentials->user);
}

struct site *site_get(struct worker *w, struct str domain, const struct config_route *target,
                      struct dns_route *route, struct sts_policy *sts, bool no_dane)
{
    char *name = exchangers_name(w->config, target, route);
    const struct config_provider *provider = provider_of(w->config, target, route);
    const struct config_destination *dest = site_destination(w->config, domain, target, route);
    uint16_t port = target != NULL ? target->port : w->config->dns.port;
    bool dane = !no_dane && has_dane(w, dest, route, sts, port);
    struct buf key = {0};
    struct site *site;
    uint64_t hash;

    if (sts != NULL && !exchangers_any(route, sts, dane)) {
        free(name);
        return NULL;
    }
    site_put_key(&key, name, provider, dest);
    site_put_key_terms(&key, target, sts, dane);
    hash = hash_bytes(key.data, key.len, w->hash_seed);
    if (sts != NULL)
        hash = hash_bytes(sts->mx, sts->mx_bytes, hash);
    site = site_find(w, buf_str(&key), sts, hash);
    if (site != NULL) {
        if (route != NULL && site->exchangers.route != route) {
            hosts_put(site);
            exchangers_of_route(&site->exchangers, route, port, sts, dane);
            hosts_get(site);
        }
        buf_done(&key);
        free(name);
        return site;
    }
    site = site_new(w, target);
    buf_putc(&key, '\0');
    site->key = (char *)key.data;
    site->exchangers_name = name;
    site->name = provider != NULL ? provider->name : name;
    site->provider = provider;
    site->dest = dest;
    site->dane = dane;
    site->sts = sts_policy_ref(sts);
    totals_get(site);
    if (route != NULL)
        exchangers_of_route(&site->exchangers, route, port, sts, dane);
    else
        exchangers_of_socket(&site->exchangers, &target->socket);
    hosts_get(site);
    map_insert(&w->sites, &site->node, hash);
    gauge_set(&w->counters.sites, (uint32_t)w->sites.count);
    return site;
}

/* Each worker has a site of its own for the same peers, and the memory is the process's. */
bool site_share_is_used(const struct site *site)
{
    const struct worker *w = site->worker;

    return site->under_way >= SHARE_MIN_BYTES && lane_memory_tight(w) &&
           site->under_way >= lane_memory_free(w) / w->shared->workers_len;
}

void site_ended(struct site *site, uint64_t bytes)
{
    bool used = site_share_is_used(site);

    ASSERT(site->under_way >= bytes);
    site->under_way -= bytes;
    if (!used || site_share_is_used(site))
        return;
    for (struct list_node *n = list_first(&site->supplies); n != NULL;
         n = list_next(&site->supplies, n))
        supply_dirty(LIST_ENTRY(n, struct supply, site_node));
}

static uint64_t rate_at_ns(const struct site *site)
{
    uint64_t now_ns = io_now_ns(site->worker->io);
    uint64_t own_ns = site->total == NULL ? 0 : governor_message_at(site->total, now_ns, NULL);
    uint64_t shared_ns =
        site->rollup == NULL ? 0 : governor_message_at(site->rollup->entry, now_ns, NULL);
    uint64_t hosts_ns =
        site->hosts_paced ? exchangers_message_at(&site->exchangers, now_ns, NULL) : 0;

    own_ns = own_ns > shared_ns ? own_ns : shared_ns;
    return own_ns > hosts_ns ? own_ns : hosts_ns;
}

int site_rates_ask(const struct site *site, struct limit_denial *why)
{
    struct limit totals[3] = {{.entry = site->total, .kind = LIMIT_TOTAL_RATE, .dest = site->dest}};
    uint64_t now_ns = io_now_ns(site->worker->io);
    const struct exchanger *host;

    if (site->rollup != NULL)
        totals[1] = (struct limit){
            .entry = site->rollup->entry, .kind = LIMIT_TOTAL_RATE, .dest = &site->provider->dest};
    if (site->hosts_paced && exchangers_message_at(&site->exchangers, now_ns, &host) > now_ns)
        totals[2] = (struct limit){.entry = host->limits, .kind = LIMIT_HOST, .dest = site->dest};
    return limits_ask(totals, ARRAY_LEN(totals), now_ns, why);
}

void site_claim(const struct site *site, uint8_t priority)
{
    struct governor_entry *of[] = {site->total, site->rollup == NULL ? NULL : site->rollup->entry,
                                   NULL};
    uint64_t now_ns = io_now_ns(site->worker->io);
    const struct exchanger *host;

    if (site->hosts_paced && exchangers_message_at(&site->exchangers, now_ns, &host) > now_ns)
        of[2] = host->limits;
    for (size_t i = 0; i < ARRAY_LEN(of) && site->sessions_len > 0; i++)
        if (of[i] != NULL && governor_message_at(of[i], now_ns, NULL) > now_ns)
            governor_claim(of[i], site_who(site), priority, now_ns);
}

void site_count_held(struct site *site, const struct limit_denial *limit, uint64_t ms)
{
    if (limit->entry != NULL)
        governor_hold(limit->entry, limit->counts, ms);
    counter_add(&site->worker->counters.held_ms[limit->kind][limit->counts], ms);
}

void site_look_held(struct site *site)
{
    uint64_t now_ns = io_now_ns(site->worker->io);

    if (site->total == NULL && site->rollup == NULL && !site->hosts_paced)
        return;
    if (site->held.kind != LIMIT_NONE)
        site_count_held(site, &site->held, (now_ns - site->held_ns) / 1000000);
    site->held_ns = now_ns;
    if (site_rates_ask(site, &site->held) == 0)
        site->held.kind = LIMIT_NONE;
    if (site->held.kind == LIMIT_HOST) /* its entry goes with the next route */
        site->held.entry = NULL;
}

bool site_waits(const struct site *site)
{
    return rate_at_ns(site) > io_now_ns(site->worker->io) || site_share_is_used(site);
}

uint64_t site_waits_until_ms(const struct site *site)
{
    uint64_t rate_ms = rate_at_ns(site) / 1000000 + 1;
    uint64_t look_ms = site_share_is_used(site) ? io_now_ms(site->worker->io) + SHARE_LOOK_MS : 0;

    return look_ms > rate_ms ? look_ms : rate_ms;
}

void site_left(struct site *site)
{
    if (site->lanes == 0 && site->sessions_len == 0 && !list_node_linked(&site->dead_node))
        list_push_back(&site->worker->sites_dead, &site->dead_node);
}

static void site_free(struct site *site)
{
    struct worker *w = site->worker;
    struct list_node *n;

    ASSERT(site->under_way == 0);
    while ((n = list_pop_front(&site->supplies)) != NULL)
        supply_free(LIST_ENTRY(n, struct supply, site_node));
    while ((n = list_pop_front(&site->channels)) != NULL)
        channel_free(LIST_ENTRY(n, struct channel, site_node));
    map_remove(&w->sites, &site->node);
    gauge_set(&w->counters.sites, (uint32_t)w->sites.count);
    site_shares_done(site);
    flow_lower_done(site);
    hosts_put(site);
    rollup_put(site->rollup);
    if (site->total != NULL)
        governor_session_withdraw(site->total, w->index, 0);
    governor_put(w->shared->governor, site->total, io_now_ns(w->io));
    exchangers_done(&site->exchangers);
    sts_policy_unref(site->sts);
    config_unref(site->config);
    free(site->exchangers_name);
    free(site->key);
    free(site);
}

void site_reap(struct worker *w)
{
    struct list_node *n;

    while ((n = list_pop_front(&w->sites_dead)) != NULL) {
        struct site *site = LIST_ENTRY(n, struct site, dead_node);

        if (site->lanes == 0 && site->sessions_len == 0)
            site_free(site);
    }
}

void site_attach(struct site *site, struct lane *lane)
{
    struct supply *s = supply_get(site, lane);

    ASSERT(lane->site == NULL && lane->supply == NULL && !list_node_linked(&lane->site_node));
    ASSERT(s->site == site && site->worker == lane->worker);
    lane->site = site;
    lane->supply = s;
    list_push_back(&s->attached, &lane->site_node);
    site->lanes++;
    s->waiting += lane->window_len;
    s->held += lane->window_bytes;
    lane_suspensions_look(lane);
}

/* Nobody's mail goes to site any more: its idle sessions have nothing to wait for. */
static void site_empty(struct site *site)
{
    for (struct list_node *n = list_first(&site->channels); n != NULL;
         n = list_next(&site->channels, n))
        channel_dirty(LIST_ENTRY(n, struct channel, site_node));
}

void site_detach(struct site *site, struct lane *lane)
{
    struct supply *s = lane->supply;

    ASSERT(lane->site == site && s != NULL && s->site == site);
    feed_remove(&s->feed, lane);
    list_remove(&lane->site_node);
    lane->held = false;
    lane->site = NULL;
    lane->supply = NULL;
    ASSERT(site->lanes > 0 && s->waiting >= lane->window_len && s->held >= lane->window_bytes);
    site->lanes--;
    s->waiting -= lane->window_len;
    s->held -= lane->window_bytes;
    lane_load_leave(lane, s);
    if (site->lanes == 0)
        site_empty(site);
    site_left(site);
}

#include "control/backend_route.h"

#include <errno.h>
#include <stdlib.h>

#include "control/backend_sites.h"
#include "control/control_private.h"
#include "deliver/secure.h"
#include "dns/dns.h"
#include "dns/name.h"
#include "limits/limit.h"
#include "outcome/classify.h"
#include "schedule/channel.h"
#include "schedule/rollup.h"
#include "schedule/supply.h"
#include "sts/sts_policy.h"
#include "worker/peer_text.h"
#include "worker/worker.h"

struct route_ask {
    struct worker_note note;
    struct list_node node; /* worker->route_asks, while its domain is looked up */
    struct control_job *job;
    struct worker *worker;
    struct dns_query query;
};

/* --- what the configuration says of the site --- */

/* How long mail waited for each of the limits, in s. */
static void put_held(const struct limit *const *limits, size_t len, struct buf *out)
{
    uint64_t ms[LIMIT_KINDS][GOVERNOR_WAITS] = {0};

    for (size_t i = 0; i < len; i++)
        for (enum governor_counts c = 0; c < GOVERNOR_WAITS; c++)
            if (limits[i] != NULL && limits[i]->entry != NULL)
                ms[limits[i]->kind][c] += governor_held_ms(limits[i]->entry, c);
    buf_puts(out, "\"held_s\":{");
    for (enum limit_kind kind = LIMIT_NONE + 1; kind < LIMIT_KINDS; kind++)
        for (enum governor_counts c = 0; c < GOVERNOR_WAITS; c++)
            if (ms[kind][c] != 0)
                buf_printf(out, "\"%s\":%.1f,", limit_name(kind, c), (double)ms[kind][c] / 1000);
    json_end(out);
    buf_putc(out, ',');
}

static void put_settings(struct control_route *of, struct site *site)
{
    const struct feed_limits shares = site_limits(site, str_of(of->tenant), str_of(of->campaign));
    const struct limit total = {.entry = site->total, .kind = LIMIT_TOTAL_RATE},
                       rollup = {.entry = site->rollup == NULL ? NULL : site->rollup->entry,
                                 .kind = LIMIT_TOTAL_RATE};
    const struct limit *limits[] = {&total, &rollup, shares.tenant, shares.campaign};
    struct buf *out = &of->out;
    struct buf set = {0};

    backend_put_limits(site, &shares, out);
    put_held(limits, ARRAY_LEN(limits), out);
    site_limit_put(shares.tenant);
    site_limit_put(shares.campaign);
    site_limit_put(shares.campaign_total);
    config_origin_put(site->config, site->dest, "tls", &set);
    buf_puts(out, "\"tls\":{");
    json_text(out, "policy", str_of(site->dest->tls));
    json_text(out, "set", buf_str(&set));
    json_end(out);
    buf_putc(out, ',');
    buf_done(&set);
}

/* --- its encryption --- */

/* What is known of the policy of MTA-STS that the mail is under, and that site_get() was given. */
struct known_sts {
    struct sts_policy *policy; /* a reference; NULL: there is none */
    char why[160];             /* what failed when it was last looked up */
};

static void put_sts(const struct known_sts *known, struct buf *out)
{
    const struct sts_policy *sts = known->policy;

    if (sts == NULL && known->why[0] == '\0')
        return;
    buf_puts(out, "\"mta_sts\":{");
    if (sts != NULL) {
        json_text(out, "mode", str_of(sts_mode_name(sts->mode)));
        json_text(out, "id", str_of(sts->id));
        json_number(out, "fetched_ms", sts->fetched_ms);
        json_number(out, "until_ms", sts->fetched_ms + (int64_t)sts->max_age_s * 1000);
    }
    if (known->why[0] != '\0')
        json_text(out, "why", str_of(known->why));
    json_end(out);
    buf_putc(out, ',');
}

/* A record as zone files have it: "3 1 1 0d6f…". */
static void put_record(struct str record, struct buf *out)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < record.len; i++)
        buf_printf(out, i < 3 ? "%s%u" : "%s%02x", i > 0 && i <= 3 ? " " : "",
                   (uint8_t)record.ptr[i]);
    buf_puts(out, "\",");
}

/* Of an exchanger of a site for which such records count. */
static void put_tlsa(const struct dns_tlsa *tlsa, struct buf *out)
{
    if (tlsa == NULL)
        return;
    buf_puts(out, "\"tlsa\":[");
    for (uint16_t i = 0; i < tlsa->records_len; i++)
        put_record(tlsa->records[i], out);
    json_end_list(out);
    if (tlsa->error != NULL)
        json_text(out, "tlsa_error", str_of(tlsa->error));
    else if (!dns_tlsa_usable(tlsa))
        json_bool(out, "tlsa_unusable", true);
}

/* From which sources of the pool mail goes in plaintext, since a handshake failed lately. */
static void put_plain(const struct site *site, const struct config_pool *pool,
                      const struct exchanger *e, struct buf *out)
{
    uint64_t now_ms = io_now_ms(site->worker->io), until_ms;
    const char *why;
    bool any = false;

    for (size_t i = 0; i < pool->sources_len; i++) {
        const struct config_source *s = pool->sources[i].source;
        int64_t end_ms;

        if (!secure_is_plain(site, s, e, &why, &until_ms))
            continue;
        end_ms = worker_wall_ms(site->worker) + (int64_t)(until_ms - now_ms);
        buf_puts(out, any ? "{" : "\"plaintext\":[{");
        json_text(out, "source", str_of(s->name));
        json_text(out, "reason", str_of(why));
        json_number(out, "since_ms", end_ms - SECURE_PLAIN_MS);
        json_number(out, "until_ms", end_ms);
        json_end(out);
        buf_putc(out, ',');
        any = true;
    }
    if (any)
        json_end_list(out);
}

static void put_exchangers(const struct site *site, const struct config_pool *pool, struct buf *out)
{
    buf_puts(out, "\"exchangers\":[");
    for (uint16_t i = 0; i < site->exchangers.len; i++) {
        const struct exchanger *e = &site->exchangers.list[i];
        char address[PEER_TEXT_BYTES];

        peer_text(&e->addr.sa, NULL, address);
        buf_putc(out, '{');
        json_text(out, "host", str_of(e->host));
        json_number(out, "preference", e->preference);
        json_text(out, "address", str_of(address));
        json_text(out, "tls", str_of(config_tls_word(secure_policy(site, e))));
        if (site->dane)
            put_tlsa(e->tlsa, out);
        put_plain(site, pool, e, out);
        json_end(out);
        buf_putc(out, ',');
    }
    json_end_list(out);
}

/* --- its sources --- */

static void put_sessions(const struct channel *c, uint64_t now_ns, struct buf *out)
{
    uint64_t open = 0, most = UINT32_MAX;

    for (size_t i = 0; i < CHANNEL_LIMITS; i++) {
        uint64_t one_open, one_most;

        if (c->limits[i].entry == NULL)
            continue;
        governor_sessions(c->limits[i].entry, now_ns, &one_open, &one_most);
        open = i == CHANNEL_OWN ? one_open : open;
        most = one_most < most ? one_most : most;
    }
    json_number(out, "sessions", (int64_t)open);
    json_number(out, "sessions_max", (int64_t)most);
}

/* What an answer lowered, and has grown to since; and how many sessions a pause left. */
static void put_caps(struct shared *all, const char *at_site, const struct channel *c,
                     uint64_t now_ns, struct buf *out)
{
    struct governor_cap cap;
    struct suspension one;

    if (governor_capped(channel_told(c), now_ns, &cap)) {
        buf_puts(out, "\"lowered\":{");
        json_lowered(out, &(struct suspension_cap){.rate_messages = cap.rate_messages,
                                                   .rate_period_ms = cap.rate_period_ms,
                                                   .sessions = cap.sessions,
                                                   .session_messages = cap.session_messages});
        if (suspensions_find(&all->suspensions, SUSPENSION_SOURCE_CAP, str_of(at_site), &one)) {
            json_text(out, "who", str_of(one.who));
            json_text(out, "reason", str_of(one.reason));
            json_number(out, "until_ms", one.until_ms);
        }
        json_end(out);
        buf_putc(out, ',');
    }
    if (suspensions_find(&all->suspensions, SUSPENSION_SOURCE_RECOVERY, str_of(at_site), &one))
        json_number(out, "recovering", one.cap.sessions);
}

/* What became of its mail there, in all workers. */
static void put_sums(const struct site *site, const struct config_source *s, struct buf *out)
{
    struct governor_entry *entry = site_governor_find(site, s->name);
    const struct governor_sums *sums;
    uint32_t bounced[GOVERNOR_REASONS_MAX];
    uint64_t all = 0;

    if (entry == NULL)
        return;
    sums = &entry->sums;
    for (uint8_t i = 0; i < GOVERNOR_REASONS_MAX; i++)
        all += bounced[i] = atomic_load_explicit(&sums->bounced[i], memory_order_relaxed);
    buf_puts(out, "\"counters\":{");
    json_number(out, "attempts", (int64_t)atomic_load(&sums->attempts));
    json_number(out, "delivered", (int64_t)atomic_load(&sums->delivered));
    json_number(out, "deferred", (int64_t)atomic_load(&sums->deferred));
    json_number(out, "bounced", (int64_t)all);
    json_number(out, "bytes", (int64_t)atomic_load(&sums->bytes));
    json_number(out, "connect_failures", (int64_t)atomic_load(&sums->connect_failures));
    buf_puts(out, "\"bounced_by\":{");
    for (uint8_t i = 0; i < GOVERNOR_REASONS_MAX; i++)
        if (bounced[i] > 0)
            json_number(out, classify_reason_name(i), (int64_t)bounced[i]);
    json_end(out);
    buf_putc(out, ',');
    json_end(out);
    buf_putc(out, ',');
    governor_put(site->worker->shared->governor, entry, io_now_ns(site->worker->io));
}

/* Of a source that has had a turn there: what its limits, and the receiver, let it do now, in all
 * workers. */
static void put_channel(const struct site *site, const struct config_source *s, struct buf *out)
{
    const struct list_node *n = list_first(&site->channels);
    struct worker *w = site->worker;
    uint64_t now_ns = io_now_ns(w->io), at_ns;
    char at_site[SUSPENSION_NAME_MAX + 1];
    struct limit_denial why;
    struct channel *c;

    while (n != NULL && LIST_ENTRY(n, struct channel, site_node)->source != s)
        n = list_next(&site->channels, n);
    if (n == NULL)
        return;
    c = LIST_ENTRY(n, struct channel, site_node);
    ASSERT(c->site == site);
    put_sessions(c, now_ns, out);
    put_held((const struct limit *[]){&c->limits[CHANNEL_OWN], &c->limits[CHANNEL_PROVIDER],
                                      &c->limits[CHANNEL_SOURCE]},
             3, out);
    suspension_name(at_site, str_of(s->name), str_of(site->name));
    put_caps(w->shared, at_site, c, now_ns, out);
    if (channel_limits_ask(c, &why) < 0 && why.kind != LIMIT_WARMUP)
        json_number(out, "rate_ms",
                    worker_wall_ms(w) + (int64_t)((why.until_ns - now_ns) / 1000000));
    at_ns = governor_stopped_ns(c->governor);
    if (at_ns != 0)
        json_number(out, "stopped_ms",
                    worker_wall_ms(w) +
                        (at_ns > now_ns ? (int64_t)((at_ns - now_ns) / 1000000) : 0));
}

/* Of a stream that has sent nothing yet: what its first day will be. */
static void put_warmup(const struct site *site, const struct config_source *s, struct buf *out)
{
    struct warmup *all = &site->worker->shared->warmup;
    struct config_warmup_policy policy;
    struct warmup_view v;
    const char *provider;

    if (site->lmtp || site->exchangers.len == 0)
        return;
    provider = config_provider_of(site->config, str_of(site->exchangers.list[0].host));
    if (!config_warmup_policy(site->config, s->name, provider, &policy))
        return;
    ASSERT(policy.steps_len > 0);
    if (!warmup_view_of(all, str_of(s->name), str_of(provider), worker_wall_ms(site->worker), &v))
        v = (struct warmup_view){
            .stage = 1, .stages = (uint32_t)policy.steps_len, .cap = policy.steps[0]};
    buf_puts(out, "\"warmup\":{");
    json_text(out, "provider", str_of(provider));
    json_number(out, "stage", v.stage);
    json_number(out, "stages", v.stages);
    if (v.cap != WARMUP_NO_CAP)
        json_number(out, "cap", v.cap);
    json_number(out, "used", v.used);
    if (v.next_ms != 0)
        json_number(out, "next_ms", v.next_ms);
    json_end(out);
    buf_putc(out, ',');
}

static void put_suspended(struct shared *all, enum suspension_scope scope, struct str name,
                          struct buf *out)
{
    struct suspension one;

    if (name.len == 0 || !suspensions_find(&all->suspensions, scope, name, &one))
        return;
    buf_putc(out, '{');
    json_text(out, "name", name);
    json_suspension(out, &one);
    json_end(out);
    buf_putc(out, ',');
}

static void put_source_suspension(const struct site *site, const struct config_source *s,
                                  struct buf *out)
{
    struct suspension one;

    if (!channel_source_suspended(site, s, &one))
        return;
    buf_puts(out, "\"suspension\":{");
    json_text(out, "name", str_of(one.name));
    json_suspension(out, &one);
    json_end(out);
    buf_putc(out, ',');
}

static const char *source_state(struct site *site, const struct config_source *s)
{
    const struct source *state = sources_get(&site->worker->shared->sources, s);
    uint8_t families = source_families(state);
    uint8_t routed = families & (uint8_t)~channel_families_unrouted(site, s, state);

    if (channel_source_suspended(site, s, NULL))
        return "suspended";
    if (exchangers_usable(&site->exchangers, routed) > 0 && families != 0)
        return "ok";
    if (source_away_ns(state, SOURCE_PROXY) != 0)
        return "proxy_down";
    if (families == 0)
        return "missing";
    return exchangers_usable(&site->exchangers, families) > 0 ? "no_route" : "no_address";
}

static void put_sources(struct site *site, const struct config_pool *pool, uint32_t bound,
                        bool overflow, struct buf *out)
{
    for (size_t i = 0; pool != NULL && i < pool->sources_len; i++) {
        const struct config_source *s = pool->sources[i].source;

        buf_putc(out, '{');
        json_text(out, "name", str_of(s->name));
        json_number(out, "weight", pool->sources[i].weight);
        if (overflow)
            json_bool(out, "overflow", true);
        if (!overflow && bound == i + 1)
            json_bool(out, "bound", true);
        if (s->ipv4.len != 0)
            json_text(out, "ipv4", str_of(s->ipv4.text));
        if (s->ipv6.len != 0)
            json_text(out, "ipv6", str_of(s->ipv6.text));
        json_text(out, "ehlo_name", str_of(s->ehlo_name));
        json_text(out, "state", str_of(source_state(site, s)));
        put_source_suspension(site, s, out);
        put_sums(site, s, out);
        put_channel(site, s, out);
        put_warmup(site, s, out);
        json_end(out);
        buf_putc(out, ',');
    }
}

/* --- the answer --- */

static void put_site(struct control_route *of, struct site *site)
{
    const struct config_pool *pool = config_pool_for(site->config, str_of(of->pool));
    uint32_t bound = supply_bound(pool, str_of(of->domain), str_of(of->campaign));
    struct buf *out = &of->out;

    ASSERT(pool != NULL && bound <= pool->sources_len);
    json_text(out, "site", str_of(site->name));
    put_exchangers(site, pool, out);
    put_settings(of, site);
    buf_puts(out, "\"sources\":[");
    put_sources(site, pool, bound, false, out);
    put_sources(site, pool->overflow, 0, true, out);
    json_end_list(out);
}

static void put_suspensions(struct control_route *of, const struct site *site, struct shared *all)
{
    char at_site[SUSPENSION_NAME_MAX + 1];
    struct buf *out = &of->out;

    buf_puts(out, "\"suspensions\":[");
    put_suspended(all, SUSPENSION_DOMAIN, str_of(of->domain), out);
    put_suspended(all, SUSPENSION_CAMPAIGN, str_of(of->campaign), out);
    put_suspended(all, SUSPENSION_TENANT, str_of(of->tenant), out);
    if (site != NULL) {
        put_suspended(all, SUSPENSION_SITE, str_of(site->name), out);
        if (site->provider != NULL) /* the set may be suspended by its own name */
            put_suspended(all, SUSPENSION_SITE, str_of(site->exchangers_name), out);
        suspension_name(at_site, str_of(of->campaign), str_of(site->name));
        put_suspended(all, SUSPENSION_CAMPAIGN_SITE, str_of(at_site), out);
        suspension_name(at_site, str_of(of->tenant), str_of(site->name));
        put_suspended(all, SUSPENSION_TENANT_SITE, str_of(at_site), out);
    }
    json_end_list(out);
}

static void put_next_hop(const struct config *c, const struct config_route *target, struct buf *out)
{
    struct buf text = {0};

    if (target == NULL) {
        json_text(out, "next_hop", STR("mx"));
        return;
    }
    config_print_route(target, &text);
    json_text(out, "next_hop", buf_str(&text));
    buf_clear(&text);
    buf_printf(&text, "routes['%s'], %s:%u", target->pattern, c->file, target->line);
    json_text(out, "next_hop_set", buf_str(&text));
    buf_done(&text);
}

static void ask_end(struct route_ask *a, int result)
{
    ASSERT(!list_node_linked(&a->node)); /* no lookup will come back to it */
    control_job_done(a->job, result);
    free(a);
}

/* By what is known now; nothing where the destination is under no policy. */
static void sts_look(struct worker *w, struct str domain, const struct config_route *target,
                     const struct dns_route *route, struct known_sts *out)
{
    struct sts_table *t = &w->shared->sts;
    struct dns_name name;
    struct str of;

    if (!site_policy_domain(w->config, domain, target, route, &name))
        return;
    of = (struct str){name.text, name.len};
    out->policy = sts_table_find(t, of, io_now_ms(w->io), worker_wall_ms(w)).policy;
    sts_table_why(t, of, out->why, sizeof(out->why));
}

/* route: what the lookup said; NULL: none was needed. */
static void answer(struct route_ask *a, struct dns_route *route)
{
    static const char *const words[] = {
        [DNS_OK] = "ok",           [DNS_NULL_MX] = "null_mx",   [DNS_NO_DOMAIN] = "no_domain",
        [DNS_NO_HOST] = "no_host", [DNS_BAD_NAME] = "bad_name", [DNS_TEMPORARY] = "temporary"};
    struct control_route *of = &a->job->route;
    struct worker *w = a->worker;
    const struct config_route *target = config_route_for(w->config, str_of(of->domain));
    bool rejects = target != NULL && target->kind == CONFIG_ROUTE_REJECT;
    const char *no_site = rejects ? "the route rejects mail" : NULL;
    const struct config_provider *provider;
    struct known_sts known = {0};
    struct site *site = NULL;

    put_next_hop(w->config, target, &of->out);
    ASSERT(route == NULL || (size_t)route->status < ARRAY_LEN(words));
    if (route != NULL)
        json_text(&of->out, "lookup", str_of(words[route->status]));
    if (route != NULL && route->error != NULL)
        json_text(&of->out, "lookup_error", str_of(route->error));
    if (!rejects && (route == NULL || route->status == DNS_OK)) {
        struct sts_policy *sts;

        sts_look(w, str_of(of->domain), target, route, &known);
        sts = known.policy != NULL && known.policy->mode != STS_NONE ? known.policy : NULL;
        site = site_get(w, str_of(of->domain), target, route, sts, false);
        if (site == NULL)
            no_site = "the policy of MTA-STS names none of the domain's exchangers";
    }
    if (no_site != NULL)
        json_text(&of->out, "no_site", str_of(no_site));
    put_sts(&known, &of->out);
    sts_policy_unref(known.policy);
    provider = site != NULL ? NULL : config_provider_find(w->config, str_of(of->domain));
    if (provider != NULL) /* there is no mail for it, or it would have been found by that */
        backend_put_provider(w->config, provider, &of->out);
    if (site != NULL)
        put_site(of, site);
    put_suspensions(of, site, w->shared);
    if (site != NULL)
        site_left(site);
    ask_end(a, 0);
}

static void on_route(struct dns_query *query, struct dns_route *route)
{
    struct route_ask *a = CONTAINER_OF(query, struct route_ask, query);

    list_remove(&a->node);
    answer(a, route);
}

static void ask(struct worker *w, struct worker_note *note)
{
    struct route_ask *a = CONTAINER_OF(note, struct route_ask, note);
    struct str domain = str_of(a->job->route.domain);
    const struct config_route *target = config_route_for(w->config, domain);
    bool host_only = false;

    ASSERT(a->worker == NULL && a->job->kind == CONTROL_JOB_ROUTE);
    a->worker = w;
    if (w->draining || w->dns == NULL) {
        ask_end(a, -ESHUTDOWN);
        return;
    }
    if (target != NULL && (target->kind == CONFIG_ROUTE_REJECT || target->socket.len != 0)) {
        answer(a, NULL);
        return;
    }
    if (target != NULL && target->host != NULL) {
        domain = str_of(target->host);
        host_only = !target->mx_lookup;
    }
    a->query.on_route = on_route;
    list_push_back(&w->route_asks, &a->node);
    dns_lookup(w->dns, &a->query, domain, host_only);
}

void backend_route(struct shared *all, struct control_job *job)
{
    struct route_ask *a = calloc(1, sizeof(*a));
    uint32_t shard = queue_shard_of(all->queue, str_of(job->route.domain));

    if (a == NULL) {
        control_job_done(job, -ENOMEM);
        return;
    }
    a->job = job;
    a->note.run = ask;
    worker_post(all, NULL, worker_of_shard(all, shard)->index, &a->note);
}

void backend_routes_abandon(struct worker *w)
{
    struct list_node *n;

    while ((n = list_pop_front(&w->route_asks)) != NULL) {
        struct route_ask *a = LIST_ENTRY(n, struct route_ask, node);

        dns_cancel(w->dns, &a->query);
        ask_end(a, -ESHUTDOWN);
    }
    ASSERT(list_empty(&w->route_asks));
}

#include "tests/sim/world.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/season.h"
#include "tests/sim/warmth.h"

struct world world;
bool world_full, world_bursts, world_signs, world_crowd, world_recovery, world_warmup;
bool world_domains, world_season;
uint32_t world_lanes_max;

#define TTL_S 60
/* Where one has hundreds of recipients: a few such worlds took most of the time of all. */
#define MANY_MESSAGES 40

/* --- drawing --- */

static uint32_t draw(uint64_t low, uint64_t high)
{
    return (uint32_t)sim_between(low, high);
}

/* Mostly nothing, sometimes a little, rarely a lot. */
static uint32_t trouble(uint32_t much)
{
    uint32_t kind = draw(0, 9);

    return kind < 6 ? 0 : kind < 9 ? draw(1, much / 8 + 1) : draw(much / 4, much);
}

static void path_make(struct net_path *p, bool swift)
{
    *p = (struct net_path){.latency_ns =
                               sim_between(20 * SIM_US, swift ? 20 * SIM_MS : 150 * SIM_MS),
                           .segment_max = sim_chance(150) ? draw(1, 40) : draw(200, 9000),
                           .window = draw(4096, 262144)};
    if (swift)
        p->segment_max = 9000;
    if (!swift && sim_chance(400))
        p->jitter_ns = sim_between(SIM_US, 50 * SIM_MS);
    if (!swift && sim_chance(300))
        p->byte_ns = sim_between(10, 100000);
}

static void host_make(struct world_host *h, const struct world_site *site, uint32_t index)
{
    *h = (struct world_host){.site = index, .v6 = sim_chance(350)};
    h->v4 = !h->v6 || sim_chance(500);
    h->deaf_v6 = h->v4 && sim_chance(300);
    path_make(&h->path, site->swift);
    h->no_pipelining = sim_chance(300);
    h->no_chunking = sim_chance(500);
    h->no_8bitmime = sim_chance(150);
    h->no_dsn = sim_chance(300);
    h->no_limits = sim_chance(500);
    h->rcpts_max = sim_chance(700) ? 1000 : draw(1, 20);
    h->messages_max = sim_chance(700) ? 0 : draw(1, 20);
    if (site->swift)
        return;
    for (int stage = 0; stage < WORLD_STAGES; stage++) {
        struct manners *m = &h->manners[stage];

        m->defer = trouble(400);
        m->refuse = site->kind ? 0 : trouble(200);
        m->say_421 = trouble(150);
        m->drop = trouble(150);
        m->stall = trouble(60);
    }
    h->drop_after_dot = trouble(200);
    h->stall_after_dot = trouble(100);
    h->garbage = trouble(50);
    h->drop_in_body = trouble(100);
    h->answer_ns = sim_chance(500) ? 0 : sim_between(SIM_MS, 5 * SIM_S);
    h->helo_only = site->route != ROUTE_LMTP && sim_chance(100); /* LHLO has no elder form */
    h->greylist_s = sim_chance(150) ? draw(10, 600) : 0;
    h->sessions_max = sim_chance(200) ? draw(1, 5) : 0;
    if (sim_chance(250)) {
        h->down_from_ns = sim_now_ns() + sim_draw(600 * SIM_S);
        h->down_until_ns = h->down_from_ns + sim_draw(3600 * SIM_S);
        h->down_hole = sim_chance(400);
    }
}

static void site_make(struct world_site *s, uint32_t index)
{
    *s = (struct world_site){.first_host = world.hosts_len,
                             .implicit = sim_chance(250),
                             .kind = sim_chance(500),
                             .swift = sim_chance(300)};
    if (!s->implicit && sim_chance(350))
        s->route = (enum world_route)draw(ROUTE_LMTP, ROUTES - 1);
    snprintf(s->name, sizeof(s->name), "s%u.test", index);
    s->hosts = s->implicit || (s->route != ROUTE_NONE && s->route != ROUTE_MX) ? 1 : draw(1, 3);
    for (uint32_t i = 0; i < s->hosts; i++)
        host_make(&world.hosts[world.hosts_len++], s, index);
    for (int i = 0; i < 2; i++) {
        s->sessions_max[i] = sim_chance(500) ? draw(1, 4) : draw(5, 30);
        s->interval_ms[i] = s->swift && sim_chance(500) ? draw(50, 3000) : 0;
    }
    for (int i = 0; i < 2; i++) {
        s->total_sessions_max[i] = sim_chance(300) ? draw(1, 10) : 0;
        s->total_interval_ms[i] = s->swift && sim_chance(300) ? draw(50, 1500) : 0;
    }
    if (!world.reload) {
        s->sessions_max[1] = s->sessions_max[0];
        s->interval_ms[1] = s->interval_ms[0];
        s->total_sessions_max[1] = s->total_sessions_max[0];
        s->total_interval_ms[1] = s->total_interval_ms[0];
    }
}

static void domain_make(struct world_domain *d, uint32_t index)
{
    *d = (struct world_domain){.site = draw(0, world.sites_len - 1)};
    d->site_later = d->site;
    snprintf(d->name, sizeof(d->name), "d%u.test", index);
    if (index < world.sites_len && world.sites[index].implicit) {
        d->kind = ZONE_IMPLICIT;
        d->site = d->site_later = index;
        memcpy(d->name, world.sites[index].name, sizeof(d->name));
    } else if (world.sites[d->site].route != ROUTE_NONE) {
        d->kind = ZONE_ROUTED;
    } else if (sim_chance(120)) {
        d->kind = (enum zone_kind)draw(ZONE_NXDOMAIN, ZONE_SERVFAIL);
    } else if (sim_chance(200)) {
        d->site_later = draw(0, world.sites_len - 1);
        d->moves_ns = sim_now_ns() + sim_draw(1800 * SIM_S);
    }
    /* A domain with MX records points to exchangers with names of their own. */
    for (uint32_t *s = &d->site; d->kind == ZONE_MX && s <= &d->site_later; s++)
        while (world.sites[*s].implicit || world.sites[*s].route != ROUTE_NONE)
            *s = (*s + 1) % world.sites_len;
    if (sim_chance(150))
        d->flaky_until_ns = sim_now_ns() + sim_draw(1200 * SIM_S);
}

static void sources_make(void)
{
    static const char *const selections[] = {"weighted", "domain", "campaign"};

    world.sources_len = sim_chance(400) ? 0 : draw(1, WORLD_SOURCES_MAX);
    for (uint32_t i = 0; i < world.sources_len; i++) {
        struct world_source *s = &world.sources[i];

        s->weight = sim_chance(500) ? 1 : draw(1, 100);
        if (sim_chance(250)) {
            s->away_from_ns = sim_now_ns() + sim_draw(600 * SIM_S);
            s->away_until_ns = s->away_from_ns + sim_draw(1800 * SIM_S);
            s->routeless = sim_chance(500);
        }
    }
    world.overflow = sim_chance(500);
    world.selection = selections[sim_draw(3)];
}

static void engine_make(void)
{
    world.workers = draw(1, 4);
    world.shards = draw(1, 5);
    world.map_mib = 16;
    world.window = sim_chance(500) ? 10 : draw(11, 500);
    world.fds_max = sim_chance(150) ? draw(30, 60) : 10000;
    world.memory_max = sim_chance(400) ? draw(20000, 300000) : 64u << 20;
    world.pipelining = sim_chance(800);
    world.chunking = sim_chance(700);
    world.reload = sim_chance(300);
    world.rereads = sim_chance(400) ? draw(1, 30) : 0;
    world.lifetime_s = sim_chance(100) ? draw(0, 60) : draw(600, 14400);
    world.notice_lifetime_s = draw(300, 7200);
    world.retry_max_s = draw(20, 1200);
    world.crashes = sim_chance(500) ? draw(1, 3) : 0;
    world.admin_jobs = sim_chance(400) ? draw(1, 40) : 0;
    world.suspensions = sim_chance(500) ? draw(1, 30) : 0;
    world.commit_fault_phases = sim_chance(250) ? draw(1, 3) : 0;
    world.refusals = sim_chance(150);
    world.map_filled = sim_chance(world_full ? 1000 : 200) ? draw(13600, 14300) << 10 : 0;
    world.pin_phases = world.map_filled != 0 && sim_chance(600) ? draw(1, 3) : 0;
    /* Slow turns: much comes at once, commits and loads among it. */
    world.turn_ns = sim_chance(400) ? sim_between(SIM_MS, 50 * SIM_MS) : 60 * SIM_US;
    /* Now and then a worker's thread gets no CPU for a while, and the others do. */
    world.stall_ns = sim_chance(300) ? 3 * SIM_S : 100 * SIM_MS;
    world.disk_ns = sim_between(50 * SIM_US, 20 * SIM_MS);
    world.senders = draw(1, 8);
    world.messages = draw(5, 150);
    world.rcpts_max = sim_chance(500) ? 1 : sim_chance(700) ? draw(2, 20) : 200;
    if (world.rcpts_max == 200 && world.messages > MANY_MESSAGES)
        world.messages = MANY_MESSAGES;
    world.clock_jump_s = sim_chance(250) ? draw(60, sim_chance(300) ? 172800 : 14400) : 0;
    world.not_before_s_max = sim_chance(200) ? 1800 : 0;
    world.load_ns = sim_between(SIM_S, 900 * SIM_S);
    path_make(&world.sender_path, sim_chance(500));
}

/* Nothing else happens. */
static void calm_make(void)
{
    world.fds_max = 10000;
    world.memory_max = 64u << 20;
    world.reload = world.refusals = false;
    world.crashes = world.admin_jobs = world.suspensions = world.commit_fault_phases = 0;
    world.rereads = world.pin_phases = 0;
    world.map_filled = 0;
    world.clock_jump_s = world.not_before_s_max = 0;
    world.lifetime_s = 14400;
    world.stall_ns = 100 * SIM_MS;
    world.turn_ns = 60 * SIM_US;
    world.rcpts_max = 1;
}

/* A site that takes only so much, and nothing else that could disturb who gets how much of it. */
static void crowd_site_make(uint32_t index)
{
    struct world_site *s = &world.sites[index];

    s->kind = s->swift = true;
    for (uint32_t i = 0; i < s->hosts; i++) {
        struct world_host *h = &world.hosts[s->first_host + i];

        host_make(h, s, index);
        h->deaf_v6 = false;
        h->messages_max = 0;
        h->rcpts_max = 1000;
    }
    for (int i = 0; i < 2; i++) {
        s->sessions_max[i] = draw(5, 30);
        s->interval_ms[i] = s->total_sessions_max[i] = 0;
        s->total_interval_ms[i] = draw(20, 50);
    }
    s->total_interval_ms[1] = s->total_interval_ms[0];
}

static void crowd_make(uint32_t site)
{
    struct world_domain *d = &world.domains[world.domains_len];

    crowd_site_make(site);
    *d = (struct world_domain){.name = "crowd.test", .kind = ZONE_MX};
    d->site = d->site_later = site;
    world.crowd_domain = world.domains_len++;
    for (uint32_t i = 0; i < WORLD_TENANTS; i++)
        world.weights[i] = draw(1, 8);
    world.workers = draw(1, 2);
    world.shards = draw(2, 5);
    world.window = 500;
    calm_make();
    world.sources_len = 0;
    world.disk_ns = sim_between(50 * SIM_US, 3 * SIM_MS);
    world.senders = 8;
    world.messages = 600;
    world.load_ns = SIM_S;
    path_make(&world.sender_path, true);
}

#define RECOVERY_SESSIONS 6

static void recovery_make(void)
{
    struct world_site *s = &world.sites[0];
    struct world_host *h = &world.hosts[0];

    engine_make();
    calm_make();
    /* A slow disk: what is under way when a pause is asked for ends before that is stored. */
    world.disk_ns = world_domains ? 100 * SIM_MS : SIM_MS;
    world.retry_max_s = draw(20, 300);
    world.messages = 1000;
    world.load_ns = 10 * SIM_S;
    world.sites_len = world.hosts_len = 1;
    *s = (struct world_site){.name = "s0.test", .hosts = 1, .kind = true};
    *h = (struct world_host){.v4 = true, .rcpts_max = 1000, .no_chunking = sim_chance(500)};
    h->path = (struct net_path){.latency_ns =
                                    sim_between(20 * SIM_MS, (world_domains ? 50 : 100) * SIM_MS),
                                .segment_max = 9000,
                                .window = 262144};
    h->messages_max = sim_chance(500) ? 0 : draw(5, 20);
    for (int i = 0; i < 2; i++)
        s->sessions_max[i] = RECOVERY_SESSIONS;
    world.domains_len = draw(world_domains ? 2 : 1, world_domains ? 3 : 5);
    for (uint32_t i = 0; world_domains && i < 2; i++)
        world.sources[world.sources_len++].weight = 1;
    world.selection = "weighted";
    for (uint32_t i = 0; i < world.domains_len; i++) {
        world.domains[i] = (struct world_domain){.kind = ZONE_MX};
        snprintf(world.domains[i].name, sizeof(world.domains[i].name), "d%u.test", i);
    }
}

static void newsletter_make(void)
{
    warmth_clock();
    world.workers = world.shards = 2;
    world.window = 500;
    world.senders = 8;
    world.messages = WARMTH_MESSAGES;
    world.rcpts_max = WARMTH_RCPTS;
    world.load_ns = 600 * SIM_S;
    world.lifetime_s = 30 * 86400;
    world.sources_len = WARMTH_SOURCES;
    world.sites_len = WARMTH_PROVIDERS;
}

static void season_make(void)
{
    season_clock();
    world.workers = 1;
    world.shards = 2;
    world.window = 10;
    world.senders = 2;
    world.messages = UINT32_MAX; /* until the season is over */
    world.load_ns = season_days * UINT64_C(86400) * SIM_S;
    world.lifetime_s = 5 * 86400;
    world.retry_max_s = 1200;
    world.sources_len = SEASON_SOURCES + 1;
    world.sites_len = SEASON_PROVIDERS;
}

/* Providers that are well. */
static void warmup_make(void)
{
    engine_make();
    calm_make();
    world.map_mib = 512;
    world.disk_ns = SIM_MS;
    if (world_season)
        season_make();
    else
        newsletter_make();
    for (uint32_t i = 0; i < world.sites_len; i++) {
        struct world_site *s = &world.sites[i];

        *s = (struct world_site){.first_host = i, .hosts = 1, .kind = !world_season};
        snprintf(s->name, sizeof(s->name), "s%u.test", i);
        s->sessions_max[0] = s->sessions_max[1] = 20;
        world.hosts[i] = (struct world_host){.site = i, .v4 = true, .rcpts_max = 1000};
        world.hosts[i].path =
            (struct net_path){.latency_ns = 20 * SIM_MS, .segment_max = 9000, .window = 262144};
        world.domains[i] = (struct world_domain){.kind = ZONE_MX, .site = i, .site_later = i};
        snprintf(world.domains[i].name, sizeof(world.domains[i].name), "d%u.test", i);
    }
    world.hosts_len = world.domains_len = world.sites_len;
}

void world_make(void)
{
    uint32_t sites = draw(2, 10), plain;

    if (world_warmup) {
        warmup_make();
        return;
    }
    if (world_recovery) {
        recovery_make();
        return;
    }
    engine_make();
    sources_make();
    while (world.sites_len < sites) {
        site_make(&world.sites[world.sites_len], world.sites_len);
        world.sites_len++;
    }
    plain = draw(0, sites - 1); /* one at least can have MX records */
    world.sites[plain].implicit = false;
    world.sites[plain].route = ROUTE_NONE;
    world.domains_len = sites + draw(0, 20);
    for (uint32_t i = 0; i < world.domains_len; i++)
        domain_make(&world.domains[i], i);
    if (world_crowd)
        crowd_make(plain);
}

uint32_t world_domain_draw(void)
{
    uint32_t domain, site = world.domains[world.crowd_domain].site;

    for (int tries = 0; tries < 20; tries++) {
        domain = draw(0, world.domains_len - 1);
        if (!world_crowd ||
            (world.domains[domain].site != site && world.domains[domain].site_later != site))
            return domain;
    }
    return world.crowd_domain;
}

/* --- addresses --- */

static uint16_t host_port(const struct world_host *host)
{
    static const uint16_t ports[ROUTES] = {[ROUTE_NONE] = WORLD_PORT_OUT,
                                           [ROUTE_LMTP] = WORLD_PORT_LMTP,
                                           [ROUTE_ADDRESS] = WORLD_PORT_ROUTE,
                                           [ROUTE_HOST] = WORLD_PORT_ROUTE,
                                           [ROUTE_MX] = WORLD_PORT_OUT};

    return ports[world.sites[host->site].route];
}

void world_address(const struct world_host *host, bool v6, struct sockaddr_storage *addr)
{
    struct sockaddr_in *in = (void *)addr;
    struct sockaddr_in6 *in6 = (void *)addr;
    uint32_t index = (uint32_t)(host - world.hosts) + 1;

    memset(addr, 0, sizeof(*addr));
    if (v6) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(host_port(host));
        in6->sin6_addr.s6_addr[0] = 0xfd;
        in6->sin6_addr.s6_addr[15] = (uint8_t)index;
    } else {
        in->sin_family = AF_INET;
        in->sin_port = htons(host_port(host));
        in->sin_addr.s_addr = htonl(0x0a000000 + index);
    }
}

uint32_t world_source_at(const struct sockaddr *addr)
{
    const struct sockaddr_in *in = (const void *)addr;
    const struct sockaddr_in6 *in6 = (const void *)addr;
    uint32_t index = addr->sa_family == AF_INET6 ? in6->sin6_addr.s6_addr[15]
                                                 : ntohl(in->sin_addr.s_addr) & 0xff;

    if (world.sources_len == 0)
        return 0;
    ASSERT(index >= 1 && index <= world.sources_len);
    return index - 1;
}

static bool is_away(const struct world_source *s)
{
    return sim_now_ns() >= s->away_from_ns && sim_now_ns() < s->away_until_ns;
}

bool world_source_here(uint32_t source)
{
    return world.sources[source].routeless || !is_away(&world.sources[source]);
}

bool world_source_routed(uint32_t source)
{
    return world.sources_len == 0 || !world.sources[source].routeless ||
           !is_away(&world.sources[source]);
}

struct world_host *world_host_at(const struct sockaddr *addr)
{
    const struct sockaddr_in *in = (const void *)addr;
    const struct sockaddr_in6 *in6 = (const void *)addr;
    uint32_t index = addr->sa_family == AF_INET6 ? in6->sin6_addr.s6_addr[15]
                                                 : ntohl(in->sin_addr.s_addr) & 0xff;

    ASSERT(index >= 1 && index <= world.hosts_len);
    return &world.hosts[index - 1];
}

void world_path(const struct sockaddr *to, struct net_path *path)
{
    const struct world_host *h = world_host_at(to);

    *path = h->path;
    if (sim_now_ns() >= h->down_from_ns && sim_now_ns() < h->down_until_ns) {
        path->down = !h->down_hole;
        path->hole = h->down_hole;
    }
    if (h->deaf_v6 && to->sa_family == AF_INET6)
        path->hole = true;
}

/* --- zones --- */

static uint32_t site_now(const struct world_domain *d)
{
    return d->moves_ns != 0 && sim_now_ns() >= d->moves_ns ? d->site_later : d->site;
}

static void answer_address(const struct world_host *h, enum dns_type type,
                           struct dns_answer *answer, struct dns_record records[])
{
    struct sockaddr_storage addr;

    if ((type != DNS_TYPE_A || !h->v4) && (type != DNS_TYPE_AAAA || !h->v6)) {
        answer->status = DNS_ANSWER_NO_DATA;
        return;
    }
    world_address(h, type == DNS_TYPE_AAAA, &addr);
    if (type == DNS_TYPE_AAAA)
        records[0].aaaa = ((struct sockaddr_in6 *)(void *)&addr)->sin6_addr;
    else
        records[0].a = ((struct sockaddr_in *)(void *)&addr)->sin_addr;
    answer->records_len = 1;
}

static void answer_mx(const struct world_site *s, struct dns_answer *answer,
                      struct dns_record records[], struct buf *memory)
{
    static const uint16_t preferences[3] = {10, 10, 20};

    for (uint32_t i = 0; i < s->hosts; i++) { /* offsets first: memory moves as it grows */
        records[i].mx.exchanger = (const char *)memory->len;
        records[i].mx.preference = preferences[i];
        buf_printf(memory, "mx%u.%s", i, s->name);
        buf_putc(memory, '\0');
    }
    for (uint32_t i = 0; i < s->hosts; i++)
        records[i].mx.exchanger = (const char *)memory->data + (size_t)records[i].mx.exchanger;
    answer->records_len = s->hosts;
}

static void answer_domain(const struct world_domain *d, enum dns_type type,
                          struct dns_answer *answer, struct dns_record records[],
                          struct buf *memory)
{
    if (sim_now_ns() < d->flaky_until_ns && sim_chance(700)) {
        answer->status = DNS_ANSWER_FAILED;
        answer->error = "SERVFAIL";
        return;
    }
    switch (d->kind) {
    case ZONE_MX:
        if (type == DNS_TYPE_MX)
            answer_mx(&world.sites[site_now(d)], answer, records, memory);
        else
            answer->status = DNS_ANSWER_NO_DATA;
        break;
    case ZONE_IMPLICIT:
        if (type == DNS_TYPE_MX)
            answer->status = DNS_ANSWER_NO_DATA;
        else
            answer_address(&world.hosts[world.sites[d->site].first_host], type, answer, records);
        break;
    case ZONE_NULL_MX:
        records[0].mx.exchanger = "";
        answer->records_len = type == DNS_TYPE_MX;
        answer->status = type == DNS_TYPE_MX ? DNS_ANSWER_RECORDS : DNS_ANSWER_NO_DATA;
        break;
    case ZONE_SERVFAIL:
        answer->status = DNS_ANSWER_FAILED;
        answer->error = "timeout";
        break;
    case ZONE_ROUTED:
    case ZONE_NXDOMAIN:
    case ZONE_KINDS:
        answer->status = DNS_ANSWER_NO_DOMAIN;
        break;
    }
}

void world_dns(const char *name, enum dns_type type, struct dns_answer *answer,
               struct dns_record records[], struct buf *memory)
{
    unsigned host, site;
    int end = 0;

    *answer = (struct dns_answer){.status = DNS_ANSWER_RECORDS, .ttl_s = TTL_S, .records = records};
    for (uint32_t i = 0; i < world.domains_len; i++) {
        if (strcmp(world.domains[i].name, name) == 0) {
            answer_domain(&world.domains[i], type, answer, records, memory);
            return;
        }
    }
    if (sscanf(name, "mx%u.s%u.test", &host, &site) == 2 && site < world.sites_len &&
        host < world.sites[site].hosts) {
        if (type == DNS_TYPE_MX)
            answer->status = DNS_ANSWER_NO_DATA;
        else
            answer_address(&world.hosts[world.sites[site].first_host + host], type, answer,
                           records);
        return;
    }
    if (sscanf(name, "s%u.test%n", &site, &end) == 1 && end > 0 && name[end] == 0 &&
        site < world.sites_len && world.sites[site].route == ROUTE_MX) {
        if (type == DNS_TYPE_MX)
            answer_mx(&world.sites[site], answer, records, memory);
        else
            answer->status = DNS_ANSWER_NO_DATA;
        return;
    }
    answer->status = DNS_ANSWER_NO_DOMAIN;
}

/* --- configuration --- */

/* "10.0.0.1" or "[fd00::1]". */
static void put_literal(const struct world_host *h, bool brackets, const char *tag, struct buf *out)
{
    struct sockaddr_storage addr;
    char text[INET6_ADDRSTRLEN];
    bool v6 = !h->v4;

    world_address(h, v6, &addr);
    if (v6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)(void *)&addr)->sin6_addr, text, sizeof(text));
    else
        inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)&addr)->sin_addr, text, sizeof(text));
    buf_printf(out, v6 || brackets ? "[%s%s]" : "%s%s", tag, text);
}

static void put_route(const struct world_site *s, struct buf *out)
{
    const struct world_host *h = &world.hosts[s->first_host];

    switch (s->route) {
    case ROUTE_LMTP:
        buf_puts(out, "lmtp:");
        put_literal(h, false, "", out);
        buf_printf(out, ":%u", WORLD_PORT_LMTP);
        break;
    case ROUTE_ADDRESS:
        put_literal(h, true, "", out);
        buf_printf(out, ":%u", WORLD_PORT_ROUTE);
        break;
    case ROUTE_HOST:
        buf_printf(out, "[mx0.%s]:%u", s->name, WORLD_PORT_ROUTE);
        break;
    case ROUTE_MX:
        buf_puts(out, s->name);
        break;
    case ROUTE_NONE:
    case ROUTES:
        break;
    }
}

/* What names a site in destinations. "[IPv6:" is how a literal route calls itself. */
static void put_pattern(const struct world_site *s, struct buf *out)
{
    const struct world_host *h = &world.hosts[s->first_host];

    switch (s->route) {
    case ROUTE_LMTP:
        buf_puts(out, "site:");
        put_literal(h, false, "", out);
        buf_printf(out, ":%u", WORLD_PORT_LMTP);
        break;
    case ROUTE_ADDRESS:
        buf_puts(out, "site:");
        put_literal(h, true, h->v4 ? "" : "IPv6:", out);
        buf_printf(out, ":%u", WORLD_PORT_ROUTE);
        break;
    case ROUTE_HOST:
        buf_printf(out, "site:*%s:%u", s->name, WORLD_PORT_ROUTE);
        break;
    case ROUTE_NONE:
    case ROUTE_MX:
    case ROUTES:
        buf_printf(out, "site:*%s", s->name);
        break;
    }
}

static void config_site(const struct world_site *s, bool reloaded, struct buf *out)
{
    buf_puts(out, "  \"");
    if (s->implicit)
        buf_puts(out, s->name);
    else
        put_pattern(s, out);
    buf_puts(out, "\":\n");
    buf_printf(out, "    sessions_max: %u\n",
               s->sessions_max[reloaded] * (sim_sabotage == SABOTAGE_SESSIONS ? 3 : 1));
    if (s->interval_ms[reloaded] != 0)
        buf_printf(out, "    rate: %u/%ums\n", sim_sabotage == SABOTAGE_RATE ? 3 : 1,
                   s->interval_ms[reloaded]);
    if (s->total_sessions_max[reloaded] != 0)
        buf_printf(out, "    total_sessions_max: %u\n", s->total_sessions_max[reloaded]);
    if (s->total_interval_ms[reloaded] != 0)
        buf_printf(out, "    total_rate: 1/%ums\n", s->total_interval_ms[reloaded]);
}

/* All mail goes by all sources, but that of two tenants. */
static void config_sources(struct buf *out)
{
    if (world_crowd) {
        buf_puts(out, "tenants:\n");
        for (uint32_t i = 0; i < WORLD_TENANTS; i++)
            buf_printf(out, "  t%u: {weight: %u}\n", i,
                       sim_sabotage == SABOTAGE_WEIGHTS ? 1 : world.weights[i]);
    }
    if (world_season)
        season_config(out);
    else if (world_warmup)
        warmth_config(out);
    if (world.sources_len == 0 || world_warmup)
        return;
    buf_puts(out, "sources:\n");
    for (uint32_t i = 0; i < world.sources_len; i++)
        buf_printf(out,
                   "  a%u: {ipv4: 10.9.0.%u, ipv6: \"fd09::%x\", ehlo_name: a%u.engine.test}\n", i,
                   i + 1, i + 1, i);
    buf_puts(out, "pools:\n  all:\n    sources:\n");
    for (uint32_t i = 0; i < world.sources_len; i++)
        buf_printf(out, "      a%u: {weight: %u}\n", i, world.sources[i].weight);
    buf_puts(out, "  few:\n    sources: {a0: {weight: 1}");
    if (world.sources_len > 2)
        buf_puts(out, ", a1: {weight: 2}");
    buf_printf(out, "}\n    selection: %s\n", world.selection);
    if (world.overflow)
        buf_puts(out, "    overflow: all\n");
    buf_puts(out, "default_pool: all\ntenants:\n  t0: {pool: few}\n  t1: {pool: few}\n");
}

void world_config(const char *dir, bool reloaded, struct buf *out)
{
    const char *yes[] = {"no", "yes"};

    buf_printf(out,
               "host_name: engine.test\nworkers: %u\nlog_level: error\n"
               "queue: {path: %s/queue, shards: %u, map_size: %uMiB, window: %u}\n"
               "records: {path: %s/records, retention: none}\n"
               "dns: {servers: [\"127.0.0.1:53\"], timeout: 1s, tries: 2}\n"
               "bounce: {return_headers_only: yes}\n"
               "listeners:\n  - {listen: \"127.0.0.1:%u\", idle_timeout: %us}\n"
               "destinations:\n",
               world.workers, dir, world.shards, world.map_mib, world.window, dir, WORLD_PORT_IN,
               /* applications of a season wait for hours, and would open a session each minute */
               world_season ? 3600
               : reloaded   ? 100
                            : 60);
    for (uint32_t i = 0; i < world.sites_len; i++)
        config_site(&world.sites[i], reloaded, out);
    buf_printf(out,
               "  \"*\":\n    sessions_max: 20\n    session_messages_max: %u\n"
               "    pipelining: %s\n    chunking: %s\n    pipeline_max: %u\n    idle: %ums\n"
               "    recipients_max: %u\n"
               "    lifetime: %us\n    notice_lifetime: %us\n    warn_after: %us\n"
               "    retry: {first: %us, max: %us, jitter: %u%%}\n"
               "    timeouts: {connect: 20s, banner: 60s, ehlo: 60s, mail: 60s, rcpt: 60s, "
               "data: 60s, body: 60s, dot: 120s, quit: 2s}\n",
               draw(1, 100), yes[world.pipelining], yes[world.chunking], draw(1, 8), draw(0, 8000),
               world_warmup ? 100 : draw(1, 100), world.lifetime_s, world.notice_lifetime_s,
               draw(60, 3600), draw(1, world.retry_max_s), world.retry_max_s, draw(0, 100));
    if (world_signs)
        buf_printf(out,
                   "dkim:\n  default: engine.test\n  keys:\n"
                   "    - {domain: engine.test, selector: s, file: %s/%s}\n",
                   dir, WORLD_KEY_FILE);
    if (world_recovery) /* the shipped rules are read for its exchangers */
        buf_printf(out, "providers: {google: {mx: [s0.test], sessions_max: %u}}\n",
                   RECOVERY_SESSIONS);
    config_sources(out);
    buf_puts(out, "routes:\n  none.test: reject\n");
    for (uint32_t i = 0; i < world.domains_len; i++) {
        if (world.domains[i].kind != ZONE_ROUTED)
            continue;
        buf_printf(out, "  %s: \"", world.domains[i].name);
        put_route(&world.sites[world.domains[i].site], out);
        buf_puts(out, "\"\n");
    }
}

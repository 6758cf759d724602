/* The world around the engine, drawn from the seed: sites of hosts with their manners, domains and
 * their zones, the engine's configuration. Fixed from then on, but for what is a function of
 * time. */
#ifndef HAYAUMA_TESTS_SIM_WORLD_H
#define HAYAUMA_TESTS_SIM_WORLD_H

#include <netinet/in.h>

#include "base/buf.h"
#include "dns/dns_upstream.h"
#include "tests/sim/net.h"

#define WORLD_HOSTS_MAX   64
#define WORLD_SITES_MAX   24
#define WORLD_DOMAINS_MAX 48
#define WORLD_SOURCES_MAX 5
#define WORLD_TENANTS     3 /* "t0", "t1", ...; and as many campaigns, "c0", ... */
#define WORLD_PORT_IN     2525
#define WORLD_PORT_OUT    25
#define WORLD_PORT_LMTP   24
#define WORLD_PORT_ROUTE  2500

/* What a server may do at a stage; per mille each. */
struct manners {
    uint32_t defer, refuse, say_421, drop, stall;
};

enum world_stage { AT_BANNER, AT_EHLO, AT_MAIL, AT_RCPT, AT_DATA, AT_DOT, WORLD_STAGES };

struct world_host {
    uint32_t site;
    bool v4, v6;  /* addresses of either family, or both */
    bool deaf_v6; /* its IPv6 address is published and does not work */
    struct net_path path;
    struct manners manners[WORLD_STAGES];
    uint32_t drop_after_dot, stall_after_dot; /* it was taken, but who says so */
    uint32_t garbage;                         /* instead of a reply */
    uint32_t drop_in_body;
    uint64_t answer_ns; /* time that an answer takes, at most */
    uint32_t greylist_s, sessions_max, messages_max, rcpts_max;
    bool helo_only, no_pipelining, no_chunking, no_8bitmime, no_dsn, no_limits;
    uint64_t down_from_ns, down_until_ns; /* refuses or swallows connects */
    bool down_hole;
};

/* How the engine is told to get to a site: by a static route, or not at all. */
enum world_route { ROUTE_NONE, ROUTE_LMTP, ROUTE_ADDRESS, ROUTE_HOST, ROUTE_MX, ROUTES };

struct world_site {
    char name[40]; /* of the domain that its exchangers are in */
    enum world_route route;
    uint32_t first_host, hosts;
    bool implicit; /* one host, which is the domain itself */
    bool kind;     /* never refuses anybody for good */
    bool swift;    /* no delays: its rate can be checked */
    /* By configuration, before and after the reload; of each source, and of all together. */
    uint32_t sessions_max[2], total_sessions_max[2]; /* the latter 0: no limit */
    uint32_t interval_ms[2], total_interval_ms[2];   /* between messages, 0: no rate */
};

/* An address that the engine sends from, IPv4 and IPv6. */
struct world_source {
    uint32_t weight;
    uint64_t away_from_ns, away_until_ns; /* the machine does not hold it, ... */
    bool routeless;                       /* ... or has no route from it */
};

enum zone_kind {
    ZONE_MX,
    ZONE_IMPLICIT,
    ZONE_ROUTED, /* there is no such domain, but a static route */
    ZONE_NXDOMAIN,
    ZONE_NULL_MX,
    ZONE_SERVFAIL,
    ZONE_KINDS
};

struct world_domain {
    char name[40];
    enum zone_kind kind;
    uint32_t site, site_later;
    uint64_t moves_ns, flaky_until_ns; /* flaky: SERVFAIL now and then until then */
};

struct world {
    struct world_host hosts[WORLD_HOSTS_MAX];
    struct world_site sites[WORLD_SITES_MAX];
    struct world_domain domains[WORLD_DOMAINS_MAX];
    struct world_source sources[WORLD_SOURCES_MAX];
    uint32_t hosts_len, sites_len, domains_len,
        sources_len;       /* without sources the kernel chooses */
    bool overflow;         /* the second pool has one */
    const char *selection; /* of the second pool, that of tenants t0 and t1 */
    /* In a world with a crowd: most mail is to this domain, of all tenants, by their weights. */
    uint32_t crowd_domain, weights[WORLD_TENANTS];
    /* The engine. */
    uint32_t workers, shards, window, fds_max, crashes, admin_jobs, suspensions;
    uint64_t memory_max;
    uint32_t map_mib;    /* of each shard */
    size_t map_filled;   /* bytes of the map of each shard, 16 MiB, that are gone */
    uint32_t pin_phases; /* in which an old reader keeps pages from being used again */
    bool pipelining, chunking, reload;
    uint32_t rereads; /* of the same configuration: every site is made anew, amid outages too */
    uint32_t lifetime_s, notice_lifetime_s, retry_max_s;
    uint32_t commit_fault_phases;
    bool refusals;     /* the store refuses a third of all that is settled, for a while */
    uint64_t turn_ns;  /* how long a worker's turn takes, at most, when nothing stalls */
    uint64_t stall_ns; /* and when something does */
    uint64_t disk_ns;  /* how long a commit takes, at most, when nothing stalls */
    /* The load. */
    uint32_t senders, messages, rcpts_max, not_before_s_max;
    uint32_t clock_jump_s; /* how far the clock is set ahead, and back again, in any order */
    uint64_t load_ns;      /* during which messages come */
    struct net_path sender_path;
};

extern struct world world;
/* Set before world_make(): every map is nearly full; applications pipeline many messages at once;
 * mail is signed; much mail for one domain comes at once, or there is one provider, which asks for
 * less (throttle.h), and otherwise nothing happens; a newsletter goes by new addresses (warmth.h);
 * or that, and it is mail of sixty days (season.h: world_season comes with world_warmup). */
extern bool world_full, world_bursts, world_signs, world_crowd, world_recovery, world_warmup;
extern bool world_season;
extern bool world_domains;       /* of world_recovery: it asks that of a domain */
extern uint32_t world_lanes_max; /* of a worker, in memory; 0: as many as ever */
#define WORLD_KEY_FILE "key.pem" /* in the node's directory, in a world that signs */

void world_make(void);
/* A domain; in a world with a crowd one whose mail does not go to the crowd's site, if there is
 * any. */
uint32_t world_domain_draw(void);
/* The configuration; reloaded: as it is behind the reload. */
void world_config(const char *dir, bool reloaded, struct buf *out);
/* The number of the source that an address is of; 0 where there are none. */
uint32_t world_source_at(const struct sockaddr *addr);
/* Whether the machine holds the source's address now. */
bool world_source_here(uint32_t source);
bool world_source_routed(uint32_t source);
struct world_host *world_host_at(const struct sockaddr *addr);
void world_address(const struct world_host *host, bool v6, struct sockaddr_storage *addr);
void world_path(const struct sockaddr *to, struct net_path *path);
/* Answers a question of the engine's resolver. memory: for names. */
void world_dns(const char *name, enum dns_type type, struct dns_answer *answer,
               struct dns_record records[], struct buf *memory);

#endif

/* Sources as the process has them: whether this machine holds their addresses, or their proxies
 * work, and what they have sent. One for each name with its addresses and proxy, made when first
 * asked for; it lives as long as the process, so that a reload forgets nothing. Any thread; the
 * look at addresses and proxies: the worker that has shard 0. */
#ifndef HAYAUMA_ENGINE_SOURCES_H
#define HAYAUMA_ENGINE_SOURCES_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/map.h"
#include "base/ring.h"
#include "base/socks5.h"
#include "config/config.h"
#include "worker/peer_text.h"

struct worker;

/* What a source needs, and may lack: an address of either family, or its proxy. */
enum source_part { SOURCE_IPV4, SOURCE_IPV6, SOURCE_PROXY, SOURCE_PARTS };
#define SOURCE_FAMILIES SOURCE_PROXY

struct source {
    struct map_node node;
    char *key;
    /* An address of its own (without one of either family the kernel chooses, or the proxy); a
     * proxy, of whose machine the addresses are then. */
    bool has[SOURCE_PARTS];
    bool looking;                 /* of the worker that looks: a look at the proxy is under way */
    bool looked[SOURCE_FAMILIES]; /* likewise: whether there is a route to the internet */
    struct sockaddr_storage unrouted[SOURCE_FAMILIES]; /* of sources->lock: what had no route */
    /* Written by whichever worker has news. Relaxed: each is true by itself. */
    struct {
        _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t away_ns[SOURCE_PARTS];
        _Atomic uint32_t looks[SOURCE_PARTS]; /* in vain, in a row */
        _Atomic int error[SOURCE_PARTS];      /* of the last: see source_error_text() */
        _Atomic int64_t since_ms[SOURCE_PARTS];
        /* Wall clock: since when the family has had no route, neither to `unrouted` nor to the
         * internet; 0: it has one. */
        _Atomic int64_t no_route_ms[SOURCE_FAMILIES];
        _Atomic uint32_t sessions;
        _Atomic uint64_t messages, connects, connect_failures;
    } shared;
};

struct sources {
    pthread_mutex_t lock; /* of by_key, and of each source's unrouted */
    struct map by_key;
    _Atomic uint32_t changed;        /* how often a part went, or came back; relaxed: a hint */
    _Atomic uint32_t routes_changed; /* how often some of this host's may have; likewise */
};

int sources_init(struct sources *s) MUST_USE;
/* A zeroed one is accepted. */
void sources_done(struct sources *s);
struct source *sources_get(struct sources *s, const struct config_source *of);

/* -1: not of a family that has sources. */
int source_family(sa_family_t family);
/* The source's own address of the family part, or len 0. */
const struct config_address *source_own_address(const struct config_source *of,
                                                enum source_part part);
/* The address of this machine to bind for the family, or NULL: the kernel chooses. */
const struct config_address *source_address(const struct config_source *of, sa_family_t family);
/* Monotonic, not 0: this machine does not hold the address, or the proxy does not work, and a look
 * may be taken then. */
static inline uint64_t source_away_ns(const struct source *s, enum source_part part)
{
    return atomic_load_explicit(&s->shared.away_ns[part], memory_order_relaxed);
}
/* Since when; wall clock. */
static inline int64_t source_since_ms(const struct source *s, enum source_part part)
{
    return atomic_load_explicit(&s->shared.since_ms[part], memory_order_relaxed);
}
/* A bit for each family that s can send over now: 1 << SOURCE_IPV4, 1 << SOURCE_IPV6. */
uint8_t source_families(const struct source *s);
/* When the first of its parts that are away is looked for; 0: none is. Monotonic. */
uint64_t source_look_ns(const struct source *s);
/* The part of s could not be used: an address not bound, or the proxy not reached, err (-errno, or
 * of socks5_error_text()). It is left out, and looked for at growing intervals. Logs the first
 * time. */
void source_missing(struct source *s, const struct config_source *of, enum source_part part,
                    int err, struct worker *w);
/* A look found the part there. Logs that it is back. */
void source_found(struct source *s, const struct config_source *of, enum source_part part,
                  struct worker *w);
/* This host has no route from s to `to`, an IP address. True: nor to the internet, and s has an
 * address of the family: the family is lost, at all sites that have no route of their own. It is
 * looked for once a second. Logs the first time. */
bool source_no_route(struct source *s, const struct config_source *of, const struct sockaddr *to,
                     struct worker *w);
/* A connect over the family has found a route. */
void source_connected(struct source *s, sa_family_t family);
/* Whether this host has a route from the source to `to`, an IP address. */
bool source_has_route(const struct config_source *of, const struct sockaddr *to, struct worker *w);
/* A bit for each family that is lost, as source_families() has them. */
uint8_t source_families_lost(const struct source *s);
/* What had no route over the family that has none, into out; empty: it has one. */
void source_unrouted_text(struct sources *all, const struct source *s, enum source_part part,
                          char out[PEER_TEXT_BYTES]);
void source_error_text(int err, char out[SOCKS5_TEXT]);
/* "socks5 10.0.0.5:1080", of one that has a proxy. */
#define SOURCE_PROXY_TEXT 128
void source_proxy_text(const struct config_source *of, char out[SOURCE_PROXY_TEXT]);

/* In the worker that has shard 0: looks at all addresses and proxies of w->config now, and from
 * then on once a second at those that are away and at families that are lost; at all addresses as
 * soon as some of this host's have changed. That routes have it tells all workers, within seconds.
 * Called again behind a reload. */
void sources_look_begin(struct worker *w);
void sources_look(struct worker *w);
void sources_look_end(struct worker *w);

#endif

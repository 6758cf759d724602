/* Sources as the process has them: whether this machine holds their addresses, and what they have
 * sent. One for each name with its addresses, made when first asked for; it lives as long as the
 * process, so that a reload forgets nothing. Any thread; the look at addresses: the worker that has
 * shard 0. */
#ifndef HAYAUMA_ENGINE_SOURCES_H
#define HAYAUMA_ENGINE_SOURCES_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/map.h"
#include "base/ring.h"
#include "config/config.h"

struct worker;

enum source_family { SOURCE_IPV4, SOURCE_IPV6, SOURCE_FAMILIES };

struct source {
    struct map_node node;
    char *key;
    bool has[SOURCE_FAMILIES]; /* an address of its own; none at all: the kernel chooses */
    /* Written by whichever worker has news. Relaxed: each is true by itself. */
    struct {
        _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t away_ns[SOURCE_FAMILIES];
        _Atomic uint32_t looks[SOURCE_FAMILIES]; /* in vain, in a row */
        _Atomic int error[SOURCE_FAMILIES];      /* -errno of the last */
        _Atomic int64_t since_ms[SOURCE_FAMILIES];
        _Atomic uint32_t sessions;
        _Atomic uint64_t messages, connects, connect_failures;
    } shared;
};

struct sources {
    pthread_mutex_t lock; /* of by_key */
    struct map by_key;
    _Atomic uint32_t changed; /* how often an address went, or came back; relaxed: a hint */
};

int sources_init(struct sources *s) MUST_USE;
/* A zeroed one is accepted. */
void sources_done(struct sources *s);
struct source *sources_get(struct sources *s, const struct config_source *of);

/* -1: not of a family that has sources. */
int source_family(sa_family_t family);
/* The address to bind for the family, or NULL: the kernel chooses. */
const struct config_address *source_address(const struct config_source *of, sa_family_t family);
/* Monotonic, not 0: this machine does not hold the address, and a look may be taken then. */
static inline uint64_t source_away_ns(const struct source *s, enum source_family family)
{
    return atomic_load_explicit(&s->shared.away_ns[family], memory_order_relaxed);
}
/* A bit for each family that s can send over now: 1 << SOURCE_IPV4, 1 << SOURCE_IPV6. */
uint8_t source_families(const struct source *s);
/* When the first of its addresses that are away is looked for; 0: none is. Monotonic. */
uint64_t source_look_ns(const struct source *s);
/* The address of s for family could not be bound: err. It is left out, and looked for at growing
 * intervals. Logs the first time. */
void source_missing(struct source *s, const struct config_source *of, enum source_family family,
                    int err, struct worker *w);

/* In the worker that has shard 0: looks at all addresses of w->config now, and from then on once a
 * second at those that are away. Called again behind a reload. */
void sources_look(struct worker *w);
void sources_look_end(struct worker *w);

#endif

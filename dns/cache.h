/* Routes by (name, host only), bounded in number and in bytes: at a limit an entry goes that was
 * not used since its last turn (second chance: a hit sets a bit and touches no other entry). Pure
 * but for malloc. One thread.
 *
 * An expired entry stays until it is replaced or evicted: a route that was good serves on, for a
 * while, when the resolver is of no help (RFC 8767). */
#ifndef HAYAUMA_DNS_CACHE_H
#define HAYAUMA_DNS_CACHE_H

#include "base/list.h"
#include "base/map.h"
#include "dns/dns.h"

struct cache {
    struct map map;
    struct list turns; /* in the order in which they are looked at when one must go */
    uint32_t entries, entries_max;
    uint64_t bytes; /* of entries and their routes; at most DNS_ENTRY_BYTES * entries_max */
    uint64_t evictions;
    uint64_t hash_seed;
};

int cache_init(struct cache *cache, uint32_t entries_max, uint64_t hash_seed) MUST_USE;
void cache_done(struct cache *cache);
/* The key's hash, for cache_find() and cache_put(). */
uint64_t cache_hash(const struct cache *cache, struct str name, bool host_only);
/* Borrowed; also when expired; NULL when there is none. Counts as a use. */
struct dns_route *cache_find(struct cache *cache, uint64_t hash, struct str name, bool host_only);
/* Keeps a reference of route in place of what was there. Without memory nothing is kept. */
void cache_put(struct cache *cache, uint64_t hash, struct str name, bool host_only,
               struct dns_route *route);
void cache_flush(struct cache *cache);

#endif

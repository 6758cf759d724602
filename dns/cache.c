#include "dns/cache.h"

#include <stdlib.h>

#define BUCKETS_INITIAL 1024
#define CHANCES_MAX     16

struct entry {
    struct map_node map_node;
    struct list_node turn_node;
    struct dns_route *route;
    bool host_only;
    bool used;        /* since its last turn */
    uint8_t name_len; /* at most DNS_NAME_MAX */
    char name[];
};

int cache_init(struct cache *cache, uint32_t entries_max, uint64_t hash_seed)
{
    ASSERT(entries_max > 0);
    *cache = (struct cache){.entries_max = entries_max, .hash_seed = hash_seed};
    list_init(&cache->turns);
    return map_init(&cache->map, BUCKETS_INITIAL);
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof(*e) + e->name_len + e->route->bytes;
}

static void entry_drop(struct cache *cache, struct entry *e)
{
    ASSERT(cache->bytes >= entry_bytes(e));
    cache->bytes -= entry_bytes(e);
    map_remove(&cache->map, &e->map_node);
    list_remove(&e->turn_node);
    dns_route_unref(e->route);
    free(e);
    cache->entries--;
}

void cache_flush(struct cache *cache)
{
    struct list_node *node;

    while ((node = list_first(&cache->turns)) != NULL)
        entry_drop(cache, LIST_ENTRY(node, struct entry, turn_node));
}

void cache_done(struct cache *cache)
{
    cache_flush(cache);
    map_done(&cache->map);
}

uint64_t cache_hash(const struct cache *cache, struct str name, bool host_only)
{
    return hash_bytes(name.ptr, name.len, cache->hash_seed + host_only);
}

static struct entry *entry_find(const struct cache *cache, uint64_t hash, struct str name,
                                bool host_only)
{
    struct map_node *node = map_find(&cache->map, hash);

    for (; node != NULL; node = map_find_next(node)) {
        struct entry *e = CONTAINER_OF(node, struct entry, map_node);

        if (e->host_only == host_only && str_eq((struct str){e->name, e->name_len}, name))
            return e;
    }
    return NULL;
}

struct dns_route *cache_find(struct cache *cache, uint64_t hash, struct str name, bool host_only)
{
    struct entry *e = entry_find(cache, hash, name, host_only);

    if (e == NULL)
        return NULL;
    e->used = true;
    return e->route;
}

/* Few second chances a time: where all entries are in use an insertion must not walk through all.
 */
static void evict(struct cache *cache)
{
    struct entry *e = NULL;

    for (int chances = 0; chances <= CHANCES_MAX; chances++) {
        struct list_node *node = list_pop_front(&cache->turns);

        e = LIST_ENTRY(node, struct entry, turn_node);
        list_push_back(&cache->turns, node);
        if (!e->used)
            break;
        e->used = false;
    }
    entry_drop(cache, e);
    cache->evictions++;
}

static bool is_full(const struct cache *cache)
{
    return cache->entries >= cache->entries_max ||
           cache->bytes >= (uint64_t)cache->entries_max * DNS_ENTRY_BYTES;
}

void cache_put(struct cache *cache, uint64_t hash, struct str name, bool host_only,
               struct dns_route *route)
{
    struct entry *e = entry_find(cache, hash, name, host_only);

    if (e != NULL) {
        dns_route_ref(route);
        cache->bytes -= entry_bytes(e);
        dns_route_unref(e->route);
        e->route = route;
        cache->bytes += entry_bytes(e);
        return;
    }
    ASSERT(name.len <= UINT8_MAX);
    e = malloc(sizeof(*e) + name.len);
    if (e == NULL)
        return;
    while (cache->entries > 0 && is_full(cache))
        evict(cache);
    *e = (struct entry){.host_only = host_only, .name_len = (uint8_t)name.len};
    e->route = dns_route_ref(route);
    memcpy(e->name, name.ptr, name.len);
    map_insert(&cache->map, &e->map_node, hash);
    list_push_back(&cache->turns, &e->turn_node);
    cache->entries++;
    cache->bytes += entry_bytes(e);
}

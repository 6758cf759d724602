#include "dns/cache.h"

#include <stdlib.h>

#define BUCKETS_INITIAL 1024

struct entry {
    struct map_node map_node;
    struct list_node recent_node;
    struct dns_route *route;
    bool host_only;
    uint8_t name_len; /* at most DNS_NAME_MAX */
    char name[];
};

int cache_init(struct cache *cache, uint32_t entries_max, uint64_t hash_seed)
{
    ASSERT(entries_max > 0);
    *cache = (struct cache){.entries_max = entries_max, .hash_seed = hash_seed};
    list_init(&cache->recent);
    return map_init(&cache->map, BUCKETS_INITIAL);
}

static void entry_drop(struct cache *cache, struct entry *e)
{
    map_remove(&cache->map, &e->map_node);
    list_remove(&e->recent_node);
    dns_route_unref(e->route);
    free(e);
    cache->entries--;
}

void cache_flush(struct cache *cache)
{
    struct list_node *node;

    while ((node = list_first(&cache->recent)) != NULL)
        entry_drop(cache, LIST_ENTRY(node, struct entry, recent_node));
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

static struct entry *find(const struct cache *cache, uint64_t hash, struct str name, bool host_only)
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
    struct entry *e = find(cache, hash, name, host_only);

    if (e == NULL)
        return NULL;
    list_remove(&e->recent_node);
    list_push_back(&cache->recent, &e->recent_node);
    return e->route;
}

void cache_put(struct cache *cache, uint64_t hash, struct str name, bool host_only,
               struct dns_route *route)
{
    struct entry *e = find(cache, hash, name, host_only);

    if (e != NULL) {
        dns_route_ref(route);
        dns_route_unref(e->route);
        e->route = route;
        return;
    }
    ASSERT(name.len <= UINT8_MAX);
    e = malloc(sizeof(*e) + name.len);
    if (e == NULL)
        return;
    if (cache->entries == cache->entries_max) {
        entry_drop(cache, LIST_ENTRY(list_first(&cache->recent), struct entry, recent_node));
        cache->evictions++;
    }
    *e = (struct entry){.host_only = host_only, .name_len = (uint8_t)name.len};
    e->route = dns_route_ref(route);
    memcpy(e->name, name.ptr, name.len);
    map_insert(&cache->map, &e->map_node, hash);
    list_push_back(&cache->recent, &e->recent_node);
    cache->entries++;
}

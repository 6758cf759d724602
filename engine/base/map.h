/* Intrusive chained hash map with a seeded hash. The node lives in its owner; only the bucket array
 * is allocated and it doubles as the map fills. One thread. */
#ifndef HAYAUMA_BASE_MAP_H
#define HAYAUMA_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

struct map_node {
    struct map_node *next;
    uint64_t hash;
};

struct map {
    struct map_node **buckets;
    size_t mask;
    size_t count;
};

/* 64-bit hash of bytes under seed (a peer that does not know the seed cannot make collisions
 * cheaply). The same on every machine and in every version: the queue's shards are chosen by it. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed);

/* buckets: initial number, a power of two. 0 or -ENOMEM. */
int map_init(struct map *m, size_t buckets) MUST_USE;
/* Nodes are the owners' to free. */
void map_done(struct map *m);
void map_insert(struct map *m, struct map_node *node, uint64_t hash);
/* The node must be in the map. */
void map_remove(struct map *m, struct map_node *node);
/* First node with this hash, then its next: the caller compares keys. */
struct map_node *map_find(const struct map *m, uint64_t hash);
struct map_node *map_find_next(const struct map_node *node);
/* Begins to fetch what map_find() will look at. */
static inline void map_prefetch(const struct map *m, uint64_t hash)
{
    __builtin_prefetch(&m->buckets[hash & m->mask]);
}
/* Any node, or NULL; for teardown and walks: bucket by bucket. */
struct map_node *map_walk(const struct map *m, size_t *bucket, struct map_node *at);

#endif

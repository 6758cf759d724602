/* Intrusive chained hash map with a seeded hash. The node lives in its owner; only the bucket array
 * is allocated and it doubles as the map fills: each insertion then moves the nodes of some
 * buckets, so that none of them takes long, however many nodes there are. One thread. */
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
    struct map_node **buckets; /* [mask + 1] */
    struct map_node **old;     /* [mask / 2 + 1], while the map doubles; else NULL */
    size_t moved;              /* buckets of old: their nodes are in two of buckets */
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
static inline struct map_node **map_bucket_of(const struct map *m, uint64_t hash)
{
    size_t low = hash & (m->mask >> 1);

    return m->old != NULL && low >= m->moved ? &m->old[low] : &m->buckets[hash & m->mask];
}
/* Begins to fetch what map_find() will look at. */
static inline void map_prefetch(const struct map *m, uint64_t hash)
{
    __builtin_prefetch(map_bucket_of(m, hash));
}
/* For walks that rest between two buckets: how many there are, and the first node of one, or NULL.
 * While the map doubles a node stays in its bucket or goes to one with a higher number. */
static inline size_t map_buckets(const struct map *m)
{
    return m->buckets == NULL ? 0 : m->mask + 1;
}
static inline struct map_node *map_bucket(const struct map *m, size_t bucket)
{
    bool old = m->old != NULL && bucket >= m->moved && bucket <= m->mask >> 1;

    return old ? m->old[bucket] : m->buckets[bucket];
}
/* Any node, or NULL; for teardown and walks: bucket by bucket. */
struct map_node *map_walk(const struct map *m, size_t *bucket, struct map_node *at);

#endif

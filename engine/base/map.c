#include "base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Odd constants without structure (digits of pi); they only keep zero input from staying zero. */
#define KEY_A 0x243f6a8885a308d3
#define KEY_B 0x13198a2e03707345
#define KEY_C 0xa4093822299f31d1

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return v;
}

static uint64_t load32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v;
}

/* Folded 128-bit multiplications, 16 bytes a step, the tail by two overlapping loads. Both factors
 * are masked by what only the seed's owner knows: with one of them known, a key could make it zero
 * and the rest of the key would no longer count. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed)
{
    const uint8_t *p = bytes;
    uint64_t state = mix(seed ^ KEY_A, KEY_B), mask = mix(seed ^ KEY_C, KEY_A), a = 0, b = 0;
    size_t left = n;

    for (; left > 16; left -= 16, p += 16)
        state = mix(load64(p) ^ mask, load64(p + 8) ^ state);
    if (left >= 8) {
        a = load64(p);
        b = load64(p + left - 8);
    } else if (left >= 4) {
        a = load32(p);
        b = load32(p + left - 4);
    } else if (left > 0) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[left / 2] << 8 | p[left - 1];
    }
    return mix(mix(a ^ mask, b ^ state) ^ KEY_C, n ^ state ^ KEY_A);
}

int map_init(struct map *m, size_t buckets)
{
    ASSERT(buckets > 0 && (buckets & (buckets - 1)) == 0);
    *m = (struct map){.mask = buckets - 1};
    m->buckets = calloc(buckets, sizeof(struct map_node *));
    return m->buckets == NULL ? -ENOMEM : 0;
}

void map_done(struct map *m)
{
    free(m->buckets);
    *m = (struct map){0};
}

static void link_node(struct map *m, struct map_node *node)
{
    struct map_node **bucket = &m->buckets[node->hash & m->mask];

    node->next = *bucket;
    *bucket = node;
}

/* Without memory the chains get longer and nothing else happens. */
static void grow(struct map *m)
{
    struct map_node **old = m->buckets;
    size_t old_count = m->mask + 1;
    struct map_node **larger = calloc(old_count * 2, sizeof(struct map_node *));

    if (larger == NULL)
        return;
    m->buckets = larger;
    m->mask = old_count * 2 - 1;
    for (size_t i = 0; i < old_count; i++) {
        struct map_node *node = old[i];

        while (node != NULL) {
            struct map_node *next = node->next;

            link_node(m, node);
            node = next;
        }
    }
    free(old);
}

void map_insert(struct map *m, struct map_node *node, uint64_t hash)
{
    if (m->count > m->mask)
        grow(m);
    node->hash = hash;
    link_node(m, node);
    m->count++;
}

void map_remove(struct map *m, struct map_node *node)
{
    struct map_node **at = &m->buckets[node->hash & m->mask];

    while (*at != node) {
        ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = node->next;
    node->next = NULL;
    m->count--;
}

static struct map_node *first_equal(struct map_node *node, uint64_t hash)
{
    while (node != NULL && node->hash != hash)
        node = node->next;
    return node;
}

struct map_node *map_find(const struct map *m, uint64_t hash)
{
    return first_equal(m->buckets[hash & m->mask], hash);
}

struct map_node *map_find_next(const struct map_node *node)
{
    return first_equal(node->next, node->hash);
}

struct map_node *map_walk(const struct map *m, size_t *bucket, struct map_node *at)
{
    if (at != NULL) {
        if (at->next != NULL)
            return at->next;
        ++*bucket;
    }
    for (; *bucket <= m->mask; ++*bucket)
        if (m->buckets[*bucket] != NULL)
            return m->buckets[*bucket];
    return NULL;
}

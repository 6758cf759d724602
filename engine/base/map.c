#include "base/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOVED 2 /* buckets that an insertion moves: all have moved before the map doubles again */

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
    free(m->old);
    *m = (struct map){0};
}

static void link_node(struct map *m, struct map_node *node)
{
    struct map_node **bucket = map_bucket_of(m, node->hash);

    node->next = *bucket;
    *bucket = node;
}

/* Begins to double. Without memory the chains get longer and nothing else happens. */
static void grow(struct map *m)
{
    struct map_node **larger = calloc((m->mask + 1) * 2, sizeof(struct map_node *));

    if (larger == NULL)
        return;
    m->old = m->buckets;
    m->moved = 0;
    m->buckets = larger;
    m->mask = m->mask * 2 + 1;
}

static void move_bucket(struct map *m)
{
    struct map_node *node;

    ASSERT(m->moved <= m->mask >> 1);
    node = m->old[m->moved++];
    while (node != NULL) {
        struct map_node *next = node->next;

        link_node(m, node);
        node = next;
    }
    if (m->moved <= m->mask >> 1)
        return;
    free(m->old);
    m->old = NULL;
}

void map_insert(struct map *m, struct map_node *node, uint64_t hash)
{
    if (m->old == NULL && m->count > m->mask)
        grow(m);
    for (int i = 0; i < MOVED && m->old != NULL; i++)
        move_bucket(m);
    node->hash = hash;
    link_node(m, node);
    m->count++;
}

void map_remove(struct map *m, struct map_node *node)
{
    struct map_node **at = map_bucket_of(m, node->hash);

    while (*at != node) {
        ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    ASSERT(m->count > 0);
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
    return first_equal(*map_bucket_of(m, hash), hash);
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
        if (map_bucket(m, *bucket) != NULL)
            return map_bucket(m, *bucket);
    return NULL;
}

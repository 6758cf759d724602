#include "base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ITEMS = 5000 };

struct item {
    struct map_node node;
    char key[24];
    bool seen;
};

static struct item items[ITEMS];

static struct item *find(const struct map *m, const char *key, uint64_t seed)
{
    struct map_node *node = map_find(m, hash_bytes(key, strlen(key), seed));

    for (; node != NULL; node = map_find_next(node)) {
        struct item *item = CONTAINER_OF(node, struct item, node);

        if (strcmp(item->key, key) == 0)
            return item;
    }
    return NULL;
}

static void fill(struct map *m, uint64_t seed)
{
    assert_int_equal(map_init(m, 2), 0);
    for (int i = 0; i < ITEMS; i++) {
        items[i] = (struct item){0};
        snprintf(items[i].key, sizeof(items[i].key), "example%d.org", i);
        map_insert(m, &items[i].node, hash_bytes(items[i].key, strlen(items[i].key), seed));
    }
}

static void test_insert_find_remove(void **state)
{
    struct map m;

    (void)state;
    fill(&m, 5);
    assert_int_equal(m.count, ITEMS);
    assert_true(m.mask + 1 >= ITEMS && m.mask < 4 * ITEMS); /* it grew, and not too far */
    for (int i = 0; i < ITEMS; i += 2)
        map_remove(&m, &items[i].node);
    assert_int_equal(m.count, ITEMS / 2);
    for (int i = 0; i < ITEMS; i++)
        assert_ptr_equal(find(&m, items[i].key, 5), i % 2 == 0 ? NULL : &items[i]);
    assert_null(find(&m, "example.org", 5));
    map_done(&m);
}

static void test_walk(void **state)
{
    size_t bucket = 0, seen = 0;
    struct map_node *node = NULL, *next;
    struct map m;

    (void)state;
    fill(&m, 6);
    while ((node = map_walk(&m, &bucket, node)) != NULL) {
        struct item *item = CONTAINER_OF(node, struct item, node);

        assert_false(item->seen);
        item->seen = true;
        seen++;
    }
    assert_int_equal(seen, ITEMS);

    /* Removing on the way: take the next first. */
    bucket = 0;
    for (node = map_walk(&m, &bucket, NULL); node != NULL; node = next) {
        next = map_walk(&m, &bucket, node);
        map_remove(&m, node);
    }
    assert_int_equal(m.count, 0);
    bucket = 0;
    assert_null(map_walk(&m, &bucket, NULL));
    map_done(&m);
}

/* No insertion moves more than some nodes, and none is lost or passed by: neither by those who look
 * for it nor by a walk that rests between two buckets. */
static void test_grows_in_steps(void **state)
{
    size_t bucket = 0, rounds = 0;
    struct map m;

    (void)state;
    assert_int_equal(map_init(&m, 2), 0);
    for (int i = 0; i < ITEMS; i++) {
        size_t mask = m.mask;

        items[i] = (struct item){0};
        snprintf(items[i].key, sizeof(items[i].key), "example%d.org", i);
        map_insert(&m, &items[i].node, hash_bytes(items[i].key, strlen(items[i].key), 7));
        if (m.mask != mask && mask > 16) {
            assert_non_null(m.old);
            assert_in_range(m.moved, 1, 2);
        }
        assert_ptr_equal(find(&m, items[i].key, 7), &items[i]);
        assert_ptr_equal(find(&m, items[i / 2].key, 7), &items[i / 2]);
        if (i % 3 == 2) { /* one that was moved, or will be */
            map_remove(&m, &items[i / 3].node);
            assert_null(find(&m, items[i / 3].key, 7));
            map_insert(&m, &items[i / 3].node, items[i / 3].node.hash);
        }
        if (i < ITEMS / 8) /* what the walk must see is there before it begins */
            continue;
        for (int k = 0; k < 4 && bucket < map_buckets(&m); k++, bucket++)
            for (struct map_node *n = map_bucket(&m, bucket); n != NULL; n = n->next)
                CONTAINER_OF(n, struct item, node)->seen = true;
        if (bucket < map_buckets(&m))
            continue;
        for (int j = 0; rounds == 0 && j < ITEMS / 8; j++)
            assert_true(items[j].seen);
        rounds++;
        bucket = 0;
    }
    assert_int_equal(m.count, ITEMS);
    assert_in_range(rounds, 1, ITEMS);
    map_done(&m);
}

/* Equal hashes are the caller's to tell apart; all of them must come up. */
static void test_collisions(void **state)
{
    struct map m;
    struct map_node nodes[20], other;
    struct map_node *node;
    size_t found = 0;

    (void)state;
    assert_int_equal(map_init(&m, 4), 0);
    for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
        map_insert(&m, &nodes[i], 42);
    map_insert(&m, &other, 42 + (1ull << 40)); /* the same bucket, another hash */
    for (node = map_find(&m, 42); node != NULL; node = map_find_next(node))
        found++;
    assert_int_equal(found, ARRAY_LEN(nodes));
    map_done(&m);
}

/* Each input bit and each seed bit moves about half of the output bits. */
static void test_hash_avalanche(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 40; n++) {
        uint8_t key[40] = {0};
        uint64_t base = hash_bytes(key, n, 1);

        for (size_t bit = 0; bit < n * 8; bit++) {
            key[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_in_range(__builtin_popcountll(base ^ hash_bytes(key, n, 1)), 10, 54);
            key[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (unsigned bit = 0; bit < 64; bit++)
            assert_in_range(__builtin_popcountll(base ^ hash_bytes(key, n, 1 ^ 1ull << bit)), 10,
                            54);
        assert_true(base != hash_bytes(key, n - 1, 1)); /* a zero byte more is another key */
    }
}

/* Near keys spread over the buckets of a table as chance would have it. */
static void test_hash_spread(void **state)
{
    enum { BUCKETS = 4096, KEYS = 4 * BUCKETS };
    static uint8_t load[2][BUCKETS];
    unsigned max = 0;

    (void)state;
    memset(load, 0, sizeof(load));
    for (int i = 0; i < KEYS; i++) {
        char key[32];
        int n = snprintf(key, sizeof(key), "user%d@example.org", i);
        uint64_t h = hash_bytes(key, (size_t)n, 99);

        load[0][h % BUCKETS]++;
        load[1][h >> 52]++;
    }
    for (size_t i = 0; i < BUCKETS; i++)
        for (size_t part = 0; part < 2; part++)
            max = load[part][i] > max ? load[part][i] : max;
    assert_in_range(max, 8, 18); /* Poisson with mean 4: 19 or more is one in 10^7 */
}

/* Queues on disk depend on these values: a new hash function needs a new name. */
static void test_hash_is_stable(void **state)
{
    static const struct {
        const char *key;
        uint64_t seed, hash;
    } cases[] = {
        {"", 0, 0x8029a15c873388ff},
        {"a", 0, 0x0d4910174d4993d7},
        {"abc", 0, 0x7f3b19e140a94f91},
        {"example.com", 0, 0xa3fe9f54781feedb},
        {"example.com", 1, 0xecde7b0b31905810},
        {"a-rather-long-name-of-a-host.mail.example.org", 0, 0x92c00072125b66a5},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_true(hash_bytes(cases[i].key, strlen(cases[i].key), cases[i].seed) == cases[i].hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_insert_find_remove), cmocka_unit_test(test_walk),
        cmocka_unit_test(test_grows_in_steps),     cmocka_unit_test(test_collisions),
        cmocka_unit_test(test_hash_avalanche),     cmocka_unit_test(test_hash_spread),
        cmocka_unit_test(test_hash_is_stable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

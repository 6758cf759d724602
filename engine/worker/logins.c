#include "worker/logins.h"

#include <errno.h>
#include <stdlib.h>

#include "base/rng.h"
#include "worker/clients.h"

#define KNOWN_MS (24u * 3600 * 1000)

/* What an entry is of; a part of what its hash is made of. */
enum kind { KIND_CLIENT, KIND_USER, KIND_KNOWN, KIND_RATE };

/* One that is hashed alike by chance (1 in 2^48 with all entries) shares the fate of the other. */
struct entry {
    struct map_node node;
    struct list_node age;
    uint64_t hash;
    uint64_t full_ns; /* when the bucket is empty; KIND_KNOWN: when it is forgotten */
};

int logins_init(struct logins *l)
{
    *l = (struct logins){.len = 0};
    pthread_mutex_init(&l->mutex, NULL);
    list_init(&l->by_age);
    l->seed = rng_entropy();
    return map_init(&l->entries, 64) < 0 || map_init(&l->rates, 16) < 0 ? -ENOMEM : 0;
}

static void entry_drop(struct logins *l, struct entry *e)
{
    ASSERT(l->len > 0);
    map_remove(&l->entries, &e->node);
    list_remove(&e->age);
    l->len--;
    free(e);
}

void logins_done(struct logins *l)
{
    struct map_node *n;
    size_t bucket = 0;

    if (l->entries.buckets == NULL) /* never begun */
        return;
    while (!list_empty(&l->by_age))
        entry_drop(l, LIST_ENTRY(list_first(&l->by_age), struct entry, age));
    while (l->rates.buckets != NULL && (n = map_walk(&l->rates, &bucket, NULL)) != NULL) {
        map_remove(&l->rates, n);
        free(CONTAINER_OF(n, struct entry, node));
        bucket = 0;
    }
    map_done(&l->entries);
    map_done(&l->rates);
    pthread_mutex_destroy(&l->mutex);
}

static uint64_t hash_of(const struct logins *l, enum kind kind, const struct sockaddr *client,
                        struct str user)
{
    uint8_t key[1 + CLIENT_KEY_BYTES] = {(uint8_t)kind};

    if (client != NULL)
        client_key(client, key + 1);
    return hash_bytes(user.ptr, user.len, hash_bytes(key, sizeof(key), l->seed));
}

static struct entry *find(const struct map *map, uint64_t hash)
{
    for (struct map_node *n = map_find(map, hash); n != NULL; n = map_find_next(n)) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);

        if (e->hash == hash)
            return e;
    }
    return NULL;
}

static struct entry *entry_new(struct map *map, uint64_t hash)
{
    struct entry *e = calloc(1, sizeof(*e));

    ASSERT(e != NULL && find(map, hash) == NULL);
    e->hash = hash;
    map_insert(map, &e->node, hash);
    return e;
}

/* The entry, as the last one touched. */
static struct entry *touch(struct logins *l, uint64_t hash)
{
    struct entry *e = find(&l->entries, hash);

    if (e != NULL) {
        list_remove(&e->age);
    } else {
        if (l->len == LOGINS_ENTRIES_MAX)
            entry_drop(l, LIST_ENTRY(list_first(&l->by_age), struct entry, age));
        e = entry_new(&l->entries, hash);
        l->len++;
    }
    ASSERT(l->len <= LOGINS_ENTRIES_MAX && l->entries.count == l->len);
    list_push_back(&l->by_age, &e->age);
    return e;
}

#define MS UINT64_C(1000000)

/* What one of max takes of a bucket that is as large as the period. */
static uint64_t share_ns(uint64_t max, uint32_t period_ms)
{
    ASSERT(max > 0 && period_ms > 0);
    return (uint64_t)period_ms * MS / max;
}

static bool has_room(const struct entry *e, uint64_t share, uint32_t period_ms, uint64_t now_ms)
{
    return e == NULL || e->full_ns + share <= (now_ms + period_ms) * MS ||
           e->full_ns <= now_ms * MS;
}

static void pour(struct entry *e, uint64_t share, uint64_t now_ms)
{
    if (e->full_ns < now_ms * MS)
        e->full_ns = now_ms * MS;
    e->full_ns += share;
}

bool logins_may_try(struct logins *l, const struct sockaddr *client, struct str user,
                    const struct logins_limit *limit, uint64_t now_ms)
{
    uint64_t share = share_ns(limit->failures_max, limit->period_ms);
    const struct entry *known;
    bool may;

    pthread_mutex_lock(&l->mutex);
    known = find(&l->entries, hash_of(l, KIND_KNOWN, client, user));
    may = has_room(find(&l->entries, hash_of(l, KIND_CLIENT, client, STR(""))), share,
                   limit->period_ms, now_ms) &&
          ((known != NULL && known->full_ns > now_ms * MS) ||
           has_room(find(&l->entries, hash_of(l, KIND_USER, NULL, user)), share, limit->period_ms,
                    now_ms));
    pthread_mutex_unlock(&l->mutex);
    return may;
}

uint32_t logins_failed(struct logins *l, const struct sockaddr *client, struct str user,
                       const struct logins_limit *limit, uint64_t now_ms)
{
    uint64_t share = share_ns(limit->failures_max, limit->period_ms);
    struct entry *of_client;
    uint32_t failures;

    pthread_mutex_lock(&l->mutex);
    pour(touch(l, hash_of(l, KIND_USER, NULL, user)), share, now_ms);
    of_client = touch(l, hash_of(l, KIND_CLIENT, client, STR("")));
    pour(of_client, share, now_ms);
    ASSERT(of_client->full_ns >= now_ms * MS + share); /* the failure that was poured in */
    failures = (uint32_t)((of_client->full_ns - now_ms * MS + share - 1) / share);
    pthread_mutex_unlock(&l->mutex);
    return failures;
}

void logins_succeeded(struct logins *l, const struct sockaddr *client, struct str user,
                      uint64_t now_ms)
{
    pthread_mutex_lock(&l->mutex);
    touch(l, hash_of(l, KIND_KNOWN, client, user))->full_ns = (now_ms + KNOWN_MS) * MS;
    pthread_mutex_unlock(&l->mutex);
}

uint64_t logins_rate_take(struct logins *l, struct str user, uint64_t messages, uint32_t period_ms,
                          uint64_t now_ms)
{
    uint64_t share = share_ns(messages, period_ms), hash = hash_of(l, KIND_RATE, NULL, user);
    uint64_t wait_ms = 0;
    struct entry *e;

    pthread_mutex_lock(&l->mutex);
    e = find(&l->rates, hash);
    if (e == NULL)
        e = entry_new(&l->rates, hash);
    if (has_room(e, share, period_ms, now_ms))
        pour(e, share, now_ms);
    else
        wait_ms = (e->full_ns + share) / MS - now_ms - period_ms + 1;
    pthread_mutex_unlock(&l->mutex);
    return wait_ms;
}

#include "limits/tally.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

struct tally_name {
    struct map_node node;
    struct list_node age; /* tally->oldest_first */
    uint64_t said_ms;     /* when it was last said, + 1; 0: never */
    uint32_t after, next; /* times is a ring of the last `after` */
    char *name;
    uint64_t times[]; /* + 1; 0: none */
};

int tally_open(struct tally *t)
{
    int err = map_init(&t->names, 64);

    if (err < 0)
        return err;
    pthread_mutex_init(&t->lock, NULL);
    list_init(&t->oldest_first);
    t->opened = true;
    return 0;
}

static void name_drop(struct tally *t, struct tally_name *n)
{
    map_remove(&t->names, &n->node);
    list_remove(&n->age);
    free(n->name);
    free(n);
}

void tally_close(struct tally *t)
{
    struct list_node *n;

    if (!t->opened)
        return;
    while ((n = list_first(&t->oldest_first)) != NULL)
        name_drop(t, LIST_ENTRY(n, struct tally_name, age));
    map_done(&t->names);
    pthread_mutex_destroy(&t->lock);
    t->opened = false;
}

/* Under the lock. One that is to be counted otherwise (a reload) begins anew. */
static struct tally_name *name_find(struct tally *t, struct str name, uint64_t hash, uint32_t after)
{
    for (struct map_node *at = map_find(&t->names, hash); at != NULL; at = map_find_next(at)) {
        struct tally_name *n = CONTAINER_OF(at, struct tally_name, node);

        if (!str_eq(str_of(n->name), name))
            continue;
        if (n->after == after)
            return n;
        name_drop(t, n);
        return NULL;
    }
    return NULL;
}

static struct tally_name *name_new(struct tally *t, struct str name, uint64_t hash, uint32_t after)
{
    struct tally_name *n = calloc(1, sizeof(*n) + after * sizeof(n->times[0]));

    ASSERT(n != NULL);
    n->name = strndup(name.ptr, name.len);
    ASSERT(n->name != NULL);
    n->after = after;
    if (t->names.count >= TALLY_NAMES_MAX)
        name_drop(t, LIST_ENTRY(list_first(&t->oldest_first), struct tally_name, age));
    map_insert(&t->names, &n->node, hash);
    list_push_back(&t->oldest_first, &n->age);
    return n;
}

bool tally_hit(struct tally *t, struct str name, uint32_t after, uint64_t within_ms,
               uint64_t quiet_ms, uint64_t now_ms)
{
    uint64_t hash = hash_bytes(name.ptr, name.len, 0), first;
    struct tally_name *n;
    bool said;

    ASSERT(after >= 1 && after <= TALLY_TIMES_MAX);
    pthread_mutex_lock(&t->lock);
    n = name_find(t, name, hash, after);
    if (n == NULL)
        n = name_new(t, name, hash, after);
    ASSERT(n->after == after && n->next < after);
    list_remove(&n->age);
    list_push_back(&t->oldest_first, &n->age);
    n->times[n->next] = now_ms + 1;
    n->next = (n->next + 1) % after;
    first = n->times[n->next]; /* of the last `after` */
    said = first != 0 && now_ms + 1 - first <= within_ms &&
           (n->said_ms == 0 || now_ms + 1 - n->said_ms >= quiet_ms);
    if (said) {
        n->said_ms = now_ms + 1;
        memset(n->times, 0, after * sizeof(n->times[0]));
    }
    pthread_mutex_unlock(&t->lock);
    return said;
}

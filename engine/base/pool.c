#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#ifdef __SANITIZE_ADDRESS__
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, n)   ((void)(at), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(at, n) ((void)(at), (void)(n))
#endif

#define SLAB_BYTES  65536
#define SLAB_HEADER 64 /* keeps the first object on a cache line */

/* Both links lie at the start of what they link. */
struct link {
    struct link *next;
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

void pool_init(struct pool *p, const char *name, size_t object_bytes, size_t in_use_max)
{
    ASSERT(object_bytes > 0);
    /* sizeof is a multiple of alignof, so objects that need a cache line of their own get it. */
    *p = (struct pool){
        .name = name, .object_bytes = round_up(object_bytes, 16), .in_use_max = in_use_max};
    p->slab_objects = (SLAB_BYTES - SLAB_HEADER) / p->object_bytes;
    if (p->slab_objects == 0)
        p->slab_objects = 1;
}

void pool_done(struct pool *p)
{
    struct link *slab = p->slabs;

    ASSERT(p->in_use == 0);
    while (slab != NULL) {
        struct link *next = slab->next;

        ASAN_UNPOISON_MEMORY_REGION(slab, SLAB_HEADER + p->slab_objects * p->object_bytes);
        free(slab);
        slab = next;
    }
    *p = (struct pool){0};
}

static void push_free(struct pool *p, void *object)
{
    struct link *link = object;

    link->next = p->free_list;
    p->free_list = link;
    /* The link itself stays readable; a use of anything behind it is caught. */
    ASAN_POISON_MEMORY_REGION((char *)object + sizeof(*link), p->object_bytes - sizeof(*link));
}

static void add_slab(struct pool *p)
{
    size_t bytes = round_up(SLAB_HEADER + p->slab_objects * p->object_bytes, SLAB_HEADER);
    char *slab = aligned_alloc(SLAB_HEADER, bytes);

    if (slab == NULL)
        return;
    ((struct link *)slab)->next = p->slabs;
    p->slabs = slab;
    for (size_t i = p->slab_objects; i-- > 0;)
        push_free(p, slab + SLAB_HEADER + i * p->object_bytes);
}

void *pool_get(struct pool *p)
{
    struct link *object;

    if (p->in_use >= p->in_use_max)
        return NULL;
    if (p->free_list == NULL)
        add_slab(p);
    object = p->free_list;
    if (object == NULL)
        return NULL;
    ASSERT(p->in_use < p->in_use_max);
    p->free_list = object->next;
    p->in_use++;
    ASAN_UNPOISON_MEMORY_REGION(object, p->object_bytes);
    return memset(object, 0, p->object_bytes);
}

void pool_put(struct pool *p, void *object)
{
    if (object == NULL)
        return;
    ASSERT(p->in_use > 0);
    p->in_use--;
    push_free(p, object);
}

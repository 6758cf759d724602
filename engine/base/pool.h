/* A pool of equal objects: a free list over slabs, never given back before pool_done().
 * One thread. Objects come zeroed. */
#ifndef HAYAUMA_BASE_POOL_H
#define HAYAUMA_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

struct pool {
    const char *name;
    size_t object_bytes;
    size_t in_use;
    size_t in_use_max; /* limit; pool_get() returns NULL at it */
    size_t slab_objects;
    void *free_list;
    void *slabs;
};

/* object_bytes: size of one object; in_use_max: hard limit on live objects. */
void pool_init(struct pool *p, const char *name, size_t object_bytes, size_t in_use_max);
/* Asserts that every object came back. Safe on a zeroed pool. */
void pool_done(struct pool *p);
/* A zeroed object, or NULL at the limit or when memory is out. */
void *pool_get(struct pool *p);
/* NULL is accepted. */
void pool_put(struct pool *p, void *object);

#endif

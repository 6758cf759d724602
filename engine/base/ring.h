/* Bounded single-producer single-consumer ring of pointers.
 *
 * Exactly one thread pushes and one pops. head is written by the consumer, tail by the producer,
 * each on its own cache line. Push releases, pop acquires: what the producer wrote before the push
 * is visible to the consumer after the pop. A full ring is the producer's to handle. */
#ifndef HAYAUMA_BASE_RING_H
#define HAYAUMA_BASE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

#define CACHE_LINE_BYTES 64

struct ring {
    void **slots;
    uint32_t mask;
    struct {
        _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t head; /* next slot to pop */
        uint32_t tail_seen;                               /* consumer's copy of tail */
    } consumer;
    struct {
        _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t tail; /* next slot to fill */
        uint32_t head_seen;                               /* producer's copy of head */
    } producer;
};

/* slots: a power of two. 0 or -ENOMEM. */
int ring_init(struct ring *r, uint32_t slots) MUST_USE;
void ring_done(struct ring *r);

static inline bool ring_push(struct ring *r, void *item)
{
    uint32_t tail = atomic_load_explicit(&r->producer.tail, memory_order_relaxed);

    if (tail - r->producer.head_seen > r->mask) {
        r->producer.head_seen = atomic_load_explicit(&r->consumer.head, memory_order_acquire);
        if (tail - r->producer.head_seen > r->mask)
            return false;
    }
    r->slots[tail & r->mask] = item;
    atomic_store_explicit(&r->producer.tail, tail + 1, memory_order_release);
    return true;
}

static inline void *ring_pop(struct ring *r)
{
    uint32_t head = atomic_load_explicit(&r->consumer.head, memory_order_relaxed);
    void *item;

    if (head == r->consumer.tail_seen) {
        r->consumer.tail_seen = atomic_load_explicit(&r->producer.tail, memory_order_acquire);
        if (head == r->consumer.tail_seen)
            return NULL;
    }
    item = r->slots[head & r->mask];
    atomic_store_explicit(&r->consumer.head, head + 1, memory_order_release);
    return item;
}

#endif

/* A mailbox: any thread puts intrusive nodes in, one thread takes them all out in order.
 *
 * Unbounded because the nodes live in their owners, so a put never fails, never blocks and never
 * allocates: that is what queue_submit() promises. One word and one compare-and-swap instead of a
 * ring for every pair of threads. */
#ifndef HAYAUMA_QUEUE_MAILBOX_H
#define HAYAUMA_QUEUE_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/list.h"
#include "base/ring.h"

struct mailbox {
    /* Newest node first, linked by next. Release on put, acquire on take: what the sender wrote
     * into the node's owner is visible to the taker. On its own line: many threads write it. */
    _Alignas(CACHE_LINE_BYTES) _Atomic(struct list_node *) newest;
};

static inline void mailbox_init(struct mailbox *m)
{
    atomic_init(&m->newest, NULL);
}

/* True when the mailbox was empty: then, and only then, the taker has to be woken. */
static inline bool mailbox_put(struct mailbox *m, struct list_node *node)
{
    struct list_node *top = atomic_load_explicit(&m->newest, memory_order_relaxed);

    ASSERT(node->next == NULL && node != top); /* in no list, and not put twice */
    do {
        node->next = top;
    } while (!atomic_compare_exchange_weak_explicit(&m->newest, &top, node, memory_order_release,
                                                    memory_order_relaxed));
    return top == NULL;
}

/* Appends everything to list, oldest first. */
static inline void mailbox_take(struct mailbox *m, struct list *list)
{
    struct list_node *node, *next, *oldest = NULL;

    if (atomic_load_explicit(&m->newest, memory_order_relaxed) == NULL)
        return;
    node = atomic_exchange_explicit(&m->newest, NULL, memory_order_acquire);
    for (; node != NULL; node = next) {
        next = node->next;
        node->next = oldest;
        oldest = node;
    }
    for (node = oldest; node != NULL; node = next) {
        next = node->next;
        node->next = NULL;
        list_push_back(list, node);
    }
}

static inline bool mailbox_empty(const struct mailbox *m)
{
    return atomic_load_explicit(&m->newest, memory_order_relaxed) == NULL;
}

#endif

#include "deliver/idle.h"

static uint64_t idle_hash(const struct worker *w, const struct exchanger *e)
{
    return hash_bytes(&e->addr, e->len, w->hash_seed);
}

void idle_enter(struct delivery *d)
{
    list_push_back(&d->site->idle, &d->idle_node);
    map_insert(&d->worker->idle, &d->idle_map, idle_hash(d->worker, &d->dial.exchanger));
}

void idle_leave(struct delivery *d)
{
    if (!list_node_linked(&d->idle_node))
        return;
    list_remove(&d->idle_node);
    map_remove(&d->worker->idle, &d->idle_map);
}

/* Whether site may take d over. An idle session whose site has work is not free: it waits for that
 * site's rate. */
static bool may_take_over(const struct delivery *d, const struct site *site,
                          const struct exchanger *to)
{
    return d->site != site && d->site->config == site->config && d->site->dest == site->dest &&
           d->site->lmtp == site->lmtp && d->site->options.auth_user == site->options.auth_user &&
           feed_empty(&d->site->feed) && exchanger_same(&d->dial.exchanger, to) &&
           secure_suits(d, to->host);
}

struct delivery *idle_find(const struct site *site, const struct exchanger *to)
{
    struct map_node *n = map_find(&site->worker->idle, idle_hash(site->worker, to));

    for (; n != NULL; n = map_find_next(n)) {
        struct delivery *d = CONTAINER_OF(n, struct delivery, idle_map);

        if (may_take_over(d, site, to))
            return d;
    }
    return NULL;
}

#include "deliver/idle.h"

/* Sessions that are looked at for one that may be taken over. Where a host serves many sites they
 * all stand in one bucket; behind so many that do not suit a new session costs less than to look
 * on. */
#define IDLE_LOOKS_MAX 64

/* A session from another source or under other limits of the host is never taken over. */
static struct list *bucket_of(const struct channel *c, const struct exchanger *e,
                              const struct governor_entry *limits)
{
    struct worker *w = c->site->worker;
    const void *key[] = {c->source, limits};
    uint64_t hash = hash_bytes(&e->addr, e->len, hash_bytes(key, sizeof(key), w->hash_seed));

    return &w->idle[hash % WORKER_IDLE_BUCKETS];
}

bool idle_rests(const struct delivery *d)
{
    return d->session.rests_ns != 0;
}

/* One that takes urgent mail alone is nothing to what else waits. */
static struct list *list_of(const struct delivery *d)
{
    return d->session.urgent ? &d->channel->resting : &d->channel->idle;
}

static void rest_begins(struct delivery *d)
{
    d->session.rested_since_ns = io_now_ns(d->worker->io);
    list_push_back(&d->channel->resting, &d->idle_node);
}

/* Of several that rest side by side one counts the time. */
static void rest_ends(struct delivery *d)
{
    const struct limit_denial host = {
        .kind = LIMIT_HOST, .entry = d->dial.slot, .counts = d->session.rests_for};
    bool first = list_first(&d->channel->resting) == &d->idle_node;
    uint64_t rested_ns = io_now_ns(d->worker->io) - d->session.rested_since_ns;

    list_remove(&d->idle_node);
    if (first && host.entry != NULL && channel_has_mail(d->channel))
        site_count_held(d->site, &host, rested_ns / 1000000);
}

void idle_rest(struct delivery *d)
{
    ASSERT(idle_rests(d) && list_node_linked(&d->idle_node));
    list_remove(&d->idle_node);
    rest_begins(d);
}

void idle_wake(struct delivery *d)
{
    ASSERT(idle_rests(d) && list_node_linked(&d->idle_node));
    rest_ends(d);
    d->session.rests_ns = 0;
    list_push_back(list_of(d), &d->idle_node);
}

void idle_enter(struct delivery *d)
{
    ASSERT(d->state == DELIVERY_OPEN && !d->yielding && list_empty(&d->letters));
    ASSERT(!list_node_linked(&d->idle_node) && list_empty(&d->carried));
    channel_count_messages(d->channel);
    if (idle_rests(d))
        rest_begins(d);
    else
        list_push_back(list_of(d), &d->idle_node);
    list_push_front(bucket_of(d->channel, &d->dial.exchanger, d->dial.slot), &d->idle_bucket);
}

void idle_leave(struct delivery *d)
{
    if (!list_node_linked(&d->idle_node))
        return;
    if (idle_rests(d))
        rest_ends(d);
    else
        list_remove(&d->idle_node);
    list_remove(&d->idle_bucket);
}

/* Whether c may take d over: the peer has seen the same source say the same EHLO name. An idle
 * session whose channel has work is not free: it waits for a limit, or for its turn. One that
 * yields is idle until what the peer had said before it closed is received. */
static bool may_take_over(const struct delivery *d, const struct channel *c,
                          const struct exchanger *to)
{
    return !d->yielding && d->site != c->site && d->site->config == c->site->config &&
           d->channel->source == c->source && d->site->dest == c->site->dest &&
           d->site->lmtp == c->site->lmtp &&
           d->channel->options.auth_user == c->options.auth_user && !channel_has_mail(d->channel) &&
           exchanger_same(&d->dial.exchanger, to) && d->dial.slot == to->limits &&
           secure_suits(d, c->site, to);
}

struct delivery *idle_find(const struct channel *c, const struct exchanger *to)
{
    const struct list *bucket = bucket_of(c, to, to->limits);
    struct list_node *n = list_first(bucket);

    for (int looks = 0; n != NULL && looks < IDLE_LOOKS_MAX; n = list_next(bucket, n), looks++) {
        struct delivery *d = CONTAINER_OF(n, struct delivery, idle_bucket);

        if (may_take_over(d, c, to))
            return d;
    }
    return NULL;
}

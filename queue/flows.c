#include "queue/flows.h"

#include <errno.h>
#include <stdlib.h>

#include "queue/shard.h"

struct entry {
    struct map_node node;
    struct queue_flow flow;
    struct queue_flow_sums sums;
    char names[];
};

int flows_init(struct flows *f)
{
    int err = map_init(&f->by_name, 64);

    if (err < 0)
        return err;
    pthread_mutex_init(&f->lock, NULL);
    f->next_id = 1;
    return 0;
}

void flows_done(struct flows *f)
{
    struct map_node *node, *next;
    size_t bucket = 0;

    if (f->by_name.buckets == NULL)
        return;
    for (node = map_walk(&f->by_name, &bucket, NULL); node != NULL; node = next) {
        next = map_walk(&f->by_name, &bucket, node);
        free(CONTAINER_OF(node, struct entry, node));
    }
    map_done(&f->by_name);
    for (size_t i = 0; i < FLOWS_CHUNKS; i++)
        free(atomic_load_explicit(&f->chunks[i], memory_order_relaxed));
    pthread_mutex_destroy(&f->lock);
}

static uint64_t name_hash(const struct queue_flow *flow)
{
    uint64_t hash = hash_bytes(flow->tenant.ptr, flow->tenant.len, flow->priority);

    hash = hash_bytes(flow->campaign.ptr, flow->campaign.len, hash);
    hash = hash_bytes(flow->pool.ptr, flow->pool.len, hash);
    hash = hash_bytes(flow->signer.ptr, flow->signer.len, hash);
    return hash_bytes(flow->envelope.ptr, flow->envelope.len, hash);
}

static const struct queue_flow *find_name(const struct flows *f, const struct queue_flow *wanted,
                                          uint64_t hash)
{
    for (struct map_node *n = map_find(&f->by_name, hash); n != NULL; n = map_find_next(n)) {
        const struct queue_flow *flow = &CONTAINER_OF(n, struct entry, node)->flow;

        if (flow->priority == wanted->priority && str_eq(flow->tenant, wanted->tenant) &&
            str_eq(flow->campaign, wanted->campaign) && str_eq(flow->pool, wanted->pool) &&
            str_eq(flow->signer, wanted->signer) && str_eq(flow->envelope, wanted->envelope))
            return flow;
    }
    return NULL;
}

static struct str copy_name(char **at, struct str name)
{
    struct str copy = {*at, name.len};

    if (name.len > 0)
        memcpy(*at, name.ptr, name.len);
    *at += name.len;
    return copy;
}

/* A place for id, which has none yet; NULL: memory is out. Under the lock. */
static struct queue_flow *_Atomic *place(struct flows *f, uint32_t id)
{
    struct flows_chunk *chunk =
        atomic_load_explicit(&f->chunks[id / FLOWS_CHUNK], memory_order_relaxed);

    ASSERT(id > 0);
    if (chunk == NULL) {
        chunk = calloc(1, sizeof(*chunk));
        if (chunk == NULL)
            return NULL;
        atomic_store_explicit(&f->chunks[id / FLOWS_CHUNK], chunk, memory_order_release);
    }
    return &chunk->flows[id % FLOWS_CHUNK];
}

static const struct queue_flow *find_any(const struct flows *f, uint32_t id)
{
    struct flows_chunk *chunk;

    if (id >= FLOW_IDS)
        return NULL;
    chunk = atomic_load_explicit(&f->chunks[id / FLOWS_CHUNK], memory_order_acquire);
    return chunk == NULL
               ? NULL
               : atomic_load_explicit(&chunk->flows[id % FLOWS_CHUNK], memory_order_acquire);
}

/* A copy of wanted comes into the table. Under the lock. */
static const struct queue_flow *insert(struct flows *f, const struct queue_flow *wanted,
                                       uint64_t hash)
{
    size_t bytes = wanted->tenant.len + wanted->campaign.len + wanted->pool.len +
                   wanted->signer.len + wanted->envelope.len;
    struct queue_flow *_Atomic *at = place(f, wanted->id);
    struct entry *e = at == NULL ? NULL : malloc(sizeof(*e) + bytes);
    char *names;

    if (e == NULL)
        return NULL;
    ASSERT(find_any(f, wanted->id) == NULL || find_any(f, wanted->id) == &f->lost);
    names = e->names;
    e->sums = (struct queue_flow_sums){0};
    e->flow = (struct queue_flow){.id = wanted->id, .priority = wanted->priority, .sums = &e->sums};
    e->flow.tenant = copy_name(&names, wanted->tenant);
    e->flow.campaign = copy_name(&names, wanted->campaign);
    e->flow.pool = copy_name(&names, wanted->pool);
    e->flow.signer = copy_name(&names, wanted->signer);
    e->flow.envelope = copy_name(&names, wanted->envelope);
    ASSERT(names == e->names + bytes);
    map_insert(&f->by_name, &e->node, hash);
    atomic_store_explicit(at, &e->flow, memory_order_release);
    return &e->flow;
}

static const struct queue_flow *find_id(const struct flows *f, uint32_t id)
{
    const struct queue_flow *flow = find_any(f, id);

    return flow == &f->lost ? NULL : flow;
}

int flows_add(struct flows *f, const struct queue_flow *stored)
{
    const struct queue_flow *known = find_id(f, stored->id);
    uint64_t hash = name_hash(stored);

    if (stored->id == 0 || stored->id >= FLOW_IDS || stored->tenant.len > FLOW_NAME_MAX ||
        stored->campaign.len > FLOW_NAME_MAX || stored->pool.len > FLOW_NAME_MAX ||
        stored->signer.len > FLOW_DOMAIN_MAX || stored->envelope.len > FLOW_DOMAIN_MAX)
        return -EBADMSG;
    if (known != NULL) /* each shard that stores a flow adds it */
        return find_name(f, stored, hash) == known ? 0 : -EBADMSG;
    return insert(f, stored, hash) == NULL ? -ENOMEM : 0;
}

int flows_reserve(struct flows *f, uint32_t id)
{
    struct queue_flow *_Atomic *at;

    if (id == 0 || id >= FLOW_IDS)
        return 0;
    at = place(f, id);
    if (at == NULL)
        return -ENOMEM;
    if (atomic_load_explicit(at, memory_order_relaxed) == NULL)
        atomic_store_explicit(at, &f->lost, memory_order_release);
    return 0;
}

void flows_count(struct flows *f, uint32_t id, int64_t delta)
{
    const struct queue_flow *flow = find_id(f, id);

    if (flow != NULL)
        atomic_fetch_add_explicit(&flow->sums->rows, delta, memory_order_relaxed);
}

/* An id without a flow. There is one: flows and lost ones are far fewer than ids. */
static uint32_t id_take(struct flows *f)
{
    for (uint32_t i = 0; i < FLOW_IDS; i++) {
        uint32_t id = f->next_id;

        f->next_id = id + 1 < FLOW_IDS ? id + 1 : 1;
        if (find_any(f, id) == NULL)
            return id;
    }
    return 0;
}

static const struct queue_flow *find_or_make(struct flows *f, struct queue_flow *wanted,
                                             uint32_t flows_max)
{
    uint64_t hash = name_hash(wanted);
    const struct queue_flow *flow = find_name(f, wanted, hash);

    if (flow == NULL && f->by_name.count < flows_max) {
        wanted->id = id_take(f);
        flow = wanted->id == 0 ? NULL : insert(f, wanted, hash);
    }
    return flow;
}

static struct str name_cut(struct str name)
{
    return (struct str){name.ptr, name.len < FLOW_NAME_MAX ? name.len : FLOW_NAME_MAX};
}

const struct queue_flow *queue_flow_like(struct queue *q, const struct queue_flow *like)
{
    struct queue_flow wanted = {.priority = like->priority,
                                .tenant = name_cut(like->tenant),
                                .campaign = name_cut(like->campaign),
                                .pool = name_cut(like->pool),
                                .signer = like->signer,
                                .envelope = like->envelope};
    struct flows *f = &q->flows;
    const struct queue_flow *flow;

    ASSERT(wanted.priority < FLOW_PRIORITIES && wanted.signer.len <= FLOW_DOMAIN_MAX &&
           wanted.envelope.len <= FLOW_DOMAIN_MAX);
    pthread_mutex_lock(&f->lock);
    /* Senders choose their envelopes: those leave room for campaigns. */
    flow = find_or_make(f, &wanted, wanted.envelope.len > 0 ? FLOWS_MAX / 4 : FLOWS_MAX / 2);
    pthread_mutex_unlock(&f->lock);
    ASSERT(flow == NULL || (flow->priority == wanted.priority && flow != &f->lost));
    return flow;
}

const struct queue_flow *queue_flow_get(struct queue *q, uint8_t priority, struct str tenant,
                                        struct str campaign, struct str pool)
{
    struct queue_flow wanted = {.priority = priority,
                                .tenant = name_cut(tenant),
                                .campaign = name_cut(campaign),
                                .pool = name_cut(pool)};
    struct flows *f = &q->flows;
    const struct queue_flow *flow;

    ASSERT(wanted.priority < FLOW_PRIORITIES);
    pthread_mutex_lock(&f->lock);
    flow = find_or_make(f, &wanted, FLOWS_MAX / 2);
    wanted.campaign = (struct str){0};
    if (flow == NULL)
        flow = find_or_make(f, &wanted, FLOWS_MAX / 4 * 3);
    wanted.tenant = (struct str){0};
    if (flow == NULL)
        flow = find_or_make(f, &wanted, FLOWS_MAX);
    pthread_mutex_unlock(&f->lock);
    ASSERT(flow == NULL || (flow->priority == wanted.priority && flow != &f->lost));
    return flow;
}

void queue_flows_visit(struct queue *q, void (*visit)(void *arg, const struct queue_flow *flow),
                       void *arg)
{
    for (uint32_t i = 0; i < FLOWS_CHUNKS; i++) {
        struct flows_chunk *chunk = atomic_load_explicit(&q->flows.chunks[i], memory_order_acquire);

        for (uint32_t id = i * FLOWS_CHUNK; chunk != NULL && id < (i + 1) * FLOWS_CHUNK; id++) {
            const struct queue_flow *flow = find_id(&q->flows, id);

            if (flow != NULL)
                visit(arg, flow);
        }
    }
}

const struct queue_flow *queue_flow_find(const struct queue *q, uint32_t id)
{
    return find_id(&q->flows, id);
}

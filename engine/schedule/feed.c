#include "schedule/feed.h"

#include <stdlib.h>

#include "schedule/lane.h"

/* A share: what a tenant may take beside other tenants, or a flow beside others of its tenant. */
struct share {
    struct list_node node; /* among those that it shares with, while it takes part */
    int64_t credit;        /* recipients; it is served while this is above 0 */
    uint32_t weight;       /* added to credit when the share's turn comes again */
};

struct feed_tenant {
    struct share share;
    struct map_node node; /* feed->tenants */
    struct str name;      /* a flow's, which lives as long as the queue */
    struct list flows;    /* that take part */
    uint32_t flows_len;   /* in all */
    uint8_t band;
};

struct feed_flow {
    struct share share;
    struct map_node node; /* feed->flows */
    struct list_node idle_node;
    struct feed_tenant *tenant;
    struct list lanes; /* that are ready, in order of their turns */
    uint32_t id;
};

void feed_init(struct feed *f)
{
    *f = (struct feed){0};
    for (int i = 0; i < FLOW_PRIORITIES; i++)
        list_init(&f->bands[i]);
    list_init(&f->idle);
}

static uint64_t flow_hash(uint32_t id)
{
    return id * UINT64_C(0x9e3779b97f4a7c15);
}

static void flow_free(struct feed *f, struct feed_flow *flow)
{
    struct feed_tenant *t = flow->tenant;

    ASSERT(list_empty(&flow->lanes) && t->flows_len > 0);
    list_remove(&flow->idle_node);
    f->idle_len--;
    map_remove(&f->flows, &flow->node);
    free(flow);
    if (--t->flows_len > 0)
        return;
    ASSERT(list_empty(&t->flows));
    map_remove(&f->tenants, &t->node);
    free(t);
}

void feed_done(struct feed *f)
{
    struct list_node *n;

    ASSERT(feed_empty(f));
    while ((n = list_first(&f->idle)) != NULL)
        flow_free(f, LIST_ENTRY(n, struct feed_flow, idle_node));
    if (f->flows.buckets == NULL)
        return;
    ASSERT(f->flows.count == 0 && f->tenants.count == 0);
    map_done(&f->flows);
    map_done(&f->tenants);
}

/* --- shares --- */

static struct feed_flow *flow_find(const struct feed *f, uint32_t id)
{
    uint64_t hash = flow_hash(id);

    for (struct map_node *n = map_find(&f->flows, hash); n != NULL; n = map_find_next(n)) {
        struct feed_flow *flow = CONTAINER_OF(n, struct feed_flow, node);

        if (flow->id == id)
            return flow;
    }
    return NULL;
}

static struct feed_tenant *tenant_get(struct feed *f, uint8_t band, struct str name,
                                      uint32_t weight)
{
    uint64_t hash = hash_bytes(name.ptr, name.len, band);
    struct feed_tenant *t;

    for (struct map_node *n = map_find(&f->tenants, hash); n != NULL; n = map_find_next(n)) {
        t = CONTAINER_OF(n, struct feed_tenant, node);
        if (t->band == band && str_eq(t->name, name))
            return t;
    }
    t = calloc(1, sizeof(*t));
    ASSERT(t != NULL);
    t->name = name;
    t->band = band;
    t->share.weight = weight;
    list_init(&t->flows);
    map_insert(&f->tenants, &t->node, hash);
    return t;
}

/* A new flow is idle: it takes no part until a lane of it is added. */
static struct feed_flow *flow_new(struct feed *f, const struct lane *lane,
                                  struct feed_weights weights)
{
    struct feed_flow *flow = calloc(1, sizeof(*flow));
    int err = 0;

    ASSERT(flow != NULL);
    if (f->flows.buckets == NULL) {
        err = map_init(&f->flows, 4);
        err = err < 0 ? err : map_init(&f->tenants, 4);
    }
    ASSERT(err == 0);
    flow->id = lane->flow;
    flow->share.weight = weights.flow;
    flow->tenant = tenant_get(f, lane_priority(lane), lane_tenant(lane), weights.tenant);
    flow->tenant->flows_len++;
    list_init(&flow->lanes);
    map_insert(&f->flows, &flow->node, flow_hash(flow->id));
    list_push_back(&f->idle, &flow->idle_node);
    f->idle_len++;
    return flow;
}

static void share_join(struct list *shares, struct share *s)
{
    ASSERT(s->weight > 0);
    if (s->credit > 0)
        s->credit = 0;
    list_push_back(shares, &s->node);
}

static void flow_join(struct feed *f, struct feed_flow *flow)
{
    struct feed_tenant *t = flow->tenant;

    ASSERT(f->idle_len > 0 && list_empty(&flow->lanes));
    list_remove(&flow->idle_node);
    f->idle_len--;
    if (list_empty(&t->flows))
        share_join(&f->bands[t->band], &t->share);
    share_join(&t->flows, &flow->share);
    f->busy |= 1u << t->band;
}

static void flow_leave(struct feed *f, struct feed_flow *flow)
{
    struct feed_tenant *t = flow->tenant;

    ASSERT(list_empty(&flow->lanes) && (f->busy & 1u << t->band) != 0);
    list_remove(&flow->share.node);
    if (list_empty(&t->flows))
        list_remove(&t->share.node);
    if (list_empty(&f->bands[t->band]))
        f->busy &= ~(1u << t->band);
    list_push_back(&f->idle, &flow->idle_node);
    if (++f->idle_len > FEED_IDLE_MAX)
        flow_free(f, LIST_ENTRY(list_first(&f->idle), struct feed_flow, idle_node));
}

/* --- lanes --- */

void feed_add(struct feed *f, struct lane *lane, struct feed_weights (*weigh)(const struct lane *))
{
    struct feed_flow *flow;

    if (list_node_linked(&lane->ready_node))
        return;
    flow = f->flows.buckets == NULL ? NULL : flow_find(f, lane->flow);
    if (flow == NULL)
        flow = flow_new(f, lane, weigh(lane));
    if (list_empty(&flow->lanes))
        flow_join(f, flow);
    list_push_back(&flow->lanes, &lane->ready_node);
    lane->share = flow;
}

void feed_remove(struct feed *f, struct lane *lane)
{
    if (!list_node_linked(&lane->ready_node))
        return;
    list_remove(&lane->ready_node);
    ASSERT(lane->share != NULL && lane->share->id == lane->flow);
    if (list_empty(&lane->share->lanes))
        flow_leave(f, lane->share);
    lane->share = NULL;
}

/* All of shares are in debt: passes the laps that would leave each of them so. */
static void shares_skip_laps(struct list *shares)
{
    int64_t laps = INT64_MAX;

    for (struct list_node *n = list_first(shares); n != NULL; n = list_next(shares, n)) {
        const struct share *s = LIST_ENTRY(n, struct share, node);

        laps = -s->credit / s->weight < laps ? -s->credit / s->weight : laps;
    }
    for (struct list_node *n = list_first(shares); n != NULL; n = list_next(shares, n)) {
        struct share *s = LIST_ENTRY(n, struct share, node);

        s->credit += laps * s->weight;
        ASSERT(s->credit <= 0); /* nobody gets credit that another lap would have given first */
    }
}

/* The first of shares that has credit. Those in front of it are in debt, get their weight and go
 * behind the others. Two laps at most, and one of them only after each has been served. */
static struct share *share_next(struct list *shares)
{
    struct share *first = LIST_ENTRY(list_first(shares), struct share, node);

    for (struct share *s = first;; s = LIST_ENTRY(list_first(shares), struct share, node)) {
        if (s->credit <= 0 && list_next(shares, &s->node) == NULL)
            s->credit = 0; /* a share that is alone owes nobody */
        if (s->credit <= 0)
            s->credit += s->weight;
        if (s->credit > 0)
            return s;
        list_remove(&s->node);
        list_push_back(shares, &s->node);
        if (LIST_ENTRY(list_first(shares), struct share, node) == first)
            shares_skip_laps(shares);
    }
}

struct lane *feed_next(struct feed *f)
{
    struct feed_tenant *t;
    struct feed_flow *flow;

    if (f->busy == 0)
        return NULL;
    t = CONTAINER_OF(share_next(&f->bands[__builtin_ctz(f->busy)]), struct feed_tenant, share);
    flow = CONTAINER_OF(share_next(&t->flows), struct feed_flow, share);
    ASSERT(flow->tenant == t && !list_empty(&flow->lanes));
    return LIST_ENTRY(list_first(&flow->lanes), struct lane, ready_node);
}

/* Takes the recipients off the credit of s. A share whose last lane has left pays too, if others
 * take part. */
static void share_pay(struct list *shares, struct share *s, size_t recipients)
{
    s->credit = list_empty(shares) ? 0 : s->credit - (int64_t)recipients;
    if (s->credit > 0 || !list_node_linked(&s->node))
        return;
    list_remove(&s->node);
    list_push_back(shares, &s->node);
}

static void flow_pay(struct feed *f, struct feed_flow *flow, size_t recipients)
{
    share_pay(&flow->tenant->flows, &flow->share, recipients);
    share_pay(&f->bands[flow->tenant->band], &flow->tenant->share, recipients);
}

void feed_turn(struct feed *f, struct lane *lane)
{
    ASSERT(lane->share != NULL && lane->share->id == lane->flow);
    list_remove(&lane->ready_node);
    list_push_back(&lane->share->lanes, &lane->ready_node);
    flow_pay(f, lane->share, 1);
}

void feed_pay_more(struct feed *f, const struct lane *lane, size_t recipients)
{
    struct feed_flow *flow = recipients == 0 ? NULL : flow_find(f, lane->flow);

    if (flow != NULL)
        flow_pay(f, flow, recipients);
}

struct lane *feed_first_beside(const struct feed *f, const struct lane *lane)
{
    struct feed_flow *flow = flow_find(f, lane->flow);
    struct list_node *n = flow == NULL ? NULL : list_first(&flow->lanes);

    return n == NULL ? NULL : LIST_ENTRY(n, struct lane, ready_node);
}

struct lane *feed_after(const struct lane *lane)
{
    struct list_node *n = list_next(&lane->share->lanes, &lane->ready_node);

    return n == NULL ? NULL : LIST_ENTRY(n, struct lane, ready_node);
}

#include "schedule/feed.h"

#include <errno.h>
#include <stdlib.h>

#include "schedule/lane.h"

#define NS_PER_MS UINT64_C(1000000)

/* A share: what a tenant may take beside other tenants, or a flow beside others of its tenant. */
struct share {
    struct list_node node; /* among those that it shares with, while it takes part */
    int64_t credit;        /* recipients; it is served while this is above 0 */
    uint32_t weight;       /* added to credit when the share's turn comes again */
    bool is_tenant;
    const struct limit *limit; /* of its own, or NULL */
    /* Not 0: it is held until then, monotonic. With lanes it is in feed->held meanwhile. */
    uint64_t held_ns;
    uint64_t held_since_ns; /* 0: its limit has refused nothing */
    enum governor_counts held_by;
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
    struct list lanes;         /* that are ready, in order of their turns */
    const struct limit *total; /* feed_limits.campaign_total */
    uint32_t version;          /* of the names that its lanes had when it was looked for */
    uint32_t id;
    struct warmup_set warmup;
    const struct limits_lowered *lowered; /* NULL: nothing is */
    uint32_t lowered_version;
};

#define LIMITS_OF_FLOW (3 + LIMITS_LOWERED_MAX)
#define ASIDE_NS       UINT64_MAX /* share->held_ns: until feed_set_back() */
#define BEGIN_LOOKED   32         /* shares */

void feed_init(struct feed *f)
{
    *f = (struct feed){0};
    for (int i = 0; i < FLOW_PRIORITIES; i++)
        list_init(&f->bands[i]);
    list_init(&f->idle);
    list_init(&f->held);
    list_init(&f->aside);
    f->held_ns = UINT64_MAX;
}

static uint64_t flow_hash(uint32_t id)
{
    return id * UINT64_C(0x9e3779b97f4a7c15);
}

static void limit_put(const struct feed *f, const struct limit *limit)
{
    if (f->put_limit != NULL)
        f->put_limit(limit);
}

static void flow_free(struct feed *f, struct feed_flow *flow)
{
    struct feed_tenant *t = flow->tenant;

    ASSERT(list_empty(&flow->lanes) && t->flows_len > 0);
    f->limited -= flow->share.limit != NULL;
    f->limited -= flow->total != NULL;
    f->limited -= flow->lowered != NULL;
    f->counting -= limit_of_sessions(flow->share.limit);
    if (t->share.limit != NULL && t->flows_len == 1) {
        f->limited--;
        f->counting -= limit_of_sessions(t->share.limit);
    }
    list_remove(&flow->idle_node);
    f->idle_len--;
    map_remove(&f->flows, &flow->node);
    limit_put(f, flow->share.limit);
    limit_put(f, flow->total);
    free(flow);
    if (--t->flows_len > 0)
        return;
    ASSERT(list_empty(&t->flows));
    map_remove(&f->tenants, &t->node);
    limit_put(f, t->share.limit);
    free(t);
}

void feed_done(struct feed *f)
{
    struct list_node *n;

    ASSERT(feed_empty(f) && list_empty(&f->held) && list_empty(&f->aside));
    while ((n = list_first(&f->idle)) != NULL)
        flow_free(f, LIST_ENTRY(n, struct feed_flow, idle_node));
    if (f->flows.buckets == NULL)
        return;
    ASSERT(f->flows.count == 0 && f->tenants.count == 0 && f->limited == 0);
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

static void limit_set(struct feed *f, struct share *s, const struct limit *limit)
{
    s->limit = limit;
    f->limited += limit != NULL;
    f->counting += limit_of_sessions(limit);
    if (limit != NULL && f->paced)
        s->held_ns = 1; /* feed_release() says when it may look for a message that can go */
}

/* Where a campaign has a rate over all sites its feeds' shares look one behind the other, this one
 * with the next look of its feed. */
static void total_set(struct feed *f, struct feed_flow *flow, const struct limit *total)
{
    f->limited += total != NULL;
    f->limited -= flow->total != NULL;
    limit_put(f, flow->total);
    flow->total = total;
    if (total != NULL || flow->share.held_ns != 0)
        flow->share.held_ns = 1;
}

static struct feed_tenant *tenant_get(struct feed *f, uint8_t band, struct str name,
                                      uint32_t weight, const struct limit *limit)
{
    uint64_t hash = hash_bytes(name.ptr, name.len, band);
    struct feed_tenant *t;

    for (struct map_node *n = map_find(&f->tenants, hash); n != NULL; n = map_find_next(n)) {
        t = CONTAINER_OF(n, struct feed_tenant, node);
        if (t->band == band && str_eq(t->name, name)) {
            limit_put(f, limit); /* it has it */
            return t;
        }
    }
    t = calloc(1, sizeof(*t));
    ASSERT(t != NULL);
    t->name = name;
    t->band = band;
    t->share.weight = weight;
    t->share.is_tenant = true;
    limit_set(f, &t->share, limit);
    list_init(&t->flows);
    map_insert(&f->tenants, &t->node, hash);
    return t;
}

/* A new flow is idle: it takes no part until a lane of it is added. */
static struct feed_flow *flow_new(struct feed *f, const struct lane *lane,
                                  struct feed_weights weights)
{
    struct feed_flow *flow = calloc(1, sizeof(*flow));
    struct feed_limits limits = {0};
    int err = 0;

    ASSERT(flow != NULL);
    if (f->limits_of != NULL)
        limits = f->limits_of(lane);
    if (f->flows.buckets == NULL) {
        err = map_init(&f->flows, 4);
        err = err < 0 ? err : map_init(&f->tenants, 4);
    }
    ASSERT(err == 0);
    flow->id = lane_shares_as(lane);
    flow->share.weight = weights.flow;
    limit_set(f, &flow->share, limits.campaign);
    flow->warmup = limits.warmup;
    if (!warmup_set_empty(&flow->warmup))
        flow->share.held_ns = 1; /* feed_release() says whether it may look */
    flow->version = lane->names_version;
    total_set(f, flow, limits.campaign_total);
    flow->tenant =
        tenant_get(f, lane_priority(lane), lane_tenant(lane), weights.tenant, limits.tenant);
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

/* s has lanes, and its limit says wait. */
static void share_wait(struct feed *f, struct share *s)
{
    ASSERT(s->held_ns != 0 && !list_node_linked(&s->node));
    if (s->held_ns == ASIDE_NS) {
        list_push_back(&f->aside, &s->node);
        return;
    }
    list_push_back(&f->held, &s->node);
    if (s->held_ns < f->held_ns)
        f->held_ns = s->held_ns;
}

static void tenant_enter(struct feed *f, struct feed_tenant *t)
{
    if (t->share.held_ns != 0) {
        share_wait(f, &t->share);
        return;
    }
    share_join(&f->bands[t->band], &t->share);
    f->busy |= 1u << t->band;
}

static void tenant_exit(struct feed *f, struct feed_tenant *t)
{
    list_remove(&t->share.node);
    if (list_empty(&f->bands[t->band]))
        f->busy &= ~(1u << t->band);
}

static void flow_enter(struct feed *f, struct feed_flow *flow)
{
    struct feed_tenant *t = flow->tenant;

    ASSERT(!list_empty(&flow->lanes));
    if (flow->share.held_ns != 0) {
        share_wait(f, &flow->share);
        return;
    }
    if (list_empty(&t->flows))
        tenant_enter(f, t);
    share_join(&t->flows, &flow->share);
}

static void flow_exit(struct feed *f, struct feed_flow *flow)
{
    list_remove(&flow->share.node);
    if (flow->share.held_ns == 0 && list_empty(&flow->tenant->flows))
        tenant_exit(f, flow->tenant);
}

/* Its first lane is there. */
static void flow_join(struct feed *f, struct feed_flow *flow)
{
    ASSERT(f->idle_len > 0);
    list_remove(&flow->idle_node);
    f->idle_len--;
    flow_enter(f, flow);
}

static void flow_leave(struct feed *f, struct feed_flow *flow)
{
    ASSERT(list_empty(&flow->lanes));
    flow_exit(f, flow);
    if (limit_of_sessions(flow->share.limit))
        f->on_idle(flow->share.limit);
    if (limit_of_sessions(flow->tenant->share.limit) && list_empty(&flow->tenant->flows))
        f->on_idle(flow->tenant->share.limit);
    list_push_back(&f->idle, &flow->idle_node);
    if (++f->idle_len > FEED_IDLE_MAX)
        flow_free(f, LIST_ENTRY(list_first(&f->idle), struct feed_flow, idle_node));
}

/* --- lanes --- */

/* The campaign was set to another rate. Other lanes of the flow may be ready: it takes no part, or
 * is held, by what it was until it has the new limit. */
static void flow_renew(struct feed *f, struct feed_flow *flow, const struct lane *lane)
{
    bool is_ready = !list_empty(&flow->lanes);
    struct feed_limits limits = {0};

    if (is_ready)
        flow_exit(f, flow);
    flow->version = lane->names_version;
    if (f->limits_of != NULL)
        limits = f->limits_of(lane);
    limit_put(f, limits.tenant);
    limit_put(f, limits.campaign);
    total_set(f, flow, limits.campaign_total);
    if (is_ready)
        flow_enter(f, flow);
}

void feed_add(struct feed *f, struct lane *lane, struct feed_weights (*weigh)(const struct lane *))
{
    struct feed_flow *flow;

    if (list_node_linked(&lane->ready_node))
        return;
    flow = f->flows.buckets == NULL ? NULL : flow_find(f, lane_shares_as(lane));
    if (flow == NULL)
        flow = flow_new(f, lane, weigh(lane));
    else if (flow->version != lane->names_version)
        flow_renew(f, flow, lane);
    list_push_back(&flow->lanes, &lane->ready_node);
    if (list_first(&flow->lanes) == &lane->ready_node)
        flow_join(f, flow);
    lane->share = flow;
}

void feed_remove(struct feed *f, struct lane *lane)
{
    if (!list_node_linked(&lane->ready_node))
        return;
    list_remove(&lane->ready_node);
    ASSERT(lane->share != NULL && lane->share->id == lane_shares_as(lane));
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
    if (s->credit > 0 || !list_node_linked(&s->node) || s->held_ns != 0)
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
    ASSERT(lane->share != NULL && lane->share->id == lane_shares_as(lane));
    list_remove(&lane->ready_node);
    list_push_back(&lane->share->lanes, &lane->ready_node);
    flow_pay(f, lane->share, 1);
}

void feed_pay_more(struct feed *f, const struct lane *lane, size_t recipients)
{
    struct feed_flow *flow = recipients == 0 ? NULL : flow_find(f, lane_shares_as(lane));

    if (flow != NULL)
        flow_pay(f, flow, recipients);
}

/* --- limits --- */

/* All that there are; how many. */
static size_t limits_of_flow(const struct feed_flow *flow, const struct limit *out[LIMITS_OF_FLOW])
{
    size_t len = 0;

    if (flow->total != NULL)
        out[len++] = flow->total;
    if (flow->share.limit != NULL)
        out[len++] = flow->share.limit;
    if (flow->tenant->share.limit != NULL)
        out[len++] = flow->tenant->share.limit;
    for (size_t i = 0; flow->lowered != NULL && i < flow->lowered->len; i++)
        out[len++] = &flow->lowered->of[i];
    return len;
}

int feed_limits_take(const struct lane *lane, uint64_t now_ns, const struct governor_load *load,
                     struct limit_denial *why)
{
    const struct limit *limits[LIMITS_OF_FLOW];
    size_t len = limits_of_flow(lane->share, limits);

    for (size_t i = 0; i < len; i++) {
        if (limits_take(limits[i], 1, now_ns, load, why) == 0)
            continue;
        while (i-- > 0)
            limits_give(limits[i], 1, now_ns, load, 0);
        return -EAGAIN;
    }
    return 0;
}

/* The limits of a lane that may have left the feed; out has those that there are in front. */
static size_t limits_find(const struct feed *f, const struct lane *lane,
                          const struct limit *out[LIMITS_OF_FLOW])
{
    const struct feed_flow *flow = f->limited == 0 ? NULL : flow_find(f, lane_shares_as(lane));

    return flow == NULL ? 0 : limits_of_flow(flow, out);
}

void feed_limits_give(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                      const struct governor_load *load, uint64_t ago_ns)
{
    const struct limit *limits[LIMITS_OF_FLOW];
    size_t len = limits_find(f, lane, limits);

    for (size_t i = 0; i < len; i++)
        limits_give(limits[i], 1, now_ns, load, ago_ns);
}

int feed_limits_ask(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                    struct limit_denial *why)
{
    const struct limit *limits[LIMITS_OF_FLOW];
    size_t len = limits_find(f, lane, limits);
    struct limit_denial one;
    int err = 0;

    for (size_t i = 0; i < len; i++) {
        if (limits_ask(limits[i], 1, now_ns, &one) == 0 ||
            (err < 0 && one.until_ns <= why->until_ns))
            continue;
        *why = one;
        err = -EAGAIN;
    }
    return err;
}

uint32_t feed_limits_more(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                          uint32_t want)
{
    const struct limit *limits[LIMITS_OF_FLOW];
    size_t len = limits_find(f, lane, limits);

    for (size_t i = 0; i < len; i++) {
        uint32_t may = limits_more(limits[i], 1, now_ns, want);

        for (size_t k = 0; k < i; k++)
            limits_give_recipients(limits[k], 1, now_ns, want - may);
        want = may;
    }
    return want;
}

void feed_limits_give_recipients(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                                 uint32_t n)
{
    const struct limit *limits[LIMITS_OF_FLOW];
    size_t len = limits_find(f, lane, limits);

    for (size_t i = 0; i < len; i++)
        limits_give_recipients(limits[i], 1, now_ns, n);
}

void feed_limits_more_bytes(const struct feed *f, const struct lane *lane, uint64_t now_ns,
                            int64_t bytes)
{
    const struct limit *limits[LIMITS_OF_FLOW];
    size_t len = limits_find(f, lane, limits);

    for (size_t i = 0; i < len; i++)
        limits_more_bytes(limits[i], 1, now_ns, bytes);
}

const struct limits_lowered *feed_lowered(const struct feed *f, const struct lane *lane,
                                          uint32_t *version)
{
    const struct feed_flow *flow = lane->share;

    if (flow == NULL && f->flows.buckets != NULL)
        flow = flow_find(f, lane_shares_as(lane));
    *version = flow == NULL ? 0 : flow->lowered_version;
    return flow == NULL ? NULL : flow->lowered;
}

void feed_look_lowered(struct feed *f)
{
    struct map_node *n = NULL;
    size_t bucket = 0;

    if (f->limited == 0)
        return;
    while ((n = map_walk(&f->flows, &bucket, n)) != NULL) {
        struct feed_flow *flow = CONTAINER_OF(n, struct feed_flow, node);

        if (flow->lowered == NULL || flow->share.held_ns == 0 || flow->share.held_ns == ASIDE_NS)
            continue;
        flow->share.held_ns = 1; /* feed_release() says whether it may look */
        f->held_ns = 1;
    }
}

void feed_lower(struct feed *f, const struct lane *lane, const struct limits_lowered *lowered,
                uint32_t version)
{
    struct feed_flow *flow = lane->share;

    f->limited += lowered != NULL;
    f->limited -= flow->lowered != NULL;
    flow->lowered = lowered;
    flow->lowered_version = version;
}

uint64_t feed_limits_apart_ns(const struct feed *f, const struct lane *lane, uint64_t now_ns)
{
    const struct limit *limits[LIMITS_OF_FLOW];
    size_t len = limits_find(f, lane, limits);
    uint64_t apart_ns = 0;

    for (size_t i = 0; i < len; i++) {
        uint64_t one_ns = governor_apart_ns(limits[i]->entry, now_ns);

        apart_ns = one_ns > apart_ns ? one_ns : apart_ns;
    }
    return apart_ns;
}

void feed_hold(struct feed *f, const struct lane *lane, uint64_t now_ns,
               const struct limit_denial *why)
{
    struct feed_flow *flow = lane->share;
    bool tenant = why->kind == LIMIT_TENANT;
    struct share *s = tenant ? &flow->tenant->share : &flow->share;

    ASSERT(s->held_ns == 0 && why->until_ns > 0);
    if (tenant)
        tenant_exit(f, flow->tenant);
    else
        flow_exit(f, flow);
    s->held_ns = why->until_ns;
    s->held_since_ns = why->kind == LIMIT_WARMUP || limit_is_lowered(why->kind) ? 0 : now_ns;
    s->held_by = why->counts;
    share_wait(f, s);
}

static void share_release(struct feed *f, struct share *s);

/* --- limits of sessions --- */

size_t feed_session_limits(const struct lane *lane, const struct limit *out[FEED_SESSION_LIMITS])
{
    const struct feed_flow *flow = lane->share;
    size_t len = 0;

    if (limit_of_sessions(flow->share.limit))
        out[len++] = flow->share.limit;
    if (limit_of_sessions(flow->tenant->share.limit))
        out[len++] = flow->tenant->share.limit;
    return len;
}

void feed_set_aside(struct feed *f, const struct lane *lane, const struct limit *limit,
                    uint64_t now_ns)
{
    struct feed_flow *flow = lane->share;
    bool tenant = limit == flow->tenant->share.limit;
    struct share *s = tenant ? &flow->tenant->share : &flow->share;

    ASSERT(s->limit == limit && s->held_ns == 0);
    if (tenant)
        tenant_exit(f, flow->tenant);
    else
        flow_exit(f, flow);
    s->held_ns = f->aside_len < FEED_ASIDE_MAX ? ASIDE_NS : now_ns + FEED_FULL_NS;
    f->aside_len += s->held_ns == ASIDE_NS;
    share_wait(f, s);
}

void feed_set_back(struct feed *f)
{
    struct list_node *n;

    f->aside_len = 0;
    while ((n = list_pop_front(&f->aside)) != NULL)
        share_release(f, LIST_ENTRY(n, struct share, node));
}

/* Whether no further session may begin to have mail of s. */
static bool is_full(const struct share *s, uint64_t now_ns)
{
    return limit_of_sessions(s->limit) && (governor_sessions_full(s->limit->entry, now_ns) ||
                                           governor_connect_at(s->limit->entry) > now_ns);
}

/* Asks visit() about the shares that take part, the best band first: of a tenant that is full about
 * the tenant, else about its flows. False: visit() said that it is enough, or BEGIN_LOOKED were
 * looked at. */
static bool shares_walk(const struct feed *f, uint64_t now_ns,
                        bool (*visit)(const struct feed *f, const struct share *s, bool full))
{
    int looked = 0;

    for (uint32_t bands = f->busy; bands != 0; bands &= bands - 1) {
        const struct list *tenants = &f->bands[__builtin_ctz(bands)];

        for (struct list_node *n = list_first(tenants); n != NULL; n = list_next(tenants, n)) {
            const struct feed_tenant *t = LIST_ENTRY(n, struct feed_tenant, share.node);
            bool full = is_full(&t->share, now_ns);

            if (++looked > BEGIN_LOOKED || (full && !visit(f, &t->share, true)))
                return false;
            for (struct list_node *m = full ? NULL : list_first(&t->flows); m != NULL;
                 m = list_next(&t->flows, m)) {
                const struct share *s = &LIST_ENTRY(m, struct feed_flow, share.node)->share;

                if (++looked > BEGIN_LOOKED || !visit(f, s, is_full(s, now_ns)))
                    return false;
            }
        }
    }
    return true;
}

static bool visit_until_room(const struct feed *f, const struct share *s, bool full)
{
    (void)f;
    (void)s;
    return full;
}

bool feed_may_begin(const struct feed *f, uint64_t now_ns)
{
    return !shares_walk(f, now_ns, visit_until_room);
}

static bool visit_lack(const struct feed *f, const struct share *s, bool full)
{
    if (full)
        f->on_lack(s->limit);
    return true;
}

void feed_lack(const struct feed *f, uint64_t now_ns)
{
    (void)shares_walk(f, now_ns, visit_lack);
}

const struct limit *feed_sessions_full(const struct feed *f, const struct lane *lane,
                                       uint64_t now_ns)
{
    const struct feed_flow *flow = f->counting == 0 ? NULL : flow_find(f, lane_shares_as(lane));

    if (flow == NULL)
        return NULL;
    return is_full(&flow->share, now_ns)           ? flow->share.limit
           : is_full(&flow->tenant->share, now_ns) ? flow->tenant->share.limit
                                                   : NULL;
}

static void share_release(struct feed *f, struct share *s)
{
    s->held_ns = s->held_since_ns = 0;
    if (s->is_tenant)
        tenant_enter(f, CONTAINER_OF(s, struct feed_tenant, share));
    else
        flow_enter(f, CONTAINER_OF(s, struct feed_flow, share));
}

const struct warmup_set *feed_warmup(const struct feed *f, const struct lane *lane)
{
    static const struct warmup_set none = {0};
    const struct feed_flow *flow = lane->share;

    if (flow == NULL && f->flows.buckets != NULL)
        flow = flow_find(f, lane_shares_as(lane));
    return flow == NULL ? &none : &flow->warmup;
}

bool feed_is_held(const struct feed *f, const struct lane *lane, uint64_t until_ns)
{
    const struct feed_flow *flow =
        f->flows.buckets == NULL ? NULL : flow_find(f, lane_shares_as(lane));

    return flow != NULL &&
           (flow->share.held_ns > until_ns || flow->tenant->share.held_ns > until_ns);
}

/* Whether the time of s has come; else it is looked at again at s->held_ns. */
static bool may_return(const struct feed *f, struct share *s, uint64_t now_ns, bool ready,
                       uint64_t (*warms_at)(void *arg, const struct warmup_set *set), void *arg)
{
    const struct feed_flow *flow = s->is_tenant ? NULL : CONTAINER_OF(s, struct feed_flow, share);
    const struct limit *total = flow == NULL ? NULL : flow->total;
    const struct limit *shared = total != NULL ? total : f->paced && !ready ? s->limit : NULL;
    uint64_t until_ns = s->held_ns;

    if (until_ns <= now_ns && flow != NULL)
        until_ns = warms_at(arg, &flow->warmup);
    if (until_ns <= now_ns && shared != NULL) {
        until_ns = limits_message_at(shared, 1, now_ns);
        if (until_ns <= now_ns)
            until_ns = governor_try(shared->entry, now_ns);
        if (until_ns > now_ns && total != NULL) {
            uint64_t line_ns = governor_line(total->entry, now_ns);

            until_ns = line_ns > until_ns ? line_ns : until_ns;
        }
    }
    if (until_ns > now_ns)
        s->held_ns = until_ns;
    return until_ns <= now_ns;
}

void feed_release(struct feed *f, uint64_t now_ns, bool ready,
                  uint64_t (*warms_at)(void *arg, const struct warmup_set *set),
                  void (*held)(void *arg, const struct limit *limit, enum governor_counts counts,
                               uint64_t ms),
                  void *arg)
{
    struct list due;
    struct list_node *n;

    list_init(&due);
    while (f->held_ns <= now_ns) { /* again where a flow that returns brings a held tenant */
        list_splice_back(&due, &f->held);
        f->held_ns = UINT64_MAX;
        while ((n = list_pop_front(&due)) != NULL) {
            struct share *s = LIST_ENTRY(n, struct share, node);

            if (!may_return(f, s, now_ns, ready, warms_at, arg)) {
                share_wait(f, s);
                continue;
            }
            if (s->held_since_ns != 0 && s->limit != NULL)
                held(arg, s->limit, s->held_by, (now_ns - s->held_since_ns) / NS_PER_MS);
            share_release(f, s);
        }
    }
}

struct lane *feed_first_beside(const struct feed *f, const struct lane *lane)
{
    struct feed_flow *flow = flow_find(f, lane_shares_as(lane));
    struct list_node *n = flow == NULL ? NULL : list_first(&flow->lanes);

    return n == NULL ? NULL : LIST_ENTRY(n, struct lane, ready_node);
}

struct lane *feed_after(const struct lane *lane)
{
    struct list_node *n = list_next(&lane->share->lanes, &lane->ready_node);

    return n == NULL ? NULL : LIST_ENTRY(n, struct lane, ready_node);
}

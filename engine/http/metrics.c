/* GET /metrics: OpenMetrics text. Counters are read where they are; what belongs to workers is
 * gathered by a walk through their lanes and sites, a slice a turn, while the request is suspended.
 * Series are bounded: the largest sites and tenants have one of their own, the others are summed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/map.h"
#include "http/http_private.h"
#include "http/metrics_private.h"
#include "intake/accept.h"
#include "schedule/lane.h"
#include "schedule/lane_walk.h"
#include "schedule/site.h"
#include "worker/campaigns.h"
#include "worker/counters.h"

#define SLICE_WORK      2000 /* a worker's sites, in one turn */
#define GROUPS_MAX      20000
#define SERIES_MAX      100
#define CAMPAIGNS_SHOWN 50
#define WALKS_MAX       4
#define HASH_SEED       UINT64_C(0x6d657472696373)

/* Numbers of a site or tenant. */
struct group {
    struct map_node node;
    uint64_t rows, in_flight, sessions;
    size_t len;
    char name[];
};

enum walk_part { WALK_LANES, WALK_SITES, WALK_PARTS };

struct walk {
    struct worker_note note;
    struct http_request *request;
    char tenant[TOKEN_NAME_MAX + 1]; /* whose mail alone is told of; empty: all */
    uint32_t worker;
    enum walk_part part;
    size_t bucket;
    int64_t now_ms;
    struct map sites, tenants;
    struct group *other_sites, *other_tenants;
    struct metrics_waits waits;
};

/* --- groups --- */

static struct group *group_new(struct str name)
{
    struct group *g = calloc(1, sizeof(*g) + name.len);

    ASSERT(g != NULL);
    g->len = name.len;
    memcpy(g->name, name.ptr, name.len);
    return g;
}

static struct group *group_get(struct map *map, struct group *others, struct str name)
{
    uint64_t hash = hash_bytes(name.ptr, name.len, HASH_SEED);
    struct group *g;

    ASSERT(map->count <= GROUPS_MAX);
    for (struct map_node *n = map_find(map, hash); n != NULL; n = map_find_next(n)) {
        g = CONTAINER_OF(n, struct group, node);
        if (str_eq((struct str){g->name, g->len}, name))
            return g;
    }
    if (map->count >= GROUPS_MAX)
        return others;
    g = group_new(name);
    map_insert(map, &g->node, hash);
    return g;
}

static void group_add(struct group *to, const struct group *g)
{
    to->rows += g->rows;
    to->in_flight += g->in_flight;
    to->sessions += g->sessions;
}

static int by_size(const void *a, const void *b)
{
    const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;

    if (x->rows != y->rows)
        return x->rows > y->rows ? -1 : 1;
    return (x->sessions < y->sessions) - (x->sessions > y->sessions);
}

/* --- the walk, in the workers' threads --- */

static uint32_t see_lane(struct lane *lane, void *arg)
{
    struct walk *walk = arg;
    bool complete;
    uint64_t rows = queue_lane_rows(lane->worker->shared->queue, lane->shard, lane->flow,
                                    lane_name(lane), &complete);
    struct str tenant = lane_tenant(lane);
    struct group *site, *owner;

    if (walk->tenant[0] != '\0' && !str_eq(tenant, str_of(walk->tenant)))
        return 1;
    site = group_get(&walk->sites, walk->other_sites,
                     lane->site == NULL ? STR("(no route yet)") : str_of(lane->site->name));
    owner =
        group_get(&walk->tenants, walk->other_tenants, tenant.len == 0 ? STR("(none)") : tenant);
    site->rows += rows;
    site->in_flight += lane->in_flight;
    owner->rows += rows;
    owner->in_flight += lane->in_flight;
    return 1 + metrics_see_wait(&walk->waits, lane, rows);
}

static void see_site(struct walk *walk, const struct site *site)
{
    group_get(&walk->sites, walk->other_sites, str_of(site->name))->sessions += site->sessions_len;
}

static bool see_sites(struct walk *walk, const struct map *sites)
{
    ASSERT(walk->part == WALK_SITES);
    for (int i = 0; i < SLICE_WORK && walk->bucket < map_buckets(sites); i++, walk->bucket++)
        for (struct map_node *n = map_bucket(sites, walk->bucket); n != NULL; n = n->next)
            see_site(walk, CONTAINER_OF(n, struct site, node));
    return walk->bucket >= map_buckets(sites);
}

static bool slice(struct walk *walk, struct worker *w)
{
    if (walk->part == WALK_LANES)
        return lane_walk_slice(w, &walk->bucket, see_lane, walk);
    return walk->tenant[0] != '\0' || see_sites(walk, &w->sites); /* sessions are nobody's */
}

static void on_walk(struct worker *w, struct worker_note *note)
{
    struct walk *walk = CONTAINER_OF(note, struct walk, note);

    ASSERT(walk->worker == w->index && walk->part < WALK_PARTS);
    if (slice(walk, w)) {
        walk->bucket = 0;
        if (++walk->part == WALK_PARTS) {
            walk->part = WALK_LANES;
            walk->worker++;
        }
    }
    if (walk->worker < w->shared->workers_len)
        worker_send(w->shared, walk->worker, &walk->note); /* to itself: in its next turn */
    else
        request_resume(walk->request);
}

/* --- text --- */

static void put_counter(void *to, const char *name, uint64_t value, bool gauge)
{
    struct buf *out = to;
    size_t len = strlen(name);
    char family[64];

    /* "sessions_in_total" is a total beside the gauge "sessions_in". */
    if (len > 6 && strcmp(name + len - 6, "_total") == 0)
        snprintf(family, sizeof(family), "%.*s_begun", (int)len - 6, name);
    else
        snprintf(family, sizeof(family), "%s", name);
    put_family(out, family, gauge ? "gauge" : "counter", NULL);
    buf_printf(out, "hayauma_%s%s %" PRIu64 "\n", family, gauge ? "" : "_total", value);
}

static void put_gauge(struct buf *out, const char *name, const char *help, double value)
{
    put_family(out, name, "gauge", help);
    buf_printf(out, "hayauma_%s %.17g\n", name, value);
}

static void put_groups(struct buf *out, struct map *map, const struct group *others,
                       const char *label, bool sessions)
{
    struct group **sorted = calloc(map->count + 1, sizeof(*sorted)), rest = *others;
    size_t len = 0, bucket = 0, shown;
    static const struct {
        const char *name, *help;
        size_t offset;
    } values[] = {
        {"recipients", "Recipients in the queue", offsetof(struct group, rows)},
        {"in_flight", "Recipients in transactions", offsetof(struct group, in_flight)},
        {"sessions", "Sessions out", offsetof(struct group, sessions)},
    };

    ASSERT(sorted != NULL);
    for (struct map_node *n = map_walk(map, &bucket, NULL); n != NULL;
         n = map_walk(map, &bucket, n))
        sorted[len++] = CONTAINER_OF(n, struct group, node);
    ASSERT(len == map->count);
    qsort(sorted, len, sizeof(*sorted), by_size);
    shown = len < SERIES_MAX ? len : SERIES_MAX;
    for (size_t i = shown; i < len; i++)
        group_add(&rest, sorted[i]);
    for (size_t v = 0; v < ARRAY_LEN(values) - !sessions; v++) {
        char name[64];

        snprintf(name, sizeof(name), "%s_%s", label, values[v].name);
        put_family(out, name, "gauge", values[v].help);
        for (size_t i = 0; i <= shown; i++) {
            const struct group *g = i < shown ? sorted[i] : &rest;

            if (i == shown && len <= SERIES_MAX)
                break;
            buf_printf(out, "hayauma_%s", name);
            put_label(out, label, i < shown ? (struct str){g->name, g->len} : STR("(others)"));
            buf_printf(out, " %" PRIu64 "\n",
                       *(const uint64_t *)(const void *)((const char *)g + values[v].offset));
        }
    }
    free(sorted);
}

static void put_turns(struct buf *out, struct shared *shared)
{
    static const uint64_t limits_ms[] = TURN_MS_LIMITS;
    uint64_t count = 0, ns = 0;

    put_family(out, "turn_seconds", "histogram", "How long turns of workers took");
    for (size_t i = 0; i <= TURN_MS_LIMITS_LEN; i++) {
        for (uint32_t w = 0; w < shared->workers_len; w++)
            count += atomic_load_explicit(&shared->workers[w].turn.shared.turns[i],
                                          memory_order_relaxed);
        if (i < TURN_MS_LIMITS_LEN)
            buf_printf(out, "hayauma_turn_seconds_bucket{le=\"%g\"} %" PRIu64 "\n",
                       (double)limits_ms[i] / 1000, count);
        else
            buf_printf(out, "hayauma_turn_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", count);
    }
    for (uint32_t w = 0; w < shared->workers_len; w++)
        ns += atomic_load_explicit(&shared->workers[w].turn.shared.turns_ns, memory_order_relaxed);
    buf_printf(out, "hayauma_turn_seconds_count %" PRIu64 "\nhayauma_turn_seconds_sum %.9f\n",
               count, (double)ns / 1e9);
}

/* Of each worker, with what it was doing. */
static void put_longest(struct buf *out, struct shared *shared)
{
    static const struct {
        const char *name, *help;
        struct turn_longest (*of)(const struct turn_gauge *g, enum turn_time by);
        enum turn_time by;
    } families[] = {
        {"turn_longest_seconds", "The longest turn since the start", turn_longest, TURN_CLOCK},
        {"turn_longest_lately_seconds", "The longest turn of the last minute", turn_longest_lately,
         TURN_CLOCK},
        {"turn_cpu_longest_seconds", "The turn that took most CPU since the start", turn_longest,
         TURN_CPU},
        {"turn_cpu_longest_lately_seconds", "The turn that took most CPU in the last minute",
         turn_longest_lately, TURN_CPU},
    };

    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        put_family(out, families[i].name, "gauge", families[i].help);
        for (uint32_t w = 0; w < shared->workers_len; w++) {
            struct turn_longest t = families[i].of(&shared->workers[w].turn, families[i].by);

            buf_printf(out, "hayauma_%s{worker=\"%u\",doing=\"%s\"} %.6f\n", families[i].name, w,
                       turn_part_name(t.part), (double)t.us / 1e6);
        }
    }
}

static void put_queue(struct buf *out, struct queue *q)
{
    struct queue_counters sum = {.rows_complete = true};

    for (uint32_t i = 0; i < queue_shards(q); i++) {
        struct queue_counters one = {0};

        queue_counters(q, i, &one);
        queue_counters_add(&sum, &one);
    }
    put_gauge(out, "queue_recipients", "Recipients in the queue", (double)sum.rows);
    put_gauge(out, "queue_messages", "Messages in the queue", (double)sum.messages);
    put_family(out, "queue_commit_seconds", "summary", "How long commits took");
    buf_printf(out,
               "hayauma_queue_commit_seconds_count %" PRIu64
               "\nhayauma_queue_commit_seconds_sum %.9f\n",
               sum.commits, (double)sum.commit_ns_total / 1e9);
    put_counter(out, "queue_commit_errors", sum.commit_errors, false);
    put_gauge(out, "queue_quarantined", "Damaged records that were put aside",
              (double)sum.quarantined);
    put_gauge(out, "queue_map_bytes", "Room of the queue", (double)sum.map_bytes);
    put_gauge(out, "queue_map_used_bytes", "Room that is taken",
              (double)(sum.map_used_bytes - sum.map_reusable_bytes));
    put_gauge(out, "queue_disk_free_bytes", "Room of its disk", (double)sum.disk_free_bytes);
    put_gauge(out, "records_lag_bytes", "Records that wait for their file",
              (double)sum.records_lag);
    put_gauge(out, "intake_open", "1: mail is taken; 0: there is no room for it",
              accept_intake(q) == QUEUE_INTAKE_OK);
}

static void put_listeners(struct buf *out, const struct http_request *r)
{
    put_family(out, "listener_sessions", "gauge", "Sessions in");
    for (size_t i = 0; i < r->config->listeners_len; i++) {
        buf_puts(out, "hayauma_listener_sessions");
        put_label(out, "listener", str_of(r->config->listeners[i].name));
        buf_printf(
            out, " %u\n",
            atomic_load_explicit(&r->http->shared->listener_sessions[i], memory_order_relaxed));
    }
}

static void put_requests(struct buf *out, struct http *h)
{
    static const char *const classes[] = {"2xx", "4xx", "5xx"};

    put_family(out, "http_answers", "counter", "Requests of HTTP, by path and class of answer");
    for (size_t i = 0; i <= http_endpoints_len; i++)
        for (size_t j = 0; j < HTTP_COUNTED; j++)
            buf_printf(out,
                       "hayauma_http_answers_total{endpoint=\"%s\",class=\"%s\"} %" PRIu64 "\n",
                       i < http_endpoints_len ? http_endpoints[i].name : "other", classes[j],
                       atomic_load_explicit(&h->counts[i][j], memory_order_relaxed));
}

struct newest {
    const struct http_request *request;
    struct campaign campaigns[CAMPAIGNS_SHOWN]; /* a ring */
    size_t seen;
};

static void take_campaign(void *arg, const struct campaign *one)
{
    struct newest *n = arg;

    if (campaign_may_see(n->request, one))
        n->campaigns[n->seen++ % CAMPAIGNS_SHOWN] = *one;
}

/* The newest campaigns that the token may see, of each name the newest. Their names need no
 * escapes: mail_field_name(). */
static void put_campaigns(struct buf *out, const struct http_request *r)
{
    struct shared *shared = r->http->shared;
    static const char *const ends[TALLY_COUNTS] = {[TALLY_DELIVERED] = "delivered",
                                                   [TALLY_FAILED] = "failed",
                                                   [TALLY_EXPIRED] = "expired",
                                                   [TALLY_CANCELLED] = "cancelled"};
    struct newest *n = calloc(1, sizeof(*n));

    ASSERT(n != NULL);
    n->request = r;
    campaigns_visit(&shared->campaigns, take_campaign, n);
    put_family(out, "campaign_recipients", "gauge",
               "Recipients of a campaign, by what became of them");
    for (size_t i = 0; i < n->seen && i < CAMPAIGNS_SHOWN; i++) {
        struct campaign one = n->campaigns[i], latest;
        struct queue_tally counts = {0};

        if (!campaigns_find(&shared->campaigns, str_of(one.tenant), str_of(one.name), &latest) ||
            memcmp(&latest.id, &one.id, sizeof(one.id)) != 0 ||
            campaign_counts(shared->queue, &one.id, &counts) < 0)
            continue;
        for (int of = 0; of < TALLY_COUNTS; of++)
            if (of == TALLY_NONE || ends[of] != NULL)
                buf_printf(
                    out,
                    "hayauma_campaign_recipients{campaign=\"%s\",tenant=\"%s\",state=\"%s\"} "
                    "%" PRIu64 "\n",
                    one.name, one.tenant, of == TALLY_NONE ? "queued" : ends[of],
                    of == TALLY_NONE ? tally_queued(&counts) : counts.counts[of]);
    }
    free(n);
}

static void put_process(struct buf *out)
{
    struct rusage usage = {0};

    getrusage(RUSAGE_SELF, &usage);
    put_family(out, "process_cpu_seconds", "counter", NULL);
    buf_printf(out, "hayauma_process_cpu_seconds_total %.6f\n",
               (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

/* What is of the process as a whole, or of its operator. */
static void put_operators(struct buf *out, struct http_request *r, const struct walk *walk)
{
    struct shared *shared = r->http->shared;

    counters_visit(shared, put_counter, out);
    put_queue(out, shared->queue);
    put_turns(out, shared);
    put_longest(out, shared);
    put_listeners(out, r);
    put_requests(out, r->http);
    metrics_put_held(out, shared);
    metrics_put_refusals(out, shared);
    metrics_put_sources(out, shared, r->config);
    metrics_put_sums(out, r->http->shared);
    metrics_put_warmup(out, shared, walk->now_ms);
    put_process(out);
}

/* A token that has a tenant is told of the tenant's mail and campaigns alone. */
static void answer(struct http_request *r)
{
    struct walk *walk = r->work;
    bool all = walk->tenant[0] == '\0';
    struct buf out = {0};
    int64_t oldest_ms = walk->waits.oldest_due_ms, late_ms = walk->now_ms - oldest_ms;

    ASSERT(walk->worker == r->http->shared->workers_len); /* all have been asked */
    put_family(&out, "build", "info", NULL);
    buf_puts(&out, "hayauma_build_info{version=\"" HAYAUMA_VERSION "\"} 1\n");
    if (all)
        put_operators(&out, r, walk);
    put_gauge(&out, "queue_due_age_seconds",
              "For how long the mail that has waited longest has been due",
              oldest_ms == INT64_MAX || late_ms < 0 ? 0 : (double)late_ms / 1000);
    put_groups(&out, &walk->sites, walk->other_sites, "site", all);
    put_groups(&out, &walk->tenants, walk->other_tenants, "tenant", false);
    metrics_put_waits(&out, &walk->waits);
    put_campaigns(&out, r);
    put_gauge(&out, "draining", NULL, atomic_load(&r->http->draining));
    buf_puts(&out, "# EOF\n");
    request_answer(r, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8",
                   buf_str(&out));
    buf_done(&out);
}

static void groups_free(struct map *map, struct group *others)
{
    struct map_node *n, *next;
    size_t bucket = 0;

    for (n = map_walk(map, &bucket, NULL); n != NULL; n = next) {
        next = map_walk(map, &bucket, n);
        free(CONTAINER_OF(n, struct group, node));
    }
    map_done(map);
    free(others);
}

static void walk_free(struct http_request *r)
{
    struct walk *walk = r->work;
    uint32_t walks;

    groups_free(&walk->sites, walk->other_sites);
    groups_free(&walk->tenants, walk->other_tenants);
    free(walk);
    walks = atomic_fetch_sub(&r->http->walks, 1);
    ASSERT(walks > 0);
}

void handle_metrics(struct http_request *r)
{
    struct walk *walk;

    /* Who closes waits for requests that it sees under way, and then for none. */
    if (atomic_load(&r->http->closing)) {
        request_problem(r, 503, "", "shutting down");
        return;
    }
    if (atomic_fetch_add(&r->http->walks, 1) >= WALKS_MAX) {
        atomic_fetch_sub(&r->http->walks, 1);
        request_problem(r, 503, "", "%d requests for metrics are under way", WALKS_MAX);
        return;
    }
    walk = calloc(1, sizeof(*walk));
    ASSERT(walk != NULL);
    /* As in buf_*: memory is fatal. */
    if (map_init(&walk->sites, 256) < 0 || map_init(&walk->tenants, 64) < 0)
        ASSERT(false);
    *walk = (struct walk){.note = {.run = on_walk},
                          .request = r,
                          .now_ms = clock_wall_ms(),
                          .waits = {.oldest_due_ms = INT64_MAX},
                          .sites = walk->sites,
                          .tenants = walk->tenants,
                          .other_sites = group_new(STR("")),
                          .other_tenants = group_new(STR(""))};
    memcpy(walk->tenant, r->token.tenant, sizeof(walk->tenant));
    r->work = walk;
    r->done = walk_free;
    request_suspend(r, answer);
    worker_send(r->http->shared, 0, &walk->note);
}

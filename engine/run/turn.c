#include "run/turn.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/backend_route.h"
#include "deliver/delivery.h"
#include "deliver/recipes.h"
#include "deliver/secure.h"
#include "deliver/sessions.h"
#include "deliver/signing.h"
#include "deliver/transaction.h"
#include "intake/campaign.h"
#include "intake/inject_message.h"
#include "outcome/judge.h"
#include "outcome/suspend.h"
#include "outcome/sweep.h"
#include "outcome/tls_reports.h"
#include "outcome/warm.h"
#include "run/engine.h"
#include "schedule/lane.h"
#include "schedule/lane_find.h"
#include "schedule/settle.h"
#include "schedule/site.h"
#include "schedule/supply.h"
#include "worker/proxy_look.h"
#include "worker/sts_lookup.h"

#define RESOLVER_COMPLAINT_MS 60000
/* A turn takes in what others handed over for so long, and until so many lanes were visited. It
 * looks at the clock behind each thing: a load may have 2,000 rows. */
#define HANDED_NS    2000000
#define HANDED_LANES 1000

/* Recipients whose answers a turn takes in. One receive may bring those of hundreds. */
#define TURN_SETTLED 500

static const struct lane_hooks lane_hooks = {
    .expired = judge_expired, .unroutable = judge_unroutable, .forbidden = judge_forbidden};

/* --- turns --- */

static void part_ends(struct worker *w, enum turn_part part)
{
    turn_part_ends(&w->turn, part, io_now_ns(w->io), clock_mono_ns());
}

static void on_wake(void *arg)
{
    ((struct worker *)arg)->handed = true;
}

static bool go_on(void *arg)
{
    return ((const struct worker *)arg)->turn.settled < TURN_SETTLED;
}

/* How much of what others hand over one turn takes: of workers' notes, and again of the queue's. */
struct handing {
    struct worker *worker;
    uint64_t until_ns;
    uint32_t lanes_max; /* of worker->turn.lanes */
};

static bool hand_on(void *arg)
{
    struct handing *h = arg;

    return h->worker->turn.lanes < h->lanes_max && clock_mono_ns() < h->until_ns;
}

static struct handing handing_of(struct worker *w)
{
    return (struct handing){.worker = w,
                            .until_ns = clock_mono_ns() + HANDED_NS,
                            .lanes_max = w->turn.lanes + HANDED_LANES};
}

/* What is left comes in the next turn, for which nobody has to wake the worker. */
static void take_handed(struct worker *w)
{
    struct handing notes = handing_of(w), ended;

    part_ends(w, TURN_EVENTS);
    w->handed = worker_notes_take(w, hand_on, &notes);
    crew_collect(&w->desk);
    if (w->port != NULL) {
        ended = handing_of(w);
        queue_port_poll_while(w->port, hand_on, &ended);
        w->handed = w->handed || queue_port_left(w->port);
    }
    part_ends(w, TURN_QUEUE);
}

static void on_tick(void *arg)
{
    struct worker *w = arg;

    if (w->handed || crew_desk_has(&w->desk))
        take_handed(w);
    if (w->port == NULL)
        return;
    part_ends(w, TURN_EVENTS);
    sweep_clock(w);
    lanes_renew_step(w);
    lane_suspensions_walk(w);
    supplies_walk(w);
    lanes_leave_step(w);
    lane_start_loads(w);
    part_ends(w, TURN_LANES);
    deliveries_look_sources(w);
    sessions_dispatch_all(w);
    warm_keep(w);
    part_ends(w, TURN_DISPATCH);
    delivery_flush_all(w);
    site_reap(w);
    inject_flush_all(w);
    settle_flush(w);
    worker_notes_send(w);
    turn_ends(&w->turn, TURN_SEND, io_now_ns(w->io), clock_mono_ns(), clock_thread_cpu_ns());
}

bool worker_busy(struct worker *w)
{
    bool dispatch = !list_empty(&w->supplies_dirty) || !list_empty(&w->channels_dirty);

    return (dispatch && !settles_full(w)) || !list_empty(&w->deliveries_dirty) ||
           !list_empty(&w->injects_dirty) || !list_empty(&w->recipes.later) ||
           !list_empty(&w->suspension_walks) || !list_empty(&w->supply_walks) || w->renewing ||
           w->handed || crew_desk_has(&w->desk) || lane_loads_wait(w);
}

int worker_turn(struct worker *w, uint32_t wait_ms)
{
    if (wait_ms > 1 && worker_notes_wait(w))
        wait_ms = 1;
    return io_turn(w->io, worker_busy(w) ? 0 : wait_ms);
}

/* --- start --- */

static void lists_init(struct worker *w)
{
    for (size_t i = 0; i < ARRAY_LEN(w->idle); i++)
        list_init(&w->idle[i]);
    list_init(&w->injects);
    list_init(&w->injects_dirty);
    list_init(&w->injects_dead);
    list_init(&w->login_wait);
    list_init(&w->load_wait);
    list_init(&w->proxy_looks);
    list_init(&w->conversions);
    list_init(&w->suspension_walks);
    list_init(&w->supply_walks);
    list_init(&w->route_asks);
    list_init(&w->suspension_changes);
    list_init(&w->supplies_dirty);
    list_init(&w->channels_dirty);
    list_init(&w->sites_dead);
    list_init(&w->deliveries_all);
    list_init(&w->deliveries_dirty);
    list_init(&w->deliveries_dead);
    list_init(&w->settles_under_way);
    list_init(&w->settles_spare);
}

static void pools_init(struct worker *w)
{
    pool_init(&w->inject_pool, "inject", sizeof(struct inject), SIZE_MAX);
    pool_init(&w->answer_pool, "answer", sizeof(struct inject_answer), SIZE_MAX);
    pool_init(&w->output_pool, "output", SMTP_CLIENT_OUTPUT_BYTES, SIZE_MAX);
    pool_init(&w->delivery_pool, "delivery", sizeof(struct delivery), SIZE_MAX);
    pool_init(&w->transaction_pool, "transaction", transaction_bytes(), SIZE_MAX);
}

static int maps_init(struct worker *w)
{
    return map_init(&w->lanes, 64) < 0 || map_init(&w->sites, 256) < 0 ||
                   map_init(&w->rollups, 64) < 0 || map_init(&w->memory, 4096) < 0 ||
                   secure_memory_open(w) < 0
               ? -ENOMEM
               : 0;
}

static void wake_worker(void *arg)
{
    io_wake(((struct worker *)arg)->io);
}

int worker_open(struct worker *w, struct engine *engine, uint32_t index)
{
    struct io_options options = {.on_tick = on_tick, .on_wake = on_wake, .go_on = go_on, .arg = w};
    const struct config_listener *which = NULL;
    int err;

    ASSERT(index < engine->shared.workers_len && w == &engine->shared.workers[index]);
    w->shared = &engine->shared;
    w->index = index;
    w->lane_hooks = &lane_hooks;
    w->lanes_max = LANES_MAX / w->shared->workers_len;
    w->config = config_ref(engine->config);
    w->addresses_fd = w->routes_fd = -1;
    w->trust = trust_ref(engine->trust);
    rng_seed(&w->rng, rng_entropy());
    msgid_source_init(&w->ids, rng_entropy());
    w->hash_seed = rng_next(&w->rng);
    lists_init(w);
    signings_init(w);
    recipes_init(w);
    crew_share_init(&w->suppression_looks, w, SUPPRESSION_LOOKS_MAX);
    crew_desk_init(&w->desk, wake_worker, w);
    err = worker_notes_open(w);
    if (err == 0)
        err = maps_init(w);
    if (err < 0)
        return err;
    pools_init(w);
    err = io_open(&w->io, &options);
    if (err < 0) {
        if (engine_start_failed(engine, err))
            log_error("worker.io_failed", "worker=%u error=%d reason=\"%s\"", index, err,
                      io_why_unavailable(err));
        return err;
    }
    streams_init(&w->streams, w->io);
    err = inject_open(w, &which);
    if (err < 0 && which != NULL && engine_start_failed(engine, err))
        engine_listen_failed(which, err);
    return err;
}

/* The root is signed, so who validates says so of all that it answers for it. Of one that does not,
 * nothing else would tell: no TLSA record would count, and mail would go as under may. */
static void on_root(struct dns_question *question, const struct dns_answer *answer)
{
    (void)question;
    if (!answer->secure)
        log_warn(
            "dns.not_validating",
            "error=\"%s\" action=\"tls: dane finds no records; let dns.servers name a resolver "
            "that validates, such as Unbound on this machine\"",
            answer->error != NULL ? answer->error : "its answer for the root is not validated");
}

static int ask_root(struct worker *w)
{
    ASSERT(w->root_question == NULL);
    w->root_question = calloc(1, sizeof(*w->root_question));
    if (w->root_question == NULL)
        return -ENOMEM;
    w->root_question->on_answer = on_root;
    dns_ask(w->dns, w->root_question, "", DNS_TYPE_TXT);
    return 0;
}

/* No mail to new domains goes out until somebody mends this: a line a minute. */
static void on_resolver_silent(void *arg, const char *error)
{
    struct worker *w = arg;
    uint64_t now_ms = io_now_ms(w->io);

    if (now_ms < w->resolver_complaint_ms)
        return;
    w->resolver_complaint_ms = now_ms + RESOLVER_COMPLAINT_MS;
    log_warn("dns.silent",
             "error=\"%s\" action=\"mail to domains that are not looked up yet waits; look at the "
             "resolver, or at dns.servers\"",
             error);
}

static int resolver_open(struct worker *w)
{
    const struct config *c = w->config;
    struct dns_options options = {.servers = (const char *const *)c->dns.servers,
                                  .servers_len = c->dns.servers_len,
                                  .timeout_ms = c->dns.timeout_ms,
                                  .tries = c->dns.tries,
                                  .cache_entries_max = c->dns.cache_entries_max,
                                  .negative_ttl_max_s = c->dns.negative_ttl_max_s,
                                  .in_flight_max = c->dns.in_flight_max,
                                  .no_ipv6 = !c->dns.ipv6,
                                  .no_ipv4 = !c->dns.ipv4,
                                  .validating = c->dns.validating,
                                  .tlsa_port = c->dns.port,
                                  .own_name = c->host_name,
                                  .on_silence = on_resolver_silent,
                                  .on_silence_arg = w,
                                  .seed = rng_next(&w->rng)};
    int err;

    ASSERT(w->dns == NULL);
    err = dns_open(&w->dns, w->io, &options);
    return err == 0 && c->dns.validating && w->index == 0 ? ask_root(w) : err;
}

int worker_start(struct worker *w)
{
    struct queue *q = w->shared->queue;
    int err;

    ASSERT(w->port == NULL && w->settles == NULL && !w->draining);
    err = queue_port_open(&w->port, q, wake_worker, w);
    if (err < 0)
        return err;
    handshakes_init(&w->handshakes, w->shared->crew, &w->desk, w->io);
    w->settles = calloc(queue_shards(q), sizeof(struct settle *));
    if (w->settles == NULL)
        return -ENOMEM;
    err = sweep_open(w);
    if (err < 0)
        return err;
    if (w == worker_of_shard(w->shared, 0)) {
        suspend_open(w);
        campaign_open(w);
        sources_look_begin(w);
        err = warm_open(w);
        if (err == 0)
            err = tls_reports_open(w);
        if (err < 0)
            return err;
    }
    err = sts_lookups_open(w);
    if (err < 0)
        return err;
    err = resolver_open(w);
    if (err < 0) {
        log_error("dns.open_failed",
                  "error=\"%s\" action=\"check dns.servers or /etc/resolv.conf\"", strerror(-err));
        return err;
    }
    err = lanes_find_open(w);
    if (err < 0)
        return err;
    inject_start(w);
    return 0;
}

/* --- end --- */

void worker_drain(struct worker *w, bool hard)
{
    ASSERT(w->draining || !w->draining_hard);
    if (!w->draining || (hard && !w->draining_hard)) {
        w->draining = true;
        w->draining_hard = hard;
        inject_drain(w, hard);
        delivery_drain_all(w, hard);
        backend_routes_abandon(w);
        if (w->port != NULL)
            queue_port_end(w->port);
    }
}

bool worker_drained(const struct worker *w)
{
    return w->draining && !w->handed && inject_drained(w) && w->deliveries == 0 &&
           w->directories == 0 && w->loads == 0 && list_empty(&w->conversions) &&
           !signings_pending(w) && !recipes_pending(w) &&
           !crew_share_pending(&w->suppression_looks) && !settle_pending(w) &&
           !worker_notes_wait(w) && queue_port_pending(w->port) == 0;
}

bool workers_drained(const struct shared *all)
{
    for (uint32_t i = 0; i < all->workers_len; i++)
        if (!atomic_load_explicit(&all->workers[i].drained, memory_order_relaxed))
            return false;
    return true;
}

/* A worker that is done turns on until all are, since others may have notes for it that wait for
 * room in its inbox. What it then stores of warm-up needs nobody else. */
void worker_run(struct worker *w)
{
    ASSERT(w->port != NULL && !w->stopping);
    atomic_store_explicit(&w->turned_ms, io_now_ms(w->io), memory_order_relaxed);
    while (!(w->stopping && workers_drained(w->shared)) || warm_ends(w)) {
        int err = worker_turn(w, w->stopping ? 1 : WORKER_TURN_MS);

        if (err < 0) {
            log_error("worker.turn_failed", "worker=%u error=\"%s\"", w->index, strerror(-err));
            abort();
        }
        atomic_store_explicit(&w->drained, worker_drained(w), memory_order_relaxed);
        atomic_store_explicit(&w->turned_ms, io_now_ms(w->io), memory_order_relaxed);
    }
}

/* What worker_start() began: turns from here on only end operations. */
static void worker_close_mail(struct worker *w)
{
    crew_collect(&w->desk);
    (void)worker_notes_take(w, NULL, NULL); /* of after the last turn */
    suspend_close(w);
    suspended_names_done(&w->suspended_names);
    sources_look_end(w);
    warm_close(w);
    lane_suspensions_abandon(w);
    campaign_close(w);
    backend_routes_abandon(w);
    settle_abandon(w);
    lane_close_all(w);
    ASSERT(w->lanes.count == 0 && w->memory.count == 0);
    site_reap(w);
    dns_close(w->dns);
    free(w->root_question);
    sts_lookups_close(w);
    buf_done(&w->tls_texts);
    queue_port_close(w->port);
    tls_reports_close(w); /* the end of a post may have changed records just now */
    sweep_close(w);
    lanes_find_close(w);
    w->port = NULL;
}

static void worker_close_io(struct worker *w)
{
    inject_drain(w, true);
    worker_turn(w, 0); /* what was cancelled ends */
    worker_turn(w, 0);
    proxy_looks_reap(w);
    if (w->handshakes.io != NULL)
        handshakes_done(&w->handshakes);
    inject_close(w);
    io_close(w->io);
}

void worker_close(struct worker *w)
{
    w->draining = true;
    if (w->port != NULL)
        worker_close_mail(w);
    if (w->io != NULL)
        worker_close_io(w);
    worker_notes_close(w);
    free(w->settles);
    buf_done(&w->record);
    map_done(&w->lanes);
    map_done(&w->sites);
    map_done(&w->rollups);
    map_done(&w->memory);
    secure_memory_close(w);
    streams_done(&w->streams);
    signings_done(w);
    recipes_done(w);
    pool_done(&w->inject_pool);
    pool_done(&w->answer_pool);
    pool_done(&w->delivery_pool);
    pool_done(&w->output_pool);
    pool_done(&w->transaction_pool);
    config_unref(w->config);
    trust_unref(w->trust);
}

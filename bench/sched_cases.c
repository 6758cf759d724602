#include "bench/sched_cases.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/config_load.h"
#include "run/engine.h"
#include "run/turn.h"
#include "schedule/channel.h"
#include "schedule/lane.h"

#define READY_LANES   1000
#define READY_RCPTS   10 /* of each */
#define WAITING_LANES 100000
#define NAME_BYTES    24

/* A socket needs no lookup; no turn is made, so that nothing is sent there. */
static const char text[] = "host_name: bench.example\nlisteners: []\n"
                           "routes: {\"*\": \"lmtp:unix:/nowhere\"}\n";

static struct {
    struct engine engine;
    struct worker *worker; /* NULL: not made yet */
    struct msgid_source ids;
    struct lane *waiting[WAITING_LANES];
    char names[WAITING_LANES][NAME_BYTES];
    struct channel *channel;
    uint32_t next;
} bench;

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "sched_bench: %s\n", what);
    exit(1);
}

static void arrive(uint32_t lane)
{
    struct worker *w = bench.worker;
    struct message *m;
    struct recipient *r;
    char queue[NAME_BYTES], address[NAME_BYTES + 5];

    snprintf(queue, sizeof(queue), "ready%u.example", lane);
    snprintf(address, sizeof(address), "user@%s", queue);
    m = message_new(&(struct message){.id = msgid_next(&bench.ids, worker_wall_ms(w)),
                                      .created_ms = worker_wall_ms(w),
                                      .born_ms = io_now_ms(w->io) + 1,
                                      .priority = 5,
                                      .recipients = 1});
    r = m == NULL ? NULL : recipient_new(m, 0, str_of(queue), str_of(address), STR(""), STR(""));
    must(r != NULL, "memory");
    message_unref(m);
    r->priority = 5;
    r->lifetime_s = 86400;
    lane_arrive(w, 0, r);
}

static void wait_lanes(void)
{
    int64_t now_ms = worker_wall_ms(bench.worker);

    for (uint32_t i = 0; i < WAITING_LANES; i++) {
        snprintf(bench.names[i], NAME_BYTES, "waiting%u.example", i);
        bench.waiting[i] = lane_get(bench.worker, 0, 0, str_of(bench.names[i]));
        must(bench.waiting[i] != NULL, "memory");
        lane_stored(bench.waiting[i], now_ms + 60000 + (int64_t)i * 36);
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* An empty one, of which nothing is left: lanes ask it for their flow. */
static void queue_ready(struct shared *all)
{
    char dir[] = "/tmp/sched-bench-XXXXXX";
    struct queue_options options = {
        .path = dir, .shards = 1, .map_bytes = 64 << 20, .no_threads = true, .no_sync = true};
    const char *why = NULL;
    int err;

    must(mkdtemp(dir) != NULL, "no directory");
    err = queue_open(&all->queue, &options, &why);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    must(err == 0, why != NULL ? why : "queue");
}

static struct worker *worker_ready(void)
{
    struct engine *e = &bench.engine;
    struct buf errors = {0};
    struct supply *supply;

    if (bench.worker != NULL)
        return bench.worker;
    must(config_load_text("bench.yaml", str_of(text), &e->config, &errors) == 0, "configuration");
    must(trust_load(&e->trust, e->config, NULL, &errors) == 0, "authorities");
    must(governor_open(&e->shared.governor) == 0, "governor");
    must(sources_init(&e->shared.sources) == 0, "sources");
    queue_ready(&e->shared);
    e->shared.workers_len = 1;
    e->shared.workers = aligned_alloc(CACHE_LINE_BYTES, sizeof(*e->shared.workers));
    must(e->shared.workers != NULL, "memory");
    memset(e->shared.workers, 0, sizeof(*e->shared.workers));
    must(worker_open(&e->shared.workers[0], e, 0) == 0, "io_uring");
    bench.worker = &e->shared.workers[0];
    bench.worker->lanes_max = UINT32_MAX; /* all that the cases make stay */
    msgid_source_init(&bench.ids, 1);
    wait_lanes();
    for (uint32_t i = 0; i < READY_LANES * READY_RCPTS; i++)
        arrive(i % READY_LANES);
    supply = lane_get(bench.worker, 0, 0, STR("ready0.example"))->supply;
    must(supply != NULL && supply->waiting == READY_LANES * READY_RCPTS, "no supply");
    bench.channel = seat_channel(supply_next(supply));
    return bench.worker;
}

static struct lane *next_waiting(void)
{
    (void)worker_ready();
    bench.next = (bench.next + 7919) % WAITING_LANES; /* prime: no order that a cache could like */
    return bench.waiting[bench.next];
}

static struct channel_session session; /* without limits of its own */

size_t site_case_pick(void)
{
    struct recipient *r;

    (void)worker_ready();
    must(channel_take(bench.channel, &session, &r, 1, 0).len == 1, "nothing to pick");
    lane_unpop(r);
    return 1;
}

size_t lane_case_cycle(void)
{
    static uint32_t lane;
    struct recipient *r;

    (void)worker_ready();
    arrive(lane++ % READY_LANES);
    must(channel_take(bench.channel, &session, &r, 1, 0).len == 1, "nothing to pick");
    lane_settling(r);
    lane_settled(r, INT64_MAX);
    return 1;
}

size_t lane_case_find(void)
{
    const struct lane *lane = next_waiting();

    must(lane_get(bench.worker, 0, 0, str_of(bench.names[bench.next])) == lane, "not found");
    return 1;
}

size_t lane_case_timer(void)
{
    lane_update(next_waiting());
    return 1;
}

size_t lane_case_backoff(void)
{
    static const struct smtp_reply refused = {
        .code = 451, .enhanced = {4, 4, 1}, .text_len = 18, .text = "connection refused"};
    struct lane *lane = next_waiting();

    lane_suspend(lane, LANE_UNROUTED,
                 config_destination_for(bench.engine.config, lane_name(lane), STR("")), &refused,
                 "mx.example");
    lane_succeeded(lane);
    lane_resume(lane);
    return 1;
}

static struct governor_entry *limited(void)
{
    static struct governor_entry *entry;

    (void)worker_ready();
    if (entry == NULL)
        entry = governor_get(bench.engine.shared.governor, STR("bench"),
                             &(struct governor_limits){.sessions_max = 20,
                                                       .rate_messages = UINT64_C(1000000),
                                                       .rate_period_ms = 1000},
                             0);
    return entry;
}

size_t governor_case_session(void)
{
    struct governor_entry *entry = limited();

    must(governor_session_take(entry, 0, 1), "no session");
    governor_session_give(entry);
    return 1;
}

size_t governor_case_rate(void)
{
    static const struct governor_load load = {.recipients = 1, .bytes = 4096};
    static uint64_t now_ns = 1000000000;
    enum governor_counts by;

    must(governor_message_take(limited(), now_ns += 1000, &load, &by) == 0, "too fast");
    return 1;
}

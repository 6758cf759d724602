#include "tests/sim/node.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/config_load.h"
#include "deliver/delivery.h"
#include "intake/hot.h"
#include "mail/dkim_vectors.h"
#include "outcome/admin.h"
#include "outcome/warm.h"
#include "run/engine.h"
#include "run/turn.h"
#include "schedule/lane.h"
#include "schedule/settle.h"
#include "schedule/site.h"
#include "tests/sim/accounts.h"
#include "tests/sim/crowd.h"
#include "tests/sim/ledger.h"
#include "tests/sim/season.h"
#include "tests/sim/sim_io.h"
#include "tests/sim/suspender.h"
#include "tests/sim/warmth.h"
#include "worker/keyring.h"
#include "worker/warmup_store.h"

#define WORKERS_MAX_SIM 4
#define SHARDS_MAX_SIM  5
#define ACTIONS_MAX     128
#define PHASES_MAX      3
#define JOB_ROWS_MAX    30
#define JOB_ROWS_FULL   1000 /* as many as control asks for at once */
#define SETTLE_ROWS_MAX 256  /* of a change: more find no room in a nearly full map */
/* From the moment that an answer is read to its settle's commit, when commits succeed. */
#define SETTLE_MAX_NS   (5 * SIM_S)
#define TURNS_PER_S_MAX 50000 /* more is a spin */
/* How long after a start, or after the clock was set, due times may still be wrong; and how long
 * after its lifetime a recipient may be in the queue: its last attempt may be under way. */
#define RIGHT_AFTER_NS (150 * SIM_S)
#define OUTLIVED_MS    INT64_C(600000)
#define NOTICE_WAIT_S  300
#define ASKED_NS       (120 * SIM_S)
#define TIMES_EVERY    4 /* looks at all rows: a fifth of a large world's CPU were they more often */

enum action_kind {
    ACTION_KILL,
    ACTION_RESTART,
    ACTION_CUT,
    ACTION_START,
    ACTION_RELOAD,
    ACTION_REREAD,
    ACTION_ADMIN,
    ACTION_SUSPEND,
    ACTION_CLOCK_AHEAD,
    ACTION_CLOCK_BACK
};

struct action {
    struct sim_event event;
    enum action_kind kind;
};

struct turner {
    struct sim_event event;
    struct worker *worker;
    uint64_t busy_until_ns, second, turns;
    uint64_t settled_ns; /* when no settle waited for room */
};

struct disk {
    struct sim_event commit, load;
};

static struct {
    const char *dir;
    struct engine *engine; /* NULL: it does not run */
    bool reloaded, restarting, ending, ended, killed, committing, lied;
    struct turner turners[WORKERS_MAX_SIM];
    struct disk disks[SHARDS_MAX_SIM];
    struct sim_event sync;
    struct action actions[ACTIONS_MAX];
    uint32_t actions_len, actions_left, jobs;
    struct action start, cut;
    struct {
        uint64_t from_ns, until_ns;
        bool fatal;
    } phases[PHASES_MAX]; /* of failing commits */
    struct pin {
        struct sim_event begin, end;
        MDB_txn *reader;
    } pins[PHASES_MAX]; /* old readers */
    MDB_env *env;       /* committed last; what a pin reads */
    struct {
        uint64_t from_ns, until_ns;
    } refusal;
    struct list asked; /* of administration, and not yet done */
    uint64_t timed_ns; /* when it started last, or the clock was set */
    uint64_t looks;
    uint64_t alive_base; /* bytes of messages that died with their process */
} node;

static void node_start(void);
static void node_kill(void);
static void plan(enum action_kind kind, uint64_t within_ns);

/* --- what the engine would take from its process --- */

uint64_t __real_message_bytes_alive(void);
uint64_t __wrap_message_bytes_alive(void);
void __real_queue_submit(struct queue_port *port, uint32_t shard, struct queue_change *change);
void __wrap_queue_submit(struct queue_port *port, uint32_t shard, struct queue_change *change);
int __real_mdb_txn_commit(MDB_txn *txn);
bool __real_codec_row_valid(const struct recipient *r);
bool __wrap_codec_row_valid(const struct recipient *r);
bool __real_hot_arrives(struct hot *h, uint64_t domain_hash, uint32_t shards, uint64_t now_ms);
bool __wrap_hot_arrives(struct hot *h, uint64_t domain_hash, uint32_t shards, uint64_t now_ms);
int __wrap_mdb_txn_commit(MDB_txn *txn);

uint64_t __wrap_message_bytes_alive(void)
{
    return __real_message_bytes_alive() - node.alive_base;
}

struct asked {
    struct admin_job job;
    struct list_node node;
    uint64_t begun_ns;
};

static void on_admin_done(struct admin_job *job, int result)
{
    struct asked *asked = CONTAINER_OF(job, struct asked, job);

    sim_trace("admin job done: %d, changed %llu", result, (unsigned long long)job->changed);
    for (size_t i = 0; i < job->rows_len; i++)
        free((char *)job->rows[i].queue.ptr);
    free(job->rows);
    list_remove(&asked->node);
    free(asked);
    node.jobs--;
}

void __wrap_queue_submit(struct queue_port *port, uint32_t shard, struct queue_change *change)
{
    size_t settled = 0;

    for (size_t i = 0; i < change->rows_len; i++)
        settled += change->rows[i].kind != QUEUE_ROW_ADD;
    if (settled > SETTLE_ROWS_MAX)
        sim_fail("room", "one change settles %zu rows", settled);
    crowd_submitted(port, shard, change);
    ledger_stored(shard, change);
    __real_queue_submit(port, shard, change);
}

bool __wrap_hot_arrives(struct hot *h, uint64_t domain_hash, uint32_t shards, uint64_t now_ms)
{
    bool hot = __real_hot_arrives(h, domain_hash, shards, now_ms);

    return hot && !(sim_sabotage == SABOTAGE_HOT && sim_chance(300));
}

/* As rows of a damaged page would be. */
bool __wrap_codec_row_valid(const struct recipient *r)
{
    if (world.refusals && sim_now_ns() >= node.refusal.from_ns &&
        sim_now_ns() < node.refusal.until_ns && r->state == PLACE_SETTLING &&
        r->message->id.bytes[MSGID_BYTES - 1] % 3 == 0)
        return false;
    return __real_codec_row_valid(r);
}

/* Takes most of a shard's map, with its first commit, so that little mail fills the rest. */
static void fill(MDB_txn *txn)
{
    MDB_val key = {6, "filler"}, value = {world.map_filled, NULL};
    MDB_dbi meta;

    if (world.map_filled == 0)
        return;
    ASSERT(mdb_dbi_open(txn, "meta", 0, &meta) == 0);
    (void)mdb_put(txn, meta, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE); /* full: another time */
}

int __wrap_mdb_txn_commit(MDB_txn *txn)
{
    if (!node.committing)
        return __real_mdb_txn_commit(txn);
    node.env = mdb_txn_env(txn);
    fill(txn);
    for (uint32_t i = 0; i < world.commit_fault_phases; i++) {
        if (sim_now_ns() < node.phases[i].from_ns || sim_now_ns() >= node.phases[i].until_ns ||
            !sim_chance(600))
            continue;
        mdb_txn_abort(txn);
        sim_trace("commit fails");
        return node.phases[i].fatal && sim_chance(200) ? EIO : ENOSPC;
    }
    if (sim_sabotage == SABOTAGE_COMMIT && !node.lied && sim_chance(50)) {
        mdb_txn_abort(txn);
        node.lied = true;
        plan(ACTION_KILL, 200 * SIM_MS); /* while memory lives it makes up for the store */
        return 0;
    }
    return __real_mdb_txn_commit(txn);
}

/* --- the disk --- */

static uint64_t disk_delay_ns(void)
{
    return SIM_US + sim_draw(sim_chance(10) ? SIM_S : world.disk_ns);
}

/* Work that was submitted gets its time on disk. */
static void disks_look(void)
{
    struct queue *q = node.engine->shared.queue;

    for (uint32_t i = 0; i < queue_shards(q); i++) {
        if (node.disks[i].commit.slot == 0 && queue_part_wanted(q, i, QUEUE_COMMITTER))
            sim_in(&node.disks[i].commit, disk_delay_ns());
        if (node.disks[i].load.slot == 0 && queue_part_wanted(q, i, QUEUE_LOADER))
            sim_in(&node.disks[i].load, disk_delay_ns());
    }
}

static void on_commit(struct sim_event *event)
{
    struct queue *q = node.engine->shared.queue;
    uint32_t shard = (uint32_t)(CONTAINER_OF(event, struct disk, commit) - node.disks);

    node.committing = true;
    queue_pump_part(q, shard, QUEUE_COMMITTER);
    node.committing = false;
    sim_by(&node.sync, sim_now_ns() + sim_between(SIM_MS, 3 * SIM_S));
    disks_look();
    if (queue_failed(q)) {
        sim_trace("the queue failed: exit");
        node_kill();
    }
}

static void on_load(struct sim_event *event)
{
    uint32_t shard = (uint32_t)(CONTAINER_OF(event, struct disk, load) - node.disks);

    queue_pump_part(node.engine->shared.queue, shard, QUEUE_LOADER);
}

static void on_sync(struct sim_event *event)
{
    (void)event;
    queue_pump_part(node.engine->shared.queue, 0, QUEUE_SYNCER);
}

/* --- workers --- */

static void turner_schedule(struct turner *t)
{
    uint64_t at_ns = worker_busy(t->worker) ? sim_now_ns() : sim_io_next_ns(t->worker->io);

    if (at_ns == UINT64_MAX)
        return;
    at_ns = at_ns < t->busy_until_ns ? t->busy_until_ns : at_ns;
    sim_by(&t->event, at_ns);
}

static void on_ready(void *arg)
{
    turner_schedule(arg);
}

static void turner_count(struct turner *t)
{
    if (t->second != sim_now_ns() / SIM_S) {
        t->second = sim_now_ns() / SIM_S;
        t->turns = 0;
    }
    if (++t->turns > TURNS_PER_S_MAX)
        sim_fail("no spin", "worker %u turns more than %u times a second", t->worker->index,
                 TURNS_PER_S_MAX);
}

static void node_look_drained(void);

static void on_turn(struct sim_event *event)
{
    struct turner *t = CONTAINER_OF(event, struct turner, event);
    struct worker *w = t->worker;

    turner_count(t);
    ASSERT(worker_turn(w, 0) == 0);
    if (w->settles_failing == 0 && w->settles_refused == 0)
        t->settled_ns = sim_now_ns();
    atomic_store(&w->drained, worker_drained(w));
    t->busy_until_ns =
        sim_now_ns() + sim_between(SIM_US, sim_chance(5) ? world.stall_ns : world.turn_ns);
    turner_schedule(t);
    disks_look();
    node_look_drained();
}

/* --- start and end --- */

/* The key that signs all mail of a world that signs. */
static void key_make(void)
{
    static const char key[] = RFC8463_ED25519_KEY;
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/" WORLD_KEY_FILE, node.dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(fd >= 0 && write(fd, key, sizeof(key) - 1) == (ssize_t)sizeof(key) - 1);
    close(fd);
}

static struct config *config_make(void)
{
    struct config *config = NULL;
    struct buf text = {0}, errors = {0};

    world_config(node.dir, node.reloaded, &text);
    if (config_load_text("sim.yaml", buf_str(&text), &config, &errors) < 0)
        sim_fail("configuration", "%.*s", STR_FMT(buf_str(&errors)));
    if (world_signs)
        key_make();
    if (keyring_open(config, &errors) < 0)
        sim_fail("configuration", "%.*s", STR_FMT(buf_str(&errors)));
    config->queue.memory_bytes_max = world.memory_max; /* smaller than may be configured */
    buf_done(&text);
    buf_done(&errors);
    return config;
}

static bool is_here(const struct sockaddr *source)
{
    return world_source_here(world_source_at(source));
}

static bool is_routed(const struct sockaddr *source)
{
    return world_source_routed(world_source_at(source));
}

static void wake_keeper(void *arg)
{
    io_wake(worker_of_shard(arg, 0)->io);
}

/* As engine_open() and engine_start(), but for the threads. */
static void engine_make(struct engine *e)
{
    struct config *c = config_make();
    struct queue_options options = {.path = c->queue.path,
                                    .shards = c->queue.shards,
                                    .map_bytes = c->queue.map_bytes,
                                    .records = {.path = c->records.path},
                                    .no_threads = true,
                                    .no_sync = true};
    struct buf errors = {0};
    const char *why = NULL;

    ASSERT(trust_load(&e->trust, c, NULL, &errors) == 0);
    e->config = c;
    e->started_ms = sim_wall_ms();
    e->shared.workers_len = world.workers;
    e->shared.sessions_out_max = world.fds_max / 2 + 1;
    e->shared.workers =
        aligned_alloc(CACHE_LINE_BYTES, e->shared.workers_len * sizeof(*e->shared.workers));
    ASSERT(e->shared.workers != NULL && clients_init(&e->shared.clients) == 0 &&
           logins_init(&e->shared.logins) == 0 && governor_open(&e->shared.governor) == 0 &&
           sources_init(&e->shared.sources) == 0 && tally_open(&e->shared.tally) == 0 &&
           crew_open(&e->shared.crew, 0, CREW_JOBS_PER_WORKER) == 0);
    governor_begin(e->shared.governor, sim_now_ns());
    memset(e->shared.workers, 0, e->shared.workers_len * sizeof(*e->shared.workers));
    for (uint32_t i = 0; i < e->shared.workers_len; i++)
        ASSERT(worker_open(&e->shared.workers[i], e, i) == 0);
    for (uint32_t i = 0; world_lanes_max != 0 && i < e->shared.workers_len; i++)
        e->shared.workers[i].lanes_max = world_lanes_max;
    if (queue_open(&e->shared.queue, &options, &why) < 0)
        sim_fail("restart", "the queue cannot be opened: %s", why);
    ASSERT(suspensions_open(&e->shared.suspensions, e->shared.queue) == 0);
    ASSERT(campaigns_open(&e->shared.campaigns, e->shared.queue, &e->shared.suspensions) == 0);
    ASSERT(sts_table_open(&e->shared.sts, e->shared.queue) == 0);
    ASSERT(warmup_store_open(&e->shared.warmup, e->shared.queue, wake_keeper, &e->shared) == 0);
    warmup_configure(&e->shared.warmup, c);
    for (uint32_t i = 0; i < e->shared.workers_len; i++)
        ASSERT(worker_start(&e->shared.workers[i]) == 0);
}

static void node_start(void)
{
    sim_trace("start");
    node.timed_ns = sim_now_ns();
    list_init(&node.asked);
    node.engine = calloc(1, sizeof(*node.engine));
    ASSERT(node.engine != NULL);
    engine_make(node.engine);
    for (uint32_t i = 0; i < node.engine->shared.workers_len; i++) {
        struct turner *t = &node.turners[i];

        *t = (struct turner){.event.run = on_turn,
                             .worker = &node.engine->shared.workers[i],
                             .settled_ns = sim_now_ns()};
        sim_io_watch(t->worker->io, on_ready, t);
        sim_in(&t->event, sim_draw(SIM_MS));
    }
    disks_look();
}

static void events_cancel(void)
{
    for (uint32_t i = 0; i < WORKERS_MAX_SIM; i++)
        sim_cancel(&node.turners[i].event);
    for (uint32_t i = 0; i < SHARDS_MAX_SIM; i++) {
        sim_cancel(&node.disks[i].commit);
        sim_cancel(&node.disks[i].load);
    }
    sim_cancel(&node.sync);
    sim_cancel(&node.cut.event);
}

/* A tool that reads for a long time: pages freed since it began cannot be used again. */
static void on_pin(struct sim_event *event)
{
    struct pin *pin = CONTAINER_OF(event, struct pin, begin);

    if (node.engine == NULL || node.env == NULL ||
        mdb_txn_begin(node.env, NULL, MDB_RDONLY, &pin->reader) != 0)
        return;
    sim_trace("an old reader");
    sim_in(&pin->end, sim_draw(120 * SIM_S));
}

static void pin_end(struct pin *pin)
{
    if (pin->reader != NULL)
        mdb_txn_abort(pin->reader);
    pin->reader = NULL;
}

static void on_unpin(struct sim_event *event)
{
    sim_trace("the old reader ends");
    pin_end(CONTAINER_OF(event, struct pin, end));
}

/* With the environment; a process that dies leaves it as it is. */
static void pins_end(bool clean)
{
    for (uint32_t i = 0; i < PHASES_MAX; i++) {
        sim_cancel(&node.pins[i].end);
        if (clean)
            pin_end(&node.pins[i]);
        node.pins[i].reader = NULL;
    }
    node.env = NULL;
}

/* kill -9: what was committed stays, and what the kernel had taken is sent. The memory is left as
 * it is: nobody looks at it again. */
static void node_kill(void)
{
    uint64_t from_ns = sim_now_ns() - SETTLE_MAX_NS;

    sim_trace("kill");
    node.killed = true;
    if (world_season)
        season_killed();
    else if (world_warmup)
        warmth_killed();
    for (uint32_t i = 0; i < world.commit_fault_phases; i++)
        if (node.phases[i].until_ns + SETTLE_MAX_NS > sim_now_ns() &&
            node.phases[i].from_ns < from_ns)
            from_ns = node.phases[i].from_ns;
    for (uint32_t i = 0; i < node.engine->shared.workers_len; i++)
        if ((node.engine->shared.workers[i].settles_failing > 0 ||
             node.engine->shared.workers[i].settles_refused > 0) &&
            node.turners[i].settled_ns - SETTLE_MAX_NS < from_ns)
            from_ns = node.turners[i].settled_ns - SETTLE_MAX_NS;
    pins_end(false);
    ledger_crashed(from_ns);
    events_cancel();
    sim_io_kill();
    close_range(3, ~0u, 0);
    node.alive_base = __real_message_bytes_alive();
    node.engine = NULL;
    node.jobs = 0;
    suspender_killed();
    node.restarting = node.ending = false;
    node.start = (struct action){.event.run = node.start.event.run, .kind = ACTION_START};
    sim_in(&node.start.event, sim_draw(20 * SIM_S));
}

static void check_worker(const struct worker *w)
{
    if (w->deliveries != 0 || w->injects_len != 0 || w->delivery_pool.in_use != 0 ||
        w->transaction_pool.in_use != 0 || w->inject_pool.in_use != 0)
        sim_fail("pools", "worker %u: deliveries %zu, transactions %zu, injects %zu are left",
                 w->index, w->delivery_pool.in_use, w->transaction_pool.in_use,
                 w->inject_pool.in_use);
    if (node.ending && w->memory.count != 0)
        sim_fail("pools", "worker %u has %zu recipients in memory, and none is stored", w->index,
                 w->memory.count);
}

static void node_close(void)
{
    struct engine *e = node.engine;

    sim_trace("close");
    for (uint32_t i = 0; i < e->shared.workers_len; i++)
        if (e->shared.workers[i].settles_refused > 0) /* as if they had died with it */
            ledger_crashed(node.turners[i].settled_ns < SETTLE_MAX_NS
                               ? 0
                               : node.turners[i].settled_ns - SETTLE_MAX_NS);
    events_cancel();
    for (uint32_t i = 0; i < e->shared.workers_len; i++)
        check_worker(&e->shared.workers[i]);
    pins_end(true);
    crew_stop(e->shared.crew);
    for (uint32_t i = 0; i < e->shared.workers_len; i++)
        worker_close(&e->shared.workers[i]);
    engine_free_shared(e);
    if (atomic_load(&e->shared.intake_bytes) != 0 || atomic_load(&e->shared.sessions_out) != 0 ||
        atomic_load(&e->shared.listener_sessions[0]) != 0)
        sim_fail("pools", "%llu bytes of intake, %u sessions out, %u sessions in are left",
                 (unsigned long long)atomic_load(&e->shared.intake_bytes),
                 atomic_load(&e->shared.sessions_out),
                 atomic_load(&e->shared.listener_sessions[0]));
    free(e);
    node.engine = NULL;
    if (sim_io_fds() != 0)
        sim_fail("pools", "%u descriptors are left", sim_io_fds());
    if (__wrap_message_bytes_alive() != 0)
        sim_fail("pools", "%llu bytes of messages are left",
                 (unsigned long long)__wrap_message_bytes_alive());
    if (node.ending) {
        node.ended = true;
    } else {
        node.restarting = false;
        node.start.kind = ACTION_START;
        sim_in(&node.start.event, sim_draw(10 * SIM_S));
    }
}

static void node_look_drained(void)
{
    if ((node.restarting || node.ending) && node.jobs == 0 && engine_drained(node.engine))
        node_close();
}

/* --- administration --- */

struct picking {
    struct admin_job *job;
    bool held; /* only those */
};

static size_t job_rows_max(void)
{
    return world_full ? JOB_ROWS_FULL : JOB_ROWS_MAX;
}

static bool on_row(void *arg, const struct queue_row_view *row)
{
    struct picking *p = arg;
    struct admin_job *job = p->job;

    if (p->held ? (row->flags & RECIPIENT_HELD) == 0 : sim_chance(600))
        return true;
    job->rows[job->rows_len++] =
        (struct admin_row){.id = row->id,
                           .index = row->index,
                           .flow = row->flow,
                           .flags = row->flags,
                           .due_ms = row->due_ms,
                           .queue = {strndup(row->queue.ptr, row->queue.len), row->queue.len}};
    return job->rows_len < job_rows_max();
}

static void admin(uint32_t shard, enum admin_action action, bool held)
{
    struct asked *asked = calloc(1, sizeof(*asked));
    struct admin_job *job = &asked->job;
    struct queue_cursor cursor = {0};
    struct picking picking = {job, held};

    ASSERT(asked != NULL);
    asked->begun_ns = sim_now_ns();
    list_push_back(&node.asked, &asked->node);
    job->done = on_admin_done;
    job->action = action;
    job->shard = shard;
    job->rows = calloc(job_rows_max(), sizeof(*job->rows));
    ASSERT(job->rows != NULL);
    queue_visit(node.engine->shared.queue, shard, &cursor,
                &(struct queue_visit){
                    .rows_max = world_full ? 10000 : 500, .visit = on_row, .arg = &picking});
    sim_trace("admin %d on %zu rows of shard %u", action, job->rows_len, shard);
    node.jobs++;
    if (job->rows_len == 0) {
        on_admin_done(job, 0);
        return;
    }
    admin_submit(&node.engine->shared, job);
    disks_look();
}

static void admin_any(void)
{
    static const enum admin_action actions[] = {ADMIN_HOLD,  ADMIN_HOLD,  ADMIN_RELEASE,
                                                ADMIN_FLUSH, ADMIN_FLUSH, ADMIN_CANCEL,
                                                ADMIN_EXPIRE};

    admin((uint32_t)sim_draw(queue_shards(node.engine->shared.queue)),
          actions[sim_draw(ARRAY_LEN(actions))], false);
}

/* --- what happens to it --- */

static void reload(bool changed)
{
    struct buf cannot = {0}, errors = {0};
    struct config *config;

    sim_trace("reload");
    if (changed) {
        node.reloaded = true;
        ledger_reloaded();
    }
    config = config_make();
    ASSERT(engine_reload(node.engine, config, &cannot, &errors) == 0);
    config_unref(config);
    buf_done(&cannot);
    buf_done(&errors);
}

static void clock_set(int64_t by_s)
{
    sim_trace("the clock is set by %lld s", (long long)by_s);
    sim_wall_set(by_s * 1000);
    suspender_time();
    node.timed_ns = sim_now_ns();
}

static void act(struct action *a)
{
    switch (a->kind) {
    case ACTION_KILL:
        node_kill();
        break;
    case ACTION_RESTART:
        sim_trace("drain");
        node.restarting = true;
        engine_drain(node.engine);
        sim_in(&node.cut.event, sim_draw(60 * SIM_S));
        break;
    case ACTION_CUT:
        sim_trace("cut");
        engine_cut(node.engine);
        break;
    case ACTION_RELOAD:
    case ACTION_REREAD:
        reload(a->kind == ACTION_RELOAD);
        break;
    case ACTION_ADMIN:
        admin_any();
        break;
    case ACTION_SUSPEND:
        suspender_order(node.engine, &node.jobs);
        disks_look();
        break;
    case ACTION_CLOCK_AHEAD:
        clock_set((int64_t)world.clock_jump_s);
        break;
    case ACTION_CLOCK_BACK:
        clock_set(-(int64_t)world.clock_jump_s);
        break;
    case ACTION_START:
        break;
    }
}

static void on_action(struct sim_event *event)
{
    struct action *a = CONTAINER_OF(event, struct action, event);

    if (a == &node.start) {
        node_start();
        return;
    }
    if (a != &node.cut && (node.engine == NULL || (node.restarting && a->kind != ACTION_KILL))) {
        sim_in(event, sim_between(SIM_S, 10 * SIM_S)); /* when it runs again */
        return;
    }
    node.actions_left -= a != &node.cut;
    act(a);
}

static void plan(enum action_kind kind, uint64_t within_ns)
{
    struct action *a = &node.actions[node.actions_len++];

    ASSERT(node.actions_len <= ACTIONS_MAX);
    node.actions_left++;
    a->kind = kind;
    a->event.run = on_action;
    sim_in(&a->event, sim_draw(within_ns));
}

void node_kill_within(uint64_t ns)
{
    plan(ACTION_KILL, ns);
}

bool node_runs(void)
{
    return node.engine != NULL && !node.restarting && !node.ending;
}

static void on_ordered(void *arg, int result)
{
    (void)arg;
    if (result < 0)
        sim_fail("orders", "an order of warm-up: %d", result);
}

void node_order(const struct warmup_order *what)
{
    warm_submit(&node.engine->shared, &(struct warm_order){.what = *what, .on_done = on_ordered});
}

void node_begin(const char *dir)
{
    uint64_t span_ns = world.load_ns * 2 + 60 * SIM_S;

    node.dir = dir;
    node.start.event.run = node.cut.event.run = on_action;
    node.cut.kind = ACTION_CUT;
    node.sync.run = on_sync;
    for (uint32_t i = 0; i < SHARDS_MAX_SIM; i++) {
        node.disks[i].commit.run = on_commit;
        node.disks[i].load.run = on_load;
    }
    for (uint32_t i = 0; i < world.crashes; i++)
        plan(sim_chance(700) ? ACTION_KILL : ACTION_RESTART, span_ns);
    for (uint32_t i = 0; i < world.admin_jobs; i++)
        plan(ACTION_ADMIN, span_ns);
    for (uint32_t i = 0; i < world.suspensions; i++)
        plan(ACTION_SUSPEND, span_ns);
    if (world.reload)
        plan(ACTION_RELOAD, span_ns);
    if (world.clock_jump_s > 0) { /* in the end it is right again */
        plan(ACTION_CLOCK_AHEAD, span_ns);
        plan(ACTION_CLOCK_BACK, span_ns);
    }
    for (uint32_t i = 0; i < world.rereads; i++)
        plan(ACTION_REREAD, 2 * span_ns);
    for (uint32_t i = 0; i < world.commit_fault_phases; i++) {
        node.phases[i].from_ns = sim_now_ns() + sim_draw(span_ns);
        node.phases[i].until_ns = node.phases[i].from_ns + sim_draw(30 * SIM_S);
        node.phases[i].fatal = sim_chance(300);
    }
    node.refusal.from_ns = sim_now_ns() + sim_draw(span_ns);
    node.refusal.until_ns = node.refusal.from_ns + sim_draw(600 * SIM_S);
    for (uint32_t i = 0; i < world.pin_phases; i++) {
        node.pins[i].begin.run = on_pin;
        node.pins[i].end.run = on_unpin;
        sim_in(&node.pins[i].begin, sim_draw(span_ns));
    }
    sim_io_limit(&(struct sim_io_limits){.fds_max = world.fds_max,
                                         .path = world_path,
                                         .session = ledger_session,
                                         .here = is_here,
                                         .routed = is_routed});
    node_start();
}

/* How far ahead a row that waits may be due at most. */
static int64_t ahead_max_s(const struct queue_row_view *row, int64_t now_ms)
{
    int64_t created_ms = row->expires_ms - (int64_t)row->lifetime_s * 1000;

    if (row->attempts > 0)
        return 2 * world.retry_max_s + NOTICE_WAIT_S;
    if (row->due_ms >= row->expires_ms) /* its end found no room for the notice */
        return NOTICE_WAIT_S;
    /* Its not-before time, which its sender may have computed by a clock that ran ahead. */
    if (world.not_before_s_max > 0 && row->due_ms > created_ms)
        return (created_ms - now_ms) / 1000 + world.not_before_s_max + world.clock_jump_s;
    return 0;
}

/* No due time lies further ahead than retries and not-before times allow, and nothing outlives its
 * lifetime, whatever it waits for. */
static bool check_times(void *arg, const struct queue_row_view *row)
{
    int64_t now_ms = sim_wall_ms(), ends_ms = row->expires_ms;

    (void)arg;
    if ((row->flags & RECIPIENT_HELD) != 0)
        return true;
    if (row->due_ms > now_ms + ahead_max_s(row, now_ms) * 1000 + 1000)
        sim_fail("due times", "%.*s, tried %u times, is due in %lld s", STR_FMT(row->address),
                 row->attempts, (long long)(row->due_ms - now_ms) / 1000);
    if (row->due_ms > ends_ms) /* it had ended, and there was no room for the notice */
        ends_ms = row->due_ms;
    if (world.map_filled == 0 && ends_ms + OUTLIVED_MS < now_ms)
        sim_fail("lifetimes", "%.*s expired %lld s ago, and is in the queue", STR_FMT(row->address),
                 (long long)(now_ms - row->expires_ms) / 1000);
    return true;
}

static void check_shard_times(uint32_t shard)
{
    struct queue_cursor cursor = {0};

    if (sim_now_ns() - node.timed_ns < RIGHT_AFTER_NS)
        return;
    queue_visit(
        node.engine->shared.queue, shard, &cursor,
        &(struct queue_visit){.rows_max = 100000, .need_message = true, .visit = check_times});
}

/* What the store refuses to change stays as it was, and is put right once it is taken. */
static bool settles_refused(void)
{
    uint32_t refused = 0;

    for (uint32_t i = 0; i < node.engine->shared.workers_len; i++)
        refused += node.engine->shared.workers[i].settles_refused;
    return refused > 0;
}

/* Whatever a recipient is about, administration that looks for it comes to an end. */
static void check_asked(void)
{
    struct list_node *n = node.jobs == 0 ? NULL : list_first(&node.asked);

    if (n == NULL || world.map_filled > 0 || world.commit_fault_phases > 0)
        return;
    if (LIST_ENTRY(n, struct asked, node)->begun_ns + ASKED_NS < sim_now_ns())
        sim_fail("administration", "a job of %zu rows has not ended",
                 LIST_ENTRY(n, struct asked, node)->job.rows_len);
}

void node_check(void)
{
    check_asked();
    for (uint32_t i = 0; node.engine != NULL && i < node.engine->shared.workers_len; i++)
        accounts_check(&node.engine->shared.workers[i]);
    if (node.engine != NULL && settles_refused())
        node.timed_ns = sim_now_ns();
    if (world_warmup || node.looks++ % TIMES_EVERY != 0) /* there nothing fails or expires */
        return;
    for (uint32_t i = 0; node.engine != NULL && i < queue_shards(node.engine->shared.queue); i++)
        check_shard_times(i);
}

bool node_empty(void)
{
    bool empty = true;

    suspender_time();
    if (node.engine == NULL || node.restarting || node.actions_left > 0 || node.jobs > 0)
        return false;
    for (uint32_t i = 0; i < queue_shards(node.engine->shared.queue); i++) {
        struct queue_counters c;

        queue_counters(node.engine->shared.queue, i, &c);
        if (c.quarantined != 0)
            sim_fail("store", "shard %u has quarantined something", i);
        if (c.rows == 0 && c.messages != 0)
            sim_fail("store", "shard %u keeps %llu messages without recipients", i,
                     (unsigned long long)c.messages);
        empty = empty && c.rows == 0;
        if (c.rows > 0 && world.admin_jobs > 0 && sim_chance(100))
            admin(i, ADMIN_RELEASE, true);
    }
    if (!empty && world.suspensions > 0 && sim_chance(100))
        suspender_resume_one(node.engine, &node.jobs);
    return empty;
}

void node_drain(void)
{
    if (sim_sabotage == SABOTAGE_MEMORY)
        ASSERT(message_new(&(struct message){.content = malloc(1), .content_len = 1}) != NULL);
    node.ending = true;
    sim_trace("drain for good");
    engine_drain(node.engine);
    sim_in(&node.cut.event, 60 * SIM_S);
}

bool node_ended(void)
{
    return node.ended;
}

bool node_was_killed(void)
{
    return node.killed;
}

static void describe_session(const struct delivery *d)
{
    fprintf(stderr,
            "      session %s %s stage %s yielding %d submitted %u in flight %u idle %d "
            "deadline %+lld\n",
            d->id, delivery_state_name(d->state), smtp_stage_name(smtp_client_stage(d->client)),
            d->yielding, d->submitted, smtp_client_in_flight(d->client),
            list_node_linked(&d->idle_node), (long long)(d->deadline_ms - sim_now_ns() / SIM_MS));
}

static void describe_channel(struct channel *c)
{
    const struct io *io = c->site->worker->io;
    uint64_t until_ms;
    enum channel_shut shut = channel_shut(c, &until_ms);

    fprintf(stderr,
            "    channel %s sessions %u connecting %u shut %d until %+lld down %d; run %u, all "
            "sessions %u, stopped %+lld ms\n",
            c->source->name, c->sessions_len, c->connecting, shut,
            (long long)(until_ms - io_now_ms(io)), c->down, atomic_load(&c->governor->shared.run),
            atomic_load(&c->governor->shared.sessions),
            (long long)(governor_stopped_ns(c->governor) / 1000000) - (long long)io_now_ms(io));
    for (struct list_node *n = list_first(&c->sessions); n != NULL; n = list_next(&c->sessions, n))
        describe_session(LIST_ENTRY(n, struct delivery, site_node));
}

static void describe_site(const struct site *site)
{
    fprintf(stderr, "  site %s sessions %u lanes %u\n", site->name, site->sessions_len,
            site->lanes);
    for (struct list_node *n = list_first(&site->supplies); n != NULL;
         n = list_next(&site->supplies, n)) {
        const struct supply *s = LIST_ENTRY(n, struct supply, site_node);

        fprintf(stderr,
                "    supply %s bound %u waiting %u ready %d turns %u+%u down %d parked "
                "%d walks %d timer %d\n",
                s->pool->name, s->bound, s->waiting, !feed_empty(&s->feed), s->turns.len,
                s->overflow.len, s->down, s->parked_ms != 0, list_node_linked(&s->walk_node),
                timer_armed(&s->timer));
    }
    for (struct list_node *n = list_first(&site->channels); n != NULL;
         n = list_next(&site->channels, n))
        describe_channel(LIST_ENTRY(n, struct channel, site_node));
}

void node_describe(void)
{
    struct map_node *n = NULL;

    if (node.engine == NULL)
        return;
    for (uint32_t i = 0; i < queue_shards(node.engine->shared.queue); i++) {
        struct queue_counters c;

        queue_counters(node.engine->shared.queue, i, &c);
        fprintf(stderr, "shard %u: rows %llu messages %llu map used %llu reusable %llu intake %d\n",
                i, (unsigned long long)c.rows, (unsigned long long)c.messages,
                (unsigned long long)c.map_used_bytes, (unsigned long long)c.map_reusable_bytes,
                queue_intake(node.engine->shared.queue, i));
    }
    for (uint32_t i = 0; i < node.engine->shared.workers_len; i++) {
        struct worker *w = &node.engine->shared.workers[i];
        size_t bucket = 0;

        fprintf(stderr,
                "worker %u: deliveries %u loads %u settles %d injects %u drained %d pending %zu\n",
                i, w->deliveries, w->loads, settle_pending(w), w->injects_len, worker_drained(w),
                queue_port_pending(w->port));
        for (n = NULL, bucket = 0; (n = map_walk(&w->sites, &bucket, n)) != NULL;)
            describe_site(CONTAINER_OF(n, struct site, node));
        bucket = 0;
        for (n = NULL; (n = map_walk(&w->lanes, &bucket, n)) != NULL;) {
            struct lane *l = CONTAINER_OF(n, struct lane, node);

            fprintf(
                stderr,
                "  lane %s shard %u window %u flight %u memory %u stored %+lld suspended %+lld "
                "state %d scan %d site %s\n",
                l->name, l->shard, l->window_len, l->in_flight, l->in_memory,
                l->stored_due_ms == INT64_MAX ? -1 : (long long)(l->stored_due_ms - sim_wall_ms()),
                (long long)(l->state == LANE_OPEN ? 0 : l->shut_until_ms - sim_now_ns() / SIM_MS),
                l->state, l->scan, l->site == NULL ? "-" : l->site->name);
        }
    }
}

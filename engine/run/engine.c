#include "run/engine.h"
#include "run/turn.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "intake/campaign.h"
#include "intake/inject.h"
#include "schedule/lane.h"
#include "worker/warmup_store.h"

#define QUARANTINE_LINES_MAX 10
#define QUARANTINE_LINE_MS   UINT64_C(6000)

static void pin(uint32_t index)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(index % (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), &set);
    pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

bool engine_start_failed(struct engine *e, int err)
{
    int none = 0;

    return atomic_compare_exchange_strong(&e->start_error, &none, err);
}

struct worker_arg {
    struct engine *engine;
    uint32_t index;
};

/* Four meetings with the main thread: all have bound; the queue is open; all have started; nobody
 * posts or wakes any more. */
static void *worker_main(void *arg)
{
    struct worker_arg *a = arg;
    struct engine *e = a->engine;
    struct worker *w = &e->shared.workers[a->index];
    char name[16];
    int err;

    snprintf(name, sizeof(name), "worker-%u", a->index);
    pthread_setname_np(pthread_self(), name);
    if (e->config->pin_cpus)
        pin(a->index);
    err = worker_open(w, e, a->index);
    free(a);
    if (err < 0)
        (void)engine_start_failed(e, err);
    pthread_barrier_wait(&e->barrier);
    pthread_barrier_wait(&e->barrier);
    if (atomic_load(&e->start_error) == 0) {
        err = worker_start(w);
        if (err < 0)
            (void)engine_start_failed(e, err);
    }
    pthread_barrier_wait(&e->barrier);
    if (atomic_load(&e->start_error) == 0)
        worker_run(w);
    pthread_barrier_wait(&e->barrier);
    worker_close(w);
    return NULL;
}

static uint32_t workers_wanted(const struct config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (c->workers != 0)
        return c->workers < WORKERS_MAX ? c->workers : WORKERS_MAX;
    return cores < 1 ? 1 : cores > WORKERS_MAX ? WORKERS_MAX : (uint32_t)cores;
}

/* Descriptors that sessions out leave to everything else: a tenth, at least 64 and at most 1,000.
 */
static uint32_t sessions_out_max(void)
{
    struct rlimit limit;
    rlim_t files = 1024, kept;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        files = limit.rlim_cur < UINT32_MAX ? limit.rlim_cur : UINT32_MAX;
    kept = files / 10 < 64 ? 64 : files / 10 > 1000 ? 1000 : files / 10;
    return files > kept ? (uint32_t)(files - kept) : 1;
}

static const char *listen_advice(bool is_unix, int err)
{
    switch (err) {
    case -EADDRINUSE:
        return is_unix ? "a file or another program's socket is there: remove it, or change "
                         "'listen'"
                       : "stop the other program, or change 'listen'";
    case -EADDRNOTAVAIL:
        return "this machine has no such address: change 'listen'";
    case -EACCES:
        return is_unix ? "its directory cannot be written: change that, or 'listen'"
                       : "ports below 1024 are for root and CAP_NET_BIND_SERVICE";
    case -ENOENT:
        return "make its directory, or change 'listen'";
    default:
        return "change 'listen'";
    }
}

void engine_listen_failed(const struct config_listener *l, int err)
{
    log_error("smtp.listen_failed", "listener=%s address=%s error=\"%s\" action=\"%s\"", l->name,
              l->address.text, strerror(-err),
              listen_advice(l->address.addr.ss_family == AF_UNIX, err));
}

static int listeners_free(const struct config *c)
{
    for (size_t i = 0; i < c->listeners_len; i++) {
        const struct config_address *a = &c->listeners[i].address;
        int err = io_address_free((const struct sockaddr *)&a->addr, a->len);

        if (err < 0) {
            engine_listen_failed(&c->listeners[i], err);
            return err;
        }
    }
    return 0;
}

static void buf_put_why(struct buf *error, int err)
{
    buf_printf(error, "cannot start: %s; the log lines above say what to change",
               err == -EADDRINUSE ? "an address is already in use" : strerror(-err));
}

static void engine_free(struct engine *e)
{
    engine_free_shared(e);
    dialogues_done(&e->shared.dialogues);
    free(e->threads);
    memset(e, 0, sizeof(*e));
}

int engine_open(struct engine *e, struct config *config, struct buf *error)
{
    int err;

    memset(e, 0, sizeof(*e));
    dialogues_init(&e->shared.dialogues);
    err = listeners_free(config);
    if (err < 0) {
        buf_put_why(error, err);
        return err;
    }
    err = trust_load(&e->trust, config, NULL, error);
    if (err < 0)
        return err;
    e->config = config_ref(config);
    e->started_ms = clock_wall_ms();
    e->shared.workers_len = workers_wanted(config);
    ASSERT(e->shared.workers_len > 0 && e->shared.workers_len <= WORKERS_MAX);
    e->shared.sessions_out_max = sessions_out_max();
    e->shared.workers =
        aligned_alloc(CACHE_LINE_BYTES, e->shared.workers_len * sizeof(*e->shared.workers));
    e->threads = calloc(e->shared.workers_len, sizeof(*e->threads));
    if (e->shared.workers == NULL || e->threads == NULL || clients_init(&e->shared.clients) < 0 ||
        logins_init(&e->shared.logins) < 0 || sources_init(&e->shared.sources) < 0 ||
        tally_open(&e->shared.tally) < 0 || governor_open(&e->shared.governor) < 0) {
        buf_puts(error, "out of memory");
        engine_free(e);
        return -ENOMEM;
    }
    governor_begin(e->shared.governor, clock_mono_ns());
    memset(e->shared.workers, 0, e->shared.workers_len * sizeof(*e->shared.workers));
    pthread_barrier_init(&e->barrier, NULL, e->shared.workers_len + 1);
    for (uint32_t i = 0; i < e->shared.workers_len; i++) {
        struct worker_arg *arg = malloc(sizeof(*arg));

        ASSERT(arg != NULL);
        *arg = (struct worker_arg){e, i};
        err = -pthread_create(&e->threads[i], NULL, worker_main, arg);
        ASSERT(err == 0);
    }
    pthread_barrier_wait(&e->barrier);
    e->meetings = 1;
    err = atomic_load(&e->start_error);
    if (err < 0)
        buf_put_why(error, err);
    return err;
}

/* A bad disk damages many records at once, and the quarantine names them all: the log has ten
 * lines, and then one in six seconds. Any thread; two may have one place, relaxed. */
static bool log_quarantined(void *arg, const struct queue_quarantined *q)
{
    struct engine *e = arg;
    uint64_t now_ms = clock_mono_ns() / 1000000;
    uint64_t full_ms = atomic_load_explicit(&e->quarantine_ms, memory_order_relaxed);
    char id[MSGID_TEXT_BYTES] = "";

    if (full_ms < now_ms)
        full_ms = now_ms;
    if (full_ms >= now_ms + QUARANTINE_LINES_MAX * QUARANTINE_LINE_MS)
        return false;
    atomic_store_explicit(&e->quarantine_ms, full_ms + QUARANTINE_LINE_MS, memory_order_relaxed);
    if (q->is_row)
        msgid_text(&q->id, id);
    log_error("queue.quarantined",
              "shard=%u tree=%s reason=\"%.*s\" queue=\"%.*s\" id=%s "
              "action=\"see 'hayauma queue quarantine', which names all\"",
              q->shard, q->tree, STR_FMT(q->reason), STR_FMT(q->queue), id);
    return true;
}

static void on_quarantined(void *arg, const struct queue_quarantined *q)
{
    (void)log_quarantined(arg, q);
}

/* Those of earlier, and what the start has just found. */
static void log_quarantine(struct engine *e)
{
    for (uint32_t i = 0; i < queue_shards(e->shared.queue); i++) {
        struct queue_cursor cursor = {0};

        (void)queue_quarantine_visit(e->shared.queue, i, &cursor, QUARANTINE_LINES_MAX,
                                     log_quarantined, e);
    }
}

static void queue_options_of(const struct config *c, uint32_t workers, struct queue_options *o)
{
    *o = (struct queue_options){.path = c->queue.path,
                                .shards = c->queue.shards != 0 ? c->queue.shards : workers,
                                .map_bytes = c->queue.map_bytes,
                                .records = {.path = c->records.path,
                                            .segment_bytes_max = c->records.segment_bytes_max,
                                            .segment_age_s_max = c->records.segment_age_s_max,
                                            .zstd = c->records.zstd,
                                            .retention_s = c->records.retention_s,
                                            .retention_bytes = c->records.retention_bytes}};
}

/* What the list has may be gigabytes: mail is taken and sent meanwhile. */
static void *list_reader_main(void *arg)
{
    struct suppressions *list = arg;
    uint64_t begun_ns = clock_mono_ns();
    int err;

    pthread_setname_np(pthread_self(), "list-reader");
    crew_be_nice();
    err = suppressions_load(list);
    if (err < 0 && err != -ECANCELED)
        log_error("suppression.unreadable",
                  "error=\"%s\" action=\"each address is looked up in the "
                  "queue, which is slow: see 'A damaged queue' in the manual\"",
                  strerror(-err));
    else if (err == 0 && suppressions_len(list) > 0)
        log_info("suppression.loaded", "addresses=%llu ms=%llu",
                 (unsigned long long)suppressions_len(list),
                 (unsigned long long)(clock_mono_ns() - begun_ns) / 1000000);
    return NULL;
}

static int list_read(struct engine *e)
{
    int err;

    ASSERT(!e->list_reading);
    suppressions_open(&e->shared.suppressions, e->shared.queue);
    err = -pthread_create(&e->list_reader, NULL, list_reader_main, &e->shared.suppressions);
    e->list_reading = err == 0;
    return err;
}

static void list_read_end(struct engine *e)
{
    if (!e->list_reading)
        return;
    suppressions_stop(&e->shared.suppressions);
    pthread_join(e->list_reader, NULL);
    e->list_reading = false;
}

static void wake_keeper(void *arg)
{
    io_wake(worker_of_shard(arg, 0)->io);
}

/* Whether the system's own word for it says more: what is missing, or not allowed. */
static bool is_of_system(int err)
{
    return err == ENOENT || err == ENOTDIR || err == EACCES || err == EPERM || err == ENOSPC ||
           err == EMFILE;
}

static void log_foreign_shard(struct engine *e)
{
    struct buf path = {0};

    if (queue_foreign_shard(e->shared.queue, &path))
        log_warn(
            "queue.foreign_shard",
            "path=%.*s action=\"the queue has no such shard, and mail in it is not sent: if a copy "
            "was restored over another queue, restore the whole of it\"",
            STR_FMT(buf_str(&path)));
    buf_done(&path);
}

int engine_start(struct engine *e, int (*ready)(void *arg, struct buf *error), void *arg,
                 struct buf *error)
{
    struct queue_options options;
    const char *why = NULL;
    int err;

    ASSERT(e->meetings == 1 && e->shared.queue == NULL);
    queue_options_of(e->config, e->shared.workers_len, &options);
    options.on_quarantined = on_quarantined;
    options.on_quarantined_arg = e;
    err = crew_open(&e->shared.crew, e->shared.workers_len,
                    CREW_JOBS_PER_WORKER * e->shared.workers_len);
    if (err == 0)
        err = queue_open(&e->shared.queue, &options, &why);
    if (err == 0)
        err = suspensions_open(&e->shared.suspensions, e->shared.queue);
    if (err == 0)
        err = campaigns_open(&e->shared.campaigns, e->shared.queue, &e->shared.suspensions);
    if (err == 0)
        err = list_read(e);
    if (err == 0)
        err = sts_table_open(&e->shared.sts, e->shared.queue);
    if (err == 0)
        err = tls_counts_open(&e->shared.tls_counts, e->shared.queue);
    if (err == 0)
        err = warmup_store_open(&e->shared.warmup, e->shared.queue, wake_keeper, &e->shared);
    if (err == 0)
        warmup_configure(&e->shared.warmup, e->config);
    if (err < 0) {
        buf_printf(error, "cannot open the queue %s with its records in %s: %s", options.path,
                   options.records.path != NULL ? options.records.path : "no place",
                   why != NULL ? why : strerror(-err));
        if (why != NULL && is_of_system(-err))
            buf_printf(error, " (%s)", strerror(-err));
        (void)engine_start_failed(e, err);
    } else {
        log_quarantine(e);
        log_foreign_shard(e);
        err = ready(arg, error);
        if (err < 0)
            (void)engine_start_failed(e, err);
    }
    pthread_barrier_wait(&e->barrier);
    pthread_barrier_wait(&e->barrier);
    e->meetings = 3;
    err = atomic_load(&e->start_error);
    if (err < 0 && error->len == 0)
        buf_put_why(error, err);
    return err;
}

/* --- orders to all workers --- */

struct order {
    struct worker_note note;
    struct config *config;
    struct trust *trust;
    bool hard;
};

static void order_all(struct engine *e, void (*run)(struct worker *, struct worker_note *),
                      struct config *config, struct trust *trust, bool hard)
{
    ASSERT((config == NULL) == (trust == NULL)); /* a reload brings both */
    for (uint32_t i = 0; i < e->shared.workers_len; i++) {
        struct order *o = calloc(1, sizeof(*o));

        ASSERT(o != NULL);
        o->note.run = run;
        o->config = config == NULL ? NULL : config_ref(config);
        o->trust = trust == NULL ? NULL : trust_ref(trust);
        o->hard = hard;
        worker_post(&e->shared, NULL, i, &o->note);
    }
}

static void on_reload(struct worker *w, struct worker_note *note)
{
    struct order *o = CONTAINER_OF(note, struct order, note);
    struct config *old = w->config;

    ASSERT(o->config != NULL && o->trust != NULL && o->config->generation > old->generation);
    w->config = o->config;
    trust_unref(w->trust);
    w->trust = o->trust;
    free(o);
    inject_reload(w);
    lanes_renew(w);
    if (w == worker_of_shard(w->shared, 0))
        sources_look(w);
    config_unref(old);
}

int engine_reload(struct engine *e, struct config *config, struct buf *cannot, struct buf *errors)
{
    struct trust *trust;
    int err = trust_load(&trust, config, e->trust, errors);

    if (err < 0)
        return err;
    buf_put_str(errors, buf_str(&trust->certificates->complaints));
    config_keep(e->config, config, cannot);
    config->generation = e->config->generation + 1;
    warmup_configure(&e->shared.warmup, config);
    sts_table_look_again(&e->shared.sts);
    order_all(e, on_reload, config, trust, false);
    config_unref(e->config);
    e->config = config_ref(config);
    trust_unref(e->trust);
    e->trust = trust;
    return 0;
}

static void on_drain(struct worker *w, struct worker_note *note)
{
    struct order *o = CONTAINER_OF(note, struct order, note);

    ASSERT(o->config == NULL && o->trust == NULL);
    worker_drain(w, o->hard);
    free(o);
}

void engine_drain(struct engine *e)
{
    if (!atomic_exchange(&e->draining, true))
        order_all(e, on_drain, NULL, NULL, false);
}

void engine_cut(struct engine *e)
{
    order_all(e, on_drain, NULL, NULL, true);
}

bool engine_drained(const struct engine *e)
{
    return workers_drained(&e->shared);
}

bool engine_alive(const struct engine *e, uint64_t limit_ms)
{
    uint64_t now_ms = clock_mono_ns() / 1000000;

    for (uint32_t i = 0; i < e->shared.workers_len; i++)
        if (atomic_load_explicit(&e->shared.workers[i].turned_ms, memory_order_relaxed) + limit_ms <
            now_ms)
            return false;
    return true;
}

static void on_stop(struct worker *w, struct worker_note *note)
{
    ASSERT(!w->stopping);
    worker_drain(w, true);
    w->stopping = true;
    free(CONTAINER_OF(note, struct order, note));
}

void engine_free_shared(struct engine *e)
{
    crew_close(e->shared.crew);
    queue_close(e->shared.queue);
    governor_close(e->shared.governor);
    clients_done(&e->shared.clients);
    logins_done(&e->shared.logins);
    campaign_uploads_done(&e->shared);
    campaigns_done(&e->shared.campaigns);
    suspensions_done(&e->shared.suspensions);
    suppressions_done(&e->shared.suppressions);
    tally_close(&e->shared.tally);
    sts_table_done(&e->shared.sts);
    tls_counts_done(&e->shared.tls_counts);
    sources_done(&e->shared.sources);
    warmup_done(&e->shared.warmup);
    config_unref(e->config);
    trust_unref(e->trust);
    free(e->shared.workers);
}

void engine_close(struct engine *e)
{
    bool running = e->meetings == 3 && atomic_load(&e->start_error) == 0;

    if (e->shared.workers == NULL)
        return;
    ASSERT(e->meetings <= 3); /* the last is below */
    if (running)
        order_all(e, on_stop, NULL, NULL, true);
    else if (e->meetings < 3)
        (void)engine_start_failed(e, -ECANCELED);
    crew_stop(e->shared.crew); /* its results wake workers: none may come after the last meeting */
    sts_fetcher_stop(e->shared.sts.fetcher); /* the same */
    for (; e->meetings < 4; e->meetings++)
        pthread_barrier_wait(&e->barrier);
    for (uint32_t i = 0; i < e->shared.workers_len; i++)
        pthread_join(e->threads[i], NULL);
    for (size_t i = 0; i < e->config->listeners_len; i++) {
        const struct config_address *a = &e->config->listeners[i].address;

        (void)io_remove_stale((const struct sockaddr *)&a->addr, a->len);
    }
    list_read_end(e);
    pthread_barrier_destroy(&e->barrier);
    engine_free(e);
}

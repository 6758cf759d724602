/* A worker: one thread, one io, its sessions in and out, the lanes of the shards it owns.
 *
 * This header is the engine's inside: the rooms above share it; nothing outside engine/ includes
 * it. Everything in struct worker belongs to its thread; other threads reach it through
 * worker_post() only. What a turn is made of: run/turn.h.
 *
 * Timers of a worker: lane (next due, end of back-off, idle removal), site (rate, session slot),
 * delivery (stage timeout, idle), sweeps (sweep.h), inject (idle, total), settle (retry of a failed
 * commit), worker (drain limit). */
#ifndef HAYAUMA_ENGINE_WORKER_H
#define HAYAUMA_ENGINE_WORKER_H

#include <stdatomic.h>
#include <stdio.h>

#include "base/map.h"
#include "base/msgid.h"
#include "base/pool.h"
#include "base/ring.h"
#include "base/rng.h"
#include "config/config.h"
#include "dns/dns.h"
#include "io/io.h"
#include "limits/limit.h"
#include "queue/mailbox.h"
#include "queue/queue.h"
#include "worker/crew_share.h"
#include "worker/families.h"
#include "worker/stream_tls.h"
#include "worker/suspensions.h"
#include "worker/turn_gauge.h"

struct shared;
struct worker;
struct hot;
struct settle;
struct lane_finders;
struct lane_hooks;
struct inject_listener;
struct sweeps;
struct trust;
struct secure_memory;
struct warm;
struct campaign_keeper;
struct sts_lookups;
struct tls_reports;

#define WORKERS_MAX 64
#define SHARDS_MAX  256
/* Refills under way per worker; those beyond LOADS_SURE bring nothing once memory is short. */
#define LOADS_MAX  128
#define LOADS_SURE 32

#define SUPPRESSION_LOOKS_MAX 16 /* of a worker, with the crew at a time */

/* Of bounce classifications (outcome/classify.h): there are no more. */
#define REFUSAL_REASONS_MAX 32
enum refusal_end { REFUSAL_DEFERRED, REFUSAL_FAILED, REFUSAL_EXPIRED, REFUSAL_ENDS };

#define WORKER_TURN_MS      1000 /* a worker turns at least this often */
#define WORKER_IDLE_BUCKETS 1024

/* Something for another worker to do; lives in its sender's message. run() executes in the target's
 * thread and owns the note from then on. */
struct worker_note {
    void (*run)(struct worker *w, struct worker_note *note);
    struct list_node node;
};

/* Written by the worker alone, read by anybody: relaxed loads and stores, each counter is true by
 * itself. */
struct worker_counters {
    _Atomic uint64_t received_messages, received_recipients, received_bytes, rejected,
        accept_failures, delivered, deferred, failed, expired, cancelled, lost, notices,
        notices_failed, connects, connect_failures, loads, loaded, transactions, sessions_in_total,
        sessions_out_total, tls_out, tls_out_resumed, tls_out_dane, tls_out_failures,
        tls_out_plaintext, tls_in, tls_in_resumed, tls_in_failures, logins, logins_failed,
        logins_out_failed, signed_messages, sign_failures, sts_fetches, sts_fetch_failures,
        sts_tested_failures;
    _Atomic uint64_t held_ms[LIMIT_KINDS][GOVERNOR_WAITS];        /* that mail waited for limits */
    _Atomic uint64_t refusals[REFUSAL_REASONS_MAX][REFUSAL_ENDS]; /* by classification */
    _Atomic int accept_error; /* of the last of accept_failures */
    _Atomic uint32_t sessions_in, sessions_out, connecting, lanes, lanes_absent, sites, in_memory;
};

struct worker {
    _Alignas(CACHE_LINE_BYTES) struct shared *shared; /* neighbours in an array share no line */
    uint32_t index;
    struct io *io;
    struct streams streams;
    struct dns *dns;
    struct queue_port *port;
    struct config *config; /* what new sessions use; a reference */
    struct trust *trust;   /* that belongs to it; a reference */
    struct rng rng;
    struct msgid_source ids;
    bool draining;
    bool draining_hard;         /* the limit is over: close everything */
    bool stopping;              /* ends as soon as it is drained */
    _Atomic bool drained;       /* read by the main thread; relaxed, a hint */
    _Atomic uint64_t turned_ms; /* when the last turn began, monotonic; for the watchdog */

    /* In: one ring per sending worker and one for the control thread, and what did not fit. */
    struct ring *inbox;       /* [workers + 1] */
    struct list *outbox;      /* [workers]: notes waiting for room in another's ring */
    struct mailbox letterbox; /* notes of threads that are none of these */
    struct list letters;      /* taken from it, and left to the next turn */
    uint32_t notes_turn;      /* whose notes come next: an inbox's number, or behind them letters */
    bool handed; /* others handed something over, which the next turn takes: run/turn.c */

    /* Injection. */
    struct inject_listener *listeners;
    size_t listeners_len;
    struct list injects, injects_dirty, injects_dead;
    uint32_t injects_len;
    struct pool inject_pool, answer_pool;
    struct list login_wait; /* logins whose passwords are to be checked: inject_login.c */
    uint32_t logins_waiting, login_checks;
    struct hot *hot; /* which domains much of the mail is for */

    /* Delivery. */
    const struct lane_hooks *lane_hooks; /* schedule/lane.h */
    struct map lanes, sites;
    struct map rollups;                    /* what sites of a provider share: schedule/rollup.h */
    uint64_t rollup_arrivals;              /* channels that began to wait in their lines, so far */
    struct list idle[WORKER_IDLE_BUCKETS]; /* sessions without work, by address: idle.c */
    struct map memory;                     /* recipients in memory, by message id and index */
    struct list load_wait;                 /* lanes that want a refill */
    uint32_t loads;                        /* under way */
    uint32_t expired;                      /* ended as loads brought them, in the present turn */
    uint32_t lanes_max;                    /* of them in memory: schedule/lane_find.h */
    struct lane_finders *finders;
    size_t leave_bucket;          /* of lanes: where lanes_leave_step() goes on */
    uint64_t leave_after_ms;      /* monotonic: when it begins anew */
    uint64_t leave_step_ms;       /* monotonic: when it last went on */
    uint64_t lane_gone_ms;        /* monotonic: when a lane was last freed */
    uint64_t wanted_ms;           /* monotonic: when a due lane that was found had no place */
    uint64_t left_seen_ms;        /* monotonic: the latest seen_until_ms of lanes that are gone */
    uint64_t churn_s;             /* monotonic: in this second */
    uint32_t churn;               /* so many lanes left with due rows */
    size_t trim_bucket;           /* of lanes: where windows_trim() goes on */
    bool trimmed;                 /* windows_trim() gave something back in its present round */
    uint64_t trim_after_ms;       /* monotonic: when it may look again behind a round for nothing */
    size_t renew_bucket;          /* of lanes: where lanes_renew_step() goes on */
    bool renewing;                /* behind a reload */
    uint64_t absent_after_ms;     /* monotonic: the next pass for lanes that are not: sweep.c */
    struct sweeps *sweeps;        /* sweep.h */
    struct list suspension_walks; /* over lanes: schedule/lane_suspend.c */
    struct list supply_walks;     /* supplies some of whose lanes have something to hear */
    struct list route_asks;       /* dry runs whose domain is looked up: control/backend_route.c */
    uint32_t suspensions_changed; /* how often this worker has heard of a change */
    struct suspended_names suspended_names; /* of messages: schedule/flow_split.c */
    /* Only in the worker that owns shard 0: outcome/suspend.c. */
    struct list suspension_changes; /* that wait for the one under way */
    bool suspension_changing;
    struct timer suspension_timer;
    struct warm *warm;                 /* the keeper of warm-up: outcome/warm.c */
    struct campaign_keeper *campaigns; /* intake/campaign.c */
    struct timer load_timer;           /* memory was full: look again */
    struct timer sources_timer;        /* only in the worker that owns shard 0: sources_look() */
    /* The same: what watches this host's addresses and routes; -1: nothing. */
    int addresses_fd, routes_fd;
    struct io_op addresses_op;
    bool addresses_news;
    uint64_t routes_look_ms;        /* not before is it looked whether routes have changed */
    struct source **sources_looked; /* the same: of each of config->sources, in this ... */
    uint64_t sources_generation;    /* ... configuration */
    struct list proxy_looks;        /* the same: looks at proxies of sources */
    struct list supplies_dirty, channels_dirty, sites_dead, deliveries_dirty, deliveries_dead;
    struct list conversions; /* under way */
    struct {
        struct crew_share share;
        struct pool pool;
    } signings; /* deliver/signing.h */
    struct {
        struct map entries; /* recipes by the ids of their messages */
        struct list unused; /* of them, the longest unused first */
        uint32_t unused_len;
        uint64_t unused_bytes;
        struct crew_share share;
        struct list later;               /* letters that wait for a turn, the first first */
        uint64_t turn_left;              /* of RECIPE_TURN_UNITS */
    } recipes;                           /* deliver/recipes.h */
    struct crew_share suppression_looks; /* recipients who may be on the suppression list */
    struct list deliveries_all;
    uint32_t deliveries;
    uint32_t sources_changed; /* the process's count, when deliveries_all were last looked at */
    uint32_t routes_changed;  /* the same */
    struct families families;
    struct pool delivery_pool, transaction_pool, output_pool;
    uint64_t hash_seed;

    struct buf rejections; /* record lines */
    uint64_t rejections_omitted;
    uint64_t refusals_ms, omitted_ms; /* when refusals may have all lines again; the next count */

    struct buf record;       /* of what was just delivered, for a moment: judge_delivered() */
    struct settle **settles; /* [shards]: the open change of each shard, or NULL */
    struct list settles_under_way, settles_spare;
    uint32_t settles_spare_len;
    uint64_t settling_bytes; /* of settles that their committers have not answered */
    uint32_t settling_many;  /* recipients in the same who count */
    uint32_t leave_used;     /* such recipients that sessions got: settles_full() */
    uint64_t leave_ms;       /* monotonic: when it was last lowered for the time */
    struct timer leave_timer;
    struct settle_waiter *settles_follower; /* of what is submitted now, or NULL */
    uint32_t settles_failing;               /* of them, found no room */
    uint32_t settles_refused;               /* of them, refused for another reason */
    uint64_t notice_bytes;                  /* of notices in them */
    uint32_t directories;                   /* reads of directories under way */

    struct handshakes handshakes;
    struct secure_memory *secure_memory; /* deliver/secure.h */
    uint64_t resolver_complaint_ms;      /* monotonic: when its silence may be told again */
    struct dns_question *root_question;  /* whether the resolver validates; NULL: nobody asks */
    struct sts_lookups *sts;             /* worker/sts_lookup.h */
    struct buf tls_texts;                /* worker/tls_tell.c, for a moment */
    struct tls_reports *tls_reports; /* outcome/tls_reports.h; in the worker that owns shard 0 */

    struct crew_desk desk; /* where the crew's results come back */
    struct worker_counters counters;
    struct turn_gauge turn;
};

static inline void counter_add(_Atomic uint64_t *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void gauge_set(_Atomic uint32_t *g, uint32_t v)
{
    atomic_store_explicit(g, v, memory_order_relaxed);
}

/* Sends note to worker `to`, from worker `from` (its thread), or from the control thread (from
 * NULL; one control thread only). Never fails. */
void worker_post(struct shared *shared, struct worker *from, uint32_t to, struct worker_note *note);
/* Sends note to worker `to` from any thread. A worker that sends one to itself runs it in its next
 * turn. */
void worker_send(struct shared *shared, uint32_t to, struct worker_note *note);
/* Sends all notes of a list, which is empty then, with one wake. */
void worker_send_all(struct shared *shared, uint32_t to, struct list *notes);
struct worker *worker_of_shard(struct shared *shared, uint32_t shard);
/* How many shards w owns: w->index, and from there on each so many workers behind the last. */
uint32_t worker_shards(const struct worker *w);
/* A turn's part of that. worker_notes_take() runs what others have sent, as long as more() says so,
 * which is asked behind each note (NULL: all); true: something may be left. worker_notes_send()
 * sends what waits for room in others' rings; worker_notes_wait(): whether something does. */
bool worker_notes_take(struct worker *w, bool (*more)(void *arg), void *arg);
void worker_notes_send(struct worker *w);
bool worker_notes_wait(const struct worker *w);
/* 0 or -ENOMEM; worker_notes_close() follows in any case. */
int worker_notes_open(struct worker *w) MUST_USE;
/* Nothing waits for room in another's ring any more. */
void worker_notes_close(struct worker *w);

static inline int64_t worker_wall_ms(const struct worker *w)
{
    return io_wall_ms(w->io);
}

/* A new session's name in the log and the records. */
#define SESSION_ID_BYTES 24
static inline void worker_session_id(struct worker *w, char out[SESSION_ID_BYTES])
{
    snprintf(out, SESSION_ID_BYTES, "%02x%08x%08x", w->index, (uint32_t)io_now_ms(w->io),
             (uint32_t)rng_next(&w->rng));
}

#endif

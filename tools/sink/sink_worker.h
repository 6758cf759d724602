/* The sink's threads. A worker owns an io, its listeners (SO_REUSEPORT), its sessions and a ledger
 * buffer; worker 0 also answers DNS. Workers share the behaviour, the ledger's descriptor and the
 * counters under `shared`.
 *
 * A turn: handlers step the sessions and collect replies and ledger lines; at its end the lines are
 * written, then the replies are sent, so that a ledger line exists for each 250. */
#ifndef HAYAUMA_TOOLS_SINK_WORKER_H
#define HAYAUMA_TOOLS_SINK_WORKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/pool.h"
#include "base/rng.h"
#include "io/io.h"
#include "tools/commands/endpoint.h"
#include "tools/sink/sink_behaviour.h"
#include "tools/sink/sink_dns.h"
#include "worker/stream_tls.h"

#define SINK_LISTENERS_MAX 64
#define SINK_TLS_PORT      465 /* where connections begin with TLS */

struct sink_worker;

struct sink {
    struct sink_behaviour *behaviour;
    struct endpoint listeners[SINK_LISTENERS_MAX];
    size_t listeners_len;
    int ledger_fd;   /* -1: none */
    int sessions_fd; /* the same: a line for each session */
    bool lmtp;
    uint64_t count_max;    /* messages to take before stopping by itself; 0 = no limit */
    uint32_t sessions_max; /* of one worker; beyond it connections are closed at once */
    struct sink_worker *workers;
    uint32_t workers_len;
    struct tls_server *tls; /* NULL: no STARTTLS, nor TLS from the beginning */
    bool tls_no_resuming;
    const struct endpoint *dns; /* NULL: none */
    struct sink_zone zone;
    sem_t opened; /* posted by each worker when its open has ended */
    struct {
        _Atomic uint64_t messages; /* relaxed; for count_max */
        _Atomic bool stop;         /* relaxed; a wake follows */
        _Atomic int error;         /* the first fatal -errno; 0 = none */
        /* Protects workers_len, and a worker's io against being closed while it is woken. */
        pthread_mutex_t lock;
    } shared;
};

/* Read by the main thread while workers run: relaxed atomics, each written by one thread. */
struct sink_counters {
    _Atomic uint64_t messages, recipients, bytes, sessions, open, open_max;
    _Atomic uint64_t deferred, refused, dropped, dns_queries;
    _Atomic uint64_t first_ns, last_ns; /* monotonic time of the first and last message */
};

static inline void sink_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

struct sink_listener {
    struct io_op accept;
    struct timer retry; /* after a failed accept (descriptors exhausted) */
    int fd;
    struct sink_worker *worker;
};

struct sink_worker {
    struct sink *sink;
    uint32_t index;
    struct io *io; /* written under sink->shared.lock */
    const char *failed;
    pthread_t thread;
    bool started;
    int open_error;
    struct sink_listener listeners[SINK_LISTENERS_MAX];
    size_t listeners_len;
    struct pool pool;
    struct list sessions;
    struct streams streams;
    struct handshakes handshakes; /* by its own thread: the crew has none */
    struct crew *crew;
    struct crew_desk desk;
    struct list ending; /* sessions whose operations end */
    struct list dirty;  /* sessions with replies to send at the end of the turn */
    struct buf ledger;
    struct rng rng;
    uint64_t next_session;
    uint64_t messages_turn;         /* not yet added to sink->shared.messages */
    struct sink_counters *counters; /* one per class, of this worker; main's to free */
    struct sink_dns_server *dns;    /* worker 0 with --dns */
};

/* On the worker's own thread: opens io, listeners and, for worker 0, the name server. 0 or -errno,
 * with w->failed naming what. */
int sink_worker_open(struct sink_worker *w) MUST_USE;
/* Turns until sink->shared.stop, then closes sessions and listeners. */
void sink_worker_run(struct sink_worker *w);
/* Closes w, also after a failed open. Counters stay for the summary. */
void sink_worker_close(struct sink_worker *w);
/* Tells all workers to stop; error: 0 or why (the first is kept). Any thread. */
void sink_stop(struct sink *sink, int error);

#endif

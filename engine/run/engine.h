/* The process: configuration, queue, governor, workers. Made and driven by the main thread
 * (tools/commands/cmd_serve.c) or, with a simulated io, by tests/sim. */
#ifndef HAYAUMA_ENGINE_ENGINE_H
#define HAYAUMA_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "config/config.h"
#include "worker/shared.h"
#include "worker/trust.h"
#include "worker/worker.h"

struct engine {
    struct shared shared;  /* with the workers */
    struct config *config; /* main thread; workers hold their own references */
    struct trust *trust;   /* likewise */
    int64_t started_ms;
    _Atomic bool draining;
    _Atomic uint64_t quarantine_ms; /* when as many lines as may be at once may tell of it again */
    /* Start-up in two steps: workers bind, main drops privileges and opens the queue, workers go
     * on. */
    pthread_barrier_t barrier;
    _Atomic int start_error; /* the first worker's -errno */
    uint32_t meetings;       /* barriers the main thread has passed, of 4 */
    pthread_t *threads;
    pthread_t list_reader; /* reads the suppression list; of use with list_reading */
    bool list_reading;
};

/* Makes the workers' structs and binds listeners; on return all threads wait for engine_start().
 * error gets a line that says what, where and what to do. 0 or -errno. */
int engine_open(struct engine *e, struct config *config, struct buf *error) MUST_USE;
/* Opens the queue, calls ready(), which may fail as well, and lets the workers go: clients are
 * greeted from then on. On failure call engine_close(). */
int engine_start(struct engine *e, int (*ready)(void *arg, struct buf *error), void *arg,
                 struct buf *error) MUST_USE;
/* New configuration for what can change; in it, what can't keeps its running value and has a line
 * in cannot. 0, and a line in errors for each certificate that cannot be loaded; or -errno and
 * lines in errors: a file that it names is of no use, and nothing has changed. */
int engine_reload(struct engine *e, struct config *config, struct buf *cannot, struct buf *errors);
/* Begins to drain: no new sessions, what is past the dot is finished and settled. */
void engine_drain(struct engine *e);
/* The drain took too long: sessions are cut, settles still commit. */
void engine_cut(struct engine *e);
bool engine_drained(const struct engine *e);
/* Whether every worker has turned in the last limit_ms (they do each second, also when idle). */
bool engine_alive(const struct engine *e, uint64_t limit_ms);
/* Ends the threads (drained or not) and closes all. */
void engine_close(struct engine *e);
/* The last part of that, for whoever turns workers without threads: frees what they shared, once
 * all are closed. What was never opened is zeroed. */
void engine_free_shared(struct engine *e);

/* A worker cannot start: err is what engine_open() or engine_start() returns. True for the first to
 * say so; it logs why, since all workers tend to fail alike. Any thread. */
bool engine_start_failed(struct engine *e, int err);
/* Logs that l cannot be bound, and what to do. Any thread. */
void engine_listen_failed(const struct config_listener *l, int err);

#endif

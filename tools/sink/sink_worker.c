#include "tools/sink/sink_worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/sink/sink_dns.h"
#include "tools/sink/sink_ledger.h"
#include "tools/sink/sink_session.h"

#define ACCEPT_BACKLOG  4096
#define ACCEPT_RETRY_MS 100

void sink_stop(struct sink *sink, int error)
{
    int none = 0;

    if (error != 0)
        atomic_compare_exchange_strong(&sink->shared.error, &none, error);
    atomic_store_explicit(&sink->shared.stop, true, memory_order_relaxed);
    pthread_mutex_lock(&sink->shared.lock);
    for (uint32_t i = 0; i < sink->workers_len; i++)
        if (sink->workers[i].io != NULL)
            io_wake(sink->workers[i].io);
    pthread_mutex_unlock(&sink->shared.lock);
}

static void on_accept(struct io_op *op, const struct io_event *event)
{
    struct sink_listener *l = CONTAINER_OF(op, struct sink_listener, accept);
    struct sink_worker *w = l->worker;
    bool stopping = atomic_load_explicit(&w->sink->shared.stop, memory_order_relaxed);

    if (event->result >= 0 && stopping)
        io_close_fd(w->io, event->result, false);
    else if (event->result >= 0)
        sink_session_start(w, event->result);
    if (event->more || stopping)
        return;
    if (event->result >= 0)
        io_accept(w->io, &l->accept, l->fd);
    else
        wheel_arm(io_wheel(w->io), &l->retry, io_now_ms(w->io) + ACCEPT_RETRY_MS);
}

static void on_accept_retry(struct timer *timer)
{
    struct sink_listener *l = CONTAINER_OF(timer, struct sink_listener, retry);

    io_accept(l->worker->io, &l->accept, l->fd);
}

static void worker_count(struct sink_worker *w)
{
    struct sink *sink = w->sink;
    uint64_t before;

    if (sink->count_max == 0 || w->messages_turn == 0)
        return;
    before =
        atomic_fetch_add_explicit(&sink->shared.messages, w->messages_turn, memory_order_relaxed);
    if (before + w->messages_turn >= sink->count_max)
        sink_stop(sink, 0);
    w->messages_turn = 0;
}

static void on_worker_tick(void *arg)
{
    struct sink_worker *w = arg;
    int err = 0;

    if (crew_desk_has(&w->desk))
        crew_collect(&w->desk);
    if (w->ledger.len > 0)
        err = ledger_flush(&w->ledger, w->sink->ledger_fd);
    if (err < 0) { /* a 250 without its line would be a lie: no reply goes out any more */
        buf_clear(&w->ledger);
        sink_stop(w->sink, err);
        sink_session_abort_all(w);
    }
    sink_session_flush_all(w);
    worker_count(w);
}

static void wake(void *arg)
{
    io_wake(((struct sink_worker *)arg)->io);
}

static void worker_set_io(struct sink_worker *w, struct io *io)
{
    pthread_mutex_lock(&w->sink->shared.lock);
    w->io = io;
    pthread_mutex_unlock(&w->sink->shared.lock);
}

static int worker_listen(struct sink_worker *w, const struct endpoint *at)
{
    struct sink_listener *l = &w->listeners[w->listeners_len];
    bool unix_socket = at->addr.ss_family == AF_UNIX;

    if (unix_socket && w->index > 0)
        return 0; /* has no SO_REUSEPORT: worker 0 alone */
    l->worker = w;
    l->accept.on_event = on_accept;
    l->retry.on_timer = on_accept_retry;
    if (w->index == 0)
        l->fd = io_address_free((const struct sockaddr *)&at->addr, at->len);
    if (l->fd < 0)
        return l->fd;
    l->fd = io_listen(w->io, (const struct sockaddr *)&at->addr, at->len, ACCEPT_BACKLOG, true);
    if (l->fd < 0)
        return l->fd;
    w->listeners_len++;
    return 0;
}

int sink_worker_open(struct sink_worker *w)
{
    struct io_options options = {.on_tick = on_worker_tick, .arg = w};
    struct sink *sink = w->sink;
    struct io *io = NULL;
    int err;

    w->next_session = (uint64_t)w->index << 40;
    list_init(&w->sessions);
    list_init(&w->dirty);
    list_init(&w->ending);
    rng_seed(&w->rng, sink->behaviour->seed + w->index);
    pool_init(&w->pool, "sink_session", sink_session_bytes(), sink->sessions_max);
    w->failed = NULL;
    err = io_open(&io, &options);
    worker_set_io(w, io);
    streams_init(&w->streams, io);
    crew_desk_init(&w->desk, wake, w);
    if (err == 0)
        err = crew_open(&w->crew, 0, 1);
    if (err == 0)
        handshakes_init(&w->handshakes, w->crew, &w->desk, io);
    for (size_t i = 0; err == 0 && i < sink->listeners_len; i++) {
        w->failed = sink->listeners[i].text;
        err = worker_listen(w, &sink->listeners[i]);
    }
    if (err == 0 && w->index == 0 && sink->dns != NULL) {
        w->failed = sink->dns->text;
        err = sink_dns_open(&w->dns, w->io, sink->dns, &sink->zone, &w->counters[0].dns_queries);
    }
    return err;
}

static bool worker_busy(const struct sink_worker *w)
{
    bool busy = w->pool.in_use > 0 || (w->dns != NULL && sink_dns_busy(w->dns));

    for (size_t i = 0; i < w->listeners_len; i++)
        busy = busy || io_op_busy(&w->listeners[i].accept);
    return busy;
}

void sink_worker_run(struct sink_worker *w)
{
    struct sink *sink = w->sink;
    int err = 0;

    for (size_t i = 0; i < w->listeners_len; i++)
        io_accept(w->io, &w->listeners[i].accept, w->listeners[i].fd);
    while (err == 0 && !atomic_load_explicit(&sink->shared.stop, memory_order_relaxed))
        err = io_turn(w->io, crew_desk_has(&w->desk) ? 0 : 1000);
    if (err < 0)
        sink_stop(sink, err);
    for (size_t i = 0; i < w->listeners_len; i++) {
        wheel_cancel(io_wheel(w->io), &w->listeners[i].retry);
        io_cancel(w->io, &w->listeners[i].accept);
    }
    if (w->dns != NULL)
        sink_dns_stop(w->dns);
    sink_session_abort_all(w);
    while (worker_busy(w) && io_turn(w->io, 100) == 0)
        ;
}

void sink_worker_close(struct sink_worker *w)
{
    struct io *io = w->io;

    if (io == NULL)
        return;
    if (w->dns != NULL)
        sink_dns_close(w->dns);
    for (size_t i = 0; i < w->listeners_len; i++)
        io_close_fd(io, w->listeners[i].fd, false);
    handshakes_done(&w->handshakes);
    worker_set_io(w, NULL);
    io_close(io);
    crew_stop(w->crew);
    crew_close(w->crew);
    streams_done(&w->streams);
    pool_done(&w->pool);
    buf_done(&w->ledger);
}

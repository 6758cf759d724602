/* The threads of HTTP. A pass of one takes in what workers have finished, lets the library handle
 * all sockets that are ready, and sends the workers what came of it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/http_private.h"
#include "worker/shared.h"

#define MEMORY_BYTES                                                                               \
    (16u << 10) /* of a connection: head of a request, pieces of a body; zeroed for each */
#define NOTES_NS UINT64_C(2000000) /* what others wait for is not kept for longer in a pass */

/* --- between threads --- */

static void wake(const struct http_thread *t)
{
    uint64_t one = 1;

    /* Fails only when the counter is full: then the wake is pending anyway. */
    if (write(t->wake_fd, &one, sizeof(one)) < 0)
        return;
}

void http_thread_resume(struct http_thread *t, struct http_request *r)
{
    struct http *h = t->http;

    /* The thread may be done with the request before the wake: until then it may not be stopped. */
    atomic_fetch_add(&h->resuming, 1);
    if (mailbox_put(&t->resumed, &r->node))
        wake(t);
    atomic_fetch_sub(&h->resuming, 1);
}

static void resume_all(struct http_thread *t)
{
    struct list all;
    struct list_node *n;

    list_init(&all);
    mailbox_take(&t->resumed, &all);
    while ((n = list_pop_front(&all)) != NULL)
        MHD_resume_connection(LIST_ENTRY(n, struct http_request, node)->connection);
}

static void notes_send(struct http_thread *t)
{
    for (uint32_t i = 0; t->notes_ns != 0 && i < t->http->shared->workers_len; i++)
        worker_send_all(t->http->shared, i, &t->notes[i]);
    t->notes_ns = 0;
}

void http_thread_look(struct http_thread *t)
{
    if (t->notes_ns != 0 && clock_mono_ns() - t->notes_ns > NOTES_NS)
        notes_send(t);
}

void request_send(struct http_request *r, uint32_t worker, struct worker_note *note)
{
    struct http_thread *t = r->thread;

    list_push_back(&t->notes[worker], &note->node);
    if (t->notes_ns == 0)
        t->notes_ns = clock_mono_ns();
    else
        http_thread_look(t);
}

/* --- the loop --- */

/* What the daemon's own wait would be given; -1: no end. The listening socket is not waited for
 * while the daemon is full, and again from the beginning of a run on: behind the end of a
 * connection there must be one, though nothing else is to come. */
static int wait_ms(struct http_thread *t)
{
    MHD_UNSIGNED_LONG_LONG ms;

    if (t->some_ended)
        return 0;
    if (MHD_get_timeout(t->daemon, &ms) != MHD_YES)
        return -1;
    return ms < INT32_MAX ? (int)ms : INT32_MAX;
}

/* MHD_run() waits for nothing. The library's own wait (MHD_epoll() of 0.9.75 to 1.0.1) waits again,
 * with the whole timeout, when it got as many events as it has room for, and looks at none of them
 * before. */
static void *thread_main(void *arg)
{
    struct http_thread *t = arg;
    struct epoll_event events[2];
    uint64_t count;

    while (!atomic_load(&t->http->closed)) {
        if (epoll_wait(t->epoll_fd, events, ARRAY_LEN(events), wait_ms(t)) > 0 &&
            read(t->wake_fd, &count, sizeof(count)) < 0)
            ASSERT(errno == EAGAIN); /* the daemon's sockets alone */
        if (atomic_load(&t->http->closing) && !t->quiesced) {
            (void)MHD_quiesce_daemon(t->daemon);
            t->quiesced = true;
        }
        t->looked = false;
        t->some_ended = false;
        resume_all(t);
        (void)MHD_run(t->daemon);
        notes_send(t);
    }
    return NULL;
}

/* --- begin and end --- */

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *format,
                                                         va_list args)
{
    char text[256];

    (void)arg;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_debug("http.library", "text=\"%s\"", text);
}

/* This thread's part of http.connections_max. */
static unsigned connections_max(const struct http_thread *t)
{
    const struct config *c = t->http->config;
    uint32_t index = (uint32_t)(t - t->http->threads), len = t->http->threads_len;
    uint32_t part = c->http.connections_max / len + (index < c->http.connections_max % len);

    return part > 0 ? part : 1;
}

static int epoll_add(const struct http_thread *t, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int thread_start(struct http_thread *t)
{
    struct http *h = t->http;
    int err;

    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->epoll_fd < 0 || t->wake_fd < 0)
        return -errno;
    t->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        http_on_request, t, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET,
        h->listen_fd, MHD_OPTION_CONNECTION_LIMIT, connections_max(t),
        MHD_OPTION_CONNECTION_TIMEOUT, (h->config->http.idle_timeout_ms + 999) / 1000,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, t, MHD_OPTION_NOTIFY_CONNECTION,
        http_on_connection, t, MHD_OPTION_END);
    if (t->daemon == NULL)
        return -EAGAIN;
    err = epoll_add(t, MHD_get_daemon_info(t->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd);
    if (err == 0)
        err = epoll_add(t, t->wake_fd);
    if (err == 0)
        err = -pthread_create(&t->thread, NULL, thread_main, t);
    t->runs = err == 0;
    return err;
}

int http_threads_start(struct http *h)
{
    uint32_t len = h->config->http.threads;

    h->threads = aligned_alloc(CACHE_LINE_BYTES, len * sizeof(*h->threads));
    if (h->threads == NULL)
        return -ENOMEM;
    h->threads_len = len;
    for (uint32_t i = 0; i < len; i++) {
        struct http_thread *t = &h->threads[i];

        *t = (struct http_thread){.http = h, .epoll_fd = -1, .wake_fd = -1};
        mailbox_init(&t->resumed);
        for (uint32_t w = 0; w < ARRAY_LEN(t->notes); w++)
            list_init(&t->notes[w]);
        rng_seed(&t->rng, rng_entropy());
    }
    for (uint32_t i = 0; i < len; i++) {
        int err = thread_start(&h->threads[i]);

        if (err < 0)
            return err;
    }
    return 0;
}

static void wake_all(struct http *h)
{
    for (uint32_t i = 0; i < h->threads_len; i++)
        if (h->threads[i].runs)
            wake(&h->threads[i]);
}

void http_threads_quiesce(struct http *h)
{
    atomic_store(&h->closing, true);
    wake_all(h);
}

void http_threads_stop(struct http *h)
{
    atomic_store(&h->closed, true);
    wake_all(h);
    for (uint32_t i = 0; i < h->threads_len; i++) {
        struct http_thread *t = &h->threads[i];

        if (t->runs)
            pthread_join(t->thread, NULL);
        if (t->daemon != NULL) {
            if (!t->quiesced) /* or it would close the socket, which is ours */
                (void)MHD_quiesce_daemon(t->daemon);
            MHD_stop_daemon(t->daemon);
        }
        ASSERT(mailbox_empty(&t->resumed));
        if (t->epoll_fd >= 0)
            close(t->epoll_fd);
        if (t->wake_fd >= 0)
            close(t->wake_fd);
    }
    free(h->threads);
}

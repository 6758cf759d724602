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
    (16u << 10)        /* of a connection: head of a request, pieces of a body; zeroed for each */
#define ACCEPTS_MAX 64 /* in one pass */
#define NOTES_NS    UINT64_C(2000000) /* what others wait for is not kept for longer in a pass */
#define PAUSE_MS    100               /* of accepting, without a descriptor */
#define AWAITING_MS 5
/* Behind so many passes in which nothing happened a thread does not begin the next one at once, as
 * the library (0.9.75) asks for as long as it has bytes that it does not get on with: it waits for
 * the end of a chunk's line that is longer than its memory. */
#define IDLE_PASSES_MAX 64
#define IDLE_MS         2

/* --- between threads --- */

static void wake(const struct http_thread *t)
{
    uint64_t one = 1;

    ASSERT(t->wake_fd >= 0);
    /* Fails only when the counter is full: then the wake is pending anyway. */
    if (write(t->wake_fd, &one, sizeof(one)) < 0)
        return;
}

static void on_desk(void *arg)
{
    wake(arg);
}

void http_thread_resume(struct http_thread *t, struct http_request *r)
{
    struct http *h = t->http;

    ASSERT(r->thread == t);
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
        http_resumed(LIST_ENTRY(n, struct http_request, node));
}

static void notes_send(struct http_thread *t)
{
    for (uint32_t i = 0; t->notes_ns != 0 && i < t->http->shared->workers_len; i++) {
        worker_send_all(t->http->shared, i, &t->notes[i]);
        ASSERT(list_empty(&t->notes[i]));
    }
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

    ASSERT(worker < t->http->shared->workers_len);
    if (r->away) {
        worker_send(t->http->shared, worker, note);
        return;
    }
    list_push_back(&t->notes[worker], &note->node);
    if (t->notes_ns == 0)
        t->notes_ns = clock_mono_ns();
    else
        http_thread_look(t);
}

uint64_t request_random(struct http_request *r)
{
    return r->away ? rng_entropy() : rng_next(&r->thread->rng);
}

/* --- connections --- */

struct arrival {
    struct list_node node; /* of the thread's arrived */
    int fd;
    struct sockaddr_storage peer;
    socklen_t peer_len;
};

void http_thread_left(struct http_thread *t)
{
    uint32_t before = atomic_fetch_sub_explicit(&t->connections, 1, memory_order_relaxed);

    ASSERT(before > 0);
}

/* The library has the connection then, or has closed it. If it has told us of it, it will tell us
 * of its end, too: from 1.0 on that comes first in its next run. */
static void take_in(struct http_thread *t, int fd, const struct sockaddr_storage *peer,
                    socklen_t peer_len)
{
    ASSERT(fd >= 0);
    t->told = false;
    if (MHD_add_connection(t->daemon, fd, (const struct sockaddr *)peer, peer_len) != MHD_YES &&
        !t->told)
        http_thread_left(t);
}

static void take_arrived(struct http_thread *t)
{
    struct list all;
    struct list_node *n;

    list_init(&all);
    mailbox_take(&t->arrived, &all);
    while ((n = list_pop_front(&all)) != NULL) {
        struct arrival *a = LIST_ENTRY(n, struct arrival, node);

        take_in(t, a->fd, &a->peer, a->peer_len);
        free(a);
    }
}

static struct http_thread *with_fewest(struct http *h)
{
    struct http_thread *best = &h->threads[0];

    ASSERT(h->threads_len > 0);
    for (uint32_t i = 1; i < h->threads_len; i++)
        if (atomic_load_explicit(&h->threads[i].connections, memory_order_relaxed) <
            atomic_load_explicit(&best->connections, memory_order_relaxed))
            best = &h->threads[i];
    return best;
}

/* The connection stays in the backlog. Descriptors are the whole process's: when one is free,
 * nobody says so, and waiting on would spin. */
static void accept_failed(struct http_thread *t, int err)
{
    if (err != EMFILE && err != ENFILE && err != ENOMEM && err != ENOBUFS)
        return;
    if (!t->complained)
        log_warn("http.accept_failed", "error=\"%s\" action=\"accepting pauses\"", strerror(err));
    t->complained = true;
    t->paused_until_ns = clock_mono_ns() + PAUSE_MS * UINT64_C(1000000);
}

/* False: there is none now. */
static bool accept_one(struct http_thread *t)
{
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof(peer);
    int fd = accept4(t->http->listen_fd, (struct sockaddr *)&peer, &peer_len,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct http_thread *to;
    struct arrival *a;

    if (fd < 0) {
        accept_failed(t, errno);
        return false;
    }
    t->complained = false;
    to = with_fewest(t->http);
    atomic_fetch_add_explicit(&to->connections, 1, memory_order_relaxed);
    if (to == t) {
        take_in(t, fd, &peer, peer_len);
        return true;
    }
    a = malloc(sizeof(*a));
    ASSERT(a != NULL);
    *a = (struct arrival){.fd = fd, .peer = peer, .peer_len = peer_len};
    if (mailbox_put(&to->arrived, &a->node))
        wake(to);
    return true;
}

/* A thread that has its part of the connections listens no more, until one has left it. */
static void listen_or_not(struct http_thread *t)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = t->http->listen_fd};
    bool listens = !atomic_load(&t->http->closing) &&
                   atomic_load_explicit(&t->connections, memory_order_relaxed) < t->connections_max;

    if (t->paused_until_ns != 0 && clock_mono_ns() >= t->paused_until_ns)
        t->paused_until_ns = 0;
    listens = listens && t->paused_until_ns == 0;
    if (listens == t->listens)
        return;
    if (epoll_ctl(t->epoll_fd, listens ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, t->http->listen_fd,
                  &event) == 0)
        t->listens = listens;
}

static void accept_some(struct http_thread *t)
{
    for (int i = 0; i < ACCEPTS_MAX && t->listens && accept_one(t); i++)
        listen_or_not(t);
}

/* --- the loop --- */

/* What the daemon's own wait would be given, and no longer than accepting pauses; -1: no end. The
 * daemon would not wait while requests are awaited. Nothing else is to be done for it behind a pass
 * in which no request went on, but for rare cases, which AWAITING_MS are for. */
static int wait_ms(struct http_thread *t)
{
    MHD_UNSIGNED_LONG_LONG ms;

    if (t->awaiting > 0)
        return t->active ? 0 : AWAITING_MS;
    if (MHD_get_timeout(t->daemon, &ms) != MHD_YES)
        return t->paused_until_ns != 0 ? PAUSE_MS : -1;
    if (ms < IDLE_MS && t->idle_passes > IDLE_PASSES_MAX)
        return IDLE_MS;
    if (t->paused_until_ns != 0 && ms > PAUSE_MS)
        return PAUSE_MS;
    return ms < INT32_MAX ? (int)ms : INT32_MAX;
}

static void wait_for_events(struct http_thread *t)
{
    struct epoll_event events[3]; /* the daemon's sockets, word of others, a connection to accept */
    int len = epoll_wait(t->epoll_fd, events, ARRAY_LEN(events), wait_ms(t));
    uint64_t count;

    t->idle_passes = len > 0 || t->active ? 0 : t->idle_passes + 1;

    for (int i = 0; i < len; i++)
        if (events[i].data.fd == t->http->listen_fd)
            accept_some(t);
        else if (events[i].data.fd == t->wake_fd && read(t->wake_fd, &count, sizeof(count)) < 0)
            ASSERT(errno == EAGAIN);
}

/* MHD_run() waits for nothing. The library's own wait (MHD_epoll() of 0.9.75 to 1.0.1) waits again,
 * with the whole timeout, when it got as many events as it has room for, and looks at none of them
 * before. */
static void *thread_main(void *arg)
{
    struct http_thread *t = arg;

    ASSERT(t->daemon != NULL && t->epoll_fd >= 0);
    pthread_setname_np(pthread_self(), "http");
    while (!atomic_load(&t->http->closed)) {
        listen_or_not(t);
        wait_for_events(t);
        t->active = false;
        t->pass_ns = clock_mono_ns();
        take_arrived(t);
        resume_all(t);
        crew_collect(&t->desk);
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

/* What has a NUL in it stays as it is written: decoded, it would end there. */
static size_t on_unescape(void *arg, struct MHD_Connection *connection, char *s)
{
    (void)arg, (void)connection;
    return strstr(s, "%00") != NULL ? strlen(s) : MHD_http_unescape(s);
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
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    return epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* All that others of the threads, which run first, may ask of it. */
static int thread_open(struct http_thread *t)
{
    struct http *h = t->http;
    int err;

    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->epoll_fd < 0 || t->wake_fd < 0)
        return -errno;
    t->connections_max = connections_max(t);
    ASSERT(t->daemon == NULL);
    t->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET, 0,
        NULL, NULL, http_on_request, t, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_CONNECTION_LIMIT, t->connections_max + ACCEPTS_MAX * h->threads_len,
        MHD_OPTION_CONNECTION_TIMEOUT, (h->config->http.idle_timeout_ms + 999) / 1000,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        http_on_completed, t, MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, t, MHD_OPTION_END);
    if (t->daemon == NULL)
        return -EAGAIN;
    err = epoll_add(t, MHD_get_daemon_info(t->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd);
    return err == 0 ? epoll_add(t, t->wake_fd) : err;
}

static int thread_start(struct http_thread *t)
{
    int err = -pthread_create(&t->thread, NULL, thread_main, t);

    t->runs = err == 0;
    return err;
}

int http_threads_start(struct http *h)
{
    uint32_t len = h->config->http.threads;
    int err = 0;

    ASSERT(len > 0 && h->threads == NULL);
    h->threads = aligned_alloc(CACHE_LINE_BYTES, len * sizeof(*h->threads));
    if (h->threads == NULL)
        return -ENOMEM;
    h->threads_len = len;
    for (uint32_t i = 0; i < len; i++) {
        struct http_thread *t = &h->threads[i];

        *t = (struct http_thread){.http = h, .epoll_fd = -1, .wake_fd = -1};
        mailbox_init(&t->arrived);
        mailbox_init(&t->resumed);
        crew_desk_init(&t->desk, on_desk, t);
        for (uint32_t w = 0; w < ARRAY_LEN(t->notes); w++)
            list_init(&t->notes[w]);
        rng_seed(&t->rng, rng_entropy());
    }
    for (uint32_t i = 0; i < len && err == 0; i++)
        err = thread_open(&h->threads[i]);
    for (uint32_t i = 0; i < len && err == 0; i++)
        err = thread_start(&h->threads[i]);
    return err;
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
    for (uint32_t i = 0; i < h->threads_len; i++) /* one may have a connection for another still */
        if (h->threads[i].runs)
            pthread_join(h->threads[i].thread, NULL);
    for (uint32_t i = 0; i < h->threads_len; i++) {
        struct http_thread *t = &h->threads[i];

        crew_collect(&t->desk);
        if (t->daemon != NULL) {
            take_arrived(t);
            MHD_stop_daemon(t->daemon);
        }
        ASSERT(mailbox_empty(&t->resumed) && mailbox_empty(&t->arrived));
        ASSERT(t->awaiting == 0 && atomic_load(&t->connections) == 0);
        if (t->epoll_fd >= 0)
            close(t->epoll_fd);
        if (t->wake_fd >= 0)
            close(t->wake_fd);
    }
    free(h->threads);
}

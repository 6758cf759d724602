#include "http/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/coding.h"
#include "http/http_private.h"
#include "io/io.h"

#define BACKLOG 1024
#define MEMORY_BYTES                                                                               \
    (16u << 10) /* of a connection: head of a request, pieces of a body; zeroed for each */
#define CLOSE_PAUSE_US 5000
#define ANSWERS_MS     2000 /* for clients to take them, at the end */

static uint64_t mono_ms(void)
{
    return clock_mono_ns() / 1000000;
}

/* --- connections --- */

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *h = arg;
    struct http_connection *c = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        c = calloc(1, sizeof(*c));
        ASSERT(c != NULL);
        c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        c->since_ms = mono_ms();
        *context = c;
        pthread_mutex_lock(&h->lock);
        list_push_back(&h->connections, &c->node);
        pthread_mutex_unlock(&h->lock);
        atomic_fetch_add_explicit(&h->shared->http.connections, 1, memory_order_relaxed);
        return;
    }
    pthread_mutex_lock(&h->lock);
    list_remove(&c->node);
    pthread_mutex_unlock(&h->lock);
    free(c);
    atomic_fetch_sub_explicit(&h->shared->http.connections, 1, memory_order_relaxed);
}

void http_tick(struct http *h)
{
    uint64_t now_ms = mono_ms();

    if (h == NULL)
        return;
    /* A descriptor is closed behind on_connection(), so each of the list is its connection's. */
    pthread_mutex_lock(&h->lock);
    for (struct list_node *n = list_first(&h->connections); n != NULL;
         n = list_next(&h->connections, n)) {
        struct http_connection *c = LIST_ENTRY(n, struct http_connection, node);
        uint64_t since_ms = atomic_load_explicit(&c->since_ms, memory_order_relaxed);

        if (since_ms != 0 && now_ms > since_ms + h->config->http.request_timeout_ms)
            shutdown(c->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&h->lock);
}

/* --- requests --- */

static struct http_request *request_new(struct http *h, struct MHD_Connection *connection,
                                        const char *method)
{
    const union MHD_ConnectionInfo *address =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const union MHD_ConnectionInfo *context =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_request *r = calloc(1, sizeof(*r));

    ASSERT(r != NULL);
    r->http = h;
    r->connection = connection;
    r->client = context->socket_context;
    r->method = method;
    memcpy(&r->peer, address->client_addr,
           address->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                       : sizeof(struct sockaddr_in));
    peer_text((struct sockaddr *)&r->peer, r->peer_ip, r->peer_text);
    pthread_mutex_lock(&h->lock);
    r->config = config_ref(h->config);
    pthread_mutex_unlock(&h->lock);
    atomic_fetch_add(&h->requests, 1);
    return r;
}

/* What the answer was made of: a client that takes its time to read holds no room for mail. */
static void work_drop(struct http_request *r)
{
    if (r->done != NULL)
        r->done(r);
    r->done = NULL;
    request_release(r, r->held_bytes);
    buf_done(&r->body);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http_request *r = *context;
    struct http *h = arg;

    (void)connection, (void)code;
    if (r == NULL)
        return;
    work_drop(r);
    atomic_store_explicit(&r->client->since_ms, mono_ms(), memory_order_relaxed);
    config_unref(r->config);
    free(r);
    *context = NULL;
    atomic_fetch_sub(&h->requests, 1);
}

/* Makes room for so many bytes of the body, or refuses the request. */
static bool body_grow(struct http_request *r, size_t len)
{
    uint64_t max = r->config->http.body_bytes_max;
    size_t cap = r->body.cap < 4096 ? 4096 : r->body.cap * 2;

    if (r->body.len + len > max) {
        request_refuse(r, 413, "the body is longer than %llu bytes", (unsigned long long)max);
        return false;
    }
    if (r->body.cap - r->body.len >= len)
        return true;
    while (cap < r->body.len + len)
        cap *= 2;
    if (request_hold(r, cap - r->body.cap) && buf_reserve(&r->body, cap - r->body.len) == 0)
        return true;
    request_refuse(r, 503, HTTP_NO_ROOM);
    return false;
}

/* A body that is refused, and one that nobody reads, takes no memory. What is refused is answered
 * at its end. False: it does not come to one. */
static bool body_take(struct http_request *r, const char *bytes, size_t len)
{
    r->body_follows = true;
    if (r->refusal == 0 && r->endpoint->body != BODY_NONE && body_grow(r, len)) {
        buf_put(&r->body, bytes, len);
        return true;
    }
    buf_done(&r->body);
    r->dropped += len;
    return r->dropped <= HTTP_DROPPED_TIMES * r->config->http.body_bytes_max;
}

static bool hold(void *arg, uint64_t bytes)
{
    return request_hold(arg, bytes);
}

static void body_inflate(struct http_request *r)
{
    uint64_t max = r->config->http.body_bytes_max;
    struct buf plain = {0};
    int err = coding_inflate(buf_str(&r->body), max, hold, r, &plain);

    buf_done(&r->body);
    r->body = plain;
    if (err == -EFBIG)
        request_problem(r, 413, "", "the body is longer than %llu bytes", (unsigned long long)max);
    else if (err == -ENOMEM)
        request_problem(r, 503, "", HTTP_NO_ROOM);
    else if (err < 0)
        request_problem(r, 400, "", "the body is not coded as Content-Encoding says");
}

static void body_here(struct http_request *r)
{
    atomic_store_explicit(&r->client->since_ms, 0, memory_order_relaxed);
    r->handled = true;
    if (r->refusal != 0)
        request_problem(r, r->refusal, "", "%s", r->refusal_text);
    else if (r->coded)
        body_inflate(r);
    if (!r->answered)
        r->endpoint->handle(r);
}

/* Called for the head of a request, then for each piece of its body, then at its end, and after
 * each suspension. MHD_NO closes the connection. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **context)
{
    struct http_request *r = *context;
    void (*resumed)(struct http_request *);

    (void)version;
    if (r == NULL) {
        *context = r = request_new(arg, connection, method);
        request_begin(r, url);
        return MHD_YES;
    }
    if (r->answered) {
        *upload_len = 0;
        return MHD_YES;
    }
    if (*upload_len > 0) {
        bool goes_on = body_take(r, upload, *upload_len);

        *upload_len = 0;
        return goes_on ? MHD_YES : MHD_NO;
    }
    if (!r->handled) {
        body_here(r);
    } else if ((resumed = r->resumed) != NULL) {
        r->resumed = NULL;
        resumed(r);
    }
    /* A request that was suspended may be resumed by now, but this thread alone goes on with it. */
    if (r->answered)
        work_drop(r);
    return MHD_YES;
}

void request_suspend(struct http_request *r, void (*resumed)(struct http_request *r))
{
    ASSERT(!r->answered && r->resumed == NULL);
    r->resumed = resumed;
    MHD_suspend_connection(r->connection);
}

/* The library wakes its thread at last, when that may be done with the request already: until then
 * it may not be stopped. */
void request_resume(struct http_request *r)
{
    struct http *h = r->http;

    atomic_fetch_add(&h->resuming, 1);
    MHD_resume_connection(r->connection);
    atomic_fetch_sub(&h->resuming, 1);
}

/* --- the library's waits --- */

/* In place of the C library's, for libmicrohttpd: when a wait gives as many events as there is room
 * for, it waits again with the whole timeout before it looks at any of them (MHD_epoll() of 0.9.75
 * to 1.0.1). So a thread with just so many connections, all with a request, stood still until the
 * oldest had been idle for too long, and closed it without an answer. One fewer, and no wait fills
 * the room; what is left comes with the next one. */
int epoll_wait(int fd, struct epoll_event *events, int events_max, int timeout_ms)
{
    return epoll_pwait(fd, events, events_max > 1 ? events_max - 1 : events_max, timeout_ms, NULL);
}

/* --- the server --- */

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *format,
                                                         va_list args)
{
    char text[256];

    (void)arg;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_debug("http.library", "text=\"%s\"", text);
}

int http_open(struct http **out, struct config *config, struct buf *error)
{
    const struct config_address *a = &config->http.listen;
    struct http *h;
    int err;

    *out = NULL;
    if (a->len == 0)
        return 0;
    h = calloc(1, sizeof(*h));
    if (h == NULL)
        return -ENOMEM;
    h->listen_fd = io_listen(NULL, (const struct sockaddr *)&a->addr, a->len, BACKLOG, false);
    if (h->listen_fd < 0) {
        err = h->listen_fd;
        buf_printf(error, "cannot listen at %s for HTTP: %s; change http.listen", a->text,
                   strerror(-err));
        free(h);
        return err;
    }
    h->config = config_ref(config);
    rng_seed(&h->rng, rng_entropy());
    list_init(&h->connections);
    pthread_mutex_init(&h->lock, NULL);
    tokens_init(&h->tokens);
    *out = h;
    return 0;
}

int http_start(struct http *h, struct shared *shared, struct buf *error)
{
    const struct config *c = h == NULL ? NULL : h->config;
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ITC |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;

    if (h == NULL)
        return 0;
    h->shared = shared;
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, h->listen_fd, MHD_OPTION_THREAD_POOL_SIZE,
        c->http.threads > 1 ? c->http.threads : 0, MHD_OPTION_CONNECTION_LIMIT,
        c->http.connections_max > c->http.threads ? c->http.connections_max : c->http.threads,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, c->http.connections_per_client_max,
        MHD_OPTION_CONNECTION_TIMEOUT, (c->http.idle_timeout_ms + 999) / 1000,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        h, MHD_OPTION_END);
    if (h->daemon != NULL)
        return 0;
    buf_printf(error, "cannot serve HTTP at %s: the library does not start (threads, memory?)",
               c->http.listen.text);
    return -EAGAIN;
}

void http_reload(struct http *h, struct config *config)
{
    struct config *old;

    if (h == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    old = h->config;
    h->config = config_ref(config);
    pthread_mutex_unlock(&h->lock);
    config_unref(old);
}

void http_drain(struct http *h)
{
    if (h != NULL)
        atomic_store(&h->draining, true);
}

/* Those that arrive still are cut, at last those too that are not taken by their clients. */
static void cut(struct http *h, bool answered)
{
    pthread_mutex_lock(&h->lock);
    for (struct list_node *n = list_first(&h->connections); n != NULL;
         n = list_next(&h->connections, n)) {
        struct http_connection *c = LIST_ENTRY(n, struct http_connection, node);

        if (answered || atomic_load_explicit(&c->since_ms, memory_order_relaxed) != 0)
            shutdown(c->fd, answered ? SHUT_RDWR : SHUT_RD);
    }
    pthread_mutex_unlock(&h->lock);
}

void http_close(struct http *h)
{
    uint64_t began_ms = mono_ms();

    if (h == NULL)
        return;
    if (h->daemon != NULL) {
        atomic_store(&h->draining, true);
        (void)MHD_quiesce_daemon(h->daemon);
        /* The library may not be stopped while requests are suspended. */
        while (atomic_load(&h->requests) > 0 || atomic_load(&h->resuming) > 0) {
            cut(h, mono_ms() > began_ms + ANSWERS_MS);
            usleep(CLOSE_PAUSE_US);
        }
        MHD_stop_daemon(h->daemon);
    }
    close(h->listen_fd);
    tokens_done(&h->tokens);
    config_unref(h->config);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

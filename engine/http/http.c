#include "http/http.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/coding.h"
#include "http/http_private.h"
#include "io/io.h"

#define BACKLOG        1024
#define CLOSE_PAUSE_US 5000
#define ANSWERS_MS     2000 /* for clients to take them, at the end */
#define AWAITING_MAX   1024 /* of a thread: each pass asks for all of them */
#define AWAIT_NS       UINT64_C(250000000)
/* A body of so many bytes, or of so many that are to be unpacked, is for the crew: to read it takes
 * milliseconds. */
#define LARGE_BYTES       (128u << 10)
#define LARGE_CODED_BYTES (1u << 10)
#define LARGE_MAX         65536 /* that wait for the crew; connections are fewer */

/* Of a connection that keeps others out: see is_slow(). */
#define CROWDED_MS           3000
#define CROWDED_BYTES_PER_MS 1

static uint64_t mono_ms(void)
{
    return clock_mono_ns() / 1000000;
}

/* --- connections --- */

static const struct sockaddr *address_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
}

void http_on_connection(void *arg, struct MHD_Connection *connection, void **context,
                        enum MHD_ConnectionNotificationCode code)
{
    struct http_thread *t = arg;
    struct http *h = t->http;
    struct http_connection *c = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        c = calloc(1, sizeof(*c));
        ASSERT(c != NULL);
        c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        c->since_ms = mono_ms();
        c->counted = clients_take(&h->clients, address_of(connection), 0, h->clients_max);
        if (!c->counted) /* the library sees that, and closes it */
            shutdown(c->fd, SHUT_RDWR);
        *context = c;
        t->told = true;
        pthread_mutex_lock(&h->lock);
        list_push_back(&h->connections, &c->node);
        pthread_mutex_unlock(&h->lock);
        atomic_fetch_add_explicit(&h->shared->http.connections, 1, memory_order_relaxed);
        return;
    }
    ASSERT(code == MHD_CONNECTION_NOTIFY_CLOSED && c != NULL);
    pthread_mutex_lock(&h->lock);
    list_remove(&c->node);
    pthread_mutex_unlock(&h->lock);
    if (c->counted)
        clients_give(&h->clients, address_of(connection), 0);
    free(c);
    http_thread_left(t);
    atomic_fetch_sub_explicit(&h->shared->http.connections, 1, memory_order_relaxed);
}

/* Connections that wait to be accepted, where as many as may be are there. */
static uint32_t crowd_of(const struct http *h)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (atomic_load_explicit(&h->shared->http.connections, memory_order_relaxed) <
            h->config->http.connections_max ||
        getsockopt(h->listen_fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return 0;
    return info.tcpi_unacked; /* of a socket that listens, its backlog */
}

/* Whether it takes a place for nothing, or nearly: a few hosts that open all that there may be, and
 * send a byte now and then, would keep all others out. */
static bool is_slow(const struct http_connection *c, uint64_t since_ms, uint64_t now_ms)
{
    return now_ms > since_ms + CROWDED_MS &&
           atomic_load_explicit(&c->came_bytes, memory_order_relaxed) <
               (now_ms - since_ms) * CROWDED_BYTES_PER_MS;
}

void http_tick(struct http *h)
{
    uint64_t now_ms = mono_ms();
    uint32_t crowd;

    if (h == NULL)
        return;
    crowd = crowd_of(h);
    /* A descriptor is closed behind on_connection(), so each of the list is its connection's. */
    pthread_mutex_lock(&h->lock);
    for (struct list_node *n = list_first(&h->connections); n != NULL;
         n = list_next(&h->connections, n)) {
        struct http_connection *c = LIST_ENTRY(n, struct http_connection, node);
        uint64_t since_ms = atomic_load_explicit(&c->since_ms, memory_order_relaxed);

        if (since_ms == 0)
            continue;
        if (crowd > 0 && is_slow(c, since_ms, now_ms))
            crowd--;
        else if (now_ms <= since_ms + h->config->http.request_timeout_ms)
            continue;
        shutdown(c->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&h->lock);
}

/* --- requests --- */

static struct http_request *request_new(struct http_thread *t, struct MHD_Connection *connection,
                                        const char *method)
{
    const struct sockaddr *address = address_of(connection);
    struct http *h = t->http;
    const union MHD_ConnectionInfo *context =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_request *r = calloc(1, sizeof(*r));

    ASSERT(r != NULL);
    r->http = h;
    r->thread = t;
    r->connection = connection;
    r->client = context->socket_context;
    ASSERT(r->client != NULL); /* the library told of the connection before */
    r->method = method;
    memcpy(&r->peer, address,
           address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
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
    buf_done(&r->upload.told);
    request_release(r, r->held_bytes);
    buf_done(&r->body);
}

static void request_free(struct http_request *r)
{
    struct http *h = r->http;

    ASSERT(r->step == NULL && r->await_until_ns == 0);
    work_drop(r);
    ASSERT(r->held_bytes == 0);
    if (r->response != NULL)
        MHD_destroy_response(r->response);
    config_unref(r->config);
    free(r->rest);
    free(r);
    atomic_fetch_sub(&h->requests, 1);
}

void http_on_completed(void *arg, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode code)
{
    struct http_request *r = *context;

    (void)connection, (void)code;
    ((struct http_thread *)arg)->active = true;
    if (r == NULL)
        return;
    *context = NULL;
    atomic_store_explicit(&r->client->came_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&r->client->since_ms, mono_ms(), memory_order_relaxed);
    if (r->await_until_ns != 0)
        r->gone = true; /* a worker has it */
    else
        request_free(r);
}

/* Makes room for so many bytes of the body, or refuses the request. What is held grows with what
 * came. A large body has memory for all of its length from then on, since what is not written to
 * costs nothing: to move 16 MiB to a place of 32 keeps the thread's other requests waiting. */
static bool body_grow(struct http_request *r, size_t len)
{
    uint64_t max = request_body_max(r);
    size_t room = r->body_room < 4096 ? 4096 : r->body_room * 2, need = r->body.len + len;

    if (need > max) {
        request_refuse(r, 413, "the body is longer than %llu bytes", (unsigned long long)max);
        return false;
    }
    if (need <= r->body_room)
        return true;
    while (room < need)
        room *= 2;
    ASSERT(room > r->body_room);
    if (request_hold(r, room - r->body_room)) {
        r->body_room = room;
        if (room >= LARGE_BYTES && room < r->body_length)
            room = r->body_length;
        if (buf_reserve(&r->body, room - r->body.len) == 0)
            return true;
    }
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
    static const char mark[] = "\xef\xbb\xbf"; /* some clients put it in front of UTF-8 */

    ASSERT(!r->handled && !r->answered);
    r->handled = true;
    if (r->refusal != 0)
        request_problem(r, r->refusal, "", "%s", r->refusal_text);
    else if (r->coded)
        body_inflate(r);
    if (str_starts_nocase(buf_str(&r->body), STR(mark)))
        buf_consume(&r->body, sizeof(mark) - 1);
    if (!r->answered)
        r->endpoint->handle(r);
}

static void go_on(struct http_request *r)
{
    void (*resumed)(struct http_request *) = r->resumed;

    ASSERT(resumed != NULL && !r->answered);
    r->resumed = NULL;
    resumed(r);
}

/* --- large requests --- */

/* The next step of a request, in the crew, while the request is suspended. The step ends with an
 * answer, which the request's thread gives to the library, or with a suspension, whose end may come
 * before the step's. */
struct http_step {
    struct crew_job job;
    struct http_request *request;
    bool answered; /* else request is not ours any more */
};

void http_response_queue(struct http_request *r)
{
    ASSERT(r->answered && r->step == NULL && r->response != NULL);
    (void)MHD_queue_response(r->connection, r->status, r->response);
    MHD_destroy_response(r->response);
    r->response = NULL;
}

void http_step_answers(struct http_request *r)
{
    ASSERT(r->step != NULL && r->away);
    r->step->answered = true;
    r->step = NULL;
}

static void step_take(struct http_request *r)
{
    if (!r->handled)
        body_here(r);
    else if (r->resumed != NULL)
        go_on(r);
}

static void on_step_run(struct crew_job *job)
{
    struct http_step *s = CONTAINER_OF(job, struct http_step, job);

    ASSERT(!s->answered && s->request->step == s);
    step_take(s->request);
    if (s->answered)
        work_drop(s->request);
}

static void on_step_done(struct crew_job *job)
{
    struct http_step *s = CONTAINER_OF(job, struct http_step, job);

    if (s->answered)
        MHD_resume_connection(s->request->connection);
    free(s);
}

/* False: there is nothing to do for the crew, or it has no room. */
static bool step_give(struct http_request *r)
{
    struct http_step *s;

    ASSERT(r->step == NULL && !r->away);
    if (r->handled && r->resumed == NULL)
        return false;
    r->large = r->large || r->body.len > (r->coded ? LARGE_CODED_BYTES : LARGE_BYTES);
    if (!r->large)
        return false;
    s = calloc(1, sizeof(*s));
    ASSERT(s != NULL);
    s->request = r;
    s->job = (struct crew_job){.run = on_step_run, .done = on_step_done, .desk = &r->thread->desk};
    r->step = s;
    r->away = true;
    MHD_suspend_connection(r->connection);
    if (crew_submit(r->http->crew, &s->job))
        return true;
    MHD_resume_connection(r->connection);
    r->step = NULL;
    r->away = false;
    free(s);
    return false;
}

/* What it waits for takes long: it is suspended. */
static void await_longer(struct http_request *r)
{
    ASSERT(r->resumed != NULL && r->thread->awaiting > 0);
    r->await_until_ns = 0;
    r->thread->awaiting--;
    MHD_suspend_connection(r->connection);
}

/* Called for the head of a request, then for each piece of its body, then at its end, and after
 * each suspension. MHD_NO closes the connection. */
enum MHD_Result http_on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_len, void **context)
{
    struct http_request *r = *context;
    struct http_thread *t = arg;

    (void)version;
    ASSERT(r == NULL || (r->thread == t && r->connection == connection));
    if (r != NULL && r->await_until_ns != 0) {
        if (t->pass_ns >= r->await_until_ns)
            await_longer(r);
        return MHD_YES;
    }
    t->active = true;
    if (r == NULL) {
        *context = r = request_new(arg, connection, method);
        request_begin(r, url);
        return MHD_YES;
    }
    r->away = false;
    if (r->response != NULL)
        http_response_queue(r);
    if (r->answered) {
        *upload_len = 0;
        return MHD_YES;
    }
    if (*upload_len > 0) {
        bool goes_on = body_take(r, upload, *upload_len);

        atomic_fetch_add_explicit(&r->client->came_bytes, *upload_len, memory_order_relaxed);
        *upload_len = 0;
        return goes_on ? MHD_YES : MHD_NO;
    }
    http_thread_look(t);
    /* The request is whole: what it waits for from here on is ours. */
    atomic_store_explicit(&r->client->since_ms, 0, memory_order_relaxed);
    if (step_give(r))
        return MHD_YES;
    step_take(r);
    /* A request that was suspended may be resumed by now, but this thread alone goes on with it. */
    if (r->answered)
        work_drop(r);
    return MHD_YES;
}

void request_suspend(struct http_request *r, void (*resumed)(struct http_request *r))
{
    ASSERT(!r->answered && r->resumed == NULL);
    r->resumed = resumed;
    if (r->step == NULL)
        MHD_suspend_connection(r->connection);
    r->step = NULL; /* it is suspended already */
}

void request_await(struct http_request *r, void (*resumed)(struct http_request *r))
{
    if (r->step != NULL || r->thread->awaiting == AWAITING_MAX) {
        request_suspend(r, resumed);
        return;
    }
    ASSERT(!r->answered && r->resumed == NULL);
    r->resumed = resumed;
    r->await_until_ns = r->thread->pass_ns + AWAIT_NS;
    r->thread->awaiting++;
}

void request_resume(struct http_request *r)
{
    http_thread_resume(r->thread, r);
}

void http_resumed(struct http_request *r)
{
    if (r->await_until_ns == 0) {
        MHD_resume_connection(r->connection);
        return;
    }
    ASSERT(r->thread->awaiting > 0);
    r->await_until_ns = 0;
    r->thread->awaiting--;
    if (!r->gone)
        return; /* the library asks for it */
    go_on(r);
    ASSERT(r->answered);
    request_free(r);
}

/* --- the server --- */

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
    if (clients_init(&h->clients) < 0) {
        close(h->listen_fd);
        free(h);
        return -ENOMEM;
    }
    h->config = config_ref(config);
    h->clients_max = config->http.connections_per_client_max;
    list_init(&h->connections);
    pthread_mutex_init(&h->lock, NULL);
    tokens_init(&h->tokens);
    h->unsubscribes.seed = rng_entropy();
    *out = h;
    return 0;
}

int http_start(struct http *h, struct shared *shared, struct buf *error)
{
    int err;

    if (h == NULL)
        return 0;
    ASSERT(h->shared == NULL && h->threads == NULL);
    h->shared = shared;
    err = crew_open(&h->crew, h->config->http.threads, LARGE_MAX);
    if (err == 0)
        err = http_threads_start(h);
    if (err < 0)
        buf_printf(error, "cannot serve HTTP at %s: the library does not start (threads, memory?)",
                   h->config->http.listen.text);
    return err;
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
    if (h->threads != NULL) {
        atomic_store(&h->draining, true);
        http_threads_quiesce(h);
        /* The library may not be stopped while requests are suspended. */
        while (atomic_load(&h->requests) > 0 || atomic_load(&h->resuming) > 0) {
            cut(h, mono_ms() > began_ms + ANSWERS_MS);
            usleep(CLOSE_PAUSE_US);
        }
    }
    crew_stop(h->crew); /* nobody gives it anything, and its desks are there still */
    http_threads_stop(h);
    crew_close(h->crew);
    ASSERT(list_empty(&h->connections) && atomic_load(&h->requests) == 0);
    close(h->listen_fd);
    clients_done(&h->clients);
    tokens_done(&h->tokens);
    config_unref(h->config);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

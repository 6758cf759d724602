/* Sockets, clients and turns of the control channel. */
#include "control/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/control_private.h"
#include "io/io.h"

#define READ_BYTES 4096

/* --- opening --- */

static int address_of(const char *path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(out->sun_path))
        return -ENAMETOOLONG;
    strcpy(out->sun_path, path);
    return 0;
}

/* Whether somebody answers at the address. A socket left by a dead engine refuses. */
static bool answered(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool yes;

    if (fd < 0)
        return false;
    /* EAGAIN: its backlog is full, so it is there. */
    yes = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN;
    close(fd);
    return yes;
}

static void make_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *directory;

    if (slash == NULL || slash == path)
        return;
    directory = strndup(path, (size_t)(slash - path));
    if (directory != NULL)
        (void)mkdir(directory, 0755); /* bind() says what is wrong with it */
    free(directory);
}

static int bind_socket(struct control *c, const struct sockaddr_un *address)
{
    mode_t mask;
    int err = 0;

    ASSERT(c->listen_fd < 0);
    c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listen_fd < 0)
        return -errno;
    /* By the mask rather than chmod(): the socket is never open to others. */
    mask = umask(0177);
    if (bind(c->listen_fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
        err = -errno;
    umask(mask);
    if (err == 0 && listen(c->listen_fd, 64) != 0)
        err = -errno;
    return err;
}

static int watch(const struct control *c, int op, int fd, uint32_t events, void *owner)
{
    struct epoll_event event = {.events = events, .data.ptr = owner};

    ASSERT(c->epoll_fd >= 0 && fd >= 0);
    return epoll_ctl(c->epoll_fd, op, fd, &event) == 0 ? 0 : -errno;
}

static int open_socket(struct control *c, struct buf *error)
{
    struct sockaddr_un address;
    int err = address_of(c->path, &address);

    if (err == 0 && answered(&address)) {
        buf_printf(error, "control socket %s: another engine answers there", c->path);
        return -EADDRINUSE;
    }
    if (err == 0) {
        /* Any other file is somebody's, and bind() says it is there. */
        (void)io_remove_stale((const struct sockaddr *)&address, sizeof(address));
        make_directory(c->path);
        err = bind_socket(c, &address);
    }
    if (err == 0)
        return 0;
    buf_printf(error, "control socket %s: %s; set control_socket to a path that can be written",
               c->path,
               err == -EADDRINUSE ? "a file is there, no socket or not ours" : strerror(-err));
    return err;
}

static int open_events(struct control *c)
{
    int err = 0;

    c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->epoll_fd < 0 || c->event_fd < 0)
        return -errno;
    err = watch(c, EPOLL_CTL_ADD, c->listen_fd, EPOLLIN, &c->listen_fd);
    if (err == 0)
        err = watch(c, EPOLL_CTL_ADD, c->event_fd, EPOLLIN, &c->event_fd);
    return err;
}

int control_open(struct control **out, const char *path, const struct control_backend *backend,
                 void *arg, struct queue *queue, struct buf *error)
{
    struct control *c = calloc(1, sizeof(*c));
    int err = -ENOMEM;

    if (c == NULL)
        return err;
    *c = (struct control){.backend = backend,
                          .arg = arg,
                          .queue = queue,
                          .path = strdup(path),
                          .listen_fd = -1,
                          .epoll_fd = -1,
                          .event_fd = -1};
    list_init(&c->clients);
    list_init(&c->shared.done);
    pthread_mutex_init(&c->shared.lock, NULL);
    if (c->path == NULL)
        goto fail;
    err = open_socket(c, error);
    if (err != 0)
        goto fail;
    err = open_events(c);
    if (err != 0) {
        buf_printf(error, "control socket %s: %s", path, strerror(-err));
        goto fail;
    }
    *out = c;
    return 0;
fail:
    control_close(c);
    return err;
}

/* --- clients --- */

static void client_free(struct control_client *client)
{
    struct control *c = client->control;

    ASSERT(c->clients_len > 0 && (client->job == NULL || client->job->client == client));
    if (client->job != NULL)
        client->job->client = NULL; /* it is freed when it comes back */
    control_work_done(client);
    if (client->busy)
        control_request_done(&client->request);
    list_remove(&client->node);
    c->clients_len--;
    close(client->fd); /* leaves the epoll set by itself */
    buf_done(&client->in);
    buf_done(&client->out);
    free(client);
}

static void client_new(struct control *c, int fd)
{
    struct control_client *client = calloc(1, sizeof(*client));

    /* Those that are to make room for it are freed at the end of the turn. */
    ASSERT(fd >= 0 && c->clients_len < 2 * CONTROL_CLIENTS_MAX);
    if (client == NULL || watch(c, EPOLL_CTL_ADD, fd, EPOLLIN, client) != 0) {
        free(client);
        close(fd);
        return;
    }
    client->control = c;
    client->fd = fd;
    client->events = EPOLLIN;
    client->moved_ms = client->idle_ms = c->mono_ms;
    list_push_back(&c->clients, &client->node);
    c->clients_len++;
}

static size_t unsent(const struct control_client *client)
{
    ASSERT(client->out_at <= client->out.len);
    return client->out.len - client->out_at;
}

static bool has_line(const struct control_client *client)
{
    return str_find(buf_str(&client->in), '\n') >= 0 || client->in.len >= CONTROL_LINE_BYTES_MAX;
}

/* The client that has been without a request for longest, or NULL. One that came in this turn has
 * not been heard yet. */
static struct control_client *idlest(struct control *c)
{
    struct control_client *found = NULL;

    for (struct list_node *n = list_first(&c->clients); n != NULL; n = list_next(&c->clients, n)) {
        struct control_client *client = LIST_ENTRY(n, struct control_client, node);

        if (!client->dead && !client->busy && unsent(client) == 0 && !has_line(client) &&
            client->idle_ms < (found == NULL ? c->mono_ms : found->idle_ms))
            found = client;
    }
    return found;
}

/* The client is one too many: it is told and closed. What the socket buffer does not take is lost.
 */
static void turn_away(int fd)
{
    struct buf out = {0};

    control_put_error(&out, "refused", "too many control connections", "try again");
    (void)!send(fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    buf_done(&out);
    close(fd);
}

static void accept_clients(struct control *c)
{
    for (;;) {
        int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        bool full = fd >= 0 && c->clients_len >= CONTROL_CLIENTS_MAX;
        struct control_client *idle = full ? idlest(c) : NULL;

        if (full && idle == NULL) {
            turn_away(fd);
        } else if (fd >= 0) {
            if (idle != NULL)
                idle->dead = true; /* freed behind the events of this turn */
            client_new(c, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            /* The connection stays in the backlog; watching on would spin. */
            if (watch(c, EPOLL_CTL_MOD, c->listen_fd, 0, &c->listen_fd) == 0)
                c->paused_ms = c->mono_ms;
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

/* Looks again after a pause. Descriptors are the whole process's: when one is free, nobody says so.
 */
static void accept_again(struct control *c)
{
    if (c->paused_ms != 0 && c->mono_ms - c->paused_ms >= CONTROL_PAUSE_MS &&
        watch(c, EPOLL_CTL_MOD, c->listen_fd, EPOLLIN, &c->listen_fd) == 0)
        c->paused_ms = 0;
}

static void client_read(struct control_client *client)
{
    while (client->in.len < CONTROL_LINE_BYTES_MAX) {
        ssize_t n;

        if (buf_reserve(&client->in, READ_BYTES) != 0) {
            client->dead = true;
            return;
        }
        n = recv(client->fd, client->in.data + client->in.len, READ_BYTES, 0);
        if (n > 0) {
            client->in.len += (size_t)n;
            continue;
        }
        if (n == 0)
            client->eof = true;
        else if (errno != EAGAIN && errno != EINTR)
            client->dead = true;
        return;
    }
}

static void client_send(struct control_client *client)
{
    while (unsent(client) != 0) {
        ssize_t n =
            send(client->fd, client->out.data + client->out_at, unsent(client), MSG_NOSIGNAL);

        if (n < 0) {
            client->dead = errno != EAGAIN && errno != EINTR;
            return;
        }
        client->out_at += (size_t)n;
        ASSERT(client->out_at <= client->out.len);
        client->moved_ms = client->control->mono_ms;
    }
    buf_clear(&client->out);
    client->out_at = 0;
}

/* Takes the next line off the input, begins it. Blank lines are skipped. */
static void next_request(struct control_client *client)
{
    struct control_refusal why;
    struct str line;
    ptrdiff_t end = str_find(buf_str(&client->in), '\n');

    ASSERT(!client->busy && client->job == NULL);
    if (end < 0) {
        if (client->in.len < CONTROL_LINE_BYTES_MAX)
            return;
        control_put_error(&client->out, "bad_request", "the request is longer than 1 MiB", "");
        buf_clear(&client->in);
        client->eof = true;
        return;
    }
    line = str_trim((struct str){(const char *)client->in.data, (size_t)end});
    if (line.len != 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    if (line.len != 0 && control_request_parse(line, &client->request, &why) == 0) {
        client->busy = true;
        client->work = (struct control_work){.reported_ms = client->control->mono_ms,
                                             .began_ms = client->control->wall_ms};
    } else if (line.len != 0) {
        control_put_error(&client->out, why.code, why.message, why.hint);
    }
    buf_consume(&client->in, (size_t)end + 1);
}

/* Whether a step for it would do something. */
static bool runnable(const struct control_client *client)
{
    if (client->dead || unsent(client) >= CONTROL_OUT_BYTES_MAX)
        return false;
    if (client->busy)
        return client->job == NULL && client->rests_until_ms <= client->control->mono_ms;
    return has_line(client);
}

static void request_over(struct control_client *client, enum control_step step)
{
    ASSERT(client->busy && (client->job == NULL || step != CONTROL_STEP_DONE));
    if (step != CONTROL_STEP_DONE)
        return;
    control_work_done(client);
    control_request_done(&client->request);
    client->busy = false;
    client->rests_until_ms = 0;
    client->idle_ms = client->control->mono_ms;
}

static void client_step(struct control_client *client)
{
    ASSERT(runnable(client));
    if (!client->busy)
        next_request(client);
    if (client->busy && client->job == NULL)
        request_over(client, control_step(client));
    client_send(client);
}

/* Watches what the client can do next, and ends it when there is nothing. */
static void client_settle(struct control_client *client)
{
    struct control *c = client->control;
    bool over = client->eof && !client->busy && !has_line(client) && unsent(client) == 0;
    bool stalled = unsent(client) != 0 && c->mono_ms - client->moved_ms > CONTROL_STALL_MS_MAX;
    uint32_t events = 0;

    if (client->dead || over || stalled) {
        client_free(client);
        return;
    }
    if (unsent(client) != 0)
        events |= EPOLLOUT;
    if (!client->eof && client->in.len < CONTROL_LINE_BYTES_MAX)
        events |= EPOLLIN;
    if (events != client->events && watch(c, EPOLL_CTL_MOD, client->fd, events, client) == 0)
        client->events = events;
}

/* --- jobs --- */

void control_job_done(struct control_job *job, int result)
{
    struct control *c = job->control;
    uint64_t one = 1;

    ASSERT(c->event_fd >= 0 && result <= 0);
    job->result = result;
    job->node = (struct list_node){NULL, NULL};
    pthread_mutex_lock(&c->shared.lock);
    list_push_back(&c->shared.done, &job->node);
    /* Within the lock: once the main thread has seen the job, c may be closed. */
    (void)!write(c->event_fd, &one, sizeof(one));
    pthread_mutex_unlock(&c->shared.lock);
}

static void take_jobs(struct control *c)
{
    struct list done;
    struct list_node *node;
    uint64_t count;

    list_init(&done);
    (void)!read(c->event_fd, &count, sizeof(count));
    pthread_mutex_lock(&c->shared.lock);
    list_splice_back(&done, &c->shared.done);
    pthread_mutex_unlock(&c->shared.lock);
    while ((node = list_pop_front(&done)) != NULL) {
        struct control_job *job = LIST_ENTRY(node, struct control_job, node);
        struct control_client *client = job->client;

        ASSERT(c->jobs > 0 && (client == NULL || client->job == job));
        c->jobs--;
        if (client != NULL) {
            ASSERT(client->busy && client->control == c);
            client->job = NULL;
            client->moved_ms = c->mono_ms;
            request_over(client, control_job_returned(client, job));
        }
        control_job_free(job);
    }
}

size_t control_jobs(const struct control *c)
{
    return c->jobs;
}

/* --- turns --- */

int control_fd(const struct control *c)
{
    return c->epoll_fd;
}

int control_timeout_ms(const struct control *c)
{
    int timeout_ms = c->paused_ms != 0 ? CONTROL_PAUSE_MS : -1;

    for (struct list_node *n = list_first(&c->clients); n != NULL; n = list_next(&c->clients, n)) {
        const struct control_client *client = LIST_ENTRY(n, struct control_client, node);

        if (runnable(client))
            return 0;
        if (client->rests_until_ms != 0 && unsent(client) == 0)
            timeout_ms = CONTROL_TRACE_MS;
        else if (unsent(client) != 0 && timeout_ms < 0)
            timeout_ms = CONTROL_PAUSE_MS; /* to notice that it stalls */
    }
    return timeout_ms;
}

static void take_events(struct control *c)
{
    struct epoll_event events[CONTROL_CLIENTS_MAX + 2];
    int n = epoll_wait(c->epoll_fd, events, ARRAY_LEN(events), 0);

    for (int i = 0; i < n; i++) {
        struct control_client *client = events[i].data.ptr;

        if (events[i].data.ptr == &c->listen_fd) {
            accept_clients(c);
        } else if (events[i].data.ptr == &c->event_fd) {
            take_jobs(c);
        } else {
            /* Both directions are shut or broken: nobody will read an answer. */
            if ((events[i].events & (EPOLLHUP | EPOLLERR)) != 0)
                client->dead = true;
            if ((events[i].events & EPOLLIN) != 0)
                client_read(client);
            if ((events[i].events & EPOLLOUT) != 0)
                client_send(client);
        }
    }
}

void control_turn(struct control *c, uint64_t mono_ms, int64_t wall_ms)
{
    struct list_node *node, *next;

    ASSERT(mono_ms >= c->mono_ms);
    c->mono_ms = mono_ms;
    c->wall_ms = wall_ms;
    accept_again(c);
    take_events(c);
    for (node = list_first(&c->clients); node != NULL; node = next) {
        struct control_client *client = LIST_ENTRY(node, struct control_client, node);

        next = list_next(&c->clients, node);
        if (unsent(client) == 0)
            client->moved_ms =
                mono_ms; /* a stall is counted from when there was something to take */
        if (runnable(client))
            client_step(client);
        else if (unsent(client) != 0)
            client_send(client);
        client_settle(client);
    }
}

void control_close(struct control *c)
{
    struct sockaddr_un address;
    struct list_node *node;

    if (c == NULL)
        return;
    take_jobs(c);
    ASSERT(c->jobs == 0);
    while ((node = list_first(&c->clients)) != NULL)
        client_free(LIST_ENTRY(node, struct control_client, node));
    ASSERT(c->clients_len == 0);
    for (size_t i = 0; i < 3; i++) {
        int fd = ((const int[]){c->listen_fd, c->epoll_fd, c->event_fd})[i];

        if (fd >= 0)
            close(fd);
    }
    if (c->path != NULL && address_of(c->path, &address) == 0)
        (void)io_remove_stale((const struct sockaddr *)&address, sizeof(address));
    pthread_mutex_destroy(&c->shared.lock);
    free(c->path);
    free(c);
}

/* io.h on the simulated network and clock, with the liberties that io_uring.c and the kernel take:
 * completions of different descriptors come in any order, many of one receive in a turn, in pieces
 * of any size, and the last event of a cancelled op may be a success. */
#include "tests/sim/sim_io.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#define FDS          65536
#define FIRST_FD     1000 /* not mistaken for real ones */
#define PIECES_MAX   3    /* receive completions of an op in a turn */
#define BUFFER_BYTES 16384

enum kind { KIND_ACCEPT, KIND_CONNECT, KIND_RECV, KIND_SEND };

#define OP_CANCELLED 1
#define OP_ONCE      2

struct completion {
    struct io_op *op;
    struct io_event event;
    uint8_t *data;
};

struct io {
    struct io_options options;
    struct wheel wheel;
    uint64_t now_ns;
    int64_t wall_ms;
    struct list ops;
    uint32_t ops_len;
    bool woken, ready, turning;
    struct completion *done;
    size_t done_len, done_cap;
    void (*on_ready)(void *arg);
    void *ready_arg;
};

struct waiting { /* in a listener's backlog */
    struct list_node node;
    struct net_end *end;
};

struct fd {
    bool used, told; /* told: of the session */
    struct io *io;
    struct net_end *end;
    struct net_listener *listener;
    struct list backlog;
    struct sockaddr_storage local, remote;
    uint32_t ops;
};

static struct fd fds[FDS];
static uint32_t fds_used, fds_end; /* fds_end: behind the last that ever was in use */
static struct sim_io_limits limits;

/* --- descriptors --- */

void sim_io_limit(const struct sim_io_limits *l)
{
    limits = *l;
}

uint32_t sim_io_fds(void)
{
    return fds_used;
}

static int fd_new(struct io *io)
{
    int at = 0;

    if (fds_used >= limits.fds_max)
        return -EMFILE;
    while (fds[at].used)
        at++;
    if ((uint32_t)at >= fds_end)
        fds_end = (uint32_t)at + 1;
    fds[at] = (struct fd){.used = true, .io = io};
    list_init(&fds[at].backlog);
    fds_used++;
    return at + FIRST_FD;
}

static struct fd *fd_of(int fd)
{
    ASSERT(fd >= FIRST_FD && fd < FIRST_FD + FDS && fds[fd - FIRST_FD].used);
    return &fds[fd - FIRST_FD];
}

static void io_ready(struct io *io)
{
    io->ready = true;
    if (!io->turning && io->on_ready != NULL)
        io->on_ready(io->ready_arg);
}

static void on_change(struct net_end *end)
{
    io_ready(((struct fd *)end->owner)->io);
}

static void end_own(struct fd *f, struct net_end *end)
{
    f->end = end;
    f->local = end->local;
    f->remote = end->remote;
    end->owner = f;
    end->on_change = on_change;
}

static void fd_close(struct fd *f, bool abort)
{
    struct list_node *n;

    if (f->listener != NULL) {
        net_unlisten(f->listener);
        free(f->listener);
    }
    while ((n = list_pop_front(&f->backlog)) != NULL) {
        net_close(LIST_ENTRY(n, struct waiting, node)->end, true);
        free(LIST_ENTRY(n, struct waiting, node));
    }
    if (f->told)
        limits.session((struct sockaddr *)&f->local, (struct sockaddr *)&f->remote, false);
    if (f->end != NULL)
        net_close(f->end, abort);
    f->used = false;
    fds_used--;
}

void sim_io_kill(void)
{
    for (uint32_t i = 0; i < fds_end; i++)
        if (fds[i].used)
            fd_close(&fds[i], false);
}

static void on_backlog(struct net_listener *l, struct net_end *end)
{
    struct fd *f = l->owner;
    struct waiting *w = calloc(1, sizeof(*w));

    ASSERT(w != NULL);
    w->end = end;
    list_push_back(&f->backlog, &w->node);
    io_ready(f->io);
}

int io_address_free(const struct sockaddr *addr, socklen_t len)
{
    (void)addr, (void)len;
    return 0;
}

bool io_remove_stale(const struct sockaddr *addr, socklen_t len)
{
    (void)addr, (void)len;
    return false;
}

int io_listen(struct io *io, const struct sockaddr *addr, socklen_t len, int backlog,
              bool reuse_port)
{
    int fd = fd_new(io);
    struct fd *f;

    (void)backlog, (void)reuse_port;
    if (fd < 0)
        return fd;
    f = fd_of(fd);
    f->listener = calloc(1, sizeof(*f->listener));
    ASSERT(f->listener != NULL);
    f->listener->on_accept = on_backlog;
    f->listener->owner = f;
    net_listen(f->listener, addr, len);
    return fd;
}

int io_stream(struct io *io, int family, const struct sockaddr *source, socklen_t len)
{
    int fd;

    if (source != NULL && !limits.here(source))
        return -EADDRNOTAVAIL;
    fd = fd_new(io);
    if (fd < 0)
        return fd;
    fd_of(fd)->local.ss_family = (sa_family_t)family;
    if (source != NULL)
        memcpy(&fd_of(fd)->local, source, len);
    return fd;
}

int io_route(struct io *io, const struct sockaddr *addr, socklen_t len,
             const struct sockaddr *source, socklen_t source_len)
{
    (void)io;
    (void)addr;
    (void)len;
    (void)source_len;
    return source == NULL || limits.routed(source) ? 0 : -ENETUNREACH;
}

int io_watch(struct io *io, enum io_watched what)
{
    (void)io;
    (void)what;
    return -EAFNOSUPPORT;
}

bool io_watch_news(struct io *io, int fd)
{
    (void)io;
    (void)fd;
    return false;
}

int io_peer_name(struct io *io, int fd, struct sockaddr_storage *peer)
{
    (void)io;
    *peer = fd_of(fd)->remote;
    return 0;
}

int io_local_name(struct io *io, int fd, struct sockaddr_storage *local)
{
    (void)io;
    *local = fd_of(fd)->local;
    return 0;
}

void io_send_progress(struct io *io, int fd, struct io_progress *out)
{
    struct net_end *end = fd_of(fd)->end;

    (void)io;
    *out = (struct io_progress){.left_bytes = end->peer->flight_bytes,
                                .taken_bytes = end->sent_bytes - end->peer->flight_bytes};
}

void io_send_end(struct io *io, int fd) /* simulated clients leave at a 421 */
{
    (void)io;
    (void)fd;
}

void io_close_fd(struct io *io, int fd, bool abort)
{
    (void)io;
    ASSERT(fd_of(fd)->ops == 0);
    fd_close(fd_of(fd), abort);
}

/* --- operations --- */

static void begin(struct io *io, struct io_op *op, enum kind kind, int fd)
{
    ASSERT(op->in_flight == 0 && op->on_event != NULL);
    op->io = io;
    op->fd = fd;
    op->kind = (uint8_t)kind;
    op->flags = 0;
    op->in_flight = 1;
    op->priv = NULL;
    fd_of(fd)->ops++;
    fd_of(fd)->io = io;
    list_push_back(&io->ops, &op->node);
    io->ops_len++;
    io_ready(io);
}

void io_accept(struct io *io, struct io_op *op, int fd)
{
    begin(io, op, KIND_ACCEPT, fd);
}

void io_connect(struct io *io, struct io_op *op, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct fd *f = fd_of(fd);
    struct net_path path;

    begin(io, op, KIND_CONNECT, fd);
    if (!limits.routed((struct sockaddr *)&f->local))
        return;
    limits.path(addr, &path);
    memcpy(&f->remote, addr, len);
    f->told = true;
    limits.session((struct sockaddr *)&f->local, addr, true);
    end_own(f, net_connect((struct sockaddr *)&f->local, addr, len, &path));
}

void io_recv(struct io *io, struct io_op *op, int fd)
{
    begin(io, op, KIND_RECV, fd);
}

void io_recv_once(struct io *io, struct io_op *op, int fd)
{
    begin(io, op, KIND_RECV, fd);
    op->flags = OP_ONCE;
}

void io_send(struct io *io, struct io_op *op, int fd, struct iovec *iov, size_t iov_len)
{
    ASSERT(iov_len > 0);
    begin(io, op, KIND_SEND, fd);
    op->msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = iov_len};
}

/* These sends need no turn of their own to be told of; here all go in the next turn. */
void io_send_unhurried(struct io *io, struct io_op *op, int fd, struct iovec *iov, size_t iov_len)
{
    io_send(io, op, fd, iov, iov_len);
}

void io_hurry(struct io *io, struct io_op *op)
{
    (void)io, (void)op;
}

void io_poll(struct io *io, struct io_op *op, int fd, uint32_t poll_events)
{
    (void)io, (void)op, (void)fd, (void)poll_events;
    ASSERT(false); /* nothing is watched here */
}

void io_cancel(struct io *io, struct io_op *op)
{
    if (op->in_flight == 0)
        return;
    op->flags |= OP_CANCELLED;
    io_ready(io);
}

/* --- completions --- */

static void complete(struct io_op *op, int32_t result, bool more, uint8_t *data)
{
    struct io *io = op->io;

    if (io->done_len == io->done_cap) {
        io->done_cap = io->done_cap == 0 ? 64 : io->done_cap * 2;
        io->done = realloc(io->done, io->done_cap * sizeof(*io->done));
        ASSERT(io->done != NULL);
    }
    io->done[io->done_len++] =
        (struct completion){.op = op, .event = {result, more, data}, .data = data};
}

static void look_accept(struct io_op *op, bool cancelled)
{
    struct fd *f = fd_of(op->fd);
    struct list_node *n;

    while (!list_empty(&f->backlog) && (!cancelled || sim_chance(500))) {
        int fd = fd_new(f->io);
        struct waiting *w;

        if (fd < 0) {
            complete(op, fd, false, NULL);
            return;
        }
        n = list_pop_front(&f->backlog);
        w = LIST_ENTRY(n, struct waiting, node);
        end_own(fd_of(fd), w->end);
        free(w);
        if (cancelled) {
            complete(op, fd, false, NULL);
            return;
        }
        complete(op, fd, true, NULL);
    }
    if (cancelled)
        complete(op, -ECANCELED, false, NULL);
}

static void look_connect(struct io_op *op, bool cancelled)
{
    struct net_end *end = fd_of(op->fd)->end;

    if (end == NULL)
        complete(op, -ENETUNREACH, false, NULL);
    else if (end->connected)
        complete(op, 0, false, NULL);
    else if (end->error < 0)
        complete(op, end->error, false, NULL);
    else if (cancelled)
        complete(op, -ECANCELED, false, NULL);
}

static void look_recv(struct io_op *op, bool cancelled)
{
    struct net_end *end = fd_of(op->fd)->end;

    for (int i = 0; i < PIECES_MAX && end->rx.len > 0 && (!cancelled || sim_chance(500)); i++) {
        size_t most = end->rx.len < BUFFER_BYTES ? end->rx.len : BUFFER_BYTES;
        size_t len = sim_chance(800) ? most : (size_t)sim_between(1, most);
        uint8_t *data = malloc(len); /* gone after the handler: who keeps it is found out */
        bool last = (cancelled && sim_chance(300)) || (op->flags & OP_ONCE) != 0;

        ASSERT(data != NULL);
        memcpy(data, end->rx.data, len);
        net_read(end, len);
        if (sim_sabotage == SABOTAGE_REPLY && len > 4 && memcmp(data, "250 2.0.0", 9) == 0 &&
            sim_chance(100))
            memcpy(data, "451", 3);
        complete(op, (int32_t)len, !last, data);
        if (last)
            return;
    }
    if (cancelled)
        complete(op, -ECANCELED, false, NULL);
    else if (end->rx.len > 0)
        op->io->ready = true; /* the rest next turn */
    else if (end->reset)
        complete(op, -ECONNRESET, false, NULL);
    else if (end->fin)
        complete(op, 0, false, NULL);
}

static void look_send(struct io_op *op, bool cancelled)
{
    struct net_end *end = fd_of(op->fd)->end;
    struct msghdr *msg = &op->msg;
    size_t sent = (uintptr_t)op->priv;

    if (sim_sabotage == SABOTAGE_CONTENT && msg->msg_iov->iov_len > 600 && sim_chance(100))
        *((uint8_t *)msg->msg_iov->iov_base + msg->msg_iov->iov_len / 2) ^= 1;
    while (msg->msg_iovlen > 0) {
        ptrdiff_t n = msg->msg_iov->iov_len == 0
                          ? 0
                          : net_send(end, msg->msg_iov->iov_base, msg->msg_iov->iov_len);

        if (n < 0) {
            complete(op, (int32_t)n, false, NULL);
            return;
        }
        sent += (size_t)n;
        msg->msg_iov->iov_base = (uint8_t *)msg->msg_iov->iov_base + n;
        msg->msg_iov->iov_len -= (size_t)n;
        if (msg->msg_iov->iov_len > 0)
            break;
        msg->msg_iov++;
        msg->msg_iovlen--;
    }
    op->priv = (void *)(uintptr_t)sent;
    if (msg->msg_iovlen == 0)
        complete(op, (int32_t)sent, false, NULL);
    else if (cancelled)
        complete(op, -ECANCELED, false, NULL);
}

/* In an order that starts anywhere: descriptors have none among them. */
static void collect(struct io *io)
{
    uint32_t skip = io->ops_len == 0 ? 0 : (uint32_t)sim_draw(io->ops_len);
    struct list_node *n, *next;

    while (skip-- > 0) {
        n = list_pop_front(&io->ops);
        list_push_back(&io->ops, n);
    }
    for (n = list_first(&io->ops); n != NULL; n = next) {
        struct io_op *op = LIST_ENTRY(n, struct io_op, node);
        bool cancelled = (op->flags & OP_CANCELLED) != 0;

        next = list_next(&io->ops, n);
        switch ((enum kind)op->kind) {
        case KIND_ACCEPT:
            look_accept(op, cancelled);
            break;
        case KIND_CONNECT:
            look_connect(op, cancelled);
            break;
        case KIND_RECV:
            look_recv(op, cancelled);
            break;
        case KIND_SEND:
            look_send(op, cancelled);
            break;
        }
    }
}

static void dispatch(struct io *io)
{
    for (size_t i = 0; i < io->done_len; i++) {
        struct completion *c = &io->done[i];
        struct io_op *op = c->op;

        if (c->data != NULL && (op->flags & OP_CANCELLED) == 0)
            net_seen(fd_of(op->fd)->end, (size_t)c->event.result);
        if (!c->event.more) {
            op->in_flight = 0;
            fd_of(op->fd)->ops--;
            list_remove(&op->node);
            io->ops_len--;
        }
        op->on_event(op, &c->event);
        free(c->data);
    }
    io->done_len = 0;
}

/* --- turns --- */

int io_open(struct io **out, const struct io_options *options)
{
    struct io *io = calloc(1, sizeof(*io));

    ASSERT(io != NULL);
    io->options = *options;
    io->now_ns = sim_now_ns();
    io->wall_ms = sim_wall_ms();
    wheel_init(&io->wheel, io->now_ns / SIM_MS);
    list_init(&io->ops);
    *out = io;
    return 0;
}

void io_close(struct io *io)
{
    if (io == NULL)
        return;
    ASSERT(io->ops_len == 0);
    free(io->done);
    free(io);
}

const char *io_why_unavailable(int err)
{
    (void)err;
    return "simulated";
}

int io_turn(struct io *io, uint32_t wait_ms_max)
{
    bool woken = io->woken;

    (void)wait_ms_max; /* who calls knows that there is something to do */
    io->now_ns = sim_now_ns();
    io->wall_ms = sim_wall_ms();
    io->turning = true;
    io->ready = io->woken = false;
    collect(io);
    dispatch(io);
    wheel_advance(&io->wheel, io->now_ns / SIM_MS);
    if (woken && io->options.on_wake != NULL)
        io->options.on_wake(io->options.arg);
    if (io->options.on_tick != NULL)
        io->options.on_tick(io->options.arg);
    io->turning = false;
    return 0;
}

void io_wake(struct io *io)
{
    io->woken = true;
    io_ready(io);
}

void sim_io_watch(struct io *io, void (*on_ready)(void *arg), void *arg)
{
    io->on_ready = on_ready;
    io->ready_arg = arg;
}

/* When the first timer is due. wheel_wait_ms() says when its slot begins, at each level on its way
 * down: in simulated time, where nothing happens between, two turns of three were for that. */
static uint64_t first_due_ms(const struct wheel *w, uint64_t slot_ms)
{
    const struct list *slot;
    uint64_t first_ms = UINT64_MAX;
    unsigned level = 0;

    while (w->occupied[level] == 0)
        level++;
    if (level == 0 || level == WHEEL_LEVELS - 1)
        return slot_ms;
    slot = &w->slots[level][__builtin_ctzll(w->occupied[level])]; /* all are ahead of now */
    for (struct list_node *n = list_first(slot); n != NULL; n = list_next(slot, n))
        if (LIST_ENTRY(n, struct timer, node)->due_ms < first_ms)
            first_ms = LIST_ENTRY(n, struct timer, node)->due_ms;
    return first_ms;
}

uint64_t sim_io_next_ns(const struct io *io)
{
    uint64_t now_ms = sim_now_ns() / SIM_MS, wait_ms;

    if (io->ready || io->woken)
        return sim_now_ns();
    wait_ms = wheel_wait_ms(&io->wheel, now_ms);
    if (wait_ms == 0 || wait_ms == UINT64_MAX)
        return wait_ms == 0 ? now_ms * SIM_MS : UINT64_MAX;
    return first_due_ms(&io->wheel, now_ms + wait_ms) * SIM_MS;
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

int64_t io_wall_ms(const struct io *io)
{
    return io->wall_ms;
}

struct wheel *io_wheel(struct io *io)
{
    return &io->wheel;
}

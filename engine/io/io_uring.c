/* io.h on io_uring (Linux 6.1 or newer).
 *
 * One ring per worker with SINGLE_ISSUER and DEFER_TASKRUN: the kernel touches the completion queue
 * only inside our own io_uring_enter(), so there is one enter per turn and no lock or interrupt in
 * between. A request's user_data is its io_op; 0 marks requests whose result nobody waits for
 * (close, cancel), of which only failures are posted.
 *
 * Sockets are not in the ring's table of registered files: a round trip in bench/io_echo took 3.9
 * and 3.5 us of CPU at its two ends without and 4.1 and 3.6 with it, and each session would cost
 * two more system calls.
 *
 * An unhurried send posts a completion only if it did not go whole at once: it may not wait for
 * room (MSG_DONTWAIT), so once the kernel has taken it, no completion is a success. A session that
 * says a word and waits for the answer takes one io_uring_enter() so, not two.
 *
 * SQEs run in the order in which they were queued. That makes io_cancel() safe: when an op ends,
 * and its memory starts a new op before the cancel was submitted, the cancel still runs first. */
#include "io/uring.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

#define ENTRIES_DEFAULT 4096
#define BUFFERS_DEFAULT 1024
/* Of 16 KiB, half of the receives of the main row of bench/run were cut at a buffer's end; these
 * take 48.1 -> 46.1 and 52.4 -> 49.4 us of CPU a message (interleaved runs, loaded machine). */
#define BUFFER_BYTES_DEFAULT 32768
#define CQES_PER_SQE         4 /* multishot: many completions for one submission */
#define FDS_MAX              (1u << 22)
#define PREFETCH_AHEAD       4
#define SUBMIT_TRIES_MAX     1000
#define NS_PER_MS            1000000
/* What a socket with little under way has room for: larger sends would often be cut. */
#define UNHURRIED_BYTES_MAX 16384
/* In user_data, beside an op's address: of an unhurried send. */
#define UNHURRIED UINT64_C(1)

/* io_op.flags */
#define OP_CANCELLED 0x01 /* io_cancel() was called: do not re-arm */
#define OP_PARKED    0x02 /* a receive without a buffer, in io.parked; no request in the kernel */
#define OP_ONCE      0x04 /* a receive of one buffer */
#define OP_UNHURRIED 0x08 /* a send in io.unhurried */

static struct io_uring_sqe *next_sqe(struct io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);

    for (int tries = 0; sqe == NULL; tries++) {
        int submitted = io_uring_submit(&io->ring);

        /* Transient lack of kernel memory is all that can be the matter. */
        ASSERT(submitted >= 0 || submitted == -EINTR || submitted == -EAGAIN ||
               submitted == -EBUSY);
        ASSERT(tries < SUBMIT_TRIES_MAX);
        if (submitted < 0)
            sched_yield();
        sqe = io_uring_get_sqe(&io->ring);
    }
    return sqe;
}

static void set_op(struct io_uring_sqe *sqe, struct io_op *op)
{
    io_uring_sqe_set_data64(sqe, (uintptr_t)op);
}

static void submit_accept(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = next_sqe(io);

    io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    set_op(sqe, op);
}

static void submit_recv(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = next_sqe(io);

    if (op->flags & OP_ONCE)
        io_uring_prep_recv(sqe, op->fd, NULL, 0, 0);
    else
        io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    set_op(sqe, op);
}

/* MSG_WAITALL: the kernel itself waits for room and goes on; a short result is the exception. */
static struct io_uring_sqe *prep_send(struct io *io, struct io_op *op, int flags)
{
    struct io_uring_sqe *sqe = next_sqe(io);
    const struct msghdr *msg = &op->msg;

    flags |= MSG_WAITALL | MSG_NOSIGNAL;
    if (msg->msg_iovlen == 1) /* a message header less to copy and check */
        io_uring_prep_send(sqe, op->fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len, flags);
    else
        io_uring_prep_sendmsg(sqe, op->fd, msg, (unsigned)flags);
    set_op(sqe, op);
    return sqe;
}

static void submit_send(struct io *io, struct io_op *op)
{
    (void)prep_send(io, op, 0);
}

static void submit_unhurried(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = prep_send(io, op, MSG_DONTWAIT);

    op->flags |= OP_UNHURRIED;
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data |= UNHURRIED;
    list_push_back(&io->unhurried, &op->node);
}

/* Not the kernel's multishot poll, which is edge-triggered: a reader that leaves bytes behind would
 * hang. One shot, armed anew at each event, is level-triggered. */
static void submit_poll(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = next_sqe(io);

    io_uring_prep_poll_add(sqe, op->fd, (unsigned)(uintptr_t)op->priv);
    set_op(sqe, op);
}

static void submit_wake_read(struct io *io)
{
    struct io_uring_sqe *sqe = next_sqe(io);

    io_uring_prep_read(sqe, io->wake_op.fd, &io->wake_count, sizeof(io->wake_count), 0);
    set_op(sqe, &io->wake_op);
}

static void begin(struct io *io, struct io_op *op, uint8_t kind, int fd)
{
    ASSERT(op->in_flight == 0);
    ASSERT(op->on_event != NULL && fd >= 0);
    op->io = io;
    op->fd = fd;
    op->kind = kind;
    op->flags = 0;
    op->in_flight = 1;
    io->ops++;
    if ((uint32_t)fd < io->fds)
        io->fd_ops[fd]++;
}

/* The op's last event: from here on it belongs to its owner again. */
static void finish(struct io *io, struct io_op *op, const struct io_event *event)
{
    ASSERT(op->in_flight == 1 && !event->more);
    ASSERT(io->ops > 0 && op->io == io);
    ASSERT((uint32_t)op->fd >= io->fds || io->fd_ops[op->fd] > 0);
    op->in_flight = 0;
    io->ops--;
    if ((uint32_t)op->fd < io->fds)
        io->fd_ops[op->fd]--;
    op->on_event(op, event);
}

void io_accept(struct io *io, struct io_op *op, int fd)
{
    begin(io, op, KIND_ACCEPT, fd);
    submit_accept(io, op);
}

void io_connect(struct io *io, struct io_op *op, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct io_uring_sqe *sqe;

    begin(io, op, KIND_CONNECT, fd);
    sqe = next_sqe(io);
    io_uring_prep_connect(sqe, fd, addr, len);
    set_op(sqe, op);
}

void io_recv(struct io *io, struct io_op *op, int fd)
{
    begin(io, op, KIND_RECV, fd);
    submit_recv(io, op);
}

void io_recv_once(struct io *io, struct io_op *op, int fd)
{
    begin(io, op, KIND_RECV, fd);
    op->flags = OP_ONCE;
    submit_recv(io, op);
}

static size_t iov_bytes(const struct msghdr *msg)
{
    size_t bytes = 0;

    for (size_t i = 0; i < msg->msg_iovlen; i++)
        bytes += msg->msg_iov[i].iov_len;
    return bytes;
}

/* How many bytes there are. */
static size_t begin_send(struct io *io, struct io_op *op, int fd, struct iovec *iov, size_t iov_len)
{
    size_t bytes;

    ASSERT(iov_len > 0 && iov_len <= IOV_MAX_ENTRIES);
    begin(io, op, KIND_SEND, fd);
    op->msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = iov_len};
    bytes = iov_bytes(&op->msg);
    ASSERT(bytes > 0 && bytes <= INT32_MAX);
    op->priv = (void *)(uintptr_t)bytes;
    return bytes;
}

void io_send(struct io *io, struct io_op *op, int fd, struct iovec *iov, size_t iov_len)
{
    (void)begin_send(io, op, fd, iov, iov_len);
    submit_send(io, op);
}

void io_send_unhurried(struct io *io, struct io_op *op, int fd, struct iovec *iov, size_t iov_len)
{
    if (begin_send(io, op, fd, iov, iov_len) <= UNHURRIED_BYTES_MAX)
        submit_unhurried(io, op);
    else
        submit_send(io, op);
}

/* Its completion ends the sleep, behind the submission of all that was queued before. */
void io_hurry(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe;

    if (op->in_flight == 0 || (op->flags & OP_UNHURRIED) == 0)
        return;
    sqe = next_sqe(io);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, 0);
}

void io_poll(struct io *io, struct io_op *op, int fd, uint32_t poll_events)
{
    begin(io, op, KIND_POLL, fd);
    op->priv = (void *)(uintptr_t)poll_events;
    submit_poll(io, op);
}

void io_cancel(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe;

    if (op->in_flight == 0 || (op->flags & OP_CANCELLED))
        return;
    op->flags |= OP_CANCELLED;
    if (op->flags & OP_PARKED) { /* the kernel does not have it: its end comes from us */
        list_remove(&op->node);
        list_push_back(&io->cancelled, &op->node);
        return;
    }
    if (op->flags & OP_UNHURRIED) { /* the kernel tries it once and keeps nothing of it */
        io_hurry(io, op);
        return;
    }
    sqe = next_sqe(io);
    io_uring_prep_cancel64(sqe, (uintptr_t)op, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, 0);
}

void io_close_fd(struct io *io, int fd, bool abort)
{
    ASSERT(fd >= 0);
    ASSERT((uint32_t)fd >= io->fds || io->fd_ops[fd] == 0);
    if (abort) { /* fails only where there is nothing to reset */
        struct linger linger = {.l_onoff = 1, .l_linger = 0};

        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    }
#ifdef __SANITIZE_THREAD__ /* watches descriptors by number, and sees close() alone end one */
    close(fd);
#else
    struct io_uring_sqe *sqe = next_sqe(io);

    io_uring_prep_close(sqe, fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, 0);
#endif
}

/* Errors of a connection that died while it was in the backlog: the next one is waiting (accept(2)
 * lists them). */
static bool accept_goes_on(int result)
{
    switch (-result) {
    case EAGAIN:
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

static void on_accept(struct io *io, struct io_op *op, const struct completion *c)
{
    bool cancelled = op->flags & OP_CANCELLED;
    struct io_event event = {.result = c->result, .more = c->flags & IORING_CQE_F_MORE};

    if (!event.more && !cancelled && (c->result >= 0 || accept_goes_on(c->result))) {
        submit_accept(io, op);
        event.more = true;
    }
    if (!event.more)
        finish(io, op, &event);
    else if (c->result >= 0)
        op->on_event(op, &event);
}

static void on_recv(struct io *io, struct io_op *op, const struct completion *c)
{
    struct io_event event = {.result = c->result, .more = c->flags & IORING_CQE_F_MORE};
    bool cancelled = op->flags & OP_CANCELLED, has_buffer = c->flags & IORING_CQE_F_BUFFER;
    uint16_t buffer = (uint16_t)(c->flags >> IORING_CQE_BUFFER_SHIFT);

    if (c->result == -ENOBUFS) {
        ASSERT(!event.more && !has_buffer);
        buffers_want_more(io);
        op->flags |= OP_PARKED;
        list_push_back(cancelled ? &io->cancelled : &io->parked, &op->node);
        return;
    }
    if (!event.more && !cancelled && c->result > 0 && !(op->flags & OP_ONCE)) {
        submit_recv(io, op);
        event.more = true;
    }
    if (has_buffer)
        event.data = buffer_data(io, buffer);
    if (event.more)
        op->on_event(op, &event);
    else
        finish(io, op, &event);
    if (has_buffer)
        buffer_return(io, buffer);
}

/* Drops what was sent from the front of the vector. */
static void iov_advance(struct msghdr *msg, size_t sent)
{
    ASSERT(sent < iov_bytes(msg)); /* something is left to send */
    while (sent >= msg->msg_iov->iov_len) {
        sent -= msg->msg_iov->iov_len;
        msg->msg_iov++;
        msg->msg_iovlen--;
    }
    msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + sent;
    msg->msg_iov->iov_len -= sent;
}

static void on_send(struct io *io, struct io_op *op, const struct completion *c)
{
    size_t bytes = (uintptr_t)op->priv;
    bool full = (op->flags & OP_UNHURRIED) && c->result == -EAGAIN; /* from here on it waits */
    struct io_event event = {.result = full ? 0 : c->result};

    op->flags &= (uint8_t)~OP_UNHURRIED;
    if (event.result >= 0 && (size_t)event.result != bytes) {
        size_t left = iov_bytes(&op->msg) - (size_t)event.result;

        if (left > 0 && !(op->flags & OP_CANCELLED)) {
            iov_advance(&op->msg, (size_t)event.result);
            submit_send(io, op);
            return;
        }
        event.result = left > 0 ? -ECANCELED : (int32_t)bytes;
    }
    finish(io, op, &event);
}

static void on_poll(struct io *io, struct io_op *op, const struct completion *c)
{
    struct io_event event = {.result = c->result};

    if (c->result < 0 || (op->flags & OP_CANCELLED)) {
        finish(io, op, &event);
        return;
    }
    submit_poll(io, op);
    event.more = true;
    op->on_event(op, &event);
}

static void dispatch(struct io *io, const struct completion *c)
{
    struct io_op *op = c->op;
    struct io_event event;

    if (op == NULL) /* a cancel that came too late, or a close that failed: nobody waits */
        return;
    switch ((enum kind)op->kind) {
    case KIND_ACCEPT:
        on_accept(io, op, c);
        return;
    case KIND_RECV:
        on_recv(io, op, c);
        return;
    case KIND_SEND:
        on_send(io, op, c);
        return;
    case KIND_POLL:
        on_poll(io, op, c);
        return;
    case KIND_CONNECT:
        event = (struct io_event){.result = c->result};
        finish(io, op, &event);
        return;
    case KIND_WAKE:
        if (c->result == -ECANCELED || (op->flags & OP_CANCELLED))
            op->in_flight = 0;
        else
            submit_wake_read(io);
        return;
    }
    ASSERT(false);
}

/* Copies what the kernel has posted behind what the last turn left, so that the kernel's queue is
 * free before any handler runs. */
static void collect(struct io *io)
{
    struct io_uring_cqe *cqe;
    uint32_t left = io->done_len - io->done_at;
    unsigned head, n = 0;

    ASSERT(io->done_at <= io->done_len && io->done_len <= io->done_max);
    memmove(io->done, io->done + io->done_at, left * sizeof(*io->done));
    io_uring_for_each_cqe(&io->ring, head, cqe)
    {
        if (left + n == io->done_max)
            break;
        struct io_op *op = (struct io_op *)(uintptr_t)(cqe->user_data & ~UNHURRIED);

        if (cqe->user_data & UNHURRIED)
            list_remove(&op->node);
        io->done[left + n++] =
            (struct completion){.op = op, .result = cqe->res, .flags = cqe->flags};
    }
    io_uring_cq_advance(&io->ring, n);
    io->done_len = left + n;
    io->done_at = 0;
}

static bool go_on(const struct io *io)
{
    return io->options.go_on == NULL || io->options.go_on(io->options.arg);
}

/* Unhurried sends that the kernel has taken and says nothing of. */
static void end_unhurried(struct io *io)
{
    struct list whole;
    struct list_node *node;

    /* What is not collected yet may say of one that it did not go. */
    if (list_empty(&io->unhurried) || io_uring_sq_ready(&io->ring) > 0 ||
        io_uring_cq_ready(&io->ring) > 0 || io_uring_cq_has_overflow(&io->ring))
        return;
    list_init(&whole);
    list_splice_back(&whole, &io->unhurried);
    while ((node = list_pop_front(&whole)) != NULL) {
        struct io_op *op = LIST_ENTRY(node, struct io_op, node);

        op->flags &= (uint8_t)~OP_UNHURRIED;
        finish(io, op, &(struct io_event){.result = (int32_t)(uintptr_t)op->priv});
    }
}

static void dispatch_all(struct io *io)
{
    struct list cancelled;
    struct list_node *node;

    end_unhurried(io);
    while (io->done_at < io->done_len) {
        uint32_t i = io->done_at++;

        if (i + PREFETCH_AHEAD < io->done_len)
            __builtin_prefetch(io->done[i + PREFETCH_AHEAD].op);
        dispatch(io, &io->done[i]);
        if (!go_on(io))
            break;
    }
    list_init(&cancelled);
    list_splice_back(&cancelled, &io->cancelled);
    while ((node = list_pop_front(&cancelled)) != NULL)
        finish(io, LIST_ENTRY(node, struct io_op, node), &(struct io_event){.result = -ECANCELED});
}

/* Receives that found no buffer start again, oldest first, as many as there are buffers now. */
static void unpark(struct io *io)
{
    for (uint32_t room = buffers_free(io); room > 0; room--) {
        struct list_node *node = list_pop_front(&io->parked);
        struct io_op *op;

        if (node == NULL)
            return;
        op = LIST_ENTRY(node, struct io_op, node);
        op->flags &= (uint8_t)~OP_PARKED;
        submit_recv(io, op);
    }
}

/* How long this turn may sleep. The clock is read anew: handlers of the last turn took time. */
static uint64_t sleep_ns(struct io *io, uint32_t wait_ms_max)
{
    uint64_t limit_ns = (uint64_t)wait_ms_max * NS_PER_MS, now_ns, now_ms, wait_ms, due_ns;

    if (wait_ms_max == 0 || io->done_at < io->done_len || !list_empty(&io->cancelled) ||
        !list_empty(&io->parked))
        return 0;
    if (io->wheel.armed == 0)
        return limit_ns;
    now_ns = clock_mono_ns();
    now_ms = now_ns / NS_PER_MS;
    wait_ms = wheel_wait_ms(&io->wheel, now_ms);
    if (wait_ms >= wait_ms_max + 1ull)
        return limit_ns;
    due_ns = (now_ms + wait_ms) * NS_PER_MS;
    if (due_ns <= now_ns)
        return 0;
    return due_ns - now_ns < limit_ns ? due_ns - now_ns : limit_ns;
}

/* One io_uring_enter(): submits, and waits for a completion, the timeout or io_wake(). */
static int enter(struct io *io, uint64_t wait_ns)
{
    struct __kernel_timespec timeout = {.tv_sec = (long long)(wait_ns / 1000000000),
                                        .tv_nsec = (long long)(wait_ns % 1000000000)};
    struct io_uring_cqe *cqe;
    uint32_t awake = WAKE_AWAKE;
    int rc;

    /* Acquire/release on this word orders the caller's work before io_wake() with on_wake(). */
    if (wait_ns > 0 && !atomic_compare_exchange_strong(&io->shared.wake, &awake, WAKE_ASLEEP))
        wait_ns = 0;
    if (wait_ns > 0)
        rc = io_uring_submit_and_wait_timeout(&io->ring, &cqe, 1, &timeout, NULL);
    else
        rc = io_uring_submit_and_get_events(&io->ring);
    io->woken = atomic_exchange(&io->shared.wake, WAKE_AWAKE) == WAKE_WOKEN;
    /* EAGAIN, EBUSY: short of memory or of room for completions; these are collected now, and the
     * rest of the queue is submitted in the next turn. */
    if (rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY)
        return 0;
    return rc;
}

static void sample_time(struct io *io)
{
    io->now_ns = clock_mono_ns();
    io->wall_ms = clock_wall_ms();
}

int io_turn(struct io *io, uint32_t wait_ms_max)
{
    int rc = enter(io, sleep_ns(io, wait_ms_max));

    if (rc < 0)
        return rc;
    sample_time(io);
    collect(io);
    dispatch_all(io);
    buffers_adapt(io);
    unpark(io);
    wheel_advance(&io->wheel, io->now_ns / NS_PER_MS);
    if (io->woken && io->options.on_wake != NULL)
        io->options.on_wake(io->options.arg);
    if (io->options.on_tick != NULL)
        io->options.on_tick(io->options.arg);
    return 0;
}

void io_wake(struct io *io)
{
    uint64_t one = 1;
    ssize_t written;

    if (atomic_exchange(&io->shared.wake, WAKE_WOKEN) != WAKE_ASLEEP)
        return;
    /* Once per sleep, so the counter cannot fill and the write cannot block or fail. */
    written = write(io->wake_op.fd, &one, sizeof(one));
    (void)written;
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

static int open_ring(struct io *io)
{
    uint32_t entries = io->options.entries;
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CQSIZE,
        .cq_entries = entries * CQES_PER_SQE,
    };
    int rc = io_uring_queue_init_params(entries, &io->ring, &params);

    if (rc < 0)
        return rc;
    io->ring_open = true;
    /* Saves a look-up per enter; works without. */
    (void)io_uring_register_ring_fd(&io->ring);
    io->done_max = params.cq_entries;
    io->done = calloc(io->done_max, sizeof(*io->done));
    return io->done == NULL ? -ENOMEM : 0;
}

static int open_fd_table(struct io *io)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    io->fds = limit.rlim_max < FDS_MAX ? (uint32_t)limit.rlim_max : FDS_MAX;
    io->fd_ops = calloc(io->fds, sizeof(*io->fd_ops)); /* pages appear as descriptors do */
    return io->fd_ops == NULL ? -ENOMEM : 0;
}

static int open_wake(struct io *io)
{
    /* Blocking on purpose: a request on a non-blocking eventfd ends at once with EAGAIN. */
    io->wake_op.fd = eventfd(0, EFD_CLOEXEC);
    if (io->wake_op.fd < 0)
        return -errno;
    io->wake_op.kind = KIND_WAKE;
    io->wake_op.in_flight = 1;
    submit_wake_read(io);
    return 0;
}

int io_open(struct io **out, const struct io_options *options)
{
    struct io *io = aligned_alloc(CACHE_LINE_BYTES, sizeof(*io));
    int rc;

    if (io == NULL)
        return -ENOMEM;
    memset(io, 0, sizeof(*io));
    io->options = *options;
    if (io->options.entries == 0)
        io->options.entries = ENTRIES_DEFAULT;
    if (io->options.buffers == 0)
        io->options.buffers = BUFFERS_DEFAULT;
    if (io->options.buffer_bytes == 0)
        io->options.buffer_bytes = BUFFER_BYTES_DEFAULT;
    io->wake_op.fd = -1;
    list_init(&io->parked);
    list_init(&io->cancelled);
    list_init(&io->unhurried);
    sample_time(io);
    wheel_init(&io->wheel, io->now_ns / NS_PER_MS);
    rc = open_ring(io);
    if (rc == 0)
        rc = buffers_open(io);
    if (rc == 0)
        rc = open_fd_table(io);
    if (rc == 0)
        rc = open_wake(io);
    if (rc < 0) {
        io_close(io);
        return rc;
    }
    *out = io;
    return 0;
}

/* Submits the last closes, and takes the wake-up read back from the kernel: it writes into io. */
static void drain(struct io *io)
{
    struct io_uring_sqe *sqe = next_sqe(io);

    io->options.go_on = NULL;
    dispatch_all(io);
    io->wake_op.flags = OP_CANCELLED; /* also when it has just completed */
    io_uring_prep_cancel64(sqe, (uintptr_t)&io->wake_op, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, 0);
    while (io->wake_op.in_flight != 0) {
        int rc = io_uring_submit_and_wait(&io->ring, 1);

        ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
        collect(io);
        dispatch_all(io);
    }
}

void io_close(struct io *io)
{
    if (io == NULL)
        return;
    ASSERT(io->ops == 0);
    if (io->wake_op.in_flight != 0)
        drain(io);
    if (io->ring_open)
        io_uring_queue_exit(&io->ring);
    buffers_close(io);
    if (io->wake_op.fd >= 0)
        close(io->wake_op.fd);
    free(io->fd_ops);
    free(io->done);
    free(io);
}

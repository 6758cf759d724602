/* The only seam to the kernel for sockets, time and wake-ups. Two implementations of this header:
 * io_uring.c (production) and tests/sim/sim_io.c (simulated network and clock, chosen at link
 * time).
 *
 * Thread: an io belongs to the thread that opened it; only io_wake() may be called from others.
 * Completions: the kernel's are first copied to a FIFO, then dispatched, as many in a turn as
 * go_on() lets; no handler ever runs
 * inside another, nor inside a call of this header. Memory: an io_op is embedded in its owner,
 * which must live until the last event of every op it started (io_op_busy()). Two-phase teardown:
 * cancel, then free on the last completion.
 *
 * Buffers: receives use a provided-buffer ring (an idle session holds none). Event data is valid
 * only inside the handler. When buffers run out receives re-arm by themselves. */
#ifndef HAYAUMA_IO_IO_H
#define HAYAUMA_IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/wheel.h"

struct io;
struct io_op;

struct io_event {
    int32_t result;      /* accept: fd; recv: bytes, 0 = end of stream; send: bytes sent (all);
                            connect: 0; poll: revents; or -errno */
    bool more;           /* multishot: further events follow */
    const uint8_t *data; /* recv only */
};

typedef void io_handler(struct io_op *op, const struct io_event *event);

struct io_op {
    io_handler *on_event; /* set by the owner before starting */
    struct io *io;
    uint32_t in_flight; /* started and last event not yet delivered */
    int fd;
    uint8_t kind; /* private to the implementation from here on */
    uint8_t flags;
    struct msghdr msg;
    void *priv;
    struct list_node node;
};

struct io_options {
    uint32_t entries;           /* submission queue size; 0 = 4096 */
    uint32_t buffers;           /* provided receive buffers, a power of two; 0 = 1024 */
    uint32_t buffer_bytes;      /* size of each; 0 = 32768 */
    void (*on_tick)(void *arg); /* runs once per turn after all handlers and timers; may be NULL */
    void (*on_wake)(void *arg); /* runs in a turn after somebody called io_wake(); may be NULL */
    /* Asked behind each handler of a completion: false leaves the others to the next turn, which
     * does not sleep. May be NULL. */
    bool (*go_on)(void *arg);
    void *arg;
};

/* 0 or -errno. -EPERM/-ENOSYS/-EINVAL here mean that io_uring is off or too old: the caller prints
 * io_why_unavailable(). */
int io_open(struct io **out, const struct io_options *options) MUST_USE;
/* Every op must have ended. NULL is accepted. */
void io_close(struct io *io);
/* What to tell the user when io_open() failed with err (a negative errno): one line, names the
 * sysctl or kernel version to change. */
const char *io_why_unavailable(int err);

/* One turn: submit, wait (not past the next timer, nor longer than wait_ms_max), copy completions,
 * dispatch them, run due timers, on_wake, on_tick. 0 or -errno. */
int io_turn(struct io *io, uint32_t wait_ms_max);
/* Thread-safe, async-signal-safe, cheap when the owner is awake or already woken. */
void io_wake(struct io *io);

/* Time, sampled once per turn. */
uint64_t io_now_ns(const struct io *io); /* monotonic */
int64_t io_wall_ms(const struct io *io); /* since 1970 */
/* The wheel runs on io_now_ns()/1e6. */
struct wheel *io_wheel(struct io *io);
static inline uint64_t io_now_ms(const struct io *io)
{
    return io_now_ns(io) / 1000000;
}

/* Sockets. Return an fd or -errno. All are non-blocking and close-on-exec. */
/* reuse_port: SO_REUSEPORT, so that every worker can have its own listener. AF_UNIX allowed.
 * IPv6 sockets are V6ONLY. The file of a Unix socket that nobody listens on is replaced. */
int io_listen(struct io *io, const struct sockaddr *addr, socklen_t len, int backlog,
              bool reuse_port);
/* Whether io_listen() can have the address to itself, asked before the first of the listeners that
 * share it: SO_REUSEPORT alone would let two processes of one user share it, and each would get
 * some of the other's clients. Waits up to two seconds for the listener of a process that was just
 * killed, so it is for the start. 0 or -errno; 0 for AF_UNIX, where io_listen() says. */
int io_address_free(const struct sockaddr *addr, socklen_t len);
/* Removes the file of a Unix socket that nobody listens on: an earlier process left it, or ours is
 * closed. A connect() to any other file is refused just the same; such a file is somebody's and
 * stays. Not for turns: it may block. */
bool io_remove_stale(const struct sockaddr *addr, socklen_t len);
/* A stream socket for connecting, TCP_NODELAY on, bound to source when that is not NULL. */
int io_stream(struct io *io, int family, const struct sockaddr *source, socklen_t len);
/* Whether this host has a route to addr, from source when that is not NULL. 0 or -errno; a shortage
 * of ours counts as a route. Nothing is sent, nobody is asked. */
int io_route(struct io *io, const struct sockaddr *addr, socklen_t len,
             const struct sockaddr *source, socklen_t source_len);
/* Begins to watch the addresses of this host, or its routes and links. A descriptor for the next
 * call, which io_close_fd() closes; or -errno. */
enum io_watched { IO_ADDRESSES, IO_ROUTES };
int io_watch(struct io *io, enum io_watched what);
/* Whether any came, went or changed since the last call, or may have. */
bool io_watch_news(struct io *io, int fd);
/* Peer and local name of a connected or accepted socket; 0 or -errno. */
int io_peer_name(struct io *io, int fd, struct sockaddr_storage *peer);
int io_local_name(struct io *io, int fd, struct sockaddr_storage *local);
/* What became of what was sent on a connected socket: bytes that the peer's host has acknowledged
 * since the beginning (TCP; elsewhere 0), those that the kernel still has, and of these those that
 * it has not sent yet, not even once (TCP; elsewhere 0). A system call: for a look now and then,
 * not for each send. */
struct io_progress {
    uint64_t taken_bytes, left_bytes, unsent_bytes;
};
void io_send_progress(struct io *io, int fd, struct io_progress *out);
/* Ends our sending: the peer reads the end behind what was sent, and may go on talking. At once; no
 * send may be under way. */
void io_send_end(struct io *io, int fd);
/* Closes asynchronously; every op on fd must have ended. abort: RST instead of FIN. */
void io_close_fd(struct io *io, int fd, bool abort);

/* Operations; each ends with exactly one event that has more == false. They take effect at the next
 * submission of the turn. */
void io_accept(struct io *io, struct io_op *op, int fd); /* multishot */
void io_connect(struct io *io, struct io_op *op, int fd, const struct sockaddr *addr,
                socklen_t len);                        /* addr must live until the event */
void io_recv(struct io *io, struct io_op *op, int fd); /* multishot; ends at 0 or error */
/* Ends with one buffer's bytes: for peers whose input is paused. What a multishot receive brings
 * before a cancel takes effect may be a MiB and more. */
void io_recv_once(struct io *io, struct io_op *op, int fd);
/* Sends everything or fails (short sends continue inside). iov and its bytes must live until the
 * event. */
void io_send(struct io *io, struct io_op *op, int fd, struct iovec *iov, size_t iov_len);
/* The same for a send whose end nobody waits for: its event ends no sleep, but comes in the next
 * turn, before the events of that turn. A turn that only hears of sends is spared so. Where the
 * socket has no room, or there is much to send, it is a send as any. */
void io_send_unhurried(struct io *io, struct io_op *op, int fd, struct iovec *iov, size_t iov_len);
/* Somebody waits for op's end after all: the turn that comes does not sleep. */
void io_hurry(struct io *io, struct io_op *op);
/* Level-triggered: an event per turn for as long as fd is ready, until cancelled. POLLERR, POLLHUP
 * and POLLRDHUP are always reported. */
void io_poll(struct io *io, struct io_op *op, int fd, uint32_t poll_events);
/* Asks op to end early; its last event comes later (-ECANCELED or its natural result). Does nothing
 * when the op is not in flight. */
void io_cancel(struct io *io, struct io_op *op);

static inline bool io_op_busy(const struct io_op *op)
{
    return op->in_flight != 0;
}

#endif

/* Private to engine/io: the state of one io_uring-backed io and its receive buffers.
 * Owned by the thread that opened it; only the shared sub-struct is touched by others. */
#ifndef HAYAUMA_IO_URING_H
#define HAYAUMA_IO_URING_H

#include <liburing.h>
#include <stdatomic.h>

#include "base/ring.h"
#include "io/io.h"

#define BUFFER_GROUP    0
#define IOV_MAX_ENTRIES 1024 /* the kernel's UIO_MAXIOV */

enum kind { KIND_ACCEPT = 1, KIND_CONNECT, KIND_RECV, KIND_SEND, KIND_POLL, KIND_WAKE };
enum wake { WAKE_AWAKE, WAKE_ASLEEP, WAKE_WOKEN };

/* What is kept of a completion queue entry. */
struct completion {
    struct io_op *op; /* NULL: nobody waits for it */
    int32_t result;
    uint32_t flags;
};

/* Receive buffers. The kernel takes them from its ring in order, so all that are in circulation are
 * walked through, and their number decides whether receives stay in the CPU's cache. So only as
 * many circulate as the load needs; the others are spare, the last used on top. */
struct buffers {
    struct io_uring_buf_ring *ring;
    uint8_t *data;
    uint16_t *spare;
    uint32_t spare_len;
    uint32_t circulating; /* in the kernel's ring or in completions */
    uint32_t target;      /* how many should circulate */
    uint32_t used;        /* returned in this turn: a turn's completions */
    uint32_t used_max;    /* since the target was last looked at */
    uint64_t adapted_ns;  /* when the target was last looked at */
};

struct io {
    struct io_uring ring;
    struct io_options options;
    uint64_t now_ns;
    int64_t wall_ms;
    struct completion *done; /* completions: those before done_at are dispatched */
    uint32_t done_at, done_len, done_max;
    uint32_t fds;
    uint8_t *fd_ops; /* ops in flight per descriptor */
    size_t ops;      /* ops in flight, the wake-up's excluded */
    struct buffers buffers;
    struct list parked;    /* receives that wait for a buffer, oldest first */
    struct list cancelled; /* cancelled while parked: end in the next dispatch */
    struct list unhurried; /* sends that went whole, unless a completion says otherwise */
    struct io_op wake_op;
    uint64_t wake_count;
    bool woken;
    bool ring_open;
    struct wheel wheel;
    /* Written by every thread that calls io_wake(): a line of its own. The exchange orders what the
     * waker wrote before the wake-up with what on_wake() reads. */
    struct {
        _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t wake; /* enum wake */
    } shared;
};

int buffers_open(struct io *io) MUST_USE;
void buffers_close(struct io *io);
/* A receive found none: more must circulate. */
void buffers_want_more(struct io *io);
/* Once a turn: fewer circulate when the load has fallen. */
void buffers_adapt(struct io *io);
void buffer_return(struct io *io, uint16_t index);

static inline uint8_t *buffer_data(const struct io *io, uint16_t index)
{
    return io->buffers.data + (size_t)index * io->options.buffer_bytes;
}

/* Valid between dispatches: handlers keep none. */
static inline uint32_t buffers_free(const struct io *io)
{
    return io->buffers.circulating;
}

#endif

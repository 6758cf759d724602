/* What the tests of io share: an op that counts its events, and plain sockets as its peers.
 * Every wait has a limit, so that a lost event is a failure and no hang. */
#ifndef HAYAUMA_IO_PROBE_H
#define HAYAUMA_IO_PROBE_H

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "io/uring.h"

#define LIMIT_NS 20000000000ull

/* An op and what came of it. */
struct probe {
    struct io_op op;
    struct iovec iov[4];
    int32_t last;      /* result of the last event */
    uint32_t events;   /* in all */
    uint32_t ends;     /* events with more == false */
    uint64_t bytes;    /* received */
    uint32_t checksum; /* of what was received, order matters */
    int fds[600];      /* accepted */
    uint32_t fds_len;
};

static struct io *io; /* the one under test */
static uint32_t wakes;

static inline void on_wake(void *arg)
{
    (void)arg;
    wakes++;
}

static inline void open_io(uint32_t entries, uint32_t buffers, uint32_t buffer_bytes)
{
    struct io_options options = {
        .entries = entries, .buffers = buffers, .buffer_bytes = buffer_bytes, .on_wake = on_wake};
    int rc = io_open(&io, &options);

    if (rc < 0)
        fail_msg("%s", io_why_unavailable(rc));
    wakes = 0;
}

static inline void close_io(void)
{
    assert_int_equal(io->ops, 0);
    assert_true(list_empty(&io->parked) && list_empty(&io->cancelled));
    assert_true(list_empty(&io->unhurried));
    assert_int_equal(io->buffers.spare_len + io->buffers.circulating, io->options.buffers);
    io_close(io);
    io = NULL;
}

static inline uint32_t hash_more(uint32_t hash, const uint8_t *p, size_t n)
{
    for (; n > 0; n--)
        hash = (hash ^ *p++) * 16777619u;
    return hash;
}

static inline void on_probe(struct io_op *op, const struct io_event *event)
{
    struct probe *p = CONTAINER_OF(op, struct probe, op);

    assert_int_equal(p->ends, 0); /* nothing follows the last event */
    p->last = event->result;
    p->events++;
    p->ends += !event->more;
    assert_int_equal(io_op_busy(op), event->more);
    if (op->kind == KIND_RECV && event->result > 0) {
        assert_non_null(event->data);
        p->bytes += (uint64_t)event->result;
        p->checksum = hash_more(p->checksum, event->data, (size_t)event->result);
    }
    if (op->kind == KIND_ACCEPT && event->result >= 0) {
        assert_true(p->fds_len < ARRAY_LEN(p->fds));
        p->fds[p->fds_len++] = event->result;
    }
}

static inline struct probe *new_probe(void)
{
    struct probe *p = calloc(1, sizeof(*p));

    p->op.on_event = on_probe;
    return p;
}

/* Turns until the condition holds. */
#define RUN_UNTIL(condition)                                                                       \
    do {                                                                                           \
        uint64_t limit_ns = clock_mono_ns() + LIMIT_NS;                                            \
        while (!(condition)) {                                                                     \
            assert_true(clock_mono_ns() < limit_ns);                                               \
            assert_int_equal(io_turn(io, 1000), 0);                                                \
        }                                                                                          \
    } while (0)

static inline void turns(int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(io_turn(io, 0), 0);
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline int listen_any(struct sockaddr_in *addr, int backlog)
{
    struct sockaddr_storage local;
    int fd;

    *addr = loopback(0);
    fd = io_listen(io, (struct sockaddr *)addr, sizeof(*addr), backlog, true);
    assert_true(fd >= 0);
    assert_int_equal(io_local_name(io, fd, &local), 0);
    memcpy(addr, &local, sizeof(*addr));
    return fd;
}

/* A plain blocking client, to be the kernel's and not our idea of a peer. */
static inline int plain_client(const struct sockaddr_in *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)), 0);
    return fd;
}

/* A connected pair: fds[0] is non-blocking for the io, fds[1] a plain blocking peer. */
static inline void tcp_pair(int fds[2])
{
    struct sockaddr_in addr;
    int listener = listen_any(&addr, 1);

    fds[1] = plain_client(&addr);
    fds[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    for (int i = 0; fds[0] < 0 && errno == EAGAIN && i < 1000; i++) {
        usleep(1000);
        fds[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    assert_true(fds[0] >= 0);
    close(listener);
}

static inline uint8_t *pattern(size_t n)
{
    uint8_t *bytes = malloc(n);

    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 251);
    return bytes;
}

#endif

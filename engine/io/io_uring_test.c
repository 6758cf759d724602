/* Operations, timers and wake-ups on real sockets. */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/un.h>

#include "io/probe.h"

static void test_accept_burst(void **state)
{
    enum { CLIENTS = 300 };
    struct probe *acceptor = new_probe();
    int clients[CLIENTS], listener, on = 0;
    socklen_t len = sizeof(on);
    struct sockaddr_in addr;
    struct sockaddr_storage peer, local;

    (void)state;
    open_io(0, 0, 0);
    listener = listen_any(&addr, 512);
    io_accept(io, &acceptor->op, listener);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = plain_client(&addr);
    RUN_UNTIL(acceptor->fds_len == CLIENTS);
    assert_int_equal(acceptor->ends, 0);
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(fcntl(acceptor->fds[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(acceptor->fds[i], F_GETFD) & FD_CLOEXEC);
    }
    assert_int_equal(getsockopt(acceptor->fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_true(on);
    assert_int_equal(io_peer_name(io, acceptor->fds[0], &peer), 0);
    len = sizeof(local);
    assert_int_equal(getsockname(clients[0], (struct sockaddr *)&local, &len), 0);
    assert_memory_equal(&peer, &local, sizeof(struct sockaddr_in));

    io_cancel(io, &acceptor->op);
    RUN_UNTIL(acceptor->ends == 1);
    assert_int_equal(acceptor->last, -ECANCELED);
    for (int i = 0; i < CLIENTS; i++) {
        io_close_fd(io, acceptor->fds[i], false);
        close(clients[i]);
    }
    io_close_fd(io, listener, false);
    close_io();
    assert_int_equal(fcntl(listener, F_GETFD), -1); /* io_close() has submitted the closes */
    free(acceptor);
}

static void test_connect_refused(void **state)
{
    struct probe *connector = new_probe();
    struct sockaddr_in addr;
    int fd;

    (void)state;
    open_io(0, 0, 0);
    close(listen_any(&addr, 1)); /* a port where nobody listens now */
    fd = io_stream(io, AF_INET, NULL, 0);
    io_connect(io, &connector->op, fd, (struct sockaddr *)&addr, sizeof(addr));
    RUN_UNTIL(connector->ends == 1);
    assert_int_equal(connector->last, -ECONNREFUSED);
    io_close_fd(io, fd, false);
    close_io();
    free(connector);
}

static void test_source_address(void **state)
{
    struct probe *connector = new_probe();
    struct sockaddr_in addr, source = loopback(0);
    struct sockaddr_storage local;
    int listener, fd;

    (void)state;
    open_io(0, 0, 0);
    listener = listen_any(&addr, 1);
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 8);
    fd = io_stream(io, AF_INET, (struct sockaddr *)&source, sizeof(source));
    assert_true(fd >= 0);
    io_connect(io, &connector->op, fd, (struct sockaddr *)&addr, sizeof(addr));
    RUN_UNTIL(connector->ends == 1);
    assert_int_equal(connector->last, 0);
    assert_int_equal(io_local_name(io, fd, &local), 0);
    assert_int_equal(((struct sockaddr_in *)&local)->sin_addr.s_addr, source.sin_addr.s_addr);
    io_close_fd(io, fd, false);
    io_close_fd(io, listener, false);

    source.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1 is not ours */
    assert_int_equal(io_stream(io, AF_INET, (struct sockaddr *)&source, sizeof(source)),
                     -EADDRNOTAVAIL);
    close_io();
    free(connector);
}

/* One io at both ends: sends far larger than the socket buffers meet receives of few small ones. */
static void run_large(int family, const char *path)
{
    enum { BYTES = 3000000 };
    struct probe *acceptor = new_probe(), *connector = new_probe(), *sender = new_probe(),
                 *receiver = new_probe();
    uint8_t *bytes = pattern(BYTES);
    struct sockaddr_un unix_addr = {.sun_family = AF_UNIX};
    struct sockaddr_in in_addr;
    struct sockaddr *addr = (struct sockaddr *)&unix_addr;
    socklen_t len = sizeof(unix_addr);
    struct io_progress progress;
    int listener, fd;

    open_io(8, 8, 512);
    if (family == AF_UNIX) {
        strcpy(unix_addr.sun_path, path);
        listener = io_listen(io, addr, len, 5, true);
    } else {
        listener = listen_any(&in_addr, 5);
        addr = (struct sockaddr *)&in_addr;
        len = sizeof(in_addr);
    }
    assert_true(listener >= 0);
    io_accept(io, &acceptor->op, listener);
    fd = io_stream(io, family, NULL, 0);
    io_connect(io, &connector->op, fd, addr, len);
    RUN_UNTIL(connector->ends == 1 && acceptor->fds_len == 1);
    assert_int_equal(connector->last, 0);

    sender->iov[0] = (struct iovec){bytes, 1};
    sender->iov[1] = (struct iovec){NULL, 0};
    sender->iov[2] = (struct iovec){bytes + 1, 999999};
    sender->iov[3] = (struct iovec){bytes + 1000000, BYTES - 1000000};
    io_send(io, &sender->op, fd, sender->iov, 4);
    assert_int_equal(io_turn(io, 10), 0);
    io_send_progress(io, fd, &progress);
    assert_true(progress.left_bytes > 0 && progress.taken_bytes < BYTES);
    assert_true(progress.unsent_bytes <= progress.left_bytes);
    assert_true((progress.unsent_bytes > 0) == (family != AF_UNIX)); /* the peer's window is full */
    io_recv(io, &receiver->op, acceptor->fds[0]);
    RUN_UNTIL(sender->ends == 1);
    assert_int_equal(sender->last, BYTES);
    RUN_UNTIL(receiver->bytes == BYTES);
    io_send_progress(io, fd, &progress);
    assert_int_equal(progress.left_bytes, 0);
    assert_int_equal(progress.unsent_bytes, 0);
    if (family == AF_UNIX)
        assert_int_equal(progress.taken_bytes, 0);
    else
        assert_true(progress.taken_bytes >= BYTES);
    io_close_fd(io, fd, false);
    RUN_UNTIL(receiver->ends == 1);
    assert_int_equal(receiver->last, 0); /* end of stream */
    assert_int_equal(receiver->bytes, BYTES);
    assert_int_equal(receiver->checksum, hash_more(0, bytes, BYTES));
    io_cancel(io, &acceptor->op);
    RUN_UNTIL(acceptor->ends == 1);
    io_close_fd(io, acceptor->fds[0], false);
    io_close_fd(io, listener, false);
    close_io();
    free(bytes);
    free(acceptor);
    free(connector);
    free(sender);
    free(receiver);
}

/* The file of a Unix socket that nobody listens on is replaced; any other file is somebody's. */
static void test_unix_file(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct sockaddr *generic = (struct sockaddr *)&addr;
    FILE *file;
    int fd;

    (void)state;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "io_uring_test.%d", (int)getpid());
    open_io(8, 8, 512);
    file = fopen(addr.sun_path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(io_listen(io, generic, sizeof(addr), 5, false), -EADDRINUSE);
    assert_int_equal(access(addr.sun_path, F_OK), 0);
    assert_int_equal(unlink(addr.sun_path), 0);
    for (int i = 0; i < 2; i++) { /* the second finds what the first one left */
        fd = io_listen(io, generic, sizeof(addr), 5, false);
        assert_true(fd >= 0);
        close(fd);
    }
    fd = io_listen(io, generic, sizeof(addr), 5, false);
    assert_false(io_remove_stale(generic, sizeof(addr))); /* somebody listens */
    close(fd);
    assert_true(io_remove_stale(generic, sizeof(addr)));
    assert_int_equal(access(addr.sun_path, F_OK), -1);
    close_io();
}

/* SO_REUSEPORT is for the listeners of one process: others' make the address taken. */
static void test_address_free(void **state)
{
    struct sockaddr_in addr;
    struct sockaddr *generic = (struct sockaddr *)&addr;
    int first, second;

    (void)state;
    open_io(8, 8, 512);
    first = listen_any(&addr, 5);
    assert_true(first >= 0);
    assert_int_equal(io_address_free(generic, sizeof(addr)), -EADDRINUSE);
    second = io_listen(io, generic, sizeof(addr), 5, true);
    assert_true(second >= 0);
    close(first);
    close(second);
    assert_int_equal(io_address_free(generic, sizeof(addr)), 0);
    close_io();
}

static void test_large_tcp(void **state)
{
    (void)state;
    run_large(AF_INET, NULL);
}

static void test_large_unix(void **state)
{
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "/tmp/io_uring_test.%d", getpid());
    unlink(path);
    run_large(AF_UNIX, path);
    unlink(path);
}

static void test_abort_is_reset(void **state)
{
    struct probe *sender = new_probe();
    int fds[2];
    char byte;

    (void)state;
    open_io(0, 0, 0);
    tcp_pair(fds);
    io_close_fd(io, fds[0], true);
    turns(2);
    assert_int_equal(recv(fds[1], &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fds[1]);

    /* And without abort: a clean end. */
    tcp_pair(fds);
    io_close_fd(io, fds[0], false);
    turns(2);
    assert_int_equal(recv(fds[1], &byte, 1, 0), 0);
    close(fds[1]);
    close_io();
    free(sender);
}

/* The peer takes a part and resets: the result is the error and never a part. */
static void test_send_to_dying_peer(void **state)
{
    enum { BYTES = 8000000 };
    static const struct linger reset = {1, 0};
    uint8_t *bytes = pattern(BYTES);

    (void)state;
    open_io(0, 0, 0);
    for (size_t parts = 1; parts <= 2; parts++) {
        struct probe *sender = new_probe();
        char sunk[100000];
        int fds[2];

        tcp_pair(fds);
        sender->iov[0] = (struct iovec){bytes, BYTES / parts};
        sender->iov[1] = (struct iovec){bytes, BYTES / parts};
        io_send(io, &sender->op, fds[0], sender->iov, parts);
        turns(3);
        assert_true(recv(fds[1], sunk, sizeof(sunk), 0) > 0);
        turns(3);
        assert_int_equal(sender->ends, 0);
        setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(fds[1]);
        RUN_UNTIL(sender->ends == 1);
        assert_true(sender->last == -ECONNRESET || sender->last == -EPIPE);
        io_close_fd(io, fds[0], false);
        free(sender);
    }
    close_io();
    free(bytes);
}

/* Its end ends no sleep and comes with the next turn; unless somebody asks for it. */
static void test_send_unhurried(void **state)
{
    struct probe *sender = new_probe();
    uint64_t before_ns;
    char got[8];
    int fds[2];

    (void)state;
    open_io(0, 0, 0);
    tcp_pair(fds);
    sender->iov[0] = (struct iovec){"220 ", 4};
    sender->iov[1] = (struct iovec){"x\r\n", 3};
    for (uint32_t pieces = 1; pieces <= 2; pieces++) {
        io_send_unhurried(io, &sender->op, fds[0], sender->iov, pieces);
        before_ns = clock_mono_ns();
        assert_int_equal(io_turn(io, 30), 0);
        assert_true(clock_mono_ns() - before_ns >= 29000000);
        assert_int_equal(sender->ends, 1);
        assert_int_equal(sender->last, pieces == 1 ? 4 : 7);
        assert_int_equal(recv(fds[1], got, sizeof(got), 0), sender->last);
        assert_memory_equal(got, "220 x\r\n", (size_t)sender->last);
        sender->ends = 0;
    }
    for (int cancel = 0; cancel <= 1; cancel++) {
        io_send_unhurried(io, &sender->op, fds[0], sender->iov, 2);
        (cancel ? io_cancel : io_hurry)(io, &sender->op);
        before_ns = clock_mono_ns();
        assert_int_equal(io_turn(io, 10000), 0);
        assert_true(clock_mono_ns() - before_ns < 5000000000);
        assert_int_equal(sender->ends, 1);
        assert_int_equal(sender->last, 7);
        assert_int_equal(recv(fds[1], got, sizeof(got), 0), 7);
        sender->ends = 0;
    }
    io_close_fd(io, fds[0], false);
    close(fds[1]);
    close_io();
    free(sender);
}

/* What the socket has no room for, or for a part, waits as any send; and the end of the peer is an
 * error. */
static void test_send_unhurried_waits(void **state)
{
    enum { BYTES = 16384, SENDS = 2000 };
    uint8_t *bytes = pattern(BYTES), *got = malloc(BYTES);

    (void)state;
    open_io(0, 0, 0);
    for (int full = 0; full <= 1; full++) {
        struct probe *sender = new_probe();
        ssize_t before = 0, n;
        int fds[2];

        tcp_pair(fds);
        while (full && (n = send(fds[0], bytes, BYTES, MSG_DONTWAIT)) > 0)
            before += n;
        for (int i = 0; i < SENDS; i++) {
            sender->iov[0] = (struct iovec){bytes, 1};
            sender->iov[1] = (struct iovec){bytes + 1, BYTES - 1};
            io_send_unhurried(io, &sender->op, fds[0], sender->iov, 2);
            turns(2);
            if (sender->ends == 0)
                break;
            assert_int_equal(sender->last, BYTES);
            sender->ends = 0;
            before += BYTES;
        }
        assert_true(io_op_busy(&sender->op));
        while (before > 0) {
            n = recv(fds[1], got, before < BYTES ? (size_t)before : BYTES, 0);
            assert_true(n > 0);
            before -= n;
            turns(1);
        }
        RUN_UNTIL(sender->ends == 1);
        assert_int_equal(sender->last, BYTES);
        assert_int_equal(recv(fds[1], got, BYTES, MSG_WAITALL), BYTES);
        assert_memory_equal(got, bytes, BYTES);
        assert_int_equal(recv(fds[1], got, 1, MSG_DONTWAIT), -1);

        close(fds[1]);
        for (int i = 0; i < 1000 && sender->last >= 0; i++) {
            sender->ends = 0;
            sender->iov[0] = (struct iovec){bytes, 1};
            io_send_unhurried(io, &sender->op, fds[0], sender->iov, 1);
            RUN_UNTIL(sender->ends == 1);
        }
        assert_true(sender->last == -ECONNRESET || sender->last == -EPIPE);
        io_close_fd(io, fds[0], false);
        free(sender);
    }
    close_io();
    free(bytes);
    free(got);
}

static void test_recv_reset(void **state)
{
    static const struct linger reset = {1, 0};
    struct probe *receiver = new_probe();
    int fds[2];

    (void)state;
    open_io(0, 0, 0);
    tcp_pair(fds);
    io_recv(io, &receiver->op, fds[0]);
    turns(1);
    setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fds[1]);
    RUN_UNTIL(receiver->ends == 1);
    assert_int_equal(receiver->last, -ECONNRESET);
    io_close_fd(io, fds[0], false);
    close_io();
    free(receiver);
}

/* One buffer's bytes, however many there are; then the op is its owner's again. */
static void test_recv_once(void **state)
{
    struct probe *receiver = new_probe();
    uint8_t *bytes = pattern(10000);
    int fds[2];

    (void)state;
    open_io(0, 8, 4096);
    tcp_pair(fds);
    assert_int_equal(send(fds[1], bytes, 10000, 0), 10000);
    for (uint32_t round = 1; round <= 3; round++) {
        receiver->ends = 0;
        io_recv_once(io, &receiver->op, fds[0]);
        RUN_UNTIL(receiver->ends == 1);
        assert_int_equal(receiver->bytes, round < 3 ? round * 4096 : 10000);
        turns(2);
        assert_false(io_op_busy(&receiver->op));
    }
    receiver->ends = 0;
    io_recv_once(io, &receiver->op, fds[0]);
    close(fds[1]);
    RUN_UNTIL(receiver->ends == 1);
    assert_int_equal(receiver->last, 0);
    io_close_fd(io, fds[0], false);
    close_io();
    free(receiver);
    free(bytes);
}

/* Cancels before and after the submission; twice; and of an op that has just ended. */
static void test_cancel(void **state)
{
    enum { BYTES = 8000000 };
    uint8_t *bytes = pattern(BYTES);

    (void)state;
    open_io(0, 0, 0);
    for (int submitted = 0; submitted < 2; submitted++) {
        struct probe *receiver = new_probe(), *sender = new_probe(), *poller = new_probe(),
                     *acceptor = new_probe();
        struct sockaddr_in addr;
        int fds[2], listener;

        tcp_pair(fds);
        listener = listen_any(&addr, 1);
        sender->iov[0] = (struct iovec){bytes, BYTES};
        io_recv(io, &receiver->op, fds[0]);
        io_send(io, &sender->op, fds[0], sender->iov, 1);
        io_poll(io, &poller->op, fds[1], POLLPRI);
        io_accept(io, &acceptor->op, listener);
        if (submitted)
            turns(2);
        for (int twice = 0; twice < 2; twice++) {
            io_cancel(io, &receiver->op);
            io_cancel(io, &sender->op);
            io_cancel(io, &poller->op);
            io_cancel(io, &acceptor->op);
        }
        RUN_UNTIL(receiver->ends && sender->ends && poller->ends && acceptor->ends);
        assert_int_equal(receiver->last, -ECANCELED);
        assert_int_equal(sender->last, -ECANCELED);
        assert_int_equal(poller->last, -ECANCELED);
        assert_int_equal(acceptor->last, -ECANCELED);
        io_cancel(io, &receiver->op); /* over: does nothing */
        turns(2);
        io_close_fd(io, fds[0], true);
        io_close_fd(io, listener, false);
        close(fds[1]);
        free(receiver);
        free(sender);
        free(poller);
        free(acceptor);
    }
    close_io();
    free(bytes);
}

/* A listener whose backlog is full lets a connect hang. */
static void test_cancel_connect(void **state)
{
    enum { TRIES = 8 };
    struct probe *connectors[TRIES];
    int fds[TRIES], listener, hanging = 0;
    struct sockaddr_in addr;

    (void)state;
    open_io(0, 0, 0);
    listener = listen_any(&addr, 0);
    for (int i = 0; i < TRIES; i++) {
        connectors[i] = new_probe();
        fds[i] = io_stream(io, AF_INET, NULL, 0);
        io_connect(io, &connectors[i]->op, fds[i], (struct sockaddr *)&addr, sizeof(addr));
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(io_turn(io, 1), 0);
    for (int i = 0; i < TRIES; i++) {
        hanging += io_op_busy(&connectors[i]->op);
        io_cancel(io, &connectors[i]->op);
    }
    assert_true(hanging > 0);
    for (int i = 0; i < TRIES; i++) {
        RUN_UNTIL(connectors[i]->ends == 1);
        assert_true(connectors[i]->last == 0 || connectors[i]->last == -ECANCELED);
        io_close_fd(io, fds[i], true);
        free(connectors[i]);
    }
    io_close_fd(io, listener, false);
    close_io();
}

/* The owner of an op that ended frees it and starts another one at the same place, after a cancel
 * of the first was queued: the second must not be hit. */
static void test_cancel_then_reuse(void **state)
{
    struct probe *p = new_probe();
    int fds[2];

    (void)state;
    open_io(0, 0, 0);
    tcp_pair(fds);
    io_recv(io, &p->op, fds[0]);
    turns(1);
    shutdown(fds[1], SHUT_WR);
    io_cancel(io, &p->op);
    RUN_UNTIL(p->ends == 1);
    memset(p, 0, sizeof(*p));
    p->op.on_event = on_probe;
    io_poll(io, &p->op, fds[1], POLLPRI);
    turns(3);
    assert_int_equal(p->events, 0);
    io_cancel(io, &p->op);
    RUN_UNTIL(p->ends == 1);
    io_close_fd(io, fds[0], false);
    close(fds[1]);
    close_io();
    free(p);
}

static int poll_pipe[2], poll_reads;

/* Reads one byte an event: level-triggered means that the rest makes another event. */
static void on_readable(struct io_op *op, const struct io_event *event)
{
    char byte;

    if (!event->more)
        return;
    assert_true(event->result & POLLIN);
    assert_int_equal(read(op->fd, &byte, 1), 1);
    if (++poll_reads == 20)
        io_cancel(op->io, op);
}

static void test_poll_is_level_triggered(void **state)
{
    struct io_op op = {.on_event = on_readable};

    (void)state;
    open_io(0, 0, 0);
    poll_reads = 0;
    assert_int_equal(pipe2(poll_pipe, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(write(poll_pipe[1], "0123456789", 10), 10);
    io_poll(io, &op, poll_pipe[0], POLLIN);
    RUN_UNTIL(poll_reads == 10);
    turns(3);
    assert_int_equal(poll_reads, 10);
    assert_int_equal(write(poll_pipe[1], "0123456789", 10), 10);
    RUN_UNTIL(!io_op_busy(&op));
    assert_int_equal(poll_reads, 20);
    close(poll_pipe[0]);
    close(poll_pipe[1]);
    close_io();
}

struct handover {
    struct ring ring;
    struct io *io;
    uint32_t items;
};

static void *hand_over(void *arg)
{
    struct handover *h = arg;

    for (uintptr_t i = 1; i <= h->items; i++) {
        while (!ring_push(&h->ring, (void *)i))
            sched_yield();
        io_wake(h->io);
        if (i % 64 == 0)
            usleep((useconds_t)(i % 7 *
                                20)); /* lets the other side fall asleep at different moments */
    }
    return NULL;
}

static struct handover handover;
static uintptr_t taken;

static void take_all(void *arg)
{
    struct handover *h = arg;
    void *item;

    while ((item = ring_pop(&h->ring)) != NULL)
        assert_int_equal((uintptr_t)item, ++taken);
}

/* No wake-up is lost: with one lost the consumer would sleep its 10 s and the test its limit. */
static void test_wake(void **state)
{
    struct io_options options = {.on_wake = take_all, .arg = &handover};
    uint64_t limit_ns = clock_mono_ns() + LIMIT_NS;
    pthread_t producer;

    (void)state;
    taken = 0;
    assert_int_equal(io_open(&io, &options), 0);
    assert_int_equal(ring_init(&handover.ring, 256), 0);
    handover.io = io;
    handover.items = 20000;
    assert_int_equal(pthread_create(&producer, NULL, hand_over, &handover), 0);
    while (taken < handover.items) {
        uint64_t slept_ns = clock_mono_ns();

        assert_int_equal(io_turn(io, 10000), 0);
        assert_true(clock_mono_ns() - slept_ns < 9000000000ull);
        assert_true(clock_mono_ns() < limit_ns);
    }
    pthread_join(producer, NULL);
    ring_done(&handover.ring);
    close_io();
}

/* Awake: a flag and no more. Several wake-ups are one, and none is left behind. */
static void test_wake_self(void **state)
{
    (void)state;
    open_io(0, 0, 0);
    turns(1);
    io_wake(io);
    io_wake(io);
    assert_int_equal(io_turn(io, 60000), 0); /* does not sleep */
    assert_int_equal(wakes, 1);
    assert_int_equal(io_turn(io, 1), 0);
    assert_int_equal(wakes, 1);
    close_io();
}

struct alarm {
    struct timer timer;
    uint64_t fired_ns;
};

static void on_alarm(struct timer *timer)
{
    CONTAINER_OF(timer, struct alarm, timer)->fired_ns = io_now_ns(io);
}

static void test_timers(void **state)
{
    static const uint64_t after_ms[] = {0, 1, 2, 5, 17, 64, 65, 130, 200};
    struct alarm alarms[ARRAY_LEN(after_ms)] = {0};
    uint64_t start_ms, turns_taken = 0;

    (void)state;
    open_io(0, 0, 0);
    turns(1);
    start_ms = io_now_ms(io);
    for (size_t i = 0; i < ARRAY_LEN(after_ms); i++) {
        alarms[i].timer.on_timer = on_alarm;
        wheel_arm(io_wheel(io), &alarms[i].timer, start_ms + after_ms[i]);
    }
    while (alarms[ARRAY_LEN(after_ms) - 1].fired_ns == 0) {
        assert_int_equal(io_turn(io, 5000), 0);
        turns_taken++;
    }
    for (size_t i = 0; i < ARRAY_LEN(after_ms); i++) {
        assert_true(alarms[i].fired_ns >= (start_ms + after_ms[i]) * 1000000); /* never early */
        assert_true(alarms[i].fired_ns < (start_ms + after_ms[i] + 1000) * 1000000);
    }
    assert_true(turns_taken < 40); /* it slept */
    assert_true(llabs(io_wall_ms(io) - clock_wall_ms()) < 1000);
    close_io();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_burst),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_source_address),
        cmocka_unit_test(test_large_tcp),
        cmocka_unit_test(test_large_unix),
        cmocka_unit_test(test_unix_file),
        cmocka_unit_test(test_address_free),
        cmocka_unit_test(test_abort_is_reset),
        cmocka_unit_test(test_send_to_dying_peer),
        cmocka_unit_test(test_send_unhurried),
        cmocka_unit_test(test_send_unhurried_waits),
        cmocka_unit_test(test_recv_reset),
        cmocka_unit_test(test_recv_once),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_connect),
        cmocka_unit_test(test_cancel_then_reuse),
        cmocka_unit_test(test_poll_is_level_triggered),
        cmocka_unit_test(test_wake),
        cmocka_unit_test(test_wake_self),
        cmocka_unit_test(test_timers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

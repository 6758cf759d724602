/* Completions that a test cannot make a kernel produce at will, put in its place: short sends,
 * connections that died in the backlog, multishots that ended without a reason. */
#include "io/io_uring.c" /* its static functions; the library's copy is then not linked */
#include "io/probe.h"

/* A turn in which the completion of op is changed before anybody sees it. */
static void turn_with(struct io_op *op, int32_t result)
{
    uint64_t limit_ns = clock_mono_ns() + LIMIT_NS;
    bool changed = false;

    while (!changed) {
        assert_true(clock_mono_ns() < limit_ns);
        assert_int_equal(enter(io, 1000000), 0);
        collect(io);
        for (uint32_t i = 0; i < io->done_len && !changed; i++) {
            if (io->done[i].op != op)
                continue;
            io->done[i].result = result;
            changed = true;
        }
        dispatch_all(io);
    }
}

static void read_exactly(int fd, const char *want, size_t n)
{
    char got[256];

    assert_int_equal(recv(fd, got, n, MSG_WAITALL), n);
    assert_memory_equal(got, want, n);
}

/* The kernel says that only a part was sent: exactly the rest follows, and the result is the whole.
 * (It did send all, so the peer sees the rest twice.) */
static void test_short_sends(void **state)
{
    static const char message[] = "MAIL FROM:<a@example.org>";
    enum { BYTES = sizeof(message) - 1 };

    (void)state;
    open_io(0, 0, 0);
    for (size_t cut = 0; cut < BYTES; cut++) {
        struct probe *sender = new_probe();
        int fds[2];

        tcp_pair(fds);
        sender->iov[0] = (struct iovec){(void *)(uintptr_t)message, 4};
        sender->iov[1] = (struct iovec){NULL, 0};
        sender->iov[2] = (struct iovec){(void *)(uintptr_t)(message + 4), BYTES - 5};
        sender->iov[3] = (struct iovec){(void *)(uintptr_t)(message + BYTES - 1), 1};
        io_send(io, &sender->op, fds[0], sender->iov, 4);
        turn_with(&sender->op, (int32_t)cut);
        assert_int_equal(sender->events, 0);
        RUN_UNTIL(sender->ends == 1);
        assert_int_equal(sender->last, BYTES);
        read_exactly(fds[1], message, BYTES);
        read_exactly(fds[1], message + cut, BYTES - cut);
        io_close_fd(io, fds[0], false);
        turns(1);
        assert_int_equal(recv(fds[1], sender, 1, 0), 0); /* and nothing else */
        close(fds[1]);
        free(sender);
    }
    close_io();
}

/* Cancelled, and a part had gone: not a success. */
static void test_short_send_cancelled(void **state)
{
    struct probe *sender = new_probe();
    int fds[2];

    (void)state;
    open_io(0, 0, 0);
    tcp_pair(fds);
    sender->iov[0] = (struct iovec){"abcdef", 6};
    io_send(io, &sender->op, fds[0], sender->iov, 1);
    io_cancel(io, &sender->op);
    turn_with(&sender->op, 3);
    assert_int_equal(sender->ends, 1);
    assert_int_equal(sender->last, -ECANCELED);
    io_close_fd(io, fds[0], false);
    close(fds[1]);
    close_io();
    free(sender);
}

#define PARTS 8

static bool stop(void *arg)
{
    (void)arg;
    return false;
}

/* Where go_on() says no each turn has one completion: none is forgotten, no turn sleeps meanwhile,
 * and what is cancelled before its turn ends as cancelled. */
static void test_turns_in_parts(void **state)
{
    struct probe *receivers[PARTS];
    int fds[PARTS][2];
    uint64_t until_ns = clock_mono_ns() + LIMIT_NS, began_ns;
    uint32_t events = 0;

    (void)state;
    open_io(0, 0, 0);
    io->options.go_on = stop;
    for (int i = 0; i < PARTS; i++) {
        tcp_pair(fds[i]);
        receivers[i] = new_probe();
        io_recv(io, &receivers[i]->op, fds[i][0]);
        assert_int_equal(send(fds[i][1], "x", 1, 0), 1);
    }
    while (io->done_len < PARTS) {
        assert_int_equal(enter(io, 1000000), 0);
        if (io->done_at == io->done_len && io_uring_cq_ready(&io->ring) >= PARTS)
            collect(io);
        assert_true(clock_mono_ns() < until_ns);
    }
    began_ns = clock_mono_ns();
    for (uint32_t turns_had = 1; turns_had <= PARTS / 2; turns_had++) {
        assert_int_equal(io_turn(io, 5000), 0);
        events = 0;
        for (int i = 0; i < PARTS; i++)
            events += receivers[i]->events;
        assert_int_equal(events, turns_had);
    }
    assert_in_range(clock_mono_ns() - began_ns, 0, UINT64_C(5000000000) - 1);
    for (int i = 0; i < PARTS; i++)
        io_cancel(io, &receivers[i]->op);
    RUN_UNTIL(io->ops == 0);
    for (int i = 0; i < PARTS; i++) {
        assert_int_equal(receivers[i]->ends, 1);
        assert_int_equal(receivers[i]->last, -ECANCELED);
        io_close_fd(io, fds[i][0], false);
        close(fds[i][1]);
        free(receivers[i]);
    }
    close_io();
}

/* Ends op's request in the kernel behind its back. */
static void end_request(struct io_op *op)
{
    struct io_uring_sqe *sqe = next_sqe(io);

    io_uring_prep_cancel64(sqe, (uintptr_t)op, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, 0);
}

/* The acceptor lives on through connections that died in the backlog, and tells nobody; a multishot
 * that ended with a connection is armed again. */
static void test_accept_survives(void **state)
{
    static const int32_t results[] = {-ECONNABORTED, -EPROTO, -EAGAIN, 0};

    (void)state;
    open_io(0, 0, 0);
    for (size_t i = 0; i < ARRAY_LEN(results); i++) {
        struct probe *acceptor = new_probe();
        int32_t result = results[i] == 0 ? dup(0) : results[i];
        uint32_t events = results[i] == 0;
        struct sockaddr_in addr;
        int listener = listen_any(&addr, 10), client;

        io_accept(io, &acceptor->op, listener);
        turns(1);
        end_request(&acceptor->op);
        turn_with(&acceptor->op, result);
        assert_int_equal(acceptor->events, events);
        assert_int_equal(acceptor->ends, 0);
        client = plain_client(&addr);
        RUN_UNTIL(acceptor->fds_len == events + 1);
        io_cancel(io, &acceptor->op);
        RUN_UNTIL(acceptor->ends == 1);
        while (acceptor->fds_len > 0)
            io_close_fd(io, acceptor->fds[--acceptor->fds_len], false);
        close(client);
        io_close_fd(io, listener, false);
        free(acceptor);
    }
    close_io();
}

/* What is no accident of one connection ends the accept: the owner decides when to go on. */
static void test_accept_ends(void **state)
{
    static const int32_t results[] = {-ENFILE, -ENOMEM, -EINVAL, -ECANCELED};

    (void)state;
    open_io(0, 0, 0);
    for (size_t i = 0; i < ARRAY_LEN(results); i++) {
        struct probe *acceptor = new_probe();
        struct sockaddr_in addr;
        int listener = listen_any(&addr, 10);

        io_accept(io, &acceptor->op, listener);
        turns(1);
        end_request(&acceptor->op);
        turn_with(&acceptor->op, results[i]);
        assert_int_equal(acceptor->ends, 1);
        assert_int_equal(acceptor->last, results[i]);
        io_close_fd(io, listener, false);
        free(acceptor);
    }
    close_io();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_sends),     cmocka_unit_test(test_short_send_cancelled),
        cmocka_unit_test(test_accept_survives), cmocka_unit_test(test_turns_in_parts),
        cmocka_unit_test(test_accept_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

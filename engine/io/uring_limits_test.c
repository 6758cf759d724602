/* What happens at the limits: buffers, queues, descriptors, a machine without io_uring, misuse. */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "io/probe.h"

/* Many connections, few buffers: everybody gets everything, and nobody is starved by a flood. */
static void test_buffer_exhaustion(void **state)
{
    enum { CONNECTIONS = 500, EACH = 3000 };
    struct probe **receivers = calloc(CONNECTIONS, sizeof(struct probe *));
    int(*fds)[2] = calloc(CONNECTIONS, sizeof(*fds));
    uint8_t *bytes = pattern(EACH);

    (void)state;
    open_io(64, 4, 256);
    for (int i = 0; i < CONNECTIONS; i++) {
        tcp_pair(fds[i]);
        receivers[i] = new_probe();
        io_recv(io, &receivers[i]->op, fds[i][0]);
    }
    turns(1);
    for (int i = 0; i < CONNECTIONS; i++)
        assert_int_equal(send(fds[i][1], bytes, EACH, 0), EACH);
    turns(1);
    assert_false(list_empty(&io->parked));
    io_cancel(io, &receivers[CONNECTIONS - 1]->op); /* most likely parked */
    RUN_UNTIL(receivers[CONNECTIONS - 1]->ends == 1);
    assert_true(receivers[CONNECTIONS - 1]->last == -ECANCELED ||
                receivers[CONNECTIONS - 1]->last > 0);
    for (int i = 0; i < CONNECTIONS - 1; i++) {
        RUN_UNTIL(receivers[i]->bytes == EACH);
        assert_int_equal(receivers[i]->checksum, hash_more(0, bytes, EACH));
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        close(fds[i][1]);
        if (receivers[i]->ends == 0)
            RUN_UNTIL(receivers[i]->ends == 1);
        io_close_fd(io, fds[i][0], false);
        free(receivers[i]);
    }
    close_io();
    free(receivers);
    free(fds);
    free(bytes);
}

/* The circulation grows when receives find nothing, and shrinks again. */
static void test_buffer_circulation(void **state)
{
    enum { CONNECTIONS = 100, EACH = 5000 };
    struct probe **receivers = calloc(CONNECTIONS, sizeof(struct probe *));
    int(*fds)[2] = calloc(CONNECTIONS, sizeof(*fds));
    uint8_t *bytes = pattern(EACH);
    uint64_t grown_ns;
    uint32_t least;

    (void)state;
    open_io(0, 512, 256);
    least = io->buffers.circulating;
    assert_true(least < 64);
    for (int i = 0; i < CONNECTIONS; i++) {
        tcp_pair(fds[i]);
        receivers[i] = new_probe();
        io_recv(io, &receivers[i]->op, fds[i][0]);
    }
    turns(1);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            assert_int_equal(send(fds[i][1], bytes, EACH, 0), EACH);
        for (int i = 0; i < CONNECTIONS; i++)
            RUN_UNTIL(receivers[i]->bytes == ((uint64_t)round + 1) * EACH);
    }
    assert_true(io->buffers.circulating > 2 * least);
    grown_ns = io->now_ns;
    while (io->buffers.target > least && io->now_ns < grown_ns + 60 * UINT64_C(1000000000)) {
        assert_int_equal(send(fds[0][1], "x", 1, 0), 1);
        turns(1);
    }
    assert_int_equal(io->buffers.target, least);
    for (int i = 0; i < CONNECTIONS; i++) {
        close(fds[i][1]);
        RUN_UNTIL(receivers[i]->ends == 1);
        io_close_fd(io, fds[i][0], false);
        free(receivers[i]);
    }
    close_io();
    free(receivers);
    free(bytes);
    free(fds);
}

/* More submissions than entries in one turn, more completions than the queue holds. */
static void test_queues_overflow(void **state)
{
    enum { CONNECTIONS = 200 };
    struct probe *receivers[CONNECTIONS], *senders[CONNECTIONS];
    int fds[CONNECTIONS][2];

    (void)state;
    open_io(2, 256, 64); /* 8 completions */
    for (int i = 0; i < CONNECTIONS; i++) {
        tcp_pair(fds[i]);
        assert_int_equal(send(fds[i][1], "0123456789", 10, 0), 10);
        receivers[i] = new_probe();
        senders[i] = new_probe();
        senders[i]->iov[0] = (struct iovec){"abc", 3};
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        io_recv(io, &receivers[i]->op, fds[i][0]);
        io_send(io, &senders[i]->op, fds[i][0], senders[i]->iov, 1);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        RUN_UNTIL(receivers[i]->bytes == 10 && senders[i]->ends == 1);
        assert_int_equal(senders[i]->last, 3);
    }
    for (int i = 0; i < CONNECTIONS; i++) /* those that the overflow ended must be armed again */
        assert_int_equal(send(fds[i][1], "0123456789", 10, 0), 10);
    for (int i = 0; i < CONNECTIONS; i++)
        RUN_UNTIL(receivers[i]->bytes == 20);
    for (int i = 0; i < CONNECTIONS; i++)
        io_cancel(io, &receivers[i]->op);
    for (int i = 0; i < CONNECTIONS; i++) {
        RUN_UNTIL(receivers[i]->ends == 1);
        io_close_fd(io, fds[i][0], false);
        close(fds[i][1]);
        free(receivers[i]);
        free(senders[i]);
    }
    close_io();
}

static void test_accept_out_of_descriptors(void **state)
{
    struct probe *acceptor = new_probe();
    struct rlimit old, low;
    struct sockaddr_in addr;
    int listener, client, next;

    (void)state;
    open_io(0, 0, 0);
    listener = listen_any(&addr, 10);
    client = plain_client(&addr);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    next = dup(0); /* the lowest free descriptor */
    close(next);
    low.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    io_accept(io, &acceptor->op, listener);
    RUN_UNTIL(acceptor->ends == 1);
    assert_int_equal(acceptor->last, -EMFILE);
    turns(3);
    assert_int_equal(acceptor->events, 1); /* no spin: the owner decides when to go on */
    setrlimit(RLIMIT_NOFILE, &old);
    acceptor->ends = 0;
    io_accept(io, &acceptor->op, listener);
    RUN_UNTIL(acceptor->fds_len == 1);
    io_cancel(io, &acceptor->op);
    RUN_UNTIL(acceptor->ends == 1);
    io_close_fd(io, acceptor->fds[0], false);
    io_close_fd(io, listener, false);
    close(client);
    close_io();
    free(acceptor);
}

static int poll_pipe[2];

static void close_with_op(void)
{
    struct probe *p = new_probe();

    io_poll(io, &p->op, poll_pipe[0], POLLIN);
    io_close(io);
}

static void close_fd_with_op(void)
{
    struct probe *p = new_probe();

    io_poll(io, &p->op, poll_pipe[0], POLLIN);
    io_close_fd(io, poll_pipe[0], false);
}

static void start_twice(void)
{
    struct probe *p = new_probe();

    io_poll(io, &p->op, poll_pipe[0], POLLIN);
    io_poll(io, &p->op, poll_pipe[0], POLLIN);
}

static void misuse_ok(void)
{
}

/* In a child with a ring of its own. */
static bool dies(void (*misuse)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);

        signal(SIGABRT, SIG_DFL);
        dup2(null, STDERR_FILENO);
        open_io(0, 0, 0);
        misuse();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_misuse_is_caught(void **state)
{
    (void)state;
    assert_int_equal(pipe2(poll_pipe, O_CLOEXEC), 0);
    assert_false(dies(misuse_ok));
    assert_true(dies(close_with_op));
    assert_true(dies(close_fd_with_op));
    assert_true(dies(start_twice));
    close(poll_pipe[0]);
    close(poll_pipe[1]);
}

static void test_why_unavailable(void **state)
{
    static const struct {
        int err;
        const char *names;
    } cases[] = {
        {-EPERM, "io_uring"},      {-ENOSYS, "CONFIG_IO_URING"},     {-EINVAL, "6.1"},
        {-ENOMEM, "LimitMEMLOCK"}, {-EMFILE, "Too many open files"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_non_null(strstr(io_why_unavailable(cases[i].err), cases[i].names));
        assert_null(strchr(io_why_unavailable(cases[i].err), '\n'));
    }
    io_close(NULL);
}

/* A child in which io_uring_setup() fails with err: what containers do. */
static int open_error_with_seccomp(int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = ARRAY_LEN(code), .filter = code};
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct io_options options = {0};

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
            _exit(0);
        _exit(-io_open(&io, &options));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_forbidden_by_seccomp(void **state)
{
    static const int errors[] = {EPERM, ENOSYS, EINVAL};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(errors); i++)
        assert_int_equal(open_error_with_seccomp(errors[i]), errors[i]);
}

/* Sanitizers bring an allocator of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNT_MALLOCS 0
#elif defined(__has_feature)
#define COUNT_MALLOCS (!__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer))
#else
#define COUNT_MALLOCS 1
#endif

#if COUNT_MALLOCS
static size_t mallocs;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t each);
void *__libc_realloc(void *at, size_t n);

void *malloc(size_t n)
{
    mallocs++;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t each)
{
    mallocs++;
    return __libc_calloc(n, each);
}

void *realloc(void *at, size_t n)
{
    mallocs++;
    return __libc_realloc(at, n);
}
#endif

static void on_timer(struct timer *timer)
{
    wheel_arm(io_wheel(io), timer, io_now_ms(io) + 1);
}

/* Send, receive, poll, cancel, timers, buffers running out: no memory is asked for on the way. */
static void test_no_malloc(void **state)
{
#if COUNT_MALLOCS
    enum { BYTES = 5000, ROUNDS = 300 };
    struct probe *sender = new_probe(), *receiver = new_probe(), *poller = new_probe();
    struct timer timer = {.on_timer = on_timer};
    uint8_t *bytes = pattern(BYTES);
    char sunk[BYTES];
    size_t before;
    int fds[2];

    (void)state;
    open_io(16, 4, 256);
    tcp_pair(fds);
    io_recv(io, &receiver->op, fds[0]);
    on_timer(&timer);
    before = mallocs;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        sender->ends = poller->ends = 0;
        sender->iov[0] = (struct iovec){bytes, 1};
        sender->iov[1] = (struct iovec){bytes + 1, BYTES - 1};
        io_send(io, &sender->op, fds[0], sender->iov, 2);
        io_poll(io, &poller->op, fds[0], POLLPRI);
        io_wake(io);
        assert_int_equal(send(fds[1], bytes, BYTES, 0), BYTES);
        RUN_UNTIL(receiver->bytes == round * BYTES && sender->ends == 1);
        assert_int_equal(recv(fds[1], sunk, BYTES, MSG_WAITALL), BYTES);
        io_cancel(io, &poller->op);
        RUN_UNTIL(poller->ends == 1);
    }
    assert_int_equal(mallocs, before);
    assert_true(wakes > 0);
    wheel_cancel(io_wheel(io), &timer);
    io_cancel(io, &receiver->op);
    RUN_UNTIL(receiver->ends == 1);
    io_close_fd(io, fds[0], false);
    close(fds[1]);
    close_io();
    free(bytes);
    free(sender);
    free(receiver);
    free(poller);
#else
    (void)state;
    (void)on_timer;
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer_exhaustion),
        cmocka_unit_test(test_buffer_circulation),
        cmocka_unit_test(test_queues_overflow),
        cmocka_unit_test(test_accept_out_of_descriptors),
        cmocka_unit_test(test_misuse_is_caught),
        cmocka_unit_test(test_why_unavailable),
        cmocka_unit_test(test_forbidden_by_seccomp),
        cmocka_unit_test(test_no_malloc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* TLS over a socket pair: both ends are streams of this thread, with a crew for their handshakes.
 */
#include "worker/stream_tls.h"

#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

#define LIMIT_NS UINT64_C(60000000000)

static char dir[] = "/tmp/stream_tls_test.XXXXXX";
static struct io *io;
static struct streams all;
static struct crew *crew;
static struct crew_desk desk;
static struct handshakes handshakes;
static struct tls_server *server;
static struct tls_client *client;
static struct tls_tickets *tickets;
static bool test_runs;

/* A session: what it was told. */
struct end {
    struct stream stream;
    struct buf got;
    int32_t last;
    uint32_t recvs, sents, ended;
    char error[128]; /* of the handshake */
};

static struct end *of(struct stream *s)
{
    return CONTAINER_OF(s, struct end, stream);
}

static void on_recv(struct stream *s, int32_t result, const uint8_t *data)
{
    of(s)->recvs++;
    of(s)->last = result;
    if (result > 0)
        buf_put(&of(s)->got, data, (size_t)result);
}

static void on_sent(struct stream *s, int32_t result)
{
    assert_int_equal(result, 0);
    of(s)->sents++;
}

static void on_ended(struct stream *s, const char *error)
{
    of(s)->ended++;
    snprintf(of(s)->error, sizeof(of(s)->error), "%s", error == NULL ? "" : error);
    assert_int_equal(stream_tls_of(s) != NULL, error == NULL);
}

static const struct stream_handlers handlers = {on_recv, on_sent};

static void turn(uint32_t wait_ms)
{
    assert_int_equal(io_turn(io, crew_desk_has(&desk) ? 0 : wait_ms), 0);
    if (crew_desk_has(&desk))
        crew_collect(&desk);
}

#define RUN_UNTIL(condition)                                                                       \
    do {                                                                                           \
        uint64_t limit_ns = clock_mono_ns() + LIMIT_NS;                                            \
        while (!(condition)) {                                                                     \
            assert_true(clock_mono_ns() < limit_ns);                                               \
            turn(100);                                                                             \
        }                                                                                          \
    } while (0)

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        turn(1);
}

static void pair(struct end *a, struct end *b)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    *a = *b = (struct end){0};
    stream_init(&a->stream, &all, &handlers);
    stream_init(&b->stream, &all, &handlers);
    stream_attach(&a->stream, fds[0]);
    stream_attach(&b->stream, fds[1]);
    stream_recv(&a->stream);
    stream_recv(&b->stream);
}

static void end_done(struct end *e)
{
    stream_cancel(&e->stream, false);
    RUN_UNTIL(!stream_busy(&e->stream));
    stream_close(&e->stream, false);
    buf_done(&e->got);
}

static void say(struct end *e, struct iovec *iov, const char *text)
{
    *iov = (struct iovec){(char *)(uintptr_t)text, strlen(text)};
    assert_int_equal(stream_send(&e->stream, iov, 1, false), 0);
}

static void start_server(struct end *e)
{
    struct tls *tls = tls_accept(server, &(struct tls_accept_options){.scope = STR("25")});

    assert_non_null(tls);
    assert_int_equal(stream_tls_start(&e->stream, &handshakes, tls, on_ended), 0);
    assert_int_equal(e->ended, 0);
}

static void start_client(struct end *e, struct tls_session *session)
{
    struct tls *tls = tls_connect(client, &(struct tls_connect_options){.session = session});

    assert_non_null(tls);
    assert_int_equal(stream_tls_start(&e->stream, &handshakes, tls, on_ended), 0);
}

/* --- setup --- */

static void on_wake(void *arg)
{
    (void)arg;
    crew_collect(&desk);
}

static void wake(void *arg)
{
    (void)arg;
    io_wake(io);
}

static void make_server(void)
{
    struct tls_certificate *certificate;
    char command[400], chain[64], key[64];
    struct buf error = {0};

    tickets = tls_tickets_new();
    assert_non_null(mkdtemp(dir));
    snprintf(chain, sizeof(chain), "%s/chain", dir);
    snprintf(key, sizeof(key), "%s/key", dir);
    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
             "-subj /CN=mx.example -keyout %s -out %s 2>/dev/null",
             key, chain);
    assert_int_equal(system(command), 0);
    assert_int_equal(tls_certificate_load(&certificate, chain, key, &error), 0);
    assert_int_equal(tls_server_new(&server, &certificate, 1, tickets), 0);
    tls_certificate_unref(certificate);
    assert_int_equal(tls_client_new(&client, &(struct tls_client_options){0}, &error), 0);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    struct io_options options = {.buffers = 8, .buffer_bytes = 4096, .on_wake = on_wake};
    int rc = io_open(&io, &options);

    (void)state;
    if (rc < 0)
        fail_msg("%s", io_why_unavailable(rc));
    make_server();
    streams_init(&all, io);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (test_runs) /* it failed, and its sessions are open */
        return 0;
    turns(2);
    streams_done(&all); /* asserts that no buffer is left out */
    io_close(io);
    tls_server_unref(server);
    tls_tickets_unref(tickets);
    tls_client_free(client);
    return 0;
}

static void begin(uint32_t jobs_max)
{
    assert_int_equal(crew_open(&crew, 1, jobs_max), 0);
    crew_desk_init(&desk, wake, NULL);
    handshakes_init(&handshakes, crew, &desk, io);
    test_runs = true;
}

static void finish(void)
{
    crew_stop(crew);
    crew_collect(&desk);
    handshakes_done(&handshakes);
    crew_close(crew);
    test_runs = false;
}

/* A job that holds the crew's only thread. */
struct blocker {
    struct crew_job job;
    sem_t begun, go;
    bool done;
};

static void on_block(struct crew_job *job)
{
    struct blocker *b = CONTAINER_OF(job, struct blocker, job);

    sem_post(&b->begun);
    sem_wait(&b->go);
}

static void on_unblocked(struct crew_job *job)
{
    CONTAINER_OF(job, struct blocker, job)->done = true;
}

static void block(struct blocker *b)
{
    *b = (struct blocker){.job = {.run = on_block, .done = on_unblocked, .desk = &desk}};
    sem_init(&b->begun, 0, 0);
    sem_init(&b->go, 0, 0);
    assert_true(crew_submit(crew, &b->job));
    sem_wait(&b->begun);
}

static void unblock(struct blocker *b)
{
    sem_post(&b->go);
    RUN_UNTIL(b->done);
}

/* --- tests --- */

static void test_talk(void **state)
{
    struct end a, b;
    struct iovec iov, large;
    char *bytes = malloc(1 << 20);

    (void)state;
    begin(100);
    pair(&a, &b);
    start_server(&b);
    start_client(&a, NULL);
    RUN_UNTIL(a.ended > 0 && b.ended > 0);
    assert_string_equal(a.error, "");
    assert_string_equal(b.error, "");
    say(&a, &iov, "EHLO a\r\n");
    RUN_UNTIL(b.got.len == 8 && a.sents == 1);
    memset(bytes, 'x', 1 << 20);
    large = (struct iovec){bytes, 1 << 20};
    assert_int_equal(stream_send(&b.stream, &large, 1, false), 0);
    RUN_UNTIL(a.got.len == 1 << 20 && b.sents == 1);
    stream_send_end(&b.stream);
    RUN_UNTIL(a.last == 0);
    say(&a, &iov, "QUIT\r\n"); /* half closed */
    RUN_UNTIL(b.got.len == 14);
    assert_int_equal(a.ended + b.ended, 2);
    free(bytes);
    end_done(&a);
    end_done(&b);
    finish();
}

/* What the session says before its peer has finished the handshake waits for that; many at once
 * wait for their turn in the crew. */
#define MANY (2 * HANDSHAKES_AT_ONCE + 3)
static void test_many_at_once(void **state)
{
    static struct end a[MANY], b[MANY];
    static struct iovec iov[MANY];
    struct blocker blocker;
    size_t done = 0;

    (void)state;
    begin(1000);
    block(&blocker);
    for (size_t i = 0; i < MANY; i++) {
        pair(&a[i], &b[i]);
        start_server(&b[i]);
        start_client(&a[i], NULL);
        say(&a[i], &iov[i], "NOOP\r\n");
    }
    turns(2);
    assert_int_equal(handshakes.running, HANDSHAKES_AT_ONCE);
    unblock(&blocker);
    while (done < MANY) {
        RUN_UNTIL(b[done].got.len == 6);
        done++;
    }
    assert_int_equal(handshakes.running, 0);
    for (size_t i = 0; i < MANY; i++) {
        assert_true(a[i].ended == 1 && b[i].ended == 1);
        end_done(&a[i]);
        end_done(&b[i]);
    }
    finish();
}

/* A server's last step, which is brief, needs nobody of the crew. */
static void test_brief(void **state)
{
    struct end a, b;
    struct blocker blocker;

    (void)state;
    begin(100);
    pair(&a, &b);
    start_server(&b);
    start_client(&a, NULL);
    RUN_UNTIL(a.ended > 0); /* what it says last is on its way */
    block(&blocker);
    RUN_UNTIL(b.ended > 0);
    assert_false(blocker.done);
    assert_string_equal(b.error, "");
    unblock(&blocker);
    end_done(&a);
    end_done(&b);
    finish();
}

/* Nor does a client's first. */
static void test_hello(void **state)
{
    struct end a, b;
    struct blocker blocker;

    (void)state;
    begin(100);
    handshakes.turn_max_ns = UINT64_MAX;
    block(&blocker);
    pair(&a, &b);
    start_client(&a, NULL);
    RUN_UNTIL(b.got.len > 0);
    assert_int_equal(b.got.data[0], 0x16);
    assert_false(blocker.done);
    unblock(&blocker);
    end_done(&a);
    end_done(&b);
    finish();
}

static bool crew_has_step(void)
{
    return handshakes.running > 0 && !crew_desk_has(&desk);
}

/* What the server says first comes behind its ticket. */
static struct tls_session *session_of(struct end *a, struct end *b)
{
    struct tls_session *session;
    struct iovec iov;

    RUN_UNTIL(a->ended > 0 && b->ended > 0);
    say(b, &iov, "220\r\n");
    RUN_UNTIL(a->got.len == 5);
    session = tls_take_session(stream_tls_of(&a->stream));
    assert_non_null(session);
    end_done(a);
    end_done(b);
    return session;
}

/* Nor does a session that is resumed. Who asks for one that the server does not take costs a whole
 * handshake here, once: then steps are the crew's again. */
static void test_resuming(void **state)
{
    struct tls_session *session, *old;
    struct end a, b;
    struct blocker blocker;

    (void)state;
    begin(100);
    handshakes.turn_max_ns = UINT64_MAX;
    pair(&a, &b);
    start_server(&b);
    start_client(&a, NULL);
    old = session_of(&a, &b);
    tls_tickets_rotate(tickets);
    tls_tickets_rotate(tickets);
    pair(&a, &b);
    start_server(&b);
    start_client(&a, NULL);
    session = session_of(&a, &b);

    block(&blocker);
    pair(&a, &b);
    start_server(&b);
    start_client(&a, session);
    RUN_UNTIL((a.ended > 0 && b.ended > 0) || crew_has_step());
    assert_false(crew_has_step());
    assert_string_equal(a.error, "");
    assert_int_equal(handshakes.resuming_ms, 0);
    end_done(&a);
    end_done(&b);

    pair(&a, &b);
    start_server(&b);
    start_client(&a, old);
    RUN_UNTIL(handshakes.resuming_ms > 0 || crew_has_step());
    assert_true(handshakes.resuming_ms > 0);
    handshakes.resuming_ms = UINT64_MAX; /* else the machine would have to be fast */
    unblock(&blocker);
    RUN_UNTIL(a.ended > 0 && b.ended > 0);
    end_done(&a);
    end_done(&b);

    block(&blocker);
    pair(&a, &b);
    start_server(&b);
    start_client(&a, session);
    RUN_UNTIL(b.ended > 0 || crew_has_step());
    assert_int_equal(a.ended + b.ended, 0);
    unblock(&blocker);
    RUN_UNTIL(a.ended > 0 && b.ended > 0);
    end_done(&a);
    end_done(&b);
    tls_session_free(session);
    tls_session_free(old);
    finish();
}

/* A turn that was taken up by steps has no more of them. */
static void test_turn_is_bounded(void **state)
{
    struct end a, b;
    struct blocker blocker;

    (void)state;
    begin(100);
    handshakes.turn_max_ns = 0;
    pair(&a, &b);
    start_server(&b);
    start_client(&a, NULL);
    RUN_UNTIL(a.ended > 0);
    block(&blocker);
    RUN_UNTIL(b.ended > 0 || crew_has_step());
    assert_int_equal(b.ended, 0); /* its last step is brief */
    unblock(&blocker);
    RUN_UNTIL(b.ended > 0);
    end_done(&a);
    end_done(&b);
    finish();
}

/* A crew with no place: the handshake waits for one. */
static void test_crew_full(void **state)
{
    struct end a, b;
    struct blocker blocker, filler;

    (void)state;
    begin(1);
    handshakes.turn_max_ns = 0; /* all steps are the crew's */
    block(&blocker);
    filler = (struct blocker){.job = {.run = on_block, .done = on_unblocked, .desk = &desk}};
    sem_init(&filler.begun, 0, 0);
    sem_init(&filler.go, 0, 1);
    assert_true(crew_submit(crew, &filler.job));
    pair(&a, &b);
    start_server(&b);
    start_client(&a, NULL);
    assert_int_equal(handshakes.running, 0);
    assert_false(stream_busy(&a.stream) && !stream_receiving(&a.stream));
    unblock(&blocker);
    RUN_UNTIL(a.ended > 0 && b.ended > 0);
    assert_true(filler.done);
    end_done(&a);
    end_done(&b);
    finish();
}

/* A client whose handshake is none is told so by an alert; what it goes on saying is heard out. */
static void test_failed(void **state)
{
    static const char garbage[] = "\x16\x03\x01\x00\x04\x0e\x00\x00\x00";
    struct end a, b;
    struct iovec iov;

    (void)state;
    begin(100);
    pair(&a, &b);
    start_server(&b);
    iov = (struct iovec){(char *)(uintptr_t)garbage, sizeof(garbage) - 1};
    assert_int_equal(stream_send(&a.stream, &iov, 1, false), 0);
    RUN_UNTIL(b.ended > 0);
    assert_true(b.error[0] != '\0');
    stream_send_end(&b.stream);
    RUN_UNTIL(a.recvs > 0 && a.last == 0);
    assert_int_equal(a.got.len, 7); /* an alert */
    assert_int_equal(a.got.data[0], 0x15);
    say(&a, &iov, "QUIT\r\n");
    RUN_UNTIL(a.sents == 2);
    turns(3);
    assert_int_equal(b.got.len, 0);
    end_done(&a);
    end_done(&b);
    finish();
}

/* A stream that is cancelled while its step waits or runs is closed behind it. */
static void test_cancelled(void **state)
{
    struct end a, b;
    struct blocker blocker;

    (void)state;
    begin(100);
    handshakes.turn_max_ns = 0;
    block(&blocker);
    pair(&a, &b);
    start_client(&a, NULL);
    stream_cancel(&a.stream, true);
    turns(2);
    assert_true(stream_busy(&a.stream));
    unblock(&blocker);
    RUN_UNTIL(!stream_busy(&a.stream));
    assert_int_equal(a.ended, 0);
    end_done(&a);
    RUN_UNTIL(b.last == 0 && b.recvs > 0);
    assert_int_equal(b.got.len, 0);
    end_done(&b);
    /* Queued: the crew is full. */
    crew_stop(crew);
    pair(&a, &b);
    start_client(&a, NULL);
    end_done(&a);
    assert_true(list_empty(&handshakes.queued));
    end_done(&b);
    finish();
}

/* A peer that sends and sends while its step waits: no more is kept than a handshake needs. */
static void test_too_much(void **state)
{
    struct end a, b;
    struct blocker blocker;
    struct iovec iov;
    char *bytes = malloc(HANDSHAKE_CLIENT_BYTES_MAX + 10000);

    (void)state;
    memset(bytes, 'x', HANDSHAKE_CLIENT_BYTES_MAX + 10000);
    begin(100);
    block(&blocker);
    pair(&a, &b);
    start_server(&b);
    iov = (struct iovec){bytes, HANDSHAKE_CLIENT_BYTES_MAX + 10000};
    assert_int_equal(stream_send(&a.stream, &iov, 1, false), 0);
    RUN_UNTIL(b.recvs > 0);
    assert_int_equal(b.last, -EPROTO);
    stream_cancel(&b.stream, true);
    unblock(&blocker);
    assert_int_equal(b.ended, 0);
    end_done(&b);
    end_done(&a);
    free(bytes);
    finish();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talk),      cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_crew_full), cmocka_unit_test(test_failed),
        cmocka_unit_test(test_cancelled), cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_brief),     cmocka_unit_test(test_hello),
        cmocka_unit_test(test_resuming),  cmocka_unit_test(test_turn_is_bounded),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

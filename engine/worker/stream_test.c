/* A stream over a socket pair, plain and with a filter that cuts and changes bytes. */
#include "worker/stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"

#define LIMIT_NS UINT64_C(20000000000)

static struct io *io;
static struct streams all;

/* A session: what it was told. */
struct end {
    struct stream stream;
    struct buf got;
    uint32_t events; /* on_recv() */
    int32_t last, sent;
    uint32_t sents;
};

static void on_recv(struct stream *s, int32_t result, const uint8_t *data)
{
    struct end *e = CONTAINER_OF(s, struct end, stream);

    e->events++;
    e->last = result;
    if (result > 0)
        buf_put(&e->got, data, (size_t)result);
}

static void on_sent(struct stream *s, int32_t result)
{
    struct end *e = CONTAINER_OF(s, struct end, stream);

    assert_false(stream_sending(s));
    e->sents++;
    e->sent = result;
}

static const struct stream_handlers handlers = {on_recv, on_sent};

static void pair(struct end *a, struct end *b)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    *a = *b = (struct end){0};
    stream_init(&a->stream, &all, &handlers);
    stream_init(&b->stream, &all, &handlers);
    stream_attach(&a->stream, fds[0]);
    stream_attach(&b->stream, fds[1]);
}

#define RUN_UNTIL(condition)                                                                       \
    do {                                                                                           \
        uint64_t limit_ns = clock_mono_ns() + LIMIT_NS;                                            \
        while (!(condition)) {                                                                     \
            assert_true(clock_mono_ns() < limit_ns);                                               \
            assert_int_equal(io_turn(io, 100), 0);                                                 \
        }                                                                                          \
    } while (0)

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(io_turn(io, 0), 0);
}

static void end_done(struct end *e)
{
    stream_cancel(&e->stream, false);
    RUN_UNTIL(!stream_busy(&e->stream));
    stream_close(&e->stream, false);
    buf_done(&e->got);
}

static void begin(void)
{
    struct io_options options = {.buffers = 8, .buffer_bytes = 4096};
    int rc = io_open(&io, &options);

    if (rc < 0)
        fail_msg("%s", io_why_unavailable(rc));
    streams_init(&all, io);
}

static void finish(void)
{
    turns(2);
    streams_done(&all); /* asserts that no buffer is left out */
    io_close(io);
}

/* --- the filter --- */

/* Each byte of the session is two on the wire: CUT_MARK and the byte. It takes and gives `cut`
 * bytes a call, and opens with a hello of either side. */
#define CUT_MARK     0xa5
#define CUT_FAREWELL 0xee

struct cutter {
    struct stream_filter filter;
    size_t cut;
    bool hello_sent, open, marked, says_end, end_said, busy, broken_in, broken_out;
    struct buf kept; /* while it is busy */
    bool *closed;
};

static ssize_t cutter_in(struct stream_filter *f, struct str *wire, uint8_t *plain, size_t max)
{
    struct cutter *c = CONTAINER_OF(f, struct cutter, filter);
    size_t n = 0;

    if (c->busy || c->broken_in) {
        buf_put_str(&c->kept, *wire);
        wire->len = 0;
        return c->busy ? 0 : -EPROTO;
    }
    for (; wire->len > 0 && n < c->cut && n < max; wire->ptr++, wire->len--) {
        uint8_t b = (uint8_t)*wire->ptr;

        if (!c->open) {
            assert_int_equal(b, 'h');
            c->open = true;
        } else if (!c->marked && b == CUT_FAREWELL) {
            return -ENODATA;
        } else if (!c->marked) {
            assert_int_equal(b, CUT_MARK);
            c->marked = true;
        } else {
            plain[n++] = b;
            c->marked = false;
        }
    }
    return (ssize_t)n;
}

static ssize_t cutter_out(struct stream_filter *f, struct str *plain, uint8_t *wire, size_t max)
{
    struct cutter *c = CONTAINER_OF(f, struct cutter, filter);
    size_t n = 0;

    if (c->broken_out)
        return -EPROTO;
    if (!c->hello_sent) {
        c->hello_sent = true;
        wire[0] = 'h';
        return 1;
    }
    if (!c->open)
        return 0;
    for (; plain->len > 0 && n < 2 * c->cut && n + 2 <= max; plain->ptr++, plain->len--) {
        wire[n++] = CUT_MARK;
        wire[n++] = (uint8_t)*plain->ptr;
    }
    if (n == 0 && c->says_end && !c->end_said) {
        c->end_said = true;
        wire[n++] = CUT_FAREWELL;
    }
    return (ssize_t)n;
}

static void cutter_end(struct stream_filter *f)
{
    CONTAINER_OF(f, struct cutter, filter)->says_end = true;
}

static bool cutter_busy(const struct stream_filter *f)
{
    return CONTAINER_OF(f, struct cutter, filter)->busy;
}

static void cutter_close(struct stream_filter *f)
{
    struct cutter *c = CONTAINER_OF(f, struct cutter, filter);

    if (c->closed != NULL)
        *c->closed = true;
    buf_done(&c->kept);
    free(c);
}

static const struct stream_filter_kind cutter_kind = {.name = "cutter",
                                                      .in = cutter_in,
                                                      .out = cutter_out,
                                                      .end = cutter_end,
                                                      .busy = cutter_busy,
                                                      .close = cutter_close};

static struct cutter *cutter_set(struct end *e, size_t cut)
{
    struct cutter *c = calloc(1, sizeof(*c));

    c->filter.kind = &cutter_kind;
    c->cut = cut;
    stream_filter_set(&e->stream, &c->filter);
    stream_resume(&e->stream, STR("")); /* the hello */
    return c;
}

static uint8_t *pattern(size_t n)
{
    uint8_t *bytes = malloc(n);

    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 251);
    return bytes;
}

/* --- cases --- */

enum { BYTES = 300000, PIECES = 32 };

/* Sends BYTES in pieces of odd lengths, and checks that they come out as they are. */
static void check_large(struct end *a, struct end *b)
{
    uint8_t *bytes = pattern(BYTES);
    struct iovec iov[PIECES];
    size_t at = 0;

    for (int i = 0; i < PIECES; i++) {
        size_t n = i % 5 == 0 ? 1 : i % 5 == 1 ? 40000 : (size_t)i * 7;

        n = i == PIECES - 1 || n > BYTES - at ? BYTES - at : n;
        iov[i] = (struct iovec){bytes + at, n};
        at += n;
    }
    assert_int_equal(at, BYTES);
    stream_recv(&b->stream);
    assert_int_equal(stream_send(&a->stream, iov, PIECES, false), 0);
    assert_true(stream_sending(&a->stream));
    RUN_UNTIL(b->got.len >= BYTES);
    RUN_UNTIL(a->sents == 1);
    assert_int_equal(a->sent, 0);
    assert_int_equal(b->got.len, BYTES);
    assert_memory_equal(b->got.data, bytes, BYTES);
    free(bytes);
}

static void test_plain(void **state)
{
    struct end a, b;

    (void)state;
    begin();
    pair(&a, &b);
    check_large(&a, &b);
    stream_send_end(&a.stream);
    RUN_UNTIL(b.last == 0);
    end_done(&a);
    end_done(&b);
    finish();
}

static void test_filtered(void **state)
{
    static const size_t cuts[] = {1, 3, 1000, STREAM_SLICE_BYTES};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
        struct end a, b;

        begin();
        pair(&a, &b);
        stream_recv(&a.stream);
        cutter_set(&a, cuts[i]);
        cutter_set(&b, cuts[i]);
        check_large(&a, &b);
        assert_int_equal(all.wires.in_use + all.small_wires.in_use,
                         0); /* a stream that waits holds no buffer */
        end_done(&a);
        end_done(&b);
        finish();
    }
}

/* Until the filter is open what the session sends waits; then it goes by itself. */
static void test_opening(void **state)
{
    struct iovec iov = {(void *)(uintptr_t) "later", 5};
    struct end a, b;

    (void)state;
    begin();
    pair(&a, &b);
    cutter_set(&a, 100);
    stream_recv(&a.stream);
    assert_int_equal(stream_send(&a.stream, &iov, 1, false), 0);
    turns(5);
    assert_true(stream_sending(&a.stream) && a.sents == 0);
    assert_int_equal(a.events, 0);
    cutter_set(&b, 100);
    stream_recv(&b.stream);
    RUN_UNTIL(b.got.len == 5 && a.sents == 1);
    assert_memory_equal(b.got.data, "later", 5);
    assert_int_equal(a.events, 0); /* the hello is the filter's */
    end_done(&a);
    end_done(&b);
    finish();
}

/* One buffer at a time: what is nothing for the session yet does not end the receive. */
/* A turn that sleeps for as long as the test may wait, or ends since it has heard something. */
static void long_turn(void)
{
    uint64_t before_ns = clock_mono_ns();

    assert_int_equal(io_turn(io, LIMIT_NS / 1000000), 0);
    assert_true(clock_mono_ns() - before_ns < LIMIT_NS / 2);
}

/* The end of such a send wakes nobody; but what is kept back until then is sent at once. */
static void test_unhurried(void **state)
{
    struct end a, b;
    struct iovec iov = {"220\r\n", 5};
    uint64_t before_ns;

    (void)state;
    for (int filtered = 0; filtered <= 1; filtered++) {
        begin();
        pair(&a, &b);
        if (filtered) {
            cutter_set(&a, 100)->open =
                true; /* its hello is on its way, and no more in this turn */
            assert_int_equal(stream_send(&a.stream, &iov, 1, true), 0);
            long_turn();
        } else {
            assert_int_equal(stream_send(&a.stream, &iov, 1, true), 0);
        }
        assert_int_equal(a.sents, 0);
        before_ns = clock_mono_ns();
        assert_int_equal(io_turn(io, 30), 0);
        assert_true(clock_mono_ns() - before_ns >= 29000000);
        assert_int_equal(a.sents, 1);
        assert_int_equal(a.sent, 0);
        stream_recv(&b.stream);
        RUN_UNTIL(b.got.len == (filtered ? 11 : 5));
        if (filtered) {
            assert_int_equal(stream_send(&a.stream, &iov, 1, false),
                             0); /* somebody waits for this one */
            long_turn();
            assert_int_equal(a.sents, 2);
        }
        end_done(&a);
        end_done(&b);
        finish();
    }
}

/* The filter's word waits for the session's, or for the end of its turn. */
static void test_hold(void **state)
{
    struct iovec iov = {"220\r\n", 5};
    struct end a, b;

    (void)state;
    for (int says = 0; says <= 1; says++) {
        struct cutter *c = calloc(1, sizeof(*c));

        begin();
        pair(&a, &b);
        stream_recv(&b.stream);
        c->filter.kind = &cutter_kind;
        c->cut = 100;
        c->open = true;
        stream_filter_set(&a.stream, &c->filter);
        stream_hold(&a.stream);
        stream_resume(&a.stream, STR(""));
        turns(2);
        assert_int_equal(b.events, 0);
        if (says)
            assert_int_equal(stream_send(&a.stream, &iov, 1, false), 0);
        assert_int_equal(stream_flush(&a.stream), 0);
        RUN_UNTIL(b.got.len == (says ? 11 : 1));
        assert_int_equal(b.events, 1);
        end_done(&a);
        end_done(&b);
        finish();
    }
}

static void test_once(void **state)
{
    static const uint8_t halves[] = {'h', CUT_MARK, 'x', CUT_MARK, 'y'};
    struct end a, b;

    (void)state;
    begin();
    pair(&a, &b);
    cutter_set(&b, 100);
    stream_recv_once(&b.stream);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(write(a.stream.fd, &halves[i], 1), 1);
        turns(4);
        assert_int_equal(b.events, 0);
        assert_true(stream_receiving(&b.stream));
    }
    assert_int_equal(write(a.stream.fd, &halves[2], 1), 1);
    RUN_UNTIL(b.events == 1);
    assert_int_equal(b.last, 1);
    assert_false(stream_receiving(&b.stream));
    assert_int_equal(write(a.stream.fd, &halves[3], 2), 2);
    turns(4);
    assert_int_equal(b.events, 1);
    stream_recv_once(&b.stream);
    RUN_UNTIL(b.events == 2);
    assert_memory_equal(b.got.data, "xy", 2);
    end_done(&a);
    end_done(&b);
    finish();
}

/* A receive that was stopped says so, whatever its last bytes were for the filter. */
static void test_stopped(void **state)
{
    struct end a, b;

    (void)state;
    for (int how = 0; how < 4; how++) {
        begin();
        pair(&a, &b);
        if ((how & 1) != 0)
            cutter_set(&b, 100);
        if ((how & 2) != 0) /* a session that goes on while a receive of one buffer is under way */
            stream_recv_once(&b.stream);
        else
            stream_recv(&b.stream);
        turns(2);
        stream_recv_stop(&b.stream);
        assert_int_equal(write(a.stream.fd, "h", 1), 1);
        RUN_UNTIL(!stream_receiving(&b.stream));
        assert_true(b.events > 0);
        end_done(&a);
        end_done(&b);
        finish();
    }
}

/* The end within the filter is the end for the session: once, and nothing behind it counts. */
static void test_end(void **state)
{
    struct end a, b;

    (void)state;
    begin();
    pair(&a, &b);
    cutter_set(&a, 100);
    cutter_set(&b, 100);
    stream_recv(&a.stream);
    stream_recv(&b.stream);
    turns(4);
    stream_send_end(&a.stream);
    RUN_UNTIL(b.events == 1);
    assert_int_equal(b.last, 0);
    turns(4);
    assert_int_equal(b.events, 1);
    stream_cancel(&b.stream, true); /* and its farewell reaches whoever still listens */
    RUN_UNTIL(a.events == 1 && !stream_busy(&b.stream));
    assert_int_equal(a.last, 0);
    end_done(&b);
    end_done(&a);
    finish();
}

static void test_broken(void **state)
{
    struct iovec iov = {(void *)(uintptr_t) "x", 1};
    struct end a, b;
    struct cutter *c;
    bool closed = false;

    (void)state;
    begin();
    pair(&a, &b);
    c = cutter_set(&b, 100);
    c->broken_in = true;
    c->closed = &closed;
    stream_recv(&b.stream);
    assert_int_equal(write(a.stream.fd, "hello", 5), 5);
    RUN_UNTIL(b.events == 1);
    assert_int_equal(b.last, -EPROTO);
    assert_int_equal(write(a.stream.fd, "hello", 5), 5);
    turns(4);
    assert_int_equal(b.events, 1);
    c->broken_out = true;
    assert_int_equal(stream_send(&b.stream, &iov, 1, false), -EPROTO);
    assert_int_equal(b.sents, 0);
    end_done(&b);
    assert_true(closed);
    end_done(&a);
    finish();
}

/* While a thread works for the filter the stream does not die, and the connection's end waits for
 * what the filter still has to say. */
static void test_busy(void **state)
{
    static const uint8_t wire[] = {'h', CUT_MARK, 'z'};
    struct end a, b;
    struct cutter *c;
    struct buf kept;

    (void)state;
    begin();
    pair(&a, &b);
    c = cutter_set(&b, 100);
    c->busy = true;
    stream_recv(&b.stream);
    assert_int_equal(write(a.stream.fd, wire, sizeof(wire)), sizeof(wire));
    stream_send_end(&a.stream);
    RUN_UNTIL(!stream_receiving(&b.stream));
    assert_int_equal(b.events, 0);
    c->busy = false;
    kept = c->kept;
    c->kept = (struct buf){0};
    stream_resume(&b.stream, buf_str(&kept));
    buf_done(&kept);
    assert_int_equal(b.events, 2);
    assert_int_equal(b.last, 0);
    assert_memory_equal(b.got.data, "z", 1);
    c->busy = true;
    stream_cancel(&b.stream, true);
    turns(2);
    assert_true(stream_busy(&b.stream));
    c->busy = false;
    end_done(&b);
    end_done(&a);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),   cmocka_unit_test(test_filtered),
        cmocka_unit_test(test_opening), cmocka_unit_test(test_unhurried),
        cmocka_unit_test(test_hold),    cmocka_unit_test(test_once),
        cmocka_unit_test(test_stopped), cmocka_unit_test(test_end),
        cmocka_unit_test(test_broken),  cmocka_unit_test(test_busy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

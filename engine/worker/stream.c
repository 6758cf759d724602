#include "worker/stream.h"

#include <errno.h>
#include <string.h>

void streams_init(struct streams *all, struct io *io)
{
    all->io = io;
    pool_init(&all->wires, "wire", STREAM_WIRE_BYTES, SIZE_MAX);
    pool_init(&all->small_wires, "small_wire", STREAM_WIRE_SMALL_BYTES, SIZE_MAX);
}

void streams_done(struct streams *all)
{
    pool_done(&all->wires);
    pool_done(&all->small_wires);
}

static bool filter_busy(const struct stream *s)
{
    return s->filter != NULL && s->filter->kind->busy != NULL && s->filter->kind->busy(s->filter);
}

static void wire_drop(struct stream *s)
{
    pool_put(s->wire_pool, s->wire);
    s->wire = NULL;
}

/* --- what goes out, through a filter --- */

/* The session's next bytes, max of them at most, in one piece: where pieces are small, they are
 * gathered. */
static struct str slice_of(const struct stream *s, char gathered[STREAM_SLICE_BYTES], size_t max)
{
    struct str first = {0};
    size_t at = s->iov_at, len = 0;

    if (s->iov_len == 0)
        return first;
    first = (struct str){(char *)s->iov->iov_base + at, s->iov->iov_len - at};
    if (first.len >= max || s->iov_len == 1) {
        first.len = first.len < max ? first.len : max;
        return first;
    }
    for (size_t i = 0; i < s->iov_len && len < max; i++, at = 0) {
        size_t n = s->iov[i].iov_len - at;

        n = n < max - len ? n : max - len;
        memcpy(gathered + len, (char *)s->iov[i].iov_base + at, n);
        len += n;
    }
    return (struct str){gathered, len};
}

static void slice_taken(struct stream *s, size_t len)
{
    ASSERT(len == 0 || s->iov_len > 0);
    s->iov_at += len;
    while (s->iov_len > 0 && s->iov_at >= s->iov->iov_len) {
        s->iov_at -= s->iov->iov_len;
        s->iov++;
        s->iov_len--;
    }
    ASSERT(s->iov_len > 0 || s->iov_at == 0); /* no more than there was */
}

/* Whether the session's bytes are few. */
static bool is_small(const struct stream *s)
{
    size_t len = 0;

    for (size_t i = 0; i < s->iov_len; i++) {
        len += s->iov[i].iov_len;
        if (len > s->iov_at + STREAM_WIRE_SMALL_BYTES - STREAM_FILTER_BYTES)
            return false;
    }
    return true;
}

/* Fills the wire's buffer. Its length, or -errno; *all: the filter has nothing more now. */
static ssize_t wire_fill(struct stream *s, size_t wire_max, bool *all)
{
    char gathered[STREAM_SLICE_BYTES];
    size_t len = 0;
    ssize_t n;

    ASSERT(wire_max > STREAM_FILTER_BYTES);
    do {
        size_t room = wire_max - len - STREAM_FILTER_BYTES;
        struct str slice =
            slice_of(s, gathered, room < STREAM_SLICE_BYTES ? room : STREAM_SLICE_BYTES);
        struct str left = slice;

        n = s->filter->kind->out(s->filter, &left, s->wire + len, wire_max - len);
        if (n < 0)
            return n;
        ASSERT((size_t)n <= wire_max - len && left.len <= slice.len);
        slice_taken(s, slice.len - left.len);
        len += (size_t)n;
    } while (n > 0 && wire_max - len > 2 * STREAM_FILTER_BYTES);
    *all = n == 0;
    return (ssize_t)len;
}

/* Whether somebody waits for the end of what is sent next. */
static bool is_urgent(const struct stream *s)
{
    return s->cancelled || s->end_sending || (s->owed && !s->unhurried);
}

static void send_bytes(struct stream *s, struct iovec *iov, size_t iov_len, bool unhurried)
{
    if (unhurried)
        io_send_unhurried(s->all->io, &s->send, s->fd, iov, iov_len);
    else
        io_send(s->all->io, &s->send, s->fd, iov, iov_len);
}

/* Sends what the filter has, unless something is on its way. 0 or -errno. */
static int pump(struct stream *s)
{
    bool all = true;
    ssize_t len;

    if (s->filter == NULL || s->held)
        return 0;
    if (io_op_busy(&s->send)) {
        io_hurry(s->all->io, &s->send); /* it keeps the rest back */
        return 0;
    }
    ASSERT(s->wire == NULL && s->fd >= 0);
    s->wire_pool = is_small(s) ? &s->all->small_wires : &s->all->wires;
    s->wire = pool_get(s->wire_pool);
    if (s->wire == NULL)
        return -ENOMEM;
    len = wire_fill(s, s->wire_pool->object_bytes, &all);
    if (len <= 0) {
        wire_drop(s);
        if (len == 0 && s->end_sending)
            io_send_end(s->all->io, s->fd);
        return (int)len;
    }
    s->wire_iov = (struct iovec){s->wire, (size_t)len};
    send_bytes(s, &s->wire_iov, 1, all && s->wire_pool == &s->all->small_wires && !is_urgent(s));
    return 0;
}

/* The last that the session hears. */
static void fail(struct stream *s, int err)
{
    ASSERT(err < 0);
    if (s->ended || s->cancelled)
        return;
    s->ended = true;
    s->handlers->on_recv(s, err, NULL);
}

static void on_send(struct io_op *op, const struct io_event *event)
{
    struct stream *s = CONTAINER_OF(op, struct stream, send);
    int32_t result = event->result < 0 ? event->result : 0;
    bool told = s->wire == NULL || (s->owed && (result < 0 || s->iov_len == 0));

    ASSERT(s->wire == NULL || s->filter != NULL); /* only a filter's bytes need a wire */
    if (s->wire != NULL)
        wire_drop(s);
    if (event->result > 0)
        s->handed_bytes += (uint64_t)event->result;
    if (s->cancelled)
        return;
    if (result < 0) { /* the session may go on to receive, and does not keep these bytes */
        s->iov_len = 0;
        s->broken = true;
    }
    if (told)
        s->owed = false;
    if (result == 0)
        result = pump(s);
    if (result < 0)
        s->iov_len = 0;
    if (told || (result < 0 && s->owed)) {
        s->owed = false;
        s->handlers->on_sent(s, result);
    } else if (result < 0 &&
               !(stream_receiving(s) && (result == -EPIPE || result == -ECONNRESET))) {
        fail(s, result); /* else the receive ends, behind what the peer has said */
    }
}

int stream_send(struct stream *s, struct iovec *iov, size_t iov_len, bool unhurried)
{
    ASSERT(!stream_sending(s) && !s->end_sending && !s->cancelled);
    ASSERT(s->fd >= 0 && iov_len > 0);
    if (s->filter == NULL) {
        send_bytes(s, iov, iov_len, unhurried);
        return 0;
    }
    s->unhurried = unhurried;
    s->held = false;
    s->iov = iov;
    s->iov_len = iov_len;
    s->iov_at = 0;
    s->owed = true;
    return pump(s);
}

void stream_hold(struct stream *s)
{
    ASSERT(!s->owed); /* those bytes go first */
    s->held = true;
}

int stream_flush(struct stream *s)
{
    if (!s->held)
        return 0;
    s->held = false;
    return pump(s);
}

bool stream_sending(const struct stream *s)
{
    return s->owed || (s->filter == NULL && io_op_busy(&s->send));
}

void stream_send_end(struct stream *s)
{
    ASSERT(!stream_sending(s));
    ASSERT(s->fd >= 0 && !s->cancelled);
    if (s->end_sending)
        return;
    s->end_sending = true;
    s->held = false;
    if (s->filter != NULL && s->filter->kind->end != NULL)
        s->filter->kind->end(s->filter);
    if (s->filter == NULL || pump(s) < 0)
        io_send_end(s->all->io, s->fd);
}

void stream_progress(const struct stream *s, struct io_progress *out)
{
    io_send_progress(s->all->io, s->fd, out);
}

bool stream_kept_from(const struct stream *s, uint64_t bytes)
{
    struct io_progress p;

    if (io_op_busy(&s->send)) /* the kernel may have a part of it */
        return false;
    stream_progress(s, &p);
    return s->handed_bytes - bytes <= p.unsent_bytes;
}

/* --- what comes in --- */

static void give(struct stream *s, int32_t result, const uint8_t *data)
{
    ASSERT(!s->ended && !s->cancelled); /* nothing comes behind the end */
    s->ended = result == 0;
    s->handlers->on_recv(s, result, data);
}

/* Whether the session was given anything. */
static bool feed(struct stream *s, struct str wire)
{
    uint8_t plain[STREAM_SLICE_BYTES];
    bool given = false;
    ssize_t n;

    do {
        n = s->filter->kind->in(s->filter, &wire, plain, sizeof(plain));
        if (n == 0) {
            ASSERT(wire.len == 0);
            break;
        }
        given = true;
        if (n < 0 && n != -ENODATA)
            fail(s, (int)n);
        else
            give(s, n < 0 ? 0 : (int32_t)n, plain);
        if (n > 0) /* it may have been a password */
            explicit_bzero(plain, (size_t)n);
    } while (!s->ended && !s->cancelled);
    return given;
}

/* What came may have the filter say something. */
static void answer(struct stream *s)
{
    int err = s->cancelled ? 0 : pump(s);

    if (err < 0)
        fail(s, err);
}

static void on_recv(struct io_op *op, const struct io_event *event)
{
    struct stream *s = CONTAINER_OF(op, struct stream, recv);
    bool given;

    if (s->cancelled || s->ended)
        return;
    s->broken = event->result < 0 && event->result != -ECANCELED;
    if (event->result <= 0 && event->result != -ECANCELED && filter_busy(s)) {
        s->late_end = true; /* behind what the filter is about to give */
        s->late_result = event->result;
        return;
    }
    if (s->filter == NULL || event->result <= 0) {
        give(s, event->result, event->data);
        return;
    }
    given = feed(s, (struct str){(const char *)event->data, (size_t)event->result});
    answer(s);
    if (given || s->ended || s->cancelled || io_op_busy(&s->recv))
        return;
    if (s->once)
        io_recv_once(s->all->io, &s->recv, s->fd);
    else
        give(s, -ECANCELED, NULL); /* it was stopped, within what is nothing yet */
}

void stream_resume(struct stream *s, struct str wire)
{
    if (s->cancelled || s->ended)
        return;
    if (wire.len > 0)
        feed(s, wire);
    answer(s);
    if (s->late_end && !s->ended && !s->cancelled && !filter_busy(s)) {
        s->late_end = false;
        give(s, s->late_result, NULL);
    }
}

void stream_recv(struct stream *s)
{
    ASSERT(!s->cancelled && s->fd >= 0);
    s->once = false;
    io_recv(s->all->io, &s->recv, s->fd);
}

void stream_recv_once(struct stream *s)
{
    ASSERT(!s->cancelled && s->fd >= 0);
    s->once = true;
    io_recv_once(s->all->io, &s->recv, s->fd);
}

void stream_recv_stop(struct stream *s)
{
    ASSERT(s->fd >= 0);
    io_cancel(s->all->io, &s->recv);
}

bool stream_receiving(const struct stream *s)
{
    return io_op_busy(&s->recv);
}

/* --- life --- */

void stream_init(struct stream *s, struct streams *all, const struct stream_handlers *handlers)
{
    *s = (struct stream){.fd = -1, .all = all, .handlers = handlers};
    s->recv.on_event = on_recv;
    s->send.on_event = on_send;
}

void stream_attach(struct stream *s, int fd)
{
    ASSERT(s->fd < 0 && fd >= 0 && s->filter == NULL);
    s->fd = fd;
}

void stream_filter_set(struct stream *s, struct stream_filter *f)
{
    ASSERT(s->filter == NULL && !stream_sending(s) && !s->cancelled);
    ASSERT(f->kind->in != NULL && f->kind->out != NULL && f->kind->close != NULL);
    s->filter = f;
    f->stream = s;
}

/* A peer that does not read what it was sent would never let the farewell go. The last reply may
 * well be on its way: every socket has room for so much more. */
#define FAREWELL_LEFT_MAX 2048
static bool farewell_may_go(const struct stream *s)
{
    struct io_progress p;

    if (s->broken || s->filter == NULL || s->filter->kind->end == NULL || filter_busy(s) ||
        stream_sending(s) || io_op_busy(&s->send))
        return false;
    stream_progress(s, &p);
    return p.left_bytes <= FAREWELL_LEFT_MAX;
}

void stream_cancel(struct stream *s, bool polite)
{
    if (s->fd < 0 || s->cancelled)
        return;
    s->cancelled = true;
    s->held = false;
    io_cancel(s->all->io, &s->recv);
    if (polite && farewell_may_go(s)) {
        s->filter->kind->end(s->filter);
        (void)pump(s); /* whoever leaves minds no failure */
    } else {
        io_cancel(s->all->io, &s->send);
    }
}

bool stream_busy(const struct stream *s)
{
    return io_op_busy(&s->recv) || io_op_busy(&s->send) || filter_busy(s);
}

void stream_close(struct stream *s, bool abort)
{
    ASSERT(!stream_busy(s) && s->wire == NULL);
    if (s->filter != NULL)
        s->filter->kind->close(s->filter);
    if (s->fd >= 0)
        io_close_fd(s->all->io, s->fd, abort);
    stream_init(s, s->all, s->handlers);
}

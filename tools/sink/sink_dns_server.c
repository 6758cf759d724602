/* The sockets of the sink's name server: see sink_dns.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/list.h"
#include "tools/sink/sink_dns.h"

struct dns_stream { /* a TCP connection (RFC 7766) */
    struct sink_dns_server *server;
    struct list_node node;
    struct io_op recv, send;
    int fd;
    bool ending, eof;
    struct buf in, out, sending;
    struct iovec iov;
};

struct sink_dns_server {
    struct io *io;
    struct sink_zone zone;
    _Atomic uint64_t *queries;
    int udp_fd, tcp_fd;
    struct io_op udp, tcp;
    struct list streams;
    bool stopping;
    uint8_t answer[SINK_DNS_MESSAGE_MAX];
};

static void count_query(struct sink_dns_server *d)
{
    atomic_store_explicit(d->queries, atomic_load_explicit(d->queries, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void on_udp(struct io_op *op, const struct io_event *event)
{
    struct sink_dns_server *d = CONTAINER_OF(op, struct sink_dns_server, udp);
    struct sockaddr_storage peer;
    uint8_t query[UINT16_MAX];

    if (event->result < 0 && !d->stopping && !event->more)
        io_poll(d->io, &d->udp, d->udp_fd, POLLIN);
    /* The poll tells of new data only, so all there is must be taken. */
    while (!d->stopping) {
        socklen_t peer_len = sizeof(peer);
        ssize_t n = recvfrom(d->udp_fd, query, sizeof(query), MSG_DONTWAIT,
                             (struct sockaddr *)&peer, &peer_len);
        size_t len;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        count_query(d);
        len = sink_dns_answer(&d->zone, query, (size_t)n, true, d->answer);
        if (len > 0)
            (void)!sendto(d->udp_fd, d->answer, len, MSG_DONTWAIT, (struct sockaddr *)&peer,
                          peer_len); /* a lost datagram is asked for again */
    }
}

/* Called last in a handler: frees the stream when it has ended. */
static void stream_settle(struct dns_stream *s)
{
    struct buf swap = s->sending;

    if (!s->ending && s->out.len > 0 && !io_op_busy(&s->send)) {
        s->sending = s->out;
        s->out = swap;
        s->iov = (struct iovec){s->sending.data, s->sending.len};
        io_send(s->server->io, &s->send, s->fd, &s->iov, 1);
    }
    if (s->eof && !io_op_busy(&s->send))
        s->ending = true;
    if (!s->ending)
        return;
    io_cancel(s->server->io, &s->recv);
    io_cancel(s->server->io, &s->send);
    if (io_op_busy(&s->recv) || io_op_busy(&s->send))
        return;
    io_close_fd(s->server->io, s->fd, false);
    list_remove(&s->node);
    buf_done(&s->in);
    buf_done(&s->out);
    buf_done(&s->sending);
    free(s);
}

static void stream_answer(struct dns_stream *s)
{
    struct sink_dns_server *d = s->server;

    while (s->in.len >= 2) {
        size_t query_len = (size_t)s->in.data[0] << 8 | s->in.data[1];
        size_t len;

        if (s->in.len < query_len + 2)
            return;
        count_query(d);
        len = sink_dns_answer(&d->zone, s->in.data + 2, query_len, false, d->answer);
        buf_consume(&s->in, query_len + 2);
        if (len == 0)
            continue;
        buf_putc(&s->out, (char)(len >> 8));
        buf_putc(&s->out, (char)len);
        buf_put(&s->out, d->answer, len);
    }
}

static void on_stream_recv(struct io_op *op, const struct io_event *event)
{
    struct dns_stream *s = CONTAINER_OF(op, struct dns_stream, recv);

    if (event->result > 0 && !s->ending) {
        buf_put(&s->in, event->data, (size_t)event->result);
        stream_answer(s);
    } else if (event->result <= 0) {
        s->eof = true;
    }
    stream_settle(s);
}

static void on_stream_send(struct io_op *op, const struct io_event *event)
{
    struct dns_stream *s = CONTAINER_OF(op, struct dns_stream, send);

    buf_clear(&s->sending);
    if (event->result < 0)
        s->ending = true;
    stream_settle(s);
}

static void on_tcp(struct io_op *op, const struct io_event *event)
{
    struct sink_dns_server *d = CONTAINER_OF(op, struct sink_dns_server, tcp);
    struct dns_stream *s;

    if (event->result >= 0) {
        s = d->stopping ? NULL : calloc(1, sizeof(*s));
        if (s == NULL) {
            io_close_fd(d->io, event->result, false);
            return;
        }
        s->server = d;
        s->fd = event->result;
        s->recv.on_event = on_stream_recv;
        s->send.on_event = on_stream_send;
        list_push_back(&d->streams, &s->node);
        io_recv(d->io, &s->recv, s->fd);
    } else if (!event->more && !d->stopping) {
        io_accept(d->io, &d->tcp, d->tcp_fd);
    }
}

static int udp_open(const struct endpoint *listen)
{
    int fd = socket(listen->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int bytes = 4 << 20;
    int err;

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes,
               sizeof(bytes)); /* bursts of lookups; best effort */
    if (bind(fd, (const struct sockaddr *)&listen->addr, listen->len) == 0)
        return fd;
    err = -errno;
    close(fd);
    return err;
}

int sink_dns_open(struct sink_dns_server **out, struct io *io, const struct endpoint *listen,
                  const struct sink_zone *zone, _Atomic uint64_t *queries)
{
    struct sink_dns_server *d = calloc(1, sizeof(*d));
    int err;

    if (d == NULL)
        return -ENOMEM;
    d->io = io;
    d->zone = *zone;
    d->queries = queries;
    d->udp.on_event = on_udp;
    d->tcp.on_event = on_tcp;
    list_init(&d->streams);
    d->udp_fd = udp_open(listen);
    if (d->udp_fd < 0) {
        err = d->udp_fd;
        goto fail;
    }
    d->tcp_fd = io_listen(io, (const struct sockaddr *)&listen->addr, listen->len, 128, false);
    if (d->tcp_fd < 0) {
        err = d->tcp_fd;
        goto fail_udp;
    }
    io_poll(io, &d->udp, d->udp_fd, POLLIN);
    io_accept(io, &d->tcp, d->tcp_fd);
    *out = d;
    return 0;

fail_udp:
    close(d->udp_fd);
fail:
    free(d);
    return err;
}

void sink_dns_stop(struct sink_dns_server *d)
{
    d->stopping = true;
    io_cancel(d->io, &d->udp);
    io_cancel(d->io, &d->tcp);
    for (struct list_node *node = list_first(&d->streams); node != NULL;
         node = list_next(&d->streams, node)) {
        struct dns_stream *s = LIST_ENTRY(node, struct dns_stream, node);

        s->ending = true;
        io_cancel(d->io, &s->recv);
        io_cancel(d->io, &s->send);
    }
}

bool sink_dns_busy(const struct sink_dns_server *d)
{
    return io_op_busy(&d->udp) || io_op_busy(&d->tcp) || !list_empty(&d->streams);
}

void sink_dns_close(struct sink_dns_server *d)
{
    if (d == NULL)
        return;
    io_close_fd(d->io, d->udp_fd, false);
    io_close_fd(d->io, d->tcp_fd, false);
    free(d);
}

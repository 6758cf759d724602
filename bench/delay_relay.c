/* A path with a round trip time: relays TCP connections and holds every byte for a while in each
 * direction. For machines without netem; as there, bandwidth is not limited.
 *
 *   delay_relay LISTEN_PORT TARGET_PORT [delay_ms [target_address]]     default 25, 127.0.0.1
 *
 * Bytes wait in memory, in pieces as they came, each with the time it is due. One thread. Ends on
 * SIGTERM like any program without handlers. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

struct piece {
    struct list_node node;
    uint64_t due_ms;
    size_t len; /* 0: end of stream */
    uint8_t data[];
};

struct flow { /* one direction */
    struct pair *pair;
    struct io_op recv_op, send_op;
    struct timer timer; /* armed while the first piece is not yet due and nothing is being sent */
    struct list pieces;
    struct piece *sending;
    struct iovec iov;
    int from, to;
    bool ended; /* the end of the stream has been passed on */
};

struct pair {
    struct flow up, down;
    struct io_op connect_op;
    bool dead;
};

static struct io *io;
static struct sockaddr_in target;
static uint64_t delay_ms = 25;

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

static void flow_done(struct flow *f)
{
    struct list_node *node;

    wheel_cancel(io_wheel(io), &f->timer);
    while ((node = list_pop_front(&f->pieces)) != NULL)
        free(LIST_ENTRY(node, struct piece, node));
    free(f->sending);
}

/* Frees the pair once both directions ended, or one broke, and no operation is in flight. */
static void pair_check(struct pair *p)
{
    struct io_op *const ops[] = {&p->up.recv_op, &p->up.send_op, &p->down.recv_op, &p->down.send_op,
                                 &p->connect_op};
    bool busy = false;

    if (!p->dead && !(p->up.ended && p->down.ended))
        return;
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (io_op_busy(ops[i])) {
            io_cancel(io, ops[i]);
            busy = true;
        }
    }
    if (busy)
        return;
    flow_done(&p->up);
    flow_done(&p->down);
    io_close_fd(io, p->up.from, p->dead);
    io_close_fd(io, p->up.to, p->dead);
    free(p);
}

static void flow_advance(struct flow *f)
{
    struct list_node *first = list_first(&f->pieces);
    struct piece *piece;

    if (f->sending != NULL || first == NULL || f->pair->dead)
        return;
    piece = LIST_ENTRY(first, struct piece, node);
    if (piece->due_ms > io_now_ms(io)) {
        wheel_arm(io_wheel(io), &f->timer, piece->due_ms);
        return;
    }
    list_remove(&piece->node);
    if (piece->len == 0) {
        free(piece);
        f->ended = true;
        (void)shutdown(f->to, SHUT_WR); /* fails where the peer is gone already */
        pair_check(f->pair);
        return;
    }
    f->sending = piece;
    f->iov = (struct iovec){piece->data, piece->len};
    io_send(io, &f->send_op, f->to, &f->iov, 1);
}

static void on_due(struct timer *timer)
{
    flow_advance(CONTAINER_OF(timer, struct flow, timer));
}

static void on_sent(struct io_op *op, const struct io_event *event)
{
    struct flow *f = CONTAINER_OF(op, struct flow, send_op);

    free(f->sending);
    f->sending = NULL;
    f->pair->dead |= event->result < 0;
    flow_advance(f);
    pair_check(f->pair);
}

static void on_received(struct io_op *op, const struct io_event *event)
{
    struct flow *f = CONTAINER_OF(op, struct flow, recv_op);
    size_t len = event->result > 0 ? (size_t)event->result : 0;
    struct piece *piece;

    if (event->result < 0 || f->pair->dead) {
        f->pair->dead = true;
        pair_check(f->pair);
        return;
    }
    piece = malloc(sizeof(*piece) + len);
    require(piece != NULL, "memory");
    *piece = (struct piece){.due_ms = io_now_ms(io) + delay_ms, .len = len};
    if (len > 0)
        memcpy(piece->data, event->data, len);
    list_push_back(&f->pieces, &piece->node);
    flow_advance(f);
}

static void flow_start(struct flow *f, struct pair *p, int from, int to)
{
    f->pair = p;
    f->from = from;
    f->to = to;
    f->recv_op.on_event = on_received;
    f->send_op.on_event = on_sent;
    f->timer.on_timer = on_due;
    list_init(&f->pieces);
}

static void on_connected(struct io_op *op, const struct io_event *event)
{
    struct pair *p = CONTAINER_OF(op, struct pair, connect_op);

    if (event->result < 0) {
        p->dead = true;
        pair_check(p);
        return;
    }
    io_recv(io, &p->up.recv_op, p->up.from);
    io_recv(io, &p->down.recv_op, p->down.from);
}

static void on_accepted(struct io_op *op, const struct io_event *event)
{
    struct pair *p;
    int fd;

    (void)op;
    require(event->result >= 0, "accept");
    p = calloc(1, sizeof(*p));
    fd = io_stream(io, AF_INET, NULL, 0);
    require(p != NULL && fd >= 0, "connection");
    flow_start(&p->up, p, event->result, fd);
    flow_start(&p->down, p, fd, event->result);
    p->connect_op.on_event = on_connected;
    io_connect(io, &p->connect_op, fd, (struct sockaddr *)&target, sizeof(target));
}

static struct sockaddr_in address_of(const char *port, const char *host)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};

    require(inet_pton(AF_INET, host, &a.sin_addr) == 1, host);
    return a;
}

int main(int argc, char **argv)
{
    struct io_options options = {0};
    struct io_op acceptor = {.on_event = on_accepted};
    struct sockaddr_in own;
    int fd;

    if (argc < 3) {
        fprintf(stderr, "usage: delay_relay LISTEN_PORT TARGET_PORT [delay_ms [target_address]]\n");
        return 2;
    }
    if (argc > 3)
        delay_ms = strtoul(argv[3], NULL, 10);
    own = address_of(argv[1], "127.0.0.1");
    target = address_of(argv[2], argc > 4 ? argv[4] : "127.0.0.1");
    require(io_open(&io, &options) == 0, "io_open");
    fd = io_listen(io, (struct sockaddr *)&own, sizeof(own), 4096, false);
    require(fd >= 0, "listen");
    io_accept(io, &acceptor, fd);
    while (io_turn(io, 1000) == 0)
        ;
    return 1;
}

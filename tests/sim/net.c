#include "tests/sim/net.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#define CONNECT_TIMEOUT_NS (127 * SIM_S)

enum segment_kind { SEGMENT_DATA, SEGMENT_CONNECTED, SEGMENT_REFUSED, SEGMENT_FIN, SEGMENT_RST };

struct segment {
    struct list_node node;
    uint64_t at_ns;
    enum segment_kind kind;
    size_t len;
    uint8_t data[];
};

struct net_conn {
    struct net_path path;
    struct net_end ends[2]; /* connector, acceptor */
    struct sim_event syn;
};

static struct list listeners = {{&listeners.head, &listeners.head}};

/* --- ends --- */

static void conn_free_when_closed(struct net_conn *c)
{
    if (!c->ends[0].closed || !c->ends[1].closed)
        return;
    for (int i = 0; i < 2; i++) {
        struct net_end *end = &c->ends[i];
        struct list_node *n;

        if (end->on_gone != NULL)
            end->on_gone(end);
        sim_cancel(&end->arrival);
        sim_cancel(&end->change);
        while ((n = list_pop_front(&end->flight)) != NULL)
            free(LIST_ENTRY(n, struct segment, node));
        buf_done(&end->rx);
    }
    sim_cancel(&c->syn);
    free(c);
}

/* Puts a segment on its way to end. */
static void segment_send(struct net_end *to, enum segment_kind kind, const void *bytes, size_t len)
{
    const struct net_path *path = &to->conn->path;
    struct segment *s = malloc(sizeof(*s) + len);
    uint64_t at_ns = sim_now_ns() + path->latency_ns;

    ASSERT(s != NULL);
    *s = (struct segment){.kind = kind, .len = len};
    if (len > 0)
        memcpy(s->data, bytes, len);
    if (path->jitter_ns > 0)
        at_ns += sim_draw(path->jitter_ns);
    if (at_ns < to->last_ns)
        at_ns = to->last_ns;
    at_ns += path->byte_ns * len;
    s->at_ns = to->last_ns = at_ns;
    to->flight_bytes += len;
    list_push_back(&to->flight, &s->node);
    if (to->arrival.slot == 0)
        sim_at(&to->arrival, at_ns);
}

static void segment_arrive(struct net_end *end, const struct segment *s)
{
    switch (s->kind) {
    case SEGMENT_DATA:
        buf_put(&end->rx, s->data, s->len);
        break;
    case SEGMENT_CONNECTED:
        end->connected = true;
        break;
    case SEGMENT_REFUSED:
        end->error = -ECONNREFUSED;
        break;
    case SEGMENT_FIN:
        end->fin = true;
        break;
    case SEGMENT_RST:
        end->reset = true;
        if (sim_chance(300)) /* what was not read is gone */
            buf_clear(&end->rx);
        break;
    }
}

static void on_arrival(struct sim_event *event)
{
    struct net_end *end = CONTAINER_OF(event, struct net_end, arrival);
    struct segment *s = LIST_ENTRY(list_pop_front(&end->flight), struct segment, node);
    struct list_node *next = list_first(&end->flight);

    if (next != NULL)
        sim_at(&end->arrival, LIST_ENTRY(next, struct segment, node)->at_ns);
    end->flight_bytes -= s->len;
    if (end->closed) {
        if (s->kind == SEGMENT_DATA && !end->peer->closed)
            segment_send(end->peer, SEGMENT_RST, NULL, 0);
        free(s);
        return;
    }
    segment_arrive(end, s);
    free(s);
    if (end->on_change != NULL)
        end->on_change(end);
}

static void on_change(struct sim_event *event)
{
    struct net_end *end = CONTAINER_OF(event, struct net_end, change);

    if (!end->closed && end->on_change != NULL)
        end->on_change(end);
}

/* --- connecting --- */

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
    const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
    return a6->sin6_port == b6->sin6_port &&
           memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

static struct net_listener *listener_find(const struct sockaddr_storage *addr)
{
    struct net_listener *found = NULL;
    uint64_t seen = 0;

    for (struct list_node *n = list_first(&listeners); n != NULL; n = list_next(&listeners, n)) {
        struct net_listener *l = LIST_ENTRY(n, struct net_listener, node);

        if (same_address(&l->addr, addr) && sim_draw(++seen) == 0)
            found = l;
    }
    return found;
}

static void on_syn(struct sim_event *event)
{
    struct net_conn *c = CONTAINER_OF(event, struct net_conn, syn);
    struct net_end *client = &c->ends[0], *server = &c->ends[1];
    struct net_listener *l;

    if (client->closed || c->path.hole) {
        client->error = -ETIMEDOUT;
        if (!client->closed && client->on_change != NULL)
            client->on_change(client);
        return;
    }
    l = c->path.down ? NULL : listener_find(&client->remote);
    if (l == NULL) {
        segment_send(client, SEGMENT_REFUSED, NULL, 0);
        return;
    }
    server->closed = false;
    server->connected = true;
    server->local = client->remote;
    server->remote = client->local;
    segment_send(client, SEGMENT_CONNECTED, NULL, 0);
    l->on_accept(l, server);
}

void net_listen(struct net_listener *l, const struct sockaddr *addr, socklen_t len)
{
    memcpy(&l->addr, addr, len);
    list_push_back(&listeners, &l->node);
}

void net_unlisten(struct net_listener *l)
{
    if (list_node_linked(&l->node))
        list_remove(&l->node);
}

struct net_end *net_connect(const struct sockaddr *local, const struct sockaddr *to, socklen_t len,
                            const struct net_path *path)
{
    struct net_conn *c = calloc(1, sizeof(*c));

    ASSERT(c != NULL);
    c->path = *path;
    for (int i = 0; i < 2; i++) {
        c->ends[i].conn = c;
        c->ends[i].peer = &c->ends[1 - i];
        c->ends[i].arrival.run = on_arrival;
        c->ends[i].change.run = on_change;
        list_init(&c->ends[i].flight);
    }
    memcpy(&c->ends[0].local, local, len);
    memcpy(&c->ends[0].remote, to, len);
    c->ends[1].closed = true; /* until it is accepted */
    c->syn.run = on_syn;
    sim_in(&c->syn, path->hole ? CONNECT_TIMEOUT_NS : path->latency_ns);
    return &c->ends[0];
}

/* --- bytes --- */

ptrdiff_t net_send(struct net_end *end, const void *bytes, size_t len)
{
    struct net_end *to = end->peer;
    const struct net_path *path = &end->conn->path;
    uint64_t out = to->flight_bytes + to->rx.len;
    size_t taken = 0;

    ASSERT(end->connected && !end->closed);
    if (end->reset)
        return -ECONNRESET;
    if (out >= path->window)
        return 0;
    if (len > path->window - out)
        len = (size_t)(path->window - out);
    while (taken < len) {
        size_t n = (size_t)sim_between(1, path->segment_max);

        n = n < len - taken ? n : len - taken;
        segment_send(to, SEGMENT_DATA, (const uint8_t *)bytes + taken, n);
        taken += n;
    }
    sim_trace_bytes(bytes, len);
    end->sent_bytes += taken;
    return (ptrdiff_t)taken;
}

void net_read(struct net_end *end, size_t len)
{
    buf_consume(&end->rx, len);
    if (!end->peer->closed)
        sim_by(&end->peer->change, sim_now_ns() + end->conn->path.latency_ns);
}

void net_seen(struct net_end *end, size_t len)
{
    struct net_end *peer = end->peer;

    peer->seen_bytes += len;
    if (peer->on_seen != NULL)
        peer->on_seen(peer);
}

void net_close(struct net_end *end, bool abort)
{
    struct net_conn *c = end->conn;

    ASSERT(!end->closed);
    end->closed = true;
    end->on_change = NULL;
    sim_cancel(&end->change);
    if (!end->peer->closed && !end->reset)
        segment_send(end->peer, abort || end->rx.len > 0 ? SEGMENT_RST : SEGMENT_FIN, NULL, 0);
    conn_free_when_closed(c);
}

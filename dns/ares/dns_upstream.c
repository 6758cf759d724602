/* dns_upstream.h over c-ares: its sockets are polled by io, its timeouts looked at by one timer.
 *
 * One channel per server: which server is asked next is decided here.
 * c-ares 1.18 starts every query at the first server, so a dead first resolver would cost each
 * lookup its timeout, and it reports SERVFAIL as "connection refused". Here the server that works
 * stays first until it falls silent, and a definite refusal is not asked for again of the same
 * server.
 *
 * c-ares sends a question again to the same server after a third of the timeout, so that a lost
 * packet does not cost all of it; a resolver still at work takes both for one.
 *
 * A question that finds no descriptor or memory waits for it, however long.
 *
 * Questions go without EDNS: c-ares 1.18 takes the first SERVFAIL for a lack of EDNS and turns it
 * off for good. Answers beyond 512 bytes come by TCP then, which c-ares does.
 *
 * Who can forge an answer must guess a query's id and its source port (RFC 5452). Ids are random,
 * but c-ares keeps a channel's socket as long as queries are open on it. So a server beyond
 * loopback has several channels: each query draws one, and a channel that had PORT_QUERIES queries
 * gets none before it is empty and its socket is closed. To loopback nobody else can send. */
#include "dns/dns_upstream.h"

#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/list.h"
#include "dns/dns.h"
#include "dns/packet.h"
#include "io/io.h"

#define DEFAULT_TIMEOUT_MS 5000
#define DEFAULT_TRIES      3
#define TICK_MS_MAX        100       /* how late a timeout may be noticed */
#define SOCKET_BUFFER      (1 << 20) /* answers to a full in_flight may arrive at once */
#define SERVERS_MAX        16
#define CHANNELS_MAX       16 /* of 75 KB each */
#define SERVER_ERROR_MAX   (INET6_ADDRSTRLEN + 40)
#define PORT_QUERIES       16
#define HEADER_AD_BYTE     3 /* RFC 4035 3.2.3 */
#define HEADER_AD          0x20

struct channel {
    struct server *server;
    ares_channel ares;
    uint32_t open;             /* queries */
    uint32_t asked;            /* since its socket was opened */
    struct list watches, dead; /* dead: whose last event is to come */
};

struct server {
    struct dns_upstream *upstream;
    uint64_t answered_ms; /* io's clock */
    /* "resolver 127.0.0.1:53 did not answer", and that it cannot be reached. */
    char silent[SERVER_ERROR_MAX], unreachable[SERVER_ERROR_MAX];
    uint32_t channels_len;
    struct channel channels[CHANNELS_MAX];
};

/* One poll of one c-ares socket. A dead one only waits for its last event. c-ares may close a
 * socket at any time; its number is not free for others before the last poll of it has ended. */
struct watch {
    struct io_op op;
    struct channel *channel; /* NULL: dead, and the channel has gone */
    struct list_node node;   /* in channel->watches, or channel->dead */
    int fd;
    uint32_t events;
    bool dead, closes; /* closes: of the dead ones of a closed socket the last closes it */
};

/* One question on its way through servers; lives in its query's priv. */
struct attempt {
    struct dns_upstream *upstream;
    const char *name; /* the query's, or alias */
    char *alias;      /* where CNAMEs led that were answered without what they lead to */
    enum dns_type type;
    uint32_t ttl_s;  /* of these CNAMEs, the smallest */
    uint16_t cnames; /* how many there were */
    bool insecure;   /* one of their answers was not validated */
    uint16_t server;
    uint32_t left; /* sends still allowed */
    uint64_t sent_ms;
    struct channel *channel;
    struct dns_packet packet;
    struct list_node node; /* in upstream->done or parked */
};
_Static_assert(sizeof(struct attempt) <= sizeof(((struct dns_upstream_query *)0)->priv), "room");

struct dns_upstream {
    struct io *io;
    struct timer tick, deliver;
    struct list done;   /* attempts with their answers; handlers run from the timer deliver */
    struct list parked; /* attempts that found no socket; sent again from the timer tick */
    bool shortage;      /* the last socket wanted could not be had */
    void (*on_silence)(void *arg, const char *error);
    void *on_silence_arg;
    uint32_t open; /* attempts at c-ares */
    uint32_t tries, tick_ms;
    uint32_t preferred;
    bool validating;
    bool closing;
    struct rng rng;    /* draws channels */
    uint16_t ids[128]; /* for the next questions: from the kernel, since rng can be guessed */
    size_t ids_len;
    uint32_t servers_len;
    struct server servers[SERVERS_MAX];
};

static void attempt_send(struct attempt *a);

/* ---- sockets ---- */

static void on_poll(struct io_op *op, const struct io_event *event);

static void watch_drop(struct watch *w)
{
    struct io *io = w->channel->server->upstream->io;

    list_remove(&w->node);
    w->dead = true;
    if (io_op_busy(&w->op)) {
        list_push_back(&w->channel->dead, &w->node);
        io_cancel(io, &w->op);
    } else {
        free(w);
    }
}

/* The first of fd in a channel's list of watches; NULL: there is none. */
static struct watch *watch_find(const struct list *watches, int fd)
{
    struct list_node *node = list_first(watches);

    for (; node != NULL; node = list_next(watches, node)) {
        struct watch *w = LIST_ENTRY(node, struct watch, node);

        if (w->fd == fd)
            return w;
    }
    return NULL;
}

static void watch_end(struct watch *w)
{
    struct watch *other = NULL;

    if (w->channel != NULL) {
        list_remove(&w->node);
        other = watch_find(&w->channel->dead, w->fd);
    }
    if (w->closes && other != NULL)
        other->closes = true;
    else if (w->closes)
        close(w->fd);
    free(w);
}

/* Without memory the socket stays unwatched and its queries time out. */
static void watch_start(struct channel *channel, int fd, uint32_t events)
{
    struct watch *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return;
    w->op.on_event = on_poll;
    w->channel = channel;
    w->fd = fd;
    w->events = events;
    list_push_back(&channel->watches, &w->node);
    io_poll(channel->server->upstream->io, &w->op, fd, events);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct channel *channel = arg;
    struct watch *w = watch_find(&channel->watches, fd);
    uint32_t events = (readable ? POLLIN : 0U) | (writable ? POLLOUT : 0U);

    if (w != NULL && w->events == events)
        return;
    if (w != NULL)
        watch_drop(w);
    if (events != 0)
        watch_start(channel, fd, events);
}

static void on_poll(struct io_op *op, const struct io_event *event)
{
    struct watch *w = CONTAINER_OF(op, struct watch, op);
    struct channel *channel = w->channel;
    bool failed = event->result < 0;
    uint32_t ready = failed ? 0 : (uint32_t)event->result;
    int fd = w->fd;

    if (w->dead) {
        if (!event->more)
            watch_end(w);
        return;
    }
    /* An error or a hang-up is found by reading. */
    if (failed || (ready & (POLLERR | POLLHUP | POLLRDHUP)) != 0)
        ready |= w->events;
    ares_process_fd(channel->ares, (ready & POLLIN) != 0 ? fd : ARES_SOCKET_BAD,
                    (ready & POLLOUT) != 0 ? fd : ARES_SOCKET_BAD);
}

/* c-ares says "connection refused" where it found no descriptor. That is our trouble, and the
 * domain must not get the blame, so sockets are opened here. */
static ares_socket_t open_socket(int family, int type, int protocol, void *arg)
{
    struct channel *channel = arg;
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol), size = SOCKET_BUFFER;

    channel->server->upstream->shortage =
        fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS);
    if (fd >= 0 && type == SOCK_DGRAM) /* as much as the system's limit lets us have */
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    return fd;
}

static int close_socket(ares_socket_t fd, void *arg)
{
    struct channel *channel = arg;
    struct watch *w = watch_find(&channel->dead, fd);

    if (w == NULL)
        return close(fd);
    w->closes = true;
    return 0;
}

static int connect_socket(ares_socket_t fd, const struct sockaddr *to, ares_socklen_t len,
                          void *arg)
{
    (void)arg;
    return connect(fd, to, len);
}

static ares_ssize_t receive(ares_socket_t fd, void *out, size_t len, int flags,
                            struct sockaddr *from, ares_socklen_t *from_len, void *arg)
{
    (void)arg;
    return recvfrom(fd, out, len, flags, from, from_len);
}

static ares_ssize_t send_pieces(ares_socket_t fd, const struct iovec *iov, int len, void *arg)
{
    (void)arg;
    return writev(fd, iov, len);
}

static const struct ares_socket_functions socket_functions = {open_socket, close_socket,
                                                              connect_socket, receive, send_pieces};

/* ---- attempts ---- */

static void attempt_done(struct attempt *a)
{
    struct dns_upstream *up = a->upstream;

    list_push_back(&up->done, &a->node);
    if (!timer_armed(&up->deliver))
        wheel_arm(io_wheel(up->io), &up->deliver, 0);
}

static void attempt_fail(struct attempt *a, const char *error)
{
    dns_packet_done(&a->packet);
    a->packet.answer = (struct dns_answer){.status = DNS_ANSWER_FAILED, .error = error};
    attempt_done(a);
}

/* The server said nothing at all since the question was sent: others go first from now on. */
static void note_silence(struct attempt *a, const char *error)
{
    struct dns_upstream *up = a->upstream;

    if (up->servers[a->server].answered_ms >= a->sent_ms)
        return;
    if (up->preferred == a->server)
        up->preferred = (a->server + 1) % up->servers_len;
    if (a->left == 0 && up->on_silence != NULL)
        up->on_silence(up->on_silence_arg, error);
}

static void attempt_next(struct attempt *a, const char *error)
{
    if (a->left == 0) {
        attempt_fail(a, error);
        return;
    }
    a->server = (uint16_t)((a->server + 1U) % a->upstream->servers_len);
    attempt_send(a);
}

static const char *ares_text(const struct server *server, int status)
{
    switch (status) {
    case ARES_ETIMEOUT:
        return server->silent;
    case ARES_ECONNREFUSED:
        return server->unreachable;
    case ARES_ENOMEM:
        return "out of memory";
    default:
        return ares_strerror(status);
    }
}

/* The response ends in the middle of a chain of CNAMEs: the rest is a question of its own. */
static void attempt_follow(struct attempt *a)
{
    struct dns_upstream *up = a->upstream;
    unsigned cnames = a->cnames + a->packet.cnames;

    if (cnames > DNS_CNAMES_MAX) {
        attempt_fail(a, "CNAME chain too long or a loop");
        return;
    }
    a->cnames = (uint16_t)cnames;
    if (a->packet.answer.ttl_s < a->ttl_s)
        a->ttl_s = a->packet.answer.ttl_s;
    a->insecure |= !a->packet.answer.secure;
    free(a->alias);
    a->name = a->alias = a->packet.memory;
    a->packet = (struct dns_packet){0};
    a->left = up->tries * up->servers_len;
    attempt_send(a);
}

static void on_ares(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct attempt *a = arg;
    struct dns_upstream *up = a->upstream;
    struct server *server = &up->servers[a->server];

    (void)timeouts;
    up->open--;
    a->channel->open--;
    if (up->closing) {
        free(a->alias);
        return;
    }
    if (status == ARES_ENOMEM || (status == ARES_ECONNREFUSED && up->shortage)) {
        up->shortage = true;
        a->left++;
        list_push_back(&up->parked, &a->node);
        return;
    }
    if (bytes == NULL || len <= 0) {
        note_silence(a, ares_text(server, status));
        attempt_next(a, ares_text(server, status));
        return;
    }
    server->answered_ms = io_now_ms(up->io);
    dns_packet_parse(&a->packet, bytes, (size_t)len, a->type);
    if (a->packet.alias != NULL) {
        attempt_follow(a);
        return;
    }
    if (a->packet.answer.status != DNS_ANSWER_FAILED) {
        if (a->ttl_s < a->packet.answer.ttl_s)
            a->packet.answer.ttl_s = a->ttl_s;
        a->packet.answer.secure &= up->validating && !a->insecure;
        attempt_done(a);
        return;
    }
    /* A definite answer: this server's other tries are not needed. */
    a->left = a->left < up->tries - 1 ? 0 : a->left - (up->tries - 1);
    attempt_next(a, a->packet.answer.error);
}

/* One of the channels that may open a socket or have not used theirs up; any where there is none,
 * since questions do not wait for each other. */
static struct channel *channel_draw(struct dns_upstream *up, struct server *server)
{
    uint32_t first = (uint32_t)rng_below(&up->rng, server->channels_len);

    for (uint32_t i = 0; i < server->channels_len; i++) {
        struct channel *channel = &server->channels[(first + i) % server->channels_len];

        if (channel->open == 0)
            channel->asked = 0;
        if (channel->asked < PORT_QUERIES)
            return channel;
    }
    return &server->channels[first];
}

static uint16_t draw_id(struct dns_upstream *up)
{
    if (up->ids_len == 0) {
        rng_fill(up->ids, sizeof(up->ids));
        up->ids_len = ARRAY_LEN(up->ids);
    }
    return up->ids[--up->ids_len];
}

/* ares_query() with the AD bit, by which a server is asked to say in that bit of its answer whether
 * it has validated it (RFC 6840 5.7). */
static void ask(struct attempt *a)
{
    struct dns_upstream *up = a->upstream;
    unsigned char *bytes = NULL;
    int len = 0;
    int rc = ares_create_query(a->name, ns_c_in, (int)a->type, draw_id(up), 1, &bytes, &len, 0);

    if (rc != ARES_SUCCESS) {
        on_ares(a, rc, 0, NULL, 0);
        return;
    }
    if (up->validating)
        bytes[HEADER_AD_BYTE] |= HEADER_AD;
    ares_send(a->channel->ares, bytes, len, on_ares, a);
    ares_free_string(bytes);
}

static void attempt_send(struct attempt *a)
{
    struct dns_upstream *up = a->upstream;

    a->channel = channel_draw(up, &up->servers[a->server]);
    a->channel->open++;
    a->channel->asked++;
    ASSERT(a->left > 0);
    a->left--;
    a->sent_ms = io_now_ms(up->io);
    up->open++;
    if (!timer_armed(&up->tick))
        wheel_arm(io_wheel(up->io), &up->tick, io_now_ms(up->io) + up->tick_ms);
    ask(a);
}

void dns_upstream_query(struct dns_upstream *up, struct dns_upstream_query *query, const char *name,
                        enum dns_type type)
{
    struct attempt *a = (struct attempt *)query->priv;

    *a = (struct attempt){
        .upstream = up,
        .name = name,
        .type = type,
        .ttl_s = UINT32_MAX,
        .server = (uint16_t)up->preferred,
        .left = up->tries * up->servers_len,
    };
    attempt_send(a);
}

/* ---- timers ---- */

static void on_deliver(struct timer *timer)
{
    struct dns_upstream *up = CONTAINER_OF(timer, struct dns_upstream, deliver);
    struct list batch;
    struct list_node *node;

    list_init(&batch);
    list_splice_back(&batch, &up->done);
    while ((node = list_pop_front(&batch)) != NULL) {
        struct attempt *a = LIST_ENTRY(node, struct attempt, node);
        struct dns_upstream_query *query =
            CONTAINER_OF((unsigned char *)a, struct dns_upstream_query, priv);
        struct dns_packet packet = a->packet; /* the handler may end the query's life */
        char *alias = a->alias;

        if (packet.answer.status == DNS_ANSWER_RECORDS && packet.answer.canonical == NULL)
            packet.answer.canonical = alias;
        query->on_answer(query, &packet.answer);
        dns_packet_done(&packet);
        free(alias);
    }
}

static void server_tick(struct server *server)
{
    for (uint32_t i = 0; i < server->channels_len; i++)
        if (server->channels[i].open > 0)
            ares_process_fd(server->channels[i].ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

/* c-ares' own ares_timeout() walks all open queries; looking at its timeouts at intervals does not.
 */
static void on_tick(struct timer *timer)
{
    struct dns_upstream *up = CONTAINER_OF(timer, struct dns_upstream, tick);

    struct list_node *node;

    for (uint32_t i = 0; i < up->servers_len; i++)
        server_tick(&up->servers[i]);
    up->shortage = false;
    while (!up->shortage && (node = list_pop_front(&up->parked)) != NULL)
        attempt_send(LIST_ENTRY(node, struct attempt, node));
    if ((up->open > 0 || !list_empty(&up->parked)) && !timer_armed(&up->tick))
        wheel_arm(io_wheel(up->io), &up->tick, io_now_ms(up->io) + up->tick_ms);
}

/* ---- life ---- */

static int from_ares(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENOMEM:
        return -ENOMEM;
    case ARES_EFILE:
        return -EIO;
    default:
        return -EINVAL;
    }
}

static int open_channel(struct channel *channel, uint32_t timeout_ms)
{
    struct ares_options options = {
        /* Error answers are read here, not skipped. */
        .flags = ARES_FLAG_NOCHECKRESP | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
        .timeout = (int)(timeout_ms + 2) / 3, /* doubled by c-ares for the second send */
        .tries = 2,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = channel,
    };

    int rc = from_ares(ares_init_options(&channel->ares, &options,
                                         ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                             ARES_OPT_SOCK_STATE_CB));

    if (rc == 0)
        ares_set_socket_functions(channel->ares, &socket_functions, channel);
    return rc;
}

static bool is_loopback(const struct ares_addr_port_node *node)
{
    return node->family == AF_INET
               ? ntohl(node->addr.addr4.s_addr) >> 24 == 127
               : memcmp(&node->addr.addr6, &in6addr_loopback, sizeof(in6addr_loopback)) == 0;
}

static void name_server(struct server *server, const struct ares_addr_port_node *node)
{
    bool v6 = node->family == AF_INET6;
    unsigned port = node->udp_port != 0 ? (unsigned)node->udp_port : 53;
    char host[INET6_ADDRSTRLEN] = "", text[INET6_ADDRSTRLEN + 10];

    (void)inet_ntop(node->family, &node->addr, host, sizeof(host));
    snprintf(text, sizeof(text), v6 ? "[%s]:%u" : "%s:%u", host, port);
    snprintf(server->silent, sizeof(server->silent), "resolver %s did not answer", text);
    snprintf(server->unreachable, sizeof(server->unreachable), "resolver %s cannot be reached",
             text);
}

/* The server at the front of node. */
static int add_server(struct dns_upstream *up, struct ares_addr_port_node node, uint32_t timeout_ms)
{
    struct server *server = &up->servers[up->servers_len];
    uint32_t channels_len = is_loopback(&node) ? 1 : CHANNELS_MAX;
    int rc = 0;

    if (up->servers_len == SERVERS_MAX)
        return -EINVAL;
    up->servers_len++;
    server->upstream = up;
    name_server(server, &node);
    node.next = NULL;
    while (rc == 0 && server->channels_len < channels_len) {
        struct channel *channel = &server->channels[server->channels_len];

        *channel = (struct channel){.server = server};
        list_init(&channel->watches);
        list_init(&channel->dead);
        rc = open_channel(channel, timeout_ms);
        if (rc < 0)
            break;
        server->channels_len++;
        rc = from_ares(ares_set_servers_ports(channel->ares, &node));
    }
    return rc;
}

/* Reads servers through a channel of c-ares, which knows resolv.conf and how servers are written.
 */
static int add_servers(struct dns_upstream *up, const char *csv, uint32_t timeout_ms)
{
    struct ares_addr_port_node *nodes = NULL;
    struct channel probe = {0};
    int rc = open_channel(&probe, timeout_ms);

    if (rc < 0)
        return rc;
    if (csv != NULL)
        rc = from_ares(ares_set_servers_ports_csv(probe.ares, csv));
    if (rc == 0)
        rc = from_ares(ares_get_servers_ports(probe.ares, &nodes));
    if (rc == 0 && nodes == NULL)
        rc = -ENOENT;
    for (struct ares_addr_port_node *node = nodes; rc == 0 && node != NULL; node = node->next)
        rc = add_server(up, *node, timeout_ms);
    if (nodes != NULL)
        ares_free_data(nodes);
    ares_destroy(probe.ares);
    return rc;
}

static int library_status;

static void library_init(void)
{
    library_status = from_ares(ares_library_init(ARES_LIB_INIT_ALL));
}

int dns_upstream_open(struct dns_upstream **out, struct io *io, const struct dns_options *options)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint32_t timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
    struct dns_upstream *up;
    int rc;

    pthread_once(&once, library_init);
    if (library_status < 0)
        return library_status;
    up = calloc(1, sizeof(*up));
    if (up == NULL)
        return -ENOMEM;
    up->io = io;
    rng_seed(&up->rng, options->seed ^ CHANNELS_MAX);
    up->tick.on_timer = on_tick;
    up->deliver.on_timer = on_deliver;
    list_init(&up->done);
    list_init(&up->parked);
    up->validating = options->validating;
    up->on_silence = options->on_silence;
    up->on_silence_arg = options->on_silence_arg;
    up->tries = options->tries != 0 ? options->tries : DEFAULT_TRIES;
    up->tick_ms = timeout_ms / 10 < TICK_MS_MAX ? timeout_ms / 10 + 1 : TICK_MS_MAX;
    rc = options->servers == NULL    ? add_servers(up, NULL, timeout_ms)
         : options->servers_len == 0 ? -ENOENT
                                     : 0;
    for (size_t i = 0; rc == 0 && options->servers != NULL && i < options->servers_len; i++)
        rc = add_servers(up, options->servers[i], timeout_ms);
    if (rc < 0) {
        dns_upstream_close(up);
        return rc;
    }
    *out = up;
    return 0;
}

static void server_close(struct server *server)
{
    struct list_node *node;

    for (uint32_t i = 0; i < server->channels_len; i++) {
        struct channel *channel = &server->channels[i];

        ares_destroy(channel->ares); /* ends its attempts; closes its sockets: watches drop */
        while ((node = list_first(&channel->watches)) != NULL)
            watch_drop(LIST_ENTRY(node, struct watch, node));
        while ((node = list_pop_front(&channel->dead)) != NULL)
            LIST_ENTRY(node, struct watch, node)->channel = NULL;
    }
}

void dns_upstream_close(struct dns_upstream *up)
{
    struct list_node *node;

    if (up == NULL)
        return;
    up->closing = true;
    for (uint32_t i = 0; i < up->servers_len; i++)
        server_close(&up->servers[i]);
    while ((node = list_pop_front(&up->done)) != NULL) {
        struct attempt *a = LIST_ENTRY(node, struct attempt, node);

        dns_packet_done(&a->packet);
        free(a->alias);
    }
    while ((node = list_pop_front(&up->parked)) != NULL)
        free(LIST_ENTRY(node, struct attempt, node)->alias);
    ASSERT(up->open == 0);
    wheel_cancel(io_wheel(up->io), &up->tick);
    wheel_cancel(io_wheel(up->io), &up->deliver);
    free(up);
}

/* The simulated network: connections of two ends over paths with latency, bandwidth, a window, and
 * segments of any size. What an end sends it hears arrive at the other in order; a close is a FIN
 * behind the data, or a RST when something was left unread.
 *
 * Handlers (on_change, on_accept) run as events of their own, never inside a net_ call. */
#ifndef HAYAUMA_TESTS_SIM_NET_H
#define HAYAUMA_TESTS_SIM_NET_H

#include <sys/socket.h>

#include "base/buf.h"
#include "base/list.h"
#include "tests/sim/sim.h"

struct net_path {
    uint64_t latency_ns, jitter_ns, byte_ns; /* byte_ns: of bandwidth */
    uint32_t segment_max;                    /* bytes; segments are 1..this */
    uint32_t window;                         /* bytes sent and not yet read */
    bool down;                               /* connects are refused */
    bool hole;                               /* connects get no answer */
};

struct net_end {
    void (*on_change)(struct net_end *end); /* readable, writable, connected or ended */
    /* The other end's program has looked at bytes of ours (net_seen()). */
    void (*on_seen)(struct net_end *end);
    void (*on_gone)(struct net_end *end); /* both ends are closed; end is freed after it */
    void *owner;
    struct net_end *peer;
    struct sockaddr_storage local, remote;
    struct buf rx; /* arrived, not read */
    bool connected, fin, reset, closed;
    int error;                       /* of connecting: -errno */
    uint64_t sent_bytes, seen_bytes; /* of ours: sent, and looked at by the other program */
    /* private */
    struct list flight; /* segments on their way here */
    uint64_t flight_bytes, last_ns;
    struct sim_event arrival, change;
    struct net_conn *conn;
};

struct net_listener {
    struct sockaddr_storage addr;
    void (*on_accept)(struct net_listener *l, struct net_end *end);
    void *owner;
    struct list_node node; /* private */
};

/* Several listeners may share an address; each connection goes to a random one. */
void net_listen(struct net_listener *l, const struct sockaddr *addr, socklen_t len);
void net_unlisten(struct net_listener *l);
/* on_change follows with connected or error. */
struct net_end *net_connect(const struct sockaddr *local, const struct sockaddr *to, socklen_t len,
                            const struct net_path *path);
/* How much was taken (0: the window is full, on_change follows), or -errno. */
ptrdiff_t net_send(struct net_end *end, const void *bytes, size_t len);
/* Takes the first len bytes of rx out. */
void net_read(struct net_end *end, size_t len);
/* The program has looked at len bytes that net_read() took. */
void net_seen(struct net_end *end, size_t len);
/* end is the network's from here on. */
void net_close(struct net_end *end, bool abort);

#endif

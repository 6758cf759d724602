/* What engine/io itself costs: request and answer over loopback, a client and a server thread with
 * an io each, one core each where there are two. Nothing is parsed; the bytes are counted.
 *
 *   io_echo [connections [seconds [request_bytes [answer_bytes]]]]     defaults 64 3 4096 64
 *
 * Prints one JSON object; CPU is per round trip and side, from the threads' own clocks. */
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "io/io.h"

#define CONNECTIONS_MAX 20000

struct end {
    struct io_op recv_op, send_op, connect_op;
    struct iovec iov;
    size_t received;
    int fd;
    struct side *side;
};

struct side {
    struct io *io;
    struct end *ends;
    size_t ends_len;
    size_t in_bytes, out_bytes; /* what is awaited, what is sent then */
    uint64_t round_trips;
    double cpu_s;
    char *out;
};

static struct side client, server;
static struct sockaddr_in server_addr;
static struct io_op acceptor;
static _Atomic bool listening, stop;
static size_t connections = 64, request_bytes = 4096, answer_bytes = 64;
static double seconds = 3;

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

static void send_out(struct end *e)
{
    e->iov = (struct iovec){e->side->out, e->side->out_bytes};
    io_send(e->side->io, &e->send_op, e->fd, &e->iov, 1);
}

static void on_sent(struct io_op *op, const struct io_event *event)
{
    (void)op;
    require(event->result > 0 || atomic_load(&stop), "send");
}

static void on_received(struct io_op *op, const struct io_event *event)
{
    struct end *e = CONTAINER_OF(op, struct end, recv_op);

    if (event->result <= 0)
        return;
    e->received += (size_t)event->result;
    if (e->received < e->side->in_bytes)
        return;
    e->received -= e->side->in_bytes;
    e->side->round_trips++;
    send_out(e);
}

static void start_end(struct end *e, struct side *side, int fd)
{
    e->side = side;
    e->fd = fd;
    e->recv_op.on_event = on_received;
    e->send_op.on_event = on_sent;
    io_recv(side->io, &e->recv_op, fd);
}

static void on_accepted(struct io_op *op, const struct io_event *event)
{
    (void)op;
    require(event->result >= 0, "accept");
    start_end(&server.ends[server.ends_len++], &server, event->result);
}

static void on_connected(struct io_op *op, const struct io_event *event)
{
    struct end *e = CONTAINER_OF(op, struct end, connect_op);

    require(event->result == 0, "connect");
    start_end(e, &client, e->fd);
    send_out(e);
}

static double thread_cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pin(size_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    (void)sched_setaffinity(0, sizeof(set), &set); /* one CPU: both share it */
}

static void open_side(struct side *side, size_t in_bytes, size_t out_bytes)
{
    struct io_options options = {0};

    side->ends = calloc(connections, sizeof(*side->ends));
    side->out = calloc(1, out_bytes);
    side->in_bytes = in_bytes;
    side->out_bytes = out_bytes;
    require(side->ends != NULL && side->out != NULL, "memory");
    require(io_open(&side->io, &options) == 0, "io_open");
}

static void *serve(void *arg)
{
    socklen_t len = sizeof(server_addr);
    int fd;

    (void)arg;
    pin(1);
    open_side(&server, request_bytes, answer_bytes);
    fd = io_listen(server.io, (struct sockaddr *)&server_addr, len, 4096, false);
    require(fd >= 0 && getsockname(fd, (struct sockaddr *)&server_addr, &len) == 0, "listen");
    acceptor.on_event = on_accepted;
    io_accept(server.io, &acceptor, fd);
    atomic_store(&listening, true);
    while (!atomic_load(&stop))
        require(io_turn(server.io, 100) == 0, "io_turn");
    server.cpu_s = thread_cpu_s();
    return NULL;
}

static void connect_all(void)
{
    open_side(&client, answer_bytes, request_bytes);
    for (size_t i = 0; i < connections; i++) {
        struct end *e = &client.ends[i];

        e->fd = io_stream(client.io, AF_INET, NULL, 0);
        require(e->fd >= 0, "socket");
        e->connect_op.on_event = on_connected;
        io_connect(client.io, &e->connect_op, e->fd, (struct sockaddr *)&server_addr,
                   sizeof(server_addr));
    }
}

int main(int argc, char **argv)
{
    pthread_t thread;
    uint64_t begin_ns, end_ns;
    double cpu_before_s;

    if (argc > 1)
        connections = strtoul(argv[1], NULL, 10);
    if (argc > 2)
        seconds = strtod(argv[2], NULL);
    if (argc > 3)
        request_bytes = strtoul(argv[3], NULL, 10);
    if (argc > 4)
        answer_bytes = strtoul(argv[4], NULL, 10);
    require(connections > 0 && connections <= CONNECTIONS_MAX && request_bytes > 0 &&
                answer_bytes > 0,
            "arguments");
    server_addr =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    pin(0);
    require(pthread_create(&thread, NULL, serve, NULL) == 0, "pthread_create");
    while (!atomic_load(&listening))
        sched_yield();
    connect_all();
    cpu_before_s = thread_cpu_s();
    begin_ns = clock_mono_ns();
    end_ns = begin_ns + (uint64_t)(seconds * 1e9);
    while (clock_mono_ns() < end_ns)
        require(io_turn(client.io, 100) == 0, "io_turn");
    client.cpu_s = thread_cpu_s() - cpu_before_s;
    seconds = (double)(clock_mono_ns() - begin_ns) * 1e-9;
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    printf("{\"benchmark\":\"io_echo\",\"connections\":%zu,\"request_bytes\":%zu,"
           "\"answer_bytes\":%zu,\"seconds\":%.2f,\"round_trips_per_s\":%.0f,"
           "\"client_cpu_us\":%.2f,\"server_cpu_us\":%.2f}\n",
           connections, request_bytes, answer_bytes, seconds, (double)client.round_trips / seconds,
           client.cpu_s * 1e6 / (double)client.round_trips,
           server.cpu_s * 1e6 / (double)client.round_trips);
    return 0;
}

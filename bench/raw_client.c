/* The ceiling: how fast one machine can push messages at a sink when nothing is queued, scheduled,
 * recorded or parsed beyond counting replies. Engines are measured as a share of this.
 *
 * It stands on io.h and not on bare liburing: measured on loopback, 3 to 8 % of its CPU is user
 * time (this program, io and liburing together), so a barer form could gain no more than noise.
 *
 * Modes: data  "<body>.CRLF MAIL RCPT DATA" in one write, one round trip a message (RFC 2920)
 *        bdat  "MAIL RCPT BDAT <body>", up to --window messages in flight (RFC 3030)
 *        plain the body, then the next envelope: two round trips a message */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/clock.h"
#include "io/io.h"

#define WINDOW_MAX  64
#define THREADS_MAX 64
#define LINE_BYTES  72

enum mode { MODE_DATA, MODE_BDAT, MODE_PLAIN };
enum step { STEP_GREETING, STEP_EHLO, STEP_ENVELOPE, STEP_BODY, STEP_CHUNKS, STEP_QUIT };

static struct {
    enum mode mode;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    uint64_t messages, body_bytes, connections, window, threads, domains;
    const char *mode_name;
} options = {.messages = 100000,
             .body_bytes = 4096,
             .connections = 64,
             .window = 4,
             .threads = 1,
             .domains = 1,
             .mode_name = "data"};

struct client {
    struct io *io;
    uint64_t left; /* messages not yet begun */
    uint64_t delivered;
    uint64_t open;
    struct connection *connections;
};

struct connection {
    struct client *client;
    struct io_op connect_op, recv_op, send_op;
    struct iovec iov[WINDOW_MAX];
    int fd;
    enum step step;
    uint32_t owed;     /* replies until the step is done */
    uint32_t sendable; /* bdat: messages that the window allows now */
    uint32_t column;   /* of the reply line being read, up to 4 */
    bool continued;    /* it is "ddd-" */
    struct buf body;   /* with its end of data */
    struct buf envelope;
    struct buf both; /* body and the next envelope, or a whole bdat message */
};

static struct client clients[THREADS_MAX];

_Noreturn static void die(const char *what, const char *detail)
{
    fprintf(stderr, "raw_client: %s: %s\n", what, detail);
    exit(1);
}

static void require(bool ok, const char *what)
{
    if (!ok)
        die(what, strerror(errno));
}

static void write_message(struct connection *c, uint64_t number)
{
    struct buf *body = &c->body;
    uint64_t domain = number % options.domains;

    buf_puts(body, "From: sender@example.org\r\nTo: recipient@example.net\r\n"
                   "Subject: raw_client\r\nMessage-ID: <raw_client@example.org>\r\n\r\n");
    while (body->len < options.body_bytes) {
        size_t n = options.body_bytes - body->len;

        n = n < LINE_BYTES + 2 ? 0 : LINE_BYTES; /* the last line takes what is left over */
        if (n == 0)
            n = options.body_bytes - body->len - (options.body_bytes - body->len >= 2 ? 2 : 0);
        for (size_t i = 0; i < n; i++)
            buf_putc(body, (char)('a' + i % 26));
        buf_puts(body, "\r\n");
    }
    buf_printf(&c->envelope,
               "MAIL FROM:<sender@example.org>\r\nRCPT TO:<recipient@d%llu.example.net>\r\n",
               (unsigned long long)domain);
    if (options.mode == MODE_BDAT) {
        buf_put_str(&c->both, buf_str(&c->envelope));
        buf_printf(&c->both, "BDAT %zu LAST\r\n", body->len);
        buf_put_str(&c->both, buf_str(body));
        return;
    }
    buf_puts(&c->envelope, "DATA\r\n");
    buf_puts(body, ".\r\n");
    buf_put_str(&c->both, buf_str(body));
    buf_put_str(&c->both, buf_str(&c->envelope));
}

static void send_bytes(struct connection *c, struct buf *bytes, enum step step, uint32_t owed)
{
    c->step = step;
    c->owed += owed;
    c->iov[0] = (struct iovec){bytes->data, bytes->len};
    io_send(c->client->io, &c->send_op, c->fd, c->iov, 1);
}

static void send_text(struct connection *c, const char *text, enum step step)
{
    c->step = step;
    c->owed++;
    c->iov[0] = (struct iovec){(void *)(uintptr_t)text, strlen(text)};
    io_send(c->client->io, &c->send_op, c->fd, c->iov, 1);
}

static bool take_message(struct connection *c)
{
    if (c->client->left == 0)
        return false;
    c->client->left--;
    return true;
}

static void send_chunks(struct connection *c)
{
    uint32_t n = 0;

    while (n < c->sendable && take_message(c))
        c->iov[n++] = (struct iovec){c->both.data, c->both.len};
    c->sendable -= n;
    c->owed += 3 * n;
    if (n > 0)
        io_send(c->client->io, &c->send_op, c->fd, c->iov, n);
    else if (c->owed == 0)
        send_text(c, "QUIT\r\n", STEP_QUIT);
}

/* The first envelope, or nothing left to do. */
static void begin(struct connection *c)
{
    if (options.mode == MODE_BDAT) {
        c->step = STEP_CHUNKS;
        c->sendable = (uint32_t)options.window;
        send_chunks(c);
    } else if (take_message(c)) {
        send_bytes(c, &c->envelope, STEP_ENVELOPE, 3);
    } else {
        send_text(c, "QUIT\r\n", STEP_QUIT);
    }
}

/* All replies of the step are here. */
static void advance(struct connection *c)
{
    switch (c->step) {
    case STEP_GREETING:
        send_text(c, "EHLO raw-client.example.org\r\n", STEP_EHLO);
        break;
    case STEP_EHLO:
        begin(c);
        break;
    case STEP_ENVELOPE:
        if (options.mode == MODE_DATA && take_message(c))
            send_bytes(c, &c->both, STEP_ENVELOPE, 4);
        else
            send_bytes(c, &c->body, STEP_BODY, 1);
        break;
    case STEP_BODY:
        begin(c);
        break;
    case STEP_QUIT:
        io_cancel(c->client->io, &c->recv_op); /* ends in hang_up() */
        break;
    case STEP_CHUNKS:
        break;
    }
}

/* The reply that ends a message: 3 replies a chunked message, the first of a data step otherwise.
 */
static void count_delivered(struct connection *c)
{
    bool first_of_four = c->step == STEP_ENVELOPE && c->owed == 4;

    if (c->step == STEP_BODY || first_of_four)
        c->client->delivered++;
    if (c->step == STEP_CHUNKS && c->owed % 3 == 1) {
        c->client->delivered++;
        c->sendable++;
    }
}

static void on_line(struct connection *c)
{
    if (c->column < 4 || c->continued)
        return;
    if (c->owed == 0)
        die("unexpected reply", "more replies than commands");
    count_delivered(c);
    c->owed--;
}

static void count_replies(struct connection *c, const uint8_t *p, size_t n)
{
    for (const uint8_t *end = p + n; p < end; p++) {
        if (c->column < 4) {
            if (c->column == 0 && *p != '2' && *p != '3')
                die("refused", "a reply that begins with another digit than 2 or 3");
            c->continued = *p == '-';
            c->column++;
            continue;
        }
        p = memchr(p, '\n', (size_t)(end - p));
        if (p == NULL)
            return;
        on_line(c);
        c->column = 0;
    }
}

static void hang_up(struct connection *c)
{
    if (io_op_busy(&c->recv_op) || io_op_busy(&c->send_op))
        return;
    io_close_fd(c->client->io, c->fd, false);
    c->client->open--;
}

static void on_received(struct io_op *op, const struct io_event *event)
{
    struct connection *c = CONTAINER_OF(op, struct connection, recv_op);

    if (event->result <= 0) {
        if (c->step != STEP_QUIT || c->owed > 0)
            die("connection lost", event->result == 0 ? "closed" : strerror(-event->result));
        hang_up(c);
        return;
    }
    count_replies(c, event->data, (size_t)event->result);
    if (io_op_busy(&c->send_op)) /* on_sent() goes on */
        return;
    if (c->step == STEP_CHUNKS)
        send_chunks(c);
    else if (c->owed == 0)
        advance(c);
}

static void on_sent(struct io_op *op, const struct io_event *event)
{
    struct connection *c = CONTAINER_OF(op, struct connection, send_op);

    if (event->result < 0)
        die("send", strerror(-event->result));
    if (c->step == STEP_CHUNKS)
        send_chunks(c);
    else if (c->owed == 0)
        advance(c);
    if (!io_op_busy(&c->recv_op))
        hang_up(c);
}

static void on_connected(struct io_op *op, const struct io_event *event)
{
    struct connection *c = CONTAINER_OF(op, struct connection, connect_op);

    if (event->result < 0)
        die("connect", strerror(-event->result));
    c->owed = 1;
    io_recv(c->client->io, &c->recv_op, c->fd);
}

static void open_connection(struct client *client, struct connection *c, uint64_t number)
{
    c->client = client;
    c->fd = io_stream(client->io, options.addr.ss_family, NULL, 0);
    if (c->fd < 0)
        die("socket", strerror(-c->fd));
    write_message(c, number);
    c->connect_op.on_event = on_connected;
    c->recv_op.on_event = on_received;
    c->send_op.on_event = on_sent;
    io_connect(client->io, &c->connect_op, c->fd, (struct sockaddr *)&options.addr,
               options.addr_len);
}

static void *run_client(void *arg)
{
    struct client *client = arg;
    uint64_t index = (uint64_t)(client - clients);
    struct io_options io_options = {0};
    int rc = io_open(&client->io, &io_options);

    if (rc < 0)
        die("io_uring", io_why_unavailable(rc));
    client->left = options.messages / options.threads;
    client->open = options.connections / options.threads;
    client->connections = calloc(client->open, sizeof(*client->connections));
    require(client->connections != NULL, "memory");
    for (uint64_t i = 0; i < client->open; i++)
        open_connection(client, &client->connections[i], index * client->open + i);
    while (client->open > 0) {
        rc = io_turn(client->io, 1000);
        if (rc < 0)
            die("io_turn", strerror(-rc));
    }
    io_close(client->io);
    return NULL;
}

static uint64_t number_of(const char *text, uint64_t min, uint64_t max)
{
    uint64_t value;

    if (str_to_u64(str_of(text), max, &value) < 0 || value < min)
        die("not a number in range", text);
    return value;
}

static void set_address(const char *host, const char *port)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&options.addr;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&options.addr;
    uint16_t port_be = htons((uint16_t)number_of(port, 1, 65535));

    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = port_be;
        options.addr_len = sizeof(*in);
    } else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = port_be;
        options.addr_len = sizeof(*in6);
    } else {
        die("not an IP address", host);
    }
}

static void set_mode(const char *name)
{
    static const char *const names[] = {"data", "bdat", "plain"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], name) == 0) {
            options.mode = (enum mode)i;
            options.mode_name = names[i];
            return;
        }
    }
    die("unknown mode", name);
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option longs[] = {
        {"messages", required_argument, NULL, 'n'},    {"bytes", required_argument, NULL, 's'},
        {"connections", required_argument, NULL, 'c'}, {"mode", required_argument, NULL, 'm'},
        {"window", required_argument, NULL, 'w'},      {"threads", required_argument, NULL, 't'},
        {"domains", required_argument, NULL, 'd'},     {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 'n':
            options.messages = number_of(optarg, 1, UINT32_MAX);
            break;
        case 's':
            options.body_bytes = number_of(optarg, 200, 1 << 26);
            break;
        case 'c':
            options.connections = number_of(optarg, 1, 60000);
            break;
        case 'm':
            set_mode(optarg);
            break;
        case 'w':
            options.window = number_of(optarg, 1, WINDOW_MAX);
            break;
        case 't':
            options.threads = number_of(optarg, 1, THREADS_MAX);
            break;
        case 'd':
            options.domains = number_of(optarg, 1, UINT32_MAX);
            break;
        default:
            exit(2);
        }
    }
    if (argc - optind != 2 || options.connections < options.threads) {
        fprintf(stderr, "usage: raw_client [--messages N] [--bytes N] [--connections N] "
                        "[--mode data|bdat|plain]\n"
                        "                  [--window N] [--threads N] [--domains N] ip port\n");
        exit(2);
    }
    set_address(argv[optind], argv[optind + 1]);
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS_MAX];
    struct rusage usage;
    uint64_t begin_ns, delivered = 0;
    double seconds, cpu_s;

    parse_arguments(argc, argv);
    begin_ns = clock_mono_ns();
    for (uint64_t i = 0; i < options.threads; i++)
        require(pthread_create(&threads[i], NULL, run_client, &clients[i]) == 0, "pthread_create");
    for (uint64_t i = 0; i < options.threads; i++) {
        pthread_join(threads[i], NULL);
        delivered += clients[i].delivered;
    }
    seconds = (double)(clock_mono_ns() - begin_ns) * 1e-9;
    getrusage(RUSAGE_SELF, &usage);
    cpu_s = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
    printf("{\"benchmark\":\"raw_client\",\"mode\":\"%s\",\"messages\":%llu,\"bytes\":%llu,"
           "\"connections\":%llu,\"window\":%llu,\"threads\":%llu,\"seconds\":%.3f,"
           "\"messages_per_s\":%.0f,\"cpu_us_per_message\":%.2f,\"user_us_per_message\":%.2f}\n",
           options.mode_name, (unsigned long long)delivered, (unsigned long long)options.body_bytes,
           (unsigned long long)options.connections,
           (unsigned long long)(options.mode == MODE_BDAT ? options.window : 1),
           (unsigned long long)options.threads, seconds, (double)delivered / seconds,
           cpu_s * 1e6 / (double)delivered, seconds_of(usage.ru_utime) * 1e6 / (double)delivered);
    return 0;
}

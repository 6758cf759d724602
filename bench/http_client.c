/* Sends letters to one recipient each by POST /api/inject/v1, over connections that are kept, one
 * request in flight on each: what bench/run measures injections over HTTP with. It ends at once
 * when an answer says anything but that the letter was taken. A connection that the server closes
 * without an answer is counted, and its request is sent again by another.
 *
 *   http_client [--requests N] [--bytes N] [--connections N] [--domains N] [--token T] ip port
 *
 * bytes: of the letter, about. Prints one JSON object. One thread. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/clock.h"
#include "io/io.h"

#define HEADER_BYTES 420 /* of a letter: what is not its text */
#define LINE_BYTES   70
#define NUMBER       "0000000000" /* replaced by a number of as many digits */
#define NUMBERS_MAX  3

static struct {
    struct sockaddr_in addr;
    uint64_t requests, bytes, connections, domains;
    const char *token;
} options = {.requests = 100000, .bytes = 4096, .connections = 64, .domains = 100};

struct connection {
    struct io_op connect_op, recv_op, send_op;
    struct iovec iov;
    int fd;
    bool asked;                 /* a request is under way, */
    uint64_t asked_ns, answers; /* since when, and behind how many that were answered */
    struct buf request, answer;
    size_t number_at[NUMBERS_MAX]; /* in request: the domain's, then the letter's */
};

static struct io *io;
static uint64_t begun, taken, lost, open_connections;

_Noreturn static void die(const char *what, const char *detail)
{
    fprintf(stderr, "http_client: %s: %s\n", what, detail);
    exit(1);
}

/* --- a request --- */

static void put_body(struct buf *out)
{
    size_t text = options.bytes > HEADER_BYTES ? options.bytes - HEADER_BYTES : 1, line = 0;

    buf_puts(
        out,
        "{\"envelope_sender\":\"news@sender.example\",\"recipients\":[{\"email\":\"u" NUMBER
        "@d" NUMBER ".example\",\"name\":\"Hanako Yamada\",\"substitutions\":{\"code\":\"" NUMBER
        "\"}}],\"content\":{\"from\":{\"email\":\"news@sender.example\",\"name\":\"News\"},"
        "\"subject\":\"{{ name }}, your order {{ code }}\",\"text_body\":\"Dear {{ name }},\\n");
    for (size_t n = 0; n < text; n++, line++) {
        if (line == LINE_BYTES) {
            buf_puts(out, "\\n");
            n++; /* it becomes CR LF */
            line = 0;
        } else {
            buf_putc(out, (char)('a' + line % 26));
        }
    }
    buf_puts(out, "\\n\"}}");
}

static void request_make(struct connection *c)
{
    struct buf body = {0};
    size_t at = 0;

    put_body(&body);
    buf_puts(&c->request, "POST /api/inject/v1 HTTP/1.1\r\nHost: localhost\r\n");
    if (options.token != NULL)
        buf_printf(&c->request, "Authorization: Bearer %s\r\n", options.token);
    buf_printf(&c->request, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
               body.len);
    buf_put_str(&c->request, buf_str(&body));
    buf_done(&body);
    for (size_t i = 0; i < NUMBERS_MAX; i++) {
        struct str rest = {(char *)c->request.data + at, c->request.len - at};
        const char *found = memmem(rest.ptr, rest.len, NUMBER, sizeof(NUMBER) - 1);

        if (found == NULL)
            die("request", "a number is missing");
        c->number_at[i] = at = (size_t)(found - (char *)c->request.data);
        at += sizeof(NUMBER) - 1;
    }
}

static void put_number(struct connection *c, size_t which, uint64_t number)
{
    char text[32];

    snprintf(text, sizeof(text), "%010llu", (unsigned long long)number);
    memcpy(c->request.data + c->number_at[which], text, sizeof(NUMBER) - 1);
}

static void hang_up(struct connection *c)
{
    if (io_op_busy(&c->recv_op) || io_op_busy(&c->send_op))
        return;
    io_close_fd(io, c->fd, false);
    open_connections--;
}

static void next_request(struct connection *c)
{
    if (begun == options.requests) {
        io_cancel(io, &c->recv_op); /* ends in hang_up() */
        return;
    }
    put_number(c, 0, begun);
    put_number(c, 1, begun % options.domains + 1);
    put_number(c, 2, begun);
    begun++;
    c->asked = true;
    c->asked_ns = clock_mono_ns();
    buf_clear(&c->answer);
    c->iov = (struct iovec){c->request.data, c->request.len};
    io_send(io, &c->send_op, c->fd, &c->iov, 1);
}

/* --- an answer --- */

/* Whether it is whole; then it says that the letter was taken. */
static bool answer_read(struct connection *c)
{
    static const char field[] = "Content-Length: ",
                      good[] = "{\"success_count\":1,\"fail_count\":0,";
    const char *end, *length, *text = (char *)c->answer.data;
    size_t head, len;

    end = memmem(text, c->answer.len, "\r\n\r\n", 4);
    if (end == NULL)
        return false;
    head = (size_t)(end - text) + 4;
    length = memmem(text, head, field, sizeof(field) - 1);
    if (length == NULL)
        die("an answer", "no Content-Length");
    len = strtoul(length + sizeof(field) - 1, NULL, 10);
    if (c->answer.len < head + len)
        return false;
    buf_putc(&c->answer, '\0');
    text = (char *)c->answer.data;
    if (c->answer.len != head + len + 1 || strncmp(text, "HTTP/1.1 200 ", 13) != 0 ||
        strncmp(text + head, good, sizeof(good) - 1) != 0)
        die("an answer", text);
    return true;
}

static void on_received(struct io_op *op, const struct io_event *event)
{
    struct connection *c = CONTAINER_OF(op, struct connection, recv_op);

    if (event->result <= 0) {
        if (c->asked && (event->result < 0 || c->answer.len > 0 || open_connections == 1))
            die("connection lost", event->result == 0 ? "closed" : strerror(-event->result));
        if (c->asked) { /* the server's timeouts are 30 s (idle) and 2 min (a request) */
            fprintf(stderr, "http_client: closed %.3f s after request %llu of its connection\n",
                    (double)(clock_mono_ns() - c->asked_ns) * 1e-9,
                    (unsigned long long)c->answers + 1);
            lost++;
            begun--;
        }
        hang_up(c);
        return;
    }
    buf_put(&c->answer, event->data, (size_t)event->result);
    if (!answer_read(c))
        return;
    if (!c->asked || io_op_busy(&c->send_op))
        die("an answer", "before the request was sent");
    taken++;
    c->answers++;
    c->asked = false;
    next_request(c);
}

static void on_sent(struct io_op *op, const struct io_event *event)
{
    if (event->result < 0)
        die("send", strerror(-event->result));
    if (!io_op_busy(&CONTAINER_OF(op, struct connection, send_op)->recv_op))
        hang_up(CONTAINER_OF(op, struct connection, send_op));
}

static void on_connected(struct io_op *op, const struct io_event *event)
{
    struct connection *c = CONTAINER_OF(op, struct connection, connect_op);

    if (event->result < 0)
        die("connect", strerror(-event->result));
    io_recv(io, &c->recv_op, c->fd);
    next_request(c);
}

static void connection_open(struct connection *c)
{
    c->fd = io_stream(io, AF_INET, NULL, 0);
    if (c->fd < 0)
        die("socket", strerror(-c->fd));
    request_make(c);
    c->connect_op.on_event = on_connected;
    c->recv_op.on_event = on_received;
    c->send_op.on_event = on_sent;
    io_connect(io, &c->connect_op, c->fd, (struct sockaddr *)&options.addr, sizeof(options.addr));
}

/* --- options --- */

static uint64_t number_of(const char *text, uint64_t min, uint64_t max)
{
    uint64_t value;

    if (str_to_u64(str_of(text), max, &value) < 0 || value < min)
        die("not a number in range", text);
    return value;
}

static void parse_arguments(int argc, char **argv)
{
    static const struct option longs[] = {
        {"requests", required_argument, NULL, 'n'},    {"bytes", required_argument, NULL, 's'},
        {"connections", required_argument, NULL, 'c'}, {"domains", required_argument, NULL, 'd'},
        {"token", required_argument, NULL, 't'},       {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 'n':
            options.requests = number_of(optarg, 1, UINT32_MAX);
            break;
        case 's':
            options.bytes = number_of(optarg, 1, 1 << 26);
            break;
        case 'c':
            options.connections = number_of(optarg, 1, 10000);
            break;
        case 'd':
            options.domains = number_of(optarg, 1, UINT32_MAX);
            break;
        case 't':
            options.token = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (argc - optind != 2 || inet_pton(AF_INET, argv[optind], &options.addr.sin_addr) != 1) {
        fprintf(stderr, "usage: http_client [--requests N] [--bytes N] [--connections N] "
                        "[--domains N] [--token T] ip port\n");
        exit(2);
    }
    options.addr.sin_family = AF_INET;
    options.addr.sin_port = htons((uint16_t)number_of(argv[optind + 1], 1, 65535));
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

int main(int argc, char **argv)
{
    struct io_options io_options = {0};
    struct connection *connections;
    struct rusage usage;
    uint64_t begin_ns;
    double seconds;
    int err;

    parse_arguments(argc, argv);
    err = io_open(&io, &io_options);
    if (err < 0)
        die("io_uring", io_why_unavailable(err));
    connections = calloc(options.connections, sizeof(*connections));
    if (connections == NULL)
        die("memory", strerror(ENOMEM));
    begin_ns = clock_mono_ns();
    open_connections = options.connections;
    for (uint64_t i = 0; i < options.connections; i++)
        connection_open(&connections[i]);
    while (open_connections > 0) {
        err = io_turn(io, 1000);
        if (err < 0)
            die("io_turn", strerror(-err));
    }
    seconds = (double)(clock_mono_ns() - begin_ns) * 1e-9;
    io_close(io);
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"benchmark\":\"http_client\",\"requests\":%llu,\"bytes\":%llu,\"connections\":%llu,"
           "\"lost\":%llu,\"seconds\":%.3f,\"requests_per_s\":%.0f,\"cpu_us_per_request\":%.2f}\n",
           (unsigned long long)taken, (unsigned long long)options.bytes,
           (unsigned long long)options.connections, (unsigned long long)lost, seconds,
           (double)taken / seconds,
           (seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime)) * 1e6 / (double)taken);
    return 0;
}

/* What a queue full of holes costs: large messages come and go in an empty queue, then in one that
 * was filled with small ones of which a random half was removed; and what a small message writes.
 *
 *   queue_holes --path DIR [--fill N] [--messages N]
 *
 * --fill: small messages (4 KiB), default 300,000; --messages: large ones (50 KiB), default 10,000,
 * accepted 64 at a time, settled 64 at a time behind them. DIR is made. Prints one JSON object:
 * rates, CPU of all threads and bytes that the disk wrote, a message: on a quiet machine. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "queue/queue.h"

#define BATCH       64
#define SMALL_BYTES 4096
#define LARGE_BYTES (50u << 10)
#define LINE_BYTES  650 /* of a record */

struct holes {
    struct queue *q;
    struct queue_port *port;
    const char *path;
    struct msgid_source ids;
    struct recipient **rcpts; /* stored, oldest first */
    size_t first, len, under_way;
    struct buf line;
    int event;
};

struct unit {
    struct queue_change change;
    struct holes *holes;
    struct message *message;
    struct queue_row rows[BATCH];
};

struct cost {
    double seconds, cpu_us, bytes;
};

static void wake(void *arg)
{
    if (write(((struct holes *)arg)->event, &(uint64_t){1}, sizeof(uint64_t)) < 0)
        abort();
}

static void *need(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static void on_done(struct queue_change *change, int result)
{
    struct unit *u = change->owner;

    if (result < 0) {
        fprintf(stderr, "queue_holes: %s\n", strerror(-result));
        exit(1);
    }
    u->holes->under_way--;
    if (u->message == NULL)
        for (size_t i = 0; i < change->rows_len; i++)
            recipient_free(change->rows[i].rcpt);
    message_unref(u->message);
    buf_done(&change->records);
    free(u);
}

static void wait_all(struct holes *h)
{
    uint64_t count;

    while (h->under_way > 0)
        if (queue_port_poll(h->port) == 0 && read(h->event, &count, sizeof(count)) < 0)
            abort();
}

static struct unit *unit_new(struct holes *h)
{
    struct unit *u = need(calloc(1, sizeof(*u)));

    u->holes = h;
    u->change =
        (struct queue_change){.rows = u->rows, .urgent = true, .on_done = on_done, .owner = u};
    h->under_way++;
    return u;
}

static void accept_one(struct holes *h, size_t bytes)
{
    struct unit *u = unit_new(h);
    int64_t now_ms = clock_wall_ms();
    struct message fields = {.id = msgid_next(&h->ids, now_ms),
                             .created_ms = now_ms,
                             .priority = 5,
                             .recipients = 1,
                             .sender = STR("news@sender.example"),
                             .protocol = STR("ESMTP"),
                             .origin = STR("127.0.0.1:25"),
                             .content = need(malloc(bytes)),
                             .content_len = bytes};
    char domain[40];
    struct recipient *r;

    memset(fields.content, 'x', bytes);
    u->message = need(message_new(&fields));
    snprintf(domain, sizeof(domain), "domain%u.example", (unsigned)(h->len % 100));
    r = need(recipient_new(u->message, 0, str_of(domain), STR("somebody@domain.example"),
                           (struct str){0}, (struct str){0}));
    r->due_ms = now_ms;
    u->rows[0] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
    u->change.rows_len = 1;
    u->change.messages = &u->message;
    u->change.messages_len = 1;
    buf_put(&u->change.records, h->line.data, h->line.len);
    h->rcpts[h->len++] = r;
    queue_submit(h->port, 0, &u->change);
}

static void settle(struct holes *h, size_t n)
{
    struct unit *u = unit_new(h);

    for (size_t i = 0; i < n; i++) {
        struct recipient *r = h->rcpts[h->first++];

        u->rows[i] =
            (struct queue_row){.kind = QUEUE_ROW_REMOVE, .rcpt = r, .old_due_ms = r->due_ms};
        buf_put(&u->change.records, h->line.data, h->line.len);
    }
    u->change.rows_len = n;
    queue_submit(h->port, 0, &u->change);
}

static double cpu_us(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

/* By the disk of the queue, by whomever: /proc/self/io counts whole folios, which are up to 2 MiB
 * on ext4, for one page of them. 0: the file system is on no disk of its own. */
static double written(const struct holes *h)
{
    unsigned long long sectors = 0;
    char name[60];
    struct stat st;
    FILE *f;

    if (stat(h->path, &st) < 0)
        return 0;
    snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/stat", major(st.st_dev), minor(st.st_dev));
    f = fopen(name, "r");
    if (f != NULL && fscanf(f, "%*u %*u %*u %*u %*u %*u %llu", &sectors) != 1)
        sectors = 0;
    if (f != NULL)
        fclose(f);
    return (double)sectors * 512;
}

/* n messages come and go. */
static struct cost stream(struct holes *h, size_t n, size_t bytes)
{
    struct cost c = {-(double)clock_mono_ns() / 1e9, -cpu_us(), -written(h)};

    for (size_t i = 0; i < n; i += BATCH) {
        for (size_t k = 0; k < BATCH; k++)
            accept_one(h, bytes);
        if (i > 0)
            settle(h, BATCH);
        wait_all(h);
    }
    c.seconds += (double)clock_mono_ns() / 1e9;
    c.cpu_us += cpu_us();
    c.bytes += written(h);
    c.cpu_us /= (double)n;
    c.bytes /= (double)n;
    while (h->first < h->len) {
        settle(h, h->len - h->first < BATCH ? h->len - h->first : BATCH);
        wait_all(h);
    }
    h->first = h->len = 0;
    return c;
}

static void fill(struct holes *h, size_t n)
{
    struct rng rng;

    rng_seed(&rng, 1);
    for (size_t i = 0; i < n; i++) {
        accept_one(h, SMALL_BYTES);
        if (h->under_way == 512)
            wait_all(h);
    }
    wait_all(h);
    for (size_t i = n - 1; i > 0; i--) { /* which ones stay is drawn */
        size_t k = (size_t)rng_below(&rng, i + 1);
        struct recipient *r = h->rcpts[i];

        h->rcpts[i] = h->rcpts[k];
        h->rcpts[k] = r;
    }
    while (h->first < n / 2) {
        settle(h, BATCH);
        wait_all(h);
    }
    while (h->first < h->len)
        recipient_free(h->rcpts[h->first++]);
    h->first = h->len = 0;
}

static void show(const char *name, const struct cost *c, size_t n, const char *behind)
{
    printf("\"%s\": {\"per_s\": %.0f, \"cpu_us\": %.1f, \"written_bytes\": %.0f}%s", name,
           (double)n / c->seconds, c->cpu_us, c->bytes, behind);
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {{"path", required_argument, NULL, 'p'},
                                          {"fill", required_argument, NULL, 'f'},
                                          {"messages", required_argument, NULL, 'm'},
                                          {0}};
    struct queue_options options = {.shards = 1};
    size_t n_fill = 300000, n = 10000;
    struct cost small, empty, full;
    struct holes h = {0};
    const char *error = NULL;
    char *records;
    int opt;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (opt == 'p')
            options.path = optarg;
        else if (opt == 'f')
            n_fill = strtoull(optarg, NULL, 10);
        else if (opt == 'm')
            n = strtoull(optarg, NULL, 10);
        else
            return 2;
    }
    if (options.path == NULL || asprintf(&records, "%s/records", options.path) < 0)
        return 2;
    options.records.path = records;
    h.path = options.path;
    h.event = eventfd(0, EFD_CLOEXEC);
    if (queue_open(&h.q, &options, &error) < 0 || queue_port_open(&h.port, h.q, wake, &h) < 0) {
        fprintf(stderr, "queue_holes: %s\n", error);
        return 1;
    }
    h.rcpts = need(calloc(n_fill + n * 4 + 4096, sizeof(struct recipient *)));
    msgid_source_init(&h.ids, 1);
    for (size_t i = 0; i < LINE_BYTES; i++)
        buf_putc(&h.line, i + 1 == LINE_BYTES ? '\n' : 'r');
    small = stream(&h, 4 * n, SMALL_BYTES);
    empty = stream(&h, n, LARGE_BYTES);
    fill(&h, n_fill);
    full = stream(&h, n, LARGE_BYTES);
    printf("{");
    show("small", &small, 4 * n, ", ");
    show("empty", &empty, n, ", ");
    show("holes", &full, n, "}\n");
    free(h.rcpts);
    buf_done(&h.line);
    queue_port_close(h.port);
    queue_close(h.q);
    return 0;
}

/* Fills a queue directory through queue.h: recipients over domains, each with content of its own or
 * all with one. Prepares what the drain and the ten-million benches start from.
 *
 *   queue_fill --path DIR [--recipients N] [--domains D] [--size BYTES] [--shared]
 *              [--shards S] [--due-ms T] [--drain] [--look]
 *
 * More than 100,000 domains come in the order of their names, with as many digits each: a lane for
 * each recipient is filled as fast as few lanes are then.
 * --look: fills nothing; how soon an existing queue answers after the start, and with what memory.
 * --shared: one message per domain's shard for all its recipients. --drain: afterwards loads and
 * removes everything again. Prints one JSON object. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/queue.h"

#define ROWS_PER_CHANGE 256
#define CHANGES_OPEN    64 /* in flight: several batches' worth */
#define DOMAINS_PLAIN   100000

struct fill {
    struct queue *q;
    struct queue_port *port;
    uint64_t recipients, domains, size;
    uint32_t shards;
    bool shared, drain, look;
    int64_t due_ms;
    struct msgid_source ids;
    struct message **templates; /* by shard, when shared */
    uint32_t *template_rows;
    size_t changes_open;
    uint64_t failed, drained;
};

struct unit {
    struct queue_change change;
    struct fill *fill;
    struct message *messages[ROWS_PER_CHANGE];
    struct queue_row rows[ROWS_PER_CHANGE];
};

static void die(const char *what, int err)
{
    fprintf(stderr, "queue_fill: %s: %s\n", what, strerror(-err));
    exit(1);
}

static void *need(void *p)
{
    if (p == NULL)
        die("memory", -ENOMEM);
    return p;
}

static void on_done(struct queue_change *change, int result)
{
    struct unit *unit = change->owner;

    unit->fill->changes_open--;
    unit->fill->failed += result < 0;
    for (size_t i = 0; i < change->messages_len; i++)
        message_unref(change->messages[i]);
    for (size_t i = 0; i < change->rows_len; i++)
        recipient_free(change->rows[i].rcpt);
    free(unit);
}

static void wait_open_below(struct fill *f, size_t limit)
{
    while (f->changes_open >= limit) {
        if (queue_port_poll(f->port) == 0)
            poll(NULL, 0, 1);
    }
}

static struct message *make_message(struct fill *f, uint32_t recipients)
{
    struct message fields = {.id = msgid_next(&f->ids, clock_wall_ms()),
                             .created_ms = clock_wall_ms(),
                             .priority = 5,
                             .recipients = recipients,
                             .sender = STR("news@sender.example"),
                             .protocol = STR("ESMTP"),
                             .origin = STR("127.0.0.1:25"),
                             .content_len = f->size};

    static const char head[] = "From: news@sender.example\r\nSubject: bench\r\n\r\n";

    fields.content = need(malloc(f->size + 2));
    for (size_t i = 0; i < f->size; i++)
        fields.content[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : (uint8_t)('a' + i % 26);
    if (f->size > sizeof(head) + 2) {
        memcpy(fields.content, head, sizeof(head) - 1);
        memcpy(fields.content + f->size - 2, "\r\n", 2);
    }
    return need(message_new(&fields));
}

static struct unit *new_unit(struct fill *f)
{
    struct unit *unit = need(calloc(1, sizeof(*unit)));

    unit->fill = f;
    unit->change = (struct queue_change){.messages = unit->messages,
                                         .rows = unit->rows,
                                         .on_done = on_done,
                                         .owner = unit,
                                         .urgent = true};
    return unit;
}

static void submit(struct fill *f, uint32_t shard, struct unit *unit)
{
    f->changes_open++;
    queue_submit(f->port, shard, &unit->change);
    wait_open_below(f, CHANGES_OPEN);
}

static void add_row(struct fill *f, struct unit *unit, uint32_t shard, const char *domain,
                    uint64_t number)
{
    size_t n = unit->change.rows_len++;
    char address[64];
    struct message *m;
    uint32_t index = 0;

    if (f->shared) {
        m = f->templates[shard];
        index = f->template_rows[shard]++;
        if (index == 0)
            unit->messages[unit->change.messages_len++] = message_ref(m);
        message_ref(m);
    } else {
        m = make_message(f, 1);
        unit->messages[unit->change.messages_len++] = message_ref(m);
    }
    snprintf(address, sizeof(address), "user%llu@%s", (unsigned long long)number, domain);
    unit->rows[n] =
        (struct queue_row){.kind = QUEUE_ROW_ADD,
                           .rcpt = need(recipient_new(m, index, str_of(domain), str_of(address),
                                                      (struct str){0}, (struct str){0}))};
    unit->rows[n].rcpt->due_ms = f->due_ms;
    unit->rows[n].rcpt->lifetime_s = 5 * 86400;
    message_unref(m);
}

/* Recipients come in order, domain by domain in turn, as a list sorted by nothing would. */
static void fill(struct fill *f)
{
    struct unit **units = need(calloc(f->shards, sizeof(struct unit *)));
    char domain[32];

    for (uint64_t i = 0; i < f->recipients; i++) {
        uint32_t shard;

        snprintf(domain, sizeof(domain), "d%0*llu.example", f->domains > DOMAINS_PLAIN ? 8 : 1,
                 (unsigned long long)(i % f->domains));
        shard = queue_shard_of(f->q, str_of(domain));
        if (units[shard] == NULL)
            units[shard] = new_unit(f);
        add_row(f, units[shard], shard, domain, i);
        if (units[shard]->change.rows_len == ROWS_PER_CHANGE) {
            submit(f, shard, units[shard]);
            units[shard] = NULL;
        }
    }
    for (uint32_t i = 0; i < f->shards; i++) {
        if (units[i] != NULL)
            submit(f, i, units[i]);
    }
    wait_open_below(f, 1);
    free(units);
}

struct drain_load {
    struct queue_load load;
    bool done;
};

static void on_load(struct queue_load *load, int result)
{
    if (result < 0)
        die("load", result);
    ((struct drain_load *)load->owner)->done = true;
}

static void drain_lane(struct fill *f, uint32_t shard, const char *domain)
{
    struct drain_load d = {.load = {.queue = str_of(domain),
                                    .now_ms = f->due_ms,
                                    .rows_max = ROWS_PER_CHANGE,
                                    .bytes_max = 16u << 20,
                                    .on_done = on_load,
                                    .owner = &d}};

    do {
        struct unit *unit = new_unit(f);
        struct list_node *node;

        d.done = false;
        queue_load(f->port, shard, &d.load);
        while (!d.done) {
            if (queue_port_poll(f->port) == 0)
                poll(NULL, 0, 1);
        }
        while ((node = list_pop_front(&d.load.rcpts)) != NULL) {
            struct recipient *r = CONTAINER_OF(node, struct recipient, node);

            unit->rows[unit->change.rows_len++] =
                (struct queue_row){.kind = QUEUE_ROW_REMOVE, .rcpt = r, .old_due_ms = r->due_ms};
            f->drained++;
        }
        submit(f, shard, unit);
    } while (!d.load.end);
}

static double cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *s = fopen("/proc/self/statm", "re");

    if (s == NULL || fscanf(s, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    if (s != NULL)
        fclose(s);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void report(const char *what, uint64_t n, uint64_t began_ns, double cpu_began)
{
    double seconds = (double)(clock_mono_ns() - began_ns) * 1e-9;

    printf("\"%s\":{\"recipients\":%llu,\"seconds\":%.3f,\"per_second\":%.0f,"
           "\"cpu_us_each\":%.2f,\"resident_mib\":%llu}",
           what, (unsigned long long)n, seconds, (double)n / seconds,
           (cpu_s() - cpu_began) * 1e6 / (double)(n > 0 ? n : 1),
           (unsigned long long)(resident_bytes() >> 20));
}

static void run(struct fill *f)
{
    uint64_t began = clock_mono_ns();
    double cpu = cpu_s();
    char domain[32];

    fill(f);
    report("fill", f->recipients, began, cpu);
    if (f->drain) {
        began = clock_mono_ns();
        cpu = cpu_s();
        for (uint64_t i = 0; i < f->domains; i++) {
            snprintf(domain, sizeof(domain), "d%llu.example", (unsigned long long)i);
            drain_lane(f, queue_shard_of(f->q, str_of(domain)), domain);
        }
        wait_open_below(f, 1);
        printf(",");
        report("drain", f->drained, began, cpu);
    }
}

static void on_directory(struct queue_directory *d, int result)
{
    if (result < 0)
        die("directory", result);
    *(bool *)d->owner = true;
}

static void wait_done(struct fill *f, const bool *done)
{
    while (!*done) {
        if (queue_port_poll(f->port) == 0)
            poll(NULL, 0, 1);
    }
}

static uint64_t count_lanes(struct fill *f, uint32_t shard)
{
    bool done = false;
    struct queue_directory d = {.lanes_max = 1u << 20, .on_done = on_directory, .owner = &done};
    uint64_t lanes;

    queue_directory(f->port, shard, &d);
    wait_done(f, &done);
    lanes = d.lanes_len;
    queue_directory_done(&d);
    return lanes;
}

static void load_some(struct fill *f)
{
    struct drain_load l = {.load = {.queue = STR("d1.example"),
                                    .now_ms = f->due_ms,
                                    .rows_max = 100,
                                    .bytes_max = 1u << 20,
                                    .on_done = on_load,
                                    .owner = &l}};
    struct list_node *node;

    queue_load(f->port, queue_shard_of(f->q, l.load.queue), &l.load);
    wait_done(f, &l.done);
    while ((node = list_pop_front(&l.load.rcpts)) != NULL)
        recipient_free(CONTAINER_OF(node, struct recipient, node));
}

/* Times from the start of queue_open(): the directory of all shards, the first rows, the counts. */
static void look(struct fill *f, uint64_t began_ns)
{
    uint64_t directory_ns, load_ns, lanes = 0, rows = 0;
    struct queue_counters counters;

    for (uint32_t i = 0; i < f->shards; i++)
        lanes += count_lanes(f, i);
    directory_ns = clock_mono_ns() - began_ns;
    load_some(f);
    load_ns = clock_mono_ns() - began_ns;
    for (uint32_t i = 0; i < f->shards; i++) {
        do {
            poll(NULL, 0, 10);
            queue_counters(f->q, i, &counters);
        } while (!counters.rows_complete);
        rows += counters.rows;
    }
    printf("\"look\":{\"rows\":%llu,\"lanes\":%llu,\"directory_ms\":%.1f,\"first_load_ms\":%.1f,"
           "\"counted_ms\":%.1f,\"resident_mib\":%llu}",
           (unsigned long long)rows, (unsigned long long)lanes, (double)directory_ns * 1e-6,
           (double)load_ns * 1e-6, (double)(clock_mono_ns() - began_ns) * 1e-6,
           (unsigned long long)(resident_bytes() >> 20));
}

static void parse(struct fill *f, struct queue_options *o, int argc, char **argv)
{
    static const struct option options[] = {{"path", 1, NULL, 'p'},    {"recipients", 1, NULL, 'r'},
                                            {"domains", 1, NULL, 'd'}, {"size", 1, NULL, 's'},
                                            {"shared", 0, NULL, 'S'},  {"shards", 1, NULL, 'n'},
                                            {"due-ms", 1, NULL, 't'},  {"drain", 0, NULL, 'D'},
                                            {"look", 0, NULL, 'l'},    {NULL, 0, NULL, 0}};
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'p':
            o->path = optarg;
            break;
        case 'r':
            f->recipients = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            f->domains = strtoull(optarg, NULL, 10);
            break;
        case 's':
            f->size = strtoull(optarg, NULL, 10);
            break;
        case 'S':
            f->shared = true;
            break;
        case 'n':
            o->shards = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 't':
            f->due_ms = strtoll(optarg, NULL, 10);
            break;
        case 'D':
            f->drain = true;
            break;
        case 'l':
            f->look = true;
            break;
        default:
            exit(2);
        }
    }
    if (o->path == NULL || f->domains == 0 || f->recipients == 0) {
        fprintf(stderr, "queue_fill: --path, and at least one recipient and domain\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct fill f = {.recipients = 100000, .domains = 1000, .size = 4096, .due_ms = 1};
    struct queue_options options = {0};
    const char *error = NULL;
    uint64_t began;
    int err;

    parse(&f, &options, argc, argv);
    began = clock_mono_ns();
    err = queue_open(&f.q, &options, &error);
    if (err < 0) {
        fprintf(stderr, "queue_fill: %s: %s (%s)\n", options.path, error, strerror(-err));
        return 1;
    }
    f.shards = queue_shards(f.q);
    err = queue_port_open(&f.port, f.q, NULL, NULL);
    if (err < 0)
        die("port", err);
    msgid_source_init(&f.ids, rng_entropy());
    f.templates = need(calloc(f.shards, sizeof(*f.templates)));
    f.template_rows = need(calloc(f.shards, sizeof(*f.template_rows)));
    for (uint32_t i = 0; i < f.shards && f.shared; i++)
        f.templates[i] = make_message(&f, (uint32_t)f.recipients + 1);
    printf("{");
    if (f.look)
        look(&f, began);
    else
        run(&f);
    printf(",\"failed\":%llu}\n", (unsigned long long)f.failed);
    for (uint32_t i = 0; i < f.shards && f.shared; i++)
        message_unref(f.templates[i]);
    free(f.templates);
    free(f.template_rows);
    queue_port_close(f.port);
    queue_close(f.q);
    return f.failed > 0;
}

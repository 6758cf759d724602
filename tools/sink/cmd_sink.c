/* hayauma sink: options, threads, progress and summary. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sockaddr.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/quantity.h"
#include "tools/sink/sink_dns.h"
#include "tools/sink/sink_worker.h"

#define SUFFIXES_MAX 32
#define WORKERS_MAX  256
#define WATCH_MS     100
#define PROGRESS_MS  1000
#define SESSIONS_MAX 1000000

static const char usage[] =
    "usage: hayauma sink [OPTION]...\n"
    "Receives mail and throws it away: the far end of tests, benchmarks and the\n"
    "quickstart. By default it accepts everything at full speed.\n"
    "\n"
    "  --listen ADDR[:PORT]   where to take mail; may be given several times;\n"
    "                         unix:PATH too (default 127.0.0.1:2525)\n"
    "  --lmtp                 speak LMTP: a reply for each recipient after the dot\n"
    "  --host-name NAME       name in the greeting (default: sink.example)\n"
    "  --size-max BYTES       SIZE limit (default 100MiB)\n"
    "  --tls-certificate FILE offer STARTTLS with this certificate (PEM, with its\n"
    "                         chain) ...\n"
    "  --tls-key FILE         ... and this key; on port 465 connections begin with\n"
    "                         TLS\n"
    "  --tls-no-resuming      a full handshake each time\n"
    "  --behaviour FILE       YAML: delays, deferrals, refusals, greylisting, limits,\n"
    "                         drops and DNS answers by class of domains; see\n"
    "                         docs/sink.md\n"
    "  --dns ADDR[:PORT]      answer DNS (UDP and TCP) for the domains: MX, A, AAAA,\n"
    "                         NS, SOA (default port 5353); other names do not exist\n"
    "                         (NXDOMAIN)\n"
    "  --zone SUFFIX          names under it exist, besides those in FILE; may be\n"
    "                         repeated (default: example, test, example.com,\n"
    "                         example.net, example.org)\n"
    "  --ledger FILE          append a line per accepted message and recipient,\n"
    "                         written before the 250: time_ms session sender\n"
    "                         recipient size crc32c message-id x-seq\n"
    "  --sessions FILE        append a line per session at its EHLO: time_ms session\n"
    "                         peer name\n"
    "  --workers N            threads (default 1)\n"
    "  --sessions-max N       concurrent sessions per thread (default: as files\n"
    "                         allow)\n"
    "  --count N              stop after N messages\n"
    "  --duration TIME        stop after this time (30s, 5m)\n"
    "  --stats                a progress line each second on stderr\n"
    "  --json                 print the summary as JSON\n"
    "  --help                 this text\n"
    "\n"
    "It stops on SIGINT or SIGTERM and prints a summary.\n"
    "Exit status: 0; 1 when something failed; 2 for a wrong option.\n"
    "\n"
    "Example: two exchangers on loopback, with DNS for *.example\n"
    "  hayauma sink --listen 127.0.0.2:2525 --listen 127.0.0.3:2525 \\\n"
    "      --dns 127.0.0.1:5353\n";

struct sink_command {
    struct sink sink;
    struct smtp_server_options options;
    const char *behaviour_file, *ledger_file, *sessions_file, *tls_certificate, *tls_key;
    struct endpoint dns;
    bool stats, json;
    const char *suffixes[SUFFIXES_MAX];
    size_t suffixes_len;
    uint64_t workers, duration_ms;
    struct endpoint dns_addresses[SINK_LISTENERS_MAX];
    uint64_t started_ns;
};

static int add_listener(struct sink *sink, const char *text)
{
    if (sink->listeners_len == SINK_LISTENERS_MAX)
        return -ENOSPC;
    return endpoint_parse(text, 2525, &sink->listeners[sink->listeners_len++]);
}

static int take_listener(void *of, const char *text)
{
    return add_listener(&((struct sink_command *)of)->sink, text);
}

static int take_dns(void *of, const char *text)
{
    return endpoint_parse(text, 5353, &((struct sink_command *)of)->dns);
}

static int take_zone(void *of, const char *text)
{
    struct sink_command *c = of;

    if (c->suffixes_len == SUFFIXES_MAX)
        return -ENOSPC;
    c->suffixes[c->suffixes_len++] = text;
    return 0;
}

#define COUNT(name, member, min, max)                                                              \
    OPTION_NUMBER(name, struct sink_command, member, quantity_count, min, max)

static const struct option_row options[] = {
    OPTION_TAKE("listen", take_listener),
    OPTION_FLAG("lmtp", struct sink_command, sink.lmtp),
    OPTION_TEXT("host-name", struct sink_command, options.host_name),
    OPTION_NUMBER("size-max", struct sink_command, options.message_bytes_max, quantity_bytes, 0,
                  UINT64_MAX),
    OPTION_TEXT("tls-certificate", struct sink_command, tls_certificate),
    OPTION_TEXT("tls-key", struct sink_command, tls_key),
    OPTION_FLAG("tls-no-resuming", struct sink_command, sink.tls_no_resuming),
    OPTION_TEXT("behaviour", struct sink_command, behaviour_file),
    OPTION_TAKE("dns", take_dns),
    OPTION_TAKE("zone", take_zone),
    OPTION_TEXT("ledger", struct sink_command, ledger_file),
    OPTION_TEXT("sessions", struct sink_command, sessions_file),
    COUNT("workers", workers, 1, WORKERS_MAX),
    COUNT("sessions-max", sink.sessions_max, 1, SESSIONS_MAX),
    COUNT("count", sink.count_max, 0, UINT64_MAX),
    OPTION_NUMBER("duration", struct sink_command, duration_ms, quantity_duration_ms, 0,
                  UINT64_MAX),
    OPTION_FLAG("stats", struct sink_command, stats),
    OPTION_FLAG("json", struct sink_command, json),
};

/* 0, 1 when --help was printed, or -EINVAL. */
static int read_options(struct sink_command *c, int argc, char **argv)
{
    static const char *const zones[] = {"example", "test", "example.com", "example.net",
                                        "example.org"};
    int err = options_read(options, ARRAY_LEN(options), c, "sink", usage, argc, argv);

    if (err != 0)
        return err;
    c->options.lmtp = c->sink.lmtp;
    if ((c->tls_certificate == NULL) != (c->tls_key == NULL)) {
        fprintf(stderr, "hayauma sink: --tls-certificate and --tls-key go together\n");
        return -EINVAL;
    }
    if (optind < argc) {
        fprintf(stderr, "hayauma sink: unexpected '%s'\n", argv[optind]);
        return -EINVAL;
    }
    if (c->sink.listeners_len == 0 && add_listener(&c->sink, "127.0.0.1:2525") < 0)
        return -EINVAL;
    if (c->suffixes_len == 0) {
        memcpy(c->suffixes, zones, sizeof(zones));
        c->suffixes_len = ARRAY_LEN(zones);
    }
    return 0;
}

/* Classes with addresses of their own are listened for on the first listener's port. */
static int listen_for_classes(struct sink *sink)
{
    uint16_t port = sockaddr_port((struct sockaddr *)&sink->listeners[0].addr);

    for (size_t i = 0; i < sink->behaviour->classes_len; i++) {
        struct sink_class *class = &sink->behaviour->classes[i];

        for (size_t k = 0; k < class->addresses_len; k++) {
            struct endpoint wanted = class->addresses[k];
            bool covered = false;

            sockaddr_set_port((struct sockaddr *)&wanted.addr, port);
            endpoint_name(&wanted);
            for (size_t n = 0; n < sink->listeners_len && !covered; n++) {
                const struct endpoint *at = &sink->listeners[n];

                covered = strcmp(at->text, wanted.text) == 0 ||
                          (at->addr.ss_family == wanted.addr.ss_family &&
                           sockaddr_is_unspecified((const struct sockaddr *)&at->addr));
            }
            if (covered)
                continue;
            if (sink->listeners_len == SINK_LISTENERS_MAX)
                return -ENOSPC;
            sink->listeners[sink->listeners_len++] = wanted;
        }
    }
    return 0;
}

/* Where the exchangers of classes without addresses are: the listeners named by --listen. */
static size_t addresses_for_dns(const struct sink *sink, struct endpoint *out)
{
    size_t len = 0;

    for (size_t i = 0; i < sink->listeners_len; i++) {
        const struct endpoint *at = &sink->listeners[i];
        const char *local = at->addr.ss_family == AF_INET ? "127.0.0.1" : "[::1]";

        if (at->addr.ss_family == AF_UNIX)
            continue;
        if (!sockaddr_is_unspecified((const struct sockaddr *)&at->addr))
            out[len++] = *at;
        else if (endpoint_parse(local, 1, &out[len]) == 0)
            len++;
    }
    return len;
}

static void raise_file_limit(struct sink *sink)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (sink->sessions_max == 0)
        sink->sessions_max =
            limit.rlim_max < SESSIONS_MAX ? (uint32_t)limit.rlim_max : SESSIONS_MAX;
}

static void *worker_main(void *arg)
{
    struct sink_worker *w = arg;

    w->open_error = sink_worker_open(w);
    sem_post(&w->sink->opened);
    if (w->open_error == 0)
        sink_worker_run(w);
    sink_worker_close(w);
    return NULL;
}

static int start_worker(struct sink_command *c, uint32_t index)
{
    struct sink_worker *w = &c->sink.workers[index];
    int err;

    w->sink = &c->sink;
    w->index = index;
    w->counters = calloc(c->sink.behaviour->classes_len, sizeof(*w->counters));
    if (w->counters == NULL)
        return -ENOMEM;
    err = -pthread_create(&w->thread, NULL, worker_main, w);
    if (err < 0)
        return err;
    w->started = true;
    while (sem_wait(&c->sink.opened) != 0)
        ;
    if (w->open_error < 0 && w->failed == NULL)
        fprintf(stderr, "hayauma sink: %s\n", io_why_unavailable(w->open_error));
    else if (w->open_error < 0)
        fprintf(stderr, "hayauma sink: %s: %s\n", w->failed, strerror(-w->open_error));
    return w->open_error;
}

static int start_workers(struct sink_command *c, size_t default_addresses)
{
    struct sink *sink = &c->sink;
    int err = 0;

    sink->dns = c->dns.len != 0 ? &c->dns : NULL;
    sink->zone = (struct sink_zone){sink->behaviour, c->suffixes, c->suffixes_len, c->dns_addresses,
                                    default_addresses};
    sem_init(&sink->opened, 0, 0);
    pthread_mutex_init(&sink->shared.lock, NULL);
    sink->workers = calloc(c->workers, sizeof(*sink->workers));
    if (sink->workers == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; err == 0 && i < c->workers; i++) {
        pthread_mutex_lock(&sink->shared.lock);
        sink->workers_len++;
        pthread_mutex_unlock(&sink->shared.lock);
        err = start_worker(c, i);
    }
    return err;
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

struct totals {
    uint64_t messages, recipients, bytes, sessions, open, open_max, deferred, refused, dropped,
        dns_queries, first_ns, last_ns;
};

static void add_counters(struct totals *t, const struct sink_counters *n)
{
    uint64_t first_ns = load(&n->first_ns);

    t->messages += load(&n->messages);
    t->recipients += load(&n->recipients);
    t->bytes += load(&n->bytes);
    t->sessions += load(&n->sessions);
    t->open += load(&n->open);
    t->open_max += load(&n->open_max);
    t->deferred += load(&n->deferred);
    t->refused += load(&n->refused);
    t->dropped += load(&n->dropped);
    t->dns_queries += load(&n->dns_queries);
    if (first_ns != 0 && (t->first_ns == 0 || first_ns < t->first_ns))
        t->first_ns = first_ns;
    if (load(&n->last_ns) > t->last_ns)
        t->last_ns = load(&n->last_ns);
}

static struct totals class_totals(const struct sink *sink, size_t class)
{
    struct totals t = {0};

    for (uint32_t i = 0; i < sink->workers_len; i++)
        add_counters(&t, &sink->workers[i].counters[class]);
    return t;
}

static struct totals all_totals(const struct sink *sink)
{
    struct totals t = {0};

    for (uint32_t i = 0; i < sink->workers_len; i++)
        for (size_t class = 0; class < sink->behaviour->classes_len; class ++)
            add_counters(&t, &sink->workers[i].counters[class]);
    return t;
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void print_json(const struct sink *sink, const struct totals *t, double seconds, double cpu)
{
    struct buf out = {0};

    buf_printf(&out,
               "{\"messages\":%lu,\"recipients\":%lu,\"bytes\":%lu,\"sessions\":%lu,"
               "\"sessions_max\":%lu,\"deferred\":%lu,\"refused\":%lu,\"dropped\":%lu,"
               "\"dns_queries\":%lu,\"seconds\":%.3f,\"messages_per_second\":%.1f,"
               "\"cpu_us_per_message\":%.2f,\"classes\":[",
               t->messages, t->recipients, t->bytes, t->sessions, t->open_max, t->deferred,
               t->refused, t->dropped, t->dns_queries, seconds,
               seconds > 0 ? (double)t->messages / seconds : 0,
               t->messages > 0 ? cpu * 1e6 / (double)t->messages : 0);
    for (size_t i = 0; i < sink->behaviour->classes_len; i++) {
        struct totals k = class_totals(sink, i);

        buf_puts(&out, i > 0 ? ",{\"name\":" : "{\"name\":");
        buf_put_json(&out, str_of(sink->behaviour->classes[i].name));
        buf_printf(&out,
                   ",\"messages\":%lu,\"recipients\":%lu,\"sessions\":%lu,\"deferred\":%lu,"
                   "\"refused\":%lu,\"dropped\":%lu}",
                   k.messages, k.recipients, k.sessions, k.deferred, k.refused, k.dropped);
    }
    buf_puts(&out, "]}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_done(&out);
}

static void print_summary(const struct sink_command *c)
{
    const struct sink *sink = &c->sink;
    struct totals t = all_totals(sink);
    double seconds = (double)(t.last_ns - t.first_ns) / 1e9;
    double cpu = cpu_seconds();

    if (c->json) {
        print_json(sink, &t, seconds, cpu);
        return;
    }
    printf("%lu messages (%lu recipients, %.1f MiB) in %lu sessions; %.0f messages/s, "
           "%.1f us CPU per message\n",
           t.messages, t.recipients, (double)t.bytes / (1 << 20), t.sessions,
           seconds > 0 ? (double)t.messages / seconds : 0,
           t.messages > 0 ? cpu * 1e6 / (double)t.messages : 0);
    if (sink->behaviour->classes_len == 1 && t.deferred + t.refused + t.dropped == 0)
        return;
    printf("%-20s %12s %12s %10s %10s %10s\n", "class", "messages", "recipients", "deferred",
           "refused", "dropped");
    for (size_t i = 0; i < sink->behaviour->classes_len; i++) {
        struct totals k = class_totals(sink, i);

        printf("%-20s %12lu %12lu %10lu %10lu %10lu\n", sink->behaviour->classes[i].name,
               k.messages, k.recipients, k.deferred, k.refused, k.dropped);
    }
}

static void print_progress(const struct sink *sink, double seconds, uint64_t *messages_before)
{
    struct totals t = all_totals(sink);

    fprintf(stderr, "%6.0f s %12lu messages %10lu/s %8lu sessions %8lu deferred %8lu refused\n",
            seconds, t.messages, t.messages - *messages_before, t.open, t.deferred, t.refused);
    *messages_before = t.messages;
}

/* Until a signal, the duration, or the workers' own decision. */
static void watch(struct sink_command *c, const sigset_t *signals)
{
    struct timespec tick = {.tv_nsec = WATCH_MS * 1000000L};
    uint64_t progress_ns = c->started_ns, messages = 0;

    while (!atomic_load_explicit(&c->sink.shared.stop, memory_order_relaxed)) {
        int got = sigtimedwait(signals, NULL, &tick);
        uint64_t now_ns = clock_mono_ns();

        if (got > 0 || (c->duration_ms > 0 && now_ns - c->started_ns >= c->duration_ms * 1000000))
            sink_stop(&c->sink, 0);
        if (c->stats && now_ns - progress_ns >= PROGRESS_MS * 1000000ull) {
            progress_ns += PROGRESS_MS * 1000000ull;
            print_progress(&c->sink, (double)(now_ns - c->started_ns) / 1e9, &messages);
        }
    }
}

static int load_behaviour(struct sink_command *c)
{
    struct buf errors = {0};
    int err = sink_behaviour_load(c->behaviour_file, &c->options, &c->sink.behaviour, &errors);

    if (err < 0)
        fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&errors);
    return err;
}

/* What the sink shows to clients that ask for STARTTLS. */
static int load_tls(struct sink_command *c)
{
    struct tls_certificate *certificate = NULL;
    struct tls_tickets *tickets = tls_tickets_new();
    struct buf why = {0};
    int err = tickets == NULL ? -ENOMEM : 0;

    if (err == 0)
        err = tls_certificate_load(&certificate, c->tls_certificate, c->tls_key, &why);
    if (err == 0)
        err = tls_server_new(&c->sink.tls, &certificate, 1, tickets);
    if (err < 0)
        fprintf(stderr, "hayauma sink: %.*s\n",
                STR_FMT(why.len > 0 ? buf_str(&why) : str_of(strerror(-err))));
    c->options.starttls = err == 0;
    tls_certificate_unref(certificate);
    tls_tickets_unref(tickets);
    buf_done(&why);
    return err;
}

/* Opens file to be appended to. *fd is -1 when there is none. 0 or -errno. */
static int append_to(const char *file, int *fd)
{
    *fd = -1;
    if (file == NULL)
        return 0;
    *fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (*fd >= 0)
        return 0;
    fprintf(stderr, "hayauma sink: %s: %s\n", file, strerror(errno));
    return -errno;
}

/* For somebody who looks on: where mail is taken, that of the behaviour file's addresses too. */
static void print_where(const struct sink_command *c)
{
    fputs("takes mail at", stderr);
    for (size_t i = 0; i < c->sink.listeners_len; i++)
        fprintf(stderr, " %s", c->sink.listeners[i].text);
    if (c->dns.len != 0)
        fprintf(stderr, ", answers DNS at %s", c->dns.text);
    fputs("; Ctrl-C ends it, with a summary\n", stderr);
}

static int sink_run(struct sink_command *c)
{
    struct sink *sink = &c->sink;
    size_t default_addresses;
    sigset_t signals;
    int err;

    default_addresses = addresses_for_dns(sink, c->dns_addresses);
    err = listen_for_classes(sink);
    if (err < 0)
        return err;
    err = append_to(c->ledger_file, &sink->ledger_fd);
    if (err == 0)
        err = append_to(c->sessions_file, &sink->sessions_fd);
    if (err < 0)
        return err;
    raise_file_limit(sink);
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* inherited by the workers */
    signal(SIGPIPE, SIG_IGN);
    c->started_ns = clock_mono_ns();
    err = start_workers(c, default_addresses);
    if (err == 0 && isatty(STDERR_FILENO))
        print_where(c);
    if (err == 0)
        watch(c, &signals);
    return err;
}

static int sink_finish(struct sink_command *c, int err)
{
    struct sink *sink = &c->sink;

    if (sink->workers_len > 0)
        sink_stop(sink, err);
    for (uint32_t i = 0; i < sink->workers_len; i++)
        if (sink->workers[i].started)
            pthread_join(sink->workers[i].thread, NULL);
    if (err == 0) {
        print_summary(c);
        err = atomic_load(&sink->shared.error);
        if (err < 0)
            fprintf(stderr, "hayauma sink: stopped: %s\n", strerror(-err));
    }
    for (uint32_t i = 0; i < sink->workers_len; i++)
        free(sink->workers[i].counters);
    free(sink->workers);
    if (sink->ledger_fd > 0)
        close(sink->ledger_fd);
    if (sink->sessions_fd > 0)
        close(sink->sessions_fd);
    sink_behaviour_free(sink->behaviour);
    tls_server_unref(sink->tls);
    return err;
}

int cmd_sink(int argc, char **argv)
{
    struct sink_command *c = calloc(1, sizeof(*c));
    int err;

    if (c == NULL)
        return EXIT_FAILED;
    c->workers = 1;
    c->options = (struct smtp_server_options){
        .host_name = "sink.example",
        .message_bytes_max = 100 << 20,
        .recipients_max = 10000,
        .line_bytes_max = 4096,
        .errors_max = UINT32_MAX,
        .commands_max = UINT32_MAX,
    };
    err = read_options(c, argc, argv);
    if (err == 0 && c->tls_certificate != NULL)
        err = load_tls(c);
    if (err == 0)
        err = load_behaviour(c);
    if (err != 0) {
        free(c);
        return err < 0 ? EXIT_USAGE : EXIT_OK;
    }
    err = sink_finish(c, sink_run(c));
    free(c);
    return err < 0 ? EXIT_FAILED : EXIT_OK;
}

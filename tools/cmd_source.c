/* hayauma source: options, pacing, retries, progress and summary. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "tools/commands.h"
#include "tools/histogram.h"
#include "tools/quantity.h"
#include "tools/source_message.h"
#include "tools/submit.h"

#define RETRY_MS        200
#define ERRORS_MAX      8
#define ERROR_BYTES     200
#define SESSIONS_MAX    100000
#define RECIPIENTS_MAX  10000
#define DOMAINS_MAX     10000000
#define PIPELINE_MAX    64
#define SIGNALS_TO_QUIT 2

static const char usage[] =
    "usage: hayauma source --to HOST[:PORT] [OPTION]...\n"
    "Generates mail: each message has its number in X-Seq, a body and a recipient of its own.\n"
    "\n"
    "  --to HOST[:PORT]       where to send (default 127.0.0.1:25); unix:PATH too\n"
    "  --lmtp                 speak LMTP\n"
    "  --sessions N           connections (default 10)\n"
    "  --messages N           how many (default 1000; without limit when --duration is given)\n"
    "  --duration TIME        stop generating after this time (30s, 5m)\n"
    "  --rate N               messages per second in all (default: as fast as they are taken)\n"
    "  --size SIZES           4k, 2k-64k (uniform), or a list 1k,4k,50k; with header (default 4k)\n"
    "  --from ADDRESS         envelope sender (default source@source.example)\n"
    "  --rcpt-domains N       recipients in d1.example .. dN.example (default 1)\n"
    "  --domains FILE         recipients in these domains, one a line\n"
    "  --distribution NAME    of the domains: uniform (default) or zipf\n"
    "  --recipients-per-message N\n"
    "                         (default 1)\n"
    "  --seq-start N          number of the first message (default 1)\n"
    "  --seed N               messages with the same number and seed are equal (default 1)\n"
    "  --eight-bit            UTF-8 bodies, sent as 8BITMIME\n"
    "  --dot-lines            some lines begin with a dot\n"
    "  --pipeline N           transactions in flight per session with CHUNKING (default 8)\n"
    "  --no-chunking, --no-pipelining\n"
    "                         as if the server did not offer it\n"
    "  --messages-per-session N\n"
    "                         then QUIT and connect again\n"
    "  --timeout TIME         without a byte from the server (default 300s)\n"
    "  --retry                send again, under the same number, what was deferred or lost with "
    "its\n"
    "                         connection, and connect again until it is taken\n"
    "  --ledger FILE          append a line per recipient whose 250 arrived, as hayauma sink does\n"
    "  --stats                a progress line each second on stderr\n"
    "  --json                 print the summary as JSON\n"
    "  --help                 this text\n"
    "\n"
    "SIGINT stops generating and waits for what is in flight; a second one ends at once.\n"
    "Exit status: 0 when every message was taken for every recipient; 1 when not; 2 for a wrong "
    "option.\n";

struct source_error {
    char text[ERROR_BYTES];
    uint64_t count;
};

struct source {
    struct source_plan plan;
    struct submit_options submit_options;
    uint64_t messages_max, duration_ms, rate, seq_start;
    bool retry, stats, json;
    const char *ledger_file;

    struct io *io;
    struct submit *submit;
    int ledger_fd;
    struct buf ledger;
    struct list idle; /* messages for use */
    struct list due;  /* to be sent again, oldest first */
    uint64_t made, finished, accepted, refused, recipients, bytes, again;
    uint64_t started_ns, first_ns, last_ns, progress_ns, progress_accepted;
    bool ended; /* nothing new is made */
    int error;
    int64_t date_s;
    char date[CLOCK_RFC5322_BYTES];
    struct histogram latency_us;
    struct source_error errors[ERRORS_MAX];
    size_t errors_len;
};

enum {
    OPT_TO = 256,
    OPT_LMTP,
    OPT_SESSIONS,
    OPT_MESSAGES,
    OPT_DURATION,
    OPT_RATE,
    OPT_SIZE,
    OPT_FROM,
    OPT_RCPT_DOMAINS,
    OPT_DOMAINS,
    OPT_DISTRIBUTION,
    OPT_RECIPIENTS,
    OPT_SEQ_START,
    OPT_SEED,
    OPT_EIGHT_BIT,
    OPT_DOT_LINES,
    OPT_PIPELINE,
    OPT_NO_CHUNKING,
    OPT_NO_PIPELINING,
    OPT_PER_SESSION,
    OPT_TIMEOUT,
    OPT_RETRY,
    OPT_LEDGER,
    OPT_STATS,
    OPT_JSON,
    OPT_HELP
};

static const struct option long_options[] = {
    {"to", required_argument, NULL, OPT_TO},
    {"lmtp", no_argument, NULL, OPT_LMTP},
    {"sessions", required_argument, NULL, OPT_SESSIONS},
    {"messages", required_argument, NULL, OPT_MESSAGES},
    {"duration", required_argument, NULL, OPT_DURATION},
    {"rate", required_argument, NULL, OPT_RATE},
    {"size", required_argument, NULL, OPT_SIZE},
    {"from", required_argument, NULL, OPT_FROM},
    {"rcpt-domains", required_argument, NULL, OPT_RCPT_DOMAINS},
    {"domains", required_argument, NULL, OPT_DOMAINS},
    {"distribution", required_argument, NULL, OPT_DISTRIBUTION},
    {"recipients-per-message", required_argument, NULL, OPT_RECIPIENTS},
    {"seq-start", required_argument, NULL, OPT_SEQ_START},
    {"seed", required_argument, NULL, OPT_SEED},
    {"eight-bit", no_argument, NULL, OPT_EIGHT_BIT},
    {"dot-lines", no_argument, NULL, OPT_DOT_LINES},
    {"pipeline", required_argument, NULL, OPT_PIPELINE},
    {"no-chunking", no_argument, NULL, OPT_NO_CHUNKING},
    {"no-pipelining", no_argument, NULL, OPT_NO_PIPELINING},
    {"messages-per-session", required_argument, NULL, OPT_PER_SESSION},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"retry", no_argument, NULL, OPT_RETRY},
    {"ledger", required_argument, NULL, OPT_LEDGER},
    {"stats", no_argument, NULL, OPT_STATS},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int count_from_to(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t value;
    int err = quantity_count(text, &value);

    if (err == 0 && (value < min || value > max))
        err = -ERANGE;
    if (err == 0)
        *out = value;
    return err;
}

static int read_value_option(struct source *c, int option, const char *text)
{
    struct smtp_address address;
    uint64_t n = 0;
    int err = 0;

    switch (option) {
    case OPT_TO:
        return endpoint_parse(text, 25, &c->submit_options.to);
    case OPT_SESSIONS:
        err = count_from_to(text, 1, SESSIONS_MAX, &n);
        c->submit_options.sessions = (uint32_t)n;
        return err;
    case OPT_MESSAGES:
        return count_from_to(text, 1, UINT64_MAX, &c->messages_max);
    case OPT_DURATION:
        return quantity_duration_ms(text, &c->duration_ms);
    case OPT_RATE:
        return count_from_to(text, 1, UINT32_MAX, &c->rate);
    case OPT_SIZE:
        return source_sizes_parse(text, &c->plan);
    case OPT_FROM:
        c->plan.from = text;
        return *text == '\0' ? 0 : smtp_address_parse(str_of(text), true, &address);
    case OPT_RCPT_DOMAINS:
        err = count_from_to(text, 1, DOMAINS_MAX, &n);
        if (err == 0)
            source_domains_numbered(&c->plan, n);
        return err;
    case OPT_DOMAINS:
        return source_domains_read(&c->plan, text);
    case OPT_DISTRIBUTION:
        c->plan.zipf = strcmp(text, "zipf") == 0;
        return c->plan.zipf || strcmp(text, "uniform") == 0 ? 0 : -EINVAL;
    case OPT_RECIPIENTS:
        err = count_from_to(text, 1, RECIPIENTS_MAX, &n);
        c->plan.recipients = (uint32_t)n;
        return err;
    case OPT_SEQ_START:
        return quantity_count(text, &c->seq_start);
    case OPT_SEED:
        return quantity_count(text, &c->plan.seed);
    case OPT_PIPELINE:
        err = count_from_to(text, 1, PIPELINE_MAX, &n);
        c->submit_options.client.pipeline_max = (uint16_t)n;
        return err;
    case OPT_PER_SESSION:
        err = count_from_to(text, 1, UINT32_MAX, &n);
        c->submit_options.messages_per_session = (uint32_t)n;
        return err;
    case OPT_TIMEOUT:
        err = quantity_duration_ms(text, &n);
        c->submit_options.timeout_ms = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
        return err;
    case OPT_LEDGER:
        c->ledger_file = text;
        return 0;
    default:
        return -EINVAL;
    }
}

static bool read_flag_option(struct source *c, int option)
{
    switch (option) {
    case OPT_LMTP:
        return c->submit_options.client.lmtp = true;
    case OPT_EIGHT_BIT:
        return c->plan.eight_bit = true;
    case OPT_DOT_LINES:
        return c->plan.dot_lines = true;
    case OPT_NO_CHUNKING:
        return c->submit_options.client.no_chunking = true;
    case OPT_NO_PIPELINING:
        return c->submit_options.client.no_pipelining = true;
    case OPT_RETRY:
        return c->retry = c->submit_options.reconnect = true;
    case OPT_STATS:
        return c->stats = true;
    case OPT_JSON:
        return c->json = true;
    default:
        return false;
    }
}

/* 0, 1 when --help was printed, or -EINVAL. */
static int read_options(struct source *c, int argc, char **argv)
{
    int option, err;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPT_HELP) {
            fputs(usage, stdout);
            return 1;
        }
        if (option == '?')
            return -EINVAL;
        if (read_flag_option(c, option))
            continue;
        err = read_value_option(c, option, optarg);
        if (err < 0) {
            fprintf(stderr, "hayauma source: --%s: cannot use '%s' (%s)\n",
                    long_options[option - OPT_TO].name, optarg, strerror(-err));
            return -EINVAL;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "hayauma source: unexpected '%s'\n", argv[optind]);
        return -EINVAL;
    }
    if (c->submit_options.to.len == 0 &&
        endpoint_parse("127.0.0.1:25", 0, &c->submit_options.to) < 0)
        return -EINVAL;
    if (c->messages_max == 0)
        c->messages_max = c->duration_ms > 0 ? UINT64_MAX : 1000;
    if (c->plan.domains_len == 0)
        source_domains_numbered(&c->plan, 1);
    if (c->plan.sizes_len == 0)
        return source_sizes_parse("4k", &c->plan);
    return 0;
}

static void note_error(struct source *c, const char *text)
{
    for (size_t i = 0; i < c->errors_len; i++) {
        if (strncmp(c->errors[i].text, text, ERROR_BYTES - 1) == 0) {
            c->errors[i].count++;
            return;
        }
    }
    if (c->errors_len < ERRORS_MAX) {
        snprintf(c->errors[c->errors_len].text, ERROR_BYTES, "%s", text);
        c->errors[c->errors_len++].count = 1;
    } else {
        c->errors[ERRORS_MAX - 1].count++;
        snprintf(c->errors[ERRORS_MAX - 1].text, ERROR_BYTES, "(other errors)");
    }
}

static bool may_make(const struct source *c)
{
    uint64_t elapsed_ns = io_now_ns(c->io) - c->started_ns;

    if (c->ended || c->made >= c->messages_max)
        return false;
    if (c->rate == 0)
        return true;
    return (double)c->made < (double)elapsed_ns / 1e9 * (double)c->rate;
}

static const char *date_now(struct source *c)
{
    int64_t now_ms = io_wall_ms(c->io);

    if (now_ms / 1000 != c->date_s) {
        c->date_s = now_ms / 1000;
        clock_rfc5322(now_ms, c->date);
    }
    return c->date;
}

static struct source_message *due_message(struct source *c)
{
    struct list_node *node = list_first(&c->due);
    struct source_message *m = node == NULL ? NULL : LIST_ENTRY(node, struct source_message, node);

    if (m == NULL || m->due_ms > io_now_ms(c->io))
        return NULL;
    list_remove(node);
    source_message_again(m);
    c->again++;
    return m;
}

static struct smtp_transaction *source_next(void *arg)
{
    struct source *c = arg;
    struct source_message *m = due_message(c);
    struct list_node *node;

    if (m == NULL) {
        if (!may_make(c))
            return NULL;
        node = list_pop_front(&c->idle);
        m = node == NULL ? calloc(1, sizeof(*m)) : LIST_ENTRY(node, struct source_message, node);
        ASSERT(m != NULL);
        source_message_make(&c->plan, m, c->seq_start + c->made, date_now(c), c->ledger_fd >= 0);
        c->made++;
    }
    m->begun_ns = io_now_ns(c->io);
    if (c->first_ns == 0)
        c->first_ns = m->begun_ns;
    return &m->t;
}

static void source_failed(struct source *c, struct source_message *m,
                          const struct smtp_event *event)
{
    const struct smtp_reply *r = event->reply;
    char text[ERROR_BYTES];

    switch (event->fate) {
    case SMTP_FATE_REPLY:
        snprintf(text, sizeof(text), "%s: %u %.*s", smtp_stage_name(event->stage), r->code,
                 (int)r->text_len, r->text);
        note_error(c, text);
        if (c->retry && r->code < 500)
            m->retry = true;
        else
            m->refused = true;
        break;
    case SMTP_FATE_UNABLE:
        note_error(c, "the server lacks what the message needs (8BITMIME, SIZE)");
        m->refused = true;
        break;
    case SMTP_FATE_LOST:
        m->lost += !m->lost_now; /* once for all its recipients */
        m->lost_now = true;
        /* fall through */
    case SMTP_FATE_NOT_SENT:
        if (c->retry)
            m->retry = true;
        else
            m->refused = true;
        break;
    }
}

static void source_recipient(void *arg, const struct smtp_event *event)
{
    struct source *c = arg;
    struct source_message *m = event->transaction->owner;
    uint64_t now_ns = io_now_ns(c->io);

    if (event->fate != SMTP_FATE_REPLY || event->reply->code >= 300) {
        source_failed(c, m, event);
        return;
    }
    m->accepted[event->rcpt] = true;
    c->recipients++;
    c->last_ns = now_ns;
    histogram_add(&c->latency_us, (now_ns - m->begun_ns) / 1000);
    if (c->ledger_fd >= 0)
        ledger_line(&c->ledger, io_wall_ms(c->io), m->lost, m->t.sender,
                    m->rcpts[event->rcpt].address, &m->identity);
}

static void source_done(void *arg, struct smtp_transaction *t)
{
    struct source *c = arg;
    struct source_message *m = t->owner;

    if (m->retry && c->error == 0) {
        m->due_ms = io_now_ms(c->io) + RETRY_MS;
        list_push_back(&c->due, &m->node);
        return;
    }
    c->finished++;
    if (m->refused || m->retry) {
        c->refused++;
    } else {
        c->accepted++;
        c->bytes += t->content_len;
    }
    list_push_back(&c->idle, &m->node);
}

static void source_trouble(void *arg, const char *what)
{
    struct source *c = arg;

    note_error(c, what);
}

static volatile sig_atomic_t signals_seen;
static struct io *signal_io;

static void on_signal(int number)
{
    (void)number;
    signals_seen++;
    io_wake(signal_io);
}

static void print_progress(struct source *c)
{
    fprintf(stderr, "%6.0f s %12lu accepted %10lu/s %8lu refused %8lu again %6u sessions\n",
            (double)(c->progress_ns - c->started_ns) / 1e9, c->accepted,
            c->accepted - c->progress_accepted, c->refused, c->again, submit_up(c->submit));
    c->progress_accepted = c->accepted;
}

static void source_tick(void *arg)
{
    struct source *c = arg;
    uint64_t now_ns = io_now_ns(c->io);
    int err = 0;

    if (c->submit == NULL)
        return;
    if (c->ledger.len > 0)
        err = ledger_flush(&c->ledger, c->ledger_fd);
    if (err < 0) {
        c->error = err;
        buf_clear(&c->ledger);
    }
    if (c->made >= c->messages_max || signals_seen > 0 ||
        (c->duration_ms > 0 && now_ns - c->started_ns >= c->duration_ms * 1000000))
        c->ended = true;
    if (c->error != 0 || signals_seen >= SIGNALS_TO_QUIT)
        submit_abort(c->submit);
    else if (c->ended && c->finished == c->made)
        submit_finish(c->submit);
    else
        submit_poke(c->submit);
    if (c->stats && now_ns - c->progress_ns >= UINT64_C(1000000000)) {
        c->progress_ns += UINT64_C(1000000000);
        print_progress(c);
    }
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void print_json(const struct source *c, double seconds, double cpu_us)
{
    const struct histogram *h = &c->latency_us;
    struct buf out = {0};

    buf_printf(&out,
               "{\"messages\":%lu,\"accepted\":%lu,\"failed\":%lu,\"recipients\":%lu,"
               "\"bytes\":%lu,\"sent_again\":%lu,\"seconds\":%.3f,\"messages_per_second\":%.1f,"
               "\"cpu_us_per_message\":%.2f,\"latency_us\":{\"p50\":%lu,\"p90\":%lu,\"p99\":%lu,"
               "\"p999\":%lu,\"max\":%lu},\"errors\":[",
               c->made, c->accepted, c->made - c->accepted, c->recipients, c->bytes, c->again,
               seconds, seconds > 0 ? (double)c->accepted / seconds : 0, cpu_us,
               histogram_quantile(h, 0.5), histogram_quantile(h, 0.9), histogram_quantile(h, 0.99),
               histogram_quantile(h, 0.999), h->max);
    for (size_t i = 0; i < c->errors_len; i++) {
        buf_puts(&out, i > 0 ? ",{\"text\":" : "{\"text\":");
        buf_put_json(&out, str_of(c->errors[i].text));
        buf_printf(&out, ",\"count\":%lu}", c->errors[i].count);
    }
    buf_puts(&out, "]}\n");
    fwrite(out.data, 1, out.len, stdout);
    buf_done(&out);
}

static void print_summary(const struct source *c)
{
    const struct histogram *h = &c->latency_us;
    double seconds = (double)(c->last_ns - c->first_ns) / 1e9;
    double cpu_us = c->accepted > 0 ? cpu_seconds() * 1e6 / (double)c->accepted : 0;

    if (c->last_ns == 0)
        seconds = 0;
    if (c->json) {
        print_json(c, seconds, cpu_us);
        return;
    }
    printf("%lu of %lu messages accepted in %.1f s; %.0f messages/s, %.1f us CPU per message\n",
           c->accepted, c->made, seconds, seconds > 0 ? (double)c->accepted / seconds : 0, cpu_us);
    printf("latency of the 250: median %.1f ms, 90 %% %.1f, 99 %% %.1f, max %.1f\n",
           (double)histogram_quantile(h, 0.5) / 1e3, (double)histogram_quantile(h, 0.9) / 1e3,
           (double)histogram_quantile(h, 0.99) / 1e3, (double)h->max / 1e3);
    for (size_t i = 0; i < c->errors_len; i++)
        printf("%8lu x %s\n", c->errors[i].count, c->errors[i].text);
}

static int open_all(struct source *c)
{
    static const struct submit_hooks hooks = {source_next, source_recipient, source_done,
                                              source_trouble};
    struct io_options io_options = {.on_tick = source_tick, .arg = c};
    struct sigaction action = {.sa_handler = on_signal};
    int err;

    c->ledger_fd = -1;
    if (c->ledger_file != NULL) {
        c->ledger_fd = open(c->ledger_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (c->ledger_fd < 0) {
            fprintf(stderr, "hayauma source: %s: %s\n", c->ledger_file, strerror(errno));
            return -errno;
        }
    }
    err = io_open(&c->io, &io_options);
    if (err < 0) {
        fprintf(stderr, "hayauma source: %s\n", io_why_unavailable(err));
        return err;
    }
    signal_io = c->io;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    c->started_ns = c->progress_ns = io_now_ns(c->io);
    return submit_open(&c->submit, c->io, &c->submit_options, &hooks, c);
}

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int source_run(struct source *c)
{
    uint32_t wait_ms = c->rate > 0 ? 1 : 100;
    int err;

    source_plan_prepare(&c->plan);
    raise_file_limit();
    err = open_all(c);
    if (err < 0)
        return err;
    while (err == 0 && submit_alive(c->submit) > 0)
        err = io_turn(c->io, wait_ms);
    if (err == 0 && c->ledger.len > 0)
        err = ledger_flush(&c->ledger, c->ledger_fd);
    if (err == 0)
        err = c->error;
    print_summary(c);
    if (err < 0)
        fprintf(stderr, "hayauma source: stopped: %s\n", strerror(-err));
    else
        submit_close(c->submit);
    return err;
}

static void free_messages(struct list *list)
{
    for (struct list_node *node; (node = list_pop_front(list)) != NULL;) {
        struct source_message *m = LIST_ENTRY(node, struct source_message, node);

        source_message_done(m);
        free(m);
    }
}

int cmd_source(int argc, char **argv)
{
    struct source *c = calloc(1, sizeof(*c));
    int err, status;

    if (c == NULL)
        return EXIT_FAILED;
    list_init(&c->idle);
    list_init(&c->due);
    c->seq_start = 1;
    c->plan = (struct source_plan){.from = "source@source.example", .seed = 1, .recipients = 1};
    c->submit_options = (struct submit_options){
        .sessions = 10,
        .timeout_ms = 300000,
        .client = {.ehlo_name = "source.example", .pipeline_max = 8, .pipeline_bytes_max = 1 << 20},
    };
    err = read_options(c, argc, argv);
    if (err == 0)
        status =
            source_run(c) == 0 && c->made > 0 && c->made == c->accepted ? EXIT_OK : EXIT_FAILED;
    else
        status = err < 0 ? EXIT_USAGE : EXIT_OK;
    if (status == EXIT_USAGE)
        fputs("Try 'hayauma source --help'.\n", stderr);
    io_close(c->io);
    free_messages(&c->idle);
    free_messages(&c->due);
    source_plan_done(&c->plan);
    buf_done(&c->ledger);
    free(c);
    return status;
}

/* hayauma source: options and summary. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tools/commands.h"
#include "tools/quantity.h"
#include "tools/source_run.h"

#define SESSIONS_MAX   100000
#define RECIPIENTS_MAX 10000
#define DOMAINS_MAX    10000000
#define PIPELINE_MAX   64

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
        if (err == 0 && n == 0)
            err = -ERANGE;
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
            fprintf(stderr, "hayauma source: --%s: cannot use '%s': %s\n",
                    long_options[option - OPT_TO].name, optarg, quantity_why(err));
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

static int run_and_report(struct source *c)
{
    int err = source_run(c);

    if (c->submit != NULL)
        print_summary(c);
    return err == 0 && c->made > 0 && c->made == c->accepted ? EXIT_OK : EXIT_FAILED;
}

int cmd_source(int argc, char **argv)
{
    struct source *c = calloc(1, sizeof(*c));
    int err, status;

    if (c == NULL)
        return EXIT_FAILED;
    source_init(c);
    c->seq_start = 1;
    c->plan = (struct source_plan){.from = "source@source.example", .seed = 1, .recipients = 1};
    c->submit_options = (struct submit_options){
        .sessions = 10,
        .timeout_ms = 300000,
        .client = {.ehlo_name = "source.example", .pipeline_max = 8, .pipeline_bytes_max = 1 << 20},
    };
    err = read_options(c, argc, argv);
    if (err == 0)
        status = run_and_report(c);
    else
        status = err < 0 ? EXIT_USAGE : EXIT_OK;
    if (status == EXIT_USAGE)
        fputs("Try 'hayauma source --help'.\n", stderr);
    source_done(c);
    free(c);
    return status;
}

/* hayauma source: options and summary. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/quantity.h"
#include "tools/send/source_run.h"

#define SESSIONS_MAX   100000
#define RECIPIENTS_MAX 10000
#define DOMAINS_MAX    10000000
#define PIPELINE_MAX   64

static const char usage[] =
    "usage: hayauma source --to HOST[:PORT] [OPTION]...\n"
    "Generates mail: each message has its number in X-Seq, a body and a recipient of\n"
    "its own. The addresses that the engine sends from are another matter: hayauma\n"
    "source list, show NAME, suspend NAME [--for TIME] [--reason TEXT], resume NAME;\n"
    "'hayauma source list --help'.\n"
    "\n"
    "  --to HOST[:PORT]       where to send (port 25 unless given); unix:PATH too\n"
    "  --lmtp                 speak LMTP\n"
    "  --sessions N           connections (default 10)\n"
    "  --messages N           how many (default 1000; without limit when --duration\n"
    "                         is given)\n"
    "  --duration TIME        stop generating after this time (30s, 5m)\n"
    "  --rate N               messages per second in all (default: as fast as they\n"
    "                         are taken)\n"
    "  --size SIZES           4k, 2k-64k (uniform), or a list 1k,4k,50k; with header\n"
    "                         (default 4k)\n"
    "  --from ADDRESS         envelope sender (default source@source.example)\n"
    "  --rcpt-domains N       recipients in d1.example .. dN.example (default 1)\n"
    "  --domains FILE         recipients in these domains, one a line\n"
    "  --distribution NAME    of the domains: uniform (default) or zipf\n"
    "  --recipients-per-message N\n"
    "                         (default 1)\n"
    "  --seq-start N          number of the first message (default 1)\n"
    "  --seed N               messages with the same number and seed are equal\n"
    "                         (default 1)\n"
    "  --eight-bit            UTF-8 bodies, sent as 8BITMIME\n"
    "  --dot-lines            some lines begin with a dot\n"
    "  --pipeline N           transactions in flight per session with CHUNKING\n"
    "                         (default 8)\n"
    "  --no-chunking, --no-pipelining\n"
    "                         as if the server did not offer it\n"
    "  --messages-per-session N\n"
    "                         then QUIT and connect again\n"
    "  --timeout TIME         without a byte from the server (default 300s)\n"
    "  --retry                send again, under the same number, what was deferred or\n"
    "                         lost with its connection, and connect again until it is\n"
    "                         taken\n"
    "  --ledger FILE          append a line per recipient whose 250 arrived, as\n"
    "                         hayauma sink does\n"
    "  --stats                a progress line each second on stderr\n"
    "  --json                 print the summary as JSON\n"
    "  --help                 this text\n"
    "\n"
    "SIGINT stops generating and waits for what is in flight; a second one ends at\n"
    "once.\n"
    "Exit status: 0 when every message was taken for every recipient; 1 when not; 2\n"
    "for a wrong option.\n";

static int take_to(void *of, const char *text)
{
    return endpoint_parse(text, 25, &((struct source *)of)->submit_options.to);
}

static int take_size(void *of, const char *text)
{
    return source_sizes_parse(text, &((struct source *)of)->plan);
}

static int take_from(void *of, const char *text)
{
    struct smtp_address address;

    ((struct source *)of)->plan.from = text;
    return *text == '\0' ? 0 : smtp_address_parse(str_of(text), true, &address);
}

static int take_domains(void *of, const char *text)
{
    return source_domains_read(&((struct source *)of)->plan, text);
}

static int take_domains_numbered(void *of, const char *text)
{
    uint64_t n;
    int err = quantity_count(text, &n);

    if (err == 0 && (n < 1 || n > DOMAINS_MAX))
        err = -ERANGE;
    if (err == 0)
        source_domains_numbered(&((struct source *)of)->plan, n);
    return err;
}

static int take_distribution(void *of, const char *text)
{
    struct source_plan *plan = &((struct source *)of)->plan;

    plan->zipf = strcmp(text, "zipf") == 0;
    return plan->zipf || strcmp(text, "uniform") == 0 ? 0 : -EINVAL;
}

#define COUNT(name, member, min, max)                                                              \
    OPTION_NUMBER(name, struct source, member, quantity_count, min, max)
#define FLAG(name, member) OPTION_FLAG(name, struct source, member)

static const struct option_row options[] = {
    OPTION_TAKE("to", take_to),
    FLAG("lmtp", submit_options.client.lmtp),
    COUNT("sessions", submit_options.sessions, 1, SESSIONS_MAX),
    COUNT("messages", messages_max, 1, UINT64_MAX),
    OPTION_NUMBER("duration", struct source, duration_ms, quantity_duration_ms, 0, UINT64_MAX),
    COUNT("rate", rate, 1, UINT32_MAX),
    OPTION_TAKE("size", take_size),
    OPTION_TAKE("from", take_from),
    OPTION_TAKE("rcpt-domains", take_domains_numbered),
    OPTION_TAKE("domains", take_domains),
    OPTION_TAKE("distribution", take_distribution),
    COUNT("recipients-per-message", plan.recipients, 1, RECIPIENTS_MAX),
    COUNT("seq-start", seq_start, 0, UINT64_MAX),
    COUNT("seed", plan.seed, 0, UINT64_MAX),
    FLAG("eight-bit", plan.eight_bit),
    FLAG("dot-lines", plan.dot_lines),
    COUNT("pipeline", submit_options.client.pipeline_max, 1, PIPELINE_MAX),
    FLAG("no-chunking", submit_options.client.no_chunking),
    FLAG("no-pipelining", submit_options.client.no_pipelining),
    COUNT("messages-per-session", submit_options.messages_per_session, 1, UINT32_MAX),
    OPTION_NUMBER("timeout", struct source, submit_options.timeout_ms, quantity_duration_ms, 1,
                  UINT32_MAX),
    FLAG("retry", retry),
    OPTION_TEXT("ledger", struct source, ledger_file),
    FLAG("stats", stats),
    FLAG("json", json),
};

/* 0, 1 when --help was printed, or -EINVAL. */
static int read_options(struct source *c, int argc, char **argv)
{
    static const char *const source_actions[] = {"list", "show", "suspend", "resume"};
    struct suggest near;
    int err = options_read(options, ARRAY_LEN(options), c, "source", usage, argc, argv);

    if (err != 0)
        return err;
    c->submit_options.reconnect = c->retry;
    if (optind < argc) {
        suggest_init(&near, str_of(argv[optind]));
        for (size_t i = 0; i < ARRAY_LEN(source_actions); i++)
            suggest_offer(&near, source_actions[i]);
        action_unknown("source", &near);
        return -EINVAL;
    }
    if (c->submit_options.to.len ==
        0) { /* no default: whoever looks for a list shall send nothing */
        fputs("hayauma source: say where to send mail to (--to), or for the addresses that mail is "
              "sent\nfrom: hayauma source list, show, suspend or resume\n"
              "Try 'hayauma source --help'.\n",
              stderr);
        return -EINVAL;
    }
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
    source_done(c);
    free(c);
    return status;
}

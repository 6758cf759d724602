/* hayauma send: a message to one recipient or to a list, through SMTP. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/quantity.h"
#include "tools/screen.h"
#include "tools/send_run.h"

#define SESSIONS_MAX     1000
#define BATCH_MAX        1000
#define SHOWN_MAX        20 /* bad addresses that are named */
#define CONNECT_FAILURES 3

static const char usage[] =
    "usage: hayauma send (--eml FILE | --text FILE | --html FILE) [OPTION]... [RECIPIENT]...\n"
    "Sends a message to each recipient through an SMTP server, by default the local engine.\n"
    "\n"
    "The message:\n"
    "  --eml FILE         a complete message (RFC 5322); '-' is stdin\n"
    "  --text FILE        plain text, UTF-8\n"
    "  --html FILE        HTML, UTF-8; with --text as an alternative to it\n"
    "  --attach FILE      an attachment; may be repeated\n"
    "  --subject TEXT     with --text or --html\n"
    "  --from ADDRESS     envelope sender, and with --text or --html the From field\n"
    "                     (\"Name <a@b>\" or a@b); default: the From field of --eml; '' is the\n"
    "                     null sender\n"
    "Date, Message-ID and To are added where they are missing; Bcc is taken off.\n"
    "\n"
    "The recipients, from any of:\n"
    "  RECIPIENT          a mail address\n"
    "  --to-file FILE     one address a line; '#' begins a comment line; '-' is stdin\n"
    "  --csv FILE         comma-separated values (RFC 4180) in UTF-8 with a line of headings\n"
    "  --column NAME      the heading of the addresses in --csv (default email)\n"
    "What is no address is reported with its line and left out; who is there twice gets it twice.\n"
    "\n"
    "Sending:\n"
    "  --server HOST[:PORT]\n"
    "                     default 127.0.0.1:25; unix:PATH too\n"
    "  --sessions N       connections, 1 to 1000 (default 4)\n"
    "  --batch N          recipients per message, 1 to 1000 (default 1: a message of its own for\n"
    "                     each)\n"
    "  --timeout TIME     without a byte from the server (default 300s)\n"
    "  --quiet            no progress line (there is none without a terminal)\n"
    "  --json             print the summary as JSON\n"
    "  --help             this text\n"
    "\n"
    "Exit status: 0 when every recipient was accepted; 1 when some were not, or an address was "
    "left\n"
    "out; 2 for a wrong option or an unusable file.\n";

enum {
    OPT_EML = 256,
    OPT_TEXT,
    OPT_HTML,
    OPT_ATTACH,
    OPT_SUBJECT,
    OPT_FROM,
    OPT_TO_FILE,
    OPT_CSV,
    OPT_COLUMN,
    OPT_SERVER,
    OPT_SESSIONS,
    OPT_BATCH,
    OPT_TIMEOUT,
    OPT_QUIET,
    OPT_JSON,
    OPT_HELP
};

static const struct option long_options[] = {
    {"eml", required_argument, NULL, OPT_EML},
    {"text", required_argument, NULL, OPT_TEXT},
    {"html", required_argument, NULL, OPT_HTML},
    {"attach", required_argument, NULL, OPT_ATTACH},
    {"subject", required_argument, NULL, OPT_SUBJECT},
    {"from", required_argument, NULL, OPT_FROM},
    {"to-file", required_argument, NULL, OPT_TO_FILE},
    {"csv", required_argument, NULL, OPT_CSV},
    {"column", required_argument, NULL, OPT_COLUMN},
    {"server", required_argument, NULL, OPT_SERVER},
    {"sessions", required_argument, NULL, OPT_SESSIONS},
    {"batch", required_argument, NULL, OPT_BATCH},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int count_to(const char *text, uint64_t max, uint32_t *out)
{
    uint64_t value = 0;
    int err = quantity_count(text, &value);

    if (err == 0 && (value < 1 || value > max))
        err = -ERANGE;
    if (err == 0)
        *out = (uint32_t)value;
    return err;
}

static int add_attachment(struct send_parts *parts, const char *file)
{
    if (parts->attachments_len == SEND_ATTACHMENTS_MAX)
        return -ENOSPC;
    parts->attachments[parts->attachments_len++] = file;
    return 0;
}

static int read_option(struct send *c, int option, const char *text)
{
    uint64_t ms = 0;
    int err;

    switch (option) {
    case OPT_EML:
        c->eml_file = text;
        return 0;
    case OPT_TEXT:
        c->parts.text_file = text;
        return 0;
    case OPT_HTML:
        c->parts.html_file = text;
        return 0;
    case OPT_ATTACH:
        return add_attachment(&c->parts, text);
    case OPT_SUBJECT:
        c->parts.subject = text;
        return 0;
    case OPT_FROM:
        c->from = text;
        return 0;
    case OPT_TO_FILE:
        c->to_file = text;
        return 0;
    case OPT_CSV:
        c->csv_file = text;
        return 0;
    case OPT_COLUMN:
        c->column = text;
        return 0;
    case OPT_SERVER:
        return endpoint_parse(text, 25, &c->submit_options.to);
    case OPT_SESSIONS:
        return count_to(text, SESSIONS_MAX, &c->submit_options.sessions);
    case OPT_BATCH:
        return count_to(text, BATCH_MAX, &c->batch);
    case OPT_TIMEOUT:
        err = quantity_duration_ms(text, &ms);
        if (err == 0 && ms == 0)
            err = -ERANGE;
        c->submit_options.timeout_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
        return err;
    case OPT_QUIET:
        c->quiet = true;
        return 0;
    case OPT_JSON:
        c->json = true;
        return 0;
    default:
        return -EINVAL;
    }
}

static unsigned stdin_uses(const struct send *c)
{
    const char *const files[] = {c->eml_file, c->parts.text_file, c->parts.html_file, c->to_file,
                                 c->csv_file};
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        n += files[i] != NULL && strcmp(files[i], "-") == 0;
    for (size_t i = 0; i < c->parts.attachments_len; i++)
        n += strcmp(c->parts.attachments[i], "-") == 0;
    return n;
}

static int usage_error(const char *what)
{
    fprintf(stderr, "hayauma send: %s\nTry 'hayauma send --help'.\n", what);
    return -EINVAL;
}

/* 0, 1 when --help was printed, or -EINVAL. Recipients begin at argv[optind]. */
static int read_options(struct send *c, int argc, char **argv)
{
    bool parts;
    int option, err;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPT_HELP) {
            fputs(usage, stdout);
            return 1;
        }
        if (option == '?') { /* getopt has said what is wrong */
            fputs("Try 'hayauma send --help'.\n", stderr);
            return -EINVAL;
        }
        err = read_option(c, option, optarg);
        if (err < 0) {
            fprintf(stderr, "hayauma send: --%s: cannot use '%s': %s\n",
                    long_options[option - OPT_EML].name, optarg, quantity_why(err));
            return err;
        }
    }
    parts = c->parts.text_file != NULL || c->parts.html_file != NULL;
    if (!parts && c->eml_file == NULL)
        return usage_error("no message: give --eml, --text or --html");
    if (c->eml_file != NULL && (parts || c->parts.attachments_len > 0 || c->parts.subject != NULL))
        return usage_error("--eml is a whole message: it takes no parts");
    if (parts && (c->from == NULL || *c->from == '\0'))
        return usage_error("--from is needed with --text and --html");
    if (stdin_uses(c) > 1)
        return usage_error("stdin ('-') can be read once");
    if (c->submit_options.to.len == 0)
        return endpoint_parse("127.0.0.1:25", 0, &c->submit_options.to);
    return 0;
}

/* --- what to send, and to whom --- */

static int read_recipients(struct send *c, int argc, char **argv)
{
    char where[64];
    int err = 0;

    for (int i = optind; i < argc; i++) {
        snprintf(where, sizeof(where), "recipient %d", i - optind + 1);
        send_list_add(&c->list, str_of(argv[i]), where);
    }
    if (c->to_file != NULL)
        err = send_list_read_lines(&c->list, c->to_file);
    if (err == 0 && c->csv_file != NULL)
        err = send_list_read_csv(&c->list, c->csv_file, c->column);
    if (err == 0 && send_list_len(&c->list) == 0)
        return usage_error(c->list.invalid > 0 ? "no recipients left" : "no recipients");
    return err;
}

static int read_message(struct send *c)
{
    int err = 0;

    if (c->from != NULL && *c->from == '\0')
        c->sender = strdup("");
    else if (c->from != NULL)
        err = send_mailbox_parse(c->from, &c->sender);
    if (err < 0) {
        fprintf(stderr, "hayauma send: --from: '%s' is not a mail address\n", c->from);
        return err;
    }
    c->parts.from = c->from;
    err = c->eml_file != NULL ? send_message_read(c->eml_file, &c->message)
                              : send_message_build(&c->parts, &c->message);
    if (err == 0 && c->sender == NULL && c->message.from != NULL)
        c->sender = strdup(c->message.from);
    if (err == 0 && c->sender == NULL) {
        fputs("hayauma send: its From field names no single address: give --from\n", stderr);
        err = -EINVAL;
    }
    return err;
}

static void print_summary(struct send *c)
{
    size_t all = send_list_len(&c->list), untried = all - c->accepted - c->refused;
    double seconds = (double)(c->ended_ns - c->started_ns) / 1e9;
    double rate = seconds > 0 ? (double)c->accepted / seconds : 0;
    struct buf out = {0};

    send_clear_progress(c);
    if (untried > 0) {
        buf_printf(&out, "hayauma send: %s: ", c->submit_options.to.text);
        put_text(&out, send_interrupted() ? "interrupted" : c->trouble, 0, false);
        buf_puts(&out, "\n");
        flush_text(&out, stderr);
    }
    if (c->json)
        buf_printf(&out,
                   "{\"recipients\":%zu,\"accepted\":%zu,\"refused\":%zu,\"unsent\":%zu,"
                   "\"invalid\":%lu,\"messages\":%zu,\"seconds\":%.3f,\"per_second\":%.1f}\n",
                   all, c->accepted, c->refused, untried, c->list.invalid, c->messages, seconds,
                   rate);
    else
        buf_printf(&out,
                   "%zu of %zu recipients accepted, %zu refused, %zu not sent, %lu invalid; "
                   "%.1f s, %.0f/s\n",
                   c->accepted, all, c->refused, untried, c->list.invalid, seconds, rate);
    flush_text(&out, stdout);
    buf_done(&out);
}

static int send_command(struct send *c, int argc, char **argv)
{
    int err = read_options(c, argc, argv);

    if (err > 0)
        return EXIT_OK;
    if (err == 0)
        err = read_message(c);
    if (err == 0)
        err = read_recipients(c, argc, argv);
    if (err < 0)
        return EXIT_USAGE;
    c->progress = !c->quiet && isatty(STDERR_FILENO);
    err = send_run(c);
    if (err < 0) {
        fprintf(stderr, "hayauma send: %s\n", strerror(-err));
        return EXIT_FAILED;
    }
    io_close(c->io);
    print_summary(c);
    return c->accepted == send_list_len(&c->list) && c->list.invalid == 0 ? EXIT_OK : EXIT_FAILED;
}

int cmd_send(int argc, char **argv)
{
    struct send *c = calloc(1, sizeof(*c));
    int status;

    if (c == NULL)
        return EXIT_FAILED;
    list_init(&c->idle);
    c->list.reported_max = SHOWN_MAX;
    c->column = "email";
    c->batch = 1;
    c->submit_options = (struct submit_options){
        .sessions = 4,
        .timeout_ms = 300000,
        .reconnect = true,
        .failures_max = CONNECT_FAILURES,
        .client = {.ehlo_name = "localhost", .pipeline_max = 8, .pipeline_bytes_max = 1 << 20},
    };
    status = send_command(c, argc, argv);
    send_done(c);
    free(c);
    return status;
}

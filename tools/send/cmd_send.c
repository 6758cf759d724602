/* hayauma send: a message to one recipient or to a list, through SMTP. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "smtp/address.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/quantity.h"
#include "tools/commands/screen.h"
#include "tools/send/send_run.h"

#define SESSIONS_MAX     1000
#define BATCH_MAX        1000
#define SHOWN_MAX        20 /* bad addresses that are named */
#define CONNECT_FAILURES 3

static const char usage[] =
    "usage: hayauma send (--eml FILE | --text FILE | --html FILE)\n"
    "                    [OPTION]... [RECIPIENT]...\n"
    "       hayauma send --template FILE --to LIST [OPTION]...\n"
    "Sends a message to each recipient through an SMTP server, by default the local\n"
    "engine.\n"
    "With --template it is a letter of its own for each: see\n"
    "'hayauma send --template --help'.\n"
    "\n"
    "The message:\n"
    "  --eml FILE         a complete message (RFC 5322); '-' is stdin\n"
    "  --text FILE        plain text, UTF-8\n"
    "  --html FILE        HTML, UTF-8; with --text as an alternative to it\n"
    "  --attach FILE      an attachment, its type by the end of its name; may be\n"
    "                     repeated\n"
    "  --subject TEXT     with --text or --html\n"
    "  --from ADDRESS     envelope sender, and with --text or --html the From field\n"
    "                     (\"Name <a@b>\" or a@b); default: the From field; '' is the\n"
    "                     null sender\n"
    "  --from-field ADDRESS\n"
    "                     with --text or --html the From field, if not --from\n"
    "Date, Message-ID and To are added where they are missing; Bcc is taken off.\n"
    "\n"
    "The recipients, from any of:\n"
    "  RECIPIENT          a mail address\n"
    "  --to-file FILE     one address a line; '#' begins a comment line; '-' is stdin\n"
    "  --csv FILE         comma-separated values (RFC 4180) in UTF-8 with a line of\n"
    "                     headings\n"
    "  --column NAME      the heading of the addresses in --csv (default email)\n"
    "Dots may stand at the ends of a local part and in a row (a..b@docomo.ne.jp): it\n"
    "is quoted. What is no address is reported with its line and left out; who is\n"
    "there twice gets it twice.\n"
    "\n"
    "Sending:\n"
    "  --server HOST[:PORT]\n"
    "                     default 127.0.0.1:25; unix:PATH too\n"
    "  --sessions N       connections at most, 1 to 1000 (default 32), each with up\n"
    "                     to 8 messages in flight where the server offers CHUNKING\n"
    "  --batch N          recipients per message, 1 to 1000 (default 1: a message of\n"
    "                     its own for each)\n"
    "  --timeout TIME     without a byte from the server (default 300s)\n"
    "  --quiet            no progress line (there is none without a terminal)\n"
    "  --json             print the summary as JSON\n"
    "  --help             this text\n"
    "\n"
    "Exit status: 0 when every recipient was accepted; 1 when some were not, or an\n"
    "address was left out; 2 for a wrong option or an unusable file: then nothing was\n"
    "sent.\n";

static int take_attachment(void *of, const char *file)
{
    struct send_parts *parts = &((struct send *)of)->parts;

    if (parts->attachments_len == SEND_ATTACHMENTS_MAX)
        return -ENOSPC;
    parts->attachments[parts->attachments_len++] = file;
    return 0;
}

static int take_server(void *of, const char *text)
{
    return endpoint_parse(text, 25, &((struct send *)of)->submit_options.to);
}

static const struct option_row options[] = {
    OPTION_TEXT("eml", struct send, eml_file),
    OPTION_TEXT("text", struct send, parts.text_file),
    OPTION_TEXT("html", struct send, parts.html_file),
    OPTION_TAKE("attach", take_attachment),
    OPTION_TEXT("subject", struct send, parts.subject),
    OPTION_TEXT("from", struct send, from),
    OPTION_TEXT("from-field", struct send, parts.from),
    OPTION_TEXT("to-file", struct send, to_file),
    OPTION_TEXT("csv", struct send, csv_file),
    OPTION_TEXT("column", struct send, column),
    OPTION_TAKE("server", take_server),
    OPTION_NUMBER("sessions", struct send, submit_options.sessions, quantity_count, 1,
                  SESSIONS_MAX),
    OPTION_NUMBER("batch", struct send, batch, quantity_count, 1, BATCH_MAX),
    OPTION_NUMBER("timeout", struct send, submit_options.timeout_ms, quantity_duration_ms, 1,
                  UINT32_MAX),
    OPTION_FLAG("quiet", struct send, quiet),
    OPTION_FLAG("json", struct send, json),
};

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

/* Whether text, which may be NULL, may go into a header: what has a line end in it would add
 * fields, or as an encoded-word fool whoever decodes it. */
static bool is_header_text(const char *text)
{
    for (const char *c = text; c != NULL && *c != '\0'; c++)
        if (ascii_is_control(*c))
            return false;
    return smtp_utf8_valid(str_of(text));
}

static int check_parts(struct send *c)
{
    struct send_parts *p = &c->parts;

    if (p->from == NULL && c->from != NULL && *c->from != '\0')
        p->from = c->from;
    if (p->from == NULL)
        return usage_error(c->from == NULL
                               ? "--from is needed with --text and --html"
                               : "--from-field is needed: the null sender names nobody");
    if (!is_header_text(p->subject) || !is_header_text(p->from))
        return usage_error(
            "--subject, --from: a header takes only UTF-8 without control characters");
    for (size_t i = 0; i < p->attachments_len; i++)
        if (!is_header_text(send_file_name(p->attachments[i])))
            return usage_error("--attach: the file's name: a header takes only UTF-8 without "
                               "control characters");
    return 0;
}

/* 0, 1 when --help was printed, or -EINVAL. Recipients begin at argv[optind]. */
static int read_options(struct send *c, int argc, char **argv)
{
    int err = options_read(options, ARRAY_LEN(options), c, "send", usage, argc, argv);
    bool parts;

    if (err != 0)
        return err;
    parts = c->parts.text_file != NULL || c->parts.html_file != NULL;
    if (!parts && c->eml_file == NULL)
        return usage_error("no message: give --eml, --text or --html");
    if (c->eml_file != NULL && (parts || c->parts.attachments_len > 0 || c->parts.subject != NULL ||
                                c->parts.from != NULL))
        return usage_error("--eml is a whole message: it takes no parts");
    if (!smtp_utf8_valid(str_of(c->from)))
        return usage_error("--from is UTF-8");
    if (parts && check_parts(c) < 0)
        return -EINVAL;
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

static int take_mailbox(const char *option, const char *text, char **out)
{
    int err = send_mailbox_parse(text, out);

    if (err < 0)
        fprintf(stderr, "hayauma send: %s: '%s' is not a mail address\n", option, text);
    return err;
}

static int read_message(struct send *c)
{
    int err = 0;

    if (c->from != NULL && *c->from == '\0')
        c->sender = strdup("");
    else if (c->from != NULL)
        err = take_mailbox("--from", c->from, &c->sender);
    if (err < 0)
        return err;
    if (c->parts.from != NULL && c->parts.from != c->from) {
        char *address;

        err = take_mailbox("--from-field", c->parts.from, &address);
        if (err < 0)
            return err;
        free(address);
    }
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

static bool has_template(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--template") == 0 || strncmp(argv[i], "--template=", 11) == 0)
            return true;
    return false;
}

int cmd_send(int argc, char **argv)
{
    struct send *c;
    int status;

    if (has_template(argc, argv))
        return cmd_send_template(argc, argv);
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return EXIT_FAILED;
    list_init(&c->idle);
    c->list.reported_max = SHOWN_MAX;
    c->column = "email";
    c->batch = 1;
    c->submit_options = (struct submit_options){
        .sessions = 32,
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

/* hayauma trace: the dialogue of sessions, as it goes on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config/config_value.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/screen.h"

static const char help[] =
    "usage: hayauma trace [options]\n"
    "\n"
    "Shows what sessions say and hear, until Ctrl-C: '<' is the other side, '>' this\n"
    "host. Of contents it shows how much there is, of logins nothing but the code of\n"
    "the answer, and of clients the commands that were understood; any other line is\n"
    "'[no command]'. With no option it shows all sessions. What this command does not\n"
    "read in time is left out and counted: no session waits for it.\n"
    "\n"
    "      --client NETWORK    sessions of these clients: 192.0.2.7, 10.0.0.0/8\n"
    "      --site NAME         sessions to this site (as 'hayauma status --json'\n"
    "                          shows it)\n"
    "      --source NAME       sessions from this source\n"
    "      --message ID        while a session out has the message of this id under\n"
    "                          way\n"
    "      --for TIME          end after TIME (30s, 5m)\n" CHANNEL_HELP
    "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the engine does not answer.\n";

/* --- text --- */

static void put_head(struct buf *out, const json_t *t)
{
    time_t s = (time_t)(reply_number(t, "ms") / 1000);
    struct tm tm;
    char text[16];

    strftime(text, sizeof(text), "%H:%M:%S", localtime_r(&s, &tm));
    buf_printf(out, "%s.%03lld %s %-3s ", text, reply_number(t, "ms") % 1000,
               reply_text(t, "session"), reply_text(t, "direction"));
    put_text(out, *reply_text(t, "site") != 0 ? reply_text(t, "site") : reply_text(t, "peer"), 0,
             false);
    buf_puts(out, strcmp(reply_text(t, "from"), "us") == 0 ? " > " : " < ");
}

/* A line for each line that was said. */
static void print_trace(const json_t *t)
{
    const char *text = reply_text(t, "text");
    struct buf out = {0};

    while (*text != 0) {
        size_t n = strcspn(text, "\r\n");
        char *line = strndup(text, n);

        put_head(&out, t);
        put_text(&out, line == NULL ? "" : line, 0, false);
        free(line);
        text += n;
        if (*text == 0 && json_object_get(t, "cut") != NULL)
            buf_printf(&out, "... [%lld bytes more]", reply_number(t, "cut"));
        buf_putc(&out, '\n');
        text += strspn(text, "\r\n");
    }
    flush_text(&out, stdout);
    buf_done(&out);
}

/* Whether it is of a session. */
static bool print_reply(const struct channel_options *o, const json_t *reply)
{
    const json_t *t = json_object_get(reply, "trace");

    if (o->json)
        reply_print(t != NULL ? t : reply);
    else if (t != NULL)
        print_trace(t);
    else if (json_object_get(reply, "dropped") != NULL)
        printf("[%lld lines left out]\n", reply_number(reply, "dropped"));
    fflush(stdout);
    return t != NULL;
}

/* --- the command --- */

enum { OPT_CLIENT = 300, OPT_SITE, OPT_SOURCE, OPT_MESSAGE, OPT_FOR };

static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                      {"client", required_argument, NULL, OPT_CLIENT},
                                      {"site", required_argument, NULL, OPT_SITE},
                                      {"source", required_argument, NULL, OPT_SOURCE},
                                      {"message", required_argument, NULL, OPT_MESSAGE},
                                      {"for", required_argument, NULL, OPT_FOR},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static int usage_error(const char *what)
{
    fprintf(stderr, "hayauma trace: %s; 'hayauma trace --help' says more\n", what);
    return EXIT_USAGE;
}

static int take_option(json_t *request, int c)
{
    static const char *const names[] = {"client", "site", "source", "message"};
    uint64_t for_ms;

    if (c == OPT_FOR) {
        if (config_parse_duration(str_of(optarg), &for_ms) != 0 || for_ms == 0)
            return usage_error("--for takes a duration: 30s or 5m");
        json_object_set_new(request, "for_ms", json_integer((json_int_t)for_ms));
        return 0;
    }
    if (c < OPT_CLIENT || c > OPT_MESSAGE)
        return usage_error("wrong option");
    if (*optarg == 0) /* it would be all sessions */
        return usage_error("an option is empty");
    json_object_set_new(request, names[c - OPT_CLIENT], json_string(optarg));
    return 0;
}

/* 0, an exit code, or -1: help. */
static int options_parse(struct channel_options *o, json_t *request, int argc, char **argv)
{
    int c, code = 0;

    while (code == 0 && (c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(o, c))
            continue;
        code = c == 'h' ? -1 : take_option(request, c);
    }
    return code == 0 && optind < argc ? usage_error("say what with an option") : code;
}

int cmd_trace(int argc, char **argv)
{
    struct channel_options o = {.command = "trace"};
    json_t *request = json_pack("{s:s}", "op", "trace"), *reply;
    int code = options_parse(&o, request, argc, argv);
    struct channel ch;
    bool any = false;

    if (code == -1)
        fputs(help, stdout);
    if (code != 0) {
        json_decref(request);
        return code == -1 ? EXIT_OK : code;
    }
    code = channel_begin(&ch, &o, request);
    while (code == 0 && ferror(stdout) == 0 && (reply = channel_next(&ch, NULL, &code)) != NULL) {
        any = print_reply(&o, reply) || any;
        json_decref(reply);
    }
    channel_close(&ch);
    if (code == 0 && !any && !o.json)
        fputs("no session that is meant said anything\n", stderr);
    return code;
}

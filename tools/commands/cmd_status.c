/* hayauma status: what the engine is doing, as a table that refreshes. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/config_value.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/screen.h"
#include "tools/commands/status_table.h"

static const char help[] =
    "usage: hayauma status [options]\n"
    "\n"
    "Shows rates, sessions, and the largest destinations with what holds their mail.\n"
    "On a terminal it refreshes until Ctrl-C; otherwise it prints once.\n"
    "\n"
    "      --once              print once (after a second, for the rates)\n"
    "  -i, --interval TIME     refresh each TIME (default 2s)\n"
    "  -n, --destinations N    list N destinations (default: what fits, 20 with\n"
    "                          --once)\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "With --json it prints one object, or one each TIME when --interval is given.\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the engine does not answer.\n";

#define DESTINATIONS_MAX  1000
#define DESTINATIONS_ONCE 20

struct options {
    struct channel_options channel;
    bool once, paced; /* paced: --interval was given */
    uint64_t interval_ms;
    long long destinations; /* -1 = what fits */
};

static volatile sig_atomic_t stopped;

static void on_signal(int signal)
{
    (void)signal;
    stopped = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: it ends the wait */

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* The status object (a new reference), or NULL with *code set. */
static json_t *fetch(struct channel *ch, long long destinations, int *code)
{
    json_t *reply, *status = NULL;

    *code = channel_send(
        ch, json_pack("{s:s, s:I}", "op", "status", "destinations", (json_int_t)destinations));
    if (*code != 0)
        return NULL;
    while ((reply = channel_next(ch, NULL, code)) != NULL) {
        json_t *found = json_object_get(reply, "status");

        if (found != NULL && status == NULL)
            status = json_incref(found);
        json_decref(reply);
    }
    if (*code == 0 && status == NULL)
        *code = EXIT_FAILED;
    return status;
}

static void wait_ms(uint64_t ms)
{
    if (stopped == 0)
        (void)poll(NULL, 0, (int)ms);
}

static int print_json(struct channel *ch, const struct options *o)
{
    long long destinations = o->destinations < 0 ? DESTINATIONS_MAX : o->destinations;
    int code = 0;

    while (stopped == 0) {
        json_t *status = fetch(ch, destinations, &code);

        if (status == NULL)
            break;
        reply_print(status);
        fflush(stdout);
        json_decref(status);
        if (!o->paced || ferror(stdout) != 0)
            break;
        wait_ms(o->interval_ms);
    }
    return stopped != 0 ? EXIT_OK : code;
}

static int print_once(struct channel *ch, const struct options *o)
{
    unsigned rows = o->destinations < 0 ? DESTINATIONS_ONCE : (unsigned)o->destinations;
    struct buf text = {0};
    json_t *before, *now = NULL;
    int code;

    before = fetch(ch, 0, &code);
    if (before != NULL) {
        wait_ms(1000);
        now = fetch(ch, rows, &code);
    }
    if (now != NULL) {
        status_table(before, now, screen_width(), rows, &text);
        flush_text(&text, stdout);
    }
    buf_done(&text);
    json_decref(before);
    json_decref(now);
    return code;
}

/* The lines that the head of the table takes, and one for the prompt. */
#define HEAD_LINES 14

static unsigned rows_that_fit(const struct options *o)
{
    unsigned height = screen_height();

    if (o->destinations >= 0)
        return (unsigned)o->destinations;
    return height > HEAD_LINES + 3 ? height - HEAD_LINES : 3;
}

/* Draws over the last frame: each line is cleared behind its text, so that nothing flickers. What
 * the screen has no line for is left out. */
static void draw(struct buf *text)
{
    unsigned lines = screen_height();
    struct buf frame = {0};

    buf_puts(&frame, "\033[H");
    for (size_t i = 0; i < text->len; i++) {
        if (text->data[i] == '\n' && --lines == 0)
            break;
        if (text->data[i] == '\n')
            buf_puts(&frame, "\033[K");
        buf_putc(&frame, (char)text->data[i]);
    }
    buf_puts(&frame, "\033[J");
    flush_text(&frame, stdout);
    fflush(stdout);
    buf_done(&frame);
    buf_clear(text);
}

/* The engine does not answer, since gone_ms; behind a restart it does again. The figures below are
 * the last ones. */
static void put_gone(struct buf *text, const struct channel *ch, uint64_t gone_ms)
{
    buf_puts(text, "NO ANSWER from the engine for ");
    put_age(text, (int64_t)(clock_mono_ns() / 1000000 - gone_ms));
    buf_printf(text, ", asking again at %s\n", ch->path);
    fold_text(text, screen_width(), 10);
}

static json_t *fetch_anew(struct channel *ch, long long destinations, int *code)
{
    json_t *now = fetch(ch, destinations, code);

    if (now != NULL || *code != EXIT_UNREACHABLE || stopped != 0)
        return now;
    *code = channel_reopen(ch);
    return *code == 0 ? fetch(ch, destinations, code) : NULL;
}

static int watch(struct channel *ch, const struct options *o)
{
    json_t *before = NULL, *now, *next;
    struct buf text = {0};
    uint64_t gone_ms = 0; /* 0: it answers */
    int code = 0;

    now = fetch(ch, rows_that_fit(o), &code);
    if (now == NULL)
        return code;
    fputs("\033[?1049h\033[?25l", stdout); /* the other screen, no cursor */
    ch->quiet = true;
    while (stopped == 0) {
        if (gone_ms != 0)
            put_gone(&text, ch, gone_ms);
        status_table(before, now, screen_width(), rows_that_fit(o), &text);
        draw(&text);
        wait_ms(o->interval_ms);
        next = fetch_anew(ch, rows_that_fit(o), &code);
        if (next == NULL && code != EXIT_UNREACHABLE)
            break;
        if (next == NULL) {
            gone_ms = gone_ms != 0 ? gone_ms : clock_mono_ns() / 1000000;
            continue;
        }
        gone_ms = 0;
        json_decref(before);
        before = now;
        now = next;
    }
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    json_decref(before);
    json_decref(now);
    buf_done(&text);
    return stopped != 0 ? EXIT_OK : code;
}

static int usage_error(const char *value, const char *what)
{
    fprintf(stderr, "hayauma status: '%s' %s\n", value, what);
    return EXIT_USAGE;
}

/* 0, an exit code, or -1: help. */
static int take_option(struct options *o, int c)
{
    uint64_t v;

    if (channel_option(&o->channel, c))
        return 0;
    switch (c) {
    case 'o':
        o->once = true;
        return 0;
    case 'i':
        if (config_parse_duration(str_of(optarg), &v) != 0 || v < 100 || v > 3600000)
            return usage_error(optarg, "is not an interval; write 500ms, 2s or 1m");
        o->interval_ms = v;
        o->paced = true;
        return 0;
    case 'n':
        if (config_parse_count(str_of(optarg), &v) != 0 || v > DESTINATIONS_MAX)
            return usage_error(optarg, "is not a number up to 1000");
        o->destinations = (long long)v;
        return 0;
    case 'h':
        return -1;
    default:
        fputs("'hayauma status --help' shows the options.\n", stderr);
        return EXIT_USAGE;
    }
}

static int parse(struct options *o, int argc, char **argv)
{
    static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                          {"once", no_argument, NULL, 'o'},
                                          {"interval", required_argument, NULL, 'i'},
                                          {"destinations", required_argument, NULL, 'n'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int c, code = 0;

    while (code == 0 && (c = getopt_long(argc, argv, "c:i:n:h", longs, NULL)) != -1)
        code = take_option(o, c);
    if (code == 0 && optind < argc)
        code = usage_error(argv[optind], "is not expected");
    return code;
}

int cmd_status(int argc, char **argv)
{
    struct options o = {.channel.command = "status", .interval_ms = 2000, .destinations = -1};
    struct channel ch;
    int code = parse(&o, argc, argv);

    if (code == -1)
        fputs(help, stdout);
    if (code != 0)
        return code == -1 ? EXIT_OK : code;
    code = channel_open(&ch, &o.channel);
    if (code == 0) {
        catch_signals();
        if (o.channel.json)
            code = print_json(&ch, &o);
        else if (o.once || screen_width() == 0)
            code = print_once(&ch, &o);
        else
            code = watch(&ch, &o);
    }
    channel_close(&ch);
    return code;
}

/* hayauma source list, show, suspend, resume; hayauma pool list, show. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/queue_suspend.h"
#include "tools/commands/screen.h"

static const char source_help[] =
    "usage: hayauma source list [options]\n"
    "       hayauma source show NAME [options]\n"
    "       hayauma source suspend NAME [--for TIME] [--reason TEXT] [options]\n"
    "       hayauma source resume NAME [options]\n"
    "\n"
    "The addresses that the running engine sends from. A source that is suspended\n"
    "sends nothing; its mail goes by the others of its pools. 'hayauma queue\n"
    "suspensions' lists what is suspended.\n"
    "\n"
    "      --for TIME          suspend: resume it by itself after TIME (30m, 2h, 3d)\n"
    "      --reason TEXT       suspend: why, for those who look later\n" CHANNEL_HELP
    "  -h, --help              this text\n"
    "\n"
    "Without one of these actions 'hayauma source' is the load generator: 'hayauma\n"
    "source --help'. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the engine does\n"
    "not answer.\n";

static const char pool_help[] =
    "usage: hayauma pool list [options]\n"
    "       hayauma pool show NAME [options]\n"
    "\n"
    "The pools of the running engine: which sources each has, with their weights;\n"
    "show says all of one, and how its sources stand. 'hayauma route' says which pool\n"
    "sends a mail.\n"
    "\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the engine does not answer.\n";

/* --- what the engine says --- */

/* The member name of its status (a new reference), or NULL with *code set. */
static json_t *ask(const struct channel_options *o, const char *name, int *code)
{
    struct channel ch;
    json_t *reply, *list = NULL;

    *code = channel_begin(&ch, o, json_pack("{s:s, s:i}", "op", "status", "destinations", 0));
    while (*code == 0 && (reply = channel_next(&ch, NULL, code)) != NULL) {
        json_t *found = json_object_get(json_object_get(reply, "status"), name);

        if (found != NULL && list == NULL)
            list = json_incref(found);
        json_decref(reply);
    }
    channel_close(&ch);
    return list;
}

/* All that name has. */
static int print_list(const struct channel_options *o, const char *name,
                      void (*print)(const json_t *one, bool first))
{
    int code;
    json_t *list = ask(o, name, &code), *one;
    size_t i;

    json_array_foreach(list, i, one)
    {
        if (o->json)
            reply_print(one);
        else
            print(one, i == 0);
    }
    json_decref(list);
    return code;
}

static void put_cell(struct buf *line, const char *text, unsigned columns)
{
    put_column(line, *text != 0 ? text : "-", columns);
    buf_putc(line, ' ');
}

static void put_short_number(struct buf *line, long long v, unsigned columns)
{
    size_t from = line->len;

    put_short_count(line, (uint64_t)v);
    pad_from(line, from, columns, true);
    buf_putc(line, ' ');
}

/* --- sources --- */

static bool is_missing(const json_t *source, const char *address)
{
    const json_t *one;
    size_t i;

    json_array_foreach(json_object_get(source, "missing"), i, one)
    {
        if (strcmp(reply_text(one, "address"), address) == 0)
            return true;
    }
    return false;
}

/* A further line: what has no room in the columns. */
static void put_below(struct buf *line, unsigned from, const char *text, const char *more)
{
    pad_from(line, line->len, from, false);
    put_text(line, text, 0, false);
    buf_printf(line, "%s\n", more);
}

/* An IPv6 address would leave the name no room: it has a line of its own. So has what is wrong with
 * one family while the other sends. */
static void print_source(const json_t *s, bool first)
{
    const char *ipv4 = reply_text(s, "ipv4"), *ipv6 = reply_text(s, "ipv6");
    bool works = strcmp(reply_text(s, "state"), "ok") == 0;
    unsigned columns = name_room(16);
    struct buf line = {0};
    const json_t *one;
    size_t i;

    if (first)
        printf("%-*s %-10s %5s %8s %-15s %s\n", (int)columns, "SOURCE", "STATE", "SESS", "MESSAGES",
               "ADDRESS", "EHLO NAME");
    put_cell(&line, reply_text(s, "name"), columns);
    put_cell(&line, reply_text(s, "state"), 10);
    put_short_number(&line, reply_number(s, "sessions"), 5);
    put_short_number(&line, reply_number(s, "messages"), 8);
    put_cell(&line, reply_text(s, "ipv4"), 15);
    put_last(&line, reply_text(s, "ehlo_name"));
    buf_putc(&line, '\n');
    if (*ipv6 != 0)
        put_below(&line, columns + 27, ipv6, is_missing(s, ipv6) ? " is missing" : "");
    if (works && is_missing(s, ipv4))
        put_below(&line, columns + 27, ipv4, " is missing");
    json_array_foreach(json_object_get(s, "no_route"), i, one)
    {
        if (works)
            put_below(&line, columns + 27, "no route over ", reply_text(one, "family"));
    }
    flush_text(&line, stdout);
    buf_done(&line);
}

static int source_list(const struct channel_options *o, const char *name)
{
    (void)name;
    return print_list(o, "sources", print_source);
}

static void print_field(const char *name, const char *text)
{
    struct buf line = {0};

    put_cell(&line, name, 18);
    put_text(&line, text, 0, false);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static void print_count(const char *name, long long v)
{
    struct buf line = {0};

    put_count(&line, (uint64_t)v);
    buf_putc(&line, '\0');
    print_field(name, (const char *)line.data);
    buf_done(&line);
}

static void print_missing(const json_t *missing)
{
    struct buf text = {0};

    buf_printf(&text, "%s: %s, since ", reply_text(missing, "address"),
               reply_text(missing, "error"));
    put_age(&text, clock_wall_ms() - reply_number(missing, "since_ms"));
    buf_putc(&text, '\0');
    print_field("missing", (const char *)text.data);
    buf_done(&text);
}

static void print_no_route(const json_t *one)
{
    struct buf text = {0};

    buf_printf(&text, "over %s, to %s, since ", reply_text(one, "family"),
               reply_text(one, "address"));
    put_age(&text, clock_wall_ms() - reply_number(one, "since_ms"));
    buf_putc(&text, '\0');
    print_field("no route", (const char *)text.data);
    buf_done(&text);
}

static void print_proxy(const json_t *proxy)
{
    struct buf text = {0};

    if (proxy == NULL)
        return;
    buf_printf(&text, "%s %s", reply_text(proxy, "protocol"), reply_text(proxy, "server"));
    if (json_object_get(proxy, "error") != NULL) {
        buf_printf(&text, ": %s, since ", reply_text(proxy, "error"));
        put_age(&text, clock_wall_ms() - reply_number(proxy, "since_ms"));
    }
    buf_putc(&text, '\0');
    print_field("proxy", (const char *)text.data);
    buf_done(&text);
}

static void print_limit(const json_t *limit)
{
    struct buf text = {0};

    buf_printf(&text, "%s, set at %s", reply_text(limit, "value"), reply_text(limit, "set"));
    buf_putc(&text, '\0');
    print_field(reply_text(limit, "name"), (const char *)text.data);
    buf_done(&text);
}

static void print_details(const json_t *s)
{
    const json_t *missing = json_object_get(s, "missing"), *pools = json_object_get(s, "pools"),
                 *limits = json_object_get(s, "limits");
    size_t i;
    json_t *item;

    print_field("source", reply_text(s, "name"));
    print_field("state", reply_text(s, "state"));
    if (*reply_text(s, "ipv4") != 0)
        print_field("ipv4", reply_text(s, "ipv4"));
    if (*reply_text(s, "ipv6") != 0)
        print_field("ipv6", reply_text(s, "ipv6"));
    json_array_foreach(missing, i, item) print_missing(item);
    json_array_foreach(json_object_get(s, "no_route"), i, item) print_no_route(item);
    print_proxy(json_object_get(s, "proxy"));
    json_array_foreach(limits, i, item) print_limit(item);
    print_field("ehlo name", reply_text(s, "ehlo_name"));
    json_array_foreach(pools, i, item) print_field("pool", json_string_value(item));
    print_count("sessions", reply_number(s, "sessions"));
    print_count("messages", reply_number(s, "messages"));
    print_count("connects", reply_number(s, "connects"));
    print_count("connect failures", reply_number(s, "connect_failures"));
}

static int show_source(const struct channel_options *o, const char *name)
{
    int code;
    json_t *list = ask(o, "sources", &code), *s;
    bool found = false;
    size_t i;

    json_array_foreach(list, i, s)
    {
        if (strcmp(reply_text(s, "name"), name) != 0)
            continue;
        found = true;
        if (o->json)
            reply_print(s);
        else
            print_details(s);
    }
    if (code == 0 && !found) {
        fprintf(stderr,
                "hayauma source show: there is no source '%s'; 'hayauma source list' shows "
                "them\n",
                name);
        code = EXIT_FAILED;
    }
    json_decref(list);
    return code;
}

/* --- pools --- */

static void print_pool(const json_t *pool, bool first)
{
    const json_t *sources = json_object_get(pool, "sources");
    struct buf line = {0};
    size_t i;
    json_t *s;

    if (first)
        buf_printf(&line, "%-20s %-9s %-20s %s\n", "POOL", "SELECTION", "OVERFLOW",
                   "SOURCES AND WEIGHTS");
    put_cell(&line, reply_text(pool, "name"), 20);
    put_cell(&line, reply_text(pool, "selection"), 9);
    put_cell(&line, reply_text(pool, "overflow"), 20);
    json_array_foreach(sources, i, s)
    {
        buf_puts(&line, i == 0 ? "" : ", ");
        put_text(&line, reply_text(s, "name"), 0, false);
        buf_printf(&line, " %lld", reply_number(s, "weight"));
    }
    if (json_is_true(json_object_get(pool, "default")))
        buf_puts(&line, "; the default pool");
    buf_putc(&line, '\n');
    fold_text(&line, screen_width(), 52);
    flush_text(&line, stdout);
    buf_done(&line);
}

static int pool_list(const struct channel_options *o, const char *name)
{
    (void)name;
    return print_list(o, "pools", print_pool);
}

static const json_t *find_named(const json_t *list, const char *name)
{
    const json_t *one;
    size_t i;

    json_array_foreach(list, i, one)
    {
        if (strcmp(reply_text(one, "name"), name) == 0)
            return one;
    }
    return NULL;
}

/* "a1, weight 3: ok, 2 sessions, 1,200 messages". source: NULL where a reload took it away. */
static void print_member(const json_t *member, const json_t *source)
{
    struct buf text = {0};

    buf_printf(&text, "%s, weight %lld", reply_text(member, "name"),
               reply_number(member, "weight"));
    if (source != NULL) {
        buf_printf(&text, ": %s, ", reply_text(source, "state"));
        put_counted(&text, (uint64_t)reply_number(source, "sessions"), "session");
        buf_puts(&text, ", ");
        put_counted(&text, (uint64_t)reply_number(source, "messages"), "message");
    }
    buf_putc(&text, '\0');
    print_field("source", (const char *)text.data);
    buf_done(&text);
}

static void print_pool_details(const json_t *pool, const json_t *sources)
{
    const json_t *one;
    size_t i;

    print_field("pool", reply_text(pool, "name"));
    if (json_is_true(json_object_get(pool, "default")))
        print_field("default", "yes: it sends what no rule gives to another pool");
    print_field("selection", reply_text(pool, "selection"));
    if (*reply_text(pool, "overflow") != 0)
        print_field("overflow", reply_text(pool, "overflow"));
    if (*reply_text(pool, "engaged") != 0)
        print_field("engaged", reply_text(pool, "engaged"));
    if (json_object_get(pool, "attempts_max") != NULL)
        print_count("attempts_max", reply_number(pool, "attempts_max"));
    json_array_foreach(json_object_get(pool, "sources"), i, one)
    {
        print_member(one, find_named(sources, reply_text(one, "name")));
    }
}

static int pool_show(const struct channel_options *o, const char *name)
{
    int code;
    json_t *pools = ask(o, "pools", &code), *sources = NULL;
    const json_t *pool = find_named(pools, name);

    if (code == 0 && pool == NULL) {
        fprintf(stderr,
                "hayauma pool show: there is no pool '%s'; 'hayauma pool list' shows them\n", name);
        code = EXIT_FAILED;
    } else if (code == 0 && o->json) {
        reply_print(pool);
    } else if (code == 0) {
        sources = ask(o, "sources", &code);
        print_pool_details(pool, sources);
    }
    json_decref(pools);
    json_decref(sources);
    return code;
}

/* --- options --- */

/* The options behind the action. -1: help was asked for; names_max words may follow. */
static int options_parse(struct channel_options *o, int argc, char **argv, int names_max)
{
    static const struct option longs[] = {
        CHANNEL_LONG_OPTIONS, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int c;

    optind = 0; /* glibc: start again */
    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(o, c))
            continue;
        if (c == 'h')
            return -1;
        return EXIT_USAGE;
    }
    if (argc - optind <= names_max)
        return 0;
    fprintf(stderr, "hayauma %s: unexpected '%s'\n", o->command, argv[optind + names_max]);
    return EXIT_USAGE;
}

/* Runs the action of argv[1], under the name by which its errors are said. */
static int run(const char *what, const char *help, int argc, char **argv,
               int (*action)(const struct channel_options *o, const char *name), bool named)
{
    char title[64];
    struct channel_options o = {0};
    int code;

    snprintf(title, sizeof(title), "hayauma %s %s", what, argv[1]);
    o.command = title + strlen("hayauma ");
    argv[1] = title;
    code = options_parse(&o, argc - 1, argv + 1, named ? 1 : 0);
    if (code == 0 && named && argc - 1 == optind) {
        fprintf(stderr, "%s: say which\n", title);
        code = EXIT_USAGE;
    }
    if (code == 0)
        return action(&o, named ? argv[1 + optind] : NULL);
    if (code == -1)
        fputs(help, stdout);
    return code == -1 ? EXIT_OK : code;
}

int cmd_sources(int argc, char **argv)
{
    const char *action = argv[1];
    char title[64];
    int code;

    if (strcmp(action, "list") == 0)
        return run("source", source_help, argc, argv, source_list, false);
    if (strcmp(action, "show") == 0)
        return run("source", source_help, argc, argv, show_source, true);
    snprintf(title, sizeof(title), "hayauma source %s", action);
    argv[1] = title;
    code =
        source_suspend(strcmp(action, "suspend") == 0 ? "suspend" : "resume", argc - 1, argv + 1);
    if (code == -1)
        fputs(source_help, stdout);
    return code == -1 ? EXIT_OK : code;
}

int cmd_pool(int argc, char **argv)
{
    struct suggest near;

    if (argc > 1 && strcmp(argv[1], "list") == 0)
        return run("pool", pool_help, argc, argv, pool_list, false);
    if (argc > 1 && strcmp(argv[1], "show") == 0)
        return run("pool", pool_help, argc, argv, pool_show, true);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(pool_help, stdout);
        return EXIT_OK;
    }
    if (argc > 1) {
        suggest_init(&near, str_of(argv[1]));
        suggest_offer(&near, "list");
        suggest_offer(&near, "show");
        return action_unknown("pool", &near);
    }
    fputs(pool_help, stderr);
    return EXIT_USAGE;
}

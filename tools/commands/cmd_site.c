/* hayauma site list, show: who takes mail, and how much of it. */
#include <stdio.h>
#include <string.h>

#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

static const char help[] =
    "usage: hayauma site list [options]\n"
    "       hayauma site show NAME [options]\n"
    "\n"
    "Where mail goes, and the limits there. A site is a provider, a set of exchangers\n"
    "or a static route; domains that have it in common share its limits.\n"
    "\n"
    "  list       the sites that the running engine has mail or sessions for, those\n"
    "             with most mail in memory first\n"
    "  show       the site of that name, for one of the domains that have mail there;\n"
    "             or else the site of the domain NAME, which the engine looks up: its\n"
    "             exchangers, each limit with its value and where that comes from,\n"
    "             and what is used of it now\n"
    "\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 done, 1 failed, or no such site, 2 wrong usage, 3 the engine does\n"
    "not answer.\n";

/* --- list --- */

/* "rate 60/min, sessions_max 2 by rule busy". */
static void put_lowered(struct buf *out, const json_t *source)
{
    const json_t *lowered = json_object_get(source, "lowered");

    if (lowered != NULL) {
        buf_puts(out, ", lowered to");
        put_caps(out, lowered);
        buf_puts(out, " by ");
        put_text(out, reply_text(lowered, "who"), 0, false);
        buf_puts(out, ": ");
        put_text(out, reply_text(lowered, "reason"), 0, false);
    }
    if (json_object_get(source, "recovering") != NULL)
        buf_printf(out, ", coming back behind a pause with %lld",
                   reply_number(source, "recovering"));
}

/* "sessions_max 5, rate 10/s": the limits that there are. */
static void put_short_limits(struct buf *line, const json_t *site)
{
    static const char *const shown[] = {"sessions_max",        "rate",
                                        "recipient_rate",      "byte_rate",
                                        "host_sessions_max",   "host_rate",
                                        "host_recipient_rate", "host_byte_rate",
                                        "host_connect_rate",   "total_sessions_max",
                                        "total_rate",          "total_recipient_rate",
                                        "total_byte_rate",     "connect_rate",
                                        "total_connect_rate"};
    bool is_provider = json_is_true(json_object_get(site, "is_provider"));
    const char *between = "", *of = is_provider ? "provider" : "site";
    const json_t *one;
    size_t i;

    json_array_foreach(json_object_get(site, "limits"), i, one)
    {
        if (strcmp(reply_text(one, "of"), of) != 0 || strcmp(reply_text(one, "value"), "none") == 0)
            continue;
        for (size_t j = 0; j < ARRAY_LEN(shown); j++) {
            if (strcmp(shown[j], reply_text(one, "name")) != 0)
                continue;
            buf_printf(line, "%s%s ", between, shown[j]);
            put_text(line, reply_text(one, "value"), 0, false);
            between = ", ";
        }
    }
}

static void print_site(const json_t *site, bool first)
{
    unsigned columns = name_room(28);
    struct buf line = {0}, limits = {0};

    if (first)
        printf("%-*s %7s %7s %5s %s\n", (int)columns, "SITE", "QUEUES", "MEMORY", "SESS", "LIMITS");
    put_column(&line, reply_text(site, "name"), columns);
    buf_printf(&line, " %7lld %7lld %5lld ", reply_number(site, "queues"),
               reply_number(site, "waiting"), reply_number(site, "sessions"));
    put_short_limits(&limits, site);
    buf_putc(&limits, 0);
    put_last(&line, (const char *)limits.data);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
    buf_done(&limits);
}

/* --- show --- */

static void put_field(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "%-12s ", name);
    put_text(out, text, 0, false);
    buf_putc(out, '\n');
}

static void put_limits(struct buf *out, const json_t *route)
{
    const json_t *one;
    const char *of = "";
    size_t i;

    json_array_foreach(json_object_get(route, "limits"), i, one)
    {
        const char *whose = reply_text(one, "of");

        if (strcmp(of, whose) != 0)
            buf_printf(out, "limits of the %s:\n", whose);
        of = whose;
        buf_printf(out, "  %-20s ", reply_text(one, "name"));
        put_text(out, reply_text(one, "value"), 0, false);
        buf_puts(out, ", ");
        put_text(out, reply_text(one, "set"), 0, false);
        buf_putc(out, '\n');
    }
}

/* What keeps the source from sending there. */
static void put_state(struct buf *out, const json_t *source, int64_t now_ms)
{
    static const char *const states[][2] = {
        {"suspended", ", suspended"},
        {"missing", ", this machine holds none of its addresses"},
        {"no_address", ", the exchangers have no address of its family"},
        {"no_route", ", this machine has no route to the exchangers over its family"},
        {"proxy_down", ", its proxy is down"}};
    const char *state = reply_text(source, "state");

    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        buf_puts(out, strcmp(states[i][0], state) == 0 ? states[i][1] : "");
    put_source_suspension(out, source, now_ms);
    if (json_object_get(source, "stopped_ms") == NULL)
        return;
    buf_puts(out, ", stopped: nothing gets through, next probe in ");
    put_age(out, reply_number(source, "stopped_ms") - now_ms);
}

/* ", 1,200 delivered, 30 deferred": of what there is some. */
static void put_counters(struct buf *out, const json_t *source)
{
    static const char *const counted[][2] = {{"delivered", "delivered"},
                                             {"deferred", "deferred"},
                                             {"bounced", "bounced"},
                                             {"connect_failures", "connect failures"}};
    const json_t *all = json_object_get(source, "counters");

    for (size_t i = 0; all != NULL && i < ARRAY_LEN(counted); i++)
        if (reply_number(all, counted[i][0]) > 0)
            buf_printf(out, ", %lld %s", reply_number(all, counted[i][0]), counted[i][1]);
}

static void put_sources(struct buf *out, const json_t *route)
{
    int64_t now_ms = reply_number(route, "now_ms");
    const json_t *one;
    size_t i;

    json_array_foreach(json_object_get(route, "sources"), i, one)
    {
        buf_printf(out, "%-12s ", i == 0 ? "in use" : "");
        put_text(out, reply_text(one, "name"), 0, false);
        if (json_object_get(one, "sessions") == NULL)
            buf_puts(out, json_object_get(one, "counters") == NULL
                              ? ": nothing, it has had no turn there"
                              : ": nothing now");
        else
            buf_printf(out, ": %lld of %lld sessions", reply_number(one, "sessions"),
                       reply_number(one, "sessions_max"));
        put_counters(out, one);
        put_held(out, one);
        if (json_object_get(one, "rate_ms") != NULL) {
            buf_puts(out, ", next message in ");
            put_age(out, reply_number(one, "rate_ms") - now_ms);
        }
        put_state(out, one, now_ms);
        put_lowered(out, one);
        buf_putc(out, '\n');
    }
    if (json_object_size(json_object_get(route, "held_s")) == 0)
        return;
    buf_printf(out, "%-12s all sources", "");
    put_held(out, route);
    buf_putc(out, '\n');
}

/* A provider that was asked for by its name, and has no mail. */
static bool is_provider(const json_t *route)
{
    return *reply_text(route, "site") == 0 && *reply_text(route, "provider") != 0;
}

static void print_details(const json_t *route)
{
    const char *error = reply_text(route, "lookup_error"), *no_site = reply_text(route, "no_site");
    const json_t *one;
    struct buf out = {0};
    size_t i;

    put_field(&out, is_provider(route) ? "provider" : "domain", reply_text(route, "domain"));
    if (is_provider(route))
        put_field(&out, "site", "a provider; no mail is queued for it");
    else if (*reply_text(route, "site") == 0)
        put_field(&out, "no site",
                  *no_site != 0 ? no_site
                  : *error != 0 ? error
                                : reply_text(route, "lookup"));
    else
        put_field(&out, "site", reply_text(route, "site"));
    if (*reply_text(route, "exchangers_name") != 0)
        put_field(&out, "set", reply_text(route, "exchangers_name"));
    json_array_foreach(json_object_get(route, "exchangers"), i, one)
    {
        buf_printf(&out, "%-12s %lld ", i == 0 ? "exchangers" : "",
                   reply_number(one, "preference"));
        put_text(&out, reply_text(one, "host"), 0, false);
        buf_puts(&out, ", ");
        put_text(&out, reply_text(one, "address"), 0, false);
        buf_putc(&out, '\n');
    }
    put_limits(&out, route);
    put_sources(&out, route);
    fold_text(&out, screen_width(), 13);
    flush_text(&out, stdout);
    buf_done(&out);
}

/* --- the command --- */

static json_t *route_of(const char *name)
{
    const char *at = strrchr(name, '@');
    char address[300];

    snprintf(address, sizeof(address), "postmaster@%s", at != NULL ? at + 1 : name);
    return json_pack("{s:s, s:s}", "op", "route", "recipient", address);
}

/* A domain that has mail for the site name; empty: there is no such site now. The site itself
 * cannot be asked for: its name looks like a domain, and as a domain it may have another route. */
static int find_domain(struct channel *ch, const char *name, char *domain, size_t size)
{
    int code = channel_send(ch, json_pack("{s:s, s:s}", "op", "sites", "name", name));
    json_t *reply;

    domain[0] = 0;
    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *site = json_object_get(reply, "site");

        if (site != NULL && domain[0] == 0)
            snprintf(domain, size, "%s", reply_text(site, "domain"));
        json_decref(reply);
    }
    return code;
}

static int ask(struct channel *ch, json_t *request, bool list)
{
    int code = channel_send(ch, request);
    bool first = true;
    json_t *reply;

    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *site = json_object_get(reply, "site"),
                     *route = json_object_get(reply, "route");

        if (ch->options->json && (site != NULL || route != NULL))
            reply_print(site != NULL ? site : route);
        else if (site != NULL)
            print_site(site, first);
        else if (route != NULL)
            print_details(route);
        else if (json_object_get(reply, "absent") != NULL && !ch->options->json)
            printf("%lld more queues are in the store alone, and counted for no site.\n",
                   reply_number(reply, "absent"));
        if (route != NULL && *reply_text(route, "site") == 0 && !is_provider(route))
            code = EXIT_FAILED;
        first = first && site == NULL;
        json_decref(reply);
    }
    if (code == 0 && first && list && !ch->options->json)
        fputs("no site has mail or sessions\n", stderr);
    return code;
}

static int run(const struct channel_options *o, const char *shown)
{
    char domain[300] = "";
    struct channel ch;
    int code = channel_open(&ch, o);

    if (code == 0 && shown != NULL && strchr(shown, '@') == NULL)
        code = find_domain(&ch, shown, domain, sizeof(domain));
    if (code == 0)
        code = ask(&ch,
                   shown == NULL ? json_pack("{s:s}", "op", "sites")
                                 : route_of(domain[0] != 0 ? domain : shown),
                   shown == NULL);
    channel_close(&ch);
    return code;
}

int cmd_site(int argc, char **argv)
{
    static const struct option longs[] = {
        CHANNEL_LONG_OPTIONS, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *action = argc > 1 ? argv[1] : "";
    bool show = strcmp(action, "show") == 0;
    struct channel_options o = {.command = show ? "site show" : "site list"};
    int c;

    if (!show && strcmp(action, "list") != 0) {
        bool asked = strcmp(action, "-h") == 0 || strcmp(action, "--help") == 0;
        struct suggest near;

        suggest_init(&near, str_of(action));
        suggest_offer(&near, "list");
        suggest_offer(&near, "show");
        if (!asked && *action != '\0')
            return action_unknown("site", &near);
        fputs(help, asked ? stdout : stderr);
        return asked ? EXIT_OK : EXIT_USAGE;
    }
    optind = 2;
    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(&o, c))
            continue;
        fputs(help, c == 'h' ? stdout : stderr);
        return c == 'h' ? EXIT_OK : EXIT_USAGE;
    }
    if (argc - optind != (show ? 1 : 0) || (show && *argv[optind] == '\0')) {
        fprintf(stderr, "hayauma %s: %s\n", o.command,
                show ? "say one site or domain" : "it takes no argument");
        return EXIT_USAGE;
    }
    return run(&o, show ? argv[optind] : NULL);
}

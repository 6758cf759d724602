#include "tools/commands/queue_suspend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/config_value.h"
#include "dns/name.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

enum {
    OPT_CAMPAIGN = 300,
    OPT_TENANT,
    OPT_SITE,
    OPT_SOURCE_SITE,
    OPT_CAMPAIGN_SITE,
    OPT_TENANT_SITE,
    OPT_SOURCE_CAP,
    OPT_CAMPAIGN_CAP,
    OPT_TENANT_CAP,
    OPT_SIGNER_CAP,
    OPT_ENVELOPE_CAP,
    OPT_NETBLOCK_SITE,
    OPT_SIGNER_SITE,
    OPT_ENVELOPE_SITE,
    OPT_FOR,
    OPT_REASON
};

static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                      {"queue", required_argument, NULL, 'q'},
                                      {"domain", required_argument, NULL, 'q'},
                                      {"campaign", required_argument, NULL, OPT_CAMPAIGN},
                                      {"tenant", required_argument, NULL, OPT_TENANT},
                                      {"site", required_argument, NULL, OPT_SITE},
                                      {"source-site", required_argument, NULL, OPT_SOURCE_SITE},
                                      {"campaign-site", required_argument, NULL, OPT_CAMPAIGN_SITE},
                                      {"tenant-site", required_argument, NULL, OPT_TENANT_SITE},
                                      {"source-cap", required_argument, NULL, OPT_SOURCE_CAP},
                                      {"campaign-cap", required_argument, NULL, OPT_CAMPAIGN_CAP},
                                      {"tenant-cap", required_argument, NULL, OPT_TENANT_CAP},
                                      {"signer-cap", required_argument, NULL, OPT_SIGNER_CAP},
                                      {"envelope-cap", required_argument, NULL, OPT_ENVELOPE_CAP},
                                      {"netblock-site", required_argument, NULL, OPT_NETBLOCK_SITE},
                                      {"signer-site", required_argument, NULL, OPT_SIGNER_SITE},
                                      {"envelope-site", required_argument, NULL, OPT_ENVELOPE_SITE},
                                      {"for", required_argument, NULL, OPT_FOR},
                                      {"reason", required_argument, NULL, OPT_REASON},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

#define WIDE_COLUMNS 120 /* from here on the reason stands in the same line */

struct suspend_options {
    struct channel_options channel;
    const char *scope, *name, *reason;
    uint64_t for_ms;
};

static const char *const names[] = {"suspend", "resume", "suspensions"};

const char *queue_suspend_name(int at)
{
    return at >= 0 && at < (int)ARRAY_LEN(names) ? names[at] : NULL;
}

bool queue_suspend_is(const char *action)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(action, names[i]) == 0)
            return true;
    return false;
}

/* --- options --- */

static int usage_error(const struct suspend_options *o, const char *what)
{
    fprintf(stderr, "hayauma %s: %s\n", o->channel.command, what);
    return EXIT_USAGE;
}

static int set_scope(struct suspend_options *o, const char *scope, const char *name)
{
    if (o->scope != NULL)
        return usage_error(o, "one domain, campaign, tenant or site at a time");
    o->scope = scope;
    o->name = name;
    return 0;
}

static const char *const caps[] = {"source_cap", "campaign_cap", "tenant_cap", "signer_cap",
                                   "envelope_cap"};

static int take_option(struct suspend_options *o, bool suspends, int c)
{
    switch (c) {
    case 'q':
        return set_scope(o, "domain", optarg);
    case OPT_CAMPAIGN:
        return set_scope(o, "campaign", optarg);
    case OPT_TENANT:
        return set_scope(o, "tenant", optarg);
    case OPT_SITE:
        return set_scope(o, "site", optarg);
    case OPT_SOURCE_SITE:
        return set_scope(o, "source_site", optarg);
    case OPT_CAMPAIGN_SITE:
        return set_scope(o, "campaign_site", optarg);
    case OPT_TENANT_SITE:
        return set_scope(o, "tenant_site", optarg);
    case OPT_NETBLOCK_SITE:
        return set_scope(o, "netblock_site", optarg);
    case OPT_SIGNER_SITE:
        return set_scope(o, "signer_site", optarg);
    case OPT_ENVELOPE_SITE:
        return set_scope(o, "envelope_site", optarg);
    case OPT_SOURCE_CAP:
    case OPT_CAMPAIGN_CAP:
    case OPT_TENANT_CAP:
    case OPT_SIGNER_CAP:
    case OPT_ENVELOPE_CAP:
        return suspends ? usage_error(o, "rules alone lower limits; --source-cap and the like are "
                                         "of resume")
                        : set_scope(o, caps[c - OPT_SOURCE_CAP], optarg);
    case OPT_FOR:
        if (!suspends)
            return usage_error(o, "--for is of suspend");
        return config_parse_duration(str_of(optarg), &o->for_ms) == 0 && o->for_ms > 0
                   ? 0
                   : usage_error(o, "--for takes a duration: 30m, 2h or 3d");
    case OPT_REASON:
        o->reason = optarg;
        return suspends ? 0 : usage_error(o, "--reason is of suspend");
    case 'h':
        return -1;
    default:
        fprintf(stderr, "'hayauma %.*s --help' shows the options.\n",
                (int)strcspn(o->channel.command, " "), o->channel.command);
        return EXIT_USAGE;
    }
}

static int options_parse(struct suspend_options *o, const char *action, const char *scope, int argc,
                         char **argv)
{
    bool suspends = strcmp(action, "suspend") == 0, lists = strcmp(action, "suspensions") == 0;
    int c, code = 0;

    optind = 0; /* glibc: start again */
    while (code == 0 && (c = getopt_long(argc, argv, "c:q:h", longs, NULL)) != -1)
        if (!channel_option(&o->channel, c))
            code = take_option(o, suspends, c);
    if (code == 0 && optind < argc)
        code = set_scope(o, scope, argv[optind++]);
    if (code == 0 && strcmp(scope, "source") == 0)
        return optind == argc && o->name != NULL && strcmp(o->scope, scope) == 0
                   ? 0
                   : usage_error(o, "say which: one NAME, as 'hayauma source list' shows it");
    if (code == 0 && optind < argc)
        code = usage_error(o, "one domain, campaign, tenant or site at a time");
    if (code == 0 && lists && o->scope != NULL)
        code = usage_error(o, "it lists all: say nothing more");
    if (code == 0 && !lists && o->scope == NULL)
        code = usage_error(o, "say which: DOMAIN, --campaign NAME, --tenant NAME or --site NAME");
    return code;
}

/* --- changing --- */

static json_t *change_request(const struct suspend_options *o, const char *action)
{
    json_t *request = json_pack("{s:s, s:s, s:s, s:s}", "op", action, "scope", o->scope, "name",
                                o->name, "who", channel_user());

    if (request != NULL && o->reason != NULL)
        json_object_set_new(request, "reason", json_string(o->reason));
    if (request != NULL && o->for_ms > 0)
        json_object_set_new(request, "for_ms", json_integer((json_int_t)o->for_ms));
    return request;
}

static void print_change(const struct suspend_options *o, const char *action, const json_t *done)
{
    struct buf line = {0};

    buf_printf(&line, "%s ", o->scope);
    put_text(&line, o->name, 0, false);
    if (strcmp(action, "resume") == 0) {
        buf_puts(&line, " resumed\n");
    } else if (json_object_get(done, "until_ms") != NULL) {
        char text[CLOCK_RFC3339_BYTES];

        clock_rfc3339(reply_number(done, "until_ms"), text);
        buf_printf(&line, " suspended until %s\n", text);
    } else {
        buf_puts(&line, " suspended until it is resumed\n");
    }
    flush_text(&line, stdout);
    buf_done(&line);
}

/* What is asked for whether anything of a scope's name is there, and what is of it in a reply. */
static json_t *presence_request(const struct suspend_options *o, const char **member)
{
    bool domain = strcmp(o->scope, "domain") == 0;

    *member = "site";
    if (strcmp(o->scope, "site") == 0)
        return json_pack("{s:s, s:s}", "op", "sites", "name", o->name);
    *member = "row";
    if (!domain && strcmp(o->scope, "campaign") != 0 && strcmp(o->scope, "tenant") != 0)
        return NULL;
    return json_pack("{s:s, s:i, s:{s:s}}", "op", "list", "limit", 1, "filter",
                     domain ? "queue" : o->scope, o->name);
}

/* A name that nothing has now is most often a mistake, and holds nothing. */
static int note_nothing(struct channel *ch, const struct suspend_options *o)
{
    const char *member;
    json_t *request = presence_request(o, &member), *reply;
    bool found = false;
    int code;

    if (request == NULL)
        return EXIT_OK;
    code = channel_send(ch, request);
    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        found |= json_object_get(reply, member) != NULL;
        json_decref(reply);
    }
    if (code == 0 && !found && strcmp(member, "site") == 0)
        fputs("no site has this name now; 'hayauma site list' shows those with mail\n", stderr);
    else if (code == 0 && !found)
        fprintf(stderr, "no mail of this %s is queued now: is the name right?\n", o->scope);
    return code;
}

static int change(struct channel *ch, const struct suspend_options *o, const char *action)
{
    json_t *request = change_request(o, action), *done = NULL;
    int code;

    if (request == NULL)
        return usage_error(o, "the name or the reason is not UTF-8");
    code = channel_ask(ch, request, &done);
    if (code == 0 && o->channel.json)
        reply_print(done);
    else if (code == 0)
        print_change(o, action, done);
    if (code == 0 && !o->channel.json && strcmp(action, "suspend") == 0)
        code = note_nothing(ch, o);
    json_decref(done);
    return code;
}

/* --- listing --- */

/* Why it is suspended, or what its limits were lowered to, and by whom. */
static void put_why(struct buf *out, const json_t *one)
{
    const char *reason = reply_text(one, "reason"), *who = reply_text(one, "who");

    if (wait_is_of_campaign(reply_text(one, "scope")))
        who = ""; /* nobody has suspended it */
    if (json_object_get(one, "rate") != NULL || json_object_get(one, "sessions_max") != NULL ||
        json_object_get(one, "session_messages_max") != NULL) {
        buf_puts(out, "lowered to");
        put_caps(out, one);
        buf_puts(out, ": ");
    }
    put_text(out, reason, 0, false);
    if (*who != 0) {
        buf_puts(out, *reason != 0 ? " (" : "(");
        put_text(out, who, 0, false);
        buf_putc(out, ')');
    }
}

/* An age, or "-" for none, in a column of seven. */
static void put_time(struct buf *out, bool known, int64_t ms)
{
    size_t from = out->len;

    if (known)
        put_age(out, ms);
    else
        buf_putc(out, '-');
    pad_from(out, from, 7, true);
    buf_putc(out, ' ');
}

/* On a narrow screen why it is has a line of its own, as in a list of recipients. */
static void print_one(const json_t *one)
{
    int64_t now_ms = clock_wall_ms(), until_ms = reply_number(one, "until_ms");
    const char *name = reply_text(one, "name"), *scope = reply_text(one, "scope");
    char *readable = strcmp(scope, "domain") == 0 ? dns_name_readable(name) : NULL;
    bool narrow = screen_width() != 0 && screen_width() < WIDE_COLUMNS;
    struct buf line = {0};
    size_t from;

    buf_printf(&line, "%-15s ", wait_is_of_campaign(scope) ? "campaign" : scope);
    put_column(&line, readable != NULL ? readable : name, name_room(30));
    free(readable);
    buf_putc(&line, ' ');
    from = line.len;
    if (json_object_get(one, "rows") == NULL)
        buf_putc(&line, '-');
    else
        put_count(&line, (uint64_t)reply_number(one, "rows"));
    pad_from(&line, from, 10, true);
    buf_putc(&line, ' ');
    put_time(&line, true, now_ms - reply_number(one, "since_ms"));
    put_time(&line, until_ms != 0, until_ms - now_ms);
    if (narrow)
        buf_puts(&line, "\n  ");
    put_why(&line, one);
    buf_putc(&line, '\n');
    if (narrow)
        fold_text(&line, screen_width(), 2);
    flush_text(&line, stdout);
    buf_done(&line);
}

static int list(struct channel *ch, const struct suspend_options *o)
{
    int code = channel_send(ch, json_pack("{s:s}", "op", "suspensions"));
    json_t *reply;
    bool any = false;

    if (code != 0)
        return code;
    while ((reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *one = json_object_get(reply, "suspension");

        if (one != NULL && o->channel.json) {
            reply_print(one);
        } else if (one != NULL) {
            if (!any)
                printf("%-15s %-*s %10s %7s %7s %s\n", "WHAT", (int)name_room(30), "NAME",
                       "RECIPIENTS", "SINCE", "ENDS IN", "WHY");
            any = true;
            print_one(one);
        }
        json_decref(reply);
    }
    if (code == 0 && !any && !o->channel.json)
        fputs("nothing is suspended\n", stderr);
    return code;
}

static int run(const char *action, const char *scope, int argc, char **argv)
{
    struct suspend_options o = {.channel.command = argv[0] + strlen("hayauma ")};
    struct channel ch;
    int code = options_parse(&o, action, scope, argc, argv);

    if (code != 0)
        return code;
    code = channel_open(&ch, &o.channel);
    if (code == 0)
        code = strcmp(action, "suspensions") == 0 ? list(&ch, &o) : change(&ch, &o, action);
    channel_close(&ch);
    return code;
}

int queue_suspend(const char *action, int argc, char **argv)
{
    return run(action, "domain", argc, argv);
}

int source_suspend(const char *action, int argc, char **argv)
{
    return run(action, "source", argc, argv);
}

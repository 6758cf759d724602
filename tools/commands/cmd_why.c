/* hayauma why: what holds the mail of a domain, message, campaign, tenant, site or source. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/msgid.h"
#include "dns/name.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

#define HOLDS_SHOWN 5

static const char help[] =
    "usage: hayauma why NAME [options]\n"
    "\n"
    "What holds mail right now, and until when. NAME is a domain, a message id, a\n"
    "campaign, a tenant, a site (as 'hayauma status --json' shows it) or a source; a\n"
    "name that is several of these means all of them, but for a source, which is\n"
    "meant alone.\n"
    "\n"
    "      --domain NAME       this only, and so on\n"
    "      --campaign NAME\n"
    "      --tenant NAME\n"
    "      --site NAME\n"
    "      --source NAME       what keeps the source from sending, whatever others\n"
    "                          may do\n"
    "      --id ID\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Examples:\n"
    "  hayauma why example.com\n"
    "  hayauma why --campaign spring\n"
    "\n"
    "Exit codes: 0 done, 1 no such message or source, 2 wrong usage, 3 the engine\n"
    "does not answer.\n";

/* --- sentences --- */

/* What is in transactions is none of those that wait. */
static void put_recipients(struct buf *out, const json_t *hold, const char *one, const char *many)
{
    long long n = reply_number(hold, "recipients"), flight = reply_number(hold, "in_flight");

    if (strcmp(reply_text(hold, "state"), "waits") == 0 && flight < n)
        n -= flight;
    put_counted(out, (uint64_t)n, "recipient");
    buf_printf(out, " %s", n == 1 ? one : many);
}

/* ": 450 4.2.0 later (mx.example.com, 5m ago); rule greylisting reads that". */
static void put_answer(struct buf *out, const json_t *hold, int64_t now_ms)
{
    const char *host = reply_text(hold, "last_host");

    if (*reply_text(hold, "last_error") == 0)
        return;
    buf_puts(out, "; the last attempt heard: ");
    put_text(out, reply_text(hold, "last_error"), 0, false);
    buf_puts(out, " (");
    put_text(out, host, 0, false);
    buf_puts(out, *host == 0 ? "" : ", ");
    put_age(out, now_ms - reply_number(hold, "last_attempt_ms"));
    buf_puts(out, " ago)");
    if (json_object_get(hold, "last_rule") != NULL)
        buf_printf(out, "; rule %s reads that", reply_text(hold, "last_rule"));
}

static void put_ceiling(struct buf *out, const json_t *hold)
{
    static const struct {
        double hours;
        const char *name;
    } spans[] = {{1, "an hour"}, {24, "a day"}, {24 * 30, "a month"}};
    double hours = json_number_value(json_object_get(hold, "hours"));
    double most = json_number_value(json_object_get(hold, "per_hour"));
    uint64_t whole;
    size_t span = 0;

    if (most <= 0) /* no bound, or no source can send, which is said */
        return;
    while (span + 1 < ARRAY_LEN(spans) && most * spans[span].hours < 1)
        span++;
    whole = (uint64_t)(most * spans[span].hours + 0.01);
    buf_puts(out, "  The settings let ");
    put_counted(out, whole, "message");
    buf_printf(out, " %s through to this site", spans[span].name);
    if (hours > 0) {
        buf_puts(out, ": what is queued takes ");
        put_age(out, (int64_t)(hours * 3600e3));
        buf_puts(out, " at least");
    }
    buf_puts(out, ".\n");
}

/* " for mx.example.com from pool bulk"; a domain without a route has no site. */
static void put_where(struct buf *out, const char *preposition, const json_t *hold)
{
    const char *site = reply_text(hold, "site"),
               *reason = reply_text(json_object_get(hold, "wait"), "reason");

    if (strcmp(reason, "no_route") == 0)
        site = reply_text(hold, "queue");
    if (*site == 0)
        return;
    buf_puts(out, preposition);
    put_text(out, site, 0, false);
    buf_puts(out, " from pool ");
    put_text(out, reply_text(hold, "pool"), 0, false);
}

static void put_hold(struct buf *out, const json_t *hold, int64_t now_ms)
{
    const char *state = reply_text(hold, "state");
    bool waits = strcmp(state, "waits") == 0;

    if (waits) {
        put_recipients(out, hold, "waits", "wait");
        put_where(out, " for ", hold);
        buf_puts(out, ": ");
        put_wait_whole(out, hold, now_ms);
    } else if (strcmp(state, "later") == 0) {
        put_recipients(out, hold, "is", "are");
        buf_puts(out, " due in ");
        put_age(out, reply_number(hold, "next_ms") - now_ms);
        buf_puts(out, reply_number(hold, "recipients") == 1 ? "" : " or later");
        put_answer(out, hold, now_ms);
    } else if (strcmp(state, "held") == 0) {
        put_recipients(out, hold, "is", "are");
        buf_puts(out, " held by 'hayauma queue hold', until 'hayauma queue release'");
    } else {
        put_recipients(out, hold, "is", "are");
        buf_puts(out, " being sent");
        put_where(out, " to ", hold);
    }
    buf_puts(out, ".\n");
    put_ceiling(out, hold);
}

/* The soonest of all that is known. */
static void put_next(struct buf *out, const json_t *holds, int64_t now_ms)
{
    int64_t next_ms = 0;
    const json_t *hold;
    size_t i;

    json_array_foreach(holds, i, hold)
    {
        int64_t one_ms = reply_number(hold, "next_ms");

        if (strcmp(reply_text(hold, "state"), "goes") == 0)
            return;
        if (json_object_get(hold, "next_ms") != NULL && (next_ms == 0 || one_ms < next_ms))
            next_ms = one_ms;
    }
    if (next_ms == 0)
        return;
    buf_puts(out, "Next attempt in ");
    put_age(out, next_ms - now_ms);
    buf_puts(out, ".\n");
}

/* Whether some mail is said to wait for a suspension in this scope. */
static bool is_said(const json_t *why, const char *scope)
{
    const json_t *hold;
    size_t i;

    json_array_foreach(json_object_get(why, "holds"), i, hold)
    {
        if (strcmp(reply_text(json_object_get(hold, "wait"), "scope"), scope) == 0)
            return true;
    }
    return false;
}

/* What is known of the subject itself, whatever mail it has. */
static void put_own(struct buf *out, const json_t *why, int64_t now_ms)
{
    const json_t *source = json_object_get(why, "source"), *one;
    size_t i;

    json_array_foreach(json_object_get(why, "suspensions"), i, one)
    {
        if (is_said(why, reply_text(one, "scope")))
            continue;
        buf_printf(out, "The %s is suspended", reply_text(one, "scope"));
        if (json_object_get(one, "until_ms") != NULL) {
            buf_puts(out, " for ");
            put_age(out, reply_number(one, "until_ms") - now_ms);
            buf_puts(out, " more");
        }
        buf_puts(out, *reply_text(one, "who") == 0 ? "" : " by ");
        put_text(out, reply_text(one, "who"), 0, false);
        buf_puts(out, *reply_text(one, "reason") == 0 ? "" : ": ");
        put_text(out, reply_text(one, "reason"), 0, false);
        buf_puts(out, ".\n");
    }
    json_array_foreach(json_object_get(source, "missing"), i, one)
    {
        buf_printf(out, "Its address %s is none of this machine's for ",
                   reply_text(one, "address"));
        put_age(out, now_ms - reply_number(one, "since_ms"));
        buf_printf(out, ": %s.\n", reply_text(one, "error"));
    }
    json_array_foreach(json_object_get(source, "no_route"), i, one)
    {
        buf_printf(out, "This host has had no route over %s from it for ",
                   strcmp(reply_text(one, "family"), "ipv6") == 0 ? "IPv6" : "IPv4");
        put_age(out, now_ms - reply_number(one, "since_ms"));
        buf_printf(out, ", to %s or to the internet.\n", reply_text(one, "address"));
    }
    one = json_object_get(source, "proxy");
    if (one == NULL || json_object_get(one, "error") == NULL)
        return;
    buf_printf(out, "Its proxy %s %s is down for ", reply_text(one, "protocol"),
               reply_text(one, "server"));
    put_age(out, now_ms - reply_number(one, "since_ms"));
    buf_printf(out, ": %s.\n", reply_text(one, "error"));
}

static bool may_be_site(const json_t *is)
{
    const json_t *one;
    size_t i;

    json_array_foreach(is, i, one) if (strcmp(json_string_value(one), "site") == 0) return true;
    return false;
}

static void put_head(struct buf *out, const json_t *why)
{
    long long n = reply_number(why, "recipients"), flight = reply_number(why, "in_flight");
    long long absent = reply_number(why, "absent"), unseen = reply_number(why, "unseen");
    const json_t *is = json_object_get(why, "is");
    char *name = dns_name_readable(reply_text(why, "name")), expires[CLOCK_RFC3339_BYTES];

    put_text(out, name, 0, false);
    free(name);
    if (n > 0)
        buf_printf(out, " (%s)", json_string_value(json_array_get(is, 0)));
    buf_puts(out, ": ");
    if (n == 0)
        buf_printf(out, "nothing is queued%s",
                   json_array_size(is) > 1 ? " for a domain, campaign, tenant or site of that name"
                                           : "");
    else
        put_count(out, (uint64_t)n);
    if (n > 0)
        buf_printf(out, " recipient%s queued", PLURAL(n));
    if (flight > 0)
        buf_printf(out, ", %lld in transactions now", flight);
    if (json_is_true(json_object_get(why, "counting")))
        buf_puts(out, "; the queue is still being counted");
    if (unseen > 0) {
        buf_puts(out, "; ");
        put_count(out, (uint64_t)unseen);
        buf_puts(out, " of them are in the store alone, and what they wait for is not looked at");
    } else if (absent > 0 && may_be_site(is)) {
        buf_printf(out,
                   "; for which sites %lld queues are that are in the store alone is not known: "
                   "see 'hayauma queue summary'",
                   absent);
    }
    buf_puts(out, ".\n");
    if (n == 0 || reply_number(why, "expires_ms") == 0)
        return;
    clock_rfc3339(reply_number(why, "expires_ms"), expires);
    buf_printf(out, "What is not delivered expires: %s%s.\n", n == 1 ? "" : "the first at ",
               expires);
}

static void print_why(const json_t *why)
{
    static const char *const intake[][2] = {
        {"map_full", "New mail is refused: a shard's map is full.\n"},
        {"disk_full", "New mail is refused: the queue's disk is full.\n"},
        {"failed", "New mail is refused: the store failed; see the log.\n"}};
    const json_t *holds = json_object_get(why, "holds"), *hold;
    int64_t now_ms = reply_number(why, "now_ms");
    struct buf out = {0};
    size_t i;

    put_head(&out, why);
    put_own(&out, why, now_ms);
    json_array_foreach(holds, i, hold) if (i < HOLDS_SHOWN) put_hold(&out, hold, now_ms);
    if (i > HOLDS_SHOWN)
        buf_printf(&out, "There are %zu more reasons; --json has all.\n", i - HOLDS_SHOWN);
    put_next(&out, holds, now_ms);
    for (i = 0; i < ARRAY_LEN(intake); i++)
        if (strcmp(reply_text(why, "intake"), intake[i][0]) == 0)
            buf_puts(&out, intake[i][1]);
    fold_text(&out, screen_width(), 0);
    flush_text(&out, stdout);
    buf_done(&out);
}

/* --- the command --- */

enum { OPT_DOMAIN = 300, OPT_CAMPAIGN, OPT_TENANT, OPT_SITE, OPT_SOURCE, OPT_ID };

static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                      {"domain", required_argument, NULL, OPT_DOMAIN},
                                      {"campaign", required_argument, NULL, OPT_CAMPAIGN},
                                      {"tenant", required_argument, NULL, OPT_TENANT},
                                      {"site", required_argument, NULL, OPT_SITE},
                                      {"source", required_argument, NULL, OPT_SOURCE},
                                      {"id", required_argument, NULL, OPT_ID},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static const char *const scopes[] = {"domain", "campaign", "tenant", "site", "source", "id"};

struct why_options {
    struct channel_options channel;
    const char *scope, *name; /* scope NULL: any */
};

static int usage_error(const char *what)
{
    fprintf(stderr, "hayauma why: %s; 'hayauma why --help' says more\n", what);
    return EXIT_USAGE;
}

/* No domain, and no name of anything else, has an '@': mail would seem to be delivered. */
static int of_address(const char *address)
{
    fprintf(stderr,
            "hayauma why: '%s' is an address: 'hayauma queue list --recipient %s' shows its mail, "
            "'hayauma why %s' what holds its domain's\n",
            address, address, strrchr(address, '@') + 1);
    return EXIT_USAGE;
}

/* 0, an exit code, or -1: help. */
static int options_parse(struct why_options *o, int argc, char **argv)
{
    struct msgid id;
    int c;

    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(&o->channel, c))
            continue;
        if (c == 'h')
            return -1;
        if (c < OPT_DOMAIN || c > OPT_ID)
            return usage_error("wrong option");
        if (o->name != NULL)
            return usage_error("one name at a time");
        o->scope = scopes[c - OPT_DOMAIN];
        o->name = optarg;
    }
    if (argc - optind + (o->name != NULL) > 1)
        return usage_error("one name at a time");
    if (argc == optind)
        return o->name != NULL ? 0
                               : usage_error("of what? Say a domain, message id, campaign, "
                                             "tenant, site or source");
    o->name = argv[optind];
    if (strchr(o->name, '@') != NULL)
        return of_address(o->name);
    o->scope = msgid_parse(str_of(o->name), &id) == 0 ? "id" : NULL;
    return 0;
}

static json_t *request(const struct why_options *o)
{
    json_t *r = json_pack("{s:s}", "op", "why");
    bool id = o->scope != NULL && strcmp(o->scope, "id") == 0;

    json_object_set_new(r, id ? "id" : "name", json_string(o->name));
    if (o->scope != NULL && !id)
        json_object_set_new(r, "scope", json_string(o->scope));
    return r;
}

int cmd_why(int argc, char **argv)
{
    struct why_options o = {.channel.command = "why"};
    int code = options_parse(&o, argc, argv);
    struct channel ch;
    json_t *reply;

    if (code == -1)
        fputs(help, stdout);
    if (code != 0)
        return code == -1 ? EXIT_OK : code;
    code = channel_begin(&ch, &o.channel, request(&o));
    while (code == 0 && (reply = channel_next(&ch, NULL, &code)) != NULL) {
        const json_t *why = json_object_get(reply, "why");

        if (why != NULL && o.channel.json)
            reply_print(why);
        else if (why != NULL)
            print_why(why);
        json_decref(reply);
    }
    channel_close(&ch);
    return code;
}

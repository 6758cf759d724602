/* hayauma warmup: where what is being warmed up stands, the operator's orders, and what a plan
 * comes to. hayauma feedback: what only others know of its mail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/suggest.h"
#include "config/config_value.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/screen.h"
#include "tools/commands/warmup_print.h"

static const char help_text[] =
    "usage: hayauma warmup <action> [SOURCE [PROVIDER]] [options]\n"
    "\n"
    "  status       streams (a source, signing domain or campaign at a provider):\n"
    "               stage, cap, how much of it is used, why it is in this stage, and\n"
    "               the cap that comes next\n"
    "  history      the days that are over, and what followed from each\n"
    "    --days N         so far back (30)\n"
    "  start        SOURCE begins anew, at its first stage\n"
    "  pause        SOURCE stays in its stage; mail goes on within the cap\n"
    "  resume       end that\n"
    "  set          SOURCE goes to another stage at once\n"
    "    --stage N        from 1; one more than there are is no cap\n"
    "  providers    names of providers, and how names of their exchangers end\n"
    "  plan         what the configuration comes to, without an engine: caps day by\n"
    "               day\n"
    "    --list N         how long a list of N recipients takes\n"
    "    --volume N       the day on which N recipients a day are reached\n"
    "    --now            from where the running engine's streams stand, and not from\n"
    "                     the first stage\n"
    "    --mix PARTS      where recipients are, in percent\n"
    "                     (google=40,microsoft=20,yahoo=10,apple=5,default=25)\n"
    "\n"
    "SOURCE is the name of a source, signer:DOMAIN or campaign:NAME.\n"
    "\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Examples:\n"
    "  hayauma warmup status\n"
    "  hayauma warmup history mx-new google --days 14\n"
    "  hayauma warmup set mx-new docomo --stage 5\n"
    "  hayauma warmup pause signer:news.example.com\n"
    "  hayauma warmup plan mx-new --list 300k \\\n"
    "      --mix docomo=30,au=20,softbank=20,default=30\n"
    "\n"
    "Exit codes: 0 done, 1 failed or not found, 2 wrong usage, 3 the engine does not\n"
    "answer.\n";

static const char feedback_text[] =
    "usage: hayauma feedback SOURCE PROVIDER --complaints N [options]\n"
    "\n"
    "Tells the engine what it does not see by itself: so many more users of the\n"
    "provider complained of today's mail (feedback loops, Postmaster Tools). Warm-up\n"
    "goes by it, and a record of type Feedback is written. SOURCE is the name of a\n"
    "source that is being warmed up, signer:DOMAIN or campaign:NAME; 'hayauma warmup\n"
    "providers' lists providers.\n"
    "\n"
    "      --complaints N      so many more\n" CHANNEL_HELP "  -h, --help              this text\n"
    "\n"
    "Examples:\n"
    "  hayauma feedback mx-new google --complaints 2\n"
    "  hayauma feedback signer:news.example.com yahoo --complaints 1\n"
    "\n"
    "Exit codes: 0 done, 1 failed or not found, 2 wrong usage, 3 the engine does not\n"
    "answer.\n";

enum { OPT_DAYS = 300, OPT_STAGE, OPT_COMPLAINTS, OPT_LIST, OPT_VOLUME, OPT_MIX, OPT_NOW };

static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                      {"days", required_argument, NULL, OPT_DAYS},
                                      {"stage", required_argument, NULL, OPT_STAGE},
                                      {"complaints", required_argument, NULL, OPT_COMPLAINTS},
                                      {"list", required_argument, NULL, OPT_LIST},
                                      {"volume", required_argument, NULL, OPT_VOLUME},
                                      {"mix", required_argument, NULL, OPT_MIX},
                                      {"now", no_argument, NULL, OPT_NOW},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

struct options {
    struct channel_options channel;
    const char *source, *provider, *mix;
    uint64_t days, number, list, volume;
    bool now;
};

static int usage_error(const struct options *o, const char *what)
{
    fprintf(stderr, "hayauma %s: %s\n", o->channel.command, what);
    return EXIT_USAGE;
}

/* --- of the engine --- */

static json_t *request_of(const struct options *o, const char *op)
{
    json_t *request = json_pack("{s:s}", "op", op);

    if (request != NULL && o->source != NULL)
        json_object_set_new(request, "source", json_string(o->source));
    if (request != NULL && o->provider != NULL)
        json_object_set_new(request, "provider", json_string(o->provider));
    return request;
}

/* Prints the member name of each line of the reply. */
static int each(const struct options *o, json_t *request, const char *name,
                void (*print)(const json_t *value, bool first), const char *nothing)
{
    json_t *reply;
    struct channel ch;
    bool any = false;
    int code;

    if (request == NULL)
        return usage_error(o, "names are UTF-8");
    code = channel_begin(&ch, &o->channel, request);
    while (code == 0 && (reply = channel_next(&ch, NULL, &code)) != NULL) {
        const json_t *value = json_object_get(reply, name);

        if (value != NULL && o->channel.json)
            reply_print(value);
        else if (value != NULL)
            print(value, !any);
        any = any || value != NULL;
        json_decref(reply);
    }
    channel_close(&ch);
    if (code == 0 && !any && !o->channel.json)
        fprintf(stderr, "%s\n", nothing);
    return code;
}

static int status(const struct options *o, const char *action)
{
    char nothing[512] = "nothing of what 'warmup' of the configuration names has sent mail yet";

    (void)action;
    if (o->source != NULL)
        snprintf(nothing, sizeof(nothing), "'%.200s' has sent nothing%s%.200s yet", o->source,
                 o->provider != NULL ? " to " : "", o->provider != NULL ? o->provider : "");
    return each(o, request_of(o, "warmup"), "stream", warmup_print_stream, nothing);
}

static int history(const struct options *o, const char *action)
{
    json_t *request = request_of(o, "warmup_days");

    (void)action;
    if (request != NULL && o->days != 0)
        json_object_set_new(request, "days", json_integer((json_int_t)o->days));
    return each(o, request, "past", warmup_print_past, "no day with mail is over");
}

static int order(const struct options *o, const char *action)
{
    bool sets = strcmp(action, "set") == 0, complains = strcmp(action, "complaints") == 0;
    struct channel ch;
    json_t *request;
    int code;

    if (o->source == NULL)
        return usage_error(o, "say which SOURCE");
    if (complains && o->provider == NULL)
        return usage_error(o, "say at which PROVIDER");
    if ((sets || complains) && o->number == 0)
        return usage_error(o, sets ? "say --stage N" : "say --complaints N");
    request = request_of(o, "warmup_order");
    if (request == NULL)
        return usage_error(o, "names are UTF-8");
    json_object_set_new(request, "order", json_string(sets ? "stage" : action));
    if (o->number != 0)
        json_object_set_new(request, "number", json_integer((json_int_t)o->number));
    code = channel_open(&ch, &o->channel);
    if (code == 0)
        code = channel_ask(&ch, request, NULL);
    else
        json_decref(request);
    channel_close(&ch);
    if (code == 0)
        code = status(o, action);
    return code;
}

/* --- of the configuration --- */

/* That of --config, else the usual one where it is there. */
static struct config *load(const struct options *o)
{
    struct config *c = NULL;
    struct buf errors = {0};

    if (o->channel.config == NULL && access(CONFIG_FILE, F_OK) != 0)
        return config_default();
    if (config_load(o->channel.config != NULL ? o->channel.config : CONFIG_FILE, &c, &errors) != 0)
        fwrite(errors.data, 1, errors.len, stderr);
    buf_done(&errors);
    return c;
}

static void print_provider(void *arg, const char *name, const char *mx)
{
    const struct options *o = arg;

    if (!o->channel.json)
        printf("%-16s %s\n", name, *mx == 0 ? "(all others)" : mx);
    else
        printf("{\"provider\":\"%s\",\"mx\":\"%s\"}\n", name, mx);
}

static int providers(const struct options *o, const char *action)
{
    struct config *c = load(o);

    (void)action;
    if (c == NULL)
        return EXIT_FAILED;
    config_providers_visit(c, print_provider, (void *)(uintptr_t)o);
    config_unref(c);
    return EXIT_OK;
}

/* What the engine says of its streams; the plan's names are in replies. */
struct standing {
    json_t *replies;
    struct plan_start *starts;
    size_t len;
};

static void standing_add(struct standing *s, json_t *reply)
{
    const json_t *stream = json_object_get(reply, "stream");
    bool has_cap = json_is_integer(json_object_get(stream, "cap"));
    struct plan_start *grown = realloc(s->starts, (s->len + 1) * sizeof(*grown));

    ASSERT(grown != NULL);
    s->starts = grown;
    s->starts[s->len++] = (struct plan_start){
        .source = reply_text(stream, "source"),
        .provider = reply_text(stream, "provider"),
        .stage = (uint32_t)reply_number(stream, has_cap ? "stage" : "stages") - (has_cap ? 1 : 0),
        .used = (uint32_t)reply_number(stream, "used"),
        .paused = json_is_true(json_object_get(stream, "paused"))};
    json_array_append(s->replies, reply);
}

static int standing_ask(const struct options *o, struct standing *s)
{
    struct channel ch;
    json_t *reply;
    int code = channel_begin(&ch, &o->channel, json_pack("{s:s}", "op", "warmup"));

    s->replies = json_array();
    while (code == 0 && (reply = channel_next(&ch, NULL, &code)) != NULL) {
        if (json_object_get(reply, "stream") != NULL)
            standing_add(s, reply);
        json_decref(reply);
    }
    channel_close(&ch);
    return code;
}

/* The sending day that it is, by the configuration's zone and hour. */
static int32_t today(const struct config *c)
{
    struct warmup_calendar calendar = {.day_hour = c->warmup.day_hour,
                                       .quiet_hours = c->warmup.quiet_hours};
    struct warmup_hour hour;
    struct zone *zone;

    if (zone_load(str_of(c->warmup.time_zone), &zone) < 0) { /* as the engine does */
        int err = zone_load(STR("UTC"), &zone);

        ASSERT(err == 0);
    }
    calendar.zone = zone;
    warmup_hour_at(&calendar, clock_wall_ms(), &hour);
    zone_free(zone);
    return hour.day;
}

static int plan(const struct options *o, const char *action)
{
    static const char mix[] = "google=40,microsoft=20,yahoo=10,apple=5,default=25";
    struct config *c = load(o);
    struct plan p = {.config = c, .source = o->source, .list = o->list};
    struct standing standing = {0};
    struct buf why = {0};
    int code = 0;

    (void)action;
    if (c == NULL)
        return EXIT_FAILED;
    p.today = today(c);
    if (o->now)
        code = standing_ask(o, &standing);
    p.starts = standing.starts;
    p.starts_len = standing.len;
    if (code != 0) {
        /* channel_open() or the engine said why */
    } else if (plan_mix_parse(&p, str_of(o->mix != NULL ? o->mix : mix), &why) != 0) {
        fprintf(stderr, "hayauma %s: --mix: %.*s\n", o->channel.command, STR_FMT(buf_str(&why)));
        code = EXIT_USAGE;
    } else if (warmup_print_plan(&p, o->volume, o->channel.json) != 0) {
        fprintf(stderr,
                "hayauma %s: %s%s being warmed up; warmup.%s of the configuration says what is\n",
                o->channel.command, o->source != NULL ? o->source : "no source is",
                o->source != NULL ? " is not" : "",
                config_warmup_map(o->source != NULL ? config_warmup_kind(o->source, NULL)
                                                    : CONFIG_WARMUP_SOURCE));
        code = EXIT_FAILED;
    } else {
        code = EXIT_OK;
    }
    buf_done(&why);
    free(standing.starts);
    json_decref(standing.replies);
    config_unref(c);
    return code;
}

/* --- the command line --- */

#define BIT(option) (1u << ((option)-OPT_DAYS))

static const struct {
    const char *name;
    int (*run)(const struct options *o, const char *action);
    unsigned options; /* of its own */
    int names;        /* at most */
} actions[] = {
    {"status", status, 0, 2},
    {"history", history, BIT(OPT_DAYS), 2},
    {"start", order, 0, 2},
    {"pause", order, 0, 2},
    {"resume", order, 0, 2},
    {"set", order, BIT(OPT_STAGE), 2},
    {"providers", providers, 0, 0},
    {"plan", plan, BIT(OPT_LIST) | BIT(OPT_VOLUME) | BIT(OPT_MIX) | BIT(OPT_NOW), 1},
};

static int action_find(const char *name)
{
    struct suggest s;

    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        suggest_offer(&s, actions[i].name);
        if (strcmp(actions[i].name, name) == 0)
            return (int)i;
    }
    action_unknown("warmup", &s);
    return -1;
}

static int take_count(const struct options *o, const char *name, uint64_t *out, uint64_t max)
{
    if (config_parse_count(str_of(optarg), out) == 0 && *out > 0 && *out <= max)
        return 0;
    fprintf(stderr, "hayauma %s: --%s: '%s' is no number from 1 to %llu; write 100, 10k or 2M\n",
            o->channel.command, name, optarg, (unsigned long long)max);
    return EXIT_USAGE;
}

static int take_option(struct options *o, unsigned own, int c)
{
    if (c == 'h')
        return -1;
    if (c < OPT_DAYS || c > OPT_NOW) {
        fprintf(stderr, "'hayauma %s --help' shows the options.\n", o->channel.command);
        return EXIT_USAGE;
    }
    if ((own & BIT(c)) == 0)
        return usage_error(o, "it does not take this option");
    switch (c) {
    case OPT_DAYS:
        return take_count(o, "days", &o->days, 10000);
    case OPT_LIST:
        return take_count(o, "list", &o->list, UINT64_C(1000000000000));
    case OPT_VOLUME:
        return take_count(o, "volume", &o->volume, UINT64_C(1000000000000));
    case OPT_MIX:
        o->mix = optarg;
        return 0;
    case OPT_NOW:
        o->now = true;
        return 0;
    default:
        return take_count(o, c == OPT_STAGE ? "stage" : "complaints", &o->number, 1000000);
    }
}

/* Reads the options behind argv[0], and up to names_max names. 0; -1: help was asked for; or the
 * exit code. */
static int parse(struct options *o, int argc, char **argv, unsigned own, int names_max)
{
    int c, code = 0;

    while (code == 0 && (c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1)
        if (!channel_option(&o->channel, c))
            code = take_option(o, own, c);
    if (code == 0 && argc - optind > names_max)
        code = usage_error(o, "too many names");
    o->source = optind < argc ? argv[optind] : NULL;
    o->provider = optind + 1 < argc ? argv[optind + 1] : NULL;
    return code;
}

int cmd_feedback(int argc, char **argv)
{
    struct options o = {.channel.command = "feedback"};
    int code = parse(&o, argc, argv, BIT(OPT_COMPLAINTS), 2);

    if (code < 0)
        fputs(feedback_text, stdout);
    return code < 0 ? EXIT_OK : code > 0 ? code : order(&o, "complaints");
}

int cmd_warmup(int argc, char **argv)
{
    struct options o = {0};
    char command[32] = "warmup";
    int code, at = argc > 1 && argv[1][0] != '-' ? action_find(argv[1]) : -1;

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help_text, stdout);
        return EXIT_OK;
    }
    if (argc < 2 || argv[1][0] == '-')
        fputs(help_text, stderr);
    if (at < 0)
        return EXIT_USAGE;
    snprintf(command, sizeof(command), "warmup %s", actions[at].name);
    o.channel.command = command;
    code = parse(&o, argc - 1, argv + 1, actions[at].options, actions[at].names);
    if (code < 0)
        fputs(help_text, stdout);
    return code < 0 ? EXIT_OK : code > 0 ? code : actions[at].run(&o, actions[at].name);
}

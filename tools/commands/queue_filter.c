#include "tools/commands/queue_filter.h"

#include <stdio.h>
#include <string.h>

#include "base/msgid.h"
#include "config/config_value.h"
#include "tools/commands/commands.h"

const char queue_filter_help[] =
    "Which recipients (all given must match; * stands for anything):\n"
    "  -q, --queue DOMAIN      recipients' domain; also as the argument DOMAIN\n"
    "  -f, --sender ADDRESS    return path; '' is the null sender\n"
    "  -t, --recipient ADDRESS\n"
    "      --campaign NAME\n"
    "      --tenant NAME\n"
    "      --id ID             message; also as the argument ID\n"
    "  -e, --error TEXT        the last error contains TEXT\n"
    "      --state STATE       ready (due), deferred (due later) or held\n"
    "      --min-age TIME      in the queue for at least 2h, 3d, ...\n"
    "      --max-age TIME      and at most\n"
    "      --min-attempts N    attempts so far\n"
    "      --max-attempts N\n"
    "\n"
    "  -n, --limit N           show at most N\n"
    "      --all               really all recipients, for an action without filter\n"
    "  -y, --yes               do not ask\n";

enum {
    OPT_CAMPAIGN = 300,
    OPT_TENANT,
    OPT_ID,
    OPT_STATE,
    OPT_MIN_AGE,
    OPT_MAX_AGE,
    OPT_MIN_ATTEMPTS,
    OPT_MAX_ATTEMPTS,
    OPT_ALL,
    OPT_TO
};

static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                      {"queue", required_argument, NULL, 'q'},
                                      {"domain", required_argument, NULL, 'q'},
                                      {"sender", required_argument, NULL, 'f'},
                                      {"recipient", required_argument, NULL, 't'},
                                      {"campaign", required_argument, NULL, OPT_CAMPAIGN},
                                      {"tenant", required_argument, NULL, OPT_TENANT},
                                      {"id", required_argument, NULL, OPT_ID},
                                      {"error", required_argument, NULL, 'e'},
                                      {"state", required_argument, NULL, OPT_STATE},
                                      {"min-age", required_argument, NULL, OPT_MIN_AGE},
                                      {"max-age", required_argument, NULL, OPT_MAX_AGE},
                                      {"min-attempts", required_argument, NULL, OPT_MIN_ATTEMPTS},
                                      {"max-attempts", required_argument, NULL, OPT_MAX_ATTEMPTS},
                                      {"limit", required_argument, NULL, 'n'},
                                      {"all", no_argument, NULL, OPT_ALL},
                                      {"yes", no_argument, NULL, 'y'},
                                      {"to", required_argument, NULL, OPT_TO},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static int usage_error(const struct queue_options *o, const char *value, const char *what)
{
    fprintf(stderr, "hayauma %s: '%s' %s\n", o->channel.command, value, what);
    return EXIT_USAGE;
}

static int set(struct queue_options *o, const char *name, json_t *value, const char *text)
{
    if (value == NULL) /* not UTF-8 */
        return usage_error(o, text, "is not UTF-8");
    json_object_set_new(o->filter, name, value);
    return 0;
}

static int set_text(struct queue_options *o, const char *name, const char *text)
{
    return set(o, name, json_string(text), text);
}

/* Queue names are lower case in the store; so an exact one is found without a search. */
static int set_queue(struct queue_options *o, const char *text)
{
    char lower[256];
    size_t n = strlen(text);

    if (n >= sizeof(lower))
        return usage_error(o, text, "is too long for a domain");
    for (size_t i = 0; i <= n; i++)
        lower[i] = ascii_lower(text[i]);
    return set_text(o, "queue", lower);
}

static int set_id(struct queue_options *o, const char *text)
{
    struct msgid id;

    if (msgid_parse(str_of(text), &id) != 0)
        return usage_error(o, text, "is no message id: 32 hexadecimal digits");
    o->one_id = text;
    return set_text(o, "id", text);
}

static int set_age(struct queue_options *o, const char *name, const char *text)
{
    uint64_t ms;

    if (config_parse_duration(str_of(text), &ms) != 0 || ms > INT64_MAX)
        return usage_error(o, text, "is not a duration; write 30m, 2h or 3d");
    return set(o, name, json_integer((json_int_t)ms), text);
}

static int parse_number(const struct queue_options *o, const char *text, long long *out)
{
    uint64_t v;

    if (config_parse_count(str_of(text), &v) != 0 || v > INT64_MAX)
        return usage_error(o, text, "is not a number");
    *out = (long long)v;
    return 0;
}

/* 0 is no limit to the engine, and none at all to people. */
static int parse_limit(struct queue_options *o, const char *text)
{
    int code = parse_number(o, text, &o->limit);

    return code == 0 && o->limit == 0 ? usage_error(o, text, "is no limit; say 1 or more") : code;
}

static int set_number(struct queue_options *o, const char *name, const char *text)
{
    long long v;
    int code = parse_number(o, text, &v);

    return code != 0 ? code : set(o, name, json_integer(v), text);
}

static int set_state(struct queue_options *o, const char *text)
{
    if (strcmp(text, "ready") != 0 && strcmp(text, "deferred") != 0 && strcmp(text, "held") != 0)
        return usage_error(o, text, "is no state: ready, deferred or held");
    return set_text(o, "state", text);
}

static int take_option(struct queue_options *o, int c)
{
    switch (c) {
    case 'q':
        return set_queue(o, optarg);
    case 'f':
        return set_text(o, "sender", optarg);
    case 't':
        return set_text(o, "recipient", optarg);
    case 'e': /* every error contains no text: that would be all recipients */
        return *optarg == 0 ? usage_error(o, optarg, "is no text of an error")
                            : set_text(o, "error", optarg);
    case OPT_CAMPAIGN:
        return set_text(o, "campaign", optarg);
    case OPT_TENANT:
        return set_text(o, "tenant", optarg);
    case OPT_ID:
        return set_id(o, optarg);
    case OPT_STATE:
        return set_state(o, optarg);
    case OPT_MIN_AGE:
        return set_age(o, "age_min_ms", optarg);
    case OPT_MAX_AGE:
        return set_age(o, "age_max_ms", optarg);
    case OPT_MIN_ATTEMPTS:
        return set_number(o, "attempts_min", optarg);
    case OPT_MAX_ATTEMPTS:
        return set_number(o, "attempts_max", optarg);
    case 'n':
        return parse_limit(o, optarg);
    case 'y':
        o->yes = true;
        return 0;
    case OPT_ALL:
        o->all = true;
        return 0;
    case OPT_TO:
        o->to = optarg;
        return 0;
    case 'h':
        return -1;
    default:
        fprintf(stderr, "'hayauma queue --help' shows the options.\n");
        return EXIT_USAGE;
    }
}

/* "0-1f2e3d4c5b6a7988": shard and hash. */
static bool is_record(const char *text)
{
    size_t shard = strspn(text, "0123456789");

    return shard > 0 && text[shard] == '-' && strspn(text + shard + 1, "0123456789abcdef") == 16 &&
           text[shard + 17] == 0;
}

/* An argument is a message id when it looks like one, otherwise a domain. */
static int take_argument(struct queue_options *o, const char *text)
{
    struct msgid id;

    if (msgid_parse(str_of(text), &id) == 0)
        return set_id(o, text);
    if (o->records && is_record(text)) {
        o->one_id = text;
        return set_text(o, "record", text);
    }
    if (strchr(text, '@') != NULL) {
        fprintf(stderr,
                "hayauma %s: '%s' is an address, and a domain is wanted; for an address write "
                "--recipient %s or --sender %s\n",
                o->channel.command, text, text, text);
        return EXIT_USAGE;
    }
    return set_queue(o, text);
}

int queue_options_parse(struct queue_options *o, int argc, char **argv)
{
    int c, code = 0;

    o->filter = json_object();
    optind = 0; /* glibc: start again */
    while (code == 0 && (c = getopt_long(argc, argv, "c:q:f:t:e:n:yh", longs, NULL)) != -1)
        if (!channel_option(&o->channel, c))
            code = take_option(o, c);
    if (code == 0 && argc - optind > 1)
        code = usage_error(o, argv[optind + 1], "is one argument too many");
    else if (code == 0 && optind < argc)
        code = take_argument(o, argv[optind]);
    if (code != 0)
        queue_options_done(o);
    return code;
}

void queue_options_done(struct queue_options *o)
{
    json_decref(o->filter);
    o->filter = NULL;
}

json_t *queue_request(const struct queue_options *o, const char *op)
{
    json_t *request = json_pack("{s:s, s:O}", "op", op, "filter", o->filter);

    if (o->limit != 0)
        json_object_set_new(request, "limit", json_integer(o->limit));
    if (o->all)
        json_object_set_new(request, "all", json_true());
    return request;
}

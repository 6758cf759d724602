/* hayauma campaign list, show, report, start, pause, resume, cancel, set. Campaigns are made, and
 * their recipients brought, by HTTP (docs/http.md). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tools/commands/campaign_report.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/quantity.h"
#include "tools/commands/queue_view.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

static const char help[] =
    "usage: hayauma campaign list [options]\n"
    "       hayauma campaign show|report|recipients|start|pause|resume|close|cancel\n"
    "                            CAMPAIGN [options]\n"
    "       hayauma campaign set CAMPAIGN [rate=RATE] [pool=POOL] [priority=0..9]\n"
    "                            [options]\n"
    "\n"
    "Campaigns: one template and a list of recipients, brought by HTTP. CAMPAIGN is\n"
    "its name, NAME@TENANT, or its id; of several of one name the one that is not\n"
    "over is meant.\n"
    "\n"
    "  list        all that are known, the newest first\n"
    "  show        one: its state, and what became of its recipients\n"
    "  report      what became of it: over time, by provider and reason, with plots\n"
    "  recipients  who of it is in the queue, and why still\n"
    "  start       it is sent, now or at a time; no recipients are added any more,\n"
    "              unless with --open\n"
    "  pause       no further letter of it is begun\n"
    "  resume      it goes on\n"
    "  close       of one that was started with --open: no recipients are added any\n"
    "              more\n"
    "  cancel      what is left of it is not sent; this cannot be undone\n"
    "  set         at once, for what waits too: how many letters go out at most, over\n"
    "              all providers (rate=500/s, 60/min; none: no limit), by which pool,\n"
    "              and how soon beside other mail (0 is first)\n"
    "\n"
    "      --at TIME           start: 2026-11-29T09:00:00+09:00, or ...Z\n"
    "      --open              start: recipients may be added still, until it is\n"
    "                          closed\n"
    "      --state STATE       recipients: ready, deferred or held\n"
    "      --match PATTERN     recipients: whose address is like that, *@example.jp\n"
    "      --limit N           recipients: at most so many\n"
    "      --html FILE         report: as one page for a browser; -: to stdout\n"
    "  -y, --yes               cancel: do not ask\n" CHANNEL_HELP
    "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the engine does not answer.\n";

enum { OPT_AT = 300, OPT_OPEN, OPT_HTML, OPT_STATE, OPT_MATCH, OPT_LIMIT };

struct campaign_options {
    struct channel_options channel;
    const char *action, *what, *html;
    int64_t at_ms;
    bool yes, open;
    const char *rate, *pool, *priority; /* of set; NULL: as it is */
    const char *state, *match;          /* of recipients; NULL: any */
    long long limit;
};

/* --- what is printed --- */

static void put_name(struct buf *out, const json_t *one)
{
    put_text(out, reply_text(one, "name"), 0, false);
    if (*reply_text(one, "tenant") != 0) {
        buf_putc(out, '@');
        put_text(out, reply_text(one, "tenant"), 0, false);
    }
}

static void put_number(struct buf *out, const json_t *one, const char *name, unsigned columns)
{
    size_t from = out->len;

    put_count(out, (uint64_t)reply_number(one, name));
    pad_from(out, from, columns, true);
}

/* What suspends the mail of one, itself or all of its tenant's; NULL: nothing does. */
static const json_t *suspension_of(const json_t *suspensions, const json_t *one)
{
    const json_t *s;
    size_t i;

    json_array_foreach(suspensions, i, s)
    {
        const char *scope = reply_text(s, "scope"), *name = reply_text(s, "name");

        if ((strcmp(scope, "campaign") == 0 && strcmp(name, reply_text(one, "name")) == 0) ||
            (strcmp(scope, "tenant") == 0 && strcmp(name, reply_text(one, "tenant")) == 0))
            return s;
    }
    return NULL;
}

/* " 5m ago by hanako, for 2h more: complaints". */
static void put_suspension(struct buf *out, const json_t *suspension)
{
    json_t *of = json_pack("{s:O}", "suspension", suspension);

    if (of != NULL)
        put_source_suspension(out, of, clock_wall_ms());
    json_decref(of);
}

static void print_row(const json_t *one, const json_t *suspensions, bool first)
{
    const char *state = reply_text(one, "state");
    bool suspended = strcmp(state, "running") == 0 && suspension_of(suspensions, one) != NULL;
    struct buf line = {0};
    size_t from;

    if (first)
        buf_printf(&line, "%-20s %-9s %11s %11s %11s %9s\n", "NAME", "STATE", "RECIPIENTS",
                   "QUEUED", "DELIVERED", "FAILED");
    from = line.len;
    put_name(&line, one);
    pad_from(&line, from, 20, false);
    buf_printf(&line, " %-9s ", suspended ? "suspended" : state);
    put_number(&line, one, "recipients", 11);
    buf_putc(&line, ' ');
    put_number(&line, one, "queued", 11);
    buf_putc(&line, ' ');
    put_number(&line, one, "delivered", 11);
    buf_putc(&line, ' ');
    put_number(&line, one, "failed", 9);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static void put_time(struct buf *out, const json_t *one, const char *label, const char *name)
{
    char text[CLOCK_RFC3339_BYTES];

    if (json_object_get(one, name) == NULL)
        return;
    clock_rfc3339(reply_number(one, name), text);
    buf_printf(out, "%-12s %s\n", label, text);
}

static void print_whole(const json_t *one, const json_t *suspension)
{
    static const char *const counts[] = {"recipients", "queued",  "delivered", "failed",
                                         "suppressed", "expired", "cancelled", "deferrals"};
    struct buf out = {0};

    buf_printf(&out, "%-12s ", "campaign");
    put_name(&out, one);
    buf_printf(&out, "\n%-12s %s\n%-12s %s\n", "id", reply_text(one, "id"), "state",
               reply_text(one, "state"));
    if (suspension != NULL) {
        buf_printf(&out, "%-12s", "suspended");
        put_suspension(&out, suspension);
        buf_putc(&out, '\n');
    }
    if (json_is_true(json_object_get(one, "open")))
        buf_printf(&out, "%-12s %s\n", "open", "more recipients may come");
    if (*reply_text(one, "pool") != 0) {
        buf_printf(&out, "%-12s ", "pool");
        put_text(&out, reply_text(one, "pool"), 0, false);
        buf_putc(&out, '\n');
    }
    buf_printf(&out, "%-12s %lld\n", "priority", reply_number(one, "priority"));
    if (*reply_text(one, "rate") != 0)
        buf_printf(&out, "%-12s %s\n", "rate", reply_text(one, "rate"));
    if (*reply_text(one, "dkim_domain") != 0) {
        buf_printf(&out, "%-12s ", "dkim_domain");
        put_text(&out, reply_text(one, "dkim_domain"), 0, false);
        buf_putc(&out, '\n');
    }
    if (json_array_size(json_object_get(one, "tags")) > 0) {
        buf_printf(&out, "%-12s ", "tags");
        campaign_put_tags(&out, one);
        buf_putc(&out, '\n');
    }
    put_time(&out, one, "created", "created_ms");
    put_time(&out, one, strcmp(reply_text(one, "state"), "scheduled") == 0 ? "starts" : "started",
             "starts_ms");
    put_time(&out, one, "expires", "expires_ms");
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        buf_printf(&out, "%-12s ", counts[i]);
        put_count(&out, (uint64_t)reply_number(one, counts[i]));
        buf_putc(&out, '\n');
    }
    fold_text(&out, screen_width(), 13);
    flush_text(&out, stdout);
    buf_done(&out);
}

static void print_change(const json_t *one, const json_t *suspension)
{
    struct buf out = {0};

    put_name(&out, one);
    buf_printf(&out, " is %s: ", reply_text(one, "state"));
    put_count(&out, (uint64_t)reply_number(one, "queued"));
    buf_puts(&out, " of ");
    put_counted(&out, (uint64_t)reply_number(one, "recipients"), "recipient");
    buf_puts(&out, " queued");
    if (*reply_text(one, "rate") != 0)
        buf_printf(&out, "; rate %s", reply_text(one, "rate"));
    if (suspension != NULL) {
        buf_puts(&out, "; its mail was suspended");
        put_suspension(&out, suspension);
    }
    buf_putc(&out, '\n');
    flush_text(&out, stdout);
    buf_done(&out);
}

/* --- which is meant --- */

static bool is_id(const char *what)
{
    return strlen(what) == 32 && strspn(what, "0123456789abcdef") == 32;
}

/* A request for those that what may mean; NULL: all. */
static json_t *request_of(const char *what)
{
    if (what == NULL)
        return json_pack("{s:s}", "op", "campaigns");
    if (is_id(what))
        return json_pack("{s:s, s:s}", "op", "campaigns", "id", what);
    return json_pack("{s:s, s:s%}", "op", "campaigns", "name", what, strcspn(what, "@"));
}

static bool is_over(const json_t *one)
{
    return strcmp(reply_text(one, "state"), "done") == 0 ||
           strcmp(reply_text(one, "state"), "cancelled") == 0;
}

static bool is_of_tenant(const json_t *one, const char *what)
{
    const char *at = is_id(what) ? NULL : strchr(what, '@');

    return at == NULL || strcmp(reply_text(one, "tenant"), at + 1) == 0;
}

/* Those that are not over come before those that are, then the newest. *several: more than one is
 * not over. */
static json_t *choose(struct channel *ch, const char *what, bool *several, int *code)
{
    json_t *reply, *found = NULL;

    *several = false;
    *code = channel_send(ch, request_of(what));
    while (*code == 0 && (reply = channel_next(ch, NULL, code)) != NULL) {
        json_t *one = json_object_get(reply, "campaign");

        if (one != NULL && is_of_tenant(one, what)) {
            *several |= found != NULL && !is_over(found) && !is_over(one);
            if (found == NULL || (is_over(found) && !is_over(one))) {
                json_decref(found);
                found = json_incref(one);
            }
        }
        json_decref(reply);
    }
    return found;
}

/* The one that is meant, or NULL with the exit code, and the error printed. */
static json_t *find(struct channel *ch, const struct campaign_options *o, int *code)
{
    bool several;
    json_t *found = choose(ch, o->what, &several, code);

    if (*code == 0 && found == NULL) {
        fprintf(stderr,
                "hayauma %s: there is no such campaign; 'hayauma campaign list' shows "
                "them\n",
                o->channel.command);
        *code = EXIT_FAILED;
    } else if (*code == 0 && several) {
        fprintf(stderr, "hayauma %s: several tenants have one: say NAME@TENANT, or its id\n",
                o->channel.command);
        *code = EXIT_FAILED;
    }
    if (*code == 0)
        return found;
    json_decref(found);
    return NULL;
}

/* --- the actions --- */

/* What operators have suspended, as people are shown it beside a campaign's own state; NULL: an
 * error, or nobody is shown it. */
static json_t *suspensions_get(struct channel *ch, const struct campaign_options *o, int *code)
{
    json_t *all = o->channel.json ? NULL : json_array(), *reply;

    if (all == NULL)
        return NULL;
    *code = channel_send(ch, json_pack("{s:s}", "op", "suspensions"));
    while (*code == 0 && (reply = channel_next(ch, NULL, code)) != NULL) {
        json_array_append(all, json_object_get(reply, "suspension"));
        json_decref(reply);
    }
    return all;
}

static int list(struct channel *ch, const struct campaign_options *o)
{
    int code = 0;
    bool first = true;
    json_t *reply, *suspensions = suspensions_get(ch, o, &code);

    if (code == 0)
        code = channel_send(ch, request_of(NULL));

    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *one = json_object_get(reply, "campaign");

        if (one != NULL && o->channel.json)
            reply_print(one);
        else if (one != NULL)
            print_row(one, suspensions, first);
        first = first && one == NULL;
        json_decref(reply);
    }
    json_decref(suspensions);
    if (code == 0 && first && !o->channel.json)
        fputs("no campaigns\n", stderr);
    return code;
}

static bool agreed(const struct campaign_options *o, const json_t *one)
{
    char answer[8] = "";

    if (strcmp(o->action, "cancel") != 0 || o->yes)
        return true;
    fprintf(stderr, "%lld recipient%s will get no letter. Go on? [y/N] ",
            reply_number(one, "queued"), PLURAL(reply_number(one, "queued")));
    return fgets(answer, sizeof(answer), stdin) != NULL && (*answer == 'y' || *answer == 'Y');
}

static int print_one(struct channel *ch, const struct campaign_options *o, const json_t *one,
                     bool show)
{
    int code = EXIT_OK;
    json_t *suspensions = suspensions_get(ch, o, &code);

    if (o->channel.json)
        reply_print(one);
    else if (show)
        print_whole(one, suspension_of(suspensions, one));
    else
        print_change(one, suspension_of(suspensions, one));
    json_decref(suspensions);
    return code;
}

/* Shows one, or gives it an order and says what it is then. */
static int act(struct channel *ch, const struct campaign_options *o)
{
    bool show = strcmp(o->action, "show") == 0;
    char id[40];
    int code;
    json_t *one = find(ch, o, &code);

    if (one == NULL)
        return code;
    if (!show) {
        json_t *request;

        if (!agreed(o, one)) {
            fputs("nothing was changed\n", stderr);
            json_decref(one);
            return EXIT_FAILED;
        }
        snprintf(id, sizeof(id), "%s", reply_text(one, "id"));
        json_decref(one);
        request =
            json_pack("{s:s, s:s, s:s}", "op", "campaign_order", "order", o->action, "id", id);
        if (o->at_ms != 0)
            json_object_set_new(request, "at_ms", json_integer(o->at_ms));
        if (o->open)
            json_object_set_new(request, "open", json_true());
        if (o->rate != NULL)
            json_object_set_new(request, "rate", json_string(o->rate));
        if (o->pool != NULL)
            json_object_set_new(request, "pool", json_string(o->pool));
        if (o->priority != NULL)
            json_object_set_new(request, "priority", json_integer(*o->priority - '0'));
        code = channel_ask(ch, request, NULL);
        if (code == 0)
            one = choose(ch, id, &(bool){false}, &code);
        if (code != 0)
            return code;
    }
    code = print_one(ch, o, one, show);
    json_decref(one);
    return code;
}

/* --- reports --- */

static int write_page(const struct campaign_options *o, const struct buf *page)
{
    bool to_stdout = strcmp(o->html, "-") == 0;
    FILE *file = to_stdout ? stdout : fopen(o->html, "we");
    bool written;

    if (file == NULL) {
        fprintf(stderr, "hayauma %s: %s: %m\n", o->channel.command, o->html);
        return EXIT_FAILED;
    }
    written = fwrite(page->data, 1, page->len, file) == page->len;
    written = (to_stdout ? fflush(file) : fclose(file)) == 0 && written;
    if (!written)
        fprintf(stderr, "hayauma %s: %s: %m\n", o->channel.command, o->html);
    else if (!to_stdout)
        fprintf(stderr, "hayauma %s: %s is written\n", o->channel.command, o->html);
    return written ? EXIT_OK : EXIT_FAILED;
}

static int print_report(const struct campaign_options *o, const json_t *one)
{
    struct figures *f = calloc(1, sizeof(*f));
    unsigned columns = screen_width();
    struct buf out = {0};
    int code = EXIT_OK;

    ASSERT(f != NULL);
    if (!figures_read(f, one)) {
        fprintf(stderr, "hayauma %s: the engine knows no reports; it is older than this command\n",
                o->channel.command);
        code = EXIT_FAILED;
    } else if (o->html != NULL) {
        campaign_report_page(&out, f, clock_wall_ms() / 1000);
        code = write_page(o, &out);
    } else {
        campaign_report_text(&out, f, columns < 60 ? 80 : columns > 120 ? 120 : columns);
        flush_text(&out, stdout);
    }
    buf_done(&out);
    free(f);
    return code;
}

static int report(struct channel *ch, const struct campaign_options *o)
{
    json_t *one, *reply, *found = NULL;
    int code;

    one = find(ch, o, &code);
    if (one == NULL)
        return code;
    code = channel_send(
        ch, json_pack("{s:s, s:s}", "op", "campaign_report", "id", reply_text(one, "id")));
    json_decref(one);
    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        json_t *part = json_object_get(reply, "campaign");

        if (part != NULL && found == NULL)
            found = json_incref(part);
        json_decref(reply);
    }
    if (found == NULL && code == 0) /* it was forgotten meanwhile */
        code = EXIT_FAILED;
    if (code == 0 && o->channel.json)
        reply_print(found);
    else if (code == 0)
        code = print_report(o, found);
    json_decref(found);
    return code;
}

/* --- recipients --- */

static int recipients(struct channel *ch, const struct campaign_options *o)
{
    struct queue_options queue = {.channel = o->channel, .limit = o->limit};
    int code;
    json_t *one = find(ch, o, &code);

    if (one == NULL)
        return code;
    queue.filter = json_pack("{s:s}", "id", reply_text(one, "id"));
    json_decref(one);
    if (o->state != NULL)
        json_object_set_new(queue.filter, "state", json_string(o->state));
    if (o->match != NULL)
        json_object_set_new(queue.filter, "recipient", json_string(o->match));
    code = queue_view_list(ch, &queue);
    queue_options_done(&queue);
    return code;
}

/* --- the command line --- */

static int usage_error(const struct campaign_options *o, const char *what)
{
    fprintf(stderr, "hayauma %s: %s\n", o->channel.command, what);
    return EXIT_USAGE;
}

/* The settings behind the campaign's name; how many arguments are left without them, or -1. */
static int take_settings(struct campaign_options *o, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **value;
    } known[] = {{"rate=", &o->rate}, {"pool=", &o->pool}, {"priority=", &o->priority}};

    for (int i = optind + 1; i < argc; i++) {
        bool taken = false;

        for (size_t k = 0; k < ARRAY_LEN(known) && !taken; k++) {
            taken = strncmp(argv[i], known[k].name, strlen(known[k].name)) == 0;
            if (taken)
                *known[k].value = argv[i] + strlen(known[k].name);
        }
        if (!taken)
            return usage_error(o, "behind CAMPAIGN: rate=RATE, pool=POOL, priority=0..9"), -1;
    }
    if (o->priority != NULL &&
        (strlen(o->priority) != 1 || *o->priority < '0' || *o->priority > '9'))
        return usage_error(o, "priority is 0 (first) to 9 (last)"), -1;
    if (argc < optind + 2)
        return usage_error(o, "say what: rate=RATE, pool=POOL, priority=0..9"), -1;
    return optind + 1;
}

/* NULL, or what is wrong. */
static const char *take_question(struct campaign_options *o, int c)
{
    char *end = optarg;

    if (strcmp(o->action, "recipients") != 0)
        return "--state, --match and --limit are of recipients";
    if (c == OPT_MATCH) {
        o->match = optarg;
        return NULL;
    }
    if (c == OPT_STATE) {
        o->state = optarg;
        return strcmp(optarg, "ready") == 0 || strcmp(optarg, "deferred") == 0 ||
                       strcmp(optarg, "held") == 0
                   ? NULL
                   : "--state is ready, deferred or held";
    }
    o->limit = strtoll(optarg, &end, 10);
    return end != optarg && *end == '\0' && o->limit > 0 ? NULL : "--limit takes a number";
}

static int options_parse(struct campaign_options *o, int argc, char **argv)
{
    static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                          {"at", required_argument, NULL, OPT_AT},
                                          {"open", no_argument, NULL, OPT_OPEN},
                                          {"state", required_argument, NULL, OPT_STATE},
                                          {"match", required_argument, NULL, OPT_MATCH},
                                          {"limit", required_argument, NULL, OPT_LIMIT},
                                          {"html", required_argument, NULL, OPT_HTML},
                                          {"yes", no_argument, NULL, 'y'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    bool starts = strcmp(o->action, "start") == 0, lists = strcmp(o->action, "list") == 0;
    const char *wrong;
    int c;

    optind = 2;
    while ((c = getopt_long(argc, argv, "c:yh", longs, NULL)) != -1) {
        if (channel_option(&o->channel, c))
            continue;
        if (c == 'y') {
            o->yes = true;
        } else if (c == OPT_STATE || c == OPT_MATCH || c == OPT_LIMIT) {
            wrong = take_question(o, c);
            if (wrong != NULL)
                return usage_error(o, wrong);
        } else if (c == OPT_HTML) {
            if (strcmp(o->action, "report") != 0)
                return usage_error(o, "--html is of report");
            o->html = optarg;
        } else if (c == OPT_OPEN) {
            if (!starts)
                return usage_error(o, "--open is of start");
            o->open = true;
        } else if (c == OPT_AT) {
            if (!starts)
                return usage_error(o, "--at is of start");
            if (quantity_time_ms(optarg, &o->at_ms) < 0)
                return usage_error(o, "--at takes a time: 2026-11-29T09:00:00+09:00, or ...Z");
        } else {
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? -1 : EXIT_USAGE;
        }
    }
    if (o->html != NULL && o->channel.json)
        return usage_error(o, "say --json or --html");
    if (strcmp(o->action, "cancel") == 0 && !o->yes && isatty(STDIN_FILENO) == 0)
        return usage_error(o, "this cannot be undone; say --yes");
    if (strcmp(o->action, "set") == 0)
        argc = take_settings(o, argc, argv);
    if (argc < 0)
        return EXIT_USAGE;
    if (argc - optind != (lists ? 0 : 1))
        return usage_error(o, lists ? "it takes no argument" : "say one campaign");
    o->what = lists ? NULL : argv[optind];
    return EXIT_OK;
}

int cmd_campaign(int argc, char **argv)
{
    static const struct {
        const char *name, *command;
        int (*run)(struct channel *ch, const struct campaign_options *o);
    } actions[] = {
        {"list", "campaign list", list},       {"show", "campaign show", act},
        {"report", "campaign report", report}, {"recipients", "campaign recipients", recipients},
        {"start", "campaign start", act},      {"pause", "campaign pause", act},
        {"resume", "campaign resume", act},    {"cancel", "campaign cancel", act},
        {"set", "campaign set", act},          {"close", "campaign close", act}};
    int (*run)(struct channel * ch, const struct campaign_options *o) = NULL;
    const char *action = argc > 1 ? argv[1] : "";
    struct campaign_options o = {0};
    struct suggest near;
    struct channel ch;
    int code;

    suggest_init(&near, str_of(action));
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        suggest_offer(&near, actions[i].name);
        if (strcmp(action, actions[i].name) == 0) {
            o.action = actions[i].name;
            run = actions[i].run;
            o.channel.command = actions[i].command;
        }
    }
    if (o.action == NULL) {
        bool asked = strcmp(action, "-h") == 0 || strcmp(action, "--help") == 0;

        if (!asked && *action != '\0')
            return action_unknown("campaign", &near);
        fputs(help, asked ? stdout : stderr);
        return asked ? EXIT_OK : EXIT_USAGE;
    }
    code = options_parse(&o, argc, argv);
    if (code != EXIT_OK)
        return code < 0 ? EXIT_OK : code;
    code = channel_open(&ch, &o.channel);
    if (code == 0)
        code = run(&ch, &o);
    channel_close(&ch);
    return code;
}

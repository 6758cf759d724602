/* hayauma queue: what is in the queue, and changing it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/suggest.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/options.h"
#include "tools/commands/queue_export.h"
#include "tools/commands/queue_filter.h"
#include "tools/commands/queue_suspend.h"
#include "tools/commands/queue_view.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

static const char help_head[] =
    "usage: hayauma queue <action> [ID | DOMAIN] [options]\n"
    "\n"
    "  summary      recipients by domain, the most first\n"
    "  list         recipients\n"
    "  show ID      a message, its recipients and its headers\n"
    "  export       messages as files (--to DIR), or one to stdout (ID)\n"
    "  flush        try now: what is deferred, and destinations that are backed off\n"
    "  suspend      send nothing of a domain, campaign, tenant or site, what is still\n"
    "               to come included: DOMAIN, --campaign NAME, --tenant NAME or\n"
    "               --site NAME\n"
    "    --for TIME       until then (30m, 2h, 3d); else until it is resumed\n"
    "    --reason TEXT    shown wherever mail waits for it\n"
    "  resume       end that; takes the same names, and what rules suspended at one\n"
    "               site: --source-site, --campaign-site or --tenant-site NAME@SITE,\n"
    "               --netblock-site NET/24@SITE, --signer-site or --envelope-site\n"
    "               DOMAIN@SITE (what the domain signs, has in its return path); and\n"
    "               what they lowered: --source-cap, --campaign-cap or --tenant-cap\n"
    "               NAME@SITE, --signer-cap or --envelope-cap DOMAIN@SITE\n"
    "  suspensions  what is suspended, since when, why, and how much waits for it\n"
    "  hold         keep these recipients in the queue until released\n"
    "  release      let go what was held\n"
    "  cancel       remove; nobody is told but the record\n"
    "  expire       end as undeliverable; senders get a notice\n"
    "  quarantine   stored records that failed their checksum; RECORD, ID or DOMAIN\n"
    "               say which:\n"
    "    list       their names and what is wrong (the same as without a word)\n"
    "    show       with what is left of them\n"
    "    export     their bytes and contents as files (--to DIR)\n"
    "    purge      forget them\n"
    "\n";
static const char help_tail[] =
    "\n"
    "Examples:\n"
    "  hayauma queue list --error 'mailbox full' --limit 20\n"
    "  hayauma queue flush example.com\n"
    "  hayauma queue suspend --campaign spring --reason 'complaints' --for 2h\n"
    "  hayauma queue cancel --campaign spring --state deferred\n"
    "  hayauma queue export --sender news@example.com --to /tmp/news\n"
    "  hayauma queue quarantine purge 0-1f2e3d4c5b6a7988\n"
    "\n"
    "Exit codes: 0 done, 1 failed or not found, 2 wrong usage, 3 the engine does not\n"
    "answer.\n";

static int help(FILE *to)
{
    fputs(help_head, to);
    fputs(queue_filter_help, to);
    fputs("\n      --to DIR            export: where to, a new or an empty directory\n" CHANNEL_HELP
          "  -h, --help              this text\n",
          to);
    fputs(help_tail, to);
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

/* --- actions --- */

#define OTHERS_GONE "the others had ended or were being delivered"

static const struct action {
    const char *name;
    const char *op, *count; /* of the control channel: to do it, to count first */
    const char *noun;
    const char *past;
    const char *others;  /* what the matched but unchanged ones are */
    const char *warning; /* NULL: undone easily, or does no harm */
} actions[] = {
    {"hold", "hold", "count", "recipient", "held", OTHERS_GONE, NULL},
    {"release", "release", "count", "recipient", "released", OTHERS_GONE, NULL},
    {"flush", "flush", "count", "recipient", "made due",
     "the others were due already; back-offs are over", NULL},
    {"cancel", "cancel", "count", "recipient", "cancelled", OTHERS_GONE,
     "They will not be delivered, and senders are not told."},
    {"expire", "expire", "count", "recipient", "expired", OTHERS_GONE,
     "They will not be delivered; senders get a notice."},
    {"quarantine purge", "purge", "quarantine", "damaged record", "purged", "the others had gone",
     "What is left of them is lost, and their senders are not told."},
};

/* Whether to go on. */
static bool confirm(const struct action *a, uint64_t matched)
{
    struct buf text = {0};
    char answer[16] = "";

    buf_printf(&text, "%s ", a->op);
    put_counted(&text, matched, a->noun);
    buf_printf(&text, "? %s [y/N] ", a->warning);
    flush_text(&text, stderr);
    buf_done(&text);
    return fgets(answer, sizeof(answer), stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

/* What is wrong with the command line of an action, before the engine is asked anything. */
static int check_action(const struct action *a, const struct queue_options *o)
{
    if (json_object_size(o->filter) == 0 && !o->all) {
        fprintf(stderr, "hayauma %s: this means every %s of the queue; say which, or --all\n",
                o->channel.command, a->noun);
        return EXIT_USAGE;
    }
    if (o->limit != 0) { /* it would do all the same */
        fprintf(stderr, "hayauma %s: --limit is for what is shown\n", o->channel.command);
        return EXIT_USAGE;
    }
    if (a->warning != NULL && !o->yes && o->one_id == NULL && isatty(STDIN_FILENO) == 0) {
        fprintf(stderr, "hayauma %s: this cannot be undone; say --yes\n", o->channel.command);
        return EXIT_USAGE;
    }
    return 0;
}

/* Counts and asks before a mass action that cannot be undone. 0 to go on. */
static int may_act(struct channel *ch, const struct action *a, const struct queue_options *o)
{
    json_t *done = NULL;
    uint64_t matched;
    int code;

    if (a->warning == NULL || o->yes || o->one_id != NULL)
        return 0;
    code = channel_ask(ch, queue_request(o, a->count), &done);
    matched = code == 0 ? (uint64_t)reply_number(done, "matched") : 0;
    json_decref(done);
    if (code != 0 || matched == 0 || confirm(a, matched))
        return code;
    fputs("nothing was changed\n", stderr);
    return EXIT_FAILED;
}

static void show_progress(const json_t *p)
{
    struct buf text = {0};

    if (p == NULL || isatty(STDERR_FILENO) == 0)
        return;
    buf_puts(&text, "\r");
    put_count(&text, (uint64_t)reply_number(p, "changed"));
    buf_puts(&text, " done, ");
    put_count(&text, (uint64_t)reply_number(p, "visited"));
    buf_puts(&text, " looked at\033[K");
    flush_text(&text, stderr);
    buf_done(&text);
}

static void print_outcome(const struct action *a, const json_t *done)
{
    uint64_t matched = (uint64_t)reply_number(done, "matched");
    uint64_t changed = (uint64_t)reply_number(done, "changed");
    struct buf text = {0};

    if (isatty(STDERR_FILENO) != 0)
        fputs("\r\033[K", stderr);
    if (matched == 0) {
        buf_printf(&text, "no %s matches\n", a->noun);
    } else {
        put_count(&text, changed);
        if (changed != matched) {
            buf_puts(&text, " of ");
            put_count(&text, matched);
        }
        buf_printf(&text, " %s%s %s", a->noun, PLURAL(matched), a->past);
        if (changed < matched)
            buf_printf(&text, "; %s", a->others);
        buf_putc(&text, '\n');
    }
    flush_text(&text, stdout);
    buf_done(&text);
}

/* Mail that was made due and is suspended waits all the same. */
static void print_suspended(struct channel *ch, const struct queue_options *o)
{
    static const char *const scopes[][2] = {
        {"queue", "domain"}, {"campaign", "campaign"}, {"tenant", "tenant"}};
    struct buf text = {0};
    const json_t *hold;
    json_t *reply = NULL;
    int code = -1;
    size_t i;

    for (i = 0; i < ARRAY_LEN(scopes) && code != 0; i++) {
        const char *name = json_string_value(json_object_get(o->filter, scopes[i][0]));

        if (name != NULL)
            code = channel_send(
                ch, json_pack("{s:s, s:s, s:s}", "op", "why", "scope", scopes[i][1], "name", name));
    }
    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *why = json_object_get(reply, "why");

        json_array_foreach(json_object_get(why, "holds"), i, hold)
        {
            if (json_object_get(json_object_get(hold, "wait"), "scope") == NULL)
                continue;
            put_count(&text, (uint64_t)reply_number(hold, "recipients"));
            buf_puts(&text, " stay: ");
            put_wait_whole(&text, hold, reply_number(why, "now_ms"));
            buf_putc(&text, '\n');
        }
        json_decref(reply);
    }
    flush_text(&text, stdout);
    buf_done(&text);
}

static int run_action(struct channel *ch, const struct action *a, const struct queue_options *o)
{
    json_t *reply, *done = NULL;
    int code = may_act(ch, a, o);

    if (code == 0)
        code = channel_send(ch, queue_request(o, a->op));
    if (code != 0)
        return code;
    while ((reply = channel_next(ch, &done, &code)) != NULL) {
        if (o->channel.json)
            reply_print(reply);
        else
            show_progress(json_object_get(reply, "progress"));
        json_decref(reply);
    }
    if (code == 0 && o->channel.json)
        reply_print(done);
    else if (code == 0)
        print_outcome(a, done);
    if (code == 0 && !o->channel.json && strcmp(a->op, "flush") == 0 &&
        reply_number(done, "matched") > 0)
        print_suspended(ch, o);
    if (code == 0 && !o->all && reply_number(done, "matched") == 0)
        code = EXIT_FAILED; /* what was meant is not there */
    json_decref(done);
    return code;
}

/* --- the command --- */

static int check_show(const struct queue_options *o)
{
    const char *given = reply_text(o->filter, "queue"); /* no id is taken for a domain */

    if (o->one_id != NULL)
        return 0;
    if (*given != 0)
        fprintf(stderr, "hayauma queue show: '%s' is no message id: 32 hexadecimal digits\n",
                given);
    else
        fputs("hayauma queue show: which message? Give an id, as 'queue list' shows it\n", stderr);
    return EXIT_USAGE;
}

static int check_export(const struct queue_options *o)
{
    if (o->to != NULL || (o->one_id != NULL && !o->records))
        return 0;
    fprintf(stderr, "hayauma %s: say where: --to DIR%s\n", o->channel.command,
            o->records ? "" : ", or give a message id");
    return EXIT_USAGE;
}

static const struct view {
    const char *name;
    int (*run)(struct channel *ch, struct queue_options *o);
    int (*check)(const struct queue_options *o); /* of the command line; NULL: anything goes */
} views[] = {{"summary", queue_view_summary, NULL},
             {"list", queue_view_list, NULL},
             {"show", queue_view_show, check_show},
             {"export", queue_export, check_export},
             {"quarantine", queue_view_quarantine, NULL},
             {"quarantine list", queue_view_quarantine, NULL},
             {"quarantine show", queue_view_quarantine_show, NULL},
             {"quarantine export", queue_export_quarantine, check_export}};

static const struct view *find_view(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(views); i++)
        if (strcmp(name, views[i].name) == 0)
            return &views[i];
    return NULL;
}

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        if (strcmp(name, actions[i].name) == 0)
            return &actions[i];
    return NULL;
}

/* Words of other mail servers and of shells. */
static const char *const elsewhere[][2] = {
    {"bounce", "expire"},      {"count", "summary"},    {"delete", "cancel"},
    {"kill", "cancel"},        {"ls", "list"},          {"pause", "suspend"},
    {"purge", "cancel"},       {"requeue", "flush"},    {"remove", "cancel"},
    {"retry", "flush"},        {"stats", "summary"},    {"status", "hayauma status"},
    {"top", "hayauma status"}, {"unsuspend", "resume"}, {"view", "show"},
    {"why", "hayauma why"}};

static int unknown(const char *name)
{
    struct suggest s;

    if (*name == '-') {
        fputs("hayauma queue: the action comes first: hayauma queue list ...\n", stderr);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++)
        if (strcmp(elsewhere[i][0], name) == 0) {
            fprintf(stderr, "hayauma queue: no such action: '%s'; here it is '%s'\n", name,
                    elsewhere[i][1]);
            return EXIT_USAGE;
        }
    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < ARRAY_LEN(views); i++)
        suggest_offer(&s, views[i].name);
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        suggest_offer(&s, actions[i].name);
    for (int i = 0; queue_suspend_name(i) != NULL; i++)
        suggest_offer(&s, queue_suspend_name(i));
    return action_unknown("queue", &s);
}

/* What to do with the quarantine, rather than with which part of it. */
static bool is_word(const char *text)
{
    return *text != 0 && text[strspn(text, "abcdefghijklmnopqrstuvwxyz")] == 0;
}

int cmd_queue(int argc, char **argv)
{
    struct queue_options o = {0};
    const struct view *view;
    const struct action *action;
    struct channel ch;
    char title[64], name[32];
    int code;

    if (argc < 2)
        return help(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(stdout);
    snprintf(name, sizeof(name), "%s", argv[1]);
    if (queue_suspend_is(name)) {
        snprintf(title, sizeof(title), "hayauma queue %s", name);
        argv[1] = title; /* for getopt's own errors */
        code = queue_suspend(name, argc - 1, argv + 1);
        return code == -1 ? help(stdout) : code;
    }
    o.records = strcmp(name, "quarantine") == 0;
    if (o.records && argc > 2 && is_word(argv[2])) {
        snprintf(name, sizeof(name), "quarantine %.16s", argv[2]);
        argc--;
        argv++;
    }
    view = find_view(name);
    action = find_action(name);
    if (view == NULL && action == NULL)
        return unknown(name);
    snprintf(title, sizeof(title), "hayauma queue %s", name);
    o.channel.command = title + strlen("hayauma ");
    argv[1] = title; /* for getopt's own errors */
    code = queue_options_parse(&o, argc - 1, argv + 1);
    if (code != 0)
        return code == -1 ? help(stdout) : code;
    if (view == NULL)
        code = check_action(action, &o);
    else if (view->check != NULL)
        code = view->check(&o);
    if (code == 0) {
        code = channel_open(&ch, &o.channel);
        if (code == 0)
            code = view != NULL ? view->run(&ch, &o) : run_action(&ch, action, &o);
        channel_close(&ch);
    }
    queue_options_done(&o);
    return code;
}

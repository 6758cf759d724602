/* hayauma queue: what is in the queue, and changing it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "dns/name.h"
#include "engine/suggest.h"
#include "tools/channel.h"
#include "tools/commands.h"
#include "tools/queue_export.h"
#include "tools/queue_filter.h"
#include "tools/screen.h"

static const char help_head[] =
    "usage: hayauma queue <action> [ID | DOMAIN] [options]\n"
    "\n"
    "  summary      recipients by domain, the most first\n"
    "  list         recipients\n"
    "  show ID      a message, its recipients and its headers\n"
    "  export       messages as files (--to DIR), or one to stdout (ID)\n"
    "  flush        try now: what is deferred, and destinations that are backed off\n"
    "  hold         keep in the queue until released\n"
    "  release      let go what was held\n"
    "  cancel       remove; nobody is told but the record\n"
    "  expire       end as undeliverable; senders get a notice\n"
    "  quarantine   stored records that failed their checksum; RECORD, ID or DOMAIN say which:\n"
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
    "  hayauma queue cancel --campaign spring --state deferred\n"
    "  hayauma queue export --sender news@example.com --to /tmp/news\n"
    "  hayauma queue quarantine purge 0-1f2e3d4c5b6a7988\n"
    "\n"
    "Exit codes: 0 done, 1 failed or not found, 2 wrong usage, 3 the engine does not answer.\n";

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

static void print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT);
    putchar('\n');
}

/* Calls print for the member name of each line of the reply. */
static int each(struct channel *ch, json_t *request, const char *name,
                void (*print)(const struct queue_options *o, const json_t *value),
                const struct queue_options *o, json_t **last)
{
    int code = channel_send(ch, request);
    json_t *reply;

    if (code != 0)
        return code;
    while ((reply = channel_next(ch, last, &code)) != NULL) {
        json_t *value = json_object_get(reply, name);

        if (value != NULL && o->channel.json)
            print_json(value);
        else if (value != NULL)
            print(o, value);
        json_decref(reply);
        if (ferror(stdout)) /* the reader of our pipe has gone */
            return EXIT_FAILED;
    }
    return code;
}

static void print_total(const json_t *done, const char *what)
{
    struct buf text = {0};

    put_count(&text, (uint64_t)reply_number(done, "matched"));
    buf_printf(&text, " %s%s%s\n", what, reply_number(done, "matched") == 1 ? "" : "s",
               json_is_true(json_object_get(done, "truncated")) ? " seen; --limit stopped there"
                                                                : "");
    flush_text(&text, stderr);
    buf_done(&text);
}

/* --- list --- */

#define ID_COLUMNS 32

static void put_due(struct buf *out, const json_t *row)
{
    int64_t due_ms = reply_number(row, "due_ms") - clock_wall_ms();

    if (strcmp(reply_text(row, "state"), "held") == 0)
        buf_puts(out, "held");
    else if (due_ms <= 0)
        buf_puts(out, "now");
    else
        put_age(out, due_ms);
}

static void list_head(void)
{
    printf("%-*s %6s %6s %5s %-28s %s\n", ID_COLUMNS, "MESSAGE", "AGE", "NEXT", "TRIES",
           "RECIPIENT", "LAST ERROR");
}

static void print_row(const struct queue_options *o, const json_t *row)
{
    unsigned width = screen_width();
    unsigned rest = width > 100 ? width - 81 : width == 0 ? 0 : 20;
    struct buf line = {0};
    size_t from;

    (void)o;
    buf_printf(&line, "%-*.32s ", ID_COLUMNS, reply_text(row, "id"));
    from = line.len;
    put_age(&line, clock_wall_ms() - reply_number(row, "created_ms"));
    pad_from(&line, from, 6, true);
    buf_putc(&line, ' ');
    from = line.len;
    put_due(&line, row);
    pad_from(&line, from, 6, true);
    buf_printf(&line, " %5lld ", reply_number(row, "attempts"));
    from = line.len;
    put_text(&line, reply_text(row, "recipient"), 0, false);
    pad_from(&line, from, 28, false);
    buf_putc(&line, ' ');
    put_text(&line, reply_text(row, "last_error"), rest, false);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static int list(struct channel *ch, struct queue_options *o)
{
    json_t *done = NULL;
    int code;

    if (!o->channel.json)
        list_head();
    code = each(ch, queue_request(o, "list"), "row", print_row, o, &done);
    if (code == 0 && !o->channel.json)
        print_total(done, "recipient");
    json_decref(done);
    return code;
}

/* --- summary --- */

static void print_group(const struct queue_options *o, const json_t *queue)
{
    static const char *const names[] = {"rows", "ready", "deferred", "held"};
    unsigned width = screen_width();
    struct buf line = {0};
    char *name = dns_name_readable(reply_text(queue, "queue"));
    size_t from;

    (void)o;
    put_text(&line, name, 30, true);
    free(name);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        buf_putc(&line, ' ');
        from = line.len;
        put_count(&line, (uint64_t)reply_number(queue, names[i]));
        pad_from(&line, from, 10, true);
    }
    buf_puts(&line, "  ");
    put_text(&line, reply_text(queue, "last_error"),
             width > 96   ? width - 77
             : width == 0 ? 0
                          : 20,
             false);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static int summary(struct channel *ch, struct queue_options *o)
{
    json_t *done = NULL;
    int code;

    if (!o->channel.json)
        printf("%-30s %10s %10s %10s %10s  %s\n", "QUEUE", "RECIPIENTS", "READY", "DEFERRED",
               "HELD", "LAST ERROR");
    code = each(ch, queue_request(o, "summary"), "queue", print_group, o, &done);
    if (code == 0 && !o->channel.json)
        print_total(done, "recipient");
    json_decref(done);
    return code;
}

/* --- show --- */

static void print_field(const char *name, const char *text)
{
    struct buf line = {0};

    buf_printf(&line, "%-11s ", name);
    put_text(&line, text, 0, false);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static void print_time(const char *name, int64_t wall_ms)
{
    char text[CLOCK_RFC3339_BYTES];

    clock_rfc3339(wall_ms, text);
    print_field(name, text);
}

static void print_headers(const char *headers)
{
    puts("");
    while (*headers != 0) {
        size_t n = strcspn(headers, "\r\n");
        char *line = strndup(headers, n);

        if (line != NULL && n != 0)
            print_field("", line);
        free(line);
        headers += n;
        headers += strspn(headers, "\r\n");
    }
}

static void print_message(const json_t *m)
{
    struct buf size = {0};
    const char *sender = reply_text(m, "sender");

    put_size(&size, (uint64_t)reply_number(m, "size"));
    buf_putc(&size, 0);
    print_field("message", reply_text(m, "id"));
    print_field("sender", *sender == 0 ? "<> (null sender)" : sender);
    print_time("received", reply_number(m, "created_ms"));
    print_field("size", (const char *)size.data);
    buf_done(&size);
    if (*reply_text(m, "campaign") != 0)
        print_field("campaign", reply_text(m, "campaign"));
    if (*reply_text(m, "tenant") != 0)
        print_field("tenant", reply_text(m, "tenant"));
    print_field("came by", reply_text(m, "protocol"));
    print_field("from", reply_text(m, "origin"));
    if (json_is_true(json_object_get(m, "notice")))
        print_field("kind", "delivery status notice of our own");
    print_headers(reply_text(m, "headers"));
    puts("");
}

static void print_recipient(const json_t *row)
{
    char expires[CLOCK_RFC3339_BYTES];
    struct buf line = {0};

    buf_puts(&line, "to ");
    put_text(&line, reply_text(row, "recipient"), 0, false);
    buf_printf(&line, ": %s, ", reply_text(row, "state"));
    if (strcmp(reply_text(row, "state"), "held") != 0) {
        buf_puts(&line, "next attempt ");
        put_due(&line, row);
        buf_puts(&line, ", ");
    }
    buf_printf(&line, "%lld attempt%s", reply_number(row, "attempts"),
               reply_number(row, "attempts") == 1 ? "" : "s");
    clock_rfc3339(reply_number(row, "expires_ms"), expires);
    buf_printf(&line, ", expires %s", expires);
    if (*reply_text(row, "last_error") != 0) {
        buf_puts(&line, "\n   ");
        put_text(&line, reply_text(row, "last_error"), 0, false);
    }
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static int show(struct channel *ch, struct queue_options *o)
{
    int code;
    json_t *reply;

    if (o->one_id == NULL) {
        const char *given = reply_text(o->filter, "queue"); /* no id is taken for a domain */

        if (*given != 0)
            fprintf(stderr, "hayauma queue show: '%s' is no message id: 32 hexadecimal digits\n",
                    given);
        else
            fprintf(stderr,
                    "hayauma queue show: which message? Give an id, as 'queue list' shows it\n");
        return EXIT_USAGE;
    }
    code = channel_send(ch, json_pack("{s:s, s:s}", "op", "show", "id", o->one_id));
    if (code != 0)
        return code;
    while ((reply = channel_next(ch, NULL, &code)) != NULL) {
        if (o->channel.json)
            print_json(reply);
        else if (json_object_get(reply, "message") != NULL)
            print_message(json_object_get(reply, "message"));
        else if (json_object_get(reply, "row") != NULL)
            print_recipient(json_object_get(reply, "row"));
        json_decref(reply);
    }
    return code;
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
    {"flush", "flush", "count", "recipient", "made due", "the others were due already", NULL},
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
    put_count(&text, matched);
    buf_printf(&text, " %s%s? %s [y/N] ", a->noun, matched == 1 ? "" : "s", a->warning);
    flush_text(&text, stderr);
    buf_done(&text);
    return fgets(answer, sizeof(answer), stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}

/* Counts and asks before a mass action that cannot be undone. 0 to go on. */
static int may_act(struct channel *ch, const struct action *a, const struct queue_options *o)
{
    json_t *done = NULL;
    uint64_t matched;
    int code;

    if (json_object_size(o->filter) == 0 && !o->all) {
        fprintf(stderr, "hayauma %s: this means every %s of the queue; say which, or --all\n",
                o->channel.command, a->noun);
        return EXIT_USAGE;
    }
    if (o->limit != 0) { /* it would do all the same */
        fprintf(stderr, "hayauma %s: --limit is for what is shown\n", o->channel.command);
        return EXIT_USAGE;
    }
    if (a->warning == NULL || o->yes || o->one_id != NULL)
        return 0;
    if (isatty(STDIN_FILENO) == 0) {
        fprintf(stderr, "hayauma %s: this cannot be undone; say --yes\n", o->channel.command);
        return EXIT_USAGE;
    }
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
        buf_printf(&text, " %s%s %s", a->noun, matched == 1 ? "" : "s", a->past);
        if (changed < matched)
            buf_printf(&text, "; %s", a->others);
        buf_putc(&text, '\n');
    }
    flush_text(&text, stdout);
    buf_done(&text);
}

static int act(struct channel *ch, const struct action *a, const struct queue_options *o)
{
    json_t *reply, *done = NULL;
    int code = may_act(ch, a, o);

    if (code == 0)
        code = channel_send(ch, queue_request(o, a->op));
    if (code != 0)
        return code;
    while ((reply = channel_next(ch, &done, &code)) != NULL) {
        if (o->channel.json)
            print_json(reply);
        else
            show_progress(json_object_get(reply, "progress"));
        json_decref(reply);
    }
    if (code == 0 && o->channel.json)
        print_json(done);
    else if (code == 0)
        print_outcome(a, done);
    if (code == 0 && !o->all && reply_number(done, "matched") == 0)
        code = EXIT_FAILED; /* what was meant is not there */
    json_decref(done);
    return code;
}

/* --- quarantine --- */

static void print_quarantined(const struct queue_options *o, const json_t *q)
{
    struct buf line = {0};

    (void)o;
    buf_printf(&line, "%s  ", reply_text(q, "record"));
    put_text(&line, reply_text(q, "reason"), 0, false);
    if (*reply_text(q, "id") != 0) {
        buf_puts(&line, ": ");
        put_text(&line, reply_text(q, "queue"), 0, false);
        buf_printf(&line, ", message %s, recipient %lld ", reply_text(q, "id"),
                   reply_number(q, "index"));
        put_text(&line, reply_text(q, "recipient"), 0, false);
    } else {
        buf_printf(&line, ", %s", reply_text(q, "tree"));
    }
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static int quarantine(struct channel *ch, struct queue_options *o)
{
    json_t *done = NULL;
    int code = each(ch, queue_request(o, "quarantine"), "quarantined", print_quarantined, o, &done);

    if (code == 0 && !o->channel.json)
        print_total(done, "damaged record");
    json_decref(done);
    return code;
}

/* As hexdump -C. */
static void print_bytes(const char *name, const char *base64)
{
    uint8_t *bytes = malloc(strlen(base64) + 1);
    size_t len = bytes == NULL ? 0 : queue_decode_base64(base64, bytes);

    printf("%s, %zu bytes\n", name, len);
    for (size_t at = 0; at < len; at += 16) {
        printf("  %06zx ", at);
        for (size_t i = at; i < at + 16; i++)
            i < len ? printf(" %02x", bytes[i]) : printf("   ");
        fputs("  ", stdout);
        for (size_t i = at; i < at + 16 && i < len; i++)
            putchar(bytes[i] >= ' ' && bytes[i] < 127 ? bytes[i] : '.');
        putchar('\n');
    }
    free(bytes);
}

static void print_quarantined_all(const struct queue_options *o, const json_t *q)
{
    static const char *const names[] = {"queue", "recipient", "sender"};

    (void)o;
    print_field("record", reply_text(q, "record"));
    print_field("damage", reply_text(q, "reason"));
    if (*reply_text(q, "id") != 0)
        print_field("message", reply_text(q, "id"));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (*reply_text(q, names[i]) != 0)
            print_field(names[i], reply_text(q, names[i]));
    if (json_object_get(q, "created_ms") != NULL)
        print_time("received", reply_number(q, "created_ms"));
    print_bytes("key", reply_text(q, "key"));
    print_bytes("value", reply_text(q, "value"));
    puts("");
}

static int quarantine_show(struct channel *ch, struct queue_options *o)
{
    json_t *request = queue_request(o, "quarantine");

    json_object_set_new(request, "data", json_true());
    return each(ch, request, "quarantined", print_quarantined_all, o, NULL);
}

/* --- the command --- */

static const struct view {
    const char *name;
    int (*run)(struct channel *ch, struct queue_options *o);
} views[] = {{"summary", summary},
             {"list", list},
             {"show", show},
             {"export", queue_export},
             {"quarantine", quarantine},
             {"quarantine list", quarantine},
             {"quarantine show", quarantine_show},
             {"quarantine export", queue_export_quarantine}};

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

static int unknown(const char *name)
{
    struct suggest s;

    if (*name == '-') {
        fputs("hayauma queue: the action comes first: hayauma queue list ...\n", stderr);
        return EXIT_USAGE;
    }
    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < ARRAY_LEN(views); i++)
        suggest_offer(&s, views[i].name);
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        suggest_offer(&s, actions[i].name);
    fprintf(stderr, "hayauma queue: no such action: '%s'", name);
    if (s.best != NULL)
        fprintf(stderr, "; did you mean '%s'?", s.best);
    fputs("\n'hayauma queue --help' lists them.\n", stderr);
    return EXIT_USAGE;
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
    code = channel_open(&ch, &o.channel);
    if (code == 0)
        code = view != NULL ? view->run(&ch, &o) : act(&ch, action, &o);
    channel_close(&ch);
    queue_options_done(&o);
    return code;
}

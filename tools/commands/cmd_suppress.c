/* hayauma suppress: the addresses that get no mail. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/csv.h"
#include "smtp/address.h"
#include "tools/commands/channel.h"
#include "tools/commands/commands.h"
#include "tools/commands/input.h"
#include "tools/commands/options.h"
#include "tools/commands/quantity.h"
#include "tools/commands/screen.h"

static const char help[] =
    "usage: hayauma suppress add ADDRESS... [--reason REASON] [--tenant NAME]\n"
    "                            [options]\n"
    "       hayauma suppress remove ADDRESS... [--tenant NAME] [options]\n"
    "       hayauma suppress check ADDRESS... [--tenant NAME] [options]\n"
    "       hayauma suppress list [--tenant NAME] [--limit N] [options]\n"
    "       hayauma suppress export [--tenant NAME] [options]\n"
    "       hayauma suppress import FILE [--reason REASON] [--tenant NAME] [options]\n"
    "\n"
    "The suppression list: addresses that get no mail, whoever asks for it. It is\n"
    "looked at when recipients are brought by HTTP, and by SMTP where the listener\n"
    "has 'suppression: yes', and again before each letter of a campaign. With\n"
    "'suppression: {hard_bounces: yes}' the engine puts unknown addresses on it by\n"
    "itself.\n"
    "\n"
    "  add      puts addresses on the list\n"
    "  remove   takes them off it; without --tenant from what counts for all\n"
    "  check    says whether they are on it, why, and by which answer; exit code 1:\n"
    "           one is not\n"
    "  list     all of it\n"
    "  export   the same as CSV: email,reason,tenant,since,campaign\n"
    "  import   puts on it what a file has (-: stdin): such CSV, in which any column\n"
    "           but email may be missing, or an address a line; what is there already\n"
    "           stays as it is\n"
    "\n"
    "      --reason REASON     unsubscribed: no mail of campaigns, other mail goes\n"
    "                          on; complaint, bounce, manual (default): no mail at\n"
    "                          all\n"
    "      --tenant NAME       mail of this tenant alone (default of add and import:\n"
    "                          of all)\n"
    "      --limit N           at most so many\n" CHANNEL_HELP
    "  -h, --help              this text\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the engine does not answer.\n";

#define BATCH_BYTES 500000 /* of JSON: a request is a line of at most 1 MiB */
#define BATCH_MAX   5000   /* what is one transaction is written to the disk once */
#define ERRORS_MAX  20     /* lines that are told */
#define TENANT_MAX  64     /* bytes, as the engine has it, */
#define CELL_MAX    2000   /* of what else a file has; no address is so long */

#define SINCE_UNSAID INT64_MIN

enum { OPT_REASON = 300, OPT_TENANT, OPT_LIMIT };

struct suppress_options {
    struct channel_options channel;
    const char *action, *reason, *tenant;
    long long limit;
    char **names;
    int names_len;
};

/* --- what is there --- */

static void put_since(struct buf *out, const json_t *one)
{
    char text[CLOCK_RFC3339_BYTES];

    clock_rfc3339(reply_number(one, "since_ms"), text);
    buf_puts(out, text);
}

static void print_row(const json_t *one, bool first)
{
    const char *tenant = reply_text(one, "tenant");
    char since[CLOCK_RFC3339_BYTES];
    unsigned columns = screen_width() == 0 ? 36 : name_room(32);
    struct buf line = {0};

    if (first)
        printf("%-*s %-12s %-12s %-20s %s\n", (int)columns, "ADDRESS", "REASON", "TENANT", "SINCE",
               screen_width() == 0 || screen_width() > 90 ? "CAMPAIGN" : "");
    put_column(&line, reply_text(one, "email"), columns);
    buf_printf(&line, " %-12s ", reply_text(one, "reason"));
    put_column(&line, *tenant == '\0' ? "(all)" : tenant, 12);
    clock_rfc3339(reply_number(one, "since_ms"), since);
    buf_printf(&line, " %.19sZ", since); /* whole seconds */
    if (*reply_text(one, "campaign") != '\0') {
        buf_putc(&line, ' ');
        put_last(&line, reply_text(one, "campaign"));
    }
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

/* A cell (RFC 4180). A program that reads tables would take "=1+1" for a formula; an address is
 * never one that begins so and has no '@', so nothing is changed. */
static void put_cell(struct buf *out, const char *text)
{
    if (strpbrk(text, ",\"\r\n") == NULL) {
        buf_puts(out, text);
        return;
    }
    buf_putc(out, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"')
            buf_putc(out, '"');
        buf_putc(out, *text);
    }
    buf_putc(out, '"');
}

static void print_csv(const json_t *one)
{
    static const char *const cells[] = {"email", "reason", "tenant"};
    struct buf line = {0};

    for (size_t i = 0; i < ARRAY_LEN(cells); i++) {
        put_cell(&line, reply_text(one, cells[i]));
        buf_putc(&line, ',');
    }
    put_since(&line, one);
    buf_putc(&line, ',');
    put_cell(&line, reply_text(one, "campaign"));
    buf_putc(&line, '\n');
    fwrite(line.data, 1, line.len, stdout);
    buf_done(&line);
}

static json_t *request_of(const struct suppress_options *o, const char *op)
{
    json_t *request = json_pack("{s:s}", "op", op);

    if (o->tenant != NULL)
        json_object_set_new(request, "tenant", json_string(o->tenant));
    return request;
}

static int list(struct channel *ch, const struct suppress_options *o)
{
    bool csv = strcmp(o->action, "export") == 0 && !o->channel.json, first = true;
    json_t *request = request_of(o, "suppressions"), *reply;
    int code;

    if (o->limit > 0)
        json_object_set_new(request, "limit", json_integer(o->limit));
    if (csv)
        puts("email,reason,tenant,since,campaign");
    code = channel_send(ch, request);
    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *one = json_object_get(reply, "suppression");

        if (one != NULL && o->channel.json)
            reply_print(one);
        else if (one != NULL && csv)
            print_csv(one);
        else if (one != NULL)
            print_row(one, first);
        first = first && one == NULL;
        json_decref(reply);
    }
    if (code == 0 && first && !o->channel.json && !csv)
        fputs("the list is empty\n", stderr);
    return code;
}

static void print_found(const char *address, const json_t *one)
{
    struct buf out = {0};

    put_text(&out, address, 0, false);
    if (one == NULL) {
        buf_puts(&out, ": not on the list\n");
    } else {
        buf_printf(&out, ": %s since ", reply_text(one, "reason"));
        put_since(&out, one);
        buf_puts(&out, *reply_text(one, "tenant") == '\0' ? ", for all tenants" : ", for tenant ");
        put_text(&out, reply_text(one, "tenant"), 0, false);
        if (*reply_text(one, "campaign") != '\0') {
            buf_puts(&out, ", campaign ");
            put_text(&out, reply_text(one, "campaign"), 0, false);
        }
        if (*reply_text(one, "who") != '\0') {
            buf_puts(&out, ", by ");
            put_text(&out, reply_text(one, "who"), 0, false);
        }
        if (*reply_text(one, "answer") != '\0') {
            buf_puts(&out, ": ");
            put_text(&out, reply_text(one, "answer"), 0, false);
        }
        buf_putc(&out, '\n');
    }
    flush_text(&out, stdout);
    buf_done(&out);
}

static int check_one(struct channel *ch, const struct suppress_options *o, const char *address,
                     bool *found)
{
    json_t *request = request_of(o, "suppressions"), *reply;
    int code;

    *found = false;
    json_object_set_new(request, "email", json_string(address));
    code = channel_send(ch, request);
    while (code == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *one = json_object_get(reply, "suppression");

        *found = *found || one != NULL;
        if (one != NULL && o->channel.json)
            reply_print(one);
        else if (one != NULL)
            print_found(address, one);
        json_decref(reply);
    }
    if (code == 0 && !*found && !o->channel.json)
        print_found(address, NULL);
    return code;
}

static int check(struct channel *ch, const struct suppress_options *o)
{
    bool all = true, found;
    int code = 0;

    for (int i = 0; i < o->names_len && code == 0; i++) {
        code = check_one(ch, o, o->names[i], &found);
        all = all && found;
    }
    return code == 0 && !all ? EXIT_FAILED : code;
}

/* --- changes --- */

/* What goes on the list, or off it. */
struct entry {
    const char *email, *reason, *campaign; /* or NULL, or empty */
    int64_t since_ms;                      /* or SINCE_UNSAID */
    uint64_t line;                         /* of a file; 0: of none */
};

/* Entries on their way. */
struct batch {
    struct channel *ch;
    const struct suppress_options *o;
    bool remove;
    const char *tenant; /* of the entries; NULL: not said */
    struct buf json;    /* of the entries */
    struct entry entries[BATCH_MAX];
    size_t len;
    long long changed, same, invalid;
};

static void tell_errors(struct batch *b, const json_t *reply)
{
    const json_t *errors = json_object_get(reply, "errors");
    json_t *one;
    size_t i;

    json_array_foreach(errors, i, one)
    {
        size_t at = (size_t)reply_number(one, "at");
        struct buf line = {0};

        if (b->invalid + (long long)i >= ERRORS_MAX)
            break;
        buf_printf(&line, "hayauma %s: ", b->o->channel.command);
        if (at < b->len && b->entries[at].line != 0)
            buf_printf(&line, "line %llu: ", (unsigned long long)b->entries[at].line);
        put_text(&line, at < b->len ? b->entries[at].email : "", 0, false);
        buf_printf(&line, ": %s %s\n", reply_text(one, "field"), reply_text(one, "error"));
        flush_text(&line, stderr);
        buf_done(&line);
    }
    b->invalid += reply_number(reply, "invalid");
}

/* ,"name":"text"; nothing of no text. */
static void put_member(struct buf *out, const char *name, const char *text)
{
    if (text == NULL || *text == '\0')
        return;
    buf_printf(out, ",\"%s\":", name);
    buf_put_json(out, str_of(text));
}

static int batch_send(struct batch *b)
{
    struct buf request = {0};
    json_t *reply = NULL;
    int code;

    if (b->len == 0)
        return 0;
    buf_printf(&request, "{\"op\":\"%s\"", b->remove ? "suppression_remove" : "suppression_add");
    put_member(&request, "who", channel_user());
    put_member(&request, "tenant", b->tenant);
    buf_puts(&request, ",\"entries\":[");
    buf_put(&request, b->json.data, b->json.len);
    buf_puts(&request, "]}");
    code = channel_send_text(b->ch, &request);
    buf_done(&request);
    if (code == 0)
        code = channel_end(b->ch, &reply);
    if (code == 0) {
        b->changed += reply_number(reply, b->remove ? "removed" : "added");
        b->same += reply_number(reply, b->remove ? "unknown" : "known");
        tell_errors(b, reply);
    }
    json_decref(reply);
    buf_clear(&b->json);
    b->len = 0;
    return code;
}

static bool same_tenant(const struct batch *b, const char *tenant)
{
    return tenant == NULL || b->tenant == NULL ? tenant == b->tenant
                                               : strcmp(b->tenant, tenant) == 0;
}

/* Takes an entry, whose texts stay. tenant: whose; NULL: everybody's. */
static int batch_add(struct batch *b, const struct entry *e, const char *tenant)
{
    int code = 0;

    if (!same_tenant(b, tenant) || b->len == BATCH_MAX || b->json.len > BATCH_BYTES)
        code = batch_send(b);
    b->tenant = tenant;
    buf_puts(&b->json, b->len > 0 ? ",{\"email\":" : "{\"email\":");
    buf_put_json(&b->json, str_of(e->email));
    put_member(&b->json, "reason", e->reason);
    put_member(&b->json, "campaign", e->campaign);
    if (e->since_ms != SINCE_UNSAID)
        buf_printf(&b->json, ",\"since_ms\":%lld", (long long)e->since_ms);
    buf_putc(&b->json, '}');
    b->entries[b->len++] = *e;
    return code;
}

/* Texts that are not UTF-8 would be asked for as others. */
static bool is_text(struct str s)
{
    return str_find(s, '\0') < 0 && smtp_utf8_valid(s);
}

static int end(struct batch *b, int code)
{
    if (code == 0)
        code = batch_send(b);
    buf_done(&b->json);
    if (code != 0)
        return code;
    if (b->o->channel.json)
        printf("{\"%s\":%lld,\"%s\":%lld,\"invalid\":%lld}\n", b->remove ? "removed" : "added",
               b->changed, b->remove ? "unknown" : "known", b->same, b->invalid);
    else
        printf("%lld %s, %lld %s, %lld invalid\n", b->changed, b->remove ? "removed" : "added",
               b->same, b->remove ? "were not there" : "were there already", b->invalid);
    return b->invalid > 0 ? EXIT_FAILED : EXIT_OK;
}

static int change(struct channel *ch, const struct suppress_options *o)
{
    struct batch b = {.ch = ch, .o = o, .remove = strcmp(o->action, "remove") == 0};
    int code = 0;

    for (int i = 0; i < o->names_len && code == 0; i++) {
        struct entry e = {.email = o->names[i], .reason = o->reason, .since_ms = SINCE_UNSAID};

        if (is_text(str_of(e.email))) {
            code = batch_add(&b, &e, o->tenant);
            continue;
        }
        fprintf(stderr, "hayauma %s: '%s' is no mail address\n", o->channel.command, e.email);
        b.invalid++;
    }
    return end(&b, code);
}

/* --- import --- */

enum { COLUMN_EMAIL, COLUMN_REASON, COLUMN_TENANT, COLUMN_CAMPAIGN, COLUMN_SINCE, COLUMNS };
#define COLUMN_TEXTS COLUMN_SINCE /* the columns before it are texts */
static const char *const column_names[COLUMNS] = {"email", "reason", "tenant", "campaign", "since"};

/* A record of the file; its cells are in import.text, each with a NUL behind it. */
struct row {
    size_t cells[COLUMN_TEXTS];
    int64_t since_ms; /* or SINCE_UNSAID */
    uint64_t line;
};

struct import {
    struct csv csv;
    struct batch batch;
    int columns[COLUMNS]; /* which cell; -1: none */
    struct buf text, rows;
};

static struct str cell_of(const struct import *in, int column)
{
    int at = in->columns[column];

    return at < 0 || (size_t)at >= in->csv.cells_len ? STR("") : str_trim(in->csv.cells[at]);
}

/* Whether the record at hand is headings. */
static bool take_headings(struct import *in)
{
    for (int i = 0; i < COLUMNS; i++) {
        in->columns[i] = -1;
        for (size_t at = 0; at < in->csv.cells_len; at++)
            if (str_eq_nocase(str_trim(in->csv.cells[at]), str_of(column_names[i])))
                in->columns[i] = (int)at;
    }
    if (in->columns[COLUMN_EMAIL] >= 0)
        return true;
    for (int i = 0; i < COLUMNS; i++)
        in->columns[i] = i == COLUMN_EMAIL ? 0 : -1;
    return false;
}

/* With or without a fraction of the second, which is cut. */
static bool parse_since(struct str text, int64_t *ms)
{
    struct tm tm = {0};
    char copy[64], *dot;

    snprintf(copy, sizeof(copy), "%.*s", STR_FMT(text));
    dot = strptime(copy, "%Y-%m-%dT%H:%M:%S", &tm);
    if (dot != NULL && *dot == '.') {
        const char *rest = dot + 1 + strspn(dot + 1, "0123456789");

        memmove(dot, rest, strlen(rest) + 1);
    }
    return quantity_time_ms(copy, ms) == 0;
}

static void skip(struct import *in, const char *why)
{
    if (in->batch.invalid++ < ERRORS_MAX)
        fprintf(stderr, "hayauma %s: line %llu: %s\n", in->batch.o->channel.command,
                (unsigned long long)in->csv.line, why);
}

/* Why the record cannot be asked for, or NULL: all of it is text. A tenant that got lost would mean
 * all of them. */
static const char *refuse_record(const struct import *in)
{
    for (int i = 0; i < COLUMNS; i++) {
        struct str cell = cell_of(in, i);

        if (!is_text(cell))
            return "it is not UTF-8";
        if (cell.len > (i == COLUMN_TENANT ? TENANT_MAX : CELL_MAX))
            return i == COLUMN_TENANT ? "its tenant is too long" : "it is too long";
    }
    return NULL;
}

static void take_record(struct import *in)
{
    struct str since = cell_of(in, COLUMN_SINCE);
    struct row row = {.since_ms = SINCE_UNSAID, .line = in->csv.line};
    const char *refusal = refuse_record(in);

    if (refusal == NULL && since.len > 0 && !parse_since(since, &row.since_ms))
        refusal = "'since' is no time: 2026-11-29T09:00:00Z";
    if (refusal != NULL) {
        skip(in, refusal);
        return;
    }
    for (int i = 0; i < COLUMN_TEXTS; i++) {
        row.cells[i] = in->text.len;
        buf_put_str(&in->text, cell_of(in, i));
        buf_putc(&in->text, '\0');
    }
    buf_put(&in->rows, &row, sizeof(row));
}

static const char *text_of(const struct import *in, const struct row *row, int column)
{
    return (const char *)in->text.data + row->cells[column];
}

/* As the engine's store has them, about: what is changed together is near to each other there. In
 * the order of a file each address would change a page of its own. */
static int by_place(const void *a, const void *b, void *arg)
{
    static const int columns[] = {COLUMN_TENANT, COLUMN_EMAIL};
    const struct row *one = a, *other = b;

    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        int order = strcasecmp(text_of(arg, one, columns[i]), text_of(arg, other, columns[i]));

        if (order != 0)
            return order;
    }
    return one->line < other->line ? -1 : one->line > other->line;
}

static int send_row(struct import *in, const struct row *row)
{
    const char *whose = in->batch.o->tenant, *named = text_of(in, row, COLUMN_TENANT);
    const char *reason = text_of(in, row, COLUMN_REASON);
    struct entry e = {.email = text_of(in, row, COLUMN_EMAIL),
                      .reason = *reason != '\0' ? reason : in->batch.o->reason,
                      .campaign = text_of(in, row, COLUMN_CAMPAIGN),
                      .since_ms = row->since_ms,
                      .line = row->line};

    return batch_add(&in->batch, &e, whose == NULL && *named != '\0' ? named : whose);
}

static int send_rows(struct import *in)
{
    struct row *rows = (struct row *)(void *)in->rows.data;
    size_t len = in->rows.len / sizeof(*rows);
    int code = 0;

    if (len > 0)
        qsort_r(rows, len, sizeof(*rows), by_place, in);
    for (size_t i = 0; i < len && code == 0; i++)
        code = send_row(in, &rows[i]);
    return code;
}

static int import(struct channel *ch, const struct suppress_options *o)
{
    struct import *in = calloc(1, sizeof(*in));
    struct buf text = {0};
    bool first = true;
    int code, got, err = input_read(o->channel.command, o->names[0], &text);

    ASSERT(in != NULL);
    if (err < 0) {
        free(in);
        buf_done(&text);
        return EXIT_FAILED;
    }
    in->batch.ch = ch;
    in->batch.o = o;
    csv_init(&in->csv, buf_str(&text));
    while ((got = csv_next(&in->csv)) != 0) {
        if (got < 0)
            skip(in, in->csv.error);
        else if (!first || !take_headings(in))
            take_record(in);
        first = first && got < 0;
    }
    csv_done(&in->csv);
    buf_done(&text);
    code = end(&in->batch, send_rows(in));
    buf_done(&in->text);
    buf_done(&in->rows);
    free(in);
    return code;
}

/* --- the command line --- */

static const struct action {
    const char *name;
    int (*run)(struct channel *ch, const struct suppress_options *o);
    int names_min, names_max;
    bool reason, limit; /* takes these options */
} actions[] = {{"add", change, 1, 10000, true, false},   {"remove", change, 1, 10000, false, false},
               {"check", check, 1, 10000, false, false}, {"list", list, 0, 0, false, true},
               {"export", list, 0, 0, false, false},     {"import", import, 1, 1, true, false}};

static int usage_error(const struct suppress_options *o, const char *what)
{
    fprintf(stderr, "hayauma %s: %s\n", o->channel.command, what);
    return EXIT_USAGE;
}

static int options_parse(struct suppress_options *o, const struct action *a, int argc, char **argv)
{
    static const struct option longs[] = {CHANNEL_LONG_OPTIONS,
                                          {"reason", required_argument, NULL, OPT_REASON},
                                          {"tenant", required_argument, NULL, OPT_TENANT},
                                          {"limit", required_argument, NULL, OPT_LIMIT},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    char *rest = NULL;
    int c;

    optind = 2;
    while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
        if (channel_option(&o->channel, c))
            continue;
        if (c == OPT_TENANT) {
            o->tenant = optarg;
        } else if (c == OPT_REASON && a->reason) {
            o->reason = optarg;
        } else if (c == OPT_LIMIT && a->limit) {
            o->limit = strtoll(optarg, &rest, 10);
            if (rest == optarg || *rest != '\0' || o->limit <= 0)
                return usage_error(o, "--limit takes a number");
        } else if (c == OPT_REASON || c == OPT_LIMIT) {
            return usage_error(o, c == OPT_REASON ? "--reason is of add and import"
                                                  : "--limit is of list");
        } else {
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? -1 : EXIT_USAGE;
        }
    }
    o->names = argv + optind;
    o->names_len = argc - optind;
    if (o->names_len < a->names_min || o->names_len > a->names_max)
        return usage_error(o, a->names_max == 0   ? "takes no arguments"
                              : a->names_max == 1 ? "takes a FILE, or - for stdin"
                                                  : "takes addresses, 10000 at most");
    return 0;
}

int cmd_suppress(int argc, char **argv)
{
    struct suppress_options o = {0};
    const struct action *action = NULL;
    char command[64];
    struct channel ch;
    struct suggest near;
    int code;

    if (argc < 2 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        fputs(help, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_OK;
    }
    suggest_init(&near, str_of(argv[1]));
    for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
        suggest_offer(&near, actions[i].name);
        if (strcmp(actions[i].name, argv[1]) == 0)
            action = &actions[i];
    }
    if (action == NULL)
        return action_unknown("suppress", &near);
    o.action = action->name;
    snprintf(command, sizeof(command), "suppress %s", action->name);
    o.channel.command = command;
    code = options_parse(&o, action, argc, argv);
    if (code != 0)
        return code < 0 ? EXIT_OK : code;
    code = channel_open(&ch, &o.channel);
    if (code == 0)
        code = action->run(&ch, &o);
    channel_close(&ch);
    return code;
}

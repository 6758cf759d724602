#include "tools/commands/queue_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/clock.h"
#include "dns/name.h"
#include "tools/commands/commands.h"
#include "tools/commands/queue_export.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

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
            reply_print(value);
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

    put_counted(&text, (uint64_t)reply_number(done, "matched"), what);
    buf_puts(&text, json_is_true(json_object_get(done, "truncated"))
                        ? " seen; --limit stopped there\n"
                        : "\n");
    flush_text(&text, stderr);
    buf_done(&text);
}

/* What op says, line by line, and how many there were. */
static int view(struct channel *ch, const struct queue_options *o, const char *op, const char *name,
                void (*print)(const struct queue_options *o, const json_t *value), const char *what)
{
    json_t *done = NULL;
    int code = each(ch, queue_request(o, op), name, print, o, &done);

    if (code == 0 && !o->channel.json)
        print_total(done, what);
    json_decref(done);
    return code;
}

/* --- list --- */

#define ID_COLUMNS   32
#define LIST_COLUMNS (ID_COLUMNS + 22) /* in front of the recipient */
#define WIDE_COLUMNS 120 /* a screen so wide shows what holds a row in the row's line */

/* in: what stands in front of a time, "" or "in ". */
static void put_due(struct buf *out, const char *in, const json_t *row)
{
    int64_t due_ms = reply_number(row, "due_ms"), until_ms = wait_until_ms(row);
    int64_t now_ms = clock_wall_ms();

    if (until_ms > due_ms)
        due_ms = until_ms;
    if (strcmp(reply_text(row, "state"), "held") == 0) {
        buf_puts(out, "held");
    } else if (due_ms > now_ms) {
        buf_puts(out, in);
        put_age(out, due_ms - now_ms);
    } else {
        buf_puts(out, wait_holds(row) ? "waits" : "now");
    }
}

/* Columns of the recipient: a pipe gets all of it, a terminal what it has room for. */
static unsigned recipient_columns(unsigned width)
{
    if (width == 0)
        return 0;
    if (width < WIDE_COLUMNS)
        return width > LIST_COLUMNS + 10 ? width - LIST_COLUMNS : 10;
    return 28 + (width - WIDE_COLUMNS) / 4;
}

static void list_head(void)
{
    unsigned width = screen_width();

    printf("%-*s %6s %6s %5s %-*s %s\n", ID_COLUMNS, "MESSAGE", "AGE", "NEXT", "TRIES",
           (int)(width == 0             ? 28
                 : width < WIDE_COLUMNS ? 9
                                        : recipient_columns(width)),
           "RECIPIENT", "WHY");
}

/* What holds the row, behind it or, on a narrow screen, below it. */
static void put_why(struct buf *line, const json_t *row, unsigned width, unsigned used)
{
    size_t from;

    if (width != 0 && width < WIDE_COLUMNS) {
        buf_puts(line, "\n  ");
        from = line->len;
        put_wait(line, row, clock_wall_ms(), width - 2);
        if (line->len == from) /* nothing to say */
            line->len -= 3;
    } else {
        buf_putc(line, ' ');
        put_wait(line, row, clock_wall_ms(), width == 0 ? 0 : width - used - 1);
    }
}

static void print_row(const struct queue_options *o, const json_t *row)
{
    unsigned width = screen_width(), columns = recipient_columns(width);
    struct buf line = {0};
    size_t from;

    (void)o;
    buf_printf(&line, "%-*.32s ", ID_COLUMNS, reply_text(row, "id"));
    from = line.len;
    put_age(&line, clock_wall_ms() - reply_number(row, "created_ms"));
    pad_from(&line, from, 6, true);
    buf_putc(&line, ' ');
    from = line.len;
    put_due(&line, "", row);
    pad_from(&line, from, 6, true);
    buf_printf(&line, " %5lld ", reply_number(row, "attempts"));
    from = line.len;
    put_text(&line, reply_text(row, "recipient"), columns, false);
    if (width == 0 || width >= WIDE_COLUMNS)
        pad_from(&line, from, columns == 0 ? 28 : columns, false);
    put_why(&line, row, width, LIST_COLUMNS + columns);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

int queue_view_list(struct channel *ch, struct queue_options *o)
{
    if (!o->channel.json)
        list_head();
    return view(ch, o, "list", "row", print_row, "recipient");
}

/* --- summary --- */

static const struct {
    const char *title, *name;
    bool waiting; /* only of those that something holds, or nothing */
} counts[] = {{"RECIPIENTS", "rows", false},
              {"READY", "ready", false},
              {"WAITING", "ready", true},
              {"DEFERRED", "deferred", false},
              {"HELD", "held", false}};

#define COUNTS_COLUMNS ((unsigned)ARRAY_LEN(counts) * 11)

static unsigned name_columns(unsigned width)
{
    if (width == 0)
        return 30;
    if (width < WIDE_COLUMNS)
        return width > COUNTS_COLUMNS + 10 ? width - COUNTS_COLUMNS : 10;
    return 30 + (width - WIDE_COLUMNS) / 4;
}

static void summary_head(void)
{
    unsigned width = screen_width();

    printf("%-*s", (int)name_columns(width), "QUEUE");
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        printf(" %10s", counts[i].title);
    puts(width == 0 || width >= WIDE_COLUMNS ? " WHY" : "");
}

static void print_group(const struct queue_options *o, const json_t *queue)
{
    unsigned width = screen_width();
    struct buf line = {0};
    char *name = dns_name_readable(reply_text(queue, "queue"));

    (void)o;
    put_column(&line, name, name_columns(width));
    free(name);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        bool ready = strcmp(counts[i].name, "ready") == 0;
        bool none = ready && counts[i].waiting != wait_holds(queue);
        size_t from;

        buf_putc(&line, ' ');
        from = line.len;
        put_count(&line, none ? 0 : (uint64_t)reply_number(queue, counts[i].name));
        pad_from(&line, from, 10, true);
    }
    put_why(&line, queue, width, name_columns(width) + COUNTS_COLUMNS);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

int queue_view_summary(struct channel *ch, struct queue_options *o)
{
    if (!o->channel.json)
        summary_head();
    return view(ch, o, "summary", "queue", print_group, "recipient");
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
    print_field("client", reply_text(m, "origin"));
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
        put_due(&line, "in ", row);
        buf_puts(&line, ", ");
    }
    put_counted(&line, (uint64_t)reply_number(row, "attempts"), "attempt");
    clock_rfc3339(reply_number(row, "expires_ms"), expires);
    buf_printf(&line, ", expires %s", expires);
    if (wait_holds(row)) {
        buf_puts(&line, "\n   waits: ");
        put_wait_whole(&line, row, clock_wall_ms());
    }
    if (*reply_text(row, "last_error") != 0) {
        buf_puts(&line, "\n   last attempt: ");
        put_text(&line, reply_text(row, "last_error"), 0, false);
    }
    buf_putc(&line, '\n');
    fold_text(&line, screen_width(), 3);
    flush_text(&line, stdout);
    buf_done(&line);
}

int queue_view_show(struct channel *ch, struct queue_options *o)
{
    int code;
    json_t *reply;

    ASSERT(o->one_id != NULL); /* check_show() in cmd_queue.c */
    code = channel_send(ch, json_pack("{s:s, s:s}", "op", "show", "id", o->one_id));
    if (code != 0)
        return code;
    while ((reply = channel_next(ch, NULL, &code)) != NULL) {
        if (o->channel.json)
            reply_print(reply);
        else if (json_object_get(reply, "message") != NULL)
            print_message(json_object_get(reply, "message"));
        else if (json_object_get(reply, "row") != NULL)
            print_recipient(json_object_get(reply, "row"));
        json_decref(reply);
    }
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

int queue_view_quarantine(struct channel *ch, struct queue_options *o)
{
    return view(ch, o, "quarantine", "quarantined", print_quarantined, "damaged record");
}

/* As hexdump -C. */
static void print_bytes(const char *name, const char *base64)
{
    struct buf bytes = {0};

    (void)!base64_decode(&bytes, str_of(base64)); /* what is none has 0 bytes */
    printf("%s, %zu bytes\n", name, bytes.len);
    for (size_t at = 0; at < bytes.len; at += 16) {
        printf("  %06zx ", at);
        for (size_t i = at; i < at + 16; i++)
            i < bytes.len ? printf(" %02x", bytes.data[i]) : printf("   ");
        fputs("  ", stdout);
        for (size_t i = at; i < at + 16 && i < bytes.len; i++)
            putchar(bytes.data[i] >= ' ' && bytes.data[i] < 127 ? bytes.data[i] : '.');
        putchar('\n');
    }
    buf_done(&bytes);
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

int queue_view_quarantine_show(struct channel *ch, struct queue_options *o)
{
    json_t *request = queue_request(o, "quarantine");

    json_object_set_new(request, "data", json_true());
    return each(ch, request, "quarantined", print_quarantined_all, o, NULL);
}

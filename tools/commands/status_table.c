#include "tools/commands/status_table.h"

#include <stdlib.h>
#include <string.h>

#include "dns/name.h"
#include "tools/commands/channel.h"
#include "tools/commands/screen.h"
#include "tools/commands/wait_text.h"

static uint64_t number(const json_t *status, const char *group, const char *name)
{
    long long v = reply_number(json_object_get(status, group), name);

    return v < 0 ? 0 : (uint64_t)v;
}

#define TOTAL_COLUMNS 15
#define WIDE_COLUMNS  100 /* from here on nothing is left out of the list */

struct frame {
    const json_t *before, *now;
    double seconds; /* between the two; 0 = no rates */
    unsigned width; /* 0: no limit */
    struct buf *out;
};

static double rate(const struct frame *f, const char *group, const char *name)
{
    uint64_t a, b;

    if (f->seconds <= 0)
        return 0;
    a = number(f->before, group, name);
    b = number(f->now, group, name);
    return b < a ? 0 : (double)(b - a) / f->seconds; /* it was restarted */
}

static void put_rate(const struct frame *f, double v)
{
    size_t from = f->out->len;

    if (f->seconds <= 0)
        buf_puts(f->out, "-");
    else if (v >= 1000 || v == 0)
        put_short_count(f->out, (uint64_t)(v + 0.5));
    else
        buf_printf(f->out, v < 10 ? "%.1f" : "%.0f", v);
    pad_from(f->out, from, 9, true);
}

static void counter_line(const struct frame *f, const char *label, const char *name)
{
    size_t from;

    buf_printf(f->out, "  %-12s", label);
    put_rate(f, rate(f, "counters", name));
    from = f->out->len;
    put_count(f->out, number(f->now, "counters", name));
    pad_from(f->out, from, TOTAL_COLUMNS, true);
}

/* Text of parts that are separated by ", ", on as many lines as the width makes of it. */
static void put_folded(const struct frame *f, const struct buf *text)
{
    const char *at = (const char *)text->data, *end = at + text->len;
    size_t used = 0;

    while (at < end) {
        const char *comma = memmem(at, (size_t)(end - at), ", ", 2);
        size_t len = comma == NULL ? (size_t)(end - at) : (size_t)(comma - at) + 1;

        if (f->width != 0 && used != 0 && used + 1 + len > f->width) {
            buf_puts(f->out, "\n         ");
            used = 9;
        }
        if (used != 0)
            buf_putc(f->out, ' ');
        buf_put(f->out, at, len);
        used += len + (used != 0);
        at += len + (comma != NULL);
    }
    buf_putc(f->out, '\n');
}

static void put_head(const struct frame *f)
{
    struct buf text = {0};

    buf_printf(&text, "hayauma %s on ", reply_text(f->now, "version"));
    put_text(&text, reply_text(f->now, "node_id"), 0, false);
    buf_printf(&text, ", pid %lld, up ", reply_number(f->now, "pid"));
    put_age(&text, reply_number(f->now, "now_ms") - reply_number(f->now, "started_ms"));
    buf_printf(&text, ", workers %lld, shards %lld", reply_number(f->now, "workers"),
               reply_number(f->now, "shards"));
    put_folded(f, &text);
    buf_done(&text);
    if (json_is_true(json_object_get(f->now, "draining")))
        buf_puts(f->out, "DRAINING: no new sessions; what is under way is finished\n");
}

static void put_intake(const struct frame *f)
{
    const char *intake = reply_text(f->now, "intake");

    if (strcmp(intake, "map_full") == 0)
        buf_puts(f->out,
                 "INTAKE REFUSED: a shard's map is full; raise queue.map_size and restart\n");
    else if (strcmp(intake, "disk_full") == 0)
        buf_puts(f->out,
                 "INTAKE REFUSED: less than 64 MiB free for the queue; make room, it resumes\n");
    else if (strcmp(intake, "failed") == 0)
        buf_puts(f->out, "INTAKE REFUSED: the store failed; see the log\n");
}

/* Two columns of counters: what came and what became of it. */
static void put_counters(const struct frame *f)
{
    static const char *const lines[][4] = {
        {"received", "received_messages", "delivered", "delivered"},
        {"recipients", "received_recipients", "deferred", "deferred"},
        {"rejected", "rejected", "bounced", "failed"},
        {"sessions", "sessions_in_total", "expired", "expired"},
        {"notices", "notices", "sessions", "sessions_out_total"},
    };

    buf_printf(f->out, "\n  %-12s%9s%*s  %-12s%9s%*s\n", "IN", "per s", TOTAL_COLUMNS, "total",
               "  OUT", "per s", TOTAL_COLUMNS, "total");
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        counter_line(f, lines[i][0], lines[i][1]);
        buf_puts(f->out, "  ");
        counter_line(f, lines[i][2], lines[i][3]);
        buf_putc(f->out, '\n');
    }
}

static void put_queue(const struct frame *f)
{
    uint64_t map = number(f->now, "queue", "map_bytes");
    uint64_t used = number(f->now, "queue", "map_used_bytes");
    uint64_t reusable = number(f->now, "queue", "map_reusable_bytes");
    uint64_t rows = number(f->now, "queue", "rows"), messages = number(f->now, "queue", "messages");
    struct buf text = {0}, *out = &text;

    buf_puts(out, "queue     ");
    put_counted(out, rows, "recipient");
    if (json_is_false(json_object_get(json_object_get(f->now, "queue"), "rows_complete")))
        buf_puts(out, " (still counting)");
    buf_puts(out, ", ");
    put_counted(out, messages, "message");
    buf_puts(out, ", ");
    put_size(out, used > reusable ? used - reusable : 0);
    if (map != 0)
        buf_printf(out, " (%.0f%% of the map)",
                   100.0 * (double)(used > reusable ? used - reusable : 0) / (double)map);
    buf_puts(out, ", disk free ");
    put_size(out, number(f->now, "queue", "disk_free_bytes"));
    if (number(f->now, "queue", "quarantined") != 0)
        buf_printf(out, ", %llu QUARANTINED",
                   (unsigned long long)number(f->now, "queue", "quarantined"));
    if (number(f->now, "queue", "commit_errors") != 0)
        buf_printf(out, ", %llu COMMIT ERRORS",
                   (unsigned long long)number(f->now, "queue", "commit_errors"));
    buf_putc(f->out, '\n');
    put_folded(f, out);
    buf_done(out);
}

static void put_commits(const struct frame *f, struct buf *out)
{
    double commits = rate(f, "queue", "commits");

    if (commits <= 0)
        return;
    buf_printf(out, ", %.0f commits/s of %.1f ms", commits,
               rate(f, "queue", "commit_ns_total") / commits / 1e6);
}

static void put_sessions(const struct frame *f)
{
    struct buf text = {0}, *out = &text;

    buf_puts(out, "sessions  ");
    put_count(out, number(f->now, "gauges", "sessions_in"));
    buf_puts(out, " in, ");
    put_count(out, number(f->now, "gauges", "sessions_out"));
    buf_puts(out, " out (");
    put_count(out, number(f->now, "gauges", "connecting"));
    buf_puts(out, " connecting; ");
    put_count(out, number(f->now, "counters", "connect_failures"));
    buf_puts(out, " connects failed), ");
    put_counted(out, number(f->now, "gauges", "in_memory"), "recipient");
    buf_puts(out, " in memory");
    if (number(f->now, "gauges", "lanes_absent") > 0) {
        buf_puts(out, ", ");
        put_count(out, number(f->now, "gauges", "lanes_absent"));
        buf_puts(out, " queues in the store alone");
    }
    put_commits(f, out);
    put_folded(f, out);
    buf_done(out);
}

static void put_process(const struct frame *f)
{
    struct buf *out = f->out;

    buf_puts(out, "process   ");
    put_size(out, number(f->now, "process", "rss_bytes"));
    buf_puts(out, " resident");
    if (f->seconds > 0)
        buf_printf(out, ", %.0f%% of a core", rate(f, "process", "cpu_us") / 1e4);
    buf_putc(out, '\n');
}

static void put_right(struct buf *out, uint64_t v, unsigned columns)
{
    size_t from;

    buf_putc(out, ' ');
    from = out->len;
    put_short_count(out, v);
    pad_from(out, from, columns, true);
}

static void put_destination(const struct frame *f, const json_t *d, unsigned name_columns)
{
    static const struct {
        const char *name;
        unsigned columns;
    } numbers[] = {{"rows", 8}, {"in_memory", 6}, {"in_flight", 6}, {"sessions", 6}};
    char *name = dns_name_readable(reply_text(d, "queue"));
    bool narrow = f->width != 0 && f->width < WIDE_COLUMNS;
    unsigned used = name_columns + 1;
    size_t from;

    from = f->out->len;
    put_text(f->out, name, f->width == 0 ? 0 : name_columns, false); /* a pipe gets all of it */
    pad_from(f->out, from, name_columns, false);
    free(name);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (narrow && strcmp(numbers[i].name, "in_memory") == 0)
            continue;
        put_right(f->out, (uint64_t)reply_number(d, numbers[i].name), numbers[i].columns);
        used += 1 + numbers[i].columns;
    }
    buf_putc(f->out, ' ');
    put_wait(f->out, d, reply_number(f->now, "now_ms"),
             f->width == 0         ? 0
             : f->width > used + 8 ? f->width - used
                                   : 8);
    buf_putc(f->out, '\n');
}

static void put_destinations(const struct frame *f, unsigned max)
{
    const json_t *list = json_object_get(f->now, "destinations"), *d;
    bool narrow = f->width != 0 && f->width < WIDE_COLUMNS;
    unsigned name_columns = narrow ? 22 : 28;
    size_t i;

    if (max == 0)
        return;
    if (f->width >= WIDE_COLUMNS)
        name_columns += (f->width - WIDE_COLUMNS) / 4;
    buf_printf(f->out, "\n%-*s %8s%s %6s %6s WHY\n", (int)name_columns, "DESTINATION", "WAITING",
               narrow ? "" : " MEMORY", "FLIGHT", "SESS");
    json_array_foreach(list, i, d)
    {
        if (i == max)
            break;
        put_destination(f, d, name_columns);
    }
    if (json_array_size(list) == 0)
        buf_puts(f->out, number(f->now, "queue", "rows") == 0 ? "nothing waits\n"
                                                              : "no destination is known yet\n");
}

void status_table(const json_t *before, const json_t *now, unsigned width, unsigned destinations,
                  struct buf *out)
{
    struct frame f = {.before = before, .now = now, .width = width, .out = out};

    if (before != NULL && reply_number(before, "started_ms") == reply_number(now, "started_ms"))
        f.seconds = (double)(reply_number(now, "now_ms") - reply_number(before, "now_ms")) / 1e3;
    put_head(&f);
    put_intake(&f);
    put_counters(&f);
    put_queue(&f);
    put_sessions(&f);
    put_process(&f);
    put_destinations(&f, destinations);
}

#include "tools/commands/warmup_print.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "tools/commands/channel.h"
#include "tools/commands/screen.h"

#define BAR_COLUMNS    10
#define SOURCE_COLUMNS 24 /* signer:news.example.com */
/* Of a plan: what stands in front of the providers, each of these, and the plot. */
#define FRONT_COLUMNS    26
#define PROVIDER_COLUMNS 14
#define PROVIDER_MIN     7 /* "no cap", "1,234" and a blank */
#define PLOT_COLUMNS     30
#define PLOT_MIN         10
#define PLOT_MAX         60

static void put_cap(struct buf *out, const json_t *object, const char *name)
{
    size_t from = out->len;

    if (json_is_integer(json_object_get(object, name)))
        put_short_count(out, (uint64_t)reply_number(object, name));
    else
        buf_puts(out, "no cap");
    pad_from(out, from, 7, true);
    buf_putc(out, ' ');
}

static void put_number(struct buf *out, uint64_t v, unsigned columns)
{
    size_t from = out->len;

    put_short_count(out, v);
    pad_from(out, from, columns, true);
    buf_putc(out, ' ');
}

static void put_name(struct buf *out, const json_t *object, const char *name, unsigned columns)
{
    put_text(out, reply_text(object, name), columns, true);
    buf_putc(out, ' ');
}

/* "; today 3 deferred, 2 complaints": what may keep the stage from the next one. */
static void put_signs(struct buf *out, const json_t *o)
{
    static const char *const signs[] = {"deferred", "bounced", "complained"};
    static const char *const words[] = {"deferred", "bounced", "complaint"};
    const char *before = "; today ";

    for (size_t i = 0; i < ARRAY_LEN(signs); i++) {
        if (reply_number(o, signs[i]) == 0)
            continue;
        buf_puts(out, before);
        put_short_count(out, (uint64_t)reply_number(o, signs[i]));
        buf_printf(out, " %s%s", words[i],
                   strcmp(words[i], "complaint") == 0 && reply_number(o, signs[i]) != 1 ? "s" : "");
        before = ", ";
    }
}

/* "####......": part of whole. */
static void put_bar(struct buf *out, uint64_t part, uint64_t whole, unsigned columns)
{
    uint64_t filled = whole == 0 ? 0 : part * columns / whole;

    for (unsigned i = 0; i < columns; i++)
        buf_putc(out, i < filled ? '#' : '.');
    buf_putc(out, ' ');
}

static void put_stage(struct buf *out, const json_t *o)
{
    size_t from = out->len;

    buf_printf(out, "%lld/%lld", reply_number(o, "stage"), reply_number(o, "stages"));
    pad_from(out, from, 6, true);
    buf_putc(out, ' ');
}

void warmup_print_stream(const json_t *o, bool first)
{
    bool has_cap = json_is_integer(json_object_get(o, "cap"));
    int64_t now_ms = clock_wall_ms(), next_ms = reply_number(o, "next_ms");
    struct buf line = {0};

    if (first)
        buf_printf(&line, "%-24s %-14s %6s %7s %7s %-10s %13s %7s %s\n", "SOURCE", "PROVIDER",
                   "STAGE", "CAP", "USED", "TODAY", "THIS HOUR", "NEXT", "WHY");
    put_name(&line, o, "source", SOURCE_COLUMNS);
    put_name(&line, o, "provider", 14);
    put_stage(&line, o);
    put_cap(&line, o, "cap");
    put_number(&line, (uint64_t)reply_number(o, "used"), 7);
    put_bar(&line, has_cap ? (uint64_t)reply_number(o, "used") : 0,
            (uint64_t)reply_number(o, "cap"), BAR_COLUMNS);
    if (has_cap) {
        size_t from = line.len;

        put_short_count(&line, (uint64_t)reply_number(o, "hour_used"));
        buf_puts(&line, " of ");
        put_short_count(&line, (uint64_t)reply_number(o, "hour_share"));
        pad_from(&line, from, 13, true);
        buf_putc(&line, ' ');
    } else {
        buf_printf(&line, "%13s ", "");
    }
    put_cap(&line, o, "next_cap");
    put_text(&line, reply_text(o, "why"), 0, false);
    if (json_is_true(json_object_get(o, "paused")))
        buf_puts(&line, "; paused");
    put_signs(&line, o);
    if (has_cap && json_object_get(o, "begins") == NULL) {
        buf_puts(&line, "; next stage in ");
        put_age(&line, reply_number(o, "day_ends_ms") - now_ms);
        buf_puts(&line, " at the earliest");
    }
    if (json_object_get(o, "begins") != NULL) {
        buf_printf(&line, "; begins on %s", reply_text(o, "begins"));
    } else if (next_ms > now_ms) {
        buf_puts(&line, "; next hour's share in ");
        put_age(&line, next_ms - now_ms);
    }
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

void warmup_print_past(const json_t *o, bool first)
{
    struct buf line = {0};

    if (first)
        buf_printf(&line, "%-10s %-24s %-14s %5s %7s %7s %-10s %9s %8s %7s %10s %s\n", "DAY",
                   "SOURCE", "PROVIDER", "STAGE", "CAP", "USED", "", "DELIVERED", "DEFERRED",
                   "BOUNCED", "COMPLAINED", "WHAT FOLLOWED");
    buf_printf(&line, "%s ", reply_text(o, "day"));
    put_name(&line, o, "source", SOURCE_COLUMNS);
    put_name(&line, o, "provider", 14);
    put_number(&line, (uint64_t)reply_number(o, "stage"), 5);
    put_cap(&line, o, "cap");
    put_number(&line, (uint64_t)reply_number(o, "used"), 7);
    put_bar(&line, (uint64_t)reply_number(o, "used"), (uint64_t)reply_number(o, "cap"),
            BAR_COLUMNS);
    put_number(&line, (uint64_t)reply_number(o, "delivered"), 9);
    put_number(&line, (uint64_t)reply_number(o, "deferred"), 8);
    put_number(&line, (uint64_t)reply_number(o, "bounced"), 7);
    put_number(&line, (uint64_t)reply_number(o, "complained"), 10);
    put_text(&line, reply_text(o, "why"), 0, false);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

/* --- the plan --- */

struct printing {
    const struct plan *plan;
    uint64_t volume;
    uint64_t low, high;     /* of days with mail: one column of the plot, and all of it */
    uint32_t reached, days; /* days: printed; reached: volume, on this one */
    int32_t reached_on, last;
    unsigned wide, plot;   /* columns of a provider, and of the plot */
    bool json, sent, held; /* held: some cap stays for ever */
};

/* A line of the plan is no longer than one of the terminal, as far as numbers have room. */
static void choose_columns(struct printing *p, unsigned width)
{
    unsigned len = (unsigned)p->plan->mix_len, used;

    p->wide = PROVIDER_COLUMNS;
    p->plot = PLOT_COLUMNS;
    if (width == 0) /* no terminal */
        return;
    while (p->wide > PROVIDER_MIN && FRONT_COLUMNS + len * (p->wide + 1) + PLOT_MIN > width)
        p->wide--;
    used = FRONT_COLUMNS + len * (p->wide + 1);
    p->plot = width < used + PLOT_MIN ? 0 : width - used < PLOT_MAX ? width - used : PLOT_MAX;
}

/* What a day's line is about. */
static uint64_t shown(const struct printing *p, const struct plan_day *d)
{
    return p->plan->list != 0 ? d->sent : d->most;
}

static bool measure(void *arg, const struct plan_day *d)
{
    struct printing *p = arg;
    uint64_t v = shown(p, d);

    if (v == 0 || v == UINT64_MAX)
        return true;
    p->high = v > p->high ? v : p->high;
    p->low = p->low == 0 || v < p->low ? v : p->low;
    return true;
}

/* On a logarithmic scale: volumes grow by factors. */
static void put_plot(struct buf *out, uint64_t v, const struct printing *p)
{
    unsigned columns = v == 0 ? 0 : p->plot;

    if (v != 0 && v < p->high && p->plot > 0)
        columns = 1 + (unsigned)(log((double)v / (double)p->low) /
                                 log((double)p->high / (double)p->low) * (p->plot - 1));
    for (unsigned i = 0; i < columns; i++)
        buf_putc(out, '#');
}

static void put_most(struct buf *out, uint64_t v, unsigned columns)
{
    size_t from = out->len;

    if (v == UINT64_MAX)
        buf_puts(out, "no cap");
    else
        put_short_count(out, v);
    pad_from(out, from, columns, true);
    buf_putc(out, ' ');
}

/* The names of providers, and below them their parts. */
static void print_head(const struct printing *p)
{
    const struct plan *plan = p->plan;
    struct buf line = {0};

    buf_printf(&line, "%4s %-10s %9s ", "DAY", "DATE", plan->list != 0 ? "SENT" : "A DAY");
    for (size_t m = 0; m < plan->mix_len; m++)
        buf_printf(&line, "%*.*s ", (int)p->wide, (int)p->wide, plan->mix[m].provider);
    buf_printf(&line, "\n%*s", FRONT_COLUMNS, "");
    for (size_t m = 0; m < plan->mix_len; m++)
        buf_printf(&line, "%*u%% ", (int)p->wide - 1, plan->mix[m].percent);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static void print_text(const struct printing *p, const struct plan_day *d)
{
    char day[DAY_TEXT_BYTES];
    struct buf line = {0};

    if (d->number == 1)
        print_head(p);
    buf_printf(&line, "%4u %s ", d->number, day_text(d->day, day));
    put_most(&line, shown(p, d), 9);
    for (size_t m = 0; m < p->plan->mix_len; m++)
        put_most(&line, d->caps[m], p->wide);
    put_plot(&line, shown(p, d), p);
    buf_putc(&line, '\n');
    flush_text(&line, stdout);
    buf_done(&line);
}

static void json_most(struct buf *out, const char *name, uint64_t v)
{
    if (v == UINT64_MAX)
        buf_printf(out, ",\"%s\":null", name);
    else
        buf_printf(out, ",\"%s\":%llu", name, (unsigned long long)v);
}

static void print_json(const struct printing *p, const struct plan_day *d)
{
    char day[DAY_TEXT_BYTES];
    struct buf line = {0};

    buf_printf(&line, "{\"number\":%u,\"day\":\"%s\"", d->number, day_text(d->day, day));
    json_most(&line, "most", d->most);
    if (p->plan->list != 0) {
        json_most(&line, "sent", d->sent);
        json_most(&line, "left", d->left);
    }
    buf_puts(&line, ",\"caps\":{");
    for (size_t m = 0; m < p->plan->mix_len; m++) {
        struct buf one = {0};

        json_most(&one, p->plan->mix[m].provider, d->caps[m]);
        buf_put(&line, one.data + (m == 0), one.len - (m == 0));
        buf_done(&one);
    }
    buf_puts(&line, "}}\n");
    flush_text(&line, stdout);
    buf_done(&line);
}

static bool print_day(void *arg, const struct plan_day *d)
{
    struct printing *p = arg;

    if (p->json)
        print_json(p, d);
    else
        print_text(p, d);
    p->days = d->number;
    p->last = d->day;
    p->sent = d->left == 0;
    p->held = p->plan->list == 0 && d->most != UINT64_MAX && d->number < PLAN_DAYS_MAX;
    if (p->reached == 0 && p->volume != 0 && d->most >= p->volume) {
        p->reached = d->number;
        p->reached_on = d->day;
    }
    return true;
}

static void print_forecast(const struct printing *p)
{
    char day[DAY_TEXT_BYTES];
    struct buf line = {0};

    if (p->plan->list != 0) {
        put_count(&line, p->plan->list);
        if (p->sent)
            buf_printf(&line, " recipients take %u days, until %s\n", p->days,
                       day_text(p->last, day));
        else
            buf_printf(&line, " recipients take more than %u days\n", p->days);
    }
    if (p->held)
        buf_printf(&line,
                   "no cap changes behind day %u: a pause or 'promote: no' keeps the rest in its "
                   "stage\n",
                   p->days);
    if (p->volume != 0) {
        put_count(&line, p->volume);
        if (p->reached != 0)
            buf_printf(&line, " a day are reached on day %u, %s\n", p->reached,
                       day_text(p->reached_on, day));
        else if (p->held)
            buf_puts(&line, " a day are never reached\n");
        else
            buf_printf(&line, " a day are not reached in %u days\n", p->days);
    }
    flush_text(&line, stdout);
    buf_done(&line);
}

int warmup_print_plan(const struct plan *plan, uint64_t volume, bool json)
{
    struct printing p = {.plan = plan, .volume = volume, .json = json};
    char day[DAY_TEXT_BYTES];
    int err = plan_run(plan, measure, &p);

    choose_columns(&p, screen_width());
    if (err == 0)
        err = plan_run(plan, print_day, &p);
    if (err < 0)
        return err;
    if (!json) {
        print_forecast(&p);
        return 0;
    }
    printf("{\"forecast\":{\"days\":%u", p.days);
    if (plan->list != 0)
        printf(",\"list\":%llu,\"sent\":%s", (unsigned long long)plan->list,
               p.sent ? "true" : "false");
    if (volume != 0)
        printf(",\"volume\":%llu,\"reached\":%s%s%s", (unsigned long long)volume,
               p.reached != 0 ? "\"" : "null", p.reached != 0 ? day_text(p.reached_on, day) : "",
               p.reached != 0 ? "\"" : "");
    puts("}}");
    return 0;
}

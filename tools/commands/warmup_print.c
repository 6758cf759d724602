#include "tools/commands/warmup_print.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "tools/commands/channel.h"
#include "tools/commands/screen.h"

/* What a line of a stream, or of a day, is at its narrowest; what a wide screen adds goes to names,
 * to bars, and to the sentence at the end, which else stands below the line. */
#define NARROW_COLUMNS 80
#define WIDE_COLUMNS   180
#define COUNT_COLUMNS  6  /* "no cap", put_short_count() */
#define HOUR_COLUMNS   14 /* "1,234 of 1,234" */
/* Of a plan: what stands in front of the providers, each of these, and the plot. */
#define FRONT_COLUMNS    26
#define PROVIDER_COLUMNS 14
#define PROVIDER_MIN     7 /* "no cap", "1,234" and a blank */
#define PLOT_COLUMNS     30
#define PLOT_MIN         10
#define PLOT_MAX         60

/* Columns of the names, and of bars. A pipe gets names as on a wide screen. */
struct columns {
    unsigned width; /* of the screen; 0: a pipe */
    unsigned source, provider, bar;
};

static struct columns columns_of(unsigned width)
{
    bool narrow = width != 0 && width < NARROW_COLUMNS + 15;

    return (struct columns){.width = width,
                            .source = narrow ? 16 : 24,   /* signer:news.example.com */
                            .provider = narrow ? 12 : 14, /* yahoo_japan */
                            .bar = narrow ? 7 : 10};
}

static bool has_room(const struct columns *c)
{
    return c->width == 0 || c->width >= WIDE_COLUMNS;
}

static void put_cap(struct buf *out, const json_t *object, const char *name)
{
    size_t from = out->len;

    if (json_is_integer(json_object_get(object, name)))
        put_short_count(out, (uint64_t)reply_number(object, name));
    else
        buf_puts(out, "no cap");
    pad_from(out, from, COUNT_COLUMNS, true);
    buf_putc(out, ' ');
}

static void put_number(struct buf *out, uint64_t v, unsigned columns)
{
    size_t from = out->len;

    put_short_count(out, v);
    pad_from(out, from, columns, true);
    buf_putc(out, ' ');
}

static void put_names(struct buf *out, const json_t *object, const struct columns *c)
{
    put_text(out, reply_text(object, "source"), c->source, true);
    buf_putc(out, ' ');
    put_text(out, reply_text(object, "provider"), c->provider, true);
    buf_putc(out, ' ');
}

/* "3 deferred, 2 complaints" behind before; nothing where there were none. */
static void put_signs(struct buf *out, const json_t *o, const char *before)
{
    static const char *const signs[] = {"deferred", "bounced", "complained"};
    static const char *const words[] = {"deferred", "bounced", "complaint"};

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

/* "####....": part of whole. */
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

/* Puts the sentence of the line that begins at from: at the line's end where the screen has room,
 * else below the line. */
static void put_sentence(struct buf *out, size_t from, struct buf *text, const struct columns *c)
{
    struct str rest;

    if (has_room(c) && (c->width == 0 || out->len - from + text->len <= c->width)) {
        buf_put(out, text->data, text->len);
        buf_putc(out, '\n');
        return;
    }
    out->len -= out->len > from && out->data[out->len - 1] == ' ';
    fold_text(text, c->width - 2, 0);
    for (rest = buf_str(text); rest.len > 0;) {
        struct str line = str_take(&rest, '\n');

        buf_printf(out, "\n  %.*s", STR_FMT(line));
    }
    buf_putc(out, '\n');
}

/* Why the stream is in its stage, and what comes when. */
static void put_why(struct buf *out, const json_t *o)
{
    int64_t now_ms = clock_wall_ms(), next_ms = reply_number(o, "next_ms");
    const json_t *cap = json_object_get(o, "cap");

    put_text(out, reply_text(o, "why"), 0, false);
    if (json_is_true(json_object_get(o, "paused")))
        buf_puts(out, "; paused");
    put_signs(out, o, "; today ");
    if (json_is_integer(cap) && json_equal(cap, json_object_get(o, "next_cap"))) {
        buf_puts(out, "; stays in this stage");
    } else if (json_is_integer(cap) && json_object_get(o, "begins") == NULL) {
        buf_puts(out, "; next stage in ");
        put_age(out, reply_number(o, "day_ends_ms") - now_ms);
        buf_puts(out, " at the earliest");
    }
    if (json_object_get(o, "begins") != NULL) {
        buf_printf(out, "; begins on %s", reply_text(o, "begins"));
    } else if (next_ms > now_ms) {
        buf_puts(out, "; next hour's share in ");
        put_age(out, next_ms - now_ms);
    }
}

static void put_hour(struct buf *out, const json_t *o)
{
    size_t from = out->len;

    if (json_is_integer(json_object_get(o, "cap"))) {
        put_short_count(out, (uint64_t)reply_number(o, "hour_used"));
        buf_puts(out, " of ");
        put_short_count(out, (uint64_t)reply_number(o, "hour_share"));
    }
    pad_from(out, from, HOUR_COLUMNS, true);
    buf_putc(out, ' ');
}

void warmup_put_stream(struct buf *out, const json_t *o, bool first, unsigned width)
{
    struct columns c = columns_of(width);
    struct buf why = {0};
    size_t from;

    if (first)
        buf_printf(out, "%-*s %-*s %6s %*s %*s %-*s %*s %*s%s\n", (int)c.source, "SOURCE",
                   (int)c.provider, "PROVIDER", "STAGE", COUNT_COLUMNS, "CAP", COUNT_COLUMNS,
                   "USED", (int)c.bar, "TODAY", HOUR_COLUMNS, "THIS HOUR", COUNT_COLUMNS, "NEXT",
                   has_room(&c) ? " WHY" : "");
    from = out->len;
    put_names(out, o, &c);
    put_stage(out, o);
    put_cap(out, o, "cap");
    put_number(out, (uint64_t)reply_number(o, "used"), COUNT_COLUMNS);
    /* Without a cap there is no part of it to show. */
    put_bar(out, json_is_integer(json_object_get(o, "cap")) ? (uint64_t)reply_number(o, "used") : 0,
            (uint64_t)reply_number(o, "cap"), c.bar);
    put_hour(out, o);
    put_cap(out, o, "next_cap");
    put_why(&why, o);
    put_sentence(out, from, &why, &c);
    buf_done(&why);
}

/* A wide screen has a column for each answer, a narrow one has them in the sentence. */
static void put_answers(struct buf *out, struct buf *sentence, const json_t *o,
                        const struct columns *c)
{
    if (has_room(c)) {
        put_number(out, (uint64_t)reply_number(o, "delivered"), 9);
        put_number(out, (uint64_t)reply_number(o, "deferred"), 8);
        put_number(out, (uint64_t)reply_number(o, "bounced"), 7);
        put_number(out, (uint64_t)reply_number(o, "complained"), 10);
        return;
    }
    put_short_count(sentence, (uint64_t)reply_number(o, "delivered"));
    buf_puts(sentence, " delivered");
    put_signs(sentence, o, ", ");
    buf_puts(sentence, "; ");
}

void warmup_put_past(struct buf *out, const json_t *o, bool first, unsigned width)
{
    struct columns c = columns_of(width);
    struct buf sentence = {0};
    size_t from;

    if (first)
        buf_printf(out, "%-10s %-*s %-*s %5s %*s %*s %-*s%s\n", "DAY", (int)c.source, "SOURCE",
                   (int)c.provider, "PROVIDER", "STAGE", COUNT_COLUMNS, "CAP", COUNT_COLUMNS,
                   "USED", (int)c.bar, "",
                   has_room(&c) ? " DELIVERED DEFERRED BOUNCED COMPLAINED WHAT FOLLOWED" : "");
    from = out->len;
    buf_printf(out, "%s ", reply_text(o, "day"));
    put_names(out, o, &c);
    put_number(out, (uint64_t)reply_number(o, "stage"), 5);
    put_cap(out, o, "cap");
    put_number(out, (uint64_t)reply_number(o, "used"), COUNT_COLUMNS);
    put_bar(out, (uint64_t)reply_number(o, "used"), (uint64_t)reply_number(o, "cap"), c.bar);
    put_answers(out, &sentence, o, &c);
    put_text(&sentence, reply_text(o, "why"), 0, false);
    put_sentence(out, from, &sentence, &c);
    buf_done(&sentence);
}

void warmup_print_stream(const json_t *o, bool first)
{
    struct buf out = {0};

    warmup_put_stream(&out, o, first, screen_width());
    flush_text(&out, stdout);
    buf_done(&out);
}

void warmup_print_past(const json_t *o, bool first)
{
    struct buf out = {0};

    warmup_put_past(&out, o, first, screen_width());
    flush_text(&out, stdout);
    buf_done(&out);
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

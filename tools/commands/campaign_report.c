/* See campaign_report.h: the text. */
#include "tools/commands/campaign_report.h"

#include <string.h>

#include "tools/commands/channel.h"
#include "tools/commands/screen.h"

#define PLOT_ROWS  8
#define NAME_WIDTH 26
#define AXIS_WIDTH 8

/* Parts of a character cell, an eighth more each. */
static const char *const lower[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
static const char *const left[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};

/* A bar of part / whole of so many columns; something is never nothing. */
static void put_bar(struct buf *out, uint64_t part, uint64_t whole, unsigned columns)
{
    unsigned eighths =
        whole == 0 ? 0 : (unsigned)((double)part / (double)whole * columns * 8 + 0.5);

    if (part > 0 && eighths == 0)
        eighths = 1;
    for (; eighths >= 8; eighths -= 8)
        buf_puts(out, left[8]);
    buf_puts(out, left[eighths]);
}

static void put_right(struct buf *out, uint64_t v, unsigned columns)
{
    size_t from = out->len;

    put_count(out, v);
    pad_from(out, from, columns, true);
}

/* --- the head --- */

void campaign_put_tags(struct buf *out, const json_t *campaign)
{
    const json_t *tags = json_object_get(campaign, "tags");

    for (size_t i = 0; i < json_array_size(tags); i++) {
        const char *tag = json_string_value(json_array_get(tags, i));

        buf_puts(out, i > 0 ? ", " : "");
        put_text(out, tag == NULL ? "" : tag, 0, false);
    }
}

static void put_head(struct buf *out, const struct figures *f)
{
    int64_t started_s = reply_number(f->campaign, "starts_ms") / 1000;
    int64_t expires_s = reply_number(f->campaign, "expires_ms") / 1000;

    put_text(out, reply_text(f->campaign, "name"), 0, false);
    if (*reply_text(f->campaign, "tenant") != 0) {
        buf_putc(out, '@');
        put_text(out, reply_text(f->campaign, "tenant"), 0, false);
    }
    buf_printf(out, ": %s", reply_text(f->campaign, "state"));
    if (started_s != 0) {
        buf_puts(out, ", started ");
        put_local_time(out, started_s, LOCAL_WHOLE);
    }
    if (expires_s != 0) {
        buf_puts(out, ", expires ");
        put_local_time(out, expires_s, LOCAL_WHOLE);
    }
    if (*reply_text(f->campaign, "dkim_domain") != 0) {
        buf_puts(out, ", signed by ");
        put_text(out, reply_text(f->campaign, "dkim_domain"), 0, false);
    }
    if (json_array_size(json_object_get(f->campaign, "tags")) > 0) {
        buf_puts(out, "\ntags: ");
        campaign_put_tags(out, f->campaign);
    }
    buf_puts(out, "\n\n");
}

static void put_ends(struct buf *out, const struct figures *f, unsigned columns)
{
    const struct {
        const char *name;
        uint64_t n;
    } ends[] = {{"delivered", f->delivered},
                {"failed", f->failed},
                {"expired", f->expired},
                {"cancelled", f->cancelled},
                {"queued", f->queued}};

    buf_printf(out, "%-12s", "recipients");
    put_right(out, f->recipients, 13);
    buf_putc(out, '\n');
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        size_t from;

        if (ends[i].n == 0 && i > 0)
            continue;
        buf_printf(out, "%-12s", ends[i].name);
        put_right(out, ends[i].n, 13);
        from = out->len;
        put_share(out, ends[i].n, f->recipients);
        pad_from(out, from, 10, true);
        buf_puts(out, "  ");
        put_bar(out, ends[i].n, f->recipients, columns - 12 - 13 - 10 - 2);
        buf_putc(out, '\n');
    }
    buf_printf(out, "%-12s", "deferrals");
    put_right(out, f->deferrals, 13);
    buf_putc(out, '\n');
}

/* --- over time --- */

/* Steps of one column: so many, or a step has so many columns. */
static void choose_columns(const struct figures *f, unsigned room, size_t *steps, unsigned *wide)
{
    *steps = (f->steps + room - 1) / room;
    *wide = *steps > 1 ? 1 : (unsigned)(room / f->steps);
    if (*wide > 6)
        *wide = 6;
}

static void put_rate(struct buf *out, const struct figures *f, unsigned columns)
{
    uint64_t heights[FIGURES_STEPS_MAX], most = 0;
    unsigned wide;
    size_t steps, len;

    if (f->steps == 0)
        return;
    choose_columns(f, columns - AXIS_WIDTH, &steps, &wide);
    len = (f->steps + steps - 1) / steps;
    for (size_t i = 0; i < len; i++) {
        heights[i] = 0;
        for (size_t k = i * steps; k < (i + 1) * steps && k < f->steps; k++)
            heights[i] += f->rate_delivered[k];
        most = heights[i] > most ? heights[i] : most;
    }
    buf_printf(out, "\nDelivered per %s\n", f->unit);
    for (int row = PLOT_ROWS - 1; row >= 0; row--) {
        size_t from = out->len;

        if (row == PLOT_ROWS - 1)
            put_short_count(out, (uint64_t)(figures_rate(f, most) / (double)steps + 0.5));
        else if (row == 0)
            buf_putc(out, '0');
        pad_from(out, from, AXIS_WIDTH - 2, true);
        buf_puts(out, " ▕");
        for (size_t i = 0; i < len; i++) {
            double filled = most == 0 ? 0 : (double)heights[i] / (double)most * PLOT_ROWS - row;
            int eighths = filled >= 1 ? 8 : filled <= 0 ? 0 : (int)(filled * 8 + 0.5);

            if (row == 0 && eighths == 0 && heights[i] > 0)
                eighths = 1;
            for (unsigned k = 0; k < wide; k++)
                buf_puts(out, lower[eighths]);
        }
        buf_putc(out, '\n');
    }
    {
        enum local_form form = f->steps * (size_t)f->step_s > 86400 ? LOCAL_DAY : LOCAL_SECOND;
        size_t from;

        buf_printf(out, "%*s", AXIS_WIDTH, "");
        from = out->len;
        put_local_time(out, f->from_s, form);
        pad_from(out, from, 12, false);
        from = out->len;
        put_local_time(out, f->from_s + (int64_t)f->steps * f->step_s, form);
        pad_from(out, from, len * wide > 24 ? (unsigned)(len * wide) - 12 : 12, true);
        buf_putc(out, '\n');
    }
}

/* --- by site and reason --- */

/* The columns that both tables end with. */
static void put_refusals(struct buf *out, const json_t *one)
{
    static const char *const names[] = {"failed", "expired", "deferrals"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        buf_putc(out, ' ');
        put_right(out, (uint64_t)reply_number(one, names[i]), 9);
    }
    buf_putc(out, '\n');
}

static void put_sites(struct buf *out, const struct figures *f)
{
    const json_t *sites = json_object_get(f->report, "sites"), *one;
    size_t i;

    if (json_array_size(sites) == 0)
        return;
    buf_printf(out, "\n%-*s %11s %9s %9s %9s\n", NAME_WIDTH, "Where mail went", "DELIVERED",
               "FAILED", "EXPIRED", "DEFERRALS");
    json_array_foreach(sites, i, one)
    {
        put_text(out, reply_text(one, "site"), NAME_WIDTH, true);
        buf_putc(out, ' ');
        put_right(out, (uint64_t)reply_number(one, "delivered"), 11);
        put_refusals(out, one);
    }
}

static void put_reasons(struct buf *out, const struct figures *f)
{
    const json_t *reasons = json_object_get(f->report, "reasons"), *one;
    size_t i;

    if (json_array_size(reasons) == 0)
        return;
    buf_printf(out, "\n%-*s %11s %9s %9s %9s\n", NAME_WIDTH, "Why it was refused", "", "FAILED",
               "EXPIRED", "DEFERRALS");
    json_array_foreach(reasons, i, one)
    {
        put_text(out, reply_text(one, "reason"), NAME_WIDTH, true);
        buf_printf(out, " %11s", "");
        put_refusals(out, one);
    }
}

/* --- how long it took --- */

static void put_times(struct buf *out, const struct figures *f, unsigned columns)
{
    static const double shares[] = {0.5, 0.9, 0.99};
    uint64_t most = 0;

    if (f->times_last < f->times_first)
        return;
    buf_puts(out, "\nTime to deliver:");
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        buf_printf(out, "%s %.0f %% within ", i > 0 ? "," : "", shares[i] * 100);
        put_seconds(out, figures_quantile(f, shares[i]));
    }
    buf_putc(out, '\n');
    for (size_t i = f->times_first; i <= f->times_last; i++)
        most = f->took[i] > most ? f->took[i] : most;
    for (size_t i = f->times_first; i <= f->times_last; i++) {
        size_t from = out->len;

        put_below(out, f, i);
        pad_from(out, from, 10, true);
        put_right(out, f->took[i], 13);
        buf_puts(out, "  ");
        put_bar(out, f->took[i], most, columns - 10 - 13 - 2);
        buf_putc(out, '\n');
    }
}

void campaign_report_text(struct buf *out, const struct figures *f, unsigned columns)
{
    ASSERT(columns >= 60);
    put_head(out, f);
    put_ends(out, f, columns);
    put_rate(out, f, columns);
    put_sites(out, f);
    put_reasons(out, f);
    put_times(out, f, columns);
}

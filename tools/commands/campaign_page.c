/* See campaign_report.h: the page. What comes from outside goes through put_html(). */
#include "tools/commands/campaign_report.h"

#include <string.h>

#include "tools/commands/channel.h"
#include "tools/commands/screen.h"

#define WIDE   1000 /* of plots, in units of their own */
#define TICKS  4    /* of an axis, about */
#define COLUMN 46   /* of an axis' numbers */

struct series {
    const char *name; /* of a campaign's count, a class of the style sheet, and what is read */
    uint64_t n;
};

/* Text of HTML, and of attributes in double quotes; controls and broken UTF-8 become '?'. */
static void put_html(struct buf *out, const char *text)
{
    struct buf clean = {0};

    put_text(&clean, text, 0, false);
    for (size_t i = 0; i < clean.len; i++) {
        char c = (char)clean.data[i];

        if (c == '&')
            buf_puts(out, "&amp;");
        else if (c == '<')
            buf_puts(out, "&lt;");
        else if (c == '>')
            buf_puts(out, "&gt;");
        else if (c == '"')
            buf_puts(out, "&quot;");
        else
            buf_putc(out, c);
    }
    buf_done(&clean);
}

/* A few digits behind the point, so that nothing depends on the locale or is in exponents. */
static void put_place(struct buf *out, const char *name, double v)
{
    buf_printf(out, " %s=\"%.1f\"", name, v);
}

static void put_rect(struct buf *out, const char *class, double x, double y, double width,
                     double height)
{
    buf_printf(out, "<rect class=\"%s\"", class);
    put_place(out, "x", x);
    put_place(out, "y", y);
    put_place(out, "width", width);
    put_place(out, "height", height);
    buf_puts(out, " rx=\"1.5\">");
}

static void begin_svg(struct buf *out, double height, const char *label)
{
    buf_printf(out, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"%s\">\n", WIDE, height,
               label);
}

static void put_legend(struct buf *out, const struct series *series, size_t len)
{
    buf_puts(out, "<ul class=\"legend\">");
    for (size_t i = 0; i < len; i++) {
        if (series[i].n == 0)
            continue;
        buf_printf(out, "<li><i class=\"%s\"></i>%s ", series[i].name, series[i].name);
        put_count(out, series[i].n);
        buf_puts(out, "</li>");
    }
    buf_puts(out, "</ul>\n");
}

/* The distance of ticks: 1, 2 or 5 times a power of ten. */
static double tick_of(double most)
{
    double tick = 1;

    for (int i = 0; tick * TICKS < most; i++)
        tick *= i % 3 == 1 ? 2.5 : 2;
    return tick;
}

static void put_scale(struct buf *out, double most, double top, double bottom, double right)
{
    double tick = tick_of(most);

    for (double v = 0; v <= most + tick / 1e6; v += tick) {
        double y = bottom - (bottom - top) * v / most;

        buf_printf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                   COLUMN, right, y, y);
        buf_printf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", COLUMN - 8, y + 4);
        put_short_count(out, (uint64_t)(v + 0.5));
        buf_puts(out, "</text>\n");
    }
}

/* --- the head --- */

static void put_name(struct buf *out, const struct figures *f)
{
    put_html(out, reply_text(f->campaign, "name"));
}

static void put_header(struct buf *out, const struct figures *f)
{
    const char *state = reply_text(f->campaign, "state");
    int64_t starts_s = reply_number(f->campaign, "starts_ms") / 1000;
    int64_t expires_s = reply_number(f->campaign, "expires_ms") / 1000;
    const json_t *tags = json_object_get(f->campaign, "tags");

    buf_puts(out, "<header><h1>");
    put_name(out, f);
    if (*reply_text(f->campaign, "tenant") != 0) {
        buf_puts(out, " <small>");
        put_html(out, reply_text(f->campaign, "tenant"));
        buf_puts(out, "</small>");
    }
    buf_puts(out, "</h1><span class=\"state ");
    put_html(out, state);
    buf_puts(out, "\">");
    put_html(out, state);
    buf_puts(out, "</span><p>");
    put_counted(out, f->recipients, "recipient");
    if (starts_s != 0) {
        buf_puts(out, strcmp(state, "scheduled") == 0 ? " &#183; starts " : " &#183; started ");
        put_local_time(out, starts_s, LOCAL_WHOLE);
    }
    if (expires_s != 0) {
        buf_puts(out, " &#183; expires ");
        put_local_time(out, expires_s, LOCAL_WHOLE);
    }
    if (*reply_text(f->campaign, "pool") != 0) {
        buf_puts(out, " &#183; pool ");
        put_html(out, reply_text(f->campaign, "pool"));
    }
    if (*reply_text(f->campaign, "dkim_domain") != 0) {
        buf_puts(out, " &#183; signed by ");
        put_html(out, reply_text(f->campaign, "dkim_domain"));
    }
    for (size_t i = 0; i < json_array_size(tags); i++) {
        const char *tag = json_string_value(json_array_get(tags, i));

        buf_puts(out, i == 0 ? " &#183; tags " : ", ");
        put_html(out, tag == NULL ? "" : tag);
    }
    buf_puts(out, "</p></header>\n");
}

static void put_tile(struct buf *out, const char *what, const struct buf *value)
{
    buf_puts(out, "<div><b>");
    buf_put_str(out, buf_str(value));
    buf_printf(out, "</b><span>%s</span></div>\n", what);
}

static void put_share_tile(struct buf *out, const char *what, uint64_t part, uint64_t whole)
{
    struct buf share = {0}, value = {0};

    put_share(&share, part, whole);
    buf_putc(&share, '\0');
    put_html(&value, (char *)share.data); /* "< 0.1 %" */
    put_tile(out, what, &value);
    buf_done(&share);
    buf_done(&value);
}

static void put_tiles(struct buf *out, const struct figures *f)
{
    uint64_t ended = f->delivered + f->failed + f->expired;
    struct buf value = {0};
    char what[64];

    buf_puts(out, "<div class=\"tiles\">\n");
    put_count(&value, f->delivered);
    put_tile(out, "delivered", &value);
    put_share_tile(out, "of those that ended were delivered", f->delivered, ended);
    put_share_tile(out, "were refused for good", f->failed, ended);
    buf_clear(&value);
    put_short_count(&value, f->peak);
    snprintf(what, sizeof(what), "a %s at the peak", f->unit);
    put_tile(out, what, &value);
    buf_clear(&value);
    if (f->times_last >= f->times_first)
        put_seconds(&value, figures_quantile(f, 0.5));
    else
        buf_puts(&value, "&#8211;");
    put_tile(out, "until half were delivered", &value);
    buf_puts(out, "</div>\n");
    buf_done(&value);
}

static void put_ends(struct buf *out, const struct figures *f)
{
    const struct series ends[] = {{"delivered", f->delivered},
                                  {"failed", f->failed},
                                  {"expired", f->expired},
                                  {"cancelled", f->cancelled},
                                  {"queued", f->queued}};
    double x = 0;

    buf_puts(out, "<section><h2>Recipients</h2><p>What became of everybody on the list.</p>\n");
    begin_svg(out, 26, "Recipients by what became of them");
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        double width =
            f->recipients == 0 ? 0 : (double)ends[i].n * (double)WIDE / (double)f->recipients;

        if (ends[i].n == 0)
            continue;
        put_rect(out, ends[i].name, x, 0, width > 3 ? width - 1.5 : width, 26);
        buf_printf(out, "<title>%s ", ends[i].name);
        put_count(out, ends[i].n);
        buf_puts(out, "</title></rect>\n");
        x += width;
    }
    buf_puts(out, "</svg>\n");
    put_legend(out, ends, sizeof(ends) / sizeof(ends[0]));
    buf_puts(out, "</section>\n");
}

/* --- over time --- */

#define RATE_TOP    12.0
#define RATE_BOTTOM 232.0

static double rate_most(const struct figures *f)
{
    double most = 1;

    for (size_t i = 0; i < f->steps; i++) {
        double ended = figures_rate(f, f->rate_delivered[i] + f->rate_failed[i]);
        double deferrals = figures_rate(f, f->rate_deferrals[i]);

        most = ended > most ? ended : most;
        most = deferrals > most ? deferrals : most;
    }
    return most;
}

static void put_rate_bars(struct buf *out, const struct figures *f, double most)
{
    double step = (double)(WIDE - COLUMN) / (double)f->steps;
    double wide = step > 60 ? 60 : step > 4 ? step - 1.5 : step * 0.8;

    for (size_t i = 0; i < f->steps; i++) {
        double x = COLUMN + step * ((double)i + 0.5) - wide / 2, y = RATE_BOTTOM;
        const struct series two[] = {{"delivered", f->rate_delivered[i]},
                                     {"failed", f->rate_failed[i]}};

        for (size_t k = 0; k < 2; k++) {
            double height = figures_rate(f, two[k].n) / most * (RATE_BOTTOM - RATE_TOP);

            if (two[k].n == 0)
                continue;
            y -= height;
            put_rect(out, two[k].name, x, y, wide, height);
            buf_puts(out, "<title>");
            put_local_time(out, f->from_s + (int64_t)i * f->step_s, LOCAL_DAY_SECOND);
            buf_printf(out, ": %s ", two[k].name);
            put_count(out, two[k].n);
            buf_puts(out, " in ");
            put_seconds(out, (double)f->step_s);
            buf_puts(out, "</title></rect>\n");
        }
    }
}

static void put_rate_curve(struct buf *out, const struct figures *f, double most)
{
    double step = (double)(WIDE - COLUMN) / (double)f->steps;

    if (f->deferrals == 0)
        return;
    buf_puts(out, "<polyline class=\"curve\" points=\"");
    for (size_t i = 0; i < f->steps; i++)
        buf_printf(out, "%s%.1f,%.1f", i > 0 ? " " : "", COLUMN + step * ((double)i + 0.5),
                   RATE_BOTTOM -
                       figures_rate(f, f->rate_deferrals[i]) / most * (RATE_BOTTOM - RATE_TOP));
    buf_puts(out, "\"/>\n");
}

/* Times below the bars: at the begin, the end, and between. */
static void put_clock(struct buf *out, const struct figures *f)
{
    int64_t span_s = (int64_t)f->steps * f->step_s;
    enum local_form form = span_s > 86400 ? LOCAL_DAY : span_s > 600 ? LOCAL_MINUTE : LOCAL_SECOND;
    int parts = span_s < 4 ? 1 : 4;

    for (int i = 0; i <= parts; i++) {
        const char *anchor = i == 0 ? "start" : i == parts ? "end" : "middle";

        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
                   COLUMN + (double)(WIDE - COLUMN) * i / parts, RATE_BOTTOM + 20, anchor);
        put_local_time(out, f->from_s + span_s * i / parts, form);
        buf_puts(out, "</text>\n");
    }
}

static void put_rate(struct buf *out, const struct figures *f)
{
    const struct series three[] = {{"delivered", f->delivered},
                                   {"failed", f->failed + f->expired},
                                   {"deferrals", f->deferrals}};
    double most = rate_most(f);

    if (f->steps == 0)
        return;
    buf_printf(out, "<section><h2>Rate</h2><p>Letters a %s, each bar for ", f->unit);
    put_seconds(out, (double)f->step_s);
    buf_puts(out, ".</p>\n");
    begin_svg(out, RATE_BOTTOM + 28, "Letters over time");
    put_scale(out, most, RATE_TOP, RATE_BOTTOM, WIDE);
    put_rate_bars(out, f, most);
    put_rate_curve(out, f, most);
    put_clock(out, f);
    buf_puts(out, "</svg>\n");
    put_legend(out, three, 3);
    buf_puts(out, "</section>\n");
}

/* --- tables with bars --- */

static void put_cell(struct buf *out, uint64_t n)
{
    buf_puts(out, n == 0 ? "<td class=\"zero\">" : "<td>");
    put_count(out, n);
    buf_puts(out, "</td>");
}

/* A bar of parts, as long as their sum is of most. */
static void put_row_bar(struct buf *out, const struct series *parts, size_t len, uint64_t most)
{
    double x = 0;

    buf_puts(out, "<td class=\"bar\"><svg viewBox=\"0 0 300 14\" preserveAspectRatio=\"none\" "
                  "aria-hidden=\"true\">");
    for (size_t i = 0; i < len; i++) {
        double width = most == 0 ? 0 : (double)parts[i].n * 300.0 / (double)most;

        if (parts[i].n == 0)
            continue;
        if (width < 1.5) /* something is to be seen */
            width = 1.5;
        put_rect(out, parts[i].name, x, 0, width, 14);
        buf_puts(out, "</rect>");
        x += width;
    }
    buf_puts(out, "</svg></td>");
}

static uint64_t number(const json_t *one, const char *name)
{
    long long v = reply_number(one, name);

    return v < 0 ? 0 : (uint64_t)v;
}

/* The first few reasons of a site, in words. */
static void put_why(struct buf *out, const json_t *site)
{
    const json_t *reasons = json_object_get(site, "reasons"), *one;
    size_t i;

    if (json_array_size(reasons) == 0)
        return;
    buf_puts(out, "<tr><td class=\"why\" colspan=\"6\">");
    json_array_foreach(reasons, i, one)
    {
        if (i == 4) {
            buf_puts(out, " &#8230;");
            break;
        }
        buf_puts(out, i > 0 ? " &#183; " : "");
        put_html(out, reply_text(one, "reason"));
        buf_putc(out, ' ');
        put_count(out, number(one, "failed") + number(one, "expired") + number(one, "deferrals"));
    }
    buf_puts(out, "</td></tr>\n");
}

static void put_sites(struct buf *out, const struct figures *f)
{
    const json_t *sites = json_object_get(f->report, "sites"), *one;
    uint64_t most = 0;
    size_t i;

    if (json_array_size(sites) == 0)
        return;
    json_array_foreach(sites, i, one)
    {
        uint64_t sum = number(one, "delivered") + number(one, "failed") + number(one, "expired");

        most = sum > most ? sum : most;
    }
    buf_puts(out, "<section><h2>Providers</h2><p>Where letters went, and what was answered "
                  "there.</p>\n<table><thead><tr><th>Provider</th><th></th><th>Delivered</th>"
                  "<th>Failed</th><th>Expired</th><th>Deferrals</th></tr></thead><tbody>\n");
    json_array_foreach(sites, i, one)
    {
        const struct series parts[] = {{"delivered", number(one, "delivered")},
                                       {"failed", number(one, "failed")},
                                       {"expired", number(one, "expired")}};

        buf_puts(out, "<tr><td>");
        put_html(out, reply_text(one, "site"));
        buf_puts(out, "</td>");
        put_row_bar(out, parts, 3, most);
        for (size_t k = 0; k < 3; k++)
            put_cell(out, parts[k].n);
        put_cell(out, number(one, "deferrals"));
        buf_puts(out, "</tr>\n");
        put_why(out, one);
    }
    buf_puts(out, "</tbody></table></section>\n");
}

static void put_reasons(struct buf *out, const struct figures *f)
{
    const json_t *reasons = json_object_get(f->report, "reasons"), *one;
    uint64_t most = 0;
    size_t i;

    buf_puts(out, "<section><h2>Reasons</h2><p>Why letters were refused, or came later.</p>\n");
    if (json_array_size(reasons) == 0)
        buf_puts(out, "<p>None was refused.</p>\n");
    json_array_foreach(reasons, i, one)
    {
        uint64_t sum = number(one, "failed") + number(one, "expired") + number(one, "deferrals");

        most = sum > most ? sum : most;
    }
    if (most > 0)
        buf_puts(out, "<table><thead><tr><th>Reason</th><th></th><th>Ended</th><th>Deferrals</th>"
                      "</tr></thead><tbody>\n");
    json_array_foreach(reasons, i, one)
    {
        const struct series parts[] = {{"failed", number(one, "failed")},
                                       {"expired", number(one, "expired")},
                                       {"deferrals", number(one, "deferrals")}};

        buf_puts(out, "<tr><td>");
        put_html(out, reply_text(one, "reason"));
        buf_puts(out, "</td>");
        put_row_bar(out, parts, 3, most);
        put_cell(out, parts[0].n + parts[1].n);
        put_cell(out, parts[2].n);
        buf_puts(out, "</tr>\n");
    }
    buf_puts(out, most > 0 ? "</tbody></table></section>\n" : "</section>\n");
}

/* --- how long it took --- */

static void put_times(struct buf *out, const struct figures *f)
{
    size_t len = f->times_last - f->times_first + 1;
    uint64_t most = 0, sum = 0, all = 0;
    double step = (double)WIDE / (double)len, wide = step > 90 ? 90 : step - 6;

    for (size_t i = f->times_first; i <= f->times_last; i++) {
        most = f->took[i] > most ? f->took[i] : most;
        all += f->took[i];
    }
    begin_svg(out, 250, "Time to deliver");
    for (size_t i = f->times_first; i <= f->times_last; i++) {
        double middle = step * ((double)(i - f->times_first) + 0.5);
        double height = (double)f->took[i] * 180.0 / (double)most;

        sum += f->took[i];
        put_rect(out, "delivered", middle - wide / 2, 206 - height, wide, height);
        buf_puts(out, "<title>");
        put_count(out, f->took[i]);
        buf_puts(out, "</title></rect>");
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", middle,
                   200 - height);
        put_short_count(out, f->took[i]);
        buf_printf(out, "</text><text x=\"%.1f\" y=\"224\" text-anchor=\"middle\">", middle);
        buf_puts(out, f->below_s[i] == 0 ? "longer" : "&lt; ");
        if (f->below_s[i] != 0)
            put_seconds(out, (double)f->below_s[i]);
        buf_printf(out, "</text><text x=\"%.1f\" y=\"242\" text-anchor=\"middle\">%.0f %%</text>\n",
                   middle, (double)sum * 100 / (double)all);
    }
    buf_puts(out, "</svg>\n");
}

static void put_took(struct buf *out, const struct figures *f)
{
    buf_puts(out, "<section><h2>Time to deliver</h2><p>");
    if (f->times_last < f->times_first) {
        buf_puts(out, "Nothing was delivered so far.</p></section>\n");
        return;
    }
    buf_puts(out, "From the start on: half within ");
    put_seconds(out, figures_quantile(f, 0.5));
    buf_puts(out, ", 90 % within ");
    put_seconds(out, figures_quantile(f, 0.9));
    buf_puts(out, ", 99 % within ");
    put_seconds(out, figures_quantile(f, 0.99));
    buf_puts(out, ". Below each column, how many were delivered by then.</p>\n");
    put_times(out, f);
    buf_puts(out, "</section>\n");
}

/* --- the page --- */

void campaign_report_page(struct buf *out, const struct figures *f, int64_t now_s)
{
    buf_puts(out, "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\"><head>"
                  "<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
                  "content=\"width=device-width,initial-scale=1\"/>\n"
                  "<meta http-equiv=\"Content-Security-Policy\" "
                  "content=\"default-src 'none';style-src 'unsafe-inline'\"/>\n<title>");
    put_name(out, f);
    buf_puts(out, ": report</title>\n<style>\n");
    buf_puts(out, campaign_page_style);
    buf_puts(out, "</style></head>\n<body><main>\n");
    put_header(out, f);
    put_tiles(out, f);
    put_ends(out, f);
    put_rate(out, f);
    put_sites(out, f);
    put_reasons(out, f);
    put_took(out, f);
    buf_puts(out, "<footer>Campaign ");
    put_html(out, reply_text(f->campaign, "id"));
    buf_puts(out, " &#183; made ");
    put_local_time(out, now_s, LOCAL_WHOLE);
    buf_puts(out, " by Hayauma</footer>\n</main></body></html>\n");
}

#include "tools/commands/campaign_figures.h"

#include "tools/commands/channel.h"

static uint64_t number(const json_t *object, const char *name)
{
    long long v = reply_number(object, name);

    return v < 0 ? 0 : (uint64_t)v;
}

static uint64_t element(const json_t *list, size_t i)
{
    long long v = json_integer_value(json_array_get(list, i));

    return v < 0 ? 0 : (uint64_t)v;
}

static void read_rate(struct figures *f, const json_t *rate)
{
    const json_t *delivered = json_object_get(rate, "delivered");
    const json_t *failed = json_object_get(rate, "failed");
    const json_t *deferrals = json_object_get(rate, "deferrals");

    f->from_s = (int64_t)number(rate, "from_ms") / 1000;
    f->step_s = (int64_t)number(rate, "step_ms") / 1000;
    if (f->step_s == 0)
        f->step_s = 1;
    f->steps = json_array_size(delivered);
    if (f->steps > FIGURES_STEPS_MAX)
        f->steps = FIGURES_STEPS_MAX;
    for (size_t i = 0; i < f->steps; i++) {
        f->rate_delivered[i] = element(delivered, i);
        f->rate_failed[i] = element(failed, i);
        f->rate_deferrals[i] = element(deferrals, i);
    }
}

static void read_times(struct figures *f, const json_t *times)
{
    f->times = json_array_size(times);
    if (f->times > FIGURES_TIMES_MAX)
        f->times = FIGURES_TIMES_MAX;
    f->times_first = 1;
    for (size_t i = 0; i < f->times; i++) {
        const json_t *one = json_array_get(times, i);

        f->below_s[i] = number(one, "below_s");
        f->took[i] = number(one, "delivered");
        if (f->took[i] == 0)
            continue;
        if (f->times_last < f->times_first)
            f->times_first = i;
        f->times_last = i;
    }
}

static void choose_unit(struct figures *f)
{
    static const struct {
        uint32_t s;
        const char *name;
    } units[] = {{1, "second"}, {60, "minute"}, {3600, "hour"}};
    uint64_t most = 0;

    for (size_t i = 0; i < f->steps; i++)
        if (f->rate_delivered[i] > most)
            most = f->rate_delivered[i];
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        f->unit_s = units[i].s;
        f->unit = units[i].name;
        f->peak = (uint64_t)(figures_rate(f, most) + 0.5);
        if (f->peak >= 10)
            break;
    }
}

bool figures_read(struct figures *out, const json_t *campaign)
{
    const json_t *report = json_object_get(campaign, "report");

    *out = (struct figures){.campaign = campaign, .report = report};
    if (report == NULL)
        return false;
    out->recipients = number(campaign, "recipients");
    out->delivered = number(campaign, "delivered");
    out->failed = number(campaign, "failed");
    out->expired = number(campaign, "expired");
    out->cancelled = number(campaign, "cancelled");
    out->queued = number(campaign, "queued");
    out->deferrals = number(campaign, "deferrals");
    read_rate(out, json_object_get(report, "rate"));
    read_times(out, json_object_get(report, "times"));
    choose_unit(out);
    return true;
}

double figures_rate(const struct figures *f, uint64_t in_step)
{
    return (double)in_step * f->unit_s / (double)f->step_s;
}

double figures_quantile(const struct figures *f, double share)
{
    uint64_t sum = 0, before = 0;
    double wanted;

    for (size_t i = 0; i < f->times; i++)
        sum += f->took[i];
    wanted = share * (double)sum;
    for (size_t i = 0; i < f->times; i++) {
        double from = i == 0 ? 0 : (double)f->below_s[i - 1];
        double to = f->below_s[i] != 0 ? (double)f->below_s[i] : from;

        if (f->took[i] > 0 && (double)(before + f->took[i]) >= wanted)
            return from + (to - from) * (wanted - (double)before) / (double)f->took[i];
        before += f->took[i];
    }
    return 0;
}

void put_share(struct buf *out, uint64_t part, uint64_t whole)
{
    double share = whole == 0 ? 0 : (double)part * 100 / (double)whole;

    if (part > 0 && share < 0.1)
        buf_puts(out, "< 0.1 %");
    else if (part < whole && share > 99.9)
        buf_puts(out, "> 99.9 %");
    else
        buf_printf(out, "%.*f %%", part == 0 || part == whole ? 0 : 1, share);
}

void put_local_time(struct buf *out, int64_t s, enum local_form form)
{
    time_t at = (time_t)s;
    char text[64] = "";
    struct tm tm;

    if (localtime_r(&at, &tm) == NULL)
        return;
    switch (form) {
    case LOCAL_WHOLE:
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M %Z", &tm);
        break;
    case LOCAL_DAY:
        strftime(text, sizeof(text), "%m-%d %H:%M", &tm);
        break;
    case LOCAL_DAY_SECOND:
        strftime(text, sizeof(text), "%m-%d %H:%M:%S", &tm);
        break;
    case LOCAL_MINUTE:
        strftime(text, sizeof(text), "%H:%M", &tm);
        break;
    case LOCAL_SECOND:
        strftime(text, sizeof(text), "%H:%M:%S", &tm);
        break;
    }
    buf_puts(out, text);
}

void put_seconds(struct buf *out, double s)
{
    static const struct {
        double below, unit;
        const char *name;
    } units[] = {{90, 1, "s"}, {5400, 60, "min"}, {129600, 3600, "h"}, {1e300, 86400, "d"}};
    size_t i = 0;
    double v;

    while (s >= units[i].below)
        i++;
    v = s / units[i].unit;
    buf_printf(out, "%.*f %s", v < 10 && v - (double)(long long)v > 0.05 ? 1 : 0, v, units[i].name);
}

void put_below(struct buf *out, const struct figures *f, size_t i)
{
    if (f->below_s[i] == 0) {
        buf_puts(out, "longer");
        return;
    }
    buf_puts(out, "< ");
    put_seconds(out, (double)f->below_s[i]);
}

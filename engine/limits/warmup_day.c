#include "limits/warmup_day.h"

int64_t warmup_day_begins_ms(const struct warmup_calendar *c, int32_t day)
{
    return zone_instant_s(c->zone, (int64_t)day * DAY_SECONDS + c->day_hour * INT64_C(3600)) * 1000;
}

static bool is_quiet(const struct warmup_calendar *c, int64_t wall_ms)
{
    int64_t local_s = wall_ms / 1000 + zone_offset_s(c->zone, wall_ms / 1000);
    int64_t of_day = (local_s % DAY_SECONDS + DAY_SECONDS) % DAY_SECONDS;

    return (c->quiet_hours >> (of_day / 3600) & 1) != 0;
}

void warmup_hour_at(const struct warmup_calendar *c, int64_t wall_ms, struct warmup_hour *out)
{
    int64_t unix_s = wall_ms / 1000;
    int64_t local_s = unix_s + zone_offset_s(c->zone, unix_s) - c->day_hour * INT64_C(3600);
    int32_t day = (int32_t)(local_s / DAY_SECONDS - (local_s % DAY_SECONDS < 0));
    uint8_t hours;

    ASSERT(wall_ms >= 0);
    /* Around a change of clocks the date alone may be one off. */
    while (warmup_day_begins_ms(c, day) > wall_ms)
        day--;
    while (warmup_day_begins_ms(c, day + 1) <= wall_ms)
        day++;
    *out = (struct warmup_hour){.day = day,
                                .day_begins_ms = warmup_day_begins_ms(c, day),
                                .day_ends_ms = warmup_day_begins_ms(c, day + 1)};
    ASSERT(out->day_begins_ms <= wall_ms && wall_ms < out->day_ends_ms);
    out->hour = (uint8_t)((wall_ms - out->day_begins_ms) / HOUR_MS);
    out->begins_ms = out->day_begins_ms + out->hour * HOUR_MS;
    out->ends_ms = out->begins_ms + HOUR_MS;
    if (out->ends_ms > out->day_ends_ms)
        out->ends_ms = out->day_ends_ms;
    out->quiet = is_quiet(c, out->begins_ms);
    hours = (uint8_t)((out->day_ends_ms - out->day_begins_ms + HOUR_MS - 1) / HOUR_MS);
    for (uint8_t h = 0; h < hours; h++) {
        if (is_quiet(c, out->day_begins_ms + h * HOUR_MS))
            continue;
        out->open++;
        out->passed = (uint8_t)(out->passed + (h < out->hour));
    }
}

void warmup_hour_after(const struct warmup_calendar *c, const struct warmup_hour *h,
                       struct warmup_hour *out)
{
    struct warmup_hour next = *h;

    do
        warmup_hour_at(c, next.ends_ms, &next);
    while (next.quiet);
    *out = next;
}

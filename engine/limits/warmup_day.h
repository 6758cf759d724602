/* Sending days of warm-up: which one an instant belongs to, and in which of its hours. A day goes
 * from an hour of the local clock to the same hour of the next date, so that it may have 23 or 25
 * hours. Hours are those of the clock on the wall, counted from the day's beginning; quiet ones
 * are not counted. Pure; any thread. */
#ifndef HAYAUMA_ENGINE_WARMUP_DAY_H
#define HAYAUMA_ENGINE_WARMUP_DAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/zone.h"

#define HOUR_MS INT64_C(3600000)

struct warmup_calendar {
    const struct zone *zone;
    uint32_t day_hour, quiet_hours; /* a bit per hour of the local day; never all */
};

struct warmup_hour {
    int32_t day;                /* the date on which the sending day begins, since 1970-01-01 */
    uint8_t hour;               /* of the day, from 0 */
    bool quiet;                 /* nothing is sent in it */
    uint8_t open;               /* hours of the day that are not quiet */
    uint8_t passed;             /* of them, before this one */
    int64_t begins_ms, ends_ms; /* wall clock */
    int64_t day_begins_ms, day_ends_ms; /* of the sending day */
};

void warmup_hour_at(const struct warmup_calendar *c, int64_t wall_ms, struct warmup_hour *out);
/* When the day begins. */
int64_t warmup_day_begins_ms(const struct warmup_calendar *c, int32_t day);
/* The next hour that is not quiet, of this day or the next. */
void warmup_hour_after(const struct warmup_calendar *c, const struct warmup_hour *h,
                       struct warmup_hour *out);

#endif

/* hayauma with a calendar of its own for warm-up, for tests: a sending day takes
 * HAYAUMA_TEST_DAY_MS of real time, and its hours a 24th of that. The first day began at
 * HAYAUMA_TEST_DAY_FROM_MS (wall clock), so that restarts go on in the same days. All else, as
 * timers and what limits measure, goes by the real clock. */
#include <stdbool.h>
#include <stdlib.h>

#include "base/assert.h"
#include "limits/warmup_day.h"

#define DAY_MS (DAY_SECONDS * INT64_C(1000))
#define FIRST  INT64_C(20000) /* day since 1970-01-01 */

void __real_warmup_hour_at(const struct warmup_calendar *c, int64_t wall_ms,
                           struct warmup_hour *out);
void __real_warmup_hour_after(const struct warmup_calendar *c, const struct warmup_hour *h,
                              struct warmup_hour *out);
int64_t __real_warmup_day_begins_ms(const struct warmup_calendar *c, int32_t day);
void __wrap_warmup_hour_at(const struct warmup_calendar *c, int64_t wall_ms,
                           struct warmup_hour *out);
void __wrap_warmup_hour_after(const struct warmup_calendar *c, const struct warmup_hour *h,
                              struct warmup_hour *out);
int64_t __wrap_warmup_day_begins_ms(const struct warmup_calendar *c, int32_t day);

/* Whether the calendar's own code runs: some linkers lead its calls of itself here too. */
static _Thread_local bool inside;

static int64_t setting(const char *name)
{
    const char *text = getenv(name);

    ASSERT(text != NULL);
    return strtoll(text, NULL, 10);
}

/* What the calendar is told for wall_ms, and back. */
static int64_t told(int64_t wall_ms)
{
    return FIRST * DAY_MS + (wall_ms - setting("HAYAUMA_TEST_DAY_FROM_MS")) *
                                (DAY_MS / setting("HAYAUMA_TEST_DAY_MS"));
}

static int64_t meant(int64_t told_ms)
{
    return setting("HAYAUMA_TEST_DAY_FROM_MS") +
           (told_ms - FIRST * DAY_MS) / (DAY_MS / setting("HAYAUMA_TEST_DAY_MS"));
}

static void hour_meant(struct warmup_hour *h)
{
    h->begins_ms = meant(h->begins_ms);
    h->ends_ms = meant(h->ends_ms);
    h->day_begins_ms = meant(h->day_begins_ms);
    h->day_ends_ms = meant(h->day_ends_ms);
}

void __wrap_warmup_hour_at(const struct warmup_calendar *c, int64_t wall_ms,
                           struct warmup_hour *out)
{
    if (inside) {
        __real_warmup_hour_at(c, wall_ms, out);
        return;
    }
    inside = true;
    __real_warmup_hour_at(c, told(wall_ms), out);
    inside = false;
    hour_meant(out);
}

void __wrap_warmup_hour_after(const struct warmup_calendar *c, const struct warmup_hour *h,
                              struct warmup_hour *out)
{
    struct warmup_hour of = *h;

    of.ends_ms = told(of.ends_ms);
    inside = true;
    __real_warmup_hour_after(c, &of, out);
    inside = false;
    hour_meant(out);
}

int64_t __wrap_warmup_day_begins_ms(const struct warmup_calendar *c, int32_t day)
{
    int64_t begins_ms = __real_warmup_day_begins_ms(c, day);

    return inside ? begins_ms : meant(begins_ms);
}

#include "limits/quiet.h"

#define STEP_S      900 /* zones are ahead of UTC by quarters of an hour, and change at such times */
#define LOOK_AHEAD  (2 * DAY_SECONDS / STEP_S)
#define HOUR_S      3600
#define HOURS_A_DAY 24

static bool is_quiet(const struct zone *zone, uint32_t hours, int64_t unix_s)
{
    int64_t local_s = unix_s + zone_offset_s(zone, unix_s), hour = local_s / HOUR_S % HOURS_A_DAY;

    return (hours >> (hour < 0 ? hour + HOURS_A_DAY : hour) & 1) != 0;
}

bool quiet_at(const struct zone *zone, uint32_t hours, int64_t wall_ms, int64_t *until_ms)
{
    int64_t now_s = wall_ms / 1000, at_s = now_s - now_s % STEP_S;
    bool quiet = is_quiet(zone, hours, now_s);
    int steps = 0;

    do
        at_s += STEP_S;
    while (++steps < LOOK_AHEAD && is_quiet(zone, hours, at_s) == quiet);
    *until_ms = at_s * 1000;
    return quiet;
}

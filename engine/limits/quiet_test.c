#include "limits/quiet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define HOURS_22_7 UINT32_C(0xC0007F)

static int64_t utc_ms(const char *date, int hour, int minute, int second)
{
    int32_t day;
    int err = day_parse(str_of(date), &day);

    assert_int_equal(err, 0);
    return ((int64_t)day * DAY_SECONDS + hour * 3600 + minute * 60 + second) * 1000;
}

static void test_hours(void **state)
{
    static const struct {
        const char *zone;
        uint32_t hours;
        const char *date;
        int hour, minute, second; /* UTC */
        bool quiet;
        const char *until_date;
        int until_hour, until_minute;
    } cases[] = {
        {"UTC", HOURS_22_7, "2026-12-01", 6, 59, 59, true, "2026-12-01", 7, 0},
        {"UTC", HOURS_22_7, "2026-12-01", 7, 0, 0, false, "2026-12-01", 22, 0},
        {"UTC", HOURS_22_7, "2026-12-01", 22, 0, 0, true, "2026-12-02", 7, 0},
        {"Asia/Tokyo", HOURS_22_7, "2026-12-01", 12, 59, 59, false, "2026-12-01", 13, 0},
        {"Asia/Tokyo", HOURS_22_7, "2026-12-01", 13, 0, 0, true, "2026-12-01", 22, 0},
        /* Ahead by five hours and a half. */
        {"Asia/Kolkata", HOURS_22_7, "2026-12-01", 16, 29, 59, false, "2026-12-01", 16, 30},
        {"Asia/Kolkata", HOURS_22_7, "2026-12-01", 16, 30, 0, true, "2026-12-02", 1, 30},
        /* Clocks go from 2:00 to 3:00: a night of eight hours. Back: one of ten. */
        {"Europe/Berlin", HOURS_22_7, "2026-03-28", 21, 0, 0, true, "2026-03-29", 5, 0},
        {"Europe/Berlin", HOURS_22_7, "2026-10-24", 20, 0, 0, true, "2026-10-25", 6, 0},
        /* The hour that is left out on that night, and the one that comes twice. */
        {"Europe/Berlin", 1u << 2, "2026-03-29", 0, 59, 59, false, "2026-03-30", 0, 0},
        {"Europe/Berlin", 1u << 2, "2026-10-25", 0, 0, 0, true, "2026-10-25", 2, 0},
        /* Clocks go forward by half an hour, at 2:00 to 2:30. */
        {"Australia/Lord_Howe", 1u << 2, "2026-10-03", 15, 29, 59, false, "2026-10-03", 15, 30},
        {"Australia/Lord_Howe", 1u << 2, "2026-10-03", 15, 30, 0, true, "2026-10-03", 16, 0},
        {"UTC", 0xFFFFFF, "2026-12-01", 5, 0, 0, true, "2026-12-03", 5, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct zone *zone;
        int64_t until_ms;
        bool quiet;

        assert_int_equal(zone_load(str_of(cases[i].zone), &zone), 0);
        quiet =
            quiet_at(zone, cases[i].hours,
                     utc_ms(cases[i].date, cases[i].hour, cases[i].minute, cases[i].second) + 999,
                     &until_ms);
        if (quiet != cases[i].quiet ||
            until_ms != utc_ms(cases[i].until_date, cases[i].until_hour, cases[i].until_minute, 0))
            fail_msg("case %zu: %s until %lld", i, quiet ? "quiet" : "not quiet",
                     (long long)until_ms / 1000);
        zone_free(zone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hours)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

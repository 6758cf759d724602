#include "base/zone.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/rng.h"

/* With and without summer time, on both sides of the equator, half hours, a whole day left out
 * (Apia, 2011), names in angle brackets, a negative summer time (Dublin). */
static const char *const zones[] = {
    "UTC",           "Asia/Tokyo",        "Europe/Berlin",    "America/New_York",
    "Europe/Dublin", "Asia/Kolkata",      "Australia/Sydney", "Australia/Lord_Howe",
    "Pacific/Apia",  "America/Sao_Paulo", "Asia/Tehran",      "Africa/Casablanca"};

static struct zone *load(const char *name)
{
    struct zone *z = NULL;

    assert_int_equal(zone_load(str_of(name), &z), 0);
    return z;
}

/* The C library is the reference, at random instants and around each change of clocks. */
static void test_like_libc(void **state)
{
    struct rng rng;

    (void)state;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < ARRAY_LEN(zones); i++) {
        struct zone *z = load(zones[i]);

        setenv("TZ", zones[i], 1);
        tzset();
        for (int n = 0; n < 20000; n++) {
            /* 1971 to 2100; a third of them in hours near the ends of months. */
            int64_t at = 31536000 + (int64_t)rng_below(&rng, UINT64_C(4070908800));
            time_t t = (time_t)at;
            struct tm tm;

            assert_non_null(localtime_r(&t, &tm));
            if (zone_offset_s(z, at) != tm.tm_gmtoff)
                fail_msg("%s at %lld: %d, libc %ld", zones[i], (long long)at, zone_offset_s(z, at),
                         tm.tm_gmtoff);
        }
        zone_free(z);
    }
    unsetenv("TZ");
    tzset();
}

static int64_t local_s(const char *date, int hour, int minute)
{
    int32_t day;

    assert_int_equal(day_parse(str_of(date), &day), 0);
    return (int64_t)day * DAY_SECONDS + hour * 3600 + minute * 60;
}

static void test_instants(void **state)
{
    static const struct {
        const char *zone, *date;
        int hour, minute;
        int32_t ahead_s; /* of UTC, at the instant found */
        int later_s;     /* than asked for, by the clocks then */
    } cases[] = {
        {"UTC", "2026-06-01", 12, 0, 0, 0},
        {"Asia/Tokyo", "2026-06-01", 0, 0, 32400, 0},
        {"Europe/Berlin", "2026-06-01", 0, 0, 7200, 0},
        {"Europe/Berlin", "2026-12-01", 0, 0, 3600, 0},
        /* Left out: 02:30 is 03:30. Twice: the first. */
        {"Europe/Berlin", "2026-03-29", 2, 30, 7200, 3600},
        {"Europe/Berlin", "2026-10-25", 2, 30, 7200, 0},
        {"America/New_York", "2040-03-11", 2, 30, -14400, 3600},
        {"Australia/Lord_Howe", "2026-10-04", 2, 15, 39600, 1800},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct zone *z = load(cases[i].zone);
        int64_t local = local_s(cases[i].date, cases[i].hour, cases[i].minute);
        int64_t at = zone_instant_s(z, local);

        assert_int_equal(zone_offset_s(z, at), cases[i].ahead_s);
        assert_int_equal(at + cases[i].ahead_s - local, cases[i].later_s);
        zone_free(z);
    }
}

static void test_dates(void **state)
{
    static const char *const wrong[] = {"",           "2026-1-01",  "2026-13-01", "2026-00-10",
                                        "2026-02-29", "2026-06-31", "2026-06-00", "20260601",
                                        "2026/06/01", "2026-06-1x", "-026-06-01"};
    char text[DAY_TEXT_BYTES];
    int32_t day, year;
    int month, of_month;

    (void)state;
    assert_int_equal(day_of_date(1970, 1, 1), 0);
    assert_int_equal(day_of_date(2000, 2, 29), 11016);
    assert_int_equal(day_of_date(1969, 12, 31), -1);
    for (day = -200000; day < 200000; day += 7) {
        date_of_day(day, &year, &month, &of_month);
        assert_int_equal(day_of_date(year, month, of_month), day);
    }
    assert_int_equal(day_parse(STR("2028-02-29"), &day), 0);
    assert_string_equal(day_text(day, text), "2028-02-29");
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(day_parse(str_of(wrong[i]), &day), -EINVAL);
}

static void test_names(void **state)
{
    static const struct {
        const char *name;
        int err;
    } cases[] = {{"", -EINVAL},
                 {"/etc/passwd", -EINVAL},
                 {"../zoneinfo/UTC", -EINVAL},
                 {"Asia/Tokio", -ENOENT},
                 {"Asia Tokyo", -EINVAL}};
    struct zone *z;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(zone_load(str_of(cases[i].name), &z), cases[i].err);
    assert_true(zone_load(STR("Europe"), &z) < 0); /* a directory */
}

/* Cut and changed files are refused or are zones; nothing is read behind their ends. */
static void test_damage(void **state)
{
    uint8_t bytes[65536], *copy;
    FILE *f = fopen("/usr/share/zoneinfo/Europe/Berlin", "r");
    struct rng rng;
    struct zone *z;
    size_t len;

    (void)state;
    assert_non_null(f);
    len = fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    rng_seed(&rng, 2);
    for (size_t n = 0; n < len; n += 7) {
        copy = malloc(n + 1); /* of the right size, for a sanitizer */
        memcpy(copy, bytes, n);
        if (zone_parse(copy, n, &z) == 0)
            zone_free(z);
        free(copy);
    }
    for (int n = 0; n < 3000; n++) {
        copy = malloc(len);
        memcpy(copy, bytes, len);
        for (int i = 0; i < 4; i++)
            copy[rng_below(&rng, i < 2 ? 150 : len)] = (uint8_t)rng_next(&rng);
        if (zone_parse(copy, len, &z) == 0) {
            (void)zone_offset_s(z, 1800000000);
            (void)zone_instant_s(z, INT64_C(4000000000));
            zone_free(z);
        }
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_libc), cmocka_unit_test(test_instants),
        cmocka_unit_test(test_dates), cmocka_unit_test(test_names), cmocka_unit_test(test_damage)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/rng.h"

static void test_table(void **state)
{
    static const struct {
        int64_t wall_ms;
        const char *rfc5322, *rfc3339;
    } cases[] = {
        {0, "Thu, 1 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00.000Z"},
        {1795308557123, "Sun, 22 Nov 2026 00:49:17 +0000", "2026-11-22T00:49:17.123Z"},
        {1709164800000, "Thu, 29 Feb 2024 00:00:00 +0000", "2024-02-29T00:00:00.000Z"},
        {4107542399999, "Sun, 28 Feb 2100 23:59:59 +0000", "2100-02-28T23:59:59.999Z"},
        {4107542400000, "Mon, 1 Mar 2100 00:00:00 +0000", "2100-03-01T00:00:00.000Z"},
        {253402300799999, "Fri, 31 Dec 9999 23:59:59 +0000", "9999-12-31T23:59:59.999Z"},
        {INT64_MAX, "Fri, 31 Dec 9999 23:59:59 +0000", "9999-12-31T23:59:59.999Z"},
        {INT64_MIN, "Thu, 1 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00.000Z"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char a[CLOCK_RFC5322_BYTES], b[CLOCK_RFC3339_BYTES];

        assert_int_equal(clock_rfc5322(cases[i].wall_ms, a), strlen(cases[i].rfc5322));
        assert_string_equal(a, cases[i].rfc5322);
        assert_int_equal(clock_rfc3339(cases[i].wall_ms, b), strlen(cases[i].rfc3339));
        assert_string_equal(b, cases[i].rfc3339);
    }
}

static void test_against_libc(void **state)
{
    struct rng rng;

    (void)state;
    rng_seed(&rng, 1);
    for (int i = 0; i < 50000; i++) {
        int64_t wall_ms = (int64_t)rng_below(&rng, 253402300800000);
        time_t seconds = wall_ms / 1000;
        char want[64], got[CLOCK_RFC5322_BYTES], got_iso[CLOCK_RFC3339_BYTES];
        struct tm tm;

        gmtime_r(&seconds, &tm);
        strftime(want, sizeof(want), "%a, %-d %b %Y %H:%M:%S +0000", &tm);
        clock_rfc5322(wall_ms, got);
        assert_string_equal(got, want);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.", &tm);
        clock_rfc3339(wall_ms, got_iso);
        assert_memory_equal(got_iso, want, 20);
    }
}

static void test_clocks(void **state)
{
    uint64_t mono_ns = clock_mono_ns();
    int64_t drift_ms = clock_wall_ms() - (int64_t)time(NULL) * 1000;

    (void)state;
    assert_true(clock_mono_ns() >= mono_ns);
    assert_true(drift_ms > -1000 && drift_ms < 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_against_libc),
        cmocka_unit_test(test_clocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

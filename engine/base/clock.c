#include "base/clock.h"

#include <string.h>
#include <time.h>

#include "base/zone.h"

#define DAY_MS       86400000
#define WALL_MS_LAST 253402300799999 /* 9999-12-31T23:59:59.999Z */

uint64_t clock_mono_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t clock_thread_cpu_ns(void)
{
    struct timespec had;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &had);
    return (uint64_t)had.tv_sec * 1000000000 + (uint64_t)had.tv_nsec;
}

struct civil {
    unsigned year, month, day, weekday; /* month 1..12, weekday 0 = Sunday */
    unsigned hour, minute, second, ms;
};

/* Not gmtime_r(): glibc takes a process-wide lock in it, and every message asks for a date.
 * Times outside 1970..9999 are shown as the nearest end. */
static struct civil civil_of(int64_t wall_ms)
{
    uint64_t ms = wall_ms < 0 ? 0 : (uint64_t)(wall_ms > WALL_MS_LAST ? WALL_MS_LAST : wall_ms);
    unsigned days = (unsigned)(ms / DAY_MS), rest_ms = (unsigned)(ms % DAY_MS);
    int month, day;
    int32_t year;

    date_of_day((int32_t)days, &year, &month, &day);
    return (struct civil){
        .year = (unsigned)year,
        .month = (unsigned)month,
        .day = (unsigned)day,
        .weekday = (days + 4) % 7,
        .hour = rest_ms / 3600000,
        .minute = rest_ms / 60000 % 60,
        .second = rest_ms / 1000 % 60,
        .ms = rest_ms % 1000,
    };
}

static char *put_digits(char *at, unsigned value, unsigned digits, char after)
{
    for (unsigned i = digits; i-- > 0; value /= 10)
        at[i] = (char)('0' + value % 10);
    at[digits] = after;
    return at + digits + 1;
}

static char *put_name(char *at, const char *names, unsigned index)
{
    memcpy(at, names + (size_t)index * 3, 3);
    return at + 3;
}

size_t clock_rfc5322(int64_t wall_ms, char out[CLOCK_RFC5322_BYTES])
{
    struct civil c = civil_of(wall_ms);
    char *at = put_name(out, "SunMonTueWedThuFriSat", c.weekday);

    *at++ = ',';
    *at++ = ' ';
    at = put_digits(at, c.day, c.day < 10 ? 1 : 2, ' ');
    at = put_name(at, "JanFebMarAprMayJunJulAugSepOctNovDec", c.month - 1);
    *at++ = ' ';
    at = put_digits(at, c.year, 4, ' ');
    at = put_digits(at, c.hour, 2, ':');
    at = put_digits(at, c.minute, 2, ':');
    at = put_digits(at, c.second, 2, ' ');
    memcpy(at, "+0000", 6);
    return (size_t)(at - out) + 5;
}

size_t clock_rfc3339(int64_t wall_ms, char out[CLOCK_RFC3339_BYTES])
{
    struct civil c = civil_of(wall_ms);
    char *at = put_digits(out, c.year, 4, '-');

    at = put_digits(at, c.month, 2, '-');
    at = put_digits(at, c.day, 2, 'T');
    at = put_digits(at, c.hour, 2, ':');
    at = put_digits(at, c.minute, 2, ':');
    at = put_digits(at, c.second, 2, '.');
    at = put_digits(at, c.ms, 3, 'Z');
    *at = '\0';
    return (size_t)(at - out);
}

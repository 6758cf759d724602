#include <errno.h>
#include <string.h>

#include <glib.h>

#include "base/assert.h"
#include "base/zone.h"
#include "mail/trace.h"

#define UNIX_SECONDS_MAX UINT64_C(253402300799) /* end of the year 9999 */
#define TIME_BYTES       64

/* Skips white space, folds and one level of comment. */
static void skip_space(struct str *s)
{
    while (s->len > 0) {
        char c = *s->ptr;

        if (c == '(') {
            ptrdiff_t close = str_find(*s, ')');

            if (close < 0)
                return;
            s->ptr += close;
            s->len -= (size_t)close;
        } else if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
            return;
        }
        s->ptr++;
        s->len--;
    }
}

static bool take_char(struct str *s, char c)
{
    skip_space(s);
    if (s->len == 0 || *s->ptr != c)
        return false;
    s->ptr++;
    s->len--;
    return true;
}

/* A run of letters, or of digits. */
static struct str take_run(struct str *s, bool letters)
{
    struct str run;

    skip_space(s);
    run = (struct str){s->ptr, 0};
    while (run.len < s->len) {
        char c = ascii_lower(run.ptr[run.len]);

        if (letters ? c < 'a' || c > 'z' : c < '0' || c > '9')
            break;
        run.len++;
    }
    s->ptr += run.len;
    s->len -= run.len;
    return run;
}

static bool take_number(struct str *s, size_t digits_min, size_t digits_max, uint64_t max,
                        int64_t *out)
{
    struct str run = take_run(s, false);
    uint64_t value;

    if (run.len < digits_min || run.len > digits_max || str_to_u64(run, max, &value) != 0)
        return false;
    *out = (int64_t)value;
    return true;
}

static int name_index(struct str name, const char *const *names, int names_len)
{
    for (int i = 0; i < names_len; i++)
        if (str_eq_nocase(name, str_of(names[i])))
            return i;
    return -1;
}

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                          "jul", "aug", "sep", "oct", "nov", "dec"};
_Static_assert(ARRAY_LEN(month_names) == 12, "one for each");

/* +hhmm, or a name of RFC 5322 4.3. Unknown names mean -0000, as that section wants. */
static bool take_zone(struct str *s, int64_t *offset_min)
{
    static const char *const names[] = {"cdt", "cst", "edt", "est", "mdt", "mst", "pdt", "pst"};
    static const int hours[] = {-5, -6, -4, -5, -6, -7, -7, -8};
    bool minus = take_char(s, '-');
    int64_t value;
    int named;

    _Static_assert(ARRAY_LEN(names) == ARRAY_LEN(hours), "one for each");
    if (minus || take_char(s, '+')) {
        if (!take_number(s, 4, 4, 2359, &value) || value % 100 > 59)
            return false;
        *offset_min = (value / 100 * 60 + value % 100) * (minus ? -1 : 1);
        return true;
    }
    named = name_index(take_run(s, true), names, ARRAY_LEN(names));
    *offset_min = named < 0 ? 0 : hours[named] * 60;
    return true;
}

static bool day_exists(int64_t year, int month, int64_t day)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    ASSERT(month >= 0 && (size_t)month < ARRAY_LEN(days));
    return day >= 1 && day <= days[month] + (leap && month == 1);
}

static bool take_date(struct str *s, int64_t *days)
{
    int64_t day, year;
    struct str year_text;
    int month;

    take_run(s, true); /* the day of the week is not checked */
    take_char(s, ',');
    if (!take_number(s, 1, 2, 31, &day))
        return false;
    month = name_index(take_run(s, true), month_names, ARRAY_LEN(month_names));
    skip_space(s);
    year_text = *s;
    if (month < 0 || !take_number(s, 2, 4, 9999, &year))
        return false;
    if (year_text.len - s->len == 2) /* RFC 5322 4.3 */
        year += year < 50 ? 2000 : 1900;
    else if (year_text.len - s->len == 3)
        year += 1900;
    if (year < 1900 || !day_exists(year, month, day))
        return false;
    *days = day_of_date((int32_t)year, month + 1, (int)day);
    return true;
}

int trace_date_parse(struct str s, int64_t *wall_ms)
{
    int64_t days, hour, minute, second = 0, zone_min;
    uint64_t unix_s;

    skip_space(&s);
    if (str_to_u64(str_trim(s), UNIX_SECONDS_MAX, &unix_s) == 0) {
        *wall_ms = (int64_t)unix_s * 1000;
        return 0;
    }
    if (!take_date(&s, &days) || !take_number(&s, 1, 2, 23, &hour) || !take_char(&s, ':') ||
        !take_number(&s, 1, 2, 59, &minute))
        return -EINVAL;
    if (take_char(&s, ':') && !take_number(&s, 1, 2, 60, &second))
        return -EINVAL;
    if (!take_zone(&s, &zone_min))
        return -EINVAL;
    skip_space(&s);
    if (s.len > 0)
        return -EINVAL;
    *wall_ms = ((days * 24 + hour) * 60 + minute - zone_min) * 60000 + second * 1000;
    return 0;
}

int trace_time_parse(struct str s, int64_t *wall_ms)
{
    char text[TIME_BYTES] = "";
    GTimeZone *utc;
    GDateTime *date;

    if (s.len < sizeof(text))
        memcpy(text, s.ptr, s.len);
    utc = g_time_zone_new_utc();
    date = g_date_time_new_from_iso8601(text, utc);
    g_time_zone_unref(utc);
    if (date == NULL)
        return trace_date_parse(s, wall_ms);
    *wall_ms = g_date_time_to_unix(date) * 1000 + g_date_time_get_microsecond(date) / 1000;
    g_date_time_unref(date);
    return 0;
}

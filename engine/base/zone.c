#include "base/zone.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX   (256u << 10)
#define NAME_MAX_BYTES   64
#define HEADER_BYTES     44
#define TRANSITIONS_MAX  10000
#define OFFSET_MAX_S     (26 * 3600) /* RFC 8536 3.2: within -25 and +26 hours */
#define RULE_TIME_MAX_S  (167 * 3600)
#define SECONDS_OF_YEARS (INT64_C(100000000) * 366 * DAY_SECONDS)

/* A change of clocks in a year: "M3.5.0/2". */
struct rule {
    enum { RULE_MONTH, RULE_JULIAN, RULE_DAY } kind;
    int month, week,
        day; /* of RULE_MONTH; day alone else: 1 to 365 without 29 February, 0 to 365 */
    int32_t time_s;
};

struct zone {
    size_t len;
    int64_t *at_s;    /* [len] instants from which on */
    int32_t *after_s; /* [len] this is the offset */
    int32_t first_s;  /* the offset before them */
    /* Behind the last transition. */
    bool has_rules;
    int32_t standard_s, summer_s;
    struct rule begins, ends; /* summer time */
};

/* --- dates --- */

/* Howard Hinnant's days_from_civil: years begin in March, so that the leap day is the last. */
int32_t day_of_date(int32_t year, int month, int day)
{
    int64_t y = (int64_t)year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return (int32_t)(era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468);
}

void date_of_day(int32_t number, int32_t *year, int *month, int *day)
{
    int64_t z = (int64_t)number + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t of_era = z - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;

    ASSERT(of_era >= 0 && of_era < 146097 && m >= 0 && m < 12);
    *day = (int)(of_year - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = (int32_t)(y + era * 400 + (*month <= 2));
}

int day_parse(struct str text, int32_t *out)
{
    int numbers[3] = {0}, month, day;
    int32_t number, year;

    if (text.len != 10 || text.ptr[4] != '-' || text.ptr[7] != '-')
        return -EINVAL;
    for (size_t i = 0, n = 0; i < text.len; i++) {
        if (i == 4 || i == 7) {
            n++;
            continue;
        }
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return -EINVAL;
        numbers[n] = numbers[n] * 10 + (text.ptr[i] - '0');
    }
    if (numbers[1] < 1 || numbers[1] > 12 || numbers[2] < 1 || numbers[2] > 31)
        return -EINVAL;
    number = day_of_date(numbers[0], numbers[1], numbers[2]);
    date_of_day(number, &year, &month, &day);
    if (day != numbers[2]) /* 30 February */
        return -EINVAL;
    *out = number;
    return 0;
}

const char *day_text(int32_t number, char out[DAY_TEXT_BYTES])
{
    int32_t year;
    int month, day;

    date_of_day(number, &year, &month, &day);
    snprintf(out, DAY_TEXT_BYTES, "%04d-%02d-%02d", year % 10000, month, day);
    return out;
}

/* --- the rules behind the table (POSIX TZ, as RFC 8536 3.3.1 extends it) --- */

static bool char_take(struct str *in, char c)
{
    if (in->len == 0 || in->ptr[0] != c)
        return false;
    *in = (struct str){in->ptr + 1, in->len - 1};
    return true;
}

static bool take_number(struct str *in, int *out)
{
    int v = 0;
    size_t n = 0;

    while (n < in->len && n < 4 && in->ptr[n] >= '0' && in->ptr[n] <= '9')
        v = v * 10 + (in->ptr[n++] - '0');
    *in = (struct str){in->ptr + n, in->len - n};
    *out = v;
    return n > 0;
}

/* "JST", "<+0330>". */
static bool take_name(struct str *in)
{
    size_t n = 0;

    if (char_take(in, '<')) {
        while (n < in->len && in->ptr[n] != '>')
            n++;
        *in = (struct str){in->ptr + n, in->len - n};
        return char_take(in, '>');
    }
    while (n < in->len && isalpha((unsigned char)in->ptr[n]))
        n++;
    *in = (struct str){in->ptr + n, in->len - n};
    return n >= 3;
}

/* "[+-]hh[:mm[:ss]]" */
static bool take_time(struct str *in, int32_t *out)
{
    int sign = char_take(in, '-') ? -1 : 1, hours, minutes = 0, seconds = 0;

    if (sign > 0)
        (void)char_take(in, '+');
    if (!take_number(in, &hours) || (char_take(in, ':') && !take_number(in, &minutes)) ||
        (char_take(in, ':') && !take_number(in, &seconds)) || hours > RULE_TIME_MAX_S / 3600 ||
        minutes > 59 || seconds > 59)
        return false;
    *out = sign * (hours * 3600 + minutes * 60 + seconds);
    return true;
}

static bool take_rule(struct str *in, struct rule *r)
{
    bool ok;

    *r = (struct rule){.time_s = 2 * 3600};
    if (!char_take(in, ','))
        return false;
    if (char_take(in, 'M')) {
        r->kind = RULE_MONTH;
        ok = take_number(in, &r->month) && char_take(in, '.') && take_number(in, &r->week) &&
             char_take(in, '.') && take_number(in, &r->day) && r->month >= 1 && r->month <= 12 &&
             r->week >= 1 && r->week <= 5 && r->day <= 6;
    } else {
        r->kind = char_take(in, 'J') ? RULE_JULIAN : RULE_DAY;
        ok = take_number(in, &r->day) && r->day <= 365 && (r->kind == RULE_DAY || r->day >= 1);
    }
    return ok && (!char_take(in, '/') || take_time(in, &r->time_s));
}

/* "CET-1CEST,M3.5.0,M10.5.0/3". Empty: the last transition holds for ever. */
static bool parse_rules(struct str text, struct zone *z)
{
    int32_t west;

    if (text.len == 0)
        return true;
    if (!take_name(&text) || !take_time(&text, &west) || abs(west) > OFFSET_MAX_S)
        return false;
    z->has_rules = true;
    z->standard_s = z->summer_s = -west;
    if (text.len == 0)
        return true;
    if (!take_name(&text))
        return false;
    z->summer_s = z->standard_s + 3600;
    if (text.len > 0 && text.ptr[0] != ',') {
        if (!take_time(&text, &west) || abs(west) > OFFSET_MAX_S)
            return false;
        z->summer_s = -west;
    }
    return take_rule(&text, &z->begins) && take_rule(&text, &z->ends) && text.len == 0;
}

static bool is_leap(int32_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* In local time, before the change. */
static int64_t rule_local_s(const struct rule *r, int32_t year)
{
    int32_t day = day_of_date(year, 1, 1);

    if (r->kind == RULE_DAY) {
        day += r->day;
    } else if (r->kind == RULE_JULIAN) {
        day += r->day - 1 + (is_leap(year) && r->day >= 60);
    } else {
        int32_t first = day_of_date(year, r->month, 1);
        int32_t next =
            r->month == 12 ? day_of_date(year + 1, 1, 1) : day_of_date(year, r->month + 1, 1);

        /* 1970-01-01 was a Thursday. */
        day = first + (r->day - (first + 4) % 7 + 7) % 7 + (r->week - 1) * 7;
        while (day >= next)
            day -= 7;
    }
    return (int64_t)day * DAY_SECONDS + r->time_s;
}

static int32_t rules_offset_s(const struct zone *z, int64_t unix_s)
{
    int64_t local = unix_s + z->standard_s, begin, end;
    int32_t year;
    int month, day;
    bool summer;

    if (z->summer_s == z->standard_s)
        return z->standard_s;
    date_of_day((int32_t)(local / DAY_SECONDS - (local % DAY_SECONDS < 0)), &year, &month, &day);
    begin = rule_local_s(&z->begins, year) - z->standard_s;
    end = rule_local_s(&z->ends, year) - z->summer_s;
    summer = begin < end ? unix_s >= begin && unix_s < end : unix_s < end || unix_s >= begin;
    return summer ? z->summer_s : z->standard_s;
}

/* --- the file --- */

struct header {
    uint8_t version;
    uint32_t isut, isstd, leap, times, types, chars;
};

static uint32_t be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int64_t be64(const uint8_t *at)
{
    return (int64_t)((uint64_t)be32(at) << 32 | be32(at + 4));
}

static bool header_parse(const uint8_t *at, size_t len, struct header *h)
{
    if (len < HEADER_BYTES || memcmp(at, "TZif", 4) != 0)
        return false;
    h->version = at[4];
    h->isut = be32(at + 20);
    h->isstd = be32(at + 24);
    h->leap = be32(at + 28);
    h->times = be32(at + 32);
    h->types = be32(at + 36);
    h->chars = be32(at + 40);
    return h->times <= TRANSITIONS_MAX && h->types >= 1 && h->types <= 256 && h->chars <= 4096 &&
           h->leap <= 1000 && h->isut <= 256 && h->isstd <= 256;
}

static size_t data_bytes(const struct header *h, size_t time_bytes)
{
    return h->times * (time_bytes + 1) + h->types * 6 + h->chars + h->leap * (time_bytes + 4) +
           h->isstd + h->isut;
}

/* The transitions of a data block of version 2 or later. */
static bool table_parse(const uint8_t *at, const struct header *h, struct zone *z)
{
    const uint8_t *indexes = at + h->times * 8, *types = indexes + h->times;

    z->at_s = calloc(h->times + 1, sizeof(*z->at_s));
    z->after_s = calloc(h->times + 1, sizeof(*z->after_s));
    if (z->at_s == NULL || z->after_s == NULL)
        return false;
    z->first_s = (int32_t)be32(types);
    z->len = h->times;
    for (size_t i = 0; i < z->len; i++) {
        z->at_s[i] = be64(at + i * 8);
        if (indexes[i] >= h->types || (i > 0 && z->at_s[i] <= z->at_s[i - 1]))
            return false;
        z->after_s[i] = (int32_t)be32(types + indexes[i] * 6);
        if (z->after_s[i] < -OFFSET_MAX_S || z->after_s[i] > OFFSET_MAX_S)
            return false;
    }
    return z->first_s >= -OFFSET_MAX_S && z->first_s <= OFFSET_MAX_S;
}

int zone_parse(const uint8_t *bytes, size_t len, struct zone **out)
{
    struct header h;
    struct zone *z;
    size_t at, end;

    /* The first block is for readers of 32-bit times; the second one follows it. */
    if (!header_parse(bytes, len, &h) || h.version < '2')
        return -EBADMSG;
    at = HEADER_BYTES + data_bytes(&h, 4);
    if (at > len || !header_parse(bytes + at, len - at, &h))
        return -EBADMSG;
    at += HEADER_BYTES;
    end = at + data_bytes(&h, 8);
    if (end + 2 > len || bytes[end] != '\n' || bytes[len - 1] != '\n')
        return -EBADMSG;
    z = calloc(1, sizeof(*z));
    if (z == NULL)
        return -ENOMEM;
    if (!table_parse(bytes + at, &h, z) ||
        !parse_rules((struct str){(const char *)bytes + end + 1, len - end - 2}, z)) {
        zone_free(z);
        return -EBADMSG;
    }
    *out = z;
    return 0;
}

void zone_free(struct zone *z)
{
    if (z == NULL)
        return;
    free(z->at_s);
    free(z->after_s);
    free(z);
}

static bool name_valid(struct str name)
{
    if (name.len == 0 || name.len > NAME_MAX_BYTES || name.ptr[0] == '/')
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!isalnum((unsigned char)name.ptr[i]) && strchr("/_+-", name.ptr[i]) == NULL)
            return false; /* no dot either: no way out of the directory */
    return true;
}

int zone_load(struct str name, struct zone **out)
{
    char path[NAME_MAX_BYTES + 32];
    uint8_t *bytes;
    FILE *file;
    size_t len;
    int err;

    if (!name_valid(name))
        return -EINVAL;
    if (str_eq(name, STR("UTC"))) {
        *out = calloc(1, sizeof(**out));
        return *out == NULL ? -ENOMEM : 0;
    }
    snprintf(path, sizeof(path), "/usr/share/zoneinfo/%.*s", STR_FMT(name));
    file = fopen(path, "re");
    if (file == NULL)
        return -errno;
    bytes = malloc(FILE_BYTES_MAX);
    len = bytes == NULL ? 0 : fread(bytes, 1, FILE_BYTES_MAX, file);
    err = bytes == NULL ? -ENOMEM : ferror(file) ? -ENOENT : zone_parse(bytes, len, out);
    free(bytes);
    fclose(file); /* a directory is no zone */
    return err;
}

int32_t zone_offset_s(const struct zone *z, int64_t unix_s)
{
    size_t low = 0, high = z->len;

    ASSERT(unix_s > -SECONDS_OF_YEARS && unix_s < SECONDS_OF_YEARS);
    while (low < high) { /* the number of transitions up to unix_s */
        size_t middle = low + (high - low) / 2;

        if (z->at_s[middle] <= unix_s)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == z->len && z->has_rules)
        return rules_offset_s(z, unix_s);
    return low == 0 ? z->first_s : z->after_s[low - 1];
}

int64_t zone_instant_s(const struct zone *z, int64_t local_s)
{
    int64_t before = local_s - zone_offset_s(z, local_s - DAY_SECONDS);
    int64_t after = local_s - zone_offset_s(z, local_s + DAY_SECONDS);

    if (before + zone_offset_s(z, before) == local_s)
        return before;
    return after + zone_offset_s(z, after) == local_s ? after : before;
}

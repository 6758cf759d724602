#include "tools/commands/quantity.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/str.h"
#include "config/config_value.h"

#define QUANTITY_TEXT_MAX 30

int quantity_count(const char *text, uint64_t *out)
{
    return config_parse_count(str_of(text), out);
}

int quantity_bytes(const char *text, uint64_t *out)
{
    char with_unit[QUANTITY_TEXT_MAX + 3];
    size_t len = strlen(text);

    if (len == 0 || len > QUANTITY_TEXT_MAX)
        return -EINVAL;
    if (strchr("kKMG", text[len - 1]) == NULL)
        return config_parse_bytes(str_of(text), out);
    len = (size_t)snprintf(with_unit, sizeof(with_unit), "%siB", text);
    if (with_unit[len - 3] == 'k')
        with_unit[len - 3] = 'K';
    return config_parse_bytes((struct str){with_unit, len}, out);
}

int quantity_duration_ms(const char *text, uint64_t *out)
{
    char with_unit[QUANTITY_TEXT_MAX + 2];

    if (*text == '\0' || text[strspn(text, "0123456789.")] != '\0')
        return config_parse_duration(str_of(text), out);
    if (snprintf(with_unit, sizeof(with_unit), "%ss", text) > QUANTITY_TEXT_MAX)
        return -ERANGE;
    return config_parse_duration(str_of(with_unit), out);
}

int quantity_share(const char *text, double *out)
{
    char *end;
    double value;

    if (!isdigit((unsigned char)text[0]) && text[0] != '.')
        return -EINVAL; /* strtod would take spaces, signs, "inf" */
    value = strtod(text, &end);
    if (strcmp(end, "%") == 0)
        value /= 100;
    else if (*end != '\0')
        return -EINVAL;
    if (!(value >= 0 && value <= 1))
        return -ERANGE;
    *out = value;
    return 0;
}

int quantity_time_ms(const char *text, int64_t *out)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S%z", &tm);
    long offset_s = tm.tm_gmtoff;
    int64_t ms;

    if (end == NULL || *end != '\0')
        return -EINVAL;
    ms = ((int64_t)timegm(&tm) - offset_s) * 1000;
    if (ms <= 0)
        return -ERANGE;
    *out = ms;
    return 0;
}

const char *quantity_why(int err)
{
    switch (err) {
    case -EINVAL:
        return "not understood";
    case -ERANGE:
        return "out of range";
    case -EHOSTUNREACH:
        return "no such host";
    case -ENOSPC:
        return "too many";
    case -ENODATA:
        return "empty";
    case -EILSEQ:
        return "not UTF-8";
    default:
        return strerror(-err);
    }
}

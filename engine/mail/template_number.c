/* Filters of numbers, and of numbers and dates as readers of a language write them. As Jinja has
 * them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

#include "mail/locale.h"
#include "mail/template_private.h"

#define ROUND_MAX 15 /* decimals */

/* Whether a text is one number, as Python's int() and float() take it. */
static bool number_of(struct str text, double *out)
{
    char room[64], *end;

    text = str_trim(text);
    if (text.len == 0 || text.len >= sizeof(room) || strchr("+-.0123456789", *text.ptr) == NULL)
        return false;
    for (size_t i = 0; i < text.len; i++)
        if (strchr("+-.eE0123456789", text.ptr[i]) == NULL)
            return false;
    memcpy(room, text.ptr, text.len);
    room[text.len] = '\0';
    *out = g_ascii_strtod(room, &end);
    return *end == '\0' && isfinite(*out);
}

/* The number that v is, or says; false: it is none. */
static bool as_number(const struct value *v, double *out)
{
    if (v->kind == VALUE_INTEGER)
        *out = (double)v->integer;
    else if (v->kind == VALUE_REAL)
        *out = v->real;
    else if (v->kind == VALUE_BOOL)
        *out = v->boolean;
    else
        return v->kind == VALUE_STRING && number_of(v->string, out);
    return isfinite(*out);
}

static struct value integer_value(int64_t n)
{
    return (struct value){.kind = VALUE_INTEGER, .integer = n};
}

static struct value real_value(double n)
{
    return (struct value){.kind = VALUE_REAL, .real = n};
}

/* What is no number becomes args[0], or 0. */
FILTER(filter_int)
{
    double n;

    (void)r, (void)at;
    if (v.kind == VALUE_INTEGER)
        return v;
    if (as_number(&v, &n) && fabs(n) < (double)INT64_MAX)
        return integer_value((int64_t)n);
    return args_len > 0 ? args[0] : integer_value(0);
}

FILTER(filter_float)
{
    double n;

    (void)r, (void)at;
    if (as_number(&v, &n))
        return real_value(n);
    return args_len > 0 ? args[0] : real_value(0);
}

FILTER(filter_abs)
{
    (void)args, (void)args_len;
    if (v.kind == VALUE_INTEGER && v.integer != INT64_MIN)
        return integer_value(v.integer < 0 ? -v.integer : v.integer);
    return v.kind == VALUE_REAL ? real_value(fabs(v.real))
                                : render_fail(r, at, "'abs' takes a number; 'int' makes one");
}

/* Up or down, as a method says. */
static struct value round_to(struct render *r, uint32_t at, struct value v, int decimals,
                             struct value method)
{
    double by = pow(10, decimals), n;

    if (method.kind == VALUE_STRING && str_eq(method.string, STR("common")))
        return filter_round(r, at, v, &(struct value){.kind = VALUE_INTEGER, .integer = decimals},
                            1);
    if (!value_is_number(&v) || !as_number(&v, &n))
        return render_fail(r, at, "'round' takes a number; 'float' makes one");
    if (method.kind == VALUE_STRING && str_eq(method.string, STR("ceil")))
        return real_value(ceil(n * by) / by);
    if (method.kind == VALUE_STRING && str_eq(method.string, STR("floor")))
        return real_value(floor(n * by) / by);
    return render_fail(r, at, "the method of 'round' is 'common', 'ceil' or 'floor'");
}

/* To so many decimals of what the number is exactly, as in Jinja: 2.5 becomes 2. */
FILTER(filter_round)
{
    char format[8], text[400];
    int decimals = 0;

    bool given = args_len > 0 && args[0].kind != VALUE_UNDEFINED;

    if (given &&
        (args[0].kind != VALUE_INTEGER || args[0].integer < 0 || args[0].integer > ROUND_MAX))
        return render_fail(r, at, "the decimals of 'round' are 0 to %d", ROUND_MAX);
    if (given)
        decimals = (int)args[0].integer;
    if (args_len > 1)
        return round_to(r, at, v, decimals, args[1]);
    if (v.kind == VALUE_INTEGER)
        return v;
    if (v.kind != VALUE_REAL)
        return render_fail(r, at, "'round' takes a number; 'float' makes one");
    snprintf(format, sizeof(format), "%%.%df", decimals);
    return real_value(g_ascii_strtod(g_ascii_formatd(text, sizeof(text), format, v.real), NULL));
}

/* --- as readers of a language write it --- */

static const struct locale *locale_of(struct render *r, uint32_t at, struct value name)
{
    const struct locale *l;
    struct buf names = {0};

    name = value_text(r, at, name);
    l = r->failed ? NULL : locale_find(name.string);
    if (l != NULL || r->failed)
        return l;
    locale_put_names(&names);
    render_fail(r, at, "there is no locale '%.*s'; there are %.*s",
                name.string.len > 20 ? 20 : (int)name.string.len, name.string.ptr,
                STR_FMT(buf_str(&names)));
    buf_done(&names);
    return NULL;
}

static bool style_of(struct render *r, uint32_t at, struct value name, enum locale_style *out)
{
    static const char *const styles[] = {
        [LOCALE_SHORT] = "short", [LOCALE_LONG] = "long", [LOCALE_FULL] = "full"};

    _Static_assert(ARRAY_LEN(styles) == LOCALE_STYLES, "one for each");
    name = value_text(r, at, name);
    for (size_t i = 0; i < ARRAY_LEN(styles) && !r->failed; i++)
        if (str_eq(name.string, str_of(styles[i]))) {
            *out = (enum locale_style)i;
            return true;
        }
    render_fail(r, at, "the style of a date is 'short', 'long' or 'full'");
    return false;
}

/* Text of digits is of a list in CSV, whose values are texts. */
static bool date_of(const struct value *v, struct locale_date *out)
{
    bool before = v->string.ptr[0] == '-'; /* 1970 */
    struct str digits = {v->string.ptr + before, v->string.len - before};
    uint64_t seconds;

    if (locale_date_parse(v->string, out) == 0)
        return true;
    if (str_to_u64(digits, INT64_MAX / 2, &seconds) < 0)
        return false;
    *out = locale_date_of(before ? -(int64_t)seconds : (int64_t)seconds);
    return locale_date_valid(out);
}

/* v as text; null is nothing here. */
static struct value some_text(struct render *r, uint32_t at, struct value v)
{
    return v.kind == VALUE_NONE ? (struct value){.kind = VALUE_STRING, .string = STR("")}
                                : value_text(r, at, v);
}

FILTER(filter_date)
{
    const struct locale *l = locale_of(r, at, args[0]);
    enum locale_style style = LOCALE_LONG;
    struct locale_date date;
    struct buf out = {0};

    ASSERT(args_len == 1 || args_len == 2);
    v = some_text(r, at, v);
    if (l == NULL || r->failed || (args_len > 1 && !style_of(r, at, args[1], &style)))
        return v;
    if (v.string.len == 0)
        return v;
    if (!date_of(&v, &date))
        return render_fail(r, at, "'%.*s' is no date, such as 2026-11-28, or Unix seconds",
                           v.string.len > 40 ? 40 : (int)v.string.len, v.string.ptr);
    locale_put_date(&out, l, &date, style);
    return value_of_buf(r, at, &out, false);
}

FILTER(filter_number)
{
    const struct locale *l = locale_of(r, at, args[0]);
    struct value places =
        args_len > 1 ? args[1] : (struct value){.kind = VALUE_INTEGER, .integer = -1};
    struct buf out = {0};

    ASSERT(args_len == 1 || args_len == 2);
    v = some_text(r, at, v);
    if (l == NULL || r->failed || v.string.len == 0 ||
        !render_spend(r, at, v.string.len / LOOKED_PER_STEP))
        return v;
    if (places.kind != VALUE_INTEGER || places.integer > LOCALE_DECIMALS_MAX ||
        (args_len > 1 && places.integer < 0))
        return render_fail(r, at, "the decimals of a number are 0 to %d", LOCALE_DECIMALS_MAX);
    if (locale_put_number(&out, l, v.string, (int)places.integer) < 0)
        render_fail(r, at, "'%.*s' is no number", v.string.len > 40 ? 40 : (int)v.string.len,
                    v.string.ptr);
    return value_of_buf(r, at, &out, false);
}

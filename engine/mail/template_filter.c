/* Filters and tests, as Jinja has them. Letters change their case by GLib's rules, which are those
 * of Unicode. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

#include "mail/locale.h"
#include "mail/template_private.h"

#define ROUND_MAX 15 /* decimals */

/* A copy of what GLib made, or of what is in a buffer, which is freed. */
static struct value from_glib(struct render *r, uint32_t at, char *made, bool safe)
{
    struct value v = value_copy(r, at, str_of(made), safe);

    g_free(made);
    return v;
}

static struct value from_buf(struct render *r, uint32_t at, struct buf *made, bool safe)
{
    struct value v = value_copy(r, at, buf_str(made), safe);

    buf_done(made);
    return v;
}

#define FILTER(name)                                                                               \
    static struct value name(struct render *r, uint32_t at, struct value v,                        \
                             const struct value *args, size_t args_len)

FILTER(filter_upper)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / CASED_PER_STEP))
        return v;
    return from_glib(r, at, g_utf8_strup(v.string.ptr, (gssize)v.string.len), v.safe);
}

FILTER(filter_lower)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / CASED_PER_STEP))
        return v;
    return from_glib(r, at, g_utf8_strdown(v.string.ptr, (gssize)v.string.len), v.safe);
}

static size_t char_len(struct str s)
{
    size_t n = 1;

    while (n < s.len && ((unsigned char)s.ptr[n] & 0xc0) == 0x80)
        n++;
    return n;
}

/* Where the last character of s, which has one, begins. */
static size_t last_char(struct str s)
{
    size_t n = s.len - 1;

    while (((unsigned char)s.ptr[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static bool is_blank(gunichar c)
{
    return g_unichar_isspace(c) || c == '\v' || (c >= 0x1c && c <= 0x1f) || c == 0x85;
}

static bool ends_word(gunichar c)
{
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_blank(c);
}

/* The first letter of each word, or of the text alone, in upper case, the others in lower. */
static struct value begin_upper(struct render *r, uint32_t at, struct value v, bool each_word)
{
    GString *out;
    bool begins = true;

    v = value_text(r, at, v);
    if (!render_spend(r, at, 3 * v.string.len)) /* two allocations for each character */
        return v;
    out = g_string_new(NULL);
    for (size_t i = 0, n; i < v.string.len; i += n) {
        struct str rest = {v.string.ptr + i, v.string.len - i};
        gunichar c = g_utf8_get_char(rest.ptr);
        char *made;

        n = char_len(rest);
        made = begins ? g_utf8_strup(rest.ptr, (gssize)n) : g_utf8_strdown(rest.ptr, (gssize)n);
        g_string_append(out, made);
        g_free(made);
        begins = each_word && ends_word(c);
    }
    return from_glib(r, at, g_string_free(out, FALSE), v.safe);
}

FILTER(filter_title)
{
    (void)args, (void)args_len;
    v = begin_upper(r, at, v, true);
    v.safe = false; /* as in Jinja, whose pieces are plain strings */
    return v;
}

FILTER(filter_capitalize)
{
    (void)args, (void)args_len;
    return begin_upper(r, at, v, false);
}

FILTER(filter_trim)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    (void)render_spend(r, at, v.string.len / LOOKED_PER_STEP);
    while (!r->failed && v.string.len > 0 && is_blank(g_utf8_get_char(v.string.ptr))) {
        size_t n = char_len(v.string);

        v.string.ptr += n;
        v.string.len -= n;
    }
    while (!r->failed && v.string.len > 0) {
        size_t last = last_char(v.string);

        if (!is_blank(g_utf8_get_char(v.string.ptr + last)))
            break;
        v.string.len = last;
    }
    return v;
}

FILTER(filter_length)
{
    int64_t n = 0;

    (void)args, (void)args_len;
    if (v.kind == VALUE_JSON)
        n = (int64_t)(json_is_array(v.json) ? json_array_size(v.json) : json_object_size(v.json));
    else if (v.kind == VALUE_STRING && render_spend(r, at, v.string.len / LOOKED_PER_STEP))
        n = g_utf8_strlen(v.string.ptr, (gssize)v.string.len);
    else if (v.kind != VALUE_STRING && v.kind != VALUE_UNDEFINED)
        return render_fail(r, at, "only texts, lists and objects have a length");
    return (struct value){.kind = VALUE_INTEGER, .integer = n};
}

FILTER(filter_default)
{
    bool take = v.kind == VALUE_UNDEFINED;

    (void)r, (void)at;
    if (args_len > 1 && value_true(&args[1]))
        take = !value_true(&v);
    if (!take)
        return v;
    return args_len > 0 ? args[0] : (struct value){.kind = VALUE_STRING, .string = STR("")};
}

FILTER(filter_escape)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    return r->failed ? v : value_escaped(r, at, v);
}

FILTER(filter_safe)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    v.safe = true;
    return v;
}

FILTER(filter_join)
{
    struct value separator = args_len > 0 ? value_text(r, at, args[0])
                                          : (struct value){.kind = VALUE_STRING, .string = STR("")};
    bool safe = separator.safe && r->t->place == TEMPLATE_HTML;
    struct buf out = {0};

    if (v.kind == VALUE_UNDEFINED)
        return (struct value){.kind = VALUE_STRING, .safe = safe, .string = STR("")};
    if (v.kind != VALUE_JSON || !json_is_array(v.json))
        return render_fail(r, at, "'join' takes a list");
    for (size_t i = 0; !r->failed && i < json_array_size(v.json); i++) {
        struct value one = value_text(r, at, value_of_json(json_array_get(v.json, i)));

        if (safe) /* as Jinja has it: what such a text joins becomes as safe */
            one = value_escaped(r, at, one);
        if (!render_spend(r, at, 1 + one.string.len / LOOKED_PER_STEP) ||
            out.len > r->budget->bytes)
            break;
        if (i > 0)
            buf_put_str(&out, separator.string);
        buf_put_str(&out, one.string);
    }
    return from_buf(r, at, &out, safe);
}

static struct value at_end(struct render *r, uint32_t at, struct value v, bool last)
{
    size_t n;

    if (v.kind == VALUE_JSON && json_is_array(v.json)) {
        n = json_array_size(v.json);
        return value_of_json(n == 0 ? NULL : json_array_get(v.json, last ? n - 1 : 0));
    }
    if (v.kind == VALUE_UNDEFINED || (v.kind == VALUE_STRING && v.string.len == 0))
        return (struct value){0};
    if (v.kind != VALUE_STRING)
        return render_fail(r, at, "only texts and lists have a first and a last");
    n = last ? last_char(v.string) : 0;
    v.string = last ? (struct str){v.string.ptr + n, v.string.len - n}
                    : (struct str){v.string.ptr, char_len(v.string)};
    return v;
}

FILTER(filter_first)
{
    (void)args, (void)args_len;
    return at_end(r, at, v, false);
}

FILTER(filter_last)
{
    (void)args, (void)args_len;
    return at_end(r, at, v, true);
}

FILTER(filter_replace)
{
    struct value from = value_text(r, at, args[0]), to = value_text(r, at, args[1]);
    struct buf out = {0};
    size_t i = 0;

    (void)args_len;
    v = value_text(r, at, v);
    if (r->failed || from.string.len == 0)
        return r->failed ? v : render_fail(r, at, "'replace' of nothing");
    v.safe &= r->t->place == TEMPLATE_HTML;
    if (v.safe) { /* it stays so */
        from = value_escaped(r, at, from);
        to = value_escaped(r, at, to);
    }
    /* memmem() is linear, whatever both are. */
    (void)render_spend(r, at, (v.string.len + from.string.len) / LOOKED_PER_STEP);
    while (i < v.string.len && out.len <= r->budget->bytes && render_spend(r, at, 1)) {
        const char *rest = v.string.ptr + i;
        const char *found = memmem(rest, v.string.len - i, from.string.ptr, from.string.len);
        size_t n = found == NULL ? v.string.len - i : (size_t)(found - rest);

        buf_put(&out, rest, n);
        if (found != NULL)
            buf_put_str(&out, to.string);
        i += n + (found == NULL ? 0 : from.string.len);
    }
    return from_buf(r, at, &out, v.safe);
}

FILTER(filter_urlencode)
{
    static const char hex[] = "0123456789ABCDEF";
    char *room;
    size_t len = 0;

    (void)args, (void)args_len;
    v = value_text(r, at, v);
    room = r->failed ? NULL : render_scratch(r, at, 3 * v.string.len);
    if (room == NULL)
        return (struct value){0};
    for (size_t i = 0; i < v.string.len; i++) {
        char c = v.string.ptr[i];

        if (g_ascii_isalnum(c) || strchr("_.-~/", c) != NULL) {
            room[len++] = c;
            continue;
        }
        room[len++] = '%';
        room[len++] = hex[(unsigned char)c >> 4];
        room[len++] = hex[(unsigned char)c & 15];
    }
    return (struct value){.kind = VALUE_STRING, .string = {room, len}};
}

/* --- numbers --- */

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

/* To so many decimals of what the number is exactly, as in Jinja: 2.5 becomes 2. */
FILTER(filter_round)
{
    char format[8], text[400];
    int decimals = 0;

    if (args_len > 0 &&
        (args[0].kind != VALUE_INTEGER || args[0].integer < 0 || args[0].integer > ROUND_MAX))
        return render_fail(r, at, "the decimals of 'round' are 0 to %d", ROUND_MAX);
    if (args_len > 0)
        decimals = (int)args[0].integer;
    if (v.kind == VALUE_INTEGER)
        return v;
    if (v.kind != VALUE_REAL)
        return render_fail(r, at, "'round' takes a number; 'float' makes one");
    snprintf(format, sizeof(format), "%%.%df", decimals);
    return real_value(g_ascii_strtod(g_ascii_formatd(text, sizeof(text), format, v.real), NULL));
}

FILTER(filter_string)
{
    (void)args, (void)args_len;
    return value_text(r, at, v);
}

/* --- shorter texts --- */

/* Where the first n characters end. */
static size_t chars_end(struct str s, int64_t n)
{
    size_t at = 0;

    while (n-- > 0 && at < s.len)
        at += char_len((struct str){s.ptr + at, s.len - at});
    return at;
}

/* As in Jinja: what is longer than args[0] (255) characters and five more is cut, at a blank if
 * args[1] is not true, and ends with "...". */
FILTER(filter_truncate)
{
    struct buf out = {0};
    int64_t max = args_len > 0 ? args[0].integer : 255;
    bool words = args_len < 2 || !value_true(&args[1]);
    size_t end, blank;

    if (args_len > 0 && (args[0].kind != VALUE_INTEGER || max < 3))
        return render_fail(r, at, "the length of 'truncate' is a number of 3 or more");
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / LOOKED_PER_STEP))
        return v;
    if (chars_end(v.string, max < INT64_MAX - 5 ? max + 5 : max) >= v.string.len)
        return v;
    end = chars_end(v.string, max - 3);
    for (blank = end; words && blank > 0; blank--)
        if (v.string.ptr[blank - 1] == ' ') {
            end = blank - 1;
            break;
        }
    buf_put(&out, v.string.ptr, end);
    buf_puts(&out, "...");
    return from_buf(r, at, &out, v.safe);
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

    v = some_text(r, at, v);
    if (l == NULL || r->failed || (args_len > 1 && !style_of(r, at, args[1], &style)))
        return v;
    if (v.string.len == 0)
        return v;
    if (!date_of(&v, &date))
        return render_fail(r, at, "'%.*s' is no date, such as 2026-11-28, or Unix seconds",
                           v.string.len > 40 ? 40 : (int)v.string.len, v.string.ptr);
    locale_put_date(&out, l, &date, style);
    return from_buf(r, at, &out, false);
}

FILTER(filter_number)
{
    const struct locale *l = locale_of(r, at, args[0]);
    struct value places =
        args_len > 1 ? args[1] : (struct value){.kind = VALUE_INTEGER, .integer = -1};
    struct buf out = {0};

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
    return from_buf(r, at, &out, false);
}

const struct filter template_filters[] = {
    {"abs", 0, 0, filter_abs},
    {"capitalize", 0, 0, filter_capitalize},
    {"count", 0, 0, filter_length},
    {"date", 1, 2, filter_date},
    {"d", 0, 2, filter_default},
    {"default", 0, 2, filter_default},
    {"e", 0, 0, filter_escape},
    {"escape", 0, 0, filter_escape},
    {"first", 0, 0, filter_first},
    {"float", 0, 1, filter_float},
    {"int", 0, 1, filter_int},
    {"join", 0, 1, filter_join},
    {"last", 0, 0, filter_last},
    {"length", 0, 0, filter_length},
    {"lower", 0, 0, filter_lower},
    {"number", 1, 2, filter_number},
    {"replace", 2, 2, filter_replace},
    {"round", 0, 1, filter_round},
    {"safe", 0, 0, filter_safe},
    {"string", 0, 0, filter_string},
    {"title", 0, 0, filter_title},
    {"trim", 0, 0, filter_trim},
    {"truncate", 0, 2, filter_truncate},
    {"upper", 0, 0, filter_upper},
    {"urlencode", 0, 0, filter_urlencode},
};
const size_t template_filters_len = ARRAY_LEN(template_filters);

size_t template_filter_find(struct str name)
{
    size_t i = 0;

    while (i < template_filters_len && !str_eq(name, str_of(template_filters[i].name)))
        i++;
    return i;
}

static bool is_defined(const struct value *v)
{
    return v->kind != VALUE_UNDEFINED;
}

static bool is_undefined(const struct value *v)
{
    return v->kind == VALUE_UNDEFINED;
}

static bool is_none(const struct value *v)
{
    return v->kind == VALUE_NONE;
}

static bool is_string(const struct value *v)
{
    return v->kind == VALUE_STRING;
}

const struct test template_tests[] = {{"defined", is_defined},
                                      {"undefined", is_undefined},
                                      {"none", is_none},
                                      {"string", is_string},
                                      {"number", value_is_number}};
const size_t template_tests_len = ARRAY_LEN(template_tests);

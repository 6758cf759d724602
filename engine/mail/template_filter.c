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

static FILTER(filter_upper)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / CASED_PER_STEP))
        return v;
    return from_glib(r, at, g_utf8_strup(v.string.ptr, (gssize)v.string.len), v.safe);
}

static FILTER(filter_lower)
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

    ASSERT(s.len > 0);
    while (n < s.len && ((unsigned char)s.ptr[n] & 0xc0) == 0x80)
        n++;
    return n;
}

/* Where the last character of s, which has one, begins. */
static size_t last_char(struct str s)
{
    size_t n = s.len - 1;

    while (((unsigned char)s.ptr[n] & 0xc0) == 0x80) {
        ASSERT(n > 0); /* valid UTF-8 */
        n--;
    }
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

static FILTER(filter_title)
{
    (void)args, (void)args_len;
    v = begin_upper(r, at, v, true);
    v.safe = false; /* as in Jinja, whose pieces are plain strings */
    return v;
}

static FILTER(filter_capitalize)
{
    (void)args, (void)args_len;
    return begin_upper(r, at, v, false);
}

static FILTER(filter_trim)
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

static FILTER(filter_length)
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

static FILTER(filter_default)
{
    bool take = v.kind == VALUE_UNDEFINED;

    (void)r, (void)at;
    if (args_len > 1 && value_true(&args[1]))
        take = !value_true(&v);
    if (!take)
        return v;
    return args_len > 0 && args[0].kind != VALUE_UNDEFINED
               ? args[0]
               : (struct value){.kind = VALUE_STRING, .string = STR("")};
}

static FILTER(filter_escape)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    return r->failed ? v : value_escaped(r, at, v);
}

static FILTER(filter_safe)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    v.safe = true;
    return v;
}

static FILTER(filter_join)
{
    struct value separator = args_len > 0 && args[0].kind != VALUE_UNDEFINED
                                 ? value_text(r, at, args[0])
                                 : (struct value){.kind = VALUE_STRING, .string = STR("")};
    bool safe = separator.safe && r->t->place == TEMPLATE_HTML;
    struct buf out = {0};

    if (v.kind == VALUE_UNDEFINED)
        return (struct value){.kind = VALUE_STRING, .safe = safe, .string = STR("")};
    if (v.kind != VALUE_JSON || !json_is_array(v.json))
        return render_fail(r, at, "'join' takes a list");
    if (args_len > 1) {
        const struct value by[] = {{0}, args[1]};

        v = filter_map(r, at, v, by, ARRAY_LEN(by));
    }
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

static FILTER(filter_first)
{
    (void)args, (void)args_len;
    return at_end(r, at, v, false);
}

static FILTER(filter_last)
{
    (void)args, (void)args_len;
    return at_end(r, at, v, true);
}

static FILTER(filter_replace)
{
    struct value from = value_text(r, at, args[0]), to = value_text(r, at, args[1]);
    struct buf out = {0};
    size_t i = 0;

    ASSERT(args_len == 2);
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

static FILTER(filter_urlencode)
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
    ASSERT(len <= 3 * v.string.len);
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
static FILTER(filter_int)
{
    double n;

    (void)r, (void)at;
    if (v.kind == VALUE_INTEGER)
        return v;
    if (as_number(&v, &n) && fabs(n) < (double)INT64_MAX)
        return integer_value((int64_t)n);
    return args_len > 0 ? args[0] : integer_value(0);
}

static FILTER(filter_float)
{
    double n;

    (void)r, (void)at;
    if (as_number(&v, &n))
        return real_value(n);
    return args_len > 0 ? args[0] : real_value(0);
}

static FILTER(filter_abs)
{
    (void)args, (void)args_len;
    if (v.kind == VALUE_INTEGER && v.integer != INT64_MIN)
        return integer_value(v.integer < 0 ? -v.integer : v.integer);
    return v.kind == VALUE_REAL ? real_value(fabs(v.real))
                                : render_fail(r, at, "'abs' takes a number; 'int' makes one");
}

static FILTER(filter_round);

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
static FILTER(filter_round)
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

static FILTER(filter_string)
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
 * args[1] is not true, and ends with args[2] ("..."). */
static FILTER(filter_truncate)
{
    struct buf out = {0};
    bool given = args_len > 0 && args[0].kind != VALUE_UNDEFINED;
    struct value dots = args_len > 2 ? value_text(r, at, args[2])
                                     : (struct value){.kind = VALUE_STRING, .string = STR("...")};
    int64_t max = given ? args[0].integer : 255, dots_len;
    bool words = args_len < 2 || !value_true(&args[1]);
    size_t end, blank;

    dots_len = g_utf8_strlen(dots.string.ptr, (gssize)dots.string.len);
    if (given && (args[0].kind != VALUE_INTEGER || max < dots_len))
        return render_fail(r, at, "the length of 'truncate' is a number of %lld or more",
                           (long long)dots_len);
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / LOOKED_PER_STEP))
        return v;
    if (chars_end(v.string, max < INT64_MAX - 5 ? max + 5 : max) >= v.string.len)
        return v;
    end = chars_end(v.string, max - dots_len);
    ASSERT(end < v.string.len);
    for (blank = end; words && blank > 0; blank--)
        if (v.string.ptr[blank - 1] == ' ') {
            end = blank - 1;
            break;
        }
    buf_put(&out, v.string.ptr, end);
    buf_put_str(&out, dots.string);
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

static FILTER(filter_date)
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
    return from_buf(r, at, &out, false);
}

static FILTER(filter_number)
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
    return from_buf(r, at, &out, false);
}

static FILTER(filter_striptags)
{
    struct buf out = {0};
    bool tag = false, blank = true;

    (void)args, (void)args_len;
    v = value_text(r, at, v);
    (void)render_spend(r, at, v.string.len / LOOKED_PER_STEP);
    for (size_t i = 0; !r->failed && i < v.string.len; i++) {
        char c = v.string.ptr[i];

        tag |= c == '<';
        if (!tag && !(blank && g_ascii_isspace(c)))
            buf_putc(&out, g_ascii_isspace(c) ? ' ' : c);
        if (!tag)
            blank = g_ascii_isspace(c);
        tag &= c != '>';
    }
    while (out.len > 0 && out.data[out.len - 1] == ' ')
        out.len--;
    return from_buf(r, at, &out, false);
}

static FILTER(filter_wordcount)
{
    int64_t n = 0;
    bool word = false;

    (void)args, (void)args_len;
    v = value_text(r, at, v);
    (void)render_spend(r, at, v.string.len / LOOKED_PER_STEP);
    for (const char *s = v.string.ptr; s < v.string.ptr + v.string.len; s = g_utf8_next_char(s)) {
        bool letter = g_unichar_isalnum(g_utf8_get_char(s)) || *s == '_';

        n += letter && !word;
        word = letter;
    }
    return integer_value(n);
}

const struct filter template_filters[] = {
    {"abs", 0, 0, filter_abs, NULL},
    {"batch", 1, 2, filter_batch, "linecount fill_with"},
    {"capitalize", 0, 0, filter_capitalize, NULL},
    {"count", 0, 0, filter_length, NULL},
    {"date", 1, 2, filter_date, "locale style"},
    {"d", 0, 2, filter_default, "default_value boolean"},
    {"default", 0, 2, filter_default, "default_value boolean"},
    {"dictsort", 0, 3, filter_dictsort, "case_sensitive by reverse"},
    {"e", 0, 0, filter_escape, NULL},
    {"escape", 0, 0, filter_escape, NULL},
    {"first", 0, 0, filter_first, NULL},
    {"float", 0, 1, filter_float, "default"},
    {"groupby", 1, 1, filter_groupby, "attribute"},
    {"int", 0, 1, filter_int, "default"},
    {"items", 0, 0, filter_items, NULL},
    {"join", 0, 2, filter_join, "d attribute"},
    {"last", 0, 0, filter_last, NULL},
    {"length", 0, 0, filter_length, NULL},
    {"list", 0, 0, filter_list, NULL},
    {"lower", 0, 0, filter_lower, NULL},
    {"map", 0, 3, filter_map, "filter attribute default"},
    {"max", 0, 2, filter_max, "case_sensitive attribute"},
    {"min", 0, 2, filter_min, "case_sensitive attribute"},
    {"number", 1, 2, filter_number, "locale decimals"},
    {"reject", 0, 2, filter_reject, NULL},
    {"rejectattr", 1, 3, filter_rejectattr, NULL},
    {"replace", 2, 2, filter_replace, "old new"},
    {"reverse", 0, 0, filter_reverse, NULL},
    {"round", 0, 2, filter_round, "precision method"},
    {"safe", 0, 0, filter_safe, NULL},
    {"select", 0, 2, filter_select, NULL},
    {"selectattr", 1, 3, filter_selectattr, NULL},
    {"sort", 0, 3, filter_sort, "reverse case_sensitive attribute"},
    {"string", 0, 0, filter_string, NULL},
    {"striptags", 0, 0, filter_striptags, NULL},
    {"sum", 0, 2, filter_sum, "attribute start"},
    {"title", 0, 0, filter_title, NULL},
    {"trim", 0, 0, filter_trim, NULL},
    {"truncate", 0, 3, filter_truncate, "length killwords end"},
    {"unique", 0, 2, filter_unique, "case_sensitive attribute"},
    {"upper", 0, 0, filter_upper, NULL},
    {"urlencode", 0, 0, filter_urlencode, NULL},
    {"wordcount", 0, 0, filter_wordcount, NULL},
};
const size_t template_filters_len = ARRAY_LEN(template_filters);

/* "loop.cycle('odd', 'even')" */
static FILTER(method_cycle)
{
    ASSERT(args_len > 0);
    if (v.kind != VALUE_LOOP)
        return render_fail(r, at, "only 'loop' has 'cycle'");
    return args[v.loop->index % args_len];
}

const struct filter template_methods[] = {
    {TEMPLATE_FORMAT, 0, TEMPLATE_CALL_MAX, filter_format, NULL},
    {"capitalize", 0, 0, filter_capitalize, NULL},
    {"cycle", 1, TEMPLATE_CALL_MAX, method_cycle, NULL},
    {"endswith", 1, 1, method_endswith, NULL},
    {"format", 0, TEMPLATE_CALL_MAX, method_format, NULL},
    {"get", 1, 2, filter_get, NULL},
    {"items", 0, 0, filter_items, NULL},
    {"join", 1, 1, method_join, NULL},
    {"keys", 0, 0, filter_keys, NULL},
    {"lower", 0, 0, filter_lower, NULL},
    {"replace", 2, 2, filter_replace, NULL},
    {"split", 0, 1, method_split, NULL},
    {"startswith", 1, 1, method_startswith, NULL},
    {"strip", 0, 0, filter_trim, NULL},
    {"title", 0, 0, filter_title, NULL},
    {"upper", 0, 0, filter_upper, NULL},
    {"values", 0, 0, filter_values, NULL},
};
const size_t template_methods_len = ARRAY_LEN(template_methods);

size_t template_filter_find(struct str name)
{
    size_t i = 0;

    while (i < template_filters_len && !str_eq(name, str_of(template_filters[i].name)))
        i++;
    return i;
}

/* --- tests --- */

#define TEST(name)                                                                                 \
    static bool name(struct render *r, uint32_t at, const struct value *v, const struct value *with)

TEST(is_defined)
{
    (void)r, (void)at, (void)with;
    return v->kind != VALUE_UNDEFINED;
}

TEST(is_undefined)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_UNDEFINED;
}

TEST(is_none)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_NONE;
}

TEST(is_string)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_STRING;
}

TEST(is_number)
{
    (void)r, (void)at, (void)with;
    return value_is_number(v);
}

TEST(is_integer)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_INTEGER;
}

TEST(is_float)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_REAL;
}

TEST(is_boolean)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_BOOL;
}

TEST(is_true)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_BOOL && v->boolean;
}

TEST(is_false)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_BOOL && !v->boolean;
}

TEST(is_mapping)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_JSON && json_is_object(v->json);
}

TEST(is_sequence)
{
    (void)r, (void)at, (void)with;
    return v->kind == VALUE_JSON || v->kind == VALUE_STRING || v->kind == VALUE_UNDEFINED;
}

/* Of a whole number: what is left of v divided by n. */
static int64_t left_of(struct render *r, uint32_t at, const struct value *v, const struct value *n)
{
    if (v->kind == VALUE_INTEGER && n->kind == VALUE_INTEGER && n->integer > 0)
        return v->integer % n->integer;
    render_fail(r, at, "this is asked of a whole number");
    return 1;
}

TEST(is_even)
{
    (void)with;
    return left_of(r, at, v, &(struct value){.kind = VALUE_INTEGER, .integer = 2}) == 0;
}

TEST(is_odd)
{
    (void)with;
    return left_of(r, at, v, &(struct value){.kind = VALUE_INTEGER, .integer = 2}) != 0;
}

TEST(is_divisible)
{
    return left_of(r, at, v, with) == 0;
}

TEST(is_equal)
{
    return value_equal(r, at, v, with);
}

TEST(is_not_equal)
{
    return !value_equal(r, at, v, with);
}

TEST(is_in)
{
    return value_in(r, at, *v, *with);
}

static int order_of(struct render *r, uint32_t at, const struct value *v, const struct value *with)
{
    int by;

    if (!value_order(r, at, v, with, &by))
        render_fail(r, at, "only numbers, or only texts, can be less or greater");
    return by;
}

TEST(is_less)
{
    return order_of(r, at, v, with) < 0;
}

TEST(is_at_most)
{
    return order_of(r, at, v, with) <= 0;
}

TEST(is_greater)
{
    return order_of(r, at, v, with) > 0;
}

TEST(is_at_least)
{
    return order_of(r, at, v, with) >= 0;
}

const struct test template_tests[] = {
    {"boolean", is_boolean, false},
    {"defined", is_defined, false},
    {"divisibleby", is_divisible, true},
    {"eq", is_equal, true},
    {"equalto", is_equal, true},
    {"even", is_even, false},
    {"false", is_false, false},
    {"float", is_float, false},
    {"ge", is_at_least, true},
    {"greaterthan", is_greater, true},
    {"gt", is_greater, true},
    {"in", is_in, true},
    {"integer", is_integer, false},
    {"iterable", is_sequence, false},
    {"le", is_at_most, true},
    {"lessthan", is_less, true},
    {"lt", is_less, true},
    {"mapping", is_mapping, false},
    {"ne", is_not_equal, true},
    {"none", is_none, false},
    {"number", is_number, false},
    {"odd", is_odd, false},
    {"sequence", is_sequence, false},
    {"string", is_string, false},
    {"true", is_true, false},
    {"undefined", is_undefined, false},
};
const size_t template_tests_len = ARRAY_LEN(template_tests);

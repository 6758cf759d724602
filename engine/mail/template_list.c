/* Filters and methods of lists and objects, and numbers in texts ("%.2f"), as Jinja and Python have
 * them. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "mail/template_private.h"

#define FORMAT_CHARS_MAX 60 /* of one number */

static struct value json_value(json_t *json)
{
    return json == NULL ? (struct value){0} : (struct value){.kind = VALUE_JSON, .json = json};
}

static struct value string_value(struct str s)
{
    return (struct value){.kind = VALUE_STRING, .string = s};
}

/* v's items as a list: of an object its names, of a text its characters. NULL: it has none, and the
 * rendering has failed. */
static json_t *items_of(struct render *r, uint32_t at, struct value v)
{
    json_t *made, *one;
    const char *key;

    if (v.kind == VALUE_JSON && json_is_array(v.json))
        return v.json;
    made = render_make(r, at, false);
    if (v.kind == VALUE_STRING) {
        for (size_t i = 0, n; i < v.string.len && !r->failed; i += n) {
            for (n = 1; i + n < v.string.len && ((uint8_t)v.string.ptr[i + n] & 0xc0) == 0x80; n++)
                ;
            (void)render_append(r, at, made, string_value((struct str){v.string.ptr + i, n}));
        }
    } else if (v.kind == VALUE_JSON) {
        json_object_foreach(v.json, key, one) if (!r->failed)(void)
            render_append(r, at, made, string_value(str_of(key)));
    } else if (v.kind != VALUE_UNDEFINED) {
        render_fail(r, at, "this takes a list, an object or a text");
    }
    return r->failed ? NULL : made;
}

/* Of a path of names and numbers ("user.tags.0"); empty: of itself. */
static struct value attribute_of(struct render *r, uint32_t at, json_t *of, struct str path)
{
    if (!render_spend(r, at, 1 + path.len / BYTES_PER_STEP))
        return (struct value){0};
    while (path.len > 0 && of != NULL) {
        struct str name = str_take(&path, '.');
        uint64_t index;

        if (json_is_object(of))
            of = json_object_getn(of, name.ptr, name.len);
        else
            of = json_is_array(of) && str_to_u64(name, SIZE_MAX, &index) == 0
                     ? json_array_get(of, (size_t)index)
                     : NULL;
    }
    return value_of_json(of);
}

/* The name in an argument; nothing where it is not given. */
static struct str path_of(struct render *r, uint32_t at, const struct value *args, size_t args_len,
                          size_t n)
{
    char digits[STR_U64_BYTES];

    if (n >= args_len || args[n].kind == VALUE_UNDEFINED || args[n].kind == VALUE_NONE)
        return STR("");
    if (args[n].kind == VALUE_INTEGER && args[n].integer >= 0)
        return value_copy(r, at, str_of_u64((uint64_t)args[n].integer, digits), false).string;
    if (args[n].kind != VALUE_STRING)
        render_fail(r, at, "an attribute is named by a text");
    return args[n].kind == VALUE_STRING ? args[n].string : STR("");
}

static bool is_true(const struct value *args, size_t args_len, size_t n)
{
    return n < args_len && value_true(&args[n]);
}

FILTER(filter_list)
{
    (void)args, (void)args_len;
    return json_value(items_of(r, at, v));
}

/* --- objects --- */

static bool is_object(struct render *r, uint32_t at, const struct value *v)
{
    if (v->kind == VALUE_JSON && json_is_object(v->json))
        return true;
    render_fail(r, at, "only an object has this");
    return false;
}

static bool append_pair(struct render *r, uint32_t at, json_t *list, struct value a, struct value b)
{
    json_t *pair = render_make(r, at, false);

    return pair != NULL && render_append(r, at, pair, a) && render_append(r, at, pair, b) &&
           render_append(r, at, list, json_value(pair));
}

FILTER(filter_items)
{
    json_t *made = render_make(r, at, false), *one;
    const char *key;

    (void)args, (void)args_len;
    if (v.kind == VALUE_UNDEFINED || !is_object(r, at, &v))
        return json_value(made);
    json_object_foreach(v.json, key, one) if (!r->failed)(void)
        append_pair(r, at, made, string_value(str_of(key)), value_of_json(one));
    return json_value(made);
}

FILTER(filter_keys)
{
    (void)args, (void)args_len;
    return is_object(r, at, &v) ? json_value(items_of(r, at, v)) : v;
}

FILTER(filter_values)
{
    json_t *made = render_make(r, at, false), *one;
    const char *key;

    (void)args, (void)args_len;
    if (!is_object(r, at, &v))
        return v;
    json_object_foreach(v.json, key, one) if (!r->failed)(void)
        render_append(r, at, made, value_of_json(one));
    return json_value(made);
}

FILTER(filter_get)
{
    struct value found = {0};

    ASSERT(args_len == 1 || args_len == 2);
    if (!is_object(r, at, &v))
        return v;
    if (args[0].kind == VALUE_STRING)
        found = value_of_json(json_object_getn(v.json, args[0].string.ptr, args[0].string.len));
    if (found.kind != VALUE_UNDEFINED)
        return found;
    return args_len > 1 ? args[1] : (struct value){.kind = VALUE_NONE};
}

/* --- order --- */

struct sorting {
    struct render *r;
    uint32_t at;
    struct str path;
    bool cased, failed;
};

struct sorted {
    json_t *one;
    size_t place;
    struct value key;
};

static int sorted_compare(const void *x, const void *y, void *arg)
{
    const struct sorted *a = x, *b = y;
    struct sorting *s = arg;
    int by = 0;

    if (!s->r->failed && !value_order(s->r, s->at, &a->key, &b->key, &by))
        render_fail(s->r, s->at, "only numbers, or only texts, can be sorted");
    return by != 0 ? by : (a->place > b->place) - (a->place < b->place);
}

/* A text without regard to case, as Jinja sorts. */
static struct value folded(struct render *r, uint32_t at, struct value v)
{
    char *lower;

    if (v.kind != VALUE_STRING || !render_spend(r, at, v.string.len / CASED_PER_STEP))
        return v;
    lower = g_utf8_strdown(v.string.ptr, (gssize)v.string.len);
    v = value_copy(r, at, str_of(lower), v.safe);
    g_free(lower);
    return v;
}

/* list in order of what the path names. */
static struct value sorted(struct sorting *s, json_t *list, bool reverse)
{
    size_t len = json_array_size(list);
    json_t *made = render_make(s->r, s->at, false);
    struct sorted *all;

    ASSERT(json_is_array(list));
    if (made == NULL || !render_spend(s->r, s->at, 20 * len))
        return (struct value){0};
    all = calloc(len + 1, sizeof(*all));
    ASSERT(all != NULL);
    for (size_t i = 0; i < len; i++) {
        all[i] = (struct sorted){.one = json_array_get(list, i), .place = reverse ? len - i : i};
        all[i].key = attribute_of(s->r, s->at, all[i].one, s->path);
        if (!s->cased)
            all[i].key = folded(s->r, s->at, all[i].key);
    }
    qsort_r(all, len, sizeof(*all), sorted_compare, s);
    for (size_t i = 0; i < len && !s->r->failed; i++)
        (void)render_append(s->r, s->at, made, value_of_json(all[reverse ? len - 1 - i : i].one));
    free(all);
    return json_value(made);
}

/* sort(reverse, case_sensitive, attribute) */
FILTER(filter_sort)
{
    struct sorting s = {.r = r, .at = at, .path = path_of(r, at, args, args_len, 2)};
    json_t *list = items_of(r, at, v);

    s.cased = is_true(args, args_len, 1);
    return list == NULL ? v : sorted(&s, list, is_true(args, args_len, 0));
}

/* dictsort(case_sensitive, by, reverse) */
FILTER(filter_dictsort)
{
    struct sorting s = {.r = r, .at = at, .path = STR("0"), .cased = is_true(args, args_len, 0)};
    struct value items = filter_items(r, at, v, NULL, 0);

    if (args_len > 1 && args[1].kind == VALUE_STRING && str_eq(args[1].string, STR("value")))
        s.path = STR("1");
    return r->failed ? items : sorted(&s, items.json, is_true(args, args_len, 2));
}

FILTER(filter_reverse)
{
    json_t *list = items_of(r, at, v), *made = render_make(r, at, false);
    struct buf out = {0};

    (void)args, (void)args_len;
    for (size_t i = json_array_size(list); i > 0 && !r->failed; i--)
        (void)render_append(r, at, made, value_of_json(json_array_get(list, i - 1)));
    if (v.kind != VALUE_STRING || r->failed)
        return json_value(made);
    for (size_t i = 0; i < json_array_size(made); i++)
        buf_puts(&out, json_string_value(json_array_get(made, i)));
    v = value_copy(r, at, buf_str(&out), false);
    buf_done(&out);
    return v;
}

/* unique(case_sensitive, attribute) */
FILTER(filter_unique)
{
    json_t *list = items_of(r, at, v), *made = render_make(r, at, false);
    json_t *seen = render_make(r, at, false);
    struct str path = path_of(r, at, args, args_len, 1);

    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++) {
        json_t *one = json_array_get(list, i);
        struct value key = attribute_of(r, at, one, path);

        if (!is_true(args, args_len, 0))
            key = folded(r, at, key);
        if (value_in(r, at, key, json_value(seen)))
            continue;
        (void)render_append(r, at, seen, key);
        (void)render_append(r, at, made, value_of_json(one));
    }
    return json_value(made);
}

/* min(case_sensitive, attribute) */
static struct value outermost(struct render *r, uint32_t at, struct value v,
                              const struct value *args, size_t args_len, int sign)
{
    json_t *list = items_of(r, at, v), *best = NULL;
    struct str path = path_of(r, at, args, args_len, 1);
    struct value best_key = {0};

    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++) {
        json_t *one = json_array_get(list, i);
        struct value key = attribute_of(r, at, one, path);
        int by = -1;

        if (!is_true(args, args_len, 0))
            key = folded(r, at, key);
        if (best != NULL && !value_order(r, at, &key, &best_key, &by))
            render_fail(r, at, "only numbers, or only texts, can be compared");
        if (best != NULL && by * sign <= 0)
            continue;
        best = one;
        best_key = key;
    }
    return value_of_json(best);
}

FILTER(filter_min)
{
    return outermost(r, at, v, args, args_len, -1);
}

FILTER(filter_max)
{
    return outermost(r, at, v, args, args_len, 1);
}

/* sum(attribute, start) */
FILTER(filter_sum)
{
    json_t *list = items_of(r, at, v);
    struct str path = path_of(r, at, args, args_len, 0);
    struct value sum = args_len > 1 ? args[1] : (struct value){.kind = VALUE_INTEGER};

    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++)
        sum = value_math(r, at, MATH_ADD, sum, attribute_of(r, at, json_array_get(list, i), path));
    return sum;
}

/* --- some of a list --- */

/* map(attribute="name", default=x), map("filter") */
FILTER(filter_map)
{
    json_t *list = items_of(r, at, v), *made = render_make(r, at, false);
    struct str path = path_of(r, at, args, args_len, 1), name = path_of(r, at, args, args_len, 0);
    const struct filter *f = NULL;
    size_t n = template_filter_find(name);

    if (name.len > 0 && n < template_filters_len && template_filters[n].args_min == 0)
        f = &template_filters[n];
    if (path.len == 0 && f == NULL)
        return render_fail(r, at, "'map' takes attribute=\"name\", or the name of a filter");
    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++) {
        struct value one = attribute_of(r, at, json_array_get(list, i), path);

        if (one.kind == VALUE_UNDEFINED && args_len > 2)
            one = args[2];
        (void)render_append(r, at, made,
                            f != NULL && path.len == 0 ? f->run(r, at, one, NULL, 0) : one);
    }
    return json_value(made);
}

/* Those whose attribute passes the test, or is true where there is none. */
static struct value some(struct render *r, uint32_t at, struct value v, struct str path,
                         const struct value *test, const struct value *with, bool wanted)
{
    json_t *list = items_of(r, at, v), *made = render_make(r, at, false);
    struct value nothing = {0};
    size_t n = 0;

    while (test != NULL && n < template_tests_len &&
           !(test->kind == VALUE_STRING && str_eq(test->string, str_of(template_tests[n].name))))
        n++;
    if (n == template_tests_len)
        return render_fail(r, at, "there is no such test");
    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++) {
        json_t *one = json_array_get(list, i);
        struct value key = attribute_of(r, at, one, path);
        bool holds = test == NULL
                         ? value_true(&key)
                         : template_tests[n].holds(r, at, &key, with == NULL ? &nothing : with);

        if (holds == wanted)
            (void)render_append(r, at, made, value_of_json(one));
    }
    return json_value(made);
}

FILTER(filter_select)
{
    return some(r, at, v, STR(""), args_len > 0 ? &args[0] : NULL, args_len > 1 ? &args[1] : NULL,
                true);
}

FILTER(filter_reject)
{
    return some(r, at, v, STR(""), args_len > 0 ? &args[0] : NULL, args_len > 1 ? &args[1] : NULL,
                false);
}

FILTER(filter_selectattr)
{
    return some(r, at, v, path_of(r, at, args, args_len, 0), args_len > 1 ? &args[1] : NULL,
                args_len > 2 ? &args[2] : NULL, true);
}

FILTER(filter_rejectattr)
{
    return some(r, at, v, path_of(r, at, args, args_len, 0), args_len > 1 ? &args[1] : NULL,
                args_len > 2 ? &args[2] : NULL, false);
}

/* batch(n, fill): lists of n. */
FILTER(filter_batch)
{
    json_t *list = items_of(r, at, v), *made = render_make(r, at, false), *row = NULL;
    size_t len = json_array_size(list), n;

    ASSERT(args_len == 1 || args_len == 2);
    if (args[0].kind != VALUE_INTEGER || args[0].integer < 1)
        return render_fail(r, at, "'batch' takes a number of 1 or more");
    n = (uint64_t)args[0].integer > len ? len : (size_t)args[0].integer;
    for (size_t i = 0; i < len && !r->failed; i++) {
        if (i % n == 0 && (row = render_make(r, at, false)) == NULL)
            break;
        (void)render_append(r, at, row, value_of_json(json_array_get(list, i)));
        if ((i + 1) % n == 0 || i + 1 == len) {
            while (args_len > 1 && json_array_size(row) < (size_t)args[0].integer && !r->failed)
                (void)render_append(r, at, row, args[1]);
            (void)render_append(r, at, made, json_value(row));
        }
    }
    return json_value(made);
}

/* groupby("name"): pairs of a value and the list of those that have it. */
FILTER(filter_groupby)
{
    const struct value order[] = {{0}, {0}, args[0]};
    struct str path = path_of(r, at, args, args_len, 0);
    struct value in_order = filter_sort(r, at, v, order, ARRAY_LEN(order)), last = {0}, key;
    json_t *made = render_make(r, at, false), *group = NULL;

    ASSERT(args_len == 1);
    for (size_t i = 0; !r->failed && i < json_array_size(in_order.json); i++) {
        json_t *one = json_array_get(in_order.json, i);
        struct value shown = attribute_of(r, at, one, path);

        key = folded(r, at, shown);
        if (group == NULL || !value_equal(r, at, &key, &last)) {
            group = render_make(r, at, false);
            (void)append_pair(r, at, made, shown, json_value(group));
        }
        last = key;
        (void)render_append(r, at, group, value_of_json(one));
    }
    return json_value(made);
}

/* --- texts --- */

FILTER(method_split)
{
    json_t *made = render_make(r, at, false);
    struct str sign = path_of(r, at, args, args_len, 0);

    v = value_text(r, at, v);
    if (!render_spend(r, at, (v.string.len + sign.len) / LOOKED_PER_STEP))
        return v;
    if (sign.len == 0 && args_len > 0)
        return render_fail(r, at, "'split' by nothing");
    while (sign.len == 0 && !r->failed) { /* words */
        size_t n = 0;

        while (v.string.len > 0 && g_ascii_isspace(*v.string.ptr))
            v.string.ptr++, v.string.len--;
        while (n < v.string.len && !g_ascii_isspace(v.string.ptr[n]))
            n++;
        if (n == 0)
            return json_value(made);
        (void)render_append(r, at, made, string_value((struct str){v.string.ptr, n}));
        v.string.ptr += n;
        v.string.len -= n;
    }
    for (bool more = true; more && !r->failed;) {
        const char *found =
            v.string.len < sign.len ? NULL : memmem(v.string.ptr, v.string.len, sign.ptr, sign.len);
        size_t n = found == NULL ? v.string.len : (size_t)(found - v.string.ptr);

        (void)render_append(r, at, made, string_value((struct str){v.string.ptr, n}));
        more = found != NULL;
        n += more ? sign.len : 0;
        v.string.ptr += n;
        v.string.len -= n;
    }
    return json_value(made);
}

/* ", ".join(list) */
FILTER(method_join)
{
    size_t n = template_filter_find(STR("join"));

    ASSERT(n < template_filters_len && args_len == 1);
    v = value_text(r, at, v);
    return r->failed ? v : template_filters[n].run(r, at, args[0], &v, 1);
}

FILTER(method_startswith)
{
    struct value with = value_text(r, at, args[0]);

    ASSERT(args_len == 1);
    v = value_text(r, at, v);
    return (struct value){.kind = VALUE_BOOL,
                          .boolean = with.string.len == 0 ||
                                     (with.string.len <= v.string.len &&
                                      memcmp(v.string.ptr, with.string.ptr, with.string.len) == 0)};
}

FILTER(method_endswith)
{
    struct value with = value_text(r, at, args[0]);
    size_t len = with.string.len;

    ASSERT(args_len == 1);
    v = value_text(r, at, v);
    return (struct value){
        .kind = VALUE_BOOL,
        .boolean = len == 0 || (len <= v.string.len && memcmp(v.string.ptr + v.string.len - len,
                                                              with.string.ptr, len) == 0)};
}

/* --- numbers in texts --- */

/* As "%05.2f" or "{:>8,.2f}" say it. */
struct format {
    bool left, plus, zero, commas;
    int width, decimals; /* decimals: -1, not given */
    char kind;           /* 's', 'd', 'f', 'x', or '\0' */
};

/* Digits of a number in groups of three. */
static void put_commas(struct buf *out, const char *digits)
{
    size_t whole = strcspn(digits, "."), i = *digits == '-' || *digits == '+';

    buf_put(out, digits, i);
    for (; i < whole; i++) {
        buf_putc(out, digits[i]);
        if ((whole - i - 1) % 3 == 0 && i + 1 < whole)
            buf_putc(out, ',');
    }
    buf_puts(out, digits + whole);
}

static bool is_integer(const struct value *v)
{
    return v->kind == VALUE_INTEGER || v->kind == VALUE_BOOL;
}

static double real_of(const struct value *v)
{
    return v->kind == VALUE_REAL   ? v->real
           : v->kind == VALUE_BOOL ? v->boolean
                                   : (double)v->integer;
}

static void put_number(struct render *r, uint32_t at, struct buf *out, const struct format *f,
                       const struct value *v)
{
    char text[400], *number = text + 1;

    _Static_assert(sizeof(text) > DBL_MAX_10_EXP + 4 + FORMAT_CHARS_MAX, "sign, digits, point");
    if (!value_is_number(v)) {
        render_fail(r, at,
                    "a number is wanted for this format; 'int' and 'float' make one of a text");
        return;
    }
    if ((f->kind == 'd' && fabs(real_of(v)) < 1e18) ||
        (f->kind == '\0' && f->decimals < 0 && is_integer(v)))
        snprintf(number, sizeof(text) - 1, "%lld",
                 v->kind == VALUE_REAL   ? (long long)v->real
                 : v->kind == VALUE_BOOL ? (long long)v->boolean
                                         : (long long)v->integer);
    else if (f->kind == 'x' && is_integer(v))
        snprintf(number, sizeof(text) - 1, "%llx", (unsigned long long)v->integer);
    else if (render_spend(r, at, REAL_STEPS))
        snprintf(number, sizeof(text) - 1, "%.*f", f->decimals < 0 ? 6 : f->decimals, real_of(v));
    else
        return;
    if (f->plus && *number != '-')
        *--number = '+';
    if (f->commas)
        put_commas(out, number);
    else
        buf_puts(out, number);
}

/* One value, in its width. */
static void put_formatted(struct render *r, uint32_t at, struct buf *out, const struct format *f,
                          struct value v)
{
    struct buf one = {0};
    bool is_text = f->kind == 's' || (f->kind == '\0' && !value_is_number(&v));
    size_t width = (size_t)f->width, chars;

    ASSERT(r->failed || (width <= FORMAT_CHARS_MAX && f->decimals <= FORMAT_CHARS_MAX));
    if (is_text || (f->kind == '\0' && f->decimals < 0 && !f->commas)) {
        v = value_text(r, at, v);
        buf_put_str(&one, v.string);
        if (is_text && f->decimals >= 0 && one.len > (size_t)f->decimals)
            one.len =
                (size_t)(g_utf8_offset_to_pointer(
                             (char *)one.data,
                             MIN(f->decimals, g_utf8_strlen((char *)one.data, (gssize)one.len))) -
                         (char *)one.data);
    } else {
        put_number(r, at, &one, f, &v);
    }
    chars = one.len == 0 ? 0 : (size_t)g_utf8_strlen((char *)one.data, (gssize)one.len);
    if (!f->left && !(f->zero && !is_text))
        for (; chars < width; chars++)
            buf_putc(out, ' ');
    if (!is_text && f->zero && one.len > 0 && (*one.data == '-' || *one.data == '+')) {
        buf_putc(out, (char)*one.data);
        buf_consume(&one, 1);
    }
    if (f->zero && !is_text && !f->left)
        for (; chars < width; chars++)
            buf_putc(out, '0');
    buf_put_str(out, buf_str(&one));
    for (; f->left && chars < width; chars++)
        buf_putc(out, ' ');
    buf_done(&one);
}

static int take_count(struct str *s)
{
    int n = 0;

    for (; s->len > 0 && *s->ptr >= '0' && *s->ptr <= '9'; s->ptr++, s->len--)
        n = n <= FORMAT_CHARS_MAX ? n * 10 + *s->ptr - '0' : n;
    return n;
}

static bool take_char(struct str *s, char c)
{
    if (s->len == 0 || *s->ptr != c)
        return false;
    s->ptr++;
    s->len--;
    return true;
}

/* Width, commas and decimals, and at last the kind. False: it is none. */
static bool take_format(struct str *s, struct format *f)
{
    f->width = take_count(s);
    f->commas = take_char(s, ',');
    f->decimals = take_char(s, '.') ? take_count(s) : -1;
    if (s->len > 0 && strchr("sdifx", *s->ptr) != NULL) {
        f->kind = *s->ptr == 'i' ? 'd' : *s->ptr;
        s->ptr++;
        s->len--;
    }
    return f->width <= FORMAT_CHARS_MAX && f->decimals <= FORMAT_CHARS_MAX;
}

/* What a format takes its values from: arguments, or the one list among them. */
static struct value format_value(const struct value *args, size_t args_len, size_t n)
{
    if (args_len == 1 && args[0].kind == VALUE_JSON && json_is_array(args[0].json))
        return value_of_json(json_array_get(args[0].json, n));
    return n < args_len ? args[n] : (struct value){0};
}

/* "%s has %.2f"|format(name, sum); "..." % sum */
FILTER(filter_format)
{
    struct buf out = {0};
    struct str s;
    size_t n = 0;

    v = value_text(r, at, v);
    s = v.string;
    while (s.len > 0 && render_spend(r, at, 1) && out.len <= r->budget->bytes) {
        struct format f = {0};
        struct value one;

        if (!take_char(&s, '%')) {
            ptrdiff_t next = str_find(s, '%');
            size_t len = next < 0 ? s.len : (size_t)next;

            buf_put(&out, s.ptr, len);
            s = (struct str){s.ptr + len, s.len - len};
            continue;
        }
        if (take_char(&s, '%')) {
            buf_putc(&out, '%');
            continue;
        }
        for (bool flag = true; flag;) {
            flag = take_char(&s, '-')   ? (f.left = true)
                   : take_char(&s, '+') ? (f.plus = true)
                   : take_char(&s, '0') ? (f.zero = true)
                                        : take_char(&s, ' ');
        }
        one = format_value(args, args_len, n++);
        if (!take_format(&s, &f) || f.kind == '\0' || f.commas)
            render_fail(r, at, "of formats %%s, %%d, %%f and %%x are taken");
        else if (one.kind == VALUE_UNDEFINED && n > args_len)
            render_fail(r, at, "not enough values for this format");
        else
            put_formatted(r, at, &out, &f, one);
    }
    v = value_copy(r, at, buf_str(&out), v.safe && r->t->place != TEMPLATE_HTML);
    buf_done(&out);
    return v;
}

/* "{} for {:,.2f}".format(name, sum) */
FILTER(method_format)
{
    struct buf out = {0};
    size_t next = 0;
    struct str s;

    v = value_text(r, at, v);
    s = v.string;
    while (s.len > 0 && render_spend(r, at, 1) && out.len <= r->budget->bytes) {
        struct format f = {.decimals = -1};
        uint64_t place = next;

        if (take_char(&s, '}')) {
            buf_putc(&out, '}');
            if (!take_char(&s, '}'))
                render_fail(r, at, "a '}' alone in a format");
            continue;
        }
        if (!take_char(&s, '{')) {
            buf_putc(&out, *s.ptr);
            s = (struct str){s.ptr + 1, s.len - 1};
            continue;
        }
        if (take_char(&s, '{')) {
            buf_putc(&out, '{');
            continue;
        }
        if (s.len > 0 && g_ascii_isdigit(*s.ptr))
            place = (uint64_t)take_count(&s);
        else
            next++;
        if (take_char(&s, ':')) {
            f.left = !take_char(&s, '>') && take_char(&s, '<');
            f.plus = take_char(&s, '+');
            f.zero = take_char(&s, '0');
            if (!take_format(&s, &f))
                render_fail(r, at, "a format that is wider than %d", FORMAT_CHARS_MAX);
        }
        if (!take_char(&s, '}') || place >= args_len)
            render_fail(r, at, "of formats {}, {0} and {:,.2f} are taken, with a value for each");
        else
            put_formatted(r, at, &out, &f, args[place]);
    }
    v = value_copy(r, at, buf_str(&out), false);
    buf_done(&out);
    return v;
}

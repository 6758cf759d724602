/* Values: what they are as texts, how two of them compare, and arithmetic as Python has it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/template_private.h"

struct value value_of_json(json_t *json)
{
    if (json == NULL)
        return (struct value){.kind = VALUE_UNDEFINED};
    switch (json_typeof(json)) {
    case JSON_NULL:
        return (struct value){.kind = VALUE_NONE};
    case JSON_TRUE:
    case JSON_FALSE:
        return (struct value){.kind = VALUE_BOOL, .boolean = json_is_true(json)};
    case JSON_INTEGER:
        return (struct value){.kind = VALUE_INTEGER, .integer = json_integer_value(json)};
    case JSON_REAL:
        return (struct value){.kind = VALUE_REAL, .real = json_real_value(json)};
    case JSON_STRING:
        return (struct value){.kind = VALUE_STRING,
                              .string = {json_string_value(json), json_string_length(json)}};
    case JSON_OBJECT:
    case JSON_ARRAY:
        return (struct value){.kind = VALUE_JSON, .json = json};
    }
    ASSERT(false);
    return (struct value){0};
}

bool value_is_number(const struct value *v)
{
    return v->kind == VALUE_BOOL || v->kind == VALUE_INTEGER || v->kind == VALUE_REAL;
}

bool value_true(const struct value *v)
{
    switch (v->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return v->boolean;
    case VALUE_INTEGER:
        return v->integer != 0;
    case VALUE_REAL:
        return v->real != 0;
    case VALUE_STRING:
        return v->string.len > 0;
    case VALUE_JSON:
        return json_is_array(v->json) ? json_array_size(v->json) > 0
                                      : json_object_size(v->json) > 0;
    case VALUE_LOOP:
    case VALUE_NAMESPACE:
    case VALUE_MACRO:
        return true;
    }
    ASSERT(false);
    return false;
}

struct value value_copy(struct render *r, uint32_t at, struct str text, bool safe)
{
    char *room = render_scratch(r, at, text.len);

    if (room == NULL)
        return (struct value){0};
    if (text.len > 0) /* or its pointer is perhaps none */
        memcpy(room, text.ptr, text.len);
    return (struct value){.kind = VALUE_STRING, .safe = safe, .string = {room, text.len}};
}

struct value value_of_buf(struct render *r, uint32_t at, struct buf *made, bool safe)
{
    struct value v = value_copy(r, at, buf_str(made), safe);

    buf_done(made);
    return v;
}

/* The shortest text that is read as the same number; with a point in Jinja. */
static struct value real_text(struct render *r, uint32_t at, double v)
{
    char text[40];

    if (!render_spend(r, at, REAL_STEPS))
        return (struct value){0};
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    if (r->t->language == TEMPLATE_JINJA && strpbrk(text, ".eni") == NULL)
        strcat(text, ".0");
    return value_copy(r, at, str_of(text), false);
}

struct dump {
    struct render *r;
    uint32_t at;
    struct buf text;
};

/* Of jansson; -1 ends the dump. */
static int on_dump(const char *bytes, size_t len, void *arg)
{
    struct dump *d = arg;

    if (d->text.len + len > d->r->budget->bytes ||
        !render_spend(d->r, d->at, 1 + len / DUMPED_PER_STEP))
        return -1;
    buf_put(&d->text, bytes, len);
    return 0;
}

/* Paid as it grows: lists that have the same list a thousand times are large in text alone. */
static struct value json_text(struct render *r, uint32_t at, json_t *json)
{
    struct dump d = {.r = r, .at = at};
    struct value v = {0};

    if (json_dump_callback(json, on_dump, &d, JSON_ENCODE_ANY) == 0)
        v = value_copy(r, at, buf_str(&d.text), false);
    else
        (void)render_charge(r, at, SIZE_MAX / 2); /* it is more than there may be */
    buf_done(&d.text);
    return v;
}

struct value value_text(struct render *r, uint32_t at, struct value v)
{
    char text[24];

    switch (v.kind) {
    case VALUE_UNDEFINED:
        if (r->t->refuses_missing)
            return render_fail(r, at, "a variable that is not given is to be put out");
        return (struct value){.kind = VALUE_STRING, .string = STR("")};
    case VALUE_NONE:
        return (struct value){.kind = VALUE_STRING,
                              .string = r->t->language == TEMPLATE_JINJA ? STR("none") : STR("")};
    case VALUE_BOOL:
        return (struct value){.kind = VALUE_STRING,
                              .string = v.boolean ? STR("true") : STR("false")};
    case VALUE_INTEGER:
        snprintf(text, sizeof(text), "%lld", (long long)v.integer);
        return value_copy(r, at, str_of(text), false);
    case VALUE_REAL:
        return real_text(r, at, v.real);
    case VALUE_STRING:
        return v;
    case VALUE_JSON:
        return json_text(r, at, v.json);
    case VALUE_LOOP:
        return render_fail(r, at, "'loop' is no text; loop.index is one");
    case VALUE_NAMESPACE:
        return render_fail(r, at, "a namespace is no text, only its members are");
    case VALUE_MACRO:
        return render_fail(r, at, "a macro is no text; behind its name stand parentheses");
    }
    ASSERT(false);
    return (struct value){0};
}

static struct str html_of(char c)
{
    switch (c) {
    case '&':
        return STR("&amp;");
    case '<':
        return STR("&lt;");
    case '>':
        return STR("&gt;");
    case '\'':
        return STR("&#39;");
    case '"':
        return STR("&#34;");
    default:
        return STR("");
    }
}

struct value value_escaped(struct render *r, uint32_t at, struct value v)
{
    size_t len = v.string.len, need;
    char *room;

    ASSERT(r->failed || v.kind == VALUE_STRING);
    if (v.safe)
        return v;
    if (!render_spend(r, at, v.string.len / LOOKED_PER_STEP))
        return (struct value){0};
    for (size_t i = 0; i < v.string.len; i++)
        if (html_of(v.string.ptr[i]).len > 0)
            len += html_of(v.string.ptr[i]).len - 1;
    v.safe = true;
    if (len == v.string.len)
        return v;
    room = render_scratch(r, at, len);
    if (room == NULL)
        return (struct value){0};
    need = len;
    len = 0;
    for (size_t i = 0; i < v.string.len; i++) {
        struct str html = html_of(v.string.ptr[i]);

        memcpy(room + len, html.len > 0 ? html.ptr : v.string.ptr + i, html.len > 0 ? html.len : 1);
        len += html.len > 0 ? html.len : 1;
    }
    ASSERT(len == need);
    v.string = (struct str){room, len};
    return v;
}

double value_number(const struct value *v)
{
    ASSERT(value_is_number(v));
    return v->kind == VALUE_REAL   ? v->real
           : v->kind == VALUE_BOOL ? (double)v->boolean
                                   : (double)v->integer;
}

int64_t value_integer(const struct value *v)
{
    ASSERT(v->kind == VALUE_BOOL || v->kind == VALUE_INTEGER);
    return v->kind == VALUE_BOOL ? v->boolean : v->integer;
}

static int order(struct str a, struct str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int by = n == 0 ? 0 : memcmp(a.ptr, b.ptr, n);

    return by != 0 ? by : (a.len > b.len) - (a.len < b.len);
}

/* As json_equal() has it, a step for each value. As deep as the variables are. */
static bool json_alike(struct render *r, uint32_t at, json_t *a, json_t *b)
{
    const char *key;
    json_t *one;

    if (!render_spend(r, at, 1 + json_string_length(a) / BYTES_PER_STEP) ||
        json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_array(a)) {
        if (json_array_size(a) != json_array_size(b))
            return false;
        for (size_t i = 0; i < json_array_size(a); i++)
            if (!json_alike(r, at, json_array_get(a, i), json_array_get(b, i)))
                return false;
        return true;
    }
    if (!json_is_object(a))
        return json_equal(a, b);
    if (json_object_size(a) != json_object_size(b))
        return false;
    json_object_foreach(a, key, one)
    {
        json_t *other = json_object_get(b, key);

        if (other == NULL || !json_alike(r, at, one, other))
            return false;
    }
    return true;
}

bool value_equal(struct render *r, uint32_t at, const struct value *a, const struct value *b)
{
    if (value_is_number(a) && value_is_number(b))
        return a->kind == VALUE_INTEGER && b->kind == VALUE_INTEGER
                   ? a->integer == b->integer
                   : value_number(a) == value_number(b);
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case VALUE_STRING:
        return render_spend(r, at, a->string.len / BYTES_PER_STEP) && str_eq(a->string, b->string);
    case VALUE_JSON:
        return a->json == b->json || json_alike(r, at, a->json, b->json);
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return true;
    case VALUE_NAMESPACE:
        return a->json == b->json;
    case VALUE_LOOP:
        return a->loop == b->loop;
    case VALUE_MACRO:
        return a->macro == b->macro;
    case VALUE_BOOL:
    case VALUE_INTEGER:
    case VALUE_REAL:
        break;
    }
    return false;
}

bool value_order(struct render *r, uint32_t at, const struct value *a, const struct value *b,
                 int *by)
{
    *by = 0;
    if (value_is_number(a) && value_is_number(b))
        *by = (value_number(a) > value_number(b)) - (value_number(a) < value_number(b));
    else if (a->kind != VALUE_STRING || b->kind != VALUE_STRING)
        return false;
    else if (render_spend(r, at, a->string.len / BYTES_PER_STEP))
        *by = order(a->string, b->string);
    return true;
}

bool value_in(struct render *r, uint32_t at, struct value a, struct value b)
{
    bool found = false;

    if (b.kind == VALUE_STRING && a.kind == VALUE_STRING)
        return (render_spend(r, at, b.string.len / BYTES_PER_STEP) &&
                (a.string.len == 0 ||
                 memmem(b.string.ptr, b.string.len, a.string.ptr, a.string.len) != NULL));
    if (b.kind == VALUE_JSON && json_is_object(b.json))
        return (a.kind == VALUE_STRING && render_spend(r, at, a.string.len / BYTES_PER_STEP) &&
                json_object_getn(b.json, a.string.ptr, a.string.len) != NULL);
    if (b.kind != VALUE_JSON && b.kind != VALUE_UNDEFINED)
        render_fail(r, at, "'in' looks into a list, a text or an object");
    for (size_t i = 0; b.kind == VALUE_JSON && !found && i < json_array_size(b.json); i++) {
        struct value one = value_of_json(json_array_get(b.json, i));

        found = render_spend(r, at, 1) && value_equal(r, at, &a, &one);
    }
    return found;
}

/* As Python has it: "//" and "%" go by the next lower whole number. */
static bool math_integers(enum math which, int64_t a, int64_t b, int64_t *out)
{
    int64_t rest;

    ASSERT(b != 0 || which < MATH_FLOOR);
    switch (which) {
    case MATH_ADD:
        return !__builtin_add_overflow(a, b, out);
    case MATH_SUBTRACT:
        return !__builtin_sub_overflow(a, b, out);
    case MATH_MULTIPLY:
        return !__builtin_mul_overflow(a, b, out);
    case MATH_FLOOR:
    case MATH_MODULO:
        if (b == -1) {
            *out = 0;
            return which == MATH_MODULO || !__builtin_sub_overflow(0, a, out);
        }
        rest = a % b;
        if (which == MATH_MODULO)
            *out = rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
        else
            *out = a / b - (rest != 0 && (rest < 0) != (b < 0));
        return true;
    case MATH_DIVIDE:
        break;
    }
    ASSERT(false); /* what it makes has a fraction */
    return false;
}

static double math_reals(enum math which, double a, double b)
{
    double rest;

    switch (which) {
    case MATH_ADD:
        return a + b;
    case MATH_SUBTRACT:
        return a - b;
    case MATH_MULTIPLY:
        return a * b;
    case MATH_DIVIDE:
        return a / b;
    case MATH_FLOOR:
    case MATH_MODULO:
        rest = fmod(a, b);
        if (rest == 0)
            rest = copysign(0, b);
        else if ((rest < 0) != (b < 0))
            rest += b;
        if (which == MATH_MODULO)
            return rest;
        return a - rest == 0 ? copysign(0, a / b) : round((a - rest) / b);
    }
    ASSERT(false);
    return 0;
}

struct value value_math(struct render *r, uint32_t at, enum math which, struct value a,
                        struct value b)
{
    bool reals = which == MATH_DIVIDE || a.kind == VALUE_REAL || b.kind == VALUE_REAL;
    struct value v = {.kind = reals ? VALUE_REAL : VALUE_INTEGER};

    if (!value_is_number(&a) || !value_is_number(&b))
        return render_fail(r, at,
                           "arithmetic takes numbers; the filters 'int' and 'float' make them of "
                           "texts");
    if (which >= MATH_FLOOR && value_number(&b) == 0)
        return render_fail(r, at, "a division by zero");
    if (reals)
        v.real = math_reals(which, value_number(&a), value_number(&b));
    else if (!math_integers(which, value_integer(&a), value_integer(&b), &v.integer))
        return render_fail(r, at, "a whole number that is too large");
    return !reals || isfinite(v.real) ? v : render_fail(r, at, "a number that is too large");
}

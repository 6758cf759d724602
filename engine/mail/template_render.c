/* Nodes and variables to text. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/template_private.h"

#define SCRATCH_BYTES 1024

struct value render_fail(struct render *r, uint32_t at, const char *format, ...)
{
    va_list args;

    if (!r->failed) {
        template_place_of(r->t, at, r->error);
        va_start(args, format);
        vsnprintf(r->error->text, sizeof(r->error->text), format, args);
        va_end(args);
    }
    r->failed = true;
    return (struct value){0};
}

/* --- the budget --- */

static void budget_spent(struct render *r, uint32_t at, const char *what)
{
    r->spent |= !r->failed;
    render_fail(r, at, "%s", what);
}

bool render_spend(struct render *r, uint32_t at, uint64_t steps)
{
    if (!r->failed && r->budget->steps < steps)
        budget_spent(r, at, "rendering takes more steps than it may");
    if (r->failed)
        return false;
    r->budget->steps -= steps;
    return true;
}

bool render_charge(struct render *r, uint32_t at, size_t bytes)
{
    if (!r->failed && r->budget->bytes < bytes)
        budget_spent(r, at, "the rendered text is longer than it may be");
    if (r->failed)
        return false;
    r->budget->bytes -= bytes;
    return render_spend(r, at, bytes / BYTES_PER_STEP);
}

struct scratch_block {
    struct scratch_block *next;
    size_t used, size;
    char bytes[];
};

static void *room_of(struct render *r, uint32_t at, struct scratch_block **blocks, size_t len)
{
    struct scratch_block *b = *blocks;

    if (!render_charge(r, at, len))
        return NULL;
    if (b == NULL || b->size - b->used < len) {
        size_t size = len > SCRATCH_BYTES ? len : SCRATCH_BYTES;

        b = malloc(sizeof(*b) + size);
        ASSERT(b != NULL);
        *b = (struct scratch_block){.next = *blocks, .size = size};
        *blocks = b;
    }
    b->used += len;
    ASSERT(b->used <= b->size);
    return b->bytes + b->used - len;
}

char *render_scratch(struct render *r, uint32_t at, size_t len)
{
    return room_of(r, at, &r->scratch, len);
}

static void blocks_free(struct scratch_block **blocks)
{
    struct scratch_block *b;

    while ((b = *blocks) != NULL) {
        *blocks = b->next;
        free(b);
    }
}

/* --- values --- */

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

/* --- output --- */

/* In a message's header only the template's own text ends lines: what a variable brings there is
 * one line, whatever it has. The header ends at the first empty line of that text; empty lines in
 * front of it are no part of the message (trace_lead()). */
static void put_header(struct render *r, struct str text, bool own)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (!r->in_header) {
            buf_put(r->out, text.ptr + i, text.len - i);
            return;
        }
        if (!own && (c == '\n' || c == '\r'))
            c = ' ';
        if (c == '\n' && r->began && !r->line_began)
            r->in_header = false;
        r->line_began = c != '\n';
        r->began |= r->line_began;
        buf_putc(r->out, c);
    }
}

static void put_bytes(struct render *r, uint32_t at, struct str text, bool own)
{
    if (!render_charge(r, at, text.len))
        return;
    if (r->in_header)
        put_header(r, text, own);
    else
        buf_put_str(r->out, text);
}

/* Within a partial that is indented. In Mustache its own lines are, not those of values, nor empty
 * ones; in Handlebars all that it puts out. */
static void put_lines(struct render *r, uint32_t at, struct str text, bool own)
{
    bool all = r->t->language == TEMPLATE_HANDLEBARS;

    while (text.len > 0 && !r->failed) {
        ptrdiff_t end = str_find(text, '\n');
        struct str line = {text.ptr, end < 0 ? text.len : (size_t)end + 1};

        if (r->line_starts && (all || *line.ptr != '\n'))
            put_bytes(r, at, buf_str(&r->indent), true);
        r->line_starts = end >= 0 && (own || all);
        put_bytes(r, at, line, own);
        text.ptr += line.len;
        text.len -= line.len;
    }
}

static void put_text(struct render *r, uint32_t at, struct str text, bool own)
{
    if (r->indent.len > 0)
        put_lines(r, at, text, own);
    else
        put_bytes(r, at, text, own);
}

/* --- expressions --- */

const struct frame *render_outer(struct render *r, uint32_t at, const struct frame *f,
                                 size_t name_len, unsigned *walked)
{
    size_t bytes = FRAMES_PER_STEP * name_len;

    if (++*walked % FRAMES_PER_STEP == 0 && !render_spend(r, at, 1 + bytes / BYTES_PER_STEP))
        return NULL;
    return f->outer;
}

/* That is called name, and was set in f. *s: the newest of f, or of a frame around it; behind those
 * of f from here on. */
static struct set *set_find(struct render *r, uint32_t at, struct set **s, const struct frame *f,
                            struct str name)
{
    for (; *s != NULL && (*s)->frame == f; *s = (*s)->older) {
        if (!render_spend(r, at, 1 + name.len / BYTES_PER_STEP))
            return NULL;
        if (str_eq((*s)->name, name))
            return *s;
    }
    return NULL;
}

struct value render_name(struct render *r, uint32_t at, struct str name)
{
    struct set *sets = r->sets, *set = NULL;
    unsigned walked = 0;

    if (r->frame != NULL && !r->frame->macro && str_eq(name, STR("loop")))
        return (struct value){.kind = VALUE_LOOP, .loop = r->frame};
    for (const struct frame *f = r->frame; f != NULL;
         f = render_outer(r, at, f, name.len, &walked)) {
        set = set_find(r, at, &sets, f, name);
        if (set != NULL || str_eq(name, f->name))
            return set != NULL ? set->value : f->value;
    }
    set = set_find(r, at, &sets, NULL, name);
    return set != NULL ? set->value
                       : value_of_json(json_object_getn(r->variables, name.ptr, name.len));
}

static struct value loop_attribute(const struct frame *f, struct str name)
{
    const struct {
        const char *name;
        struct value value;
    } all[] = {
        {"index", {.kind = VALUE_INTEGER, .integer = (int64_t)f->index + 1}},
        {"index0", {.kind = VALUE_INTEGER, .integer = (int64_t)f->index}},
        {"revindex", {.kind = VALUE_INTEGER, .integer = (int64_t)(f->len - f->index)}},
        {"revindex0", {.kind = VALUE_INTEGER, .integer = (int64_t)(f->len - f->index - 1)}},
        {"first", {.kind = VALUE_BOOL, .boolean = f->index == 0}},
        {"last", {.kind = VALUE_BOOL, .boolean = f->index + 1 == f->len}},
        {"length", {.kind = VALUE_INTEGER, .integer = (int64_t)f->len}},
    };

    ASSERT(f->index < f->len && !f->macro); /* its turn */
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (str_eq(name, str_of(all[i].name)))
            return all[i].value;
    if (str_eq(name, STR("previtem")) && f->index > 0)
        return value_of_json(json_array_get(f->list, f->index - 1));
    if (str_eq(name, STR("nextitem")))
        return value_of_json(json_array_get(f->list, f->index + 1));
    return (struct value){0};
}

static struct value attribute(struct render *r, const struct node *node, struct value of)
{
    if (of.kind == VALUE_UNDEFINED)
        return render_fail(r, node->at, "'%.*s' is asked of a variable that is not given",
                           STR_FMT(node->text));
    if (of.kind == VALUE_LOOP)
        return loop_attribute(of.loop, node->text);
    if ((of.kind == VALUE_NAMESPACE || (of.kind == VALUE_JSON && json_is_object(of.json))) &&
        render_spend(r, node->at, node->text.len / BYTES_PER_STEP))
        return value_of_json(json_object_getn(of.json, node->text.ptr, node->text.len));
    return (struct value){0};
}

static struct value item(struct render *r, const struct node *node, struct value of,
                         struct value which)
{
    int64_t i = which.integer;

    if (of.kind == VALUE_UNDEFINED)
        return render_fail(r, node->at, "an item is asked of a variable that is not given");
    if (of.kind != VALUE_JSON)
        return (struct value){0};
    if (which.kind == VALUE_STRING && json_is_object(of.json) &&
        render_spend(r, node->at, which.string.len / BYTES_PER_STEP))
        return value_of_json(json_object_getn(of.json, which.string.ptr, which.string.len));
    if (which.kind != VALUE_INTEGER || !json_is_array(of.json))
        return (struct value){0};
    i += i < 0 ? (int64_t)json_array_size(of.json) : 0;
    return i < 0 ? (struct value){0} : value_of_json(json_array_get(of.json, (size_t)i));
}

static struct value filtered(struct render *r, const struct node *node)
{
    struct value v = render_eval(r, node->a), args[TEMPLATE_ARGS_MAX];
    uint32_t nodes[TEMPLATE_ARGS_MAX] = {node->b, node->c, node->d};
    size_t len = 0;

    ASSERT(node->which < template_filters_len);
    /* One that is not given, in front of one that is, is as a variable that is not given. */
    for (size_t i = 0; i < TEMPLATE_ARGS_MAX; i++) {
        args[i] = nodes[i] != 0 ? render_eval(r, nodes[i]) : (struct value){0};
        len = nodes[i] != 0 ? i + 1 : len;
    }
    return r->failed ? v : template_filters[node->which].run(r, node->at, v, args, len);
}

static double number(const struct value *v)
{
    ASSERT(value_is_number(v));
    return v->kind == VALUE_REAL   ? v->real
           : v->kind == VALUE_BOOL ? (double)v->boolean
                                   : (double)v->integer;
}

static int64_t integer(const struct value *v)
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
        return a->kind == VALUE_INTEGER && b->kind == VALUE_INTEGER ? a->integer == b->integer
                                                                    : number(a) == number(b);
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

static struct value boolean(bool v)
{
    return (struct value){.kind = VALUE_BOOL, .boolean = v};
}

bool value_order(struct render *r, uint32_t at, const struct value *a, const struct value *b,
                 int *by)
{
    *by = 0;
    if (value_is_number(a) && value_is_number(b))
        *by = (number(a) > number(b)) - (number(a) < number(b));
    else if (a->kind != VALUE_STRING || b->kind != VALUE_STRING)
        return false;
    else if (render_spend(r, at, a->string.len / BYTES_PER_STEP))
        *by = order(a->string, b->string);
    return true;
}

static struct value compared(struct render *r, const struct node *node)
{
    struct value a = render_eval(r, node->a), b = render_eval(r, node->b);
    int by;

    ASSERT(node->which <= COMPARE_GE);
    if (node->which == COMPARE_EQ || node->which == COMPARE_NE)
        return boolean(value_equal(r, node->at, &a, &b) == (node->which == COMPARE_EQ));
    if (!value_order(r, node->at, &a, &b, &by))
        return render_fail(r, node->at, "only numbers, or only texts, can be less or greater");
    return boolean(node->which == COMPARE_LT   ? by < 0
                   : node->which == COMPARE_LE ? by <= 0
                   : node->which == COMPARE_GT ? by > 0
                                               : by >= 0);
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

static struct value contained(struct render *r, const struct node *node)
{
    struct value a = render_eval(r, node->a);

    return boolean(value_in(r, node->at, a, render_eval(r, node->b)));
}

/* As Jinja has it: when one of the two is escaped already, both are; by "~" in HTML alone. */
static struct value concatenated(struct render *r, const struct node *node, struct value a,
                                 struct value b)
{
    bool safe = (r->t->place == TEMPLATE_HTML || node->kind == NODE_MATH) && (a.safe || b.safe);
    char *room;

    if (safe) {
        a = value_escaped(r, node->at, a);
        b = value_escaped(r, node->at, b);
    }
    room = render_scratch(r, node->at, a.string.len + b.string.len);
    if (room == NULL)
        return (struct value){0};
    memcpy(room, a.string.ptr, a.string.len);
    memcpy(room + a.string.len, b.string.ptr, b.string.len);
    return (struct value){
        .kind = VALUE_STRING, .safe = safe, .string = {room, a.string.len + b.string.len}};
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

/* A text so many times. */
static struct value repeated(struct render *r, const struct node *node, struct value text,
                             int64_t n)
{
    struct value out = {.kind = VALUE_STRING, .safe = text.safe, .string = STR("")};
    size_t len = text.string.len;
    char *room;

    if (n <= 0 || len == 0)
        return out;
    room = (uint64_t)n > r->budget->bytes / len ? render_scratch(r, node->at, SIZE_MAX / 2)
                                                : render_scratch(r, node->at, (size_t)n * len);
    for (size_t i = 0; room != NULL && i < (size_t)n; i++)
        memcpy(room + i * len, text.string.ptr, len);
    out.string = (struct str){room, room == NULL ? 0 : (size_t)n * len};
    return out;
}

/* The items of both lists. */
static struct value lists_added(struct render *r, const struct node *node, json_t *a, json_t *b)
{
    json_t *both[] = {a, b}, *made = render_make(r, node->at, false);

    for (size_t i = 0; i < ARRAY_LEN(both); i++)
        for (size_t j = 0; !r->failed && j < json_array_size(both[i]); j++)
            (void)render_append(r, node->at, made, value_of_json(json_array_get(both[i], j)));
    return (struct value){.kind = VALUE_JSON, .json = made};
}

/* Both are numbers, or the rendering fails. */
static struct value numbers(struct render *r, uint32_t at, enum math which, struct value a,
                            struct value b)
{
    bool reals = which == MATH_DIVIDE || a.kind == VALUE_REAL || b.kind == VALUE_REAL;
    struct value v = {.kind = reals ? VALUE_REAL : VALUE_INTEGER};

    if (!value_is_number(&a) || !value_is_number(&b))
        return render_fail(r, at,
                           "arithmetic takes numbers; the filters 'int' and 'float' make them of "
                           "texts");
    if (which >= MATH_FLOOR && number(&b) == 0)
        return render_fail(r, at, "a division by zero");
    if (reals)
        v.real = math_reals(which, number(&a), number(&b));
    else if (!math_integers(which, integer(&a), integer(&b), &v.integer))
        return render_fail(r, at, "a whole number that is too large");
    return !reals || isfinite(v.real) ? v : render_fail(r, at, "a number that is too large");
}

struct value value_sum(struct render *r, uint32_t at, struct value a, struct value b)
{
    return numbers(r, at, MATH_ADD, a, b);
}

static struct value calculated(struct render *r, const struct node *node)
{
    struct value a = render_eval(r, node->a), b = render_eval(r, node->b);

    if (node->which == MATH_ADD && a.kind == VALUE_STRING && b.kind == VALUE_STRING)
        return concatenated(r, node, a, b);
    if (node->which == MATH_MULTIPLY && a.kind == VALUE_STRING && b.kind == VALUE_INTEGER)
        return repeated(r, node, a, b.integer);
    if (node->which == MATH_ADD && a.kind == VALUE_JSON && b.kind == VALUE_JSON &&
        json_is_array(a.json) && json_is_array(b.json))
        return lists_added(r, node, a.json, b.json);
    if (node->which == MATH_MODULO && a.kind == VALUE_STRING)
        return filter_format(r, node->at, a, &b, 1);
    return numbers(r, node->at, node->which, a, b);
}

static struct value negative(struct render *r, const struct node *node)
{
    struct value v = render_eval(r, node->a);

    if (!value_is_number(&v))
        return render_fail(r, node->at, "'-' is taken in front of a number");
    if (v.kind == VALUE_REAL)
        return (struct value){.kind = VALUE_REAL, .real = -v.real};
    if (integer(&v) == INT64_MIN)
        return render_fail(r, node->at, "a whole number that is too large");
    return (struct value){.kind = VALUE_INTEGER, .integer = -integer(&v)};
}

static struct value tested(struct render *r, const struct node *node)
{
    struct value v = render_eval(r, node->a), with = {0};

    ASSERT(node->which < template_tests_len);
    if (node->b != 0)
        with = render_eval(r, node->b);
    return boolean(!r->failed && template_tests[node->which].holds(r, node->at, &v, &with));
}

static struct value constant(enum constant which)
{
    ASSERT(which <= CONSTANT_TRUE);
    return which == CONSTANT_NONE ? (struct value){.kind = VALUE_NONE}
                                  : boolean(which == CONSTANT_TRUE);
}

struct value render_eval(struct render *r, uint32_t n)
{
    const struct node *node = &r->t->nodes[n];
    struct value v;

    if (!render_spend(r, node->at, 1))
        return (struct value){0};
    switch ((enum node_kind)node->kind) {
    case NODE_NAME:
        return render_spend(r, node->at, node->text.len / BYTES_PER_STEP)
                   ? render_name(r, node->at, node->text)
                   : (struct value){0};
    case NODE_STRING:
        return (struct value){.kind = VALUE_STRING, .string = node->text};
    case NODE_INTEGER:
        return (struct value){.kind = VALUE_INTEGER, .integer = node->integer};
    case NODE_REAL:
        return (struct value){.kind = VALUE_REAL, .real = node->real};
    case NODE_CONSTANT:
        return constant(node->which);
    case NODE_ATTRIBUTE:
        return attribute(r, node, render_eval(r, node->a));
    case NODE_ITEM:
        v = render_eval(r, node->a);
        return item(r, node, v, render_eval(r, node->b));
    case NODE_FILTER:
        return filtered(r, node);
    case NODE_TEST:
        return tested(r, node);
    case NODE_NOT:
        v = render_eval(r, node->a);
        return boolean(!value_true(&v));
    case NODE_AND:
        v = render_eval(r, node->a);
        return value_true(&v) ? render_eval(r, node->b) : v;
    case NODE_OR:
        v = render_eval(r, node->a);
        return value_true(&v) ? v : render_eval(r, node->b);
    case NODE_COMPARE:
        return compared(r, node);
    case NODE_IN:
        return contained(r, node);
    case NODE_CONCAT:
        v = value_text(r, node->at, render_eval(r, node->a));
        return concatenated(r, node, v, value_text(r, node->at, render_eval(r, node->b)));
    case NODE_MATH:
        return calculated(r, node);
    case NODE_NEGATIVE:
        return negative(r, node);
    case NODE_CHOICE:
        v = render_eval(r, node->b);
        return value_true(&v) ? render_eval(r, node->a)
               : node->c != 0 ? render_eval(r, node->c)
                              : (struct value){0};
    case NODE_SLICE ... NODE_METHOD:
        return call_eval(r, node);
    case NODE_CONTEXT ... NODE_TRUTH:
        return block_eval(r, node);
    case NODE_ARGUMENT:
    case NODE_TEXT ... NODE_PARTIAL:
        break;
    }
    return render_fail(r, node->at, "no expression");
}

/* --- statements --- */

static void run_output(struct render *r, const struct node *node)
{
    struct value v = value_text(r, node->at, render_eval(r, node->a));

    if (r->t->place == TEMPLATE_HTML && node->which == 0)
        v = value_escaped(r, node->at, v);
    if (!r->failed)
        put_text(r, node->at, v.string, false);
}

/* Of a name that is set again, where it was set, the value changes. */
void render_set(struct render *r, uint32_t at, struct str name, struct value v)
{
    struct set *newer = r->sets, *s = set_find(r, at, &newer, r->frame, name);

    if (v.kind == VALUE_STRING) {
        char *room = room_of(r, at, &r->kept, (v.string.len + 7) & ~(size_t)7);

        if (room != NULL && v.string.len > 0)
            memcpy(room, v.string.ptr, v.string.len);
        v.string.ptr = room;
    }
    if (s == NULL || s->nested != r->nested) {
        s = room_of(r, at, &r->kept, sizeof(*s));
        if (s == NULL)
            return;
        ASSERT((uintptr_t)s % _Alignof(struct set) == 0); /* texts there are of whole words */
        *s = (struct set){.older = r->sets, .frame = r->frame, .nested = r->nested, .name = name};
        r->sets = s;
    }
    if (!r->failed)
        s->value = v;
}

/* A statement within an expression (a macro's) frees no scratch of it. In a header what is put out
 * so is put in as a value is, so that it ends no line. */
struct value render_capture(struct render *r, uint32_t at, uint32_t statements)
{
    struct scratch_block *scratch = r->scratch;
    struct buf *out = r->out, made = {0};
    bool in_header = r->in_header;
    struct value v;

    r->scratch = NULL;
    r->out = &made;
    r->in_header = false;
    render_run(r, statements);
    blocks_free(&r->scratch);
    ASSERT(r->out == &made);
    r->scratch = scratch;
    r->out = out;
    r->in_header = in_header;
    v = value_copy(r, at, buf_str(&made), r->t->place == TEMPLATE_HTML);
    buf_done(&made);
    return v;
}

/* The items of a list, or names of an object, for which the condition holds. */
static struct value chosen(struct render *r, const struct node *node, struct frame *frame,
                           struct value of)
{
    const struct node *first = &r->t->nodes[node->b];
    json_t *made = render_make(r, node->at, false);
    struct set *sets = r->sets;
    const char *key;
    json_t *one;
    struct value v;

    r->frame = frame;
    frame->macro = true; /* "loop" is not known yet */
    if (json_is_array(of.json)) {
        for (size_t i = 0; !r->failed && i < json_array_size(of.json); i++) {
            frame->value = value_of_json(json_array_get(of.json, i));
            if (first->kind == NODE_UNPACK && first->a == 0)
                unpack_run(r, first);
            v = render_eval(r, node->d);
            if (value_true(&v))
                (void)render_append(r, node->at, made, frame->value);
            r->sets = sets;
        }
    } else {
        json_object_foreach(of.json, key, one)
        {
            frame->value = (struct value){.kind = VALUE_STRING, .string = str_of(key)};
            v = render_eval(r, node->d);
            if (value_true(&v))
                (void)render_append(r, node->at, made, frame->value);
        }
    }
    ASSERT(r->frame == frame);
    frame->macro = false;
    r->frame = frame->outer;
    return (struct value){.kind = VALUE_JSON, .json = made};
}

static void run_for(struct render *r, const struct node *node)
{
    struct value of = render_eval(r, node->a);
    struct frame frame = {.outer = r->frame, .name = node->text};
    struct set *sets = r->sets;
    void *member = NULL;

    if (of.kind == VALUE_JSON && node->d != 0)
        of = chosen(r, node, &frame, of);
    if (r->failed)
        return;
    if (of.kind == VALUE_JSON && json_is_array(of.json)) {
        frame.list = of.json;
        frame.len = json_array_size(of.json);
    } else if (of.kind == VALUE_JSON) {
        frame.len = json_object_size(of.json);
        member = json_object_iter(of.json);
    } else if (of.kind != VALUE_UNDEFINED && of.kind != VALUE_NONE) {
        render_fail(r, node->at, "'for' goes over lists, and over the names of an object");
    }
    if (frame.len == 0 && node->c != 0)
        render_run(r, node->c);
    for (; frame.index < frame.len && render_spend(r, node->at, 1); frame.index++) {
        if (member == NULL) {
            frame.value = value_of_json(json_array_get(of.json, frame.index));
        } else {
            const char *key = json_object_iter_key(member);

            frame.value = (struct value){.kind = VALUE_STRING, .string = str_of(key)};
            member = json_object_iter_next(of.json, member);
        }
        r->frame = &frame;
        render_run(r, node->b);
        ASSERT(r->frame == &frame);
        r->frame = frame.outer;
        r->sets = sets;
    }
}

static void run_part(struct render *r, const struct node *node, uint32_t first)
{
    struct frame frame = {.outer = r->frame};

    if (node->a == 0 && node->b == 0) {
        render_run(r, first);
        return;
    }
    frame.value = block_context(r, node);
    r->frame = &frame;
    render_run(r, first);
    r->frame = frame.outer;
}

/* One that stands within a line is not indented in Mustache, where the lines around it are, but not
 * its own; in Handlebars all that is put out is. */
static void run_partial(struct render *r, const struct node *node)
{
    bool all = r->t->language == TEMPLATE_HANDLEBARS, hides = !all && node->which == 0;
    size_t outer = r->indent.len;
    struct set *sets = r->sets;
    struct buf hidden = {0};

    ASSERT(node->part > 0 && node->part < r->t->parts_len && r->t->parts[node->part].compiled);
    if (r->nested >= TEMPLATE_NESTED_MAX)
        render_fail(r, node->at, "partials within one another more than %d deep",
                    TEMPLATE_NESTED_MAX);
    if (!render_spend(r, node->at, 1 + node->text.len / BYTES_PER_STEP))
        return;
    if (hides) {
        if (r->line_starts && r->indent.len > 0) /* its line is one of those around it */
            put_bytes(r, node->at, buf_str(&r->indent), true);
        hidden = r->indent;
        r->indent = (struct buf){0};
    }
    buf_put_str(&r->indent, node->text);
    r->line_starts = node->which != 0 || (all && r->line_starts);
    r->nested++;
    run_part(r, node, r->t->parts[node->part].first);
    r->nested--;
    r->sets = sets;
    r->line_starts = node->which != 0 && !all ? true : all && r->line_starts;
    if (hides) {
        buf_done(&r->indent);
        r->indent = hidden;
    } else {
        ASSERT(r->indent.len == outer + node->text.len);
        r->indent.len = outer;
    }
}

void render_run(struct render *r, uint32_t n)
{
    for (; n != 0 && !r->failed; n = r->t->nodes[n].next) {
        const struct node *node = &r->t->nodes[n];
        struct value v;

        switch ((enum node_kind)node->kind) {
        case NODE_TEXT:
            put_text(r, node->at, node->text, true);
            break;
        case NODE_OUTPUT:
            run_output(r, node);
            blocks_free(&r->scratch);
            break;
        case NODE_SET:
            render_set(r, node->at, node->text, render_eval(r, node->a));
            blocks_free(&r->scratch);
            break;
        case NODE_CAPTURE:
            render_set(r, node->at, node->text, render_capture(r, node->at, node->b));
            blocks_free(&r->scratch);
            break;
        case NODE_SET_MEMBER:
            set_member_run(r, node);
            blocks_free(&r->scratch);
            break;
        case NODE_UNPACK:
            unpack_run(r, node);
            break;
        case NODE_MACRO:
            render_set(r, node->at, node->text, (struct value){.kind = VALUE_MACRO, .macro = node});
            break;
        case NODE_IF:
            v = render_eval(r, node->a);
            render_run(r, value_true(&v) ? node->b : node->c);
            break;
        case NODE_FOR:
            run_for(r, node);
            break;
        case NODE_BLOCK:
            block_run(r, node);
            break;
        case NODE_PARTIAL:
            run_partial(r, node);
            break;
        case NODE_NAME ... NODE_TRUTH:
            ASSERT(false); /* a statement */
        }
    }
}

int template_render(const struct template *t, struct json_t *variables,
                    struct template_budget *budget, struct buf *out, struct template_error *error)
{
    struct render r = {.t = t,
                       .variables = variables,
                       .budget = budget,
                       .out = out,
                       .error = error,
                       .in_header = t->place == TEMPLATE_MESSAGE};

    ASSERT(variables == NULL || json_is_object(variables));
    render_run(&r, t->parts[0].first);
    ASSERT(r.nested == 0 && r.frame == NULL && r.out == out && (r.failed || !r.spent));
    blocks_free(&r.scratch);
    blocks_free(&r.kept);
    json_decref(r.made);
    buf_done(&r.indent);
    return r.spent ? -E2BIG : r.failed ? -EINVAL : 0;
}

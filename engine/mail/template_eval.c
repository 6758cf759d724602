/* Expressions of a template to values. */
#include <string.h>

#include "mail/template_private.h"

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

static struct value boolean(bool v)
{
    return (struct value){.kind = VALUE_BOOL, .boolean = v};
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
    return value_math(r, node->at, node->which, a, b);
}

static struct value negative(struct render *r, const struct node *node)
{
    struct value v = render_eval(r, node->a);

    if (!value_is_number(&v))
        return render_fail(r, node->at, "'-' is taken in front of a number");
    if (v.kind == VALUE_REAL)
        return (struct value){.kind = VALUE_REAL, .real = -v.real};
    if (value_integer(&v) == INT64_MIN)
        return render_fail(r, node->at, "a whole number that is too large");
    return (struct value){.kind = VALUE_INTEGER, .integer = -value_integer(&v)};
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

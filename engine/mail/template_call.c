/* What a template of Jinja makes: lists and objects, slices; and what it calls: macros, functions,
 * methods.
 *
 * Lists and objects are of JSON, as the variables are. Those that a template makes live until the
 * rendering ends, since the letter's budget of bytes bounds them. None contains itself: only a
 * namespace is changed behind its making, and a namespace is no item. */
#include <stdlib.h>
#include <string.h>

#include "mail/template_private.h"

#define ITEM_BYTES     64 /* of the budget, for an item */
#define ITEM_STEPS     5  /* likewise: it is allocated, and given back */
#define ITEM_DEPTH_MAX 64 /* lists within lists: what goes through them recurses */

/* --- lists and objects --- */

json_t *render_make(struct render *r, uint32_t at, bool object)
{
    json_t *made = object ? json_object() : json_array();

    if (r->made == NULL)
        r->made = json_array();
    ASSERT(made != NULL && r->made != NULL); /* as in buf_*: memory is fatal */
    if (render_charge(r, at, ITEM_BYTES) && render_spend(r, at, ITEM_STEPS) &&
        json_array_append_new(r->made, made) == 0)
        return made;
    if (r->failed)
        json_decref(made);
    return NULL;
}

/* Whether nothing in it is deeper than left; a step for each value. */
static bool is_flat(struct render *r, uint32_t at, json_t *json, unsigned left)
{
    const char *key;
    json_t *one;
    size_t i;

    if (!json_is_array(json) && !json_is_object(json))
        return true;
    if (left == 0 || !render_spend(r, at, 1 + json_array_size(json) + json_object_size(json)))
        return false;
    json_array_foreach(json, i, one) if (!is_flat(r, at, one, left - 1)) return false;
    json_object_foreach(json, key, one) if (!is_flat(r, at, one, left - 1)) return false;
    return true;
}

json_t *render_item(struct render *r, uint32_t at, struct value v)
{
    if (!render_charge(r, at, ITEM_BYTES) || !render_spend(r, at, ITEM_STEPS))
        return NULL;
    switch (v.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return json_null();
    case VALUE_BOOL:
        return json_boolean(v.boolean);
    case VALUE_INTEGER:
        return json_integer(v.integer);
    case VALUE_REAL:
        return json_real(v.real);
    case VALUE_STRING:
        return render_charge(r, at, v.string.len) ? json_stringn(v.string.ptr, v.string.len) : NULL;
    case VALUE_JSON:
        if (is_flat(r, at, v.json, ITEM_DEPTH_MAX))
            return json_incref(v.json);
        render_fail(r, at, "lists nested more than %d deep", ITEM_DEPTH_MAX);
        return NULL;
    case VALUE_LOOP:
    case VALUE_NAMESPACE:
    case VALUE_MACRO:
        break;
    }
    render_fail(r, at, "'loop', a namespace and a macro are in no list");
    return NULL;
}

bool render_append(struct render *r, uint32_t at, json_t *list, struct value v)
{
    json_t *one = list == NULL ? NULL : render_item(r, at, v);

    return one != NULL && json_array_append_new(list, one) == 0;
}

static struct value json_value(json_t *json)
{
    return json == NULL ? (struct value){0} : (struct value){.kind = VALUE_JSON, .json = json};
}

static struct value list(struct render *r, const struct node *node)
{
    json_t *made = render_make(r, node->at, false);

    for (uint32_t n = node->b; n != 0 && !r->failed; n = r->t->nodes[n].next)
        (void)render_append(r, node->at, made, render_eval(r, r->t->nodes[n].a));
    return json_value(made);
}

bool render_put(struct render *r, uint32_t at, json_t *object, struct str name, struct value v)
{
    json_t *one = object == NULL ? NULL : render_item(r, at, v);

    return one != NULL && render_charge(r, at, name.len) &&
           json_object_setn_new(object, name.ptr, name.len, one) == 0;
}

static struct value object(struct render *r, const struct node *node)
{
    json_t *made = render_make(r, node->at, true);

    for (uint32_t n = node->b; n != 0 && !r->failed; n = r->t->nodes[n].next) {
        const struct node *one = &r->t->nodes[n];
        struct value name = value_text(r, one->at, render_eval(r, one->b));

        if (!r->failed)
            (void)render_put(r, one->at, made, name.string, render_eval(r, one->a));
    }
    return json_value(made);
}

/* --- slices --- */

/* An end of a slice of so many, as Python has it: below 0 from the end. */
static size_t slice_end(struct render *r, uint32_t n, size_t len, size_t otherwise)
{
    struct value v = n == 0 ? (struct value){.kind = VALUE_NONE} : render_eval(r, n);

    if (v.kind == VALUE_NONE)
        return otherwise;
    if (v.kind != VALUE_INTEGER) {
        render_fail(r, r->t->nodes[n].at, "an end of a slice is a whole number");
        return 0;
    }
    if (v.integer < 0)
        return (uint64_t) - (v.integer + 1) + 1 > len ? 0 : len - (size_t)-v.integer;
    return (uint64_t)v.integer > len ? len : (size_t)v.integer;
}

static size_t chars_end(struct str s, size_t chars)
{
    size_t at = 0;

    for (; chars > 0 && at < s.len; chars--)
        for (at++; at < s.len && ((unsigned char)s.ptr[at] & 0xc0) == 0x80; at++)
            ;
    return at;
}

static struct value slice(struct render *r, const struct node *node)
{
    struct value of = render_eval(r, node->a);
    json_t *made;
    size_t len = 0, from, to;

    if (of.kind == VALUE_JSON && json_is_array(of.json))
        len = json_array_size(of.json);
    else if (of.kind == VALUE_STRING && render_spend(r, node->at, of.string.len / LOOKED_PER_STEP))
        for (size_t i = 0; i < of.string.len; i++)
            len += ((unsigned char)of.string.ptr[i] & 0xc0) != 0x80;
    else
        return render_fail(r, node->at, "a slice is of a list or a text");
    from = slice_end(r, node->b, len, 0);
    to = slice_end(r, node->c, len, len);
    to = to < from ? from : to;
    ASSERT(from <= len && to <= len);
    if (of.kind == VALUE_STRING) {
        from = chars_end(of.string, from);
        to = chars_end(of.string, to);
        return value_copy(r, node->at, (struct str){of.string.ptr + from, to - from}, of.safe);
    }
    made = render_make(r, node->at, false);
    for (; from < to && !r->failed; from++)
        (void)render_append(r, node->at, made, value_of_json(json_array_get(of.json, from)));
    return json_value(made);
}

/* --- calls --- */

struct arguments {
    struct value values[TEMPLATE_CALL_MAX];
    struct str names[TEMPLATE_CALL_MAX]; /* or nothing */
    size_t len;
};

static void arguments(struct render *r, uint32_t first, struct arguments *out)
{
    out->len = 0;
    for (uint32_t n = first; n != 0 && !r->failed; n = r->t->nodes[n].next) {
        ASSERT(out->len < TEMPLATE_CALL_MAX); /* compiled so */
        out->names[out->len] = r->t->nodes[n].text;
        out->values[out->len++] = render_eval(r, r->t->nodes[n].a);
    }
}

static struct value method(struct render *r, const struct node *node)
{
    const struct filter *m = &template_methods[node->which];
    struct value of = render_eval(r, node->a);
    struct arguments args;

    ASSERT(node->which < template_methods_len);
    arguments(r, node->b, &args);
    ASSERT(r->failed || (args.len >= m->args_min && args.len <= m->args_max)); /* compiled so */
    for (size_t i = 0; i < args.len && !r->failed; i++)
        if (args.names[i].len > 0)
            render_fail(r, node->at, "the method '%s' takes no named arguments", m->name);
    if (of.kind == VALUE_UNDEFINED)
        return render_fail(r, node->at, "'%s' is asked of a variable that is not given", m->name);
    return r->failed ? of : m->run(r, node->at, of, args.values, args.len);
}

/* range(to), range(from, to), range(from, to, step) */
static struct value call_range(struct render *r, const struct node *node, struct arguments *args)
{
    int64_t from = 0, to = 0, step = 1;
    json_t *made = render_make(r, node->at, false);

    for (size_t i = 0; i < args->len; i++)
        if (args->values[i].kind != VALUE_INTEGER || args->names[i].len > 0)
            return render_fail(r, node->at, "'range' takes whole numbers");
    if (args->len == 0 || args->len > 3)
        return render_fail(r, node->at, "'range' takes 1 to 3 numbers");
    from = args->len > 1 ? args->values[0].integer : 0;
    to = args->values[args->len > 1].integer;
    step = args->len > 2 ? args->values[2].integer : 1;
    if (step == 0)
        return render_fail(r, node->at, "the step of 'range' is 0");
    while (
        (step > 0 ? from < to : from > to) && render_spend(r, node->at, 1) &&
        render_append(r, node->at, made, (struct value){.kind = VALUE_INTEGER, .integer = from}) &&
        !__builtin_add_overflow(from, step, &from))
        ;
    return json_value(made);
}

static struct value call_dict(struct render *r, const struct node *node, struct arguments *args)
{
    json_t *made = render_make(r, node->at, true);

    for (size_t i = 0; i < args->len && !r->failed; i++)
        if (args->names[i].len == 0)
            render_fail(r, node->at, "'%.*s' takes name=value", STR_FMT(node->text));
        else
            (void)render_put(r, node->at, made, args->names[i], args->values[i]);
    return json_value(made);
}

static struct value call_namespace(struct render *r, const struct node *node,
                                   struct arguments *args)
{
    struct value v = call_dict(r, node, args);

    v.kind = v.kind == VALUE_JSON ? VALUE_NAMESPACE : v.kind;
    return v;
}

static const struct function {
    const char *name;
    struct value (*run)(struct render *r, const struct node *node, struct arguments *args);
} functions[] = {{"range", call_range}, {"dict", call_dict}, {"namespace", call_namespace}};

static const struct function *function_find(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(functions); i++)
        if (str_eq(name, str_of(functions[i].name)))
            return &functions[i];
    return NULL;
}

bool template_function_known(struct str name)
{
    return function_find(name) != NULL;
}

/* The argument of a parameter, which is the nth; NULL: none was given. */
static struct value *argument_of(struct arguments *args, struct str name, size_t n)
{
    for (size_t i = 0; i < args->len; i++)
        if (args->names[i].len > 0 ? str_eq(args->names[i], name) : i == n)
            return &args->values[i];
    return NULL;
}

/* Gives each parameter its argument, or its default, which may name those before it. */
static void parameters(struct render *r, const struct node *macro, struct arguments *args)
{
    size_t n = 0, used = 0;

    for (uint32_t i = macro->a; i != 0 && !r->failed; i = r->t->nodes[i].next, n++) {
        const struct node *one = &r->t->nodes[i];
        struct value *given = argument_of(args, one->text, n);

        used += given != NULL;
        if (given != NULL)
            render_set(r, one->at, one->text, *given);
        else
            render_set(r, one->at, one->text,
                       one->a != 0 ? render_eval(r, one->a) : (struct value){0});
    }
    if (used < args->len)
        render_fail(r, macro->at, "the macro '%.*s' has no such parameters", STR_FMT(macro->text));
}

/* A macro knows what the template set outside of loops and macros, and its parameters. */
static struct value call_macro(struct render *r, const struct node *node, const struct node *macro,
                               struct arguments *args)
{
    const struct frame *frame = r->frame;
    struct frame own = {.macro = true};
    struct set *sets = r->sets;
    struct value v;

    if (r->nested++ >= TEMPLATE_NESTED_MAX)
        render_fail(r, node->at, "macros within one another more than %d deep",
                    TEMPLATE_NESTED_MAX);
    while (r->sets != NULL && r->sets->frame != NULL && render_spend(r, node->at, 1))
        r->sets = r->sets->older;
    r->frame = &own;
    parameters(r, macro, args);
    v = render_capture(r, node->at, macro->b);
    ASSERT(r->frame == &own);
    r->nested--;
    r->frame = frame;
    r->sets = sets;
    return v;
}

static struct value call(struct render *r, const struct node *node)
{
    struct value macro = render_name(r, node->at, node->text);
    const struct function *f = function_find(node->text);
    struct arguments args;

    arguments(r, node->b, &args);
    if (r->failed)
        return macro;
    if (macro.kind == VALUE_MACRO)
        return call_macro(r, node, macro.macro, &args);
    if (f != NULL && macro.kind == VALUE_UNDEFINED)
        return f->run(r, node, &args);
    return render_fail(r, node->at, "'%.*s' is no macro here", STR_FMT(node->text));
}

struct value call_eval(struct render *r, const struct node *node)
{
    switch ((enum node_kind)node->kind) {
    case NODE_SLICE:
        return slice(r, node);
    case NODE_LIST:
        return list(r, node);
    case NODE_OBJECT:
        return object(r, node);
    case NODE_CALL:
        return call(r, node);
    case NODE_METHOD:
        return method(r, node);
    case NODE_TEXT ... NODE_ITEM:
    case NODE_ARGUMENT ... NODE_TRUTH:
        break;
    }
    return render_fail(r, node->at, "no expression");
}

/* --- statements --- */

void unpack_run(struct render *r, const struct node *node)
{
    struct value of = node->a != 0 ? render_eval(r, node->a) : r->frame->value;
    size_t i = 0, len = 0;

    ASSERT(node->b != 0); /* parse_targets() */
    for (uint32_t n = node->b; n != 0; n = r->t->nodes[n].next)
        len++;
    if (!r->failed &&
        (of.kind != VALUE_JSON || !json_is_array(of.json) || json_array_size(of.json) != len))
        render_fail(r, node->at,
                    "%zu names want a list of as many; 'items()' makes them of an object", len);
    for (uint32_t n = node->b; n != 0 && !r->failed; n = r->t->nodes[n].next)
        render_set(r, node->at, r->t->nodes[n].text, value_of_json(json_array_get(of.json, i++)));
}

void set_member_run(struct render *r, const struct node *node)
{
    struct value of = render_eval(r, node->b), v = render_eval(r, node->a);

    if (of.kind != VALUE_NAMESPACE)
        render_fail(r, node->at, "what has members that can be set is made by 'namespace()'");
    else if (!r->failed) {
        ASSERT(r->made != NULL); /* it has the namespace */
        /* What is evaluated at present may have the old value, a text: a macro runs within it. */
        (void)json_array_append(r->made, json_object_getn(of.json, node->text.ptr, node->text.len));
        (void)render_put(r, node->at, of.json, node->text, v);
    }
}

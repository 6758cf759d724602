/* What Mustache and Handlebars have beside Jinja: contexts, in which names are looked up, and
 * blocks that open them. */
#include <string.h>

#include "mail/template_private.h"

static struct value integer(size_t v)
{
    return (struct value){.kind = VALUE_INTEGER, .integer = (int64_t)v};
}

static struct value boolean(bool v)
{
    return (struct value){.kind = VALUE_BOOL, .boolean = v};
}

/* Handlebars takes an empty object for true. */
static bool holds(const struct value *v)
{
    return (v->kind == VALUE_JSON && json_is_object(v->json)) || value_true(v);
}

/* --- names --- */

static struct value member(struct render *r, uint32_t at, const struct value *of, struct str name)
{
    uint64_t index;

    if (of->kind != VALUE_JSON || !render_spend(r, at, 1 + name.len / BYTES_PER_STEP))
        return (struct value){0};
    if (json_is_object(of->json))
        return value_of_json(json_object_getn(of->json, name.ptr, name.len));
    if (str_eq(name, STR("length")))
        return integer(json_array_size(of->json));
    if (str_to_u64(name, SIZE_MAX, &index) < 0)
        return (struct value){0};
    return value_of_json(json_array_get(of->json, (size_t)index));
}

static struct value context_value(const struct render *r, const struct frame *f)
{
    return f != NULL ? f->value : value_of_json(r->variables);
}

/* The context that is n further out. A block that opens the context that it stands in does not
 * count, as in Handlebars. */
static struct value context(struct render *r, uint32_t at, unsigned n)
{
    const struct frame *f = r->frame;
    unsigned walked = 0;

    for (; f != NULL && n > 0; f = render_outer(r, at, f, 0, &walked)) {
        struct value inner = f->value, outer = context_value(r, f->outer);

        n -= inner.kind != VALUE_JSON || outer.kind != VALUE_JSON || inner.json != outer.json;
    }
    return n > 0 ? (struct value){0} : context_value(r, f);
}

/* By the names behind "as". */
static bool named(struct render *r, uint32_t at, struct str name, struct value *out)
{
    unsigned walked = 0;

    for (const struct frame *f = r->frame; f != NULL;
         f = render_outer(r, at, f, name.len, &walked)) {
        struct str rest = f->name;

        for (int i = 0; i < 2 && rest.len > 0; i++) {
            struct str one = str_take(&rest, ' ');

            rest = str_trim(rest);
            if (!str_eq(one, name))
                continue;
            *out = i == 0               ? f->value
                   : f->key.ptr != NULL ? (struct value){.kind = VALUE_STRING, .string = f->key}
                                        : integer(f->index);
            return true;
        }
    }
    return false;
}

/* In Mustache a name is looked for in the nearest context that has it, in Handlebars in the present
 * context alone. */
static struct value field(struct render *r, const struct node *node)
{
    const struct frame *f = r->frame;
    struct value found, of;
    unsigned walked = 0;

    if (r->t->language == TEMPLATE_HANDLEBARS) {
        if (named(r, node->at, node->text, &found))
            return found;
        of = context(r, node->at, 0);
        return member(r, node->at, &of, node->text);
    }
    for (;; f = render_outer(r, node->at, f, 0, &walked)) {
        of = context_value(r, f);
        found = member(r, node->at, &of, node->text);
        if (f == NULL || found.kind != VALUE_UNDEFINED || r->failed)
            return found;
    }
}

/* "@index" and its like, of the nth loop further out. */
static struct value data(struct render *r, const struct node *node)
{
    const struct frame *f = r->frame;
    unsigned n = node->which, walked = 0;

    if (str_eq(node->text, STR("root")))
        return value_of_json(r->variables);
    for (; f != NULL && (!f->loop || n > 0); f = render_outer(r, node->at, f, 0, &walked))
        n -= f->loop;
    if (f == NULL)
        return (struct value){0};
    if (str_eq(node->text, STR("index")))
        return integer(f->index);
    if (str_eq(node->text, STR("key")))
        return f->key.ptr != NULL ? (struct value){.kind = VALUE_STRING, .string = f->key}
                                  : integer(f->index);
    if (str_eq(node->text, STR("first")))
        return boolean(f->index == 0);
    if (str_eq(node->text, STR("last")))
        return boolean(f->index + 1 == f->len);
    return (struct value){0};
}

struct value block_context(struct render *r, const struct node *node)
{
    struct value v = node->a != 0 ? render_eval(r, node->a) : context(r, node->at, 0);
    json_t *made, *one;
    const char *name;

    if (node->b == 0 || r->failed)
        return v;
    made = render_make(r, node->at, true);
    if (v.kind == VALUE_JSON && json_is_object(v.json))
        json_object_foreach(v.json, name, one) if (!r->failed)(void)
            render_put(r, node->at, made, str_of(name), value_of_json(one));
    for (uint32_t n = node->b; n != 0 && !r->failed; n = r->t->nodes[n].next)
        (void)render_put(r, node->at, made, r->t->nodes[n].text, render_eval(r, r->t->nodes[n].a));
    return value_of_json(made);
}

struct value block_eval(struct render *r, const struct node *node)
{
    struct value a, b;

    switch ((enum node_kind)node->kind) {
    case NODE_CONTEXT:
        return context(r, node->at, node->which);
    case NODE_FIELD:
        return field(r, node);
    case NODE_DATA:
        return data(r, node);
    case NODE_MEMBER:
        a = render_eval(r, node->a);
        return member(r, node->at, &a, node->text);
    case NODE_LOOKUP:
        a = render_eval(r, node->a);
        b = value_text(r, node->at, render_eval(r, node->b));
        return r->failed ? b : member(r, node->at, &a, b.string);
    case NODE_TRUTH:
        a = render_eval(r, node->a);
        return boolean(holds(&a));
    case NODE_TEXT ... NODE_CHOICE:
        break;
    }
    ASSERT(false); /* render_eval() */
    return (struct value){0};
}

/* --- blocks --- */

static void run_in(struct render *r, const struct node *node, struct frame *frame)
{
    ASSERT(frame->outer == r->frame);
    r->frame = frame;
    render_run(r, node->b);
    ASSERT(r->frame == frame);
    r->frame = frame->outer;
}

/* False: there is nothing to go over. */
static bool run_each(struct render *r, const struct node *node, json_t *of)
{
    struct frame frame = {.outer = r->frame, .name = node->text, .loop = true};
    void *at = NULL;

    ASSERT(json_is_array(of) || json_is_object(of));
    frame.len = json_is_array(of) ? json_array_size(of) : json_object_size(of);
    if (json_is_object(of))
        at = json_object_iter(of);
    for (; frame.index < frame.len && render_spend(r, node->at, 1); frame.index++) {
        if (at == NULL) {
            frame.value = value_of_json(json_array_get(of, frame.index));
        } else {
            frame.key = str_of(json_object_iter_key(at));
            frame.value = value_of_json(json_object_iter_value(at));
            at = json_object_iter_next(of, at);
        }
        run_in(r, node, &frame);
    }
    return frame.len > 0;
}

/* "{{#a}}": a list is gone over, another value is the context, "true" leaves it. */
static bool run_section(struct render *r, const struct node *node, const struct value *v)
{
    struct frame frame = {.outer = r->frame, .name = node->text, .value = *v};

    if (v->kind == VALUE_JSON && json_is_array(v->json))
        return run_each(r, node, v->json);
    if (v->kind == VALUE_UNDEFINED || v->kind == VALUE_NONE ||
        (v->kind == VALUE_BOOL && !v->boolean) ||
        (r->t->language == TEMPLATE_MUSTACHE && !holds(v)))
        return false;
    if (v->kind == VALUE_BOOL)
        render_run(r, node->b);
    else
        run_in(r, node, &frame);
    return true;
}

void block_run(struct render *r, const struct node *node)
{
    struct value v = render_eval(r, node->a);
    struct frame frame = {.outer = r->frame, .name = node->text, .value = v};
    bool ran = false;

    switch ((enum block)node->which) {
    case BLOCK_SECTION:
        ran = run_section(r, node, &v);
        break;
    case BLOCK_EACH:
        ran = v.kind == VALUE_JSON && run_each(r, node, v.json);
        break;
    case BLOCK_WITH:
        ran = holds(&v);
        if (ran)
            run_in(r, node, &frame);
        break;
    }
    if (!ran && !r->failed)
        render_run(r, node->c);
}

/* Statements of a template to text: what is put out, what names mean, and what it may cost. */
#include <errno.h>
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

/* --- names --- */

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

/* --- statements --- */

static void run_output(struct render *r, const struct node *node)
{
    struct value v = value_text(r, node->at, render_eval(r, node->a));

    if (r->t->place == TEMPLATE_HTML && node->which == 0)
        v = value_escaped(r, node->at, v);
    if (!r->failed)
        put_text(r, node->at, v.string, false);
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

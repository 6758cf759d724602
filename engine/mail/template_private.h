/* The inside of templates. template_lex.c, template_expression.c, template_mustache.c and
 * template.c compile; template_render.c runs statements, template_eval.c expressions, with the
 * values of template_value.c. */
#ifndef HAYAUMA_ENGINE_TEMPLATE_PRIVATE_H
#define HAYAUMA_ENGINE_TEMPLATE_PRIVATE_H

#include <jansson.h>

#include "mail/template.h"

#define TEMPLATE_DEPTH_MAX  100
#define TEMPLATE_NODES_MAX  100000
#define TEMPLATE_ARGS_MAX   3  /* of a filter */
#define TEMPLATE_CALL_MAX   16 /* of a function or macro */
#define TEMPLATE_MACROS_MAX 100

/* Of a text, in one step of 50 ns: bytes that are copied or compared; bytes that are looked at one
 * by one; characters whose case GLib changes. */
#define BYTES_PER_STEP  64
#define LOOKED_PER_STEP 16
#define CASED_PER_STEP  2
#define FRAMES_PER_STEP 16
#define DUMPED_PER_STEP 6  /* bytes of JSON, which jansson looks at one by one */
#define REAL_STEPS      12 /* to write a number with a fraction */

enum node_kind {
    /* Statements; next is the one behind. */
    NODE_TEXT,       /* text */
    NODE_OUTPUT,     /* a; which: never escaped */
    NODE_IF,         /* a: condition, b: statements, c: statements otherwise */
    NODE_SET,        /* text: name, a: its value */
    NODE_SET_MEMBER, /* b.text, of a namespace, a: its value */
    NODE_CAPTURE,    /* text: name, b: statements, whose output is its value */
    NODE_UNPACK, /* b: names (arguments), which get the items of a; without a of the loop's value */
    NODE_MACRO,  /* text: name, a: parameters (arguments, with defaults), b: statements */
    NODE_FOR,    /* text: name, or nothing where b begins with UNPACK; a: of what, b: statements, c:
                    statements when there is nothing, d: condition, or 0 */
    NODE_BLOCK,  /* which: enum block, a: of what, b, c as of FOR; text: names, by blanks */
    NODE_PARTIAL, /* part; which: it has a line of its own, indented by text; a: its context, or 0;
                     b: its parameters (arguments) */
    /* Expressions; next is the next argument. */
    NODE_NAME,   /* text */
    NODE_STRING, /* text */
    NODE_INTEGER,
    NODE_REAL,
    NODE_CONSTANT,  /* which: enum constant */
    NODE_ATTRIBUTE, /* a.text */
    NODE_ITEM,      /* a[b] */
    NODE_SLICE,     /* a[b:c], either may be 0 */
    NODE_LIST,      /* b: items (arguments) */
    NODE_OBJECT,    /* b: values (arguments), of each b: its name */
    NODE_CALL,      /* text: of a function or macro, b: arguments */
    NODE_METHOD,    /* of a, which, b: arguments */
    NODE_ARGUMENT,  /* a: value, text: its name, or nothing; next: the one behind */
    NODE_FILTER,    /* a, which, b, c, d: arguments */
    NODE_TEST,      /* a, which, b: with what, or 0 */
    NODE_NOT,       /* a */
    NODE_AND,       /* a, b, as in all that follow */
    NODE_OR,
    NODE_COMPARE, /* which: enum comparison */
    NODE_IN,
    NODE_CONCAT,
    NODE_MATH,     /* which: enum math */
    NODE_NEGATIVE, /* a */
    NODE_CHOICE,   /* a if b else c */
    /* Of Mustache and Handlebars. which: so many contexts, or loops, further out. */
    NODE_CONTEXT,
    NODE_FIELD,  /* text, of the context */
    NODE_DATA,   /* "@text" */
    NODE_MEMBER, /* a.text, which may be missing in what is missing */
    NODE_LOOKUP, /* a[b], likewise */
    NODE_TRUTH,  /* a as true or false */
};

enum block { BLOCK_SECTION, BLOCK_EACH, BLOCK_WITH };

enum constant { CONSTANT_NONE, CONSTANT_FALSE, CONSTANT_TRUE };
enum math { MATH_ADD, MATH_SUBTRACT, MATH_MULTIPLY, MATH_FLOOR, MATH_DIVIDE, MATH_MODULO };
enum comparison { COMPARE_EQ, COMPARE_NE, COMPARE_LT, COMPARE_LE, COMPARE_GT, COMPARE_GE };

struct node {
    uint8_t kind, which;
    uint16_t depth;
    uint32_t at; /* offset in the source */
    uint32_t next, a, b, c, d;
    uint32_t part; /* of template->parts */
    union {
        struct str text;
        int64_t integer;
        double real;
    };
};

/* The template itself, or a partial of it: a stretch of the source with a line end behind it. */
struct template_part {
    struct str name;
    uint32_t from, to; /* in the source */
    uint32_t first;    /* statement, or 0 */
    bool wanted, compiled;
};

struct template
{
    enum template_language language;
    enum template_place place;
    bool refuses_missing;
    struct node *nodes; /* [0] is none */
    uint32_t nodes_len, nodes_cap;
    struct template_part *parts; /* [0] is the template */
    size_t parts_len;
    /* Behind the struct: parts, source, strings. */
    char *source; /* with LF line ends; parts behind one another */
    size_t source_len;
    char *strings; /* those with escapes; as large as the source */
    size_t strings_len;
};

void template_place_of(const struct template *t, uint32_t at, struct template_error *error);

/* --- values --- */

enum value_kind {
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INTEGER,
    VALUE_REAL,
    VALUE_STRING,
    VALUE_JSON,      /* a list or an object */
    VALUE_LOOP,      /* the variable "loop" */
    VALUE_NAMESPACE, /* json, which the template may change */
    VALUE_MACRO,
};

struct value {
    enum value_kind kind;
    bool safe; /* of a string: it is escaped already */
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct str string;
        json_t *json;
        const struct frame *loop;
        const struct node *macro;
    };
};

struct frame { /* of a loop, or of a context of Mustache and Handlebars */
    const struct frame *outer;
    struct str name; /* of the value; those of a block: of value and index or key, by a blank */
    struct value value;
    size_t index, len;
    bool loop;      /* of a block */
    bool macro;     /* of a macro's call: no loop */
    json_t *list;   /* what a loop of Jinja goes over, or NULL */
    struct str key; /* of an object's member, or nothing */
};

/* A variable that the template sets: until the end of the turn of the loop, or of the partial, that
 * it was set in. */
struct set {
    struct set *older;
    const struct frame *frame; /* what it was set in, or NULL; */
    unsigned nested;           /* so many partials deep */
    struct str name;
    struct value value;
};

struct scratch_block;

struct render {
    const struct template *t;
    json_t *variables;
    struct template_budget *budget;
    struct buf *out;
    struct template_error *error;
    const struct frame *frame;
    struct scratch_block *scratch, *kept; /* kept: of sets */
    struct set *sets;                     /* the newest; those of a frame are together */
    json_t *made;                         /* lists and objects that the template made, or NULL */
    struct buf indent;                    /* of a partial's lines */
    bool line_starts;                     /* the next text of the partial is to be indented */
    unsigned nested;                      /* partials around it */
    bool failed, spent;                   /* spent: the budget, for which it failed */
    /* Of a message: something was put, of this line too. */
    bool in_header, began, line_began;
};

/* Ends the rendering; the first error stays. at: of the node. */
struct value render_fail(struct render *r, uint32_t at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Bytes that live until the statement's end. NULL: the budget is spent, and the rendering ends. */
char *render_scratch(struct render *r, uint32_t at, size_t len);
/* Takes steps from the budget; false: it is spent. */
bool render_spend(struct render *r, uint32_t at, uint64_t steps);
/* Takes bytes from it, and what steps it takes to write them. */
bool render_charge(struct render *r, uint32_t at, size_t bytes);
/* The frame around f, whose name one of so many bytes was compared with: partials within one
 * another have thousands. NULL: there is none, or nothing is left of the budget. */
const struct frame *render_outer(struct render *r, uint32_t at, const struct frame *f,
                                 size_t name_len, unsigned *walked);
struct value render_eval(struct render *r, uint32_t node); /* template_eval.c */
void render_run(struct render *r, uint32_t node);          /* it and those behind it */

/* The value of a name. */
struct value render_name(struct render *r, uint32_t at, struct str name);
/* Gives a name a value, where it stands. */
void render_set(struct render *r, uint32_t at, struct str name, struct value v);
/* What statements put out, as a value. */
struct value render_capture(struct render *r, uint32_t at, uint32_t statements);

/* --- template_value.c --- */

struct value value_of_json(json_t *json);
bool value_true(const struct value *v);
bool value_is_number(const struct value *v);
/* Of a number; the second: of one without a fraction. */
double value_number(const struct value *v);
int64_t value_integer(const struct value *v);
/* A copy of text, in scratch. */
struct value value_copy(struct render *r, uint32_t at, struct str text, bool safe);
/* A copy of what is in made, which is freed. */
struct value value_of_buf(struct render *r, uint32_t at, struct buf *made, bool safe);
/* v as a string. */
struct value value_text(struct render *r, uint32_t at, struct value v);
/* The string v, escaped and safe. */
struct value value_escaped(struct render *r, uint32_t at, struct value v);
bool value_equal(struct render *r, uint32_t at, const struct value *a, const struct value *b);
/* a and b are numbers, or the rendering fails. */
struct value value_math(struct render *r, uint32_t at, enum math which, struct value a,
                        struct value b);
/* Whether a is in the list, text or object b. */
bool value_in(struct render *r, uint32_t at, struct value a, struct value b);
/* *by: below, 0, or above 0. False: one is no number or text, or not the same of the two. */
bool value_order(struct render *r, uint32_t at, const struct value *a, const struct value *b,
                 int *by);

/* --- template_call.c: what is made, and called --- */

/* A list (object: an object) that the template makes; NULL: the budget is spent. */
json_t *render_make(struct render *r, uint32_t at, bool object);
/* v as an item of such; NULL, and the rendering has failed: it cannot be. */
json_t *render_item(struct render *r, uint32_t at, struct value v);
/* Puts v into an object that the template made. */
bool render_put(struct render *r, uint32_t at, json_t *object, struct str name, struct value v);
/* Appends v to a list that the template made. */
bool render_append(struct render *r, uint32_t at, json_t *list, struct value v);
bool template_function_known(struct str name);
struct value call_eval(struct render *r, const struct node *node);
/* The items of a list to names. */
void unpack_run(struct render *r, const struct node *node);
void set_member_run(struct render *r, const struct node *node);

/* --- template_block.c: Mustache and Handlebars --- */

struct value block_eval(struct render *r, const struct node *node);
/* That of a partial: the one it is given, or the present one, with its parameters. */
struct value block_context(struct render *r, const struct node *node);
void block_run(struct render *r, const struct node *node);

/* --- template_filter.c --- */

#define FILTER(name)                                                                               \
    struct value name(struct render *r, uint32_t at, struct value v, const struct value *args,     \
                      size_t args_len)

struct filter {
    const char *name;
    uint8_t args_min, args_max;
    FILTER((*run));
    const char *names; /* of its arguments, by blanks, or NULL: they have none */
};
extern const struct filter template_filters[];
extern const size_t template_filters_len;
/* What is called as a.name(...); and the filter "format", which takes as many arguments. */
#define TEMPLATE_FORMAT "|format"
extern const struct filter template_methods[];
extern const size_t template_methods_len;
/* Its place among them, or template_filters_len. */
size_t template_filter_find(struct str name);

/* --- template_is.c --- */

struct test {
    const char *name;
    bool (*holds)(struct render *r, uint32_t at, const struct value *v, const struct value *with);
    bool argument; /* it is asked with a value */
};
extern const struct test template_tests[];
extern const size_t template_tests_len;

/* --- template_text.c --- */

FILTER(filter_upper);
FILTER(filter_lower);
FILTER(filter_title);
FILTER(filter_capitalize);
FILTER(filter_trim);
FILTER(filter_length);
FILTER(filter_join);
FILTER(filter_first);
FILTER(filter_last);
FILTER(filter_replace);
FILTER(filter_urlencode);
FILTER(filter_truncate);
FILTER(filter_striptags);
FILTER(filter_wordcount);

/* --- template_number.c --- */

FILTER(filter_int);
FILTER(filter_float);
FILTER(filter_abs);
FILTER(filter_round);
FILTER(filter_date);
FILTER(filter_number);

/* --- template_list.c: filters and methods of lists and objects --- */

FILTER(filter_list);
FILTER(filter_items);
FILTER(filter_dictsort);
FILTER(filter_keys);
FILTER(filter_values);
FILTER(filter_get);
FILTER(filter_sort);
FILTER(filter_reverse);
FILTER(filter_unique);
FILTER(filter_sum);
FILTER(filter_min);
FILTER(filter_max);
FILTER(filter_map);
FILTER(filter_select);
FILTER(filter_reject);
FILTER(filter_selectattr);
FILTER(filter_rejectattr);
FILTER(filter_batch);
FILTER(filter_groupby);
FILTER(filter_format);
FILTER(method_split);
FILTER(method_join);
FILTER(method_format);
FILTER(method_startswith);
FILTER(method_endswith);

#endif

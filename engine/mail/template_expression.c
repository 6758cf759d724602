/* Expressions of Jinja: a parser by recursive descent. */
#include <string.h>

#include "mail/template_parse.h"

void template_expect_sign(struct parser *p, const char *sign)
{
    if (!p->failed && !token_take_sign(p, sign))
        template_fail(p, p->token.at, "'%s' is missing", sign);
}

/* Whether p may go one level deeper. */
bool template_descend(struct parser *p)
{
    ASSERT(p->depth <= TEMPLATE_DEPTH_MAX); /* who may not go deeper does not */
    if (p->depth++ >= TEMPLATE_DEPTH_MAX)
        template_fail(p, p->token.at, "nested more than %d deep", TEMPLATE_DEPTH_MAX);
    return !p->failed;
}

/* --- values --- */

static const struct {
    const char *name;
    enum constant constant;
} constants[] = {{"true", CONSTANT_TRUE},   {"True", CONSTANT_TRUE}, {"false", CONSTANT_FALSE},
                 {"False", CONSTANT_FALSE}, {"none", CONSTANT_NONE}, {"None", CONSTANT_NONE}};

uint32_t template_parse_name(struct parser *p)
{
    struct node node = {.kind = NODE_NAME, .at = (uint32_t)p->token.at, .text = p->token.text};
    static const char *const words[] = {"and", "or", "not", "in", "is", "if", "else"};

    for (size_t i = 0; i < ARRAY_LEN(constants); i++)
        if (token_is_name(p, constants[i].name)) {
            node.kind = NODE_CONSTANT;
            node.which = (uint8_t)constants[i].constant;
        }
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (token_is_name(p, words[i]))
            template_fail(p, p->token.at, "a value is missing in front of '%s'", words[i]);
    if (p->failed)
        return 0;
    template_next(p);
    return template_node(p, node);
}

/* Values with commas between, up to end, each as an argument; "name=value" has its name. */
static uint32_t parse_arguments(struct parser *p, const char *end, size_t *len)
{
    struct template_list list = {0};

    *len = 0;
    while (!p->failed && !token_is_sign(p, end)) {
        struct node one = {.kind = NODE_ARGUMENT, .at = (uint32_t)p->token.at};

        one.a = template_parse_expression(p);
        if (token_is_sign(p, "=") && p->t->nodes[one.a].kind == NODE_NAME) {
            one.text = p->t->nodes[one.a].text;
            template_next(p);
            one.a = template_parse_expression(p);
        }
        template_append(p, &list, template_node(p, one));
        ++*len;
        if (!token_take_sign(p, ","))
            break;
    }
    template_expect_sign(p, end);
    return list.first;
}

/* Behind "(": an expression, or a list that is written as a tuple. */
static uint32_t parse_parenthesis(struct parser *p, uint32_t at)
{
    struct template_list list = {0};
    uint32_t a = 0;
    size_t more;

    if (!token_is_sign(p, ")"))
        a = template_parse_expression(p);
    if (a != 0 && !token_is_sign(p, ",")) {
        template_expect_sign(p, ")");
        return a;
    }
    if (a != 0) {
        template_append(p, &list,
                        template_node(p, (struct node){.kind = NODE_ARGUMENT, .at = at, .a = a}));
        template_next(p);
    }
    template_append(p, &list, parse_arguments(p, ")", &more));
    return template_node(p, (struct node){.kind = NODE_LIST, .at = at, .b = list.first});
}

/* Behind "{": "name": value, ... Until its "}" that sign ends no tag. */
static uint32_t parse_object(struct parser *p, uint32_t at)
{
    struct template_list list = {0};

    while (!p->failed && !token_is_sign(p, "}")) {
        struct node one = {.kind = NODE_ARGUMENT, .at = (uint32_t)p->token.at};

        one.b = template_parse_expression(p);
        template_expect_sign(p, ":");
        one.a = template_parse_expression(p);
        template_append(p, &list, template_node(p, one));
        if (!token_take_sign(p, ","))
            break;
    }
    ASSERT(p->braces > 0);
    p->braces--;
    template_expect_sign(p, "}");
    return template_node(p, (struct node){.kind = NODE_OBJECT, .at = at, .b = list.first});
}

/* Behind the name of a function or macro and "(". */
static uint32_t parse_call(struct parser *p, uint32_t at, struct str name)
{
    size_t len;
    uint32_t args = parse_arguments(p, ")", &len);

    if (len > TEMPLATE_CALL_MAX)
        template_fail(p, at, "more than %d arguments", TEMPLATE_CALL_MAX);
    return template_node(p, (struct node){.kind = NODE_CALL, .at = at, .text = name, .b = args});
}

static uint32_t parse_primary(struct parser *p)
{
    struct node node = {.at = (uint32_t)p->token.at};
    struct str name = p->token.text;
    uint32_t inner;
    size_t len;

    switch (p->token.kind) {
    case TOKEN_NAME:
        inner = template_parse_name(p);
        if (p->t->nodes[inner].kind == NODE_NAME && token_take_sign(p, "("))
            return parse_call(p, node.at, name);
        return inner;
    case TOKEN_STRING:
        node.kind = NODE_STRING;
        node.text = p->token.text;
        break;
    case TOKEN_INTEGER:
        node.kind = NODE_INTEGER;
        node.integer = p->token.integer;
        break;
    case TOKEN_REAL:
        node.kind = NODE_REAL;
        node.real = p->token.real;
        break;
    case TOKEN_SIGN:
        if (token_take_sign(p, "("))
            return parse_parenthesis(p, node.at);
        if (token_take_sign(p, "[")) {
            node.kind = NODE_LIST;
            node.b = parse_arguments(p, "]", &len);
            return template_node(p, node);
        }
        if (token_is_sign(p, "{")) {
            p->braces++;
            template_next(p);
            return parse_object(p, node.at);
        }
        template_fail(p, p->token.at, "a value is missing in front of '%.*s'",
                      STR_FMT(p->token.text));
        return 0;
    case TOKEN_CLOSE:
    case TOKEN_END:
        template_fail(p, p->token.at, "a value is missing");
        return 0;
    }
    template_next(p);
    return template_node(p, node);
}

/* Behind ".name": "(...)" makes it a method's call, where a is the value it is called on. */
static uint32_t parse_method(struct parser *p, uint32_t at, struct str name, uint32_t a)
{
    struct node node = {.kind = NODE_METHOD, .at = at, .a = a};
    const struct filter *m;
    size_t len;

    ASSERT(template_methods_len <= UINT8_MAX && template_tests_len <= UINT8_MAX);
    while (node.which < template_methods_len &&
           !str_eq(name, str_of(template_methods[node.which].name)))
        node.which++;
    if (node.which == template_methods_len) {
        template_fail(p, at, "there is no method '%.*s'", STR_FMT(name));
        return 0;
    }
    m = &template_methods[node.which];
    node.b = parse_arguments(p, ")", &len);
    if (!p->failed && (len < m->args_min || len > m->args_max))
        template_fail(p, at, "the method '%s' takes %d to %d arguments", m->name, m->args_min,
                      m->args_max);
    return template_node(p, node);
}

/* Behind '[': an item's number or name, or "from:to". */
static uint32_t parse_item(struct parser *p, uint32_t at, uint32_t a)
{
    struct node node = {.kind = NODE_ITEM, .at = at, .a = a};

    if (!token_is_sign(p, ":"))
        node.b = template_parse_expression(p);
    if (token_take_sign(p, ":")) {
        node.kind = NODE_SLICE;
        if (!token_is_sign(p, "]"))
            node.c = template_parse_expression(p);
    }
    template_expect_sign(p, "]");
    return template_node(p, node);
}

/* ".name", ".name(...)", "[expression]" and "[from:to]". */
static uint32_t parse_postfix(struct parser *p)
{
    uint32_t a = parse_primary(p);

    while (!p->failed) {
        struct node node = {.kind = NODE_ATTRIBUTE, .at = (uint32_t)p->token.at, .a = a};

        if (token_take_sign(p, "[")) {
            a = parse_item(p, node.at, a);
            continue;
        }
        if (!token_take_sign(p, "."))
            break;
        if (p->token.kind != TOKEN_NAME && p->token.kind != TOKEN_INTEGER)
            template_fail(p, p->token.at, "a name is missing behind '.'");
        node.text = p->token.text;
        if (p->token.kind == TOKEN_INTEGER) {
            node.kind = NODE_ITEM;
            node.b = template_node(
                p, (struct node){.kind = NODE_INTEGER, .at = node.at, .integer = p->token.integer});
        }
        template_next(p);
        a = node.kind == NODE_ATTRIBUTE && token_take_sign(p, "(")
                ? parse_method(p, node.at, node.text, a)
                : template_node(p, node);
    }
    return p->failed ? 0 : a;
}

/* Behind '|'. Of a name that the filter does not have: a place that it does not have either, but
 * in a stored template the first. */
static size_t argument_place(const struct parser *p, const struct filter *f, struct str name)
{
    struct str names = str_of(f->names);

    for (size_t i = 0; names.len > 0; i++)
        if (str_eq(str_take(&names, ' '), name))
            return i;
    return p->stored ? 0 : TEMPLATE_ARGS_MAX;
}

/* A filter's arguments to their places, which they may name. */
static void place_arguments(struct parser *p, const struct filter *f, uint32_t first,
                            uint32_t args[static TEMPLATE_ARGS_MAX])
{
    size_t next = 0;

    ASSERT(f->args_min <= f->args_max && f->args_max <= TEMPLATE_ARGS_MAX);
    for (uint32_t n = first; n != 0 && !p->failed; n = p->t->nodes[n].next) {
        const struct node *one = &p->t->nodes[n];
        size_t place = one->text.len == 0 ? next++ : argument_place(p, f, one->text);

        if (place >= f->args_max)
            template_fail(p, one->at,
                          one->text.len == 0 ? "the filter '%s' takes %d to %d arguments"
                                             : "the filter '%s' has no such argument",
                          f->name, f->args_min, f->args_max);
        else if (args[place] != 0)
            template_fail(p, one->at, "an argument that is there twice");
        else
            args[place] = one->a;
    }
}

static uint32_t parse_filter(struct parser *p, uint32_t a)
{
    struct node node = {.kind = NODE_FILTER, .at = (uint32_t)p->token.at, .a = a};
    uint32_t args[TEMPLATE_ARGS_MAX] = {0}, first = 0;
    const struct filter *f;
    size_t len;

    ASSERT(template_filters_len <= UINT8_MAX); /* node.which */
    if (token_take_name(p, "format")) {
        template_expect_sign(p, "(");
        return p->failed ? 0 : parse_method(p, node.at, STR(TEMPLATE_FORMAT), a);
    }
    while (node.which < template_filters_len &&
           !(p->token.kind == TOKEN_NAME && token_is_name(p, template_filters[node.which].name)))
        node.which++;
    if (node.which == template_filters_len) {
        template_fail(p, p->token.at, "there is no filter '%.*s'", STR_FMT(p->token.text));
        return 0;
    }
    f = &template_filters[node.which];
    template_next(p);
    if (token_take_sign(p, "("))
        first = parse_arguments(p, ")", &len);
    place_arguments(p, f, first, args);
    for (size_t i = 0; i < f->args_min && !p->failed; i++)
        if (args[i] == 0)
            template_fail(p, node.at, "the filter '%s' takes %d to %d arguments", f->name,
                          f->args_min, f->args_max);
    if (p->failed)
        return 0;
    node.b = args[0];
    node.c = args[1];
    node.d = args[2];
    return template_node(p, node);
}

/* What a test is asked with: "is divisibleby 3", "is divisibleby(3)". */
static uint32_t parse_test_argument(struct parser *p)
{
    static const char *const words[] = {"and", "or", "not", "in", "is", "if", "else"};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (token_is_name(p, words[i]))
            template_fail(p, p->token.at, "this test wants a value behind it");
    return p->failed ? 0 : parse_postfix(p);
}

/* Behind "is". */
static uint32_t parse_test(struct parser *p, uint32_t a)
{
    bool negated = token_take_name(p, "not");
    struct node node = {.kind = NODE_TEST, .at = (uint32_t)p->token.at, .a = a};

    while (node.which < template_tests_len &&
           !(p->token.kind == TOKEN_NAME && token_is_name(p, template_tests[node.which].name)))
        node.which++;
    if (node.which == template_tests_len) {
        template_fail(p, p->token.at, "there is no such test behind 'is'");
        return 0;
    }
    template_next(p);
    if (template_tests[node.which].argument)
        node.b = parse_test_argument(p);
    a = template_node(p, node);
    return negated ? template_node(p, (struct node){.kind = NODE_NOT, .at = node.at, .a = a}) : a;
}

static uint32_t parse_negative(struct parser *p)
{
    uint32_t at = (uint32_t)p->token.at, a = 0;

    if (!token_is_sign(p, "-"))
        return parse_postfix(p);
    template_next(p);
    if (template_descend(p))
        a = template_node(p,
                          (struct node){.kind = NODE_NEGATIVE, .at = at, .a = parse_negative(p)});
    p->depth--;
    return a;
}

static uint32_t parse_filtered(struct parser *p)
{
    uint32_t a = parse_negative(p);

    while (!p->failed) {
        if (token_take_sign(p, "|"))
            a = parse_filter(p, a);
        else if (token_take_name(p, "is"))
            a = parse_test(p, a);
        else
            return a;
    }
    return 0;
}

static const char *const math_signs[] = {
    [MATH_ADD] = "+",    [MATH_SUBTRACT] = "-", [MATH_MULTIPLY] = "*",
    [MATH_FLOOR] = "//", [MATH_DIVIDE] = "/",   [MATH_MODULO] = "%"};
_Static_assert(ARRAY_LEN(math_signs) == MATH_MODULO + 1, "one for each");

/* Operands that inner reads, with the signs from first to last between them. */
static uint32_t parse_math(struct parser *p, enum math first, enum math last,
                           uint32_t (*inner)(struct parser *p))
{
    uint32_t a = inner(p);

    while (!p->failed) {
        struct node node = {.kind = NODE_MATH, .at = (uint32_t)p->token.at, .a = a};
        enum math which = first;

        while (which <= last && !token_is_sign(p, math_signs[which]))
            which++;
        if (which > last)
            return a;
        template_next(p);
        node.which = (uint8_t)which;
        node.b = inner(p);
        a = template_node(p, node);
    }
    return 0;
}

static uint32_t parse_product(struct parser *p)
{
    return parse_math(p, MATH_MULTIPLY, MATH_MODULO, parse_filtered);
}

static uint32_t parse_concat(struct parser *p)
{
    uint32_t a = parse_product(p);

    while (!p->failed && token_is_sign(p, "~")) {
        uint32_t at = (uint32_t)p->token.at;

        template_next(p);
        a = template_node(
            p, (struct node){.kind = NODE_CONCAT, .at = at, .a = a, .b = parse_product(p)});
    }
    return a;
}

static uint32_t parse_sum(struct parser *p)
{
    return parse_math(p, MATH_ADD, MATH_SUBTRACT, parse_concat);
}

static uint32_t parse_compare(struct parser *p)
{
    static const char *const signs[] = {"==", "!=", "<", "<=", ">", ">="};
    uint32_t a = parse_sum(p), at = (uint32_t)p->token.at;

    _Static_assert(ARRAY_LEN(signs) == COMPARE_GE + 1, "one for each");
    for (uint8_t i = 0; i < ARRAY_LEN(signs); i++)
        if (token_take_sign(p, signs[i]))
            return template_node(
                p, (struct node){
                       .kind = NODE_COMPARE, .which = i, .at = at, .a = a, .b = parse_sum(p)});
    if (token_take_name(p, "in"))
        return template_node(p,
                             (struct node){.kind = NODE_IN, .at = at, .a = a, .b = parse_sum(p)});
    if (token_is_name(p, "not")) {
        template_next(p);
        if (!token_take_name(p, "in"))
            template_fail(p, at, "'in' is missing behind 'not'");
        a = template_node(p, (struct node){.kind = NODE_IN, .at = at, .a = a, .b = parse_sum(p)});
        return template_node(p, (struct node){.kind = NODE_NOT, .at = at, .a = a});
    }
    return a;
}

static uint32_t parse_not(struct parser *p)
{
    uint32_t at = (uint32_t)p->token.at, a = 0;

    if (!token_is_name(p, "not"))
        return parse_compare(p);
    template_next(p);
    if (template_descend(p))
        a = template_node(p, (struct node){.kind = NODE_NOT, .at = at, .a = parse_not(p)});
    p->depth--;
    return a;
}

static uint32_t parse_and(struct parser *p)
{
    uint32_t a = parse_not(p);

    while (!p->failed && token_is_name(p, "and")) {
        uint32_t at = (uint32_t)p->token.at;

        template_next(p);
        a = template_node(p, (struct node){.kind = NODE_AND, .at = at, .a = a, .b = parse_not(p)});
    }
    return a;
}

uint32_t template_parse_condition(struct parser *p)
{
    uint32_t a = parse_and(p);

    while (!p->failed && token_is_name(p, "or")) {
        uint32_t at = (uint32_t)p->token.at;

        template_next(p);
        a = template_node(p, (struct node){.kind = NODE_OR, .at = at, .a = a, .b = parse_and(p)});
    }
    return a;
}

uint32_t template_parse_expression(struct parser *p)
{
    uint32_t a = 0;

    if (template_descend(p))
        a = template_parse_condition(p);
    while (!p->failed && token_is_name(p, "if")) {
        struct node node = {.kind = NODE_CHOICE, .at = (uint32_t)p->token.at, .a = a};

        template_next(p);
        node.b = template_parse_condition(p);
        if (token_take_name(p, "else"))
            node.c = template_parse_expression(p);
        a = template_node(p, node);
    }
    p->depth--;
    return a;
}

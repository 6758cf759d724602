/* The tests of Jinja: what may stand behind "is". */
#include <math.h>
#include <string.h>

#include "mail/template_private.h"

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

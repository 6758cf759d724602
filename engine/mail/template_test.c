#include "mail/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

/* What others say to most of this: tests/template. Here: what is ours alone. */

static enum template_language language = TEMPLATE_JINJA; /* of what render() renders */

static const struct template_partial *partials;
static size_t partials_len;

static int render(const char *source, enum template_place place, const char *variables,
                  struct template_budget *budget, struct buf *out, struct template_error *error)
{
    struct template *t =
        template_compile(str_of(source), language, place, false, partials, partials_len, error);
    json_t *json = json_loads(variables, 0, NULL);
    int err;

    assert_non_null(json);
    buf_clear(out);
    err = t == NULL ? -1 : template_render(t, json, budget, out, error);
    buf_putc(out, '\0');
    json_decref(json);
    template_free(t);
    return err;
}

static void check(const char *source, enum template_place place, const char *variables,
                  const char *want)
{
    struct template_budget budget = {1 << 20, 100000};
    struct template_error error = {0};
    struct buf out = {0};

    if (render(source, place, variables, &budget, &out, &error) != 0)
        fail_msg("%s: %u:%u %s", source, error.line, error.column, error.text);
    assert_string_equal((char *)out.data, want);
    buf_done(&out);
}

static void test_places(void **state)
{
    const char *v = "{\"x\": \"<a>\\r\\nB: c\\n\\n\", \"e\": \"\"}";

    (void)state;
    check("{{ x }}", TEMPLATE_TEXT, v, "<a>\r\nB: c\n\n");
    check("<b>{{ x }}", TEMPLATE_HTML, v, "<b>&lt;a&gt;\r\nB: c\n\n");
    check("S: {{ x }}|\n\n{{ x }}", TEMPLATE_MESSAGE, v, "S: <a>  B: c  |\n\n<a>\r\nB: c\n\n");
    /* Lines that are empty by themselves in front of the header do not end it; a variable's never
     * do. */
    check("\n\nS: {{ x }}\n", TEMPLATE_MESSAGE, v, "\n\nS: <a>  B: c  ");
    check("S: a\n{{ x }}\nT: {{ x }}", TEMPLATE_MESSAGE, v, "S: a\n<a>  B: c  \nT: <a>  B: c  ");
}

static void test_values(void **state)
{
    (void)state;
    check("{{ a }} {{ b }} {{ c }} {{ d }} {{ e }}", TEMPLATE_TEXT,
          "{\"a\": true, \"b\": null, \"c\": 0.1, \"d\": 1e30, \"e\": [1, \"x\"]}",
          "true none 0.1 1e+30 [1, \"x\"]");
}

static struct template_error refused(const char *source, struct template_budget budget)
{
    struct template_error error = {0};
    struct buf out = {0};

    assert_int_not_equal(render(source, TEMPLATE_TEXT, "{\"l\": [1,2,3,4,5,6,7,8,9,10], \"x\": 1}",
                                &budget, &out, &error),
                         0);
    buf_done(&out);
    return error;
}

static char *repeated(const char *what, size_t times, const char *end)
{
    struct buf out = {0};

    for (size_t i = 0; i < times; i++)
        buf_puts(&out, what);
    buf_put(&out, end, strlen(end) + 1);
    return (char *)out.data;
}

/* The same in both languages; what is no date or number fails with what it is. */
static void test_locales(void **state)
{
    static const struct {
        const char *jinja, *handlebars, *want;
    } rows[] = {
        {"{{ d|date('ja') }}", "{{date d 'ja'}}", "2026年11月28日"},
        {"{{ d|date(l, 'full') }}", "{{date d l \"full\"}}", "Samstag, 28. November 2026"},
        {"{{ d|date(style='full', locale=l) }}", "{{date d l 'full'}}",
         "Samstag, 28. November 2026"},
        {"{{ s|date('en-GB','short') }}", "{{date s 'en-GB' 'short'}}", "31/12/1969"},
        {"{{ '86400'|date('sv','short') }}", "{{date '86400' 'sv' 'short'}}", "1970-01-02"},
        {"{{ n|number('de', 2) }}", "{{number n 'de' 2}}", "1.234,50"},
        {"{{ t|number('en') }}", "{{number t 'en'}}", "-1,234.5"},
        {"{{ t|number('fr', 0)|urlencode }}", "{{urlencode (number t 'fr' 0)}}", "-1%E2%80%AF235"},
        {"[{{ missing|date('ja') }}{{ null|number('de') }}]",
         "[{{date missing 'ja'}}{{number null 'de'}}]", "[]"},
        {"{% if n %}{{ d|date('fr') }}{% endif %}", "{{#if n}}{{date d 'fr'}}{{/if}}",
         "28 novembre 2026"},
    };
    static const char *const fail[] = {
        "{{ d|date('xx') }}",        "{{ l|date('de') }}",       "{{ d|date('de','x') }}",
        "{{ l|number('de') }}",      "{{ n|number('de', 10) }}", "{{ n|number('de', -1) }}",
        "{{ n|number('de', 'x') }}", "{{ big|date('de') }}",     "{{ n|number }}",
        "{{ d|date(lang='de') }}",   "{{ [n]|select(x='odd') }}"};
    const char *v =
        "{\"d\": \"2026-11-28T09:00:00Z\", \"s\": -1, \"n\": 1234.5, \"t\": \"-1234.5\","
        " \"l\": \"de\", \"big\": 99999999999999, \"null\": null}";
    struct template_error error;
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        language = TEMPLATE_JINJA;
        check(rows[i].jinja, TEMPLATE_TEXT, v, rows[i].want);
        language = TEMPLATE_HANDLEBARS;
        check(rows[i].handlebars, TEMPLATE_TEXT, v, rows[i].want);
    }
    language = TEMPLATE_JINJA;
    for (size_t i = 0; i < ARRAY_LEN(fail); i++) {
        struct template_budget budget = {1 << 20, 100000};

        assert_int_not_equal(render(fail[i], TEMPLATE_TEXT, v, &budget, &out, &error), 0);
        assert_true(strlen(error.text) > 10);
    }
    buf_done(&out);
}

static void test_bounds(void **state)
{
    static const char loops[] = "{% for a in l %}{% for b in l %}{% for c in l %}{% for d in l %}"
                                "{% for e in l %}{% for f in l %}x{% endfor %}{% endfor %}"
                                "{% endfor %}{% endfor %}{% endfor %}{% endfor %}";
    static const struct {
        const char *source, *why;
    } made[] = {
        {"{% set n = namespace(a=[]) %}{% for i in range(99) %}{% set n.a = [n.a] %}{% endfor %}",
         "deep"},
        {"{% set n = namespace(a=[1]) %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor "
         "%}",
         "longer"},
        {"{% set n = namespace() %}{% set n.a = n %}", "in no list"},
        {"{{ range(1000000000) }}", "longer"},
        {"{{ 'x' * 1000000000 }}", "longer"},
        {"{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}", "20 deep"},
        {"{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(19) "
         "}}",
         "may"},
    };
    static const char *const deep[] = {"(",          "[",    "{{ {1:",      "{{ not ",
                                       "{% if x %}", "not ", "x if x else "};
    const struct template_budget plenty = {1 << 20, 1000000};

    (void)state;
    assert_string_equal(refused(loops, plenty).text, "rendering takes more steps than it may");
    for (size_t i = 0; i < ARRAY_LEN(made); i++)
        if (strstr(refused(made[i].source, plenty).text, made[i].why) == NULL)
            fail_msg("%s: %s", made[i].source, refused(made[i].source, plenty).text);
    assert_string_equal(refused(loops, (struct template_budget){1000, 10000000}).text,
                        "the rendered text is longer than it may be");
    for (size_t i = 0; i < ARRAY_LEN(deep); i++) {
        char *source = repeated(deep[i], 100000, ""), *whole = malloc(strlen(source) + 16);

        sprintf(whole, "%s%s", *deep[i] != '{' ? "{{ " : "", source);
        (void)refused(whole, plenty);
        free(whole);
        free(source);
    }
    for (size_t i = 0; i < 4; i++) { /* chains are as deep when they are evaluated */
        static const char *const chains[] = {"|upper", "~x", " and x", "[0]"};
        char *chain = repeated(chains[i], 100000, " }}"), *whole = malloc(strlen(chain) + 16);

        sprintf(whole, "{{ x%s", chain);
        assert_non_null(strstr(refused(whole, plenty).text, "deep"));
        free(whole);
        free(chain);
    }
    for (size_t i = 0; i < 3; i++) { /* also where what comes first is not deep */
        static const char *const opens[] = {"[1,", "(1,", "{'a': 1, 'b': "}, *const closes[] = {
                                                                                 "]", ")", "}"};
        char *chain = repeated(".upper()", 90, ""), *open = repeated(opens[i], 40, "x");
        struct buf source = {0};

        buf_printf(&source, "{{ %s", open);
        for (int j = 0; j < 40; j++)
            buf_printf(&source, "%s%s", closes[i], chain);
        buf_put(&source, " }}", 4);
        assert_non_null(strstr(refused((char *)source.data, plenty).text, "deep"));
        buf_done(&source);
        free(chain);
        free(open);
    }
    char *many = repeated("{{x}}", 100000, "");
    assert_non_null(strstr(refused(many, plenty).text, "constructs"));
    free(many);
}

/* What a filter does with large texts counts too, and ends when it may go no further. */
static void test_work_is_paid(void **state)
{
    static const char *const sources[] = {
        "{{ 'x'|safe|replace(b, '') }}", "{{ (b ~ b)|replace(b, b) }}", "{{ b|title }}",
        "{% for i in l %}{{ b|length }}{% endfor %}", "{% for i in l %}{{ b < c }}{% endfor %}"};
    char *b = repeated("&", 40000, ""), *json = malloc(2 * strlen(b) + 100);

    (void)state;
    sprintf(json, "{\"b\": \"%s\", \"c\": \"%s\", \"l\": [1,2,3,4]}", b, b);
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        struct template_budget budget = {100000, 2000};
        struct template_error error = {0};
        struct buf out = {0};

        assert_int_not_equal(render(sources[i], TEMPLATE_HTML, json, &budget, &out, &error), 0);
        assert_true(strstr(error.text, "steps") != NULL || strstr(error.text, "longer") != NULL);
        buf_done(&out);
    }
    free(json);
    free(b);
}

static uint64_t steps_of(const char *source)
{
    struct template_budget budget = {1 << 20, 1000000};
    struct template_error error = {0};
    struct buf out = {0};

    assert_int_equal(render(source, TEMPLATE_TEXT, "{}", &budget, &out, &error), 0);
    buf_done(&out);
    return 1000000 - budget.steps;
}

/* A list that has the same list twice, thirteen times over, is small until it is text. */
static void test_texts_of_lists_are_paid(void **state)
{
#define LISTS                                                                                      \
    "{% set n = namespace(b=['x']) %}{% for i in range(13) %}{% set n.b = [n.b, n.b] %}{% endfor " \
    "%}"
    (void)state;
    assert_true(steps_of(LISTS "{{ n.b }}") - steps_of(LISTS) > 4 * 8192);
    assert_true(steps_of("{{ ['x' * 60000] }}") > 10000);
}

/* What is allocated, and numbers with a fraction, cost more than the step of 50 ns that evaluates
 * them. */
static void test_slow_values_are_paid(void **state)
{
    (void)state;
    assert_true(steps_of("{% set a = ('x' * 1000)|list %}") > 5000);
    assert_true(steps_of("{% for i in range(100) %}{% set a = [] %}{% endfor %}") > 1000);
    assert_true(steps_of("{% for i in range(100) %}{{ 0.1 }}{% endfor %}") > 1500);
    assert_true(steps_of("{% for i in range(100) %}{% set a = '%.9f' % 0.1 %}{% endfor %}") > 1500);
}

/* A macro may change a namespace while an expression has a text of it. */
static void test_changed_within_an_expression(void **state)
{
    char *a = repeated("a", 600, ""), *macro = "{% set n.s = 'b' * 600 %}{% set o.s = 'c' * 600 %}";
    struct buf source = {0};

    (void)state;
    buf_printf(
        &source,
        "{%% set n = namespace(s='a' * 600) %%}{%% set o = namespace() %%}{%% macro m() %%}%s"
        "{%% endmacro %%}{{ n.s ~ m() }}",
        macro);
    buf_putc(&source, '\0');
    check((char *)source.data, TEMPLATE_TEXT, "{}", a);
    buf_done(&source);
    free(a);
}

static void test_error_places(void **state)
{
    struct template_error e = refused("a\r\nb {{ x|nothing }}", (struct template_budget){100, 100});

    (void)state;
    assert_int_equal(e.line, 2);
    assert_int_equal(e.column, 8);
    e = refused("é {{ y.z }}", (struct template_budget){100, 100});
    assert_int_equal(e.column, 8);
    assert_non_null(strstr(e.text, "'z'"));
}

static void test_literal(void **state)
{
    struct template *t = template_literal(STR("{{ x }}\r\n{%\n"));
    struct template_budget budget = {100, 100};
    struct template_error error;
    struct buf out = {0};

    (void)state;
    assert_int_equal(template_render(t, NULL, &budget, &out, &error), 0);
    buf_putc(&out, '\0');
    assert_string_equal((char *)out.data, "{{ x }}\n{%\n");
    buf_done(&out);
    template_free(t);
}

/* Of Handlebars and Mustache: header lines, depth, loops within loops, places. */
static void test_mustache(void **state)
{
    static const char *const loops = "{{#each l}}{{#each @root.l}}{{#each @root.l}}{{#each "
                                     "@root.l}}x{{/each}}{{/each}}{{/each}}{{/each}}";
    const char *v = "{\"x\": \"<a>\\r\\nB: c\\n\\n\", \"l\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}";
    struct template_budget budget = {1 << 20, 5000};
    struct template_error e = {0};
    struct buf out = {0};
    char *deep = repeated("{{#a}}", 101, "");

    (void)state;
    language = TEMPLATE_HANDLEBARS;
    check("S: {{ x }}|\n\n{{{x}}}", TEMPLATE_MESSAGE, v, "S: <a>  B: c  |\n\n<a>\r\nB: c\n\n");
    check("<p>{{x}}", TEMPLATE_HTML, v, "<p>&lt;a&gt;\r\nB: c\n\n");
    assert_int_not_equal(render(loops, TEMPLATE_TEXT, v, &budget, &out, &e), 0);
    assert_non_null(strstr(e.text, "steps"));
    e = refused("a\r\nb {{#if x}}", (struct template_budget){100, 100});
    assert_int_equal(e.line, 2);
    assert_int_equal(e.column, 3);
    for (language = TEMPLATE_HANDLEBARS; language <= TEMPLATE_MUSTACHE; language++) {
        e = refused(deep, (struct template_budget){100, 100});
        assert_non_null(strstr(e.text, "deep"));
        e = refused("{{*x}}", (struct template_budget){100, 100});
        assert_non_null(strstr(e.text, "not taken"));
    }
    language = TEMPLATE_JINJA;
    free(deep);
    buf_done(&out);
}

/* A partial's errors are told with its name and a place in it; what includes itself for ever, once
 * or twice a level, ends; values within make no header field. */
static void test_partials(void **state)
{
    static const struct template_partial all[] = {{STR("wrong"), STR("a\nb {{#x}}")},
                                                  {STR("late"), STR("é\n{{ y | nothing }}")},
                                                  {STR("self"), STR("{{> self}}{{> self}}")},
                                                  {STR("itself"), STR("{% include 'itself' %}")},
                                                  {STR("value"), STR("{{ x }}\n")}};
    struct template_error e;

    (void)state;
    partials = all;
    partials_len = ARRAY_LEN(all);
    language = TEMPLATE_HANDLEBARS;
    e = refused("\n\n{{> wrong}}", (struct template_budget){100, 100});
    assert_string_equal(e.partial, "wrong");
    assert_int_equal(e.line, 2);
    assert_int_equal(e.column, 3);
    e = refused("{{> self}}", (struct template_budget){1000, 1000000});
    assert_string_equal(e.partial, "self");
    assert_non_null(strstr(e.text, "deep"));
    e = refused("a {{> none}}", (struct template_budget){100, 100});
    assert_string_equal(e.partial, "");
    assert_int_equal(e.column, 3);
    check("S: {{> value}}", TEMPLATE_MESSAGE, "{\"x\":\"a\\r\\nB: c\"}", "S: a  B: c\n");
    language = TEMPLATE_JINJA;
    e = refused("{% include 'late' %}", (struct template_budget){100, 100});
    assert_string_equal(e.partial, "late");
    assert_int_equal(e.line, 2);
    e = refused("{% include 'itself' %}", (struct template_budget){100, 1000000});
    assert_non_null(strstr(e.text, "deep"));
    check("{% include 'value' %}|", TEMPLATE_HTML, "{\"x\":\"<\"}", "&lt;|");
    partials = NULL;
    partials_len = 0;
}

/* An indentation is copied each time that its partial is included, whatever that puts out. */
static void test_indents_are_paid(void **state)
{
    static const struct template_partial none[] = {{STR("p"), STR("")}};
    char *blanks = repeated(" ", 100000, ""), *source = malloc(strlen(blanks) + 100);

    (void)state;
    sprintf(source, "{{#l}}\n%s{{> p}}\n{{/l}}\n", blanks);
    partials = none;
    partials_len = 1;
    for (language = TEMPLATE_HANDLEBARS; language <= TEMPLATE_MUSTACHE; language++)
        assert_string_equal(refused(source, (struct template_budget){1 << 20, 5000}).text,
                            "rendering takes more steps than it may");
    language = TEMPLATE_JINJA;
    partials = NULL;
    partials_len = 0;
    free(source);
    free(blanks);
}

/* So is a look-up within many blocks of many partials. */
static void check_frames_are_paid(enum template_language of, const char *open, const char *close)
{
    char *opens = repeated(open, 90, ""), *closes = repeated(close, 90, "");
    char *texts[10], names[10][16], *fields = repeated("{{x}}", 1000, "");
    struct template_partial chain[10];

    for (int i = 0; i < 10; i++) {
        texts[i] = malloc(strlen(opens) + strlen(closes) + strlen(fields) + 20);
        sprintf(names[i], "p%d", i);
        sprintf(texts[i], "%s{{> p%d}}%s", opens, i + 1, closes);
        if (i == 9)
            sprintf(texts[i], "%s%s%s", opens, fields, closes);
        chain[i] = (struct template_partial){str_of(names[i]), str_of(texts[i])};
    }
    partials = chain;
    partials_len = ARRAY_LEN(chain);
    language = of;
    assert_string_equal(refused("{{> p0}}", (struct template_budget){1 << 20, 20000}).text,
                        "rendering takes more steps than it may");
    language = TEMPLATE_JINJA;
    partials = NULL;
    partials_len = 0;
    for (int i = 0; i < 10; i++)
        free(texts[i]);
    free(fields);
    free(closes);
    free(opens);
}

static void test_frames_are_paid(void **state)
{
    (void)state;
    check_frames_are_paid(TEMPLATE_HANDLEBARS, "{{#with @root}}", "{{/with}}");
    check_frames_are_paid(TEMPLATE_MUSTACHE, "{{#x}}", "{{/x}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_locales),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_work_is_paid),
        cmocka_unit_test(test_error_places),
        cmocka_unit_test(test_literal),
        cmocka_unit_test(test_mustache),
        cmocka_unit_test(test_partials),
        cmocka_unit_test(test_indents_are_paid),
        cmocka_unit_test(test_frames_are_paid),
        cmocka_unit_test(test_texts_of_lists_are_paid),
        cmocka_unit_test(test_slow_values_are_paid),
        cmocka_unit_test(test_changed_within_an_expression),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

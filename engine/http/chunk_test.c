/* Recipients of a campaign: what lines of JSON and of CSV become, and what is left out. */
#include "http/chunk.h"
#include "mail/recipe.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mail/json_fields.h"

#define ROWS_MAX 5

struct want {
    int got; /* of chunk_next(); 0: the end */
    uint64_t line;
    const char *email, *variables; /* of an error: a part of its text */
};

static const struct {
    enum chunk_format format;
    const char *body;
    struct want want[ROWS_MAX];
} cases[] = {
    {CHUNK_NDJSON, "", {{0}}},
    {CHUNK_NDJSON, "\r\n \t\n\n", {{0}}},
    {CHUNK_NDJSON,
     "{\"email\":\"a@x\"}\r\n\n{\"email\": \"b@x\", \"name\": \"太郎\"}",
     {{1, 1, "a@x", ""}, {1, 3, "b@x", "{\"name\":\"太郎\"}"}}},
    {CHUNK_NDJSON, "\xef\xbb\xbf{\"email\":\"a@x\"}\n", {{1, 1, "a@x", ""}}},
    {CHUNK_NDJSON,
     "{\"email\":\"a@x\",\"name\":null,\"substitutions\":{},\"metadata\":null}",
     {{1, 1, "a@x", ""}}},
    {CHUNK_NDJSON,
     "{\"substitutions\":{\"n\": [1, 2.5, true]}, \"email\":\"a@x\",\"metadata\":{\"k\":\"v\"}}",
     {{1, 1, "a@x", "{\"substitutions\":{\"n\":[1,2.5,true]},\"metadata\":{\"k\":\"v\"}}"}}},
    {CHUNK_NDJSON,
     "{\"email\":1}\n[]\n{\"name\":\"x\"}\n{\"email\":\"a@x\",\"mail\":1}",
     {{-EINVAL, 1, NULL, "email: must be a string"},
      {-EINVAL, 2, NULL, "must be a JSON object"},
      {-EINVAL, 3, NULL, "email: is missing"},
      {-EINVAL, 4, NULL, "mail: unknown field; did you mean 'email'?"}}},
    {CHUNK_NDJSON,
     "{\"email\":\"a@x\",\"substitutions\":[]}\n{\"email\":\"a@x\",\"email\":\"b@x\"}\n"
     "{\"email\":\"a@x\"\n{\"email\":\"b@x\"}",
     {{-EINVAL, 1, NULL, "substitutions: must be an object"},
      {-EINVAL, 2, NULL, "duplicate"},
      {-EINVAL, 3, NULL, "not JSON: line 1, column"},
      {1, 4, "b@x", ""}}},
    {CHUNK_NDJSON,
     "{\"email\":\"\xff@x\"}\n{\"email\":\"a@x\",\"substitutions\":{\"n\":1e999}}\n"
     "{\"email\":\"a@x\",\"substitutions\":{\"n\":99999999999999999999}}\n"
     "{\"email\":\"a\\u0000b@x\"}",
     {{-EINVAL, 1, NULL, "not UTF-8"},
      {-EINVAL, 2, NULL, "not JSON"},
      {-EINVAL, 3, NULL, "not JSON"},
      {-EINVAL, 4, NULL, "not JSON"}}},
    {CHUNK_NDJSON,
     "{\"email\":\"a@x\",\"metadata\":{\"tenant\":1}}\n{\"email\":\"a@x\",\"metadata\":{"
     "\"campaign\":1}}",
     {{-EINVAL, 1, NULL, "neither 'tenant'"}, {-EINVAL, 2, NULL, "neither 'tenant'"}}},
    {CHUNK_CSV, "email\n", {{0}}},
    {CHUNK_CSV,
     "\xef\xbb\xbf email ,name,code\r\n\r\na@x,\"Doe, \"\"J\"\"\",1\r\n b@x ,,\r\n",
     {{1, 3, "a@x", "{\"name\":\"Doe, \\\"J\\\"\",\"substitutions\":{\"code\":\"1\"}}"},
      {1, 4, "b@x", "{\"substitutions\":{\"code\":\"\"}}"}}},
    {CHUNK_CSV, "name,email\nx,a@x\n,b@x", {{1, 2, "a@x", "{\"name\":\"x\"}"}, {1, 3, "b@x", ""}}},
    {CHUNK_CSV,
     "v,email\n\"one\ntwo\",a@x\n3,b@x",
     {{1, 2, "a@x", "{\"substitutions\":{\"v\":\"one\\ntwo\"}}"},
      {1, 4, "b@x", "{\"substitutions\":{\"v\":\"3\"}}"}}},
    {CHUNK_CSV,
     "email,v\na@x\nb@x,1,2\n\xe5,\xa4\xaa\nd@x,1",
     {{-EINVAL, 2, NULL, "1 cells under 2 headings"},
      {-EINVAL, 3, NULL, "3 cells under 2 headings"},
      {-EINVAL, 4, NULL, "column 1 is not UTF-8"},
      {1, 5, "d@x", "{\"substitutions\":{\"v\":\"1\"}}"}}},
};

static void check_row(const struct chunk *c, int got, const struct chunk_row *row,
                      const struct chunk_error *error, const struct want *want)
{
    assert_int_equal(got, want->got);
    if (got < 0) {
        assert_int_equal(error->line, want->line);
        if (strstr(error->text, want->variables) == NULL)
            fail_msg("'%s' has no '%s'", error->text, want->variables);
    } else if (got > 0) {
        assert_int_equal(chunk_line(c), want->line);
        assert_true(str_eq(row->email, str_of(want->email)));
        if (!str_eq(row->variables, str_of(want->variables)))
            fail_msg("%.*s, not %s", STR_FMT(row->variables), want->variables);
    }
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct chunk_error error = {0};
        struct chunk_row row = {0};
        struct chunk *c;
        size_t n = 0;
        int got;

        assert_int_equal(chunk_open(&c, cases[i].format, str_of(cases[i].body), &error), 0);
        do {
            assert_true(n < ROWS_MAX);
            got = chunk_next(c, &row, &error);
            check_row(c, got, &row, &error, &cases[i].want[n++]);
        } while (got != 0);
        assert_int_equal(chunk_read_bytes(c), strlen(cases[i].body));
        chunk_close(c);
    }
}

static void test_headings(void **state)
{
    static const struct {
        const char *body, *text;
        uint64_t line;
    } bad[] = {
        {"", "no line of headings", 1},
        {"\n\n", "no line of headings", 1},
        {"mail,name\na@x,b\n", "no column 'email'", 1},
        {"\nemail,a,a\n", "'a' is there twice", 2},
        {"email,\n", "column 2 is not", 1},
        {"email,\xff\n", "column 2 is not", 1},
        {"email,name\ra@x.example,A\r", "CR alone", 1},
        {"\"email", "not closed", 1},
        {"email\na@x\n\"b@x", "not closed", 3},
        {"email\na\"@x\nb@x", "a quote inside a cell", 2},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct chunk_error error = {0};
        struct chunk *c;

        assert_int_equal(chunk_open(&c, CHUNK_CSV, str_of(bad[i].body), &error), -EINVAL);
        assert_int_equal(error.line, bad[i].line);
        if (strstr(error.text, bad[i].text) == NULL)
            fail_msg("'%s' has no '%s'", error.text, bad[i].text);
    }
}

/* One line that repeats: what is around it goes on. */
static int first_of(struct buf *body, enum chunk_format format, struct chunk_error *error)
{
    struct chunk_row row;
    struct chunk *c;
    int got;

    assert_int_equal(chunk_open(&c, format, buf_str(body), error), 0);
    got = chunk_next(c, &row, error);
    if (got < 0) {
        assert_int_equal(chunk_next(c, &row, error), 1);
        assert_true(str_eq(row.email, STR("z@x")));
    }
    chunk_close(c);
    buf_done(body);
    return got;
}

static struct buf json_line(size_t nested, size_t filled, const char *of)
{
    struct buf b = {0};

    buf_printf(&b, "{\"email\":\"a@x\",\"%s\":{\"v\":", of);
    for (size_t i = 0; i < nested; i++)
        buf_putc(&b, '[');
    buf_putc(&b, '"');
    for (size_t i = 0; i < filled; i++)
        buf_putc(&b, 'x');
    buf_putc(&b, '"');
    for (size_t i = 0; i < nested; i++)
        buf_putc(&b, ']');
    buf_puts(&b, "}}\n{\"email\":\"z@x\"}\n");
    return b;
}

static void test_bounds(void **state)
{
    struct chunk_error error;
    struct buf b;

    (void)state;
    b = json_line(JSON_FIELDS_DEPTH_MAX - 2, 10, "substitutions");
    assert_int_equal(first_of(&b, CHUNK_NDJSON, &error), 1);
    b = json_line(JSON_FIELDS_DEPTH_MAX - 1, 10, "substitutions");
    assert_int_equal(first_of(&b, CHUNK_NDJSON, &error), -EINVAL);
    b = json_line(0, RECIPE_RECIPIENT_MAX - 30, "substitutions");
    assert_int_equal(first_of(&b, CHUNK_NDJSON, &error), 1);
    b = json_line(0, RECIPE_RECIPIENT_MAX, "substitutions");
    assert_int_equal(first_of(&b, CHUNK_NDJSON, &error), -EINVAL);
    b = json_line(0, CHUNK_LINE_MAX, "substitutions");
    assert_int_equal(first_of(&b, CHUNK_NDJSON, &error), -EINVAL);
    b = (struct buf){0};
    buf_puts(&b, "email,v\na@x,");
    for (size_t i = 0; i < RECIPE_RECIPIENT_MAX; i++)
        buf_putc(&b, 'x');
    buf_puts(&b, "\nz@x,\n");
    assert_int_equal(first_of(&b, CHUNK_CSV, &error), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_headings),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

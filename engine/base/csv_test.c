/* RFC 4180, and what people export that is not quite it. */
#include "base/csv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define CELLS_MAX 6

struct want {
    int got; /* of csv_next() */
    uint64_t line;
    const char *cells[CELLS_MAX];
};

static const struct {
    const char *text;
    struct want want[6]; /* up to the first of got 0 */
} cases[] = {
    {"", {{0, 0, {NULL}}}},
    {"\r\n\n\n", {{0, 0, {NULL}}}},
    {"a,b\r\nc,d", {{1, 1, {"a", "b"}}, {1, 2, {"c", "d"}}}},
    {"a\n\nb\n", {{1, 1, {"a"}}, {1, 3, {"b"}}}},
    {"\xef\xbb\xbf"
     "a,\n",
     {{1, 1, {"a", ""}}}},
    {",,", {{1, 1, {"", "", ""}}}},
    {"\"a,\"\"b\"\"\r\nc\",d\ne", {{1, 1, {"a,\"b\"\r\nc", "d"}}, {1, 3, {"e"}}}},
    {"\"\"\n\"x\"", {{1, 1, {""}}, {1, 2, {"x"}}}},
    {" \"a\" ,b\nc", {{-EINVAL, 1, {NULL}}, {1, 2, {"c"}}}},
    {"\"a\" ,b\r\nc", {{-EINVAL, 1, {NULL}}, {1, 2, {"c"}}}},
    {"a\"b\nc", {{-EINVAL, 1, {NULL}}, {1, 2, {"c"}}}},
    {"x\n\"open,\n\n", {{1, 1, {"x"}}, {-EINVAL, 2, {NULL}}}},
    {"a\rb\nc", {{1, 1, {"a\rb"}}, {1, 2, {"c"}}}},
    {"\"a\"\rb\nc", {{-EINVAL, 1, {NULL}}, {1, 2, {"c"}}}},
};

static void check_record(const struct csv *c, const struct want *want)
{
    assert_int_equal(c->line, want->line);
    if (want->got < 0) {
        assert_non_null(c->error);
        return;
    }
    for (size_t i = 0; i < c->cells_len; i++) {
        assert_true(i < CELLS_MAX && want->cells[i] != NULL);
        assert_true(str_eq(c->cells[i], str_of(want->cells[i])));
    }
    assert_true(c->cells_len == CELLS_MAX || want->cells[c->cells_len] == NULL);
}

static void test_records(void **state)
{
    static struct csv c;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct want *want = cases[i].want;

        csv_init(&c, str_of(cases[i].text));
        for (; want->got != 0; want++) {
            assert_int_equal(csv_next(&c), want->got);
            check_record(&c, want);
        }
        assert_int_equal(csv_next(&c), 0);
        csv_done(&c);
    }
}

static void test_too_many_cells(void **state)
{
    static char text[CSV_CELLS_MAX + 4];
    static struct csv c;

    (void)state;
    memset(text, ',', CSV_CELLS_MAX);
    memcpy(text + CSV_CELLS_MAX, "\nx", 3);
    csv_init(&c, str_of(text));
    assert_int_equal(csv_next(&c), -EINVAL);
    assert_int_equal(csv_next(&c), 1);
    assert_true(str_eq(c.cells[0], STR("x")));
    csv_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_too_many_cells),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

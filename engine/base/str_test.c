#include "base/str.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/assert.h"

static void test_compare(void **state)
{
    static const struct {
        struct str a, b;
        bool equal, equal_nocase, starts_nocase;
    } cases[] = {
        {{NULL, 0}, STR(""), true, true, true},
        {STR("a"), STR(""), false, false, true},
        {STR(""), STR("a"), false, false, false},
        {STR("MAIL FROM:<x>"), STR("mail from:"), false, false, true},
        {STR("Abc"), STR("aBC"), false, true, true},
        {STR("abc"), STR("abc"), true, true, true},
        {STR("abc"), STR("abd"), false, false, false},
        {STR("[a"), STR("{A"), false, false, false}, /* differ by 32, but are no letters */
        {STR("\xc3\x84"), STR("\xc3\xa4"), false, false, false}, /* ASCII only */
        {STR("a\0b"), STR("A\0B"), false, true, true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(str_eq(cases[i].a, cases[i].b), cases[i].equal);
        assert_int_equal(str_eq_nocase(cases[i].a, cases[i].b), cases[i].equal_nocase);
        assert_int_equal(str_starts_nocase(cases[i].a, cases[i].b), cases[i].starts_nocase);
    }
    assert_true(str_eq(str_of(NULL), str_of("")));
    assert_true(str_eq(str_of("xy"), STR("xy")));
}

static void test_trim(void **state)
{
    static const struct {
        struct str in, out;
    } cases[] = {
        {STR(""), STR("")},
        {STR(" \t "), STR("")},
        {STR(" a b\t"), STR("a b")},
        {STR("\r a"), STR("\r a")}, /* only SP and HT */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_true(str_eq(str_trim(cases[i].in), cases[i].out));
}

static void test_find(void **state)
{
    static const struct {
        struct str s;
        char c;
        ptrdiff_t first, last;
    } cases[] = {
        {{NULL, 0}, 'a', -1, -1}, {STR("bcd"), 'a', -1, -1},   {STR("a@b@c"), '@', 1, 3},
        {STR("@"), '@', 0, 0},    {STR("ab\0cd"), '\0', 2, 2},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(str_find(cases[i].s, cases[i].c), cases[i].first);
        assert_int_equal(str_rfind(cases[i].s, cases[i].c), cases[i].last);
    }
}

static void test_take(void **state)
{
    static const struct {
        struct str s, part, rest;
    } cases[] = {
        {STR("a,b,c"), STR("a"), STR("b,c")}, {STR("a,"), STR("a"), STR("")},
        {STR(",a"), STR(""), STR("a")},       {STR("abc"), STR("abc"), STR("")},
        {STR(","), STR(""), STR("")},         {STR(""), STR(""), STR("")},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str rest = cases[i].s;

        assert_true(str_eq(str_take(&rest, ','), cases[i].part));
        assert_true(str_eq(rest, cases[i].rest));
    }
}

static void test_to_u64(void **state)
{
    static const struct {
        struct str s;
        uint64_t max;
        int rc;
        uint64_t value;
    } cases[] = {
        {STR("0"), 10, 0, 0},
        {STR("0010"), 10, 0, 10},
        {STR("11"), 10, -ERANGE, 0},
        {STR("18446744073709551615"), UINT64_MAX, 0, UINT64_MAX},
        {STR("18446744073709551616"), UINT64_MAX, -ERANGE, 0},
        {STR("99999999999999999999999"), UINT64_MAX, -ERANGE, 0},
        {STR("99999999999999999999999x"), UINT64_MAX, -EINVAL, 0},
        {STR(""), 10, -EINVAL, 0},
        {STR("+1"), 10, -EINVAL, 0},
        {STR("-1"), 10, -EINVAL, 0},
        {STR(" 1"), 10, -EINVAL, 0},
        {STR("1\0"), 10, -EINVAL, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t value = 77;

        assert_int_equal(str_to_u64(cases[i].s, cases[i].max, &value), cases[i].rc);
        assert_true(value == (cases[i].rc == 0 ? cases[i].value : 77));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare), cmocka_unit_test(test_trim),   cmocka_unit_test(test_find),
        cmocka_unit_test(test_take),    cmocka_unit_test(test_to_u64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "mail/iso2022jp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define K "\x1b$B"
#define A "\x1b(B"

/* What Python's iso2022_jp codec makes of the text behind the changes that are named. */
static void test_put(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", ""},
        {"plain 1~", "plain 1~"},
        {"日本", K "F|K\\" A},
        {"日a本", K "F|" A "a" K "K\\" A},
        {"行\r\n次\r\n", K "9T" A "\r\n" K "<!" A "\r\n"},
        {"ｶﾞｷﾊﾟｳﾞｯﾞ", K "%,%-%Q%t%C!+" A}, /* half-width: ガキパヴッ゛ */
        {"ｱﾟﾝ｡", K "%\"!,%s!#" A},         /* a mark that does not fit stays */
        {"～〜－−", K "!A!A!]!]" A},       /* both characters of a code */
        {"¥＼", K "!o!@" A},
        {"Ωж", K "&8'X" A},
    };

    (void)state;
    assert_true(iso2022jp_known());
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf out = {0};
        uint32_t missing = 0;

        assert_true(iso2022jp_can(str_of(cases[i].text), &missing));
        iso2022jp_put(&out, str_of(cases[i].text));
        if (!str_eq(buf_str(&out), str_of(cases[i].want)))
            fail_msg("%s: %.*s", cases[i].text, STR_FMT(buf_str(&out)));
        buf_done(&out);
    }
}

static void test_missing(void **state)
{
    static const struct {
        const char *text;
        uint32_t missing;
    } cases[] = {{"日\xf0\xa0\xae\xb7", 0x20bb7},
                 {"é", 0xe9},
                 {"①", 0x2460},
                 {"😀", 0x1f600},
                 {"a\x1b$B", 0x1b},
                 {"한", 0xd55c}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t missing = 0;

        assert_false(iso2022jp_can(str_of(cases[i].text), &missing));
        assert_int_equal(missing, cases[i].missing);
    }
}

/* Heads are whole characters, as long as they may be, and with marks of kana beside these. */
static void test_fitting(void **state)
{
    static const char text[] = "aｶﾞ日b本語c";

    (void)state;
    for (size_t max = 0; max < 60; max++) {
        struct str head = iso2022jp_fitting(str_of(text), max), more;
        struct buf out = {0};

        iso2022jp_put(&out, head);
        assert_true(out.len <= max);
        assert_true(head.len != 1 + 3); /* not between ka and its mark */
        if (head.len < sizeof(text) - 1) {
            assert_true(out.len % 3 == 0 || max < 9);
            more = iso2022jp_fitting(str_of(text), max + 12);
            assert_true(more.len > head.len);
        }
        buf_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_put), cmocka_unit_test(test_missing),
                                       cmocka_unit_test(test_fitting)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Columns of text for people. */
#include "tools/commands/screen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check(const char *text, unsigned columns, bool pad, const char *wanted)
{
    struct buf out = {0};

    buf_puts(&out, "x");
    put_text(&out, text, columns, pad);
    buf_putc(&out, 0);
    assert_string_equal((const char *)out.data + 1, wanted);
    buf_done(&out);
}

static void test_text(void **state)
{
    (void)state;
    check("abc", 0, false, "abc");
    check("abc", 3, true, "abc");
    check("abc", 5, true, "abc  ");
    check("abcd", 3, true, "ab…");
    check("a\x1b[31m\tb\xffz", 0, false, "a?[31m b?z");
    check("a\xe2\x80\xae"
          "b\xe2\x81\xa6\xc2\x9b",
          0, false, "a???b?????"); /* direction, C1 */
    check("é\xcc\x81x", 3, true, "é\xcc\x81x ");
}

/* Kanji take two columns each: a line that counts them as one is longer than the screen. */
static void test_wide(void **state)
{
    (void)state;
    check("太郎@例え.jp", 14, true, "太郎@例え.jp  ");
    check("太郎@例え.jp", 12, true, "太郎@例え.jp");
    check("太郎@例え.jp", 11, true, "太郎@例え.…");
    check("太郎", 3, true, "太…");
    check("太郎", 2, true, "… ");
    check("が\xe3\x82\x99ガ", 4, true, "が\xe3\x82\x99ガ");
    check("ｶﾞ😀、", 6, true, "ｶﾞ😀、");
}

static void check_indented(const char *text, unsigned columns, unsigned indent, const char *wanted)
{
    struct buf out = {0};

    buf_puts(&out, text);
    fold_text(&out, columns, indent);
    buf_putc(&out, 0);
    assert_string_equal((const char *)out.data, wanted);
    buf_done(&out);
}

static void check_fold(const char *text, unsigned columns, const char *wanted)
{
    check_indented(text, columns, 0, wanted);
}

static void test_fold(void **state)
{
    (void)state;
    check_fold("one two three\n", 0, "one two three\n");
    check_fold("one two three\n", 13, "one two three\n");
    check_fold("one two three\n", 12, "one two\nthree\n");
    check_fold("one two three\nfour five\n", 7, "one two\nthree\nfour\nfive\n");
    check_fold("  one two\n", 5, "  one\ntwo\n"); /* what begins a line stays in front of it */
    check_fold("longer than that", 3, "longer\nthan\nthat");
    check_fold("太郎 次郎", 8, "太郎\n次郎");
    check_fold("", 5, "");
    check_indented("to one two three\nfor four\n", 8, 3, "to one\n   two\n   three\nfor four\n");
    check_indented("one two", 4, 3, "one\ntwo"); /* no room for it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_wide),
        cmocka_unit_test(test_fold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

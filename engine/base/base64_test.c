#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>

#include "base/base64.h"

/* RFC 4648 section 10, and bytes that are no text. */
static const struct {
    struct str bytes, text;
} pairs[] = {
    {{"", 0}, {"", 0}},
    {{"f", 1}, {"Zg==", 4}},
    {{"fo", 2}, {"Zm8=", 4}},
    {{"foo", 3}, {"Zm9v", 4}},
    {{"foob", 4}, {"Zm9vYg==", 8}},
    {{"fooba", 5}, {"Zm9vYmE=", 8}},
    {{"foobar", 6}, {"Zm9vYmFy", 8}},
    {{"\0\xff\xfb\xef", 4}, {"AP/77w==", 8}},
};

static void test_pairs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct buf out = {0};

        base64_put(&out, pairs[i].bytes);
        assert_true(str_eq(buf_str(&out), pairs[i].text));
        buf_clear(&out);
        buf_puts(&out, "kept");
        assert_int_equal(base64_decode(&out, pairs[i].text), 0);
        assert_int_equal(out.len, 4 + pairs[i].bytes.len);
        assert_true(out.len == 4 || memcmp(out.data + 4, pairs[i].bytes.ptr, out.len - 4) == 0);
        buf_done(&out);
    }
}

static void test_appends(void **state)
{
    struct buf text = {0};

    (void)state;
    base64_put(&text, STR("ab"));
    base64_put(&text, STR("abc"));
    base64_put(&text, (struct str){NULL, 0});
    assert_true(str_eq(buf_str(&text), STR("YWI=YWJj")));
    buf_done(&text);
}

static void test_wrong(void **state)
{
    static const char *const wrong[] = {"Z",      "Zg",   "Zg=",   "Zh==",     "Zm9=",
                                        "Z===",   "====", "Zm9v=", "Zg==Zg==", "Zm 9v",
                                        "Zm9v\n", "Zm-_", "=g==",  "Zm=v",     "Zg==="};
    struct buf out = {0};

    (void)state;
    buf_puts(&out, "kept");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(base64_decode(&out, str_of(wrong[i])), -EINVAL);
        assert_int_equal(out.len, 4);
    }
    buf_done(&out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_appends),
        cmocka_unit_test(test_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

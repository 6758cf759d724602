#include "base/packed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_numbers(void **state)
{
    static const struct {
        uint64_t v;
        size_t bytes;
        struct str little, big;
    } rows[] = {
        {0, 1, STR("\0"), STR("\0")},
        {255, 1, STR("\377"), STR("\377")},
        {0x0102, 2, STR("\2\1"), STR("\1\2")},
        {0x010203, 3, STR("\3\2\1"), STR("\1\2\3")},
        {0x0102030405060708, 8, STR("\10\7\6\5\4\3\2\1"), STR("\1\2\3\4\5\6\7\10")},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};
        uint8_t key[8];
        struct str in;
        uint64_t v;

        packed_put(&out, rows[i].v, rows[i].bytes);
        in = buf_str(&out);
        assert_true(str_eq(in, rows[i].little));
        assert_true(packed_at(in.ptr, rows[i].bytes) == rows[i].v);
        assert_true(packed_take(&in, rows[i].bytes, &v) && v == rows[i].v && in.len == 0);
        assert_false(packed_take(&in, 1, &v));
        packed_set_key(key, rows[i].v, rows[i].bytes);
        assert_true(str_eq((struct str){(char *)key, rows[i].bytes}, rows[i].big));
        assert_true(packed_key_at(key, rows[i].bytes) == rows[i].v);
        buf_done(&out);
    }
    assert_false(packed_fits(256, 1) || packed_fits(1, 0) || packed_fits(0, 9));
    assert_true(packed_fits(UINT64_MAX, 8));
}

static void test_texts(void **state)
{
    struct buf out = {0};
    char text[8];
    struct str in;

    (void)state;
    packed_put_text(&out, "abc");
    packed_put_text(&out, "");
    in = buf_str(&out);
    assert_true(packed_take_text(&in, text, sizeof(text) - 1));
    assert_string_equal(text, "abc");
    assert_true(packed_take_text(&in, text, sizeof(text) - 1));
    assert_string_equal(text, "");
    assert_false(packed_take_text(&in, text, sizeof(text) - 1)); /* nothing is left */
    in = buf_str(&out);
    assert_false(packed_take_text(&in, text, 2)); /* too long */
    in = (struct str){(char *)out.data, 3};
    assert_false(packed_take_text(&in, text, sizeof(text) - 1)); /* cut off */
    in = STR("\2a\0");
    assert_false(packed_take_text(&in, text, sizeof(text) - 1)); /* a NUL within */
    buf_done(&out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

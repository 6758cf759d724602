#include "base/buf.h"

#include <errno.h>
#include <setjmp.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static void assert_content(const struct buf *b, const char *want)
{
    assert_int_equal(b->len, strlen(want));
    assert_memory_equal(b->data, want, b->len);
}

static void test_numbers(void **state)
{
    struct buf b = {0};

    (void)state;
    buf_put_u64(&b, 0);
    buf_putc(&b, ' ');
    buf_put_u64(&b, UINT64_MAX);
    buf_putc(&b, ' ');
    buf_put_i64(&b, INT64_MIN);
    buf_putc(&b, ' ');
    buf_put_i64(&b, -1);
    buf_putc(&b, ' ');
    buf_put_i64(&b, INT64_MAX);
    assert_content(&b, "0 18446744073709551615 -9223372036854775808 -1 9223372036854775807");
    buf_done(&b);
    assert_null(b.data);
}

static void test_growth(void **state)
{
    struct buf b = {0};
    char want[5000];

    (void)state;
    for (size_t i = 0; i < sizeof(want); i++) {
        want[i] = (char)('a' + i % 26);
        buf_putc(&b, want[i]);
        assert_true(b.len <= b.cap && b.cap < 2 * b.len + 64); /* doubles, no more */
    }
    assert_memory_equal(b.data, want, sizeof(want));
    buf_consume(&b, 26);
    assert_memory_equal(b.data, want, sizeof(want) - 26);
    buf_consume(&b, b.len);
    assert_int_equal(b.len, 0);
    buf_consume(&b, 0);

    assert_int_equal(buf_reserve(&b, SIZE_MAX), -ENOMEM);
    buf_puts(&b, "kept");
    assert_int_equal(buf_reserve(&b, SIZE_MAX - 2), -ENOMEM); /* the sum wraps */
    assert_content(&b, "kept");
    buf_clear(&b);
    buf_put(&b, NULL, 0);
    buf_put_str(&b, (struct str){NULL, 0});
    assert_int_equal(buf_str(&b).len, 0);
    buf_done(&b);
}

/* Every length around the room that is left: the first try fits exactly or falls short by one. */
static void test_printf(void **state)
{
    (void)state;
    for (int n = 0; n < 300; n++) {
        struct buf b = {0};
        char want[400];

        buf_puts(&b, "12345");
        buf_printf(&b, "%0*d|%s", n, 7, "x");
        snprintf(want, sizeof(want), "12345%0*d|%s", n, 7, "x");
        assert_content(&b, want);
        buf_done(&b);
    }
}

static void test_json_table(void **state)
{
    static const struct {
        struct str in;
        const char *out;
    } cases[] = {
        {{NULL, 0}, "\"\""},
        {STR("plain"), "\"plain\""},
        {STR("a\"b\\c/"), "\"a\\\"b\\\\c/\""},
        {STR("\b\t\n\f\r"), "\"\\b\\t\\n\\f\\r\""},
        {STR("\0\x01\x1f\x7f"), "\"\\u0000\\u0001\\u001f\x7f\""},
        {STR("\xe6\x97\xa9\xe9\xa6\xac"), "\"\xe6\x97\xa9\xe9\xa6\xac\""},
        {STR("\xf0\x9f\x90\xb4"), "\"\xf0\x9f\x90\xb4\""},
        {STR("\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80"),
         "\"\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80\""},
        {STR("\xc2\x9b"
             "2J\xc2\xa0"),
         "\"\\u009b2J\xc2\xa0\""}, /* C1 */
        {STR("\xe2\x80\xa8\xe2\x80\xae\xe2\x81\xa9"), "\"\\u2028\\u202e\\u2069\""},
        {STR("\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa"),
         "\"\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa\""},
        {STR("\xc2\x9b\xff"), "\"\\u009b\xef\xbf\xbd\""},
        {STR("\xff"), "\"\xef\xbf\xbd\""},
        {STR("\x80z"), "\"\xef\xbf\xbdz\""},
        {STR("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* overlong */
        {STR("\xe0\x80\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* overlong */
        {STR("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* surrogate */
        {STR("\xf4\x90\x80\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {STR("\xe6\x97"), "\"\xef\xbf\xbd\""},         /* cut at the end */
        {STR("\xe6\x97\x22"), "\"\xef\xbf\xbd\\\"\""}, /* cut by a quote */
        {STR("\xf0\x9f\x90x"), "\"\xef\xbf\xbdx\""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};

        buf_put_json(&b, cases[i].in);
        assert_content(&b, cases[i].out);
        buf_done(&b);
    }
}

/* Length of the well-formed sequence at p by the definition: decode, then check the code point. */
static size_t naive_utf8(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80       ? 1
                 : p[0] >> 5 == 6  ? 2
                 : p[0] >> 4 == 14 ? 3
                 : p[0] >> 3 == 30 ? 4
                                   : 0;
    uint32_t code = len == 1 ? p[0] : p[0] & (0xffu >> (len + 1));

    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    return code < least[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : len;
}

/* The result is always one well-formed JSON string in valid UTF-8, whatever goes in. */
static void assert_json_string(const struct buf *b)
{
    size_t at = 1;

    assert_true(b->len >= 2 && b->data[0] == '"' && b->data[b->len - 1] == '"');
    while (at < b->len - 1) {
        size_t len = naive_utf8(b->data + at, b->len - 1 - at);

        assert_true(len > 0);
        assert_true(b->data[at] >= 0x20 && b->data[at] != '"');
        if (b->data[at] == '\\') {
            assert_true(at + 2 < b->len);
            assert_non_null(strchr("\"\\bfnrtu", b->data[at + 1]));
            len = b->data[at + 1] == 'u' ? 6 : 2;
        }
        at += len;
    }
    assert_int_equal(at, b->len - 1);
}

static void test_json_all(void **state)
{
    struct buf b = {0};

    (void)state;
    for (unsigned pair = 0; pair < 65536; pair++) { /* all bytes, beside all bytes */
        const char in[] = {'a', (char)(pair >> 8), (char)pair, 'b'};

        buf_clear(&b);
        buf_put_json(&b, (struct str){in, sizeof(in)});
        assert_json_string(&b);
    }
    srand(1);
    for (int round = 0; round < 20000; round++) {
        static const uint8_t nasty[] = {0xc2, 0xe0, 0xed, 0xf0, 0xf4, 0x80,
                                        0x8f, 0x90, 0xa0, 0xbf, '"',  0};
        size_t n = 1 + (size_t)rand() % 12;
        char *in = malloc(n); /* of its exact size: ASan sees a read behind it */

        for (size_t i = 0; i < n; i++)
            in[i] = (char)nasty[(size_t)rand() % sizeof(nasty)];
        buf_clear(&b);
        buf_put_json(&b, (struct str){in, n});
        assert_json_string(&b);
        free(in);
    }
    buf_done(&b);
}

/* Each byte at each place of the words that are looked at eight bytes at a time. */
static void test_json_words(void **state)
{
    struct buf b = {0};

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        size_t width = c >= 0x80                                    ? 3
                       : c >= 0x20 && c != '"' && c != '\\'         ? 1
                       : c != 0 && strchr("\b\t\n\f\r\"\\", (int)c) ? 2
                                                                    : 6;

        for (size_t at = 0; at < 20; at++) {
            char in[20];

            memset(in, 'a', sizeof(in));
            in[at] = (char)c;
            buf_clear(&b);
            buf_put_json(&b, (struct str){in, sizeof(in)});
            assert_json_string(&b);
            assert_int_equal(b.len, 2 + 19 + width);
            assert_memory_equal(b.data + 1, in, at);
            assert_memory_equal(b.data + 1 + at + width, in + at + 1, 19 - at);
        }
    }
    buf_done(&b);
}

static void test_secret(void **state)
{
    struct buf b = {0};
    char text[300];

    (void)state;
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < sizeof(text); i += 7)
        buf_put_secret(&b, text + i, sizeof(text) - i < 7 ? sizeof(text) - i : 7);
    assert_int_equal(b.len, sizeof(text));
    assert_memory_equal(b.data, text, sizeof(text));
    buf_wipe(&b);
    assert_true(b.data == NULL && b.len == 0 && b.cap == 0);
    buf_wipe(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_secret),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_growth),     cmocka_unit_test(test_printf),
        cmocka_unit_test(test_json_table), cmocka_unit_test(test_json_all),
        cmocka_unit_test(test_json_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

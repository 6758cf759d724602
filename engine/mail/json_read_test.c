/* Beside libjansson: the same trees, and the same texts refused. */
#include "mail/json_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#define DEPTH  32
#define VALUES 1000

static const char *const texts[] = {
    /* Taken. */
    "{}",
    "[]",
    " [ ] ",
    "\t{\r\n}\n",
    "[1,-1,0,-0,1.5,-1.5e3,1E+2,1e-2,0.0,9223372036854775807,-9223372036854775808]",
    "[true,false,null]",
    "[\"\",\"a\",\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"\\u0041\\u00e9\\u65e5\\ud83d\\ude00\\uFFFF\"]",
    "{\"a\":{\"b\":[{\"c\":\"d\"}]},\"\":1,\"\\u0061b\":[2],\"日本\":\"語\"}",
    "{ \"a\" : [ 1 , 2 ] , \"b\" : { } }",
    "[\"\x7f\xc2\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf\"]",
    "[5e-324,1e308,1e-999]",
    /* Refused. */
    "",
    " ",
    "1",
    "\"a\"",
    "null",
    "[",
    "]",
    "{",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1]]",
    "[1] x",
    "{1:2}",
    "{a:1}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{\"a\":1 \"b\":2}",
    "{\"a\":1,\"a\":2}",
    "{\"a\":1,\"\\u0061\":2}",
    "[01]",
    "[-]",
    "[+1]",
    "[.5]",
    "[1.]",
    "[1e]",
    "[1e+]",
    "[0x1]",
    "[1a]",
    "[NaN]",
    "[Infinity]",
    "[9223372036854775808]",
    "[-9223372036854775809]",
    "[1e999]",
    "[-1e999]",
    "[tru]",
    "[truee]",
    "[True]",
    "[\"a]",
    "[\"a\n\"]",
    "[\"\x01\"]",
    "[\"\\\"]",
    "[\"\\x\"]",
    "[\"\\u12\"]",
    "[\"\\u12g4\"]",
    "[\"\\u0000\"]",
    "[\"\\ud800\"]",
    "[\"\\ud800\\u0041\"]",
    "[\"\\ud800x\"]",
    "[\"\\udc00\"]",
    "[\"\x80\"]",
    "[\"\xc0\x80\"]",
    "[\"\xed\xa0\x80\"]",
    "[\"\xf4\x90\x80\x80\"]",
    "[\"\xe6\x97\"]",
    "\xef\xbb\xbf[]",
    "['a']",
    "[1]/**/",
};

static void compare(const char *text, size_t len)
{
    struct json_read_error error = {0};
    size_t values;
    json_t *want = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    json_t *got = json_read((struct str){text, len}, DEPTH, VALUES, &values, &error);

    if ((got == NULL) != (want == NULL) || (want != NULL && !json_equal(want, got)))
        fail_msg("'%.*s': %s", (int)len, text, got == NULL ? error.why : "another tree");
    if (got == NULL) {
        assert_int_equal(error.kind, JSON_READ_NOT_JSON);
        assert_true(error.why != NULL && error.line > 0 && error.column > 0);
    }
    json_decref(want);
    json_decref(got);
}

static void test_as_the_library(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        compare(texts[i], strlen(texts[i]));
    compare("[1]\0", 4);
    compare("[\"a\0b\"]", 7);
    compare("[\"\\\0\"]", 6);
    compare("\0", 1);
}

/* Every beginning of a text that is taken is refused, wherever it ends. */
static void test_cut(void **state)
{
    const char *text = "{\"a\":[1.5e3,\"x\\u65e5\\ud83d\\ude00\",true,null],\"b\":{\"c\":-1}}";

    (void)state;
    for (size_t len = 0; len <= strlen(text); len++)
        compare(text, len);
}

static void test_places(void **state)
{
    static const struct {
        const char *text, *why;
        size_t line, column;
    } cases[] = {{"", "'{' or '[' is missing", 1, 1},
                 {"[1,\n 2,\n  x]", "neither a value nor an end", 3, 3},
                 {"[\"日本\", x]", "neither a value nor an end", 1, 8},
                 {"{\"a\": 1,\n\"a\": 2}", "a duplicate name", 2, 7},
                 {"[\"\xff\"]", "a string is not UTF-8", 1, 4},
                 {"[1] 2", "something is behind its end", 1, 5}};
    struct json_read_error e;
    size_t values;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_null(json_read(str_of(cases[i].text), DEPTH, VALUES, &values, &e));
        assert_string_equal(e.why, cases[i].why);
        assert_int_equal(e.line, cases[i].line);
        assert_int_equal(e.column, cases[i].column);
    }
}

static void test_limits(void **state)
{
    struct json_read_error e;
    size_t values;
    json_t *root;

    (void)state;
    root = json_read(STR("[[[]]]"), 3, VALUES, &values, &e);
    assert_non_null(root);
    assert_int_equal(values, 3);
    json_decref(root);
    assert_null(json_read(STR("[1,[[[]]]]"), 3, VALUES, &values, &e));
    assert_int_equal(e.kind, JSON_READ_TOO_DEEP);
    root = json_read(STR("[[],[[]],{\"a\":[]}]"), 3, VALUES, &values, &e); /* one after another */
    assert_int_equal(values, 7);
    json_decref(root);
    root = json_read(STR("{\"a\":1,\"b\":2}"), 3, 5, &values, &e);
    assert_non_null(root);
    json_decref(root);
    assert_null(json_read(STR("{\"a\":1,\"b\":2}"), 3, 4, &values, &e));
    assert_int_equal(e.kind, JSON_READ_TOO_MANY);
    assert_null(json_read(STR("[1,2,3,x"), 3, 3, &values, &e));
    assert_int_equal(e.kind, JSON_READ_TOO_MANY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_the_library),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

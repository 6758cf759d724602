#include "http/tokens.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void test_file(void **state)
{
    char file[] = "/tmp/tokens_test.XXXXXX", text[TOKEN_TEXT_BYTES], other[TOKEN_TEXT_BYTES];
    struct token one = {.name = "app", .scopes = TOKEN_INJECT | TOKEN_READ, .created_s = 7};
    struct token_list list = {.tokens = &one, .len = 1}, read = {0};
    struct buf error = {0};
    struct tokens tokens;
    struct token found;

    (void)state;
    close(mkstemp(file));
    token_make(text, one.hash);
    assert_int_equal(strlen(text), TOKEN_TEXT_BYTES - 1);
    assert_int_equal(token_list_store(file, &list), 0);
    assert_int_equal(token_list_load(file, &read, &error), 0);
    assert_int_equal(read.len, 1);
    assert_memory_equal(&read.tokens[0], &one, sizeof(one));
    token_list_done(&read);
    tokens_init(&tokens);
    token_make(other, found.hash);
    assert_true(tokens_find(&tokens, file, str_of(text), &found));
    assert_string_equal(found.name, "app");
    assert_false(tokens_find(&tokens, file, str_of(other), &found));
    /* Another token in its place, in the same second. */
    memcpy(one.tenant, "acme", 5);
    token_hash(str_of(other), one.hash);
    assert_int_equal(token_list_store(file, &list), 0);
    assert_false(tokens_find(&tokens, file, str_of(text), &found));
    assert_true(tokens_find(&tokens, file, str_of(other), &found));
    assert_string_equal(found.tenant, "acme");
    unlink(file);
    assert_false(tokens_find(&tokens, file, str_of(other), &found));
    tokens_done(&tokens);
    assert_int_equal(token_list_load(file, &read, &error), -ENOENT);
    buf_done(&error);
}

static void test_spoilt(void **state)
{
    static const char *const lines[] = {
        "x",
        "a b c d e\n",
        "app HASH inject - 1\n",
        "app HASH inject - x\n",
        "app HASH fly - 1\n",
        "a/b HASH inject - 1\n",
        "app HASH inject - 1 more\n",
        "app HASH inject  1\n",
        "\n",
    };
    char file[] = "/tmp/tokens_test.XXXXXX", hash[TOKEN_HASH_CHARS + 1];

    (void)state;
    close(mkstemp(file));
    token_hash(STR("x"), hash);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        const char *at = strstr(lines[i], "HASH");
        struct token_list read = {0};
        struct buf error = {0};
        FILE *f = fopen(file, "w");

        if (at != NULL)
            fprintf(f, "%.*s%s%s", (int)(at - lines[i]), lines[i], hash, at + 4);
        else
            fputs(lines[i], f);
        fclose(f);
        if (i == 2) { /* the one that is right */
            assert_int_equal(token_list_load(file, &read, &error), 0);
            token_list_done(&read);
        } else {
            assert_int_equal(token_list_load(file, &read, &error), -EINVAL);
        }
        buf_done(&error);
    }
    unlink(file);
}

static void test_scopes(void **state)
{
    (void)state;
    assert_int_equal(token_scopes_parse(STR("inject")), TOKEN_INJECT);
    assert_int_equal(token_scopes_parse(STR("read,admin")), TOKEN_READ | TOKEN_ADMIN);
    assert_int_equal(token_scopes_parse(STR("")), 0);
    assert_int_equal(token_scopes_parse(STR("inject,,read")), 0);
    assert_int_equal(token_scopes_parse(STR("all")), 0);
    assert_true(token_name_valid(STR("a.b_c-d")));
    assert_false(token_name_valid(STR("-")));
    assert_false(token_name_valid(STR("")));
    assert_false(token_name_valid(STR("a b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_spoilt),
        cmocka_unit_test(test_scopes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

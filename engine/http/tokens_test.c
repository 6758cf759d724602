#include "http/tokens.h"

#include <errno.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
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
    assert_int_equal(token_list_store(file, &list, NULL), 0);
    assert_int_equal(token_list_load(file, &read, &error), 0);
    assert_int_equal(read.len, 1);
    assert_memory_equal(&read.tokens[0], &one, sizeof(one));
    token_list_done(&read);
    tokens_init(&tokens);
    token_make(other, found.hash);
    assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &found), 0);
    assert_string_equal(found.name, "app");
    assert_int_equal(tokens_find(&tokens, file, str_of(other), UINT64_MAX, &found), -ENOENT);
    /* Another token in its place, in the same second. */
    memcpy(one.tenant, "acme", 5);
    token_hash(str_of(other), one.hash);
    assert_int_equal(token_list_store(file, &list, NULL), 0);
    assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &found), -ENOENT);
    assert_int_equal(tokens_find(&tokens, file, str_of(other), UINT64_MAX, &found), 0);
    assert_string_equal(found.tenant, "acme");
    /* Who has just looked does not look again, but for one that is not known. */
    unlink(file);
    assert_int_equal(tokens_find(&tokens, file, str_of(other), 0, &found), 0);
    assert_int_equal(tokens_find(&tokens, file, str_of(text), 0, &found), -ENOENT);
    assert_int_equal(tokens_find(&tokens, file, str_of(other), 0, &found), -ENOENT);
    tokens_done(&tokens);
    assert_int_equal(token_list_load(file, &read, &error), -ENOENT);
    buf_done(&error);
}

/* A rate is in the file; all of a period may be had at once, and what a request brings beyond is
 * waited for. */
static void test_rate(void **state)
{
    char file[] = "/tmp/tokens_test.XXXXXX", text[TOKEN_TEXT_BYTES];
    struct token two[] =
        {{.name = "app", .scopes = TOKEN_INJECT, .rate = 2, .rate_period_ms = 1000},
         {.name = "any", .scopes = TOKEN_INJECT}},
                 found, any;
    struct token_list list = {.tokens = two, .len = 2};
    const uint64_t second = 1000000000, now = 5 * second;
    struct tokens tokens;

    (void)state;
    close(mkstemp(file));
    token_make(text, two[0].hash);
    token_make(text, two[1].hash);
    tokens_init(&tokens);
    assert_int_equal(token_list_store(file, &list, NULL), 0);
    assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &any), 0);
    token_make(text, two[0].hash);
    assert_int_equal(token_list_store(file, &list, NULL), 0);
    assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &found), 0);
    assert_int_equal(found.rate, 2);
    assert_int_equal(found.rate_period_ms, 1000);
    assert_int_equal(tokens_take(&tokens, &found, now), 0);
    assert_int_equal(tokens_take(&tokens, &found, now), 0);
    assert_in_range(tokens_take(&tokens, &found, now), 500, 501);
    assert_int_equal(tokens_take(&tokens, &found, now + second / 2), 0);
    tokens_charge(&tokens, &found, 10, now + second / 2);
    assert_in_range(tokens_take(&tokens, &found, now + second / 2), 5500, 5501);
    assert_int_equal(tokens_take(&tokens, &found, now + 6 * second), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(tokens_take(&tokens, &any, now), 0);
    tokens_give_back(&tokens, &found); /* what was taken last */
    assert_int_equal(tokens_take(&tokens, &found, now + 6 * second), 0);
    tokens_charge(&tokens, &found, UINT64_MAX, now + 6 * second); /* no overflow */
    assert_true(tokens_take(&tokens, &found, now + 7 * second) > 1000000);
    /* Another token comes, or goes: what was taken stays taken. */
    list = (struct token_list){.tokens = two, .len = 1};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(token_list_store(file, &list, NULL), 0);
        assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &found), 0);
        assert_true(tokens_take(&tokens, &found, now + 7 * second) > 1000000);
        list.len = 2;
    }
    tokens_done(&tokens);
    unlink(file);
}

/* What keeps the file from being read is mended without a write to the file. */
static void test_unreadable(void **state)
{
    char dir[] = "/tmp/tokens_test.XXXXXX", file[64], text[TOKEN_TEXT_BYTES];
    struct token one = {.name = "app", .scopes = TOKEN_INJECT}, found;
    struct token_list list = {.tokens = &one, .len = 1};
    struct tokens tokens;
    uid_t me = geteuid();

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/tokens", dir);
    token_make(text, one.hash);
    assert_int_equal(token_list_store(file, &list, "nobody"), 0);
    tokens_init(&tokens);
    for (int i = 0; i < 2; i++) { /* the file, and the directory that it is in */
        assert_int_equal(chmod(i == 0 ? dir : file, 0755), 0);
        assert_int_equal(chmod(i == 0 ? file : dir, 0), 0);
        assert_int_equal(me == 0 ? seteuid(65533) : 0, 0); /* root reads all */
        assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &found), -EACCES);
        assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &found), -EACCES);
        assert_int_equal(seteuid(me), 0);
        assert_int_equal(chmod(i == 0 ? file : dir, 0755), 0);
        assert_int_equal(me == 0 ? seteuid(65533) : 0, 0);
        assert_int_equal(tokens_find(&tokens, file, str_of(text), UINT64_MAX, &found), 0);
        assert_int_equal(seteuid(me), 0);
    }
    tokens_done(&tokens);
    unlink(file);
    rmdir(dir);
}

/* Root makes the file for the engine's user. */
static void test_owner(void **state)
{
    char dir[] = "/tmp/tokens_test.XXXXXX", file[64];
    const struct passwd *pw = getpwnam("nobody");
    struct token_list list = {0};
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_non_null(pw);
    snprintf(file, sizeof(file), "%s/tokens", dir);
    assert_int_equal(token_list_store(file, &list, "nobody"), 0);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_uid, geteuid() == 0 ? pw->pw_uid : geteuid());
    assert_int_equal(st.st_mode & 0777, 0600);
    unlink(file);
    assert_int_equal(token_list_store(file, &list, NULL), 0);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_uid, geteuid());
    unlink(file);
    rmdir(dir);
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
        "app HASH inject - 1 5/s 1\n",
        "app HASH inject - 1 0/s\n",
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
        cmocka_unit_test(test_file),   cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_owner),  cmocka_unit_test(test_spoilt),
        cmocka_unit_test(test_scopes), cmocka_unit_test(test_rate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

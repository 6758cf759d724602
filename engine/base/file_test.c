#include "base/file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/file_test.XXXXXX", file[64], beside[sizeof(file) + 4];

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(file, sizeof(file), "%s/file", dir);
    snprintf(beside, sizeof(beside), "%s.new", file);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(file);
    return rmdir(dir); /* nothing else was left in it */
}

static void check_file(struct str content, mode_t mode)
{
    struct buf text = {0};
    struct stat st;

    assert_int_equal(file_read(file, content.len, &text), 0);
    assert_true(str_eq(buf_str(&text), content));
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
    buf_done(&text);
}

static void test_replace(void **state)
{
    struct stat before, after, owner = {.st_uid = 4711, .st_gid = 4712};
    int rc;

    (void)state;
    assert_int_equal(file_replace(file, 0600, NULL, STR("one")), 0);
    check_file(STR("one"), 0600);
    assert_int_equal(stat(file, &before), 0);
    assert_int_equal(before.st_uid, geteuid());
    assert_int_equal(symlink("/nowhere", beside), 0); /* left behind, or laid there */
    assert_int_equal(file_replace(file, 0640, NULL, STR("")), 0);
    check_file(STR(""), 0640);
    assert_int_equal(stat(file, &after), 0);
    assert_int_not_equal(after.st_ino, before.st_ino);
    rc = file_replace(file, 0600, &owner, STR("two"));
    assert_int_equal(rc, geteuid() == 0 ? 0 : -EPERM);
    assert_int_equal(access(beside, F_OK), -1);
    assert_int_equal(stat(file, &after), 0);
    if (rc == 0)
        assert_true(after.st_uid == 4711 && after.st_gid == 4712);
    else
        check_file(STR(""), 0640);
    assert_int_equal(file_replace("/nowhere/file", 0600, NULL, STR("")), -ENOENT);
}

static void test_read(void **state)
{
    struct buf large = {0}, text = {0};

    (void)state;
    assert_int_equal(file_read("/nowhere/file", 10, &text), -ENOENT);
    assert_int_equal(file_read("/", 10, &text), -EISDIR);
    for (uint64_t i = 0; large.len < 200000; i++)
        buf_put_u64(&large, i);
    assert_int_equal(file_replace(file, 0600, NULL, buf_str(&large)), 0);
    check_file(buf_str(&large), 0600);
    assert_int_equal(file_read(file, large.len - 1, &text), -EFBIG);
    buf_done(&large);
    buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_read),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

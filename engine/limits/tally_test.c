#include "limits/tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/assert.h"

static void test_nth_within(void **state)
{
    struct tally t = {0};

    (void)state;
    assert_int_equal(tally_open(&t), 0);
    assert_true(tally_hit(&t, STR("once"), 1, 1000, 0, 0));
    assert_true(tally_hit(&t, STR("once"), 1, 1000, 0, 0));
    /* The third within a second, whenever the second began. */
    assert_false(tally_hit(&t, STR("a"), 3, 1000, 0, 0));
    assert_false(tally_hit(&t, STR("a"), 3, 1000, 0, 900));
    assert_false(tally_hit(&t, STR("a"), 3, 1000, 0, 1001));
    assert_false(tally_hit(&t, STR("b"), 3, 1000, 0, 1001)); /* another's */
    assert_true(tally_hit(&t, STR("a"), 3, 1000, 0, 1900));
    /* Said: from nothing again. */
    assert_false(tally_hit(&t, STR("a"), 3, 1000, 0, 1901));
    assert_false(tally_hit(&t, STR("a"), 3, 1000, 0, 1902));
    assert_true(tally_hit(&t, STR("a"), 3, 1000, 0, 1903));
    /* Another number of times, behind a reload. */
    assert_false(tally_hit(&t, STR("a"), 2, 1000, 0, 1904));
    assert_true(tally_hit(&t, STR("a"), 2, 1000, 0, 1905));
    tally_close(&t);
    tally_close(&t);
}

static void test_quiet(void **state)
{
    struct tally t = {0};

    (void)state;
    assert_int_equal(tally_open(&t), 0);
    assert_true(tally_hit(&t, STR("a"), 1, 1000, 500, 10));
    assert_false(tally_hit(&t, STR("a"), 1, 1000, 500, 10));
    assert_false(tally_hit(&t, STR("a"), 1, 1000, 500, 509));
    assert_true(tally_hit(&t, STR("a"), 1, 1000, 500, 510));
    tally_close(&t);
}

static void test_room(void **state)
{
    struct tally t = {0};
    char name[32];

    (void)state;
    assert_int_equal(tally_open(&t), 0);
    assert_false(tally_hit(&t, STR("kept"), 2, 1000, 0, 0));
    assert_false(tally_hit(&t, STR("lost"), 2, 1000, 0, 0));
    for (int i = 0; i < TALLY_NAMES_MAX - 1; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        assert_false(tally_hit(&t, str_of(name), 2, 1000, 0, 1));
        if (i == 10)
            assert_true(tally_hit(&t, STR("kept"), 2, 1000, 0, 1));
    }
    assert_int_equal(t.names.count, TALLY_NAMES_MAX);
    assert_false(tally_hit(&t, STR("lost"), 2, 1000, 0, 2));
    assert_false(tally_hit(&t, STR("kept"), 2, 1000, 0, 2));
    assert_true(tally_hit(&t, STR("kept"), 2, 1000, 0, 3));
    tally_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nth_within),
                                       cmocka_unit_test(test_quiet), cmocka_unit_test(test_room)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

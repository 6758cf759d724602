/* So many for a name within a period, and names that do not crowd each other out. */
#include "limits/quota.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_take(void **state)
{
    struct quota *q = calloc(1, sizeof(*q));
    char name[32];
    int refused = 0;

    (void)state;
    assert_non_null(q);
    for (int period = 1; period < 4; period++) {
        for (int i = 0; i < 3; i++)
            assert_true(quota_take(q, STR("victim.example"), period, 3));
        for (int i = 0; i < 1000; i++)
            assert_false(quota_take(q, STR("victim.example"), period, 3));
        assert_true(quota_take(q, STR("other.example"), period, 3));
    }
    /* Thousands of others leave each its own. */
    for (int i = 0; i < 4000; i++) {
        snprintf(name, sizeof(name), "d%d.example", i);
        refused += !quota_take(q, str_of(name), 4, 2);
    }
    assert_true(refused < 200);
    assert_true(quota_take(q, STR("victim.example"), 5, 1));
    assert_false(quota_take(q, STR("victim.example"), 5, 1));
    free(q);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_take)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

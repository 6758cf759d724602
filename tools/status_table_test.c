/* The table of 'hayauma status'. */
#include "tools/status_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void check(int rows, const char *wanted)
{
    json_t *now = json_pack("{s:{s:i}, s:[]}", "queue", "rows", rows, "destinations");
    struct buf out = {0};

    status_table(NULL, now, 0, 20, &out);
    buf_putc(&out, 0);
    assert_non_null(strstr((const char *)out.data, wanted));
    buf_done(&out);
    json_decref(now);
}

/* While the queue is read after a start, that no destination is known does not mean that there is
 * none. */
static void test_no_destinations(void **state)
{
    (void)state;
    check(0, "\nnothing waits\n");
    check(5, "\nno destination is known yet\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_destinations)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

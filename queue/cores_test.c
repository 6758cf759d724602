#include "queue/cores.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_by_text(void **state)
{
    static const struct {
        const char *stat;
        bool busy;
        const char *why;
    } looks[] = {
        {"cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2", false, "since the start: four fifths idle"},
        {"cpu  160 10 110 802 0 5 5 10 0 0\n", true, "2 of 102 ticks idle"},
        {"cpu  255 10 110 806 0 5 5 10 0 0\n", true, "4 of 99"},
        {"cpu  350 10 110 811 0 5 5 10 0 0\n", false, "5 of 100"},
        {"cpu  440 10 110 811 10 5 5 10 0 0\n", false, "a wait for the disk is idle"},
        {"cpu  440 10 110 811 10 5 5 10 0 0\n", false, "no time has passed"},
        {"cpu  540 10 110 810 10 5 5 10 0 0\n", true, "the idle time stepped back"},
        {"cpu  100 0 100\n", false, "another kernel's"},
        {"", false, "nothing"},
        {"cpu  640 10 110 810 10 5 5 10 0 0\n", true, "as compared with the last that was read"},
    };
    struct cores c = {.fd = -1};

    (void)state;
    for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++)
        if (cores_are_busy_by(&c, looks[i].stat) != looks[i].busy)
            fail_msg("look %zu: %s", i, looks[i].why);
}

static void test_of_this_machine(void **state)
{
    struct cores c;

    (void)state;
    cores_open(&c);
    assert_true(c.fd >= 0);
    assert_true(c.all > 0 && c.idle <= c.all);
    (void)cores_are_busy(&c);
    cores_close(&c);
    assert_false(cores_are_busy(&c)); /* nothing is known */
    cores_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_text),
        cmocka_unit_test(test_of_this_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

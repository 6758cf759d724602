/* A campaign's state in a word, and its object, by what is stored of it. */
#include "intake/campaign_view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW_MS 1000

static const struct {
    enum campaign_state state;
    int64_t starts_ms, changed_ms;
    uint64_t added, delivered, cancelled;
    const char *word;
} cases[] = {
    {CAMPAIGN_DRAFT, 0, 0, 0, 0, 0, "draft"},
    {CAMPAIGN_DRAFT, 0, 0, 5, 0, 0, "draft"},
    {CAMPAIGN_RUNNING, 900, 0, 5, 4, 0, "running"},
    {CAMPAIGN_RUNNING, 1000, 0, 5, 0, 0, "running"},
    {CAMPAIGN_RUNNING, 1001, 0, 5, 0, 0, "scheduled"},
    {CAMPAIGN_RUNNING, 1001, 1001, 5, 0, 0, "running"}, /* the clock was set back */
    {CAMPAIGN_RUNNING, 900, 0, 5, 4, 1, "done"},
    {CAMPAIGN_RUNNING, 900, 0, 0, 0, 0, "done"},
    {CAMPAIGN_PAUSED, 900, 0, 5, 4, 0, "paused"},
    {CAMPAIGN_CANCELLED, 900, 0, 5, 3, 0, "cancelled"},
    {CAMPAIGN_CANCELLED, 900, 0, 5, 3, 2, "cancelled"},
};

static void test_states(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct campaign c = {.state = cases[i].state,
                             .starts_ms = cases[i].starts_ms,
                             .changed_ms = cases[i].changed_ms};
        struct queue_tally counts = {.counts = {[TALLY_ADDED] = cases[i].added,
                                                [TALLY_DELIVERED] = cases[i].delivered,
                                                [TALLY_CANCELLED] = cases[i].cancelled}};

        assert_string_equal(campaign_state_word(&c, &counts, NOW_MS), cases[i].word);
    }
}

/* A campaign that was started by a clock that was set back goes on, also where it is paused and
 * resumed then; the start of one that is to come is not brought forward. */
static void test_clock_set_back(void **state)
{
    struct campaign at_once = {.starts_ms = 5000, .changed_ms = 5000};
    struct campaign later = {.starts_ms = 5000, .changed_ms = 4000};

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_true(campaign_has_begun(&at_once, NOW_MS));
        at_once.changed_ms = campaign_changes_ms(&at_once, NOW_MS);
        assert_false(campaign_has_begun(&later, NOW_MS));
        later.changed_ms = campaign_changes_ms(&later, NOW_MS);
    }
    assert_int_equal(later.changed_ms, NOW_MS);
    assert_int_equal(campaign_changes_ms(&at_once, 6000), 6000);
}

static void test_object(void **state)
{
    struct campaign c = {.id = {{0xab}},
                         .name = "spring",
                         .tenant = "acme",
                         .priority = 4,
                         .state = CAMPAIGN_RUNNING,
                         .created_ms = 7,
                         .starts_ms = 9,
                         .expires_ms = 11};
    struct queue_tally counts = {.counts = {[TALLY_ADDED] = 21,
                                            [TALLY_DELIVERED] = 1,
                                            [TALLY_DEFERRED] = 2,
                                            [TALLY_FAILED] = 3,
                                            [TALLY_EXPIRED] = 4,
                                            [TALLY_CANCELLED] = 5,
                                            [TALLY_SUPPRESSED] = 2}};
    struct buf out = {0};

    (void)state;
    campaign_put(&out, &c, &counts, NOW_MS);
    buf_putc(&out, '\0');
    assert_string_equal(
        (char *)out.data,
        "{\"id\":\"ab000000000000000000000000000000\",\"name\":\"spring\",\"tenant\":\"acme\","
        "\"priority\":4,\"state\":\"running\",\"created_ms\":7,\"starts_ms\":9,\"expires_ms\":11,"
        "\"recipients\":21,"
        "\"queued\":8,\"delivered\":1,\"failed\":3,\"suppressed\":2,\"expired\":4,\"cancelled\":5,"
        "\"deferrals\":2}");
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_states),
                                       cmocka_unit_test(test_clock_set_back),
                                       cmocka_unit_test(test_object)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

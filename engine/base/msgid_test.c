#include "base/msgid.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/assert.h"

static void assert_uuid7(const struct msgid *id)
{
    assert_int_equal(id->bytes[6] >> 4, 7);
    assert_int_equal(id->bytes[8] >> 6, 2);
}

static void assert_before(const struct msgid *a, const struct msgid *b)
{
    assert_true(memcmp(a->bytes, b->bytes, MSGID_BYTES) < 0);
}

static void test_monotonic(void **state)
{
    static const int64_t steps_ms[] = {1,  0,    0,           -5000, 0,    3,
                                       -1, -999, -1000000000, 7,     5000, 2000000000};
    struct msgid_source s;
    struct msgid last, id;
    int64_t wall_ms = 1795308557123;

    (void)state;
    msgid_source_init(&s, 1);
    last = msgid_next(&s, wall_ms);
    assert_uuid7(&last);
    for (int round = 0; round < 20000; round++) {
        int64_t step_ms = steps_ms[(size_t)round % ARRAY_LEN(steps_ms)];

        wall_ms += step_ms;
        id = msgid_next(&s, wall_ms);
        assert_uuid7(&id);
        if (step_ms < -1000)
            assert_int_equal(msgid_ms(&id), wall_ms);
        else
            assert_before(&last, &id);
        last = id;
    }
    id = msgid_next(&s, -1); /* a clock before 1970 */
    assert_uuid7(&id);
}

/* The sequence overflows into the next millisecond, and stays ahead of the clock until it is there.
 */
static void test_sequence_overflow(void **state)
{
    struct msgid_source s;
    struct msgid last, id;

    (void)state;
    msgid_source_init(&s, 1);
    last = msgid_next(&s, 1000);
    s.sequence = UINT32_MAX - 1;
    for (int i = 0; i < 5; i++) {
        id = msgid_next(&s, 1000);
        assert_uuid7(&id);
        if (i > 0)
            assert_before(&last, &id);
        last = id;
    }
    assert_true(s.last_ms == 1001);
    id = msgid_next(&s, 1001);
    assert_before(&last, &id);
}

static void test_time_and_uniqueness(void **state)
{
    struct msgid_source a, b;
    struct msgid one, two;

    (void)state;
    msgid_source_init(&a, 1);
    msgid_source_init(&b, 2);
    one = msgid_next(&a, 0x0123456789ab);
    two = msgid_next(&b, 0x0123456789ab);
    assert_memory_equal(one.bytes, "\x01\x23\x45\x67\x89\xab", 6);
    assert_memory_equal(two.bytes, "\x01\x23\x45\x67\x89\xab", 6);
    assert_true(msgid_ms(&one) == 0x0123456789ab);
    assert_true(memcmp(one.bytes + 6, two.bytes + 6, 4) != 0);
    assert_true(memcmp(one.bytes + 10, two.bytes + 10, 6) != 0);
}

/* Ids of a batch: in order, all different, of its time. */
static void test_after(void **state)
{
    struct msgid_source s;
    struct msgid first, last, id;

    (void)state;
    msgid_source_init(&s, 3);
    first = last = msgid_next(&s, 0x0123456789ab);
    for (uint32_t n = 1; n < 100000; n++) {
        id = msgid_after(&first, n);
        assert_uuid7(&id);
        assert_before(&last, &id);
        assert_true(msgid_ms(&id) == 0x0123456789ab);
        assert_memory_equal(id.bytes + 11, first.bytes + 11, 5);
        last = id;
    }
    id = msgid_after(&first, 0);
    assert_memory_equal(&id, &first, sizeof(id));
    id = msgid_after(&first, INT32_MAX);
    assert_before(&last, &id);
}

static void test_text(void **state)
{
    static const struct {
        struct str text;
        int rc;
    } cases[] = {
        {STR("0192c4d5e6f77a8b9c0d1e2f3a4b5c6d"), 0},
        {STR("0192C4D5E6F77A8B9C0D1E2F3A4B5C6D"), 0},
        {STR("0192c4d5-e6f7-7a8b-9c0d-1e2f3a4b5c6d"), 0},
        {STR("0192c4d5-e6f77-a8b-9c0d-1e2f3a4b5c6d"), -EINVAL},
        {STR("0192c4d5-e6f7-7a8b-9c0d-1e2f3a4b5c6"), -EINVAL},
        {STR("0192c4d5e6f77a8b9c0d1e2f3a4b5c6g"), -EINVAL},
        {STR("0192c4d5e6f77a8b9c0d1e2f3a4b5c6"), -EINVAL},
        {STR("0192c4d5e6f77a8b9c0d1e2f3a4b5c6d0"), -EINVAL},
        {STR(""), -EINVAL},
        {{NULL, 0}, -EINVAL},
    };
    char text[MSGID_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct msgid id;

        assert_int_equal(msgid_parse(cases[i].text, &id), cases[i].rc);
        if (cases[i].rc != 0)
            continue;
        msgid_text(&id, text);
        assert_string_equal(text, "0192c4d5e6f77a8b9c0d1e2f3a4b5c6d");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_monotonic),
        cmocka_unit_test(test_sequence_overflow),
        cmocka_unit_test(test_time_and_uniqueness),
        cmocka_unit_test(test_after),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

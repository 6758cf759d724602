#include "engine/exchanger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/assert.h"

#define NOW_MS UINT64_C(10000000)

/* Addresses 192.0.2.n with these preferences. */
static struct exchangers make(struct exchanger *list, const uint16_t *preferences, uint16_t len)
{
    for (uint16_t i = 0; i < len; i++)
        list[i] = (struct exchanger){
            .addr.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0000200u + i)},
            .len = sizeof(struct sockaddr_in),
            .preference = preferences[i]};
    return (struct exchangers){.list = list, .len = len};
}

static int next_fails(struct exchangers *x, uint64_t now_ms, bool down)
{
    int at = exchangers_next(x, 0, now_ms, down);
    struct exchanger copy = x->list[at];

    exchangers_failed(x, &copy, now_ms);
    return at;
}

static void test_rotation(void **state)
{
    static const uint16_t preferences[] = {10, 10, 10, 20};
    struct exchanger list[ARRAY_LEN(preferences)];
    struct exchangers x = make(list, preferences, ARRAY_LEN(list));

    (void)state;
    for (uint16_t offset = 0; offset < 7; offset++)
        assert_int_equal(exchangers_next(&x, offset, NOW_MS, false), offset % 3);
}

/* By preference, then what failed longest ago; what failed is tried in its turn a minute later. */
static void test_failures(void **state)
{
    static const uint16_t preferences[] = {10, 20, 30};
    struct exchanger list[ARRAY_LEN(preferences)];
    struct exchangers x = make(list, preferences, ARRAY_LEN(list));

    (void)state;
    for (int i = 0; i < 6; i++)
        assert_int_equal(next_fails(&x, NOW_MS + (uint64_t)i, false), i % 3);
    assert_int_equal(next_fails(&x, NOW_MS + 3 + EXCHANGER_BAD_MS, false), 0);
    assert_int_equal(next_fails(&x, NOW_MS + 4 + EXCHANGER_BAD_MS, false), 1);
}

/* Sessions that may not try all of them, minutes apart, come to each. */
static void test_goes_on(void **state)
{
    static const uint16_t preferences[] = {1, 2, 3, 4, 5, 6, 7};
    struct exchanger list[ARRAY_LEN(preferences)];
    struct exchangers x = make(list, preferences, ARRAY_LEN(list));
    uint64_t now_ms = NOW_MS;

    (void)state;
    for (int i = 0; i < 21; i++) {
        now_ms += i % 2 == 0 ? 10 * EXCHANGER_BAD_MS : 1;
        assert_int_equal(next_fails(&x, now_ms, true), i % 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "schedule/exchanger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "limits/governor.h"

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
    int at = exchangers_next(x, &(struct exchanger_turn){.now_ms = now_ms, .down = down});
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
        assert_int_equal(
            exchangers_next(&x, &(struct exchanger_turn){.now_ms = NOW_MS, .offset = offset}),
            offset % 3);
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

/* "4", "6" and a blank before the next preference. */
static struct exchangers make_families(struct exchanger *list, const char *families)
{
    struct exchangers x = {.list = list};
    uint16_t preference = 10;

    for (const char *p = families; *p != 0; p++) {
        if (*p == ' ') {
            preference = (uint16_t)(preference + 10);
            continue;
        }
        list[x.len] = (struct exchanger){.preference = preference};
        if (*p == '6') {
            list[x.len].addr.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
            list[x.len].addr.in6.sin6_addr.s6_addr[15] = (uint8_t)x.len;
            list[x.len].len = sizeof(struct sockaddr_in6);
        } else {
            list[x.len].addr.in =
                (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(x.len)};
            list[x.len].len = sizeof(struct sockaddr_in);
        }
        x.len++;
    }
    return x;
}

/* As dial.c does it: each try fails. "6464" is the families tried. */
static void tries(struct exchangers *x, uint16_t offset, int tries_max, char *out)
{
    struct exchanger_turn turn = {.now_ms = NOW_MS, .offset = offset};
    bool both = false;

    for (int i = 0; i < tries_max; i++) {
        int at;
        sa_family_t family;

        turn.now_ms++;
        turn.avoid_most = !both && tries_max - i == 1;
        at = exchangers_next(x, &turn);
        family = x->list[at].addr.sa.sa_family;
        out[i] = family == AF_INET6 ? '6' : '4';
        both |= turn.avoid != 0 && turn.avoid != family;
        turn.avoid = family;
        exchangers_failed(x, &x->list[at], turn.now_ms);
    }
    out[tries_max] = 0;
}

/* addresses_max is spread over both families, wherever the rotation begins. */
static void test_spread(void **state)
{
    static const struct {
        const char *addresses;
        uint16_t offset;
        const char *tried;
    } rows[] = {
        {"6464666666", 0, "64646"}, {"6464666666", 5, "64646"}, {"6464666666", 9, "64646"},
        {"6464666666", 3, "46466"}, {"66666", 2, "66666"},      {"4", 0, "4"},
        {"6 4", 0, "64"},           {"666666 44", 1, "66664"}, /* the last try passes a preference
                                                                */
        {"66 46", 0, "6646"},       {"44 66 64", 1, "44664"},   {"666666 4 44", 0, "66664"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct exchanger list[16];
        struct exchangers x = make_families(list, rows[i].addresses);
        char got[16];

        tries(&x, rows[i].offset, (int)strlen(rows[i].tried), got);
        assert_string_equal(got, rows[i].tried);
    }
}

/* A family without a route comes last, for a minute; it is tried where there is nothing else. */
static void test_no_route(void **state)
{
    struct families families = {{0}};
    struct exchanger list[8], other[2];
    struct exchangers x = make_families(list, "66 64"), only6 = make_families(other, "66");
    struct exchanger_turn turn = {.now_ms = NOW_MS};

    (void)state;
    x.families = only6.families = &families;
    assert_int_equal(exchangers_next(&x, &turn), 0);
    assert_true(families_no_route(&families, AF_INET6, NOW_MS));
    assert_false(families_no_route(&families, AF_INET6, NOW_MS));
    assert_int_equal(exchangers_next(&x, &turn), 3);
    assert_int_equal(exchangers_next(&only6, &turn), 0);
    assert_false(exchangers_other(&only6, &other[0], NOW_MS));
    assert_true(exchangers_other(&x, &list[0], NOW_MS));
    exchangers_failed(&x, &list[3], NOW_MS + 1);
    assert_int_equal(exchangers_next(&x, &turn), 0);
    turn.now_ms = NOW_MS + EXCHANGER_BAD_MS;
    assert_int_equal(exchangers_next(&x, &turn), 0);
    assert_true(exchangers_other(&only6, &other[0], turn.now_ms));
}

/* While one that works has as many sessions as it may, those that failed lately are left alone: its
 * room is waited for. */
static void test_full(void **state)
{
    static const uint16_t preferences[] = {10, 20};
    struct exchanger list[ARRAY_LEN(preferences)];
    struct exchangers x = make(list, preferences, ARRAY_LEN(list));
    struct exchanger_turn turn = {.now_ms = NOW_MS};
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    for (int i = 0; i < 2; i++) {
        list[i].limits = governor_get(g, i == 0 ? STR("a") : STR("b"),
                                      &(struct governor_limits){.sessions_max = 1}, 0);
        assert_non_null(list[i].limits);
    }
    assert_null(exchangers_full(&x, 0xff, NOW_MS));
    assert_true(governor_session_take(list[1].limits, 0, 0));
    assert_int_equal(exchangers_next(&x, &turn), 0);
    exchangers_failed(&x, &list[0], NOW_MS);
    assert_int_equal(exchangers_next(&x, &turn), -1);
    assert_ptr_equal(exchangers_full(&x, 0xff, NOW_MS), &list[1]);
    turn.now_ms += EXCHANGER_BAD_MS;
    assert_int_equal(exchangers_next(&x, &turn), 0);
    assert_null(exchangers_full(&x, 0xff, turn.now_ms));
    exchangers_failed(&x, &list[0], turn.now_ms);
    exchangers_failed(&x, &list[1], turn.now_ms); /* neither works: that with room is tried */
    assert_int_equal(exchangers_next(&x, &turn), 0);
    assert_null(exchangers_full(&x, 0xff, turn.now_ms));
    governor_session_give(list[1].limits);
    for (int i = 0; i < 2; i++)
        governor_put(g, list[i].limits, 0);
    governor_close(g);
}

/* One whose rate lets nothing go, or no connection begin, is passed over like one that is full. */
static void test_rates(void **state)
{
    static const uint16_t preferences[] = {10, 20};
    const struct governor_limits limits[] = {
        {.rate_messages = 1, .rate_period_ms = 1000},
        {.connects = {.count = 1, .period_ms = 3000}, .rate_messages = 1, .rate_period_ms = 2000}};
    const struct governor_load load = {.recipients = 1};
    const uint64_t now_ns = NOW_MS * 1000000;
    struct exchanger list[ARRAY_LEN(preferences)];
    struct exchangers x = make(list, preferences, ARRAY_LEN(list));
    struct exchanger_turn turn = {.now_ms = NOW_MS};
    const struct exchanger *by = NULL;
    enum governor_counts counts;
    struct governor *g;

    (void)state;
    assert_int_equal(governor_open(&g), 0);
    for (int i = 0; i < 2; i++)
        list[i].limits = governor_get(g, i == 0 ? STR("a") : STR("b"), &limits[i], 0);
    assert_true(exchangers_open_at(&x, 0xff, now_ns, NULL) <= now_ns);
    assert_int_equal(governor_message_take(list[0].limits, now_ns, &load, &counts), 0);
    assert_int_equal(exchangers_next(&x, &turn), 1);
    assert_null(exchangers_full(&x, 0xff, NOW_MS));
    assert_true(exchangers_message_at(&x, now_ns, NULL) <= now_ns);
    assert_int_equal(governor_connect_take(list[1].limits, now_ns), 0);
    assert_int_equal(exchangers_next(&x, &turn), -1);
    assert_non_null(exchangers_full(&x, 0xff, NOW_MS));
    assert_int_equal(exchangers_open_at(&x, 0xff, now_ns, &by), now_ns + 1000000000);
    assert_ptr_equal(by, &list[0]);
    /* Sessions that are up go on at the second, until its rate is used too. */
    assert_true(exchangers_message_at(&x, now_ns, NULL) <= now_ns);
    assert_int_equal(governor_message_take(list[1].limits, now_ns, &load, &counts), 0);
    assert_int_equal(exchangers_message_at(&x, now_ns, &by), now_ns + 1000000000);
    /* The first has failed lately: it says nothing while the other works. */
    exchangers_failed(&x, &list[0], NOW_MS);
    assert_int_equal(exchangers_message_at(&x, now_ns, &by), now_ns + UINT64_C(2000000000));
    assert_ptr_equal(by, &list[1]);
    assert_int_equal(exchangers_open_at(&x, 0xff, now_ns, NULL), now_ns + UINT64_C(3000000000));
    for (int i = 0; i < 2; i++)
        governor_put(g, list[i].limits, 0);
    governor_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotation), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_goes_on),  cmocka_unit_test(test_spread),
        cmocka_unit_test(test_no_route), cmocka_unit_test(test_full),
        cmocka_unit_test(test_rates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

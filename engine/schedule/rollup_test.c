#include "schedule/rollup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "schedule/channel.h"
#include "schedule/site.h"

#define LOOKS_MAX 100

/* Channels a, b of one source and c of another, at a provider with a limit over all sources. */
static struct {
    struct worker worker;
    struct site site;
    struct rollup total, source;
    struct channel a[2], b[2], c;
} world;

static void join(struct channel *c, struct rollup *r)
{
    c->line = r;
    c->line_since = ++world.worker.rollup_arrivals;
    list_push_back(&r->line, &c->line_node);
    r->line_len++;
}

static void channel_open(struct channel *c, bool of_source)
{
    c->site = &world.site;
    c->sessions_len = 1; /* the others of its supplies do not wait */
    c->rollups[CHANNEL_PROVIDER] = of_source ? &world.source : NULL;
    c->rollups[CHANNEL_PROVIDER_TOTAL] = &world.total;
}

static void world_open(void)
{
    memset(&world, 0, sizeof(world));
    world.site.worker = &world.worker;
    list_init(&world.worker.channels_dirty);
    list_init(&world.total.line);
    list_init(&world.source.line);
    for (int i = 0; i < 2; i++) {
        channel_open(&world.a[i], true);
        channel_open(&world.b[i], true);
    }
    channel_open(&world.c, false);
}

/* Two wait for their source. Then one of another source waits for the limit over all, and behind it
 * two more of the first. It gets its session in the turn in which the source's first asks again:
 * the first of either line must not make way for that of the other, which then does the same. */
static void test_two_lines(void **state)
{
    struct list_node *n;
    int looks = 0;

    (void)state;
    world_open();
    for (int i = 0; i < 2; i++)
        join(&world.a[i], &world.source);
    join(&world.c, &world.total);
    for (int i = 0; i < 2; i++)
        assert_false(rollup_turn(&world.b[i]));
    assert_int_equal(world.total.line_len, 3);
    assert_true(rollup_turn(&world.c));
    rollup_leave(&world.c);
    channel_dirty(&world.a[0]);
    while ((n = list_pop_front(&world.worker.channels_dirty)) != NULL && looks < LOOKS_MAX) {
        (void)rollup_turn(LIST_ENTRY(n, struct channel, dirty_node)); /* it gets no session */
        looks++;
    }
    assert_null(n);
    assert_true(looks < LOOKS_MAX);
}

/* Who has waited longest asks, in whatever line it stands; who comes waits behind each line. */
static void test_longest_asks(void **state)
{
    (void)state;
    world_open();
    join(&world.a[0], &world.source);
    join(&world.c, &world.total);
    assert_true(rollup_turn(&world.a[0]));
    assert_true(rollup_turn(&world.c));
    assert_false(rollup_turn(&world.b[0]));
    assert_ptr_equal(world.b[0].line, &world.total);
    rollup_leave(&world.c);
    assert_false(rollup_turn(&world.b[0])); /* the source's first was there before it */
    assert_ptr_equal(world.b[0].line, &world.source);
    assert_int_equal(world.total.line_len, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_lines),
        cmocka_unit_test(test_longest_asks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What is known of domains' policies: what holds, until when, what is due, what a restart finds. */
#include "worker/sts_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/testkit.h"

#define DAY_MS  INT64_C(86400000)
#define WALL_MS (20000 * DAY_MS)
#define NOW_MS  UINT64_C(5000)

static struct sts_policy *make(const char *mode, const char *id, int64_t fetched_ms, int age_s)
{
    struct buf body = {0};
    struct sts_policy *policy;
    const char *why;

    buf_printf(&body, "version: STSv1\nmode: %s\nmx: mx.example\nmax_age: %d\n", mode, age_s);
    assert_int_equal(sts_policy_parse(buf_str(&body), id, fetched_ms, &policy, &why), 0);
    buf_done(&body);
    return policy;
}

static void put(struct sts_table *t, const char *domain, const char *id, int64_t fetched_ms,
                int age_s)
{
    struct sts_policy *policy = make("enforce", id, fetched_ms, age_s);

    sts_table_put(t, str_of(domain), policy, NOW_MS + 1000);
    sts_policy_unref(policy);
}

static struct sts_found find(struct sts_table *t, const char *domain, uint64_t now_ms,
                             int64_t wall_ms)
{
    struct sts_found found = sts_table_find(t, str_of(domain), now_ms, wall_ms);

    sts_policy_unref(found.policy); /* the table has its own */
    return found;
}

struct place {
    char *dir;
    struct kit_states at;
    struct sts_table table;
};

static void place_open(struct place *p)
{
    kit_states_open(&p->at, p->dir);
    p->table = (struct sts_table){0};
    assert_int_equal(sts_table_open(&p->table, p->at.queue), 0);
}

static void place_close(struct place *p)
{
    sts_table_done(&p->table);
    kit_states_close(&p->at);
}

static void test_find(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct sts_found found;

    (void)state;
    place_open(&p);
    found = find(&p.table, "a.example", NOW_MS, WALL_MS);
    assert_false(found.known);
    assert_null(found.policy);
    sts_table_looked(&p.table, STR("a.example"), NOW_MS + 1000, "no such thing");
    found = find(&p.table, "a.example", NOW_MS, WALL_MS);
    assert_true(found.known && found.policy == NULL);
    assert_int_equal(found.look_ms, NOW_MS + 1000);
    put(&p.table, "a.example", "1", WALL_MS, 100);
    found = find(&p.table, "a.example", NOW_MS, WALL_MS + 99999);
    assert_non_null(found.policy);
    /* A lookup that fails takes nothing away. */
    sts_table_looked(&p.table, STR("a.example"), NOW_MS + 1000, "no such thing");
    assert_non_null(find(&p.table, "a.example", NOW_MS, WALL_MS).policy);
    found = find(&p.table, "a.example", NOW_MS, WALL_MS + 100000);
    assert_true(found.known && found.policy == NULL);
    sts_table_look_again(&p.table);
    assert_int_equal(find(&p.table, "a.example", NOW_MS + 5, WALL_MS).look_ms, NOW_MS + 5);
    sts_table_looked(&p.table, STR("a.example"), NOW_MS + 1000, NULL);
    assert_int_equal(find(&p.table, "a.example", NOW_MS, WALL_MS).look_ms, NOW_MS + 1000);
    place_close(&p);
    sts_table_done(&(struct sts_table){0});
    kit_remove(p.dir);
    free(p.dir);
}

/* The next that is due, "" for none; an expired one begins with a minus. */
static const char *due(struct sts_table *t, uint64_t now_ms, int64_t wall_ms)
{
    static char text[1 + DNS_NAME_MAX + 1];
    bool expired = false;
    size_t at = 0;

    if (!sts_table_next_due(t, &at, now_ms, wall_ms, text + 1, &expired))
        return "";
    text[0] = '-';
    return expired ? text : text + 1;
}

static void test_due(void **state)
{
    struct place p = {.dir = kit_dir()};

    (void)state;
    place_open(&p);
    put(&p.table, "a.example", "1", WALL_MS, 30 * 86400);
    put(&p.table, "b.example", "1", WALL_MS, 7200);
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + 3600000), "");
    /* Half of its life is over; but nobody has asked for it. */
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + 3600001), "");
    (void)find(&p.table, "b.example", NOW_MS, WALL_MS);
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + 3600000), "");
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + 3600001), "b.example");
    /* It failed: not before the next lookup may be. */
    (void)find(&p.table, "b.example", NOW_MS, WALL_MS);
    sts_table_looked(&p.table, STR("b.example"), NOW_MS + 10, "no answer");
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + 3600001), "");
    assert_string_equal(due(&p.table, NOW_MS + 10, WALL_MS + 3600001), "b.example");
    /* Its life is over: it goes, once. */
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + 7200000), "-b.example");
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + 7200000), "");
    /* One of a month is renewed each day. */
    (void)find(&p.table, "a.example", NOW_MS, WALL_MS);
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + DAY_MS), "");
    assert_string_equal(due(&p.table, NOW_MS, WALL_MS + DAY_MS + 1), "a.example");
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

static void store(struct place *p, const char *domain, struct str value)
{
    char key[STS_KEY_MAX];
    struct queue_state state = {.key = {key, sts_key(key, str_of(domain))}, .value = value};

    kit_state_store(&p->at, 0, state);
}

/* What is stored is known after a start, and to be looked at with the first mail. */
static void test_store(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct sts_policy *policy = make("testing", "abc", WALL_MS, 86400);
    struct buf value = {0};
    struct sts_found found;

    (void)state;
    place_open(&p);
    sts_policy_encode(&value, policy);
    store(&p, "a.example", buf_str(&value));
    store(&p, "damaged.example", STR("\1nonsense"));
    store(&p, "no name", buf_str(&value));
    place_close(&p);
    place_open(&p);
    found = sts_table_find(&p.table, STR("a.example"), NOW_MS, WALL_MS);
    assert_true(found.known && sts_policy_same(found.policy, policy));
    assert_string_equal(found.policy->id, "abc");
    assert_true(found.look_ms <= NOW_MS);
    sts_policy_unref(found.policy);
    assert_false(find(&p.table, "damaged.example", NOW_MS, WALL_MS).known);
    assert_false(find(&p.table, "no name", NOW_MS, WALL_MS).known);
    place_close(&p);
    sts_policy_unref(policy);
    buf_done(&value);
    kit_remove(p.dir);
    free(p.dir);
}

/* The table is bounded: what has no policy goes first. */
static void test_bound(void **state)
{
    struct place p = {.dir = kit_dir()};
    char domain[32];

    (void)state;
    place_open(&p);
    put(&p.table, "a.example", "1", WALL_MS, 86400);
    for (int i = 0; i < STS_DOMAINS_MAX + 10; i++) {
        snprintf(domain, sizeof(domain), "d%d.example", i);
        sts_table_looked(&p.table, str_of(domain), NOW_MS, NULL);
    }
    assert_int_equal(p.table.by_domain.count, STS_DOMAINS_MAX);
    assert_non_null(find(&p.table, "a.example", NOW_MS, WALL_MS).policy);
    assert_false(find(&p.table, "d0.example", NOW_MS, WALL_MS).known);
    assert_true(find(&p.table, domain, NOW_MS, WALL_MS).known);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_due),
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

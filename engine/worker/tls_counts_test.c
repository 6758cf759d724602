/* Counts for reports of TLS: what is counted together, what a restart finds, what is due, bounds.
 */
#include "worker/tls_counts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/testkit.h"

#define DAY     INT64_C(86400)
#define BEGIN_S (20000 * DAY)

struct place {
    char *dir;
    struct queue *queue;
    struct queue_port *port;
    struct tls_counts counts;
};

static void place_open(struct place *p)
{
    struct queue_options options = {
        .path = p->dir, .shards = 2, .map_bytes = 16u << 20, .no_sync = true};
    const char *why = NULL;

    assert_int_equal(queue_open(&p->queue, &options, &why), 0);
    assert_int_equal(queue_port_open(&p->port, p->queue, NULL, NULL), 0);
    p->counts = (struct tls_counts){.by_key.buckets = NULL};
    assert_int_equal(tls_counts_open(&p->counts, p->queue), 0);
}

static void place_close(struct place *p)
{
    tls_counts_done(&p->counts);
    queue_port_close(p->port);
    queue_close(p->queue);
}

static struct tls_count count(const char *domain, enum tls_report_result result)
{
    return (struct tls_count){.domain = str_of(domain),
                              .begin_s = BEGIN_S,
                              .end_s = BEGIN_S + DAY,
                              .type = TLS_REPORT_STS,
                              .texts = {"d.example\0version: STSv1", 25},
                              .result = result,
                              .mx = "mx.example",
                              .sending_ip = "192.0.2.1",
                              .receiving_ip = "192.0.2.2",
                              .reason = "why"};
}

/* As the keeper does: all that is fresh wants reports, or none. */
static size_t ask_all(struct tls_counts *c, bool wanted)
{
    char domain[DNS_NAME_MAX + 1];
    int64_t begin_s;
    size_t n = 0;

    for (; tls_counts_next_fresh(c, domain, &begin_s); n++)
        tls_counts_asked(c, str_of(domain), begin_s, wanted);
    return n;
}

static void on_done(struct queue_change *change, int result)
{
    assert_int_equal(result, 0);
    *(bool *)change->owner = true;
}

static size_t store_all(struct place *p)
{
    char key[TLS_COUNTS_KEY_MAX];
    size_t len, n = 0;

    for (;; n++) {
        struct buf value = {0};
        struct queue_state state;
        bool done = false;
        struct queue_change change = {
            .states = &state, .states_len = 1, .urgent = true, .on_done = on_done, .owner = &done};

        len = tls_counts_next_dirty(&p->counts, key, &value);
        if (len == 0)
            return n;
        state = (struct queue_state){.key = {key, len}, .value = buf_str(&value)};
        queue_submit(p->port, 0, &change);
        kit_wait(p->queue, p->port, &done);
        buf_done(&value);
    }
}

static struct tls_report_policy *only_policy(const struct tls_counts_entry *e)
{
    assert_int_equal(e->policies_len, 1);
    return LIST_ENTRY(list_first(&e->policies), struct tls_report_policy, node);
}

static struct tls_counts_entry *due(struct tls_counts *c, int64_t now_s)
{
    return tls_counts_next_due(c, now_s + TLS_COUNTS_GRACE_S, 0);
}

/* Successes and failures of a kind are added up; a restart finds them as they were stored. */
static void test_counts_and_restart(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct tls_count one = count("d.example", TLS_REPORT_SUCCESS);
    struct tls_counts_entry *e;
    struct tls_report_policy *policy;
    struct tls_report_failure *f;

    (void)state;
    place_open(&p);
    for (int i = 0; i < 5; i++)
        tls_counts_add(&p.counts, &one);
    one.result = TLS_REPORT_EXPIRED;
    for (int i = 0; i < 3; i++)
        tls_counts_add(&p.counts, &one);
    one.mx = "mx2.example";
    tls_counts_add(&p.counts, &one);
    assert_int_equal(store_all(&p), 0); /* nobody has asked for it yet */
    assert_int_equal(ask_all(&p.counts, true), 1);
    assert_int_equal(store_all(&p), 1);
    assert_int_equal(store_all(&p), 0);
    tls_counts_add(&p.counts, &one); /* lost with the crash */
    place_close(&p);
    place_open(&p);
    assert_null(due(&p.counts, BEGIN_S + DAY - 1));
    e = due(&p.counts, BEGIN_S + DAY);
    assert_non_null(e);
    assert_true(e->begin_s == BEGIN_S && e->end_s == BEGIN_S + DAY && !e->mailed);
    policy = only_policy(e);
    assert_int_equal(policy->type, TLS_REPORT_STS);
    assert_true(str_eq(policy->texts, one.texts));
    assert_int_equal(policy->successes, 5);
    assert_int_equal(policy->failures_count, 4);
    assert_int_equal(policy->failures_len, 2);
    f = LIST_ENTRY(list_first(&policy->failures), struct tls_report_failure, node);
    assert_int_equal(f->count, 3);
    assert_int_equal(f->result, TLS_REPORT_EXPIRED);
    assert_string_equal(f->mx, "mx.example");
    assert_string_equal(f->reason, "why");
    assert_string_equal(f->sending_ip, "192.0.2.1");
    assert_string_equal(f->receiving_ip, "192.0.2.2");
    tls_counts_end(&p.counts, e);
    assert_null(due(&p.counts, BEGIN_S + DAY));
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* Days and policies are counted apart; where nobody wants a report nothing is kept. */
static void test_apart(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct tls_count one = count("d.example", TLS_REPORT_SUCCESS);
    struct tls_counts_entry *e;

    (void)state;
    place_open(&p);
    tls_counts_add(&p.counts, &one);
    one.type = TLS_REPORT_NO_POLICY;
    one.texts = (struct str){"d.example", 10};
    tls_counts_add(&p.counts, &one);
    assert_int_equal(ask_all(&p.counts, true), 1);
    one.begin_s += DAY;
    one.end_s += DAY;
    tls_counts_add(&p.counts, &one);
    one.domain = STR("quiet.example");
    tls_counts_add(&p.counts, &one);
    assert_true(tls_counts_wanted(&p.counts, one.domain, one.begin_s));
    assert_int_equal(ask_all(&p.counts, false), 2);
    assert_false(tls_counts_wanted(&p.counts, one.domain, one.begin_s));
    assert_true(tls_counts_wanted(&p.counts, one.domain, one.begin_s + DAY));
    tls_counts_add(&p.counts, &one);
    assert_int_equal(store_all(&p), 1);
    e = due(&p.counts, BEGIN_S + 9 * DAY);
    assert_non_null(e);
    assert_int_equal(e->begin_s, BEGIN_S);
    assert_int_equal(e->policies_len, 2);
    assert_null(due(&p.counts, BEGIN_S + 9 * DAY));
    /* The day that is over counts nothing more. */
    one = count("d.example", TLS_REPORT_SUCCESS);
    tls_counts_add(&p.counts, &one);
    assert_int_equal(
        LIST_ENTRY(list_first(&e->policies), struct tls_report_policy, node)->successes, 1);
    tls_counts_target(e, 7)->counted = true;
    tls_counts_again(&p.counts, e, BEGIN_S + 10 * DAY);
    assert_null(due(&p.counts, BEGIN_S + 9 * DAY));
    assert_ptr_equal(due(&p.counts, BEGIN_S + 10 * DAY), e);
    assert_int_equal(e->tries, 1);
    /* What it tried, so many targets at most. */
    for (uint64_t id = 1; id < TLS_REPORT_TARGETS_MAX; id++)
        assert_true(tls_counts_target(e, id)->counted == (id == 7));
    assert_non_null(tls_counts_target(e, 100));
    assert_null(tls_counts_target(e, 101));
    tls_counts_end(&p.counts, e);
    assert_int_equal(p.counts.by_key.count, 0); /* those that nobody wanted went on the way */
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* The report goes out within the delay, each domain's at its own moment, again after a restart. */
static void test_delay(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct tls_count one = count("d.example", TLS_REPORT_SUCCESS);
    struct tls_counts_entry *e = NULL;
    int64_t at_s = BEGIN_S + DAY - 1;

    (void)state;
    place_open(&p);
    tls_counts_add(&p.counts, &one);
    (void)ask_all(&p.counts, true);
    while (e == NULL && at_s < BEGIN_S + 2 * DAY)
        e = tls_counts_next_due(&p.counts, ++at_s, 14400);
    assert_non_null(e);
    assert_true(at_s > BEGIN_S + DAY + TLS_COUNTS_GRACE_S &&
                at_s <= BEGIN_S + DAY + TLS_COUNTS_GRACE_S + 14400);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* A peer that fails in ever other words takes only so much memory, and each failure counts. */
static void test_bounds(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct tls_count one = count("d.example", TLS_REPORT_EXPIRED);
    const struct tls_report_policy *policy;
    struct tls_counts_entry *e;
    uint64_t sum = 0;
    char reason[400];
    struct buf value = {0};

    (void)state;
    place_open(&p);
    for (int i = 0; i < 1000; i++) {
        snprintf(reason, sizeof(reason), "%d%*s", i, 300, "x");
        one.reason = reason;
        tls_counts_add(&p.counts, &one);
    }
    (void)ask_all(&p.counts, true);
    e = due(&p.counts, BEGIN_S + DAY);
    policy = only_policy(e);
    assert_int_equal(policy->failures_count, 1000);
    assert_int_equal(policy->failures_len, TLS_COUNTS_FAILURES_MAX + 1);
    for (struct list_node *n = list_first(&policy->failures); n != NULL;
         n = list_next(&policy->failures, n))
        sum += LIST_ENTRY(n, struct tls_report_failure, node)->count;
    assert_int_equal(sum, 1000);
    tls_counts_encode(e, &value);
    assert_true(value.len < 200000);
    buf_done(&value);
    for (int i = 0; i < 40; i++) {
        char text[16];
        int len = snprintf(text, sizeof(text), "%d", i);

        one.domain = STR("many.example");
        one.texts = (struct str){text, (size_t)len + 1};
        tls_counts_add(&p.counts, &one);
    }
    (void)ask_all(&p.counts, true);
    e = due(&p.counts, BEGIN_S + DAY);
    assert_int_equal(e->policies_len, TLS_COUNTS_POLICIES_MAX);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* Thousands of busy domains whose servers all fail in many ways, with long policies: memory has its
 * bound, what was counted of each is in its sums, and all of it comes back. */
static void test_memory(void **state)
{
    struct place p = {.dir = kit_dir()};
    static char texts[8192];
    uint64_t counted = 0;

    (void)state;
    place_open(&p);
    memset(texts, 'x', sizeof(texts) - 1);
    for (int i = 0; i < 1900; i++) {
        for (int k = 0; k < 120; k++) {
            char domain[32], reason[200];
            struct tls_count one = count(domain, TLS_REPORT_EXPIRED);

            snprintf(domain, sizeof(domain), "d%d.example", i);
            snprintf(reason, sizeof(reason), "%d%*s", k, TLS_COUNTS_REASON_MAX, "x");
            one.domain = str_of(domain);
            one.texts = (struct str){texts, sizeof(texts)};
            one.reason = reason;
            tls_counts_add(&p.counts, &one);
        }
        assert_true(p.counts.bytes <= TLS_COUNTS_BYTES_MAX);
    }
    assert_true(p.counts.bytes > TLS_COUNTS_BYTES_MAX / 2);
    for (struct list_node *n = list_first(&p.counts.entries); n != NULL;
         n = list_next(&p.counts.entries, n)) {
        const struct tls_counts_entry *e = LIST_ENTRY(n, struct tls_counts_entry, all);

        if (e->policies_len > 0)
            counted += only_policy(e)->failures_count;
    }
    assert_int_equal(counted + p.counts.not_counted, 1900 * 120);
    (void)ask_all(&p.counts, false);
    assert_int_equal(p.counts.bytes, 0);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* A record that is cut or damaged is none; what a later build has put behind it is passed by. */
static void test_damaged(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct tls_count one = count("d.example", TLS_REPORT_EXPIRED);
    char key[TLS_COUNTS_KEY_MAX];
    struct buf value = {0};
    size_t key_len;

    (void)state;
    place_open(&p);
    tls_counts_add(&p.counts, &one);
    (void)ask_all(&p.counts, true);
    key_len = tls_counts_next_dirty(&p.counts, key, &value);
    assert_true(key_len > 0);
    for (size_t len = 0; len <= value.len + 1; len++) {
        struct queue_state state_ = {.key = {key, key_len}};
        bool done = false;
        struct queue_change change = {
            .states = &state_, .states_len = 1, .urgent = true, .on_done = on_done, .owner = &done};
        struct buf cut = {0};

        buf_put(&cut, value.data, len <= value.len ? len : value.len);
        if (len > value.len)
            buf_puts(&cut, "more of a later build");
        state_.value = buf_str(&cut);
        queue_submit(p.port, 0, &change);
        kit_wait(p.queue, p.port, &done);
        buf_done(&cut);
        place_close(&p);
        place_open(&p);
        assert_int_equal(due(&p.counts, BEGIN_S + DAY) != NULL, len >= value.len);
    }
    buf_done(&value);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_and_restart),
        cmocka_unit_test(test_apart),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

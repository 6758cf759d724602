/* Keepers, in one worker. That of reports of TLS at its worker's end: what it stores just then is
 * stored, and freed once. That of warm-up: an operator's order is stored before it is answered. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "config/config_load.h"
#include "outcome/warm.h"
#include "run/testkit.h"
#include "worker/warmup_store.h"

#define TURNS_MAX 5000
#define TURN_MS   10

static struct engine engine;
static char dir[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static struct worker *world_open(const char *settings)
{
    struct engine *e = &engine;
    struct queue_options options = {.path = dir,
                                    .shards = 2,
                                    .map_bytes = 64 << 20,
                                    .records = {.path = dir},
                                    .no_threads = true,
                                    .no_sync = true};
    struct buf text = {0}, errors = {0};
    struct worker *w;
    const char *why = NULL;

    memset(e, 0, sizeof(*e));
    buf_printf(&text, "host_name: test.example\nlisteners: []\ndns: {servers: [127.0.0.1:1]}\n%s",
               settings);
    assert_int_equal(config_load_text("test.yaml", buf_str(&text), &e->config, &errors), 0);
    buf_done(&text);
    w = kit_worker_open(e);
    assert_int_equal(queue_open(&e->shared.queue, &options, &why), 0);
    assert_int_equal(suspensions_open(&e->shared.suspensions, e->shared.queue), 0);
    assert_int_equal(campaigns_open(&e->shared.campaigns, e->shared.queue, &e->shared.suspensions),
                     0);
    assert_int_equal(warmup_store_open(&e->shared.warmup, e->shared.queue, kit_wake_nobody, NULL),
                     0);
    warmup_configure(&e->shared.warmup, e->config);
    assert_int_equal(tls_counts_open(&e->shared.tls_counts, e->shared.queue), 0);
    assert_int_equal(worker_start(w), 0);
    return w;
}

static void world_close(struct worker *w)
{
    crew_stop(engine.shared.crew);
    worker_close(w);
}

static void turn(struct worker *w)
{
    queue_pump(engine.shared.queue);
    assert_int_equal(worker_turn(w, 1), 0);
}

/* --- reports of TLS --- */

/* A day that is over, with a report that somebody wants; nothing of it is stored. */
static void count(struct tls_counts *counts, int64_t end_s)
{
    char domain[DNS_NAME_MAX + 1], key[TLS_COUNTS_KEY_MAX];
    struct buf value = {0};
    int64_t begin_s;

    tls_counts_add(counts, &(struct tls_count){.domain = STR("d.example"),
                                               .begin_s = end_s - 86400,
                                               .end_s = end_s,
                                               .texts = {"d.example", sizeof("d.example")},
                                               .mx = "",
                                               .sending_ip = "",
                                               .receiving_ip = "",
                                               .reason = ""});
    assert_true(tls_counts_next_fresh(counts, domain, &begin_s));
    tls_counts_asked(counts, STR("d.example"), begin_s, true);
    assert_true(tls_counts_next_dirty(counts, key, &value) > 0);
    buf_done(&value);
}

/* No resolver answers, so the report is to be tried again, and its record is being stored. */
static void test_end(void **state)
{
    struct worker *w = world_open("tls_reports: {from: tls@test.example, delay: 0s}\n");
    const struct tls_counts_entry *entry;
    char key[TLS_COUNTS_KEY_MAX];
    struct buf value = {0};
    int64_t end_s = worker_wall_ms(w) / 1000 - 3600;
    size_t len = tls_counts_key(key, STR("d.example"), end_s - 86400);
    int n = 0;

    (void)state;
    count(&engine.shared.tls_counts, end_s);
    entry = LIST_ENTRY(list_first(&engine.shared.tls_counts.entries), struct tls_counts_entry, all);
    for (; n < TURNS_MAX && entry->tries == 0; n++) {
        queue_pump(engine.shared.queue);
        assert_int_equal(worker_turn(w, TURN_MS), 0);
    }
    assert_true(n < TURNS_MAX);
    world_close(w);
    assert_int_equal(queue_state_get(engine.shared.queue, 0, (struct str){key, len}, &value), 0);
    assert_true(value.len > 0);
    buf_done(&value);
    engine_free_shared(&engine);
}

/* --- warm-up --- */

#define STREAMS    300 /* more than some rounds store */
#define COMPLAINTS 7

struct answer {
    bool is;
    int result;
    struct warmup_state stored;
};

/* What the store has of the last campaign's stream at the moment of the answer. */
static void on_ordered(void *arg, int result)
{
    struct answer *answer = arg;
    struct warmup_key key = {.record = WARMUP_RECORD_STREAM, .provider = STR("default")};
    uint8_t bytes[WARMUP_KEY_MAX];
    struct buf value = {0};
    char name[32];
    struct str at;

    snprintf(name, sizeof(name), "campaign:c%d", STREAMS - 1);
    key.source = str_of(name);
    at = (struct str){(const char *)bytes, warmup_key_encode(bytes, &key)};
    answer->is = true;
    answer->result = result;
    assert_int_equal(queue_state_get(engine.shared.queue, 0, at, &value), 0);
    assert_int_equal(warmup_state_decode(buf_str(&value), &answer->stored), 0);
    buf_done(&value);
}

static bool is_recorded(const char *what)
{
    char command[160];

    snprintf(command, sizeof(command), "grep -q '%s' %s/*.jsonl", what, dir);
    return system(command) == 0;
}

/* Hundreds of streams ask before it, all of which ride with mail of the other shard. */
static void test_order(void **state)
{
    static struct warmup_stream *streams[STREAMS];
    struct warm_order order = {.what = {.kind = WARMUP_COMPLAINTS, .number = COMPLAINTS},
                               .on_done = on_ordered};
    struct warmup *all = &engine.shared.warmup;
    struct answer answer = {0};
    struct buf text = {0};
    struct worker *w;

    (void)state;
    buf_puts(&text, "warmup:\n  schedules: {small: {steps: [24, 30]}}\n  campaigns:\n");
    for (int i = 0; i < STREAMS; i++)
        buf_printf(&text, "    c%d: {schedule: small}\n", i);
    buf_putc(&text, 0);
    w = world_open((const char *)text.data);
    buf_done(&text);
    for (int i = 0; i < STREAMS; i++) {
        char name[32];

        snprintf(name, sizeof(name), "campaign:c%d", i);
        streams[i] = warmup_stream_of(all, engine.config, name, STR("mx.example.net"));
        assert_non_null(streams[i]);
    }
    for (int i = 0; i < TURNS_MAX && warmup_asking(all) > 0; i++)
        turn(w);
    for (int i = 0; i < 10; i++)
        turn(w);
    assert_int_equal(warmup_asking(all), 0);
    for (int i = 0; i < STREAMS - 1; i++) { /* one is sent: there is something to store */
        assert_true(warmup_take(all, streams[i], worker_wall_ms(w), io_now_ns(w->io)) == 0);
        warmup_ride(all, streams[i], false, 1);
    }
    strcpy(order.what.source, streams[STREAMS - 1]->source);
    order.arg = &answer;
    warm_submit(&engine.shared, &order);
    for (int i = 0; i < TURNS_MAX && !answer.is; i++)
        turn(w);
    assert_true(answer.is);
    assert_int_equal(answer.result, 0);
    assert_int_equal(answer.stored.events[WARMUP_EVENT_COMPLAINED], COMPLAINTS);
    world_close(w);
    engine_free_shared(&engine);
    assert_true(is_recorded("\"type\":\"Feedback\".*\"complaints\":7"));
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/keepers-test-XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

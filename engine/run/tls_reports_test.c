/* The keeper of reports of TLS at its worker's end: what it stores just then is stored, and freed
 * once. One worker. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "config/config_load.h"
#include "run/engine.h"
#include "run/turn.h"
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

static void wake_nobody(void *arg)
{
    (void)arg;
}

static struct worker *world_open(void)
{
    static const char text[] = "host_name: test.example\nlisteners: []\n"
                               "dns: {servers: [127.0.0.1:1]}\n"
                               "tls_reports: {from: tls@test.example, delay: 0s}\n";
    struct engine *e = &engine;
    struct queue_options options = {
        .path = dir, .shards = 1, .map_bytes = 64 << 20, .no_threads = true, .no_sync = true};
    struct buf errors = {0};
    const char *why = NULL;

    assert_int_equal(config_load_text("test.yaml", str_of(text), &e->config, &errors), 0);
    assert_int_equal(trust_load(&e->trust, e->config, NULL, &errors), 0);
    assert_int_equal(governor_open(&e->shared.governor), 0);
    assert_int_equal(sources_init(&e->shared.sources), 0);
    assert_int_equal(clients_init(&e->shared.clients), 0);
    assert_int_equal(logins_init(&e->shared.logins), 0);
    assert_int_equal(crew_open(&e->shared.crew, 0, CREW_JOBS_PER_WORKER), 0);
    e->shared.workers_len = 1;
    e->shared.workers = aligned_alloc(CACHE_LINE_BYTES, sizeof(*e->shared.workers));
    assert_non_null(e->shared.workers);
    memset(e->shared.workers, 0, sizeof(*e->shared.workers));
    assert_int_equal(worker_open(&e->shared.workers[0], e, 0), 0);
    assert_int_equal(queue_open(&e->shared.queue, &options, &why), 0);
    assert_int_equal(suspensions_open(&e->shared.suspensions, e->shared.queue), 0);
    assert_int_equal(campaigns_open(&e->shared.campaigns, e->shared.queue, &e->shared.suspensions),
                     0);
    assert_int_equal(warmup_store_open(&e->shared.warmup, e->shared.queue, wake_nobody, NULL), 0);
    warmup_configure(&e->shared.warmup, e->config);
    assert_int_equal(tls_counts_open(&e->shared.tls_counts, e->shared.queue), 0);
    assert_int_equal(worker_start(&e->shared.workers[0]), 0);
    return &e->shared.workers[0];
}

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
    struct worker *w = world_open();
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
    crew_stop(engine.shared.crew);
    worker_close(w);
    assert_int_equal(queue_state_get(engine.shared.queue, 0, (struct str){key, len}, &value), 0);
    assert_true(value.len > 0);
    buf_done(&value);
    engine_free_shared(&engine);
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/tls-reports-test-XXXXXX");
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Warm-up in the store: keys, what a start finds, days that are over. */
#include "worker/warmup_store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config/config_load.h"
#include "queue/testkit.h"

static int64_t at_hour(int32_t day, int hour)
{
    return ((int64_t)day * DAY_SECONDS + hour * 3600) * 1000;
}

static void test_keys(void **state)
{
    const struct warmup_key keys[] = {
        {.record = WARMUP_RECORD_STREAM, .source = STR("a"), .provider = STR("google")},
        {.record = WARMUP_RECORD_DAY, .source = STR("a"), .provider = STR("google"), .day = 20778},
        {.record = WARMUP_RECORD_DAY, .source = STR("ab"), .provider = STR("g"), .day = 1}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        uint8_t bytes[WARMUP_KEY_MAX];
        size_t len = warmup_key_encode(bytes, &keys[i]);
        struct warmup_key read;

        assert_int_equal(warmup_key_decode((struct str){(char *)bytes, len}, &read), 0);
        assert_int_equal(read.record, keys[i].record);
        assert_int_equal(read.day, keys[i].day);
        assert_true(str_eq(read.source, keys[i].source));
        assert_true(str_eq(read.provider, keys[i].provider));
        for (size_t n = 0; n < len; n++) /* cut: never what it was */
            assert_true(warmup_key_decode((struct str){(char *)bytes, n}, &read) < 0 ||
                        read.record != keys[i].record);
        bytes[1] = 9;
        assert_int_equal(warmup_key_decode((struct str){(char *)bytes, len}, &read), -EBADMSG);
    }
}

struct place {
    char *dir;
    struct kit_states at;
};

static void place_open(struct place *p)
{
    kit_states_open(&p->at, p->dir);
}

static void place_close(struct place *p)
{
    kit_states_close(&p->at);
}

static void store_in(struct place *p, uint32_t shard, const struct warmup_key *key,
                     struct str value)
{
    uint8_t bytes[WARMUP_KEY_MAX];

    kit_state_store(&p->at, shard,
                    (struct queue_state){.key = {(char *)bytes, warmup_key_encode(bytes, key)},
                                         .value = value});
}

static void store(struct place *p, const struct warmup_key *key, struct str value)
{
    store_in(p, 0, key, value);
}

static void no_wake(void *arg)
{
    (void)arg;
}

/* One source with a schedule. */
static struct config *configure(struct warmup *w)
{
    struct buf errors = {0};
    struct config *c;

    assert_int_equal(config_load_text("t",
                                      STR("sources: {a: {ipv4: 192.0.2.1}}\n"
                                          "warmup: {sources: {a: {schedule: standard}}}\n"),
                                      &c, &errors),
                     0);
    warmup_configure(w, c);
    buf_done(&errors);
    return c;
}

struct days {
    int len;
    int32_t day[8];
    uint32_t used[8];
};

static void see_day(void *arg, const struct warmup_key *key, const struct warmup_past *past)
{
    struct days *d = arg;

    assert_true(str_eq(key->source, STR("a")) && d->len < 8);
    assert_int_equal(key->day, past->day);
    d->day[d->len] = past->day;
    d->used[d->len++] = past->used;
}

/* A start finds streams as they were; of one that is damaged it knows that it sends nothing more
 * today. Days come in their order, streams are none. */
static void test_start(void **state)
{
    struct warmup_key google = {
        .record = WARMUP_RECORD_STREAM, .source = STR("a"), .provider = STR("google")};
    struct warmup_key yahoo = {
        .record = WARMUP_RECORD_STREAM, .source = STR("a"), .provider = STR("yahoo")};
    struct warmup_key day = google;
    struct warmup_state s = {
        .stage = 2, .step = 390, .day = 20778, .since = 20776, .mail = 20778, .used = 100};
    struct place p = {.dir = kit_dir()};
    struct buf b = {0}, errors = {0};
    struct warmup w = {0};
    struct warmup_view v;
    struct days days = {0};
    struct config *c;

    (void)state;
    place_open(&p);
    warmup_state_encode(&s, &b);
    store(&p, &google, buf_str(&b));
    store(&p, &yahoo, STR("\1broken"));
    day.record = WARMUP_RECORD_DAY;
    for (day.day = 20777; day.day >= 20775; day.day--) {
        struct warmup_past past = {.day = day.day, .used = (uint32_t)(day.day - 20000)};

        buf_clear(&b);
        warmup_past_encode(&past, &b);
        store(&p, &day, buf_str(&b));
    }
    assert_int_equal(warmup_store_open(&w, p.at.queue, no_wake, NULL), 0);
    assert_int_equal(config_load_text("t", STR("warmup: {sources: {default: {}}}"), &c, &errors),
                     0);
    warmup_configure(&w, c);
    warmup_view(&w, warmup_stream_of(&w, c, "default", STR("mx.example")), at_hour(20778, 5), &v);
    assert_int_equal(v.used, 0);
    config_unref(c);
    assert_int_equal(config_load_text("t",
                                      STR("sources: {a: {ipv4: 192.0.2.1}}\n"
                                          "warmup: {sources: {a: {schedule: standard}}}\n"),
                                      &c, &errors),
                     0);
    c->generation = 1;
    warmup_configure(&w, c);
    warmup_view(&w, warmup_stream_of(&w, c, "a", STR("mx.google.com")), at_hour(20778, 5), &v);
    assert_int_equal(v.stage, 3);
    assert_int_equal(v.used, 100);
    warmup_view(&w, warmup_stream_of(&w, c, "a", STR("mx.yahoodns.net")), at_hour(20778, 5), &v);
    assert_int_equal(v.stage, 1);
    assert_int_equal(v.used, v.cap);
    assert_int_equal(warmup_store_days(p.at.queue, see_day, &days), 0);
    assert_int_equal(days.len, 3);
    assert_int_equal(days.day[0], 20775);
    assert_int_equal(days.day[2], 20777);
    assert_int_equal(days.used[2], 777);
    warmup_done(&w);
    config_unref(c);
    place_close(&p);
    buf_done(&b);
    buf_done(&errors);
    free(p.dir);
}

/* Of one stream's records in several shards the newest counts, whatever comes first; if one is
 * damaged nobody knows which was the newest. */
static void test_newest(void **state)
{
    struct warmup_key keys[] = {
        {.record = WARMUP_RECORD_STREAM, .source = STR("a"), .provider = STR("google")},
        {.record = WARMUP_RECORD_STREAM, .source = STR("a"), .provider = STR("yahoo")},
        {.record = WARMUP_RECORD_STREAM, .source = STR("a"), .provider = STR("apple")}};
    struct place p = {.dir = kit_dir()};
    struct buf b = {0}, errors = {0};
    struct warmup w = {0};
    struct warmup_view v[3];
    struct config *c;

    (void)state;
    place_open(&p);
    for (uint32_t i = 0; i < 6; i++) {
        struct warmup_state s = {
            .step = 200, .day = 20778, .since = 20776, .mail = 20778, .used = 10 + i % 2};

        s.sequence = 5 + (i / 2 == 1 ? 1 - i % 2 : i % 2);
        warmup_state_encode(&s, &b);
        store_in(&p, i % 2, &keys[i / 2], i == 5 ? STR("\1broken") : buf_str(&b));
        buf_clear(&b);
    }
    assert_int_equal(warmup_store_open(&w, p.at.queue, no_wake, NULL), 0);
    c = configure(&w);
    for (int i = 0; i < 3; i++)
        assert_true(warmup_view_of(&w, STR("a"), keys[i].provider, at_hour(20778, 5), &v[i]));
    assert_int_equal(v[0].used, 11);
    assert_int_equal(v[1].used, 10);
    assert_int_equal(v[2].used, v[2].cap);
    warmup_done(&w);
    config_unref(c);
    place_close(&p);
    buf_done(&b);
    buf_done(&errors);
    free(p.dir);
}

/* A record without a sequence is of an older build, to which somebody may have gone back: it counts
 * if its day is the later one. */
static void test_older_build(void **state)
{
    struct warmup w = {0};
    struct warmup_state plain = {.step = 200, .since = 20770}, numbered = plain;
    struct warmup_put put;
    struct warmup_view v;
    struct buf errors = {0};
    struct config *c;

    (void)state;
    assert_int_equal(warmup_open(&w, no_wake, NULL), 0);
    plain.day = plain.mail = 20778;
    plain.used = 30;
    numbered.day = numbered.mail = 20777;
    numbered.used = 10;
    numbered.sequence = 9;
    assert_int_equal(warmup_restore(&w, STR("a"), STR("google"), 0, &plain), 0);
    assert_int_equal(warmup_restore(&w, STR("a"), STR("google"), 1, &numbered), 0);
    plain.day = plain.mail = 20776;
    assert_int_equal(warmup_restore(&w, STR("a"), STR("yahoo"), 0, &plain), 0);
    numbered.day = numbered.mail = 20778;
    assert_int_equal(warmup_restore(&w, STR("a"), STR("yahoo"), 1, &numbered), 0);
    c = configure(&w);
    assert_true(warmup_view_of(&w, STR("a"), STR("google"), at_hour(20778, 5), &v));
    assert_int_equal(v.used, 30);
    assert_true(warmup_view_of(&w, STR("a"), STR("yahoo"), at_hour(20778, 5), &v));
    assert_int_equal(v.used, 10);
    assert_int_equal(
        warmup_order(&w, at_hour(20778, 5),
                     &(struct warmup_order){
                         .kind = WARMUP_STAGE, .source = "a", .provider = "google", .number = 3}),
        0);
    assert_true(warmup_next(&w, at_hour(20778, 5), &put));
    assert_true(put.store && put.state.sequence == 10);
    warmup_granted(&w, &put, true, 0);
    warmup_done(&w);
    config_unref(c);
    buf_done(&errors);
}

/* A damaged record goes with what is stored next, if the operator said so first, too, and if the
 * store has no room at first. */
static void test_damaged(void **state)
{
    const struct warmup_order order = {
        .kind = WARMUP_STAGE, .source = "a", .provider = "google", .number = 3};
    static const bool stored[] = {false, true, true};
    static const uint32_t shards[] = {3, 3, 0};
    struct warmup w = {0};
    struct warmup_put put;
    struct buf errors = {0};
    struct config *c;

    (void)state;
    assert_int_equal(warmup_open(&w, no_wake, NULL), 0);
    assert_int_equal(warmup_restore(&w, STR("a"), STR("google"), 3, NULL), 0);
    c = configure(&w);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(warmup_order(&w, at_hour(20778, 5), &order), 0);
        assert_true(warmup_next(&w, at_hour(20778, 5), &put));
        assert_true(put.store);
        assert_int_equal(put.shard, shards[i]);
        warmup_granted(&w, &put, stored[i], 0);
    }
    warmup_done(&w);
    config_unref(c);
    buf_done(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys), cmocka_unit_test(test_start), cmocka_unit_test(test_newest),
        cmocka_unit_test(test_older_build), cmocka_unit_test(test_damaged)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "limits/warmup.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "config/config_load.h"

static int64_t ms_of(const char *date, int hour)
{
    int32_t day;

    assert_int_equal(day_parse(str_of(date), &day), 0);
    return ((int64_t)day * DAY_SECONDS + hour * 3600) * 1000;
}

static struct config *config_of(const char *text, uint64_t generation)
{
    struct buf errors = {0};
    struct config *c = NULL;

    if (config_load_text("test.yaml", str_of(text), &c, &errors) != 0)
        fail_msg("%.*s", STR_FMT(buf_str(&errors)));
    c->generation = generation;
    return c;
}

static void no_wake(void *arg)
{
    (void)arg;
}

/* --- a keeper with a store --- */

#define STORED_MAX 64

struct stored {
    char source[WARMUP_NAME_MAX + 1], provider[WARMUP_NAME_MAX + 1];
    struct warmup_state state;
};

struct world {
    struct warmup w;
    const struct config *config;
    struct stored stored[STORED_MAX];
    size_t stored_len;
    uint64_t puts, own; /* own: for which a commit is made */
    void (*on_past)(struct world *world, const struct warmup_put *put);
    void *arg;
};

static void world_open(struct world *world)
{
    assert_int_equal(warmup_open(&world->w, no_wake, NULL), 0);
    for (size_t i = 0; i < world->stored_len; i++) {
        struct stored *s = &world->stored[i];
        struct buf b = {0};
        struct warmup_state state;

        warmup_state_encode(&s->state, &b); /* as the store would have it */
        assert_int_equal(warmup_state_decode(buf_str(&b), &state), 0);
        assert_int_equal(
            warmup_restore(&world->w, str_of(s->source), str_of(s->provider), 0, &state), 0);
        buf_done(&b);
    }
    warmup_configure(&world->w, world->config);
}

/* Also the crash: all that was not stored is lost. */
static void world_close(struct world *world)
{
    warmup_done(&world->w);
    memset(&world->w, 0, sizeof(world->w));
}

static void store(struct world *world, const struct warmup_put *put)
{
    size_t i = 0;

    while (i < world->stored_len && (strcmp(world->stored[i].source, put->stream->source) != 0 ||
                                     strcmp(world->stored[i].provider, put->stream->provider) != 0))
        i++;
    assert_true(i < STORED_MAX);
    if (i == world->stored_len) {
        snprintf(world->stored[i].source, sizeof(world->stored[i].source), "%s",
                 put->stream->source);
        snprintf(world->stored[i].provider, sizeof(world->stored[i].provider), "%s",
                 put->stream->provider);
        world->stored_len++;
    }
    world->stored[i].state = warmup_put_stored(put);
    world->puts++;
    world->own += !put->rides;
}

static void keep(struct world *world, int64_t wall_ms)
{
    struct warmup_put put;

    while (warmup_next(&world->w, wall_ms, &put)) {
        if (put.store)
            store(world, &put);
        if (put.ended && world->on_past != NULL)
            world->on_past(world, &put);
        warmup_granted(&world->w, &put, true, (uint64_t)wall_ms * 1000000);
    }
}

/* --- sixty days --- */

#define SOURCES   4
#define PROVIDERS 6
#define DAYS      60
#define STREAMS   (SOURCES * PROVIDERS)
#define KILLS     20

static const char *const hosts[PROVIDERS] = {"aspmx.l.google.com",
                                             "mx-eu.mail.am0.yahoodns.net.",
                                             "Example-Com.Mail.Protection.OUTLOOK.com",
                                             "mfsmax.docomo.ne.jp",
                                             "mx.example.net",
                                             "mx01.mail.icloud.com"};

/* a: as shipped. b: cautious. c: the calendar. d: a table of its own. */
static const char sixty[] =
    "sources: {%s: {ipv4: 192.0.2.1}}\n"
    "warmup:\n"
    "  time_zone: Europe/Berlin\n"
    "  day_hour: 3\n"
    "  quiet_hours: \"23-5\"\n"
    "  schedules: {mine: {steps: [300, 500, 900, 1700, 3000, 5500, 9000]}}\n"
    "  sources:\n"
    "    %s: %s\n"
    "  providers: {apple: {promote: no}}\n";
static const char *const settings[SOURCES] = {
    "{schedule: standard}", "{schedule: cautious}",
    "{schedule: cautious, mode: calendar, from: 2026-03-01}", "{schedule: mine}"};
static const char *const names[SOURCES] = {"a", "b", "c", "d"};

/* What the answers of a day are like: one in so many is deferred or refused. That is clear of the
 * thresholds, so that what a crash forgets decides nothing; caps below 100 have good and bad days
 * only, for a few percent of them are less than three. */
enum mood { MOOD_GOOD, MOOD_DEFERS, MOOD_BOUNCES, MOOD_BAD };
#define FEW 100
static const struct {
    uint32_t one_in;
    enum warmup_event event;
} moods[] = {[MOOD_GOOD] = {UINT32_MAX, WARMUP_EVENT_DELIVERED},
             [MOOD_DEFERS] = {20, WARMUP_EVENT_DEFERRED},
             [MOOD_BOUNCES] = {16, WARMUP_EVENT_BOUNCED},
             [MOOD_BAD] = {3, WARMUP_EVENT_DEFERRED}};

/* The reference: the rules in their plainest form, over whole days. */
struct reference {
    const uint32_t *steps;
    uint32_t len, pace, stage;
    bool calendar, frozen, warm;
    enum mood mood;
    uint32_t sent, hour_sent; /* of the day, of the hour */
};

struct sixty {
    struct world world[SOURCES]; /* one for each source, of a configuration each */
    struct reference ref[STREAMS];
    struct warmup_stream *stream[STREAMS];
    int64_t at_ms[STREAMS]; /* when it wants to be asked again */
    struct rng rng;
    uint64_t sent;
    uint32_t ended, advanced, held, fell;
};

static uint32_t ref_cap(const struct reference *r)
{
    uint32_t cap = r->steps[r->stage] * r->pace / 100;

    return r->warm ? UINT32_MAX : cap == 0 ? 1 : cap;
}

static void ref_day(struct sixty *t, struct reference *r)
{
    if (r->warm)
        return;
    if (r->sent < ref_cap(r) / 100 * 97)
        fail_msg("%u of %u used", r->sent, ref_cap(r));
    t->ended++;
    if (r->calendar) {
        r->stage += !r->frozen;
    } else if (r->mood == MOOD_BAD) {
        r->stage = r->stage < 2 ? 0 : r->stage - 2;
        t->fell++;
    } else if (r->mood == MOOD_GOOD && !r->frozen) {
        r->stage++;
        t->advanced++;
    } else {
        t->held++;
    }
    r->warm = r->stage >= r->len;
    if (r->warm)
        r->stage = r->len - 1;
}

/* Sends what may be sent until end_ms. */
static void run_stream(struct sixty *t, int i, int64_t end_ms)
{
    struct world *world = &t->world[i / PROVIDERS];
    struct reference *r = &t->ref[i];
    struct warmup_stream *s = t->stream[i];

    while (t->at_ms[i] < end_ms) {
        int64_t now_ms = t->at_ms[i];
        uint32_t got;
        uint64_t again_ns = warmup_take(&world->w, s, now_ms, (uint64_t)now_ms * 1000000);

        if (again_ns != 0) {
            keep(world, now_ms);
            t->at_ms[i] = (int64_t)(again_ns / 1000000) + 1;
            continue;
        }
        if (r->warm) {
            t->at_ms[i] = end_ms;
            continue;
        }
        got = 1 + warmup_more(&world->w, s, now_ms, 49);
        r->sent += got;
        r->hour_sent += got;
        t->sent += got;
        if (r->sent > ref_cap(r))
            fail_msg("%s at %s: %u of %u, stage %u, in memory %u", s->source, s->provider, r->sent,
                     ref_cap(r), r->stage, s->state.stage);
        for (uint32_t n = r->sent - got; n < r->sent; n++)
            warmup_count(s, n % moods[r->mood].one_in == 0 && r->mood != MOOD_GOOD
                                ? moods[r->mood].event
                                : WARMUP_EVENT_DELIVERED);
    }
}

static void sixty_begin(struct sixty *t, int source)
{
    struct world *world = &t->world[source];
    struct buf text = {0};
    struct config *c;

    buf_printf(&text, sixty, names[source], names[source], settings[source]);
    buf_putc(&text, 0);
    c = config_of((const char *)text.data, 1);
    buf_done(&text);
    world->config = c;
    world_open(world);
    for (int p = 0; p < PROVIDERS; p++) {
        struct config_warmup_policy policy;
        struct reference *r = &t->ref[source * PROVIDERS + p];
        struct str host = str_of(hosts[p]);

        assert_true(config_warmup_policy(c, names[source], config_provider_of(c, host), &policy));
        *r = (struct reference){.steps = policy.steps,
                                .len = (uint32_t)policy.steps_len,
                                .pace = p == 2 ? 50 : 100, /* Microsoft */
                                .calendar = source == 2,
                                .frozen = p == 5};
        t->stream[source * PROVIDERS + p] = warmup_stream_of(&world->w, c, names[source], host);
        assert_non_null(t->stream[source * PROVIDERS + p]);
    }
}

static void kill_all(struct sixty *t)
{
    for (int source = 0; source < SOURCES; source++) {
        struct world *world = &t->world[source];

        world_close(world);
        world_open(world);
        for (int p = 0; p < PROVIDERS; p++)
            t->stream[source * PROVIDERS + p] =
                warmup_stream_of(&world->w, world->config, names[source], str_of(hosts[p]));
    }
}

/* The production code against the reference: each hour and day within its cap, nearly all of it
 * used, each stage as the rules say; over a change of summer time and twenty crashes. */
static void test_sixty_days(void **state)
{
    struct sixty *t = calloc(1, sizeof(*t));
    struct warmup_calendar calendar = {.day_hour = 3, .quiet_hours = 0x80001F};
    int64_t now_ms = ms_of("2026-03-01", 2), kill_ms[KILLS]; /* 3:00 in Berlin */
    struct warmup_hour hour, last;
    uint64_t puts = 0;
    int kills = 0;

    (void)state;
#if defined(__SANITIZE_THREAD__)
    skip(); /* one thread, and three minutes of it under TSan */
#endif
    assert_int_equal(zone_load(STR("Europe/Berlin"), (struct zone **)(void *)&calendar.zone), 0);
    rng_seed(&t->rng, 11);
    for (int i = 0; i < KILLS; i++) /* in the middle of hours, of days in order */
        kill_ms[i] =
            now_ms + (i * 3 + 1) * INT64_C(86400000) + (int64_t)rng_below(&t->rng, 86400) * 1000;
    for (int source = 0; source < SOURCES; source++)
        sixty_begin(t, source);
    for (int i = 0; i < STREAMS; i++)
        t->at_ms[i] = now_ms;
    warmup_hour_at(&calendar, now_ms, &last);
    for (int days = 0; days < DAYS;) {
        int64_t end_ms;

        warmup_hour_at(&calendar, now_ms, &hour);
        end_ms = hour.ends_ms;
        if (kills < KILLS && kill_ms[kills] > now_ms && kill_ms[kills] < end_ms)
            end_ms = kill_ms[kills];
        for (int i = 0; i < STREAMS; i++) {
            uint32_t cap = ref_cap(&t->ref[i]);

            run_stream(t, i, end_ms);
            assert_true(t->ref[i].warm ||
                        t->ref[i].hour_sent <= (hour.quiet ? 0 : (2 * (uint64_t)cap + 17) / 18));
        }
        now_ms = end_ms;
        if (kills < KILLS && kill_ms[kills] == end_ms) {
            kill_all(t);
            kills++;
            continue;
        }
        warmup_hour_at(&calendar, now_ms, &hour);
        for (int i = 0; i < STREAMS; i++)
            t->ref[i].hour_sent = 0;
        if (hour.day == last.day)
            continue;
        for (int i = 0; i < STREAMS; i++) {
            uint64_t luck = rng_below(&t->rng, 20);

            ref_day(t, &t->ref[i]);
            t->ref[i].sent = 0;
            t->ref[i].mood = luck == 0                               ? MOOD_BAD
                             : ref_cap(&t->ref[i]) < FEW || luck > 3 ? MOOD_GOOD
                             : luck == 1                             ? MOOD_BOUNCES
                                                                     : MOOD_DEFERS;
        }
        last = hour;
        days++;
    }
    assert_int_equal(kills, KILLS);
    for (int i = 0; i < STREAMS; i++) {
        struct warmup_view v;

        warmup_view(&t->world[i / PROVIDERS].w, t->stream[i], now_ms, &v);
        if (v.cap != ref_cap(&t->ref[i]))
            fail_msg("%s at %s: cap %u, reference %u", v.source, v.provider, v.cap,
                     ref_cap(&t->ref[i]));
    }
    assert_true(t->advanced > 300 && t->held > 50 && t->fell > 10);
    for (int source = 0; source < SOURCES; source++)
        puts += t->world[source].puts;
    assert_true(puts <= t->sent / 100 + STREAMS * DAYS * (50 + 18 + 2));
    for (int source = 0; source < SOURCES; source++) {
        world_close(&t->world[source]);
        config_unref((struct config *)(uintptr_t)t->world[source].config);
    }
    zone_free((struct zone *)(uintptr_t)calendar.zone);
    free(t);
}

/* --- the pace --- */

static const char one[] = "sources: {a: {ipv4: 192.0.2.1}}\n"
                          "warmup: {schedules: {mine: {steps: [2400, 4000]}}, "
                          "sources: {a: {schedule: mine}}}\n";

/* 2,400 a day are 100 an hour and one in 36 s: no two come closer than that but for what two
 * seconds hold, and the hour is full. */
static void test_smooth(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    int64_t now_ms = ms_of("2026-06-01", 0), end_ms = ms_of("2026-06-01", 5), last_ms = 0;
    struct warmup_stream *s;
    uint32_t sent = 0;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    while (now_ms < end_ms) {
        uint64_t again_ns = warmup_take(&world.w, s, now_ms, (uint64_t)now_ms * 1000000);

        if (again_ns == 0) {
            assert_true(last_ms == 0 || now_ms - last_ms >= 36000 - 2000);
            last_ms = now_ms;
            sent++;
            continue;
        }
        assert_true(again_ns > (uint64_t)now_ms * 1000000);
        keep(&world, now_ms);
        now_ms = (int64_t)(again_ns / 1000000) + 1;
    }
    assert_true(sent >= 498 && sent <= 500);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* At a carrier the first two minutes of each hour get nothing, and the hour is full all the same.
 */
static void test_top_of_hour(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    int64_t now_ms = ms_of("2026-06-01", 0), end_ms = ms_of("2026-06-01", 3);
    struct warmup_stream *s;
    uint32_t sent = 0;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mfsmax.docomo.ne.jp"));
    while (now_ms < end_ms) {
        uint64_t again_ns = warmup_take(&world.w, s, now_ms, (uint64_t)now_ms * 1000000);

        if (again_ns == 0) {
            assert_true(now_ms / 1000 % 3600 >= 120);
            sent++;
            continue;
        }
        keep(&world, now_ms);
        now_ms = (int64_t)(again_ns / 1000000) + 1;
    }
    assert_true(sent >= 296 && sent <= 300);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* Takes all that can be had at now_ms, without waiting for the pace. */
static uint32_t take_all(struct world *world, struct warmup_stream *s, int64_t now_ms)
{
    static uint64_t mono_ns = 1;
    uint32_t sum = 0, refused = 0;

    while (refused < 3) {
        mono_ns += UINT64_C(100000000000000);
        if (warmup_take(&world->w, s, now_ms, mono_ns) == 0) {
            sum += 1 + (sum % 2 == 0 ? warmup_more(&world->w, s, now_ms, 30) : 0);
            refused = 0;
        } else {
            keep(world, now_ms);
            refused++;
        }
    }
    return sum;
}

/* Whatever the clock does near midnight, what goes out under the date of a day is within its cap.
 */
static void test_clock_over_midnight(void **state)
{
    struct rng rng;

    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct world world = {.config = config_of(one, 1)};
        int64_t now_ms = ms_of("2026-06-01", 12), latest_ms = now_ms;
        uint32_t sent[8] = {0};
        struct warmup_stream *s;

        rng_seed(&rng, seed);
        world_open(&world);
        s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
        for (int n = 0; n < 60; n++) {
            int64_t day = (now_ms - ms_of("2026-06-01", 0)) / 86400000;

            if (day < 0 || day >= 8)
                break;
            sent[day] += take_all(&world, s, now_ms);
            warmup_count(s, WARMUP_EVENT_DELIVERED);
            /* Forward by hours, now and then back, less than a day behind where it has been. */
            latest_ms = now_ms > latest_ms ? now_ms : latest_ms;
            now_ms = rng_below(&rng, 4) == 0 ? latest_ms - (int64_t)rng_below(&rng, 80000000)
                                             : now_ms + (int64_t)rng_below(&rng, 8000000);
            if (rng_below(&rng, 10) == 0) {
                world_close(&world);
                world_open(&world);
                s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
            }
        }
        for (int day = 0; day < 8; day++)
            assert_true(sent[day] <= (day == 0 ? 2400 : 4000));
        world_close(&world);
        config_unref((struct config *)(uintptr_t)world.config);
    }
}

static void test_crash_loses_a_chunk(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    int64_t now_ms = ms_of("2026-06-01", 0);
    struct warmup_stream *s;
    struct warmup_view v;
    uint32_t sent = 0;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    for (uint64_t n = 1; n < 3; n++) { /* the first one asks */
        sent += warmup_take(&world.w, s, now_ms, n * UINT64_C(100000000000000)) == 0;
        keep(&world, now_ms);
    }
    assert_int_equal(sent, 1);
    warmup_view(&world.w, s, now_ms, &v);
    assert_int_equal(v.used, 1); /* what is sent, not what is leased */
    world_close(&world);
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    warmup_view(&world.w, s, now_ms, &v);
    assert_true(v.used > 1 && v.used <= 50); /* 2 % and what makes chunks of an hour even */
    sent = take_all(&world, s, now_ms);
    assert_int_equal(sent + v.used, 100); /* the hour's share */
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* A day of a cap, with an answer to each recipient a second behind it, and kill -9 now and then.
 * The bad ones among these are never forgotten; the others are while something is sent, and of a
 * large cap those to the last lease. */
static void ride(struct world *world, uint32_t cap, unsigned kills)
{
    int64_t now_ms = ms_of("2026-06-01", 0), end_ms = ms_of("2026-06-02", 0), told_ms = INT64_MAX;
    int64_t killed_ms = kills == 0 ? INT64_MAX : now_ms + 86400000 / (kills + 1);
    uint32_t sent = 0, part = cap < 5000 ? (cap + 49) / 50 : 150, lost = 0, told = 0, bad = 0;
    struct warmup_stream *s;
    struct warmup_view v;

    world_open(world);
    s = warmup_stream_of(&world->w, world->config, "a", STR("mx.example.net"));
    while (now_ms < end_ms) {
        struct warmup_set set = {.of = {s}};
        uint64_t again_ns;

        if (now_ms >= told_ms) { /* the answer, and what is settled with it */
            bool is_sign = told++ % 20 == 19;

            bad += is_sign;
            warmup_set_count(&set, is_sign ? WARMUP_EVENT_DEFERRED : WARMUP_EVENT_DELIVERED);
            warmup_set_ride(&world->w, &set, is_sign, 1);
            keep(world, now_ms);
            told_ms = INT64_MAX;
        }
        if (now_ms >= killed_ms) {
            world_close(world);
            world_open(world);
            s = warmup_stream_of(&world->w, world->config, "a", STR("mx.example.net"));
            warmup_view(&world->w, s, now_ms, &v);
            assert_true(v.used >= sent + lost && v.used <= sent + lost + part);
            lost = v.used - sent;
            assert_int_equal(v.events[WARMUP_EVENT_DEFERRED], bad);
            killed_ms += 86400000 / (kills + 1);
            told_ms = INT64_MAX;
        }
        again_ns = warmup_take(&world->w, s, now_ms, (uint64_t)now_ms * 1000000);
        if (again_ns == 0) {
            sent++;
            told_ms = now_ms + 1000;
        } else {
            keep(world, now_ms);
            now_ms = (int64_t)(again_ns / 1000000) + 1;
        }
    }
    assert_true(sent + lost <= cap && sent + lost + lost / 2 + 1 >= cap * 97 / 100);
    world_close(world);
    world_open(world); /* all of the cap is sent: what comes then says how the day ends */
    s = warmup_stream_of(&world->w, world->config, "a", STR("mx.example.net"));
    warmup_view(&world->w, s, end_ms - 1, &v);
    assert_int_equal(v.events[WARMUP_EVENT_DEFERRED], bad);
    assert_true(kills > 0 || cap >= 5000 || v.events[WARMUP_EVENT_DELIVERED] == cap - bad);
    world_close(world);
}

/* No more than one commit in 100 recipients is made for a cap of at least 100, and one a day for a
 * small one (two where its first hour has no share): all other leases go with mail that is settled,
 * and so do bad answers. Each crash loses a part, and has its first lease written at once. */
static void test_rides(void **state)
{
    static const uint32_t caps[] = {10, 50, 100, 200, 1000, 2400, 4900, 6000, 20000};
    char text[160];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
        for (unsigned kills = 0; kills < 4; kills += 3) {
            struct world world = {0};

            snprintf(text, sizeof(text),
                     "sources: {a: {ipv4: 192.0.2.1}}\nwarmup: {schedules: {mine: {steps: [%u]}}, "
                     "sources: {a: {schedule: mine}}}\n",
                     caps[i]);
            world.config = config_of(text, 1);
            ride(&world, caps[i], kills);
            if (world.own > (caps[i] < 24 ? 2 : caps[i] < 5000 ? 1 : caps[i] / 100) + kills)
                fail_msg("%u a day, %u kills: %llu commits of %llu puts", caps[i], kills,
                         (unsigned long long)world.own, (unsigned long long)world.puts);
            config_unref((struct config *)(uintptr_t)world.config);
        }
    }
}

/* A bad answer that comes while the keeper is storing is stored behind that, without another asking
 * for it. */
static void test_sign_meanwhile(void **state)
{
    static const uint32_t caps[] = {1000, 100000};
    int64_t now_ms = ms_of("2026-06-01", 0);
    char text[160];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
        struct world world = {0};
        struct warmup_set set = {0};
        struct warmup_put put;
        struct warmup_view v;

        snprintf(text, sizeof(text),
                 "sources: {a: {ipv4: 192.0.2.1}}\nwarmup: {schedules: {mine: {steps: [%u]}}, "
                 "sources: {a: {schedule: mine}}}\n",
                 caps[i]);
        world.config = config_of(text, 1);
        world_open(&world);
        set.of[0] = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
        keep(&world, now_ms);
        warmup_set_count(&set, WARMUP_EVENT_DEFERRED);
        warmup_set_ride(&world.w, &set, true, 1);
        assert_true(warmup_next(&world.w, now_ms, &put) && put.store && put.shard == 1);
        warmup_set_count(&set, WARMUP_EVENT_BOUNCED);
        warmup_set_ride(&world.w, &set, true, 2);
        assert_false(warmup_asks(&world.w));
        store(&world, &put);
        warmup_granted(&world.w, &put, true, 0);
        assert_true(warmup_next(&world.w, now_ms, &put) && put.store && put.shard == 2);
        store(&world, &put);
        warmup_granted(&world.w, &put, true, 0);
        assert_false(warmup_asks(&world.w)); /* and that was all */
        world_close(&world);
        world_open(&world);
        set.of[0] = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
        warmup_view(&world.w, set.of[0], now_ms, &v);
        assert_int_equal(v.events[WARMUP_EVENT_DEFERRED], 1);
        assert_int_equal(v.events[WARMUP_EVENT_BOUNCED], 1);
        world_close(&world);
        config_unref((struct config *)(uintptr_t)world.config);
    }
}

static bool doubts(struct world *world, struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns)
{
    warmup_doubt(&world->w, s, wall_ms, now_ns);
    return warmup_asks(&world->w);
}

/* Who waits for another day asks once, and when the clock was set: again, where that could not be
 * stored, or came while an answer to the old clock was under way. */
static void test_doubt(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    int64_t now_ms = ms_of("2026-06-01", 0), away_ms = 86400000;
    uint64_t now_ns = UINT64_C(1000000000000);
    struct warmup_stream *s;
    struct warmup_put put;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    for (int hour = 0; hour < 24; hour++)
        (void)take_all(&world, s, now_ms + hour * INT64_C(3600000));
    now_ms += 12 * INT64_C(3600000);
    (void)doubts(&world, s, now_ms, now_ns);
    keep(&world, now_ms);
    assert_false(doubts(&world, s, now_ms, now_ns));
    assert_false(doubts(&world, s, now_ms + 5000, now_ns + UINT64_C(5000000000)));
    assert_true(doubts(&world, s, now_ms - away_ms, now_ns));
    assert_true(warmup_next(&world.w, now_ms - away_ms, &put));
    warmup_granted(&world.w, &put, false, now_ns);
    assert_true(doubts(&world, s, now_ms - away_ms, now_ns));
    assert_true(warmup_next(&world.w, now_ms - away_ms, &put));
    assert_false(doubts(&world, s, now_ms - 2 * away_ms, now_ns));
    warmup_granted(&world.w, &put, true, now_ns);
    assert_true(doubts(&world, s, now_ms - 2 * away_ms, now_ns));
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* Behind a clock that was set back, or a change of the time zone, who waits is told when the stream
 * goes on, and not when the next hour begins. */
static void test_ahead(void **state)
{
    static const char text[] = "sources: {a: {ipv4: 192.0.2.1}}\n"
                               "warmup: {schedules: {mine: {steps: [2400]}}, sources: {a: "
                               "{schedule: mine}}}\n";
    struct world world = {.config = config_of(text, 1)};
    struct warmup_stream *s;
    struct warmup_view v;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    (void)take_all(&world, s, ms_of("2026-06-02", 12));
    warmup_view(&world.w, s, ms_of("2026-06-02", 3), &v);
    assert_int_equal(v.next_ms, ms_of("2026-06-02", 12));
    warmup_view(&world.w, s, ms_of("2026-06-01", 23), &v);
    assert_int_equal(v.next_ms, ms_of("2026-06-02", 12));
    assert_true(take_all(&world, s, ms_of("2026-06-02", 3)) == 0);
    assert_true(take_all(&world, s, ms_of("2026-06-02", 12)) == 0);
    assert_true(take_all(&world, s, ms_of("2026-06-02", 13)) > 0);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* A day ends at its end, and not with the next mail: who looks the morning after sees it. */
static void test_day_ends_without_mail(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    struct warmup_stream *s;
    struct warmup_put put;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    (void)take_all(&world, s, ms_of("2026-06-02", 12));
    keep(&world, ms_of("2026-06-02", 12));
    warmup_look(&world.w, ms_of("2026-06-02", 23));
    assert_false(warmup_asks(&world.w));
    warmup_look(&world.w, ms_of("2026-06-03", 0));
    assert_true(warmup_next(&world.w, ms_of("2026-06-03", 0), &put) && put.ended && put.store);
    store(&world, &put);
    warmup_granted(&world.w, &put, true, 0);
    keep(&world, ms_of("2026-06-03", 0));
    warmup_look(&world.w, ms_of("2026-06-03", 1));
    warmup_look(&world.w, ms_of("2026-06-04", 1)); /* a day without mail: nothing was leased */
    assert_false(warmup_asks(&world.w));
    assert_true(take_all(&world, s, ms_of("2026-06-04", 1)) > 0);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* At an end that is no crash nothing is lost: neither what was leased, nor what was answered. */
static void test_end(void **state)
{
    static const uint32_t takes[] = {1, 3, 30};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(takes); i++) {
        struct world world = {.config = config_of(one, 1)};
        int64_t now_ms = ms_of("2026-06-01", 0);
        struct warmup_stream *s;
        struct warmup_view v;
        uint32_t sent = 0;

        world_open(&world);
        s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
        for (uint64_t n = 1; sent < takes[i]; n++) {
            sent += warmup_take(&world.w, s, now_ms, n * UINT64_C(100000000000000)) == 0;
            keep(&world, now_ms);
        }
        for (uint32_t n = 0; n < sent; n++)
            warmup_count(s, n == 0 ? WARMUP_EVENT_DEFERRED : WARMUP_EVENT_DELIVERED);
        warmup_end(&world.w);
        keep(&world, now_ms);
        assert_int_equal(warmup_asking(&world.w), 0);
        for (uint64_t n = 1; n < 3; n++) { /* and nothing more is sent */
            assert_true(warmup_take(&world.w, s, now_ms, n * UINT64_C(200000000000000000)) != 0);
            keep(&world, now_ms);
        }
        world_close(&world);
        world_open(&world);
        s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
        warmup_view(&world.w, s, now_ms, &v);
        assert_int_equal(v.used, takes[i]);
        assert_int_equal(v.events[WARMUP_EVENT_DEFERRED], 1);
        assert_int_equal(v.events[WARMUP_EVENT_DELIVERED], takes[i] - 1);
        world_close(&world);
        config_unref((struct config *)(uintptr_t)world.config);
    }
}

/* Of a damaged record the day's cap counts as used: it begins anew on the next day. By the calendar
 * there may be no cap by now, and so nothing that is used. */
static void test_damaged(void **state)
{
    static const char *const froms[] = {"2026-05-31", "2020-01-01"};
    const int64_t now_ms = ms_of("2026-06-01", 0);
    struct warmup_view v;
    char text[300];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(froms); i++) {
        struct world world = {0};

        snprintf(text, sizeof(text),
                 "sources: {a: {ipv4: 127.0.0.1}}\nwarmup: {sources: {a: {schedule: fast, mode: "
                 "calendar, from: %s}}}\n",
                 froms[i]);
        world.config = config_of(text, 1);
        world_open(&world);
        assert_int_equal(warmup_restore(&world.w, STR("a"), STR("default"), 0, NULL), 0);
        for (int turn = 0; turn < 2; turn++) { /* as it is shown, then as it is kept */
            warmup_view(&world.w,
                        warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net")),
                        now_ms, &v);
            assert_int_equal(v.used, i == 0 ? v.cap : 0);
            assert_true(i > 0 || v.cap > 0);
            keep(&world, now_ms);
        }
        world_close(&world);
        config_unref((struct config *)(uintptr_t)world.config);
    }
}

/* What could not be stored is not spent, and not lost. */
static void test_store_fails(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    int64_t now_ms = ms_of("2026-06-01", 0);
    struct warmup_stream *s;
    struct warmup_put put;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    for (int n = 0; n < 500; n++) {
        assert_true(warmup_take(&world.w, s, now_ms, 1) != 0);
        assert_true(warmup_take(&world.w, s, now_ms, 1) != 0); /* it asks once */
        assert_true(warmup_next(&world.w, now_ms, &put));
        assert_true(put.store && put.granted > 0);
        warmup_granted(&world.w, &put, false, 1);
        assert_false(warmup_asks(&world.w));
    }
    assert_true(take_all(&world, s, now_ms) <= 100);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

static void test_given_back(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    int64_t now_ms = ms_of("2026-06-01", 0);
    int64_t budget;
    struct warmup_stream *s;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    assert_int_equal(take_all(&world, s, now_ms), 100);
    assert_int_equal(take_all(&world, s, now_ms), 0);
    /* Of another hour: too late. */
    warmup_give(s, now_ms - 1, 5);
    assert_int_equal(take_all(&world, s, now_ms + 2 * HOUR_MS - 1), 100);
    now_ms += 2 * HOUR_MS;
    assert_true(warmup_take(&world.w, s, now_ms, UINT64_MAX / 2) != 0);
    keep(&world, now_ms);
    budget = atomic_load(&s->shared.budget);
    assert_true(budget > 0);
    warmup_give(s, now_ms - HOUR_MS, 5);
    assert_int_equal(atomic_load(&s->shared.budget), budget);
    warmup_give(s, now_ms, 5);
    assert_int_equal(atomic_load(&s->shared.budget), budget + 5);
    warmup_give(NULL, now_ms, 5);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* --- configuration and orders --- */

static void test_reload(void **state)
{
    static const char less[] = "sources: {a: {ipv4: 192.0.2.1}}\n"
                               "warmup: {schedules: {mine: {steps: [240, 4000]}}, "
                               "sources: {a: {schedule: mine}}}\n";
    struct world world = {.config = config_of(one, 1)};
    struct config *later = config_of(less, 2), *last = config_of(less, 3);
    struct config *none = config_of("{}", 4);
    int64_t now_ms = ms_of("2026-06-01", 10);
    struct warmup_stream *s;
    struct warmup_put put;
    struct warmup_view v;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    assert_int_equal(take_all(&world, s, now_ms), 171); /* 2,400 over 14 hours */
    /* In flight, to a cap below what is sent: nothing more today. */
    assert_ptr_equal(warmup_stream_of(&world.w, later, "a", STR("mx.example.net")), s);
    warmup_view(&world.w, s, now_ms, &v);
    assert_int_equal(v.cap, 240);
    assert_int_equal(take_all(&world, s, now_ms), 0);
    assert_true(take_all(&world, s, now_ms + HOUR_MS) <= 20);
    /* A worker that is late with the reload brings nothing back. */
    assert_ptr_equal(warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net")), s);
    warmup_view(&world.w, s, now_ms, &v);
    assert_int_equal(v.cap, 240);
    /* A lease of the old caps, whose commit comes behind the reload, is not granted. */
    now_ms += 5 * HOUR_MS;
    assert_true(warmup_take(&world.w, s, now_ms, UINT64_MAX / 2) != 0);
    assert_true(warmup_next(&world.w, now_ms, &put));
    warmup_configure(&world.w, last);
    warmup_granted(&world.w, &put, true, 1);
    assert_int_equal(atomic_load(&s->shared.budget), 0);
    assert_true(warmup_asks(&world.w));
    assert_null(warmup_stream_of(&world.w, none, "a", STR("mx.example.net")));
    warmup_configure(&world.w, none);
    warmup_view(&world.w, s, now_ms, &v);
    assert_false(v.configured);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
    config_unref(later);
    config_unref(last);
    config_unref(none);
}

/* Mail that was under way over two reloads is settled: the file names the stream again, with fewer
 * stages than it has reached. */
static void test_reload_to_fewer_stages(void **state)
{
    struct world world = {
        .config =
            config_of("sources: {a: {ipv4: 192.0.2.1}}\n"
                      "warmup: {schedules: {mine: {steps: [10, 20, 30, 40, 50, 60, 70, 80]}}, "
                      "sources: {a: {schedule: mine}}}\n",
                      1)};
    struct config *none = config_of("{}", 2), *two = config_of(one, 3);
    int64_t now_ms = ms_of("2026-06-01", 10);
    struct warmup_order order = {.kind = WARMUP_STAGE, .source = "a", .provider = "", .number = 8};
    struct warmup_set set = {0};
    struct warmup_view v;

    (void)state;
    world_open(&world);
    set.of[0] = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    keep(&world, now_ms);
    assert_int_equal(warmup_order(&world.w, now_ms, &order), 0);
    keep(&world, now_ms);
    warmup_configure(&world.w, none);
    warmup_configure(&world.w, two);
    warmup_set_ride(&world.w, &set, true, 0);
    keep(&world, now_ms);
    warmup_view(&world.w, set.of[0], now_ms, &v);
    assert_true(v.stage >= 1 && v.stage <= v.stages);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
    config_unref(none);
    config_unref(two);
}

static void test_orders(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    int64_t now_ms = ms_of("2026-06-01", 10);
    struct warmup_order order = {.kind = WARMUP_STAGE, .source = "a", .number = 2};
    struct warmup_stream *s;
    struct warmup_view v;
    struct buf words = {0};

    (void)state;
    world_open(&world);
    assert_int_equal(warmup_order(&world.w, now_ms, &order), -ENOENT);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    assert_int_equal(warmup_order(&world.w, now_ms, &order), 0);
    assert_true(warmup_asks(&world.w));
    keep(&world, now_ms);
    assert_int_equal(world.stored[0].state.stage, 1);
    warmup_view(&world.w, s, now_ms, &v);
    assert_int_equal(v.stage, 2);
    assert_int_equal(v.cap, 4000);
    assert_int_equal(v.verdict, WARMUP_SET);
    order.number = 4;
    assert_int_equal(warmup_order(&world.w, now_ms, &order), -ERANGE);
    order.number = 3; /* behind the last: no cap */
    assert_int_equal(warmup_order(&world.w, now_ms, &order), 0);
    keep(&world, now_ms);
    warmup_view(&world.w, s, now_ms, &v);
    assert_int_equal(v.cap, WARMUP_NO_CAP);
    order = (struct warmup_order){.kind = WARMUP_START, .source = "a", .provider = "default"};
    assert_int_equal(warmup_order(&world.w, now_ms, &order), 0);
    keep(&world, now_ms);
    assert_int_equal(take_all(&world, s, now_ms), 171);
    warmup_view(&world.w, s, now_ms, &v);
    assert_int_equal(v.stage, 1);
    assert_true(v.next_ms == ms_of("2026-06-01", 11));
    warmup_put_words(&world.w, &v, &words);
    buf_putc(&words, 0);
    assert_string_equal((const char *)words.data, "171 of 2,400 today, next hour's share at 11:00");
    order = (struct warmup_order){.kind = WARMUP_COMPLAINTS, .source = "a", .number = 4};
    assert_int_equal(warmup_order(&world.w, now_ms, &order), 0);
    order = (struct warmup_order){.kind = WARMUP_PAUSE, .source = "a"};
    assert_int_equal(warmup_order(&world.w, now_ms, &order), 0);
    keep(&world, now_ms);
    assert_int_equal(world.stored[0].state.events[WARMUP_EVENT_COMPLAINED], 4);
    assert_true(world.stored[0].state.paused);
    snprintf(order.provider, sizeof(order.provider), "google");
    assert_int_equal(warmup_order(&world.w, now_ms, &order), -ENOENT);
    buf_done(&words);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* --- threads --- */

#define THREADS 4

struct taker {
    pthread_t thread;
    struct warmup *w;
    struct warmup_stream *s;
    uint32_t sum;
};

static void *take_some(void *arg)
{
    struct taker *t = arg;
    int64_t now_ms = ms_of("2026-06-01", 10);

    for (uint64_t n = 1; n < 20000; n++) {
        if (warmup_take(t->w, t->s, now_ms, n * UINT64_C(100000000000000)) != 0)
            continue;
        t->sum += 1 + warmup_more(t->w, t->s, now_ms, (uint32_t)(n % 3));
        if (n % 5 == 0) {
            warmup_give(t->s, now_ms, 1);
            t->sum--;
        }
        warmup_count(t->s, WARMUP_EVENT_DELIVERED);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct world world = {.config = config_of(one, 1)};
    struct taker takers[THREADS] = {0};
    struct warmup_stream *s;
    uint32_t sum = 0;

    (void)state;
    world_open(&world);
    s = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    for (int i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){.w = &world.w, .s = s};
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_some, &takers[i]), 0);
    }
    for (int n = 0; n < 20000; n++)
        keep(&world, ms_of("2026-06-01", 10));
    for (int i = 0; i < THREADS; i++) {
        pthread_join(takers[i].thread, NULL);
        sum += takers[i].sum;
    }
    keep(&world, ms_of("2026-06-01", 10));
    assert_int_equal(sum + take_all(&world, s, ms_of("2026-06-01", 10)), 171);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

/* What one stream does not allow goes back to the others. */
static void test_set(void **state)
{
    int64_t now_ms = ms_of("2026-06-01", 10);
    struct world world = {
        .config = config_of("sources: {a: {ipv4: 192.0.2.1}}\n"
                            "warmup:\n"
                            "  schedules: {small: {steps: [48]}, large: {steps: [48000]}}\n"
                            "  sources: {a: {schedule: large}}\n"
                            "  campaigns: {spring: {schedule: small}}\n",
                            1)};
    struct warmup_set set = {0};
    struct warmup_stream **of = set.of;
    uint32_t before, got;

    (void)state;
    world_open(&world);
    assert_true(warmup_set_empty(&set));
    of[CONFIG_WARMUP_SOURCE] = warmup_stream_of(&world.w, world.config, "a", STR("mx.example.net"));
    of[CONFIG_WARMUP_CAMPAIGN] =
        warmup_stream_of(&world.w, world.config, "campaign:spring", STR("mx.example.net"));
    assert_non_null(of[CONFIG_WARMUP_CAMPAIGN]);
    keep(&world, now_ms);
    before = (uint32_t)atomic_load(&of[CONFIG_WARMUP_SOURCE]->shared.budget);
    assert_true(before > 50);
    got = warmup_set_more(&world.w, &set, now_ms, 50);
    assert_true(got > 0 && got < 50);
    assert_int_equal(atomic_load(&of[CONFIG_WARMUP_SOURCE]->shared.budget), before - got);
    assert_int_equal(atomic_load(&of[CONFIG_WARMUP_CAMPAIGN]->shared.budget), 0);
    warmup_set_give(&set, now_ms, got);
    assert_int_equal(atomic_load(&of[CONFIG_WARMUP_SOURCE]->shared.budget), before);
    world_close(&world);
    config_unref((struct config *)(uintptr_t)world.config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_set),
                                       cmocka_unit_test(test_rides),
                                       cmocka_unit_test(test_sign_meanwhile),
                                       cmocka_unit_test(test_doubt),
                                       cmocka_unit_test(test_ahead),
                                       cmocka_unit_test(test_day_ends_without_mail),
                                       cmocka_unit_test(test_sixty_days),
                                       cmocka_unit_test(test_smooth),
                                       cmocka_unit_test(test_top_of_hour),
                                       cmocka_unit_test(test_clock_over_midnight),
                                       cmocka_unit_test(test_crash_loses_a_chunk),
                                       cmocka_unit_test(test_end),
                                       cmocka_unit_test(test_damaged),
                                       cmocka_unit_test(test_store_fails),
                                       cmocka_unit_test(test_given_back),
                                       cmocka_unit_test(test_reload),
                                       cmocka_unit_test(test_reload_to_fewer_stages),
                                       cmocka_unit_test(test_orders),
                                       cmocka_unit_test(test_threads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

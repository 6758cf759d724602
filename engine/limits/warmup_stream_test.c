#include "limits/warmup_stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"

static const uint32_t steps[] = {100, 180, 320, 550, 1000, 1800};

static const struct config_warmup_policy policy = {.steps = steps,
                                                   .steps_len = ARRAY_LEN(steps),
                                                   .pace = 100,
                                                   .promote = true,
                                                   .advance_used = 90,
                                                   .hold = {50, 300, 10},
                                                   .fall = {1000, 1000, 30},
                                                   .fall_stages = 2,
                                                   .rewarm_days = 14};

static struct zone *zone_of(const char *name)
{
    struct zone *z;

    assert_int_equal(zone_load(str_of(name), &z), 0);
    return z;
}

static int64_t ms_of(const char *date, int hour, int minute)
{
    int32_t day;

    assert_int_equal(day_parse(str_of(date), &day), 0);
    return ((int64_t)day * DAY_SECONDS + hour * 3600 + minute * 60) * 1000;
}

/* --- sending days --- */

static void test_days(void **state)
{
    static const struct {
        const char *zone, *date; /* and hour, minute: UTC */
        int hour, minute;
        uint32_t day_hour, quiet;
        const char *day;
        int of_day, open, passed, hours;
        bool is_quiet;
    } cases[] = {
        {"UTC", "2026-06-01", 0, 0, 0, 0, "2026-06-01", 0, 24, 0, 24, false},
        {"UTC", "2026-06-01", 23, 59, 0, 0, "2026-06-01", 23, 24, 23, 24, false},
        {"UTC", "2026-06-01", 5, 59, 6, 0, "2026-05-31", 23, 24, 23, 24, false},
        {"UTC", "2026-06-01", 6, 0, 6, 0, "2026-06-01", 0, 24, 0, 24, false},
        {"Asia/Tokyo", "2026-06-01", 15, 0, 0, 0, "2026-06-02", 0, 24, 0, 24, false},
        /* 22 to 7 are quiet: the hours from 7 on count. */
        {"Asia/Tokyo", "2026-06-01", 0, 0, 0, 0xC0007F, "2026-06-01", 9, 15, 2, 24, false},
        {"Asia/Tokyo", "2026-06-01", 13, 30, 0, 0xC0007F, "2026-06-01", 22, 15, 15, 24, true},
        {"Asia/Kolkata", "2026-06-01", 18, 29, 0, 0, "2026-06-01", 23, 24, 23, 24, false},
        {"Asia/Kolkata", "2026-06-01", 18, 30, 0, 0, "2026-06-02", 0, 24, 0, 24, false},
        /* 23 and 25 hours. */
        {"Europe/Berlin", "2026-03-29", 12, 0, 0, 0, "2026-03-29", 13, 23, 13, 23, false},
        {"Europe/Berlin", "2026-10-25", 12, 0, 0, 0, "2026-10-25", 14, 25, 14, 25, false},
        {"Europe/Berlin", "2026-10-25", 22, 59, 0, 0, "2026-10-25", 24, 25, 24, 25, false},
        {"Europe/Berlin", "2026-10-25", 23, 0, 0, 0, "2026-10-26", 0, 24, 0, 24, false},
        /* A quiet hour that comes twice, and one that does not come. */
        {"Europe/Berlin", "2026-10-25", 12, 0, 0, 1 << 2, "2026-10-25", 14, 23, 12, 25, false},
        {"Europe/Berlin", "2026-03-29", 12, 0, 0, 1 << 2, "2026-03-29", 13, 23, 13, 23, false},
        /* The day begins in the hour that is left out. */
        {"Europe/Berlin", "2026-03-29", 1, 0, 2, 0, "2026-03-29", 0, 23, 0, 23, false},
        {"Australia/Lord_Howe", "2026-10-03", 20, 0, 0, 0, "2026-10-04", 6, 24, 6, 24, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct zone *z = zone_of(cases[i].zone);
        struct warmup_calendar c = {z, cases[i].day_hour, cases[i].quiet};
        int64_t at = ms_of(cases[i].date, cases[i].hour, cases[i].minute);
        char day[DAY_TEXT_BYTES];
        struct warmup_hour h;

        warmup_hour_at(&c, at, &h);
        if (strcmp(day_text(h.day, day), cases[i].day) != 0 || h.hour != cases[i].of_day ||
            h.open != cases[i].open || h.passed != cases[i].passed || h.quiet != cases[i].is_quiet)
            fail_msg("case %zu: %s, hour %d, open %d, passed %d", i, day, h.hour, h.open, h.passed);
        assert_true(h.begins_ms <= at && at < h.ends_ms);
        assert_int_equal((h.day_ends_ms - h.day_begins_ms + HOUR_MS - 1) / HOUR_MS, cases[i].hours);
        zone_free(z);
    }
}

/* Over two years: days follow one another without gap, hours too. */
static void test_days_follow(void **state)
{
    static const char *const zones[] = {
        "UTC",         "Asia/Tokyo", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
        "Pacific/Apia"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(zones); i++) {
        struct zone *z = zone_of(zones[i]);

        for (uint32_t day_hour = 0; day_hour < 24; day_hour += 5) {
            struct warmup_calendar c = {z, day_hour, 0};
            int64_t end = ms_of("2028-01-01", 0, 0);
            struct warmup_hour h, next;

            warmup_hour_at(&c, ms_of("2026-01-01", 0, 0), &h);
            while (h.ends_ms < end) {
                warmup_hour_at(&c, h.ends_ms, &next);
                assert_true(next.begins_ms == h.ends_ms);
                if (next.day == h.day) {
                    assert_int_equal(next.hour, h.hour + 1);
                } else {
                    assert_int_equal(next.day, h.day + 1);
                    assert_int_equal(next.hour, 0);
                    assert_true(h.ends_ms == h.day_ends_ms);
                }
                h = next;
            }
        }
        zone_free(z);
    }
}

/* --- what a day says of the next --- */

static struct warmup_hour hour_of(int32_t day, uint8_t hour)
{
    int64_t begins_ms = (int64_t)day * DAY_SECONDS * 1000;

    return (struct warmup_hour){.day = day,
                                .hour = hour,
                                .open = 24,
                                .passed = hour,
                                .begins_ms = begins_ms + hour * HOUR_MS,
                                .ends_ms = begins_ms + (hour + 1) * HOUR_MS,
                                .day_begins_ms = begins_ms,
                                .day_ends_ms = begins_ms + 24 * HOUR_MS};
}

struct day_case {
    uint32_t stage, used, delivered, deferred, bounced, complained;
    bool paused, no_promote;
    uint32_t want_stage;
    enum warmup_verdict want;
};

static const struct day_case day_cases[] = {
    {1, 180, 180, 0, 0, 0, false, false, 2, WARMUP_ADVANCED},
    {1, 162, 162, 0, 0, 0, false, false, 2, WARMUP_ADVANCED}, /* 90 % */
    {1, 161, 161, 0, 0, 0, false, false, 1, WARMUP_UNUSED},
    {1, 180, 0, 0, 0, 0, false, false, 1, WARMUP_UNUSED}, /* no answer: lost in a crash */
    {4, 1000, 996, 4, 0, 0, false, false, 5, WARMUP_ADVANCED},
    {4, 1000, 995, 5, 0, 0, false, false, 4, WARMUP_DEFERRED}, /* 0.5 % */
    {0, 100, 98, 2, 0, 0, false, false, 1, WARMUP_ADVANCED},   /* two are no sign */
    {0, 100, 97, 3, 0, 0, false, false, 0, WARMUP_DEFERRED},
    {4, 1000, 900, 100, 0, 0, false, false, 2, WARMUP_FELL},
    {1, 180, 100, 80, 0, 0, false, false, 0, WARMUP_FELL}, /* no stage before the first */
    {4, 1000, 970, 0, 30, 0, false, false, 4, WARMUP_BOUNCED},
    {4, 1000, 971, 0, 29, 0, false, false, 5, WARMUP_ADVANCED},
    {4, 1000, 900, 0, 100, 0, false, false, 2, WARMUP_FELL},
    {4, 1000, 1000, 0, 0, 1, false, false, 5, WARMUP_ADVANCED}, /* one is no sign */
    {4, 1000, 1000, 0, 0, 2, false, false, 4, WARMUP_COMPLAINED},
    {4, 1000, 1000, 0, 0, 3, false, false, 2, WARMUP_FELL},
    {4, 1000, 1000, 0, 0, 0, true, false, 4, WARMUP_PAUSED},
    {4, 1000, 1000, 0, 0, 0, false, true, 4, WARMUP_FROZEN},
    {4, 1000, 800, 200, 0, 0, true, true, 2, WARMUP_FELL}, /* down it goes all the same */
};

static void test_day_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(day_cases); i++) {
        const struct day_case *c = &day_cases[i];
        struct config_warmup_policy p = policy;
        struct warmup_hour day = hour_of(100, 0), next = hour_of(101, 0);
        struct warmup_state s;
        struct warmup_past past;

        p.promote = !c->no_promote;
        warmup_begin(&s, &p, &day);
        warmup_set_stage(&s, &p, c->stage, 100);
        s.paused = c->paused;
        s.used = c->used;
        s.events[WARMUP_EVENT_DELIVERED] = c->delivered;
        s.events[WARMUP_EVENT_DEFERRED] = c->deferred;
        s.events[WARMUP_EVENT_BOUNCED] = c->bounced;
        s.events[WARMUP_EVENT_COMPLAINED] = c->complained;
        assert_true(warmup_turn(&s, &p, &next, &past));
        if (s.stage != c->want_stage || s.verdict != c->want)
            fail_msg("case %zu: stage %u, %s", i, s.stage, warmup_verdict_name(s.verdict));
        assert_int_equal(past.day, 100);
        assert_int_equal(past.used, c->used);
        assert_int_equal(past.cap, steps[c->stage]);
        assert_int_equal(past.verdict, c->want);
        assert_int_equal(s.used, 0);
        assert_int_equal(s.events[WARMUP_EVENT_DEFERRED], 0);
        assert_int_equal(s.since, s.stage == c->stage ? 100 : 101);
        assert_false(warmup_turn(&s, &p, &next, &past)); /* once a day */
    }
}

/* Uses all of a day's cap. */
static void use_day(struct warmup_state *s, const struct config_warmup_policy *p, int32_t day)
{
    struct warmup_past past;

    for (uint8_t h = 0; h < 24; h++) {
        struct warmup_hour now = hour_of(day, h);
        uint32_t n, sum = 0;

        (void)warmup_turn(s, p, &now, &past);
        while ((n = warmup_lease(s, p, &now)) != 0 && n != WARMUP_NO_CAP)
            sum += n;
        s->events[WARMUP_EVENT_DELIVERED] += sum;
        if (n == WARMUP_NO_CAP)
            return;
    }
    assert_int_equal(s->used, warmup_cap(p, s));
}

static void test_to_the_end(void **state)
{
    struct warmup_hour first = hour_of(100, 0);
    struct warmup_state s;
    struct warmup_past past;

    (void)state;
    warmup_begin(&s, &policy, &first);
    for (int32_t day = 100; day < 106; day++) {
        struct warmup_hour now = hour_of(day, 0);

        (void)warmup_turn(&s, &policy, &now, &past);
        assert_false(s.warm);
        assert_int_equal(s.stage, day - 100);
        use_day(&s, &policy, day);
    }
    first = hour_of(106, 0);
    assert_true(warmup_turn(&s, &policy, &first, &past));
    assert_true(s.warm);
    assert_int_equal(warmup_cap(&policy, &s), WARMUP_NO_CAP);
    use_day(&s, &policy, 106);
    /* 13 days without mail are nothing, 14 are: from no cap to half of the stages. */
    first = hour_of(119, 0);
    assert_false(warmup_turn(&s, &policy, &first, &past));
    assert_true(s.warm);
    assert_int_equal(warmup_lease(&s, &policy, &first), WARMUP_NO_CAP);
    first = hour_of(133, 0);
    assert_true(warmup_turn(&s, &policy, &first, &past)); /* a day of its own says so */
    assert_true(past.used == 0 && past.verdict == WARMUP_REWARMED);
    assert_false(s.warm);
    assert_int_equal(s.stage, 3);
    assert_int_equal(s.verdict, WARMUP_REWARMED);
    use_day(&s, &policy, 133);
    first = hour_of(161, 0);
    (void)warmup_turn(&s, &policy, &first, &past);
    assert_int_equal(s.stage, 0);
}

static void test_calendar(void **state)
{
    struct config_warmup_policy p = policy;
    struct warmup_hour now = hour_of(103, 5);
    struct warmup_state s;
    struct warmup_past past;

    (void)state;
    p.calendar = true;
    p.from = 101;
    warmup_begin(&s, &p, &now);
    assert_int_equal(s.stage, 2);
    now = hour_of(105, 0); /* nothing was sent, and two days went by */
    (void)warmup_turn(&s, &p, &now, &past);
    assert_int_equal(s.stage, 4);
    s.paused = true;
    now = hour_of(106, 0);
    (void)warmup_turn(&s, &p, &now, &past);
    assert_int_equal(s.stage, 4);
    s.paused = false;
    now = hour_of(110, 0);
    (void)warmup_turn(&s, &p, &now, &past);
    assert_true(s.warm);
}

/* The calendar does not go on for who sends nothing: behind a long pause comes half of the stage in
 * which mail was sent, and from there a stage each day. */
static void test_calendar_pause(void **state)
{
    struct config_warmup_policy p = policy;
    struct warmup_hour now = hour_of(100, 0);
    struct warmup_state s, looked_at;
    struct warmup_past past;

    (void)state;
    p.calendar = true;
    warmup_begin(&s, &p, &now);
    now = hour_of(104, 0);
    (void)warmup_turn(&s, &p, &now, &past);
    assert_true(warmup_lease(&s, &p, &now) > 0);
    assert_int_equal(s.stage, 4);
    looked_at = s;
    for (int32_t day = 105; day < 118; day++) { /* in between, days end */
        now = hour_of(day, 0);
        (void)warmup_turn(&looked_at, &p, &now, &past);
    }
    assert_true(looked_at.warm);
    now = hour_of(118, 0);
    assert_true(warmup_turn(&s, &p, &now, &past));
    assert_true(past.used > 0 && past.verdict == WARMUP_REWARMED);
    assert_true(warmup_turn(&looked_at, &p, &now, &past));
    assert_true(past.used == 0 && past.verdict == WARMUP_REWARMED);
    assert_true(s.stage == 2 && looked_at.stage <= 2);
    assert_true(!s.warm && !looked_at.warm);
    assert_true(warmup_lease(&s, &p, &now) > 0);
    now = hour_of(119, 0);
    (void)warmup_turn(&s, &p, &now, &past);
    assert_true(s.stage == 3 && s.verdict == WARMUP_CALENDAR);
    p.rewarm_days = 0;
    now = hour_of(190, 0);
    (void)warmup_turn(&s, &p, &now, &past);
    assert_true(s.warm);
}

static void test_from(void **state)
{
    struct config_warmup_policy p = policy;
    struct warmup_hour now = hour_of(100, 12);
    struct warmup_state s;
    struct warmup_past past;

    (void)state;
    p.from = 102;
    warmup_begin(&s, &p, &now);
    assert_int_equal(warmup_lease(&s, &p, &now), 0);
    now = hour_of(102, 0);
    assert_false(warmup_turn(&s, &p, &now, &past));
    assert_true(warmup_lease(&s, &p, &now) > 0);
    /* The days before are no pause, and by the calendar no stages. */
    for (int calendar = 0; calendar < 2; calendar++) {
        p.from = 140;
        p.calendar = calendar == 1;
        now = hour_of(100, 12);
        warmup_begin(&s, &p, &now);
        now = hour_of(140, 0);
        assert_false(warmup_turn(&s, &p, &now, &past));
        assert_int_equal(s.stage, 0);
        assert_true(warmup_lease(&s, &p, &now) > 0);
    }
}

/* The schedule changes: the stage that fits goes on, and no cap grows. */
static void test_refit(void **state)
{
    static const uint32_t other[] = {50, 100, 300, 400, 2000, 4000};
    struct config_warmup_policy p = policy;
    struct warmup_hour now = hour_of(100, 0);
    struct warmup_past past;

    (void)state;
    for (uint32_t stage = 0; stage < ARRAY_LEN(steps); stage++) {
        struct warmup_state s;

        p = policy;
        warmup_begin(&s, &p, &now);
        warmup_set_stage(&s, &p, stage, 100);
        p.steps = other;
        for (p.steps_len = 1; p.steps_len <= ARRAY_LEN(other); p.steps_len++) {
            struct warmup_state t = s;

            (void)warmup_turn(&t, &p, &now, &past);
            assert_false(t.warm);
            assert_true(t.stage < p.steps_len);
            assert_true(other[t.stage] <= steps[stage]);
            assert_true(t.stage + 1 == p.steps_len || other[t.stage + 1] > steps[stage]);
        }
    }
}

/* --- within a day --- */

/* Mail that is there from some hour on: no hour gets more than twice an even part, no day more than
 * its cap, and a whole day uses it up, in hours that differ by one at most. */
static void test_shares(void **state)
{
    struct rng rng;

    (void)state;
    rng_seed(&rng, 7);
    for (int n = 0; n < 3000; n++) {
        uint32_t cap = 1 + (uint32_t)rng_below(&rng, n % 2 == 0 ? 300 : 3000000);
        struct config_warmup_policy p = policy;
        uint8_t first = n % 3 == 0 ? 0 : (uint8_t)rng_below(&rng, 24);
        uint32_t low = UINT32_MAX, high = 0;
        struct warmup_hour now = hour_of(50, 0);
        struct warmup_state s;
        struct warmup_past past;

        p.steps = &cap;
        p.steps_len = 1;
        warmup_begin(&s, &p, &now);
        for (uint8_t h = first; h < 24; h++) {
            uint32_t share, got = 0, chunk;

            now = hour_of(50, h);
            (void)warmup_turn(&s, &p, &now, &past);
            share = warmup_share(&s, &p, &now);
            while ((chunk = warmup_lease(&s, &p, &now)) != 0) {
                got += chunk;
                assert_true(chunk < 150 || chunk <= share / 360 + 1);
                assert_true(chunk <= cap / 25 + 2);                  /* what a crash may lose */
                assert_int_equal(warmup_share(&s, &p, &now), share); /* the same all hour */
            }
            assert_int_equal(got, share);
            assert_true(got <= (2 * (uint64_t)cap + 23) / 24);
            low = got < low ? got : low;
            high = got > high ? got : high;
        }
        assert_true(s.used <= cap);
        if (first == 0) {
            assert_int_equal(s.used, cap);
            assert_true(high - low <= 1);
        } else if (first <= 12) {
            assert_int_equal(s.used, cap);
        }
    }
}

/* One write of the store in 100 recipients, but for small caps: 50 a day, and those that begin each
 * hour. */
static void test_writes(void **state)
{
    static const uint32_t caps[] = {10, 200, 1000, 5000, 20000, 500000, 5000000};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
        struct config_warmup_policy p = policy;
        struct warmup_hour now = hour_of(50, 0);
        struct warmup_state s;
        struct warmup_past past;
        uint32_t writes = 0;

        p.steps = &caps[i];
        p.steps_len = 1;
        warmup_begin(&s, &p, &now);
        for (uint8_t h = 0; h < 24; h++) {
            now = hour_of(50, h);
            (void)warmup_turn(&s, &p, &now, &past);
            while (warmup_lease(&s, &p, &now) != 0)
                writes++;
        }
        assert_true(writes <= (caps[i] >= 5000 ? caps[i] / 100 : 50 + 24));
    }
}

static void test_clock_set_back(void **state)
{
    struct warmup_hour now = hour_of(100, 10), earlier;
    struct warmup_state s;
    struct warmup_past past;

    (void)state;
    warmup_begin(&s, &policy, &now);
    assert_true(warmup_lease(&s, &policy, &now) > 0);
    /* An hour, and a day: nothing until it has come to where it was. */
    earlier = hour_of(100, 9);
    assert_false(warmup_turn(&s, &policy, &earlier, &past));
    assert_int_equal(warmup_lease(&s, &policy, &earlier), 0);
    earlier = hour_of(99, 23);
    assert_false(warmup_turn(&s, &policy, &earlier, &past));
    assert_int_equal(warmup_lease(&s, &policy, &earlier), 0);
    assert_false(warmup_turn(&s, &policy, &now, &past));
    assert_true(warmup_lease(&s, &policy, &now) > 0);
    /* Further: the present day has no more, the next one has. */
    earlier = hour_of(90, 3);
    assert_false(warmup_turn(&s, &policy, &earlier, &past));
    for (uint8_t h = 3; h < 24; h++) {
        earlier = hour_of(90, h);
        (void)warmup_turn(&s, &policy, &earlier, &past);
        assert_int_equal(warmup_lease(&s, &policy, &earlier), 0);
    }
    earlier = hour_of(91, 0);
    (void)warmup_turn(&s, &policy, &earlier, &past);
    assert_int_equal(s.stage, 0);
    assert_int_equal(s.verdict, WARMUP_UNUSED);
    assert_true(warmup_lease(&s, &policy, &earlier) > 0);
}

/* --- records --- */

static void test_records(void **state)
{
    struct warmup_state s = {.stage = 3,
                             .step = 550,
                             .paused = true,
                             .verdict = WARMUP_DEFERRED,
                             .hour = 17,
                             .day = 20600,
                             .since = 20598,
                             .mail = 20600,
                             .used = 321,
                             .hour_used = 21,
                             .events = {300, 4, 2, 1},
                             .sequence = 70000},
                        read = {0};
    struct warmup_past past = {.day = 20599,
                               .stage = 2,
                               .cap = 320,
                               .used = 319,
                               .events = {310, 5, 3, 1},
                               .verdict = WARMUP_ADVANCED},
                       past_read = {0};
    struct buf b = {0}, again = {0}; /* structs have padding: what they encode to is compared */

    (void)state;
    warmup_state_encode(&s, &b);
    assert_int_equal(warmup_state_decode(buf_str(&b), &read), 0);
    warmup_state_encode(&read, &again);
    assert_true(str_eq(buf_str(&again), buf_str(&b)));
    assert_memory_equal(read.events, s.events, sizeof(s.events));
    for (size_t n = 0; n < b.len - 4; n++)
        assert_int_equal(warmup_state_decode((struct str){(char *)b.data, n}, &read), -EBADMSG);
    assert_int_equal(warmup_state_decode((struct str){(char *)b.data, b.len - 4}, &read), 0);
    assert_int_equal(read.sequence, 0); /* older builds had none */
    assert_int_equal(read.used, s.used);
    buf_putc(&b, 7); /* a later build knows more */
    assert_int_equal(warmup_state_decode(buf_str(&b), &read), 0);
    b.data[0] = 2;
    assert_int_equal(warmup_state_decode(buf_str(&b), &read), -EPROTO);
    buf_clear(&b);
    warmup_past_encode(&past, &b);
    assert_int_equal(warmup_past_decode(buf_str(&b), &past_read), 0);
    buf_clear(&again);
    warmup_past_encode(&past_read, &again);
    assert_true(str_eq(buf_str(&again), buf_str(&b)));
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(warmup_past_decode((struct str){(char *)b.data, n}, &past_read), -EBADMSG);
    buf_putc(&b, 7);
    assert_int_equal(warmup_past_decode(buf_str(&b), &past_read), 0);
    b.data[0] = 9;
    assert_int_equal(warmup_past_decode(buf_str(&b), &past_read), -EPROTO);
    buf_done(&b);
    buf_done(&again);
}

/* Whatever a record says, nothing that follows from it trips. */
static void test_any_state(void **state)
{
    struct rng rng;

    (void)state;
    rng_seed(&rng, 9);
    for (int n = 0; n < 20000; n++) {
        char bytes[48];
        struct warmup_hour now = hour_of(20000 + (int32_t)rng_below(&rng, 1000), 5);
        struct warmup_state s;
        struct warmup_past past;

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (char)rng_next(&rng);
        bytes[0] = 1;
        bytes[2] = (char)rng_below(&rng, WARMUP_VERDICTS);
        for (int day = 0; day < 3; day++) /* days that may be */
            bytes[14 + day * 4] = bytes[15 + day * 4] = 0;
        if (warmup_state_decode((struct str){bytes, sizeof(bytes)}, &s) != 0)
            continue;
        (void)warmup_turn(&s, &policy, &now, &past);
        (void)warmup_lease(&s, &policy, &now);
        warmup_unlease(&s, (uint32_t)rng_next(&rng));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_days),           cmocka_unit_test(test_days_follow),
        cmocka_unit_test(test_day_ends),       cmocka_unit_test(test_to_the_end),
        cmocka_unit_test(test_calendar),       cmocka_unit_test(test_calendar_pause),
        cmocka_unit_test(test_from),           cmocka_unit_test(test_refit),
        cmocka_unit_test(test_shares),         cmocka_unit_test(test_writes),
        cmocka_unit_test(test_clock_set_back), cmocka_unit_test(test_records),
        cmocka_unit_test(test_any_state)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

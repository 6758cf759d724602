#include "tests/sim/warmth.h"

#include <stdlib.h>
#include <string.h>

#include "config/config_load.h"
#include "tests/sim/node.h"
#include "tests/sim/sim.h"
#include "tools/commands/warmup_plan.h"

#define DAYS_MAX     10
#define HOURS_MAX    25
#define KILLS        4
#define KILLS_S      (2 * 86400) /* within so long */
#define LIST         (WARMTH_MESSAGES * WARMTH_RCPTS)
#define RCPTS_MAX    100 /* of a transaction: may be on the way when an hour ends */
#define QUIET_HOURS  0x80001F
#define OPEN_HOURS   18
#define ON_THE_WAY_S 60 /* of what was begun before a quiet hour */

static const uint32_t steps[] = {7000, 13000, 24000, 40000};
static const uint32_t percents[WARMTH_PROVIDERS] = {40, 35, 25};
/* 00:30 in Berlin, a day before clocks change. */
static const struct {
    const char *date;
    int64_t ahead_s;
} starts[] = {{"2026-10-24", 7200}, {"2027-03-27", 3600}};

struct day {
    uint32_t taken[WARMTH_SOURCES][WARMTH_PROVIDERS];
    uint32_t hour[WARMTH_SOURCES][WARMTH_PROVIDERS][HOURS_MAX];
    uint32_t kills;
};

static struct {
    struct warmup_calendar calendar;
    int32_t first;
    struct day days[DAYS_MAX];
    uint32_t last; /* day with mail */
} book;

/* --- the world --- */

void warmth_clock(void)
{
    size_t at = sim_draw(2);
    int64_t begins_s;

    ASSERT(day_parse(str_of(starts[at].date), &book.first) == 0);
    begins_s = (int64_t)book.first * DAY_SECONDS - starts[at].ahead_s + 1800;
    sim_wall_set(begins_s * 1000 - sim_wall_ms());
    ASSERT(zone_load(STR("Europe/Berlin"), (struct zone **)(void *)&book.calendar.zone) == 0);
    book.calendar.quiet_hours = QUIET_HOURS;
}

void warmth_config(struct buf *out)
{
    buf_puts(out, "sources:\n");
    for (int i = 0; i < WARMTH_SOURCES; i++)
        buf_printf(out, "  a%d: {ipv4: 10.9.0.%d}\n", i, i + 1);
    buf_puts(out, "pools:\n  all:\n    sources:\n");
    for (int i = 0; i < WARMTH_SOURCES; i++)
        buf_printf(out, "      a%d: {weight: 1}\n", i);
    buf_puts(out, "default_pool: all\nproviders:\n");
    for (int i = 0; i < WARMTH_PROVIDERS; i++)
        buf_printf(out, "  p%d: {mx: [s%d.test]}\n", i, i);
    buf_puts(out, "warmup:\n  time_zone: Europe/Berlin\n  quiet_hours: \"23-5\"\n"
                  "  schedules:\n    mine: {steps: [");
    for (size_t i = 0; i < ARRAY_LEN(steps); i++)
        buf_printf(out, "%s%u", i == 0 ? "" : ", ", steps[i]);
    buf_puts(out, "]}\n  sources:\n");
    for (int i = 0; i < WARMTH_SOURCES; i++)
        buf_printf(out, "    a%d: {schedule: mine}\n", i);
}

void warmth_begin(void)
{
    for (int i = 0; i < KILLS; i++)
        node_kill_within(KILLS_S * SIM_S);
}

uint32_t warmth_provider(uint32_t number)
{
    uint32_t of_100 = number % 100, provider = 0;

    while (of_100 >= percents[provider])
        of_100 -= percents[provider++];
    return provider;
}

/* --- the book --- */

static struct day *day_now(struct warmup_hour *hour)
{
    warmup_hour_at(&book.calendar, sim_wall_ms(), hour);
    ASSERT(hour->day >= book.first && hour->hour < HOURS_MAX);
    if (hour->day >= book.first + DAYS_MAX)
        sim_fail("forecast", "the list takes more than %d days", DAYS_MAX);
    return &book.days[hour->day - book.first];
}

void warmth_killed(void)
{
    struct warmup_hour hour;

    day_now(&hour)->kills++;
}

void warmth_taken(uint32_t source, uint32_t provider, uint32_t rcpts)
{
    struct warmup_hour hour;
    struct day *d = day_now(&hour);

    if (hour.quiet && sim_wall_ms() > hour.begins_ms + ON_THE_WAY_S * 1000)
        sim_fail("warm-up", "source %u sends to provider %u in a quiet hour", source, provider);
    d->taken[source][provider] += rcpts;
    d->hour[source][provider][hour.hour] += rcpts;
    book.last = (uint32_t)(hour.day - book.first);
}

/* --- the caps --- */

/* The most that a stream had leased, and not sent, when it died: a chunk, half as large again where
 * an hour is divided evenly, and what was on its way. */
static uint32_t lost_max(uint32_t cap)
{
    uint32_t chunk = (cap + 49) / 50 < 100 ? (cap + 49) / 50 : 100;

    return chunk + chunk / 2 + RCPTS_MAX;
}

static void check_hours(const struct day *d, uint32_t s, uint32_t p, uint32_t cap)
{
    for (int h = 0; h < HOURS_MAX; h++)
        if (d->hour[s][p][h] > (2 * cap + OPEN_HOURS - 1) / OPEN_HOURS + RCPTS_MAX)
            sim_fail("warm-up", "source %u sent %u to provider %u in hour %d of a day with %u", s,
                     d->hour[s][p][h], p, h, cap);
}

/* Day by day, as the rules have it where all answers are good. */
static void check_stream(uint32_t s, uint32_t p)
{
    uint32_t stage = 0, left[DAYS_MAX], all = LIST / 100 * percents[p];

    for (uint32_t i = 0; i < DAYS_MAX; i++) {
        for (uint32_t other = 0; other < WARMTH_SOURCES; other++)
            all -= book.days[i].taken[other][p] < all ? book.days[i].taken[other][p] : all;
        left[i] = all; /* duplicates behind kills are few, and the last day takes what they are */
    }
    for (uint32_t i = 0; i <= book.last; i++) {
        const struct day *d = &book.days[i];
        uint32_t cap = steps[stage], taken = d->taken[s][p];
        bool has_mail = left[i] > RCPTS_MAX * WARMTH_SOURCES;

        if (taken > cap)
            sim_fail("warm-up", "day %u: source %u sent %u of %u to provider %u", i, s, taken, cap,
                     p);
        if (i > 0 && taken > 2 * book.days[i - 1].taken[s][p])
            sim_fail("warm-up", "day %u: source %u sent %u to provider %u, %u before", i, s, taken,
                     p, book.days[i - 1].taken[s][p]);
        if (has_mail && taken + d->kills * lost_max(cap) < cap)
            sim_fail("warm-up", "day %u: source %u sent %u of %u to provider %u, with %u kills", i,
                     s, taken, cap, p, d->kills);
        check_hours(d, s, p, cap);
        stage += has_mail;
    }
}

/* --- the forecast --- */

struct forecast {
    uint32_t days;
    struct plan_day day[DAYS_MAX];
};

static bool foresee(void *arg, const struct plan_day *day)
{
    struct forecast *f = arg;

    if (f->days == DAYS_MAX)
        return false;
    f->day[f->days++] = *day;
    return true;
}

static void check_forecast(const struct config *c)
{
    struct plan plan = {.config = c, .today = book.first, .list = LIST};
    struct forecast f = {0};
    struct buf mix = {0}, why = {0};

    for (int p = 0; p < WARMTH_PROVIDERS; p++)
        buf_printf(&mix, "%sp%d=%u", p == 0 ? "" : ",", p, percents[p]);
    if (plan_mix_parse(&plan, buf_str(&mix), &why) < 0)
        sim_fail("forecast", "%.*s", STR_FMT(buf_str(&why)));
    ASSERT(plan_run(&plan, foresee, &f) == 0);
    buf_done(&mix);
    if (f.days != book.last + 1)
        sim_fail("forecast", "%u days were foreseen, and it took %u", f.days, book.last + 1);
    for (uint32_t i = 0; i < f.days; i++) {
        uint64_t taken = 0, lost;

        for (int s = 0; s < WARMTH_SOURCES; s++)
            for (int p = 0; p < WARMTH_PROVIDERS; p++)
                taken += book.days[i].taken[s][p];
        sim_trace("day %u: %llu foreseen, %llu taken, %u kills", i + 1,
                  (unsigned long long)f.day[i].sent, (unsigned long long)taken, book.days[i].kills);
        lost = book.days[i].kills * WARMTH_SOURCES * WARMTH_PROVIDERS * lost_max(UINT32_MAX - 49);
        /* On the last day comes what kills left of those before. */
        if (i + 1 < f.days &&
            (taken > f.day[i].sent * 101 / 100 || (taken + lost) * 100 < f.day[i].sent * 99))
            sim_fail("forecast", "day %u: %llu were foreseen, and %llu went", i + 1,
                     (unsigned long long)f.day[i].sent, (unsigned long long)taken);
    }
}

void warmth_check(void)
{
    struct buf text = {0}, errors = {0};
    struct config *c = NULL;

    warmth_config(&text);
    if (config_load_text("warmth.yaml", buf_str(&text), &c, &errors) < 0)
        sim_fail("forecast", "%.*s", STR_FMT(buf_str(&errors)));
    for (uint32_t s = 0; s < WARMTH_SOURCES; s++)
        for (uint32_t p = 0; p < WARMTH_PROVIDERS; p++)
            check_stream(s, p);
    check_forecast(c);
    config_unref(c);
    buf_done(&text);
    zone_free((struct zone *)(uintptr_t)book.calendar.zone);
}

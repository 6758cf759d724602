#include "tests/sim/season.h"

#include <stdlib.h>
#include <string.h>

#include "config/config_load.h"
#include "tests/sim/node.h"
#include "tests/sim/sim.h"
#include "tests/sim/world.h"

#define DAYS_MAX     80 /* what is left over goes behind the last */
#define HOURS_MAX    25
#define KILLS        3 /* one in so many days */
#define DAY_HOUR     3
#define QUIET_HOURS  0x80001F /* 23 to 5 */
#define LOOK_NS      (600 * SIM_S)
#define LETTER_RCPTS 20
#define BRISK_RCPTS  3
#define BRISK_EVERY  5 /* looks */
#define BRISK_NS     (900 * SIM_S)
#define ON_THE_WAY_S 10
#define PAUSE_NS     (600 * SIM_S) /* Google's */
#define HEARD_NS     (3 * SIM_S)
#define REWARM_DAYS  14
#define REST_HOURS   3

/* The one that freezes everybody; the one that gets no mail for a while. */
#define FROZEN         5
#define DESERTED       4
#define DESERTED_FROM  25
#define DESERTED_UNTIL 42
/* The operator keeps a source in its stages for some days. */
#define PAUSED       1
#define PAUSED_FROM  12
#define PAUSED_UNTIL 16
#define CALENDAR     2

static const struct {
    const char *name; /* NULL: the default one */
    uint32_t pace, top_s;
} providers[SEASON_PROVIDERS] = {{"google", 100, 0},  {"microsoft", 50, 0}, {"docomo", 100, 120},
                                 {"partner", 100, 0}, {NULL, 100, 0},       {"apple", 100, 120}};

/* The days in Berlin on which clocks change; the season's middle. */
static const struct {
    const char *date;
    int64_t ahead_s; /* of UTC, before */
} changes[] = {{"2026-10-25", 7200}, {"2027-03-28", 3600}};

/* One answer in so many of a day. That is clear of the thresholds, so that what a kill forgets
 * decides nothing. */
enum mood { GOOD, DEFERS, BOUNCES, BAD, COMPLAINS, RATES, MOODS };
static const struct {
    uint32_t per_mille, one_in;
    enum season_answer answer;
} moods[MOODS] = {[GOOD] = {520, 0, SEASON_TAKES},      [DEFERS] = {120, 20, SEASON_DEFERS},
                  [BOUNCES] = {90, 16, SEASON_REFUSES}, [BAD] = {100, 3, SEASON_DEFERS},
                  [COMPLAINS] = {80, 0, SEASON_TAKES},  [RATES] = {90, 0, SEASON_TAKES}};
#define FEW 100 /* of a smaller cap some percent are no three: it has good and bad days only */
/* No provider takes more a day from a source: the next day is bad. Else a lucky source would have
 * most of the season's mail, and a seed several times that of another. */
#define MANY 1500

/* A source at a provider: the model's state, and the book of its present day. */
struct stream {
    const uint32_t *steps;
    uint32_t steps_len, stage;
    bool begun, warm, calendar, frozen, paused;
    int32_t day; /* the last with mail */
    enum mood mood;
    uint32_t events[4], hour[HOURS_MAX];
    uint32_t kills, rates;
    uint32_t asked; /* recipients that may be answered badly */
    bool lacked;    /* mail, or it was suspended late */
    uint64_t suspended_ns;
};

struct past {
    bool is;
    uint32_t stage, cap, used_min, used_max, events[4], lost, next_stage;
    const char *verdict;
};

static struct {
    struct config *config;
    struct warmup_calendar calendar;
    int32_t first;
    struct stream streams[SEASON_SOURCES][SEASON_PROVIDERS];
    struct past past[SEASON_SOURCES][SEASON_PROVIDERS][DAYS_MAX];
    uint32_t waiting[SEASON_PROVIDERS]; /* recipients in the queue, without brisk ones */
    uint32_t brisk_waiting, brisk_taken, overflown;
    uint64_t brisk_ns;                  /* when the oldest of the last brisk letter was sent */
    uint64_t bulk_ns[SEASON_PROVIDERS]; /* when one of the others was last answered */
    bool brisk_due;
    uint32_t looks, recorded, kills[DAYS_MAX];
    int32_t ordered; /* the last day of which orders were given */
    struct sim_event look;
} season;

uint32_t season_days = SEASON_DAYS_MAX;

/* --- days --- */

static void hour_now(struct warmup_hour *out)
{
    static struct warmup_hour hour;

    if (sim_wall_ms() < hour.begins_ms || sim_wall_ms() >= hour.ends_ms)
        warmup_hour_at(&season.calendar, sim_wall_ms(), &hour);
    *out = hour;
}

/* Of the season, from 0. */
static uint32_t day_of(int32_t day)
{
    ASSERT(day >= season.first && day < season.first + DAYS_MAX);
    return (uint32_t)(day - season.first);
}

static bool is_deserted(uint32_t provider, uint32_t day)
{
    return provider == DESERTED && day >= DESERTED_FROM && day < DESERTED_UNTIL;
}

/* A day on which too little comes for the caps of the provider. Not the first: a stream begins when
 * it has leave to send, whether it does or not, and then both are on one day. */
static bool is_dry(uint32_t provider, uint32_t day)
{
    return day >= season_days || is_deserted(provider, day) ||
           (day > 0 && (day + 5 * provider) % 13 == 7);
}

static uint32_t cap_of(const struct stream *s, uint32_t provider)
{
    return s->warm ? UINT32_MAX : s->steps[s->stage] * providers[provider].pace / 100;
}

/* What is leased at once, half as large again where an hour is divided evenly: what a kill loses,
 * or what may come at the end of an hour. */
static uint32_t lease_max(uint32_t cap)
{
    uint32_t chunk = (cap + 49) / 50 < 100 ? (cap + 49) / 50 : 100;

    return chunk + chunk / 2;
}

/* --- the model --- */

static bool is_sign(const struct stream *s, int event, uint32_t per_ten_thousand)
{
    uint64_t base = event == 3 ? s->events[0] : s->events[0] + s->events[1] + s->events[2];

    return s->events[event] >= (event == 3 ? 2 : 3) &&
           s->events[event] * UINT64_C(10000) >= base * per_ten_thousand;
}

static uint32_t attempts(const struct stream *s)
{
    return s->events[0] + s->events[1] + s->events[2];
}

static const char *judge(const struct stream *s, uint32_t cap)
{
    if (is_sign(s, 1, 1000) || is_sign(s, 2, 1000) || is_sign(s, 3, 30))
        return "fell";
    if (is_sign(s, 1, 50))
        return "deferred";
    if (is_sign(s, 2, 300))
        return "bounced";
    if (is_sign(s, 3, 10))
        return "complained";
    if (s->paused)
        return "paused";
    if (s->frozen)
        return "frozen";
    if (attempts(s) + s->kills * lease_max(cap) < (cap * 9 + 9) / 10)
        return "unused";
    return "advanced";
}

static void check_day(const struct stream *s, uint32_t source, uint32_t provider, uint32_t day,
                      uint32_t cap)
{
    uint32_t used = attempts(s), lost = s->kills * lease_max(cap);

    if (used > cap)
        sim_fail("warm-up", "day %u: source %u made %u of %u attempts at provider %u", day, source,
                 used, cap, provider);
    for (int i = 0;
         i < HOURS_MAX && day < season_days && !s->lacked && (used + lost) * 100 < cap * 97; i++)
        sim_trace("hour %d: %u", i, s->hour[i]);
    if (day < season_days && !s->lacked && (used + lost) * 100 < cap * 97)
        sim_fail("warm-up", "day %u: source %u made %u of %u attempts at provider %u, %u kills",
                 day, source, used, cap, provider, s->kills);
}

/* The day of s is over; the next one with mail is today. */
static void day_end(struct stream *s, uint32_t source, uint32_t provider, int32_t today)
{
    uint32_t day = day_of(s->day), cap = cap_of(s, provider), idle = (uint32_t)(today - s->day);
    struct past *p = &season.past[source][provider][day];
    int64_t stage = s->stage;

    check_day(s, source, provider, day, cap);
    *p = (struct past){.is = true, .stage = s->stage + 1, .cap = cap};
    p->lost = s->kills * lease_max(cap);
    p->used_min = attempts(s);
    p->used_max = attempts(s) + p->lost;
    memcpy(p->events, s->events, sizeof(p->events));
    if (s->calendar) {
        p->verdict = s->frozen ? "begun" : "calendar";
        stage += s->frozen ? 0 : 1;
    } else {
        p->verdict = judge(s, cap);
        if (strcmp(p->verdict, "advanced") == 0)
            stage++;
        else if (strcmp(p->verdict, "fell") == 0)
            stage = stage < 2 ? 0 : stage - 2;
    }
    p->next_stage = (uint32_t)stage + 1;
    /* What the days without mail change has a record of its own, which says that nothing came. */
    if (idle >= REWARM_DAYS)
        stage = idle >= 2 * REWARM_DAYS ? 0 : (s->calendar ? s->stage : stage) / 2;
    else if (s->calendar)
        stage += s->frozen ? 0 : idle - 1;
    if (stage >= s->steps_len)
        sim_fail("season", "source %u is warm at provider %u", source, provider);
    s->stage = (uint32_t)stage;
    sim_trace("day %u: source %u provider %u: %u of %u (%u/%u/%u/%u), %s, next stage %u", day,
              source, provider, p->used_min, cap, s->events[0], s->events[1], s->events[2],
              s->events[3], p->verdict, p->next_stage);
}

static void day_begin(struct stream *s, uint32_t provider, int32_t today)
{
    uint32_t luck = (uint32_t)sim_draw(1000);

    s->begun = true;
    s->day = today;
    memset(s->events, 0, sizeof(s->events));
    memset(s->hour, 0, sizeof(s->hour));
    s->kills = s->rates = s->asked = 0;
    s->lacked = is_dry(provider, day_of(today));
    s->suspended_ns = 0;
    s->mood = GOOD;
    while (luck >= moods[s->mood].per_mille)
        luck -= moods[s->mood++].per_mille;
    if ((s->mood == RATES && provider != 0) || (cap_of(s, provider) < FEW && s->mood != BAD))
        s->mood = GOOD;
    if (cap_of(s, provider) > MANY)
        s->mood = BAD;
}

/* The stream, on the day that it is. */
static struct stream *stream_now(uint32_t source, uint32_t provider, struct warmup_hour *hour)
{
    struct stream *s = &season.streams[source][provider];

    hour_now(hour);
    if (s->begun && s->day == hour->day)
        return s;
    if (s->begun)
        day_end(s, source, provider, hour->day);
    day_begin(s, provider, hour->day);
    return s;
}

/* --- answers --- */

static void check_time(const struct stream *s, uint32_t source, uint32_t provider,
                       const struct warmup_hour *hour)
{
    int64_t into_ms = sim_wall_ms() - hour->begins_ms;
    uint32_t cap = cap_of(s, provider), share = (2 * cap + hour->open - 1) / hour->open;

    if (hour->quiet && into_ms > ON_THE_WAY_S * 1000)
        sim_fail("warm-up", "source %u sends to provider %u in a quiet hour", source, provider);
    if (into_ms > ON_THE_WAY_S * 1000 && into_ms < providers[provider].top_s * 1000)
        sim_fail("warm-up", "source %u sends to provider %u at the top of the hour", source,
                 provider);
    if (s->hour[hour->hour] > share + lease_max(cap))
        sim_fail("warm-up", "source %u made %u attempts at provider %u in hour %d of a day with %u",
                 source, s->hour[hour->hour], provider, hour->hour, cap);
    if (s->suspended_ns != 0 && sim_now_ns() > s->suspended_ns + HEARD_NS &&
        sim_now_ns() < s->suspended_ns + PAUSE_NS)
        sim_fail("rate replies", "source %u sends to provider %u within its pause", source,
                 provider);
}

static void count(struct stream *s, uint32_t source, uint32_t provider,
                  const struct warmup_hour *hour, int event)
{
    s->events[event]++;
    s->hour[hour->hour]++;
    check_time(s, source, provider, hour);
}

static void final(const struct ledger_rcpt *r)
{
    uint32_t *waiting =
        r->message->tenant != 0 ? &season.brisk_waiting : &season.waiting[r->domain];

    if (r->taken == 0)
        *waiting -= *waiting > 0;
}

/* Some hours behind the last mail without an overflow every source has its share of the hour. */
static void check_overflow(const struct ledger_rcpt *r)
{
    struct warmup_hour hour;

    hour_now(&hour);
    if (r->message->tenant == 0)
        sim_fail("overflow", "%s goes by it, and its pool has none", r->key);
    if (!hour.quiet && hour.passed >= REST_HOURS && season.waiting[r->domain] == 0 &&
        sim_now_ns() - season.bulk_ns[r->domain] > REST_HOURS * 3600 * SIM_S &&
        sim_wall_ms() - hour.begins_ms > (providers[r->domain].top_s + ON_THE_WAY_S) * 1000)
        sim_fail("overflow", "%s goes by it, and sources at provider %u have room", r->key,
                 r->domain);
}

enum season_answer season_rcpt(uint32_t source, const struct ledger_rcpt *r)
{
    struct warmup_hour hour;
    struct stream *s;

    if (source >= SEASON_SOURCES) {
        check_overflow(r);
        season.overflown++;
        return SEASON_TAKES;
    }
    s = stream_now(source, r->domain, &hour);
    if (r->message->tenant != 0 || moods[s->mood].one_in == 0 ||
        s->asked++ % moods[s->mood].one_in != 0)
        return SEASON_TAKES;
    count(s, source, r->domain, &hour, moods[s->mood].answer == SEASON_DEFERS ? 1 : 2);
    if (moods[s->mood].answer == SEASON_REFUSES)
        final(r);
    return moods[s->mood].answer;
}

/* Twice on such a day, and not so late that the rest of the day could not make up for it. */
static bool rates(const struct stream *s, const struct warmup_hour *hour)
{
    return s->mood == RATES && s->rates < 2 && hour->passed >= 2 + 5 * s->rates &&
           hour->passed < 12;
}

const char *season_message(uint32_t source, uint32_t provider, struct ledger_rcpt *const rcpts[],
                           uint32_t len)
{
    struct warmup_hour hour;
    struct stream *s = source < SEASON_SOURCES ? stream_now(source, provider, &hour) : NULL;
    bool rate = s != NULL && rcpts[0]->message->tenant == 0 && rates(s, &hour);

    if (rcpts[0]->message->tenant == 0)
        season.bulk_ns[provider] = sim_now_ns();
    for (uint32_t i = 0; i < len; i++) {
        if (s != NULL)
            count(s, source, provider, &hour, rate ? 1 : 0);
        season.brisk_taken += rcpts[i]->message->tenant != 0;
        if (!rate)
            final(rcpts[i]);
    }
    if (!rate)
        return NULL;
    s->rates++;
    s->suspended_ns = sim_now_ns();
    return "421 4.7.28 Gmail has detected an unusual rate of unsolicited email originating from "
           "your IP address";
}

/* --- mail --- */

/* As much as the caps of a provider take in two hours. */
static uint32_t wanted(uint32_t provider)
{
    uint64_t caps = 0;

    for (uint32_t i = 0; i < SEASON_SOURCES; i++)
        caps += cap_of(&season.streams[i][provider], provider);
    return (uint32_t)(caps / 6) + 5 * LETTER_RCPTS;
}

bool season_next(struct season_letter *out)
{
    struct warmup_hour hour;
    uint32_t day;

    hour_now(&hour);
    day = day_of(hour.day);
    if (season.brisk_due && day < season_days) {
        season.brisk_due = false;
        *out = (struct season_letter){
            .provider = (uint32_t)sim_draw(SEASON_PROVIDERS), .rcpts = BRISK_RCPTS, .brisk = true};
        if (is_deserted(out->provider, day))
            out->provider = 0;
        season.brisk_ns = sim_now_ns();
        season.brisk_waiting += BRISK_RCPTS;
        return true;
    }
    for (uint32_t i = 0; i < SEASON_PROVIDERS; i++) {
        if (is_dry(i, day) || season.waiting[i] >= wanted(i))
            continue;
        *out = (struct season_letter){.provider = i, .rcpts = LETTER_RCPTS};
        season.waiting[i] += LETTER_RCPTS;
        return true;
    }
    return false;
}

void season_accepted(const struct ledger_rcpt *r, bool accepted)
{
    if (!accepted)
        final(r);
}

/* --- what happens --- */

static void order(unsigned kind, uint32_t source, uint32_t provider, uint32_t number)
{
    struct warmup_order o = {.number = number};

    o.kind = kind;
    snprintf(o.source, sizeof(o.source), "a%u", source);
    if (provider < SEASON_PROVIDERS)
        snprintf(o.provider, sizeof(o.provider), "%s",
                 providers[provider].name == NULL ? "default" : providers[provider].name);
    node_order(&o);
}

/* At noon. A percent of a small cap complains, which is bad; of a large one 0.2 %. */
static void orders(uint32_t day)
{
    for (uint32_t i = 0; i < SEASON_SOURCES; i++)
        for (uint32_t j = 0; j < SEASON_PROVIDERS; j++) {
            struct stream *s = &season.streams[i][j];

            if (s->mood != COMPLAINS || s->day != season.first + (int32_t)day)
                continue;
            s->events[3] = cap_of(s, j) < 1000 ? 2 + cap_of(s, j) / 100 : cap_of(s, j) / 500;
            order(WARMUP_COMPLAINTS, i, j, s->events[3]);
        }
    if (day != PAUSED_FROM && day != PAUSED_UNTIL)
        return;
    order(day == PAUSED_FROM ? WARMUP_PAUSE : WARMUP_RESUME, PAUSED, SEASON_PROVIDERS, 0);
    for (uint32_t j = 0; j < SEASON_PROVIDERS; j++)
        season.streams[PAUSED][j].paused = day == PAUSED_FROM;
}

static void on_look(struct sim_event *event)
{
    struct warmup_hour hour;

    hour_now(&hour);
    sim_in(event, LOOK_NS);
    for (uint32_t i = 0; i < SEASON_PROVIDERS; i++)
        for (uint32_t j = 0; season.waiting[i] < LETTER_RCPTS && j < SEASON_SOURCES; j++)
            season.streams[j][i].lacked = true;
    if (season.brisk_waiting > 0 && sim_now_ns() > season.brisk_ns + BRISK_NS)
        sim_fail("overflow", "%u recipients wait, and their pool has one", season.brisk_waiting);
    season.brisk_due = ++season.looks % BRISK_EVERY == 0;
    if (hour.passed >= 7 && hour.day > season.ordered && node_runs()) {
        season.ordered = hour.day;
        orders(day_of(hour.day));
    }
    if (day_of(hour.day) >= season_days)
        world.messages = 0;
}

void season_killed(void)
{
    struct warmup_hour hour;

    hour_now(&hour);
    season.kills[day_of(hour.day)]++;
    for (uint32_t i = 0; i < SEASON_SOURCES; i++)
        for (uint32_t j = 0; j < SEASON_PROVIDERS; j++)
            season.streams[i][j].kills++;
}

/* --- the world --- */

void season_clock(void)
{
    size_t at = sim_draw(2);
    int64_t begins_s;

    ASSERT(day_parse(str_of(changes[at].date), &season.first) == 0);
    season.first -= (int32_t)season_days / 2;
    begins_s = (int64_t)season.first * DAY_SECONDS - changes[at].ahead_s + DAY_HOUR * 3600 + 1800;
    sim_wall_set(begins_s * 1000 - sim_wall_ms());
    ASSERT(zone_load(STR("Europe/Berlin"), (struct zone **)(void *)&season.calendar.zone) == 0);
    season.calendar.day_hour = DAY_HOUR;
    season.calendar.quiet_hours = QUIET_HOURS;
}

static void put_steps(struct buf *out, const char *name, double from, double by)
{
    buf_printf(out, "    %s: {steps: [", name);
    for (int i = 0; i < DAYS_MAX; i++, from *= by)
        buf_printf(out, "%s%u", i == 0 ? "" : ", ", (uint32_t)from);
    buf_puts(out, "]}\n");
}

void season_config(struct buf *out)
{
    buf_puts(out, "sources:\n");
    for (int i = 0; i <= SEASON_SOURCES; i++)
        buf_printf(out, "  a%d: {ipv4: 10.9.0.%d}\n", i, i + 1);
    buf_puts(out, "pools:\n"
                  "  bulk: {sources: {a0: {}, a1: {}, a2: {}, a3: {}}}\n"
                  "  brisk: {sources: {a0: {}, a1: {}, a2: {}, a3: {}}, overflow: spare}\n"
                  "  spare: {sources: {a4: {}}}\n"
                  "default_pool: bulk\n"
                  "tenants: {t1: {pool: brisk}}\n"
                  "providers:\n");
    for (int i = 0; i < SEASON_PROVIDERS; i++)
        if (providers[i].name != NULL)
            buf_printf(out, "  %s: {mx: [s%d.test]}\n", providers[i].name, i);
    buf_puts(out, "warmup:\n  time_zone: Europe/Berlin\n  day_hour: 3\n  quiet_hours: \"23-5\"\n"
                  "  schedules:\n");
    put_steps(out, "steady", 60, 1.04);
    put_steps(out, "ours", 110, 1.07);
    buf_printf(out,
               "  providers: {%s: {promote: no}}\n"
               "  sources:\n"
               "    a0: {schedule: cautious}\n"
               "    a1: {schedule: ours}\n"
               "    a%u: {schedule: steady, mode: calendar}\n"
               "    a3: {schedule: ours}\n",
               providers[FROZEN].name, CALENDAR);
}

static void stream_init(uint32_t source, uint32_t provider)
{
    struct stream *s = &season.streams[source][provider];
    struct config_warmup_policy policy;
    char name[8];

    snprintf(name, sizeof(name), "a%u", source);
    ASSERT(config_warmup_policy(
        season.config, name,
        providers[provider].name == NULL ? "default" : providers[provider].name, &policy));
    s->steps = policy.steps;
    s->steps_len = (uint32_t)policy.steps_len;
    s->calendar = source == CALENDAR;
    s->frozen = provider == FROZEN;
}

void season_begin(void)
{
    struct buf text = {0}, errors = {0};

    season_config(&text);
    if (config_load_text("season.yaml", buf_str(&text), &season.config, &errors) < 0)
        sim_fail("season", "%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&text);
    for (uint32_t i = 0; i < SEASON_SOURCES; i++)
        for (uint32_t j = 0; j < SEASON_PROVIDERS; j++)
            stream_init(i, j);
    for (uint32_t i = 0; i < season_days / KILLS; i++)
        node_kill_within(season_days * UINT64_C(86400) * SIM_S);
    season.look.run = on_look;
    sim_in(&season.look, LOOK_NS);
}

/* --- the records --- */

static uint32_t number_of(const json_t *record, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(record, key));
}

static uint32_t provider_of(const char *name)
{
    for (uint32_t i = 0; i < SEASON_PROVIDERS; i++)
        if (strcmp(name, providers[i].name == NULL ? "default" : providers[i].name) == 0)
            return i;
    sim_fail("season", "a record of provider %s", name);
}

/* Days end at their end, also those behind which nothing more came. */
static void days_end(void)
{
    struct warmup_hour hour;

    hour_now(&hour);
    for (uint32_t i = 0; i < SEASON_SOURCES; i++)
        for (uint32_t j = 0; j < SEASON_PROVIDERS; j++)
            if (season.streams[i][j].begun && season.streams[i][j].day < hour.day)
                (void)stream_now(i, j, &hour);
}

void season_record(const json_t *record)
{
    static const char *const events[] = {"delivered", "deferred", "bounced", "complained"};
    uint32_t source =
        (uint32_t)atoi(json_string_value(json_object_get(record, "egress_source")) + 1);
    uint32_t provider = provider_of(json_string_value(json_object_get(record, "provider")));
    const char *date = json_string_value(json_object_get(record, "day"));
    const char *verdict = json_string_value(json_object_get(record, "verdict"));
    uint32_t used = number_of(record, "used");
    struct past *p;
    int32_t day;

    ASSERT(source < SEASON_SOURCES && day_parse(str_of(date), &day) == 0);
    days_end();
    p = &season.past[source][provider][day_of(day)];
    if (!p->is && used <= season.kills[day_of(day)] * lease_max(number_of(record, "cap")))
        return; /* leased, and lost before anything was sent */
    if (!p->is)
        sim_fail("season", "%s: a record of a%u at provider %u, which sent nothing", date, source,
                 provider);
    p->is = false;
    season.recorded++;
    if (number_of(record, "stage") != p->stage || number_of(record, "cap") != p->cap ||
        strcmp(verdict, p->verdict) != 0 || number_of(record, "next_stage") != p->next_stage)
        sim_fail("season",
                 "%s: a%u at provider %u: stage %u, cap %u, %s, then %u; should be stage "
                 "%u, cap %u, %s, then %u",
                 date, source, provider, number_of(record, "stage"), number_of(record, "cap"),
                 verdict, number_of(record, "next_stage"), p->stage, p->cap, p->verdict,
                 p->next_stage);
    if (used < p->used_min || used > p->used_max)
        sim_fail("season", "%s: a%u at provider %u: %u used, %u to %u came", date, source, provider,
                 used, p->used_min, p->used_max);
    for (int i = 0; i < 4; i++)
        if (number_of(record, events[i]) > p->events[i] ||
            number_of(record, events[i]) + p->lost < p->events[i])
            sim_fail("season", "%s: a%u at provider %u: %u %s, and %u were", date, source, provider,
                     number_of(record, events[i]), events[i], p->events[i]);
}

void season_check(void)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < SEASON_SOURCES; i++)
        for (uint32_t j = 0; j < SEASON_PROVIDERS; j++)
            for (uint32_t k = 0; k < DAYS_MAX; k++)
                left += season.past[i][j][k].is;
    if (left > 0)
        sim_fail("season", "%u days have no record", left);
    if (season.brisk_taken == 0 || season.overflown == 0 || season.overflown == season.brisk_taken)
        sim_fail("overflow", "%u of %u", season.overflown, season.brisk_taken);
    config_unref(season.config);
    zone_free((struct zone *)(uintptr_t)season.calendar.zone);
}

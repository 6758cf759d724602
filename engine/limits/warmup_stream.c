#include "limits/warmup_stream.h"

#include <errno.h>

#include "base/packed.h"

/* A chunk that is leased at once: at most WARMUP_PART, or about ten seconds of the hour's share
 * where that is more. So there is one write of the store in 100 recipients. Where 100 are more than
 * 2 % of the day's cap a chunk is these 2 %, since a crash loses no more; such leases are written
 * in transactions that settle mail, so that they cost no commit. */
#define CHUNK_OF_CAP  50  /* a fiftieth */
#define CHUNK_OF_HOUR 360 /* ten seconds */

#define HUNDREDTHS 10000 /* of a percent, in 1 */
/* One greylisted message is no sign. */
#define SIGNS_MIN     3
#define COMPLAINT_MIN 2

static const struct {
    const char *name, *words;
} verdicts[WARMUP_VERDICTS] = {
    [WARMUP_BEGUN] = {"begun", "its first day"},
    [WARMUP_ADVANCED] = {"advanced", "advanced"},
    [WARMUP_UNUSED] = {"unused", "held: too little of the cap was used"},
    [WARMUP_DEFERRED] = {"deferred", "held: too many deferrals"},
    [WARMUP_BOUNCED] = {"bounced", "held: too many bounces"},
    [WARMUP_COMPLAINED] = {"complained", "held: too many complaints"},
    [WARMUP_FELL] = {"fell", "back some stages: the answers were bad"},
    [WARMUP_PAUSED] = {"paused", "held by the operator"},
    [WARMUP_FROZEN] = {"frozen", "held by promote: no"},
    [WARMUP_REWARMED] = {"rewarmed", "back: nothing was sent for long"},
    [WARMUP_SET] = {"set", "set by the operator"},
    [WARMUP_CALENDAR] = {"calendar", "advanced by the calendar"},
};

const char *warmup_verdict_name(enum warmup_verdict verdict)
{
    ASSERT((size_t)verdict < WARMUP_VERDICTS);
    return verdicts[verdict].name;
}

const char *warmup_verdict_words(enum warmup_verdict verdict)
{
    ASSERT((size_t)verdict < WARMUP_VERDICTS);
    return verdicts[verdict].words;
}

/* --- stages --- */

/* A stage behind the last one is none: the stream is warm. */
static void stage_set(struct warmup_state *s, const struct config_warmup_policy *p, int64_t stage,
                      int32_t today, enum warmup_verdict verdict)
{
    uint32_t last = (uint32_t)p->steps_len - 1, old = s->stage;
    bool was_warm = s->warm;

    ASSERT(p->steps_len > 0);
    s->warm = stage > last;
    s->stage = stage < 0 ? 0 : stage > last ? last : (uint32_t)stage;
    s->step = p->steps[s->stage];
    s->verdict = (uint8_t)verdict;
    if (s->stage != old || s->warm != was_warm)
        s->since = today;
}

void warmup_refit(struct warmup_state *s, const struct config_warmup_policy *p)
{
    ASSERT(p->steps_len > 0);
    if (s->stage < p->steps_len && p->steps[s->stage] == s->step)
        return;
    s->stage = 0;
    while (s->stage + 1 < p->steps_len && p->steps[s->stage + 1] <= s->step)
        s->stage++;
    s->step = p->steps[s->stage];
}

void warmup_begin(struct warmup_state *s, const struct config_warmup_policy *p,
                  const struct warmup_hour *now)
{
    *s = (struct warmup_state){
        .hour = now->hour, .day = now->day, .since = now->day, .mail = now->day};
    stage_set(s, p, p->calendar && p->from != 0 ? (int64_t)now->day - p->from : 0, now->day,
              WARMUP_BEGUN);
}

void warmup_set_stage(struct warmup_state *s, const struct config_warmup_policy *p, uint32_t stage,
                      int32_t today)
{
    stage_set(s, p, stage, today, WARMUP_SET);
    s->mail = today; /* or the long pause would count once more */
}

uint32_t warmup_cap(const struct config_warmup_policy *p, const struct warmup_state *s)
{
    uint64_t cap;

    if (s->warm)
        return WARMUP_NO_CAP;
    ASSERT(s->stage < p->steps_len);
    cap = (uint64_t)p->steps[s->stage] * p->pace / 100;
    return cap == 0 ? 1 : (uint32_t)cap;
}

/* --- the end of a day --- */

static bool is_sign(const struct warmup_state *s, enum config_warmup_sign sign, uint32_t threshold)
{
    const uint32_t *e = s->events;
    uint64_t all =
        (uint64_t)e[WARMUP_EVENT_DELIVERED] + e[WARMUP_EVENT_DEFERRED] + e[WARMUP_EVENT_BOUNCED];
    uint64_t base = sign == CONFIG_WARMUP_COMPLAINED ? e[WARMUP_EVENT_DELIVERED] : all;
    uint64_t count = e[WARMUP_EVENT_DEFERRED + sign];

    return count >= (sign == CONFIG_WARMUP_COMPLAINED ? COMPLAINT_MIN : SIGNS_MIN) &&
           count * HUNDREDTHS >= base * threshold;
}

/* What a day with mail says. */
static enum warmup_verdict judge(const struct warmup_state *s, const struct config_warmup_policy *p)
{
    static const enum warmup_verdict held[] = {[CONFIG_WARMUP_DEFERRED] = WARMUP_DEFERRED,
                                               [CONFIG_WARMUP_BOUNCED] = WARMUP_BOUNCED,
                                               [CONFIG_WARMUP_COMPLAINED] = WARMUP_COMPLAINED};
    uint32_t answered = 0;

    for (enum config_warmup_sign i = 0; i < CONFIG_WARMUP_SIGNS; i++)
        if (is_sign(s, i, p->fall[i]))
            return WARMUP_FELL;
    for (enum config_warmup_sign i = 0; i < CONFIG_WARMUP_SIGNS; i++)
        if (is_sign(s, i, p->hold[i]))
            return held[i];
    if (s->paused)
        return WARMUP_PAUSED;
    if (!p->promote)
        return WARMUP_FROZEN;
    for (int i = 0; i < WARMUP_EVENT_COMPLAINED; i++)
        answered += s->events[i];
    /* Without an answer nothing was earned: leases may have been lost in a crash. */
    if (answered == 0 || (uint64_t)s->used * 100 < (uint64_t)warmup_cap(p, s) * p->advance_used)
        return WARMUP_UNUSED;
    return WARMUP_ADVANCED;
}

static int32_t later(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* By the calendar a stage ends with its day; days before the first one end none. Returns what half
 * is gone back to behind a long pause: the stage of the last day with mail. */
static int64_t calendar_end(struct warmup_state *s, const struct config_warmup_policy *p,
                            int64_t stage, int32_t today)
{
    int32_t days = today - later(s->day, (int32_t)p->from);

    if (p->promote && !s->paused && !s->warm && days > 0)
        stage_set(s, p, stage + days, today, WARMUP_CALENDAR);
    stage -= s->day - s->mail;
    return stage < 0 ? 0 : stage;
}

/* What the answers say. Returns the stage. */
static int64_t earned_end(struct warmup_state *s, const struct config_warmup_policy *p,
                          int64_t stage, int32_t today)
{
    enum warmup_verdict verdict;

    if (s->warm || s->used == 0)
        return stage;
    verdict = judge(s, p);
    if (verdict == WARMUP_ADVANCED)
        stage++;
    else if (verdict == WARMUP_FELL)
        stage -= p->fall_stages;
    stage_set(s, p, stage, today, verdict);
    return stage;
}

/* Whether a pause was so long that the stream goes back. */
static bool day_end(struct warmup_state *s, const struct config_warmup_policy *p, int32_t today)
{
    int32_t idle = today - later(s->mail, (int32_t)p->from), rewarm = (int32_t)p->rewarm_days;
    int64_t stage = s->warm ? (int64_t)p->steps_len : s->stage;

    stage = p->calendar ? calendar_end(s, p, stage, today) : earned_end(s, p, stage, today);
    if (rewarm == 0 || idle < rewarm)
        return false;
    stage_set(s, p, idle >= 2 * rewarm ? 0 : stage / 2, today, WARMUP_REWARMED);
    s->mail = today;
    return true;
}

bool warmup_turn(struct warmup_state *s, const struct config_warmup_policy *p,
                 const struct warmup_hour *now, struct warmup_past *past)
{
    bool had_mail, rewarmed;

    warmup_refit(s, p);
    if (now->day < s->day - 1) { /* the clock was days ahead */
        s->day = now->day;
        s->hour = now->hour;
        s->used = s->warm ? 0 : warmup_cap(p, s);
        s->hour_used = 0;
        memset(s->events, 0, sizeof(s->events));
    }
    if (now->day == s->day && now->hour > s->hour) {
        s->hour = now->hour;
        s->hour_used = 0;
    }
    if (now->day <= s->day)
        return false;
    had_mail = s->used > 0;
    *past = (struct warmup_past){
        .day = s->day, .stage = s->stage, .cap = warmup_cap(p, s), .used = s->used};
    memcpy(past->events, s->events, sizeof(past->events));
    rewarmed = day_end(s, p, now->day);
    past->verdict = s->verdict;
    s->day = now->day;
    s->hour = now->hour;
    s->used = s->hour_used = 0;
    memset(s->events, 0, sizeof(s->events));
    return had_mail || rewarmed;
}

/* --- leases --- */

uint32_t warmup_share(const struct warmup_state *s, const struct config_warmup_policy *p,
                      const struct warmup_hour *now)
{
    uint32_t cap = warmup_cap(p, s), before = s->used - s->hour_used, left, hours, share, twice;

    ASSERT(s->hour_used <= s->used);
    if (cap == WARMUP_NO_CAP)
        return cap;
    if (now->quiet || now->day != s->day || now->hour != s->hour || before >= cap ||
        (p->from != 0 && now->day < (int32_t)p->from))
        return 0;
    ASSERT(now->open > now->passed); /* this hour is open */
    left = cap - before;
    hours = (uint32_t)(now->open - now->passed);
    share = (uint32_t)(((uint64_t)left * 2 + hours) / (2 * hours));
    twice = (uint32_t)(((uint64_t)cap * 2 + now->open - 1) / now->open);
    share = share < twice ? share : twice;
    return share < left ? share : left;
}

uint32_t warmup_part(const struct config_warmup_policy *p, const struct warmup_state *s)
{
    uint32_t cap = warmup_cap(p, s);

    return cap / CHUNK_OF_CAP >= WARMUP_PART ? WARMUP_PART
                                             : (cap + CHUNK_OF_CAP - 1) / CHUNK_OF_CAP;
}

static uint32_t chunk_of(uint32_t share, uint32_t part)
{
    uint32_t chunk = part, pieces;

    ASSERT(share > 0 && part > 0);
    if (chunk < share / CHUNK_OF_HOUR)
        chunk = share / CHUNK_OF_HOUR;
    pieces = share < chunk ? 1 : share / chunk; /* of one size */
    return (share + pieces - 1) / pieces;
}

uint32_t warmup_lease(struct warmup_state *s, const struct config_warmup_policy *p,
                      const struct warmup_hour *now)
{
    uint32_t share = warmup_share(s, p, now), n;

    if (share == WARMUP_NO_CAP) {
        s->mail = now->day;
        return share;
    }
    if (share <= s->hour_used)
        return 0;
    n = chunk_of(share, warmup_part(p, s));
    if (n > share - s->hour_used)
        n = share - s->hour_used;
    ASSERT(n > 0);
    s->used += n;
    s->hour_used += n;
    s->mail = now->day;
    ASSERT(s->used <= warmup_cap(p, s));
    return n;
}

void warmup_unlease(struct warmup_state *s, uint32_t n)
{
    s->used -= n < s->used ? n : s->used;
    s->hour_used -= n < s->hour_used ? n : s->hour_used;
}

/* --- the records: version 1, then numbers of 4 bytes, the lowest first --- */

#define STATE_VERSION 1
#define STATE_BYTES   (1 + 3 + 4 * (7 + WARMUP_EVENTS)) /* without the sequence, as once */
#define FLAG_PAUSED   1
#define FLAG_WARM     2
#define PAST_VERSION  1
#define PAST_BYTES    (1 + 1 + 4 * (4 + WARMUP_EVENTS))

static uint32_t take32(const uint8_t **at)
{
    const uint8_t *number = *at;

    *at += 4;
    return (uint32_t)packed_at(number, 4);
}

void warmup_state_encode(const struct warmup_state *s, struct buf *out)
{
    buf_putc(out, STATE_VERSION);
    buf_putc(out, (char)((s->paused ? FLAG_PAUSED : 0) | (s->warm ? FLAG_WARM : 0)));
    buf_putc(out, (char)s->verdict);
    buf_putc(out, (char)s->hour);
    packed_put(out, s->stage, 4);
    packed_put(out, s->step, 4);
    packed_put(out, (uint32_t)s->day, 4);
    packed_put(out, (uint32_t)s->since, 4);
    packed_put(out, (uint32_t)s->mail, 4);
    packed_put(out, s->used, 4);
    packed_put(out, s->hour_used, 4);
    for (int i = 0; i < WARMUP_EVENTS; i++)
        packed_put(out, s->events[i], 4);
    packed_put(out, s->sequence, 4);
}

/* Days beyond this are no days: arithmetic with them must not overflow. */
static bool is_day(int32_t day)
{
    return day > -1000000 && day < 10000000;
}

int warmup_state_decode(struct str value, struct warmup_state *out)
{
    const uint8_t *at = (const uint8_t *)value.ptr + 4;
    struct warmup_state s = {0};

    if (value.len < 1)
        return -EBADMSG;
    if (value.ptr[0] != STATE_VERSION)
        return -EPROTO;
    if (value.len < STATE_BYTES) /* what follows is of a later build, and may be lost */
        return -EBADMSG;
    s.paused = (value.ptr[1] & FLAG_PAUSED) != 0;
    s.warm = (value.ptr[1] & FLAG_WARM) != 0;
    s.verdict = (uint8_t)value.ptr[2];
    s.hour = (uint8_t)value.ptr[3];
    s.stage = take32(&at);
    s.step = take32(&at);
    s.day = (int32_t)take32(&at);
    s.since = (int32_t)take32(&at);
    s.mail = (int32_t)take32(&at);
    s.used = take32(&at);
    s.hour_used = take32(&at);
    for (int i = 0; i < WARMUP_EVENTS; i++)
        s.events[i] = take32(&at);
    if (value.len >= STATE_BYTES + 4)
        s.sequence = take32(&at);
    if (s.verdict >= WARMUP_VERDICTS || s.hour_used > s.used || !is_day(s.day) ||
        !is_day(s.since) || !is_day(s.mail))
        return -EBADMSG;
    *out = s;
    return 0;
}

void warmup_past_encode(const struct warmup_past *p, struct buf *out)
{
    buf_putc(out, PAST_VERSION);
    buf_putc(out, (char)p->verdict);
    packed_put(out, (uint32_t)p->day, 4);
    packed_put(out, p->stage, 4);
    packed_put(out, p->cap, 4);
    packed_put(out, p->used, 4);
    for (int i = 0; i < WARMUP_EVENTS; i++)
        packed_put(out, p->events[i], 4);
}

int warmup_past_decode(struct str value, struct warmup_past *out)
{
    const uint8_t *at = (const uint8_t *)value.ptr + 2;
    struct warmup_past p = {0};

    if (value.len < 1)
        return -EBADMSG;
    if (value.ptr[0] != PAST_VERSION)
        return -EPROTO;
    if (value.len < PAST_BYTES)
        return -EBADMSG;
    p.verdict = (uint8_t)value.ptr[1];
    p.day = (int32_t)take32(&at);
    p.stage = take32(&at);
    p.cap = take32(&at);
    p.used = take32(&at);
    for (int i = 0; i < WARMUP_EVENTS; i++)
        p.events[i] = take32(&at);
    if (p.verdict >= WARMUP_VERDICTS || !is_day(p.day))
        return -EBADMSG;
    *out = p;
    return 0;
}

/* The warm-up of one stream, a source at a provider: which stage it is in, how much of its cap is
 * used, and what a day that is over says of the next. Pure: state, policy and time are parameters.
 * warmup.h makes streams of it that threads take from; a simulation needs no more than this.
 *
 * What is leased counts as used from the moment at which the lease is stored: then a crash loses
 * what was leased and not sent, and never sends it twice. */
#ifndef HAYAUMA_ENGINE_WARMUP_STREAM_H
#define HAYAUMA_ENGINE_WARMUP_STREAM_H

#include "base/buf.h"
#include "config/config.h"
#include "limits/warmup_day.h"

#define WARMUP_NO_CAP UINT32_MAX

/* Why a stream is in its stage. Stored: no number is used again for something else. */
enum warmup_verdict {
    WARMUP_BEGUN = 0,      /* its first day */
    WARMUP_ADVANCED = 1,   /* most of the cap was used, and the answers were good */
    WARMUP_UNUSED = 2,     /* held: too little of the cap was used */
    WARMUP_DEFERRED = 3,   /* held: too many deferrals */
    WARMUP_BOUNCED = 4,    /* held: too many refusals */
    WARMUP_COMPLAINED = 5, /* held: too many complaints */
    WARMUP_FELL = 6,       /* back some stages: a sign was bad */
    WARMUP_PAUSED = 7,     /* held by the operator */
    WARMUP_FROZEN = 8,     /* held by `promote: no` */
    WARMUP_REWARMED = 9,   /* back: it sent nothing for long */
    WARMUP_SET = 10,       /* by the operator */
    WARMUP_CALENDAR = 11,  /* by the calendar */
    WARMUP_VERDICTS
};

enum warmup_event {
    WARMUP_EVENT_DELIVERED,
    WARMUP_EVENT_DEFERRED,
    WARMUP_EVENT_BOUNCED,
    WARMUP_EVENT_COMPLAINED,
    WARMUP_EVENTS
};

/* Stored whole. */
struct warmup_state {
    uint32_t stage;  /* from 0 */
    uint32_t step;   /* what the schedule says of that stage: when it changes, the stage follows */
    bool warm;       /* behind the last stage: no cap any more */
    bool paused;     /* the operator keeps it in its stage */
    uint8_t verdict; /* enum warmup_verdict, of the last change or hold */
    uint8_t hour;    /* of day, the latest in which something was leased */
    int32_t day;     /* the latest in which something was leased, or it began */
    int32_t since;   /* day on which it came into its stage */
    int32_t mail;    /* the last day with mail; before any: the day it began */
    uint32_t used, hour_used;       /* of day, of hour: recipients, leased ones too */
    uint32_t events[WARMUP_EVENTS]; /* of day, as far as stored */
    uint32_t sequence; /* of the record: of several the one with the highest is in force */
};

/* A day that is over. */
struct warmup_past {
    int32_t day;
    uint32_t stage, cap, used; /* cap: WARMUP_NO_CAP of none */
    uint32_t events[WARMUP_EVENTS];
    uint8_t verdict; /* what followed from it */
};

/* After a change of the schedule: the stage is the last one whose cap is no more than the present
 * one. */
void warmup_refit(struct warmup_state *s, const struct config_warmup_policy *p);
void warmup_begin(struct warmup_state *s, const struct config_warmup_policy *p,
                  const struct warmup_hour *now);
/* The cap of the day that a stream in this state is in; WARMUP_NO_CAP: none. */
uint32_t warmup_cap(const struct config_warmup_policy *p, const struct warmup_state *s);
/* Brings s to the present day, and to the stage that fits where the schedule was changed. True: a
 * day with mail ended, or a pause was so long that the stream goes back, and past says how. Does
 * nothing when the clock was set back into an earlier day or hour: see warmup_lease(). */
bool warmup_turn(struct warmup_state *s, const struct config_warmup_policy *p,
                 const struct warmup_hour *now, struct warmup_past *past);
/* How much may be used in this hour in all: what is left of the day over the hours left, at most
 * twice an even part, so that a day that began without mail does not end in a burst. s as
 * warmup_turn() left it. */
uint32_t warmup_share(const struct warmup_state *s, const struct config_warmup_policy *p,
                      const struct warmup_hour *now);
/* Leases the next chunk of the hour's share: about ten seconds of it, 100 or 2 % of the cap if that
 * is more but no more than 100. 0: nothing is left, or this is no time to send. s as warmup_turn()
 * left it; what is returned counts as used, and must be stored before it is spent.
 *
 * The stream never goes back in time: when the clock was set back into an earlier day or hour there
 * is nothing until it has come to where it was. Where that is further off than a day the present
 * day has no more. So no day gets more than its cap. */
uint32_t warmup_lease(struct warmup_state *s, const struct config_warmup_policy *p,
                      const struct warmup_hour *now);
/* How many are leased at once, where the hour's share does not say more: 100, or 2 % of the cap if
 * that is less. Less than 100 are no reason for a commit of their own: see warmup_ride(). */
#define WARMUP_PART 100
uint32_t warmup_part(const struct config_warmup_policy *p, const struct warmup_state *s);
/* n of the leased are not spent, and will not be. */
void warmup_unlease(struct warmup_state *s, uint32_t n);
/* The operator's. stage from 0; the number of stages: no cap. */
void warmup_set_stage(struct warmup_state *s, const struct config_warmup_policy *p, uint32_t stage,
                      int32_t today);

const char *warmup_verdict_name(enum warmup_verdict verdict);
/* "held: too many deferrals" */
const char *warmup_verdict_words(enum warmup_verdict verdict);

void warmup_state_encode(const struct warmup_state *s, struct buf *out);
/* 0, -EBADMSG; -EPROTO: of a newer version. */
int warmup_state_decode(struct str value, struct warmup_state *out) MUST_USE;
void warmup_past_encode(const struct warmup_past *p, struct buf *out);
int warmup_past_decode(struct str value, struct warmup_past *out) MUST_USE;

#endif

/* Warm-up of the process: a stream for each source, signing domain or campaign and each provider at
 * which it is being warmed up, which all workers take from. A stream has a budget, which is what
 * was leased and not yet sent, and a pace. Taking is atomics only. When the budget is used up, or
 * its hour is over, the stream asks: the keeper (outcome/warm.h), one thread, leases the next
 * chunk, stores that, and grants it. So what is stored is never less than what was sent, and a
 * crash loses one chunk a stream. Small chunks are asked for when mail of the stream is settled,
 * and stored with that: see warmup_ride().
 *
 * Wall-clock times are parameters, as are monotonic ones: nothing here reads a clock. */
#ifndef HAYAUMA_ENGINE_WARMUP_H
#define HAYAUMA_ENGINE_WARMUP_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/map.h"
#include "base/ring.h"
#include "limits/warmup_stream.h"

/* Of a provider, and of a source, or what else config_warmup_kind() knows. */
#define WARMUP_NAME_MAX (CONFIG_SHARE_NAME_MAX + 9)

struct warmup_stream {
    struct map_node node; /* this, and all but shared, under the table's lock */
    struct list_node asking;
    char *source, *provider; /* source: or "signer:example.com", "campaign:spring" */
    bool configured;         /* by the present configuration */
    bool begun;              /* state says something */
    bool lost;               /* what was stored of it is damaged, and was not made anew yet */
    uint32_t lost_in;        /* the shard of that */
    bool damaged;            /* that is there still */
    bool unsaved;            /* state was changed, by the operator, or could not be stored */
    bool rides;              /* what it asks for is stored with mail that shard settles */
    uint32_t shard;
    bool looks; /* it asks for the end of its day alone, and has no mail to lease for */
    struct config_warmup_policy policy; /* steps are a copy */
    uint32_t policies;                  /* how often it was set */
    struct warmup_state state;
    struct warmup_state kept; /* as it is stored: at least what was leased */
    struct {
        /* Relaxed but for budget, which is what must not be taken twice: the others say when it is
         * worth to try. */
        _Alignas(CACHE_LINE_BYTES) _Atomic int64_t budget; /* leased and stored, not sent */
        _Atomic int64_t from_ms, until_ms;                 /* wall: when the budget may be sent */
        _Atomic uint64_t interval_ns, next_ns;             /* monotonic: GCRA */
        _Atomic int64_t
            doubted_ms; /* wall without monotonic, at the last warmup_doubt() that asked */
        _Atomic uint32_t events[WARMUP_EVENTS]; /* that state has not */
        /* What is left of the budget when the next part is asked for by warmup_ride(); negative:
         * who takes the last asks. */
        _Atomic int64_t low;
        _Atomic bool warm; /* no cap: until_ms is when the keeper wants to hear of mail again */
        _Atomic bool asked;
        _Atomic uint32_t missed; /* a shard, from 1: an answer that may hold the stage was settled
                                  * there while the keeper was storing */
    } shared;
};

struct warmup {
    pthread_mutex_t lock;
    struct map streams;
    struct list asking;
    size_t asking_len;
    bool configured;
    uint64_t generation; /* of the configuration */
    struct zone *zone;
    struct warmup_calendar calendar;
    struct warmup_hour hour; /* the last that was asked for; it may be of another time */
    int32_t looked;          /* the day of the last warmup_look() */
    bool ended;              /* nothing more is leased */
    void (*wake)(void *arg); /* some stream asks; any thread */
    void *arg;
    _Atomic bool asks;
};

int warmup_open(struct warmup *w, void (*wake)(void *arg), void *arg) MUST_USE;
/* A zeroed one is accepted. */
void warmup_done(struct warmup *w);
/* Before workers begin: what a shard of the store has; of several the newest counts. state NULL: it
 * is damaged; the stream begins anew, and sends nothing more today, for nobody knows what it has
 * sent. -ENOMEM. */
int warmup_restore(struct warmup *w, struct str source, struct str provider, uint32_t shard,
                   const struct warmup_state *state) MUST_USE;

/* Applies c to all streams, unless a later generation has been. */
void warmup_configure(struct warmup *w, const struct config *c);
/* The stream of source at whoever runs the exchanger host; it asks for its first lease, since mail
 * is about to come. NULL: source is not being warmed up. It lives as long as w. */
struct warmup_stream *warmup_stream_of(struct warmup *w, const struct config *c, const char *source,
                                       struct str host);

/* Takes leave for one recipient. 0: it is given; else nothing is taken, and the value is the
 * monotonic time in ns at which to ask again. */
uint64_t warmup_take(struct warmup *w, struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns);
/* Takes leave for up to want more recipients of the message for which one was taken: they go at
 * once, and what follows waits the longer. Returns how many. s may be NULL: all. */
uint32_t warmup_more(struct warmup *w, struct warmup_stream *s, int64_t wall_ms, uint32_t want);
/* The question of warmup_take() without taking. 0: now, as far as is known. s may be NULL. */
uint64_t warmup_at(const struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns);
/* Whether s waits for nothing but the keeper, who is about to lease more. s may be NULL. */
bool warmup_is_leased(const struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns);
/* When the pace lets the next one go, whatever else keeps it: monotonic. warmup_at() may be before,
 * which is when to look. */
static inline uint64_t warmup_pace_ns(const struct warmup_stream *s)
{
    return atomic_load_explicit(&s->shared.next_ns, memory_order_relaxed);
}
/* Who waits for s says so now and then: when it is to go on was told, perhaps, before the clock was
 * set, and the keeper looks anew. While nobody sets the clock it asks nothing. s may be NULL. */
void warmup_doubt(struct warmup *w, struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns);
/* n recipients that were taken at taken_ms (wall) were not tried: they may be taken again while the
 * hour lasts. s may be NULL. */
void warmup_give(struct warmup_stream *s, int64_t taken_ms, uint32_t n);
/* What a recipient's attempt came to. */
static inline void warmup_count(struct warmup_stream *s, enum warmup_event event)
{
    if (s != NULL)
        atomic_fetch_add_explicit(&s->shared.events[event], 1, memory_order_relaxed);
}

/* The streams that one recipient counts in: of whichever is warmed up; the others are NULL. By
 * kind, and behind these the domain that signs all mail. */
#define WARMUP_PLATFORM CONFIG_WARMUP_KINDS
#define WARMUP_SET_LEN  (CONFIG_WARMUP_KINDS + 1)
struct warmup_set {
    struct warmup_stream *of[WARMUP_SET_LEN];
};
static inline bool warmup_set_empty(const struct warmup_set *set)
{
    for (int i = 0; i < WARMUP_SET_LEN; i++)
        if (set->of[i] != NULL)
            return false;
    return true;
}
static inline void warmup_set_count(const struct warmup_set *set, enum warmup_event event)
{
    for (int i = 0; i < WARMUP_SET_LEN; i++)
        warmup_count(set->of[i], event);
}
/* Recipients that set counts are about to be settled in shard. Where a stream leases fewer than
 * WARMUP_PART at once, and half of that is spent, the next part is stored in the transaction that
 * settles them: a small cap costs no commits. So is what comes after the hour's share, ahead of its
 * time. Answers that may hold the stage, is_sign, are stored so whatever is spent: of a large cap
 * alone, while its lease goes on. The others are stored with what is stored next. */
void warmup_ride(struct warmup *w, struct warmup_stream *s, bool is_sign, uint32_t shard);
static inline void warmup_set_ride(struct warmup *w, const struct warmup_set *set, bool is_sign,
                                   uint32_t shard)
{
    for (int i = 0; i < WARMUP_SET_LEN; i++) {
        struct warmup_stream *s = set->of[i];
        int64_t low;

        if (s == NULL || atomic_load_explicit(&s->shared.warm, memory_order_relaxed))
            continue;
        low = atomic_load_explicit(&s->shared.low, memory_order_relaxed);
        if (is_sign ||
            (low >= 0 && atomic_load_explicit(&s->shared.budget, memory_order_relaxed) <= low))
            warmup_ride(w, s, is_sign, shard);
    }
}
/* Takes the leave of all of set for up to want more recipients: see warmup_more(). Returns how
 * many.
 */
uint32_t warmup_set_more(struct warmup *w, const struct warmup_set *set, int64_t wall_ms,
                         uint32_t want);
static inline void warmup_set_give(const struct warmup_set *set, int64_t taken_ms, uint32_t n)
{
    for (int i = 0; i < WARMUP_SET_LEN; i++)
        warmup_give(set->of[i], taken_ms, n);
}

/* --- the keeper --- */

static inline bool warmup_asks(const struct warmup *w)
{
    return atomic_load_explicit(&w->asks, memory_order_relaxed);
}
/* Now and then: a stream whose day is over asks, for it may have no mail that would. */
void warmup_look(struct warmup *w, int64_t wall_ms);
/* No mail will be sent any more: what was leased and not spent is given back, and with it the last
 * answers are stored. All streams that have some of either ask. */
void warmup_end(struct warmup *w);
/* How many streams ask. Who asks later comes behind them. */
size_t warmup_asking(struct warmup *w);
struct warmup_put {
    struct warmup_stream *stream;
    uint32_t policies;     /* the stream's, when this was leased */
    uint32_t granted, cap; /* cap: of the present day */
    uint32_t ahead;        /* to be stored as used, and granted in a later hour */
    uint32_t shard;        /* to be stored in */
    bool rides;            /* with what is settled there now: no commit is made for it */
    bool answers;          /* alone: what was granted goes on */
    struct warmup_hour now;
    struct warmup_state state; /* warmup_put_stored() is to be stored before warmup_granted() */
    bool looks;                /* nothing was to be leased */
    bool ended;                /* a day with mail is over: past is to be stored too */
    struct warmup_past past;
    bool store; /* something is to be stored; else warmup_granted() may follow at once */
};
struct warmup_state warmup_put_stored(const struct warmup_put *put);
/* The next stream that asks. False: none does. */
bool warmup_next(struct warmup *w, int64_t wall_ms, struct warmup_put *put);
/* put is stored; or it could not be, and nothing is granted. now_ns: monotonic. */
void warmup_granted(struct warmup *w, const struct warmup_put *put, bool stored, uint64_t now_ns);

/* --- what is shown, what the operator says --- */

struct warmup_view {
    const char *source, *provider;
    uint32_t stage, stages, cap, used, share, hour_used; /* stage from 1; used: sent */
    uint32_t events[WARMUP_EVENTS];
    uint32_t next_cap; /* of the next stage, or of this one where it stays; WARMUP_NO_CAP: none */
    bool configured, paused;
    enum warmup_verdict verdict;
    int32_t day, since;  /* since: in this stage */
    int64_t day_ends_ms; /* wall */
    int64_t next_ms;     /* wall: the next hour with a share, when this one's is used; 0: now */
    int32_t begins;      /* the day from which on it may send; 0: it may */
};
void warmup_view(struct warmup *w, struct warmup_stream *s, int64_t wall_ms,
                 struct warmup_view *out);
/* Of the stream of source at provider. False: it has sent nothing yet. */
bool warmup_view_of(struct warmup *w, struct str source, struct str provider, int64_t wall_ms,
                    struct warmup_view *out);
/* Visits all, in no order, under the lock. */
void warmup_visit(struct warmup *w, int64_t wall_ms,
                  void (*visit)(void *arg, const struct warmup_view *view), void *arg);
/* "1,200 of 1,200 today, next hour's share at 14:00", behind "campaign spring: " where it is no
 * source's. */
void warmup_put_words(struct warmup *w, const struct warmup_view *v, struct buf *out);

struct warmup_order {
    enum { WARMUP_START, WARMUP_PAUSE, WARMUP_RESUME, WARMUP_STAGE, WARMUP_COMPLAINTS } kind;
    char source[WARMUP_NAME_MAX + 1], provider[WARMUP_NAME_MAX + 1]; /* empty: all known */
    uint32_t number; /* of WARMUP_STAGE: from 1; of WARMUP_COMPLAINTS: how many more */
};
/* Does it; the streams ask, so that the keeper stores them. 0; -ENOENT: there is no such stream;
 * -ERANGE: it has no such stage. */
int warmup_order(struct warmup *w, int64_t wall_ms, const struct warmup_order *order) MUST_USE;

#endif

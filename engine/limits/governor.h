/* The process-wide table of limits, one entry per source x site, and one for a site over all
 * sources where it has such limits: how many sessions are open and when the next message may go. It
 * is the seam at which a pool of machines will share limits.
 *
 * Threads: entries are found and released under a mutex (rare: when a worker makes or drops a
 * site); taking is atomics only. An entry lives while somebody holds it. */
#ifndef HAYAUMA_ENGINE_GOVERNOR_H
#define HAYAUMA_ENGINE_GOVERNOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/map.h"
#include "base/ring.h"
#include "base/str.h"

struct governor;

#define GOVERNOR_PROBE_MS 2000

/* What rates count of a message that goes; and what else of an entry mail may wait for. */
enum governor_counts {
    GOVERNOR_MESSAGES,
    GOVERNOR_RECIPIENTS,
    GOVERNOR_BYTES,
    GOVERNOR_COUNTS,
    GOVERNOR_CONNECTS = GOVERNOR_COUNTS, /* that a session may begin */
    GOVERNOR_SESSIONS,                   /* that one ends */
    GOVERNOR_WAITS
};

struct governor_rate { /* count per period_ms, and burst more at once; count 0 = no limit */
    uint64_t count;
    uint32_t period_ms, burst;
};

/* What one message takes of each, and whose it is. */
struct governor_load {
    uint32_t recipients; /* that go at once: from 1 */
    uint64_t bytes;
    uint8_t priority; /* 0 is the best: of such a message nobody's claim is asked */
    uint16_t who;     /* who takes: see governor_claim() */
};

struct governor_limits {
    uint32_t sessions_max;  /* 0 = none */
    uint64_t rate_messages; /* per rate_period_ms; 0 = none */
    uint32_t rate_period_ms;
    uint32_t rate_burst; /* so many more at once where none went for a while */
    struct governor_rate recipients, bytes, connects;
    uint64_t generation; /* of the configuration that says so */
};

/* Whether l limits anything. */
static inline bool governor_limits_any(const struct governor_limits *l)
{
    return l->sessions_max != 0 || l->rate_messages != 0 || l->recipients.count != 0 ||
           l->bytes.count != 0 || l->connects.count != 0;
}

/* What an answer of the peer lowers the limits of an entry to: for step_ms to this, then to twice
 * as much, and so on; behind GOVERNOR_CAP_STEPS of them it is over. */
#define GOVERNOR_CAP_STEPS 6
struct governor_cap {
    uint64_t rate_messages; /* per rate_period_ms; 0 = the rate is not lowered */
    uint32_t rate_period_ms;
    uint32_t sessions, session_messages; /* 0 = not lowered */
    uint32_t step_ms;
};

/* What became of the mail of a source at a site, in all workers. Some thousands of entries with
 * sums outlive those that have them. */
#define GOVERNOR_REASONS_MAX 32
struct governor_sums {
    _Atomic uint64_t attempts, delivered, deferred; /* recipients */
    _Atomic uint64_t bytes;                         /* of messages that were taken */
    _Atomic uint64_t connect_failures;
    _Atomic uint32_t bounced[GOVERNOR_REASONS_MAX]; /* recipients, by classify_reason() */
};
static inline void governor_sum(_Atomic uint64_t *sum, uint64_t n)
{
    atomic_fetch_add_explicit(sum, n, memory_order_relaxed);
}

struct governor_entry {
    struct map_node node; /* under the governor's mutex, as are cooling, refs and key */
    struct list_node cooling;
    uint32_t refs;
    uint64_t generation;  /* of the limits; under the mutex too */
    uint32_t cap_version; /* likewise */
    char *key;
    /* Of what a source sends to a site: where in key their names are. See governor_name(). */
    uint16_t source_len, site_at, site_len;
    bool provider;
    /* Limits: written on reload, read on every take; relaxed, since a limit has no moment at which
     * it must be seen by all. */
    _Atomic uint32_t sessions_max;
    struct {
        _Atomic uint64_t interval_ns; /* between two messages, or recipients; of bytes in 1/1024 ns;
                                         0 = no rate limit */
        _Atomic uint64_t burst_ns;    /* so long unused time is kept: that of a burst at the rate */
        _Atomic uint64_t count;       /* as configured, to be shown */
        _Atomic uint32_t period_ms;
    } rates[GOVERNOR_COUNTS];
    _Atomic uint64_t connect_interval_ns; /* between two connections */
    _Atomic uint64_t connect_burst_ns;
    /* See governor_cap(): relaxed for the same reason. */
    _Atomic uint64_t cap_step_ns; /* 0: nothing is lowered */
    _Atomic int64_t cap_since_ns; /* monotonic; before the machine's start it is negative */
    _Atomic uint64_t cap_interval_ns, cap_messages;
    _Atomic uint32_t cap_period_ms, cap_sessions, cap_session_messages;
    struct {
        /* Taken and given by all workers. seq_cst by default: the order between workers decides who
         * gets the last session. */
        _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t sessions;
        _Atomic uint64_t denied; /* bit per worker (modulo 64) that wanted a session and got none */
        _Atomic uint64_t holders; /* bit per worker that holds or wants sessions */
        /* GCRA: theoretical arrival time of the next message, by each rate. */
        _Atomic uint64_t next_ns[GOVERNOR_COUNTS];
        _Atomic uint64_t connect_next_ns; /* the same of connections */
        _Atomic uint64_t try_ns;          /* the same of governor_try() */
        _Atomic uint64_t line_ns;         /* the end of the line: governor_line() */
        _Atomic uint64_t bytes_ns;        /* that the last message took of the rate of bytes */
        _Atomic uint64_t claim;           /* see governor_claim(): ms << 20 | who << 4 | priority */
        _Atomic uint64_t held_ms[GOVERNOR_WAITS]; /* see governor_hold() */
        _Atomic uint64_t lowered; /* second << 32 | sessions: see governor_slow_down(); 0: not */
        _Atomic uint64_t stepped; /* the same: see governor_step_down() */
        _Atomic uint32_t credit;  /* messages taken since stepped changed */
        /* pause in s << 32 | sessions: see governor_recover(); 0: it does not recover. */
        _Atomic uint64_t recovering;
        _Atomic uint64_t recover_ns; /* when governor_recover() was called last; 0: not */
        _Atomic bool recovered;      /* governor_restore() has nothing to say */
        _Atomic uint32_t works;      /* sessions that are set up and take work */
        _Atomic uint32_t ending;     /* sessions that take nothing more */
        _Atomic uint32_t run;        /* attempts in a row without a success */
        _Atomic uint32_t runs;       /* how many there were before a success of late, times 256 */
        _Atomic uint32_t ups;        /* see governor_ups() */
        /* Monotonic. Not 0: the destination is stopped, and a probe may go out then. */
        _Atomic uint64_t stopped_ns;
        _Atomic uint64_t probe_ns;   /* until then the answer to a probe is waited for */
        _Atomic uint64_t counted_ns; /* of the last failure: what began before tells nothing */
    } shared;
    _Alignas(CACHE_LINE_BYTES) struct governor_sums sums;
};

#define GOVERNOR_RUN_TIMES 8

int governor_open(struct governor **out) MUST_USE;
/* The process begins at now_ns, before workers do. When a lowered rate that is older than it let
 * its last message go is not stored: the next one goes an interval behind the beginning. */
void governor_begin(struct governor *g, uint64_t now_ns);
void governor_close(struct governor *g);

/* The entry of key, made when missing. limits are applied unless those of a later generation are: a
 * worker that is late with a reload does not bring old limits back. A new rate gives no message for
 * free: what is left of the old interval is waited for in the same part of the new one. NULL when
 * memory is out. now_ns: monotonic. */
struct governor_entry *governor_get(struct governor *g, struct str key,
                                    const struct governor_limits *limits, uint64_t now_ns);
void governor_put(struct governor *g, struct governor_entry *entry, uint64_t now_ns);
/* The entry is of what source sends to site, which its key begins with and has in it: screens show
 * it so. provider: the same for all sites of a provider, each of which has an entry of its own. */
void governor_name(struct governor *g, struct governor_entry *entry, const char *source,
                   const char *site, bool provider);
static inline struct str governor_source(const struct governor_entry *e)
{
    return (struct str){e->key, e->source_len};
}
static inline struct str governor_site(const struct governor_entry *e)
{
    return (struct str){e->key + e->site_at, e->site_len};
}
/* Visits the entries that have been named, in no order; visit() calls nothing of the governor. An
 * entry may come twice while the table grows. Not for workers: it takes long. */
void governor_visit(struct governor *g, void (*visit)(void *arg, const struct governor_entry *e),
                    void *arg);
/* That of key as it is, to be put back; NULL: there is none. */
struct governor_entry *governor_find(struct governor *g, struct str key);

/* Takes a session slot for worker. False: at the limit; the denial is remembered, so that holders
 * over their share give way (governor_should_yield()). */
bool governor_session_take(struct governor_entry *entry, uint32_t worker, uint64_t now_ns);
/* The worker that holds none any more says so with governor_session_withdraw(): another one may be
 * taking its first at this moment, so nobody else's bit can be cleared here. */
void governor_session_give(struct governor_entry *entry);
/* Whether as many are open as may be, by the configuration or by what the peer said. */
bool governor_sessions_full(const struct governor_entry *entry, uint64_t now_ns);
/* How many are open, and how many may be; UINT32_MAX: any number. */
void governor_sessions(const struct governor_entry *e, uint64_t now_ns, uint64_t *open,
                       uint64_t *allowed);
/* The peer refused a session for being one too many: as many as are open but one may be. A tenth
 * more, one at least, each minute, until it is sessions_max again. */
void governor_slow_down(struct governor_entry *entry, uint64_t now_ns);
/* Whether the peer made it fewer sessions than the configuration allows. */
bool governor_is_lowered(const struct governor_entry *entry, uint64_t now_ns);
/* The peer asked for less in answer to mail: one less, as above; and one more for as many messages
 * taken as there may be sessions. So with one such answer in n messages n sessions remain. */
void governor_step_down(struct governor_entry *entry, uint64_t now_ns);
/* Nothing was sent for pause_s, for the peer had asked for that: one session may be open now, and
 * one more with each of which governor_recovers() says that it works, until it is sessions_max
 * again. */
void governor_recover(struct governor_entry *entry, uint32_t pause_s, uint64_t now_ns);
/* When that was said last, in the life of the entry; 0: never. What began before says nothing of
 * the way back. */
uint64_t governor_recover_ns(const struct governor_entry *entry);
/* True: it recovered until now, and *sessions may be open from now on; 0: as many as before the
 * pause. */
bool governor_recovers(struct governor_entry *entry, uint32_t *pause_s, uint32_t *sessions);
/* What was stored of an entry that recovers. It counts once in the life of the entry, and not where
 * governor_recover() was called. */
void governor_restore(struct governor_entry *entry, uint32_t pause_s, uint32_t sessions);
/* The pause of one that recovers, and of which no session has worked yet, in s; else 0. */
uint32_t governor_recovery_s(const struct governor_entry *entry);
/* An answer lowers the limits since since_ns (monotonic, may be negative); step_ms 0: none does.
 * version: of the table that cap was read from; that of an older one is overlooked. */
void governor_cap(struct governor *g, struct governor_entry *entry, uint32_t version,
                  const struct governor_cap *cap, int64_t since_ns, uint64_t now_ns);
/* The cap in force, with what it has grown to. False: there is none. */
bool governor_capped(const struct governor_entry *entry, uint64_t now_ns, struct governor_cap *out);
/* How many messages a session may take by a cap; UINT32_MAX: any number. */
uint32_t governor_session_messages(const struct governor_entry *entry, uint64_t now_ns);
/* Whether more sessions are open than a cap allows, those apart that end. */
bool governor_over_cap(const struct governor_entry *entry, uint64_t now_ns);
/* A session takes nothing more and will end, or goes on, or is gone. */
void governor_session_ends(struct governor_entry *entry, bool ends);
/* A session is set up, or takes no more work. */
void governor_session_works(struct governor_entry *entry, bool works);
/* Whether some session is set up in the whole process. */
bool governor_any_works(const struct governor_entry *entry);

/* --- what gets through --- */

/* How many attempts in a row without a success to allow where others are allowed run_max: run_max
 * more for each that came before a success of late, up to GOVERNOR_RUN_TIMES in all. Who refuses
 * every other message still takes the others. */
uint32_t governor_run_allowed(const struct governor_entry *entry, uint32_t run_max);
/* An attempt that began at begun_ns ended without a success. When run_max of them came in a row the
 * destination is stopped: one session may be open, and one message go out, at the end of a pause of
 * GOVERNOR_PROBE_MS, twice as long with each further failure, but no longer than pause_ms_max.
 * True: it is stopped. */
bool governor_run_counts(struct governor_entry *entry, uint64_t begun_ns, uint64_t now_ns,
                         uint32_t run_max, uint64_t pause_ms_max);
/* Something got through. True: the destination was stopped, and is not any more. */
bool governor_run_ends(struct governor_entry *entry);
/* A message was taken: see governor_step_down(). */
void governor_taken(struct governor_entry *entry, uint64_t now_ns);
/* A stopped destination may be probed at once. */
void governor_probe_now(struct governor_entry *entry, uint64_t now_ns);
/* When a probe may go out; 0: nothing is stopped. */
static inline uint64_t governor_stopped_ns(const struct governor_entry *e)
{
    return atomic_load_explicit(&e->shared.stopped_ns, memory_order_relaxed);
}
/* Whether a message may go out now: nothing is stopped, or it is the probe, which then is claimed
 * (take) until its answer comes, or for half a minute. */
bool governor_may_send(struct governor_entry *entry, bool take, uint64_t now_ns);
/* What was claimed as the probe was never sent: it tells nothing, and another one may go out. */
void governor_probe_back(struct governor_entry *entry);
/* A site that had not answered works again. */
void governor_up(struct governor_entry *entry);
/* How often that was: another worker that holds mail back for it looks now and then. */
uint32_t governor_ups(const struct governor_entry *entry);
/* worker, which holds own sessions, wants no more: nobody has to give way to it. */
void governor_session_withdraw(struct governor_entry *entry, uint32_t worker, uint32_t own);
/* Whether another worker was denied a session and still wants one. */
bool governor_contended(const struct governor_entry *entry, uint32_t worker);
/* Whether a worker that holds own sessions, the one asked about for held_ms, should end one because
 * another worker was denied: over its fair share at once, at its share after two seconds (time
 * slice). */
bool governor_should_yield(struct governor_entry *entry, uint32_t worker, uint32_t own,
                           uint64_t held_ms, uint64_t now_ns);

/* Takes the right to send a message now: of all rates, or of none. 0: taken; otherwise the value is
 * the monotonic time in ns at which to ask again, *by the rate that refuses. Smooth (GCRA): a rate
 * of 300 a minute is one every 200 ms, and a burst only where the limits have one: in no time more
 * than that, what the rate lets through, and the one message or recipient that may always go. */
uint64_t governor_message_take(struct governor_entry *entry, uint64_t now_ns,
                               const struct governor_load *load, enum governor_counts *by);
/* who, another than those that take from the entry in other workers or for other sites, has a
 * message of priority that waits for nothing but the entry's rates, and takes leave for it as soon
 * as they give it: meanwhile those of a worse priority get none. A claim lasts until a moment after
 * the rates give leave, so that leave that is claimed and not taken is hardly lost. */
void governor_claim(struct governor_entry *entry, uint16_t who, uint8_t priority, uint64_t now_ns);
/* Gives back what governor_message_take() took so long ago and nobody sent. Time that has passed
 * since is not given, for others may have waited it out: what the peer sees never exceeds the rate.
 */
void governor_message_give(struct governor_entry *entry, uint64_t now_ns,
                           const struct governor_load *load, uint64_t ago_ns);
/* Takes leave for up to want further recipients of a message for which one was taken: as many as
 * may go at once. Returns how many. */
uint32_t governor_recipients_more(struct governor_entry *entry, uint64_t now_ns, uint32_t want);
/* n of the further recipients were not sent to: their leave is given back. */
void governor_recipients_give(struct governor_entry *entry, uint64_t now_ns, uint32_t n);
/* A message for which leave was taken turned out to be larger by bytes: what follows makes up for
 * it; or smaller, below 0. */
void governor_bytes_more(struct governor_entry *entry, uint64_t now_ns, int64_t bytes);
/* Somebody waits for ms for a limit of the entry; how long that was in all, by all workers. */
static inline void governor_hold(struct governor_entry *e, enum governor_counts by, uint64_t ms)
{
    atomic_fetch_add_explicit(&e->shared.held_ms[by], ms, memory_order_relaxed);
}
static inline uint64_t governor_held_ms(const struct governor_entry *e, enum governor_counts by)
{
    return atomic_load_explicit(&e->shared.held_ms[by], memory_order_relaxed);
}
/* Takes the leave to open a connection. 0: it is given; else when to ask again. */
uint64_t governor_connect_take(struct governor_entry *entry, uint64_t now_ns);
void governor_connect_give(struct governor_entry *entry, uint64_t now_ns);
/* A further connection is opened in the place of one that gave no session: connections that follow
 * wait the longer for that. */
void governor_connect_more(struct governor_entry *entry, uint64_t now_ns);
uint64_t governor_connect_at(const struct governor_entry *entry);
/* Sessions are opened ahead of the messages that they are for. One is opened now: returns when the
 * next may be (monotonic ns; 0: there is no rate). next_ns: what this function returned for the
 * last one, or 0. At first as many sessions open as the rate lets messages through in a second, or
 * as its burst has; then GOVERNOR_OPENS for each message, since some fail. */
#define GOVERNOR_OPENS 4
uint64_t governor_open_next(const struct governor_entry *entry, uint64_t next_ns, uint64_t now_ns);
/* Sites of all workers that share a rate and do not stand in one line begin to look for a message
 * that can go as often as governor_open_next() lets sessions open. 0: a site may look now; else
 * when to ask again. */
uint64_t governor_try(struct governor_entry *entry, uint64_t now_ns);
/* When a site that governor_try() or the rate has just refused is to ask again: within a second.
 * Sites that ask are given times one behind the other, some for each message, so that not all of
 * thousands come for each message. */
uint64_t governor_line(struct governor_entry *entry, uint64_t now_ns);
/* The time between two messages that all rates let through, in ns, as far as it is known: each
 * message has one recipient at least, and about as many bytes as the last one. 0: there is no rate.
 */
uint64_t governor_apart_ns(const struct governor_entry *entry, uint64_t now_ns);
/* The rate in force, to be shown; count 0: there is none. True: by a cap. */
bool governor_rate(const struct governor_entry *entry, uint64_t now_ns, enum governor_counts which,
                   uint64_t *count, uint32_t *period_ms);
/* When the next may be sent, monotonic in ns; 0 or in the past: now. *by, which may be NULL: the
 * rate that says so. */
uint64_t governor_message_at(const struct governor_entry *entry, uint64_t now_ns,
                             enum governor_counts *by);

#endif

/* The process-wide table of limits, one entry per (source x site): how many sessions are open and
 * when the next message may go. It is the seam at which a pool of machines will share limits.
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

struct governor_limits {
    uint32_t sessions_max;  /* 0 = none */
    uint64_t rate_messages; /* per rate_period_ms; 0 = none */
    uint32_t rate_period_ms;
};

struct governor_entry {
    struct map_node node; /* under the governor's mutex, as are cooling, refs and key */
    struct list_node cooling;
    uint32_t refs;
    char *key;
    /* Limits: written on reload, read on every take; relaxed, since a limit has no moment at which
     * it must be seen by all. */
    _Atomic uint32_t sessions_max;
    _Atomic uint64_t interval_ns; /* between two messages; 0 = no rate limit */
    struct {
        /* Taken and given by all workers. seq_cst by default: the order between workers decides who
         * gets the last session. */
        _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t sessions;
        _Atomic uint64_t denied; /* bit per worker (modulo 64) that wanted a session and got none */
        _Atomic uint64_t holders; /* bit per worker that holds or wants sessions */
        _Atomic uint64_t next_ns; /* GCRA: theoretical arrival time of the next message */
        _Atomic uint64_t lowered; /* second << 32 | sessions: see governor_slow_down(); 0: not */
        _Atomic uint32_t ups;     /* see governor_ups() */
    } shared;
};

int governor_open(struct governor **out) MUST_USE;
void governor_close(struct governor *g);

/* The entry of key, made when missing; limits are (re-)applied. NULL when memory is out. */
struct governor_entry *governor_get(struct governor *g, struct str key,
                                    const struct governor_limits *limits);
void governor_put(struct governor *g, struct governor_entry *entry, uint64_t now_ns);

/* Takes a session slot for worker. False: at the limit; the denial is remembered, so that holders
 * over their share give way (governor_should_yield()). */
bool governor_session_take(struct governor_entry *entry, uint32_t worker, uint64_t now_ns);
/* The worker that holds none any more says so with governor_session_withdraw(): another one may be
 * taking its first at this moment, so nobody else's bit can be cleared here. */
void governor_session_give(struct governor_entry *entry);
/* Whether as many are open as may be, by the configuration or by what the peer said. */
bool governor_sessions_full(const struct governor_entry *entry, uint64_t now_ns);
/* The peer refused a session, or what was sent on it, for being too much: as many as are open but
 * one may be. A tenth more, one at least, each minute, until it is sessions_max again. */
void governor_slow_down(struct governor_entry *entry, uint64_t now_ns);
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

/* Takes the right to send messages messages now. 0: taken; otherwise nothing is taken and the
 * value is the monotonic time in ns at which to ask again. Smooth (GCRA): a rate of 300 a minute is
 * one every 200 ms, never a burst. */
uint64_t governor_message_take(struct governor_entry *entry, uint64_t now_ns, uint32_t messages);
/* When the next may be sent, monotonic in ns; 0 or in the past: now. */
uint64_t governor_message_at(const struct governor_entry *entry);

#endif

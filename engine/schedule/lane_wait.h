/* What holds a lane's due mail back now, for all screens that say it: nothing here changes
 * anything.
 *
 * Thread: the lane's worker. */
#ifndef HAYAUMA_ENGINE_LANE_WAIT_H
#define HAYAUMA_ENGINE_LANE_WAIT_H

#include "limits/limit.h"
#include "schedule/lane.h"
#include "worker/suspensions.h"

enum lane_wait_reason {
    LANE_WAIT_NONE,      /* nothing is due, or it is being sent */
    LANE_WAIT_DRAINING,  /* the engine is about to stop */
    LANE_WAIT_DISK,      /* what was sent cannot be recorded: the store has no room */
    LANE_WAIT_SUSPENDED, /* an operator said so */
    LANE_WAIT_BACK_OFF,  /* the destination failed as a whole */
    LANE_WAIT_NO_ROUTE,  /* its domain could not be looked up */
    LANE_WAIT_MEMORY,    /* queue.memory_max is reached, or its site's share is under way */
    LANE_WAIT_LOOKUP,    /* its domain is being looked up */
    LANE_WAIT_RATE,      /* our own limit: the next message may not go yet */
    LANE_WAIT_QUIET,     /* it is a quiet hour at its site */
    LANE_WAIT_WARMUP,    /* its source, signing domain or campaign is being warmed up, and has sent
                            what it may for now */
    LANE_WAIT_SESSIONS,  /* as many sessions as are allowed are open, and busy */
    LANE_WAIT_SHORTAGE,  /* this host lacks descriptors, memory or local ports for a session */
    LANE_WAIT_SOURCE,    /* no source of its pool has an address here, a proxy that works, or an
                            address of the site's family */
    LANE_WAIT_CONNECT,   /* no session yet, or none could be had: tried again then */
    LANE_WAIT_REASONS
};

struct lane_wait {
    enum lane_wait_reason reason;
    int64_t until_ms;             /* wall clock; 0: nobody knows */
    const char *host, *error;     /* of the answer that is the reason, or NULL; the lane's */
    int64_t answered_ms;          /* wall: when it came; 0: there is none */
    struct suspension suspension; /* of LANE_WAIT_SUSPENDED */
    struct warmup_stream *warmup; /* of LANE_WAIT_WARMUP */
    /* Of what depends on a source, the one that may send first; NULL: it depends on none. */
    const struct config_source *source;
    /* Of LANE_WAIT_RATE and LANE_WAIT_SESSIONS. LIMIT_NONE: no limit is known. */
    struct limit_denial limit;
    const struct config_destination *quiet; /* of LANE_WAIT_QUIET: whose hours; or NULL */
};

void lane_wait(struct lane *lane, struct lane_wait *out);
/* The same, but what keeps the source of this name from taking the lane's mail, whatever its other
 * sources may do. LANE_WAIT_NONE too where the source has had no turn there. */
void lane_wait_of_source(struct lane *lane, struct str source, struct lane_wait *out);
/* False: its pool binds it to another source, and not for the lack of this one. */
bool lane_is_of_source(const struct lane *lane, struct str source);
/* What either costs: 1, and more where many sources may send lane's mail. */
uint32_t lane_wait_cost(const struct lane *lane);
/* How many messages an hour the settings let through to lane's site from its pool: the rates of the
 * sources that can send, also those of sessions that begin, for each may have so many messages; the
 * hour's share where one is being warmed up; the rates over all sources, and those of its tenant
 * and campaign. INFINITY: they set no bound. */
double lane_ceiling(struct lane *lane);
/* Appends in words what a recipient that expires untried has waited for: "the rate limit". Called
 * while that reason still holds. */
void lane_waited_for(struct lane *lane, struct buf *out);
/* Appends how far it has come, where the reason is LANE_WAIT_WARMUP: "1,200 of 1,200 today, next
 * hour's share at 14:00". */
void lane_wait_put_warmup(struct worker *w, const struct lane_wait *wait, struct buf *out);
/* "back_off", as docs/control.md lists them; NULL for LANE_WAIT_NONE. */
const char *lane_wait_name(enum lane_wait_reason reason);

#endif

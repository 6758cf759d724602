/* A lane: one queue name of one flow in one shard. A lane has the due times, the bounded window of
 * recipients in memory, and the back-off of a destination; it feeds a site's sessions.
 *
 * A recipient in memory belongs to its lane (r->lane) from arrival or load until the commit that
 * settles it; r->state says where it is meanwhile. Of rows that are not in memory a lane knows the
 * earliest due time. See docs/ARCHITECTURE.md, "Rules that keep memory and store agreeing". Thread:
 * the worker that owns the shard. */
#ifndef HAYAUMA_ENGINE_LANE_H
#define HAYAUMA_ENGINE_LANE_H

#include "smtp/reply.h"
#include "worker/worker.h"

struct dns_route;
struct feed_flow;
struct site;
struct supply;
struct lane_load;
struct lane_routing;

enum recipient_place {
    PLACE_WINDOW = 1, /* in lane->window */
    PLACE_FLIGHT,     /* in a transaction, or between two windows */
    PLACE_SETTLING,   /* in a settle */
    PLACE_ZOMBIE,     /* settled while a load of its lane was under way */
};

/* Whether its mail may go, as far as the destination is concerned. */
enum lane_state {
    LANE_OPEN,
    LANE_UNROUTED,  /* its domain could not be looked up, it backs off */
    LANE_SITE_DOWN, /* its supply is down: it goes on when the supply works again, or earlier */
    LANE_STATES
};

/* Reading what is due from the store: a scan, in one load or many. */
enum lane_scan {
    LANE_SCAN_NONE,
    LANE_SCAN_READS, /* a load is under way */
    LANE_SCAN_RESTS, /* amid a scan: the next load waits for room */
    LANE_SCANS
};

struct lane {
    struct map_node node; /* worker->lanes */
    struct worker *worker;
    struct list_node ready_node;    /* in supply->feed while the window has something to send */
    struct list_node wait_node;     /* worker->load_wait, or one of supply->hungry */
    struct list_node site_node;     /* supply->attached, shut or waking */
    struct list_node outlived_node; /* sweep's waiting: stored rows are past their lifetime */
    struct list window;
    struct list zombies;
    struct site *site;            /* NULL until routed */
    struct supply *supply;        /* its pool's at the site; with site */
    struct lane_load *load;       /* while there is a scan */
    struct lane_routing *routing; /* while a route is looked up */
    struct timer timer;
    char *last_error; /* "450 4.2.0 text" of the last failed attempt; for status and expired mail */
    char *last_host;  /* the host that answered last_error; NULL: no host was asked */
    int64_t last_error_ms;     /* wall: when */
    uint64_t route_expires_ms; /* monotonic */
    uint64_t refilled_ms;      /* monotonic: when the last refill came */
    uint64_t seen_until_ms;    /* monotonic: a load may have read what was received up to then */
    uint64_t shut_until_ms;    /* monotonic: when a state other than LANE_OPEN ends */
    int64_t stored_due_ms;     /* earliest due row that is not in memory, or was not when the scan
                                  under way began; INT64_MAX: none */
    int64_t behind_due_ms;     /* the same for rows that a scan under way may have passed */
    int64_t expires_ms; /* no stored row expires untried before this; INT64_MAX: none known */
    int64_t window_expires_ms; /* the same of the window */
    int64_t loaded_until_ms;   /* due rows before this are in memory: the next scan begins here */
    uint32_t shard, flow;
    const struct queue_flow *names; /* by which it is sent: lane_names(); NULL when the flow's
                                       record was lost */
    uint32_t names_version;
    struct feed_flow *share; /* while it is ready: its flow's in supply->feed */
    uint32_t in_memory, window_len, in_flight;
    uint64_t window_bytes; /* see supply_bytes_of() */
    uint32_t refill;       /* rows that a refill brings the window to; follows the lane's pace */
    uint32_t fetching;     /* reads of single rows under way (administration) */
    uint16_t failures;     /* failures in a row of the destination as a whole */
    uint16_t name_len;
    uint8_t state;        /* enum lane_state; lane_set_state() */
    uint8_t scan;         /* enum lane_scan; lane_set_scan() */
    uint16_t suspensions; /* bit per scope in which the lane is suspended */
    bool held;            /* in supply->shut or waking: supply_holds() */
    bool hungry;          /* wait_node is in one of supply->hungry */
    bool knows_stored;    /* stored_due_ms is of all rows: lane_find.h; else of those that it met */
    bool was_in_use;      /* at the last look of lanes_leave_step() */
    uint32_t suspensions_changed; /* the worker's count of changes when suspensions was looked up */
    char name[];
};

/* What lanes tell the rooms above; run/ sets them before the worker's first turn. */
struct lane_hooks {
    /* r, PLACE_FLIGHT, ends: its lifetime was over before it could be tried (again). */
    void (*expired)(struct recipient *r);
    /* No route leads to lane's domain. route: what the lookup said; NULL: the configuration rejects
     * the domain. The hook decides what becomes of the lane and of its window. */
    void (*unroutable)(struct lane *lane, const struct dns_route *route);
    /* lane's domain has exchangers, and a policy lets its mail go to none of them: why, in words.
     * The policy or the exchangers may change. */
    void (*forbidden)(struct lane *lane, const char *why);
};

/* The campaign of the engine's own reports of TLS; no client may name one so. They go out whatever
 * becomes of TLS (RFC 8460 3): no policy that a domain has published holds for them. */
#define LANE_CAMPAIGN_TLS_REPORTS "@tls-reports"
static inline bool lane_reports_tls(const struct lane *lane)
{
    return lane->names != NULL && str_eq(lane->names->campaign, STR(LANE_CAMPAIGN_TLS_REPORTS));
}

/* The lane of a shard, made when missing. NULL when memory is out. */
struct lane *lane_get(struct worker *w, uint32_t shard, uint32_t flow, struct str name);
/* The lane of a shard, or NULL when there is none in memory: such a lane has nothing that is due.
 */
struct lane *lane_known(struct worker *w, uint32_t shard, uint32_t flow, struct str name);
static inline struct str lane_name(const struct lane *lane)
{
    return (struct str){lane->name, lane->name_len};
}
/* Whether the store has rows that were due at now_ms, or a scan has not found out yet. */
static inline bool lane_has_due(const struct lane *lane, int64_t now_ms)
{
    return lane->scan != LANE_SCAN_NONE || lane->stored_due_ms <= now_ms;
}
/* Whether lane's state shuts it, and neither the time of that nor its reason is over. */
bool lane_backs_off(const struct lane *lane);
/* Until when lane is shut: by its own state, or since no source may send for its supply. Wall
 * clock, to be shown; 0: it is not shut. */
int64_t lane_shut_wall_ms(const struct lane *lane);
/* Whether nothing of lane may be sent: it backs off, its supply is parked, or an operator has
 * suspended it. */
bool lane_suspended(struct lane *lane);
/* The flow by whose names lane's mail is sent, and as whose mail it shares: the flow of its rows,
 * or the one that its campaign was set to. */
static inline uint32_t lane_shares_as(const struct lane *lane)
{
    return lane->names == NULL ? lane->flow : lane->names->id;
}
static inline uint8_t lane_priority(const struct lane *lane)
{
    return lane->names == NULL ? PRIORITY_DEFAULT : lane->names->priority;
}
static inline struct str lane_tenant(const struct lane *lane)
{
    return lane->names == NULL ? STR("") : lane->names->tenant;
}
/* The destination domain in the lane's name. */
struct str lane_domain(const struct lane *lane);

/* A stored recipient comes from memory (after its commit): into the window, or freed when there is
 * no room, to be loaded later. */
void lane_arrive(struct worker *w, uint32_t shard, struct recipient *r);
/* Rows appeared or changed in the store that memory does not have; the earliest is due at due_ms.
 */
void lane_stored(struct lane *lane, int64_t due_ms);
/* r's settle committed; next_due_ms: its new due time, INT64_MAX when its row is gone. Frees r. */
void lane_settled(struct recipient *r, int64_t next_due_ms);
/* r's settle committed, by which its row went over to r->flow: the lane there has it in the store.
 * Frees r. */
void lane_moved(struct recipient *r);
/* The next recipient to send, now PLACE_FLIGHT; NULL when the window is empty. */
struct recipient *lane_pop(struct lane *lane);
/* The recipient that lane_pop() would give, or NULL. */
struct recipient *lane_peek(const struct lane *lane);
/* Whether r's time is over before it could be tried again. The last attempt is due at expiry itself
 * (retry_next_ms()): it is made, unless it comes late. */
bool lane_expired(const struct recipient *r, int64_t now_ms);
/* Puts r, which was not attempted, back in front of the window. */
void lane_unpop(struct recipient *r);
/* Gives r, which is PLACE_FLIGHT, back to the store, whatever room the window has. */
void lane_return(struct recipient *r);
/* r left the lane's flight for a settle. */
void lane_settling(struct recipient *r);
/* Takes a recipient that was read from the store for some other purpose than sending into memory,
 * as PLACE_FLIGHT. False: it is in memory already; r is freed. */
bool lane_adopt(struct worker *w, uint32_t shard, struct recipient *r);
/* Around a read for lane_adopt(), once per row: a recipient that is settled during the read stays
 * known, since the read may have found its row before that. */
void lane_fetch_begin(struct worker *w, uint32_t shard, uint32_t flow, struct str name);
void lane_fetch_end(struct worker *w, uint32_t shard, uint32_t flow, struct str name);
/* Remembers that the last attempt failed: with reply, at host (NULL: no host was asked). */
void lane_note_error(struct lane *lane, const struct smtp_reply *reply, const char *host);
/* The destination as a whole failed; arguments as in lane_note_error(). The lane backs off, longer
 * with each such failure in a row, and gives its window up. */
void lane_suspend(struct lane *lane, enum lane_state state, const struct config_destination *dest,
                  const struct smtp_reply *reply, const char *host);
/* The destination works: forgets failures. */
void lane_succeeded(struct lane *lane);
/* Ends the back-off: attempts go on now. */
void lane_resume(struct lane *lane);
/* Forgets back-off and route: attempts at once (flush), unless an operator suspended it. */
void lane_flush(struct lane *lane);
/* After a reload: routes and limits of all lanes are looked up anew, some lanes a turn, so that a
 * million of them hold up nothing. lanes_renew() begins that, lanes_renew_step() is called in each
 * turn. */
void lanes_renew(struct worker *w);
void lanes_renew_step(struct worker *w);
/* lane has got another site: looks whether that site is suspended. */
void lane_suspensions_look(struct lane *lane);
/* What lane->names is to be now; *version: of what its campaign was set to. */
const struct queue_flow *lane_names(const struct lane *lane, uint32_t *version);
/* Suspends and resumes lanes as shared->suspensions says now; on_done() is called when all have
 * heard of it, or when the worker ends. walk lives until then. */
struct suspension_walk {
    void (*on_done)(struct suspension_walk *walk);
    size_t bucket;
    uint32_t change; /* of the worker's count: of changes up to this one lanes hear */
    struct list_node node;
};
void lane_suspensions_begin(struct worker *w, struct suspension_walk *walk);
/* Walks the next slice of lanes. Once a turn. */
void lane_suspensions_walk(struct worker *w);
void lane_suspensions_abandon(struct worker *w);
/* Gives the window back to the store. The caller updates the lane. */
void lane_window_release(struct lane *lane);
/* Re-evaluates what the lane should be doing now. */
void lane_update(struct lane *lane);
/* Does what lane_update() does, in one of the next turns. */
void lane_update_soon(struct lane *lane);
/* Finds a recipient in memory, or NULL. */
struct recipient *lane_find(struct worker *w, const struct msgid *id, uint32_t index);
/* Takes a recipient out of the window; it is then PLACE_FLIGHT. */
void lane_take(struct recipient *r);
/* lane leaves supply: a load that it waited for there, or has under way, is the lane's alone now.
 */
void lane_load_leave(struct lane *lane, struct supply *supply);
/* Whether messages in memory are so many that supplies must share it: supply_has_room(). */
bool lane_memory_tight(const struct worker *w);
/* Bytes of queue.memory_max that nothing takes. */
uint64_t lane_memory_free(const struct worker *w);
/* Whether lane_start_loads() would start some. */
bool lane_loads_wait(const struct worker *w);
/* Starts refills that wait, as far as memory and LOADS_MAX allow. Once a turn. */
void lane_start_loads(struct worker *w);
/* Teardown: frees every lane and what it holds. */
void lane_close_all(struct worker *w);

#endif

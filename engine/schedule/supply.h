/* A supply: the mail of one pool for one site, in one worker. It has the lanes that wait, the feed
 * that says whose message is next, and the turns of the pool's sources, which say who sends it.
 *
 * A source that may send nothing now (channel_shut()) takes no part in the turns: its mail is the
 * others'. While none takes part those of the overflow pool do, unless one is only busy. A pool
 * that binds domains or campaigns to sources has a supply for each source at a site, in which one
 * source takes part at a time: the bound one, or while it is suspended or away the next. Thread:
 * the worker's; a supply lives as long as its site. */
#ifndef HAYAUMA_ENGINE_SUPPLY_H
#define HAYAUMA_ENGINE_SUPPLY_H

#include "schedule/feed.h"
#include "schedule/site.h"
#include "schedule/turns.h"

struct channel;

/* Why a channel may send nothing now. */
enum channel_shut {
    CHANNEL_OPEN,
    CHANNEL_SUSPENDED, /* an operator suspended its source */
    CHANNEL_AWAY,      /* this machine does not hold the source's address, or has no route from it;
                          its proxy is down */
    CHANNEL_FAMILY,    /* the site has no address of a family that the source has */
    CHANNEL_STOPPED,   /* nothing gets through: until the next probe */
    CHANNEL_LIMIT,     /* a limit says so */
    CHANNEL_QUIET,     /* it is a quiet hour there */
    CHANNEL_SHORTAGE,  /* this host lacks what a session needs */
    CHANNEL_REFUSED,   /* no session could be had */
    CHANNEL_BUSY       /* its sessions are all busy, for longer than others wait for it */
};

/* Whether the source cannot send there at all, whatever the receiver answers and limits say: what
 * is bound to it goes by another. */
static inline bool channel_shut_is_source(enum channel_shut shut)
{
    return shut == CHANNEL_SUSPENDED || shut == CHANNEL_AWAY || shut == CHANNEL_FAMILY;
}

/* No session can be had from any source: what the lanes that have something ready hear of it. Its
 * owner makes it; from supply_fail() on it is the supply's. */
struct supply_failure {
    /* Tells lane. At least one recipient of its window ends or leaves it, and no more than max end.
     */
    void (*tell)(struct supply_failure *failure, struct lane *lane, uint32_t max);
    /* All have heard, or it is over: failure may be freed. */
    void (*done)(struct supply_failure *failure);
    uint32_t left; /* recipients that waited when it failed, and have not heard */
};

#define SUPPLY_SESSION_LOOK_MS 20  /* whether a tenant or campaign may have a further session */
#define RECIPIENT_BYTES        512 /* of one in memory, about, beside its content */

/* The place of a source in a supply. */
struct seat {
    struct turn turn;
    struct supply *supply;
    struct channel *channel; /* NULL: it had no turn yet */
    const struct config_source *source;
    struct list_node channel_node; /* channel->seats */
    bool overflow;                 /* of the overflow pool's */
    bool unbound;                  /* the mail is bound to another source of the pool */
    /* Of the pool's own, and out of the turns for this reason alone: */
    bool busy;   /* its work */
    bool leased; /* a lease of warm-up that is being stored */
};

struct supply {
    struct site *site;
    const struct config_pool *pool;
    uint32_t bound; /* the source that this mail is bound to: its number in the pool from 1; 0 */
    struct list_node site_node, dirty_node;
    struct timer timer;
    /* The lanes whose mail goes here are in one of three lists, by site_node. */
    struct list attached;       /* those that may go on, as far as they know */
    struct list shut;           /* those that asked, and are held back: supply_holds() */
    struct list waking;         /* those of shut that have not heard that it is over */
    struct list_node walk_node; /* worker->supply_walks while lanes have something to hear */
    struct feed feed;           /* of them those with something in their window */
    struct list hungry[FLOW_PRIORITIES]; /* lanes that wait for room, by wait_node */
    uint16_t hungry_bands;               /* bit per priority of which some may wait */
    uint32_t waiting;                    /* recipients in their windows */
    /* Who sends. */
    struct seat *seats; /* the pool's, then the overflow pool's */
    uint32_t seats_len;
    struct turns turns, overflow;
    uint32_t busy, leased;        /* seats */
    uint32_t suspensions_changed; /* the worker's count when the seats were looked at */
    uint32_t sources_changed;     /* the process's, of addresses */
    uint32_t caps_seen;           /* the process's version of what answers lowered */
    const struct seat *slow;      /* first in turns, and busy, when the timer was armed */
    uint64_t slow_pass;           /* where it stood then */
    uint64_t slow_until_ms;       /* monotonic: so long the others wait for it */
    uint64_t leased_until_ms;     /* monotonic: so long the overflow waits for leases */
    /* Memory: see supply_has_room(). Bytes. */
    uint64_t held;    /* by the windows */
    uint64_t loading; /* that loads under way may bring */
    uint64_t pace[2]; /* handed out in the present second and in the one before */
    uint64_t pace_s;  /* the present one, monotonic */
    /* Whether it works: supply_state.c. */
    bool down; /* no session can be had from any source: its lanes back off */
    /* Monotonic. Not 0: no source may send until about then, and its mail waits in the store. */
    uint64_t parked_ms;
    struct supply_failure *failure; /* of which lanes have still to hear, or NULL */
};

/* The supply of the lane's pool at site, made when missing. */
struct supply *supply_get(struct site *site, const struct lane *lane);
/* Which source of pool mail of this domain and campaign is bound to: its number from 1; 0: to none.
 */
uint32_t supply_bound(const struct config_pool *pool, struct str domain, struct str campaign);
/* Nothing may be attached. */
void supply_free(struct supply *s);
/* Work or room appeared: the end of the turn looks at the supply. */
void supply_dirty(struct supply *s);
/* The supply is looked at when at_ms (monotonic) has come, or earlier. */
void supply_wake(struct supply *s, uint64_t at_ms);

/* Whether the turns in force are those of the overflow pool's seats: none of the pool's own takes
 * part, and none is only busy. */
static inline bool supply_overflows(const struct supply *s)
{
    return s->turns.len == 0 && s->busy == 0;
}
static inline struct turns *supply_turns(struct supply *s)
{
    return supply_overflows(s) ? &s->overflow : &s->turns;
}
/* The seat whose turn it is; NULL: no source may send. */
struct seat *supply_next(struct supply *s);
/* The seat's channel, made when it has none. */
struct channel *seat_channel(struct seat *seat);
/* Whether the seat's channel may take something now: it is its turn, or nearly, and who is in front
 * is busy. */
bool seat_may_take(struct seat *seat);
/* Whether the seat comes to its turn with what waits now. */
bool seat_may_open(struct seat *seat);
/* The seat takes part in the turns as long as its channel may send: in. */
void seat_set(struct seat *seat, bool in);
/* Whether the seat's channel may send, and why not. True: that lets the overflow pool have turns,
 * or ends that. */
bool seat_note_shut(struct seat *seat, enum channel_shut shut);
/* How many of the recipients that wait in the supply would be the seat's. */
uint32_t seat_waiting(const struct seat *seat);
/* Something was taken for seat's channel: moves the turn on. */
void seat_pay(struct seat *seat);
/* Looks which sources are suspended or away, if that may have changed, or force. */
void supply_look_seats(struct supply *s, bool force);
/* Before work is handed out: looks at seats, hungry lanes and whether the supply works, and tells
 * the channels whose turn it is that there is work. */
void supply_look(struct supply *s);

/* What r takes of the memory that its lane's supply may have: content is shared by a message's
 * recipients. */
static inline uint64_t supply_bytes_of(const struct recipient *r)
{
    return RECIPIENT_BYTES +
           r->message->content_len / (r->message->recipients > 0 ? r->message->recipients : 1);
}
/* So many bytes of messages were handed to sessions. */
void supply_pace(struct supply *s, uint64_t bytes);
/* Whether the supply's lanes may hold more. While memory is short that is what it sends in a second
 * or two, and a little to begin with; one that cannot send for a while has none, and its windows go
 * back to the store (lane_start_loads()). So thousands of lanes behind one slow destination hold
 * what it needs and no more. */
bool supply_has_room(const struct supply *s);
/* While memory is short: whether windows are to go back to the store. Twice what loads may fill, or
 * what a load brought would go back at once, for ever. */
bool supply_holds_too_much(const struct supply *s);
/* How many bytes a load for it may bring; at least one message comes. */
uint64_t supply_room_bytes(const struct supply *s);
/* lane waits for room, behind those of its priority and of better ones. */
void supply_hungers(struct supply *s, struct lane *lane);
/* Why no source may send, and until when: of the channel that may first. monotonic ms; UINT64_MAX:
 * nobody knows. CHANNEL_OPEN: some may, or may again. *out NULL: all are suspended or away, and had
 * no turn. */
enum channel_shut supply_shut(const struct supply *s, struct channel **out, uint64_t *until_ms);

/* Whether some source may send, or could but for a limit or a shortage of this host. */
bool supply_has_hope(const struct supply *s);
/* Something got through: what waited because the supply was down goes on. */
void supply_resume(struct supply *s);
/* No session can be had from any source: until one can, in whichever worker, the lanes that have
 * something ready hear failure, and back off. */
void supply_fail(struct supply *s, struct supply_failure *failure);
/* Whether lane's supply holds the lane back now: lane hears when that is over. */
bool supply_holds(struct lane *lane);
/* Whether it is down or parked may have changed. */
void supply_look_state(struct supply *s);
/* Lanes hear what became of their supplies, as many as fit a turn. Once a turn. */
void supplies_walk(struct worker *w);
/* s goes: nobody is left to hear. */
void supply_walk_end(struct supply *s);
/* An operator wants attempts now. */
void supply_flush(struct supply *s);

#endif

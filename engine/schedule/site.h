/* A site: the set of exchangers that serve one or more domains, or a static route, with the limits
 * that hold there. Lanes with ready mail queue up in a site and are served in turn, by the sessions
 * that deliver/ opens (deliver/sessions.h). site.c decides what is sent next, and whether it may
 * go. Thread: the worker's; a site lives until its last lane and its last session have left. */
#ifndef HAYAUMA_ENGINE_SITE_H
#define HAYAUMA_ENGINE_SITE_H

#include "schedule/exchanger.h"
#include "schedule/feed.h"
#include "smtp/client.h"
#include "worker/worker.h"

struct lane;

#define RECIPIENT_BYTES 512 /* of one in memory, about, beside its content */

struct site {
    struct map_node node; /* worker->sites */
    struct worker *worker;
    struct config *config; /* a reference; dest points into it */
    const struct config_destination *dest;
    struct governor_entry *governor;
    struct exchangers exchangers;
    uint16_t rotate; /* see exchangers_next() */
    bool lmtp;
    struct smtp_client_options options;
    struct list attached;       /* lanes whose mail goes here */
    struct feed feed;           /* of them those with something in their window */
    struct list sessions, idle; /* deliver/'s: all, and those without work */
    struct list_node dirty_node;
    struct list_node dead_node; /* worker->sites_dead while nobody is attached */
    struct timer timer;
    uint32_t lanes;   /* attached; the site goes with the last one and the last session */
    uint32_t waiting; /* recipients in the windows of attached lanes */
    /* Memory: see site_has_room(). Bytes. */
    uint64_t held;    /* by these windows */
    uint64_t loading; /* that loads under way may bring */
    uint64_t pace[2]; /* handed out in the present second and in the one before */
    uint64_t pace_s;  /* the present one, monotonic */
    struct list hungry[FLOW_PRIORITIES]; /* lanes that wait for room, by wait_node */
    uint16_t hungry_bands;               /* bit per priority of which some may wait */
    uint32_t sessions_len, connecting;
    uint32_t yielding;           /* sessions that take nothing more, and end */
    uint64_t give_way_until_ms;  /* monotonic: another worker is to get the session that ended */
    uint64_t shortage_until_ms;  /* monotonic: this host lacked what a session needs */
    uint64_t open_after_ms;      /* monotonic: no connection before; the last ones failed */
    uint32_t connecting_max;     /* at once: more with each that succeeds, one after a failure */
    uint16_t failures;           /* in a row to set up a session */
    uint64_t login_complaint_ms; /* monotonic: when a refused login may be told again */
    bool down;         /* nothing gets through; the next success wakes the lanes of all workers */
    uint32_t ups_seen; /* governor_ups() when it went down */
    /* A peer that ends sessions after so many messages without having said so. */
    uint32_t messages_last, messages_max; /* where the last one ended; learnt, 0: not */
    uint64_t messages_last_ms;            /* monotonic: when a session first ended there */
    uint64_t messages_until_ms;           /* monotonic: then a session may try to get further */
    char *name;                           /* for records and status: site name or static route */
    char *key;
};

/* The site of a route for a domain, made when missing; attached lanes are counted with
 * site_attach(). target: static route or NULL. NULL when memory is out. */
struct site *site_get(struct worker *w, struct str domain, const struct config_route *target,
                      struct dns_route *route);
void site_attach(struct site *site, struct lane *lane);
void site_detach(struct site *site, struct lane *lane);
/* Work or room appeared: the end of the turn looks at the site. */
void site_dirty(struct site *site);
/* The site is looked at when at_ms (monotonic) has come, or earlier. */
void site_wake(struct site *site, uint64_t at_ms);
/* Whether a session is up, of this worker. */
static inline bool site_has_session(const struct site *site)
{
    return site->sessions_len > site->connecting + site->yielding;
}
/* End of a turn: frees sites without lanes and sessions. Nothing else does: whoever calls something
 * that may detach the last lane can go on using its site. */
void site_reap(struct worker *w);

/* What site_take() took. */
struct site_taken {
    size_t len;
    bool expired; /* one whose time was over before it could be tried (again): not to be sent */
    uint64_t again_ms; /* nothing is taken, since limits or a stop say wait: monotonic; 0: no */
};
/* The next recipients to send in one transaction: same message, at most max of at most domains_max
 * domains (0: any). They are PLACE_FLIGHT, and the limits' leave for one message is taken with
 * them. All 0: nothing is ready. */
struct site_taken site_take(struct site *site, struct recipient **out, size_t max,
                            uint32_t domains_max);
/* When a destination that is stopped may be sent something: it gets one message to try, when its
 * time has come. 0: now; else when to look again (monotonic). take: that one is taken now. */
uint64_t site_stopped_ms(const struct site *site, bool take);

/* What r takes of the memory that its lane's site may have: content is shared by a message's
 * recipients. */
static inline uint64_t site_bytes_of(const struct recipient *r)
{
    return RECIPIENT_BYTES +
           r->message->content_len / (r->message->recipients > 0 ? r->message->recipients : 1);
}
/* Whether the site's lanes may hold more. While memory is short that is what the site sends in a
 * second or two, and a little to begin with; one that cannot send for a while has none, and its
 * windows go back to the store (lane_start_loads()). So thousands of lanes behind one slow
 * destination hold what it needs and no more. */
bool site_has_room(const struct site *site);
/* While memory is short: whether windows are to go back to the store. Twice what loads may fill, or
 * what a load brought would go back at once, for ever. */
bool site_holds_too_much(const struct site *site);
/* How many bytes a load for it may bring; at least one message comes. */
uint64_t site_room_bytes(const struct site *site);
/* lane waits for room, behind those of its priority and of better ones. */
void site_hungers(struct site *site, struct lane *lane);
/* Lanes that waited for room want their loads, as far as there is some now; else the site looks
 * again when there may be. In front of handing out work. */
void site_feed_hungry(struct site *site);

/* What sessions tell of the site. */

/* Something got through: what waited because the site was down goes on. */
void site_works(struct site *site);
/* An attempt that began at begun_ms ended without anything getting through: the run_max-th in a row
 * stops the destination. True: it is stopped. */
bool site_run_counts(struct site *site, uint64_t begun_ms, uint32_t run_max);
/* No session can be had: until one can, in whichever worker, its lanes wait. */
void site_down(struct site *site);
/* Before work is handed out: looks whether a site that was down works again; in a long pause its
 * mail goes back to the store. */
void site_look(struct site *site);
/* A lane or a session has left site: the end of the turn frees a site that has neither. */
void site_left(struct site *site);

#endif

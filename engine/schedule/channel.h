/* A channel: one source x one site, in one worker. It has the sessions, its place in the limits
 * (its governor entry, which all workers share), and what was learnt of how the site treats the
 * source. It takes from the supplies of the pools that its source is in, when its turn comes there.
 * channel.c says whether it may send, channel_take.c what is sent next. Thread: the worker's; a
 * channel lives as long as its site. */
#ifndef HAYAUMA_ENGINE_CHANNEL_H
#define HAYAUMA_ENGINE_CHANNEL_H

#include "limits/limit.h"
#include "schedule/supply.h"
#include "worker/sources.h"

/* Whose limits a channel is under, from the narrowest on. */
enum channel_limits {
    CHANNEL_OWN,            /* the source at the site: channel->governor */
    CHANNEL_PROVIDER,       /* the source at the site's provider */
    CHANNEL_SOURCE,         /* the source, over all sites */
    CHANNEL_SITE,           /* the site, over all sources */
    CHANNEL_PROVIDER_TOTAL, /* the provider, over all sources */
    CHANNEL_BULK,           /* the source's sessions there that are not kept for urgent mail */
    CHANNEL_LIMITS
};

#define CHANNEL_SLOW_MS  1000 /* so long the others of a supply wait for one that is busy */
#define CHANNEL_STUCK_MS 3000 /* no session was free for so long: nobody waits for it at all */

struct suspension;

struct channel {
    struct site *site;
    const struct config_source *source; /* in site->config */
    struct source *state;               /* the process's */
    struct governor_entry *governor;    /* its own */
    struct limit limits[CHANNEL_LIMITS];
    struct rollup *rollups[CHANNEL_LIMITS]; /* of limits that other sites share; else NULL */
    struct rollup *line;                    /* of these: where it waits for a session */
    struct list_node line_node;             /* line->line */
    uint64_t line_since;                    /* worker->rollup_arrivals as it began to wait */
    struct warmup_stream *warmup; /* of the source here; NULL: it is not being warmed up */
    struct list_node site_node;   /* site->channels */
    struct list_node dirty_node;  /* worker->channels_dirty */
    struct list seats;            /* in the site's supplies */
    struct timer timer;
    struct smtp_client_options options;
    struct list sessions, idle; /* deliver/'s: all, and those without work */
    struct list resting;        /* without work too: rates of their exchanger let nothing go, or
                                   they wait for urgent mail */
    uint32_t sessions_len, connecting;
    uint32_t urgent_len;        /* of them: see channel_session.urgent */
    uint32_t yielding;          /* sessions that take nothing more, and end */
    uint64_t give_way_until_ms; /* monotonic: another worker is to get the session that ended */
    uint64_t shortage_until_ms; /* monotonic: this host lacked what a session needs */
    uint64_t open_after_ms;     /* monotonic: no connection before; the last ones failed */
    uint64_t busy_until_ms;     /* monotonic: until then, or a session is free, others go first */
    uint64_t free_ms;           /* monotonic: when a session last wanted work, or the first began */
    uint32_t connecting_max;    /* at once: more with each that succeeds, one after a failure */
    uint32_t suspensions_changed; /* the worker's count when suspended was looked up */
    uint32_t caps_seen;           /* suspensions_caps_version() when they were looked up */
    uint16_t failures;            /* in a row to set up a session */
    bool suspended;               /* its source is */
    const struct config_destination *quiet; /* whose quiet hours it is; see channel_quiet() */
    int64_t quiet_since_ms, quiet_until_ms; /* wall clock: so long quiet holds */
    struct limit_denial held; /* what it waits for, at the last look; LIMIT_NONE: no limit */
    uint64_t held_ns;         /* monotonic: so far that was counted */
    /* Which limit let no session begin for its mail, at the last look, and likewise. Its entry is
     * among those of limits, or NULL. */
    struct limit_denial lacks;
    uint64_t lacks_ns;
    /* A bit for each family of the source's that is lost, and that no exchanger has a route of its
     * own over; looked at again when a source has changed, and at routes_look_ms (monotonic). */
    uint8_t unrouted;
    uint32_t routes_seen; /* sources.changed then */
    uint64_t routes_look_ms;
    bool usable;       /* neither suspended nor away, at the last look */
    bool down;         /* nothing gets through; the next success wakes the lanes of all workers */
    uint32_t ups_seen; /* governor_ups() when it went down */
    uint32_t messages; /* taken, and not yet in state's count */
    /* A peer that ends sessions after so many messages without having said so. */
    uint32_t messages_last, messages_max; /* where the last one ended; learnt, 0: not */
    uint64_t messages_last_ms;            /* monotonic: when a session first ended there */
    uint64_t messages_until_ms;           /* monotonic: then a session may try to get further */
};

struct channel *channel_new(struct site *site, const struct config_source *source);
/* Without sessions and seats. */
void channel_free(struct channel *c);
/* Messages that it has taken are counted for its source a few at a time: now those that are left.
 */
void channel_count_messages(struct channel *c);
/* Work or room appeared: the end of the turn looks at the channel. */
void channel_dirty(struct channel *c);
/* The channel is looked at when at_ms (monotonic) has come, or earlier. */
void channel_wake(struct channel *c, uint64_t at_ms);

/* Tenants and campaigns of which a session knows that it has had mail: those whose sessions a rate
 * lets begin. */
#define CHANNEL_BEGAN 1024

/* The session that takes. */
struct channel_session {
    /* Whether it has mail under way for which it counts as one of those that limit's tenant or
     * campaign may have. */
    bool (*counts)(const struct channel_session *session, const struct limit *limit);
    bool urgent;              /* it is not among CHANNEL_BULK: it takes urgent mail alone */
    struct limit host;        /* of its exchanger; entry NULL: there are none */
    uint64_t rests_ns;        /* monotonic: so long these let nothing go; 0: they do */
    uint64_t rested_since_ns; /* since when it rests, and for ... */
    enum governor_counts rests_for;
    struct buf began;    /* uint64_t: site_share_id(). Beyond so many each of the oldest ... */
    uint32_t began_next; /* ... makes room, and begins anew */
};
/* What channel_take() took. */
struct channel_taken {
    size_t len;
    const struct limit *sessions[FEED_SESSION_LIMITS]; /* it counts as one of these from now on */
    struct warmup_set warmup;                          /* which gave leave */
    /* Of these a place is taken, for flow_lower_give() at the end; NULL: nothing is lowered. */
    const struct limits_lowered *lowered;
    bool expired; /* one whose time was over before it could be tried (again): not to be sent */
};
/* The next recipients to send in one transaction: same message, at most max of at most domains_max
 * domains (0: any). They are PLACE_FLIGHT, and the limits' leave for one message is taken with
 * them. All 0: nothing is ready, or it is another channel's turn. */
struct channel_taken channel_take(struct channel *c, struct channel_session *session,
                                  struct recipient **out, size_t max, uint32_t domains_max);
/* Whether some supply has something that the channel may take now. */
bool channel_has_work(struct channel *c);
/* Whether something waits in a supply that the channel takes from, whoever's turn it is. */
bool channel_has_mail(const struct channel *c);
/* Whether urgent mail waits in a supply that the channel takes from. */
bool channel_has_urgent(const struct channel *c);
/* How many recipients would be the channel's; for these it opens sessions. */
uint32_t channel_waiting(const struct channel *c);

/* Whether the channel's own limits would give leave for a message, those of the site over all
 * sources apart (site_waits()). 0; -EAGAIN: *why says which refuses. */
int channel_limits_ask(const struct channel *c, struct limit_denial *why) MUST_USE;
/* Whether the channel is shut for nothing but a lease of its warm-up, which is being stored. */
bool channel_is_leased(const struct channel *c);
/* Whether the sessions of some limit are all open, and in *out of which. */
bool channel_sessions_full(const struct channel *c, struct limit *out);
/* When the rates of connections, and of all that other sites share, are no reason to wait with a
 * session, monotonic ns; 0 or in the past: now. */
uint64_t channel_open_at(const struct channel *c);
/* Whether a session opened now would be up when the channel's rate lets the next message go, and
 * there is mail enough that the message will be the channel's. */
bool channel_opens_ahead(const struct channel *c);
/* The destination that sets the quiet hours which keep c's mail now, until c->quiet_until_ms; NULL:
 * it is nobody's quiet hours. */
const struct config_destination *channel_quiet(struct channel *c);
/* What channel_take() gave of lane at taken_ms (monotonic) was not sent: the leave of limits is
 * given back, but for warm-up's. load: of all its recipients, and the bytes that the limits know.
 */
void channel_give_back(struct channel *c, const struct channel_session *session,
                       const struct lane *lane, const struct governor_load *load,
                       uint64_t taken_ms);
/* A message of lane, which channel_take() gave, is larger by bytes than it seemed. */
void channel_bytes_more(struct channel *c, const struct channel_session *session,
                        const struct lane *lane, int64_t bytes);
/* When the rate lets the next message go that is the channel's, and that waits for nothing else:
 * monotonic ms; 0: there is none. */
uint64_t channel_leave_ms(const struct channel *c);
/* Whether and until when (monotonic ms; UINT64_MAX: nobody knows) the channel may send nothing. */
enum channel_shut channel_shut(struct channel *c, uint64_t *until_ms);
/* The channel takes part in the turns of its supplies as channel_shut() says now. True: it does. */
bool channel_look(struct channel *c);
/* Whether source is suspended, at all or at site; out, which may be NULL, says by what. */
bool channel_source_suspended(const struct site *site, const struct config_source *source,
                              struct suspension *out);
/* A bit for each family that it may connect over; see source_families(). */
static inline uint8_t channel_families(const struct channel *c)
{
    return source_families(c->state) & (uint8_t)~c->unrouted;
}
/* A bit for each family of the source's that is lost, and over which no exchanger of the site has a
 * route of its own. */
uint8_t channel_families_unrouted(const struct site *site, const struct config_source *source,
                                  const struct source *state);
/* A session found the families lost that it would connect over: the channel looks anew. */
void channel_unrouted(struct channel *c);

/* Brings the governor's entry up to date with what answers lowered, before something is sent. */
void channel_caps_look(struct channel *c);
/* Where what the receiver says of its limits is kept: it means the source, at all exchangers of a
 * provider. */
struct governor_entry *channel_told(const struct channel *c);
/* Whether it is under limits that other sites share. */
bool channel_is_shared(const struct channel *c);
/* Whether the receiver wants fewer sessions than the configuration. */
bool channel_is_lowered(const struct channel *c);

/* Whether a session is up. What keeps further ones from opening, as a peer that takes only so many,
 * does not concern the mail that goes out by these. */
static inline bool channel_has_session(const struct channel *c)
{
    return c->sessions_len > c->connecting + c->yielding;
}

/* What sessions tell of the channel. */

/* Something got through: what waited because the site was down goes on. */
void channel_works(struct channel *c);
/* An attempt that began at begun_ms ended without anything getting through: the run_max-th in a row
 * stops the channel. True: it is stopped. */
bool channel_run_counts(struct channel *c, uint64_t begun_ms, uint32_t run_max);
/* No session can be had. */
void channel_down(struct channel *c);
/* All sessions of the channel are busy, and other channels of its supplies wait for it no longer:
 * it leaves their turns until a session of it is free, for a second at most. */
void channel_is_busy(struct channel *c);
/* A session is without work: the channel is not busy. */
void channel_is_free(struct channel *c);

#endif

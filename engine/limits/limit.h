/* Several limits taken together: the leave of all of them for a message, or of none. A refusal is a
 * value that says which limit, used how far, and until when. Any thread. */
#ifndef HAYAUMA_ENGINE_LIMIT_H
#define HAYAUMA_ENGINE_LIMIT_H

#include "config/config.h"
#include "limits/governor.h"

enum limit_kind {
    LIMIT_NONE,
    LIMIT_RATE,           /* one source x one site */
    LIMIT_TOTAL_RATE,     /* one site, over all sources */
    LIMIT_SOURCE,         /* one source, over all sites */
    LIMIT_BULK,           /* as LIMIT_RATE: sessions that are not kept for urgent mail */
    LIMIT_HOST,           /* one exchanger of a site, over all sources */
    LIMIT_TENANT,         /* one tenant x one site, over all sources */
    LIMIT_CAMPAIGN,       /* the same of a campaign */
    LIMIT_CAMPAIGN_TOTAL, /* one campaign over all sites and sources: `campaign set` */
    LIMIT_WARMUP,         /* one source at one provider: limits/warmup.h */
    /* What answers lowered of these at one site, over all sources: struct limits_lowered. */
    LIMIT_LOWERED_CAMPAIGN,
    LIMIT_LOWERED_TENANT,
    LIMIT_LOWERED_SIGNER,
    LIMIT_LOWERED_ENVELOPE,
    LIMIT_KINDS
};
static inline bool limit_is_lowered(enum limit_kind kind)
{
    return kind >= LIMIT_LOWERED_CAMPAIGN && kind <= LIMIT_LOWERED_ENVELOPE;
}

struct limit_denial {
    enum limit_kind kind;
    /* Who set it: config_origin_put() says where. NULL: warm-up, or source. */
    const struct config_destination *dest;
    const struct config_source *source; /* of LIMIT_SOURCE */
    const struct config_share *share; /* of LIMIT_TENANT and LIMIT_CAMPAIGN, with what holds ... */
    const struct config_share_site *at; /* ... at the site */
    const char *lowered;                /* of what is lowered: as below */
    struct governor_entry *entry;       /* NULL: warm-up. It lives as long as who holds the limit */
    enum governor_counts counts;        /* which of its limits refuses: what max is of */
    uint64_t max;                       /* so many in period_ms; sessions at a time */
    uint32_t period_ms;
    uint64_t used;     /* of sessions: so many are open */
    bool by_peer;      /* max is less than configured, for the peer wants that */
    uint64_t until_ns; /* monotonic: when to ask again; of sessions 0: nobody knows */
};

struct limit {
    struct governor_entry *entry; /* NULL: no such limit */
    enum limit_kind kind;
    const struct config_destination *dest; /* who set it */
    const struct config_source *source;    /* the same of LIMIT_SOURCE; else NULL */
    const struct config_share *share;      /* the same of a tenant or campaign; else NULL */
    const struct config_share_site *at;
    const char *lowered; /* of what is lowered: its name, "example.com@SITE"; else NULL */
};

/* What is lowered of one flow: none of the four twice. */
#define LIMITS_LOWERED_MAX (LIMIT_LOWERED_ENVELOPE - LIMIT_LOWERED_CAMPAIGN + 1)
struct limits_lowered {
    struct list_node node;
    size_t len;
    struct limit of[LIMITS_LOWERED_MAX];
};

static inline struct governor_rate limit_rate(const struct config_rate *r)
{
    return (struct governor_rate){r->count, r->period_ms, r->burst};
}
/* Whether it is of a tenant or campaign, and limits sessions that have its mail, or how fast they
 * begin. */
static inline bool limit_of_sessions(const struct limit *l)
{
    return l != NULL && l->at != NULL &&
           (l->at->sessions_max != 0 || l->at->connect_rate.count != 0);
}
/* "rate", as the configuration calls it. */
const char *limit_name(enum limit_kind kind, enum governor_counts counts);
/* 0: all of limits gave leave for a message. -EAGAIN: none was taken, *why says which refused. */
int limits_take(const struct limit *limits, size_t len, uint64_t now_ns,
                const struct governor_load *load, struct limit_denial *why) MUST_USE;
/* Gives back what limits_take() took of all of them so long ago, and nobody sent:
 * governor_message_give(). */
void limits_give(const struct limit *limits, size_t len, uint64_t now_ns,
                 const struct governor_load *load, uint64_t ago_ns);
/* Of a message for which limits_take() gave leave: how many of up to want further recipients may go
 * with it; those that do not are given back. */
uint32_t limits_more(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t want);
void limits_give_recipients(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t n);
/* The message turned out to be larger by bytes, or (below 0) smaller: governor_bytes_more(). */
void limits_more_bytes(const struct limit *limits, size_t len, uint64_t now_ns, int64_t bytes);
/* When all of limits let the next message go, monotonic ns; 0 or in the past: now. */
uint64_t limits_message_at(const struct limit *limits, size_t len, uint64_t now_ns);
/* Takes the leave to open a connection from all of limits that have such a rate, or from none
 * (-EAGAIN); and gives it back. */
int limits_connect(const struct limit *limits, size_t len, uint64_t now_ns) MUST_USE;
void limits_unconnect(const struct limit *limits, size_t len, uint64_t now_ns);
/* A further connection is opened in the place of one that gave no session: connections that follow
 * wait the longer for that. */
void limits_connect_more(const struct limit *limits, size_t len, uint64_t now_ns);
/* When limits let the next connection be opened, monotonic ns; 0 or in the past: now. */
uint64_t limits_connect_at(const struct limit *limits, size_t len);
/* The question of limits_take() without taking. -EAGAIN: *why is the refusal that lasts longest. */
int limits_ask(const struct limit *limits, size_t len, uint64_t now_ns,
               struct limit_denial *why) MUST_USE;
/* Makes *why of the refusal of by, whose rate of counts lets nothing go until until_ns. */
void limit_rate_denial(const struct limit *by, enum governor_counts counts, uint64_t now_ns,
                       uint64_t until_ns, struct limit_denial *why);
/* The rate at which sessions may begin, as the configuration of by has it; count 0: any number. */
const struct config_rate *limit_connect_rate(const struct limit *by);
/* Makes *why of the refusal of by, whose rate lets no session begin now. */
void limit_connect_denial(const struct limit *by, struct limit_denial *why);
/* Makes *why of the refusal of by, which has as many sessions open as it allows. */
void limit_sessions_denial(const struct limit *by, uint64_t now_ns, struct limit_denial *why);
/* What screens call the limit that refuses: its key in the configuration. Of sources, tenants and
 * campaigns that word stands in front: "source_rate", "tenant_byte_rate". */
const char *limit_denial_key(const struct limit_denial *why);
/* The key without that word, as its part of the configuration has it: "rate". */
const char *limit_denial_own_key(const struct limit_denial *why);

#endif

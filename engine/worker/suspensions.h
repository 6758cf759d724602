/* Suspensions: orders that mail of a domain, campaign, tenant or site stays in the queue, or that a
 * source sends nothing, until it is resumed. Beside them caps: what an answer lowered the limits of
 * a source at a site to. Each is one durable record: a state of kind STATE_SUSPENSION in shard 0.
 *
 * The table is the process's: filled from the store before workers begin, changed behind the commit
 * of a record (outcome/suspend.c), looked at by all workers. While it is empty a look costs one
 * load. Any thread. */
#ifndef HAYAUMA_ENGINE_SUSPENSIONS_H
#define HAYAUMA_ENGINE_SUSPENSIONS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/hashset.h"
#include "base/map.h"
#include "limits/governor.h"
#include "queue/queue.h"

/* Stored: no number is used again for something else. */
enum suspension_scope {
    SUSPENSION_DOMAIN = 1,
    SUSPENSION_CAMPAIGN,
    SUSPENSION_TENANT,
    SUSPENSION_SITE,
    SUSPENSION_SOURCE, /* the source sends nothing: its mail goes by the others of its pool */
    /* At one site, named "WHAT@SITE": rules' (outcome/rule_act.h). */
    SUSPENSION_SOURCE_SITE,
    SUSPENSION_CAMPAIGN_SITE,
    SUSPENSION_TENANT_SITE,
    /* Caps of a source at a site, which hold no mail; named like the others. */
    SUSPENSION_SOURCE_CAP,      /* limits are lowered: governor_cap() */
    SUSPENSION_SOURCE_RECOVERY, /* behind a pause: one session more with each that works */
    SUSPENSION_NETBLOCK_SITE,   /* all sources with an address in "192.0.2.0/24" */
    SUSPENSION_CAMPAIGN_TENANT, /* "CAMPAIGN@TENANT": worker/campaigns.h */
    /* At one site, as the others: what a domain signs, and what has it in its return path. */
    SUSPENSION_SIGNER_SITE,
    SUSPENSION_ENVELOPE_SITE,
    /* Caps of what these names name, whichever source sends it: schedule/flow_lower.h. */
    SUSPENSION_CAMPAIGN_CAP,
    SUSPENSION_TENANT_CAP,
    SUSPENSION_SIGNER_CAP,
    SUSPENSION_ENVELOPE_CAP,
    /* Behind a pause: one message more at a time with each that gets through. */
    SUSPENSION_SIGNER_RECOVERY,
    SUSPENSION_ENVELOPE_RECOVERY,
    SUSPENSION_SCOPES
};

#define SUSPENSIONS_MAX       10000 /* stored, without caps; of others as many as campaigns */
#define SUSPENSIONS_RULES_MAX 9000  /* beyond, rules add none: the rest is for operators */
#define SUSPENSION_CAPS_MAX   20000 /* two of a source, or of a domain, at a site */
#define SUSPENSION_NAME_MAX   320   /* a source, campaign or tenant at a site */
#define SUSPENSION_REASON_MAX 200
#define SUSPENSION_WHO_MAX    64
#define SUSPENSION_KEY_MAX    (2 + SUSPENSION_NAME_MAX)

/* What a cap says. Of a recovery sessions, and the pause before it as step_ms, count. */
struct suspension_cap {
    uint64_t rate_messages; /* per rate_period_ms; 0 = the rate is not lowered */
    uint32_t rate_period_ms, sessions, session_messages; /* 0 = not lowered */
    uint32_t step_ms; /* when twice as much is allowed: see limits/governor.h */
};

struct suspension {
    enum suspension_scope scope;
    int64_t since_ms, until_ms; /* wall clock; until_ms 0: until it is resumed */
    char name[SUSPENSION_NAME_MAX + 1];
    char reason[SUSPENSION_REASON_MAX + 1], who[SUSPENSION_WHO_MAX + 1]; /* may be empty */
    struct suspension_cap cap; /* where suspension_is_cap(); else 0 */
};

struct config_address;

struct suspensions {
    pthread_mutex_t lock; /* of by_name */
    struct map by_name;
    /* Written under the lock, read without: relaxed, since who must see a change has had a note of
     * it behind the change. */
    /* All; those that have a record, caps apart; caps. */
    _Atomic uint32_t count, stored, caps;
    _Atomic uint32_t of_messages; /* for which a lane's names do not say whether it is meant */
    /* How often a cap was put or removed: likewise, but that nobody sends notes of new caps. */
    _Atomic uint32_t caps_version;
    /* How often one came or went of which of_messages is the number: the same. */
    _Atomic uint32_t messages_version;
};

/* A worker's copy of the names that of_messages counts, so that a look costs no lock. */
struct suspended_names {
    struct hashset hashes; /* of each name in its scope, and of each site of one */
    uint32_t version;      /* messages_version when it was made */
};

/* Whether scope is of what goes to one site. */
static inline bool suspension_is_at_site(enum suspension_scope scope)
{
    return scope >= SUSPENSION_SOURCE_SITE;
}
static inline bool suspension_is_recovery(enum suspension_scope scope)
{
    return scope == SUSPENSION_SOURCE_RECOVERY || scope == SUSPENSION_SIGNER_RECOVERY ||
           scope == SUSPENSION_ENVELOPE_RECOVERY;
}
static inline bool suspension_is_cap(enum suspension_scope scope)
{
    return scope == SUSPENSION_SOURCE_CAP || scope == SUSPENSION_CAMPAIGN_CAP ||
           scope == SUSPENSION_TENANT_CAP || scope == SUSPENSION_SIGNER_CAP ||
           scope == SUSPENSION_ENVELOPE_CAP || suspension_is_recovery(scope);
}
/* Whether it is of something that the messages of a lane may differ in: schedule/flow_split.h. */
static inline bool suspension_is_of_messages(enum suspension_scope scope)
{
    return scope == SUSPENSION_SIGNER_SITE || scope == SUSPENSION_ENVELOPE_SITE ||
           scope == SUSPENSION_SIGNER_CAP || scope == SUSPENSION_ENVELOPE_CAP ||
           scope == SUSPENSION_SIGNER_RECOVERY || scope == SUSPENSION_ENVELOPE_RECOVERY;
}
/* Whether it has a record. Others follow from what is stored elsewhere, and no operator orders
 * them.
 */
static inline bool suspension_is_stored(enum suspension_scope scope)
{
    return scope != SUSPENSION_CAMPAIGN_TENANT;
}
/* What the cap is to the governor. */
struct governor_cap suspension_cap_of(const struct suspension *one);
/* Writes "WHAT@SITE"; empty where what is. */
void suspension_name(char out[SUSPENSION_NAME_MAX + 1], struct str what, struct str site);
/* The name for the netblock of an address: /24, of IPv6 /64. Empty where there is no address. */
void suspension_netblock(char out[SUSPENSION_NAME_MAX + 1], const struct config_address *address,
                         struct str site);
/* "domain"; NULL: there is no such scope. */
const char *suspension_scope_name(enum suspension_scope scope);
/* 0: none that is stored is called so. */
enum suspension_scope suspension_scope_of(struct str name);

/* With what is stored in q; before workers begin. 0, -EIO, -ENOMEM. */
int suspensions_open(struct suspensions *s, struct queue *q) MUST_USE;
/* A zeroed one is accepted. */
void suspensions_done(struct suspensions *s);

/* Puts one, in place of what is under its scope and name. -ENOMEM: as before. */
int suspensions_put(struct suspensions *s, const struct suspension *one) MUST_USE;
/* False: there was none. */
bool suspensions_remove(struct suspensions *s, enum suspension_scope scope, struct str name);
/* False: there is none. */
bool suspensions_find(struct suspensions *s, enum suspension_scope scope, struct str name,
                      struct suspension *out);
static inline uint32_t suspensions_count(const struct suspensions *s)
{
    return atomic_load_explicit(&s->count, memory_order_relaxed);
}
static inline uint32_t suspensions_of_messages(const struct suspensions *s)
{
    return atomic_load_explicit(&s->of_messages, memory_order_relaxed);
}
static inline uint32_t suspensions_stored(const struct suspensions *s)
{
    return atomic_load_explicit(&s->stored, memory_order_relaxed);
}
static inline uint32_t suspensions_caps(const struct suspensions *s)
{
    return atomic_load_explicit(&s->caps, memory_order_relaxed);
}
/* Grows with each change of a cap; 0: there was none. */
static inline uint32_t suspensions_caps_version(const struct suspensions *s)
{
    return atomic_load_explicit(&s->caps_version, memory_order_relaxed);
}
/* The cap of scope under name, with the version of the table that it is of. False: there is none.
 */
bool suspensions_find_cap(struct suspensions *s, enum suspension_scope scope, struct str name,
                          struct suspension *out, uint32_t *version);
/* Whether, of what of_messages counts, there may be something at site; and something called name in
 * scope. False: there is not. A copy costs no lock while nothing of this kind comes or goes. */
bool suspended_names_at(struct suspended_names *copy, struct suspensions *s, struct str site);
bool suspended_names_have(struct suspended_names *copy, struct suspensions *s,
                          enum suspension_scope scope, struct str name);
void suspended_names_done(struct suspended_names *copy); /* a zeroed one is accepted */
/* Which suspensions hold mail with these names (indexed by scope; an empty name is held by none): a
 * bit for each scope. */
uint32_t suspensions_of(struct suspensions *s, const struct str names[SUSPENSION_SCOPES]);
/* Whether what is called so in scope is suspended. */
bool suspensions_hold(struct suspensions *s, enum suspension_scope scope, struct str name);
/* A suspension whose time is over at now_ms. Those that began later than that, by a clock that was
 * set back since, begin anew now, in memory, until the clock is right again: a pause of a minute
 * would last for a day. False: there is none. *next_ms: when the first will be over, INT64_MAX:
 * never. */
bool suspensions_ended(struct suspensions *s, int64_t now_ms, struct suspension *out,
                       int64_t *next_ms);
/* Visits all, in no order, under the lock. */
void suspensions_visit(struct suspensions *s,
                       void (*visit)(void *arg, const struct suspension *one), void *arg);

/* The record. Returns the key's length. */
size_t suspension_key(uint8_t out[SUSPENSION_KEY_MAX], enum suspension_scope scope,
                      struct str name);
void suspension_encode(struct buf *out, const struct suspension *one);
/* 0, -EBADMSG; -EPROTO: of a newer version. */
int suspension_decode(struct str key, struct str value, struct suspension *out) MUST_USE;

#endif

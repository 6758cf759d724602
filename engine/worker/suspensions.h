/* Suspensions: orders that mail of a domain, campaign, tenant or site stays in the queue, or that a
 * source sends nothing, until it is resumed. Each is one durable record: a state of kind
 * STATE_SUSPENSION in shard 0.
 *
 * The table is the process's: filled from the store before workers begin, changed behind the commit
 * of a record (outcome/suspend.c), looked at by all workers. While it is empty a look costs one
 * load. Any thread. */
#ifndef HAYAUMA_ENGINE_SUSPENSIONS_H
#define HAYAUMA_ENGINE_SUSPENSIONS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/map.h"
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
    /* 9 to 11 are taken */
    SUSPENSION_CAMPAIGN_TENANT = 12, /* "CAMPAIGN@TENANT": worker/campaigns.h */
    SUSPENSION_SCOPES
};

#define SUSPENSIONS_MAX       10000
#define SUSPENSIONS_RULES_MAX 9000 /* beyond, rules add none: the rest is for operators */
#define SUSPENSION_NAME_MAX   320  /* a source, campaign or tenant at a site */
#define SUSPENSION_REASON_MAX 200
#define SUSPENSION_WHO_MAX    64
#define SUSPENSION_KEY_MAX    (2 + SUSPENSION_NAME_MAX)

struct suspension {
    enum suspension_scope scope;
    int64_t since_ms, until_ms; /* wall clock; until_ms 0: until it is resumed */
    char name[SUSPENSION_NAME_MAX + 1];
    char reason[SUSPENSION_REASON_MAX + 1], who[SUSPENSION_WHO_MAX + 1]; /* may be empty */
};

struct suspensions {
    pthread_mutex_t lock; /* of by_name */
    struct map by_name;
    /* Written under the lock, read without: relaxed, since who must see a change has had a note of
     * it behind the change. */
    _Atomic uint32_t count;
};

/* Whether scope is of what goes to one site. */
static inline bool suspension_is_at_site(enum suspension_scope scope)
{
    return scope >= SUSPENSION_SOURCE_SITE;
}
/* Whether it has a record. Others follow from what is stored elsewhere, and no operator orders
 * them.
 */
static inline bool suspension_is_stored(enum suspension_scope scope)
{
    return scope != SUSPENSION_CAMPAIGN_TENANT;
}
/* Writes "WHAT@SITE"; empty where what is. */
void suspension_name(char out[SUSPENSION_NAME_MAX + 1], struct str what, struct str site);
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
/* Which hold mail with these names (indexed by scope; an empty name is held by none): a bit for
 * each scope. */
uint32_t suspensions_of(struct suspensions *s, const struct str names[SUSPENSION_SCOPES]);
/* Whether what is called so in scope is suspended. */
bool suspensions_hold(struct suspensions *s, enum suspension_scope scope, struct str name);
/* One whose time is over at now_ms. False: none; *next_ms is when the first will be, INT64_MAX:
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

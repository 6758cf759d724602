/* Suppressions: addresses that get no mail, or no mail of campaigns, of one tenant or of all. Each
 * is a durable record:
 *
 *   STATE_SUPPRESSION, 1, tenant: len 1, bytes, address -> version 1, reason 1, at_ms 8,
 *                               campaign, who, answer: len 1, bytes; more may follow
 *   STATE_SUPPRESSION, 2, ...   the same
 *
 * Record 1, in shard 0, is what somebody asked for. Record 2 is what the engine found out by an
 * answer; it is in the shard that settled the recipient, in the transaction that did, so there may
 * be several. Of all of them the strictest is in force.
 *
 * The address stands in one form, so that one person is one entry however the address is written.
 * Nothing of this is in memory but a filter (Bloom's) over the addresses: 10 to 50 bits each.
 * It never says no for one that is on the list, so nearly all mail is sent without a look into the
 * store, and a worker never looks there: what the filter knows is looked up by another thread. An
 * address that was taken off the list stays in the filter until the next start, which costs the
 * look alone. Until the filter has read all that is stored, which for millions takes a while, it
 * says of each address that it may be on the list.
 *
 * Any thread, but for what is said below. Changes: outcome/suppress.h. */
#ifndef HAYAUMA_ENGINE_SUPPRESSIONS_H
#define HAYAUMA_ENGINE_SUPPRESSIONS_H

#include <pthread.h>
#include <stdatomic.h>

#include "queue/queue.h"

#define SUPPRESSION_ADDRESS_MAX 400 /* bytes, in the one form */
#define SUPPRESSION_WHO_MAX     80
#define SUPPRESSION_ANSWER_MAX  200
#define SUPPRESSION_LEVELS      5 /* 43 MiB for 35 million addresses; more cost more looks */

/* Why an address is on the list. Stored: no number is used again for something else. */
enum suppression_reason {
    SUPPRESSION_UNSUBSCRIBED = 1, /* no mail of campaigns; other mail goes on */
    SUPPRESSION_COMPLAINT,        /* from here on: no mail at all, so none is stricter */
    SUPPRESSION_BOUNCE,
    SUPPRESSION_MANUAL,
    SUPPRESSION_REASONS
};

struct suppression {
    char tenant[FLOW_NAME_MAX + 1];            /* whose mail is meant; empty: everybody's */
    char address[SUPPRESSION_ADDRESS_MAX + 1]; /* suppression_address() */
    enum suppression_reason reason;
    int64_t at_ms;                           /* wall clock: since when */
    char campaign[FLOW_NAME_MAX + 1];        /* whose letter it was about; may be empty */
    char who[SUPPRESSION_WHO_MAX + 1];       /* put it on the list, in words */
    char answer[SUPPRESSION_ANSWER_MAX + 1]; /* that a mail to it got, cut; may be empty */
};

struct suppression_level;

struct suppressions {
    struct queue *queue;
    pthread_mutex_t lock; /* of adding to the filter */
    /* The filter's parts, each four times as large as the one before. Release and acquire. */
    _Atomic(struct suppression_level *) levels[SUPPRESSION_LEVELS];
    uint64_t count;           /* of what was added, under the lock */
    _Atomic uint64_t stopped; /* recipients that got no letter for it */
    /* Release and acquire: who sees them sees what the filter had by then. */
    atomic_bool loading; /* the filter does not have all that is stored */
    atomic_bool found;   /* there may be records 2 */
    atomic_bool stop;    /* the loading is to end */
};

/* The list of q. Before workers begin. */
void suppressions_open(struct suppressions *s, struct queue *q);
/* Reads what is stored into the filter: any thread, once. Mail may be sent meanwhile. 0, or -errno
 * (-ECANCELED: it was stopped): then each address is looked up in the store, for as long as the
 * process lives. */
int suppressions_load(struct suppressions *s) MUST_USE;
/* How many records were read, or noted since. */
uint64_t suppressions_len(struct suppressions *s);
/* Ends suppressions_load() soon; what waits for its thread may close the queue behind it. */
void suppressions_stop(struct suppressions *s);
/* A zeroed one is accepted. */
void suppressions_done(struct suppressions *s);

/* address in the form in which it is on the list: local part without quotes that it does not need,
 * in small letters, and the domain as queues know it. -EINVAL: it is none, or too long. */
int suppression_address(struct str address, char out[SUPPRESSION_ADDRESS_MAX + 1]) MUST_USE;
/* "unsubscribed"; 0: none is called so. */
const char *suppression_reason_name(enum suppression_reason reason);
enum suppression_reason suppression_reason_of(struct str name);

/* False: address is on the list of nobody. A worker may ask. */
bool suppressions_may_have(struct suppressions *s, struct str address);
/* The filter says from now on that address may be on the list: called before its record is stored.
 * found: record 2 is. */
void suppressions_note(struct suppressions *s, const char *address, bool found);

/* Whether there may be records 2. */
bool suppressions_may_find(struct suppressions *s);

/* Any thread but a worker: */
/* What is under a tenant ("" is everybody) and an address of the one form. 0, -ENOENT, -EIO; a
 * record that is damaged holds all mail, as one of SUPPRESSION_MANUAL. */
int suppressions_get(struct suppressions *s, struct str tenant, const char *address,
                     struct suppression *out) MUST_USE;
/* Visits what is under an address of the one form: of every tenant, and of everybody. 0 or -EIO. */
int suppressions_visit_address(struct suppressions *s, const char *address,
                               void (*visit)(void *arg, const struct suppression *one),
                               void *arg) MUST_USE;
/* Whether a tenant's mail for address must not go: 1, and *out says why; 0, or -EIO. campaign: it
 * is a campaign's. */
int suppressions_hold(struct suppressions *s, struct str tenant, struct str address, bool campaign,
                      struct suppression *out) MUST_USE;
/* Visits those of a tenant, or of all (tenant.ptr NULL), in the order of tenants and addresses,
 * from behind what after names (NULL: from the first), at most max. Returns how many there were, or
 * -EIO. *next has the last one, for the next call. */
ptrdiff_t suppressions_visit(struct suppressions *s, struct str tenant,
                             const struct suppression *after, size_t max,
                             void (*visit)(void *arg, const struct suppression *one), void *arg,
                             struct suppression *next) MUST_USE;

/* n more recipients got nothing, since the list has their addresses. */
static inline void suppressions_count(struct suppressions *s, uint64_t n)
{
    atomic_fetch_add_explicit(&s->stopped, n, memory_order_relaxed);
}
/* The words behind "550 5.7.1" for mail that one keeps from going. */
void suppression_put_why(struct buf *out, const struct suppression *one);

/* The records. Returns the key's length. */
size_t suppression_key(uint8_t out[STATE_KEY_MAX], struct str tenant, struct str address);
size_t suppression_found_key(uint8_t out[STATE_KEY_MAX], struct str tenant, struct str address);
void suppression_encode(struct buf *out, const struct suppression *one);
/* 0, -EBADMSG; -EPROTO: of a newer version. */
int suppression_decode(struct str key, struct str value, struct suppression *out) MUST_USE;

#endif

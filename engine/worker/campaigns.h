/* Campaigns: one content for a list of recipients, which is put in before it is sent. Each is one
 * durable record in shard 0 (STATE_CAMPAIGN, 1, id); its content is stored in every shard under the
 * same id, with a tally (queue/tally.h).
 *
 * The table is the process's: filled from the store before workers begin, changed behind the commit
 * of a record (intake/campaign.h). A campaign that does not run is suspended under
 * SUSPENSION_CAMPAIGN_TENANT; that follows from its record and is not stored. Any thread. */
#ifndef HAYAUMA_ENGINE_CAMPAIGNS_H
#define HAYAUMA_ENGINE_CAMPAIGNS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "queue/queue.h"
#include "queue/tally.h"

struct campaign_upload;
struct suspension;
struct suspensions;

#define CAMPAIGNS_MAX         10000
#define CAMPAIGN_KEY_BYTES    (2 + MSGID_BYTES)
#define CAMPAIGN_UPLOAD_BYTES 8

/* Stored: no number is used again for something else. */
enum campaign_record {
    CAMPAIGN_RECORD_CAMPAIGN = 1, /* id 16; in shard 0: the campaign */
    CAMPAIGN_RECORD_PART = 2,     /* id 16, chunk 16, number 4: a part of the list that is in */
    CAMPAIGN_RECORD_HASHES = 3,   /* id 16, index 4: of the addresses from that index on */
    CAMPAIGN_RECORD_ABOUT = 4,    /* id 16; in shard 0: what it was made of, for whoever asks */
};

/* Stored, too. */
enum campaign_state {
    CAMPAIGN_DRAFT = 1, /* recipients may be added, nothing is sent */
    CAMPAIGN_RUNNING,   /* from starts_ms on */
    CAMPAIGN_PAUSED,
    CAMPAIGN_CANCELLED, /* what is left of it ends */
    CAMPAIGN_STATES
};

/* What was changed of a campaign since it was made. */
struct campaign_set {
    uint8_t priority; /* and 1; 0: it is as it was made */
    bool has_pool;
    char pool[FLOW_NAME_MAX + 1];
    uint64_t rate; /* letters per rate_period_ms, over all sites; 0: no limit */
    uint32_t rate_period_ms;
    uint32_t version; /* in memory: another one behind each change; 0: nothing was ever changed */
};

struct campaign {
    struct msgid id; /* its content's, too */
    char name[FLOW_NAME_MAX + 1], tenant[FLOW_NAME_MAX + 1], pool[FLOW_NAME_MAX + 1];
    uint8_t priority;
    enum campaign_state state;
    int64_t created_ms, changed_ms; /* wall clock */
    int64_t starts_ms;              /* wall clock, set by the start; 0: it is a draft */
    int64_t expires_ms;             /* wall clock: what is left ends then; 0: no such time */
    bool open;                      /* it was started, and recipients may be added still */
    uint64_t seed;                  /* of hashes of addresses */
    struct campaign_set set;
    /* If the campaign came in one upload with its list: the beginning of the SHA-256 of the
     * upload's name, and of its bytes. Else all zero. */
    uint8_t upload_key[CAMPAIGN_UPLOAD_BYTES], upload_body[CAMPAIGN_UPLOAD_BYTES];
};

/* Whether one that is RUNNING has come to its start. It was changed at its start or since, or it
 * was started at once, by a clock that may have been set back. */
static inline bool campaign_has_begun(const struct campaign *one, int64_t now_ms)
{
    return one->starts_ms <= now_ms || one->starts_ms <= one->changed_ms;
}

/* What changed_ms becomes by a change now that is no start: one that has begun by a clock that was
 * set back since has begun still. */
static inline int64_t campaign_changes_ms(const struct campaign *one, int64_t now_ms)
{
    return campaign_has_begun(one, now_ms) && one->changed_ms > now_ms ? one->changed_ms : now_ms;
}

struct campaigns {
    pthread_mutex_t lock; /* of all that follows, and of uploads */
    struct map by_id;
    struct list in_order; /* oldest first */
    struct map by_name;   /* of the newest of a name, if something of it was changed */
    _Atomic uint32_t set; /* how many are in by_name. Relaxed: who is to see a change is told */
    uint32_t versions;
    struct list parts; /* that are under way: intake/campaign_part.c */
    uint64_t hashes;   /* of addresses in memory */
    struct buf
        orphans; /* ids of contents that are pinned for no campaign: until the keeper opens */
    pthread_mutex_t load_lock; /* taken before lock: one upload at a time is read back */
};

/* An entry of the table; under the lock. */
struct campaign_entry {
    struct map_node node;
    struct map_node name; /* linked if in_names */
    bool in_names;
    struct list_node order;
    struct campaign one;
    bool over;                      /* as far as was looked: campaign_is_over() */
    bool unsettled;                 /* at the start: the keeper has something to do for it */
    bool changing;                  /* an order is under way: no recipients are added */
    struct campaign_upload *upload; /* intake/campaign_part.c; NULL: none since the start */
};

/* With what is stored in q; suspends what does not run. Before workers begin. 0, -EIO, -ENOMEM. */
int campaigns_open(struct campaigns *all, struct queue *q,
                   struct suspensions *suspensions) MUST_USE;
/* A zeroed one is accepted. */
void campaigns_done(struct campaigns *all);

/* False: there is none. */
bool campaigns_get(struct campaigns *all, const struct msgid *id, struct campaign *out);
/* The newest of that name. */
bool campaigns_find(struct campaigns *all, struct str tenant, struct str name,
                    struct campaign *out);
/* The newest that came in an upload of that name. */
bool campaigns_find_upload(struct campaigns *all, struct str tenant,
                           const uint8_t key[CAMPAIGN_UPLOAD_BYTES], struct campaign *out);
/* Visits all, the oldest first, under the lock. */
void campaigns_visit(struct campaigns *all, void (*visit)(void *arg, const struct campaign *one),
                     void *arg);
/* Under the lock; NULL: there is none. */
struct campaign_entry *campaigns_entry(struct campaigns *all, const struct msgid *id);
/* Puts one in place of what has its id. -ENOMEM: as before. */
int campaigns_put(struct campaigns *all, const struct campaign *one) MUST_USE;
void campaigns_remove(struct campaigns *all, const struct msgid *id);

/* What was changed of the campaign whose mail is of this tenant and name. False: nothing. */
bool campaigns_find_set(struct campaigns *all, struct str tenant, struct str name,
                        struct campaign *out);
/* The names by which mail of a flow is sent: with the priority and pool that its campaign was set
 * to. What is of another priority or pool than the campaign was made with (a rule moved it) keeps
 * that. *version: of the setting; names may be NULL. */
const struct queue_flow *campaigns_names(struct campaigns *all, struct queue *q,
                                         const struct queue_flow *names, uint32_t *version);

/* Whether nothing of it will be sent any more: it is done, or cancelled to the last recipient.
 * counts: campaign_counts(). */
bool campaign_is_over(const struct campaign *one, const struct queue_tally *counts);
/* Sums the tallies of all shards; where one is damaged there are no counts, and it is as if pinned:
 * then it is not over. Any thread but a worker. 0, -ENOENT, -EIO. */
int campaign_counts(struct queue *q, const struct msgid *id, struct queue_tally *out) MUST_USE;

/* What holds a campaign that does not run. */
void campaign_suspension(const struct campaign *one, int64_t now_ms, struct suspension *out);

/* The record. */
void campaign_key(uint8_t out[CAMPAIGN_KEY_BYTES], enum campaign_record record,
                  const struct msgid *id);
void campaign_encode(struct buf *out, const struct campaign *one);
/* 0, -EBADMSG; -EPROTO: of a newer version. */
int campaign_decode(struct str key, struct str value, struct campaign *out) MUST_USE;

#endif

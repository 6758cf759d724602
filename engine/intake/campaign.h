/* Changes of campaigns (worker/campaigns.h): orders, and recipients.
 *
 * A campaign is a draft first: its content is in every shard, pinned, and recipients are added part
 * by part, each a transaction in one shard with the part's record, so that a part that is sent
 * again adds nobody. The start ends that: what tells addresses apart goes, the pins go (the content
 * goes with its last row), lifetimes begin, and lanes hear that its mail may go. One that is
 * started open keeps both until it is closed: recipients are added while it runs.
 *
 * Any thread, but on_done: a worker's. The worker that owns shard 0 carries out orders, one after
 * the other, and at its start what a crash left half done. */
#ifndef HAYAUMA_ENGINE_CAMPAIGN_H
#define HAYAUMA_ENGINE_CAMPAIGN_H

#include "config/config.h"
#include "worker/campaigns.h"
#include "worker/shared.h"
#include "worker/worker.h"

enum campaign_verb {
    CAMPAIGN_CREATE,
    CAMPAIGN_START,  /* of a draft */
    CAMPAIGN_PAUSE,  /* of one that runs */
    CAMPAIGN_RESUME, /* of one that is paused */
    CAMPAIGN_CANCEL, /* of one that is not over */
    CAMPAIGN_SET,    /* the same: priority, pool, rate; in force for what waits, too */
    CAMPAIGN_CLOSE,  /* of one that was started open: no recipients are added any more */
    CAMPAIGN_FORGET, /* of one that is over: its record goes */
    CAMPAIGN_VERBS
};

struct campaign_order {
    enum campaign_verb verb;
    struct campaign what;    /* CREATE: id (msgid_next()), names, priority, expires_ms; else the id
                                alone */
    struct message *content; /* CREATE: campaign_content(); a reference is taken */
    struct str about;        /* CREATE: a JSON object, what campaign_add_about() adds; or empty */
    int64_t starts_ms;       /* START: wall clock; 0: now */
    bool open;               /* START: recipients may be added still, until CLOSE */
    struct campaign_set set; /* SET: what is to be as sets says; CREATE: the rate */
    bool sets_priority, sets_pool, sets_rate;
    /* 0: durable, and every lane has heard of it. -EEXIST: a campaign of the tenant has this name
     * and is not over, or came in the same upload; -ENOENT: there is none; -EINVAL: not in its
     * present state; -ERANGE: it would start when it has expired; -EBUSY: recipients are being
     * added, or another order is under way; -EDQUOT: the tenant has its share of CAMPAIGNS_MAX
     * places; -ENOSPC; -ENOMEM; -EIO; -ESHUTDOWN. The order lives until then. It is not called
     * inside the call. */
    void (*on_done)(struct campaign_order *order, int result);
    /* private */
    struct worker_note note;
};
void campaign_submit(struct shared *all, struct campaign_order *order);

/* Makes an order set the rate: "500/s", or "none". -EINVAL: it is no rate. */
int campaign_set_rate(struct campaign_order *order, struct str text) MUST_USE;
/* What an order sets, in one. */
void campaign_set_apply(struct campaign *one, const struct campaign_order *order);

/* The content of a campaign, copied: recipe as recipe_put() puts it, the others as in struct
 * message. NULL: memory is out. */
struct campaign_letter {
    struct str recipe, sender, origin, dkim_domain, meta;
};
struct message *campaign_content(const struct campaign *what, const struct campaign_letter *letter);

#define CAMPAIGN_PART_LINES     2048
#define CAMPAIGN_RECIPIENTS_MAX (1u << 24) /* of a campaign; all drafts' hashes in memory, too */
#define CAMPAIGN_LINES_TOLD     100

struct campaign_rcpt {
    struct str address, queue; /* as accept.h has them */
    struct str variables;      /* recipe_put_recipient() */
    uint32_t line;             /* within the part */
};

struct campaign_part {
    struct msgid campaign;
    struct str key;      /* the chunk's, of the campaign */
    uint32_t number;     /* of the part in its chunk */
    uint8_t payload[32]; /* SHA-256 of what the part was read from */
    const struct config *config;
    const struct campaign_rcpt *rcpts; /* at most CAMPAIGN_PART_LINES; all live until on_done */
    size_t rcpts_len;
    const char *peer_name, *peer_addr, *session_id; /* for the record */
    /* 0: durable. -ENOENT: no such campaign; -EINVAL: it is no draft, and not open, and the part is
     * not in; -EEXIST: the part was another payload's; -EBUSY: it is under way; -EFBIG: more than a
     * campaign may have; -ENOSPC; -ENOMEM; -EIO; -ESHUTDOWN. It may be called inside the call, by
     * the caller's thread.
     */
    void (*on_done)(struct campaign_part *part, int result);
    /* Out, with 0. */
    bool again; /* it was in already */
    uint32_t added;
    struct campaign_told {
        uint32_t count, told;
        uint32_t lines[CAMPAIGN_LINES_TOLD]; /* of the first */
    } duplicates, suppressed;
    /* private */
    struct campaign_adding *adding;
};
void campaign_part_submit(struct shared *all, struct campaign_part *part);

/* In the worker that owns shard 0, at its start and end. */
void campaign_open(struct worker *w);
void campaign_close(struct worker *w);
/* When nothing runs any more. */
void campaign_uploads_done(struct shared *all);

#endif

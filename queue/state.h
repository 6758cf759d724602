/* State: values under keys that must survive a crash beside rows and records. A value changes in a
 * transaction of rows and records, or in one of its own (queue_change.states). A key's first byte
 * is the kind, which says whose the value is. */
#ifndef HAYAUMA_QUEUE_STATE_H
#define HAYAUMA_QUEUE_STATE_H

#include <stdbool.h>

#include "base/str.h"

/* Numbers are stored: none is ever used again for something else. */
enum state_kind {
    STATE_FLOW = 1,       /* the queue's own: flow id 4 -> priority 1, names */
    STATE_SUSPENSION = 2, /* shard 0; scope 1, name: worker/suspensions.h */
    /* The queue's own, of messages in several shards: spread.h */
    STATE_PART = 3,         /* message id -> flow 4, due_ms 6: what is prepared here */
    STATE_WHOLE = 4,        /* message id -> the same; in the home shard: decided */
    STATE_WARMUP = 5,       /* streams of warm-up and their days: worker/warmup_store.h */
    STATE_REQUEST = 6,      /* requests that are carried out once: http/once.h */
    STATE_STS = 7,          /* shard 0; domain -> its policy of MTA-STS: worker/sts_table.h */
    STATE_CAMPAIGN = 8,     /* campaigns and the parts of their lists: worker/campaigns.h */
    STATE_TALLY = 9,        /* the queue's own: message id -> pinned, counts: tally.h */
    STATE_TLS_REPORT = 10,  /* shard 0; day and domain -> what is counted: worker/tls_counts.h */
    STATE_SHEET = 11,       /* the queue's own: message id -> what a tally is made of: sheet.h */
    STATE_SUPPRESSION = 12, /* tenant, address -> why it gets no mail: worker/suppressions.h */
    STATE_REMAINS = 13,     /* the queue's own: number 8 -> ids of contents: remains.h */
};

#define STATE_KEY_MAX 480

struct queue_state {
    struct str key;   /* kind 1, then what names it; 2 to STATE_KEY_MAX bytes */
    struct str value; /* what is there from now on */
    bool remove;
    bool if_absent; /* what is under the key already stays */
};

/* Many states go in one change: those whose keys are from one, which need not be there, until
 * before another, at most max of them. */
struct queue_states_range {
    struct str from, to;
    uint32_t max;
    bool more; /* out: some are left */
};

#endif

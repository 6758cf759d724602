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
    STATE_PART = 3,    /* message id -> flow 4, due_ms 6: what is prepared here */
    STATE_WHOLE = 4,   /* message id -> the same; in the home shard: decided */
    STATE_WARMUP = 5,  /* shard 0; streams and their days: worker/warmup_store.h */
    STATE_REQUEST = 6, /* requests that are carried out once: http/once.h */
    STATE_STS = 7,     /* shard 0; domain -> its policy of MTA-STS: worker/sts_table.h */
};

#define STATE_KEY_MAX 480

struct queue_state {
    struct str key;   /* kind 1, then what names it; 2 to STATE_KEY_MAX bytes */
    struct str value; /* what is there from now on */
    bool remove;
};

#endif

/* Warm-up in the store: states of kind STATE_WARMUP, of each stream what it has used and where it
 * stands, in shard 0 and in those where its mail was settled, of which the newest counts; and in
 * shard 0 of each of its days with mail how it ended. */
#ifndef HAYAUMA_ENGINE_WARMUP_STORE_H
#define HAYAUMA_ENGINE_WARMUP_STORE_H

#include "limits/warmup.h"
#include "queue/queue.h"

#define WARMUP_DAYS_KEPT 400
#define WARMUP_KEY_MAX   (2 + 1 + WARMUP_NAME_MAX + 1 + WARMUP_NAME_MAX + 4)

enum warmup_record { /* stored: no number is used again for something else */
                     WARMUP_RECORD_STREAM = 1,
                     WARMUP_RECORD_DAY = 2,
};

struct warmup_key {
    enum warmup_record record;
    struct str source, provider; /* in the key */
    int32_t day;                 /* of WARMUP_RECORD_DAY */
};

/* Returns the key's length. */
size_t warmup_key_encode(uint8_t out[WARMUP_KEY_MAX], const struct warmup_key *key);
/* 0 or -EBADMSG. */
int warmup_key_decode(struct str bytes, struct warmup_key *out) MUST_USE;

/* Opens w with what is stored in q. 0, -EIO, -ENOMEM. */
int warmup_store_open(struct warmup *w, struct queue *q, void (*wake)(void *arg),
                      void *arg) MUST_USE;
/* Visits days that are over, by source, provider and day; any thread but a worker. 0 or -EIO. */
int warmup_store_days(struct queue *q,
                      void (*visit)(void *arg, const struct warmup_key *key,
                                    const struct warmup_past *past),
                      void *arg) MUST_USE;

#endif

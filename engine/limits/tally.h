/* Counts what happened under a name: whether it was the n-th time within a period. Names that were
 * not heard of for longest make room for new ones. Any thread. */
#ifndef HAYAUMA_ENGINE_TALLY_H
#define HAYAUMA_ENGINE_TALLY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "base/str.h"

#define TALLY_NAMES_MAX 4096
#define TALLY_TIMES_MAX 100

struct tally {
    pthread_mutex_t lock; /* of the rest */
    struct map names;
    struct list oldest_first;
    bool opened;
};

/* -ENOMEM. */
int tally_open(struct tally *t) MUST_USE;
/* A zeroed one is accepted. */
void tally_close(struct tally *t);
/* What name stands for happened at now_ms (monotonic). True: it did so for the after-th time (1 to
 * TALLY_TIMES_MAX) within within_ms, and this function has not said so in the last quiet_ms. Behind
 * that name is counted from nothing again. */
bool tally_hit(struct tally *t, struct str name, uint32_t after, uint64_t within_ms,
               uint64_t quiet_ms, uint64_t now_ms);

#endif

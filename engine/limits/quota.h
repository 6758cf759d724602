/* Quotas: something may happen so many times for a name within a period, and no more. The memory is
 * fixed, however many names there are. Names whose hashes meet share a count, so a name may reach
 * its quota early, and never late. One thread. */
#ifndef HAYAUMA_ENGINE_QUOTA_H
#define HAYAUMA_ENGINE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define QUOTA_ROWS  2
#define QUOTA_SLOTS 8192

/* Zeroed but for seed, it has counted nothing. */
struct quota {
    uint64_t seed;  /* no stranger knows it: strangers choose the names */
    int64_t period; /* the number of the period that is counted */
    uint32_t used[QUOTA_ROWS][QUOTA_SLOTS];
};

/* Counts one more for name in period. False: name has had max already. A new period begins from
 * nothing. */
bool quota_take(struct quota *q, struct str name, int64_t period, uint32_t max);

#endif

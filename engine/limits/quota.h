/* So many times for a name within a period, and no more: in fixed memory, whatever names there are.
 * Names whose hashes meet share their number, so a bound may come early, and never late. One
 * thread.
 */
#ifndef HAYAUMA_ENGINE_QUOTA_H
#define HAYAUMA_ENGINE_QUOTA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define QUOTA_ROWS  2
#define QUOTA_SLOTS 8192

/* Zeroed but for seed, it has counted nothing. */
struct quota {
    uint64_t seed;  /* that no stranger knows: names are theirs */
    int64_t period; /* number of the one that is counted */
    uint32_t used[QUOTA_ROWS][QUOTA_SLOTS];
};

/* One more for name in that period; false: it had max already. Another period begins from nothing.
 */
bool quota_take(struct quota *q, struct str name, int64_t period, uint32_t max);

#endif

#include "limits/quota.h"

#include <string.h>

#include "base/map.h"

bool quota_take(struct quota *q, struct str name, int64_t period, uint32_t max)
{
    uint32_t *slots[QUOTA_ROWS];
    bool full = true;

    if (period != q->period)
        memset(q->used, 0, sizeof(q->used));
    q->period = period;
    for (uint32_t i = 0; i < QUOTA_ROWS; i++) {
        slots[i] = &q->used[i][hash_bytes(name.ptr, name.len, q->seed + i) % QUOTA_SLOTS];
        full = full && *slots[i] >= max;
    }
    for (uint32_t i = 0; i < QUOTA_ROWS && !full; i++)
        ++*slots[i];
    return !full;
}

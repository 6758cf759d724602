#include "intake/hot.h"

#include <string.h>

#include "base/assert.h"

/* After a pause of many halves nothing is left. */
#define HALVES_MAX 32

static void forget(struct hot *h, uint64_t now_ms)
{
    uint64_t halves = (now_ms - h->halved_ms) / HOT_HALF_MS;

    ASSERT(halves > 0);
    if (halves >= HALVES_MAX) {
        memset(h->counts, 0, sizeof(h->counts));
        h->all = 0;
        h->halved_ms = now_ms;
        return;
    }
    for (uint32_t i = 0; i < HOT_COUNTERS && halves > 0; i++)
        h->counts[i] >>= halves;
    h->all >>= halves;
    h->halved_ms += halves * HOT_HALF_MS;
}

bool hot_arrives(struct hot *h, uint64_t domain_hash, uint32_t shards, uint64_t now_ms)
{
    uint32_t *count = &h->counts[domain_hash % HOT_COUNTERS];

    ASSERT(now_ms >= h->halved_ms && shards > 0);
    if (now_ms - h->halved_ms >= HOT_HALF_MS)
        forget(h, now_ms);
    ++*count;
    h->all++;
    return shards > 1 && *count >= HOT_COUNT_MIN && (uint64_t)*count * HOT_PART * shards > h->all;
}

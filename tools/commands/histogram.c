#include "tools/commands/histogram.h"

#define SUB_BUCKETS (UINT64_C(1) << HISTOGRAM_SUB_BITS)

static uint32_t histogram_index(uint64_t value)
{
    uint32_t shift;

    if (value < SUB_BUCKETS)
        return (uint32_t)value;
    shift = 63 - (uint32_t)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (uint32_t)(((uint64_t)(shift + 1) << HISTOGRAM_SUB_BITS) +
                      ((value >> shift) - SUB_BUCKETS));
}

/* The largest value that falls into bucket index. */
static uint64_t histogram_value(uint32_t index)
{
    uint32_t shift = index >> HISTOGRAM_SUB_BITS;
    uint64_t sub = index & (SUB_BUCKETS - 1);

    if (shift == 0)
        return sub;
    return ((SUB_BUCKETS + sub + 1) << (shift - 1)) - 1;
}

void histogram_add(struct histogram *h, uint64_t value)
{
    h->buckets[histogram_index(value)]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t wanted = (uint64_t)(q * (double)h->count);
    uint64_t seen = 0;

    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted && h->buckets[i] != 0)
            return histogram_value(i) < h->max ? histogram_value(i) : h->max;
    }
    return h->max;
}

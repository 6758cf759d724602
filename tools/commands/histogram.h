/* Counts of durations in buckets 1/32 octave wide: quantiles to within 3 %. One thread. */
#ifndef HAYAUMA_TOOLS_HISTOGRAM_H
#define HAYAUMA_TOOLS_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_BUCKETS  (64 << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t value);
/* The value below which the fraction q (0..1) lies; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *h, double q);

#endif

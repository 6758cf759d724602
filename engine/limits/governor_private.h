/* What the governor's two files share: governor.c has the entries, their limits and their sessions,
 * governor_rate.c the rates. */
#ifndef HAYAUMA_ENGINE_GOVERNOR_PRIVATE_H
#define HAYAUMA_ENGINE_GOVERNOR_PRIVATE_H

#include "limits/governor.h"

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

/* As it is configured; 0: there is no such rate. */
static inline uint64_t governor_interval(const struct governor_entry *e, enum governor_counts which)
{
    return atomic_load_explicit(&e->rates[which].interval_ns, memory_order_relaxed);
}
/* Between two messages, as it is in force; 0: any number may go. */
uint64_t governor_interval_at(const struct governor_entry *e, uint64_t now_ns);
/* How long so many take at this interval. */
uint64_t governor_cost(enum governor_counts which, uint64_t interval, uint64_t n);

#endif

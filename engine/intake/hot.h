/* Hot domains: one shard is too little for a domain that gets much of all that arrives. Mail for a
 * hot domain goes to shards by message id instead of by domain. Any lane allows that: a domain may
 * have rows in every shard, and the governor limits it over all of them. So nothing is remembered
 * but a few counters, and a wrong answer costs nothing but locality.
 *
 * One struct per worker, used by its thread. Domains that share a counter count together. */
#ifndef HAYAUMA_ENGINE_HOT_H
#define HAYAUMA_ENGINE_HOT_H

#include <stdbool.h>
#include <stdint.h>

#define HOT_COUNTERS 4096
#define HOT_HALF_MS  100 /* after which half is forgotten */
/* At a steady rate a counter goes from a tenth to a fifth of what arrives in a second: a domain is
 * hot beyond 200 to 400 messages a second... */
#define HOT_COUNT_MIN 40
/* ...and beyond this part of what a shard would get of all, if all were spread evenly. */
#define HOT_PART 4

struct hot {
    uint64_t halved_ms; /* monotonic */
    uint32_t all, counts[HOT_COUNTERS];
};

/* A message for a domain with this hash arrives. Whether the domain is hot. */
bool hot_arrives(struct hot *h, uint64_t domain_hash, uint32_t shards, uint64_t now_ms);

#endif

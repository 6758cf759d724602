/* xoshiro256** with an explicit seed, so that a simulation replays. Not for secrets. */
#ifndef HAYAUMA_BASE_RNG_H
#define HAYAUMA_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
/* A seed from the kernel (getrandom). */
uint64_t rng_entropy(void);
/* So many bytes, 256 at most, that nobody can guess: for ids, tokens and keys. */
void rng_fill(void *out, size_t len);
uint64_t rng_next(struct rng *r);
/* Uniform in [0, n); n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* Uniform in [0, 1). */
double rng_unit(struct rng *r);

#endif

#include "base/rng.h"

#include <sys/random.h>

#include "base/assert.h"

/* splitmix64 fills the state: never all zero, and near seeds give far states. */
void rng_seed(struct rng *r, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        r->s[i] = z ^ z >> 31;
    }
}

/* Up to 256 bytes are never cut short once the kernel's pool is ready (getrandom(2)). */
void rng_fill(void *out, size_t len)
{
    ssize_t got;

    ASSERT(len <= 256);
    got = getrandom(out, len, 0);
    ASSERT(got == (ssize_t)len);
}

uint64_t rng_entropy(void)
{
    uint64_t seed;

    rng_fill(&seed, sizeof(seed));
    return seed;
}

static uint64_t rotate_left(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

uint64_t rng_next(struct rng *r)
{
    uint64_t result = rotate_left(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;

    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rotate_left(r->s[3], 45);
    return result;
}

/* The high half of a 128-bit product; what would bias it is drawn again (Lemire 2019). */
uint64_t rng_below(struct rng *r, uint64_t n)
{
    unsigned __int128 product;
    uint64_t reject;

    ASSERT(n > 0);
    reject = (0 - n) % n;
    do
        product = (unsigned __int128)rng_next(r) * n;
    while ((uint64_t)product < reject);
    return (uint64_t)(product >> 64);
}

double rng_unit(struct rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

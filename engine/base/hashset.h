/* A set of 64-bit hashes, open addressing: 8 bytes a slot, at most three quarters of them taken. It
 * doubles as it fills, in one go. One thread. */
#ifndef HAYAUMA_BASE_HASHSET_H
#define HAYAUMA_BASE_HASHSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

struct hashset {
    uint64_t *slots; /* [mask + 1]; 0: free */
    size_t mask, count;
};

/* Room for so many more. 0 or -ENOMEM. */
int hashset_reserve(struct hashset *s, size_t more) MUST_USE;
/* False: it is there already. There must be room. 0 counts as 1. */
bool hashset_add(struct hashset *s, uint64_t hash);
/* Takes out a hash that is there. */
void hashset_remove(struct hashset *s, uint64_t hash);
bool hashset_has(const struct hashset *s, uint64_t hash); /* of a zeroed one: none */
void hashset_done(struct hashset *s);                     /* a zeroed one is accepted, and left */

#endif

#include "base/hashset.h"

#include <errno.h>
#include <stdlib.h>

#define SLOTS_MIN 16

static size_t room(size_t slots)
{
    return slots / 4 * 3;
}

static void slot_put(uint64_t *slots, size_t mask, uint64_t hash)
{
    size_t at = hash & mask;

    while (slots[at] != 0)
        at = (at + 1) & mask;
    slots[at] = hash;
}

int hashset_reserve(struct hashset *s, size_t more)
{
    size_t slots = s->slots == NULL ? SLOTS_MIN : s->mask + 1;
    uint64_t *grown;

    while (room(slots) < s->count + more)
        slots *= 2;
    if (s->slots != NULL && slots == s->mask + 1)
        return 0;
    grown = calloc(slots, sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    for (size_t i = 0; s->slots != NULL && i <= s->mask; i++)
        if (s->slots[i] != 0)
            slot_put(grown, slots - 1, s->slots[i]);
    free(s->slots);
    s->slots = grown;
    s->mask = slots - 1;
    return 0;
}

bool hashset_add(struct hashset *s, uint64_t hash)
{
    size_t at;

    hash += hash == 0;
    ASSERT(s->slots != NULL && s->count < room(s->mask + 1));
    for (at = hash & s->mask; s->slots[at] != 0; at = (at + 1) & s->mask)
        if (s->slots[at] == hash)
            return false;
    s->slots[at] = hash;
    s->count++;
    return true;
}

bool hashset_has(const struct hashset *s, uint64_t hash)
{
    size_t at;

    hash += hash == 0;
    if (s->slots == NULL)
        return false;
    for (at = hash & s->mask; s->slots[at] != 0; at = (at + 1) & s->mask)
        if (s->slots[at] == hash)
            return true;
    return false;
}

/* What follows without a gap moves back into the hole where its own place is at or before it. */
void hashset_remove(struct hashset *s, uint64_t hash)
{
    size_t hole, at;

    hash += hash == 0;
    ASSERT(s->count > 0);
    for (hole = hash & s->mask; s->slots[hole] != hash; hole = (hole + 1) & s->mask)
        ASSERT(s->slots[hole] != 0);
    for (at = (hole + 1) & s->mask; s->slots[at] != 0; at = (at + 1) & s->mask) {
        size_t from_home = (at - s->slots[at]) & s->mask, from_hole = (at - hole) & s->mask;

        if (from_home < from_hole)
            continue;
        s->slots[hole] = s->slots[at];
        hole = at;
    }
    s->slots[hole] = 0;
    s->count--;
}

void hashset_done(struct hashset *s)
{
    free(s->slots);
    *s = (struct hashset){0};
}

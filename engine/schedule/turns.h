/* Turns: which of several takes next, by weight (stride scheduling). Who takes moves back by
 * 1/weight; who is furthest in front is next. Of any two that take part all the time each gets its
 * part to within one take, whoever else comes and goes: one that leaves has no claim on what is
 * taken meanwhile, and one that was ahead when it left waits until the others have caught up.
 *
 * Pure. Thread: the owner's. */
#ifndef HAYAUMA_ENGINE_TURNS_H
#define HAYAUMA_ENGINE_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* While the one whose turn it is is busy, the others may be ahead of it by so many takes, all of
 * them together. */
#define TURNS_AHEAD 32

struct turn {
    uint64_t pass; /* taking part: where it stands; else how far ahead it was when it left ... */
    uint64_t left; /* ... which was at this time of the turns */
    uint32_t weight;
    uint32_t at; /* in turns->heap, from 1; 0: takes no part */
};

struct turns {
    struct turn **heap; /* by pass, the next one first */
    uint32_t len, cap;
    uint64_t weights; /* of those that take part */
    uint64_t now; /* their time: where the one that was in front stood when something was taken */
};

static inline bool turn_in(const struct turn *t)
{
    return t->at != 0;
}
/* Before the first turns_join(). u: uniform in (0, 1). With one such draw for each, who is first is
 * a matter of weight: of many sites with one message each, each source gets its part. */
void turn_init(struct turn *t, uint32_t weight, double u);
/* Nothing may take part. */
void turns_done(struct turns *s);
/* Nothing happens when t takes part already, or does not. */
void turns_join(struct turns *s, struct turn *t);
void turns_leave(struct turns *s, struct turn *t);
static inline struct turn *turns_first(const struct turns *s)
{
    return s->len == 0 ? NULL : s->heap[0];
}
/* t, which may have left, has taken n. */
void turns_pay(struct turns *s, struct turn *t, uint32_t n);
/* Whether t, which takes part, would come to its turn within the next n takes. */
bool turns_within(const struct turns *s, const struct turn *t, uint64_t n);

#endif

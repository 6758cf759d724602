#include "schedule/turns.h"

#include <math.h>
#include <stdlib.h>

#include "base/assert.h"

/* What one take moves a weight of 1. Passes may wrap: only differences count. */
#define STRIDE (UINT64_C(1) << 32)

static uint64_t stride(const struct turn *t)
{
    return STRIDE / t->weight;
}

static bool before(const struct turn *a, const struct turn *b)
{
    return (int64_t)(a->pass - b->pass) < 0;
}

static void heap_put(struct turns *s, uint32_t at, struct turn *t)
{
    s->heap[at] = t;
    t->at = at + 1;
}

static void sift_up(struct turns *s, uint32_t at)
{
    struct turn *t = s->heap[at];

    while (at > 0 && before(t, s->heap[(at - 1) / 2])) {
        heap_put(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_put(s, at, t);
}

static void sift_down(struct turns *s, uint32_t at)
{
    struct turn *t = s->heap[at];

    for (uint32_t below = 2 * at + 1; below < s->len; below = 2 * at + 1) {
        if (below + 1 < s->len && before(s->heap[below + 1], s->heap[below]))
            below++;
        if (!before(s->heap[below], t))
            break;
        heap_put(s, at, s->heap[below]);
        at = below;
    }
    heap_put(s, at, t);
}

/* The time to the first of events that come at the rate of the weight. */
void turn_init(struct turn *t, uint32_t weight, double u)
{
    ASSERT(weight > 0 && u > 0 && u < 1);
    *t = (struct turn){.weight = weight};
    t->pass = (uint64_t)(-log(u) * (double)stride(t));
}

void turns_done(struct turns *s)
{
    ASSERT(s->len == 0);
    free(s->heap);
    *s = (struct turns){0};
}

void turns_join(struct turns *s, struct turn *t)
{
    if (turn_in(t))
        return;
    if (s->len == s->cap) {
        s->cap = s->cap == 0 ? 4 : 2 * s->cap;
        s->heap = realloc(s->heap, s->cap * sizeof(struct turn *));
        ASSERT(s->heap != NULL);
    }
    t->pass = s->now + (t->pass > s->now - t->left ? t->pass - (s->now - t->left) : 0);
    ASSERT(t->weight > 0 && s->weights <= UINT64_MAX - t->weight);
    s->weights += t->weight;
    s->heap[s->len++] = t;
    sift_up(s, s->len - 1);
}

void turns_leave(struct turns *s, struct turn *t)
{
    uint32_t at = t->at - 1;
    struct turn *last;

    if (!turn_in(t))
        return;
    ASSERT(at < s->len && s->heap[at] == t && s->weights >= t->weight);
    s->weights -= t->weight;
    last = s->heap[--s->len];
    t->at = 0;
    if (last != t) {
        heap_put(s, at, last);
        sift_up(s, at);
        sift_down(s, last->at - 1);
    }
    t->left = s->now;
    t->pass = (int64_t)(t->pass - s->now) > 0 ? t->pass - s->now : 0;
}

void turns_pay(struct turns *s, struct turn *t, uint32_t n)
{
    ASSERT(!turn_in(t) || s->heap[t->at - 1] == t);
    if (s->len > 0 && (int64_t)(s->heap[0]->pass - s->now) > 0)
        s->now = s->heap[0]->pass;
    t->pass += n * stride(t);
    if (turn_in(t))
        sift_down(s, t->at - 1);
}

bool turns_within(const struct turns *s, const struct turn *t, uint64_t n)
{
    ASSERT(turn_in(t));
    if (n > UINT32_MAX / 2)
        n = UINT32_MAX / 2;
    return s->heap[0] == t || t->pass - s->heap[0]->pass < n * (STRIDE / s->weights);
}

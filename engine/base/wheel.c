#include "base/wheel.h"

#include <stddef.h>
#include <string.h>

/* A timer due at d lies on the level of the highest 6-bit digit in which d differs from now, in the
 * slot of d's digit there. So every slot that holds timers is ahead of now's digit on its level,
 * a lower level is always due before a higher one, and the next event is found by bit scans.
 * When the clock enters a slot of a higher level its timers move down. The top level wraps. */

#define SLOT_BITS 6
#define TOP       (WHEEL_LEVELS - 1)
#define TOP_SHIFT (SLOT_BITS * TOP)

_Static_assert(WHEEL_SLOTS == 1 << SLOT_BITS, "one bit of a uint64_t per slot");

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    memset(w, 0, sizeof(*w));
    w->now_ms = now_ms;
    list_init(&w->expired);
    list_init(&w->moving);
    for (unsigned level = 0; level < WHEEL_LEVELS; level++)
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++)
            list_init(&w->slots[level][slot]);
}

static void place(struct wheel *w, struct timer *timer)
{
    uint64_t due = timer->due_ms, ahead;
    unsigned level, slot;

    if (due <= w->now_ms) {
        list_push_back(&w->expired, &timer->node);
        return;
    }
    level = (63 - (unsigned)__builtin_clzll(due ^ w->now_ms)) / SLOT_BITS;
    if (level >= TOP) {
        level = TOP;
        ahead = (due >> TOP_SHIFT) - (w->now_ms >> TOP_SHIFT);
        if (ahead >= WHEEL_SLOTS) /* beyond the wheel: comes back here on its way */
            due = w->now_ms + ((uint64_t)(WHEEL_SLOTS - 1) << TOP_SHIFT);
    }
    slot = (unsigned)(due >> (SLOT_BITS * level)) & (WHEEL_SLOTS - 1);
    list_push_back(&w->slots[level][slot], &timer->node);
    w->occupied[level] |= 1ULL << slot;
}

void wheel_cancel(struct wheel *w, struct timer *timer)
{
    struct list_node *next = timer->node.next;
    uintptr_t first = (uintptr_t)&w->slots[0][0], head = (uintptr_t)next;

    if (next == NULL)
        return;
    /* The last of its list: next is the head. If that is a slot, it is now empty. */
    if (next == timer->node.prev && head >= first && head < first + sizeof(w->slots)) {
        size_t index = (head - first) / sizeof(struct list);

        w->occupied[index / WHEEL_SLOTS] &= ~(1ULL << (index % WHEEL_SLOTS));
    }
    list_remove(&timer->node);
    ASSERT(w->armed > 0);
    w->armed--;
}

void wheel_arm(struct wheel *w, struct timer *timer, uint64_t due_ms)
{
    ASSERT(timer->on_timer != NULL);
    wheel_cancel(w, timer);
    timer->due_ms = due_ms;
    w->armed++;
    place(w, timer);
}

/* The earliest slot that holds timers: its start and place. False when there is none. */
static bool next_slot(const struct wheel *w, uint64_t *start_ms, unsigned *level, unsigned *slot)
{
    for (unsigned l = 0; l < WHEEL_LEVELS; l++) {
        unsigned shift = SLOT_BITS * l, ahead;
        uint64_t digit = w->now_ms >> shift, bits = w->occupied[l];
        unsigned turn = (unsigned)(digit & (WHEEL_SLOTS - 1));

        if (bits == 0)
            continue;
        bits = turn == 0 ? bits : bits >> turn | bits << (WHEEL_SLOTS - turn);
        ahead = (unsigned)__builtin_ctzll(bits);
        *start_ms = (digit + ahead) << shift;
        *level = l;
        *slot = (turn + ahead) & (WHEEL_SLOTS - 1);
        return true;
    }
    return false;
}

static void empty_slot(struct wheel *w, unsigned level, unsigned slot)
{
    w->occupied[level] &= ~(1ULL << slot);
    list_splice_back(level == 0 ? &w->expired : &w->moving, &w->slots[level][slot]);
}

/* Moves the clock to now_ms. It stands still at a slot of a higher level until all timers of that
 * have moved down. */
static void move_clock(struct wheel *w, uint64_t now_ms)
{
    struct list_node *node;
    uint64_t start_ms;
    unsigned level, slot;

    for (size_t moved = 0; moved < WHEEL_MOVE_MAX;) {
        if ((node = list_pop_front(&w->moving)) != NULL) {
            place(w, LIST_ENTRY(node, struct timer, node));
            moved++;
        } else if (next_slot(w, &start_ms, &level, &slot) && start_ms <= now_ms) {
            w->now_ms = start_ms;
            empty_slot(w, level, slot);
        } else {
            w->now_ms = now_ms;
            return;
        }
    }
}

size_t wheel_advance(struct wheel *w, uint64_t now_ms)
{
    struct list due;
    struct list_node *node;
    size_t ran = 0;

    ASSERT(now_ms >= w->now_ms);
    move_clock(w, now_ms);

    /* A list of its own: what a handler arms for the past runs at the next advance, so that no
     * handler can keep the caller here. */
    list_init(&due);
    list_splice_back(&due, &w->expired);
    while (ran < WHEEL_RUN_MAX && (node = list_pop_front(&due)) != NULL) {
        struct timer *timer = LIST_ENTRY(node, struct timer, node);

        ASSERT(w->armed > 0);
        w->armed--;
        ran++;
        timer->on_timer(timer);
    }
    list_splice_back(&due, &w->expired);
    list_splice_back(&w->expired, &due);
    return ran;
}

uint64_t wheel_wait_ms(const struct wheel *w, uint64_t now_ms)
{
    uint64_t start_ms;
    unsigned level, slot;

    if (!list_empty(&w->expired) || !list_empty(&w->moving))
        return 0;
    if (!next_slot(w, &start_ms, &level, &slot))
        return UINT64_MAX;
    return start_ms > now_ms ? start_ms - now_ms : 0;
}

/* Hierarchical timer wheel: O(1) arm and cancel, 1 ms resolution, 64 slots x 6 levels (2.1 years).
 * A timer never fires early; it fires late by at most one millisecond plus the caller's tick.
 * The wheel never reads a clock: time is a parameter, so a simulation can drive it. One thread. */
#ifndef HAYAUMA_BASE_WHEEL_H
#define HAYAUMA_BASE_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define WHEEL_LEVELS 6
/* What an advance does at most: timers that it runs, and timers that it moves to a lower level. A
 * million that are due at once run in as many advances as that takes. */
#define WHEEL_RUN_MAX  1000
#define WHEEL_MOVE_MAX 20000
#define WHEEL_SLOTS    64

struct timer {
    struct list_node node; /* linked while armed */
    uint64_t due_ms;
    void (*on_timer)(struct timer *timer);
};

struct wheel {
    uint64_t now_ms;
    size_t armed;
    uint64_t occupied[WHEEL_LEVELS]; /* a bit per slot that is not empty */
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
    struct list expired; /* due timers not yet run */
    struct list moving;  /* of the slot that the clock has entered, not yet moved down */
};

void wheel_init(struct wheel *w, uint64_t now_ms);
/* (Re-)arms timer for due_ms on the wheel's clock; a time in the past fires at the next advance. */
void wheel_arm(struct wheel *w, struct timer *timer, uint64_t due_ms);
/* Does nothing when the timer is not armed. */
void wheel_cancel(struct wheel *w, struct timer *timer);
/* Moves the clock to now_ms, or as far as it comes, and runs what is due, oldest first. Handlers
 * may arm and cancel any timer, themselves included. Returns how many ran. */
size_t wheel_advance(struct wheel *w, uint64_t now_ms);
/* Milliseconds from now_ms until the wheel must be advanced next (a lower bound), UINT64_MAX when
 * nothing is armed. */
uint64_t wheel_wait_ms(const struct wheel *w, uint64_t now_ms);

static inline bool timer_armed(const struct timer *timer)
{
    return list_node_linked(&timer->node);
}
/* When to look again, every_ms from now or a little sooner: at a whole second, so that those who
 * look now and then wake a thread once for all of them. every_ms: at least a second. */
static inline uint64_t wheel_look_ms(uint64_t now_ms, uint64_t every_ms)
{
    ASSERT(every_ms >= 1000);
    return (now_ms + every_ms) / 1000 * 1000;
}
/* Arms timer for due_ms, unless it is armed for then or earlier. */
static inline void wheel_arm_by(struct wheel *w, struct timer *timer, uint64_t due_ms)
{
    if (!timer_armed(timer) || timer->due_ms > due_ms)
        wheel_arm(w, timer, due_ms);
}

#endif

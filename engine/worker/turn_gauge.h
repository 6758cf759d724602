/* How long a worker's turns take: how many took how long, and of the longest since the start and in
 * the last minute what the worker was doing; by the clock, and by the CPU that they took. A turn
 * that is long by the clock alone waited for a core. The clock is read once a part, and the
 * thread's CPU once a turn: that costs a turn less than 1 us.
 *
 * The worker writes, anybody reads: relaxed atomics, each true by itself. */
#ifndef HAYAUMA_ENGINE_TURN_GAUGE_H
#define HAYAUMA_ENGINE_TURN_GAUGE_H

#include <stdatomic.h>
#include <stdint.h>

#define TURN_MS_LIMITS                                                                             \
    {                                                                                              \
        1, 5, 20, 100, 500                                                                         \
    }
#define TURN_MS_LIMITS_LEN 5

/* The parts of a turn, in their order. */
enum turn_part {
    TURN_EVENTS,   /* what the kernel tells, timers */
    TURN_QUEUE,    /* what the queue, the crew and other workers have handed over */
    TURN_LANES,    /* walks over lanes; loads begin */
    TURN_DISPATCH, /* work for sessions */
    TURN_SEND,     /* what is sent, and what is recorded */
    TURN_PARTS
};

enum turn_time { TURN_CLOCK, TURN_CPU, TURN_TIMES };

#define TURN_SPAN_S 10 /* the last minute is told by so many seconds */
#define TURN_SPANS  7  /* six whole ones and the present one */

struct turn_gauge {
    /* Of the turn under way; the worker's. */
    uint64_t part_ns; /* when its present part began; 0: it has not been looked at */
    uint64_t took_ns[TURN_PARTS];
    uint32_t lanes;   /* visits of lanes: updates, and looks of walks */
    uint32_t settled; /* recipients */
    uint64_t span;    /* the number of the present one */
    uint64_t cpu_ns;  /* the thread's, at the end of the turn before; 0: there was none */
    struct {
        /* By how long they took: the last are those beyond all of TURN_MS_LIMITS. */
        _Atomic uint64_t turns[TURN_MS_LIMITS_LEN + 1], turns_ns;
        /* The longest: see turn_longest_of(). */
        _Atomic uint64_t longest[TURN_TIMES], spans[TURN_TIMES][TURN_SPANS];
        _Atomic uint32_t lanes_max; /* visits in one turn */
    } shared;
};

struct turn_longest {
    uint64_t us;
    enum turn_part part; /* that took most of it */
    uint32_t lanes;      /* visited in it */
};

/* Part ends, at now_ns; the turn began at began_ns. */
void turn_part_ends(struct turn_gauge *g, enum turn_part part, uint64_t began_ns, uint64_t now_ns);
/* The turn's last part ends, and so the turn. cpu_ns: all that the thread has had. */
void turn_ends(struct turn_gauge *g, enum turn_part part, uint64_t began_ns, uint64_t now_ns,
               uint64_t cpu_ns);

/* Any thread. */
struct turn_longest turn_longest(const struct turn_gauge *g, enum turn_time by);
struct turn_longest turn_longest_lately(const struct turn_gauge *g, enum turn_time by);
/* "lanes" */
const char *turn_part_name(enum turn_part part);

#endif

/* Simulated time, chance and the trace: everything that happens is an event of one heap, everything
 * random comes from one generator, and everything worth knowing is hashed, so that two runs of a
 * seed can be compared.
 *
 * One seed per process; module state is static. */
#ifndef HAYAUMA_TESTS_SIM_SIM_H
#define HAYAUMA_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_US UINT64_C(1000)
#define SIM_MS UINT64_C(1000000)
#define SIM_S  UINT64_C(1000000000)

struct sim_event {
    uint64_t at_ns, seq;
    size_t slot; /* place in the heap, 0: not scheduled */
    void (*run)(struct sim_event *event);
};

void sim_begin(uint64_t seed, bool verbose);
uint64_t sim_now_ns(void);
int64_t sim_wall_ms(void);
/* Somebody sets the wall clock, forward or back. */
void sim_wall_set(int64_t by_ms);

/* (Re-)schedules; events of one time run in the order of scheduling. */
void sim_at(struct sim_event *event, uint64_t at_ns);
static inline void sim_in(struct sim_event *event, uint64_t ns)
{
    sim_at(event, sim_now_ns() + ns);
}
/* The same, unless it is due earlier already. */
void sim_by(struct sim_event *event, uint64_t at_ns);
void sim_cancel(struct sim_event *event);
/* Runs the next event; false when there is none. */
bool sim_step(void);

uint64_t sim_draw(uint64_t n);                     /* [0, n) */
uint64_t sim_between(uint64_t low, uint64_t high); /* [low, high] */
bool sim_chance(uint32_t per_mille);

void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Bytes that belong to the trace, but are too many to show. */
void sim_trace_bytes(const void *bytes, size_t len);
uint64_t sim_trace_hash(void);
void sim_trace_tail(void);
/* A violated invariant: says so, prints the end of the trace, exits with 1. */
_Noreturn void sim_fail(const char *invariant, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Faults that a checker must notice (sim --self-test). */
enum sim_sabotage {
    SABOTAGE_NONE,
    SABOTAGE_COMMIT,     /* a commit says that it is done, and is not */
    SABOTAGE_REPLY,      /* the engine reads 451 where a receiver said 250 */
    SABOTAGE_CONTENT,    /* a byte of a message changes */
    SABOTAGE_SESSIONS,   /* the engine is told a higher limit of sessions */
    SABOTAGE_RATE,       /* or of the rate */
    SABOTAGE_MEMORY,     /* a message is never freed */
    SABOTAGE_SUSPENSION, /* now and then a lane does not hear that it is suspended */
    SABOTAGE_HOT,        /* now and then a hot domain counts as any other */
    SABOTAGE_WEIGHTS,    /* the engine is told equal weights */
    SABOTAGES
};
extern enum sim_sabotage sim_sabotage;

#endif

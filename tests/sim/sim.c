#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/rng.h"

#define TAIL_LINES   400
#define LINE_BYTES   200
#define WALL_AT_0_MS INT64_C(1795305600000) /* 2026-11-22 */
#define START_NS     (1000 * SIM_S)

enum sim_sabotage sim_sabotage;

static struct {
    uint64_t seed, now_ns, seq, hash;
    int64_t wall_ahead_ms; /* what the clock was set by */
    bool verbose;
    struct rng rng, entropy;
    struct sim_event **heap; /* [1..len] */
    size_t len, cap;
    char tail[TAIL_LINES][LINE_BYTES];
    uint64_t lines;
} sim;

void sim_begin(uint64_t seed, bool verbose)
{
    sim.seed = seed;
    sim.verbose = verbose;
    sim.now_ns = START_NS;
    sim.hash = UINT64_C(0xcbf29ce484222325);
    rng_seed(&sim.rng, seed);
    rng_seed(&sim.entropy, ~seed);
}

uint64_t sim_now_ns(void)
{
    return sim.now_ns;
}

int64_t sim_wall_ms(void)
{
    return WALL_AT_0_MS + sim.wall_ahead_ms + (int64_t)(sim.now_ns / SIM_MS);
}

void sim_wall_set(int64_t by_ms)
{
    sim.wall_ahead_ms += by_ms;
}

/* --- what the engine asks for without a seam of its own (linked with --wrap) --- */

uint64_t __wrap_clock_mono_ns(void);
int64_t __wrap_clock_wall_ms(void);
uint64_t __wrap_clock_thread_cpu_ns(void);
uint64_t __wrap_rng_entropy(void);

uint64_t __wrap_clock_mono_ns(void)
{
    return sim.now_ns;
}

int64_t __wrap_clock_wall_ms(void)
{
    return sim_wall_ms();
}

/* A worker asks at the end of each turn, of which a season has millions: the kernel's answer took
 * two fifths of the time. */
uint64_t __wrap_clock_thread_cpu_ns(void)
{
    return sim.now_ns;
}

uint64_t __wrap_rng_entropy(void)
{
    return rng_next(&sim.entropy);
}

/* --- events --- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->seq < b->seq);
}

static void place(struct sim_event *e, size_t slot)
{
    sim.heap[slot] = e;
    e->slot = slot;
}

static void sift(struct sim_event *e, size_t slot)
{
    while (slot > 1 && earlier(e, sim.heap[slot / 2])) {
        place(sim.heap[slot / 2], slot);
        slot /= 2;
    }
    for (size_t child = slot * 2; child <= sim.len; child = slot * 2) {
        if (child < sim.len && earlier(sim.heap[child + 1], sim.heap[child]))
            child++;
        if (!earlier(sim.heap[child], e))
            break;
        place(sim.heap[child], slot);
        slot = child;
    }
    place(e, slot);
}

void sim_at(struct sim_event *event, uint64_t at_ns)
{
    ASSERT(event->run != NULL);
    event->at_ns = at_ns < sim.now_ns ? sim.now_ns : at_ns;
    event->seq = sim.seq++;
    if (event->slot == 0) {
        if (sim.len + 2 > sim.cap) {
            sim.cap = sim.cap == 0 ? 1024 : sim.cap * 2;
            sim.heap = realloc(sim.heap, sim.cap * sizeof(struct sim_event *));
            ASSERT(sim.heap != NULL);
        }
        event->slot = ++sim.len;
    }
    sift(event, event->slot);
}

void sim_by(struct sim_event *event, uint64_t at_ns)
{
    if (event->slot == 0 || event->at_ns > at_ns)
        sim_at(event, at_ns);
}

void sim_cancel(struct sim_event *event)
{
    size_t slot = event->slot;
    struct sim_event *last;

    if (slot == 0)
        return;
    event->slot = 0;
    last = sim.heap[sim.len--];
    if (last != event)
        sift(last, slot);
}

bool sim_step(void)
{
    struct sim_event *e;

    if (sim.len == 0)
        return false;
    e = sim.heap[1];
    sim_cancel(e);
    sim.now_ns = e->at_ns;
    e->run(e);
    return true;
}

/* --- chance --- */

uint64_t sim_draw(uint64_t n)
{
    return rng_below(&sim.rng, n);
}

uint64_t sim_between(uint64_t low, uint64_t high)
{
    return low + rng_below(&sim.rng, high - low + 1);
}

bool sim_chance(uint32_t per_mille)
{
    return per_mille != 0 && rng_below(&sim.rng, 1000) < per_mille;
}

/* --- the trace --- */

void sim_trace_bytes(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;

    for (size_t i = 0; i < len; i++)
        sim.hash = (sim.hash ^ p[i]) * UINT64_C(0x100000001b3);
}

void sim_trace(const char *fmt, ...)
{
    char *line = sim.tail[sim.lines++ % TAIL_LINES];
    va_list args;
    int n = snprintf(line, LINE_BYTES, "%llu.%06llu ", (unsigned long long)(sim.now_ns / SIM_S),
                     (unsigned long long)(sim.now_ns % SIM_S / SIM_US));

    va_start(args, fmt);
    vsnprintf(line + n, LINE_BYTES - (size_t)n, fmt, args);
    va_end(args);
    sim_trace_bytes(line, strlen(line));
    if (sim.verbose)
        printf("%s\n", line);
}

uint64_t sim_trace_hash(void)
{
    return sim.hash;
}

void sim_trace_tail(void)
{
    uint64_t from = sim.lines > TAIL_LINES ? sim.lines - TAIL_LINES : 0;

    for (uint64_t i = from; i < sim.lines && !sim.verbose; i++)
        fprintf(stderr, "  %s\n", sim.tail[i % TAIL_LINES]);
}

void sim_fail(const char *invariant, const char *fmt, ...)
{
    va_list args;

    fflush(stdout);
    sim_trace_tail();
    fprintf(stderr, "seed %llu: VIOLATED %s: ", (unsigned long long)sim.seed, invariant);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    fflush(NULL);
    _Exit(1);
}

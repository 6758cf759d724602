#include "worker/turn_gauge.h"

#include <stddef.h>

#include "base/assert.h"

/* A turn is one number, so that readers see all of it or nothing: microseconds, part, lanes. The
 * longer turn is the larger number. */
#define US_SHIFT   32
#define PART_SHIFT 29
#define LANES_MASK ((UINT64_C(1) << PART_SHIFT) - 1)

_Static_assert(TURN_PARTS <= 1 << (US_SHIFT - PART_SHIFT), "a part has its bits");

static uint64_t pack(uint64_t us, enum turn_part part, uint64_t lanes)
{
    us = us > UINT32_MAX ? UINT32_MAX : us;
    return us << US_SHIFT | (uint64_t)part << PART_SHIFT |
           (lanes > LANES_MASK ? LANES_MASK : lanes);
}

static struct turn_longest unpack(uint64_t packed)
{
    return (struct turn_longest){.us = packed >> US_SHIFT,
                                 .part = (enum turn_part)(packed >> PART_SHIFT & 7),
                                 .lanes = (uint32_t)(packed & LANES_MASK)};
}

static void keep_longer(_Atomic uint64_t *longest, uint64_t packed)
{
    if (packed > atomic_load_explicit(longest, memory_order_relaxed))
        atomic_store_explicit(longest, packed, memory_order_relaxed);
}

void turn_part_ends(struct turn_gauge *g, enum turn_part part, uint64_t began_ns, uint64_t now_ns)
{
    uint64_t from_ns = g->part_ns != 0 ? g->part_ns : began_ns;

    ASSERT(part < TURN_PARTS);
    g->took_ns[part] += now_ns > from_ns ? now_ns - from_ns : 0;
    g->part_ns = now_ns;
}

static void spans_enter(struct turn_gauge *g, uint64_t span)
{
    uint64_t first = span - g->span > TURN_SPANS ? span - TURN_SPANS + 1 : g->span + 1;

    for (uint64_t i = first; i <= span; i++)
        for (int by = 0; by < TURN_TIMES; by++)
            atomic_store_explicit(&g->shared.spans[by][i % TURN_SPANS], 0, memory_order_relaxed);
    g->span = span;
}

static void count(_Atomic uint64_t *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

void turn_ends(struct turn_gauge *g, enum turn_part part, uint64_t began_ns, uint64_t now_ns,
               uint64_t cpu_ns)
{
    static const uint64_t limits_ms[] = TURN_MS_LIMITS;
    uint64_t took_ns = now_ns > began_ns ? now_ns - began_ns : 0;
    uint64_t had_ns = g->cpu_ns != 0 && cpu_ns > g->cpu_ns ? cpu_ns - g->cpu_ns : 0;
    uint64_t span = now_ns / (TURN_SPAN_S * UINT64_C(1000000000));
    enum turn_part most = TURN_EVENTS;
    uint64_t packed[TURN_TIMES];
    size_t i = 0;

    _Static_assert(sizeof(limits_ms) == TURN_MS_LIMITS_LEN * sizeof(limits_ms[0]), "one for each");
    turn_part_ends(g, part, began_ns, now_ns);
    for (enum turn_part p = TURN_EVENTS; p < TURN_PARTS; p++) {
        most = g->took_ns[p] > g->took_ns[most] ? p : most;
    }
    if (span > g->span)
        spans_enter(g, span);
    packed[TURN_CLOCK] = pack(took_ns / 1000, most, g->lanes);
    packed[TURN_CPU] = pack(had_ns / 1000, most, g->lanes);
    for (int by = 0; by < TURN_TIMES; by++) {
        keep_longer(&g->shared.longest[by], packed[by]);
        keep_longer(&g->shared.spans[by][g->span % TURN_SPANS], packed[by]);
    }
    g->cpu_ns = cpu_ns;
    if (g->lanes > atomic_load_explicit(&g->shared.lanes_max, memory_order_relaxed))
        atomic_store_explicit(&g->shared.lanes_max, g->lanes, memory_order_relaxed);
    while (i < TURN_MS_LIMITS_LEN && took_ns > limits_ms[i] * 1000000)
        i++;
    count(&g->shared.turns[i], 1);
    count(&g->shared.turns_ns, took_ns);
    g->part_ns = 0;
    g->lanes = g->settled = 0;
    for (enum turn_part p = TURN_EVENTS; p < TURN_PARTS; p++)
        g->took_ns[p] = 0;
}

struct turn_longest turn_longest(const struct turn_gauge *g, enum turn_time by)
{
    return unpack(atomic_load_explicit(&g->shared.longest[by], memory_order_relaxed));
}

struct turn_longest turn_longest_lately(const struct turn_gauge *g, enum turn_time by)
{
    uint64_t longest = 0;

    ASSERT(by < TURN_TIMES);
    for (int i = 0; i < TURN_SPANS; i++) {
        uint64_t one = atomic_load_explicit(&g->shared.spans[by][i], memory_order_relaxed);

        longest = one > longest ? one : longest;
    }
    return unpack(longest);
}

const char *turn_part_name(enum turn_part part)
{
    static const char *const names[TURN_PARTS] = {
        "events", "queue", "lanes", "dispatch", "send",
    };

    ASSERT(part < TURN_PARTS);
    return names[part];
}

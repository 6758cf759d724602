#include "tests/sim/throttle.h"

#include "tests/sim/node.h"
#include "tests/sim/sim.h"
#include "tests/sim/world.h"

#define PAUSE_NS (600 * SIM_S)
/* Until every worker has heard of a pause: what was on its way goes on, and is refused. */
#define HEARD_NS (3 * SIM_S)
/* The engine's pause is a second longer, so that none of the answers that come with the first one
 * begins it anew. */
#define LONGER_NS SIM_S
/* How late the first connection behind that may be: a turn, a commit, the question for its route,
 * which is too old behind a pause, the way there. */
#define LATE_NS SIM_S

/* One pause after the other: at a full rate, in answer to the first message behind it, with some
 * connections open again, then none any more. */
enum step { STEP_FULL, STEP_FAILS, STEP_GROWS, STEP_THROUGH };
#define FULL_MESSAGES 60 /* taken until the first refusal */
#define GROWN         3  /* connections that worked until the third */
#define KILLED        3  /* behind the last pause: so many are allowed when the process dies */

static struct {
    enum step step;
    uint32_t pause;      /* the number of the last */
    uint64_t asked_ns;   /* when the pause was asked for; 0: none was yet */
    uint64_t refused_ns; /* the last refusal for it */
    uint32_t taken, open;
    uint32_t allowed; /* connections at once, since that pause */
    bool back;        /* a connection came behind that pause */
} throttle;

static const char *what(void)
{
    return world_domains ? "message" : "connection";
}

bool throttle_means(struct str sender)
{
    return !world_domains || world_signs ||
           (sender.len > 8 &&
            str_eq((struct str){sender.ptr + sender.len - 8, 8}, STR("@d0.test")));
}

const char *throttle_reply(void)
{
    return !world_domains ? "421 4.7.28 Gmail has detected an unusual rate of email originating "
                            "from your IP address"
           : world_signs  ? "421 4.7.28 Gmail has detected an unusual rate of unsolicited email "
                            "originating from your DKIM domain engine.test"
                          : "421 4.7.28 Gmail has detected an unusual rate of unsolicited email "
                            "originating from your SPF domain d0.test";
}

static bool in_pause(void)
{
    return throttle.refused_ns != 0 && sim_now_ns() < throttle.refused_ns + PAUSE_NS;
}

void throttle_opened(void)
{
    uint64_t since_ns = sim_now_ns() - throttle.refused_ns;

    throttle.open++;
    if (throttle.refused_ns == 0 || (in_pause() && sim_now_ns() < throttle.asked_ns + HEARD_NS))
        return;
    if (in_pause())
        sim_fail("recovery", "the %s %.3f s into the pause", what(), (double)since_ns / 1e9);
    if (!throttle.back && since_ns > PAUSE_NS + LONGER_NS + LATE_NS)
        sim_fail("recovery", "the first %s %.3f s behind the refusal", what(),
                 (double)since_ns / 1e9);
    throttle.back = true;
    if (throttle.open > throttle.allowed)
        sim_fail("recovery", "%u times a %s, and %u may be", throttle.open, what(),
                 throttle.allowed);
}

void throttle_closed(void)
{
    throttle.open--;
}

static bool refuse(enum step next)
{
    sim_trace("throttle: step %d", (int)next);
    throttle.step = next;
    throttle.pause++;
    throttle.asked_ns = throttle.refused_ns = sim_now_ns();
    throttle.allowed = 1;
    throttle.back = false;
    /* The pause is kept to over a restart. */
    if (next == STEP_FAILS)
        node_kill_within(PAUSE_NS / 2);
    return true;
}

bool throttle_refuses(void)
{
    if (throttle.refused_ns != 0 && in_pause()) {
        if (sim_now_ns() >= throttle.asked_ns + HEARD_NS)
            sim_fail("recovery", "a message within the pause");
        throttle.refused_ns = sim_now_ns();
        return true;
    }
    switch (throttle.step) {
    case STEP_FULL:
        return throttle.taken >= FULL_MESSAGES && refuse(STEP_FAILS);
    case STEP_FAILS:
        return refuse(STEP_GROWS);
    case STEP_GROWS:
        return throttle.allowed > GROWN && refuse(STEP_THROUGH);
    case STEP_THROUGH:
        break;
    }
    return false;
}

void throttle_taken(uint32_t *worked)
{
    bool first = *worked != throttle.pause;

    *worked = throttle.pause;
    throttle.taken++;
    if (first && throttle.refused_ns != 0 && !in_pause())
        throttle.allowed++;
    /* How far the way back has come is kept over a restart. */
    if (first && throttle.step == STEP_THROUGH && throttle.allowed == KILLED)
        node_kill_within(SIM_S);
}

void throttle_check(void)
{
    if (throttle.step != STEP_THROUGH || throttle.allowed < world.sites[0].sessions_max[0])
        sim_fail("recovery", "step %d, %u connections", (int)throttle.step, throttle.allowed);
}

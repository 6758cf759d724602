#include "outcome/policy.h"

#include "base/assert.h"

/* clang-format off */
static const struct policy policies[POLICY_EVENTS] = {
    [POLICY_TAKEN] =
        {"the message was taken", POLICY_ATTEMPT, false, false, POLICY_RUN_ENDS},
    [POLICY_RECIPIENT] =
        {"refused: this recipient or this message", POLICY_ATTEMPT, false, false, POLICY_RUN_ENDS},
    [POLICY_TOO_MANY] =
        {"refused: too many recipients, others were taken", POLICY_FREE, false, false, POLICY_RUN_ENDS},
    [POLICY_HOST] =
        {"refused: the host is not well", POLICY_ATTEMPT, false, false, POLICY_RUN_COUNTS},
    [POLICY_SLOWER] =
        {"refused: asks for less, or names a block list", POLICY_ATTEMPT, true, true, POLICY_RUN_COUNTS},
    [POLICY_PAUSED] =
        {"refused: a rule suspends the source or the site, or lowers its limits", POLICY_ATTEMPT, true, false, POLICY_RUN_COUNTS},
    [POLICY_SESSION_END] =
        {"refused: 421 or 503 in a transaction", POLICY_ATTEMPT, true, false, POLICY_RUN_COUNTS},
    [POLICY_POLITE_END] =
        {"421 or close between two transactions", POLICY_FREE, true, false, POLICY_RUN_KEEPS},
    [POLICY_POLITE_SLOWER] =
        {"421 between two transactions that asks for less", POLICY_FREE, true, true, POLICY_RUN_KEEPS},
    [POLICY_BROKEN] =
        {"connection lost in a transaction", POLICY_ONCE_FREE, true, false, POLICY_RUN_COUNTS},
    [POLICY_IN_DOUBT] =
        {"connection lost behind the end of a message", POLICY_ATTEMPT, true, false, POLICY_RUN_COUNTS},
    [POLICY_UNSEEN] =
        {"sent behind the transaction in which the session ended", POLICY_FREE, true, false, POLICY_RUN_KEEPS},
    [POLICY_UNABLE] =
        {"the peer lacks what the message needs", POLICY_ATTEMPT, false, false, POLICY_RUN_KEEPS},
    [POLICY_SETUP_SLOWER] =
        {"no session: it asks for less", POLICY_NOBODY, true, true, POLICY_RUN_COUNTS},
    [POLICY_SETUP_FAILED] =
        {"no session at any address", POLICY_NOBODY, true, false, POLICY_RUN_COUNTS},
    [POLICY_SHORTAGE] =
        {"this host lacks descriptors, memory or ports", POLICY_NOBODY, true, false, POLICY_RUN_KEEPS},
};
/* clang-format on */

const struct policy *policy_of(enum policy_event event)
{
    ASSERT((unsigned)event < POLICY_EVENTS);
    return &policies[event];
}

enum policy_event policy_of_refusal(const struct verdict *v, enum smtp_stage stage, bool between)
{
    if (v->class == OUTCOME_DELIVERED)
        return POLICY_TAKEN;
    if (v->paused)
        return POLICY_PAUSED;
    if (v->goodbye && between && stage == SMTP_STAGE_MAIL)
        return v->slow_down ? POLICY_POLITE_SLOWER : POLICY_POLITE_END;
    if (v->too_many)
        return POLICY_TOO_MANY;
    if (v->slow_down)
        return POLICY_SLOWER;
    if (v->lowered)
        return POLICY_PAUSED;
    if (v->close)
        return POLICY_SESSION_END;
    if (v->scope == FAULT_HOST)
        return POLICY_HOST;
    return POLICY_RECIPIENT;
}

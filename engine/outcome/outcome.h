/* How an attempt ended: the one value that every failure becomes (DESIGN.md section 6). */
#ifndef HAYAUMA_ENGINE_OUTCOME_H
#define HAYAUMA_ENGINE_OUTCOME_H

#include "smtp/client.h"
#include "smtp/reply.h"

enum outcome_class {
    OUTCOME_DELIVERED,
    OUTCOME_DEFERRED, /* will be tried again */
    OUTCOME_FAILED,   /* permanent */
    OUTCOME_LOST,     /* possibly delivered: tried again, may duplicate */
    OUTCOME_EXPIRED,  /* lifetime over; set by policy */
};

struct config_rule;

struct outcome {
    enum outcome_class class;
    enum smtp_stage stage;
    bool local;      /* the reply is our own words, not the peer's */
    bool suppressed; /* FAILED: its address is on the suppression list, and it was not tried */
    struct smtp_reply reply;
    /* The rule that read the reply, or NULL; valid while the outcome is judged. */
    const struct config_rule *rule;
};

#endif

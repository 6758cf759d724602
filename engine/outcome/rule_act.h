/* What follows from a rule that matched a refusal (outcome/rules.h), beside the recipient's
 * verdict: suspensions, lowered limits and alarms, each with a record of type "Rule". Thread: the
 * site's worker. */
#ifndef HAYAUMA_ENGINE_RULE_ACT_H
#define HAYAUMA_ENGINE_RULE_ACT_H

#include "outcome/rules.h"
#include "schedule/channel.h"

/* The rule that reads what c's session was answered, after it has acted; NULL: there is none.
 * family: AF_INET, AF_INET6, of the session. lane, m: of the recipient that was refused, and its
 * message; NULL: the session was. v becomes what the rule says. */
const struct config_rule *rule_hear(struct channel *c, int family, struct lane *lane,
                                    const struct message *m, const char *host,
                                    enum smtp_stage stage, const struct smtp_reply *reply,
                                    struct verdict *v);
/* Nothing got through in an attempt. Where the source was suspended before by a rule, and nothing
 * got through since, it is for as long again. */
void rule_hear_failure(struct channel *c);
/* A session got something through for the first time: behind a pause the source may have one more.
 * How many is stored, so that a restart goes on there. */
void rule_hear_success(struct channel *c);
/* The same of a message of what is lowered, which may be NULL, that was taken at taken_ms: a domain
 * that comes back from a pause may have one message more under way with each session on which one
 * of it got through. worked_ms: when one got through last on this session; 0: none did. Both are
 * monotonic. What was taken before a pause was asked for says nothing of the way back behind it. */
void rule_hear_flow_failure(struct channel *c, const struct limits_lowered *lowered,
                            uint64_t taken_ms);
void rule_hear_flow_success(struct channel *c, const struct limits_lowered *lowered,
                            uint64_t taken_ms, uint64_t worked_ms);

#endif

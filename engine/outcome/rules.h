/* The rules by which refusals are read that say more than their code: those of the configuration
 * and those that come with the engine (config/config_rules_shipped.c). Pure, any thread. What
 * follows from a match beside the verdict does rule_act.h.
 *
 * Only refusals are asked about, so a message that is taken costs nothing. Which rules there are
 * for a code is an index; of these the provider, the enhanced code and the stage leave few whose
 * words are looked for. */
#ifndef HAYAUMA_ENGINE_RULES_H
#define HAYAUMA_ENGINE_RULES_H

#include "config/config.h"
#include "outcome/classify.h"

/* A refusal. */
struct rule_question {
    const char *provider, *host; /* who refused; host: the exchanger's name, or NULL */
    enum smtp_stage stage;
    const struct smtp_reply *reply;
};

/* The rule that reads the refusal; NULL: none does. */
const struct config_rule *rule_find(const struct config *c, const struct rule_question *q);
/* Reads "421 4.7.28 text", as screens and the queue have answers. False: it is no refusal. */
bool rule_reply_parse(struct str text, struct smtp_reply_parser *out);
/* The rule that reads such a text, wherever in a session it was said. NULL: none, or one or another
 * by where. host: likewise, or NULL. */
const struct config_rule *rule_of_text(const struct config *c, const char *provider,
                                       const char *host, struct str text);
/* Whether rule matches, whatever others in front of it do. */
bool rule_matches(const struct config_rule *rule, const struct rule_question *q);
/* Whether the words of a rule, in lower case, are in text: pieces between stars one behind the
 * other; a '^' in front binds the first piece to the beginning. Linear in text. */
bool rule_words_match(const char *words, struct str text);
/* What the rule makes of the verdict. paused: it suspends the source or the site by this refusal.
 */
void rule_verdict(const struct config_rule *rule, enum smtp_stage stage, bool paused,
                  struct verdict *v);

#endif

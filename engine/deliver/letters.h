/* Letters: transactions that a session has taken and not submitted to its protocol yet, since they
 * are being rendered or signed. Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_LETTERS_H
#define HAYAUMA_ENGINE_LETTERS_H

#include "deliver/delivery.h"

/* t is a letter of d's from here on. */
void letters_add(struct delivery *d, struct transaction *t);
/* Submits those that are ready, as far as d's protocol has room; one that is not lets others pass.
 * Ends those that cannot be made: their recipients are judged. */
void letters_submit(struct delivery *d);
/* d will submit none of them: their recipients go back to their lanes. */
void letters_take_back(struct delivery *d);

#endif

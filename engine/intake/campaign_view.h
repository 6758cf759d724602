/* A campaign as clients and operators see it: its state in a word, and a JSON object with its
 * counts. Any thread. */
#ifndef HAYAUMA_ENGINE_CAMPAIGN_VIEW_H
#define HAYAUMA_ENGINE_CAMPAIGN_VIEW_H

#include "worker/campaigns.h"

/* "draft", "scheduled", "running", "paused", "cancelled" or "done"; static. counts: of its
 * recipients. */
const char *campaign_state_word(const struct campaign *c, const struct queue_tally *counts,
                                int64_t now_ms);
/* Appends the object. */
void campaign_put(struct buf *out, const struct campaign *c, const struct queue_tally *counts,
                  int64_t now_ms);

#endif

/* A campaign as clients and operators see it: its state in a word, and a JSON object with its
 * counts. Any thread. */
#ifndef HAYAUMA_ENGINE_CAMPAIGN_VIEW_H
#define HAYAUMA_ENGINE_CAMPAIGN_VIEW_H

#include "worker/campaigns.h"

/* "draft", "scheduled", "running", "paused", "cancelled" or "done"; static. counts: of its
 * recipients. */
const char *campaign_state_word(const struct campaign *c, const struct queue_tally *counts,
                                int64_t now_ms);
/* Appends the object; campaign_add_about() and campaign_add_report() add to it. */
void campaign_put(struct buf *out, const struct campaign *c, const struct queue_tally *counts,
                  int64_t now_ms);
/* Adds what it was made of: members of the order's about that created it. 0, also where there is
 * nothing; or as queue_state_get(). */
int campaign_add_about(struct buf *out, struct queue *q, const struct msgid *id) MUST_USE;
/* The record of that; about: a JSON object. */
void campaign_about_encode(struct buf *out, struct str about);

#endif

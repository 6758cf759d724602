/* Between campaign.c (orders), campaign_cancel.c (rows of cancelled campaigns) and campaign_part.c
 * (recipients). */
#ifndef HAYAUMA_ENGINE_CAMPAIGN_PRIVATE_H
#define HAYAUMA_ENGINE_CAMPAIGN_PRIVATE_H

#include "intake/campaign.h"

/* The flow of a campaign's rows. NULL: memory is out, or there are so many flows that it has none
 * of its own, by which it could be suspended. */
const struct queue_flow *campaign_flow(struct queue *q, const struct campaign *one);

/* Removes the rows that are left of a campaign that was cancelled, by the workers that own the
 * shards, and resumes its name behind that. Of the keeper. */
void campaign_cancel_rows(struct worker *w, const struct campaign *one);

/* What was read of a campaign's addresses goes from memory. Under the table's lock. */
void campaign_upload_drop(struct campaigns *all, struct campaign_entry *e);
/* Whether recipients are being added. Under the table's lock. */
bool campaign_upload_busy(const struct campaign_entry *e);

#endif

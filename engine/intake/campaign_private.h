/* Between campaign.c (carries out orders), campaign_admit.c (which orders a campaign takes),
 * campaign_cancel.c (rows of cancelled campaigns) and campaign_part.c (recipients). */
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

/* --- campaign_admit.c --- */

/* Whether tenant has as many places as are left: it leaves them to others. So one tenant may have
 * half of all, the next one half of the rest, and each newcomer finds some. Under the table's lock.
 */
bool campaign_has_its_places(struct campaigns *all, const char *tenant);
/* The oldest campaign that is over and takes orders, which goes where there are too many; or NULL.
 * Under the table's lock. */
struct campaign_entry *campaign_oldest_over(struct campaigns *all);
/* The campaign that an order makes, or what another order makes of one, into *out; the latter takes
 * no order and no recipients from here on, until campaign_entry.changing is false again. 0, or
 * -errno as of campaign_order.on_done(). Under the table's lock. */
int campaign_admit_new(struct worker *w, const struct campaign_order *order,
                       struct campaign *out) MUST_USE;
int campaign_admit_change(struct worker *w, const struct campaign_order *order,
                          struct campaign *out) MUST_USE;
/* Notes which of the campaigns that matter to the order are over. It reads the store, which workers
 * do not: of whoever gives the order. */
void campaign_look_over(struct shared *all, const struct campaign_order *order);

#endif

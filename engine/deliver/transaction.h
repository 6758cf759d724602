/* A message on its way through one session: a transaction of smtp_client with its recipients, and
 * what the replies make of each recipient. A recipient is delivered, or converted for the peer, or
 * put back, or judged by transaction_done(): none is left behind.
 *
 * A message that is a recipe becomes the recipient's letter first (deliver/recipes.h). In front of
 * the content goes what is made for this sending: its signatures (deliver/signing.h). They are made
 * behind rendering and conversion, so that what is signed is what leaves; a message that the peer
 * cannot take is not signed. Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_TRANSACTION_H
#define HAYAUMA_ENGINE_TRANSACTION_H

#include "deliver/delivery.h"
#include "schedule/channel.h"
#include "smtp/client.h"

struct transaction;

/* Size of the objects of worker->transaction_pool. */
size_t transaction_bytes(void);
/* A transaction of the recipients that were taken, PLACE_FLIGHT, of one message. d owns it until
 * transaction_done(). */
struct transaction *transaction_new(struct delivery *d, struct recipient **rcpts,
                                    const struct channel_taken *taken);
/* Makes t what the peer will get: a letter, with its signatures in front. True:
 * transaction_submit() may come. False: it is being made, and this is to be called again behind
 * delivery_dirty(); or it cannot be. */
bool transaction_prepare(struct transaction *t) MUST_USE;
/* Hands t to the session's protocol, which has room. */
void transaction_submit(struct transaction *t);
/* Whether the protocol has a transaction of the message, from its MAIL to its last answer. */
bool transactions_carry(const struct delivery *d, const struct msgid *message);
/* Whether some transaction of d has mail for which d counts as one of limit's sessions. */
bool transactions_count(const struct delivery *d, const struct limit *limit);
/* t is not submitted, and never will be: its recipients go back to their lanes. */
void transaction_take_back(struct transaction *t);
/* Whether t cannot be made, or its recipient belongs to another flow, as the rendered letter says;
 * and its end then: its recipients are judged, or go over. */
bool transaction_spoilt(const struct transaction *t);
void transaction_end_spoilt(struct transaction *t);
/* t in the list of those that are not submitted. */
struct list_node *transaction_letter(struct transaction *t);
struct transaction *transaction_of_letter(struct list_node *n);
/* SMTP_EVENT_RECIPIENT: what becomes of one recipient. */
void transaction_recipient(const struct smtp_event *event);
/* SMTP_EVENT_DONE: settles whoever was not delivered, frees the transaction. */
void transaction_done(const struct smtp_event *event);

#endif

/* A message on its way through one session: a transaction of smtp_client with its recipients, and
 * what the replies make of each recipient. A recipient is delivered, or converted for the peer, or
 * put back, or judged by transaction_done(): none is left behind. Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_TRANSACTION_H
#define HAYAUMA_ENGINE_TRANSACTION_H

#include "deliver/delivery.h"
#include "smtp/client.h"

struct transaction;

/* Size of the objects of worker->transaction_pool. */
size_t transaction_bytes(void);
/* A transaction of recipients, PLACE_FLIGHT, of one message. d owns it until transaction_done(). */
struct transaction *transaction_new(struct delivery *d, struct recipient **rcpts, size_t len);
struct smtp_transaction *transaction_smtp(struct transaction *t);
/* SMTP_EVENT_RECIPIENT: what becomes of one recipient. */
void transaction_recipient(const struct smtp_event *event);
/* SMTP_EVENT_DONE: settles whoever was not delivered, frees the transaction. */
void transaction_done(const struct smtp_event *event);

#endif

/* Acceptance: what lies between "content and recipients are complete" and the answer, for whatever
 * brings mail. The message's shards are chosen, rows and the reception's record made, one change or
 * several submitted; behind the commit the recipients come to their lanes and the waiter is told.
 *
 * A message of few recipients lies in one shard: one change. One of many has rows in all shards:
 * queue/spread.h. Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_ACCEPT_H
#define HAYAUMA_ENGINE_ACCEPT_H

#include "dns/name.h"
#include "smtp/address.h"
#include "worker/worker.h"

struct report_tls;

/* Envelope strings live one behind the other in a buffer; these are offsets into it. */
struct accept_slice {
    uint32_t at, len;
};

struct accept_rcpt {
    struct accept_slice address, queue, orcpt;
    uint8_t notify;
};

struct accept_order {
    struct worker *worker;
    const struct config *config; /* says how long mail lives */
    struct message *message;     /* a reference is taken */
    const uint8_t *strings;      /* what the recipients' slices are of; copied, as they are */
    const struct accept_rcpt *rcpts;
    uint32_t rcpts_len;
    int64_t due_ms;      /* wall clock of the first attempt */
    int64_t expires_ms;  /* wall clock; 0: as the configuration says */
    uint64_t held_bytes; /* of shared->intake_bytes; given back when the commit has ended */
    /* Put in the message's transaction, in this shard, which is then that of all its recipients.
     * They live until it has ended. */
    const struct queue_state *states;
    size_t states_len;
    uint32_t shard; /* if there are states */
    /* For the record. */
    const char *protocol, *peer_name, *peer_addr, *session_id;
    const char *user;             /* who has logged in, or NULL */
    const struct report_tls *tls; /* or NULL */
};

/* Hears how an acceptance ended; lives until then, or until accept_forget(). */
struct accept_waiter {
    void (*on_done)(struct accept_waiter *waiter, int result); /* durable (0), or -errno */
    struct acceptance *under_way;                              /* NULL: it has ended */
};

/* Whether new mail may be taken now: the worst of all shards. Any thread. */
enum queue_intake accept_intake(const struct queue *q);
/* Whether a client that holds `held` of shared->intake_bytes may hold so many bytes more. Any
 * thread. */
bool accept_has_room(const struct shared *shared, const struct config *c, uint64_t held,
                     uint64_t bytes);
/* Why mail to recipient is not taken, as a reply, or NULL: *name is the queue's then. */
const char *accept_rcpt_refusal(const struct config *c, const struct smtp_address *recipient,
                                struct dns_name *name);
/* Appends a recipient's address as it is kept; <postmaster> is of this host. False: it is not
 * ASCII (international_put_address()). */
bool accept_put_rcpt(struct buf *out, const struct config *c,
                     const struct smtp_address *recipient) MUST_USE;

/* True: waiter->on_done() will be called, later. False: no memory, and nothing was done. */
bool accept_submit(const struct accept_order *order, struct accept_waiter *waiter) MUST_USE;
/* The waiter goes; what was submitted commits all the same. */
void accept_forget(struct accept_waiter *waiter);

#endif

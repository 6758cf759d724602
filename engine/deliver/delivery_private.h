/* The inside of a delivery, shared by delivery.c (states, events, work, the end of a turn),
 * delivery_setup.c (from the first address to a session that is ready, and what keeps it from that)
 * and delivery_time.c (how long each step may take, and how long an idle session is kept). */
#ifndef HAYAUMA_ENGINE_DELIVERY_PRIVATE_H
#define HAYAUMA_ENGINE_DELIVERY_PRIVATE_H

#include "deliver/delivery.h"

enum delivery_event {
    EVENT_CONNECTED,
    EVENT_SECURED,
    EVENT_DATA,
    EVENT_SENT,
    EVENT_LOST,
    EVENT_TIMEOUT
};

/* No session yet. */
static inline bool delivery_is_setup(const struct delivery *d)
{
    return d->state < DELIVERY_OPEN;
}

/* Whether the session has nothing to do. */
static inline bool delivery_is_empty(const struct delivery *d)
{
    return smtp_client_in_flight(d->client) == 0 && d->letters_len == 0;
}

/* --- delivery.c --- */

extern const struct stream_handlers delivery_stream_handlers;

void delivery_advance(struct delivery *d, enum delivery_event event, const uint8_t *data,
                      int result);
/* A move that is not in the table of states is a bug. */
void delivery_set_state(struct delivery *d, enum delivery_state state);
/* The site counts those that yield: until they are closed they hold their slots, and a share that
 * only they exceed is no reason for others to go too. */
void delivery_set_yielding(struct delivery *d, bool yielding);
/* If it has nothing to do. Where descriptors are short such a session makes way for other
 * destinations. */
void delivery_idle(struct delivery *d);
/* Ends what is under way on the connection; the turn's end closes it. */
void delivery_close(struct delivery *d);

/* --- delivery_setup.c --- */

void delivery_count_connecting(struct channel *c, int more);
/* False, here and below: the session is over. */
bool delivery_connected(struct delivery *d);
/* The connection leads to the exchanger: its greeting is next, or a handshake. False also where it
 * leads to ourselves. */
bool delivery_begin_greeting(struct delivery *d);
/* The proxy says something. What is behind its last answer is the exchanger's: *len bytes at *data.
 * False also where there is nothing. */
bool delivery_proxy_data(struct delivery *d, const uint8_t **data, size_t *len);
/* STARTTLS was answered, perhaps before the kernel has told us that it is sent. */
void delivery_begin_handshake(struct delivery *d);
/* Whether the peer's name, which its certificate bears, is the configuration's: that of the route,
 * or one below it. Exchangers have the names that DNS says, and nothing proves what DNS says. */
bool delivery_named_by_route(const struct delivery *d);
/* Waits for the end of the turn, since a peer that closes or talks nonsense right behind its
 * greeting has given us no session. If it counted as a session that works, the next would be opened
 * at once, for ever. */
void delivery_setup_ready(struct delivery *d);
/* There will be no session with this address. */
void delivery_setup_over(struct delivery *d, const struct smtp_event *event);
/* Goes on to another address, with a fresh protocol state. */
bool delivery_reopen(struct delivery *d);

/* --- delivery_time.c --- */

/* From now on, for what d waits for. */
void delivery_arm_timer(struct delivery *d);
void delivery_on_timer(struct timer *timer);
/* Whether d, connected for held_ms, is more than the worker's share while others lack a session. */
bool delivery_over_share(const struct delivery *d, uint64_t held_ms);

#endif

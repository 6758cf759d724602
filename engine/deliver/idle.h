/* Idle sessions: those without work. A session's own site gives it work first. Another site that
 * wants a connection to the same address, under the same limits, takes it over; so domains that
 * share some of their exchangers, not all, share sessions. Thread: the sessions' worker. */
#ifndef HAYAUMA_ENGINE_IDLE_H
#define HAYAUMA_ENGINE_IDLE_H

#include "deliver/delivery.h"

void idle_enter(struct delivery *d);
/* Does nothing when d is not idle. */
void idle_leave(struct delivery *d);
/* A session that site may take over, or NULL. */
struct delivery *idle_find(const struct site *site, const struct exchanger *to);

#endif

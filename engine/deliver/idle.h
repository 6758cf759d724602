/* Sessions without work. Their site gives them work first; another one that wants a connection to
 * the same address, under the same limits, takes one over: domains that share some of their
 * exchangers, not all, share sessions so. Thread: their worker. */
#ifndef HAYAUMA_ENGINE_IDLE_H
#define HAYAUMA_ENGINE_IDLE_H

#include "deliver/delivery.h"

void idle_enter(struct delivery *d);
/* Does nothing when d is not idle. */
void idle_leave(struct delivery *d);
/* A session that site may take over, or NULL. */
struct delivery *idle_find(const struct site *site, const struct exchanger *to);

#endif

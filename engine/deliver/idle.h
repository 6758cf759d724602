/* Idle sessions: those without work. A session's own channel gives it work first. That of another
 * site which wants a connection from the same source to the same address, under the same limits,
 * takes it over; so domains that share some of their exchangers, not all, share sessions. Thread:
 * the sessions' worker. */
#ifndef HAYAUMA_ENGINE_IDLE_H
#define HAYAUMA_ENGINE_IDLE_H

#include "deliver/delivery.h"

/* Among those that rest where d->session says so: that get no work until idle_wake(). */
void idle_enter(struct delivery *d);
bool idle_rests(const struct delivery *d);
/* d, which is idle, rests from now on. */
void idle_rest(struct delivery *d);
void idle_wake(struct delivery *d);
/* Does nothing when d is not idle. */
void idle_leave(struct delivery *d);
/* A session that c may take over, or NULL. */
struct delivery *idle_find(const struct channel *c, const struct exchanger *to);

#endif

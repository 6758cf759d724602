/* A provider that asks for less, as Google does (421 4.7.28), and watches whether the engine comes
 * back as Google publishes it: nothing for ten minutes, then one connection, one more with each
 * that works, ten more minutes after a failure. sim --recovery; receivers tell what they see.
 *
 * With --domains it asks that of a domain, that of the return path or that which signs, which two
 * sources send mail of: then messages of it under way are counted in the place of connections, and
 * mail of other domains goes on. */
#ifndef HAYAUMA_TESTS_SIM_THROTTLE_H
#define HAYAUMA_TESTS_SIM_THROTTLE_H

#include <stdbool.h>

#include "base/str.h"

/* Whether mail from sender is meant. */
bool throttle_means(struct str sender);
/* A connection, or such a message, begins, ends. */
void throttle_opened(void);
void throttle_closed(void);
/* MAIL: whether it gets throttle_reply(). */
bool throttle_refuses(void);
const char *throttle_reply(void);
/* A message was taken. worked: of which pause the connection has brought a message through; 0:
 * none. */
void throttle_taken(uint32_t *worked);
/* The engine came back so often as it should have. */
void throttle_check(void);

#endif

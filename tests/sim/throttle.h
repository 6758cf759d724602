/* A provider that asks for less, as Google does (421 4.7.28), and watches whether the engine comes
 * back as Google publishes it: nothing for ten minutes, then one connection, one more with each
 * that works, ten more minutes after a failure. sim --recovery; receivers tell what they see. */
#ifndef HAYAUMA_TESTS_SIM_THROTTLE_H
#define HAYAUMA_TESTS_SIM_THROTTLE_H

#include <stdbool.h>

/* A connection begins, ends. */
void throttle_opened(void);
void throttle_closed(void);
/* MAIL: whether it gets THROTTLE_REPLY. */
#define THROTTLE_REPLY                                                                             \
    "421 4.7.28 Gmail has detected an unusual rate of email originating from your IP address"
bool throttle_refuses(void);
/* A message was taken; worked: of this connection, for the first time. */
void throttle_taken(bool first);
/* The engine came back so often as it should have. */
void throttle_check(void);

#endif

/* The mail servers of the world: the server side's machine with the manners of its host. */
#ifndef HAYAUMA_TESTS_SIM_RECEIVER_H
#define HAYAUMA_TESTS_SIM_RECEIVER_H

/* All hosts of the world begin to listen. */
void receivers_open(void);
/* Sessions that are still open. */
unsigned receivers_sessions(void);

#endif

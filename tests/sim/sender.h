/* The applications: clients of the engine's listener, which note what they were told. */
#ifndef HAYAUMA_TESTS_SIM_SENDER_H
#define HAYAUMA_TESTS_SIM_SENDER_H

#include <stdbool.h>

void senders_open(void);
/* All messages of the world are answered, or given up. */
bool senders_through(void);
void senders_close(void);

#endif

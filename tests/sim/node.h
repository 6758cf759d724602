/* The engine under test: opened without threads, its workers, committers and loaders run as events
 * of the simulation. It can be killed, restarted, reloaded and administrated at any moment. */
#ifndef HAYAUMA_TESTS_SIM_NODE_H
#define HAYAUMA_TESTS_SIM_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "limits/warmup.h"

/* Draws when what happens to the engine, and starts it. dir: an empty directory. */
void node_begin(const char *dir);
/* Looks at what is stored, now and then. */
void node_check(void);
/* No recipient is stored any more, and nothing more will happen to the engine. */
bool node_empty(void);
/* It is killed some time within ns, and starts again. */
void node_kill_within(uint64_t ns);
/* Whether it runs, so that it takes orders; and one of them, for warm-up. */
bool node_runs(void);
void node_order(const struct warmup_order *what);
/* Ends it in order. */
void node_drain(void);
bool node_ended(void);
bool node_was_killed(void);
/* What keeps it, for a message. */
void node_describe(void);

#endif

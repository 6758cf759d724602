/* The books of a worker between two turns: what its lists hold against what is counted. Walks all;
 * a count that is wrong ends the seed, with the assertion that says which. */
#ifndef HAYAUMA_SIM_ACCOUNTS_H
#define HAYAUMA_SIM_ACCOUNTS_H

#include "worker/worker.h"

void accounts_check(struct worker *w);

#endif

/* The counters of all workers together, by name (docs/control.md). Any thread. */
#ifndef HAYAUMA_ENGINE_COUNTERS_H
#define HAYAUMA_ENGINE_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

struct shared;

/* Calls put for each total since start (gauge false) and each present value (gauge true). */
void counters_visit(struct shared *shared,
                    void (*put)(void *to, const char *name, uint64_t value, bool gauge), void *to);

#endif

/* Quiet hours: hours of the day, by the clocks of a place, in which nothing is sent. Pure. */
#ifndef HAYAUMA_ENGINE_QUIET_H
#define HAYAUMA_ENGINE_QUIET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/zone.h"

/* Whether wall_ms lies in hours, a bit for each of the day. *until_ms: when that is otherwise, at
 * most two days on (wall clock). */
bool quiet_at(const struct zone *zone, uint32_t hours, int64_t wall_ms, int64_t *until_ms);

#endif

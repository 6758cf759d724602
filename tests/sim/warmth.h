/* A newsletter of 300,000 recipients over new addresses, sim --warmup: the production engine warms
 * up four sources at three providers over a day of 23 or 25 hours, and is killed in between. The
 * book of what receivers took, by source, provider, sending day and hour, is held against
 *
 *   the caps       each day's cap as the rules give it, never exceeded; no day more than twice the
 *                  one before; nothing in quiet hours; no hour more than twice an even part
 *   the kills      while there is mail, what a day's cap has left is what kills lost: no more than
 *                  the leases that a stream had when it died
 *   the forecast   as many days as `hayauma warmup plan` says, each with as many recipients */
#ifndef HAYAUMA_TESTS_SIM_WARMTH_H
#define HAYAUMA_TESTS_SIM_WARMTH_H

#include <stdint.h>

#include "base/buf.h"

#define WARMTH_SOURCES   4
#define WARMTH_PROVIDERS 3
#define WARMTH_MESSAGES  1500
#define WARMTH_RCPTS     200 /* of each */

/* Sets the clock before a change of summer time, to the beginning of a day: that of the seed. */
void warmth_clock(void);
void warmth_config(struct buf *out);
/* Kills are planned. */
void warmth_begin(void);
void warmth_killed(void);
/* The provider of the list's recipient number. */
uint32_t warmth_provider(uint32_t number);
/* A receiver took so many recipients. */
void warmth_taken(uint32_t source, uint32_t provider, uint32_t rcpts);
void warmth_check(void);

#endif

/* Sixty days of warm-up, sim --season: the production engine warms up four sources at six
 * providers, whose answers change from day to day, over a change of summer time, and is killed
 * twenty times. A model of the manual's rules, in their plainest form, says from what receivers
 * answered which cap each source has at each provider on each day. It is held against what came:
 *
 *   the caps       no day above its cap, no hour above twice an even part, nothing in quiet hours,
 *                  at carriers nothing at the top of the hour
 *   their use      where there was mail all day 97 % of the cap, and what kills lost: one lease of
 *                  a stream each
 *   the stages     advance, hold, fall-back, freeze, pause, long pause and calendar: each record
 *                  of a day says the stage, cap and verdict of the model, and counts what receivers
 *                  counted
 *   rate replies   nothing comes from the source for the ten minutes that Google asks for
 *   the overflow   mail of a pool with an overflow never waits, no other goes there, and none while
 *                  sources have room */
#ifndef HAYAUMA_TESTS_SIM_SEASON_H
#define HAYAUMA_TESTS_SIM_SEASON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "tests/sim/ledger.h"

#define SEASON_SOURCES   4 /* that are being warmed up; the one behind them is the overflow's */
#define SEASON_PROVIDERS 6
#define SEASON_DAYS_MAX  60

extern uint32_t season_days; /* how long it is; a kill for every three */

/* Before the world is made: sets the clock to the first day. */
void season_clock(void);
void season_config(struct buf *out);
void season_begin(void);
void season_killed(void);

/* The next message that an application sends, if any is due: to which provider, how many
 * recipients, and whether its pool has an overflow. */
struct season_letter {
    uint32_t provider, rcpts;
    bool brisk;
};
bool season_next(struct season_letter *out);
/* What became of a recipient at the engine's door. */
void season_accepted(const struct ledger_rcpt *r, bool accepted);

enum season_answer { SEASON_TAKES, SEASON_DEFERS, SEASON_REFUSES };
/* What a receiver says to a recipient, and to a whole message: NULL: it takes it. */
enum season_answer season_rcpt(uint32_t source, const struct ledger_rcpt *r);
const char *season_message(uint32_t source, uint32_t provider, struct ledger_rcpt *const rcpts[],
                           uint32_t len);

/* A record of the engine's of the type Warmup. */
void season_record(const json_t *record);
void season_check(void);

#endif

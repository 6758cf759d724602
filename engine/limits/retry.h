/* When a recipient is tried again, expires, and its sender is told of the delay. Pure policy over a
 * config_destination; wall-clock milliseconds throughout. Any thread. */
#ifndef HAYAUMA_ENGINE_RETRY_H
#define HAYAUMA_ENGINE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "config/config.h"

/* recipient->lifetime_s of mail that may first be tried wait_ms after its reception (its not-before
 * time). notice: it is a DSN of ours (MESSAGE_NOTICE), with a lifetime of its own. */
uint32_t retry_lifetime_s(const struct config_destination *d, bool notice, int64_t wait_ms);

static inline bool retry_expired(int64_t now_ms, int64_t expires_ms)
{
    return now_ms >= expires_ms;
}

/* Delay behind the nth failed attempt (attempts >= 1; 0 counts as 1): retry_list_s (its last entry
 * repeats), or retry_first_s doubled up to retry_max_s; then plus or minus up to
 * retry_jitter_percent, so that what failed together does not come back together. At least 1 s, so
 * a configuration of zeros cannot spin. */
int64_t retry_delay_ms(const struct config_destination *d, uint16_t attempts, struct rng *rng);

/* Time of the next attempt after a failure at now_ms: now + delay, but not past expiry: the last
 * attempt is made at expires_ms itself, and when that one fails retry_expired() is true. */
int64_t retry_next_ms(const struct config_destination *d, uint16_t attempts, int64_t now_ms,
                      int64_t expires_ms, struct rng *rng);

/* The longest delay there is behind the nth failed attempt. */
int64_t retry_longest_ms(const struct config_destination *d, uint16_t attempts);

/* When a stored recipient is due, beside what says when it may be. */
struct retry_place {
    int64_t due_ms, created_ms, expires_ms, last_attempt_ms;
    uint16_t attempts;
};
/* Its due time, put right where a clock that ran ahead has left it further off than the retry table
 * (longest_ms) or its not-before time allow. */
int64_t retry_right_ms(const struct retry_place *p, int64_t longest_ms, int64_t now_ms);

/* Whether the notice of a delay is due for a recipient that was deferred now. start_ms: of its
 * lifetime; warned: RECIPIENT_WARNED. Never for a notice of ours, nor when expiry comes before the
 * warning would. */
bool retry_warn_due(const struct config_destination *d, bool notice, bool warned, int64_t start_ms,
                    int64_t now_ms, int64_t expires_ms);

#endif

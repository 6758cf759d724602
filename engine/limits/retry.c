#include "limits/retry.h"

#include "base/assert.h"

uint32_t retry_lifetime_s(const struct config_destination *d, bool notice, int64_t wait_ms)
{
    int64_t s = (wait_ms + 999) / 1000 + (notice ? d->notice_lifetime_s : d->lifetime_s);

    return s < UINT32_MAX ? (uint32_t)s : UINT32_MAX;
}

static uint64_t base_delay_s(const struct config_destination *d, uint32_t nth)
{
    uint64_t delay = d->retry_first_s > 0 ? d->retry_first_s : 1;

    if (d->retry_list_len > 0)
        return d->retry_list_s[nth < d->retry_list_len ? nth : d->retry_list_len - 1];
    if (delay >= d->retry_max_s)
        return d->retry_max_s > 0 ? d->retry_max_s : delay;
    /* 2^32 seconds is the largest limit there is, so more than 32 doublings change nothing. */
    delay <<= nth < 32 ? nth : 32;
    return delay < d->retry_max_s ? delay : d->retry_max_s;
}

int64_t retry_longest_ms(const struct config_destination *d, uint16_t attempts)
{
    uint64_t delay_ms = base_delay_s(d, attempts > 0 ? attempts - 1u : 0) * 1000;
    uint64_t percent = d->retry_jitter_percent < 100 ? d->retry_jitter_percent : 100;

    delay_ms += delay_ms * percent / 100;
    return delay_ms < 1000 ? 1000 : (int64_t)delay_ms;
}

int64_t retry_right_ms(const struct retry_place *p, int64_t longest_ms, int64_t now_ms)
{
    int64_t wait_ms = p->due_ms - p->last_attempt_ms;

    if (p->due_ms <= now_ms)
        return p->due_ms;
    /* Never tried: due when it came, or at its not-before time, which its lifetime is behind. */
    if (p->attempts == 0)
        return p->due_ms > p->created_ms && p->due_ms < p->expires_ms ? p->due_ms : now_ms;
    if (p->due_ms - now_ms <= longest_ms)
        return p->due_ms;
    return now_ms + (wait_ms > 0 && wait_ms < longest_ms ? wait_ms : longest_ms);
}

int64_t retry_delay_ms(const struct config_destination *d, uint16_t attempts, struct rng *rng)
{
    uint64_t delay_ms = base_delay_s(d, attempts > 0 ? attempts - 1u : 0) * 1000;
    uint64_t percent = d->retry_jitter_percent < 100 ? d->retry_jitter_percent : 100;
    uint64_t spread_ms = delay_ms * percent / 100;

    if (spread_ms > 0)
        delay_ms = delay_ms - spread_ms + rng_below(rng, 2 * spread_ms + 1);
    return delay_ms < 1000 ? 1000 : (int64_t)delay_ms;
}

int64_t retry_next_ms(const struct config_destination *d, uint16_t attempts, int64_t now_ms,
                      int64_t expires_ms, struct rng *rng)
{
    int64_t next_ms = now_ms + retry_delay_ms(d, attempts, rng);

    return next_ms < expires_ms ? next_ms : expires_ms;
}

bool retry_warn_due(const struct config_destination *d, bool notice, bool warned, int64_t start_ms,
                    int64_t now_ms, int64_t expires_ms)
{
    int64_t warn_ms = start_ms + (int64_t)d->warn_after_s * 1000;

    if (d->warn_after_s == 0 || notice || warned)
        return false;
    return now_ms >= warn_ms && now_ms < expires_ms;
}

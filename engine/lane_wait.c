#include "engine/lane_wait.h"

#include "engine/lane_private.h"
#include "engine/site.h"

const char *lane_wait_name(enum lane_wait_reason reason)
{
    static const char *const names[] = {
        [LANE_WAIT_NONE] = NULL,           [LANE_WAIT_DRAINING] = "draining",
        [LANE_WAIT_DISK] = "disk",         [LANE_WAIT_BACK_OFF] = "back_off",
        [LANE_WAIT_NO_ROUTE] = "no_route", [LANE_WAIT_MEMORY] = "memory",
        [LANE_WAIT_LOOKUP] = "lookup",     [LANE_WAIT_RATE] = "rate",
        [LANE_WAIT_SESSIONS] = "sessions", [LANE_WAIT_CONNECT] = "connect",
    };

    ASSERT((size_t)reason < ARRAY_LEN(names));
    return names[reason];
}

/* In the order in which site_dispatch() finds them. */
static void site_wait(const struct site *site, struct lane_wait *out)
{
    struct io *io = site->worker->io;
    uint64_t now_ns = io_now_ns(io), now_ms = io_now_ms(io);
    uint64_t allowed_ns = governor_message_at(site->governor);
    int64_t wall_ms = worker_wall_ms(site->worker);

    if (allowed_ns > now_ns) {
        out->reason = LANE_WAIT_RATE;
        out->until_ms = wall_ms + (int64_t)((allowed_ns - now_ns) / 1000000) + 1;
    } else if (governor_sessions_full(site->governor, now_ns)) {
        out->reason = LANE_WAIT_SESSIONS;
    } else if (site->sessions_len == site->connecting) {
        out->reason = LANE_WAIT_CONNECT;
        if (site->open_after_ms > now_ms)
            out->until_ms = wall_ms + (int64_t)(site->open_after_ms - now_ms);
    }
}

void lane_wait(const struct lane *lane, struct lane_wait *out)
{
    struct worker *w = lane->worker;
    int64_t now_ms = worker_wall_ms(w);

    *out = (struct lane_wait){0};
    if (w->draining) {
        out->reason = LANE_WAIT_DRAINING;
    } else if (w->settles_failing > 0) {
        out->reason = LANE_WAIT_DISK;
    } else if (lane_suspended(lane)) {
        out->reason = lane->last_host != NULL ? LANE_WAIT_BACK_OFF : LANE_WAIT_NO_ROUTE;
        out->until_ms = lane_suspended_wall_ms(lane);
        out->host = lane->last_host;
        out->error = lane->last_error;
    } else if (lane->window_len == 0) {
        if (lane->stored_due_ms <= now_ms && lane->in_flight == 0 && lane_memory_full(w))
            out->reason = LANE_WAIT_MEMORY;
        else if (lane->stored_due_ms <= now_ms && lane->in_flight > 0 && lane->site != NULL)
            site_wait(lane->site, out);
    } else if (lane->site == NULL) {
        out->reason = LANE_WAIT_LOOKUP;
    } else {
        site_wait(lane->site, out);
    }
}

#include "schedule/lane_wait.h"

#include "schedule/lane_private.h"
#include "schedule/site.h"
#include "worker/shared.h"

#define LANES_LOOKED_AT 32

const char *lane_wait_name(enum lane_wait_reason reason)
{
    static const char *const names[] = {
        [LANE_WAIT_NONE] = NULL,           [LANE_WAIT_DRAINING] = "draining",
        [LANE_WAIT_DISK] = "disk",         [LANE_WAIT_BACK_OFF] = "back_off",
        [LANE_WAIT_NO_ROUTE] = "no_route", [LANE_WAIT_MEMORY] = "memory",
        [LANE_WAIT_LOOKUP] = "lookup",     [LANE_WAIT_RATE] = "rate",
        [LANE_WAIT_SESSIONS] = "sessions", [LANE_WAIT_CONNECT] = "connect",
        [LANE_WAIT_SHORTAGE] = "shortage", [LANE_WAIT_SUSPENDED] = "suspended",
    };

    ASSERT((size_t)reason < ARRAY_LEN(names));
    return names[reason];
}

/* Finds the answer that stopped the site, at one of the first few of its lanes. */
static void site_answer(const struct site *site, struct lane_wait *out)
{
    const struct list_node *n = list_first(&site->attached);

    for (int i = 0; i < LANES_LOOKED_AT && n != NULL && out->host == NULL; i++) {
        const struct lane *lane = LIST_ENTRY(n, struct lane, site_node);

        out->host = lane->last_host;
        out->error = lane->last_host != NULL ? lane->last_error : NULL;
        n = list_next(&site->attached, n);
    }
}

/* In the order in which sessions_dispatch_all() finds them. */
static void site_wait(const struct site *site, struct lane_wait *out)
{
    struct io *io = site->worker->io;
    uint64_t now_ns = io_now_ns(io), now_ms = io_now_ms(io);
    uint64_t allowed_ns = governor_message_at(site->governor);
    int64_t wall_ms = worker_wall_ms(site->worker);

    if (!governor_may_send(site->governor, false, now_ns)) { /* nothing gets through */
        uint64_t stopped_ns = governor_stopped_ns(site->governor);

        out->reason = LANE_WAIT_BACK_OFF;
        if (stopped_ns > now_ns)
            out->until_ms = wall_ms + (int64_t)((stopped_ns - now_ns) / 1000000) + 1;
        site_answer(site, out);
    } else if (allowed_ns > now_ns) {
        out->reason = LANE_WAIT_RATE;
        out->until_ms = wall_ms + (int64_t)((allowed_ns - now_ns) / 1000000) + 1;
    } else if (governor_sessions_full(site->governor, now_ns) &&
               (site->connecting == 0 || site->sessions_len > site->connecting)) {
        out->reason = LANE_WAIT_SESSIONS;
    } else if (site->shortage_until_ms > now_ms) {
        out->reason = LANE_WAIT_SHORTAGE;
        out->until_ms = wall_ms + (int64_t)(site->shortage_until_ms - now_ms);
    } else if (site->sessions_len == site->connecting) {
        out->reason = LANE_WAIT_CONNECT;
        if (site->open_after_ms > now_ms)
            out->until_ms = wall_ms + (int64_t)(site->open_after_ms - now_ms);
    }
}

/* Whether lane is suspended, and in *out by what: of several suspensions the one that lasts
 * longest. */
static bool suspended(struct lane *lane, struct suspension *out)
{
    struct suspensions *all = &lane->worker->shared->suspensions;
    struct str names[SUSPENSION_SCOPES];
    struct suspension one;

    *out = (struct suspension){0};
    if (suspensions_count(all) == 0)
        return false;
    lane_suspension_names(lane, names);
    for (enum suspension_scope scope = SUSPENSION_DOMAIN; scope < SUSPENSION_SCOPES; scope++) {
        if (names[scope].len == 0 || !suspensions_find(all, scope, names[scope], &one))
            continue;
        if (out->scope == 0 ||
            (out->until_ms != 0 && (one.until_ms == 0 || one.until_ms > out->until_ms)))
            *out = one;
    }
    return out->scope != 0;
}

/* Finds what holds the whole lane back. False: nothing does. */
static bool lane_held(struct lane *lane, struct lane_wait *out)
{
    struct worker *w = lane->worker;

    *out = (struct lane_wait){0};
    if (w->draining) {
        out->reason = LANE_WAIT_DRAINING;
    } else if (w->settles_failing > 0) {
        out->reason = LANE_WAIT_DISK;
    } else if (suspended(lane, &out->suspension)) {
        out->reason = LANE_WAIT_SUSPENDED;
        out->until_ms = out->suspension.until_ms;
    } else if (lane_backs_off(lane)) {
        out->reason = lane->state == LANE_UNROUTED ? LANE_WAIT_NO_ROUTE : LANE_WAIT_BACK_OFF;
        out->until_ms = lane_backs_off_wall_ms(lane);
        out->host = lane->last_host;
        out->error = lane->last_error;
    }
    return out->reason != LANE_WAIT_NONE;
}

void lane_wait(struct lane *lane, struct lane_wait *out)
{
    struct worker *w = lane->worker;
    bool stored = lane_has_due(lane, worker_wall_ms(w));

    if (lane_held(lane, out))
        return;
    if (lane->window_len == 0) {
        if (stored && lane->in_flight == 0 && lane_memory_full(w))
            out->reason = LANE_WAIT_MEMORY;
        else if (stored && lane->in_flight > 0 && lane->site != NULL)
            site_wait(lane->site, out);
    } else if (lane->site == NULL) {
        out->reason = LANE_WAIT_LOOKUP;
    } else {
        site_wait(lane->site, out);
    }
}

void lane_waited_for(struct lane *lane, struct buf *out)
{
    static const char *const words[] = {
        [LANE_WAIT_NONE] = "its turn",
        [LANE_WAIT_DRAINING] = "a restart",
        [LANE_WAIT_DISK] = "room in the store",
        [LANE_WAIT_SUSPENDED] = "the end of a suspension by the operator",
        [LANE_WAIT_BACK_OFF] = "the end of the destination's back-off",
        [LANE_WAIT_NO_ROUTE] = "a route to its domain",
        [LANE_WAIT_MEMORY] = "memory",
        [LANE_WAIT_LOOKUP] = "the name servers",
        [LANE_WAIT_RATE] = "the rate limit",
        [LANE_WAIT_SESSIONS] = "a session: as many as may be are busy",
        [LANE_WAIT_SHORTAGE] = "descriptors, memory or local ports of this host",
        [LANE_WAIT_CONNECT] = "a session: no connection, or no greeting yet",
    };
    struct lane_wait wait;

    if (!lane_held(lane, &wait)) {
        if (lane->site != NULL)
            site_wait(lane->site, &wait);
        else if (lane->routing != NULL)
            wait.reason = LANE_WAIT_LOOKUP;
        if (wait.reason == LANE_WAIT_NONE && lane_memory_full(lane->worker))
            wait.reason = LANE_WAIT_MEMORY;
    }
    buf_puts(out, words[wait.reason]);
    if (wait.error != NULL)
        buf_printf(out, ", after %s%s%s", wait.host == NULL ? "" : wait.host,
                   wait.host == NULL ? "" : ": ", wait.error);
}

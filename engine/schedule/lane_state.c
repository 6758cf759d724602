/* Whether a lane's mail may go, and whether its rows are being read: the states, and who changes
 * them. */
#include "schedule/lane_private.h"

#include <stdlib.h>

#include "base/log.h"
#include "limits/retry.h"
#include "schedule/supply.h"

struct state_row {
    const char *name;
    uint32_t next; /* which may follow, a bit for each */
};

static const struct state_row states[LANE_STATES] = {
    [LANE_OPEN] = {"open", 1 << LANE_UNROUTED | 1 << LANE_SITE_DOWN},
    /* A state's time is over before anybody notices; the next failure may come before that. */
    [LANE_UNROUTED] = {"unrouted", 1 << LANE_OPEN | 1 << LANE_SITE_DOWN},
    [LANE_SITE_DOWN] = {"site_down", 1 << LANE_OPEN | 1 << LANE_UNROUTED},
};

static const struct state_row scans[LANE_SCANS] = {
    [LANE_SCAN_NONE] = {"none", 1 << LANE_SCAN_READS},
    [LANE_SCAN_READS] = {"reads", 1 << LANE_SCAN_RESTS},
    [LANE_SCAN_RESTS] = {"rests", 1 << LANE_SCAN_READS | 1 << LANE_SCAN_NONE},
};

void lane_set_state(struct lane *lane, enum lane_state state)
{
    if (lane->state == state)
        return;
    ASSERT(state < LANE_STATES && (states[lane->state].next & 1u << state) != 0);
    log_debug("lane.state", "queue=%s from=%s to=%s", lane->name, states[lane->state].name,
              states[state].name);
    lane->state = (uint8_t)state;
}

void lane_set_scan(struct lane *lane, enum lane_scan scan)
{
    ASSERT(scan < LANE_SCANS && (scans[lane->scan].next & 1u << scan) != 0);
    log_debug("lane.scan", "queue=%s from=%s to=%s", lane->name, scans[lane->scan].name,
              scans[scan].name);
    lane->scan = (uint8_t)scan;
}

bool lane_backs_off(const struct lane *lane)
{
    if (lane->state == LANE_OPEN || lane->shut_until_ms <= io_now_ms(lane->worker->io))
        return false;
    return lane->state != LANE_SITE_DOWN || lane->supply == NULL || lane->supply->down;
}

int64_t lane_shut_wall_ms(const struct lane *lane)
{
    const struct io *io = lane->worker->io;
    uint64_t until_ms = lane_backs_off(lane) ? lane->shut_until_ms : 0;

    if (lane->supply != NULL && lane->supply->parked_ms > until_ms)
        until_ms = lane->supply->parked_ms;
    return until_ms == 0 ? 0 : io_wall_ms(io) + (int64_t)(until_ms - io_now_ms(io));
}

void lane_look_state(struct lane *lane)
{
    if (lane->state == LANE_OPEN || lane_backs_off(lane))
        return;
    if (lane->shut_until_ms > io_now_ms(lane->worker->io)) /* the site works again */
        lane->failures = 0;
    lane_set_state(lane, LANE_OPEN);
}

void lane_note_error(struct lane *lane, const struct smtp_reply *reply, const char *host)
{
    struct buf text = {0};

    buf_printf(&text, "%u ", reply->code);
    if (reply->enhanced.class != 0)
        buf_printf(&text, "%u.%u.%u ", reply->enhanced.class, reply->enhanced.subject,
                   reply->enhanced.detail);
    buf_put(&text, reply->text, reply->text_len);
    buf_putc(&text, '\0');
    free(lane->last_error);
    lane->last_error = (char *)text.data;
    free(lane->last_host);
    lane->last_host = host == NULL ? NULL : strdup(host);
    lane->last_error_ms = worker_wall_ms(lane->worker);
}

void lane_suspend(struct lane *lane, enum lane_state state, const struct config_destination *dest,
                  const struct smtp_reply *reply, const char *host)
{
    struct worker *w = lane->worker;

    if (lane->failures < UINT16_MAX)
        lane->failures++;
    lane_note_error(lane, reply, host);
    lane->shut_until_ms =
        io_now_ms(w->io) + (uint64_t)retry_delay_ms(dest, lane->failures, &w->rng);
    lane_set_state(lane, state);
    lane_window_release(lane);
    lane_update(lane);
}

void lane_succeeded(struct lane *lane)
{
    lane->failures = 0;
}

void lane_resume(struct lane *lane)
{
    lane_set_state(lane, LANE_OPEN);
    lane->failures = 0;
    lane_update(lane);
}

void lane_flush(struct lane *lane)
{
    lane_route_forget(lane);
    if (lane->supply != NULL)
        supply_flush(lane->supply);
    lane_resume(lane);
}

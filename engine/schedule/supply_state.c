/* Whether a supply works, and how its lanes hear of it: some of them a turn, since there may be a
 * million.
 *
 * Whether a lane is held back is asked of its supply (supply_holds()), so that the answer is right
 * from the change on. A lane that is told so is put into supply->shut; that list goes to
 * supply->waking when the reason is gone. What the walk has still to do is therefore always in one
 * of two places, the feed (lanes that give their windows back) and supply->waking (lanes that go
 * on), and a lane that joins or leaves the supply meanwhile needs no care. */
#include "schedule/channel.h"
#include "schedule/lane_private.h"
#include "worker/shared.h"

#define LOOK_MS     1000 /* between two looks whether a worker found that the site answers again */
#define PARK_MS     3000 /* in a pause that lasts longer mail waits in the store */
#define PARK_MS_MAX 3600000
/* Lanes and recipients: that walks visit in a turn, and those of one supply before the next. */
#define WALK_WORK  2000
#define SLICE_WORK 250
#define TOLD_WORK  4 /* what a recipient that fails counts as: it gets a record, and is settled */

/* --- what lanes hear --- */

bool supply_holds(struct lane *lane)
{
    struct supply *s = lane->supply;

    if (s == NULL ||
        (s->parked_ms == 0 && !(lane->state == LANE_SITE_DOWN && lane_backs_off(lane))))
        return false;
    if (!lane->held) {
        lane->held = true;
        list_remove(&lane->site_node);
        list_push_back(&s->shut, &lane->site_node);
    }
    return true;
}

static void walk_begin(struct supply *s)
{
    if (!list_node_linked(&s->walk_node))
        list_push_back(&s->site->worker->supply_walks, &s->walk_node);
}

/* The lanes that were held back look whether they may go on. */
static void wake(struct supply *s)
{
    list_splice_back(&s->waking, &s->shut);
    walk_begin(s);
}

static void failure_end(struct supply *s)
{
    struct supply_failure *failure = s->failure;

    ASSERT(failure == NULL || failure->done != NULL);
    s->failure = NULL;
    if (failure != NULL)
        failure->done(failure);
}

/* Tells the lane whose turn it is. Returns the work that it was; 0: all have heard. */
static uint32_t tell_next(struct supply *s)
{
    struct supply_failure *failure = s->failure;
    struct lane *lane = failure->left == 0 ? NULL : feed_next(&s->feed);
    uint32_t before = s->waiting, told;

    if (lane == NULL) {
        failure_end(s);
        return 0;
    }
    failure->tell(failure, lane, SLICE_WORK / TOLD_WORK);
    ASSERT(s->waiting < before);
    told = before - s->waiting;
    failure->left -= told < failure->left ? told : failure->left;
    return told * TOLD_WORK;
}

/* Visits a lane that has something to hear. Returns the work that it was; 0: all have heard. */
static uint32_t visit_next(struct supply *s)
{
    uint32_t work = s->failure == NULL ? 0 : tell_next(s);
    struct lane *lane;
    struct list_node *n;

    if (work > 0)
        return work;
    if (s->parked_ms != 0 && (lane = feed_next(&s->feed)) != NULL) {
        work = lane->window_len;
        lane_update(lane);
        ASSERT(!list_node_linked(&lane->ready_node)); /* its window is the store's */
        return work;
    }
    n = list_pop_front(&s->waking);
    if (n == NULL)
        return 0;
    lane = LIST_ENTRY(n, struct lane, site_node);
    ASSERT(lane->supply == s && lane->held);
    lane->held = false;
    list_push_back(&s->attached, n);
    lane_update(lane); /* may find that it is held back again */
    return 1;
}

/* Visits lanes of s until max is done. Returns how much was; *more: some have still to hear. */
static uint32_t slice(struct supply *s, uint32_t max, bool *more)
{
    uint32_t done = 0, work = 1;

    while (done < max && work > 0) {
        work = visit_next(s);
        done += work;
    }
    *more = work > 0;
    return done;
}

void supplies_walk(struct worker *w)
{
    struct list_node *n;
    uint32_t done = 0;
    bool more;

    while (done < WALK_WORK && (n = list_pop_front(&w->supply_walks)) != NULL) {
        struct supply *s = LIST_ENTRY(n, struct supply, walk_node);

        done += 1 + slice(s, SLICE_WORK, &more);
        if (more)
            walk_begin(s);
    }
}

void supply_walk_end(struct supply *s)
{
    failure_end(s);
    if (list_node_linked(&s->walk_node))
        list_remove(&s->walk_node);
}

/* --- whether it works --- */

bool supply_has_hope(const struct supply *s)
{
    for (uint32_t i = 0; i < s->seats_len; i++) {
        const struct seat *seat = &s->seats[i];
        enum channel_shut shut;
        uint64_t until_ms;

        if (turn_in(&seat->turn))
            return true;
        if (seat->channel == NULL || seat->unbound)
            continue;
        shut = channel_shut(seat->channel, &until_ms);
        if (shut == CHANNEL_LIMIT || shut == CHANNEL_QUIET || shut == CHANNEL_SHORTAGE ||
            shut == CHANNEL_BUSY)
            return true;
    }
    return false;
}

void supply_resume(struct supply *s)
{
    if (s->parked_ms == 0 && !s->down)
        return;
    s->parked_ms = 0;
    s->down = false;
    failure_end(s);
    wake(s);
}

void supply_fail(struct supply *s, struct supply_failure *failure)
{
    failure_end(s);
    ASSERT(failure->tell != NULL && s->failure == NULL);
    s->failure = failure;
    failure->left = s->waiting;
    s->down = true;
    supply_wake(s, io_now_ms(s->site->worker->io) + LOOK_MS);
    walk_begin(s);
}

/* Whether a source may send that could not when the supply went down, and none of whose connects
 * failed: it works in another worker, was resumed, or its address is back. */
static bool is_up(const struct supply *s)
{
    for (uint32_t i = 0; i < s->seats_len; i++) {
        const struct seat *seat = &s->seats[i];
        const struct channel *c = seat->channel;

        if (c != NULL && c->down && governor_ups(c->governor) != c->ups_seen)
            return true;
        if (turn_in(&seat->turn) &&
            (c == NULL || (!c->down && c->failures == 0 && governor_stopped_ns(c->governor) == 0)))
            return true;
    }
    return false;
}

/* Whether what shuts the supply may last: mail does not wait for it in memory. */
static bool shut_lasts(const struct supply *s, uint64_t *until_ms)
{
    uint64_t last_ms = io_now_ms(s->site->worker->io) + PARK_MS_MAX;
    struct channel *c;
    enum channel_shut shut = supply_shut(s, &c, until_ms);

    if (*until_ms > last_ms)
        *until_ms = last_ms;
    return channel_shut_is_source(shut) || shut == CHANNEL_STOPPED;
}

/* Watches a supply that is down or parked. Whichever worker finds that the site answers again,
 * lanes of all workers go on. A parked one does so as soon as some source may try: whether it gets
 * a session the lanes find out. */
static void watch(struct supply *s)
{
    uint64_t next_ms = wheel_look_ms(io_now_ms(s->site->worker->io), LOOK_MS), until_ms;

    supply_look_seats(s, true);
    if (s->parked_ms != 0 && shut_lasts(s, &until_ms)) {
        s->parked_ms = until_ms;
        if (until_ms < next_ms)
            next_ms = until_ms + 1;
    } else if (s->parked_ms != 0) {
        s->parked_ms = 0;
        wake(s);
    }
    if (s->down && is_up(s))
        supply_resume(s);
    if (s->down || s->parked_ms != 0)
        supply_wake(s, next_ms);
}

/* In a long pause mail waits in the store: there it takes no memory and expires in time. */
static void park(struct supply *s)
{
    uint64_t now_ms = io_now_ms(s->site->worker->io), until_ms;

    if (s->parked_ms != 0 || feed_empty(&s->feed) || !shut_lasts(s, &until_ms) ||
        until_ms <= now_ms + PARK_MS)
        return;
    s->parked_ms = until_ms;
    supply_wake(s, wheel_look_ms(now_ms, LOOK_MS));
    walk_begin(s);
}

void supply_look_state(struct supply *s)
{
    if (s->down || s->parked_ms != 0)
        watch(s);
    park(s);
}

void supply_flush(struct supply *s)
{
    struct worker *w = s->site->worker;

    for (uint32_t i = 0; i < s->seats_len; i++) {
        struct channel *c = s->seats[i].channel;

        if (c == NULL)
            continue;
        c->open_after_ms = 0;
        governor_probe_now(c->governor, io_now_ns(w->io));
        (void)channel_look(c);
    }
    supply_dirty(s);
}

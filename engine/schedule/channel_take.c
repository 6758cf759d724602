/* See channel.h: what a channel takes from its supplies, and the leave of all limits for that. */
#include <errno.h>

#include "schedule/channel.h"
#include "schedule/flow_lower.h"
#include "schedule/flow_split.h"
#include "schedule/flow_warmup.h"
#include "schedule/lane.h"
#include "worker/shared.h"

#define HEADS_MAX  16 /* other lanes looked at for recipients of the same message */
#define SPLITS_MAX 64 /* recipients that go over to another flow, in a take */
/* A channel tells its source, where all see it, of the messages that it took when there are so many
 * of them, or when no more wait. */
#define COUNTED_MAX  64
#define ASIDE_LOOKED 64 /* shares of which the session may have nothing, in a take */

/* --- the leave of all limits --- */

/* Takes the leave of what limits lane's flow at the site, whoever sends: its tenant's and
 * campaign's limits, what answers lowered, and the warm-up of taken. False: *why says what refuses.
 */
static bool flow_take(struct lane *lane, const struct governor_load *load, uint64_t now_ns,
                      struct channel_taken *taken, struct limit_denial *why)
{
    uint64_t until_ns;

    taken->lowered = flow_lower_look(lane);
    if (feed_limits_take(lane, now_ns, load, why) < 0)
        return false;
    if (flow_lower_take(lane->site, taken->lowered, why)) {
        until_ns =
            warmup_set_empty(&taken->warmup) ? 0 : flow_warmup_take(lane->worker, &taken->warmup);
        if (until_ns == 0)
            return true;
        *why = (struct limit_denial){.kind = LIMIT_WARMUP, .until_ns = until_ns};
        flow_lower_give(taken->lowered);
    }
    feed_limits_give(&lane->supply->feed, lane, now_ns, load, 0);
    return false;
}

static void flow_give(const struct lane *lane, const struct governor_load *load, uint64_t now_ns,
                      const struct channel_taken *taken)
{
    warmup_set_give(&taken->warmup, worker_wall_ms(lane->worker), 1);
    flow_lower_give(taken->lowered);
    feed_limits_give(&lane->supply->feed, lane, now_ns, load, 0);
}

/* The limits of the channel, and of the exchanger of the session that takes. */
static int own_take(struct channel *c, const struct channel_session *session,
                    const struct governor_load *load, uint64_t now_ns, struct limit_denial *why)
{
    if (limits_take(c->limits, CHANNEL_LIMITS, now_ns, load, why) < 0)
        return -EAGAIN;
    if (limits_take(&session->host, 1, now_ns, load, why) == 0)
        return 0;
    limits_give(c->limits, CHANNEL_LIMITS, now_ns, load, 0);
    return -EAGAIN;
}

static void own_give(struct channel *c, const struct channel_session *session,
                     const struct governor_load *load, uint64_t now_ns, uint64_t ago_ns)
{
    limits_give(c->limits, CHANNEL_LIMITS, now_ns, load, ago_ns);
    limits_give(&session->host, 1, now_ns, load, ago_ns);
}

/* Takes the leave of all limits of the channel, and of lane's tenant and campaign, for one message,
 * or of none of them. The probe of a channel that is stopped is claimed last: nothing refuses
 * behind it. taken: what gave leave. False: *of_flow says whether flow_take() refuses, and *why
 * then what. */
static bool channel_limits_take(struct channel *c, const struct channel_session *session,
                                struct lane *lane, const struct message *m,
                                struct channel_taken *taken, bool *of_flow,
                                struct limit_denial *why)
{
    const struct governor_load load = {.recipients = 1,
                                       .bytes = m->content_len,
                                       .priority = lane_priority(lane),
                                       .who = site_who(c->site)};
    struct worker *w = c->site->worker;
    uint64_t now_ns = io_now_ns(w->io);
    int64_t wall_ms = worker_wall_ms(w);

    channel_caps_look(c);
    *of_flow = false;
    if (channel_quiet(c) != NULL || !governor_may_send(c->governor, false, now_ns) ||
        own_take(c, session, &load, now_ns, why) < 0)
        return false;
    taken->warmup = *feed_warmup(&lane->supply->feed, lane);
    *of_flow = !flow_take(lane, &load, now_ns, taken, why);
    if (*of_flow) {
        own_give(c, session, &load, now_ns, 0);
        return false;
    }
    if (c->warmup == NULL || warmup_take(&w->shared->warmup, c->warmup, wall_ms, now_ns) == 0) {
        if (governor_may_send(c->governor, true, now_ns)) {
            taken->warmup.of[CONFIG_WARMUP_SOURCE] = c->warmup;
            return true;
        }
        warmup_give(c->warmup, wall_ms, 1);
    }
    flow_give(lane, &load, now_ns, taken);
    own_give(c, session, &load, now_ns, 0);
    return false;
}

void channel_give_back(struct channel *c, const struct channel_session *session,
                       const struct lane *lane, const struct governor_load *load, uint64_t taken_ms)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io);
    uint64_t ago_ns = now_ns - taken_ms * 1000000;

    own_give(c, session, load, now_ns, ago_ns);
    if (lane->supply != NULL)
        feed_limits_give(&lane->supply->feed, lane, now_ns, load, ago_ns);
    channel_dirty(c); /* it may have left its turns until the limits would have let it */
}

void channel_bytes_more(struct channel *c, const struct channel_session *session,
                        const struct lane *lane, int64_t bytes)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io);

    if (bytes == 0)
        return;
    limits_more_bytes(c->limits, CHANNEL_LIMITS, now_ns, bytes);
    limits_more_bytes(&session->host, 1, now_ns, bytes);
    if (lane->supply != NULL)
        feed_limits_more_bytes(&lane->supply->feed, lane, now_ns, bytes);
}

/* --- what it takes --- */

bool channel_has_mail(const struct channel *c)
{
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n))
        if (!feed_empty(&LIST_ENTRY(n, struct seat, channel_node)->supply->feed))
            return true;
    return false;
}

bool channel_has_urgent(const struct channel *c)
{
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        const struct feed *feed = &LIST_ENTRY(n, struct seat, channel_node)->supply->feed;

        if (!feed_empty(feed) && feed_priority(feed) < PRIORITY_DEFAULT)
            return true;
    }
    return false;
}

bool channel_has_work(struct channel *c)
{
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        struct seat *seat = LIST_ENTRY(n, struct seat, channel_node);

        if (!feed_empty(&seat->supply->feed) && seat_may_take(seat))
            return true;
    }
    return false;
}

uint32_t channel_waiting(const struct channel *c)
{
    uint32_t waiting = 0;

    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        struct seat *seat = LIST_ENTRY(n, struct seat, channel_node);

        if (seat_may_open(seat))
            waiting += seat_waiting(seat);
    }
    return waiting;
}

/* Further recipients of the same message at the head of lane. */
static size_t take_same(struct lane *lane, const struct message *m, struct recipient **out,
                        size_t len, size_t max)
{
    struct recipient *r;

    while (len < max && (r = lane_peek(lane)) != NULL && r->message == m)
        out[len++] = lane_pop(lane);
    return len;
}

/* The message's recipients at the heads of other lanes: all are of one flow. */
static size_t take_heads(struct feed *feed, const struct lane *of, const struct message *m,
                         struct recipient **out, size_t len, size_t max, uint32_t domains_max)
{
    struct lane *lane = feed_first_beside(feed, of), *next;
    uint32_t domains = 1;

    for (int i = 0; lane != NULL && i < HEADS_MAX && len < max && domains != domains_max; i++) {
        size_t before = len;

        next = feed_after(lane);
        if (!lane_suspended(lane))
            len = take_same(lane, m, out, len, max);
        domains += len != before;
        lane = next;
    }
    return len;
}

/* The recipients that are taken next were written a while ago, perhaps by another thread, and are
 * in no cache. Each take fetches one step for each of them: the third lane, the second one's
 * recipient, the first one's message (a drain of a thousand lanes: 3.5 -> 3.1 us of the worker's
 * own code a message). */
static void prefetch_next(struct feed *feed)
{
    struct lane *lane = feed_next(feed);
    const struct recipient *r;

    if (lane == NULL)
        return;
    __builtin_prefetch(lane_peek(lane)->message);
    lane = feed_after(lane);
    if (lane == NULL)
        return;
    r = lane_peek(lane);
    __builtin_prefetch(r);
    __builtin_prefetch(&r->lifetime_s);
    lane = feed_after(lane);
    if (lane != NULL)
        __builtin_prefetch(&lane->window);
}

/* The site's limit says wait: behind it the supplies' turns say who goes on. */
static void wake_supplies(const struct channel *c)
{
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        struct supply *s = LIST_ENTRY(n, struct seat, channel_node)->supply;

        if (feed_empty(&s->feed))
            continue;
        site_claim(c->site, feed_priority(&s->feed));
        supply_wake(s, site_waits_until_ms(c->site));
    }
}

/* The lane whose turn it is in s, and that may go. NULL: none now. */
static struct lane *lane_ready(struct supply *s)
{
    struct lane *lane;

    for (int splits = 0; (lane = feed_next(&s->feed)) != NULL;) {
        if (splits == SPLITS_MAX) {
            supply_dirty(s); /* the next turn goes on */
            return NULL;
        }
        /* A suspended lane is in the feed while the walk over lanes has not come to it: it gives
         * its window back here. */
        if (lane_suspended(lane))
            lane_update(lane);
        else if (flow_split(lane))
            splits++;
        else
            return lane;
    }
    return NULL;
}

/* The seat in which the channel takes next, and the lane whose turn it is there: of several
 * supplies that with the mail of the highest priority, and of alike ones each in its turn. */
static struct lane *lane_next(struct channel *c, struct seat **out)
{
    struct seat *best = NULL;
    struct lane *lane = NULL;

    if (site_waits(c->site)) {
        wake_supplies(c);
        return NULL;
    }
    while (lane == NULL) {
        best = NULL;
        for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
            struct seat *seat = LIST_ENTRY(n, struct seat, channel_node);

            if (feed_empty(&seat->supply->feed) || !seat_may_take(seat))
                continue;
            if (best == NULL ||
                __builtin_ctz(seat->supply->feed.busy) < __builtin_ctz(best->supply->feed.busy))
                best = seat;
        }
        if (best == NULL)
            return NULL;
        lane = lane_ready(best->supply);
        if (lane == NULL && !feed_empty(&best->supply->feed))
            return NULL;
    }
    *out = best;
    return lane;
}

/* What the supply's message costs the channel. */
static void channel_pay(struct channel *c, struct seat *seat)
{
    struct limit_denial why;

    if (list_next(&c->seats, list_first(&c->seats)) != NULL) {
        list_remove(&seat->channel_node);
        list_push_back(&c->seats, &seat->channel_node);
    }
    if (++c->messages >= COUNTED_MAX || feed_empty(&seat->supply->feed))
        channel_count_messages(c);
    seat_pay(seat);
    if (channel_limits_ask(c, &why) < 0 || governor_stopped_ns(c->governor) != 0 ||
        channel_quiet(c) != NULL)
        (void)channel_look(c);
}

/* How many of the recipients of lane's message m may go at once, of at most max: one has its leave,
 * and each has a letter of its own where m is a recipe. Warm-up and some limits count recipients;
 * may_give_back() what is not taken of the leave for more. */
static size_t may_take(const struct channel *c, const struct channel_session *session,
                       const struct lane *lane, const struct message *m,
                       const struct warmup_set *set, size_t max)
{
    struct worker *w = c->site->worker;
    uint64_t now_ns = io_now_ns(w->io);
    uint32_t more, limited, hosted, shared;

    if ((m->flags & MESSAGE_RECIPE) != 0)
        return 1;
    if (max > m->recipients && m->recipients > 0)
        max = m->recipients;
    if (max <= 1)
        return max;
    more = (uint32_t)max - 1;
    if (!warmup_set_empty(set))
        more = warmup_set_more(&w->shared->warmup, set, worker_wall_ms(w), more);
    limited = limits_more(c->limits, CHANNEL_LIMITS, now_ns, more);
    hosted = limits_more(&session->host, 1, now_ns, limited);
    shared = feed_limits_more(&lane->supply->feed, lane, now_ns, hosted);
    ASSERT(shared <= hosted && hosted <= limited && limited <= more); /* what is given back */
    limits_give_recipients(&session->host, 1, now_ns, hosted - shared);
    limits_give_recipients(c->limits, CHANNEL_LIMITS, now_ns, limited - shared);
    if (more > shared)
        warmup_set_give(set, worker_wall_ms(w), more - shared);
    return 1 + shared;
}

static void may_give_back(const struct channel *c, const struct channel_session *session,
                          const struct lane *lane, const struct warmup_set *set, uint32_t n)
{
    struct worker *w = c->site->worker;
    uint64_t now_ns = io_now_ns(w->io);

    if (n == 0)
        return;
    warmup_set_give(set, worker_wall_ms(w), n);
    limits_give_recipients(c->limits, CHANNEL_LIMITS, now_ns, n);
    limits_give_recipients(&session->host, 1, now_ns, n);
    if (lane->supply != NULL)
        feed_limits_give_recipients(&lane->supply->feed, lane, now_ns, n);
}

/* The limit of lane's tenant or campaign lets nothing go now: its share waits, and the supply looks
 * when it may go on. */
static void hold_share(struct supply *s, const struct lane *lane, const struct limit_denial *why)
{
    if (why->entry != NULL)
        governor_claim(why->entry, site_who(s->site), lane_priority(lane),
                       io_now_ns(s->site->worker->io));
    feed_hold(&s->feed, lane, io_now_ns(s->site->worker->io), why);
    supply_wake(s, why->until_ns / 1000000 + 1);
}

/* What sessions_enter() entered. */
struct entered {
    size_t len;
    const struct limit *limits[FEED_SESSION_LIMITS];
    bool counted[FEED_SESSION_LIMITS]; /* before */
    bool began[FEED_SESSION_LIMITS];
};

/* The first len of those that entered, and were not counted before, leave again. */
static void sessions_leave(const struct entered *in, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!in->counted[i])
            site_share_undo(in->limits[i], in->began[i]);
}

/* Whether session counts as one that has had mail of limit's tenant or campaign before: it does
 * where the limit does not count how fast sessions begin. */
static bool has_begun(const struct channel_session *session, const struct limit *limit)
{
    const uint64_t *began = (const uint64_t *)(const void *)session->began.data;
    uint64_t id = site_share_id(limit);

    for (size_t i = 0; id != 0 && i < session->began.len / sizeof(id); i++)
        if (began[i] == id)
            return true;
    return id == 0;
}

static void note_begun(struct channel_session *session, uint64_t id)
{
    size_t at = session->began_next++ % CHANNEL_BEGAN * sizeof(id);

    if (at == session->began.len)
        buf_put(&session->began, &id, sizeof(id));
    else
        memcpy(session->began.data + at, &id, sizeof(id));
}

/* Takes a place for session among those of lane's tenant and campaign, where these are limited.
 * NULL: it has one; else the limit that refuses. */
static const struct limit *sessions_enter(const struct lane *lane,
                                          const struct channel_session *session, struct entered *in)
{
    in->len = feed_session_limits(lane, in->limits);
    for (size_t i = 0; i < in->len; i++) {
        const struct limit *full = in->limits[i];

        in->counted[i] = session->counts(session, full);
        in->began[i] = has_begun(session, full);
        if (site_share_enter(full, in->counted[i], in->began[i]))
            continue;
        sessions_leave(in, i);
        return full;
    }
    return NULL;
}

/* It has some of their mail now. */
static void sessions_began(struct channel_session *session, const struct entered *in,
                           struct channel_taken *taken)
{
    for (size_t i = 0; i < in->len; i++) {
        taken->sessions[i] = in->limits[i];
        if (!in->began[i])
            note_begun(session, site_share_id(in->limits[i]));
    }
}

/* The leave of all limits for the message of r, with a place among the sessions. */
static bool take_leave(struct channel *c, struct recipient *r, struct channel_session *session,
                       struct channel_taken *taken, bool *of_flow, struct limit_denial *why,
                       const struct limit **full)
{
    struct lane *lane = r->lane;
    struct entered in = {0};

    *full = NULL;
    if (lane->supply->feed.counting > 0)
        *full = sessions_enter(lane, session, &in);
    if (*full != NULL)
        return false;
    if (channel_limits_take(c, session, lane, r->message, taken, of_flow, why)) {
        sessions_began(session, &in, taken);
        return true;
    }
    sessions_leave(&in, in.len);
    return false;
}

/* The rates of the session's exchanger let nothing go, while those of another may: the session
 * rests. Sessions that rest for one exchanger come back one behind the other. */
static void session_rests(const struct channel *c, const struct lane *lane,
                          struct channel_session *session, const struct limit_denial *why)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io), line_ns = governor_line(why->entry, now_ns);

    governor_claim(why->entry, site_who(c->site), lane_priority(lane), now_ns);
    session->rests_ns = line_ns > why->until_ns ? line_ns : why->until_ns;
    session->rests_for = why->counts;
}

/* The next recipient that may go now, with the leave for it: still in its lane. NULL: there is
 * none. One whose time is over needs no leave. *aside: shares that were set aside. */
static struct recipient *next_allowed(struct channel *c, struct channel_session *session,
                                      struct seat **seat, struct channel_taken *taken, int *aside)
{
    struct limit_denial why = {0};
    const struct limit *full;
    struct recipient *r;
    struct lane *lane;
    bool of_flow;

    while ((lane = lane_next(c, seat)) != NULL) {
        if (*aside == ASIDE_LOOKED) {
            supply_dirty((*seat)->supply); /* the next turn goes on */
            return NULL;
        }
        if (session->urgent && lane_priority(lane) >= PRIORITY_DEFAULT)
            return NULL;
        r = lane_peek(lane);
        ASSERT(r != NULL && lane->supply == (*seat)->supply);
        taken->expired = lane_expired(r, worker_wall_ms(c->site->worker));
        if (taken->expired || take_leave(c, r, session, taken, &of_flow, &why, &full))
            return r;
        if (full != NULL) {
            feed_set_aside(&(*seat)->supply->feed, lane, full, io_now_ns(c->site->worker->io));
            ++*aside;
            continue;
        }
        if (of_flow) {
            hold_share((*seat)->supply, lane, &why);
            continue;
        }
        (void)channel_look(c);
        if (why.until_ns != 0) /* others may have claimed what the rates would give */
            channel_wake(c, why.until_ns / 1000000 + 1);
        if (site_waits(c->site)) {
            site_look_held(c->site);
            wake_supplies(c);
        } else if (why.kind == LIMIT_HOST) {
            session_rests(c, lane, session, &why);
        }
        return NULL;
    }
    return NULL;
}

/* Shares that were set aside for this take go on: other sessions may have them at once. */
static void set_back(struct channel *c)
{
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        struct supply *s = LIST_ENTRY(n, struct seat, channel_node)->supply;

        if (list_empty(&s->feed.aside))
            continue;
        feed_set_back(&s->feed);
        supply_wake(s, io_now_ms(c->site->worker->io) + SUPPLY_SESSION_LOOK_MS);
        if (s->feed.held_ns != UINT64_MAX)
            supply_wake(s, s->feed.held_ns / 1000000 + 1);
    }
}

struct channel_taken channel_take(struct channel *c, struct channel_session *session,
                                  struct recipient **out, size_t max, uint32_t domains_max)
{
    struct channel_taken taken = {0};
    struct seat *seat;
    int aside = 0;
    struct recipient *r;
    struct supply *s;
    struct lane *lane;

    ASSERT(max > 0);
    session->rests_ns = 0;
    r = next_allowed(c, session, &seat, &taken, &aside);
    if (aside > 0)
        set_back(c);
    if (r == NULL)
        return (struct channel_taken){0};
    lane = r->lane;
    s = seat->supply;
    if (taken.expired) {
        out[taken.len++] = lane_pop(lane);
        return taken;
    }
    feed_turn(&s->feed, lane);
    out[0] = lane_pop(lane);
    max = may_take(c, session, lane, r->message, &taken.warmup, max);
    taken.len = take_same(lane, r->message, out, 1, max);
    prefetch_next(&s->feed);
    if (r->message->recipients > taken.len)
        taken.len = take_heads(&s->feed, lane, r->message, out, taken.len, max, domains_max);
    ASSERT(taken.len > 0 && taken.len <= max);
    may_give_back(c, session, lane, &taken.warmup, (uint32_t)(max - taken.len));
    feed_pay_more(&s->feed, lane, taken.len - 1);
    for (size_t i = 0; i < taken.len; i++)
        supply_pace(s, supply_bytes_of(out[i]));
    if (s->hungry_bands != 0)
        supply_dirty(s);
    channel_pay(c, seat);
    return taken;
}

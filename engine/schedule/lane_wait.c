#include "schedule/lane_wait.h"

#include <math.h>

#include "schedule/channel.h"
#include "schedule/flow_lower.h"
#include "schedule/flow_warmup.h"
#include "schedule/lane_private.h"
#include "schedule/rollup.h"
#include "worker/shared.h"

#define LANES_LOOKED_AT 32
#define SEATS_OF_A_LANE 8 /* so many take as long to look at as a lane */

const char *lane_wait_name(enum lane_wait_reason reason)
{
    static const char *const names[] = {
        [LANE_WAIT_NONE] = NULL,           [LANE_WAIT_DRAINING] = "draining",
        [LANE_WAIT_DISK] = "disk",         [LANE_WAIT_BACK_OFF] = "back_off",
        [LANE_WAIT_NO_ROUTE] = "no_route", [LANE_WAIT_MEMORY] = "memory",
        [LANE_WAIT_LOOKUP] = "lookup",     [LANE_WAIT_RATE] = "rate",
        [LANE_WAIT_SESSIONS] = "sessions", [LANE_WAIT_CONNECT] = "connect",
        [LANE_WAIT_SHORTAGE] = "shortage", [LANE_WAIT_SUSPENDED] = "suspended",
        [LANE_WAIT_SOURCE] = "source",     [LANE_WAIT_WARMUP] = "warmup",
        [LANE_WAIT_QUIET] = "quiet_hours",
    };

    ASSERT((size_t)reason < ARRAY_LEN(names));
    return names[reason];
}

static void take_answer(const struct lane *lane, struct lane_wait *out)
{
    out->host = lane->last_host;
    out->error = lane->last_error;
    out->answered_ms = lane->last_error != NULL ? lane->last_error_ms : 0;
}

static void lanes_answer(const struct list *lanes, struct lane_wait *out)
{
    const struct list_node *n = list_first(lanes);

    for (int i = 0; i < LANES_LOOKED_AT && n != NULL && out->host == NULL; i++) {
        const struct lane *lane = LIST_ENTRY(n, struct lane, site_node);

        if (lane->last_host != NULL)
            take_answer(lane, out);
        n = list_next(lanes, n);
    }
}

/* Finds the answer that stopped the supply, at some of its lanes. */
static void supply_answer(const struct supply *s, struct lane_wait *out)
{
    lanes_answer(&s->shut, out);
    lanes_answer(&s->waking, out);
    lanes_answer(&s->attached, out);
}

/* The wall clock at a monotonic time. */
static int64_t wall_of_ns(const struct worker *w, uint64_t at_ns)
{
    return worker_wall_ms(w) + ((int64_t)at_ns - (int64_t)io_now_ns(w->io)) / 1000000;
}

/* Which of the limits on sessions keeps c from opening one. False: none does. */
static bool session_limit(const struct channel *c, struct limit_denial *out)
{
    struct limit full;

    if (!channel_sessions_full(c, &full))
        return false;
    limit_sessions_denial(&full, io_now_ns(c->site->worker->io), out);
    return true;
}

/* The rate by which sessions of by are opened: governor_open_next(). */
static enum governor_counts opens_by(const struct limit *by, uint64_t now_ns)
{
    enum governor_counts which = GOVERNOR_MESSAGES;
    uint64_t count;
    uint32_t period_ms;

    (void)governor_message_at(by->entry, now_ns, &which);
    (void)governor_rate(by->entry, now_ns, which, &count, &period_ms);
    return count != 0 ? which : GOVERNOR_BYTES;
}

/* The rate of the exchanger that lets a session begin first. */
static void host_limit(const struct channel *c, uint64_t now_ns, struct limit_denial *out)
{
    const struct site *site = c->site;
    struct limit by = {.kind = LIMIT_HOST, .dest = site->dest};
    const struct exchanger *host;

    if (!site->hosts_paced ||
        exchangers_open_at(&site->exchangers, channel_families(c), now_ns, &host) <= now_ns)
        return;
    by.entry = host->limits;
    if (limits_ask(&by, 1, now_ns, out) == 0)
        limit_connect_denial(&by, out);
}

/* The rate that keeps c from opening one: channel_open_at(). */
static void connect_limit(const struct channel *c, struct limit_denial *out)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io);

    if (limits_ask(c->limits, CHANNEL_LIMITS, now_ns, out) < 0)
        return;
    for (size_t i = 0; i < CHANNEL_LIMITS; i++) {
        const struct limit *by = &c->limits[i];
        uint64_t open_ns = c->rollups[i] == NULL ? 0 : rollup_open_at(c->rollups[i], now_ns);

        if (open_ns > now_ns) {
            limit_rate_denial(by, opens_by(by, now_ns), now_ns, open_ns, out);
            return;
        }
        if (by->entry == NULL || governor_connect_at(by->entry) <= now_ns)
            continue;
        limit_connect_denial(by, out);
        return;
    }
    host_limit(c, now_ns, out);
}

/* The rate of an exchanger for which sessions of c rest, the one that lets some go on first. */
static bool resting_limit(const struct channel *c, struct limit_denial *out)
{
    const struct exchangers *x = &c->site->exchangers;
    uint64_t now_ns = io_now_ns(c->site->worker->io);
    struct limit_denial one;
    bool found = false;

    for (uint16_t i = 0; i < x->len; i++) {
        const struct limit by = {
            .entry = x->list[i].limits, .kind = LIMIT_HOST, .dest = c->site->dest};

        if (limits_ask(&by, 1, now_ns, &one) == 0 || (found && one.until_ns >= out->until_ns))
            continue;
        *out = one;
        found = true;
    }
    return found;
}

/* No session of c takes anything, though it may send. */
static void session_wait(const struct channel *c, struct lane_wait *out)
{
    uint64_t now_ms = io_now_ms(c->site->worker->io);
    uint64_t rate_ms = channel_open_at(c) / 1000000;
    int64_t wall_ms = worker_wall_ms(c->site->worker);

    out->source = c->source;
    if (list_empty(&c->idle) && !list_empty(&c->resting) && resting_limit(c, &out->limit)) {
        out->reason = LANE_WAIT_RATE;
        out->until_ms = wall_of_ns(c->site->worker, out->limit.until_ns);
    } else if (rate_ms > now_ms && !channel_has_session(c)) { /* it gets no session before */
        out->reason = LANE_WAIT_RATE;
        out->until_ms = wall_ms + (int64_t)(rate_ms - now_ms);
        connect_limit(c, &out->limit);
    } else if ((c->connecting == 0 || c->sessions_len > c->connecting) &&
               session_limit(c, &out->limit)) {
        out->reason = LANE_WAIT_SESSIONS;
    } else if (c->shortage_until_ms > now_ms) {
        out->reason = LANE_WAIT_SHORTAGE;
        out->until_ms = wall_ms + (int64_t)(c->shortage_until_ms - now_ms);
    } else if (c->sessions_len == c->connecting) {
        out->reason = LANE_WAIT_CONNECT;
        if (c->open_after_ms > now_ms)
            out->until_ms = wall_ms + (int64_t)(c->open_after_ms - now_ms);
    }
}

/* A source of s that is suspended: that of c, which may be NULL, or another. */
static bool source_suspension(const struct supply *s, const struct channel *c,
                              struct suspension *out)
{
    if (c != NULL && channel_source_suspended(s->site, c->source, out))
        return true;
    for (uint32_t i = 0; i < s->seats_len; i++)
        if (channel_source_suspended(s->site, s->seats[i].source, out))
            return true;
    return false;
}

/* When s may send next, wall clock. It looks at that more often, so that until_ns, which is when it
 * looks, may be before. */
static int64_t warmup_opens_ms(struct worker *w, struct warmup_stream *s, uint64_t until_ns)
{
    uint64_t pace_ns = warmup_pace_ns(s);
    struct warmup_view view;

    warmup_view(&w->shared->warmup, s, worker_wall_ms(w), &view);
    if (view.next_ms != 0)
        return view.next_ms;
    until_ns = until_ns < pace_ns ? pace_ns : until_ns;
    return until_ns <= io_now_ns(w->io)
               ? worker_wall_ms(w)
               : worker_wall_ms(w) + (int64_t)(until_ns / 1000000 - io_now_ms(w->io));
}

/* The limit that lets nothing go now: of c, or where c is NULL of its site over all sources. */
static bool rate_limit(const struct supply *s, const struct channel *c, struct limit_denial *out)
{
    return c != NULL ? channel_limits_ask(c, out) < 0 : site_rates_ask(s->site, out) < 0;
}

/* No source may send, or c may not. */
static void shut_wait(const struct supply *s, enum channel_shut shut, const struct channel *c,
                      uint64_t until_ms, struct lane_wait *out)
{
    static const enum lane_wait_reason reasons[] = {
        [CHANNEL_SUSPENDED] = LANE_WAIT_SUSPENDED, [CHANNEL_AWAY] = LANE_WAIT_SOURCE,
        [CHANNEL_FAMILY] = LANE_WAIT_SOURCE,       [CHANNEL_STOPPED] = LANE_WAIT_BACK_OFF,
        [CHANNEL_QUIET] = LANE_WAIT_QUIET,         [CHANNEL_LIMIT] = LANE_WAIT_RATE,
        [CHANNEL_SHORTAGE] = LANE_WAIT_SHORTAGE,   [CHANNEL_REFUSED] = LANE_WAIT_CONNECT,
        [CHANNEL_BUSY] = LANE_WAIT_SESSIONS};
    uint64_t now_ms = io_now_ms(s->site->worker->io);

    if (shut == CHANNEL_BUSY && c != NULL) /* a rate may be what lets no further one begin */
        session_wait(c, out);
    if (out->reason != LANE_WAIT_NONE)
        return;
    out->reason = reasons[shut];
    out->source = c == NULL ? NULL : c->source;
    if (shut == CHANNEL_SUSPENDED && !source_suspension(s, c, &out->suspension))
        out->reason = LANE_WAIT_SOURCE;
    if (shut == CHANNEL_STOPPED)
        supply_answer(s, out);
    if (shut == CHANNEL_LIMIT && rate_limit(s, c, &out->limit) && out->limit.kind == LIMIT_WARMUP) {
        out->reason = LANE_WAIT_WARMUP;
        out->warmup = c->warmup;
    }
    if (out->reason == LANE_WAIT_SUSPENDED)
        out->until_ms = out->suspension.until_ms;
    else if (out->reason == LANE_WAIT_WARMUP)
        out->until_ms = warmup_opens_ms(s->site->worker, c->warmup, out->limit.until_ns);
    else if (shut == CHANNEL_QUIET && c != NULL)
        out->until_ms = c->quiet_until_ms, out->quiet = c->quiet;
    else if (until_ms != UINT64_MAX && until_ms > now_ms && shut != CHANNEL_BUSY)
        out->until_ms = worker_wall_ms(s->site->worker) + (int64_t)(until_ms - now_ms);
}

static struct seat *seat_of(struct supply *s, struct str source)
{
    for (uint32_t i = 0; i < s->seats_len; i++)
        if (str_eq(str_of(s->seats[i].source->name), source))
            return &s->seats[i];
    return NULL;
}

/* What keeps seat, NULL or a place of s, from taking something. */
static void seat_wait(const struct supply *s, const struct seat *seat, struct lane_wait *out)
{
    uint64_t until_ms;
    enum channel_shut shut;

    if (seat == NULL)
        return;
    out->source = seat->source;
    if (channel_source_suspended(s->site, seat->source, &out->suspension)) {
        out->reason = LANE_WAIT_SUSPENDED;
        out->until_ms = out->suspension.until_ms;
        return;
    }
    if (seat->unbound || seat->channel == NULL)
        return;
    shut = channel_shut(seat->channel, &until_ms);
    if (shut != CHANNEL_OPEN)
        shut_wait(s, shut, seat->channel, until_ms, out);
    else if (site_waits(s->site))
        shut_wait(s, CHANNEL_LIMIT, NULL, site_waits_until_ms(s->site), out);
    else
        session_wait(seat->channel, out);
}

/* source: empty, or the only one that is looked at. */
static void supply_wait(struct supply *s, struct str source, struct lane_wait *out)
{
    struct channel *c;
    uint64_t until_ms;
    enum channel_shut shut = supply_shut(s, &c, &until_ms);
    const struct seat *next = supply_next(s);

    if (site_share_is_used(s->site))
        out->reason = LANE_WAIT_MEMORY;
    else if (source.len > 0)
        seat_wait(s, seat_of(s, source), out);
    else if (shut != CHANNEL_OPEN)
        shut_wait(s, shut, c, until_ms, out);
    else if (next != NULL && next->channel != NULL) /* NULL: it had no turn yet */
        session_wait(next->channel, out);
    else if (c != NULL) /* it may be about to take part in the turns again */
        session_wait(c, out);
    else
        out->reason = LANE_WAIT_CONNECT;
}

/* Whether a limit of lane's tenant or campaign at the site lets nothing go now, whoever sends. */
static bool is_share_held(const struct lane *lane, struct lane_wait *out)
{
    struct worker *w = lane->worker;
    uint64_t now_ns = io_now_ns(w->io), until_ns;
    const struct limits_lowered *lowered;
    uint32_t version;
    const struct limit *full;

    until_ns = flow_warmup_at(w, feed_warmup(&lane->supply->feed, lane), &out->warmup);
    if (until_ns != 0) {
        out->reason = LANE_WAIT_WARMUP;
        out->until_ms = warmup_opens_ms(w, out->warmup, until_ns);
        return true;
    }
    full = feed_sessions_full(&lane->supply->feed, lane, now_ns);
    if (full != NULL && governor_sessions_full(full->entry, now_ns)) {
        out->reason = LANE_WAIT_SESSIONS;
        limit_sessions_denial(full, now_ns, &out->limit);
        return true;
    }
    if (full != NULL) {
        out->reason = LANE_WAIT_RATE;
        limit_connect_denial(full, &out->limit);
        out->until_ms = wall_of_ns(w, out->limit.until_ns);
        return true;
    }
    if (feed_limits_ask(&lane->supply->feed, lane, now_ns, &out->limit) == 0) {
        lowered = feed_lowered(&lane->supply->feed, lane, &version);
        if (!flow_lower_full(lane->site, lowered, &out->limit))
            return false;
        out->reason = LANE_WAIT_SESSIONS;
        return true;
    }
    out->reason = LANE_WAIT_RATE;
    out->until_ms = wall_of_ns(w, out->limit.until_ns);
    return true;
}

/* What lane's site and supply wait for; source as above. */
static void routed_wait(struct lane *lane, struct str source, struct lane_wait *out)
{
    if (!is_share_held(lane, out))
        supply_wait(lane->supply, source, out);
}

/* Whether all sources of s are suspended or away. */
static bool is_without_source(struct supply *s, struct lane_wait *out)
{
    struct channel *c;
    uint64_t until_ms;
    enum channel_shut shut = supply_shut(s, &c, &until_ms);

    if (!channel_shut_is_source(shut))
        return false;
    shut_wait(s, shut, c, until_ms, out);
    return true;
}

static void keep_longer(struct suspension *out, const struct suspension *one)
{
    if (out->scope == 0 ||
        (out->until_ms != 0 && (one->until_ms == 0 || one->until_ms > out->until_ms)))
        *out = *one;
}

/* Whether lane is suspended, and in *out by what: of several suspensions the one that lasts
 * longest. */
static bool suspended(struct lane *lane, struct suspension *out)
{
    struct suspensions *all = &lane->worker->shared->suspensions;
    struct str names[SUSPENSION_SCOPES];
    struct lane_names_at_site at_site;
    struct suspension one;

    *out = (struct suspension){0};
    if (suspensions_count(all) == 0)
        return false;
    lane_suspension_names(lane, &at_site, names);
    for (enum suspension_scope scope = SUSPENSION_DOMAIN; scope < SUSPENSION_SCOPES; scope++)
        if (names[scope].len != 0 && suspensions_find(all, scope, names[scope], &one))
            keep_longer(out, &one);
    if (lane->site != NULL && lane->site->provider != NULL &&
        suspensions_find(all, SUSPENSION_SITE, str_of(lane->site->exchangers_name), &one))
        keep_longer(out, &one);
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
    } else if (lane->supply != NULL && is_without_source(lane->supply, out)) {
        return true;
    } else if (lane_shut_wall_ms(lane) != 0) {
        out->reason = lane->state == LANE_UNROUTED ? LANE_WAIT_NO_ROUTE : LANE_WAIT_BACK_OFF;
        out->until_ms = lane_shut_wall_ms(lane);
        take_answer(lane, out);
        if (lane->state == LANE_OPEN && out->error == NULL)
            supply_answer(lane->supply, out);
    }
    return out->reason != LANE_WAIT_NONE;
}

void lane_wait(struct lane *lane, struct lane_wait *out)
{
    lane_wait_of_source(lane, STR(""), out);
}

bool lane_is_of_source(const struct lane *lane, struct str source)
{
    const struct seat *seat = lane->supply == NULL ? NULL : seat_of(lane->supply, source);

    return seat == NULL || !seat->unbound ||
           channel_source_suspended(lane->site, seat->source, NULL);
}

void lane_wait_of_source(struct lane *lane, struct str source, struct lane_wait *out)
{
    struct worker *w = lane->worker;
    bool stored = lane_has_due(lane, worker_wall_ms(w));

    if (lane_held(lane, out))
        return;
    if (lane->window_len == 0) {
        bool shared = lane->site != NULL && site_share_is_used(lane->site);

        if (stored && lane->in_flight == 0 && (shared || lane_memory_full(w)))
            out->reason = LANE_WAIT_MEMORY;
        else if (stored && lane->in_flight > 0 && lane->supply != NULL)
            routed_wait(lane, source, out);
    } else if (lane->site == NULL) {
        out->reason = LANE_WAIT_LOOKUP;
    } else {
        routed_wait(lane, source, out);
    }
}

uint32_t lane_wait_cost(const struct lane *lane)
{
    return 1 + (lane->supply == NULL ? 0 : lane->supply->seats_len / SEATS_OF_A_LANE);
}

/* --- the ceiling --- */

static double lesser(double a, double b)
{
    return a < b ? a : b;
}

static double in_an_hour(uint64_t apart_ns)
{
    return apart_ns == 0 ? INFINITY : HOUR_MS * 1e6 / (double)apart_ns;
}

/* Of a message in each session as many as it may have; 0: there is no limit of that. */
static uint64_t messages_of_a_session(const struct site *site)
{
    uint64_t own = site->dest->session_messages_max, of_provider = own;

    if (site->provider != NULL)
        of_provider = site->provider->dest.session_messages_max;
    return own == 0 || (of_provider != 0 && of_provider < own) ? of_provider : own;
}

static double hourly(const struct limit *l, const struct site *site, uint64_t now_ns)
{
    const struct config_rate *begin = l->entry == NULL ? NULL : limit_connect_rate(l);
    uint64_t messages = messages_of_a_session(site);
    double most = in_an_hour(l->entry == NULL ? 0 : governor_apart_ns(l->entry, now_ns));

    if (begin == NULL || begin->count == 0 || messages == 0)
        return most;
    return lesser(most, (double)begin->count * (double)messages * HOUR_MS / begin->period_ms);
}

static double seat_ceiling(const struct seat *seat)
{
    const struct site *site = seat->supply->site;
    struct worker *w = site->worker;
    const struct channel *c = seat->channel;
    uint64_t now_ns = io_now_ns(w->io);
    struct warmup_view view;
    double most, even;

    if (seat->unbound || (c != NULL && !c->usable) ||
        channel_source_suspended(seat->supply->site, seat->source, NULL))
        return 0;
    if (c == NULL) /* its limits are not known yet */
        return INFINITY;
    most = lesser(hourly(&c->limits[CHANNEL_OWN], site, now_ns),
                  hourly(&c->limits[CHANNEL_PROVIDER], site, now_ns));
    most = lesser(most, hourly(&c->limits[CHANNEL_SOURCE], site, now_ns));
    if (c->warmup == NULL)
        return most;
    warmup_view(&w->shared->warmup, c->warmup, worker_wall_ms(w), &view);
    if (view.cap == WARMUP_NO_CAP)
        return most;
    /* An even part of the day, or this hour's share where mail came late in the day. */
    even = view.cap / 24.0;
    return lesser(most, view.share > even ? view.share : even);
}

/* What the exchangers' hosts let through together. */
static double hosts_ceiling(const struct site *site, uint64_t now_ns)
{
    const struct exchangers *x = &site->exchangers;
    double sum = 0;

    for (uint16_t i = 0; i < x->len; i++) {
        const struct limit by = {
            .entry = x->list[i].limits, .kind = LIMIT_HOST, .dest = site->dest};
        bool again = false; /* another address of the same host */

        for (uint16_t j = 0; j < i; j++)
            again |= by.entry != NULL && x->list[j].limits == by.entry;
        if (!again)
            sum += hourly(&by, site, now_ns);
    }
    return sum;
}

double lane_ceiling(struct lane *lane)
{
    const struct supply *s = lane->supply;
    double most = 0, total = INFINITY;
    uint64_t now_ns = io_now_ns(lane->worker->io);

    for (uint32_t i = 0; s != NULL && i < s->seats_len; i++) {
        const struct channel *c = s->seats[i].channel;

        most += seat_ceiling(&s->seats[i]);
        if (c != NULL)
            total = lesser(hourly(&c->limits[CHANNEL_SITE], s->site, now_ns),
                           hourly(&c->limits[CHANNEL_PROVIDER_TOTAL], s->site, now_ns));
    }
    if (s == NULL)
        return INFINITY;
    if (lane->site->hosts_paced)
        total = lesser(total, hosts_ceiling(lane->site, now_ns));
    total = lesser(total, in_an_hour(feed_limits_apart_ns(&s->feed, lane, now_ns)));
    return lesser(most, total);
}

void lane_wait_put_warmup(struct worker *w, const struct lane_wait *wait, struct buf *out)
{
    struct warmup_view view;

    if (wait->reason != LANE_WAIT_WARMUP)
        return;
    warmup_view(&w->shared->warmup, wait->warmup, worker_wall_ms(w), &view);
    warmup_put_words(&w->shared->warmup, &view, out);
}

void lane_waited_for(struct lane *lane, struct buf *out)
{
    static const char *const words[] = {
        [LANE_WAIT_NONE] = "its turn",
        [LANE_WAIT_DRAINING] = "a restart",
        [LANE_WAIT_DISK] = "room in the store",
        [LANE_WAIT_SUSPENDED] = "the end of a suspension",
        [LANE_WAIT_BACK_OFF] = "the end of the destination's back-off",
        [LANE_WAIT_NO_ROUTE] = "a route to its domain",
        [LANE_WAIT_MEMORY] = "memory",
        [LANE_WAIT_LOOKUP] = "the name servers",
        [LANE_WAIT_RATE] = "the rate limit",
        [LANE_WAIT_QUIET] = "the end of its site's quiet hours",
        [LANE_WAIT_WARMUP] = "warm-up: ",
        [LANE_WAIT_SESSIONS] = "a session: as many as may be are busy",
        [LANE_WAIT_SHORTAGE] = "descriptors, memory or local ports of this host",
        [LANE_WAIT_CONNECT] = "a session: no connection, or no greeting yet",
        [LANE_WAIT_SOURCE] = "a source whose address this machine holds, or whose proxy works",
    };
    struct lane_wait wait;

    if (!lane_held(lane, &wait)) {
        if (lane->supply != NULL)
            routed_wait(lane, STR(""), &wait);
        else if (lane->routing != NULL)
            wait.reason = LANE_WAIT_LOOKUP;
        if (wait.reason == LANE_WAIT_NONE && lane_memory_full(lane->worker))
            wait.reason = LANE_WAIT_MEMORY;
    }
    buf_puts(out, words[wait.reason]);
    lane_wait_put_warmup(lane->worker, &wait, out);
    if (wait.error != NULL)
        buf_printf(out, ", after %s%s%s", wait.host == NULL ? "" : wait.host,
                   wait.host == NULL ? "" : ": ", wait.error);
}

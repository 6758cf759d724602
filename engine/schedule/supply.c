#include "schedule/supply.h"

#include <math.h>
#include <stdlib.h>

#include "schedule/channel.h"
#include "schedule/flow_warmup.h"
#include "schedule/lane_private.h"
#include "worker/shared.h"

/* Between two looks whether there is room for lanes that wait, where nothing tells when. */
#define SHUT_LOOK_MS   1000
#define CLOSED_MS      1000 /* a supply that cannot send for longer holds nothing in memory */
#define HELD_MIN_BYTES (64u << 10) /* what a supply that has sent nothing yet may hold */
/* Of the lanes that wait for room: how many get their turn at a time, how many of a priority are
 * looked at for that, and when the others are. */
#define HUNGRY_FED     32
#define HUNGRY_LOOKED  64
#define HUNGRY_LOOK_MS 100
#define TOLD_MAX       16 /* channels that a look tells of work */

static void on_supply_timer(struct timer *timer)
{
    supply_dirty(CONTAINER_OF(timer, struct supply, timer));
}

void supply_dirty(struct supply *s)
{
    if (!list_node_linked(&s->dirty_node))
        list_push_back(&s->site->worker->supplies_dirty, &s->dirty_node);
}

void supply_wake(struct supply *s, uint64_t at_ms)
{
    wheel_arm_by(io_wheel(s->site->worker->io), &s->timer, at_ms);
}

/* --- making and finding --- */

static double uniform(struct rng *rng)
{
    return ((double)rng_below(rng, UINT32_MAX) + 0.5) / (double)UINT32_MAX;
}

/* The source that what stands in text is bound to: each source draws a number from text and its own
 * name, and the smallest by weight has it. So a source that comes or goes moves no more than its
 * own part. */
static uint32_t bound_source(const struct config_pool *pool, struct str text)
{
    uint64_t seed = hash_bytes(text.ptr, text.len, 0);
    double best = INFINITY;
    uint32_t bound = 0;

    for (size_t i = 0; i < pool->sources_len; i++) {
        const struct config_pool_source *p = &pool->sources[i];
        uint64_t hash = hash_bytes(p->name, strlen(p->name), seed);
        double draw = -log(((double)(hash >> 11) + 0.5) / 9007199254740992.0) / p->weight;

        if (draw < best) {
            best = draw;
            bound = (uint32_t)i + 1;
        }
    }
    return bound;
}

uint32_t supply_bound(const struct config_pool *pool, struct str domain, struct str campaign)
{
    if (pool->selection == CONFIG_SELECT_DOMAIN)
        return bound_source(pool, domain);
    if (pool->selection == CONFIG_SELECT_CAMPAIGN)
        return bound_source(pool, campaign);
    return 0;
}

static void seats_fill(struct supply *s, const struct config_pool *pool, bool overflow)
{
    struct rng *rng = &s->site->worker->rng;

    for (size_t i = 0; pool != NULL && i < pool->sources_len; i++) {
        struct seat *seat = &s->seats[s->seats_len++];

        turn_init(&seat->turn, pool->sources[i].weight, uniform(rng));
        seat->supply = s;
        seat->source = pool->sources[i].source;
        seat->overflow = overflow;
    }
}

static struct feed_limits limits_of(const struct lane *lane)
{
    struct feed_limits limits = site_limits(lane->site, lane_tenant(lane),
                                            lane->names == NULL ? STR("") : lane->names->campaign);

    limits.warmup = flow_warmup(lane->site, lane);
    return limits;
}

static struct supply *supply_new(struct site *site, const struct config_pool *pool, uint32_t bound)
{
    struct supply *s = calloc(1, sizeof(*s));
    size_t seats = pool->sources_len + (pool->overflow == NULL ? 0 : pool->overflow->sources_len);

    ASSERT(s != NULL);
    s->site = site;
    s->pool = pool;
    s->bound = bound;
    s->timer.on_timer = on_supply_timer;
    list_init(&s->attached);
    list_init(&s->shut);
    list_init(&s->waking);
    for (int i = 0; i < FLOW_PRIORITIES; i++)
        list_init(&s->hungry[i]);
    feed_init(&s->feed);
    s->feed.limits_of = limits_of;
    s->feed.put_limit = site_limit_put;
    s->feed.on_idle = site_share_idle;
    s->feed.on_lack = site_share_lack;
    s->feed.paced = site->provider != NULL;
    s->seats = calloc(seats, sizeof(*s->seats));
    ASSERT(s->seats != NULL);
    seats_fill(s, pool, false);
    seats_fill(s, pool->overflow, true);
    ASSERT(s->seats_len == seats && bound <= pool->sources_len);
    list_push_back(&site->supplies, &s->site_node);
    supply_look_seats(s, true);
    return s;
}

struct supply *supply_get(struct site *site, const struct lane *lane)
{
    const struct config_pool *pool =
        config_pool_for(site->config, lane->names == NULL ? STR("") : lane->names->pool);
    struct str campaign = lane->names == NULL ? STR("") : lane->names->campaign;
    uint32_t bound = supply_bound(pool, lane_domain(lane), campaign);

    for (struct list_node *n = list_first(&site->supplies); n != NULL;
         n = list_next(&site->supplies, n)) {
        struct supply *s = LIST_ENTRY(n, struct supply, site_node);

        if (s->pool == pool && s->bound == bound)
            return s;
    }
    return supply_new(site, pool, bound);
}

/* The hungry lanes that come first, or NULL. */
static struct list *hungry_band(struct supply *s)
{
    while (s->hungry_bands != 0) {
        int band = __builtin_ctz(s->hungry_bands);

        if (!list_empty(&s->hungry[band]))
            return &s->hungry[band];
        s->hungry_bands &= (uint16_t)(s->hungry_bands - 1); /* its lanes have left */
    }
    return NULL;
}

void supply_hungers(struct supply *s, struct lane *lane)
{
    uint8_t band = lane_priority(lane);

    ASSERT(lane->supply == s && !lane->hungry && band < FLOW_PRIORITIES);
    lane->hungry = true;
    list_push_back(&s->hungry[band], &lane->wait_node);
    s->hungry_bands |= (uint16_t)(1u << band);
}

void supply_free(struct supply *s)
{
    const struct list *hungry = hungry_band(s);

    ASSERT(feed_empty(&s->feed) && s->waiting == 0);
    ASSERT(list_empty(&s->attached) && list_empty(&s->shut) && list_empty(&s->waking));
    ASSERT(hungry == NULL && s->held == 0 && s->loading == 0);
    supply_walk_end(s);
    wheel_cancel(io_wheel(s->site->worker->io), &s->timer);
    if (list_node_linked(&s->dirty_node))
        list_remove(&s->dirty_node);
    for (uint32_t i = 0; i < s->seats_len; i++) {
        seat_set(&s->seats[i], false);
        if (s->seats[i].channel != NULL)
            list_remove(&s->seats[i].channel_node);
    }
    turns_done(&s->turns);
    turns_done(&s->overflow);
    feed_done(&s->feed);
    free(s->seats);
    free(s);
}

/* --- whose turn it is --- */

struct channel *seat_channel(struct seat *seat)
{
    struct site *site = seat->supply->site;
    struct list_node *n = list_first(&site->channels);

    if (seat->channel != NULL)
        return seat->channel;
    for (; n != NULL && seat->channel == NULL; n = list_next(&site->channels, n))
        if (LIST_ENTRY(n, struct channel, site_node)->source == seat->source)
            seat->channel = LIST_ENTRY(n, struct channel, site_node);
    if (seat->channel == NULL)
        seat->channel = channel_new(site, seat->source);
    ASSERT(seat->channel->source == seat->source && seat->channel->site == site);
    list_push_back(&seat->channel->seats, &seat->channel_node);
    return seat->channel;
}

static struct turns *seat_turns(const struct seat *seat)
{
    return seat->overflow ? &seat->supply->overflow : &seat->supply->turns;
}

void seat_set(struct seat *seat, bool in)
{
    if (in)
        turns_join(seat_turns(seat), &seat->turn);
    else
        turns_leave(seat_turns(seat), &seat->turn);
}

struct seat *supply_next(struct supply *s)
{
    struct turn *first = turns_first(supply_turns(s));

    return first == NULL ? NULL : CONTAINER_OF(first, struct seat, turn);
}

/* Whether a source of the pool itself sends as soon as its lease of warm-up is stored: that is no
 * reason to go by the overflow pool. It waits for a second at most. */
static bool is_leased(const struct supply *s)
{
    return s->leased > 0 && io_now_ms(s->site->worker->io) < s->leased_until_ms;
}

/* Whether seat takes part, and no overflow seat while the pool's own do. */
static bool seat_counts(const struct seat *seat)
{
    return turn_in(&seat->turn) && seat_turns(seat) == supply_turns(seat->supply) &&
           !(seat->overflow && is_leased(seat->supply));
}

/* Whether all sessions of the channel are at work. One that has none yet is not busy. */
static bool is_busy(const struct channel *c)
{
    return c != NULL && c->sessions_len > c->connecting && list_empty(&c->idle);
}

/* Keeps the count of those that are. */
static void note(bool *was, uint32_t *count, bool is)
{
    ASSERT(!*was || *count > 0);
    if (is && !*was)
        ++*count;
    else if (!is && *was)
        --*count;
    *was = is;
}

bool seat_note_shut(struct seat *seat, enum channel_shut shut)
{
    struct supply *s = seat->supply;
    bool own = !seat->overflow && !seat->unbound;
    bool busy = own && shut == CHANNEL_BUSY && is_busy(seat->channel);
    bool leased = own && shut == CHANNEL_LIMIT && channel_is_leased(seat->channel);

    if (seat->busy == busy && seat->leased == leased)
        return false;
    if (leased && !seat->leased)
        s->leased_until_ms = io_now_ms(s->site->worker->io) + CHANNEL_SLOW_MS;
    note(&seat->busy, &s->busy, busy);
    note(&seat->leased, &s->leased, leased);
    return s->overflow.len > 0;
}

/* Whether none of the channel's sessions, those that connect included, has been free for seconds.
 */
static bool is_stuck(const struct channel *c)
{
    return c != NULL && c->sessions_len > 0 && list_empty(&c->idle) &&
           io_now_ms(c->site->worker->io) - c->free_ms > CHANNEL_STUCK_MS;
}

/* Whether nobody waits for c: its sessions are busy, and the receiver wants fewer of the source
 * than the configuration, which is a limit; or none of them gets on. Of several that are stuck each
 * would keep the others waiting for its second, one behind the other, again and again. */
static bool is_passed_over(const struct channel *c)
{
    return is_stuck(c) || (is_busy(c) && channel_is_lowered(c));
}

/* Whether c has no session, since other workers have as many as its source may have at the site. */
static bool lacks_session(const struct channel *c)
{
    return c != NULL && c->sessions_len == 0 && c->lacks.entry == c->governor &&
           c->lacks.counts == GOVERNOR_SESSIONS;
}

bool seat_may_take(struct seat *seat)
{
    struct seat *first;

    if (!seat_counts(seat))
        return false;
    for (;;) {
        first = supply_next(seat->supply);
        if (first == seat)
            return true;
        if (!is_passed_over(first->channel))
            break;
        channel_is_busy(first->channel);
    }
    return (is_busy(first->channel) || lacks_session(first->channel)) &&
           turns_within(seat_turns(seat), &seat->turn, TURNS_AHEAD);
}

/* Whether a further session would have something to take: mail whose tenant or campaign has as many
 * sessions as it may waits for one of those. */
static bool may_begin(const struct supply *s)
{
    return s->feed.counting == 0 || feed_may_begin(&s->feed, io_now_ns(s->site->worker->io));
}

bool seat_may_open(struct seat *seat)
{
    return seat_counts(seat) && !feed_empty(&seat->supply->feed) && may_begin(seat->supply) &&
           turns_within(seat_turns(seat), &seat->turn, seat->supply->waiting);
}

uint32_t seat_waiting(const struct seat *seat)
{
    const struct supply *s = seat->supply;
    uint64_t part = s->waiting;

    if (!seat_counts(seat) || feed_empty(&s->feed))
        return 0;
    if (seat_turns(seat)->len > 1)
        part = part * seat->turn.weight / seat_turns(seat)->weights + 1;
    return part < s->waiting ? (uint32_t)part : s->waiting;
}

/* There is work for seat's channel: the channel hears of it, unless all its sessions are at work,
 * which ask for more by themselves. */
static void tell(struct seat *seat)
{
    struct channel *c = seat_channel(seat);

    if (!is_busy(c))
        channel_dirty(c);
}

void seat_pay(struct seat *seat)
{
    struct supply *s = seat->supply;
    struct seat *next;

    turns_pay(seat_turns(seat), &seat->turn, 1);
    if (s->seats_len == 1 || feed_empty(&s->feed))
        return;
    next = supply_next(s);
    if (next == NULL || next == seat)
        return;
    tell(next);
    if (!timer_armed(&s->timer)) /* it may be slow */
        supply_wake(s, io_now_ms(s->site->worker->io) + CHANNEL_SLOW_MS);
}

/* A seat without a channel takes part unless its source may not send at all. */
static bool seat_is_usable(const struct supply *s, struct seat *seat)
{
    struct shared *all = s->site->worker->shared;

    /* The source is paused here. A channel that is made now sees the pause, and so knows that it
     * has to begin slowly behind it. */
    if (seat->channel == NULL && channel_source_suspended(s->site, seat->source, NULL))
        (void)seat_channel(seat);
    if (seat->channel != NULL) {
        uint64_t until_ms;

        return !channel_shut_is_source(channel_shut(seat->channel, &until_ms));
    }
    return source_families(sources_get(&all->sources, seat->source)) != 0;
}

/* Of a bound supply one seat takes part: the first from the bound one on whose source can send. */
static void look_bound(struct supply *s)
{
    uint32_t len = (uint32_t)s->pool->sources_len, chosen = len;

    ASSERT(s->bound >= 1 && s->bound <= len);
    for (uint32_t i = 0; i < len && chosen == len; i++) {
        uint32_t at = (s->bound - 1 + i) % len;

        if (seat_is_usable(s, &s->seats[at]))
            chosen = at;
    }
    for (uint32_t i = 0; i < len; i++) {
        s->seats[i].unbound = i != chosen;
        if (!s->seats[i].unbound)
            continue;
        seat_set(&s->seats[i], false);
        (void)seat_note_shut(&s->seats[i], CHANNEL_OPEN);
    }
}

void supply_look_seats(struct supply *s, bool force)
{
    const struct worker *w = s->site->worker;
    uint32_t addresses = atomic_load_explicit(&w->shared->sources.changed, memory_order_relaxed);

    if (!force && s->suspensions_changed == w->suspensions_changed &&
        s->sources_changed == addresses)
        return;
    s->suspensions_changed = w->suspensions_changed;
    s->sources_changed = addresses;
    if (s->bound != 0)
        look_bound(s);
    for (uint32_t i = 0; i < s->seats_len; i++) {
        struct seat *seat = &s->seats[i];

        if (seat->unbound)
            continue;
        if (seat->channel != NULL)
            (void)channel_look(seat->channel);
        else
            seat_set(seat, seat_is_usable(s, seat));
    }
}

/* How many seats have turns while first has none. To the overflow pool nothing goes for the reason
 * alone that sessions of the pool's own are slow. */
static uint32_t others_len(struct supply *s, const struct seat *first)
{
    return supply_turns(s)->len - 1 +
           (first->overflow || is_busy(first->channel) ? 0 : s->overflow.len);
}

/* A source whose turn it is keeps the others waiting for a second at most. */
static void look_slow(struct supply *s)
{
    uint64_t now_ms = io_now_ms(s->site->worker->io);
    struct seat *first;

    while ((first = supply_next(s)) != NULL && supply_turns(s)->len > 1 &&
           is_passed_over(first->channel))
        channel_is_busy(first->channel);
    if (first == NULL || others_len(s, first) == 0 || feed_empty(&s->feed)) {
        s->slow = NULL;
        return;
    }
    if (s->slow == first && s->slow_pass == first->turn.pass) {
        if (now_ms < s->slow_until_ms)
            return;
        if (first->channel != NULL && list_empty(&first->channel->idle))
            channel_is_busy(first->channel);
        first = supply_next(s);
        if (first == NULL)
            return;
    }
    s->slow = first;
    s->slow_pass = first->turn.pass;
    s->slow_until_ms = now_ms + CHANNEL_SLOW_MS;
    supply_wake(s, s->slow_until_ms);
}

/* The channels in front get to know that there is work: as many as may be needed. The heap's first
 * are not quite those that are next, but the first of all is. */
static void tell_front(struct supply *s)
{
    struct turns *turns = supply_turns(s);
    struct seat *front[TOLD_MAX];
    uint32_t len = turns->len;

    if (len > TOLD_MAX)
        len = TOLD_MAX;
    if (len > s->waiting)
        len = s->waiting;
    for (uint32_t i = 0; i < len; i++)
        front[i] = CONTAINER_OF(turns->heap[i], struct seat, turn);
    for (uint32_t i = 0; i < len; i++) /* busy ones too: they may open sessions */
        channel_dirty(seat_channel(front[i]));
}

/* --- memory --- */

enum channel_shut supply_shut(const struct supply *s, struct channel **out, uint64_t *until_ms)
{
    enum channel_shut soonest = CHANNEL_SUSPENDED;
    uint64_t soonest_ms = UINT64_MAX;

    *out = NULL;
    *until_ms = 0;
    if (s->turns.len > 0 || s->overflow.len > 0) {
        if (!site_waits(s->site))
            return CHANNEL_OPEN;
        *until_ms = site_waits_until_ms(s->site);
        return CHANNEL_LIMIT;
    }
    for (uint32_t i = 0; i < s->seats_len; i++) {
        struct channel *c = s->seats[i].channel;
        enum channel_shut shut;

        if (c == NULL || s->seats[i].unbound)
            continue;
        shut = channel_shut(c, until_ms);
        if (*out != NULL && *until_ms >= soonest_ms)
            continue;
        *out = c;
        soonest = shut;
        soonest_ms = *until_ms;
    }
    *until_ms = soonest_ms;
    return soonest;
}

/* Whether no source can send for a while. What may go within CLOSED_MS is held ready. */
static bool is_closed(const struct supply *s)
{
    struct channel *c;
    uint64_t until_ms;

    return supply_shut(s, &c, &until_ms) != CHANNEL_OPEN &&
           until_ms > io_now_ms(s->site->worker->io) + CLOSED_MS;
}

/* Whether some source gets mail through, as far as is known. */
static bool is_well(const struct supply *s)
{
    const struct turns *turns = supply_overflows(s) ? &s->overflow : &s->turns;

    if (s->busy > 0)
        return true;
    for (uint32_t i = 0; i < turns->len; i++) {
        const struct channel *c = CONTAINER_OF(turns->heap[i], struct seat, turn)->channel;

        if (c == NULL ||
            ((c->failures == 0 || channel_has_session(c)) && governor_stopped_ns(c->governor) == 0))
            return true;
    }
    return false;
}

static uint64_t budget_bytes(const struct supply *s)
{
    uint64_t now_s = io_now_ms(s->site->worker->io) / 1000;

    /* A message to try is enough where nothing gets through. */
    if (!is_well(s))
        return 1;
    if (now_s == s->pace_s)
        return HELD_MIN_BYTES + 2 * (s->pace[0] + s->pace[1]);
    return HELD_MIN_BYTES + (now_s == s->pace_s + 1 ? 2 * s->pace[0] : 0);
}

void supply_pace(struct supply *s, uint64_t bytes)
{
    uint64_t now_s = io_now_ms(s->site->worker->io) / 1000;

    if (now_s != s->pace_s) {
        s->pace[1] = now_s == s->pace_s + 1 ? s->pace[0] : 0;
        s->pace[0] = 0;
        s->pace_s = now_s;
    }
    s->pace[0] += bytes;
}

bool supply_has_room(const struct supply *s)
{
    if (!lane_memory_tight(s->site->worker))
        return true;
    return !is_closed(s) && s->held + s->loading < budget_bytes(s);
}

bool supply_holds_too_much(const struct supply *s)
{
    return lane_memory_tight(s->site->worker) &&
           (is_closed(s) || (s->held > HELD_MIN_BYTES && s->held > 2 * budget_bytes(s)));
}

uint64_t supply_room_bytes(const struct supply *s)
{
    uint64_t used = s->held + s->loading, budget;

    if (!lane_memory_tight(s->site->worker))
        return UINT64_MAX;
    budget = budget_bytes(s);
    return used < budget ? budget - used : 1;
}

/* Up to max of the band's lanes get their turn; those that a limit of their flow holds stay, and
 * keep none of the others. How many. */
static int feed_band(struct supply *s, struct list *band, int max)
{
    const struct list_node *first_held = NULL;
    struct list_node *n;
    int fed = 0;

    for (int i = 0; i < HUNGRY_LOOKED && fed < max && supply_has_room(s) &&
                    (n = list_first(band)) != NULL && n != first_held;
         i++) {
        struct lane *lane = LIST_ENTRY(list_pop_front(band), struct lane, wait_node);

        if (!lane_has_room(lane)) {
            list_push_back(band, &lane->wait_node);
            first_held = first_held == NULL ? n : first_held;
            continue;
        }
        ASSERT(lane->supply == s && lane->hungry);
        lane->hungry = false;
        list_push_back(&s->site->worker->load_wait, &lane->wait_node);
        fed++;
    }
    return fed;
}

/* Lanes that waited for room want their loads, as far as there is some now; else the supply looks
 * again when there may be. In front of handing out work. */
static void feed_hungry(struct supply *s)
{
    uint64_t now_ms = io_now_ms(s->site->worker->io), at_ms;
    struct channel *c;
    int fed = 0;

    if (hungry_band(s) == NULL)
        return;
    /* Only so many at a time: each takes its part of the room when its load begins, at the turn's
     * end. */
    for (int band = 0; band < FLOW_PRIORITIES; band++)
        fed += feed_band(s, &s->hungry[band], HUNGRY_FED - fed);
    if (hungry_band(s) == NULL)
        return;
    (void)supply_shut(s, &c, &at_ms);
    if (at_ms == UINT64_MAX)
        at_ms = now_ms + SHUT_LOOK_MS;
    supply_wake(s, at_ms > now_ms + HUNGRY_LOOK_MS ? at_ms : now_ms + HUNGRY_LOOK_MS);
}

static void on_held(void *arg, const struct limit *limit, enum governor_counts counts, uint64_t ms)
{
    site_count_held(
        arg, &(struct limit_denial){.kind = limit->kind, .entry = limit->entry, .counts = counts},
        ms);
}

static uint64_t warms_at(void *arg, const struct warmup_set *set)
{
    const struct site *site = arg;

    return warmup_set_empty(set) ? 0 : flow_warmup_at(site->worker, set, NULL);
}

/* Tenants and campaigns whose limits let them go on take part again. */
static void release(struct supply *s)
{
    struct site *site = s->site;
    uint32_t caps = suspensions_caps_version(&site->worker->shared->suspensions);

    if (s->caps_seen != caps) {
        s->caps_seen = caps;
        feed_look_lowered(&s->feed);
    }
    feed_release(&s->feed, io_now_ns(site->worker->io), site->sessions_len > 0, warms_at, on_held,
                 site);
    if (s->feed.held_ns != UINT64_MAX)
        supply_wake(s, s->feed.held_ns / 1000000 + 1);
}

void supply_look(struct supply *s)
{
    release(s);
    supply_look_seats(s, false);
    supply_look_state(s);
    feed_hungry(s);
    if (supply_overflows(s) && s->overflow.len > 0 && is_leased(s)) {
        if (!feed_empty(&s->feed))
            supply_wake(s, s->leased_until_ms);
        return;
    }
    look_slow(s);
    if (feed_empty(&s->feed))
        return;
    if (!may_begin(s)) { /* others may give a session back */
        if (s->turns.len > 0 || s->overflow.len > 0)
            feed_lack(&s->feed, io_now_ns(s->site->worker->io));
        supply_wake(s, io_now_ms(s->site->worker->io) + SUPPLY_SESSION_LOOK_MS);
    }
    site_look_held(s->site);
    if (site_waits(s->site)) {
        site_claim(s->site, feed_priority(&s->feed));
        supply_wake(s, site_waits_until_ms(s->site));
    } else {
        tell_front(s);
    }
}

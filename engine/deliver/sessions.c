#include "deliver/sessions.h"

#include <stdlib.h>

#include "base/log.h"
#include "deliver/idle.h"
#include "deliver/transaction.h"
#include "limits/retry.h"
#include "outcome/judge.h"
#include "schedule/channel.h"
#include "schedule/lane.h"
#include "schedule/rollup.h"
#include "schedule/settle.h"
#include "sts/sts_policy.h"
#include "worker/peer_text.h"
#include "worker/shared.h"

#define SLOT_RETRY_MS   20 /* asking the governor again for a session slot */
#define GIVE_WAY_MS     (3 * SLOT_RETRY_MS)
#define MEMORY_RETRY_MS 1000 /* opening again where descriptors or memory were short */
#define REFUSED_MS      1000 /* until the next connection; doubled with each in a row that fails */
#define REFUSED_MAX     6
#define SHORTAGE_SAY_MS 60000 /* after so long without a shortage the log names the next one */
#define SHORTAGE_MS     1000  /* until it is looked whether this host has again what it lacked */
#define ROUNDS          4 /* of looks at supplies and channels in a turn: one may call for the other */
#define URGENT_LOOKED   16      /* sessions without work, in a look */
#define LIMIT_MS        3600000 /* how long a learnt number of messages per session is believed */

/* --- handing out work --- */

static bool counts(const struct channel_session *session, const struct limit *limit)
{
    return transactions_count(CONTAINER_OF(session, const struct delivery, session), limit);
}

struct channel_taken sessions_take(struct delivery *d, struct recipient **out, size_t max,
                                   uint32_t domains_max)
{
    d->session.counts = counts;
    d->session.host =
        (struct limit){.entry = d->dial.slot, .kind = LIMIT_HOST, .dest = d->site->dest};
    for (;;) {
        struct channel_taken taken = channel_take(d->channel, &d->session, out, max, domains_max);

        if (!taken.expired)
            return taken;
        judge_expired(out[0]);
    }
}

bool sessions_exhausted(const struct shared *all)
{
    return atomic_load_explicit(&all->sessions_out, memory_order_relaxed) >= all->sessions_out_max;
}

/* How many more sessions are wanted now. A new destination starts with one connection and may have
 * as many connecting as are already up, so the count doubles each time connections succeed; never
 * more than there are recipients waiting for one. */
static uint32_t sessions_wanted(const struct channel *c, uint32_t waiting)
{
    uint32_t up = c->sessions_len - c->connecting;
    uint32_t connecting_max = up < 1 ? 1 : up;
    uint32_t wanted;

    ASSERT(c->connecting <= c->sessions_len);
    if (connecting_max > c->connecting_max)
        connecting_max = c->connecting_max;
    if (c->connecting >= connecting_max || waiting <= c->connecting)
        return 0;
    wanted = connecting_max - c->connecting;
    if (wanted > waiting - c->connecting)
        wanted = waiting - c->connecting;
    return wanted;
}

/* Takes over a session that another site has without work, from the same source to the address that
 * this channel would connect to. The session's slot there is given back, one of this channel is
 * taken. */
static bool take_over(struct channel *c, bool urgent)
{
    struct site *site = c->site;
    struct exchanger_turn turn = {.now_ms = io_now_ms(site->worker->io),
                                  .offset = site->rotate,
                                  .families = channel_families(c),
                                  .down = c->down};
    int at = exchangers_next(&site->exchangers, &turn);
    const struct exchanger *to = at < 0 ? NULL : &site->exchangers.list[at];
    struct delivery *d = to == NULL ? NULL : idle_find(c, to);

    if (d == NULL)
        return false;
    ASSERT(d->state == DELIVERY_OPEN && d->letters_len == 0 && d->channel != c);
    dial_rename(&d->dial, to->host);
    idle_leave(d);
    governor_session_works(d->channel->governor, false);
    governor_session_works(c->governor, true);
    smtp_client_use_options(d->client, &c->options);
    sessions_ended(d->channel, d);
    d->session.urgent = urgent;
    d->channel = c;
    d->site = site;
    sessions_begun(c, d);
    idle_enter(d);
    site->rotate++;
    delivery_work(d);
    return true;
}

/* Whether the next session is another channel's, which has a second to take it. */
static bool is_claimed(const struct channel *c)
{
    const struct channel *by = c->site->claimant;

    return by != NULL && by != c && by->busy_until_ms > io_now_ms(c->site->worker->io);
}

/* A session without work, whether its exchanger would let it have some or not. NULL: none. */
static struct list_node *first_idle(const struct channel *c)
{
    struct list_node *n = list_first(&c->idle);

    return n != NULL ? n : list_first(&c->resting);
}

/* The site's limit over all sources is reached, and c has no session: one of the source that has
 * most makes room, and c has the next one. The others go on meanwhile. */
static void make_room(struct channel *c)
{
    struct site *site = c->site;
    struct channel *most = NULL;

    if (c->sessions_len > 0 || site->claimant == c || is_claimed(c))
        return;
    for (struct list_node *n = list_first(&site->channels); n != NULL;
         n = list_next(&site->channels, n)) {
        struct channel *other = LIST_ENTRY(n, struct channel, site_node);

        if (other->sessions_len > other->yielding &&
            (most == NULL || other->sessions_len > most->sessions_len))
            most = other;
    }
    if (most != NULL) { /* else they are other workers' */
        struct list_node *idle = first_idle(most);

        delivery_retire(idle != NULL
                            ? LIST_ENTRY(idle, struct delivery, idle_node)
                            : LIST_ENTRY(list_first(&most->sessions), struct delivery, site_node),
                        false);
    }
    site->claimant = c;
    channel_is_busy(c);
}

/* Whether a session is under the limit: one that takes urgent mail alone is none of the others. */
static bool is_under(const struct channel *c, size_t limit, bool urgent)
{
    return c->limits[limit].entry != NULL && !(urgent && limit == CHANNEL_BULK);
}

/* The worker's sessions under the limit, those apart that end. */
static uint32_t sessions_under(const struct channel *c, size_t limit)
{
    const struct rollup *r = c->rollups[limit];

    ASSERT(r == NULL || r->sessions >= r->yielding);
    if (r != NULL)
        return r->sessions - r->yielding;
    if (limit == CHANNEL_BULK)
        return c->sessions_len - c->urgent_len > c->yielding
                   ? c->sessions_len - c->urgent_len - c->yielding
                   : 0;
    ASSERT(limit == CHANNEL_OWN || limit == CHANNEL_SITE);
    return (limit == CHANNEL_OWN ? c->sessions_len : c->site->sessions_len) - c->yielding;
}

bool sessions_over_share(const struct channel *c, bool urgent, uint32_t more, uint64_t held_ms)
{
    const struct worker *w = c->site->worker;

    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (is_under(c, i, urgent) &&
            governor_should_yield(c->limits[i].entry, w->index, sessions_under(c, i) + more,
                                  held_ms, io_now_ns(w->io)))
            return true;
    return held_ms >= ROLLUP_SLICE_MS && rollup_presses(c);
}

bool sessions_contended(const struct channel *c)
{
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->limits[i].entry != NULL &&
            governor_contended(c->limits[i].entry, c->site->worker->index))
            return true;
    return rollup_presses(c);
}

/* Gives back what slot_take() took under the first len limits. */
static void slot_undo(struct channel *c, size_t len, bool urgent)
{
    for (size_t i = 0; i < len; i++)
        if (is_under(c, i, urgent))
            governor_session_give(c->limits[i].entry);
}

static void slot_give(struct channel *c, bool urgent)
{
    slot_undo(c, CHANNEL_LIMITS, urgent);
}

/* Whether the sessions of single exchangers leave room for one of c, which is not another's. A
 * session takes its place there when it chooses its exchanger. */
static bool hosts_have_room(struct channel *c)
{
    struct worker *w = c->site->worker;
    uint64_t now_ns = io_now_ns(w->io);
    const struct exchanger *full;

    if (!c->site->hosts_limited)
        return true;
    full = exchangers_full(&c->site->exchangers, channel_families(c), io_now_ms(w->io));
    if (full == NULL)
        return !is_claimed(c);
    exchangers_lack(&c->site->exchangers, channel_families(c), w->index, now_ns);
    if (governor_sessions_full(full->limits,
                               now_ns)) /* else it is a rate, which passes by itself */
        make_room(c);
    return false;
}

/* Takes a slot under all limits of the channel, or none; urgent: for urgent mail alone. */
static bool slot_take(struct channel *c, bool urgent)
{
    struct site *site = c->site;
    struct worker *w = site->worker;
    uint64_t now_ns = io_now_ns(w->io);

    if (!hosts_have_room(c))
        return false;

    for (size_t i = 0; i < CHANNEL_LIMITS; i++) {
        bool claimed = i == CHANNEL_SITE && is_claimed(c);

        if (!is_under(c, i, urgent) ||
            (!claimed && governor_session_take(c->limits[i].entry, w->index, now_ns)))
            continue;
        slot_undo(c, i, urgent);
        if (i == CHANNEL_SITE)
            make_room(c);
        return false;
    }
    site->claimant = NULL;
    exchangers_lack_none(&site->exchangers, w->index);
    return true;
}

/* Whether c has urgent mail, for which sessions are kept. */
static bool keeps_urgent(const struct channel *c)
{
    return c->limits[CHANNEL_BULK].entry != NULL && channel_has_urgent(c);
}

/* One of those that are kept for urgent mail. */
static bool urgent_slot_take(struct channel *c)
{
    return keeps_urgent(c) && slot_take(c, true);
}

static void slot_withdraw(struct channel *c)
{
    struct site *site = c->site;
    uint32_t index = site->worker->index;

    governor_session_withdraw(c->governor, index, c->sessions_len);
    if (c->limits[CHANNEL_BULK].entry != NULL && c->rollups[CHANNEL_BULK] == NULL)
        governor_session_withdraw(c->limits[CHANNEL_BULK].entry, index,
                                  c->sessions_len - c->urgent_len);
    exchangers_lack_none(&site->exchangers, index);
    if (site->total != NULL)
        governor_session_withdraw(site->total, index, site->sessions_len);
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->rollups[i] != NULL && c->rollups[i]->line_len == 0)
            governor_session_withdraw(c->rollups[i]->entry, index, c->rollups[i]->sessions);
}

/* Which limit keeps c from a session now: that of how fast they begin, or of how many there are. */
static struct limit_denial lacks_by(const struct channel *c)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io);
    struct limit full;

    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->limits[i].entry != NULL && governor_connect_at(c->limits[i].entry) > now_ns)
            return (struct limit_denial){.kind = c->limits[i].kind,
                                         .entry = c->limits[i].entry,
                                         .counts = GOVERNOR_CONNECTS};
    if (!channel_sessions_full(c, &full))
        return (struct limit_denial){0};
    return (struct limit_denial){.kind = full.kind,
                                 .entry = full.kind == LIMIT_HOST ? NULL : full.entry,
                                 .counts = GOVERNOR_SESSIONS};
}

/* Counts how long mail of c waits for a session that a limit refuses, from look to look. */
static void look_lacks(struct channel *c, bool lacks)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io), ms = (now_ns - c->lacks_ns) / 1000000;

    if (c->lacks.kind == LIMIT_NONE && !lacks)
        return;
    if (c->lacks.kind != LIMIT_NONE)
        site_count_held(c->site, &c->lacks, ms);
    c->lacks_ns = c->lacks.kind == LIMIT_NONE ? now_ns : c->lacks_ns + ms * 1000000;
    c->lacks = lacks ? lacks_by(c) : (struct limit_denial){0};
}

/* c gets no session now. Where the limit is a provider's, c stands in the line of its sites. */
static void open_later(struct channel *c, uint64_t at_ms)
{
    uint64_t rate_ms = channel_open_at(c) / 1000000 + 1;

    rollup_wait(c);
    channel_wake(c, rate_ms > at_ms ? rate_ms : at_ms);
    if (rate_ms > at_ms && !channel_has_session(c))
        channel_is_busy(c); /* the other sources do not wait for it */
}

/* Whether c stands in line and could send, had it a session. */
static bool is_in_line(struct channel *c)
{
    uint64_t until_ms;
    enum channel_shut shut;

    if (c->line == NULL)
        return false;
    shut = channel_shut(c, &until_ms);
    return shut == CHANNEL_OPEN || shut == CHANNEL_BUSY;
}

/* c has a slot: opens a session for it, or gives it back until later. The others in line would have
 * no more luck now. */
static bool connect_new(struct channel *c, bool urgent)
{
    struct io *io = c->site->worker->io;

    if (limits_connect(c->limits, CHANNEL_LIMITS, io_now_ns(io)) < 0) {
        slot_give(c, urgent); /* another worker has opened one just now */
        open_later(c, io_now_ms(io) + SLOT_RETRY_MS);
        return false;
    }
    if (delivery_open(c, urgent)) {
        rollup_opens(c);
        return true;
    }
    limits_unconnect(c->limits, CHANNEL_LIMITS, io_now_ns(io)); /* no descriptors or memory */
    slot_give(c, urgent);
    channel_wake(c, io_now_ms(io) + MEMORY_RETRY_MS);
    return false;
}

/* Takes a slot for a session of c; *urgent: for urgent mail alone, which is all that there is for c
 * where it is not its turn. A session that would have to yield at once, or could send nothing
 * before a rate lets it, is not worth a connection. */
static bool slot_get(struct channel *c, bool turn, bool *urgent)
{
    struct io *io = c->site->worker->io;

    *urgent = false;
    if (io_now_ms(io) < c->give_way_until_ms || channel_open_at(c) > io_now_ns(io))
        return false;
    if (turn && !sessions_over_share(c, false, 1 + c->yielding, 0) && slot_take(c, false))
        return true;
    *urgent = urgent_slot_take(c);
    return *urgent;
}

/* c got no session. Where it is not its turn it hears when it is; what is kept for urgent mail may
 * be there before. */
static void slot_lacks(struct channel *c, bool turn)
{
    uint64_t at_ms = io_now_ms(c->site->worker->io) + SLOT_RETRY_MS;

    if (turn) {
        look_lacks(c, true);
        open_later(c, at_ms);
    } else if (keeps_urgent(c)) {
        uint64_t rate_ms = channel_open_at(c) / 1000000 + 1;

        channel_wake(c, rate_ms > at_ms ? rate_ms : at_ms);
    }
}

static void open_sessions(struct channel *c, uint32_t waiting)
{
    struct worker *w = c->site->worker;
    uint64_t now_ms = io_now_ms(w->io);
    uint64_t after_ms = c->shortage_until_ms > now_ms ? c->shortage_until_ms : c->open_after_ms;
    uint32_t n = after_ms > now_ms ? 0 : sessions_wanted(c, waiting);
    bool urgent;

    if (after_ms > now_ms)
        channel_wake(c, after_ms);
    if (n == 0)
        rollup_leave(c);
    for (; n > 0; n--) {
        bool turn = rollup_turn(c);

        if (!slot_get(c, turn, &urgent)) {
            slot_lacks(c, turn);
            return;
        }
        look_lacks(c, false);
        if (!take_over(c, urgent) && !connect_new(c, urgent))
            return;
        if (turn)
            rollup_leave(c);
    }
}

/* Sessions that wait for urgent mail get some. */
static void urgent_work(struct channel *c)
{
    struct list_node *n = list_first(&c->resting), *next;

    for (int i = 0; i < URGENT_LOOKED && n != NULL && channel_has_urgent(c); i++, n = next) {
        struct delivery *d = LIST_ENTRY(n, struct delivery, idle_node);

        next = list_next(&c->resting, n);
        if (d->session.urgent && !idle_rests(d))
            (void)delivery_work(d);
    }
}

/* Sessions without work get some. */
static void idle_work(struct channel *c)
{
    struct list_node *n;

    while ((n = list_first(&c->idle)) != NULL && channel_has_work(c)) {
        struct delivery *d = LIST_ENTRY(n, struct delivery, idle_node);

        if (!delivery_work(d) && list_first(&c->idle) == n)
            break; /* a limit says wait */
    }
    if (c->urgent_len > 0)
        urgent_work(c);
}

/* For how many recipients c wants sessions. Where none of those that wait is c's in the turns it
 * wants one all the same: while the next session is kept for it, while it stands in line, or to
 * have it open when its rate lets mail go. */
static uint32_t waiting_for_sessions(struct channel *c)
{
    uint32_t waiting = channel_waiting(c);

    if (waiting == 0 && (c->site->claimant == c || is_in_line(c)))
        waiting = channel_has_mail(c);
    return waiting != 0 ? waiting : channel_opens_ahead(c);
}

static void dispatch(struct channel *c)
{
    uint32_t waiting;
    struct list_node *n;
    bool open;

    if (c->site->worker->draining)
        return;
    open = channel_look(c);
    while ((c->site->lanes == 0 || c->suspended) && (n = first_idle(c)) != NULL)
        delivery_quit(LIST_ENTRY(n, struct delivery, idle_node));
    if (open)
        idle_work(c);
    if (c->site->claimant == c && c->busy_until_ms <= io_now_ms(c->site->worker->io))
        c->site->claimant = NULL;
    waiting = waiting_for_sessions(c);
    if (waiting == 0 || !list_empty(&c->idle)) {
        look_lacks(c, false);
        rollup_leave(c);
    }
    if (waiting == 0)
        slot_withdraw(c);
    else if (list_empty(&c->idle))
        open_sessions(c, waiting);
}

/* While settles are full all of it waits, also where they became so just now. */
void sessions_dispatch_all(struct worker *w)
{
    struct list_node *n;

    for (int i = 0;
         i < ROUNDS && (!list_empty(&w->supplies_dirty) || !list_empty(&w->channels_dirty)); i++) {
        while (!settles_full(w) && (n = list_pop_front(&w->supplies_dirty)) != NULL)
            if (!w->draining)
                supply_look(LIST_ENTRY(n, struct supply, dirty_node));
        while (!settles_full(w) && (n = list_pop_front(&w->channels_dirty)) != NULL)
            dispatch(LIST_ENTRY(n, struct channel, dirty_node));
    }
}

/* --- what becomes of them --- */

void sessions_begun(struct channel *c, struct delivery *d)
{
    ASSERT(d->channel == c && d->site == c->site && !list_node_linked(&d->site_node));
    if (c->sessions_len == 0)
        c->free_ms = io_now_ms(c->site->worker->io);
    list_push_back(&c->sessions, &d->site_node);
    c->sessions_len++;
    c->urgent_len += d->session.urgent;
    ASSERT(c->urgent_len <= c->sessions_len);
    c->site->sessions_len++;
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->rollups[i] != NULL && is_under(c, i, d->session.urgent))
            c->rollups[i]->sessions++;
    atomic_fetch_add_explicit(&c->state->shared.sessions, 1, memory_order_relaxed);
}

void sessions_yields(struct channel *c, const struct delivery *d, bool yields)
{
    uint32_t one = yields ? 1 : UINT32_MAX; /* which is -1 */

    ASSERT(yields ? c->yielding < c->sessions_len : c->yielding > 0);
    c->yielding += one;
    governor_session_ends(channel_told(c), yields);
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->rollups[i] != NULL && is_under(c, i, d->session.urgent))
            c->rollups[i]->yielding += one;
}

void sessions_works(struct channel *c)
{
    if (c->connecting_max < UINT32_MAX)
        c->connecting_max++;
    c->failures = 0;
    c->open_after_ms = 0;
    (void)channel_look(c);
}

void sessions_shortage(struct channel *c, int err)
{
    uint64_t now_ms = io_now_ms(c->site->worker->io);

    if (c->shortage_until_ms == 0 || c->shortage_until_ms + SHORTAGE_SAY_MS < now_ms)
        log_warn("delivery.shortage",
                 "site=%s source=%s error=\"%s\" action=\"it waits; see System in the manual\"",
                 c->site->name, c->source->name, strerror(-err));
    c->shortage_until_ms = now_ms + SHORTAGE_MS;
    channel_wake(c, c->shortage_until_ms);
    (void)channel_look(c);
}

/* Two sessions that end at the same number of messages show a limit: it is no chance where the
 * second began behind the end of the first. A peer that restarts ends all its sessions at once,
 * most of them at the same number. */
void sessions_limit_seen(struct channel *c, const struct delivery *d)
{
    uint64_t now_ms = io_now_ms(c->site->worker->io);

    if (c->messages_max > d->completed)
        c->messages_max = 0;
    if (c->messages_last != d->completed) {
        c->messages_last = d->completed;
        c->messages_last_ms = now_ms;
    } else if (d->started_ms >= c->messages_last_ms) {
        c->messages_max = d->completed;
        c->messages_until_ms = now_ms + LIMIT_MS;
    }
}

uint32_t sessions_messages_max(const struct channel *c)
{
    if (c->messages_max == 0 || c->messages_until_ms < io_now_ms(c->site->worker->io))
        return UINT32_MAX;
    return c->messages_max;
}

void sessions_space_out(struct channel *c)
{
    struct worker *w = c->site->worker;
    int64_t wait_ms = (int64_t)REFUSED_MS << c->failures;
    int64_t retry_ms;

    ASSERT(c->failures <= REFUSED_MAX);
    if (c->failures < REFUSED_MAX)
        c->failures++;
    retry_ms = retry_delay_ms(c->site->dest, c->failures, &w->rng);
    c->connecting_max = 1;
    c->open_after_ms = io_now_ms(w->io) + (uint64_t)(retry_ms < wait_ms ? retry_ms : wait_ms);
    (void)channel_look(c);
}

void sessions_ended(struct channel *c, struct delivery *d)
{
    struct site *site = c->site;
    struct worker *w = site->worker;
    uint32_t before;

    ASSERT(d->channel == c && c->sessions_len > 0 && site->sessions_len >= c->sessions_len);
    list_remove(&d->site_node);
    c->sessions_len--;
    ASSERT(c->urgent_len >= d->session.urgent);
    c->urgent_len -= d->session.urgent;
    site->sessions_len--;
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->rollups[i] != NULL && is_under(c, i, d->session.urgent)) {
            ASSERT(c->rollups[i]->sessions >
                   c->sessions_len - (i == CHANNEL_BULK ? c->urgent_len : 0));
            c->rollups[i]->sessions--;
        }
    before = atomic_fetch_sub_explicit(&c->state->shared.sessions, 1, memory_order_relaxed);
    ASSERT(before > 0 && c->yielding <= c->sessions_len && c->connecting <= c->sessions_len);
    slot_give(c, d->session.urgent);
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        rollup_freed(c->rollups[i]); /* who stands in line there hears of it */
    if (c->sessions_len == 0 && !channel_has_mail(c))
        slot_withdraw(c);
    /* Another worker wants a slot. Without a pause this worker, which sees the freed slot first,
     * would take it again. */
    if (sessions_contended(c) || dial_is_pressed(&d->dial, w))
        c->give_way_until_ms = io_now_ms(w->io) + GIVE_WAY_MS;
    site_left(site);
    if (channel_has_mail(c))
        channel_dirty(c);
}

/* What records say where a policy of MTA-STS may have been the reason. */
static const struct report_tls sts_enforced = {.policy = "mta-sts", .sts_mode = "enforce"};

/* Why no source of a supply gets a session, kept until all its lanes have heard. */
struct give_up {
    struct supply_failure failure;
    struct worker *worker;
    struct outcome outcome;
    struct judge_context context;
    char peer_addr[PEER_TEXT_BYTES];
    char host[];
};

static void give_up_tell(struct supply_failure *failure, struct lane *lane, uint32_t max)
{
    struct give_up *g = CONTAINER_OF(failure, struct give_up, failure);
    struct recipient *r;

    for (uint32_t i = 0; i < max && (r = lane_pop(lane)) != NULL; i++) {
        if (lane_expired(r, worker_wall_ms(g->worker)))
            judge_expired(r);
        else
            judge_one(g->worker, &g->context, r, &g->outcome);
        if (g->outcome.class != OUTCOME_FAILED)
            lane_suspend(lane, LANE_SITE_DOWN, g->context.dest, &g->outcome.reply,
                         g->context.peer_name);
    }
}

static void give_up_done(struct supply_failure *failure)
{
    free(CONTAINER_OF(failure, struct give_up, failure));
}

/* Of s, which lives longer: what names the site, the source and the pool is of the configuration
 * that its site was made with. */
static void give_up(struct supply *s, const struct channel *c, const struct outcome *outcome,
                    const struct exchanger *exchanger)
{
    size_t len = exchanger->host == NULL ? 0 : strlen(exchanger->host) + 1;
    struct give_up *g = calloc(1, sizeof(*g) + len);

    ASSERT(g != NULL);
    g->failure = (struct supply_failure){.tell = give_up_tell, .done = give_up_done};
    g->worker = s->site->worker;
    g->outcome = *outcome;
    g->context = (struct judge_context){.dest = s->site->dest,
                                        .site = str_of(s->site->name),
                                        .warmup.of[CONFIG_WARMUP_SOURCE] = c->warmup,
                                        .source_name = c->source->name,
                                        .sums = &c->governor->sums,
                                        .pool_name = s->pool->name};
    if (s->site->sts != NULL && s->site->sts->mode == STS_ENFORCE && !s->site->dane)
        g->context.tls = &sts_enforced;
    if (len != 0)
        g->context.peer_name = memcpy(g->host, exchanger->host, len);
    if (exchanger->len != 0) {
        peer_text(&exchanger->addr.sa, NULL, g->peer_addr);
        g->context.peer_addr = g->peer_addr;
    }
    supply_fail(s, &g->failure);
}

void sessions_give_up(struct channel *c, const struct outcome *outcome,
                      const struct exchanger *exchanger)
{
    channel_down(c);
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        struct supply *s = LIST_ENTRY(n, struct seat, channel_node)->supply;

        if (!supply_has_hope(s))
            give_up(s, c, outcome, exchanger);
    }
}

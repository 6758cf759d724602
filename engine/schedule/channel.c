#include "schedule/channel.h"

#include <errno.h>
#include <stdlib.h>

#include "limits/quiet.h"
#include "limits/retry.h"
#include "schedule/lane.h"
#include "schedule/rollup.h"
#include "tls/scram.h"
#include "worker/shared.h"

#define OPEN_AHEAD_MS  1000   /* of the leave that a session is opened for */
#define PROBE_LOOK_MS  1000   /* whether a probe that is under way has its answer */
#define ROUTES_LOOK_MS 10000  /* whether a site has its own route over a family that is lost */
#define QUIET_LOOK_MS  600000 /* the wall clock may be set meanwhile */
#define ALL_FAMILIES   (1 << SOURCE_IPV4 | 1 << SOURCE_IPV6)

static void on_channel_timer(struct timer *timer)
{
    channel_dirty(CONTAINER_OF(timer, struct channel, timer));
}

void channel_dirty(struct channel *c)
{
    if (!list_node_linked(&c->dirty_node))
        list_push_back(&c->site->worker->channels_dirty, &c->dirty_node);
}

void channel_wake(struct channel *c, uint64_t at_ms)
{
    wheel_arm_by(io_wheel(c->site->worker->io), &c->timer, at_ms);
}

/* Its provider is who runs the exchanger that comes first. */
static struct warmup_stream *warmup_of(const struct channel *c)
{
    const struct exchangers *x = &c->site->exchangers;

    if (c->site->lmtp || x->len == 0)
        return NULL;
    return warmup_stream_of(&c->site->worker->shared->warmup, c->site->config, c->source->name,
                            str_of(x->list[0].host));
}

static struct governor_limits limits_of(const struct site *site,
                                        const struct config_destination *dest)
{
    return (struct governor_limits){.sessions_max = dest->sessions_max,
                                    .rate_messages = dest->rate_messages,
                                    .rate_period_ms = dest->rate_period_ms,
                                    .rate_burst = dest->rate_burst,
                                    .recipients = limit_rate(&dest->recipient_rate),
                                    .bytes = limit_rate(&dest->byte_rate),
                                    .connects = limit_rate(&dest->connect_rate),
                                    .generation = site->config->generation};
}

static void rollup_set(struct channel *c, enum channel_limits which, struct rollup *r,
                       enum limit_kind kind, const struct config_destination *dest)
{
    c->rollups[which] = r;
    c->limits[which] = (struct limit){.entry = r->entry, .kind = kind, .dest = dest};
}

/* Of dest's sessions those that are not kept for urgent mail. */
static void bulk_set(struct channel *c, const struct config_destination *dest)
{
    const struct site *site = c->site;
    uint32_t kept =
        dest->urgent_sessions < dest->sessions_max ? dest->urgent_sessions : dest->sessions_max - 1;
    const struct governor_limits limits = {.sessions_max = dest->sessions_max - kept,
                                           .generation = site->config->generation};
    struct limit *bulk = &c->limits[CHANNEL_BULK];
    struct buf key = {0};

    if (kept == 0)
        return;
    buf_printf(&key, ":bulk|%s", c->source->name);
    buf_putc(&key, '\0');
    if (site->provider != NULL && dest == &site->provider->dest)
        rollup_set(c, CHANNEL_BULK,
                   rollup_get(site->worker, (const char *)key.data, site->provider->name, &limits),
                   LIMIT_BULK, dest);
    else
        *bulk = (struct limit){.entry = site_governor(site, (const char *)key.data, limits),
                               .kind = LIMIT_BULK,
                               .dest = dest};
    buf_done(&key);
}

/* What its source may send to all sites together. */
static void source_limits_set(struct channel *c)
{
    const struct config_source *of = c->source;
    struct governor_limits limits = {.sessions_max = of->sessions_max,
                                     .rate_messages = of->rate_messages,
                                     .rate_period_ms = of->rate_period_ms,
                                     .rate_burst = of->rate_burst,
                                     .recipients = limit_rate(&of->recipient_rate),
                                     .bytes = limit_rate(&of->byte_rate),
                                     .connects = limit_rate(&of->connect_rate),
                                     .generation = c->site->config->generation};

    if (!governor_limits_any(&limits))
        return;
    rollup_set(c, CHANNEL_SOURCE, rollup_get(c->site->worker, of->name, NULL, &limits),
               LIMIT_SOURCE, NULL);
    c->limits[CHANNEL_SOURCE].source = of;
}

static void limits_set(struct channel *c)
{
    const struct site *site = c->site;
    const struct config_destination *of = site->provider == NULL ? NULL : &site->provider->dest;
    struct governor_limits own = {0}, provider;

    if (site_is_limited(site))
        own = limits_of(site, site->dest);
    c->governor = site_governor(site, c->source->name, own);
    governor_name(site->worker->shared->governor, c->governor, c->source->name, site->name, false);
    c->limits[CHANNEL_OWN] =
        (struct limit){.entry = c->governor, .kind = LIMIT_RATE, .dest = site->dest};
    c->limits[CHANNEL_SITE] =
        (struct limit){.entry = site->total, .kind = LIMIT_TOTAL_RATE, .dest = site->dest};
    source_limits_set(c);
    bulk_set(c, site_is_limited(site) ? site->dest : of);
    if (of == NULL)
        return;
    provider = limits_of(site, of);
    rollup_set(c, CHANNEL_PROVIDER,
               rollup_get(site->worker, c->source->name, site->provider->name, &provider),
               LIMIT_RATE, of);
    governor_name(site->worker->shared->governor, c->rollups[CHANNEL_PROVIDER]->entry,
                  c->source->name, site->name, true);
    if (site->rollup != NULL) /* the site holds this one */
        rollup_set(c, CHANNEL_PROVIDER_TOTAL, site->rollup, LIMIT_TOTAL_RATE, of);
}

struct channel *channel_new(struct site *site, const struct config_source *source)
{
    struct channel *c = calloc(1, sizeof(*c));
    const struct config_destination *dest = site->dest;

    ASSERT(c != NULL);
    c->site = site;
    c->source = source;
    c->state = sources_get(&site->worker->shared->sources, source);
    limits_set(c);
    c->warmup = warmup_of(c);
    c->timer.on_timer = on_channel_timer;
    c->connecting_max = 1;
    c->usable = true;
    c->suspensions_changed = site->worker->suspensions_changed - 1;
    list_init(&c->seats);
    list_init(&c->sessions);
    list_init(&c->idle);
    list_init(&c->resting);
    /* A static route may well lead to another server of this host. */
    c->options = (struct smtp_client_options){
        .ehlo_name = source->ehlo_name,
        .own_names = site->target != NULL ? NULL : site->config->own_names,
        .lmtp = site->lmtp,
        .pipeline_max = (uint16_t)dest->pipeline_max,
        .pipeline_bytes_max = 1 << 20,
        .no_chunking = dest->no_chunking || site->no_chunking,
        .no_pipelining = dest->no_pipelining,
        .outputs = &site->worker->output_pool};
    if (site->target != NULL && site->target->credentials != NULL) {
        c->options.auth_user = site->target->credentials->user;
        c->options.auth_password = site->target->credentials->password;
        if (!scram_password_suits(c->options.auth_password))
            c->options.auth_not = SMTP_AUTH_SCRAM | SMTP_AUTH_SCRAM_PLUS;
    }
    list_push_back(&site->channels, &c->site_node);
    return c;
}

void channel_count_messages(struct channel *c)
{
    if (c->messages > 0)
        atomic_fetch_add_explicit(&c->state->shared.messages, c->messages, memory_order_relaxed);
    c->messages = 0;
}

void channel_free(struct channel *c)
{
    struct worker *w = c->site->worker;

    ASSERT(list_empty(&c->sessions) && list_empty(&c->idle) && list_empty(&c->resting));
    ASSERT(list_empty(&c->seats));
    channel_count_messages(c);
    wheel_cancel(io_wheel(w->io), &c->timer);
    if (list_node_linked(&c->dirty_node))
        list_remove(&c->dirty_node);
    rollup_leave(c);
    rollup_put(c->rollups[CHANNEL_PROVIDER]);
    rollup_put(c->rollups[CHANNEL_SOURCE]);
    if (c->rollups[CHANNEL_BULK] != NULL) {
        rollup_put(c->rollups[CHANNEL_BULK]);
    } else if (c->limits[CHANNEL_BULK].entry != NULL) {
        governor_session_withdraw(c->limits[CHANNEL_BULK].entry, w->index, 0);
        governor_put(w->shared->governor, c->limits[CHANNEL_BULK].entry, io_now_ns(w->io));
    }
    governor_session_withdraw(c->governor, w->index, 0);
    governor_put(w->shared->governor, c->governor, io_now_ns(w->io));
    free(c);
}

/* --- whether it may send --- */

/* When a channel that is stopped may be sent something: it gets one message to try, when its time
 * has come. 0: now; else when to look again (monotonic). */
static uint64_t stopped_ms(const struct channel *c)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io), stopped_ns;

    if (governor_may_send(c->governor, false, now_ns))
        return 0;
    stopped_ns = governor_stopped_ns(c->governor);
    return stopped_ns > now_ns ? stopped_ns / 1000000 + 1 : now_ns / 1000000 + PROBE_LOOK_MS;
}

/* Looks at the clocks again when what they said is over, or the wall clock was set back. */
const struct config_destination *channel_quiet(struct channel *c)
{
    const struct site *site = c->site;
    const struct config_destination *of[] = {
        site->dest, site->provider != NULL ? &site->provider->dest : site->dest};
    int64_t wall_ms, until_ms;

    if (of[0]->zone == NULL && of[1]->zone == NULL)
        return NULL;
    wall_ms = worker_wall_ms(site->worker);
    if (wall_ms >= c->quiet_since_ms && wall_ms < c->quiet_until_ms)
        return c->quiet;
    c->quiet = NULL;
    c->quiet_since_ms = wall_ms;
    c->quiet_until_ms = INT64_MAX;
    for (size_t i = 0; i < ARRAY_LEN(of); i++) {
        if (of[i]->zone == NULL)
            continue;
        if (quiet_at(of[i]->zone, of[i]->quiet_hours, wall_ms, &until_ms))
            c->quiet = of[i];
        if (until_ms < c->quiet_until_ms)
            c->quiet_until_ms = until_ms;
    }
    return c->quiet;
}

/* Its own limits. The site's limit over all sources is not among them: a channel that left the
 * turns for it would lose its turn to whichever channel came back first. A channel without a
 * session does not ask the limits that it shares with other sites either: when such a limit lets
 * one message go, all these sites, of which there may be many, would wake for it. */
int channel_limits_ask(const struct channel *c, struct limit_denial *why)
{
    size_t len = channel_has_session(c) ? CHANNEL_SOURCE + 1 : CHANNEL_OWN + 1;
    struct worker *w = c->site->worker;
    uint64_t now_ns = io_now_ns(w->io);
    int err = limits_ask(c->limits, len, now_ns, why);
    uint64_t warmup_ns = 0;

    if (c->warmup != NULL)
        warmup_ns = warmup_at(c->warmup, worker_wall_ms(w), now_ns);
    if (warmup_ns <= now_ns || (err < 0 && why->until_ns >= warmup_ns))
        return err;
    *why = (struct limit_denial){.kind = LIMIT_WARMUP, .until_ns = warmup_ns};
    return -EAGAIN;
}

bool channel_is_leased(const struct channel *c)
{
    struct worker *w = c->site->worker;

    return c->held.kind == LIMIT_WARMUP &&
           warmup_is_leased(c->warmup, worker_wall_ms(w), io_now_ns(w->io));
}

/* Brings the governor's entry up to date: what answers lowered its limits to, and how far the
 * source has come back behind a pause. Nobody tells channels of a new cap, so each looks before it
 * sends. */
void channel_caps_look(struct channel *c)
{
    struct worker *w = c->site->worker;
    struct suspensions *all = &w->shared->suspensions;
    struct governor_entry *told = channel_told(c);
    char at_site[SUSPENSION_NAME_MAX + 1];
    struct suspension one;
    struct governor_cap cap = {0};
    bool found;

    if (suspensions_caps_version(all) == c->caps_seen)
        return;
    suspension_name(at_site, str_of(c->source->name), str_of(c->site->name));
    found = suspensions_find_cap(all, SUSPENSION_SOURCE_CAP, str_of(at_site), &one, &c->caps_seen);
    if (found)
        cap = suspension_cap_of(&one);
    governor_cap(w->shared->governor, told, c->caps_seen, &cap,
                 found ? (int64_t)io_now_ns(w->io) - (worker_wall_ms(w) - one.since_ms) * 1000000
                       : 0,
                 io_now_ns(w->io));
    if (suspensions_find(all, SUSPENSION_SOURCE_RECOVERY, str_of(at_site), &one))
        governor_restore(told, one.cap.step_ms / 1000, one.cap.sessions);
}

bool channel_sessions_full(const struct channel *c, struct limit *out)
{
    const struct site *site = c->site;
    uint64_t now_ns = io_now_ns(site->worker->io);
    const struct exchanger *host;

    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->limits[i].entry != NULL && governor_sessions_full(c->limits[i].entry, now_ns)) {
            *out = c->limits[i];
            return true;
        }
    host = site->hosts_limited
               ? exchangers_full(&site->exchangers, channel_families(c), now_ns / 1000000)
               : NULL;
    if (host == NULL || !governor_sessions_full(host->limits, now_ns))
        return false;
    *out = (struct limit){.entry = host->limits, .kind = LIMIT_HOST, .dest = site->dest};
    return true;
}

uint64_t channel_open_at(const struct channel *c)
{
    uint64_t at_ns = limits_connect_at(c->limits, CHANNEL_LIMITS);
    uint64_t now_ns = io_now_ns(c->site->worker->io);

    for (size_t i = 0; i < CHANNEL_LIMITS; i++) {
        uint64_t one_ns = c->rollups[i] == NULL ? 0 : rollup_open_at(c->rollups[i], now_ns);

        at_ns = one_ns > at_ns ? one_ns : at_ns;
    }
    if (c->site->hosts_paced) {
        uint64_t hosts_ns =
            exchangers_open_at(&c->site->exchangers, channel_families(c), now_ns, NULL);

        at_ns = hosts_ns > at_ns ? hosts_ns : at_ns;
    }
    return at_ns;
}

struct governor_entry *channel_told(const struct channel *c)
{
    const struct rollup *provider = c->rollups[CHANNEL_PROVIDER];

    return provider != NULL ? provider->entry : c->governor;
}

bool channel_is_shared(const struct channel *c)
{
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (c->rollups[i] != NULL)
            return true;
    return false;
}

bool channel_is_lowered(const struct channel *c)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io);

    return governor_is_lowered(c->governor, now_ns) || governor_is_lowered(channel_told(c), now_ns);
}

/* What suspends the source at the site. */
static bool suspended_at_site(const struct site *site, const struct config_source *source,
                              struct suspension *out)
{
    const struct config_address *addresses[] = {&source->ipv4, &source->ipv6};
    struct suspensions *all = &site->worker->shared->suspensions;
    char name[SUSPENSION_NAME_MAX + 1];

    suspension_name(name, str_of(source->name), str_of(site->name));
    if (suspensions_find(all, SUSPENSION_SOURCE_SITE, str_of(name), out))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        suspension_netblock(name, addresses[i], str_of(site->name));
        if (name[0] != 0 && suspensions_find(all, SUSPENSION_NETBLOCK_SITE, str_of(name), out))
            return true;
    }
    return false;
}

bool channel_source_suspended(const struct site *site, const struct config_source *source,
                              struct suspension *out)
{
    struct suspensions *all = &site->worker->shared->suspensions;
    struct suspension one;

    if (out == NULL)
        out = &one;
    return suspensions_count(all) != 0 &&
           (suspensions_find(all, SUSPENSION_SOURCE, str_of(source->name), out) ||
            suspended_at_site(site, source, out));
}

/* The site asked for a pause of the source: what follows it begins with one session. Each look
 * within the pause says so anew, and none behind it, when sessions work. */
static void recovery_begin(const struct channel *c)
{
    struct suspension one;

    if (suspended_at_site(c->site, c->source, &one) && one.until_ms > one.since_ms)
        governor_recover(channel_told(c), (uint32_t)((one.until_ms - one.since_ms + 999) / 1000),
                         io_now_ns(c->site->worker->io));
}

static bool is_suspended(struct channel *c)
{
    struct worker *w = c->site->worker;

    if (c->suspensions_changed == w->suspensions_changed)
        return c->suspended;
    c->suspensions_changed = w->suspensions_changed;
    c->suspended = channel_source_suspended(c->site, c->source, NULL);
    if (c->suspended)
        recovery_begin(c);
    return c->suspended;
}

uint8_t channel_families_unrouted(const struct site *site, const struct config_source *source,
                                  const struct source *state)
{
    const struct exchangers *x = &site->exchangers;
    uint8_t unrouted = source_families_lost(state);

    for (uint16_t i = 0; i < x->len && unrouted != 0; i++) {
        const struct sockaddr *to = &x->list[i].addr.sa;
        int family = source_family(to->sa_family);

        if (family >= 0 && (unrouted & 1 << family) != 0 &&
            source_has_route(source, to, site->worker))
            unrouted &= (uint8_t) ~(1 << family);
    }
    return unrouted;
}

static void routes_look(struct channel *c)
{
    const struct worker *w = c->site->worker;
    uint32_t changed = atomic_load_explicit(&w->shared->sources.changed, memory_order_relaxed);
    uint64_t now_ms = io_now_ms(w->io);

    if (source_families_lost(c->state) == 0) {
        c->unrouted = 0;
        return;
    }
    if (c->routes_seen == changed && now_ms < c->routes_look_ms)
        return;
    c->routes_seen = changed;
    /* Of many sites not all in one turn. */
    c->routes_look_ms =
        now_ms + ROUTES_LOOK_MS / 2 + rng_below(&c->site->worker->rng, ROUTES_LOOK_MS);
    c->unrouted = channel_families_unrouted(c->site, c->source, c->state);
}

void channel_unrouted(struct channel *c)
{
    c->routes_look_ms = 0;
    (void)channel_look(c);
}

/* Whether it could send if limits and the receiver let it. */
static enum channel_shut unusable(struct channel *c, uint64_t *until_ms)
{
    uint8_t families;

    *until_ms = UINT64_MAX;
    if (is_suspended(c))
        return CHANNEL_SUSPENDED;
    routes_look(c);
    families = channel_families(c);
    if (families == ALL_FAMILIES)
        return CHANNEL_OPEN;
    if (exchangers_usable(&c->site->exchangers, families) > 0)
        return CHANNEL_OPEN;
    if (source_look_ns(c->state) != 0)
        *until_ms = source_look_ns(c->state) / 1000000 + 1;
    if (c->unrouted != 0 && c->routes_look_ms < *until_ms)
        *until_ms = c->routes_look_ms;
    return *until_ms == UINT64_MAX ? CHANNEL_FAMILY : CHANNEL_AWAY;
}

/* It waits for a limit (why), or for none (NULL). */
static void look_held(struct channel *c, const struct limit_denial *why)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io);

    ASSERT(c->held_ns <= now_ns && (why == NULL || why->kind != LIMIT_NONE));
    if (c->held.kind != LIMIT_NONE)
        site_count_held(c->site, &c->held, (now_ns - c->held_ns) / 1000000);
    c->held.kind = LIMIT_NONE;
    if (why != NULL)
        c->held = *why;
    c->held_ns = now_ns;
}

/* What shuts the channel beside its limits. */
static enum channel_shut shut_by_others(struct channel *c, uint64_t *until_ms)
{
    enum channel_shut shut = unusable(c, until_ms);
    uint64_t left_ms;

    if (shut != CHANNEL_OPEN)
        return shut;
    *until_ms = stopped_ms(c);
    if (*until_ms != 0)
        return CHANNEL_STOPPED;
    if (channel_quiet(c) == NULL)
        return CHANNEL_OPEN;
    left_ms = (uint64_t)(c->quiet_until_ms - worker_wall_ms(c->site->worker));
    *until_ms =
        io_now_ms(c->site->worker->io) + (left_ms < QUIET_LOOK_MS ? left_ms : QUIET_LOOK_MS);
    return CHANNEL_QUIET;
}

enum channel_shut channel_shut(struct channel *c, uint64_t *until_ms)
{
    uint64_t now_ms = io_now_ms(c->site->worker->io);
    enum channel_shut shut = shut_by_others(c, until_ms);
    struct limit_denial why;

    if (shut != CHANNEL_OPEN) {
        /* It does not wait for the limit now: channel_opens_ahead() must open no session for it. */
        if (c->held.kind != LIMIT_NONE)
            look_held(c, NULL);
        return shut;
    }
    channel_caps_look(c);
    if (channel_limits_ask(c, &why) < 0) {
        /* A channel that waits is out of the turns, so it says here, and nowhere else, that it
         * waits for warm-up. */
        warmup_doubt(&c->site->worker->shared->warmup, c->warmup, worker_wall_ms(c->site->worker),
                     io_now_ns(c->site->worker->io));
        look_held(c, &why);
        *until_ms = (why.until_ns + 999999) / 1000000;
        return CHANNEL_LIMIT;
    }
    if (c->held.kind != LIMIT_NONE)
        look_held(c, NULL);
    if (!channel_has_session(c)) {
        *until_ms = c->shortage_until_ms;
        if (*until_ms > now_ms)
            return CHANNEL_SHORTAGE;
        *until_ms = c->open_after_ms;
        if (*until_ms > now_ms)
            return CHANNEL_REFUSED;
    }
    *until_ms = c->busy_until_ms;
    if (*until_ms > now_ms && list_empty(&c->idle))
        return CHANNEL_BUSY;
    *until_ms = 0;
    return CHANNEL_OPEN;
}

uint64_t channel_leave_ms(const struct channel *c)
{
    uint64_t soonest_ms = UINT64_MAX, at_ms;

    if (c->held.kind != LIMIT_NONE)
        return channel_has_mail(c) ? c->held.until_ns / 1000000 + 1 : 0;
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        const struct seat *seat = LIST_ENTRY(n, struct seat, channel_node);
        const struct feed *feed = &seat->supply->feed;

        if (supply_next(seat->supply) != seat || (feed_empty(feed) && list_empty(&feed->held)))
            continue;
        at_ms = feed_empty(feed) ? feed->held_ns / 1000000 + 1 : site_waits_until_ms(c->site);
        soonest_ms = at_ms < soonest_ms ? at_ms : soonest_ms;
    }
    return soonest_ms == UINT64_MAX ? 0 : soonest_ms;
}

/* The channel can send again, or cannot: mail that is bound to a source may move. */
static void set_usable(struct channel *c, bool usable)
{
    if (c->usable == usable)
        return;
    c->usable = usable;
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        struct supply *s = LIST_ENTRY(n, struct seat, channel_node)->supply;

        if (s->bound != 0) {
            s->suspensions_changed = c->site->worker->suspensions_changed - 1; /* look anew */
            supply_dirty(s);
        }
    }
}

/* Claims what its rate gives next for its most urgent mail, before mail of a worse priority of
 * other workers and sites. */
static void claim(const struct channel *c)
{
    uint8_t best = FLOW_PRIORITIES;

    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        const struct seat *seat = LIST_ENTRY(n, struct seat, channel_node);
        const struct feed *feed = &seat->supply->feed;

        if (!seat->unbound && !feed_empty(feed) && feed_priority(feed) < best)
            best = feed_priority(feed);
    }
    if (best < FLOW_PRIORITIES && c->held.entry != NULL && channel_has_session(c))
        governor_claim(c->held.entry, site_who(c->site), best, io_now_ns(c->site->worker->io));
}

/* When a channel that is shut looks again. One that waits for a limit and has no session looks
 * earlier, to open one ahead: channel_opens_ahead(). */
static uint64_t look_ms(const struct channel *c, enum channel_shut shut, uint64_t until_ms)
{
    uint64_t now_ms = io_now_ms(c->site->worker->io);

    return shut == CHANNEL_LIMIT && c->sessions_len == 0 && until_ms > now_ms + OPEN_AHEAD_MS
               ? until_ms - OPEN_AHEAD_MS
               : until_ms;
}

bool channel_look(struct channel *c)
{
    uint64_t until_ms;
    enum channel_shut shut = channel_shut(c, &until_ms);

    set_usable(c, !channel_shut_is_source(shut));
    if (shut == CHANNEL_LIMIT)
        claim(c);
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        struct seat *seat = LIST_ENTRY(n, struct seat, channel_node);
        bool in = shut == CHANNEL_OPEN && !seat->unbound;
        bool overflow_news = seat_note_shut(seat, shut);

        if (in == turn_in(&seat->turn) && !overflow_news)
            continue;
        seat_set(seat, in);
        if (seat->supply->parked_ms != 0 ||
            ((seat->supply->seats_len > 1 || channel_shut_is_source(shut)) &&
             !feed_empty(&seat->supply->feed)))
            supply_dirty(seat->supply); /* its mail may go or park, or it is another's turn now */
    }
    if (shut != CHANNEL_OPEN && until_ms != UINT64_MAX)
        channel_wake(c, look_ms(c, shut, until_ms));
    return shut == CHANNEL_OPEN;
}

bool channel_opens_ahead(const struct channel *c)
{
    if (c->held.kind == LIMIT_NONE || c->sessions_len > 0 ||
        c->held.until_ns / 1000000 > io_now_ms(c->site->worker->io) + OPEN_AHEAD_MS)
        return false;
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n)) {
        const struct seat *seat = LIST_ENTRY(n, struct seat, channel_node);

        if (!seat->unbound && !feed_empty(&seat->supply->feed) &&
            seat->supply->waiting >= seat->supply->seats_len)
            return true;
    }
    return false;
}

/* --- whether it works --- */

void channel_is_busy(struct channel *c)
{
    c->busy_until_ms = io_now_ms(c->site->worker->io) + CHANNEL_SLOW_MS;
    (void)channel_look(c);
}

void channel_is_free(struct channel *c)
{
    c->free_ms = io_now_ms(c->site->worker->io);
    if (c->busy_until_ms == 0)
        return;
    c->busy_until_ms = 0;
    (void)channel_look(c);
}

void channel_down(struct channel *c)
{
    c->ups_seen = governor_ups(c->governor);
    c->down = true;
    (void)channel_look(c);
}

void channel_works(struct channel *c)
{
    bool news = governor_run_ends(c->governor) || c->down;

    if (news) {
        governor_up(c->governor);
        channel_dirty(c);
    }
    c->down = false;
    for (struct list_node *n = list_first(&c->seats); n != NULL; n = list_next(&c->seats, n))
        supply_resume(LIST_ENTRY(n, struct seat, channel_node)->supply);
}

bool channel_run_counts(struct channel *c, uint64_t begun_ms, uint32_t run_max)
{
    struct worker *w = c->site->worker;
    uint64_t pause_ms_max = (uint64_t)retry_delay_ms(c->site->dest, 1, &w->rng);
    bool stopped = governor_run_counts(c->governor, begun_ms * 1000000, io_now_ns(w->io), run_max,
                                       pause_ms_max);

    if (stopped) {
        (void)channel_look(c);
        channel_dirty(c);
    }
    return stopped;
}

#include "schedule/channel.h"

#include <errno.h>
#include <stdlib.h>

#include "limits/quiet.h"
#include "limits/retry.h"
#include "schedule/flow_lower.h"
#include "schedule/flow_split.h"
#include "schedule/flow_warmup.h"
#include "schedule/lane.h"
#include "schedule/rollup.h"
#include "tls/scram.h"
#include "worker/shared.h"

#define OPEN_AHEAD_MS 1000 /* of the leave that a session is opened for */
#define PROBE_LOOK_MS 1000 /* whether a probe that is under way has its answer */
#define HEADS_MAX     16   /* other lanes looked at for recipients of the same message */
#define SPLITS_MAX    64   /* recipients that go over to another flow, in a take */
/* A channel tells its source, where all see it, of the messages that it took when there are so many
 * of them, or when no more wait. */
#define COUNTED_MAX    64
#define ASIDE_LOOKED   64     /* shares of which the session may have nothing, in a take */
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

/* Brings the governor's entry up to date: what answers lowered its limits to, and how far the
 * source has come back behind a pause. Nobody tells channels of a new cap, so each looks before it
 * sends. */
static void caps_look(struct channel *c)
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

    caps_look(c);
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
    c->routes_look_ms = now_ms + ROUTES_LOOK_MS;
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
    caps_look(c);
    if (channel_limits_ask(c, &why) < 0) {
        /* A channel that waits is out of the turns, so it says here, and nowhere else, that it
         * waits for warm-up. */
        warmup_doubt(&c->site->worker->shared->warmup, c->warmup, worker_wall_ms(c->site->worker),
                     io_now_ns(c->site->worker->io));
        look_held(c, &why);
        *until_ms = why.until_ns / 1000000 + 1;
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

        if (in == turn_in(&seat->turn))
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

/* --- handing out work --- */

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

/* What was set aside for this session is there for the others, and for it in a while. */
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
    may_give_back(c, session, lane, &taken.warmup, (uint32_t)(max - taken.len));
    feed_pay_more(&s->feed, lane, taken.len - 1);
    for (size_t i = 0; i < taken.len; i++)
        supply_pace(s, supply_bytes_of(out[i]));
    if (s->hungry_bands != 0)
        supply_dirty(s);
    channel_pay(c, seat);
    return taken;
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

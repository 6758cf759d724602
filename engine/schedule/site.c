#include "schedule/site.h"

#include <stdlib.h>

#include "limits/retry.h"
#include "schedule/lane.h"
#include "worker/shared.h"

#define DOWN_LOOK_MS   1000        /* whether another worker found that the site works again */
#define PARK_MS        3000        /* mail does not wait in memory while a longer pause lasts */
#define CLOSED_MS      1000        /* a site that cannot send for longer holds nothing ready */
#define HELD_MIN_BYTES (64u << 10) /* what a site that has sent nothing yet may hold */
#define HUNGRY_FED     32          /* lanes that get their turn at a time */
#define HUNGRY_LOOK_MS 100
#define HEADS_MAX      16 /* other lanes looked at for recipients of the same message */

static void on_site_timer(struct timer *timer)
{
    site_dirty(CONTAINER_OF(timer, struct site, timer));
}

/* --- making and finding --- */

/* The site's name in records, status and patterns. It has the port, for another port is another
 * server. */
static char *site_name(const struct config *config, const struct config_route *target,
                       const struct dns_route *route)
{
    struct buf name = {0};

    buf_puts(&name, route != NULL ? route->site_name : target->socket.text);
    if (route != NULL && target != NULL && target->port != config->dns.port)
        buf_printf(&name, ":%u", target->port);
    buf_putc(&name, '\0');
    return (char *)name.data;
}

/* A site is of one configuration: after a reload newcomers get a new one, the old one runs dry. */
static struct site *site_find(struct worker *w, struct str key, uint64_t hash)
{
    for (struct map_node *n = map_find(&w->sites, hash); n != NULL; n = map_find_next(n)) {
        struct site *site = CONTAINER_OF(n, struct site, node);

        if (site->config == w->config && str_eq(str_of(site->key), key))
            return site;
    }
    return NULL;
}

static void site_configure(struct site *site, struct config *config,
                           const struct config_destination *dest, const struct config_route *target)
{
    struct worker *w = site->worker;
    struct governor_limits limits = {.sessions_max = dest->sessions_max,
                                     .rate_messages = dest->rate_messages,
                                     .rate_period_ms = dest->rate_period_ms,
                                     .generation = config->generation};

    site->config = config_ref(config);
    site->dest = dest;
    site->governor =
        governor_get(w->shared->governor, str_of(site->key), &limits, io_now_ns(w->io));
    ASSERT(site->governor != NULL);
    /* A static route may well lead to another server of this host. */
    site->options =
        (struct smtp_client_options){.ehlo_name = config->source.ehlo_name,
                                     .own_names = target != NULL ? NULL : config->own_names,
                                     .lmtp = site->lmtp,
                                     .pipeline_max = (uint16_t)dest->pipeline_max,
                                     .pipeline_bytes_max = 1 << 20,
                                     .no_chunking = dest->no_chunking,
                                     .no_pipelining = dest->no_pipelining,
                                     .outputs = &w->output_pool};
    if (target != NULL && target->credentials != NULL) {
        site->options.auth_user = target->credentials->user;
        site->options.auth_password = target->credentials->password;
    }
}

struct site *site_get(struct worker *w, struct str domain, const struct config_route *target,
                      struct dns_route *route)
{
    char *name = site_name(w->config, target, route);
    const struct config_destination *dest = config_destination_for(w->config, domain, str_of(name));
    uint16_t port = target != NULL ? target->port : w->config->dns.port;
    struct buf key = {0};
    struct site *site;
    uint64_t hash;

    /* One set of exchangers (or one static route) under one set of limits: domains with limits of
     * their own get sessions of their own. */
    buf_printf(&key, "%s|%s", dest->pattern, name);
    if (target != NULL && target->credentials != NULL) /* the same host without AUTH is another */
        buf_puts(&key, "|auth");
    hash = hash_bytes(key.data, key.len, w->hash_seed);
    site = site_find(w, buf_str(&key), hash);
    if (site != NULL) {
        if (route != NULL && site->exchangers.route != route)
            exchangers_of_route(&site->exchangers, route, port);
        buf_done(&key);
        free(name);
        return site;
    }
    site = calloc(1, sizeof(*site));
    ASSERT(site != NULL);
    site->worker = w;
    buf_putc(&key, '\0');
    site->key = (char *)key.data;
    site->name = name;
    site->lmtp = target != NULL && target->kind == CONFIG_ROUTE_LMTP;
    list_init(&site->attached);
    feed_init(&site->feed);
    for (int i = 0; i < FLOW_PRIORITIES; i++)
        list_init(&site->hungry[i]);
    list_init(&site->sessions);
    list_init(&site->idle);
    site->timer.on_timer = on_site_timer;
    site->connecting_max = 1;
    site->exchangers.families = &w->families;
    site->rotate = (uint16_t)rng_below(&w->rng, 1 << 15);
    site_configure(site, w->config, dest, target);
    if (route != NULL)
        exchangers_of_route(&site->exchangers, route, port);
    else
        exchangers_of_socket(&site->exchangers, &target->socket);
    map_insert(&w->sites, &site->node, hash);
    gauge_set(&w->counters.sites, (uint32_t)w->sites.count);
    return site;
}

void site_left(struct site *site)
{
    if (site->lanes == 0 && site->sessions_len == 0 && !list_node_linked(&site->dead_node))
        list_push_back(&site->worker->sites_dead, &site->dead_node);
}

/* The hungry lanes that come first, or NULL. */
static struct list *hungry_band(struct site *site)
{
    while (site->hungry_bands != 0) {
        int band = __builtin_ctz(site->hungry_bands);

        if (!list_empty(&site->hungry[band]))
            return &site->hungry[band];
        site->hungry_bands &= (uint16_t)(site->hungry_bands - 1); /* its lanes have left */
    }
    return NULL;
}

void site_hungers(struct site *site, struct lane *lane)
{
    uint8_t band = lane_priority(lane);

    list_push_back(&site->hungry[band], &lane->wait_node);
    site->hungry_bands |= (uint16_t)(1u << band);
}

static void site_free(struct site *site)
{
    struct worker *w = site->worker;

    ASSERT(feed_empty(&site->feed) && list_empty(&site->sessions) && site->waiting == 0);
    ASSERT(hungry_band(site) == NULL && site->held == 0 && site->loading == 0);
    map_remove(&w->sites, &site->node);
    gauge_set(&w->counters.sites, (uint32_t)w->sites.count);
    wheel_cancel(io_wheel(w->io), &site->timer);
    if (list_node_linked(&site->dirty_node))
        list_remove(&site->dirty_node);
    governor_session_withdraw(site->governor, w->index, 0);
    governor_put(w->shared->governor, site->governor, io_now_ns(w->io));
    exchangers_done(&site->exchangers);
    feed_done(&site->feed);
    config_unref(site->config);
    free(site->name);
    free(site->key);
    free(site);
}

void site_reap(struct worker *w)
{
    struct list_node *n;

    while ((n = list_pop_front(&w->sites_dead)) != NULL) {
        struct site *site = LIST_ENTRY(n, struct site, dead_node);

        if (site->lanes == 0 && site->sessions_len == 0)
            site_free(site);
    }
}

void site_attach(struct site *site, struct lane *lane)
{
    lane->site = site;
    list_push_back(&site->attached, &lane->site_node);
    site->lanes++;
    site->waiting += lane->window_len;
    site->held += lane->window_bytes;
    lane_suspensions_look(lane);
}

void site_detach(struct site *site, struct lane *lane)
{
    ASSERT(lane->site == site);
    feed_remove(&site->feed, lane);
    list_remove(&lane->site_node);
    lane->site = NULL;
    site->lanes--;
    site->waiting -= lane->window_len;
    site->held -= lane->window_bytes;
    lane_load_leave(lane, site);
    if (site->lanes == 0) /* its idle sessions have nothing to wait for */
        site_dirty(site);
    site_left(site);
}

/* --- handing out work --- */

void site_dirty(struct site *site)
{
    if (!list_node_linked(&site->dirty_node))
        list_push_back(&site->worker->sites_dirty, &site->dirty_node);
}

void site_wake(struct site *site, uint64_t at_ms)
{
    if (!timer_armed(&site->timer) || site->timer.due_ms > at_ms)
        wheel_arm(io_wheel(site->worker->io), &site->timer, at_ms);
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

uint64_t site_stopped_ms(const struct site *site, bool take)
{
    uint64_t now_ns = io_now_ns(site->worker->io), stopped_ns;

    if (governor_may_send(site->governor, take, now_ns))
        return 0;
    stopped_ns = governor_stopped_ns(site->governor);
    return stopped_ns > now_ns ? stopped_ns / 1000000 + 1 : now_ns / 1000000 + DOWN_LOOK_MS;
}

/* Takes the limits' leave for one message. 0: it is given; else when it may be (monotonic, ms). */
static uint64_t leave_ms(struct site *site)
{
    uint64_t again_ms = site_stopped_ms(site, false), again_ns;

    if (again_ms != 0)
        return again_ms;
    again_ns = governor_message_take(site->governor, io_now_ns(site->worker->io), 1);
    if (again_ns != 0)
        return again_ns / 1000000 + 1;
    return site_stopped_ms(site, true);
}

/* The recipients that are taken next were written a while ago, perhaps by another thread, and are
 * in no cache. Each take fetches one step for each of them: the third lane, the second one's
 * recipient, the first one's message (a drain of a thousand lanes: 3.5 -> 3.1 us of the worker's
 * own code a message). */
static void prefetch_next(struct site *site)
{
    struct lane *lane = feed_next(&site->feed);
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

static void pace_add(struct site *site, uint64_t bytes)
{
    uint64_t now_s = io_now_ms(site->worker->io) / 1000;

    if (now_s != site->pace_s) {
        site->pace[1] = now_s == site->pace_s + 1 ? site->pace[0] : 0;
        site->pace[0] = 0;
        site->pace_s = now_s;
    }
    site->pace[0] += bytes;
}

struct site_taken site_take(struct site *site, struct recipient **out, size_t max,
                            uint32_t domains_max)
{
    struct site_taken taken = {0};
    struct recipient *r;
    struct lane *lane;

    /* A suspended lane is in the feed while the walk over lanes has not come to it: it gives its
     * window back here. */
    while ((lane = feed_next(&site->feed)) != NULL && lane_suspended(lane))
        lane_update(lane);
    if (lane == NULL)
        return taken;
    r = lane_peek(lane);
    ASSERT(r != NULL && max > 0);
    taken.expired = lane_expired(r, worker_wall_ms(site->worker));
    if (taken.expired) {
        out[taken.len++] = lane_pop(lane);
        return taken;
    }
    taken.again_ms = leave_ms(site);
    if (taken.again_ms != 0)
        return taken;
    feed_turn(&site->feed, lane);
    out[0] = lane_pop(lane);
    taken.len = take_same(lane, r->message, out, 1, max);
    prefetch_next(site);
    if (r->message->recipients > taken.len)
        taken.len = take_heads(&site->feed, lane, r->message, out, taken.len, max, domains_max);
    feed_pay_more(&site->feed, lane, taken.len - 1);
    for (size_t i = 0; i < taken.len; i++)
        pace_add(site, site_bytes_of(out[i]));
    if (site->hungry_bands != 0)
        site_dirty(site);
    return taken;
}

/* --- memory --- */

/* When the site may send something again: monotonic, now or in the past where it may at once. */
static uint64_t closed_until_ms(const struct site *site)
{
    uint64_t until_ms = site_stopped_ms(site, false);
    uint64_t rate_ms = governor_message_at(site->governor) / 1000000;

    until_ms = rate_ms > until_ms ? rate_ms : until_ms;
    if (site_has_session(site)) /* what keeps further ones from opening does not matter */
        return until_ms;
    until_ms = site->shortage_until_ms > until_ms ? site->shortage_until_ms : until_ms;
    return site->open_after_ms > until_ms ? site->open_after_ms : until_ms;
}

/* Whether the site cannot send for a while. What may go within CLOSED_MS is held ready. */
static bool is_closed(const struct site *site)
{
    return closed_until_ms(site) > io_now_ms(site->worker->io) + CLOSED_MS;
}

static uint64_t budget_bytes(const struct site *site)
{
    uint64_t now_s = io_now_ms(site->worker->io) / 1000;

    /* A message to try is enough where nothing gets through. */
    if ((site->failures > 0 && !site_has_session(site)) || governor_stopped_ns(site->governor) != 0)
        return 1;
    if (now_s == site->pace_s)
        return HELD_MIN_BYTES + 2 * (site->pace[0] + site->pace[1]);
    return HELD_MIN_BYTES + (now_s == site->pace_s + 1 ? 2 * site->pace[0] : 0);
}

bool site_has_room(const struct site *site)
{
    if (!lane_memory_tight(site->worker))
        return true;
    return !is_closed(site) && site->held + site->loading < budget_bytes(site);
}

bool site_holds_too_much(const struct site *site)
{
    return lane_memory_tight(site->worker) &&
           (is_closed(site) ||
            (site->held > HELD_MIN_BYTES && site->held > 2 * budget_bytes(site)));
}

uint64_t site_room_bytes(const struct site *site)
{
    uint64_t used = site->held + site->loading, budget;

    if (!lane_memory_tight(site->worker))
        return UINT64_MAX;
    budget = budget_bytes(site);
    return used < budget ? budget - used : 1;
}

void site_feed_hungry(struct site *site)
{
    uint64_t now_ms = io_now_ms(site->worker->io), at_ms;
    struct list *band;

    /* Only so many at a time: each takes its part of the room when its load begins, at the turn's
     * end. */
    for (int i = 0; i < HUNGRY_FED && site_has_room(site) && (band = hungry_band(site)) != NULL;
         i++)
        list_push_back(&site->worker->load_wait, list_pop_front(band));
    if (hungry_band(site) == NULL)
        return;
    at_ms = closed_until_ms(site);
    site_wake(site, at_ms > now_ms + HUNGRY_LOOK_MS ? at_ms : now_ms + HUNGRY_LOOK_MS);
}

/* --- whether it works --- */

/* The site works again: its lanes go on, except recipients that were tried and have times of their
 * own. */
static void site_resume(struct site *site)
{
    struct list_node *n, *next;

    if (!site->down)
        return;
    site->down = false;
    for (n = list_first(&site->attached); n != NULL; n = next) {
        struct lane *lane = LIST_ENTRY(n, struct lane, site_node);

        next = list_next(&site->attached, n);
        if (lane->state == LANE_SITE_DOWN)
            lane_resume(lane);
    }
}

/* Watches a site that did not answer: whichever worker finds that it answers again, lanes of all
 * workers go on. */
static void site_watch(struct site *site)
{
    if (governor_ups(site->governor) != site->ups_seen)
        site_resume(site);
    else
        site_wake(site, io_now_ms(site->worker->io) + DOWN_LOOK_MS);
}

void site_down(struct site *site)
{
    if (!site->down)
        site->ups_seen = governor_ups(site->governor);
    site->down = true;
    site_wake(site, io_now_ms(site->worker->io) + DOWN_LOOK_MS);
}

/* In a long pause mail waits in the store: there it takes no memory and expires in time. */
static void site_park(struct site *site)
{
    uint64_t until_ms = governor_stopped_ns(site->governor) / 1000000 + 1;
    struct lane *lane;

    if (until_ms <= io_now_ms(site->worker->io) + PARK_MS)
        return;
    site_down(site);
    while ((lane = feed_next(&site->feed)) != NULL) {
        lane_pause(lane, until_ms); /* leaves the feed with its window */
    }
}

void site_look(struct site *site)
{
    if (site->down)
        site_watch(site);
    site_park(site);
}

void site_works(struct site *site)
{
    if (governor_run_ends(site->governor) || site->down) {
        governor_up(site->governor);
        site_dirty(site);
    }
    site_resume(site);
}

bool site_run_counts(struct site *site, uint64_t begun_ms, uint32_t run_max)
{
    struct worker *w = site->worker;
    uint64_t pause_ms_max = (uint64_t)retry_delay_ms(site->dest, 1, &w->rng);
    bool stopped = governor_run_counts(site->governor, begun_ms * 1000000, io_now_ns(w->io),
                                       run_max, pause_ms_max);

    if (stopped)
        site_dirty(site);
    return stopped;
}

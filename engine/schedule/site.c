#include "schedule/site.h"

#include <stdlib.h>

#include "base/log.h"
#include "deliver/delivery.h"
#include "deliver/idle.h"
#include "limits/retry.h"
#include "outcome/judge.h"
#include "schedule/lane.h"
#include "worker/peer_text.h"
#include "worker/shared.h"

#define SLOT_RETRY_MS   20 /* asking the governor again for a session slot */
#define GIVE_WAY_MS     (3 * SLOT_RETRY_MS)
#define REFUSED_MS      1000 /* until the next connection; doubled with each in a row that fails */
#define REFUSED_MAX     6
#define DOWN_LOOK_MS    1000    /* whether another worker found that the site works again */
#define SHORTAGE_SAY_MS 60000   /* without one until the log has it again */
#define SHORTAGE_MS     1000    /* until it is looked whether this host has again what it lacked */
#define PARK_MS         3000    /* of a pause that is longer mail does not wait in memory */
#define LIMIT_MS        3600000 /* how long a learnt number of messages per session is believed */
#define HEADS_MAX       16      /* other lanes looked at for recipients of the same message */

static void on_site_timer(struct timer *timer)
{
    site_dirty(CONTAINER_OF(timer, struct site, timer));
}

/* --- making and finding --- */

/* What records, status and patterns call it: at another port is another server. */
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
                           const struct config_destination *dest, bool is_static)
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
    site->options = (struct smtp_client_options){.ehlo_name = config->source.ehlo_name,
                                                 .own_names = is_static ? NULL : config->own_names,
                                                 .lmtp = site->lmtp,
                                                 .pipeline_max = (uint16_t)dest->pipeline_max,
                                                 .pipeline_bytes_max = 1 << 20,
                                                 .no_chunking = dest->no_chunking,
                                                 .no_pipelining = dest->no_pipelining,
                                                 .outputs = &w->output_pool};
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
    list_init(&site->sessions);
    list_init(&site->idle);
    site->timer.on_timer = on_site_timer;
    site->connecting_max = 1;
    site->exchangers.families = &w->families;
    site->rotate = (uint16_t)rng_below(&w->rng, 1 << 15);
    site_configure(site, w->config, dest, target != NULL);
    if (route != NULL)
        exchangers_of_route(&site->exchangers, route, port);
    else
        exchangers_of_socket(&site->exchangers, &target->socket);
    map_insert(&w->sites, &site->node, hash);
    gauge_set(&w->counters.sites, (uint32_t)w->sites.count);
    return site;
}

/* Nobody may be attached and no session left: see site_reap(). */
static void site_maybe_dead(struct site *site)
{
    if (site->lanes == 0 && site->sessions_len == 0 && !list_node_linked(&site->dead_node))
        list_push_back(&site->worker->sites_dead, &site->dead_node);
}

static void site_free(struct site *site)
{
    struct worker *w = site->worker;

    ASSERT(feed_empty(&site->feed) && list_empty(&site->sessions) && site->waiting == 0);
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
}

void site_detach(struct site *site, struct lane *lane)
{
    ASSERT(lane->site == site);
    feed_remove(&site->feed, lane);
    list_remove(&lane->site_node);
    lane->site = NULL;
    site->lanes--;
    site->waiting -= lane->window_len;
    if (site->lanes == 0) { /* its idle sessions have nothing to wait for */
        struct list_node *n, *next;

        for (n = list_first(&site->idle); n != NULL; n = next) {
            next = list_next(&site->idle, n);
            delivery_quit(LIST_ENTRY(n, struct delivery, idle_node));
        }
    }
    site_maybe_dead(site);
}

/* --- handing out work --- */

void site_dirty(struct site *site)
{
    if (!list_node_linked(&site->dirty_node))
        list_push_back(&site->worker->sites_dirty, &site->dirty_node);
}

/* Looks at the site at at_ms, or earlier. */
static void site_wake(struct site *site, uint64_t at_ms)
{
    if (!timer_armed(&site->timer) || site->timer.due_ms > at_ms)
        wheel_arm(io_wheel(site->worker->io), &site->timer, at_ms);
}

static void expire(struct site *site, struct recipient *r)
{
    struct judge_context context = {.dest = site->dest, .site = str_of(site->name)};

    judge_expired(site->worker, &context, r);
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
        len = take_same(lane, m, out, len, max);
        domains += len != before;
        lane = next;
    }
    return len;
}

static bool rate_allows(struct site *site)
{
    struct io *io = site->worker->io;
    uint64_t at_ns = governor_message_take(site->governor, io_now_ns(io), 1);

    if (at_ns == 0)
        return true;
    site_wake(site, at_ns / 1000000 + 1);
    return false;
}

/* A destination that is stopped gets one message to try, when its time has come. take: this one. */
static bool stop_allows(struct site *site, bool take)
{
    uint64_t now_ns = io_now_ns(site->worker->io), stopped_ns;

    if (governor_may_send(site->governor, take, now_ns))
        return true;
    stopped_ns = governor_stopped_ns(site->governor);
    site_wake(site,
              (stopped_ns > now_ns ? stopped_ns / 1000000 + 1 : now_ns / 1000000 + DOWN_LOOK_MS));
    return false;
}

/* What is taken next was written a while ago, perhaps by another thread, and is in no cache. Each
 * take brings it a step nearer: the third lane, the second one's recipient, the first one's
 * message (a drain of a thousand lanes: 3.5 -> 3.1 us of the worker's own code a message). */
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

size_t site_take(struct site *site, struct recipient **out, size_t max, uint32_t domains_max)
{
    struct lane *lane;

    while ((lane = feed_next(&site->feed)) != NULL) {
        struct recipient *r = lane_peek(lane);
        size_t len;

        ASSERT(r != NULL);
        if (lane_expired(r, worker_wall_ms(site->worker))) {
            expire(site, lane_pop(lane));
            continue;
        }
        if (!stop_allows(site, false) || !rate_allows(site) || !stop_allows(site, true))
            return 0;
        feed_turn(&site->feed, lane);
        out[0] = lane_pop(lane);
        len = take_same(lane, r->message, out, 1, max);
        prefetch_next(site);
        if (r->message->recipients > len)
            len = take_heads(&site->feed, lane, r->message, out, len, max, domains_max);
        feed_pay_more(&site->feed, lane, len - 1);
        return len;
    }
    return 0;
}

/* How many more sessions are wanted now. A new destination starts with one connection and may have
 * as many connecting as are already up, so the count doubles each time connections succeed; never
 * more than there are recipients waiting for one. */
static uint32_t sessions_wanted(const struct site *site)
{
    uint32_t up = site->sessions_len - site->connecting;
    uint32_t connecting_max = up < 1 ? 1 : up;
    uint32_t wanted;

    if (connecting_max > site->connecting_max)
        connecting_max = site->connecting_max;
    if (site->connecting >= connecting_max || site->waiting <= site->connecting)
        return 0;
    wanted = connecting_max - site->connecting;
    if (wanted > site->waiting - site->connecting)
        wanted = site->waiting - site->connecting;
    return wanted;
}

/* A session that another site has without work, to the address that would be connected to. Its slot
 * there is given back, ours is taken. */
static bool site_take_over(struct site *site)
{
    struct worker *w = site->worker;
    struct exchanger_turn turn = {
        .now_ms = io_now_ms(w->io), .offset = site->rotate, .down = site->down};
    int at = exchangers_next(&site->exchangers, &turn);
    const struct exchanger *to = &site->exchangers.list[at];
    struct delivery *d = idle_find(site, to);

    if (d == NULL)
        return false;
    dial_rename(&d->dial, to->host);
    idle_leave(d);
    governor_session_works(d->site->governor, false);
    governor_session_works(site->governor, true);
    smtp_client_use_options(d->client, &site->options);
    site_session_ended(d->site, d);
    d->site = site;
    site_session_begun(site, d);
    idle_enter(d);
    site->rotate++;
    delivery_work(d);
    return true;
}

static void site_open_sessions(struct site *site)
{
    struct worker *w = site->worker;
    uint64_t now_ms = io_now_ms(w->io), now_ns = io_now_ns(w->io);
    uint64_t allowed_ns = governor_message_at(site->governor);

    if (!stop_allows(site, false))
        return;
    if (now_ms < site->shortage_until_ms) {
        site_wake(site, site->shortage_until_ms);
        return;
    }
    if (now_ms < site->open_after_ms) {
        site_wake(site, site->open_after_ms);
        return;
    }
    if (allowed_ns > now_ns) { /* a session would have to wait, and end idle */
        site_wake(site, allowed_ns / 1000000 + 1);
        return;
    }
    for (uint32_t n = sessions_wanted(site); n > 0; n--) {
        /* One that would have to yield at once is not worth a connection. */
        if (governor_should_yield(site->governor, w->index, site->sessions_len + 1, 0, now_ns) ||
            now_ms < site->give_way_until_ms ||
            !governor_session_take(site->governor, w->index, now_ns)) {
            site_wake(site, now_ms + SLOT_RETRY_MS);
            return;
        }
        if (!site_take_over(site) &&
            !delivery_open(site)) { /* out of descriptors or memory: later */
            governor_session_give(site->governor);
            site_wake(site, now_ms + 1000);
            return;
        }
    }
}

/* It works again: what waits for it goes on, except recipients that were tried and have times of
 * their own. */
static void site_resume(struct site *site)
{
    struct list_node *n, *next;

    if (!site->down)
        return;
    site->down = false;
    for (n = list_first(&site->attached); n != NULL; n = next) {
        struct lane *lane = LIST_ENTRY(n, struct lane, site_node);

        next = list_next(&site->attached, n);
        if (lane->site_down)
            lane_resume(lane);
    }
}

/* The site did not answer: whichever worker finds that it does again, all go on. */
static void site_watch(struct site *site)
{
    if (governor_ups(site->governor) != site->ups_seen)
        site_resume(site);
    else
        site_wake(site, io_now_ms(site->worker->io) + DOWN_LOOK_MS);
}

/* In a long pause mail waits in the store: there it takes no memory and expires in time. */
static void site_park(struct site *site)
{
    uint64_t until_ms = governor_stopped_ns(site->governor) / 1000000 + 1;
    struct lane *lane;

    if (until_ms <= io_now_ms(site->worker->io) + PARK_MS)
        return;
    if (!site->down)
        site->ups_seen = governor_ups(site->governor);
    site->down = true;
    site_wake(site, io_now_ms(site->worker->io) + DOWN_LOOK_MS);
    while ((lane = feed_next(&site->feed)) != NULL) {
        lane->site_down = true;
        lane_pause(lane, until_ms); /* leaves the feed with its window */
    }
}

static void site_dispatch(struct site *site)
{
    struct list_node *n;

    if (site->worker->draining)
        return;
    if (site->down)
        site_watch(site);
    site_park(site);
    while (!feed_empty(&site->feed) && (n = list_first(&site->idle)) != NULL) {
        struct delivery *d = LIST_ENTRY(n, struct delivery, idle_node);

        if (!delivery_work(d) && list_node_linked(&d->idle_node))
            break; /* the rate says wait */
    }
    if (feed_empty(&site->feed))
        governor_session_withdraw(site->governor, site->worker->index, site->sessions_len);
    else
        site_open_sessions(site);
}

void site_dispatch_all(struct worker *w)
{
    struct list_node *n;

    while ((n = list_pop_front(&w->sites_dirty)) != NULL)
        site_dispatch(LIST_ENTRY(n, struct site, dirty_node));
}

/* --- sessions --- */

void site_session_begun(struct site *site, struct delivery *d)
{
    list_push_back(&site->sessions, &d->site_node);
    site->sessions_len++;
}

void site_session_works(struct site *site)
{
    if (site->connecting_max < UINT32_MAX)
        site->connecting_max++;
    site->failures = 0;
    site->open_after_ms = 0;
}

void site_shortage(struct site *site, int err)
{
    uint64_t now_ms = io_now_ms(site->worker->io);

    if (site->shortage_until_ms == 0 || site->shortage_until_ms + SHORTAGE_SAY_MS < now_ms)
        log_warn("delivery.shortage",
                 "site=%s error=\"%s\" action=\"it waits; see System in the manual\"", site->name,
                 strerror(-err));
    site->shortage_until_ms = now_ms + SHORTAGE_MS;
    site_wake(site, site->shortage_until_ms);
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

/* Twice at the same number is no chance. */
void site_session_limit(struct site *site, uint32_t messages)
{
    if (site->messages_max > messages)
        site->messages_max = 0;
    if (site->messages_last == messages) {
        site->messages_max = messages;
        site->messages_until_ms = io_now_ms(site->worker->io) + LIMIT_MS;
    }
    site->messages_last = messages;
}

uint32_t site_messages_max(const struct site *site)
{
    if (site->messages_max == 0 || site->messages_until_ms < io_now_ms(site->worker->io))
        return UINT32_MAX;
    return site->messages_max;
}

void site_refused(struct site *site)
{
    struct worker *w = site->worker;
    int64_t wait_ms = (int64_t)REFUSED_MS << site->failures;
    int64_t retry_ms;

    if (site->failures < REFUSED_MAX)
        site->failures++;
    retry_ms = retry_delay_ms(site->dest, site->failures, &w->rng);
    site->connecting_max = 1;
    site->open_after_ms = io_now_ms(w->io) + (uint64_t)(retry_ms < wait_ms ? retry_ms : wait_ms);
}

void site_session_ended(struct site *site, struct delivery *d)
{
    list_remove(&d->site_node);
    site->sessions_len--;
    governor_session_give(site->governor);
    if (site->sessions_len == 0 && feed_empty(&site->feed))
        governor_session_withdraw(site->governor, site->worker->index, 0);
    /* We would hear of the free slot first, and take it again. */
    if (governor_contended(site->governor, site->worker->index))
        site->give_way_until_ms = io_now_ms(site->worker->io) + GIVE_WAY_MS;
    site_maybe_dead(site);
    if (!feed_empty(&site->feed))
        site_dirty(site);
}

void site_failed(struct site *site, const struct outcome *outcome,
                 const struct exchanger *exchanger)
{
    struct worker *w = site->worker;
    char peer_addr[PEER_TEXT_BYTES];
    struct judge_context context = {.dest = site->dest,
                                    .site = str_of(site->name),
                                    .peer_name = exchanger->host,
                                    .peer_addr = exchanger->len == 0 ? NULL : peer_addr};
    struct lane *lane;

    peer_text(&exchanger->addr.sa, NULL, peer_addr);
    site->down = true;
    site->ups_seen = governor_ups(site->governor);
    site_wake(site, io_now_ms(w->io) + DOWN_LOOK_MS);
    while ((lane = feed_next(&site->feed)) != NULL) {
        struct recipient *r;

        while ((r = lane_pop(lane)) != NULL) {
            if (lane_expired(r, worker_wall_ms(w)))
                judge_expired(w, &context, r);
            else
                judge_one(w, &context, r, outcome);
            if (outcome->class != OUTCOME_FAILED) {
                lane_suspend(lane, site->dest, &outcome->reply, exchanger->host);
                lane->site_down = true;
            }
        }
    }
}

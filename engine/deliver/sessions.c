#include "deliver/sessions.h"

#include "base/log.h"
#include "deliver/idle.h"
#include "limits/retry.h"
#include "outcome/judge.h"
#include "schedule/lane.h"
#include "worker/peer_text.h"

#define SLOT_RETRY_MS   20 /* asking the governor again for a session slot */
#define GIVE_WAY_MS     (3 * SLOT_RETRY_MS)
#define MEMORY_RETRY_MS 1000 /* opening again where descriptors or memory were short */
#define REFUSED_MS      1000 /* until the next connection; doubled with each in a row that fails */
#define REFUSED_MAX     6
#define SHORTAGE_SAY_MS 60000   /* after so long without a shortage the log names the next one */
#define SHORTAGE_MS     1000    /* until it is looked whether this host has again what it lacked */
#define LIMIT_MS        3600000 /* how long a learnt number of messages per session is believed */

/* --- handing out work --- */

size_t sessions_take(struct site *site, struct recipient **out, size_t max, uint32_t domains_max)
{
    for (;;) {
        struct site_taken taken = site_take(site, out, max, domains_max);

        if (taken.again_ms != 0)
            site_wake(site, taken.again_ms);
        if (!taken.expired)
            return taken.len;
        judge_expired(out[0]);
    }
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

/* Takes over a session that another site has without work, to the address that this site would
 * connect to. The session's slot there is given back, one of this site is taken. */
static bool take_over(struct site *site)
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
    sessions_ended(d->site, d);
    d->site = site;
    sessions_begun(site, d);
    idle_enter(d);
    site->rotate++;
    delivery_work(d);
    return true;
}

static void open_sessions(struct site *site)
{
    struct worker *w = site->worker;
    uint64_t now_ms = io_now_ms(w->io), now_ns = io_now_ns(w->io);
    uint64_t allowed_ns = governor_message_at(site->governor);
    uint64_t stopped_ms = site_stopped_ms(site, false);

    if (stopped_ms != 0) {
        site_wake(site, stopped_ms);
        return;
    }
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
        /* A session that would have to yield at once is not worth a connection. */
        if (governor_should_yield(site->governor, w->index, site->sessions_len + 1, 0, now_ns) ||
            now_ms < site->give_way_until_ms ||
            !governor_session_take(site->governor, w->index, now_ns)) {
            site_wake(site, now_ms + SLOT_RETRY_MS);
            return;
        }
        if (!take_over(site) && !delivery_open(site)) { /* out of descriptors or memory: later */
            governor_session_give(site->governor);
            site_wake(site, now_ms + MEMORY_RETRY_MS);
            return;
        }
    }
}

static void dispatch(struct site *site)
{
    struct list_node *n;

    if (site->worker->draining)
        return;
    site_look(site);
    site_feed_hungry(site);
    while (site->lanes == 0 && (n = list_first(&site->idle)) != NULL)
        delivery_quit(LIST_ENTRY(n, struct delivery, idle_node));
    while (!feed_empty(&site->feed) && (n = list_first(&site->idle)) != NULL) {
        struct delivery *d = LIST_ENTRY(n, struct delivery, idle_node);

        if (!delivery_work(d) && list_node_linked(&d->idle_node))
            break; /* the rate says wait */
    }
    if (feed_empty(&site->feed))
        governor_session_withdraw(site->governor, site->worker->index, site->sessions_len);
    else
        open_sessions(site);
}

void sessions_dispatch_all(struct worker *w)
{
    struct list_node *n;

    while ((n = list_pop_front(&w->sites_dirty)) != NULL)
        dispatch(LIST_ENTRY(n, struct site, dirty_node));
}

/* --- what becomes of them --- */

void sessions_begun(struct site *site, struct delivery *d)
{
    list_push_back(&site->sessions, &d->site_node);
    site->sessions_len++;
}

void sessions_works(struct site *site)
{
    if (site->connecting_max < UINT32_MAX)
        site->connecting_max++;
    site->failures = 0;
    site->open_after_ms = 0;
}

void sessions_shortage(struct site *site, int err)
{
    uint64_t now_ms = io_now_ms(site->worker->io);

    if (site->shortage_until_ms == 0 || site->shortage_until_ms + SHORTAGE_SAY_MS < now_ms)
        log_warn("delivery.shortage",
                 "site=%s error=\"%s\" action=\"it waits; see System in the manual\"", site->name,
                 strerror(-err));
    site->shortage_until_ms = now_ms + SHORTAGE_MS;
    site_wake(site, site->shortage_until_ms);
}

/* Two sessions that end at the same number of messages show a limit: it is no chance where the
 * second began behind the end of the first. A peer that restarts ends all its sessions at once,
 * most of them at the same number. */
void sessions_limit_seen(struct site *site, const struct delivery *d)
{
    uint64_t now_ms = io_now_ms(site->worker->io);

    if (site->messages_max > d->completed)
        site->messages_max = 0;
    if (site->messages_last != d->completed) {
        site->messages_last = d->completed;
        site->messages_last_ms = now_ms;
    } else if (d->started_ms >= site->messages_last_ms) {
        site->messages_max = d->completed;
        site->messages_until_ms = now_ms + LIMIT_MS;
    }
}

uint32_t sessions_messages_max(const struct site *site)
{
    if (site->messages_max == 0 || site->messages_until_ms < io_now_ms(site->worker->io))
        return UINT32_MAX;
    return site->messages_max;
}

void sessions_space_out(struct site *site)
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

void sessions_ended(struct site *site, struct delivery *d)
{
    list_remove(&d->site_node);
    site->sessions_len--;
    governor_session_give(site->governor);
    if (site->sessions_len == 0 && feed_empty(&site->feed))
        governor_session_withdraw(site->governor, site->worker->index, 0);
    /* Another worker wants a slot. Without a pause this worker, which sees the freed slot first,
     * would take it again. */
    if (governor_contended(site->governor, site->worker->index))
        site->give_way_until_ms = io_now_ms(site->worker->io) + GIVE_WAY_MS;
    site_left(site);
    if (!feed_empty(&site->feed))
        site_dirty(site);
}

void sessions_give_up(struct site *site, const struct outcome *outcome,
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
    site->ups_seen = governor_ups(site->governor);
    site_down(site);
    while ((lane = feed_next(&site->feed)) != NULL) {
        struct recipient *r;

        while ((r = lane_pop(lane)) != NULL) {
            if (lane_expired(r, worker_wall_ms(w)))
                judge_expired(r);
            else
                judge_one(w, &context, r, outcome);
            if (outcome->class != OUTCOME_FAILED) {
                lane_suspend(lane, LANE_SITE_DOWN, site->dest, &outcome->reply, exchanger->host);
            }
        }
    }
}

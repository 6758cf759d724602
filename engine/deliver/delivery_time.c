/* How long a session is waited for: see delivery_private.h. */
#include "deliver/delivery_private.h"

#include <errno.h>

#include "deliver/idle.h"
#include "deliver/sessions.h"
#include "schedule/rollup.h"
#include "worker/shared.h"

#define IDLE_LOOK_MS   250   /* an idle session whose slot others want is kept so long */
#define LEAVE_KEEP_MS  30000 /* a session whose channel waits for leave outlives `idle` by it */
#define HOST_SLICE_MS  2000  /* a session lasts so long where another worker lacks one */
#define IDLE_KEEP_MS   1000  /* a worker keeps idle sessions of its fair share so long */
#define DRAIN_QUIT_MS  1000  /* a drain does not wait long for 221 */
#define ORPHAN_MS      30000 /* so long an answer is waited for once our address has gone */
#define ORPHAN_LOOK_MS 1000
#define ROUTES_PER_MS  20 /* a look at a session's route takes some 5 us */
/* How often content under way is looked at in the shorter of the times `body` and `dot`, and what
 * the peer must take of it in that time: 360 bytes a second with the default. A peer that takes
 * less is as good as stuck. */
#define BODY_LOOKS     4
#define BODY_BYTES_MIN 65536

static uint32_t stage_timeout_ms(const struct delivery *d)
{
    const struct config_destination *dest = d->site->dest;

    if (d->state == DELIVERY_CONNECTING || d->state == DELIVERY_PROXYING)
        return dest->connect_timeout_ms;
    if (d->state == DELIVERY_HANDSHAKE)
        return dest->tls_timeout_ms;
    if (d->state == DELIVERY_QUITTING) /* also before QUIT is sent */
        return d->worker->draining ? DRAIN_QUIT_MS : dest->quit_timeout_ms;
    if (d->greeted && d->state == DELIVERY_GREETING) /* until the turn's end */
        return dest->ehlo_timeout_ms;
    switch (smtp_client_stage(d->client)) {
    case SMTP_STAGE_CONNECT:
    case SMTP_STAGE_BANNER:
        return dest->banner_timeout_ms;
    case SMTP_STAGE_EHLO:
    case SMTP_STAGE_HELO:
    case SMTP_STAGE_AUTH:
        return dest->ehlo_timeout_ms;
    case SMTP_STAGE_STARTTLS:
        return dest->tls_timeout_ms;
    case SMTP_STAGE_READY: /* the turn's end finds work, or that there is none */
        return list_node_linked(&d->idle_node) ? dest->idle_ms : dest->mail_timeout_ms;
    case SMTP_STAGE_MAIL:
    case SMTP_STAGE_RSET:
        return dest->mail_timeout_ms;
    case SMTP_STAGE_RCPT:
        return dest->rcpt_timeout_ms;
    case SMTP_STAGE_DATA:
        return dest->data_timeout_ms;
    case SMTP_STAGE_BODY: /* while content is on its way watch_body() says what holds */
        return dest->dot_timeout_ms;
    case SMTP_STAGE_QUIT:
    case SMTP_STAGES:
        break;
    }
    return dest->quit_timeout_ms;
}

static bool in_body(const struct delivery *d)
{
    return d->state == DELIVERY_OPEN && smtp_client_stage(d->client) == SMTP_STAGE_BODY;
}

static uint64_t body_look_ms(const struct delivery *d)
{
    const struct config_destination *dest = d->site->dest;
    uint32_t period_ms =
        dest->body_timeout_ms < dest->dot_timeout_ms ? dest->body_timeout_ms : dest->dot_timeout_ms;

    return io_now_ms(d->worker->io) + period_ms / BODY_LOOKS;
}

/* Begins the watch with the last event. Only stages that last are looked at: a swift peer costs
 * none. */
static void watch_body_anew(struct delivery *d)
{
    d->body = (struct body_watch){.since_ms = io_now_ms(d->worker->io), .look_ms = body_look_ms(d)};
}

/* RFC 5321 4.5.3.2.5: as long as the peer takes content it may be slow. The end of a send says only
 * that the kernel took it, which may hold megabytes; so while content is with us or the kernel,
 * `body` is the time for the next BODY_BYTES_MIN of it, or the rest, and `dot` begins when the peer
 * has all. */
static void watch_body(struct delivery *d)
{
    const struct config_destination *dest = d->site->dest;
    uint64_t now_ms = io_now_ms(d->worker->io);
    struct body_watch *b = &d->body;
    struct io_progress p;
    bool left;

    stream_progress(&d->stream, &p);
    left = stream_sending(&d->stream) || p.left_bytes > 0;
    if (b->looked && (p.taken_bytes - b->taken_bytes >= BODY_BYTES_MIN || (b->left && !left))) {
        b->since_ms = now_ms;
        b->taken_bytes = p.taken_bytes;
    } else if (!b->looked) {
        b->taken_bytes = p.taken_bytes;
    }
    b->looked = true;
    b->left = left;
    b->look_ms = body_look_ms(d);
    d->deadline_ms = b->since_ms + (left ? dest->body_timeout_ms : dest->dot_timeout_ms);
}

static uint64_t next_look_ms(const struct delivery *d)
{
    uint64_t look_ms = d->deadline_ms;

    if (list_node_linked(&d->idle_node) &&
        (d->worker->shared->workers_len > 1 || channel_is_shared(d->channel)))
        look_ms = io_now_ms(d->worker->io) + IDLE_LOOK_MS;
    else if (in_body(d))
        look_ms = d->body.look_ms;
    if (list_node_linked(&d->idle_node) && idle_rests(d) &&
        d->session.rests_ns / 1000000 + 1 < look_ms)
        look_ms = d->session.rests_ns / 1000000 + 1;
    return look_ms < d->deadline_ms ? look_ms : d->deadline_ms;
}

void delivery_arm_timer(struct delivery *d)
{
    struct io *io = d->worker->io;

    d->deadline_ms = io_now_ms(io) + stage_timeout_ms(d);
    if (in_body(d))
        watch_body_anew(d);
    /* Mostly the deadline moves to later. The timer is left as it is then, and looks again when it
     * fires. */
    wheel_arm_by(io_wheel(io), &d->timer, next_look_ms(d));
}

bool delivery_over_share(const struct delivery *d, uint64_t held_ms)
{
    return sessions_over_share(d->channel, d->session.urgent, 0, held_ms) ||
           (held_ms >= HOST_SLICE_MS && dial_is_pressed(&d->dial, d->worker));
}

/* Whether others lack the slot that this idle session holds without work for it: another site of
 * the provider, or another worker. Mail comes in bursts: a worker that gave its share away in each
 * pause would ask for it again with the next burst. */
static bool idle_is_wanted(const struct delivery *d)
{
    uint64_t since_ms = d->idle_ms, now_ms = io_now_ms(d->worker->io);

    /* Other sites of the provider do not wait for a rate, or for this source's turn, to end. */
    if (rollup_presses(d->channel) && !channel_has_work(d->channel))
        return now_ms >= since_ms + IDLE_LOOK_MS;
    /* This worker's mail for the session waits for other sources, whose turn it is; the other
     * worker's mail waits for the session. */
    if (delivery_over_share(d, now_ms - d->connected_ms))
        return true;
    if (channel_has_mail(d->channel) ||
        (!sessions_contended(d->channel) && !dial_is_pressed(&d->dial, d->worker)))
        return false;
    return now_ms >= since_ms + IDLE_KEEP_MS || delivery_over_share(d, UINT64_MAX);
}

/* A session that ended while its channel waits for a rate would be opened anew for the next
 * message, and each leave of the rate would be used late. It stays, if leave comes soon enough. */
static bool waits_for_leave(struct delivery *d)
{
    uint64_t until_ms = !idle_rests(d)                 ? channel_leave_ms(d->channel)
                        : channel_has_mail(d->channel) ? d->session.rests_ns / 1000000 + 1
                                                       : 0;

    if (until_ms <= io_now_ms(d->worker->io) || sessions_exhausted(d->worker->shared) ||
        until_ms > d->idle_ms + d->site->dest->idle_ms + LEAVE_KEEP_MS)
        return false;
    d->deadline_ms = until_ms + IDLE_LOOK_MS;
    return true;
}

/* For how long the session's own address has not been this machine's, or it has had no route to the
 * peer. 0: neither. Nothing that it says arrives then, or no answer does. */
static uint64_t orphaned_ms(const struct delivery *d)
{
    sa_family_t family = d->dial.exchanger.addr.sa.sa_family;
    int64_t gone_ms;

    if (d->unrouted_ms != 0)
        return io_now_ms(d->worker->io) - d->unrouted_ms + 1;
    if (source_address(d->channel->source, family) == NULL ||
        source_away_ns(d->channel->state, (enum source_part)source_family(family)) == 0)
        return 0;
    gone_ms = worker_wall_ms(d->worker) -
              source_since_ms(d->channel->state, (enum source_part)source_family(family));
    return gone_ms > 0 ? (uint64_t)gone_ms : 1;
}

/* Whether the messages in doubt are still in our kernel: over IPv4 it keeps what it is given once
 * the address has gone. Such messages never leave, as the connection is reset then. */
static bool has_not_left(const struct delivery *d)
{
    return stream_kept_from(&d->stream, d->doubt_bytes);
}

/* Whether some route of this machine still leads to the peer, or does again. */
static void route_look(struct delivery *d)
{
    uint64_t now_ms = io_now_ms(d->worker->io);

    if (!d->route_news && d->unrouted_ms == 0)
        return;
    d->route_news = false;
    if (source_has_route(d->channel->source, &d->dial.exchanger.addr.sa, d->worker))
        d->unrouted_ms = 0;
    else if (d->unrouted_ms == 0)
        d->unrouted_ms = now_ms;
}

/* Ends a session whose address or route has gone. A message that the peer may have taken would be
 * sent twice: its answer still comes if the address is back soon. */
static bool orphan_ends(struct delivery *d)
{
    uint64_t gone_ms;

    route_look(d);
    gone_ms = orphaned_ms(d);
    if (gone_ms == 0)
        return false;
    if (smtp_client_in_doubt(d->client)) {
        if (has_not_left(d))
            smtp_client_unsent(d->client);
        else if (gone_ms < ORPHAN_MS)
            return false;
    }
    d->orphaned = true;
    delivery_advance(d, EVENT_LOST, NULL, d->unrouted_ms != 0 ? -ENETUNREACH : -EADDRNOTAVAIL);
    return true;
}

/* Only sessions that are up: a connect without a route fails by itself, and whoever looks at a
 * proxy hears of that proxy's route. */
static bool may_lose_route(const struct delivery *d)
{
    return (d->state == DELIVERY_OPEN || d->state == DELIVERY_GREETING) &&
           source_family(d->dial.exchanger.addr.sa.sa_family) >= 0 &&
           config_source_proxy(d->channel->source) == NULL;
}

void deliveries_look_sources(struct worker *w)
{
    const struct sources *all = &w->shared->sources;
    uint32_t changed = atomic_load_explicit(&all->changed, memory_order_relaxed);
    uint32_t routes = atomic_load_explicit(&all->routes_changed, memory_order_relaxed), n = 0;
    uint64_t now_ms = io_now_ms(w->io);

    if (w->sources_changed == changed && w->routes_changed == routes)
        return;
    for (struct list_node *at = list_first(&w->deliveries_all); at != NULL;
         at = list_next(&w->deliveries_all, at)) {
        struct delivery *d = LIST_ENTRY(at, struct delivery, all_node);

        if (d->state != DELIVERY_CLOSING && orphaned_ms(d) != 0) {
            wheel_arm_by(io_wheel(w->io), &d->timer, now_ms);
        } else if (w->routes_changed != routes && may_lose_route(d)) {
            d->route_news = true;
            wheel_arm_by(io_wheel(w->io), &d->timer, now_ms + n++ / ROUTES_PER_MS);
        }
    }
    w->sources_changed = changed;
    w->routes_changed = routes;
}

static void rearm_timer(struct delivery *d)
{
    uint64_t look_ms = next_look_ms(d), soon_ms = io_now_ms(d->worker->io) + ORPHAN_LOOK_MS;

    if (soon_ms < look_ms && orphaned_ms(d) != 0)
        look_ms = soon_ms;
    wheel_arm(io_wheel(d->worker->io), &d->timer, look_ms);
}

void delivery_on_timer(struct timer *timer)
{
    struct delivery *d = CONTAINER_OF(timer, struct delivery, timer);
    struct io *io = d->worker->io;

    if (orphan_ends(d))
        return;
    if (list_node_linked(&d->idle_node) && idle_rests(d) && io_now_ns(io) >= d->session.rests_ns) {
        idle_wake(d);
        channel_is_free(d->channel);
        channel_dirty(d->channel);
    }
    if (list_node_linked(&d->idle_node) &&
        ((io_now_ms(io) >= d->deadline_ms && !waits_for_leave(d)) || idle_is_wanted(d))) {
        /* The turn's end, when work is handed out, may be yet to come. */
        if (!delivery_work(d) && list_node_linked(&d->idle_node))
            delivery_quit(d);
        return;
    }
    if (in_body(d))
        watch_body(d);
    if (io_now_ms(io) < d->deadline_ms)
        rearm_timer(d);
    else
        delivery_advance(d, EVENT_TIMEOUT, NULL, -ETIMEDOUT);
}

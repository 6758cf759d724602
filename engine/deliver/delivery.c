#include "deliver/delivery.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "deliver/dialogue.h"
#include "deliver/idle.h"
#include "deliver/letters.h"
#include "deliver/login.h"
#include "deliver/proxying.h"
#include "deliver/recipes.h"
#include "deliver/sessions.h"
#include "deliver/transaction.h"
#include "dns/name.h"
#include "limits/retry.h"
#include "outcome/classify.h"
#include "outcome/policy.h"
#include "outcome/rule_act.h"
#include "schedule/lane.h"
#include "schedule/rollup.h"
#include "worker/shared.h"

#define PIPELINE_MS        1000  /* a transaction that takes longer gets no second one behind it */
#define IDLE_LOOK_MS       250   /* whether another worker wants an idle session's slot */
#define LEAVE_KEEP_MS      30000 /* beyond `idle`: of a session whose channel waits for its leave */
#define HOST_SLICE_MS      2000  /* of a session at a host where another worker lacks one */
#define IDLE_KEEP_MS       1000  /* so long a worker keeps idle sessions of its fair share */
#define LOGIN_COMPLAINT_MS 60000
#define DRAIN_QUIT_MS      1000 /* a drain does not wait long for 221 */
/* How often content under way is looked at in the shorter of the times `body` and `dot`, and what
 * the peer must take of it in that time: 360 bytes a second with the default. A peer that takes
 * less is as good as stuck. */
#define BODY_LOOKS     4
#define BODY_BYTES_MIN 65536
#define UNSENT_MAX     64 /* transactions of a turn that end without having been sent */

enum delivery_event {
    EVENT_CONNECTED,
    EVENT_SECURED,
    EVENT_DATA,
    EVENT_SENT,
    EVENT_LOST,
    EVENT_TIMEOUT
};

static void delivery_advance(struct delivery *d, enum delivery_event event, const uint8_t *data,
                             int result);

/* Which states may follow a state, and what a session waits for in it. The protocol's own states
 * are smtp_client's. */
static const struct delivery_row {
    const char *name;
    uint32_t next; /* bit per state */
} delivery_table[DELIVERY_STATES] = {
    [DELIVERY_CONNECTING] = {"connecting", 1 << DELIVERY_PROXYING | 1 << DELIVERY_GREETING |
                                               1 << DELIVERY_CLOSING},
    [DELIVERY_PROXYING] = {"proxying", 1 << DELIVERY_GREETING | 1 << DELIVERY_CLOSING},
    [DELIVERY_GREETING] = {"greeting",
                           1 << DELIVERY_HANDSHAKE | 1 << DELIVERY_OPEN | 1 << DELIVERY_CLOSING},
    [DELIVERY_HANDSHAKE] = {"handshake", 1 << DELIVERY_GREETING | 1 << DELIVERY_CLOSING},
    [DELIVERY_OPEN] = {"open", 1 << DELIVERY_QUITTING | 1 << DELIVERY_CLOSING},
    [DELIVERY_QUITTING] = {"quitting", 1 << DELIVERY_CLOSING},
    [DELIVERY_CLOSING] = {"closing", 1 << DELIVERY_CONNECTING},
};

const char *delivery_state_name(enum delivery_state state)
{
    return delivery_table[state].name;
}

static void set_state(struct delivery *d, enum delivery_state state)
{
    ASSERT((delivery_table[d->state].next & 1u << state) != 0);
    log_debug("delivery.state", "session=%s from=%s to=%s", d->id, delivery_table[d->state].name,
              delivery_table[state].name);
    if (state == DELIVERY_OPEN || d->state == DELIVERY_OPEN)
        governor_session_works(d->channel->governor, state == DELIVERY_OPEN);
    d->state = state;
}

/* No session yet. */
static bool is_setup(const struct delivery *d)
{
    return d->state < DELIVERY_OPEN;
}

static void mark_dirty(struct delivery *d)
{
    ASSERT(d->state != DELIVERY_CLOSING); /* then the node is among the dead */
    if (!list_node_linked(&d->dirty_node))
        list_push_back(&d->worker->deliveries_dirty, &d->dirty_node);
}

void delivery_letter_ready(struct delivery *d)
{
    mark_dirty(d);
}

/* Whether the session has nothing to do. */
static bool is_empty(const struct delivery *d)
{
    return smtp_client_in_flight(d->client) == 0 && d->letters_len == 0;
}

/* --- time --- */

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
    return look_ms < d->deadline_ms ? look_ms : d->deadline_ms;
}

static void arm_timer(struct delivery *d)
{
    struct io *io = d->worker->io;

    d->deadline_ms = io_now_ms(io) + stage_timeout_ms(d);
    if (in_body(d))
        watch_body_anew(d);
    /* Usually the deadline only moves out: the timer then finds out when it fires. */
    wheel_arm_by(io_wheel(io), &d->timer, next_look_ms(d));
}

static bool sessions_exhausted(const struct shared *all)
{
    return atomic_load_explicit(&all->sessions_out, memory_order_relaxed) >= all->sessions_out_max;
}

static bool over_share(const struct delivery *d, uint64_t held_ms)
{
    return sessions_over_share(d->channel, 0, held_ms) ||
           (held_ms >= HOST_SLICE_MS && dial_is_pressed(&d->dial, d->worker));
}

/* Whether others lack the slot that this idle session holds without work for it: another site of
 * the provider, or another worker. Mail comes in bursts: a worker whose share goes with each pause
 * asks for it again with the next burst. */
static bool idle_is_wanted(const struct delivery *d)
{
    uint64_t since_ms = d->idle_ms;

    /* Other sites of the provider do not wait for a rate, or for this source's turn, to end. */
    if (rollup_presses(d->channel) && !channel_has_work(d->channel))
        return io_now_ms(d->worker->io) >= since_ms + IDLE_LOOK_MS;
    if (channel_has_mail(d->channel) ||
        (!sessions_contended(d->channel) && !dial_is_pressed(&d->dial, d->worker)))
        return false;
    return io_now_ms(d->worker->io) >= since_ms + IDLE_KEEP_MS || over_share(d, UINT64_MAX);
}

/* A session that ended while its channel waits for a rate would be opened anew for the next
 * message, and the leave be used late each time: it stays, if that comes soon enough. */
static bool waits_for_leave(struct delivery *d)
{
    uint64_t until_ms = channel_leave_ms(d->channel);

    if (until_ms <= io_now_ms(d->worker->io) || sessions_exhausted(d->worker->shared) ||
        until_ms > d->idle_ms + d->site->dest->idle_ms + LEAVE_KEEP_MS)
        return false;
    d->deadline_ms = until_ms + IDLE_LOOK_MS;
    return true;
}

static void rearm_timer(struct delivery *d)
{
    wheel_arm(io_wheel(d->worker->io), &d->timer, next_look_ms(d));
}

static void on_timer(struct timer *timer)
{
    struct delivery *d = CONTAINER_OF(timer, struct delivery, timer);
    struct io *io = d->worker->io;

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

/* --- work --- */

/* Where descriptors are short a session without work makes way for other destinations. */
static void delivery_idle(struct delivery *d)
{
    if (d->state != DELIVERY_OPEN || !is_empty(d) || list_node_linked(&d->idle_node))
        return;
    if (d->yielding || d->worker->draining || d->site->lanes == 0 ||
        (!channel_has_mail(d->channel) &&
         (sessions_exhausted(d->worker->shared) || rollup_presses(d->channel)))) {
        delivery_quit(d);
        return;
    }
    ASSERT(!d->yielding && d->letters_len == 0);
    idle_enter(d);
    d->idle_ms = io_now_ms(d->worker->io);
    arm_timer(d);
}

/* 0: no limit. */
static uint32_t at_most(uint32_t max, uint32_t limit)
{
    return limit != 0 && limit < max ? limit : max;
}

static uint32_t messages_max(const struct delivery *d)
{
    uint32_t max = at_most(UINT32_MAX, d->site->dest->session_messages_max);
    uint32_t peer = smtp_client_mail_max(d->client);

    if (d->site->provider != NULL)
        max = at_most(max, d->site->provider->dest.session_messages_max);
    if (peer != 0 && peer < max)
        max = peer;
    peer = sessions_messages_max(d->channel);
    if (peer < max)
        max = peer;
    peer = governor_session_messages(channel_told(d->channel), io_now_ns(d->worker->io));
    return peer < max ? peer : max;
}

/* The site counts those that yield: until they are closed they hold their slots, and a share that
 * only they exceed is no reason for others to go too. */
static void set_yielding(struct delivery *d, bool yielding)
{
    if (d->yielding == yielding)
        return;
    ASSERT(yielding || d->channel->yielding > 0);
    d->yielding = yielding;
    sessions_yields(d->channel, yielding);
    ASSERT(d->channel->yielding <= d->channel->sessions_len);
}

void delivery_retire(struct delivery *d, bool one_less)
{
    if (one_less && !d->yielding)
        governor_step_down(channel_told(d->channel), io_now_ns(d->worker->io));
    set_yielding(d, true);
    letters_take_back(d);
    if (list_node_linked(&d->idle_node))
        delivery_quit(d);
}

static size_t recipients_max(const struct delivery *d)
{
    uint32_t max = at_most(DELIVERY_RCPTS_MAX, d->site->dest->recipients_max);
    uint32_t peer = smtp_client_rcpt_max(d->client);

    if (d->site->provider != NULL)
        max = at_most(max, d->site->provider->dest.recipients_max);
    if (d->rcpts_max != 0 && d->rcpts_max < max)
        max = d->rcpts_max;
    return peer != 0 && peer < max ? peer : max;
}

/* A pipeline pays where the path is long, not where the peer is slow: there a second message would
 * only wait in this session while another could take it, hold memory, and be one more to be in
 * doubt when the connection breaks. */
static bool wants_more(const struct delivery *d)
{
    if (smtp_client_room(d->client) <= d->letters_len)
        return false;
    return is_empty(d) || (d->completed > 0 && d->transaction_ms <= PIPELINE_MS);
}

bool delivery_work(struct delivery *d)
{
    struct recipient *rcpts[DELIVERY_RCPTS_MAX];
    uint32_t before = d->submitted;

    if (d->state != DELIVERY_OPEN || d->yielding || d->worker->draining)
        return false;
    if (over_share(d, io_now_ms(d->worker->io) - d->connected_ms) ||
        governor_over_cap(channel_told(d->channel), io_now_ns(d->worker->io)))
        set_yielding(d, true);
    channel_is_free(d->channel);
    while (!d->yielding && d->submitted < messages_max(d) && wants_more(d)) {
        struct channel_taken taken =
            sessions_take(d, rcpts, recipients_max(d), smtp_client_rcpt_domain_max(d->client));

        if (taken.len == 0)
            break;
        letters_add(d, transaction_new(d, rcpts, &taken));
        d->submitted++;
        ASSERT(d->completed <= d->submitted && d->letters_len <= d->submitted);
        letters_submit(d);
        if (is_empty(d)) /* nothing can be made of it: others have their turn in between */
            break;
    }
    if (d->submitted >= messages_max(d)) {
        set_yielding(d, true);
        channel_dirty(d->channel); /* its successor need not wait for the end of QUIT */
    }
    if (d->submitted == before) {
        if (d->yielding && list_node_linked(&d->idle_node))
            delivery_quit(d); /* nothing else would end d */
        return false;
    }
    idle_leave(d);
    arm_timer(d);
    mark_dirty(d);
    return true;
}

/* smtp_client gives a transaction back only when its content is sent, unless the connection is
 * lost: then the kernel may still be reading it. */
void delivery_release(struct delivery *d, struct message *m)
{
    if (!stream_sending(&d->stream)) {
        message_unref(m);
        return;
    }
    d->held = realloc(d->held, (d->held_len + 1) * sizeof(struct message *));
    ASSERT(d->held != NULL);
    d->held[d->held_len++] = m;
}

static void held_drop(struct delivery *d)
{
    for (size_t i = 0; i < d->held_len; i++)
        message_unref(d->held[i]);
    free(d->held);
    d->held = NULL;
    d->held_len = 0;
}

void delivery_quit(struct delivery *d)
{
    idle_leave(d);
    if (d->state != DELIVERY_OPEN)
        return;
    ASSERT(list_empty(&d->letters));
    smtp_client_quit(d->client);
    set_state(d, DELIVERY_QUITTING);
    arm_timer(d);
    mark_dirty(d);
}

/* --- connecting and closing --- */

static void count_connecting(struct channel *c, int more)
{
    struct worker_counters *counters = &c->site->worker->counters;
    uint32_t all = atomic_load_explicit(&counters->connecting, memory_order_relaxed);

    c->connecting += (uint32_t)more;
    gauge_set(&counters->connecting, all + (uint32_t)more);
}

static void source_describe(struct delivery *d)
{
    struct sockaddr_storage local;

    if (proxying_to(d) != NULL) /* then proxying_opened() has said it */
        return;
    d->source_addr[0] = '\0';
    if (io_local_name(d->worker->io, d->dial.fd, &local) == 0 && local.ss_family != AF_UNIX)
        peer_text((struct sockaddr *)&local, NULL, d->source_addr);
}

static void on_connect(struct io_op *op, const struct io_event *event)
{
    struct delivery *d = CONTAINER_OF(op, struct delivery, dial.connect);

    if (d->state == DELIVERY_CLOSING)
        return;
    if (event->result < 0)
        delivery_advance(d, EVENT_LOST, NULL, event->result);
    else
        delivery_advance(d, EVENT_CONNECTED, NULL, 0);
}

static void on_recv(struct stream *stream, int32_t result, const uint8_t *data)
{
    struct delivery *d = CONTAINER_OF(stream, struct delivery, stream);

    delivery_advance(d, result > 0 ? EVENT_DATA : EVENT_LOST, data, result);
}

/* That the peer has closed is found by a send before what the peer had said is received: it may be
 * the 250 of a message, which must not be sent again. The receive ends behind that, with the
 * connection. */
static void on_sent(struct stream *stream, int32_t result)
{
    struct delivery *d = CONTAINER_OF(stream, struct delivery, stream);
    bool closed = result == -EPIPE || result == -ECONNRESET;

    if (closed && stream_receiving(&d->stream)) {
        d->unsendable = true;
        set_yielding(d, true);
    } else {
        delivery_advance(d, result < 0 ? EVENT_LOST : EVENT_SENT, NULL, result);
    }
}

static const struct stream_handlers stream_handlers = {on_recv, on_sent};

static int connect_next(struct delivery *d)
{
    int err = d->again ? dial_again(&d->dial, d->channel) : dial_next(&d->dial, d->channel);

    d->again = false;
    if (err < 0)
        return err;
    stream_attach(&d->stream, d->dial.fd);
    d->error = 0;
    counter_add(&d->worker->counters.connects, 1);
    arm_timer(d);
    return 0;
}

/* No address gave a session. Where another session works, perhaps in another worker, the
 * destination takes mail; else this is an attempt of the run that stops it. */
static void no_address_left(struct delivery *d, const struct outcome *outcome)
{
    bool works = governor_any_works(d->channel->governor);

    sessions_space_out(d->channel);
    if (!works && (outcome->class == OUTCOME_FAILED ||
                   channel_run_counts(d->channel, d->started_ms, POLICY_RUN_SETUP)))
        sessions_give_up(d->channel, outcome, &d->dial.exchanger);
}

/* There cannot even be a socket to any address, or may not be: as if none had answered. */
static void no_socket(struct delivery *d, int err)
{
    struct outcome outcome = {
        .class = OUTCOME_DEFERRED, .stage = SMTP_STAGE_CONNECT, .local = true};

    if (dial_in_doubt(&d->dial, d->site)) {
        d->secure.policy = CONFIG_TLS_DANE;
        secure_tell_failed(d, TLS_REPORT_DNSSEC_INVALID, d->dial.exchanger.tlsa->error);
        classify_tls_reply(str_of(d->dial.exchanger.tlsa->error), &outcome.reply);
    } else {
        classify_io_reply(SMTP_STAGE_CONNECT, err, STR(""), &outcome.reply);
    }
    no_address_left(d, &outcome);
}

bool delivery_open(struct channel *c)
{
    struct site *site = c->site;
    struct worker *w = site->worker;
    struct delivery *d;
    int err;

    if (sessions_exhausted(w->shared))
        return false;
    d = pool_get(&w->delivery_pool);
    if (d == NULL)
        return false;
    d->worker = w;
    d->channel = c;
    d->site = site;
    d->dial.offset = site->rotate++;
    d->state = DELIVERY_CONNECTING;
    d->dial.connect.on_event = on_connect;
    stream_init(&d->stream, &w->streams, &stream_handlers);
    d->timer.on_timer = on_timer;
    list_init(&d->letters);
    list_init(&d->carried);
    d->started_ms = io_now_ms(w->io);
    worker_session_id(w, d->id);
    d->client = smtp_client_new(&c->options);
    if (d->client == NULL)
        goto fail;
    err = connect_next(d);
    if (err < 0) {
        if (dial_is_shortage(err)) {
            sessions_shortage(c, err);
        } else if (err == -EBUSY) {
            ; /* another worker took the last session of the exchangers just now */
        } else if (dial_addresses(c) == 0) {
            (void)channel_look(c); /* the source's address is gone: the channel leaves its turns */
        } else {
            if (!dial_in_doubt(&d->dial, site))
                log_warn("delivery.socket_failed", "site=%s address=%s error=\"%s\"", site->name,
                         d->dial.peer_addr, strerror(-err));
            no_socket(d, err);
        }
        goto fail;
    }
    count_connecting(c, 1);
    sessions_begun(c, d);
    w->deliveries++;
    atomic_fetch_add_explicit(&w->shared->sessions_out, 1, memory_order_relaxed);
    counter_add(&w->counters.sessions_out_total, 1);
    gauge_set(&w->counters.sessions_out, w->deliveries);
    return true;
fail:
    smtp_client_free(d->client);
    dial_done(&d->dial);
    pool_put(&w->delivery_pool, d);
    return false;
}

/* Ends what is under way on the connection; the turn's end closes it. */
static void delivery_close(struct delivery *d)
{
    struct io *io = d->worker->io;

    idle_leave(d);
    if (list_node_linked(&d->dirty_node))
        list_remove(&d->dirty_node);
    if (is_setup(d))
        count_connecting(d->channel, -1);
    secure_keep(d);
    set_state(d, DELIVERY_CLOSING);
    login_forget(d);
    letters_take_back(d);
    if (smtp_client_chunking_refused(d->client))
        d->channel->options.no_chunking = d->site->no_chunking = true;
    wheel_cancel(io_wheel(io), &d->timer);
    io_cancel(io, &d->dial.connect);
    stream_cancel(&d->stream, d->error == 0);
    list_push_back(&d->worker->deliveries_dead, &d->dirty_node);
}

/* Whether this worker finds no session while others have some. The peer may take only so many
 * connections and refuse the next without a word: then those that it takes are to be shared, or
 * this worker's mail would wait as long as the others have any. */
static bool others_have_all(const struct delivery *d)
{
    return !d->reopen && !channel_has_session(d->channel) &&
           governor_any_works(d->channel->governor);
}

/* The address did not give us a session: the next one, or the site is down. That it takes no mail
 * ever (521, RFC 7504) is believed when every address says so. */
static void address_failed(struct delivery *d, struct outcome *outcome,
                           const struct verdict *verdict)
{
    counter_add(&d->worker->counters.connect_failures, 1);
    atomic_fetch_add_explicit(&d->channel->state->shared.connect_failures, 1, memory_order_relaxed);
    governor_sum(&d->channel->governor->sums.connect_failures, 1);
    dial_failed(&d->dial, d->channel, d->state == DELIVERY_CONNECTING ? d->error : 0);
    d->refused_for_now |= verdict->class != OUTCOME_FAILED;
    d->reopen = verdict->next_host && dial_may_go_on(&d->dial, d->channel) && !d->worker->draining;
    if (policy_of(verdict->slow_down ? POLICY_SETUP_SLOWER : POLICY_SETUP_FAILED)->one_less)
        governor_slow_down(channel_told(d->channel), io_now_ns(d->worker->io));
    else if (others_have_all(d))
        governor_slow_down(d->channel->governor, io_now_ns(d->worker->io));
    if (!d->reopen && !d->worker->draining) { /* a drain is nobody's failure */
        outcome->class = d->refused_for_now || d->dial.tried < dial_addresses(d->channel)
                             ? OUTCOME_DEFERRED
                             : OUTCOME_FAILED;
        if (!verdict->paused)
            rule_hear_failure(d->channel);
        no_address_left(d, outcome);
    }
    delivery_close(d);
}

void delivery_own_words(const struct delivery *d, enum smtp_stage stage,
                        const struct smtp_reply *client, struct smtp_reply *out)
{
    struct str unfinished = smtp_client_unfinished(d->client);
    char said[SMTP_REPLY_TEXT_MAX] = "";

    _Static_assert(sizeof(said) >= PROXYING_WHY, "");
    if (d->error == 0) {
        classify_io_reply(stage, -EPROTO, (struct str){client->text, client->text_len}, out);
        return;
    }
    if (unfinished.len > 0)
        snprintf(said, sizeof(said), "an unfinished reply: %.*s", STR_FMT(unfinished));
    else if (stage == SMTP_STAGE_BANNER && proxying_to(d) != NULL)
        proxying_put_name(d, said); /* it may be the proxy that closed */
    classify_io_reply(stage, d->error, str_of(said), out);
}

/* The new connection leads to a listener of ours: the address ends as if it had said 521. */
static void on_own_address(struct delivery *d)
{
    struct outcome outcome = {.stage = SMTP_STAGE_CONNECT, .local = true};
    struct verdict verdict = {.class = OUTCOME_FAILED, .scope = FAULT_HOST, .next_host = true};

    classify_own_reply(&outcome.reply);
    address_failed(d, &outcome, &verdict);
}

/* The connection did not become an encrypted one. */
static void tls_failed(struct delivery *d, const char *why)
{
    struct outcome outcome = {.stage = SMTP_STAGE_STARTTLS, .local = true};
    struct verdict verdict = {.class = OUTCOME_DEFERRED, .scope = FAULT_HOST, .next_host = true};
    char text[SMTP_REPLY_TEXT_MAX];

    if (secure_failed(d, why)) {
        d->reopen = d->again = true;
        delivery_close(d);
        return;
    }
    secure_tell_failed(d, secure_result(d, stream_tls_verdict(&d->stream)), why);
    snprintf(text, sizeof(text), "%s%s",
             d->secure.policy == CONFIG_TLS_STS ? "by the domain's policy of MTA-STS, " : "", why);
    classify_tls_reply(str_of(text), &outcome.reply);
    address_failed(d, &outcome, &verdict);
}

/* Whether what kept the connection or the handshake from its end was this host: no memory, no port,
 * or a step that the crew has not come to. Nothing is known of the peer then, and it gets no
 * plaintext for it. */
static bool host_lacked(const struct delivery *d)
{
    if (d->state == DELIVERY_CONNECTING)
        return dial_lacked(&d->dial, d->channel, d->error);
    return d->state == DELIVERY_HANDSHAKE &&
           (dial_is_shortage(d->error) ||
            (d->error == -ETIMEDOUT && stream_tls_is_late(&d->stream)));
}

/* Whether the session ended without an answer from STARTTLS on, up to the end of the EHLO behind
 * the handshake: a client's handshake is complete before its server has looked at all of it. */
static bool ended_by_tls(const struct delivery *d, const struct smtp_event *event)
{
    if (d->worker->draining || (d->error == 0 && event->reply->code != 0))
        return false;
    return d->state == DELIVERY_HANDSHAKE || event->stage == SMTP_STAGE_STARTTLS ||
           (d->secure.active && d->state == DELIVERY_GREETING);
}

/* Mail waits until somebody mends this, so he should hear of it: a line a minute. */
static void login_failed(struct delivery *d, const struct smtp_event *event)
{
    struct site *site = d->site;
    uint64_t now_ms = io_now_ms(d->worker->io);

    counter_add(&d->worker->counters.logins_out_failed, 1);
    if (now_ms < site->login_complaint_ms)
        return;
    site->login_complaint_ms = now_ms + LOGIN_COMPLAINT_MS;
    log_warn("delivery.auth_failed",
             "session=%s site=%s host=%s address=%s user=\"%s\" reply=\"%u %.*s\" action=\"mail "
             "waits; mend the credentials, or what the reply names\"",
             d->id, site->name, d->dial.peer_name, d->dial.peer_addr, d->channel->options.auth_user,
             event->reply->code, (int)event->reply->text_len, event->reply->text);
}

/* The source's proxy gave no connection. Where that is the proxy's own fault the destination has
 * had no attempt: its mail waits for the proxy, or goes by another source. */
static void on_proxy_failed(struct delivery *d)
{
    struct outcome outcome = {.stage = SMTP_STAGE_CONNECT, .local = true};
    struct verdict verdict = {.class = OUTCOME_DEFERRED, .scope = FAULT_HOST, .next_host = true};
    char why[PROXYING_WHY];

    if (proxying_over(d, why)) {
        classify_proxy_reply(str_of(why), &outcome.reply);
        address_failed(d, &outcome, &verdict);
        return;
    }
    delivery_close(d);
    (void)channel_look(d->channel);
}

static void on_setup_over(struct delivery *d, const struct smtp_event *event)
{
    struct outcome outcome = {.stage = event->stage};
    struct verdict verdict;

    if (host_lacked(d)) {
        sessions_shortage(d->channel, d->error);
        delivery_close(d);
        return;
    }
    if (d->state <= DELIVERY_PROXYING && proxying_to(d) != NULL && !d->worker->draining) {
        on_proxy_failed(d);
        return;
    }
    if (event->stage == SMTP_STAGE_AUTH && d->error == 0)
        login_failed(d, event);
    if (ended_by_tls(d, event)) {
        char why[SMTP_REPLY_TEXT_MAX + 1];

        snprintf(why, sizeof(why), "%.*s", (int)event->reply->text_len, event->reply->text);
        tls_failed(d, why);
        return;
    }
    if (d->error == 0 && event->reply->code != 0) {
        outcome.local = event->own;
        outcome.reply = *event->reply;
        if (event->stage == SMTP_STAGE_STARTTLS)
            secure_tell_failed(d, TLS_REPORT_STARTTLS_NOT_SUPPORTED,
                               event->own ? "STARTTLS is not offered" : "STARTTLS is refused");
        verdict = classify(event->stage, SMTP_FATE_REPLY, SMTP_UNABLE_NONE, event->reply);
        if (!event->own)
            outcome.rule = rule_hear(d->channel, d->dial.exchanger.addr.sa.sa_family, NULL, NULL,
                                     d->dial.peer_name, event->stage, event->reply, &verdict);
    } else {
        outcome.local = true;
        if (d->state <= DELIVERY_PROXYING) /* the client knows of connections only */
            outcome.stage = SMTP_STAGE_CONNECT;
        delivery_own_words(d, outcome.stage, event->reply, &outcome.reply);
        verdict = classify(outcome.stage, SMTP_FATE_NOT_SENT, SMTP_UNABLE_NONE, NULL);
    }
    address_failed(d, &outcome, &verdict);
}

/* Waits for the end of the turn, since a peer that closes or talks nonsense right behind its
 * greeting has given us no session. Counted as one that works, it would have the next opened at
 * once, for ever. */
static void on_ready(struct delivery *d)
{
    ASSERT(d->channel->connecting > 0 && d->letters_len == 0 && d->held_len == 0);
    count_connecting(d->channel, -1);
    set_state(d, DELIVERY_OPEN);
    arm_timer(d);
    source_describe(d);
    proxying_end(d);
    sessions_works(d->channel);
    delivery_idle(d);
    channel_dirty(
        d->channel); /* the session gets work, and more connections may follow one that works */
}

static void on_tls_ended(struct stream *stream, const char *error)
{
    struct delivery *d = CONTAINER_OF(stream, struct delivery, stream);

    if (error != NULL)
        tls_failed(d, error);
    else
        delivery_advance(d, EVENT_SECURED, NULL, 0);
}

/* STARTTLS was answered, perhaps before the kernel has told us that it is sent. */
static void begin_handshake(struct delivery *d)
{
    int err;

    if (!d->secure.due || stream_sending(&d->stream))
        return;
    set_state(d, DELIVERY_HANDSHAKE);
    err = secure_handshake(d, on_tls_ended);
    if (err < 0) {
        sessions_shortage(d->channel, err);
        delivery_close(d);
    }
}

static void drain_events(struct delivery *d)
{
    struct smtp_event event;

    while (d->state != DELIVERY_CLOSING &&
           smtp_client_next_event(d->client, &event) != SMTP_EVENT_NONE) {
        switch (event.kind) {
        case SMTP_EVENT_STARTTLS:
            d->secure.due = true;
            begin_handshake(d);
            break;
        case SMTP_EVENT_AUTH:
            login_step(d, &event);
            break;
        case SMTP_EVENT_READY:
            d->greeted = true;
            login_forget(d);
            secure_ready(d, smtp_client_tls_refused(d->client)
                                ? (struct str){event.reply->text, event.reply->text_len}
                                : STR(""));
            break;
        case SMTP_EVENT_RECIPIENT:
            transaction_recipient(&event);
            break;
        case SMTP_EVENT_DONE:
            transaction_done(&event);
            break;
        case SMTP_EVENT_CLOSE:
            if (is_setup(d))
                on_setup_over(d, &event);
            else
                delivery_close(d);
            break;
        case SMTP_EVENT_NONE:
            break;
        }
    }
}

void delivery_logged_on(struct delivery *d)
{
    drain_events(d);
    if (d->state == DELIVERY_CLOSING)
        return;
    arm_timer(d);
    mark_dirty(d);
}

static const char *lost_text(int result)
{
    return result == 0 ? "connection closed by peer" : strerror(-result);
}

/* Whether the peer's name, which its certificate bears, is the configuration's: that of the route,
 * or one below it. Exchangers have the names that DNS says, and nothing proves what DNS says. */
static bool is_named_by_route(const struct delivery *d)
{
    const struct config_route *target = d->site->target;
    struct str peer = str_of(d->dial.peer_name), host;
    struct dns_name name;

    if (target == NULL || target->host == NULL || dns_name_parse(&name, str_of(target->host)) < 0)
        return false;
    host = (struct str){name.text, name.len};
    if (str_eq_nocase(peer, host))
        return true;
    return target->mx_lookup && peer.len > host.len + 1 &&
           peer.ptr[peer.len - host.len - 1] == '.' &&
           str_eq_nocase((struct str){peer.ptr + peer.len - host.len, host.len}, host);
}

/* The connection leads to the exchanger: its greeting is next, or a handshake. False: it leads to
 * ourselves, and the session is over. */
static bool begin_greeting(struct delivery *d)
{
    if (d->state == DELIVERY_PROXYING)
        proxying_opened(d);
    set_state(d, DELIVERY_GREETING);
    d->connected_ms = io_now_ms(d->worker->io);
    if (d->channel->options.own_names != NULL && dial_is_own(&d->dial, d->site)) {
        on_own_address(d);
        return false;
    }
    if (!stream_receiving(&d->stream))
        stream_recv(&d->stream);
    secure_begin(d);
    if (d->site->dest->auth_without_tls)
        smtp_client_trust(d->client, false);
    d->secure.due = d->secure.implicit;
    begin_handshake(d);
    return d->state != DELIVERY_CLOSING;
}

static bool on_connected(struct delivery *d)
{
    if (proxying_to(d) == NULL)
        return begin_greeting(d);
    set_state(d, DELIVERY_PROXYING);
    if (proxying_begin(d))
        stream_recv(&d->stream);
    return true;
}

/* The proxy says something. What is behind its last answer is the exchanger's: *len bytes at *data.
 * False: there is nothing, or the session is over. */
static bool on_proxy_data(struct delivery *d, const uint8_t **data, size_t *len)
{
    switch (proxying_input(d, data, len)) {
    case PROXYING_GOES_ON:
        mark_dirty(d);
        return false;
    case PROXYING_FAILED:
        on_proxy_failed(d);
        return false;
    case PROXYING_OPEN:
        break;
    }
    if (!begin_greeting(d))
        return false;
    arm_timer(d);
    mark_dirty(d);
    if (*len > 0 && d->secure.implicit) {
        tls_failed(d, "the peer sent something in front of the handshake");
        return false;
    }
    return *len > 0;
}

static void on_data(struct delivery *d, const uint8_t *data, size_t len)
{
    if (d->state == DELIVERY_PROXYING && !on_proxy_data(d, &data, &len))
        return;
    dialogue_heard(d, data, len);
    smtp_client_input(d->client, data, len);
}

/* False: the session is over. */
static bool on_all_sent(struct delivery *d)
{
    enum proxying_status status;

    held_drop(d);
    if (!proxying_sent(d, &status))
        smtp_client_sent(d->client);
    else if (d->state == DELIVERY_PROXYING)
        return status != PROXYING_OPEN || begin_greeting(d);
    begin_handshake(d);
    return d->state != DELIVERY_CLOSING;
}

/* A part of a reply is no progress: a peer could drip its lines for days. Nor are a proxy's
 * answers: all of them have one deadline. */
static bool is_progress(const struct delivery *d, enum delivery_event event, uint32_t replies)
{
    if (d->state == DELIVERY_PROXYING)
        return event == EVENT_CONNECTED;
    return event != EVENT_DATA || smtp_client_replies(d->client) != replies;
}

static void delivery_advance(struct delivery *d, enum delivery_event event, const uint8_t *data,
                             int result)
{
    uint32_t replies = smtp_client_replies(d->client);

    ASSERT(d->state != DELIVERY_CLOSING);
    switch (event) {
    case EVENT_CONNECTED:
        if (!on_connected(d))
            return;
        break;
    case EVENT_SECURED:
        set_state(d, DELIVERY_GREETING);
        secure_opened(d);
        if (d->secure.verified && is_named_by_route(d))
            smtp_client_trust(d->client, true);
        smtp_client_secured(d->client, login_binds(d));
        break;
    case EVENT_DATA:
        on_data(d, data, (size_t)result);
        if (d->state == DELIVERY_CLOSING)
            return;
        break;
    case EVENT_SENT:
        if (!on_all_sent(d))
            return;
        break;
    case EVENT_LOST:
    case EVENT_TIMEOUT:
        d->error = result == 0 ? -EPIPE : result;
        smtp_client_lost(d->client, lost_text(result));
        break;
    }
    drain_events(d);
    if (d->state == DELIVERY_CLOSING)
        return;
    if (is_progress(d, event, replies))
        arm_timer(d);
    mark_dirty(d);
}

/* --- the end of a turn --- */

/* Mail that the peer cannot take is final as soon as it is submitted, and the next is taken at
 * once. Of a backlog of such mail *unsent_left end in a turn; then the session looks again. */
static void take_work(struct delivery *d, uint32_t *unsent_left)
{
    while (d->state == DELIVERY_OPEN && *unsent_left > 0 && delivery_work(d)) {
        drain_events(d);
        *unsent_left -= d->state == DELIVERY_OPEN && is_empty(d);
    }
}

static void delivery_flush(struct delivery *d, uint32_t *unsent_left)
{
    size_t n;
    int err;

    drain_events(d);
    if (d->state == DELIVERY_GREETING && d->greeted)
        on_ready(d);
    letters_submit(d);
    drain_events(d);
    take_work(d, unsent_left);
    if (d->state == DELIVERY_CLOSING)
        return;
    delivery_idle(d);
    if (d->state == DELIVERY_CONNECTING || d->unsendable || stream_sending(&d->stream))
        return;
    n = d->state == DELIVERY_PROXYING ? proxying_output(d)
                                      : smtp_client_output(d->client, d->iov, DELIVERY_IOV_MAX);
    if (n == 0)
        return;
    if (d->state != DELIVERY_PROXYING)
        dialogue_said(d, n);
    err = stream_send(&d->stream, d->iov, n);
    if (err < 0)
        delivery_advance(d, EVENT_LOST, NULL, err);
    else if (d->state != DELIVERY_PROXYING) /* of which all has one deadline */
        arm_timer(d);                       /* the session may wait for another thing now */
}

static void delivery_free(struct delivery *d)
{
    struct worker *w = d->worker;

    ASSERT(d->state == DELIVERY_CLOSING || d->state == DELIVERY_CONNECTING);
    ASSERT(list_empty(&d->letters) && d->held_len == 0 && !timer_armed(&d->timer));
    ASSERT(!list_node_linked(&d->idle_node) && !list_node_linked(&d->dirty_node));
    ASSERT(w->deliveries > 0);
    smtp_client_free(d->client);
    set_yielding(d, false);
    sessions_ended(d->channel, d);
    dial_done(&d->dial);
    w->deliveries--;
    atomic_fetch_sub_explicit(&w->shared->sessions_out, 1, memory_order_relaxed);
    gauge_set(&w->counters.sessions_out, w->deliveries);
    pool_put(&w->delivery_pool, d);
}

/* Goes on to another address, with a fresh protocol state. */
static bool delivery_reopen(struct delivery *d)
{
    int err;

    smtp_client_free(d->client);
    d->client = smtp_client_new(&d->channel->options);
    ASSERT(d->client != NULL);
    d->reopen = d->greeted = d->unsendable = false;
    set_yielding(d, false);
    set_state(d, DELIVERY_CONNECTING);
    err = connect_next(d);
    if (err == 0) {
        count_connecting(d->channel, 1);
        return true;
    }
    if (dial_is_shortage(err))
        sessions_shortage(d->channel, err);
    else if (dial_addresses(d->channel) == 0)
        (void)channel_look(d->channel);
    else if (err != -EBUSY) /* other exchangers have as many sessions as they may */
        no_socket(d, err == -ENOENT ? -EHOSTUNREACH : err);
    return false;
}

static void delivery_reap(struct worker *w)
{
    struct list_node *n, *next;

    for (n = list_first(&w->deliveries_dead); n != NULL; n = next) {
        struct delivery *d = LIST_ENTRY(n, struct delivery, dirty_node);

        next = list_next(&w->deliveries_dead, n);
        if (io_op_busy(&d->dial.connect) || stream_busy(&d->stream))
            continue;
        list_remove(&d->dirty_node);
        held_drop(d);
        proxying_end(d);
        /* A peer that did not take what it was sent must not get it from the kernel later, when the
         * mail is tried again; nor should the kernel keep megabytes for it. */
        stream_close(&d->stream, d->error == -ETIMEDOUT);
        if (!d->reopen || w->draining || !delivery_reopen(d))
            delivery_free(d);
    }
}

void delivery_flush_all(struct worker *w)
{
    uint32_t unsent_left = UNSENT_MAX;
    struct list_node *n;

    recipes_turn(w);
    do {
        while (unsent_left > 0 && (n = list_pop_front(&w->deliveries_dirty)) != NULL)
            delivery_flush(LIST_ENTRY(n, struct delivery, dirty_node), &unsent_left);
    } while (unsent_left > 0 && recipes_grant(w));
    delivery_reap(w);
}

static void delivery_drain(struct delivery *d, bool hard)
{
    if (d->state == DELIVERY_CLOSING)
        return;
    if (hard || is_setup(d)) {
        delivery_advance(d, EVENT_LOST, NULL, -ECANCELED);
    } else if (d->state == DELIVERY_OPEN) {
        letters_take_back(d);
        if (is_empty(d))
            delivery_quit(d);
    }
}

static uint32_t sessions_list(const struct channel *c, struct delivery **out)
{
    uint32_t len = 0;

    for (struct list_node *s = list_first(&c->sessions); s != NULL; s = list_next(&c->sessions, s))
        out[len++] = LIST_ENTRY(s, struct delivery, site_node);
    return len;
}

/* Draining a session gives its recipients back to their lanes, which may make sites: so all
 * sessions are gathered before the first is drained. The end of a turn frees them, not this. */
void delivery_drain_all(struct worker *w, bool hard)
{
    struct delivery **all = calloc(w->deliveries + 1, sizeof(struct delivery *));
    struct map_node *n = NULL;
    size_t bucket = 0;
    uint32_t len = 0;

    ASSERT(all != NULL);
    while ((n = map_walk(&w->sites, &bucket, n)) != NULL) {
        const struct list *channels = &CONTAINER_OF(n, struct site, node)->channels;

        for (struct list_node *c = list_first(channels); c != NULL; c = list_next(channels, c))
            len += sessions_list(LIST_ENTRY(c, struct channel, site_node), all + len);
    }
    ASSERT(len == w->deliveries);
    for (uint32_t i = 0; i < len; i++)
        delivery_drain(all[i], hard);
    free(all);
}

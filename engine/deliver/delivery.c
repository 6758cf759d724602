#include "deliver/delivery_private.h"

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
#include "outcome/classify.h"
#include "schedule/rollup.h"
#include "schedule/settle.h"
#include "worker/shared.h"

#define PIPELINE_MS 1000 /* a transaction that takes longer gets no second one behind it */
#define UNSENT_MAX  64   /* transactions of a turn that end without having been sent */

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

void delivery_set_state(struct delivery *d, enum delivery_state state)
{
    ASSERT((delivery_table[d->state].next & 1u << state) != 0);
    log_debug("delivery.state", "session=%s from=%s to=%s", d->id, delivery_table[d->state].name,
              delivery_table[state].name);
    if (state == DELIVERY_OPEN || d->state == DELIVERY_OPEN)
        governor_session_works(d->channel->governor, state == DELIVERY_OPEN);
    d->state = state;
}

void delivery_dirty(struct delivery *d)
{
    ASSERT(d->state != DELIVERY_CLOSING); /* then the node is among the dead */
    if (!list_node_linked(&d->dirty_node))
        list_push_back(&d->worker->deliveries_dirty, &d->dirty_node);
}

/* --- work --- */

void delivery_idle(struct delivery *d)
{
    if (d->state != DELIVERY_OPEN || !delivery_is_empty(d) || list_node_linked(&d->idle_node))
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
    delivery_arm_timer(d);
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

void delivery_set_yielding(struct delivery *d, bool yielding)
{
    if (d->yielding == yielding)
        return;
    ASSERT(yielding || d->channel->yielding > 0);
    d->yielding = yielding;
    sessions_yields(d->channel, d, yielding);
    ASSERT(d->channel->yielding <= d->channel->sessions_len);
}

void delivery_retire(struct delivery *d, bool one_less)
{
    if (one_less && !d->yielding)
        governor_step_down(channel_told(d->channel), io_now_ns(d->worker->io));
    delivery_set_yielding(d, true);
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
    return delivery_is_empty(d) || (d->completed > 0 && d->transaction_ms <= PIPELINE_MS);
}

/* Whether too much that was sent is not recorded yet. sessions_dispatch_all() goes on with the
 * channel then. */
static bool waits_for_commits(struct delivery *d)
{
    if (!settles_full(d->worker))
        return false;
    channel_dirty(d->channel);
    return true;
}

bool delivery_work(struct delivery *d)
{
    struct recipient *rcpts[DELIVERY_RCPTS_MAX];
    uint32_t before = d->submitted;

    if (d->state != DELIVERY_OPEN || d->yielding || d->worker->draining)
        return false;
    if (delivery_over_share(d, io_now_ms(d->worker->io) - d->connected_ms) ||
        governor_over_cap(channel_told(d->channel), io_now_ns(d->worker->io)))
        delivery_set_yielding(d, true);
    if (wants_more(d))
        channel_is_free(d->channel);
    if (list_node_linked(&d->idle_node) && idle_rests(d))
        idle_wake(d); /* it asks now, and rests again if it is told to */
    while (!d->yielding && d->submitted < messages_max(d) && wants_more(d) &&
           !waits_for_commits(d)) {
        struct channel_taken taken =
            sessions_take(d, rcpts, recipients_max(d), smtp_client_rcpt_domain_max(d->client));

        if (taken.len == 0)
            break;
        if (settles_count(rcpts[0]))
            settles_owe(d->worker, (uint32_t)taken.len);
        letters_add(d, transaction_new(d, rcpts, &taken));
        d->submitted++;
        ASSERT(d->completed <= d->submitted && d->letters_len <= d->submitted);
        letters_submit(d);
        if (delivery_is_empty(d)) /* nothing can be made of it: others have their turn in between */
            break;
    }
    if (d->submitted >= messages_max(d)) {
        delivery_set_yielding(d, true);
        channel_dirty(d->channel); /* its successor need not wait for the end of QUIT */
    }
    if (d->submitted == before) {
        if (d->yielding && list_node_linked(&d->idle_node)) {
            delivery_quit(d); /* nothing else would end d */
        } else if (list_node_linked(&d->idle_node) && idle_rests(d)) {
            idle_rest(d);
            wheel_arm_by(io_wheel(d->worker->io), &d->timer, d->session.rests_ns / 1000000 + 1);
        }
        return false;
    }
    idle_leave(d);
    delivery_arm_timer(d);
    delivery_dirty(d);
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
    delivery_set_state(d, DELIVERY_QUITTING);
    delivery_arm_timer(d);
    delivery_dirty(d);
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
        delivery_set_yielding(d, true);
    } else {
        delivery_advance(d, result < 0 ? EVENT_LOST : EVENT_SENT, NULL, result);
    }
}

const struct stream_handlers delivery_stream_handlers = {on_recv, on_sent};

void delivery_close(struct delivery *d)
{
    struct io *io = d->worker->io;

    idle_leave(d);
    if (list_node_linked(&d->dirty_node))
        list_remove(&d->dirty_node);
    if (delivery_is_setup(d))
        delivery_count_connecting(d->channel, -1);
    secure_keep(d);
    delivery_set_state(d, DELIVERY_CLOSING);
    login_forget(d);
    letters_take_back(d);
    if (smtp_client_chunking_refused(d->client))
        d->channel->options.no_chunking = d->site->no_chunking = true;
    wheel_cancel(io_wheel(io), &d->timer);
    io_cancel(io, &d->dial.connect);
    stream_cancel(&d->stream, d->error == 0);
    list_push_back(&d->worker->deliveries_dead, &d->dirty_node);
}

/* What ended the encryption of a session: the stream says -EPROTO for it alone. */
static const char *tls_words(const struct delivery *d)
{
    const struct tls *tls = stream_tls_of(&d->stream);

    return tls != NULL && *tls_error(tls) != '\0' ? tls_error(tls) : "a broken record";
}

void delivery_own_words(const struct delivery *d, enum smtp_stage stage,
                        const struct smtp_reply *client, struct smtp_reply *out)
{
    struct str unfinished = smtp_client_unfinished(d->client);
    char said[SMTP_REPLY_TEXT_MAX] = "";
    bool ended = d->error == -EPIPE || d->error == -ECONNRESET;

    _Static_assert(sizeof(said) >= PROXYING_WHY, "");
    if (d->error == 0) {
        classify_io_reply(stage, -EPROTO, (struct str){client->text, client->text_len}, out);
        return;
    }
    if (proxying_to(d) != NULL)
        proxying_put_name(d, ended, said);
    if (d->error == -EPROTO) {
        snprintf(said + strlen(said), sizeof(said) - strlen(said), "%s%s", said[0] == 0 ? "" : ": ",
                 tls_words(d));
        classify_io_reply(stage, -EBADMSG, str_of(said), out);
        return;
    }
    if (unfinished.len > 0)
        snprintf(said + strlen(said), sizeof(said) - strlen(said), "%san unfinished reply: %.*s",
                 said[0] == 0 ? "" : ": ", STR_FMT(unfinished));
    classify_io_reply(stage, d->error, str_of(said), out);
}

static void drain_events(struct delivery *d)
{
    struct smtp_event event;

    while (d->state != DELIVERY_CLOSING &&
           smtp_client_next_event(d->client, &event) != SMTP_EVENT_NONE) {
        switch (event.kind) {
        case SMTP_EVENT_STARTTLS:
            d->secure.due = true;
            delivery_begin_handshake(d);
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
            if (delivery_is_setup(d))
                delivery_setup_over(d, &event);
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
    delivery_arm_timer(d);
    delivery_dirty(d);
}

static const char *lost_text(const struct delivery *d)
{
    if (d->error == -EPROTO)
        return tls_words(d);
    return d->error == -EPIPE ? "connection closed by peer" : strerror(-d->error);
}

static void on_data(struct delivery *d, const uint8_t *data, size_t len)
{
    if (d->state == DELIVERY_PROXYING && !delivery_proxy_data(d, &data, &len))
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
        return status != PROXYING_OPEN || delivery_begin_greeting(d);
    delivery_begin_handshake(d);
    return d->state != DELIVERY_CLOSING;
}

/* A part of a reply is no progress: a peer could drip its lines for days. Nor are a proxy's
 * answers: all of them have one deadline. */
static bool is_progress(const struct delivery *d, enum delivery_event event, uint32_t replies)
{
    if (d->state == DELIVERY_PROXYING)
        return event == EVENT_CONNECTED;
    if (event == EVENT_SENT && d->unhurried) /* as of when it was sent */
        return false;
    return event != EVENT_DATA || smtp_client_replies(d->client) != replies;
}

void delivery_advance(struct delivery *d, enum delivery_event event, const uint8_t *data,
                      int result)
{
    uint32_t replies = smtp_client_replies(d->client);

    ASSERT(d->state != DELIVERY_CLOSING);
    switch (event) {
    case EVENT_CONNECTED:
        if (!delivery_connected(d))
            return;
        break;
    case EVENT_SECURED:
        delivery_set_state(d, DELIVERY_GREETING);
        stream_hold(&d->stream); /* for EHLO */
        secure_opened(d);
        if (d->secure.verified && delivery_named_by_route(d))
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
        smtp_client_lost(d->client, lost_text(d));
        break;
    }
    drain_events(d);
    if (d->state == DELIVERY_CLOSING)
        return;
    if (is_progress(d, event, replies))
        delivery_arm_timer(d);
    delivery_dirty(d);
}

/* --- the end of a turn --- */

/* Mail that the peer cannot take is final as soon as it is submitted, and the next is taken at
 * once. Of a backlog of such mail *unsent_left end in a turn; then the session looks again. */
static void take_work(struct delivery *d, uint32_t *unsent_left)
{
    while (d->state == DELIVERY_OPEN && *unsent_left > 0 && delivery_work(d)) {
        drain_events(d);
        *unsent_left -= d->state == DELIVERY_OPEN && delivery_is_empty(d);
    }
}

/* What the session has to say now, in d->iov. */
static size_t output(struct delivery *d)
{
    bool doubted = smtp_client_in_doubt(d->client);
    size_t n;

    if (d->state == DELIVERY_PROXYING)
        return proxying_output(d);
    n = smtp_client_output(d->client, d->iov, DELIVERY_IOV_MAX);
    if (n > 0)
        dialogue_said(d, n);
    if (!doubted && smtp_client_in_doubt(d->client))
        d->doubt_bytes = d->stream.handed_bytes;
    return n;
}

static void delivery_flush(struct delivery *d, uint32_t *unsent_left)
{
    size_t n;
    int err;

    drain_events(d);
    if (d->state == DELIVERY_GREETING && d->greeted)
        delivery_setup_ready(d);
    letters_submit(d);
    drain_events(d);
    take_work(d, unsent_left);
    if (d->state == DELIVERY_CLOSING)
        return;
    delivery_idle(d);
    if (d->state == DELIVERY_CONNECTING || d->unsendable || stream_sending(&d->stream))
        return;
    n = output(d);
    if (n == 0) {
        err = stream_flush(&d->stream);
    } else {
        d->unhurried = d->state != DELIVERY_PROXYING && !smtp_client_output_cut(d->client);
        err = stream_send(&d->stream, d->iov, n, d->unhurried);
    }
    if (err < 0)
        delivery_advance(d, EVENT_LOST, NULL, err);
    else if (n > 0 && d->state != DELIVERY_PROXYING) /* of which all has one deadline */
        delivery_arm_timer(d); /* the session may wait for another thing now */
}

static void delivery_free(struct delivery *d)
{
    struct worker *w = d->worker;

    ASSERT(d->state == DELIVERY_CLOSING || d->state == DELIVERY_CONNECTING);
    ASSERT(list_empty(&d->letters) && d->held_len == 0 && !timer_armed(&d->timer));
    ASSERT(!list_node_linked(&d->idle_node) && !list_node_linked(&d->dirty_node));
    ASSERT(w->deliveries > 0);
    smtp_client_free(d->client);
    delivery_set_yielding(d, false);
    sessions_ended(d->channel, d);
    dial_done(&d->dial);
    buf_done(&d->session.began);
    list_remove(&d->all_node);
    w->deliveries--;
    atomic_fetch_sub_explicit(&w->shared->sessions_out, 1, memory_order_relaxed);
    gauge_set(&w->counters.sessions_out, w->deliveries);
    pool_put(&w->delivery_pool, d);
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
        stream_close(&d->stream, d->error == -ETIMEDOUT || d->orphaned);
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
    if (hard || delivery_is_setup(d)) {
        delivery_advance(d, EVENT_LOST, NULL, -ECANCELED);
    } else if (d->state == DELIVERY_OPEN) {
        letters_take_back(d);
        if (delivery_is_empty(d))
            delivery_quit(d);
    }
}

/* A session that is drained stays in the list until the end of the turn. */
void delivery_drain_all(struct worker *w, bool hard)
{
    for (struct list_node *n = list_first(&w->deliveries_all); n != NULL;
         n = list_next(&w->deliveries_all, n))
        delivery_drain(LIST_ENTRY(n, struct delivery, all_node), hard);
}

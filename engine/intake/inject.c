#include "intake/inject.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "intake/inject_login.h"
#include "intake/inject_message.h"
#include "worker/peer_text.h"
#include "worker/shared.h"

#define OUT_MAX      (64u << 10) /* unsent replies; then the client must read first */
#define PROXY_MS     5000        /* for a balancer's header, which it sends with the connection */
#define LAST_WORD_MS 5000        /* to send a 421 and to hear the client out after it */
#define HEARD_MAX    (16u << 20) /* bytes that are heard from the client after it */

/* Timers of a session: one, at the nearer of idle and total limit. */
static void on_timer(struct timer *timer);
static void inject_process(struct inject *s, const uint8_t *data, size_t len);
static void inject_admit(struct inject *s);

static void mark_dirty(struct inject *s)
{
    if (!list_node_linked(&s->dirty_node))
        list_push_back(&s->worker->injects_dirty, &s->dirty_node);
}

static void touch(struct inject *s)
{
    const struct config_listener *l = s->settings;
    struct io *io = s->worker->io;
    uint64_t idle_ms = io_now_ms(io) + l->idle_timeout_ms;
    uint64_t total_ms = s->started_ms + l->session_timeout_ms;

    s->deadline_ms = idle_ms < total_ms ? idle_ms : total_ms;
    wheel_arm_by(io_wheel(io), &s->timer, s->deadline_ms);
}

/* --- states --- */

#define BIT(state) (1u << (state))

static const struct inject_rule {
    const char *name;
    uint32_t may_follow;         /* BIT of each state */
    enum inject_state when_said; /* the next state once all answers are in and sent */
    enum inject_state when_late; /* the next state when the client keeps us waiting */
    bool hears;                  /* what comes is received, and thrown away */
} rules[] = {
    [INJECT_PROXY] = {"proxy header", BIT(INJECT_OPEN) | BIT(INJECT_DEAD), INJECT_PROXY,
                      INJECT_DEAD, false},
    [INJECT_OPEN] = {"open",
                     BIT(INJECT_AGREED) | BIT(INJECT_SHAKING) | BIT(INJECT_BYE) |
                         BIT(INJECT_TALKED) | BIT(INJECT_DEAD),
                     INJECT_OPEN, INJECT_BYE, false},
    [INJECT_AGREED] = {"agreed on TLS", BIT(INJECT_SHAKING) | BIT(INJECT_DEAD), INJECT_SHAKING,
                       INJECT_DEAD, false},
    [INJECT_SHAKING] = {"handshake", BIT(INJECT_OPEN) | BIT(INJECT_TALKED) | BIT(INJECT_DEAD),
                        INJECT_SHAKING, INJECT_DEAD, true},
    [INJECT_BYE] = {"bye", BIT(INJECT_TALKED) | BIT(INJECT_DEAD), INJECT_DEAD, INJECT_DEAD, true},
    [INJECT_TALKED] = {"talked on", BIT(INJECT_LINGER) | BIT(INJECT_DEAD), INJECT_LINGER,
                       INJECT_DEAD, false},
    [INJECT_LINGER] = {"linger", BIT(INJECT_DEAD), INJECT_LINGER, INJECT_DEAD, true},
    [INJECT_DEAD] = {"dead", 0, INJECT_DEAD, INJECT_DEAD, false},
};

static void set_state(struct inject *s, enum inject_state state)
{
    ASSERT((rules[s->state].may_follow & BIT(state)) != 0);
    if ((BIT(state) & (BIT(INJECT_AGREED) | BIT(INJECT_SHAKING))) == 0)
        inject_handshake_over(s);
    log_debug("smtp.state", "session=%s from=%s to=%s", s->id, rules[s->state].name,
              rules[state].name);
    s->state = state;
}

/* --- what waits --- */

/* Where clients log in, one may have sent its password already. */
static void pending_put(struct inject *s, const uint8_t *data, size_t len)
{
    if (s->options.auth != 0)
        buf_put_secret(&s->pending, data, len);
    else
        buf_put(&s->pending, data, len);
}

static void pending_drop(struct inject *s)
{
    if (s->options.auth != 0)
        buf_wipe(&s->pending);
    else
        buf_done(&s->pending);
    s->pending_at = 0;
}

/* --- the end of a session --- */

static void inject_end(struct inject *s)
{
    struct io *io = s->worker->io;

    if (s->state == INJECT_DEAD)
        return;
    if (s->state == INJECT_SHAKING)
        inject_tls_failed(s, "the session ended within the handshake");
    set_state(s, INJECT_DEAD);
    inject_answers_forget(s);
    inject_login_forget(s);
    inject_once_drop(s);
    inject_lookup_drop(s);
    inject_certificate_drop(s);
    ASSERT(list_empty(&s->answers) && s->answers_len == 0 && s->answers_bytes == 0);
    ASSERT(s->login == NULL && s->once == NULL && s->lookup == NULL && s->user == NULL &&
           !s->shaking);
    wheel_cancel(io_wheel(io), &s->timer);
    stream_cancel(&s->stream, true);
    if (list_node_linked(&s->dirty_node))
        list_remove(&s->dirty_node);
    list_push_back(&s->worker->injects_dead, &s->dirty_node);
}

/* The session is in no count of its listener and its client any more. */
static void uncount(struct inject *s)
{
    struct shared *all = s->worker->shared;
    uint32_t before;

    if (!s->counted)
        return;
    clients_give(&all->clients, (struct sockaddr *)&s->peer, s->listener->index);
    before = atomic_fetch_sub(&all->listener_sessions[s->listener->index], 1);
    ASSERT(before > 0);
    s->counted = false;
}

static void inject_free(struct inject *s)
{
    struct worker *w = s->worker;

    ASSERT(s->state == INJECT_DEAD && list_empty(&s->answers) && !stream_busy(&s->stream));
    smtp_server_done(&s->server);
    buf_done(&s->out);
    buf_done(&s->sending);
    buf_done(&s->behind);
    pending_drop(s);
    inject_body_drop(s);
    buf_done(&s->envelope);
    free(s->rcpts);
    s->rcpts_cap = 0;
    inject_count(s);
    uncount(s);
    ASSERT(s->held_bytes == 0 && s->user_config == NULL && s->hash == NULL && w->injects_len > 0);
    config_unref(s->config);
    list_remove(&s->node);
    w->injects_len--;
    gauge_set(&w->counters.sessions_in, w->injects_len);
    pool_put(&w->inject_pool, s);
}

static void say_and_end(struct inject *s, const char *reply)
{
    buf_puts(inject_out(s), reply);
    set_state(s, INJECT_BYE);
    mark_dirty(s);
}

static void deadline_set(struct inject *s, uint64_t after_ms)
{
    struct io *io = s->worker->io;

    s->deadline_ms = io_now_ms(io) + after_ms;
    wheel_arm(io_wheel(io), &s->timer, s->deadline_ms);
}

static void on_timer(struct timer *timer)
{
    struct inject *s = CONTAINER_OF(timer, struct inject, timer);
    struct io *io = s->worker->io;

    ASSERT(s->state != INJECT_DEAD);
    if (io_now_ms(io) < s->deadline_ms) {
        wheel_arm(io_wheel(io), &s->timer, s->deadline_ms);
    } else if (!list_empty(&s->answers) ||
               inject_asked_others(s)) { /* we are slow, not the client */
        deadline_set(s, LAST_WORD_MS);
    } else if (rules[s->state].when_late == INJECT_BYE && !stream_sending(&s->stream)) {
        say_and_end(s, "421 4.4.2 timeout waiting for you, closing\r\n");
        deadline_set(s, LAST_WORD_MS);
    } else {
        if (s->state == INJECT_PROXY)
            inject_proxy_late(s);
        inject_end(s);
    }
}

void inject_resume(struct inject *s)
{
    touch(s);
    inject_process(s, NULL, 0);
}

void inject_answered(struct inject *s)
{
    if (s->input == INJECT_BY_ONE)
        s->input = INJECT_STREAM;
    inject_resume(s);
}

/* --- bytes --- */

/* Steps the machine until it wants more, an answer that takes time, or the end. */
static void inject_run(struct inject *s, struct smtp_server_input *in)
{
    while (s->state == INJECT_OPEN && inject_unsent(s) < OUT_MAX && inject_may_go_on(s)) {
        enum smtp_server_want want;

        s->stepping = true;
        want = smtp_server_step(&s->server, in, inject_out(s));
        s->stepping = false;
        inject_watched_heard(s, want);
        switch (want) {
        case SMTP_SERVER_INPUT:
            return;
        case SMTP_SERVER_TLS:
            if (inject_tls_answer(s, in->len))
                set_state(s, INJECT_AGREED);
            break;
        case SMTP_SERVER_BODY:
            inject_body_add(s, s->server.body);
            break;
        case SMTP_SERVER_ABORT:
            inject_body_drop(s);
            break;
        case SMTP_SERVER_CLOSE:
            set_state(s,
                      in->len > 0 || smtp_server_cut_off(&s->server) ? INJECT_TALKED : INJECT_BYE);
            break;
        case SMTP_SERVER_HELO:
        case SMTP_SERVER_AUTH:
        case SMTP_SERVER_XCLIENT:
        case SMTP_SERVER_MAIL:
        case SMTP_SERVER_RCPT:
        case SMTP_SERVER_DATA:
        case SMTP_SERVER_MESSAGE:
            inject_answer(s, want);
            break;
        }
    }
}

static size_t pending_len(const struct inject *s)
{
    ASSERT(s->pending_at <= s->pending.len);
    return s->pending.len - s->pending_at;
}

/* How many bytes that a client pipelines behind its commits are kept, where there is room. Of a
 * client that does not read its replies no more are kept. */
static size_t pending_max(const struct inject *s)
{
    return !inject_login_pending(s) && !inject_may_go_on(s) && inject_has_room(s, 0)
               ? INJECT_PENDING_MAX
               : 0;
}

/* Drops the pending bytes that are used: all but the last left bytes. These move only when they are
 * the smaller part: a client that pipelines a hundred messages must not have the rest of them moved
 * after each. */
static void pending_consume(struct inject *s, size_t left)
{
    ASSERT(left <= pending_len(s));
    s->pending_at = s->pending.len - left;
    if (left == 0) {
        pending_drop(s);
    } else if (left <= s->pending_at) {
        buf_consume(&s->pending, s->pending_at);
        s->pending_at = 0;
    }
}

static void drain_say(struct inject *s)
{
    if (s->worker->draining && s->state == INJECT_OPEN && list_empty(&s->answers) &&
        pending_len(s) == 0 && smtp_server_idle(&s->server))
        say_and_end(s, INJECT_DRAINING "\r\n");
}

/* New bytes behind what is pending. Either or both may be empty. */
static void inject_process(struct inject *s, const uint8_t *data, size_t len)
{
    struct smtp_server_input in = {data, len};

    if (pending_len(s) > 0) {
        pending_put(s, data, len);
        in = (struct smtp_server_input){s->pending.data + s->pending_at, pending_len(s)};
        inject_run(s, &in);
        pending_consume(s, s->state == INJECT_OPEN ? in.len : 0);
    } else {
        inject_run(s, &in);
        if (s->state == INJECT_OPEN)
            pending_put(s, in.data, in.len);
    }
    inject_count(s);
    drain_say(s);
    mark_dirty(s);
}

/* The header, or a part of it. What is none ends without a word: it may be no SMTP client. */
static void on_proxy_input(struct inject *s, const uint8_t *data, size_t len)
{
    switch (inject_proxy_input(s, data, len)) {
    case PROXY_HEADER_MORE:
        break;
    case PROXY_HEADER_BAD:
        inject_end(s);
        break;
    case PROXY_HEADER_DONE:
        set_state(s, INJECT_OPEN);
        inject_admit(s);
        break;
    }
}

static void on_recv(struct stream *stream, int32_t result, const uint8_t *data)
{
    struct inject *s = CONTAINER_OF(stream, struct inject, stream);

    if (s->state == INJECT_PROXY && result > 0) {
        on_proxy_input(s, data, (size_t)result);
    } else if (s->state == INJECT_PROXY) { /* a check that only connects, or a client that went */
        inject_end(s);
    } else if (result > 0) {
        if (s->state == INJECT_OPEN) {
            touch(s);
            inject_process(s, data, (size_t)result);
        } else if (s->state == INJECT_BYE) {
            set_state(s, INJECT_TALKED);
        } else if (s->state == INJECT_AGREED) { /* as in answer_starttls() */
            inject_end(s);
            return;
        } else if ((s->heard += (uint32_t)result) > HEARD_MAX) {
            inject_end(s);
        }
    } else if (result == 0 && s->state != INJECT_SHAKING) {
        s->input = INJECT_ENDED; /* perhaps only its sending side: it may wait for replies */
    } else if (result != -ECANCELED) {
        inject_end(s);
    }
    if (s->state != INJECT_DEAD)
        mark_dirty(s);
}

static void on_sent(struct stream *stream, int32_t result)
{
    struct inject *s = CONTAINER_OF(stream, struct inject, stream);

    buf_clear(&s->sending);
    if (result < 0) {
        inject_end(s);
    } else if (s->state != INJECT_OPEN) {
        mark_dirty(s);
    } else {
        if (!s->unhurried) /* else it was sent when it was said */
            touch(s);
        inject_process(s, NULL, 0); /* the session may have waited for the client to read */
    }
}

static const struct stream_handlers stream_handlers = {on_recv, on_sent};

static void inject_receive(struct inject *s)
{
    bool wanted = rules[s->state].hears || s->state == INJECT_PROXY ||
                  (s->state == INJECT_OPEN && pending_len(s) <= pending_max(s));

    if (!wanted && s->input == INJECT_STREAM) {
        s->input = INJECT_BY_ONE;
        stream_recv_stop(&s->stream);
    }
    if (!wanted || s->input == INJECT_ENDED || stream_receiving(&s->stream))
        return;
    if (s->input == INJECT_STREAM)
        stream_recv(&s->stream);
    else
        stream_recv_once(&s->stream);
}

/* The state is INJECT_SHAKING, and nothing is on its way to the client. */
static void handshake_begin(struct inject *s)
{
    ASSERT(s->state == INJECT_SHAKING && s->out.len == 0 && !stream_sending(&s->stream));
    if (inject_tls_begin(s) < 0) {
        inject_end(s);
        return;
    }
    deadline_set(s, s->settings->tls_timeout_ms);
    /* What a balancer sent behind its header. */
    stream_resume(&s->stream, buf_str(&s->pending));
    pending_drop(s);
    inject_receive(s);
}

/* All that was written is sent. */
static void inject_said(struct inject *s)
{
    enum inject_state next = s->input == INJECT_ENDED ? INJECT_DEAD : rules[s->state].when_said;

    ASSERT(s->behind.len == s->behind_at || !list_empty(&s->answers));
    if (!list_empty(&s->answers) || inject_asked_others(s) || next == s->state)
        return;
    if (next == INJECT_DEAD) {
        inject_end(s);
        return;
    }
    set_state(s, next);
    if (next == INJECT_SHAKING) {
        handshake_begin(s);
        return;
    }
    stream_send_end(&s->stream); /* whoever waits for an answer waits no longer */
    deadline_set(s, LAST_WORD_MS);
    inject_receive(s);
}

static void inject_flush(struct inject *s)
{
    struct buf empty;

    ASSERT(s->state != INJECT_DEAD); /* the dead are in another list */
    inject_receive(s);
    if (stream_sending(&s->stream))
        return;
    if (s->out.len == 0) {
        if (stream_flush(&s->stream) < 0)
            inject_end(s);
        else
            inject_said(s);
        return;
    }
    ASSERT(s->sending.len == 0);
    empty = s->sending;
    s->sending = s->out;
    s->out = empty;
    inject_watched_said(s);
    s->iov = (struct iovec){s->sending.data, s->sending.len};
    s->unhurried = s->state == INJECT_OPEN && s->input != INJECT_ENDED && pending_len(s) == 0;
    if (stream_send(&s->stream, &s->iov, 1, s->unhurried) < 0)
        inject_end(s);
}

static void refuse_and_end(struct inject *s, const char *refusal)
{
    struct buf line = {0};

    inject_refused(&s->server, str_of(refusal));
    buf_printf(&line, "%s\r\n", refusal);
    buf_putc(&line, '\0');
    say_and_end(s, (const char *)line.data);
    buf_done(&line);
    deadline_set(s, LAST_WORD_MS);
}

void inject_shaken(struct inject *s, bool complete)
{
    const char *refusal;

    if (!complete) { /* the alert goes out, and the client is heard until it has read that */
        set_state(s, INJECT_TALKED);
        mark_dirty(s);
        return;
    }
    set_state(s, INJECT_OPEN);
    stream_hold(&s->stream); /* for the greeting */
    smtp_server_encrypted(&s->server);
    inject_login_secured(s);
    s->helo[0] = '\0';
    refusal = inject_certificate_take(s);
    inject_logout(s);      /* what was said in plaintext is forgotten */
    if (refusal != NULL) { /* in the place of the greeting, or of the answer to EHLO */
        refuse_and_end(s, refusal);
        return;
    }
    if (inject_tls_implicit(s))
        smtp_server_greet(&s->server, &s->out, s->worker->draining ? INJECT_DRAINING : NULL);
    touch(s);
    inject_process(s, NULL, 0);
}

void inject_flush_all(struct worker *w)
{
    struct list_node *n, *next;

    while ((n = list_pop_front(&w->injects_dirty)) != NULL)
        inject_flush(LIST_ENTRY(n, struct inject, dirty_node));
    for (n = list_first(&w->injects_dead); n != NULL; n = next) {
        struct inject *s = LIST_ENTRY(n, struct inject, dirty_node);

        next = list_next(&w->injects_dead, n);
        if (stream_busy(&s->stream))
            continue;
        list_remove(&s->dirty_node);
        stream_close(&s->stream, false);
        inject_free(s);
    }
    inject_rejections_flush(w);
}

/* --- the beginning of a session --- */

/* A client that is offered SCRAM takes it, and many try nothing else when it fails: so it is
 * offered where each user has keys for it. */
static uint32_t mechanisms_of(const struct inject_listener *l)
{
    if (strcmp(l->settings->auth, "none") == 0)
        return 0;
    return SMTP_AUTH_PLAIN | SMTP_AUTH_LOGIN | (l->config->auth.scram ? SMTP_AUTH_SCRAM : 0u);
}

static struct smtp_server_options server_options(const struct inject_listener *l)
{
    const struct config_listener *c = l->settings;

    return (struct smtp_server_options){
        .host_name = c->host_name != NULL ? c->host_name : l->config->host_name,
        .message_bytes_max = c->message_bytes_max,
        .recipients_max = c->recipients_max,
        .line_bytes_max = c->command_line_bytes_max,
        .body_line_bytes_max = c->body_line_bytes_max,
        .errors_max = c->errors_max,
        .commands_max = c->commands_max,
        .messages_max = c->messages_max,
        .auth = mechanisms_of(l),
        .auth_without_tls = c->auth_without_tls,
        .auth_required = strcmp(c->auth, "required") == 0,
        .starttls = strcmp(c->tls, "starttls") == 0,
        .tls_required = c->tls_required || strcmp(c->client_certificates, "require") == 0,
        .on_refused = inject_refused};
}

/* NULL: come in. */
static const char *session_refusal(struct inject *s)
{
    struct shared *all = s->worker->shared;
    _Atomic uint32_t *sessions = &all->listener_sessions[s->listener->index];
    uint32_t max = s->settings->sessions_max;

    ASSERT(!s->counted);
    if (s->worker->draining)
        return INJECT_DRAINING;
    if (s->settings->proxy_from_len > 0 && !s->proxied)
        return "421 4.7.0 connect to the balancer of this port";
    /* Strangers get half, where others are known by their addresses. */
    if (!inject_may_relay(s) && !s->options.auth_required)
        max = (max + 1) / 2;
    if (atomic_fetch_add(sessions, 1) >= max) {
        atomic_fetch_sub(sessions, 1);
        return "421 4.3.2 too many sessions, try again later";
    }
    if (!clients_take(&all->clients, (struct sockaddr *)&s->peer, s->listener->index,
                      s->settings->sessions_per_client_max)) {
        atomic_fetch_sub(sessions, 1);
        return "421 4.7.0 too many sessions from your address";
    }
    s->counted = true;
    return NULL;
}

/* What the client's address says of it. NULL: come in. */
static const char *client_refusal(struct inject *s)
{
    const struct sockaddr *peer = (const struct sockaddr *)&s->peer;

    s->options.trusted = inject_may_relay(s);
    s->options.repair_newlines = config_repairs_newlines(s->settings, peer);
    s->options.xclient = inject_may_name_client(s);
    peer_text(peer, s->peer_ip, s->peer_text);
    return session_refusal(s);
}

void inject_admit_other(struct inject *s, const struct sockaddr_storage *client)
{
    uncount(s);
    inject_certificate_drop(s); /* it was the proxy's */
    s->options.auth &= ~(uint32_t)(SMTP_AUTH_EXTERNAL | SMTP_AUTH_SCRAM_PLUS);
    s->helo[0] = '\0';
    s->nobody = client == NULL;
    if (client != NULL)
        s->peer = *client;
    inject_logout(s);
    smtp_server_greet(&s->server, inject_out(s), client_refusal(s));
}

/* The session knows its client: greets it, begins with TLS, or says why not; but not where a
 * handshake would come first, since that is what costs. */
static void inject_admit(struct inject *s)
{
    bool implicit = inject_tls_implicit(s);
    const char *refusal = client_refusal(s);

    if (!implicit || refusal != NULL)
        smtp_server_greet(&s->server, &s->out, refusal);
    if (!implicit) {
        touch(s);
        inject_process(s, NULL, 0);
    } else if (refusal == NULL) {
        set_state(s, INJECT_SHAKING);
        handshake_begin(s);
    } else {
        inject_end(s);
    }
}

void inject_begin(struct inject_listener *l, int fd)
{
    struct worker *w = l->worker;
    struct sockaddr_storage peer;
    struct inject *s;

    /* Who has gone again already, as a check that only connects may have, has no address. */
    if (io_peer_name(w->io, fd, &peer) < 0 || (s = pool_get(&w->inject_pool)) == NULL) {
        io_close_fd(w->io, fd, true);
        return;
    }
    s->peer = peer;
    s->worker = w;
    s->listener = l;
    s->config = config_ref(l->config);
    s->settings = l->settings;
    s->options = server_options(l);
    stream_init(&s->stream, &w->streams, &stream_handlers);
    stream_attach(&s->stream, fd);
    list_init(&s->answers);
    s->timer.on_timer = on_timer;
    s->started_ms = io_now_ms(w->io);
    worker_session_id(w, s->id);
    list_push_back(&w->injects, &s->node);
    w->injects_len++;
    counter_add(&w->counters.sessions_in_total, 1);
    gauge_set(&w->counters.sessions_in, w->injects_len);
    smtp_server_init(&s->server, &s->options);
    if (inject_proxy_expected(s)) {
        s->state = INJECT_PROXY;
        deadline_set(s, PROXY_MS);
        mark_dirty(s);
    } else {
        s->state = INJECT_OPEN;
        inject_admit(s);
    }
}

void inject_drain(struct worker *w, bool hard)
{
    struct list_node *n, *next;

    for (size_t i = 0; i < w->listeners_len; i++) {
        io_cancel(w->io, &w->listeners[i].accept);
        inject_listener_close(&w->listeners[i]);
    }
    for (n = list_first(&w->injects); n != NULL; n = next) {
        struct inject *s = LIST_ENTRY(n, struct inject, node);

        next = list_next(&w->injects, n);
        if (hard || s->state == INJECT_SHAKING)
            inject_end(s);
        else
            drain_say(s);
    }
}

/* An accept that was cancelled may still bring a session. */
bool inject_drained(const struct worker *w)
{
    for (size_t i = 0; i < w->listeners_len; i++)
        if (io_op_busy(&w->listeners[i].accept))
            return false;
    return list_empty(&w->injects);
}

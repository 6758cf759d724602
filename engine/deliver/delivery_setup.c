/* From the first address to a session that is ready, and what keeps it from that. */
#include "deliver/delivery_private.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "deliver/login.h"
#include "deliver/proxying.h"
#include "deliver/sessions.h"
#include "dns/name.h"
#include "outcome/classify.h"
#include "outcome/policy.h"
#include "outcome/rule_act.h"
#include "worker/shared.h"

#define LOGIN_COMPLAINT_MS 60000

void delivery_count_connecting(struct channel *c, int more)
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

static int connect_next(struct delivery *d)
{
    int err = d->again ? dial_again(&d->dial, d->channel) : dial_next(&d->dial, d->channel);

    d->again = false;
    if (err < 0)
        return err;
    stream_attach(&d->stream, d->dial.fd);
    d->error = 0;
    counter_add(&d->worker->counters.connects, 1);
    delivery_arm_timer(d);
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

/* Whether no socket was had since the source's address is gone, or has no route: its channel leaves
 * its turns. */
static bool left_turns(struct delivery *d)
{
    if (dial_addresses(d->channel) == 0)
        (void)channel_look(d->channel);
    else if (dial_is_lost(&d->dial))
        channel_unrouted(d->channel);
    else
        return false;
    return true;
}

bool delivery_open(struct channel *c, bool urgent)
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
    d->session.urgent = urgent;
    d->dial.offset = site->rotate++;
    d->state = DELIVERY_CONNECTING;
    d->dial.connect.on_event = on_connect;
    stream_init(&d->stream, &w->streams, &delivery_stream_handlers);
    d->timer.on_timer = delivery_on_timer;
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
        } else if (!left_turns(d)) {
            if (!dial_in_doubt(&d->dial, site))
                log_warn("delivery.socket_failed", "site=%s address=%s error=\"%s\"", site->name,
                         d->dial.peer_addr, strerror(-err));
            no_socket(d, err);
        }
        goto fail;
    }
    delivery_count_connecting(c, 1);
    sessions_begun(c, d);
    list_push_back(&w->deliveries_all, &d->all_node);
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
    if (!d->reopen && dial_is_lost(&d->dial)) {
        delivery_close(d);
        channel_unrouted(d->channel);
        return;
    }
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

static bool is_own(const struct delivery *d)
{
    return d->channel->options.own_names != NULL && dial_is_own(&d->dial, d->site);
}

/* The connection leads to a listener of ours, or to whom this host has on its loopback addresses,
 * or would have: the address ends as if it had said 521. */
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
           (d->secure.active && d->state == DELIVERY_GREETING && event->stage != SMTP_STAGE_AUTH);
}

/* Mail waits until somebody mends this, so he should hear of it: a line a minute. */
static void login_failed(struct delivery *d, const struct smtp_event *event)
{
    struct site *site = d->site;
    uint64_t now_ms = io_now_ms(d->worker->io);
    char code[8] = ""; /* 0: the words are ours */

    counter_add(&d->worker->counters.logins_out_failed, 1);
    if (now_ms < site->login_complaint_ms)
        return;
    site->login_complaint_ms = now_ms + LOGIN_COMPLAINT_MS;
    if (event->reply->code != 0)
        snprintf(code, sizeof(code), "%u ", event->reply->code);
    log_warn("delivery.auth_failed",
             "session=%s site=%s host=%s address=%s user=\"%s\" reply=\"%s%.*s\" action=\"mail "
             "waits; mend the credentials, or what the reply names\"",
             d->id, site->name, d->dial.peer_name, d->dial.peer_addr, d->channel->options.auth_user,
             code, (int)event->reply->text_len, event->reply->text);
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

void delivery_setup_over(struct delivery *d, const struct smtp_event *event)
{
    struct outcome outcome = {.stage = event->stage};
    struct verdict verdict;

    if (d->orphaned) {
        delivery_close(d);
        (void)channel_look(d->channel);
        return;
    }
    if (host_lacked(d)) {
        sessions_shortage(d->channel, d->error);
        delivery_close(d);
        return;
    }
    if (d->state <= DELIVERY_PROXYING && proxying_to(d) != NULL && !d->worker->draining) {
        on_proxy_failed(d);
        return;
    }
    if (d->state == DELIVERY_CONNECTING && is_own(d)) {
        on_own_address(d);
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
    if (event->reply->code != 0) {
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

void delivery_setup_ready(struct delivery *d)
{
    ASSERT(d->channel->connecting > 0 && d->letters_len == 0 && d->held_len == 0);
    delivery_count_connecting(d->channel, -1);
    delivery_set_state(d, DELIVERY_OPEN);
    delivery_arm_timer(d);
    source_describe(d);
    source_connected(d->channel->state, d->dial.exchanger.addr.sa.sa_family);
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

void delivery_begin_handshake(struct delivery *d)
{
    int err;

    if (!d->secure.due || stream_sending(&d->stream))
        return;
    delivery_set_state(d, DELIVERY_HANDSHAKE);
    err = secure_handshake(d, on_tls_ended);
    if (err < 0) {
        sessions_shortage(d->channel, err);
        delivery_close(d);
    }
}

bool delivery_named_by_route(const struct delivery *d)
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

bool delivery_begin_greeting(struct delivery *d)
{
    if (d->state == DELIVERY_PROXYING)
        proxying_opened(d);
    delivery_set_state(d, DELIVERY_GREETING);
    d->connected_ms = io_now_ms(d->worker->io);
    if (is_own(d)) {
        on_own_address(d);
        return false;
    }
    if (!stream_receiving(&d->stream))
        stream_recv(&d->stream);
    secure_begin(d);
    if (d->site->dest->auth_without_tls)
        smtp_client_trust(d->client, false);
    d->secure.due = d->secure.implicit;
    delivery_begin_handshake(d);
    return d->state != DELIVERY_CLOSING;
}

bool delivery_connected(struct delivery *d)
{
    if (proxying_to(d) == NULL)
        return delivery_begin_greeting(d);
    delivery_set_state(d, DELIVERY_PROXYING);
    if (proxying_begin(d))
        stream_recv(&d->stream);
    return true;
}

bool delivery_proxy_data(struct delivery *d, const uint8_t **data, size_t *len)
{
    switch (proxying_input(d, data, len)) {
    case PROXYING_GOES_ON:
        delivery_dirty(d);
        return false;
    case PROXYING_FAILED:
        on_proxy_failed(d);
        return false;
    case PROXYING_OPEN:
        break;
    }
    if (!delivery_begin_greeting(d))
        return false;
    delivery_arm_timer(d);
    delivery_dirty(d);
    if (*len > 0 && d->secure.implicit) {
        tls_failed(d, "the peer sent something in front of the handshake");
        return false;
    }
    return *len > 0;
}

bool delivery_reopen(struct delivery *d)
{
    int err;

    smtp_client_free(d->client);
    d->client = smtp_client_new(&d->channel->options);
    ASSERT(d->client != NULL);
    d->reopen = d->greeted = d->unsendable = false;
    delivery_set_yielding(d, false);
    delivery_set_state(d, DELIVERY_CONNECTING);
    err = connect_next(d);
    if (err == 0) {
        delivery_count_connecting(d->channel, 1);
        return true;
    }
    if (dial_is_shortage(err))
        sessions_shortage(d->channel, err);
    else if (!left_turns(d) &&
             err != -EBUSY) /* other exchangers have as many sessions as they may */
        no_socket(d, err == -ENOENT ? -EHOSTUNREACH : err);
    return false;
}

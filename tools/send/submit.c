#include "tools/send/submit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/rng.h"

#define IOV_MAX_PIECES 64
#define RETRY_MIN_MS   100
#define RETRY_MAX_MS   5000
#define TROUBLE_BYTES  640

/* Timers: `timer` is the inactivity timeout while connected and the back-off while not. */
enum session_state {
    SESSION_WAITING,
    SESSION_CONNECTING,
    SESSION_UP,
    SESSION_ENDING,
    SESSION_DEAD
};

struct submit_session {
    struct submit *submit;
    enum session_state state;
    struct list_node hungry; /* submit->hungry: could take another transaction */
    struct io_op connect, recv, send;
    struct timer timer;
    int fd;
    struct smtp_client *client;
    uint64_t active_ms;
    uint32_t submitted; /* in this connection */
    uint32_t failures;  /* connections in a row without a message answered */
    bool ready, quitting, closed;
    char trouble[TROUBLE_BYTES];
    struct iovec iov[IOV_MAX_PIECES];
};

struct submit {
    struct io *io;
    struct submit_options options;
    struct submit_hooks hooks;
    void *arg;
    struct list hungry;
    struct pool outputs;
    struct rng rng;
    uint32_t alive, up;
    bool finishing;
    struct submit_session sessions[];
};

static void session_pump(struct submit_session *s);

/* --- the io of the command --- */

static volatile sig_atomic_t signals_seen;
static struct io *signal_io;

static void on_signal(int number)
{
    (void)number;
    signals_seen++;
    io_wake(signal_io);
}

int submit_io_open(struct io **out, const char *command, void (*on_tick)(void *arg), void *arg)
{
    struct io_options options = {.on_tick = on_tick, .arg = arg};
    struct sigaction action = {.sa_handler = on_signal};
    int err = io_open(out, &options);

    if (err < 0) {
        fprintf(stderr, "hayauma %s: %s\n", command, io_why_unavailable(err));
        return err;
    }
    signal_io = *out;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    return 0;
}

int submit_signals(void)
{
    return signals_seen;
}

/* --- sessions --- */

static uint64_t backoff_ms(struct submit_session *s)
{
    uint32_t doublings = s->failures < 10 ? s->failures : 10;
    uint64_t ms = (uint64_t)RETRY_MIN_MS << doublings;

    if (ms > RETRY_MAX_MS)
        ms = RETRY_MAX_MS;
    return ms / 2 + rng_below(&s->submit->rng, ms); /* so that they do not come back as one */
}

static void session_connect(struct submit_session *s)
{
    struct submit *all = s->submit;
    const struct endpoint *to = &all->options.to;
    uint64_t now_ms = io_now_ms(all->io);

    s->fd = io_stream(all->io, to->addr.ss_family, NULL, 0);
    if (s->fd < 0) {
        all->hooks.on_trouble(all->arg, strerror(-s->fd));
        s->failures++;
        s->state = SESSION_WAITING;
        wheel_arm(io_wheel(all->io), &s->timer, now_ms + backoff_ms(s));
        return;
    }
    s->state = SESSION_CONNECTING;
    s->active_ms = now_ms;
    s->submitted = 0;
    s->ready = s->quitting = s->closed = false;
    s->trouble[0] = '\0';
    wheel_arm(io_wheel(all->io), &s->timer, now_ms + all->options.timeout_ms);
    io_connect(all->io, &s->connect, s->fd, (const struct sockaddr *)&to->addr, to->len);
}

/* The connection is gone and nothing is in flight: what comes next? */
static void session_after(struct submit_session *s)
{
    struct submit *all = s->submit;
    bool again = all->options.reconnect || (s->quitting && s->trouble[0] == '\0');

    if (s->trouble[0] != '\0' && !all->finishing)
        all->hooks.on_trouble(all->arg, s->trouble);
    if (all->options.failures_max > 0 && s->failures >= all->options.failures_max)
        again = false;
    if (all->finishing || !again) {
        s->state = SESSION_DEAD;
        all->alive--;
        return;
    }
    s->state = SESSION_WAITING;
    wheel_arm(io_wheel(all->io), &s->timer,
              io_now_ms(all->io) + (s->failures == 0 ? 0 : backoff_ms(s)));
}

/* Phase two: every operation has ended. The machine is told of the loss only now, so that no
 * message is handed back while the kernel still reads it. */
static void session_reap(struct submit_session *s)
{
    struct submit *all = s->submit;

    if (io_op_busy(&s->connect) || io_op_busy(&s->recv) || io_op_busy(&s->send))
        return;
    if (s->client != NULL) {
        if (!s->closed) {
            smtp_client_lost(s->client, s->trouble);
            session_pump(s);
        }
        smtp_client_free(s->client);
        s->client = NULL;
    }
    io_close_fd(all->io, s->fd, false);
    if (s->ready)
        all->up--;
    session_after(s);
}

/* Phase one. trouble: why, or NULL. */
static void session_end(struct submit_session *s, const char *trouble)
{
    struct submit *all = s->submit;

    if (s->state == SESSION_ENDING)
        return;
    if (trouble != NULL)
        snprintf(s->trouble, sizeof(s->trouble), "%s", trouble);
    if (s->trouble[0] != '\0')
        s->failures++;
    s->state = SESSION_ENDING;
    if (list_node_linked(&s->hungry))
        list_remove(&s->hungry);
    wheel_cancel(io_wheel(all->io), &s->timer);
    io_cancel(all->io, &s->connect);
    io_cancel(all->io, &s->recv);
    io_cancel(all->io, &s->send);
}

static void session_closed(struct submit_session *s, const struct smtp_event *event)
{
    const struct smtp_reply *r = event->reply;
    bool expected = s->quitting && (r == NULL || r->code < 400);
    char what[TROUBLE_BYTES] = "connection closed";

    s->closed = true;
    if (s->state == SESSION_ENDING)
        return; /* our own doing, with its reason */
    if (r != NULL && r->code != 0)
        snprintf(what, sizeof(what), "%s: %u %.*s", smtp_stage_name(event->stage), r->code,
                 (int)r->text_len, r->text);
    else if (r != NULL && r->text_len > 0)
        snprintf(what, sizeof(what), "%s: %.*s", smtp_stage_name(event->stage), (int)r->text_len,
                 r->text);
    session_end(s, expected ? NULL : what);
}

static void session_event(struct submit_session *s, const struct smtp_event *event)
{
    struct submit *all = s->submit;

    switch (event->kind) {
    case SMTP_EVENT_NONE:
    case SMTP_EVENT_STARTTLS: /* not wanted */
    case SMTP_EVENT_AUTH:
        break;
    case SMTP_EVENT_READY:
        s->ready = true;
        all->up++;
        if (all->finishing) {
            s->quitting = true;
            smtp_client_quit(s->client);
        }
        break;
    case SMTP_EVENT_RECIPIENT:
        if (event->fate == SMTP_FATE_REPLY)
            s->failures = 0;
        all->hooks.on_recipient(all->arg, event);
        break;
    case SMTP_EVENT_DONE:
        all->hooks.on_done(all->arg, event->transaction);
        break;
    case SMTP_EVENT_CLOSE:
        session_closed(s, event);
        break;
    }
}

/* Submits one more transaction; false when there is none to be had or no room for it. */
static bool session_feed(struct submit_session *s)
{
    struct submit *all = s->submit;
    uint32_t limit = all->options.messages_per_session;
    struct smtp_transaction *t;

    if (s->state != SESSION_UP || all->finishing || !smtp_client_can_submit(s->client))
        return false;
    if (limit > 0 && s->submitted >= limit) {
        if (!s->quitting)
            smtp_client_quit(s->client);
        s->quitting = true;
        return false;
    }
    t = all->hooks.next(all->arg);
    if (t == NULL) {
        if (!list_node_linked(&s->hungry))
            list_push_back(&all->hungry, &s->hungry);
        return false;
    }
    s->submitted++;
    smtp_client_submit(s->client, t);
    return true;
}

static void session_output(struct submit_session *s)
{
    size_t pieces;

    if (s->state != SESSION_UP || io_op_busy(&s->send))
        return;
    pieces = smtp_client_output(s->client, s->iov, IOV_MAX_PIECES);
    if (pieces > 0)
        io_send(s->submit->io, &s->send, s->fd, s->iov, pieces);
}

/* Events out, transactions in, bytes out. */
static void session_pump(struct submit_session *s)
{
    struct smtp_event event;

    do {
        while (smtp_client_next_event(s->client, &event) != SMTP_EVENT_NONE)
            session_event(s, &event);
    } while (session_feed(s));
    session_output(s);
}

/* Last in every handler: an ending session may go away here. */
static void session_settle(struct submit_session *s)
{
    if (s->state == SESSION_ENDING)
        session_reap(s);
}

static void on_session_connect(struct io_op *op, const struct io_event *event)
{
    struct submit_session *s = CONTAINER_OF(op, struct submit_session, connect);
    struct submit *all = s->submit;

    if (s->state == SESSION_CONNECTING && event->result < 0) {
        session_end(s, strerror(-event->result));
    } else if (s->state == SESSION_CONNECTING) {
        s->client = smtp_client_new(&all->options.client);
        ASSERT(s->client != NULL);
        s->state = SESSION_UP;
        io_recv(all->io, &s->recv, s->fd);
        session_pump(s);
    }
    session_settle(s);
}

static void on_session_recv(struct io_op *op, const struct io_event *event)
{
    struct submit_session *s = CONTAINER_OF(op, struct submit_session, recv);

    if (s->state == SESSION_UP && event->result > 0) {
        s->active_ms = io_now_ms(s->submit->io);
        smtp_client_input(s->client, event->data, (size_t)event->result);
        session_pump(s);
    } else if (s->state == SESSION_UP && event->result == 0) {
        session_end(s, s->quitting && smtp_client_in_flight(s->client) == 0
                           ? NULL
                           : "connection closed by the server");
    } else if (s->state == SESSION_UP) {
        session_end(s, strerror(-event->result));
    }
    session_settle(s);
}

static void on_session_send(struct io_op *op, const struct io_event *event)
{
    struct submit_session *s = CONTAINER_OF(op, struct submit_session, send);

    if (s->state == SESSION_UP && event->result < 0) {
        session_end(s, strerror(-event->result));
    } else if (s->state == SESSION_UP) {
        smtp_client_sent(s->client);
        session_pump(s);
    }
    session_settle(s);
}

static void on_session_timer(struct timer *timer)
{
    struct submit_session *s = CONTAINER_OF(timer, struct submit_session, timer);
    struct submit *all = s->submit;
    uint64_t now_ms = io_now_ms(all->io);
    uint64_t due_ms = s->active_ms + all->options.timeout_ms;

    if (s->state == SESSION_WAITING) {
        session_connect(s);
        return;
    }
    if (s->state == SESSION_UP && smtp_client_stage(s->client) == SMTP_STAGE_READY)
        due_ms = now_ms + all->options.timeout_ms; /* nothing is owed to us */
    if (now_ms < due_ms) {
        wheel_arm(io_wheel(all->io), timer, due_ms);
        return;
    }
    session_end(s, "timeout");
    session_settle(s);
}

int submit_open(struct submit **out, struct io *io, const struct submit_options *options,
                const struct submit_hooks *hooks, void *arg)
{
    struct submit *all =
        calloc(1, sizeof(*all) + (size_t)options->sessions * sizeof(struct submit_session));

    if (all == NULL)
        return -ENOMEM;
    all->io = io;
    all->options = *options;
    pool_init(&all->outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, SIZE_MAX);
    all->options.client.outputs = &all->outputs;
    all->hooks = *hooks;
    all->arg = arg;
    all->alive = options->sessions;
    list_init(&all->hungry);
    rng_seed(&all->rng, rng_entropy());
    *out = all;
    for (uint32_t i = 0; i < options->sessions; i++) {
        struct submit_session *s = &all->sessions[i];

        s->submit = all;
        s->connect.on_event = on_session_connect;
        s->recv.on_event = on_session_recv;
        s->send.on_event = on_session_send;
        s->timer.on_timer = on_session_timer;
        session_connect(s);
    }
    return 0;
}

void submit_poke(struct submit *all)
{
    struct list asked;
    struct list_node *node;

    list_init(&asked);
    list_splice_back(&asked, &all->hungry);
    while ((node = list_pop_front(&asked)) != NULL) {
        struct submit_session *s = LIST_ENTRY(node, struct submit_session, hungry);

        session_pump(s);
        session_settle(s);
        if (!list_empty(&all->hungry)) /* there was nothing for this one: nor for the rest */
            break;
    }
    list_splice_back(&all->hungry, &asked);
}

void submit_finish(struct submit *all)
{
    if (all->finishing)
        return;
    all->finishing = true;
    for (uint32_t i = 0; i < all->options.sessions; i++) {
        struct submit_session *s = &all->sessions[i];

        if (s->state == SESSION_WAITING) {
            wheel_cancel(io_wheel(all->io), &s->timer);
            s->state = SESSION_DEAD;
            all->alive--;
        } else if (s->state == SESSION_CONNECTING) {
            session_end(s, NULL);
            session_settle(s);
        } else if (s->state == SESSION_UP && !s->quitting && s->ready) {
            s->quitting = true;
            smtp_client_quit(s->client);
            session_pump(s);
            session_settle(s);
        }
    }
}

void submit_abort(struct submit *all)
{
    submit_finish(all);
    for (uint32_t i = 0; i < all->options.sessions; i++) {
        struct submit_session *s = &all->sessions[i];

        if (s->state != SESSION_UP)
            continue;
        session_end(s, "interrupted");
        session_settle(s);
    }
}

uint32_t submit_alive(const struct submit *all)
{
    return all->alive;
}

uint32_t submit_up(const struct submit *all)
{
    return all->up;
}

void submit_close(struct submit *all)
{
    if (all == NULL)
        return;
    ASSERT(all->alive == 0);
    pool_done(&all->outputs);
    free(all);
}

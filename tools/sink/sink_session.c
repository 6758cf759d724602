#include "tools/sink/sink_session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/sockaddr.h"
#include "tools/sink/sink_ledger.h"
#include "worker/stream_tls.h"

/* Input kept while an answer is delayed; beyond it the session stops reading. */
#define PENDING_BYTES_MAX ((size_t)64 * 1024)
/* A throttled session takes a slice of input this often. */
#define THROTTLE_MS 50

struct sink_session {
    struct sink_worker *worker;
    struct list_node node;  /* worker->sessions */
    struct list_node dirty; /* worker->dirty */
    uint64_t id;
    struct stream stream;
    struct timer timer; /* armed while waiting */
    struct smtp_server smtp;
    struct sink_class *session_class; /* by the address it came to */
    struct sink_class *class;         /* of the last recipient, else session_class */

    bool waiting; /* an answer is delayed, or input throttled */
    bool asked;   /* what the wait ends with: the answer to stage, fault and reply */
    bool eof;     /* the peer has ended its side */
    bool closing; /* close when all is sent */
    bool greeted;
    bool shaking; /* the handshake is due: STARTTLS was taken: nothing is read or said until the
                     handshake is complete */
    bool ending;  /* cancelled: freed on the last completion */
    bool body_seen;
    bool abort;        /* RST */
    uint32_t messages; /* taken */
    enum sink_stage stage;
    const struct sink_fault *fault;
    const char *reply;

    struct buf pending; /* input that came while waiting */
    struct buf out;     /* being written */
    struct buf sending; /* with the kernel */
    struct iovec iov;
    struct buf sender;
    struct buf recipients; /* each with a NUL behind it; the last one may still be in question */
    struct ledger_content content;
};

size_t sink_session_bytes(void)
{
    return sizeof(struct sink_session);
}

static struct sink_counters *session_counters(struct sink_session *s)
{
    return &s->worker->counters[s->class - s->worker->sink->behaviour->classes];
}

static void session_mark(struct sink_session *s)
{
    if (!list_node_linked(&s->dirty))
        list_push_back(&s->worker->dirty, &s->dirty);
}

/* Phase two of the end, from session_flush() only: everything is sent or cancelled. */
static void session_reap(struct sink_session *s)
{
    struct sink_worker *w = s->worker;

    if (stream_busy(&s->stream)) {
        list_push_back(&w->ending, &s->dirty);
        return;
    }
    s->class = s->session_class;
    if (s->greeted)
        atomic_fetch_sub_explicit(&s->session_class->shared.connections, 1, memory_order_relaxed);
    sink_count(&session_counters(s)->open, UINT64_MAX); /* one less */
    stream_close(&s->stream, s->abort);
    list_remove(&s->node);
    smtp_server_done(&s->smtp);
    ledger_content_done(&s->content);
    buf_done(&s->pending);
    buf_done(&s->out);
    buf_done(&s->sending);
    buf_done(&s->sender);
    buf_done(&s->recipients);
    pool_put(&w->pool, s);
}

/* Phase one: nothing more is read or sent. The session lives until the end of the turn at least. */
static void session_end(struct sink_session *s, bool abort)
{
    if (s->ending)
        return;
    s->ending = true;
    s->abort = abort;
    wheel_cancel(io_wheel(s->worker->io), &s->timer);
    stream_cancel(&s->stream, !abort);
    session_mark(s);
}

static void session_wait(struct sink_session *s, uint64_t delay_ms)
{
    struct io *io = s->worker->io;

    s->waiting = true;
    wheel_arm(io_wheel(io), &s->timer, io_now_ms(io) + delay_ms);
}

static void session_kept(struct sink_session *s, uint64_t recipients)
{
    struct sink_worker *w = s->worker;
    struct sink_counters *counters = session_counters(s);
    uint64_t now_ns = io_now_ns(w->io);

    sink_count(&counters->messages, 1);
    sink_count(&counters->recipients, recipients);
    sink_count(&counters->bytes, s->smtp.body_bytes);
    if (atomic_load_explicit(&counters->first_ns, memory_order_relaxed) == 0)
        atomic_store_explicit(&counters->first_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&counters->last_ns, now_ns, memory_order_relaxed);
    w->messages_turn++;
}

static void session_ledger(struct sink_session *s, struct str recipient)
{
    struct sink_worker *w = s->worker;

    if (w->sink->ledger_fd >= 0)
        ledger_line(&w->ledger, io_wall_ms(w->io), s->id, buf_str(&s->sender), recipient,
                    &s->content);
}

/* Who the session is from, in a line of its own: tests look up the ledger's session in it. */
static void session_note(struct sink_session *s)
{
    struct sink_worker *w = s->worker;
    struct sockaddr_storage peer = {0};
    const struct sockaddr_in *in = (const void *)&peer;
    const struct sockaddr_in6 *in6 = (const void *)&peer;
    char text[INET6_ADDRSTRLEN] = "-";
    struct buf line = {0};

    if (w->sink->sessions_fd < 0)
        return;
    (void)io_peer_name(w->io, s->stream.fd, &peer);
    if (peer.ss_family == AF_INET)
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    else if (peer.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
    ledger_session(&line, io_wall_ms(w->io), s->id, str_of(text), s->smtp.helo);
    if (ledger_flush(&line, w->sink->sessions_fd) < 0)
        s->abort = true;
    buf_done(&line);
}

static struct str next_recipient(const struct sink_session *s, size_t *at)
{
    struct str one = {NULL, 0};

    if (*at < s->recipients.len) {
        one = str_of((const char *)s->recipients.data + *at);
        *at += one.len + 1;
    }
    return one;
}

static struct str address_domain(struct str address)
{
    ptrdiff_t at = str_rfind(address, '@');

    return (struct str){address.ptr + at + 1, address.len - (size_t)(at + 1)};
}

static void session_count_reply(struct sink_session *s, const char *reply)
{
    struct sink_counters *counters = session_counters(s);

    sink_count(reply[0] == '4' ? &counters->deferred : &counters->refused, 1);
}

/* LMTP answers for each recipient after the dot (RFC 2033 4.2). */
static void session_message_lmtp(struct sink_session *s)
{
    struct sink_behaviour *b = s->worker->sink->behaviour;
    struct buf replies = {0};
    uint64_t kept = 0;
    size_t at = 0;

    for (struct str one; (one = next_recipient(s, &at)).ptr != NULL;) {
        const struct sink_fault *fault;

        s->class = sink_class_of_domain(b, address_domain(one));
        fault = sink_fault_draw(s->class, SINK_DOT, &s->worker->rng);
        if (replies.len > 0)
            buf_putc(&replies, '\n');
        if (fault != NULL && fault->reply != NULL) {
            session_count_reply(s, fault->reply);
            buf_puts(&replies, fault->reply);
            continue;
        }
        kept++;
        session_ledger(s, one);
        buf_puts(&replies, "250 2.0.0 OK");
    }
    buf_putc(&replies, '\0');
    if (kept > 0)
        session_kept(s, kept);
    smtp_server_answer(&s->smtp, &s->out, (const char *)replies.data);
    buf_done(&replies);
}

/* The message is taken: ledger first, then the answer. */
static void session_message(struct sink_session *s)
{
    const struct sink_fault *fault;
    size_t at = 0;

    if (s->worker->sink->ledger_fd >= 0)
        ledger_content_end(&s->content);
    if (s->worker->sink->lmtp) {
        session_message_lmtp(s);
        return;
    }
    for (struct str one; (one = next_recipient(s, &at)).ptr != NULL;)
        session_ledger(s, one);
    session_kept(s, s->smtp.rcpts);
    fault = sink_fault_draw(s->class, SINK_KEPT, &s->worker->rng);
    if (fault != NULL) {
        sink_count(&session_counters(s)->dropped, 1);
        session_end(s, fault->kind == SINK_RST);
        return;
    }
    smtp_server_answer(&s->smtp, &s->out, NULL);
    /* What was pipelined behind it is not looked at. */
    s->closing |= ++s->messages == s->session_class->close_after;
}

static void session_drop_last_recipient(struct sink_session *s)
{
    const char *begin = (const char *)s->recipients.data;
    size_t len = s->recipients.len - 1;
    const char *nul = len == 0 ? NULL : memrchr(begin, '\0', len);

    s->recipients.len = nul == NULL ? 0 : (size_t)(nul - begin) + 1;
}

/* Answers the question at hand as decided. */
static void session_answer(struct sink_session *s)
{
    const struct sink_fault *fault = s->fault;
    const char *reply = s->reply;

    s->asked = false;
    s->fault = NULL;
    s->reply = NULL;
    if (fault != NULL && fault->reply == NULL) {
        sink_count(&session_counters(s)->dropped, 1);
        session_end(s, fault->kind == SINK_RST);
        return;
    }
    if (fault != NULL)
        reply = fault->reply;
    if (reply != NULL) {
        session_count_reply(s, reply);
        if (s->stage == SINK_RCPT)
            session_drop_last_recipient(s);
    }
    if (s->stage == SINK_BANNER) {
        smtp_server_greet(&s->smtp, &s->out, reply);
        s->closing = reply != NULL;
    } else if (s->stage == SINK_DOT && reply == NULL) {
        session_message(s);
    } else {
        smtp_server_answer(&s->smtp, &s->out, reply);
    }
}

static void session_ask(struct sink_session *s, enum sink_stage stage, const char *reply)
{
    uint64_t delay_ms;

    s->stage = stage;
    s->reply = reply;
    s->asked = true;
    if (s->class->quiet) {
        session_answer(s);
        return;
    }
    /* In LMTP each recipient draws for itself. */
    if (stage != SINK_DOT || !s->worker->sink->lmtp)
        s->fault = sink_fault_draw(s->class, stage, &s->worker->rng);
    delay_ms = sink_latency_ms(&s->class->latency[stage], &s->worker->rng);
    if (delay_ms > 0)
        session_wait(s, delay_ms);
    else
        session_answer(s);
}

static void session_ask_rcpt(struct sink_session *s)
{
    struct sink_behaviour *b = s->worker->sink->behaviour;
    const struct smtp_address *to = &s->smtp.rcpt.recipient;
    const char *reply = NULL;

    if (s->smtp.rcpts == 0)
        buf_clear(&s->recipients);
    buf_put_str(&s->recipients, to->text);
    buf_putc(&s->recipients, '\0');
    if (b->classes_len > 1)
        s->class = sink_class_of_domain(b, to->domain);
    if (!s->class->quiet)
        reply = sink_recipient_reply(b, s->class, buf_str(&s->sender), to->text,
                                     io_now_ms(s->worker->io));
    session_ask(s, SINK_RCPT, reply);
}

static void session_body(struct sink_session *s)
{
    const struct sink_fault *fault;

    if (s->worker->sink->ledger_fd >= 0)
        ledger_content_add(&s->content, s->smtp.body.ptr, s->smtp.body.len);
    if (s->body_seen)
        return;
    s->body_seen = true;
    fault = sink_fault_draw(s->class, SINK_BODY, &s->worker->rng);
    if (fault != NULL) {
        sink_count(&session_counters(s)->dropped, 1);
        session_end(s, fault->kind == SINK_RST);
    }
}

static void session_handle(struct sink_session *s, enum smtp_server_want want)
{
    switch (want) {
    case SMTP_SERVER_INPUT:
        break;
    case SMTP_SERVER_HELO:
        s->class = s->session_class;
        session_note(s);
        session_ask(s, SINK_EHLO,
                    s->class->no_ehlo && s->smtp.esmtp ? "502 5.5.1 not implemented" : NULL);
        break;
    case SMTP_SERVER_AUTH: /* neither is offered */
    case SMTP_SERVER_XCLIENT:
        ASSERT(false);
    case SMTP_SERVER_MAIL:
        s->class = s->session_class;
        buf_clear(&s->sender);
        buf_put_str(&s->sender, s->smtp.mail.sender.text);
        buf_clear(&s->recipients);
        session_ask(s, SINK_MAIL, NULL);
        break;
    case SMTP_SERVER_RCPT:
        session_ask_rcpt(s);
        break;
    case SMTP_SERVER_DATA:
        ledger_content_reset(&s->content);
        s->body_seen = false;
        session_ask(s, SINK_DATA, NULL);
        break;
    case SMTP_SERVER_BODY:
        session_body(s);
        break;
    case SMTP_SERVER_MESSAGE:
        session_ask(s, SINK_DOT, NULL);
        break;
    case SMTP_SERVER_ABORT:
        ledger_content_reset(&s->content);
        buf_clear(&s->recipients);
        break;
    case SMTP_SERVER_CLOSE:
        s->closing = true;
        break;
    case SMTP_SERVER_TLS:
        smtp_server_answer(&s->smtp, &s->out, NULL);
        s->shaking = true;
        break;
    }
}

static void session_steps(struct sink_session *s, struct smtp_server_input *in)
{
    enum smtp_server_want want;

    while (!s->waiting && !s->closing && !s->ending && !s->shaking) {
        want = smtp_server_step(&s->smtp, in, &s->out);
        if (want == SMTP_SERVER_INPUT)
            break;
        session_handle(s, want);
    }
}

/* Takes what is pending, a slice at a time when throttled. */
static void session_work(struct sink_session *s)
{
    uint64_t rate = s->session_class->bytes_per_second;

    while (s->pending.len > 0 && !s->waiting && !s->closing && !s->ending && !s->shaking) {
        size_t slice = s->pending.len;
        struct smtp_server_input in = {s->pending.data, slice};

        if (rate > 0 && in.len > rate * THROTTLE_MS / 1000 + 1)
            slice = in.len = (size_t)(rate * THROTTLE_MS / 1000 + 1);
        session_steps(s, &in);
        buf_consume(&s->pending, slice - in.len);
        if (rate > 0 && !s->waiting && !s->ending)
            session_wait(s, THROTTLE_MS);
    }
}

/* After every change: reply, read on, or end. */
static void session_settle(struct sink_session *s)
{
    if (s->ending)
        return;
    if (s->out.len > 0 || s->closing || s->eof)
        session_mark(s);
    if (s->pending.len == 0 && !s->eof && !s->closing && !stream_receiving(&s->stream))
        stream_recv(&s->stream);
    if (s->pending.len > PENDING_BYTES_MAX && stream_receiving(&s->stream))
        stream_recv_stop(&s->stream);
}

/* Bytes behind STARTTLS, before the handshake: of a client that does not keep to RFC 3207, or of
 * somebody else. */
static bool session_injected(struct sink_session *s, size_t len)
{
    if (!s->shaking || len == 0)
        return false;
    session_end(s, true);
    return true;
}

static void session_input(struct sink_session *s, const uint8_t *data, size_t len)
{
    struct smtp_server_input in = {data, len};

    if (session_injected(s, len))
        return;
    if (!s->waiting && s->pending.len == 0 && s->session_class->bytes_per_second == 0) {
        session_steps(s, &in);
        if (!session_injected(s, in.len) && in.len > 0 && !s->ending && !s->closing)
            buf_put(&s->pending, in.data, in.len);
        return;
    }
    buf_put(&s->pending, data, len);
    session_work(s);
}

static void on_session_recv(struct stream *stream, int32_t result, const uint8_t *data)
{
    struct sink_session *s = CONTAINER_OF(stream, struct sink_session, stream);

    if (result > 0)
        session_input(s, data, (size_t)result);
    else if (result == 0)
        s->eof = true;
    else if (result != -ECANCELED)
        session_end(s, false);
    session_settle(s);
}

static void session_greet(struct sink_session *s);

static void on_session_tls(struct stream *stream, const char *error)
{
    struct sink_session *s = CONTAINER_OF(stream, struct sink_session, stream);

    s->shaking = false;
    if (error != NULL) {
        session_end(s, false);
    } else {
        smtp_server_encrypted(&s->smtp);
        if (!s->greeted)
            session_greet(s);
    }
    session_settle(s);
}

/* The 220 to STARTTLS is sent, or the connection begins with TLS. */
static void session_shake(struct sink_session *s)
{
    struct sink_worker *w = s->worker;
    struct tls_accept_options options = {.scope = STR("sink"), .version_min = TLS_1_2};
    struct tls *tls;

    if (w->sink->tls_no_resuming) /* a ticket is of no use where it was not given */
        options.scope = (struct str){(const char *)&s->id, sizeof(s->id)};
    tls = tls_accept(w->sink->tls, &options);
    if (tls == NULL || stream_tls_start(&s->stream, &w->handshakes, tls, on_session_tls) < 0)
        session_end(s, true);
}

static void on_session_sent(struct stream *stream, int32_t result)
{
    struct sink_session *s = CONTAINER_OF(stream, struct sink_session, stream);

    buf_clear(&s->sending);
    if (result < 0)
        session_end(s, false);
    else if (s->shaking && s->out.len == 0)
        session_shake(s);
    if (s->ending || s->out.len > 0 || s->closing || s->eof)
        session_mark(s);
}

static const struct stream_handlers stream_handlers = {on_session_recv, on_session_sent};

static void on_session_timer(struct timer *timer)
{
    struct sink_session *s = CONTAINER_OF(timer, struct sink_session, timer);
    struct smtp_server_input none = {(const uint8_t *)"", 0};

    s->waiting = false;
    if (s->asked)
        session_answer(s);
    if (!s->ending && s->pending.len == 0)
        session_steps(s, &none); /* to learn of a close */
    if (!s->ending) {
        session_work(s);
        session_settle(s);
    }
}

static void session_flush(struct sink_session *s)
{
    struct buf swap;

    if (s->ending) {
        session_reap(s);
    } else if (stream_sending(&s->stream)) {
        return; /* its completion comes back here */
    } else if (s->out.len > 0) {
        swap = s->sending;
        s->sending = s->out;
        s->out = swap;
        s->iov = (struct iovec){s->sending.data, s->sending.len};
        if (stream_send(&s->stream, &s->iov, 1, false) < 0)
            session_end(s, false);
    } else if (s->closing || (s->eof && !s->waiting && s->pending.len == 0)) {
        session_end(s, false);
    }
}

void sink_session_flush_all(struct sink_worker *w)
{
    /* A session that ends here is marked again and reaped in the same pass, or in a later turn. */
    list_splice_back(&w->dirty, &w->ending);
    for (struct list_node *node; (node = list_pop_front(&w->dirty)) != NULL;)
        session_flush(LIST_ENTRY(node, struct sink_session, dirty));
}

void sink_session_abort_all(struct sink_worker *w)
{
    for (struct list_node *node = list_first(&w->sessions); node != NULL;
         node = list_next(&w->sessions, node))
        session_end(LIST_ENTRY(node, struct sink_session, node), false);
}

/* Whether the class of a new session has room for it. */
static bool session_admitted(struct sink_session *s)
{
    struct sink_class *c = s->session_class;
    uint32_t before = atomic_fetch_add_explicit(&c->shared.connections, 1, memory_order_relaxed);

    return c->connections_max == 0 || before < c->connections_max;
}

static void session_greet(struct sink_session *s)
{
    struct sink_class *c = s->session_class;
    bool admitted = session_admitted(s);

    s->greeted = true;
    if (admitted) {
        session_ask(s, SINK_BANNER, NULL);
    } else if (c->connections_reset) {
        sink_count(&session_counters(s)->dropped, 1);
        session_end(s, true);
    } else {
        s->stage = SINK_BANNER;
        s->reply = c->connections_reply;
        session_answer(s);
    }
}

void sink_session_start(struct sink_worker *w, int fd)
{
    struct sink_behaviour *b = w->sink->behaviour;
    struct sink_session *s = pool_get(&w->pool);
    struct sink_counters *counters;
    struct sockaddr_storage local = {0};
    uint64_t open;

    if (s == NULL) {
        io_close_fd(w->io, fd, false);
        return;
    }
    s->worker = w;
    stream_init(&s->stream, &w->streams, &stream_handlers);
    stream_attach(&s->stream, fd);
    s->id = w->next_session++;
    s->timer.on_timer = on_session_timer;
    s->session_class = &b->classes[b->classes_len - 1];
    if ((b->classes_len > 1 || w->sink->tls != NULL) && io_local_name(w->io, fd, &local) == 0 &&
        b->classes_len > 1)
        s->session_class = sink_class_of_address(b, &local);
    s->class = s->session_class;
    list_push_back(&w->sessions, &s->node);
    smtp_server_init(&s->smtp, &s->session_class->options);

    counters = session_counters(s);
    sink_count(&counters->sessions, 1);
    sink_count(&counters->open, 1);
    open = atomic_load_explicit(&counters->open, memory_order_relaxed);
    if (open > atomic_load_explicit(&counters->open_max, memory_order_relaxed))
        atomic_store_explicit(&counters->open_max, open, memory_order_relaxed);
    if (w->sink->tls != NULL && sockaddr_port((struct sockaddr *)&local) == SINK_TLS_PORT) {
        s->shaking = true;
        session_shake(s);
    } else {
        session_greet(s);
    }
    session_settle(s);
}

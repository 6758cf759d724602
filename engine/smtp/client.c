/* What the client receives: replies to their commands, and the events that come of them. */
#include "smtp/client.h"

#include <stdlib.h>

#include "smtp/client_private.h"

/* An input buffer beyond this is given back when it is empty. */
#define INPUT_KEEP_BYTES_MAX 4096
/* RSET, MAIL, RCPT and DATA or BODY. */
#define EXPECTED_PER_TRANSACTION 4
#define PIPELINE_MAX             1024
#define ENVID_BYTES_MAX          100 /* RFC 3461 */
#define ORCPT_BYTES_MAX          500

/* How the reply to a command is handled. e->transaction is set where the table says so. */
typedef void reply_fn(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply);

static reply_fn on_banner, on_ehlo, on_helo, on_mail, on_rcpt, on_data, on_body, on_rset, on_quit;

static const struct {
    const char *name;
    reply_fn *on_reply;
} stages[SMTP_STAGES] = {
    [SMTP_STAGE_CONNECT] = {"connect", NULL},   [SMTP_STAGE_BANNER] = {"banner", on_banner},
    [SMTP_STAGE_EHLO] = {"ehlo", on_ehlo},      [SMTP_STAGE_HELO] = {"helo", on_helo},
    [SMTP_STAGE_STARTTLS] = {"starttls", NULL}, [SMTP_STAGE_READY] = {"ready", NULL},
    [SMTP_STAGE_MAIL] = {"mail", on_mail},      [SMTP_STAGE_RCPT] = {"rcpt", on_rcpt},
    [SMTP_STAGE_DATA] = {"data", on_data},      [SMTP_STAGE_BODY] = {"body", on_body},
    [SMTP_STAGE_RSET] = {"rset", on_rset},      [SMTP_STAGE_QUIT] = {"quit", on_quit},
};

const char *smtp_stage_name(enum smtp_stage stage)
{
    return stages[stage].name;
}

/* --- the FIFO of commands with their expected replies --- */

struct expected *client_expected_first(struct smtp_client *c)
{
    return c->expected_head == c->expected_tail ? NULL
                                                : &c->expected[c->expected_head & c->expected_mask];
}

void client_expect(struct smtp_client *c, struct smtp_transaction *t, enum smtp_stage stage)
{
    struct expected *last = &c->expected[(c->expected_tail - 1) & c->expected_mask];

    if (stage == SMTP_STAGE_RCPT && c->expected_head != c->expected_tail &&
        last->transaction == t && last->stage == stage) {
        last->count++;
        return;
    }
    ASSERT(c->expected_tail - c->expected_head <= c->expected_mask);
    c->expected[c->expected_tail++ & c->expected_mask] =
        (struct expected){.transaction = t, .count = 1, .stage = (uint8_t)stage};
    if (t != NULL)
        t->expected++;
}

/* --- life --- */

static uint32_t pipeline_max(const struct smtp_client_options *options)
{
    uint32_t n = options->pipeline_max;

    return n == 0 ? 1 : n > PIPELINE_MAX ? PIPELINE_MAX : n;
}

static uint32_t expected_slots(const struct smtp_client_options *options)
{
    uint32_t n = pipeline_max(options), slots = 1;

    /* Without CHUNKING two transactions overlap. */
    while (slots < EXPECTED_PER_TRANSACTION * (n < 2 ? 2 : n) + 1)
        slots *= 2;
    return slots;
}

size_t smtp_client_bytes(void)
{
    return sizeof(struct smtp_client);
}

static void on_ehlo_line(void *arg, struct str line)
{
    struct smtp_client *c = arg;

    if (c->parser.reply.code / 100 == 2 && c->parser.first_line_seen)
        smtp_peer_line(&c->peer, line);
}

struct smtp_client *smtp_client_new(const struct smtp_client_options *options)
{
    uint32_t slots = expected_slots(options);
    struct smtp_client *c = malloc(sizeof(*c) + slots * sizeof(c->expected[0]));

    if (c == NULL)
        return NULL;
    *c = (struct smtp_client){.options = options, .expected_mask = slots - 1};
    list_init(&c->transactions);
    list_init(&c->unable);
    smtp_reply_parser_reset(&c->parser);
    client_expect(c, NULL, SMTP_STAGE_BANNER);
    return c;
}

void smtp_client_free(struct smtp_client *c)
{
    if (c == NULL)
        return;
    while (list_pop_front(&c->transactions) != NULL || list_pop_front(&c->unable) != NULL)
        ;
    buf_done(&c->in);
    free(c);
}

/* --- what the caller may ask --- */

uint32_t smtp_client_capabilities(const struct smtp_client *c)
{
    return c->peer.capabilities;
}

uint64_t smtp_client_size_max(const struct smtp_client *c)
{
    return c->peer.size_max;
}

uint32_t smtp_client_mail_max(const struct smtp_client *c)
{
    return c->peer.mail_max;
}

uint32_t smtp_client_rcpt_max(const struct smtp_client *c)
{
    return c->peer.rcpt_max;
}

uint32_t smtp_client_rcpt_domain_max(const struct smtp_client *c)
{
    return c->peer.rcpt_domain_max;
}

uint32_t smtp_client_in_flight(const struct smtp_client *c)
{
    return c->in_flight;
}

enum smtp_stage smtp_client_stage(const struct smtp_client *c)
{
    if (c->expected_head != c->expected_tail)
        return c->expected[c->expected_head & c->expected_mask].stage;
    if (c->session == SESSION_EHLO)
        return SMTP_STAGE_EHLO;
    if (c->session == SESSION_HELO)
        return SMTP_STAGE_HELO;
    if (c->sending != NULL && c->sending->state >= TRANSACTION_BODY)
        return SMTP_STAGE_BODY;
    return SMTP_STAGE_READY;
}

bool smtp_client_can_submit(const struct smtp_client *c)
{
    if (c->session != SESSION_READY || c->quit || c->lost)
        return false;
    if (client_is_stepwise(c))
        return c->in_flight == 0;
    /* One in its body, one behind it. */
    if (!client_is_chunking(c))
        return c->in_flight < 2;
    return c->in_flight == 0 ||
           (c->in_flight < pipeline_max(c->options) &&
            client_bytes_behind_first(c, NULL) < c->options->pipeline_bytes_max);
}

/* --- submitting --- */

static bool is_address(struct str address, bool utf8_ok)
{
    struct smtp_address parsed;

    return smtp_address_parse(address, utf8_ok, &parsed) == 0;
}

/* Printable and without space, '=' or anything else that could begin another parameter or line. */
static bool is_parameter(struct str value, size_t bytes_max, bool utf8_ok)
{
    for (size_t i = 0; i < value.len; i++) {
        uint8_t b = (uint8_t)value.ptr[i];

        if (b <= ' ' || b == 0x7f || b == '=' || (b > 0x7f && !utf8_ok))
            return false;
    }
    return value.len <= bytes_max;
}

static enum smtp_unable why_unable(const struct smtp_client *c, const struct smtp_transaction *t)
{
    if (t->eight_bit && (c->peer.capabilities & SMTP_CAP_8BITMIME) == 0)
        return SMTP_UNABLE_8BIT;
    if (t->smtputf8 && (c->peer.capabilities & SMTP_CAP_SMTPUTF8) == 0)
        return SMTP_UNABLE_UTF8;
    if (c->peer.size_max != 0 && t->content_len > c->peer.size_max)
        return SMTP_UNABLE_SIZE;
    if (t->sender.len != 0 && !is_address(t->sender, t->smtputf8))
        return SMTP_UNABLE_ADDRESS;
    return SMTP_UNABLE_NONE;
}

static bool any_rcpt_valid(struct smtp_transaction *t)
{
    bool any = false;

    for (size_t i = 0; i < t->rcpts_len; i++) {
        struct smtp_transaction_rcpt *r = &t->rcpts[i];
        bool valid =
            is_address(r->address, t->smtputf8) || str_eq_nocase(r->address, STR("postmaster"));

        r->state = valid ? RCPT_PENDING : RCPT_INVALID;
        any |= valid;
        if (!is_parameter(r->orcpt, ORCPT_BYTES_MAX, t->smtputf8))
            r->orcpt.len = 0;
    }
    return any;
}

void smtp_client_submit(struct smtp_client *c, struct smtp_transaction *t)
{
    ASSERT(smtp_client_can_submit(c) && t->rcpts_len > 0);
    t->node = (struct list_node){0};
    t->rcpts_sent = t->rcpts_replied = t->rcpts_accepted = t->rcpts_final = 0;
    t->state = TRANSACTION_QUEUED;
    t->expected = 0;
    t->mail_accepted = t->mail_refused = t->closed_by_peer = t->in_output = false;
    t->content_sent = 0;
    if (!is_parameter(t->envid, ENVID_BYTES_MAX, false))
        t->envid.len = 0;
    t->unable = (uint8_t)why_unable(c, t);
    if (!any_rcpt_valid(t) && t->unable == SMTP_UNABLE_NONE)
        t->unable = SMTP_UNABLE_ADDRESS;
    c->in_flight++;
    if (t->unable != SMTP_UNABLE_NONE) {
        list_push_back(&c->unable, &t->node);
        return;
    }
    list_push_back(&c->transactions, &t->node);
    if (c->sending == NULL)
        c->sending = t;
}

void smtp_client_quit(struct smtp_client *c)
{
    c->quit = true;
}

/* --- closing --- */

static void local_reply(struct smtp_client *c, const char *text)
{
    size_t n = strnlen(text, sizeof(c->local.text));

    c->local = (struct smtp_reply){.text_len = (uint16_t)n};
    memcpy(c->local.text, text, n);
}

static void start_close(struct smtp_client *c, enum smtp_stage stage,
                        const struct smtp_reply *reply)
{
    c->session = SESSION_CLOSING;
    c->sending = NULL;
    c->close_stage = stage;
    c->close_reply = reply;
}

static void protocol_error(struct smtp_client *c, const char *text)
{
    local_reply(c, text);
    start_close(c, smtp_client_stage(c), &c->local);
}

void smtp_client_lost(struct smtp_client *c, const char *error)
{
    smtp_client_sent(c);
    if (c->lost || c->session >= SESSION_CLOSING)
        return;
    c->lost = true;
    local_reply(c, error);
}

/* --- events --- */

static void emit(struct smtp_client *c, struct smtp_transaction *t, uint8_t rcpt_states,
                 enum smtp_fate fate, enum smtp_stage stage, const struct smtp_reply *reply)
{
    c->emission = (struct emission){
        .transaction = t,
        .end = t->rcpts_len,
        .states = rcpt_states,
        .event = {.kind = SMTP_EVENT_RECIPIENT,
                  .transaction = t,
                  .fate = fate,
                  .stage = stage,
                  .reply = reply},
    };
}

#define RCPT_BIT(state) ((uint8_t)(1u << RCPT_##state))
#define RCPTS_ON_WIRE   (RCPT_BIT(PENDING) | RCPT_BIT(ACCEPTED))

/* The reply is final for every recipient that has no other. */
static void emit_reply_all(struct smtp_client *c, struct smtp_transaction *t, enum smtp_stage stage,
                           const struct smtp_reply *reply)
{
    emit(c, t, RCPTS_ON_WIRE, SMTP_FATE_REPLY, stage, reply);
}

static void emit_reply_one(struct smtp_client *c, struct smtp_transaction *t, uint16_t rcpt,
                           enum smtp_stage stage, const struct smtp_reply *reply)
{
    emit_reply_all(c, t, stage, reply);
    c->emission.rcpt = rcpt;
    c->emission.end = (uint16_t)(rcpt + 1);
}

static void emit_unable(struct smtp_client *c, struct smtp_transaction *t, enum smtp_unable why,
                        uint8_t rcpt_states)
{
    static const struct smtp_reply none = {0}; /* the kind of unable says it */

    emit(c, t, rcpt_states, SMTP_FATE_UNABLE, SMTP_STAGE_READY, &none);
    c->emission.event.unable = why;
}

static bool next_emitted(struct smtp_client *c, struct smtp_event *event)
{
    struct emission *e = &c->emission;
    struct smtp_transaction *t = e->transaction;

    while (t != NULL && e->rcpt < e->end) {
        uint16_t i = e->rcpt++;

        if ((e->states & 1u << t->rcpts[i].state) == 0)
            continue;
        t->rcpts[i].state = RCPT_FINAL;
        t->rcpts_final++;
        *event = e->event;
        event->rcpt = i;
        return true;
    }
    e->transaction = NULL;
    return false;
}

static struct smtp_transaction *first_transaction(const struct list *list)
{
    struct list_node *node = list_first(list);

    return node == NULL ? NULL : LIST_ENTRY(node, struct smtp_transaction, node);
}

static bool has_rcpt(const struct smtp_transaction *t, uint8_t rcpt_states)
{
    for (size_t i = 0; i < t->rcpts_len; i++) {
        if ((rcpt_states & 1u << t->rcpts[i].state) != 0)
            return true;
    }
    return false;
}

/* --- replies --- */

static unsigned reply_class(const struct smtp_reply *reply)
{
    return reply->code / 100u;
}

static void on_banner(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    if (reply_class(reply) == 3) {
        protocol_error(c, "protocol error: unexpected greeting");
    } else if (reply_class(reply) != 2) {
        start_close(c, SMTP_STAGE_BANNER, reply);
    } else {
        c->session = SESSION_EHLO;
        c->parser.on_line = on_ehlo_line;
        c->parser.arg = c;
    }
}

static void greeted(struct smtp_client *c)
{
    if (c->options->no_chunking)
        c->peer.capabilities &= ~(uint32_t)SMTP_CAP_CHUNKING;
    if (c->options->no_pipelining)
        c->peer.capabilities &= ~(uint32_t)SMTP_CAP_PIPELINING;
    c->session = SESSION_READY;
    c->ready_unsaid = true;
}

static void on_ehlo(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    c->parser.on_line = NULL;
    if (reply_class(reply) == 2) {
        greeted(c);
    } else if (reply_class(reply) == 5 && !c->options->lmtp) {
        c->session = SESSION_HELO;
        c->hello_out = false;
    } else if (reply_class(reply) == 3) {
        protocol_error(c, "protocol error: unexpected reply to EHLO");
    } else {
        start_close(c, SMTP_STAGE_EHLO, reply);
    }
}

static void on_helo(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    if (reply_class(reply) == 2)
        greeted(c);
    else if (reply_class(reply) == 3)
        protocol_error(c, "protocol error: unexpected reply to HELO");
    else
        start_close(c, SMTP_STAGE_HELO, reply);
}

static void on_rset(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    /* Whose sender would the next recipients go under? */
    if (reply_class(reply) != 2)
        start_close(c, SMTP_STAGE_RSET, reply);
}

static void on_quit(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    start_close(c, SMTP_STAGE_QUIT, reply);
}

static void on_mail(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;

    if (reply_class(reply) == 3) {
        protocol_error(c, "protocol error: unexpected reply to MAIL");
    } else if (reply_class(reply) == 2) {
        t->mail_accepted = true;
    } else {
        /* The replies to what was sent behind it find nobody to tell. */
        t->mail_refused = true;
        emit_reply_all(c, t, SMTP_STAGE_MAIL, reply);
    }
}

static void on_rcpt(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;
    struct smtp_transaction_rcpt *r;

    while (t->rcpts[t->rcpts_replied].state == RCPT_INVALID)
        t->rcpts_replied++;
    r = &t->rcpts[t->rcpts_replied++];
    if (reply_class(reply) == 3) {
        protocol_error(c, "protocol error: unexpected reply to RCPT");
    } else if (reply_class(reply) != 2) {
        emit_reply_one(c, t, (uint16_t)(r - t->rcpts), SMTP_STAGE_RCPT, reply);
    } else if (r->state == RCPT_PENDING) {
        r->state = RCPT_ACCEPTED;
        t->rcpts_accepted++;
    }
}

static void on_data(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;
    bool go = reply_class(reply) == 3;

    if (reply_class(reply) == 2) {
        protocol_error(c, "protocol error: unexpected reply to DATA");
    } else if (go && t->rcpts_accepted > 0) {
        transaction_set_state(c, t, TRANSACTION_BODY);
    } else if (go && c->options->lmtp) {
        /* The dot would have as many replies as recipients: none (RFC 2033 4.2). */
        protocol_error(c, "protocol error: DATA accepted without a recipient");
    } else if (go) {
        transaction_set_state(c, t, TRANSACTION_NULL_DOT);
    } else {
        emit_reply_all(c, t, SMTP_STAGE_DATA, reply);
        transaction_set_state(c, t, TRANSACTION_ABANDONED);
    }
}

/* LMTP: one reply for each accepted recipient, in their order (RFC 2033 4.2 and 4.3). */
static void on_body_lmtp(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;
    uint16_t i = 0;

    while (i < t->rcpts_len && t->rcpts[i].state != RCPT_ACCEPTED)
        i++;
    if (i == t->rcpts_len)
        return;
    emit_reply_one(c, t, i, SMTP_STAGE_BODY, reply);
    while (++i < t->rcpts_len) {
        if (t->rcpts[i].state == RCPT_ACCEPTED) {
            e->count++;
            return;
        }
    }
}

static void on_body(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;

    if (reply_class(reply) == 3) {
        protocol_error(c, "protocol error: unexpected reply to the message");
        return;
    }
    if (reply_class(reply) == 2 && t->state == TRANSACTION_BODY) {
        protocol_error(c, "protocol error: message accepted before it was sent");
        return;
    }
    /* Whether a refused BDAT ends the transaction is answered differently by servers. */
    t->closed_by_peer = reply_class(reply) == 2 || !client_is_chunking(c);
    if (c->options->lmtp)
        on_body_lmtp(c, e, reply);
    else
        emit_reply_all(c, t, SMTP_STAGE_BODY, reply);
}

/* A reply to nothing. */
static void unsolicited(struct smtp_client *c, const struct smtp_reply *reply)
{
    enum smtp_stage stage = smtp_client_stage(c);

    if (reply_class(reply) < 4) {
        protocol_error(c, "protocol error: a reply too many");
        return;
    }
    /* In the middle of a body, whose end the server has not seen: it is about that message. */
    if (stage == SMTP_STAGE_BODY)
        emit_reply_all(c, c->sending, stage, reply);
    c->close_not_sent = true;
    start_close(c, stage, reply);
}

/* What is left of t is not worth its commands. */
static void abandon_if_dead(struct smtp_client *c, struct smtp_transaction *t)
{
    bool all_refused = t->state == TRANSACTION_DATA && t->expected == 0 && t->rcpts_accepted == 0;

    if ((t->state == TRANSACTION_RCPT || t->state == TRANSACTION_DATA) &&
        (t->mail_refused || all_refused))
        transaction_set_state(c, t, TRANSACTION_ABANDONED);
}

static void take_reply(struct smtp_client *c)
{
    const struct smtp_reply *reply = &c->parser.reply;
    struct expected *e = client_expected_first(c);
    struct smtp_transaction *t;
    enum smtp_stage stage;

    if (e == NULL) {
        unsolicited(c, reply);
        return;
    }
    t = e->transaction;
    stage = e->stage;
    if (reply->code == 421) {
        /* The server has stopped: nothing behind this command was looked at. In LMTP the recipients
         * of one message have a reply each, and those still without may have it. */
        c->close_not_sent = true;
        c->uncertain = stage == SMTP_STAGE_BODY && c->options->lmtp ? t : NULL;
    }
    stages[stage].on_reply(c, e, reply);
    if (c->session == SESSION_CLOSING)
        return;
    if (--e->count == 0) {
        c->expected_head++;
        if (t != NULL)
            t->expected--;
    }
    if (reply->code == 421)
        start_close(c, stage, reply);
    else if (t != NULL)
        abandon_if_dead(c, t);
}

void smtp_client_input(struct smtp_client *c, const uint8_t *in, size_t len)
{
    if (c->lost || c->session >= SESSION_CLOSING)
        return;
    if (buf_reserve(&c->in, len) != 0)
        smtp_client_lost(c, "out of memory");
    else
        buf_put(&c->in, in, len);
}

/* --- the next event --- */

enum step { STEP_EVENT, STEP_ON, STEP_NOTHING };

static bool begun_behind(const struct smtp_client *c, const struct smtp_transaction *t)
{
    struct list_node *node = list_next(&c->transactions, &t->node);

    return node != NULL &&
           LIST_ENTRY(node, struct smtp_transaction, node)->state != TRANSACTION_QUEUED;
}

/* Gives t back, unless its content is still being sent. */
static enum step finish(struct smtp_client *c, struct smtp_transaction *t, struct smtp_event *event)
{
    if (t->in_output)
        return STEP_NOTHING;
    ASSERT(t->rcpts_final == t->rcpts_len && t != c->sending);
    if (t->unable == SMTP_UNABLE_NONE && !begun_behind(c, t))
        c->rset_needed = t->mail_accepted && !t->closed_by_peer;
    list_remove(&t->node);
    c->in_flight--;
    *event = (struct smtp_event){
        .kind = SMTP_EVENT_DONE, .transaction = t, .reply = &c->parser.reply};
    return STEP_EVENT;
}

static enum step step_unable(struct smtp_client *c, struct smtp_event *event)
{
    struct smtp_transaction *t = first_transaction(&c->unable);

    if (t == NULL)
        return STEP_NOTHING;
    if (t->rcpts_final == t->rcpts_len)
        return finish(c, t, event);
    emit_unable(c, t, t->unable, (uint8_t)(RCPTS_ON_WIRE | RCPT_BIT(INVALID)));
    return STEP_ON;
}

static enum step step_closed(struct smtp_client *c, struct smtp_event *event)
{
    c->session = SESSION_CLOSED;
    *event = (struct smtp_event){
        .kind = SMTP_EVENT_CLOSE, .stage = c->close_stage, .reply = c->close_reply};
    return STEP_EVENT;
}

/* The oldest transaction, if it is over or the session is. */
static enum step step_first(struct smtp_client *c, struct smtp_event *event)
{
    struct smtp_transaction *t = first_transaction(&c->transactions);
    bool closing = c->session == SESSION_CLOSING;

    if (t == NULL)
        return closing ? step_closed(c, event) : STEP_NOTHING;
    if (!closing && (t->expected != 0 || t->state < TRANSACTION_SENT))
        return STEP_NOTHING;
    if (has_rcpt(t, RCPTS_ON_WIRE)) {
        bool not_sent = c->close_not_sent && t != c->uncertain;

        ASSERT(closing);
        emit(c, t, RCPTS_ON_WIRE, not_sent ? SMTP_FATE_NOT_SENT : transaction_lost_fate(t),
             c->close_stage, c->close_reply);
        return STEP_ON;
    }
    if (t->rcpts_final < t->rcpts_len) {
        emit_unable(c, t, SMTP_UNABLE_ADDRESS, RCPT_BIT(INVALID));
        return STEP_ON;
    }
    return finish(c, t, event);
}

static enum step step_input(struct smtp_client *c)
{
    size_t used;

    if (c->session >= SESSION_CLOSING)
        return STEP_NOTHING;
    if (c->in_at == c->in.len) {
        buf_clear(&c->in);
        c->in_at = 0;
        if (c->in.cap > INPUT_KEEP_BYTES_MAX)
            buf_done(&c->in);
        if (!c->lost)
            return STEP_NOTHING;
        start_close(c, smtp_client_stage(c), &c->local);
        return STEP_ON;
    }
    if (c->reply_taken)
        smtp_reply_parser_reset(&c->parser);
    c->reply_taken = false;
    switch (smtp_reply_parse(&c->parser, c->in.data + c->in_at, c->in.len - c->in_at, &used)) {
    case SMTP_REPLY_DONE:
        c->reply_taken = true;
        take_reply(c);
        break;
    case SMTP_REPLY_BAD:
        protocol_error(c, "protocol error: not an SMTP reply");
        break;
    case SMTP_REPLY_MORE:
        break;
    }
    c->in_at += used;
    return STEP_ON;
}

enum smtp_event_kind smtp_client_next_event(struct smtp_client *c, struct smtp_event *event)
{
    enum step step = STEP_ON;

    *event = (struct smtp_event){.kind = SMTP_EVENT_NONE, .reply = &c->parser.reply};
    while (step == STEP_ON) {
        if (next_emitted(c, event))
            break;
        if (c->ready_unsaid) {
            c->ready_unsaid = false;
            *event = (struct smtp_event){.kind = SMTP_EVENT_READY, .reply = &c->parser.reply};
            break;
        }
        step = step_unable(c, event);
        if (step == STEP_NOTHING)
            step = step_first(c, event);
        if (step == STEP_NOTHING)
            step = step_input(c);
    }
    return event->kind;
}

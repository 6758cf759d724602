/* The client machine: its life, what is submitted, and the events that come of it all. Replies are
 * handled in client_receive.c, commands made in client_send.c. bench/smtp_bench, 2.6 GHz Xeon: a
 * transaction, its four replies and its three commands included, in 0.44 us (0.40 us with BDAT). */
#include "smtp/client.h"

#include <stdio.h>
#include <stdlib.h>

#include "smtp/client_private.h"

/* An input buffer beyond this is given back when it is empty. */
#define INPUT_KEEP_BYTES_MAX 4096
/* RSET, MAIL, RCPT and DATA or BODY. */
#define EXPECTED_PER_TRANSACTION 4
#define PIPELINE_MAX             1024
#define ENVID_BYTES_MAX          100 /* RFC 3461 */
#define ORCPT_BYTES_MAX          500

/* --- the session's states --- */

/* Which may follow each. */
static const uint16_t session_follows[SESSION_CLOSED + 1] = {
#define TO(state) (1u << SESSION_##state)
    [SESSION_BANNER] = TO(EHLO) | TO(CLOSING),
    [SESSION_EHLO] = TO(HELO) | TO(STARTTLS) | TO(AUTH) | TO(READY) | TO(CLOSING),
    [SESSION_HELO] = TO(READY) | TO(CLOSING), /* a peer without EHLO offers nothing */
    [SESSION_STARTTLS] = TO(HANDSHAKE) | TO(AUTH) | TO(READY) | TO(CLOSING),
    [SESSION_HANDSHAKE] = TO(EHLO) | TO(CLOSING),
    [SESSION_AUTH] = TO(AUTH) | TO(READY) | TO(CLOSING), /* AUTH: the next mechanism */
    [SESSION_READY] = TO(QUIT) | TO(CLOSING),
    [SESSION_QUIT] = TO(CLOSING),
    [SESSION_CLOSING] = TO(CLOSED),
#undef TO
};
_Static_assert(SESSION_CLOSED < 16, "a bit for each");

void client_set_session(struct smtp_client *c, enum session_state state)
{
    ASSERT((session_follows[c->session] & 1u << state) != 0);
    c->session = (uint8_t)state;
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
    client_auth_done(c);
    client_forget_secret(c);
    free(c->ehlo_refusal);
    pool_put(c->options->outputs, c->commands);
    free(c);
}

/* --- encryption --- */

void smtp_client_use_tls(struct smtp_client *c, enum smtp_tls tls)
{
    ASSERT(c->session == SESSION_BANNER && c->in.len == 0);
    c->tls = (uint8_t)tls;
}

void smtp_client_secured(struct smtp_client *c, bool binds)
{
    ASSERT(!c->secured && c->in.len == c->in_at && !c->lost);
    ASSERT(c->session == SESSION_HANDSHAKE || c->session == SESSION_BANNER);
    c->secured = true;
    c->binds = binds;
    if (c->session == SESSION_HANDSHAKE)
        client_greet(c);
}

bool smtp_client_tls_refused(const struct smtp_client *c)
{
    return c->tls_refused;
}

void smtp_client_trust(struct smtp_client *c, bool proved)
{
    c->trusted = true;
    c->trust_proved |= proved;
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

bool smtp_client_chunking_refused(const struct smtp_client *c)
{
    return c->chunking_refused;
}

uint32_t smtp_client_rcpt_domain_max(const struct smtp_client *c)
{
    return c->peer.rcpt_domain_max;
}

uint32_t smtp_client_replies(const struct smtp_client *c)
{
    return c->replies;
}

struct str smtp_client_unfinished(const struct smtp_client *c)
{
    const struct smtp_reply *r = &c->parser.reply;

    return c->lost && !c->reply_taken ? (struct str){r->text, r->text_len} : STR("");
}

uint32_t smtp_client_in_flight(const struct smtp_client *c)
{
    return c->in_flight;
}

bool smtp_client_in_doubt(const struct smtp_client *c)
{
    struct list_node *n = list_first(&c->transactions); /* they are sent in order */

    while (n != NULL &&
           LIST_ENTRY(n, struct smtp_transaction, node)->state == TRANSACTION_ABANDONED)
        n = list_next(&c->transactions, n);
    return n != NULL && LIST_ENTRY(n, struct smtp_transaction, node)->state == TRANSACTION_SENT;
}

void smtp_client_unsent(struct smtp_client *c)
{
    c->close_not_sent = true;
}

enum smtp_stage smtp_client_stage(const struct smtp_client *c)
{
    if (c->expected_head != c->expected_tail)
        return c->expected[c->expected_head & c->expected_mask].stage;
    if (c->session == SESSION_EHLO)
        return SMTP_STAGE_EHLO;
    if (c->session == SESSION_HELO)
        return SMTP_STAGE_HELO;
    if (c->session == SESSION_STARTTLS || c->session == SESSION_HANDSHAKE)
        return SMTP_STAGE_STARTTLS;
    if (c->session == SESSION_AUTH)
        return SMTP_STAGE_AUTH;
    if (c->sending != NULL && c->sending->state >= TRANSACTION_BODY)
        return SMTP_STAGE_BODY;
    return SMTP_STAGE_READY;
}

uint32_t smtp_client_room(const struct smtp_client *c)
{
    uint32_t max = pipeline_max(c->options);

    if (c->session != SESSION_READY || c->quit || c->lost)
        return 0;
    if (client_is_stepwise(c))
        max = 1;
    else if (!client_is_chunking(c))
        max = 2; /* one in its body, one behind it */
    else if (c->in_flight > 0 &&
             client_bytes_behind_first(c, NULL) >= c->options->pipeline_bytes_max)
        max = 0;
    return max > c->in_flight ? max - c->in_flight : 0;
}

bool smtp_client_can_submit(const struct smtp_client *c)
{
    return smtp_client_room(c) > 0;
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

static uint64_t pieces_bytes(const struct smtp_transaction *t)
{
    uint64_t n = 0;

    for (size_t i = 0; i < SMTP_PIECES_MAX; i++)
        n += t->pieces[i].len;
    return n;
}

enum smtp_unable smtp_client_lacks(const struct smtp_client *c, const struct smtp_transaction *t)
{
    if (t->smtputf8 && (c->peer.capabilities & SMTP_CAP_SMTPUTF8) == 0)
        return SMTP_UNABLE_UTF8; /* first: conversion to 7 bits does not help */
    if (t->eight_bit && (c->peer.capabilities & SMTP_CAP_8BITMIME) == 0)
        return SMTP_UNABLE_8BIT;
    if (c->peer.size_max != 0 && pieces_bytes(t) > c->peer.size_max)
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
        bool valid = !r->held && (is_address(r->address, t->smtputf8) ||
                                  str_eq_nocase(r->address, STR("postmaster")));

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
    t->mail_accepted = t->mail_refused = t->stray_accepted = t->end_refused = t->in_output = false;
    t->line = LINE_START;
    t->piece = 0;
    t->piece_sent = 0;
    t->content_len = pieces_bytes(t);
    if (!is_parameter(t->envid, ENVID_BYTES_MAX, false))
        t->envid.len = 0;
    t->unable = (uint8_t)smtp_client_lacks(c, t);
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

void smtp_client_use_options(struct smtp_client *c, const struct smtp_client_options *options)
{
    ASSERT(pipeline_max(options) == pipeline_max(c->options) &&
           options->outputs == c->options->outputs);
    c->options = options;
}

void smtp_client_quit(struct smtp_client *c)
{
    c->quit = true;
}

/* --- closing --- */

void client_local_reply(struct smtp_client *c, const char *text)
{
    size_t n = strnlen(text, sizeof(c->local.text));

    c->local = (struct smtp_reply){.text_len = (uint16_t)n};
    memcpy(c->local.text, text, n);
}

void client_start_close(struct smtp_client *c, enum smtp_stage stage,
                        const struct smtp_reply *reply)
{
    ASSERT(reply != NULL);
    client_set_session(c, SESSION_CLOSING);
    c->sending = NULL;
    c->close_stage = stage;
    c->close_reply = reply;
}

void client_protocol_error(struct smtp_client *c, const char *text)
{
    client_local_reply(c, text);
    client_start_close(c, smtp_client_stage(c), &c->local);
}

/* What is no reply is told as it is, cut to what our words leave room for. */
static void no_reply(struct smtp_client *c)
{
    const struct smtp_reply *said = &c->parser.reply;
    char text[SMTP_REPLY_TEXT_MAX];

    snprintf(text, sizeof(text), "not an SMTP reply: %.*s", (int)said->text_len, said->text);
    client_protocol_error(c, text);
}

void smtp_client_lost(struct smtp_client *c, const char *error)
{
    /* The send may be under way still and read from the commands: they stay until it has ended. */
    client_contents_sent(c);
    if (c->lost || c->session >= SESSION_CLOSING)
        return;
    c->lost = true;
    client_local_reply(c, error);
}

/* --- events --- */

static void emit(struct smtp_client *c, struct smtp_transaction *t, uint8_t rcpt_states,
                 enum smtp_fate fate, enum smtp_stage stage, const struct smtp_reply *reply)
{
    ASSERT(c->emission.transaction == NULL); /* all of the last one was given out */
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
void client_emit_reply(struct smtp_client *c, struct smtp_transaction *t, enum smtp_stage stage,
                       const struct smtp_reply *reply)
{
    emit(c, t, RCPTS_ON_WIRE, SMTP_FATE_REPLY, stage, reply);
}

void client_emit_reply_one(struct smtp_client *c, struct smtp_transaction *t, uint16_t rcpt,
                           enum smtp_stage stage, const struct smtp_reply *reply)
{
    ASSERT(rcpt < t->rcpts_len);
    client_emit_reply(c, t, stage, reply);
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
        ASSERT(t->rcpts_final < t->rcpts_len);
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

void smtp_client_input(struct smtp_client *c, const uint8_t *in, size_t len)
{
    if (c->lost || c->session >= SESSION_CLOSING)
        return;
    if (c->session == SESSION_HANDSHAKE)
        client_injected(c);
    else if (buf_reserve(&c->in, len) != 0)
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
    ASSERT(t->rcpts_final == t->rcpts_len && t != c->sending && c->in_flight > 0);
    if (t->unable == SMTP_UNABLE_NONE && !begun_behind(c, t))
        c->rset_needed = transaction_may_be_open(t);
    list_remove(&t->node);
    c->in_flight--;
    *event =
        (struct smtp_event){.kind = SMTP_EVENT_DONE, .transaction = t, .reply = &c->parser.reply};
    return STEP_EVENT;
}

static enum step step_unable(struct smtp_client *c, struct smtp_event *event)
{
    struct smtp_transaction *t = first_transaction(&c->unable);

    if (t == NULL)
        return STEP_NOTHING;
    if (t->rcpts_final == t->rcpts_len)
        return finish(c, t, event);
    ASSERT(t->unable != SMTP_UNABLE_NONE && t->expected == 0);
    emit_unable(c, t, t->unable, (uint8_t)(RCPTS_ON_WIRE | RCPT_BIT(INVALID)));
    return STEP_ON;
}

static enum step step_closed(struct smtp_client *c, struct smtp_event *event)
{
    ASSERT(c->in_flight == 0); /* every transaction's events came before */
    client_set_session(c, SESSION_CLOSED);
    *event = (struct smtp_event){.kind = SMTP_EVENT_CLOSE,
                                 .stage = c->close_stage,
                                 .own = c->close_reply == &c->local,
                                 .reply = c->close_reply};
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

/* Whether there was a reply, or bytes that cannot be one. */
static bool take_input(struct smtp_client *c)
{
    enum smtp_reply_status status;
    size_t used;

    if (c->in_at == c->in.len)
        return false;
    if (c->reply_taken)
        smtp_reply_parser_reset(&c->parser);
    c->reply_taken = false;
    status = smtp_reply_parse(&c->parser, c->in.data + c->in_at, c->in.len - c->in_at, &used);
    c->in_at += used;
    ASSERT(c->in_at <= c->in.len);
    if (status == SMTP_REPLY_BAD)
        no_reply(c);
    c->reply_taken = status == SMTP_REPLY_DONE;
    if (c->reply_taken) {
        c->replies++;
        client_take_reply(c);
    }
    return status != SMTP_REPLY_MORE;
}

static enum step step_input(struct smtp_client *c)
{
    if (c->session >= SESSION_CLOSING)
        return STEP_NOTHING;
    if (take_input(c))
        return STEP_ON;
    /* What is left is part of a line. */
    if (c->in_at != 0)
        buf_consume(&c->in, c->in_at);
    c->in_at = 0;
    if (c->in.len == 0 && c->in.cap > INPUT_KEEP_BYTES_MAX)
        buf_done(&c->in);
    if (!c->lost)
        return STEP_NOTHING;
    if (c->reply_taken)
        smtp_reply_parser_reset(&c->parser);
    c->reply_taken = false;
    smtp_reply_unfinished(&c->parser, buf_str(&c->in));
    if (c->session == SESSION_HELO && c->ehlo_refusal != NULL)
        client_start_close(c, SMTP_STAGE_EHLO, c->ehlo_refusal); /* it says more than the end */
    else
        client_start_close(c, smtp_client_stage(c), &c->local);
    return STEP_ON;
}

enum smtp_event_kind smtp_client_next_event(struct smtp_client *c, struct smtp_event *event)
{
    enum step step = STEP_ON;

    *event = (struct smtp_event){.kind = SMTP_EVENT_NONE, .reply = &c->parser.reply};
    while (step == STEP_ON) {
        if (next_emitted(c, event))
            break;
        if (c->ready_unsaid || c->starttls_unsaid) {
            *event = (struct smtp_event){.kind = c->ready_unsaid ? SMTP_EVENT_READY
                                                                 : SMTP_EVENT_STARTTLS,
                                         .reply = &c->parser.reply};
            c->ready_unsaid = c->starttls_unsaid = false;
            break;
        }
        if (c->auth_unsaid && c->session == SESSION_AUTH) {
            client_auth_event(c, event);
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

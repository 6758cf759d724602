/* What the client makes of replies: a handler for each command. */
#include <stdlib.h>

#include "smtp/client_private.h"

/* How the reply to a command is handled. e->transaction is NULL for the commands of the session.
 * What the end of the session means at each point is in the table of client_send.c. */
typedef void reply_fn(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply);

static reply_fn on_banner, on_ehlo, on_helo, on_starttls, on_auth, on_mail, on_rcpt, on_data,
    on_body, on_rset, on_quit;

static const struct {
    const char *name;
    reply_fn *on_reply;         /* NULL: no command has such a reply */
    enum session_state session; /* in which the reply comes */
} stages[SMTP_STAGES] = {
    [SMTP_STAGE_CONNECT] = {"connect", NULL, 0},
    [SMTP_STAGE_BANNER] = {"banner", on_banner, SESSION_BANNER},
    [SMTP_STAGE_EHLO] = {"ehlo", on_ehlo, SESSION_EHLO},
    [SMTP_STAGE_HELO] = {"helo", on_helo, SESSION_HELO},
    [SMTP_STAGE_STARTTLS] = {"starttls", on_starttls, SESSION_STARTTLS},
    [SMTP_STAGE_AUTH] = {"auth", on_auth, SESSION_AUTH},
    [SMTP_STAGE_READY] = {"ready", NULL, 0},
    [SMTP_STAGE_MAIL] = {"mail", on_mail, SESSION_READY},
    [SMTP_STAGE_RCPT] = {"rcpt", on_rcpt, SESSION_READY},
    [SMTP_STAGE_DATA] = {"data", on_data, SESSION_READY},
    [SMTP_STAGE_BODY] = {"body", on_body, SESSION_READY},
    [SMTP_STAGE_RSET] = {"rset", on_rset, SESSION_READY},
    [SMTP_STAGE_QUIT] = {"quit", on_quit, SESSION_QUIT},
};

const char *smtp_stage_name(enum smtp_stage stage)
{
    ASSERT(stage < SMTP_STAGES);
    return stages[stage].name;
}

static void on_ehlo_line(void *arg, uint16_t code, bool first, struct str line)
{
    struct smtp_client *c = arg;

    if (code / 100 == 2 && !first)
        smtp_peer_line(&c->peer, line);
}

static unsigned reply_class(const struct smtp_reply *reply)
{
    return reply->code / 100u;
}

void client_greet(struct smtp_client *c)
{
    client_set_session(c, SESSION_EHLO);
    c->command_out = false;
    c->parser.on_line = on_ehlo_line;
    c->parser.arg = c;
}

static void on_banner(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    if (reply_class(reply) == 3) {
        client_protocol_error(c, "unexpected greeting");
    } else if (reply_class(reply) != 2) {
        client_start_close(c, SMTP_STAGE_BANNER, reply);
    } else {
        client_greet(c);
    }
}

/* Mail that came here to be sent there would come back, a hundred times over. */
static bool is_own_name(const struct smtp_client *c, const struct smtp_reply *reply)
{
    struct str name = {reply->text, reply->text_len};
    size_t n = 0;

    while (n < name.len && name.ptr[n] != ' ')
        n++;
    name.len = n;
    for (const char *const *own = c->options->own_names; own != NULL && *own != NULL; own++)
        if (str_eq_nocase(name, str_of(*own)))
            return true;
    return false;
}

void client_own_refusal(struct smtp_client *c, enum smtp_stage stage, uint16_t code,
                        struct smtp_enhanced enhanced, const char *text)
{
    client_local_reply(c, text);
    c->local.code = code;
    c->local.enhanced = enhanced;
    client_start_close(c, stage, &c->local);
}

void client_be_ready(struct smtp_client *c)
{
    const char *refusal = client_auth_wanted(c) ? client_auth_refusal(c) : NULL;

    if (refusal != NULL) {
        client_own_refusal(c, SMTP_STAGE_AUTH, 451, (struct smtp_enhanced){4, 7, 0}, refusal);
        return;
    }
    if (client_auth_wanted(c)) {
        client_auth_begin(c);
        return;
    }
    if (c->options->no_chunking)
        c->peer.capabilities &= ~(uint32_t)SMTP_CAP_CHUNKING;
    if (c->options->no_pipelining)
        c->peer.capabilities &= ~(uint32_t)SMTP_CAP_PIPELINING;
    client_set_session(c, SESSION_READY);
    c->ready_unsaid = true;
}

static void greeted(struct smtp_client *c, enum smtp_stage stage, const struct smtp_reply *reply)
{
    bool offered = (c->peer.capabilities & SMTP_CAP_STARTTLS) != 0;

    if (is_own_name(c, reply)) {
        client_own_refusal(c, stage, 521, (struct smtp_enhanced){5, 4, 6},
                           "this is our own name: mail would loop");
    } else if (c->secured || c->tls == SMTP_TLS_NONE || (c->tls == SMTP_TLS_MAY && !offered)) {
        client_be_ready(c);
    } else if (offered) {
        client_set_session(c, SESSION_STARTTLS);
        c->command_out = false;
    } else {
        client_own_refusal(c, SMTP_STAGE_STARTTLS, 451, (struct smtp_enhanced){4, 7, 4},
                           "TLS is required, and the peer does not offer STARTTLS");
    }
}

/* RFC 5321 3.2: whoever does not know EHLO says 500 or 502. Servers and the boxes in front of them
 * say other codes of 4xx and 5xx too, so that HELO is tried behind each, as Postfix does; whoever
 * means this client refuses that as well, or closes. */
static void try_helo(struct smtp_client *c, const struct smtp_reply *refusal)
{
    client_set_session(c, SESSION_HELO);
    c->command_out = false;
    c->peer = (struct smtp_peer){0}; /* a refusal offers nothing, whatever its lines say */
    c->ehlo_refusal = malloc(sizeof(*refusal));
    if (c->ehlo_refusal != NULL)
        *c->ehlo_refusal = *refusal;
}

static void on_ehlo(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    c->parser.on_line = NULL;
    if (reply_class(reply) == 2)
        greeted(c, SMTP_STAGE_EHLO, reply);
    else if (reply_class(reply) == 3)
        client_protocol_error(c, "unexpected reply to EHLO");
    else if (c->options->lmtp || reply->code == 421)
        client_start_close(c, SMTP_STAGE_EHLO, reply);
    else
        try_helo(c, reply);
}

static void on_helo(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    if (reply_class(reply) == 2)
        greeted(c, SMTP_STAGE_HELO, reply);
    else if (reply_class(reply) == 3)
        client_protocol_error(c, "unexpected reply to HELO");
    else
        client_start_close(c, SMTP_STAGE_HELO, reply);
}

void client_injected(struct smtp_client *c)
{
    client_protocol_error(c, "bytes in plaintext behind the reply to STARTTLS");
}

static void on_starttls(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    if (reply_class(reply) == 2) {
        client_set_session(c, SESSION_HANDSHAKE);
        c->peer = (struct smtp_peer){0}; /* RFC 3207 4.2: anybody may have said it */
        if (c->in_at != c->in.len)
            client_injected(c);
        else
            c->starttls_unsaid = true;
    } else if (reply_class(reply) == 3) {
        client_protocol_error(c, "unexpected reply to STARTTLS");
    } else if (c->tls == SMTP_TLS_MAY && reply->code != 421) {
        c->tls_refused = true;
        client_be_ready(c);
    } else {
        client_start_close(c, SMTP_STAGE_STARTTLS, reply);
    }
}

static void on_auth(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    client_auth_reply(c, reply);
}

static void on_rset(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    /* Whose sender would the next recipients go under? */
    if (reply_class(reply) == 3)
        client_protocol_error(c, "unexpected reply to RSET");
    else if (reply_class(reply) != 2)
        client_start_close(c, SMTP_STAGE_RSET, reply);
}

static void on_quit(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    (void)e;
    client_start_close(c, SMTP_STAGE_QUIT, reply);
}

static void on_mail(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;

    ASSERT(!smtp_transaction_answered(t));
    if (reply_class(reply) == 3) {
        client_protocol_error(c, "unexpected reply to MAIL");
    } else if (reply_class(reply) == 2) {
        t->mail_accepted = true;
    } else {
        /* The replies to what was sent behind it find nobody to tell. */
        t->mail_refused = true;
        client_emit_reply(c, t, SMTP_STAGE_MAIL, reply);
    }
}

static void on_rcpt(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;
    struct smtp_transaction_rcpt *r;

    while (t->rcpts[t->rcpts_replied].state == RCPT_INVALID)
        t->rcpts_replied++;
    ASSERT(t->rcpts_replied < t->rcpts_sent); /* a reply to nothing is unsolicited() */
    r = &t->rcpts[t->rcpts_replied++];
    if (reply_class(reply) == 3) {
        client_protocol_error(c, "unexpected reply to RCPT");
    } else if (reply_class(reply) != 2) {
        client_emit_reply_one(c, t, (uint16_t)(r - t->rcpts), SMTP_STAGE_RCPT, reply);
    } else if (r->state == RCPT_PENDING) {
        r->state = RCPT_ACCEPTED;
        t->rcpts_accepted++;
    } else {
        t->stray_accepted = true;
    }
}

static void on_data(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;
    bool go = reply_class(reply) == 3;

    ASSERT(t->state == TRANSACTION_WAIT && t->rcpts_accepted <= t->rcpts_replied);
    if (reply_class(reply) == 2) {
        client_protocol_error(c, "unexpected reply to DATA");
    } else if (go && t->rcpts_accepted > 0) {
        transaction_set_state(c, t, TRANSACTION_BODY);
    } else if (go && (c->options->lmtp || t->stray_accepted)) {
        /* LMTP: the dot would have as many replies as recipients: none (RFC 2033 4.2). And an empty
         * message for recipients behind a refused sender is nobody's. */
        client_protocol_error(c, "DATA accepted without a sender or a recipient");
    } else if (go) {
        transaction_set_state(c, t, TRANSACTION_NULL_DOT);
    } else {
        client_emit_reply(c, t, SMTP_STAGE_DATA, reply);
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
    client_emit_reply_one(c, t, i, SMTP_STAGE_BODY, reply);
    while (++i < t->rcpts_len) {
        if (t->rcpts[i].state == RCPT_ACCEPTED) {
            e->count++;
            return;
        }
    }
}

/* A server, or a box in front of it, that takes BDAT for nothing, for DATA, or at the wrong time:
 * what it says is not about the message. */
static bool is_no_bdat(const struct smtp_client *c, const struct smtp_transaction *t,
                       const struct smtp_reply *reply)
{
    if (!client_is_chunking(c))
        return false;
    if (reply->code >= 501 && reply->code <= 504 && reply->code != 502) /* in LMTP: a recipient's */
        return t->rcpts_accepted > 0 && !c->options->lmtp;
    return reply_class(reply) == 3 || reply->code == 500 || reply->code == 502;
}

static void on_body(struct smtp_client *c, struct expected *e, const struct smtp_reply *reply)
{
    struct smtp_transaction *t = e->transaction;

    if (reply_class(reply) == 2 && t->state == TRANSACTION_BODY) {
        client_protocol_error(c, "message accepted before it was sent");
        return;
    }
    /* A BDAT that is no command: what followed it was taken for commands, and the replies to those
     * must not pass for replies to ours. */
    if (is_no_bdat(c, t, reply)) {
        c->chunking_refused = c->close_not_sent = true;
        client_start_close(c, SMTP_STAGE_BODY, reply);
        return;
    }
    if (reply_class(reply) == 3) {
        client_protocol_error(c, "unexpected reply to the message");
        return;
    }
    t->end_refused |= reply_class(reply) != 2;
    if (c->options->lmtp)
        on_body_lmtp(c, e, reply);
    else
        client_emit_reply(c, t, SMTP_STAGE_BODY, reply);
}

/* A reply to nothing. */
static void unsolicited(struct smtp_client *c, const struct smtp_reply *reply)
{
    enum smtp_stage stage = smtp_client_stage(c);

    if (reply_class(reply) < 4) {
        client_protocol_error(c, "a reply too many");
        return;
    }
    /* A reply in the middle of a body, whose end the server has not seen, is about that message. */
    if (stage == SMTP_STAGE_BODY)
        client_emit_reply(c, c->sending, stage, reply);
    c->close_not_sent = true;
    client_start_close(c, stage, reply);
}

/* What is left of t is not worth its commands. */
static void abandon_if_dead(struct smtp_client *c, struct smtp_transaction *t)
{
    bool all_refused = t->state == TRANSACTION_DATA && t->expected == 0 && t->rcpts_accepted == 0;

    if ((t->state == TRANSACTION_RCPT || t->state == TRANSACTION_DATA) &&
        (t->mail_refused || all_refused))
        transaction_set_state(c, t, TRANSACTION_ABANDONED);
}

void client_take_reply(struct smtp_client *c)
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
    ASSERT(stages[stage].session == (enum session_state)c->session && e->count > 0);
    ASSERT(t == NULL || t->expected > 0);
    stages[stage].on_reply(c, e, reply);
    if (c->session == SESSION_CLOSING)
        return;
    if (--e->count == 0) {
        c->expected_head++;
        if (t != NULL)
            t->expected--;
    }
    if (reply->code == 421)
        client_start_close(c, stage, reply);
    else if (t != NULL)
        abandon_if_dead(c, t);
}

/* The questions of a session's machine, and what is answered: who may send, to whom, how much. */
#include "intake/inject_login.h"
#include "intake/inject_message.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define RCPT_BYTES 2048 /* that an accepted recipient takes, about */

static const char *intake_refusal(const struct inject *s)
{
    const struct worker *w = s->worker;

    if (w->draining)
        return INJECT_DRAINING;
    switch (accept_intake(w->shared->queue)) {
    case QUEUE_INTAKE_OK:
        break;
    case QUEUE_INTAKE_MAP_FULL:
        return "452 4.3.1 queue is full, try again later";
    case QUEUE_INTAKE_DISK_FULL:
        return "452 4.3.1 insufficient disk space, try again later";
    case QUEUE_INTAKE_FAILED:
        return "421 4.3.0 queue failure, try again later";
    }
    return inject_has_room(s, s->server.mail.size) ? NULL : inject_too_much;
}

/* A client that may relay calls itself what it likes: no byte of that is a control character or
 * ends the text. */
static void answer_helo(struct inject *s)
{
    struct str helo = s->server.helo;
    size_t n = helo.len < sizeof(s->helo) - 1 ? helo.len : sizeof(s->helo) - 1;

    for (size_t i = 0; i < n; i++)
        s->helo[i] = ascii_is_control(helo.ptr[i]) ? '?' : helo.ptr[i];
    s->helo[n] = '\0';
    smtp_server_answer(&s->server, inject_out(s), NULL);
}

static void answer_mail(struct inject *s)
{
    const char *refusal = intake_refusal(s);

    if (refusal == NULL)
        refusal = inject_sender_refusal(s, &s->server.mail.sender);
    if (refusal == NULL)
        inject_envelope_begin(s, &s->server.mail);
    smtp_server_answer(&s->server, inject_out(s), refusal);
}

/* Who may open a Unix socket is for the file system to say. */
bool inject_may_relay(const struct inject *s)
{
    const struct config_listener *l = s->settings;

    if (s->user != NULL || s->options.auth_required)
        return s->user != NULL;
    if (s->vouched || s->nobody)
        return s->vouched;
    return s->peer.ss_family == AF_UNIX ||
           config_network_match(l->relay_networks, l->relay_networks_len,
                                (const struct sockaddr *)&s->peer);
}

static const char *rcpt_refusal(struct inject *s, const struct smtp_rcpt *rcpt,
                                struct dns_name *name)
{
    const char *refusal;

    if (!inject_may_relay(s))
        return "550 5.7.1 relaying denied";
    refusal = accept_rcpt_refusal(s->config, &rcpt->recipient, name);
    if (refusal != NULL)
        return refusal;
    return inject_has_room(s, RCPT_BYTES) ? NULL : inject_too_much;
}

/* A transaction whose content has not begun waits for its client: the next command ends it (RFC
 * 5321 3.8). Content that has begun is taken. */
static bool answer_drain(struct inject *s)
{
    if (s->worker->draining)
        smtp_server_answer(&s->server, inject_out(s), INJECT_DRAINING);
    return s->worker->draining;
}

static void answer_rcpt(struct inject *s)
{
    const struct smtp_rcpt *rcpt = &s->server.rcpt;
    struct dns_name name;
    const char *refusal;

    if (answer_drain(s))
        return;
    refusal = rcpt_refusal(s, rcpt, &name);
    if (refusal == NULL) {
        size_t envelope_len = s->envelope.len;

        inject_envelope_add(s, rcpt, (struct str){name.text, name.len});
        if (inject_lookup(s, envelope_len))
            return;
    }
    smtp_server_answer(&s->server, inject_out(s), refusal);
}

static void answer_data(struct inject *s)
{
    if (answer_drain(s))
        return;
    smtp_server_answer(&s->server, inject_out(s), inject_body_begin(s) ? NULL : inject_too_much);
}

void inject_message_end(struct inject *s, const char *refusal)
{
    if (refusal == NULL) {
        ASSERT(!list_empty(&s->answers));
        smtp_server_defer(&s->server);
        return;
    }
    inject_body_drop(s);
    smtp_server_answer(&s->server, inject_out(s), refusal);
}

static void answer_message(struct inject *s)
{
    const char *refusal = inject_message(s);

    if (!inject_once_pending(s))
        inject_message_end(s, refusal);
}

static void answer_auth(struct inject *s)
{
    if (!answer_drain(s))
        inject_login(s);
}

void inject_answer(struct inject *s, enum smtp_server_want want)
{
    switch (want) {
    case SMTP_SERVER_HELO:
        answer_helo(s);
        break;
    case SMTP_SERVER_AUTH:
        answer_auth(s);
        break;
    case SMTP_SERVER_XCLIENT:
        inject_xclient(s);
        break;
    case SMTP_SERVER_MAIL:
        answer_mail(s);
        break;
    case SMTP_SERVER_RCPT:
        answer_rcpt(s);
        break;
    case SMTP_SERVER_DATA:
        answer_data(s);
        break;
    case SMTP_SERVER_MESSAGE:
        answer_message(s);
        break;
    case SMTP_SERVER_INPUT:
    case SMTP_SERVER_TLS:
    case SMTP_SERVER_BODY:
    case SMTP_SERVER_ABORT:
    case SMTP_SERVER_CLOSE:
        ASSERT(false); /* no question, or another's */
    }
}

#include "deliver/transaction.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/conversion.h"
#include "deliver/proxying.h"
#include "deliver/recipes.h"
#include "deliver/sessions.h"
#include "deliver/signing.h"
#include "deliver/suppressed.h"
#include "limits/warmup.h"
#include "outcome/admin.h"
#include "outcome/classify.h"
#include "outcome/judge.h"
#include "outcome/policy.h"
#include "outcome/rule_act.h"
#include "schedule/flow_lower.h"
#include "schedule/flow_split.h"
#include "schedule/lane.h"

/* On its way to the protocol. */
enum stage {
    STAGE_TAKEN,
    STAGE_LOOKS,   /* its recipients are looked for in the suppression list */
    STAGE_RENDERS, /* its letter is made */
    STAGE_SIGNS,   /* its signatures are made */
    STAGE_SPOILT,  /* one of them cannot be: spoilt has the words */
    STAGE_ASTRAY,  /* its letter belongs to another flow: schedule/flow_split.h */
    STAGE_SUBMITTED,
};

struct transaction {
    struct smtp_transaction smtp;
    struct delivery *delivery;
    struct judge_context context;
    struct judge_batch batch; /* recipients that were not delivered */
    struct message *message;  /* a reference: its content is sent from where it is */
    struct list_node letter;  /* delivery->letters, until it is submitted */
    struct list_node with;    /* delivery->carried from then on */
    enum stage stage;
    struct suppressed_look *look; /* or NULL */
    bool looked;
    struct recipe_wait rendering;
    struct signing_wait signing;
    int error; /* -errno: what STAGE_SPOILT is about */
    bool is_unsigned;
    struct recipient **rcpts;
    const struct limit *sessions[FEED_SESSION_LIMITS]; /* as one of which the session counts */
    struct queue_flow_sums *flow_sums; /* whose mail it is, from submission on; or NULL */
    uint64_t bytes;                    /* of site->under_way */
    uint64_t limit_bytes;              /* that the limits were told of */
    uint64_t taken_ms, begun_ms;
    enum policy_run run; /* how it counts in the run of attempts without a success */
    bool answered;       /* some reply was about this transaction */
    bool tried;          /* some of it was for the peer to answer */
    bool taken;          /* by some recipient's server */
    bool paused;         /* a rule suspended the source or the site for it */
    bool told;           /* a rule that suspends something was heard */
    const struct limits_lowered *lowered; /* of which it has a place: channel_take() */
    bool polite;                /* the session ended before it: at a limit of messages, perhaps */
    bool given_back;            /* the leave of limits: nobody has seen the message */
    uint16_t accepted;          /* recipients whose fate came with the end of the message */
    struct recipient *one_rcpt; /* the usual case needs no allocation */
    struct smtp_transaction_rcpt one_smtp;
};

static void context_fill(struct delivery *d, struct judge_context *c)
{
    const struct config_address *proxy = proxying_to(d);

    *c = (struct judge_context){.dest = d->site->dest,
                                .site = str_of(d->site->name),
                                .peer_name = d->dial.peer_name,
                                .peer_addr = d->dial.peer_addr,
                                .source_name = d->channel->source->name,
                                .source_addr = d->source_addr,
                                .session_id = d->id,
                                .protocol = d->site->lmtp ? "LMTP" : "ESMTP",
                                .tls = secure_report(d),
                                .sums = &d->channel->governor->sums,
                                .started_ms = d->started_ms,
                                .connected_ms = d->connected_ms};
    if (proxy == NULL)
        return;
    c->proxy_server = proxy->text;
    c->proxy_word = config_proxy_word(d->channel->source);
}

/* What the protocol is told of t's message. */
static void content_fill(struct transaction *t)
{
    const struct message *m = t->message;

    t->smtp.eight_bit = (m->flags & MESSAGE_8BIT) != 0;
    t->smtp.smtputf8 = (m->flags & MESSAGE_SMTPUTF8) != 0;
    t->smtp.dot_lines = (m->flags & MESSAGE_DOT_LINES) != 0;
    t->smtp.pieces[SMTP_PIECES_MAX - 1] = (struct smtp_piece){m->content, m->content_len};
}

struct transaction *transaction_new(struct delivery *d, struct recipient **rcpts,
                                    const struct channel_taken *taken)
{
    struct transaction *t = pool_get(&d->worker->transaction_pool);
    struct message *m = rcpts[0]->message;
    size_t len = taken->len;

    ASSERT(t != NULL && len > 0 && len <= DELIVERY_RCPTS_MAX && d->state == DELIVERY_OPEN);
    t->delivery = d;
    t->taken_ms = io_now_ms(d->worker->io);
    t->message = message_ref(m);
    t->rcpts = &t->one_rcpt;
    t->smtp.rcpts = &t->one_smtp;
    if (len > 1) {
        t->rcpts = malloc(len * sizeof(*rcpts));
        t->smtp.rcpts = calloc(len, sizeof(*t->smtp.rcpts));
        ASSERT(t->rcpts != NULL && t->smtp.rcpts != NULL);
    }
    for (size_t i = 0; i < len; i++) {
        ASSERT(rcpts[i]->message == m && rcpts[i]->state == PLACE_FLIGHT);
        ASSERT(rcpts[i]->lane->site == d->site);
        t->rcpts[i] = rcpts[i];
        t->smtp.rcpts[i].address = rcpts[i]->address;
        t->smtp.rcpts[i].notify = rcpts[i]->notify;
        t->smtp.rcpts[i].orcpt = rcpts[i]->orcpt;
    }
    t->bytes = len * supply_bytes_of(rcpts[0]);
    t->limit_bytes = m->content_len;
    d->site->under_way += t->bytes;
    t->smtp.rcpts_len = (uint16_t)len;
    t->smtp.sender = m->sender;
    t->smtp.envid = m->envid;
    t->smtp.ret = m->ret;
    content_fill(t);
    t->smtp.owner = t;
    context_fill(d, &t->context);
    t->context.warmup = taken->warmup;
    t->lowered = taken->lowered;
    memcpy(t->sessions, taken->sessions, sizeof(t->sessions));
    t->context.pool_name = rcpts[0]->lane->supply->pool->name;
    t->context.peer_dsn = (smtp_client_capabilities(d->client) & SMTP_CAP_DSN) != 0;
    judge_begin(&t->batch, d->worker, &t->context);
    return t;
}

size_t transaction_bytes(void)
{
    return sizeof(struct transaction);
}

static void transaction_free(struct transaction *t)
{
    struct worker *w = t->delivery->worker;

    ASSERT(t->stage != STAGE_LOOKS && t->stage != STAGE_RENDERS && t->stage != STAGE_SIGNS);
    ASSERT(!list_node_linked(&t->letter) && t->batch.len == 0);
    ASSERT((t->stage == STAGE_SUBMITTED) == list_node_linked(&t->with));
    ASSERT(t->delivery->site->under_way >= t->bytes);
    if (list_node_linked(&t->with))
        list_remove(&t->with);
    for (size_t i = 0; i < FEED_SESSION_LIMITS && t->sessions[i] != NULL; i++)
        if (!transactions_count(t->delivery, t->sessions[i]))
            site_share_leave(t->sessions[i]);
    site_ended(t->delivery->site, t->bytes);
    flow_lower_give(t->lowered);
    suppressed_leave(t->look);
    message_unref(t->rendering.letter);
    buf_done(&t->rendering.why);
    delivery_release(t->delivery, t->message);
    if (t->rcpts != &t->one_rcpt) {
        free(t->rcpts);
        free(t->smtp.rcpts);
    }
    pool_put(&w->transaction_pool, t);
}

/* --- in front of the protocol --- */

static bool spoil(struct transaction *t, int error)
{
    t->stage = STAGE_SPOILT;
    t->error = error;
    return false;
}

static void on_looked(void *arg)
{
    struct transaction *t = arg;

    ASSERT(t->stage == STAGE_LOOKS);
    t->stage = STAGE_TAKEN;
    delivery_dirty(t->delivery);
}

/* Asks the suppression list. False: that takes a while, or t is spoilt. */
static bool look_up(struct transaction *t)
{
    bool asked = t->looked;
    int err;

    if (t->message->suppression == MESSAGE_SUPPRESSION_NONE)
        return true;
    t->looked = true;
    if (!asked)
        t->look = suppressed_look(t->delivery->worker, t->message, t->rcpts, t->smtp.rcpts_len,
                                  on_looked, t);
    if (t->look == NULL)
        return true;
    if (!asked) {
        t->stage = STAGE_LOOKS;
        return false;
    }
    err = suppressed_error(t->look);
    if (err < 0) {
        buf_puts(&t->rendering.why, "the suppression list cannot be read");
        return spoil(t, err);
    }
    for (size_t i = 0; i < t->smtp.rcpts_len; i++)
        t->smtp.rcpts[i].held = suppressed_why(t->look, i).len > 0;
    return true;
}

static void on_rendered(struct recipe_wait *wait)
{
    struct transaction *t = CONTAINER_OF(wait, struct transaction, rendering);

    ASSERT(t->stage == STAGE_RENDERS);
    t->stage = STAGE_TAKEN;
    delivery_dirty(t->delivery);
}

/* The letter is t's message from here on, and its recipient's until that is no more in flight. */
static void take_letter(struct transaction *t, struct message *letter)
{
    struct recipient *r = t->rcpts[0];

    ASSERT(r->message == t->message && letter->recipe == t->message);
    ASSERT(r->state == PLACE_FLIGHT && (letter->flags & MESSAGE_RECIPE) == 0);
    message_unref(t->message);
    t->message = letter;
    message_unref(r->message);
    r->message = message_ref(letter);
    t->bytes += letter->content_len;
    t->delivery->site->under_way += letter->content_len;
    t->smtp.sender = letter->sender; /* its own return path */
    content_fill(t);
}

/* Makes a letter of what is a recipe. False: it is being made, or t is spoilt. */
static bool render(struct transaction *t)
{
    struct recipe_wait *wait = &t->rendering;

    if ((t->message->flags & MESSAGE_RECIPE) == 0)
        return true;
    ASSERT(t->smtp.rcpts_len == 1);
    wait->on_ready = on_rendered;
    if (!recipes_letter(t->delivery->worker, t->rcpts[0], wait)) {
        t->stage = STAGE_RENDERS;
        return false;
    }
    if (wait->result < 0)
        return spoil(t, wait->result);
    take_letter(t, wait->letter);
    wait->letter = NULL;
    return true;
}

static void on_signed(struct signing_wait *wait, int result)
{
    struct transaction *t = CONTAINER_OF(wait, struct transaction, signing);

    ASSERT(t->stage == STAGE_SIGNS && result <= 0);
    t->stage = STAGE_TAKEN;
    if (result < 0) {
        t->is_unsigned = true;
        spoil(t, result);
    }
    delivery_dirty(t->delivery);
}

bool transaction_prepare(struct transaction *t)
{
    struct worker *w = t->delivery->worker;
    const struct message_front *front;

    if (t->stage != STAGE_TAKEN || !look_up(t) || !render(t))
        return false;
    if (t->message->recipe != NULL &&
        flow_split_wanted(t->rcpts[0], t->delivery->site, t->message)) {
        t->stage = STAGE_ASTRAY;
        return false;
    }
    if (!signing_front(w, t->message, &front)) {
        if (smtp_client_lacks(t->delivery->client, &t->smtp) != SMTP_UNABLE_NONE)
            return true;
        t->signing.on_signed = on_signed;
        t->stage = STAGE_SIGNS;
        signing_wait(w, t->message, &t->signing);
        return false;
    }
    if (front != NULL) {
        t->smtp.pieces[0] =
            (struct smtp_piece){(const uint8_t *)front->fields.ptr, front->fields.len};
        t->context.signers = front->signers;
    }
    return true;
}

/* A letter of a recipe, and signatures in front of a message, are not of the size that the limits
 * were asked for. */
static void bytes_tell(struct transaction *t)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < SMTP_PIECES_MAX; i++)
        bytes += t->smtp.pieces[i].len;
    channel_bytes_more(t->delivery->channel, &t->delivery->session, t->rcpts[0]->lane,
                       (int64_t)bytes - (int64_t)t->limit_bytes);
    t->limit_bytes = bytes;
}

/* Of the tenant's and campaign's mail that it is of; NULL: nobody knows whose it is. */
static struct queue_flow_sums *sums_of(const struct transaction *t)
{
    const struct queue_flow *flow = t->rcpts[0]->lane->names;

    return flow == NULL ? NULL : flow->sums;
}

void transaction_submit(struct transaction *t)
{
    ASSERT(t->stage == STAGE_TAKEN && !list_node_linked(&t->letter));
    ASSERT(!t->given_back && t->delivery->state == DELIVERY_OPEN);
    ASSERT((t->message->flags & MESSAGE_RECIPE) == 0); /* a letter was made of it */
    t->stage = STAGE_SUBMITTED;
    t->begun_ms = io_now_ms(t->delivery->worker->io);
    t->context.begun_ms = t->begun_ms;
    bytes_tell(t);
    list_push_back(&t->delivery->carried, &t->with);
    secure_tell(t->delivery, t->rcpts, t->smtp.rcpts_len);
    governor_sum(&t->context.sums->attempts, t->smtp.rcpts_len);
    t->flow_sums = sums_of(t);
    if (t->flow_sums != NULL)
        governor_sum(&t->flow_sums->attempts, t->smtp.rcpts_len);
    smtp_client_submit(t->delivery->client, &t->smtp);
}

static bool is_counted(const struct transaction *t, const struct limit *limit)
{
    for (size_t i = 0; i < FEED_SESSION_LIMITS; i++)
        if (t->sessions[i] == limit)
            return true;
    return false;
}

bool transactions_count(const struct delivery *d, const struct limit *limit)
{
    for (struct list_node *n = list_first(&d->carried); n != NULL; n = list_next(&d->carried, n))
        if (is_counted(LIST_ENTRY(n, struct transaction, with), limit))
            return true;
    for (struct list_node *n = list_first(&d->letters); n != NULL; n = list_next(&d->letters, n))
        if (is_counted(LIST_ENTRY(n, struct transaction, letter), limit))
            return true;
    return false;
}

bool transactions_carry(const struct delivery *d, const struct msgid *message)
{
    for (struct list_node *n = list_first(&d->carried); n != NULL; n = list_next(&d->carried, n))
        if (memcmp(&LIST_ENTRY(n, struct transaction, with)->message->id, message,
                   sizeof(*message)) == 0)
            return true;
    return false;
}

struct list_node *transaction_letter(struct transaction *t)
{
    return &t->letter;
}

struct transaction *transaction_of_letter(struct list_node *n)
{
    return LIST_ENTRY(n, struct transaction, letter);
}

/* n recipients were not sent: the next try takes their leave of warm-up anew. */
static void warmup_take_back(const struct transaction *t, uint32_t n)
{
    struct worker *w = t->delivery->worker;
    int64_t ago_ms = (int64_t)(io_now_ms(w->io) - t->taken_ms);

    ASSERT(n <= t->smtp.rcpts_len && io_now_ms(w->io) >= t->taken_ms);
    warmup_set_give(&t->context.warmup, worker_wall_ms(w) - ago_ms, n);
}

/* The peer has seen nothing of t, whose recipients have no fate yet: the leave of limits is given
 * back, once. The next try takes it anew: at a rate for one message t's leave would be lost. */
static void leave_back(struct transaction *t)
{
    const struct governor_load load = {.recipients = t->smtp.rcpts_len, .bytes = t->limit_bytes};

    if (t->given_back)
        return;
    t->given_back = true;
    channel_give_back(t->delivery->channel, &t->delivery->session, t->rcpts[0]->lane, &load,
                      t->taken_ms);
}

/* The end of a transaction of which nothing was sent, and whose recipients have their fate. */
static void end_unsent(struct transaction *t)
{
    ASSERT(!t->tried && !t->answered && !t->taken && t->given_back && t->accepted == 0);
    warmup_take_back(t, t->smtp.rcpts_len);
    governor_probe_back(t->delivery->channel->governor);
    judge_end(&t->batch);
    transaction_free(t);
}

void transaction_take_back(struct transaction *t)
{
    if (t->stage == STAGE_LOOKS) {
        suppressed_leave(t->look);
        t->look = NULL;
    }
    if (t->stage == STAGE_RENDERS)
        recipes_leave(&t->rendering);
    else if (t->stage == STAGE_SIGNS)
        signing_leave(&t->signing);
    t->stage = STAGE_TAKEN;
    leave_back(t);
    for (size_t i = 0; i < t->smtp.rcpts_len; i++)
        admin_put_back(t->rcpts[i]);
    end_unsent(t);
}

bool transaction_spoilt(const struct transaction *t)
{
    return t->stage == STAGE_SPOILT || t->stage == STAGE_ASTRAY;
}

/* What an administrator asked for meanwhile comes first. */
static void end_astray(struct transaction *t)
{
    ASSERT(t->smtp.rcpts_len == 1);
    leave_back(t);
    if (admin_wants(t->rcpts[0]))
        admin_put_back(t->rcpts[0]);
    else
        flow_split_letter(t->rcpts[0], t->delivery->site, t->message);
    end_unsent(t);
}

/* Unsigned it would be taken for forged where its domain says that it signs: it waits. A letter
 * that its template and its recipient's variables do not make never will be. */
void transaction_end_spoilt(struct transaction *t)
{
    struct outcome outcome = {.class = OUTCOME_DEFERRED, .stage = SMTP_STAGE_READY, .local = true};

    if (t->stage == STAGE_ASTRAY) {
        end_astray(t);
        return;
    }
    ASSERT(t->stage == STAGE_SPOILT);
    outcome.suppressed = !t->is_unsigned && t->error == RECIPES_SUPPRESSED;
    if (t->is_unsigned)
        classify_unsigned_reply(t->error, &outcome.reply);
    else if (outcome.suppressed)
        classify_suppressed_reply(buf_str(&t->rendering.why), &outcome.reply);
    else
        classify_unrendered_reply(t->error, buf_str(&t->rendering.why), &outcome.reply);
    if (outcome.reply.code >= 500)
        outcome.class = OUTCOME_FAILED;
    leave_back(t);
    for (size_t i = 0; i < t->smtp.rcpts_len; i++)
        judge_add(&t->batch, t->rcpts[i], &outcome);
    end_unsent(t);
}

/* --- behind it --- */

/* Whether the message may be converted for the peer: 8-bit text, and a header that alone needs
 * SMTPUTF8. An address that is not ASCII cannot be converted. */
static bool transaction_convert(struct transaction *t, struct recipient *r,
                                enum smtp_unable *unable)
{
    bool eight_bit = (smtp_client_capabilities(t->delivery->client) & SMTP_CAP_8BITMIME) != 0;

    if (*unable == SMTP_UNABLE_UTF8) {
        if (!str_is_ascii(t->message->sender) || !str_is_ascii(r->address))
            return false;
        *unable = SMTP_UNABLE_UTF8_HEADER;
    } else if (*unable != SMTP_UNABLE_8BIT) {
        return false;
    }
    return conversion_take(t->delivery->worker, r, eight_bit ? CONVERT_HEADERS : CONVERT_ALL);
}

/* --- what an event costs --- */

/* Nothing was said about this transaction, the session had answered others, and the peer closed it.
 */
static bool closed_between(const struct delivery *d, const struct smtp_event *event)
{
    return d->completed > 0 && !smtp_transaction_answered(event->transaction) &&
           (d->error == -EPIPE || d->error == -ECONNRESET || event->reply->code == 421);
}

/* What the end of the session means for a transaction that had no answer of its own. The first
 * transaction that hears of the end is the one in which the session ended. The peer answers in
 * order, so it has not looked at the transactions behind; only where the network may have swallowed
 * answers they are in doubt too. That our own address has gone is nobody's failure. */
static enum policy_event event_of_end(struct delivery *d, const struct transaction *t,
                                      const struct smtp_event *event)
{
    bool lost = event->fate == SMTP_FATE_LOST;

    if (d->orphaned && !lost)
        return POLICY_UNSEEN;
    if (d->front == NULL)
        d->front = t;
    if (smtp_client_chunking_refused(d->client))
        return POLICY_UNSEEN;
    if (d->front != t)
        return !lost || closed_between(d, event) ? POLICY_UNSEEN : POLICY_IN_DOUBT;
    if (closed_between(d, event))
        return POLICY_POLITE_END;
    return lost ? POLICY_IN_DOUBT : POLICY_BROKEN;
}

static enum policy_event event_of(struct delivery *d, const struct transaction *t,
                                  const struct smtp_event *event, const struct verdict *verdict)
{
    switch (event->fate) {
    case SMTP_FATE_UNABLE:
        return POLICY_UNABLE;
    case SMTP_FATE_NOT_SENT:
    case SMTP_FATE_LOST:
        return event_of_end(d, t, event);
    case SMTP_FATE_REPLY:
        break;
    }
    if (verdict->goodbye && d->front == NULL)
        d->front = t; /* the peer has not looked at those behind */
    return policy_of_refusal(verdict, event->stage, d->completed > 0);
}

/* Whether r goes back as not tried. Where its content had been handed over, or its envelope was
 * being answered, r does so only once: a peer may do the same each time. */
static bool is_free(const struct policy *policy, struct recipient *r,
                    const struct smtp_event *event, const struct delivery *d)
{
    bool once = policy->attempt == POLICY_ONCE_FREE ||
                (policy->attempt == POLICY_FREE && event->fate == SMTP_FATE_LOST);

    if (!once)
        return policy->attempt == POLICY_FREE;
    if (r->next_host_used || d->completed == 0)
        return false;
    r->next_host_used = true;
    return true;
}

/* Notes the event of one recipient. The transaction counts as the best of these events. */
static void transaction_note(struct transaction *t, const struct policy *policy)
{
    if (policy->run > t->run)
        t->run = policy->run;
    if (policy->ends_session)
        delivery_retire(t->delivery, policy->one_less);
}

/* A message of what is lowered got through. */
static void transaction_works_for(struct transaction *t)
{
    struct delivery *d = t->delivery;

    if (t->lowered == NULL)
        return;
    rule_hear_flow_success(d->channel, t->lowered, t->taken_ms,
                           d->worked_for == t->lowered ? d->worked_ms : 0);
    d->worked_for = t->lowered;
    d->worked_ms = io_now_ms(d->worker->io);
}

static void transaction_run(struct transaction *t)
{
    struct channel *c = t->delivery->channel;

    if (t->run == POLICY_RUN_ENDS) {
        t->delivery->refused = 0;
        if (!t->delivery->worked)
            rule_hear_success(c);
        transaction_works_for(t);
        t->delivery->worked = true;
        channel_works(c);
    } else if (t->run == POLICY_RUN_COUNTS) {
        if (!t->paused) {
            rule_hear_failure(c);
            if (!t->told)
                rule_hear_flow_failure(c, t->lowered, t->taken_ms);
        }
        channel_run_counts(c, t->begun_ms, governor_run_allowed(c->governor, POLICY_RUN_MAIL));
        if (++t->delivery->refused > 1) /* a fresh session may do better */
            delivery_retire(t->delivery, false);
    }
}

static void outcome_of(const struct delivery *d, const struct smtp_event *event,
                       enum smtp_unable unable, const struct verdict *verdict, struct outcome *out)
{
    out->class = event->fate == SMTP_FATE_LOST ? OUTCOME_LOST : verdict->class;
    out->stage = event->stage;
    out->local = false;
    if (event->fate == SMTP_FATE_UNABLE) {
        out->local = true;
        classify_unable_reply(unable, &out->reply);
    } else if (event->reply->code != 0) { /* to this command, or what ended the session */
        out->reply = *event->reply;
    } else {
        out->local = true;
        delivery_own_words(d, event->stage, event->reply, &out->reply);
    }
}

/* RFC 5321 5.1: at least two hosts are tried. When another host may do better at once r goes there,
 * once in an attempt: it may be the destination as a whole that is not well. */
static bool try_next_host(struct delivery *d, struct recipient *r, enum fault_scope scope)
{
    uint64_t now_ms = io_now_ms(d->worker->io);
    struct list_node *n;

    if (r->next_host_used || !exchangers_other(&d->site->exchangers, &d->dial.exchanger, now_ms))
        return false;
    exchangers_failed(&d->site->exchangers, &d->dial.exchanger, now_ms);
    delivery_retire(d, false);
    for (n = list_first(&d->channel->sessions); scope == FAULT_HOST && n != NULL;
         n = list_next(&d->channel->sessions, n)) {
        struct delivery *other = LIST_ENTRY(n, struct delivery, site_node);

        if (exchanger_same(&other->dial.exchanger, &d->dial.exchanger))
            delivery_retire(other, false);
    }
    r->next_host_used = true;
    admin_put_back(r);
    return true;
}

/* A peer that demands TLS, and got none since its own failed, refuses nobody for good. */
static struct verdict verdict_of(struct delivery *d, const struct smtp_event *event,
                                 enum smtp_unable unable)
{
    const struct smtp_reply *reply =
        event->reply != NULL && event->reply->code != 0 ? event->reply : NULL;

    if (event->fate == SMTP_FATE_REPLY && reply != NULL && secure_missed(d, reply))
        return (struct verdict){
            .class = OUTCOME_DEFERRED, .scope = FAULT_HOST, .next_host = true, .close = true};
    return classify(event->stage, event->fate, unable, reply);
}

static void on_failure(struct transaction *t, struct recipient *r, const struct smtp_event *event,
                       enum smtp_unable unable)
{
    struct delivery *d = t->delivery;
    struct verdict v = verdict_of(d, event, unable);
    const struct config_rule *rule =
        event->fate == SMTP_FATE_REPLY
            ? rule_hear(d->channel, d->dial.exchanger.addr.sa.sa_family, r->lane, t->message,
                        d->dial.peer_name, event->stage, event->reply, &v)
            : NULL;
    enum policy_event what = event_of(d, t, event, &v);
    const struct policy *policy = policy_of(what);
    struct outcome outcome = {.rule = rule};

    t->paused = t->paused || v.paused;
    t->told = t->told || (rule != NULL && rule->suspend_s != 0);
    if (event->fate == SMTP_FATE_NOT_SENT && !smtp_transaction_answered(event->transaction) &&
        (what == POLICY_UNSEEN || what == POLICY_POLITE_END))
        leave_back(t);
    transaction_note(t, policy);
    if ((what == POLICY_POLITE_END || what == POLICY_POLITE_SLOWER) && d->front == t)
        t->polite = true;
    if (policy->attempt == POLICY_ATTEMPT || policy->attempt == POLICY_ONCE_FREE) {
        if (v.next_host && try_next_host(d, r, v.scope))
            return;
    }
    if (what != POLICY_TOO_MANY && is_free(policy, r, event, d)) {
        if (event->fate != SMTP_FATE_UNABLE)
            warmup_take_back(t, 1);
        admin_put_back(r);
        return;
    }
    outcome_of(d, event, unable, &v, &outcome);
    judge_add(&t->batch, r, &outcome)->too_many = v.too_many;
}

static bool is_all_held(const struct transaction *t)
{
    for (size_t i = 0; i < t->smtp.rcpts_len; i++)
        if (!t->smtp.rcpts[i].held)
            return false;
    return true;
}

static void end_held(struct transaction *t, uint16_t rcpt)
{
    struct outcome outcome = {
        .class = OUTCOME_FAILED, .stage = SMTP_STAGE_READY, .local = true, .suppressed = true};

    warmup_take_back(t, 1);
    classify_suppressed_reply(suppressed_why(t->look, rcpt), &outcome.reply);
    judge_add(&t->batch, t->rcpts[rcpt], &outcome);
}

void transaction_recipient(const struct smtp_event *event)
{
    struct transaction *t = event->transaction->owner;
    struct delivery *d = t->delivery;
    struct recipient *r = t->rcpts[event->rcpt];
    enum smtp_unable unable = event->unable;

    ASSERT(event->rcpt < t->smtp.rcpts_len && r->state == PLACE_FLIGHT); /* each has one fate */
    ASSERT(t->stage == STAGE_SUBMITTED && t->batch.len < t->smtp.rcpts_len);
    if (event->fate == SMTP_FATE_REPLY)
        t->answered = true;
    if (event->fate != SMTP_FATE_UNABLE)
        t->tried = true;
    if (event->stage == SMTP_STAGE_BODY)
        t->accepted++;
    if (event->fate == SMTP_FATE_REPLY && event->stage == SMTP_STAGE_BODY &&
        event->reply->code < 300) {
        lane_succeeded(r->lane);
        t->run = policy_of(POLICY_TAKEN)->run;
        t->taken = true;
        judge_delivered(d->worker, &t->context, r, event->reply);
        return;
    }
    if (event->fate == SMTP_FATE_UNABLE && t->smtp.rcpts[event->rcpt].held) {
        if (is_all_held(t))
            leave_back(t);
        end_held(t, event->rcpt);
        return;
    }
    if (event->fate == SMTP_FATE_UNABLE) {
        if (t->smtp.rcpts_len == 1 || unable != SMTP_UNABLE_ADDRESS)
            leave_back(t); /* nothing of it goes out */
        warmup_take_back(t, 1);
        if (transaction_convert(t, r, &unable))
            return;
    }
    on_failure(t, r, event, unable);
}

/* RFC 5321 4.5.3.1.10: a recipient that was refused only because others had been accepted goes into
 * the next transaction at once, and later transactions of this session carry no more than this one
 * could. */
static void transaction_put_back(struct transaction *t)
{
    struct judge_batch *b = &t->batch;
    size_t kept = 0;

    ASSERT(t->accepted <= t->smtp.rcpts_len && b->len <= t->smtp.rcpts_len);
    if (t->accepted == 0)
        return;
    for (size_t i = 0; i < b->len; i++) {
        if (b->entries[i].too_many) {
            t->delivery->rcpts_max = t->accepted;
            warmup_take_back(t, 1);
            admin_put_back(b->entries[i].recipient);
        } else {
            b->entries[kept++] = b->entries[i];
        }
    }
    b->len = kept;
}

void transaction_done(const struct smtp_event *event)
{
    struct transaction *t = event->transaction->owner;
    struct delivery *d = t->delivery;

    ASSERT(t->stage == STAGE_SUBMITTED && (!t->taken || (t->answered && t->accepted > 0)));
    if (t->answered && !t->polite) {
        d->completed++;
        d->transaction_ms = (uint32_t)(io_now_ms(d->worker->io) - t->begun_ms);
    }
    if (!t->tried)
        governor_probe_back(d->channel->governor);
    if (t->taken) {
        governor_sum(&t->context.sums->bytes, t->limit_bytes);
        if (t->flow_sums != NULL)
            governor_sum(&t->flow_sums->bytes, t->limit_bytes);
        governor_taken(channel_told(d->channel), io_now_ns(d->worker->io));
    }
    if (t->polite)
        sessions_limit_seen(d->channel, d);
    transaction_put_back(t);
    transaction_run(t);
    judge_end(&t->batch);
    transaction_free(t);
    counter_add(&d->worker->counters.transactions, 1);
}

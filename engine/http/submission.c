/* POST /api/inject/v1: letters are rendered a round at a time in the library's thread, and given to
 * a worker, which accepts them (intake/accept.h). Meanwhile the request is suspended; its next
 * round begins when all letters of the last one are durable or refused. So a request holds one
 * round in memory whatever the number of its recipients, and no thread for longer than a round
 * takes.
 *
 * A crash between two rounds leaves the earlier ones sent and the client without an answer: it is
 * told nothing that is not so, and sends again. With an idempotency_key the letters that were
 * accepted are known then, and not sent twice: once.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/http_private.h"
#include "http/injection.h"
#include "intake/accept.h"
#include "intake/draft.h"
#include "intake/once.h"
#include "mail/international.h"
#include "smtp/scan.h"
#include "tls/digest.h"
#include "worker/keyring.h"
#include "worker/letter_marks.h"
#include "worker/queue_name.h"

#define ROUND_LETTERS 256
#define ROUND_BYTES   (1u << 20)
#define ROUND_MS      20
#define LETTER_STEPS  2000000 /* of a template: 100 ms */
#define RECEIVED_MAX  30
#define SMALL_BYTES   (64u << 10) /* a letter of so few is made where there is no room, alone */
#define EXPIRES_OVER  "expires: is over"
#define ERRORS_MAX    100 /* that are told; all failed recipients are named */
#define ANSWER_BYTES  256 /* of an answer, beside its lists */

struct letter { /* of a round */
    struct accept_waiter waiter;
    struct submission *submission;
    struct message *message; /* until it is submitted; NULL: it was accepted before */
    struct msgid id;
    struct buf strings; /* what rcpt's slices are of */
    struct accept_rcpt rcpt;
    struct accept_slice email; /* as the request has it */
    size_t recipient;
    uint64_t held_bytes; /* of the request's */
    int64_t due_ms;
    int result;
};

struct submission {
    struct worker_note note;
    struct http_request *request;
    struct injection *injection; /* until the last letter is made: NULL */
    size_t recipients;
    int64_t expires_ms;
    struct msgid batch;               /* the letters' ids follow it */
    struct once once;                 /* not begun: the request has no key */
    struct once_letter *once_letters; /* beside letters, or NULL */
    char batch_id[MSGID_TEXT_BYTES];
    struct buf sender;           /* as it is kept */
    struct dns_name dkim_domain; /* likewise; len 0: that of the author signs */
    bool sender_ascii;
    size_t next; /* recipient */
    size_t under_way;
    int shortage;                  /* -errno of the last letter that the queue did not take */
    size_t success, failed, fresh; /* fresh: of success, those accepted by this request */
    struct buf ids_json, failed_json, errors_json; /* lists without their brackets */
    size_t letters_len, letters_max;
    struct letter letters[];
};

/* --- the worker's thread --- */

static void letter_done(struct letter *l, int result)
{
    struct submission *s = l->submission;

    ASSERT(s->under_way > 0 && result <= 0);
    l->result = result;
    if (--s->under_way == 0)
        request_resume(s->request);
}

static void on_accepted(struct accept_waiter *waiter, int result)
{
    letter_done(CONTAINER_OF(waiter, struct letter, waiter), result);
}

static void on_round(struct worker *w, struct worker_note *note)
{
    struct submission *s = CONTAINER_OF(note, struct submission, note);
    struct http_request *r = s->request;
    size_t len = s->letters_len;

    ASSERT(s->under_way == 0 && len <= s->letters_max);
    s->under_way = len + 1; /* one more, or s might be gone in the middle */
    for (size_t i = 0; i < len; i++) {
        struct letter *l = &s->letters[i];
        const struct once_letter *once = s->once_letters == NULL ? NULL : &s->once_letters[i];
        struct accept_order order = {.worker = w,
                                     .config = r->config,
                                     .message = l->message,
                                     .strings = l->strings.data,
                                     .rcpts = &l->rcpt,
                                     .rcpts_len = 1,
                                     .due_ms = l->due_ms,
                                     .expires_ms = s->expires_ms,
                                     .protocol = "HTTP",
                                     .peer_name = request_token(r),
                                     .peer_addr = r->peer_text,
                                     .session_id = s->batch_id,
                                     .states = once == NULL ? NULL : once->states,
                                     .states_len = once == NULL ? 0 : once->states_len,
                                     .shard = s->once.shard};

        l->waiter = (struct accept_waiter){.on_done = on_accepted};
        if (l->message == NULL)
            letter_done(l, 0);
        else if (w->draining)
            letter_done(l, -ESHUTDOWN);
        else if (!accept_submit(&order, &l->waiter))
            letter_done(l, -ENOMEM);
        /* Here and not later: once it is mail it is its worker's, the count of references too. */
        message_unref(l->message);
        l->message = NULL;
    }
    if (--s->under_way == 0)
        request_resume(r);
}

/* --- the answer --- */

static void put_string(struct buf *list, struct str text)
{
    if (list->len > 0)
        buf_putc(list, ',');
    buf_put_json(list, text);
}

static void fail_recipient(struct submission *s, struct str email, const char *field,
                           const char *text)
{
    struct buf line = {0};

    ASSERT(s->success + s->failed < s->recipients); /* one fails once */
    put_string(&s->failed_json, email);
    if (s->failed++ >= ERRORS_MAX)
        return;
    buf_put_str(&line, email);
    buf_puts(&line, ": ");
    buf_puts(&line, field);
    buf_puts(&line, *field != '\0' ? ": " : "");
    buf_puts(&line, text);
    put_string(&s->errors_json, buf_str(&line));
    buf_done(&line);
}

static const char *shortage_text(int err)
{
    switch (err) {
    case -ENOSPC:
        return "452 4.3.1 insufficient storage, try again later";
    case -ESHUTDOWN:
        return "421 4.3.2 shutting down, try again shortly";
    case -ENOMEM:
        return "452 4.3.1 out of memory, try again later";
    default:
        return "451 4.3.0 could not store the message, try again later";
    }
}

static void answer(struct submission *s)
{
    struct buf out = {0};

    /* Each request ends here: no text is formatted. */
    ASSERT(s->under_way == 0 && s->letters_len == 0);
    ASSERT(s->success + s->failed == s->recipients);
    if (s->once.again) /* what was missing */
        request_charge(s->request, s->fresh);
    if (s->success == 0 && s->shortage != 0) {
        request_problem(s->request, 503, "", "%s", shortage_text(s->shortage));
        return;
    }
    buf_room(&out, ANSWER_BYTES + s->failed_json.len + s->errors_json.len + s->ids_json.len);
    buf_puts(&out, "{\"success_count\":");
    buf_put_u64(&out, s->success);
    buf_puts(&out, ",\"fail_count\":");
    buf_put_u64(&out, s->failed);
    buf_puts(&out, ",\"failed_recipients\":[");
    buf_put_str(&out, buf_str(&s->failed_json));
    buf_puts(&out, "],\"errors\":[");
    buf_put_str(&out, buf_str(&s->errors_json));
    buf_puts(&out, "],\"batch_id\":\"");
    buf_puts(&out, s->batch_id);
    buf_puts(&out, "\",\"ids\":[");
    buf_put_str(&out, buf_str(&s->ids_json));
    buf_puts(&out, "]}\n");
    request_answer(s->request, 200, "application/json", buf_str(&out));
    buf_done(&out);
}

/* --- a letter --- */

static struct trace_stamp stamp_of(const struct submission *s, const struct msgid *id,
                                   int64_t now_ms, struct str recipient)
{
    const struct http_request *r = s->request;

    return (struct trace_stamp){
        .helo = str_of(request_token(r) != NULL ? request_token(r) : "localhost"),
        .protocol = "HTTP",
        .no_received = !injection_facts(s->injection)->received,
        .peer_addr = r->peer_ip,
        .host_name = r->config->host_name,
        .id = id,
        .recipient = recipient,
        .now_ms = now_ms};
}

/* Why the recipient gets no letter, or NULL: address and queue are in l. */
static const char *take_address(struct submission *s, struct letter *l, bool *ascii)
{
    const struct config *c = s->request->config;
    struct str email = injection_email(s->injection, l->recipient);
    struct smtp_address address;
    struct dns_name name;
    const char *refusal;

    if (email.len > SMTP_PATH_MAX - 2 || smtp_address_parse(email, true, &address) < 0)
        return smtp_address_fault(email)->reply;
    refusal = accept_rcpt_refusal(c, &address, &name);
    if (refusal != NULL)
        return refusal;
    *ascii = accept_put_rcpt(&l->strings, c, &address);
    l->rcpt = (struct accept_rcpt){.address = {0, (uint32_t)l->strings.len}};
    l->rcpt.queue = (struct accept_slice){(uint32_t)l->strings.len, (uint32_t)name.len};
    buf_put(&l->strings, name.text, name.len);
    l->email = (struct accept_slice){(uint32_t)l->strings.len, (uint32_t)email.len};
    buf_put_str(&l->strings, email);
    return NULL;
}

/* Whether the address, which is taken, is on the suppression list for mail of these; *error says
 * so. */
static const char *take_suppression(const struct submission *s, const struct letter *l,
                                    struct str tenant, struct str campaign,
                                    struct json_mistake *error)
{
    struct str address = {(const char *)l->strings.data, l->rcpt.address.len};
    struct suppressions *list = &s->request->http->shared->suppressions;
    struct suppression one;
    struct buf why = {0};
    int held = suppressions_hold(list, tenant, address, campaign.len > 0, &one);

    if (held < 0)
        return "451 4.3.0 the suppression list cannot be read, try again later";
    if (held == 0)
        return NULL;
    suppressions_count(list, 1);
    suppression_put_why(&why, &one);
    snprintf(error->text, sizeof(error->text), "550 5.7.1 %.*s", STR_FMT(buf_str(&why)));
    buf_done(&why);
    return error->text;
}

/* As whom the token's mail may be. */
static struct config_sender_rule rule_of(const struct http_request *r)
{
    return config_sender_rule(r->config,
                              &(struct config_sender_question){.tenant = str_of(r->token.tenant)});
}

/* The rendered letter in body, behind room, to a message. */
static const char *take_message(struct submission *s, struct letter *l, struct draft *d)
{
    const struct injection_facts *facts = injection_facts(s->injection);
    const uint8_t *content = d->body->data + d->room;
    size_t len = d->body->len - d->room;
    struct buf meta = {0};
    const char *refusal;

    ASSERT(d->room <= d->body->len && l->message == NULL);
    d->config = s->request->config;
    d->queue = s->request->http->shared->queue;
    d->received_max = RECEIVED_MAX;
    d->recipients = 1;
    d->born_ms = clock_mono_ns() / 1000000;
    d->protocol = STR("HTTP");
    d->origin = str_of(s->request->peer_text);
    injection_put_metadata(s->injection, l->recipient, &meta);
    d->meta = buf_str(&meta);
    d->tenant = facts->tenant;
    d->dkim_domain = (struct str){s->dkim_domain.text, s->dkim_domain.len};
    d->campaign = facts->campaign;
    d->pool = facts->pool;
    d->client = (const struct sockaddr *)&s->request->peer;
    if (s->request->token.tenant[0] != '\0')
        d->headers_ignored = 1u << CONFIG_HEADER_POOL | 1u << CONFIG_HEADER_TENANT;
    d->rule = rule_of(s->request);
    d->priority = facts->priority;
    d->suppression = MESSAGE_SUPPRESSION_ANY;
    d->eight_bit = !str_is_ascii((struct str){(const char *)content, len});
    d->dot_lines = smtp_find_dot_line(content, len, 0) < len;
    d->smtputf8 = d->utf8_address;
    l->message = draft_message(d, &refusal);
    buf_done(&meta);
    l->due_ms = facts->not_before_ms > 0 ? facts->not_before_ms : d->not_before_ms;
    l->due_ms = l->due_ms > d->stamp.now_ms ? l->due_ms : d->stamp.now_ms;
    return l->message == NULL ? refusal : NULL;
}

/* Whether the letter's content has room beside what others hold (queue.intake_memory_max). */
static bool letter_hold(struct submission *s, struct letter *l)
{
    uint64_t bytes = l->message->content_len;

    ASSERT(l->held_bytes == 0);
    if (request_hold(s->request, bytes))
        l->held_bytes = bytes;
    else if (s->letters_len > 0 || bytes > SMALL_BYTES)
        return false;
    return true;
}

/* What a letter of a campaign bears (worker/letter_marks.h): the request's batch stands for the
 * campaign's id, and the letter's own id is that many behind it. */
struct marks {
    struct buf token, sender;
};

static const char *take_marks(struct submission *s, const struct letter *l, struct marks *marks)
{
    const struct config *c = s->request->config;
    const struct recipe *recipe = injection_recipe(s->injection);
    struct str address = {(const char *)l->strings.data, l->rcpt.address.len};
    uint32_t index = (uint32_t)l->recipient;
    int err = letter_marks_token(c, recipe, &s->batch, index, address, &marks->token);

    if (err == 0)
        err = letter_marks_sender(c, recipe, &s->batch, index, buf_str(&s->sender), &marks->sender);
    return err < 0 ? "451 4.3.5 letter_keys of the configuration has no key" : NULL;
}

/* The letter of a recipient whose address is taken. */
static const char *render(struct submission *s, struct letter *l, bool ascii, struct draft *d,
                          struct json_mistake *error)
{
    struct template_budget budget = {s->request->config->http.message_bytes_max, LETTER_STEPS};
    struct marks marks = {0};
    const char *refusal = take_marks(s, l, &marks);

    d->stamp = stamp_of(s, &l->id, clock_wall_ms(),
                        (struct str){(const char *)l->strings.data, l->rcpt.address.len});
    d->room = trace_stamp_room(&d->stamp);
    d->utf8_address = !ascii || !s->sender_ascii;
    d->sender = buf_str(&marks.sender);
    buf_room(d->body, d->room + 4096);
    d->body->len = d->room;
    if (refusal == NULL && injection_letter(s->injection, l->recipient, &l->id,
                                            buf_str(&marks.token), budget, d->body, error) < 0)
        refusal = error->text;
    else if (refusal == NULL)
        refusal = take_message(s, l, d);
    buf_done(&marks.token);
    buf_done(&marks.sender);
    return refusal;
}

/* The same where the letter itself names whose it is, in a field. Its message is gone then. */
static const char *take_named(const struct submission *s, struct letter *l,
                              struct json_mistake *error)
{
    const struct injection_facts *facts = injection_facts(s->injection);
    const struct message *m = l->message;
    const char *refusal;

    if (str_eq(m->tenant, facts->tenant) && str_eq(m->campaign, facts->campaign))
        return NULL;
    refusal = take_suppression(s, l, m->tenant, m->campaign, error);
    if (refusal != NULL)
        message_unref(l->message);
    return refusal;
}

static bool is_over(int64_t expires_ms)
{
    return expires_ms != 0 && expires_ms <= clock_wall_ms();
}

/* Renders the next recipient's letter. *bytes: of its content. False: the round is over, for there
 * is no room for it. */
static bool make_letter(struct submission *s, size_t *bytes)
{
    const struct injection_facts *facts = injection_facts(s->injection);
    struct letter *l = &s->letters[s->letters_len];
    struct msgid id = msgid_after(&s->batch, (uint32_t)s->next + 1);
    int accepted = once_accepted(&s->once, (uint32_t)s->next);
    struct json_mistake error = {0};
    struct buf body = {0};
    struct draft d = {.body = &body};
    const char *refusal;
    bool ascii = true;

    ASSERT(s->letters_len < s->letters_max && s->next < s->recipients);
    if (accepted < 0) {
        s->shortage = accepted;
        return false;
    }
    *l = (struct letter){.submission = s, .recipient = s->next++, .id = id};
    if (accepted > 0) {
        s->letters_len++;
        return true;
    }
    refusal = take_address(s, l, &ascii);
    if (refusal == NULL)
        refusal = take_suppression(s, l, facts->tenant, facts->campaign, &error);
    if (refusal == NULL)
        refusal = render(s, l, ascii, &d, &error);
    buf_done(&body);
    if (refusal == NULL)
        refusal = take_named(s, l, &error);
    if (refusal == NULL && is_over(facts->expires_ms)) {
        message_unref(l->message);
        refusal = EXPIRES_OVER;
    }
    if (refusal == NULL && !letter_hold(s, l)) {
        message_unref(l->message);
        buf_done(&l->strings);
        s->next = l->recipient; /* in the next round, when this one's are given back ... */
        if (s->letters_len == 0)
            s->shortage = -ENOMEM; /* ... or there is none */
        return false;
    }
    if (refusal != NULL) {
        fail_recipient(s, injection_email(s->injection, l->recipient), error.field, refusal);
        buf_done(&l->strings);
        buf_done(&d.refusal);
        return true;
    }
    if (s->once_letters != NULL)
        once_letter(&s->once, (uint32_t)l->recipient, &s->once_letters[s->letters_len]);
    *bytes += l->message->content_len;
    s->letters_len++;
    return true;
}

/* --- rounds --- */

static void next_round(struct http_request *r);

static void letters_free(struct submission *s)
{
    for (size_t i = 0; i < s->letters_len; i++) {
        message_unref(s->letters[i].message);
        buf_done(&s->letters[i].strings);
        request_release(s->request, s->letters[i].held_bytes);
    }
    s->letters_len = 0;
}

static void take_results(struct submission *s)
{
    char id[MSGID_TEXT_BYTES];

    ASSERT(s->under_way == 0);
    for (size_t i = 0; i < s->letters_len; i++) {
        const struct letter *l = &s->letters[i];

        ASSERT(l->message == NULL && l->result <= 0); /* its worker has it, or has refused it */
        if (l->result == 0) {
            s->success++;
            s->fresh += l->strings.len > 0; /* what was accepted before was not made again */
            msgid_text(&l->id, id);
            put_string(&s->ids_json, str_of(id));
        } else {
            struct str email = {(const char *)l->strings.data + l->email.at, l->email.len};

            s->shortage = l->result;
            fail_recipient(s, email, "", shortage_text(l->result));
        }
    }
    letters_free(s);
}

/* What letters are made of goes when the last is made, and not behind its commit: other requests
 * work with the memory while it is in the caches. */
static void injection_drop(struct submission *s)
{
    uint64_t letters = 0;

    for (size_t i = 0; i < s->letters_len; i++)
        letters += s->letters[i].held_bytes;
    ASSERT(s->next == s->recipients && letters <= s->request->held_bytes);
    injection_free(s->injection);
    s->injection = NULL;
    request_release(s->request, s->request->held_bytes - letters);
}

/* What is short is not asked again and again: the rest is refused as the last was. */
static void give_up(struct submission *s)
{
    ASSERT(s->shortage < 0);
    for (; s->next < s->recipients; s->next++)
        fail_recipient(s, injection_email(s->injection, s->next), "", shortage_text(s->shortage));
}

/* Who accepts the round's letters. What is known to go to one shard goes to the worker that owns
 * it: another one would hand it over, by a wake more for each letter. */
static uint32_t worker_for(const struct submission *s)
{
    struct shared *shared = s->request->http->shared;

    ASSERT(s->letters_len <= s->letters_max);
    if (s->once.shared != NULL)
        return worker_of_shard(shared, s->once.shard)->index;
    if (s->letters_len == 1) {
        const struct letter *l = &s->letters[0];
        struct str domain = {(const char *)l->strings.data + l->rcpt.queue.at, l->rcpt.queue.len};

        return worker_of_shard(shared, queue_shard_of(shared->queue, domain))->index;
    }
    return atomic_fetch_add_explicit(&s->request->http->next_worker, 1, memory_order_relaxed) %
           shared->workers_len;
}

static void next_round(struct http_request *r)
{
    struct submission *s = r->work;
    struct shared *shared = r->http->shared;
    uint64_t until_ns = clock_mono_ns() + ROUND_MS * UINT64_C(1000000);
    size_t bytes = 0, began;
    uint32_t to;

    take_results(s);
    if (s->shortage == 0 && accept_intake(shared->queue) != QUEUE_INTAKE_OK)
        s->shortage = -ENOSPC;
    if (s->shortage == 0 && atomic_load(&r->http->draining))
        s->shortage = -ESHUTDOWN;
    if (s->shortage != 0)
        give_up(s);
    /* Letters that fail take time as well: a round without any goes by a worker all the same, so
     * that this thread's other requests have their turn. */
    for (began = s->next; s->next < s->recipients && s->letters_len < s->letters_max &&
                          bytes < ROUND_BYTES && (s->next == began || clock_mono_ns() < until_ns) &&
                          make_letter(s, &bytes);)
        ;
    if (s->letters_len == 0 && s->shortage != 0)
        give_up(s);
    if (s->letters_len == 0 && s->next == s->recipients) {
        answer(s);
        return;
    }
    s->note.run = on_round;
    to = worker_for(s);
    if (s->next == s->recipients) {
        injection_drop(s);
        request_await(r, next_round); /* a commit away; then all is answered */
    } else {
        request_suspend(r, next_round);
    }
    request_send(r, to, &s->note);
}

static void submission_free(struct http_request *r)
{
    struct submission *s = r->work;

    ASSERT(s->under_way == 0);
    letters_free(s);
    once_end(&s->once);
    free(s->once_letters);
    injection_free(s->injection);
    buf_done(&s->sender);
    buf_done(&s->ids_json);
    buf_done(&s->failed_json);
    buf_done(&s->errors_json);
    free(s);
}

/* A tenant's mail goes by the pool that the rules have for the tenant. */
bool pool_refused(struct http_request *r, bool chosen, struct str pool)
{
    if (!chosen)
        return false;
    if (r->token.tenant[0] != '\0')
        request_problem(r, 403, "pool", "a token of a tenant chooses no pool");
    else if (pool.len > 0 && config_pool_find(r->config, pool) == NULL)
        request_problem(r, 422, "pool", "pool: there is no such pool");
    return r->answered;
}

bool tenant_refused(struct http_request *r, struct str tenant)
{
    if (r->token.tenant[0] == '\0' || tenant.len == 0 || str_eq(tenant, str_of(r->token.tenant)))
        return false;
    request_problem(r, 403, "tenant", "this token is of the tenant '%s'", r->token.tenant);
    return true;
}

static bool sender_refused(struct http_request *r, struct str sender)
{
    struct config_sender_rule rule = rule_of(r);
    struct smtp_address address = {.local_part = STR(""), .domain = STR("")};
    struct str domain = STR("");
    struct dns_name name;

    if (rule.senders == NULL)
        return false;
    if (sender.len > 0) {
        int err = smtp_address_parse(sender, true, &address);

        ASSERT(err == 0); /* the injection was read */
        domain = address.domain;
        if (queue_name_of(domain, &name) == 0)
            domain = (struct str){name.text, name.len};
    }
    if (config_may_send(rule.senders, address.local_part, domain))
        return false;
    request_problem(r, 403, "envelope_sender", "this sender is not in the list of tenant %s",
                    r->token.tenant);
    return true;
}

bool mail_refused(struct http_request *r, struct str sender, struct str tenant, struct str pool)
{
    return tenant_refused(r, tenant) || pool_refused(r, pool.len > 0, pool) ||
           sender_refused(r, sender);
}

bool expires_refused(struct http_request *r, int64_t expires_ms, int64_t begin_ms,
                     const char *field)
{
    if (is_over(expires_ms))
        request_problem(r, 422, "expires", EXPIRES_OVER);
    else if (expires_ms != 0 && begin_ms >= expires_ms)
        request_problem(r, 422, "expires", "expires: is not behind '%s'", field);
    return r->answered;
}

bool dkim_refused(struct http_request *r, struct str domain, struct dns_name *out)
{
    struct config_sender_rule rule = rule_of(r);

    out->len = 0;
    if (domain.len == 0)
        return false;
    if (queue_name_of(domain, out) < 0 ||
        !keyring_has(r->config->keyring, (struct str){out->text, out->len}))
        request_problem(r, 422, "dkim_domain",
                        "dkim_domain: no key of dkim.keys is of this domain");
    else if (rule.senders != NULL &&
             !config_may_send(rule.senders, STR(""), (struct str){out->text, out->len}))
        request_problem(r, 403, "dkim_domain", "this domain is not in the list of tenant %s",
                        r->token.tenant);
    return r->answered;
}

/* Single letters of a campaign have the marks that its sender's domain has for campaigns. */
static void choose_marks(struct submission *s)
{
    const struct injection_facts *facts = injection_facts(s->injection);
    struct campaign what = {0};
    struct recipe_marks marks;
    struct buf feedback_id = {0};

    if (facts->campaign.len == 0)
        return;
    ASSERT(facts->campaign.len < sizeof(what.name) && facts->tenant.len < sizeof(what.tenant));
    memcpy(what.name, facts->campaign.ptr, facts->campaign.len);
    memcpy(what.tenant, facts->tenant.ptr, facts->tenant.len);
    marks = letter_marks_choose(s->request->config, &what, buf_str(&s->sender), &feedback_id);
    recipe_mark(injection_recipe(s->injection), &marks);
    buf_done(&feedback_id);
}

static void take_sender(struct submission *s)
{
    struct smtp_address address;
    struct str sender = injection_facts(s->injection)->sender;
    int err;

    s->sender_ascii = true;
    if (sender.len == 0)
        return;
    err = smtp_address_parse(sender, true, &address);
    ASSERT(err == 0); /* the injection was read */
    s->sender_ascii = international_put_address(&s->sender, &address);
}

/* The request's key, of its body or its head; empty: it has none. */
static struct str key_of(struct http_request *r, const struct injection_facts *facts)
{
    const char *field = request_field(r, "Idempotency-Key");

    if (field == NULL || request_key_refused(r))
        return facts->idempotency_key;
    if (facts->idempotency_key.len > 0 && !str_eq(facts->idempotency_key, str_of(field)))
        request_problem(r, 400, "idempotency_key",
                        "idempotency_key: the field Idempotency-Key has another key");
    return str_of(field);
}

/* The batch's id, and what is known of the request's key. False: it is answered. */
static bool begin_batch(struct submission *s, struct str body)
{
    const struct injection_facts *facts = injection_facts(s->injection);
    struct http_request *r = s->request;
    uint8_t payload[DIGEST_BYTES];
    struct str key = key_of(r, facts);
    struct msgid_source ids;
    int err = 0;

    if (r->answered)
        return false;
    msgid_source_init(&ids, request_random(r));
    s->batch = msgid_next(&ids, clock_wall_ms());
    if (key.len > 0) {
        s->once_letters = calloc(s->letters_max, sizeof(*s->once_letters));
        ASSERT(s->once_letters != NULL);
        digest_sha256(body.ptr, body.len, payload);
        err = once_begin(&s->once, r->http->shared, str_of(r->token.name), key, payload,
                         facts->recipients, &s->batch);
        s->batch = s->once.batch;
    }
    msgid_text(&s->batch, s->batch_id);
    if (err == -EBUSY)
        request_problem(r, 409, "idempotency_key", "a request with this key is under way");
    else if (err == -EEXIST)
        request_problem(r, 409, "idempotency_key",
                        "idempotency_key: another request had this key within 24 hours");
    else if (err < 0)
        request_problem(r, 503, "", "what the queue knows of the key cannot be read: %s",
                        strerror(-err));
    return err == 0;
}

/* What first requests are refused for. One that is sent again was taken once, and hears what it
 * heard, whatever has changed since. */
static bool refused(struct submission *s, const struct injection_facts *facts)
{
    struct http_request *r = s->request;

    if (!s->once.again)
        return expires_refused(r, facts->expires_ms, facts->not_before_ms, "not_before") ||
               mail_refused(r, facts->sender, facts->tenant, facts->pool) ||
               dkim_refused(r, facts->dkim_domain, &s->dkim_domain);
    if (facts->dkim_domain.len > 0 && queue_name_of(facts->dkim_domain, &s->dkim_domain) < 0)
        s->dkim_domain.len = 0;
    return false;
}

static struct submission *submission_new(struct http_request *r, struct injection *injection)
{
    size_t letters = injection_facts(injection)->recipients;
    struct submission *s;

    ASSERT(r->work == NULL && r->done == NULL);
    letters = letters == 0 ? 1 : letters < ROUND_LETTERS ? letters : ROUND_LETTERS;
    s = calloc(1, sizeof(*s) + letters * sizeof(s->letters[0]));
    ASSERT(s != NULL);
    s->letters_max = letters;
    s->request = r;
    s->injection = injection;
    s->recipients = injection_facts(injection)->recipients;
    s->expires_ms = injection_facts(injection)->expires_ms;
    r->work = s;
    r->done = submission_free;
    return s;
}

void handle_injection(struct http_request *r)
{
    const struct injection_facts *facts;
    struct injection *injection;
    struct json_mistake error;
    struct submission *s;

    if (atomic_load(&r->http->draining)) {
        request_problem(r, 503, "", "%s", shortage_text(-ESHUTDOWN));
        return;
    }
    if (injection_parse(buf_str(&r->body), clock_wall_ms(), &injection, &error) < 0) {
        request_problem(r, error.status, error.field, "%s%s%s", error.field,
                        error.field[0] != '\0' ? ": " : "", error.text);
        return;
    }
    facts = injection_facts(injection);
    s = submission_new(r, injection);
    if (!begin_batch(s, buf_str(&r->body)) || refused(s, facts))
        return;
    if (r->token.tenant[0] != '\0')
        injection_set_tenant(injection, str_of(r->token.tenant));
    buf_done(&r->body); /* what was held for it is held for the tree */
    if (facts->bytes > r->held_bytes && !request_hold(r, facts->bytes - r->held_bytes)) {
        request_problem(r, 503, "", HTTP_NO_ROOM);
        return;
    }
    take_sender(s);
    choose_marks(s);
    if (!s->once.again)
        request_charge(r, facts->recipients > 0 ? facts->recipients : 1);
    next_round(r);
}

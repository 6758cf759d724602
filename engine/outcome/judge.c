#include "outcome/judge.h"

#include <stdlib.h>

#include "base/log.h"
#include "limits/governor.h"
#include "limits/retry.h"
#include "outcome/admin.h"
#include "outcome/classify.h"
#include "outcome/notice.h"
#include "outcome/report.h"
#include "outcome/suppress.h"
#include "schedule/lane_wait.h"
#include "schedule/settle.h"
#include "schedule/supply.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define UNROUTABLE_MAX 250 /* recipients of a lane that end in a turn */
#define RULE_RETRIES   3   /* attempts behind which a rule's `retry` counts */

/* --- records --- */

static uint32_t span_ms(uint64_t from, uint64_t to)
{
    return from == 0 || to < from ? 0 : (uint32_t)(to - from);
}

static void sum_up_flow(const struct queue_flow *flow, enum report_type type,
                        const char *classification)
{
    struct queue_flow_sums *sums = flow == NULL ? NULL : flow->sums;

    _Static_assert(FLOW_REASONS >= REFUSAL_REASONS_MAX, "");
    if (sums == NULL)
        return;
    if (type == REPORT_DELIVERY) {
        governor_sum(&sums->delivered, 1);
    } else if (type == REPORT_TRANSIENT) {
        governor_sum(&sums->deferred, 1);
    } else if (type == REPORT_BOUNCE || type == REPORT_EXPIRATION) {
        governor_sum(&sums->bounced, 1);
        atomic_fetch_add_explicit(&sums->bounced_by[classify_reason(classification)], 1,
                                  memory_order_relaxed);
    }
}

static void sum_up(struct governor_sums *sums, enum report_type type, const char *classification)
{
    _Static_assert(GOVERNOR_REASONS_MAX >= REFUSAL_REASONS_MAX, "");
    if (type == REPORT_DELIVERY)
        governor_sum(&sums->delivered, 1);
    else if (type == REPORT_TRANSIENT)
        governor_sum(&sums->deferred, 1);
    else if (type == REPORT_BOUNCE || type == REPORT_EXPIRATION)
        atomic_fetch_add_explicit(&sums->bounced[classify_reason(classification)], 1,
                                  memory_order_relaxed);
}

/* The attempt at r that was made in c, and reply, which ended it. The caller adds what follows. */
static struct report_event attempt_event(struct worker *w, const struct judge_context *c,
                                         enum report_type type, const struct recipient *r,
                                         const struct smtp_reply *reply)
{
    struct report_event event =
        report_event_of(type, w->config->node_id, worker_wall_ms(w), r->message, r);

    event.site = c->site;
    event.reply = reply;
    event.peer_name = c->peer_name;
    event.peer_addr = c->peer_addr;
    event.source_name = c->source_name;
    event.source_addr = c->source_addr;
    event.proxy_server = c->proxy_server;
    event.proxy_word = c->proxy_word;
    event.pool_name = c->pool_name;
    event.delivery_protocol = c->protocol;
    event.session_id = c->session_id;
    event.tls = c->tls;
    event.connect_ms = span_ms(c->started_ms, c->connected_ms);
    event.transaction_ms = span_ms(c->begun_ms, io_now_ms(w->io));
    event.signers = c->signers;
    return event;
}

/* Counts event, of an attempt at r that was made in c, and appends its record. */
static void attempt_record(const struct judge_context *c, const struct recipient *r,
                           const struct report_event *event, struct buf *out)
{
    if (c->sums != NULL)
        sum_up(c->sums, event->type, event->classification);
    sum_up_flow(r->lane == NULL ? NULL : r->lane->names, event->type, event->classification);
    report_line(out, event);
}

static void count_refusal(struct worker *w, enum report_type type, const char *classification)
{
    enum refusal_end end = type == REPORT_TRANSIENT    ? REFUSAL_DEFERRED
                           : type == REPORT_EXPIRATION ? REFUSAL_EXPIRED
                                                       : REFUSAL_FAILED;
    uint8_t reason = classify_reason(classification);

    ASSERT(reason < REFUSAL_REASONS_MAX);
    if (type == REPORT_TRANSIENT || type == REPORT_EXPIRATION || type == REPORT_BOUNCE)
        counter_add(&w->counters.refusals[reason][end], 1);
}

static void record_entry(struct judge_batch *b, enum report_type type, struct judge_entry *e,
                         int64_t next_ms)
{
    const struct outcome *o = &e->outcome;
    const struct config_rule *rule = type == REPORT_EXPIRATION ? NULL : o->rule;
    struct report_event event = attempt_event(b->worker, b->context, type, e->recipient, &o->reply);

    if (rule != NULL && rule->classification != NULL)
        e->classification = rule->classification;
    else
        e->classification = o->class == OUTCOME_DELIVERED ? NULL : classify_bounce(o);
    if (e->classification != NULL)
        count_refusal(b->worker, type, e->classification);
    event.command = o->local ? NULL : classify_command(o->stage);
    event.classification = e->classification;
    if (rule != NULL) {
        event.rule = rule->name;
        event.no_suppression = rule->no_suppression;
    }
    event.suppresses = e->suppresses;
    event.next_attempt_ms = next_ms;
    attempt_record(b->context, e->recipient, &event, &b->records);
}

/* For the sheet of a content whose recipients are counted: queue/sheet.h. */
static struct queue_note note_of(const struct worker *w, const struct judge_context *c,
                                 uint32_t row, const char *classification)
{
    struct queue_note note = {
        .row = row,
        .reason = classification == NULL ? 0 : classify_reason(classification),
        .at_ms = worker_wall_ms(w),
        .site_len = (uint8_t)(c->site.len < SHEET_NAME_MAX ? c->site.len : SHEET_NAME_MAX)};

    if (note.site_len > 0)
        memcpy(note.site, c->site.ptr, note.site_len);
    return note;
}

/* --- notices --- */

static const enum notice_kind notice_kinds[] = {NOTICE_FAILED, NOTICE_EXPIRED, NOTICE_DELAYED,
                                                NOTICE_RELAYED};

static void notice_record(const struct worker *w, const struct message *m,
                          const struct recipient *r, struct buf *out)
{
    struct report_event event =
        report_event_of(REPORT_RECEPTION, w->config->node_id, m->created_ms, m, r);

    event.reception_protocol = "internal";
    report_line(out, &event);
}

/* Puts the notice to what the batch settles: it is accepted in the transaction that ends what it
 * tells of. */
static void notice_submit(struct judge_batch *b, const struct message *original,
                          const struct notice *notice)
{
    struct worker *w = b->worker;
    struct buf content = {0};
    struct dns_name name;
    const struct config_destination *dest;
    bool eight_bit = false, smtputf8 = false;
    struct message fields = {.id = notice->id,
                             .created_ms = notice->now_ms,
                             .born_ms = io_now_ms(w->io),
                             .flags = MESSAGE_NOTICE,
                             .recipients = 1,
                             .protocol = STR("internal"),
                             .priority = original->priority,
                             .tenant = original->tenant,
                             .campaign = original->campaign};
    const struct queue_flow *flow;
    struct message *m;
    struct recipient *r;

    ASSERT(original->sender.len > 0 && (original->flags & MESSAGE_NOTICE) == 0); /* or for ever */
    if (queue_name_of(queue_name_domain(original->sender), &name) < 0) {
        log_warn("notice.undeliverable", "reason=\"sender has no mail domain\"");
        return;
    }
    dest = config_destination_for(w->config, (struct str){name.text, name.len}, STR(""));
    notice_build(notice, &content, &eight_bit, &smtputf8);
    fields.content = content.data;
    fields.content_len = content.len;
    if (eight_bit)
        fields.flags |= MESSAGE_8BIT;
    if (smtputf8)
        fields.flags |= MESSAGE_SMTPUTF8;
    fields.flags |= MESSAGE_DOT_LINES; /* nobody has looked for dot lines: stuffing does */
    flow = queue_flow_get(w->shared->queue, original->priority, original->tenant,
                          original->campaign, STR(""));
    ASSERT(flow != NULL);
    fields.flow = flow->id;
    m = message_new(&fields);
    ASSERT(m != NULL);
    r = recipient_new(m, 0, (struct str){name.text, name.len}, original->sender, STR(""), STR(""));
    ASSERT(r != NULL);
    r->due_ms = notice->now_ms;
    r->notify = SMTP_NOTIFY_NEVER;
    r->lifetime_s = retry_lifetime_s(dest, true, 0);
    notice_record(w, m, r, &b->records);
    ASSERT(b->notices_len < ARRAY_LEN(b->notices));
    b->notices[b->notices_len++] = r;
    counter_add(&w->counters.notices, 1);
}

/* One notice of a kind for all entries that owe it. */
static void notice_send(struct judge_batch *b, enum notice_kind kind)
{
    struct worker *w = b->worker;
    struct notice_recipient *list = calloc(b->len, sizeof(*list));
    const struct message *m = b->entries[0].recipient->message;
    struct notice notice = {.kind = kind,
                            .host_name = w->config->host_name,
                            .postmaster = w->config->bounce.postmaster,
                            .from_name = w->config->bounce.from_name,
                            .original = m,
                            .recipients = list,
                            .headers_only = w->config->bounce.return_headers_only,
                            .return_bytes_max = w->config->bounce.return_bytes_max,
                            .now_ms = worker_wall_ms(w)};

    ASSERT(list != NULL);
    for (size_t i = 0; i < b->len; i++) {
        const struct judge_entry *e = &b->entries[i];

        if (!e->notice || e->kind != kind)
            continue;
        list[notice.recipients_len++] = (struct notice_recipient){
            .address = e->recipient->address,
            .orcpt = e->recipient->orcpt,
            .outcome = &e->outcome,
            .peer_name = e->outcome.local ? NULL : b->context->peer_name,
            .last_attempt_ms = e->recipient->last_attempt_ms,
            .will_retry_until_ms = kind == NOTICE_DELAYED ? recipient_expires_ms(e->recipient) : 0};
    }
    ASSERT(notice.recipients_len <= b->len);
    if (notice.recipients_len > 0) {
        notice.id = msgid_next(&w->ids, notice.now_ms);
        notice_submit(b, m, &notice);
    }
    free(list);
}

static void owe(struct judge_entry *e, enum notice_kind kind)
{
    ASSERT(!e->notice); /* one of an attempt */
    e->kind = kind;
    e->notice = notice_wanted(kind, e->recipient->message, e->recipient->notify);
}

/* --- policy --- */

static void entry_end(struct judge_batch *b, struct judge_entry *e, enum report_type type,
                      _Atomic uint64_t *counter, enum notice_kind kind)
{
    ASSERT(!e->ended && !e->notice);
    record_entry(b, type, e, 0);
    counter_add(counter, 1);
    owe(e, kind);
    e->ended = true;
    e->count = e->outcome.suppressed       ? TALLY_SUPPRESSED
               : type == REPORT_DELIVERY   ? TALLY_DELIVERED
               : type == REPORT_EXPIRATION ? TALLY_EXPIRED
                                           : TALLY_FAILED;
}

bool judge_has_room(const struct worker *w, const struct recipient *r, enum notice_kind kind)
{
    const struct lane *lane = r->lane;

    return !notice_wanted(kind, r->message, r->notify) || settle_takes_notice(w, lane->shard);
}

/* When the next attempt comes: as the rule says that read the answer, but for who hears it again
 * and again, else by the retry table; the sooner of the two where the rule says so. */
static int64_t next_ms(const struct judge_batch *b, const struct judge_entry *e, int64_t now_ms,
                       int64_t expires_ms)
{
    const struct config_rule *rule = e->outcome.rule;
    bool by_rule = rule != NULL && rule->retry_s != 0 && e->recipient->attempts <= RULE_RETRIES;
    int64_t table_ms = expires_ms, rule_ms = expires_ms;

    if (!by_rule || rule->retry_at_most)
        table_ms = retry_next_ms(b->context->dest, e->recipient->attempts, now_ms, expires_ms,
                                 &b->worker->rng);
    if (by_rule && now_ms + (int64_t)rule->retry_s * 1000 < expires_ms)
        rule_ms = now_ms + (int64_t)rule->retry_s * 1000;
    return table_ms < rule_ms ? table_ms : rule_ms;
}

/* By which pool the recipient is to go on: that of the rule that read the answer, or the overflow
 * of a pool that makes so many attempts and no more. NULL: by the same. */
static const char *pool_after(const struct judge_entry *e)
{
    const struct config_rule *rule = e->outcome.rule;
    const struct lane *lane = e->recipient->lane;
    const struct config_pool *pool = lane->supply == NULL ? NULL : lane->supply->pool;

    if (rule != NULL && rule->pool != NULL)
        return rule->pool;
    return pool != NULL && pool->attempts_max != 0 &&
                   e->recipient->attempts >= pool->attempts_max && pool->overflow != NULL
               ? pool->overflow->name
               : NULL;
}

static void entry_pool(struct judge_batch *b, struct judge_entry *e)
{
    const char *pool = pool_after(e);
    struct recipient *r = e->recipient;
    struct queue *q = b->worker->shared->queue;
    const struct queue_flow *flow = pool == NULL ? NULL : queue_flow_find(q, r->flow);
    struct queue_flow wanted;

    if (flow == NULL)
        return;
    wanted = *flow;
    wanted.pool = str_of(pool);
    flow = queue_flow_like(q, &wanted);
    if (flow == NULL || flow->id == r->flow) /* with too many flows it stays: it keeps its names */
        return;
    ASSERT(e->old_flow == 0); /* a row changes its flow once */
    e->old_flow = r->flow;
    r->flow = flow->id;
}

static void entry_defer(struct judge_batch *b, struct judge_entry *e)
{
    struct worker *w = b->worker;
    struct recipient *r = e->recipient;
    const struct message *m = r->message;
    bool is_notice = (m->flags & MESSAGE_NOTICE) != 0;
    int64_t now_ms = worker_wall_ms(w), expires_ms = recipient_expires_ms(r), start_ms;
    const struct config_destination *own;

    e->old_due_ms = r->due_ms;
    r->due_ms = next_ms(b, e, now_ms, expires_ms);
    entry_pool(b, e);
    if (retry_expired(now_ms, expires_ms))
        r->due_ms = now_ms + NOTICE_WAIT_MS;
    ASSERT(!e->ended && r->due_ms >= now_ms && r->due_ms != QUEUE_DUE_HELD);
    if (e->outcome.class != OUTCOME_EXPIRED) /* it was tried */
        recipient_set_error(r, str_of(r->lane->last_error));
    /* The delay of mail with a not-before time is counted from that time on, as the lifetime that
     * its domain gave it was. */
    own = config_destination_for(w->config, lane_domain(r->lane), STR(""));
    start_ms = expires_ms - (int64_t)own->lifetime_s * 1000;
    if (start_ms < m->created_ms)
        start_ms = m->created_ms;
    if (judge_has_room(w, r, NOTICE_DELAYED) &&
        retry_warn_due(b->context->dest, is_notice, (r->flags & RECIPIENT_WARNED) != 0, start_ms,
                       now_ms, expires_ms)) {
        r->flags |= RECIPIENT_WARNED;
        owe(e, NOTICE_DELAYED);
    }
    record_entry(b, REPORT_TRANSIENT, e, r->due_ms);
    counter_add(e->outcome.class == OUTCOME_LOST ? &w->counters.lost : &w->counters.deferred, 1);
}

/* A notice of ours that nobody takes is no bounce of a customer's mail. */
static _Atomic uint64_t *end_counter(struct worker *w, const struct recipient *r,
                                     _Atomic uint64_t *counter)
{
    return (r->message->flags & MESSAGE_NOTICE) != 0 ? &w->counters.notices_failed : counter;
}

/* No attempt was made. Whoever sends a campaign knows that people unsubscribe: of its letters there
 * is no notice. */
static void entry_suppress(struct judge_batch *b, struct judge_entry *e)
{
    bool told = (e->recipient->message->flags & MESSAGE_RECIPE) == 0;
    struct worker *w = b->worker;

    ASSERT(e->outcome.class == OUTCOME_FAILED && e->outcome.local);
    if (told && !judge_has_room(w, e->recipient, NOTICE_FAILED)) {
        entry_defer(b, e);
        return;
    }
    entry_end(b, e, REPORT_BOUNCE, &w->counters.failed, NOTICE_FAILED);
    e->notice = e->notice && told;
    suppressions_count(&w->shared->suppressions, 1);
}

/* Whether the answer to e puts its address on the suppression list. Behind the envelope one answer
 * is about all recipients that were accepted: of several it says of none who is meant. What the
 * store has left when it takes no mail any more is for rows that go. */
static bool is_nobody(const struct judge_batch *b, const struct judge_entry *e)
{
    char address[SUPPRESSION_ADDRESS_MAX + 1];
    size_t together = 0;

    if (!b->worker->config->suppression.hard_bounces || !classify_is_unknown(&e->outcome) ||
        (e->recipient->message->flags & MESSAGE_NOTICE) != 0 ||
        queue_intake(b->worker->shared->queue, e->recipient->lane->shard) != QUEUE_INTAKE_OK ||
        suppression_address(e->recipient->address, address) < 0)
        return false;
    if (e->outcome.stage == SMTP_STAGE_RCPT)
        return true;
    for (size_t i = 0; i < b->len; i++)
        together += b->entries[i].outcome.stage != SMTP_STAGE_RCPT;
    return together == 1;
}

/* A bounce for whose notice the store has no room waits in the store, as a row: in memory, hundreds
 * of them would keep out all else whose end could make room. The row is tried again, or found
 * expired again. */
static void entry_fail(struct judge_batch *b, struct judge_entry *e)
{
    struct worker *w = b->worker;

    ASSERT(e->outcome.class == OUTCOME_FAILED && !e->suppresses);
    if (!judge_has_room(b->worker, e->recipient, NOTICE_FAILED)) {
        entry_defer(b, e);
        return;
    }
    e->suppresses = is_nobody(b, e);
    entry_end(b, e, REPORT_BOUNCE, end_counter(w, e->recipient, &w->counters.failed),
              NOTICE_FAILED);
}

/* Whether a time that was set for r's message, and not its lifetime, has come. */
static bool ends_at_set_time(const struct recipient *r)
{
    return r->message->expires_ms != 0 && r->message->expires_ms <= worker_wall_ms(r->lane->worker);
}

/* The record says the same whether a last attempt failed or there was none; the notice of the
 * former says who answered what. */
static void entry_expire(struct judge_batch *b, struct judge_entry *e)
{
    const struct outcome tried = e->outcome;
    struct worker *w = b->worker;

    if (!judge_has_room(b->worker, e->recipient, NOTICE_EXPIRED)) {
        entry_defer(b, e);
        return;
    }
    e->outcome.class = OUTCOME_EXPIRED;
    if (tried.class != OUTCOME_EXPIRED) {
        const struct lane *lane = e->recipient->lane;

        e->outcome.local = true;
        classify_expired_reply(ends_at_set_time(e->recipient), str_of(lane->last_error), STR(""),
                               &e->outcome.reply);
    }
    entry_end(b, e, REPORT_EXPIRATION, end_counter(w, e->recipient, &w->counters.expired),
              NOTICE_EXPIRED);
    e->outcome.reply = tried.reply;
    e->outcome.local = tried.local;
}

/* What the provider said counts for the source's warm-up there; what we did not even send does not.
 */
static void warmup_hear(struct worker *w, const struct recipient *r,
                        const struct warmup_set *warmup, const struct outcome *o)
{
    if (o->local)
        return;
    switch (o->class) {
    case OUTCOME_DELIVERED:
        warmup_set_count(warmup, WARMUP_EVENT_DELIVERED);
        break;
    case OUTCOME_DEFERRED:
        warmup_set_count(warmup, WARMUP_EVENT_DEFERRED);
        break;
    case OUTCOME_FAILED:
        warmup_set_count(warmup, WARMUP_EVENT_BOUNCED);
        break;
    case OUTCOME_LOST: /* it says nothing */
    case OUTCOME_EXPIRED:
        break;
    }
    warmup_set_ride(&w->shared->warmup, warmup,
                    o->class == OUTCOME_DEFERRED || o->class == OUTCOME_FAILED, r->lane->shard);
}

static void entry_decide(struct judge_batch *b, struct judge_entry *e)
{
    struct worker *w = b->worker;
    struct recipient *r = e->recipient;
    int64_t now_ms = worker_wall_ms(w);

    ASSERT(!e->ended && r->state == PLACE_FLIGHT && r->lane->worker == w);
    if (e->outcome.suppressed) {
        entry_suppress(b, e);
        return;
    }
    if (e->outcome.class != OUTCOME_EXPIRED) {
        r->attempts = r->attempts == UINT16_MAX ? UINT16_MAX : (uint16_t)(r->attempts + 1);
        r->last_attempt_ms = now_ms;
        lane_note_error(r->lane, &e->outcome.reply, b->context->peer_name);
    }
    warmup_hear(w, r, &b->context->warmup, &e->outcome);
    switch (e->outcome.class) {
    case OUTCOME_FAILED:
        entry_fail(b, e);
        break;
    case OUTCOME_EXPIRED:
        entry_expire(b, e);
        break;
    case OUTCOME_DEFERRED:
    case OUTCOME_LOST:
        if (retry_expired(now_ms, recipient_expires_ms(r)))
            entry_expire(b, e);
        else
            entry_defer(b, e);
        break;
    case OUTCOME_DELIVERED:
        entry_end(b, e, REPORT_DELIVERY, &w->counters.delivered, NOTICE_RELAYED);
        e->notice = e->notice && !b->context->peer_dsn;
        break;
    }
}

void judge_begin(struct judge_batch *b, struct worker *w, const struct judge_context *context)
{
    *b = (struct judge_batch){.worker = w, .context = context};
}

struct judge_entry *judge_add(struct judge_batch *b, struct recipient *r,
                              const struct outcome *outcome)
{
    if (b->len == b->cap) {
        b->cap = b->cap == 0 ? 2 : b->cap * 2;
        b->entries = realloc(b->entries, b->cap * sizeof(*b->entries));
        ASSERT(b->entries != NULL);
    }
    ASSERT(r->state == PLACE_FLIGHT && r->lane->worker == b->worker);
    ASSERT(b->len == 0 || (r->message == b->entries[0].recipient->message &&
                           r->lane->shard == b->entries[0].recipient->lane->shard));
    b->entries[b->len] = (struct judge_entry){.recipient = r, .outcome = *outcome};
    return &b->entries[b->len++];
}

static struct queue_row entry_row(const struct judge_entry *e)
{
    ASSERT(e->recipient->state == PLACE_SETTLING);
    if (e->ended)
        return (struct queue_row){.kind = QUEUE_ROW_REMOVE,
                                  .rcpt = e->recipient,
                                  .old_due_ms = e->recipient->due_ms,
                                  .count = e->count};
    return (struct queue_row){.kind = QUEUE_ROW_MOVE,
                              .rcpt = e->recipient,
                              .old_due_ms = e->old_due_ms,
                              .old_flow = e->old_flow,
                              .count = TALLY_DEFERRED};
}

/* What the batch finds out of addresses: states that are put with its rows. */
struct judge_found {
    struct suppress_found *each;
    struct queue_state *states;
    size_t len;
};

static void found_make(const struct judge_batch *b, struct judge_found *f)
{
    size_t max = 0;

    *f = (struct judge_found){0};
    for (size_t i = 0; i < b->len; i++)
        max += b->entries[i].suppresses;
    if (max == 0)
        return;
    f->each = calloc(max, sizeof(*f->each));
    f->states = calloc(max, sizeof(*f->states));
    ASSERT(f->each != NULL && f->states != NULL);
    for (size_t i = 0; i < b->len; i++)
        if (b->entries[i].suppresses) {
            suppress_found(&f->each[f->len], &b->worker->shared->suppressions,
                           b->entries[i].recipient, &b->entries[i].outcome.reply,
                           b->context->peer_name, worker_wall_ms(b->worker), &f->states[f->len]);
            f->len++;
        }
    ASSERT(f->len == max);
}

static void found_done(struct judge_found *f)
{
    for (size_t i = 0; i < f->len; i++)
        suppress_found_done(&f->each[i]);
    free(f->each);
    free(f->states);
}

/* Hands the recipients over to the settle, but for those that somebody wants changed otherwise:
 * these stay in the entries. */
static void batch_settle(struct judge_batch *b, uint32_t shard, bool apart)
{
    size_t max = b->len + b->notices_len;
    struct queue_row *rows = calloc(max, sizeof(*rows));
    struct queue_note *notes = calloc(max, sizeof(*notes));
    struct settlement what = {.shard = shard, .apart = apart, .rows = rows, .notes = notes};
    struct judge_found found;

    ASSERT(rows != NULL && notes != NULL);
    found_make(b, &found);
    what.states = found.states;
    what.states_len = found.len;
    for (size_t i = 0; i < b->notices_len; i++)
        rows[what.rows_len++] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = b->notices[i]};
    for (size_t i = 0; i < b->len; i++) {
        struct judge_entry *e = &b->entries[i];

        ASSERT(e->recipient->lane->shard == shard);
        if (!e->ended && admin_wants(e->recipient))
            continue;
        lane_settling(e->recipient);
        if (e->recipient->message->recipients == 0)
            notes[what.notes_len++] =
                note_of(b->worker, b->context, (uint32_t)what.rows_len, e->classification);
        rows[what.rows_len++] = entry_row(e);
        e->recipient = NULL;
    }
    what.records = buf_str(&b->records);
    ASSERT(what.rows_len <= max && what.notes_len <= what.rows_len);
    settle(b->worker, &what);
    found_done(&found);
    free(rows);
    free(notes);
}

/* Decides for all first, then notices (they read the recipients), then settles: all in one turn, so
 * in one change. */
void judge_end(struct judge_batch *b)
{
    struct worker *w = b->worker;
    uint32_t shard = b->len > 0 ? b->entries[0].recipient->lane->shard : 0;
    /* A notice that may have to wait for room goes apart, and keeps nothing else waiting. */
    bool apart = b->len > 0 && (!settle_takes_notice(w, shard) ||
                                queue_intake(w->shared->queue, shard) != QUEUE_INTAKE_OK);

    for (size_t i = 0; i < b->len; i++)
        entry_decide(b, &b->entries[i]);
    for (size_t k = 0; b->len > 0 && k < ARRAY_LEN(notice_kinds); k++)
        notice_send(b, notice_kinds[k]);
    if (b->len > 0)
        batch_settle(b, shard, apart);
    for (size_t i = 0; i < b->len; i++) {
        struct judge_entry *e = &b->entries[i];

        if (e->recipient == NULL)
            continue;
        e->recipient->due_ms = e->old_due_ms;
        if (e->old_flow != 0)
            e->recipient->flow = e->old_flow;
        admin_obey(w, e->recipient);
    }
    buf_done(&b->records);
    free(b->entries);
    *b = (struct judge_batch){0};
}

void judge_delivered(struct worker *w, const struct judge_context *context, struct recipient *r,
                     const struct smtp_reply *reply)
{
    bool counted = r->message->recipients == 0;
    struct report_event event;
    struct queue_note note;
    struct queue_row row;

    if ((r->notify & SMTP_NOTIFY_SUCCESS) != 0 && !context->peer_dsn) {
        struct outcome outcome = {
            .class = OUTCOME_DELIVERED, .stage = SMTP_STAGE_BODY, .reply = *reply};

        judge_one(w, context, r, &outcome);
        return;
    }
    ASSERT(r->state == PLACE_FLIGHT && r->lane->worker == w);
    ASSERT((r->message->flags & MESSAGE_RECIPE) == 0); /* its letter was delivered */
    r->attempts++;
    buf_clear(&w->record);
    event = attempt_event(w, context, REPORT_DELIVERY, r, reply);
    event.command = classify_command(SMTP_STAGE_BODY);
    attempt_record(context, r, &event, &w->record);
    counter_add(&w->counters.delivered, 1);
    warmup_set_count(&context->warmup, WARMUP_EVENT_DELIVERED);
    warmup_set_ride(&w->shared->warmup, &context->warmup, false, r->lane->shard);
    row = (struct queue_row){
        .kind = QUEUE_ROW_REMOVE, .rcpt = r, .old_due_ms = r->due_ms, .count = TALLY_DELIVERED};
    lane_settling(r);
    if (counted)
        note = note_of(w, context, 0, NULL);
    settle(w, &(struct settlement){.shard = r->lane->shard,
                                   .records = buf_str(&w->record),
                                   .rows = &row,
                                   .rows_len = 1,
                                   .notes = &note,
                                   .notes_len = counted});
}

void judge_one(struct worker *w, const struct judge_context *context, struct recipient *r,
               const struct outcome *outcome)
{
    struct judge_batch b;

    judge_begin(&b, w, context);
    judge_add(&b, r, outcome);
    judge_end(&b);
}

void judge_expired(struct recipient *r)
{
    struct outcome outcome = {.class = OUTCOME_EXPIRED, .stage = SMTP_STAGE_READY, .local = true};
    struct lane *lane = r->lane;
    struct worker *w = lane->worker;
    struct judge_context context = {
        .dest = lane->site != NULL ? lane->site->dest
                                   : config_destination_for(w->config, lane_domain(lane), STR("")),
        .site = lane->site != NULL ? str_of(lane->site->name) : STR(""),
        .pool_name = lane->supply != NULL ? lane->supply->pool->name : NULL};
    struct buf waited = {0};

    lane_waited_for(lane, &waited);
    classify_expired_reply(ends_at_set_time(r), r->last_error, buf_str(&waited), &outcome.reply);
    buf_done(&waited);
    judge_one(w, &context, r, &outcome);
}

/* No mail of lane can go anywhere. */
static void judge_lane(struct lane *lane, const struct outcome *outcome)
{
    struct worker *w = lane->worker;
    struct judge_context context = {
        .dest = config_destination_for(w->config, lane_domain(lane), STR(""))};
    struct recipient *r;

    ASSERT(outcome->local); /* nobody was asked */
    /* What is left for the next turn must not go where the domain's mail went before. */
    if (outcome->class == OUTCOME_FAILED && lane->site != NULL)
        site_detach(lane->site, lane);
    for (int i = 0; i < UNROUTABLE_MAX && (r = lane_pop(lane)) != NULL; i++) {
        judge_one(w, &context, r, outcome);
        if (outcome->class != OUTCOME_FAILED)
            break;
    }
    if (outcome->class == OUTCOME_FAILED && lane->window_len > 0)
        lane_update_soon(lane); /* which asks for the route again */
    else if (outcome->class == OUTCOME_FAILED)
        lane_update(lane);
    else
        lane_suspend(lane, LANE_UNROUTED, context.dest, &outcome->reply,
                     NULL); /* gives up the others in lane */
}

void judge_unroutable(struct lane *lane, const struct dns_route *route)
{
    struct outcome outcome = {.class = OUTCOME_FAILED, .stage = SMTP_STAGE_CONNECT, .local = true};

    if (route == NULL) {
        classify_rejected_reply(&outcome.reply);
    } else {
        outcome.class = classify_dns(route->status).class;
        classify_dns_reply(route->status, str_of(route->error), &outcome.reply);
    }
    judge_lane(lane, &outcome);
}

void judge_forbidden(struct lane *lane, const char *why)
{
    struct outcome outcome = {
        .class = OUTCOME_DEFERRED, .stage = SMTP_STAGE_CONNECT, .local = true};

    /* Its old site may be under no policy: it must not serve while the route is looked up again. */
    if (lane->site != NULL)
        site_detach(lane->site, lane);
    classify_tls_reply(str_of(why), &outcome.reply);
    judge_lane(lane, &outcome);
}

#include "outcome/tls_reports.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "limits/quota.h"
#include "limits/retry.h"
#include "outcome/report.h"
#include "schedule/lane.h"
#include "schedule/settle.h"
#include "worker/queue_name.h"
#include "worker/sts_lookup.h"
#include "worker/tls_tell.h"

#define TXT_PREFIX  "_smtp._tls."
#define ASKS_MAX    32 /* domains that DNS is asked for at a time */
#define SENDS_MAX   8  /* reports under way */
#define STORES_MAX  64 /* records of a change */
#define ID_BYTES    48
#define AGAIN_MIN_S 300 /* RFC 8460 5.5: then twice as long, and so on, for a day */
#define AGAIN_MAX_S (4 * 3600)
#define GIVE_UP_S   86400

struct tls_reports {
    struct worker *worker;
    struct timer timer;
    struct list asks, sends; /* under way */
    unsigned asks_len, sends_len;
    struct quota targets; /* reports of a day to each mail domain and web host */
    /* Records that are being stored. */
    bool storing;
    uint64_t store_ms; /* monotonic: when next */
    struct queue_change change;
    struct queue_state states[STORES_MAX];
    char keys[STORES_MAX][TLS_COUNTS_KEY_MAX];
    struct buf values[STORES_MAX];
};

static struct tls_counts *counts_of(const struct tls_reports *t)
{
    return &t->worker->shared->tls_counts;
}

/* --- the TXT record --- */

/* RFC 8460 3: of records that are about reports there is one, or it is as if there were none. */
static bool record_choose(const struct dns_answer *answer, struct tls_report_targets *out)
{
    struct tls_report_targets one = {0};
    unsigned found = 0;
    bool good = false;

    for (size_t i = 0; answer->status == DNS_ANSWER_RECORDS && i < answer->records_len; i++) {
        int err = tls_report_record_parse(answer->records[i].txt, &one);

        if (err == -ENOENT)
            continue;
        found++;
        good = err == 0;
        buf_done(&out->text);
        *out = one;
        one = (struct tls_report_targets){0};
    }
    buf_done(&one.text);
    return found == 1 && good;
}

/* --- whether a domain wants reports --- */

struct ask {
    struct list_node node;
    struct tls_reports *of;
    struct dns_question txt;
    int64_t begin_s;
    char name[sizeof(TXT_PREFIX) + DNS_NAME_MAX];
};

/* Where DNS fails it is counted: the record is looked up again before a report is sent. */
static void on_asked(struct dns_question *question, const struct dns_answer *answer)
{
    struct ask *ask = CONTAINER_OF(question, struct ask, txt);
    struct tls_report_targets targets = {0};
    bool wanted = answer->status == DNS_ANSWER_FAILED || record_choose(answer, &targets);

    tls_counts_asked(counts_of(ask->of), str_of(ask->name + strlen(TXT_PREFIX)), ask->begin_s,
                     wanted);
    buf_done(&targets.text);
    list_remove(&ask->node);
    ask->of->asks_len--;
    free(ask);
}

static void ask_next(struct tls_reports *t)
{
    char domain[DNS_NAME_MAX + 1];
    int64_t begin_s;

    while (t->asks_len < ASKS_MAX && tls_counts_next_fresh(counts_of(t), domain, &begin_s)) {
        struct ask *ask =
            strlen(domain) + strlen(TXT_PREFIX) > DNS_NAME_MAX ? NULL : calloc(1, sizeof(*ask));

        if (ask == NULL) { /* no such name can be asked for, or there is no memory */
            tls_counts_asked(counts_of(t), str_of(domain), begin_s, false);
            continue;
        }
        ask->of = t;
        ask->begin_s = begin_s;
        snprintf(ask->name, sizeof(ask->name), TXT_PREFIX "%s", domain);
        ask->txt.on_answer = on_asked;
        list_push_back(&t->asks, &ask->node);
        t->asks_len++;
        dns_ask(t->worker->dns, &ask->txt, ask->name, DNS_TYPE_TXT);
    }
}

/* --- records in the store --- */

static void on_stored(struct queue_change *change, int result)
{
    struct tls_reports *t = change->owner;

    t->storing = false;
    log_debug("tls_reports.stored", "records=%zu result=%d", change->states_len, result);
    if (result < 0 && result != -ESHUTDOWN)
        log_warn("tls_reports.store_failed",
                 "error=\"%s\" action=\"what was counted is stored with the next counts\"",
                 strerror(-result));
}

static void store_round(struct tls_reports *t)
{
    uint64_t now_ms = io_now_ms(t->worker->io);
    size_t n = 0, len;

    if (t->storing || now_ms < t->store_ms)
        return;
    while (n < STORES_MAX) {
        buf_clear(&t->values[n]);
        len = tls_counts_next_dirty(counts_of(t), t->keys[n], &t->values[n]);
        if (len == 0)
            break;
        t->states[n] =
            (struct queue_state){.key = {t->keys[n], len}, .value = buf_str(&t->values[n])};
        n++;
    }
    if (n == 0)
        return;
    if (n < STORES_MAX)
        t->store_ms = now_ms + TLS_COUNTS_STORE_MS;
    t->change = (struct queue_change){
        .states = t->states, .states_len = n, .on_done = on_stored, .owner = t};
    t->storing = true;
    queue_submit(t->worker->port, 0, &t->change);
}

/* --- a report --- */

struct send {
    struct list_node node;
    struct tls_reports *of;
    struct config *config; /* a reference */
    struct tls_counts_entry *entry;
    struct tls_report_targets targets;
    size_t at;                        /* of targets: those before it are done with */
    struct tls_counts_target *target; /* at, where it is posted to; NULL: it is not remembered */
    bool failed;                      /* some target is to be tried again */
    struct buf packed;
    struct dns_question txt;
    struct dns_query host;
    struct sts_fetch fetch;
    struct worker_note note;
    struct settle_waiter settled;
    struct queue_change change;
    struct queue_state state;
    struct buf value;
    char key[TLS_COUNTS_KEY_MAX];
    char id[ID_BYTES];
    char name[sizeof(TXT_PREFIX) + DNS_NAME_MAX], host_name[DNS_NAME_MAX + 1];
    char addresses[STS_ADDRESSES_TEXT];
    char domain[DNS_NAME_MAX + 1];
};

static void send_free(struct send *s)
{
    list_remove(&s->node);
    s->of->sends_len--;
    buf_done(&s->targets.text);
    buf_done(&s->packed);
    buf_done(&s->value);
    config_unref(s->config);
    free(s);
}

static void on_recorded(struct queue_change *change, int result)
{
    struct send *s = change->owner;

    if (result < 0 && result != -ESHUTDOWN)
        log_warn("tls_reports.store_failed",
                 "domain=%s error=\"%s\" action=\"a restart sends the report again\"", s->domain,
                 strerror(-result));
    send_free(s);
}

/* Stores the entry as it is, or takes its record away; then s is done with. */
static void record(struct send *s, bool remove)
{
    struct worker *w = s->of->worker;
    struct tls_counts_entry *e = s->entry;

    s->state.key = (struct str){s->key, tls_counts_key(s->key, str_of(s->domain), e->begin_s)};
    s->state.remove = remove;
    if (!remove)
        tls_counts_encode(e, &s->value);
    s->state.value = buf_str(&s->value);
    s->change = (struct queue_change){
        .states = &s->state, .states_len = 1, .on_done = on_recorded, .owner = s};
    queue_submit(w->port, 0, &s->change);
}

static void send_end(struct send *s)
{
    struct tls_counts *counts = counts_of(s->of);
    struct worker *w = s->of->worker;
    int64_t now_s = worker_wall_ms(w) / 1000, wait_s = AGAIN_MIN_S;

    if (!s->failed || now_s - s->entry->end_s > GIVE_UP_S + s->config->tls_reports.delay_s) {
        if (s->failed)
            log_warn("tls_reports.given_up", "domain=%s report=%s", s->domain, s->id);
        record(s, true);
        tls_counts_end(counts, s->entry);
        return;
    }
    for (uint32_t i = 0; i < s->entry->tries && wait_s < AGAIN_MAX_S; i++)
        wait_s *= 2;
    record(s, false);
    tls_counts_again(counts, s->entry, now_s + wait_s);
}

static struct tls_report report_of(const struct send *s)
{
    const struct config *c = s->config;

    return (struct tls_report){
        .organization =
            c->tls_reports.organization != NULL ? c->tls_reports.organization : c->host_name,
        .contact = c->tls_reports.contact != NULL ? c->tls_reports.contact : c->tls_reports.from,
        .host_name = c->host_name,
        .domain = s->domain,
        .id = s->id,
        .begin_s = s->entry->begin_s,
        .end_s = s->entry->end_s - 1,
        .policies = &s->entry->policies};
}

/* --- by mail --- */

static void send_next(struct send *s);

static void on_settled(struct settle_waiter *waiter)
{
    struct send *s = CONTAINER_OF(waiter, struct send, settled);

    s->entry->mailed = true;
    send_next(s);
}

/* Whoever owns many domains could have a report of each sent to a victim. What is beyond the bound
 * is left out. */
static bool target_take(struct send *s, struct str host)
{
    int64_t day = worker_wall_ms(s->of->worker) / 1000 / s->config->tls_reports.period_s;

    if (quota_take(&s->of->targets, host, day, s->config->tls_reports.target_max))
        return true;
    log_info("tls_reports.target_bounded", "domain=%s report=%s target=\"%.*s\"", s->domain, s->id,
             STR_FMT(host));
    return false;
}

/* The message, in a flow of its own: it goes out whatever becomes of TLS (RFC 8460 3), and is not
 * counted. NULL: the address is none, or its domain has its share. */
static struct recipient *message_make(struct send *s, struct str to)
{
    struct worker *w = s->of->worker;
    struct tls_report report = report_of(s);
    int64_t now_ms = worker_wall_ms(w);
    struct message fields = {.id = msgid_next(&w->ids, now_ms),
                             .created_ms = now_ms,
                             .born_ms = io_now_ms(w->io),
                             .flags = MESSAGE_NOTICE | MESSAGE_DOT_LINES,
                             .recipients = 1,
                             .protocol = STR("internal"),
                             .priority = PRIORITY_DEFAULT,
                             .campaign = STR(LANE_CAMPAIGN_TLS_REPORTS)};
    const struct config_destination *dest;
    char id[MSGID_TEXT_BYTES], seed[24];
    const struct queue_flow *flow;
    struct buf content = {0};
    struct dns_name name;
    struct recipient *r;
    struct message *m;

    if (queue_name_of(queue_name_domain(to), &name) < 0 ||
        !target_take(s, (struct str){name.text, name.len}))
        return NULL;
    msgid_text(&fields.id, id);
    snprintf(seed, sizeof(seed), "%016llx", (unsigned long long)rng_next(&w->rng));
    tls_report_put_mail(&content, &report,
                        &(struct tls_report_mail){.from = s->config->tls_reports.from,
                                                  .to = to,
                                                  .packed = buf_str(&s->packed),
                                                  .seed = str_of(seed),
                                                  .message_id = id,
                                                  .now_ms = now_ms});
    fields.content = content.data;
    fields.content_len = content.len;
    flow = queue_flow_get(w->shared->queue, PRIORITY_DEFAULT, STR(""), fields.campaign, STR(""));
    ASSERT(flow != NULL);
    fields.flow = flow->id;
    m = message_new(&fields);
    ASSERT(m != NULL);
    r = recipient_new(m, 0, (struct str){name.text, name.len}, to, STR(""), STR(""));
    ASSERT(r != NULL);
    dest = config_destination_for(w->config, (struct str){name.text, name.len}, STR(""));
    r->due_ms = now_ms;
    r->notify = SMTP_NOTIFY_NEVER;
    r->lifetime_s = retry_lifetime_s(dest, true, 0);
    return r;
}

static void mail_record(struct worker *w, const struct recipient *r, struct buf *out)
{
    struct report_event event = report_event_of(REPORT_RECEPTION, w->config->node_id,
                                                r->message->created_ms, r->message, r);

    event.reception_protocol = "internal";
    report_line(out, &event);
}

/* All addresses in one change. False: there is none left. */
static bool mail_submit(struct send *s)
{
    struct queue_row rows[ARRAY_LEN(s->targets.list)];
    struct worker *w = s->of->worker;
    struct buf records = {0};
    size_t len = 0;

    for (size_t i = 0; i < s->targets.len; i++) {
        const struct tls_report_target *target = &s->targets.list[i];
        struct recipient *r = target->https ? NULL : message_make(s, target->address);

        if (r == NULL)
            continue;
        mail_record(w, r, &records);
        rows[len++] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
    }
    settle_follow(w, &s->settled);
    settle(w, &(struct settlement){.records = buf_str(&records), .rows = rows, .rows_len = len});
    settle_wait(w, 0);
    buf_done(&records);
    return len > 0;
}

/* --- by HTTPS --- */

static void target_failed(struct send *s, const char *why)
{
    log_info("tls_reports.post_failed", "domain=%s report=%s host=%s error=\"%s\"", s->domain,
             s->id, s->host_name, why);
    s->failed = true;
    s->at++;
    send_next(s);
}

static void on_posted(struct worker *w, struct worker_note *note)
{
    struct send *s = CONTAINER_OF(note, struct send, note);

    (void)w;
    if (s->fetch.why[0] != '\0') {
        target_failed(s, s->fetch.why);
        return;
    }
    log_info("tls_reports.posted", "domain=%s report=%s host=%s", s->domain, s->id, s->host_name);
    if (s->target != NULL)
        s->target->posted = true;
    s->at++;
    send_next(s);
}

/* In the fetcher's thread. */
static void on_fetch_done(struct sts_fetch *fetch)
{
    struct send *s = CONTAINER_OF(fetch, struct send, fetch);

    worker_send(s->of->worker->shared, s->of->worker->index, &s->note);
}

static void on_host(struct dns_query *query, struct dns_route *route)
{
    struct send *s = CONTAINER_OF(query, struct send, host);
    const struct tls_report_target *target = &s->targets.list[s->at];

    if (route->status != DNS_OK) {
        target_failed(s, route->error);
        return;
    }
    if (!sts_put_addresses(s->addresses, s->config, route)) {
        target_failed(s, "it has no public address");
        return;
    }
    s->note.run = on_posted;
    s->fetch = (struct sts_fetch){.host = s->host_name,
                                  .addresses = s->addresses,
                                  .port = target->port,
                                  .post = buf_str(&s->packed),
                                  .path = target->path.len > 0 ? target->path.ptr : "/",
                                  .on_done = on_fetch_done};
    if (sts_fetcher_submit(s->of->worker->shared->sts.fetcher, &s->fetch) < 0)
        target_failed(s, "too much is being fetched");
}

/* The report is to be posted to the target: not to one that an earlier try has reached, and an
 * earlier try has counted a target already. */
static bool post_wanted(struct send *s, const struct tls_report_target *target)
{
    uint64_t id = hash_bytes(target->host.ptr, target->host.len, target->port);
    struct dns_name name;

    if (!target->https || dns_name_parse(&name, target->host) < 0)
        return false;
    id = hash_bytes(target->path.ptr, target->path.len, id);
    s->target = tls_counts_target(s->entry, id == 0 ? 1 : id);
    snprintf(s->host_name, sizeof(s->host_name), "%.*s", (int)name.len, name.text);
    if (s->target != NULL && s->target->posted)
        return false;
    if ((s->target == NULL || !s->target->counted) && !target_take(s, str_of(s->host_name)))
        return false;
    if (s->target != NULL)
        s->target->counted = true;
    return true;
}

/* --- the steps --- */

/* All mails first, then one post after the other. */
static void send_next(struct send *s)
{
    struct worker *w = s->of->worker;

    if (!s->entry->mailed) {
        (void)mail_submit(s); /* on_settled() goes on */
        return;
    }
    while (s->at < s->targets.len && !w->draining && !post_wanted(s, &s->targets.list[s->at]))
        s->at++;
    if (s->at == s->targets.len || w->draining) {
        s->failed |= w->draining && s->at < s->targets.len;
        send_end(s);
        return;
    }
    s->host.on_route = on_host;
    dns_lookup(w->dns, &s->host, str_of(s->host_name), true);
}

static void on_txt(struct dns_question *question, const struct dns_answer *answer)
{
    struct send *s = CONTAINER_OF(question, struct send, txt);
    struct buf json = {0};
    struct tls_report report;

    if (answer->status == DNS_ANSWER_FAILED) {
        s->failed = true;
        send_end(s);
        return;
    }
    if (!record_choose(answer, &s->targets)) { /* nobody wants it any more */
        s->targets.len = 0;
        send_end(s);
        return;
    }
    report = report_of(s);
    tls_report_put_json(&json, &report);
    if (tls_report_pack(&s->packed, buf_str(&json)) < 0) {
        s->failed = true;
        send_end(s);
    } else {
        log_info("tls_reports.report", "domain=%s report=%s targets=%zu", s->domain, s->id,
                 s->targets.len);
        send_next(s);
    }
    buf_done(&json);
}

/* The same after a restart. */
static void put_id(char id[ID_BYTES], const struct config *config, const struct send *s)
{
    uint64_t hash = hash_bytes(config->host_name, strlen(config->host_name), 1);

    hash = hash_bytes(s->domain, strlen(s->domain), hash);
    snprintf(id, ID_BYTES, "%lld-%016llx", (long long)s->entry->begin_s, (unsigned long long)hash);
}

static bool send_begin(struct tls_reports *t, struct tls_counts_entry *e)
{
    struct send *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        tls_counts_again(counts_of(t), e, worker_wall_ms(t->worker) / 1000 + AGAIN_MIN_S);
        return false;
    }
    s->of = t;
    s->entry = e;
    s->config = config_ref(t->worker->config);
    s->settled.on_settled = on_settled;
    snprintf(s->domain, sizeof(s->domain), "%.*s", (int)e->domain_len, e->domain);
    snprintf(s->name, sizeof(s->name), TXT_PREFIX "%s", s->domain);
    put_id(s->id, s->config, s);
    s->txt.on_answer = on_txt;
    list_push_back(&t->sends, &s->node);
    t->sends_len++;
    dns_ask(t->worker->dns, &s->txt, s->name, DNS_TYPE_TXT);
    return true;
}

static void on_tick(struct timer *timer)
{
    struct tls_reports *t = CONTAINER_OF(timer, struct tls_reports, timer);
    const struct config *config = t->worker->config;
    struct tls_counts *counts = counts_of(t);
    struct tls_counts_entry *e;

    atomic_store_explicit(&counts->on, config->tls_reports.from != NULL, memory_order_relaxed);
    wheel_arm(io_wheel(t->worker->io), &t->timer,
              wheel_look_ms(io_now_ms(t->worker->io), TLS_REPORTS_TICK_MS));
    if (!tls_counts_on(counts) || t->worker->draining)
        return;
    ask_next(t);
    store_round(t);
    while (t->sends_len < SENDS_MAX &&
           (e = tls_counts_next_due(counts, worker_wall_ms(t->worker) / 1000,
                                    config->tls_reports.delay_s)) != NULL)
        if (!send_begin(t, e))
            break;
}

/* --- life --- */

int tls_reports_open(struct worker *w)
{
    struct tls_reports *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return -ENOMEM;
    w->tls_reports = t;
    t->worker = w;
    t->targets.seed = rng_entropy();
    list_init(&t->asks);
    list_init(&t->sends);
    t->timer.on_timer = on_tick;
    atomic_store_explicit(&w->shared->tls_counts.on, w->config->tls_reports.from != NULL,
                          memory_order_relaxed);
    wheel_arm(io_wheel(w->io), &t->timer, wheel_look_ms(io_now_ms(w->io), TLS_REPORTS_TICK_MS));
    return 0;
}

void tls_reports_close(struct worker *w)
{
    struct tls_reports *t = w->tls_reports;
    struct list_node *n;

    if (t == NULL)
        return;
    wheel_cancel(io_wheel(w->io), &t->timer);
    while ((n = list_pop_front(&t->asks)) != NULL)
        free(LIST_ENTRY(n, struct ask, node));
    while ((n = list_first(&t->sends)) != NULL)
        send_free(LIST_ENTRY(n, struct send, node));
    for (size_t i = 0; i < STORES_MAX; i++)
        buf_done(&t->values[i]);
    free(t);
    w->tls_reports = NULL;
}

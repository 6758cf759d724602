#include "worker/sts_lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "dns/name.h"
#include "worker/shared.h"
#include "worker/tls_tell.h"

#define TXT_PREFIX "_mta-sts."

/* Lanes that hear of a policy in a turn; thousands may wait for one. */
#define ANSWERS_MAX 500

_Static_assert(sizeof(TXT_PREFIX) >= sizeof(STS_HOST_PREFIX), "what fits one fits the other");

struct sts_lookups {
    struct worker *worker;
    struct map by_domain;
    struct list ended;       /* lookups of which some have still to hear */
    struct timer keep_timer; /* only in the worker that owns shard 0 */
    size_t keep_at;
};

/* One lookup. It lives until its last step is done, and who waited has heard. */
struct lookup {
    struct map_node node;
    struct list_node ended_node;
    struct worker *worker;
    struct config *config; /* a reference */
    struct list waiters;
    struct sts_found found; /* what they hear; its policy is a reference */
    struct timer patience;  /* then: until the next of them hear */
    bool impatient;         /* who waited has been told to go on */
    struct dns_question txt;
    struct dns_query host;
    struct sts_fetch fetch;
    struct worker_note note;
    uint64_t txt_ms; /* how long the TXT record may be believed */
    char id[STS_ID_MAX + 1];
    char txt_name[DNS_NAME_MAX + 1], host_name[DNS_NAME_MAX + 1];
    char addresses[STS_ADDRESSES_TEXT];
    char domain[DNS_NAME_MAX + 1];
};

static uint64_t now_ms(const struct worker *w)
{
    return io_now_ms(w->io);
}

/* --- records in the store --- */

struct sts_record {
    struct queue_change change;
    struct queue_state state;
    struct buf value;
    struct str domain;
    char key[STS_KEY_MAX];
};

static void on_stored(struct queue_change *change, int result)
{
    struct sts_record *r = change->owner;

    if (result < 0)
        log_warn(
            "sts.store_failed",
            "domain=\"%.*s\" error=\"%s\" action=\"after a restart its policy is fetched anew\"",
            STR_FMT(r->domain), strerror(-result));
    buf_done(&r->value);
    free(r);
}

/* policy NULL: its record goes. */
static void record_submit(struct worker *w, struct str domain, const struct sts_policy *policy)
{
    struct sts_record *r = w->draining ? NULL : calloc(1, sizeof(*r));

    if (r == NULL)
        return;
    r->state.key = (struct str){r->key, sts_key(r->key, domain)};
    r->domain = (struct str){r->key + 1, domain.len};
    r->state.remove = policy == NULL;
    if (policy != NULL)
        sts_policy_encode(&r->value, policy);
    r->state.value = buf_str(&r->value);
    r->change = (struct queue_change){
        .states = &r->state, .states_len = 1, .on_done = on_stored, .owner = r};
    queue_submit(w->port, 0, &r->change);
}

/* --- the end of a lookup --- */

static struct str domain_of(const struct lookup *l)
{
    return str_of(l->domain);
}

/* Of one that is in the map no more. */
static void lookup_free(struct lookup *l)
{
    struct list_node *n;

    wheel_cancel(io_wheel(l->worker->io), &l->patience);
    if (list_node_linked(&l->ended_node))
        list_remove(&l->ended_node);
    while ((n = list_first(&l->waiters)) != NULL)
        list_remove(n);
    sts_policy_unref(l->found.policy);
    sts_policy_unref(l->fetch.policy);
    config_unref(l->config);
    free(l);
}

static void on_answer(struct timer *timer);

/* Some of those who wait hear what was found, the others in the next turns. */
static void answer(struct lookup *l)
{
    struct list_node *n;

    for (int i = 0; i < ANSWERS_MAX && (n = list_pop_front(&l->waiters)) != NULL; i++) {
        struct sts_query *query = LIST_ENTRY(n, struct sts_query, node);

        query->on_policy(query, &l->found);
    }
    if (!list_empty(&l->waiters)) {
        l->patience.on_timer = on_answer;
        wheel_arm(io_wheel(l->worker->io), &l->patience, now_ms(l->worker) + 1);
    } else if (list_node_linked(&l->ended_node)) {
        lookup_free(l);
    }
}

static void on_answer(struct timer *timer)
{
    answer(CONTAINER_OF(timer, struct lookup, patience));
}

/* The table knows what was found: who waits hears of it. A drain sends no more mail. */
static void lookup_end(struct lookup *l)
{
    struct worker *w = l->worker;

    map_remove(&w->sts->by_domain, &l->node); /* who asks again in its handler needs another one */
    if (w->draining || list_empty(&l->waiters)) {
        lookup_free(l);
        return;
    }
    l->found = sts_table_find(&w->shared->sts, domain_of(l), now_ms(w), worker_wall_ms(w));
    list_push_back(&w->sts->ended, &l->ended_node);
    answer(l);
}

/* RFC 8460 4.3.2.2; a policy that is known holds, and is what sessions count under. */
static void tell_failure(const struct lookup *l, const char *why)
{
    static const enum tls_report_result results[] = {[STS_FAULT_NONE] = TLS_REPORT_STS_FETCH,
                                                     [STS_FAULT_FETCH] = TLS_REPORT_STS_FETCH,
                                                     [STS_FAULT_POLICY] = TLS_REPORT_STS_INVALID,
                                                     [STS_FAULT_CERTIFICATE] =
                                                         TLS_REPORT_STS_WEBPKI};

    tls_tell(l->worker, &(struct tls_told){.domain = domain_of(l),
                                           .type = TLS_REPORT_STS,
                                           .result = results[l->fetch.fault],
                                           .reason = why});
}

static void lookup_failed(struct lookup *l, const char *why)
{
    struct worker *w = l->worker;
    struct sts_policy *known;

    tell_failure(l, why);
    counter_add(&w->counters.sts_fetch_failures, 1);
    sts_table_looked(&w->shared->sts, domain_of(l), now_ms(w) + STS_RETRY_MS, why);
    known = sts_table_peek(&w->shared->sts, domain_of(l), worker_wall_ms(w));
    if (known != NULL && known->mode != STS_NONE)
        log_warn("sts.fetch_failed",
                 "domain=%s error=\"%s\" action=\"the policy known stays in force\"", l->domain,
                 why);
    else
        log_info("sts.fetch_failed", "domain=%s error=\"%s\" action=\"mail goes without a policy\"",
                 l->domain, why);
    sts_policy_unref(known);
    lookup_end(l);
}

/* --- the policy --- */

/* How long the TXT record may be believed, and not beyond the policy's life: after that the domain
 * would be taken for one without a policy. */
static uint64_t believed_ms(const struct lookup *l, const struct sts_policy *policy)
{
    int64_t left_ms = sts_policy_expires_ms(policy) - worker_wall_ms(l->worker);

    if (left_ms >= (int64_t)l->txt_ms)
        return l->txt_ms;
    return left_ms < STS_DNS_MS ? STS_DNS_MS : (uint64_t)left_ms;
}

/* In its worker again. */
static void on_fetched(struct worker *w, struct worker_note *note)
{
    struct lookup *l = CONTAINER_OF(note, struct lookup, note);
    struct sts_policy *policy = l->fetch.policy;

    counter_add(&w->counters.sts_fetches, 1);
    if (policy == NULL) {
        lookup_failed(l, l->fetch.why);
        return;
    }
    sts_table_put(&w->shared->sts, domain_of(l), policy, now_ms(w) + believed_ms(l, policy));
    record_submit(w, domain_of(l), policy);
    log_info("sts.policy", "domain=%s mode=%s id=%s max_age=%u", l->domain,
             sts_mode_name(policy->mode), policy->id, policy->max_age_s);
    lookup_end(l);
}

/* In the fetcher's thread. */
static void on_fetch_done(struct sts_fetch *fetch)
{
    struct lookup *l = CONTAINER_OF(fetch, struct lookup, fetch);

    worker_send(l->worker->shared, l->worker->index, &l->note);
}

bool sts_put_addresses(char out[STS_ADDRESSES_TEXT], const struct config *config,
                       const struct dns_route *route)
{
    size_t at = 0;

    for (uint16_t i = 0, n = 0; i < route->addresses_len && n < STS_ADDRESSES_MAX; i++) {
        const struct dns_address *a = &route->addresses[i];
        bool v6 = a->sa.sa_family == AF_INET6;
        const void *bytes = v6 ? (const void *)&a->in6.sin6_addr : &a->in.sin_addr;
        char text[INET6_ADDRSTRLEN];

        if ((!config->mta_sts.private_addresses && !sts_address_is_public(&a->sa)) ||
            inet_ntop(a->sa.sa_family, bytes, text, sizeof(text)) == NULL)
            continue;
        at += (size_t)snprintf(out + at, STS_ADDRESSES_TEXT - at, v6 ? "%s[%s]" : "%s%s",
                               n++ == 0 ? "" : ",", text);
    }
    return at > 0;
}

static void on_host(struct dns_query *query, struct dns_route *route)
{
    struct lookup *l = CONTAINER_OF(query, struct lookup, host);
    const struct config *config = l->config;

    if (route->status != DNS_OK) {
        lookup_failed(l, route->error);
        return;
    }
    if (!sts_put_addresses(l->addresses, config, route)) {
        lookup_failed(l, "its server has no public address");
        return;
    }
    l->note.run = on_fetched;
    l->fetch = (struct sts_fetch){.host = l->host_name,
                                  .addresses = l->addresses,
                                  .id = l->id,
                                  .ca_file = config->tls_ca_file,
                                  .port = config->mta_sts.port,
                                  .on_done = on_fetch_done};
    if (sts_fetcher_submit(l->worker->shared->sts.fetcher, &l->fetch) < 0)
        lookup_failed(l, "too many policies are being fetched");
}

/* --- the TXT record --- */

/* RFC 8461 3.1: records of something else do not count; of this there is one, or it is as if there
 * were none. */
static int record_choose(const struct dns_answer *answer, char id[STS_ID_MAX + 1])
{
    int found = -ENOENT;

    for (size_t i = 0; i < answer->records_len; i++) {
        int err = sts_record_parse(answer->records[i].txt, id);

        if (err == -ENOENT)
            continue;
        if (err < 0 || found != -ENOENT)
            return -EBADMSG;
        found = 0;
    }
    return found;
}

static uint64_t ttl_ms(uint32_t ttl_s, uint32_t max_s)
{
    uint64_t ms = (ttl_s < max_s ? ttl_s : max_s) * UINT64_C(1000);

    return ms < STS_DNS_MS ? STS_DNS_MS : ms;
}

static void no_record(struct lookup *l, uint64_t look_in_ms, const char *why)
{
    struct worker *w = l->worker;

    sts_table_looked(&w->shared->sts, domain_of(l), now_ms(w) + look_in_ms, why);
    lookup_end(l);
}

static void on_txt(struct dns_question *question, const struct dns_answer *answer)
{
    struct lookup *l = CONTAINER_OF(question, struct lookup, txt);
    struct worker *w = l->worker;
    struct sts_policy *known;
    uint64_t enough_ms = 0;
    int err;

    if (answer->status == DNS_ANSWER_FAILED) {
        no_record(l, STS_DNS_MS, answer->error);
        return;
    }
    l->txt_ms = ttl_ms(answer->ttl_s,
                       answer->status == DNS_ANSWER_RECORDS ? STS_TXT_MAX_S : STS_NONE_MAX_S);
    err = answer->status == DNS_ANSWER_RECORDS ? record_choose(answer, l->id) : -ENOENT;
    if (err < 0) {
        no_record(l, l->txt_ms,
                  err == -ENOENT ? "it has no TXT record"
                                 : "its TXT records say nothing that is clear");
        return;
    }
    known = sts_table_peek(&w->shared->sts, domain_of(l), worker_wall_ms(w));
    if (known != NULL && strcmp(known->id, l->id) == 0 &&
        !sts_policy_is_old(known, worker_wall_ms(w)))
        enough_ms = believed_ms(l, known);
    sts_policy_unref(known);
    if (enough_ms > 0)
        no_record(l, enough_ms, NULL);
    else
        dns_lookup(w->dns, &l->host, str_of(l->host_name), true);
}

/* --- the beginning --- */

static void on_patience(struct timer *timer)
{
    struct lookup *l = CONTAINER_OF(timer, struct lookup, patience);

    l->found = (struct sts_found){.look_ms = now_ms(l->worker) + STS_AGAIN_MS};
    l->impatient = true;
    answer(l);
}

static uint64_t hash_of(const struct worker *w, struct str domain)
{
    return hash_bytes(domain.ptr, domain.len, w->hash_seed);
}

static struct lookup *lookup_find(const struct worker *w, struct str domain)
{
    struct map_node *n = map_find(&w->sts->by_domain, hash_of(w, domain));

    for (; n != NULL; n = map_find_next(n)) {
        struct lookup *l = CONTAINER_OF(n, struct lookup, node);

        if (str_eq(domain_of(l), domain))
            return l;
    }
    return NULL;
}

static struct lookup *lookup_begin(struct worker *w, struct str domain)
{
    struct lookup *l = calloc(1, sizeof(*l));

    ASSERT(l != NULL && domain.len + strlen(TXT_PREFIX) <= DNS_NAME_MAX);
    l->worker = w;
    l->config = config_ref(w->config);
    list_init(&l->waiters);
    snprintf(l->domain, sizeof(l->domain), "%.*s", STR_FMT(domain));
    snprintf(l->txt_name, sizeof(l->txt_name), TXT_PREFIX "%.*s", STR_FMT(domain));
    snprintf(l->host_name, sizeof(l->host_name), STS_HOST_PREFIX "%.*s", STR_FMT(domain));
    l->patience.on_timer = on_patience;
    wheel_arm(io_wheel(w->io), &l->patience, now_ms(w) + STS_WAIT_MS);
    map_insert(&w->sts->by_domain, &l->node, hash_of(w, domain));
    l->host.on_route = on_host;
    l->txt.on_answer = on_txt;
    dns_ask(w->dns, &l->txt, l->txt_name, DNS_TYPE_TXT);
    return l;
}

bool sts_known(struct worker *w, struct str domain, struct sts_found *found)
{
    const struct lookup *l;

    *found = (struct sts_found){.look_ms = UINT64_MAX};
    if (w->draining || domain.len + strlen(TXT_PREFIX) > DNS_NAME_MAX)
        return true;
    *found = sts_table_find(&w->shared->sts, domain, now_ms(w), worker_wall_ms(w));
    if (found->known && found->look_ms > now_ms(w))
        return true;
    l = lookup_find(w, domain);
    if (found->policy == NULL && (l == NULL || !l->impatient))
        return false;
    if (l == NULL)
        (void)lookup_begin(w, domain);
    found->look_ms = now_ms(w) + STS_AGAIN_MS;
    return true;
}

void sts_ask(struct worker *w, struct sts_query *query, struct str domain)
{
    struct lookup *l = lookup_find(w, domain);

    if (l == NULL)
        l = lookup_begin(w, domain);
    list_push_back(&l->waiters, &query->node);
}

void sts_cancel(struct sts_query *query)
{
    if (list_node_linked(&query->node))
        list_remove(&query->node);
}

/* --- the keeper --- */

static void on_keep(struct timer *timer)
{
    struct sts_lookups *s = CONTAINER_OF(timer, struct sts_lookups, keep_timer);
    struct worker *w = s->worker;
    char domain[DNS_NAME_MAX + 1];
    bool expired;

    for (int i = 0; i < STS_RENEWS && !w->draining; i++) {
        if (!sts_table_next_due(&w->shared->sts, &s->keep_at, now_ms(w), worker_wall_ms(w), domain,
                                &expired))
            break;
        if (expired)
            record_submit(w, str_of(domain), NULL);
        else if (lookup_find(w, str_of(domain)) == NULL)
            (void)lookup_begin(w, str_of(domain));
    }
    wheel_arm(io_wheel(w->io), &s->keep_timer, wheel_look_ms(now_ms(w), STS_KEEP_MS));
}

/* --- life --- */

int sts_lookups_open(struct worker *w)
{
    w->sts = calloc(1, sizeof(*w->sts));
    if (w->sts == NULL)
        return -ENOMEM;
    w->sts->worker = w;
    list_init(&w->sts->ended);
    w->sts->keep_timer.on_timer = on_keep;
    if (w == worker_of_shard(w->shared, 0))
        wheel_arm(io_wheel(w->io), &w->sts->keep_timer, wheel_look_ms(now_ms(w), STS_KEEP_MS));
    return map_init(&w->sts->by_domain, 64);
}

void sts_lookups_close(struct worker *w)
{
    struct sts_lookups *s = w->sts;
    struct list_node *ended;
    struct map_node *n;
    size_t bucket = 0;

    if (s == NULL)
        return;
    wheel_cancel(io_wheel(w->io), &s->keep_timer);
    while ((ended = list_first(&s->ended)) != NULL)
        lookup_free(LIST_ENTRY(ended, struct lookup, ended_node));
    while (s->by_domain.buckets != NULL && (n = map_walk(&s->by_domain, &bucket, NULL)) != NULL) {
        map_remove(&s->by_domain, n);
        lookup_free(CONTAINER_OF(n, struct lookup, node));
    }
    map_done(&s->by_domain);
    free(s);
    w->sts = NULL;
}

#include "worker/tls_counts.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/packed.h"
#include "base/rng.h"
#include "dns/name.h"

#define VALUE_VERSION 1
#define FLAG_MAILED   1
#define FREED_AT_ONCE 1000

/* --- entries --- */

static struct str domain_of(const struct tls_counts_entry *e)
{
    return (struct str){e->domain, e->domain_len};
}

static uint64_t hash_of(const struct tls_counts *c, struct str domain, int64_t begin_s)
{
    return hash_bytes(domain.ptr, domain.len, c->hash_seed ^ (uint64_t)begin_s);
}

static struct tls_counts_entry *find(struct tls_counts *c, struct str domain, int64_t begin_s)
{
    struct map_node *n = map_find(&c->by_key, hash_of(c, domain, begin_s));

    for (; n != NULL; n = map_find_next(n)) {
        struct tls_counts_entry *e = CONTAINER_OF(n, struct tls_counts_entry, node);

        if (e->begin_s == begin_s && str_eq(domain_of(e), domain))
            return e;
    }
    return NULL;
}

static uint64_t failure_bytes(const struct tls_report_failure *f)
{
    return sizeof(*f) + strlen(f->mx) + strlen(f->reason) + strlen(f->sending_ip) +
           strlen(f->receiving_ip) + 4;
}

static uint64_t policy_bytes(struct str texts)
{
    return sizeof(struct tls_report_policy) + texts.len;
}

static bool bytes_take(struct tls_counts *c, uint64_t bytes)
{
    if (bytes > TLS_COUNTS_BYTES_MAX - c->bytes)
        return false;
    c->bytes += bytes;
    return true;
}

static void bytes_give(struct tls_counts *c, uint64_t bytes)
{
    ASSERT(c->bytes >= bytes);
    c->bytes -= bytes;
}

static void policy_free(struct tls_counts *c, struct tls_report_policy *p)
{
    struct list_node *n;

    while ((n = list_pop_front(&p->failures)) != NULL) {
        struct tls_report_failure *f = LIST_ENTRY(n, struct tls_report_failure, node);

        bytes_give(c, failure_bytes(f));
        free(f);
    }
    bytes_give(c, policy_bytes(p->texts));
    free((char *)(uintptr_t)p->texts.ptr);
    free(p);
}

static void policies_drop(struct tls_counts *c, struct tls_counts_entry *e)
{
    struct list_node *n;

    while ((n = list_pop_front(&e->policies)) != NULL)
        policy_free(c, LIST_ENTRY(n, struct tls_report_policy, node));
    e->policies_len = 0;
}

static void entry_free(struct tls_counts *c, struct tls_counts_entry *e)
{
    map_remove(&c->by_key, &e->node);
    list_remove(&e->all);
    if (list_node_linked(&e->fresh_node))
        list_remove(&e->fresh_node);
    if (list_node_linked(&e->dirty_node))
        list_remove(&e->dirty_node);
    policies_drop(c, e);
    free(e->targets);
    free(e);
}

/* NULL: no room. */
static struct tls_counts_entry *entry_new(struct tls_counts *c, struct str domain, int64_t begin_s,
                                          int64_t end_s)
{
    struct tls_counts_entry *e =
        c->by_key.count >= TLS_COUNTS_DOMAINS_MAX ? NULL : calloc(1, sizeof(*e) + domain.len);

    if (e == NULL) {
        c->not_counted++;
        return NULL;
    }
    e->begin_s = begin_s;
    e->end_s = end_s;
    list_init(&e->policies);
    e->domain_len = (uint16_t)domain.len;
    memcpy(e->domain, domain.ptr, domain.len);
    map_insert(&c->by_key, &e->node, hash_of(c, domain, begin_s));
    list_push_back(&c->entries, &e->all);
    return e;
}

/* --- counts --- */

static struct tls_report_policy *policy_find(const struct tls_counts_entry *e,
                                             enum tls_report_policy_type type, struct str texts)
{
    for (struct list_node *n = list_first(&e->policies); n != NULL;
         n = list_next(&e->policies, n)) {
        struct tls_report_policy *p = LIST_ENTRY(n, struct tls_report_policy, node);

        if (p->type == type && str_eq(p->texts, texts))
            return p;
    }
    return NULL;
}

/* Where the entry has as many policies as it may have, the last one stands for all others. NULL: no
 * room. */
static struct tls_report_policy *policy_get(struct tls_counts *c, struct tls_counts_entry *e,
                                            enum tls_report_policy_type type, struct str texts)
{
    struct tls_report_policy *p = policy_find(e, type, texts);
    char *copy;

    if (p != NULL)
        return p;
    if (e->policies_len >= TLS_COUNTS_POLICIES_MAX)
        return LIST_ENTRY(e->policies.head.prev, struct tls_report_policy, node);
    if (texts.len == 0 || !bytes_take(c, policy_bytes(texts))) {
        c->not_counted++;
        return NULL;
    }
    p = calloc(1, sizeof(*p));
    copy = malloc(texts.len);
    if (p == NULL || copy == NULL) {
        bytes_give(c, policy_bytes(texts));
        free(p);
        free(copy);
        return NULL;
    }
    memcpy(copy, texts.ptr, texts.len);
    p->type = type;
    p->texts = (struct str){copy, texts.len};
    list_init(&p->failures);
    list_push_back(&e->policies, &p->node);
    e->policies_len++;
    return p;
}

static struct tls_report_failure *failure_find(const struct tls_report_policy *p,
                                               const struct tls_report_failure *like)
{
    for (struct list_node *n = list_first(&p->failures); n != NULL;
         n = list_next(&p->failures, n)) {
        struct tls_report_failure *f = LIST_ENTRY(n, struct tls_report_failure, node);

        if (f->result == like->result && strcmp(f->mx, like->mx) == 0 &&
            strcmp(f->sending_ip, like->sending_ip) == 0 &&
            strcmp(f->receiving_ip, like->receiving_ip) == 0 &&
            strcmp(f->reason, like->reason) == 0)
            return f;
    }
    return NULL;
}

static char *put_string(char **at, const char *text, size_t max)
{
    size_t len = strnlen(text, max);
    char *start = *at;

    memcpy(start, text, len);
    start[len] = '\0';
    *at += len + 1;
    return start;
}

/* The texts of like, cut to their bounds. NULL: no room. */
static struct tls_report_failure *failure_new(struct tls_counts *c,
                                              const struct tls_report_failure *like)
{
    uint64_t bytes = sizeof(*like) + strnlen(like->mx, DNS_NAME_MAX) +
                     strnlen(like->reason, TLS_COUNTS_REASON_MAX) +
                     strnlen(like->sending_ip, INET6_ADDRSTRLEN) +
                     strnlen(like->receiving_ip, INET6_ADDRSTRLEN) + 4;
    struct tls_report_failure *f;
    char *at;

    if (!bytes_take(c, bytes))
        return NULL;
    f = calloc(1, bytes);
    if (f == NULL) {
        bytes_give(c, bytes);
        return NULL;
    }
    at = (char *)(f + 1);
    f->result = like->result;
    f->mx = put_string(&at, like->mx, DNS_NAME_MAX);
    f->reason = put_string(&at, like->reason, TLS_COUNTS_REASON_MAX);
    f->sending_ip = put_string(&at, like->sending_ip, INET6_ADDRSTRLEN);
    f->receiving_ip = put_string(&at, like->receiving_ip, INET6_ADDRSTRLEN);
    ASSERT(failure_bytes(f) == bytes);
    return f;
}

static char no_text[] = "";

static void failure_add(struct tls_counts *c, struct tls_report_policy *p,
                        struct tls_report_failure like, uint64_t count)
{
    struct tls_report_failure *f = failure_find(p, &like);

    if (f == NULL && p->failures_len >= TLS_COUNTS_FAILURES_MAX) {
        like.mx = like.reason = like.sending_ip = like.receiving_ip = no_text;
        f = failure_find(p, &like);
    }
    if (f == NULL && p->failures_len < TLS_COUNTS_FAILURES_MAX + TLS_REPORT_RESULTS) {
        f = failure_new(c, &like);
        if (f != NULL) {
            list_push_back(&p->failures, &f->node);
            p->failures_len++;
        }
    }
    p->failures_count += count;
    if (f != NULL)
        f->count += count;
}

bool tls_counts_wanted(struct tls_counts *c, struct str domain, int64_t begin_s)
{
    const struct tls_counts_entry *e;
    bool wanted;

    pthread_mutex_lock(&c->lock);
    e = find(c, domain, begin_s);
    wanted = e == NULL || (e->state != TLS_COUNTS_NONE && e->state != TLS_COUNTS_DUE);
    pthread_mutex_unlock(&c->lock);
    return wanted;
}

/* The entry that what happens now is counted in, made when missing; NULL: it is not counted. */
static struct tls_counts_entry *entry_get(struct tls_counts *c, const struct tls_count *count)
{
    struct tls_counts_entry *e = find(c, count->domain, count->begin_s);

    if (e == NULL) {
        e = entry_new(c, count->domain, count->begin_s, count->end_s);
        if (e != NULL)
            list_push_back(&c->fresh, &e->fresh_node);
    }
    return e == NULL || e->state == TLS_COUNTS_NONE || e->state == TLS_COUNTS_DUE ? NULL : e;
}

static void make_dirty(struct tls_counts *c, struct tls_counts_entry *e)
{
    if (!list_node_linked(&e->dirty_node))
        list_push_back(&c->dirty, &e->dirty_node);
}

void tls_counts_add(struct tls_counts *c, const struct tls_count *count)
{
    struct tls_report_failure like = {.result = count->result,
                                      .mx = (char *)(uintptr_t)count->mx,
                                      .reason = (char *)(uintptr_t)count->reason,
                                      .sending_ip = (char *)(uintptr_t)count->sending_ip,
                                      .receiving_ip = (char *)(uintptr_t)count->receiving_ip};
    struct tls_report_policy *p;
    struct tls_counts_entry *e;

    ASSERT(count->texts.len > 0 && count->texts.len <= TLS_COUNTS_TEXTS_MAX &&
           count->texts.ptr[count->texts.len - 1] == '\0' && count->begin_s < count->end_s);
    pthread_mutex_lock(&c->lock);
    e = entry_get(c, count);
    p = e == NULL ? NULL : policy_get(c, e, count->type, count->texts);
    if (p != NULL && count->result == TLS_REPORT_SUCCESS)
        p->successes++;
    else if (p != NULL)
        failure_add(c, p, like, 1);
    if (p != NULL && e->state == TLS_COUNTS_WANTED)
        make_dirty(c, e);
    pthread_mutex_unlock(&c->lock);
}

/* --- the keeper --- */

bool tls_counts_next_fresh(struct tls_counts *c, char domain[DNS_NAME_MAX + 1], int64_t *begin_s)
{
    struct list_node *n;

    pthread_mutex_lock(&c->lock);
    n = list_pop_front(&c->fresh);
    if (n != NULL) {
        struct tls_counts_entry *e = LIST_ENTRY(n, struct tls_counts_entry, fresh_node);

        ASSERT(e->state == TLS_COUNTS_FRESH && e->domain_len <= DNS_NAME_MAX);
        e->state = TLS_COUNTS_ASKED;
        memcpy(domain, e->domain, e->domain_len);
        domain[e->domain_len] = '\0';
        *begin_s = e->begin_s;
    }
    pthread_mutex_unlock(&c->lock);
    return n != NULL;
}

void tls_counts_asked(struct tls_counts *c, struct str domain, int64_t begin_s, bool wanted)
{
    struct tls_counts_entry *e;

    pthread_mutex_lock(&c->lock);
    e = find(c, domain, begin_s);
    if (e != NULL && e->state == TLS_COUNTS_ASKED) {
        e->state = wanted ? TLS_COUNTS_WANTED : TLS_COUNTS_NONE;
        if (wanted)
            make_dirty(c, e);
        else
            policies_drop(c, e);
    }
    pthread_mutex_unlock(&c->lock);
}

static void put_policy(struct buf *out, const struct tls_report_policy *p)
{
    packed_put(out, (uint64_t)p->type, 1);
    packed_put(out, p->texts.len, 2);
    buf_put_str(out, p->texts);
    packed_put(out, p->successes, 8);
    packed_put(out, p->failures_count, 8);
    packed_put(out, p->failures_len, 2);
    for (struct list_node *n = list_first(&p->failures); n != NULL;
         n = list_next(&p->failures, n)) {
        const struct tls_report_failure *f = LIST_ENTRY(n, struct tls_report_failure, node);

        packed_put(out, (uint64_t)f->result, 1);
        packed_put(out, f->count, 8);
        packed_put_text(out, f->mx);
        packed_put_text(out, f->reason);
        packed_put_text(out, f->sending_ip);
        packed_put_text(out, f->receiving_ip);
    }
}

void tls_counts_encode(const struct tls_counts_entry *e, struct buf *out)
{
    packed_put(out, VALUE_VERSION, 1);
    packed_put(out, e->mailed ? FLAG_MAILED : 0, 1);
    packed_put(out, (uint64_t)e->end_s, 8);
    packed_put(out, e->policies_len, 1);
    for (struct list_node *n = list_first(&e->policies); n != NULL; n = list_next(&e->policies, n))
        put_policy(out, LIST_ENTRY(n, struct tls_report_policy, node));
}

size_t tls_counts_key(char out[TLS_COUNTS_KEY_MAX], struct str domain, int64_t begin_s)
{
    ASSERT(domain.len > 0 && domain.len <= DNS_NAME_MAX);
    out[0] = STATE_TLS_REPORT;
    packed_set_key((uint8_t *)out + 1, (uint64_t)begin_s, 8); /* days sort */
    memcpy(out + 9, domain.ptr, domain.len);
    return 9 + domain.len;
}

size_t tls_counts_next_dirty(struct tls_counts *c, char key[TLS_COUNTS_KEY_MAX], struct buf *value)
{
    struct list_node *n;
    size_t len = 0;

    pthread_mutex_lock(&c->lock);
    n = list_pop_front(&c->dirty);
    if (n != NULL) {
        const struct tls_counts_entry *e = LIST_ENTRY(n, struct tls_counts_entry, dirty_node);

        len = tls_counts_key(key, domain_of(e), e->begin_s);
        tls_counts_encode(e, value);
    }
    pthread_mutex_unlock(&c->lock);
    return len;
}

struct tls_counts_entry *tls_counts_next_due(struct tls_counts *c, int64_t now_s, uint32_t delay_s)
{
    struct tls_counts_entry *due = NULL;
    struct list_node *n, *next;
    unsigned freed = 0;

    pthread_mutex_lock(&c->lock);
    for (n = list_first(&c->entries); n != NULL && due == NULL; n = next) {
        struct tls_counts_entry *e = LIST_ENTRY(n, struct tls_counts_entry, all);

        next = list_next(&c->entries, n);
        if (e->end_s > now_s ||
            freed == FREED_AT_ONCE) /* those behind it are younger, unless the clock was set */
            break;
        if (e->state == TLS_COUNTS_DUE || e->state == TLS_COUNTS_ASKED)
            continue;
        if (e->state == TLS_COUNTS_NONE) {
            entry_free(c, e);
            freed++;
            continue;
        }
        if (e->due_s == 0) /* spread, and the same after a restart */
            e->due_s = e->end_s + TLS_COUNTS_GRACE_S +
                       (int64_t)(hash_bytes(e->domain, e->domain_len, 0) % ((uint64_t)delay_s + 1));
        if (e->due_s <= now_s && e->state == TLS_COUNTS_WANTED)
            due = e;
    }
    if (due != NULL) {
        due->state = TLS_COUNTS_DUE;
        if (list_node_linked(&due->dirty_node)) /* the keeper stores what is to be stored of it */
            list_remove(&due->dirty_node);
    }
    pthread_mutex_unlock(&c->lock);
    return due;
}

void tls_counts_again(struct tls_counts *c, struct tls_counts_entry *e, int64_t due_s)
{
    pthread_mutex_lock(&c->lock);
    ASSERT(e->state == TLS_COUNTS_DUE);
    e->state = TLS_COUNTS_WANTED;
    e->due_s = due_s;
    e->tries++;
    pthread_mutex_unlock(&c->lock);
}

void tls_counts_end(struct tls_counts *c, struct tls_counts_entry *e)
{
    pthread_mutex_lock(&c->lock);
    ASSERT(e->state == TLS_COUNTS_DUE);
    entry_free(c, e);
    pthread_mutex_unlock(&c->lock);
}

struct tls_counts_target *tls_counts_target(struct tls_counts_entry *e, uint64_t id)
{
    ASSERT(e->state == TLS_COUNTS_DUE && id != 0);
    if (e->targets == NULL)
        e->targets = calloc(TLS_REPORT_TARGETS_MAX, sizeof(*e->targets));
    for (size_t i = 0; e->targets != NULL && i < TLS_REPORT_TARGETS_MAX; i++) {
        struct tls_counts_target *target = &e->targets[i];

        if (target->id == 0)
            target->id = id;
        if (target->id == id)
            return target;
    }
    return NULL;
}

/* --- the store --- */

static bool take_bytes(struct str *in, size_t len, struct str *out)
{
    if (in->len < len)
        return false;
    *out = (struct str){in->ptr, len};
    *in = (struct str){in->ptr + len, in->len - len};
    return true;
}

static bool take_failure(struct tls_counts *c, struct str *in, struct tls_report_policy *p)
{
    char mx[UINT8_MAX + 1], reason[UINT8_MAX + 1], sending[UINT8_MAX + 1], receiving[UINT8_MAX + 1];
    uint64_t result, count;

    if (!packed_take(in, 1, &result) || !packed_take(in, 8, &count) ||
        !packed_take_text(in, mx, UINT8_MAX) || !packed_take_text(in, reason, UINT8_MAX) ||
        !packed_take_text(in, sending, UINT8_MAX) || !packed_take_text(in, receiving, UINT8_MAX))
        return false;
    if (result >= TLS_REPORT_RESULTS) /* of a later build */
        result = TLS_REPORT_VALIDATION_FAILURE;
    failure_add(c, p,
                (struct tls_report_failure){.result = (enum tls_report_result)result,
                                            .mx = mx,
                                            .reason = reason,
                                            .sending_ip = sending,
                                            .receiving_ip = receiving},
                count);
    return true;
}

static bool take_policy(struct tls_counts *c, struct str *in, struct tls_counts_entry *e)
{
    uint64_t type, len, successes, all, failures;
    struct tls_report_policy *p;
    struct str texts;

    if (!packed_take(in, 1, &type) || !packed_take(in, 2, &len) || !take_bytes(in, len, &texts) ||
        !packed_take(in, 8, &successes) || !packed_take(in, 8, &all) ||
        !packed_take(in, 2, &failures) || type >= TLS_REPORT_POLICIES || texts.len == 0 ||
        texts.ptr[texts.len - 1] != '\0')
        return false;
    p = policy_get(c, e, (enum tls_report_policy_type)type, texts);
    if (p == NULL)
        return false;
    p->successes += successes;
    for (; failures > 0; failures--)
        if (!take_failure(c, in, p))
            return false;
    p->failures_count = all;
    return true;
}

/* Bytes behind those that this build knows are a later build's. */
static bool decode(struct tls_counts *c, struct str in, struct tls_counts_entry *e)
{
    uint64_t version, flags, end_s, policies;

    if (!packed_take(&in, 1, &version) || version != VALUE_VERSION ||
        !packed_take(&in, 1, &flags) || !packed_take(&in, 8, &end_s) ||
        !packed_take(&in, 1, &policies) || end_s > INT64_MAX || (int64_t)end_s <= e->begin_s)
        return false;
    e->end_s = (int64_t)end_s;
    e->mailed = (flags & FLAG_MAILED) != 0;
    for (; policies > 0; policies--)
        if (!take_policy(c, &in, e))
            return false;
    return true;
}

static void load_one(void *arg, struct str key, struct str value)
{
    struct str domain = {key.ptr + 9, key.len - 9};
    struct tls_counts_entry *e = NULL;
    struct tls_counts *c = arg;
    uint64_t begin_s = key.len > 9 ? packed_key_at(key.ptr + 1, 8) : 0;

    if (key.len > 9 && key.len <= TLS_COUNTS_KEY_MAX && begin_s <= INT64_MAX / 2 &&
        dns_name_valid(domain))
        e = entry_new(c, domain, (int64_t)begin_s, INT64_MAX);
    if (e != NULL && decode(c, value, e)) {
        e->state = TLS_COUNTS_WANTED;
        return;
    }
    if (e != NULL)
        entry_free(c, e);
    log_warn("tls_reports.record_damaged", "domain=\"%.*s\" action=\"it has no report\"",
             key.len > 9 ? (int)domain.len : 0, key.len > 9 ? domain.ptr : "");
}

int tls_counts_open(struct tls_counts *c, struct queue *q)
{
    int err = map_init(&c->by_key, 256);

    if (err < 0)
        return err;
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->entries);
    list_init(&c->fresh);
    list_init(&c->dirty);
    c->hash_seed = rng_entropy();
    return queue_state_visit(q, 0, STATE_TLS_REPORT, load_one, c);
}

void tls_counts_done(struct tls_counts *c)
{
    struct list_node *n;

    if (c->by_key.buckets == NULL)
        return;
    while ((n = list_first(&c->entries)) != NULL)
        entry_free(c, LIST_ENTRY(n, struct tls_counts_entry, all));
    map_done(&c->by_key);
    pthread_mutex_destroy(&c->lock);
}

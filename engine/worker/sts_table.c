#include "worker/sts_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/rng.h"
#include "dns/name.h"

struct entry {
    struct map_node node;
    struct list_node use;
    struct sts_policy *policy;
    uint64_t look_ms;
    uint32_t generation;
    bool used; /* since the policy was fetched */
    char *why; /* what failed with the last lookup; NULL: nothing */
    uint8_t domain_len;
    char domain[];
};

size_t sts_key(char out[STS_KEY_MAX], struct str domain)
{
    ASSERT(domain.len > 0 && domain.len <= DNS_NAME_MAX);
    out[0] = STATE_STS;
    memcpy(out + 1, domain.ptr, domain.len);
    return 1 + domain.len;
}

bool sts_policy_is_old(const struct sts_policy *policy, int64_t wall_ms)
{
    int64_t half_ms = (int64_t)policy->max_age_s * 500;

    return wall_ms - policy->fetched_ms > (half_ms < STS_REFRESH_MS ? half_ms : STS_REFRESH_MS);
}

/* --- under the lock --- */

static uint64_t hash_of(const struct sts_table *t, struct str domain)
{
    return hash_bytes(domain.ptr, domain.len, t->hash_seed);
}

static struct entry *entry_find(const struct sts_table *t, struct str domain)
{
    for (struct map_node *n = map_find(&t->by_domain, hash_of(t, domain)); n != NULL;
         n = map_find_next(n)) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);

        if (str_eq((struct str){e->domain, e->domain_len}, domain))
            return e;
    }
    return NULL;
}

static uint64_t policy_bytes(const struct sts_policy *policy)
{
    return policy == NULL ? 0 : sizeof(*policy) + policy->mx_bytes;
}

static void entry_touch(struct sts_table *t, struct entry *e)
{
    list_remove(&e->use);
    list_push_back(&t->by_use[e->policy != NULL], &e->use);
}

static void policy_set(struct sts_table *t, struct entry *e, struct sts_policy *policy)
{
    t->policy_bytes += policy_bytes(policy) - policy_bytes(e->policy);
    sts_policy_unref(e->policy);
    e->policy = sts_policy_ref(policy);
    e->used = false;
    entry_touch(t, e);
}

/* Of one that is in the map no more. */
static void entry_free(struct entry *e)
{
    list_remove(&e->use);
    sts_policy_unref(e->policy);
    free(e->why);
    free(e);
}

static void evict(struct sts_table *t, bool with_policy)
{
    struct list_node *n = list_first(&t->by_use[with_policy]);
    struct entry *e = LIST_ENTRY(n, struct entry, use);

    map_remove(&t->by_domain, &e->node);
    if (with_policy) {
        policy_set(t, e, NULL);
        list_remove(&e->use);
        list_push_back(&t->gone, &e->use);
    } else {
        entry_free(e);
    }
}

/* The entry of domain, made when missing. NULL: no memory. */
static struct entry *entry_get(struct sts_table *t, struct str domain)
{
    struct entry *e = entry_find(t, domain);

    if (e != NULL)
        return e;
    e = calloc(1, sizeof(*e) + domain.len);
    if (e == NULL)
        return NULL;
    if (t->by_domain.count >= STS_DOMAINS_MAX)
        evict(t, list_empty(&t->by_use[0]));
    e->domain_len = (uint8_t)domain.len;
    memcpy(e->domain, domain.ptr, domain.len);
    map_insert(&t->by_domain, &e->node, hash_of(t, domain));
    list_push_back(&t->by_use[0], &e->use);
    return e;
}

/* --- the table --- */

struct sts_found sts_table_find(struct sts_table *t, struct str domain, uint64_t now_ms,
                                int64_t wall_ms)
{
    struct sts_found found = {0};
    struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = entry_find(t, domain);
    if (e != NULL) {
        entry_touch(t, e);
        found.known = true;
        e->used = true;
        if (e->policy != NULL && sts_policy_expires_ms(e->policy) > wall_ms)
            found.policy = sts_policy_ref(e->policy);
        found.look_ms = e->generation == t->generation ? e->look_ms : now_ms;
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}

struct sts_policy *sts_table_peek(struct sts_table *t, struct str domain, int64_t wall_ms)
{
    struct sts_policy *policy = NULL;
    const struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = entry_find(t, domain);
    if (e != NULL && e->policy != NULL && sts_policy_expires_ms(e->policy) > wall_ms)
        policy = sts_policy_ref(e->policy);
    pthread_mutex_unlock(&t->lock);
    return policy;
}

void sts_table_why(struct sts_table *t, struct str domain, char *out, size_t size)
{
    const struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = entry_find(t, domain);
    snprintf(out, size, "%s", e == NULL || e->why == NULL ? "" : e->why);
    pthread_mutex_unlock(&t->lock);
}

static void looked(struct sts_table *t, struct str domain, struct sts_policy *policy,
                   uint64_t look_ms, const char *why)
{
    struct entry *e;

    pthread_mutex_lock(&t->lock);
    e = entry_get(t, domain);
    if (e != NULL) {
        e->look_ms = look_ms;
        e->generation = t->generation;
        free(e->why);
        e->why = why == NULL ? NULL : strdup(why);
        e->used |= why != NULL; /* so that a renewal that failed is tried again */
        if (policy != NULL) {
            policy_set(t, e, policy);
            while (t->policy_bytes > STS_POLICY_BYTES_MAX)
                evict(t, true);
        }
    }
    pthread_mutex_unlock(&t->lock);
}

void sts_table_looked(struct sts_table *t, struct str domain, uint64_t look_ms, const char *why)
{
    looked(t, domain, NULL, look_ms, why);
}

void sts_table_put(struct sts_table *t, struct str domain, struct sts_policy *policy,
                   uint64_t look_ms)
{
    ASSERT(policy != NULL);
    looked(t, domain, policy, look_ms, NULL);
}

void sts_table_look_again(struct sts_table *t)
{
    pthread_mutex_lock(&t->lock);
    t->generation++;
    pthread_mutex_unlock(&t->lock);
}

/* A renewal that failed waits until the next lookup is allowed. */
static bool entry_is_due(const struct entry *e, uint64_t now_ms, int64_t wall_ms)
{
    if (e->policy == NULL)
        return false;
    return sts_policy_expires_ms(e->policy) <= wall_ms ||
           (e->used && sts_policy_is_old(e->policy, wall_ms) &&
            (e->why == NULL || e->look_ms <= now_ms));
}

/* The domain of an evicted policy whose record is to go. A domain that has a policy again is passed
 * over, as the record is that policy's. */
static bool next_gone(struct sts_table *t, char domain[DNS_NAME_MAX + 1])
{
    struct list_node *n;
    bool found = false;

    while (!found && (n = list_first(&t->gone)) != NULL) {
        struct entry *e = LIST_ENTRY(n, struct entry, use);
        const struct entry *anew = entry_find(t, (struct str){e->domain, e->domain_len});

        found = anew == NULL || anew->policy == NULL;
        memcpy(domain, e->domain, e->domain_len);
        domain[e->domain_len] = '\0';
        entry_free(e);
    }
    return found;
}

static struct entry *due_in_bucket(const struct sts_table *t, size_t bucket, uint64_t now_ms,
                                   int64_t wall_ms)
{
    for (struct map_node *n = map_bucket(&t->by_domain, bucket); n != NULL; n = n->next) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);

        if (entry_is_due(e, now_ms, wall_ms))
            return e;
    }
    return NULL;
}

bool sts_table_next_due(struct sts_table *t, size_t *at, uint64_t now_ms, int64_t wall_ms,
                        char domain[DNS_NAME_MAX + 1], bool *expired)
{
    struct entry *due = NULL;

    pthread_mutex_lock(&t->lock);
    if (next_gone(t, domain)) {
        pthread_mutex_unlock(&t->lock);
        *expired = true;
        return true;
    }
    for (size_t step = 0; step < STS_STEP_BUCKETS && step <= t->by_domain.mask && due == NULL;
         step++) {
        *at &= t->by_domain.mask;
        due = due_in_bucket(t, *at, now_ms, wall_ms);
        *at += due == NULL;
    }
    if (due != NULL) {
        *expired = sts_policy_expires_ms(due->policy) <= wall_ms;
        memcpy(domain, due->domain, due->domain_len);
        domain[due->domain_len] = '\0';
        due->used = false;
        if (*expired)
            policy_set(t, due, NULL);
    }
    pthread_mutex_unlock(&t->lock);
    return due != NULL;
}

/* --- the store --- */

struct loading {
    struct sts_table *to;
    int err;
};

/* A damaged record counts as none: the policy is fetched anew. */
static void load_one(void *arg, struct str key, struct str value)
{
    struct loading *l = arg;
    struct str domain = {key.ptr + 1, key.len - 1};
    struct sts_policy *policy;
    int err = dns_name_valid(domain) ? sts_policy_decode(value, &policy) : -EBADMSG;

    if (l->err < 0)
        return;
    if (err == -ENOMEM) {
        l->err = err;
    } else if (err < 0) {
        log_warn("sts.record_damaged", "domain=\"%.*s\" action=\"its policy is fetched anew\"",
                 STR_FMT(domain));
    } else {
        sts_table_put(l->to, domain, policy, 0);
        sts_policy_unref(policy);
    }
}

int sts_table_open(struct sts_table *t, struct queue *q)
{
    struct loading l = {.to = t};
    int err = map_init(&t->by_domain, 256);

    if (err < 0)
        return err;
    pthread_mutex_init(&t->lock, NULL);
    list_init(&t->by_use[0]);
    list_init(&t->by_use[1]);
    list_init(&t->gone);
    t->hash_seed = rng_entropy();
    err = sts_fetcher_open(&t->fetcher);
    if (err == 0)
        err = queue_state_visit(q, 0, STATE_STS, load_one, &l);
    return err < 0 ? err : l.err;
}

void sts_table_done(struct sts_table *t)
{
    struct list_node *n;

    if (t->by_domain.buckets == NULL)
        return;
    sts_fetcher_close(t->fetcher);
    for (int i = 0; i < 2; i++)
        list_splice_back(&t->gone, &t->by_use[i]);
    while ((n = list_first(&t->gone)) != NULL)
        entry_free(LIST_ENTRY(n, struct entry, use));
    map_done(&t->by_domain);
    pthread_mutex_destroy(&t->lock);
}

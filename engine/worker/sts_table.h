/* What the process knows of domains and MTA-STS: policies, each with a durable record (a state of
 * kind STATE_STS in shard 0) so that a restart does not forget what a domain demands; and domains
 * that have none. Filled from the store before workers begin, changed by lookups
 * (worker/sts_lookup.h), asked where mail is routed. Any thread. */
#ifndef HAYAUMA_ENGINE_STS_TABLE_H
#define HAYAUMA_ENGINE_STS_TABLE_H

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"
#include "dns/dns_upstream.h"
#include "queue/queue.h"
#include "sts/fetch.h"

#define STS_DOMAINS_MAX      100000 /* beyond, the longest unused goes: first those without a policy */
#define STS_POLICY_BYTES_MAX (256u << 20) /* the same, of policies with the most and longest mx */
#define STS_REFRESH_MS       INT64_C(86400000) /* a policy older than that is fetched anew */
#define STS_KEY_MAX          (1 + DNS_NAME_MAX)

struct sts_table {
    struct sts_fetcher *fetcher;
    pthread_mutex_t lock; /* of all below */
    uint64_t hash_seed;   /* constant; domains are chosen by strangers */
    struct map by_domain;
    /* The longest unused first: those without a policy, those with one. */
    struct list by_use[2];
    struct list gone;      /* evicted with a policy: its record is still to go */
    uint64_t policy_bytes; /* of all policies */
    uint32_t generation;   /* what was looked up under an earlier one is looked up anew */
};

struct sts_found {
    bool known;                /* something was found out about the domain before */
    struct sts_policy *policy; /* a reference; NULL: it has none, or none that is valid */
    uint64_t look_ms;          /* monotonic: when its TXT record is to be looked at again */
};

/* With what is stored in q; before workers begin. 0, -EIO, -ENOMEM. */
int sts_table_open(struct sts_table *t, struct queue *q) MUST_USE;
/* A zeroed one is accepted. */
void sts_table_done(struct sts_table *t);

/* now_ms: monotonic; wall_ms: by which policies expire. */
struct sts_found sts_table_find(struct sts_table *t, struct str domain, uint64_t now_ms,
                                int64_t wall_ms);
/* The domain's policy while that is valid: a reference, or NULL. Such a look does not count as a
 * use of the policy. */
struct sts_policy *sts_table_peek(struct sts_table *t, struct str domain, int64_t wall_ms);
/* What failed with the last lookup, cut to size; empty: nothing, or nothing is known. */
void sts_table_why(struct sts_table *t, struct str domain, char *out, size_t size);
/* A lookup has ended: the next is due at look_ms (monotonic). why: what failed, or NULL. The policy
 * stays as it is. */
void sts_table_looked(struct sts_table *t, struct str domain, uint64_t look_ms, const char *why);
/* A lookup has ended with a new policy, of which the table takes a reference. */
void sts_table_put(struct sts_table *t, struct str domain, struct sts_policy *policy,
                   uint64_t look_ms);
/* All domains are looked up anew when they are asked for. */
void sts_table_look_again(struct sts_table *t);
/* Whether the policy is so old that it is fetched anew: after a day, or half of its life. */
bool sts_policy_is_old(const struct sts_policy *policy, int64_t wall_ms);

/* A step of a walk over all domains, for ever: the next one, from bucket *at on, whose policy has
 * expired or was evicted (it goes, and so should its record), or is old and was used since it was
 * fetched. False: there is none in STS_STEP_BUCKETS of them. */
#define STS_STEP_BUCKETS 1024
bool sts_table_next_due(struct sts_table *t, size_t *at, uint64_t now_ms, int64_t wall_ms,
                        char domain[DNS_NAME_MAX + 1], bool *expired);

/* The record's key; returns its length. */
size_t sts_key(char out[STS_KEY_MAX], struct str domain);

#endif

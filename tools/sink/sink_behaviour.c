#include "tools/sink/sink_behaviour.h"

#include <fnmatch.h>
#include <math.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

struct greylisted {
    struct map_node node;
    uint64_t first_ms;
};

static bool pattern_matches(const char *pattern, const char *domain)
{
    return fnmatch(pattern, domain, FNM_CASEFOLD) == 0;
}

struct sink_class *sink_class_of_domain(struct sink_behaviour *b, struct str domain)
{
    char name[SMTP_DOMAIN_MAX + 1];
    size_t last = b->classes_len - 1;

    if (last == 0 || domain.len == 0 || domain.len > SMTP_DOMAIN_MAX)
        return &b->classes[last];
    memcpy(name, domain.ptr, domain.len);
    name[domain.len] = '\0';
    for (size_t i = 0; i < last; i++)
        for (size_t k = 0; k < b->classes[i].domains_len; k++)
            if (pattern_matches(b->classes[i].domains[k], name))
                return &b->classes[i];
    return &b->classes[last];
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return a->ss_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

struct sink_class *sink_class_of_address(struct sink_behaviour *b,
                                         const struct sockaddr_storage *addr)
{
    for (size_t i = 0; i < b->classes_len; i++)
        for (size_t k = 0; k < b->classes[i].addresses_len; k++)
            if (same_host(&b->classes[i].addresses[k].addr, addr))
                return &b->classes[i];
    return &b->classes[b->classes_len - 1];
}

uint64_t sink_latency_ms(const struct sink_latency *latency, struct rng *rng)
{
    switch (latency->kind) {
    case SINK_LATENCY_NONE:
        return 0;
    case SINK_LATENCY_FIXED:
        return latency->a_ms;
    case SINK_LATENCY_UNIFORM:
        return latency->a_ms + rng_below(rng, latency->b_ms - latency->a_ms + 1);
    case SINK_LATENCY_EXP:
        return (uint64_t)(-log(1 - rng_unit(rng)) * (double)latency->a_ms);
    }
    return 0;
}

const struct sink_fault *sink_fault_draw(const struct sink_class *c, enum sink_stage stage,
                                         struct rng *rng)
{
    for (size_t i = 0; i < c->faults_len; i++)
        if (c->faults[i].stage == stage && rng_unit(rng) < c->faults[i].rate)
            return &c->faults[i];
    return NULL;
}

/* Whether this address is among the rate of those; salt keeps the kinds independent. */
static bool address_drawn(const struct sink_behaviour *b, struct str address, uint64_t salt,
                          double rate)
{
    uint64_t hash = hash_bytes(address.ptr, address.len, b->seed + salt);

    return rate > 0 && (double)(hash >> 11) * 0x1p-53 < rate;
}

/* First contact of sender and recipient is remembered; they pass greylist_ms later. */
static bool greylisted(struct sink_behaviour *b, const struct sink_class *c, struct str sender,
                       struct str recipient, uint64_t now_ms)
{
    uint64_t hash = hash_bytes(sender.ptr, sender.len, b->seed);
    struct greylisted *g;
    struct map_node *node;
    bool wait = true;

    hash = hash_bytes(recipient.ptr, recipient.len, hash);
    pthread_mutex_lock(&b->shared.lock);
    node = map_find(&b->shared.greylist, hash);
    if (node != NULL) {
        g = CONTAINER_OF(node, struct greylisted, node);
        wait = now_ms - g->first_ms < c->greylist_ms;
    } else {
        g = calloc(1, sizeof(*g));
        ASSERT(g != NULL);
        g->first_ms = now_ms;
        map_insert(&b->shared.greylist, &g->node, hash);
    }
    pthread_mutex_unlock(&b->shared.lock);
    return wait;
}

const char *sink_recipient_reply(struct sink_behaviour *b, const struct sink_class *c,
                                 struct str sender, struct str recipient, uint64_t now_ms)
{
    if (address_drawn(b, recipient, 1, c->unknown_users))
        return c->unknown_reply;
    if (address_drawn(b, recipient, 2, c->mailbox_full))
        return c->full_reply;
    if (c->greylist_ms > 0 && greylisted(b, c, sender, recipient, now_ms))
        return c->greylist_reply;
    return NULL;
}

static void class_done(struct sink_class *c)
{
    free(c->name);
    for (size_t i = 0; i < c->domains_len; i++)
        free(c->domains[i]);
    free(c->domains);
    free(c->exchanger);
    for (size_t i = 0; i < c->faults_len; i++)
        free(c->faults[i].reply);
    free(c->faults);
    free(c->unknown_reply);
    free(c->full_reply);
    free(c->greylist_reply);
    free(c->connections_reply);
}

void sink_behaviour_free(struct sink_behaviour *b)
{
    struct map_node *node, *next;
    size_t bucket = 0;

    if (b == NULL)
        return;
    for (size_t i = 0; i < b->classes_len; i++)
        class_done(&b->classes[i]);
    free(b->classes);
    for (node = map_walk(&b->shared.greylist, &bucket, NULL); node != NULL; node = next) {
        next = map_walk(&b->shared.greylist, &bucket, node);
        free(CONTAINER_OF(node, struct greylisted, node));
    }
    map_done(&b->shared.greylist);
    pthread_mutex_destroy(&b->shared.lock);
    free(b);
}

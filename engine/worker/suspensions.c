#include "worker/suspensions.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/packed.h"
#include "config/config.h"

#define VERSION 1
/* Two threads' clocks may differ by a turn of a worker. */
#define CLOCK_SET_BACK_MS 1000

/* version 1, since_ms 8, until_ms 8, then reason and who: length 1, bytes */
#define VALUE_MIN (1 + 8 + 8 + 1 + 1)
/* and of a cap: rate_messages 8, rate_period_ms 4, sessions 4, session_messages 4, step_ms 4 */
#define CAP_BYTES (8 + 4 * 4)

struct entry {
    struct map_node node;
    struct suspension one;
    int64_t since_ms, until_ms; /* as stored; those of one are by a clock that was set back since */
};

static const char *const scope_names[SUSPENSION_SCOPES] = {
    [SUSPENSION_DOMAIN] = "domain",
    [SUSPENSION_CAMPAIGN] = "campaign",
    [SUSPENSION_TENANT] = "tenant",
    [SUSPENSION_SITE] = "site",
    [SUSPENSION_SOURCE] = "source",
    [SUSPENSION_SOURCE_SITE] = "source_site",
    [SUSPENSION_CAMPAIGN_SITE] = "campaign_site",
    [SUSPENSION_TENANT_SITE] = "tenant_site",
    [SUSPENSION_SOURCE_CAP] = "source_cap",
    [SUSPENSION_SOURCE_RECOVERY] = "source_recovery",
    [SUSPENSION_NETBLOCK_SITE] = "netblock_site",
    [SUSPENSION_CAMPAIGN_TENANT] = "campaign_tenant",
    [SUSPENSION_SIGNER_SITE] = "signer_site",
    [SUSPENSION_ENVELOPE_SITE] = "envelope_site",
    [SUSPENSION_CAMPAIGN_CAP] = "campaign_cap",
    [SUSPENSION_TENANT_CAP] = "tenant_cap",
    [SUSPENSION_SIGNER_CAP] = "signer_cap",
    [SUSPENSION_ENVELOPE_CAP] = "envelope_cap",
    [SUSPENSION_SIGNER_RECOVERY] = "signer_recovery",
    [SUSPENSION_ENVELOPE_RECOVERY] = "envelope_recovery"};

const char *suspension_scope_name(enum suspension_scope scope)
{
    return scope > 0 && scope < SUSPENSION_SCOPES ? scope_names[scope] : NULL;
}

enum suspension_scope suspension_scope_of(struct str name)
{
    for (enum suspension_scope scope = SUSPENSION_DOMAIN; scope < SUSPENSION_SCOPES; scope++)
        if (suspension_is_stored(scope) && str_eq(str_of(scope_names[scope]), name))
            return scope;
    return 0;
}

struct governor_cap suspension_cap_of(const struct suspension *one)
{
    return (struct governor_cap){.rate_messages = one->cap.rate_messages,
                                 .rate_period_ms = one->cap.rate_period_ms,
                                 .sessions = one->cap.sessions,
                                 .session_messages = one->cap.session_messages,
                                 .step_ms = one->cap.step_ms};
}

void suspension_name(char out[SUSPENSION_NAME_MAX + 1], struct str what, struct str site)
{
    out[0] = '\0';
    if (what.len > 0)
        snprintf(out, SUSPENSION_NAME_MAX + 1, "%.*s@%.*s", STR_FMT(what), STR_FMT(site));
}

void suspension_netblock(char out[SUSPENSION_NAME_MAX + 1], const struct config_address *address,
                         struct str site)
{
    const struct sockaddr *sa = (const struct sockaddr *)&address->addr;
    char text[INET6_ADDRSTRLEN];
    struct in6_addr six;
    struct in_addr four;

    out[0] = '\0';
    if (address->len == 0)
        return;
    if (sa->sa_family == AF_INET) {
        four = ((const struct sockaddr_in *)(const void *)sa)->sin_addr;
        four.s_addr &= htonl(0xffffff00);
        inet_ntop(AF_INET, &four, text, sizeof(text));
    } else {
        six = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
        memset(six.s6_addr + 8, 0, 8);
        inet_ntop(AF_INET6, &six, text, sizeof(text));
    }
    snprintf(out, SUSPENSION_NAME_MAX + 1, "%s/%s@%.*s", text,
             sa->sa_family == AF_INET ? "24" : "64", STR_FMT(site));
}

/* --- the table --- */

void suspensions_done(struct suspensions *s)
{
    struct map_node *n;
    size_t bucket = 0;

    if (s->by_name.buckets == NULL)
        return;
    while ((n = map_walk(&s->by_name, &bucket, NULL)) != NULL) {
        map_remove(&s->by_name, n);
        free(CONTAINER_OF(n, struct entry, node));
    }
    map_done(&s->by_name);
    pthread_mutex_destroy(&s->lock);
}

static uint64_t hash_of(enum suspension_scope scope, struct str name)
{
    return hash_bytes(name.ptr, name.len, scope);
}

/* Under the lock. */
static struct entry *entry_find(const struct suspensions *s, enum suspension_scope scope,
                                struct str name)
{
    for (struct map_node *n = map_find(&s->by_name, hash_of(scope, name)); n != NULL;
         n = map_find_next(n)) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);

        if (e->one.scope == scope && str_eq(str_of(e->one.name), name))
            return e;
    }
    return NULL;
}

/* Under the lock, behind a change in scope. */
static void count_again(struct suspensions *s, enum suspension_scope scope)
{
    atomic_store_explicit(&s->count, (uint32_t)s->by_name.count, memory_order_relaxed);
    if (suspension_is_cap(scope))
        atomic_fetch_add_explicit(&s->caps_version, 1, memory_order_relaxed);
}

/* Under the lock; n: one more, or (UINT32_MAX) one less. */
static void stored_add(struct suspensions *s, enum suspension_scope scope, uint32_t n)
{
    ASSERT(n == 1 || n == UINT32_MAX);
    if (suspension_is_cap(scope))
        atomic_fetch_add_explicit(&s->caps, n, memory_order_relaxed);
    else if (suspension_is_stored(scope))
        atomic_fetch_add_explicit(&s->stored, n, memory_order_relaxed);
    if (!suspension_is_of_messages(scope))
        return;
    atomic_fetch_add_explicit(&s->of_messages, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->messages_version, 1, memory_order_relaxed);
}

int suspensions_put(struct suspensions *s, const struct suspension *one)
{
    struct str name = str_of(one->name);
    struct entry *e;

    ASSERT(suspension_scope_name(one->scope) != NULL && name.len > 0);
    pthread_mutex_lock(&s->lock);
    e = entry_find(s, one->scope, name);
    if (e == NULL) {
        e = calloc(1, sizeof(*e));
        if (e != NULL) {
            map_insert(&s->by_name, &e->node, hash_of(one->scope, name));
            stored_add(s, one->scope, 1);
        }
    }
    if (e != NULL) {
        e->one = *one;
        e->since_ms = one->since_ms;
        e->until_ms = one->until_ms;
    }
    count_again(s, one->scope);
    pthread_mutex_unlock(&s->lock);
    return e == NULL ? -ENOMEM : 0;
}

bool suspensions_remove(struct suspensions *s, enum suspension_scope scope, struct str name)
{
    struct entry *e;

    pthread_mutex_lock(&s->lock);
    e = entry_find(s, scope, name);
    if (e != NULL) {
        map_remove(&s->by_name, &e->node);
        stored_add(s, scope, UINT32_MAX);
    }
    count_again(s, scope);
    pthread_mutex_unlock(&s->lock);
    free(e);
    return e != NULL;
}

bool suspensions_find(struct suspensions *s, enum suspension_scope scope, struct str name,
                      struct suspension *out)
{
    const struct entry *e;

    pthread_mutex_lock(&s->lock);
    e = entry_find(s, scope, name);
    if (e != NULL)
        *out = e->one;
    pthread_mutex_unlock(&s->lock);
    return e != NULL;
}

bool suspensions_find_cap(struct suspensions *s, enum suspension_scope scope, struct str name,
                          struct suspension *out, uint32_t *version)
{
    const struct entry *e;

    pthread_mutex_lock(&s->lock);
    *version = suspensions_caps_version(s);
    e = entry_find(s, scope, name);
    if (e != NULL)
        *out = e->one;
    pthread_mutex_unlock(&s->lock);
    return e != NULL;
}

uint32_t suspensions_of(struct suspensions *s, const struct str names[SUSPENSION_SCOPES])
{
    uint32_t found = 0;

    if (suspensions_count(s) == 0)
        return 0;
    pthread_mutex_lock(&s->lock);
    for (enum suspension_scope scope = SUSPENSION_DOMAIN; scope < SUSPENSION_SCOPES; scope++)
        if (names[scope].len > 0 && entry_find(s, scope, names[scope]) != NULL)
            found |= 1u << scope;
    pthread_mutex_unlock(&s->lock);
    return found;
}

bool suspensions_hold(struct suspensions *s, enum suspension_scope scope, struct str name)
{
    struct str names[SUSPENSION_SCOPES] = {{0}};

    names[scope] = name;
    return suspensions_of(s, names) != 0;
}

/* Where the clock was set back since it began, it lasts as long from now on as it was to last; once
 * the clock is right again, until its own time. A campaign's lasts until the time of its start,
 * whatever the clock said when that was set. */
static void keep_length(struct entry *e, int64_t now_ms)
{
    struct suspension *one = &e->one;

    if (one->scope == SUSPENSION_CAMPAIGN_TENANT)
        return;
    if (now_ms > e->since_ms - CLOCK_SET_BACK_MS) {
        one->since_ms = e->since_ms;
        one->until_ms = e->until_ms;
    } else if (now_ms <= one->since_ms - CLOCK_SET_BACK_MS) {
        one->until_ms -= one->since_ms - now_ms;
        one->since_ms = now_ms;
    }
}

bool suspensions_ended(struct suspensions *s, int64_t now_ms, struct suspension *out,
                       int64_t *next_ms)
{
    struct map_node *n = NULL;
    size_t bucket = 0;
    bool found = false;

    *next_ms = INT64_MAX;
    pthread_mutex_lock(&s->lock);
    while (!found && (n = map_walk(&s->by_name, &bucket, n)) != NULL) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);
        const struct suspension *one = &e->one;

        if (one->until_ms == 0)
            continue;
        keep_length(e, now_ms);
        found = one->until_ms <= now_ms;
        if (found)
            *out = *one;
        if (one->until_ms < *next_ms)
            *next_ms = one->until_ms;
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

void suspensions_visit(struct suspensions *s,
                       void (*visit)(void *arg, const struct suspension *one), void *arg)
{
    struct map_node *n = NULL;
    size_t bucket = 0;

    pthread_mutex_lock(&s->lock);
    while ((n = map_walk(&s->by_name, &bucket, n)) != NULL)
        visit(arg, &CONTAINER_OF(n, struct entry, node)->one);
    pthread_mutex_unlock(&s->lock);
}

/* --- a worker's copy --- */

#define OF_SITE SUSPENSION_SCOPES /* in place of a scope */

static void add_name(void *arg, const struct suspension *one)
{
    struct hashset *set = arg;
    struct str rest = str_of(one->name);
    int err;

    if (!suspension_is_of_messages(one->scope))
        return;
    err = hashset_reserve(set, 2);
    ASSERT(err == 0);
    (void)hashset_add(set, hash_of(one->scope, rest));
    (void)str_take(&rest, '@');
    (void)hashset_add(set, hash_of(OF_SITE, rest));
}

static bool copy_has(struct suspended_names *copy, struct suspensions *s, uint64_t hash)
{
    uint32_t version = atomic_load_explicit(&s->messages_version, memory_order_relaxed);

    if (copy->version != version) {
        suspended_names_done(copy);
        suspensions_visit(s, add_name, &copy->hashes);
        copy->version = version;
    }
    return hashset_has(&copy->hashes, hash);
}

bool suspended_names_at(struct suspended_names *copy, struct suspensions *s, struct str site)
{
    return suspensions_of_messages(s) != 0 && copy_has(copy, s, hash_of(OF_SITE, site));
}

bool suspended_names_have(struct suspended_names *copy, struct suspensions *s,
                          enum suspension_scope scope, struct str name)
{
    return suspensions_of_messages(s) != 0 && copy_has(copy, s, hash_of(scope, name));
}

void suspended_names_done(struct suspended_names *copy)
{
    hashset_done(&copy->hashes);
}

/* --- the record --- */

size_t suspension_key(uint8_t out[SUSPENSION_KEY_MAX], enum suspension_scope scope, struct str name)
{
    ASSERT(name.len > 0 && name.len <= SUSPENSION_NAME_MAX && suspension_is_stored(scope));
    out[0] = STATE_SUSPENSION;
    out[1] = (uint8_t)scope;
    memcpy(out + 2, name.ptr, name.len);
    return 2 + name.len;
}

void suspension_encode(struct buf *out, const struct suspension *one)
{
    buf_putc(out, VERSION);
    packed_put(out, (uint64_t)one->since_ms, 8);
    packed_put(out, (uint64_t)one->until_ms, 8);
    packed_put_text(out, one->reason);
    packed_put_text(out, one->who);
    if (!suspension_is_cap(one->scope))
        return;
    packed_put(out, one->cap.rate_messages, 8);
    packed_put(out, one->cap.rate_period_ms, 4);
    packed_put(out, one->cap.sessions, 4);
    packed_put(out, one->cap.session_messages, 4);
    packed_put(out, one->cap.step_ms, 4);
}

/* False: it says nothing that can be kept to. */
static bool cap_decode(struct str rest, struct suspension_cap *out)
{
    const char *at = rest.ptr;

    if (rest.len < CAP_BYTES)
        return false;
    out->rate_messages = packed_at(at, 8);
    out->rate_period_ms = (uint32_t)packed_at(at + 8, 4);
    out->sessions = (uint32_t)packed_at(at + 12, 4);
    out->session_messages = (uint32_t)packed_at(at + 16, 4);
    out->step_ms = (uint32_t)packed_at(at + 20, 4);
    return out->step_ms > 0 && (out->rate_messages == 0 || out->rate_period_ms > 0);
}

/* Scope and name; the rest of out is cleared. */
static bool key_decode(struct str key, struct suspension *out)
{
    *out = (struct suspension){0};
    if (key.len < 3 || key.len > SUSPENSION_KEY_MAX || key.ptr[0] != STATE_SUSPENSION ||
        suspension_scope_name((uint8_t)key.ptr[1]) == NULL ||
        !suspension_is_stored((uint8_t)key.ptr[1]))
        return false;
    out->scope = (uint8_t)key.ptr[1];
    memcpy(out->name, key.ptr + 2, key.len - 2);
    return true;
}

int suspension_decode(struct str key, struct str value, struct suspension *out)
{
    struct suspension one;
    struct str rest;

    if (!key_decode(key, &one) || value.len < VALUE_MIN)
        return -EBADMSG;
    if (value.ptr[0] != VERSION)
        return -EPROTO;
    one.since_ms = (int64_t)packed_at(value.ptr + 1, 8);
    one.until_ms = (int64_t)packed_at(value.ptr + 9, 8);
    rest = (struct str){value.ptr + 17, value.len - 17};
    if (strlen(one.name) != key.len - 2 ||
        !packed_take_text(&rest, one.reason, SUSPENSION_REASON_MAX) ||
        !packed_take_text(&rest, one.who, SUSPENSION_WHO_MAX) ||
        (suspension_is_cap(one.scope) && !cap_decode(rest, &one.cap)))
        return -EBADMSG; /* what follows is of a later build, and may be lost */
    *out = one;
    return 0;
}

struct loading {
    struct suspensions *to;
    int err;
};

/* What a damaged record says is unknown but for its key: mail that was not to go does not go. Of a
 * cap nothing is left. */
static void load_one(void *arg, struct str key, struct str value)
{
    struct loading *l = arg;
    struct suspension one = {0};
    int err = suspension_decode(key, value, &one);

    if (err < 0) {
        log_error("queue.suspension_damaged",
                  "scope=%d name=\"%.*s\" action=\"see 'hayauma queue suspensions'; suspend or "
                  "resume it anew\"",
                  key.len < 2 ? 0 : key.ptr[1], (int)(key.len < 2 ? 0 : key.len - 2), key.ptr + 2);
        if (!key_decode(key, &one) || suspension_is_cap(one.scope))
            return;
        snprintf(one.reason, sizeof(one.reason), "its record is damaged");
    }
    if (one.name[0] != '\0' && l->err == 0)
        l->err = suspensions_put(l->to, &one);
}

int suspensions_open(struct suspensions *s, struct queue *q)
{
    struct loading l = {.to = s};
    int err = map_init(&s->by_name, 64);

    if (err < 0)
        return err;
    pthread_mutex_init(&s->lock, NULL);
    atomic_init(&s->count, 0);
    atomic_init(&s->stored, 0);
    atomic_init(&s->caps, 0);
    atomic_init(&s->of_messages, 0);
    atomic_init(&s->caps_version, 0);
    atomic_init(&s->messages_version, 0);
    err = queue_state_visit(q, 0, STATE_SUSPENSION, load_one, &l);
    return err < 0 ? err : l.err;
}

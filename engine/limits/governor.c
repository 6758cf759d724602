#include "limits/governor_private.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

/* How long a session may be held at its fair share while another worker waits for one. */
#define SLICE_MS      2000
#define GROW_S        60              /* after a peer asked for less */
#define STEPPED_MAX   10000           /* sessions: with so many nothing is stepped down any more */
#define PROBE_WAIT_MS UINT64_C(30000) /* without an answer to a probe another one may go out */
#define BYTE_PARTS    1024u           /* of a nanosecond: what intervals of bytes count in */
#define SUMS_MAX      4096 /* entries that nobody holds and that are kept for their sums */
#define VISIT_BUCKETS 64
#define COOLED_MAX    8 /* cold entries that are looked at when one is let go */

struct governor {
    pthread_mutex_t mutex; /* protects entries and each entry's node, refs, key */
    struct map entries;
    struct list cooling; /* entries with refs == 0 */
    size_t cooling_len;
    uint64_t seed;
    uint64_t began_ns; /* see governor_begin() */
};

int governor_open(struct governor **out)
{
    struct governor *g = calloc(1, sizeof(*g));

    if (g == NULL)
        return -ENOMEM;
    if (map_init(&g->entries, 256) < 0) {
        free(g);
        return -ENOMEM;
    }
    pthread_mutex_init(&g->mutex, NULL);
    list_init(&g->cooling);
    g->seed = rng_entropy();
    *out = g;
    return 0;
}

static void entry_drop(struct governor *g, struct governor_entry *e)
{
    ASSERT(atomic_load(&e->shared.sessions) == 0 && atomic_load(&e->shared.works) == 0);
    ASSERT(atomic_load(&e->shared.ending) == 0);
    ASSERT(e->refs == 0 && !list_node_linked(&e->cooling) && g->cooling_len > 0);
    map_remove(&g->entries, &e->node);
    g->cooling_len--;
    free(e->key);
    free(e);
}

/* Whether a rate's bucket is as full as that of a new entry. */
static bool is_full(const _Atomic uint64_t *next_ns, const _Atomic uint64_t *burst_ns,
                    uint64_t now_ns)
{
    uint64_t next = atomic_load(next_ns);

    return next <= now_ns && now_ns - next >= atomic_load_explicit(burst_ns, memory_order_relaxed);
}

/* Whether a new entry would be no different. An open session is a difference too: nobody else may
 * hold an exchanger's entry. */
static bool is_cold(const struct governor_entry *e, uint64_t now_ns)
{
    for (int i = 0; i < GOVERNOR_COUNTS; i++)
        if (!is_full(&e->shared.next_ns[i], &e->rates[i].burst_ns, now_ns))
            return false;
    return atomic_load(&e->shared.sessions) == 0 &&
           is_full(&e->shared.connect_next_ns, &e->connect_burst_ns, now_ns) &&
           governor_stopped_ns(e) <= now_ns;
}

/* Whether it has counted something that screens show. */
static bool has_sums(const struct governor_entry *e)
{
    uint64_t held_ms = 0;

    for (enum governor_counts i = 0; i < GOVERNOR_WAITS; i++)
        held_ms |= governor_held_ms(e, i);
    return held_ms != 0 || atomic_load(&e->sums.attempts) != 0;
}

/* Drops entries that nobody holds once they have all that new ones would: a rate bucket must
 * outlive its site, or a site that comes and goes would get a fresh allowance each time. Looks at
 * max of them: one whose burst takes days to come back keeps no others. */
static void cooling_sweep(struct governor *g, uint64_t now_ns, size_t max)
{
    struct list_node *n;

    for (; max > 0 && (n = list_pop_front(&g->cooling)) != NULL; max--) {
        struct governor_entry *e = LIST_ENTRY(n, struct governor_entry, cooling);

        ASSERT(e->refs == 0);
        if (is_cold(e, now_ns) &&
            (!has_sums(e) || g->cooling_len > SUMS_MAX || now_ns == UINT64_MAX))
            entry_drop(g, e);
        else
            list_push_back(&g->cooling, n);
    }
}

void governor_close(struct governor *g)
{
    if (g == NULL)
        return;
    cooling_sweep(g, UINT64_MAX, g->entries.count);
    ASSERT(g->entries.count == 0 && g->cooling_len == 0 && list_empty(&g->cooling));
    map_done(&g->entries);
    pthread_mutex_destroy(&g->mutex);
    free(g);
}

static struct governor_entry *entry_find(struct governor *g, struct str key, uint64_t hash)
{
    for (struct map_node *n = map_find(&g->entries, hash); n != NULL; n = map_find_next(n)) {
        struct governor_entry *e = CONTAINER_OF(n, struct governor_entry, node);

        if (str_eq(str_of(e->key), key))
            return e;
    }
    return NULL;
}

static struct governor_entry *entry_new(struct str key)
{
    struct governor_entry *e = aligned_alloc(CACHE_LINE_BYTES, sizeof(*e));

    if (e == NULL)
        return NULL;
    memset(e, 0, sizeof(*e));
    e->key = strndup(key.ptr, key.len);
    if (e->key == NULL) {
        free(e);
        return NULL;
    }
    return e;
}

static uint64_t scaled_ns(uint64_t left_ns, uint64_t old_ns, uint64_t new_ns)
{
    double left;

    ASSERT(old_ns > 0 && new_ns > 0);
    left = (double)left_ns / (double)old_ns * (double)new_ns;

    return left < (double)INT64_MAX ? (uint64_t)left : INT64_MAX;
}

static uint64_t interval_of(uint64_t count, uint32_t period_ms)
{
    return count == 0 ? 0 : (uint64_t)period_ms * 1000000 / count;
}

/* The interval of a byte, in parts of a nanosecond: several bytes may go in one. Rounded up, so
 * that no rate is exceeded. */
static uint64_t byte_interval_of(uint64_t count, uint32_t period_ms)
{
    uint64_t parts = (uint64_t)period_ms * 1000000 * BYTE_PARTS;

    return count == 0 ? 0 : parts / count + (parts % count != 0);
}

static uint64_t burst_of(uint32_t burst, uint64_t interval_ns)
{
    uint64_t most = INT64_MAX; /* a burst of some centuries */

    return interval_ns != 0 && burst > most / interval_ns ? most : burst * interval_ns;
}

uint64_t governor_cost(enum governor_counts which, uint64_t interval, uint64_t n)
{
    uint64_t cost = burst_of(n > UINT32_MAX ? UINT32_MAX : (uint32_t)n, interval);

    return which == GOVERNOR_BYTES ? cost / BYTE_PARTS : cost;
}

/* The rate has changed: who had a part of the old interval left to wait has that part of the new
 * one. */
static void wait_rescale(_Atomic uint64_t *next_ns, uint64_t old_ns, uint64_t interval_ns,
                         uint64_t now_ns)
{
    uint64_t next;

    if (old_ns == interval_ns || old_ns == 0 || interval_ns == 0)
        return;
    next = atomic_load(next_ns);
    while (next > now_ns &&
           !atomic_compare_exchange_weak(next_ns, &next,
                                         now_ns + scaled_ns(next - now_ns, old_ns, interval_ns)))
        ;
}

/* Nothing goes before at_ns. */
static void wait_until(_Atomic uint64_t *next_ns, uint64_t at_ns)
{
    uint64_t next = atomic_load(next_ns);

    while (next < at_ns && !atomic_compare_exchange_weak(next_ns, &next, at_ns))
        ;
}

static void interval_set(_Atomic uint64_t *interval, _Atomic uint64_t *next_ns,
                         uint64_t interval_ns, uint64_t now_ns)
{
    uint64_t old_ns = atomic_exchange_explicit(interval, interval_ns, memory_order_relaxed);

    wait_rescale(next_ns, old_ns, interval_ns, now_ns);
}

static void rate_set(struct governor_entry *e, enum governor_counts which,
                     const struct governor_rate *rate, uint64_t now_ns)
{
    uint64_t interval = which == GOVERNOR_BYTES ? byte_interval_of(rate->count, rate->period_ms)
                                                : interval_of(rate->count, rate->period_ms);

    ASSERT(rate->count == 0 || rate->period_ms > 0);
    atomic_store_explicit(&e->rates[which].count, rate->count, memory_order_relaxed);
    atomic_store_explicit(&e->rates[which].period_ms, rate->period_ms, memory_order_relaxed);
    interval_set(&e->rates[which].interval_ns, &e->shared.next_ns[which], interval, now_ns);
    atomic_store_explicit(&e->rates[which].burst_ns, governor_cost(which, interval, rate->burst),
                          memory_order_relaxed);
}

static void entry_limit(struct governor_entry *e, const struct governor_limits *limits,
                        uint64_t now_ns)
{
    const struct governor_rate messages = {limits->rate_messages, limits->rate_period_ms,
                                           limits->rate_burst};
    uint64_t connect_ns = interval_of(limits->connects.count, limits->connects.period_ms);

    if (limits->generation < e->generation)
        return;
    e->generation = limits->generation;
    atomic_store_explicit(&e->sessions_max, limits->sessions_max, memory_order_relaxed);
    rate_set(e, GOVERNOR_MESSAGES, &messages, now_ns);
    rate_set(e, GOVERNOR_RECIPIENTS, &limits->recipients, now_ns);
    rate_set(e, GOVERNOR_BYTES, &limits->bytes, now_ns);
    interval_set(&e->connect_interval_ns, &e->shared.connect_next_ns, connect_ns, now_ns);
    atomic_store_explicit(&e->connect_burst_ns, burst_of(limits->connects.burst, connect_ns),
                          memory_order_relaxed);
}

static void entry_hold(struct governor *g, struct governor_entry *e)
{
    ASSERT(e->refs < UINT32_MAX && (e->refs == 0 || !list_node_linked(&e->cooling)));
    if (e->refs++ > 0 || !list_node_linked(&e->cooling))
        return;
    ASSERT(g->cooling_len > 0);
    list_remove(&e->cooling);
    g->cooling_len--;
}

struct governor_entry *governor_find(struct governor *g, struct str key)
{
    struct governor_entry *e;

    pthread_mutex_lock(&g->mutex);
    e = entry_find(g, key, hash_bytes(key.ptr, key.len, g->seed));
    if (e != NULL)
        entry_hold(g, e);
    pthread_mutex_unlock(&g->mutex);
    return e;
}

struct governor_entry *governor_get(struct governor *g, struct str key,
                                    const struct governor_limits *limits, uint64_t now_ns)
{
    uint64_t hash = hash_bytes(key.ptr, key.len, g->seed);
    struct governor_entry *e;

    pthread_mutex_lock(&g->mutex);
    e = entry_find(g, key, hash);
    if (e == NULL) {
        e = entry_new(key);
        if (e != NULL)
            map_insert(&g->entries, &e->node, hash);
    }
    if (e != NULL) {
        ASSERT(e->refs == 0 || !list_node_linked(&e->cooling));
        entry_hold(g, e);
        entry_limit(e, limits, now_ns);
    }
    pthread_mutex_unlock(&g->mutex);
    return e;
}

void governor_name(struct governor *g, struct governor_entry *e, const char *source,
                   const char *site, bool provider)
{
    size_t source_len = strlen(source), site_len = strlen(site);
    const char *at;

    pthread_mutex_lock(&g->mutex);
    ASSERT(e->refs > 0 && strlen(e->key) >= source_len);
    at = strstr(e->key + source_len, site);
    if (source_len > 0 && site_len <= UINT16_MAX && at != NULL && at - e->key <= UINT16_MAX) {
        e->source_len = (uint16_t)source_len;
        e->site_at = (uint16_t)(at - e->key);
        e->site_len = (uint16_t)site_len;
        e->provider = provider;
    }
    pthread_mutex_unlock(&g->mutex);
}

void governor_visit(struct governor *g, void (*visit)(void *arg, const struct governor_entry *e),
                    void *arg)
{
    size_t bucket = 0;
    bool more = true;

    while (more) { /* whole buckets; those who make and drop sites have their turn in between */
        pthread_mutex_lock(&g->mutex);
        for (int i = 0; i < VISIT_BUCKETS && bucket < map_buckets(&g->entries); i++, bucket++)
            for (struct map_node *n = map_bucket(&g->entries, bucket); n != NULL; n = n->next) {
                const struct governor_entry *e = CONTAINER_OF(n, struct governor_entry, node);

                if (e->source_len > 0)
                    visit(arg, e);
            }
        more = bucket < map_buckets(&g->entries);
        pthread_mutex_unlock(&g->mutex);
    }
}

void governor_put(struct governor *g, struct governor_entry *entry, uint64_t now_ns)
{
    if (entry == NULL)
        return;
    pthread_mutex_lock(&g->mutex);
    ASSERT(entry->refs > 0 && !list_node_linked(&entry->cooling));
    if (--entry->refs == 0) {
        list_push_back(&g->cooling, &entry->cooling);
        g->cooling_len++;
    }
    cooling_sweep(g, now_ns, COOLED_MAX);
    pthread_mutex_unlock(&g->mutex);
}

/* --- what an answer lowers --- */

/* How often the cap has doubled. False: there is none, or it is over. */
static bool cap_step(const struct governor_entry *e, uint64_t now_ns, uint32_t *step)
{
    uint64_t step_ns = atomic_load_explicit(&e->cap_step_ns, memory_order_relaxed);
    int64_t for_ns;

    if (step_ns == 0)
        return false;
    for_ns = (int64_t)now_ns - atomic_load_explicit(&e->cap_since_ns, memory_order_relaxed);
    *step = for_ns <= 0 ? 0
            : (uint64_t)for_ns / step_ns < GOVERNOR_CAP_STEPS
                ? (uint32_t)((uint64_t)for_ns / step_ns)
                : GOVERNOR_CAP_STEPS;
    return *step < GOVERNOR_CAP_STEPS;
}

static uint32_t doubled(uint32_t count, uint32_t step)
{
    uint64_t more = (uint64_t)count << step;

    return count == 0 || more > UINT32_MAX ? UINT32_MAX : (uint32_t)more;
}

uint64_t governor_interval_at(const struct governor_entry *e, uint64_t now_ns)
{
    uint64_t own = governor_interval(e, GOVERNOR_MESSAGES), capped;
    uint32_t step;

    if (!cap_step(e, now_ns, &step))
        return own;
    ASSERT(step < GOVERNOR_CAP_STEPS);
    capped = atomic_load_explicit(&e->cap_interval_ns, memory_order_relaxed) >> step;
    return capped > own ? capped : own;
}

void governor_cap(struct governor *g, struct governor_entry *e, uint32_t version,
                  const struct governor_cap *cap, int64_t since_ns, uint64_t now_ns)
{
    uint64_t old_ns;

    pthread_mutex_lock(&g->mutex);
    ASSERT(e->refs > 0);
    if ((int32_t)(version - e->cap_version) > 0) {
        ASSERT(cap->rate_messages == 0 || cap->rate_period_ms > 0);
        old_ns = governor_interval_at(e, now_ns);
        e->cap_version = version;
        atomic_store_explicit(&e->cap_since_ns, since_ns, memory_order_relaxed);
        atomic_store_explicit(&e->cap_interval_ns,
                              interval_of(cap->rate_messages, cap->rate_period_ms),
                              memory_order_relaxed);
        atomic_store_explicit(&e->cap_messages, cap->rate_messages, memory_order_relaxed);
        atomic_store_explicit(&e->cap_period_ms, cap->rate_period_ms, memory_order_relaxed);
        atomic_store_explicit(&e->cap_sessions, cap->sessions, memory_order_relaxed);
        atomic_store_explicit(&e->cap_session_messages, cap->session_messages,
                              memory_order_relaxed);
        atomic_store_explicit(&e->cap_step_ns, (uint64_t)cap->step_ms * 1000000,
                              memory_order_relaxed);
        wait_rescale(&e->shared.next_ns[GOVERNOR_MESSAGES], old_ns, governor_interval_at(e, now_ns),
                     now_ns);
        if (cap->rate_messages > 0 && since_ns < (int64_t)g->began_ns)
            wait_until(&e->shared.next_ns[GOVERNOR_MESSAGES],
                       g->began_ns + governor_interval_at(e, now_ns));
    }
    pthread_mutex_unlock(&g->mutex);
}

void governor_begin(struct governor *g, uint64_t now_ns)
{
    g->began_ns = now_ns;
}

bool governor_capped(const struct governor_entry *e, uint64_t now_ns, struct governor_cap *out)
{
    uint32_t step, sessions, messages;

    if (!cap_step(e, now_ns, &step))
        return false;
    sessions = atomic_load_explicit(&e->cap_sessions, memory_order_relaxed);
    messages = atomic_load_explicit(&e->cap_session_messages, memory_order_relaxed);
    *out = (struct governor_cap){
        .rate_messages = atomic_load_explicit(&e->cap_messages, memory_order_relaxed) << step,
        .rate_period_ms = atomic_load_explicit(&e->cap_period_ms, memory_order_relaxed),
        .sessions = sessions == 0 ? 0 : doubled(sessions, step),
        .session_messages = messages == 0 ? 0 : doubled(messages, step),
        .step_ms =
            (uint32_t)(atomic_load_explicit(&e->cap_step_ns, memory_order_relaxed) / 1000000)};
    return true;
}

uint32_t governor_session_messages(const struct governor_entry *e, uint64_t now_ns)
{
    uint32_t step;

    return cap_step(e, now_ns, &step)
               ? doubled(atomic_load_explicit(&e->cap_session_messages, memory_order_relaxed), step)
               : UINT32_MAX;
}

static uint32_t cap_sessions(const struct governor_entry *e, uint64_t now_ns)
{
    uint32_t step;

    return cap_step(e, now_ns, &step)
               ? doubled(atomic_load_explicit(&e->cap_sessions, memory_order_relaxed), step)
               : UINT32_MAX;
}

bool governor_over_cap(const struct governor_entry *e, uint64_t now_ns)
{
    uint64_t ending;

    if (atomic_load_explicit(&e->cap_step_ns, memory_order_relaxed) == 0)
        return false;
    ending = atomic_load(&e->shared.ending);
    return atomic_load(&e->shared.sessions) > ending + cap_sessions(e, now_ns);
}

/* --- sessions --- */

static uint64_t lowered_at(uint64_t now_ns, uint64_t sessions)
{
    ASSERT(sessions > 0 && sessions <= UINT32_MAX); /* 0 says that nothing is lowered */
    return now_ns / NS_PER_S << 32 | sessions;
}

/* What a lowered number has grown to; UINT64_MAX: it was not lowered. */
static uint64_t grown(uint64_t lowered, uint64_t now_ns)
{
    uint64_t now_s = now_ns / NS_PER_S, then_s = lowered >> 32, sessions = lowered & UINT32_MAX;

    if (lowered == 0)
        return UINT64_MAX;
    if (now_s > then_s)
        sessions += (now_s - then_s) / GROW_S * (1 + sessions / 10);
    return sessions;
}

/* How many sessions may be open now; UINT32_MAX: any number. */
static uint32_t sessions_allowed(const struct governor_entry *e, uint64_t now_ns)
{
    uint64_t lowered =
        grown(atomic_load_explicit(&e->shared.lowered, memory_order_relaxed), now_ns);
    uint64_t stepped =
        grown(atomic_load_explicit(&e->shared.stepped, memory_order_relaxed), now_ns);
    uint64_t recovering = atomic_load_explicit(&e->shared.recovering, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&e->sessions_max, memory_order_relaxed);

    ASSERT(max <= UINT32_MAX);
    if (governor_stopped_ns(e) != 0)
        return 1;
    if (max == 0)
        max = UINT32_MAX;
    if (lowered < max)
        max = lowered;
    if (cap_sessions(e, now_ns) < max)
        max = cap_sessions(e, now_ns);
    if (recovering != 0 && (recovering & UINT32_MAX) < max)
        max = recovering & UINT32_MAX;
    if (stepped < max)
        max = stepped;
    ASSERT(max > 0); /* or nothing would ever go there again */
    return (uint32_t)max;
}

bool governor_sessions_full(const struct governor_entry *e, uint64_t now_ns)
{
    return atomic_load(&e->shared.sessions) >= sessions_allowed(e, now_ns);
}

void governor_sessions(const struct governor_entry *e, uint64_t now_ns, uint64_t *open,
                       uint64_t *allowed)
{
    *open = atomic_load(&e->shared.sessions);
    *allowed = sessions_allowed(e, now_ns);
}

bool governor_is_lowered(const struct governor_entry *e, uint64_t now_ns)
{
    uint64_t max = atomic_load_explicit(&e->sessions_max, memory_order_relaxed);

    return sessions_allowed(e, now_ns) < (max == 0 ? UINT32_MAX : max);
}

/* One less than are open, or than may be. */
static uint32_t one_less(const struct governor_entry *e, uint64_t now_ns)
{
    uint32_t open = atomic_load(&e->shared.sessions), allowed = sessions_allowed(e, now_ns);

    if (open < allowed)
        allowed = open;
    return allowed > 1 ? allowed - 1 : 1;
}

/* When two workers do this at once it may count once: the peer will ask again. */
void governor_slow_down(struct governor_entry *e, uint64_t now_ns)
{
    atomic_store_explicit(&e->shared.lowered, lowered_at(now_ns, one_less(e, now_ns)),
                          memory_order_relaxed);
}

void governor_step_down(struct governor_entry *e, uint64_t now_ns)
{
    atomic_store_explicit(&e->shared.stepped, lowered_at(now_ns, one_less(e, now_ns)),
                          memory_order_relaxed);
    atomic_store_explicit(&e->shared.credit, 0, memory_order_relaxed);
}

void governor_taken(struct governor_entry *e, uint64_t now_ns)
{
    uint64_t stepped = atomic_load_explicit(&e->shared.stepped, memory_order_relaxed);
    uint64_t sessions = grown(stepped, now_ns), max;

    if (stepped == 0 ||
        atomic_fetch_add_explicit(&e->shared.credit, 1, memory_order_relaxed) + 1 < sessions)
        return;
    atomic_store_explicit(&e->shared.credit, 0, memory_order_relaxed);
    max = atomic_load_explicit(&e->sessions_max, memory_order_relaxed);
    /* Nothing is changed where another worker has stepped down meanwhile. */
    atomic_compare_exchange_strong(
        &e->shared.stepped, &stepped,
        sessions + 1 >= (max == 0 ? STEPPED_MAX : max) ? 0 : lowered_at(now_ns, sessions + 1));
}

void governor_recover(struct governor_entry *e, uint32_t pause_s, uint64_t now_ns)
{
    ASSERT(pause_s > 0);
    atomic_store_explicit(&e->shared.recover_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&e->shared.recovered, true, memory_order_relaxed);
    atomic_store_explicit(&e->shared.recovering, (uint64_t)pause_s << 32 | 1, memory_order_relaxed);
}

uint64_t governor_recover_ns(const struct governor_entry *e)
{
    return atomic_load_explicit(&e->shared.recover_ns, memory_order_relaxed);
}

bool governor_recovers(struct governor_entry *e, uint32_t *pause_s, uint32_t *sessions)
{
    uint64_t now = atomic_load_explicit(&e->shared.recovering, memory_order_relaxed), next;
    uint64_t max = atomic_load_explicit(&e->sessions_max, memory_order_relaxed);

    if (now == 0)
        return false;
    next = (now & UINT32_MAX) + 1 >= (max == 0 ? STEPPED_MAX : max) ? 0 : now + 1;
    *pause_s = (uint32_t)(now >> 32);
    *sessions = (uint32_t)next;
    /* Nothing is changed where another worker has begun a pause meanwhile. */
    return atomic_compare_exchange_strong(&e->shared.recovering, &now, next);
}

void governor_restore(struct governor_entry *e, uint32_t pause_s, uint32_t sessions)
{
    uint64_t nothing = 0;

    if (!atomic_exchange(&e->shared.recovered, true) && sessions > 0)
        (void)atomic_compare_exchange_strong(&e->shared.recovering, &nothing,
                                             (uint64_t)pause_s << 32 | sessions);
}

uint32_t governor_recovery_s(const struct governor_entry *e)
{
    uint64_t now = atomic_load_explicit(&e->shared.recovering, memory_order_relaxed);

    return (now & UINT32_MAX) == 1 ? (uint32_t)(now >> 32) : 0;
}

void governor_session_ends(struct governor_entry *e, bool ends)
{
    uint32_t before =
        ends ? atomic_fetch_add(&e->shared.ending, 1) : atomic_fetch_sub(&e->shared.ending, 1);

    ASSERT(ends || before > 0);
}

void governor_session_works(struct governor_entry *e, bool works)
{
    uint32_t before =
        works ? atomic_fetch_add(&e->shared.works, 1) : atomic_fetch_sub(&e->shared.works, 1);

    ASSERT(works || before > 0);
}

bool governor_any_works(const struct governor_entry *e)
{
    return atomic_load(&e->shared.works) > 0;
}

/* --- what gets through --- */

/* Learns how long runs of failures last that end by themselves: a moving mean, in which the last
 * run counts a 16th. Workers may overwrite each other's: it is a guess. */
static void run_learn(struct governor_entry *e, uint32_t run)
{
    uint32_t runs = atomic_load_explicit(&e->shared.runs, memory_order_relaxed);

    if (run == 0 && runs < 16)
        return; /* most often */
    if (run > 64)
        run = 64; /* a long stop says little of what follows */
    atomic_store_explicit(&e->shared.runs, runs - runs / 16 + run * 256 / 16, memory_order_relaxed);
}

uint32_t governor_run_allowed(const struct governor_entry *e, uint32_t run_max)
{
    uint32_t runs = atomic_load_explicit(&e->shared.runs, memory_order_relaxed);
    uint32_t more = run_max * runs / 256, most = run_max * (GOVERNOR_RUN_TIMES - 1);

    return run_max + (more < most ? more : most);
}

bool governor_run_counts(struct governor_entry *e, uint64_t begun_ns, uint64_t now_ns,
                         uint32_t run_max, uint64_t pause_ms_max)
{
    uint64_t pause_ms = GOVERNOR_PROBE_MS;
    uint32_t run, over;

    if (begun_ns < atomic_load_explicit(&e->shared.counted_ns, memory_order_relaxed))
        return governor_stopped_ns(e) != 0;
    run = atomic_fetch_add_explicit(&e->shared.run, 1, memory_order_relaxed) + 1;
    if (run < run_max && governor_stopped_ns(e) == 0)
        return false;
    over = run > run_max ? run - run_max : 0;
    pause_ms = over < 20 ? pause_ms << over : pause_ms_max;
    if (pause_ms > pause_ms_max)
        pause_ms = pause_ms_max;
    atomic_store_explicit(&e->shared.counted_ns, now_ns, memory_order_relaxed);
    atomic_store(&e->shared.probe_ns, 0);
    atomic_store_explicit(&e->shared.stopped_ns, now_ns + pause_ms * 1000000, memory_order_relaxed);
    return true;
}

bool governor_run_ends(struct governor_entry *e)
{
    uint32_t run = atomic_load_explicit(&e->shared.run, memory_order_relaxed);

    if (run != 0)
        atomic_store_explicit(&e->shared.run, 0, memory_order_relaxed);
    run_learn(e, run);
    return governor_stopped_ns(e) != 0 && atomic_exchange(&e->shared.stopped_ns, 0) != 0;
}

void governor_probe_now(struct governor_entry *e, uint64_t now_ns)
{
    uint64_t stopped_ns = governor_stopped_ns(e);

    if (stopped_ns > now_ns)
        atomic_compare_exchange_strong(&e->shared.stopped_ns, &stopped_ns, now_ns);
}

bool governor_may_send(struct governor_entry *e, bool take, uint64_t now_ns)
{
    uint64_t stopped_ns = governor_stopped_ns(e), probe_ns;

    if (stopped_ns == 0)
        return true;
    probe_ns = atomic_load(&e->shared.probe_ns);
    if (stopped_ns > now_ns || probe_ns > now_ns)
        return false;
    return !take || atomic_compare_exchange_strong(&e->shared.probe_ns, &probe_ns,
                                                   now_ns + PROBE_WAIT_MS * 1000000);
}

void governor_probe_back(struct governor_entry *e)
{
    if (governor_stopped_ns(e) != 0)
        atomic_store(&e->shared.probe_ns, 0);
}

bool governor_session_take(struct governor_entry *e, uint32_t worker, uint64_t now_ns)
{
    uint64_t bit = UINT64_C(1) << (worker % 64);
    uint32_t max = sessions_allowed(e, now_ns);
    uint32_t open = atomic_load(&e->shared.sessions);

    if ((atomic_load_explicit(&e->shared.holders, memory_order_relaxed) & bit) == 0)
        atomic_fetch_or(&e->shared.holders, bit);
    do {
        if (open >= max) {
            atomic_fetch_or(&e->shared.denied, bit);
            return false;
        }
    } while (!atomic_compare_exchange_weak(&e->shared.sessions, &open, open + 1));
    if ((atomic_load_explicit(&e->shared.denied, memory_order_relaxed) & bit) != 0)
        atomic_fetch_and(&e->shared.denied, ~bit);
    return true;
}

void governor_session_give(struct governor_entry *e)
{
    uint32_t before = atomic_fetch_sub(&e->shared.sessions, 1);

    ASSERT(before > 0);
}

void governor_up(struct governor_entry *e)
{
    atomic_fetch_add_explicit(&e->shared.ups, 1, memory_order_relaxed);
}

uint32_t governor_ups(const struct governor_entry *e)
{
    return atomic_load_explicit(&e->shared.ups, memory_order_relaxed);
}

void governor_session_withdraw(struct governor_entry *e, uint32_t worker, uint32_t own)
{
    uint64_t bit = UINT64_C(1) << (worker % 64);

    if ((atomic_load_explicit(&e->shared.denied, memory_order_relaxed) & bit) != 0)
        atomic_fetch_and(&e->shared.denied, ~bit);
    if (own == 0 && (atomic_load_explicit(&e->shared.holders, memory_order_relaxed) & bit) != 0)
        atomic_fetch_and(&e->shared.holders, ~bit);
}

bool governor_contended(const struct governor_entry *e, uint32_t worker)
{
    uint64_t bit = UINT64_C(1) << (worker % 64);

    return (atomic_load_explicit(&e->shared.denied, memory_order_relaxed) & ~bit) != 0;
}

bool governor_should_yield(struct governor_entry *e, uint32_t worker, uint32_t own,
                           uint64_t held_ms, uint64_t now_ns)
{
    uint64_t bit = UINT64_C(1) << (worker % 64);
    uint64_t others = atomic_load_explicit(&e->shared.denied, memory_order_relaxed) & ~bit;
    uint32_t max, contenders, share;

    if (others == 0)
        return false;
    max = sessions_allowed(e, now_ns);
    contenders = (uint32_t)__builtin_popcountll(atomic_load(&e->shared.holders) | others | bit);
    ASSERT(contenders >= 2); /* this worker, and who was denied */
    share = max / contenders;
    return own > (share == 0 ? 1 : share) || (share == 0 && held_ms >= SLICE_MS);
}

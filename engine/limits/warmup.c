#include "limits/warmup_private.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/wheel.h"

#define RETRY_NS  UINT64_C(20000000)   /* until the keeper has answered */
#define LOOK_NS   UINT64_C(5000000000) /* the clock or the caps may be set: looked at so often */
#define SLACK_NS  UINT64_C(2000000000) /* so much of a pause is made up for */
#define NS_PER_MS 1000000
#define MINUTES   1440 /* of a day */
#define JUMP_MS   1000 /* the clock was set by so much */

/* --- the table --- */

int warmup_open(struct warmup *w, void (*wake)(void *arg), void *arg)
{
    int err = map_init(&w->streams, 64);

    if (err < 0)
        return err;
    pthread_mutex_init(&w->lock, NULL);
    list_init(&w->asking);
    w->wake = wake;
    w->arg = arg;
    return 0;
}

void warmup_done(struct warmup *w)
{
    struct map_node *n;
    size_t bucket = 0;

    if (w->streams.buckets == NULL)
        return;
    while ((n = map_walk(&w->streams, &bucket, NULL)) != NULL) {
        struct warmup_stream *s = CONTAINER_OF(n, struct warmup_stream, node);

        map_remove(&w->streams, n);
        free((void *)(uintptr_t)s->policy.steps);
        free(s->source);
        free(s->provider);
        free(s);
    }
    map_done(&w->streams);
    zone_free(w->zone);
    pthread_mutex_destroy(&w->lock);
}

static uint64_t hash_of(struct str source, struct str provider)
{
    return hash_bytes(source.ptr, source.len, hash_bytes(provider.ptr, provider.len, 0));
}

struct warmup_stream *warmup_stream_find(const struct warmup *w, struct str source,
                                         struct str provider)
{
    for (struct map_node *n = map_find(&w->streams, hash_of(source, provider)); n != NULL;
         n = map_find_next(n)) {
        struct warmup_stream *s = CONTAINER_OF(n, struct warmup_stream, node);

        if (str_eq(str_of(s->source), source) && str_eq(str_of(s->provider), provider))
            return s;
    }
    return NULL;
}

/* NULL when memory is out. */
static struct warmup_stream *stream_make(struct warmup *w, struct str source, struct str provider)
{
    struct warmup_stream *s = aligned_alloc(CACHE_LINE_BYTES, sizeof(*s));

    if (s == NULL)
        return NULL;
    memset(s, 0, sizeof(*s));
    s->source = strndup(source.ptr, source.len);
    s->provider = strndup(provider.ptr, provider.len);
    if (s->source == NULL || s->provider == NULL) {
        free(s->source);
        free(s->provider);
        free(s);
        return NULL;
    }
    map_insert(&w->streams, &s->node, hash_of(source, provider));
    return s;
}

/* Whether a is the newer record. A record without a sequence is of a build that knew no sequences
 * and wrote to shard 0 alone. That build ran before those that write sequences, or after them, when
 * somebody went back to it. */
static bool is_newer(const struct warmup_state *a, const struct warmup_state *b)
{
    if (a->sequence != 0 && b->sequence != 0)
        return a->sequence > b->sequence;
    return a->day != b->day ? a->day > b->day : a->used >= b->used;
}

int warmup_restore(struct warmup *w, struct str source, struct str provider, uint32_t shard,
                   const struct warmup_state *state)
{
    struct warmup_stream *s = warmup_stream_find(w, source, provider);
    uint32_t sequence;

    if (s == NULL)
        s = stream_make(w, source, provider);
    if (s == NULL)
        return -ENOMEM;
    if (state == NULL) {
        s->lost = true;
        s->lost_in = shard;
        s->damaged = true;
    } else {
        sequence = state->sequence > s->state.sequence ? state->sequence : s->state.sequence;
        if (!s->begun || is_newer(state, &s->kept))
            s->state = s->kept = *state;
        s->state.sequence = sequence; /* what is written next is newer than all */
    }
    s->begun = !s->lost;
    return 0;
}

/* --- the configuration --- */

static void calendar_set(struct warmup *w, const struct config *c)
{
    struct zone *zone;
    int err = zone_load(str_of(c->warmup.time_zone), &zone);

    if (err < 0) {
        log_error("warmup.zone_failed", "zone=\"%s\" error=\"%s\" action=\"UTC is used\"",
                  c->warmup.time_zone, strerror(-err));
        err = zone_load(STR("UTC"), &zone);
        ASSERT(err == 0);
    }
    zone_free(w->zone);
    w->zone = zone;
    w->calendar = (struct warmup_calendar){
        .zone = zone, .day_hour = c->warmup.day_hour, .quiet_hours = c->warmup.quiet_hours};
    w->hour = (struct warmup_hour){0};
}

/* The hour at wall_ms, under the lock. It is worked out once an hour: to do so at each look cost a
 * worker that has little to do a tenth of its time. */
static const struct warmup_hour *hour_at(struct warmup *w, int64_t wall_ms)
{
    ASSERT(w->configured);
    if (wall_ms < w->hour.begins_ms || wall_ms >= w->hour.ends_ms)
        warmup_hour_at(&w->calendar, wall_ms, &w->hour);
    return &w->hour;
}

/* Under the lock. */
static void ask_locked(struct warmup *w, struct warmup_stream *s, bool rides, uint32_t shard)
{
    bool asked = atomic_exchange(&s->shared.asked, true);

    if (!asked || !rides) { /* the more urgent of two questions decides */
        s->rides = rides;
        s->shard = shard;
    }
    s->looks = false;
    if (asked)
        return;
    ASSERT(!list_node_linked(&s->asking) && list_empty(&w->asking) == (w->asking_len == 0));
    list_push_back(&w->asking, &s->asking);
    w->asking_len++;
    atomic_store(&w->asks, true);
    w->wake(w->arg);
}

static void ask(struct warmup *w, struct warmup_stream *s)
{
    if (atomic_load_explicit(&s->shared.asked, memory_order_relaxed))
        return;
    pthread_mutex_lock(&w->lock);
    ask_locked(w, s, false, 0);
    pthread_mutex_unlock(&w->lock);
}

void warmup_ride(struct warmup *w, struct warmup_stream *s, bool is_sign, uint32_t shard)
{
    if (is_sign && atomic_load(&s->shared.asked))
        atomic_store(&s->shared.missed, shard + 1);
    if (atomic_load(&s->shared.asked))
        return;
    pthread_mutex_lock(&w->lock);
    ask_locked(w, s, true, shard);
    pthread_mutex_unlock(&w->lock);
}

/* A stream of what the file does not name keeps its state, for the file may name it again. */
static void policy_set(struct warmup *w, struct warmup_stream *s, const struct config *c)
{
    struct config_warmup_policy p;
    bool was_configured = s->configured;
    uint32_t *steps;

    s->configured = config_warmup_policy(c, s->source, s->provider, &p);
    if (!s->configured)
        return;
    ASSERT(p.steps_len > 0);
    steps = malloc(p.steps_len * sizeof(*steps));
    ASSERT(steps != NULL);
    memcpy(steps, p.steps, p.steps_len * sizeof(*steps));
    free((void *)(uintptr_t)s->policy.steps);
    s->policy = p;
    s->policy.steps = steps;
    s->policies++;
    if (s->begun) /* the new schedule may have fewer stages than the one that is reached */
        warmup_refit(&s->state, &s->policy);
    /* What is granted may be more than the new caps allow: the keeper looks at it before more is
     * sent. */
    atomic_store_explicit(&s->shared.until_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&s->shared.from_ms, 0, memory_order_relaxed);
    if (was_configured)
        ask_locked(w, s, false, 0);
}

/* Under the lock. */
static void configure(struct warmup *w, const struct config *c)
{
    struct map_node *n = NULL;
    size_t bucket = 0;

    if (w->configured && c->generation <= w->generation)
        return;
    calendar_set(w, c);
    while ((n = map_walk(&w->streams, &bucket, n)) != NULL)
        policy_set(w, CONTAINER_OF(n, struct warmup_stream, node), c);
    w->generation = c->generation;
    w->configured = true;
}

void warmup_configure(struct warmup *w, const struct config *c)
{
    pthread_mutex_lock(&w->lock);
    configure(w, c);
    pthread_mutex_unlock(&w->lock);
}

struct warmup_stream *warmup_stream_of(struct warmup *w, const struct config *c, const char *source,
                                       struct str host)
{
    struct config_warmup_policy policy;
    struct warmup_stream *s;
    const char *provider;

    if (c->warmup.sources_len + c->warmup.signers_len + c->warmup.campaigns_len == 0)
        return NULL;
    provider = config_provider_of(c, host);
    if (!config_warmup_policy(c, source, provider, &policy))
        return NULL;
    pthread_mutex_lock(&w->lock);
    configure(w, c);
    s = warmup_stream_find(w, str_of(source), str_of(provider));
    if (s == NULL) {
        s = stream_make(w, str_of(source), str_of(provider));
        ASSERT(s != NULL);
    }
    /* An old configuration, of a worker that is late or of a site that runs dry, sets nothing: its
     * caps would stay. Such a stream gets no lease until the present configuration asks for it. */
    if (!s->configured && c->generation >= w->generation)
        policy_set(w, s, c);
    pthread_mutex_unlock(&w->lock);
    if (atomic_load(&s->shared.budget) <= 0)
        ask(w, s);
    return s;
}

/* --- taking --- */

/* Who only looks does so at a whole second, as others do: see wheel_look_ms(). */
static uint64_t soon(uint64_t wait_ns, uint64_t now_ns)
{
    return wait_ns < LOOK_NS ? now_ns + wait_ns
                             : wheel_look_ms(now_ns / NS_PER_MS, LOOK_NS / NS_PER_MS) * NS_PER_MS;
}

/* Whether nothing is left, and the keeper is about to answer. */
static bool is_asked(const struct warmup_stream *s)
{
    return atomic_load_explicit(&s->shared.asked, memory_order_relaxed) &&
           atomic_load_explicit(&s->shared.budget, memory_order_relaxed) <= 0;
}

uint64_t warmup_at(const struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns)
{
    int64_t from_ms;
    uint64_t next_ns;

    if (s == NULL || atomic_load_explicit(&s->shared.warm, memory_order_relaxed))
        return 0;
    from_ms = atomic_load_explicit(&s->shared.from_ms, memory_order_relaxed);
    next_ns = atomic_load_explicit(&s->shared.next_ns, memory_order_relaxed);
    if (wall_ms < from_ms)
        return soon((uint64_t)(from_ms - wall_ms) * NS_PER_MS, now_ns);
    if (next_ns > now_ns)
        return soon(next_ns - now_ns, now_ns);
    return is_asked(s) ? now_ns + RETRY_NS : 0;
}

bool warmup_is_leased(const struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns)
{
    return s != NULL && !atomic_load_explicit(&s->shared.warm, memory_order_relaxed) &&
           wall_ms >= atomic_load_explicit(&s->shared.from_ms, memory_order_relaxed) &&
           now_ns >= atomic_load_explicit(&s->shared.next_ns, memory_order_relaxed) && is_asked(s);
}

/* Moves the pace on by one. False: another thread has taken this moment. */
static bool pace_take(struct warmup_stream *s, uint64_t now_ns)
{
    uint64_t interval = atomic_load_explicit(&s->shared.interval_ns, memory_order_relaxed);
    uint64_t next = atomic_load_explicit(&s->shared.next_ns, memory_order_relaxed), from;

    do {
        if (next > now_ns)
            return false;
        from = now_ns - next > SLACK_NS ? now_ns - SLACK_NS : next;
    } while (!atomic_compare_exchange_weak_explicit(&s->shared.next_ns, &next, from + interval,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* Up to want of what is leased for the present hour. Who takes the last asks for more, so that the
 * next one need not wait for the store; where less is leased at once warmup_ride() does. */
static uint32_t budget_take(struct warmup *w, struct warmup_stream *s, int64_t wall_ms,
                            uint32_t want)
{
    int64_t budget = atomic_load(&s->shared.budget), n;

    if (wall_ms >= atomic_load_explicit(&s->shared.until_ms, memory_order_relaxed))
        return 0;
    do {
        if (budget <= 0)
            return 0;
        n = budget < want ? budget : want;
        ASSERT(n > 0 && n <= budget);
    } while (!atomic_compare_exchange_weak(&s->shared.budget, &budget, budget - n));
    if (n == budget && atomic_load_explicit(&s->shared.low, memory_order_relaxed) < 0)
        ask(w, s);
    return (uint32_t)n;
}

void warmup_doubt(struct warmup *w, struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns)
{
    int64_t ahead_ms = wall_ms - (int64_t)(now_ns / NS_PER_MS);

    if (s == NULL || atomic_load_explicit(&s->shared.warm, memory_order_relaxed) ||
        atomic_load_explicit(&s->shared.from_ms, memory_order_relaxed) - wall_ms <= HOUR_MS ||
        llabs(ahead_ms - atomic_load_explicit(&s->shared.doubted_ms, memory_order_relaxed)) <
            JUMP_MS)
        return;
    if (atomic_load_explicit(&s->shared.asked, memory_order_relaxed))
        return; /* the answer under way may be by the old clock: the next look asks again */
    atomic_store_explicit(&s->shared.doubted_ms, ahead_ms, memory_order_relaxed);
    ask(w, s);
}

uint64_t warmup_take(struct warmup *w, struct warmup_stream *s, int64_t wall_ms, uint64_t now_ns)
{
    uint64_t again_ns = warmup_at(s, wall_ms, now_ns);

    if (atomic_load_explicit(&s->shared.warm, memory_order_relaxed)) {
        if (wall_ms >= atomic_load_explicit(&s->shared.until_ms, memory_order_relaxed))
            ask(w, s);
        return 0;
    }
    if (again_ns != 0) {
        warmup_doubt(w, s, wall_ms, now_ns);
        return again_ns;
    }
    if (budget_take(w, s, wall_ms, 1) == 0) {
        ask(w, s);
        return now_ns + RETRY_NS;
    }
    if (pace_take(s, now_ns))
        return 0;
    atomic_fetch_add(&s->shared.budget, 1);
    return atomic_load_explicit(&s->shared.next_ns, memory_order_relaxed);
}

uint32_t warmup_more(struct warmup *w, struct warmup_stream *s, int64_t wall_ms, uint32_t want)
{
    uint64_t interval;
    uint32_t n;

    if (s == NULL || want == 0 || atomic_load_explicit(&s->shared.warm, memory_order_relaxed))
        return want;
    n = budget_take(w, s, wall_ms, want);
    interval = atomic_load_explicit(&s->shared.interval_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->shared.next_ns, interval * n, memory_order_relaxed);
    return n;
}

uint32_t warmup_set_more(struct warmup *w, const struct warmup_set *set, int64_t wall_ms,
                         uint32_t want)
{
    for (int i = 0; i < WARMUP_SET_LEN; i++) {
        uint32_t n = warmup_more(w, set->of[i], wall_ms, want);

        for (int j = 0; j < i; j++)
            warmup_give(set->of[j], wall_ms, want - n);
        want = n;
    }
    return want;
}

void warmup_give(struct warmup_stream *s, int64_t taken_ms, uint32_t n)
{
    uint64_t back, next;
    int64_t until_ms;

    if (s == NULL || n == 0 || atomic_load_explicit(&s->shared.warm, memory_order_relaxed))
        return;
    until_ms = atomic_load_explicit(&s->shared.until_ms, memory_order_relaxed);
    if (taken_ms < until_ms - HOUR_MS || taken_ms >= until_ms)
        return;
    atomic_fetch_add(&s->shared.budget, n);
    back = n * atomic_load_explicit(&s->shared.interval_ns, memory_order_relaxed);
    next = atomic_load_explicit(&s->shared.next_ns, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&s->shared.next_ns, &next,
                                                  next > back ? next - back : 0,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

/* --- the keeper --- */

static void gather_answers(struct warmup_stream *s)
{
    for (int i = 0; i < WARMUP_EVENTS; i++)
        s->state.events[i] +=
            atomic_exchange_explicit(&s->shared.events[i], 0, memory_order_relaxed);
}

/* What shared has gathered goes into the state. */
static void stream_gather(struct warmup_stream *s)
{
    int64_t left = atomic_exchange(&s->shared.budget, 0);

    if (left > 0)
        warmup_unlease(&s->state, left < UINT32_MAX ? (uint32_t)left : UINT32_MAX);
    gather_answers(s);
}

/* Whether the record that the store has still does when the state is *to. */
static bool is_kept(const struct warmup_state *kept, const struct warmup_state *to)
{
    return kept->stage == to->stage && kept->warm == to->warm && kept->day == to->day &&
           kept->mail == to->mail && kept->used >= to->used;
}

/* Whether there are answers that the store has not. */
static bool has_news(const struct warmup_state *kept, const struct warmup_state *to)
{
    return memcmp(kept->events, to->events, sizeof(to->events)) != 0;
}

static void stream_begin(struct warmup_stream *s, const struct warmup_hour *now)
{
    uint32_t sequence = s->state.sequence;

    warmup_begin(&s->state, &s->policy, now);
    s->state.sequence = sequence;
    if (s->lost && !s->state.warm)
        s->state.used = warmup_cap(&s->policy, &s->state);
    s->begun = true;
    s->lost = false;
    s->unsaved = true;
}

static bool is_small(const struct warmup_stream *s)
{
    return !s->state.warm && warmup_part(&s->policy, &s->state) < WARMUP_PART;
}

/* Under a small cap a lease is not stored at once but with the next mail that is settled: then a
 * whole part is leased, or that of a later hour. Until then the lease is what the store's record
 * allows already, if that is more than was used. */
static void stream_lease(struct warmup_stream *s, struct warmup_put *put)
{
    uint32_t kept = s->kept.day == s->state.day && s->kept.used > s->state.used
                        ? s->kept.used - s->state.used
                        : 0;

    put->granted = warmup_lease(&s->state, &s->policy, &put->now);
    if (!is_small(s))
        return;
    if (!put->rides && kept > 0 && put->granted > kept) {
        warmup_unlease(&s->state, put->granted - kept);
        put->granted = kept;
    }
    if (put->rides && put->granted == 0) {
        uint32_t cap = warmup_cap(&s->policy, &s->state), part = warmup_part(&s->policy, &s->state);
        uint32_t left = s->state.used < cap ? cap - s->state.used : 0; /* a reload lowers caps */

        put->ahead = left < part ? left : part;
    }
}

/* Whether the stream asks only to store answers, which may hold the stage of a large cap, amid a
 * lease. */
static bool tells_answers(const struct warmup_stream *s, const struct warmup_hour *now)
{
    return s->rides && !is_small(s) && !s->unsaved && now->day == s->state.day &&
           s->kept.day == s->state.day &&
           atomic_load_explicit(&s->shared.budget, memory_order_relaxed) > 0;
}

/* The store hears of the answers, and of nothing else. */
static void stream_tell(struct warmup_stream *s, struct warmup_put *put)
{
    gather_answers(s);
    put->rides = put->answers = true;
    put->shard = s->shard;
    put->state = s->kept;
    memcpy(put->state.events, s->state.events, sizeof(put->state.events));
    put->store = has_news(&s->kept, &put->state);
    if (put->store)
        put->state.sequence = ++s->state.sequence;
}

static void stream_turn(struct warmup *w, struct warmup_stream *s, int64_t wall_ms,
                        struct warmup_put *put)
{
    struct warmup_state stored;

    ASSERT(atomic_load(&s->shared.asked)); /* until warmup_granted() */
    *put = (struct warmup_put){.stream = s, .policies = s->policies};
    if (!s->configured || (w->ended && !s->begun))
        return;
    ASSERT(s->policy.steps_len > 0 && w->configured);
    atomic_store(&s->shared.missed, 0);
    put->now = *hour_at(w, wall_ms);
    if (!s->begun)
        stream_begin(s, &put->now);
    if (tells_answers(s, &put->now)) {
        stream_tell(s, put);
        return;
    }
    stream_gather(s);
    put->ended = warmup_turn(&s->state, &s->policy, &put->now, &put->past);
    put->rides = s->rides && !put->ended && !s->unsaved && s->state.day == s->kept.day;
    if (put->rides)
        put->shard = s->shard;
    else if (s->damaged && !put->ended) /* that record is to go */
        put->shard = s->lost_in;
    put->looks = s->looks || w->ended;
    if (!put->looks)
        stream_lease(s, put);
    put->state = s->state;
    put->cap = warmup_cap(&s->policy, &s->state);
    stored = warmup_put_stored(put);
    put->store = s->unsaved || put->ended || !is_kept(&s->kept, &stored) ||
                 (put->rides && has_news(&s->kept, &stored)) ||
                 (w->ended && (s->kept.used != stored.used || has_news(&s->kept, &stored)));
    if (put->store)
        put->state.sequence = ++s->state.sequence;
    s->unsaved = false;
}

struct warmup_state warmup_put_stored(const struct warmup_put *put)
{
    struct warmup_state state = put->state;

    state.used += put->ahead;
    return state;
}

bool warmup_next(struct warmup *w, int64_t wall_ms, struct warmup_put *put)
{
    struct list_node *n;

    pthread_mutex_lock(&w->lock);
    n = list_pop_front(&w->asking);
    atomic_store(&w->asks, !list_empty(&w->asking));
    ASSERT((n == NULL) == (w->asking_len == 0));
    if (n != NULL) {
        w->asking_len--;
        stream_turn(w, LIST_ENTRY(n, struct warmup_stream, asking), wall_ms, put);
    }
    pthread_mutex_unlock(&w->lock);
    return n != NULL;
}

void warmup_look(struct warmup *w, int64_t wall_ms)
{
    struct map_node *n = NULL;
    size_t bucket = 0;
    int32_t today;

    pthread_mutex_lock(&w->lock);
    if (w->configured && (today = hour_at(w, wall_ms)->day) != w->looked) {
        w->looked = today;
        while ((n = map_walk(&w->streams, &bucket, n)) != NULL) {
            struct warmup_stream *s = CONTAINER_OF(n, struct warmup_stream, node);

            bool asked = atomic_load(&s->shared.asked);

            if (!s->configured || !s->begun || s->state.used == 0 || s->state.day >= today)
                continue;
            ask_locked(w, s, false, 0);
            s->looks = !asked;
        }
    }
    pthread_mutex_unlock(&w->lock);
}

void warmup_end(struct warmup *w)
{
    struct map_node *n = NULL;
    size_t bucket = 0;

    pthread_mutex_lock(&w->lock);
    w->ended = true;
    while ((n = map_walk(&w->streams, &bucket, n)) != NULL) {
        struct warmup_stream *s = CONTAINER_OF(n, struct warmup_stream, node);

        if (s->configured && s->begun)
            ask_locked(w, s, false, 0);
    }
    pthread_mutex_unlock(&w->lock);
}

size_t warmup_asking(struct warmup *w)
{
    size_t len;

    pthread_mutex_lock(&w->lock);
    len = w->asking_len;
    pthread_mutex_unlock(&w->lock);
    return len;
}

/* Of the new interval as large a part is waited for as is left of the old one. */
static void pace_set(struct warmup_stream *s, uint64_t interval_ns, uint64_t now_ns)
{
    uint64_t old_ns =
        atomic_exchange_explicit(&s->shared.interval_ns, interval_ns, memory_order_relaxed);
    uint64_t next = atomic_load_explicit(&s->shared.next_ns, memory_order_relaxed), to;

    if (old_ns == 0 || old_ns == interval_ns)
        return;
    do {
        if (next <= now_ns)
            return;
        to = now_ns + (uint64_t)((double)(next - now_ns) / (double)old_ns * (double)interval_ns);
    } while (!atomic_compare_exchange_weak_explicit(&s->shared.next_ns, &next, to,
                                                    memory_order_relaxed, memory_order_relaxed));
}

static void stream_grant(struct warmup *w, struct warmup_stream *s, const struct warmup_put *put,
                         uint64_t now_ns)
{
    int64_t from_ms = put->now.begins_ms + s->policy.top_of_hour_s * INT64_C(1000);
    int64_t until_ms = put->now.ends_ms, window_ms = until_ms - from_ms;
    int64_t minute_ms = (put->now.day_ends_ms - put->now.day_begins_ms) / MINUTES;
    uint32_t share = warmup_share(&put->state, &s->policy, &put->now);

    if (put->answers)
        return;
    if (put->state.warm) {
        until_ms = put->now.day_ends_ms;
    } else if (put->looks) {
        from_ms = until_ms = 0; /* who has mail asks */
    } else if (put->granted == 0) {
        from_ms = warmup_opens_ms(w, s, &put->state, &put->now);
    } else {
        if (window_ms < minute_ms) /* of an hour that a change of clocks cuts short */
            window_ms = minute_ms;
        pace_set(s, (uint64_t)window_ms * NS_PER_MS / (share > 0 ? share : 1), now_ns);
        atomic_fetch_add(&s->shared.budget, put->granted);
    }
    atomic_store_explicit(&s->shared.low,
                          is_small(s) ? (int64_t)(warmup_part(&s->policy, &s->state) / 2) : -1,
                          memory_order_relaxed);
    atomic_store_explicit(&s->shared.warm, put->state.warm, memory_order_relaxed);
    atomic_store_explicit(&s->shared.until_ms, until_ms, memory_order_relaxed);
    atomic_store_explicit(&s->shared.from_ms, from_ms, memory_order_relaxed);
}

void warmup_granted(struct warmup *w, const struct warmup_put *put, bool stored, uint64_t now_ns)
{
    struct warmup_stream *s = put->stream;
    uint32_t missed;
    bool is_of_old;

    pthread_mutex_lock(&w->lock);
    ASSERT(atomic_load(&s->shared.asked) && !list_node_linked(&s->asking));
    ASSERT(put->policies <= s->policies);
    if (stored && put->store) {
        s->kept = warmup_put_stored(put);
        s->damaged = s->damaged && put->shard != s->lost_in;
    }
    is_of_old = put->policies != s->policies; /* the caps have changed meanwhile */
    if (s->configured && stored && !is_of_old)
        stream_grant(w, s, put, now_ns);
    else if (put->granted != WARMUP_NO_CAP)
        warmup_unlease(&s->state, put->granted);
    atomic_store(&s->shared.asked, false);
    missed = atomic_exchange(&s->shared.missed, 0);
    s->unsaved = s->unsaved || !stored;
    if (!stored) /* nothing was granted: whoever waits for the stream asks again */
        atomic_store_explicit(&s->shared.doubted_ms, 0, memory_order_relaxed);
    if (is_of_old)
        ask_locked(w, s, false, 0);
    else if (missed != 0 && stored)
        ask_locked(w, s, true, missed - 1);
    pthread_mutex_unlock(&w->lock);
}

/* --- what the operator says --- */

static int stream_order(struct warmup *w, struct warmup_stream *s, int64_t wall_ms,
                        const struct warmup_order *order)
{
    struct warmup_hour now;

    warmup_hour_at(&w->calendar, wall_ms, &now);
    if (order->kind == WARMUP_STAGE && order->number > s->policy.steps_len + 1)
        return -ERANGE;
    if (!s->begun)
        stream_begin(s, &now);
    switch (order->kind) {
    case WARMUP_START:
        warmup_set_stage(&s->state, &s->policy, 0, now.day);
        s->state.paused = false;
        break;
    case WARMUP_PAUSE:
    case WARMUP_RESUME:
        s->state.paused = order->kind == WARMUP_PAUSE;
        break;
    case WARMUP_STAGE:
        warmup_set_stage(&s->state, &s->policy, order->number - 1, now.day);
        break;
    case WARMUP_COMPLAINTS:
        s->state.events[WARMUP_EVENT_COMPLAINED] += order->number;
        break;
    }
    s->unsaved = true;
    ask_locked(w, s, false, 0);
    return 0;
}

static bool is_meant(const struct warmup_stream *s, const struct warmup_order *order)
{
    return s->configured && strcmp(s->source, order->source) == 0 &&
           (*order->provider == 0 || strcmp(s->provider, order->provider) == 0);
}

int warmup_order(struct warmup *w, int64_t wall_ms, const struct warmup_order *order)
{
    struct map_node *n = NULL;
    size_t bucket = 0;
    int err = -ENOENT;

    pthread_mutex_lock(&w->lock);
    while ((err == 0 || err == -ENOENT) && (n = map_walk(&w->streams, &bucket, n)) != NULL) {
        struct warmup_stream *s = CONTAINER_OF(n, struct warmup_stream, node);

        if (is_meant(s, order))
            err = stream_order(w, s, wall_ms, order);
    }
    pthread_mutex_unlock(&w->lock);
    return err;
}

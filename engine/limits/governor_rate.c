/* The governor's rates: leave for messages, recipients, bytes and connections, and who may have the
 * next leave. */
#include "limits/governor_private.h"

#define SLACK_NS         UINT64_C(10000000) /* of rates whose interval is shorter */
#define CLAIM_APART_NS   (2 * NS_PER_MS)    /* rates that let messages go faster know no claims */
#define CLAIM_MIN_MS     5
#define CLAIM_MAX_MS     50
#define CLAIM_PRIORITY   0xf /* of governor_entry.shared.claim */
#define CLAIM_WHO_SHIFT  4
#define CLAIM_TIME_SHIFT 20
#define LINE_LOOKS       16              /* for a message that may go */
#define LINE_APART_NS    UINT64_C(50000) /* between two of them, at least */

/* For so long time is kept that was not used. A worker's clock is sampled once a turn: without
 * slack, turns would eat up to a turn's length of every interval. */
static uint64_t kept_ns(uint64_t interval, uint64_t burst_ns)
{
    uint64_t slack_ns = interval < SLACK_NS        ? SLACK_NS
                        : interval < 10 * SLACK_NS ? SLACK_NS / 5
                                                   : 0;

    return burst_ns > slack_ns ? burst_ns : slack_ns;
}

/* Not earlier than next, and no earlier than what is kept lets it. */
static uint64_t rate_from(uint64_t next, uint64_t now_ns, uint64_t kept)
{
    return next < now_ns && now_ns - next > kept ? now_ns - kept : next;
}

/* cost_ns: how long what goes takes at the rate. */
static uint64_t rate_take(uint64_t interval, uint64_t burst_ns, _Atomic uint64_t *next_ns,
                          uint64_t now_ns, uint64_t cost_ns)
{
    uint64_t next, kept = kept_ns(interval, burst_ns);

    if (interval == 0)
        return 0;
    next = atomic_load(next_ns);
    do {
        if (next > now_ns)
            return next;
    } while (
        !atomic_compare_exchange_weak(next_ns, &next, rate_from(next, now_ns, kept) + cost_ns));
    return 0;
}

static void rate_give(uint64_t interval, uint64_t burst_ns, _Atomic uint64_t *next_ns,
                      uint64_t now_ns, uint64_t taken)
{
    uint64_t kept = kept_ns(interval, burst_ns);
    uint64_t next = atomic_load(next_ns), back;

    do {
        back = rate_from(next - (taken < next ? taken : next), now_ns, kept);
    } while (back < next && !atomic_compare_exchange_weak(next_ns, &next, back));
}

/* None while the rate is lowered. */
static uint64_t message_burst(const struct governor_entry *e, uint64_t now_ns)
{
    return governor_interval_at(e, now_ns) > governor_interval(e, GOVERNOR_MESSAGES)
               ? 0
               : atomic_load_explicit(&e->rates[GOVERNOR_MESSAGES].burst_ns, memory_order_relaxed);
}

static uint64_t connect_interval(const struct governor_entry *e)
{
    return atomic_load_explicit(&e->connect_interval_ns, memory_order_relaxed);
}

static uint64_t connect_burst(const struct governor_entry *e)
{
    return atomic_load_explicit(&e->connect_burst_ns, memory_order_relaxed);
}

/* A rate as it is in force. */
struct rate_now {
    uint64_t interval, burst_ns;
};

static struct rate_now rate_now(const struct governor_entry *e, enum governor_counts which,
                                uint64_t now_ns)
{
    if (which == GOVERNOR_MESSAGES)
        return (struct rate_now){governor_interval_at(e, now_ns), message_burst(e, now_ns)};
    return (struct rate_now){governor_interval(e, which),
                             atomic_load_explicit(&e->rates[which].burst_ns, memory_order_relaxed)};
}

static uint64_t count_of(const struct governor_load *load, enum governor_counts which)
{
    return which == GOVERNOR_BYTES        ? load->bytes
           : which == GOVERNOR_RECIPIENTS ? load->recipients
                                          : 1;
}

/* Gives back what was taken of the first len rates. */
static void rates_give(struct governor_entry *e, size_t len, uint64_t now_ns,
                       const struct governor_load *load, uint64_t ago_ns)
{
    ASSERT(len <= GOVERNOR_COUNTS);
    for (enum governor_counts i = 0; i < len; i++) {
        struct rate_now rate = rate_now(e, i, now_ns);
        uint64_t cost_ns = governor_cost(i, rate.interval, count_of(load, i));

        if (cost_ns > ago_ns)
            rate_give(rate.interval, rate.burst_ns, &e->shared.next_ns[i], now_ns,
                      cost_ns - ago_ns);
    }
}

/* How long what is claimed waits for who claims it, behind the rate. */
static uint64_t claim_grace_ms(const struct governor_entry *e, uint64_t now_ns)
{
    uint64_t grace_ms = governor_apart_ns(e, now_ns) / NS_PER_MS / 4;

    return grace_ms < CLAIM_MIN_MS   ? CLAIM_MIN_MS
           : grace_ms < CLAIM_MAX_MS ? grace_ms
                                     : CLAIM_MAX_MS;
}

static uint64_t claim_of(uint64_t until_ms, uint16_t who, uint8_t priority)
{
    return until_ms << CLAIM_TIME_SHIFT | (uint64_t)who << CLAIM_WHO_SHIFT | priority;
}

void governor_claim(struct governor_entry *e, uint16_t who, uint8_t priority, uint64_t now_ns)
{
    uint64_t at_ns = governor_message_at(e, now_ns, NULL), now_ms = now_ns / NS_PER_MS, claim, mine;

    ASSERT(priority < 1u << CLAIM_WHO_SHIFT);
    if (governor_apart_ns(e, now_ns) < CLAIM_APART_NS)
        return; /* the next one goes soon, whoever it is */
    at_ns = at_ns > now_ns ? at_ns : now_ns;
    mine = claim_of(at_ns / NS_PER_MS + 1 + claim_grace_ms(e, now_ns), who, priority);
    claim = atomic_load_explicit(&e->shared.claim, memory_order_relaxed);
    do {
        uint64_t until_ms = claim >> CLAIM_TIME_SHIFT, other = claim & CLAIM_PRIORITY;

        if (until_ms >= now_ms &&
            (other < priority || (other == priority && until_ms >= mine >> CLAIM_TIME_SHIFT)))
            return;
    } while (!atomic_compare_exchange_weak_explicit(&e->shared.claim, &claim, mine,
                                                    memory_order_relaxed, memory_order_relaxed));
}

/* Until when what e gives is somebody else's, whose mail comes before that of load; 0: it is not.
 * Leave may be there before it was claimed for, by a rate that was raised or as some came back: who
 * claims may be gone, and has so long from then on. */
static uint64_t claimed_until_ns(const struct governor_entry *e, const struct governor_load *load,
                                 uint64_t now_ns)
{
    uint64_t claim = atomic_load_explicit(&e->shared.claim, memory_order_relaxed);
    uint64_t until_ns = (claim >> CLAIM_TIME_SHIFT) * NS_PER_MS, over_ns;

    if ((claim & CLAIM_PRIORITY) >= load->priority || until_ns <= now_ns ||
        (uint16_t)(claim >> CLAIM_WHO_SHIFT) == load->who)
        return 0;
    over_ns = governor_message_at(e, now_ns, NULL) + (1 + claim_grace_ms(e, now_ns)) * NS_PER_MS;
    if (over_ns <= now_ns)
        return 0;
    return over_ns < until_ns ? over_ns : until_ns;
}

/* Who had a claim has taken what it was for, or somebody of such a priority has. */
static void claim_ends(struct governor_entry *e, const struct governor_load *load)
{
    uint64_t claim = atomic_load_explicit(&e->shared.claim, memory_order_relaxed);

    if (claim != 0 && (uint16_t)(claim >> CLAIM_WHO_SHIFT) == load->who)
        (void)atomic_compare_exchange_strong(&e->shared.claim, &claim, 0);
}

uint64_t governor_message_take(struct governor_entry *e, uint64_t now_ns,
                               const struct governor_load *load, enum governor_counts *by)
{
    uint64_t claimed_ns = claimed_until_ns(e, load, now_ns);

    ASSERT(load->recipients > 0);
    if (claimed_ns != 0) {
        (void)governor_message_at(e, now_ns, by);
        return claimed_ns;
    }
    for (enum governor_counts i = 0; i < GOVERNOR_COUNTS; i++) {
        struct rate_now rate = rate_now(e, i, now_ns);
        uint64_t cost_ns = governor_cost(i, rate.interval, count_of(load, i));
        uint64_t until_ns =
            rate_take(rate.interval, rate.burst_ns, &e->shared.next_ns[i], now_ns, cost_ns);

        if (until_ns != 0) {
            rates_give(e, i, now_ns, load, 0);
            *by = i;
            return until_ns;
        }
        if (i == GOVERNOR_BYTES && rate.interval != 0)
            atomic_store_explicit(&e->shared.bytes_ns, cost_ns, memory_order_relaxed);
    }
    claim_ends(e, load);
    return 0;
}

void governor_message_give(struct governor_entry *e, uint64_t now_ns,
                           const struct governor_load *load, uint64_t ago_ns)
{
    rates_give(e, GOVERNOR_COUNTS, now_ns, load, ago_ns);
}

uint32_t governor_recipients_more(struct governor_entry *e, uint64_t now_ns, uint32_t want)
{
    _Atomic uint64_t *at_ns = &e->shared.next_ns[GOVERNOR_RECIPIENTS];
    struct rate_now rate = rate_now(e, GOVERNOR_RECIPIENTS, now_ns);
    uint64_t kept = kept_ns(rate.interval, rate.burst_ns), next, from, n;

    if (rate.interval == 0)
        return want;
    next = atomic_load(at_ns);
    do {
        from = rate_from(next, now_ns, kept);
        if (from > now_ns)
            return 0;
        n = (now_ns - from) / rate.interval + 1;
        n = n < want ? n : want;
        ASSERT(n <= want);
    } while (!atomic_compare_exchange_weak(at_ns, &next, from + n * rate.interval));
    return (uint32_t)n;
}

void governor_recipients_give(struct governor_entry *e, uint64_t now_ns, uint32_t n)
{
    struct rate_now rate = rate_now(e, GOVERNOR_RECIPIENTS, now_ns);

    rate_give(rate.interval, rate.burst_ns, &e->shared.next_ns[GOVERNOR_RECIPIENTS], now_ns,
              governor_cost(GOVERNOR_RECIPIENTS, rate.interval, n));
}

/* The next one waits for what further ones take. */
static void rate_more(uint64_t interval, uint64_t burst_ns, _Atomic uint64_t *next_ns,
                      uint64_t now_ns, uint64_t cost_ns)
{
    uint64_t next = atomic_load(next_ns);

    while (interval != 0 &&
           !atomic_compare_exchange_weak(
               next_ns, &next, rate_from(next, now_ns, kept_ns(interval, burst_ns)) + cost_ns))
        ;
}

void governor_bytes_more(struct governor_entry *e, uint64_t now_ns, int64_t bytes)
{
    struct rate_now rate = rate_now(e, GOVERNOR_BYTES, now_ns);

    if (bytes > 0)
        rate_more(rate.interval, rate.burst_ns, &e->shared.next_ns[GOVERNOR_BYTES], now_ns,
                  governor_cost(GOVERNOR_BYTES, rate.interval, (uint64_t)bytes));
    else if (bytes < 0)
        rate_give(rate.interval, rate.burst_ns, &e->shared.next_ns[GOVERNOR_BYTES], now_ns,
                  governor_cost(GOVERNOR_BYTES, rate.interval, (uint64_t)-bytes));
}

uint64_t governor_connect_take(struct governor_entry *e, uint64_t now_ns)
{
    return rate_take(connect_interval(e), connect_burst(e), &e->shared.connect_next_ns, now_ns,
                     connect_interval(e));
}

void governor_connect_give(struct governor_entry *e, uint64_t now_ns)
{
    rate_give(connect_interval(e), connect_burst(e), &e->shared.connect_next_ns, now_ns,
              connect_interval(e));
}

void governor_connect_more(struct governor_entry *e, uint64_t now_ns)
{
    rate_more(connect_interval(e), connect_burst(e), &e->shared.connect_next_ns, now_ns,
              connect_interval(e));
}

uint64_t governor_connect_at(const struct governor_entry *e)
{
    return connect_interval(e) == 0 ? 0 : atomic_load(&e->shared.connect_next_ns);
}

uint64_t governor_apart_ns(const struct governor_entry *e, uint64_t now_ns)
{
    uint64_t apart = governor_interval_at(e, now_ns),
             recipients = governor_interval(e, GOVERNOR_RECIPIENTS);
    uint64_t bytes = governor_interval(e, GOVERNOR_BYTES) == 0
                         ? 0
                         : atomic_load_explicit(&e->shared.bytes_ns, memory_order_relaxed);

    apart = recipients > apart ? recipients : apart;
    return bytes > apart ? bytes : apart;
}

uint64_t governor_try(struct governor_entry *e, uint64_t now_ns)
{
    uint64_t interval = governor_apart_ns(e, now_ns) / GOVERNOR_OPENS, ahead_ns;

    ahead_ns = message_burst(e, now_ns);
    return rate_take(interval, ahead_ns < NS_PER_S ? NS_PER_S : ahead_ns, &e->shared.try_ns, now_ns,
                     interval);
}

uint64_t governor_line(struct governor_entry *e, uint64_t now_ns)
{
    uint64_t apart_ns = governor_apart_ns(e, now_ns) / LINE_LOOKS, next, at_ns;

    if (apart_ns < LINE_APART_NS)
        apart_ns = LINE_APART_NS;
    next = atomic_load_explicit(&e->shared.line_ns, memory_order_relaxed);
    do {
        at_ns = next > now_ns ? next : now_ns;
        if (at_ns > now_ns + NS_PER_S)
            return now_ns + NS_PER_S;
    } while (!atomic_compare_exchange_weak_explicit(&e->shared.line_ns, &next, at_ns + apart_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    return at_ns;
}

uint64_t governor_open_next(const struct governor_entry *e, uint64_t next_ns, uint64_t now_ns)
{
    uint64_t interval = governor_apart_ns(e, now_ns), ahead_ns = message_burst(e, now_ns);

    if (interval == 0)
        return 0;
    if (ahead_ns < NS_PER_S)
        ahead_ns = NS_PER_S;
    return rate_from(next_ns, now_ns, ahead_ns) + interval / GOVERNOR_OPENS;
}

bool governor_rate(const struct governor_entry *e, uint64_t now_ns, enum governor_counts which,
                   uint64_t *count, uint32_t *period_ms)
{
    struct governor_cap cap;

    *count = atomic_load_explicit(&e->rates[which].count, memory_order_relaxed);
    *period_ms = atomic_load_explicit(&e->rates[which].period_ms, memory_order_relaxed);
    if (which != GOVERNOR_MESSAGES ||
        governor_interval_at(e, now_ns) <= governor_interval(e, which) ||
        !governor_capped(e, now_ns, &cap))
        return false;
    *count = cap.rate_messages;
    *period_ms = cap.rate_period_ms;
    return true;
}

uint64_t governor_message_at(const struct governor_entry *e, uint64_t now_ns,
                             enum governor_counts *by)
{
    uint64_t at_ns = 0;

    for (enum governor_counts i = 0; i < GOVERNOR_COUNTS; i++) {
        uint64_t interval =
            i == GOVERNOR_MESSAGES ? governor_interval_at(e, now_ns) : governor_interval(e, i);
        uint64_t one_ns = interval == 0 ? 0 : atomic_load(&e->shared.next_ns[i]);

        if (one_ns <= at_ns)
            continue;
        at_ns = one_ns;
        if (by != NULL)
            *by = i;
    }
    return at_ns;
}

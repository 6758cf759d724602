#include "limits/limit.h"

#include <errno.h>

const char *limit_name(enum limit_kind kind)
{
    static const char *const names[LIMIT_KINDS] = {[LIMIT_NONE] = "none",
                                                   [LIMIT_RATE] = "rate",
                                                   [LIMIT_TOTAL_RATE] = "total_rate",
                                                   [LIMIT_SOURCE] = "source_rate",
                                                   [LIMIT_WARMUP] = "warmup",
                                                   [LIMIT_CONNECTS] = "connect_rate"};

    ASSERT(kind < LIMIT_KINDS);
    return names[kind];
}

const char *limit_sessions_key(enum limit_kind kind)
{
    return kind == LIMIT_TOTAL_RATE ? "total_sessions_max"
           : kind == LIMIT_SOURCE   ? "source_sessions_max"
                                    : "sessions_max";
}

void limit_rate_denial(const struct limit *by, uint64_t now_ns, uint64_t until_ns,
                       struct limit_denial *why)
{
    ASSERT(by->kind > LIMIT_NONE && by->kind < LIMIT_KINDS && until_ns > 0);
    *why = (struct limit_denial){
        .kind = by->kind, .dest = by->dest, .source = by->source, .until_ns = until_ns};
    why->by_peer = governor_rate(by->entry, now_ns, &why->max, &why->period_ms);
}

int limits_take(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t n,
                struct limit_denial *why)
{
    ASSERT(n > 0);
    for (size_t i = 0; i < len; i++) {
        uint64_t until_ns =
            limits[i].entry == NULL ? 0 : governor_message_take(limits[i].entry, now_ns, n);

        if (until_ns == 0)
            continue;
        limit_rate_denial(&limits[i], now_ns, until_ns, why);
        limits_give(limits, i, now_ns, n);
        return -EAGAIN;
    }
    return 0;
}

void limits_give(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t n)
{
    for (size_t i = 0; i < len; i++)
        if (limits[i].entry != NULL)
            governor_message_give(limits[i].entry, now_ns, n);
}

int limits_connect(const struct limit *limits, size_t len, uint64_t now_ns)
{
    for (size_t i = 0; i < len; i++) {
        if (limits[i].entry == NULL || governor_connect_take(limits[i].entry, now_ns) == 0)
            continue;
        limits_unconnect(limits, i, now_ns);
        return -EAGAIN;
    }
    return 0;
}

void limits_unconnect(const struct limit *limits, size_t len, uint64_t now_ns)
{
    for (size_t i = 0; i < len; i++)
        if (limits[i].entry != NULL)
            governor_connect_give(limits[i].entry, now_ns);
}

void limits_connect_more(const struct limit *limits, size_t len, uint64_t now_ns)
{
    for (size_t i = 0; i < len; i++)
        if (limits[i].entry != NULL)
            governor_connect_more(limits[i].entry, now_ns);
}

uint64_t limits_connect_at(const struct limit *limits, size_t len)
{
    uint64_t at_ns = 0;

    for (size_t i = 0; i < len; i++) {
        uint64_t one_ns = limits[i].entry == NULL ? 0 : governor_connect_at(limits[i].entry);

        at_ns = one_ns > at_ns ? one_ns : at_ns;
    }
    return at_ns;
}

int limits_ask(const struct limit *limits, size_t len, uint64_t now_ns, struct limit_denial *why)
{
    int err = 0;

    for (size_t i = 0; i < len; i++) {
        uint64_t until_ns =
            limits[i].entry == NULL ? 0 : governor_message_at(limits[i].entry, now_ns);

        if (until_ns <= now_ns || (err != 0 && until_ns <= why->until_ns))
            continue;
        limit_rate_denial(&limits[i], now_ns, until_ns, why);
        err = -EAGAIN;
    }
    return err;
}

void limit_sessions_denial(const struct limit *by, uint64_t now_ns, struct limit_denial *why)
{
    *why = (struct limit_denial){.kind = by->kind,
                                 .dest = by->dest,
                                 .source = by->source,
                                 .by_peer = governor_is_lowered(by->entry, now_ns),
                                 .of_sessions = true};
    governor_sessions(by->entry, now_ns, &why->used, &why->max);
}

const char *limit_denial_key(const struct limit_denial *why)
{
    return why->of_sessions ? limit_sessions_key(why->kind) : limit_name(why->kind);
}

#include "limits/limit.h"

#include <errno.h>

const char *limit_name(enum limit_kind kind, enum governor_counts counts)
{
    static const char *const names[LIMIT_KINDS][GOVERNOR_WAITS] = {
        [LIMIT_NONE] = {"none", "none", "none", "none", "none"},
        [LIMIT_RATE] = {"rate", "recipient_rate", "byte_rate", "connect_rate", "sessions_max"},
        [LIMIT_TOTAL_RATE] = {"total_rate", "total_recipient_rate", "total_byte_rate",
                              "total_connect_rate", "total_sessions_max"},
        [LIMIT_SOURCE] = {"source_rate", "source_recipient_rate", "source_byte_rate",
                          "source_connect_rate", "source_sessions_max"},
        [LIMIT_BULK] = {"urgent_sessions", "urgent_sessions", "urgent_sessions", "urgent_sessions",
                        "urgent_sessions"},
        [LIMIT_HOST] = {"host_rate", "host_recipient_rate", "host_byte_rate", "host_connect_rate",
                        "host_sessions_max"},
        [LIMIT_TENANT] = {"tenant_rate", "tenant_recipient_rate", "tenant_byte_rate",
                          "tenant_connect_rate", "tenant_sessions_max"},
        [LIMIT_CAMPAIGN] = {"campaign_rate", "campaign_recipient_rate", "campaign_byte_rate",
                            "campaign_connect_rate", "campaign_sessions_max"},
        [LIMIT_CAMPAIGN_TOTAL] = {"campaign_total_rate", "campaign_total_rate",
                                  "campaign_total_rate", "campaign_total_rate",
                                  "campaign_total_rate"},
        [LIMIT_WARMUP] = {"warmup", "warmup", "warmup", "warmup", "warmup"},
        [LIMIT_LOWERED_CAMPAIGN] = {"campaign_rate", "campaign_rate", "campaign_rate",
                                    "campaign_rate", "campaign_sessions_max"},
        [LIMIT_LOWERED_TENANT] = {"tenant_rate", "tenant_rate", "tenant_rate", "tenant_rate",
                                  "tenant_sessions_max"},
        [LIMIT_LOWERED_SIGNER] = {"signing_domain_rate", "signing_domain_rate",
                                  "signing_domain_rate", "signing_domain_rate",
                                  "signing_domain_sessions_max"},
        [LIMIT_LOWERED_ENVELOPE] = {"envelope_domain_rate", "envelope_domain_rate",
                                    "envelope_domain_rate", "envelope_domain_rate",
                                    "envelope_domain_sessions_max"}};

    ASSERT(kind < LIMIT_KINDS && counts < GOVERNOR_WAITS);
    return names[kind][counts];
}

void limit_rate_denial(const struct limit *by, enum governor_counts counts, uint64_t now_ns,
                       uint64_t until_ns, struct limit_denial *why)
{
    ASSERT(by->kind > LIMIT_NONE && by->kind < LIMIT_KINDS && until_ns > 0);
    ASSERT(by->entry != NULL && counts < GOVERNOR_COUNTS);
    *why = (struct limit_denial){.kind = by->kind,
                                 .dest = by->dest,
                                 .source = by->source,
                                 .share = by->share,
                                 .at = by->at,
                                 .lowered = by->lowered,
                                 .entry = by->entry,
                                 .counts = counts,
                                 .until_ns = until_ns};
    why->by_peer = governor_rate(by->entry, now_ns, counts, &why->max, &why->period_ms);
}

int limits_take(const struct limit *limits, size_t len, uint64_t now_ns,
                const struct governor_load *load, struct limit_denial *why)
{
    for (size_t i = 0; i < len; i++) {
        enum governor_counts by = GOVERNOR_MESSAGES;
        uint64_t until_ns =
            limits[i].entry == NULL ? 0 : governor_message_take(limits[i].entry, now_ns, load, &by);

        if (until_ns == 0)
            continue;
        limit_rate_denial(&limits[i], by, now_ns, until_ns, why);
        limits_give(limits, i, now_ns, load, 0);
        return -EAGAIN;
    }
    return 0;
}

void limits_give(const struct limit *limits, size_t len, uint64_t now_ns,
                 const struct governor_load *load, uint64_t ago_ns)
{
    for (size_t i = 0; i < len; i++)
        if (limits[i].entry != NULL)
            governor_message_give(limits[i].entry, now_ns, load, ago_ns);
}

uint32_t limits_more(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t want)
{
    for (size_t i = 0; i < len && want > 0; i++) {
        uint32_t may = limits[i].entry == NULL
                           ? want
                           : governor_recipients_more(limits[i].entry, now_ns, want);

        ASSERT(may <= want);
        limits_give_recipients(limits, i, now_ns, want - may);
        want = may;
    }
    return want;
}

void limits_give_recipients(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t n)
{
    for (size_t i = 0; i < len && n > 0; i++)
        if (limits[i].entry != NULL)
            governor_recipients_give(limits[i].entry, now_ns, n);
}

void limits_more_bytes(const struct limit *limits, size_t len, uint64_t now_ns, int64_t bytes)
{
    for (size_t i = 0; i < len; i++)
        if (limits[i].entry != NULL)
            governor_bytes_more(limits[i].entry, now_ns, bytes);
}

uint64_t limits_message_at(const struct limit *limits, size_t len, uint64_t now_ns)
{
    uint64_t at_ns = 0;

    for (size_t i = 0; i < len; i++) {
        uint64_t one_ns =
            limits[i].entry == NULL ? 0 : governor_message_at(limits[i].entry, now_ns, NULL);

        at_ns = one_ns > at_ns ? one_ns : at_ns;
    }
    return at_ns;
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
        enum governor_counts by = GOVERNOR_MESSAGES;
        uint64_t until_ns =
            limits[i].entry == NULL ? 0 : governor_message_at(limits[i].entry, now_ns, &by);

        if (until_ns <= now_ns || (err != 0 && until_ns <= why->until_ns))
            continue;
        limit_rate_denial(&limits[i], by, now_ns, until_ns, why);
        err = -EAGAIN;
    }
    return err;
}

const struct config_rate *limit_connect_rate(const struct limit *by)
{
    return by->at != NULL                 ? &by->at->connect_rate
           : by->kind == LIMIT_SOURCE     ? &by->source->connect_rate
           : by->kind == LIMIT_TOTAL_RATE ? &by->dest->total_connect_rate
           : by->kind == LIMIT_HOST       ? &by->dest->host_connect_rate
                                          : &by->dest->connect_rate;
}

void limit_connect_denial(const struct limit *by, struct limit_denial *why)
{
    const struct config_rate *rate = limit_connect_rate(by);

    ASSERT(by->entry != NULL);
    *why = (struct limit_denial){.kind = by->kind,
                                 .dest = by->dest,
                                 .source = by->source,
                                 .share = by->share,
                                 .at = by->at,
                                 .entry = by->entry,
                                 .counts = GOVERNOR_CONNECTS,
                                 .until_ns = governor_connect_at(by->entry),
                                 .max = rate->count,
                                 .period_ms = rate->period_ms};
}

void limit_sessions_denial(const struct limit *by, uint64_t now_ns, struct limit_denial *why)
{
    ASSERT(by->entry != NULL && by->kind != LIMIT_NONE);
    *why = (struct limit_denial){.kind = by->kind,
                                 .dest = by->dest,
                                 .source = by->source,
                                 .lowered = by->lowered,
                                 .share = by->share,
                                 .at = by->at,
                                 .entry = by->entry,
                                 .by_peer = governor_is_lowered(by->entry, now_ns),
                                 .counts = GOVERNOR_SESSIONS};
    governor_sessions(by->entry, now_ns, &why->used, &why->max);
}

const char *limit_denial_key(const struct limit_denial *why)
{
    return limit_name(why->kind, why->counts);
}

const char *limit_denial_own_key(const struct limit_denial *why)
{
    return limit_name(why->source != NULL || why->share != NULL ? LIMIT_RATE : why->kind,
                      why->counts);
}

#include "schedule/flow_warmup.h"

#include <stdio.h>

#include "schedule/lane.h"
#include "schedule/site.h"
#include "worker/keyring.h"
#include "worker/shared.h"

static struct warmup_stream *find_stream(const struct site *site, enum config_warmup_kind kind,
                                         struct str plain)
{
    char name[WARMUP_NAME_MAX + 1];

    if (plain.len == 0 || plain.len > CONFIG_SHARE_NAME_MAX)
        return NULL;
    snprintf(name, sizeof(name), "%s:%.*s", config_warmup_kind_name(kind), STR_FMT(plain));
    return warmup_stream_of(&site->worker->shared->warmup, site->config, name,
                            str_of(site->exchangers.list[0].host));
}

struct warmup_set flow_warmup(const struct site *site, const struct lane *lane)
{
    const struct keyring *k = site->config->keyring;
    struct warmup_set set = {0};

    if (site->lmtp || site->exchangers.len == 0)
        return set;
    if (k != NULL)
        set.of[WARMUP_PLATFORM] = find_stream(site, CONFIG_WARMUP_SIGNER, keyring_platform(k));
    if (lane->names == NULL)
        return set;
    set.of[CONFIG_WARMUP_SIGNER] = find_stream(site, CONFIG_WARMUP_SIGNER, lane->names->signer);
    set.of[CONFIG_WARMUP_CAMPAIGN] =
        find_stream(site, CONFIG_WARMUP_CAMPAIGN, lane->names->campaign);
    if (set.of[CONFIG_WARMUP_SIGNER] == set.of[WARMUP_PLATFORM]) /* one signature, counted once */
        set.of[WARMUP_PLATFORM] = NULL;
    return set;
}

uint64_t flow_warmup_take(struct worker *w, const struct warmup_set *set)
{
    for (int i = 0; i < WARMUP_SET_LEN; i++) {
        int64_t wall_ms = set->of[i] == NULL ? 0 : worker_wall_ms(w);
        uint64_t until_ns;

        if (set->of[i] == NULL)
            continue;
        until_ns = warmup_take(&w->shared->warmup, set->of[i], wall_ms, io_now_ns(w->io));
        if (until_ns == 0)
            continue;
        for (int j = 0; j < i; j++)
            warmup_give(set->of[j], wall_ms, 1);
        return until_ns;
    }
    return 0;
}

uint64_t flow_warmup_at(struct worker *w, const struct warmup_set *set, struct warmup_stream **by)
{
    uint64_t now_ns = io_now_ns(w->io), longest_ns = now_ns;

    for (int i = 0; i < WARMUP_SET_LEN; i++) {
        struct warmup_stream *s = set->of[i];
        int64_t wall_ms = s == NULL ? 0 : worker_wall_ms(w);
        uint64_t until_ns = warmup_at(s, wall_ms, now_ns);

        if (until_ns <= longest_ns)
            continue;
        /* A flow that is held takes nothing: it asks here. */
        warmup_doubt(&w->shared->warmup, s, wall_ms, now_ns);
        longest_ns = until_ns;
        if (by != NULL)
            *by = s;
    }
    return longest_ns > now_ns ? longest_ns : 0;
}

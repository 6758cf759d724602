#include "schedule/flow_lower.h"

#include <stdlib.h>

#include "schedule/lane.h"
#include "schedule/site.h"
#include "schedule/supply.h"
#include "worker/shared.h"

#define AGAIN_NS UINT64_C(50000000) /* until a place may be free */

static const struct flow_lower_scopes scopes[] = {
    [LIMIT_LOWERED_CAMPAIGN] = {SUSPENSION_CAMPAIGN_SITE, SUSPENSION_CAMPAIGN_CAP, 0},
    [LIMIT_LOWERED_TENANT] = {SUSPENSION_TENANT_SITE, SUSPENSION_TENANT_CAP, 0},
    [LIMIT_LOWERED_SIGNER] = {SUSPENSION_SIGNER_SITE, SUSPENSION_SIGNER_CAP,
                              SUSPENSION_SIGNER_RECOVERY},
    [LIMIT_LOWERED_ENVELOPE] = {SUSPENSION_ENVELOPE_SITE, SUSPENSION_ENVELOPE_CAP,
                                SUSPENSION_ENVELOPE_RECOVERY}};

const struct flow_lower_scopes *flow_lower_scopes(enum limit_kind kind)
{
    ASSERT(limit_is_lowered(kind));
    return &scopes[kind];
}

enum limit_kind flow_lower_kind(enum suspension_scope pause)
{
    enum limit_kind kind = LIMIT_LOWERED_CAMPAIGN;

    while (limit_is_lowered(kind) && scopes[kind].pause != pause)
        kind++;
    return limit_is_lowered(kind) ? kind : LIMIT_NONE;
}

struct governor_entry *flow_lower_entry(const struct site *site, enum limit_kind kind,
                                        const char *name)
{
    struct worker *w = site->worker;
    struct governor_entry *entry;
    struct buf key = {0};

    buf_printf(&key, ":%s|%s", suspension_scope_name(scopes[kind].cap), name);
    entry = governor_get(w->shared->governor, buf_str(&key), &(struct governor_limits){0},
                         io_now_ns(w->io));
    ASSERT(entry != NULL);
    buf_done(&key);
    return entry;
}

/* What the table has of name. False: nothing. */
static bool apply(struct worker *w, enum limit_kind kind, struct governor_entry *entry,
                  const char *name)
{
    struct suspensions *all = &w->shared->suspensions;
    enum suspension_scope recovery = scopes[kind].recovery;
    uint64_t now_ns = io_now_ns(w->io);
    struct suspension one;
    uint32_t version;
    bool capped = suspensions_find_cap(all, scopes[kind].cap, str_of(name), &one, &version);
    struct governor_cap cap = {0};
    int64_t since_ns = 0;

    if (capped) {
        cap = suspension_cap_of(&one);
        since_ns = (int64_t)now_ns - (worker_wall_ms(w) - one.since_ms) * 1000000;
    }
    governor_cap(w->shared->governor, entry, version, &cap, since_ns, now_ns);
    if (recovery == 0 || !suspensions_find(all, recovery, str_of(name), &one))
        return capped;
    governor_restore(entry, one.cap.step_ms / 1000, one.cap.sessions);
    return true;
}

static bool is_known(struct suspensions *all, enum limit_kind kind, const char *name)
{
    enum suspension_scope recovery = scopes[kind].recovery;

    return suspensions_hold(all, scopes[kind].cap, str_of(name)) ||
           (recovery != 0 && suspensions_hold(all, recovery, str_of(name)));
}

/* Adds the limit of what, where it is lowered. */
static void lowered_add(struct site *site, enum limit_kind kind, struct str what,
                        struct limits_lowered *out)
{
    struct worker *w = site->worker;
    char name[SUSPENSION_NAME_MAX + 1];
    struct governor_entry *entry;

    suspension_name(name, what, str_of(site->name));
    if (name[0] == '\0' || !is_known(&w->shared->suspensions, kind, name))
        return;
    entry = flow_lower_entry(site, kind, name);
    if (apply(w, kind, entry, name))
        out->of[out->len++] =
            (struct limit){.entry = entry, .kind = kind, .lowered = strchr(entry->key, '|') + 1};
    else
        governor_put(w->shared->governor, entry, io_now_ns(w->io));
}

static void put_entries(struct site *site, struct limits_lowered *l)
{
    for (size_t i = 0; i < l->len; i++)
        governor_put(site->worker->shared->governor, l->of[i].entry, io_now_ns(site->worker->io));
}

static bool are_alike(const struct limits_lowered *a, const struct limits_lowered *b)
{
    if (a->len != b->len)
        return false;
    for (size_t i = 0; i < a->len; i++)
        if (a->of[i].entry != b->of[i].entry)
            return false;
    return true;
}

/* Of the site's the one that is like found, whose entries are put or kept. */
static const struct limits_lowered *lowered_keep(struct site *site, struct limits_lowered *found)
{
    struct limits_lowered *l;

    if (found->len == 0)
        return NULL;
    for (struct list_node *n = list_first(&site->lowered); n != NULL;
         n = list_next(&site->lowered, n)) {
        l = LIST_ENTRY(n, struct limits_lowered, node);
        if (!are_alike(l, found))
            continue;
        put_entries(site, found);
        return l;
    }
    l = malloc(sizeof(*l));
    ASSERT(l != NULL);
    *l = *found;
    list_push_back(&site->lowered, &l->node);
    return l;
}

const struct limits_lowered *flow_lower_look(struct lane *lane)
{
    struct suspensions *all = &lane->worker->shared->suspensions;
    uint32_t version = suspensions_caps_version(all), seen;
    const struct limits_lowered *now = feed_lowered(&lane->supply->feed, lane, &seen);
    struct limits_lowered found = {0};

    if (version == seen)
        return now;
    if (suspensions_caps(all) > 0 && lane->names != NULL) {
        lowered_add(lane->site, LIMIT_LOWERED_CAMPAIGN, lane->names->campaign, &found);
        lowered_add(lane->site, LIMIT_LOWERED_TENANT, lane->names->tenant, &found);
        lowered_add(lane->site, LIMIT_LOWERED_SIGNER, lane->names->signer, &found);
        lowered_add(lane->site, LIMIT_LOWERED_ENVELOPE, lane->names->envelope, &found);
    }
    now = lowered_keep(lane->site, &found);
    feed_lower(&lane->supply->feed, lane, now, version);
    return now;
}

bool flow_lower_full(const struct site *site, const struct limits_lowered *lowered,
                     struct limit_denial *why)
{
    uint64_t now_ns = io_now_ns(site->worker->io);

    for (size_t i = 0; lowered != NULL && i < lowered->len; i++) {
        if (!governor_sessions_full(lowered->of[i].entry, now_ns))
            continue;
        limit_sessions_denial(&lowered->of[i], now_ns, why);
        why->until_ns = now_ns + AGAIN_NS;
        return true;
    }
    return false;
}

bool flow_lower_take(const struct site *site, const struct limits_lowered *lowered,
                     struct limit_denial *why)
{
    struct worker *w = site->worker;

    for (size_t i = 0; lowered != NULL && i < lowered->len; i++) {
        struct governor_entry *e = lowered->of[i].entry;

        if (governor_session_take(e, w->index, io_now_ns(w->io)))
            continue;
        limit_sessions_denial(&lowered->of[i], io_now_ns(w->io), why);
        why->until_ns = io_now_ns(w->io) + AGAIN_NS;
        while (i-- > 0)
            governor_session_give(lowered->of[i].entry);
        return false;
    }
    return true;
}

void flow_lower_give(const struct limits_lowered *lowered)
{
    for (size_t i = 0; lowered != NULL && i < lowered->len; i++)
        governor_session_give(lowered->of[i].entry);
}

void flow_lower_done(struct site *site)
{
    struct list_node *n;

    while ((n = list_pop_front(&site->lowered)) != NULL) {
        struct limits_lowered *l = LIST_ENTRY(n, struct limits_lowered, node);

        put_entries(site, l);
        free(l);
    }
}

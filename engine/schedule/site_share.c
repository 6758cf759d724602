/* See site.h: the limits that tenants and campaigns have at a site. */
#include <stdlib.h>

#include "schedule/site.h"
#include "worker/shared.h"

#define LACKS_MS    100 /* between two times that mail asks which waits for a session */
#define GIVE_WAY_MS 60  /* to others, of a session that a tenant or campaign may have */

struct share_limit {
    struct map_node node; /* site->shares, by entry */
    struct limit limit;
    uint32_t refs; /* who has it: site_limits() */
    uint64_t id;   /* see site_share_id() */
    /* Of one that limits sessions: those of this worker, since when it has some while others lack
     * one, whether none of them takes more until one has nothing left, and until when behind that.
     */
    struct site *site;
    uint32_t sessions;
    bool gives;
    uint64_t slice_ms, give_way_ms;
    uint64_t lacks_ns; /* when mail last asked for a session that it refused */
};

/* The one of limit's entry, which the caller has got: it is the site's from here on. There may be
 * as many as tenants that have mail there, or had until a moment ago: the entry, which outlives
 * this, keeps what was taken of rates. */
static const struct limit *share_keep(struct site *site, const struct limit *limit)
{
    struct worker *w = site->worker;
    uint64_t hash = hash_bytes(&limit->entry, sizeof(limit->entry), w->hash_seed);
    struct share_limit *own;
    int err = 0;

    ASSERT(limit->entry != NULL);
    if (site->shares.buckets == NULL)
        err = map_init(&site->shares, 4);
    ASSERT(err == 0);
    for (struct map_node *n = map_find(&site->shares, hash); n != NULL; n = map_find_next(n)) {
        own = CONTAINER_OF(n, struct share_limit, node);
        if (own->limit.entry != limit->entry)
            continue;
        governor_put(w->shared->governor, limit->entry, io_now_ns(w->io));
        own->refs++;
        return &own->limit;
    }
    own = calloc(1, sizeof(*own));
    ASSERT(own != NULL);
    own->limit = *limit;
    own->site = site;
    own->refs = 1;
    if (limit->at != NULL && limit->at->connect_rate.count != 0)
        own->id = 1 | hash_bytes(limit->entry->key, strlen(limit->entry->key), w->hash_seed);
    map_insert(&site->shares, &own->node, hash);
    return &own->limit;
}

/* Of the tenant or campaign of this name. */
static const struct limit *share_limit(struct site *site, enum limit_kind kind,
                                       const struct config_share *share, struct str name)
{
    const struct config_share_site *at = config_share_at(share, str_of(site->name));
    struct limit limit = {.kind = kind, .share = share, .at = at};
    struct worker *w = site->worker;
    struct governor_limits limits;
    struct buf key = {0};

    if (at == NULL)
        return NULL;
    limits = (struct governor_limits){.sessions_max = at->sessions_max,
                                      .rate_messages = at->rate.count,
                                      .rate_period_ms = at->rate.period_ms,
                                      .rate_burst = at->rate.burst,
                                      .recipients = limit_rate(&at->recipient_rate),
                                      .bytes = limit_rate(&at->byte_rate),
                                      .connects = limit_rate(&at->connect_rate),
                                      .generation = site->config->generation};
    if (!governor_limits_any(&limits))
        return NULL;
    buf_printf(&key, ":%s|%.*s|%s", kind == LIMIT_TENANT ? "tenant" : "campaign", STR_FMT(name),
               site->name);
    limit.entry = governor_get(w->shared->governor, buf_str(&key), &limits, io_now_ns(w->io));
    buf_done(&key);
    return share_keep(site, &limit);
}

/* The rate that the campaign was set to, over all sites. It has one entry, whatever it is set to
 * and however often: what is left of a wait becomes as much of one at the new rate. */
static const struct limit *campaign_total(struct site *site, struct str tenant, struct str name)
{
    struct limit limit = {.kind = LIMIT_CAMPAIGN_TOTAL};
    struct worker *w = site->worker;
    struct buf key = {0};
    char id[MSGID_TEXT_BYTES];
    struct campaign one;

    if (!campaigns_find_set(&w->shared->campaigns, tenant, name, &one) || one.set.rate == 0)
        return NULL;
    msgid_text(&one.id, id);
    buf_printf(&key, ":campaign-total|%s", id);
    limit.entry = governor_get(w->shared->governor, buf_str(&key),
                               &(struct governor_limits){.rate_messages = one.set.rate,
                                                         .rate_period_ms = one.set.rate_period_ms,
                                                         .generation = one.set.version},
                               io_now_ns(w->io));
    buf_done(&key);
    return share_keep(site, &limit);
}

struct feed_limits site_limits(struct site *site, struct str tenant, struct str campaign)
{
    return (struct feed_limits){
        .campaign_total = campaign_total(site, tenant, campaign),
        .tenant = share_limit(site, LIMIT_TENANT, config_tenant(site->config, tenant), tenant),
        .campaign =
            share_limit(site, LIMIT_CAMPAIGN, config_campaign(site->config, campaign), campaign)};
}

static struct share_limit *share_of(const struct limit *limit)
{
    ASSERT(limit != NULL);
    return (struct share_limit *)CONTAINER_OF(limit, const struct share_limit, limit);
}

/* Who holds and who lacks sessions, to the governor: the worker; of a provider, whose sites have
 * the limit together, each site of it. */
static uint32_t share_holder(const struct share_limit *own)
{
    return own->site->provider == NULL ? own->site->worker->index : site_who(own->site);
}

/* Whether the site leaves the next session to others that lack one: whoever holds more than its
 * share does, and who holds the only one after a while. */
static bool gives_way(struct share_limit *own, uint32_t more)
{
    const struct worker *w = own->site->worker;
    uint64_t now_ms = io_now_ms(w->io);

    if (!governor_contended(own->limit.entry, share_holder(own))) {
        own->slice_ms = now_ms;
        own->gives = false;
        return false;
    }
    if (own->gives || now_ms < own->give_way_ms)
        return true;
    if (!governor_should_yield(own->limit.entry, share_holder(own), own->sessions + more,
                               now_ms - own->slice_ms, io_now_ns(w->io)))
        return false;
    own->gives = own->sessions > 0; /* what it has under way may take a while */
    own->give_way_ms = own->slice_ms = now_ms + GIVE_WAY_MS;
    return true;
}

/* Counts how long mail waits for a session: the time since it last asked, if that was just now. */
static void share_lacks(struct share_limit *own)
{
    uint64_t now_ns = io_now_ns(own->site->worker->io), ms = (now_ns - own->lacks_ns) / 1000000;
    const struct limit_denial by = {.kind = own->limit.kind,
                                    .entry = own->limit.entry,
                                    .counts = governor_sessions_full(own->limit.entry, now_ns)
                                                  ? GOVERNOR_SESSIONS
                                                  : GOVERNOR_CONNECTS};

    if (ms == 0)
        return;
    if (ms < LACKS_MS)
        site_count_held(own->site, &by, ms);
    own->lacks_ns = now_ns;
}

static bool share_enter(struct share_limit *own, bool counts, bool began)
{
    uint64_t now_ns = io_now_ns(own->site->worker->io);

    if (gives_way(own, counts ? 0 : 1))
        return false;
    if (counts)
        return true;
    if (!began && governor_connect_take(own->limit.entry, now_ns) != 0)
        return false;
    if (governor_session_take(own->limit.entry, share_holder(own), now_ns))
        return true;
    if (!began)
        governor_connect_give(own->limit.entry, now_ns);
    return false;
}

uint64_t site_share_id(const struct limit *limit)
{
    return share_of(limit)->id;
}

bool site_share_enter(const struct limit *limit, bool counts, bool began)
{
    struct share_limit *own = share_of(limit);

    ASSERT(own->refs > 0 && (!counts || own->sessions > 0));
    if (!share_enter(own, counts, began)) {
        share_lacks(own);
        return false;
    }
    own->sessions += !counts;
    return true;
}

/* Nobody has it any more. */
static void share_reap(struct share_limit *own)
{
    struct site *site = own->site;
    struct worker *w = site->worker;

    if (own->refs > 0 || own->sessions > 0)
        return;
    site_share_idle(&own->limit);
    map_remove(&site->shares, &own->node);
    governor_put(w->shared->governor, own->limit.entry, io_now_ns(w->io));
    free(own);
}

void site_limit_put(const struct limit *limit)
{
    struct share_limit *own;

    if (limit == NULL)
        return;
    own = share_of(limit);
    ASSERT(own->refs > 0);
    own->refs--;
    share_reap(own);
}

void site_share_leave(const struct limit *limit)
{
    struct share_limit *own = share_of(limit);

    ASSERT(own->sessions > 0);
    own->sessions--;
    governor_session_give(limit->entry);
    if (own->gives) {
        own->gives = false;
        own->give_way_ms = own->slice_ms = io_now_ms(own->site->worker->io) + GIVE_WAY_MS;
    }
    share_reap(own);
}

void site_share_undo(const struct limit *limit, bool began)
{
    if (!began)
        governor_connect_give(limit->entry, io_now_ns(share_of(limit)->site->worker->io));
    site_share_leave(limit);
}

void site_share_lack(const struct limit *limit)
{
    struct share_limit *own = share_of(limit);

    share_lacks(own);
    if (own->sessions == 0 &&
        governor_session_take(limit->entry, share_holder(own), io_now_ns(own->site->worker->io)))
        governor_session_give(limit->entry); /* it is free by now: the next look finds it */
}

void site_share_idle(const struct limit *limit)
{
    struct share_limit *own = share_of(limit);

    governor_session_withdraw(limit->entry, share_holder(own), own->sessions);
}

/* Feeds and sessions have given back what they had. */
void site_shares_done(struct site *site)
{
    if (site->shares.buckets == NULL)
        return;
    ASSERT(site->shares.count == 0);
    map_done(&site->shares);
}

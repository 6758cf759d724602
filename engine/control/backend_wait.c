#include "control/backend_wait.h"

#include <stdio.h>

#include "schedule/channel.h"
#include "schedule/flow_lower.h"
#include "worker/shared.h"
#include "worker/worker.h"

static void text_copy(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text == NULL ? "" : text);
}

/* --- a lane --- */

static void put_suspension(const struct suspension *s, struct control_wait *out)
{
    out->since_ms = s->since_ms;
    out->scope = suspension_scope_name(s->scope);
    text_copy(out->name, sizeof(out->name), s->name);
    text_copy(out->who, sizeof(out->who), s->who);
    text_copy(out->text, sizeof(out->text), s->reason);
}

/* The rule that lowered the source's limits at the lane's site, and what it read. False: none did.
 */
static bool put_lowered(const struct lane *lane, const char *source, struct buf *out)
{
    struct suspensions *all = &lane->worker->shared->suspensions;
    char at_site[SUSPENSION_NAME_MAX + 1];
    struct suspension one;

    ASSERT(lane->site != NULL);
    suspension_name(at_site, str_of(source), str_of(lane->site->name));
    if (at_site[0] == 0 || !suspensions_find(all, SUSPENSION_SOURCE_CAP, str_of(at_site), &one))
        return false;
    buf_printf(out, "%s: %s", one.who, one.reason);
    return true;
}

/* The same of what is lowered of a flow. */
static bool put_flow_lowered(const struct lane *lane, const struct limit_denial *why,
                             struct buf *out)
{
    const enum suspension_scope scopes[] = {flow_lower_scopes(why->kind)->cap,
                                            flow_lower_scopes(why->kind)->recovery};
    struct suspensions *all = &lane->worker->shared->suspensions;
    struct suspension one;

    for (size_t i = 0; i < ARRAY_LEN(scopes); i++) {
        if (scopes[i] == 0 || !suspensions_find(all, scopes[i], str_of(why->lowered), &one))
            continue;
        buf_printf(out, "%s %s: %s", one.who, why->lowered, one.reason);
        return true;
    }
    return false;
}

/* A limit of the site's destination: how far it is used, and where it is set. */
static void put_limit(const struct lane *lane, const struct limit_denial *why,
                      struct control_wait *out)
{
    struct buf set = {0};

    ASSERT(lane->site != NULL && why->kind != LIMIT_NONE);
    out->limit.name = limit_denial_key(why);
    out->limit.used = why->used;
    out->limit.max = why->max;
    out->limit.period_ms = why->period_ms;
    out->limit.by_peer = why->by_peer;
    out->limit.by_rule = why->lowered != NULL ? put_flow_lowered(lane, why, &set)
                                              : why->by_peer && why->source == NULL &&
                                                    put_lowered(lane, out->source, &set);
    if (why->source != NULL)
        config_source_origin_put(lane->site->config, why->source, limit_denial_own_key(why), &set);
    else if (why->share != NULL)
        config_share_origin_put(lane->site->config, why->share, why->at, limit_denial_own_key(why),
                                &set);
    else if (why->kind == LIMIT_CAMPAIGN_TOTAL)
        buf_puts(&set, "campaign set");
    else if (!out->limit.by_rule && why->lowered == NULL)
        config_origin_put(lane->site->config, why->dest, out->limit.name, &set);
    snprintf(out->limit.set, sizeof(out->limit.set), "%.*s", STR_FMT(buf_str(&set)));
    buf_done(&set);
}

static void put_warmup(struct worker *w, const struct lane_wait *wait, struct control_wait *out)
{
    enum config_warmup_kind kind;
    struct warmup_view view;
    struct buf text = {0};
    const char *plain;

    warmup_view(&w->shared->warmup, wait->warmup, worker_wall_ms(w), &view);
    out->limit.name = limit_name(LIMIT_WARMUP, GOVERNOR_RECIPIENTS);
    out->limit.used = view.used;
    out->limit.max = view.cap;
    out->limit.stage = view.stage;
    out->limit.stages = view.stages;
    kind = config_warmup_kind(view.source, &plain);
    config_warmup_origin_put(w->config, kind, plain, &text);
    snprintf(out->limit.set, sizeof(out->limit.set), "%.*s", STR_FMT(buf_str(&text)));
    buf_clear(&text);
    warmup_put_words(&w->shared->warmup, &view, &text);
    snprintf(out->text, sizeof(out->text), "%.*s", STR_FMT(buf_str(&text)));
    buf_done(&text);
}

static void take_quiet(void *arg, const char *key, struct str value, struct str origin)
{
    struct control_wait *out = arg;

    if (strcmp(key, "quiet_hours") != 0)
        return;
    out->limit.name = "quiet_hours";
    snprintf(out->limit.set, sizeof(out->limit.set), "%.*s", STR_FMT(origin));
    snprintf(out->text, sizeof(out->text), "%.*s", STR_FMT(value));
}

/* What keeps the source from sending at the site. False: nothing. */
static bool put_lack(const struct site *site, const struct config_source *of, struct buf *out)
{
    const struct source *state = sources_get(&site->worker->shared->sources, of);
    uint8_t unrouted = channel_families_unrouted(site, of, state);
    char proxy[SOURCE_PROXY_TEXT], error[SOCKS5_TEXT];

    if (source_away_ns(state, SOURCE_PROXY) != 0) {
        source_proxy_text(of, proxy);
        source_error_text(
            atomic_load_explicit(&state->shared.error[SOURCE_PROXY], memory_order_relaxed), error);
        buf_printf(out, "%s is down: %s", proxy, error);
        return true;
    }
    for (int part = 0; part < SOURCE_FAMILIES; part++) {
        const char *between = out->len == 0 ? "" : ", ";

        if (source_away_ns(state, (enum source_part)part) != 0)
            buf_printf(out, "%s%s is none of this machine's addresses", between,
                       source_own_address(of, (enum source_part)part)->text);
        else if ((unrouted & 1 << part) != 0)
            buf_printf(out, "%sthis machine has no route over %s from %s", between,
                       part == SOURCE_IPV4 ? "IPv4" : "IPv6",
                       source_own_address(of, (enum source_part)part)->text);
    }
    if (out->len == 0 && exchangers_usable(&site->exchangers, source_families(state)) == 0)
        buf_puts(out, "the exchangers have no address of its family");
    return out->len > 0;
}

/* What keeps the source from sending, or where none is named the first of the pool's that lacks
 * something. */
static void put_lacking(const struct lane *lane, const struct lane_wait *wait,
                        struct control_wait *out)
{
    const struct supply *s = lane->supply;
    struct buf text = {0};
    bool found = false;

    for (uint32_t i = 0; s != NULL && i < s->seats_len && !found; i++) {
        const struct config_source *of = s->seats[i].source;

        if (wait->source != NULL && wait->source != of)
            continue;
        found = put_lack(s->site, of, &text);
        if (found)
            text_copy(out->source, sizeof(out->source), of->name);
    }
    snprintf(out->text, sizeof(out->text), "%.*s", STR_FMT(buf_str(&text)));
    buf_done(&text);
}

void backend_wait(struct lane *lane, struct str source, struct control_wait *out)
{
    struct lane_wait wait;

    lane_wait_of_source(lane, source, &wait);
    *out = (struct control_wait){.reason = lane_wait_name(wait.reason),
                                 .until_ms = wait.until_ms,
                                 .answered_ms = wait.answered_ms};
    text_copy(out->host, sizeof(out->host), wait.host);
    text_copy(out->error, sizeof(out->error), wait.error);
    if (wait.source != NULL)
        text_copy(out->source, sizeof(out->source), wait.source->name);
    if (wait.reason == LANE_WAIT_SUSPENDED)
        put_suspension(&wait.suspension, out);
    else if (wait.reason == LANE_WAIT_WARMUP)
        put_warmup(lane->worker, &wait, out);
    else if (wait.reason == LANE_WAIT_SOURCE)
        put_lacking(lane, &wait, out);
    else if (wait.quiet != NULL)
        config_limits_visit(lane->site->config, wait.quiet, take_quiet, out);
    else if (wait.limit.kind != LIMIT_NONE)
        put_limit(lane, &wait.limit, out);
}

/* --- a subject --- */

static const struct config_pool *pool_of(const struct lane *lane)
{
    if (lane->supply != NULL)
        return lane->supply->pool;
    return config_pool_for(lane->worker->config, lane->names == NULL ? STR("") : lane->names->pool);
}

static bool pool_has(const struct config_pool *pool, struct str source)
{
    for (size_t i = 0; pool != NULL && i < pool->sources_len; i++)
        if (str_eq(str_of(pool->sources[i].name), source))
            return true;
    return false;
}

/* A bit for each scope in which lane is mail of the subject. */
static uint32_t scopes_of(const struct control_why *why, const struct lane *lane)
{
    struct str name = str_of(why->name), flow = name;
    uint32_t found = 0;

    if (flow.len > FLOW_NAME_MAX)
        flow.len = FLOW_NAME_MAX;
    if (why->domain[0] != 0 && str_eq(lane_domain(lane), str_of(why->domain)))
        found |= 1u << SUSPENSION_DOMAIN;
    if (lane->names != NULL && str_eq(lane->names->campaign, flow))
        found |= 1u << SUSPENSION_CAMPAIGN;
    if (str_eq(lane_tenant(lane), flow))
        found |= 1u << SUSPENSION_TENANT;
    if (lane->site != NULL && (str_eq_nocase(str_of(lane->site->name), name) ||
                               str_eq_nocase(str_of(lane->site->exchangers_name), name)))
        found |= 1u << SUSPENSION_SITE;
    if ((why->scopes & 1u << SUSPENSION_SOURCE) != 0 &&
        (pool_has(pool_of(lane), name) || pool_has(pool_of(lane)->overflow, name)) &&
        lane_is_of_source(lane, name))
        found |= 1u << SUSPENSION_SOURCE;
    return found & why->scopes;
}

/* Whether what holds the destination of h is what its mail waits for: not when none of it will be
 * due by then. next_due_ms: of what is stored. */
static bool is_held_up(const struct control_hold *h, const struct lane *lane, int64_t now_ms)
{
    bool for_ever = h->wait.scope != NULL && h->wait.until_ms == 0;

    return h->wait.reason != NULL &&
           (for_ever || lane->in_memory > 0 || lane_has_due(lane, now_ms) ||
            lane->stored_due_ms < h->wait.until_ms);
}

static void settle_state(struct control_hold *h, const struct lane *lane, int64_t now_ms)
{
    if (is_held_up(h, lane, now_ms)) {
        h->state = CONTROL_HOLD_WAITS;
        h->next_ms = h->wait.until_ms == 0 ? INT64_MAX : h->wait.until_ms;
        if (lane->in_memory == 0 && lane->stored_due_ms > h->next_ms)
            h->next_ms = lane->stored_due_ms;
        return;
    }
    h->wait = (struct control_wait){0};
    if (lane->in_memory > 0 || lane_has_due(lane, now_ms)) {
        h->state = CONTROL_HOLD_GOES;
        return;
    }
    h->state = lane->stored_due_ms >= QUEUE_DUE_HELD ? CONTROL_HOLD_HELD : CONTROL_HOLD_LATER;
    h->next_ms = lane->stored_due_ms;
    if (h->state == CONTROL_HOLD_HELD || lane->last_error == NULL)
        return;
    text_copy(h->wait.error, sizeof(h->wait.error), lane->last_error);
    text_copy(h->wait.host, sizeof(h->wait.host), lane->last_host);
    h->wait.answered_ms = lane->last_error_ms;
}

uint32_t backend_why(struct control_why *why, struct lane *lane)
{
    uint64_t rows;
    bool complete;

    if (scopes_of(why, lane) == 0 || control_why_has_lanes(why, lane_name(lane)))
        return 1;
    rows = queue_lane_rows(lane->worker->shared->queue, lane->shard, lane->flow, lane_name(lane),
                           &complete);
    why->counting = why->counting || !complete;
    if (complete && rows == 0 && lane->in_memory == 0)
        return 1;
    return backend_why_lane(why, lane, rows);
}

uint32_t backend_why_lane(struct control_why *why, struct lane *lane, uint64_t rows)
{
    uint32_t found = scopes_of(why, lane);
    bool is_source = found == 1u << SUSPENSION_SOURCE, made;
    struct control_hold h = {
        .shard = lane->shard, .lanes = 1, .rows = rows, .in_flight = lane->in_flight};
    struct control_hold *kept;

    ASSERT(why->len <= CONTROL_HOLDS_MAX);
    why->found |= found;
    backend_wait(lane, is_source ? str_of(why->name) : STR(""), &h.wait);
    settle_state(&h, lane, worker_wall_ms(lane->worker));
    text_copy(h.queue, sizeof(h.queue), lane->name);
    text_copy(h.site, sizeof(h.site), lane->site == NULL ? NULL : lane->site->name);
    text_copy(h.pool, sizeof(h.pool), pool_of(lane)->name);
    kept = control_why_add(why, &h, &made);
    if (made)
        kept->per_hour = lane_ceiling(lane);
    return lane_wait_cost(lane);
}

#include "outcome/rule_act.h"

#include <stdio.h>

#include "base/log.h"
#include "outcome/report.h"
#include "outcome/suspend.h"
#include "schedule/lane.h"
#include "schedule/settle.h"
#include "worker/shared.h"

#define ALARM_QUIET_MS 600000 /* between two alarms of one rule at one source and site */
/* What is heard so soon after an answer asks for no other suspension: it is longer by as much. */
#define STORED_MS 1000
#define NOTHING   "nothing got through after the pause"

struct heard {
    struct channel *channel;
    struct lane *lane; /* or NULL */
    const struct config_rule *rule;
    const struct smtp_reply *reply;
    struct suspension suspension; /* scope 0: none */
};

/* The scope by which mail without a campaign or tenant waits. */
static enum config_rule_scope scope_of(const struct heard *h)
{
    enum config_rule_scope scope = h->rule->scope;

    if (scope == CONFIG_RULE_CAMPAIGN &&
        (h->lane == NULL || h->lane->names == NULL || h->lane->names->campaign.len == 0))
        scope = CONFIG_RULE_TENANT;
    if (scope == CONFIG_RULE_TENANT && (h->lane == NULL || lane_tenant(h->lane).len == 0))
        scope = CONFIG_RULE_SOURCE;
    if (scope == CONFIG_RULE_DOMAIN && h->lane == NULL)
        scope = CONFIG_RULE_SITE;
    return scope;
}

static void name_suspension(const struct heard *h, struct suspension *out)
{
    struct str site = str_of(h->channel->site->name), what = STR("");

    switch (scope_of(h)) {
    case CONFIG_RULE_SOURCE:
        out->scope = SUSPENSION_SOURCE_SITE;
        what = str_of(h->channel->source->name);
        break;
    case CONFIG_RULE_CAMPAIGN:
        out->scope = SUSPENSION_CAMPAIGN_SITE;
        what = h->lane->names->campaign;
        break;
    case CONFIG_RULE_TENANT:
        out->scope = SUSPENSION_TENANT_SITE;
        what = lane_tenant(h->lane);
        break;
    case CONFIG_RULE_SITE:
        out->scope = SUSPENSION_SITE;
        snprintf(out->name, sizeof(out->name), "%.*s", STR_FMT(site));
        return;
    case CONFIG_RULE_DOMAIN:
        out->scope = SUSPENSION_DOMAIN;
        snprintf(out->name, sizeof(out->name), "%.*s", STR_FMT(lane_domain(h->lane)));
        return;
    }
    suspension_name(out->name, what, site);
}

/* Whether what one suspends is until then: by an operator, or for an answer a moment ago. */
static bool lasts_until(const struct worker *w, const struct suspension *one, int64_t until_ms)
{
    struct suspension known;

    return suspensions_find(&w->shared->suspensions, one->scope, str_of(one->name), &known) &&
           (known.until_ms == 0 || known.until_ms >= until_ms);
}

/* False: what it would suspend is, for as long, or there are too many suspensions. */
static bool suspend_for(struct heard *h, uint32_t pause_s, const char *who)
{
    struct worker *w = h->channel->site->worker;
    int64_t now_ms = worker_wall_ms(w), until_ms = now_ms + (int64_t)pause_s * 1000;
    struct suspend_order order = {.what = {.since_ms = now_ms, .until_ms = until_ms + STORED_MS}};

    name_suspension(h, &order.what);
    if (lasts_until(w, &order.what, until_ms) ||
        (suspensions_count(&w->shared->suspensions) >= SUSPENSIONS_RULES_MAX &&
         !suspensions_hold(&w->shared->suspensions, order.what.scope, str_of(order.what.name))))
        return false;
    snprintf(order.what.who, sizeof(order.what.who), "%s", who);
    snprintf(order.what.reason, sizeof(order.what.reason), "%u %.*s", h->reply->code,
             (int)h->reply->text_len, h->reply->text);
    h->suspension = order.what;
    suspend_submit_from(w, &order);
    return true;
}

/* Under which rules know who runs the site's exchangers: the name that warm-up counts by. */
static const char *provider_of(const struct site *site)
{
    return site->provider != NULL ? site->provider->warmup : "default";
}

/* The sessions of a worker are those of lanes, whose shards it owns. */
static void put_record(const struct heard *h, const char *rule)
{
    const struct channel *c = h->channel;
    struct worker *w = c->site->worker;
    struct report_rule record = {.node_id = c->site->config->node_id,
                                 .timestamp_ms = worker_wall_ms(w),
                                 .rule = rule,
                                 .site = str_of(c->site->name),
                                 .provider = provider_of(c->site),
                                 .source = c->source->name,
                                 .reply = h->reply,
                                 .alarm = h->rule != NULL && h->rule->alarm};

    if (h->suspension.scope != 0) {
        record.scope = suspension_scope_name(h->suspension.scope);
        record.name = h->suspension.name;
        record.until_ms = h->suspension.until_ms;
    }
    report_rule(settle_records(w, h->lane != NULL ? h->lane->shard : w->index), &record);
}

/* Whether it is the rule's time: each source is counted by itself, at what the rule would suspend.
 */
static bool is_time(const struct heard *h)
{
    const struct config_rule *r = h->rule;
    struct worker *w = h->channel->site->worker;
    struct suspension what;
    struct buf name = {0};
    bool is;

    name_suspension(h, &what);
    buf_printf(&name, "%s|%s|%s", r->name, h->channel->source->name, what.name);
    is = tally_hit(&w->shared->tally, buf_str(&name), r->after, (uint64_t)r->within_s * 1000,
                   r->suspend_s != 0 ? STORED_MS : ALARM_QUIET_MS, io_now_ms(w->io));
    buf_done(&name);
    return is;
}

/* Whether the rule's suspension keeps the session's source, or all, from sending. */
static bool rule_follow(struct heard *h)
{
    const struct config_rule *r = h->rule;
    const struct channel *c = h->channel;
    char who[SUSPENSION_WHO_MAX + 1];
    bool suspended;

    if ((r->suspend_s == 0 && !r->alarm) || !is_time(h))
        return r->suspend_s != 0 && r->after == 1 &&
               (scope_of(h) == CONFIG_RULE_SOURCE || scope_of(h) == CONFIG_RULE_SITE);
    snprintf(who, sizeof(who), "rule %.50s", r->name);
    suspended = r->suspend_s != 0 && suspend_for(h, r->suspend_s, who);
    if (r->alarm)
        log_warn("rule.alarm", "rule=%s site=%s source=%s reply=\"%u %.*s\"%s", r->name,
                 c->site->name, c->source->name, h->reply->code, (int)h->reply->text_len,
                 h->reply->text, suspended ? " action=\"suspended\"" : "");
    if (suspended || r->alarm)
        put_record(h, r->name);
    return r->suspend_s != 0 &&
           (scope_of(h) == CONFIG_RULE_SOURCE || scope_of(h) == CONFIG_RULE_SITE);
}

const struct config_rule *rule_hear(struct channel *c, struct lane *lane, const char *host,
                                    enum smtp_stage stage, const struct smtp_reply *reply,
                                    struct verdict *v)
{
    const struct rule_question q = {provider_of(c->site), host, stage, reply};
    struct heard h = {.channel = c, .lane = lane, .reply = reply};

    h.rule = rule_find(c->site->config, &q);
    if (h.rule != NULL)
        rule_verdict(h.rule, stage, rule_follow(&h), v);
    return h.rule;
}

void rule_hear_failure(struct channel *c)
{
    static const struct smtp_reply nothing = {
        .code = 451, .text_len = sizeof(NOTHING) - 1, .text = NOTHING};
    static const struct config_rule by_source = {.scope = CONFIG_RULE_SOURCE};
    struct heard h = {.channel = c, .rule = &by_source, .reply = &nothing};
    uint32_t pause_s = governor_recovery_s(channel_told(c));

    if (pause_s != 0 && !c->suspended && suspend_for(&h, pause_s - STORED_MS / 1000, "rule"))
        put_record(&h, "recovery");
}

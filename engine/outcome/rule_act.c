#include "outcome/rule_act.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "outcome/report.h"
#include "outcome/suspend.h"
#include "schedule/flow_split.h"
#include "schedule/lane.h"
#include "schedule/settle.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define ALARM_QUIET_MS 600000 /* between two alarms of one rule at one source and site */
/* What is heard so soon after an answer asks for no other suspension: it is longer by as much. */
#define STORED_MS 1000
#define NOTHING   "nothing got through after the pause"
/* A lowered limit is stored anew with a further such answer, if this part of its time is over. */
#define LOWERED_PART 8
/* A source that recovers and sends nothing for so long has recovered. */
#define RECOVERY_MS_MAX 86400000
/* Each session more is stored up to so many, then each doubling. */
#define RECOVERY_STORED_MAX 64

struct heard {
    struct channel *channel;
    int family;                    /* of the session */
    struct lane *lane;             /* or NULL */
    const struct message *message; /* of lane */
    const struct config_rule *rule;
    const struct smtp_reply *reply;
    struct suspension suspension; /* scope 0: none */
    struct suspension lowered;    /* likewise */
};

static const struct config_address *address_of(const struct heard *h)
{
    const struct config_source *source = h->channel->source;

    return h->family == AF_INET6 ? &source->ipv6 : &source->ipv4;
}

static struct str signer_of(const struct heard *h)
{
    return h->message == NULL ? STR("") : flow_signer(h->lane, h->message);
}

/* The scope by which mail without a campaign, tenant or signature waits, and that of a source whose
 * address the kernel chooses. */
static enum config_rule_scope scope_of(const struct heard *h)
{
    enum config_rule_scope scope = h->rule->scope;

    if (scope == CONFIG_RULE_SIGNER && signer_of(h).len == 0)
        scope = CONFIG_RULE_ENVELOPE;
    if (scope == CONFIG_RULE_CAMPAIGN &&
        (h->lane == NULL || h->lane->names == NULL || h->lane->names->campaign.len == 0))
        scope = CONFIG_RULE_TENANT;
    if (scope == CONFIG_RULE_TENANT && (h->lane == NULL || lane_tenant(h->lane).len == 0))
        scope = CONFIG_RULE_SOURCE;
    if (scope == CONFIG_RULE_DOMAIN && h->lane == NULL)
        scope = CONFIG_RULE_SITE;
    if (scope == CONFIG_RULE_NETBLOCK && address_of(h)->len == 0)
        scope = CONFIG_RULE_SOURCE;
    return scope;
}

/* False: nothing of the refused mail is named so, and there is nothing to suspend. */
static bool name_suspension(const struct heard *h, struct suspension *out)
{
    struct str site = str_of(h->channel->site->name), what = STR("");
    struct dns_name envelope;

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
    case CONFIG_RULE_NETBLOCK:
        out->scope = SUSPENSION_NETBLOCK_SITE;
        suspension_netblock(out->name, address_of(h), site);
        return true;
    case CONFIG_RULE_SITE:
        out->scope = SUSPENSION_SITE;
        snprintf(out->name, sizeof(out->name), "%.*s", STR_FMT(site));
        return true;
    case CONFIG_RULE_DOMAIN:
        out->scope = SUSPENSION_DOMAIN;
        snprintf(out->name, sizeof(out->name), "%.*s", STR_FMT(lane_domain(h->lane)));
        return true;
    case CONFIG_RULE_SIGNER:
        out->scope = SUSPENSION_SIGNER_SITE;
        what = signer_of(h);
        break;
    case CONFIG_RULE_ENVELOPE:
        out->scope = SUSPENSION_ENVELOPE_SITE;
        if (h->message == NULL ||
            queue_name_of(queue_name_domain(h->message->sender), &envelope) < 0)
            return false;
        what = (struct str){envelope.text, envelope.len};
        break;
    }
    suspension_name(out->name, what, site);
    return true;
}

/* "421 4.7.28 Gmail has detected", cut at SUSPENSION_REASON_MAX. */
static void reply_put(const struct smtp_reply *reply, char out[SUSPENSION_REASON_MAX + 1])
{
    const struct smtp_enhanced *e = &reply->enhanced;
    char code[24] = "";

    if (e->class != 0)
        snprintf(code, sizeof(code), "%u.%u.%u ", e->class, e->subject, e->detail);
    snprintf(out, SUSPENSION_REASON_MAX + 1, "%u %s%.*s", reply->code, code, (int)reply->text_len,
             reply->text);
}

/* Behind a pause of source at site: so many sessions may be open. */
static struct suspension recovery_of(const struct site *site, const struct config_source *source,
                                     uint32_t pause_s, uint32_t sessions, int64_t pause_ends_ms)
{
    struct suspension one = {.scope = SUSPENSION_SOURCE_RECOVERY,
                             .since_ms = worker_wall_ms(site->worker),
                             .until_ms = pause_ends_ms + RECOVERY_MS_MAX,
                             .who = "rule",
                             .cap = {.sessions = sessions, .step_ms = pause_s * 1000}};

    snprintf(one.reason, sizeof(one.reason),
             "one session more with each that gets something through");
    suspension_name(one.name, str_of(source->name), str_of(site->name));
    return one;
}

/* sessions 0: it has recovered. */
static void recovery_store(const struct channel *c, uint32_t pause_s, uint32_t sessions,
                           int64_t pause_ends_ms)
{
    struct suspend_order order = {
        .resume = sessions == 0,
        .what = recovery_of(c->site, c->source, pause_s, sessions, pause_ends_ms)};

    suspend_submit_from(c->site->worker, &order);
}

/* Whether one, at c's site, suspends source. */
static bool is_meant(const struct channel *c, const struct suspension *one,
                     const struct config_source *source)
{
    const struct config_address *addresses[] = {&source->ipv4, &source->ipv6};
    char name[SUSPENSION_NAME_MAX + 1];

    if (one->scope == SUSPENSION_SOURCE_SITE)
        return source == c->source;
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        suspension_netblock(name, addresses[i], str_of(c->site->name));
        if (name[0] != 0 && strcmp(name, one->name) == 0)
            return true;
    }
    return false;
}

/* Each source that the order suspends comes back with one session. */
static void recoveries_add(const struct channel *c, uint32_t pause_s, struct suspend_order *order)
{
    const struct config *config = c->site->config;
    size_t len = config->sources_len;

    order->caps = calloc(len + 1, sizeof(*order->caps));
    ASSERT(order->caps != NULL);
    for (size_t i = 0; i < len; i++)
        if (is_meant(c, &order->what, &config->sources[i]))
            order->caps[order->caps_len++] =
                recovery_of(c->site, &config->sources[i], pause_s, 1, order->what.until_ms);
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

    if (!name_suspension(h, &order.what))
        return false;
    if (lasts_until(w, &order.what, until_ms) ||
        (suspensions_stored(&w->shared->suspensions) >= SUSPENSIONS_RULES_MAX &&
         !suspensions_hold(&w->shared->suspensions, order.what.scope, str_of(order.what.name))))
        return false;
    snprintf(order.what.who, sizeof(order.what.who), "%s", who);
    reply_put(h->reply, order.what.reason);
    h->suspension = order.what;
    if (order.what.scope == SUSPENSION_SOURCE_SITE || order.what.scope == SUSPENSION_NETBLOCK_SITE)
        recoveries_add(h->channel, pause_s, &order);
    suspend_submit_from(w, &order);
    return true;
}

/* False: it is lowered so already, for about as long. What another rule lowered stays lowered. */
static bool lower(struct heard *h, const char *who)
{
    const struct config_rule *r = h->rule;
    struct worker *w = h->channel->site->worker;
    int64_t now_ms = worker_wall_ms(w), step_ms = (int64_t)r->lowered_s * 1000;
    struct suspend_order order = {.what = {.scope = SUSPENSION_SOURCE_CAP,
                                           .since_ms = now_ms,
                                           .until_ms = now_ms + GOVERNOR_CAP_STEPS * step_ms,
                                           .cap = {.rate_messages = r->rate_messages,
                                                   .rate_period_ms = r->rate_period_ms,
                                                   .sessions = r->sessions_max,
                                                   .session_messages = r->session_messages_max,
                                                   .step_ms = (uint32_t)step_ms}}};
    struct suspension_cap *cap = &order.what.cap;
    struct suspension known;

    suspension_name(order.what.name, str_of(h->channel->source->name),
                    str_of(h->channel->site->name));
    if (suspensions_find(&w->shared->suspensions, SUSPENSION_SOURCE_CAP, str_of(order.what.name),
                         &known)) {
        if (cap->rate_messages == 0) {
            cap->rate_messages = known.cap.rate_messages;
            cap->rate_period_ms = known.cap.rate_period_ms;
        }
        cap->sessions = cap->sessions == 0 ? known.cap.sessions : cap->sessions;
        cap->session_messages =
            cap->session_messages == 0 ? known.cap.session_messages : cap->session_messages;
        if (now_ms >= known.since_ms && now_ms - known.since_ms < step_ms / LOWERED_PART &&
            memcmp(cap, &known.cap, sizeof(*cap)) == 0)
            return false;
    } else if (suspensions_caps(&w->shared->suspensions) >= SUSPENSION_CAPS_MAX) {
        return false;
    }
    snprintf(order.what.who, sizeof(order.what.who), "%s", who);
    reply_put(h->reply, order.what.reason);
    h->lowered = order.what;
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
    if (h->lowered.scope != 0)
        record.lowered = &h->lowered;
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

    if (!name_suspension(h, &what))
        what.name[0] = '\0';
    buf_printf(&name, "%s|%s|%s", r->name, h->channel->source->name, what.name);
    is = tally_hit(&w->shared->tally, buf_str(&name), r->after, (uint64_t)r->within_s * 1000,
                   r->suspend_s != 0 || config_rule_lowers(r) ? STORED_MS : ALARM_QUIET_MS,
                   io_now_ms(w->io));
    buf_done(&name);
    return is;
}

/* Whether what the rule suspends keeps the session from sending more. */
static bool ends_session(const struct heard *h)
{
    enum config_rule_scope scope = scope_of(h);

    return h->rule->suspend_s != 0 && (scope == CONFIG_RULE_SOURCE ||
                                       scope == CONFIG_RULE_NETBLOCK || scope == CONFIG_RULE_SITE);
}

/* Whether the rule's suspension keeps the session's source, or all, from sending. */
static bool rule_follow(struct heard *h)
{
    const struct config_rule *r = h->rule;
    const struct channel *c = h->channel;
    char who[SUSPENSION_WHO_MAX + 1], reply[SUSPENSION_REASON_MAX + 1];
    bool suspended, lowered;
    struct buf quoted = {0};

    if ((r->suspend_s == 0 && !r->alarm && !config_rule_lowers(r)) || !is_time(h))
        return r->after == 1 && ends_session(h);
    snprintf(who, sizeof(who), "rule %.50s", r->name);
    suspended = r->suspend_s != 0 && suspend_for(h, r->suspend_s, who);
    lowered = config_rule_lowers(r) && lower(h, who);
    reply_put(h->reply, reply);
    buf_put_json(&quoted, str_of(reply));
    if (r->alarm)
        log_warn("rule.alarm", "rule=%s site=%s source=%s reply=%.*s%s", r->name, c->site->name,
                 c->source->name, STR_FMT(buf_str(&quoted)),
                 suspended ? " action=\"suspended\""
                 : lowered ? " action=\"lowered\""
                           : "");
    buf_done(&quoted);
    if (suspended || lowered || r->alarm)
        put_record(h, r->name);
    return ends_session(h);
}

const struct config_rule *rule_hear(struct channel *c, int family, struct lane *lane,
                                    const struct message *m, const char *host,
                                    enum smtp_stage stage, const struct smtp_reply *reply,
                                    struct verdict *v)
{
    const struct rule_question q = {provider_of(c->site), host, stage, reply};
    struct heard h = {.channel = c, .family = family, .lane = lane, .message = m, .reply = reply};

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

void rule_hear_success(struct channel *c)
{
    int64_t now_ms = worker_wall_ms(c->site->worker);
    uint32_t pause_s, sessions;

    if (c->suspended || !governor_recovers(channel_told(c), &pause_s, &sessions))
        return;
    if (sessions <= RECOVERY_STORED_MAX || (sessions & (sessions - 1)) == 0)
        recovery_store(c, pause_s, sessions, now_ms);
}

#include "outcome/rule_act.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "outcome/report.h"
#include "outcome/suspend.h"
#include "schedule/flow_lower.h"
#include "schedule/flow_split.h"
#include "schedule/lane.h"
#include "schedule/settle.h"
#include "worker/queue_name.h"
#include "worker/shared.h"

#define ALARM_QUIET_MS 600000 /* between two alarms of one rule at one source and site */
/* What is heard so soon after an answer asks for no other suspension: it is longer by as much. */
#define STORED_MS 1000
#define NS_PER_MS UINT64_C(1000000)
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
    enum config_rule_scope scope; /* the rule's, or one of the three that it means */
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
    enum config_rule_scope scope = h->scope;

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
    case CONFIG_RULE_SOURCE_AND_DOMAINS: /* counted as the source's */
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

/* Behind a pause at site of what is called so: so many sessions may be open, or messages of a
 * domain be under way. */
static struct suspension recovery_of(const struct site *site, enum suspension_scope scope,
                                     const char *name, uint32_t pause_s, uint32_t sessions,
                                     int64_t pause_ends_ms)
{
    struct suspension one = {.scope = scope,
                             .since_ms = worker_wall_ms(site->worker),
                             .until_ms = pause_ends_ms + RECOVERY_MS_MAX,
                             .who = "rule",
                             .cap = {.sessions = sessions, .step_ms = pause_s * 1000}};

    snprintf(one.reason, sizeof(one.reason),
             "one session more with each that gets something through");
    snprintf(one.name, sizeof(one.name), "%s", name);
    return one;
}

/* So many may be open now; 0: it has recovered. */
static void recovery_store(const struct site *site, enum suspension_scope scope, const char *name,
                           uint32_t pause_s, uint32_t sessions)
{
    struct suspend_order order = {
        .resume = sessions == 0,
        .what = recovery_of(site, scope, name, pause_s, sessions, worker_wall_ms(site->worker))};

    if (sessions <= RECOVERY_STORED_MAX || (sessions & (sessions - 1)) == 0)
        suspend_submit_from(site->worker, &order);
}

/* Whether one, at c's site, suspends source. */
static bool is_meant(const struct channel *c, const struct suspension *one,
                     const struct config_source *source)
{
    const struct config_address *addresses[] = {&source->ipv4, &source->ipv6};
    char name[SUSPENSION_NAME_MAX + 1];

    if (one->scope == SUSPENSION_SOURCE_SITE)
        return source == c->source;
    if (one->scope == SUSPENSION_SITE)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        suspension_netblock(name, addresses[i], str_of(c->site->name));
        if (name[0] != 0 && strcmp(name, one->name) == 0)
            return true;
    }
    return false;
}

/* Each source that the order suspends comes back with one session. */
static void sources_recover(const struct channel *c, uint32_t pause_s, struct suspend_order *order)
{
    const struct config *config = c->site->config;
    size_t len = config->sources_len;
    char name[SUSPENSION_NAME_MAX + 1];

    order->caps = calloc(len + 1, sizeof(*order->caps));
    ASSERT(order->caps != NULL);
    for (size_t i = 0; i < len; i++) {
        if (!is_meant(c, &order->what, &config->sources[i]))
            continue;
        suspension_name(name, str_of(config->sources[i].name), str_of(c->site->name));
        order->caps[order->caps_len++] = recovery_of(c->site, SUSPENSION_SOURCE_RECOVERY, name,
                                                     pause_s, 1, order->what.until_ms);
    }
}

/* The domain that the order suspends comes back with one message at a time. */
static void domain_recovers(const struct channel *c, enum limit_kind kind, uint32_t pause_s,
                            struct suspend_order *order)
{
    struct governor_entry *entry = flow_lower_entry(c->site, kind, order->what.name);
    struct worker *w = c->site->worker;

    order->caps = malloc(sizeof(*order->caps));
    ASSERT(order->caps != NULL);
    order->caps[order->caps_len++] =
        recovery_of(c->site, flow_lower_scopes(kind)->recovery, order->what.name, pause_s, 1,
                    order->what.until_ms);
    governor_recover(entry, pause_s, io_now_ns(w->io));
    governor_put(w->shared->governor, entry, io_now_ns(w->io));
}

static void recoveries_add(const struct channel *c, uint32_t pause_s, struct suspend_order *order)
{
    enum suspension_scope scope = order->what.scope;

    if (scope == SUSPENSION_SOURCE_SITE || scope == SUSPENSION_NETBLOCK_SITE)
        sources_recover(c, pause_s, order);
    else if (scope == SUSPENSION_SIGNER_SITE)
        domain_recovers(c, LIMIT_LOWERED_SIGNER, pause_s, order);
    else if (scope == SUSPENSION_ENVELOPE_SITE)
        domain_recovers(c, LIMIT_LOWERED_ENVELOPE, pause_s, order);
}

/* Whether what one suspends is until then: by an operator, or for an answer a moment ago. */
static bool lasts_until(const struct worker *w, const struct suspension *one, int64_t until_ms)
{
    struct suspension known;

    return suspensions_find(&w->shared->suspensions, one->scope, str_of(one->name), &known) &&
           (known.until_ms == 0 || known.until_ms >= until_ms);
}

/* Suspends what names. False: it is suspended for as long, or there are too many suspensions. */
static bool suspend_named(struct heard *h, const struct suspension *names, uint32_t pause_s,
                          const char *who)
{
    struct worker *w = h->channel->site->worker;
    int64_t now_ms = worker_wall_ms(w), until_ms = now_ms + (int64_t)pause_s * 1000;
    struct suspend_order order = {.what = *names};

    ASSERT(suspension_is_stored(names->scope) && names->name[0] != '\0');
    if (lasts_until(w, &order.what, until_ms) ||
        (suspensions_stored(&w->shared->suspensions) >= SUSPENSIONS_RULES_MAX &&
         !suspensions_hold(&w->shared->suspensions, order.what.scope, str_of(order.what.name))))
        return false;
    order.what.since_ms = now_ms;
    order.what.until_ms = until_ms + STORED_MS;
    snprintf(order.what.who, sizeof(order.what.who), "%s", who);
    reply_put(h->reply, order.what.reason);
    h->suspension = order.what;
    recoveries_add(h->channel, pause_s, &order);
    suspend_submit_from(w, &order);
    return true;
}

static bool suspend_for(struct heard *h, uint32_t pause_s, const char *who)
{
    struct suspension names = {0};

    return name_suspension(h, &names) && suspend_named(h, &names, pause_s, who);
}

/* The scope of caps of what is meant; that of the source where all sources of a site or of a
 * netblock are, each of which has one. */
static enum suspension_scope cap_scope_of(const struct suspension *meant)
{
    enum limit_kind kind = flow_lower_kind(meant->scope);

    return kind == LIMIT_NONE ? SUSPENSION_SOURCE_CAP : flow_lower_scopes(kind)->cap;
}

/* What the rule lowers, but its name. */
static struct suspension cap_of(const struct heard *h, const char *who)
{
    const struct config_rule *r = h->rule;
    int64_t now_ms = worker_wall_ms(h->channel->site->worker);
    int64_t step_ms = (int64_t)r->lowered_s * 1000;
    struct suspension one = {.since_ms = now_ms,
                             .until_ms = now_ms + GOVERNOR_CAP_STEPS * step_ms,
                             .cap = {.rate_messages = r->rate_messages,
                                     .rate_period_ms = r->rate_period_ms,
                                     .sessions = r->sessions_max,
                                     .session_messages = r->session_messages_max,
                                     .step_ms = (uint32_t)step_ms}};

    snprintf(one.who, sizeof(one.who), "%s", who);
    reply_put(h->reply, one.reason);
    return one;
}

/* What another rule lowered stays lowered. False: so it is already, for about as long; or there are
 * too many. */
static bool cap_add(const struct heard *h, struct suspension *one)
{
    struct suspensions *all = &h->channel->site->worker->shared->suspensions;
    struct suspension_cap *cap = &one->cap;
    struct suspension known;

    if (!suspensions_find(all, one->scope, str_of(one->name), &known))
        return suspensions_caps(all) < SUSPENSION_CAPS_MAX;
    if (cap->rate_messages == 0) {
        cap->rate_messages = known.cap.rate_messages;
        cap->rate_period_ms = known.cap.rate_period_ms;
    }
    cap->sessions = cap->sessions == 0 ? known.cap.sessions : cap->sessions;
    cap->session_messages =
        cap->session_messages == 0 ? known.cap.session_messages : cap->session_messages;
    return one->since_ms < known.since_ms ||
           one->since_ms - known.since_ms >= cap->step_ms / LOWERED_PART ||
           memcmp(cap, &known.cap, sizeof(*cap)) != 0;
}

/* The caps of the other sources that are meant. */
static void others_add(const struct heard *h, const struct suspension *meant,
                       struct suspend_order *order)
{
    const struct channel *c = h->channel;
    const struct config *config = c->site->config;

    if (meant->scope != SUSPENSION_SITE && meant->scope != SUSPENSION_NETBLOCK_SITE)
        return;
    order->caps = calloc(config->sources_len + 1, sizeof(*order->caps));
    ASSERT(order->caps != NULL);
    for (size_t i = 0; i < config->sources_len; i++) {
        const struct config_source *source = &config->sources[i];
        struct suspension one = order->what;

        if (source == c->source || !is_meant(c, meant, source))
            continue;
        suspension_name(one.name, str_of(source->name), str_of(c->site->name));
        if (cap_add(h, &one))
            order->caps[order->caps_len++] = one;
    }
}

/* False: it is lowered so already, for about as long; or nothing of the mail is named so. */
static bool lower(struct heard *h, const char *who)
{
    const struct channel *c = h->channel;
    struct suspension meant = {0};
    struct suspend_order order = {.what = cap_of(h, who)};

    if (!name_suspension(h, &meant))
        return false;
    order.what.scope = cap_scope_of(&meant);
    if (order.what.scope == SUSPENSION_SOURCE_CAP)
        suspension_name(order.what.name, str_of(c->source->name), str_of(c->site->name));
    else
        snprintf(order.what.name, sizeof(order.what.name), "%s", meant.name);
    if (!cap_add(h, &order.what))
        return false;
    others_add(h, &meant, &order);
    h->lowered = order.what;
    suspend_submit_from(c->site->worker, &order);
    return true;
}

/* Under which rules know who runs the site's exchangers: the name that warm-up counts by. */
static const char *provider_of(const struct site *site)
{
    return site->provider != NULL ? site->provider->warmup : "default";
}

/* The sessions of a worker are those of lanes, whose shards it owns. */
static void put_record(const struct heard *h, const char *rule, bool alarm)
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
                                 .alarm = alarm};
    struct buf line = {0};

    if (h->suspension.scope != 0) {
        record.scope = suspension_scope_name(h->suspension.scope);
        record.name = h->suspension.name;
        record.until_ms = h->suspension.until_ms;
    }
    if (h->lowered.scope != 0)
        record.lowered = &h->lowered;
    report_rule(&line, &record);
    settle(w, &(struct settlement){.shard = h->lane != NULL ? h->lane->shard : w->index,
                                   .records = buf_str(&line)});
    buf_done(&line);
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

    return h->rule->suspend_s != 0 &&
           (scope == CONFIG_RULE_SOURCE || scope == CONFIG_RULE_SOURCE_AND_DOMAINS ||
            scope == CONFIG_RULE_NETBLOCK || scope == CONFIG_RULE_SITE);
}

/* What the rule does in h->scope, with its record. The alarm is one. */
static void rule_carry_out(struct heard *h, bool alarm)
{
    const struct config_rule *r = h->rule;
    const struct channel *c = h->channel;
    char who[SUSPENSION_WHO_MAX + 1], reply[SUSPENSION_REASON_MAX + 1];
    bool suspended, lowered;
    struct buf quoted = {0};

    snprintf(who, sizeof(who), "rule %.50s", r->name);
    h->suspension.scope = h->lowered.scope = 0;
    suspended = r->suspend_s != 0 && suspend_for(h, r->suspend_s, who);
    lowered = config_rule_lowers(r) && lower(h, who);
    reply_put(h->reply, reply);
    buf_put_json(&quoted, str_of(reply));
    if (alarm)
        log_warn("rule.alarm", "rule=%s site=%s source=%s reply=%.*s%s", r->name, c->site->name,
                 c->source->name, STR_FMT(buf_str(&quoted)),
                 suspended ? " action=\"suspended\""
                 : lowered ? " action=\"lowered\""
                           : "");
    buf_done(&quoted);
    if (suspended || lowered || alarm)
        put_record(h, r->name, alarm);
}

/* Whether the rule's suspension keeps the session's source, or all, from sending. */
static bool rule_follow(struct heard *h)
{
    const struct config_rule *r = h->rule;
    bool ends = ends_session(h), all_three = scope_of(h) == CONFIG_RULE_SOURCE_AND_DOMAINS;

    if ((r->suspend_s == 0 && !r->alarm && !config_rule_lowers(r)) || !is_time(h))
        return r->after == 1 && ends;
    if (all_three)
        h->scope = CONFIG_RULE_SOURCE;
    rule_carry_out(h, r->alarm);
    if (!all_three)
        return ends;
    h->scope = CONFIG_RULE_SIGNER;
    if (signer_of(h).len > 0)
        rule_carry_out(h, false);
    h->scope = CONFIG_RULE_ENVELOPE;
    rule_carry_out(h, false);
    return ends;
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
        h.scope = h.rule->scope;
    if (h.rule != NULL)
        rule_verdict(h.rule, stage, rule_follow(&h), v);
    return h.rule;
}

static const struct smtp_reply nothing = {
    .code = 451, .text_len = sizeof(NOTHING) - 1, .text = NOTHING};

void rule_hear_failure(struct channel *c)
{
    struct heard h = {.channel = c, .scope = CONFIG_RULE_SOURCE, .reply = &nothing};
    uint32_t pause_s = governor_recovery_s(channel_told(c));

    if (pause_s != 0 && !c->suspended && suspend_for(&h, pause_s - STORED_MS / 1000, "rule"))
        put_record(&h, "recovery", false);
}

void rule_hear_success(struct channel *c)
{
    uint32_t pause_s, sessions;
    char name[SUSPENSION_NAME_MAX + 1];

    if (c->suspended || !governor_recovers(channel_told(c), &pause_s, &sessions))
        return;
    suspension_name(name, str_of(c->source->name), str_of(c->site->name));
    recovery_store(c->site, SUSPENSION_SOURCE_RECOVERY, name, pause_s, sessions);
}

/* Names the pause behind which limit is of a domain that comes back. False: it is no such limit, or
 * what is heard of was taken, at taken_ms, before the pause was asked for; or that is not over. */
static bool recovers(const struct channel *c, const struct limit *limit, uint64_t taken_ms,
                     struct suspension *pause)
{
    const struct flow_lower_scopes *scopes = flow_lower_scopes(limit->kind);

    if (scopes->recovery == 0 || taken_ms * NS_PER_MS <= governor_recover_ns(limit->entry))
        return false;
    *pause = (struct suspension){.scope = scopes->pause};
    snprintf(pause->name, sizeof(pause->name), "%s", limit->lowered);
    return !suspensions_hold(&c->site->worker->shared->suspensions, pause->scope,
                             str_of(pause->name));
}

void rule_hear_flow_failure(struct channel *c, const struct limits_lowered *lowered,
                            uint64_t taken_ms)
{
    struct suspension pause;

    for (size_t i = 0; lowered != NULL && i < lowered->len; i++) {
        struct heard h = {.channel = c, .reply = &nothing};
        uint32_t pause_s = governor_recovery_s(lowered->of[i].entry);

        if (pause_s != 0 && recovers(c, &lowered->of[i], taken_ms, &pause) &&
            suspend_named(&h, &pause, pause_s, "rule"))
            put_record(&h, "recovery", false);
    }
}

void rule_hear_flow_success(struct channel *c, const struct limits_lowered *lowered,
                            uint64_t taken_ms, uint64_t worked_ms)
{
    struct suspension pause;
    uint32_t pause_s, sessions;

    for (size_t i = 0; lowered != NULL && i < lowered->len; i++)
        if ((worked_ms == 0 ||
             worked_ms * NS_PER_MS <= governor_recover_ns(lowered->of[i].entry)) &&
            recovers(c, &lowered->of[i], taken_ms, &pause) &&
            governor_recovers(lowered->of[i].entry, &pause_s, &sessions))
            recovery_store(c->site, flow_lower_scopes(lowered->of[i].kind)->recovery, pause.name,
                           pause_s, sessions);
}

#include "control/control_request.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/suggest.h"
#include "config/config_value.h"
#include "dns/name.h"
#include "worker/queue_name.h"

#define DESTINATIONS_DEFAULT 50
#define DESTINATIONS_MAX     1000
#define DAYS_DEFAULT         30
#define DAYS_MAX             10000
#define WARMUP_NUMBER_MAX    1000000
#define NAME_MAX_BYTES       255 /* of a domain, site, campaign, tenant or source */
#define SUSPENSION_MS_MAX    (INT64_C(3650) * 24 * 3600 * 1000)

static const struct op_name {
    const char *name;
    enum control_op op;
    enum admin_action action;
} ops[] = {
    {"status", CONTROL_OP_STATUS, 0},
    {"list", CONTROL_OP_LIST, 0},
    {"count", CONTROL_OP_COUNT, 0},
    {"summary", CONTROL_OP_SUMMARY, 0},
    {"show", CONTROL_OP_SHOW, 0},
    {"content", CONTROL_OP_CONTENT, 0},
    {"hold", CONTROL_OP_ACTION, ADMIN_HOLD},
    {"release", CONTROL_OP_ACTION, ADMIN_RELEASE},
    {"flush", CONTROL_OP_ACTION, ADMIN_FLUSH},
    {"cancel", CONTROL_OP_ACTION, ADMIN_CANCEL},
    {"expire", CONTROL_OP_ACTION, ADMIN_EXPIRE},
    {"quarantine", CONTROL_OP_QUARANTINE, 0},
    {"purge", CONTROL_OP_PURGE, 0},
    {"suspend", CONTROL_OP_SUSPEND, 0},
    {"resume", CONTROL_OP_RESUME, 0},
    {"suspensions", CONTROL_OP_SUSPENSIONS, 0},
    {"why", CONTROL_OP_WHY, 0},
    {"route", CONTROL_OP_ROUTE, 0},
    {"trace", CONTROL_OP_TRACE, 0},
    {"sites", CONTROL_OP_SITES, 0},
    {"warmup", CONTROL_OP_WARMUP, 0},
    {"warmup_days", CONTROL_OP_WARMUP_DAYS, 0},
    {"warmup_order", CONTROL_OP_WARMUP_ORDER, 0},
    {"campaigns", CONTROL_OP_CAMPAIGNS, 0},
    {"campaign_report", CONTROL_OP_CAMPAIGN_REPORT, 0},
    {"campaign_order", CONTROL_OP_CAMPAIGN_ORDER, 0},
    {"suppressions", CONTROL_OP_SUPPRESSIONS, 0},
    {"suppression_add", CONTROL_OP_SUPPRESSION_ADD, 0},
    {"suppression_remove", CONTROL_OP_SUPPRESSION_REMOVE, 0},
    {"stored", CONTROL_OP_STORED, 0},
    {"reload", CONTROL_OP_RELOAD, 0},
    {"drain", CONTROL_OP_DRAIN, 0},
    {"version", CONTROL_OP_VERSION, 0},
};

static int __attribute__((format(printf, 2, 3)))
refuse(struct control_refusal *why, const char *fmt, ...)
{
    va_list args;

    ASSERT(why->code != NULL); /* the answer is whole with its message */
    va_start(args, fmt);
    vsnprintf(why->message, sizeof(why->message), fmt, args);
    va_end(args);
    return -EINVAL;
}

static void hint_nearest(struct control_refusal *why, const struct suggest *s)
{
    if (s->best != NULL)
        snprintf(why->hint, sizeof(why->hint), "did you mean '%s'?", s->best);
}

/* --- members of the filter --- */

static int take_text(struct control_refusal *why, const char *name, const json_t *value,
                     struct str *out)
{
    if (!json_is_string(value))
        return refuse(why, "'%.40s' takes a string", name);
    *out = (struct str){json_string_value(value), json_string_length(value)};
    return 0;
}

static int take_number(struct control_refusal *why, const char *name, const json_t *value,
                       uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return refuse(why, "'%.40s' takes a number, 0 or more", name);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int take_bool(struct control_refusal *why, const char *name, const json_t *value, bool *out)
{
    *out = json_is_true(value);
    return json_is_boolean(value) ? 0 : refuse(why, "'%s' is true or false", name);
}

static int take_id(struct control_refusal *why, const json_t *value, struct msgid *out)
{
    struct str text = {json_string_value(value), json_string_length(value)};

    if (json_is_string(value) && msgid_parse(text, out) == 0)
        return 0;
    snprintf(why->hint, sizeof(why->hint), "an id is 32 hexadecimal digits, as 'list' shows it");
    return refuse(why, "'id' is not a message id");
}

static int take_state(struct control_refusal *why, const json_t *value, enum control_state *out)
{
    for (enum control_state s = CONTROL_STATE_READY; s <= CONTROL_STATE_HELD; s++) {
        if (!json_is_string(value) || strcmp(json_string_value(value), control_state_name(s)) != 0)
            continue;
        *out = s;
        return 0;
    }
    return refuse(why, "'state' is ready, deferred or held");
}

static int take_age(struct control_refusal *why, const char *name, const json_t *value,
                    int64_t *out)
{
    uint64_t v = 0;
    int err = take_number(why, name, value, &v);

    if (err == 0)
        *out = (int64_t)v;
    return err;
}

static const char *const filter_names[] = {
    "queue", "sender", "recipient",  "campaign",   "tenant",       "error",
    "id",    "state",  "age_min_ms", "age_max_ms", "attempts_min", "attempts_max",
};

static bool is_of_quarantine(enum control_op op)
{
    return op == CONTROL_OP_QUARANTINE || op == CONTROL_OP_PURGE;
}

static int take_filter(struct control_request *r, struct control_refusal *why, const char *name,
                       const json_t *value)
{
    struct control_filter *f = &r->filter;
    const struct {
        const char *name;
        struct str *member;
    } texts[] = {{"queue", &f->queue},       {"sender", &f->sender}, {"recipient", &f->recipient},
                 {"campaign", &f->campaign}, {"tenant", &f->tenant}, {"error", &f->error}};
    struct suggest s;

    if (is_of_quarantine(r->op) && strcmp(name, "record") == 0)
        return take_text(why, name, value, &f->record);
    if (is_of_quarantine(r->op) && strcmp(name, "queue") != 0 && strcmp(name, "id") != 0)
        return refuse(why, "damaged records are chosen by record, queue or id, not by '%.40s'",
                      name);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(name, texts[i].name) == 0)
            return take_text(why, name, value, texts[i].member);
    if (strcmp(name, "id") == 0) {
        f->has_id = true;
        return take_id(why, value, &f->id);
    }
    if (strcmp(name, "state") == 0)
        return take_state(why, value, &f->state);
    if (strcmp(name, "age_min_ms") == 0)
        return take_age(why, name, value, &f->age_min_ms);
    if (strcmp(name, "age_max_ms") == 0)
        return take_age(why, name, value, &f->age_max_ms);
    if (strcmp(name, "attempts_min") == 0)
        return take_number(why, name, value, &f->attempts_min);
    if (strcmp(name, "attempts_max") == 0)
        return take_number(why, name, value, &f->attempts_max);
    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < ARRAY_LEN(filter_names); i++)
        suggest_offer(&s, filter_names[i]);
    hint_nearest(why, &s);
    return refuse(why, "unknown filter '%.40s'", name);
}

/* Queues are named by A-labels: "例え.jp" and "*.例え.jp" become that, label by label. NULL where a
 * label cannot be one. */
static json_t *ascii_pattern(struct str pattern)
{
    struct buf out = {0};
    json_t *ascii;
    bool good = true;

    while (good) {
        ptrdiff_t dot = str_find(pattern, '.');
        struct str label = {pattern.ptr, dot < 0 ? pattern.len : (size_t)dot};
        struct dns_name name;

        if (str_is_ascii(label)) {
            buf_put_str(&out, label);
        } else {
            good = dns_name_parse(&name, label) == 0;
            buf_put(&out, name.text, good ? name.len : 0);
        }
        if (dot < 0)
            break;
        buf_putc(&out, '.');
        pattern.ptr += label.len + 1;
        pattern.len -= label.len + 1;
    }
    ascii = good ? json_stringn((const char *)out.data, out.len) : NULL;
    buf_done(&out);
    return ascii;
}

static int make_queue_ascii(struct control_refusal *why, json_t *filter)
{
    const json_t *queue = json_object_get(filter, "queue");
    struct str text = {json_string_value(queue), json_string_length(queue)};
    json_t *ascii;

    if (str_is_ascii(text))
        return 0;
    ascii = ascii_pattern(text);
    if (ascii == NULL)
        return refuse(why, "'queue' is no domain");
    (void)json_object_set_new(filter, "queue", ascii);
    return 0;
}

/* "a@例え.jp" with the domain by its A-labels, as the store has it; behind a local part that is not
 * ASCII the store has the domain as it came, so that both are looked for. The filter keeps the
 * text. */
static void take_ascii_address(json_t *filter, const char *key, struct str address, struct str *out)
{
    const char *at = address.ptr == NULL ? NULL : memrchr(address.ptr, '@', address.len);
    struct buf text = {0};
    struct str local, domain;
    json_t *ascii;

    if (at == NULL)
        return;
    local = (struct str){address.ptr, (size_t)(at + 1 - address.ptr)};
    domain = (struct str){at + 1, address.len - local.len};
    ascii = str_is_ascii(domain) ? NULL : ascii_pattern(domain);
    if (ascii == NULL) /* the same, or no domain */
        return;
    buf_put_str(&text, local);
    buf_puts(&text, json_string_value(ascii));
    json_decref(ascii);
    ascii = json_stringn((const char *)text.data, text.len);
    buf_done(&text);
    if (json_object_set_new(filter, key, ascii) == 0)
        *out = (struct str){json_string_value(ascii), json_string_length(ascii)};
}

static int take_filters(struct control_request *r, struct control_refusal *why, json_t *value)
{
    const char *name;
    json_t *member;
    int err;

    if (!json_is_object(value))
        return refuse(why, "'filter' takes an object");
    err = make_queue_ascii(why, value);
    if (err != 0)
        return err;
    json_object_foreach(value, name, member)
    {
        err = take_filter(r, why, name, member);
        if (err != 0)
            return err;
        r->filtered = true;
    }
    take_ascii_address(value, "sender in ASCII", r->filter.sender, &r->filter.sender_ascii);
    take_ascii_address(value, "recipient in ASCII", r->filter.recipient,
                       &r->filter.recipient_ascii);
    return 0;
}

/* --- the request --- */

static int take_op(struct control_request *r, struct control_refusal *why, const json_t *value)
{
    struct suggest s;

    if (!json_is_string(value))
        return refuse(why, "'op' is missing or no string");
    suggest_init(&s, str_of(json_string_value(value)));
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        suggest_offer(&s, ops[i].name);
        if (strcmp(json_string_value(value), ops[i].name) != 0)
            continue;
        r->op = ops[i].op;
        r->action = ops[i].action;
        return 0;
    }
    hint_nearest(why, &s);
    return refuse(why, "unknown op '%.40s'", json_string_value(value));
}

static int take_destinations(struct control_request *r, struct control_refusal *why,
                             const json_t *value)
{
    uint64_t v = 0;
    int err = take_number(why, "destinations", value, &v);

    if (err == 0)
        r->destinations = (uint32_t)(v < DESTINATIONS_MAX ? v : DESTINATIONS_MAX);
    return err;
}

static int take_scope(struct control_request *r, struct control_refusal *why, const json_t *value)
{
    struct str text = {json_string_value(value), json_string_length(value)};

    if (json_is_string(value))
        r->suspension.scope = suspension_scope_of(text);
    return r->suspension.scope != 0
               ? 0
               : refuse(why, "'scope' is domain, campaign, tenant, site, source, source_site, "
                             "campaign_site, tenant_site, netblock_site, signer_site, "
                             "envelope_site, source_cap, campaign_cap, tenant_cap, signer_cap "
                             "or envelope_cap");
}

static int take_for(struct control_refusal *why, const json_t *value, int64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > SUSPENSION_MS_MAX)
        return refuse(why, "'for_ms' takes a number, 1 to ten years");
    *out = json_integer_value(value);
    return 0;
}

/* Copies text that is stored with a NUL behind it. */
static int take_short(struct control_refusal *why, const char *name, const json_t *value, char *out,
                      size_t size)
{
    ASSERT(size > 0);
    if (!json_is_string(value))
        return refuse(why, "'%.40s' takes a string", name);
    if (json_string_length(value) >= size)
        return refuse(why, "'%.40s' is longer than %zu bytes", name, size - 1);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return refuse(why, "'%.40s' has a NUL in it", name);
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return 0;
}

/* Names of sites have lower case, paths of sockets apart. */
static void site_fold(char *site)
{
    for (; strncmp(site, "unix:", 5) != 0 && *site != '\0'; site++)
        *site = ascii_lower(*site);
}

/* "DOMAIN@SITE" with the domain by its A-labels. */
static int domain_at_site_settle(struct suspension *one, struct control_refusal *why)
{
    const char *at = strchr(one->name, '@');
    char site[SUSPENSION_NAME_MAX + 1];
    struct dns_name domain;

    ASSERT(at != NULL); /* as of all scopes at a site: name_settle() has looked */
    if (queue_name_of((struct str){one->name, (size_t)(at - one->name)}, &domain) < 0)
        return refuse(why, "'%.100s' is no DOMAIN@SITE", one->name);
    snprintf(site, sizeof(site), "%s", at + 1);
    site_fold(site);
    suspension_name(one->name, (struct str){domain.text, domain.len}, str_of(site));
    return 0;
}

/* The name as the queue knows it: a domain by its A-labels, a campaign or tenant as far as flows
 * look at names. */
static int name_settle(struct suspension *one, struct control_refusal *why)
{
    struct dns_name domain;

    if (one->scope == 0)
        return refuse(
            why, "'scope' is missing: domain, campaign, tenant, site, source, source_site ...");
    if (one->name[0] == '\0')
        return refuse(why, "'name' is missing");
    if (suspension_is_recovery(one->scope))
        return refuse(why, "a source recovers by what gets through; nobody orders that");
    if (!suspension_is_at_site(one->scope) && strlen(one->name) > NAME_MAX_BYTES)
        return refuse(why, "'name' is longer than %d bytes", NAME_MAX_BYTES);
    if (suspension_is_at_site(one->scope) && strchr(one->name, '@') == NULL)
        return refuse(why, "'%.100s' is not WHAT@SITE", one->name);
    if (suspension_is_of_messages(one->scope))
        return domain_at_site_settle(one, why);
    if (one->scope == SUSPENSION_CAMPAIGN || one->scope == SUSPENSION_TENANT)
        one->name[FLOW_NAME_MAX] = '\0';
    if (one->scope == SUSPENSION_SITE)
        site_fold(one->name);
    else if (suspension_is_at_site(one->scope))
        site_fold(strrchr(one->name, '@') + 1);
    if (one->scope != SUSPENSION_DOMAIN)
        return 0;
    if (queue_name_of(str_of(one->name), &domain) < 0) {
        snprintf(
            why->hint, sizeof(why->hint),
            "one domain, no pattern; a site takes all its domains, a campaign and a tenant all "
            "of theirs");
        return refuse(why, "'%.100s' is no domain", one->name);
    }
    ASSERT(domain.len < sizeof(one->name));
    memcpy(one->name, domain.text, domain.len);
    one->name[domain.len] = '\0';
    return 0;
}

/* Of `why`: a message id, or a name. */
static int subject_settle(struct control_request *r, struct control_refusal *why, bool has_id)
{
    ASSERT(r->op == CONTROL_OP_WHY);
    if (has_id == (r->suspension.name[0] != '\0'))
        return refuse(why, "'why' takes an 'id' or a 'name'");
    if (suspension_is_at_site(r->suspension.scope))
        return refuse(why, "'scope' of 'why' is domain, campaign, tenant, site or source");
    r->filter.has_id = has_id;
    r->filter.id = r->id;
    return 0;
}

static int take_order(struct control_request *r, struct control_refusal *why, const json_t *value)
{
    static const char *const names[] = {[WARMUP_START] = "start",
                                        [WARMUP_PAUSE] = "pause",
                                        [WARMUP_RESUME] = "resume",
                                        [WARMUP_STAGE] = "stage",
                                        [WARMUP_COMPLAINTS] = "complaints"};

    for (size_t i = 0; i < ARRAY_LEN(names) && json_is_string(value); i++) {
        if (strcmp(json_string_value(value), names[i]) != 0)
            continue;
        r->warmup.kind = (uint8_t)i;
        r->has_order = true;
        return 0;
    }
    return refuse(why, "'order' is start, pause, resume, stage or complaints");
}

static int take_order_number(struct control_request *r, struct control_refusal *why,
                             const json_t *value)
{
    uint64_t v = 0;
    int err = take_number(why, "number", value, &v);

    if (err == 0 && (v == 0 || v > WARMUP_NUMBER_MAX))
        return refuse(why, "'number' is 1 to %d", WARMUP_NUMBER_MAX);
    r->warmup.number = (uint32_t)v;
    return err;
}

/* An order is whole: of whom, what, and how many. */
static int order_check(const struct control_request *r, struct control_refusal *why)
{
    bool counts = r->warmup.kind == WARMUP_STAGE || r->warmup.kind == WARMUP_COMPLAINTS;

    ASSERT(r->op == CONTROL_OP_WARMUP_ORDER);
    if (!r->has_order)
        return refuse(why, "'order' is missing: start, pause, resume, stage or complaints");
    if (*r->warmup.source == 0)
        return refuse(why, "'source' is missing");
    if (r->warmup.kind == WARMUP_COMPLAINTS && *r->warmup.provider == 0)
        return refuse(why, "'provider' is missing: whose users complained?");
    if (counts != (r->warmup.number != 0))
        return refuse(why, counts ? "'number' is missing" : "this order takes no 'number'");
    return 0;
}

static int take_warmup(struct control_request *r, struct control_refusal *why, const char *name,
                       const json_t *value)
{
    if (strcmp(name, "source") == 0)
        return take_short(why, name, value, r->warmup.source, sizeof(r->warmup.source));
    if (strcmp(name, "provider") == 0)
        return take_short(why, name, value, r->warmup.provider, sizeof(r->warmup.provider));
    if (strcmp(name, "order") == 0)
        return take_order(r, why, value);
    if (strcmp(name, "number") == 0)
        return take_order_number(r, why, value);
    if (strcmp(name, "days") == 0) {
        int err = take_number(why, name, value, &r->days);

        return err == 0 && r->days > DAYS_MAX ? refuse(why, "'days' is at most %d", DAYS_MAX) : err;
    }
    return refuse(why, "unknown member '%.40s'", name);
}

static int take_route(struct control_request *r, struct control_refusal *why, const char *name,
                      const json_t *value)
{
    const struct {
        const char *name;
        struct str *member;
    } texts[] = {{"recipient", &r->route.recipient},
                 {"sender", &r->route.sender},
                 {"pool", &r->route.pool},
                 {"campaign", &r->route.campaign},
                 {"tenant", &r->route.tenant}};

    ASSERT(r->op == CONTROL_OP_ROUTE);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(name, texts[i].name) == 0)
            return take_text(why, name, value, texts[i].member);
    if (strcmp(name, "engaged") == 0)
        return take_bool(why, name, value, &r->route.engaged);
    return refuse(why, "unknown member '%.40s'", name);
}

static int take_trace(struct control_request *r, struct control_refusal *why, const char *name,
                      const json_t *value)
{
    struct dialogue_filter *f = &r->trace;
    char network[64] = "";

    ASSERT(r->op == CONTROL_OP_TRACE);
    if (strcmp(name, "site") == 0)
        return take_short(why, name, value, f->site, sizeof(f->site));
    if (strcmp(name, "source") == 0)
        return take_short(why, name, value, f->source, sizeof(f->source));
    if (strcmp(name, "message") == 0) {
        f->has_message = true;
        return take_id(why, value, &f->message);
    }
    if (strcmp(name, "client") != 0)
        return refuse(why, "unknown member '%.40s'", name);
    if (take_short(why, name, value, network, sizeof(network)) < 0)
        return -EINVAL;
    f->has_client = config_parse_network(str_of(network), &f->client) == 0;
    return f->has_client ? 0 : refuse(why, "'client' is an address or a network, 10.0.0.0/8");
}

static int take_campaign(struct control_request *r, struct control_refusal *why, const char *name,
                         const json_t *value)
{
    static const char *const names[] = {
        [CAMPAIGN_START] = "start",   [CAMPAIGN_PAUSE] = "pause", [CAMPAIGN_RESUME] = "resume",
        [CAMPAIGN_CANCEL] = "cancel", [CAMPAIGN_SET] = "set",     [CAMPAIGN_CLOSE] = "close"};
    int err;

    if (strcmp(name, "at_ms") == 0)
        return take_age(why, name, value, &r->campaign.at_ms);
    if (strcmp(name, "open") == 0) {
        r->campaign.open = json_is_true(value);
        return json_is_boolean(value) ? 0 : refuse(why, "'open' is true or false");
    }
    if (strcmp(name, "pool") == 0)
        return take_text(why, name, value, &r->campaign.pool);
    if (strcmp(name, "rate") == 0)
        return take_text(why, name, value, &r->campaign.rate);
    if (strcmp(name, "priority") == 0) {
        err = take_number(why, name, value, &r->campaign.priority);
        if (err == 0 && r->campaign.priority++ >= FLOW_PRIORITIES)
            return refuse(why, "'priority' is 0 (first) to 9 (last)");
        return err;
    }
    if (strcmp(name, "order") != 0)
        return refuse(why, "unknown member '%.40s'", name);
    for (size_t i = CAMPAIGN_START; i < ARRAY_LEN(names) && json_is_string(value); i++)
        if (strcmp(json_string_value(value), names[i]) == 0) {
            r->campaign.verb = (enum campaign_verb)i;
            r->has_order = true;
            return 0;
        }
    return refuse(why, "'order' is start, pause, resume, cancel, set or close");
}

static bool is_of_campaigns(enum control_op op)
{
    return op == CONTROL_OP_CAMPAIGNS || op == CONTROL_OP_CAMPAIGN_REPORT ||
           op == CONTROL_OP_CAMPAIGN_ORDER;
}

/* Of all campaigns, of those with a name, or of one with an id; a report and an order are of one.
 */
static int campaign_settle(struct control_request *r, struct control_refusal *why, bool has_id)
{
    ASSERT(is_of_campaigns(r->op));
    r->filter.has_id = has_id;
    r->filter.id = r->id;
    if (r->op == CONTROL_OP_CAMPAIGNS)
        return 0;
    if (!has_id)
        return refuse(why, "'id' is missing");
    if (r->op == CONTROL_OP_CAMPAIGN_REPORT)
        return 0;
    if (!r->has_order)
        return refuse(why, "'order' is missing: start, pause, resume, cancel, set or close");
    if ((r->campaign.at_ms != 0 || r->campaign.open) && r->campaign.verb != CAMPAIGN_START)
        return refuse(why, "'at_ms' and 'open' are of a start");
    if (r->campaign.verb != CAMPAIGN_SET &&
        (r->campaign.pool.ptr != NULL || r->campaign.rate.ptr != NULL || r->campaign.priority != 0))
        return refuse(why, "'pool', 'rate' and 'priority' are of the order 'set'");
    return 0;
}

static bool is_of_suppression(enum control_op op)
{
    return op == CONTROL_OP_SUPPRESSIONS || op == CONTROL_OP_SUPPRESSION_ADD ||
           op == CONTROL_OP_SUPPRESSION_REMOVE;
}

static int take_suppression(struct control_request *r, struct control_refusal *why,
                            const char *name, const json_t *value)
{
    int err;

    ASSERT(is_of_suppression(r->op));
    if (strcmp(name, "tenant") == 0) {
        err = take_text(why, name, value, &r->suppress.tenant);
        return err == 0 && (r->suppress.tenant.len > FLOW_NAME_MAX ||
                            strlen(r->suppress.tenant.ptr) != r->suppress.tenant.len)
                   ? refuse(why, "'tenant' is at most %d bytes", FLOW_NAME_MAX)
                   : err;
    }
    if (strcmp(name, "email") == 0 && r->op == CONTROL_OP_SUPPRESSIONS)
        return take_text(why, name, value, &r->suppress.email);
    if (strcmp(name, "entries") != 0 || r->op == CONTROL_OP_SUPPRESSIONS)
        return refuse(why, "unknown member '%.40s'", name);
    r->suppress.entries = value;
    return json_is_array(value) ? 0 : refuse(why, "'entries' takes a list");
}

static int take_member(struct control_request *r, struct control_refusal *why, const char *name,
                       json_t *value, bool *has_id)
{
    if (strcmp(name, "op") == 0)
        return 0;
    if (strcmp(name, "filter") == 0)
        return take_filters(r, why, value);
    if (strcmp(name, "limit") == 0)
        return take_number(why, name, value, &r->limit);
    if (strcmp(name, "destinations") == 0)
        return take_destinations(r, why, value);
    if (strcmp(name, "all") == 0)
        return take_bool(why, name, value, &r->all);
    if (strcmp(name, "scope") == 0)
        return take_scope(r, why, value);
    if (strcmp(name, "name") == 0)
        return take_short(why, name, value, r->suspension.name, sizeof(r->suspension.name));
    if (strcmp(name, "reason") == 0)
        return take_short(why, name, value, r->suspension.reason, sizeof(r->suspension.reason));
    if (strcmp(name, "who") == 0)
        return take_short(why, name, value, r->suspension.who, sizeof(r->suspension.who));
    if (strcmp(name, "for_ms") == 0)
        return take_for(why, value, &r->for_ms);
    if (strcmp(name, "data") == 0)
        return take_bool(why, name, value, &r->data);
    if (strcmp(name, "id") == 0) {
        *has_id = true;
        return take_id(why, value, &r->id);
    }
    if (is_of_campaigns(r->op))
        return take_campaign(r, why, name, value);
    if (is_of_suppression(r->op))
        return take_suppression(r, why, name, value);
    if (r->op == CONTROL_OP_TRACE)
        return take_trace(r, why, name, value);
    return r->op == CONTROL_OP_ROUTE ? take_route(r, why, name, value)
                                     : take_warmup(r, why, name, value);
}

static int take_request(struct control_request *r, struct control_refusal *why, json_t *root)
{
    bool has_id = false;
    const char *name;
    json_t *value;
    int err;

    if (!json_is_object(root))
        return refuse(why, "a request is a JSON object");
    err = take_op(r, why, json_object_get(root, "op"));
    if (err != 0)
        return err;
    json_object_foreach(root, name, value)
    {
        err = take_member(r, why, name, value, &has_id);
        if (err != 0)
            return err;
    }
    if ((r->op == CONTROL_OP_SHOW || r->op == CONTROL_OP_CONTENT || r->op == CONTROL_OP_STORED) &&
        !has_id)
        return refuse(why, "'id' is missing");
    if (r->op == CONTROL_OP_SUSPEND && suspension_is_cap(r->suspension.scope))
        return refuse(why, "rules alone lower limits; suspend the source there, or change its "
                           "configuration");
    if (r->op == CONTROL_OP_SUSPEND || r->op == CONTROL_OP_RESUME)
        return name_settle(&r->suspension, why);
    if (r->op == CONTROL_OP_ROUTE && r->route.recipient.len == 0)
        return refuse(why, "'recipient' is missing");
    if (r->op == CONTROL_OP_WHY)
        return subject_settle(r, why, has_id);
    if (r->op == CONTROL_OP_WARMUP_ORDER)
        return order_check(r, why);
    if (is_of_campaigns(r->op))
        return campaign_settle(r, why, has_id);
    if (is_of_suppression(r->op) && r->op != CONTROL_OP_SUPPRESSIONS && r->suppress.entries == NULL)
        return refuse(why, "'entries' is missing");
    if ((r->op == CONTROL_OP_ACTION || r->op == CONTROL_OP_PURGE) && !r->filtered && !r->all) {
        snprintf(why->hint, sizeof(why->hint), "give a filter, or \"all\":true to mean every row");
        return refuse(why, r->op == CONTROL_OP_PURGE
                               ? "this would forget every damaged record"
                               : "this would change every recipient of the queue");
    }
    return 0;
}

int control_request_parse(struct str line, struct control_request *out, struct control_refusal *why)
{
    struct control_request r = {.destinations = DESTINATIONS_DEFAULT,
                                .days = DAYS_DEFAULT,
                                .filter = {.age_max_ms = INT64_MAX, .attempts_max = UINT64_MAX}};
    json_error_t error;
    json_t *root = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, &error);
    int err;

    *why = (struct control_refusal){.code = "bad_request"};
    if (root == NULL)
        return refuse(why, "not JSON: %.160s", error.text);
    err = take_request(&r, why, root);
    if (err != 0) {
        json_decref(root);
        return err;
    }
    r.json = root;
    *out = r;
    return 0;
}

void control_request_done(struct control_request *r)
{
    ASSERT(r->json != NULL); /* it is valid, and was not given back before */
    json_decref(r->json);
    r->json = NULL;
}

#include "tools/commands/wait_text.h"

#include <string.h>

#include "base/clock.h"
#include "tools/commands/channel.h"
#include "tools/commands/screen.h"

static const struct {
    const char *reason, *words, *words_until; /* words_until: when it is known; the time follows */
} reasons[] = {
    {"back_off", "back-off", "back-off "},
    {"no_route", "no route", "no route, again in "},
    {"lookup", "looking up its route", NULL},
    {"rate", "our rate limit", "our rate limit: next in "},
    {"warmup", "warm-up", "warm-up, next in "},
    {"quiet_hours", "quiet hours", "quiet hours, for "},
    {"sessions", "session limit: all are busy", NULL},
    {"connect", "connecting", "no session, next try in "},
    {"shortage", "no descriptors, memory or local ports here",
     "no descriptors, memory or local ports here, next try in "},
    {"source", "no source of its pool has an address or a proxy to send from",
     "no source of its pool has an address or a proxy to send from, next look in "},
    {"disk", "the queue's disk or map is full", NULL},
    {"memory", "queue.memory_max is reached", NULL},
    {"draining", "the engine is stopping", NULL},
};

bool wait_is_of_campaign(const char *scope)
{
    return strcmp(scope, "campaign_tenant") == 0;
}

bool wait_holds(const json_t *object)
{
    return json_object_get(object, "wait") != NULL;
}

int64_t wait_until_ms(const json_t *object)
{
    const json_t *wait = json_object_get(object, "wait");

    return wait == NULL || json_object_get(wait, "until_ms") == NULL
               ? 0
               : reply_number(wait, "until_ms");
}

/* "suspended 5m ago, for 2h more: campaign spring: complaints". Of a campaign that does not run,
 * "campaign spring@acme: it is paused"; without a tenant its name ends in '@'. */
static void put_suspension(struct buf *out, const json_t *wait, int64_t until_ms, int64_t now_ms)
{
    const char *scope = reply_text(wait, "scope"), *name = reply_text(wait, "name");
    bool campaign = wait_is_of_campaign(scope);
    size_t len = strlen(name);

    if (campaign && len > 0 && name[len - 1] == '@')
        len--;
    buf_puts(out, "suspended ");
    put_age(out, now_ms - reply_number(wait, "since_ms"));
    buf_puts(out, " ago");
    if (until_ms > now_ms) {
        buf_puts(out, ", for ");
        put_age(out, until_ms - now_ms);
        buf_puts(out, " more");
    }
    buf_printf(out, ": %s %.*s", campaign ? "campaign" : scope, (int)len, name);
    if (*reply_text(wait, "text") != 0)
        buf_printf(out, ": %s", reply_text(wait, "text"));
}

static void put_reason(struct buf *out, const json_t *wait, int64_t until_ms, int64_t now_ms)
{
    const char *reason = reply_text(wait, "reason");
    size_t i = 0;

    while (i < ARRAY_LEN(reasons) && strcmp(reasons[i].reason, reason) != 0)
        i++;
    if (json_object_get(wait, "scope") != NULL) {
        put_suspension(out, wait, until_ms, now_ms);
    } else if (i == ARRAY_LEN(reasons)) { /* of a newer engine */
        buf_puts(out, reason);
    } else if (until_ms > now_ms && reasons[i].words_until != NULL) {
        buf_puts(out, reasons[i].words_until);
        put_age(out, until_ms - now_ms + 999); /* less than a second is not "0s" */
    } else {
        buf_puts(out, reasons[i].words);
    }
    if (json_object_get(wait, "scope") == NULL && *reply_text(wait, "text") != 0)
        buf_printf(out, ": %s", reply_text(wait, "text"));
    if (*reply_text(wait, "host") != 0)
        buf_printf(out, ": %s", reply_text(wait, "host"));
    if (*reply_text(wait, "error") != 0)
        buf_printf(out, ": %s", reply_text(wait, "error"));
}

void put_source_suspension(struct buf *out, const json_t *source, int64_t now_ms)
{
    const json_t *one = json_object_get(source, "suspension");

    if (one == NULL)
        return;
    buf_putc(out, ' ');
    put_age(out, now_ms - reply_number(one, "since_ms"));
    buf_puts(out, " ago");
    buf_puts(out, *reply_text(one, "who") == 0 ? "" : " by ");
    put_text(out, reply_text(one, "who"), 0, false);
    if (json_object_get(one, "until_ms") != NULL) {
        buf_puts(out, ", for ");
        put_age(out, reply_number(one, "until_ms") - now_ms);
        buf_puts(out, " more");
    }
    buf_puts(out, *reply_text(one, "reason") == 0 ? "" : ": ");
    put_text(out, reply_text(one, "reason"), 0, false);
}

void put_held(struct buf *out, const json_t *of)
{
    const char *name, *between = "; waited ";
    json_t *held;

    json_object_foreach(json_object_get(of, "held_s"), name, held)
    {
        if (json_number_value(held) < 1)
            continue;
        buf_puts(out, between);
        put_age(out, (int64_t)(json_number_value(held) * 1000));
        buf_printf(out, " for %s", name);
        between = ", ";
    }
}

void put_set(struct buf *out, const char *set)
{
    bool is_default = strcmp(set, "default") == 0;

    buf_puts(out, is_default ? ", the default" : ", set at ");
    put_text(out, is_default ? "" : set, 0, false);
}

void put_caps(struct buf *out, const json_t *lowered)
{
    static const char *const counts[] = {"sessions_max", "session_messages_max"};
    const char *rate = reply_text(lowered, "rate"), *between = *rate != 0 ? "," : "";

    if (*rate != 0)
        buf_printf(out, " rate %s", rate);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        if (json_object_get(lowered, counts[i]) == NULL)
            continue;
        buf_printf(out, "%s %s %lld", between, counts[i], reply_number(lowered, counts[i]));
        between = ",";
    }
}

/* Whether the limit of this name is one of a source, and not over all of them. */
static bool is_of_source(const char *name)
{
    static const char *const others[] = {"total_",    "host_",           "tenant_",
                                         "campaign_", "signing_domain_", "envelope_domain_"};

    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (strncmp(name, others[i], strlen(others[i])) == 0)
            return false;
    return true;
}

static void put_limit(struct buf *out, const json_t *wait, const json_t *limit)
{
    const char *name = reply_text(limit, "name");
    bool of_source = *reply_text(wait, "source") != 0 && is_of_source(name);

    if (strcmp(name, "quiet_hours") == 0) { /* they have been said */
        put_set(out, reply_text(limit, "set"));
        return;
    }
    buf_puts(out, "; ");
    if (json_object_get(limit, "stages") != NULL) {
        buf_printf(out, "stage %lld of %lld", reply_number(limit, "stage"),
                   reply_number(limit, "stages"));
    } else if (json_object_get(limit, "period_ms") != NULL) {
        buf_printf(out, "%s %lld%s in ", name, reply_number(limit, "max"),
                   strstr(name, "byte_rate") != NULL ? " bytes" : "");
        put_age(out, reply_number(limit, "period_ms"));
    } else {
        buf_printf(out, "%lld of %lld sessions", reply_number(limit, "used"),
                   reply_number(limit, "max"));
        if (json_is_true(json_object_get(limit, "by_peer")) &&
            !json_is_true(json_object_get(limit, "by_rule")))
            buf_puts(out, ", the receiver refused more");
        buf_printf(out, ", %s", name);
    }
    buf_printf(out, "%s%s", of_source ? " of source " : "",
               of_source ? reply_text(wait, "source") : "");
    if (json_is_true(json_object_get(limit, "by_rule"))) {
        buf_puts(out, ", lowered by ");
        put_text(out, reply_text(limit, "set"), 0, false);
    } else {
        put_set(out, reply_text(limit, "set"));
    }
}

/* What the columns of lists leave out. */
static void put_details(struct buf *out, const json_t *wait, int64_t now_ms)
{
    const json_t *limit = json_object_get(wait, "limit");

    if (limit != NULL)
        put_limit(out, wait, limit);
    else if (*reply_text(wait, "source") != 0 && strcmp(reply_text(wait, "scope"), "source") != 0)
        buf_printf(out, "; source %s", reply_text(wait, "source"));
    if (reply_number(wait, "answered_ms") > 0) {
        buf_puts(out, "; answered ");
        put_age(out, now_ms - reply_number(wait, "answered_ms"));
        buf_puts(out, " ago");
    }
    if (*reply_text(wait, "who") != 0 && !wait_is_of_campaign(reply_text(wait, "scope")))
        buf_printf(out, "; by %s", reply_text(wait, "who"));
}

void put_wait_whole(struct buf *out, const json_t *object, int64_t now_ms)
{
    const json_t *wait = json_object_get(object, "wait");
    struct buf text = {0};

    put_reason(&text, wait, wait_until_ms(object), now_ms);
    put_details(&text, wait, now_ms);
    buf_putc(&text, 0);
    put_text(out, (const char *)text.data, 0, false);
    buf_done(&text);
}

void put_wait(struct buf *out, const json_t *object, int64_t now_ms, unsigned columns)
{
    struct buf text = {0};

    if (wait_holds(object))
        put_reason(&text, json_object_get(object, "wait"), wait_until_ms(object), now_ms);
    else
        buf_puts(&text, reply_text(object, "last_error"));
    buf_putc(&text, 0);
    put_text(out, (const char *)text.data, columns, false);
    buf_done(&text);
}

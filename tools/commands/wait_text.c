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
    {"warmup", "warm-up", NULL},
    {"quiet_hours", "quiet hours", "quiet hours, for "},
    {"sessions", "session limit: all are busy", NULL},
    {"connect", "connecting", "no session, next try in "},
    {"shortage", "no descriptors, memory or local ports here",
     "no descriptors, memory or local ports here, next try in "},
    {"source", "no source of its pool has an address here",
     "no source of its pool has an address here, next look in "},
    {"disk", "the queue's disk or map is full", NULL},
    {"memory", "queue.memory_max is reached", NULL},
    {"draining", "the engine is stopping", NULL},
};

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

/* "suspended 5m ago, for 2h more: campaign spring: complaints". */
static void put_suspension(struct buf *out, const json_t *wait, int64_t until_ms, int64_t now_ms)
{
    buf_puts(out, "suspended ");
    put_age(out, now_ms - reply_number(wait, "since_ms"));
    buf_puts(out, " ago");
    if (until_ms > now_ms) {
        buf_puts(out, ", for ");
        put_age(out, until_ms - now_ms);
        buf_puts(out, " more");
    }
    buf_printf(out, ": %s %s", reply_text(wait, "scope"), reply_text(wait, "name"));
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
        put_age(out, until_ms - now_ms);
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

#include "intake/campaign_view.h"

#include <errno.h>
#include <inttypes.h>

#include "queue/queue.h"

#define ABOUT_VERSION 1 /* then a JSON object */

const char *campaign_state_word(const struct campaign *c, const struct queue_tally *counts,
                                int64_t now_ms)
{
    switch (c->state) {
    case CAMPAIGN_DRAFT:
        return "draft";
    case CAMPAIGN_PAUSED:
        return "paused";
    case CAMPAIGN_CANCELLED:
        return "cancelled";
    case CAMPAIGN_RUNNING:
    case CAMPAIGN_STATES:
        break;
    }
    if (campaign_is_over(c, counts))
        return "done";
    return campaign_has_begun(c, now_ms) ? "running" : "scheduled";
}

static void put_text(struct buf *out, const char *name, const char *text)
{
    if (*text == '\0')
        return;
    buf_printf(out, ",\"%s\":", name);
    buf_put_json(out, str_of(text));
}

/* As a configuration has it: "500/s". */
static void put_rate(struct buf *out, uint64_t rate, uint32_t period_ms)
{
    const char *unit = period_ms == 1000       ? "s"
                       : period_ms == 60000    ? "min"
                       : period_ms == 3600000  ? "h"
                       : period_ms == 86400000 ? "d"
                                               : NULL;

    if (unit != NULL)
        buf_printf(out, ",\"rate\":\"%" PRIu64 "/%s\"", rate, unit);
    else
        buf_printf(out, ",\"rate\":\"%" PRIu64 "/%us\"", rate, period_ms / 1000);
}

static void put_time(struct buf *out, const char *name, int64_t ms)
{
    if (ms != 0)
        buf_printf(out, ",\"%s\":%" PRId64, name, ms);
}

static void put_count(struct buf *out, const char *name, uint64_t count)
{
    buf_printf(out, ",\"%s\":%" PRIu64, name, count);
}

void campaign_put(struct buf *out, const struct campaign *c, const struct queue_tally *counts,
                  int64_t now_ms)
{
    const uint64_t *n = counts->counts;
    char id[MSGID_TEXT_BYTES];

    msgid_text(&c->id, id);
    buf_printf(out, "{\"id\":\"%s\"", id);
    put_text(out, "name", c->name);
    put_text(out, "tenant", c->tenant);
    put_text(out, "pool", c->set.has_pool ? c->set.pool : c->pool);
    if (c->set.rate != 0)
        put_rate(out, c->set.rate, c->set.rate_period_ms);
    buf_printf(out, ",\"priority\":%u,\"state\":\"%s\"",
               c->set.priority == 0 ? c->priority : c->set.priority - 1u,
               campaign_state_word(c, counts, now_ms));
    if (c->open)
        buf_puts(out, ",\"open\":true");
    put_time(out, "created_ms", c->created_ms);
    put_time(out, "starts_ms", c->starts_ms);
    put_time(out, "expires_ms", c->expires_ms);
    put_time(out, "changed_ms", c->changed_ms);
    put_count(out, "recipients", n[TALLY_ADDED]);
    put_count(out, "queued", tally_queued(counts));
    put_count(out, "delivered", n[TALLY_DELIVERED]);
    put_count(out, "failed", n[TALLY_FAILED]);
    put_count(out, "suppressed", n[TALLY_SUPPRESSED]);
    put_count(out, "expired", n[TALLY_EXPIRED]);
    put_count(out, "cancelled", n[TALLY_CANCELLED]);
    put_count(out, "deferrals", n[TALLY_DEFERRED]);
    buf_putc(out, '}');
}

void campaign_about_encode(struct buf *out, struct str about)
{
    ASSERT(about.len >= 2 && about.ptr[0] == '{' && about.ptr[about.len - 1] == '}');
    buf_putc(out, ABOUT_VERSION);
    buf_put_str(out, about);
}

int campaign_add_about(struct buf *out, struct queue *q, const struct msgid *id)
{
    uint8_t key[CAMPAIGN_KEY_BYTES];
    struct buf value = {0};
    int err;

    ASSERT(out->len > 0 && out->data[out->len - 1] == '}');
    campaign_key(key, CAMPAIGN_RECORD_ABOUT, id);
    err = queue_state_get(q, 0, (struct str){(char *)key, sizeof(key)}, &value);
    /* "{}" at least, behind the version. */
    if (err == 0 && value.len > 3 && value.data[0] == ABOUT_VERSION &&
        value.data[value.len - 1] == '}') {
        out->data[out->len - 1] = ',';
        buf_put(out, value.data + 2, value.len - 2);
    }
    buf_done(&value);
    return err == -ENOENT || err == -EBADMSG ? 0 : err;
}

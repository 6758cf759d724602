#include "intake/campaign_view.h"

#include <inttypes.h>

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
    return c->starts_ms > now_ms ? "scheduled" : "running";
}

static void put_text(struct buf *out, const char *name, const char *text)
{
    if (*text == '\0')
        return;
    buf_printf(out, ",\"%s\":", name);
    buf_put_json(out, str_of(text));
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
    put_text(out, "pool", c->pool);
    buf_printf(out, ",\"priority\":%u,\"state\":\"%s\"", c->priority,
               campaign_state_word(c, counts, now_ms));
    put_time(out, "created_ms", c->created_ms);
    put_time(out, "starts_ms", c->starts_ms);
    put_time(out, "changed_ms", c->changed_ms);
    put_count(out, "recipients", n[TALLY_ADDED]);
    put_count(out, "queued", tally_queued(counts));
    put_count(out, "delivered", n[TALLY_DELIVERED]);
    put_count(out, "failed", n[TALLY_FAILED]);
    put_count(out, "expired", n[TALLY_EXPIRED]);
    put_count(out, "cancelled", n[TALLY_CANCELLED]);
    put_count(out, "deferrals", n[TALLY_DEFERRED]);
    buf_putc(out, '}');
}

/* What is refused at the door, for the records. Lines ride in the next change of the worker's
 * shard; nothing waits for them.
 *
 * They wait here while the store has no room: what is left there is for deliveries, which make
 * room. Whoever is refused may come back at once, so what waits has an end, and is counted beyond.
 */
#include <stdlib.h>

#include "base/log.h"
#include "engine/engine.h"
#include "engine/inject_message.h"
#include "engine/report.h"
#include "engine/settle.h"

#define WAITING_BYTES_MAX (256u << 10) /* of a worker */

static uint32_t shard_of(const struct worker *w)
{
    return w->index % queue_shards(w->engine->queue);
}

void inject_reject(struct inject *s, const char *reply, struct str rcpt, const char *command)
{
    struct worker *w = s->worker;
    struct smtp_reply r = {.code = (uint16_t)strtoul(reply, NULL, 10)};
    struct str text = str_of(reply + (strlen(reply) > 4 ? 4 : strlen(reply)));
    size_t skip = smtp_enhanced_parse(text, &r.enhanced);

    r.text_len = (uint16_t)(text.len - skip);
    memcpy(r.text, text.ptr + skip, r.text_len);
    counter_add(&w->counters.rejected, 1);
    if (w->rejections.len >= WAITING_BYTES_MAX) {
        w->rejections_omitted++;
        return;
    }
    report_line(&w->rejections,
                &(struct report_event){.type = REPORT_REJECTION,
                                       .node_id = w->config->node_id,
                                       .timestamp_ms = worker_wall_ms(w),
                                       .recipient = rcpt,
                                       .queue = STR(""),
                                       .site = STR(""),
                                       .sender = inject_sender(s),
                                       .reply = &r,
                                       .command = command,
                                       .peer_name = s->server.helo.len > 0 ? s->helo : NULL,
                                       .peer_addr = s->peer_text,
                                       .reception_protocol = s->server.esmtp ? "ESMTP" : "SMTP",
                                       .session_id = s->id});
}

void inject_rejections_flush(struct worker *w)
{
    struct buf *out;

    if (w->rejections.len == 0 || w->settles_failing > 0 ||
        queue_intake(w->engine->queue, shard_of(w)) != QUEUE_INTAKE_OK)
        return;
    out = settle_records(w, shard_of(w));
    buf_put_str(out, buf_str(&w->rejections));
    if (w->rejections_omitted > 0)
        report_line(out, &(struct report_event){.type = REPORT_REJECTION,
                                                .node_id = w->config->node_id,
                                                .timestamp_ms = worker_wall_ms(w),
                                                .recipient = STR(""),
                                                .queue = STR(""),
                                                .site = STR(""),
                                                .sender = STR(""),
                                                .omitted = w->rejections_omitted});
    buf_done(&w->rejections);
    w->rejections_omitted = 0;
}

void inject_rejections_end(struct worker *w)
{
    if (w->rejections.len > 0)
        log_warn("smtp.rejections_lost", "worker=%u bytes=%zu omitted=%llu reason=\"no room\"",
                 w->index, w->rejections.len, (unsigned long long)w->rejections_omitted);
    buf_done(&w->rejections);
}

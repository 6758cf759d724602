/* What is refused at the door, for the records. Lines ride in the next change of the worker's
 * shard; nothing waits for them.
 *
 * They wait here while the store has no room: what is left there is for deliveries, which make
 * room. Whoever is refused may come back at once, so what waits has an end, and is counted beyond.
 *
 * Anybody can be refused, as often as he likes, and that must not fill the disk of the records: who
 * may not relay has lines at a rate only, and is counted beyond. Who may relay has a line each.
 */
#include <stdlib.h>

#include "base/log.h"
#include "engine/engine.h"
#include "engine/inject_message.h"
#include "engine/report.h"
#include "engine/settle.h"

#define WAITING_BYTES_MAX   (256u << 10) /* of a worker */
#define STRANGERS_LINES_MAX 300          /* at once, of a worker */
#define STRANGERS_LINE_MS   50           /* between two in the long run, of the process */
#define OMITTED_EVERY_MS    1000

static uint32_t shard_of(const struct worker *w)
{
    return w->index % queue_shards(w->engine->queue);
}

/* A token bucket: strangers_ms is when it is full again. */
static bool stranger_takes_line(struct worker *w)
{
    uint64_t now_ms = io_now_ms(w->io);
    uint64_t line_ms = STRANGERS_LINE_MS * (uint64_t)w->engine->workers_len;

    if (w->strangers_ms < now_ms)
        w->strangers_ms = now_ms;
    if (w->strangers_ms + line_ms > now_ms + STRANGERS_LINES_MAX * line_ms)
        return false;
    w->strangers_ms += line_ms;
    return true;
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
    if (w->rejections.len >= WAITING_BYTES_MAX ||
        (!inject_may_relay(s) && !stranger_takes_line(w))) {
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
    uint64_t now_ms = io_now_ms(w->io);
    bool omitted = w->rejections_omitted > 0 && (w->omitted_ms <= now_ms || w->draining);
    struct buf *out;

    if ((w->rejections.len == 0 && !omitted) || w->settles_failing > 0 ||
        queue_intake(w->engine->queue, shard_of(w)) != QUEUE_INTAKE_OK)
        return;
    out = settle_records(w, shard_of(w));
    buf_put_str(out, buf_str(&w->rejections));
    buf_done(&w->rejections);
    if (!omitted)
        return;
    report_line(out, &(struct report_event){.type = REPORT_REJECTION,
                                            .node_id = w->config->node_id,
                                            .timestamp_ms = worker_wall_ms(w),
                                            .recipient = STR(""),
                                            .queue = STR(""),
                                            .site = STR(""),
                                            .sender = STR(""),
                                            .omitted = w->rejections_omitted});
    w->rejections_omitted = 0;
    w->omitted_ms = now_ms + OMITTED_EVERY_MS;
}

void inject_rejections_end(struct worker *w)
{
    if (w->rejections.len > 0 || w->rejections_omitted > 0)
        log_warn("smtp.rejections_lost", "worker=%u bytes=%zu omitted=%llu reason=\"no room\"",
                 w->index, w->rejections.len, (unsigned long long)w->rejections_omitted);
    buf_done(&w->rejections);
}

/* Records of what is refused at the door. Their lines ride in the next change of the worker's
 * shard; nothing waits for them.
 *
 * Lines wait here while the store has no room: the room left there is for deliveries, which make
 * more. A refused client may come back at once, so few lines may wait; refusals beyond are counted.
 *
 * Anybody can be refused, as often as he likes, and that must not fill the disk of the records:
 * refusals get lines at a bounded rate, and are counted beyond it. Only recipients and messages of
 * those who may relay have a line each: somebody will ask what became of that mail. */
#include <stdlib.h>

#include "base/log.h"
#include "intake/inject_login.h"
#include "intake/inject_message.h"
#include "outcome/report.h"
#include "schedule/settle.h"
#include "worker/shared.h"

#define WAITING_BYTES_MAX  (256u << 10) /* of a worker */
#define REFUSALS_LINES_MAX 300          /* lines of a worker at once */
#define REFUSALS_LINE_MS   50           /* between two lines of the process in the long run */
#define OMITTED_EVERY_MS   1000
#define ADDRESS_BYTES_MAX  320 /* of an address, or of what should have been one */

static uint32_t shard_of(const struct worker *w)
{
    return w->index % queue_shards(w->shared->queue);
}

/* A token bucket: refusals_ms is when it is full again. */
static bool refusal_takes_line(struct worker *w)
{
    uint64_t now_ms = io_now_ms(w->io);
    uint64_t line_ms = REFUSALS_LINE_MS * (uint64_t)w->shared->workers_len;

    if (w->refusals_ms < now_ms)
        w->refusals_ms = now_ms;
    if (w->refusals_ms + line_ms > now_ms + REFUSALS_LINES_MAX * line_ms)
        return false;
    w->refusals_ms += line_ms;
    return true;
}

/* How records call a command, and whose address it carries. NULL: a line that was no command. */
static const struct stage {
    const char *command, *name;
    bool is_sender, is_recipient, has_mail; /* has_mail: mail goes no further when it is refused */
} stages[] = {
    {"RCPT", "RCPT TO", .is_recipient = true, .has_mail = true},
    {"MAIL", "MAIL FROM", .is_sender = true},
    {"DATA", "DATA", .has_mail = true},
    {"BDAT", "BDAT", .has_mail = true},
};

static struct stage stage_of(const char *command)
{
    for (size_t i = 0; command != NULL && i < ARRAY_LEN(stages); i++)
        if (strcmp(command, stages[i].command) == 0)
            return stages[i];
    return (struct stage){.name = command};
}

static void reply_of(struct str text, struct smtp_reply *out)
{
    size_t skip;

    ASSERT(text.len >= 4 && text.ptr[0] >= '4');
    *out = (struct smtp_reply){.code = (uint16_t)strtoul(text.ptr, NULL, 10)};
    text = (struct str){text.ptr + 4, text.len - 4};
    skip = smtp_enhanced_parse(text, &out->enhanced);
    out->text_len =
        (uint16_t)(text.len - skip < sizeof(out->text) ? text.len - skip : sizeof(out->text));
    memcpy(out->text, text.ptr + skip, out->text_len);
}

void inject_refused(struct smtp_server *server, struct str text)
{
    struct inject *s = CONTAINER_OF(server, struct inject, server);
    struct worker *w = s->worker;
    struct stage stage = stage_of(server->command);
    struct str address = server->address;
    bool tries = stage.name != NULL && strcmp(stage.name, "AUTH") == 0;
    const char *user = inject_login_name(s, tries);
    struct smtp_reply reply;
    struct report_tls tls;

    if (address.len > ADDRESS_BYTES_MAX)
        address.len = ADDRESS_BYTES_MAX;
    reply_of(text, &reply);
    inject_watched_refused(s);
    counter_add(&w->counters.rejected, 1);
    log_debug("smtp.refused", "session=%s peer=%s command=\"%s\" address=\"%.*s\" reply=\"%.*s\"",
              s->id, s->peer_text, stage.name != NULL ? stage.name : "", STR_FMT(address),
              STR_FMT(text));
    if (w->rejections.len >= WAITING_BYTES_MAX ||
        (!(stage.has_mail && reply.code >= 500 && inject_may_relay(s)) && !refusal_takes_line(w))) {
        w->rejections_omitted++;
        return;
    }
    report_line(&w->rejections,
                &(struct report_event){.type = REPORT_REJECTION,
                                       .node_id = w->config->node_id,
                                       .timestamp_ms = worker_wall_ms(w),
                                       .recipient = stage.is_recipient ? address : STR(""),
                                       .queue = STR(""),
                                       .site = STR(""),
                                       .sender = stage.is_sender ? address : inject_sender(s),
                                       .reply = &reply,
                                       .command = stage.name,
                                       .peer_name = s->helo[0] != '\0' ? s->helo : NULL,
                                       .peer_addr = s->peer_text,
                                       .reception_protocol = inject_protocol(s),
                                       .session_id = s->id,
                                       .user = user,
                                       .tls = inject_tls_report(s, &tls)});
    if (tries)
        log_warn("smtp.auth_failed", "session=%s peer=%s user=\"%s\" reply=\"%.*s\"", s->id,
                 s->peer_text, user != NULL ? user : "", STR_FMT(text));
}

void inject_rejections_flush(struct worker *w)
{
    uint64_t now_ms = io_now_ms(w->io);
    bool omitted = w->rejections_omitted > 0 && (w->omitted_ms <= now_ms || w->draining);

    if ((w->rejections.len == 0 && !omitted) || w->settles_failing > 0 ||
        queue_intake(w->shared->queue, shard_of(w)) != QUEUE_INTAKE_OK)
        return;
    if (omitted) {
        report_line(&w->rejections, &(struct report_event){.type = REPORT_REJECTION,
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
    settle(w, &(struct settlement){.shard = shard_of(w), .records = buf_str(&w->rejections)});
    buf_done(&w->rejections);
}

void inject_rejections_end(struct worker *w)
{
    if (w->rejections.len > 0 || w->rejections_omitted > 0)
        log_warn("smtp.rejections_lost", "worker=%u bytes=%zu omitted=%llu reason=\"no room\"",
                 w->index, w->rejections.len, (unsigned long long)w->rejections_omitted);
    buf_done(&w->rejections);
}

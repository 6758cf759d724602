/* Damaged records: listing them, with their bytes, and forgetting them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/glob.h"
#include "control/control_private.h"
#include "outcome/report.h"

#define NAME_BYTES 40

static void name_of(const struct queue_quarantined *q, char out[NAME_BYTES])
{
    snprintf(out, NAME_BYTES, "%" PRIu32 "-%016" PRIx64, q->shard, q->hash);
}

static bool matches(struct control_client *client, const struct queue_quarantined *q)
{
    const struct control_filter *f = &client->request.filter;
    char name[NAME_BYTES];

    name_of(q, name);
    client->work.visited++;
    if (f->record.ptr != NULL && !str_eq(f->record, str_of(name)))
        return false;
    if ((f->queue.ptr != NULL || f->has_id) && !q->is_row)
        return false;
    if (f->queue.ptr != NULL && !glob_match(f->queue, q->queue))
        return false;
    if (f->has_id && memcmp(&f->id, &q->id, sizeof(q->id)) != 0)
        return false;
    client->work.matched++;
    return true;
}

/* One slice of records; as walk() of rows. */
static int walk(struct control_client *client,
                bool (*visit)(void *arg, const struct queue_quarantined *q))
{
    struct control_work *w = &client->work;
    struct queue *queue = client->control->queue;
    int rc = queue_quarantine_visit(queue, w->shard, &w->cursor, CONTROL_SLICE_ROWS, visit, client);

    if (rc == 1)
        control_next_shard(client);
    return rc < 0 ? rc : 0;
}

/* --- list --- */

static void put_record(struct control_client *client, const struct queue_quarantined *q)
{
    struct buf *out = &client->out;
    char name[NAME_BYTES], id[MSGID_TEXT_BYTES];

    name_of(q, name);
    buf_puts(out, "{\"quarantined\":{");
    json_text(out, "record", str_of(name));
    json_number(out, "shard", q->shard);
    json_text(out, "tree", str_of(q->tree));
    json_text(out, "reason", q->reason);
    json_number(out, "bytes", (int64_t)q->value.len);
    if (q->is_row) {
        msgid_text(&q->id, id);
        json_text(out, "queue", q->queue);
        json_text(out, "id", str_of(id));
        json_number(out, "index", q->index);
    }
    if (q->address.len != 0)
        json_text(out, "recipient", q->address);
    if (q->header != NULL) {
        json_text(out, "sender", q->header->sender);
        json_number(out, "created_ms", q->header->created_ms);
    }
    if (q->content_bytes != 0)
        json_number(out, "content_bytes", (int64_t)q->content_bytes);
    if (client->request.data) {
        ASSERT(q->key.len > 0); /* in front, which tree the record was in */
        json_base64(out, "key", q->key.ptr + 1, q->key.len - 1);
        json_base64(out, "value", q->value.ptr, q->value.len);
    }
    json_end(out);
    buf_puts(out, "}\n");
}

static bool visit_list(void *arg, const struct queue_quarantined *q)
{
    struct control_client *client = arg;
    struct control_work *w = &client->work;

    if (control_at_limit(client))
        return false;
    if (matches(client, q)) {
        put_record(client, q);
        w->sent++;
    }
    return !control_out_full(client);
}

enum control_step control_step_quarantine(struct control_client *client)
{
    int err = walk(client, visit_list);

    if (err != 0)
        return control_store_failed(client, err);
    return client->work.ended ? control_finished(client) : CONTROL_STEP_MORE;
}

/* --- purge --- */

/* The recipient's end, with what can still be told of it. */
static void record_end(struct control_client *client, const struct queue_quarantined *q,
                       struct buf *out)
{
    struct control *c = client->control;
    struct control_description d = {0};
    struct message unknown = {.id = q->id, .created_ms = msgid_ms(&q->id)};
    struct smtp_reply reply = {.code = 551, .enhanced = {5, 7, 1}};
    struct report_event event;
    int n = snprintf(reply.text, sizeof(reply.text), "purged by the administrator: %.*s",
                     STR_FMT(q->reason));

    ASSERT(n > 0 && (size_t)n < sizeof(reply.text)); /* a byte says how long the reason is */
    reply.text_len = (uint16_t)n;
    c->backend->describe(c->arg, &d);
    event = report_event_of(REPORT_ADMIN_BOUNCE, d.node_id, c->wall_ms,
                            q->header != NULL ? q->header : &unknown, NULL);
    event.recipient = q->address;
    event.queue = q->queue;
    event.reply = &reply;
    report_line(out, &event);
}

static bool visit_purge(void *arg, const struct queue_quarantined *q)
{
    struct control_client *client = arg;
    struct control_job *job = client->work.job;

    ASSERT(job->admin.purges_len < CONTROL_ACTION_ROWS);
    if (matches(client, q)) {
        job->admin.purges[job->admin.purges_len++].len =
            q->key.len; /* placed when memory moves no more */
        buf_put_str(&job->memory, q->key);
        if (q->is_row)
            record_end(client, q, &job->admin.records);
    }
    return job->admin.purges_len < CONTROL_ACTION_ROWS;
}

enum control_step control_step_purge(struct control_client *client)
{
    struct control_work *w = &client->work;
    struct control_job *job;
    const char *at;
    int err;

    ASSERT(client->request.filtered || client->request.all);
    ASSERT(w->job == NULL); /* the one before is with the backend, or was freed */
    if (w->ended)
        return control_finished(client);
    job = w->job = control_job_new(client);
    job->kind = CONTROL_JOB_PURGE;
    job->admin.shard = w->shard;
    job->admin.purges = calloc(CONTROL_ACTION_ROWS, sizeof(struct str));
    ASSERT(job->admin.purges != NULL);
    err = walk(client, visit_purge);
    if (err != 0)
        return control_store_failed(client, err);
    w->job = NULL;
    if (job->admin.purges_len == 0) {
        control_job_free(job);
        return CONTROL_STEP_MORE;
    }
    at = (const char *)job->memory.data;
    for (size_t i = 0; i < job->admin.purges_len; i++) {
        job->admin.purges[i].ptr = at;
        at += job->admin.purges[i].len;
    }
    ASSERT((size_t)(at - (const char *)job->memory.data) == job->memory.len);
    return control_give_job(client, job);
}

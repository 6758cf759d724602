/* What holds mail back, for list, show and summary: the store has the rows, the workers know why
 * they wait. So rows and summary lines are held here while the workers are asked about their
 * queues, a slice at a time. */
#include <stdlib.h>

#include "control/control_private.h"

/* A row of a slice, as JSON without its end. */
struct held_row {
    size_t end;     /* in the text of all */
    uint32_t query; /* of the job: its queue */
    int64_t due_ms; /* QUEUE_DUE_HELD: held by somebody */
};

struct control_held {
    struct control_job *job; /* being filled with the queues of the rows, in their order */
    struct buf text;
    size_t len;
    struct held_row rows[CONTROL_SLICE_ROWS];
};

struct control_job *control_waits_new(struct control_client *client)
{
    struct control_job *job = control_job_new(client);

    job->kind = CONTROL_JOB_WAITS;
    job->waits = calloc(CONTROL_SLICE_ROWS, sizeof(*job->waits));
    ASSERT(job->waits != NULL); /* as in buf_*: memory is fatal */
    return job;
}

bool control_waits_add(struct control_job *job, struct str queue, uint32_t flow, uint32_t shard)
{
    const struct control_wait_query *last =
        job->waits_len == 0 ? NULL : &job->waits[job->waits_len - 1];

    /* The name is where it was gathered: see control_waits_ask(). */
    if (last != NULL && last->flow == flow && last->shard == shard &&
        str_eq((struct str){(const char *)job->memory.data + job->memory.len - last->queue.len,
                            last->queue.len},
               queue))
        return false;
    ASSERT(job->waits_len < CONTROL_SLICE_ROWS);
    job->waits[job->waits_len++] =
        (struct control_wait_query){.queue = queue, .flow = flow, .shard = shard};
    buf_put_str(&job->memory, queue);
    return true;
}

enum control_step control_waits_ask(struct control_client *client, struct control_job *job)
{
    const char *at = (const char *)job->memory.data;

    for (size_t i = 0; i < job->waits_len;
         i++) { /* the names were gathered in a buffer that grew */
        job->waits[i].queue.ptr = at;
        at += job->waits[i].queue.len;
    }
    ASSERT(job->waits_len > 0 && (size_t)(at - (const char *)job->memory.data) == job->memory.len);
    return control_give_job(client, job);
}

/* --- rows --- */

bool control_hold_row(struct control_client *client, const struct queue_row_view *row)
{
    struct control_held *h = client->work.held;

    if (h == NULL) {
        h = client->work.held = calloc(1, sizeof(*h));
        ASSERT(h != NULL);
    }
    if (h->job == NULL)
        h->job = control_waits_new(client);
    (void)control_waits_add(h->job, row->queue, row->flow, client->work.shard);
    control_put_row(client->control, &h->text, row, client->request.data);
    ASSERT(h->len < CONTROL_SLICE_ROWS);
    h->rows[h->len++] = (struct held_row){
        .end = h->text.len,
        .query = (uint32_t)h->job->waits_len - 1,
        .due_ms = (row->flags & RECIPIENT_HELD) != 0 ? QUEUE_DUE_HELD : row->due_ms};
    return h->len < CONTROL_SLICE_ROWS && h->text.len < CONTROL_OUT_BYTES_MAX;
}

bool control_holds_rows(const struct control_client *client)
{
    return client->work.held != NULL && client->work.held->len > 0;
}

enum control_step control_ask_rows(struct control_client *client)
{
    struct control_job *job = client->work.held->job;

    ASSERT(job != NULL && client->work.held->len > 0);
    client->work.held->job = NULL;
    return control_waits_ask(client, job);
}

bool control_wait_concerns(const struct control_wait *wait, int64_t due_ms, int64_t now_ms)
{
    bool for_ever = wait->scope != NULL && wait->until_ms == 0; /* suspended */

    return wait->reason != NULL && due_ms < QUEUE_DUE_HELD &&
           (for_ever || due_ms <= now_ms || due_ms < wait->until_ms);
}

static void put_rows(struct control_client *client, const struct control_job *job)
{
    struct control_held *h = client->work.held;
    struct buf *out = &client->out;
    size_t from = 0;

    for (size_t i = 0; i < h->len; i++) {
        const struct held_row *row = &h->rows[i];
        const struct control_wait *wait = &job->waits[row->query].wait;

        ASSERT(row->query < job->waits_len && from <= row->end && row->end <= h->text.len);
        buf_put(out, h->text.data + from, row->end - from);
        from = row->end;
        if (control_wait_concerns(wait, row->due_ms, client->control->wall_ms))
            json_wait(out, wait);
        json_end(out);
        buf_puts(out, "}\n");
    }
    h->len = 0;
    buf_clear(&h->text);
}

void control_held_free(struct control_held *h)
{
    if (h == NULL)
        return;
    control_job_free(h->job);
    buf_done(&h->text);
    free(h);
}

/* --- the summary --- */

enum control_step control_ask_groups(struct control_client *client)
{
    struct control_work *w = &client->work;
    struct control_job *job = control_waits_new(client);
    uint64_t limit = client->request.limit;
    struct str name;
    uint32_t flow;

    while (job->waits_len < CONTROL_SLICE_ROWS && (limit == 0 || w->sent < limit) &&
           control_summary_peek(w->summary, job->waits_len, &name, &flow)) {
        (void)control_waits_add(job, name, flow, CONTROL_SHARD_ANY);
        w->sent++;
    }
    if (job->waits_len > 0)
        return control_waits_ask(client, job);
    w->truncated = control_summary_peek(w->summary, 0, &name, &flow);
    control_job_free(job);
    return control_finished(client);
}

/* --- both --- */

enum control_step control_waits_returned(struct control_client *client, struct control_job *job)
{
    if (client->work.why != NULL)
        return control_why_waits(client, job);
    if (client->work.suspensions != NULL)
        control_suspensions_returned(client, job);
    else if (client->work.summary == NULL)
        put_rows(client, job);
    else
        for (size_t i = 0; i < job->waits_len; i++)
            control_summary_put(client->work.summary, &job->waits[i].wait, &client->out);
    return CONTROL_STEP_MORE;
}

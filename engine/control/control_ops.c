/* What each control request does, a step at a time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/control_private.h"

#define PREPARED_WAIT_MS 200

/* --- walking the rows --- */

typedef bool (*visit_fn)(void *arg, const struct queue_row_view *row);

bool control_out_full(const struct control_client *client)
{
    return client->out.len - client->out_at >= CONTROL_OUT_BYTES_MAX;
}

void control_next_shard(struct control_client *client)
{
    struct control_work *w = &client->work;

    ASSERT(w->shard < queue_shards(client->control->queue));
    w->shard++;
    w->cursor = (struct queue_cursor){0};
    w->ended = w->shard == queue_shards(client->control->queue);
}

/* Since the request began. What was tried in the future was tried before the clock was set back. */
static bool tried_meanwhile(const struct control_client *client, const struct queue_row_view *row)
{
    return row->last_attempt_ms >= client->work.began_ms &&
           row->last_attempt_ms <= client->control->wall_ms;
}

static bool visit_found(void *arg, const struct queue_row_view *row)
{
    struct control_client *client = arg;
    struct control_work *w = &client->work;

    /* What was tried meanwhile may have moved behind rows not seen yet, and be seen again there. */
    w->found += w->rows == 1 || !tried_meanwhile(client, row);
    return w->visit(client, row);
}

/* For a request for one message: the next shard that has it, which knows how many of its rows are
 * left there. Who was told the id a moment ago means all of the message: shards that are about to
 * have it are waited for. Not for long: one that failed may keep it so until the next start. */
static int locate(struct control_client *client)
{
    struct control_work *w = &client->work;
    const struct control_filter *f = &client->request.filter;
    int err;

    if (!f->has_id || w->located)
        return 0;
    err = queue_locate(client->control->queue, &f->id, &w->shard, &w->rows);
    if (err == -EAGAIN) {
        if (client->control->mono_ms - w->reported_ms >= PREPARED_WAIT_MS)
            control_next_shard(client);
        return 0;
    }
    w->located = true;
    w->ended = err == -ENOENT;
    return w->ended ? 0 : err;
}

/* Whether all rows of the message were seen. An action may put one where it is seen again. */
static bool found_all(const struct control_client *client)
{
    const struct control_work *w = &client->work;

    ASSERT(w->located);
    return w->found >= w->rows && (w->rows == 1 || client->request.op != CONTROL_OP_ACTION);
}

int control_walk(struct control_client *client, bool need_message, visit_fn visit)
{
    struct control_work *w = &client->work;
    bool of_message = client->request.filter.has_id;
    struct queue_visit what = {.queue = control_filter_lane(&client->request.filter),
                               .id = of_message ? &client->request.filter.id : NULL,
                               .rows_max = of_message ? CONTROL_SLICE_PASSED : CONTROL_SLICE_ROWS,
                               .need_message = need_message,
                               .visit = visit_found,
                               .arg = client};
    int rc = locate(client);

    if (rc != 0 || w->ended || (of_message && !w->located))
        return rc;
    w->visit = visit;
    ASSERT(w->shard < queue_shards(client->control->queue));
    rc = queue_visit(client->control->queue, w->shard, &w->cursor, &what);
    if (rc < 0)
        return rc;
    if (rc != 1 && !(of_message && found_all(client)))
        return 0;
    control_next_shard(client);
    w->located = false;
    w->found = 0;
    return 0;
}

static bool matches(struct control_client *client, const struct queue_row_view *row)
{
    client->work.visited++;
    if (!control_filter_match(&client->request.filter, row, client->control->wall_ms))
        return false;
    client->work.matched++;
    return true;
}

static bool needs_message(const struct control_client *client)
{
    return control_filter_needs_message(&client->request.filter);
}

enum control_step control_store_failed(struct control_client *client, int err)
{
    control_put_error(&client->out, "failed", strerror(-err), "the store could not be read");
    return CONTROL_STEP_DONE;
}

void control_put_stopping(struct control_client *client)
{
    control_put_error(&client->out, "refused", "the engine is stopping",
                      "nothing was changed; repeat the command when it runs again");
}

enum control_step control_finished(struct control_client *client)
{
    ASSERT(client->job == NULL); /* nothing of it is under way */
    control_put_done(&client->out, &client->work, client->request.op);
    return CONTROL_STEP_DONE;
}

void control_report_progress(struct control_client *client)
{
    struct control_work *w = &client->work;

    if (client->control->mono_ms - w->reported_ms < CONTROL_PROGRESS_MS)
        return;
    w->reported_ms = client->control->mono_ms;
    control_put_progress(&client->out, w);
}

/* --- list, count, summary --- */

bool control_at_limit(struct control_client *client)
{
    struct control_work *w = &client->work;

    ASSERT(client->request.limit == 0 || w->sent <= client->request.limit);
    if (client->request.limit == 0 || w->sent < client->request.limit)
        return false;
    w->truncated = true;
    w->ended = true;
    return true;
}

static bool visit_list(void *arg, const struct queue_row_view *row)
{
    struct control_client *client = arg;

    if (control_at_limit(client))
        return false;
    if (!matches(client, row))
        return true;
    client->work.sent++;
    return control_hold_row(client, row);
}

static bool visit_count(void *arg, const struct queue_row_view *row)
{
    (void)matches(arg, row);
    return true;
}

static bool visit_summary(void *arg, const struct queue_row_view *row)
{
    struct control_client *client = arg;

    if (matches(client, row))
        control_summary_add(client->work.summary, row, client->control->wall_ms);
    return true;
}

static enum control_step step_walk(struct control_client *client, bool need_message, visit_fn visit)
{
    int err = control_walk(client, need_message, visit);

    if (err != 0)
        return control_store_failed(client, err);
    if (control_holds_rows(client))
        return control_ask_rows(client);
    if (client->work.ended)
        return control_finished(client);
    control_report_progress(client);
    return CONTROL_STEP_MORE;
}

static enum control_step step_count(struct control_client *client)
{
    return step_walk(client, needs_message(client), visit_count);
}

static enum control_step step_summary(struct control_client *client)
{
    struct control_work *w = &client->work;

    if (w->summary == NULL)
        w->summary = control_summary_new();
    if (!w->ended) {
        int err = control_walk(client, needs_message(client), visit_summary);

        if (err != 0)
            return control_store_failed(client, err);
        if (w->ended)
            control_summary_finish(w->summary);
        control_report_progress(client);
        return CONTROL_STEP_MORE;
    }
    return control_ask_groups(client);
}

/* --- show, content --- */

/* Fetches the message the request names, once. False with the error written. */
static bool fetch_message(struct control_client *client)
{
    const struct msgid *id = &client->request.id;
    int err = 0;

    ASSERT(client->control->queue != NULL);
    if (client->work.message != NULL)
        return true;
    client->work.message = client->request.op == CONTROL_OP_STORED
                               ? queue_message_stored(client->control->queue, id, &err)
                               : queue_message(client->control->queue, id, &err);
    if (client->work.message != NULL)
        return true;
    if (err == -ENOENT)
        control_put_error(&client->out, "not_found", "no message with this id is in the queue",
                          "what was delivered or returned is in the records");
    else if (err == -EBADMSG)
        control_put_error(&client->out, "failed", "the stored message is damaged",
                          "see 'hayauma queue quarantine'");
    else
        control_store_failed(client, err);
    return false;
}

static enum control_step step_show(struct control_client *client)
{
    struct control_work *w = &client->work;
    bool first = w->message == NULL;

    if (!fetch_message(client))
        return CONTROL_STEP_DONE;
    if (first) {
        control_put_message(&client->out, w->message);
        client->request.filter.has_id = true;
        client->request.filter.id = client->request.id;
    }
    return step_walk(client, true, visit_list);
}

static enum control_step step_content(struct control_client *client)
{
    struct control_work *w = &client->work;

    if (!fetch_message(client))
        return CONTROL_STEP_DONE;
    while (!control_out_full(client) && w->content_at < w->message->content_len) {
        uint64_t n = w->message->content_len - w->content_at;

        ASSERT(w->content_at % 3 == 0); /* the pieces' base64 has no padding but at the end */
        if (n > CONTROL_CONTENT_BYTES)
            n = CONTROL_CONTENT_BYTES;
        control_put_content(&client->out, w->message->content + w->content_at, n);
        w->content_at += n;
    }
    if (w->content_at < w->message->content_len)
        return CONTROL_STEP_MORE;
    buf_puts(&client->out, "{\"done\":true,");
    json_number(&client->out, "size", (int64_t)w->message->content_len);
    json_end(&client->out);
    buf_putc(&client->out, '\n');
    return CONTROL_STEP_DONE;
}

/* --- actions --- */

struct control_job *control_job_new(struct control_client *client)
{
    struct control_job *job = calloc(1, sizeof(*job));

    ASSERT(job != NULL); /* as in buf_*: memory is fatal */
    job->control = client->control;
    job->client = client;
    return job;
}

void control_job_free(struct control_job *job)
{
    if (job == NULL)
        return;
    free(job->admin.rows);
    free(job->admin.purges);
    free(job->waits);
    free(job->why);
    buf_done(&job->route.out);
    buf_done(&job->admin.records);
    free(job->status.destinations);
    buf_done(&job->memory);
    free(job);
}

enum control_step control_give_job(struct control_client *client, struct control_job *job)
{
    struct control *c = client->control;

    ASSERT(client->busy && client->job == NULL && job->client == client);
    client->job = job;
    c->jobs++;
    c->backend->job(c->arg, job);
    return CONTROL_STEP_WAIT;
}

/* Whether the action would do something to the row. Skipping what is done already also ends the
 * walk over rows that the action, or the attempts it caused, have put in front of the cursor again.
 */
static bool concerns(const struct control_client *client, const struct queue_row_view *row)
{
    bool held = (row->flags & RECIPIENT_HELD) != 0;

    switch (client->request.action) {
    case ADMIN_HOLD:
        return !held;
    case ADMIN_RELEASE:
        return held;
    case ADMIN_FLUSH:
        /* What somebody held stays so until it is released. */
        return !held && !tried_meanwhile(client, row);
    case ADMIN_CANCEL:
    case ADMIN_EXPIRE:
    case ADMIN_RETIME:
    case ADMIN_OUTLIVE:
        break;
    }
    return true;
}

static bool visit_action(void *arg, const struct queue_row_view *row)
{
    struct control_client *client = arg;
    struct control_job *job = client->work.job;

    ASSERT(job->admin.rows_len < CONTROL_ACTION_ROWS);
    if (concerns(client, row) && matches(client, row)) {
        struct admin_row *r = &job->admin.rows[job->admin.rows_len++];

        *r = (struct admin_row){.id = row->id,
                                .index = row->index,
                                .flow = row->flow,
                                .flags = row->flags,
                                .due_ms = row->due_ms,
                                .queue.len = row->queue.len};
        buf_put_str(&job->memory, row->queue);
    }
    return job->admin.rows_len < CONTROL_ACTION_ROWS;
}

/* Rows' names were gathered in a buffer that moved as it grew. */
static void place_names(struct control_job *job)
{
    const char *at = (const char *)job->memory.data;

    for (size_t i = 0; i < job->admin.rows_len; i++) {
        job->admin.rows[i].queue.ptr = at;
        at += job->admin.rows[i].queue.len;
    }
    ASSERT((size_t)(at - (const char *)job->memory.data) == job->memory.len);
}

static enum control_step step_action(struct control_client *client)
{
    struct control_work *w = &client->work;
    struct control_job *job;
    uint32_t shard;
    int err = locate(client);

    ASSERT(client->request.filtered ||
           client->request.all); /* nobody means all by saying nothing */
    if (err != 0)
        return control_store_failed(client, err);
    control_report_progress(client);
    if (w->ended)
        return control_finished(client);
    shard = w->shard;
    if (w->job == NULL) {
        w->job = control_job_new(client);
        w->job->kind = CONTROL_JOB_ACTION;
        w->job->admin.action = client->request.action;
        w->job->admin.shard = shard;
        w->job->admin.rows = calloc(CONTROL_ACTION_ROWS, sizeof(struct admin_row));
        ASSERT(w->job->admin.rows != NULL);
    }
    job = w->job;
    err = control_walk(client, needs_message(client), visit_action);
    if (err != 0)
        return control_store_failed(client, err);
    if (job->admin.rows_len == 0) {
        job->admin.shard = w->shard;
        return CONTROL_STEP_MORE;
    }
    /* Gather on, unless the job is full or the shard is done. */
    if (job->admin.rows_len < CONTROL_ACTION_ROWS && w->shard == shard && !w->ended)
        return CONTROL_STEP_MORE;
    w->job = NULL;
    place_names(job);
    return control_give_job(client, job);
}

static enum control_step action_returned(struct control_client *client, struct control_job *job)
{
    ASSERT(job->kind == CONTROL_JOB_ACTION || job->kind == CONTROL_JOB_PURGE);
    client->work.changed += job->admin.changed;
    if (job->result == 0)
        return CONTROL_STEP_MORE;
    control_put_error(&client->out, "failed", strerror(-job->result),
                      "what was done before stays done; repeat the command for the rest");
    return CONTROL_STEP_DONE;
}

/* --- status --- */

#define STATUS_ERROR_ROWS 10

static enum control_step step_status(struct control_client *client)
{
    struct control_job *job = control_job_new(client);

    job->kind = CONTROL_JOB_STATUS;
    job->status.max = client->request.destinations;
    job->status.destinations = calloc(job->status.max + 1, sizeof(struct control_destination));
    ASSERT(job->status.destinations != NULL);
    return control_give_job(client, job);
}

static int compare_queues(const void *a, const void *b)
{
    const struct control_destination *da = a, *db = b;

    return strcmp(da->queue, db->queue);
}

static int compare_rows(const void *a, const void *b)
{
    const struct control_destination *da = a, *db = b;

    if (da->rows != db->rows)
        return da->rows > db->rows ? -1 : 1;
    return compare_queues(a, b);
}

/* A queue that has lanes in several shards becomes one line. */
static void merge_destinations(struct control_status *s)
{
    uint32_t kept = 0;

    ASSERT(s->len <= s->max);
    if (s->len == 0)
        return;
    qsort(s->destinations, s->len, sizeof(*s->destinations), compare_queues);
    for (uint32_t i = 1; i < s->len; i++) {
        struct control_destination *to = &s->destinations[kept], *from = &s->destinations[i];

        if (strcmp(to->queue, from->queue) != 0) {
            s->destinations[++kept] = *from;
            continue;
        }
        to->rows += from->rows;
        to->in_memory += from->in_memory;
        to->in_flight += from->in_flight;
        /* Lanes of one worker share a site's sessions; adding them would count twice. */
        if (strcmp(to->site, from->site) != 0 || from->sessions > to->sessions)
            to->sessions = from->sessions;
        if (from->failures > to->failures)
            to->failures = from->failures;
        if (from->suspended_until_ms > to->suspended_until_ms)
            to->suspended_until_ms = from->suspended_until_ms;
        if (from->next_due_ms < to->next_due_ms)
            to->next_due_ms = from->next_due_ms;
        control_wait_merge(&to->wait, &from->wait);
        if (to->last_error[0] == 0)
            memcpy(to->last_error, from->last_error, sizeof(to->last_error));
    }
    s->len = kept + 1;
    qsort(s->destinations, s->len, sizeof(*s->destinations), compare_rows);
}

static bool visit_error(void *arg, const struct queue_row_view *row)
{
    struct control_destination *d = arg;

    snprintf(d->last_error, sizeof(d->last_error), "%.*s", STR_FMT(row->last_error));
    return d->last_error[0] == 0;
}

/* A lane forgets what its mail waits for when the engine ends; its rows do not. */
static void read_error(struct control *c, struct control_destination *d)
{
    struct queue_cursor cursor = {0};
    struct queue_visit what = {
        .queue = str_of(d->queue), .rows_max = STATUS_ERROR_ROWS, .visit = visit_error, .arg = d};

    /* Only for a lane without mail in memory: where mail is being sent the next attempt tells. */
    if (c->queue != NULL && d->last_error[0] == 0 && d->in_memory == 0 && d->rows != 0)
        (void)queue_visit(c->queue, d->shard, &cursor, &what);
}

static enum control_step status_returned(struct control_client *client, struct control_job *job)
{
    merge_destinations(&job->status);
    for (uint32_t i = 0; i < job->status.len; i++)
        read_error(client->control, &job->status.destinations[i]);
    control_put_status(client->control, &job->status, &client->out);
    return CONTROL_STEP_DONE;
}

enum control_step control_job_returned(struct control_client *client, struct control_job *job)
{
    switch (job->kind) {
    case CONTROL_JOB_STATUS:
        return status_returned(client, job);
    case CONTROL_JOB_WAITS:
        return control_waits_returned(client, job);
    case CONTROL_JOB_WHY:
        return control_why_returned(client, job);
    case CONTROL_JOB_ROUTE:
        return control_route_returned(client, job);
    case CONTROL_JOB_SUSPEND:
        return control_suspend_returned(client, job);
    case CONTROL_JOB_WARMUP:
        return control_warmup_returned(client, job);
    case CONTROL_JOB_SITES:
        return control_sites_returned(client, job);
    case CONTROL_JOB_CAMPAIGN:
        return control_campaign_returned(client, job);
    case CONTROL_JOB_SUPPRESS:
        return control_suppress_returned(client, job);
    case CONTROL_JOB_ACTION:
    case CONTROL_JOB_PURGE:
        break;
    }
    return action_returned(client, job);
}

/* --- the rest --- */

/* Lines of text as a JSON list of strings. */
static void put_lines(struct buf *out, const char *name, struct str text)
{
    buf_printf(out, "\"%s\":[", name);
    while (text.len != 0) {
        ptrdiff_t end = str_find(text, '\n');
        size_t n = end < 0 ? text.len : (size_t)end;

        buf_put_json(out, (struct str){text.ptr, n});
        n += end >= 0;
        text = (struct str){text.ptr + n, text.len - n};
        if (text.len != 0)
            buf_putc(out, ',');
    }
    buf_puts(out, "],");
}

/* The file that the engine has read, from the root on: a client has a working directory of its own.
 */
static void put_file(struct control *c, struct buf *out)
{
    struct control_description d;
    char *path;

    c->backend->describe(c->arg, &d);
    path = realpath(d.config_file, NULL);
    json_text(out, "file", str_of(path != NULL ? path : d.config_file));
    free(path);
}

static enum control_step step_reload(struct control_client *client)
{
    struct control *c = client->control;
    struct buf cannot = {0}, errors = {0};
    int err = c->backend->reload(c->arg, &cannot, &errors);

    if (err != 0) {
        if (errors.len != 0 && errors.data[errors.len - 1] == '\n')
            errors.len--;
        buf_putc(&errors, 0);
        control_put_error(&client->out, "refused", (const char *)errors.data,
                          "nothing was changed");
    } else {
        buf_puts(&client->out, "{\"done\":true,");
        put_file(c, &client->out);
        put_lines(&client->out, "cannot", buf_str(&cannot));
        put_lines(&client->out, "failed", buf_str(&errors));
        json_end(&client->out);
        buf_putc(&client->out, '\n');
    }
    buf_done(&cannot);
    buf_done(&errors);
    return CONTROL_STEP_DONE;
}

static enum control_step step_drain(struct control_client *client)
{
    client->control->backend->drain(client->control->arg);
    buf_puts(&client->out, "{\"done\":true}\n");
    return CONTROL_STEP_DONE;
}

static enum control_step step_list(struct control_client *client)
{
    return step_walk(client, true, visit_list);
}

static enum control_step step_version(struct control_client *client)
{
    control_put_version(client->control, &client->out);
    return CONTROL_STEP_DONE;
}

static const struct {
    enum control_step (*step)(struct control_client *client);
    bool store; /* needs a queue */
} steps[] = {
    [CONTROL_OP_STATUS] = {step_status, false},
    [CONTROL_OP_LIST] = {step_list, true},
    [CONTROL_OP_COUNT] = {step_count, true},
    [CONTROL_OP_SUMMARY] = {step_summary, true},
    [CONTROL_OP_SHOW] = {step_show, true},
    [CONTROL_OP_CONTENT] = {step_content, true},
    [CONTROL_OP_ACTION] = {step_action, true},
    [CONTROL_OP_QUARANTINE] = {control_step_quarantine, true},
    [CONTROL_OP_RELOAD] = {step_reload, false},
    [CONTROL_OP_DRAIN] = {step_drain, false},
    [CONTROL_OP_VERSION] = {step_version, false},
    [CONTROL_OP_STORED] = {step_content, true},
    [CONTROL_OP_PURGE] = {control_step_purge, true},
    [CONTROL_OP_SUSPEND] = {control_step_suspend, true},
    [CONTROL_OP_RESUME] = {control_step_suspend, true},
    [CONTROL_OP_WHY] = {control_step_why, true},
    [CONTROL_OP_ROUTE] = {control_step_route, true},
    [CONTROL_OP_TRACE] = {control_step_trace, false},
    [CONTROL_OP_SUSPENSIONS] = {control_step_suspensions, true},
    [CONTROL_OP_SITES] = {control_step_sites, false},
    [CONTROL_OP_WARMUP] = {control_step_warmup, true},
    [CONTROL_OP_WARMUP_DAYS] = {control_step_warmup_days, true},
    [CONTROL_OP_WARMUP_ORDER] = {control_step_warmup_order, true},
    [CONTROL_OP_CAMPAIGNS] = {control_step_campaigns, true},
    [CONTROL_OP_CAMPAIGN_REPORT] = {control_step_campaigns, true},
    [CONTROL_OP_CAMPAIGN_ORDER] = {control_step_campaign_order, true},
    [CONTROL_OP_SUPPRESSIONS] = {control_step_suppressions, true},
    [CONTROL_OP_SUPPRESSION_ADD] = {control_step_suppress, true},
    [CONTROL_OP_SUPPRESSION_REMOVE] = {control_step_suppress, true},
};

enum control_step control_step(struct control_client *client)
{
    ASSERT(client->busy && (size_t)client->request.op < ARRAY_LEN(steps) &&
           steps[client->request.op].step != NULL);
    if (client->control->queue == NULL && steps[client->request.op].store) {
        control_put_error(&client->out, "refused", "the queue is not open", "");
        return CONTROL_STEP_DONE;
    }
    return steps[client->request.op].step(client);
}

void control_work_done(struct control_client *client)
{
    struct control_work *w = &client->work;

    ASSERT(w->job == NULL || w->job != client->job); /* it is freed once */
    control_job_free(w->job);
    if (w->message != NULL)
        message_unref(w->message);
    control_summary_free(w->summary);
    control_held_free(w->held);
    control_suspensions_free(w->suspensions);
    control_why_free(w->why);
    buf_done(&w->campaigns);
    suppress_told_done(&w->told);
    control_trace_end(client);
    *w = (struct control_work){0};
}

/* Suspensions: which there are, and how many recipients each holds. The rows say that of domains,
 * campaigns and tenants; which site a row would go to the workers know, who are asked a slice at a
 * time, and only when a site is suspended. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/control_private.h"
#include "worker/queue_name.h"

struct held_by {
    struct map_node node;
    struct suspension one;
    uint64_t rows;
};

struct control_suspensions {
    struct map by_name;
    struct held_by **sorted;
    size_t len, next;
    bool sites; /* some are of a site */
    struct control_job *job;
    uint64_t asked[CONTROL_SLICE_ROWS]; /* rows of each query of the job */
};

static uint64_t hash_of(enum suspension_scope scope, struct str name)
{
    return hash_bytes(name.ptr, name.len, scope);
}

static void count_rows(struct control_suspensions *s, enum suspension_scope scope, struct str name,
                       uint64_t rows)
{
    for (struct map_node *n = map_find(&s->by_name, hash_of(scope, name)); n != NULL;
         n = map_find_next(n)) {
        struct held_by *h = CONTAINER_OF(n, struct held_by, node);

        if (h->one.scope == scope && str_eq(str_of(h->one.name), name))
            h->rows += rows;
    }
}

/* --- which there are --- */

static void take_in(void *to, const struct suspension *one)
{
    struct control_suspensions *s = to;
    struct held_by *h;

    if (suspension_is_recovery(one->scope)) /* `route` tells of it */
        return;
    h = calloc(1, sizeof(*h));
    ASSERT(h != NULL); /* as in buf_*: memory is fatal */
    h->one = *one;
    s->sites = s->sites || one->scope == SUSPENSION_SITE;
    map_insert(&s->by_name, &h->node, hash_of(one->scope, str_of(one->name)));
}

static int compare(const void *a, const void *b)
{
    const struct held_by *ha = *(struct held_by *const *)a, *hb = *(struct held_by *const *)b;

    if (ha->one.scope != hb->one.scope)
        return ha->one.scope < hb->one.scope ? -1 : 1;
    return strcmp(ha->one.name, hb->one.name);
}

static struct control_suspensions *suspensions_new(struct control *c)
{
    struct control_suspensions *s = calloc(1, sizeof(*s));
    struct map_node *n = NULL;
    size_t bucket = 0;
    int err = s == NULL ? -ENOMEM : map_init(&s->by_name, 64);

    ASSERT(err == 0);
    c->backend->suspensions(c->arg, take_in, s);
    s->sorted = calloc(s->by_name.count + 1, sizeof(*s->sorted));
    ASSERT(s->sorted != NULL);
    while ((n = map_walk(&s->by_name, &bucket, n)) != NULL)
        s->sorted[s->len++] = CONTAINER_OF(n, struct held_by, node);
    ASSERT(s->len == s->by_name.count);
    qsort(s->sorted, s->len, sizeof(*s->sorted), compare);
    return s;
}

void control_suspensions_free(struct control_suspensions *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->len; i++)
        free(s->sorted[i]);
    free(s->sorted);
    map_done(&s->by_name);
    control_job_free(s->job);
    free(s);
}

/* --- what they hold --- */

static bool visit_row(void *arg, const struct queue_row_view *row)
{
    struct control_client *client = arg;
    struct control_suspensions *s = client->work.suspensions;
    const struct queue_flow *flow = queue_flow_find(client->control->queue, row->flow);

    client->work.visited++;
    if ((row->flags & RECIPIENT_HELD) != 0)
        return true;
    count_rows(s, SUSPENSION_DOMAIN, queue_name_destination(row->queue), 1);
    if (flow != NULL) {
        count_rows(s, SUSPENSION_CAMPAIGN, flow->campaign, 1);
        count_rows(s, SUSPENSION_TENANT, flow->tenant, 1);
    }
    if (s->sites) {
        if (s->job == NULL)
            s->job = control_waits_new(client);
        if (control_waits_add(s->job, row->queue, row->flow, client->work.shard))
            s->asked[s->job->waits_len - 1] = 0;
        ASSERT(s->job->waits_len > 0 && s->job->waits_len <= ARRAY_LEN(s->asked));
        s->asked[s->job->waits_len - 1]++;
    }
    return true;
}

void control_suspensions_returned(struct control_client *client, const struct control_job *job)
{
    struct control_suspensions *s = client->work.suspensions;

    ASSERT(s->sites && job->waits_len <= ARRAY_LEN(s->asked));
    for (size_t i = 0; i < job->waits_len; i++) {
        count_rows(s, SUSPENSION_SITE, str_of(job->waits[i].site), s->asked[i]);
        if (job->waits[i].set[0] != 0) /* what was suspended before a provider was known */
            count_rows(s, SUSPENSION_SITE, str_of(job->waits[i].set), s->asked[i]);
    }
}

static void put_one(const struct held_by *h, struct buf *out)
{
    buf_puts(out, "{\"suspension\":{");
    json_text(out, "name", str_of(h->one.name));
    json_suspension(out, &h->one);
    /* Other sources of the pool may send a source's mail; what else is of one site is not counted.
     */
    if (h->one.scope != SUSPENSION_SOURCE && !suspension_is_at_site(h->one.scope))
        json_number(out, "rows", (int64_t)h->rows);
    json_end(out);
    buf_puts(out, "}\n");
}

enum control_step control_step_suspensions(struct control_client *client)
{
    struct control_work *w = &client->work;
    struct control_suspensions *s = w->suspensions;
    struct control_job *job;
    int err;

    if (s == NULL)
        s = w->suspensions = suspensions_new(client->control);
    if (s->len > 0 && !w->ended) {
        err = control_walk(client, false, visit_row);
        if (err != 0)
            return control_store_failed(client, err);
        control_report_progress(client);
        job = s->job;
        s->job = NULL;
        return job == NULL ? CONTROL_STEP_MORE : control_waits_ask(client, job);
    }
    for (; s->next < s->len && !control_out_full(client); s->next++, w->matched++)
        put_one(s->sorted[s->next], &client->out);
    return s->next < s->len ? CONTROL_STEP_MORE : control_finished(client);
}

/* --- changing them --- */

enum control_step control_no_source(struct control_client *client, const char *name)
{
    char text[SUSPENSION_NAME_MAX + 64];

    snprintf(text, sizeof(text), "there is no source '%s'", name);
    control_put_error(&client->out, "not_found", text, "'hayauma source list' shows them");
    return CONTROL_STEP_DONE;
}

enum control_step control_step_suspend(struct control_client *client)
{
    const struct suspension *what = &client->request.suspension;
    bool resume = client->request.op == CONTROL_OP_RESUME;
    const struct control *c = client->control;
    struct control_job *job;

    ASSERT(what->scope > 0 && what->scope < SUSPENSION_SCOPES);
    if (!resume && what->scope == SUSPENSION_SOURCE &&
        config_source_find(c->backend->config(c->arg), what->name) == NULL)
        return control_no_source(client, what->name);
    job = control_job_new(client);
    job->kind = CONTROL_JOB_SUSPEND;
    job->suspension = client->request.suspension;
    job->resume = resume;
    job->suspension.since_ms = client->control->wall_ms;
    if (client->request.for_ms > 0)
        job->suspension.until_ms = client->control->wall_ms + client->request.for_ms;
    return control_give_job(client, job);
}

enum control_step control_suspend_returned(struct control_client *client,
                                           const struct control_job *job)
{
    const struct suspension *one = &job->suspension;
    char text[SUSPENSION_NAME_MAX + 64];

    if (job->result == 0) {
        buf_puts(&client->out, "{\"done\":true,");
        if (!job->resume)
            json_number(&client->out, "since_ms", one->since_ms);
        if (!job->resume && one->until_ms != 0)
            json_number(&client->out, "until_ms", one->until_ms);
        json_end(&client->out);
        buf_putc(&client->out, '\n');
    } else if (job->result == -ENOENT) {
        snprintf(text, sizeof(text), "%s '%s' is not suspended", suspension_scope_name(one->scope),
                 one->name);
        control_put_error(&client->out, "not_found", text,
                          one->scope == SUSPENSION_CAMPAIGN
                              ? "'hayauma queue suspensions' lists what is; one that was made by "
                                "HTTP and is paused goes on by 'hayauma campaign resume'"
                              : "'hayauma queue suspensions' lists what is");
    } else if (job->result == -ESHUTDOWN) {
        control_put_stopping(client);
    } else {
        control_put_error(&client->out, "failed", strerror(-job->result),
                          job->result == -ENOSPC
                              ? "the disk is full, or there are 10000 suspensions already"
                              : "nothing was changed");
    }
    return CONTROL_STEP_DONE;
}

/* What holds the mail of a subject: a domain, campaign, tenant, site or source, of which workers
 * offer their lanes, or a message, whose rows the store has. Mail that waits for the same thing is
 * one hold. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/control_private.h"
#include "outcome/rules.h"
#include "worker/queue_name.h"

#define WHY_ROWS  100  /* of a message, asked for at a time */
#define WHY_LANES 100  /* of a domain, likewise */
#define LANE_ROWS 1000 /* of a lane that nobody has counted */
#define UNROUTED_WHOLE                                                                             \
    8 /* domains that could not be looked up, told apart; the last place is all others' */
#define LOOK_ROWS    10   /* of a queue, looked at for what its lane does not know */
#define PER_HOUR_MAX 1e15 /* more is no bound, and perhaps no whole number of JSON's */

/* A row of a message whose queue workers are asked about. */
struct why_row {
    struct control_hold hold;
    uint32_t query;
    int64_t due_ms; /* QUEUE_DUE_HELD: held by somebody */
};

struct control_why_work {
    struct control_why *why;
    struct control_job *job; /* being filled with the queues of rows, in their order; or lanes */
    struct buf flows;        /* uint32_t: of the lanes of the present shard, in order */
    struct why_row rows[WHY_ROWS];
    size_t len;
};

/* --- adding up --- */

/* A domain that could not be looked up is a destination of its own: others have other answers. */
static bool is_unrouted(const struct control_hold *h)
{
    return h->wait.reason != NULL && str_eq(str_of(h->wait.reason), STR("no_route"));
}

/* Whether both wait for the same; whole: at the same site, from the same pool and source too. */
static bool is_same(const struct control_hold *a, const struct control_hold *b, bool whole)
{
    const struct control_wait *wa = &a->wait, *wb = &b->wait;

    if (a->state != b->state || wa->reason != wb->reason || wa->scope != wb->scope ||
        strcmp(wa->name, wb->name) != 0 || wa->limit.name != wb->limit.name)
        return false;
    return !whole || (strcmp(a->site, b->site) == 0 && strcmp(a->pool, b->pool) == 0 &&
                      strcmp(wa->source, wb->source) == 0 &&
                      (!is_unrouted(a) || strcmp(a->queue, b->queue) == 0));
}

static struct control_hold *find(struct control_why *why, const struct control_hold *h)
{
    struct control_hold *unrouted = NULL;
    uint32_t unrouted_len = 0;

    for (uint32_t i = 0; i < why->len && i < CONTROL_HOLDS_WHOLE; i++) {
        if (is_same(&why->holds[i], h, true))
            return &why->holds[i];
        if (!is_unrouted(h) || !is_same(&why->holds[i], h, false))
            continue;
        unrouted = &why->holds[i];
        unrouted_len++;
    }
    if (unrouted_len >= UNROUTED_WHOLE)
        return unrouted;
    for (uint32_t i = CONTROL_HOLDS_WHOLE; i < why->len; i++)
        if (is_same(&why->holds[i], h, false))
            return &why->holds[i];
    /* Of all names that suspensions may have there are more than places. */
    return why->len == CONTROL_HOLDS_MAX ? &why->holds[why->len - 1] : NULL;
}

struct control_hold *control_why_add(struct control_why *why, const struct control_hold *h,
                                     bool *made)
{
    struct control_hold *to = find(why, h);

    *made = to == NULL;
    if (to == NULL) {
        ASSERT(why->len < CONTROL_HOLDS_MAX);
        to = &why->holds[why->len++];
        *to = *h;
        if (why->len > CONTROL_HOLDS_WHOLE)
            to->site[0] = to->pool[0] = to->wait.source[0] = 0;
        return to;
    }
    if (is_unrouted(to) && strcmp(to->queue, h->queue) != 0)
        to->queue[0] = to->wait.error[0] = 0; /* several domains, with an answer each */
    to->lanes += h->lanes;
    to->rows += h->rows;
    to->in_flight += h->in_flight;
    if (h->next_ms < to->next_ms)
        to->next_ms = h->next_ms;
    if (h->wait.until_ms > to->wait.until_ms && to->wait.until_ms != 0)
        to->wait.until_ms = h->wait.until_ms;
    return to;
}

/* --- what is asked for --- */

/* In which scopes the name counts: in the one that was said; else a configured source's name is
 * that source, and any other may be anything. */
static uint32_t scopes_of(const struct control *c, const struct suspension *one)
{
    ASSERT(one->scope < SUSPENSION_SCOPES);
    if (one->scope != 0)
        return 1u << one->scope;
    if (config_source_find(c->backend->config(c->arg), one->name) != NULL)
        return 1u << SUSPENSION_SOURCE;
    return 1u << SUSPENSION_DOMAIN | 1u << SUSPENSION_CAMPAIGN | 1u << SUSPENSION_TENANT |
           1u << SUSPENSION_SITE;
}

static struct control_why *why_new(const struct control_client *client)
{
    const struct suspension *one = &client->request.suspension;
    struct control_why *why = calloc(1, sizeof(*why));
    struct dns_name domain;

    ASSERT(why != NULL); /* as in buf_*: memory is fatal */
    memcpy(why->name, one->name, sizeof(why->name));
    why->scopes = scopes_of(client->control, one);
    if (queue_name_of(str_of(one->name), &domain) == 0 && domain.len < sizeof(why->domain))
        memcpy(why->domain, domain.text, domain.len);
    return why;
}

void control_why_free(struct control_why_work *w)
{
    if (w == NULL)
        return;
    control_job_free(w->job);
    buf_done(&w->flows);
    free(w->why);
    free(w);
}

/* --- a message --- */

static bool visit_row(void *arg, const struct queue_row_view *row)
{
    struct control_client *client = arg;
    struct control_why_work *w = client->work.why;
    struct control *c = client->control;
    const struct queue_flow *flow = c->backend->names(c->arg, row->flow);
    const struct config *config = c->backend->config(c->arg);
    struct why_row *to = &w->rows[w->len];
    struct control_wait *answer = &to->hold.wait;

    ASSERT(w->len < WHY_ROWS);
    if (!control_filter_match(&client->request.filter, row, c->wall_ms))
        return true;
    client->work.matched++;
    if (w->why->expires_ms == 0 || row->expires_ms < w->why->expires_ms)
        w->why->expires_ms = row->expires_ms;
    if (w->job == NULL)
        w->job = control_waits_new(client);
    (void)control_waits_add(w->job, row->queue, row->flow, client->work.shard);
    *to = (struct why_row){
        .hold = {.shard = client->work.shard, .lanes = 1, .rows = 1, .per_hour = INFINITY},
        .query = (uint32_t)w->job->waits_len - 1,
        .due_ms = (row->flags & RECIPIENT_HELD) != 0 ? QUEUE_DUE_HELD : row->due_ms};
    snprintf(to->hold.queue, sizeof(to->hold.queue), "%.*s", STR_FMT(row->queue));
    snprintf(to->hold.pool, sizeof(to->hold.pool), "%s",
             config_pool_for(config, flow == NULL ? STR("") : flow->pool)->name);
    snprintf(answer->error, sizeof(answer->error), "%.*s", STR_FMT(row->last_error));
    answer->answered_ms = row->last_attempt_ms;
    return ++w->len < WHY_ROWS;
}

enum control_step control_why_waits(struct control_client *client, const struct control_job *job)
{
    struct control_why_work *w = client->work.why;
    int64_t now_ms = client->control->wall_ms;
    bool made;

    for (size_t i = 0; i < w->len; i++) {
        struct why_row *row = &w->rows[i];
        const struct control_wait_query *q = &job->waits[row->query];
        struct control_hold *h = &row->hold;

        ASSERT(row->query < job->waits_len);
        memcpy(h->site, q->site, sizeof(h->site));
        h->next_ms = row->due_ms;
        if (row->due_ms == QUEUE_DUE_HELD) {
            h->state = CONTROL_HOLD_HELD;
            h->next_ms = INT64_MAX;
        } else if (control_wait_concerns(&q->wait, row->due_ms, now_ms)) {
            h->state = CONTROL_HOLD_WAITS;
            h->wait = q->wait;
            if (q->wait.until_ms == 0)
                h->next_ms = INT64_MAX;
            else if (q->wait.until_ms > h->next_ms)
                h->next_ms = q->wait.until_ms;
        } else {
            h->state = row->due_ms > now_ms ? CONTROL_HOLD_LATER : CONTROL_HOLD_GOES;
        }
        (void)control_why_add(w->why, h, &made);
    }
    w->len = 0;
    return CONTROL_STEP_MORE;
}

/* --- a domain: the store has its lanes, which may be in memory or not --- */

bool control_why_has_lanes(const struct control_why *why, struct str queue)
{
    return (why->scopes & 1u << SUSPENSION_DOMAIN) != 0 && queue.len > 0 &&
           str_eq(queue, str_of(why->domain));
}

static int compare_flows(const void *a, const void *b)
{
    uint32_t fa = *(const uint32_t *)a, fb = *(const uint32_t *)b;

    return fa < fb ? -1 : fa > fb;
}

/* Fresh rows come first, in order of their flows: a lane that has later ones, too, comes again. */
static bool visit_lane(void *arg, const struct queue_row_view *row)
{
    struct control_client *client = arg;
    struct control_why_work *w = client->work.why;
    const uint32_t *flows = (const uint32_t *)(void *)w->flows.data;
    size_t len = w->flows.len / sizeof(*flows);

    if (len > 0 && bsearch(&row->flow, flows, len, sizeof(*flows), compare_flows) != NULL)
        return true;
    if (len == 0 || flows[len - 1] < row->flow)
        buf_put(&w->flows, &row->flow, sizeof(row->flow));
    (void)control_waits_add(w->job, row->queue, row->flow, client->work.shard);
    ASSERT(w->job->waits_len > 0 && w->job->waits_len <= WHY_LANES);
    w->job->waits[w->job->waits_len - 1].due_ms =
        (row->flags & RECIPIENT_HELD) != 0 ? INT64_MAX : row->due_ms;
    return true;
}

static bool visit_count(void *arg, const struct queue_row_view *row)
{
    (void)row;
    ++*(uint64_t *)arg;
    return true;
}

/* How many rows a lane has. Of many lanes in the store the small ones are not counted. */
static uint64_t lane_rows(struct control *c, struct control_why *why,
                          const struct control_wait_query *q)
{
    struct queue_cursor cursor = {0};
    uint64_t visited = 0, rows;
    struct queue_visit what = {.queue = str_of(why->domain),
                               .flow = q->flow,
                               .rows_max = LANE_ROWS,
                               .visit = visit_count,
                               .arg = &visited};
    bool complete;

    rows = queue_lane_rows(c->queue, q->shard, q->flow, str_of(why->domain), &complete);
    if (complete)
        return rows;
    if (queue_visit(c->queue, q->shard, &cursor, &what) != 1)
        why->counting = true;
    return visited > rows ? visited : rows;
}

/* The next lanes go to the workers. CONTROL_STEP_MORE: there was none among what was looked at. */
static enum control_step step_lanes(struct control_client *client)
{
    struct control_why_work *w = client->work.why;
    struct control *c = client->control;
    struct queue_visit what = {.queue = str_of(w->why->domain),
                               .heads = true,
                               .rows_max = WHY_LANES,
                               .visit = visit_lane,
                               .arg = client};
    struct control_job *job = w->job = control_waits_new(client);
    int err = queue_visit(c->queue, client->work.shard, &client->work.cursor, &what);

    w->job = NULL;
    for (size_t i = 0; err >= 0 && i < job->waits_len; i++)
        job->waits[i].rows = lane_rows(c, w->why, &job->waits[i]);
    if (err == 1) {
        control_next_shard(client);
        buf_clear(&w->flows);
    }
    if (err < 0 || job->waits_len == 0) {
        control_job_free(job);
        return err < 0 ? control_store_failed(client, err) : CONTROL_STEP_MORE;
    }
    job->kind = CONTROL_JOB_WHY;
    job->why = w->why;
    w->why = NULL;
    return control_waits_ask(client, job);
}

/* --- the reply --- */

static int compare(const void *a, const void *b)
{
    const struct control_hold *ha = a, *hb = b;

    if (ha->rows != hb->rows)
        return ha->rows > hb->rows ? -1 : 1;
    return strcmp(ha->queue, hb->queue);
}

struct look {
    struct control_hold *hold;
    bool is_free; /* some row is held by nobody */
};

static bool visit_look(void *arg, const struct queue_row_view *row)
{
    struct look *l = arg;
    struct control_wait *answer = &l->hold->wait;

    if ((row->flags & RECIPIENT_HELD) != 0)
        return true;
    l->is_free = true;
    if (answer->error[0] == 0 && row->last_error.len > 0) {
        snprintf(answer->error, sizeof(answer->error), "%.*s", STR_FMT(row->last_error));
        answer->answered_ms = row->last_attempt_ms;
    }
    return answer->error[0] == 0;
}

/* What lanes do not know, the first rows do: what the last attempt before a restart heard, and that
 * somebody holds them all. */
static void look_at_rows(struct control *c, struct control_hold *h)
{
    struct queue_cursor cursor = {0};
    struct look l = {.hold = h};
    struct queue_visit what = {
        .queue = str_of(h->queue), .rows_max = LOOK_ROWS, .visit = visit_look, .arg = &l};

    if (h->state != CONTROL_HOLD_LATER || queue_visit(c->queue, h->shard, &cursor, &what) != 1 ||
        l.is_free)
        return;
    h->state = CONTROL_HOLD_HELD;
    h->next_ms = INT64_MAX;
    h->wait = (struct control_wait){0};
}

/* Hours until what goes the same way, from one pool to one site, is gone. 0: nobody knows. */
static double hours_of(const struct control_why *why, const struct control_hold *h)
{
    uint64_t rows = 0;

    if (h->per_hour <= 0 || h->per_hour >= PER_HOUR_MAX || h->site[0] == 0)
        return 0;
    for (uint32_t i = 0; i < why->len; i++)
        if (strcmp(why->holds[i].site, h->site) == 0 && strcmp(why->holds[i].pool, h->pool) == 0)
            rows += why->holds[i].rows;
    return (double)rows / h->per_hour;
}

/* What the last attempt heard, and which rule reads that, of the present configuration. */
static void put_last(const struct control *c, const struct control_hold *h, struct buf *out)
{
    const struct config *config = c->backend->config(c->arg);
    const struct config_provider *provider = config_provider_find(config, str_of(h->site));
    const struct config_rule *rule =
        rule_of_text(config, provider != NULL ? provider->warmup : "default",
                     h->wait.host[0] != 0 ? h->wait.host : h->site, str_of(h->wait.error));

    json_text(out, "last_error", str_of(h->wait.error));
    if (rule != NULL)
        json_text(out, "last_rule", str_of(rule->name));
    json_text(out, "last_host", str_of(h->wait.host));
    json_number(out, "last_attempt_ms", h->wait.answered_ms);
}

static void put_hold(const struct control *c, const struct control_why *why,
                     const struct control_hold *h, struct buf *out)
{
    static const char *const states[] = {[CONTROL_HOLD_WAITS] = "waits",
                                         [CONTROL_HOLD_GOES] = "goes",
                                         [CONTROL_HOLD_LATER] = "later",
                                         [CONTROL_HOLD_HELD] = "held"};
    double hours = hours_of(why, h);

    ASSERT((size_t)h->state < ARRAY_LEN(states) && states[h->state] != NULL);
    buf_putc(out, '{');
    json_text(out, "state", str_of(states[h->state]));
    json_number(out, "recipients", (int64_t)h->rows);
    json_number(out, "in_flight", h->in_flight);
    json_text(out, "queue", str_of(h->queue));
    json_text(out, "site", str_of(h->site));
    json_text(out, "pool", str_of(h->pool));
    if (h->next_ms != 0 && h->next_ms != INT64_MAX)
        json_number(out, "next_ms", h->next_ms);
    if (h->per_hour < 100) /* 3 a day are 0.125 */
        buf_printf(out, "\"per_hour\":%.4g,", h->per_hour);
    else if (h->per_hour < PER_HOUR_MAX)
        json_number(out, "per_hour", (int64_t)h->per_hour);
    if (hours > 0)
        buf_printf(out, "\"hours\":%.4f,", hours);
    json_wait(out, &h->wait);
    if (h->wait.reason == NULL && h->wait.error[0] != 0)
        put_last(c, h, out);
    json_end(out);
    buf_putc(out, ',');
}

/* The subject's own suspensions, also where it has no mail. */
struct own {
    const struct control_why *why;
    struct buf *out;
};

static void put_own(void *to, const struct suspension *one)
{
    const struct own *o = to;
    struct str name = str_of(one->scope == SUSPENSION_DOMAIN ? o->why->domain : o->why->name);
    bool same = one->scope == SUSPENSION_SITE ? str_eq_nocase(str_of(one->name), name)
                                              : str_eq(str_of(one->name), name);

    if ((o->why->scopes & 1u << one->scope) == 0 || o->why->name[0] == 0 || !same)
        return;
    buf_putc(o->out, '{');
    json_suspension(o->out, one);
    json_end(o->out);
    buf_putc(o->out, ',');
}

/* What the name turned out to be. */
static void put_subject(struct control *c, const struct control_why *why, const struct msgid *id,
                        struct buf *out)
{
    uint32_t scopes = why->found != 0 ? why->found : why->scopes;
    const struct config_source *source = config_source_find(c->backend->config(c->arg), why->name);
    char text[MSGID_TEXT_BYTES];

    buf_puts(out, "\"is\":[");
    if (id != NULL)
        buf_puts(out, "\"message\"");
    for (enum suspension_scope s = SUSPENSION_DOMAIN; id == NULL && s < SUSPENSION_SCOPES; s++)
        if ((scopes & 1u << s) != 0)
            buf_printf(out, "\"%s\",", suspension_scope_name(s));
    json_end_list(out);
    if (id != NULL)
        msgid_text(id, text);
    json_text(out, "name", str_of(id != NULL ? text : why->name));
    if (source != NULL && (why->scopes & 1u << SUSPENSION_SOURCE) != 0) {
        buf_puts(out, "\"source\":");
        control_put_source(c, source, out);
        buf_putc(out, ',');
    }
    buf_puts(out, "\"suspensions\":[");
    c->backend->suspensions(c->arg, put_own, &(struct own){why, out});
    json_end_list(out);
}

/* --- how much there is of campaigns and tenants: the queue counts rows of each flow --- */

struct stored {
    const struct control_why *why;
    struct str name; /* as flows have it */
    uint64_t rows;
    uint32_t found; /* scopes */
};

static void add_flow(void *to, const struct queue_flow *flow)
{
    struct stored *s = to;
    int64_t rows = atomic_load_explicit(&flow->sums->rows, memory_order_relaxed);
    uint32_t scopes = 0;

    if (rows <= 0)
        return;
    if (str_eq(flow->campaign, s->name))
        scopes |= 1u << SUSPENSION_CAMPAIGN;
    if (str_eq(flow->tenant, s->name))
        scopes |= 1u << SUSPENSION_TENANT;
    scopes &= s->why->scopes;
    s->rows += scopes == 0 ? 0 : (uint64_t)rows;
    s->found |= scopes;
}

static bool is_counting(const struct control *c)
{
    struct queue_counters one = {.rows_complete = true};

    for (uint32_t shard = 0; shard < queue_shards(c->queue) && one.rows_complete; shard++)
        queue_counters(c->queue, shard, &one);
    return !one.rows_complete;
}

/* How many recipients the subject has, those of its holds, where the queue knows better. A domain
 * or site of the same name has some besides, which only its lanes know. */
static uint64_t stored_rows(const struct control *c, struct control_why *why, uint64_t rows)
{
    const uint32_t scopes = 1u << SUSPENSION_CAMPAIGN | 1u << SUSPENSION_TENANT;
    struct stored s = {.why = why, .name = str_of(why->name)};

    if (c->queue == NULL || why->name[0] == 0 || (why->scopes & scopes) == 0)
        return rows;
    if (s.name.len > FLOW_NAME_MAX)
        s.name.len = FLOW_NAME_MAX;
    queue_flows_visit(c->queue, add_flow, &s);
    why->found |= s.found;
    if ((why->found & ~scopes) == 0)
        why->counting = is_counting(c);
    return s.rows > rows ? s.rows : rows;
}

/* Of a campaign that is asked for by its name: the newest of it. */
static void take_expires(void *to, const struct campaign *one)
{
    struct control_why *why = to;

    if (strcmp(one->name, why->name) == 0)
        why->expires_ms = one->expires_ms;
}

static void put_why(struct control_client *client, struct control_why *why)
{
    struct control *c = client->control;
    struct buf *out = &client->out;
    const struct msgid *id = client->request.filter.has_id ? &client->request.id : NULL;
    uint64_t seen = 0, rows, in_flight = 0;

    qsort(why->holds, why->len, sizeof(*why->holds), compare);
    for (uint32_t i = 0; i < why->len; i++) {
        seen += why->holds[i].rows;
        in_flight += why->holds[i].in_flight;
        look_at_rows(c, &why->holds[i]);
    }
    rows = stored_rows(c, why, seen);
    if (id == NULL && (why->found & 1u << SUSPENSION_CAMPAIGN) != 0)
        c->backend->campaigns(c->arg, take_expires, why);
    buf_puts(out, "{\"why\":{");
    put_subject(c, why, id, out);
    json_number(out, "now_ms", c->wall_ms);
    json_number(out, "recipients", (int64_t)rows);
    json_number(out, "in_flight", (int64_t)in_flight);
    if (why->expires_ms != 0)
        json_number(out, "expires_ms", why->expires_ms);
    if (why->counting)
        json_bool(out, "counting", true);
    if (why->absent > 0)
        json_number(out, "absent", (int64_t)why->absent);
    if (why->absent > 0 && rows > seen)
        json_number(out, "unseen", (int64_t)(rows - seen));
    json_text(out, "intake", str_of(control_intake_name(control_intake(c))));
    buf_puts(out, "\"holds\":[");
    for (uint32_t i = 0; i < why->len; i++)
        put_hold(c, why, &why->holds[i], out);
    json_end_list(out);
    json_end(out);
    buf_puts(out, "}\n{\"done\":true}\n");
}

/* --- steps --- */

static enum control_step step_message(struct control_client *client)
{
    struct control_why_work *w = client->work.why;
    int err = control_walk(client, true, visit_row);
    struct control_job *job;

    if (err != 0)
        return control_store_failed(client, err);
    if (w->len > 0) {
        job = w->job;
        w->job = NULL;
        return control_waits_ask(client, job);
    }
    if (!client->work.ended)
        return CONTROL_STEP_MORE;
    if (client->work.matched == 0)
        control_put_error(&client->out, "not_found", "no message with this id is in the queue",
                          "what was delivered or returned is in the records");
    else
        put_why(client, w->why);
    return CONTROL_STEP_DONE;
}

enum control_step control_step_why(struct control_client *client)
{
    struct control_why_work *w = client->work.why;
    struct control *c = client->control;
    const struct suspension *one = &client->request.suspension;
    struct control_job *job;

    if (one->scope == SUSPENSION_SOURCE &&
        config_source_find(c->backend->config(c->arg), one->name) == NULL)
        return control_no_source(client, one->name);
    if (w == NULL) {
        w = client->work.why = calloc(1, sizeof(*w));
        ASSERT(w != NULL);
        w->why = why_new(client);
    }
    if (client->request.filter.has_id)
        return step_message(client);
    if (!client->work.ended && control_why_has_lanes(w->why, str_of(w->why->domain)))
        return step_lanes(client);
    ASSERT(w->why != NULL); /* it is with no worker */
    job = control_job_new(client);
    job->kind = CONTROL_JOB_WHY;
    job->why = w->why;
    w->why = NULL;
    return control_give_job(client, job);
}

enum control_step control_why_returned(struct control_client *client, struct control_job *job)
{
    ASSERT(job->why != NULL && client->work.why->why == NULL);
    if (job->waits_len > 0) {
        client->work.why->why = job->why;
        job->why = NULL;
        return CONTROL_STEP_MORE;
    }
    put_why(client, job->why);
    return CONTROL_STEP_DONE;
}

/* The lines of JSON that requests are answered with. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/base64.h"
#include "config/config_value.h"
#include "control/control_private.h"

void json_text(struct buf *out, const char *name, struct str value)
{
    buf_printf(out, "\"%s\":", name);
    buf_put_json(out, value);
    buf_putc(out, ',');
}

void json_number(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "\"%s\":", name);
    buf_put_i64(out, value);
    buf_putc(out, ',');
}

void json_bool(struct buf *out, const char *name, bool value)
{
    buf_printf(out, "\"%s\":%s,", name, value ? "true" : "false");
}

void json_base64(struct buf *out, const char *name, const void *from, size_t n)
{
    buf_printf(out, "\"%s\":\"", name);
    base64_put(out, (struct str){from, n});
    buf_puts(out, "\",");
}

void json_end(struct buf *out)
{
    if (out->len != 0 && out->data[out->len - 1] == ',')
        out->len--;
    buf_putc(out, '}');
}

void json_end_list(struct buf *out)
{
    ASSERT(out->len > 0); /* the list began in it */
    if (out->data[out->len - 1] == ',')
        out->len--;
    buf_puts(out, "],");
}

void json_lowered(struct buf *out, const struct suspension_cap *cap)
{
    struct buf rate = {0};

    if (cap->rate_messages != 0) {
        config_format_rate(&rate, cap->rate_messages, cap->rate_period_ms);
        json_text(out, "rate", buf_str(&rate));
        buf_done(&rate);
    }
    if (cap->sessions != 0)
        json_number(out, "sessions_max", cap->sessions);
    if (cap->session_messages != 0)
        json_number(out, "session_messages_max", cap->session_messages);
}

void json_suspension(struct buf *out, const struct suspension *one)
{
    json_text(out, "scope", str_of(suspension_scope_name(one->scope)));
    json_number(out, "since_ms", one->since_ms);
    if (one->until_ms != 0)
        json_number(out, "until_ms", one->until_ms);
    json_text(out, "reason", str_of(one->reason));
    json_text(out, "who", str_of(one->who));
    if (suspension_is_cap(one->scope))
        json_lowered(out, &one->cap);
}

static void json_limit(struct buf *out, const struct control_wait *wait)
{
    bool messages = wait->limit.period_ms != 0;

    if (wait->limit.name == NULL)
        return;
    buf_puts(out, "\"limit\":{");
    json_text(out, "name", str_of(wait->limit.name));
    if (!messages && wait->limit.max != 0)
        json_number(out, "used", (int64_t)wait->limit.used);
    if (wait->limit.max != 0)
        json_number(out, "max", (int64_t)wait->limit.max);
    if (messages)
        json_number(out, "period_ms", wait->limit.period_ms);
    if (wait->limit.stages != 0) {
        json_number(out, "stage", wait->limit.stage);
        json_number(out, "stages", wait->limit.stages);
    }
    if (wait->limit.by_peer)
        json_bool(out, "by_peer", true);
    if (wait->limit.by_rule)
        json_bool(out, "by_rule", true);
    json_text(out, "set", str_of(wait->limit.set));
    json_end(out);
    buf_putc(out, ',');
}

void json_wait(struct buf *out, const struct control_wait *wait)
{
    if (wait->reason == NULL)
        return;
    buf_puts(out, "\"wait\":{");
    json_text(out, "reason", str_of(wait->reason));
    if (wait->until_ms != 0)
        json_number(out, "until_ms", wait->until_ms);
    if (wait->scope != NULL) {
        json_number(out, "since_ms", wait->since_ms);
        json_text(out, "scope", str_of(wait->scope));
        json_text(out, "name", str_of(wait->name));
        json_text(out, "who", str_of(wait->who));
    }
    if (wait->source[0] != 0)
        json_text(out, "source", str_of(wait->source));
    json_limit(out, wait);
    if (wait->text[0] != 0)
        json_text(out, "text", str_of(wait->text));
    if (wait->host[0] != 0)
        json_text(out, "host", str_of(wait->host));
    if (wait->error[0] != 0)
        json_text(out, "error", str_of(wait->error));
    if (wait->answered_ms != 0)
        json_number(out, "answered_ms", wait->answered_ms);
    json_end(out);
    buf_putc(out, ',');
}

static void json_count(struct buf *out, const char *name, uint64_t value)
{
    json_number(out, name, value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

void control_put_error(struct buf *out, const char *code, const char *message, const char *hint)
{
    buf_puts(out, "{\"error\":{");
    json_text(out, "code", str_of(code));
    json_text(out, "message", str_of(message));
    if (hint != NULL && *hint != 0)
        json_text(out, "hint", str_of(hint));
    json_end(out);
    buf_puts(out, "}\n");
}

void control_put_done(struct buf *out, const struct control_work *w, enum control_op op)
{
    buf_puts(out, "{");
    json_bool(out, "done", true);
    json_count(out, "matched", w->matched);
    json_count(out, "visited", w->visited);
    if (op == CONTROL_OP_ACTION || op == CONTROL_OP_PURGE)
        json_count(out, "changed", w->changed);
    if (w->truncated)
        json_bool(out, "truncated", true);
    json_end(out);
    buf_putc(out, '\n');
}

void control_put_progress(struct buf *out, const struct control_work *w)
{
    buf_puts(out, "{\"progress\":{");
    json_count(out, "visited", w->visited);
    json_count(out, "matched", w->matched);
    json_count(out, "changed", w->changed);
    json_end(out);
    buf_puts(out, "}\n");
}

void control_put_row(struct control *c, struct buf *out, const struct queue_row_view *row,
                     bool data)
{
    enum control_state state = control_row_state(row, c->wall_ms);
    const struct queue_flow *flow = c->backend->names(c->arg, row->flow);
    char id[MSGID_TEXT_BYTES];

    msgid_text(&row->id, id);
    buf_puts(out, "{\"row\":{");
    json_text(out, "queue", row->queue);
    json_text(out, "id", str_of(id));
    json_number(out, "index", row->index);
    json_text(out, "state", str_of(control_state_name(state)));
    json_number(out, "priority", flow == NULL ? row->priority : flow->priority);
    if (state != CONTROL_STATE_HELD)
        json_number(out, "due_ms", row->due_ms);
    json_number(out, "last_attempt_ms", row->last_attempt_ms);
    json_number(out, "attempts", row->attempts);
    json_text(out, "recipient", row->address);
    json_text(
        out, "pool",
        str_of(config_pool_for(c->backend->config(c->arg), flow == NULL ? STR("") : flow->pool)
                   ->name));
    json_text(out, "last_error", row->last_error);
    if (row->created_ms != 0) { /* what is stored with the message was read */
        json_number(out, "created_ms", row->created_ms);
        json_number(out, "expires_ms", row->expires_ms);
        json_text(out, "sender", row->sender);
        json_text(out, "campaign", row->campaign);
        json_text(out, "tenant", row->tenant);
        json_count(out, "size", row->size);
        if (row->recipe)
            json_bool(out, "recipe", true);
    }
    if (data && row->variables.len > 0) { /* JSON as it is: mail/recipe.h wrote it */
        buf_puts(out, "\"variables\":");
        buf_put_str(out, row->variables);
        buf_putc(out, ',');
    }
}

/* The header section with its empty line; all of it when there is none. */
static struct str header_section(const struct message *m)
{
    struct str content = {(const char *)m->content, (size_t)m->content_len};
    const char *end = content.len == 0 ? NULL : memmem(content.ptr, content.len, "\r\n\r\n", 4);

    if (end != NULL)
        content.len = (size_t)(end - content.ptr) + 2;
    /* Headers are the peer's; what is shown of them is bounded. */
    if (content.len > CONTROL_CONTENT_BYTES)
        content.len = CONTROL_CONTENT_BYTES;
    return content;
}

void control_put_message(struct buf *out, const struct message *m)
{
    char id[MSGID_TEXT_BYTES];

    msgid_text(&m->id, id);
    buf_puts(out, "{\"message\":{");
    json_text(out, "id", str_of(id));
    json_number(out, "created_ms", m->created_ms);
    json_text(out, "sender", m->sender);
    json_count(out, "size", m->content_len);
    json_number(out, "recipients", m->recipients);
    json_number(out, "priority", m->priority);
    json_text(out, "campaign", m->campaign);
    json_text(out, "tenant", m->tenant);
    json_text(out, "protocol", m->protocol);
    json_text(out, "origin", m->origin);
    json_text(out, "envid", m->envid);
    json_bool(out, "eight_bit", (m->flags & MESSAGE_8BIT) != 0);
    json_bool(out, "smtputf8", (m->flags & MESSAGE_SMTPUTF8) != 0);
    json_bool(out, "notice", (m->flags & MESSAGE_NOTICE) != 0);
    json_text(out, "headers", header_section(m));
    json_end(out);
    buf_puts(out, "}\n");
}

void control_put_content(struct buf *out, const uint8_t *bytes, size_t n)
{
    ASSERT(n > 0 && n <= CONTROL_CONTENT_BYTES);
    buf_putc(out, '{');
    json_base64(out, "content", bytes, n);
    json_end(out);
    buf_putc(out, '\n');
}

/* --- status --- */

static void put_identity(struct control *c, struct buf *out)
{
    struct control_description d = {0};

    c->backend->describe(c->arg, &d);
    json_text(out, "version", STR(HAYAUMA_VERSION));
    json_number(out, "pid", getpid());
    json_text(out, "node_id", str_of(d.node_id));
    json_text(out, "host_name", str_of(d.host_name));
    json_text(out, "config_file", str_of(d.config_file));
    json_number(out, "started_ms", d.started_ms);
    json_number(out, "now_ms", c->wall_ms);
    json_number(out, "workers", d.workers);
    json_bool(out, "draining", d.draining);
}

void control_put_version(struct control *c, struct buf *out)
{
    buf_puts(out, "{");
    json_bool(out, "done", true);
    put_identity(c, out);
    json_end(out);
    buf_putc(out, '\n');
}

struct counters_sink {
    struct buf *out;
    bool gauges;
};

static void put_counter(void *to, const char *name, uint64_t value, bool gauge)
{
    struct counters_sink *sink = to;

    if (sink->gauges == gauge)
        json_count(sink->out, name, value);
}

static void put_counters(struct control *c, const char *name, bool gauges, struct buf *out)
{
    struct counters_sink sink = {out, gauges};

    buf_printf(out, "\"%s\":{", name);
    c->backend->counters(c->arg, put_counter, &sink);
    json_end(out);
    buf_putc(out, ',');
}

static void put_process(struct buf *out)
{
    struct rusage usage = {0};
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    getrusage(RUSAGE_SELF, &usage);
    if (f != NULL && fscanf(f, "%*d %ld", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    buf_puts(out, "\"process\":{");
    json_number(out, "cpu_us",
                (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000) +
                    usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    json_number(out, "rss_bytes", pages * sysconf(_SC_PAGESIZE));
    json_end(out);
    buf_putc(out, ',');
}

enum queue_intake control_intake(const struct control *c)
{
    enum queue_intake worst = QUEUE_INTAKE_OK, one;

    for (uint32_t shard = 0; c->queue != NULL && shard < queue_shards(c->queue); shard++)
        if ((one = queue_intake(c->queue, shard)) > worst)
            worst = one;
    return worst;
}

const char *control_intake_name(enum queue_intake intake)
{
    switch (intake) {
    case QUEUE_INTAKE_OK:
        return "ok";
    case QUEUE_INTAKE_MAP_FULL:
        return "map_full";
    case QUEUE_INTAKE_DISK_FULL:
        return "disk_full";
    case QUEUE_INTAKE_FAILED:
        return "failed";
    }
    return "?";
}

static void put_queue(struct control *c, struct buf *out)
{
    struct queue_counters sum = {.rows_complete = true};
    struct buf rows = {0};

    ASSERT(c->queue != NULL);
    for (uint32_t shard = 0; shard < queue_shards(c->queue); shard++) {
        struct queue_counters one = {0};

        queue_counters(c->queue, shard, &one);
        queue_counters_add(&sum, &one);
        buf_printf(&rows, "%s%" PRIu64, shard == 0 ? "" : ",", one.rows);
    }
    json_number(out, "shards", queue_shards(c->queue));
    json_text(out, "intake", str_of(control_intake_name(control_intake(c))));
    buf_puts(out, "\"queue\":{");
    json_count(out, "rows", sum.rows);
    buf_puts(out, "\"rows_by_shard\":[");
    buf_put_str(out, buf_str(&rows));
    buf_puts(out, "],");
    buf_done(&rows);
    json_count(out, "messages", sum.messages);
    json_bool(out, "rows_complete", sum.rows_complete);
    json_count(out, "commits", sum.commits);
    json_count(out, "changes", sum.changes);
    json_count(out, "commit_ns_total", sum.commit_ns_total);
    json_count(out, "quarantined", sum.quarantined);
    json_count(out, "commit_errors", sum.commit_errors);
    json_count(out, "map_bytes", sum.map_bytes);
    json_count(out, "map_used_bytes", sum.map_used_bytes);
    json_count(out, "map_reusable_bytes", sum.map_reusable_bytes);
    json_count(out, "disk_free_bytes", sum.disk_free_bytes);
    json_count(out, "records_lag", sum.records_lag);
    json_end(out);
    buf_putc(out, ',');
}

static void put_turn(struct buf *out, const char *name, const struct control_turn *t)
{
    buf_printf(out, "\"%s\":{", name);
    json_count(out, "us", t->us);
    json_text(out, "doing", str_of(t->doing));
    json_number(out, "lanes", t->lanes);
    json_end(out);
    buf_putc(out, ',');
}

static void put_turns(struct control *c, struct buf *out)
{
    struct control_description d = {0};
    struct control_turns turns;

    c->backend->describe(c->arg, &d);
    buf_puts(out, "\"turns\":[");
    for (uint32_t i = 0; i < d.workers; i++) {
        c->backend->turns(c->arg, i, &turns);
        buf_puts(out, i == 0 ? "{" : ",{");
        put_turn(out, "longest", &turns.longest);
        put_turn(out, "last_minute", &turns.lately);
        put_turn(out, "cpu_longest", &turns.cpu_longest);
        put_turn(out, "cpu_last_minute", &turns.cpu_lately);
        json_end(out);
    }
    buf_puts(out, "],");
}

static void put_destination(const struct control_destination *d, struct buf *out)
{
    buf_putc(out, '{');
    json_text(out, "queue", str_of(d->queue));
    json_text(out, "site", str_of(d->site));
    json_count(out, "rows", d->rows);
    json_number(out, "in_memory", d->in_memory);
    json_number(out, "in_flight", d->in_flight);
    json_number(out, "sessions", d->sessions);
    json_number(out, "failures", d->failures);
    json_number(out, "suspended_until_ms", d->suspended_until_ms);
    if (d->next_due_ms != INT64_MAX)
        json_number(out, "next_due_ms", d->next_due_ms);
    json_text(out, "last_error", str_of(d->last_error));
    json_wait(out, &d->wait);
    json_end(out);
    buf_putc(out, ',');
}

void control_put_status(struct control *c, struct control_status *s, struct buf *out)
{
    ASSERT(s->len <= s->max);
    buf_puts(out, "{\"status\":{");
    put_identity(c, out);
    put_counters(c, "counters", false, out);
    put_counters(c, "gauges", true, out);
    if (c->queue != NULL)
        put_queue(c, out);
    put_process(out);
    put_turns(c, out);
    control_put_egress(c, out);
    control_put_sums(c, s->max, out);
    buf_puts(out, "\"destinations\":[");
    for (uint32_t i = 0; i < s->len; i++)
        put_destination(&s->destinations[i], out);
    if (s->len != 0)
        out->len--; /* the last comma */
    buf_puts(out, "]}}\n{\"done\":true}\n");
}

/* Warm-up: where streams stand, how their days ended, and the operator's orders. */
#include <errno.h>
#include <stdio.h>

#include "control/control_private.h"
#include "worker/warmup_store.h"

static void json_cap(struct buf *out, const char *name, uint32_t cap)
{
    if (cap == WARMUP_NO_CAP)
        buf_printf(out, "\"%s\":null,", name);
    else
        json_number(out, name, cap);
}

static void json_events(struct buf *out, const uint32_t *events)
{
    json_number(out, "delivered", events[WARMUP_EVENT_DELIVERED]);
    json_number(out, "deferred", events[WARMUP_EVENT_DEFERRED]);
    json_number(out, "bounced", events[WARMUP_EVENT_BOUNCED]);
    json_number(out, "complained", events[WARMUP_EVENT_COMPLAINED]);
}

static void json_day(struct buf *out, const char *name, int32_t number)
{
    char day[DAY_TEXT_BYTES];

    json_text(out, name, str_of(day_text(number, day)));
}

/* --- streams --- */

/* Whether a request means source at provider. */
static bool is_meant(const struct control_request *r, struct str source, struct str provider)
{
    return (*r->warmup.source == 0 || str_eq(str_of(r->warmup.source), source)) &&
           (*r->warmup.provider == 0 || str_eq(str_of(r->warmup.provider), provider));
}

static void put_stream(void *arg, const struct warmup_view *v)
{
    struct control_client *client = arg;
    struct buf *out = &client->out;

    if (!v->configured || !is_meant(&client->request, str_of(v->source), str_of(v->provider)))
        return;
    client->work.matched++;
    buf_puts(out, "{\"stream\":{");
    json_text(out, "source", str_of(v->source));
    json_text(out, "provider", str_of(v->provider));
    json_number(out, "stage", v->stage);
    json_number(out, "stages", v->stages);
    json_cap(out, "cap", v->cap);
    json_number(out, "used", v->used);
    json_cap(out, "hour_share", v->share);
    json_number(out, "hour_used", v->hour_used);
    json_cap(out, "next_cap", v->next_cap);
    json_bool(out, "paused", v->paused);
    json_text(out, "verdict", str_of(warmup_verdict_name(v->verdict)));
    json_text(out, "why", str_of(warmup_verdict_words(v->verdict)));
    json_day(out, "day", v->day);
    json_day(out, "since", v->since);
    if (v->begins != 0)
        json_day(out, "begins", v->begins);
    json_number(out, "day_ends_ms", v->day_ends_ms);
    if (v->next_ms != 0)
        json_number(out, "next_ms", v->next_ms);
    json_events(out, v->events);
    json_end(out);
    buf_puts(out, "}\n");
}

enum control_step control_step_warmup(struct control_client *client)
{
    struct control *c = client->control;

    c->backend->warmup(c->arg, c->wall_ms, put_stream, client);
    return control_finished(client);
}

/* --- days that are over --- */

static void put_past(void *arg, const struct warmup_key *key, const struct warmup_past *p)
{
    struct control_client *client = arg;
    int64_t today = (client->control->wall_ms / (DAY_SECONDS * INT64_C(1000)));
    struct buf *out = &client->out;

    if (!is_meant(&client->request, key->source, key->provider) ||
        today - p->day > (int64_t)client->request.days)
        return;
    client->work.matched++;
    buf_puts(out, "{\"past\":{");
    json_text(out, "source", key->source);
    json_text(out, "provider", key->provider);
    json_day(out, "day", p->day);
    json_number(out, "stage", p->stage + 1);
    json_cap(out, "cap", p->cap);
    json_number(out, "used", p->used);
    json_events(out, p->events);
    json_text(out, "verdict", str_of(warmup_verdict_name(p->verdict)));
    json_text(out, "why", str_of(warmup_verdict_words(p->verdict)));
    json_end(out);
    buf_puts(out, "}\n");
}

enum control_step control_step_warmup_days(struct control_client *client)
{
    int err = warmup_store_days(client->control->queue, put_past, client);

    return err < 0 ? control_store_failed(client, err) : control_finished(client);
}

/* --- orders --- */

enum control_step control_step_warmup_order(struct control_client *client)
{
    struct control_job *job = control_job_new(client);

    job->kind = CONTROL_JOB_WARMUP;
    job->warmup = client->request.warmup;
    return control_give_job(client, job);
}

enum control_step control_warmup_returned(struct control_client *client,
                                          const struct control_job *job)
{
    const struct warmup_order *o = &job->warmup;
    char text[2 * WARMUP_NAME_MAX + 64];

    if (job->result == 0) {
        buf_puts(&client->out, "{\"done\":true}\n");
    } else if (job->result == -ENOENT) {
        snprintf(text, sizeof(text), "source '%s' has sent nothing to %s%s since its warm-up began",
                 o->source, *o->provider == 0 ? "anybody" : "provider ", o->provider);
        control_put_error(&client->out, "not_found", text,
                          "'hayauma warmup status' lists streams, 'hayauma warmup providers' the "
                          "names of providers");
    } else if (job->result == -ERANGE) {
        control_put_error(&client->out, "refused", "the schedule has no such stage",
                          "stages are numbered from 1; one more than there are is no cap");
    } else if (job->result == -ESHUTDOWN) {
        control_put_error(&client->out, "refused", "the engine is stopping",
                          "nothing was changed; repeat the command when it runs again");
    } else {
        control_put_error(&client->out, "failed", strerror(-job->result),
                          "the store could not keep it; repeat the command");
    }
    return CONTROL_STEP_DONE;
}

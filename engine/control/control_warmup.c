/* Warm-up: where streams stand, how their days ended, and the operator's orders. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/suggest.h"
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

/* --- names --- */

static void refuse_name(struct control_client *client, struct str text, const char *near,
                        const char *list)
{
    char message[2 * WARMUP_NAME_MAX + 64], hint[WARMUP_NAME_MAX + 64];

    snprintf(message, sizeof(message), "%.*s", STR_FMT(text));
    if (near != NULL)
        snprintf(hint, sizeof(hint), "did you mean '%s'?", near);
    control_put_error(&client->out, "not_found", message, near != NULL ? hint : list);
}

static void refuse_source(struct control_client *client, const struct config *c, const char *name)
{
    const char *plain;
    enum config_warmup_kind kind = config_warmup_kind(name, &plain);
    bool is_source = kind == CONFIG_WARMUP_SOURCE;
    char prefixed[WARMUP_NAME_MAX + 16];
    struct suggest near;
    struct buf text = {0};

    suggest_init(&near, str_of(name));
    for (size_t i = 0; is_source && i < c->warmup.sources_len; i++)
        suggest_offer(&near, c->warmup.sources[i].name);
    for (enum config_warmup_kind k = CONFIG_WARMUP_SOURCE + 1; is_source && k < CONFIG_WARMUP_KINDS;
         k++) {
        if (!config_warmup_has(c, k, str_of(name)))
            continue;
        snprintf(prefixed, sizeof(prefixed), "%s:%s", config_warmup_kind_name(k), name);
        near.best = prefixed;
    }
    if (is_source && config_source_find(c, plain) == NULL)
        buf_printf(&text, "there is no source '%s'", plain);
    else
        buf_printf(&text, "'%s' is not being warmed up: warmup.%s does not name it", plain,
                   config_warmup_map(kind));
    refuse_name(client, buf_str(&text), near.best,
                "'warmup' of 'hayauma config show' says what is being warmed up");
    buf_done(&text);
}

struct looking {
    struct suggest near;
    const char *name;
    bool found;
};

static void look_at_provider(void *arg, const char *name, const char *mx)
{
    struct looking *l = arg;

    (void)mx;
    suggest_offer(&l->near, name);
    l->found = l->found || strcmp(name, l->name) == 0;
}

/* False: there is such a provider. */
static bool refuse_provider(struct control_client *client, const struct config *c, const char *name)
{
    struct looking l = {.name = name};
    struct buf text = {0};

    suggest_init(&l.near, str_of(name));
    config_providers_visit(c, look_at_provider, &l);
    if (l.found)
        return false;
    buf_printf(&text, "there is no provider '%s'", name);
    refuse_name(client, buf_str(&text), l.near.best, "'hayauma warmup providers' lists them");
    buf_done(&text);
    return true;
}

/* Nothing was found of what a request names: an answer, unless both names are known. */
static bool is_refused(struct control_client *client)
{
    const struct config *c = client->control->backend->config(client->control->arg);
    const struct warmup_order *o = &client->request.warmup;
    struct config_warmup_policy policy;

    if (*o->source == 0 || config_warmup_policy(c, o->source, o->provider, &policy))
        return *o->provider != 0 && refuse_provider(client, c, o->provider);
    refuse_source(client, c, o->source);
    return true;
}

static enum control_step listed(struct control_client *client)
{
    return client->work.matched == 0 && is_refused(client) ? CONTROL_STEP_DONE
                                                           : control_finished(client);
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
    return listed(client);
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

    return err < 0 ? control_store_failed(client, err) : listed(client);
}

/* --- orders --- */

enum control_step control_step_warmup_order(struct control_client *client)
{
    struct control_job *job = control_job_new(client);

    ASSERT(client->request.has_order);
    job->kind = CONTROL_JOB_WARMUP;
    job->warmup = client->request.warmup;
    return control_give_job(client, job);
}

enum control_step control_warmup_returned(struct control_client *client,
                                          const struct control_job *job)
{
    const struct warmup_order *o = &job->warmup;
    char text[2 * WARMUP_NAME_MAX + 64];

    ASSERT(job->kind == CONTROL_JOB_WARMUP && job->result <= 0);
    if (job->result == 0) {
        buf_puts(&client->out, "{\"done\":true}\n");
    } else if (job->result == -ENOENT && is_refused(client)) {
        /* said */
    } else if (job->result == -ENOENT) {
        snprintf(text, sizeof(text), "'%s' has sent nothing to %s%s since its warm-up began",
                 o->source, *o->provider == 0 ? "anybody" : "provider ", o->provider);
        control_put_error(&client->out, "not_found", text,
                          "'hayauma warmup status' lists streams, 'hayauma warmup providers' the "
                          "names of providers");
    } else if (job->result == -ERANGE) {
        control_put_error(&client->out, "refused", "the schedule has no such stage",
                          "stages are numbered from 1; one more than there are is no cap");
    } else if (job->result == -ESHUTDOWN) {
        control_put_stopping(client);
    } else {
        control_put_error(&client->out, "failed", strerror(-job->result),
                          "the store could not keep it; repeat the command");
    }
    return CONTROL_STEP_DONE;
}

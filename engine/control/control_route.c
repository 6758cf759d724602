/* A dry run: by which pool mail would go, as the rules say, and where to, as the worker of its
 * domain would send it. Nothing is sent, and nothing is accepted. */
#include <errno.h>
#include <stdio.h>

#include "control/control_private.h"
#include "worker/queue_name.h"

/* As flows look at names. */
static void name_copy(char *out, size_t size, struct str name)
{
    ASSERT(size > 0);
    if (name.len >= size)
        name.len = size - 1;
    memcpy(out, name.ptr == NULL ? "" : name.ptr, name.len);
    out[name.len] = '\0';
}

static enum control_step refused(struct control_client *client, const char *what, struct str name,
                                 const char *hint)
{
    char text[200];

    snprintf(text, sizeof(text), "%s: '%.*s'", what, (int)(name.len < 100 ? name.len : 100),
             name.ptr);
    control_put_error(&client->out, "refused", text, hint);
    return CONTROL_STEP_DONE;
}

static struct config_pool_question question(const struct control_request *r)
{
    return (struct config_pool_question){.header = r->route.pool,
                                         .campaign = r->route.campaign,
                                         .tenant = r->route.tenant,
                                         .sender_domain = queue_name_domain(r->route.sender)};
}

/* The pool that the rules choose; with *engaged where such mail goes. */
static const struct config_pool *pool_of(const struct config *config,
                                         const struct control_request *r,
                                         const struct config_pool **engaged)
{
    const struct config_pool_question q = question(r);
    const struct config_pool *pool = config_pool_for(config, config_pool_chosen(config, &q));

    *engaged = config_pool_engaged(config, pool);
    return pool;
}

enum control_step control_step_route(struct control_client *client)
{
    struct control *c = client->control;
    const struct control_request *r = &client->request;
    const struct config *config = c->backend->config(c->arg);
    const struct config_pool *engaged, *pool = pool_of(config, r, &engaged);
    struct dns_name domain;
    struct control_job *job;
    struct control_route *to;

    if (queue_name_of(queue_name_destination(r->route.recipient), &domain) < 0)
        return refused(client, "no domain that mail can go to", r->route.recipient,
                       "write an address: user@example.com");
    if (r->route.pool.len > 0 && config_pool_find(config, r->route.pool) == NULL)
        return refused(client, "there is no such pool", r->route.pool,
                       "'hayauma pool list' shows them; a message that names it is refused");
    job = control_job_new(client);
    job->kind = CONTROL_JOB_ROUTE;
    to = &job->route;
    name_copy(to->domain, sizeof(to->domain), (struct str){domain.text, domain.len});
    name_copy(to->pool, sizeof(to->pool), str_of((r->route.engaged ? engaged : pool)->name));
    name_copy(to->campaign, sizeof(to->campaign), r->route.campaign);
    name_copy(to->tenant, sizeof(to->tenant), r->route.tenant);
    return control_give_job(client, job);
}

enum control_step control_route_returned(struct control_client *client, struct control_job *job)
{
    const struct control_route *of = &job->route;
    const struct config *config = client->control->backend->config(client->control->arg);
    const struct config_pool_question q = question(&client->request);
    const struct config_pool *engaged, *pool = pool_of(config, &client->request, &engaged);
    struct buf *out = &client->out, rule = {0};

    ASSERT(job->kind == CONTROL_JOB_ROUTE && job->result <= 0);
    if (job->result != 0) {
        control_put_error(out, job->result == -ESHUTDOWN ? "refused" : "failed",
                          job->result == -ESHUTDOWN ? "the engine is stopping"
                                                    : strerror(-job->result),
                          "repeat the command");
        return CONTROL_STEP_DONE;
    }
    if (engaged != pool && client->request.route.engaged) {
        config_pool_engaged_put(config, pool, &rule);
        buf_puts(&rule, "; ");
    }
    config_pool_rule_put(config, &q, &rule);
    buf_puts(out, "{\"route\":{");
    json_text(out, "recipient", client->request.route.recipient);
    json_text(out, "domain", str_of(of->domain));
    json_number(out, "now_ms", client->control->wall_ms);
    json_text(out, "pool", str_of(of->pool));
    json_text(out, "rule", buf_str(&rule));
    if (engaged != pool && !client->request.route.engaged)
        json_text(out, "engaged", str_of(engaged->name));
    buf_put_str(out, buf_str(&of->out));
    json_end(out);
    buf_puts(out, "}\n{\"done\":true}\n");
    buf_done(&rule);
    return CONTROL_STEP_DONE;
}

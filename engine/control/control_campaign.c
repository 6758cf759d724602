/* Campaigns: which there are, with their counts, and orders to them. */
#include <errno.h>

#include "control/control_private.h"
#include "intake/campaign_report.h"
#include "intake/campaign_view.h"

#define SLICE_CAMPAIGNS 200 /* whose counts are read in a turn */
#define START_MS_MAX    (INT64_C(366) * 86400000)

/* Those asked for, as they were when the request came. */
struct gathering {
    struct control_client *client;
    struct buf *into;
};

/* Asked for by name or id, or all are. */
static bool is_wanted(const struct control_request *r, const struct campaign *one)
{
    if (r->filter.has_id)
        return memcmp(&r->filter.id, &one->id, sizeof(one->id)) == 0;
    return r->suspension.name[0] == '\0' || strcmp(r->suspension.name, one->name) == 0;
}

static void take_one(void *arg, const struct campaign *one)
{
    struct gathering *g = arg;

    if (is_wanted(&g->client->request, one))
        buf_put(g->into, one, sizeof(*one));
}

static int put_one(struct control_client *client, const struct campaign *one)
{
    struct control *c = client->control;
    struct queue_tally counts = {0};
    int err = campaign_counts(c->queue, &one->id, &counts);

    if (err < 0 && err != -ENOENT)
        return err;
    buf_puts(&client->out, "{\"campaign\":");
    campaign_put(&client->out, one, &counts, c->wall_ms);
    err = campaign_add_about(&client->out, c->queue, &one->id);
    if (err == 0 && client->request.op == CONTROL_OP_CAMPAIGN_REPORT)
        err = campaign_add_report(&client->out, c->queue, &one->id);
    buf_puts(&client->out, "}\n");
    return err;
}

enum control_step control_step_campaigns(struct control_client *client)
{
    struct control *c = client->control;
    struct control_work *w = &client->work;
    struct campaign one;

    if (!w->ended)
        c->backend->campaigns(c->arg, take_one,
                              &(struct gathering){.client = client, .into = &w->campaigns});
    w->ended = true;
    /* The newest first. */
    for (int i = 0; i < SLICE_CAMPAIGNS && w->campaigns.len > 0 && !control_out_full(client); i++) {
        int err;

        ASSERT(w->campaigns.len % sizeof(one) == 0);
        w->campaigns.len -= sizeof(one);
        memcpy(&one, w->campaigns.data + w->campaigns.len, sizeof(one));
        err = put_one(client, &one);
        if (err < 0)
            return control_store_failed(client, err);
        w->matched++;
    }
    return w->campaigns.len > 0 ? CONTROL_STEP_MORE : control_finished(client);
}

/* What the order "set" says. False: it is refused. */
static bool take_set(struct control_client *client, struct campaign_order *order)
{
    const struct config *config = client->control->backend->config(client->control->arg);
    struct str pool = client->request.campaign.pool, rate = client->request.campaign.rate;

    order->sets_priority = client->request.campaign.priority != 0;
    order->set.priority = (uint8_t)client->request.campaign.priority;
    order->sets_pool = pool.ptr != NULL;
    if (pool.len > FLOW_NAME_MAX || (pool.len > 0 && config_pool_find(config, pool) == NULL)) {
        control_put_error(&client->out, "refused", "there is no such pool",
                          "'hayauma pool list' shows them");
        return false;
    }
    if (pool.len > 0)
        memcpy(order->set.pool, pool.ptr, pool.len);
    if (rate.ptr == NULL || campaign_set_rate(order, rate) == 0)
        return true;
    control_put_error(&client->out, "refused", "that is no rate",
                      "write 500/s, 60/min, or none for no limit");
    return false;
}

enum control_step control_step_campaign_order(struct control_client *client)
{
    struct campaign_order order = {.verb = client->request.campaign.verb};
    struct control_job *job;

    ASSERT(client->request.has_order);
    if (order.verb == CAMPAIGN_SET && !take_set(client, &order))
        return CONTROL_STEP_DONE;
    if (client->request.campaign.at_ms > client->control->wall_ms + START_MS_MAX) {
        control_put_error(&client->out, "refused", "the start is to be within a year", "");
        return CONTROL_STEP_DONE;
    }
    job = control_job_new(client);
    job->kind = CONTROL_JOB_CAMPAIGN;
    job->campaign = order;
    job->campaign.what.id = client->request.id;
    job->campaign.starts_ms = client->request.campaign.at_ms;
    job->campaign.open = client->request.campaign.open;
    return control_give_job(client, job);
}

enum control_step control_campaign_returned(struct control_client *client,
                                            const struct control_job *job)
{
    static const char *const cannot[] = {
        [CAMPAIGN_START] = "only a draft can be started",
        [CAMPAIGN_PAUSE] = "only a campaign that runs can be paused",
        [CAMPAIGN_RESUME] = "only a campaign that is paused can be resumed",
        [CAMPAIGN_CANCEL] = "the campaign is over",
        [CAMPAIGN_SET] = "the campaign is over",
        [CAMPAIGN_CLOSE] = "the campaign is not open"};

    ASSERT(job->kind == CONTROL_JOB_CAMPAIGN && job->result <= 0);
    ASSERT((size_t)job->campaign.verb < ARRAY_LEN(cannot) && cannot[job->campaign.verb] != NULL);
    if (job->result == 0)
        buf_puts(&client->out, "{\"done\":true}\n");
    else if (job->result == -ENOENT)
        control_put_error(&client->out, "not_found", "there is no such campaign",
                          "'hayauma campaign list' shows them");
    else if (job->result == -EINVAL)
        control_put_error(&client->out, "refused", cannot[job->campaign.verb],
                          "'hayauma campaign show' says what it is");
    else if (job->result == -ERANGE)
        control_put_error(&client->out, "refused", "the campaign would begin when it has expired",
                          "'hayauma campaign show' says when that is");
    else if (job->result == -EBUSY)
        control_put_error(&client->out, "refused",
                          "recipients are being added to it, or another "
                          "order is under way",
                          "repeat the command");
    else if (job->result == -ESHUTDOWN)
        control_put_stopping(client);
    else
        control_put_error(&client->out, "failed", strerror(-job->result), "nothing was changed");
    return CONTROL_STEP_DONE;
}

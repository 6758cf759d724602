/* The suppression list: what is on it, and what goes on it or off it. */
#include <errno.h>
#include <stdio.h>

#include <jansson.h>

#include "control/control_private.h"
#include "outcome/suppress_list.h"

#define SLICE_ENTRIES 200

static struct suppressions *list_of(struct control_client *client)
{
    return client->control->backend->suppressions(client->control->arg);
}

static void put_line(void *arg, const struct suppression *one)
{
    struct control_client *client = arg;

    buf_puts(&client->out, "{\"suppression\":");
    suppression_put(&client->out, one);
    buf_puts(&client->out, "}\n");
    client->work.matched++;
}

/* What there is of one address: for everybody and a tenant, or for whichever tenant. */
static enum control_step check_one(struct control_client *client)
{
    const struct control_request *r = &client->request;
    char address[SUPPRESSION_ADDRESS_MAX + 1];
    struct suppression one;
    struct str tenants[2] = {STR(""), r->suppress.tenant};
    int err;

    if (suppression_address(r->suppress.email, address) < 0) {
        control_put_error(&client->out, "refused", "that is no mail address", "");
        return CONTROL_STEP_DONE;
    }
    if (tenants[1].ptr == NULL) {
        err = suppressions_visit_address(list_of(client), address, put_line, client);
        return err < 0 ? control_store_failed(client, err) : control_finished(client);
    }
    for (size_t i = 0; i < (tenants[1].len > 0 ? 2 : 1); i++) {
        err = suppressions_get(list_of(client), tenants[i], address, &one);
        if (err < 0 && err != -ENOENT)
            return control_store_failed(client, err);
        if (err == 0)
            put_line(client, &one);
    }
    return control_finished(client);
}

enum control_step control_step_suppressions(struct control_client *client)
{
    struct control_work *w = &client->work;
    uint64_t limit = client->request.limit, max = SLICE_ENTRIES;
    ptrdiff_t n;

    if (client->request.suppress.email.ptr != NULL)
        return check_one(client);
    if (limit != 0 && limit - w->visited < max)
        max = limit - w->visited;
    n = suppressions_visit(list_of(client), client->request.suppress.tenant,
                           w->visited > 0 ? &w->suppression : NULL, max, put_line, client,
                           &w->suppression);
    if (n < 0)
        return control_store_failed(client, (int)n);
    ASSERT((uint64_t)n <= max); /* or what is left of the limit would be below 0 */
    w->visited += (uint64_t)n;
    return (uint64_t)n == max && (limit == 0 || w->visited < limit) ? CONTROL_STEP_MORE
                                                                    : control_finished(client);
}

static void put_told(struct control_client *client, struct suppress_told *told, bool remove)
{
    suppress_told_put(&client->out, told, remove);
    ASSERT(client->out.len > 0 && client->out.data[client->out.len - 1] == '}');
    client->out.len--;
    buf_puts(&client->out, ",\"done\":true}\n");
}

enum control_step control_step_suppress(struct control_client *client)
{
    const struct control_request *r = &client->request;
    struct suppression as = {.reason = SUPPRESSION_MANUAL, .at_ms = client->control->wall_ms};
    bool remove = r->op == CONTROL_OP_SUPPRESSION_REMOVE;
    struct suppress_order *order = suppress_order_new();
    struct control_job *job;
    int err;

    if (r->suppress.tenant.ptr != NULL)
        snprintf(as.tenant, sizeof(as.tenant), "%.*s", STR_FMT(r->suppress.tenant));
    snprintf(as.who, sizeof(as.who), "%s", r->suspension.who);
    err = suppress_list_read(list_of(client), r->suppress.entries, &as, remove, order,
                             &client->work.told);
    if (err == -EINVAL)
        control_put_error(&client->out, "refused", "too many entries in one request", "");
    if (err < 0 || suppress_order_len(order) == 0) {
        suppress_order_free(order);
        if (err == 0)
            put_told(client, &client->work.told, remove);
        return err < 0 && err != -EINVAL ? control_store_failed(client, err) : CONTROL_STEP_DONE;
    }
    job = control_job_new(client);
    job->kind = CONTROL_JOB_SUPPRESS;
    job->suppress = order;
    return control_give_job(client, job);
}

enum control_step control_suppress_returned(struct control_client *client,
                                            const struct control_job *job)
{
    ASSERT(job->kind == CONTROL_JOB_SUPPRESS && job->result <= 0);
    if (job->result == 0)
        put_told(client, &client->work.told, client->request.op == CONTROL_OP_SUPPRESSION_REMOVE);
    else if (job->result == -ESHUTDOWN)
        control_put_stopping(client);
    else
        control_put_error(&client->out, "failed", strerror(-job->result), "nothing was changed");
    return CONTROL_STEP_DONE;
}

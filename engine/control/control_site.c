/* The sites that the engine has in memory, as the workers gathered them. */
#include <string.h>

#include "control/control_private.h"

#define SITES_DEFAULT 1000 /* lines; the others are one more */

enum control_step control_step_sites(struct control_client *client)
{
    struct control_job *job = control_job_new(client);
    uint64_t limit = client->request.limit;

    job->kind = CONTROL_JOB_SITES;
    job->sites_max = limit == 0 || limit > SITES_DEFAULT ? SITES_DEFAULT : (uint32_t)limit;
    job->suspension = client->request.suspension; /* its name alone counts */
    return control_give_job(client, job);
}

static void put_absent(void *to, const char *name, uint64_t value, bool gauge)
{
    if (gauge && value > 0 && strcmp(name, "lanes_absent") == 0)
        buf_printf(to, "{\"absent\":%llu}\n", (unsigned long long)value);
}

enum control_step control_sites_returned(struct control_client *client,
                                         const struct control_job *job)
{
    ASSERT(job->kind == CONTROL_JOB_SITES && job->result <= 0);
    if (job->result != 0) {
        control_put_error(&client->out, "failed", strerror(-job->result), "repeat the command");
        return CONTROL_STEP_DONE;
    }
    buf_put_str(&client->out, buf_str(&job->memory));
    client->control->backend->counters(client->control->arg, put_absent, &client->out);
    buf_puts(&client->out, "{\"done\":true}\n");
    return CONTROL_STEP_DONE;
}

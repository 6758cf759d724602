/* Dialogues of sessions as they go on: lines that workers left for the client are sent several
 * times a second, until its time is over or it goes. A client that does not read gets fewer lines.
 */
#include <stdlib.h>

#include "control/control_private.h"

struct control_trace {
    struct dialogue watch;
    int64_t until_ms; /* wall clock; 0: until the client goes */
};

static struct dialogues *dialogues_of(const struct control_client *client)
{
    const struct control *c = client->control;

    return c->backend->dialogues(c->arg);
}

/* False, with the error written: there are as many as may be. */
static bool begin(struct control_client *client)
{
    const struct control_request *r = &client->request;
    struct control_trace *t = calloc(1, sizeof(*t));

    ASSERT(client->work.trace == NULL); /* or workers would write for one that nobody takes out */
    ASSERT(t != NULL);                  /* as in buf_*: memory is fatal */
    t->watch.filter = r->trace;
    if (r->for_ms > 0)
        t->until_ms = client->control->wall_ms + r->for_ms;
    if (dialogues_add(dialogues_of(client), &t->watch) < 0) {
        free(t);
        control_put_error(&client->out, "refused", "four traces are under way already",
                          "end one of them");
        return false;
    }
    client->work.trace = t;
    return true;
}

enum control_step control_step_trace(struct control_client *client)
{
    struct control *c = client->control;
    const char *source = client->request.trace.source;
    const struct control_trace *t;
    uint64_t dropped;

    if (source[0] != 0 && config_source_find(c->backend->config(c->arg), source) == NULL)
        return control_no_source(client, source);
    if (client->work.trace == NULL && !begin(client))
        return CONTROL_STEP_DONE;
    t = client->work.trace;
    dropped = dialogues_take(dialogues_of(client), &client->work.trace->watch, &client->out);
    if (dropped > 0) {
        buf_puts(&client->out, "{");
        json_number(&client->out, "dropped", (int64_t)dropped);
        json_end(&client->out);
        buf_putc(&client->out, '\n');
    }
    client->rests_until_ms = c->mono_ms + CONTROL_TRACE_MS;
    if (t->until_ms == 0 || c->wall_ms < t->until_ms)
        return CONTROL_STEP_MORE;
    buf_puts(&client->out, "{\"done\":true}\n");
    return CONTROL_STEP_DONE;
}

void control_trace_end(struct control_client *client)
{
    struct control_trace *t = client->work.trace;

    if (t == NULL)
        return;
    dialogues_remove(dialogues_of(client), &t->watch);
    free(t);
}

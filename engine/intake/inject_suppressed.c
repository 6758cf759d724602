/* Recipients who are on the suppression list (worker/suppressions.h), where the listener looks
 * there: refused at RCPT.
 *
 * The filter is asked in the worker. A recipient whom it may have is looked up in the store by the
 * crew, since the store may wait for the disk. Meanwhile the session takes no step, as during a
 * login; the recipient is in the envelope already, and goes from it if it is refused. However many
 * sessions ask, the crew has a few of their questions at a time, in turn, so that logins and
 * handshakes of others wait for no more than these. */
#include <stdlib.h>

#include "intake/inject_message.h"
#include "worker/shared.h"

/* One recipient that is looked up. Outlives its session. */
struct inject_lookup {
    struct crew_task task;
    struct worker *worker;
    struct inject *inject; /* that waits; NULL: it has ended */
    size_t envelope_len;   /* without the recipient */
    int held;              /* suppressions_hold() */
    struct suppression why;
    struct str tenant, address; /* in text */
    char text[];
};

bool inject_lookup_pending(const struct inject *s)
{
    return s->lookup != NULL;
}

static void on_run(struct crew_job *job)
{
    struct inject_lookup *l = CONTAINER_OF(job, struct inject_lookup, task.job);

    l->held =
        suppressions_hold(&l->worker->shared->suppressions, l->tenant, l->address, false, &l->why);
}

static const char *refusal_of(struct inject *s, const struct inject_lookup *l)
{
    struct buf why = {0};
    const char *refusal;

    if (l->held == 0)
        return NULL;
    if (l->held < 0)
        return "451 4.3.0 the suppression list cannot be read, try again later";
    suppressions_count(&l->worker->shared->suppressions, 1);
    suppression_put_why(&why, &l->why);
    refusal = inject_refusal(s, "550 5.7.1 %.*s", STR_FMT(buf_str(&why)));
    buf_done(&why);
    return refusal;
}

static void answer(struct inject *s, size_t envelope_len, const char *refusal)
{
    if (refusal != NULL)
        inject_envelope_take_back(s, envelope_len);
    smtp_server_answer(&s->server, inject_out(s), refusal);
}

static void on_done(struct crew_job *job)
{
    struct inject_lookup *l = CONTAINER_OF(job, struct inject_lookup, task.job);
    struct crew_share *share = l->task.share;
    struct inject *s = l->inject;

    if (s != NULL) {
        ASSERT(s->lookup == l);
        s->lookup = NULL;
        s->server.address = l->address; /* what the client sent has gone meanwhile */
        answer(s, l->envelope_len, refusal_of(s, l));
        s->server.address = (struct str){0};
        inject_resume(s);
    }
    free(l);
    crew_share_ended(share);
}

bool inject_lookup(struct inject *s, size_t envelope_len)
{
    struct str tenant = str_of(s->user != NULL ? s->user->tenant : NULL);
    struct str address = slice_str(s, s->rcpts[s->rcpts_len - 1].address);
    struct worker *w = s->worker;
    struct inject_lookup *l;

    ASSERT(s->rcpts_len > 0 && s->lookup == NULL);
    if (!s->settings->suppression || !suppressions_may_have(&w->shared->suppressions, address))
        return false;
    l = calloc(1, sizeof(*l) + tenant.len + address.len);
    ASSERT(l != NULL);
    l->worker = w;
    l->inject = s;
    l->envelope_len = envelope_len;
    if (tenant.len > 0)
        memcpy(l->text, tenant.ptr, tenant.len);
    memcpy(l->text + tenant.len, address.ptr, address.len);
    l->tenant = (struct str){l->text, tenant.len};
    l->address = (struct str){l->text + tenant.len, address.len};
    l->task.job = (struct crew_job){.run = on_run, .done = on_done};
    s->lookup = l;
    crew_share_submit(&w->suppression_looks, &l->task);
    return true;
}

void inject_lookup_drop(struct inject *s)
{
    struct inject_lookup *l = s->lookup;

    s->lookup = NULL;
    if (l == NULL)
        return;
    l->inject = NULL;
    if (crew_share_take_back(&l->task))
        free(l);
}

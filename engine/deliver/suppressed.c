#include "deliver/suppressed.h"

#include <stdlib.h>

#include "worker/shared.h"

/* A recipient whom the filter may have. */
struct one {
    size_t rcpt;
    struct str address; /* in look.text */
    struct buf why;     /* empty: it is not on the list */
};

struct suppressed_look { /* outlives its owner, while the crew has it */
    struct crew_task task;
    struct worker *worker;
    struct message *message; /* a reference */
    void (*on_done)(void *arg);
    void *arg;
    bool done, left;
    int error;
    struct buf text;
    size_t len;
    struct one ones[];
};

static void look_free(struct suppressed_look *look)
{
    for (size_t i = 0; i < look->len; i++)
        buf_done(&look->ones[i].why);
    buf_done(&look->text);
    message_unref(look->message);
    free(look);
}

static void on_run(struct crew_job *job)
{
    struct suppressed_look *look = CONTAINER_OF(job, struct suppressed_look, task.job);
    const struct message *m = look->message;
    bool campaign = m->suppression == MESSAGE_SUPPRESSION_ANY && m->campaign.len > 0;
    struct suppression why;

    for (size_t i = 0; i < look->len && look->error == 0; i++) {
        struct one *one = &look->ones[i];
        int held = suppressions_hold(&look->worker->shared->suppressions, m->tenant, one->address,
                                     campaign, &why);

        if (held > 0)
            suppression_put_why(&one->why, &why);
        else
            look->error = held;
    }
}

static void on_looked(struct crew_job *job)
{
    struct suppressed_look *look = CONTAINER_OF(job, struct suppressed_look, task.job);
    struct crew_share *share = look->task.share;

    look->done = true;
    if (look->left)
        look_free(look);
    else
        look->on_done(look->arg);
    crew_share_ended(share);
}

struct suppressed_look *suppressed_look(struct worker *w, struct message *m,
                                        struct recipient *const *rcpts, size_t len,
                                        void (*on_done)(void *arg), void *arg)
{
    struct suppressed_look *look = NULL;
    size_t at = 0;

    for (size_t i = 0; i < len; i++) {
        if (!suppressions_may_have(&w->shared->suppressions, rcpts[i]->address))
            continue;
        if (look == NULL)
            look = calloc(1, sizeof(*look) + (len - i) * sizeof(look->ones[0]));
        ASSERT(look != NULL); /* as in buf_*: memory is fatal */
        look->ones[look->len++] = (struct one){.rcpt = i, .address.len = rcpts[i]->address.len};
        buf_put_str(&look->text, rcpts[i]->address);
    }
    if (look == NULL)
        return NULL;
    for (size_t i = 0; i < look->len; at += look->ones[i++].address.len)
        look->ones[i].address.ptr = (const char *)look->text.data + at;
    look->worker = w;
    look->message = message_ref(m);
    look->on_done = on_done;
    look->arg = arg;
    look->task.job = (struct crew_job){.run = on_run, .done = on_looked};
    crew_share_submit(&w->suppression_looks, &look->task);
    return look;
}

int suppressed_error(const struct suppressed_look *look)
{
    ASSERT(look->done && look->error <= 0);
    return look->error;
}

struct str suppressed_why(const struct suppressed_look *look, size_t rcpt)
{
    for (size_t i = 0; look != NULL && i < look->len; i++)
        if (look->ones[i].rcpt == rcpt)
            return buf_str(&look->ones[i].why);
    return STR("");
}

void suppressed_leave(struct suppressed_look *look)
{
    if (look == NULL)
        return;
    look->left = true;
    if (look->done || crew_share_take_back(&look->task))
        look_free(look);
}

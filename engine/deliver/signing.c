#include "deliver/signing.h"

#include <errno.h>

#include "worker/keyring.h"
#include "worker/shared.h"

#define SIGNINGS_MAX 64 /* of a worker, with the crew at a time: 20 ms of a thread */
#define GOOD_PARTS   10 /* of the time that signatures are valid, the first one they are used in */

/* A message that is to be signed, or is being. */
struct signing {
    struct crew_task task;
    struct worker *worker;
    struct message *message; /* a reference */
    struct config *config;   /* a reference: with the keys */
    int64_t now_ms;          /* wall clock */
    struct list waits;       /* struct signing_wait */
    struct message_front *front;
    int result;
};

void signings_init(struct worker *w)
{
    crew_share_init(&w->signings.share, w, SIGNINGS_MAX);
    pool_init(&w->signings.pool, "signing", sizeof(struct signing), SIZE_MAX);
}

static void signing_free(struct signing *s)
{
    struct worker *w = s->worker;

    ASSERT(list_empty(&s->waits) && s->message->signing == s);
    s->message->signing = NULL;
    message_unref(s->message);
    config_unref(s->config);
    pool_put(&w->signings.pool, s);
}

void signings_done(struct worker *w)
{
    ASSERT(!signings_pending(w));
    pool_done(&w->signings.pool);
}

bool signings_pending(const struct worker *w)
{
    return crew_share_pending(&w->signings.share);
}

/* --- in the crew --- */

/* The signers as DNS names their keys: ["s1-rsa._domainkey.example.com",...]. */
static void put_signers(struct buf *out, const struct dkim_signer *signers, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, "%s\"%s._domainkey.%s\"", i == 0 ? "[" : ",", signers[i].selector,
                   signers[i].domain);
    if (len > 0)
        buf_putc(out, ']');
}

static void on_run(struct crew_job *job)
{
    struct signing *s = CONTAINER_OF(job, struct signing, task.job);
    const struct keyring *keys = s->config->keyring;
    const struct message *m = s->message;
    struct dkim_signer signers[DKIM_SIGNERS_MAX];
    size_t len = keyring_signers(keys, m->dkim_domain, m->content, m->content_len, signers);
    struct buf fields = {0}, names = {0};

    s->result = len == 0
                    ? 0
                    : dkim_sign(m->content, m->content_len, m->body_hash, keyring_options(keys),
                                signers, len, s->now_ms / 1000, &fields);
    if (s->result == 0) {
        put_signers(&names, signers, len);
        s->front = message_front_new(buf_str(&fields), buf_str(&names));
        s->result = s->front == NULL ? -ENOMEM : 0;
    }
    buf_done(&fields);
    buf_done(&names);
}

/* --- its end --- */

static void signing_keep(struct signing *s)
{
    uint32_t expires_s = s->config->dkim.expires_s;

    ASSERT(s->front != NULL);
    s->front->generation = s->config->generation;
    s->front->good_until_ms =
        expires_s == 0 ? INT64_MAX : s->now_ms + (int64_t)expires_s * 1000 / GOOD_PARTS;
    if (s->front->fields.len > 0)
        counter_add(&s->worker->counters.signed_messages, 1);
    message_put_front(s->message, s->front);
}

static void on_done(struct crew_job *job)
{
    struct signing *s = CONTAINER_OF(job, struct signing, task.job);
    struct worker *w = s->worker;
    struct list_node *n;
    int result = s->result;

    ASSERT(s->message->signing == s);
    ASSERT((s->result == 0) == (s->front != NULL));
    if (result == 0)
        signing_keep(s);
    else
        counter_add(&w->counters.sign_failures, 1);
    while ((n = list_pop_front(&s->waits)) != NULL) {
        struct signing_wait *wait = LIST_ENTRY(n, struct signing_wait, node);

        ASSERT(wait->signing == s);
        wait->on_signed(wait, result);
    }
    signing_free(s);
    crew_share_ended(&w->signings.share);
}

/* --- its beginning --- */

bool signing_front(const struct worker *w, const struct message *m,
                   const struct message_front **front)
{
    *front = NULL;
    if (w->config->keyring == NULL)
        return true;
    if (m->front == NULL || m->front->generation != w->config->generation ||
        m->front->good_until_ms < worker_wall_ms(w))
        return false;
    if (m->front->fields.len > 0)
        *front = m->front;
    return true;
}

void signing_wait(struct worker *w, struct message *m, struct signing_wait *wait)
{
    struct signing *s = m->signing;

    if (s == NULL) {
        s = pool_get(&w->signings.pool);
        ASSERT(s != NULL);
        s->worker = w;
        s->message = message_ref(m);
        s->config = config_ref(w->config);
        s->now_ms = worker_wall_ms(w);
        s->task.job = (struct crew_job){.run = on_run, .done = on_done, .brief = true};
        list_init(&s->waits);
        m->signing = s;
        crew_share_submit(&w->signings.share, &s->task);
    }
    ASSERT(s->worker == w && s->message == m); /* a message is its worker's */
    wait->signing = s;
    list_push_back(&s->waits, &wait->node);
}

/* What nobody waits for any more, and the crew does not have yet, is not made. */
void signing_leave(struct signing_wait *wait)
{
    struct signing *s = wait->signing;

    ASSERT(s != NULL && s->message->signing == s && list_node_linked(&wait->node));
    list_remove(&wait->node);
    if (list_empty(&s->waits) && crew_share_take_back(&s->task))
        signing_free(s);
}

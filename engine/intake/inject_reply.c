/* The replies of a session, in the order of its commands, while messages commit.
 *
 * A message that was submitted has an inject_answer until its 250 is written. What is said behind
 * it goes to s->behind, and from there to s->out as the answers in front of it come in: a 452 at a
 * later MAIL never overtakes an earlier 250. Commits of several shards end in any order; an answer
 * that came before an earlier one waits as a done one.
 *
 * Places in the stream of held replies are counted from the session's beginning: behind.data[0] is
 * at behind_base, the first byte that is still held at behind_base + behind_at. */
#include <errno.h>
#include <stdio.h>

#include "intake/inject_login.h"
#include "intake/inject_message.h"
#include "outcome/report.h"
#include "worker/shared.h"

#define BEHIND_KEPT_BYTES 4096 /* between messages */

struct buf *inject_out(struct inject *s)
{
    return list_empty(&s->answers) ? &s->out : &s->behind;
}

size_t inject_unsent(const struct inject *s)
{
    ASSERT(s->behind_at <= s->behind.len);
    return s->out.len + s->behind.len - s->behind_at;
}

bool inject_asked_others(const struct inject *s)
{
    return inject_login_pending(s) || inject_once_pending(s) || inject_lookup_pending(s);
}

bool inject_may_go_on(const struct inject *s)
{
    if (inject_asked_others(s))
        return false;
    if (list_empty(&s->answers))
        return true;
    return s->answers_len < INJECT_COMMITS_MAX && s->answers_bytes < INJECT_COMMIT_BYTES_MAX &&
           inject_has_room(s, 0);
}

static void on_accepted(struct accept_waiter *waiter, int result);

/* What the session's message takes along of the bytes that the session holds. */
static uint64_t message_bytes(const struct inject *s)
{
    ASSERT(s->pending_bytes <= s->held_bytes);
    return s->held_bytes - s->pending_bytes;
}

/* Behind all that was said before it. NULL: no memory. */
static struct inject_answer *answer_new(struct inject *s, const struct msgid *id)
{
    struct inject_answer *a = pool_get(&s->worker->answer_pool);

    if (a != NULL)
        *a = (struct inject_answer){.inject = s,
                                    .waiter = {.on_done = on_accepted},
                                    .id = *id,
                                    .bytes = message_bytes(s),
                                    .behind_from = s->behind_base + s->behind.len};
    return a;
}

static void answer_wait(struct inject *s, struct inject_answer *a)
{
    ASSERT(s->answers_len < INJECT_COMMITS_MAX && a->behind_from >= s->behind_base + s->behind_at);
    list_push_back(&s->answers, &a->node);
    s->answers_len++;
    s->answers_bytes += a->bytes;
}

bool inject_submit(struct inject *s, struct message *m, int64_t due_ms, struct inject_once *once)
{
    struct inject_answer *a = answer_new(s, &m->id);
    struct report_tls tls;
    struct accept_order order = {.worker = s->worker,
                                 .config = s->config,
                                 .message = m,
                                 .strings = s->envelope.data,
                                 .rcpts = s->rcpts,
                                 .rcpts_len = s->rcpts_len,
                                 .due_ms = due_ms,
                                 .held_bytes = message_bytes(s),
                                 .protocol = inject_protocol(s),
                                 .peer_name = s->helo,
                                 .peer_addr = s->peer_text,
                                 .session_id = s->id,
                                 .user = s->user != NULL ? s->user->name : NULL,
                                 .tls = inject_tls_report(s, &tls)};

    ASSERT(s->rcpts_len > 0 && m->recipients == s->rcpts_len && m->flow != 0);
    if (a == NULL)
        return false;
    a->once = once;
    if (once != NULL)
        inject_once_order(once, &order, a);
    if (!accept_submit(&order, once != NULL ? inject_once_waiter(once) : &a->waiter)) {
        pool_put(&s->worker->answer_pool, a);
        return false;
    }
    answer_wait(s, a);
    s->held_bytes = s->pending_bytes;
    inject_body_drop(s);
    return true;
}

static void answer_drop(struct inject *s, struct inject_answer *a)
{
    ASSERT(s->answers_len > 0 && s->answers_bytes >= a->bytes);
    list_remove(&a->node);
    s->answers_len--;
    s->answers_bytes -= a->bytes;
    pool_put(&s->worker->answer_pool, a);
}

void inject_answers_forget(struct inject *s)
{
    struct list_node *n;

    while ((n = list_first(&s->answers)) != NULL) {
        struct inject_answer *a = LIST_ENTRY(n, struct inject_answer, node);

        accept_forget(&a->waiter);
        if (a->once != NULL)
            inject_once_forget(a->once);
        answer_drop(s, a);
    }
}

/* Lets held replies up to the place until be sent. */
static void behind_release(struct inject *s, uint64_t until)
{
    size_t end = (size_t)(until - s->behind_base);

    ASSERT(until >= s->behind_base && end >= s->behind_at && end <= s->behind.len);
    buf_put(&s->out, s->behind.data + s->behind_at, end - s->behind_at);
    s->behind_at = end;
    if (s->behind_at < s->behind.len / 2)
        return;
    buf_consume(&s->behind, s->behind_at);
    s->behind_base += s->behind_at;
    s->behind_at = 0;
    if (s->behind.len == 0 && s->behind.cap > BEHIND_KEPT_BYTES)
        buf_done(&s->behind);
}

static void put_answer(struct inject *s, const struct inject_answer *a)
{
    char id[MSGID_TEXT_BYTES], reply[64];

    ASSERT(list_first(&s->answers) == &a->node);
    if (a->result == 0) {
        msgid_text(&a->id, id);
        snprintf(reply, sizeof(reply), "250 2.0.0 queued as %s", id);
        smtp_server_put_reply(&s->server, &s->out, reply);
    } else {
        smtp_server_put_reply(&s->server, &s->out,
                              a->result == -ENOSPC
                                  ? "452 4.3.1 insufficient storage, try again later"
                                  : "451 4.3.0 could not store the message, try again later");
    }
}

/* Sends the answers that are in, up to the first that is not, and what was said behind them. */
static void answers_release(struct inject *s)
{
    struct list_node *n;

    while ((n = list_first(&s->answers)) != NULL) {
        struct inject_answer *a = LIST_ENTRY(n, struct inject_answer, node);

        if (a->waiter.under_way != NULL || a->once != NULL)
            return;
        put_answer(s, a);
        n = list_next(&s->answers, n);
        behind_release(s, n != NULL ? LIST_ENTRY(n, struct inject_answer, node)->behind_from
                                    : s->behind_base + s->behind.len);
        answer_drop(s, a);
    }
    ASSERT(s->behind.len == s->behind_at && s->answers_len == 0 && s->answers_bytes == 0);
}

void inject_answer_came(struct inject_answer *a, int result)
{
    struct inject *s = a->inject;

    ASSERT(result <= 0 && a->waiter.under_way == NULL && list_node_linked(&a->node));
    a->once = NULL;
    a->result = result;
    if (list_first(&s->answers) != &a->node)
        return;
    answers_release(s);
    inject_answered(s);
}

static void on_accepted(struct accept_waiter *waiter, int result)
{
    inject_answer_came(CONTAINER_OF(waiter, struct inject_answer, waiter), result);
}

void inject_answer_again(struct inject *s, const struct msgid *id)
{
    struct inject_answer *a;

    inject_body_drop(s);
    a = answer_new(s, id);
    if (a == NULL) {
        smtp_server_answer(&s->server, inject_out(s), "452 4.3.1 out of memory, try again later");
        return;
    }
    a->bytes = 0;
    smtp_server_defer(&s->server);
    answer_wait(s, a);
    answers_release(s);
}

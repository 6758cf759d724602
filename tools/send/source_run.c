#include "tools/send/source_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define RETRY_MS        200
#define PROGRESS_NS     UINT64_C(1000000000)
#define SIGNALS_TO_QUIT 2

static void note_error(struct source *c, const char *text)
{
    for (size_t i = 0; i < c->errors_len; i++) {
        if (strncmp(c->errors[i].text, text, SOURCE_ERROR_BYTES - 1) == 0) {
            c->errors[i].count++;
            return;
        }
    }
    if (c->errors_len < SOURCE_ERRORS_MAX) {
        snprintf(c->errors[c->errors_len].text, SOURCE_ERROR_BYTES, "%s", text);
        c->errors[c->errors_len++].count = 1;
    } else {
        c->errors[SOURCE_ERRORS_MAX - 1].count++;
        snprintf(c->errors[SOURCE_ERRORS_MAX - 1].text, SOURCE_ERROR_BYTES, "(other errors)");
    }
}

static bool may_make(const struct source *c)
{
    uint64_t elapsed_ns = io_now_ns(c->io) - c->started_ns;

    if (c->ended || c->made >= c->messages_max)
        return false;
    if (c->rate == 0)
        return true;
    return (double)c->made < (double)elapsed_ns / 1e9 * (double)c->rate;
}

static const char *date_now(struct source *c)
{
    int64_t now_ms = io_wall_ms(c->io);

    if (now_ms / 1000 != c->date_s) {
        c->date_s = now_ms / 1000;
        clock_rfc5322(now_ms, c->date);
    }
    return c->date;
}

static struct source_message *due_message(struct source *c)
{
    struct list_node *node = list_first(&c->due);
    struct source_message *m = node == NULL ? NULL : LIST_ENTRY(node, struct source_message, node);

    if (m == NULL || m->due_ms > io_now_ms(c->io))
        return NULL;
    list_remove(node);
    source_message_again(m);
    c->again++;
    return m;
}

static struct smtp_transaction *source_next(void *arg)
{
    struct source *c = arg;
    struct source_message *m = due_message(c);
    struct list_node *node;

    if (m == NULL) {
        if (!may_make(c))
            return NULL;
        node = list_pop_front(&c->idle);
        m = node == NULL ? calloc(1, sizeof(*m)) : LIST_ENTRY(node, struct source_message, node);
        ASSERT(m != NULL);
        source_message_make(&c->plan, m, c->seq_start + c->made, date_now(c), c->ledger_fd >= 0);
        c->made++;
    }
    m->begun_ns = io_now_ns(c->io);
    if (c->first_ns == 0)
        c->first_ns = m->begun_ns;
    return &m->t;
}

static void source_failed(struct source *c, struct source_message *m,
                          const struct smtp_event *event)
{
    const struct smtp_reply *r = event->reply;
    char text[SOURCE_ERROR_BYTES];

    switch (event->fate) {
    case SMTP_FATE_REPLY:
        snprintf(text, sizeof(text), "%s: %u %.*s", smtp_stage_name(event->stage), r->code,
                 (int)r->text_len, r->text);
        note_error(c, text);
        if (c->retry && r->code < 500)
            m->retry = true;
        else
            m->refused = true;
        break;
    case SMTP_FATE_UNABLE:
        note_error(c, "the server lacks what the message needs (8BITMIME, SIZE)");
        m->refused = true;
        break;
    case SMTP_FATE_LOST:
        m->lost += !m->lost_now; /* once for all its recipients */
        m->lost_now = true;
        /* fall through */
    case SMTP_FATE_NOT_SENT:
        if (c->retry)
            m->retry = true;
        else
            m->refused = true;
        break;
    }
}

static void source_recipient(void *arg, const struct smtp_event *event)
{
    struct source *c = arg;
    struct source_message *m = event->transaction->owner;
    uint64_t now_ns = io_now_ns(c->io);

    if (event->fate != SMTP_FATE_REPLY || event->reply->code >= 300) {
        source_failed(c, m, event);
        return;
    }
    m->accepted[event->rcpt] = true;
    c->recipients++;
    c->last_ns = now_ns;
    histogram_add(&c->latency_us, (now_ns - m->begun_ns) / 1000);
    if (c->ledger_fd >= 0)
        ledger_line(&c->ledger, io_wall_ms(c->io), m->lost, m->t.sender,
                    m->rcpts[event->rcpt].address, &m->identity);
}

static void source_transaction(void *arg, struct smtp_transaction *t)
{
    struct source *c = arg;
    struct source_message *m = t->owner;

    if (m->retry && c->error == 0) {
        m->due_ms = io_now_ms(c->io) + RETRY_MS;
        list_push_back(&c->due, &m->node);
        return;
    }
    c->finished++;
    if (m->refused || m->retry) {
        c->refused++;
    } else {
        c->accepted++;
        c->bytes += t->content_len;
    }
    list_push_back(&c->idle, &m->node);
}

static void source_trouble(void *arg, const char *what)
{
    struct source *c = arg;

    note_error(c, what);
}

static void print_progress(struct source *c)
{
    fprintf(stderr, "%6.0f s %12lu accepted %10lu/s %8lu refused %8lu again %6u sessions\n",
            (double)(c->progress_ns - c->started_ns) / 1e9, c->accepted,
            c->accepted - c->progress_accepted, c->refused, c->again, submit_up(c->submit));
    c->progress_accepted = c->accepted;
}

static void source_tick(void *arg)
{
    struct source *c = arg;
    uint64_t now_ns = io_now_ns(c->io);
    int err = 0;

    if (c->submit == NULL)
        return;
    if (c->ledger.len > 0)
        err = ledger_flush(&c->ledger, c->ledger_fd);
    if (err < 0) {
        c->error = err;
        buf_clear(&c->ledger);
    }
    if (c->made >= c->messages_max || submit_signals() > 0 ||
        (c->duration_ms > 0 && now_ns - c->started_ns >= c->duration_ms * 1000000))
        c->ended = true;
    if (c->error != 0 || submit_signals() >= SIGNALS_TO_QUIT)
        submit_abort(c->submit);
    else if (c->ended && c->finished == c->made)
        submit_finish(c->submit);
    else
        submit_poke(c->submit);
    if (c->stats && now_ns - c->progress_ns >= PROGRESS_NS) {
        c->progress_ns += PROGRESS_NS;
        print_progress(c);
    }
}

static int open_all(struct source *c)
{
    static const struct submit_hooks hooks = {source_next, source_recipient, source_transaction,
                                              source_trouble};
    int err;

    if (c->ledger_file != NULL) {
        c->ledger_fd = open(c->ledger_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (c->ledger_fd < 0) {
            fprintf(stderr, "hayauma source: %s: %s\n", c->ledger_file, strerror(errno));
            return -errno;
        }
    }
    err = submit_io_open(&c->io, "source", source_tick, c);
    if (err < 0)
        return err;
    c->started_ns = c->progress_ns = io_now_ns(c->io);
    return submit_open(&c->submit, c->io, &c->submit_options, &hooks, c);
}

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int source_run(struct source *c)
{
    uint32_t wait_ms = c->rate > 0 ? 1 : 100;
    int err;

    source_plan_prepare(&c->plan);
    raise_file_limit();
    err = open_all(c);
    if (err < 0)
        return err;
    while (err == 0 && submit_alive(c->submit) > 0)
        err = io_turn(c->io, wait_ms);
    if (err == 0 && c->ledger.len > 0)
        err = ledger_flush(&c->ledger, c->ledger_fd);
    if (err == 0)
        err = c->error;
    if (err < 0)
        fprintf(stderr, "hayauma source: stopped: %s\n", strerror(-err));
    else
        submit_close(c->submit);
    return err;
}

static void free_messages(struct list *list)
{
    for (struct list_node *node; (node = list_pop_front(list)) != NULL;) {
        struct source_message *m = LIST_ENTRY(node, struct source_message, node);

        source_message_done(m);
        free(m);
    }
}

void source_init(struct source *c)
{
    list_init(&c->idle);
    list_init(&c->due);
    c->ledger_fd = -1;
}

void source_done(struct source *c)
{
    io_close(c->io);
    if (c->ledger_fd >= 0)
        close(c->ledger_fd);
    free_messages(&c->idle);
    free_messages(&c->due);
    source_plan_done(&c->plan);
    buf_done(&c->ledger);
}

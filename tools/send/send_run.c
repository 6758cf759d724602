#include "tools/send/send_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands/screen.h"

#define SHOWN_MAX    20 /* refusals that are named */
#define ATTEMPTS_MAX 5  /* per recipient, while the server says 4xx or goes away */
#define AGAIN_MS     1000
#define PROGRESS_NS  UINT64_C(500000000)

struct send_copy { /* one message under way */
    struct smtp_transaction t;
    struct list_node node;
    struct buf head; /* in front of the message, which all copies have in common */
    struct smtp_transaction_rcpt *rcpts;
    size_t *recipients; /* indices into the list */
};

struct send_again {
    size_t recipient;
    uint64_t due_ms;
};

static struct send_copy *copy_new(struct send *c)
{
    struct list_node *node = list_pop_front(&c->idle);
    struct send_copy *copy;

    if (node != NULL)
        return LIST_ENTRY(node, struct send_copy, node);
    copy = calloc(1, sizeof(*copy));
    ASSERT(copy != NULL);
    copy->rcpts = calloc(c->batch, sizeof(*copy->rcpts));
    copy->recipients = calloc(c->batch, sizeof(*copy->recipients));
    ASSERT(copy->rcpts != NULL && copy->recipients != NULL);
    return copy;
}

static bool take_recipient(struct send *c, size_t *out)
{
    struct send_again first;

    if (c->again_at < c->again.len) {
        memcpy(&first, c->again.data + c->again_at, sizeof(first));
        if (first.due_ms <= io_now_ms(c->io)) {
            c->again_at += sizeof(first);
            *out = first.recipient;
            return true;
        }
    }
    if (c->next >= send_list_len(&c->list))
        return false;
    *out = c->next++;
    return true;
}

static void copy_fill(struct send *c, struct send_copy *copy, uint16_t rcpts)
{
    bool utf8 = c->message.smtputf8;
    struct str to = rcpts == 1 ? send_list_wire(&c->list, copy->recipients[0]) : STR("");

    for (uint16_t i = 0; i < rcpts; i++) {
        struct str address = send_list_wire(&c->list, copy->recipients[i]);

        copy->rcpts[i] = (struct smtp_transaction_rcpt){.address = address, .notify = c->notify};
        for (size_t k = 0; k < address.len && !utf8; k++)
            utf8 = (unsigned char)address.ptr[k] > 127;
    }
    buf_clear(&copy->head);
    send_message_head(&c->message, to, c->id_domain, &c->ids, io_wall_ms(c->io), &copy->head);
    copy->t = (struct smtp_transaction){
        .sender = str_of(c->sender),
        .envid = str_of(c->envid),
        .ret = c->ret,
        .eight_bit = c->message.eight_bit || utf8,
        .smtputf8 = utf8,
        .dot_lines = c->message.dot_lines,
        .pieces = {{copy->head.data, copy->head.len},
                   {c->message.content.data, c->message.content.len}},
        .rcpts = copy->rcpts,
        .rcpts_len = rcpts,
        .owner = copy,
    };
}

static struct smtp_transaction *send_next(void *arg)
{
    struct send *c = arg;
    struct send_copy *copy;
    uint16_t rcpts = 0;
    size_t recipient;

    if (!take_recipient(c, &recipient))
        return NULL;
    copy = copy_new(c);
    do {
        c->attempts[recipient]++;
        copy->recipients[rcpts++] = recipient;
    } while (rcpts < c->batch && take_recipient(c, &recipient));
    copy_fill(c, copy, rcpts);
    c->messages++;
    c->under_way++;
    return &copy->t;
}

void send_clear_progress(struct send *c)
{
    if (c->progress_shown)
        fputs("\r\033[K", stderr);
    c->progress_shown = false;
}

static void refuse(struct send *c, size_t recipient, const char *why)
{
    struct buf out = {0};

    c->refused++;
    if (c->refused > SHOWN_MAX)
        return;
    send_clear_progress(c);
    put_text(&out, send_list_at(&c->list, recipient).ptr, 0, false);
    buf_puts(&out, ": ");
    put_text(&out, why, 0, false);
    buf_puts(&out, c->refused == SHOWN_MAX ? "\nfurther ones are only counted\n" : "\n");
    flush_text(&out, stderr);
    buf_done(&out);
}

static void try_again(struct send *c, size_t recipient)
{
    struct send_again again = {recipient, io_now_ms(c->io) + AGAIN_MS};

    if (c->again_at > 0 && c->again_at == c->again.len) {
        buf_clear(&c->again);
        c->again_at = 0;
    }
    buf_put(&c->again, &again, sizeof(again));
}

static const char *unable_text(uint8_t unable)
{
    switch ((enum smtp_unable)unable) {
    case SMTP_UNABLE_8BIT:
        return "the message has 8-bit text, and the server does not offer 8BITMIME";
    case SMTP_UNABLE_UTF8:
    case SMTP_UNABLE_UTF8_HEADER:
        return "the message needs SMTPUTF8, which the server does not offer";
    case SMTP_UNABLE_SIZE:
        return "the message is larger than the server takes (SIZE)";
    case SMTP_UNABLE_ADDRESS:
    case SMTP_UNABLE_NONE:
        break;
    }
    return "this address cannot be sent";
}

static void send_recipient(void *arg, const struct smtp_event *event)
{
    struct send *c = arg;
    const struct send_copy *copy = event->transaction->owner;
    const struct smtp_reply *r = event->reply;
    size_t recipient = copy->recipients[event->rcpt];
    bool may_repeat = c->attempts[recipient] < ATTEMPTS_MAX;
    char text[SEND_TROUBLE_BYTES];

    switch (event->fate) {
    case SMTP_FATE_REPLY:
        if (r->code < 300) {
            c->accepted++;
            return;
        }
        if (r->code < 500 && may_repeat)
            return try_again(c, recipient);
        c->temporary += r->code < 500;
        snprintf(text, sizeof(text), "%u %.*s", r->code, (int)r->text_len, r->text);
        return refuse(c, recipient, text);
    case SMTP_FATE_NOT_SENT:
        if (may_repeat)
            return try_again(c, recipient);
        c->temporary++;
        return refuse(c, recipient, "the server closed the connection");
    case SMTP_FATE_LOST:
        c->temporary++;
        return refuse(c, recipient,
                      "the connection went before the reply: the server may have taken it");
    case SMTP_FATE_UNABLE:
        return refuse(c, recipient, unable_text(event->transaction->unable));
    }
}

static void send_transaction(void *arg, struct smtp_transaction *t)
{
    struct send *c = arg;
    struct send_copy *copy = t->owner;

    c->under_way--;
    list_push_back(&c->idle, &copy->node);
}

static void send_trouble(void *arg, const char *what)
{
    struct send *c = arg;

    snprintf(c->trouble, sizeof(c->trouble), "%s", what);
}

static void print_progress(struct send *c, uint64_t now_ns)
{
    size_t all = send_list_len(&c->list), ended = c->accepted + c->refused;
    double seconds = (double)(now_ns - c->started_ns) / 1e9;
    double rate = seconds > 0 ? (double)ended / seconds : 0;
    struct buf out = {0};

    buf_puts(&out, "\r\033[K");
    put_count(&out, c->accepted);
    buf_puts(&out, " of ");
    put_count(&out, all);
    buf_puts(&out, " accepted");
    if (c->refused > 0) {
        buf_puts(&out, ", ");
        put_count(&out, c->refused);
        buf_puts(&out, " refused");
    }
    buf_puts(&out, ", ");
    put_count(&out, (uint64_t)rate);
    buf_puts(&out, "/s");
    if (rate > 0 && ended < all) {
        buf_puts(&out, ", ");
        put_age(&out, (int64_t)((double)(all - ended) / rate * 1000));
        buf_puts(&out, " left");
    }
    flush_text(&out, stderr);
    buf_done(&out);
    c->progress_shown = true;
}

static void send_tick(void *arg)
{
    struct send *c = arg;
    uint64_t now_ns = io_now_ns(c->io);

    if (c->submit == NULL)
        return;
    if (send_interrupted())
        submit_abort(c->submit);
    else if (c->accepted + c->refused == send_list_len(&c->list))
        submit_finish(c->submit);
    else
        submit_poke(c->submit);
    if (c->progress && now_ns - c->progress_ns >= PROGRESS_NS) {
        c->progress_ns = now_ns;
        print_progress(c, now_ns);
    }
}

int send_run(struct send *c)
{
    static const struct submit_hooks hooks = {send_next, send_recipient, send_transaction,
                                              send_trouble};
    size_t messages = (send_list_len(&c->list) + c->batch - 1) / c->batch;
    size_t busy = (messages + c->submit_options.client.pipeline_max - 1) /
                  c->submit_options.client.pipeline_max; /* sessions that messages fill */
    const char *at =
        strrchr(*c->sender == '\0' && c->message.from != NULL ? c->message.from : c->sender, '@');
    int err;

    c->id_domain = at == NULL ? STR("localhost") : str_of(at + 1);
    c->attempts = calloc(send_list_len(&c->list), 1);
    ASSERT(c->attempts != NULL);
    if (c->submit_options.sessions > busy)
        c->submit_options.sessions = (uint32_t)busy;
    msgid_source_init(&c->ids, rng_entropy());
    err = submit_io_open(&c->io, "send", send_tick, c);
    if (err < 0)
        return err;
    c->started_ns = c->progress_ns = io_now_ns(c->io);
    err = submit_open(&c->submit, c->io, &c->submit_options, &hooks, c);
    while (err == 0 && submit_alive(c->submit) > 0)
        err = io_turn(c->io, 100);
    c->ended_ns = io_now_ns(c->io);
    if (err == 0)
        submit_close(c->submit);
    return err;
}

bool send_interrupted(void)
{
    return submit_signals() > 0;
}

void send_done(struct send *c)
{
    for (struct list_node *node; (node = list_pop_front(&c->idle)) != NULL;) {
        struct send_copy *copy = LIST_ENTRY(node, struct send_copy, node);

        buf_done(&copy->head);
        free(copy->rcpts);
        free(copy->recipients);
        free(copy);
    }
    send_list_done(&c->list);
    send_message_done(&c->message);
    buf_done(&c->again);
    free(c->attempts);
    free(c->sender);
}

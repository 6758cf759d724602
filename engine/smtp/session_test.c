/* The client machine against the server machine, back to back: whatever the server decides, every
 * recipient gets exactly one final event and what the server took is what the client says it took.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "smtp/client.h"
#include "smtp/server.h"

#define MESSAGES_MAX 64
#define RCPTS_MAX    6
#define IOV_MAX_HERE 16

struct message {
    struct smtp_transaction smtp;
    struct smtp_transaction_rcpt rcpts[RCPTS_MAX];
    char addresses[RCPTS_MAX][40], sender[40];
    uint8_t content[400];
    bool done, taken[RCPTS_MAX]; /* by the server */
    uint8_t events[RCPTS_MAX];
    struct {
        enum smtp_fate fate;
        enum smtp_stage stage;
        uint16_t code;
    } last[RCPTS_MAX];
};

struct world {
    struct rng rng;
    struct smtp_client *client;
    struct smtp_server server;
    struct buf to_server, to_client;
    bool server_closed, closed, lose_output;
    struct message messages[MESSAGES_MAX];
    size_t messages_len, submitted;
    /* the server's open transaction */
    char sender[64];
    struct {
        size_t message, rcpt;
    } accepted[64];
    size_t accepted_len;
    struct buf body;
    unsigned refuse_percent, bye_permille;
    bool lmtp;
    /* Servers that keep a transaction open although they refused its message, or its sender. */
    bool keeps, keeps_mail, body_refused;
    uint8_t mail_state; /* of the server's machine with a transaction open */
};

static bool chance(struct world *w, unsigned percent)
{
    return rng_below(&w->rng, 100) < percent;
}

static const char *pick_refusal(struct world *w)
{
    static const char *const refusals[] = {"450 4.2.0 later", "550 5.1.1 no such user", "554 no",
                                           "452 4.3.1 full"};

    if (rng_below(&w->rng, 1000) < w->bye_permille)
        return "421 4.3.2 going down";
    return chance(w, w->refuse_percent) ? refusals[rng_below(&w->rng, 4)] : NULL;
}

static void make_message(struct world *w, size_t index)
{
    struct message *m = &w->messages[index];
    struct smtp_transaction *t = &m->smtp;
    size_t len = 0, lines = rng_below(&w->rng, 12);

    *m = (struct message){0};
    len += (size_t)sprintf((char *)m->content, "X-Id: %zu\r\n\r\n", index);
    for (size_t i = 0; i < lines; i++) {
        static const char *const texts[] = {"\r\n",      ".\r\n",      "..\r\n",
                                            "hello\r\n", ".hello\r\n", "a . b\r\n"};
        const char *text = texts[rng_below(&w->rng, 6)];

        memcpy(m->content + len, text, strlen(text));
        len += strlen(text);
    }
    snprintf(m->sender, sizeof(m->sender), "m%zu@sender.test", index);
    t->sender = str_of(m->sender);
    t->pieces[0] = (struct smtp_piece){m->content, len};
    t->dot_lines = smtp_find_dot_line(m->content, len, 0) < len;
    t->rcpts = m->rcpts;
    t->rcpts_len = (uint16_t)(1 + rng_below(&w->rng, RCPTS_MAX));
    t->owner = m;
    for (size_t i = 0; i < t->rcpts_len; i++) {
        snprintf(m->addresses[i], sizeof(m->addresses[i]), "m%zu-r%zu@rcpt.test", index, i);
        m->rcpts[i].address = str_of(m->addresses[i]);
    }
}

/* --- the server's side --- */

/* The transaction goes on with the sender and the recipients that it has. */
static void keep_open(struct world *w)
{
    w->server.state = w->mail_state;
    w->server.rcpts = (uint32_t)w->accepted_len;
}

static void on_mail(struct world *w)
{
    struct smtp_server *s = &w->server;
    const char *refusal = pick_refusal(w);

    snprintf(w->sender, sizeof(w->sender), "%.*s", STR_FMT(s->mail.sender.text));
    w->accepted_len = 0;
    buf_clear(&w->body);
    smtp_server_answer(s, &w->to_client, refusal);
    if (refusal == NULL)
        w->mail_state = s->state;
    else if (w->keeps_mail && w->mail_state != 0 && !w->server_closed)
        keep_open(w);
}

static void on_message(struct world *w)
{
    struct buf replies = {0};
    const char *reply = w->lmtp ? NULL : pick_refusal(w);
    bool refused = false;
    struct message *m;

    assert_true(w->accepted_len > 0);
    m = &w->messages[w->accepted[0].message];
    assert_int_equal(w->body.len, m->smtp.content_len);
    assert_memory_equal(w->body.data, m->content, w->body.len);
    assert_string_equal(w->sender, m->sender);
    for (size_t i = 0; i < w->accepted_len; i++) {
        const char *one = w->lmtp ? pick_refusal(w) : reply;

        assert_int_equal(w->accepted[i].message, w->accepted[0].message);
        if (one == NULL)
            m->taken[w->accepted[i].rcpt] = true;
        refused |= one != NULL;
        if (replies.len != 0)
            buf_putc(&replies, '\n');
        buf_puts(&replies, one == NULL ? "250 2.0.0 taken" : one);
        if (one != NULL && memcmp(one, "421", 3) == 0)
            w->bye_permille = 1000; /* LMTP: all further ones too */
    }
    buf_putc(&replies, '\0');
    smtp_server_answer(&w->server, &w->to_client, w->lmtp ? (const char *)replies.data : reply);
    buf_done(&replies);
    if (refused && w->keeps)
        keep_open(w);
    else
        w->accepted_len = 0;
}

static void accept_rcpt(struct world *w, struct str address)
{
    size_t *at = &w->accepted_len;
    char text[64];

    snprintf(text, sizeof(text), "%.*s", STR_FMT(address));
    assert_int_equal(sscanf(text, "m%zu-r%zu@", &w->accepted[*at].message, &w->accepted[*at].rcpt),
                     2);
    (*at)++;
}

static void serve(struct world *w, const uint8_t *bytes, size_t len)
{
    struct smtp_server_input in = {bytes, len};
    struct smtp_server *s = &w->server;
    const char *reply;

    for (;;) {
        switch (smtp_server_step(s, &in, &w->to_client)) {
        case SMTP_SERVER_INPUT:
            return;
        case SMTP_SERVER_HELO:
        case SMTP_SERVER_AUTH:
            smtp_server_answer(s, &w->to_client, NULL);
            break;
        case SMTP_SERVER_MAIL:
            on_mail(w);
            break;
        case SMTP_SERVER_RCPT:
            reply = pick_refusal(w);
            if (reply == NULL)
                accept_rcpt(w, s->rcpt.recipient.text);
            smtp_server_answer(s, &w->to_client, reply);
            break;
        case SMTP_SERVER_DATA:
            buf_clear(&w->body);
            reply = pick_refusal(w);
            w->body_refused = reply != NULL && !s->options->no_chunking; /* then it was BDAT */
            smtp_server_answer(s, &w->to_client, reply);
            break;
        case SMTP_SERVER_BODY:
            buf_put_str(&w->body, s->body);
            break;
        case SMTP_SERVER_MESSAGE:
            on_message(w);
            break;
        case SMTP_SERVER_ABORT: /* a BDAT that was refused, or RSET */
            if (w->body_refused && w->keeps)
                keep_open(w);
            else
                w->accepted_len = 0;
            w->body_refused = false;
            break;
        case SMTP_SERVER_CLOSE:
            w->server_closed = true;
            return;
        case SMTP_SERVER_TLS:
        case SMTP_SERVER_XCLIENT:
            ASSERT(false); /* not offered */
        }
    }
}

/* --- the client's side --- */

static void on_recipient(const struct smtp_event *e)
{
    struct message *m = e->transaction->owner;

    assert_false(m->done);
    assert_int_equal(m->events[e->rcpt], 0);
    m->events[e->rcpt]++;
    m->last[e->rcpt].fate = e->fate;
    m->last[e->rcpt].stage = e->stage;
    m->last[e->rcpt].code = e->reply->code;
}

static void drain(struct world *w)
{
    struct smtp_event e;

    do {
        while (w->submitted < w->messages_len && smtp_client_can_submit(w->client))
            smtp_client_submit(w->client, &w->messages[w->submitted++].smtp);
        switch (smtp_client_next_event(w->client, &e)) {
        case SMTP_EVENT_NONE:
        case SMTP_EVENT_STARTTLS: /* not wanted */
        case SMTP_EVENT_AUTH:
        case SMTP_EVENT_READY:
            break;
        case SMTP_EVENT_RECIPIENT:
            assert_false(w->closed);
            on_recipient(&e);
            break;
        case SMTP_EVENT_DONE:
            assert_false(w->closed);
            ((struct message *)e.transaction->owner)->done = true;
            break;
        case SMTP_EVENT_CLOSE:
            assert_false(w->closed);
            assert_int_equal(smtp_client_in_flight(w->client), 0);
            w->closed = true;
            break;
        }
    } while (e.kind != SMTP_EVENT_NONE);
}

static void client_lost(struct world *w)
{
    smtp_client_lost(w->client, "connection reset by peer");
    drain(w);
    assert_true(w->closed);
}

/* Moves some bytes one way; false: there were none. */
static bool move_to_server(struct world *w, bool pieces)
{
    size_t n = w->to_server.len;

    if (n == 0 || w->server_closed)
        return false;
    if (pieces)
        n = 1 + rng_below(&w->rng, n);
    if (getenv("TRACE"))
        fprintf(stderr, "C: %.*s\n", (int)n, (char *)w->to_server.data);
    serve(w, w->to_server.data, n);
    buf_consume(&w->to_server, n);
    return true;
}

static bool move_to_client(struct world *w, bool pieces)
{
    size_t n = w->to_client.len;

    if (n == 0)
        return false;
    if (pieces)
        n = 1 + rng_below(&w->rng, n);
    if (getenv("TRACE"))
        fprintf(stderr, "S: %.*s\n", (int)n, (char *)w->to_client.data);
    smtp_client_input(w->client, w->to_client.data, n);
    buf_consume(&w->to_client, n);
    drain(w);
    return true;
}

static bool client_writes(struct world *w, bool *unsent)
{
    struct iovec iov[IOV_MAX_HERE];
    size_t n;

    if (*unsent && chance(w, 50)) {
        smtp_client_sent(w->client);
        drain(w);
        *unsent = false;
        return true;
    }
    if (*unsent)
        return true;
    n = smtp_client_output(w->client, iov, 4 + rng_below(&w->rng, IOV_MAX_HERE - 3));
    for (size_t i = 0; i < n; i++)
        buf_put(&w->to_server, iov[i].iov_base, iov[i].iov_len);
    *unsent = n != 0;
    return n != 0;
}

static void check(struct world *w, bool cut)
{
    for (size_t k = 0; k < w->submitted; k++) {
        struct message *m = &w->messages[k];

        assert_true(m->done);
        for (size_t i = 0; i < m->smtp.rcpts_len; i++) {
            bool delivered = m->last[i].fate == SMTP_FATE_REPLY && m->last[i].code / 100 == 2;

            assert_int_equal(m->events[i], 1);
            if (delivered && !m->taken[i])
                fprintf(stderr, "message %zu rcpt %zu of %u: fate %d stage %s code %u\n", k, i,
                        m->smtp.rcpts_len, (int)m->last[i].fate, smtp_stage_name(m->last[i].stage),
                        m->last[i].code);
            if (delivered) {
                assert_true(m->taken[i]);
                assert_int_equal(m->last[i].stage, SMTP_STAGE_BODY);
            }
            if (m->taken[i])
                assert_true(delivered || m->last[i].fate == SMTP_FATE_LOST);
            if (!cut)
                assert_int_equal(m->last[i].fate, SMTP_FATE_REPLY);
        }
    }
}

static void run(uint64_t seed)
{
    struct world *w = calloc(1, sizeof(*w));
    struct smtp_server_options so = {.host_name = "mx.test",
                                     .recipients_max = 100,
                                     .line_bytes_max = 4096,
                                     .errors_max = 100000,
                                     .commands_max = 100000};
    struct pool outputs;
    struct smtp_client_options co = {.ehlo_name = "client.test", .outputs = &outputs};
    bool pieces, cut = false, unsent = false;
    uint64_t cut_after = UINT64_MAX, turn = 0;

    pool_init(&outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, 1);
    rng_seed(&w->rng, seed);
    so.lmtp = co.lmtp = w->lmtp = chance(w, 20);
    so.no_pipelining = chance(w, 30);
    so.no_chunking = chance(w, 50);
    co.pipeline_max = (uint16_t)(1 + rng_below(&w->rng, 5));
    co.pipeline_bytes_max = (uint32_t)rng_below(&w->rng, 1000);
    w->refuse_percent = (unsigned)rng_below(&w->rng, 60);
    w->bye_permille = chance(w, 30) ? 20 : 0;
    w->keeps = chance(w, 50);
    /* With BDAT the content is out before the refusal of its sender is in. */
    w->keeps_mail = w->keeps && so.no_chunking && !so.no_pipelining && chance(w, 30);
    pieces = chance(w, 50);
    if (chance(w, 30))
        cut_after = rng_below(&w->rng, 200);
    w->messages_len = 1 + rng_below(&w->rng, MESSAGES_MAX);
    for (size_t i = 0; i < w->messages_len; i++)
        make_message(w, i);
    w->client = smtp_client_new(&co);
    smtp_server_init(&w->server, &so);
    smtp_server_greet(&w->server, &w->to_client, NULL);
    while (!w->closed) {
        bool moved = client_writes(w, &unsent);

        moved |= move_to_server(w, pieces);
        if (!w->closed)
            moved |= move_to_client(w, pieces);
        if (turn++ == cut_after || (w->server_closed && w->to_client.len == 0)) {
            cut = true;
            if (!w->closed)
                client_lost(w);
        }
        if (w->submitted == w->messages_len && smtp_client_in_flight(w->client) == 0)
            smtp_client_quit(w->client);
        if (!moved && !w->closed)
            fail_msg("seed %llu: nobody moves", (unsigned long long)seed);
    }
    /* What was handed out may still arrive after the client has given up. */
    while (move_to_server(w, false))
        ;
    check(w, cut || w->bye_permille != 0 || w->keeps_mail);
    smtp_client_free(w->client);
    pool_done(&outputs);
    smtp_server_done(&w->server);
    buf_done(&w->to_client);
    buf_done(&w->to_server);
    buf_done(&w->body);
    free(w);
}

static void test_any_server(void **state)
{
    const char *one = getenv("SEED");

    (void)state;
    if (one != NULL) {
        run(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 0; seed < 3000; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_server)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

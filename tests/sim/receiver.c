#include "tests/sim/receiver.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/msgid.h"
#include "smtp/server.h"
#include "tests/sim/ledger.h"
#include "tests/sim/season.h"
#include "tests/sim/throttle.h"
#include "tests/sim/warmth.h"
#include "tests/sim/world.h"

#define STALL_MAX_NS (900 * SIM_S)
#define RCPTS_MAX    1000

enum verdict { ACCEPT, DEFER, REFUSE, SAY_421, DROP, STALL, GARBAGE };

struct receiver {
    struct world_host *host;
    struct net_end *end;
    struct smtp_server server;
    struct buf in; /* what is being stepped over: a question's slices point into it */
    size_t in_at;
    struct buf out, body;
    struct sim_event answer; /* a question waits for its time, or a stalled session for its end */
    enum smtp_server_want question;
    bool answering, stalled, closing, gone;
    struct ledger_rcpt *rcpts[RCPTS_MAX];
    uint32_t rcpts_len;
    bool null_sender;
    uint32_t worked;    /* of which pause it took a message: throttle.h */
    bool metered;       /* a message that counts is under way */
    uint8_t mail_state; /* of the machine, with a transaction open */
    struct list taken;  /* acceptances that the engine has not seen answered */
};

static struct {
    struct net_listener listeners[WORLD_HOSTS_MAX][2]; /* by family */
    struct smtp_server_options options[WORLD_HOSTS_MAX];
    uint32_t open[WORLD_HOSTS_MAX], all;
} receivers;

static uint32_t host_index(const struct world_host *h)
{
    return (uint32_t)(h - world.hosts);
}

unsigned receivers_sessions(void)
{
    return receivers.all;
}

static void receiver_run(struct receiver *r);

/* --- the end --- */

static void meter(struct receiver *r, bool begins)
{
    if (begins)
        throttle_opened();
    else if (r->metered)
        throttle_closed();
    r->metered = begins;
}

static void receiver_close(struct receiver *r, bool abort)
{
    struct net_end *end = r->end;

    if (end == NULL)
        return;
    r->end = NULL;
    sim_cancel(&r->answer);
    receivers.open[host_index(r->host)]--;
    meter(r, false);
    if (world_recovery && !world_domains)
        throttle_closed();
    net_close(end, abort);
}

static void receiver_free(struct receiver *r)
{
    smtp_server_done(&r->server);
    buf_done(&r->in);
    buf_done(&r->out);
    buf_done(&r->body);
    free(r);
    receivers.all--;
}

/* Nothing can come of an acceptance's answer any more. May run inside receiver_close(). */
static void on_gone(struct net_end *end)
{
    struct receiver *r = end->owner;

    while (list_pop_front(&r->taken) != NULL)
        ;
    r->gone = true;
    sim_in(&r->answer, 0);
}

static void on_seen(struct net_end *end)
{
    ledger_seen(&((struct receiver *)end->owner)->taken, end->seen_bytes);
}

static void stall(struct receiver *r)
{
    r->stalled = true;
    sim_in(&r->answer, sim_between(SIM_S, STALL_MAX_NS));
}

/* --- manners --- */

static enum verdict verdict_at(const struct receiver *r, enum world_stage stage)
{
    const struct manners *m = &r->host->manners[stage];

    if (sim_chance(m->defer))
        return DEFER;
    if (sim_chance(m->refuse))
        return REFUSE;
    if (sim_chance(m->say_421))
        return SAY_421;
    if (sim_chance(m->drop))
        return DROP;
    if (sim_chance(m->stall))
        return STALL;
    return sim_chance(r->host->garbage) ? GARBAGE : ACCEPT;
}

/* Answers the question at hand; false: the session is not to be stepped any further. */
static bool carry_out(struct receiver *r, enum verdict v)
{
    switch (v) {
    case ACCEPT:
        smtp_server_answer(&r->server, &r->out, NULL);
        return true;
    case DEFER:
        smtp_server_answer(&r->server, &r->out, "451 4.3.0 not now");
        return true;
    case REFUSE:
        smtp_server_answer(&r->server, &r->out, "550 5.1.1 not here");
        return true;
    case SAY_421:
        smtp_server_answer(&r->server, &r->out, "421 4.3.2 going away");
        return true;
    case GARBAGE:
        buf_puts(&r->out, "what\r\n");
        r->closing = true;
        return false;
    case STALL:
        stall(r);
        return false;
    case DROP:
        receiver_close(r, sim_chance(500));
        return false;
    }
    return false;
}

/* --- mail --- */

/* Some hosts keep a transaction open whose message they refused, with all its recipients: whoever
 * goes on without RSET has its content taken for those too. */
static void keep_open(struct receiver *r, bool refused)
{
    if (!refused || host_index(r->host) % 2 == 0)
        return;
    r->server.state = r->mail_state;
    r->server.rcpts = r->rcpts_len;
}

static enum verdict season_verdict(const struct receiver *r, const struct ledger_rcpt *rcpt)
{
    static const enum verdict verdicts[] = {
        [SEASON_TAKES] = ACCEPT, [SEASON_DEFERS] = DEFER, [SEASON_REFUSES] = REFUSE};

    return verdicts[season_rcpt(world_source_at((const struct sockaddr *)&r->end->remote), rcpt)];
}

static bool answer_rcpt(struct receiver *r)
{
    struct ledger_rcpt *known = ledger_find(r->server.rcpt.recipient.text);
    enum verdict v = verdict_at(r, AT_RCPT);

    if (known == NULL && !r->null_sender)
        sim_fail("content", "a recipient that nobody sent: %.*s",
                 STR_FMT(r->server.rcpt.recipient.text));
    if (v == ACCEPT && known != NULL && r->host->greylist_s != 0) {
        if (known->greylisted_ns == 0)
            known->greylisted_ns = sim_now_ns();
        if (sim_now_ns() < known->greylisted_ns + r->host->greylist_s * SIM_S)
            v = DEFER;
    }
    if (world_season)
        v = season_verdict(r, known);
    if (v == ACCEPT) {
        ASSERT(r->rcpts_len < RCPTS_MAX);
        r->rcpts[r->rcpts_len++] = known;
    }
    return carry_out(r, v);
}

static void check_content(const struct receiver *r)
{
    struct str all = buf_str(&r->body);
    const char *at = memmem(all.ptr, all.len, "\r\n\r\n", 4);

    if (at == NULL)
        sim_fail("content", "no header in a message");
    all.len -= (size_t)(at + 4 - all.ptr);
    for (uint32_t i = 0; i < r->rcpts_len; i++) {
        const struct ledger_message *m = r->rcpts[i]->message;

        if (m->eight_bit)
            continue; /* some exchanger may have had it converted */
        if (m->body_len != all.len || m->body_hash != ledger_hash(at + 4, all.len))
            sim_fail("content", "message %u to %s: %zu bytes, %llu were sent", m->number,
                     r->rcpts[i]->key, all.len, (unsigned long long)m->body_len);
    }
}

/* Notices have one recipient, and a message id of ours. */
static void identify_notice(struct receiver *r)
{
    static const char field[] = "Message-ID: <";
    const char *at = memmem(r->body.data, r->body.len, field, sizeof(field) - 1);

    ASSERT(at != NULL && r->rcpts_len == 1);
    r->rcpts[0] = ledger_notice((struct str){at + sizeof(field) - 1, MSGID_TEXT_BYTES - 1});
}

/* LMTP: a reply for each recipient, which need not be alike. */
static void answer_each(struct receiver *r)
{
    const struct manners *m = &r->host->manners[AT_RCPT];
    bool taken[RCPTS_MAX], refused = false;
    size_t at = r->out.len;
    struct buf lines = {0};

    for (uint32_t i = 0; i < r->rcpts_len; i++) {
        bool defer = sim_chance(m->defer), refuse = !defer && sim_chance(m->refuse);

        taken[i] = !defer && !refuse;
        refused |= !taken[i];
        buf_puts(&lines, i == 0 ? "" : "\n");
        buf_puts(&lines, defer    ? "451 4.2.0 not now"
                         : refuse ? "550 5.2.0 not here"
                                  : "250 2.0.0 taken");
    }
    buf_putc(&lines, 0);
    smtp_server_answer(&r->server, &r->out, (const char *)lines.data);
    buf_done(&lines);
    keep_open(r, refused);
    sim_trace("lmtp: %u replies", r->rcpts_len);
    for (uint32_t i = 0; i < r->rcpts_len; i++) {
        const uint8_t *end = memchr(r->out.data + at, '\n', r->out.len - at);

        ASSERT(end != NULL);
        at = (size_t)(end - r->out.data) + 1;
        if (taken[i])
            ledger_taken(r->rcpts[i], &r->taken, r->end->sent_bytes + at);
    }
}

static bool answer_message(struct receiver *r)
{
    enum verdict v = verdict_at(r, AT_DOT);
    bool silent, metered = r->metered;
    uint64_t offset;

    meter(r, false);
    if (v != ACCEPT) {
        bool go_on = carry_out(r, v);

        keep_open(r, v == DEFER || v == REFUSE);
        return go_on;
    }
    if (world_signs && !str_starts_nocase(buf_str(&r->body), STR("DKIM-Signature:")))
        sim_fail("signed", "a message without a signature");
    /* A null sender may also be a sender's. */
    if (r->null_sender && r->rcpts[0] == NULL)
        identify_notice(r);
    else
        check_content(r);
    silent = sim_chance(r->host->drop_after_dot);
    if (silent || sim_chance(r->host->stall_after_dot)) {
        for (uint32_t i = 0; i < r->rcpts_len; i++)
            ledger_taken(r->rcpts[i], &r->taken, UINT64_MAX);
        carry_out(r, silent ? DROP : STALL);
        return false;
    }
    if (r->server.options->lmtp) {
        answer_each(r);
        return true;
    }
    if (world_recovery && (metered || !world_domains))
        throttle_taken(&r->worked);
    if (world_season) {
        const char *refusal =
            season_message(world_source_at((const struct sockaddr *)&r->end->remote), r->host->site,
                           r->rcpts, r->rcpts_len);

        if (refusal != NULL) {
            smtp_server_answer(&r->server, &r->out, refusal);
            return true;
        }
    } else if (world_warmup)
        warmth_taken(world_source_at((const struct sockaddr *)&r->end->remote), r->host->site,
                     r->rcpts_len);
    smtp_server_answer(&r->server, &r->out, NULL);
    offset = r->end->sent_bytes + r->out.len;
    for (uint32_t i = 0; i < r->rcpts_len; i++)
        ledger_taken(r->rcpts[i], &r->taken, offset);
    return true;
}

static bool answer_mail(struct receiver *r)
{
    bool go_on, means = world_recovery && throttle_means(r->server.mail.sender.text);
    enum verdict v = verdict_at(r, AT_MAIL);

    ledger_mail((const struct sockaddr *)&r->end->remote, r->host);
    r->rcpts_len = 0;
    r->null_sender = r->server.mail.sender.text.len == 0;
    if (means && v == ACCEPT && throttle_refuses()) {
        smtp_server_answer(&r->server, &r->out, throttle_reply());
        return true;
    }
    if (means && world_domains)
        meter(r, true);
    sim_trace("mail %.*s at %u", STR_FMT(r->server.mail.sender.text), host_index(r->host));
    go_on = carry_out(r, v);
    if (v == ACCEPT)
        r->mail_state = r->server.state;
    return go_on;
}

static bool answer_helo(struct receiver *r)
{
    enum verdict v = verdict_at(r, AT_EHLO);

    if (v == ACCEPT && r->host->helo_only && r->server.esmtp) {
        smtp_server_answer(&r->server, &r->out, "502 5.5.1 not implemented");
        return true;
    }
    return carry_out(r, v);
}

/* --- steps --- */

static bool answer(struct receiver *r)
{
    switch (r->question) {
    case SMTP_SERVER_HELO:
        return answer_helo(r);
    case SMTP_SERVER_MAIL:
        return answer_mail(r);
    case SMTP_SERVER_RCPT:
        return answer_rcpt(r);
    case SMTP_SERVER_DATA:
        buf_clear(&r->body);
        return carry_out(r, verdict_at(r, AT_DATA));
    case SMTP_SERVER_MESSAGE:
        return answer_message(r);
    case SMTP_SERVER_INPUT:
    case SMTP_SERVER_TLS: /* not offered */
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_XCLIENT:
    case SMTP_SERVER_BODY:
    case SMTP_SERVER_ABORT:
    case SMTP_SERVER_CLOSE:
        break;
    }
    return true;
}

static void on_answer(struct sim_event *event)
{
    struct receiver *r = CONTAINER_OF(event, struct receiver, answer);

    if (r->gone) {
        receiver_free(r);
        return;
    }
    if (r->stalled) {
        receiver_close(r, sim_chance(500));
        return;
    }
    r->answering = false;
    if (answer(r) || (r->end != NULL && !r->stalled))
        receiver_run(r);
}

/* A question is answered now or later. False: wait. */
static bool ask(struct receiver *r, enum smtp_server_want want)
{
    r->question = want;
    if (r->host->answer_ns > 0 && sim_chance(200)) {
        r->answering = true;
        sim_in(&r->answer, sim_draw(r->host->answer_ns) + 1);
        return false;
    }
    return answer(r);
}

/* One step of the machine; false: no further for now. */
static bool step(struct receiver *r)
{
    struct smtp_server_input in;
    enum smtp_server_want want;
    bool go_on = true;

    if (r->in_at == r->in.len) {
        buf_clear(&r->in);
        buf_put(&r->in, r->end->rx.data, r->end->rx.len);
        net_read(r->end, r->end->rx.len);
        r->in_at = 0;
    }
    in = (struct smtp_server_input){r->in.data + r->in_at, r->in.len - r->in_at};
    want = smtp_server_step(&r->server, &in, &r->out);
    r->in_at = r->in.len - in.len;
    switch (want) {
    case SMTP_SERVER_INPUT:
        go_on = false;
        break;
    case SMTP_SERVER_BODY:
        buf_put_str(&r->body, r->server.body);
        if (sim_chance(r->host->drop_in_body)) {
            receiver_close(r, sim_chance(500));
            return false;
        }
        break;
    case SMTP_SERVER_CLOSE:
        r->closing = true;
        go_on = false;
        break;
    case SMTP_SERVER_ABORT:
        meter(r, false);
        r->rcpts_len = 0;
        break;
    case SMTP_SERVER_HELO:
    case SMTP_SERVER_TLS:
    case SMTP_SERVER_AUTH:
    case SMTP_SERVER_XCLIENT:
    case SMTP_SERVER_MAIL:
    case SMTP_SERVER_RCPT:
    case SMTP_SERVER_DATA:
    case SMTP_SERVER_MESSAGE:
        go_on = ask(r, want);
        break;
    }
    return go_on && r->end != NULL;
}

static void flush(struct receiver *r)
{
    ptrdiff_t n;

    while (r->out.len > 0) {
        n = net_send(r->end, r->out.data, r->out.len);
        if (n < 0) {
            receiver_close(r, true);
            return;
        }
        if (n == 0)
            return;
        buf_consume(&r->out, (size_t)n);
    }
    if (r->closing)
        receiver_close(r, false);
}

static void receiver_run(struct receiver *r)
{
    while (!r->answering && !r->stalled && !r->closing && step(r))
        ;
    if (r->end == NULL)
        return;
    flush(r);
    if (r->end != NULL && r->end->fin && r->end->rx.len == 0 && !r->answering)
        receiver_close(r, false);
}

static void on_change(struct net_end *end)
{
    struct receiver *r = end->owner;

    if (end->reset)
        receiver_close(r, true);
    else if (!r->stalled)
        receiver_run(r);
    else if (end->fin)
        receiver_close(r, false);
}

/* --- beginning --- */

static void on_accept(struct net_listener *l, struct net_end *end)
{
    struct world_host *h = l->owner;
    struct receiver *r = calloc(1, sizeof(*r));
    enum verdict v;

    ASSERT(r != NULL);
    r->host = h;
    r->end = end;
    r->answer.run = on_answer;
    list_init(&r->taken);
    end->owner = r;
    end->on_change = on_change;
    end->on_gone = on_gone;
    end->on_seen = on_seen;
    receivers.all++;
    receivers.open[host_index(h)]++;
    if (world_recovery && !world_domains)
        throttle_opened();
    smtp_server_init(&r->server, &receivers.options[host_index(h)]);
    v = verdict_at(r, AT_BANNER);
    if (h->sessions_max != 0 && receivers.open[host_index(h)] > h->sessions_max)
        v = SAY_421;
    switch (v) {
    case ACCEPT:
        smtp_server_greet(&r->server, &r->out, NULL);
        break;
    case DEFER:
    case SAY_421:
        smtp_server_greet(&r->server, &r->out, "421 4.7.0 too many");
        break;
    case REFUSE:
        smtp_server_greet(&r->server, &r->out, "554 5.7.1 no");
        break;
    case GARBAGE:
    case STALL:
    case DROP:
        if (!carry_out(r, v) && r->end == NULL)
            return;
        break;
    }
    receiver_run(r);
}

void receivers_open(void)
{
    for (uint32_t i = 0; i < world.hosts_len; i++) {
        struct world_host *h = &world.hosts[i];
        struct sockaddr_storage addr;

        receivers.options[i] = (struct smtp_server_options){.host_name = "mx.test",
                                                            .message_bytes_max = 64u << 20,
                                                            .recipients_max = h->rcpts_max,
                                                            .line_bytes_max = 4096,
                                                            .errors_max = 1000,
                                                            .commands_max = 1000,
                                                            .messages_max = h->messages_max,
                                                            .no_pipelining = h->no_pipelining,
                                                            .no_chunking = h->no_chunking,
                                                            .no_8bitmime = h->no_8bitmime,
                                                            .no_dsn = h->no_dsn,
                                                            .no_limits = h->no_limits};
        receivers.options[i].lmtp = world.sites[h->site].route == ROUTE_LMTP;
        for (int v6 = 0; v6 < 2; v6++) {
            struct net_listener *l = &receivers.listeners[i][v6];

            if (!(v6 ? h->v6 : h->v4))
                continue;
            l->on_accept = on_accept;
            l->owner = h;
            world_address(h, v6, &addr);
            net_listen(l, (struct sockaddr *)&addr, sizeof(addr));
        }
    }
}

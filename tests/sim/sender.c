#include "tests/sim/sender.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "smtp/client.h"
#include "tests/sim/ledger.h"
#include "tests/sim/season.h"
#include "tests/sim/warmth.h"
#include "tests/sim/world.h"

#define SENDERS_MAX 8
#define PATIENCE_NS (600 * SIM_S)
#define RCPTS_MAX   200
#define BODY_MAX    60000
#define IOV_MAX_SIM 8
#define BURST_MAX   100
#define SEASON_NS   (30 * SIM_S) /* between two letters of a season */

/* A message under way. */
struct letter {
    struct smtp_transaction smtp;
    struct smtp_transaction_rcpt rcpts[RCPTS_MAX];
    struct ledger_rcpt *books[RCPTS_MAX];
    char sender[64], envid[16];
    struct buf content;
};

struct sender {
    struct net_end *end;
    struct smtp_client *client;
    struct smtp_client_options options;
    struct pool outputs;
    struct sim_event next;     /* something to send, or to connect again */
    struct sim_event patience; /* the end of it */
    struct buf out;            /* a copy of the machine's output */
    bool outputting, ready, quitting;
};

static struct {
    struct sender all[SENDERS_MAX];
    uint32_t numbers, under_way;
    uint64_t from_ns;
} senders;

static void sender_flush(struct sender *s);

/* --- letters --- */

/* One of as much mail as its weight says, so that all have some until the end. */
static uint8_t tenant_draw(void)
{
    uint32_t at = 0, tenant = 0;

    for (uint32_t i = 0; i < WORLD_TENANTS; i++)
        at += world.weights[i];
    at = (uint32_t)sim_draw(at);
    while (at >= world.weights[tenant])
        at -= world.weights[tenant++];
    return (uint8_t)tenant;
}

/* Who sends it, and how urgent it is. */
static void letter_flow(struct letter *l, struct ledger_message *m)
{
    if (world_season) {
        if (m->tenant != 0)
            buf_printf(&l->content, "X-Hayauma-Tenant: t%u\r\n", m->tenant);
        return;
    }
    if (world_crowd) {
        m->tenant = tenant_draw();
        buf_printf(&l->content, "X-Hayauma-Tenant: t%u\r\n", m->tenant);
    } else {
        if (sim_chance(300))
            buf_printf(&l->content, "X-Hayauma-Priority: %u\r\n", (unsigned)sim_draw(10));
        if (sim_chance(500))
            buf_printf(&l->content, "X-Hayauma-Tenant: t%u\r\n", (unsigned)sim_draw(WORLD_TENANTS));
    }
    if (sim_chance(500))
        buf_printf(&l->content, "X-Hayauma-Campaign: c%u\r\n", (unsigned)sim_draw(WORLD_TENANTS));
}

static void letter_content(struct letter *l, struct ledger_message *m)
{
    size_t len = world_season ? 50
                              : (size_t)(sim_chance(900) ? sim_between(10, 3000)
                                                         : sim_between(3000, BODY_MAX));
    size_t body;

    buf_printf(&l->content, "From: <a@d0.test>\r\nTo: <b@d0.test>\r\nSubject: %u\r\n", m->number);
    letter_flow(l, m);
    if (world.not_before_s_max > 0 && sim_chance(300))
        buf_printf(&l->content, "X-Hayauma-Not-Before: %lld\r\n",
                   (long long)(sim_wall_ms() / 1000 + (int64_t)sim_draw(world.not_before_s_max)));
    buf_puts(&l->content, "\r\n");
    body = l->content.len;
    m->eight_bit = sim_chance(100);
    while (l->content.len < body + len) {
        static const char *const lines[] = {"plain words of no meaning\r\n", ".\r\n", "..dots\r\n",
                                            "\r\n", "a longer line: 0123456789 0123456789\r\n"};

        buf_printf(&l->content, "%u %s", m->number, m->eight_bit ? "\xc3\xa4" : "");
        buf_puts(&l->content, lines[sim_draw(ARRAY_LEN(lines))]);
        if (sim_chance(200))
            buf_puts(&l->content, ".stuffed\r\n");
    }
    m->body_len = l->content.len - body;
    m->body_hash = ledger_hash(l->content.data + body, m->body_len);
}

/* season: what it is to be, in a world that has one. */
static struct letter *letter_new(const struct season_letter *season)
{
    struct letter *l = calloc(1, sizeof(*l));
    struct ledger_message *m = ledger_message(senders.numbers++);
    uint32_t rcpts = world_season   ? season->rcpts
                     : world_warmup ? world.rcpts_max
                                    : (uint32_t)sim_between(1, world.rcpts_max);
    char address[96];

    ASSERT(l != NULL);
    m->tenant = world_season && season->brisk;
    letter_content(l, m);
    m->null_sender = world_season || sim_chance(100);
    if (!m->null_sender)
        snprintf(l->sender, sizeof(l->sender), "s%u@%s", m->number,
                 world.domains[world_domain_draw()].name);
    l->smtp.sender = str_of(l->sender);
    l->smtp.eight_bit = m->eight_bit;
    l->smtp.dot_lines = true;
    l->smtp.pieces[0] = (struct smtp_piece){l->content.data, l->content.len};
    l->smtp.rcpts = l->rcpts;
    l->smtp.rcpts_len = (uint16_t)rcpts;
    l->smtp.owner = l;
    for (uint32_t i = 0; i < rcpts; i++) {
        uint32_t domain = world_season                     ? season->provider
                          : world_warmup                   ? warmth_provider(m->number * rcpts + i)
                          : world_crowd && sim_chance(900) ? world.crowd_domain
                                                           : world_domain_draw();

        snprintf(address, sizeof(address), "r%u-%u@%s", m->number, i, world.domains[domain].name);
        l->books[i] = ledger_rcpt(m, address, domain);
        l->books[i]->notify = world_warmup || sim_chance(800) ? 0 : (uint8_t)sim_between(1, 15);
        if ((l->books[i]->notify & SMTP_NOTIFY_NEVER) != 0) /* stands alone (RFC 3461 4.1) */
            l->books[i]->notify = SMTP_NOTIFY_NEVER;
        l->rcpts[i].address = str_of(l->books[i]->key);
        l->rcpts[i].notify = l->books[i]->notify;
    }
    senders.under_way++;
    return l;
}

static void letter_free(struct letter *l)
{
    buf_done(&l->content);
    free(l);
}

static void on_recipient(const struct smtp_event *event)
{
    struct letter *l = event->transaction->owner;
    struct ledger_rcpt *r = l->books[event->rcpt];

    if (event->fate == SMTP_FATE_REPLY && event->reply->code < 300)
        r->acked = true;
    else if (event->fate != SMTP_FATE_LOST)
        r->refused = true;
    if (world_season)
        season_accepted(r, r->acked);
    sim_trace("sender: %s fate %d code %u", r->key, event->fate, event->reply->code);
}

/* --- sessions --- */

/* Of a season sessions wait for mail, too, which comes seldom. */
static void be_patient(struct sender *s)
{
    sim_in(&s->patience, world_season ? 3600 * SIM_S : PATIENCE_NS);
}

static void sender_close(struct sender *s, bool abort)
{
    sim_cancel(&s->patience);
    if (s->end != NULL)
        net_close(s->end, abort);
    s->end = NULL;
    smtp_client_free(s->client);
    s->client = NULL;
    s->outputting = s->ready = s->quitting = false;
    buf_clear(&s->out);
    if (senders.numbers < world.messages)
        sim_in(&s->next, sim_between(SIM_MS, 20 * SIM_S));
}

/* False: the session is over. */
static bool sender_events(struct sender *s)
{
    struct smtp_event event;

    while (smtp_client_next_event(s->client, &event) != SMTP_EVENT_NONE) {
        switch (event.kind) {
        case SMTP_EVENT_READY:
            s->ready = true;
            sim_by(&s->next, sim_now_ns());
            break;
        case SMTP_EVENT_RECIPIENT:
            on_recipient(&event);
            break;
        case SMTP_EVENT_DONE:
            senders.under_way--;
            letter_free(event.transaction->owner); /* what is in an output was copied */
            break;
        case SMTP_EVENT_CLOSE:
            sender_close(s, sim_chance(300));
            return false;
        case SMTP_EVENT_NONE:
        case SMTP_EVENT_STARTTLS: /* not wanted */
        case SMTP_EVENT_AUTH:
            break;
        }
    }
    return true;
}

static void sender_lost(struct sender *s, const char *why)
{
    smtp_client_lost(s->client, why);
    if (sender_events(s))
        sender_close(s, true);
}

static void sender_output(struct sender *s)
{
    struct iovec iov[IOV_MAX_SIM];
    size_t n;

    if (s->outputting || !s->end->connected)
        return;
    n = smtp_client_output(s->client, iov, IOV_MAX_SIM);
    for (size_t i = 0; i < n; i++)
        buf_put(&s->out, iov[i].iov_base, iov[i].iov_len);
    s->outputting = n > 0;
}

static void sender_flush(struct sender *s)
{
    for (;;) {
        ptrdiff_t n;

        sender_output(s);
        if (!s->outputting)
            return;
        n = net_send(s->end, s->out.data, s->out.len);
        if (n < 0) {
            sender_lost(s, "connection reset");
            return;
        }
        buf_consume(&s->out, (size_t)n);
        if (s->out.len > 0)
            return;
        s->outputting = false;
        smtp_client_sent(s->client);
        if (!sender_events(s))
            return;
    }
}

static void on_change(struct net_end *end)
{
    struct sender *s = end->owner;
    size_t len = end->rx.len;

    if (end->error < 0) {
        sender_lost(s, "no connection");
        return;
    }
    if (len > 0) {
        smtp_client_input(s->client, end->rx.data, len);
        net_read(end, len);
        be_patient(s);
        if (!sender_events(s))
            return;
    }
    if (end->reset || end->fin)
        sender_lost(s, "connection closed");
    else
        sender_flush(s);
}

static void sender_connect(struct sender *s)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};

    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_port = htons((uint16_t)sim_between(1024, 65535));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(WORLD_PORT_IN);
    s->options = (struct smtp_client_options){.ehlo_name = "app.test",
                                              .pipeline_max = (uint16_t)sim_between(1, 8),
                                              .pipeline_bytes_max = 1 << 20,
                                              .no_chunking = sim_chance(500),
                                              .no_pipelining = sim_chance(300),
                                              .outputs = &s->outputs};
    if (world_bursts) {
        s->options.pipeline_max = (uint16_t)sim_between(1, BURST_MAX);
        s->options.no_chunking = sim_chance(100);
    }
    s->client = smtp_client_new(&s->options);
    s->end = net_connect((struct sockaddr *)&from, (struct sockaddr *)&to, sizeof(to),
                         &world.sender_path);
    ASSERT(s->client != NULL);
    s->end->owner = s;
    s->end->on_change = on_change;
    be_patient(s);
}

/* As many as an application has at once and the session takes; how many there were. */
static uint64_t sender_submit(struct sender *s)
{
    uint64_t burst = world_bursts ? sim_between(1, BURST_MAX) : 1, n = 0;

    while (n < burst && senders.numbers < world.messages && smtp_client_can_submit(s->client)) {
        smtp_client_submit(s->client, &letter_new(NULL)->smtp);
        n++;
    }
    return n == 0 ? 1 : n;
}

static void season_submit(struct sender *s)
{
    struct season_letter letter;

    if (smtp_client_can_submit(s->client) && season_next(&letter))
        smtp_client_submit(s->client, &letter_new(&letter)->smtp);
}

static void on_next(struct sim_event *event)
{
    struct sender *s = CONTAINER_OF(event, struct sender, next);
    uint64_t messages = 1;

    if (s->client == NULL) {
        if (senders.numbers < world.messages)
            sender_connect(s);
        return;
    }
    if (!s->ready || s->quitting)
        return;
    if (!world_warmup && sim_chance(10)) { /* it has gone away */
        sender_lost(s, "gone");
        return;
    }
    if (senders.numbers >= world.messages) {
        s->quitting = true;
        smtp_client_quit(s->client);
    } else if (world_season) {
        season_submit(s);
    } else {
        messages = sender_submit(s);
    }
    if (world_season)
        sim_in(&s->next, SEASON_NS);
    else
        sim_in(&s->next,
               sim_draw(messages * world.load_ns * world.senders / world.messages) + SIM_US);
    if (sender_events(s))
        sender_flush(s);
}

static void on_patience(struct sim_event *event)
{
    sender_lost(CONTAINER_OF(event, struct sender, patience), "timeout");
}

void senders_open(void)
{
    for (uint32_t i = 0; i < world.senders; i++) {
        struct sender *s = &senders.all[i];

        s->next.run = on_next;
        s->patience.run = on_patience;
        pool_init(&s->outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, 1);
        sim_in(&s->next, sim_draw(SIM_S));
    }
}

bool senders_through(void)
{
    return senders.numbers >= world.messages && senders.under_way == 0;
}

void senders_close(void)
{
    for (uint32_t i = 0; i < world.senders; i++) {
        struct sender *s = &senders.all[i];

        if (s->client != NULL)
            sender_close(s, true);
        sim_cancel(&s->next);
        pool_done(&s->outputs);
        buf_done(&s->out);
    }
}

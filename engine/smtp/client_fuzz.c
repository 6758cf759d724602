/* The client machine against a server that says anything. Every recipient gets one final event and
 * every transaction one end; what goes out is lines that end in CRLF. First byte: options; then
 * pieces of a length byte (high bit: the output has gone before) and that many bytes from the
 * server. */
#include <stdlib.h>

#include "base/assert.h"
#include "smtp/client.h"

#define MAILS_MAX 8
#define RCPTS_MAX 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct smtp_client *client;
    struct smtp_transaction transactions[MAILS_MAX];
    struct smtp_transaction_rcpt rcpts[MAILS_MAX][RCPTS_MAX];
    uint8_t finals[MAILS_MAX][RCPTS_MAX], dones[MAILS_MAX];
    size_t submitted;
    bool closed, unsent, secured, binds;
};

static void submit(struct run *r)
{
    static const char *const contents[] = {"", "a\r\n", ".\r\n..\r\n", "\xc3\xa9\r\n.x\r\n"};
    size_t k = r->submitted++;
    struct smtp_transaction *t = &r->transactions[k];

    *t = (struct smtp_transaction){
        .sender = STR("s@x"),
        .pieces = {{(const uint8_t *)contents[k % 4], strlen(contents[k % 4])}},
        .dot_lines = true,
        .eight_bit = k % 4 == 3,
        .rcpts = r->rcpts[k],
        .rcpts_len = (uint16_t)(1 + k % RCPTS_MAX),
        .owner = (void *)(uintptr_t)k,
    };
    for (size_t i = 0; i < t->rcpts_len; i++)
        r->rcpts[k][i] = (struct smtp_transaction_rcpt){
            .address = k == 5 && i == 0 ? STR("not\r\nvalid") : STR("r@x")};
    smtp_client_submit(r->client, t);
}

static void drain(struct run *r)
{
    struct smtp_event e;

    do {
        while (r->submitted < MAILS_MAX && smtp_client_can_submit(r->client))
            submit(r);
        switch (smtp_client_next_event(r->client, &e)) {
        case SMTP_EVENT_NONE:
        case SMTP_EVENT_READY:
            break;
        case SMTP_EVENT_STARTTLS:
            ASSERT(!r->secured && r->submitted == 0);
            r->secured = true;
            smtp_client_secured(r->client, r->binds);
            ASSERT(smtp_client_capabilities(r->client) == 0);
            break;
        case SMTP_EVENT_AUTH:
            if (e.challenge.len > 40)
                smtp_client_auth_refuse(r->client, "no");
            else
                smtp_client_auth_respond(r->client, e.challenge);
            break;
        case SMTP_EVENT_RECIPIENT:
            r->finals[(uintptr_t)e.transaction->owner][e.rcpt]++;
            break;
        case SMTP_EVENT_DONE:
            r->dones[(uintptr_t)e.transaction->owner]++;
            e.transaction->pieces[0] = (struct smtp_piece){NULL, 1}; /* who still reads it shows */
            break;
        case SMTP_EVENT_CLOSE:
            ASSERT(!r->closed && smtp_client_in_flight(r->client) == 0);
            r->closed = true;
            break;
        }
    } while (e.kind != SMTP_EVENT_NONE);
    if (r->submitted == MAILS_MAX && smtp_client_in_flight(r->client) == 0)
        smtp_client_quit(r->client);
}

/* Commands are text; no CR or LF but at the end of a line. */
static void take_output(struct run *r, size_t iov_max)
{
    struct iovec iov[16];
    uint8_t before = 0;
    size_t n;

    if (r->unsent)
        return;
    n = smtp_client_output(r->client, iov, iov_max);
    ASSERT(n <= iov_max);
    for (size_t i = 0; i < n; i++) {
        for (size_t at = 0; at < iov[i].iov_len; at++) {
            uint8_t b = ((const uint8_t *)iov[i].iov_base)[at];

            ASSERT((before == '\r') == (b == '\n'));
            before = b;
        }
    }
    r->unsent = n != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pool outputs;
    struct smtp_client_options options = {
        .ehlo_name = "me", .pipeline_bytes_max = 1000, .outputs = &outputs};
    struct run r = {0};
    size_t at = 1;

    if (size == 0)
        return 0;
    if (outputs.object_bytes == 0)
        pool_init(&outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, 1);
    options.lmtp = (data[0] & 1) != 0;
    options.no_chunking = (data[0] & 2) != 0;
    options.no_pipelining = (data[0] & 4) != 0;
    options.pipeline_max = data[0] >> 3 & 7;
    if ((data[0] & 0x80) != 0) {
        options.auth_user = "u";
        options.auth_password = "good";
    }
    r.binds = (data[0] & 2) != 0;
    r.client = smtp_client_new(&options);
    if ((data[0] & 0x80) != 0)
        smtp_client_trust(r.client, (data[0] & 1) != 0);
    if (options.pipeline_max % 4 != 0) /* the rest of the tests of others stays as it was */
        smtp_client_use_tls(r.client, options.pipeline_max % 2 ? SMTP_TLS_MAY : SMTP_TLS_REQUIRED);
    while (at < size && !r.closed) {
        size_t n = data[at] & 0x7f;

        if ((data[at++] & 0x80) != 0 && r.unsent) {
            smtp_client_sent(r.client);
            r.unsent = false;
            drain(&r);
        }
        n = n < size - at ? n : size - at;
        smtp_client_input(r.client, data + at, n);
        at += n;
        drain(&r);
        (void)smtp_client_stage(r.client);
        take_output(&r, (data[0] & 0x40) != 0 ? 4 : 16);
    }
    smtp_client_lost(r.client, "end of input");
    drain(&r);
    ASSERT(r.closed);
    for (size_t k = 0; k < r.submitted; k++) {
        ASSERT(r.dones[k] == 1);
        for (size_t i = 0; i < r.transactions[k].rcpts_len; i++)
            ASSERT(r.finals[k][i] == 1);
    }
    smtp_client_free(r.client);
    return 0;
}

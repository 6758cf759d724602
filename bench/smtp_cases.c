#include "bench/smtp_cases.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "smtp/client.h"
#include "smtp/scan.h"
#include "smtp/scan_isa.h"
#include "smtp/server.h"

#define BODY_BYTES_MAX (64 * 1024)
#define MESSAGE_BYTES  4096

static uint8_t body[BODY_BYTES_MAX + 8], copy[BODY_BYTES_MAX + 8];

static void body_fill(size_t bytes)
{
    static size_t filled;

    if (filled == bytes)
        return;
    for (size_t i = 0; i < bytes; i++)
        body[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : (uint8_t)('a' + i % 26);
    memcpy(body + bytes - 2, "\r\n", 2);
    memcpy(body + bytes, ".\r\n", 3);
    filled = bytes;
}

static void isa_set(int isa)
{
    if (isa >= 0)
        ASSERT(scan_isa_use((enum scan_isa)isa));
}

const char *smtp_case_isa_name(int isa)
{
    if (isa < 0)
        return "memcpy";
    if (!scan_isa_use((enum scan_isa)isa))
        return NULL;
    scan_isa_best();
    return scan_isa_name((enum scan_isa)isa);
}

size_t smtp_case_decode(int isa, size_t bytes)
{
    struct smtp_data_decoder d;
    struct str slice;
    size_t used, at = 0, len = 0;

    body_fill(bytes);
    if (isa < 0) {
        memcpy(copy, body, bytes);
        __asm__ volatile("" : : "r"(copy) : "memory");
        return bytes;
    }
    isa_set(isa);
    smtp_data_decoder_init(&d);
    while (!smtp_data_next(&d, body + at, bytes + 3 - at, &used, &slice)) {
        memcpy(copy + len, slice.ptr, slice.len);
        len += slice.len;
        at += used;
    }
    ASSERT(len == bytes);
    return bytes;
}

size_t smtp_case_slices(int isa, size_t bytes)
{
    struct smtp_data_decoder d;
    struct str slice;
    size_t used, at = 0;

    body_fill(bytes);
    isa_set(isa);
    smtp_data_decoder_init(&d);
    while (!smtp_data_next(&d, body + at, bytes + 3 - at, &used, &slice))
        at += used;
    return bytes;
}

size_t smtp_case_bdat_scan(int isa, size_t bytes)
{
    struct smtp_body_scanner s;

    body_fill(bytes);
    isa_set(isa);
    smtp_body_scanner_init(&s);
    smtp_body_scan(&s, body, bytes);
    smtp_body_scan_end(&s);
    ASSERT(!s.facts.bare_cr && s.facts.ends_crlf);
    return bytes;
}

size_t smtp_case_find_dot(int isa, size_t bytes)
{
    body_fill(bytes);
    isa_set(isa);
    ASSERT(smtp_find_dot_line(body, bytes, 0) == bytes);
    return bytes;
}

/* --- replies and addresses --- */

static const char four_replies[] = "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR>"
                                   "<LF>\r\n250 2.0.0 Ok: queued as 4XkQ1s0V0pz9sR\r\n";
static const char ehlo_reply[] =
    "250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n"
    "250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250 CHUNKING\r\n";

static size_t parse_replies(const char *text, size_t len)
{
    static struct smtp_reply_parser p;
    size_t n = 0;

    while (len != 0) {
        size_t used;

        smtp_reply_parser_reset(&p);
        ASSERT(smtp_reply_parse(&p, (const uint8_t *)text, len, &used) == SMTP_REPLY_DONE);
        text += used;
        len -= used;
        n++;
    }
    return n;
}

size_t smtp_case_replies(void)
{
    return parse_replies(four_replies, sizeof(four_replies) - 1);
}

size_t smtp_case_ehlo_reply(void)
{
    return parse_replies(ehlo_reply, sizeof(ehlo_reply) - 1);
}

size_t smtp_case_address(void)
{
    struct smtp_address a;
    size_t used;

    ASSERT(smtp_path_parse(STR("<first.last+tag@mail.example.com> SIZE=1"), false, false, &a,
                           &used) == 0);
    return 1;
}

/* --- the server machine --- */

static const struct smtp_server_options server_options = {
    .host_name = "mx.example.net",
    .message_bytes_max = 10 << 20,
    .recipients_max = 1000,
    .line_bytes_max = 4096,
    .errors_max = 100,
    .commands_max = 100,
};

static struct smtp_server server;
static struct buf server_out, server_in;

/* Runs input through; returns messages, or RSETs. */
static size_t serve(const uint8_t *bytes, size_t len)
{
    struct smtp_server_input in = {bytes, len};
    size_t n = 0;

    buf_clear(&server_out);
    for (;;) {
        enum smtp_server_want want = smtp_server_step(&server, &in, &server_out);

        if (want == SMTP_SERVER_INPUT)
            return n;
        ASSERT(want != SMTP_SERVER_CLOSE);
        n += want == SMTP_SERVER_MESSAGE || want == SMTP_SERVER_ABORT;
        if (want != SMTP_SERVER_BODY && want != SMTP_SERVER_ABORT)
            smtp_server_answer(&server, &server_out, NULL);
        server.commands = 0;
    }
}

static void server_open(const char *commands, bool with_body)
{
    static const char *opened;

    if (opened == commands)
        return;
    opened = commands;
    smtp_server_done(&server);
    smtp_server_init(&server, &server_options);
    smtp_server_greet(&server, &server_out, NULL);
    serve((const uint8_t *)"EHLO client.example.org\r\n", 25);
    buf_clear(&server_in);
    buf_puts(&server_in, commands);
    body_fill(MESSAGE_BYTES);
    if (with_body)
        buf_put(&server_in, body, MESSAGE_BYTES);
}

#define ENVELOPE                                                                                   \
    "MAIL FROM:<bounce+12345@news.example.org> SIZE=4096\r\n"                                      \
    "RCPT TO:<first.last@mail.example.com>\r\n"

size_t smtp_case_server_envelope(void)
{
    static const char commands[] = ENVELOPE "RSET\r\n";

    server_open(commands, false);
    return serve(server_in.data, server_in.len);
}

size_t smtp_case_server_data(void)
{
    static const char commands[] = ENVELOPE "DATA\r\n";
    size_t n;

    server_open(commands, true);
    n = serve(server_in.data, server_in.len);
    return n + serve((const uint8_t *)".\r\n", 3);
}

size_t smtp_case_server_bdat(void)
{
    static const char commands[] = ENVELOPE "BDAT 4096 LAST\r\n";

    server_open(commands, true);
    return serve(server_in.data, server_in.len);
}

/* --- the client machine --- */

struct client_case {
    struct smtp_client *client;
    struct smtp_transaction transactions[2];
    struct smtp_transaction_rcpt rcpts[2];
    unsigned next;
};

static void client_say(struct client_case *c, const char *text)
{
    struct smtp_event event;
    struct iovec iov[16];

    smtp_client_input(c->client, (const uint8_t *)text, strlen(text));
    while (smtp_client_next_event(c->client, &event) != SMTP_EVENT_NONE)
        ASSERT(event.kind != SMTP_EVENT_CLOSE);
    while (smtp_client_can_submit(c->client)) {
        struct smtp_transaction *t = &c->transactions[c->next];

        c->rcpts[c->next].address = STR("first.last@mail.example.com");
        t->sender = STR("bounce+12345@news.example.org");
        t->rcpts = &c->rcpts[c->next];
        t->rcpts_len = 1;
        t->pieces[0] = (struct smtp_piece){body, MESSAGE_BYTES};
        smtp_client_submit(c->client, t);
        c->next = 1 - c->next;
    }
    if (smtp_client_output(c->client, iov, 16) != 0)
        smtp_client_sent(c->client);
}

size_t smtp_case_client_data(void)
{
    static struct pool outputs;
    static const struct smtp_client_options options = {.ehlo_name = "client.example.org",
                                                       .outputs = &outputs};
    static struct client_case c;

    if (c.client == NULL) {
        body_fill(MESSAGE_BYTES);
        pool_init(&outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, 1);
        c.client = smtp_client_new(&options);
        client_say(&c, "220 mx\r\n");
        client_say(&c, "250-mx.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n");
        client_say(&c, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n");
    }
    client_say(&c, "250 2.0.0 Ok: queued as 4XkQ1s0V0pz9sR\r\n250 2.0.0 Ok\r\n"
                   "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n");
    return 1;
}

size_t smtp_case_client_bdat(void)
{
    static struct pool outputs;
    static const struct smtp_client_options options = {.ehlo_name = "client.example.org",
                                                       .pipeline_max = 2,
                                                       .pipeline_bytes_max = 1 << 20,
                                                       .outputs = &outputs};
    static struct client_case c;

    if (c.client == NULL) {
        body_fill(MESSAGE_BYTES);
        pool_init(&outputs, "output", SMTP_CLIENT_OUTPUT_BYTES, 1);
        c.client = smtp_client_new(&options);
        client_say(&c, "220 mx\r\n");
        client_say(&c, "250-mx.example.net\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE\r\n");
        client_say(&c, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued\r\n");
    }
    client_say(&c, "250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
                   "250 2.0.0 Ok: queued as 4XkQ1s0V0pz9sR\r\n");
    return 1;
}

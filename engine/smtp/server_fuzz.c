/* The server machine: any bytes in any pieces. The same replies whatever the pieces; what is taken
 * for a message is well-formed. First byte: size of the pieces; second: what is offered; third:
 * seed of the engine's answers. */
#include <stdlib.h>

#include "base/assert.h"
#include "smtp/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct session {
    struct smtp_server server;
    struct buf out, body;
    uint32_t chance;
};

static const char *answer(struct session *s)
{
    s->chance = s->chance * 1103515245 + 12345;
    switch (s->chance >> 16 & 15) {
    case 0:
        return "451 4.3.0 later";
    case 1:
        return "550 5.1.1 no";
    default:
        return NULL;
    }
}

static void check_message(struct session *s)
{
    const uint8_t *b = s->body.data;

    ASSERT(s->server.rcpts > 0 && s->body.len == s->server.body_bytes);
    ASSERT(s->body.len <= s->server.options->message_bytes_max);
    for (size_t i = 0; i < s->body.len; i++) {
        ASSERT(b[i] != 0);
        ASSERT(b[i] != '\n' || (i > 0 && b[i - 1] == '\r'));
        ASSERT(b[i] != '\r' || (i + 1 < s->body.len && b[i + 1] == '\n'));
    }
    buf_clear(&s->body);
}

static void check_login(const struct smtp_login *login)
{
    const struct str texts[] = {login->authzid, login->user, login->password};

    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        ASSERT(texts[i].len < 512 && str_find(texts[i], '\0') < 0 && (i == 0 || texts[i].len > 0));
}

static bool feed(struct session *s, const uint8_t *bytes, size_t len)
{
    struct smtp_server_input in = {bytes, len};
    const char *reply;

    for (;;) {
        enum smtp_server_want want = smtp_server_step(&s->server, &in, &s->out);

        switch (want) {
        case SMTP_SERVER_INPUT:
            ASSERT(in.len == 0);
            return true;
        case SMTP_SERVER_CLOSE:
            return false;
        case SMTP_SERVER_BODY:
            ASSERT(s->server.body.len > 0);
            buf_put_str(&s->body, s->server.body);
            break;
        case SMTP_SERVER_ABORT:
            buf_clear(&s->body);
            break;
        case SMTP_SERVER_MESSAGE:
            check_message(s);
            smtp_server_answer(&s->server, &s->out, answer(s));
            break;
        case SMTP_SERVER_TLS: /* what follows counts as encrypted */
            reply = answer(s);
            smtp_server_answer(&s->server, &s->out, reply);
            if (reply == NULL)
                smtp_server_encrypted(&s->server);
            break;
        case SMTP_SERVER_AUTH:
            check_login(&s->server.login);
            smtp_server_answer(&s->server, &s->out, answer(s));
            break;
        case SMTP_SERVER_XCLIENT:
            reply = answer(s);
            smtp_server_answer(&s->server, &s->out, reply);
            if (reply == NULL)
                smtp_server_greet(&s->server, &s->out, NULL);
            break;
        case SMTP_SERVER_HELO:
        case SMTP_SERVER_MAIL:
        case SMTP_SERVER_RCPT:
        case SMTP_SERVER_DATA:
            if (want == SMTP_SERVER_MAIL)
                buf_clear(&s->body);
            smtp_server_answer(&s->server, &s->out, answer(s));
            break;
        }
    }
}

static void run(struct session *s, const struct smtp_server_options *options, uint8_t seed,
                const uint8_t *bytes, size_t len, size_t piece)
{
    *s = (struct session){.chance = seed};
    smtp_server_init(&s->server, options);
    smtp_server_greet(&s->server, &s->out, NULL);
    for (size_t at = 0; at < len; at += piece) {
        if (!feed(s, bytes + at, len - at < piece ? len - at : piece))
            break;
    }
}

static void done(struct session *s)
{
    smtp_server_done(&s->server);
    buf_done(&s->out);
    buf_done(&s->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct smtp_server_options options = {
        .host_name = "mx",
        .message_bytes_max = 200,
        .recipients_max = 3,
        .line_bytes_max = 300,
        .body_line_bytes_max = 100,
        .errors_max = 20,
        .commands_max = 20,
        .messages_max = 5,
    };
    struct session whole, pieces;

    if (size < 3)
        return 0;
    options.no_chunking = (data[1] & 1) != 0;
    options.no_smtputf8 = (data[1] & 2) != 0;
    options.no_dsn = (data[1] & 4) != 0;
    options.no_enhanced = (data[1] & 8) != 0;
    options.lmtp = (data[1] & 16) != 0;
    options.trusted = (data[1] & 32) != 0;
    options.repair_newlines = (data[1] & 64) != 0;
    options.starttls = (data[1] & 128) != 0;
    options.tls_required = options.starttls && (data[2] & 1) != 0;
    options.auth = (data[2] & 2) != 0 ? SMTP_AUTH_PLAIN | SMTP_AUTH_LOGIN : 0;
    options.auth_required = options.auth != 0 && (data[2] & 4) != 0;
    options.auth_without_tls = (data[2] & 8) != 0;
    options.xclient = (data[2] & 16) != 0;
    run(&whole, &options, data[2], data + 3, size - 3, size);
    run(&pieces, &options, data[2], data + 3, size - 3, (size_t)data[0] + 1);
    ASSERT(str_eq(buf_str(&whole.out), buf_str(&pieces.out)));
    ASSERT(whole.server.messages == pieces.server.messages);
    done(&whole);
    done(&pieces);
    return 0;
}

/* AUTH in the client (RFC 4954): PLAIN and LOGIN with the credentials of the session's options, to
 * a server that the caller trusts with them. */
#include "base/base64.h"
#include "smtp/client_private.h"

/* What follows a challenge; empty where there is nothing more to say. */
typedef void response_fn(const struct smtp_client *c, struct buf *out);

static response_fn plain, login_user, login_password;

static const struct mechanism {
    uint32_t bit;
    const char *command;
    response_fn *steps[2]; /* the responses, in their order */
    bool initial;          /* the first goes with the command */
} mechanisms[] = {
    /* Once more for a server that does not read what comes with the command. */
    {SMTP_AUTH_PLAIN, "AUTH PLAIN", {plain, plain}, true},
    {SMTP_AUTH_LOGIN, "AUTH LOGIN", {login_user, login_password}, false},
};

static void plain(const struct smtp_client *c, struct buf *out)
{
    buf_putc(out, '\0');
    buf_puts(out, c->options->auth_user);
    buf_putc(out, '\0');
    buf_puts(out, c->options->auth_password);
}

static void login_user(const struct smtp_client *c, struct buf *out)
{
    buf_puts(out, c->options->auth_user);
}

static void login_password(const struct smtp_client *c, struct buf *out)
{
    buf_puts(out, c->options->auth_password);
}

static const struct mechanism *mechanism_for(const struct smtp_client *c)
{
    for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++)
        if ((c->peer.auth & mechanisms[i].bit) != 0)
            return &mechanisms[i];
    return NULL;
}

bool client_auth_wanted(const struct smtp_client *c)
{
    return c->options->auth_user != NULL && !c->authenticated;
}

const char *client_auth_refusal(const struct smtp_client *c)
{
    if (!c->trusted)
        return "the password is not sent: the connection is not encrypted and verified";
    return mechanism_for(c) == NULL
               ? "the password is not sent: the peer offers neither AUTH PLAIN nor LOGIN"
               : NULL;
}

void client_auth_begin(struct smtp_client *c)
{
    c->session = SESSION_AUTH;
    c->command_out = false;
}

static void put_wiped(struct smtp_client *c, struct buf *bytes)
{
    struct buf text = {0};

    ASSERT(buf_reserve(&text, bytes->len / 3 * 4 + 4) == 0);
    base64_put(&text, buf_str(bytes));
    ASSERT(text.len <= SMTP_CLIENT_AUTH_BYTES_MAX);
    client_put(c, buf_str(&text));
    explicit_bzero(text.data, text.cap);
    buf_done(&text);
}

static void put_response(struct smtp_client *c, response_fn *step)
{
    struct buf bytes = {0};

    /* All at once: a buffer that grew would leave copies behind. */
    ASSERT(buf_reserve(&bytes, SMTP_CLIENT_AUTH_BYTES_MAX) == 0);
    step(c, &bytes);
    put_wiped(c, &bytes);
    explicit_bzero(bytes.data, bytes.cap);
    buf_done(&bytes);
}

void client_auth_send(struct smtp_client *c)
{
    const struct mechanism *m = mechanism_for(c);

    ASSERT(m != NULL && c->trusted);
    if (!c->auth_begun)
        client_put(c, str_of(m->command));
    if (!c->auth_begun && m->initial)
        client_put(c, STR(" "));
    if (c->auth_begun || m->initial)
        put_response(c, m->steps[c->auth_step++]);
    client_put(c, STR("\r\n"));
    c->auth_begun = c->secret_out = true;
    client_expect(c, NULL, SMTP_STAGE_AUTH);
    c->command_out = true;
}

bool client_auth_goes_on(struct smtp_client *c)
{
    const struct mechanism *m = mechanism_for(c);

    if (m == NULL || c->auth_step >= ARRAY_LEN(m->steps))
        return false;
    c->command_out = false;
    return true;
}

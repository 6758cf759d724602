/* AUTH in the client (RFC 4954) with the credentials of the session's options, to a server that the
 * caller trusts with them. */
#include "base/base64.h"
#include "smtp/client_private.h"

#define STEPS_MAX 3

/* What follows a challenge; empty where there is nothing more to say. */
typedef void response_fn(const struct smtp_client *c, struct buf *out);

static response_fn plain, login_user, login_password, asked;

/* In the order in which they are tried where it is proved with whom the session is. */
static const struct client_mechanism {
    enum smtp_auth bit;
    const char *command;
    response_fn *steps[STEPS_MAX]; /* the responses, in their order; asked: the caller's */
    uint8_t steps_len;
    bool initial; /* the first goes with the command */
    bool hides;   /* the password is not shown to the server */
    bool mutual;  /* the server proves itself too, with its last challenge */
} mechanisms[] = {
    {SMTP_AUTH_SCRAM_PLUS, "AUTH SCRAM-SHA-256-PLUS", {asked, asked, asked}, 3, true, true, true},
    {SMTP_AUTH_SCRAM, "AUTH SCRAM-SHA-256", {asked, asked, asked}, 3, true, true, true},
    /* Once more for a server that does not read what comes with the command. */
    {SMTP_AUTH_PLAIN, "AUTH PLAIN", {plain, plain}, 2, true, false, false},
    {SMTP_AUTH_LOGIN, "AUTH LOGIN", {login_user, login_password}, 2, false, false, false},
    /* Last, since servers that have hashes of passwords offer it in vain. */
    {SMTP_AUTH_CRAM_MD5, "AUTH CRAM-MD5", {asked}, 1, false, true, false},
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

static void asked(const struct smtp_client *c, struct buf *out)
{
    buf_put_str(out, buf_str(&c->auth_text));
}

static const struct client_mechanism *first_of(const struct smtp_client *c, bool hiding)
{
    uint32_t may = c->peer.auth & ~c->auth_refused & ~c->options->auth_not;

    if (!c->binds)
        may &= ~(uint32_t)SMTP_AUTH_SCRAM_PLUS;
    for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++)
        if ((may & mechanisms[i].bit) != 0 && (mechanisms[i].hides || !hiding))
            return &mechanisms[i];
    return NULL;
}

static const struct client_mechanism *mechanism_for(const struct smtp_client *c)
{
    const struct client_mechanism *hiding = c->trust_proved ? NULL : first_of(c, true);

    return hiding != NULL ? hiding : first_of(c, false);
}

bool client_auth_wanted(const struct smtp_client *c)
{
    return c->options->auth_user != NULL && !c->authenticated;
}

const char *client_auth_refusal(const struct smtp_client *c)
{
    if (!c->trusted)
        return "the password is not sent: the connection is not encrypted and verified";
    return mechanism_for(c) == NULL ? "the password is not sent: the peer offers neither AUTH "
                                      "SCRAM-SHA-256, PLAIN, LOGIN nor CRAM-MD5"
                                    : NULL;
}

/* The next step is to be sent, or first to be computed by the caller. */
static void prepare(struct smtp_client *c)
{
    bool says = c->auth_begun || c->auth->initial;

    ASSERT(c->auth_step < c->auth->steps_len);
    c->command_out = false;
    c->auth_waits = c->auth_unsaid = says && c->auth->steps[c->auth_step] == asked;
}

void client_auth_begin(struct smtp_client *c)
{
    client_set_session(c, SESSION_AUTH);
    c->auth = mechanism_for(c);
    ASSERT(c->trusted && c->auth != NULL && !c->authenticated);
    c->auth_begun = false;
    c->auth_step = 0;
    buf_wipe(&c->auth_text);
    prepare(c);
}

void client_auth_event(struct smtp_client *c, struct smtp_event *event)
{
    ASSERT(c->auth_waits);
    *event =
        (struct smtp_event){.kind = SMTP_EVENT_AUTH,
                            .mechanism = c->auth->bit,
                            .step = c->auth_step,
                            .would_bind = c->binds && (c->peer.auth & SMTP_AUTH_SCRAM_PLUS) == 0,
                            .challenge = buf_str(&c->auth_text),
                            .reply = &c->parser.reply};
    c->auth_unsaid = false;
}

void smtp_client_auth_respond(struct smtp_client *c, struct str response)
{
    struct buf text = {0};

    ASSERT(c->session == SESSION_AUTH && c->auth_waits && !c->auth_unsaid);
    buf_put_secret(&text, response.ptr, response.len);
    buf_wipe(&c->auth_text);
    c->auth_text = text;
    c->auth_waits = false;
}

void smtp_client_auth_refuse(struct smtp_client *c, const char *why)
{
    ASSERT(c->session == SESSION_AUTH && c->auth_waits);
    client_own_refusal(c, SMTP_STAGE_AUTH, 451, (struct smtp_enhanced){4, 7, 0}, why);
}

static void put_wiped(struct smtp_client *c, struct buf *bytes)
{
    struct buf text = {0};

    buf_room(&text, bytes->len / 3 * 4 + 4);
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
    buf_room(&bytes, SMTP_CLIENT_AUTH_BYTES_MAX);
    step(c, &bytes);
    put_wiped(c, &bytes);
    explicit_bzero(bytes.data, bytes.cap);
    buf_done(&bytes);
}

void client_auth_send(struct smtp_client *c)
{
    const struct client_mechanism *m = c->auth;

    ASSERT(c->trusted && !c->auth_waits && c->auth_step < m->steps_len);
    if (!c->auth_begun)
        client_put(c, str_of(m->command));
    if (!c->auth_begun && m->initial)
        client_put(c, STR(" "));
    if (c->auth_begun || m->initial)
        put_response(c, m->steps[c->auth_step++]);
    client_put(c, STR("\r\n"));
    buf_wipe(&c->auth_text);
    c->auth_begun = c->secret_out = true;
    client_expect(c, NULL, SMTP_STAGE_AUTH);
    c->command_out = true;
}

static void take_challenge(struct smtp_client *c, const struct smtp_reply *reply)
{
    const struct client_mechanism *m = c->auth;

    ASSERT(m->steps_len <= STEPS_MAX && c->auth_step <= m->steps_len);
    if (c->auth_step == m->steps_len)
        client_protocol_error(c, "a challenge too many in AUTH");
    else if (m->steps[c->auth_step] == asked &&
             base64_decode(&c->auth_text, str_trim((struct str){reply->text, reply->text_len})) < 0)
        client_protocol_error(c, "a challenge in AUTH that is not base64");
    else
        prepare(c);
}

/* Whether another mechanism is tried. Not where somebody else may have refused this one, to be
 * shown the password by the next. Where it was shown already, only behind 504, by which a server
 * says that it has not the mechanism, although it offers it (RFC 4954 4). */
static bool try_next(struct smtp_client *c, unsigned code)
{
    if (!c->trust_proved || (!c->auth->hides && code != 504))
        return false;
    c->auth_refused |= c->auth->bit;
    if (c->auth->bit == SMTP_AUTH_SCRAM_PLUS) /* the keys are the same */
        c->auth_refused |= SMTP_AUTH_SCRAM;
    if (mechanism_for(c) == NULL)
        return false;
    client_auth_begin(c);
    return true;
}

void client_auth_reply(struct smtp_client *c, const struct smtp_reply *reply)
{
    unsigned class = reply->code / 100u;

    ASSERT(c->auth_begun && !c->auth_waits);
    if (class == 3) {
        take_challenge(c, reply);
    } else if (class == 2 && c->auth->mutual && c->auth_step < c->auth->steps_len) {
        client_own_refusal(c, SMTP_STAGE_AUTH, 451, (struct smtp_enhanced){4, 7, 0},
                           "the server has not proved that it knows the password");
    } else if (class == 2) {
        c->authenticated = true;
        client_be_ready(c);
    } else if (class != 5 || !try_next(c, reply->code)) {
        client_start_close(c, SMTP_STAGE_AUTH, reply);
    }
}

void client_auth_done(struct smtp_client *c)
{
    buf_wipe(&c->auth_text);
}

/* AUTH in the server (RFC 4954): the exchange of lines, and what the mechanisms make of it. Who the
 * user is, the caller says. */
#include "base/base64.h"
#include "smtp/server_command.h"

#define USER_BYTES_MAX     255
#define PASSWORD_BYTES_MAX 511 /* of all mechanisms, and what crypt(3) takes */

/* What the client has sent is in s->secret. Returns what follows: input for another line (the
 * challenge is written), the question, or input behind a refusal. */
typedef enum smtp_server_want response_fn(struct smtp_server *s, struct buf *out);

static response_fn on_plain, on_login_user, on_login_password, on_scram, on_external;

static const struct mechanism {
    struct str name;
    enum smtp_auth bit;
    struct str challenge; /* the first, to a client that has not begun */
    response_fn *on_response;
} mechanisms[] = {
    {{"EXTERNAL", 8}, SMTP_AUTH_EXTERNAL, {"334 ", 4}, on_external},
    {{"SCRAM-SHA-256-PLUS", 18}, SMTP_AUTH_SCRAM_PLUS, {"334 ", 4}, on_scram},
    {{"SCRAM-SHA-256", 13}, SMTP_AUTH_SCRAM, {"334 ", 4}, on_scram},
    {{"PLAIN", 5}, SMTP_AUTH_PLAIN, {"334 ", 4}, on_plain},
    {{"LOGIN", 5}, SMTP_AUTH_LOGIN, {"334 VXNlcm5hbWU6", 16}, on_login_user},
};

uint32_t server_auth_offered(const struct smtp_server *s)
{
    return s->tls || s->options->auth_without_tls ? s->options->auth : 0;
}

void server_auth_put_offer(const struct smtp_server *s, struct buf *out)
{
    buf_puts(out, "250-AUTH");
    for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++) {
        if ((server_auth_offered(s) & mechanisms[i].bit) == 0)
            continue;
        buf_putc(out, ' ');
        buf_put_str(out, mechanisms[i].name);
    }
    buf_put(out, "\r\n", 2);
}

void server_auth_end(struct smtp_server *s)
{
    if (s->mode == MODE_AUTH)
        s->mode = MODE_COMMAND;
    if (s->secret.data == NULL && s->login.mechanism == 0)
        return;
    if (s->line.data != NULL) /* AUTH itself, or a line of the exchange, that came in pieces */
        explicit_bzero(s->line.data, s->line.cap);
    buf_wipe(&s->secret);
    s->secret_first = 0;
    s->auth_goes_on = false;
    s->login = (struct smtp_login){0};
}

static enum smtp_server_want end_with(struct smtp_server *s, struct buf *out, const char *text)
{
    server_auth_end(s);
    server_refuse(s, out, text);
    return SMTP_SERVER_INPUT;
}

/* --- mechanisms --- */

static bool has_nul(struct str s)
{
    return str_find(s, '\0') >= 0;
}

static enum smtp_server_want ask(struct smtp_server *s, struct buf *out, struct str authzid,
                                 struct str user, struct str password)
{
    if (user.len == 0 || user.len > USER_BYTES_MAX || authzid.len > USER_BYTES_MAX ||
        password.len == 0 || password.len > PASSWORD_BYTES_MAX || has_nul(authzid) ||
        has_nul(user) || has_nul(password))
        return end_with(s, out, "501 5.5.2 not a user and a password of usual lengths");
    s->login.authzid = authzid;
    s->login.user = user;
    s->login.password = password;
    return SMTP_SERVER_AUTH;
}

/* RFC 4616: authzid NUL user NUL password. */
static enum smtp_server_want on_plain(struct smtp_server *s, struct buf *out)
{
    struct str all = buf_str(&s->secret), rest;
    ptrdiff_t first = str_find(all, '\0'), second;

    if (first < 0)
        return end_with(s, out, "501 5.5.2 not a response of PLAIN");
    rest = (struct str){all.ptr + first + 1, all.len - (size_t)first - 1};
    second = str_find(rest, '\0');
    if (second < 0)
        return end_with(s, out, "501 5.5.2 not a response of PLAIN");
    return ask(s, out, (struct str){all.ptr, (size_t)first}, (struct str){rest.ptr, (size_t)second},
               (struct str){rest.ptr + second + 1, rest.len - (size_t)second - 1});
}

static enum smtp_server_want on_login_user(struct smtp_server *s, struct buf *out)
{
    if (s->secret.len == 0)
        return end_with(s, out, "501 5.5.2 no user");
    s->secret_first = s->secret.len;
    server_reply(s, out, STR("334 UGFzc3dvcmQ6"));
    return SMTP_SERVER_INPUT;
}

static enum smtp_server_want on_login_password(struct smtp_server *s, struct buf *out)
{
    struct str all = buf_str(&s->secret);

    ASSERT(s->secret_first > 0 && s->secret_first <= all.len);
    return ask(s, out, STR(""), (struct str){all.ptr, s->secret_first},
               (struct str){all.ptr + s->secret_first, all.len - s->secret_first});
}

static enum smtp_server_want on_scram(struct smtp_server *s, struct buf *out)
{
    (void)out;
    s->login.response = buf_str(&s->secret);
    s->login.begins = !s->auth_goes_on;
    return SMTP_SERVER_AUTH;
}

/* The one response is whom to act as, mostly empty. */
static enum smtp_server_want on_external(struct smtp_server *s, struct buf *out)
{
    struct str authzid = buf_str(&s->secret);

    if (authzid.len > USER_BYTES_MAX || has_nul(authzid))
        return end_with(s, out, "501 5.5.2 not a user of usual length");
    s->login.authzid = authzid;
    return SMTP_SERVER_AUTH;
}

void server_auth_challenge(struct smtp_server *s, struct buf *out, struct str bytes)
{
    ASSERT(s->secret.data != NULL); /* what the client said, and the caller answers */
    explicit_bzero(s->secret.data, s->secret.cap);
    buf_clear(&s->secret);
    s->auth_goes_on = true;
    buf_puts(out, "334 ");
    base64_put(out, bytes);
    buf_put(out, "\r\n", 2);
}

static const struct mechanism *mechanism_at_hand(const struct smtp_server *s)
{
    for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++)
        if (mechanisms[i].bit == s->login.mechanism)
            return &mechanisms[i];
    ASSERT(false);
}

static enum smtp_server_want respond(struct smtp_server *s, struct str text, struct buf *out)
{
    const struct mechanism *m = mechanism_at_hand(s);

    ASSERT(s->mode == MODE_AUTH && !s->authenticated);
    /* All at once: a buffer that grew would leave copies behind. */
    if (s->secret.data == NULL)
        buf_room(&s->secret, 2 * SERVER_AUTH_LINE_BYTES_MAX);
    if (text.len > SERVER_AUTH_LINE_BYTES_MAX)
        return end_with(s, out, "500 5.5.6 line too long");
    if (base64_decode(&s->secret, text) < 0)
        return end_with(s, out, "501 5.5.2 not base64");
    return s->secret_first != 0 ? on_login_password(s, out) : m->on_response(s, out);
}

/* --- the exchange --- */

enum smtp_server_want server_auth_line(struct smtp_server *s, struct str line, struct buf *out)
{
    return str_eq(line, STR("*")) ? end_with(s, out, "501 5.7.0 authentication cancelled")
                                  : respond(s, line, out);
}

/* Why AUTH cannot begin, or NULL. */
static const char *refusal(const struct smtp_server *s)
{
    if (s->state == SERVER_NEW || !s->esmtp)
        return "503 5.5.1 send EHLO first";
    if (s->authenticated)
        return "503 5.5.1 you are authenticated already";
    if (s->state != SERVER_READY)
        return "503 5.5.1 a transaction is open";
    return server_auth_offered(s) == 0 ? "538 5.7.11 encryption is needed first: send STARTTLS"
                                       : NULL;
}

enum smtp_server_want server_auth(struct smtp_server *s, struct str args, struct buf *out)
{
    ptrdiff_t space = str_find(args, ' ');
    struct str name = {args.ptr, space < 0 ? args.len : (size_t)space};
    struct str initial = str_trim((struct str){args.ptr + name.len, args.len - name.len});
    const struct mechanism *m = NULL;
    const char *text = refusal(s);

    if (text != NULL)
        return end_with(s, out, text);
    for (size_t i = 0; i < ARRAY_LEN(mechanisms); i++)
        if (str_eq_nocase(name, mechanisms[i].name) &&
            (server_auth_offered(s) & mechanisms[i].bit) != 0)
            m = &mechanisms[i];
    if (m == NULL)
        return end_with(s, out, "504 5.5.4 no such mechanism is offered");
    s->login.mechanism = m->bit;
    s->mode = MODE_AUTH;
    if (initial.len != 0) /* "=" stands for an empty one */
        return respond(s, str_eq(initial, STR("=")) ? STR("") : initial, out);
    server_reply(s, out, m->challenge);
    return SMTP_SERVER_INPUT;
}

/* What a session in says and hears, for those who watch it (worker/dialogues.h). What the client
 * says is shown as far as it was understood, so that no content and no password can be in it:
 * nothing is shown of a line that is no command. */
#include <stdio.h>

#include "intake/inject_message.h"
#include "worker/shared.h"

static void line_put(const struct inject *s, bool from_us, struct str text)
{
    const struct dialogue_session who = {
        .id = s->id, .client = (const struct sockaddr *)&s->peer, .peer = s->peer_text};

    dialogues_put(&s->worker->shared->dialogues, &who, worker_wall_ms(s->worker), from_us, text);
}

/* Of a challenge only that there was one: whoever has SCRAM's challenges can try passwords on them.
 */
void inject_watched_said(const struct inject *s)
{
    struct str rest = buf_str(&s->sending);
    struct buf text = {0};

    if (!dialogues_watched(&s->worker->shared->dialogues))
        return;
    while (rest.len > 0) {
        struct str line = str_take(&rest, '\n');

        buf_put_str(&text, str_starts_nocase(line, STR("334 ")) ? STR("334 [login]\r") : line);
        buf_putc(&text, '\n');
    }
    line_put(s, true, buf_str(&text));
    buf_done(&text);
}

/* Commands that the machine refuses by itself. Where it refuses content, or a message or recipient
 * that is one too many, the command has been shown already. */
void inject_watched_refused(const struct inject *s)
{
    const struct smtp_server *server = &s->server;
    const char *command = server->command == NULL ? "[no command]" : server->command;
    bool is_login = strcmp(command, "AUTH") == 0;
    bool is_content = strcmp(command, "DATA") == 0 || strcmp(command, "BDAT") == 0;
    struct buf text = {0};

    if (!s->stepping || server->closing || (is_content && server->body_bytes > 0) ||
        !dialogues_watched(&s->worker->shared->dialogues))
        return;
    buf_puts(&text, command);
    if (is_login)
        buf_puts(&text, " [login]");
    else if (server->address.len > 0)
        buf_printf(&text, " <%.*s>", STR_FMT(server->address));
    line_put(s, false, buf_str(&text));
    buf_done(&text);
}

void inject_watched_heard(const struct inject *s, enum smtp_server_want want)
{
    const struct smtp_server *server = &s->server;
    const char *command = server->command == NULL ? "" : server->command;
    struct buf text = {0};

    if (!dialogues_watched(&s->worker->shared->dialogues))
        return;
    switch (want) {
    case SMTP_SERVER_INPUT:
    case SMTP_SERVER_BODY:
    case SMTP_SERVER_ABORT:
    case SMTP_SERVER_CLOSE:
        return;
    case SMTP_SERVER_HELO:
        buf_printf(&text, "%s %.*s", command, STR_FMT(server->helo));
        break;
    case SMTP_SERVER_MAIL:
    case SMTP_SERVER_RCPT:
        buf_printf(&text, "%s <%.*s>", command, STR_FMT(server->address));
        break;
    case SMTP_SERVER_AUTH:
        buf_puts(&text, "AUTH [login]");
        break;
    case SMTP_SERVER_MESSAGE:
        buf_printf(&text, "[%llu bytes of content]", (unsigned long long)server->body_bytes);
        break;
    case SMTP_SERVER_XCLIENT:
        buf_printf(&text, "%s ADDR=%.*s", command, STR_FMT(server->xclient.address));
        break;
    case SMTP_SERVER_TLS:
    case SMTP_SERVER_DATA:
        buf_puts(&text, command);
        break;
    }
    line_put(s, false, buf_str(&text));
    buf_done(&text);
}

#include "tools/commands/channel.h"

#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/config.h"
#include "tools/commands/commands.h"

/* The engine writes progress twice a second while it works on a request. */
#define SILENCE_S_MAX 30
#define READ_BYTES    (64 * 1024)

bool channel_option(struct channel_options *o, int c)
{
    if (c == CHANNEL_OPT_SOCKET)
        o->socket = optarg;
    else if (c == 'c')
        o->config = optarg;
    else if (c == CHANNEL_OPT_JSON)
        o->json = true;
    else
        return false;
    return true;
}

static char *default_socket(void)
{
    struct config *config = config_default();
    char *path = strdup(config->control_socket);

    config_unref(config);
    return path;
}

/* Of a file that was named. With mistakes in it the socket counts only when the file names one that
 * is not the usual: else an engine could be found that was not meant. */
static char *socket_of_file(const char *file, struct buf *errors)
{
    struct config *config;
    struct buf again = {0};
    char *path, *usual;

    if (config_load_file(file, &config, errors) == 0) {
        path = strdup(config->control_socket);
        config_unref(config);
        return path;
    }
    path = config_control_socket(file, &again);
    buf_done(&again);
    usual = default_socket();
    if (path != NULL && strcmp(path, usual) == 0) {
        free(path);
        path = NULL;
    }
    free(usual);
    return path;
}

/* Of the usual file. Where it is no YAML any more, the running engine was most likely started with
 * the usual socket. */
static char *socket_of_usual_file(void)
{
    struct buf errors = {0};
    char *path = NULL;

    if (access(CONFIG_FILE, R_OK) == 0)
        path = config_control_socket(CONFIG_FILE, &errors);
    fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&errors);
    return path != NULL ? path : default_socket();
}

/* Where the engine listens: --socket, that of --config, $HAYAUMA_SOCKET, the usual file's, the
 * default. NULL with the error printed. */
static char *socket_path(const struct channel_options *o)
{
    const char *env = getenv("HAYAUMA_SOCKET");
    struct buf errors = {0};
    char *path;

    if (o->socket != NULL)
        return strdup(o->socket);
    if (o->config == NULL)
        return env != NULL && *env != 0 ? strdup(env) : socket_of_usual_file();
    path = socket_of_file(o->config, &errors);
    if (path == NULL) {
        fprintf(stderr, "%.*s", STR_FMT(buf_str(&errors)));
        fprintf(stderr, "hayauma %s: the control socket is not known; use --socket\n", o->command);
    }
    buf_done(&errors);
    return path;
}

static int unreachable(const struct channel *ch, int err)
{
    const char *command = ch->options->command;

    if (ch->quiet)
        return EXIT_UNREACHABLE;
    if (err == EACCES || err == EPERM)
        fprintf(stderr,
                "hayauma %s: no permission for the engine's socket %s: "
                "run this as the engine's user or as root\n",
                command, ch->path);
    else if (err == ENOENT || err == ECONNREFUSED)
        fprintf(stderr,
                "hayauma %s: cannot reach the engine at %s: is 'hayauma serve' running? "
                "--socket or --config says where else to look\n",
                command, ch->path);
    else
        fprintf(stderr, "hayauma %s: cannot reach the engine at %s: %s\n", command, ch->path,
                strerror(err));
    return EXIT_UNREACHABLE;
}

static int connect_to_path(struct channel *ch)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_sec = SILENCE_S_MAX};

    if (strlen(ch->path) >= sizeof(address.sun_path))
        return unreachable(ch, ENAMETOOLONG);
    strcpy(address.sun_path, ch->path);
    ch->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ch->fd < 0 || connect(ch->fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return unreachable(ch, errno);
    (void)setsockopt(ch->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    (void)setsockopt(ch->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    return 0;
}

int channel_open(struct channel *ch, const struct channel_options *options)
{
    *ch = (struct channel){.options = options, .fd = -1, .path = socket_path(options)};
    return ch->path == NULL ? EXIT_USAGE : connect_to_path(ch);
}

int channel_reopen(struct channel *ch)
{
    if (ch->fd >= 0)
        close(ch->fd);
    ch->fd = -1;
    buf_clear(&ch->in);
    ch->in_at = 0;
    return connect_to_path(ch);
}

void channel_close(struct channel *ch)
{
    if (ch->fd >= 0)
        close(ch->fd);
    ch->fd = -1;
    free(ch->path);
    ch->path = NULL;
    buf_done(&ch->in);
}

static int went_away(const struct channel *ch, int err)
{
    if (ch->quiet)
        return EXIT_UNREACHABLE;
    if (err == EAGAIN)
        fprintf(stderr, "hayauma %s: the engine at %s has not answered for %d seconds\n",
                ch->options->command, ch->path, SILENCE_S_MAX);
    else
        fprintf(stderr, "hayauma %s: the engine at %s closed the connection%s%s\n",
                ch->options->command, ch->path, err == 0 ? "" : ": ",
                err == 0 ? "" : strerror(err));
    return EXIT_UNREACHABLE;
}

int channel_send_text(struct channel *ch, struct buf *text)
{
    size_t sent = 0;
    int code = 0;

    buf_putc(text, '\n');
    while (sent < text->len && code == 0) {
        ssize_t n = send(ch->fd, text->data + sent, text->len - sent, MSG_NOSIGNAL);

        if (n > 0)
            sent += (size_t)n;
        else if (n < 0 && errno != EINTR)
            code = went_away(ch, errno == EPIPE ? 0 : errno);
    }
    return code;
}

int channel_send(struct channel *ch, json_t *request)
{
    char *json = json_dumps(request, JSON_COMPACT);
    struct buf text = {0};
    int code;

    json_decref(request);
    ASSERT(json != NULL);
    buf_puts(&text, json);
    free(json);
    code = channel_send_text(ch, &text);
    buf_done(&text);
    return code;
}

int channel_begin(struct channel *ch, const struct channel_options *options, json_t *request)
{
    int code = channel_open(ch, options);

    if (code == 0)
        return channel_send(ch, request);
    json_decref(request);
    return code;
}

/* The next line without its end; false with *code set. */
static bool read_line(struct channel *ch, struct str *line, int *code)
{
    size_t searched = ch->in_at;

    for (;;) {
        struct str rest = {(const char *)ch->in.data + searched, ch->in.len - searched};
        ptrdiff_t end = rest.len == 0 ? -1 : str_find(rest, '\n');
        ssize_t n;

        if (end >= 0) {
            *line = (struct str){(const char *)ch->in.data + ch->in_at,
                                 searched + (size_t)end - ch->in_at};
            ch->in_at = searched + (size_t)end + 1;
            return true;
        }
        if (ch->in_at != 0) {
            buf_consume(&ch->in, ch->in_at);
            ch->in_at = 0;
        }
        searched = ch->in.len;
        if (buf_reserve(&ch->in, READ_BYTES) != 0) {
            *code = went_away(ch, ENOMEM);
            return false;
        }
        n = recv(ch->fd, ch->in.data + ch->in.len, READ_BYTES, 0);
        if (n > 0) {
            ch->in.len += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            *code = went_away(ch, n == 0 || errno == ECONNRESET ? 0 : errno);
            return false;
        }
    }
}

static int print_error(const struct channel *ch, const json_t *error)
{
    const char *hint = reply_text(error, "hint");

    fprintf(stderr, "hayauma %s: %s%s%s\n", ch->options->command, reply_text(error, "message"),
            *hint == 0 ? "" : "; ", hint);
    return strcmp(reply_text(error, "code"), "bad_request") == 0 ? EXIT_USAGE : EXIT_FAILED;
}

json_t *channel_next(struct channel *ch, json_t **last, int *code)
{
    json_error_t error;
    struct str line;
    json_t *reply;

    if (!read_line(ch, &line, code))
        return NULL;
    reply = json_loadb(line.ptr, line.len, 0, &error);
    if (reply == NULL) {
        fprintf(stderr, "hayauma %s: the engine's reply is not understood: %s\n",
                ch->options->command, error.text);
        *code = EXIT_FAILED;
        return NULL;
    }
    if (json_object_get(reply, "error") != NULL) {
        *code = print_error(ch, json_object_get(reply, "error"));
        json_decref(reply);
        return NULL;
    }
    if (json_object_get(reply, "done") == NULL)
        return reply;
    *code = 0;
    if (last != NULL)
        *last = reply;
    else
        json_decref(reply);
    return NULL;
}

int channel_end(struct channel *ch, json_t **last)
{
    json_t *reply;
    int code;

    while ((reply = channel_next(ch, last, &code)) != NULL)
        json_decref(reply);
    return code;
}

int channel_ask(struct channel *ch, json_t *request, json_t **last)
{
    int code = channel_send(ch, request);

    return code != 0 ? code : channel_end(ch, last);
}

/* The engine closes its clients before its queue: it has gone when its process has. */
void channel_wait_closed(struct channel *ch)
{
    struct timeval never = {0};
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    struct pollfd process = {.fd = -1, .events = POLLIN};
    char byte;

    if (getsockopt(ch->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0)
        process.fd = pidfd_open(peer.pid, 0);
    (void)setsockopt(ch->fd, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never));
    while (recv(ch->fd, &byte, 1, 0) > 0 || errno == EINTR)
        errno = 0;
    if (process.fd < 0)
        return;
    while (poll(&process, 1, -1) < 0 && errno == EINTR) {
    }
    close(process.fd);
}

const char *reply_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text == NULL ? "" : text;
}

long long reply_number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

void reply_print(const json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT);
    putchar('\n');
}

const char *channel_user(void)
{
    const char *sudo = getenv("SUDO_USER");
    const struct passwd *user = sudo != NULL && *sudo != '\0' ? NULL : getpwuid(getuid());

    return user != NULL ? user->pw_name : sudo != NULL ? sudo : "";
}

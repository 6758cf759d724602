/* The commands' side of the control channel (docs/control.md): a connection, requests, replies.
 * Errors are printed to stderr, with what to do. One thread; blocking. */
#ifndef HAYAUMA_TOOLS_CHANNEL_H
#define HAYAUMA_TOOLS_CHANNEL_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"

/* Options that every command of the engine takes. */
struct channel_options {
    const char *command; /* "queue list", for errors */
    const char *socket;  /* --socket */
    const char *config;  /* --config: its control_socket */
    bool json;           /* --json */
};

#define CHANNEL_OPT_SOCKET 256
#define CHANNEL_OPT_JSON   257
/* Elements for a getopt_long() table. */
#define CHANNEL_LONG_OPTIONS                                                                       \
    {"socket", required_argument, NULL, CHANNEL_OPT_SOCKET},                                       \
        {"config", required_argument, NULL, 'c'},                                                  \
    {                                                                                              \
        "json", no_argument, NULL, CHANNEL_OPT_JSON                                                \
    }
#define CHANNEL_HELP                                                                               \
    "      --socket PATH       control socket (default: the configuration's)\n"                    \
    "  -c, --config FILE       configuration file (default /etc/hayauma/hayauma.yaml)\n"           \
    "      --json              lines of JSON instead of text\n"

/* Whether c is one of the options above; then it is taken. */
bool channel_option(struct channel_options *o, int c);

struct channel {
    const struct channel_options *options;
    char *path;
    int fd;
    bool quiet; /* the caller says it when the engine does not answer */
    struct buf in;
    size_t in_at; /* consumed so far */
};

/* 0, or the exit code with the error printed. */
int channel_open(struct channel *ch, const struct channel_options *options) MUST_USE;
void channel_close(struct channel *ch);
/* Connects anew to where it was connected, for an engine that was restarted. */
int channel_reopen(struct channel *ch) MUST_USE;
/* Sends request, which is released. 0 or the exit code. */
int channel_send(struct channel *ch, json_t *request) MUST_USE;
/* The same of a request's JSON, which fits one line; text's room is used. */
int channel_send_text(struct channel *ch, struct buf *text) MUST_USE;
/* channel_open(), channel_send(). */
int channel_begin(struct channel *ch, const struct channel_options *options,
                  json_t *request) MUST_USE;
/* The next line of the reply, or NULL with *code set: 0 after the last one (*last then has it, may
 * be NULL when the caller does not want it), otherwise the exit code with the error printed. The
 * caller releases what it gets. */
json_t *channel_next(struct channel *ch, json_t **last, int *code);
/* Sends request and reads the reply to its end; lines before the last are dropped. 0 or exit code.
 */
int channel_ask(struct channel *ch, json_t *request, json_t **last) MUST_USE;

/* Returns when the engine has closed the connection and its process has ended. */
void channel_wait_closed(struct channel *ch);

/* Reads the reply to its end, as channel_ask() does. */
int channel_end(struct channel *ch, json_t **last) MUST_USE;

/* Members of a reply; a default when missing. */
const char *reply_text(const json_t *object, const char *name);
long long reply_number(const json_t *object, const char *name);
/* A reply, or a part of one, as a line of JSON. */
void reply_print(const json_t *value);

/* Who gives the command: whoever stands behind sudo; empty: nobody knows. */
const char *channel_user(void);

#endif

#include "tools/queue_export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/screen.h"

/* Decodes in place; the length. The engine's own base64: no blanks, padding at the end only. */
static size_t decode_base64(const char *text, uint8_t *out)
{
    size_t n = 0;
    uint32_t bits = 0, have = 0;

    for (; *text != 0 && *text != '='; text++) {
        char c = *text;
        uint32_t v = c >= 'a'   ? (uint32_t)(c - 'a') + 26
                     : c >= 'A' ? (uint32_t)(c - 'A')
                     : c >= '0' ? (uint32_t)(c - '0') + 52
                     : c == '+' ? 62
                                : 63;

        bits = bits << 6 | v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
        }
    }
    return n;
}

/* Our own trouble, as opposed to what the engine says of one message. */
#define WRITE_FAILED (-1)

static int write_failed(const char *what)
{
    fprintf(stderr, "hayauma queue export: %s: %s\n", what, strerror(errno));
    return WRITE_FAILED;
}

/* The content of a message into to. 0, WRITE_FAILED or an exit code, with the error printed. */
static int fetch(struct channel *ch, const char *id, FILE *to, const char *name)
{
    int code = channel_send(ch, json_pack("{s:s, s:s}", "op", "content", "id", id));
    bool failed = false;
    json_t *reply;

    if (code != 0)
        return code;
    while ((reply = channel_next(ch, NULL, &code)) != NULL) {
        const char *text = reply_text(reply, "content");
        uint8_t *bytes = malloc(strlen(text) + 1);
        size_t n = bytes == NULL ? 0 : decode_base64(text, bytes);

        failed = failed || bytes == NULL || fwrite(bytes, 1, n, to) != n;
        free(bytes);
        json_decref(reply);
    }
    if (code == 0 && (fflush(to) != 0 || failed))
        return write_failed(name);
    return code;
}

struct exporter {
    struct channel contents; /* a second connection: content travels while the list goes on */
    const char *directory;
    FILE *recipients;
    uint64_t messages, rows, lost;
};

/* 0 also when the message ended in between; that is not a failure of the export. */
static int export_message(struct exporter *e, const char *id)
{
    char *name = NULL;
    FILE *to;
    int fd, code;

    if (asprintf(&name, "%s/%s.eml", e->directory, id) < 0)
        return write_failed("memory");
    /* Once for each message, however many of its recipients match. */
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        code = errno == EEXIST ? 0 : write_failed(name);
        free(name);
        return code;
    }
    to = fdopen(fd, "w");
    code = to == NULL ? write_failed(name) : fetch(&e->contents, id, to, name);
    if (to != NULL)
        fclose(to);
    if (code == 0) {
        e->messages++;
    } else {
        unlink(name);
        e->lost++;
    }
    free(name);
    /* That the engine does not have this one (any more) is not the end of the others. */
    return code == EXIT_FAILED ? 0 : code;
}

static int export_row(struct exporter *e, const json_t *row)
{
    if (json_dumpf(row, e->recipients, JSON_COMPACT) != 0 || fputc('\n', e->recipients) == EOF)
        return write_failed("recipients.jsonl");
    e->rows++;
    return export_message(e, reply_text(row, "id"));
}

/* The directory must be new, so that what is in it afterwards is what was asked for. */
static int open_directory(struct exporter *e, const struct queue_options *o)
{
    char *name = NULL;

    e->directory = o->to;
    if (mkdir(o->to, 0700) != 0) {
        if (errno != EEXIST)
            return write_failed(o->to);
        fprintf(stderr, "hayauma queue export: %s is there already; name a new directory\n", o->to);
        return WRITE_FAILED;
    }
    if (asprintf(&name, "%s/recipients.jsonl", o->to) < 0)
        return write_failed("memory");
    e->recipients = fopen(name, "wex");
    free(name);
    return e->recipients == NULL ? write_failed(o->to) : 0;
}

static int export_all(struct channel *ch, struct exporter *e, const struct queue_options *o)
{
    int code = channel_send(ch, queue_request(o, "list"));
    int failed = 0;
    json_t *reply;

    if (code != 0)
        return code;
    while (failed == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        const json_t *row = json_object_get(reply, "row");

        if (row != NULL)
            failed = export_row(e, row);
        json_decref(reply);
    }
    if (fclose(e->recipients) != 0 && failed == 0)
        failed = write_failed("recipients.jsonl");
    return failed != 0 ? failed : code;
}

static void print_result(const struct exporter *e, const struct queue_options *o)
{
    struct buf text = {0};

    put_count(&text, e->messages);
    buf_printf(&text, " message%s and ", e->messages == 1 ? "" : "s");
    put_count(&text, e->rows);
    buf_printf(&text, " recipient%s in %s\n", e->rows == 1 ? "" : "s", o->to);
    if (e->lost != 0)
        buf_printf(&text, "%llu message%s had ended in between\n", (unsigned long long)e->lost,
                   e->lost == 1 ? "" : "s");
    flush_text(&text, stderr);
    buf_done(&text);
}

int queue_export(struct channel *ch, struct queue_options *o)
{
    struct exporter e = {0};
    int code;

    if (o->to == NULL && o->one_id != NULL) {
        code = fetch(ch, o->one_id, stdout, "stdout");
        return code == WRITE_FAILED ? EXIT_FAILED : code;
    }
    if (o->to == NULL) {
        fprintf(stderr, "hayauma queue export: say where: --to DIR, or give a message id\n");
        return EXIT_USAGE;
    }
    code = channel_open(&e.contents, &o->channel);
    if (code == 0)
        code = open_directory(&e, o);
    if (code == 0)
        code = export_all(ch, &e, o);
    if (code == 0)
        print_result(&e, o);
    channel_close(&e.contents);
    return code == WRITE_FAILED ? EXIT_FAILED : code;
}

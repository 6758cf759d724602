#include "tools/commands/queue_export.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base64.h"
#include "tools/commands/commands.h"
#include "tools/commands/screen.h"

/* Our own trouble, as opposed to what the engine says of one message. */
#define WRITE_FAILED (-1)

static int write_failed(const char *what)
{
    fprintf(stderr, "hayauma queue export: %s: %s\n", what, strerror(errno));
    return WRITE_FAILED;
}

/* The content of a message into to. 0, WRITE_FAILED or an exit code, with the error printed. */
static int fetch(struct channel *ch, const char *op, const char *id, FILE *to, const char *name)
{
    int code = channel_send(ch, json_pack("{s:s, s:s}", "op", op, "id", id));
    bool failed = false;
    json_t *reply;

    if (code != 0)
        return code;
    while ((reply = channel_next(ch, NULL, &code)) != NULL) {
        struct buf bytes = {0};

        failed = failed || base64_decode(&bytes, str_of(reply_text(reply, "content"))) < 0 ||
                 fwrite(bytes.data, 1, bytes.len, to) != bytes.len;
        buf_done(&bytes);
        json_decref(reply);
    }
    if (code == 0 && (fflush(to) != 0 || failed))
        return write_failed(name);
    return code;
}

/* What is exported: recipients with their messages, or damaged records with what is stored. */
static const struct export_kind {
    const char *op, *member;         /* one of its lines */
    const char *content_op, *suffix; /* of a message */
    const char *list, *noun;         /* the file with the lines, what each is */
    const char *counted;             /* these in JSON */
    bool bytes;                      /* lines have the record's bytes */
} recipients = {"list",      "row",        "content", "eml", "recipients.jsonl",
                "recipient", "recipients", false},
  records = {"quarantine",    "quarantined",    "stored",  "content",
             "records.jsonl", "damaged record", "records", true};

struct exporter {
    const struct export_kind *kind;
    struct channel contents; /* a second connection: content travels while the list goes on */
    const char *directory;
    FILE *list;
    uint64_t messages, rows, lost;
};

/* 0 also when the message ended in between; that is not a failure of the export. */
static int export_message(struct exporter *e, const char *id, const char *suffix)
{
    char *name = NULL;
    FILE *to;
    int fd, code;

    if (asprintf(&name, "%s/%s.%s", e->directory, id, suffix) < 0)
        return write_failed("memory");
    /* Once for each message, however many of its recipients match. */
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        code = errno == EEXIST ? 0 : write_failed(name);
        free(name);
        return code;
    }
    to = fdopen(fd, "w");
    code = to == NULL ? write_failed(name) : fetch(&e->contents, e->kind->content_op, id, to, name);
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

/* A member of the row that is bytes becomes a file of its own. */
static int export_bytes(const struct exporter *e, json_t *row, const char *member)
{
    struct buf bytes = {0};
    char *name = NULL;
    FILE *to = NULL;
    int code = 0;

    if (base64_decode(&bytes, str_of(reply_text(row, member))) == 0 &&
        asprintf(&name, "%s/%s.%s", e->directory, reply_text(row, "record"), member) >= 0)
        to = fopen(name, "wex");
    if (to == NULL || fwrite(bytes.data, 1, bytes.len, to) != bytes.len)
        code = write_failed(member);
    if (to != NULL && fclose(to) != 0 && code == 0)
        code = write_failed(member);
    json_object_del(row, member);
    buf_done(&bytes);
    free(name);
    return code;
}

/* What letters are made of is JSON, and no message. */
static const char *suffix_of(const struct exporter *e, const json_t *row)
{
    return json_is_true(json_object_get(row, "recipe")) ? "json" : e->kind->suffix;
}

static int export_row(struct exporter *e, json_t *row)
{
    int code = e->kind->bytes ? export_bytes(e, row, "key") : 0;

    if (code == 0 && e->kind->bytes)
        code = export_bytes(e, row, "value");
    if (code != 0)
        return code;
    if (json_dumpf(row, e->list, JSON_COMPACT) != 0 || fputc('\n', e->list) == EOF)
        return write_failed(e->kind->list);
    e->rows++;
    if (e->kind->bytes && json_object_get(row, "content_bytes") == NULL)
        return 0; /* nothing of a message is there */
    return export_message(e, reply_text(row, "id"), suffix_of(e, row));
}

static bool is_empty(const char *path)
{
    DIR *d = opendir(path);
    size_t n = 0;

    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        closedir(d);
    return n == 2; /* "." and ".." */
}

/* The directory must be new or empty, so that what is in it afterwards is what was asked for. */
static int open_directory(struct exporter *e, const struct queue_options *o)
{
    char *name = NULL;

    e->directory = o->to;
    umask(0077); /* an empty one may be open to others */
    if (mkdir(o->to, 0700) != 0) {
        if (errno != EEXIST)
            return write_failed(o->to);
        if (!is_empty(o->to)) {
            fprintf(stderr,
                    "hayauma queue export: %s is no empty directory; name a new or an empty one\n",
                    o->to);
            return WRITE_FAILED;
        }
    }
    if (asprintf(&name, "%s/%s", o->to, e->kind->list) < 0)
        return write_failed("memory");
    e->list = fopen(name, "wex");
    free(name);
    return e->list == NULL ? write_failed(o->to) : 0;
}

static int export_all(struct channel *ch, struct exporter *e, const struct queue_options *o)
{
    json_t *request = queue_request(o, e->kind->op), *reply;
    int failed = 0, code;

    json_object_set_new(request, "data", json_true());
    code = channel_send(ch, request);
    if (code != 0)
        return code;
    while (failed == 0 && (reply = channel_next(ch, NULL, &code)) != NULL) {
        json_t *row = json_object_get(reply, e->kind->member);

        if (row != NULL)
            failed = export_row(e, row);
        json_decref(reply);
    }
    if (fclose(e->list) != 0 && failed == 0)
        failed = write_failed(e->kind->list);
    return failed != 0 ? failed : code;
}

static void print_result(const struct exporter *e, const struct queue_options *o)
{
    struct buf text = {0};

    if (o->channel.json) {
        printf("{\"messages\":%llu,\"%s\":%llu,\"ended\":%llu}\n", (unsigned long long)e->messages,
               e->kind->counted, (unsigned long long)e->rows, (unsigned long long)e->lost);
        return;
    }
    put_counted(&text, e->messages, "message");
    buf_puts(&text, " and ");
    put_counted(&text, e->rows, e->kind->noun);
    buf_printf(&text, " in %s\n", o->to);
    if (e->lost != 0) {
        put_counted(&text, e->lost, "message");
        buf_puts(&text, " had ended in between\n");
    }
    flush_text(&text, stderr);
    buf_done(&text);
}

static int export_to(struct channel *ch, const struct export_kind *kind,
                     const struct queue_options *o)
{
    struct exporter e = {.kind = kind};
    int code = channel_open(&e.contents, &o->channel);

    if (code == 0)
        code = open_directory(&e, o);
    if (code == 0)
        code = export_all(ch, &e, o);
    if (code == 0)
        print_result(&e, o);
    channel_close(&e.contents);
    return code == WRITE_FAILED ? EXIT_FAILED : code;
}

/* One of them is there: check_export() in cmd_queue.c. */
int queue_export(struct channel *ch, struct queue_options *o)
{
    int code;

    if (o->to != NULL)
        return export_to(ch, &recipients, o);
    ASSERT(o->one_id != NULL);
    code = fetch(ch, "content", o->one_id, stdout, "stdout");
    return code == WRITE_FAILED ? EXIT_FAILED : code;
}

int queue_export_quarantine(struct channel *ch, struct queue_options *o)
{
    ASSERT(o->to != NULL);
    return export_to(ch, &records, o);
}

#include "tests/powercut/image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

struct bytes {
    uint8_t *data;
    size_t len, cap;
};

struct pending {
    size_t *ops;
    size_t len, cap;
};

struct file {
    struct bytes base;      /* as of its last sync */
    struct pending pending; /* writes and truncations since, in order */
};

struct disk {
    const struct io_log *log;
    size_t at; /* operations before it are complete, it itself is under way */
    struct file *files;
    struct pending names; /* operations on names, in order */
    bool *names_durable;
    bool *writes_durable; /* by operation */
};

struct name {
    char *path;
    int file;
};

static void *need(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static void pending_add(struct pending *p, size_t op)
{
    if (p->len == p->cap) {
        p->cap = p->cap * 2 + 64;
        p->ops = need(realloc(p->ops, p->cap * sizeof(*p->ops)));
    }
    p->ops[p->len++] = op;
}

static void resize(struct bytes *b, size_t len)
{
    if (len > b->cap) {
        b->cap = len * 2;
        b->data = need(realloc(b->data, b->cap));
    }
    if (len > b->len)
        memset(b->data + b->len, 0, len - b->len);
    b->len = len;
}

void disk_free(struct disk *d)
{
    for (int i = 0; i < d->log->files; i++) {
        free(d->files[i].base.data);
        free(d->files[i].pending.ops);
    }
    free(d->files);
    free(d->names.ops);
    free(d->names_durable);
    free(d->writes_durable);
    free(d);
}

/* Whether each sector of a write arrived: 1 in 2 for torn ones. */
static void apply(struct bytes *b, const struct io_op *op, struct rng *torn)
{
    if (op->kind == IO_TRUNCATE) {
        resize(b, (size_t)op->offset);
        return;
    }
    for (size_t done = 0; done < op->len;) {
        size_t at = (size_t)op->offset + done, part = SECTOR - at % SECTOR;

        part = part < op->len - done ? part : op->len - done;
        if (torn == NULL || rng_below(torn, 2) == 0) {
            if (at + part > b->len)
                resize(b, at + part);
            memcpy(b->data + at, op->bytes + done, part);
        }
        done += part;
    }
}

static void sync_file(struct disk *d, struct file *f)
{
    for (size_t i = 0; i < f->pending.len; i++)
        apply(&f->base, &d->log->ops[f->pending.ops[i]], NULL);
    f->pending.len = 0;
}

static bool in_dir(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    const char *base = strrchr(path, '/');

    if (base == NULL)
        return len == 0;
    return (size_t)(base - path) == len && strncmp(path, dir, len) == 0;
}

/* The operation at d->at begins: it may have arrived, in part or not at all. */
static void begin(struct disk *d)
{
    const struct io_op *op = &d->log->ops[d->at];

    if (op->kind == IO_WRITE || op->kind == IO_TRUNCATE)
        pending_add(&d->files[op->file].pending, d->at);
    else if (op->kind == IO_CREATE || op->kind == IO_RENAME || op->kind == IO_UNLINK)
        pending_add(&d->names, d->at);
}

struct disk *disk_new(const struct io_log *log)
{
    struct disk *d = need(calloc(1, sizeof(*d)));

    d->log = log;
    d->files = need(calloc((size_t)log->files + 1, sizeof(*d->files)));
    d->names_durable = need(calloc(log->len + 1, sizeof(bool)));
    d->writes_durable = need(calloc(log->len + 1, sizeof(bool)));
    if (log->len > 0)
        begin(d);
    return d;
}

void disk_step(struct disk *d)
{
    const struct io_op *op = &d->log->ops[d->at];

    if (op->kind == IO_WRITE)
        d->writes_durable[d->at] = op->dsync;
    if (op->kind == IO_SYNC)
        sync_file(d, &d->files[op->file]);
    for (size_t i = 0; op->kind == IO_SYNC_DIR && i < d->names.len; i++) {
        if (in_dir(d->log->ops[d->names.ops[i]].path, op->path))
            d->names_durable[d->names.ops[i]] = true;
    }
    if (++d->at < d->log->len)
        begin(d);
}

static void write_file(const char *path, const struct bytes *b)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    if (fd < 0 || (b->len > 0 && pwrite(fd, b->data, b->len, 0) != (ssize_t)b->len))
        abort();
    close(fd);
}

static void image_file(struct disk *d, const struct file *f, const char *path, enum image_fate fate,
                       struct rng *rng)
{
    struct bytes b = {0};

    resize(&b, f->base.len);
    if (b.len > 0)
        memcpy(b.data, f->base.data, b.len);
    for (size_t i = 0; i < f->pending.len; i++) {
        const struct io_op *op = &d->log->ops[f->pending.ops[i]];

        if (d->writes_durable[f->pending.ops[i]] || fate == IMAGE_KEEP)
            apply(&b, op, NULL);
        else if (fate == IMAGE_TORN)
            apply(&b, op, rng);
        else if (fate == IMAGE_SUBSET && rng_below(rng, 2) == 0)
            apply(&b, op, NULL);
    }
    write_file(path, &b);
    free(b.data);
}

static bool is_or_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    return strncmp(path, dir, len) == 0 && (path[len] == 0 || path[len] == '/');
}

static void apply_name(struct name *names, size_t *len, const struct io_op *op)
{
    if (op->kind == IO_CREATE)
        names[(*len)++] = (struct name){need(strdup(op->path)), op->file};
    for (size_t i = 0; i < *len; i++) {
        char *old = names[i].path;

        if (op->kind == IO_UNLINK && strcmp(old, op->path) == 0) {
            free(old);
            names[i--] = names[--*len];
        } else if (op->kind == IO_RENAME && is_or_below(old, op->path)) {
            if (asprintf(&names[i].path, "%s%s", op->other, old + strlen(op->path)) < 0)
                abort();
            free(old);
        }
    }
}

/* Operations on names that were not synced arrive in order, up to some point. */
static struct name *image_names(struct disk *d, enum image_fate fate, struct rng *rng, size_t *len)
{
    struct name *names = need(calloc(d->names.len + 1, sizeof(*names)));
    size_t until = d->names.len;

    *len = 0;
    if (fate == IMAGE_DROP)
        until = 0;
    else if (fate != IMAGE_KEEP && d->names.len > 0)
        until = (size_t)rng_below(rng, d->names.len + 1);
    for (size_t i = 0; i < d->names.len; i++) {
        if (i < until || d->names_durable[d->names.ops[i]])
            apply_name(names, len, &d->log->ops[d->names.ops[i]]);
    }
    return names;
}

void disk_image(struct disk *d, const char *root, enum image_fate fate, struct rng *rng)
{
    struct name *names;
    char path[512];
    size_t len;

    names = image_names(d, fate, rng, &len);
    if (mkdir(root, 0700) < 0)
        abort();
    for (size_t i = 0; i < len; i++) {
        if (snprintf(path, sizeof(path), "%s/%s", root, names[i].path) >= (int)sizeof(path))
            abort();
        if (names[i].file < 0)
            (void)!mkdir(path, 0700);
    }
    for (size_t i = 0; i < len; i++) {
        struct stat st;
        char *base;

        snprintf(path, sizeof(path), "%s/%s", root, names[i].path);
        base = strrchr(path, '/');
        *base = 0;
        /* A file whose directory did not arrive is not there either. */
        if (names[i].file < 0 || stat(path, &st) < 0)
            continue;
        *base = '/';
        image_file(d, &d->files[names[i].file], path, fate, rng);
    }
    for (size_t i = 0; i < len; i++)
        free(names[i].path);
    free(names);
}

#include "tests/powercut/iolog.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS_MAX   1024
#define NAMES_MAX 4096

static struct {
    struct io_log *log; /* NULL: not recording */
    char *root;
    struct {
        bool tracked, dsync;
        int file; /* < 0: a directory */
        char *path;
    } fds[FDS_MAX];
    struct {
        char *path;
        int file;
    } names[NAMES_MAX];
    size_t names_len;
} rec;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void *need(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static struct io_op *add(enum io_kind kind)
{
    struct io_log *log = rec.log;

    if (log->len == log->cap) {
        log->cap = log->cap * 2 + 1024;
        log->ops = need(realloc(log->ops, log->cap * sizeof(*log->ops)));
    }
    log->ops[log->len] = (struct io_op){.kind = kind, .file = -1};
    return &log->ops[log->len++];
}

void iolog_start(struct io_log *log, const char *root)
{
    *log = (struct io_log){0};
    rec.root = need(strdup(root));
    rec.log = log;
}

void iolog_stop(void)
{
    for (size_t i = 0; i < FDS_MAX; i++) {
        free(rec.fds[i].path);
        rec.fds[i].path = NULL;
        rec.fds[i].tracked = false;
    }
    for (size_t i = 0; i < rec.names_len; i++)
        free(rec.names[i].path);
    rec.names_len = 0;
    free(rec.root);
    rec.root = NULL;
    rec.log = NULL;
}

void iolog_mark(uint64_t value)
{
    if (rec.log != NULL)
        add(IO_MARK)->mark = value;
}

void iolog_free(struct io_log *log)
{
    for (size_t i = 0; i < log->len; i++) {
        free(log->ops[i].bytes);
        free(log->ops[i].path);
        free(log->ops[i].other);
    }
    free(log->ops);
    *log = (struct io_log){0};
}

/* --- names --- */

/* The path below the root as a new string, or NULL when it is elsewhere or of no interest: lock
 * files hold nothing that matters after a power cut. */
static char *below_root(int dir_fd, const char *path)
{
    char *full = NULL;
    size_t root_len;
    const char *base;

    if (rec.log == NULL)
        return NULL;
    if (path[0] == '/')
        full = strdup(path);
    else if (dir_fd >= 0 && dir_fd < FDS_MAX && rec.fds[dir_fd].tracked &&
             rec.fds[dir_fd].file < 0 &&
             asprintf(&full, "%s%s%s/%s", rec.root, rec.fds[dir_fd].path[0] != 0 ? "/" : "",
                      rec.fds[dir_fd].path, strcmp(path, ".") == 0 ? "" : path) < 0)
        abort();
    root_len = strlen(rec.root);
    if (full == NULL || strncmp(full, rec.root, root_len) != 0 ||
        (full[root_len] != 0 && full[root_len] != '/')) {
        free(full);
        return NULL;
    }
    while (strlen(full) > root_len && full[strlen(full) - 1] == '/')
        full[strlen(full) - 1] = 0;
    base = strrchr(full, '/') + 1;
    if (strcmp(base, "lock") == 0 || strcmp(base, "lock.mdb") == 0) {
        free(full);
        return NULL;
    }
    memmove(full, full + root_len + (full[root_len] == '/'),
            strlen(full) - root_len + (full[root_len] != '/'));
    return full;
}

static int find_name(const char *path)
{
    for (size_t i = 0; i < rec.names_len; i++) {
        if (strcmp(rec.names[i].path, path) == 0)
            return (int)i;
    }
    return -1;
}

static void drop_name(const char *path)
{
    int i = find_name(path);

    if (i < 0)
        return;
    free(rec.names[i].path);
    rec.names[i] = rec.names[--rec.names_len];
}

static void add_name(const char *path, int file)
{
    drop_name(path);
    if (rec.names_len == NAMES_MAX)
        abort();
    rec.names[rec.names_len].path = need(strdup(path));
    rec.names[rec.names_len++].file = file;
}

/* --- what is recorded --- */

static void opened(int fd, char *path, int flags, bool existed)
{
    struct stat st;
    struct io_op *op;
    int i, file = -1;

    if (fd < 0 || fd >= FDS_MAX || fstat(fd, &st) < 0) {
        free(path);
        return;
    }
    if (S_ISREG(st.st_mode)) {
        i = find_name(path);
        file = i >= 0 ? rec.names[i].file : rec.log->files++;
        if (i < 0)
            add_name(path, file);
        if (!existed) {
            op = add(IO_CREATE);
            op->file = file;
            op->path = need(strdup(path));
        } else if ((flags & O_TRUNC) != 0) {
            add(IO_TRUNCATE)->file = file;
        }
    }
    free(rec.fds[fd].path);
    rec.fds[fd].tracked = true;
    rec.fds[fd].dsync = (flags & O_DSYNC) != 0;
    rec.fds[fd].file = file;
    rec.fds[fd].path = path;
}

static bool file_fd(int fd)
{
    return rec.log != NULL && fd >= 0 && fd < FDS_MAX && rec.fds[fd].tracked &&
           rec.fds[fd].file >= 0;
}

static void wrote(int fd, const struct iovec *iov, int iov_len, ssize_t n, off_t offset)
{
    struct io_op *op;
    size_t left;
    uint8_t *at;

    if (n <= 0 || !file_fd(fd))
        return;
    op = add(IO_WRITE);
    op->file = rec.fds[fd].file;
    op->dsync = rec.fds[fd].dsync;
    op->offset = (uint64_t)offset;
    op->len = left = (size_t)n;
    op->bytes = at = need(malloc(left));
    for (int i = 0; i < iov_len && left > 0; i++) {
        size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;

        memcpy(at, iov[i].iov_base, part);
        at += part;
        left -= part;
    }
}

static void synced(int fd)
{
    struct io_op *op;

    if (rec.log == NULL || fd < 0 || fd >= FDS_MAX || !rec.fds[fd].tracked)
        return;
    if (rec.fds[fd].file >= 0) {
        add(IO_SYNC)->file = rec.fds[fd].file;
        return;
    }
    op = add(IO_SYNC_DIR);
    op->path = need(strdup(rec.fds[fd].path));
}

static void removed(char *path)
{
    if (path == NULL)
        return;
    add(IO_UNLINK)->path = path;
    drop_name(path);
}

/* --- libc's names --- */

static int do_open(int dir_fd, const char *path, int flags, mode_t mode)
{
    char *known = below_root(dir_fd, path);
    bool existed = known == NULL || faccessat(dir_fd, path, F_OK, 0) == 0;
    int fd = REAL(openat)(dir_fd, path, flags, mode), saved = errno;

    if (known != NULL)
        opened(fd, known, flags, existed);
    errno = saved;
    return fd;
}

static mode_t mode_arg(int flags, va_list args)
{
    return (flags & O_CREAT) != 0 ? (mode_t)va_arg(args, int) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    mode_t mode;

    va_start(args, flags);
    mode = mode_arg(flags, args);
    va_end(args);
    return do_open(AT_FDCWD, path, flags, mode);
}

int openat(int dir_fd, const char *path, int flags, ...)
{
    va_list args;
    mode_t mode;

    va_start(args, flags);
    mode = mode_arg(flags, args);
    va_end(args);
    return do_open(dir_fd, path, flags, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS_MAX)
        rec.fds[fd].tracked = false;
    return REAL(close)(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    ssize_t done = REAL(pwrite)(fd, bytes, n, offset);

    wrote(fd, &(struct iovec){(void *)(uintptr_t)bytes, n}, 1, done, offset);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    off_t offset = file_fd(fd) ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = REAL(write)(fd, bytes, n);

    wrote(fd, &(struct iovec){(void *)(uintptr_t)bytes, n}, 1, done, offset);
    return done;
}

ssize_t writev(int fd, const struct iovec *iov, int iov_len)
{
    off_t offset = file_fd(fd) ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = REAL(writev)(fd, iov, iov_len);

    wrote(fd, iov, iov_len, done, offset);
    return done;
}

int ftruncate(int fd, off_t length)
{
    int err = REAL(ftruncate)(fd, length);
    struct io_op *op;

    if (err == 0 && file_fd(fd)) {
        op = add(IO_TRUNCATE);
        op->file = rec.fds[fd].file;
        op->offset = (uint64_t)length;
    }
    return err;
}

int fdatasync(int fd)
{
    int err = REAL(fdatasync)(fd);

    if (err == 0)
        synced(fd);
    return err;
}

int fsync(int fd)
{
    int err = REAL(fsync)(fd);

    if (err == 0)
        synced(fd);
    return err;
}

int mkdir(const char *path, mode_t mode)
{
    int err = REAL(mkdir)(path, mode), saved = errno;
    char *known = below_root(AT_FDCWD, path);

    if (err == 0 && known != NULL && known[0] != 0)
        add(IO_CREATE)->path = known;
    else
        free(known);
    errno = saved;
    return err;
}

/* path, or what it is below from, as it is called once from is called to; a new string or NULL. */
static char *renamed(const char *path, const char *from, const char *to)
{
    size_t len = strlen(from);
    char *out = NULL;

    if (strncmp(path, from, len) != 0 || (path[len] != 0 && path[len] != '/'))
        return NULL;
    if (asprintf(&out, "%s%s", to, path + len) < 0)
        abort();
    return out;
}

static void rename_known(const char *from, const char *to)
{
    char *path;

    for (size_t i = 0; i < rec.names_len; i++) {
        if ((path = renamed(rec.names[i].path, from, to)) == NULL)
            continue;
        free(rec.names[i].path);
        rec.names[i].path = path;
    }
    for (size_t i = 0; i < FDS_MAX; i++) {
        if (rec.fds[i].path == NULL || (path = renamed(rec.fds[i].path, from, to)) == NULL)
            continue;
        free(rec.fds[i].path);
        rec.fds[i].path = path;
    }
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    int err = REAL(renameat)(from_dir, from, to_dir, to);
    struct io_op *op;
    char *known;

    if (err != 0 || (known = below_root(from_dir, from)) == NULL)
        return err;
    op = add(IO_RENAME);
    op->path = known;
    op->other = need(below_root(to_dir, to));
    rename_known(known, op->other);
    return err;
}

int unlinkat(int dir_fd, const char *path, int flags)
{
    int err = REAL(unlinkat)(dir_fd, path, flags);

    if (err == 0)
        removed(below_root(dir_fd, path));
    return err;
}

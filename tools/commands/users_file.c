#include "tools/commands/users_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "config/config_secret.h"

static int complain(const char *command, const char *path, int err)
{
    fprintf(stderr, "hayauma %s: %s: %s\n", command, path, strerror(err));
    return -1;
}

/* Opens and locks the directory that path is in. */
static int lock_directory(const char *path)
{
    char *copy = strdup(path);
    int fd;

    ASSERT(copy != NULL);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0)
        return -errno;
    while (flock(fd, LOCK_EX) < 0) {
        int err = errno;

        if (err == EINTR)
            continue;
        close(fd);
        return -err;
    }
    return fd;
}

static void set_owner(struct users_file *f, const char *owner)
{
    const struct passwd *pw = owner != NULL && geteuid() == 0 ? getpwnam(owner) : NULL;

    f->owner.st_uid = pw != NULL ? pw->pw_uid : geteuid();
    f->owner.st_gid = pw != NULL ? pw->pw_gid : getegid();
}

/* What is there, by one descriptor: root may be the caller where the directory is another's, who
 * could put a link or another file into the file's place between two looks. 0, or -1. */
static int read_present(struct users_file *f, const char *command)
{
    int fd = open(f->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), err;
    struct buf errors = {0};

    if (fd < 0)
        return errno == ENOENT ? 0 : complain(command, f->path, errno);
    if (fstat(fd, &f->owner) < 0) {
        err = errno;
        close(fd);
        return complain(command, f->path, err);
    }
    err = config_secret_read_fd(NULL, f->path, fd, &f->text, &errors);
    close(fd);
    if (err < 0)
        fprintf(stderr, "hayauma %s: %.*s", command, STR_FMT(buf_str(&errors)));
    buf_done(&errors);
    return err < 0 ? -1 : 0;
}

int users_open(struct users_file *f, const char *command, const char *path, const char *owner)
{
    *f = (struct users_file){.directory = -1};
    f->path = realpath(path, NULL);
    if (f->path == NULL && errno == ENOENT)
        f->path = strdup(path); /* a new one */
    if (f->path == NULL)
        return complain(command, path, errno);
    f->directory = lock_directory(f->path);
    if (f->directory == -ENOENT) {
        fprintf(stderr, "hayauma %s: %s: its directory does not exist; make it first\n", command,
                f->path);
        return -1;
    }
    if (f->directory < 0)
        return complain(command, f->path, -f->directory);
    set_owner(f, owner);
    if (read_present(f, command) < 0)
        return -1;
    if (f->text.len > 0 && f->text.data[f->text.len - 1] != '\n')
        buf_putc(&f->text, '\n');
    return 0;
}

bool users_find(const struct users_file *f, struct str name, size_t *at, struct str *line)
{
    struct str text = buf_str(&f->text), entry;
    size_t next = 0;
    unsigned number = 0;

    while (config_secret_next(text, &next, &number, &entry)) {
        if (entry.len <= name.len || entry.ptr[name.len] != ':' ||
            !str_eq((struct str){entry.ptr, name.len}, name))
            continue;
        *line = entry;
        *at = (size_t)(entry.ptr - text.ptr);
        return true;
    }
    return false;
}

void users_replace(struct users_file *f, size_t at, size_t old_len, struct str text)
{
    struct buf out = {0};

    ASSERT(at + old_len <= f->text.len);
    buf_room(&out, f->text.len + text.len);
    buf_put(&out, f->text.data, at);
    buf_put_str(&out, text);
    buf_put(&out, f->text.data + at + old_len, f->text.len - at - old_len);
    config_secret_done(&f->text);
    f->text = out;
}

int users_write(struct users_file *f, const char *command)
{
    const struct stat *owner = geteuid() == 0 ? &f->owner : NULL;
    int err = file_replace(f->path, 0600, owner, buf_str(&f->text));

    return err < 0 ? complain(command, f->path, -err) : 0;
}

void users_close(struct users_file *f)
{
    config_secret_done(&f->text);
    if (f->directory >= 0)
        close(f->directory);
    free(f->path);
}

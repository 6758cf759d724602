#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_BYTES ((size_t)64 * 1024)

int file_read(const char *path, size_t bytes_max, struct buf *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
    ssize_t n = 1;

    if (fd < 0)
        return -errno;
    while (err == 0 && n != 0) {
        err = buf_reserve(text, READ_BYTES);
        if (err < 0)
            break;
        n = read(fd, text->data + text->len, READ_BYTES);
        if (n > 0)
            text->len += (size_t)n;
        else if (n < 0 && errno != EINTR)
            err = -errno;
        if (text->len > bytes_max)
            err = -EFBIG;
    }
    close(fd);
    return err;
}

static int write_all(int fd, struct str text)
{
    while (text.len > 0) {
        ssize_t n = write(fd, text.ptr, text.len);

        if (n < 0 && errno != EINTR)
            return -errno;
        text.ptr += n > 0 ? n : 0;
        text.len -= n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int write_new(const char *path, mode_t mode, const struct stat *owner, struct str text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), err = 0;

    if (fd < 0)
        return -errno;
    if ((owner != NULL && fchown(fd, owner->st_uid, owner->st_gid) < 0) || fchmod(fd, mode) < 0)
        err = -errno;
    if (err == 0)
        err = write_all(fd, text);
    close(fd);
    return err;
}

/* Of the directory that path is in: what it says of path is on disk. */
static int sync_directory(const char *path)
{
    char *copy = strdup(path);
    int fd, err;

    ASSERT(copy != NULL);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    err = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return err;
}

int file_replace(const char *path, mode_t mode, const struct stat *owner, struct str text)
{
    struct buf name = {0};
    const char *beside;
    int err;

    buf_printf(&name, "%s.new", path);
    buf_putc(&name, '\0');
    beside = (const char *)name.data;
    (void)unlink(beside); /* of who was killed */
    err = write_new(beside, mode, owner, text);
    if (err == 0 && rename(beside, path) < 0)
        err = -errno;
    if (err < 0)
        (void)unlink(beside);
    else
        err = sync_directory(path);
    buf_done(&name);
    return err;
}

#include "config/config_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (64u << 20)

bool config_user_may_read(const struct config *c, const struct stat *st)
{
    const struct passwd *pw = c->user == NULL || geteuid() != 0 ? NULL : getpwnam(c->user);
    const struct group *gr = c->group == NULL ? NULL : getgrnam(c->group);
    gid_t gid;

    if (pw == NULL || pw->pw_uid == 0 || st->st_uid == pw->pw_uid)
        return true;
    gid = gr == NULL ? pw->pw_gid : gr->gr_gid;
    return (st->st_mode & S_IRGRP) != 0 && st->st_gid == gid;
}

static int check_mode(const struct config *c, const char *file, int fd, size_t *bytes,
                      struct buf *errors)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode)) {
        buf_printf(errors, "%s: is no file\n", file);
        return -EINVAL;
    }
    if ((st.st_mode & 077) != 0) {
        buf_printf(errors,
                   "%s: has mode %04o, and it holds secrets: nobody but its owner may read it; "
                   "chmod 600 %s\n",
                   file, (unsigned)st.st_mode & 07777, file);
        return -EACCES;
    }
    if (c != NULL && !config_user_may_read(c, &st)) {
        buf_printf(errors, "%s: can be read by root, but not by 'user'; chown %s %s\n", file,
                   c->user, file);
        return -EACCES;
    }
    if (st.st_size > FILE_BYTES_MAX) {
        buf_printf(errors, "%s: is larger than 64 MiB\n", file);
        return -EFBIG;
    }
    *bytes = (size_t)st.st_size;
    return 0;
}

/* The buffer has its size from the start: one that grew would leave copies behind. */
static int read_all(int fd, size_t bytes, struct buf *text)
{
    ssize_t n = 1;

    if (buf_reserve(text, bytes + 1) < 0)
        return -ENOMEM;
    while (n > 0 && text->len < text->cap) {
        n = read(fd, text->data + text->len, text->cap - text->len);
        if (n < 0)
            return -errno;
        text->len += (size_t)n;
    }
    return 0;
}

int config_secret_read_fd(const struct config *c, const char *file, int fd, struct buf *text,
                          struct buf *errors)
{
    size_t bytes = 0, before = errors->len;
    int err = check_mode(c, file, fd, &bytes, errors);

    if (err == 0)
        err = read_all(fd, bytes, text);
    if (err < 0 && errors->len == before)
        buf_printf(errors, "%s: cannot be read: %s\n", file, strerror(-err));
    return err;
}

int config_secret_read(const struct config *c, const char *file, struct buf *text,
                       struct buf *errors)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;

    if (fd < 0) {
        err = -errno;
        buf_printf(errors, "%s: cannot be read: %s\n", file, strerror(-err));
        return err;
    }
    err = config_secret_read_fd(c, file, fd, text, errors);
    close(fd);
    return err;
}

void config_secret_done(struct buf *text)
{
    buf_wipe(text);
}

bool config_secret_next(struct str text, size_t *at, unsigned *line, struct str *entry)
{
    while (*at < text.len) {
        struct str rest = {text.ptr + *at, text.len - *at};

        *entry = str_trim(str_take(&rest, '\n'));
        *at = text.len - rest.len;
        ++*line;
        if (entry->len != 0 && entry->ptr[entry->len - 1] == '\r')
            entry->len--;
        if (entry->len != 0 && entry->ptr[0] != '#')
            return true;
    }
    return false;
}

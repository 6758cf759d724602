#include "tools/commands/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (256 * 1024)

int input_read(const char *command, const char *file, struct buf *out)
{
    bool is_stdin = strcmp(file, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;
    int err;

    while (n > 0) {
        if (buf_reserve(out, READ_BYTES) < 0) {
            n = -1;
            errno = ENOMEM;
            break;
        }
        n = read(fd, out->data + out->len, READ_BYTES);
        if (n > 0)
            out->len += (size_t)n;
        else if (n < 0 && errno == EINTR)
            n = 1;
    }
    err = n < 0 ? -errno : 0;
    if (fd >= 0 && !is_stdin)
        close(fd);
    if (err < 0)
        fprintf(stderr, "hayauma %s: %s: %s\n", command, file, strerror(-err));
    return err;
}

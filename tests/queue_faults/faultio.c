#include "tests/queue_faults/faultio.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct {
    enum fault_call call;
    unsigned left;
    int err;
    bool repeat, reached;
    /* A failed write-back is reported once to every descriptor of the inode. */
    ino_t sick_inode;
    int told_fd;
} fault;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void fault_arm(enum fault_call call, unsigned k, int err, bool repeat)
{
    fault.call = call;
    fault.left = k;
    fault.err = err;
    fault.repeat = repeat;
    fault.reached = false;
    fault.sick_inode = 0;
}

bool fault_disarm(void)
{
    fault.call = FAULT_NONE;
    fault.sick_inode = 0;
    return fault.reached;
}

static bool strikes(enum fault_call call)
{
    if (fault.call != call || (fault.left == 0 && !fault.repeat) ||
        (fault.left > 0 && --fault.left > 0))
        return false;
    fault.reached = true;
    errno = fault.err;
    return true;
}

static bool regular(int fd)
{
    struct stat st;

    return fault.call != FAULT_NONE && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* 0: go on; 1: fail with errno; 2: write half. */
static int write_fate(int fd)
{
    if ((fault.call != FAULT_WRITE && fault.call != FAULT_SHORT) || !regular(fd))
        return 0;
    if (strikes(FAULT_WRITE))
        return 1;
    return strikes(FAULT_SHORT) ? 2 : 0;
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    int fate = write_fate(fd);

    return fate == 1 ? -1 : REAL(pwrite)(fd, bytes, fate == 2 ? n / 2 : n, offset);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    int fate = write_fate(fd);

    return fate == 1 ? -1 : REAL(write)(fd, bytes, fate == 2 ? n / 2 : n);
}

ssize_t writev(int fd, const struct iovec *iov, int iov_len)
{
    int fate = write_fate(fd);

    return fate == 1 ? -1 : REAL(writev)(fd, iov, fate == 2 ? (iov_len + 1) / 2 : iov_len);
}

static int sync_fate(int fd)
{
    struct stat st;

    if (fault.call != FAULT_SYNC && fault.call != FAULT_SYNC_FLUSH)
        return 0;
    if (fstat(fd, &st) == 0 && fault.sick_inode == st.st_ino && fault.told_fd != fd) {
        fault.sick_inode = 0;
        errno = fault.err;
        return -1;
    }
    if (strikes(FAULT_SYNC)) {
        fault.sick_inode = st.st_ino;
        fault.told_fd = fd;
        errno = fault.err;
        return -1;
    }
    return strikes(FAULT_SYNC_FLUSH) ? -1 : 0;
}

int fdatasync(int fd)
{
    return sync_fate(fd) < 0 ? -1 : REAL(fdatasync)(fd);
}

int fsync(int fd)
{
    return sync_fate(fd) < 0 ? -1 : REAL(fsync)(fd);
}

int openat(int dir_fd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    if ((flags & O_CREAT) != 0) {
        va_start(args, flags);
        mode = (mode_t)va_arg(args, int);
        va_end(args);
        if (strikes(FAULT_OPEN))
            return -1;
    }
    return REAL(openat)(dir_fd, path, flags, mode);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    return strikes(FAULT_MALLOC) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return strikes(FAULT_MALLOC) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return strikes(FAULT_MALLOC) ? NULL : __libc_realloc(p, n);
}
#endif

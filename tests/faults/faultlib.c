/* Preloaded into the engine: makes the k-th call of a kind fail, or last a second where the error
 * is 0, and sets the wall clock, when a test says so through a file that both have mapped
 * ($FAULT_FILE; faults.py has the same layout).
 *
 * What the ring does (accept, connect, send) is no call of the process: for these the tests make
 * real conditions. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum fault_call { FAULT_NONE, FAULT_WRITE, FAULT_SYNC, FAULT_OPEN, FAULT_MALLOC, FAULT_SIGN };

static struct fault {
    _Atomic int32_t call; /* enum fault_call; written last */
    _Atomic int32_t left; /* calls until the first that fails */
    int32_t err, repeat;
    _Atomic int32_t hits;
    uint32_t bytes_min;      /* smaller ones do not count */
    char path[64];           /* only files whose path has this in it */
    _Atomic int64_t clock_s; /* the wall clock is ahead by so much */
} * fault;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void)
{
    const char *file = getenv("FAULT_FILE");
    int fd = file == NULL ? -1 : open(file, O_RDWR | O_CLOEXEC);
    void *map;

    if (fd < 0)
        return;
    map = mmap(NULL, sizeof(*fault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        fault = map;
}

static bool strikes(enum fault_call call, size_t bytes)
{
    int32_t before;

    if (fault == NULL || atomic_load(&fault->call) != (int32_t)call || bytes < fault->bytes_min)
        return false;
    before = atomic_fetch_sub(&fault->left, 1);
    if (before > 1 || (before < 1 && !fault->repeat))
        return false;
    atomic_fetch_add(&fault->hits, 1);
    if (fault->err == 0)
        sleep(1);
    errno = fault->err;
    return fault->err != 0;
}

static bool strikes_fd(enum fault_call call, int fd, size_t bytes)
{
    char link[32], path[512];
    ssize_t n;

    if (fault == NULL || atomic_load(&fault->call) != (int32_t)call)
        return false;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return path[0] == '/' && strstr(path, fault->path) != NULL && strikes(call, bytes);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    return strikes_fd(FAULT_WRITE, fd, n) ? -1 : REAL(pwrite)(fd, bytes, n, offset);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    return strikes_fd(FAULT_WRITE, fd, n) ? -1 : REAL(write)(fd, bytes, n);
}

ssize_t writev(int fd, const struct iovec *iov, int iov_len)
{
    return strikes_fd(FAULT_WRITE, fd, SIZE_MAX) ? -1 : REAL(writev)(fd, iov, iov_len);
}

ssize_t pwritev(int fd, const struct iovec *iov, int iov_len, off_t offset)
{
    return strikes_fd(FAULT_WRITE, fd, SIZE_MAX) ? -1 : REAL(pwritev)(fd, iov, iov_len, offset);
}

int fdatasync(int fd)
{
    return strikes_fd(FAULT_SYNC, fd, SIZE_MAX) ? -1 : REAL(fdatasync)(fd);
}

int fsync(int fd)
{
    return strikes_fd(FAULT_SYNC, fd, SIZE_MAX) ? -1 : REAL(fsync)(fd);
}

/* OpenSSL's, by their ABI alone: the engine may be linked with it, this is not. */
int EVP_PKEY_sign(void *ctx, uint8_t *out, size_t *out_len, const uint8_t *in, size_t len);
int EVP_PKEY_sign(void *ctx, uint8_t *out, size_t *out_len, const uint8_t *in, size_t len)
{
    return strikes(FAULT_SIGN, SIZE_MAX) ? 0 : REAL(EVP_PKEY_sign)(ctx, out, out_len, in, len);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static __typeof__(&clock_gettime) real;
    int rc;

    if (real == NULL)
        real = REAL(clock_gettime);
    rc = real(clock, now);
    if (rc == 0 && clock == CLOCK_REALTIME && fault != NULL)
        now->tv_sec += atomic_load(&fault->clock_s);
    return rc;
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* The allocator behind: jemalloc where the engine is linked with it. */
static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);

void *malloc(size_t n)
{
    if (real_malloc == NULL)
        real_malloc = REAL(malloc);
    return strikes(FAULT_MALLOC, n) ? NULL : real_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    if (real_calloc == NULL)
        real_calloc = REAL(calloc);
    return strikes(FAULT_MALLOC, n * size) ? NULL : real_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    if (real_realloc == NULL)
        real_realloc = REAL(realloc);
    return strikes(FAULT_MALLOC, n) ? NULL : real_realloc(p, n);
}
#endif

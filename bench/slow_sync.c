/* For LD_PRELOAD: each fdatasync() takes 2 ms longer, as on a slower disk. bench/lib/rows.py builds
 * it. */
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd)
{
    static int (*real)(int);
    const struct timespec longer = {.tv_nsec = 2000000};
    int rc;

    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    rc = real(fd);
    nanosleep(&longer, NULL);
    return rc;
}

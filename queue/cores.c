#include "queue/cores.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/assert.h"

void cores_open(struct cores *c)
{
    *c = (struct cores){.fd = open("/proc/stat", O_RDONLY | O_CLOEXEC)};
    (void)cores_are_busy(c);
}

void cores_close(struct cores *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

/* proc(5): "cpu", then ticks of user, nice, system, idle, iowait, irq, softirq, steal. Who waits
 * for a disk leaves the core to others: iowait is idle. */
bool cores_are_busy_by(struct cores *c, const char *stat)
{
    uint64_t t[8] = {0}, idle, all = 0, before_idle = c->idle, before_all = c->all;

    if (sscanf(stat,
               "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64 " %" SCNu64,
               &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) < 5)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        all += t[i];
    idle = t[3] + t[4];
    c->idle = idle;
    c->all = all;
    /* The kernel's count of idle time may step back. */
    if (all <= before_all || idle < before_idle)
        return all > before_all;
    return (idle - before_idle) * 100 < (all - before_all) * CORES_IDLE_PERCENT;
}

bool cores_are_busy(struct cores *c)
{
    char text[256];
    ssize_t n = c->fd < 0 ? -1 : pread(c->fd, text, sizeof(text) - 1, 0);

    if (n <= 0)
        return false;
    text[n] = '\0';
    return cores_are_busy_by(c, text);
}

/* Private to queue/: whether the machine's cores have anything left to give.
 *
 * Thread: the syncer's, which looks now and then; everybody else reads what it found
 * (queue.cores_busy). Failure: without /proc nothing is known, and cores count as not busy. */
#ifndef HAYAUMA_QUEUE_CORES_H
#define HAYAUMA_QUEUE_CORES_H

#include <stdbool.h>
#include <stdint.h>

struct cores {
    int fd; /* /proc/stat, or -1 */
    /* Ticks of all cores together since the machine's start, as of the last look. */
    uint64_t idle, all;
};

void cores_open(struct cores *c);
void cores_close(struct cores *c);
/* Whether the cores had less than CORES_IDLE_PERCENT of their time left since the last look. */
#define CORES_IDLE_PERCENT 5
bool cores_are_busy(struct cores *c);
/* cores_are_busy() with the text of /proc/stat given. */
bool cores_are_busy_by(struct cores *c, const char *stat);

#endif

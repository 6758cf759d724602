/* Builds what a disk may hold when the power goes: a recorded log, cut after any operation, with
 * what was not synced dropped, kept, or torn at sectors. */
#ifndef HAYAUMA_TESTS_POWERCUT_IMAGE_H
#define HAYAUMA_TESTS_POWERCUT_IMAGE_H

#include "base/rng.h"
#include "tests/powercut/iolog.h"

enum image_fate {
    IMAGE_DROP,   /* nothing that was not synced arrived */
    IMAGE_KEEP,   /* everything did */
    IMAGE_SUBSET, /* each write did or did not: reordering */
    IMAGE_TORN,   /* each 512-byte sector of each write did or did not */
    IMAGE_FATES
};

struct disk;

/* The first operation of the log is under way. */
struct disk *disk_new(const struct io_log *log);
/* The operation under way completes and the next begins. */
void disk_step(struct disk *d);
/* Writes an image to the directory root (made; must not exist), as if the power went now. */
void disk_image(struct disk *d, const char *root, enum image_fate fate, struct rng *rng);
void disk_free(struct disk *d);

#endif

/* Small files as a whole. Blocking: for the start, reloads and commands. */
#ifndef HAYAUMA_BASE_FILE_H
#define HAYAUMA_BASE_FILE_H

#include <sys/stat.h>

#include "base/buf.h"

/* Reads the file into text, which is empty. 0 or -errno; -EFBIG: it has more than bytes_max. */
int file_read(const char *path, size_t bytes_max, struct buf *text) MUST_USE;
/* Puts text into the file's place for good: a reader finds the old file or the new one, whole, and
 * so does who starts after a crash. The new one has mode, and belongs to owner's st_uid and st_gid;
 * NULL: to who calls. It begins beside the old one, as "path.new": one caller at a time. 0 or
 * -errno. */
int file_replace(const char *path, mode_t mode, const struct stat *owner, struct str text) MUST_USE;

#endif

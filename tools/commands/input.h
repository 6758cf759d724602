/* Files that commands are given. */
#ifndef HAYAUMA_TOOLS_INPUT_H
#define HAYAUMA_TOOLS_INPUT_H

#include "base/buf.h"

/* A whole file, or stdin for "-", behind what out has. 0 or -errno, reported on stderr as command's
 * ("send"). */
int input_read(const char *command, const char *file, struct buf *out) MUST_USE;

#endif

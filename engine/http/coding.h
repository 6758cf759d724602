/* Content codings of a request's body: gzip, and deflate as zlib has it. Pure but for memory. */
#ifndef HAYAUMA_ENGINE_CODING_H
#define HAYAUMA_ENGINE_CODING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

/* Appends what in stands for. hold(arg, n) is asked before n bytes more are taken. 0; -EINVAL: in
 * is not coded so, or goes on behind it; -EFBIG: more than max bytes; -ENOMEM: hold() said no. */
int coding_inflate(struct str in, uint64_t max, bool (*hold)(void *arg, uint64_t bytes), void *arg,
                   struct buf *out) MUST_USE;

#endif

/* Whether the pages of a shard's file hang together: looked at before LMDB is given the file. LMDB
 * has no page checksums and trusts what it maps, so that a damaged header ends in a crash, or in
 * pages of one record handed to another.
 *
 * Reads every page of every tree and the list of free pages, not the pages of large values (their
 * records have checksums). Once the time is over it passes leaf pages by: a start with ten million
 * recipients on a cold disk must not take a quarter of a minute. Thread: the opener's. */
#ifndef HAYAUMA_QUEUE_CHECK_H
#define HAYAUMA_QUEUE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

/* fd: the data file, which nobody writes; until_ns: monotonic. 0; -EBADMSG with a line in error
 * that names page and fault; or what reading failed with. */
int check_file(int fd, uint64_t until_ns, char *error, size_t error_bytes) MUST_USE;

/* Whether header is right for a large value of so many bytes that begins on page number. */
#define CHECK_HEADER_BYTES 16
bool check_large(const uint8_t *header, size_t bytes, uint64_t number, size_t page_bytes);

#endif

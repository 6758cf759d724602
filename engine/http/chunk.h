/* A chunk of a campaign's recipients, as POST /api/campaigns/v1/ID/recipients brings it: a
 * recipient a line, as JSON (NDJSON), or comma-separated values with a line of headings.
 *
 * A line that is no recipient is left out, and said with its number. CSV in which cells cannot be
 * told from each other is refused whole: behind a quote that is not closed no line is what it
 * seems. Bounded: one line's memory. Pure but for memory; one thread. */
#ifndef HAYAUMA_ENGINE_CHUNK_H
#define HAYAUMA_ENGINE_CHUNK_H

#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

#define CHUNK_LINE_MAX   16384 /* of NDJSON */
#define CHUNK_COLUMN_MAX 100   /* bytes of a heading */

enum chunk_format { CHUNK_NDJSON, CHUNK_CSV };

struct chunk_row { /* slices are valid until the next call */
    struct str email;
    struct str variables; /* as recipe_put_recipient() writes them, or empty */
};

struct chunk_error {
    uint64_t line;
    char text[240];
};

struct chunk;

/* body lives as long as the chunk. 0; or -EINVAL: nothing of it may be taken. */
int chunk_open(struct chunk **out, enum chunk_format format, struct str body,
               struct chunk_error *error) MUST_USE;
void chunk_close(struct chunk *c); /* NULL is accepted */
/* 1; 0 at the end; -EINVAL: this line is no recipient, and the next call goes on behind it. */
int chunk_next(struct chunk *c, struct chunk_row *out, struct chunk_error *error) MUST_USE;
/* The line of the body where the one that chunk_next() looked at last begins, from 1. */
uint64_t chunk_line(const struct chunk *c);
/* How many bytes of the body are read: behind chunk_open() the headings. */
size_t chunk_read_bytes(const struct chunk *c);

#endif

/* A reader of comma-separated values (RFC 4180) in memory, UTF-8, with or without a byte order
 * mark. Line ends may be CRLF or LF; a quoted cell may hold both. Pure but for the record's buffer.
 */
#ifndef HAYAUMA_BASE_CSV_H
#define HAYAUMA_BASE_CSV_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

#define CSV_CELLS_MAX 1024
/* Said of a list in another charset, which is mostly what Excel writes in Japan. */
#define CSV_NOT_UTF8 "is not UTF-8: save it as 'CSV UTF-8', or convert it (iconv -f CP932 -t UTF-8)"

struct csv {
    struct str rest;
    uint64_t next_line; /* of the input, from 1 */
    uint64_t line;      /* where the record at hand begins */
    struct buf text;    /* its cells, unquoted */
    struct str cells[CSV_CELLS_MAX];
    size_t cells_len;
    const char *error; /* why csv_next() failed */
};

void csv_init(struct csv *c, struct str text);
void csv_done(struct csv *c);
/* The next record, blank lines skipped: cells are valid until the next call. 1; 0 at the end;
 * -EINVAL for a broken record, with error and line set (the reader is then behind it and may go
 * on). */
int csv_next(struct csv *c);

#endif

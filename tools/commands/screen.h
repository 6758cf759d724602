/* Text for people: numbers, ages, columns, and what may safely go to a terminal. One thread. */
#ifndef HAYAUMA_TOOLS_SCREEN_H
#define HAYAUMA_TOOLS_SCREEN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"

/* Columns of stdout when it is a terminal, 0 otherwise. */
unsigned screen_width(void);
unsigned screen_height(void);

/* "1,234,567". */
void put_count(struct buf *out, uint64_t v);
/* What the noun behind n ends in: "1 message", "2 messages". */
#define PLURAL(n) ((n) == 1 ? "" : "s")
/* "1,234 messages". */
void put_counted(struct buf *out, uint64_t n, const char *noun);
/* "1,234", "12.3k", "4.56M": at most six characters. */
void put_short_count(struct buf *out, uint64_t v);
/* "512 B", "12.3 KiB". */
void put_size(struct buf *out, uint64_t bytes);
/* "45s", "12m", "3h20m", "5d04h"; "0s" for 0 and less. */
void put_age(struct buf *out, int64_t ms);
/* Text from outside: control bytes and broken UTF-8 become '?', so that no address or reply can
 * speak to the terminal. columns != 0: cut to so many, the last one "…", and padded when pad. Kanji
 * and their like take two. */
void put_text(struct buf *out, const char *text, unsigned columns, bool pad);
/* The same as a cell of a table: on a terminal cut to its columns, in a pipe wider where the text
 * is longer, so that programs get all of it. */
void put_column(struct buf *out, const char *text, unsigned columns);
/* The last cell of a row, of which line has all the others: as much as the screen has room for. */
void put_last(struct buf *line, const char *text);
/* Columns for the names in a table that takes 80 columns when they have narrow: more on a wider
 * screen. */
unsigned name_room(unsigned narrow);
/* Pads what was written since from to columns; right: in front. */
void pad_from(struct buf *out, size_t from, unsigned columns, bool right);
/* Sentences in lines of at most so many columns, broken at blanks; 0: as they are. What follows a
 * break begins behind indent blanks. */
void fold_text(struct buf *text, unsigned columns, unsigned indent);
/* Writes and clears. */
void flush_text(struct buf *out, FILE *to);

#endif

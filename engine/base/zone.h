/* Time zones: what the clocks of a place say at an instant, from the system's zone files (RFC
 * 8536). Unlike localtime() a zone is a value: a process may have many, and no environment says
 * which. Constant once loaded; any thread. Days are numbered from 1970-01-01. */
#ifndef HAYAUMA_BASE_ZONE_H
#define HAYAUMA_BASE_ZONE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/str.h"

struct zone;

#define DAY_SECONDS 86400

/* "Asia/Tokyo", or "UTC", which needs no file. 0; -EINVAL: this is no zone's name; -ENOENT: this
 * machine has no such zone; -EBADMSG: its file is damaged; -errno. */
int zone_load(struct str name, struct zone **out) MUST_USE;
/* From the bytes of a zone file. */
int zone_parse(const uint8_t *bytes, size_t len, struct zone **out) MUST_USE;
void zone_free(struct zone *z);

/* How many seconds local time is ahead of UTC at that instant (Unix time). */
int32_t zone_offset_s(const struct zone *z, int64_t unix_s);
/* The first instant at which local clocks show local_s, seconds from 1970-01-01 00:00 as if there
 * was no zone. Where that time is left out the instant is as much later as clocks jump. */
int64_t zone_instant_s(const struct zone *z, int64_t local_s);

/* The day of a date; month and day from 1. */
int32_t day_of_date(int32_t year, int month, int day);
void date_of_day(int32_t number, int32_t *year, int *month, int *day);
/* "2026-12-01" of a date that exists. 0 or -EINVAL. */
int day_parse(struct str text, int32_t *out) MUST_USE;
#define DAY_TEXT_BYTES 16
/* "2026-12-01"; out is given back. */
const char *day_text(int32_t number, char out[DAY_TEXT_BYTES]);

#endif

/* Numbers with units on the command line: the configuration's (engine/config/config_value.h), and
 * the short forms that the load tools of the field take. Every function: 0, -EINVAL or -ERANGE;
 * *out is set only on success. */
#ifndef HAYAUMA_TOOLS_QUANTITY_H
#define HAYAUMA_TOOLS_QUANTITY_H

#include <stdint.h>

#include "base/assert.h"

/* "20000", "20k", "1.5M": units of 1,000. */
int quantity_count(const char *text, uint64_t *out) MUST_USE;
/* "4096", "64KiB", "10kB", and "4k", "5M", which are powers of 1024. */
int quantity_bytes(const char *text, uint64_t *out) MUST_USE;
/* "20ms", "1.5s", "2h"; without a unit seconds. */
int quantity_duration_ms(const char *text, uint64_t *out) MUST_USE;
/* "2026-11-29T09:00:00+09:00", or ...Z: Unix milliseconds. */
int quantity_time_ms(const char *text, int64_t *out) MUST_USE;
/* A share: "0.05" or "5%"; 0 to 1. */
int quantity_share(const char *text, double *out) MUST_USE;

/* What is wrong with an argument that a function of this file or endpoint_parse() did not take. */
const char *quantity_why(int err);

#endif

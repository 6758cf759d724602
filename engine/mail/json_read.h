/* JSON text to a tree of libjansson's values: RFC 8259, an object or a list, each name of an object
 * once, no NUL in texts. Takes what json_loadb(JSON_REJECT_DUPLICATES) takes within the limits
 * (json_read_fuzz compares the two), and is some ten times as fast: json_loadb() looks at each byte
 * by several calls, which was a third of the CPU of a request that brings a letter of 4 KiB. Pure
 * but for memory. */
#ifndef HAYAUMA_ENGINE_JSON_READ_H
#define HAYAUMA_ENGINE_JSON_READ_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

struct json_t;

struct json_read_error {
    enum {
        JSON_READ_NOT_JSON,
        JSON_READ_TOO_DEEP,
        JSON_READ_TOO_MANY /* values: names of members count, too */
    } kind;
    const char *why;
    size_t line, column; /* from 1; columns are of characters */
};

/* NULL: *error says why. *values: how many there are. */
struct json_t *json_read(struct str text, unsigned depth_max, size_t values_max, size_t *values,
                         struct json_read_error *error);

#endif

/* JSON from outside, read and checked: how large it may be, which fields an object has, and a
 * mistake with its place ("recipients[3].email"). Pure but for memory. */
#ifndef HAYAUMA_ENGINE_JSON_FIELDS_H
#define HAYAUMA_ENGINE_JSON_FIELDS_H

#include <stdint.h>

#include "base/assert.h"
#include "base/str.h"

struct json_t;

#define JSON_FIELDS_DEPTH_MAX  32
#define JSON_FIELDS_VALUES_MAX 1000000 /* of JSON; some 100 bytes each */
#define JSON_PATH_BYTES        120

struct json_mistake {
    unsigned status; /* of HTTP: 400 not JSON or not these fields, 422 they make no sense */
    char field[JSON_PATH_BYTES]; /* path, or empty */
    char text[240];
};
void json_mistake(struct json_mistake *m, unsigned status, const char *field, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));

/* NULL, and *mistake: text is no JSON, or more of it than is taken. *bytes: that text and tree take
 * in memory, about; may be NULL. */
struct json_t *json_fields_load(struct str text, uint64_t *bytes, struct json_mistake *mistake);

enum {
    JSON_IS_STRING = 1,
    JSON_IS_OBJECT = 2,
    JSON_IS_LIST = 4,
    JSON_IS_BOOLEAN = 8,
    JSON_IS_NUMBER = 16,
    JSON_IS_ANY = 31,
    JSON_MAY_MISS = 32, /* or be null */
};
struct json_field {
    const char *name;
    unsigned types; /* of the above */
};
/* Whether object has fields of these alone, each of its type, and all that must be. 0 or -EINVAL.
 */
int json_fields_check(const struct json_t *object, const char *path,
                      const struct json_field *fields, size_t len,
                      struct json_mistake *mistake) MUST_USE;
/* "path.name"; either is the client's, of any length, and cut. */
const char *json_path(char out[JSON_PATH_BYTES], const char *path, const char *name);
/* The end of a sentence on a value that is no object: what to write in place of an address. */
const char *json_object_hint(const struct json_t *value);
/* A member that is there and not null, else NULL. */
struct json_t *json_member(const struct json_t *object, const char *name);
/* Puts the member, whose value is taken: text is UTF-8. Without memory the program ends. */
void json_put(struct json_t *object, const char *name, struct json_t *value);
struct str json_str(const struct json_t *value);

#endif

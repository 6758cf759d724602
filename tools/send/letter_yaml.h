/* A letter in YAML, as `hayauma send --template letter.yaml` takes it, to the JSON of
 * POST /api/campaigns/v1. */
#ifndef HAYAUMA_TOOLS_LETTER_YAML_H
#define HAYAUMA_TOOLS_LETTER_YAML_H

#include <jansson.h>

#include "base/assert.h"
#include "base/buf.h"

struct letter_yaml {
    json_t *root;
    json_t *places; /* by the path of a field in root: [line, key in the file] */
};

/* 0, or -EINVAL with a line in errors for each mistake: file, line, column, what. */
int letter_yaml_read(const char *file, struct letter_yaml *out, struct buf *errors) MUST_USE;
/* Where the file says what stands at this path of root, or in what is around it: its line and key.
 * 0: nowhere. */
unsigned letter_yaml_place(const json_t *places, const char *path, const char **key);
void letter_yaml_done(struct letter_yaml *l);

#endif

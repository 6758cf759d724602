/* Between reading the YAML file (config_load.c) and walking its nodes along the schema
 * (config_walk.c). Private to them; with the sources it includes, the only place that sees
 * libfyaml. */
#ifndef HAYAUMA_ENGINE_CONFIG_WALK_H
#define HAYAUMA_ENGINE_CONFIG_WALK_H

#include <libfyaml.h>

#include "base/buf.h"
#include "config/config_private.h"

struct config_place {
    int line, column; /* from 1; 0 = unknown */
};

struct config_loader {
    struct config *c;
    const char *file;
    struct buf *errors;
    unsigned errors_count;
    bool walked; /* it is YAML, right or wrong */
};

/* Adds a line to the errors: "file:line:column: ...". */
void config_complain(struct config_loader *l, struct config_place at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Where a node starts: its own mark, or that of the first scalar in it, or fallback. */
struct config_place config_place_of(struct fy_node *node, struct config_place fallback);
/* Fills l->c from the document. */
void config_walk(struct config_loader *l, struct fy_node *root);

#endif

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
/* A mapping or a part of it on its way into members. */
struct config_target {
    const struct config_section *section;
    void *base;
    const char *path;          /* "listeners[0]", "" at the top */
    struct config_place place; /* of what holds it */
    uint64_t seen;             /* fields given so far, by position */
};

/* "queue.path"; buffers of this size bound what an error can quote. */
#define PATH_BYTES 320

struct str config_walk_text(struct fy_node *node);
/* Whether the value is missing: "key:" and nothing behind it. */
bool config_walk_empty(struct fy_node *node);
/* node, or what the alias stands for. NULL, with the error written, when there is no such anchor.
 */
struct fy_node *config_walk_follow(struct config_loader *l, struct fy_node *node,
                                   struct config_place at);
void config_walk_section(struct config_loader *l, struct config_target *t, struct fy_node *node);

/* --- config_items.c --- */

void config_walk_items(struct config_loader *l, const struct config_field *f, void *base,
                       struct fy_node *node, const char *path, struct config_place at);

/* --- config_patterns.c --- */

void config_walk_routes(struct config_loader *l, struct fy_node *node, struct config_place at);
void config_walk_destinations(struct config_loader *l, struct fy_node *node,
                              struct config_place at);

/* --- config_warmup.c --- */

/* What the document says of warm-up is complete: complains of what makes no sense. */
void config_warmup_check(struct config_loader *l);

/* --- config_rules.c --- */

/* The same of rules. */
void config_rules_check(struct config_loader *l);

/* --- config_walk.c --- */

/* Fills l->c from the document. */
void config_walk(struct config_loader *l, struct fy_node *root);

#endif

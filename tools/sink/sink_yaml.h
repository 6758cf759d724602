/* Values of a behaviour file, with complaints that name file, line and column. A reader that finds
 * a mistake notes it in errors, sets failed and goes on, so that one run shows them all. */
#ifndef HAYAUMA_TOOLS_SINK_YAML_H
#define HAYAUMA_TOOLS_SINK_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libfyaml.h>

#include "base/buf.h"

#define YAML_VALUE_BYTES 512

struct yaml_reader {
    const char *file;
    struct buf *errors;
    bool failed;
    struct fy_node *key; /* where a complaint points */
};

/* NULL after a complaint. */
struct fy_document *yaml_parse(struct yaml_reader *r, struct fy_diag *diag);
void yaml_complain(struct yaml_reader *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The text of a scalar; false after a complaint. */
bool yaml_scalar(struct yaml_reader *r, struct fy_node *node, char out[YAML_VALUE_BYTES]);
/* Index of text in names, or -1 after a complaint that lists them. */
int yaml_choice(struct yaml_reader *r, const char *text, const char *const *names, size_t len);

/* A copy of text, to be freed. */
char *yaml_copy(const char *text);
/* The rest leave *out alone after a complaint. yaml_text() frees what *out had. */
void yaml_text(struct yaml_reader *r, struct fy_node *node, char **out);
void yaml_share(struct yaml_reader *r, struct fy_node *node, double *out);
void yaml_duration_ms(struct yaml_reader *r, struct fy_node *node, uint64_t *out);
void yaml_count(struct yaml_reader *r, struct fy_node *node, uint32_t max, uint32_t *out);
void yaml_bytes(struct yaml_reader *r, struct fy_node *node, uint64_t *out);
void yaml_bool(struct yaml_reader *r, struct fy_node *node, bool *out);

#endif

#include "tools/sink/sink_yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "config/config_value.h"
#include "tools/commands/quantity.h"

void yaml_complain(struct yaml_reader *r, const char *fmt, ...)
{
    struct fy_token *token = r->key == NULL ? NULL : fy_node_get_scalar_token(r->key);
    const struct fy_mark *mark = token == NULL ? NULL : fy_token_start_mark(token);
    char text[YAML_VALUE_BYTES * 2];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (mark != NULL)
        buf_printf(r->errors, "%s:%d:%d: %s\n", r->file, mark->line + 1, mark->column + 1, text);
    else
        buf_printf(r->errors, "%s: %s\n", r->file, text);
    r->failed = true;
}

bool yaml_scalar(struct yaml_reader *r, struct fy_node *node, char out[YAML_VALUE_BYTES])
{
    size_t len = 0;
    const char *text = fy_node_is_scalar(node) ? fy_node_get_scalar(node, &len) : NULL;

    if (text == NULL || len >= YAML_VALUE_BYTES || memchr(text, '\0', len) != NULL) {
        yaml_complain(r, "a single value is wanted here");
        return false;
    }
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

char *yaml_copy(const char *text)
{
    char *own = strdup(text);

    ASSERT(own != NULL);
    return own;
}

void yaml_text(struct yaml_reader *r, struct fy_node *node, char **out)
{
    char text[YAML_VALUE_BYTES];

    if (!yaml_scalar(r, node, text))
        return;
    free(*out);
    *out = yaml_copy(text);
}

void yaml_share(struct yaml_reader *r, struct fy_node *node, double *out)
{
    char text[YAML_VALUE_BYTES];

    if (yaml_scalar(r, node, text) && quantity_share(text, out) < 0)
        yaml_complain(r, "'%s' is no rate: want 0 to 1, or a percentage", text);
}

void yaml_duration_ms(struct yaml_reader *r, struct fy_node *node, uint64_t *out)
{
    char text[YAML_VALUE_BYTES];

    if (yaml_scalar(r, node, text) && quantity_duration_ms(text, out) < 0)
        yaml_complain(r, "'%s' is no duration: want 20ms, 5s, 2m", text);
}

void yaml_count(struct yaml_reader *r, struct fy_node *node, uint32_t max, uint32_t *out)
{
    char text[YAML_VALUE_BYTES];
    uint64_t value = 0;

    if (!yaml_scalar(r, node, text))
        return;
    if (quantity_count(text, &value) < 0 || value > max)
        yaml_complain(r, "'%s' is no number from 0 to %u", text, max);
    else
        *out = (uint32_t)value;
}

void yaml_bytes(struct yaml_reader *r, struct fy_node *node, uint64_t *out)
{
    char text[YAML_VALUE_BYTES];

    if (yaml_scalar(r, node, text) && quantity_bytes(text, out) < 0)
        yaml_complain(r, "'%s' is no size: want 4096, 100k, 5MiB", text);
}

void yaml_bool(struct yaml_reader *r, struct fy_node *node, bool *out)
{
    char text[YAML_VALUE_BYTES];

    if (yaml_scalar(r, node, text) && config_parse_bool(str_of(text), out) < 0)
        yaml_complain(r, "'%s': want yes or no", text);
}

int yaml_choice(struct yaml_reader *r, const char *text, const char *const *names, size_t len)
{
    char known[YAML_VALUE_BYTES] = "";
    size_t at = 0;

    for (size_t i = 0; i < len; i++) {
        if (strcmp(text, names[i]) == 0)
            return (int)i;
        at += (size_t)snprintf(known + at, sizeof(known) - at, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    yaml_complain(r, "unknown '%s': want one of %s", text, known);
    return -1;
}

struct fy_document *yaml_parse(struct yaml_reader *r, struct fy_diag *diag)
{
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET, .diag = diag};
    struct fy_document *document;
    void *at = NULL;

    if (access(r->file, R_OK) < 0) {
        yaml_complain(r, "%s", strerror(errno));
        return NULL;
    }
    fy_diag_set_collect_errors(diag, true);
    document = fy_document_build_from_file(&cfg, r->file);
    if (document != NULL)
        return document;
    for (struct fy_diag_error *e; (e = fy_diag_errors_iterate(diag, &at)) != NULL;)
        buf_printf(r->errors, "%s:%d:%d: %s\n", r->file, e->line, e->column, e->msg);
    if (r->errors->len == 0)
        buf_printf(r->errors, "%s: empty\n", r->file);
    return NULL;
}

/* Templates in the languages of Jinja, Handlebars and Mustache, as far as letters need them
 * (docs/http.md): compiled once, rendered for each recipient. What is not known is an error with
 * its place, never guessed.
 *
 * Bounded: nesting, constructs, steps and output. Pure but for memory; any thread, and one template
 * by many at once. Source and variables are valid UTF-8 without NUL. */
#ifndef HAYAUMA_ENGINE_TEMPLATE_H
#define HAYAUMA_ENGINE_TEMPLATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

#define TEMPLATE_PARTIALS_MAX     100
#define TEMPLATE_PARTIAL_NAME_MAX 64
#define TEMPLATE_NESTED_MAX       20 /* partials within partials */

struct template;
struct json_t;

enum template_language { TEMPLATE_JINJA, TEMPLATE_HANDLEBARS, TEMPLATE_MUSTACHE };

/* What the output is, which says how values are written into it. */
enum template_place {
    TEMPLATE_TEXT,    /* as they are */
    TEMPLATE_HTML,    /* with & < > ' " escaped, unless they are marked as safe */
    TEMPLATE_MESSAGE, /* header and body of a message: in the header without line ends */
};

struct template_error {
    uint32_t line, column;                       /* from 1; columns in bytes */
    char partial[TEMPLATE_PARTIAL_NAME_MAX + 1]; /* in which partial; "": in the template itself */
    char text[160];
};

/* A text that templates include by its name ("{{> name}}", "{% include 'name' %}"): read as if it
 * were a template of its own, with the variables that are known where it stands. */
struct template_partial {
    struct str name, text;
};

/* 0: no more than is allowed. Rendering counts down. */
struct template_budget {
    uint64_t bytes; /* of output and of what is made on the way */
    uint64_t steps; /* of evaluation; about 50 ns each */
};

/* NULL, and *error, when source, or a partial that it leads to, is not understood. partials: at
 * most TEMPLATE_PARTIALS_MAX. stored: source was accepted once, perhaps by a build that took an
 * argument by a name that its filter does not have for the first one; it means that for ever. */
struct template *template_compile(struct str source, enum template_language language,
                                  enum template_place place, bool stored,
                                  const struct template_partial *partials, size_t partials_len,
                                  struct template_error *error);
/* One that is its source: nothing in it is read. */
struct template *template_literal(struct str source);
/* From now on a variable that is not given is a mistake where it would be put out as nothing. What
 * asks whether it is given (a condition, a default) may do so. */
void template_refuse_missing(struct template *t);
/* Appends to out. variables: an object. 0; or *error, and out has anything then: -EINVAL: a value
 * does not fit what is done with it, or is missing; -E2BIG: the budget is spent. */
int template_render(const struct template *t, struct json_t *variables,
                    struct template_budget *budget, struct buf *out,
                    struct template_error *error) MUST_USE;
/* Memory that it takes, about. */
size_t template_bytes(const struct template *t);
/* NULL is accepted. */
void template_free(struct template *t);

#endif

/* A template and a list of recipients, as `hayauma send --template` has them: read, checked by
 * making every letter, and handed on a recipient at a time. One thread. */
#ifndef HAYAUMA_TOOLS_MAILING_H
#define HAYAUMA_TOOLS_MAILING_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/csv.h"
#include "mail/recipe.h"

struct config;

struct mailing {
    const char *template_file, *list_file;
    json_t *root;   /* what POST /api/campaigns/v1 takes of the template */
    json_t *places; /* of a letter in YAML: letter_yaml_place() */
    struct recipe *recipe, *strict;
    struct buf list;
    struct csv *csv;
    json_t *headings;   /* of the list, as texts */
    size_t email, name; /* columns; name: SIZE_MAX where there is none */
};

/* What mailing_check() found. */
struct mailing_findings {
    uint64_t recipients; /* addresses */
    uint64_t invalid, twice, without_letter, with_missing;
    uint64_t same_id; /* letters with a Message-ID that another has */
    uint64_t authors; /* things wrong with those who the letters are from */
    uint64_t letter_bytes_max;
    bool has_unsubscribe; /* the first letter has a List-Unsubscribe field, or will get one */
};

/* template_file: JSON as POST /api/campaigns/v1 takes it; by its end ".yaml" or ".yml" the same in
 * YAML (letter_yaml.h), ".eml" a whole message. 0
 * or -errno, said on stderr. mailing_close() follows in any case. */
int mailing_open(struct mailing *m, const char *template_file, const char *list_file) MUST_USE;
void mailing_close(struct mailing *m);
/* Says on stderr what is wrong with the template, with the line of the file that it is on where
 * that is known. -EINVAL. */
int mailing_complain(const struct mailing *m, const struct json_mistake *mistake);
/* Begins at the list's first recipient. 0 or -errno, said on stderr. */
int mailing_rewind(struct mailing *m) MUST_USE;
/* The next that is a recipient, as /api/inject/v1 knows one, the caller's to give back. 1; 0 at the
 * end; or -EINVAL, said on stderr: no line behind is what it seems. *why: NULL, or why the line is
 * none, and there is no *one. */
int mailing_next(struct mailing *m, json_t **one, const char **why) MUST_USE;
/* Makes the letter of each recipient. What is wrong with a line is said on stderr, up to shown_max
 * lines. config: the engine's, which says how long letters may be and who signs them; or NULL. 0 or
 * -EINVAL: the list cannot be read to its end. */
int mailing_check(struct mailing *m, const struct config *config, uint64_t shown_max,
                  struct mailing_findings *found) MUST_USE;
/* Appends the letters of the first recipients that have one; for a terminal as readers will see
 * them. 0 or -EINVAL. */
int mailing_preview(struct mailing *m, uint64_t letters, struct buf *out) MUST_USE;

#endif

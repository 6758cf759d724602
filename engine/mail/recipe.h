/* Recipes: what a letter is made of, for any number of recipients. A recipe is JSON, as "content",
 * "substitutions", "template_dialect", "missing_variables" and "partials" of /api/inject/v1
 * (docs/http.md). It is read once, and rendered for each recipient: the same recipe, recipient and
 * id give the same bytes.
 *
 * Bounded by budgets (template.h). Pure but for memory; any thread, and one recipe by many at once.
 */
#ifndef HAYAUMA_ENGINE_RECIPE_H
#define HAYAUMA_ENGINE_RECIPE_H

#include "base/buf.h"
#include "base/msgid.h"
#include "mail/json_fields.h"
#include "mail/template.h"

struct recipe;

/* Reads those members of root; others are the caller's to check. root may be freed before the
 * recipe. 0 or -EINVAL. */
int recipe_read(struct json_t *root, struct recipe **out, struct json_mistake *mistake) MUST_USE;
/* What the engine puts on letters of a campaign, by its sender's domain; kept with the recipe, so
 * that each attempt sends the same. Each may be empty. */
struct recipe_marks {
    struct str return_path; /* how it begins; letter_mark_put_return() and the domain follow */
    struct str unsubscribe; /* how the URL begins; a token follows */
    struct str unsubscribe_mailto; /* address */
    struct str feedback_id;        /* value of the field */
};

/* The text to store for recipe_parse(): those members of root, which recipe_read() takes.
 * sender_rule: the tenant whose rule says which authors letters may have, or empty. */
void recipe_put(const struct json_t *root, struct str sender_rule, const struct recipe_marks *marks,
                struct buf *out);
/* What a campaign is made of and does not change, in hex: the same members of root (those of the
 * recipe, envelope_sender, expires, dkim_domain, tags), the same text. */
#define RECIPE_FINGERPRINT_BYTES 33
void recipe_fingerprint(const struct json_t *root, char out[static RECIPE_FINGERPRINT_BYTES]);
int recipe_parse(struct str text, struct recipe **out, struct json_mistake *mistake) MUST_USE;
void recipe_free(struct recipe *r); /* NULL is accepted */
/* Memory that it takes, about. */
uint64_t recipe_bytes(const struct recipe *r);
struct str recipe_sender_rule(const struct recipe *r);
/* Its letters get such marks; for a recipe that is not stored. */
void recipe_mark(struct recipe *r, const struct recipe_marks *marks);
/* They live as long as r. */
struct recipe_marks recipe_marks(const struct recipe *r);
/* Whether letters have a token (mail/letter_mark.h). */
bool recipe_wants_token(const struct recipe *r);
/* Whether a letter is made in less than a millisecond, if its templates do little. */
bool recipe_is_light(const struct recipe *r);

/* --- a recipient: {"email", "name", "substitutions", "metadata"} --- */

/* Whether one, which is at path, is such an object. 0 or -EINVAL. */
int recipe_check_recipient(const struct json_t *one, const char *path,
                           struct json_mistake *mistake) MUST_USE;
/* The text to store with a recipient's row: all but the address; empty: there is nothing else. */
#define RECIPE_RECIPIENT_MAX 3072 /* bytes of it: a row fits a page (queue/DESIGN.md, 7) */
void recipe_put_recipient(const struct json_t *one, struct buf *out);
/* What such text says; NULL where it is empty. -EINVAL: it is none; *out is NULL. The caller's to
 * give back by recipe_recipient_free(). */
int recipe_parse_recipient(struct str text, struct json_t **out) MUST_USE;
void recipe_recipient_free(struct json_t *one); /* NULL is accepted */
/* Appends what records say of one (or NULL): common, a JSON object or nothing, with the metadata of
 * one, which wins where both have a name. */
void recipe_put_metadata(const struct json_t *one, struct str common, struct buf *out);

/* Whose letter is made. */
struct recipe_order {
    struct str email;
    const struct json_t *one;       /* or NULL */
    const struct msgid *id;         /* makes what is to be unique */
    struct str token;               /* where recipe_wants_token() */
    struct template_budget *budget; /* counts down */
};

/* Appends the letter: CRLF lines, header in ASCII. 0, or why there is none: -EINVAL; -E2BIG: the
 * budget is spent. */
int recipe_letter(const struct recipe *r, const struct recipe_order *order, struct buf *out,
                  struct json_mistake *mistake) MUST_USE;

#endif

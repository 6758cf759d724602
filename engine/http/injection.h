/* The body of POST /api/inject/v1, read and checked: what is sent, and to whom. Pure but for
 * memory; one thread at a time. Everything outside is named by its path ("recipients[3].email"). */
#ifndef HAYAUMA_ENGINE_INJECTION_H
#define HAYAUMA_ENGINE_INJECTION_H

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/msgid.h"
#include "mail/recipe.h"

struct injection;

/* now_ms: wall clock. 0 or -EINVAL. */
int injection_parse(struct str body, int64_t now_ms, struct injection **out,
                    struct json_mistake *mistake) MUST_USE;
void injection_free(struct injection *in); /* NULL is accepted */

/* What concerns all letters. Slices live as long as the injection. */
struct injection_facts {
    struct str sender; /* address without <>, as given; empty: the null sender */
    struct str campaign, tenant, pool;
    struct str idempotency_key;        /* or empty */
    struct str dkim_domain;            /* as given; or empty */
    int priority;                      /* -1: not given */
    int64_t not_before_ms, expires_ms; /* wall clock; 0: not given */
    bool received;                     /* letters get a Received field */
    size_t recipients;
    uint64_t bytes; /* of memory that the injection takes, about */
};
const struct injection_facts *injection_facts(const struct injection *in);
/* For worker/letter_marks.h; lives as long as the injection. */
struct recipe *injection_recipe(struct injection *in);
/* The tenant that it is of, whatever it says: of a token. */
void injection_set_tenant(struct injection *in, struct str tenant);
struct str injection_email(const struct injection *in, size_t recipient);
/* Appends a JSON object for the records, or nothing. */
void injection_put_metadata(const struct injection *in, size_t recipient, struct buf *out);
/* The letter for a recipient, as recipe_letter() makes it. token: where recipe_wants_token(). */
int injection_letter(const struct injection *in, size_t recipient, const struct msgid *id,
                     struct str token, struct template_budget budget, struct buf *out,
                     struct json_mistake *mistake) MUST_USE;

#endif

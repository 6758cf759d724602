/* Between recipe.c (JSON to templates) and recipe_letter.c (templates to letters). */
#ifndef HAYAUMA_ENGINE_RECIPE_PRIVATE_H
#define HAYAUMA_ENGINE_RECIPE_PRIVATE_H

#include <jansson.h>

#include "mail/recipe.h"

struct letter_field { /* of the header */
    struct str name;
    const char *path; /* NULL: content.headers and the name */
    struct template *value;
};

struct letter_mailbox { /* From, Reply-To */
    struct template *email, *name;
};

struct letter_text { /* a body part */
    const char *path;
    struct str subtype;
    struct template *text;
};

#define LETTER_TEXTS_MAX 3
#define ATTACHED_MAX     100

struct recipe {
    json_t *substitutions, *headers, *partials; /* references, or NULL */
    char *sender_rule;                          /* or NULL */
    json_t *marks; /* a reference, or NULL: struct recipe_marks as an object */
    uint64_t bytes;
    uint64_t fixed_bytes; /* of a letter: its attachments */
    uint64_t text_bytes;  /* of its templates */
    /* Either a whole message... */
    struct template *message;
    /* ...or its parts. */
    struct letter_text texts[LETTER_TEXTS_MAX]; /* in the order of the alternatives */
    size_t texts_len;
    struct letter_mailbox from, reply_to; /* email NULL: none */
    struct letter_field *fields;
    size_t fields_len;
    bool has_to;                    /* a field "To" is among them */
    bool iso2022jp;                 /* the charset of what is not ASCII, where it fits */
    bool must_fit;                  /* ... else there is no letter; UTF-8 otherwise */
    struct buf *inlined, *attached; /* parts, each complete */
    size_t inlined_len, attached_len;
};

/* A mistake of a template, or of a partial, as one of the field at path. */
void recipe_mistake(struct json_mistake *m, const char *path, const struct template_error *why);

#endif

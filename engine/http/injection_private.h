/* Between injection.c (JSON to templates) and injection_letter.c (templates to letters). */
#ifndef HAYAUMA_ENGINE_INJECTION_PRIVATE_H
#define HAYAUMA_ENGINE_INJECTION_PRIVATE_H

#include <jansson.h>

#include "http/injection.h"

struct letter_field { /* of the header */
    struct str name;
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

struct injection {
    json_t *root, *recipients, *substitutions;
    struct injection_facts facts;
    /* Either a whole message... */
    struct template *message;
    /* ...or its parts. */
    struct letter_text texts[LETTER_TEXTS_MAX]; /* in the order of the alternatives */
    size_t texts_len;
    struct letter_mailbox from, reply_to; /* email NULL: none */
    struct letter_field *fields;
    size_t fields_len;
    bool has_to;                    /* a field "To" is among them */
    struct buf *inlined, *attached; /* parts, each complete */
    size_t inlined_len, attached_len;
};

void injection_fail(struct injection_error *error, unsigned status, const char *field,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));
static inline struct str json_str(const json_t *value)
{
    return (struct str){json_string_value(value), json_string_length(value)};
}

#endif

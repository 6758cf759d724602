/* "Did you mean ...?": the nearest known word to a mistyped one, by edit distance. Pure. */
#ifndef HAYAUMA_ENGINE_SUGGEST_H
#define HAYAUMA_ENGINE_SUGGEST_H

#include "base/str.h"

/* Words longer than this get no suggestion. */
#define SUGGEST_WORD_MAX 48

struct suggest {
    struct str word;
    const char *best;  /* the nearest candidate that is near enough, or NULL */
    unsigned distance; /* its edit distance */
};

void suggest_init(struct suggest *s, struct str word);
/* candidate must outlive s. */
void suggest_offer(struct suggest *s, const char *candidate);

#endif

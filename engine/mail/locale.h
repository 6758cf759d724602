/* Dates and numbers as readers of a language write them; of the CLDR's formats those that letters
 * use. Pure; any thread. */
#ifndef HAYAUMA_ENGINE_LOCALE_H
#define HAYAUMA_ENGINE_LOCALE_H

#include <stdint.h>

#include "base/buf.h"

struct locale;

/* "de", "de-AT", "pt_BR": of a region that has no formats of its own those of the language. NULL:
 * it is not known. */
const struct locale *locale_find(struct str name);
/* The names of all, for mistakes: "de, en, ...". */
void locale_put_names(struct buf *out);

enum locale_style { LOCALE_SHORT, LOCALE_LONG, LOCALE_FULL, LOCALE_STYLES };

struct locale_date {
    int64_t year;
    unsigned month, day; /* from 1 */
};

/* Whether there is such a day, of the years 1 to 9999. */
bool locale_date_valid(const struct locale_date *date);
/* "2026-11-28", with or without a time behind it, whose date it is wherever that is. 0 or -EINVAL.
 */
int locale_date_parse(struct str text, struct locale_date *out) MUST_USE;
/* The day of Unix seconds in UTC. */
struct locale_date locale_date_of(int64_t unix_s);
void locale_put_date(struct buf *out, const struct locale *l, const struct locale_date *date,
                     enum locale_style style);

#define LOCALE_DECIMALS_MAX 9
/* number is decimal text: sign, digits, and a fraction. It is rounded to so many decimals, half up
 * (away from zero); -1: as it is written. 0, or -EINVAL: it is no number. */
int locale_put_number(struct buf *out, const struct locale *l, struct str number,
                      int decimals) MUST_USE;

#endif

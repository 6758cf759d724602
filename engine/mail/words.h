/* Writes the value of a header field whose other than ASCII text becomes ASCII: encoded words
 * (RFC 2047) and extended parameters (RFC 2231), in lines of at most 76 where there is a place to
 * fold. Pure. */
#ifndef HAYAUMA_ENGINE_WORDS_H
#define HAYAUMA_ENGINE_WORDS_H

#include <stdbool.h>

#include "base/buf.h"

struct words {
    struct buf *out;
    size_t column;  /* of the line that is being written */
    struct str gap; /* white space that is to come before the next piece, folds included */
    bool has_gap;
    bool has_word;   /* an encoded word is on this line, which therefore ends at column 76 */
    bool after_word; /* the last piece was an encoded word */
    bool after_open; /* it ended in '(', where no white space is needed */
    bool iso2022jp;  /* encoded words are ISO-2022-JP (mail/iso2022jp.h), which all text must fit */
};

/* Appends bytes as they are, behind the gap. */
void words_put_raw(struct words *w, struct str bytes);
/* White space in front of the next piece; none when it is empty. */
void words_put_gap(struct words *w, struct str space);
/* Some white space in front of the next piece. */
void words_need_gap(struct words *w);
/* Appends text, which may have line ends (they are left out), as one or more encoded words; in
 * phrase: with the few bytes that RFC 2047 5 (3) allows. Its charset is UTF-8, or unknown-8bit
 * (RFC 1428) where it is something else. Characters stay whole. */
void words_put_encoded(struct words *w, struct str text, bool in_phrase);
/* Appends ";" and the parameter base=value as RFC 2231 says: with its charset, in pieces where the
 * line would be too long. */
void words_put_parameter(struct words *w, struct str base, struct str value);
/* The same for a piece of a parameter that its sender had cut (section: "*0" ..., or empty).
 * charset: empty, or in front of value. is_coded: value has %XX, and a charset, of its own. */
void words_put_section(struct words *w, struct str base, struct str section, struct str charset,
                       bool is_coded, struct str value);
/* UTF-8, or unknown-8bit for what is something else. */
struct str words_charset(struct str text);
/* Appends the gap that is left. */
void words_end(struct words *w);

#endif

/* SMTP replies (RFC 5321 4.2, enhanced codes RFC 3463/2034): the value and its incremental parser.
 * Pure. The code is the verdict: no property of the text changes it. Of the text a reply keeps at
 * most SMTP_REPLY_TEXT_MAX bytes (lines joined by one space, control bytes replaced by '?'); the
 * rest is read and dropped. */
#ifndef HAYAUMA_SMTP_REPLY_H
#define HAYAUMA_SMTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define SMTP_REPLY_TEXT_MAX  500
#define SMTP_REPLY_LINE_MAX  1024       /* what counts of a line; more is read and dropped */
#define SMTP_REPLY_BYTES_MAX (1u << 20) /* all lines of one reply; a reply without end is none */

struct smtp_enhanced {
    uint16_t class, subject, detail; /* class 0: none */
};

struct smtp_reply {
    uint16_t code; /* 200..599 */
    struct smtp_enhanced enhanced;
    uint16_t text_len;
    char text[SMTP_REPLY_TEXT_MAX]; /* without the codes */
};

/* Parses "x.y.z" at the start of s; returns its length with following spaces, 0 if there is none.
 */
size_t smtp_enhanced_parse(struct str s, struct smtp_enhanced *out);

struct smtp_reply_parser {
    struct smtp_reply reply; /* complete after SMTP_REPLY_DONE */
    uint32_t reply_bytes;
    bool skipping; /* the rest of a line whose beginning was taken */
    bool last;     /* that line ends the reply */
    /* EHLO wants the raw lines: called for each line that has a code, with what stands behind code
     * and separator. first: it begins the reply. May be NULL. */
    void (*on_line)(void *arg, uint16_t code, bool first, struct str line);
    void *arg;
};

enum smtp_reply_status { SMTP_REPLY_MORE, SMTP_REPLY_DONE, SMTP_REPLY_BAD };

void smtp_reply_parser_reset(struct smtp_reply_parser *p);
/* Consumes lines from in[0..len): *used says how much. MORE: what is left is part of a line, less
 * than SMTP_REPLY_LINE_MAX; give it again with what follows it. DONE: p->reply is whole (call reset
 * before the next). BAD: not SMTP (the first line does not begin with a code of three digits from
 * 200 to 599, or there is no end): the connection is of no more use, and p->reply has the text that
 * was said. A code ends at the third digit: "250 ok", "250ok" and "250" are the same verdict;
 * "250-" goes on, and the last line's code is that of the reply. Lines end in CRLF; a bare LF is
 * tolerated. */
enum smtp_reply_status smtp_reply_parse(struct smtp_reply_parser *p, const uint8_t *in, size_t len,
                                        size_t *used);
/* The peer stopped in the midst of a line: what there is of it is added to the text. */
void smtp_reply_unfinished(struct smtp_reply_parser *p, struct str line);

#endif

/* SMTP replies (RFC 5321 4.2, enhanced codes RFC 3463/2034): the value and its incremental parser.
 * Pure. A reply keeps at most SMTP_REPLY_TEXT_MAX bytes of text (lines joined by one space, control
 * bytes replaced by '?'); the rest of an over-long reply is read and dropped. */
#ifndef HAYAUMA_SMTP_REPLY_H
#define HAYAUMA_SMTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define SMTP_REPLY_TEXT_MAX  500
#define SMTP_REPLY_LINE_MAX  1024  /* longer: a protocol error */
#define SMTP_REPLY_BYTES_MAX 65536 /* all lines of one reply; more: a protocol error */

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
    bool first_line_seen;
    /* EHLO wants the raw lines: called for each line after its code and separator. May be NULL. */
    void (*on_line)(void *arg, struct str line);
    void *arg;
};

enum smtp_reply_status { SMTP_REPLY_MORE, SMTP_REPLY_DONE, SMTP_REPLY_BAD };

void smtp_reply_parser_reset(struct smtp_reply_parser *p);
/* Consumes whole lines from in[0..len): *used says how much. MORE: what is left is part of a line,
 * less than SMTP_REPLY_LINE_MAX; give it again with what follows it. DONE: p->reply is whole (call
 * reset before the next). BAD: not SMTP (no three digits, codes differ between lines, limits
 * exceeded, NUL): the connection is of no more use. Lines end in CRLF; a bare LF is tolerated. */
enum smtp_reply_status smtp_reply_parse(struct smtp_reply_parser *p, const uint8_t *in, size_t len,
                                        size_t *used);

#endif

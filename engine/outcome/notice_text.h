/* The words of a notice: what people read. Private to notice.c and notice_text.c. */
#ifndef HAYAUMA_ENGINE_NOTICE_TEXT_H
#define HAYAUMA_ENGINE_NOTICE_TEXT_H

#include "base/buf.h"
#include "outcome/notice.h"

/* The status of RFC 3464 2.3.4: the peer's enhanced code when it fits the kind, else derived from
 * stage and code. */
struct smtp_enhanced notice_status(enum notice_kind kind, const struct outcome *outcome);
/* Whether kind ends undelivered: only then may more than the header come back (RFC 3461 4.3). */
bool notice_is_failure(enum notice_kind kind);
const char *notice_subject(enum notice_kind kind);
/* English, then Japanese; UTF-8, CRLF lines. */
void notice_text(const struct notice *n, struct buf *out);
/* Appends s without control bytes; other than ASCII only when utf8 and s is valid, else each such
 * byte is '?'. */
void notice_put_clean(struct buf *out, struct str s, bool utf8);

#endif

/* A header field with other than ASCII text for a peer that takes ASCII only: as RFC 6857 has it
 * for readers. Text, names and comments become encoded words (RFC 2047), parameters RFC 2231 ones,
 * domains A-labels. A mailbox whose local part is not ASCII becomes an empty group that shows it, a
 * Message-ID that is not ASCII a field Downgraded-Message-ID. What is ASCII keeps its bytes but for
 * folds. Pure. */
#ifndef HAYAUMA_ENGINE_DOWNGRADE_H
#define HAYAUMA_ENGINE_DOWNGRADE_H

#include "base/assert.h"
#include "base/buf.h"

/* field: "Name: value", folded or not, without its last line end. Appends it in 7 bits; 0 or
 * -ENOMEM. iso2022jp: encoded words are in ISO-2022-JP, which all of the value must fit. */
int downgrade_field(struct str field, bool iso2022jp, struct buf *out) MUST_USE;

#endif

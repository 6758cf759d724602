/* The domain of a message's author: of the first mailbox in its From field (RFC 5322 3.6.2), which
 * is what a reader sees and DMARC goes by. Pure. */
#ifndef HAYAUMA_MAIL_AUTHOR_H
#define HAYAUMA_MAIL_AUTHOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dns/name.h"

/* The domain in lower-case A-labels. Of several From fields the first with a mailbox counts. False:
 * the message has none, or an address literal. */
bool author_domain(const uint8_t *content, size_t len, struct dns_name *out);
/* The same of a From field's value, folded as it may be. */
bool author_domain_of(struct str value, struct dns_name *out);

/* Whether a message is by those who may write it: `may` is asked of each mailbox of each From
 * field, and of an address that stands in the place of a name (a@x.example <b@y.example>). */
typedef bool author_fn(const void *arg, struct str local_part, struct str domain);
enum authors {
    AUTHORS_GOOD,
    AUTHORS_NONE,    /* a From field without an address, or no such field */
    AUTHORS_OTHERS,  /* by somebody who may not */
    AUTHORS_UNCLEAR, /* written so that others may read other addresses there, also behind a line
                        that is no field; or a literal; or too many */
};
enum authors authors_check(const uint8_t *content, size_t len, author_fn *may, const void *arg);

#endif

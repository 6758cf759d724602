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

#endif

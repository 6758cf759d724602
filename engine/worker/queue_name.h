/* The queue name of an address: its domain in one form (lower-case A-labels or address literal).
 * Pure. */
#ifndef HAYAUMA_ENGINE_QUEUE_NAME_H
#define HAYAUMA_ENGINE_QUEUE_NAME_H

#include "base/str.h"
#include "dns/name.h"

/* domain: as in the address. 0 or -EINVAL (not a domain that mail can go to). */
int queue_name_of(struct str domain, struct dns_name *out);
/* The domain of local@domain: behind the last '@'; empty when there is none. */
struct str queue_name_domain(struct str address);
/* The domain that mail of a queue goes to: all of its name, or what is behind its last '@'. */
struct str queue_name_destination(struct str queue);

#endif

/* Whether receivers can tell that a letter is from its author's domain: what of the configuration
 * signs it, and what DNS has of these keys. Blocks; one thread. */
#ifndef HAYAUMA_TOOLS_AUTHOR_CHECK_H
#define HAYAUMA_TOOLS_AUTHOR_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/buf.h"

struct config;
struct json_t;

/* The configuration in file with its keys: the caller's to give back. 0 or -errno; errors says
 * why. */
int author_check_open(const char *file, struct config **out, struct buf *errors) MUST_USE;
/* Appends a line for each thing that is wrong with the author of letter, which the key of
 * dkim_domain is to sign, if that is not empty. How many there are. */
uint64_t author_check(const struct config *c, struct str dkim_domain, const struct buf *letter,
                      struct buf *out);
/* Whether letters of the campaign that root is (as POST /api/campaigns/v1 takes it) get a
 * List-Unsubscribe field by the configuration. */
bool author_unsubscribes(const struct config *c, const struct json_t *root);

#endif

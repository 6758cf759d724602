/* Whether a message needs SMTPUTF8 (RFC 6531), whatever its client said, and how its envelope is
 * written without: what needs it reaches few servers, a Japanese domain alone need not. Pure. */
#ifndef HAYAUMA_ENGINE_INTERNATIONAL_H
#define HAYAUMA_ENGINE_INTERNATIONAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "mail/trace.h"
#include "smtp/address.h"

/* Whether a header of content is internationalized (RFC 6532), a body part's included, or content
 * has more parts than are looked at. eight_bit: of the whole content. */
bool international_content(const uint8_t *content, size_t len, const struct trace_facts *facts,
                           bool eight_bit);
/* Appends address as it is kept: where only its domain is not ASCII that becomes A-labels, which
 * mean the same everywhere (RFC 5890 2.3.2.1). Returns whether what was appended is ASCII. */
bool international_put_address(struct buf *out, const struct smtp_address *address);
/* Appends text as it is compared where case means nothing: case folded, composed (NFC). text: valid
 * UTF-8. */
void international_put_folded(struct buf *out, struct str text);
/* Appends an ENVID or ORCPT as every server takes it: the hex digits of xtext in upper case (RFC
 * 3461 4), the UTF-8 of "utf-8;..." as \x{...} (RFC 6533 3: utf-8-addr-xtext). xtext: valid UTF-8.
 */
void international_put_xtext(struct buf *out, struct str xtext);
/* Appends an address as a notice in ASCII names it behind "utf-8; " (utf-8-addr-xtext). address:
 * valid UTF-8. */
void international_put_ascii_address(struct buf *out, struct str address);
/* Appends the address of an ORCPT "utf-8;..." as UTF-8, whether it came bare or as
 * utf-8-addr-xtext. False, and out has anything: it is none. */
bool international_take_orcpt(struct buf *out, struct str address);

#endif

/* Mail addresses and paths (RFC 5321 4.1.2, RFC 6531 for UTF-8). Pure. */
#ifndef HAYAUMA_SMTP_ADDRESS_H
#define HAYAUMA_SMTP_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

#define SMTP_DOMAIN_MAX 255
/* With brackets (RFC 5321 4.5.3.1.3). The 64 bytes of 4.5.3.1.1 for a local part are no limit here:
 * return paths that name list and recipient (VERP) are longer, and servers take them. */
#define SMTP_PATH_MAX 256

struct smtp_address {
    struct str text; /* local-part@domain, as given, without brackets and a domain's final dot;
                        empty for the null path <> */
    struct str local_part;
    struct str domain; /* "[...]" for an address literal; may be empty for <postmaster> */
    bool utf8;         /* has non-ASCII: needs SMTPUTF8 */
};

/* Two things are taken that RFC 5321 does not have. Dots in a local part without quotes may stand
 * at its ends and in a row: Japanese carriers gave such addresses out. They are kept as given and
 * written as smtp_address_put() does. And a domain may end in a dot, which is dropped. */

/* Parses "<path>" at the start of in (source routes are accepted and dropped, RFC 5321 appendix C).
 * null_ok: <> is allowed (MAIL). *used: bytes up to and with '>'. 0, or -EINVAL. Controls, CR, LF,
 * NUL are never accepted, in quoted strings neither. */
int smtp_path_parse(struct str in, bool null_ok, bool utf8_ok, struct smtp_address *out,
                    size_t *used);
/* The same for a bare address, the whole of in ("a@b"). */
int smtp_address_parse(struct str in, bool utf8_ok, struct smtp_address *out);
/* The same at the start of in, up to a space or the end; *used: bytes up to there. */
int smtp_bare_path_parse(struct str in, bool utf8_ok, struct smtp_address *out, size_t *used);
/* Why text is no mail address, in words for whoever wrote it, and the same as a reply of SMTP. What
 * is seen most is named: a full-width @, blanks, a name beside the address. */
struct smtp_address_fault {
    const char *words, *reply;
};
const struct smtp_address_fault *smtp_address_fault(struct str text);
/* The local part of address as others may see it, in room: with quotes where it needs them, as for
 * dots at its ends or in a row, and only there (RFC 5321 4.1.2: "a.b"@c is a.b@c, and not every
 * server knows that). *given: the length of what this stands for in address; 0, and an empty
 * string, when address is written as it is. At most SMTP_PATH_MAX bytes of address are looked at.
 */
struct str smtp_address_local(struct str address, char room[static SMTP_PATH_MAX], size_t *given);
/* Appends address as others may see it: "a..b"@c for a..b@c. */
void smtp_address_put(struct buf *out, struct str address);
/* xtext (RFC 3461 4): decodes into out (cap bytes); length or -EINVAL. Hex digits in lower case,
 * which some clients write, are taken too. */
ptrdiff_t smtp_xtext_decode(struct str in, char *out, size_t cap);
/* Appends text as xtext; 0, or -EINVAL: it has what is not printable ASCII, and nothing is written.
 */
int smtp_xtext_put(struct buf *out, struct str text) MUST_USE;
/* Whether s is valid UTF-8 (RFC 3629). */
bool smtp_utf8_valid(struct str s);
/* Syntax of a Domain or address literal as EHLO's argument. */
bool smtp_domain_valid(struct str s, bool utf8_ok);

#endif

/* What a letter of a campaign bears so that what comes back of it is known: a return path of its
 * own (VERP), and a token that says who wants no more letters. Both name campaign and recipient,
 * with a code (HMAC-SHA-256) that nobody makes without the key. docs/manual.md has the bytes, and
 * how other programs check them. Pure; any thread. */
#ifndef HAYAUMA_ENGINE_LETTER_MARK_H
#define HAYAUMA_ENGINE_LETTER_MARK_H

#include "base/assert.h"
#include "base/buf.h"
#include "base/msgid.h"
#include "tls/mac.h"

#define LETTER_MARK_RETURN_CHARS 45         /* in a return path */
#define LETTER_MARK_PREVIEW      UINT32_MAX /* index of a letter that is shown and not sent */

enum letter_mark_kind { LETTER_MARK_RETURN, LETTER_MARK_TOKEN };

struct letter_mark {
    enum letter_mark_kind kind;
    struct msgid campaign;
    uint32_t index;     /* of the recipient in the campaign, from 0 */
    struct buf address; /* of a token; to be given back by letter_mark_done() */
    uint8_t code[MAC_BYTES];
};

/* Appends what stands in the return path between the prefix and '@': a-z and 2-7. */
void letter_mark_put_return(struct buf *out, const uint8_t key[MAC_KEY_BYTES],
                            const struct msgid *campaign, uint32_t index);
/* Appends a token: A-Z, a-z, 0-9, '-' and '_'. */
void letter_mark_put_token(struct buf *out, const uint8_t key[MAC_KEY_BYTES],
                           const struct msgid *campaign, uint32_t index, struct str address);
/* Finds one in text: a return path (in lower or upper case), a token, or an address (URL, mailto)
 * that ends in one. 0 or -EINVAL; whether it is ours, letter_mark_is_of() says. */
int letter_mark_parse(struct str text, struct letter_mark *out) MUST_USE;
bool letter_mark_is_of(const struct letter_mark *m, const uint8_t key[MAC_KEY_BYTES]);
void letter_mark_done(struct letter_mark *m);

#endif

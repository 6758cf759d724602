/* Line ends of content that are none, on their way in: a LF without CR becomes CRLF, a CR without
 * LF becomes a space, as Postfix does. Pure.
 *
 * Only CRLF.CRLF ends data, whatever is repaired: what another server would take for an end
 * (LF.LF, LF.CRLF, CRLF.LF) is content here, and the dot of such a line stays. A dot that starts a
 * line is stuffing behind LF too: the clients that send LF stuff there. */
#ifndef HAYAUMA_SMTP_REPAIR_H
#define HAYAUMA_SMTP_REPAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct smtp_repair {
    uint8_t state;
    bool stuffed;     /* DATA: dots are removed, and there is an end */
    bool behind_crlf; /* where the line under way began; else behind LF */
};

void smtp_repair_init(struct smtp_repair *r, bool stuffed);
/* The next slice of the content, in in or in static memory, as smtp_data_next() gives them: call
 * again behind *in_used while there is input. True right behind CRLF.CRLF, with an empty slice. */
bool smtp_repair_next(struct smtp_repair *r, const uint8_t *in, size_t in_len, size_t *in_used,
                      struct str *body);
/* What is left when content ends that is not stuffed; perhaps nothing. */
struct str smtp_repair_end(struct smtp_repair *r);

#endif

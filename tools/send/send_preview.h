/* A letter as its reader will see it: header fields and texts decoded, whatever they are coded as.
 */
#ifndef HAYAUMA_TOOLS_SEND_PREVIEW_H
#define HAYAUMA_TOOLS_SEND_PREVIEW_H

#include "base/buf.h"

/* Appends letter, for a terminal; as it is where it is no message that can be read. */
void send_preview_put(struct buf *out, struct str letter);

#endif

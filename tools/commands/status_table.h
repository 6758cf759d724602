/* The table of 'hayauma status', from two status objects. Pure. */
#ifndef HAYAUMA_TOOLS_STATUS_TABLE_H
#define HAYAUMA_TOOLS_STATUS_TABLE_H

#include <jansson.h>

#include "base/buf.h"

/* before: an earlier status, for the rates, or NULL. width: columns to fill, 0 = no limit. */
void status_table(const json_t *before, const json_t *now, unsigned width, unsigned destinations,
                  struct buf *out);

#endif

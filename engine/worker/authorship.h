/* Whether a message may be of whom it says: its From field is what a reader sees, and whose DKIM
 * key signs. Any thread. */
#ifndef HAYAUMA_ENGINE_AUTHORSHIP_H
#define HAYAUMA_ENGINE_AUTHORSHIP_H

#include "base/buf.h"
#include "config/config.h"

/* Whether rule lets the From field of content have its authors. False: refusal gets the text of a
 * reply, behind what it has. */
bool authorship_check(const struct config_sender_rule *rule, const uint8_t *content, size_t len,
                      struct buf *refusal);

#endif

/* What a session out says and hears, for those who watch it (worker/dialogues.h): commands and
 * replies, of contents only how much, of a login nothing but the reply's code. Thread: the
 * session's worker. */
#ifndef HAYAUMA_ENGINE_DIALOGUE_H
#define HAYAUMA_ENGINE_DIALOGUE_H

#include "deliver/delivery.h"

/* The output in d->iov, pieces of it, is about to be sent. */
void dialogue_said(const struct delivery *d, size_t pieces);
/* In front of smtp_client_input(). */
void dialogue_heard(const struct delivery *d, const uint8_t *bytes, size_t len);

#endif

/* Conversion of a message for peers that cannot take it as it is (convert.h), once for all its
 * recipients. A small message is converted at once, a large one by the crew: its recipients are
 * held meanwhile and then go back to their lanes with the converted message. A message that cannot
 * be converted remembers that, and is not tried again. Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_CONVERSION_H
#define HAYAUMA_ENGINE_CONVERSION_H

#include "mail/convert.h"
#include "worker/worker.h"

/* Gives r, which is PLACE_FLIGHT and was not tried, a converted message: r is back in its lane, or
 * comes back to it. False: the message cannot be converted; r stays the caller's. */
bool conversion_take(struct worker *w, struct recipient *r, enum convert what) MUST_USE;

#endif

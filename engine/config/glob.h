/* Patterns in which '*' stands for any bytes, none included. ASCII case does not count. Pure. */
#ifndef HAYAUMA_ENGINE_GLOB_H
#define HAYAUMA_ENGINE_GLOB_H

#include "base/str.h"

/* Linear in text for one star; a hostile pattern costs len(glob) * len(text) at most. */
bool glob_match(struct str glob, struct str text);

#endif

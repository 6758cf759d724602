/* Reading a configuration from memory: what config_load() does after reading the file. For the
 * fuzzer and tests. */
#ifndef HAYAUMA_ENGINE_CONFIG_LOAD_H
#define HAYAUMA_ENGINE_CONFIG_LOAD_H

#include "config/config.h"

/* file: the name that errors give. Otherwise as config_load(). */
int config_load_text(const char *file, struct str text, struct config **out,
                     struct buf *errors) MUST_USE;

#endif

/* docs/openapi.json, made into C by engine/CMakeLists.txt. */
#ifndef HAYAUMA_ENGINE_OPENAPI_H
#define HAYAUMA_ENGINE_OPENAPI_H

#include <stddef.h>

extern const char http_openapi[];
extern const size_t http_openapi_len;

#endif

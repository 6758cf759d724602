/* The shipped profiles of mailbox providers, as data. Private to engine/config*.c. */
#ifndef HAYAUMA_ENGINE_CONFIG_PROFILES_H
#define HAYAUMA_ENGINE_CONFIG_PROFILES_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define SHIPPED_VALUES_MAX 6

struct shipped_value { /* of a key of destinations, as a file would write it */
    const char *key, *value, *origin;
};

struct shipped_provider {
    const char *name, *mx; /* how names of its exchangers end, separated by blanks */
    struct shipped_value values[SHIPPED_VALUES_MAX];
    /* Of warm-up: under which name it counts, NULL: its own; percent, 0: 100. */
    const char *warmup;
    uint32_t pace, top_of_hour_s;
};

extern const struct shipped_provider shipped_providers[];
extern const size_t shipped_providers_len;

/* NULL: there is none of that name. */
const struct shipped_provider *shipped_provider_find(struct str name);
/* NULL: nothing is shipped of the key. p may be NULL. */
const struct shipped_value *shipped_value_find(const struct shipped_provider *p, const char *key);

#endif

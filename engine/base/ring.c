#include "base/ring.h"

#include <errno.h>
#include <stdlib.h>

int ring_init(struct ring *r, uint32_t slots)
{
    ASSERT(slots > 0 && (slots & (slots - 1)) == 0);
    *r = (struct ring){.mask = slots - 1};
    r->slots = calloc(slots, sizeof(*r->slots));
    return r->slots == NULL ? -ENOMEM : 0;
}

void ring_done(struct ring *r)
{
    free(r->slots);
    r->slots = NULL;
}

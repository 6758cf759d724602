/* Message ids: UUID version 7 (RFC 9562 5.7). Unique over all nodes without configuration, ordered
 * by time, so that they are also the order of the store. */
#ifndef HAYAUMA_BASE_MSGID_H
#define HAYAUMA_BASE_MSGID_H

#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/str.h"

#define MSGID_BYTES      16
#define MSGID_TEXT_BYTES 33 /* 32 hex digits and NUL */

struct msgid {
    uint8_t bytes[MSGID_BYTES];
};

/* One generator per thread. Strictly increasing within it, also when the clock steps back by up to
 * a second; what is set back further begins anew, so that an id says when it was made. */
struct msgid_source {
    struct rng rng;
    uint64_t last_ms;
    uint32_t sequence;
};

void msgid_source_init(struct msgid_source *s, uint64_t seed);
struct msgid msgid_next(struct msgid_source *s, int64_t wall_ms);
/* The nth behind an id, for a batch whose ids are known by its first: unique as that is, for n
 * below 2^31. */
struct msgid msgid_after(const struct msgid *first, uint32_t n);
void msgid_text(const struct msgid *id, char out[MSGID_TEXT_BYTES]);
/* When it was made. */
int64_t msgid_ms(const struct msgid *id);
/* 32 hex digits, dashes allowed; 0 or -EINVAL. */
int msgid_parse(struct str text, struct msgid *out);

#endif

/* Between the table of warm-up (warmup.c) and what is shown of it (warmup_view.c). */
#ifndef HAYAUMA_ENGINE_WARMUP_PRIVATE_H
#define HAYAUMA_ENGINE_WARMUP_PRIVATE_H

#include "limits/warmup.h"

/* NULL: there is none. Under the lock, as is all that takes a stream's state. */
struct warmup_stream *warmup_stream_find(const struct warmup *w, struct str source,
                                         struct str provider);

/* When the stream, which has nothing now, may send next: wall clock. Under the lock. */
int64_t warmup_opens_ms(const struct warmup *w, const struct warmup_stream *s,
                        const struct warmup_state *state, const struct warmup_hour *now);

#endif

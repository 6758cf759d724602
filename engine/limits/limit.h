/* Several limits taken together: the leave of all of them for a message, or of none. A refusal is a
 * value that says which limit, used how far, and until when. Any thread. */
#ifndef HAYAUMA_ENGINE_LIMIT_H
#define HAYAUMA_ENGINE_LIMIT_H

#include "limits/governor.h"

enum limit_kind {
    LIMIT_NONE,
    LIMIT_RATE,       /* one source x one site */
    LIMIT_TOTAL_RATE, /* one site, over all sources */
    LIMIT_WARMUP,     /* one source at one provider: limits/warmup.h */
    LIMIT_KINDS
};

struct limit_denial {
    enum limit_kind kind;
    uint64_t max; /* messages in period_ms */
    uint32_t period_ms;
    uint64_t until_ns; /* monotonic: when to ask again */
};

struct limit {
    struct governor_entry *entry; /* NULL: no such limit */
    enum limit_kind kind;
};

/* "rate", as status and the documentation call it. */
const char *limit_name(enum limit_kind kind);
/* 0: all of limits gave leave for n messages. -EAGAIN: none was taken, *why says which refused. */
int limits_take(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t n,
                struct limit_denial *why) MUST_USE;
/* Gives back what limits_take() took of all of them and nobody sent. */
void limits_give(const struct limit *limits, size_t len, uint64_t now_ns, uint32_t n);
/* Whether they would. The refusal that lasts longest. */
int limits_ask(const struct limit *limits, size_t len, uint64_t now_ns,
               struct limit_denial *why) MUST_USE;

#endif

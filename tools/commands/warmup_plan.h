/* What a configuration's warm-up comes to: caps day by day, and how long a list takes. It runs the
 * engine's own rules (limits/warmup_stream.h) over whole days in which all goes well. Pure. */
#ifndef HAYAUMA_TOOLS_WARMUP_PLAN_H
#define HAYAUMA_TOOLS_WARMUP_PLAN_H

#include "limits/warmup_stream.h"

#define PLAN_PROVIDERS_MAX 16
#define PLAN_DAYS_MAX      1000

struct plan_share { /* of a list's recipients */
    char provider[CONFIG_SHARE_NAME_MAX + 1];
    uint32_t percent;
};

/* Where a stream stands. */
struct plan_start {
    const char *source, *provider;
    uint32_t stage, used; /* stage from 0, as many as there are: no cap; used: of today */
    bool paused;
};

struct plan {
    const struct config *config;
    const char *source; /* NULL: all that are being warmed up, together */
    struct plan_share mix[PLAN_PROVIDERS_MAX];
    size_t mix_len;
    int32_t today;
    uint64_t list;                   /* recipients; 0: there is always mail */
    const struct plan_start *starts; /* of others: the first stage */
    size_t starts_len;
};

struct plan_day {
    uint32_t number; /* from 1 */
    int32_t day;
    uint64_t caps[PLAN_PROVIDERS_MAX]; /* over all sources; UINT64_MAX: none */
    uint64_t most; /* recipients of such a mix that the caps let through; UINT64_MAX: any number */
    uint64_t sent, left; /* of the list */
};

/* "google=40,microsoft=20,default=40", 100 in all. 0, or -EINVAL with what is wrong in why. */
int plan_mix_parse(struct plan *p, struct str text, struct buf *why) MUST_USE;
/* Visits days until no cap is left, or none changes any more, or the list is sent, or visit()
 * returns false; PLAN_DAYS_MAX at most. 0, or -ENOENT: no source is being warmed up, or the one
 * named is not. */
int plan_run(const struct plan *p, bool (*visit)(void *arg, const struct plan_day *day),
             void *arg) MUST_USE;

#endif

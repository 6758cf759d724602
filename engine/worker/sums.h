/* What became of mail since the start, for screens: of each source at each site, of each tenant, of
 * each campaign. Not for workers: it looks at all entries of limits, or all flows. */
#ifndef HAYAUMA_ENGINE_SUMS_H
#define HAYAUMA_ENGINE_SUMS_H

#include "limits/governor.h"

struct queue;
struct governor;

enum sums_of { SUMS_SOURCE_SITE, SUMS_TENANT, SUMS_CAMPAIGN };

struct sums_row {
    struct map_node node;
    char *name; /* of the source, tenant or campaign; "" is mail without one */
    char *site; /* of a source's; else "" */
    uint64_t attempts, delivered, deferred, bounced, bytes; /* recipients; of what was taken */
    uint64_t bounced_by[GOVERNOR_REASONS_MAX];              /* by classify_reason() */
    /* Of a source at a site. */
    uint64_t connect_failures, sessions; /* now */
    uint64_t held_ms[GOVERNOR_WAITS];
};

struct sums {
    struct sums_row **rows; /* those with most attempts, the most first */
    size_t len;
    struct sums_row others; /* all the others together, which were so many */
    size_t others_len;
};

/* out has at most max rows. q: of tenants and campaigns; g: of sources. */
void sums_gather(struct queue *q, struct governor *g, enum sums_of of, size_t max,
                 struct sums *out);
void sums_done(struct sums *s);

#endif

/* What a campaign's report is drawn from: the figures of its JSON (docs/http.md, "The report"), and
 * how they are said. One thread. */
#ifndef HAYAUMA_TOOLS_CAMPAIGN_FIGURES_H
#define HAYAUMA_TOOLS_CAMPAIGN_FIGURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"

#define FIGURES_STEPS_MAX 1024
#define FIGURES_TIMES_MAX 64

struct figures {
    const json_t *campaign, *report; /* live as long as these */
    uint64_t recipients, delivered, failed, expired, cancelled, queued, deferrals;
    /* Over time: in steps of step_s seconds from from_s on. */
    int64_t from_s, step_s;
    size_t steps;
    uint64_t rate_delivered[FIGURES_STEPS_MAX], rate_failed[FIGURES_STEPS_MAX],
        rate_deferrals[FIGURES_STEPS_MAX];
    /* Deliveries by how long they took: less than below_s, and not less than the one before; 0:
     * all the others. first to last have some; last < first: none has. */
    size_t times, times_first, times_last;
    uint64_t below_s[FIGURES_TIMES_MAX], took[FIGURES_TIMES_MAX];
    /* What a rate is told per: the unit in which the highest one is readable. */
    uint32_t unit_s;
    const char *unit; /* "second", "minute", "hour" */
    uint64_t peak;    /* of deliveries, per unit */
};

/* campaign: as the engine sent it, with its report. False: it has none. */
bool figures_read(struct figures *out, const json_t *campaign);
/* Deliveries of a step, per unit. */
double figures_rate(const struct figures *f, uint64_t in_step);
/* Within what time so much (0 to 1) of all deliveries were made, in seconds; between the edges by a
 * straight line. 0: there are none. */
double figures_quantile(const struct figures *f, double share);
/* "98.6 %" of a whole; of next to all or nothing never "100 %" or "0 %". */
void put_share(struct buf *out, uint64_t part, uint64_t whole);
/* A time in the local zone. */
enum local_form {
    LOCAL_WHOLE,      /* "2026-11-29 09:00 JST" */
    LOCAL_DAY,        /* "11-29 09:00" */
    LOCAL_DAY_SECOND, /* "11-29 09:00:17" */
    LOCAL_MINUTE,     /* "09:00" */
    LOCAL_SECOND      /* "09:00:17" */
};
void put_local_time(struct buf *out, int64_t s, enum local_form form);
/* "45 s", "12 min", "3.5 h", "2 d". */
void put_seconds(struct buf *out, double s);
/* The name of an edge of times: "< 5 min"; of the last one "longer". */
void put_below(struct buf *out, const struct figures *f, size_t i);

#endif

/* The sites that the engine has now, gathered by its workers one after the other; and what limits
 * there are at one. Threads: the main thread's backend_sites(), the workers' the rest. */
#ifndef HAYAUMA_ENGINE_BACKEND_SITES_H
#define HAYAUMA_ENGINE_BACKEND_SITES_H

#include "control/control.h"
#include "schedule/site.h"
#include "worker/shared.h"

/* Takes a CONTROL_JOB_SITES; control_job_done() follows, with a line for each site in memory, those
 * with most mail first. Main thread. */
void backend_sites(struct shared *all, struct control_job *job);
/* "provider":..., "exchangers_name":..., "limits":[...]: each limit that holds at site, with whom
 * it is of, its value and where that comes from. */
void backend_put_limits(const struct site *site, const struct feed_limits *shares, struct buf *out);
/* The same of a provider that there is no site of. */
void backend_put_provider(const struct config *c, const struct config_provider *p, struct buf *out);

#endif

/* Where mail would go: the answer of the worker of its domain, which looks up the route as for mail
 * and opens no session. Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_BACKEND_ROUTE_H
#define HAYAUMA_ENGINE_BACKEND_ROUTE_H

#include "control/control.h"
#include "worker/shared.h"

/* Takes a CONTROL_JOB_ROUTE; control_job_done() follows. Main thread. */
void backend_route(struct shared *all, struct control_job *job);
/* The worker drains or ends: jobs whose lookups are under way are done, with -ESHUTDOWN. */
void backend_routes_abandon(struct worker *w);

#endif

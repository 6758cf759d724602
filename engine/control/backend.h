/* What the control channel asks of the engine: the backend of engine/control/control.h. Main
 * thread; what workers must do goes to them as notes and comes back by control_job_done(). */
#ifndef HAYAUMA_ENGINE_BACKEND_H
#define HAYAUMA_ENGINE_BACKEND_H

#include "control/control.h"
#include "worker/shared.h"

struct backend {
    struct shared *shared;
    /* What the process is, all but its workers; how serve reloads (it knows the file) and begins
     * its drain. */
    void (*describe)(void *arg, struct control_description *out);
    int (*reload)(void *arg, struct buf *cannot, struct buf *errors);
    void (*drain)(void *arg);
    const struct config *(*config)(void *arg); /* the running one */
    void *arg;
};

extern const struct control_backend backend_functions; /* arg: struct backend */

#endif

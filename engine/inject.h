/* SMTP intake: listeners and sessions. A session steps smtp_server, gathers the content, makes
 * message and recipients, and answers 250 when the queue says that they are committed (promise 1).
 *
 * While a commit is awaited what the client pipelines is kept, up to INJECT_PENDING_MAX bytes; then
 * receiving pauses. A client that goes away before its 250 does not undo the commit: it will send
 * again, which is the duplicate that SMTP allows. */
#ifndef HAYAUMA_ENGINE_INJECT_H
#define HAYAUMA_ENGINE_INJECT_H

#include "engine/worker.h"
#include "smtp/server.h"

#define INJECT_PENDING_MAX (256u << 10)

struct inject_listener {
    struct worker *worker;
    struct config *config; /* a reference; the rest points into it */
    const struct config_listener *settings;
    struct io_op accept;
    struct timer timer; /* accepting goes on after descriptors ran out */
    size_t index;       /* in engine->listener_sessions: that of the start, whatever reloads do */
    int fd;             /* -1: closed */
    bool complained;    /* of accepting, since it worked last */
};

/* Binds the listeners of w->config. 0 or -errno; *which is the listener that failed. */
int inject_open(struct worker *w, const struct config_listener **which) MUST_USE;
void inject_start(struct worker *w);
/* New sessions get the settings of w->config (listeners are matched by address). */
void inject_reload(struct worker *w);
/* Sends replies, frees ended sessions. Once a turn. */
void inject_flush_all(struct worker *w);
/* Closes the listeners; sessions get 421, unless content is under way. hard: all are cut. */
void inject_drain(struct worker *w, bool hard);
bool inject_drained(const struct worker *w);
void inject_close(struct worker *w);

#endif

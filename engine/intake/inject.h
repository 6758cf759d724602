/* SMTP intake: listeners and sessions. A session steps smtp_server, gathers the content, makes
 * message and recipients, and answers 250 when the queue says that they are committed (promise 1).
 *
 * A client that pipelines does not wait for its 250, nor does its session: the next transaction is
 * read, checked and submitted while earlier ones commit, INJECT_COMMITS_MAX of them or
 * INJECT_COMMIT_BYTES_MAX bytes at most, and while the intake has room. Replies stay in order
 * (inject_reply.c): what is said to a later command waits for the answers in front of it. So:
 *   RSET, errors, refusals   concern the transaction being read; what was submitted commits
 *   QUIT, 421, a drain       end the reading; the session ends when all answers are sent
 *   the limits of a session  count a message when it is submitted (errors and commands begin anew)
 *   the end of the client    undoes no commit: who saw no 250 will send again, which is the
 *                            duplicate that SMTP allows
 * Beyond the bounds what the client sends is kept, up to INJECT_PENDING_MAX bytes; then receiving
 * pauses. */
#ifndef HAYAUMA_ENGINE_INJECT_H
#define HAYAUMA_ENGINE_INJECT_H

#include "smtp/server.h"
#include "worker/worker.h"

#define INJECT_PENDING_MAX      (256u << 10)
#define INJECT_COMMITS_MAX      64
#define INJECT_COMMIT_BYTES_MAX (1u << 20)

struct inject_listener {
    struct worker *worker;
    struct config *config; /* a reference; the rest points into it */
    const struct config_listener *settings;
    struct io_op accept;
    struct timer timer; /* accepting goes on after descriptors ran out */
    size_t index;       /* in shared->listener_sessions: that of the start, whatever reloads do */
    int fd;             /* -1: closed */
    bool complained;    /* of accepting, since it worked last */
    uint64_t proxy_complaint_ms; /* monotonic: when a balancer's wrong header may be told again */
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
